namespace PatchUp.Functional.Laws

open System.Threading.Tasks
open FsCheck
open FsCheck.FSharp
open PatchUp.Functional

/// What laws of masks share.
[<RequireQualifiedAccess>]
module MaskValues =

    /// How much of each feature stays: sample, channel, place on the plane.
    let kept (mask: Mask) : int -> int -> int -> float =
        let plane = mask.Height * mask.Width

        let index n c p =
            ((n % mask.Samples) * mask.Channels + c % mask.Channels) * plane + p

        match mask.Values with
        | Hard bits -> fun n c p -> if bits[index n c p] then 1.0 else 0.0
        | Soft values -> fun n c p -> float values[index n c p]

    /// Every value, as numbers.
    let numbers (mask: Mask) : float[] =
        match mask.Values with
        | Hard bits -> bits |> Array.map (fun bit -> if bit then 1.0 else 0.0)
        | Soft values -> values |> Array.map float

    /// The values for all of a batch's features, one sample or channel standing for all where it does.
    let spread (count: int) (shape: Shape) (mask: Mask) : float[] =
        let kept = kept mask

        [| for n in 0 .. count - 1 do
               for c in 0 .. shape.Channels - 1 do
                   for p in 0 .. shape.Height * shape.Width - 1 -> kept n c p |]

    /// The mean over one sample's features.
    let mean (mask: Mask) (sample: int) : float =
        let size = mask.Channels * mask.Height * mask.Width
        Array.sub (numbers mask) (sample % mask.Samples * size) size |> Array.average

/// Laws of drawn masks.
module MaskLaws =

    let private law name kind trials statement check =
        { About = "Mask"
          Name = name
          Statement = statement
          Kind = kind
          Trials = trials
          Check = check }

    let private ofRegions name statement check =
        law name LawKind.Exact 200 statement (OfRegion(Generators.region, check))

    let private drawBy (s: Subject) (trial: RegionTrial) key region =
        let info =
            { BatchInfo.ofShape trial.Count trial.Shape with
                First = trial.First }
            |> Trial.depicted (Key.child 100 key) trial.Shape

        s.DrawRegion key info trial.Shape region

    let private draw (s: Subject) (trial: RegionTrial) region = drawBy s trial trial.Key region

    let private spread (trial: RegionTrial) mask =
        MaskValues.spread trial.Count trial.Shape mask

    /// Two masks that say the same of every feature; soft ones to 1e-6.
    let private same what (trial: RegionTrial) (expected: Mask) (found: Mask) =
        match expected.Values, found.Values with
        | Hard _, Soft _
        | Soft _, Hard _ -> Verdict.Broken $"{what}: one mask is hard and the other soft."
        | _ -> Verdict.near what 0.0 1e-6 (spread trial expected) (spread trial found)

    let private isSoft (mask: Mask) =
        match mask.Values with
        | Hard _ -> false
        | Soft _ -> true

    /// Whether the region holds a custom like this.
    let rec private holds (like: Custom -> bool) region =
        match region with
        | Custom custom -> like custom
        | Not a
        | PerSample a
        | PerChannel a
        | Shared a -> holds like a
        | And(a, b)
        | Or(a, b) -> holds like a || holds like b
        | _ -> false

    /// Whether some random leaf is drawn for each sample, and whether some is for each channel.
    let private granularity region =
        let rec go perSample perChannel region =
            let random natural =
                perSample, defaultArg perChannel natural

            match region with
            | Nowhere
            | Everywhere -> false, false
            | Cells _
            | Blocks _
            | Channels _ -> random true
            | Rect _
            | Custom _ -> random false
            | Not a -> go perSample perChannel a
            | And(a, b)
            | Or(a, b) ->
                let samples, channels = go perSample perChannel a
                let samples', channels' = go perSample perChannel b
                samples || samples', channels || channels'
            | PerSample a -> go true perChannel a
            | PerChannel a -> go perSample (Some true) a
            | Shared a -> go perSample (Some false) a

        go false None region

    let fromKey =
        ofRegions
            "a region is drawn from its key"
            "M(r) = M(r) with the same key, on another thread too"
            (fun s trial ->
                let mask = draw s trial trial.Region
                let elsewhere = Task.Run(fun () -> draw s trial trial.Region)

                [ Verdict.require (draw s trial trial.Region = mask) (fun () ->
                      "drawn again from the same key the mask is another one.")
                  Verdict.require (elsewhere.Result = mask) (fun () ->
                      "drawn on another thread from the same key the mask is another one.") ]
                |> Verdict.all)

    let samplesApart =
        ofRegions
            "a region per sample is drawn for each by itself"
            "M(perSample r) of sample i of a batch = M(perSample r) of the batch of sample i alone"
            (fun s trial ->
                let region = PerSample trial.Region
                let stride = trial.Shape.Channels * trial.Shape.Height * trial.Shape.Width
                let together = spread trial (draw s trial region)

                [ for i in 0 .. trial.Count - 1 do
                      let alone =
                          { trial with
                              First = trial.First + i
                              Count = 1 }

                      Verdict.near
                          $"the mask of sample {i} in the batch"
                          0.0
                          0.0
                          (spread alone (draw s alone region))
                          (Array.sub together (i * stride) stride) ]
                |> Verdict.all)

    let expectedIsProbability =
        ofRegions
            "the expected alteration is a map of probabilities"
            "expected is [H,W] and 0 <= expected <= 1"
            (fun s trial ->
                let expected = s.Expected trial.Shape trial.Region
                let size = [ Array2D.length1 expected; Array2D.length2 expected ]

                [ Verdict.equal "its size" [ trial.Shape.Height; trial.Shape.Width ] size
                  match
                      Seq.cast<float> expected
                      |> Seq.tryFind (fun p -> not (p >= -1e-9 && p <= 1.0 + 1e-9))
                  with
                  | Some p -> Verdict.Broken $"it holds {p}, which lies outside [0, 1]."
                  | None -> Verdict.Kept ]
                |> Verdict.all)

    let size =
        ofRegions
            "a mask has the size of its granularity"
            ("[1|N, 1|C, H, W]: N where a random leaf is per sample (or a custom draws for each), C where "
             + "one is per channel (Cells, Blocks and Channels by nature)")
            (fun s trial ->
                let mask = draw s trial trial.Region
                let perSample, perChannel = granularity trial.Region
                let isForEach = holds (fun _ -> true) trial.Region && mask.Samples = trial.Count
                let samples = if perSample || isForEach then trial.Count else 1
                let channels = if perChannel then trial.Shape.Channels else 1
                let size = [ samples; channels; trial.Shape.Height; trial.Shape.Width ]

                [ Verdict.equal "the mask's size" size [ mask.Samples; mask.Channels; mask.Height; mask.Width ]
                  Verdict.equal "the number of values" (List.reduce (*) size) (MaskValues.numbers mask).Length ]
                |> Verdict.all)

    let unchangedIsMean =
        ofRegions "p_u is the mean of M" "p_u = mean M for each sample: a count over a size" (fun s trial ->
            let mask = draw s trial trial.Region
            let expected = Array.init mask.Samples (MaskValues.mean mask)
            Verdict.near "p_u" 0.0 (if isSoft mask then 1e-6 else 1e-12) expected (s.Unchanged mask))

    let hardMasksAreBits =
        ofRegions
            "masks are bits, or numbers where a custom declares them"
            "M is in {0, 1} without a custom that is declared soft, and in [0, 1] with one"
            (fun s trial ->
                let mask = draw s trial trial.Region

                match mask.Values with
                | Hard _ -> Verdict.Kept
                | Soft values when holds _.IsSoft trial.Region ->
                    match values |> Array.tryFind (fun v -> not (v >= 0.0f && v <= 1.0f)) with
                    | Some v -> Verdict.Broken $"the mask holds {v}, which lies outside [0, 1]."
                    | None -> Verdict.Kept
                | Soft _ -> Verdict.Broken "the mask holds numbers instead of bits.")

    let notComplements =
        ofRegions
            "Not complements and is an involution"
            "M(not r) = 1 - M(r), M(not (not r)) = M(r), with the same key"
            (fun s trial ->
                let mask = draw s trial trial.Region
                let complement = spread trial mask |> Array.map (fun m -> 1.0 - m)

                [ Verdict.near "the complement" 0.0 1e-6 complement (spread trial (draw s trial (Not trial.Region)))
                  same "the double complement" trial mask (draw s trial (Not(Not trial.Region))) ]
                |> Verdict.all)

    /// Two regions, from one generated: its operands if it has two, else the same one twice.
    let private operands region =
        match region with
        | And(a, b)
        | Or(a, b) -> a, b
        | a -> a, a

    let deMorgan =
        ofRegions
            "De Morgan at the leaves' keys"
            "not (a and b) = (not a) or (not b), not (a or b) = (not a) and (not b)"
            (fun s trial ->
                let a, b = operands trial.Region

                [ same "not (a and b)" trial (draw s trial (Not(And(a, b)))) (draw s trial (Or(Not a, Not b)))
                  same "not (a or b)" trial (draw s trial (Not(Or(a, b)))) (draw s trial (And(Not a, Not b))) ]
                |> Verdict.all)

    let units =
        ofRegions
            "Everywhere and Nowhere are units"
            ("a and everywhere = everywhere and a = a = a or nowhere = nowhere "
             + "or a; a and nowhere = nowhere; a or everywhere = everywhere")
            (fun s trial ->
                let a = trial.Region
                let drawn = draw s trial
                let mask = drawn a

                let all value =
                    Array.create (spread trial mask).Length value

                [ same "a and everywhere" trial mask (drawn (And(a, Everywhere)))
                  same "everywhere and a" trial mask (drawn (And(Everywhere, a)))
                  same "a or nowhere" trial mask (drawn (Or(a, Nowhere)))
                  same "nowhere or a" trial mask (drawn (Or(Nowhere, a)))
                  Verdict.near "a and nowhere" 0.0 0.0 (all 1.0) (spread trial (drawn (And(a, Nowhere))))
                  Verdict.near "a or everywhere" 0.0 0.0 (all 0.0) (spread trial (drawn (Or(a, Everywhere)))) ]
                |> Verdict.all)

    let setsOfAltered =
        ofRegions
            "And thins, Or adds"
            "1 - M(a and b) <= 1 - M(a) <= 1 - M(a or b) at every feature, with the same key"
            (fun s trial ->
                let a, b = operands trial.Region
                let kept region = spread trial (draw s trial region)
                let first, both, either = kept a, kept (And(a, b)), kept (Or(a, b))

                [ Verdict.require (Array.forall2 (fun m m' -> m' >= m - 1e-6) first both) (fun () ->
                      "a and b alters more than a does.")
                  Verdict.require (Array.forall2 (fun m m' -> m' <= m + 1e-6) first either) (fun () ->
                      "a or b alters less than a does.") ]
                |> Verdict.all)

    let granularityAtLeaves =
        ofRegions
            "granularity is pushed to the leaves"
            ("perSample (perSample a) = perSample a; perSample (a op b) = perSample "
             + "a op perSample b; so for perChannel and shared; the innermost wins")
            (fun s trial ->
                let a, b = operands trial.Region
                let drawn = draw s trial

                let pushed name (wrap: Region -> Region) =
                    [ Verdict.equal $"{name} twice" (drawn (wrap a)) (drawn (wrap (wrap a)))
                      Verdict.equal $"{name} of and" (drawn (And(wrap a, wrap b))) (drawn (wrap (And(a, b))))
                      Verdict.equal $"{name} of or" (drawn (Or(wrap a, wrap b))) (drawn (wrap (Or(a, b))))
                      Verdict.equal $"{name} of not" (drawn (Not(wrap a))) (drawn (wrap (Not a))) ]

                [ pushed "perSample" PerSample
                  pushed "perChannel" PerChannel
                  pushed "shared" Shared
                  [ Verdict.equal "shared (perChannel a)" (drawn (PerChannel a)) (drawn (Shared(PerChannel a)))
                    Verdict.equal "perChannel (shared a)" (drawn (Shared a)) (drawn (PerChannel(Shared a)))
                    Verdict.equal
                        "perSample inside or outside"
                        (drawn (PerSample(PerChannel a)))
                        (drawn (PerChannel(PerSample a))) ] ]
                |> Seq.concat
                |> Verdict.all)

    // ---- painting ----

    /// The altered features of one plane of a hard mask.
    let private planes (mask: Mask) : bool[,][] =
        let kept = MaskValues.kept mask

        [| for n in 0 .. mask.Samples - 1 do
               for c in 0 .. mask.Channels - 1 ->
                   Array2D.init mask.Height mask.Width (fun y x -> kept n c (y * mask.Width + x) = 0.0) |]

    let private blocksOnly: Arbitrary<Region> =
        Generators.region
        |> Arb.filter (fun region ->
            match region with
            | Blocks(_, fraction, _) -> fraction > 0.0 && fraction < 1.0
            | _ -> false)

    let wholeBlocks =
        let check (s: Subject) (trial: RegionTrial) =
            match trial.Region with
            | Blocks(size, _, calibration) ->
                let height, width = trial.Shape.Height, trial.Shape.Width
                let blockHeight, blockWidth = min size height, min size width

                let starts side block =
                    match calibration with
                    | Valid -> [ 0 .. side - block ]
                    | _ -> [ -(block / 2) .. side - 1 - block / 2 ]

                // Every altered feature must lie in a block that is wholly altered, as far as it is on the map.
                let isExplained (altered: bool[,]) =
                    let explained = Array2D.create height width false

                    for top in starts height blockHeight do
                        for left in starts width blockWidth do
                            let cells =
                                [ for y in max 0 top .. min height (top + blockHeight) - 1 do
                                      for x in max 0 left .. min width (left + blockWidth) - 1 -> y, x ]

                            if cells |> List.forall (fun (y, x) -> altered[y, x]) then
                                for y, x in cells do
                                    explained[y, x] <- true

                    explained = altered

                Verdict.require (draw s trial trial.Region |> planes |> Array.forall isExplained) (fun () ->
                    $"an altered feature lies in no wholly altered block of {blockHeight} x {blockWidth}.")
            | _ -> Verdict.NotApplicable

        law
            "blocks are whole"
            LawKind.Exact
            300
            ("the altered features are a union of min(b,H) x min(b,W) blocks, "
             + "clipped at the border (Exact, Paper) or inside it (Valid)")
            (OfRegion(blocksOnly, check))

    let oneRectangle =
        let check (s: Subject) (trial: RegionTrial) =
            match trial.Region with
            | Rect(Always area) ->
                let side axis =
                    int (floor (float axis * sqrt area + 0.5))

                // The run of altered lines: whole if it touches no border, at most clipped by half if it does.
                let fits size (lines: int list) =
                    let full = side size
                    let run = lines.Length
                    let isRun = lines = [ lines.Head .. lines.Head + run - 1 ]
                    let clipped = lines.Head = 0 || List.last lines = size - 1
                    isRun && run <= full && (run = full || clipped) && run >= full / 2

                let isRectangle (altered: bool[,]) =
                    let height, width = trial.Shape.Height, trial.Shape.Width

                    let rows =
                        [ for y in 0 .. height - 1 do
                              if Seq.exists (fun x -> altered[y, x]) [ 0 .. width - 1 ] then
                                  y ]

                    let columns =
                        [ for x in 0 .. width - 1 do
                              if Seq.exists (fun y -> altered[y, x]) [ 0 .. height - 1 ] then
                                  x ]

                    match rows, columns with
                    | [], _
                    | _, [] -> min (side height) (side width) = 0
                    | _ ->
                        fits height rows
                        && fits width columns
                        && Seq.allPairs rows columns |> Seq.forall (fun (y, x) -> altered[y, x])

                Verdict.require (draw s trial trial.Region |> planes |> Array.forall isRectangle) (fun () ->
                    ($"the altered features are no rectangle of {side trial.Shape.Height} "
                     + $"x {side trial.Shape.Width}, clipped at the border."))
            | _ -> Verdict.NotApplicable

        law
            "a rectangle is one"
            LawKind.Exact
            200
            ("rect (always a) alters one filled rectangle of sides round(H "
             + "sqrt a) x round(W sqrt a), centred on the map and clipped")
            (OfRegion(Arb.fromGen (Gen.map (Always >> Rect) Generators.fraction.Generator), check))

    // ---- statistics ----

    let private many = 12000

    /// Simulated statistics over `many` keys.
    let private simulate (trial: RegionTrial) (statistic: Key -> float[]) : float[] =
        let sums = statistic (Key.child 0 trial.Key)

        for i in 1 .. many - 1 do
            let more = statistic (Key.child i trial.Key)

            for p in 0 .. sums.Length - 1 do
                sums[p] <- sums[p] + more[p]

        sums |> Array.map (fun sum -> sum / float many)

    let private flat (map: float[,]) = Seq.cast<float> map |> Array.ofSeq

    /// How much of every place of the first sample is altered, in the mean over its channels.
    let private altered (s: Subject) (trial: RegionTrial) region key =
        let mask = drawBy s trial key region
        let kept = MaskValues.kept mask
        let channels = [| 0 .. mask.Channels - 1 |]
        Array.init (mask.Height * mask.Width) (fun p -> 1.0 - (channels |> Array.averageBy (fun c -> kept 0 c p)))

    /// One sample, and so few channels that many draws are fast.
    let private small (trial: RegionTrial) =
        { trial with
            Count = 1
            Shape =
                { trial.Shape with
                    Channels = min 2 trial.Shape.Channels } }

    let expectedIsRealised =
        let check (s: Subject) (trial: RegionTrial) =
            let trial = small trial
            let expected = flat (s.Expected trial.Shape trial.Region)

            let found =
                simulate trial (fun key ->
                    let altered = altered s trial trial.Region key
                    Array.append altered [| Array.average altered |])

            let places =
                Array.zip (Array.append expected [| Array.average expected |]) found
                |> Seq.mapi (fun p (expected, found) ->
                    let what =
                        if p < trial.Shape.Height * trial.Shape.Width then
                            $"the altered share at row {p / trial.Shape.Width}, column {p % trial.Shape.Width}"
                        else
                            "the altered share of the map"

                    Chance.mean what many expected found)

            Verdict.all places

        law
            "the altered fraction is the expected one"
            (Chance.kind many)
            80
            "P(M = 0) = expected, at every place of the map and in its mean"
            (OfRegion(
                Arb.fromGenShrink (
                    Gen.oneof [ Generators.region.Generator; blocksOnly.Generator ],
                    Generators.region.Shrinker
                ),
                check
            ))

    let requestedIsExpected =
        let check (s: Subject) (size, fraction, shape: Shape) =
            let expected = s.Expected shape (Blocks(size, fraction, Exact)) |> flat

            [ Verdict.near "the expected altered fraction" 0.0 1e-9 [| fraction |] [| Array.average expected |]
              Verdict.require (expected |> Array.forall (fun p -> p >= 0.0 && p <= 1.0)) (fun () ->
                  "a probability lies outside [0, 1].") ]
            |> Verdict.all

        let cases =
            gen {
                let! size = Gen.choose (1, 40)
                let! fraction = Generators.fraction.Generator
                let! height = Gen.choose (1, 33)
                let! width = Gen.choose (1, 33)

                return
                    size,
                    fraction,
                    ({ Channels = 1
                       Height = height
                       Width = width }
                    : Shape)
            }

        law
            "the expected fraction is the requested one"
            LawKind.Exact
            300
            "mean (expected (blocks b f exact)) = f within 1e-9 for H, W in 1 .. 33, b in 1 .. 40"
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen cases) (check s)))

    /// Random leaves whose places are each altered sometimes and left sometimes.
    let private leaves: Arbitrary<Region> =
        Arb.fromGen (
            Gen.oneof
                [ Gen.elements
                      [ Cells 0.5
                        Channels 0.5
                        Generators.stripes 2
                        Rect(Always 0.02)
                        Rect Uniform
                        Rect(Beta(1.0, 1.0)) ]
                  Gen.map2
                      (fun size calibration -> Blocks(size, 0.4, calibration))
                      (Gen.choose (1, 5))
                      (Gen.elements [ Exact; Paper; Valid ]) ]
        )

    let everyPlaceReachable =
        let check (s: Subject) (trial: RegionTrial) =
            let trial = small trial
            let expected = flat (s.Expected trial.Shape trial.Region)
            let found = simulate trial (altered s trial trial.Region)

            Array.zip expected found
            |> Seq.mapi (fun p (expected, found) ->
                // (1 - .0025)^12000 < 1e-13.
                if expected < 0.0025 then
                    Verdict.NotApplicable
                else
                    Verdict.require (found > 0.0) (fun () ->
                        $"row {p / trial.Shape.Width}, column {p % trial.Shape.Width} is never altered."))
            |> Verdict.all

        law
            "every place is reachable"
            (Chance.kind many)
            12
            "a place that is altered with a probability of .0025 or more is altered at least once in 12,000 draws"
            (OfRegion(leaves, check))

    /// Whether a draw for each channel cannot be had: `Shared` wins over what stands outside of it, and a custom region may draw one
    /// pattern for all channels.
    let rec private hasOneDraw region =
        match region with
        | Shared _
        | Custom _ -> true
        | Not a
        | PerSample a
        | PerChannel a -> hasOneDraw a
        | And(a, b)
        | Or(a, b) -> hasOneDraw a || hasOneDraw b
        | _ -> false

    let private independence name speaksOf (units: RegionTrial -> RegionTrial) second statement =
        let check (s: Subject) (trial: RegionTrial) =
            let trial = units trial
            let region = PerSample(PerChannel trial.Region)
            let expected = flat (s.Expected trial.Shape region)
            let places = [| 0 .. expected.Length - 1 |]

            let statistics key =
                let mask = drawBy s trial key region
                let kept = MaskValues.kept mask
                let altered n c p = 1.0 - kept n c p
                let n, c = second

                [| places |> Array.averageBy (altered 0 0)
                   places |> Array.averageBy (altered n c)
                   places |> Array.averageBy (fun p -> altered 0 0 p * altered n c p) |]

            let found =
                if speaksOf trial.Region then
                    simulate trial statistics
                else
                    [||]

            let fraction = Array.average expected

            // Whether the fraction is the expected one is another law.
            if
                found.Length = 0
                || Array.exists (fun share -> abs (share - fraction) > Chance.tolerance many) found[..1]
            then
                Verdict.NotApplicable
            else
                expected
                |> Array.averageBy (fun p -> p * p)
                |> fun both -> Chance.mean "the share of places altered in both" many both found[2]

        law name (Chance.kind many) 10 statement (OfRegion(leaves, check))

    let samplesIndependent =
        independence
            "samples are independent where PerSample"
            (fun _ -> true)
            (fun trial ->
                { trial with
                    Count = 2
                    Shape = { trial.Shape with Channels = 1 } })
            (1, 0)
            "P(both samples' M = 0 at a place) = P(M = 0)^2"

    let channelsIndependent =
        independence
            "channels are independent where PerChannel"
            (hasOneDraw >> not)
            (fun trial ->
                { trial with
                    Count = 1
                    Shape = { trial.Shape with Channels = 2 } })
            (0, 1)
            "P(both channels' M = 0 at a place) = P(M = 0)^2"

    let all =
        [ fromKey
          samplesApart
          size
          unchangedIsMean
          hardMasksAreBits
          notComplements
          deMorgan
          units
          setsOfAltered
          granularityAtLeaves
          wholeBlocks
          oneRectangle
          expectedIsProbability
          expectedIsRealised
          requestedIsExpected
          everyPlaceReachable
          samplesIndependent
          channelsIndependent ]
