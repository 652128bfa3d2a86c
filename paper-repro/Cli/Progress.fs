namespace PatchUp.Repro

open System
open System.Diagnostics
open System.IO
open Spectre.Console

/// Where a command writes.
[<NoEquality; NoComparison>]
type Streams =
    {
        Out: TextWriter
        /// Errors, warnings and progress.
        Err: TextWriter
        /// Whether progress may be drawn on `Err` instead of being written line by line.
        IsTerminal: bool
    }

/// How far training is, with its rate and the time left.
[<RequireQualifiedAccess>]
module Following =

    let private duration (seconds: float) =
        let whole = TimeSpan.FromSeconds(Math.Round seconds)

        if whole.TotalHours >= 1.0 then
            $"{int whole.TotalHours} h {whole.Minutes} min"
        elif whole.TotalMinutes >= 1.0 then
            $"{whole.Minutes} min {whole.Seconds} s"
        else
            $"{whole.Seconds} s"

    let private line (run: string) (epoch: Epoch) =
        $"{run}: epoch {epoch.Epoch}, loss {epoch.TrainLoss:F3}, expected accuracy under mixing \
          {epoch.ExpectedAccuracyUnderMixing:F1} %%, validation error {epoch.ValidationError:F1} %%"

    let private plainly (streams: Streams) (images: int64) (work: (string -> Advance -> unit) -> unit) : unit =
        let clock = Stopwatch.StartNew()
        let seen = ref 0L

        let report run advance =
            match advance with
            | Stepped count -> seen.Value <- seen.Value + int64 count
            | EpochDone epoch ->
                let rate = float seen.Value / clock.Elapsed.TotalSeconds
                let left = duration (float (images - seen.Value) / rate)
                streams.Err.WriteLine $"{line run epoch}, {rate:F0} images/s, {left} left"

        work report

    let private drawn (streams: Streams) (images: int64) (work: (string -> Advance -> unit) -> unit) : unit =
        let console =
            AnsiConsole.Create(AnsiConsoleSettings(Out = AnsiConsoleOutput streams.Err))

        let clock = Stopwatch.StartNew()

        let columns: ProgressColumn[] =
            [| TaskDescriptionColumn(Alignment = Justify.Left)
               ProgressBarColumn()
               PercentageColumn()
               RemainingTimeColumn() |]

        console
            .Progress()
            .Columns(columns)
            .Start(fun context ->
                let task = context.AddTask("training", maxValue = float images)

                work (fun run advance ->
                    match advance with
                    | Stepped count -> task.Increment(float count)
                    | EpochDone epoch ->
                        let rate = task.Value / clock.Elapsed.TotalSeconds
                        task.Description <- $"{rate:F0} images/s"
                        console.WriteLine(line run epoch)))

    /// Does work that trains on so many images in all and reports each run's progress under the run's name, from any
    /// thread.
    let training (streams: Streams) (images: int64) (work: (string -> Advance -> unit) -> unit) : unit =
        let follow = if streams.IsTerminal then drawn else plainly
        follow streams images (fun report -> work (fun run advance -> lock streams (fun () -> report run advance)))
