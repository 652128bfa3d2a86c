namespace PatchUp.Functional.Laws

open System
open System.Globalization
open FsCheck
open FsCheck.FSharp
open TorchSharp
open PatchUp.Functional

/// The operations under test. Laws speak of these only, so that a broken variant of one of them can be put in its
/// place.
[<NoEquality; NoComparison>]
type Subject =
    {
        // ---- randomness ----
        Child: int -> Key -> Key
        /// The first n words of a key's sequence.
        Words: int -> Key -> uint64[]
        /// The first n numbers of [0, 1).
        Floats: int -> Key -> float[]
        /// The first n standard normal numbers.
        Normals: int -> Key -> float[]
        /// The first n numbers of 0 .. bound - 1: bound, n, key.
        Below: int -> int -> Key -> int[]
        Permutation: int -> Key -> int[]
        /// The first n numbers of a distribution.
        Sample: int -> Dist -> Key -> float[]
        Cdf: Dist -> float -> float
        Mean: Dist -> float
        // ---- drawing ----
        DrawRegion: Key -> BatchInfo -> Shape -> Region -> Mask
        Expected: Shape -> Region -> float[,]
        Unchanged: Mask -> float[]
        DrawPartner: Key -> BatchInfo -> Partner -> int[] option
        DrawMix: Key -> BatchInfo -> Mix -> float[]
        /// What is known of a part of a batch: offset, count, whole.
        Part: int -> int -> BatchInfo -> BatchInfo
        Draw: Key -> BatchInfo -> Regularizer -> Plan
        // ---- tensors ----
        Blend: Weight -> torch.Tensor -> torch.Tensor -> torch.Tensor
        Apply: Plan -> Batch -> Batch
        ApplyFeatures: Plan -> torch.Tensor -> torch.Tensor
        /// None where pixels' labels are not mixed at all.
        ApplyMaps: (Plan -> torch.Tensor -> torch.Tensor) option
        /// One-hot targets: classes, labels.
        OfIndices: int -> int[] -> Targets
        Smooth: float -> Targets -> Targets
        /// Each sample's loss from logits and soft targets.
        PerSample: Loss -> torch.Tensor -> torch.Tensor -> torch.Tensor
        Loss: Loss -> Targets -> torch.Tensor -> torch.Tensor
        ExpectedAccuracy: Targets -> torch.Tensor -> float[]
        Forward: Plan -> Staged -> Batch -> Batch
        Shapes: Staged -> torch.Tensor -> Place -> Shape option
        Hooked: Plan -> Hooked -> Batch -> Batch
        HookedShapes: Hooked -> torch.Tensor -> Place -> Shape option
        // ---- programs ----
        Sequence: Regularizer list -> Regularizer
        OneOf: (float * Regularizer) list -> Regularizer
        Sometimes: float -> Regularizer -> Regularizer
        Over: (float * Regularizer) list -> Regularizer
        /// A method of the catalogue.
        Method: string -> Regularizer
        Show: Regularizer -> string
        Parse: string -> Result<Regularizer, NotationError>
    }

[<RequireQualifiedAccess>]
module Subject =

    let private read (next: Stream -> 'v) n key =
        let bits = Key.stream key
        Array.init n (fun _ -> next bits)

    /// The library's own operations.
    let core: Subject =
        { Child = Key.child
          Words = read _.Bits()
          Floats = read _.Float()
          Normals = read _.Normal()
          Below = fun bound -> read _.Below(bound)
          Permutation = Key.permutation
          Sample = fun n dist -> read (fun bits -> Dist.sample bits dist) n
          Cdf = Dist.cdf
          Mean = Dist.mean
          DrawRegion = Region.draw
          Expected = Region.expected
          Unchanged = Mask.unchanged
          DrawPartner = Partner.draw
          DrawMix = Mix.draw
          Part = BatchInfo.part
          Draw = Plan.draw
          Blend = Blend.blend
          Apply = Plan.apply
          ApplyFeatures = Plan.applyFeatures
          ApplyMaps = Some Plan.applyMaps
          OfIndices = Targets.ofIndices torch.CPU
          Smooth = Targets.smooth
          PerSample = Loss.perSample
          Loss = Loss.ofBatch
          ExpectedAccuracy = Loss.expectedAccuracy
          Forward = Attach.forward
          Shapes = Attach.shapes
          Hooked = Hooks.forward
          HookedShapes = Hooks.shapes
          Sequence = Regularizer.sequence
          OneOf = Regularizer.oneOf
          Sometimes = Regularizer.sometimes
          Over = Regularizer.over
          Method =
            fun name ->
                match Catalogue.tryFind name with
                | Some method' -> method'.Regularizer
                | None -> invalidArg (nameof name) $"The catalogue has no method {name}."
          Show = Notation.show
          Parse = Notation.parseWith Generators.vocabulary }

    /// A mixing function of one's own in the place of `Plan.apply`, in a network's forward pass too.
    let mixing (apply: Plan -> Batch -> Batch) : Subject =
        let features (plan: Plan) (features: torch.Tensor) =
            Scope.run (fun () ->
                let targets = Targets.ofSoft (torch.zeros (features.shape[0], 1L))
                (apply plan (Batch.create features targets)).Features)

        { core with
            Apply = apply
            ApplyFeatures = features
            ApplyMaps = None
            Forward = Attach.forwardWith apply
            Hooked = Hooks.forwardWith apply }

/// How strictly a law holds.
[<RequireQualifiedAccess>]
type LawKind =
    /// For every key and every value, to the rounding that the law's statement names.
    | Exact
    /// By structural equality, with no tensor.
    | Structural
    /// Of frequencies: within the tolerance, but for a chance of at most `falseAlarm` for each comparison (Hoeffding's
    /// bound, or Dvoretzky, Kiefer and Wolfowitz's, whose constant is Massart's).
    | Statistical of tolerance: float * falseAlarm: float

/// What a law says of one case.
[<RequireQualifiedAccess>]
type Verdict =
    | Kept
    /// The law does not speak of this case.
    | NotApplicable
    | Broken of reason: string

[<RequireQualifiedAccess>]
module Verdict =

    /// Kept if the condition holds.
    let require (condition: bool) (reason: unit -> string) : Verdict =
        if condition then
            Verdict.Kept
        else
            Verdict.Broken(reason ())

    /// Kept if both are equal.
    let equal (what: string) (expected: 'v) (found: 'v) : Verdict =
        require (expected = found) (fun () -> $"{what}: {found} where {expected} was expected.")

    /// Kept if the numbers are within `tolerance * max(|a|, |b|) + floor`, place by place; infinities and NaN must be
    /// the same.
    let near (what: string) (tolerance: float) (floor: float) (expected: float[]) (found: float[]) : Verdict =
        let isNear (a: float) (b: float) =
            a = b
            || (Double.IsNaN a && Double.IsNaN b)
            || (Double.IsFinite a
                && Double.IsFinite b
                && abs (a - b) <= tolerance * max (abs a) (abs b) + floor)

        if expected.Length <> found.Length then
            Verdict.Broken $"{what}: {found.Length} numbers where {expected.Length} were expected."
        else
            match Array.zip expected found |> Array.tryFindIndex (fun (a, b) -> not (isNear a b)) with
            | Some i -> Verdict.Broken $"{what}: {found[i]:G9} at index {i} where {expected[i]:G9} was expected."
            | None -> Verdict.Kept

    /// The first broken one, else kept if any is.
    let all (verdicts: Verdict seq) : Verdict =
        let combine kept verdict =
            match kept, verdict with
            | Verdict.Broken _, _ -> kept
            | _, Verdict.Broken _ -> verdict
            | Verdict.Kept, _
            | _, Verdict.Kept -> Verdict.Kept
            | _ -> Verdict.NotApplicable

        use each = verdicts.GetEnumerator()

        let rec go kept =
            match kept with
            | Verdict.Broken _ -> kept
            | _ ->
                if each.MoveNext() then
                    go (combine kept each.Current)
                else
                    kept

        go Verdict.NotApplicable

/// What a law is checked on.
[<NoEquality; NoComparison>]
type Check =
    /// The library's primitives: the law generates what it needs.
    | OfLibrary of (Subject -> Property)
    /// Any distribution: those over which the law is checked by default, and the law.
    | OfDist of Arbitrary<Dist> * (Subject -> DistTrial -> Verdict)
    /// Any region: the regions over which the law is checked by default, and the law.
    | OfRegion of Arbitrary<Region> * (Subject -> RegionTrial -> Verdict)
    /// Any loss: the losses over which the law is checked by default, and the law.
    | OfLoss of Arbitrary<Loss> * (Subject -> LossTrial -> Verdict)
    /// Any regularizer: the programs over which the law is checked by default, and the law.
    | OfRegularizer of Arbitrary<Regularizer> * (Subject -> Trial -> Verdict)

/// A law of mixing.
[<NoEquality; NoComparison>]
type Law =
    {
        /// The row of the law table.
        About: string
        /// Unique.
        Name: string
        /// In words, with its equation.
        Statement: string
        Kind: LawKind
        /// How many cases are generated.
        Trials: int
        Check: Check
    }

/// A case that breaks a law, made as small as it can be.
type Counterexample =
    {
        /// Why it is one.
        Reason: string
        /// The program, the region, the distribution or the loss, as one would write it.
        Program: string option
        /// What it is drawn from.
        Key: Key option
        /// The rest of the case.
        Case: string
        /// Whether an exception is the reason.
        Raised: bool
        /// The generator's seed.
        Seed: uint64
    }

    override this.ToString() =
        let line name text = $"{name, -8} {text}"

        [ Some(line "why" this.Reason)
          this.Program |> Option.map (line "program")
          this.Key |> Option.map (fun key -> line "key" $"{{ State = {key.State}UL }}")
          Some(line "case" this.Case) ]
        |> List.choose id
        |> String.concat "\n"

/// What came of checking a law.
[<RequireQualifiedAccess>]
type Outcome =
    /// The cases generated, and those among them of which the law speaks.
    | Passed of trials: int * applicable: int
    | Failed of Counterexample

/// What the checker may be told.
[<NoEquality; NoComparison>]
type CheckOptions =
    {
        /// The generator's seeds; every law is checked with each of them.
        Seeds: uint64 list
        /// Whether a counterexample is made small.
        Shrink: bool
        /// The share of each law's own number of cases; at least one case is generated.
        Effort: float
        /// The features' shapes; small ones of all proportions are generated where there are none.
        Shapes: Shape list
        /// The features' types; all where there are none.
        Precisions: Precision list
        /// Told of each law's verdict as soon as there is one.
        Progress: Law -> Outcome -> unit
    }

[<RequireQualifiedAccess>]
module Law =

    /// Always the same cases, as many as each law says; counterexamples are made small.
    let defaults: CheckOptions =
        { Seeds = [ 20260101UL ]
          Shrink = true
          Effort = 1.0
          Shapes = []
          Precisions = []
          Progress = fun _ _ -> () }

    /// How many cases are generated for each seed.
    let trials (options: CheckOptions) (law: Law) : int =
        max 1 (int (ceil (options.Effort * float law.Trials)))

    /// The chance that a true law is called broken: over all cases and all comparisons in each, of which there are at
    /// most one for each place of a map and one for their mean, or 150 for the generated shapes. 0 unless the law is
    /// statistical.
    let falseAlarm (options: CheckOptions) (law: Law) : float =
        match law.Kind with
        | LawKind.Exact
        | LawKind.Structural -> 0.0
        | LawKind.Statistical(_, chance) ->
            let comparisons =
                options.Shapes
                |> List.map (fun shape -> shape.Height * shape.Width + 1)
                |> List.fold max 150

            float (options.Seeds.Length * trials options law * comparisons) * chance

    /// The mark of a reason that is an exception.
    let private raised = "it raised "

    let private judged (applicable: int ref) (check: 'case -> Verdict) (case: 'case) : Property =
        let verdict =
            try
                Scope.value (fun () -> check case)
            with e ->
                let cause = e.GetBaseException()
                Verdict.Broken $"{raised}{cause.GetType().Name}: {cause.Message}"

        match verdict with
        | Verdict.Kept ->
            applicable.Value <- applicable.Value + 1
            Prop.ofTestable true
        | Verdict.NotApplicable -> Prop.ofTestable true
        | Verdict.Broken reason -> false |> Prop.label reason

    /// The property that one verdict a case makes, for laws that generate their own cases.
    let forAll (cases: Arbitrary<'case>) (check: 'case -> Verdict) : Property =
        Prop.forAll cases (judged (ref 0) check)

    /// The law as one of the library: it generates its own programs, and says nothing of one that is given.
    let ofLibrary (law: Law) : Law =
        match law.Check with
        | OfRegularizer(programs, check) ->
            { law with
                Check = OfLibrary(fun s -> forAll (Generators.trials programs) (check s)) }
        | _ -> law

    /// A loss as one would write it in F#.
    let rec showLoss (loss: Loss) =
        match loss with
        | Smoothed(amount, loss) -> $"Smoothed({amount}, {showLoss loss})"
        | CustomLoss custom -> custom.Name
        | _ -> $"{loss}"

    let private counterexample seed (reason: string) (case: obj list) =
        let program, key =
            match case with
            | [ :? Trial as trial ] -> Some(Notation.show trial.Regularizer), Some trial.Key
            | [ :? RegionTrial as trial ] -> Some(Notation.showRegion trial.Region), Some trial.Key
            | [ :? DistTrial as trial ] -> Some(Notation.showDist trial.Dist), Some trial.Key
            | [ :? LossTrial as trial ] -> Some(showLoss trial.Loss), None
            | _ -> None, None

        { Reason = reason
          Program = program
          Key = key
          Case = String.Join(", ", case |> List.map string)
          Raised = reason.StartsWith(raised, StringComparison.Ordinal)
          Seed = seed }

    /// Runs a property with one seed; the outcome instead of an exception.
    let private runOnce options (law: Law) (applicable: int ref option) (property: Property) (seed: uint64) : Outcome =
        let mutable outcome = None
        applicable |> Option.iter (fun count -> count.Value <- 0)

        let runner =
            { new IRunner with
                member _.OnStartFixture _ = ()
                member _.OnArguments(_, _, _) = ()
                member _.OnShrink(_, _) = ()

                member _.OnFinished(_, result) =
                    outcome <-
                        match result with
                        | TestResult.Passed(data, _) ->
                            let applicable =
                                applicable |> Option.map _.Value |> Option.defaultValue data.NumberOfTests

                            Some(Outcome.Passed(data.NumberOfTests, applicable))
                        | TestResult.Failed(data, _, shrunk, reason, _, _, _) ->
                            let why =
                                match reason with
                                | FsCheck.Outcome.Failed e when data.Labels.IsEmpty ->
                                    $"{raised}{e.GetType().Name}: {e.Message}"
                                | _ -> String.Join("; ", data.Labels)

                            Some(Outcome.Failed(counterexample seed why shrunk))
                        | TestResult.Exhausted data -> Some(Outcome.Passed(data.NumberOfTests, 0)) }

        let config =
            Config.Quick
                .WithMaxTest(trials options law)
                .WithRunner(runner)
                .WithReplay(Some { Rnd = Rnd seed; Size = None })

        Check.One(law.Name, config, property)
        outcome.Value

    /// Runs a property with every seed, up to the first failure.
    let private run options (law: Law) applicable property : Outcome =
        if options.Seeds.IsEmpty then
            invalidArg (nameof options) "There are no seeds; at least one is needed, or nothing would be checked."

        if not (options.Effort > 0.0 && Double.IsFinite options.Effort) then
            invalidArg (nameof options) $"The effort is {options.Effort}; it must be positive and finite."

        let both before seed =
            match before with
            | Outcome.Failed _ -> before
            | Outcome.Passed(trials, applies) ->
                match runOnce options law applicable property seed with
                | Outcome.Passed(more, applicable) -> Outcome.Passed(trials + more, applies + applicable)
                | failed -> failed

        List.fold both (Outcome.Passed(0, 0)) options.Seeds

    let private over options law (check: 'case -> Verdict) (cases: Arbitrary<'case>) : Outcome =
        let applicable = ref 0

        let cases =
            if options.Shrink then
                cases
            else
                Arb.fromGen cases.Generator

        run options law (Some applicable) (Prop.forAll cases (judged applicable check))

    let private regionTrials options =
        Generators.regionTrialsOn (
            if options.Shapes.IsEmpty then
                Generators.shape
            else
                Generators.oneOf options.Shapes
        )

    let private programTrials options =
        Generators.trialsOn
            (if options.Shapes.IsEmpty then
                 Generators.shape
             else
                 Generators.oneOf options.Shapes)
            (if options.Precisions.IsEmpty then
                 Generators.precision
             else
                 Generators.oneOf options.Precisions)

    /// Checks a law over generated cases.
    let check (options: CheckOptions) (subject: Subject) (law: Law) : Outcome =
        match law.Check with
        | OfLibrary property -> run options law None (property subject)
        | OfDist(dists, check) -> Generators.distTrials dists |> over options law (check subject)
        | OfRegion(regions, check) -> regionTrials options regions |> over options law (check subject)
        | OfLoss(losses, check) -> Generators.lossTrials losses |> over options law (check subject)
        | OfRegularizer(programs, check) -> programTrials options programs |> over options law (check subject)

    /// One of these at first; a counterexample shrinks as generated ones do.
    let private given (values: 'v list) (like: Arbitrary<'v>) : Arbitrary<'v> =
        Arb.fromGenShrink (Gen.elements values, like.Shrinker)

    /// Checks a law on one regularizer in generated trials: in each on one of its regions or distributions, at random, if it is a law
    /// of these. The notation knows the regularizer's customs. None if the law speaks of none of these.
    let checkOn (options: CheckOptions) (subject: Subject) (regularizer: Regularizer) (law: Law) : Outcome option =
        let subject =
            { subject with
                Parse = Notation.parseWith (Generators.vocabularyOf regularizer) }

        match law.Check with
        | OfLibrary _
        | OfLoss _ -> None
        | OfDist(_, check) ->
            match Generators.distsOf regularizer with
            | [] -> None
            | dists ->
                Generators.distTrials (given dists Generators.dist)
                |> over options law (check subject)
                |> Some
        | OfRegion(_, check) ->
            match Regularizer.steps regularizer |> List.map _.Region |> List.distinct with
            | [] -> None
            | regions ->
                regionTrials options (given regions Generators.region)
                |> over options law (check subject)
                |> Some
        | OfRegularizer(_, check) ->
            programTrials options (given [ regularizer ] Generators.regularizer)
            |> over options law (check subject)
            |> Some

    /// Checks a law on one loss; None if it does not speak of losses.
    let checkLoss (options: CheckOptions) (subject: Subject) (loss: Loss) (law: Law) : Outcome option =
        match law.Check with
        | OfLoss(_, check) ->
            Generators.lossTrials (given [ loss ] Generators.loss)
            |> over options law (check subject)
            |> Some
        | _ -> None

    /// A small chance as text, rounded up, so that what is said to lie below it does: 5E-8.
    let showChance (chance: float) : string =
        let unit = 10.0 ** floor (log10 chance)
        (ceil (chance / unit - 1e-9) * unit).ToString("0E+0", CultureInfo.InvariantCulture)

    /// A law with its verdict, its tolerance and the chance of a false alarm if it is statistical; where it is broken also
    /// its statement, and the counterexample.
    let show (options: CheckOptions) (law: Law) (outcome: Outcome) : string =
        let head verdict =
            $"{verdict, -7} {law.About, -11} {law.Name}"

        match outcome with
        | Outcome.Passed(_, 0) -> head "silent"
        | Outcome.Passed(_, applicable) ->
            let within =
                match law.Kind with
                | LawKind.Statistical(tolerance, _) ->
                    $", within {tolerance:F4}, false alarm below {showChance (falseAlarm options law)}"
                | _ -> ""

            $"""{head "kept"} ({applicable} cases{within})"""
        | Outcome.Failed counterexample ->
            [ head "BROKEN"
              $"""        {"law", -8} {law.Statement}"""
              for line in (string counterexample).Split '\n' do
                  $"        {line}" ]
            |> String.concat "\n"
