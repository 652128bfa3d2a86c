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

        let chance =
            if this.FalseAlarm > 0.0 then
                $"; the chance of a false alarm is below {Law.showChance this.FalseAlarm}"
            else
                ""

        $"{speaking.Length - broken} laws kept, {broken} broken, {this.Outcomes.Length - speaking.Length} silent{chance}"

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

    let private report (options: CheckOptions) of' (check: Law -> Outcome option) : Report =
        let outcomes =
            [ for law in all do
                  match check law with
                  | Some outcome ->
                      options.Progress law outcome
                      law, outcome
                  | None -> () ]

        { Of = of'
          Outcomes = outcomes
          Options = options }

    /// Checks every law that speaks of regularizers, of regions or of distributions on this one, with operations that may be
    /// one's own: `Subject.mixing apply`.
    let checkOn (options: CheckOptions) (subject: Subject) (regularizer: Regularizer) : Report =
        report options (Notation.show regularizer) (Law.checkOn options subject regularizer)

    /// Checks every law that speaks of regularizers, of regions or of distributions on this one, as told.
    let checkWith (options: CheckOptions) (regularizer: Regularizer) : Report =
        checkOn options Subject.core regularizer

    /// Checks every law that speaks of regularizers, of regions or of distributions on this one.
    let check (regularizer: Regularizer) : Report = checkWith defaults regularizer

    /// Checks every law of losses on this one, as told.
    let checkLossWith (options: CheckOptions) (loss: Loss) : Report =
        report options (Law.showLoss loss) (Law.checkLoss options Subject.core loss)

    /// Checks every law of losses on this one.
    let checkLoss (loss: Loss) : Report = checkLossWith Law.defaults loss

    /// Checks every law on the library itself, over generated programs.
    let checkLibrary (options: CheckOptions) : Report =
        report options "the library, over generated programs" (Law.check options Subject.core >> Some)
