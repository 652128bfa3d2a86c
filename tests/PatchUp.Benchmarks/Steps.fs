/// Whole training steps: plain and with each method, by stages and by hooks, in F# and through the C# facade, and what surrounds them.
module PatchUp.Benchmarks.Steps

open System
open System.Diagnostics
open PatchUp.Benchmarks.Measure
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Functional.Words
open TorchSharp

let private count = 100

/// PreActResNet-18 with an optimiser, and a batch of 100 images 3x32x32.
[<NoEquality; NoComparison>]
type private Setting =
    { Model: Model
      Staged: Staged
      Optimizer: torch.optim.Optimizer
      Images: torch.Tensor
      Batch: Batch
      Info: BatchInfo }

let private labels = Array.init count (fun i -> i % 10)

let private setting (width: int) : Setting =
    let model =
        Architectures.create
            "preact-resnet-18"
            { NetworkSettings.cifar10 with
                Width = Some width }
            1UL

    Model.train model
    let images = torch.rand (int64 count, 3L, 32L, 32L)

    let batch =
        Batch.create (model.Normalise images) (Targets.ofIndices torch.CPU 10 labels)

    let staged =
        { Module = model.Module
          Stages = model.Stages }

    { Model = model
      Staged = staged
      Optimizer = torch.optim.SGD(model.Module.parameters (), 0.01, 0.9, weight_decay = 1e-4, nesterov = true)
      Images = images
      Batch = batch
      Info =
        { BatchInfo.create count (Attach.shapes staged batch.Features) with
            Labels = Some labels }
        |> Saliency.follow (Saliency.gradient CrossEntropy model.Module) model.Normalise images batch }

/// Forward by `run`, backward, and the optimiser's step.
let private learn (setting: Setting) (run: Batch -> Batch) =
    Scope.value (fun () ->
        let output = run setting.Batch
        (Loss.ofBatch CrossEntropy output.Targets output.Features).backward()
        setting.Optimizer.step () |> ignore
        setting.Model.Module.zero_grad ())

/// Steps with a method, each with a plan of its own: saliency is computed anew where it asks for it.
let private step (setting: Setting) (regularizer: Regularizer) =
    let turn = ref 0

    let info () =
        turn.Value <- turn.Value + 1

        { setting.Info with
            First = turn.Value * count }
        |> Saliency.follow
            (Saliency.gradient CrossEntropy setting.Model.Module)
            setting.Model.Normalise
            setting.Images
            setting.Batch

    fun () -> learn setting (Attach.forward (Plan.draw (Key.ofSeed 2) (info ()) regularizer) setting.Staged)

/// The library's `regularizer` at one of the sites input, after conv1, after stage 1.
let private patchUp region mix =
    oneOf [ 1, rect uniform |> swap |> at input; 2, region |> mix |> atAny [ 1; 2 ] ]

let private plain = "no mixing"

let private methods: (string * Regularizer) list =
    [ plain, Regularizer.identity
      "hard PatchUp", patchUp (blocks 7 0.5) swap
      "soft PatchUp", patchUp (blocks 7 0.75) (blend (beta 2 2))
      "hard PatchUp, a mask a sample", patchUp (perSample (blocks 7 0.5)) swap ]

let private others: (string * Regularizer) list =
    [ plain, Regularizer.identity
      "hard PatchUp after stage 1", blocks 7 0.5 |> swap |> at 2
      "Mixup", Catalogue.mixup 1
      "CutMix", Catalogue.cutMix 1
      "DropBlock", Catalogue.dropBlock Exact 7 0.1 [ 1; 2; 3; 4 ]
      "PuzzleMix", Catalogue.puzzleMix PuzzleSettings.cifar ]

/// Training steps of 100 images.
let training (width: int) (rounds: int) (bound: float) : Group list =
    let setting = setting width

    let group title rounds methods targets =
        { Title = $"A training step of 100 images, PreActResNet-18 of width {width}{title}"
          References = [ plain ]
          Rounds = rounds
          Variants =
            methods
            |> List.map (fun (name, regularizer) ->
                { Name = name
                  Run = step setting regularizer })
          Targets = targets }

    [ group
          ", PatchUp at the input, after conv1 or after stage 1"
          rounds
          methods
          [ "hard PatchUp", Share(plain, bound)
            "soft PatchUp", Share(plain, bound)
            "hard PatchUp, a mask a sample", Share(plain, 1.05) ]
      group ", other methods" (max 3 (rounds / 3)) others [ "PuzzleMix", Share(plain, 1.75) ] ]

/// Three ways to the same step, small enough that their own cost shows.
let ways (rounds: int) : Group =
    let setting = setting 4
    let regularizer = blocks 7 0.5 |> swap |> at 2
    let model = setting.Model.Module

    let hooked =
        model |> Hooks.attach [ "conv1"; "layer1"; "layer2"; "layer3"; "layer4" ]

    let throughCSharp () =
        learn setting (fun batch ->
            let plan = CSharp.Training.Draw(regularizer, CSharp.Training.Seed 2, setting.Info)

            CSharp.Networks.Forward(setting.Staged, plan, batch))

    { Title = "The same step by stages, by hooks and through the C# facade, PreActResNet-18 of width 4"
      References = [ "stages" ]
      Rounds = rounds
      Variants =
        [ { Name = "stages"
            Run =
              fun () ->
                  learn setting (Attach.forward (Plan.draw (Key.ofSeed 2) setting.Info regularizer) setting.Staged) }
          { Name = "hooks"
            Run = fun () -> learn setting (Hooks.forward (Plan.draw (Key.ofSeed 2) setting.Info regularizer) hooked) }
          { Name = "stages, through the C# facade"
            Run = throughCSharp } ]
      Targets = [] }

/// 10,000 CIFAR-sized images that are cropped, flipped and normalised, in batches of 100.
let augmentation (rounds: int) : Group =
    let images = 10000
    let bits = Key.stream (Key.ofSeed 5)

    let split =
        { Split.Images = torch.randint (0L, 256L, [| int64 images; 3L; 32L; 32L |], dtype = torch.uint8)
          Labels = Array.zeroCreate images }

    let moves =
        { Flip = Array.init count (fun _ -> bits.Below 2 = 1)
          Dy = Array.init count (fun _ -> bits.Below 5)
          Dx = Array.init count (fun _ -> bits.Below 5) }

    let order = Key.permutation images (Key.ofSeed 6) |> Array.chunkBySize count
    let normalise = (setting 4).Model.Normalise

    let all () =
        for indices in order do
            Scope.value (fun () -> Augment.cropAndFlip 2 moves split indices |> normalise |> ignore)

    { Title = "Crop, flip and normalise 10,000 images 3x32x32"
      References = []
      Rounds = rounds
      Variants = [ { Name = "10,000 images"; Run = all } ]
      // 150,000 images a second.
      Targets = [ "10,000 images", Milliseconds(10000.0 / 150.0) ] }

/// What an epoch spends outside forward, backward and optimiser: drawing orders, moves and plans, augmentation, normalisation, targets.
let surroundings (width: int) (rounds: int) : Group =
    let setting = setting width
    let bits = Key.stream (Key.ofSeed 5)

    let split =
        { Split.Images = torch.randint (0L, 256L, [| 1000L; 3L; 32L; 32L |], dtype = torch.uint8)
          Labels = Array.init 1000 (fun i -> i % 10) }

    let regularizer = Catalogue.hardPatchUp Exact

    let prepare () =
        let indices = Array.init count (fun _ -> bits.Below 1000)

        let moves =
            { Flip = Array.init count (fun _ -> bits.Below 2 = 1)
              Dy = Array.init count (fun _ -> bits.Below 5)
              Dx = Array.init count (fun _ -> bits.Below 5) }

        Scope.value (fun () ->
            let images = Augment.cropAndFlip 2 moves split indices

            Batch.create (setting.Model.Normalise images) (Targets.ofIndices torch.CPU 10 labels)
            |> ignore

            Plan.draw (Key.ofSeed 2) setting.Info regularizer |> ignore)

    { Title = $"What surrounds a step of 100 images, PreActResNet-18 of width {width}"
      References = [ plain ]
      Rounds = rounds
      Variants =
        [ { Name = plain
            Run = step setting Regularizer.identity }
          { Name = "a batch and its plan"
            Run = prepare } ]
      Targets = [ "a batch and its plan", Share(plain, 0.03) ] }

/// What a step leaves behind and allocates.
type Memory =
    {
        Steps: int
        /// Native tensors alive after the last step, over those after the first.
        TensorsLeft: int64
        /// Bytes of resident memory a step, after forced collections: the slope from a tenth of the steps on.
        ResidentBytes: float
        /// Managed bytes that a step allocates on its own thread.
        ManagedBytes: float
    }

let private resident () =
    for _ in 1..2 do
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, true, true)
        GC.WaitForPendingFinalizers()

    use current = Process.GetCurrentProcess()
    float current.WorkingSet64

/// The least squares slope.
let private slope (points: (float * float) list) =
    let x, y = List.averageBy fst points, List.averageBy snd points

    List.sumBy (fun (a, b) -> (a - x) * (b - y)) points
    / List.sumBy (fun (a, _) -> (a - x) ** 2.0) points

/// Many steps of a small network with hard and soft PatchUp, Cutout, DropBlock and a mask a sample in turn.
let memory (steps: int) : Memory =
    let setting = setting 1

    let methods =
        [| Catalogue.hardPatchUp Exact
           Catalogue.softPatchUp Exact
           Catalogue.cutout perSample
           Catalogue.dropBlock Exact 7 0.1 [ 1; 2; 3; 4 ]
           perSample (blocks 7 0.5) |> swap |> at 1 |]

    let images = 4

    let batch =
        Batch.create
            (setting.Batch.Features.narrow(0L, 0L, int64 images).clone())
            (Targets.ofIndices torch.CPU 10 labels[.. images - 1])

    let one i =
        let info =
            { BatchInfo.create images setting.Info.Shape with
                First = i * images }

        let plan = Plan.draw (Key.ofSeed 3) info methods[i % methods.Length]

        Scope.value (fun () ->
            let output = Attach.forward plan setting.Staged batch
            (Loss.ofBatch CrossEntropy output.Targets output.Features).backward()
            setting.Optimizer.step () |> ignore
            setting.Model.Module.zero_grad ())

    let live () =
        DisposeScopeManager.Statistics.ThreadTotalLiveCount

    for i in 0 .. steps / 10 - 1 do
        one i

    let before, allocated = live (), GC.GetAllocatedBytesForCurrentThread()

    let points =
        [ for part in 1..9 do
              for i in part * steps / 10 .. (part + 1) * steps / 10 - 1 do
                  one i

              float ((part + 1) * steps / 10), resident () ]

    { Steps = steps
      TensorsLeft = live () - before
      ResidentBytes = slope points
      ManagedBytes = float (GC.GetAllocatedBytesForCurrentThread() - allocated) / (0.9 * float steps) }
