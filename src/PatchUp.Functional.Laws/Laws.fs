namespace PatchUp.Functional.Laws

open PatchUp.Functional

/// What came of checking laws on one thing.
[<NoEquality; NoComparison>]
type Report =
    {
        /// The line of notation, or the loss.
        Of: string
        /// The laws that speak of it, in the order of the law table.
        Outcomes: (Law * Outcome) list
        /// How they were checked.
        Options: CheckOptions
    }

    /// The chance that a law was called broken that is kept, of all statistical laws together.
    member this.FalseAlarm: float =
        this.Outcomes |> List.sumBy (fst >> Law.falseAlarm this.Options)

    /// The laws that do not hold.
    member this.Broken: Law list =
        this.Outcomes
        |> List.choose (fun (law, outcome) ->
            match outcome with
            | Outcome.Failed _ -> Some law
            | Outcome.Passed _ -> None)

    /// How many laws are kept, and how many broken: one line.
    member this.Summary: string =
        let speaking =
            this.Outcomes
            |> List.filter (fun (_, outcome) ->
                match outcome with
                | Outcome.Passed(_, 0) -> false
                | _ -> true)

        let broken = this.Broken.Length
        let chance = $"the chance of a false alarm is below {Law.small this.FalseAlarm}"
        $"{speaking.Length - broken} laws kept, {broken} broken, {this.Outcomes.Length - speaking.Length} silent; {chance}"

    /// What it is of, every law with its verdict, the counterexamples, and the summary.
    override this.ToString() =
        [ this.Of
          for law, outcome in this.Outcomes do
              Law.show this.Options law outcome
          this.Summary ]
        |> String.concat "\n"

/// The laws of mixing.
[<RequireQualifiedAccess>]
module Laws =

    /// Every law.
    let all: Law list =
        [ KeyLaws.all
          MaskLaws.all
          HardLaws.all
          SoftLaws.all
          LabelLaws.all
          LossLaws.all
          ObjectiveLaws.all
          RegularizerLaws.all
          RelationLaws.all
          NetworkLaws.all
          ReplayLaws.all
          MemoryLaws.all
          NotationLaws.all ]
        |> List.concat

    /// Always the same cases, a fifth of each law's own number, of all shapes and types: enough for one given
    /// regularizer, where the library is checked on generated ones.
    let defaults: CheckOptions = { Law.defaults with Effort = 0.2 }

    /// What came of one law after the other, each checked when it is asked for; `progress` is told of each.
    let private report options of' (progress: Law -> Outcome -> unit) (check: Law -> Outcome option) : Report =
        let outcomes =
            [ for law in all do
                  match check law with
                  | Some outcome ->
                      progress law outcome
                      law, outcome
                  | None -> () ]

        { Of = of'
          Outcomes = outcomes
          Options = options }

    /// Checks every law on operations that may be one's own, such as `Subject.mixing apply`; `progress` is told of each
    /// verdict when it is known.
    let checkOn
        (progress: Law -> Outcome -> unit)
        (options: CheckOptions)
        (subject: Subject)
        (regularizer: Regularizer)
        : Report =
        report options (Notation.show regularizer) progress (Law.checkOn options subject regularizer)

    /// Checks every law that speaks of regularizers, of regions or of distributions on this one, as told.
    let checkWith (options: CheckOptions) (regularizer: Regularizer) : Report =
        checkOn (fun _ _ -> ()) options Subject.core regularizer

    /// Checks every law that speaks of regularizers, of regions or of distributions on this one.
    let check (regularizer: Regularizer) : Report = checkWith defaults regularizer

    /// Checks every law of losses on this one, as told, on operations that may be one's own.
    let checkLossOn
        (progress: Law -> Outcome -> unit)
        (options: CheckOptions)
        (subject: Subject)
        (loss: Loss)
        : Report =
        report options (Law.showLoss loss) progress (Law.checkLoss options subject loss)

    /// Checks every law of losses on this one.
    let checkLoss (loss: Loss) : Report =
        checkLossOn (fun _ _ -> ()) Law.defaults Subject.core loss

    /// Checks every law on the library itself, over generated programs; `progress` is told of each verdict.
    let checkLibrary (progress: Law -> Outcome -> unit) (options: CheckOptions) : Report =
        report options "the library, over generated programs" progress (fun law ->
            Some(Law.check options Subject.core law))
