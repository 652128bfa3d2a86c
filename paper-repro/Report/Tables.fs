namespace PatchUp.Repro

open System
open System.Globalization

/// A method's results over the seeds.
type Row =
    {
        Method: string
        Notation: string
        Loss: string
        /// In percent.
        TestError: Spread
        TestNll: Spread
        /// Of the test error, from the first method's with the same seed, in points; the first method has none.
        Difference: Interval option
    }

/// What `compare` found.
type Comparison =
    {
        Rows: Row list
        /// What was trained, and how the numbers are to be read.
        Notes: string list
        Runs: Record list
    }

/// Results as text.
[<RequireQualifiedAccess>]
module Tables =

    /// Columns side by side, each as wide as its widest cell.
    let aligned (header: string list) (rows: string list list) : string =
        let widths =
            header :: rows
            |> List.transpose
            |> List.map (fun column -> column |> List.map String.length |> List.max)

        let rule = widths |> List.map (fun width -> String('-', width))

        header :: rule :: rows
        |> List.map (fun cells ->
            String.Join("  ", List.map2 (fun (cell: string) width -> cell.PadRight width) cells widths).TrimEnd())
        |> String.concat "\n"

    /// The same for Markdown.
    let ruled (header: string list) (rows: string list list) : string =
        let line (cells: string list) =
            "| "
            + String.Join(" | ", cells |> List.map (fun cell -> cell.Replace("|", "\\|")))
            + " |"

        line header :: line (header |> List.map (fun _ -> "---")) :: List.map line rows
        |> String.concat "\n"

    /// The same as comma-separated values, quoted where they have to be.
    let separated (header: string list) (rows: string list list) : string =
        let cell (text: string) =
            if text.IndexOfAny [| ','; '"'; '\n' |] >= 0 then
                "\"" + text.Replace("\"", "\"\"") + "\""
            else
                text

        header :: rows
        |> List.map (List.map cell >> String.concat ",")
        |> String.concat "\n"

    let private listed (values: 'a list) =
        values |> List.distinct |> List.map string |> String.concat ", "

    /// A number, with commas between thousands.
    let count (value: int64) : string =
        value.ToString("N0", CultureInfo.InvariantCulture)

    /// How the learning rate goes, and what else the optimiser does.
    let private optimiser (config: Config) : string =
        let share (value: float) =
            match value with
            | 0.25 -> "1/4"
            | 0.5 -> "1/2"
            | 0.75 -> "3/4"
            | other -> string other

        let curve =
            match config.Schedule, List.map share config.Milestones with
            | "multi-step", [] -> ""
            | "multi-step", [ one ] -> $", divided by ten at {one} of the epochs"
            | "multi-step", several ->
                let last = List.last several
                let others = several |> List.truncate (several.Length - 1) |> String.concat ", "
                $", divided by ten at {others} and {last} of the epochs"
            | name, _ -> $", {name}"

        [ $"learning rate {config.LearningRate}{curve}"
          if config.Warmup > 0.0 then
              $"warm-up of {config.Warmup} epochs"
          if config.ClipNorm > 0.0 then
              $"gradients clipped to a norm of {config.ClipNorm}"
          if config.EmaDecay > 0.0 then
              $"weights averaged with the decay {config.EmaDecay}" ]
        |> String.concat ", "

    /// What was trained, and how the numbers are to be read; from at least one record.
    let notes (records: Record list) : string list =
        let config = records.Head.Config
        let held = 100.0 * config.ValidationShare
        let seeds = records |> List.map _.Config.Seed |> listed

        let width =
            config.Width
            |> Option.map (fun width -> $" of width {width}")
            |> Option.defaultValue ""

        let images what perClass =
            if perClass = 0 then
                $"all {what} images"
            else
                $"{count (int64 perClass)} {what} images a class"

        let training, test =
            images "training" config.TrainPerClass, images "test" config.TestPerClass

        [ $"{config.Data}: {training}, {held:F0} %% of them held out for \
            validation, and {test}. {config.Model}{width} \
            ({records.Head.Parameters:N0} parameters); epochs: {config.Epochs}, batch size \
            {config.BatchSize}, {optimiser config}; \
            seeds: {seeds}; threads: {config.Threads}. The best epoch by validation is tested once."
          "A seed gives every method the same initial weights, split, order and augmentation; differences are paired \
           by seed, with Student-t intervals. Few seeds, short training and narrow networks order nothing: read the \
           intervals, not the ranks. Strong mixing under-fits at a small scale." ]

    /// Groups records by method in their order; every method has the same seeds as the first.
    let compare (records: Record list) : Comparison =
        let errors = List.map (fun (record: Record) -> record.TestError)

        let groups =
            records
            |> List.groupBy _.Config.Method
            |> List.map (fun (_, group) -> group |> List.sortBy _.Config.Seed)

        { Rows =
            groups
            |> List.mapi (fun i group ->
                { Method = group.Head.Config.Method
                  Notation = group.Head.Config.Notation
                  Loss = group.Head.Config.Loss
                  TestError = Statistics.spread (errors group)
                  TestNll = group |> List.map _.TestNll |> Statistics.spread
                  Difference =
                    if i = 0 then
                        None
                    else
                        Some(Statistics.pairedDifference (errors groups.Head) (errors group)) })
          Notes = notes records
          Runs = List.concat groups }

    let private number (digits: int) (value: float) =
        value.ToString($"F{digits}", CultureInfo.InvariantCulture)

    /// With its sign and two digits.
    let signed (value: float) =
        value.ToString("+0.00;-0.00;0.00", CultureInfo.InvariantCulture)

    /// Mean and standard deviation, with so many digits.
    let spread (digits: int) (spread: Spread) : string =
        let deviation =
            spread.Deviation |> Option.map (number digits) |> Option.defaultValue "-"

        $"{number digits spread.Mean} ± {deviation}"

    let private header (comparison: Comparison) =
        [ "method"
          "test error, %"
          "test NLL"
          $"difference from {comparison.Rows.Head.Method}, points"
          "95 % interval" ]

    let private cells (row: Row) =
        let interval =
            row.Difference
            |> Option.bind (fun interval -> interval.HalfWidth |> Option.map (fun half -> interval.Centre, half))

        [ row.Method
          spread 2 row.TestError
          spread 3 row.TestNll
          row.Difference
          |> Option.map (fun interval -> signed interval.Centre)
          |> Option.defaultValue "-"
          (match interval with
           | Some(centre, half) -> $"[{signed (centre - half)}, {signed (centre + half)}]"
           | None -> "-") ]

    /// For a terminal: the table, each method's notation and loss, and the notes.
    let text (comparison: Comparison) : string =
        let methods =
            comparison.Rows
            |> List.map (fun row -> [ row.Method; row.Loss; row.Notation ])
            |> aligned [ "method"; "loss"; "notation" ]

        [ aligned (header comparison) (List.map cells comparison.Rows); methods ]
        @ comparison.Notes
        |> String.concat "\n\n"

    /// For a README.
    let markdown (comparison: Comparison) : string =
        let header = header comparison @ [ "notation"; "loss" ]

        let rows =
            comparison.Rows
            |> List.map (fun row -> $"`{row.Method}`" :: (cells row).Tail @ [ $"`{row.Notation}`"; row.Loss ])

        String.concat "\n\n" (ruled header rows :: comparison.Notes)

    /// A line of numbers for each method, unrounded; a number that there is not is left empty.
    let csv (comparison: Comparison) : string =
        let number (value: float) =
            value.ToString("R", CultureInfo.InvariantCulture)

        let optional value =
            value |> Option.map number |> Option.defaultValue ""

        let header =
            [ "method"
              "notation"
              "loss"
              "seeds"
              "test_error_mean"
              "test_error_sd"
              "test_nll_mean"
              "test_nll_sd" ]
            @ [ "difference"; "difference_half_width_95" ]

        let rows =
            comparison.Rows
            |> List.map (fun row ->
                [ row.Method
                  row.Notation
                  row.Loss
                  string (
                      comparison.Runs
                      |> List.filter (fun run -> run.Config.Method = row.Method)
                      |> List.length
                  )
                  number row.TestError.Mean
                  optional row.TestError.Deviation
                  number row.TestNll.Mean
                  optional row.TestNll.Deviation
                  optional (row.Difference |> Option.map _.Centre)
                  optional (row.Difference |> Option.bind _.HalfWidth) ])

        separated header rows
