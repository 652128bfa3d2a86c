namespace PatchUp.Functional

open System

/// One mixing step: which features, whose, how far, where, at what loss.
type Step =
    { Region: Region
      Partner: Partner
      View: View
      Mix: Mix
      Rescale: Rescale
      Site: Site
      Objective: Objective }

/// A regularizer is a value: it says what may happen, and a key makes a plan of it.
type Regularizer =
    | Do of Step
    /// One of these, with probability proportional to its weight.
    | Choose of (float * Regularizer) list
    /// What acts as training goes on, from 0 to 1: at each of these times the regularizer beside it. Between two that differ in their numbers only
    /// (fractions, areas, lambdas, weights), one with numbers in proportion; else the later one with a probability that grows in proportion.
    | Over of (float * Regularizer) list
    /// All of these. They act in the order in which the network reaches their sites; at one site, in the list's order.
    | Sequence of Regularizer list

[<RequireQualifiedAccess>]
module Regularizer =

    /// Does nothing: the regularizer of evaluation.
    let identity: Regularizer = Sequence []

    /// Every step that may act.
    let rec steps (regularizer: Regularizer) : Step list =
        match regularizer with
        | Do step -> [ step ]
        | Choose branches
        | Over branches -> branches |> List.collect (snd >> steps)
        | Sequence parts -> parts |> List.collect steps

    let internal changesLabels (step: Step) = step.Partner <> Blank

    /// Whether `next` may act on features that `step` has acted on already.
    let private mayFollow nextIsListedLater (step: Step) (next: Step) =
        List.allPairs (Site.places step.Site) (Site.places next.Site)
        |> List.exists (fun pair ->
            match pair with
            | Number k, Number l -> l > k || (l = k && nextIsListedLater)
            | _ -> nextIsListedLater)

    /// Equation (6) belongs to the last step that changes labels.
    let private checkObjectives (parts: Regularizer list) =
        let labelled =
            parts
            |> List.indexed
            |> List.collect (fun (i, part) -> steps part |> List.filter changesLabels |> List.map (fun step -> i, step))

        for i, step in labelled do
            if step.Objective <> Objective.reweighted then
                for j, other in labelled do
                    if i <> j && mayFollow (j > i) step other then
                        invalidArg
                            (nameof parts)
                            "sequence: an objective is named on a step that another step which changes labels may follow; the objective belongs to the last of them."

    /// Changes every step; an ArgumentException if the change breaks the rule on objectives in a sequence.
    let rec map (change: Step -> Step) (regularizer: Regularizer) : Regularizer =
        match regularizer with
        | Do step -> Do(change step)
        | Choose branches -> Choose(branches |> List.map (fun (weight, r) -> weight, map change r))
        | Over points -> Over(points |> List.map (fun (time, r) -> time, map change r))
        | Sequence parts ->
            let parts = List.map (map change) parts
            checkObjectives parts
            Sequence parts

    /// All of these; nested sequences are laid flat, so that sequences with `identity` form a monoid. An ArgumentException if an
    /// objective is named on a step after which another may change the labels.
    let sequence (parts: Regularizer list) : Regularizer =
        let flat =
            parts
            |> List.collect (fun part ->
                match part with
                | Sequence inner -> inner
                | other -> [ other ])

        checkObjectives flat

        match flat with
        | [ one ] -> one
        | several -> Sequence several

    /// One of these, with probability proportional to its weight; branches of weight 0 are left out. An ArgumentException unless the
    /// weights are finite, not negative, and at least one is positive.
    let oneOf (branches: (float * Regularizer) list) : Regularizer =
        for weight, _ in branches do
            if not (Double.IsFinite weight && weight >= 0.0) then
                invalidArg (nameof branches) $"oneOf: the weight {weight} must be finite and not negative."

        match branches |> List.filter (fun (weight, _) -> weight > 0.0) with
        | [] -> invalidArg (nameof branches) "oneOf: at least one weight must be positive."
        | [ _, one ] -> one
        | several -> Choose several

    /// The regularizer with this probability, else nothing; an ArgumentException unless 0 <= probability <= 1.
    let sometimes (probability: float) (regularizer: Regularizer) : Regularizer =
        if not (probability >= 0.0 && probability <= 1.0) then
            invalidArg (nameof probability) $"sometimes {probability}: a probability must lie in [0, 1]."

        oneOf [ probability, regularizer; 1.0 - probability, identity ]

    /// The one whose fractions, areas, lambdas and weights lie this share of the way from one's to the other's; None where they differ in more.
    let rec internal between (share: float) (one: Regularizer) (other: Regularizer) : Regularizer option =
        let all parts =
            if List.forall Option.isSome parts then
                Some(List.map Option.get parts)
            else
                None

        match one, other with
        | _ when one = other -> Some one
        | Do a, Do b ->
            Option.map2
                (fun region mix -> { a with Region = region; Mix = mix })
                (Region.between share a.Region b.Region)
                (Mix.between share a.Mix b.Mix)
            |> Option.filter (fun step ->
                { b with
                    Region = step.Region
                    Mix = step.Mix }
                    =
                    step)
            |> Option.map Do
        | Choose a, Choose b when a.Length = b.Length ->
            let chances branches =
                let total = List.sumBy fst branches
                branches |> List.map (fun (weight, _) -> weight / total)

            List.map2 (fun (_, a) (_, b) -> between share a b) a b
            |> all
            |> Option.map (fun branches ->
                List.zip (List.map2 (fun a b -> a + share * (b - a)) (chances a) (chances b)) branches
                |> Choose)
        | Sequence a, Sequence b when a.Length = b.Length -> List.map2 (between share) a b |> all |> Option.map Sequence
        | _ -> None

    /// What acts as training goes on (`BatchInfo.Progress`): before the first of these times the first regularizer, after the last the last. Between two that
    /// differ in their numbers only (fractions, areas, lambdas, weights) acts one with numbers in proportion, as in DropBlock's schedule (Ghiasi et al. 2018, section 3); else
    /// the later one with a probability that grows in proportion. Two at one time make a jump. An ArgumentException unless there is one, and the
    /// times lie in [0, 1] and do not fall.
    let over (points: (float * Regularizer) list) : Regularizer =
        for time, _ in points do
            if not (time >= 0.0 && time <= 1.0) then
                invalidArg (nameof points) $"over: the time {time} must lie in [0, 1]."

        for (time, _), (next, _) in List.pairwise points do
            if next < time then
                invalidArg (nameof points) $"over: the time {next} stands after {time}; times must not fall."

        match points with
        | [] -> invalidArg (nameof points) "over: at least one time is needed."
        | [ _, one ] -> one
        | several -> Over several

    /// A step on this region: a random pair, at the input, one loss at the mixed target.
    let step (partner: Partner) (mix: Mix) (region: Region) : Regularizer =
        Do
            { Region = region
              Partner = partner
              View = AsIs
              Mix = mix
              Rescale = NoRescale
              Site = At(Number 0)
              Objective = Objective.reweighted }

    /// Rescales the features that blanking leaves; an ArgumentException unless every step blanks.
    let rescale (kind: Rescale) (regularizer: Regularizer) : Regularizer =
        if kind <> NoRescale && steps regularizer |> List.exists changesLabels then
            invalidArg
                (nameof kind)
                $"rescale {kind}: only blanked features are rescaled, and a step here takes a partner's."

        regularizer |> map (fun step -> { step with Rescale = kind })

    /// Pairs by another map; an ArgumentException if a rescaled step would get a partner.
    let pairedBy (partner: Partner) (regularizer: Regularizer) : Regularizer =
        if
            partner <> Blank
            && steps regularizer |> List.exists (fun step -> step.Rescale <> NoRescale)
        then
            invalidArg (nameof partner) $"pairedBy {partner}: a step here is rescaled, and only blanked features are."

        regularizer |> map (fun step -> { step with Partner = partner })

    /// Names the objective: of every branch of a choice, and of the last part of a sequence that changes labels.
    let rec objective (objective': Objective) (regularizer: Regularizer) : Regularizer =
        match regularizer with
        | Do step -> Do { step with Objective = objective' }
        | Choose branches -> Choose(branches |> List.map (fun (weight, r) -> weight, objective objective' r))
        | Over points -> Over(points |> List.map (fun (time, r) -> time, objective objective' r))
        | Sequence parts ->
            match parts |> List.tryFindIndexBack (steps >> List.exists changesLabels) with
            | Some last ->
                parts
                |> List.mapi (fun i part -> if i = last then objective objective' part else part)
                |> sequence
            | None -> regularizer
