namespace PatchUp.Repro

open System
open PatchUp.Functional
open TorchSharp

/// Stochastic gradient descent with Nesterov's momentum and weight decay, whose state can be stored and put back: the
/// numbers of PyTorch's `SGD`, bit for bit.
[<NoEquality; NoComparison>]
type Sgd =
    {
        /// The network's own, by name.
        Parameters: (string * torch.Tensor) list
        /// The momentum of each, under the same names; zero before the first step.
        Velocity: (string * torch.Tensor) list
        Momentum: float
        WeightDecay: float
    }

[<RequireQualifiedAccess>]
module Sgd =

    /// For parameters that are where they stay; the velocities belong to the caller's scope, or are freed by `dispose`.
    let create (momentum: float) (weightDecay: float) (parameters: (string * torch.Tensor) list) : Sgd =
        let names, tensors = List.unzip parameters

        { Parameters = parameters
          Velocity = List.zip names (Scope.many (fun () -> tensors |> List.map torch.zeros_like))
          Momentum = momentum
          WeightDecay = weightDecay }

    /// One step at this learning rate, in place; parameters without a gradient stay. The gradients are left.
    let step (rate: float) (sgd: Sgd) : unit =
        Scope.value (fun () ->
            use _ = torch.no_grad ()
            // Named, so that they outlive the native calls that read them.
            use decay = sgd.WeightDecay.ToScalar()
            use momentum = sgd.Momentum.ToScalar()
            use one = (1.0).ToScalar()
            use back = (-rate).ToScalar()

            for (_, parameter), (_, velocity) in List.zip sgd.Parameters sgd.Velocity do
                let gradient = parameter.grad

                if not (isNull gradient) then
                    let decayed =
                        if sgd.WeightDecay = 0.0 then
                            gradient
                        else
                            gradient.add (parameter, decay)

                    velocity.mul_(momentum).add_(decayed, one) |> ignore
                    parameter.add_ (decayed.add (velocity, momentum), back) |> ignore)

    /// Shrinks all gradients by one factor so that their norm, that of all numbers together, is at most this. A norm that
    /// is not finite stays.
    let clip (most: float) (sgd: Sgd) : unit =
        Scope.value (fun () ->
            use _ = torch.no_grad ()

            let gradients =
                sgd.Parameters
                |> List.map (fun (_, parameter) -> parameter.grad)
                |> List.filter (isNull >> not)

            let square (gradient: torch.Tensor) =
                gradient.``to``(torch.float64).square().sum().item<float>()

            let norm = sqrt (List.sumBy square gradients)

            if norm > most && Double.IsFinite norm then
                let factor = Scope.number (most / norm)

                for gradient in gradients do
                    gradient.mul_ factor |> ignore)

    /// Frees the velocities.
    let dispose (sgd: Sgd) : unit =
        for _, velocity in sgd.Velocity do
            velocity.Dispose()
