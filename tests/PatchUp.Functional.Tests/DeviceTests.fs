module PatchUp.Tests.DeviceTests

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open Expecto
open PatchUp.Functional
open PatchUp.Repro
open PatchUp.Tests.Fixtures
open TorchSharp

// ---- devices ----

/// Everything in the language that makes a tensor of its own when it is applied.
let private programs =
    [ for method' in Catalogue.all do
          method'.Name, method'.Regularizer

      for line in
          [ "cells 0.5 |> blendEach (beta 2 2) |> at input |> terms 0.5 2"
            "perSample (rect uniform) |> swap |> resized |> at input"
            "blocks 3 0.3 |> blank |> rescale sample |> at input"
            "blocks 3 0.3 |> blank |> rescale batch |> at input" ] do
          match Catalogue.parse line with
          | Ok regularizer -> line, regularizer
          | Error error -> failwith $"{line}: {error}" ]

let private losses =
    [ CrossEntropy; BceOnSoftmax; Brier; Smoothed(0.1, CrossEntropy) ]

let private count, classes, side = 6, 4, 8

/// A staged network without parameters, with the sites that the catalogue names: features become logits at the end.
let private network =
    { Module = torch.nn.Identity()
      Stages =
        [ for stage in 1..3 do
              $"stage{stage}", (fun (x: torch.Tensor) -> x.relu ())
          "head", (fun (x: torch.Tensor) -> x.mean [| 2L; 3L |]) ] }

let private images (device: torch.Device) =
    use generator = new torch.Generator(1UL)

    torch
        .randn([| int64 count; int64 classes; int64 side; int64 side |], generator = generator, device = torch.CPU)
        .``to``
        device

let private labels = [| for i in 0 .. count - 1 -> i % classes |]

/// The numbers of a forward pass with several plans of each program: features, losses and expected accuracies.
let private numbers (device: torch.Device) : (string * float list) list =
    [ for name, regularizer in programs do
          for draw in 0..4 do
              name,
              Scope.value (fun () ->
                  let images = images device

                  let batch = Batch.create images (Targets.ofIndices device classes labels)
                  use flat = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1L), torch.nn.Flatten())

                  let info =
                      { BatchInfo.create count (Attach.shapes network images) with
                          Labels = Some labels }
                      |> Saliency.follow (Saliency.gradient CrossEntropy flat) id (images.sigmoid ()) batch

                  let plan = Plan.draw (Key.ofSeed draw) info regularizer
                  let output = Attach.forward plan network batch
                  let targets = Targets.smooth 0.1 output.Targets

                  [ for loss in losses do
                        float ((Loss.ofBatch loss targets output.Features).item<float32>())

                    yield! Loss.expectedAccuracy targets output.Features
                    yield!
                        (Plan.apply (Plan.only [ Number 0 ] plan) batch).Features.cpu().data<float32>().ToArray()
                        |> Seq.map float ]) ]

/// Runs `test` while tensors are made on this device where none is named.
let private byDefaultOn (device: torch.Device) (test: unit -> 'a) : 'a =
    let before = torch.get_default_device ()
    torch.set_default_device device

    try
        test ()
    finally
        torch.set_default_device before

/// A training that takes no time.
let private training =
    [ "train"
      "--epochs"
      "1"
      "--width"
      "1"
      "--train-per-class"
      "4"
      "--test-per-class"
      "2" ]

let private isOn (device: torch.Device) (tensor: torch.Tensor) =
    Expect.equal (string tensor.device) (string device) "the device"

/// A test that needs a CUDA device, and says so where there is none.
let private onCuda name (test: torch.Device -> unit) =
    testCase name (fun () ->
        if torch.cuda_is_available () then
            test (torch.device "cuda")
        else
            skiptest "no CUDA device here")

let private devices =
    testList
        "devices"
        [ testCase "no tensor is made on the default device" (fun () ->
              // A tensor of the device meta has no data: mixed with others it is refused.
              let numbers' = byDefaultOn torch.META (fun () -> numbers torch.CPU)
              Expect.equal numbers' (numbers torch.CPU) "the numbers")

          testCase "the core names the CPU only where it says why" (fun () ->
              // With the test before: every tensor is made on the device of the inputs.
              let named =
                  [ for file in Directory.GetFiles(Path.Combine(Docs.root, "src/PatchUp.Functional"), "*.fs") do
                        for line in File.ReadLines file do
                            // Saliency is numbers for the caller.
                            if
                                Path.GetFileName file <> "Saliency.fs"
                                && Regex.IsMatch(line, @"torch\.CPU|\.cpu\b|""cpu""")
                            then
                                Path.GetFileName file, line.Trim() ]

              Expect.equal
                  (List.sort named)
                  [ "Loss.fs", ".``to``(torch.CPU)" // Numbers for the caller.
                    "Scope.fs", "torch.tensor (value, device = torch.CPU)" ] // A number without axes goes with any device.
                  "the lines")

          testCase "losses and smooth moves on a device without data" (fun () ->
              // The device meta finds shapes and devices alone, and has no selection by index or mask.
              Scope.value (fun () ->
                  let device = torch.META
                  let targets = Targets.smooth 0.1 (Targets.ofIndices device classes labels)
                  isOn device targets.Soft

                  let mixed =
                      { targets with
                          Mixed =
                              Some
                                  { Own = targets.Soft
                                    Altered = targets.Soft
                                    Unchanged = Array.create count 0.5
                                    Objective = Objective.weighted 0.5 2.0 } }

                  let logits = torch.zeros ([| int64 count; int64 classes |], device = device)

                  for loss in [ CrossEntropy; Brier; Smoothed(0.1, CrossEntropy) ] do
                      isOn device (Loss.ofBatch loss mixed logits)

                  let shape = shapeOf classes side side
                  let features = torch.zeros_like ((images torch.CPU), device = device)

                  let weight =
                      { Mask = Mask.constant shape false
                        Toward = [| for i in 1..count -> float i / 10.0 |] }

                  isOn device (Blend.blend weight features features)))

          testCase "features and targets of two devices are refused" (fun () ->
              Scope.value (fun () ->
                  let features = torch.zeros ([| int64 count; 3L |], device = torch.META)

                  expectRefused [ "meta"; "cpu" ] (fun () ->
                      Batch.create features (Targets.ofIndices torch.CPU classes labels))))

          testCase "a network moves with all of its stages" (fun () ->
              let model =
                  Architectures.create
                      "preact-resnet-18"
                      { NetworkSettings.cifar10 with
                          Width = Some 1
                          Classes = classes }
                      0UL

              try
                  Model.toDevice torch.META model

                  for name, tensor in Model.state model do
                      Expect.equal (string tensor.device) "meta" name

                  for inner in model.Module.modules () do
                      match inner with
                      | :? TorchSharp.Modules.Conv2d as conv -> isOn torch.META conv.weight
                      | _ -> ()

                  Scope.value (fun () ->
                      let images = torch.zeros ([| 2L; 3L; 8L; 8L |], device = Model.device model)
                      isOn torch.META (model.Normalise images)

                      // Convolutions are not to be had on this device; the head does without.
                      let head = model.Stages |> List.last |> snd
                      isOn torch.META (head (torch.zeros ([| 2L; 8L; 4L; 4L |], device = torch.META))))
              finally
                  Model.dispose model)

          onCuda "what CUDA computes is what the CPU computes" (fun cuda ->
              for (name, expected), (_, found) in List.zip (numbers torch.CPU) (numbers cuda) do
                  for expected, found in List.zip expected found do
                      expectNear 1e-4 found expected name)

          onCuda "a network learns on CUDA, and its weights are read on the CPU" (fun _ ->
              ReproTests.inFolder (fun folder ->
                  let train device =
                      let out = Path.Combine(folder, device)

                      ReproTests.succeed (training @ [ "--device"; device; "--out"; out ]) |> ignore

                      use weights =
                          Checkpoint.read (Directory.GetFiles(Path.Combine(out, "weights"))[0])
                          |> snd
                          |> _.Module

                      for parameter in weights.parameters () do
                          isOn torch.CPU parameter

                      let record =
                          File.ReadAllText(Directory.GetFiles(Path.Combine(out, "records"))[0])
                          |> Json.tryRead<Record>

                      Expect.equal record.Value.Config.Device device "the device in the record"
                      record.Value.History.Head.TrainLoss

                  expectNear 0.05 (train "cuda") (train "cpu") "the loss"))

          testCase "a device that is not there, and one that is no device" (fun () ->
              let code, _, err = ReproTests.patchup [ "train"; "--device"; "gpu" ]
              Expect.equal code 2 "the exit code"
              Expect.stringContains err "device 'gpu': it must be one of auto, cpu, cuda" "the message"

              if torch.cuda_is_available () then
                  skiptest "there is a CUDA device here"

              let code, _, err =
                  ReproTests.patchup [ "predict"; "w.safetensors"; "a.png"; "--device"; "cuda" ]

              Expect.equal code 2 "the exit code"
              Expect.stringContains err "device cuda: there is none here" "the message"
              Expect.stringContains err Native.variable "what to do") ]

// ---- libtorch from a folder ----

/// A child process that runs the program of a folder: exit code, output, and the folders from which it had libtorch while it ran.
let private child (program: string) (libtorch: string option) (arguments: string list) =
    let start =
        ProcessStartInfo(
            "dotnet",
            Path.Combine(program, "patchup.dll") :: arguments,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    start.Environment.Remove Native.variable |> ignore

    libtorch
    |> Option.iter (fun folder -> start.Environment[Native.variable] <- folder)

    use child = Process.Start start

    let out, err =
        child.StandardOutput.ReadToEndAsync(), child.StandardError.ReadToEndAsync()

    let mapped () =
        try
            [ for line in File.ReadAllLines $"/proc/{child.Id}/maps" do
                  if line.EndsWith("/libtorch_cpu.so", StringComparison.Ordinal) then
                      Path.GetDirectoryName(line.Substring(line.IndexOf '/')) ]
        with :? IOException ->
            []

    let rec watch seen =
        let seen = List.distinct (mapped () @ seen)
        if child.WaitForExit 20 then seen else watch seen

    let folders = watch []
    child.ExitCode, out.Result, err.Result, folders

let private into (folder: string) =
    training @ [ "--out"; Path.Combine(folder, "results") ]

let private libtorch =
    [ "libc10.so"; "libtorch_cpu.so"; "libtorch.so"; "libgomp-98b21ff3.so.1" ]

/// This build's own libraries.
let private here = AppContext.BaseDirectory

/// Copies, as links would be seen as what they point to.
let private copyTo (folder: string) files =
    Directory.CreateDirectory folder |> ignore

    for file: string in files do
        File.Copy(file, Path.Combine(folder, Path.GetFileName file))

/// A copy of the program without libtorch.
let private copyProgram (folder: string) =
    copyTo
        folder
        [ for file in Directory.GetFiles here do
              let name = Path.GetFileName file

              if
                  name.StartsWith("patchup.", StringComparison.Ordinal)
                  || name.EndsWith(".dll", StringComparison.Ordinal)
                  || name = "libLibTorchSharp.so"
                  || name = "libSkiaSharp.so"
              then
                  file ]

    folder

let private copyLibTorch (folder: string) =
    copyTo folder [ for file in libtorch -> Path.Combine(here, file) ]
    folder

/// Exit code 2, nothing done, and one line that has these texts.
let private isRefused (texts: string list) (code: int, out: string, err: string, _: string list) =
    Expect.equal code 2 $"the exit code ({err})"
    Expect.equal out "" "standard output"
    Expect.hasLength (err.TrimEnd('\n').Split '\n') 1 $"one line: {err}"

    for text in texts do
        Expect.stringContains err text "the message"

let private natives =
    testList
        "libtorch from a folder"
        [ testCase "libtorch comes from the folder named, else from the program's own" (fun () ->
              ReproTests.inFolder (fun folder ->
                  let program = copyProgram (Path.Combine(folder, "program"))
                  let own = copyLibTorch (Path.Combine(folder, "named"))

                  let code, _, err, folders = child program (Some own) (into folder)
                  Expect.equal code 0 err
                  Expect.equal folders [ own ] "with the variable"

                  let packaged = Path.Combine(program, "libtorch")
                  Directory.Move(own, packaged)
                  let code, _, err, folders = child program None (into folder @ [ "--seed"; "1" ])
                  Expect.equal code 0 err
                  Expect.equal folders [ packaged ] "without"

                  let other = copyLibTorch (Path.Combine(folder, "other"))

                  let code, _, err, folders =
                      child program (Some other) (into folder @ [ "--seed"; "2" ])

                  Expect.equal code 0 err
                  Expect.equal folders [ other ] "with both"))

          testCase "a folder that does not fit is refused in one line" (fun () ->
              ReproTests.inFolder (fun folder ->
                  let program = copyProgram (Path.Combine(folder, "program"))

                  let refused path texts =
                      child program (Some path) (into folder)
                      |> isRefused (Native.variable :: path :: "needs libtorch 2.10" :: texts)

                  refused (Path.Combine(folder, "missing")) [ "there is no such folder" ]

                  let empty = Path.Combine(folder, "empty")
                  Directory.CreateDirectory empty |> ignore
                  refused empty [ "it has no libc10.so" ]

                  let made name (core: string -> unit) =
                      let path = Path.Combine(folder, name)
                      copyTo path [ Path.Combine(here, "libc10.so"); Path.Combine(here, "libtorch.so") ]
                      core (Path.Combine(path, "libtorch_cpu.so"))
                      path

                  let cutShort length (path: string) =
                      use source = File.OpenRead(Path.Combine(here, "libtorch_cpu.so"))
                      use target = File.Create path
                      let bytes = Array.zeroCreate<byte> length
                      source.ReadExactly bytes
                      target.Write bytes

                  for length in [ 0; 63; 100; 1_000_000 ] do
                      refused (made $"cut-at-{length}" (cutShort length)) [ "libtorch_cpu.so is no whole library" ]

                  // libc10 under its name: a sound library of another kind, which does not say a version.
                  refused
                      (made "another" (fun path -> File.Copy(Path.Combine(here, "libc10.so"), path)))
                      [ "its version is an older one" ]))

          testCase "a program built without libtorch says how to name one" (fun () ->
              ReproTests.inFolder (fun folder ->
                  let program = copyProgram (Path.Combine(folder, "program"))

                  child program None (into folder)
                  |> isRefused [ Native.variable; "PyTorch 2.10" ]

                  // What computes nothing needs none.
                  let code, _, err, folders = child program None [ "methods" ]
                  Expect.equal (code, folders) (0, []) err))

          testCase "a libtorch that TorchSharp would load as well is refused" (fun () ->
              ReproTests.inFolder (fun folder ->
                  let other = Path.Combine(folder, "other")
                  Directory.CreateDirectory other |> ignore

                  child here (Some other) (into folder)
                  |> isRefused [ other; Path.TrimEndingDirectorySeparator here; "build it without" ]))

          testCase "nothing is loaded beside the libtorch in use" (fun () ->
              // These tests run on the libtorch of their own folder.
              Native.load here

              ReproTests.inFolder (fun folder ->
                  let message =
                      try
                          Native.load folder
                          ""
                      with :? InvalidOperationException as error ->
                          error.Message

                  Expect.stringContains message "before TorchSharp is first used" "the reason"
                  Expect.stringContains message folder "the folder"
                  Expect.stringContains message (Path.TrimEndingDirectorySeparator here) "the one in use"))

          testCase "the version that is asked for is TorchSharp's" (fun () ->
              // As isRefused tests above: 2.10.
              Expect.isTrue (torch.__version__.StartsWith("2.10.", StringComparison.Ordinal)) torch.__version__) ]

let tests = testList "device" [ devices; natives ]
