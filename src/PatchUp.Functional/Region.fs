namespace PatchUp.Functional

open System

/// How the seed probability of `Blocks` follows from the requested fraction.
type Calibration =
    /// Solved, so that the expected altered fraction is the request. Seeds anywhere on the map, blocks clipped at its border.
    | Exact
    /// Equation (2) as the paper writes it, with seeds anywhere on the map: overlap makes the altered fraction smaller.
    | Paper
    /// Equation (2), with seeds only where the whole block fits: no block is clipped.
    | Valid

/// What a custom region may know when it draws.
[<NoEquality; NoComparison>]
type CustomContext =
    {
        Key: Key
        /// The mask to draw is `[1, C, H, W]` of this shape: C is 1 unless the region is drawn per channel.
        Shape: Shape
        /// The sample's index in the batch where the region is drawn per sample.
        Sample: int option
        Batch: BatchInfo
    }

/// A region nobody foresaw: a name, its arguments and a function. Two are equal when name and arguments are.
[<CustomEquality; NoComparison>]
type Custom =
    {
        Name: string
        Arguments: float list
        /// Whether its masks hold numbers of [0, 1] (`Mask.soft`); else they hold bits (`Mask.hard`).
        IsSoft: bool
        /// The probability that a position is altered (for a soft mask: its mean alteration), `[H,W]`.
        Expected: Shape -> float[,]
        /// The mask `[1,C,H,W]` of the context's shape, or `[N,C,H,W]` where it is drawn once a batch and differs between samples: a pure function of the context.
        Draw: CustomContext -> Mask
    }

    override this.Equals other =
        match other with
        | :? Custom as that -> this.Name = that.Name && this.Arguments = that.Arguments
        | _ -> false

    override this.GetHashCode() = hash (this.Name, this.Arguments)

/// Which features are altered: a specification that prints, compares and parses. `And`, `Or` and `Not` combine sets of
/// *altered* features. A random leaf is drawn once a batch unless `PerSample`; `Cells`, `Blocks` and `Channels` draw for each channel,
/// all others once for all channels, unless `PerChannel` or `Shared` says otherwise. Granularity is pushed to the leaves; the innermost wins.
type Region =
    | Nowhere
    | Everywhere
    /// Each feature by itself, with this probability (Dropout's units).
    | Cells of fraction: float
    /// Squares of this side (at most the map's), altering this fraction (DropBlock's, PatchUp's).
    | Blocks of size: int * fraction: float * calibration: Calibration
    /// One rectangle of the map's proportions, of this share of the map's area before it is clipped, centred anywhere (CutMix's).
    | Rect of area: Dist
    /// Each channel as a whole, with this probability (SpatialDropout's units).
    | Channels of fraction: float
    | Not of Region
    | And of Region * Region
    | Or of Region * Region
    /// A draw of its own for every sample.
    | PerSample of Region
    /// A draw of its own for every channel.
    | PerChannel of Region
    /// One draw for all channels.
    | Shared of Region
    | Custom of Custom

    /// Alters what both alter. Each operand draws for itself: `a &&& a` draws twice and thins.
    static member (&&&)(a: Region, b: Region) = And(a, b)
    /// Alters what either alters. Each operand draws for itself.
    static member (|||)(a: Region, b: Region) = Or(a, b)
    /// Alters what the region leaves.
    static member op_LogicalNot(a: Region) = Not a

/// Where blocks may begin along one axis, and how many of the places cover a position.
[<Struct>]
type private Axis =
    { Size: int
      Block: int
      First: int
      Count: int }

[<RequireQualifiedAccess>]
module Region =

    let private checkFraction word (fraction: float) =
        if not (fraction >= 0.0 && fraction <= 1.0) then
            invalidArg (nameof fraction) $"{word} {fraction}: the fraction must lie in [0, 1]."

    /// Each feature by itself; an ArgumentException unless 0 <= fraction <= 1.
    let cells (fraction: float) : Region =
        checkFraction "cells" fraction
        Cells fraction

    /// Each channel as a whole; an ArgumentException unless 0 <= fraction <= 1.
    let channels (fraction: float) : Region =
        checkFraction "channels" fraction
        Channels fraction

    /// Squares of side `size` altering `fraction`; an ArgumentException unless size >= 1 and 0 <= fraction <= 1.
    let blocks (calibration: Calibration) (size: int) (fraction: float) : Region =
        if size < 1 then
            invalidArg (nameof size) $"blocks {size} {fraction}: the block size must be at least 1."

        checkFraction $"blocks {size}" fraction
        Blocks(size, fraction, calibration)

    /// A custom region; an ArgumentException unless the name is letters, digits and inner hyphens, and the arguments are finite.
    let custom (custom: Custom) : Region =
        CustomName.check custom.Name custom.Arguments
        Custom custom

    /// The one whose fractions and areas lie this share of the way from one's to the other's; None where they differ in more.
    let rec internal between (share: float) (one: Region) (other: Region) : Region option =
        let number a b = a + share * (b - a)

        match one, other with
        | _ when one = other -> Some one
        | Cells a, Cells b -> Some(Cells(number a b))
        | Blocks(size, a, calibration), Blocks(size', b, calibration') when (size, calibration) = (size', calibration') ->
            Some(Blocks(size, number a b, calibration))
        | Rect a, Rect b -> Dist.between share a b |> Option.map Rect
        | Channels a, Channels b -> Some(Channels(number a b))
        | Not a, Not b -> between share a b |> Option.map Not
        | And(a, b), And(c, d) -> Option.map2 (fun a b -> And(a, b)) (between share a c) (between share b d)
        | Or(a, b), Or(c, d) -> Option.map2 (fun a b -> Or(a, b)) (between share a c) (between share b d)
        | PerSample a, PerSample b -> between share a b |> Option.map PerSample
        | PerChannel a, PerChannel b -> between share a b |> Option.map PerChannel
        | Shared a, Shared b -> between share a b |> Option.map Shared
        | _ -> None

    // ---- one axis of a block ----

    /// A block of side min(b, size) whose centre may be anywhere: it begins at centre - b/2 and is clipped.
    let private anywhere size block =
        let block = min block size

        { Size = size
          Block = block
          First = -(block / 2)
          Count = size }

    /// A block of side min(b, size) that must fit.
    let private fitting size block =
        let block = min block size

        { Size = size
          Block = block
          First = 0
          Count = size - block + 1 }

    let private axes calibration (shape: Shape) block =
        let along =
            match calibration with
            | Valid -> fitting
            | Exact
            | Paper -> anywhere

        struct (along shape.Height block, along shape.Width block)

    /// How many of the axis' beginnings cover each position.
    let private coverage (axis: Axis) : int[] =
        Array.init axis.Size (fun x ->
            let from = max axis.First (x - axis.Block + 1)
            let until = min (axis.First + axis.Count - 1) x
            max 0 (until - from + 1))

    // ---- the seed's hazard s = -log(1 - p): a position with c possible seeds is altered with probability 1 - exp(-c s) ----

    /// Solves mean(1 - exp(-c s)) = fraction for s, where c runs over products of the axes' coverage. The left side is concave and
    /// increasing in s, so Newton's method from 0 never passes the root.
    let private exactHazard (rows: int[]) (columns: int[]) (fraction: float) : float =
        if fraction >= 1.0 then
            infinity
        else
            let counts axis =
                axis |> Array.countBy id |> Array.map (fun (c, n) -> float c, float n)

            let products =
                [| for r, m in counts rows do
                       for c, n in counts columns -> r * c, m * n / float (rows.Length * columns.Length) |]

            let rec newton s =
                let mutable altered = 0.0
                let mutable slope = 0.0

                for c, share in products do
                    let kept = share * exp (-c * s)
                    altered <- altered + share - kept
                    slope <- slope + c * kept

                let next = s + (fraction - altered) / slope
                if next > s then newton next else s

            newton 0.0

    /// Equation (2) for an H x W map: gamma H W / (b_h b_w) / ((H - b_h + 1)(W - b_w + 1)), with b_h = min(b, H), b_w = min(b, W).
    /// It is the probability that a position is a seed.
    let gammaAdjusted (shape: Shape) (size: int) (gamma: float) : float =
        let side axis = float (min size axis)
        let room axis = float axis - side axis + 1.0

        gamma * float (shape.Height * shape.Width)
        / (side shape.Height * side shape.Width)
        / (room shape.Height * room shape.Width)

    /// The probability that a place where a block may begin is a seed, as its hazard -log(1 - p).
    let private hazard calibration (shape: Shape) size fraction =
        match calibration with
        | Exact ->
            let struct (rows, columns) = axes Exact shape size
            exactHazard (coverage rows) (coverage columns) fraction
        | Paper
        | Valid ->
            // Rounding can lift the largest value, 1, above itself. A difference, since -log 1 is -0 and would make gaps of -infinity.
            0.0 - log (1.0 - min 1.0 (gammaAdjusted shape size fraction))

    // ---- rectangles ----

    /// The rectangle's sides for an area: the map's sides times sqrt(area), to the nearest feature.
    let private side (axis: int) (area: float) =
        int (floor (float axis * sqrt area + 0.5))

    /// Height and width of a rectangle of the map's proportions and this share of its area, to the nearest feature.
    let internal sides (shape: Shape) (area: float) : int * int =
        side shape.Height area, side shape.Width area

    /// Every pair of sides that the area can give, with its probability.
    let private rectangles (shape: Shape) (area: Dist) : (int * int * float) list =
        match area with
        | Always a -> [ side shape.Height a, side shape.Width a, 1.0 ]
        | _ ->
            let steps axis =
                [ for k in 1..axis -> ((float k - 0.5) / float axis) ** 2.0 ]

            0.0 :: steps shape.Height @ steps shape.Width @ [ 1.0 ]
            |> List.distinct
            |> List.sort
            |> List.pairwise
            |> List.map (fun (low, high) ->
                let middle = (low + high) / 2.0
                // The sides hold from low on, up to high: a custom distribution may have a mass at either.
                let below a = Dist.cdf area (Math.BitDecrement a)
                let until = if high = 1.0 then 1.0 else below high
                side shape.Height middle, side shape.Width middle, until - below low)

    // ---- closed forms ----

    /// The probability that a position of the map is altered, `[H,W]`, in closed form: `1 - (1-p)^c` for blocks with `c` possible
    /// seeds, and independence between leaves.
    let rec expected (shape: Shape) (region: Region) : float[,] =
        let everywhere p =
            Array2D.create shape.Height shape.Width p

        let zip f a b =
            Array2D.init shape.Height shape.Width (fun y x -> f (Array2D.get a y x) (Array2D.get b y x))

        match region with
        | Nowhere -> everywhere 0.0
        | Everywhere -> everywhere 1.0
        | Cells fraction
        | Channels fraction -> everywhere fraction
        | Blocks(size, fraction, calibration) ->
            let struct (rows, columns) = axes calibration shape size
            let rows, columns = coverage rows, coverage columns
            let s = hazard calibration shape size fraction

            Array2D.init shape.Height shape.Width (fun y x -> 1.0 - exp (-float(rows[y] * columns[x]) * s))
        | Rect area ->
            let sum = everywhere 0.0

            for height, width, probability in rectangles shape area do
                let share axis size =
                    coverage (anywhere axis size) |> Array.map (fun c -> float c / float axis)

                let rows, columns = share shape.Height height, share shape.Width width

                for y in 0 .. shape.Height - 1 do
                    for x in 0 .. shape.Width - 1 do
                        sum[y, x] <- sum[y, x] + probability * rows[y] * columns[x]

            sum
        | Not a -> expected shape a |> Array2D.map (fun p -> 1.0 - p)
        | And(a, b) -> zip (*) (expected shape a) (expected shape b)
        | Or(a, b) -> zip (fun p q -> 1.0 - (1.0 - p) * (1.0 - q)) (expected shape a) (expected shape b)
        | PerSample a
        | PerChannel a
        | Shared a -> expected shape a
        | Custom custom -> custom.Expected shape

    /// The expected altered fraction: the mean of `expected` over the map.
    let fraction (shape: Shape) (region: Region) : float =
        expected shape region |> Seq.cast<float> |> Seq.average

    // ---- drawing ----

    /// What a leaf does to the planes of one draw: it clears bits from `offset` on.
    type private Painter = Stream -> bool[] -> int -> int -> unit

    let private paintCells (fraction: float) (shape: Shape) : Painter =
        fun stream bits offset planes ->
            for i in offset .. offset + planes * shape.Height * shape.Width - 1 do
                bits[i] <- stream.Float() >= fraction

    let private paintChannels (fraction: float) (shape: Shape) : Painter =
        let plane = shape.Height * shape.Width

        fun stream bits offset planes ->
            for c in 0 .. planes - 1 do
                if stream.Float() < fraction then
                    bits.AsSpan(offset + c * plane, plane).Clear()

    /// Seeds are sparse, so the gaps between them are drawn: geometric, floor(-log U / s).
    let private paintBlocks calibration size fraction (shape: Shape) : Painter =
        let s = hazard calibration shape size fraction
        let struct (rows, columns) = axes calibration shape size
        let starts = rows.Count * columns.Count
        let plane = shape.Height * shape.Width

        fun stream bits offset planes ->
            // A hazard of 0 makes an infinite gap, an infinite hazard makes none.
            let gap () = -log(stream.Open()) / s
            let places = float (planes * starts)
            let mutable place = gap ()

            while place < places do
                let seed = int place
                let top = rows.First + seed % starts / columns.Count
                let left = columns.First + seed % columns.Count
                Mask.clear bits (offset + seed / starts * plane) shape top left rows.Block columns.Block
                place <- floor place + 1.0 + gap ()

    let private paintRect (area: Dist) (shape: Shape) : Painter =
        let plane = shape.Height * shape.Width

        fun stream bits offset planes ->
            for c in 0 .. planes - 1 do
                let area = Dist.sample stream area
                let height, width = side shape.Height area, side shape.Width area
                let y, x = stream.Below shape.Height, stream.Below shape.Width
                Mask.clear bits (offset + c * plane) shape (y - height / 2) (x - width / 2) height width

    let private drawCustom (custom: Custom) (context: CustomContext) : Mask =
        let mask = custom.Draw context

        let drawn: Shape =
            { Channels = mask.Channels
              Height = mask.Height
              Width = mask.Width }

        let isForEach = context.Sample.IsNone && mask.Samples = context.Batch.Count

        if not (mask.Samples = 1 || isForEach) || drawn <> context.Shape then
            invalidOp
                $"The custom region {custom.Name} drew a mask of {mask.Samples} x {drawn} where 1 x {context.Shape} was asked for."

        match mask.Values with
        | Soft _ when not custom.IsSoft ->
            invalidOp $"The custom region {custom.Name} drew numbers; it was declared to draw bits."
        | _ -> mask

    let private granular
        (perSample: bool)
        (perChannel: bool)
        (key: Key)
        (info: BatchInfo)
        (shape: Shape)
        region
        : Mask =
        let shape =
            { shape with
                Channels = if perChannel then shape.Channels else 1 }

        let keys =
            if perSample then
                Array.init info.Count (fun i -> BatchInfo.sampleKey info i key)
            else
                [| BatchInfo.batchKey info key |]

        let painted (paint: Painter) =
            let stride = shape.Channels * shape.Height * shape.Width
            let bits = GC.AllocateUninitializedArray<bool>(keys.Length * stride)
            Array.Fill(bits, true)

            Workers.each (bits.Length > (1 <<< 22)) keys.Length ignore (fun () n ->
                paint (Key.stream keys[n]) bits (n * stride) shape.Channels)

            Mask.hard keys.Length shape bits

        match region with
        | Cells fraction -> painted (paintCells fraction shape)
        | Channels fraction -> painted (paintChannels fraction shape)
        | Blocks(size, fraction, calibration) -> painted (paintBlocks calibration size fraction shape)
        | Rect area -> painted (paintRect area shape)
        | Custom custom ->
            let masks =
                keys
                |> Array.mapi (fun n leaf ->
                    drawCustom
                        custom
                        { Key = leaf
                          Shape = shape
                          Sample = if perSample then Some n else None
                          Batch = info })

            if perSample then
                Mask.concat keys.Length shape masks
            else
                masks[0]
        | _ -> invalidOp $"{region} is not a random leaf."

    /// Draws the mask for a batch's features of this shape. The key of a random leaf is child `i` of `key`, where `i` counts the random
    /// leaves from left to right; what is drawn per sample is keyed by `info.First` plus the sample's index as well.
    let draw (key: Key) (info: BatchInfo) (shape: Shape) (region: Region) : Mask =
        // The mask, and the index of the next random leaf.
        let rec go perSample (perChannel: bool option) leaf region : struct (Mask * int) =
            let random natural =
                let perChannel = defaultArg perChannel natural
                struct (granular perSample perChannel (Key.child leaf key) info shape region, leaf + 1)

            let zip combine a b =
                let struct (a, leaf) = go perSample perChannel leaf a
                let struct (b, leaf) = go perSample perChannel leaf b
                struct (combine a b, leaf)

            match region with
            | Nowhere -> struct (Mask.constant shape true, leaf)
            | Everywhere -> struct (Mask.constant shape false, leaf)
            | Cells _
            | Blocks _
            | Channels _ -> random true
            | Rect _
            | Custom _ -> random false
            | Not a ->
                let struct (a, leaf) = go perSample perChannel leaf a
                struct (Mask.complement a, leaf)
            | And(a, b) -> zip Mask.both a b
            | Or(a, b) -> zip Mask.either a b
            | PerSample a -> go true perChannel leaf a
            | PerChannel a -> go perSample (Some true) leaf a
            | Shared a -> go perSample (Some false) leaf a

        let struct (mask, _) = go false None 0 region
        mask
