namespace PatchUp.Functional

open System

/// The size of one sample's features: `[C,H,W]`. A vector `[C]` has H = W = 1, a sequence `[C,L]` has H = 1 and W = L.
[<Struct>]
type Shape =
    { Channels: int
      Height: int
      Width: int }

    override this.ToString() =
        $"{this.Channels}x{this.Height}x{this.Width}"

/// What a mask holds for each feature: how much of it stays the sample's own.
type MaskValues =
    /// True = unchanged, false = altered.
    | Hard of bool[]
    /// 1 = unchanged, 0 = altered, and anything between.
    | Soft of float32[]

/// What is added to features before they are shown, where a region asks for it: PuzzleMix's adversarial noise.
type Noise =
    {
        /// In the features' own units, `[N,C,H,W]` row-major.
        Values: float32[]
        /// Whether a sample's own features take its noise.
        OnOwn: bool
        /// Whether the partner's features take the partner's noise.
        OnPartner: bool
    }

/// Which cells' content a mask's cells show, where a region moves them: PuzzleMix's transport.
type Sources =
    {
        /// n: the map is cut into n x n cells, row-major.
        Grid: int
        /// For each cell the cell of the own features that is shown there, `[N, n, n]`.
        Own: int[]
        /// For each cell the cell of the partner's features that is shown there, `[N, n, n]`.
        Partner: int[]
        /// None where the features are shown as they are.
        Noise: Noise option
    }

/// The drawn M of the paper, in managed memory, row-major `[1|N, 1|C, H, W]`; 1 = unchanged.
type Mask =
    {
        /// N where every sample has a mask of its own, else 1.
        Samples: int
        /// C where every channel has a mask of its own, else 1.
        Channels: int
        Height: int
        Width: int
        Values: MaskValues
        /// None where cells stay in their places.
        Sources: Sources option
    }

[<RequireQualifiedAccess>]
module Mask =

    /// The number of values of one sample's mask.
    let internal stride (mask: Mask) =
        mask.Channels * mask.Height * mask.Width

    let private create (samples: int) (shape: Shape) values =
        { Samples = samples
          Channels = shape.Channels
          Height = shape.Height
          Width = shape.Width
          Values = values
          Sources = None }

    let private sized samples (shape: Shape) length =
        let wanted = samples * shape.Channels * shape.Height * shape.Width

        if length <> wanted then
            invalidArg "values" $"A mask of {samples} x {shape} needs {wanted} values, not {length}."

    /// A mask of bits, true = unchanged; an ArgumentException unless there are `samples * C * H * W` of them.
    let hard (samples: int) (shape: Shape) (values: bool[]) : Mask =
        sized samples shape values.Length
        create samples shape (Hard values)

    /// A mask of numbers, 1 = unchanged; an ArgumentException unless there are `samples * C * H * W`, all in [0, 1].
    let soft (samples: int) (shape: Shape) (values: float32[]) : Mask =
        sized samples shape values.Length

        match values |> Array.tryFind (fun v -> not (v >= 0.0f && v <= 1.0f)) with
        | Some v -> invalidArg (nameof values) $"A mask holds {v}; its values must lie in [0, 1]."
        | None -> create samples shape (Soft values)

    /// One plane `[1,1,H,W]` that leaves everything unchanged (true) or alters everything (false).
    let constant (shape: Shape) (unchanged: bool) : Mask =
        let shape = { shape with Channels = 1 }
        create 1 shape (Hard(Array.create (shape.Height * shape.Width) unchanged))

    /// Clears the part of a box that lies on the plane of H x W bits that begins at `offset`.
    let internal clear (bits: bool[]) offset (shape: Shape) top left height width : unit =
        let from, until = max 0 left, min shape.Width (left + width)

        if until > from then
            for y in max 0 top .. min shape.Height (top + height) - 1 do
                bits.AsSpan(offset + y * shape.Width + from, until - from).Clear()

    /// One plane `[1,1,H,W]`, unchanged but for a box of `height` x `width` features that begins at row `top` and column `left`, which may be
    /// negative; what lies outside the map is cut off. CutMix's and Cutout's mask, its draw given.
    let box (shape: Shape) (top: int) (left: int) (height: int) (width: int) : Mask =
        let bits = Array.create (shape.Height * shape.Width) true
        clear bits 0 shape top left height width
        hard 1 { shape with Channels = 1 } bits

    /// Unchanged but for a block of min(size, H) x min(size, W) features around every seed; `seeds` is `[samples,C,H,W]`, row-major. A block
    /// begins half its side (rounded down) before its seed, and what lies outside the map is cut off. Algorithm 1 of the PatchUp paper, its draw given.
    /// An ArgumentException for a size below 1, or another number of seeds.
    let blocks (samples: int) (shape: Shape) (size: int) (seeds: bool[]) : Mask =
        if size < 1 then
            invalidArg (nameof size) $"The block size is {size}; it must be at least 1."

        sized samples shape seeds.Length
        let height, width = min size shape.Height, min size shape.Width
        let plane = shape.Height * shape.Width
        let bits = Array.create seeds.Length true

        seeds
        |> Array.iteri (fun i isSeed ->
            if isSeed then
                let y, x = i % plane / shape.Width, i % shape.Width
                clear bits (i - i % plane) shape (y - height / 2) (x - width / 2) height width)

        hard samples shape bits

    /// p_u for each of the mask's samples: the mean of M, for a hard mask an exact count over an exact size.
    let unchanged (mask: Mask) : float[] =
        let size = stride mask

        Array.init mask.Samples (fun n ->
            match mask.Values with
            | Hard bits ->
                float (MemoryExtensions.Count(ReadOnlySpan(bits, n * size, size), true))
                / float size
            | Soft values ->
                let mutable sum = 0.0

                for i in n * size .. (n + 1) * size - 1 do
                    sum <- sum + float values[i]

                sum / float size)

    /// Whether any feature may be altered.
    let internal alters (mask: Mask) : bool =
        match mask.Values with
        | Hard bits -> ReadOnlySpan(bits).Contains false
        | Soft _ -> true

    let private softened values =
        match values with
        | Hard bits -> bits |> Array.map (fun bit -> if bit then 1.0f else 0.0f)
        | Soft values -> values

    /// The other features: what was altered stays, what stayed is altered.
    let complement (mask: Mask) : Mask =
        { mask with
            Sources = None
            Values =
                match mask.Values with
                | Hard bits -> Hard(Array.map not bits)
                | Soft values -> Soft(Array.map (fun v -> 1.0f - v) values) }

    /// Two masks, plane by plane, where 1 sample or channel stands for all.
    let private zip onBits onNumbers (a: Mask) (b: Mask) : Mask =
        let samples = max a.Samples b.Samples
        let channels = max a.Channels b.Channels
        let plane = a.Height * a.Width

        let fill (x: 'v[]) (y: 'v[]) (f: 'v -> 'v -> 'v) =
            let result = Array.zeroCreate (samples * channels * plane)

            let start (m: Mask) n c =
                ((n % m.Samples) * m.Channels + c % m.Channels) * plane

            for n in 0 .. samples - 1 do
                for c in 0 .. channels - 1 do
                    let i, j, k = start a n c, start b n c, (n * channels + c) * plane

                    for p in 0 .. plane - 1 do
                        result[k + p] <- f x[i + p] y[j + p]

            result

        { a with
            Samples = samples
            Channels = channels
            Sources = None
            Values =
                match a.Values, b.Values with
                | Hard x, Hard y -> Hard(fill x y onBits)
                | x, y -> Soft(fill (softened x) (softened y) onNumbers) }

    /// Alters what both alter: M = 1 - (1 - M_a)(1 - M_b).
    let both (a: Mask) (b: Mask) : Mask =
        zip (||) (fun x y -> 1.0f - (1.0f - x) * (1.0f - y)) a b

    /// Alters what either alters: M = M_a M_b.
    let either (a: Mask) (b: Mask) : Mask = zip (&&) (*) a b

    /// Masks of one sample each (or of one channel each) laid one after the other; soft where any of them is.
    let internal concat samples (shape: Shape) (parts: Mask[]) : Mask =
        let isHard =
            parts
            |> Array.forall (fun p ->
                match p.Values with
                | Hard _ -> true
                | Soft _ -> false)

        if isHard then
            parts
            |> Array.collect (fun p ->
                match p.Values with
                | Hard bits -> bits
                | Soft _ -> [||])
            |> hard samples shape
        else
            parts |> Array.collect (fun p -> softened p.Values) |> soft samples shape
