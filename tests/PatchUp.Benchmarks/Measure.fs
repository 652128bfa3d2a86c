/// Times variants of one thing side by side: every round runs each of them once.
module PatchUp.Benchmarks.Measure

open System
open System.Diagnostics
open System.Globalization
open System.IO
open TorchSharp

/// Something to time.
type Variant = { Name: string; Run: unit -> unit }

/// Variants to compare in one process.
type Group =
    {
        Title: string
        /// The names of the variants that each of the others is put in proportion to.
        References: string list
        Variants: Variant list
        /// What is wanted of a variant.
        Targets: (string * Bound) list
        Rounds: int
    }

/// What a variant's time is to be at most.
and Bound =
    /// So many times that of another one, in the same round.
    | Share of reference: string * float
    | Milliseconds of float

/// The median and the middle half.
type Spread =
    { Median: float
      Low: float
      High: float }

/// A variant's time as a share of a reference's in the same round.
type Ratio = { To: string; Ratio: Spread }

/// One variant's result.
type Row =
    { Name: string
      Milliseconds: Spread
      Ratios: Ratio list }

/// What was wanted, and what was found.
type Verdict =
    { Wanted: string
      Found: float
      IsReached: bool }

/// A group's result.
type Result =
    { Title: string
      Rounds: int
      Rows: Row list
      Targets: Verdict list }

let private invariant (value: float) (format: string) =
    value.ToString(format, CultureInfo.InvariantCulture)

let spread (values: float[]) : Spread =
    let sorted = Array.sort values

    let at (share: float) =
        sorted[int (Math.Round(share * float (sorted.Length - 1)))]

    { Median = at 0.5
      Low = at 0.25
      High = at 0.75 }

let private time (variant: Variant) =
    let start = Stopwatch.GetTimestamp()
    variant.Run()
    Stopwatch.GetElapsedTime(start).TotalMilliseconds

/// Runs a group; each variant is warmed up before the first round.
let run (group: Group) : Result =
    for variant in group.Variants do
        for _ in 1 .. min 3 group.Rounds do
            variant.Run()

    let times =
        [ for _ in 1 .. group.Rounds -> group.Variants |> List.map (fun variant -> variant.Name, time variant) |> Map ]

    let ratio name reference =
        times
        |> List.map (fun round -> round[name] / round[reference])
        |> Array.ofList
        |> spread

    let milliseconds name =
        times |> List.map (fun round -> round[name]) |> Array.ofList |> spread

    let judged (name, bound) =
        let most, unit, found =
            match bound with
            | Share(reference, most) -> most, $" of '{reference}'", (ratio name reference).Median
            | Milliseconds most -> most, " ms", (milliseconds name).Median

        let limit = invariant most "0.###"

        { Wanted = $"{name}: at most {limit}{unit}"
          Found = found
          IsReached = found <= most }

    { Title = group.Title
      Rounds = group.Rounds
      Rows =
        [ for variant in group.Variants ->
              { Name = variant.Name
                Milliseconds = milliseconds variant.Name
                Ratios =
                  [ for reference in group.References do
                        if reference <> variant.Name then
                            { To = reference
                              Ratio = ratio variant.Name reference } ] } ]
      Targets = List.map judged group.Targets }

/// A result as Markdown.
let markdown (result: Result) : string =
    let references =
        result.Rows |> List.collect _.Ratios |> List.map _.To |> List.distinct

    let line cells = "| " + String.concat " | " cells + " |"

    let digits value =
        invariant
            value
            (if value < 1.0 then "0.000"
             elif value < 100.0 then "0.00"
             else "0")

    let row (row: Row) =
        let ratios =
            references
            |> List.map (fun reference ->
                match row.Ratios |> List.tryFind (fun ratio -> ratio.To = reference) with
                | None -> ""
                | Some { Ratio = ratio } -> $"{digits ratio.Median} ({digits ratio.Low} .. {digits ratio.High})")

        let ms = row.Milliseconds
        line ([ row.Name; digits ms.Median; $"{digits ms.Low} .. {digits ms.High}" ] @ ratios)

    let targets =
        result.Targets
        |> List.map (fun target ->
            let verdict = if target.IsReached then "reached" else "not reached"
            $"- {target.Wanted}: {digits target.Found}, {verdict}")

    [ $"### {result.Title}"
      ""
      $"{result.Rounds} rounds."
      ""
      line (
          [ ""; "ms"; "middle half" ]
          @ (references |> List.map (fun name -> $"of {name}"))
      )
      line (List.replicate (3 + references.Length) "---") ]
    @ List.map row result.Rows
    @ (if targets.IsEmpty then [] else "" :: targets)
    |> String.concat "\n"

/// What the figures depend on beside the program.
type Machine =
    {
        Processor: string
        Cores: int
        NativeThreads: int
        /// Environment variables that change OpenMP's waiting or the C library's allocator, as they are set.
        Environment: string list
    }

let machine () : Machine =
    let processor =
        let path = "/proc/cpuinfo"

        if File.Exists path then
            File.ReadLines path
            |> Seq.tryFind (fun line -> line.StartsWith "model name")
            |> Option.map (fun line -> line.Substring(line.IndexOf ':' + 1).Trim())
        else
            None

    { Processor = defaultArg processor "unknown"
      Cores = Environment.ProcessorCount
      NativeThreads = torch.get_num_threads ()
      Environment =
        [ for name in
              [ "OMP_WAIT_POLICY"
                "OMP_NUM_THREADS"
                "GLIBC_TUNABLES"
                "MALLOC_TRIM_THRESHOLD_"
                "LD_PRELOAD" ] do
              match Environment.GetEnvironmentVariable name with
              | null -> ()
              | value -> $"{name}={value}" ] }
