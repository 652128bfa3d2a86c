namespace PatchUp.Repro

open System
open System.Collections.Generic
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

/// How far training and downloads are, with their rate and the time left.
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

    let private resumed (run: string) (history: Epoch list) =
        $"{run}: goes on from its checkpoint, after {history.Length} whole epochs"

    let private plainly (streams: Streams) (images: int64) (work: (string -> Advance -> unit) -> unit) : unit =
        let clock = Stopwatch.StartNew()
        let seen = ref 0L
        let before = ref 0L

        let report run advance =
            match advance with
            | Resumed(count, history) ->
                seen.Value <- seen.Value + count
                before.Value <- before.Value + count
                streams.Err.WriteLine(resumed run history)
            | Stepped count -> seen.Value <- seen.Value + int64 count
            | EpochDone epoch ->
                // A run that is taken up at the end of an epoch reports it before it has trained on anything.
                let trained = seen.Value - before.Value

                let pace =
                    if trained = 0L then
                        ""
                    else
                        let rate = float trained / clock.Elapsed.TotalSeconds
                        let left = duration (float (images - seen.Value) / rate)
                        $", {rate:F0} images/s, {left} left"

                streams.Err.WriteLine(line run epoch + pace)

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
                let before = ref 0.0

                work (fun run advance ->
                    match advance with
                    | Resumed(count, history) ->
                        before.Value <- before.Value + float count
                        task.Increment(float count)
                        console.WriteLine(resumed run history)
                    | Stepped count -> task.Increment(float count)
                    | EpochDone epoch ->
                        let rate = (task.Value - before.Value) / clock.Elapsed.TotalSeconds
                        task.Description <- $"{rate:F0} images/s"
                        console.WriteLine(line run epoch)))

    /// Does work that trains on so many images in all and reports each run's progress under the run's name, from any
    /// thread.
    let training (streams: Streams) (images: int64) (work: (string -> Advance -> unit) -> unit) : unit =
        let follow = if streams.IsTerminal then drawn else plainly
        follow streams images (fun report -> work (fun run advance -> lock streams (fun () -> report run advance)))

    let private again (file: SourceFile) (reason: string) (seconds: float) =
        $"{file.Name}: {reason}; going on in {duration seconds}"

    /// A line at a file's start, and at every tenth of it.
    let private transfersPlainly (streams: Streams) (work: (SourceFile -> Transfer -> unit) -> unit) : unit =
        let clock = Stopwatch()
        let mutable current = None // the file, the bytes that were there at its start, and the tenths that were told

        work (fun file transfer ->
            match transfer, current with
            | Again(reason, seconds), _ -> streams.Err.WriteLine(again file reason seconds)
            | Has bytes, Some(name, first, told) when name = file.Name ->
                let tenths = bytes * 10L / file.Size

                if tenths > told then
                    let rate = float (bytes - first) / clock.Elapsed.TotalSeconds
                    let left = duration (float (file.Size - bytes) / rate)
                    current <- Some(name, first, tenths)
                    streams.Err.WriteLine $"{name}: {10L * tenths} %%, {rate / 1e6:F1} MB/s, {left} left"
            | Has bytes, _ ->
                clock.Restart()
                current <- Some(file.Name, bytes, bytes * 10L / file.Size)

                let from =
                    if bytes > 0L then
                        $", going on at {float bytes / 1e6:F1} MB"
                    else
                        ""

                streams.Err.WriteLine $"{file.Name}: {float file.Size / 1e6:F1} MB{from}")

    let private transfersDrawn (streams: Streams) (work: (SourceFile -> Transfer -> unit) -> unit) : unit =
        let console =
            AnsiConsole.Create(AnsiConsoleSettings(Out = AnsiConsoleOutput streams.Err))

        let columns: ProgressColumn[] =
            [| TaskDescriptionColumn(Alignment = Justify.Left)
               ProgressBarColumn()
               DownloadedColumn()
               TransferSpeedColumn()
               RemainingTimeColumn() |]

        console
            .Progress()
            .Columns(columns)
            .Start(fun context ->
                let tasks = Dictionary<string, ProgressTask>()

                work (fun file transfer ->
                    match transfer with
                    | Again(reason, seconds) -> console.WriteLine(again file reason seconds)
                    | Has bytes ->
                        if not (tasks.ContainsKey file.Name) then
                            tasks[file.Name] <- context.AddTask(Markup.Escape file.Name, maxValue = float file.Size)

                        tasks[file.Name].Value <- float bytes))

    /// Does work that fetches files one after the other and reports how far each is.
    let transfers (streams: Streams) (work: (SourceFile -> Transfer -> unit) -> unit) : unit =
        (if streams.IsTerminal then
             transfersDrawn
         else
             transfersPlainly)
            streams
            work
