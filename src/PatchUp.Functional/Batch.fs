namespace PatchUp.Functional

open System
open TorchSharp

/// What the last step that changed labels leaves for equation (6).
[<NoEquality; NoComparison>]
type MixedTargets =
    {
        /// y_i: the samples' targets before the step, `[N,K]`.
        Own: torch.Tensor
        /// Y: the targets of the altered features (equation 7), `[N,K]`.
        Altered: torch.Tensor
        /// p_u: each sample's unchanged share, `[N]`.
        Unchanged: float[]
        Objective: Objective
    }

/// The soft targets of a batch.
[<NoEquality; NoComparison>]
type Targets =
    {
        /// One row of class weights a sample, `[N,K]`; after mixing W of equation (8).
        Soft: torch.Tensor
        /// None while no step has changed them.
        Mixed: MixedTargets option
    }

/// Features and their targets.
[<NoEquality; NoComparison>]
type Batch =
    {
        /// `[N,C,H,W]`, `[N,C,L]` or `[N,C]`.
        Features: torch.Tensor
        Targets: Targets
    }

[<RequireQualifiedAccess>]
module Targets =

    /// Targets given as numbers: one-hot, soft or multi-label rows `[N,K]`, floating point; half precision is widened to float32, so that mixed
    /// rows keep their sum. The tensor stays the caller's.
    let ofSoft (rows: torch.Tensor) : Targets =
        if rows.dim () <> 2L || not (rows.is_floating_point ()) then
            let shape = String.Join(",", rows.shape)
            invalidArg (nameof rows) $"Soft targets are floating-point rows [N,K]; these are {rows.dtype} [{shape}]."

        let isHalf = rows.dtype = torch.bfloat16 || rows.dtype = torch.float16

        { Soft =
            if isHalf then
                rows.``to`` (torch.float32)
            else
                rows.alias ()
          Mixed = None }

    /// Class indices 0 .. classes - 1 as one-hot rows `[N,K]` in float32 on the device, which must be that of the features; an ArgumentException
    /// for an index outside.
    let ofIndices (device: torch.Device) (classes: int) (labels: int[]) : Targets =
        let rows = Array.zeroCreate<float32>(labels.Length * classes)

        labels
        |> Array.iteri (fun i label ->
            if label < 0 || label >= classes then
                invalidArg
                    (nameof labels)
                    $"The label {label} of sample {i} is outside the {classes} classes 0 .. {classes - 1}."

            rows[i * classes + label] <- 1.0f)

        { Soft = torch.tensor (rows, ReadOnlySpan [| int64 labels.Length; int64 classes |], device = device)
          Mixed = None }

    /// Every tensor of the targets.
    let tensors (targets: Targets) : torch.Tensor list =
        targets.Soft
        :: (match targets.Mixed with
            | Some mixed -> [ mixed.Own; mixed.Altered ]
            | None -> [])

    /// The same targets with other tensors, in the order of `tensors`.
    let internal withTensors (tensors: torch.Tensor list) (targets: Targets) : Targets =
        match targets.Mixed, tensors with
        | Some mixed, [ soft; own; altered ] ->
            { Soft = soft
              Mixed =
                Some
                    { mixed with
                        Own = own
                        Altered = altered } }
        | _ ->
            { Soft = List.head tensors
              Mixed = None }

    /// Label smoothing: (1 - amount) y + amount / K for every row (Szegedy et al. 2016). It commutes with mixing.
    let smooth (amount: float) (targets: Targets) : Targets =
        if not (amount >= 0.0 && amount <= 1.0) then
            invalidArg (nameof amount) $"Label smoothing {amount}: it must lie in [0, 1]."

        let classes = float targets.Soft.shape[1]

        let smoothed =
            Scope.many (fun () ->
                [ for rows in tensors targets ->
                      Scope.add (rows * Scope.number (1.0 - amount)) (Scope.number (amount / classes)) ])

        withTensors smoothed targets

[<RequireQualifiedAccess>]
module Batch =

    /// A batch of the caller's features and these targets; an ArgumentException unless both have N rows and are on the same device.
    let create (features: torch.Tensor) (targets: Targets) : Batch =
        if features.dim () < 2L || features.shape[0] <> targets.Soft.shape[0] then
            let shape = String.Join(",", features.shape)

            invalidArg
                (nameof features)
                $"Features [{shape}] do not go with targets of {targets.Soft.shape[0]} samples."

        let features', targets' = string features.device, string targets.Soft.device

        if features' <> targets' then
            invalidArg
                (nameof features)
                $"The features are on the device {features'} and the targets on {targets'}; make the targets on {features'}."

        { Features = features
          Targets = targets }

    /// The shape of one sample's features.
    let shapeOf (features: torch.Tensor) : Shape =
        let size axis = int features.shape[axis]

        match features.dim () with
        | 2L ->
            { Channels = size 1
              Height = 1
              Width = 1 }
        | 3L ->
            { Channels = size 1
              Height = 1
              Width = size 2 }
        | 4L ->
            { Channels = size 1
              Height = size 2
              Width = size 3 }
        | rank -> invalidArg (nameof features) $"Features have rank {rank}; [N,C], [N,C,L] and [N,C,H,W] can be mixed."

    /// Every tensor of the batch.
    let tensors (batch: Batch) : torch.Tensor list =
        batch.Features :: Targets.tensors batch.Targets

    /// Frees the batch's tensors.
    let dispose (batch: Batch) : unit =
        for tensor in tensors batch do
            tensor.Dispose()

    /// Of the tensors made inside, only the batch's escape, each the caller's own: for a mixing function of one's own.
    let scope (make: unit -> Batch) : Batch =
        let mutable made = None

        let tensors =
            Scope.many (fun () ->
                let batch = make ()
                made <- Some batch.Targets
                tensors batch)

        { Features = List.head tensors
          Targets = Targets.withTensors (List.tail tensors) made.Value }
