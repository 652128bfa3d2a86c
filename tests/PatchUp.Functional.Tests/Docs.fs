/// The code blocks of the README and the docs: cut from compiled files, or the output of commands and snippets run here.
/// A comment before a block says what it is: `<!-- snippet: name -->`, `<!-- run -->` or `<!-- output: name -->`. The table
/// of laws stands between `<!-- laws -->` and `<!-- end laws -->`, tables of attacks likewise. `--update-docs` rewrites all that.
module PatchUp.Tests.Docs

open System
open System.IO
open System.Text.RegularExpressions
open PatchUp.Functional.Laws

/// The repository's root, from wherever the tests run.
let root =
    let rec up (folder: DirectoryInfo) =
        if File.Exists(Path.Combine(folder.FullName, "PatchUp.Functional.sln")) then
            folder.FullName
        else
            up folder.Parent

    up (DirectoryInfo AppContext.BaseDirectory)

let private sources =
    [ "tests/PatchUp.Functional.Tests/Snippets.fs"
      "tests/PatchUp.Functional.CSharp.Tests/CustomTests.cs"
      "tests/PatchUp.Functional.CSharp.Tests/TrainingTests.cs"
      "tests/PatchUp.Packages.Tests/consumers/TrainCSharp.cs" ]

let private read (path: string) =
    File.ReadAllText(Path.Combine(root, path)).ReplaceLineEndings "\n"

let private undent (text: string) =
    let lines = text.Split '\n'

    let indent =
        lines
        |> Array.filter (String.IsNullOrWhiteSpace >> not)
        |> Array.map (fun line -> line.Length - line.TrimStart().Length)
        |> Array.min

    lines
    |> Array.map (fun line ->
        if line.Length >= indent then
            line.Substring indent
        else
            line)
    |> String.concat "\n"

let private snippets =
    lazy
        Map
            [ for source in sources do
                  for found in
                      Regex.Matches(read source, @"// snippet: (\w+)\n(.*?)\n *// end snippet", RegexOptions.Singleline) do
                      found.Groups[1].Value, undent found.Groups[2].Value ]

/// What the program prints at the repository's root for a line such as `patchup describe "blocks 7 0.5"`.
let private output (line: string) =
    let arguments =
        [| for part in Regex.Matches(line, "\"([^\"]*)\"|(\\S+)") |> Seq.skip 1 ->
               if part.Groups[1].Success then
                   part.Groups[1].Value
               else
                   part.Value |]

    use out = new StringWriter()

    let streams: PatchUp.Repro.Streams =
        { Out = out
          Err = out
          IsTerminal = false }

    let before = Environment.CurrentDirectory
    Environment.CurrentDirectory <- root

    try
        PatchUp.Repro.Program.run streams arguments |> ignore
    finally
        Environment.CurrentDirectory <- before

    out.ToString().ReplaceLineEndings("\n").TrimEnd()

/// The laws as a table.
let private lawTable =
    lazy
        (let cell (text: string) = text.Replace("|", @"\|")

         let kind (law: Law) =
             match law.Kind with
             | LawKind.Exact -> "exact"
             | LawKind.Structural -> "structural"
             | LawKind.Statistical(tolerance, _) ->
                 let chance = Law.showChance (Law.falseAlarm Law.defaults law)

                 $"statistical, within {tolerance:F3}, false alarm below {chance}"

         [ "| about | law | what it says | kind |"
           "|---|---|---|---|"
           for law in Laws.all do
               $"| {law.About} | {cell law.Name} | {cell law.Statement} | {kind law} |" ]
         |> String.concat "\n")

/// The document with every block as it ought to be.
let private renderBlocks (text: string) =
    let block (comment: string) language (body: string) =
        $"{comment}\n```{language}\n{body}\n```"

    let withSnippets =
        Regex.Replace(
            text,
            @"(<!-- snippet: (\w+) -->)\n```(\w+)\n(.*?)```",
            (fun found -> block found.Groups[1].Value found.Groups[3].Value (snippets.Value[found.Groups[2].Value])),
            RegexOptions.Singleline
        )

    let withOutputs =
        Regex.Replace(
            withSnippets,
            @"(<!-- output: (\w+) -->)\n```text\n(.*?)```",
            (fun found -> block found.Groups[1].Value "text" (Snippets.outputs[found.Groups[2].Value].Value)),
            RegexOptions.Singleline
        )

    let withLaws =
        Regex.Replace(
            withOutputs,
            @"<!-- laws -->\n(.*?)<!-- end laws -->",
            (fun _ -> $"<!-- laws -->\n{lawTable.Value}\n<!-- end laws -->"),
            RegexOptions.Singleline
        )

    let withTables =
        [ "checks of attacks", AttackTests.checkTable
          "broken attacks", AttackTests.mutantTable ]
        |> List.fold
            (fun text (name, table) ->
                Regex.Replace(
                    text,
                    $@"<!-- {name} -->\n(.*?)<!-- end {name} -->",
                    (fun _ -> $"<!-- {name} -->\n{table ()}\n<!-- end {name} -->"),
                    RegexOptions.Singleline
                ))
            withLaws

    Regex.Replace(
        withTables,
        @"(<!-- run -->)\n```console\n\$ ([^\n]*)\n(.*?)```",
        (fun found ->
            let line = found.Groups[2].Value
            block found.Groups[1].Value "console" $"$ {line}\n{output line}"),
        RegexOptions.Singleline
    )

/// A document as it ought to be; that of the mutants is made whole.
let render (path: string) (text: string) =
    match Path.GetFileName path with
    | "mutants.md" -> MutantTests.report ()
    | _ -> renderBlocks text

/// The documents that hold code or results.
let documents =
    Path.Combine(root, "README.md")
    :: List.ofArray (Directory.GetFiles(Path.Combine(root, "docs"), "*.md"))

/// Rewrites the blocks, and the listings of the public API.
let update () =
    for path in documents do
        File.WriteAllText(path, render path (File.ReadAllText path))

    for path, lines in Api.listings do
        File.WriteAllLines(Path.Combine(root, path), lines ())
