namespace PatchUp.Repro

open System
open System.Globalization
open System.IO
open System.Text
open System.Text.Json.Nodes

/// Which of a column's means is the best.
type Better =
    | Lower
    | Higher
    /// The numbers do not rank methods.
    | Neither

/// A column of a table.
type PaperColumn =
    {
        Heading: string
        /// After the decimal point.
        Digits: int
        Better: Better
        /// Of published numbers: where they stand. None for the program's own.
        Source: string option
    }

/// A method: for every column, its values over the seeds, of which there may be none.
type PaperRow =
    { Method: string
      Cells: float list list }

/// A table as the paper has it: one choice of data, network and settings.
type PaperTable =
    {
        /// Of its files, without their ending.
        Name: string
        Title: string
        Columns: PaperColumn list
        Rows: PaperRow list
        /// What the numbers hold for.
        Notes: string list
    }

/// Tables as Markdown, CSV and LaTeX.
[<RequireQualifiedAccess>]
module PaperTable =

    let private number digits (value: float) =
        value.ToString($"F{digits}", CultureInfo.InvariantCulture)

    /// Whether each cell of a column is a best one, as far as its digits tell: what is shown equal is equally good. Published columns have no best.
    let best (column: PaperColumn) (cells: float list list) : bool list =
        let shown (values: float list) =
            Math.Round(List.average values, column.Digits)

        let means = cells |> List.filter (List.isEmpty >> not) |> List.map shown

        let target =
            match column.Source, column.Better, means with
            | None, Lower, _ :: _ -> Some(List.min means)
            | None, Higher, _ :: _ -> Some(List.max means)
            | _ -> None

        cells
        |> List.map (fun values -> not values.IsEmpty && target = Some(shown values))

    /// The cells as text, of which `bold` marks the best and `plusMinus` stands before the deviation.
    let private texts (bold: string -> string) (plusMinus: string) (table: PaperTable) : string list list =
        let bests =
            table.Columns
            |> List.mapi (fun i column -> table.Rows |> List.map (fun row -> row.Cells[i]) |> best column)

        table.Rows
        |> List.mapi (fun r row ->
            List.zip table.Columns row.Cells
            |> List.mapi (fun c (column, values) ->
                if values.IsEmpty then
                    "missing"
                else
                    let spread = Statistics.spread values
                    let mean = number column.Digits spread.Mean

                    let text =
                        match spread.Deviation with
                        | Some deviation -> $"{mean}{plusMinus}{number column.Digits deviation}"
                        | None -> mean

                    if bests[c][r] then bold text else text))

    let private heading (column: PaperColumn) =
        match column.Source with
        | Some source -> $"{column.Heading} ({source})"
        | None -> column.Heading

    /// With the title as a heading; the best means are bold.
    let markdown (table: PaperTable) : string =
        let line (cells: string list) =
            "| "
            + String.Join(" | ", cells |> List.map (fun cell -> cell.Replace("|", "\\|")))
            + " |"

        let rows =
            texts (fun text -> $"**{text}**") " ± " table
            |> List.map2 (fun (row: PaperRow) cells -> line ($"`{row.Method}`" :: cells)) table.Rows

        let header = "method" :: List.map heading table.Columns

        String.concat
            "\n\n"
            ([ $"## {table.Title}"
               line header :: line (header |> List.map (fun _ -> "---")) :: rows
               |> String.concat "\n" ]
             @ table.Notes)

    /// A line for every cell that is not missing: method, column, source, mean, deviation and how many seeds; numbers unrounded.
    let csv (table: PaperTable) : string =
        let cell (text: string) =
            if text.IndexOfAny [| ','; '"'; '\n' |] >= 0 then
                "\"" + text.Replace("\"", "\"\"") + "\""
            else
                text

        let exact (value: float) =
            value.ToString("R", CultureInfo.InvariantCulture)

        [ [ "method"; "column"; "source"; "mean"; "sd"; "seeds" ]
          for row in table.Rows do
              for column, values in List.zip table.Columns row.Cells do
                  let source = Option.defaultValue "" column.Source

                  if values.IsEmpty then
                      [ row.Method; column.Heading; source; ""; ""; "0" ]
                  else
                      let spread = Statistics.spread values

                      [ row.Method
                        column.Heading
                        source
                        exact spread.Mean
                        spread.Deviation |> Option.map exact |> Option.defaultValue ""
                        string values.Length ] ]
        |> List.map (List.map cell >> String.concat ",")
        |> String.concat "\n"

    /// Text as LaTeX prints it.
    let escape (text: string) : string =
        let shown (c: char) =
            match c with
            | '\\' -> "\\textbackslash{}"
            | '~' -> "\\textasciitilde{}"
            | '^' -> "\\textasciicircum{}"
            | '<' -> "\\textless{}"
            | '>' -> "\\textgreater{}"
            | '|' -> "\\textbar{}"
            | '&'
            | '%'
            | '$'
            | '#'
            | '_'
            | '{'
            | '}' -> $"\\{c}"
            | other -> string other

        text |> Seq.map shown |> String.concat ""

    /// A `table` with a caption, for a document with no package beside LaTeX's own.
    let latex (table: PaperTable) : string =
        let line cells = String.concat " & " cells + " \\\\"
        let columns = String('r', table.Columns.Length)

        [ "\\begin{table}"
          "\\caption{" + escape table.Title + "}"
          "\\begin{tabular}{l" + columns + "}"
          "\\hline"
          line ("method" :: (table.Columns |> List.map (heading >> escape)))
          "\\hline"
          for row, cells in List.zip table.Rows (texts (fun text -> "\\textbf{" + text + "}") " $\\pm$ " table) do
              line (escape row.Method :: cells)
          "\\hline"
          "\\end{tabular}"
          for note in table.Notes do
              ""
              escape note
          "\\end{table}" ]
        |> String.concat "\n"

/// The paper's tables from the records of a results folder.
[<RequireQualifiedAccess>]
module PaperTables =

    /// Numbers that others published: data, what and where, and the methods' errors in percent.
    let published: (string * string * (string * float) list) list =
        let openMixup epochs =
            $"OpenMixup, ResNet-18, {epochs} epochs"

        let five numbers =
            List.zip [ "none"; "mixup"; "cutmix"; "manifold-mixup"; "puzzlemix" ] numbers

        let imageNet =
            [ "none"
              "mixup"
              "cutout"
              "manifold-mixup"
              "feature-cutmix"
              "cutmix"
              "puzzlemix" ]

        [ "CIFAR-10", openMixup 200, five [ 5.13; 4.30; 3.89; 3.96; 3.58 ]
          "CIFAR-10", openMixup 1200, five [ 4.41; 3.16; 3.44; 2.98; 2.87 ]
          "CIFAR-10", "Cutout's authors, WRN-28-10", [ "none", 3.87; "cutout", 3.08 ]
          "CIFAR-10", "Cutout's authors, ResNet-18", [ "none", 4.72; "cutout", 3.99 ]
          "CIFAR-100", openMixup 200, five [ 23.58; 21.48; 20.55; 20.82; 20.04 ]
          "CIFAR-100", openMixup 1200, five [ 21.45; 20.76; 21.71; 19.79; 18.90 ]
          "CIFAR-100", "OpenMixup, WRN-28-8, 400 epochs", five [ 18.37; 17.18; 15.55; 16.76; 14.98 ]
          "CIFAR-100", "Cutout's authors, WRN-28-10", [ "none", 18.8; "cutout", 18.41 ]
          "CIFAR-100", "Cutout's authors, ResNet-18", [ "none", 22.46; "cutout", 21.96 ]
          "Tiny-ImageNet", "OpenMixup, ResNet-18, 400 epochs", five [ 38.32; 36.14; 34.47; 35.85; 34.19 ]
          "ImageNet",
          "CutMix's and PuzzleMix's authors, ResNet-50, 300 epochs",
          List.zip imageNet [ 23.68; 22.58; 22.93; 22.50; 21.80; 21.40; 21.24 ] ]

    let private column heading digits better =
        { Heading = heading
          Digits = digits
          Better = better
          Source = None }

    let private short (value: float) =
        value.ToString("G4", CultureInfo.InvariantCulture)

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

    /// What an evaluation's numbers depend on beside its network, its images and its seed.
    let private manner (found: Evaluation) : string =
        let text = found.Result.ToJsonString()

        match found.Suite with
        | "attacks" ->
            match Json.tryRead<AttackReport> text with
            | Some report -> $", preset {report.Preset}"
            | None -> ""
        | "corrupted" ->
            match Json.tryRead<CorruptedResult> text with
            | Some result -> $", images {result.Errors.Source}"
            | None -> ""
        | _ -> ""

    /// What a folder holds.
    type Found =
        { Records: (Record * Timing option) list
          Evaluations: Evaluation list }

    let private readAll<'a> (warn: string -> unit) (isSound: 'a -> bool) (folder: string) : (string * 'a) list =
        [ if Directory.Exists folder then
              for path in Directory.GetFiles(folder, "*.json") |> Array.sort do
                  match Errors.reading path (fun () -> File.ReadAllText path) |> Json.tryRead<'a> with
                  | Some value when not (isNull (box value)) && isSound value -> path, value
                  | _ -> warn $"{path}: damaged, or of another version of this program; it is left out." ]

    /// All records of a folder; `warn` is told of every damaged one. A UserError where there is none at all.
    let read (warn: string -> unit) (folder: string) : Found =
        let part (name: string) = Path.Combine(folder, name)

        let isConfig (config: Config) =
            not (isNull (box config) || isNull config.Method)

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
                        && (found.Suite = "calibration" || not (numbers found).IsEmpty))
                    (part "evaluations")
                |> List.map snd }

        if found.Records.IsEmpty && found.Evaluations.IsEmpty then
            Errors.user
                $"{folder}: no records there; name a results folder of 'patchup train', 'compare' or 'sweep run', or evaluate its weights."

        found

    /// Everything of a configuration that two runs of one table share.
    let private settings (config: Config) : string =
        Json.line
            { config with
                Method = ""
                Notation = ""
                Loss = ""
                CleanLoss = 0.0
                Seed = 0 }

    /// A run's method and numbers by column.
    type private Line =
        { Setting: string
          Data: string
          Config: Config option
          Label: string
          Values: (PaperColumn * float) list }

    /// The published columns of a data set.
    let private known (data: string) =
        published
        |> List.filter (fun (name, _, _) ->
            data.StartsWith(name, StringComparison.OrdinalIgnoreCase)
            && (data.Length = name.Length || not (Char.IsDigit data[name.Length])))
        |> List.map (fun (_, source, errors) ->
            { column "published error, %" 2 Neither with
                Source = Some source },
            Map.ofList errors)

    /// A table for each choice of settings.
    let private tables (name: string) (title: string) (withPublished: bool) (lines: Line list) : PaperTable list =
        let groups = lines |> List.groupBy _.Setting

        groups
        |> List.mapi (fun i (_, lines) ->
            let columns = lines |> List.collect (_.Values >> List.map fst) |> List.distinct
            let extra = if withPublished then known lines.Head.Data else []

            let methods =
                (lines |> List.map _.Label)
                @ (extra |> List.collect (snd >> Map.toList >> List.map fst))
                |> List.distinct

            let which = if groups.Length = 1 then "" else $"-{i + 1}"

            let network =
                match lines.Head.Config with
                | Some config ->
                    let width =
                        config.Width
                        |> Option.map (fun width -> $" of width {width}")
                        |> Option.defaultValue ""

                    $"{config.Model}{width}"
                | None -> "weights without a run's record"

            let seeds =
                lines
                |> List.choose (_.Config >> Option.map _.Seed)
                |> List.distinct
                |> List.sort
                |> List.map string
                |> String.concat ", "

            { Name = name + which
              Title = $"{title}: {lines.Head.Data}, {network}"
              Columns = columns @ List.map fst extra
              Rows =
                [ for label in methods ->
                      { Method = label
                        Cells =
                          [ for column in columns ->
                                [ for line in lines do
                                      if line.Label = label then
                                          for other, value in line.Values do
                                              if other = column then
                                                  value ] ]
                          @ [ for _, errors in extra -> errors |> Map.tryFind label |> Option.toList ] } ]
              Notes =
                [ match lines.Head.Config with
                  | Some _ ->
                      $"Mean ± standard deviation over seeds ({seeds}); one seed has no deviation. Settings: {lines.Head.Setting}"
                  | None -> ()
                  if not extra.IsEmpty then
                      "Published numbers are of the whole data set and the networks that they name; they are not to be ranked with these." ] })

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

    let private suites =
        [ "clean", "Clean error of evaluated weights (tables 1, 2, 3, 11, 12)"
          "attacks", "Error under attack (table 5, figure 5)"
          "deformed", "Error on deformed images (tables 4, 10)"
          "corrupted", "Error on corrupted images, summed over severities (figure 4)"
          "activations", "Mean magnitude of activations (figures 7, 14)"
          "geometry", "Median slack of hidden mixes, in radians (appendix C)" ]

    /// Every table that has records, and the titles of those that have none.
    let ofFound (found: Found) : PaperTable list * string list =
        let runs = found.Records |> List.map (fst >> _.Config)
        let label = label (runs @ (found.Evaluations |> List.choose _.Config))

        let line (config: Config) values =
            { Setting = settings config
              Data = config.Data
              Config = Some config
              Label = label config
              Values = values }

        let clean =
            found.Records
            |> List.map (fun (record, _) ->
                line
                    record.Config
                    [ column "test error, %" 2 Lower, record.TestError
                      column "test NLL" 3 Lower, record.TestNll ])

        let timed =
            [ for record, timing in found.Records do
                  match timing with
                  | Some timing when not timing.EpochSeconds.IsEmpty -> record.Config, List.average timing.EpochSeconds
                  | _ -> () ]

        let time =
            [ for config, seconds in timed do
                  let plain =
                      timed
                      |> List.tryFind (fun (other, _) ->
                          other.Method = "none"
                          && other.Seed = config.Seed
                          && settings other = settings config)

                  line
                      config
                      [ column "seconds an epoch" 2 Lower, seconds
                        match plain with
                        | Some(_, plain) -> column "of none's" 3 Lower, seconds / plain
                        | None -> () ] ]

        let ofSuite suite =
            [ for each in found.Evaluations do
                  if each.Suite = suite then
                      let own =
                          $"evaluated on {each.Images} images of {each.Data} ({each.Fingerprint}), seed {each.Seed}, \
                            threads {each.Threads}, {each.Device}, recipe {each.Recipe}{manner each}"

                      { Setting =
                          match each.Config with
                          | Some config -> $"{settings config}; {own}"
                          | None -> $"{each.Model}; {own}"
                        Data = each.Data
                        Config = each.Config
                        Label = each.Config |> Option.map label |> Option.defaultValue each.Weights
                        Values = numbers each } ]

        let all =
            [ "trained", "Clean error of trained networks (tables 1, 2, 3, 11, 12)", true, clean
              for suite, title in suites do
                  suite, title, false, ofSuite suite
              "time", "Training time (table 8)", false, time ]

        all
        |> List.collect (fun (name, title, published, lines) -> tables name title published lines),
        [ for _, title, _, lines in all do
              if lines.IsEmpty then
                  title ]

    /// Writes NAME.md, NAME.csv and NAME.tex of every table into a folder that is there.
    let write (folder: string) (tables: PaperTable list) : unit =
        for table in tables do
            for ending, show in [ "md", PaperTable.markdown; "csv", PaperTable.csv; "tex", PaperTable.latex ] do
                Errors.writing (Path.Combine(folder, $"{table.Name}.{ending}")) (fun stream ->
                    stream.Write(Encoding.UTF8.GetBytes(show table + "\n")))
