// The build: dotnet fsi build.fsx <target>
//
// Each step returns a value that later steps ask for, so what must come before what is a matter of types: nothing runs
// without a build, and nothing is built without its packages. The targets stand at the end, each as one pipeline.

open System
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open System.Xml
open System.Xml.Linq

let root = __SOURCE_DIRECTORY__
let path (relative: string) = Path.Combine(root, relative)

// Processes

/// A step failed; the build stops and says why.
exception Stopped of reason: string

/// Where NuGet puts packages and where paket.dependencies looks for them; child processes must agree on it.
let packageCache =
    Path.Combine(Environment.GetFolderPath Environment.SpecialFolder.UserProfile, ".nuget", "packages")

/// Runs dotnet at the root and gives its exit code.
let run arguments =
    let start =
        ProcessStartInfo("dotnet", (arguments: string list), WorkingDirectory = root)

    start.Environment["NUGET_PACKAGES"] <- packageCache
    start.Environment["OMP_WAIT_POLICY"] <- "PASSIVE" // spinning threads of libtorch slow down everything beside them
    printfn "> dotnet %s" (String.concat " " arguments)
    use child = Process.Start start
    child.WaitForExit()
    child.ExitCode

let dotnet arguments =
    match run arguments with
    | 0 -> ()
    | code -> raise (Stopped $"dotnet {List.head arguments} ended with exit code {code}.")

let emptyFolder folder =
    if Directory.Exists folder then
        Directory.Delete(folder, recursive = true)

    Directory.CreateDirectory folder |> ignore

// Restoring and building

/// The tools of .config/dotnet-tools.json can be called.
type Tools = Tools

/// Every project has its packages.
type Restored = Restored

/// The assemblies that the solution was built into.
type Built =
    { Program: string
      Tests: string
      CSharpTests: string
      PackageTests: string
      Benchmarks: string }

/// The folder of the packed libraries.
type Packed = Packed of folder: string

let restoreTools () =
    dotnet [ "tool"; "restore" ]
    Tools

/// Name and version of each package in paket.lock.
let lockedPackages () =
    [ for line in File.ReadLines(path "paket.lock") do
          let package = Regex.Match(line, @"^    (\S+) \((\S+)\)")

          if package.Success then
              package.Groups[1].Value, package.Groups[2].Value ]

/// Paket's source is the package cache, so NuGet first puts there what is missing.
let download packages =
    let items =
        [ for name, version in packages ->
              XElement("PackageDownload", XAttribute("Include", name), XAttribute("Version", $"[{version}]")) ]

    let project = path "obj/download/download.proj"
    emptyFolder (Path.GetDirectoryName project)
    XElement("Project", XAttribute("Sdk", "Microsoft.NET.Sdk"), XElement("ItemGroup", items)).Save project
    dotnet [ "restore"; project ]

let restore Tools =
    let isMissing (name: string, version: string) =
        // NuGet writes this file last.
        let proof =
            Path.Combine(packageCache, name.ToLowerInvariant(), version, ".nupkg.metadata")

        not (File.Exists proof)

    match List.filter isMissing (lockedPackages ()) with
    | [] -> ()
    | missing -> download missing

    dotnet [ "paket"; "restore" ]
    Restored

let build Restored =
    dotnet [ "build"; "PatchUp.Functional.sln"; "-c"; "Release"; "-warnaserror" ]

    let output project assembly =
        path $"{project}/bin/Release/net10.0/{assembly}.dll"

    { Program = output "paper-repro" "patchup"
      Tests = output "tests/PatchUp.Functional.Tests" "PatchUp.Functional.Tests"
      CSharpTests = output "tests/PatchUp.Functional.CSharp.Tests" "PatchUp.Functional.CSharp.Tests"
      PackageTests = output "tests/PatchUp.Packages.Tests" "PatchUp.Packages.Tests"
      Benchmarks = output "tests/PatchUp.Benchmarks" "PatchUp.Benchmarks" }

// Packing

/// Packs the libraries as they were built; their version is the newest one in CHANGELOG.md (see Directory.Build.props).
let pack (_: Built) =
    let folder = path "artifacts"
    emptyFolder folder

    for library in [ "PatchUp.Functional"; "PatchUp.Functional.Laws"; "PatchUp.Functional.CSharp" ] do
        dotnet [ "pack"; $"src/{library}"; "-c"; "Release"; "--no-build"; "-o"; folder ]

    Packed folder

// Formatting

let sources = [ "src"; "tests"; "paper-repro"; "build.fsx" ]

let format Tools = dotnet ("fantomas" :: sources)

let checkFormat Tools =
    dotnet ([ "fantomas"; "--check" ] @ sources)

// Tests

type Tally =
    { Passed: int
      Failed: int
      Skipped: int }

    static member (+)(a, b) =
        { Passed = a.Passed + b.Passed
          Failed = a.Failed + b.Failed
          Skipped = a.Skipped + b.Skipped }

let nothing = { Passed = 0; Failed = 0; Skipped = 0 }

let number name (element: XElement) =
    Int32.Parse (element.Attribute(XName.Get name)).Value

/// Counts in the XML that Expecto writes.
let readNUnit (report: XElement) =
    let failed = number "failures" report + number "errors" report
    let skipped = number "ignored" report

    { Passed = number "total" report - failed - skipped
      Failed = failed
      Skipped = skipped }

/// Says which tests Expecto skipped, and why.
let showSkipped (report: XElement) =
    for case in report.Descendants(XName.Get "test-case") do
        let text name = (case.Attribute(XName.Get name)).Value

        if text "executed" = "False" then
            printfn $"""Skipped ({case.Value.Trim()}): {text "name"}"""

/// Counts in the XML that `dotnet test` writes.
let readTrx (report: XElement) =
    let counters =
        report.Descendants()
        |> Seq.find (fun element -> element.Name.LocalName = "Counters")

    let executed, passed = number "executed" counters, number "passed" counters

    { Passed = passed
      Failed = executed - passed
      Skipped = number "total" counters - executed }

/// Runs one suite and counts its results. One that crashed or ran nothing counts as a failure, whatever its report says.
let runSuite arguments report read =
    let code = run arguments

    let tally =
        try
            read (XElement.Parse(File.ReadAllText report))
        with
        | :? IOException
        | :? XmlException -> nothing

    if tally.Failed = 0 && (code <> 0 || tally = nothing) then
        printfn $"No test failed, yet the suite did not end well: exit code {code}, {tally.Passed} tests passed."
        { tally with Failed = 1 }
    else
        tally

/// No test is left out by one that was focused on, and the output is plain.
let expectoOptions = [ "--fail-on-focused-tests"; "--no-spinner"; "--colours"; "0" ]

let runSuites built (Packed packages) =
    let reports = path "results/tests"
    emptyFolder reports
    let report name = Path.Combine(reports, name)

    let expecto program file =
        let report = report file

        runSuite (program @ [ "--nunit-summary"; report ] @ expectoOptions) report (fun report ->
            showSkipped report
            readNUnit report)

    let xunit () =
        let log =
            [ "--logger"; "trx;LogFileName=csharp.trx"; "--results-directory"; reports ]

        runSuite ([ "test"; built.CSharpTests ] @ log) (report "csharp.trx") readTrx

    expecto [ built.Tests ] "fsharp.xml"
    + xunit ()
    + expecto [ built.PackageTests; packages ] "packages.xml"

/// The last line is what CI reads.
let summarise tally =
    if tally.Skipped > 0 then
        printfn $"{tally.Skipped} skipped"

    printfn $"{tally.Passed} passed, {tally.Failed} failed"
    if tally.Failed = 0 then 0 else 1

// Coverage

/// The F# test program, built so that its copy of the core may be rewritten to count what is run.
type Coverable = Coverable of tests: string

/// Debug, because there the compiler keeps the lines as they are written, and because bin/Release then never holds an
/// assembly that an interrupted run left rewritten; the next build here replaces it.
let buildForCoverage Restored =
    dotnet [ "build"; "tests/PatchUp.Functional.Tests"; "-c"; "Debug" ]
    Coverable(path "tests/PatchUp.Functional.Tests/bin/Debug/net10.0/PatchUp.Functional.Tests.dll")

/// The build makes hard links (see Directory.Build.props), and coverlet writes into the file that it finds: without a
/// copy in the link's place it would rewrite the core's own output too.
let unlink file =
    let copy = $"{file}.copy"
    File.Copy(file, copy, overwrite = true)
    File.Move(copy, file, overwrite = true)

/// A project that has coverlet rewrite the core, runs the tests, puts the core back and reports, whether or not they
/// passed. The suite is a program of its own, so coverlet's targets are called here rather than by `dotnet test`.
///
/// Nothing is excluded by attribute. The F# compiler gives what it generates itself no line to count, but it marks the
/// local functions of a class, which are written by hand, as CompilerGenerated.
let coverageProject (Coverable tests) folder =
    let package =
        let version = lockedPackages () |> List.find (fst >> (=) "coverlet.msbuild") |> snd

        Path.Combine(packageCache, "coverlet.msbuild", version, "build")

    let import file =
        XElement("Import", XAttribute("Project", Path.Combine(package, file)))

    let settings =
        [ "TargetPath", tests
          "Include", "[PatchUp.Functional]*"
          "SingleHit", "true"
          "CoverletOutput", folder + "/"
          "CoverletOutputFormat", "json,cobertura" ]

    let suite =
        XElement(
            "Exec",
            XAttribute("Command", String.concat " " ([ "dotnet"; $"\"{tests}\"" ] @ expectoOptions)),
            XAttribute("WorkingDirectory", root),
            XAttribute("IgnoreExitCode", "true"),
            XAttribute("IgnoreStandardErrorWarningFormat", "true"),
            XElement("Output", XAttribute("TaskParameter", "ExitCode"), XAttribute("PropertyName", "SuiteExitCode"))
        )

    let verdict =
        XElement(
            "Error",
            XAttribute("Condition", "'$(SuiteExitCode)' != '0'"),
            XAttribute("Text", "The tests ended with exit code $(SuiteExitCode).")
        )

    let target name (after: string) (task: XElement) =
        XElement("Target", XAttribute("Name", name), XAttribute("DependsOnTargets", after), task)

    XElement(
        "Project",
        XAttribute("Sdk", "Microsoft.NET.Sdk"),
        XElement("PropertyGroup", [ for name, value in settings -> XElement(name, value) ]),
        import "coverlet.msbuild.props",
        import "coverlet.msbuild.targets",
        target "RunSuite" "InstrumentModules" suite,
        target "Cover" "RunSuite;GenerateCoverageResult" verdict
    )

/// How many there are, and how many of them were run.
type Share =
    { Run: int
      All: int }

    static member (+)(a, b) =
        { Run = a.Run + b.Run
          All = a.All + b.All }

type Coverage =
    { Lines: Share
      Branches: Share }

    static member (+)(a, b) =
        { Lines = a.Lines + b.Lines
          Branches = a.Branches + b.Branches }

/// Each source file and what of it was run, from coverlet's own JSON: in it the methods stand in classes, in files, in
/// modules. Its Cobertura report leaves out the branches of a closure on a line that also belongs to the method around it.
let readCoverage (report: JsonElement) =
    let values (parent: JsonElement) =
        parent.EnumerateObject() |> Seq.map _.Value

    let share (hits: JsonElement seq) =
        { Run = hits |> Seq.filter (fun hit -> hit.GetInt32() > 0) |> Seq.length
          All = Seq.length hits }

    let coverage (method': JsonElement) =
        { Lines = method'.GetProperty "Lines" |> values |> share
          Branches =
            method'.GetProperty("Branches").EnumerateArray()
            |> Seq.map _.GetProperty("Hits")
            |> share }

    [ for file in values report |> Seq.collect _.EnumerateObject() do
          Path.GetFileName file.Name, values file.Value |> Seq.collect values |> Seq.map coverage |> Seq.reduce (+) ]

/// Runs the tests and prints which part of the core they ran. That a test failed does not keep the table back; the exit
/// code says it.
let cover coverable =
    let (Coverable tests) = coverable

    for file in [ "PatchUp.Functional.dll"; "PatchUp.Functional.pdb" ] do
        unlink (Path.Combine(Path.GetDirectoryName tests, file))

    let project, results = path "obj/coverage/coverage.proj", path "results/coverage"
    emptyFolder (Path.GetDirectoryName project)
    emptyFolder results
    (coverageProject coverable results).Save project

    let code =
        run
            [ "msbuild"
              project
              "-target:Cover"
              "-verbosity:minimal"
              "-terminalLogger:off" ]

    let report = Path.Combine(results, "coverage.json")

    let files =
        if File.Exists report then
            readCoverage (JsonElement.Parse(File.ReadAllText report))
        else
            []

    if List.isEmpty files then
        raise (Stopped "coverlet counted nothing.")

    let percent share =
        if share.All = 0 then
            "-"
        else
            $"%.1f{100.0 * float share.Run / float share.All} %%"

    let row name lines branches =
        printfn $"{name, -16}{lines, 8}{branches, 8}"

    row "" "line" "branch"

    for name, coverage in List.sortBy fst files do
        row name (percent coverage.Lines) (percent coverage.Branches)

    let core = files |> List.map snd |> List.reduce (+)
    printfn $"core: line {percent core.Lines}, branch {percent core.Branches}"
    if code = 0 then 0 else 1

// Programs

/// The program's comparison with its defaults.
let demo built =
    dotnet [ built.Program; "compare"; "--out"; "results/demo" ]

/// Rewrites what is generated in the README and in docs.
let docs built = dotnet [ built.Tests; "--update-docs" ]

let bench options built = dotnet (built.Benchmarks :: options)

/// The program as one file that has .NET and lacks libtorch: it takes that of a PyTorch (see PATCHUP_LIBTORCH in the README).
let publish Restored =
    let folder = path "artifacts/patchup"
    emptyFolder folder

    dotnet
        [ "publish"
          "paper-repro"
          "-c"
          "Release"
          "-p:WithoutLibTorch=true"
          "-o"
          folder ]

// Targets

let usage =
    """Usage: dotnet fsi build.fsx <target>

  demo             builds, then compares the methods on the embedded images; it writes to results/demo
  test             builds and packs, then runs every test
  check            checks the formatting, and that everything builds without a warning
  docs             builds, then rewrites the code blocks, outputs and tables of the README and docs
  format           formats the F# sources
  coverage         builds, then runs the F# tests and prints which part of the core they ran; it writes to results/coverage
  bench [options]  builds, then runs the benchmarks with these options
  pack             builds, then packs the libraries into artifacts
  publish          makes the program one file without libtorch, artifacts/patchup/patchup"""

let completed () = 0

let execute arguments =
    match arguments with
    | [ "demo" ] -> restoreTools () |> restore |> build |> demo |> completed
    | [ "test" ] ->
        let built = restoreTools () |> restore |> build
        pack built |> runSuites built |> summarise
    | [ "docs" ] -> restoreTools () |> restore |> build |> docs |> completed
    | [ "format" ] -> restoreTools () |> format |> completed
    | [ "check" ] ->
        let tools = restoreTools ()
        checkFormat tools
        tools |> restore |> build |> ignore |> completed
    | [ "coverage" ] -> restoreTools () |> restore |> buildForCoverage |> cover
    | "bench" :: options -> restoreTools () |> restore |> build |> bench options |> completed
    | [ "pack" ] -> restoreTools () |> restore |> build |> pack |> ignore |> completed
    | [ "publish" ] -> restoreTools () |> restore |> publish |> completed
    | _ ->
        eprintfn $"{usage}"
        2

try
    exit (execute (List.tail (List.ofArray fsi.CommandLineArgs)))
with Stopped reason ->
    eprintfn $"Stopped: {reason}"
    exit 1
