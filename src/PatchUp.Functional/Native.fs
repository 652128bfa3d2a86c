namespace PatchUp.Functional

open System
open System.Buffers.Binary
open System.Diagnostics
open System.IO
open System.Runtime.InteropServices
open TorchSharp

/// libtorch's major, minor and patch number, each in a byte, the first one highest.
type private VersionNumber = delegate of unit -> uint64

/// Which libtorch TorchSharp computes with. Where a program's packages bring one, nothing need be called. Otherwise a folder that holds one, such
/// as `torch/lib` of a PyTorch installation, is loaded here before TorchSharp is first used. On Linux only.
[<RequireQualifiedAccess>]
module Native =

    /// The environment variable that names a folder of libtorch.
    let variable = "PATCHUP_LIBTORCH"

    [<DllImport("libc.so.6")>]
    extern nativeint private dlopen(string path, int flags)

    [<DllImport("libc.so.6")>]
    extern nativeint private dlerror()

    /// Opens a library with all its symbols bound at once: one that is missing shows now and not as the end of the process at its first call.
    let private openNow (path: string) : Result<nativeint, string> =
        // Binding this import opens libraries as well, so it comes before the error that is asked for.
        dlerror () |> ignore

        match dlopen (path, 2) with
        | 0n -> Error(Marshal.PtrToStringUTF8(dlerror ()))
        | handle -> Ok handle

    /// Whether a library of the ELF format has all that the system's loader maps of it. The loader does not ask, and the process ends where a file
    /// that was cut short is read.
    let private isWhole (path: string) : bool =
        use file = File.OpenRead path

        let read (offset: int64) count =
            let bytes = Array.zeroCreate<byte> count
            file.Position <- offset

            if file.ReadAtLeast(bytes, count, false) = count then
                Some bytes
            else
                None

        let word (bytes: byte[]) at =
            int (BinaryPrimitives.ReadUInt16LittleEndian(ReadOnlySpan(bytes, at, 2)))

        let long (bytes: byte[]) at =
            BinaryPrimitives.ReadUInt64LittleEndian(ReadOnlySpan(bytes, at, 8))

        let segmentSize, load = 56, 1u

        let isThere (segment: byte[]) =
            uint32 (long segment 0) <> load
            || bigint (long segment 8) + bigint (long segment 32) <= bigint file.Length

        match read 0L 64 with
        | Some header when
            header.AsSpan(0, 6).SequenceEqual("\127ELF\002\001"B)
            && word header 54 = segmentSize
            && long header 32 <= uint64 file.Length
            ->
            read (int64 (long header 32)) (segmentSize * word header 56)
            |> Option.exists (Array.chunkBySize segmentSize >> Array.forall isThere)
        | _ -> false

    /// In the order in which each needs the ones before it; the parts for CUDA may be missing.
    let private libraries =
        [ "libc10.so", true
          "libtorch_cpu.so", true
          "libc10_cuda.so", false
          "libtorch_cuda.so", false
          "libtorch.so", true ]

    let private core = "libtorch_cpu.so"

    /// Where this process has a libtorch from.
    let private inUse () : string option =
        use self = Process.GetCurrentProcess()

        self.Modules
        |> Seq.cast<ProcessModule>
        |> Seq.tryFind (fun part -> Path.GetFileName part.FileName = core)
        |> Option.map (fun part -> Path.GetDirectoryName part.FileName)

    /// Where .NET looks for the native libraries of a program, before it asks the system's loader.
    let private searched () : string list =
        let known = string (AppContext.GetData "NATIVE_DLL_SEARCH_DIRECTORIES")

        AppContext.BaseDirectory
        :: List.ofArray (known.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries))
        |> List.map Path.TrimEndingDirectorySeparator
        |> List.distinct

    let private bundled (file: string) : string option =
        searched ()
        |> List.map (fun folder -> Path.Combine(folder, file))
        |> List.tryFind File.Exists

    /// Major and minor number of the libtorch that TorchSharp was built for. `torch.__version__` says so too, but loads one first.
    let private wanted = 2, 10

    /// The same of a library of the folder; None for an old one, which does not say.
    let private versionOf (core: nativeint) : (int * int) option =
        match NativeLibrary.TryGetExport(core, "aoti_torch_abi_version") with
        | true, entry ->
            let number = Marshal.GetDelegateForFunctionPointer<VersionNumber>(entry).Invoke()
            Some(int (number >>> 56), int (number >>> 48) &&& 255)
        | _ -> None

    let private needed =
        let major, minor = wanted
        let torchSharp = typeof<torch.Tensor>.Assembly.GetName().Version.ToString 3
        $"TorchSharp {torchSharp} needs libtorch {major}.{minor}, as in torch/lib of PyTorch {major}.{minor}"

    let private refuse (folder: string) (reason: string) : 'a =
        raise (ArgumentException $"{folder} cannot be used as libtorch: {reason}. {needed}.")

    let private openIn (folder: string) (file: string, isNeeded: bool) : unit =
        let path = Path.Combine(folder, file)

        if File.Exists path then
            let isWhole =
                try
                    isWhole path
                with
                | :? IOException
                | :? UnauthorizedAccessException as error -> refuse folder $"{file} cannot be read ({error.Message})"

            if not isWhole then
                refuse folder $"{file} is no whole library"

            match openNow path with
            | Error reason -> refuse folder $"{file} does not load ({reason})"
            | Ok handle when file = core && versionOf handle <> Some wanted ->
                match versionOf handle with
                | Some(major, minor) -> refuse folder $"its version is {major}.{minor}"
                | None -> refuse folder "its version is an older one"
            | Ok _ -> ()
        elif isNeeded then
            refuse folder $"it has no {file}"

    let private openAll (folder: string) : unit =
        // Later libraries find the ones before by their names, wherever these were loaded from.
        List.iter (openIn folder) libraries

        match bundled "libLibTorchSharp.so" |> Option.map openNow with
        | Some(Error reason) -> refuse folder $"TorchSharp's own library does not go with it ({reason})"
        | _ -> ()

    /// The folder that `load` was given; what the system says of a library in use is where links lead.
    let mutable private loaded: string option = None

    /// Loads libtorch from a folder, with its CUDA part if there is one; to be called before TorchSharp is first used, and no more than that is needed.
    /// Where this process has its libtorch from the same folder already, nothing happens. An ArgumentException where the folder has no libtorch or
    /// one that does not go with TorchSharp; then this process may be unable to load another. An InvalidOperationException where the process has
    /// loaded another libtorch, or TorchSharp would find one beside the program as well. A PlatformNotSupportedException elsewhere than on Linux.
    let load (folder: string) : unit =
        if not (OperatingSystem.IsLinux()) then
            raise (PlatformNotSupportedException "libtorch can be loaded from a folder on Linux only; use a package.")

        let folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath folder)

        match inUse () with
        | Some other when loaded = Some folder || other = folder -> ()
        | Some other ->
            invalidOp $"libtorch is loaded from {other} already: load {folder} before TorchSharp is first used."
        | None ->
            if not (Directory.Exists folder) then
                refuse folder "there is no such folder"

            match bundled core |> Option.map Path.GetDirectoryName with
            | Some other when other <> folder ->
                invalidOp
                    $"This program has a libtorch of its own in {other}, which TorchSharp would load beside that of {folder}: build it without that package."
            | _ ->
                openAll folder
                loaded <- Some folder

    /// Loads libtorch from the folder that the environment variable `variable` names; nothing where it is not set. Raises as `load` does.
    let ofEnvironment () : unit =
        match Environment.GetEnvironmentVariable variable with
        | null
        | "" -> ()
        | folder -> load folder
