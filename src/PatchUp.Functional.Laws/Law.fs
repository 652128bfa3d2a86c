namespace PatchUp.Functional.Laws

open System
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
        // ---- drawing ----
        DrawRegion: Key -> BatchInfo -> Shape -> Region -> Mask
        Expected: Shape -> Region -> float[,]
        Unchanged: Mask -> float[]
        DrawPartner: Key -> BatchInfo -> Partner -> int[] option
        DrawMix: Key -> BatchInfo -> Mix -> float[]
        Draw: Key -> BatchInfo -> Regularizer -> Plan
        // ---- tensors ----
        Blend: Weight -> torch.Tensor -> torch.Tensor -> torch.Tensor
        Apply: Plan -> Batch -> Batch
        /// One-hot targets: classes, labels.
        OfIndices: int -> int[] -> Targets
        Smooth: float -> Targets -> Targets
        Loss: Loss -> Targets -> torch.Tensor -> torch.Tensor
        Forward: Plan -> Staged -> Batch -> Batch
        Shapes: Staged -> torch.Tensor -> Place -> Shape option
        // ---- programs ----
        Sequence: Regularizer list -> Regularizer
        OneOf: (float * Regularizer) list -> Regularizer
        Sometimes: float -> Regularizer -> Regularizer
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
          DrawRegion = Region.draw
          Expected = Region.expected
          Unchanged = Mask.unchanged
          DrawPartner = Partner.draw
          DrawMix = Mix.draw
          Draw = Plan.draw
          Blend = Blend.blend
          Apply = Plan.apply
          OfIndices = Targets.ofIndices torch.CPU
          Smooth = Targets.smooth
          Loss = Loss.ofBatch
          Forward = Attach.forward
          Shapes = Attach.shapes
          Sequence = Regularizer.sequence
          OneOf = Regularizer.oneOf
          Sometimes = Regularizer.sometimes
          Method =
            fun name ->
                match Catalogue.tryFind name with
                | Some method' -> method'.Regularizer
                | None -> invalidArg (nameof name) $"The catalogue has no method {name}."
          Show = Notation.show
          Parse = Notation.parseWith Generators.vocabulary }

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
            || abs (a - b) <= tolerance * max (abs a) (abs b) + floor

        if expected.Length <> found.Length then
            Verdict.Broken $"{what}: {found.Length} numbers where {expected.Length} were expected."
        else
            match Array.zip expected found |> Array.tryFindIndex (fun (a, b) -> not (isNear a b)) with
            | Some i -> Verdict.Broken $"{what}: {found[i]} at index {i} where {expected[i]} was expected."
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
    /// Any region: the regions over which the law is checked by default, and the law.
    | OfRegion of Arbitrary<Region> * (Subject -> RegionTrial -> Verdict)
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

/// What came of checking a law.
[<RequireQualifiedAccess>]
type Outcome =
    /// The cases generated, and those among them of which the law speaks.
    | Passed of trials: int * applicable: int
    /// The shrunk counterexample, why it is one, whether an exception was the reason, and the generator's seed.
    | Failed of counterexample: string * reason: string * raised: bool * seed: uint64

/// What the checker may be told.
type CheckOptions =
    {
        /// The generator's seed.
        Seed: uint64
        /// Whether a counterexample is made small.
        Shrink: bool
    }

[<RequireQualifiedAccess>]
module Law =

    /// Always the same cases; counterexamples are shrunk.
    let defaults: CheckOptions = { Seed = 20260101UL; Shrink = true }

    /// The mark of a reason that is an exception.
    let private raised = "it raised "

    let private judged (applicable: int ref) (check: 'case -> Verdict) (case: 'case) : Property =
        let verdict =
            try
                Scope.value (fun () -> check case)
            with e ->
                Verdict.Broken $"{raised}{e.GetType().Name}: {e.Message}"

        match verdict with
        | Verdict.Kept ->
            applicable.Value <- applicable.Value + 1
            Prop.ofTestable true
        | Verdict.NotApplicable -> Prop.ofTestable true
        | Verdict.Broken reason -> false |> Prop.label reason

    /// The property that one verdict a case makes, for laws that generate their own cases.
    let forAll (cases: Arbitrary<'case>) (check: 'case -> Verdict) : Property =
        Prop.forAll cases (judged (ref 0) check)

    let private unshrunk options (cases: Arbitrary<'case>) =
        if options.Shrink then
            cases
        else
            Arb.fromGen cases.Generator

    /// Runs a property; the outcome instead of an exception.
    let private run options (law: Law) (applicable: int ref option) (property: Property) : Outcome =
        let mutable outcome = None

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

                            let counterexample = String.Join(", ", shrunk |> List.map string)
                            Some(Outcome.Failed(counterexample, why, why.StartsWith raised, options.Seed))
                        | TestResult.Exhausted data -> Some(Outcome.Passed(data.NumberOfTests, 0)) }

        let config =
            Config.Quick
                .WithMaxTest(law.Trials)
                .WithRunner(runner)
                .WithReplay(Some { Rnd = Rnd options.Seed; Size = None })

        Check.One(law.Name, config, property)
        outcome.Value

    /// Checks a law over generated cases.
    let check (options: CheckOptions) (subject: Subject) (law: Law) : Outcome =
        let over cases check =
            let applicable = ref 0

            Prop.forAll (unshrunk options cases) (judged applicable (check subject))
            |> run options law (Some applicable)

        match law.Check with
        | OfLibrary property -> run options law None (property subject)
        | OfRegion(regions, check) -> over (Generators.regionTrials regions) check
        | OfRegularizer(programs, check) -> over (Generators.trials programs) check

    /// Checks a law on one regularizer in generated trials, on each of its regions if it is a law of regions; None if
    /// it speaks of neither.
    let checkOn (options: CheckOptions) (subject: Subject) (regularizer: Regularizer) (law: Law) : Outcome option =
        let over cases check =
            let applicable = ref 0

            Prop.forAll (unshrunk options cases) (judged applicable (check subject))
            |> run options law (Some applicable)
            |> Some

        match law.Check with
        | OfLibrary _ -> None
        | OfRegion(_, check) ->
            match Regularizer.steps regularizer |> List.map _.Region |> List.distinct with
            | [] -> None
            | regions -> over (Generators.regionTrials (Arb.fromGen (Gen.elements regions))) check
        | OfRegularizer(_, check) -> over (Generators.trials (Generators.only regularizer)) check
