namespace PatchUp.Functional

open TorchSharp

/// How much the loss depends on each place of the input, for regions that follow it: sqrt(mean over channels of (dL/dx)^2), `[N,H,W]` row-major. Its
/// scale means nothing. Give it to a draw as `Saliency = Some(lazy (Saliency.ofModel loss model batch))`: a plan that does not ask costs nothing.
[<RequireQualifiedAccess>]
module Saliency =

    let private ofGradient (gradient: torch.Tensor) : float32[] =
        gradient.``to``(torch.float32).square().mean([| 1L |]).sqrt().cpu().contiguous().data<float32>().ToArray()

    /// Images `[N,C,H,W]` as numbers, row-major: for `Pixels`.
    let pixels (images: torch.Tensor) : float32[] =
        Scope.value (fun () -> images.detach().cpu().``to``(torch.float32).contiguous().data<float32>().ToArray())

    let private lossOf loss (model: torch.nn.Module<torch.Tensor, torch.Tensor>) (batch: Batch) (input: torch.Tensor) =
        if input.dim () <> 4L then
            invalidArg (nameof batch) $"Saliency is that of images [N,C,H,W]; these have rank {input.dim ()}."

        Loss.ofBatch loss batch.Targets (model.call input)

    let private leaf (batch: Batch) =
        batch.Features.detach().clone().requires_grad_(true)

    /// Of a model in evaluation mode. Parameters and their gradients, statistics of normalisations and the modes of all submodules stay as they are.
    let ofModel (loss: Loss) (model: torch.nn.Module<torch.Tensor, torch.Tensor>) (batch: Batch) : float32[] =
        Probe.evaluating model (fun () ->
            use _ = torch.enable_grad ()
            let input = leaf batch
            let value = lossOf loss model batch input

            // A loss that no parameter and no input moves has no gradient, and asking for it would end the process.
            if value.requires_grad then
                let gradient =
                    torch.autograd.grad ([| value |], [| input |], allow_unused = true) |> Seq.head

                ofGradient (
                    if gradient.IsInvalid then
                        torch.zeros_like input
                    else
                        gradient
                )
            else
                ofGradient (torch.zeros_like input))

    /// The same of a model in the mode that it is in, from a pass that trains too: `weight` times the loss is added to the gradients of the parameters, and
    /// normalisations follow the batch (PuzzleMix's clean loss). An ArgumentException unless the weight is positive.
    let withCleanLoss
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

            ofGradient (
                if isNull input.grad then
                    torch.zeros_like input
                else
                    input.grad
            ))
