namespace PatchUp.Functional

open System
open TorchSharp

/// How much the loss depends on each place of the input, for regions that follow it: sqrt(mean over channels of (dL/dx)^2), `[N,H,W]` row-major. Its
/// scale means nothing. `Saliency.follow` gives it to a draw; a plan that does not ask costs nothing.
[<RequireQualifiedAccess>]
module Saliency =

    let private managed (tensor: torch.Tensor) : float32[] =
        tensor.detach().cpu().``to``(torch.float32).contiguous().data<float32>().ToArray()

    /// Images `[N,C,H,W]` as numbers, row-major: for `Pixels`.
    let pixels (images: torch.Tensor) : float32[] = Scope.value (fun () -> managed images)

    let private lossOf loss (model: torch.nn.Module<torch.Tensor, torch.Tensor>) (batch: Batch) (input: torch.Tensor) =
        if input.dim () <> 4L then
            invalidArg (nameof batch) $"Saliency is that of images [N,C,H,W]; these have rank {input.dim ()}."

        Loss.ofBatch loss batch.Targets (model.call input)

    let private leaf (batch: Batch) =
        batch.Features.detach().clone().requires_grad_(true)

    /// The loss's gradient by the images, `[N,C,H,W]` row-major, of a model in evaluation mode. Parameters and their gradients, statistics of normalisations and the
    /// modes of all submodules stay as they are.
    let gradient (loss: Loss) (model: torch.nn.Module<torch.Tensor, torch.Tensor>) (batch: Batch) : float32[] =
        Probe.evaluating model (fun () ->
            use _ = torch.enable_grad ()
            let input = leaf batch
            let value = lossOf loss model batch input

            // A loss that no parameter and no input moves has no gradient, and asking for it would end the process.
            if value.requires_grad then
                let gradient =
                    torch.autograd.grad ([| value |], [| input |], allow_unused = true) |> Seq.head

                managed (
                    if gradient.IsInvalid then
                        torch.zeros_like input
                    else
                        gradient
                )
            else
                managed (torch.zeros_like input))

    /// The same of a model in the mode that it is in, from a pass that trains too: `weight` times the loss is added to the gradients of the parameters, and
    /// normalisations follow the batch (PuzzleMix's clean loss). An ArgumentException unless the weight is positive.
    let gradientWithCleanLoss
        (weight: float)
        (loss: Loss)
        (model: torch.nn.Module<torch.Tensor, torch.Tensor>)
        (batch: Batch)
        : float32[] =
        if not (weight > 0.0) then
            invalidArg (nameof weight) $"The weight of the clean loss is {weight}; it must be positive."

        Scope.value (fun () ->
            let input = leaf batch
            let value = lossOf loss model batch input

            if value.requires_grad then
                (value * (Scope.number weight).``to``(value.dtype)).backward()

            managed (
                if isNull input.grad then
                    torch.zeros_like input
                else
                    input.grad
            ))

    let private ofGradient (batch: Batch) (gradient: float32[]) : float32[] =
        let size = batch.Features.shape
        Puzzle.ofGradient (int size[0]) (int size[1]) gradient

    /// The saliency by `gradient`.
    let ofModel (loss: Loss) (model: torch.nn.Module<torch.Tensor, torch.Tensor>) (batch: Batch) : float32[] =
        gradient loss model batch |> ofGradient batch

    /// The information with all that a region may ask for which follows the input: the saliency and the gradient under noise, each by one pass of `gradient` (`Saliency.gradient CrossEntropy
    /// model`, or `gradientWithCleanLoss`) when it is first asked for, and the images. `normalise` maps images `[N,C,H,W]` of [0, 1], which
    /// `images` are, to the network's input, each channel by a scale and a shift; `batch` has that input. The batch and the images must live as long as the information is drawn from.
    let follow
        (gradient: Batch -> float32[])
        (normalise: torch.Tensor -> torch.Tensor)
        (images: torch.Tensor)
        (batch: Batch)
        (info: BatchInfo)
        : BatchInfo =
        let scale () =
            Scope.value (fun () ->
                use _ = torch.no_grad ()

                let black =
                    torch.zeros ([| 1L; images.shape[1]; 1L; 1L |], dtype = images.dtype, device = images.device)

                normalise (torch.ones_like black) - normalise black |> managed)

        let underNoise (noise: float32[]) =
            Scope.value (fun () ->
                let noise = torch.tensor (noise, ReadOnlySpan images.shape, device = images.device)

                gradient
                    { batch with
                        Features = normalise (Scope.add images (noise.``to`` images.dtype)) })

        { info with
            Saliency = Some(lazy (gradient batch |> ofGradient batch))
            Pixels = Some(lazy (pixels images))
            Noisy =
                Some
                    { Gradient = underNoise
                      Scale = lazy (scale ()) } }
