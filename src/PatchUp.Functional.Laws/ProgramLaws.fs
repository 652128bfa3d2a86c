namespace PatchUp.Functional.Laws

open System
open System.Threading.Tasks
open FsCheck
open FsCheck.FSharp
open TorchSharp
open PatchUp.Functional
open PatchUp.Functional.Words

/// Laws of regularizers as values, of pairing and of rescaling.
module RegularizerLaws =

    let private law name kind trials statement check =
        { About = "regularizer"
          Name = name
          Statement = statement
          Kind = kind
          Trials = trials
          Check = check }

    let private structural name statement check =
        law name LawKind.Structural 150 statement (OfRegularizer(Generators.regularizer, check))

    let private exact name trials statement programs check =
        law name LawKind.Exact trials statement (OfRegularizer(programs, check))

    let private plainObjectives =
        Regularizer.map (fun step ->
            { step with
                Objective = Objective.reweighted })

    let monoid =
        structural
            "sequences are a monoid"
            "identity; a = a = a; identity, and (a; b); c = a; (b; c), with =; a sequence of one is that one"
            (fun s trial ->
                let a = trial.Regularizer
                let plain = plainObjectives a
                let b = rect uniform |> swap |> at 1
                let c = cells 0.5 |> blank |> at 0

                [ Verdict.equal "identity first" a (s.Sequence [ Regularizer.identity; a ])
                  Verdict.equal "identity last" a (s.Sequence [ a; Regularizer.identity ])
                  Verdict.equal "a sequence of one" a (s.Sequence [ a ])
                  Verdict.equal "an empty sequence" Regularizer.identity (s.Sequence [])
                  Verdict.equal
                      "the sequence in two ways"
                      (s.Sequence [ s.Sequence [ b; plain ]; c ])
                      (s.Sequence [ b; s.Sequence [ plain; c ] ]) ]
                |> Verdict.all)

    let certainty =
        structural
            "sometimes 0 is nothing, sometimes 1 is all"
            ("sometimes 0 a = identity, which plans nothing; sometimes 1 "
             + "a = a; oneOf [w, a] = a; branches of weight 0 do not count")
            (fun s trial ->
                let a = trial.Regularizer
                let never = s.Sometimes 0.0 a

                [ Verdict.equal "sometimes 0" Regularizer.identity never
                  Verdict.equal "its plan" (Plan.identity trial.Count) (s.Draw trial.Key (Trial.info trial) never)
                  Verdict.equal "sometimes 1" a (s.Sometimes 1.0 a)
                  Verdict.equal "one branch" a (s.OneOf [ 3.0, a ])
                  Verdict.equal "a branch of weight 0" a (s.OneOf [ 0.0, Regularizer.identity; 1.0, a ]) ]
                |> Verdict.all)

    let private draws = 20000

    let frequencies =
        let check (s: Subject) (p, weights: int list, key) =
            let info = BatchInfo.ofShape 2 { Channels = 1; Height = 2; Width = 2 }
            let weights = weights |> List.map float
            let sum = List.sum weights

            /// Counts which of the sites 0, 1 ... acted; the last place of the array counts none.
            let count kinds program =
                let counts = Array.zeroCreate (kinds + 1)

                for i in 0 .. draws - 1 do
                    match (s.Draw (Key.child i key) info program).Draws with
                    | [ { Place = Number k } ] -> counts[k] <- counts[k] + 1
                    | _ -> counts[kinds] <- counts[kinds] + 1

                counts

            let step k = everywhere |> swap |> at k

            [ count 1 (s.Sometimes p (step 0))
              |> Chance.shares $"sometimes {p}" [| p; 1.0 - p |]
              count weights.Length (s.OneOf(weights |> List.mapi (fun i w -> w, step i)))
              |> Chance.shares $"oneOf {weights}" (weights @ [ 0.0 ] |> List.map (fun w -> w / sum) |> Array.ofList)
              count 3 (everywhere |> swap |> atAny [ 0; 1; 2 ])
              |> Chance.shares "atAny [0; 1; 2]" [| 1.0 / 3.0; 1.0 / 3.0; 1.0 / 3.0; 0.0 |] ]
            |> Verdict.all

        let cases =
            gen {
                let! p = Generators.fraction.Generator
                let! n = Gen.choose (2, 4)
                let! weights = Gen.listOfLength n (Gen.choose (1, 5))
                let! key = Generators.key.Generator
                return p, weights, key
            }

        law
            "choices have their probabilities"
            (Chance.kind draws)
            6
            "P(sometimes p acts) = p; P(branch) = weight / sum of weights; atAny is uniform"
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen cases) (check s)))

    let overTraining =
        structural
            "over training the first comes first, the last last"
            ("over [t, a; u, b]: up to t what a draws, from u on what b draws; over [t, a; u, a] draws what a draws; "
             + "over [t, a; t, b] jumps at t")
            (fun s trial ->
                let a = trial.Regularizer
                let b = rect uniform |> swap |> at 1
                let bits = Key.stream (Key.child 8 trial.Data)
                let t, u = 0.1 + 0.4 * bits.Float(), 0.6 + 0.4 * bits.Float()

                let drawn progress regularizer =
                    s.Draw
                        trial.Key
                        { Trial.info trial with
                            Progress = progress }
                        regularizer

                let same what progress expected over =
                    Verdict.require (drawn progress over = drawn progress expected) (fun () ->
                        $"{what}: the plan differs.")

                let ramp = s.Over [ t, a; u, b ]

                [ same "at the beginning" 0.0 a ramp
                  same "at the first time" t a ramp
                  same "at the second time" u b ramp
                  same "at the end" 1.0 b ramp
                  same "a and a" ((t + u) / 2.0) a (s.Over [ t, a; u, a ])
                  same "before a jump" (t * 0.99) a (s.Over [ t, a; t, b ])
                  same "at a jump" t b (s.Over [ t, a; t, b ])
                  Verdict.equal "one time" a (s.Over [ t, a ]) ]
                |> Verdict.all)

    let ramps =
        let check (s: Subject) (share, key) =
            let draws = 20000
            let t, u = 0.2, 0.7

            let program =
                s.Over [ t, everywhere |> swap |> at 0; u, everywhere |> swap |> at 1 ]

            let info =
                { BatchInfo.ofShape 2 { Channels = 1; Height = 2; Width = 2 } with
                    Progress = t + share * (u - t) }

            let later =
                Seq.init draws (fun i -> (s.Draw (Key.child i key) info program).Draws)
                |> Seq.filter (fun drawn -> drawn.Head.Place = Number 1)
                |> Seq.length

            Chance.shares $"{share} of the way" [| 1.0 - share; share |] [| draws - later; later |]

        let cases =
            gen {
                let! share = Generators.fraction.Generator
                let! key = Generators.key.Generator
                return share, key
            }

        law
            "over training the later one comes in proportion"
            (Chance.kind 20000)
            6
            "at t + s (u - t), over [t, a; u, b] draws b with probability s"
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen cases) (check s)))

    let betweenNumbers =
        // All numbers here are eighths, and shares quarters, so that what lies between them is exact.
        let program (z: float) =
            Regularizer.sequence
                [ blocks 2 z |> blank |> at 0
                  cells z |> blend (always (1.0 - z / 2.0)) |> at 0
                  perSample (rect (always z) ||| ~~~(channels z)) |> swap |> atAny [ 0; 1 ]
                  perChannel (rect (beta (1.0 + z) 2)) &&& shared (cells z)
                  |> blendEach (beta 2 (1.0 + z))
                  |> at 1
                  Regularizer.sometimes z (everywhere |> swap |> at 1) ]

        let check (s: Subject) (x, y, share, key) =
            let info =
                { BatchInfo.ofShape 4 { Channels = 2; Height = 5; Width = 4 } with
                    Progress = share }

            let drawn = s.Draw key info (s.Over [ 0.0, program x; 1.0, program y ])
            let between = x + share * (y - x)

            Verdict.require (drawn = s.Draw key info (program between)) (fun () ->
                $"{share} of the way from {x} to {y}: the plan is not that of {between}.")

        let cases =
            gen {
                let! x = Gen.choose (1, 7)
                let! y = Gen.choose (1, 7) |> Gen.filter ((<>) x)
                let! quarters = Gen.choose (1, 3)
                let! key = Generators.key.Generator
                return float x / 8.0, float y / 8.0, float quarters / 4.0, key
            }

        law
            "over training numbers go in proportion"
            LawKind.Exact
            30
            ("s of the way, over [t, a x; u, a y] draws what a (x + s (y - x)) draws: fractions, areas, lambdas "
             + "and weights of choices")
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen cases) (check s)))

    let sites =
        structural
            "a step acts at its site"
            ("one draw at `at`, one of the places at `atAny`, each place once "
             + "and in order at `atAll`; no draw of a choice's other branches")
            (fun s trial ->
                trial.Regularizer
                |> Regularizer.steps
                |> Seq.map (fun step ->
                    let places =
                        (s.Draw trial.Key (Trial.info trial) (Do step)).Draws |> List.map _.Place

                    match step.Site with
                    | At place -> Verdict.equal "the places" [ place ] places
                    | AllOf all -> Verdict.equal "the places" all places
                    | AnyOf any ->
                        Verdict.require (places.Length = 1 && List.contains places.Head any) (fun () ->
                            $"{places} is not one of {any}."))
                |> Verdict.all)

    let freshAtEachSite =
        law
            "each site has draws of its own"
            LawKind.Exact
            60
            ("at `atAll` the masks, lambdas and partners of two places "
             + "are drawn apart: over 20 keys they are not always the same")
            (OfLibrary(fun s ->
                Law.forAll Generators.key (fun key ->
                    let info = BatchInfo.ofShape 6 { Channels = 2; Height = 6; Width = 6 }
                    let program = cells 0.5 |> blend uniform |> atAll [ 0; 1 ]

                    let pairs =
                        [ for i in 0..19 ->
                              match (s.Draw (Key.child i key) info program).Draws with
                              | [ a; b ] -> Some(a, b)
                              | _ -> None ]
                        |> List.choose id

                    let differ what (field: Drawn -> 'v) =
                        Verdict.require (pairs |> List.exists (fun (a, b) -> field a <> field b)) (fun () ->
                            $"the {what} of both sites are the same for 20 keys.")

                    [ differ "masks" _.Mask
                      differ "lambdas" _.Lambda
                      differ "partners" _.Partner ]
                    |> Verdict.all)))

    let shapeKept =
        exact
            "shape, type and device are kept"
            200
            "x' and y' have the size, element type and device of x and y"
            Generators.regularizer
            (fun s trial ->
                let batch = Trial.batch trial
                let mixed = s.Apply (Mixing.plan s trial) batch

                let describe (t: torch.Tensor) = Read.size t, t.dtype, t.device_type

                let sameKind what expected found =
                    Verdict.equal what (describe expected) (describe found)

                sameKind "the features" batch.Features mixed.Features
                :: [ for rows in Targets.tensors mixed.Targets -> sameKind "the targets" batch.Targets.Soft rows ]
                |> Verdict.all)

    let featuresAlone =
        exact
            "features alone are mixed the same way"
            100
            "applyFeatures p x has the bits of the features of apply p (x, y)"
            Generators.regularizer
            (fun s trial ->
                let batch = Trial.batch trial
                let plan = Mixing.plan s trial

                Verdict.equal
                    "the bits"
                    (Read.bytes (s.Apply plan batch).Features)
                    (Read.bytes (s.ApplyFeatures plan batch.Features)))

    let inputUntouched =
        exact
            "the input is untouched"
            200
            "x and y have the same bits after a plan was applied to them"
            Generators.regularizer
            (fun s trial ->
                let batch = Trial.batch trial
                let before = Read.batch batch
                s.Apply (Mixing.plan s trial) batch |> ignore
                Verdict.require (Read.batch batch = before) (fun () -> "the batch's bits have changed."))

    let batchOfOne =
        exact
            "a batch of one stays"
            100
            "with one sample every partner is itself: x' = x and y' = y, to rounding"
            (Generators.regularizer |> Generators.changed Mixing.labelled)
            (fun s trial ->
                let trial =
                    { Trial.tamed Mixing.labelled trial with
                        Count = 1 }

                let batch = Trial.batch trial
                let mixed = Mixing.mixed s trial

                [ Verdict.near
                      "the features"
                      (Mixing.rounding trial)
                      0.0
                      (Read.values batch.Features)
                      (Read.values mixed.Features)
                  Verdict.near "the targets" 1e-6 0.0 (Read.values batch.Targets.Soft) (Read.values mixed.Targets.Soft) ]
                |> Verdict.all)

    // ---- pairing ----

    let private pairings: Arbitrary<Trial> = Generators.trials Generators.oneStep

    let private pairing name statement check =
        law name LawKind.Exact 200 statement (OfLibrary(fun s -> Law.forAll pairings (check s)))

    let pairingsArePermutations =
        pairing
            "pairings are permutations"
            ("Self, Shuffled, Derangement, Rolled and SameClass map 0 .. N "
             + "- 1 onto itself; OtherClass maps into it; Blank maps nothing")
            (fun s trial ->
                [ Self
                  Shuffled
                  Derangement
                  Rolled 1
                  Rolled -3
                  SameClass
                  OtherClass
                  Blank ]
                |> Seq.map (fun partner ->
                    match partner, s.DrawPartner trial.Key (Trial.info trial) partner with
                    | Blank, found -> Verdict.equal "the map of Blank" None found
                    | OtherClass, Some map ->
                        Verdict.require
                            (map.Length = trial.Count
                             && map |> Array.forall (fun j -> j >= 0 && j < trial.Count))
                            (fun () -> $"%A{map} is no map of the batch.")
                    | _, Some map ->
                        Verdict.equal $"the sorted map of {partner}" [| 0 .. trial.Count - 1 |] (Array.sort map)
                    | _, None -> Verdict.Broken $"{partner} has no map.")
                |> Verdict.all)

    let pairingsMeanWhatTheySay =
        pairing
            "pairings are what they say"
            ("Self: i; Rolled k: i + k mod N; Derangement: not i if N > 1; SameClass: the same "
             + "class, and not i if there is another; OtherClass: another class if there is one")
            (fun s trial ->
                let labels = Trial.labels trial
                let n = trial.Count

                let each partner (expected: int -> int -> bool) =
                    match s.DrawPartner trial.Key (Trial.info trial) partner with
                    | None -> Verdict.Broken $"{partner} has no map."
                    | Some map ->
                        match map |> Array.indexed |> Array.tryFind (fun (i, j) -> not (expected i j)) with
                        | Some(i, j) -> Verdict.Broken $"{partner} pairs {i} with {j}; the labels are %A{labels}."
                        | None -> Verdict.Kept

                let others i holds =
                    Seq.exists (fun j -> j <> i && holds labels[j]) [ 0 .. n - 1 ]

                [ each Self (=)
                  each Derangement (fun i j -> i <> j || n = 1)
                  each SameClass (fun i j -> labels[i] = labels[j] && (i <> j || not (others i ((=) labels[i]))))
                  each OtherClass (fun i j -> labels[i] <> labels[j] || (i = j && not (others i ((<>) labels[i]))))
                  for by in [ 0; 1; 2; -1; -5; Int32.MaxValue; Int32.MinValue ] do
                      each (Rolled by) (fun i j -> int64 j = ((int64 i + int64 by) % int64 n + int64 n) % int64 n) ]
                |> Verdict.all)

    let uniformPairings =
        law
            "pairings are uniform"
            (Chance.kind draws)
            2
            ("Shuffled: 24 permutations of 4; Derangement: the 9 without "
             + "fixed points; OtherClass: each sample of another class")
            (OfLibrary(fun s ->
                Law.forAll Generators.key (fun key ->
                    let info =
                        { BatchInfo.ofShape 4 { Channels = 1; Height = 1; Width = 1 } with
                            Labels = Some [| 0; 1; 1; 2 |] }

                    let map partner i =
                        (s.DrawPartner (Key.child i key) info partner).Value

                    let outcomes partner =
                        Array.init draws (map partner) |> Array.countBy id |> Array.map snd

                    let uniform what kinds (counts: int[]) =
                        [ Verdict.equal $"the number of outcomes of {what}" kinds counts.Length
                          Chance.shares what (Array.create counts.Length (1.0 / float counts.Length)) counts ]
                        |> Verdict.all

                    [ outcomes Shuffled |> uniform "Shuffled" 24
                      outcomes Derangement |> uniform "Derangement" 9
                      // The first sample's partner is any of the others, the second's the first or the last.
                      Array.init draws (fun i -> (map OtherClass i)[0])
                      |> Array.countBy id
                      |> Array.map snd
                      |> uniform "OtherClass of the first" 3
                      Array.init draws (fun i -> (map OtherClass i)[1])
                      |> Array.countBy id
                      |> Array.map snd
                      |> uniform "OtherClass of the second" 2 ]
                    |> Verdict.all)))

    // ---- rescaling ----

    let private blanking kind =
        Generators.oneStep
        |> Generators.changed (fun step ->
            { step with
                Partner = Blank
                View = AsIs
                Rescale = kind })

    let rescaled =
        let check (s: Subject) (trial: Trial) =
            let trial =
                { trial with
                    Precision = Precision.Double
                    Wild = false }

            let ones = torch.ones (Trial.size trial, dtype = torch.float64)
            let batch = Batch.create ones (Trial.softTargets trial)
            let fraction = Region.fraction trial.Shape

            let ofStep (step: Step) =
                let of' kind =
                    let program =
                        Do
                            { step with
                                Rescale = kind
                                Site = At(Number 0) }

                    let mixed = s.Apply (Mixing.plan s { trial with Regularizer = program }) batch
                    Read.values (mixed.Features.reshape(int64 trial.Count, -1L).mean([| 1L |]))

                let kept = of' NoRescale
                let nominal = of' Rescale.Nominal
                let batchwise = of' Rescale.Batch
                let samplewise = of' Rescale.Sample
                let lost = fraction step.Region * (1.0 - Mix.mean step.Mix)
                let factor = if lost < 1.0 then 1.0 / (1.0 - lost) else 0.0
                let isNothing = Array.forall ((=) 0.0) kept
                let ones = kept |> Array.map (fun k -> if k = 0.0 then 0.0 else 1.0)

                // What is kept of 1 is rounded at 1e-16, and divided by how much is kept.
                let smallest = kept |> Array.filter (fun k -> k > 0.0) |> Array.fold min 1.0
                let slack = 1e-9 + 1e-14 / smallest

                [ Verdict.near "Nominal: means of ones" 1e-6 (slack * factor) (kept |> Array.map ((*) factor)) nominal
                  Verdict.near "Sample: means of ones" 1e-6 slack ones samplewise
                  Verdict.near
                      "Batch: the mean of ones"
                      1e-6
                      slack
                      [| if isNothing then 0.0 else 1.0 |]
                      [| Array.average batchwise |] ]
                |> Verdict.all

            Regularizer.steps trial.Regularizer
            |> Seq.filter (fun step -> step.Partner = Blank)
            |> Seq.map ofStep
            |> Verdict.all

        exact
            "rescaling keeps the mean of ones"
            150
            ("of features all 1, Batch keeps the batch's mean, Sample each "
             + "sample's; Nominal multiplies by 1 / (1 - expected altered fraction)")
            (blanking NoRescale)
            check

    let allDropped =
        exact
            "all dropped gives zeros"
            60
            "everywhere blanked x' = 0, not NaN, under every rescaling, for infinite features too"
            (blanking NoRescale)
            (fun s trial ->
                [ NoRescale; Rescale.Nominal; Rescale.Batch; Rescale.Sample ]
                |> Seq.map (fun kind ->
                    let program = everywhere |> blank |> rescale kind
                    let found = Mixing.mixed s { trial with Regularizer = program }
                    let values = Read.values found.Features

                    Verdict.equal
                        $"the number of features that are not 0 under {kind}"
                        0
                        (values |> Seq.filter ((<>) 0.0) |> Seq.length))
                |> Verdict.all)
        |> Law.ofLibrary

    let all =
        [ monoid
          certainty
          frequencies
          overTraining
          ramps
          betweenNumbers
          sites
          freshAtEachSite
          shapeKept
          featuresAlone
          inputUntouched
          batchOfOne
          pairingsArePermutations
          pairingsMeanWhatTheySay
          uniformPairings
          rescaled
          allDropped ]

/// How the published methods are related.
module RelationLaws =

    let private law name kind statement check =
        { About = "relations"
          Name = name
          Statement = statement
          Kind = kind
          Trials = (if kind = LawKind.Structural then 1 else 100)
          Check = check }

    let private structural name statement (verdict: (string -> Regularizer) -> Verdict) =
        law
            name
            LawKind.Structural
            statement
            (OfLibrary(fun s -> Law.forAll (Arb.fromGen (Gen.constant ())) (fun () -> verdict s.Method)))

    let private withStep change = Regularizer.map change

    /// The steps that a method may take, without their objectives.
    let private bareSteps regularizer =
        Regularizer.steps regularizer
        |> List.map (fun step ->
            { step with
                Objective = Objective.reweighted })

    let cutMix =
        structural
            "CutMix is a swapped rectangle at the input"
            "cutmix = rect (beta 1 1) |> swap |> at input, sometimes .4"
            (fun method' ->
                Verdict.equal "cutmix" (rect (beta 1 1) |> swap |> at input |> sometimes 0.4) (method' "cutmix"))

    let mixup =
        structural
            "Mixup is ManifoldMixup at the input"
            "manifold-mixup |> at input = mixup, with the same alpha"
            (fun method' ->
                let alpha1 (step: Step) =
                    { step with
                        Mix = Blend(Dist.beta 1.0 1.0) }

                Verdict.equal
                    "manifold-mixup at the input"
                    (method' "mixup")
                    (method' "manifold-mixup" |> at input |> withStep alpha1))

    let featureCutMix =
        structural
            "CutMix is FeatureCutMix at the input"
            "feature-cutmix |> at input = cutmix, without its probability"
            (fun method' ->
                Verdict.equal
                    "feature-cutmix at the input"
                    (bareSteps (method' "cutmix"))
                    (bareSteps (method' "feature-cutmix" |> at input)))

    let softPatchUp =
        structural
            "soft PatchUp with Everywhere is ManifoldMixup"
            ("soft-patchup's hidden step with Everywhere for its blocks = "
             + "manifold-mixup's step with its lambda and sites, up to the objective")
            (fun method' ->
                let hidden =
                    bareSteps (method' "soft-patchup")
                    |> List.filter (fun step -> step.Site <> At(Number 0))

                match hidden, bareSteps (method' "manifold-mixup") with
                | [ patchUp ], [ manifold ] ->
                    Verdict.equal
                        "the step"
                        { manifold with
                            Mix = patchUp.Mix
                            Site = patchUp.Site }
                        { patchUp with Region = Everywhere }
                | _ -> Verdict.Broken "soft-patchup has not one hidden step, or manifold-mixup not one step.")

    let hardPatchUp =
        structural
            "hard PatchUp is soft PatchUp swapped"
            ("the steps of hard-patchup = those of soft-patchup with lambda "
             + "= 0 and the fraction .5 for .75; at the input both are CutMix")
            (fun method' ->
                let swapped =
                    bareSteps (method' "soft-patchup")
                    |> List.map (fun step ->
                        { step with
                            Mix = Swap
                            Region =
                                match step.Region with
                                | Blocks(size, _, calibration) -> Blocks(size, 0.5, calibration)
                                | other -> other })

                [ Verdict.equal "the steps" swapped (bareSteps (method' "hard-patchup"))
                  Verdict.equal
                      "the input's step"
                      (bareSteps (method' "cutmix")
                       |> List.map (fun step -> { step with Region = Rect Uniform }))
                      (bareSteps (method' "hard-patchup")
                       |> List.filter (fun step -> step.Site = At(Number 0)))
                  Verdict.equal
                      "the objective"
                      [ Objective.twoTerm ]
                      (Regularizer.steps (method' "hard-patchup")
                       |> List.map _.Objective
                       |> List.distinct) ]
                |> Verdict.all)

    let cutout =
        structural
            "Cutout is a blank rectangle"
            "cutout = perSample (rect (always .25)) |> blank |> at input"
            (fun method' ->
                Verdict.equal "cutout" (perSample (rect (always 0.25)) |> blank |> at input) (method' "cutout"))

    let dropBlock =
        structural
            "DropBlock is blank blocks, rescaled"
            "dropblock = perSample (blocks 7 .1) |> blank |> rescale Batch at every site"
            (fun method' ->
                Verdict.equal
                    "dropblock"
                    (perSample (blocks 7 0.1)
                     |> blank
                     |> rescale Rescale.Batch
                     |> atAll [ 1; 2; 3; 4 ])
                    (method' "dropblock"))

    let fullBlocks =
        let check (s: Subject) (trial: Trial) =
            let mixedOn region =
                Mixing.mixed s (trial |> Trial.withSteps (fun step -> { step with Region = region }))

            let everywhere = mixedOn Everywhere

            [ Blocks(3, 1.0, Exact)
              Cells 1.0
              Channels 1.0
              Rect(Always 1.0) |> Not |> Not
              Not Nowhere ]
            |> Seq.map (fun region ->
                match region with
                // A rectangle of the whole area is clipped where its centre is not the map's.
                | Not(Not(Rect _)) when trial.Shape.Height * trial.Shape.Width > 1 -> Verdict.NotApplicable
                | _ -> Mixing.sameBits (Notation.showRegion region) everywhere (mixedOn region))
            |> Verdict.all

        law
            "a full region is Everywhere"
            LawKind.Exact
            ("blocks b 1, cells 1, channels 1 and ~~~nowhere mix as everywhere "
             + "does, bit for bit: soft PatchUp of all features is ManifoldMixup")
            (OfRegularizer(
                Generators.regularizer
                |> Generators.changed (fun step -> { step with View = AsIs }),
                check
            ))

    let all =
        [ cutMix
          mixup
          featureCutMix
          softPatchUp
          hardPatchUp
          cutout
          dropBlock
          fullBlocks ]

/// Laws of plans: drawn again, and drawn in parts.
module ReplayLaws =

    let private law name kind trials statement check =
        { About = "replay"
          Name = name
          Statement = statement
          Kind = kind
          Trials = trials
          Check = check }

    let private exact name trials statement check =
        law name LawKind.Exact trials statement (OfRegularizer(Generators.regularizer, check))

    let appliedTwice =
        exact "a plan applied twice gives the same bits" 150 "apply p b = apply p b, bit for bit" (fun s trial ->
            let plan = Mixing.plan s trial
            let batch = Trial.batch trial
            Mixing.sameBits "the second batch" (s.Apply plan batch) (s.Apply plan batch))

    let layout =
        exact
            "the features' layout in memory does not matter"
            300
            "apply p x = apply p x', bit for bit, where x' holds the numbers of x with axes N and C exchanged in memory; gradients to 1e-6"
            (fun s trial ->
                let plan = Mixing.plan s trial
                let batch = Trial.batch trial

                let mixed (arrange: torch.Tensor -> torch.Tensor) =
                    let features = batch.Features.detach().clone().requires_grad_(true)

                    let result =
                        s.Apply
                            plan
                            { batch with
                                Features = arrange features }

                    if result.Features.requires_grad then
                        result.Features.square().sum().backward()

                    result,
                    (if isNull features.grad then
                         Array.zeroCreate (int (features.numel ()))
                     else
                         Read.values features.grad)

                let plain, gradient = mixed id

                let exchanged, gradient' =
                    mixed (fun features -> features.transpose(0L, 1L).contiguous().transpose(0L, 1L))

                [ Mixing.sameBits "the batch" plain exchanged
                  Verdict.near "the gradient" 1e-6 1e-6 gradient gradient' ]
                |> Verdict.all)

    let drawnTwice =
        law
            "a plan drawn twice is the same"
            LawKind.Structural
            200
            "draw k i r = draw k i r with =, on another thread too"
            (OfRegularizer(
                Generators.regularizer,
                fun s trial ->
                    let plan = Mixing.plan s trial
                    let elsewhere = Task.Run(fun () -> Mixing.plan s trial)

                    [ Verdict.require (plan = Mixing.plan s trial) (fun () -> "the plan drawn again differs.")
                      Verdict.require (plan = elsewhere.Result) (fun () -> "the plan drawn on another thread differs.") ]
                    |> Verdict.all
            ))

    let fromText =
        law
            "a plan drawn from the program's text is the same"
            LawKind.Structural
            200
            "draw k i (parse (show r)) = draw k i r"
            (OfRegularizer(
                Generators.regularizer,
                fun s trial ->
                    match s.Parse(s.Show trial.Regularizer) with
                    | Error e -> Verdict.Broken $"{e}"
                    | Ok read ->
                        Verdict.require
                            (Mixing.plan s trial = Mixing.plan s { trial with Regularizer = read })
                            (fun () -> "the plan differs.")
            ))

    /// The part of a plan that is drawn for each sample, cut to some samples.
    let private perSampleLeaves =
        Generators.oneStep
        |> Generators.changed (fun step ->
            { step with
                Region = PerSample step.Region
                Mix =
                    (match step.Mix with
                     | Blend lambda -> BlendEach lambda
                     | other -> other)
                Rescale = NoRescale })

    /// The program on its own: custom regions may follow the partner's input, and partners are per batch.
    let private pairedWithItself (regularizer: Regularizer) =
        regularizer
        |> Regularizer.map (fun step ->
            { step with
                Partner = (if step.Partner = Blank then Blank else Self) })

    /// The place, the kept weights and the lambda of sample i of a plan's draws.
    let private sample (shape: Shape) (plan: Plan) i =
        plan.Draws
        |> List.map (fun drawn ->
            drawn.Place,
            MaskValues.spread plan.Count shape drawn.Mask
            |> Array.chunkBySize (shape.Channels * shape.Height * shape.Width)
            |> Array.item i,
            drawn.Lambda[i % drawn.Lambda.Length])

    let batchesCut =
        let check (s: Subject) (trial: Trial) =
            let drawn first count =
                let info =
                    Trial.info
                        { trial with
                            First = first
                            Count = count }

                s.Draw trial.Key info (pairedWithItself trial.Regularizer)

            let sample = sample trial.Shape

            let isPerSample step =
                match step.Region, step.Mix, step.Site with
                | PerSample _, (Swap | BlendEach _), At _ -> true
                | _ -> false

            match trial.Regularizer with
            | Do step when isPerSample step ->
                let whole = drawn trial.First trial.Count
                let cut = trial.Count / 2

                [ for i in 0 .. trial.Count - 1 do
                      let first, count = if i < cut then 0, cut else cut, trial.Count - cut
                      let part = drawn (trial.First + first) count
                      Verdict.equal $"the draws of sample {i}" (sample whole i) (sample part (i - first)) ]
                |> Verdict.all
            | _ -> Verdict.NotApplicable

        law
            "per-sample draws do not depend on the batch size"
            LawKind.Exact
            200
            "the region and lambda of sample First + i are the same in one batch of N and in two parts of it"
            (OfRegularizer(perSampleLeaves, check))

    let parts =
        let check (s: Subject) (trial: Trial) =
            let info = Trial.info trial
            let draw = s.Draw trial.Key
            let whole = draw info trial.Regularizer
            let alone = pairedWithItself trial.Regularizer
            let wholeAlone = draw info alone
            let sample = sample trial.Shape

            let cuts =
                [ for size in 1 .. trial.Count do
                      for offset in 0..size .. trial.Count - 1 -> offset, min size (trial.Count - offset) ]

            [ for offset, count in cuts do
                  let part = draw (s.Part offset count info) trial.Regularizer
                  let partAlone = draw (s.Part offset count info) alone
                  let what = $"of samples {offset} .. {offset + count - 1}"

                  if count = trial.Count then
                      Verdict.require (part = whole) (fun () -> "a part that is the whole is drawn otherwise.")

                  Verdict.equal $"the number of draws {what}" whole.Draws.Length part.Draws.Length

                  for i in 0 .. count - 1 do
                      Verdict.equal
                          $"the draws {what} for sample {offset + i}"
                          (sample wholeAlone (offset + i))
                          (sample partAlone i)

                  Verdict.require
                      (part.Draws
                       |> List.forall (fun drawn ->
                           drawn.Partner |> Option.forall (Array.forall (fun j -> j >= 0 && j < count))))
                      (fun () -> $"a partner {what} is none of these.") ]
            |> Verdict.all

        law
            "parts of a batch draw what the whole draws"
            LawKind.Exact
            100
            ("for micro-batches and ranks: sites, choices, masks and lambdas of each sample are those of the whole batch, "
             + "partners are within the part, and the whole is a part of itself")
            (OfRegularizer(Generators.regularizer, check))

    let fresh =
        law
            "another key, batch or part draws afresh"
            LawKind.Exact
            60
            ("over 20 keys, and over 20 batches of one epoch, masks, lambdas, partners, sites and choices are not always the "
             + "same; over 20 parts of one batch, partners are not")
            (OfLibrary(fun s ->
                let cases =
                    Arb.fromGen (Gen.zip Generators.key.Generator (Gen.elements [ id; PerSample ]))

                Law.forAll cases (fun (key, granularity) ->
                    let info = BatchInfo.ofShape 6 { Channels = 2; Height = 6; Width = 6 }

                    let program =
                        oneOf
                            [ 1, granularity (cells 0.5) |> blend uniform |> atAny [ 0; 1 ]
                              1, granularity (rect uniform) |> blendEach uniform |> atAny [ 2; 3 ] ]

                    let differ what (draw: int -> Plan) =
                        let plans = List.init 20 draw

                        let field name (of': Drawn -> 'v) =
                            let kinds =
                                plans |> List.collect (fun plan -> plan.Draws |> List.map of') |> List.distinct

                            Verdict.require (kinds.Length > 1) (fun () -> $"over 20 {what} every {name} is the same.")

                        [ field "mask" _.Mask
                          field "lambda" _.Lambda
                          field "partner" _.Partner
                          Verdict.require
                              (plans |> List.distinctBy (fun plan -> plan.Draws.Head.Place) |> List.length > 2)
                              (fun () -> $"over 20 {what} a choice of branch or of site is always the same.") ]

                    let partners =
                        [ for i in 0..19 ->
                              let plan = s.Draw key (s.Part (6 * i) 6 { info with Count = 120 }) program
                              plan.Draws.Head.Partner ]

                    [ differ "keys" (fun i -> s.Draw (Key.child i key) info program)
                      differ "batches" (fun i -> s.Draw key { info with First = 6 * i } program)
                      [ Verdict.require ((List.distinct partners).Length > 1) (fun () ->
                            "over 20 parts of a batch every partner is the same.") ] ]
                    |> Seq.concat
                    |> Verdict.all)))

    let all = [ appliedTwice; layout; drawnTwice; fromText; batchesCut; parts; fresh ]

/// Laws of regularizers as text.
module NotationLaws =

    let private law name trials statement check =
        { About = "notation"
          Name = name
          Statement = statement
          Kind = LawKind.Structural
          Trials = trials
          Check = check }

    let roundTrip =
        law
            "parse reads what show writes"
            500
            "parse (show r) = Ok r, and show r is one line"
            (OfRegularizer(
                Generators.regularizer,
                fun s trial ->
                    let text = s.Show trial.Regularizer

                    [ Verdict.require (not (text.Contains '\n')) (fun () -> "the text has a line break.")
                      match s.Parse text with
                      | Ok read ->
                          Verdict.require (read = trial.Regularizer) (fun () -> $"'{text}' reads as '{s.Show read}'.")
                      | Error e -> Verdict.Broken $"'{text}' does not parse: {e}." ]
                    |> Verdict.all
            ))

    /// Texts near to good ones: letters and words dropped, doubled, exchanged; and bare noise.
    let private damaged: Gen<string> =
        let pieces =
            [ "("
              ")"
              "["
              "]"
              "|>"
              "&&&"
              "|||"
              "~~~"
              ","
              ";"
              "\""
              "-"
              "1e999"
              "NaN"
              "0.5"
              "-3"
              "7"
              "blocks"
              "oneOf"
              "sequence" ]
            @ [ "at"
                "after"
                "beta"
                "always"
                "sometimes"
                "terms"
                "pairedBy"
                "rescale"
                "stripes"
                "fog"
                "\t"
                "\n"
                "é"
                "\000"
                "𝛌"
                "." ]

        gen {
            let! program = Generators.regularizer.Generator
            let text = Notation.show program
            let! at = Gen.choose (0, text.Length)
            let! length = Gen.choose (0, 12)
            let cut = min text.Length (at + length)
            let! piece = Gen.elements pieces
            let! noise = Gen.listOf (Gen.elements pieces)

            return!
                Gen.elements
                    [ text[.. at - 1] + text[cut..]
                      text[.. at - 1] + piece + text[at..]
                      text[.. at - 1] + piece + text[cut..]
                      text[.. at - 1]
                      text[at..]
                      text[.. cut - 1] + text[at..]
                      String.Join(' ', noise)
                      String.Join("", noise) ]
        }

    let junk =
        law
            "junk gives an error, never an exception"
            2000
            ("parse of any text is Ok r, where parse (show r) = Ok r, "
             + "or an error whose position lies in the text or at its end")
            (OfLibrary(fun s ->
                Law.forAll (Arb.fromGen damaged) (fun text ->
                    match s.Parse text with
                    | Ok read ->
                        Verdict.require (s.Parse(s.Show read) = Ok read) (fun () ->
                            $"'{text}' was read, and what it shows is not read back.")
                    | Error e ->
                        Verdict.require
                            (e.Position >= 1 && e.Position <= text.Length + 1 && e.Message <> "")
                            (fun () -> $"the error at {e.Position} of '{text}' lies outside it, or says nothing."))))

    let all = [ roundTrip; junk ]
