/// A folder outside the repository in which consumers of the packages are built and run.
module PatchUp.Packages.Tests.Workshop

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Xml.Linq
open Expecto

type Workshop =
    {
        Folder: string
        /// The folder of the packages to try.
        Packages: string
        Version: string
        Environment: (string * string) list
    }

    interface IDisposable with
        member this.Dispose() =
            Directory.Delete(this.Folder, recursive = true)

/// NuGet's package folder on this machine.
let private cache =
    match Environment.GetEnvironmentVariable "NUGET_PACKAGES" with
    | null
    | "" -> Path.Combine(Environment.GetFolderPath Environment.SpecialFolder.UserProfile, ".nuget", "packages")
    | folder -> folder

/// The consumers get a package folder of their own, so that they never use older packages of the same version: into it NuGet
/// puts the packages to try, and TorchSharp, in whose folder TorchSharp itself may write; of all others there is a link.
/// Nothing comes from elsewhere: what the consumers need, the build has restored before.
let create packages =
    let folder = (Directory.CreateTempSubdirectory "patchup-consumers-").FullName
    let own = Path.Combine(folder, "packages")
    let home = Path.Combine(folder, "home")
    Directory.CreateDirectory own |> ignore
    Directory.CreateDirectory home |> ignore

    for package in Directory.GetDirectories cache do
        let name = Path.GetFileName package

        if name <> "torchsharp" && not (name.StartsWith "patchup.") then
            Directory.CreateSymbolicLink(Path.Combine(own, name), package) |> ignore

    // No settings of a folder above this one.
    for file in
        [ "Directory.Build.props"
          "Directory.Build.targets"
          "Directory.Packages.props" ] do
        File.WriteAllText(Path.Combine(folder, file), "<Project />")

    let version =
        let prefix = "PatchUp.Functional.CSharp."

        let package =
            Directory.GetFiles(packages, $"{prefix}*.nupkg")
            |> Array.exactlyOne
            |> Path.GetFileNameWithoutExtension

        package.Substring prefix.Length

    { Folder = folder
      Packages = packages
      Version = version
      Environment =
        [ "NUGET_PACKAGES", own
          "RestoreSources",
          String.concat
              ";"
              [ packages
                own
                yield! Directory.GetDirectories(Path.Combine(cache, "torchsharp")) ]
          "HOME", home
          "DOTNET_CLI_HOME", home
          "DOTNET_NOLOGO", "1"
          "DOTNET_GENERATE_ASPNET_CERTIFICATE", "false"
          "CreateHardLinksForCopyLocalIfPossible", "true"
          // No server of the build outlives it.
          "MSBUILDDISABLENODEREUSE", "1"
          "UseSharedCompilation", "false" ] }

/// Longer than any step takes on a slow machine.
let private patience = TimeSpan.FromMinutes 5.0

/// What a program wrote to its standard output; the test fails, with all that it wrote, if it does not end well in time.
let run workshop folder (program: string) (arguments: string list) =
    let start =
        ProcessStartInfo(
            program,
            arguments,
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    for name, value in workshop.Environment do
        start.Environment[name] <- value

    let line = String.concat " " (program :: arguments)
    use child = Process.Start start

    let output, errors =
        child.StandardOutput.ReadToEndAsync(), child.StandardError.ReadToEndAsync()

    if not (child.WaitForExit patience) then
        child.Kill(entireProcessTree = true)
        failtest $"{line} took more than {patience.TotalMinutes} minutes"

    if child.ExitCode <> 0 then
        failtest $"{line} ended with exit code {child.ExitCode}:\n{output.Result}\n{errors.Result}"

    output.Result

let dotnet workshop folder arguments = run workshop folder "dotnet" arguments

/// A consumer's source.
let source file =
    Path.Combine(AppContext.BaseDirectory, "consumers", file)

/// A new project of one source file, with one of the packages and the native library; the result is its folder.
let newProject workshop file package =
    let name = Path.GetFileNameWithoutExtension(file: string)

    let folder =
        (Directory.CreateDirectory(Path.Combine(workshop.Folder, name))).FullName

    File.Copy(source file, Path.Combine(folder, file))

    File.WriteAllText(
        Path.Combine(folder, $"{name}{Path.GetExtension file}proj"),
        $"""<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net10.0</TargetFramework>
    <ImplicitUsings>enable</ImplicitUsings>
  </PropertyGroup>
  <ItemGroup>
    <Compile Include="*.fs" />
    <PackageReference Include="{package}" Version="{workshop.Version}" />
    <PackageReference Include="libtorch-cpu-linux-x64" Version="2.10.0" />
  </ItemGroup>
</Project>"""
    )

    folder

// What packages hold

/// One of the packages, or of the packages of symbols.
let openPackage workshop name extension =
    ZipFile.OpenRead(Path.Combine(workshop.Packages, $"{name}.{workshop.Version}.{extension}"))

let read (package: ZipArchive) (entry: string) =
    match package.GetEntry entry with
    | null -> failtest $"the package has no {entry}, but {package.Entries |> Seq.map _.FullName |> List.ofSeq}"
    | found ->
        use content = found.Open()
        use memory = new MemoryStream()
        content.CopyTo memory
        memory.ToArray()

/// The elements of a package's description by their name.
let description package name =
    use text = new MemoryStream(read package $"{name}.nuspec")

    XElement.Load(text).Descendants() |> Seq.groupBy _.Name.LocalName |> Map.ofSeq

/// TorchSharp's native libraries in the consumers' package folder, each with what its package holds.
let natives workshop =
    [ for folder in Directory.GetDirectories(Path.Combine(workshop.Folder, "packages", "torchsharp")) do
          use package =
              Directory.GetFiles(folder, "*.nupkg") |> Array.exactlyOne |> ZipFile.OpenRead

          for entry in package.Entries do
              if entry.Name = "libLibTorchSharp.so" then
                  File.ReadAllBytes(Path.Combine(folder, entry.FullName)), read package entry.FullName ]
