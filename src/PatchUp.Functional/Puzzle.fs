namespace PatchUp.Functional

open System

/// PuzzleMix's constants, by the paper's names (Kim, Choo and Song, "Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup",
/// ICML 2020) and its code's.
[<RequireQualifiedAccess>]
type PuzzleSettings =
    {
        /// lambda ~ Beta(alpha, alpha), one for a batch.
        Alpha: float
        /// The weight of smoothness between neighbouring cells.
        Beta: float
        /// The weight of the images' own differences within it; below 1, so that no pair of cells prefers to differ.
        Gamma: float
        /// The weight of the prior, Binomial(m, lambda).
        Eta: float
        /// m + 1: a cell keeps 0, 1/m, ..., 1 of its image.
        Labels: int
        /// The sides n of the grid, in cells; a batch takes one, each as likely.
        Grids: int list
        /// The side, in pixels, of the squares whose mean colours are compared; where it does not divide a cell's side, the largest below
        /// that does.
        NeighSize: int
        /// The price of moving a cell.
        TEps: float
        /// The side, in pixels, of what moves (where it does not divide a cell's side, the largest below that does); None moves whole cells.
        TSize: int option
        /// The probability, for a batch's own images and for its partners' each, that they are shown with adversarial noise.
        AdvP: float
        /// The largest noise, in 1/255 of a pixel's range.
        AdvEps: float
    }

/// The authors' constants for each data set.
[<RequireQualifiedAccess>]
module PuzzleSettings =

    /// CIFAR-10 and CIFAR-100.
    let cifar: PuzzleSettings =
        { Alpha = 1.0
          Beta = 1.2
          Gamma = 0.5
          Eta = 0.2
          Labels = 3
          Grids = [ 2; 4; 8; 16 ]
          NeighSize = 4
          TEps = 0.8
          TSize = Some 4
          AdvP = 0.0
          AdvEps = 10.0 }

    /// Tiny-ImageNet.
    let tinyImageNet: PuzzleSettings = { cifar with TSize = None }

    /// ImageNet, 300 epochs.
    let imageNet: PuzzleSettings = { tinyImageNet with NeighSize = 2 }

    /// ImageNet, 100 epochs ("fast").
    let imageNetFast: PuzzleSettings = { imageNet with Beta = 1.5 }

    /// CIFAR-100's adversarial variant.
    let cifarAdversarial: PuzzleSettings = { cifar with AdvP = 0.1 }

    /// Tiny-ImageNet's adversarial variant.
    let tinyImageNetAdversarial: PuzzleSettings = { tinyImageNet with AdvP = 0.15 }

    /// The same settings; an ArgumentException that names the first that is not allowed.
    let check (settings: PuzzleSettings) : PuzzleSettings =
        let require isAllowed name (value: obj) allowed =
            if not isAllowed then
                invalidArg (nameof settings) $"{name} is {value}; it must be {allowed}."

        let notNegative name value =
            require (value >= 0.0 && Double.IsFinite value) name value "finite and not negative"

        require (settings.Alpha > 0.0 && Double.IsFinite settings.Alpha) "Alpha" settings.Alpha "positive and finite"
        notNegative "Beta" settings.Beta
        notNegative "Gamma" settings.Gamma
        notNegative "Eta" settings.Eta
        require (settings.Labels >= 2 && settings.Labels <= 64) "Labels" settings.Labels "2 .. 64"
        require (not settings.Grids.IsEmpty) "Grids" "empty" "at least one side"

        for grid in settings.Grids do
            require (grid >= 2) "A side of Grids" grid "at least 2"

        require (settings.NeighSize >= 1) "NeighSize" settings.NeighSize "at least 1"
        notNegative "TEps" settings.TEps

        settings.TSize
        |> Option.iter (fun size -> require (size >= 1) "TSize" size "at least 1")

        require (settings.AdvP >= 0.0 && settings.AdvP <= 1.0) "AdvP" settings.AdvP "in [0, 1]"
        require (settings.AdvEps >= 0.0 && settings.AdvEps <= 255.0) "AdvEps" settings.AdvEps "in [0, 255]"

        settings

/// What PuzzleMix knows of a batch of square images.
[<NoEquality; NoComparison; RequireQualifiedAccess>]
type PuzzleBatch =
    {
        /// N.
        Count: int
        /// C.
        Channels: int
        /// S, in pixels.
        Side: int
        /// `[N, S, S]` row-major, of any scale.
        Saliency: float32[]
        /// `[N, C, S, S]` row-major, with values of [0, 1]: before normalisation.
        Images: float32[]
    }

/// The same, pooled for one grid of n x n cells.
[<NoEquality; NoComparison; RequireQualifiedAccess>]
type PuzzleMaps =
    {
        /// N.
        Count: int
        /// C.
        Channels: int
        /// n, the side of the energy's grid.
        Grid: int
        /// `[N, n, n]`, each sample's with sum 1.
        Saliency: float32[]
        /// k: a cell has k x k mean colours.
        Patches: int
        /// `[N, C, n k, n k]`.
        Colours: float32[]
        /// The side of the grid of what moves, a multiple of n.
        TransportGrid: int
        /// The saliency on that grid, each sample's with sum 1.
        TransportSaliency: float32[]
    }

/// PuzzleMix's choices for a batch, as plain values that can be compared and applied again.
[<RequireQualifiedAccess>]
type Puzzle =
    {
        /// N.
        Count: int
        /// n, the side of the grid; the pictures' cells move on it.
        Grid: int
        /// m.
        Steps: int
        /// The label l of each cell, `[N, n, n]`: it shows 1 - l/m of the sample's own image and l/m of its partner's.
        Labels: int[]
        /// For each cell the cell of the own image that is shown there, `[N, n, n]`.
        Own: int[]
        /// For each cell the cell of the partner's image that is shown there, `[N, n, n]`.
        Partner: int[]
    }

/// PuzzleMix without a network or a tensor: saliency and colours in, labels and sources of cells out.
[<RequireQualifiedAccess>]
module Puzzle =

    // ---- pooling ----

    /// The largest divisor of `whole` that is at most `wanted`.
    let private divisor (wanted: int) (whole: int) =
        Seq.find (fun d -> whole % d = 0) (seq { min wanted whole .. -1 .. 1 })

    /// The means of equal squares, `[P, n, n]`, of planes `[P, S, S]`: `side` is S, `grid` n. An ArgumentException unless n divides S, and
    /// the values are whole planes. Where n = S there is nothing to do: the planes themselves.
    let pool (side: int) (grid: int) (planes: float32[]) : float32[] =
        if side < 1 || grid < 1 || side % grid <> 0 then
            invalidArg
                (nameof grid)
                $"A grid of {grid} x {grid} cells does not divide an image of {side} x {side}; take a divisor of {side}."

        if int64 planes.Length % Math.BigMul(side, side) <> 0L then
            invalidArg (nameof planes) $"{planes.Length} values are not whole planes of {side} x {side}."

        if grid = side then
            planes
        else
            let cell = side / grid
            let area = float (cell * cell)
            let pooled = Array.zeroCreate (planes.Length / (cell * cell))
            // Rows of cells lie one after the other, across planes as well.
            let sums: float[] = Array.zeroCreate grid

            for row in 0 .. pooled.Length / grid - 1 do
                Array.Clear sums

                for y in row * cell .. row * cell + cell - 1 do
                    let mutable at = y * side

                    for q in 0 .. grid - 1 do
                        let mutable sum = sums[q]

                        for _ in 1..cell do
                            sum <- sum + float planes[at]
                            at <- at + 1

                        sums[q] <- sum

                for q in 0 .. grid - 1 do
                    pooled[row * grid + q] <- float32 (sums[q] / area)

            pooled

    /// The saliency of the cells, `[N, n, n]`, each sample's with sum 1, from `[N, S, S]`. Where a sample's sum is not positive, or not
    /// finite, every cell counts the same.
    let saliency (side: int) (grid: int) (maps: float32[]) : float32[] =
        let cells = grid * grid
        // `pool` gives back what it has nothing to do for.
        let pooled = pool side grid maps |> Array.copy

        for sample in 0 .. pooled.Length / cells - 1 do
            let own = pooled.AsSpan(sample * cells, cells)
            let mutable sum = 0.0

            for value in own do
                sum <- sum + float value

            if sum > 0.0 && Double.IsFinite sum then
                for c in 0 .. cells - 1 do
                    own[c] <- float32 (float own[c] / sum)
            else
                own.Fill(1.0f / float32 cells)

        pooled

    /// A batch on a grid of n x n cells; an ArgumentException for settings that are not allowed, an n below 2 or that does not divide the
    /// images' side, or arrays of other sizes.
    let maps (settings: PuzzleSettings) (grid: int) (batch: PuzzleBatch) : PuzzleMaps =
        let settings = PuzzleSettings.check settings

        if batch.Count < 1 || batch.Channels < 1 || batch.Side < 1 then
            invalidArg
                (nameof batch)
                $"A batch of {batch.Count} images of {batch.Channels}x{batch.Side}x{batch.Side}: none may be below 1."

        if grid < 2 || batch.Side % grid <> 0 then
            invalidArg
                (nameof grid)
                ($"A grid of {grid} x {grid} cells does not divide an image of {batch.Side} x {batch.Side}; "
                 + $"take a divisor of {batch.Side} from 2 on.")

        let sized name (values: float32[]) channels =
            // As floats, which no size overflows, and exact where it matters.
            if
                float batch.Count * float channels * float batch.Side * float batch.Side
                <> float values.Length
            then
                invalidArg
                    (nameof batch)
                    ($"{name} of {batch.Count} x {channels} x {batch.Side} x {batch.Side} needs as many values, "
                     + $"not {values.Length}.")

        sized "Saliency" batch.Saliency 1
        sized "Images" batch.Images batch.Channels
        let cell = batch.Side / grid
        let patches = cell / divisor settings.NeighSize cell

        let moving =
            match settings.TSize with
            | Some size -> batch.Side / divisor size cell
            | None -> grid

        let saliencies = saliency batch.Side grid batch.Saliency

        { Count = batch.Count
          Channels = batch.Channels
          Grid = grid
          Saliency = saliencies
          Patches = patches
          Colours = pool batch.Side (grid * patches) batch.Images
          TransportGrid = moving
          TransportSaliency =
            if moving = grid then
                saliencies
            else
                saliency batch.Side moving batch.Saliency }

    // ---- gradients and adversarial noise ----

    /// The saliency `[N,S]` of N samples with S places and C channels each, from the loss's gradient `[N,C,S]`: sqrt(mean over channels of g^2).
    let ofGradient (count: int) (channels: int) (gradient: float32[]) : float32[] =
        let places = gradient.Length / (count * channels)

        Array.init (count * places) (fun i ->
            let first = i / places * channels * places + i % places
            let mutable sum = 0.0

            for channel in 0 .. channels - 1 do
                let value = float gradient[first + channel * places]
                sum <- sum + value * value

            float32 (sqrt (sum / float channels)))

    /// What of the noise leaves the pixels in [0, 1].
    let private within (pixels: float32[]) (noise: float32[]) : float32[] =
        Array.map2 (fun pixel noise -> (min 1.0f (max 0.0f (pixel + noise))) - pixel) pixels noise

    /// The noise to start from: uniform up to eps / 255 either way, as far as it leaves the pixels in [0, 1]. Sample `i` of the pixels `[N,...]` draws
    /// from child `first + i` of the key.
    let startNoise (eps: float) (key: Key) (first: int) (count: int) (pixels: float32[]) : float32[] =
        let size = pixels.Length / count

        Array.init count (fun i ->
            let bits = Key.stream (Key.child (first + i) key)
            Array.init size (fun _ -> float32 ((2.0 * bits.Float() - 1.0) * eps / 255.0)))
        |> Array.concat
        |> within pixels

    /// A `share` of the noise after one step of (eps + 2) / 255 up the gradient, within eps / 255, as far as it leaves the pixels in [0, 1].
    let climb (eps: float) (share: float) (pixels: float32[]) (gradient: float32[]) (noise: float32[]) : float32[] =
        let limit, step = eps / 255.0, (eps + 2.0) / 255.0

        Array.map2
            (fun (noise: float32) (gradient: float32) ->
                let direction =
                    if gradient > 0.0f then 1.0
                    elif gradient < 0.0f then -1.0
                    else 0.0

                float32 (share * (min limit (max -limit (float noise + step * direction)))))
            noise
            gradient
        |> within pixels

    // ---- the energy ----

    /// What each label l of 0 .. m costs a priori: -log(P + 1e-8) with P its probability when m - l ~ Binomial(m, lambda). An ArgumentException
    /// unless there are at least two labels, and 0 <= lambda <= 1.
    let prior (labels: int) (lambda: float) : float[] =
        if labels < 2 then
            invalidArg (nameof labels) $"{labels} labels: at least two are needed."

        if not (lambda >= 0.0 && lambda <= 1.0) then
            invalidArg (nameof lambda) $"lambda is {lambda}; it must lie in [0, 1]."

        let m = labels - 1
        let mutable choices = 1.0

        Array.init labels (fun l ->
            if l > 0 then
                choices <- choices * float (m - l + 1) / float l

            -log(choices * pown lambda (m - l) * pown (1.0 - lambda) l + 1e-8))

    /// The mean difference of k colours along an edge between cells, over the channels: those that begin at `a` and at `b`, `step` apart.
    let private difference (colours: float32[]) channels plane k step a b =
        let mutable sum = 0.0

        for channel in 0 .. channels - 1 do
            for i in 0 .. k - 1 do
                let at = channel * plane + i * step
                sum <- sum + abs (float colours[a + at] - float colours[b + at])

        sum / float (channels * k)

    /// The energy of sample `i` whose partner is sample `j`: label l shows 1 - l/m of i. In units where an average share of the saliency
    /// is 1000. An ArgumentException if a term is not finite or leaves 30 bits, which colours of [0, 1] do not.
    let energy (settings: PuzzleSettings) (lambda: float) (maps: PuzzleMaps) (i: int) (j: int) : GridEnergy =
        let n, k, cells = maps.Grid, maps.Patches, maps.Grid * maps.Grid
        let row = n * k
        let plane = row * row
        let smoothness = settings.Beta / (16.0 * float n)
        let local = smoothness * settings.Gamma / 2.0
        let scale = 1000.0 * float cells
        let own, partner = i * maps.Channels * plane, j * maps.Channels * plane

        let number (value: float) =
            let scaled = scale * value

            if not (abs scaled < float (1 <<< 30)) then
                invalidArg
                    (nameof maps)
                    ($"The energy of sample {i} with partner {j} has a term {scaled}; at most {1 <<< 30} is allowed. "
                     + "Images need finite values, of about [0, 1], and constants of about their defaults.")

            int scaled

        // What a cell pays for showing its own image, and for showing the partner's: the saliency that is thrown away.
        let showOwn = Array.init cells (fun c -> float maps.Saliency[j * cells + c])
        let showPartner = Array.init cells (fun c -> float maps.Saliency[i * cells + c])

        /// The weight between two cells; shares the differences of colours out to the cells.
        let edge f h from until step =
            let difference a b =
                difference maps.Colours maps.Channels plane k step (a + from) (b + until)

            let bothPartner, bothOwn = difference partner partner, difference own own
            let partnerThenOwn, ownThenPartner = difference partner own, difference own partner
            showOwn[f] <- showOwn[f] + local * (ownThenPartner + bothOwn)
            showPartner[f] <- showPartner[f] + local * (bothPartner + partnerThenOwn)
            showOwn[h] <- showOwn[h] + local * (partnerThenOwn + bothOwn)
            showPartner[h] <- showPartner[h] + local * (bothPartner + ownThenPartner)

            smoothness
            + local * ((partnerThenOwn + ownThenPartner) - (bothPartner + bothOwn))
            |> max 0.0
            |> number

        let vertical: int[] = Array.zeroCreate ((n - 1) * n)
        let horizontal: int[] = Array.zeroCreate (n * (n - 1))

        for r in 0 .. n - 1 do
            for q in 0 .. n - 1 do
                let c = r * n + q
                let corner = r * k * row + q * k

                if r + 1 < n then
                    let last = corner + (k - 1) * row
                    vertical[c] <- edge c (c + n) last (last + row) 1

                if q + 1 < n then
                    let last = corner + k - 1
                    horizontal[c - r] <- edge c (c + 1) last (last + 1) row

        let m = settings.Labels - 1
        let prior = prior settings.Labels lambda
        let unary: int[] = Array.zeroCreate (cells * settings.Labels)

        for c in 0 .. cells - 1 do
            for l in 0..m do
                let shown = (float (m - l) * showOwn[c] + float l * showPartner[c]) / float m
                unary[c * settings.Labels + l] <- number (shown + settings.Eta / float cells * prior[l])

        { Height = n
          Width = n
          Labels = settings.Labels
          Unary = unary
          Vertical = vertical
          Horizontal = horizontal }

    // ---- the choices ----

    /// The labels of least energy and the transports of both images, for every sample i with its partner `partner[i]`, `[N]`. The same with
    /// any number of processors. An ArgumentException for settings that are not allowed, a lambda outside [0, 1], or a partner that is
    /// no sample.
    let solve (settings: PuzzleSettings) (lambda: float) (partner: int[]) (maps: PuzzleMaps) : Puzzle =
        let settings = PuzzleSettings.check settings

        if partner.Length <> maps.Count then
            invalidArg (nameof partner) $"{maps.Count} samples need as many partners, not {partner.Length}."

        for j in partner do
            if j < 0 || j >= maps.Count then
                invalidArg (nameof partner) $"The partner {j} is not one of the samples 0 .. {maps.Count - 1}."

        let m = settings.Labels - 1
        let n, side = maps.Grid, maps.TransportGrid
        let cells, scale = side * side, side / n
        let tEps = float32 settings.TEps
        let labels: int[] = Array.zeroCreate (maps.Count * cells)
        let ownSources: int[] = Array.zeroCreate labels.Length
        let partnerSources: int[] = Array.zeroCreate labels.Length

        let worker () =
            struct (MinCut.Worker(), Transporter side, Array.zeroCreate<bool> cells)

        let isLarge =
            MinCut.isLarge (int64 maps.Count * int64 (n * n) * int64 settings.Labels)

        Workers.each isLarge maps.Count worker (fun (struct (cutter, transporter, masked)) i ->
            let cut = cutter.Solve(energy settings lambda maps i partner[i])
            let start = i * cells

            for c in 0 .. cells - 1 do
                let row, column = c / side, c % side
                labels[start + c] <- cut.Labels[row / scale * n + column / scale]

            let transport shows sample sources =
                for c in 0 .. cells - 1 do
                    masked[c] <- shows labels[start + c]

                transporter.Run(tEps, masked, maps.TransportSaliency, sample * cells, sources, start)

            transport (fun label -> label < m) i ownSources
            transport (fun label -> label > 0) partner[i] partnerSources)

        { Count = maps.Count
          Grid = side
          Steps = m
          Labels = labels
          Own = ownSources
          Partner = partnerSources }

    /// `maps`, then `solve`.
    let draw (settings: PuzzleSettings) (grid: int) (lambda: float) (partner: int[]) (batch: PuzzleBatch) : Puzzle =
        maps settings grid batch |> solve settings lambda partner

    /// Each sample's share of its own image, the weight of its label: a multiple of 1/(m n^2) in [0, 1], `[N]`.
    let ratios (puzzle: Puzzle) : float[] =
        let cells = puzzle.Grid * puzzle.Grid

        Array.init puzzle.Count (fun i ->
            let shown = Array.sum (puzzle.Labels[i * cells .. (i + 1) * cells - 1])
            float (puzzle.Steps * cells - shown) / float (puzzle.Steps * cells))

    /// How much of each pixel is the own image's, after both have been transported: `[N, 1, S, S]`, numbers. An ArgumentException unless the grid
    /// divides S.
    let mask (side: int) (puzzle: Puzzle) : Mask =
        let n, cells = puzzle.Grid, puzzle.Grid * puzzle.Grid

        if side < 1 || side % n <> 0 then
            invalidArg (nameof side) $"A grid of {n} x {n} cells does not divide an image of {side} x {side}."

        let scale = side / n
        let values: float32[] = Array.zeroCreate (puzzle.Count * side * side)

        for i in 0 .. puzzle.Count - 1 do
            for y in 0 .. side - 1 do
                for x in 0 .. side - 1 do
                    let label = puzzle.Labels[i * cells + y / scale * n + x / scale]

                    values[(i * side + y) * side + x] <- float32 (puzzle.Steps - label) / float32 puzzle.Steps

        Mask.soft
            puzzle.Count
            { Channels = 1
              Height = side
              Width = side }
            values
