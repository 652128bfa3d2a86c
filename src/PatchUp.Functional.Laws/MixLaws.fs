namespace PatchUp.Functional.Laws

open System
open FsCheck
open FsCheck.FSharp
open TorchSharp
open PatchUp.Functional

/// What laws of mixing share.
[<RequireQualifiedAccess>]
module Mixing =

    /// The plan of a trial.
    let plan (s: Subject) (trial: Trial) : Plan =
        s.Draw trial.Key (Trial.info trial) trial.Regularizer

    /// The trial's batch, drawn and mixed.
    let mixed (s: Subject) (trial: Trial) : Batch =
        s.Apply (plan s trial) (Trial.batchBy s.OfIndices trial)

    /// Whether a draw can change labels.
    let takesPartner (drawn: Drawn) = drawn.Partner.IsSome

    /// How far rounding may move a number of this precision.
    let rounding (trial: Trial) : float =
        match trial.Precision with
        | Precision.Double -> 1e-12
        | Precision.Single -> 1e-6
        | Precision.BFloat16 -> 0.0079

    /// Two batches with the same bits in every tensor.
    let sameBits (what: string) (expected: Batch) (found: Batch) : Verdict =
        Verdict.require (Read.batch expected = Read.batch found) (fun () -> $"{what}: the bits differ.")

    /// Bit for bit: all the way, unscaled, as it is.
    let hard (step: Step) =
        { step with
            Mix = Swap
            View = AsIs
            Rescale = NoRescale }

    /// Any share, unscaled, as it is.
    let plain (step: Step) =
        { step with
            View = AsIs
            Rescale = NoRescale }

    /// With a partner, so that labels change.
    let labelled (step: Step) =
        { plain step with
            Partner = (if step.Partner = Blank then Shuffled else step.Partner) }

    /// Whether a plan swaps bits and does nothing else.
    let isHard (plan: Plan) =
        plan.Draws
        |> List.forall (fun drawn ->
            let isHardMask =
                match drawn.Mask.Values with
                | Hard _ -> true
                | Soft _ -> false

            isHardMask
            && drawn.View = AsIs
            && drawn.Scale.Length = 0
            && Array.forall ((=) 0.0) drawn.Lambda)

    /// Features as `[N * C * H * W]` indices: sample, channel, place.
    let private cells (trial: Trial) =
        [| for n in 0 .. trial.Count - 1 do
               for c in 0 .. trial.Shape.Channels - 1 do
                   for p in 0 .. trial.Shape.Height * trial.Shape.Width - 1 -> struct (n, c, p) |]

    /// One draw on the elements of a batch: own and partner's element, and how much of the own stays, for every
    /// feature.
    let onElements
        (trial: Trial)
        (blank: 'v)
        (combine: float -> float -> 'v -> 'v -> 'v)
        (own: 'v[])
        (drawn: Drawn)
        : 'v[] =
        let kept = MaskValues.kept drawn.Mask
        let stride = own.Length / trial.Count

        cells trial
        |> Array.mapi (fun i (struct (n, c, p)) ->
            let other =
                match drawn.Partner with
                | Some map -> own[map[n] * stride + i % stride]
                | None -> blank

            combine (kept n c p) drawn.Lambda[n % drawn.Lambda.Length] own[i] other)

/// Laws of hard mixes: bits are moved, not computed.
module HardLaws =

    let private law name trials statement check =
        { About = "hard mix"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = trials
          Check = check }

    let private hardPrograms = Generators.regularizer |> Generators.changed Mixing.hard

    let bits =
        let check (s: Subject) (trial: Trial) =
            let plan = Mixing.plan s trial

            if not (Mixing.isHard plan) then
                Verdict.NotApplicable
            else
                let batch = Trial.batch trial
                let take kept _ own other = if kept = 1.0 then own else other

                let expected =
                    plan.Draws
                    |> List.fold (Mixing.onElements trial 0UL take) (Read.words batch.Features)

                let found = Read.words (s.Apply plan batch).Features

                match Array.zip expected found |> Array.tryFindIndex (fun (a, b) -> a <> b) with
                | Some i -> Verdict.Broken $"feature {i} has the bits {found[i]:X} where {expected[i]:X} were expected."
                | None -> Verdict.Kept

        law
            "a hard mix moves bits"
            300
            ("each feature of x' has the bits of x where M = 1 and those of "
             + "x[partner] (or zero) where M = 0: -0, infinities and NaN too")
            (OfRegularizer(hardPrograms, check))

    let conserved =
        let check (s: Subject) (trial: Trial) =
            let plan = Mixing.plan s trial

            let permutes (drawn: Drawn) =
                drawn.Mask.Samples = 1
                && match drawn.Partner with
                   | Some map -> Array.sort map = [| 0 .. trial.Count - 1 |]
                   | None -> false

            if
                plan.Draws.IsEmpty
                || not (Mixing.isHard plan && List.forall permutes plan.Draws)
            then
                Verdict.NotApplicable
            else
                let batch = Trial.batch trial
                let found = s.Apply plan batch

                // The elements of all samples at each position.
                let piles (features: torch.Tensor) =
                    let words = Read.words features
                    let stride = words.Length / trial.Count
                    Array.init stride (fun p -> Array.init trial.Count (fun n -> words[n * stride + p]) |> Array.sort)

                Verdict.require (piles batch.Features = piles found.Features) (fun () ->
                    "at some position the samples' values are not the same ones.")

        law
            "a shared swap conserves features"
            300
            "with one mask for all samples and a permutation, the multiset of values at each position stays"
            (OfRegularizer(
                Generators.regularizer
                |> Generators.changed (fun step ->
                    { Mixing.hard step with
                        Partner = (if step.Partner = Blank then Derangement else step.Partner) }),
                check
            ))

    /// Masks and weights for the kernel alone.
    let private kernelCases =
        gen {
            let! shape = Generators.shape.Generator
            let! count = Generators.count.Generator
            let! samples = Gen.elements [ 1; count ]
            let! toward = Gen.listOfLength samples (Gen.elements [ 0.0; 1.0 ])
            let! seed = Gen.choose (0, 999)
            let! soft = Gen.elements [ false; true ]
            return shape, count, samples, Array.ofList toward, Key.ofSeed seed, soft
        }

    let selects =
        let check (s: Subject) (shape: Shape, count, samples, toward: float[], key, soft) =
            let bits = Key.stream key
            let cells = samples * shape.Channels * shape.Height * shape.Width
            let keep = Array.init cells (fun _ -> bits.Below 2 = 1)

            let mask =
                if soft then
                    Mask.soft samples shape (keep |> Array.map (fun k -> if k then 1.0f else 0.0f))
                else
                    Mask.hard samples shape keep

            let size =
                [| int64 count; int64 shape.Channels; int64 shape.Height; int64 shape.Width |]

            let special = [| -0.0; infinity; -infinity; nan; 1.0; 2.5 |]

            let wild () =
                let values =
                    Array.init (count * shape.Channels * shape.Height * shape.Width) (fun _ ->
                        special[bits.Below special.Length])

                torch.tensor (values, System.ReadOnlySpan size)

            let a, b, upstream = wild (), wild (), wild ()
            a.requires_grad <- true
            b.requires_grad <- true
            let mixed = s.Blend { Mask = mask; Toward = toward } a b

            if mixed.requires_grad then
                mixed.backward ([| upstream |])

            let kept = MaskValues.kept mask

            let isOwn =
                [| for n in 0 .. count - 1 do
                       for c in 0 .. shape.Channels - 1 do
                           for p in 0 .. shape.Height * shape.Width - 1 ->
                               kept n c p = 1.0 || toward[n % toward.Length] = 0.0 |]

            let select (chosen: bool[]) (own: uint64[]) (other: uint64[]) =
                Array.init own.Length (fun i -> if chosen[i] then own[i] else other[i])

            let gradient (t: torch.Tensor) =
                if isNull t.grad then
                    Array.zeroCreate<float> isOwn.Length
                else
                    Read.values t.grad

            let masked chosen =
                Array.map2 (fun isChosen g -> if isChosen then g else 0.0) chosen (Read.values upstream)

            [ Verdict.equal "the bits" (select isOwn (Read.words a) (Read.words b)) (Read.words mixed)
              Verdict.near "the own side's gradient" 0.0 0.0 (masked isOwn) (gradient a)
              Verdict.near "the partner's gradient" 0.0 0.0 (masked (Array.map not isOwn)) (gradient b) ]
            |> Verdict.all

        law
            "blend selects at its ends"
            200
            ("w = 0 gives the bits of a, w = 1 those of b; the other side's infinities "
             + "and NaN reach neither the result nor, from upstream, its gradient")
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen kernelCases) (check s)))

    let all = [ bits; conserved; selects ]

/// Laws of soft mixes: a straight line from own to partner's features.
module SoftLaws =

    let private law name trials statement check =
        { About = "soft mix"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = trials
          Check = check }

    let private programs = Generators.regularizer |> Generators.changed Mixing.plain

    let identities =
        let check (s: Subject) (trial: Trial) =
            let unchanged what change =
                let trial = Trial.tamed change trial
                let batch = Trial.batch trial
                let found = Mixing.mixed s trial
                let tolerance = Mixing.rounding trial

                [ Verdict.near
                      $"{what}, features"
                      tolerance
                      0.0
                      (Read.values batch.Features)
                      (Read.values found.Features)
                  Verdict.near
                      $"{what}, targets"
                      1e-6
                      0.0
                      (Read.values batch.Targets.Soft)
                      (Read.values found.Targets.Soft) ]

            [ unchanged "everyone with itself" (fun step ->
                  { Mixing.plain step with
                      Partner = Self })
              unchanged "nowhere" (fun step ->
                  { Mixing.plain step with
                      Region = Nowhere })
              unchanged "lambda = 1" (fun step ->
                  { Mixing.plain step with
                      Mix = Blend(Always 1.0) })
              unchanged "each lambda = 1" (fun step ->
                  { Mixing.plain step with
                      Mix = BlendEach(Always 1.0) }) ]
            |> Seq.concat
            |> Verdict.all

        law
            "Self, Nowhere and lambda = 1 are the identity"
            100
            "x' = x and y' = y, to rounding"
            (OfRegularizer(programs, check))

    let lambdaZeroIsHard =
        let check (s: Subject) (trial: Trial) =
            let mixedBy mix =
                Mixing.mixed s (trial |> Trial.withSteps (fun step -> { Mixing.plain step with Mix = mix }))

            let swapped = mixedBy Swap

            [ Mixing.sameBits "blend (always 0)" swapped (mixedBy (Blend(Always 0.0)))
              Mixing.sameBits "blendEach (always 0)" swapped (mixedBy (BlendEach(Always 0.0))) ]
            |> Verdict.all

        law
            "lambda = 0 is the hard mix"
            150
            "blend (always 0) = swap, bit for bit, with the same key"
            (OfRegularizer(programs, check))

    /// Weights of the kernel and four operands in float64.
    let private kernelCases =
        gen {
            let! shape = Generators.shape.Generator
            let! count = Generators.count.Generator
            let! samples = Gen.elements [ 1; count ]
            let! lambdas = Gen.elements [ 1; count ]
            let! toward = Gen.listOfLength lambdas Generators.fraction.Generator
            let! seed = Gen.choose (0, 999)
            let! soft = Gen.elements [ false; true ]
            return shape, count, samples, Array.ofList toward, Key.ofSeed seed, soft
        }

    let private weightOf (shape: Shape) samples toward (bits: Stream) soft : Weight =
        let cells = samples * shape.Channels * shape.Height * shape.Width

        let mask =
            if soft then
                Mask.soft samples shape (Array.init cells (fun _ -> float32 (bits.Below 5) / 4.0f))
            else
                Mask.hard samples shape (Array.init cells (fun _ -> bits.Below 2 = 1))

        { Mask = mask; Toward = toward }

    let private normals (shape: Shape) count (bits: Stream) =
        let size =
            [| int64 count; int64 shape.Channels; int64 shape.Height; int64 shape.Width |]

        torch.tensor (Array.init (int (Array.reduce (*) size)) (fun _ -> bits.Normal()), System.ReadOnlySpan size)

    /// M a + (1 - M) (lambda a + (1 - lambda) b), feature by feature.
    let private straight (weight: Weight) (shape: Shape) count (a: float[]) (b: float[]) =
        let kept = MaskValues.spread count shape weight.Mask
        let stride = a.Length / count

        Array.init a.Length (fun i ->
            let lambda = 1.0 - weight.Toward[i / stride % weight.Toward.Length]
            kept[i] * a[i] + (1.0 - kept[i]) * (lambda * a[i] + (1.0 - lambda) * b[i]))

    let equation =
        let check (s: Subject) (shape, count, samples, toward, key, soft) =
            let bits = Key.stream key
            let weight = weightOf shape samples toward bits soft
            let a, b = normals shape count bits, normals shape count bits
            let expected = straight weight shape count (Read.values a) (Read.values b)
            Verdict.near "the blend" 1e-6 1e-9 expected (Read.values (s.Blend weight a b))

        law
            "a blend is equation (5)"
            200
            "M a + Mix_lambda[(1 - M) a, (1 - M) b], with one lambda or one a sample, hard masks and soft"
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen kernelCases) (check s)))

    let linear =
        let check (s: Subject) (shape, count, samples, toward, key, soft) =
            let bits = Key.stream key
            let weight = weightOf shape samples toward bits soft
            let next () = normals shape count bits
            let a, b, c, d = next (), next (), next (), next ()
            let alpha, beta = bits.Normal(), bits.Normal()

            let combine (x: torch.Tensor) (y: torch.Tensor) =
                Scope.add (x * Scope.number alpha) (y * Scope.number beta)

            let together = s.Blend weight (combine a c) (combine b d)
            let apart = combine (s.Blend weight a b) (s.Blend weight c d)
            Verdict.near "the blend of a combination" 0.0 1e-9 (Read.values apart) (Read.values together)

        law
            "a blend is linear"
            150
            "blend w (s a + t c) (s b + t d) = s blend w a b + t blend w c d"
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen kernelCases) (check s)))

    let convex =
        let check (s: Subject) (trial: Trial) =
            let trial = Trial.tamed Mixing.plain trial
            let plan = Mixing.plan s trial
            let batch = Trial.batch trial

            match plan.Draws with
            | [ drawn ] ->
                let own = Read.values batch.Features

                let pick choose =
                    Mixing.onElements trial 0.0 (fun _ _ a b -> choose a b) own drawn

                let low, high = pick min, pick max
                let found = Read.values (s.Apply plan batch).Features
                let slack = Mixing.rounding trial

                match
                    [ 0 .. found.Length - 1 ]
                    |> List.tryFind (fun i ->
                        let margin = slack * max (abs low[i]) (abs high[i])
                        not (found[i] >= low[i] - margin && found[i] <= high[i] + margin))
                with
                | Some i -> Verdict.Broken $"feature {i} is {found[i]}, outside [{low[i]}, {high[i]}]."
                | None -> Verdict.Kept
            | _ -> Verdict.NotApplicable

        law
            "a mix lies between"
            200
            "min(x, x[partner]) <= x' <= max(x, x[partner]), to rounding"
            (OfRegularizer(programs, check))

    let wholeProgram =
        let check (s: Subject) (trial: Trial) =
            let trial = Trial.tamed Mixing.plain trial
            let plan = Mixing.plan s trial
            let batch = Trial.batch trial

            let blend kept lambda own other =
                kept * own + (1.0 - kept) * (lambda * own + (1.0 - lambda) * other)

            let expected =
                plan.Draws
                |> List.fold (Mixing.onElements trial 0.0 blend) (Read.values batch.Features)

            let found = Read.values (s.Apply plan batch).Features

            // Each draw of a sequence rounds what the draws before left; features are of size 1.
            let slack = Mixing.rounding trial * float (max 1 plan.Draws.Length)
            Verdict.near "the features" slack (4.0 * slack) expected found

        law
            "a plan applies its draws in order"
            200
            "x' = M x + (1 - M) (lambda x + (1 - lambda) x[partner]) for each draw after the other"
            (OfRegularizer(programs, check))

    let all = [ identities; lambdaZeroIsHard; equation; linear; convex; wholeProgram ]

/// Laws of labels: they follow from the features.
module LabelLaws =

    let private law name trials statement programs check =
        { About = "labels"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = trials
          Check = OfRegularizer(programs, check) }

    let private labelled = Generators.regularizer |> Generators.changed Mixing.labelled

    let rowsSumToOne =
        law
            "rows sum to 1"
            200
            "sum_k y'_k = 1 within 1e-6, if it does for y, whatever the type of the features"
            Generators.regularizer
            (fun s trial ->
                match trial.Targets with
                | TargetKind.MultiLabel -> Verdict.NotApplicable
                | _ ->
                    let targets = (Mixing.mixed s trial).Targets

                    let sums =
                        Targets.tensors targets
                        |> List.map (fun rows -> Read.values (rows.``to``(torch.float64).sum(1L)))

                    sums
                    |> Seq.map (fun sum -> Verdict.near "the rows' sums" 0.0 1e-6 (Array.create trial.Count 1.0) sum)
                    |> Verdict.all)

    let followFeatures =
        let check (s: Subject) (trial: Trial) =
            // Features that say whose they are: 1 for one sample, 0 for the others; the targets are the identity
            // matrix.
            let trial =
                { trial with
                    Precision = Precision.Single
                    Targets = TargetKind.OneHot }

            let plan = Mixing.plan s trial

            match plan.Draws with
            | [ drawn ] when drawn.Partner.IsSome ->
                let count = trial.Count
                let identity = torch.eye (int64 count)

                let indicator source =
                    let features = torch.zeros (Trial.size trial)
                    features.select(0L, int64 source).copy_(Scope.number 1.0) |> ignore
                    Batch.create features (Targets.ofSoft identity)

                let mixed = [| for source in 0 .. count - 1 -> s.Apply plan (indicator source) |]

                // Row n, column i: the share of sample n's features that come from sample i.
                let shares =
                    mixed
                    |> Array.map (fun batch -> Read.values (batch.Features.reshape(int64 count, -1L).mean([| 1L |])))

                let expected =
                    [| for n in 0 .. count - 1 do
                           for i in 0 .. count - 1 -> shares[i][n] |]

                Verdict.near "the label weights" 0.0 1e-5 expected (Read.values mixed[0].Targets.Soft)
            | _ -> Verdict.NotApplicable

        law
            "labels follow features"
            150
            ("the weight of y_i in y'_n is the share of x'_n that comes from x_i, "
             + "traced by indicator features: own weight = mean of the kept weight")
            (Generators.oneStep
             |> Generators.changed (fun step ->
                 { step with
                     Partner = (if step.Partner = Blank then Shuffled else step.Partner)
                     Rescale = NoRescale }))
            check

    /// A plan of which every draw acts at the input.
    let private atInput (plan: Plan) =
        { plan with
            Draws = plan.Draws |> List.map (fun drawn -> { drawn with Place = Number 0 }) }

    /// Images that say whose they are: every feature of sample n is n.
    let private owners (trial: Trial) (channels: int) =
        let index = torch.arange(int64 trial.Count).reshape(-1L, 1L, 1L, 1L)
        index.expand(int64 trial.Count, int64 channels, int64 trial.Shape.Height, int64 trial.Shape.Width).contiguous()

    let pixelLabels =
        let check (s: Subject) (trial: Trial) =
            let plan = atInput (Mixing.plan s trial)

            let isWhole (drawn: Drawn) =
                drawn.Partner.IsSome && drawn.Mask.Channels = 1

            match s.ApplyMaps with
            | Some applyMaps when Mixing.isHard plan && List.forall isWhole plan.Draws ->
                let labels = applyMaps plan ((owners trial 1).squeeze 1L)

                let images =
                    s.ApplyFeatures plan ((owners trial trial.Shape.Channels).``to``(torch.float32))

                Verdict.equal
                    "the type and size"
                    (torch.int64, [ trial.Count; trial.Shape.Height; trial.Shape.Width ])
                    (labels.dtype, Read.size labels)
                :: [ for c in 0 .. trial.Shape.Channels - 1 ->
                         Verdict.equal
                             $"the owners by label and those in channel {c}"
                             (Read.values (images.select (1L, int64 c)))
                             (Read.values labels) ]
                |> Verdict.all
            | _ -> Verdict.NotApplicable

        law
            "a pixel's label comes with the pixel"
            150
            "mixed at the input by whole pixels, class indices [N,H,W] are of the image that each pixel comes from"
            (Generators.regularizer
             |> Generators.changed (fun step ->
                 { Mixing.labelled step with
                     Region = Shared step.Region
                     Mix = Swap }))
            check

    let pixelWeights =
        let check (s: Subject) (trial: Trial) =
            let plan = atInput (Mixing.plan s trial)

            match s.ApplyMaps, plan.Draws with
            | Some applyMaps, [ drawn ] when drawn.Partner.IsSome && drawn.View = AsIs ->
                let images =
                    s.ApplyFeatures plan ((owners trial trial.Shape.Channels).``to``(torch.float64))

                let maps =
                    torch.nn.functional
                        .one_hot((owners trial 1).squeeze 1L, int64 trial.Count)
                        .permute(0L, 3L, 1L, 2L)
                        .contiguous()
                        .``to``(torch.float64)
                    |> applyMaps plan

                let index =
                    torch.arange(int64 trial.Count, dtype = torch.float64).reshape(1L, -1L, 1L, 1L)

                [ Verdict.near
                      "the weights' sums"
                      0.0
                      1e-6
                      (Array.create (trial.Count * trial.Shape.Height * trial.Shape.Width) 1.0)
                      (Read.values (maps.sum 1L))
                  Verdict.near
                      "the mean owner by label and by pixel"
                      1e-6
                      1e-6
                      (Read.values (images.mean [| 1L |]))
                      (Read.values ((maps * index).sum 1L)) ]
                |> Verdict.all
            | _ -> Verdict.NotApplicable

        law
            "soft maps mix as their pixels do"
            100
            "at each pixel the weight of y_i in soft maps [N,K,H,W] is the share of its channels that comes from x_i"
            (Generators.oneStep |> Generators.changed Mixing.labelled)
            check

    let equations78 =
        let check (s: Subject) (trial: Trial) =
            let plan = Mixing.plan s trial
            let before = Trial.batch trial
            let found = (s.Apply plan before).Targets

            let mixRows (own: float[]) (drawn: Drawn) (share: int -> float) =
                let classes = trial.Classes

                Array.init own.Length (fun i ->
                    let n, k = i / classes, i % classes
                    let partner = drawn.Partner.Value[n]
                    share n * own[i] + (1.0 - share n) * own[partner * classes + k])

            let lambda (drawn: Drawn) n = drawn.Lambda[n % drawn.Lambda.Length]
            let unchanged (drawn: Drawn) = MaskValues.mean drawn.Mask

            let step (y: float[]) (drawn: Drawn) =
                mixRows y drawn (fun n -> unchanged drawn n + (1.0 - unchanged drawn n) * lambda drawn n)

            let draws = plan.Draws |> List.filter Mixing.takesPartner
            let y = Read.values before.Targets.Soft

            match List.rev draws, found.Mixed with
            | [], None -> Verdict.near "the targets" 0.0 0.0 y (Read.values found.Soft)
            | [], Some _ -> Verdict.Broken "no draw takes a partner, and the targets count as mixed."
            | _, None -> Verdict.Broken "a draw takes a partner, and the targets do not count as mixed."
            | last :: earlier, Some mixed ->
                let own = List.rev earlier |> List.fold step y

                let near what expected found =
                    Verdict.near what 1e-5 1e-6 expected (Read.values found)

                [ near "y_i" own mixed.Own
                  near "Y" (mixRows own last (lambda last)) mixed.Altered
                  Verdict.near "p_u" 0.0 1e-6 (Array.init trial.Count (unchanged last)) mixed.Unchanged
                  near "W" (step own last) found.Soft
                  Verdict.equal "the objective" last.Objective mixed.Objective ]
                |> Verdict.all

        law
            "targets are equations (7) and (8)"
            200
            ("Y = lambda y_i + (1 - lambda) y_j, W = p_u y_i + (1 - p_u) Y, "
             + "of the last step that changes labels; y_i: what came before it")
            Generators.regularizer
            check

    let smoothingCommutes =
        law
            "smoothing commutes with mixing"
            100
            "smooth a (mix y) = mix (smooth a y) = (1 - a) mix y + a / K"
            labelled
            (fun s trial ->
                let amount = (Key.stream trial.Data).Float()
                let plan = Mixing.plan s trial
                let batch = Trial.batch trial
                let mixed = (s.Apply plan batch).Targets
                let after = s.Smooth amount mixed

                let before =
                    (s.Apply
                        plan
                        { batch with
                            Targets = s.Smooth amount batch.Targets })
                        .Targets

                let stated (rows: torch.Tensor) =
                    Read.values rows
                    |> Array.map (fun y -> (1.0 - amount) * y + amount / float trial.Classes)

                let near what expected (found: torch.Tensor) =
                    Verdict.near what 0.0 1e-6 expected (Read.values found)

                Seq.zip3 (Targets.tensors mixed) (Targets.tensors after) (Targets.tensors before)
                |> Seq.collect (fun (mixed, after, before) ->
                    [ near "smoothed after mixing" (stated mixed) after
                      near "smoothed before mixing" (stated mixed) before ])
                |> Verdict.all)

    let kindsAgree =
        law
            "index, one-hot and soft targets agree"
            100
            "class indices mix as their one-hot rows do, bit for bit"
            labelled
            (fun s trial ->
                let plan = Mixing.plan s trial

                let mixed kind =
                    let trial = { trial with Targets = kind }
                    s.Apply plan (Trial.batchBy s.OfIndices trial)

                Mixing.sameBits "indices" (mixed TargetKind.OneHot) (mixed TargetKind.Indices))

    let accuracy =
        law
            "accuracy under mixing is the label's weight"
            100
            ("the accuracy of sample n is W_n at its largest logit: the sum of the weights "
             + "of all whose class is predicted, not only of the first")
            Generators.regularizer
            (fun s trial ->
                let targets = (Mixing.mixed s trial).Targets
                let classes = trial.Classes
                let rows = Read.values targets.Soft
                let logits = Trial.logits trial

                let predicted =
                    Read.values logits
                    |> Array.chunkBySize classes
                    |> Array.map (fun row -> Array.IndexOf(row, Array.max row))

                let expected = predicted |> Array.mapi (fun n k -> rows[n * classes + k])
                Verdict.near "the accuracy of each sample" 0.0 1e-9 expected (s.ExpectedAccuracy targets logits))

    let blankKeepsLabels =
        law
            "blanking leaves labels alone"
            100
            "with Blank y' = y, bit for bit, and the batch has one plain loss"
            (Generators.regularizer
             |> Generators.changed (fun step -> { step with Partner = Blank }))
            (fun s trial ->
                let plan = Mixing.plan s trial

                if plan.Draws |> List.exists Mixing.takesPartner then
                    Verdict.NotApplicable
                else
                    let batch = Trial.batch trial
                    let found = (s.Apply plan batch).Targets

                    [ Verdict.require (Read.bytes batch.Targets.Soft = Read.bytes found.Soft) (fun () ->
                          "the targets' bits differ.")
                      Verdict.require found.Mixed.IsNone (fun () -> "the targets count as mixed.") ]
                    |> Verdict.all)

    let all =
        [ rowsSumToOne
          followFeatures
          pixelLabels
          pixelWeights
          equations78
          smoothingCommutes
          kindsAgree
          accuracy
          blankKeepsLabels ]

/// Laws of the objective.
module ObjectiveLaws =

    let private law name statement check =
        { About = "objective"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = 150
          Check = OfRegularizer(Generators.regularizer |> Generators.changed Mixing.labelled, check) }

    /// The batch's loss as a number, with another objective.
    let private lossWith (s: Subject) loss objective (targets: Targets) (logits: torch.Tensor) =
        let targets =
            { targets with
                Mixed = targets.Mixed |> Option.map (fun mixed -> { mixed with Objective = objective }) }

        s.Loss loss targets logits

    let private number (loss: torch.Tensor) = (Read.values loss)[0]

    let private affine =
        [ CrossEntropy
          BceOnSoftmax
          Smoothed(0.1, CrossEntropy)
          Smoothed(0.3, BceOnSoftmax) ]

    let private onMixed (s: Subject) (trial: Trial) check =
        let targets = (Mixing.mixed s trial).Targets

        match targets.Mixed with
        | None -> Verdict.NotApplicable
        | Some mixed -> check targets mixed (Trial.logits trial)

    let twiceForAffine =
        law
            "two terms are twice one for an affine loss"
            "twoTerm = 2 reweighted within 1e-5, for cross-entropy, BCE on softmax, and both smoothed"
            (fun s trial ->
                onMixed s trial (fun targets _ logits ->
                    affine
                    |> Seq.map (fun loss ->
                        let value objective =
                            number (lossWith s loss objective targets logits)

                        Verdict.near
                            $"{loss}"
                            1e-5
                            1e-7
                            [| 2.0 * value Objective.reweighted |]
                            [| value Objective.twoTerm |])
                    |> Verdict.all))

    let brierGap =
        law
            "the gap of the Brier score"
            "first - second = mean_i p_u (1 - p_u) |y_i - Y|^2, and their gradients are equal"
            (fun s trial ->
                onMixed s trial (fun targets mixed logits ->
                    let withGradient objective =
                        let logits = logits.detach().clone().requires_grad_(true)
                        let loss = lossWith s Brier objective targets logits
                        loss.backward ()
                        number loss, Read.values logits.grad

                    let first, gradientOfFirst = withGradient Objective.first
                    let second, gradientOfSecond = withGradient Objective.second
                    let own, altered = Read.values mixed.Own, Read.values mixed.Altered

                    let gap =
                        Array.init trial.Count (fun n ->
                            let p = mixed.Unchanged[n]

                            let distance =
                                Seq.sum (
                                    seq {
                                        for k in 0 .. trial.Classes - 1 ->
                                            pown (own[n * trial.Classes + k] - altered[n * trial.Classes + k]) 2
                                    }
                                )

                            p * (1.0 - p) * distance)
                        |> Array.average

                    [ Verdict.near "the gap" 1e-5 1e-5 [| gap |] [| first - second |]
                      Verdict.near "the gradients" 1e-4 1e-6 gradientOfSecond gradientOfFirst ]
                    |> Verdict.all))

    let weightedSum =
        law "an objective is a weighted sum" "terms a b = a first + b second, for any loss" (fun s trial ->
            onMixed s trial (fun targets mixed logits ->
                let weights = mixed.Objective

                Brier :: affine
                |> Seq.map (fun loss ->
                    let value objective =
                        number (lossWith s loss objective targets logits)

                    let sum =
                        weights.First * value Objective.first + weights.Second * value Objective.second

                    Verdict.near $"{loss}" 1e-5 1e-7 [| sum |] [| value weights |])
                |> Verdict.all))

    let plainWhenUnmixed =
        law
            "an unmixed batch has one plain loss"
            "loss y f = mean_i l(f_i, y_i) where no step changed labels"
            (fun s trial ->
                let batch = Trial.batch trial
                let logits = Trial.logits trial

                let untouched =
                    s.Apply (s.Draw trial.Key (Trial.info trial) Regularizer.identity) batch

                Brier :: affine
                |> Seq.map (fun loss ->
                    let plain =
                        Loss.perSample loss logits batch.Targets.Soft |> Read.values |> Array.average

                    Verdict.near $"{loss}" 1e-6 1e-7 [| plain |] [| number (s.Loss loss untouched.Targets logits) |])
                |> Verdict.all)
        |> Law.ofLibrary

    let samplesOwnWeight =
        law
            "each sample's loss has its own p_u"
            "the batch's loss is the mean of the losses of its samples taken alone"
            (fun s trial ->
                onMixed s trial (fun targets mixed logits ->
                    let row (t: torch.Tensor) n = t.narrow (0L, int64 n, 1L)

                    let alone n =
                        { Soft = row targets.Soft n
                          Mixed =
                            Some
                                { mixed with
                                    Own = row mixed.Own n
                                    Altered = row mixed.Altered n
                                    Unchanged = [| mixed.Unchanged[n] |] } }

                    [ CrossEntropy; Brier ]
                    |> Seq.map (fun loss ->
                        let value targets logits =
                            number (lossWith s loss Objective.twoTerm targets logits)

                        let mean =
                            Seq.init trial.Count (fun n -> value (alone n) (row logits n)) |> Seq.average

                        Verdict.near $"{loss}" 1e-5 1e-7 [| mean |] [| value targets logits |])
                    |> Verdict.all))

    let all =
        [ twiceForAffine; brierGap; weightedSum; plainWhenUnmixed; samplesOwnWeight ]
