// F# Interactive runs this when a script or notebook references the package: it does not import PatchUp.Functional.targets,
// which says why TorchSharp's library does not load on Debian 12 and Ubuntu 22.04. Here a copy that does is loaded from a
// temporary file; TorchSharp then finds its library loaded.

open System
open System.IO
open System.Runtime.InteropServices

let private torchSharp = typeof<TorchSharp.torch.Tensor>.Assembly

let private isLoaded name =
    NativeLibrary.TryLoad(name, torchSharp, Nullable()) |> fst

/// What a need of GLIBCXX_3.4.32 begins with in an ELF library: the hash of the name, and flags, none of which is set.
let private need = [| 0x42uy; 0xf8uy; 0x97uy; 0x02uy; 0uy; 0uy |]

let private loadWeakened library =
    let elf = File.ReadAllBytes library
    let at = elf.AsSpan().IndexOf(ReadOnlySpan need)

    if at >= 0 then
        let copy = Path.GetTempFileName()

        try
            elf[at + 4] <- 2uy // VER_FLG_WEAK
            File.WriteAllBytes(copy, elf)
            NativeLibrary.Load copy |> ignore
        finally
            File.Delete copy

// Outside the folder of libtorch TorchSharp's library needs libtorch to be loaded already.
if OperatingSystem.IsLinux() && isLoaded "torch" && not (isLoaded "LibTorchSharp") then
    let library =
        Path.Combine(Path.GetDirectoryName torchSharp.Location, "../../runtimes/linux-x64/native/libLibTorchSharp.so")

    if File.Exists library then
        loadWeakened library
