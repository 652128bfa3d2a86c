namespace PatchUp.Functional.Laws

open System
open TorchSharp
open PatchUp.Functional

/// How a trial's targets are given.
[<RequireQualifiedAccess>]
type TargetKind =
    /// Class indices.
    | Indices
    /// Rows with a single 1.
    | OneHot
    /// Rows of positive weights with sum 1.
    | SoftRows
    /// Rows of zeros and ones, each class by itself.
    | MultiLabel

/// The type of a trial's features.
[<RequireQualifiedAccess>]
type Precision =
    | Single
    | Double
    | BFloat16

/// One generated experiment, as plain values: everything that a law needs to make a batch, draw a plan and apply it.
[<NoComparison>]
type Trial =
    {
        Regularizer: Regularizer
        /// What the plan is drawn from.
        Key: Key
        /// Index of the batch's first sample in the epoch.
        First: int
        /// N.
        Count: int
        /// K.
        Classes: int
        /// One sample's features, at every site.
        Shape: Shape
        /// 4 for `[N,C,H,W]`, 3 for `[N,C,L]` (H = 1), 2 for `[N,C]` (H = W = 1).
        Rank: int
        Precision: Precision
        Targets: TargetKind
        /// Whether the features hold negative zeros, infinities and NaN too.
        Wild: bool
        /// What the features and the targets are filled from.
        Data: Key
    }

    /// All but the program and the key.
    override this.ToString() =
        let wild = if this.Wild then ", wild" else ""

        ($"samples {this.First} .. {this.First + this.Count - 1}, features {this.Shape} of rank {this.Rank} in "
         + $"{this.Precision}{wild}, ")
        + $"{this.Targets} of {this.Classes} classes, data {{ State = {this.Data.State}UL }}"

/// One region and what it is drawn for; as text all but the region and the key.
[<NoComparison>]
type RegionTrial =
    { Region: Region
      Key: Key
      First: int
      Count: int
      Shape: Shape }

    override this.ToString() =
        $"samples {this.First} .. {this.First + this.Count - 1}, features {this.Shape}"

/// One distribution and what its numbers are drawn from.
[<NoComparison>]
type DistTrial =
    { Dist: Dist
      Key: Key }

    override _.ToString() = "its numbers"

/// One loss, and what its logits and targets are filled from.
[<NoComparison>]
type LossTrial =
    {
        Loss: Loss
        /// N.
        Count: int
        /// K.
        Classes: int
        Precision: Precision
        Targets: TargetKind
        Data: Key
    }

    override this.ToString() =
        ($"{this.Precision} logits of {this.Count} samples and {this.Classes} classes, "
         + $"{this.Targets}, data {{ State = {this.Data.State}UL }}")

/// The managed view of tensors that laws compare.
[<RequireQualifiedAccess>]
module Read =

    /// The size of every axis.
    let size (tensor: torch.Tensor) : int list =
        tensor.shape |> Seq.map int |> List.ofSeq

    /// The values in row-major order, as float64.
    let values (tensor: torch.Tensor) : float[] =
        Scope.value (fun () -> tensor.detach().cpu().``to``(torch.float64).contiguous().data<float>().ToArray())

    /// The bytes in row-major order: equal exactly when the bits are.
    let bytes (tensor: torch.Tensor) : byte[] =
        Scope.value (fun () -> tensor.detach().cpu().contiguous().bytes.ToArray())

    /// The bits of each element, in row-major order.
    let words (tensor: torch.Tensor) : uint64[] =
        bytes tensor
        |> Array.chunkBySize (int tensor.ElementSize)
        |> Array.map (
            Array.fold (fun (word, shift) b -> word ||| (uint64 b <<< shift), shift + 8) (0UL, 0)
            >> fst
        )

    /// The bytes of every tensor of a batch.
    let batch (batch: Batch) : byte[] list = Batch.tensors batch |> List.map bytes

/// Makes what a trial describes.
[<RequireQualifiedAccess>]
module Trial =

    /// The class of each sample.
    let labels (trial: Trial) : int[] =
        let bits = Key.stream (Key.child 0 trial.Data)
        Array.init trial.Count (fun _ -> bits.Below trial.Classes)

    /// Numbers that prefer no place, so many for each sample: they follow from the key and the sample's index in the epoch.
    let internal anywhere (key: Key) (first: int) (count: int) (size: int) : Lazy<float32[]> =
        lazy
            (Array.init count (fun i ->
                let bits = Key.stream (Key.child (first + i) key)
                Array.init size (fun _ -> float32 (bits.Open())))
             |> Array.concat)

    /// The information with saliency and pixels that prefer no place.
    let internal depicted (key: Key) (shape: Shape) (info: BatchInfo) : BatchInfo =
        let area = shape.Height * shape.Width

        { info with
            Saliency = Some(anywhere (Key.child 0 key) info.First info.Count area)
            Pixels = Some(anywhere (Key.child 1 key) info.First info.Count (shape.Channels * area))
            Noisy =
                Some
                    { Gradient =
                        fun noise ->
                            (anywhere (Key.child 2 key) info.First info.Count (noise.Length / info.Count)).Value
                      Scale = lazy (Array.create shape.Channels 1.0f) } }

    /// What the draw may know.
    let info (trial: Trial) : BatchInfo =
        { BatchInfo.ofShape trial.Count trial.Shape with
            First = trial.First
            Labels = Some(labels trial)
            Progress = (Key.stream (Key.child 7 trial.Data)).Float() }
        |> depicted (Key.child 6 trial.Data) trial.Shape

    /// The size of the features' axes.
    let size (trial: Trial) : int64[] =
        let shape = trial.Shape
        let all = [| trial.Count; shape.Channels; shape.Height; shape.Width |]

        match trial.Rank with
        | 2 -> all[..1]
        | 3 -> [| all[0]; all[1]; all[3] |]
        | _ -> all
        |> Array.map int64

    let private special = [| -0.0; infinity; -infinity; nan; 0.0; 1e-40 |]

    let private dtype precision =
        match precision with
        | Precision.Single -> torch.float32
        | Precision.Double -> torch.float64
        | Precision.BFloat16 -> torch.bfloat16

    /// The type of the trial's features.
    let elementType (trial: Trial) : torch.ScalarType = dtype trial.Precision

    /// Standard normal features; in a wild trial a quarter of them are negative zeros, infinities, NaN or subnormal.
    let features (trial: Trial) : torch.Tensor =
        let bits = Key.stream (Key.child 1 trial.Data)
        let size = size trial

        let values =
            Array.init (int (Array.reduce (*) size)) (fun _ ->
                if trial.Wild && bits.Below 4 = 0 then
                    special[bits.Below special.Length]
                else
                    bits.Normal())

        Scope.run (fun () -> torch.tensor(values, ReadOnlySpan size).``to``(dtype trial.Precision))

    /// The rows `[N,K]` of the trial's targets.
    let rows (trial: Trial) : float32[] =
        let bits = Key.stream (Key.child 2 trial.Data)
        let classes = trial.Classes

        labels trial
        |> Array.collect (fun label ->
            match trial.Targets with
            | TargetKind.Indices
            | TargetKind.OneHot -> Array.init classes (fun k -> if k = label then 1.0f else 0.0f)
            | TargetKind.SoftRows ->
                let weights = Array.init classes (fun _ -> bits.Open())
                let sum = Array.sum weights
                weights |> Array.map (fun w -> float32 (w / sum))
            | TargetKind.MultiLabel -> Array.init classes (fun _ -> float32 (bits.Below 2)))

    /// The targets as a tensor of rows.
    let softTargets (trial: Trial) : Targets =
        let size = [| int64 trial.Count; int64 trial.Classes |]

        { Soft = torch.tensor (rows trial, ReadOnlySpan size)
          Mixed = None }

    /// The features with the targets; class indices go through `ofIndices`.
    let batchBy (ofIndices: int -> int[] -> Targets) (trial: Trial) : Batch =
        let targets =
            match trial.Targets with
            | TargetKind.Indices -> ofIndices trial.Classes (labels trial)
            | _ -> softTargets trial

        Batch.create (features trial) targets

    /// The features with the targets.
    let batch (trial: Trial) : Batch =
        batchBy (Targets.ofIndices torch.CPU) trial

    /// Standard normal logits `[N,K]`.
    let logits (trial: Trial) : torch.Tensor =
        let bits = Key.stream (Key.child 3 trial.Data)
        let size = [| int64 trial.Count; int64 trial.Classes |]
        torch.tensor (Array.init (trial.Count * trial.Classes) (fun _ -> float32 (bits.Normal())), ReadOnlySpan size)

    /// Changes every step; where the objectives contradict each other afterwards, they become the default.
    let mapSteps (change: Step -> Step) (regularizer: Regularizer) : Regularizer =
        try
            Regularizer.map change regularizer
        with :? ArgumentException ->
            let withDefault (step: Step) =
                { change step with
                    Objective = Objective.reweighted }

            Regularizer.map withDefault regularizer

    /// The trial with every step of its program changed.
    let withSteps (change: Step -> Step) (trial: Trial) : Trial =
        { trial with
            Regularizer = mapSteps change trial.Regularizer }

    /// The trial with every step of its program changed, without wild values.
    let tamed (change: Step -> Step) (trial: Trial) : Trial =
        { withSteps change trial with
            Wild = false }
