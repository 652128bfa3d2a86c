namespace PatchUp.Repro

open System
open System.Globalization

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
    {
        Method: string
        Cells: float list list
        /// Why its numbers are not to be ranked with others'; None where they are.
        Caveat: string option
    }

/// What a picture of a table shows: bars, or lines where the columns have an order.
type PaperPicture =
    {
        /// What the columns are.
        Axis: string
        IsOrdered: bool
        /// With what stands below each.
        Columns: (string * PaperColumn) list
    }

/// A table as the paper has it: one choice of data, network and settings.
type PaperTable =
    {
        /// Of its files, without their ending.
        Name: string
        Title: string
        /// Data and network; empty where the columns have several.
        Where: string
        Columns: PaperColumn list
        /// Whether the program's columns are one quantity, so that the best is the best cell of them all, not of each column.
        IsOneScale: bool
        Rows: PaperRow list
        /// None where the paper has no figure of it.
        Picture: PaperPicture option
        /// What the numbers hold for.
        Notes: string list
    }

/// Tables as Markdown, CSV and LaTeX.
[<RequireQualifiedAccess>]
module PaperTable =

    let private number digits (value: float) =
        let text = value.ToString($"F{digits}", CultureInfo.InvariantCulture)
        // What rounds to nothing has no sign.
        if text.TrimStart('-').Trim('0', '.') = "" then
            text.TrimStart '-'
        else
            text

    /// Whether each cell of a column is a best one, as far as its digits tell: what is shown equal is equally good. Published columns have no best.
    let best (column: PaperColumn) (cells: float list list) : bool list =
        let shown (values: float list) =
            Double.Parse(number column.Digits (Statistics.spread values).Mean, CultureInfo.InvariantCulture)

        let means = cells |> List.filter (List.isEmpty >> not) |> List.map shown

        let target =
            match column.Source, column.Better, means with
            | None, Lower, _ :: _ -> Some(List.min means)
            | None, Higher, _ :: _ -> Some(List.max means)
            | _ -> None

        cells
        |> List.map (fun values -> not values.IsEmpty && target = Some(shown values))

    let private isOwn (column: PaperColumn) = column.Source.IsNone

    /// The largest number of seeds that a cell of the program's has.
    let private seeds (table: PaperTable) : int =
        [ for row in table.Rows do
              for column, values in List.zip table.Columns row.Cells do
                  if isOwn column then
                      values.Length ]
        |> List.fold max 0

    /// The cells as text, of which `bold` marks the best and `plusMinus` stands before the deviation.
    let private texts (bold: string -> string) (plusMinus: string) (table: PaperTable) : string list list =
        let seeds = seeds table

        let cells i =
            table.Rows
            |> List.map (fun row -> if row.Caveat.IsSome then [] else row.Cells[i])

        let bests =
            if table.IsOneScale then
                List.indexed table.Columns
                |> List.collect (fst >> cells)
                |> best table.Columns.Head
                |> List.chunkBySize table.Rows.Length
            else
                table.Columns |> List.mapi (fun i column -> best column (cells i))

        table.Rows
        |> List.mapi (fun r row ->
            List.zip table.Columns row.Cells
            |> List.mapi (fun c (column, values) ->
                if values.IsEmpty then
                    if column.Source.IsSome then "-" else "missing"
                else
                    let spread = Statistics.spread values
                    let mean = number column.Digits spread.Mean

                    let text =
                        match spread.Deviation with
                        | Some deviation -> $"{mean}{plusMinus}{number column.Digits deviation}"
                        | None -> mean

                    (if bests[c][r] then bold text else text)
                    + (if isOwn column && values.Length < seeds then
                           $" ({values.Length})"
                       else
                           "")))

    /// The methods, those with a caveat marked.
    let private methods (dagger: string) (quote: string -> string) (table: PaperTable) : string list =
        [ for row in table.Rows ->
              match row.Caveat with
              | Some _ -> $"{quote row.Method} {dagger}"
              | None -> quote row.Method ]

    /// Of the table, and of what is marked in it.
    let private notes (table: PaperTable) : string list =
        let seeds = seeds table

        [ yield! table.Notes
          if
              table.Rows
              |> List.exists (fun row ->
                  List.zip table.Columns row.Cells
                  |> List.exists (fun (column, values) -> isOwn column && not values.IsEmpty && values.Length < seeds))
          then
              $"In brackets after a cell: how many seeds it is of, where these are not {seeds}; means of other seeds are not to be compared closely."
          for row in table.Rows do
              match row.Caveat with
              | Some caveat -> $"† {row.Method}: {caveat}; it is not ranked."
              | None -> () ]

    /// What it is of.
    let title (table: PaperTable) : string =
        if table.Where = "" then
            table.Title
        else
            $"{table.Title}: {table.Where}"

    let private heading (column: PaperColumn) =
        match column.Source with
        | Some source -> $"{column.Heading} ({source})"
        | None -> column.Heading

    /// With the title as a heading; the best means are bold.
    let markdown (table: PaperTable) : string =
        let rows =
            texts (fun text -> $"**{text}**") " ± " table
            |> List.map2 (fun name cells -> name :: cells) (methods "†" (fun name -> $"`{name}`") table)

        [ $"## {title table}"
          Tables.ruled ("method" :: List.map heading table.Columns) rows ]
        @ notes table
        |> String.concat "\n\n"

    /// A line for every cell: method, column, source, mean, deviation, how many seeds, and why it is not to be ranked; numbers unrounded, empty where they
    /// are missing.
    let csv (table: PaperTable) : string =
        let exact (value: float) =
            value.ToString("R", CultureInfo.InvariantCulture)

        [ for row in table.Rows do
              for column, values in List.zip table.Columns row.Cells do
                  let source = Option.defaultValue "" column.Source
                  let caveat = Option.defaultValue "" row.Caveat

                  if values.IsEmpty then
                      [ row.Method; column.Heading; source; ""; ""; "0"; caveat ]
                  else
                      let spread = Statistics.spread values

                      [ row.Method
                        column.Heading
                        source
                        exact spread.Mean
                        spread.Deviation |> Option.map exact |> Option.defaultValue ""
                        string values.Length
                        caveat ] ]
        |> Tables.separated [ "method"; "column"; "source"; "mean"; "sd"; "seeds"; "caveat" ]

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
          "\\caption{" + escape (title table) + "}"
          "\\begin{tabular}{l" + columns + "}"
          "\\hline"
          line ("method" :: (table.Columns |> List.map (heading >> escape)))
          "\\hline"
          for name, cells in
              List.zip
                  (methods "$\\dagger$" escape table)
                  (texts (fun text -> "\\textbf{" + text + "}") " $\\pm$ " table) do
              line (name :: cells)
          "\\hline"
          "\\end{tabular}"
          for note in notes table do
              ""
              (escape note).Replace("†", "$\\dagger$")
          "\\end{table}" ]
        |> String.concat "\n"
