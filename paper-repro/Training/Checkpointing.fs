namespace PatchUp.Repro

open System
open System.IO
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text
open System.Threading
open PatchUp.Functional
open TorchSharp

/// Where a run is, between two of its steps: all of its state that is no tensor.
type Position =
    {
        Config: Config
        /// The state of the run's key, hexadecimal.
        Key: string
        /// On which it was computed, in their order, at least one.
        Machines: Machine list
        /// How many epochs are done, with their validation.
        Epoch: int
        /// How many steps of the next one are.
        Step: int
        /// Over the images of these steps.
        LossSum: float
        /// Over the images of these steps, the expected number of right predictions under mixing.
        CorrectSum: float
        /// The best of the epochs done, counted from 1; 0 where none is.
        BestEpoch: int
        /// The epochs done.
        History: Epoch list
        /// What the run has taken, in all of its processes.
        Seconds: float
        /// The same at the end of every epoch done.
        EpochEnds: float list
    }

/// The tensors of a run's state, by the network's names.
[<NoEquality; NoComparison>]
type RunState =
    {
        /// Parameters and statistics.
        Model: (string * torch.Tensor) list
        /// The optimiser's momentum.
        Velocity: (string * torch.Tensor) list
        /// The moving average of the weights; empty without one.
        Average: (string * torch.Tensor) list
        /// The best epoch's weights; empty where none is done.
        Best: (string * torch.Tensor) list
    }

/// The folder of a run's checkpoints, which this process alone may use.
[<NoEquality; NoComparison>]
type CheckpointFolder =
    {
        Path: string
        /// Held open: the system frees it when the process ends, however that is.
        Lock: FileStream
        /// Told what is amiss with the files there, in one line.
        Warn: string -> unit
        /// The checkpoints known to be sound, the last one first.
        Sound: string list ref
        /// Whether it is still this process's.
        IsOpen: bool ref
    }

/// A run's state as files, so that another process can go on with it: the last two are kept, each written whole or not
/// at all and with its SHA-256.
[<RequireQualifiedAccess>]
module Checkpointing =

    /// The type of this machine's processor, on which the last bits of results depend.
    let processor: string =
        let described =
            try
                File.ReadLines "/proc/cpuinfo"
                |> Seq.tryFind (fun line -> line.StartsWith("model name", StringComparison.Ordinal))
                |> Option.map (fun line -> line.Substring(line.IndexOf ':' + 1).Trim())
            with :? IOException ->
                None

        described
        |> Option.defaultWith (fun () -> string RuntimeInformation.ProcessArchitecture)

    /// This machine, as it goes on with a run of which so many epochs and steps of the next one are done.
    let here (epoch: int) (step: int) : Machine =
        { Epoch = epoch
          Step = step
          Processor = processor
          Libtorch = torch.__version__
          Library = typeof<Key>.Assembly.GetName().Version.ToString 3 }

    /// The machines that took steps of a run.
    let private computed (position: Position) : Machine list =
        position.Machines
        |> List.filter (fun machine -> (machine.Epoch, machine.Step) < (position.Epoch, position.Step))

    /// The machines of a run when this one goes on with it: those that took steps of it before, and this one where it is another
    /// than the last of them.
    let goingOn (position: Position) : Machine list =
        let here = here position.Epoch position.Step
        let before = computed position

        match List.tryLast before with
        | Some last when
            { last with
                Epoch = here.Epoch
                Step = here.Step }
                =
                here
            ->
            before
        | _ -> before @ [ here ]

    let private groups (state: RunState) =
        [ "model", state.Model
          "velocity", state.Velocity
          "average", state.Average
          "best", state.Best ]

    let private named (state: RunState) : (string * torch.Tensor) list =
        [ for group, tensors in groups state do
              for name, tensor in tensors do
                  $"{group}/{name}", tensor ]

    /// Of everything that is read back.
    let private digest (position: string) (tensors: (string * torch.Tensor) list) : string =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256

        let text (line: string) =
            hash.AppendData(Encoding.UTF8.GetBytes(line + "\n"))

        text position

        for name, tensor in tensors |> List.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(a, b)) do
            let shape = String.Join(",", tensor.shape)
            text $"{name} {tensor.dtype} [{shape}]"

            Scope.value (fun () ->
                if tensor.NumberOfElements > 0L then
                    hash.AppendData(Span.op_Implicit (tensor.detach().cpu().contiguous().bytes: Span<byte>)))

        Convert.ToHexStringLower(hash.GetHashAndReset())

    let private positionKey = "position"
    let private digestKey = "sha256"
    let private ending = ".safetensors"

    let private lockOf (path: string) = Path.Combine(path, "lock")

    /// Is a process at work in the folder now? Nothing is made or changed; a process that is about to open the folder waits
    /// for the moment that the answer takes.
    let isBusy (path: string) : bool =
        try
            use _ =
                new FileStream(lockOf path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite ||| FileShare.Delete)

            false
        with
        | :? FileNotFoundException
        | :? DirectoryNotFoundException
        // Another user's, of which nothing can be said.
        | :? UnauthorizedAccessException -> false
        | :? IOException -> true

    /// In milliseconds, between tries to open a folder that is locked.
    let private pause = 10

    /// Opens the folder, made if need be; None where another process is at work in it, a UserError where it cannot be made.
    /// Files that a killed process left half-written are removed.
    let tryOpenFolder (warn: string -> unit) (path: string) : CheckpointFolder option =
        let lockPath = lockOf path

        let rec opened tries =
            try
                Directory.CreateDirectory path |> ignore
                Some(new FileStream(lockPath, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None))
            with
            // It may be `isBusy` alone that has it.
            | :? IOException when tries > 1 && File.Exists lockPath ->
                Thread.Sleep pause
                opened (tries - 1)
            | :? UnauthorizedAccessException ->
                Errors.user $"{path}: it may not be written; choose another folder with --out."
            | :? IOException when File.Exists lockPath -> None
            // One that has finished the run is leaving.
            | :? DirectoryNotFoundException -> None
            | :? IOException as error -> Errors.user $"{path}: it cannot be written ({error.Message})"

        opened 10
        |> Option.map (fun stream ->
            for left in Directory.GetFiles(path, "*.tmp") do
                File.Delete left

            { Path = path
              Lock = stream
              Warn = warn
              Sound = ref []
              IsOpen = ref true })

    /// The same; a UserError where another process is at work in it.
    let openFolder (warn: string -> unit) (path: string) : CheckpointFolder =
        match tryOpenFolder warn path with
        | Some folder -> folder
        | None ->
            Errors.user
                $"{path}: another process is at work on this run; wait for it, or choose another folder with --out."

    let private leaving (folder: CheckpointFolder) (removed: bool) =
        if folder.IsOpen.Value then
            folder.IsOpen.Value <- false

            if removed then
                try
                    Directory.Delete(folder.Path, true)
                with :? IOException ->
                    // Another process has begun to look into it.
                    ()

            folder.Lock.Dispose()

    /// Leaves the folder to others, once; it is removed if no checkpoint is in it.
    let close (folder: CheckpointFolder) : unit =
        leaving folder (folder.IsOpen.Value && Directory.GetFiles(folder.Path, "*" + ending).Length = 0)

    /// Removes the folder with all checkpoints, of a run that is finished, and leaves it.
    let remove (folder: CheckpointFolder) : unit = leaving folder true

    /// Writes a checkpoint, and then removes all but it and the one before. RunFailed where that is not possible; those
    /// that are there stay.
    let write (folder: CheckpointFolder) (position: Position) (state: RunState) : unit =
        let file =
            Path.Combine(folder.Path, $"epoch-{position.Epoch:D6}-step-{position.Step:D8}{ending}")

        let tensors = named state
        let text = Json.line position

        try
            Safetensors.write file (Map [ positionKey, text; digestKey, digest text tensors ]) tensors
        with UserError message ->
            raise (RunFailed $"the run's state could not be kept, and is kept as it was before where it was: {message}")

        folder.Sound.Value <- file :: List.filter ((<>) file) folder.Sound.Value |> List.truncate 2

        for other in Directory.GetFiles(folder.Path, "*" + ending) do
            if not (List.contains other folder.Sound.Value) then
                File.Delete other

    /// Reads what `write` wrote; a UserError for any other file. The tensors belong to the caller's scope.
    let read (path: string) : Position * RunState =
        let tensors = Safetensors.read path

        let damaged what : 'a =
            for _, tensor in tensors.Entries do
                tensor.Dispose()

            Errors.user $"{path}: not a sound checkpoint: {what}."

        let text = tensors.Metadata.TryFind positionKey |> Option.defaultValue ""

        if tensors.Metadata.TryFind digestKey <> Some(digest text tensors.Entries) then
            damaged "its SHA-256 is another"

        match Json.tryRead<Position> text with
        | Some position when not (isNull (box position)) ->
            let group (name: string) =
                [ for full, tensor in tensors.Entries do
                      if full.StartsWith(name + "/", StringComparison.Ordinal) then
                          full.Substring(name.Length + 1), tensor ]

            position,
            { Model = group "model"
              Velocity = group "velocity"
              Average = group "average"
              Best = group "best" }
        | _ -> damaged "it does not say where the run was"

    /// Why a checkpoint is not one of this run, whose state has these names, types and shapes.
    let private unfit (config: Config) (stepsPerEpoch: int) (live: RunState) (position: Position, state: RunState) =
        let outline (tensors: (string * torch.Tensor) list) =
            tensors
            |> List.map (fun (name, tensor) -> name, tensor.dtype, List.ofArray tensor.shape)
            |> List.sortBy (fun (name, _, _) -> name)

        let isWithin =
            position.Epoch >= 0
            && position.Epoch <= config.Epochs
            && position.Step >= 0
            && position.Step <= (if position.Epoch = config.Epochs then 0 else stepsPerEpoch)
            && position.History.Length = position.Epoch
            && position.EpochEnds.Length = position.Epoch
            && not position.Machines.IsEmpty
            && position.BestEpoch >= min 1 position.Epoch
            && position.BestEpoch <= position.Epoch

        if position.Config <> config then
            Some "it is of another configuration"
        elif not isWithin then
            Some "it is of no step of this run"
        elif
            outline state.Model <> outline live.Model
            || outline state.Velocity <> outline live.Velocity
            || outline state.Average <> outline live.Average
            || outline state.Best <> (if position.Epoch = 0 then [] else outline live.Model)
        then
            Some "its tensors are not those of this run"
        else
            None

    /// The last sound checkpoint of a run whose state has these names, types and shapes; None where there is none.
    /// Damaged ones are told, and left until the next one is written. The tensors belong to the caller's scope.
    let latest
        (folder: CheckpointFolder)
        (config: Config)
        (stepsPerEpoch: int)
        (live: RunState)
        : (Position * RunState) option =
        let files =
            Directory.GetFiles(folder.Path, "*" + ending)
            |> Array.sortWith (fun a b -> String.CompareOrdinal(b, a))
            |> List.ofArray

        let tryOne (file: string) =
            try
                let found = read file

                match unfit config stepsPerEpoch live found with
                | None -> Some(file, found)
                | Some reason ->
                    for _, tensor in named (snd found) do
                        tensor.Dispose()

                    folder.Warn $"{file}: not a sound checkpoint: {reason}."
                    None
            with UserError message ->
                folder.Warn message
                None

        match List.tryPick tryOne files with
        | Some(file, (position, state)) ->
            if file <> files.Head then
                folder.Warn $"the run goes on from {file}, the checkpoint before."

            let here = here position.Epoch position.Step

            for last in List.tryLast (computed position) |> Option.toList do
                for what, then', now in
                    [ "processor", last.Processor, here.Processor
                      "libtorch", last.Libtorch, here.Libtorch ] do
                    if then' <> now then
                        folder.Warn
                            $"{file}: the {what} was {then'} and is {now} now; results may differ in their last bits."

            folder.Sound.Value <- [ file ]
            Some(position, state)
        | None ->
            if not files.IsEmpty then
                folder.Warn $"{folder.Path}: no checkpoint there is sound; the run starts over."

            None
