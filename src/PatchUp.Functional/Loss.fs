namespace PatchUp.Functional

open System
open TorchSharp

/// A loss of one's own: two are equal when their names are.
[<CustomEquality; NoComparison>]
type CustomLoss =
    {
        Name: string
        /// Each sample's loss `[N]` from logits and soft targets `[N,K]`.
        PerSample: torch.Tensor -> torch.Tensor -> torch.Tensor
    }

    override this.Equals other =
        match other with
        | :? CustomLoss as that -> this.Name = that.Name
        | _ -> false

    override this.GetHashCode() = hash this.Name

/// A loss of each sample at a soft target y, from logits f and their softmax q.
type Loss =
    /// -sum_k y_k log q_k. Affine in the target.
    | CrossEntropy
    /// The mean over classes of binary cross-entropy on q: what the PatchUp authors train every method with. Affine in the target.
    | BceOnSoftmax
    /// sum_k (q_k - y_k)^2 (Brier 1950). Not affine in the target.
    | Brier
    /// The loss at smoothed targets.
    | Smoothed of amount: float * Loss
    | CustomLoss of CustomLoss

[<RequireQualifiedAccess>]
module Loss =

    /// Each sample's loss `[N]` from logits `[N,K]` and soft targets `[N,K]` of the same type.
    let rec perSample (loss: Loss) (logits: torch.Tensor) (targets: torch.Tensor) : torch.Tensor =
        let softmax () =
            torch.nn.functional.softmax (logits, 1L)

        Scope.run (fun () ->
            match loss with
            | CrossEntropy -> (targets * torch.nn.functional.log_softmax (logits, 1L)).sum(1L).neg()
            | BceOnSoftmax ->
                torch.nn.functional
                    .binary_cross_entropy(softmax (), targets, reduction = torch.nn.Reduction.None)
                    .mean([| 1L |])
            | Brier -> (softmax () - targets).square().sum(1L)
            | Smoothed(amount, loss) ->
                perSample loss logits (Targets.smooth amount { Soft = targets; Mixed = None }).Soft
            | CustomLoss custom -> custom.PerSample logits targets)

    /// The batch's loss, a scalar: for a mixed batch the weighted terms of equation (6), each sample's own p_u weighing its own losses,
    /// then the mean over samples; for an unmixed batch the plain mean. At least float32, whatever the logits' type.
    let ofBatch (loss: Loss) (targets: Targets) (logits: torch.Tensor) : torch.Tensor =
        if not (logits.shape.AsSpan().SequenceEqual(targets.Soft.shape)) then
            let show (t: torch.Tensor) = String.Join(",", t.shape)
            invalidArg (nameof logits) $"Logits [{show logits}] do not go with targets [{show targets.Soft}]."

        Scope.run (fun () ->
            let logits =
                if logits.dtype = torch.float64 then
                    logits
                else
                    logits.``to`` (torch.float32)

            let at (rows: torch.Tensor) =
                perSample loss logits (rows.``to`` (logits.dtype))

            match targets.Mixed with
            | None -> (at targets.Soft).mean()
            | Some mixed ->
                let unchanged =
                    torch.tensor(mixed.Unchanged, device = logits.device).``to``(logits.dtype)

                let firstTerm () =
                    (unchanged * at mixed.Own + ((1.0).ToScalar() - unchanged) * at mixed.Altered).mean()

                let weighted (weight: float) (term: unit -> torch.Tensor) =
                    if weight = 0.0 then None
                    elif weight = 1.0 then Some(term ())
                    else Some(term () * weight.ToScalar())

                [ weighted mixed.Objective.First firstTerm
                  weighted mixed.Objective.Second (fun () -> (at targets.Soft).mean()) ]
                |> List.choose id
                |> List.reduce (+))
