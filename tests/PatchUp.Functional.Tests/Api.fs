/// The listings of what the packages make public, in docs/api: a change of the public API shows there.
module PatchUp.Tests.Api

open System
open System.IO
open System.Text.RegularExpressions
open PublicApiGenerator

let private indent (line: string) = line.Length - line.TrimStart().Length

let private isHidden (line: string) =
    Regex.IsMatch(line, @"^\s*(private|internal)\b|^[^:=(]*\b(private|internal)\b")

/// The public part of a signature that the F# compiler wrote, without the comments. A hidden declaration goes with the attributes
/// before it and the lines after it that stand further in.
let private publicPart (signature: string) =
    let rec walk kept attributes lines =
        match lines with
        | [] -> List.rev (attributes @ kept)
        | line: string :: rest when line.TrimStart().StartsWith "[<" -> walk kept (line :: attributes) rest
        | line :: rest when isHidden line ->
            walk kept [] (List.skipWhile (fun inner -> indent inner > indent line) rest)
        | line :: rest -> walk (line :: attributes @ kept) [] rest

    signature.ReplaceLineEndings("\n").Split '\n'
    |> List.ofArray
    |> List.filter (fun line -> line.Trim() <> "" && not (line.TrimStart().StartsWith "///"))
    |> walk [] []

/// Without the headings that repeat: the compiler begins each source file with its namespace.
let private joined lines =
    (([], ""), lines)
    ||> List.fold (fun (kept, heading) line ->
        if line = heading then
            kept, heading
        elif Regex.IsMatch(line, "^(namespace|module) ") then
            line :: kept, line
        else
            line :: kept, heading)
    |> fst
    |> List.rev

let private ofFSharp name =
    File.ReadAllText(Path.Combine(AppContext.BaseDirectory, $"{name}.signature.txt"))
    |> publicPart
    |> List.filter ((<>) "namespace FSharp")
    |> joined

let private ofCSharp (assembly: Reflection.Assembly) =
    let options = ApiGeneratorOptions(IncludeAssemblyAttributes = false)

    assembly.GeneratePublicApi(options).ReplaceLineEndings("\n").TrimEnd().Split '\n'
    |> List.ofArray

/// The lines of each package's listing, by the listing's path in the repository.
let listings =
    [ "PatchUp.Functional", fun () -> ofFSharp "PatchUp.Functional"
      "PatchUp.Functional.Laws", fun () -> ofFSharp "PatchUp.Functional.Laws"
      "PatchUp.Functional.CSharp", fun () -> ofCSharp typeof<PatchUp.Functional.CSharp.Masks>.Assembly ]
    |> List.map (fun (name, lines) -> $"docs/api/{name}.txt", lines)
