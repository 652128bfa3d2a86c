module PatchUp.Tests.EngineTests

open System
open System.Diagnostics
open System.IO
open System.Security.Cryptography
open System.Text.RegularExpressions
open System.Threading
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.ReproTests
open TorchSharp

// ---- a small data set, in memory and as a folder ----

let private side = 8

/// Images of fixed noise: of each class, which is the brighter one.
let private splitOf (seed: int) (count: int) : Split =
    let bits = Key.stream (Key.ofSeed seed)

    { Images =
        torch.tensor (
            Array.init (count * 3 * side * side) (fun i -> byte (bits.Below 200 + 50 * (i / (3 * side * side) % 2))),
            ReadOnlySpan [| int64 count; 3L; int64 side; int64 side |],
            dtype = torch.uint8
        )
      Labels = Array.init count (fun i -> i % 2) }

/// Does work on 26 images to train on and 10 to test on.
let private onImages (work: Dataset -> 'a) : 'a =
    let dataset =
        { Name = "noise"
          Fingerprint = "noise"
          Classes = [| "dark"; "bright" |]
          MayMirror = true
          Train = splitOf 1 26
          Test = splitOf 2 10 }

    try
        work dataset
    finally
        Dataset.dispose dataset

let private configOf method' : Config =
    { Config.withMethod (Arguments.method' method') Config.standard with
        Data = "noise"
        Fingerprint = "noise"
        TrainPerClass = 13
        TestPerClass = 5
        Width = Some 1
        Epochs = 3
        BatchSize = 8 }

/// Averaged, clipped, warmed up: all that a run can have.
let private rich: Config =
    { configOf "soft-patchup" with
        Schedule = "cosine"
        Warmup = 0.5
        ClipNorm = 0.5
        EmaDecay = 0.9 }

let private sha (bytes: byte[]) =
    Convert.ToHexStringLower(SHA256.HashData bytes)

/// All that a run gives: its record, and the hash of its weights.
let private resultOf (trained: Trained) : string * string =
    try
        let weights =
            [| for name, tensor in Model.state trained.Model do
                   yield! Text.Encoding.UTF8.GetBytes name
                   yield! tensor.detach().contiguous().bytes.ToArray() |]

        Json.show trained.Record, sha weights
    finally
        Model.dispose trained.Model

let private runAlone config dataset =
    resultOf (Trainer.run Control.alone config (Corpus.ofDataset dataset))

/// A part of a run that stops when it is asked for the n-th time: its result where it comes to an end before, and what it
/// reported.
let private part (folder: string) (stopAt: int) (every: int option) config dataset =
    let warnings = ResizeArray<string>()
    let events = ResizeArray<Advance>()
    let asked = ref 0
    let checkpoints = Checkpointing.openFolder warnings.Add folder

    try
        let result =
            try
                Trainer.run
                    { Notify = events.Add
                      IsStopping =
                        fun () ->
                            asked.Value <- asked.Value + 1
                            asked.Value >= stopAt
                      Checkpoints = Some checkpoints
                      CheckpointEvery = every }
                    config
                    (Corpus.ofDataset dataset)
                |> resultOf
                |> Some
            with Interrupted _ ->
                None

        result, List.ofSeq events, List.ofSeq warnings
    finally
        Checkpointing.close checkpoints

let private never = Int32.MaxValue

let private checkpointsIn (folder: string) =
    if Directory.Exists folder then
        Directory.GetFiles(folder, "*.safetensors")
        |> Array.sortDescending
        |> List.ofArray
    else
        []

// ---- the parts of a step ----

let private sgd =
    testCase "SGD gives the numbers of PyTorch's, bit for bit" (fun () ->
        for decay in [ 0.0; 1e-4; 0.03 ] do
            Scope.value (fun () ->
                let bits = Key.stream (Key.ofSeed 4)

                let normals (size: int64[]) =
                    torch.tensor (
                        Array.init (int (Array.reduce (*) size)) (fun _ -> float32 (bits.Normal())),
                        ReadOnlySpan size
                    )

                let sizes = [ [| 5L; 3L; 3L; 3L |]; [| 17L |]; [| 4L; 9L |] ]
                let starts = sizes |> List.map normals

                let parameters () =
                    starts |> List.map (fun start -> new Modules.Parameter(start.clone ()))

                let theirs, ours = parameters (), parameters ()

                use optimizer =
                    torch.optim.SGD(theirs, 0.1, momentum = 0.9, weight_decay = decay, nesterov = true)

                let sgd =
                    ours
                    |> List.mapi (fun i parameter -> string i, parameter :> torch.Tensor)
                    |> Sgd.create 0.9 decay

                for step in 1..6 do
                    let rate = 0.1 / float step

                    for group in optimizer.ParamGroups do
                        group.LearningRate <- rate

                    for i, (a, b) in List.indexed (List.zip theirs ours) do
                        // One of them has no gradient at first.
                        if i > 0 || step > 2 then
                            let gradient = normals a.shape
                            a.grad <- gradient.clone ()
                            b.grad <- gradient.clone ()

                    optimizer.step () |> ignore
                    Sgd.step rate sgd

                    for a, b in List.zip theirs ours do
                        Expect.equal (b.bytes.ToArray()) (a.bytes.ToArray()) $"decay {decay}, step {step}"

                for (_, velocity), start in List.zip sgd.Velocity starts do
                    Expect.isGreaterThan (velocity.abs().sum().item<float32>()) 0.0f "momentum"
                    Expect.equal velocity.shape start.shape "its shape"))

let private clipping =
    testCase "clipping shrinks all gradients by one factor, and only where they are too long" (fun () ->
        Scope.value (fun () ->
            let one (value: float32 list) =
                let parameter = new Modules.Parameter(torch.zeros [| int64 value.Length |])
                parameter.grad <- torch.tensor (Array.ofList value)
                parameter

            // A norm of 5.
            let parameters = [ one [ 3.0f; 0.0f ]; one [ 0.0f; 4.0f; 0.0f ] ]

            let sgd =
                parameters
                |> List.mapi (fun i parameter -> string i, parameter :> torch.Tensor)
                |> Sgd.create 0.9 0.0

            let gradients () =
                [ for parameter in parameters do
                      yield! parameter.grad.data<float32>().ToArray() ]

            Sgd.clip 6.0 sgd
            Expect.equal (gradients ()) [ 3.0f; 0.0f; 0.0f; 4.0f; 0.0f ] "short enough"
            Sgd.clip 2.5 sgd
            Expect.equal (gradients ()) [ 1.5f; 0.0f; 0.0f; 2.0f; 0.0f ] "half as long"
            parameters.Head.grad <- torch.tensor [| nanf; 1.0f |]
            Sgd.clip 1.0 sgd
            Expect.equal ((gradients ())[2..]) [ 0.0f; 2.0f; 0.0f ] "a norm that is no number changes nothing"))

/// The rates that a scheduler of TorchSharp's gives.
let private theirRates (steps: int) scheduler =
    Scope.value (fun () ->
        let parameter = new Modules.Parameter(torch.zeros 1L)
        use optimizer = torch.optim.SGD([ parameter ], 0.2)
        let scheduler: torch.optim.lr_scheduler.LRScheduler = scheduler optimizer

        [ for _ in 1..steps do
              (Seq.head optimizer.ParamGroups).LearningRate
              optimizer.step () |> ignore
              scheduler.step () ])

let private schedules =
    testList
        "schedules"
        [ testCase "multi-step divides by ten where a share of the epochs has passed" (fun () ->
              let rate = Schedule.rate 0.1 (MultiStep [ 0.5; 0.75 ]) 0.0 5 7

              Expect.equal
                  [ for epoch in 0..4 -> rate (7 * epoch) ]
                  [ 0.1; 0.1; 0.1; 0.01; 0.001 ]
                  "half of five is reached at the fourth"

              Expect.equal (rate 20) 0.1 "within an epoch it stays"
              Expect.equal (rate 21) 0.01 "and changes at its start"

              // 0.28 * 50 is a little more than 14.
              let rate = Schedule.rate 0.1 (MultiStep [ 0.28 ]) 0.0 50 3
              Expect.equal (rate (14 * 3 - 1), rate (14 * 3)) (0.1, 0.01) "at the epoch itself")

          testCase "a warm-up rises in a line, and the rest is the schedule's" (fun () ->
              let rate curve = Schedule.rate 0.4 curve 1.5 4 4
              let near = Expect.floatClose Accuracy.high

              for step in 0..5 do
                  near (rate (MultiStep []) step) (0.4 * float (step + 1) / 6.0) $"step {step}"

              near (rate (MultiStep []) 15) 0.4 "then it is there"
              near (rate Cosine 5) 0.4 "a cosine begins at the top"
              near (rate Cosine 11) 0.2 "is at half in the middle of what is left"
              Expect.isLessThan (rate Cosine 15) 0.01 "and ends low")

          testCase "cosine and one-cycle are PyTorch's" (fun () ->
              let steps = 30

              let compare name curve theirs =
                  for step, expected in List.indexed (theirRates steps theirs) do
                      Expect.floatClose
                          Accuracy.medium
                          (Schedule.rate 0.2 curve 0.0 10 3 step)
                          expected
                          $"{name}, step {step}"

              compare "cosine" Cosine (fun optimizer ->
                  torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, float steps))

              compare "one-cycle" OneCycle (fun optimizer ->
                  torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps, cycle_momentum = false))) ]

let private averaging =
    testCase "the moving average follows the model, and stands in for it" (fun () ->
        Scope.value (fun () ->
            let model =
                Architectures.create
                    "preact-resnet-18"
                    { NetworkSettings.cifar10 with
                        Width = Some 1 }
                    1UL

            let values () =
                [ for name, tensor in Model.state model ->
                      name, tensor.detach().``to``(torch.float64).flatten().data<float>().ToArray() ]

            let move (by: float) =
                use _ = torch.no_grad ()

                for _, tensor in Model.state model do
                    tensor.add_ ((Scope.number by).``to`` tensor.dtype) |> ignore

            let first = values ()
            let ema = Ema.create 0.5 model
            move 1.0
            // (1 + 0) / (10 + 0), then 0.5 once (1 + n) / (10 + n) is more.
            Ema.update 0 model ema
            move 2.0
            Ema.update 100 model ema
            let live = values ()

            Ema.under ema model (fun () ->
                for (name, average), (_, first) in List.zip (values ()) first do
                    if name.EndsWith "num_batches_tracked" then
                        Expect.equal average (first |> Array.map (fun value -> value + 3.0)) $"{name}: a count"
                    else
                        for a, b in Array.zip average first do
                            // 0.9, then the middle of that and 3.
                            Expect.floatClose Accuracy.medium (a - b) 1.95 name)

            Expect.equal (values ()) live "the model has its own back"

            Expect.throws
                (fun () -> Ema.under ema model (fun () -> failwith "no"))
                "what fails under the average fails"

            Expect.equal (values ()) live "and it has its own back then too"
            Model.dispose model))

// ---- resuming, in this process ----

let private resuming =
    testList
        "resuming"
        [ testCase "stopped at any place and gone on with, a run gives the same bits" (fun () ->
              onImages (fun dataset ->
                  for config, stride in [ rich, 1; configOf "hard-patchup", 4 ] do
                      let expected = runAlone config dataset

                      let rec from stopAt =
                          let isOver =
                              inFolder (fun folder ->
                                  let folder = Path.Combine(folder, "run")

                                  match part folder stopAt None config dataset with
                                  | Some result, _, _ ->
                                      Expect.equal result expected "not stopped"
                                      Expect.isFalse (Directory.Exists folder) "nothing is left"
                                      true
                                  | None, _, _ ->
                                      Expect.hasLength (checkpointsIn folder) 1 "its state"
                                      let result, events, warnings = part folder never None config dataset
                                      Expect.equal result (Some expected) $"{config.Method}, stopped at {stopAt}"
                                      Expect.isEmpty warnings "nothing is amiss"

                                      let seen =
                                          events
                                          |> List.sumBy (fun advance ->
                                              match advance with
                                              | Resumed(images, _) -> images
                                              | Stepped images -> int64 images
                                              | EpochDone _ -> 0L)

                                      Expect.equal seen (3L * 23L) "every image is counted once"
                                      false)

                          if isOver then stopAt else from (stopAt + stride)

                      // Nine steps, three epochs, three validations and a test.
                      Expect.isGreaterThan (from 1) 16 "places to stop at"))

          testCase "stopped again and again, it comes to the same end" (fun () ->
              onImages (fun dataset ->
                  inFolder (fun folder ->
                      // At the second question, so that a validation can come to its end.
                      let rec goOn parts =
                          match part folder 2 (Some 1) rich dataset with
                          | Some result, _, _ -> result, parts
                          | None, _, _ -> goOn (parts + 1)

                      let result, parts = goOn 0
                      Expect.equal result (runAlone rich dataset) "the same bits"
                      Expect.isGreaterThan parts 5 "in several parts")))

          testCase
              "a damaged checkpoint is passed over for the one before, and without any the run starts over"
              (fun () ->
                  onImages (fun dataset ->
                      inFolder (fun folder ->
                          let expected = runAlone rich dataset
                          part folder 5 (Some 1) rich dataset |> ignore

                          match checkpointsIn folder with
                          | [ last; before ] ->
                              let damage (path: string) =
                                  let bytes = File.ReadAllBytes path
                                  bytes[bytes.Length - 20] <- bytes[bytes.Length - 20] ^^^ 4uy
                                  File.WriteAllBytes(path, bytes)

                              let sound = [ for path in [ last; before ] -> path, File.ReadAllBytes path ]
                              damage last
                              let result, events, warnings = part folder never None rich dataset
                              Expect.equal result (Some expected) "from the one before"
                              Expect.hasLength warnings 2 "what is wrong, and what is done"

                              Expect.stringContains
                                  warnings[0]
                                  $"{last}: not a sound checkpoint: its SHA-256"
                                  "which one"

                              Expect.stringContains warnings[1] $"the run goes on from {before}" "what is done"
                              Expect.exists events (fun event -> event.IsResumed) "it is resumed"

                              for path, bytes in sound do
                                  File.WriteAllBytes(path, bytes)
                                  damage path

                              let result, events, warnings = part folder never None rich dataset
                              Expect.equal result (Some expected) "from the start"
                              Expect.hasLength warnings 3 "each, and what is done"
                              Expect.stringContains warnings[2] "the run starts over" "what is done"
                              Expect.isFalse (events |> List.exists _.IsResumed) "not resumed"
                          | other -> failtest $"the last two are kept, not {other}")))

          testCase "a checkpoint of another run or place is not taken up; of another machine, with a warning" (fun () ->
              onImages (fun dataset ->
                  inFolder (fun folder ->
                      let expected = runAlone rich dataset
                      part folder 7 None rich dataset |> ignore

                      Scope.value (fun () ->
                          let position, state = Checkpointing.read (checkpointsIn folder).Head
                          let here = position.Machines.Head

                          let of' machine =
                              { position with Machines = [ machine ] }

                          for name, position, state, warning, isTaken in
                              [ "as it was", position, state, None, true
                                "another configuration",
                                { position with
                                    Config = { rich with Seed = 1 } },
                                state,
                                Some "of another configuration",
                                false
                                "a step too far", { position with Step = 4 }, state, Some "of no step", false
                                "no length", { position with EpochEnds = [] }, state, Some "of no step", false
                                "an epoch too far", { position with Epoch = 4 }, state, Some "of no step", false
                                "no machine", { position with Machines = [] }, state, Some "of no step", false
                                "no history", { position with History = [] }, state, Some "of no step", false
                                "no best epoch", { position with BestEpoch = 0 }, state, Some "of no step", false
                                "a tensor less",
                                position,
                                { state with
                                    Velocity = state.Velocity.Tail },
                                Some "not those of this run",
                                false
                                "no average",
                                position,
                                { state with Average = [] },
                                Some "not those of this run",
                                false
                                "no best weights",
                                position,
                                { state with Best = [] },
                                Some "not those of this run",
                                false
                                "another machine",
                                of' { here with Processor = "abacus" },
                                state,
                                Some "the processor was abacus and is ",
                                true
                                "another library",
                                of' { here with Libtorch = "0.1" },
                                state,
                                Some "the libtorch was 0.1 and is ",
                                true ] do
                              let opened = Checkpointing.openFolder ignore folder
                              Checkpointing.write opened position state
                              Checkpointing.close opened
                              Expect.hasLength (checkpointsIn folder) 1 "the others are gone"
                              let result, events, warnings = part folder never None rich dataset
                              Expect.equal result (Some expected) name
                              Expect.equal (events |> List.exists _.IsResumed) isTaken name

                              match warning, warnings with
                              | None, [] -> ()
                              | Some text, first :: _ -> Expect.stringContains first text name
                              | _ -> failtest $"{name}: {warnings}"))))

          testCase "500 damaged checkpoints: each is refused in one line, or is what it was" (fun () ->
              onImages (fun dataset ->
                  inFolder (fun folder ->
                      part folder 6 None rich dataset |> ignore
                      let path = (checkpointsIn folder).Head
                      let sound = File.ReadAllBytes path

                      let contents () =
                          Scope.value (fun () ->
                              let position, state = Checkpointing.read path

                              let tensors =
                                  [ for group in [ state.Model; state.Velocity; state.Average; state.Best ] do
                                        for name, tensor in group |> List.sortBy fst do
                                            name, List.ofArray tensor.shape, sha (tensor.bytes.ToArray()) ]

                              position, tensors)

                      let expected = contents ()
                      let bits = Key.stream (Key.ofSeed 9)
                      // The header, which is the smaller part, is hit as often as the data.
                      let header = 8 + int (BitConverter.ToInt64(sound, 0))

                      let place () =
                          match bits.Below 3 with
                          | 0 -> bits.Below 8
                          | 1 -> bits.Below header
                          | _ -> bits.Below sound.Length

                      let damaged () =
                          let bytes = Array.copy sound
                          let at = place ()

                          match bits.Below 6 with
                          | 0 ->
                              bytes[at] <- bytes[at] ^^^ (1uy <<< bits.Below 8)
                              bytes
                          | 1 ->
                              bytes[at] <- byte (bits.Below 256)
                              bytes
                          | 2 -> bytes[.. at - 1]
                          | 3 -> Array.append bytes (Array.create (1 + bits.Below 100) 7uy)
                          | 4 -> Array.concat [ bytes[.. at - 1]; [| byte (bits.Below 256) |]; bytes[at..] ]
                          | _ ->
                              // A piece moves elsewhere, as when blocks of a disk are mixed up.
                              let from, length = place (), 1 + bits.Below 64
                              let length = List.min [ length; bytes.Length - from; bytes.Length - at ]
                              Array.blit sound from bytes at length
                              bytes

                      let refused = ref 0

                      for number in 1..500 do
                          File.WriteAllBytes(path, damaged ())

                          try
                              Expect.equal (contents ()) expected $"damage {number} is none"
                          with UserError message ->
                              Expect.stringStarts message path $"damage {number}: the file is named"
                              Expect.isFalse (message.Contains '\n') $"damage {number}: one line"
                              refused.Value <- refused.Value + 1

                      Expect.isGreaterThan refused.Value 400 "most are found out"))) ]

// ---- the program ----

/// The images of `onImages` as files, in a folder.
let writeImages (folder: string) =
    onImages (fun dataset ->
        for set, split in [ "train", dataset.Train; "test", dataset.Test ] do
            for i in 0 .. split.Labels.Length - 1 do
                use image = (Augment.plain split [| i |]).squeeze 0L
                use bitmap = Images.bitmapOfTensor image
                let name = dataset.Classes[split.Labels[i]]
                Directory.CreateDirectory(Path.Combine(folder, set, name)) |> ignore
                Images.writePng (Path.Combine(folder, set, name, $"{i}.png")) bitmap)

    folder

let tiny (data: string) (epochs: int) =
    [ "--data"
      data
      "--train-per-class"
      "13"
      "--test-per-class"
      "5"
      "--width"
      "1"
      "--batch-size"
      "8"
      "--epochs"
      string epochs
      "--device"
      "cpu" ]

/// The program in a process of its own, whose output can be waited for.
type Child(start: ProcessStartInfo) =
    let lines = ResizeArray<string>()
    let child = new Process(StartInfo = start)

    let add (line: string) =
        if not (isNull line) then
            lock lines (fun () -> lines.Add line)

    do
        start.RedirectStandardError <- true
        start.RedirectStandardOutput <- true
        child.ErrorDataReceived.Add(fun event -> add event.Data)
        child.OutputDataReceived.Add(fun event -> add event.Data)
        child.Start() |> ignore
        child.BeginErrorReadLine()
        child.BeginOutputReadLine()

    member _.Lines = lock lines (fun () -> List.ofSeq lines)

    member _.HasExited = child.HasExited

    /// Waits until a line has one of these texts, or the child has ended.
    member this.WaitFor([<ParamArray>] texts: string[]) =
        let clock = Stopwatch.StartNew()

        let isThere (line: string) = texts |> Array.exists line.Contains

        while not child.HasExited && not (List.exists isThere this.Lines) do
            if clock.Elapsed.TotalSeconds > 60.0 then
                failtest $"none of {texts} within a minute: {this.Lines}"

            Thread.Sleep 2

    /// SIGKILL.
    member _.Kill() =
        child.Kill()
        child.WaitForExit()

    /// Sends a signal by its name; gives the exit code.
    member _.Signal(name: string) =
        use sender = Process.Start("kill", [ $"-{name}"; string child.Id ])
        sender.WaitForExit()
        child.WaitForExit()
        child.ExitCode

    member _.ExitCode =
        child.WaitForExit()
        child.ExitCode

    interface IDisposable with
        member _.Dispose() =
            if not child.HasExited then
                child.Kill()

            child.Dispose()

let private program = Path.Combine(AppContext.BaseDirectory, "patchup.dll")

let start (arguments: string list) =
    new Child(ProcessStartInfo("dotnet", program :: arguments))

/// What is the same however often a run was stopped: all but timings.
let private results (out: string) =
    [ for folder in [ "records"; "weights"; "logs" ] do
          for path in Directory.GetFiles(Path.Combine(out, folder)) |> Array.sort do
              Path.GetRelativePath(out, path), sha (File.ReadAllBytes path) ]

let private leftovers (out: string) =
    [ for path in Directory.GetFiles(out, "*", SearchOption.AllDirectories) do
          if path.EndsWith ".tmp" || path.Contains "checkpoints" then
              path ]

let private killing =
    testCase "twenty SIGKILLs at any moment change no byte of the record, the weights and the log" (fun () ->
        inFolder (fun folder ->
            let data = writeImages (Path.Combine(folder, "data"))

            let arguments out epochs =
                [ "train"; "--method"; "soft-patchup"; "--ema"; "0.9"; "--out"; out ]
                @ tiny data epochs

            let epochs = 80
            let expected = Path.Combine(folder, "expected")
            succeed (arguments expected epochs) |> ignore

            let name =
                Path.GetFileNameWithoutExtension(Directory.GetFiles(Path.Combine(expected, "records"))[0])

            let check out =
                Expect.equal (results out) (results expected) "the same bytes"
                Expect.isEmpty (leftovers out) "nothing else is left"

            /// Ten kills, and the end of the run; gives how many of the processes went on from a checkpoint.
            let chain (number: int) =
                let out = Path.Combine(folder, $"out{number}")
                let command = arguments out epochs @ [ "--checkpoint-every"; "1" ]
                let bits = Key.stream (Key.ofSeed number)
                let resumed = ref 0

                let note (child: Child) =
                    if
                        child.Lines
                        |> List.exists (fun line -> line.Contains "goes on from its checkpoint")
                    then
                        resumed.Value <- resumed.Value + 1

                let rec kill left =
                    if left > 0 then
                        use child = start command

                        // One in five at any time from its start on, the others while it trains.
                        if bits.Below 5 > 0 then
                            child.WaitFor("epoch 1,", "goes on from its checkpoint")

                        Thread.Sleep(bits.Below 200)

                        if child.HasExited then
                            // A machine so fast that it came to its end: once more.
                            Expect.equal child.ExitCode 0 $"its end: {child.Lines}"
                            check out
                            Directory.Delete(out, true)
                            kill left
                        else
                            child.Kill()
                            note child
                            kill (left - 1)

                kill 10

                // What a kill leaves while a file is written.
                for file in
                    [ Path.Combine(out, "weights", $".{name}.safetensors.abc.tmp")
                      Path.Combine(out, "checkpoints", name, ".epoch-000001-step-00000000.safetensors.abc.tmp") ] do
                    Directory.CreateDirectory(Path.GetDirectoryName file) |> ignore
                    File.WriteAllText(file, "half")

                use last = start command
                Expect.equal last.ExitCode 0 $"it comes to its end: {last.Lines}"
                note last
                check out
                resumed.Value

            let resumed = [| 11; 12 |] |> Array.Parallel.map chain
            Expect.isGreaterThan (Array.sum resumed) 10 "most went on from a checkpoint"))

let private signals =
    testCase
        "SIGINT and SIGTERM keep the state and say how to go on; another process on the same run is refused"
        (fun () ->
            inFolder (fun folder ->
                let data = writeImages (Path.Combine(folder, "it's data"))

                let arguments out epochs =
                    [ "train"; "--method"; "hard-patchup"; "--out"; out ] @ tiny data epochs

                let out, expected = Path.Combine(folder, "out"), Path.Combine(folder, "expected")
                let command = arguments out 30

                for name, code in [ "INT", 130; "TERM", 143 ] do
                    use child = start command
                    child.WaitFor "configuration"

                    if name = "INT" then
                        let code, printed, err = patchup command
                        Expect.equal (code, printed) (2, "") "the second process is refused"
                        Expect.stringContains err "another process is at work on this run" "why"

                    child.WaitFor(
                        if name = "INT" then
                            "epoch 2,"
                        else
                            "goes on from its checkpoint"
                    )

                    Expect.equal (child.Signal name) code $"the exit code of SIG{name}: {child.Lines}"
                    let last = List.last child.Lines
                    Expect.stringStarts last "patchup: stopped, and kept; to go on: patchup train " "what to do"
                    Expect.stringContains last "/it'\\''s data'" "as a shell takes it"

                    Expect.hasLength
                        (leftovers out |> List.filter _.EndsWith(".safetensors"))
                        (if name = "INT" then 1 else 2)
                        "its state, and the one before"

                let _, err = succeed command
                Expect.stringContains err "goes on from its checkpoint" "the command that was named"
                succeed (arguments expected 30) |> ignore
                Expect.equal (results out) (results expected) "the same bytes"
                Expect.isEmpty (leftovers out) "nothing else is left"

                // Several runs at once.
                let compare out =
                    [ "compare"
                      "--methods"
                      "none, mixup, cutmix"
                      "--seeds"
                      "1"
                      "--jobs"
                      "2"
                      "--out"
                      out ]
                    @ tiny data 30

                let out, expected = Path.Combine(folder, "out2"), Path.Combine(folder, "expected2")
                use child = start (compare out)
                child.WaitFor "epoch 2,"
                Expect.equal (child.Signal "TERM") 143 $"the exit code: {child.Lines}"
                Expect.hasLength (leftovers out |> List.filter _.EndsWith(".safetensors")) 2 "both that were going on"
                succeed (compare out) |> ignore
                succeed (compare expected) |> ignore
                Expect.equal (results out) (results expected) "the same bytes"))

let private fullDisk =
    testCase "a full disk fails in one line, keeps the checkpoints, and the run goes on when there is room" (fun () ->
        inFolder (fun folder ->
            let data = writeImages (Path.Combine(folder, "data"))
            let disk = Path.Combine(folder, "disk")
            Directory.CreateDirectory disk |> ignore

            let arguments out =
                [ "train"; "--method"; "soft-patchup"; "--out"; out ] @ tiny data 4

            let probe = Process.Start("unshare", [ "-rm"; "true" ])
            probe.WaitForExit()

            if probe.ExitCode <> 0 then
                skiptest "this machine lets no user mount a file system of his own (unshare -rm)"

            let expected = Path.Combine(folder, "expected")
            succeed (arguments expected) |> ignore

            let quoted =
                "dotnet" :: program :: arguments disk @ [ "--checkpoint-every"; "1" ]
                |> List.map (fun argument -> $"'{argument}'")
                |> String.concat " "

            // There is room for two checkpoints, and not for a third.
            let script =
                $"mount -t tmpfs -o size=SIZEk none '{disk}' && {{
                  {quoted}; echo code $?
                  find '{disk}' -type f
                  mount -o remount,size=16m '{disk}'
                  echo again; {quoted}; echo code $?
                  cp -r '{disk}' '{folder}/copied'; }} 2>&1"

            // Their size, from one that fits.
            let size =
                let opened = Path.Combine(folder, "size")
                use child = start (arguments opened @ [ "--checkpoint-every"; "1" ])
                child.WaitFor "epoch 1,"
                child.Signal "KILL" |> ignore

                leftovers opened
                |> List.filter _.EndsWith(".safetensors")
                |> List.map (fun path -> FileInfo(path).Length)
                |> List.max

            let room = 2L * size + size / 2L

            use child =
                new Child(
                    ProcessStartInfo("unshare", [ "-rm"; "sh"; "-c"; script.Replace("SIZE", string (room / 1024L)) ])
                )

            Expect.equal child.ExitCode 0 $"the script: {child.Lines}"
            let lines = child.Lines
            let first, second = List.splitAt (lines |> List.findIndex ((=) "again")) lines
            Expect.contains first "code 1" $"a failed run: {first}"
            let errors = first |> List.filter _.StartsWith("patchup:")
            Expect.hasLength errors 1 "one line"
            Expect.stringContains errors[0] "No space left on device" "why"
            Expect.hasLength (first |> List.filter _.EndsWith(".safetensors")) 2 "the checkpoints before stay"
            Expect.isFalse (first |> List.exists _.EndsWith(".tmp")) "nothing is half-written"
            Expect.exists second (fun line -> line.Contains "goes on from its checkpoint") "with room it goes on"
            Expect.contains second "code 0" $"to its end: {second}"
            Expect.equal (results (Path.Combine(folder, "copied"))) (results expected) "the same bytes"))

let private recordIn (out: string) : Record =
    File.ReadAllText(Directory.GetFiles(Path.Combine(out, "records"))[0])
    |> Json.tryRead<Record>
    |> Option.get

let private notFinite =
    testCase "a run that is no number any more says at which step, and which plan that was" (fun () ->
        onImages (fun dataset ->
            let config =
                { configOf "hard-patchup" with
                    LearningRate = 1e8
                    Seed = 3 }

            let message =
                try
                    runAlone config dataset |> ignore
                    failtest "it does not fail"
                with RunFailed message ->
                    message

            let found =
                Regex.Match(
                    message,
                    @"^the loss is not finite \(epoch (\d+), step (\d+)\); .* plan is that of ""(.*)"" for the key \{ State = (0x[0-9a-f]{16})UL \}, the first index (\d+), (\d+) samples and the progress ([0-9.]+) "
                )

            Expect.isTrue found.Success message
            let number (i: int) = int found.Groups[i].Value
            let epoch, step = number 1, number 2
            Expect.equal found.Groups[3].Value config.Notation "the notation"
            // The mixing's key is the run's fifth child.
            let key = Key.ofSeed 3 |> Key.child 4 |> Key.child (epoch - 1)
            Expect.equal found.Groups[4].Value $"0x{key.State:x16}" "the key"
            Expect.equal (number 5) (8 * (step - 1)) "the first index"
            Expect.equal (number 6) (if step = 3 then 7 else 8) "of 23 images"

            Expect.equal
                (float found.Groups[7].Value)
                ((float (epoch - 1) + float (8 * (step - 1)) / 23.0) / float config.Epochs)
                "the progress"

            // It is the first such step: the run that ends before it has finite losses, as far as validation comes.
            Expect.isFalse (epoch = 1 && step = 1) "the first step is from sound weights"))

let private notKept =
    testCase "weights that are not finite are not kept, and the step is said" (fun () ->
        inFolder (fun folder ->
            let out, file = Path.Combine(folder, "out"), Path.Combine(folder, "config.json")
            File.WriteAllText(file, """{"weightDecay": 1e30, "learningRate": 1e10}""")

            let code, _, err =
                patchup (
                    [ "train"; "--config"; file; "--checkpoint-every"; "1"; "--out"; out ]
                    @ tiny (writeImages (Path.Combine(folder, "data"))) 1
                )

            Expect.equal code 1 err
            Expect.stringContains err "is not finite after epoch 1, step 1; the run is stopped" "where"
            Expect.isEmpty (Directory.GetFiles(out, "*.safetensors", SearchOption.AllDirectories)) "no checkpoint"))

let private logging =
    testCase "a run's log has a line for every epoch, and TensorBoard gets them and a picture" (fun () ->
        inFolder (fun folder ->
            let data = writeImages (Path.Combine(folder, "data"))
            let out = Path.Combine(folder, "out")

            let _, err =
                succeed ([ "train"; "--method"; "cutmix"; "--tensorboard"; "--out"; out ] @ tiny data 3)

            let record = recordIn out
            let lines = File.ReadAllLines(Directory.GetFiles(Path.Combine(out, "logs"))[0])

            Expect.equal
                (lines |> Array.map (Json.tryRead<Epoch> >> Option.get) |> List.ofArray)
                record.History
                "an epoch a line"

            Expect.stringContains err $"configuration {Json.line record.Config}" "the configuration is printed"

            let files =
                Directory.GetFiles(Path.Combine(out, "tensorboard"), "*", SearchOption.AllDirectories)
                |> Array.sort

            Expect.hasLength files 2 "events, and the picture"
            let events = Text.Encoding.Latin1.GetString(File.ReadAllBytes files[0])

            for text in [ "validation/error"; "training/loss"; "learning rate"; "mixed images"; "PNG" ] do
                Expect.stringContains events text "the events"

            Expect.equal (Regex.Matches(events, "validation/NLL").Count) 3 "an epoch each"

            let blocked = Path.Combine(folder, "blocked")
            Directory.CreateDirectory blocked |> ignore
            File.WriteAllText(Path.Combine(blocked, "tensorboard"), "")

            let code, _, err =
                patchup ([ "train"; "--tensorboard"; "--out"; blocked ] @ tiny data 3)

            Expect.equal code 2 err
            Expect.stringContains err "results cannot be written there" "what is wrong"
            Expect.isGreaterThan (Images.read files[1]).Width 100 "the picture"

            // As if it had been killed when its record had just been written.
            let left =
                Path.Combine(
                    out,
                    "checkpoints",
                    Path.GetFileNameWithoutExtension(Directory.GetFiles(Path.Combine(out, "records"))[0])
                )

            Directory.CreateDirectory left |> ignore
            File.WriteAllText(Path.Combine(left, "epoch-000001-step-00000000.safetensors"), "")
            let _, err = succeed ([ "train"; "--method"; "cutmix"; "--out"; out ] @ tiny data 3)
            Expect.stringContains err "1 of 1 runs are finished already." "it is finished"
            Expect.isFalse (Directory.Exists left) "and its checkpoints are gone"))

let private configuration =
    testList
        "configuration"
        [ testCase "a record is a configuration, and options on the command line come before it" (fun () ->
              inFolder (fun folder ->
                  let data = writeImages (Path.Combine(folder, "data"))
                  let out = Path.Combine(folder, "out")

                  let options =
                      [ "--method"
                        "mixup-2020"
                        "--seed"
                        "5"
                        "--schedule"
                        "cosine"
                        "--ema"
                        "0.5" ]
                      @ [ "--warmup"; "0.5"; "--clip-norm"; "3"; "--label-smoothing"; "0.1" ]

                  succeed ([ "train"; "--out"; out ] @ options @ tiny data 1) |> ignore
                  let file = Directory.GetFiles(Path.Combine(out, "records"))[0]
                  let config = (recordIn out).Config

                  Expect.equal
                      (config.Schedule, config.EmaDecay, config.Warmup, config.ClipNorm)
                      ("cosine", 0.5, 0.5, 3.0)
                      "what the options said"

                  let again = [ "train"; "--config"; file; "--data"; data; "--out"; out ]
                  let _, err = succeed again
                  Expect.stringContains err "1 of 1 runs are finished already." "the same run"

                  let other = Path.Combine(folder, "other")

                  succeed (
                      [ "train"; "--config"; file; "--data"; data; "--out"; other ]
                      @ [ "--method"; "none"; "--seed"; "6"; "--epochs"; "2" ]
                  )
                  |> ignore

                  Expect.equal
                      (recordIn other).Config
                      { Config.withMethod (Arguments.method' "none") config with
                          Seed = 6
                          Epochs = 2 }
                      "the rest stays"

                  let code, _, err = patchup [ "train"; "--config"; file; "--out"; other ]
                  Expect.equal code 2 "other images"
                  Expect.stringContains err "name them with --data" "what to do"

                  let more = writeImages (Path.Combine(folder, "more"))
                  File.AppendAllText(Directory.GetFiles(Path.Combine(more, "train", "dark"))[0], " ")

                  let code, _, err =
                      patchup [ "train"; "--config"; file; "--data"; more; "--out"; other ]

                  Expect.equal code 2 "other images by name"
                  Expect.stringContains err "leave fingerprint out" "what to do"))

          testCase "a loss that the user chose comes before a method's, and a preset brings one" (fun () ->
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "config.json")

                  let chosen (json: string) (more: string list) =
                      File.WriteAllText(file, json)

                      Arguments.parseTraining<TrainArguments> "train" (Array.ofList ([ "--config"; file ] @ more))
                      |> snd
                      |> Arguments.losses

                  let preset = [ "--preset"; "paper-2020" ]
                  Expect.equal (chosen "{}" []) (None, None) "the method's own"
                  Expect.equal (chosen """{"loss": "brier", "cleanLoss": 2}""" []) (Some "brier", Some 2.0) "a file's"

                  Expect.equal
                      (chosen """{"method": "none", "loss": "brier"}""" [])
                      (None, None)
                      "of the file's method"

                  Expect.equal (chosen """{"loss": "brier"}""" preset) (Some "bce-on-softmax", None) "a preset's"

                  Expect.equal
                      (chosen "{}" (preset @ [ "--loss"; "cross-entropy"; "--clean-loss"; "3" ]))
                      (Some "cross-entropy", Some 3.0)
                      "options"

                  File.WriteAllText(file, """{"loss": "brier"}""")

                  let data, out =
                      writeImages (Path.Combine(folder, "data")), Path.Combine(folder, "out")

                  succeed (
                      [ "compare"
                        "--config"
                        file
                        "--methods"
                        "mixup-2020"
                        "--seeds"
                        "1"
                        "--out"
                        out ]
                      @ tiny data 1
                  )
                  |> ignore

                  Expect.equal (recordIn out).Config.Loss "brier" "what was trained with"))

          testCase "a part of a configuration takes the rest from the defaults" (fun () ->
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "config.json")

                  let read (json: string) =
                      File.WriteAllText(file, json)

                      let _, training =
                          Arguments.parseTraining<TrainArguments> "train" [| "--config"; file; "--device"; "cpu" |]

                      Arguments.config training

                  Expect.equal (read "{}") Config.standard "nothing"
                  Expect.equal (read """{"config": {"epochs": 9}}""").Epochs 9 "inside of a record"

                  Expect.equal
                      (read """{"method": "mixup-2020"}""")
                      (Config.withMethod (Arguments.method' "mixup-2020") Config.standard)
                      "a method has its notation and its loss"

                  Expect.equal
                      (read """{"notation": "cells 0.5 |> swap |> at input"}""").Method
                      "cells 0.5 |> swap |> at input"
                      "a line is its own name"

                  Expect.equal
                      (read """{"method": "mixup-2020", "loss": "brier"}""").Loss
                      "brier"
                      "a loss of one's own"

                  Expect.equal (read """{"model": "wrn-10-1"}""").Width None "a model that says how wide it is"
                  Expect.equal (read """{"model": "resnet-18", "width": 3}""").Width (Some 3) "one that does not"))

          testCase "the file in docs/training.md is read" (fun () ->
              inFolder (fun folder ->
                  let docs = File.ReadAllText(Path.Combine(Docs.root, "docs", "training.md"))
                  let found = Regex.Match(docs, @"```json\n(.*?)```", RegexOptions.Singleline)
                  let file = Path.Combine(folder, "config.json")
                  File.WriteAllText(file, found.Groups[1].Value)
                  let config, named = ConfigFile.read file
                  Expect.equal (config.Epochs, config.EmaDecay) (20, 0.999) "its values"
                  Expect.hasLength named 6 "its names"
                  Config.check { config with Width = None }))

          testCase "presets are the published schedules" (fun () ->
              let preset more =
                  let _, training =
                      Arguments.parseTraining<TrainArguments>
                          "train"
                          (Array.ofList ([ "--preset"; "paper-2020" ] @ more))

                  let config = Arguments.config training

                  config.Epochs,
                  [ for epoch in 1 .. config.Epochs - 1 do
                        let rate epoch = Config.learningRate config 1 epoch

                        if rate epoch <> rate (epoch - 1) then
                            epoch ],
                  (config.Width, config.BatchSize, config.LearningRate, config.WeightDecay, config.Momentum)

              let settings width = width, 100, 0.1, 1e-4, 0.9

              for model in [ "preact-resnet-18"; "preact-resnet-34" ] do
                  Expect.equal (preset [ "--model"; model ]) (2000, [ 500; 1000; 1500 ], settings (Some 64)) model

              for model in [ "wrn-28-10"; "wrn-28-10-2020" ] do
                  Expect.equal (preset [ "--model"; model ]) (400, [ 200; 300 ], settings None) model

              let epochs, _, _ = preset [ "--epochs"; "8" ]
              Expect.equal epochs 8 "an option comes before it")

          testCase "what a configuration cannot hold is refused by name" (fun () ->
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "config.json")
                  let out = Path.Combine(folder, "out")

                  for json, expected in
                      [ """{"epoch": 3}""",
                        "'epoch' is not a configuration's (did you mean epochs?); the names are recipe, method"
                        """{"epochs": 3.5}""", "epochs cannot be 3.5; it is something like 6"
                        """{"method": null}""", "method cannot be null"
                        """{"milestones": [0.5, "x"]}""", "milestones cannot be"
                        """{"epochs": 3, "epochs": 4}""", "not JSON that could be a configuration"
                        """[1]""", "a JSON object"
                        """{"epochs": """, "not JSON that could be a configuration"
                        """{"recipe": 99}""", "recipe 99 is of another version"
                        """{"method": "mixup", "notation": "identity"}""", "not the file's notation"
                        """{"method": "mixap"}""", "did you mean 'mixup'"
                        """{"device": "gpu"}""", "device 'gpu'"
                        """{"schedule": "linear"}""", "multi-step, cosine, one-cycle"
                        """{"warmup": 6}""", "warm-up 6: it must lie in [0, 6)"
                        """{"warmup": 1, "schedule": "one-cycle"}""", "has its own"
                        """{"milestones": [0.5, 2]}""", "milestones 0.5, 2"
                        """{"emaDecay": 1}""", "moving average"
                        """{"clipNorm": -1}""", "clip norm -1"
                        """{"momentum": -1}""", "momentum -1"
                        """{"weightDecay": -1}""", "weight decay -1"
                        """{"validationShare": 1}""", "validation share 1"
                        """{"cropPadding": -1}""", "crop padding -1" ] do
                      File.WriteAllText(file, json)
                      let code, printed, err = patchup [ "train"; "--config"; file; "--out"; out ]
                      Expect.equal (code, printed) (2, "") $"{json}: {err}"
                      Expect.stringContains err expected json
                      Expect.hasLength (err.TrimEnd().Split '\n') 1 json

                  for arguments, expected in
                      [ [ "--config"; Path.Combine(folder, "none.json") ], "no such file"
                        [ "--preset"; "paper" ], "the presets are paper-2020"
                        [ "--preset"; "paper-2020"; "--model"; "resnet-50" ], "no schedule for resnet-50"
                        [ "--checkpoint-every"; "0" ], "at least one step"
                        [ "--schedule"; "step" ], "schedule 'step'" ] do
                      let code, printed, err = patchup ([ "train"; "--out"; out ] @ arguments)
                      Expect.equal (code, printed) (2, "") $"{arguments}: {err}"
                      Expect.stringContains err expected $"{arguments}"

                  Expect.isFalse (Directory.Exists out) "nothing is written")) ]

let private noting =
    testCase "a table's notes say how the learning rate goes" (fun () ->
        let notes change =
            let record: Record =
                { Config = change Config.standard
                  Parameters = 7L
                  BestEpoch = 1
                  TestError = 1.0
                  TestNll = 1.0
                  History = [] }

            Tables.text (Tables.compare [ record ])

        for change, expected in
            [ id, "learning rate 0.1, divided by ten at 1/2 and 3/4 of the epochs; seeds"
              (fun config ->
                  { config with
                      Milestones = [ 0.25; 0.5; 0.9 ] }),
              "divided by ten at 1/4, 1/2 and 0.9 of the epochs;"
              (fun config -> { config with Milestones = [ 0.75 ] }), "0.1, divided by ten at 3/4 of the epochs;"
              (fun config -> { config with Milestones = [] }), "learning rate 0.1; seeds"
              (fun config ->
                  { config with
                      Schedule = "cosine"
                      Warmup = 2.0
                      ClipNorm = 5.0
                      EmaDecay = 0.99 }),
              "learning rate 0.1, cosine, warm-up of 2 epochs, gradients clipped to a norm of 5, weights averaged with the decay 0.99;" ] do
            Expect.stringContains (notes change) expected expected)

let tests =
    testSequenced (
        testList
            "engine"
            [ sgd
              clipping
              schedules
              averaging
              resuming
              notFinite
              notKept
              logging
              configuration
              noting
              signals
              fullDisk
              killing ]
    )
