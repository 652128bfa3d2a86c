/// The listings of what the packages make public, in docs/api: a change of the public API shows there.
module PatchUp.Tests.Api

open System
open System.IO
open System.Text.RegularExpressions
open PublicApiGenerator

let private indent (line: string) = line.Length - line.TrimStart().Length

/// A declaration with what belongs to it: the attributes before it, and the lines after it that stand further in.
let private isHidden (line: string) =
    Regex.IsMatch(line, @"^\s*(private|internal)\b|^[^:=(]*\b(private|internal)\b")

/// The public part of a signature file that the F# compiler wrote, without the comments.
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

let private ofFSharp name =
    let lines =
        publicPart (File.ReadAllText(Path.Combine(AppContext.BaseDirectory, $"{name}.fsi")))

    // The compiler begins each source file with its namespace.
    let isHeader line =
        line = "namespace FSharp" || line = $"namespace {name}"

    $"namespace {name}" :: List.filter (isHeader >> not) lines

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
