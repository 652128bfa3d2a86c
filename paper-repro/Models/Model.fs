namespace PatchUp.Repro

open PatchUp.Functional
open System
open TorchSharp

/// A classifier of images `[N,3,H,W]`.
[<NoEquality; NoComparison>]
type Model =
    {
        Name: string
        /// All parameters and buffers under PyTorch's names. Its `call` maps normalised images to logits `[N,K]`.
        Module: torch.nn.Module<torch.Tensor, torch.Tensor>
        /// The same function in named parts, first to last: their composition is `Module.call`, bit for bit.
        Stages: (string * (torch.Tensor -> torch.Tensor)) list
        /// Images in [0,1] to normalised ones: (x - mean) / std of each channel.
        Normalise: torch.Tensor -> torch.Tensor
    }

[<RequireQualifiedAccess>]
module Model =

    /// Normalised images to logits `[N,K]`.
    let call (model: Model) (images: torch.Tensor) : torch.Tensor = model.Module.call images

    /// Training mode: batch normalisation uses and follows the batch's statistics.
    let train (model: Model) : unit = model.Module.train ()

    /// Evaluation mode: batch normalisation uses its running statistics.
    let eval (model: Model) : unit = model.Module.eval ()

    /// The live parameters and then buffers by name: the module's own, not copies.
    let state (model: Model) : (string * torch.Tensor) list =
        [ for struct (name, parameter) in model.Module.named_parameters () do
              name, parameter :> torch.Tensor
          for struct (name, buffer) in model.Module.named_buffers () do
              name, buffer ]

    /// The number of trained numbers.
    let parameterCount (model: Model) : int64 =
        model.Module.parameters () |> Seq.sumBy _.NumberOfElements

    /// Where the parameters are.
    let device (model: Model) : torch.Device =
        (Seq.head (model.Module.parameters ())).device

    /// Moves all parameters and buffers to a device.
    let toDevice (device: torch.Device) (model: Model) : unit = model.Module.``to`` device |> ignore

    /// Copies of all parameters and buffers, which the caller disposes.
    let snapshot (model: Model) : (string * torch.Tensor) list =
        let names, live = List.unzip (state model)
        List.zip names (Scope.many (fun () -> live |> List.map (fun tensor -> tensor.detach().clone())))

    /// Copies a snapshot back; an ArgumentException unless it has the model's names and shapes.
    let restore (snapshot: (string * torch.Tensor) list) (model: Model) : unit =
        let shapes =
            List.map (fun (name: string, tensor: torch.Tensor) -> name, List.ofArray tensor.shape)

        let live = state model

        if shapes snapshot <> shapes live then
            invalidArg (nameof snapshot) $"It is not a snapshot of {model.Name}: names or shapes differ."

        Scope.value (fun () ->
            use _ = torch.no_grad ()

            for (_, source), (_, target) in List.zip snapshot live do
                target.copy_ source |> ignore)

    /// Writes all parameters and buffers, and a map of strings, as a safetensors file.
    let save (path: string) (metadata: Map<string, string>) (model: Model) : unit =
        Scope.value (fun () ->
            [ for name, tensor in state model -> name, tensor.cpu () ]
            |> Safetensors.write path metadata)

    /// Reads what `save` wrote into a model of the same kind and gives the map of strings; a UserError, and the model
    /// unchanged, where the file is unsound or of another model.
    let load (path: string) (model: Model) : Map<string, string> = Safetensors.load path (state model)

    /// Frees all parameters and buffers.
    let dispose (model: Model) : unit = model.Module.Dispose()
