/// Broken variants of the library's operations, most of them bugs that mixing libraries have shipped, and the laws
/// that reject them.
module PatchUp.Tests.MutantTests

open System
open System.Text.RegularExpressions
open Expecto
open TorchSharp
open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws

/// A broken variant and the law that must reject it.
[<NoEquality; NoComparison>]
type Mutant =
    {
        /// What is broken.
        Name: string
        /// The row of the project's list of bugs that peers shipped, if it is one of them.
        Row: int option
        Subject: Subject
        /// Whether the broken operation breaks by raising.
        Raises: bool
        Law: Law
    }

let private core = Subject.core

let private kills (law: Law) (mutants: (string * Subject) list) =
    [ for name, subject in mutants ->
          { Name = name
            Row = None
            Subject = subject
            Raises = false
            Law = law } ]

/// A bug of a peer: its row, what is broken.
let private peer row (law: Law) name subject =
    { Name = name
      Row = Some row
      Subject = subject
      Raises = false
      Law = law }

// ---- broken parts ----

/// Draws another region in the place of each part of one.
let rec private rewrite (change: Region -> Region) (region: Region) : Region =
    let inner = rewrite change

    match change region with
    | Not a -> Not(inner a)
    | And(a, b) -> And(inner a, inner b)
    | Or(a, b) -> Or(inner a, inner b)
    | PerSample a -> PerSample(inner a)
    | PerChannel a -> PerChannel(inner a)
    | Shared a -> Shared(inner a)
    | leaf -> leaf

let private drawing change =
    { core with
        DrawRegion = fun key info shape region -> Region.draw key info shape (rewrite (change shape) region) }

/// Changes every drawn mask.
let private masked (change: Mask -> Mask) =
    { core with
        DrawRegion = fun key info shape region -> Region.draw key info shape region |> change }

/// A hard mask with its planes changed.
let private onPlanes (change: bool[,] -> bool[,]) (mask: Mask) =
    match mask.Values with
    | Soft _ -> mask
    | Hard bits ->
        { mask with
            Values =
                bits
                |> Array.chunkBySize (mask.Height * mask.Width)
                |> Array.collect (fun plane ->
                    Array2D.init mask.Height mask.Width (fun y x -> plane[y * mask.Width + x])
                    |> change
                    |> Seq.cast<bool>
                    |> Array.ofSeq)
                |> Hard }

/// Moved one column to the left, the last column unchanged.
let private shifted =
    onPlanes (fun plane ->
        let width = Array2D.length2 plane
        Array2D.init (Array2D.length1 plane) width (fun y x -> x = width - 1 || plane[y, x + 1]))

/// The square map of the width's side, cut or filled to the height.
let private heightFromWidth key info (shape: Shape) region =
    let square = Region.draw key info { shape with Height = shape.Width } region

    match square.Values with
    | Soft _ -> Region.draw key info shape region
    | Hard bits ->
        let plane = shape.Width * shape.Width

        { square with
            Height = shape.Height
            Values =
                [| for start in 0..plane .. bits.Length - 1 do
                       for y in 0 .. shape.Height - 1 do
                           for x in 0 .. shape.Width - 1 -> y >= shape.Width || bits[start + y * shape.Width + x] |]
                |> Hard }

/// Draws with a smaller map, so that no block, rectangle or cell is centred in its last row.
let private lastRowNever key info (shape: Shape) region =
    if shape.Height = 1 then
        Region.draw key info shape region
    else
        let smaller = Region.draw key info { shape with Height = shape.Height - 1 } region

        match smaller.Values with
        | Soft _ -> Region.draw key info shape region
        | Hard bits ->
            { smaller with
                Height = shape.Height
                Values =
                    bits
                    |> Array.chunkBySize ((shape.Height - 1) * shape.Width)
                    |> Array.collect (fun plane -> Array.append plane (Array.create shape.Width true))
                    |> Hard }

/// The first sample's mask for every sample.
let private firstForAll (mask: Mask) =
    if mask.Samples = 1 then
        mask
    else
        let first (values: 'v[]) =
            Array.replicate mask.Samples values[.. values.Length / mask.Samples - 1]
            |> Array.concat

        { mask with
            Values =
                match mask.Values with
                | Hard bits -> Hard(first bits)
                | Soft values -> Soft(first values) }

/// Every draw of a plan changed before it is applied.
let private planned (change: Drawn -> Drawn) (plan: Plan) =
    { plan with
        Draws = List.map change plan.Draws }

let private applying change =
    { core with
        Apply = fun plan batch -> Plan.apply (planned change plan) batch }

/// Features of one plan with targets of another.
let private spliced (forFeatures: Drawn -> Drawn) (forTargets: Drawn -> Drawn) =
    { core with
        Apply =
            fun plan batch ->
                { Plan.apply (planned forTargets plan) batch with
                    Features = (Plan.apply (planned forFeatures plan) batch).Features } }

/// Features by another kernel, draw by draw, with the plan's own targets.
let private withKernel (kernel: Weight -> torch.Tensor -> torch.Tensor -> torch.Tensor) =
    let features (plan: Plan) (batch: Batch) =
        plan.Draws
        |> List.fold
            (fun (x: torch.Tensor) drawn ->
                let other =
                    match drawn.Partner with
                    | Some map -> x.index_select (0L, torch.tensor (Array.map int64 map))
                    | None -> torch.zeros_like x

                let weight =
                    { Mask = drawn.Mask
                      Toward = drawn.Lambda |> Array.map (fun lambda -> 1.0 - lambda) }

                kernel weight x other)
            batch.Features

    { core with
        Blend = kernel
        Apply =
            fun plan batch ->
                { Plan.apply plan batch with
                    Features = features plan batch } }

/// Targets changed after a plan was applied.
let private relabelled (change: Plan -> Batch -> Targets -> Targets) =
    { core with
        Apply =
            fun plan batch ->
                let mixed = Plan.apply plan batch

                { mixed with
                    Targets = change plan batch mixed.Targets } }

/// Pixels' labels by another plan than their features.
let private mapping (change: Drawn -> Drawn) =
    { core with
        ApplyMaps = Some(fun plan -> Plan.applyMaps (planned change plan)) }

let private remixed (change: Plan -> MixedTargets -> MixedTargets) =
    relabelled (fun plan _ targets ->
        { targets with
            Mixed = Option.map (change plan) targets.Mixed })

/// M and w of a weight as tensors of the features' size.
let private weightTensors (weight: Weight) (like: torch.Tensor) =
    let count = int like.shape[0]

    let shape = Batch.shapeOf like

    let m =
        torch.tensor(MaskValues.spread count shape weight.Mask, ReadOnlySpan like.shape).``to``(like.dtype)

    let perSample =
        Array.init (int (like.dim ())) (fun axis -> if axis = 0 then int64 weight.Toward.Length else 1L)

    m, torch.tensor(weight.Toward, ReadOnlySpan perSample).``to``(like.dtype)

let private one = Scope.number 1.0

/// (1 - w) a + w b, multiplied out: infinities and NaN of the side that is not taken leak.
let private multiplied weight a b =
    let m, toward = weightTensors weight a
    let w = (one - m) * toward
    (one - w) * a + w * b

let private withWeight change =
    withKernel (fun weight a b -> Blend.blend (change weight) a b)

/// x[n] overwritten sample by sample, so that later partners are read after they changed.
let private inPlace (plan: Plan) (batch: Batch) =
    let features =
        plan.Draws
        |> List.fold
            (fun (x: torch.Tensor) drawn ->
                let x = x.clone ()

                match drawn.Partner with
                | None -> ()
                | Some map ->
                    map
                    |> Array.iteri (fun n partner ->
                        let row (t: torch.Tensor) i = t.narrow (0L, int64 i, 1L)
                        let size = int drawn.Mask.Channels * drawn.Mask.Height * drawn.Mask.Width

                        let mask =
                            if drawn.Mask.Samples = 1 then
                                drawn.Mask
                            else
                                { drawn.Mask with
                                    Samples = 1
                                    Values =
                                        match drawn.Mask.Values with
                                        | Hard bits -> Hard bits[n * size .. (n + 1) * size - 1]
                                        | Soft values -> Soft values[n * size .. (n + 1) * size - 1] }

                        let toward = [| 1.0 - drawn.Lambda[n % drawn.Lambda.Length] |]
                        let mixed = Blend.blend { Mask = mask; Toward = toward } (row x n) (row x partner)
                        (row x n).copy_ mixed |> ignore)

                x)
            batch.Features

    { Plan.apply plan batch with
        Features = features }

let private inverse (map: int[]) =
    let back = Array.copy map
    map |> Array.iteri (fun i j -> back[j] <- i)
    back

let private roll by (map: int[]) =
    Array.init map.Length (fun i -> map[(i + by) % map.Length])

let private repartnered change (drawn: Drawn) =
    { drawn with
        Partner = Option.map change drawn.Partner }

let private relambdad change (drawn: Drawn) =
    { drawn with
        Lambda = Array.map change drawn.Lambda }

let private remasked change (drawn: Drawn) = { drawn with Mask = change drawn.Mask }

/// Draws a changed program.
let private programmed (change: Step -> Step) =
    { core with
        Draw = fun key info regularizer -> Plan.draw key info (Trial.mapSteps change regularizer) }

let private drawn (change: Drawn list -> Drawn list) =
    { core with
        Draw =
            fun key info regularizer ->
                let plan = Plan.draw key info regularizer

                { plan with Draws = change plan.Draws } }

/// A loss for other targets, or other weights.
let private losing (change: MixedTargets -> MixedTargets) =
    { core with
        Loss =
            fun loss targets logits ->
                Loss.ofBatch
                    loss
                    { targets with
                        Mixed = Option.map change targets.Mixed }
                    logits }

let private batchMean (values: float[]) =
    Array.create values.Length (Array.average values)

/// A method of the catalogue replaced.
let private withMethod name regularizer =
    { core with
        Method = fun asked -> if asked = name then regularizer else core.Method asked }

let private counter = ref 0

/// Another key at every call: state that a draw must not have.
let private nextKey key =
    counter.Value <- counter.Value + 1
    Key.child counter.Value key

// ---- mutants, law by law ----

let private ofKey =
    let bits next n key =
        let stream = Key.stream key
        Array.init n (fun _ -> next stream)

    [ kills
          KeyLaws.childrenDiffer
          [ "child index without its sign",
            { core with
                Child = fun i -> Key.child (i &&& Int32.MaxValue) }
            "child index cut to 16 bits",
            { core with
                Child = fun i -> Key.child (i &&& 0xFFFF) }
            "child index squared",
            { core with
                Child = fun i -> Key.child (i * i) } ]
      kills
          KeyLaws.parentsDiffer
          [ "the key's last bit ignored",
            { core with
                Child = fun i key -> Key.child i { State = key.State &&& ~~~1UL } }
            "the key cut to 32 bits",
            { core with
                Child = fun i key -> Key.child i { State = uint64 (uint32 key.State) } } ]
      kills
          KeyLaws.splitMix
          [ "another finaliser",
            { core with
                Words = fun n key -> Array.init n (fun i -> (Key.child i key).State) }
            "the first word skipped",
            { core with
                Words =
                    fun n key ->
                        let words = core.Words (n + 1) key
                        words[1..] } ]
      kills
          KeyLaws.sameKeySameDraw
          [ "a hidden counter in the sequence",
            { core with
                Words = fun n key -> core.Words n (nextKey key) } ]
      kills
          KeyLaws.noOverlap
          [ "a child is a later state of its parent",
            { core with
                Child = fun i key -> { State = key.State + 0x9E3779B97F4A7C15UL * (uint64 i + 1UL) } } ]
      kills
          KeyLaws.permutation
          [ "a permutation drawn with replacement",
            { core with
                Permutation = fun n key -> core.Below n n key } ]
      kills
          KeyLaws.uniformPermutation
          [ "each place exchanged with any other",
            { core with
                Permutation =
                    fun n key ->
                        let stream = Key.stream key
                        let order = Array.init n id

                        for i in 0 .. n - 1 do
                            let j = stream.Below n
                            let held = order[i]
                            order[i] <- order[j]
                            order[j] <- held

                        order }
            "Sattolo's cycles for permutations",
            { core with
                Permutation =
                    fun n key ->
                        let stream = Key.stream key
                        let order = Array.init n id

                        for i in n - 1 .. -1 .. 1 do
                            let j = stream.Below i
                            let held = order[i]
                            order[i] <- order[j]
                            order[j] <- held

                        order } ]
      kills
          KeyLaws.uniformFloats
          [ "the larger of two numbers",
            { core with
                Floats = bits (fun s -> max (s.Float()) (s.Float())) }
            "each number twice",
            { core with
                Floats =
                    fun n key ->
                        core.Floats ((n + 1) / 2) key
                        |> Array.collect (fun u -> [| u; u |])
                        |> Array.take n }
            "seven bits",
            { core with
                Floats = fun n key -> core.Floats n key |> Array.map (fun u -> floor (u * 16.0) / 16.0) } ]
      kills
          KeyLaws.uniformAcrossChildren
          [ "children in pairs",
            { core with
                Child = fun i -> Key.child (i / 2) } ]
      kills
          KeyLaws.uniformBelow
          [ "31 bits modulo the bound",
            { core with
                Below = fun bound -> bits (fun s -> int (s.Bits() >>> 33) % bound) }
            "the last number never",
            { core with
                Below = fun bound -> bits (fun s -> s.Below(max 1 (bound - 1))) } ]
      kills
          KeyLaws.normal
          [ "variance 1/2",
            { core with
                Normals = fun n key -> core.Normals n key |> Array.map (fun z -> z / sqrt 2.0) }
            "only positive",
            { core with
                Normals = fun n key -> core.Normals n key |> Array.map abs } ]
      kills
          KeyLaws.samplesFollowCdf
          [ "the parameters of Beta exchanged",
            { core with
                Sample =
                    fun n dist ->
                        match dist with
                        | Beta(a, b) -> core.Sample n (Beta(b, a))
                        | other -> core.Sample n other }
            "Johnk's method without its rejection",
            { core with
                Sample =
                    fun n dist ->
                        match dist with
                        | Beta(a, b) ->
                            n
                            |> bits (fun s ->
                                let x, y = s.Open() ** (1.0 / a), s.Open() ** (1.0 / b)
                                x / (x + y))
                        | other -> core.Sample n other }
            "the complement's distribution function",
            { core with
                Cdf = fun dist x -> core.Cdf dist (1.0 - x) } ]
      kills
          KeyLaws.samplesInRange
          [ "a ratio of numbers that underflow",
            { core with
                Sample =
                    fun n dist ->
                        match dist with
                        | Beta(a, b) ->
                            n
                            |> bits (fun s ->
                                let x, y = s.Open() ** (1.0 / a), s.Open() ** (1.0 / b)
                                x / (x + y))
                        | other -> core.Sample n other } ]
      kills
          KeyLaws.sameKeySameSample
          [ "a hidden counter in the samples",
            { core with
                Sample = fun n dist key -> core.Sample n dist (nextKey key) } ]
      kills
          KeyLaws.meanIsMean
          [ "the mean of the other parameter",
            { core with
                Mean =
                    fun dist ->
                        match dist with
                        | Beta(a, b) -> b / (a + b)
                        | other -> Dist.mean other }
            "the mode for the mean",
            { core with
                Mean =
                    fun dist ->
                        match dist with
                        | Beta(a, b) when a > 1.0 && b > 1.0 -> (a - 1.0) / (a + b - 2.0)
                        | other -> Dist.mean other } ] ]
    |> List.concat

let private ofMasks =
    let first = ref None

    [ kills
          MaskLaws.fromKey
          [ "a hidden counter in the region's draw",
            { core with
                DrawRegion = fun key -> Region.draw (nextKey key) } ]
      [ peer
            17
            MaskLaws.samplesApart
            "a sample's mask keyed by its place in the batch"
            { core with
                DrawRegion = fun key info -> Region.draw key { info with First = 0 } }
        peer 3 MaskLaws.samplesApart "the first sample's mask for every sample" (masked firstForAll) ]
      kills
          MaskLaws.samplesApart
          [ "every sample's mask from all samples' number",
            { core with
                DrawRegion = fun key info -> Region.draw (Key.child info.Count key) info } ]
      kills
          MaskLaws.expectedIsProbability
          [ "rows and columns of the expectation exchanged",
            { core with
                Expected =
                    fun shape region ->
                        let map = Region.expected shape region
                        Array2D.init shape.Width shape.Height (fun x y -> map[y, x]) }
            "the expected number of blocks for the probability",
            { core with
                Expected =
                    fun shape region ->
                        match region with
                        | Blocks(_, fraction, _) ->
                            // The mean of a Poisson number of blocks, whose probability of 0 is 1 - p.
                            Region.expected shape region
                            |> Array2D.map (fun p -> if fraction < 1.0 then -log(1.0 - p) else p)
                        | other -> Region.expected shape other |> Array2D.map ((*) 1.5) } ]
      [ peer
            3
            MaskLaws.size
            "one draw for all samples instead of one each"
            (drawing (fun _ region ->
                match region with
                | PerSample a -> a
                | other -> other)) ]
      kills
          MaskLaws.size
          [ "Shared does nothing",
            drawing (fun _ region ->
                match region with
                | Shared a -> a
                | other -> other)
            "height and width exchanged",
            { core with
                DrawRegion =
                    fun key info shape region ->
                        Region.draw
                            key
                            info
                            { shape with
                                Height = shape.Width
                                Width = shape.Height }
                            region } ]
      kills
          MaskLaws.unchangedIsMean
          [ "p_u over the whole batch",
            { core with
                Unchanged = fun mask -> Mask.unchanged mask |> batchMean }
            "the altered share",
            { core with
                Unchanged = fun mask -> Mask.unchanged mask |> Array.map (fun p -> 1.0 - p) }
            "p_u of the first row only",
            { core with
                Unchanged =
                    fun mask ->
                        let kept = MaskValues.kept mask
                        Array.init mask.Samples (fun n -> Array.init mask.Width (kept n 0) |> Array.average) } ]
      kills
          MaskLaws.hardMasksAreBits
          [ "bits turned into numbers",
            masked (fun mask ->
                { mask with
                    Values = MaskValues.numbers mask |> Array.map float32 |> Soft }) ]
      kills
          MaskLaws.notComplements
          [ "Not does nothing",
            drawing (fun _ region ->
                match region with
                | Not a -> a
                | other -> other)
            "Not draws its operand anew",
            { core with
                DrawRegion =
                    fun key info shape region ->
                        match region with
                        | Not _ -> Region.draw (Key.child 7 key) info shape region
                        | other -> Region.draw key info shape other } ]
      kills
          MaskLaws.deMorgan
          [ "Or draws its second operand first",
            drawing (fun _ region ->
                match region with
                | Or(a, b) -> Or(b, a)
                | other -> other) ]
      kills
          MaskLaws.units
          [ "Everywhere takes a key",
            drawing (fun _ region ->
                match region with
                | Everywhere -> Cells 1.0
                | other -> other)
            "Nowhere alters everything",
            drawing (fun _ region ->
                match region with
                | Nowhere -> Everywhere
                | other -> other) ]
      kills
          MaskLaws.setsOfAltered
          [ "And and Or exchanged",
            { core with
                DrawRegion =
                    fun key info shape region ->
                        match region with
                        | And(a, b) -> Region.draw key info shape (Or(a, b))
                        | Or(a, b) -> Region.draw key info shape (And(a, b))
                        | other -> Region.draw key info shape other } ]
      kills
          MaskLaws.granularityAtLeaves
          [ "the outermost granularity wins",
            drawing (fun _ region ->
                match region with
                | Shared(PerChannel a) -> Shared a
                | PerChannel(Shared a) -> PerChannel a
                | other -> other)
            "each PerSample takes a key",
            { core with
                DrawRegion =
                    fun key info shape region ->
                        match region with
                        | PerSample(PerSample _) -> Region.draw (Key.child 1 key) info shape region
                        | other -> Region.draw key info shape other } ]
      kills
          MaskLaws.wholeBlocks
          [ "blocks painted one short",
            drawing (fun _ region ->
                match region with
                | Blocks(size, fraction, calibration) when size > 1 -> Blocks(size - 1, fraction, calibration)
                | other -> other) ]
      [ peer 8 MaskLaws.wholeBlocks "blocks shifted by one" (masked shifted)
        peer
            9
            MaskLaws.wholeBlocks
            "the height taken from the width"
            { core with
                DrawRegion = heightFromWidth }
        peer
            5
            MaskLaws.oneRectangle
            "the rectangle's area inverted"
            (drawing (fun _ region ->
                match region with
                | Rect(Always area) -> Rect(Always(1.0 - area))
                | other -> other)) ]
      kills
          MaskLaws.oneRectangle
          [ "the area taken for the side",
            drawing (fun _ region ->
                match region with
                | Rect(Always area) -> Rect(Always(area * area))
                | other -> other)
            "the rectangle's outline only",
            masked (
                onPlanes (fun plane ->
                    let height, width = Array2D.length1 plane, Array2D.length2 plane

                    let kept y x =
                        y >= 0 && y < height && x >= 0 && x < width && plane[y, x]

                    // Keeps what has altered neighbours on both sides of each axis.
                    let isInside y x =
                        y > 0
                        && y < height - 1
                        && x > 0
                        && x < width - 1
                        && not (kept (y - 1) x || kept (y + 1) x || kept y (x - 1) || kept y (x + 1))

                    Array2D.init height width (fun y x -> plane[y, x] || isInside y x))
            ) ]
      [ peer
            6
            MaskLaws.expectedIsRealised
            "seeds on the whole map with the probability for the valid region"
            (drawing (fun _ region ->
                match region with
                | Blocks(size, fraction, Exact) -> Blocks(size, fraction, Paper)
                | other -> other))
        peer
            7
            MaskLaws.expectedIsRealised
            "the overlap of blocks ignored"
            (drawing (fun _ region ->
                match region with
                | Blocks(size, fraction, Exact) -> Blocks(size, fraction, Valid)
                | other -> other))
        peer
            10
            MaskLaws.expectedIsRealised
            "the adjusted probability cached from the first map"
            (drawing (fun shape region ->
                match region with
                | Blocks(size, fraction, Paper) ->
                    let adjusted shape = Region.gammaAdjusted shape size 1.0
                    let cached = first.Value |> Option.defaultValue shape
                    first.Value <- Some cached
                    Blocks(size, min 1.0 (fraction * adjusted cached / adjusted shape), Paper)
                | other -> other)) ]
      kills
          MaskLaws.expectedIsRealised
          [ "cells kept with the probability of altering",
            drawing (fun _ region ->
                match region with
                | Cells fraction -> Cells(1.0 - fraction)
                | other -> other)
            "even blocks one larger",
            drawing (fun _ region ->
                match region with
                | Blocks(size, fraction, Paper) when size % 2 = 0 ->
                    Blocks(size + 1, min 1.0 (fraction * float ((size + 1) * (size + 1)) / float (size * size)), Paper)
                | other -> other) ]
      kills
          MaskLaws.requestedIsExpected
          [ "equation (2) for the exact calibration",
            { core with
                Expected =
                    fun shape region ->
                        match region with
                        | Blocks(size, fraction, Exact) -> Region.expected shape (Blocks(size, fraction, Paper))
                        | other -> Region.expected shape other }
            "the height taken from the width",
            { core with
                Expected =
                    fun shape region ->
                        let square = Region.expected { shape with Height = shape.Width } region
                        Array2D.init shape.Height shape.Width (fun y x -> square[y % shape.Width, x]) } ]
      [ peer 4 MaskLaws.everyPlaceReachable "the last row never a centre" { core with DrawRegion = lastRowNever }
        peer 3 MaskLaws.samplesIndependent "one placement for all samples" (masked firstForAll) ]
      kills
          MaskLaws.channelsIndependent
          [ "one draw for all channels",
            { core with
                DrawRegion =
                    fun key info shape region ->
                        Region.draw
                            key
                            info
                            shape
                            (rewrite
                                (fun r ->
                                    match r with
                                    | PerChannel a -> Shared a
                                    | o -> o)
                                region) } ] ]
    |> List.concat

let private ofHardMixes =
    [ kills
          HardLaws.bits
          [ "multiplied instead of selected", withKernel multiplied
            "the mask's complement", applying (remasked Mask.complement)
            "the inverse permutation", applying (repartnered inverse)
            "the mask moved by a column", applying (remasked shifted)
            "the mask upside down",
            applying (
                remasked (
                    onPlanes (fun plane ->
                        Array2D.init (Array2D.length1 plane) (Array2D.length2 plane) (fun y x ->
                            plane[Array2D.length1 plane - 1 - y, x]))
                )
            )
            "samples' masks in the reverse order",
            applying (
                remasked (fun mask ->
                    { mask with
                        Values =
                            match mask.Values with
                            | Hard bits ->
                                bits
                                |> Array.chunkBySize (bits.Length / mask.Samples)
                                |> Array.rev
                                |> Array.concat
                                |> Hard
                            | soft -> soft })
            )
            "half of the partner's features", applying (relambdad (fun _ -> 0.5)) ]
      [ peer 14 HardLaws.bits "partners read after they were overwritten" { core with Apply = inPlace }
        peer 14 HardLaws.conserved "partners read after they were overwritten" { core with Apply = inPlace } ]
      kills HardLaws.conserved [ "everyone with the first sample", applying (repartnered (Array.map (fun _ -> 0))) ]
      kills
          HardLaws.selects
          [ "multiplied instead of selected", withKernel multiplied
            "lerp at the ends",
            withKernel (fun weight a b ->
                let m, toward = weightTensors weight a
                torch.lerp (a, b, (one - m) * toward))
            "selected, but detached from the partner", withKernel (fun weight a b -> Blend.blend weight a (b.detach ())) ] ]
    |> List.concat

let private ofSoftMixes =
    let exchanged =
        withWeight (fun weight ->
            { weight with
                Toward = weight.Toward |> Array.map (fun t -> 1.0 - t) })

    let complemented =
        withWeight (fun weight ->
            { weight with
                Mask = Mask.complement weight.Mask })

    [ kills
          SoftLaws.identities
          [ "lambda and 1 - lambda exchanged", exchanged
            "the mask's complement", complemented
            "Self is the next sample",
            programmed (fun step ->
                if step.Partner = Self then
                    { step with Partner = Rolled 1 }
                else
                    step) ]
      kills
          SoftLaws.lambdaZeroIsHard
          [ "lambda kept away from 0",
            programmed (fun step ->
                if step.Mix = Blend(Always 0.0) then
                    { step with Mix = Blend(Always 0.001) }
                else
                    step)
            "multiplied where lambda is per sample",
            withKernel (fun weight a b ->
                if weight.Toward.Length > 1 then
                    multiplied weight a b
                else
                    Blend.blend weight a b) ]
      kills
          SoftLaws.equation
          [ "lambda and 1 - lambda exchanged", exchanged
            "the mask's complement", complemented
            "own and partner exchanged", withKernel (fun weight a b -> Blend.blend weight b a)
            "samples' lambdas in the reverse order",
            withWeight (fun weight ->
                { weight with
                    Toward = Array.rev weight.Toward })
            "w = toward - M",
            withKernel (fun weight a b ->
                let m, toward = weightTensors weight a
                let w = (toward - m).relu()
                a + w * (b - a)) ]
      kills
          SoftLaws.linear
          [ "clamped to [-1, 1]", withKernel (fun weight a b -> (Blend.blend weight a b).clamp(Scope.number -1.0, one))
            "a constant added", withKernel (fun weight a b -> Blend.blend weight a b + Scope.number 1e-3) ]
      kills
          SoftLaws.convex
          [ "a step too far",
            withKernel (fun weight a b ->
                let mixed = Blend.blend weight a b
                mixed + (mixed - a) * Scope.number 0.1)
            "away from the partner", withKernel (fun weight a b -> Blend.blend weight a (a + a - b)) ]
      kills
          SoftLaws.wholeProgram
          [ "draws in the reverse order",
            { core with
                Apply =
                    fun plan batch ->
                        Plan.apply
                            { plan with
                                Draws = List.rev plan.Draws }
                            batch }
            "only the last draw",
            { core with
                Apply =
                    fun plan batch ->
                        Plan.apply
                            { plan with
                                Draws = List.truncate 1 (List.rev plan.Draws) }
                            batch } ] ]
    |> List.concat

/// The altered fraction that a region's words name, before anything is drawn or clipped.
let rec private nominal region =
    match region with
    | Nowhere -> 0.0
    | Everywhere -> 1.0
    | Cells fraction
    | Channels fraction
    | Blocks(_, fraction, _) -> fraction
    | Rect area -> Dist.mean area
    | Not a -> 1.0 - nominal a
    | And(a, b) -> nominal a * nominal b
    | Or(a, b) -> 1.0 - (1.0 - nominal a) * (1.0 - nominal b)
    | PerSample a
    | PerChannel a
    | Shared a -> nominal a
    | Custom custom -> List.head custom.Arguments

/// Labels weighed by the nominal altered fraction of the program drawn last.
let private nominalWeight =
    let weight = ref 0.0

    let remember regularizer =
        for step in Regularizer.steps regularizer do
            weight.Value <- nominal step.Region |> max 0.0 |> min 1.0

    let weigh (drawn: Drawn) =
        { drawn with
            Mask =
                Mask.soft
                    1
                    { Channels = 1
                      Height = drawn.Mask.Height
                      Width = drawn.Mask.Width }
                    (Array.create (drawn.Mask.Height * drawn.Mask.Width) (float32 (1.0 - weight.Value))) }

    { spliced id weigh with
        Draw =
            fun key info regularizer ->
                remember regularizer
                Plan.draw key info regularizer }

let private ofLabels =
    let half (v: float) =
        Scope.value (fun () -> float (torch.tensor(v).``to``(torch.bfloat16).``to``(torch.float32).item<float32>()))

    let partner (drawn: Drawn) (rows: torch.Tensor) =
        rows.index_select (0L, torch.tensor (Array.map int64 drawn.Partner.Value))

    let last (plan: Plan) =
        plan.Draws |> List.findBack (fun drawn -> drawn.Partner.IsSome)

    let column (shares: float[]) count =
        torch.tensor (Array.init count (fun n -> float32 shares[n % shares.Length]), ReadOnlySpan [| int64 count; 1L |])

    [ [ peer
            18
            LabelLaws.rowsSumToOne
            "lambda in half precision"
            (relabelled (fun plan batch targets ->
                match plan.Draws |> List.filter (fun drawn -> drawn.Partner.IsSome) with
                | [ drawn ] ->
                    let y = batch.Targets.Soft
                    let count = int y.shape[0]
                    let share = drawn.OwnShare

                    let own, other =
                        column (Array.map half share) count,
                        column (share |> Array.map (fun s -> half (1.0 - s))) count

                    { targets with
                        Soft = own * y + other * partner drawn y }
                | _ -> targets))
        peer 1 LabelLaws.followFeatures "the label weight from the nominal area" nominalWeight
        peer 11 LabelLaws.followFeatures "labels of another permutation" (spliced id (repartnered (roll 1)))
        peer
            11
            LabelLaws.followFeatures
            "labels not permuted"
            (spliced id (repartnered (fun map -> Array.init map.Length id)))
        peer
            12
            LabelLaws.followFeatures
            "targets left one-hot"
            (relabelled (fun _ batch targets ->
                { targets with
                    Soft = batch.Targets.Soft }))
        peer
            3
            LabelLaws.followFeatures
            "the label weight of the first sample for all"
            (spliced id (remasked firstForAll)) ]
      kills
          LabelLaws.followFeatures
          [ "the complement's label weight", spliced id (remasked Mask.complement)
            "lambda ignored in the label weight", spliced id (relambdad (fun _ -> 0.0))
            "labels by lambda alone, whatever the mask",
            spliced
                id
                (remasked (fun mask ->
                    Mask.constant
                        { Channels = 1
                          Height = mask.Height
                          Width = mask.Width }
                        false)) ]
      kills
          LabelLaws.pixelLabels
          [ "class indices not permuted", mapping (repartnered (fun map -> Array.init map.Length id))
            "class indices by a shifted mask", mapping (remasked shifted)
            "class indices of the unchanged pixels mixed", mapping (remasked Mask.complement)
            "class indices as floating-point numbers",
            { core with
                ApplyMaps = Some(fun plan maps -> (Plan.applyMaps plan maps).``to``(torch.float32)) } ]
      kills
          LabelLaws.pixelWeights
          [ "soft maps by the mask of the first channel",
            mapping (
                remasked (fun mask ->
                    let area = mask.Height * mask.Width

                    let first (values: 'v[]) =
                        values
                        |> Array.chunkBySize (mask.Channels * area)
                        |> Array.collect (Array.take area)

                    { mask with
                        Channels = 1
                        Values =
                            match mask.Values with
                            | Hard bits -> Hard(first bits)
                            | Soft own -> Soft(first own) })
            )
            "lambda ignored in soft maps", mapping (relambdad (fun _ -> 0.0))
            "soft maps not permuted", mapping (repartnered (fun map -> Array.init map.Length id)) ]
      kills
          LabelLaws.equations78
          [ "Y is the partner's target in a soft mix",
            remixed (fun plan mixed ->
                { mixed with
                    Altered = partner (last plan) mixed.Own })
            "p_u of the whole batch",
            remixed (fun _ mixed ->
                { mixed with
                    Unchanged = batchMean mixed.Unchanged })
            "p_u is the altered share",
            remixed (fun _ mixed ->
                { mixed with
                    Unchanged = mixed.Unchanged |> Array.map (fun p -> 1.0 - p) })
            "y_i is mixed already",
            relabelled (fun _ _ targets ->
                { targets with
                    Mixed = targets.Mixed |> Option.map (fun mixed -> { mixed with Own = targets.Soft }) })
            "y_i before the whole sequence",
            relabelled (fun _ batch targets ->
                { targets with
                    Mixed =
                        targets.Mixed
                        |> Option.map (fun mixed -> { mixed with Own = batch.Targets.Soft }) })
            "the objective forgotten",
            remixed (fun _ mixed ->
                { mixed with
                    Objective = Objective.reweighted }) ]
      [ peer
            23
            LabelLaws.smoothingCommutes
            "smoothing twice"
            { core with
                Smooth = fun amount targets -> Targets.smooth amount (Targets.smooth amount targets) } ]
      kills
          LabelLaws.smoothingCommutes
          [ "smoothing not divided by the classes",
            { core with
                Smooth =
                    fun amount targets ->
                        { targets with
                            Soft = targets.Soft * Scope.number (1.0 - amount) + Scope.number amount } }
            "only W smoothed",
            { core with
                Smooth =
                    fun amount targets ->
                        { targets with
                            Soft = (Targets.smooth amount targets).Soft } } ]
      kills
          LabelLaws.kindsAgree
          [ "class indices from 1",
            { core with
                OfIndices =
                    fun classes labels ->
                        core.OfIndices classes (labels |> Array.map (fun label -> (label + classes - 1) % classes)) } ]
      kills
          LabelLaws.blankKeepsLabels
          [ "blanking scales labels",
            relabelled (fun plan _ targets ->
                if plan.Draws |> List.exists (fun drawn -> drawn.Partner.IsNone) then
                    { targets with
                        Soft = targets.Soft * Scope.number 0.5 }
                else
                    targets)
            "blanking counts as mixing",
            relabelled (fun plan _ targets ->
                if plan.Draws.IsEmpty || targets.Mixed.IsSome then
                    targets
                else
                    { targets with
                        Mixed =
                            Some
                                { Own = targets.Soft.alias ()
                                  Altered = targets.Soft.alias ()
                                  Unchanged = Array.create plan.Count 1.0
                                  Objective = Objective.reweighted } }) ] ]
    |> List.concat

let private ofAccuracy =
    let judged (rate: Targets -> torch.Tensor -> torch.Tensor) =
        { core with
            ExpectedAccuracy = fun targets logits -> Scope.value (fun () -> Read.values (rate targets logits)) }

    let at (rows: torch.Tensor) (logits: torch.Tensor) =
        rows.gather(1L, logits.argmax(1L).unsqueeze 1L).squeeze 1L

    [ [ peer
            24
            LabelLaws.accuracy
            "training accuracy against the first label"
            (judged (fun targets logits ->
                let own = targets.Mixed |> Option.map _.Own |> Option.defaultValue targets.Soft

                at own logits))
        peer
            24
            LabelLaws.accuracy
            "training accuracy against the heaviest label"
            (judged (fun targets logits -> targets.Soft.argmax(1L).eq(logits.argmax (1L)).``to``(torch.float64))) ]
      kills
          LabelLaws.accuracy
          [ "the weight of the least likely class", judged (fun targets logits -> at targets.Soft (logits.neg ()))
            "the batch's mean for every sample",
            judged (fun targets logits -> (at targets.Soft logits).mean().expand(targets.Soft.shape[0])) ] ]
    |> List.concat

let private ofLosses =
    let taking (change: torch.Tensor -> torch.Tensor) =
        { core with
            PerSample = fun loss logits targets -> change (Loss.perSample loss logits targets) }

    let asking (change: torch.Tensor -> torch.Tensor -> torch.Tensor * torch.Tensor) =
        { core with
            PerSample =
                fun loss logits targets ->
                    let logits, targets = change logits targets
                    Loss.perSample loss logits targets }

    [ kills
          LossLaws.oneNumber
          [ "the batch's mean, as a scalar", taking _.mean()
            "one number a class", taking (fun l -> l.unsqueeze(1L).expand(-1L, 2L))
            "a loss in half precision", taking _.``to``(torch.float16)
            "the loss's logarithm", taking (fun l -> (l - l).log()) ]
      kills
          LossLaws.samplesApart
          [ "the batch's mean for every sample", taking (fun l -> l.mean().expand(l.shape))
            "a softmax over the batch", asking (fun f y -> f - f.logsumexp (0L, true), y)
            "each sample with its neighbour's target", asking (fun f y -> f, y.roll (1L, 0L)) ]
      kills
          LossLaws.affine
          [ "the heaviest class of a soft target",
            asking (fun f y -> f, torch.zeros_like(y).scatter(1L, y.argmax(1L).unsqueeze 1L, torch.ones_like y))
            "the target's square", asking (fun f y -> f, y.square ()) ]
      kills
          LossLaws.repeatable
          [ "noise on the logits",
            asking (fun f y ->
                counter.Value <- counter.Value + 1
                f * Scope.number (1.0 + 0.001 * float (counter.Value % 7)), y)
            "the logits overwritten by their softmax",
            asking (fun f y ->
                use _ = torch.no_grad ()
                f.copy_ (torch.nn.functional.softmax (f, 1L)) |> ignore
                f, y) ]
      kills
          LossLaws.gradient
          [ "no gradient", taking _.detach()
            "half of the gradient", taking (fun l -> (l + l.detach ()) / Scope.number 2.0)
            "the target's share without gradient", asking (fun f y -> f * (one - y) + f.detach () * y, y) ] ]
    |> List.concat

let private ofObjectives =
    let exchanged =
        losing (fun mixed ->
            { mixed with
                Unchanged = mixed.Unchanged |> Array.map (fun p -> 1.0 - p) })

    let averaged =
        losing (fun mixed ->
            { mixed with
                Unchanged = batchMean mixed.Unchanged })

    [ [ peer
            13
            ObjectiveLaws.twiceForAffine
            "a loss weight on half of the first term"
            (losing (fun mixed ->
                { mixed with
                    Altered = mixed.Altered * Scope.number 0.5 })) ]
      kills
          ObjectiveLaws.twiceForAffine
          [ "p_u and 1 - p_u exchanged", exchanged
            "p_u of the whole batch", averaged
            "the own target twice", losing (fun mixed -> { mixed with Altered = mixed.Own }) ]
      kills
          ObjectiveLaws.brierGap
          [ "p_u and 1 - p_u exchanged", exchanged
            "the second term for the first",
            losing (fun mixed ->
                { mixed with
                    Objective = Objective.reweighted }) ]
      kills
          ObjectiveLaws.weightedSum
          [ "weights that are not named ones dropped",
            losing (fun mixed ->
                if mixed.Objective.First > 0.0 && mixed.Objective.Second > 0.0 then
                    { mixed with
                        Objective = Objective.twoTerm }
                else
                    mixed)
            "the weights exchanged",
            losing (fun mixed ->
                if mixed.Objective.First > 0.0 && mixed.Objective.Second > 0.0 then
                    { mixed with
                        Objective =
                            { First = mixed.Objective.Second
                              Second = mixed.Objective.First } }
                else
                    mixed) ]
      kills
          ObjectiveLaws.plainWhenUnmixed
          [ "an unmixed batch counted twice",
            { core with
                Loss =
                    fun loss targets logits ->
                        let value = Loss.ofBatch loss targets logits

                        if targets.Mixed.IsNone then
                            value * Scope.number 2.0
                        else
                            value }
            "the sum over samples",
            { core with
                Loss =
                    fun loss targets logits -> Loss.ofBatch loss targets logits * Scope.number (float logits.shape[0]) } ]
      kills ObjectiveLaws.samplesOwnWeight [ "p_u of the whole batch", averaged ] ]
    |> List.concat

let private ofRegularizers =
    let pairing partner other =
        { core with
            DrawPartner = fun key info asked -> Partner.draw key info (if asked = partner then other else asked) }

    let scaling (change: Drawn -> float[]) =
        { core with
            Draw =
                fun key info regularizer ->
                    let plan = Plan.draw key info regularizer

                    planned
                        (fun drawn ->
                            if drawn.Scale.Length = 0 then
                                drawn
                            else
                                { drawn with Scale = change drawn })
                        plan }

    let kinds change =
        programmed (fun step ->
            { step with
                Rescale = change step.Rescale })

    let onSites change =
        programmed (fun step -> { step with Site = change step.Site })

    [ kills
          RegularizerLaws.monoid
          [ "nested sequences kept", { core with Sequence = Sequence }
            "parts in the reverse order",
            { core with
                Sequence =
                    fun parts ->
                        match Regularizer.sequence parts with
                        | Sequence flat -> Sequence(List.rev flat)
                        | one -> one } ]
      kills
          RegularizerLaws.certainty
          [ "p and 1 - p exchanged",
            { core with
                Sometimes = fun p -> Regularizer.sometimes (1.0 - p) }
            "branches of weight 0 kept", { core with OneOf = Choose } ]
      [ peer
            2
            RegularizerLaws.frequencies
            "the probability applied twice"
            { core with
                Sometimes = fun p regularizer -> Regularizer.sometimes p (Regularizer.sometimes p regularizer) } ]
      kills
          RegularizerLaws.frequencies
          [ "weights ignored",
            { core with
                OneOf = List.map (fun (_, branch) -> 1.0, branch) >> Regularizer.oneOf }
            "the last site never",
            onSites (fun site ->
                match site with
                | AnyOf places when places.Length > 1 -> AnyOf(List.take (places.Length - 1) places)
                | other -> other) ]
      kills
          RegularizerLaws.overTraining
          [ "the last first",
            { core with
                Over = List.rev >> List.map (fun (t, r) -> 1.0 - t, r) >> Regularizer.over }
            "at once",
            { core with
                Over = fun points -> Over(points |> List.map (fun (_, r) -> 0.0, r)) }
            "the choice in the keys of what is chosen",
            { core with
                Over =
                    fun points ->
                        Regularizer.over (
                            points
                            |> List.map (fun (t, r) -> t, Choose [ 1.0, r; 0.0, Regularizer.identity ])
                        ) } ]
      kills
          RegularizerLaws.ramps
          [ "a jump in the middle",
            { core with
                Over =
                    fun points ->
                        match points with
                        | [ t, a; u, b ] -> Over [ (t + u) / 2.0, a; (t + u) / 2.0, b ]
                        | other -> Regularizer.over other }
            "the square of the share",
            { core with
                Over =
                    fun points ->
                        match points with
                        | [ t, a; u, b ] -> Over [ t, a; u, Over [ t, a; u, b ] ]
                        | other -> Regularizer.over other } ]
      kills
          RegularizerLaws.betweenNumbers
          [ "one or the other in place of what lies between",
            { core with
                Over =
                    fun points ->
                        match points with
                        | [ t, a; u, b ] -> Over [ t, a; u, Choose [ 1.0, b ] ]
                        | other -> Regularizer.over other }
            "the earlier one until the next time",
            { core with
                Over =
                    fun points ->
                        match points with
                        | [ t, a; u, b ] -> Over [ t, a; u, a; u, b ]
                        | other -> Regularizer.over other }
            "there at half time",
            { core with
                Over =
                    fun points ->
                        match points with
                        | [ t, a; u, b ] -> Over [ t, a; (t + u) / 2.0, b; u, b ]
                        | other -> Regularizer.over other } ]
      kills
          RegularizerLaws.sites
          [ "only the first of all sites",
            onSites (fun site ->
                match site with
                | AllOf places -> At places.Head
                | other -> other)
            "any of several is all of them",
            onSites (fun site ->
                match site with
                | AnyOf places -> AllOf places
                | other -> other)
            "sites numbered from 1",
            drawn (
                List.map (fun drawn ->
                    { drawn with
                        Place =
                            match drawn.Place with
                            | Number k -> Number(k + 1)
                            | name -> name })
            ) ]
      kills
          RegularizerLaws.freshAtEachSite
          [ "one draw for all sites",
            drawn (fun draws ->
                match draws with
                | first :: _ -> draws |> List.map (fun drawn -> { first with Place = drawn.Place })
                | [] -> [])
            "one lambda for all sites",
            drawn (fun draws ->
                match draws with
                | first :: _ -> draws |> List.map (fun drawn -> { drawn with Lambda = first.Lambda })
                | [] -> []) ]
      kills
          RegularizerLaws.featuresAlone
          [ "features alone left as they are",
            { core with
                ApplyFeatures = fun _ features -> features.alias () }
            "features alone by another permutation",
            { core with
                ApplyFeatures = fun plan -> Plan.applyFeatures (planned (repartnered (roll 1)) plan) } ]
      kills
          RegularizerLaws.shapeKept
          [ "half precision turned into single",
            { core with
                Apply =
                    fun plan batch ->
                        let mixed = Plan.apply plan batch

                        { mixed with
                            Features = mixed.Features.``to`` (torch.float32) } }
            "features of rank 4 always",
            { core with
                Apply =
                    fun plan batch ->
                        let mixed = Plan.apply plan batch
                        let shape = Batch.shapeOf mixed.Features

                        { mixed with
                            Features =
                                mixed.Features.view (
                                    mixed.Features.shape[0],
                                    int64 shape.Channels,
                                    int64 shape.Height,
                                    int64 shape.Width
                                ) } }
            "targets in double precision",
            relabelled (fun _ _ targets ->
                { targets with
                    Soft = targets.Soft.``to`` (torch.float64) }) ]
      [ peer
            14
            RegularizerLaws.inputUntouched
            "the input overwritten"
            { core with
                Apply =
                    fun plan batch ->
                        let mixed = Plan.apply plan batch
                        batch.Features.copy_ mixed.Features |> ignore
                        mixed }
        peer
            14
            RegularizerLaws.inputUntouched
            "the targets overwritten"
            { core with
                Apply =
                    fun plan batch ->
                        let mixed = Plan.apply plan batch
                        batch.Targets.Soft.copy_ mixed.Targets.Soft |> ignore
                        mixed }
        peer
            19
            RegularizerLaws.batchOfOne
            "a lone sample is blanked"
            (applying (fun drawn ->
                match drawn.Partner with
                | Some [| _ |] -> { drawn with Partner = None }
                | _ -> drawn))
        { peer
              19
              RegularizerLaws.batchOfOne
              "a lone sample has no partner"
              (applying (fun drawn ->
                  match drawn.Partner with
                  | Some [| _ |] -> { drawn with Partner = Some [| 1 |] }
                  | _ -> drawn)) with
            Raises = true } ]
      kills
          RegularizerLaws.pairingsArePermutations
          [ "partners drawn with replacement",
            { core with
                DrawPartner =
                    fun key info partner ->
                        match partner with
                        | Shuffled -> Some(core.Below info.Count info.Count key)
                        | other -> Partner.draw key info other }
            "a batch's second half only",
            { core with
                DrawPartner =
                    fun key info partner ->
                        Partner.draw key info partner
                        |> Option.map (Array.map (fun j -> (j + info.Count) / 2)) } ]
      [ peer
            19
            RegularizerLaws.pairingsMeanWhatTheySay
            "self-pairs where none are wanted"
            (pairing Derangement Shuffled) ]
      kills
          RegularizerLaws.pairingsMeanWhatTheySay
          [ "rolled the other way",
            { core with
                DrawPartner =
                    fun key info partner ->
                        match partner with
                        | Rolled by -> Partner.draw key info (Rolled -by)
                        | other -> Partner.draw key info other }
            "any class for the same class", pairing SameClass Derangement
            "any sample for another class", pairing OtherClass Derangement
            "Self is the next sample", pairing Self (Rolled 1) ]
      kills
          RegularizerLaws.uniformPairings
          [ "derangements that are rolls",
            { core with
                DrawPartner =
                    fun key info partner ->
                        match partner with
                        | Derangement -> Partner.draw key info (Rolled(1 + (Key.stream key).Below(info.Count - 1)))
                        | other -> Partner.draw key info other }
            "the first sample of another class",
            { core with
                DrawPartner =
                    fun key info partner ->
                        match partner, info.Labels with
                        | OtherClass, Some labels ->
                            Some(
                                labels
                                |> Array.map (fun label ->
                                    max 0 (Array.FindIndex(labels, (fun other -> other <> label))))
                            )
                        | other, _ -> Partner.draw key info other } ]
      [ peer
            21
            RegularizerLaws.rescaled
            "the scale inverted"
            (scaling (fun drawn -> drawn.Scale |> Array.map (fun s -> if s = 0.0 then 0.0 else 1.0 / s)))
        peer 21 RegularizerLaws.rescaled "no scale" (kinds (fun _ -> NoRescale))
        peer
            21
            RegularizerLaws.rescaled
            "the batch's scale for each sample's"
            (kinds (fun kind -> if kind = Rescale.Sample then Rescale.Batch else kind))
        peer
            21
            RegularizerLaws.rescaled
            "the realised scale for the nominal one"
            (kinds (fun kind -> if kind = Rescale.Nominal then Rescale.Batch else kind))
        peer
            21
            RegularizerLaws.allDropped
            "division by zero when all is dropped"
            (scaling (fun drawn -> drawn.Scale |> Array.map (fun s -> if s = 0.0 then infinity else s))) ] ]
    |> List.concat

let private ofRelations =
    [ kills
          RelationLaws.cutMix
          [ "CutMix blends", withMethod "cutmix" (rect (beta 1 1) |> blend (beta 1 1) |> at input |> sometimes 0.4) ]
      kills
          RelationLaws.mixup
          [ "Mixup with a lambda a sample", withMethod "mixup" (everywhere |> blendEach (beta 1 1) |> at input) ]
      kills
          RelationLaws.featureCutMix
          [ "FeatureCutMix in blocks", withMethod "feature-cutmix" (blocks 7 0.5 |> swap |> atAny [ 0; 1; 2 ]) ]
      kills
          RelationLaws.softPatchUp
          [ "soft PatchUp that blanks", withMethod "soft-patchup" (blocks 7 0.75 |> blank |> atAny [ 1; 2 ]) ]
      kills
          RelationLaws.hardPatchUp
          [ "hard PatchUp with one term", withMethod "hard-patchup" (core.Method "hard-patchup" |> second)
            "hard PatchUp that blends", withMethod "hard-patchup" (core.Method "soft-patchup") ]
      kills
          RelationLaws.cutout
          [ "Cutout swaps", withMethod "cutout" (perSample (rect (always 0.25)) |> swap |> at input) ]
      [ peer
            21
            RelationLaws.dropBlock
            "DropBlock without its rescale"
            (withMethod "dropblock" (perSample (blocks 7 0.1) |> blank |> atAll [ 1; 2; 3; 4 ])) ]
      kills
          RelationLaws.fullBlocks
          [ "full blocks leave a place",
            programmed (fun step ->
                { step with
                    Region =
                        rewrite
                            (fun region ->
                                match region with
                                | Blocks(size, 1.0, Exact) -> Blocks(size, 0.5, Exact)
                                | other -> other)
                            step.Region }) ] ]
    |> List.concat

let private ofNetworks =
    let plain (staged: Staged) (features: torch.Tensor) =
        staged.Stages |> List.fold (fun x (_, run) -> run x) features

    let straightThrough plan (staged: Staged) (batch: Batch) =
        let mixed = Attach.forward plan staged batch
        let unmixed = plain staged batch.Features

        { mixed with
            Features = mixed.Features.detach () + (unmixed - unmixed.detach ()) }

    [ [ peer
            20
            NetworkLaws.noPlan
            "active in evaluation"
            { core with
                Draw =
                    fun key info regularizer ->
                        Plan.draw
                            key
                            info
                            (if regularizer = identity then
                                 everywhere |> swap |> pairedBy (Rolled 1)
                             else
                                 regularizer) }
        peer
            22
            NetworkLaws.composition
            "the mixed features computed and not returned"
            { core with
                Forward =
                    fun plan staged batch ->
                        { Attach.forward plan staged batch with
                            Features = plain staged batch.Features } } ]
      kills
          NetworkLaws.noPlan
          [ "the last stage left out",
            { core with
                Forward =
                    fun plan staged batch ->
                        Attach.forward
                            plan
                            { staged with
                                Stages = List.take (staged.Stages.Length - 1) staged.Stages }
                            batch } ]
      kills
          NetworkLaws.composition
          [ "each site one stage late",
            { core with
                Forward =
                    fun plan staged batch ->
                        let later (drawn: Drawn) =
                            { drawn with
                                Place =
                                    match drawn.Place with
                                    | Number k when k > 0 && k < 3 -> Number(k + 1)
                                    | other -> other }

                        Attach.forward (planned later plan) staged batch }
            "named sites passed by",
            { core with
                Forward =
                    fun plan staged batch ->
                        let isNumber (drawn: Drawn) =
                            match drawn.Place with
                            | Number _ -> true
                            | Name _ -> false

                        Attach.forward
                            { plan with
                                Draws = List.filter isNumber plan.Draws }
                            staged
                            batch }
            "gradients of the unmixed network", { core with Forward = straightThrough } ]
      [ peer
            22
            NetworkLaws.hooks
            "hooks that compute the mixed features and do not return them"
            { core with
                Hooked =
                    fun plan hooked batch ->
                        { Hooks.forward plan hooked batch with
                            Features = hooked.Module.call batch.Features } } ]
      kills
          NetworkLaws.hooks
          [ "numbered sites counted from 0",
            { core with
                Hooked =
                    fun plan hooked batch ->
                        let earlier (drawn: Drawn) =
                            match drawn.Place with
                            | Number k when k > 1 && k < 4 -> { drawn with Place = Number(k - 1) }
                            | _ -> drawn

                        Hooks.forward (planned earlier plan) hooked batch }
            "the input passed by",
            { core with
                Hooked =
                    fun plan ->
                        Hooks.forward
                            { plan with
                                Draws = plan.Draws |> List.filter (fun drawn -> drawn.Place <> Number 0) } }
            "labels of the last site only",
            { core with
                Hooked =
                    fun plan hooked batch ->
                        let relabel (part: Plan) (here: Batch) =
                            Plan.apply part { here with Targets = batch.Targets }

                        Hooks.forwardWith relabel plan hooked batch }
            "no site known by its number",
            { core with
                HookedShapes = fun hooked -> Hooks.shapes { hooked with Sites = [] } }
            "no gradient through a mixed site",
            { core with
                Hooked =
                    fun plan ->
                        Hooks.forwardWith
                            (fun part here ->
                                if part.Draws.IsEmpty then
                                    Plan.apply part here
                                else
                                    Plan.apply
                                        part
                                        { here with
                                            Features = here.Features.detach () })
                            plan } ]
      kills
          NetworkLaws.hooksEnd
          [ "a hook left behind",
            { core with
                Hooked =
                    fun plan hooked batch ->
                        let last = Seq.last (hooked.Module.children ())

                        match last with
                        | :? torch.nn.Module<torch.Tensor, torch.Tensor> as layer ->
                            layer.register_forward_hook (fun _ _ output -> output.neg ()) |> ignore
                        | _ -> ()

                        Hooks.forward plan hooked batch }
            "a hook left behind by a pass that raised",
            { core with
                Hooked =
                    fun plan hooked batch ->
                        try
                            Hooks.forward plan hooked batch
                        with _ ->
                            let last = Seq.last (hooked.Module.children ())

                            match last with
                            | :? torch.nn.Module<torch.Tensor, torch.Tensor> as layer ->
                                layer.register_forward_hook (fun _ _ output -> output.neg ()) |> ignore
                            | _ -> ()

                            reraise () } ]
      kills
          NetworkLaws.finiteDifferences
          [ "gradients of the unmixed network", { core with Forward = straightThrough }
            "the input detached",
            { core with
                Forward =
                    fun plan staged batch ->
                        Attach.forward
                            plan
                            staged
                            { batch with
                                Features = batch.Features.detach () } } ]
      kills
          NetworkLaws.probe
          [ "the network left in evaluation mode",
            { core with
                Shapes =
                    fun staged input ->
                        let shapes = Attach.shapes staged input
                        staged.Module.eval ()
                        shapes }
            "the probe run in training mode",
            { core with
                Shapes =
                    fun staged input ->
                        let shapes = Attach.shapes staged input
                        staged.Module.train ()
                        plain staged input |> ignore
                        shapes }
            "places numbered from 1",
            { core with
                Shapes =
                    fun staged input place ->
                        Attach.shapes
                            staged
                            input
                            (match place with
                             | Number k -> Number(k - 1)
                             | name -> name) } ] ]
    |> List.concat

let private ofReplay =
    [ kills
          ReplayLaws.layout
          [ "numbers taken as they lie in memory",
            { core with
                Apply =
                    fun plan batch ->
                        let size = batch.Features.shape
                        let strides = Array.scanBack (*) size[1..] 1L

                        Plan.apply
                            plan
                            { batch with
                                Features = batch.Features.as_strided (size, strides) } }
            "the wrong gradient where features are not contiguous",
            { core with
                Apply =
                    fun plan batch ->
                        let mixed = Plan.apply plan batch

                        if batch.Features.is_contiguous () then
                            mixed
                        else
                            { mixed with
                                Features = mixed.Features * Scope.number 2.0 - mixed.Features.detach () } } ]
      kills
          ReplayLaws.appliedTwice
          [ "state between two applications",
            { core with
                Apply =
                    fun plan batch ->
                        counter.Value <- counter.Value + 1

                        Plan.apply
                            (if counter.Value % 2 = 0 then
                                 planned (remasked Mask.complement) plan
                             else
                                 plan)
                            batch }
            "the batch overwritten",
            { core with
                Apply =
                    fun plan batch ->
                        let mixed = Plan.apply plan batch
                        batch.Features.copy_ mixed.Features |> ignore
                        mixed } ]
      [ peer
            15
            ReplayLaws.drawnTwice
            "a hidden counter in the draw"
            { core with
                Draw = fun key -> Plan.draw (nextKey key) }
        peer
            17
            ReplayLaws.batchesCut
            "per-sample draws keyed by the place in the batch"
            { core with
                Draw = fun key info -> Plan.draw key { info with First = 0 } }
        peer
            17
            ReplayLaws.fresh
            "the same draws in every batch"
            { core with
                Draw = fun key info -> Plan.draw key { info with First = 0 } }
        peer
            17
            ReplayLaws.parts
            "the same draws for each sample in every micro-batch or on every rank"
            { core with
                Draw = fun key info -> Plan.draw key { info with Offset = 0 } }
        peer
            17
            ReplayLaws.fresh
            "the same partners in every micro-batch or on every rank"
            { core with
                Part =
                    fun offset count info ->
                        { BatchInfo.part offset count info with
                            Offset = 0 } }
        peer
            16
            ReplayLaws.fresh
            "the same draws for every key"
            { core with
                Draw = fun _ -> Plan.draw (Key.ofSeed 0) } ]
      kills
          ReplayLaws.batchesCut
          [ "per-sample draws that depend on the batch's size",
            { core with
                Draw = fun key info -> Plan.draw (Key.child info.Count key) info } ]
      kills
          ReplayLaws.parts
          [ "every part a batch of its own",
            { core with
                Part =
                    fun offset count info ->
                        { BatchInfo.part offset count info with
                            First = info.First + offset
                            Offset = 0 } }
            "partners from the whole batch",
            { core with
                Part = fun offset _ info -> { info with Offset = offset } }
            "other draws in a part that is the whole",
            { core with
                Part = fun offset count info -> BatchInfo.part offset count { info with Offset = info.Offset + 1 } } ]
      kills
          ReplayLaws.fromText
          [ "the calibration left out of the text",
            { core with
                Show = fun regularizer -> (Notation.show regularizer).Replace(" paper", "").Replace(" valid", "") } ] ]
    |> List.concat

let private ofMemory =
    /// A tensor that nobody frees.
    let leak () = torch.zeros 1L |> ignore

    [ kills
          MemoryLaws.apply
          [ "a tensor leaked by apply",
            { core with
                Apply =
                    fun plan batch ->
                        leak ()
                        Plan.apply plan batch }
            "a tensor leaked by the draw",
            { core with
                Draw =
                    fun key info regularizer ->
                        leak ()
                        Plan.draw key info regularizer } ]
      kills
          MemoryLaws.loss
          [ "a tensor leaked by the loss",
            { core with
                Loss =
                    fun loss targets logits ->
                        leak ()
                        Loss.ofBatch loss targets logits } ]
      kills
          MemoryLaws.forward
          [ "a tensor leaked by forward",
            { core with
                Forward =
                    fun plan staged batch ->
                        leak ()
                        Attach.forward plan staged batch }
            "a tensor leaked by hooks",
            { core with
                Hooked =
                    fun plan hooked batch ->
                        leak ()
                        Hooks.forward plan hooked batch }
            "a tensor leaked by the probe of hooks",
            { core with
                HookedShapes =
                    fun hooked input ->
                        leak ()
                        Hooks.shapes hooked input }
            "a tensor leaked by the probe",
            { core with
                Shapes =
                    fun staged input ->
                        leak ()
                        Attach.shapes staged input } ]
      kills
          MemoryLaws.ownership
          [ "the input itself returned",
            { core with
                Apply = fun plan batch -> if plan.Draws.IsEmpty then batch else Plan.apply plan batch }
            "the targets returned as they came",
            relabelled (fun _ batch targets -> if targets.Mixed.IsNone then batch.Targets else targets) ]
      kills
          MemoryLaws.failure
          [ "a tensor leaked by a refusal",
            { core with
                Apply =
                    fun plan batch ->
                        if int batch.Features.shape[0] <> plan.Count then
                            leak ()

                        Plan.apply plan batch }
            "any batch accepted",
            { core with
                Apply =
                    fun plan batch ->
                        if int batch.Features.shape[0] <> plan.Count then
                            batch
                        else
                            Plan.apply plan batch } ] ]
    |> List.concat

let private ofNotation =
    let showing (change: string -> string) =
        { core with
            Show = Notation.show >> change }

    let rounded =
        let culture = Globalization.CultureInfo.InvariantCulture

        showing (fun text ->
            Regex.Replace(
                text,
                @"\d*\.\d+(E-\d+)?",
                (fun m -> Double.Parse(m.Value, culture).ToString("0.###", culture))
            ))

    [ kills
          NotationLaws.roundTrip
          [ "numbers with three digits", rounded
            "the calibration left out", showing _.Replace(" paper", "")
            "the objective left out", showing _.Replace(" |> twoTerm", "")
            "parentheses left out", showing (fun text -> Regex.Replace(text, @"&&& \((.*?)\)", "&&& $1"))
            "one line for each step", showing _.Replace(" |> ", "\n|> ") ]
      [ { Name = "junk raises"
          Row = None
          Subject =
            { core with
                Parse =
                    fun text ->
                        match core.Parse text with
                        | Error e -> failwith $"{e}"
                        | ok -> ok }
          Raises = true
          Law = NotationLaws.junk } ]
      kills
          NotationLaws.junk
          [ "positions counted from 0",
            { core with
                Parse = core.Parse >> Result.mapError (fun e -> { e with Position = e.Position - 1 }) }
            "errors that say nothing",
            { core with
                Parse = core.Parse >> Result.mapError (fun e -> { e with Message = "" }) } ] ]
    |> List.concat

/// Every mutant.
let mutants: Mutant list =
    [ ofKey
      ofMasks
      ofHardMixes
      ofSoftMixes
      ofLabels
      ofAccuracy
      ofLosses
      ofObjectives
      ofRegularizers
      ofRelations
      ofNetworks
      ofReplay
      ofMemory
      ofNotation ]
    |> List.concat

// ---- tests ----

let private outcomes =
    [ for mutant in mutants -> mutant, lazy (Law.check { Law.defaults with Shrink = false } mutant.Subject mutant.Law) ]

let private isKilled (mutant: Mutant) (outcome: Outcome) =
    match outcome with
    | Outcome.Failed counterexample -> counterexample.Raised = mutant.Raises
    | Outcome.Passed _ -> false

let private title (mutant: Mutant) =
    let row =
        match mutant.Row with
        | Some row -> $" (row {row})"
        | None -> ""

    $"{mutant.Law.Name}: {mutant.Name}{row}"

/// The bugs of the project's list that concern mixing, by row.
let private bugs =
    Map
        [ 1, "the label's weight is the box's nominal share, not the share of features that were changed"
          2, "a probability is applied twice, so that p becomes p squared"
          3, "one placement is shared by all samples where each should have its own"
          4, "the last row or column can never be a centre"
          5, "the cut's size is inverted: 1 - a is altered instead of a"
          6, "seeds fall on the whole map, and their probability is the one for its valid part"
          7, "the overlap of blocks is ignored, so that less is altered than was asked for"
          8, "a block of even size grows or moves the mask"
          9, "the bound of the height is taken from the width"
          10, "the seeds' probability is kept from the first map size seen"
          11, "the partner's label is not permuted, or by another permutation than the features"
          12, "the target stays one-hot at the input"
          13, "a weight multiplies half of the first term only"
          14, "the input is overwritten, so that partners are read after they changed"
          15, "the seed does not reach every draw, or a draw depends on something else"
          16, "every epoch draws the same"
          17, "every batch, or every place of a batch, draws the same"
          18, "lambda is rounded to half precision, and labels no longer sum to 1"
          19, "an odd batch, a batch of one or a pair with oneself breaks the pairing"
          20, "the regularizer acts in evaluation"
          21, "DropBlock's rescaling is missing, inverted or another one than declared, or divides by zero"
          22, "mixed features are computed at a site and not returned"
          23, "labels are smoothed twice"
          24, "training accuracy compares mixed inputs with one label only" ]

/// The report on the mutants: which law rejects which.
let report () : string =
    let dead =
        outcomes |> List.filter (fun (mutant, outcome) -> isKilled mutant outcome.Value)

    let verdict (mutant: Mutant) =
        if dead |> List.exists (fun (other, _) -> obj.ReferenceEquals(other, mutant)) then
            mutant.Law.Name
        else
            "**none**"

    let cell (text: string) = text.Replace("|", @"\|")

    let rows =
        [ for KeyValue(row, bug) in bugs do
              for mutant in mutants do
                  if mutant.Row = Some row then
                      $"| {row} | {bug} | {cell mutant.Name} | {cell (verdict mutant)} |" ]

    let others =
        [ for mutant in mutants do
              if mutant.Row.IsNone then
                  $"| {mutant.Law.About} | {cell mutant.Name} | {cell (verdict mutant)} |" ]

    [ "# Mutants"
      ""
      "A test that cannot fail proves nothing. So each law is also checked on broken variants of the library's operations, made of the library's own"
      "parts: it must reject them, and keep the library's. `dotnet fsi build.fsx docs` writes this page; the tests fail when it is stale, when a mutant"
      "survives, and when a law rejects none."
      ""
      $"{dead.Length} of {mutants.Length} mutants killed."
      ""
      "## Bugs that mixing libraries have shipped"
      ""
      "From the sources and the issue trackers of public projects."
      ""
      "| row | bug | mutant | rejected by the law |"
      "|---|---|---|---|"
      yield! rows
      ""
      "## All others"
      ""
      "| about | mutant | rejected by the law |"
      "|---|---|---|"
      yield! others
      "" ]
    |> String.concat "\n"

let private killed =
    [ for mutant, outcome in outcomes ->
          testCase (title mutant) (fun () ->
              match outcome.Value with
              | Outcome.Failed counterexample when not (isKilled mutant outcome.Value) ->
                  failtest $"the law failed for another reason: {counterexample.Reason}"
              | Outcome.Failed _ -> ()
              | Outcome.Passed(trials, _) -> failtest $"the mutant survived {trials} cases."

              match LawTests.verdicts[mutant.Law.Name].Value with
              | Outcome.Passed _ -> ()
              | Outcome.Failed counterexample ->
                  failtest $"the law does not hold for the library either: {counterexample.Reason}") ]

let tests =
    testList
        "mutants"
        [ testList "killed" killed

          testCase "every law kills a mutant" (fun () ->
              let killers = mutants |> List.map _.Law.Name |> Set
              let idle = Laws.all |> List.map _.Name |> List.filter (killers.Contains >> not)
              Expect.isEmpty idle "laws without a mutant")

          testCase "every bug of the list that concerns mixing is a mutant" (fun () ->
              // The list's later rows are about calibration error, attacks and corruptions.
              Expect.equal (mutants |> List.choose _.Row |> Set) (bugs.Keys |> Set) "the rows")

          testCase "mutants have different names" (fun () ->
              let names = mutants |> List.map title
              Expect.equal (List.distinct names).Length names.Length "different names")

          testCase "summary" (fun () ->
              let dead =
                  outcomes |> List.filter (fun (mutant, outcome) -> isKilled mutant outcome.Value)

              printfn $"{dead.Length} of {mutants.Length} mutants killed"
              Expect.equal dead.Length mutants.Length "mutants killed") ]
