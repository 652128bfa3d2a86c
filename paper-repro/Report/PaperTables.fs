namespace PatchUp.Repro

open System
open System.Collections.Generic
open System.Globalization
open System.IO
open System.Text
open System.Text.Json.Nodes
open PatchUp.Functional

/// The paper's tables from the records of results folders.
[<RequireQualifiedAccess>]
module PaperTables =

    let private column heading digits better =
        { Heading = heading
          Digits = digits
          Better = better
          Source = None }

    let private short (value: float) =
        value.ToString("G5", CultureInfo.InvariantCulture)

    /// An evaluation's numbers; none where they cannot be read.
    let private numbers (found: Evaluation) : (PaperColumn * float) list =
        let text = found.Result.ToJsonString()
        let read () = Json.tryRead text

        match found.Suite with
        | "clean" ->
            match read (): CleanResult option with
            | Some result ->
                [ Some(column "error, %" 2 Lower, result.Error.Value)
                  result.TopFiveError
                  |> Option.map (fun error -> column "top-5 error, %" 2 Lower, error.Value)
                  Some(column "NLL" 3 Lower, result.Nll.Value) ]
                |> List.choose id
            | None -> []
        | "attacks" ->
            match read (): AttackReport option with
            | Some report ->
                [ yield column "untouched, %" 1 Lower, 100.0 - report.Clean.Percent
                  for result in report.Results do
                      for robust in result.Robust do
                          if robust.Epsilon > 0.0 || result.Attack = "fgsm" then
                              yield
                                  column $"{result.Attack}, {result.Norm} {short robust.Epsilon}, %%" 1 Lower,
                                  100.0 - robust.Accuracy.Percent ]
            | None -> []
        | "deformed" ->
            match read (): DeformedErrors option with
            | Some errors ->
                [ yield column "untouched, %" 1 Lower, errors.CleanError
                  for each in errors.Deformations do
                      yield column $"{each.Deformation}, %%" 1 Lower, each.Error ]
            | None -> []
        | "corrupted" ->
            match read (): CorruptedResult option with
            | Some result ->
                [ for each in result.Errors.Corruptions -> column $"{each.Corruption}, sum" 1 Lower, each.Sum ]
                @ [ column "mean error, %" 1 Lower, result.Errors.MeanError ]
            | None -> []
        | "calibration" ->
            match read (): CalibrationResult option with
            | Some result ->
                [ column "calibration error" 4 Lower, result.EqualWidth.Ece
                  column "calibration error, equal bins" 4 Lower, result.EqualMass.Ece
                  column "Brier score" 4 Lower, result.Brier
                  column "NLL" 3 Lower, result.Nll ]
            | None -> []
        | "activations" ->
            match read (): SiteActivations list option with
            | Some sites -> [ for site in sites -> column site.Site 4 Neither, site.MeanMagnitude ]
            | None -> []
        | "geometry" ->
            match read (): GeometryResult option with
            | Some result ->
                [ for each in result.Methods -> column $"slack of {each.Method}" 4 Neither, each.Slack.Median ]
            | None -> []
        | _ -> []

    /// All corruptions and severities, as the program makes them.
    let private usual =
        [ for name, _ in Corruption.all -> name, [ 1 .. Corruption.severities ] ]

    /// What an evaluation's numbers depend on beside its network, its images and its seed.
    let private manner (found: Evaluation) : (string * string) list =
        let text = found.Result.ToJsonString()

        match found.Suite with
        | "attacks" ->
            match Json.tryRead<AttackReport> text with
            | Some report -> [ "preset", report.Preset ]
            | None -> []
        | "corrupted" ->
            match Json.tryRead<CorruptedResult> text with
            | Some result ->
                let parts =
                    [ for each in result.Errors.Corruptions -> each.Corruption.Split(',')[0], each.Severities ]

                [ "corrupted images", result.Errors.Source
                  "of each", string result.Errors.Images
                  match result.Errors.Fingerprint with
                  | Some fingerprint -> "their fingerprint", fingerprint
                  | None -> "frost", Option.defaultValue "substitute texture" result.Frost
                  if parts <> usual then
                      "corruptions",
                      [ for name, severities in parts ->
                            let severities = severities |> List.map string |> String.concat ", "
                            $"{name} {severities}" ]
                      |> String.concat "; " ]
            | None -> []
        | _ -> []

    /// Why an evaluation's numbers are not to be ranked with others'.
    let private caveat (found: Evaluation) : string option =
        match found.Suite with
        | "attacks" ->
            Json.tryRead<AttackReport>(found.Result.ToJsonString())
            |> Option.bind (fun report ->
                match report.Masking.Flags with
                | [] -> None
                | flags ->
                    let flags = String.concat "; " flags
                    Some $"its gradients may be masked, so that attacks that follow them say little ({flags})")
        | _ -> None

    /// Everything that an evaluation's numbers follow from, beside its weights.
    let private evaluatedOn (found: Evaluation) : (string * string) list =
        [ "test images", string found.Images
          "of", found.Data
          "fingerprint of these", found.Fingerprint
          "selection", found.Selection
          "evaluated with seed", string found.Seed
          "with threads", string found.Threads
          "on", found.Device
          "evaluated by recipe", string found.Recipe
          match found.Foreign with
          | Some foreign -> "weights read as", Json.line { foreign with ClassNames = None }
          | None -> ()
          yield! manner found ]

    /// What a folder holds.
    type Found =
        { Records: (Record * Timing option) list
          Evaluations: Evaluation list }

    let private readAll<'a> (warn: string -> unit) (isSound: 'a -> bool) (folder: string) : (string * 'a) list =
        if Directory.Exists folder then
            let sound, others =
                [ for path in Directory.GetFiles(folder, "*.json") |> Array.sort do
                      path, Errors.reading path (fun () -> File.ReadAllText path) |> Json.tryRead<'a> ]
                |> List.partition (fun (_, found) ->
                    match found with
                    | Some value -> not (isNull (box value)) && isSound value
                    | None -> false)

            match others with
            | [] -> ()
            | (path, _) :: more ->
                let more =
                    if more.IsEmpty then
                        ""
                    else
                        $" and {more.Length} more there"

                warn $"{path}{more}: damaged, or of another version of this program; left out."

            [ for path, found in sound -> path, found.Value ]
        else
            []

    let private isConfig (config: Config) =
        not (isNull (box config) || isNull config.Method)

    let private readOne (warn: string -> unit) (folder: string) : Found =
        let part (name: string) = Path.Combine(folder, name)

        let timings =
            readAll<Timing> warn (fun timing -> not (isNull (box timing.EpochSeconds))) (part "timings")
            |> List.map (fun (path, timing) -> Path.GetFileName path, timing)
            |> Map.ofList

        let found =
            { Records =
                [ for path, record in readAll<Record> warn (fun record -> isConfig record.Config) (part "records") ->
                      record, timings.TryFind(Path.GetFileName path) ]
              Evaluations =
                readAll<Evaluation>
                    warn
                    (fun found ->
                        not (isNull found.Suite || isNull found.Result)
                        && found.Config |> Option.forall isConfig
                        && not (numbers found).IsEmpty)
                    (part "evaluations")
                |> List.map snd }

        if found.Records.IsEmpty && found.Evaluations.IsEmpty then
            Errors.user
                $"{folder}: no records there; name a results folder of 'patchup train', 'compare', 'study' or 'sweep run', or evaluate its weights."

        found

    /// All records of these folders, each run once; `warn` is told of every damaged record, and of runs whose results differ from one folder to another, of
    /// which the first is taken. A UserError for a folder without any.
    let read (warn: string -> unit) (folders: string list) : Found =
        let all = folders |> List.map (readOne warn)

        for config, runs in all |> List.collect _.Records |> List.map fst |> List.groupBy _.Config do
            if (List.distinct runs).Length > 1 then
                warn $"{Records.name config}: its results differ from folder to folder; the first folder's are taken."

        // A run evaluated twice in the same way counts once, also where its weights differ in their last bits.
        let evaluations =
            all
            |> List.collect _.Evaluations
            |> List.groupBy (fun found ->
                let network =
                    match found.Config with
                    | Some config -> Json.line config
                    | None -> found.Sha256

                found.Suite, network, evaluatedOn found)
            |> List.map snd

        for same in evaluations do
            if
                (same
                 |> List.distinctBy (fun found -> numbers found |> List.map snd, caveat found))
                    .Length
                    >
                    1
            then
                let first = same.Head

                warn
                    $"{first.Weights}: what the suite {first.Suite} found of it differs from folder to folder; the first folder's is taken."

        { Records =
            all
            |> List.collect _.Records
            |> List.distinctBy (fun (record, _) -> record.Config)
          Evaluations = evaluations |> List.map List.head }

    /// Everything of a configuration that two runs of one table share, by name.
    let private settings (config: Config) : (string * string) list =
        [ for KeyValue(name, value) in (Json.node config).AsObject() do
              if not (List.contains name [ "method"; "notation"; "loss"; "cleanLoss"; "seed" ]) then
                  name,
                  (if isNull value then
                       "none"
                   else
                       value.ToJsonString().Trim '"') ]

    /// A run's method and numbers by column.
    type private Line =
        { Setting: (string * string) list
          Data: string
          Network: string
          Config: Config option
          Label: string
          Values: (PaperColumn * float) list
          Caveat: string option }

    /// In words.
    let private listed (setting: (string * string) list) : string =
        setting
        |> List.map (fun (name, value) -> $"{name} {value}")
        |> String.concat ", "

    /// For each of several choices of settings, those in which they differ; a title has data and network anyway.
    let private differing (settings: (string * string) list list) : string list =
        let common =
            if settings.IsEmpty then
                Set.empty
            else
                settings |> List.map Set.ofList |> Set.intersectMany

        let short (value: string) =
            if value.Length = 64 && value |> Seq.forall Char.IsAsciiHexDigit then
                value.Substring(0, 8)
            else
                value

        [ for setting in settings ->
              [ for name, value in setting do
                    if
                        not (common.Contains(name, value))
                        && not (List.contains name [ "data"; "of"; "model"; "width" ])
                    then
                        name, short value ]
              |> listed ]

    /// The published columns of a data set.
    let private known (data: string) =
        Published.ofData data
        |> List.map (fun each ->
            { column $"published {each.Quantity}, %%" 2 Neither with
                Source = Some each.Source },
            Map.ofList each.Values)

    let private network (config: Config) : string =
        let width =
            config.Width
            |> Option.map (fun width -> $" of width {width}")
            |> Option.defaultValue ""

        $"{config.Model}{width}"

    let private averages (configs: Config list) : string =
        let seeds =
            configs
            |> List.map _.Seed
            |> List.distinct
            |> List.sort
            |> List.map string
            |> String.concat ", "

        $"Mean ± standard deviation over seeds ({seeds}); one seed has no deviation."

    /// As the catalogue has the methods; others behind them, by their names.
    let private place: string -> int * string =
        let named =
            Catalogue.all |> List.mapi (fun i method' -> method'.Name, i) |> Map.ofList

        fun label -> named |> Map.tryFind label |> Option.defaultValue named.Count, label

    let private isNamed (name: string) = fst (place name) < Catalogue.all.Length

    /// What the lines that have this label found for a column.
    let private cell (lines: Line list) (label: string) (column: PaperColumn) : float list =
        [ for line in lines do
              if line.Label = label then
                  for other, value in line.Values do
                      if other = column then
                          value ]

    /// A table's name, one of so many.
    let private numbered (name: string) (count: int) (i: int) =
        if count = 1 then name else $"{name}-{i + 1}"

    /// What is said where not all methods have the same seeds.
    let private unequal (seeds: (string * int list) list) : string list =
        let shown (seeds: int list) =
            seeds |> List.map string |> String.concat ", "

        let groups =
            seeds |> List.groupBy snd |> List.sortBy (fun (_, those) -> those.Length)

        match List.rev groups with
        | []
        | [ _ ] -> []
        | (most, _) :: others ->
            let named =
                [ for seeds, those in List.rev others ->
                      let labels = those |> List.map fst |> String.concat "; "
                      $"{labels}: {shown seeds}" ]
                |> String.concat ". "

            [ $"Not all have the same seeds. {named}. The others: {shown most}." ]

    /// Data and network, and in what a table's settings are not those of the others.
    let private where (data: string) (network: string) (own: string) =
        [ data; network; own ] |> List.filter ((<>) "") |> String.concat ", "

    /// A table for each choice of settings.
    let private tables name title withPublished picture (lines: Line list) : PaperTable list =
        let groups = lines |> List.groupBy _.Setting
        let own = groups |> List.map fst |> differing

        groups
        |> List.mapi (fun i (setting, lines) ->
            let columns = lines |> List.collect (_.Values >> List.map fst) |> List.distinct
            let extra = if withPublished then known lines.Head.Data else []

            let methods =
                (lines |> List.map _.Label)
                @ (extra |> List.collect (snd >> Map.toList >> List.map fst))
                |> List.distinct
                |> List.sortBy place

            { Name = numbered name groups.Length i
              Title = title
              Where = where lines.Head.Data lines.Head.Network own[i]
              Columns = columns @ List.map fst extra
              IsOneScale = false
              Rows =
                [ for label in methods ->
                      { Method = label
                        Cells =
                          List.map (cell lines label) columns
                          @ [ for _, errors in extra -> errors |> Map.tryFind label |> Option.toList ]
                        Caveat =
                          match
                              lines
                              |> List.filter (fun line -> line.Label = label)
                              |> List.choose _.Caveat
                              |> List.distinct
                          with
                          | [] -> None
                          | caveats -> Some(String.concat "; " caveats) } ]
              Picture = picture columns
              Notes =
                [ match lines |> List.choose _.Config with
                  | [] -> $"Each line is one network. Settings: {listed setting}."
                  | configs -> $"{averages configs} Settings: {listed setting}."
                  yield!
                      unequal
                          [ for label, lines in lines |> List.groupBy _.Label do
                                if lines.Head.Config.IsSome then
                                    label,
                                    lines |> List.choose _.Config |> List.map _.Seed |> List.distinct |> List.sort ]
                  if not extra.IsEmpty then
                      "Published numbers are of the whole data set and the networks that they name; they are not to be ranked with these." ] })

    /// The tables of one kind side by side, where there are several: a column of each for every column that is the program's.
    let private sideBySide (name: string) (title: string) (tables: PaperTable list) : PaperTable list =
        if tables.Length < 2 then
            []
        else
            let parts =
                [ for table in tables do
                      for i, column in List.indexed table.Columns do
                          if column.Source.IsNone then
                              { column with
                                  Heading = $"{table.Where} ({table.Name}): {column.Heading}" },
                              table,
                              i ]

            [ { Name = name
                Title = title
                Where = ""
                Columns = [ for column, _, _ in parts -> column ]
                IsOneScale = false
                Rows =
                  [ for label in
                        tables
                        |> List.collect (_.Rows >> List.map _.Method)
                        |> List.distinct
                        |> List.sortBy place do
                        let cells =
                            [ for _, table, i in parts ->
                                  table.Rows
                                  |> List.tryFind (fun row -> row.Method = label)
                                  |> Option.map (fun row -> row.Cells[i])
                                  |> Option.defaultValue [] ]

                        if cells |> List.exists (List.isEmpty >> not) then
                            { Method = label
                              Cells = cells
                              Caveat =
                                tables
                                |> List.collect _.Rows
                                |> List.tryPick (fun row -> if row.Method = label then row.Caveat else None) } ]
                Picture = None
                Notes = [ "In brackets the table that has a column's settings." ] } ]

    // ---- ablations ----

    let private capital (text: string) =
        text.Substring(0, 1).ToUpperInvariant() + text.Substring 1

    let private titleOf (study: Study) =
        $"{capital study.About} ({study.Place})"

    let private validationError (record: Record) =
        record.History[record.BestEpoch - 1].ValidationError

    /// A study's table for each choice of settings with which at least two of its mixing methods were trained, by whatever command; and the runs that
    /// are in them.
    let private ablation (records: Record list) (study: Study) : PaperTable list * Config list =
        let variants =
            [ for variant in study.Variants ->
                  match Catalogue.parse variant.Method with
                  | Ok regularizer -> variant, Notation.show regularizer
                  | Error error -> invalidOp $"{variant.Method}: {error}" ]

        let plain = Notation.show Regularizer.identity

        let groups =
            [ for record in records do
                  for variant, notation in variants do
                      if record.Config.Notation = notation then
                          let config = record.Config

                          let setting =
                              { config with
                                  LearningRate = config.LearningRate / variant.Rate
                                  WeightDecay = config.WeightDecay * variant.Rate }

                          settings setting @ [ "loss", config.Loss ], (variant, record) ]
            |> List.groupBy fst
            |> List.map (fun (setting, found) -> setting, List.map snd found)
            |> List.filter (fun (_, found) ->
                found
                |> List.filter (fun (_, record) -> record.Config.Notation <> plain)
                |> List.distinctBy fst
                |> List.length
                    >
                    1)

        let own = groups |> List.map fst |> differing

        let table i (setting, all: (Variant * Record) list) =
            // One method under two names, such as a catalogue's and its notation, is one run for each seed.
            let found =
                all
                |> List.distinctBy (fun (variant, record) -> variant, { record.Config with Method = "" })

            let values variant (number: Record -> float) =
                [ for other, record in found do
                      if other = variant then
                          number record ]

            let columns, isOneScale, rows, picture =
                match study.View with
                | StudyView.Grid(lines, lineValues, name, values') ->
                    let columns = [ for value in values' -> column $"{name} {value}" 2 Lower ]

                    columns,
                    true,
                    List.zip lineValues (List.chunkBySize values'.Length study.Variants)
                    |> List.map (fun (value, variants) ->
                        { Method = (if lines = "" then value else $"{lines} {value}")
                          Cells = [ for variant in variants -> values variant validationError ]
                          Caveat = None }),
                    Some
                        { Axis = name
                          IsOrdered = true
                          Columns = List.zip values' columns }
                | _ ->
                    [ column "test error, %" 2 Lower
                      column "test NLL" 3 Lower
                      column "validation error, %" 2 Lower ],
                    false,
                    [ for variant in study.Variants ->
                          { Method = variant.Label
                            Cells =
                              [ values variant _.TestError
                                values variant _.TestNll
                                values variant validationError ]
                            Caveat = None } ],
                    None

            let config = found |> List.map (fun (_, record) -> record.Config) |> List.head

            { Name = numbered study.Name groups.Length i
              Title = titleOf study
              Where = where config.Data (network config) own[i]
              Columns = columns
              IsOneScale = isOneScale
              Rows = rows
              Picture = picture
              Notes =
                $"{averages [ for _, record in found -> record.Config ]} Validation errors are those of each run's best epoch. Settings: {listed setting}."
                :: unequal
                    [ for variant, found in
                          found
                          |> List.groupBy fst
                          |> List.sortBy (fun (variant, _) -> List.findIndex ((=) variant) study.Variants) ->
                          variant.Label, [ for _, record in found -> record.Config.Seed ] |> List.distinct |> List.sort ]
                @ study.Notes [ for _, record in found -> record.Config ] }

        List.mapi table groups,
        [ for _, found in groups do
              for _, record in found do
                  record.Config ]

    /// A method's name, with its notation, loss and weight of the clean loss where other runs of that name have others.
    let private label (configs: Config list) : Config -> string =
        let kinds =
            configs
            |> List.distinctBy (fun config -> config.Method, config.Notation, config.Loss, config.CleanLoss)
            |> List.countBy _.Method
            |> Map.ofList

        fun config ->
            if kinds |> Map.tryFind config.Method |> Option.defaultValue 1 = 1 then
                config.Method
            else
                $"{config.Method} ({config.Notation}; {config.Loss}; clean loss {config.CleanLoss})"

    /// Lines or bars of the columns whose headings have a beginning and an ending, of what stands between.
    let private pictured (axis: string) (isOrdered: bool) (first: string) (last: string) (columns: PaperColumn list) =
        Some
            { Axis = axis
              IsOrdered = isOrdered
              Columns =
                [ for column in columns do
                      let heading = column.Heading

                      if heading.StartsWith first && heading.EndsWith last then
                          heading.Substring(first.Length, heading.Length - first.Length - last.Length), column ] }

    let private noPicture (_: PaperColumn list) : PaperPicture option = None

    let private fgsm = "fgsm, linf "

    let private isFgsm (column: PaperColumn) = column.Heading.StartsWith fgsm

    /// Tables of evaluations: their names and suites, titles, columns and pictures.
    let private ofSuites
        : (string * string * string * (PaperColumn -> bool) * (PaperColumn list -> PaperPicture option)) list =
        let all = fun (_: PaperColumn) -> true

        [ "clean", "clean", "Clean error of evaluated weights (tables 1, 2, 3, 11, 12)", all, noPicture
          "attacks", "attacks", "Error under attack (table 5)", isFgsm >> not, noPicture
          "fgsm",
          "attacks",
          "Error under FGSM (figure 5)",
          isFgsm,
          pictured "eps, L-infinity, in pixel units" true fgsm ", %"
          "deformed", "deformed", "Error on deformed images (tables 4, 10)", all, noPicture
          "corrupted",
          "corrupted",
          "Error on corrupted images, summed over severities (figure 4)",
          all,
          pictured "" false "" ", sum"
          "calibration", "calibration", "Calibration of evaluated weights", all, noPicture
          "activations", "activations", "Mean magnitude of activations (figures 7, 14)", all, pictured "" true "" ""
          "geometry", "geometry", "Median slack of hidden mixes, in radians (appendix C)", all, noPicture ]

    /// Every table that has records, and the titles of those that have none.
    let ofFound (found: Found) : PaperTable list * string list =
        let records = found.Records |> List.map fst

        let label =
            label ((records |> List.map _.Config) @ (found.Evaluations |> List.choose _.Config))

        let ablations =
            [ for study in Study.all do
                  if study.View <> StudyView.Times then
                      titleOf study, ablation records study ]

        /// Methods without a name, which are only in ablations.
        let isVariant =
            let configs = ablations |> List.collect (snd >> snd) |> HashSet
            fun (config: Config) -> configs.Contains config && not (isNamed config.Method)

        let runs =
            found.Records |> List.filter (fun (record, _) -> not (isVariant record.Config))

        let line (config: Config) values =
            { Setting = settings config
              Data = config.Data
              Network = network config
              Config = Some config
              Label = label config
              Values = values
              Caveat = None }

        let clean =
            runs
            |> List.map (fun (record, _) ->
                line
                    record.Config
                    [ column "test error, %" 2 Lower, record.TestError
                      column "test NLL" 3 Lower, record.TestNll ])

        let timed =
            [ for record, timing in runs do
                  match timing, timing |> Option.bind Records.epochSeconds with
                  | Some timing, Some seconds -> record.Config, timing.Jobs, seconds
                  | _ -> () ]

        let time =
            [ for config, jobs, seconds in timed do
                  let plain =
                      timed
                      |> List.tryPick (fun (other, otherJobs, seconds) ->
                          if
                              other.Method = "none"
                              && other.Seed = config.Seed
                              && otherJobs = jobs
                              && settings other = settings config
                          then
                              Some seconds
                          else
                              None)

                  let line =
                      line
                          config
                          [ column "seconds an epoch" 2 Lower, seconds
                            match plain with
                            | Some plain -> column "of none's" 3 Lower, seconds / plain
                            | None -> () ]

                  { line with
                      Setting = line.Setting @ [ "runs at a time", string jobs ] } ]

        /// Weights without a run's record are lines of their own; of those with one name, the files tell them apart.
        let ownLabel =
            let files =
                found.Evaluations
                |> List.filter _.Config.IsNone
                |> List.distinctBy (fun each -> each.Weights, each.Sha256)
                |> List.countBy _.Weights
                |> Map.ofList

            fun (each: Evaluation) ->
                if files[each.Weights] = 1 then
                    each.Weights
                else
                    $"{each.Weights} ({each.Sha256.Substring(0, min 8 each.Sha256.Length)})"

        let ofSuite suite isOwn =
            [ for each in found.Evaluations do
                  if each.Suite = suite then
                      { Setting =
                          (match each.Config with
                           | Some config -> settings config
                           | None -> [ "model", each.Model ])
                          @ evaluatedOn each
                        Data = each.Data
                        Network =
                          match each.Config with
                          | Some config -> network config
                          | None -> $"{each.Model}, weights without a run's record"
                        Config = each.Config
                        Label = each.Config |> Option.map label |> Option.defaultWith (fun () -> ownLabel each)
                        Values = numbers each |> List.filter (fst >> isOwn)
                        Caveat = caveat each } ]

        let all =
            [ let name, title =
                  "trained", "Clean error of trained networks (tables 1, 2, 3, 11, 12)"

              let found = tables name title true noPicture clean
              title, found @ sideBySide $"{name}-side-by-side" $"{title}, side by side" found

              for name, suite, title, isOwn, picture in ofSuites do
                  title, tables name title (suite = "clean") picture (ofSuite suite isOwn)

              for title, (tables, _) in ablations do
                  title, tables

              let title = "Training time (table 8)"
              title, tables "time" title false noPicture time ]

        List.collect snd all,
        [ for title, tables in all do
              if tables.IsEmpty then
                  title ]

    let private draw (table: PaperTable) (picture: PaperPicture) (path: string) : unit =
        let indices =
            [ for _, column in picture.Columns -> List.findIndex ((=) column) table.Columns ]

        Charts.methods
            picture.IsOrdered
            (PaperTable.title table)
            picture.Axis
            (List.map fst picture.Columns)
            [ for row in table.Rows ->
                  row.Method,
                  [ for i in indices ->
                        match row.Cells[i] with
                        | [] -> None
                        | values -> Some(Statistics.spread values) ] ]
            path

    /// Of the file that lists what was written into a folder.
    let private listing = "tables.json"

    /// Writes NAME.md, NAME.csv and NAME.tex of every table into a folder that is there, and NAME.png of those that have a picture; of what an earlier call
    /// wrote there, and this one does not, the files are removed.
    let write (folder: string) (tables: PaperTable list) : unit =
        let files =
            [ for table in tables do
                  for ending in [ "md"; "csv"; "tex" ] do
                      $"{table.Name}.{ending}"

                  if table.Picture.IsSome then
                      $"{table.Name}.png" ]

        let list = Path.Combine(folder, listing)

        let before: string list =
            if File.Exists list then
                Errors.reading list (fun () -> File.ReadAllText list)
                |> Json.tryRead
                |> Option.filter (box >> isNull >> not)
                |> Option.defaultValue []
            else
                []

        for old in before do
            // Names only: a list that was changed removes nothing elsewhere.
            if not (List.contains old files) && Path.GetFileName old = old then
                Errors.reading old (fun () -> File.Delete(Path.Combine(folder, old)))

        Json.write list files

        for table in tables do
            let path (ending: string) =
                Path.Combine(folder, $"{table.Name}.{ending}")

            for ending, show in [ "md", PaperTable.markdown; "csv", PaperTable.csv; "tex", PaperTable.latex ] do
                Errors.writing (path ending) (fun stream -> stream.Write(Encoding.UTF8.GetBytes(show table + "\n")))

            table.Picture |> Option.iter (fun picture -> draw table picture (path "png"))
