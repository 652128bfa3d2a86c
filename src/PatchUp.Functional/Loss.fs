namespace PatchUp.Functional

open System
open TorchSharp

/// A loss of one's own: two are equal when their names are.
[<CustomEquality; NoComparison>]
type CustomLoss =
    {
        Name: string
        /// Whether a sample's loss is affine in its target: l(f, t y + (1 - t) y') = t l(f, y) + (1 - t) l(f, y'). If so, `twoTerm` is twice
        /// `reweighted`.
        IsAffine: bool
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

    /// Whether a sample's loss is affine in its target, so that the two terms of equation (6) are the same number.
    let rec isAffine (loss: Loss) : bool =
        match loss with
        | CrossEntropy
        | BceOnSoftmax -> true
        | Brier -> false
        | Smoothed(_, loss) -> isAffine loss
        | CustomLoss custom -> custom.IsAffine

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

    let private checkSizes (targets: Targets) (logits: torch.Tensor) =
        if not (logits.shape.AsSpan().SequenceEqual(targets.Soft.shape)) then
            let show (t: torch.Tensor) = String.Join(",", t.shape)
            invalidArg (nameof logits) $"Logits [{show logits}] do not go with targets [{show targets.Soft}]."

    /// The batch's loss, a scalar: for a mixed batch the weighted terms of equation (6), each sample's own p_u weighing its own losses,
    /// then the mean over samples; for an unmixed batch the plain mean. At least float32, whatever the logits' type, on the device of the logits and
    /// targets.
    let ofBatch (loss: Loss) (targets: Targets) (logits: torch.Tensor) : torch.Tensor =
        checkSizes targets logits

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
                    (Scope.add (unchanged * at mixed.Own) ((Scope.number 1.0 - unchanged) * at mixed.Altered)).mean()

                let weighted (weight: float) (term: unit -> torch.Tensor) =
                    if weight = 0.0 then
                        None
                    elif weight = 1.0 then
                        Some(term ())
                    else
                        Some(term () * (Scope.number weight).``to``(logits.dtype))

                [ weighted mixed.Objective.First firstTerm
                  weighted mixed.Objective.Second (fun () -> (at targets.Soft).mean()) ]
                |> List.choose id
                |> List.reduce Scope.add)

    /// Accuracy that means something under mixing, for each sample `[N]`: the weight that its target gives to the class of its largest logit,
    /// from logits `[N,K]`. Without mixing 1 where the prediction is right and 0 elsewhere; under mixing its mean is the accuracy to be expected
    /// of a prediction for one of the mixed features' owners.
    let expectedAccuracy (targets: Targets) (logits: torch.Tensor) : float[] =
        checkSizes targets logits

        Scope.value (fun () ->
            targets.Soft
                .gather(1L, logits.argmax(1L).unsqueeze 1L)
                .squeeze(1L)
                .``to``(torch.CPU)
                .``to``(torch.float64)
                .data<float>()
                .ToArray())
