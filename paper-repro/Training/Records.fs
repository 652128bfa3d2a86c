namespace PatchUp.Repro

open System
open System.IO
open System.Security.Cryptography
open System.Text

/// Why a run of a sweep failed.
type Failure = { Config: Config; Message: string }

/// Where a run stands.
type Standing =
    | Finished
    /// A process is at work on it now.
    | Running
    /// Its state is kept, from which it goes on.
    | Kept
    /// And why.
    | Failed of string
    | Missing

/// The results folder: records/, timings/, machines/, weights/ and logs/, a file of each for every finished run, checkpoints/, a
/// folder for every one that is not, and failures/, a file for every run of a sweep that failed.
[<RequireQualifiedAccess>]
module Records =

    /// Letters and digits of the text with hyphens between, 40 characters at most.
    let private slug (text: string) : string =
        let spaced =
            text.ToLowerInvariant()
            |> String.map (fun c -> if Char.IsAsciiLetterOrDigit c then c else ' ')

        let joined =
            String.Join('-', spaced.Split(' ', StringSplitOptions.RemoveEmptyEntries))

        if joined.Length <= 40 then
            joined
        else
            joined.Substring(0, 40).TrimEnd '-'

    /// The first eight hexadecimal digits of the text's SHA-256.
    let private hash8 (text: string) : string =
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes text)).Substring(0, 8)

    /// What a method's files are called, without their ending: two methods never share a name.
    let methodName (method': string) : string =
        let slug = slug method'
        if slug = method' then slug else $"{slug}-{hash8 method'}"

    /// What a configuration's files are called, without their ending.
    let name (config: Config) : string =
        $"{slug config.Method}-seed{config.Seed}-{hash8 (Json.show config)}"

    let private file (folder: string) (ending: string) (out: string) (config: Config) =
        Path.Combine(out, folder, name config + ending)

    /// Where a run's result is written.
    let recordPath (out: string) (config: Config) : string = file "records" ".json" out config

    /// Where a run's weights are written.
    let weightsPath (out: string) (config: Config) : string =
        file "weights" ".safetensors" out config

    let private timingPath = file "timings" ".json"

    /// Where it is written on which machines a run was computed.
    let machinesPath (out: string) (config: Config) : string = file "machines" ".json" out config

    /// Where a run's epochs are logged.
    let logPath (out: string) (config: Config) : string = file "logs" ".jsonl" out config

    /// The folder of a run's checkpoints.
    let checkpointsPath (out: string) (config: Config) : string = file "checkpoints" "" out config

    /// The folder of a run's numbers and pictures for TensorBoard.
    let tensorBoardPath (out: string) (config: Config) : string = file "tensorboard" "" out config

    /// Where it is written why a run failed.
    let failurePath (out: string) (config: Config) : string = file "failures" ".json" out config

    /// Removes what a killed process left half-written of a run's files, and why it failed before; the run must be this process's.
    let tidy (out: string) (config: Config) : unit =
        let failure = failurePath out config

        if File.Exists failure then
            File.Delete failure

        for path in
            [ recordPath out config
              weightsPath out config
              timingPath out config
              machinesPath out config
              logPath out config ] do
            let folder = Path.GetDirectoryName path

            for left in Directory.GetFiles(folder, $".{Path.GetFileName path}.*.tmp") do
                File.Delete left

    /// Makes a folder of the results folder, and makes sure that files can be written there; else a UserError.
    let prepare (out: string) (folder: string) : string =
        let path = Path.Combine(out, folder)

        try
            Directory.CreateDirectory path |> ignore
            let probe = Path.Combine(path, Path.GetRandomFileName())

            use _ =
                new FileStream(
                    probe,
                    FileMode.CreateNew,
                    FileAccess.Write,
                    FileShare.None,
                    1,
                    FileOptions.DeleteOnClose
                )

            path
        with
        | :? IOException
        | :? UnauthorizedAccessException ->
            Errors.user $"{out}: results cannot be written there; choose another folder with --out."

    let private isSound (config: Config) (record: Record) =
        record.Config = config
        && not (isNull (box record.History))
        && record.History.Length = config.Epochs
        && record.BestEpoch >= 1
        && record.BestEpoch <= config.Epochs

    /// The record of a finished run of this configuration. Where there is a file that is no such record, `warn` is told
    /// and the run counts as not done; so it does where its weights are missing.
    let tryFind (warn: string -> unit) (out: string) (config: Config) : Record option =
        let path = recordPath out config

        if not (File.Exists path) then
            None
        else
            match Errors.reading path (fun () -> File.ReadAllText path) |> Json.tryRead<Record> with
            | Some record when not (isNull (box record)) && isSound config record ->
                if File.Exists(weightsPath out config) then
                    Some record
                else
                    warn $"{path}: its weights are missing; the run is done again."
                    None
            | _ ->
                warn $"{path}: not a sound record of its run; the run is done again."
                None

    /// How long a finished run took; None where no sound file says it.
    let timing (out: string) (config: Config) : Timing option =
        let path = timingPath out config

        if File.Exists path then
            Errors.reading path (fun () -> File.ReadAllText path)
            |> Json.tryRead<Timing>
            |> Option.filter (fun timing -> not (isNull (box timing) || isNull (box timing.EpochSeconds)))
        else
            None

    /// Seconds an epoch, with its validation: the mean without the first, which starts the program and the library, where there are others. None
    /// without any.
    let epochSeconds (timing: Timing) : float option =
        match timing.EpochSeconds with
        | [] -> None
        | [ only ] -> Some only
        | _ :: others -> Some(List.average others)

    /// Writes why a run failed.
    let fail (out: string) (config: Config) (message: string) : unit =
        prepare out "failures" |> ignore
        Json.write (failurePath out config) { Config = config; Message = message }

    /// Where a run stands, from its files and their locks.
    let standing (out: string) (config: Config) : Standing =
        let failure = failurePath out config
        let checkpoints = checkpointsPath out config
        // Asked first: one that comes to its end meanwhile is finished then.
        let isBusy = Checkpointing.isBusy checkpoints

        if (tryFind ignore out config).IsSome then
            Finished
        elif isBusy then
            Running
        elif File.Exists failure then
            let found =
                Errors.reading failure (fun () -> File.ReadAllText failure)
                |> Json.tryRead<Failure>

            match found with
            | Some failure when not (isNull (box failure)) && not (isNull failure.Message) -> Failed failure.Message
            | _ -> Failed "no sound file says why"
        elif
            Directory.Exists checkpoints
            && Directory.GetFiles(checkpoints, "*.safetensors").Length > 0
        then
            Kept
        else
            Missing

    /// Writes a run's weights, log, timing, machines and, last, its record, which makes it a finished one.
    let write (out: string) (corpus: Corpus) (trained: Trained) : unit =
        let config = trained.Record.Config
        Checkpoint.write (weightsPath out config) corpus trained
        Log.start (logPath out config) trained.Record.History
        Json.write (timingPath out config) trained.Timing
        Json.write (machinesPath out config) trained.Machines
        Json.write (recordPath out config) trained.Record
