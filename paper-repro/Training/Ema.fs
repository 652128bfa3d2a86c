namespace PatchUp.Repro

open PatchUp.Functional
open TorchSharp

/// The exponential moving average of a network's parameters and statistics.
[<NoEquality; NoComparison>]
type Ema =
    {
        /// The share that the average keeps of itself in a step, once it has seen many.
        Decay: float
        /// Under the network's names.
        Average: (string * torch.Tensor) list
    }

[<RequireQualifiedAccess>]
module Ema =

    /// Begins at what the model is; the average belongs to the caller's scope.
    let create (decay: float) (model: Model) : Ema =
        { Decay = decay
          Average = Model.snapshot model }

    /// Follows the model after a step, of which `before` came earlier: while there are few the average keeps less of
    /// itself, (1 + before) / (10 + before), so that it forgets where it began. Counts, which are whole numbers, are
    /// taken as they are.
    let update (before: int) (model: Model) (ema: Ema) : unit =
        Scope.value (fun () ->
            use _ = torch.no_grad ()
            let kept = min ema.Decay (float (1 + before) / float (10 + before))
            let weight = Scope.number (1.0 - kept)

            for (_, average), (_, live) in List.zip ema.Average (Model.state model) do
                if average.is_floating_point () then
                    average.lerp_ (live, weight.``to`` (average.dtype, average.device)) |> ignore
                else
                    average.copy_ live |> ignore)

    /// Does work on the model with the averages in place of its own numbers, which it gets back.
    let under (ema: Ema) (model: Model) (work: unit -> 'a) : 'a =
        let own = Model.snapshot model

        try
            Model.restore ema.Average model
            work ()
        finally
            Model.restore own model

            for _, tensor in own do
                tensor.Dispose()
