namespace PatchUp.Functional.Laws

open System
open FsCheck
open FsCheck.FSharp
open TorchSharp
open PatchUp.Functional

/// FsCheck generators with shrinkers. What they make is always valid: programs are made by the library's smart
/// constructors.
[<RequireQualifiedAccess>]
module Generators =

    // ---- customs ----

    /// Alters every `period`-th row from a random one on, in each channel that is drawn: a hard custom region.
    let stripes (period: int) : Region =
        Region.custom
            { Name = "stripes"
              Arguments = [ float period ]
              IsSoft = false
              Expected = fun shape -> Array2D.create shape.Height shape.Width (1.0 / float period)
              Draw =
                fun context ->
                    let bits = Key.stream context.Key

                    Mask.hard
                        1
                        context.Shape
                        [| for _ in 1 .. context.Shape.Channels do
                               let phase = bits.Below period

                               for y in 1 .. context.Shape.Height do
                                   for _ in 1 .. context.Shape.Width -> (y + phase) % period <> 0 |] }

    /// Alters each feature fully with probability density / 2, by half with probability density: a soft custom region,
    /// 0 <= density <= 0.6.
    let fog (density: float) : Region =
        Region.custom
            { Name = "fog"
              Arguments = [ density ]
              IsSoft = true
              Expected = fun shape -> Array2D.create shape.Height shape.Width density
              Draw =
                fun context ->
                    let bits = Key.stream context.Key
                    let shape = context.Shape

                    Array.init (shape.Channels * shape.Height * shape.Width) (fun _ ->
                        let u = bits.Float()

                        if u < density / 2.0 then 0.0f
                        elif u < density * 1.5 then 0.5f
                        else 1.0f)
                    |> Mask.soft 1 shape }

    /// The triangle's distribution on [0, 1] with its peak at `peak`, 0 < peak < 1: a custom distribution.
    let triangle (peak: float) : Dist =
        Dist.custom
            { Name = "triangle"
              Arguments = [ peak ]
              Mean = (1.0 + peak) / 3.0
              Cdf =
                fun x ->
                    if x < peak then
                        x * x / peak
                    else
                        1.0 - (1.0 - x) * (1.0 - x) / (1.0 - peak)
              Sample =
                fun bits ->
                    let u = bits.Float()

                    if u < peak then
                        sqrt (u * peak)
                    else
                        1.0 - sqrt ((1.0 - u) * (1.0 - peak)) }

    /// The vocabulary that reads the generated customs.
    let vocabulary: Vocabulary =
        let one name make arguments =
            match arguments with
            | [ argument ] -> make argument
            | _ -> invalidArg (nameof arguments) $"{name} takes one number."

        { Notation.plain with
            Customs = Map [ "stripes", one "stripes" (int >> max 1 >> stripes); "fog", one "fog" fog ]
            Dists = Map [ "triangle", one "triangle" triangle ] }

    // ---- numbers ----

    let private seed: Gen<uint64> =
        gen {
            let! high = Gen.choose (Int32.MinValue, Int32.MaxValue)
            let! low = Gen.choose (Int32.MinValue, Int32.MaxValue)
            return (uint64 (uint32 high) <<< 32) ||| uint64 (uint32 low)
        }

    /// Keys; they shrink to those of small seeds.
    let key: Arbitrary<Key> =
        Arb.fromGenShrink (
            Gen.map (fun state -> { State = state }) seed,
            fun key ->
                if key.State > 2UL then
                    [ Key.ofSeed 0; Key.ofSeed 1; Key.ofSeed 2 ]
                else
                    []
        )

    /// Numbers of [0, 1]: round ones, hundredths, tiny ones, and any of 53 bits. They shrink to rounder ones.
    let fraction: Arbitrary<float> =
        let roundness f =
            if f = 0.0 then 0
            elif f = 1.0 then 1
            elif f = 0.5 then 2
            elif Math.Round(f, 1) = f then 3
            elif Math.Round(f, 2) = f then 4
            else 5

        Arb.fromGenShrink (
            Gen.frequency
                [ 2, Gen.elements [ 0.0; 0.5; 1.0 ]
                  4, Gen.choose (1, 99) |> Gen.map (fun n -> float n / 100.0)
                  1, Gen.elements [ 1e-7; 1e-20; 1.0 - 1e-9 ]
                  2, Gen.map (fun bits -> float (bits >>> 11) * Math.ScaleB(1.0, -53)) seed ],
            fun f ->
                [ 0.0; 1.0; 0.5; Math.Round(f, 1); Math.Round(f, 2) ]
                |> Seq.filter (fun g -> roundness g < roundness f)
        )

    /// Distributions on [0, 1].
    let dist: Arbitrary<Dist> =
        let parameter =
            Gen.frequency
                [ 3, Gen.elements [ 0.5; 1.0; 2.0; 5.0 ]
                  1, Gen.choose (-130, 170) |> Gen.map (fun n -> Math.Pow(10.0, float n / 100.0)) ]

        Arb.fromGenShrink (
            Gen.frequency
                [ 2, Gen.map Dist.always fraction.Generator
                  1, Gen.constant Uniform
                  3, Gen.map2 Dist.beta parameter parameter
                  1, Gen.choose (1, 9) |> Gen.map (fun n -> triangle (float n / 10.0)) ],
            fun dist ->
                match dist with
                | Always value -> fraction.Shrinker value |> Seq.map Always
                | Uniform -> Seq.singleton (Always 0.5)
                | Beta(a, b) ->
                    if (a, b) = (2.0, 2.0) then
                        [ Uniform ]
                    else
                        [ Uniform; Beta(2.0, 2.0) ]
                | CustomDist _ -> [ Always 0.5; Uniform ]
        )

    // ---- regions ----

    let private calibration =
        Gen.frequency [ 3, Gen.constant Exact; 1, Gen.constant Paper; 1, Gen.constant Valid ]

    let private block =
        Gen.frequency [ 6, Gen.choose (1, 8); 1, Gen.elements [ 11; 40 ] ]

    let private leaf: Gen<Region> =
        Gen.frequency
            [ 1, Gen.constant Nowhere
              1, Gen.constant Everywhere
              3, Gen.map Region.cells fraction.Generator
              5, Gen.map3 Region.blocks calibration block fraction.Generator
              4, Gen.map Rect dist.Generator
              2, Gen.map Region.channels fraction.Generator
              1, Gen.map stripes (Gen.choose (1, 4))
              1, Gen.choose (0, 6) |> Gen.map (fun n -> fog (float n / 10.0)) ]

    let rec private regionOf depth : Gen<Region> =
        if depth = 0 then
            leaf
        else
            let inner = regionOf (depth - 1)

            Gen.frequency
                [ 5, leaf
                  1, Gen.map Not inner
                  2, Gen.map2 (fun a b -> And(a, b)) inner inner
                  2, Gen.map2 (fun a b -> Or(a, b)) inner inner
                  3, Gen.map PerSample inner
                  1, Gen.map PerChannel inner
                  1, Gen.map Shared inner ]

    let rec private shrinkRegion (region: Region) : Region seq =
        let unary make a =
            seq {
                yield a
                yield! shrinkRegion a |> Seq.map make
            }

        let binary make a b =
            seq {
                yield a
                yield b
                yield! shrinkRegion a |> Seq.map (fun a -> make (a, b))
                yield! shrinkRegion b |> Seq.map (fun b -> make (a, b))
            }

        let fractions make f =
            seq {
                yield Nowhere
                yield Everywhere
                yield! fraction.Shrinker f |> Seq.map make
            }

        match region with
        | Nowhere -> Seq.empty
        | Everywhere -> [ Nowhere ]
        | Cells f -> fractions Cells f
        | Channels f -> fractions Channels f
        | Blocks(size, f, calibration) ->
            seq {
                yield! fractions (fun f -> Blocks(size, f, calibration)) f

                if calibration <> Exact then
                    yield Blocks(size, f, Exact)

                for size' in [ 1; 2; 3; size / 2 ] do
                    if size' > 0 && size' < size then
                        yield Blocks(size', f, calibration)
            }
        | Rect area ->
            seq {
                yield Nowhere
                yield Everywhere
                yield! dist.Shrinker area |> Seq.map Rect
            }
        | Not a -> unary Not a
        | PerSample a -> unary PerSample a
        | PerChannel a -> unary PerChannel a
        | Shared a -> unary Shared a
        | And(a, b) -> binary And a b
        | Or(a, b) -> binary Or a b
        | Custom _ -> [ Nowhere; Everywhere ]

    /// Regions of every case, combinations and granularities nested to a depth of 3, hard and soft customs.
    let region: Arbitrary<Region> =
        Arb.fromGenShrink (Gen.frequency [ 2, regionOf 0; 2, regionOf 2; 1, regionOf 3 ], shrinkRegion)

    // ---- the parts of a step ----

    /// Pairings of every case.
    let partner: Arbitrary<Partner> =
        Arb.fromGenShrink (
            Gen.frequency
                [ 3, Gen.constant Shuffled
                  3, Gen.elements [ Blank; Self; Derangement; SameClass; OtherClass ]
                  1, Gen.choose (-9, 9) |> Gen.map Rolled ],
            fun partner ->
                match partner with
                | Blank -> []
                | Rolled 1 -> [ Blank ]
                | _ -> [ Blank; Rolled 1 ]
        )

    /// Mixes of every case.
    let mix: Arbitrary<Mix> =
        Arb.fromGenShrink (
            Gen.frequency
                [ 2, Gen.constant Swap
                  2, Gen.map Blend dist.Generator
                  1, Gen.map BlendEach dist.Generator ],
            fun mix ->
                match mix with
                | Swap -> Seq.empty
                | Blend lambda ->
                    seq {
                        yield Swap
                        yield! dist.Shrinker lambda |> Seq.map Blend
                    }
                | BlendEach lambda ->
                    seq {
                        yield Swap
                        yield Blend lambda
                        yield! dist.Shrinker lambda |> Seq.map BlendEach
                    }
        )

    /// Rescalings of every case.
    let rescale: Arbitrary<Rescale> =
        Arb.fromGenShrink (
            Gen.elements [ NoRescale; Rescale.Nominal; Rescale.Batch; Rescale.Sample ],
            fun kind -> if kind = NoRescale then [] else [ NoRescale ]
        )

    /// Objectives: the named ones and weighted sums.
    let objective: Arbitrary<Objective> =
        let weight = Gen.choose (0, 40) |> Gen.map (fun n -> float n / 8.0)

        Arb.fromGenShrink (
            Gen.frequency
                [ 2, Gen.constant Objective.reweighted
                  2, Gen.constant Objective.twoTerm
                  1, Gen.constant Objective.first
                  2,
                  Gen.map2
                      (fun a b ->
                          if a + b > 0.0 then
                              Objective.weighted a b
                          else
                              Objective.first)
                      weight
                      weight ],
            fun objective ->
                if objective = Objective.reweighted then
                    []
                elif objective = Objective.twoTerm then
                    [ Objective.reweighted ]
                else
                    [ Objective.reweighted; Objective.twoTerm ]
        )

    let private place: Gen<Place> =
        Gen.frequency
            [ 3, Gen.constant (Number 0)
              4, Gen.choose (1, 4) |> Gen.map Place.number
              2, Gen.elements [ "conv1"; "layer1.0"; "stage 2" ] |> Gen.map Place.named ]

    /// Sites: one place, any of several, all of several; numbers, names and both.
    let site: Arbitrary<Site> =
        let places = Gen.choose (1, 3) |> Gen.bind (fun n -> Gen.listOfLength n place)
        let simplest = At(Number 0)

        Arb.fromGenShrink (
            Gen.frequency
                [ 3, Gen.map At place
                  1, Gen.map Site.anyOf places
                  1, Gen.map Site.allOf places ],
            fun site ->
                match site with
                | At _ -> if site = simplest then [] else [ simplest ]
                | AnyOf places
                | AllOf places -> simplest :: List.map At places
        )

    let private stepOf region : Gen<Step> =
        gen {
            let! region = region
            let! partner = partner.Generator
            let! mix = mix.Generator
            let! view = Gen.frequency [ 5, Gen.constant AsIs; 1, Gen.constant Resized ]
            let! rescale = rescale.Generator
            let! site = site.Generator
            let! objective = objective.Generator

            return
                { Region = region
                  Partner = partner
                  View = view
                  Mix = mix
                  Rescale = (if partner = Blank then rescale else NoRescale)
                  Site = site
                  Objective = objective }
        }

    let private shrinkStep (step: Step) : Step seq =
        seq {
            for site in site.Shrinker step.Site do
                { step with Site = site }

            if step.View <> AsIs then
                { step with View = AsIs }

            for objective in objective.Shrinker step.Objective do
                { step with Objective = objective }

            for rescale in rescale.Shrinker step.Rescale do
                { step with Rescale = rescale }

            for mix in mix.Shrinker step.Mix do
                { step with Mix = mix }

            for partner in partner.Shrinker step.Partner do
                if step.Rescale = NoRescale || partner = Blank then
                    { step with Partner = partner }

            for region in shrinkRegion step.Region do
                { step with Region = region }
        }

    /// Single steps; only blanking ones are rescaled.
    let step: Arbitrary<Step> = Arb.fromGenShrink (stepOf region.Generator, shrinkStep)

    // ---- programs ----

    let private tryMake (make: unit -> Regularizer) : Regularizer option =
        try
            Some(make ())
        with :? ArgumentException ->
            None

    let private plainObjectives regularizer =
        regularizer
        |> Regularizer.map (fun step ->
            { step with
                Objective = Objective.reweighted })

    /// A sequence; where the parts' objectives contradict each other, with the objective on the whole.
    let private sequenceOf objective parts =
        match tryMake (fun () -> Regularizer.sequence parts) with
        | Some made -> made
        | None ->
            let plain = Regularizer.sequence (List.map plainObjectives parts)

            tryMake (fun () -> Regularizer.objective objective plain)
            |> Option.defaultValue plain

    let rec private programOf depth : Gen<Regularizer> =
        let one = Gen.map Do step.Generator

        if depth = 0 then
            one
        else
            let inner = programOf (depth - 1)
            let several = Gen.choose (1, 3) |> Gen.bind (fun n -> Gen.listOfLength n inner)

            Gen.frequency
                [ 8, one
                  1, Gen.constant Regularizer.identity
                  3,
                  gen {
                      let! parts = several
                      let! weights = Gen.listOfLength parts.Length (Gen.choose (1, 4))
                      return Regularizer.oneOf (List.zip (List.map float weights) parts)
                  }
                  2,
                  gen {
                      let! parts = several
                      let! times = Gen.listOfLength parts.Length fraction.Generator
                      return Regularizer.over (List.zip (List.sort times) parts)
                  }
                  3, Gen.map2 sequenceOf objective.Generator several
                  3, Gen.map2 Regularizer.sometimes fraction.Generator inner ]

    let rec private shrinkProgram (regularizer: Regularizer) : Regularizer seq =
        let without i list = List.removeAt i list

        seq {
            match regularizer with
            | Do step ->
                yield Regularizer.identity
                yield! shrinkStep step |> Seq.map Do
            | Choose branches ->
                yield! List.map snd branches

                for i in 0 .. branches.Length - 1 do
                    yield Regularizer.oneOf (without i branches)
                    let weight, inner = branches[i]

                    for smaller in shrinkProgram inner do
                        yield Regularizer.oneOf (List.updateAt i (weight, smaller) branches)
            | Over points ->
                yield! List.map snd points

                for i in 0 .. points.Length - 1 do
                    yield Regularizer.over (without i points)
                    let time, inner = points[i]

                    for smaller in shrinkProgram inner do
                        yield Regularizer.over (List.updateAt i (time, smaller) points)
            | Sequence parts ->
                yield! parts

                for i in 0 .. parts.Length - 1 do
                    yield! tryMake (fun () -> Regularizer.sequence (without i parts)) |> Option.toList

                    for smaller in shrinkProgram parts[i] do
                        yield!
                            tryMake (fun () -> Regularizer.sequence (List.updateAt i smaller parts))
                            |> Option.toList
        }

    /// Whole programs: steps, choices, sequences and probabilities nested to a depth of 3.
    let regularizer: Arbitrary<Regularizer> =
        Arb.fromGenShrink (Gen.frequency [ 2, programOf 0; 3, programOf 2; 1, programOf 3 ], shrinkProgram)

    // ---- shapes and batches ----

    let private side = Gen.frequency [ 1, Gen.constant 1; 6, Gen.choose (2, 9) ]

    /// Shapes: odd and even sides, H <> W, 1 x 1, one channel and several.
    let shape: Arbitrary<Shape> =
        Arb.fromGenShrink (
            gen {
                let! channels = Gen.choose (1, 4)

                let! height, width =
                    Gen.frequency
                        [ 1, Gen.constant (1, 1)
                          1, Gen.map (fun length -> 1, length) side
                          6, Gen.zip side side ]

                return
                    { Channels = channels
                      Height = height
                      Width = width }
            },
            fun shape ->
                [ { shape with Channels = 1 }
                  { shape with Height = 1 }
                  { shape with Width = 1 }
                  { shape with Height = 2 }
                  { shape with Width = 2 } ]
                |> Seq.filter (fun s ->
                    s.Channels * 100 + s.Height + s.Width < shape.Channels * 100 + shape.Height + shape.Width)
        )

    /// Batch sizes: 1, odd and even.
    let count: Arbitrary<int> =
        Arb.fromGenShrink (Gen.elements [ 1; 2; 3; 4; 5; 7; 8 ], fun n -> Seq.filter (fun m -> m < n) [ 1; 2; 3 ])

    let private first = Gen.frequency [ 1, Gen.constant 0; 1, Gen.choose (0, 50000) ]

    let private shrinkFirst first = if first = 0 then [] else [ 0 ]

    /// The types of features.
    let precision: Arbitrary<Precision> =
        Arb.fromGenShrink (
            Gen.frequency
                [ 3, Gen.constant Precision.Single
                  1, Gen.constant Precision.Double
                  1, Gen.constant Precision.BFloat16 ],
            fun precision ->
                if precision = Precision.Single then
                    []
                else
                    [ Precision.Single ]
        )

    /// How targets are given.
    let targets: Arbitrary<TargetKind> =
        Arb.fromGenShrink (
            Gen.elements
                [ TargetKind.Indices
                  TargetKind.OneHot
                  TargetKind.SoftRows
                  TargetKind.MultiLabel ],
            fun kind ->
                if kind = TargetKind.OneHot then
                    []
                else
                    [ TargetKind.OneHot ]
        )

    /// One of these, which does not shrink.
    let oneOf (values: 'v list) : Arbitrary<'v> = Arb.fromGen (Gen.elements values)

    /// Trials of the regions that an arbitrary makes, on features of these shapes.
    let regionTrialsOn (shape: Arbitrary<Shape>) (regions: Arbitrary<Region>) : Arbitrary<RegionTrial> =
        Arb.fromGenShrink (
            gen {
                let! region = regions.Generator
                let! key = key.Generator
                let! first = first
                let! count = count.Generator
                let! shape = shape.Generator

                return
                    { Region = region
                      Key = key
                      First = first
                      Count = count
                      Shape = shape }
            },
            fun trial ->
                seq {
                    for region in regions.Shrinker trial.Region do
                        { trial with Region = region }

                    for shape in shape.Shrinker trial.Shape do
                        { trial with Shape = shape }

                    for count in count.Shrinker trial.Count do
                        { trial with Count = count }

                    for first in shrinkFirst trial.First do
                        { trial with First = first }

                    for key in key.Shrinker trial.Key do
                        { trial with Key = key }
                }
        )

    let private ranks (shape: Shape) =
        if shape.Height > 1 then [ 4 ]
        elif shape.Width > 1 then [ 3; 4 ]
        else [ 2; 3; 4 ]

    /// The rank that a trial can have: the view `Resized` needs maps.
    let private fitting regularizer rank =
        if Regularizer.steps regularizer |> List.exists (fun step -> step.View = Resized) then
            4
        else
            rank

    /// Trials of the programs that an arbitrary makes, on features of these shapes and types.
    let trialsOn
        (shape: Arbitrary<Shape>)
        (precision: Arbitrary<Precision>)
        (programs: Arbitrary<Regularizer>)
        : Arbitrary<Trial> =
        Arb.fromGenShrink (
            gen {
                let! regularizer = programs.Generator
                let! key = key.Generator
                let! first = first
                let! count = count.Generator
                let! shape = shape.Generator
                let! rank = Gen.elements (ranks shape)
                let! classes = Gen.choose (2, 5)
                let! precision = precision.Generator
                let! targets = targets.Generator
                let! wild = Gen.elements [ false; true ]
                let! data = Gen.choose (0, 999)

                return
                    { Regularizer = regularizer
                      Key = key
                      First = first
                      Count = count
                      Classes = classes
                      Shape = shape
                      Rank = fitting regularizer rank
                      Precision = precision
                      Targets = targets
                      Wild = wild
                      Data = Key.ofSeed data }
            },
            fun trial ->
                seq {
                    for regularizer in programs.Shrinker trial.Regularizer do
                        { trial with Regularizer = regularizer }

                    for shape in shape.Shrinker trial.Shape do
                        { trial with Shape = shape; Rank = 4 }

                    for count in count.Shrinker trial.Count do
                        { trial with Count = count }

                    if trial.Rank < 4 then
                        { trial with Rank = 4 }

                    if trial.Wild then
                        { trial with Wild = false }

                    for precision in precision.Shrinker trial.Precision do
                        { trial with Precision = precision }

                    for targets in targets.Shrinker trial.Targets do
                        { trial with Targets = targets }

                    if trial.Classes > 2 then
                        { trial with Classes = 2 }

                    for first in shrinkFirst trial.First do
                        { trial with First = first }

                    for key in key.Shrinker trial.Key do
                        { trial with Key = key }

                    for data in key.Shrinker trial.Data do
                        { trial with Data = data }
                }
        )

    /// Trials of the regions that an arbitrary makes.
    let regionTrials (regions: Arbitrary<Region>) : Arbitrary<RegionTrial> = regionTrialsOn shape regions

    /// Trials of the programs that an arbitrary makes.
    let trials (programs: Arbitrary<Regularizer>) : Arbitrary<Trial> = trialsOn shape precision programs

    /// The programs of an arbitrary with every step changed.
    let changed (change: Step -> Step) (programs: Arbitrary<Regularizer>) : Arbitrary<Regularizer> =
        Arb.fromGenShrink (Gen.map (Trial.mapSteps change) programs.Generator, programs.Shrinker)

    /// Programs of one step each, at one place.
    let oneStep: Arbitrary<Regularizer> =
        Arb.fromGenShrink (
            Gen.map (fun step -> Do { step with Site = At(Number 0) }) step.Generator,
            fun regularizer -> shrinkProgram regularizer |> Seq.filter (fun r -> r <> Regularizer.identity)
        )

    // ---- distributions and losses ----

    /// Trials of the distributions that an arbitrary makes.
    let distTrials (dists: Arbitrary<Dist>) : Arbitrary<DistTrial> =
        Arb.fromGenShrink (
            Gen.map2 (fun dist key -> { Dist = dist; Key = key }) dists.Generator key.Generator,
            fun trial ->
                seq {
                    for dist in dists.Shrinker trial.Dist do
                        { trial with Dist = dist }

                    for key in key.Shrinker trial.Key do
                        { trial with DistTrial.Key = key }
                }
        )

    /// The focal loss sum_k -y_k (1 - q_k)^2 log q_k (Lin et al. 2017): a custom loss, affine in the target.
    let focal: Loss =
        CustomLoss
            { Name = "focal"
              IsAffine = true
              PerSample =
                fun logits targets ->
                    let logs = torch.nn.functional.log_softmax (logits, 1L)
                    (targets * (Scope.number 1.0 - logs.exp ()).square() * logs).sum(1L).neg() }

    /// The quartic score sum_k (q_k - y_k)^4: a custom loss that is not affine in the target.
    let quartic: Loss =
        CustomLoss
            { Name = "quartic"
              IsAffine = false
              PerSample =
                fun logits targets -> (torch.nn.functional.softmax (logits, 1L) - targets).square().square().sum(1L) }

    /// Losses: those of the library, smoothed ones, and customs.
    let loss: Arbitrary<Loss> =
        let plain = Gen.elements [ CrossEntropy; BceOnSoftmax; Brier; focal; quartic ]

        Arb.fromGenShrink (
            Gen.frequency
                [ 3, plain
                  1, Gen.map2 (fun n loss -> Smoothed(float n / 10.0, loss)) (Gen.choose (0, 10)) plain ],
            fun loss ->
                match loss with
                | Smoothed(_, loss) -> [ loss ]
                | _ -> []
        )

    /// Trials of the losses that an arbitrary makes; logits in float32 and float64.
    let lossTrials (losses: Arbitrary<Loss>) : Arbitrary<LossTrial> =
        Arb.fromGenShrink (
            gen {
                let! loss = losses.Generator
                let! count = count.Generator
                let! classes = Gen.choose (2, 5)
                let! precision = Gen.elements [ Precision.Single; Precision.Double ]
                let! targets = targets.Generator
                let! data = Gen.choose (0, 999)

                return
                    { Loss = loss
                      Count = count
                      Classes = classes
                      Precision = precision
                      Targets = targets
                      Data = Key.ofSeed data }
            },
            fun trial ->
                seq {
                    for loss in losses.Shrinker trial.Loss do
                        { trial with LossTrial.Loss = loss }

                    for count in count.Shrinker trial.Count do
                        { trial with LossTrial.Count = count }

                    if trial.Classes > 2 then
                        { trial with LossTrial.Classes = 2 }

                    for precision in precision.Shrinker trial.Precision do
                        { trial with
                            LossTrial.Precision = precision }

                    for targets in targets.Shrinker trial.Targets do
                        { trial with
                            LossTrial.Targets = targets }

                    for data in key.Shrinker trial.Data do
                        { trial with LossTrial.Data = data }
                }
        )

    // ---- one's own ----

    let rec private leaves (region: Region) : Region list =
        match region with
        | Not a
        | PerSample a
        | PerChannel a
        | Shared a -> leaves a
        | And(a, b)
        | Or(a, b) -> leaves a @ leaves b
        | leaf -> [ leaf ]

    /// Every distribution of a program: of areas and of lambdas.
    let distsOf (regularizer: Regularizer) : Dist list =
        [ for step in Regularizer.steps regularizer do
              match step.Mix with
              | Swap -> ()
              | Blend lambda
              | BlendEach lambda -> lambda

              for leaf in leaves step.Region do
                  match leaf with
                  | Rect area -> area
                  | _ -> () ]
        |> List.distinct

    /// The generated customs, and those of a program: reads what is shown of the program and of what it shrinks to.
    let vocabularyOf (regularizer: Regularizer) : Vocabulary =
        let customs =
            [ for step in Regularizer.steps regularizer do
                  for leaf in leaves step.Region do
                      match leaf with
                      | Custom custom -> custom
                      | _ -> () ]

        let dists =
            [ for dist in distsOf regularizer do
                  match dist with
                  | CustomDist custom -> custom
                  | _ -> () ]

        /// The one of these arguments.
        let reader name (known: (float list * 'v) list) arguments =
            match known |> List.tryFind (fst >> (=) arguments) with
            | Some(_, value) -> value
            | None -> invalidArg (nameof arguments) $"The program has no {name} with the arguments %A{arguments}."

        let add nameOf argumentsOf make customs known =
            customs
            |> List.groupBy nameOf
            |> List.fold
                (fun known (name: string, group) ->
                    Map.add name (reader name [ for custom in group -> argumentsOf custom, make custom ]) known)
                known

        { vocabulary with
            Customs =
                vocabulary.Customs
                |> add (fun (c: Custom) -> c.Name) (fun c -> c.Arguments) Custom customs
            Dists =
                vocabulary.Dists
                |> add (fun (c: CustomDist) -> c.Name) (fun c -> c.Arguments) CustomDist dists }
