namespace PatchUp.Repro

open System
open System.IO
open System.Runtime.InteropServices
open PatchUp.Functional
open TorchSharp

/// Where tensors are computed, and by which libtorch.
[<RequireQualifiedAccess>]
module Device =

    /// Where the build puts the package's libtorch. Beside the program itself TorchSharp would always load it.
    let private packaged = Path.Combine(AppContext.BaseDirectory, "libtorch")

    /// Loads libtorch, before the first tensor: from the folder that PATCHUP_LIBTORCH names, else the one that was built with the program. A UserError
    /// where there is none that TorchSharp can use.
    let prepare () : unit =
        let loading (named: string) load =
            try
                load ()
            with
            | :? ArgumentException
            | :? InvalidOperationException
            | :? PlatformNotSupportedException as error -> Errors.user $"{named}{error.Message}"

        if String.IsNullOrEmpty(Environment.GetEnvironmentVariable Native.variable) then
            if Directory.Exists packaged then
                loading "" (fun () -> Native.load packaged)
        else
            loading $"{Native.variable}: " Native.ofEnvironment

        match NativeLibrary.TryLoad("torch_cpu", typeof<torch.Tensor>.Assembly, Nullable()) with
        | true, _ -> ()
        | _ ->
            Errors.user
                $"this program was built without libtorch: set {Native.variable} to a folder that has it, such as torch/lib of PyTorch 2.10."

    /// What can be asked for.
    let names = [ "auto"; "cpu"; "cuda" ]

    /// The device of a name of `names`: cpu or cuda, of which auto is cuda where there is one. A UserError for cuda where there is none, and for any
    /// other name.
    let choose (name: string) : string =
        match name with
        | "cpu" -> name
        | "auto" -> if torch.cuda_is_available () then "cuda" else "cpu"
        | "cuda" when torch.cuda_is_available () -> name
        | "cuda" ->
            Errors.user
                $"device cuda: there is none here, or libtorch has no CUDA part; build with a CUDA package or set {Native.variable} to \
                  torch/lib of a PyTorch 2.10 with CUDA, or take the device cpu."
        | _ ->
            let allowed = String.concat ", " names
            Errors.user $"device '{name}': it must be one of {allowed}."
