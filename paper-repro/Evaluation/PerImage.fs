namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Threading.Tasks
open TorchSharp

/// Work on the images of a tensor one by one.
[<RequireQualifiedAccess>]
module PerImage =

    /// The images, uint8 `[N,C,H,W]`, each changed by `change`, which is given the image's place in 0 .. N - 1 and its bytes `[C,H,W]`, and
    /// gives as many. All processors work; what is raised is what the first image raises of those that do.
    let map (change: int -> byte[] -> byte[]) (images: torch.Tensor) : torch.Tensor =
        if images.dtype <> torch.uint8 || images.dim () <> 4L then
            let size = String.Join(",", images.shape)
            invalidArg (nameof images) $"Images are uint8 [N,C,H,W]; these are {images.dtype} [{size}]."

        Scope.run (fun () ->
            let source = images.cpu().contiguous()
            let target = torch.empty_like source
            let count = int source.shape[0]
            let size = int (source.numel ()) / max 1 count
            let errors = Array.create<exn option> count None

            let one (i: int) =
                try
                    let changed = change i (source.bytes.Slice(i * size, size).ToArray())

                    if changed.Length <> size then
                        failwith $"an image of {size} bytes became one of {changed.Length}"

                    (ReadOnlySpan changed).CopyTo(target.bytes.Slice(i * size, size))
                with error ->
                    errors[i] <- Some error

            Parallel.For(0, count, one) |> ignore
            errors |> Array.tryPick id |> Option.iter raise
            target)
