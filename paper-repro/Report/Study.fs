namespace PatchUp.Repro

open System.Globalization
open System.Text.Json.Nodes
open PatchUp.Functional

/// A method of a study.
type Variant =
    {
        Label: string
        /// A name of the catalogue or a line of notation.
        Method: string
        /// What the study's learning rate is multiplied by, and its weight decay divided by.
        Rate: float
    }

/// What a study shows of its runs.
[<RequireQualifiedAccess>]
type StudyView =
    /// Test and validation errors, and differences from the first variant.
    | Errors
    /// Validation errors by two names, the second faster, with a value for every line and column. A grid of one line has an empty name for it.
    | Grid of lines: string * lineValues: string list * columns: string * columnValues: string list
    /// Seconds an epoch, as a share of the first variant's. Its runs are done one at a time.
    | Times

/// How large a study is.
[<RequireQualifiedAccess>]
type StudyScale =
    /// The settings that a run has by default, on the images in the program.
    | Demo
    /// The published schedule, model and data set.
    | Paper

/// An ablation of the paper: methods that are trained alike, and what is shown of them.
[<NoEquality; NoComparison>]
type Study =
    {
        /// Kebab-case.
        Name: string
        /// The table or figure.
        Place: string
        About: string
        Variants: Variant list
        View: StudyView
        /// The paper's network.
        Model: string
        /// The paper's data set, by its preset.
        Data: string
        /// How the numbers of such runs are to be read.
        Notes: Config list -> string list
    }

/// A study as `patchup study` lists it.
type ListedStudy =
    {
        Name: string
        Place: string
        About: string
        Variants: string list
        /// At the demo's scale, with as many seeds as it has by default.
        Runs: int
        PaperRuns: int
    }

/// A variant's results over the seeds; None where no run is finished.
type StudyRow =
    {
        Variant: string
        Notation: string
        Loss: string
        LearningRate: float
        WeightDecay: float
        /// How many there are.
        Runs: int
        Finished: int
        /// In percent.
        TestError: Spread option
        TestNll: Spread option
        /// Of the best epoch, in percent.
        ValidationError: Spread option
        /// Of the test error, from the first variant's with the same seed, in points; over the seeds that both have. None for the first.
        Difference: Interval option
        /// With their validation; None but where times are shown.
        EpochSeconds: Spread option
        /// Of the first variant's with the same seed.
        TimeRatio: Spread option
    }

/// What a study found.
type StudyResult =
    {
        Study: string
        Place: string
        About: string
        Rows: StudyRow list
        /// Of a grid: the variants of the least mean validation error, several where it is the same.
        Best: string list
        Notes: string list
    }

/// The ablations of the PatchUp paper.
[<RequireQualifiedAccess>]
module Study =

    let private variant label method' =
        { Label = label
          Method = method'
          Rate = 1.0 }

    /// Notes that hold of any runs.
    let private always (notes: string list) (_: Config list) : string list = notes

    let private plain = variant "none" "none"

    /// PatchUp by a mask of this gamma and block side, as equation (2) has them.
    let private blocks (isSoft: bool) (size: string) (gamma: string) : string =
        let mix = if isSoft then "blend (beta 2 2)" else "swap"
        $"blocks {size} {gamma} paper |> {mix}"

    let private standard (isSoft: bool) =
        blocks isSoft "7" (if isSoft then "0.75" else "0.5")

    let private often (isSoft: bool) =
        if isSoft then "" else " |> sometimes 0.7"

    let private rectangle = "rect uniform |> swap |> at input"

    /// PatchUp at a random site: the published one but for mask and objective.
    let private random (isSoft: bool) (mixing: string) (objective: string) =
        $"oneOf [1, {rectangle}; 2, {mixing} |> atAny [1; 2]] |> {objective}{often isSoft}"

    let private kind (isSoft: bool) =
        if isSoft then
            "soft", "Soft PatchUp"
        else
            "hard", "Hard PatchUp"

    let private terms (isSoft: bool) : Study =
        let name, method' = kind isSoft
        let line = random isSoft (standard isSoft)

        { Name = $"terms-{name}"
          Place = "table 6"
          About = $"the terms of {method'}'s loss: L1, L2, their sum, and one term at the sum's step"
          Variants =
            [ plain
              variant "L1" (line "first")
              variant "L2" (line "second")
              variant "L1 + L2" (line "twoTerm")
              { variant "L2 at twice the rate" (line "second") with
                  Rate = 2.0 } ]
          View = StudyView.Errors
          Model = "wrn-28-10"
          Data = "cifar-100"
          Notes =
            fun configs ->
                let isAffine (config: Config) =
                    Config.losses
                    |> List.exists (fun (name, loss) -> name = config.Loss && Loss.isAffine loss)

                let same = List.forall isAffine configs

                [ if same then
                      "L1 and L2 are the same number for a loss that is affine in its target, as these are: what lies between the two is how far training \
                       moves when the last bits of a sum do, and with L1 + L2 mixed batches weigh twice."
                  else
                      "L1 and L2 are two losses here, as what is trained with is not affine in its target; with L1 + L2 mixed batches weigh twice."
                  if not same || configs |> List.exists (fun config -> config.ClipNorm > 0.0) then
                      "The last line has twice the learning rate and half the weight decay, so that a step is as long as that of L1 + L2 about."
                  elif isSoft then
                      "The last line has twice the learning rate and half the weight decay, which makes the steps of L1 + L2, as every batch is mixed: what \
                       lies between these two is rounding as well."
                  else
                      "The last line has twice the learning rate and half the weight decay, which makes the steps of L1 + L2 on mixed batches; three batches of \
                       ten are not mixed, and there the step doubles." ] }

    let private sites (isSoft: bool) : Study =
        let name, method' = kind isSoft
        let mixing = standard isSoft

        let at site =
            $"{mixing} |> at {site} |> twoTerm{often isSoft}"

        { Name = $"sites-{name}"
          Place = "table 7"
          About = $"{method'} at a random site, at fixed ones, and with its mask at the input"
          Variants =
            [ variant "random site" (random isSoft mixing "twoTerm")
              variant "site 0, rectangle" $"{rectangle} |> twoTerm{often isSoft}"
              variant "site 1" (at "1")
              variant "site 2" (at "2")
              variant "site 3" (at "3")
              variant "random site, mask at the input" $"{mixing} |> atAny [0; 1; 2] |> twoTerm{often isSoft}"
              plain ]
          View = StudyView.Errors
          Model = "wrn-28-10"
          Data = "cifar-100"
          Notes =
            always
            <| [ "Sites: 0 is the input, 1 after the first convolution, 2 and 3 after the first and the second stage. A random site is 0, 1 or 2; at 0 \
               the published method swaps one rectangle, and the line with its mask at the input has PatchUp's blocks there." ] }

    let private gamma (isSoft: bool) : Study =
        let name, method' = kind isSoft
        let sizes, gammas = [ "3"; "5"; "7"; "9" ], [ "0.25"; "0.5"; "0.75"; "0.9" ]

        { Name = $"gamma-{name}"
          Place = if isSoft then "figure 13 (c)" else "figure 13 (d)"
          About = $"{method'}'s gamma and block size, by validation error"
          Variants =
            [ for size in sizes do
                  for gamma in gammas do
                      variant $"block {size}, gamma {gamma}" (random isSoft (blocks isSoft size gamma) "twoTerm") ]
          View = StudyView.Grid("block", sizes, "gamma", gammas)
          Model = "preact-resnet-18"
          Data = "cifar-10"
          Notes =
            always
            <| [ "Gamma is equation (2)'s, and not the altered fraction. The values lie around the published ones, block 7 and gamma "
                 + (if isSoft then "0.75" else "0.5")
                 + "; the paper's own ranges are not known here." ] }

    let private line name place about columns values (method': string -> string) published : Study =
        { Name = name
          Place = place
          About = about
          Variants = [ for value in values -> variant $"{columns} {value}" (method' value) ]
          View = StudyView.Grid("", [ "validation error, %" ], columns, values)
          Model = "preact-resnet-18"
          Data = "cifar-10"
          Notes = always [ $"The published value is {published}; the paper's own range is not known here." ] }

    let private time: Study =
        { Name = "time"
          Place = "table 8"
          About = "training time of each method, as a share of plain training's"
          Variants =
            plain
            :: [ for name in
                     [ "mixup"
                       "manifold-mixup"
                       "cutmix"
                       "cutout"
                       "dropblock"
                       "puzzlemix"
                       "soft-patchup"
                       "hard-patchup" ] -> variant name name ]
          View = StudyView.Times
          Model = "wrn-28-10"
          Data = "cifar-100"
          Notes =
            always
            <| [ "An epoch with its validation, the first left out, measured on the machine that did the runs, one run at a time; a share is of the first line's time with the \
               same seed. It holds for a machine that does nothing else, and for this network and batch: a method costs the less, the more a step does." ] }

    /// Every study.
    let all: Study list =
        [ terms true
          terms false
          sites true
          sites false
          gamma true
          gamma false
          line
              "manifold-alpha"
              "figure 13 (a)"
              "ManifoldMixup's alpha, by validation error"
              "alpha"
              [ "0.5"; "1"; "1.5"; "2"; "4" ]
              (fun alpha -> $"everywhere |> blend (beta {alpha} {alpha}) |> atAny [0; 1; 2]")
              "1.5"
          line
              "cutmix-probability"
              "figure 13 (b)"
              "CutMix's probability, by validation error"
              "probability"
              [ "0.2"; "0.4"; "0.6"; "0.8"; "1" ]
              (fun probability -> $"rect (beta 1 1) |> swap |> at input |> sometimes {probability}")
              "0.4"
          time ]

    /// The study of this name; a UserError, which names the nearest, where there is none.
    let find (name: string) : Study =
        ConfigFile.checkName "study" "a study" (all |> List.map _.Name) name
        all |> List.find (fun study -> study.Name = name)

    /// The scales by name.
    let scales: (string * StudyScale) list =
        [ "demo", StudyScale.Demo; "paper", StudyScale.Paper ]

    /// How many seeds a study has where nobody says so: five as published, two at the demo's scale, and one where a setting is searched for.
    let seeds (scale: StudyScale) (study: Study) : int =
        match study.View, scale with
        | StudyView.Grid _, _ -> 1
        | _, StudyScale.Demo -> 2
        | _, StudyScale.Paper -> 5

    /// As `patchup study` lists it.
    let listed (study: Study) : ListedStudy =
        { Name = study.Name
          Place = study.Place
          About = study.About
          Variants = study.Variants |> List.map _.Label
          Runs = study.Variants.Length * seeds StudyScale.Demo study
          PaperRuns = study.Variants.Length * seeds StudyScale.Paper study }

    /// A study as a sweep: as many seeds, images from a path or those in the program, and settings that come before the scale's. Variants that
    /// differ in their learning rate are sweeps of their own. A UserError for a setting that is none.
    let sweep (scale: StudyScale) (data: string option) (seeds: int) (settings: JsonObject) (study: Study) : JsonNode =
        let text (value: string) = JsonValue.Create value :> JsonNode
        let number (value: float) = JsonValue.Create value :> JsonNode

        let part (variants: Variant list) (further: (string * JsonNode) list) : JsonObject =
            let values =
                [ if scale = StudyScale.Paper then
                      "device", text "cuda"
                  for KeyValue(name, value) in settings do
                      name, (if isNull value then null else value.DeepClone())
                  yield! further ]

            let basis = JsonObject()

            for name, value in values do
                basis[name] <- value

            let whole = JsonObject()
            data |> Option.iter (fun path -> whole["data"] <- JsonArray(text path))

            if scale = StudyScale.Paper then
                whole["models"] <- JsonArray(text study.Model)
                whole["preset"] <- text "paper-2020"
                whole["dataPreset"] <- text study.Data

            whole["methods"] <- JsonArray [| for variant in variants -> text variant.Method |]
            whole["seeds"] <- JsonValue.Create seeds

            if basis.Count > 0 then
                whole["base"] <- basis

            whole

        let parts =
            [ for rate, variants in study.Variants |> List.groupBy _.Rate do
                  if rate = 1.0 then
                      part variants []
                  else
                      let config =
                          (Sweep.ofText $"study {study.Name}" (Json.show (part variants []))).Head.Config

                      part
                          variants
                          [ "learningRate", number (rate * config.LearningRate)
                            "weightDecay", number (config.WeightDecay / rate) ] ]

        match parts with
        | [ one ] -> one
        | several -> JsonArray [| for one in several -> one :> JsonNode |]

    /// From every run of the study's sweep, in its order, with record and timing where it is finished.
    let ofRuns (study: Study) (runs: (Config * (Record * Timing option) option) list) : StudyResult =
        let groups =
            runs
            |> List.groupBy (fun (config, _) -> { config with Seed = 0 })
            |> List.map (fun (config, group) ->
                config, group.Length, [ for config, found in group -> config.Seed, found ])

        /// By seed, of the runs that have it.
        let values (value: Record * Timing option -> float option) group =
            [ for seed, found in group do
                  match found |> Option.bind value with
                  | Some value -> seed, value
                  | None -> () ]

        let (_, _, first) = groups.Head

        /// With the first variant's, seed by seed.
        let paired value group : (float * float) list =
            let baseline = values value first |> Map

            [ for seed, value in values value group do
                  match baseline.TryFind seed with
                  | Some other -> other, value
                  | None -> () ]

        let spread (found: float list) =
            if found.IsEmpty then
                None
            else
                Some(Statistics.spread found)

        let testError = fun (record: Record, _) -> Some record.TestError

        let seconds =
            fun (_, timing: Timing option) ->
                match study.View with
                | StudyView.Times -> timing |> Option.bind Records.epochSeconds
                | _ -> None

        let rows =
            List.zip study.Variants groups
            |> List.mapi (fun i (variant, (config, count, group)) ->
                let over value =
                    values value group |> List.map snd |> spread

                { Variant = variant.Label
                  Notation = config.Notation
                  Loss = config.Loss
                  LearningRate = config.LearningRate
                  WeightDecay = config.WeightDecay
                  Runs = count
                  Finished = (values testError group).Length
                  TestError = over testError
                  TestNll = over (fun (record, _) -> Some record.TestNll)
                  ValidationError = over (fun (record, _) -> Some record.History[record.BestEpoch - 1].ValidationError)
                  Difference =
                    match paired testError group with
                    | [] -> None
                    | _ when i = 0 -> None
                    | pairs -> Some(Statistics.pairedDifference (List.map fst pairs) (List.map snd pairs))
                  EpochSeconds = over seconds
                  TimeRatio = paired seconds group |> List.map (fun (plain, own) -> own / plain) |> spread })

        let best =
            match study.View with
            | StudyView.Grid _ ->
                let shown =
                    [ for row in rows do
                          match row.ValidationError with
                          | Some spread -> row.Variant, System.Math.Round(spread.Mean, 9)
                          | None -> () ]

                let least = shown |> List.map snd |> List.fold min infinity

                [ for variant, mean in shown do
                      if mean = least then
                          variant ]
            | _ -> []

        let records = runs |> List.choose (snd >> Option.map fst)

        { Study = study.Name
          Place = study.Place
          About = study.About
          Rows = rows
          Best = best
          Notes =
            (if records.IsEmpty then [] else Tables.notes records)
            @ study.Notes(List.map fst runs) }

    let private shown digits (spread: Spread option) : string =
        match spread with
        | None -> "missing"
        | Some { Deviation = None; Mean = mean } -> mean.ToString($"F{digits}", CultureInfo.InvariantCulture)
        | Some spread -> Tables.spread digits spread

    let private difference (row: StudyRow) : string list =
        match row.Difference with
        | None -> [ "-"; "-" ]
        | Some { Centre = centre; HalfWidth = None } -> [ Tables.signed centre; "-" ]
        | Some { Centre = centre
                 HalfWidth = Some half } ->
            [ Tables.signed centre
              $"[{Tables.signed (centre - half)}, {Tables.signed (centre + half)}]" ]

    /// Header and lines of the study's table.
    let private table (study: Study) (result: StudyResult) : string list * string list list =
        let runs (row: StudyRow) = $"{row.Finished}/{row.Runs}"

        match study.View with
        | StudyView.Errors ->
            [ "variant"
              "runs"
              "test error, %"
              "test NLL"
              "validation error, %"
              $"difference from {result.Rows.Head.Variant}, points"
              "95 % interval" ],
            [ for row in result.Rows ->
                  [ row.Variant
                    runs row
                    shown 2 row.TestError
                    shown 3 row.TestNll
                    shown 2 row.ValidationError ]
                  @ difference row ]
        | StudyView.Grid(lines, lineValues, columns, columnValues) ->
            let corner = if lines = "" then columns else $"{lines} \\ {columns}"

            corner :: columnValues,
            List.zip lineValues (List.chunkBySize columnValues.Length result.Rows)
            |> List.map (fun (value, rows) -> value :: [ for row in rows -> shown 2 row.ValidationError ])
        | StudyView.Times ->
            [ "variant"; "runs"; "seconds an epoch"; $"of {result.Rows.Head.Variant}'s" ],
            [ for row in result.Rows -> [ row.Variant; runs row; shown 3 row.EpochSeconds; shown 3 row.TimeRatio ] ]

    let private notes (result: StudyResult) : string list =
        [ match result.Best with
          | [] -> ()
          | best ->
              let best = String.concat "; " best
              $"Validation error in percent, of each run's best epoch. The least mean is that of {best}."
          yield! result.Notes ]

    let private title (result: StudyResult) =
        $"{result.Study}, {result.Place} of the paper: {result.About}"

    /// The variants as they are trained.
    let private methods (result: StudyResult) : string list * string list list =
        [ "variant"; "loss"; "rate"; "notation" ],
        [ for row in result.Rows -> [ row.Variant; row.Loss; string row.LearningRate; row.Notation ] ]

    /// For a terminal.
    let text (study: Study) (result: StudyResult) : string =
        [ title result
          table study result ||> Tables.aligned
          methods result ||> Tables.aligned ]
        @ notes result
        |> String.concat "\n\n"

    /// The same as a document.
    let markdown (study: Study) (result: StudyResult) : string =
        let header, lines = methods result

        let quoted =
            [ for line in lines -> List.truncate (line.Length - 1) line @ [ $"`{List.last line}`" ] ]

        [ $"# {title result}"
          table study result ||> Tables.ruled
          Tables.ruled header quoted ]
        @ notes result
        |> String.concat "\n\n"
