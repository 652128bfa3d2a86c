namespace PatchUp.Functional

open System

/// One place of a network where features can be altered.
type Place =
    /// 0 is the input, k is after the network's k-th stage (the numbering of the PatchUp authors).
    | Number of int
    /// After the stage or module of this name.
    | Name of string

    override this.ToString() =
        match this with
        | Number 0 -> "input"
        | Number k -> string k
        | Name name -> $"\"{name}\""

/// Where a step acts.
type Site =
    | At of Place
    /// At one of these, uniformly at random.
    | AnyOf of Place list
    /// At each of these, with draws of its own at each.
    | AllOf of Place list

[<RequireQualifiedAccess>]
module Place =

    /// Site `k`: 0 is the input; an ArgumentException if k is negative.
    let number (k: int) : Place =
        if k < 0 then
            invalidArg (nameof k) $"site {k}: sites are numbered from 0, the input."

        Number k

    /// The site after the stage or module of this name; "input" is the input. An ArgumentException for an empty name or a quote in it.
    let named (name: string) : Place =
        if String.IsNullOrWhiteSpace name || name.Contains '"' then
            invalidArg (nameof name) $"site \"{name}\": a name must not be empty and must not hold a quotation mark."

        if name = "input" then Number 0 else Name name

[<RequireQualifiedAccess>]
module Site =

    let private some word (places: Place list) =
        if places.IsEmpty then
            invalidArg (nameof places) $"{word}: at least one site is needed."

        places

    /// One of these places, uniformly at random; an ArgumentException if there are none.
    let anyOf (places: Place list) : Site = AnyOf(some "atAny" places)

    /// All of these places; an ArgumentException if there are none.
    let allOf (places: Place list) : Site = AllOf(some "atAll" places)

    /// Every place that may be acted on.
    let places (site: Site) : Place list =
        match site with
        | At place -> [ place ]
        | AnyOf places
        | AllOf places -> places

/// What a region may ask of the network that adds noise to the input before it mixes: PuzzleMix's adversarial variant.
[<NoEquality; NoComparison>]
type Noisy =
    {
        /// The loss's gradient by the features at the input, `[N,C,H,W]` row-major, where noise `[N,C,H,W]` in units of the pixels is added to them.
        Gradient: float32[] -> float32[]
        /// How far a feature moves where its pixel moves by 1, for each channel: 1 / std.
        Scale: Lazy<float32[]>
    }

/// What a draw may know of the batch. It holds no tensor.
[<NoEquality; NoComparison>]
type BatchInfo =
    {
        /// Index, within the epoch, of the batch's first sample. Two batches drawn with one key differ by this.
        First: int
        /// Index, within the batch, of the first sample that is spoken of: 0 but for a part of the batch (`BatchInfo.part`).
        Offset: int
        /// N, the number of samples that are spoken of.
        Count: int
        /// Class indices `[N]`, where the batch has them.
        Labels: int[] option
        /// The features' shape at a place; None where the network has no such place.
        Shape: Place -> Shape option
        /// The index of each sample's partner `[N]`, once it is drawn: regions may follow the partner's input.
        Partner: int[] option
        /// Saliency of the input `[N,H,W]`, row-major, computed when first asked for.
        Saliency: Lazy<float32[]> option
        /// The input's images before they are normalised, `[N,C,H,W]` of [0, 1], row-major, copied when first asked for.
        Pixels: Lazy<float32[]> option
        /// The network where noise is added to the input.
        Noisy: Noisy option
        /// How far training is, from 0 to 1.
        Progress: float
    }

[<RequireQualifiedAccess>]
module BatchInfo =

    /// `count` samples starting at 0, with nothing known but the shapes.
    let create (count: int) (shape: Place -> Shape option) : BatchInfo =
        if count < 1 then
            invalidArg (nameof count) $"A batch has at least one sample, not {count}."

        { First = 0
          Offset = 0
          Count = count
          Labels = None
          Shape = shape
          Partner = None
          Saliency = None
          Pixels = None
          Noisy = None
          Progress = 0.0 }

    /// `count` samples of one shape, whatever the place.
    let ofShape (count: int) (shape: Shape) : BatchInfo = create count (fun _ -> Some shape)

    /// What is known of `count` samples of the batch, from `offset` on: of a micro-batch under gradient accumulation, or of one rank's share.
    /// What is drawn once a batch then comes out as for the whole, what is drawn for each sample as for that sample; partners are drawn within
    /// the part, and kept fractions (`rescale Batch`) counted in it. An ArgumentException for a part that is empty or not within the batch.
    let part (offset: int) (count: int) (info: BatchInfo) : BatchInfo =
        if offset < 0 || count < 1 || int64 offset + int64 count > int64 info.Count then
            invalidArg
                (nameof offset)
                $"{count} samples from {offset} on are no part of a batch of {info.Count}: its samples are 0 .. {info.Count - 1}."

        /// Of the part, what is known sample by sample of the batch.
        let cut (values: Lazy<float32[]>) =
            lazy
                (let size = values.Value.Length / info.Count
                 Array.sub values.Value (offset * size) (count * size))

        /// The part's noise among none for the rest of the batch.
        let among (noise: float32[]) =
            let size = noise.Length / count

            Array.concat
                [ Array.zeroCreate (offset * size)
                  noise
                  Array.zeroCreate ((info.Count - offset - count) * size) ]

        let cutNoisy (noisy: Noisy) =
            { noisy with
                Gradient =
                    fun noise -> Array.sub (noisy.Gradient(among noise)) (offset * noise.Length / count) noise.Length }

        { info with
            Offset = info.Offset + offset
            Count = count
            Labels = info.Labels |> Option.map (fun labels -> Array.sub labels offset count)
            Saliency = Option.map cut info.Saliency
            Pixels = Option.map cut info.Pixels
            Noisy = Option.map cutNoisy info.Noisy }

    /// The key for what is drawn once a batch.
    let internal batchKey (info: BatchInfo) (key: Key) =
        key |> Key.child 0 |> Key.child info.First

    /// The key for what is drawn for the samples among themselves: once a batch, or once a part of it.
    let internal partKey (info: BatchInfo) (key: Key) =
        key |> Key.child 0 |> Key.child (info.First + info.Offset)

    /// The key for what is drawn for sample `i` of the batch: it does not depend on how the epoch is cut into batches.
    let internal sampleKey (info: BatchInfo) (i: int) (key: Key) =
        key |> Key.child 1 |> Key.child (info.First + info.Offset + i)
