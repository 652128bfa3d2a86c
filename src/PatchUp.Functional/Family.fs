namespace PatchUp.Functional

open System

/// The masks of published methods that are not among the words of `Region`: custom regions all, so that a variant of one's own can do what
/// they do. `Catalogue` has the methods; on the command line each region goes by its name.
[<RequireQualifiedAccess>]
module Family =

    let private region name (arguments: float list) isSoft expected draw : Region =
        Region.custom
            { Name = name
              Arguments = arguments
              IsSoft = isSoft
              Expected = expected
              Draw = draw }

    /// A Beta(alpha, alpha) share of the map: one half in the mean.
    let private share alpha = Dist.beta alpha alpha

    let private everywhere (probability: float) (shape: Shape) : float[,] =
        Array2D.create shape.Height shape.Width probability

    /// One plane for every channel of the shape.
    let private planes (shape: Shape) (plane: int -> 'v[]) : 'v[] =
        Array.init shape.Channels plane |> Array.concat

    // ---- FMix ----

    /// The distance from frequency 0 of index k of n, in cycles per feature.
    let private frequency (n: int) (k: int) =
        float (if 2 * k > n then k - n else k) / float n

    /// A plane of Gaussian noise whose amplitude falls with the frequency's power: the real part of an inverse Fourier transform, summed axis by axis.
    let private fourierNoise (decay: float) (height: int) (width: int) (bits: Stream) : float[] =
        let lowest = 1.0 / float (max height width)
        let half = width / 2

        let spectrum part =
            Array.init height (fun v ->
                Array.init (half + 1) (fun u ->
                    let f = Math.Sqrt(frequency height v ** 2.0 + frequency width u ** 2.0)
                    part * bits.Normal() / (max f lowest) ** decay))

        let re, im = spectrum 1.0, spectrum 1.0

        let turns n =
            Array.init n (fun k -> Math.SinCos(2.0 * Math.PI * float k / float n))

        let ofRows, ofColumns = turns height, turns width

        // Along the columns first.
        let along y u =
            let mutable real, imaginary = 0.0, 0.0

            for v in 0 .. height - 1 do
                let struct (sin, cos) = ofRows[v * y % height]
                real <- real + re[v][u] * cos - im[v][u] * sin
                imaginary <- imaginary + re[v][u] * sin + im[v][u] * cos

            struct (real, imaginary)

        [| for y in 0 .. height - 1 do
               let row = Array.init (half + 1) (along y)

               for x in 0 .. width - 1 do
                   let mutable sum = 0.0

                   for u in 0..half do
                       let struct (real, imaginary) = row[u]
                       let struct (sin, cos) = ofColumns[u * x % width]
                       sum <- sum + real * cos - imaginary * sin

                   sum |]

    /// FMix's region (Harris et al. 2020): low-frequency noise, of which the highest values are altered, a Beta(alpha, alpha) share of the map. The
    /// noise's amplitude falls as 1 / frequency^decay; published is a decay of 3. An ArgumentException unless decay >= 0 and alpha > 0.
    let fourier (decay: float) (alpha: float) : Region =
        if not (decay >= 0.0 && Double.IsFinite decay) then
            invalidArg (nameof decay) $"fourier {decay} {alpha}: the decay must be finite and not negative."

        let area = share alpha

        region "fourier" [ decay; alpha ] false (everywhere 0.5) (fun context ->
            let bits = Key.stream context.Key
            let shape = context.Shape
            let places = shape.Height * shape.Width

            planes shape (fun _ ->
                let altered = int (Math.Round(Dist.sample bits area * float places))
                let noise = fourierNoise decay shape.Height shape.Width bits
                let unchanged = Array.create places true

                for place in
                    Array.init places id
                    |> Array.sortBy (fun place -> -noise[place])
                    |> Seq.truncate altered do
                    unchanged[place] <- false

                unchanged)
            |> Mask.hard 1 shape)

    // ---- GridMix ----

    /// GridMix's region (Baek et al. 2021): the map is cut into cells x cells, and each is altered with one probability ~ Beta(alpha, alpha). An
    /// ArgumentException unless cells is a whole number from 1 up and alpha > 0.
    let grid (cells: int) (alpha: float) : Region =
        if cells < 1 then
            invalidArg (nameof cells) $"grid {cells} {alpha}: a grid has at least one cell on a side."

        let probability = share alpha

        region "grid" [ float cells; alpha ] false (everywhere 0.5) (fun context ->
            let bits = Key.stream context.Key
            let shape = context.Shape

            planes shape (fun _ ->
                let altered = Dist.sample bits probability
                let kept = Array.init (cells * cells) (fun _ -> bits.Float() >= altered)

                Array.init (shape.Height * shape.Width) (fun i ->
                    let row, column = i / shape.Width, i % shape.Width
                    kept[row * cells / shape.Height * cells + column * cells / shape.Width]))
            |> Mask.hard 1 shape)

    // ---- SmoothMix ----

    /// Along one axis: how much a Gaussian of this spread around `centre` alters each place.
    let private bell (size: int) (spread: float) (centre: int) : float[] =
        let sigma = spread * float size
        Array.init size (fun x -> exp (-(float (x - centre) ** 2.0) / (2.0 * sigma * sigma)))

    /// SmoothMix's region (Lee et al. 2020): a soft disc around any place, altered wholly at its centre, its standard deviation uniform between these
    /// shares of the map's sides; published are .25 and .5. An ArgumentException unless 0 < lowest <= highest, both finite.
    let disc (lowest: float) (highest: float) : Region =
        if not (lowest > 0.0 && lowest <= highest && Double.IsFinite highest) then
            invalidArg
                (nameof lowest)
                $"disc {lowest} {highest}: the spread must be positive and finite, the lower bound first."

        // The mean over centres in closed form, over spreads by the midpoint rule.
        let steps = 64

        let expected (shape: Shape) =
            let mean size spread =
                let bells = Array.init size (bell size spread)
                Array.init size (fun x -> bells |> Array.averageBy (fun bell -> bell[x]))

            let maps =
                [| for step in 0 .. steps - 1 ->
                       let spread = lowest + (highest - lowest) * (float step + 0.5) / float steps
                       mean shape.Height spread, mean shape.Width spread |]

            Array2D.init shape.Height shape.Width (fun y x ->
                maps |> Array.averageBy (fun (rows, columns) -> rows[y] * columns[x]))

        region "disc" [ lowest; highest ] true expected (fun context ->
            let bits = Key.stream context.Key
            let shape = context.Shape

            planes shape (fun _ ->
                let spread = lowest + (highest - lowest) * bits.Float()
                let rows = bell shape.Height spread (bits.Below shape.Height)
                let columns = bell shape.Width spread (bits.Below shape.Width)

                Array.init (shape.Height * shape.Width) (fun i ->
                    1.0f - float32 (rows[i / shape.Width] * columns[i % shape.Width])))
            |> Mask.soft 1 shape)

    // ---- SaliencyMix ----

    /// The input's saliency, not computed yet, with the input's shape.
    let private following (word: string) (info: BatchInfo) : Lazy<float32[]> * Shape =
        match info.Saliency, info.Shape(Number 0) with
        | Some saliency, Some shape ->
            let area = shape.Height * shape.Width

            let checked' =
                lazy
                    (if saliency.Value.Length <> info.Count * area then
                         invalidArg
                             (nameof info)
                             $"{word}: the saliency has {saliency.Value.Length} numbers; {info.Count} inputs of {shape.Height}x{shape.Width} have {info.Count * area}."

                     saliency.Value)

            checked', shape
        | _ ->
            invalidArg
                (nameof info)
                $"{word} follows the input's saliency: set Saliency and Shape in the batch's information (`Saliency.ofModel`)."

    /// The place of the largest finite value; the middle where there is none.
    let private peak (saliency: ReadOnlySpan<float32>) (shape: Shape) =
        let mutable best = -1

        for i in 0 .. saliency.Length - 1 do
            if Single.IsFinite saliency[i] && (best < 0 || saliency[i] > saliency[best]) then
                best <- i

        if best < 0 then
            shape.Height / 2, shape.Width / 2
        else
            best / shape.Width, best % shape.Width

    /// SaliencyMix's region (Uddin et al. 2021): for each sample a rectangle around the most salient place of its partner's input, of a Beta(alpha, alpha)
    /// share of the map, one share for the batch. A sample without a partner takes its own place. The closed form of its expectation is that of a saliency
    /// which prefers no place. An ArgumentException unless alpha > 0; when it is drawn, unless the saliency is known.
    let salient (alpha: float) : Region =
        let area = share alpha

        region "salient" [ alpha ] false (fun shape -> Region.expected shape (Rect area)) (fun context ->
            let shape = context.Shape
            let saliency, input = following "salient" context.Batch
            let height, width = Region.sides shape (Dist.sample (Key.stream context.Key) area)

            let bits i =
                let partner =
                    context.Batch.Partner |> Option.map (Array.item i) |> Option.defaultValue i

                let area = input.Height * input.Width
                let y, x = peak (ReadOnlySpan(saliency.Value, partner * area, area)) input
                let plane = Array.create (shape.Height * shape.Width) true
                let top = y * shape.Height / input.Height - height / 2
                let left = x * shape.Width / input.Width - width / 2
                Mask.clear plane 0 shape top left height width
                planes shape (fun _ -> plane)

            let samples =
                match context.Sample with
                | Some i -> [| i |]
                | None -> [| 0 .. context.Batch.Count - 1 |]

            Mask.hard samples.Length shape (Array.collect bits samples))

    // ---- PuzzleMix ----

    /// PuzzleMix's adversarial noise, where the batch has any: the saliency under random noise, and the noise moved up the gradient.
    let private disturb (settings: PuzzleSettings) key (bits: Stream) (info: BatchInfo) (input: Shape) pixels =
        let onOwn, onPartner =
            settings.AdvP > 0.0 && bits.Float() < settings.AdvP, settings.AdvP > 0.0 && bits.Float() < settings.AdvP

        if not (onOwn || onPartner) then
            None
        else
            match info.Noisy with
            | None ->
                invalidArg
                    (nameof info)
                    "puzzle with adversarial noise asks the network: set Noisy in the batch's information (`Saliency.follow`)."
            | Some noisy ->
                let start =
                    Puzzle.startNoise settings.AdvEps (Key.child 0 key) info.Offset info.Count pixels

                let gradient = noisy.Gradient start
                let area = input.Height * input.Width
                let share = bits.Float()
                let noise = Puzzle.climb settings.AdvEps share pixels gradient start

                Some
                    struct (Puzzle.ofGradient info.Count input.Channels gradient,
                            { Values =
                                noise
                                |> Array.mapi (fun i value -> value * noisy.Scale.Value[i / area % input.Channels])
                              OnOwn = onOwn
                              OnPartner = onPartner })

    /// PuzzleMix's region (Kim et al. 2020), at the input: one lambda and one grid for the batch; each cell shows 0, 1/m, ... or 1 of the sample's own image by an
    /// energy of saliency, smoothness, local colours and a prior, whose least value is found exactly (`Puzzle.draw`). `transported` moves cells to where nothing salient is lost.
    /// The grid is one of the settings' that divide the image, each as likely; an image that is not square, or that none divides, is one cell, of which the prior alone
    /// decides. Under adversarial noise the images are shown with it, where `transported`, and the saliency is found under it. Its expectation is that of a saliency which prefers no place. An ArgumentException for settings that are not allowed; when it is drawn, unless saliency and
    /// pixels of the input are known, and at another site.
    let puzzle (settings: PuzzleSettings) : Region =
        let settings = PuzzleSettings.check settings
        let labels = settings.Labels - 1

        let arguments =
            [ settings.Alpha
              settings.Beta
              settings.Gamma
              settings.Eta
              float settings.Labels
              float settings.NeighSize
              settings.TEps
              settings.TSize |> Option.map float |> Option.defaultValue 0.0
              settings.AdvP
              settings.AdvEps ]
            @ List.map float settings.Grids

        region "puzzle" arguments true (everywhere 0.5) (fun context ->
            let info, shape = context.Batch, context.Shape
            let bits = Key.stream context.Key
            let lambda = Dist.sample bits (share settings.Alpha)
            let saliency, input = following "puzzle" info

            if input.Height <> shape.Height || input.Width <> shape.Width then
                invalidArg
                    (nameof context)
                    $"puzzle acts at the input of {input.Height}x{input.Width}; these features are {shape}."

            let pixels =
                match info.Pixels with
                | Some pixels when pixels.Value.Length = info.Count * input.Channels * input.Height * input.Width ->
                    pixels.Value
                | _ ->
                    invalidArg
                        (nameof context)
                        $"puzzle compares the colours of the input: set Pixels in the batch's information, {info.Count} x {input} of [0, 1]."

            let grids =
                settings.Grids
                |> List.filter (fun n -> shape.Height = shape.Width && shape.Height % n = 0)

            let partner =
                info.Partner |> Option.defaultWith (fun () -> Array.init info.Count id)

            // Of a region drawn per sample, the sample and its partner.
            let samples, partner =
                match context.Sample with
                | None -> [| 0 .. info.Count - 1 |], partner
                | Some i -> [| i; partner[i] |], [| 1; 1 |]

            let drawn = if context.Sample.IsSome then 1 else samples.Length

            match grids with
            | [] ->
                let prior = Puzzle.prior settings.Labels lambda
                let label = Array.findIndex ((=) (Array.min prior)) prior
                let own = float32 (labels - label) / float32 labels
                Mask.soft 1 shape (Array.create (shape.Channels * shape.Height * shape.Width) own)
            | _ ->
                let grid = grids[bits.Below grids.Length]

                let part (values: float32[]) =
                    let size = values.Length / info.Count

                    if context.Sample.IsNone then
                        values
                    else
                        samples |> Array.collect (fun i -> Array.sub values (i * size) size)

                let disturbed =
                    if context.Sample.IsSome then
                        None
                    else
                        disturb settings context.Key bits info input pixels

                let saliency =
                    match disturbed with
                    | Some struct (saliency, _) -> saliency
                    | None -> part saliency.Value

                let solved =
                    Puzzle.draw
                        settings
                        grid
                        lambda
                        partner
                        { Count = samples.Length
                          Channels = input.Channels
                          Side = shape.Height
                          Saliency = saliency
                          Images = part pixels }

                let mask = Puzzle.mask shape.Height solved
                let area = shape.Height * shape.Width

                let values =
                    match mask.Values with
                    | Hard bits -> Array.map (fun bit -> if bit then 1.0f else 0.0f) bits
                    | Soft values -> values
                    |> Array.chunkBySize area
                    |> Array.truncate drawn
                    |> Array.collect (fun plane -> planes shape (fun _ -> plane))

                { Mask.soft drawn shape values with
                    Sources =
                        if context.Sample.IsSome then
                            None
                        else
                            Some
                                { Grid = solved.Grid
                                  Own = solved.Own
                                  Partner = solved.Partner
                                  Noise = disturbed |> Option.map (fun (struct (_, noise)) -> noise) } })

    // ---- ResizeMix ----

    /// The area of a square whose side is uniform between these shares of the map's: ResizeMix's (Qin et al. 2020), published with .1 and .8. An
    /// ArgumentException unless 0 <= lowest < highest <= 1.
    let squared (lowest: float) (highest: float) : Dist =
        if not (lowest >= 0.0 && lowest < highest && highest <= 1.0) then
            invalidArg (nameof lowest) $"squared {lowest} {highest}: 0 <= lower bound < upper bound <= 1 is needed."

        Dist.custom
            { Name = "squared"
              Arguments = [ lowest; highest ]
              Mean = (highest ** 3.0 - lowest ** 3.0) / (3.0 * (highest - lowest))
              Cdf = fun x -> Math.Clamp((Math.Sqrt x - lowest) / (highest - lowest), 0.0, 1.0)
              Sample = fun bits -> (lowest + (highest - lowest) * bits.Float()) ** 2.0 }

    // ---- names ----

    let private wrong (word: string) (what: string) =
        invalidArg "arguments" $"{word} is written with {what}."

    let private whole (word: string) (value: float) =
        if value = Math.Floor value && abs value <= float Int32.MaxValue then
            int value
        else
            invalidArg (nameof value) $"{word}: {value} is no whole number."

    /// The regions by name, as a text may write them.
    let regions: Map<string, float list -> Region> =
        Map
            [ "fourier",
              (function
              | [ decay; alpha ] -> fourier decay alpha
              | _ -> wrong "fourier" "its decay and alpha, such as fourier 3 1")
              "grid",
              (function
              | [ cells; alpha ] -> grid (whole "grid" cells) alpha
              | _ -> wrong "grid" "its cells on a side and alpha, such as grid 4 1")
              "disc",
              (function
              | [ lowest; highest ] -> disc lowest highest
              | _ -> wrong "disc" "its lowest and highest spread, such as disc 0.25 0.5")
              "salient",
              (function
              | [ alpha ] -> salient alpha
              | _ -> wrong "salient" "its alpha, such as salient 1")
              "puzzle",
              (function
              | [] -> puzzle PuzzleSettings.cifar
              | alpha :: beta :: gamma :: eta :: labels :: neighSize :: tEps :: tSize :: advP :: advEps :: grids ->
                  puzzle
                      { Alpha = alpha
                        Beta = beta
                        Gamma = gamma
                        Eta = eta
                        Labels = whole "puzzle" labels
                        NeighSize = whole "puzzle" neighSize
                        TEps = tEps
                        TSize = if tSize = 0.0 then None else Some(whole "puzzle" tSize)
                        AdvP = advP
                        AdvEps = advEps
                        Grids = List.map (whole "puzzle") grids }
              | _ ->
                  wrong
                      "puzzle"
                      "nothing, for CIFAR's settings, or alpha beta gamma eta labels neigh_size t_eps t_size (0 for whole cells) adv_p adv_eps and the sides of grids") ]

    /// The distributions by name.
    let dists: Map<string, float list -> Dist> =
        Map
            [ "squared",
              (function
              | [ lowest; highest ] -> squared lowest highest
              | _ -> wrong "squared" "its bounds, such as squared 0.1 0.8") ]
