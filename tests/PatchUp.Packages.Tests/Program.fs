/// The packages as their users meet them: `PatchUp.Packages.Tests FOLDER` installs those of the folder in a new C# project, a
/// new F# project and a script, and runs these. Where libstdc++ is older than TorchSharp asks for, as on Debian 12, that
/// they run at all shows that the packages bring the remedy.
module PatchUp.Packages.Tests.Program

open System
open System.IO
open System.Text
open System.Xml.Linq
open Expecto
open PatchUp.Packages.Tests.Workshop

let private lines (text: string) =
    text.Split('\n', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
    |> List.ofArray

/// So many finite losses, the same ones every time, and then these lines.
let private expectTraining steps rest (run: unit -> string) =
    let first = lines (run ())
    Expect.equal (List.length first) (steps + List.length rest) $"{steps} losses, and {rest}, in {first}"

    for loss in List.take steps first do
        Expect.isTrue (Double.IsFinite(float loss)) $"the loss {loss} is a finite number"

    Expect.equal (List.skip steps first) rest "what it prints of the laws"
    Expect.equal (lines (run ())) first "the second run prints the same"

let private lawsKept = [ "5 laws kept, 0 broken, 0 silent" ]

/// What the need of GLIBCXX_3.4.32 begins with in an ELF library: the hash of its name, then flags, of which 2 means weak.
let private need flags =
    [| 0x42uy; 0xf8uy; 0x97uy; 0x02uy; flags; 0uy |]

let private holds (pattern: byte[]) (bytes: byte[]) = bytes.AsSpan().IndexOf pattern >= 0

/// The copies of TorchSharp's library below a folder, none of which needs the newer libstdc++.
let private expectWeakened folder =
    let copies =
        Directory.GetFiles(folder, "libLibTorchSharp.so", SearchOption.AllDirectories)

    Expect.isNonEmpty copies $"TorchSharp's library stands in {folder}"

    for copy in copies do
        let elf = File.ReadAllBytes copy
        Expect.isTrue (holds (need 2uy) elf) $"{copy} needs GLIBCXX_3.4.32 weakly"
        Expect.isFalse (holds (need 0uy) elf) $"{copy} needs it in no other way"

    [ for copy in copies -> copy, File.GetLastWriteTimeUtc copy ]

let private consumers workshop =
    testList
        "consumers"
        [ test "a C# project builds, trains, builds again to the same files, and is published" {
              let folder = newProject workshop "TrainCSharp.cs" "PatchUp.Functional.CSharp"
              dotnet workshop folder [ "build" ] |> ignore
              let built = expectWeakened folder
              let program = "bin/Debug/net10.0/TrainCSharp.dll"
              expectTraining 5 [] (fun () -> dotnet workshop folder [ program ])

              dotnet workshop folder [ "build" ] |> ignore
              Expect.equal (expectWeakened folder) built "nothing is weakened or copied again"

              // For one platform, where the native libraries stand beside the program.
              dotnet workshop folder [ "publish"; "-r"; "linux-x64"; "--no-self-contained"; "-o"; "published" ]
              |> ignore

              let published = Path.Combine(folder, "published")
              expectWeakened published |> ignore
              expectTraining 5 [] (fun () -> run workshop published (Path.Combine(published, "TrainCSharp")) [])
          }

          test "an F# project builds, trains and checks laws" {
              let folder = newProject workshop "TrainFSharp.fs" "PatchUp.Functional.Laws"
              dotnet workshop folder [ "build" ] |> ignore
              expectWeakened folder |> ignore
              expectTraining 2 lawsKept (fun () -> dotnet workshop folder [ "bin/Debug/net10.0/TrainFSharp.dll" ])
          }

          test "the F# program runs as a script" {
              let folder = Path.Combine(workshop.Folder, "script")
              Directory.CreateDirectory folder |> ignore

              File.WriteAllText(
                  Path.Combine(folder, "train.fsx"),
                  $"#r \"nuget: PatchUp.Functional.Laws, {workshop.Version}\"\n"
                  + "#r \"nuget: libtorch-cpu-linux-x64, 2.10.0\"\n"
                  + File.ReadAllText(source "TrainFSharp.fs")
              )

              expectTraining 2 lawsKept (fun () -> dotnet workshop folder [ "fsi"; "--quiet"; "train.fsx" ])
          }

          test "the package folder's library is the one that TorchSharp's package holds" {
              let natives = natives workshop
              Expect.isNonEmpty natives "there is one"

              for found, original in natives do
                  Expect.isTrue (found.AsSpan().SequenceEqual original) "the same bytes"
          } ]

let private dependencies =
    [ "PatchUp.Functional", [ "FSharp.Core"; "TorchSharp" ]
      "PatchUp.Functional.Laws", [ "FSharp.Core"; "FsCheck"; "PatchUp.Functional"; "TorchSharp" ]
      "PatchUp.Functional.CSharp", [ "PatchUp.Functional"; "PatchUp.Functional.Laws"; "TorchSharp" ] ]

let private contents workshop =
    testList
        "contents"
        [ for name, needed in dependencies do
              test $"{name} has a licence, documentation, symbols, and only its own dependencies" {
                  use package = openPackage workshop name "nupkg"
                  let elements = description package name

                  let only element =
                      (Seq.exactlyOne elements[element]: XElement)

                  let attribute (name: string) (element: XElement) = element.Attribute(XName.Get name).Value
                  Expect.equal (only "version").Value workshop.Version "the version of its file name"
                  Expect.equal (only "license").Value "MIT" "an SPDX expression"
                  Expect.stringStarts (Encoding.UTF8.GetString(read package (only "readme").Value)) "# " "the README"

                  let ids = [ for dependency in elements["dependency"] -> attribute "id" dependency ]

                  Expect.equal (List.sort ids) needed "dependencies"

                  for dependency in elements["dependency"] do
                      // The remedy reaches whoever references the package, so buildTransitive must not be left out.
                      Expect.equal (attribute "exclude" dependency) "Build,Analyzers" "what is left out"

                  let documented = Encoding.UTF8.GetString(read package $"lib/net10.0/{name}.xml")
                  Expect.stringContains documented "<summary>" "comments for the editor"
                  use symbols = openPackage workshop name "snupkg"

                  // A folder of this machine, in an assembly or its symbols, would make each build another one.
                  for bytes in
                      [ read package $"lib/net10.0/{name}.dll"
                        read symbols $"lib/net10.0/{name}.pdb" ] do
                      for encoding in [ Encoding.UTF8; Encoding.Unicode ] do
                          let repository = Path.GetDirectoryName workshop.Packages
                          Expect.isFalse (holds (encoding.GetBytes repository) bytes) $"no {repository} in it"
              }

          test "the core carries the remedy for builds and for scripts" {
              use package = openPackage workshop "PatchUp.Functional" "nupkg"
              let targets = read package "buildTransitive/PatchUp.Functional.targets"
              Expect.equal (XElement.Parse(Encoding.UTF8.GetString targets)).Name.LocalName "Project" "a build file"
              read package "content/PatchUp.Functional.fsx" |> ignore
          } ]

[<EntryPoint>]
let main args =
    match List.ofArray args with
    | packages :: options when Directory.Exists packages ->
        use workshop = create (Path.GetFullPath packages)

        testList "packages" [ contents workshop; consumers workshop ]
        |> testSequenced
        |> runTestsWithCLIArgs [] (Array.ofList options)
    | _ ->
        eprintfn "Usage: PatchUp.Packages.Tests FOLDER [options of Expecto], where FOLDER holds the packages"
        2
