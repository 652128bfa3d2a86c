/// The architectures, their published numbers, and weights in PyTorch's conventions.
module PatchUp.Tests.ModelTests

open System
open System.Collections.Generic
open System.IO
open System.Text
open System.Text.Json
open Expecto
open PatchUp.Functional
open PatchUp.Repro
open PatchUp.Tests.DataModelTests
open TorchSharp

let private cifar width =
    { NetworkSettings.cifar10 with
        Width = width
        Classes = 5 }

/// Every kind of network and stem, narrow, with the side of its images.
let private narrow: (string * NetworkSettings * int) list =
    let wide = cifar None
    let slim = cifar (Some 4)

    [ "preact-resnet-18", slim, 16
      "preact-resnet-34", { slim with Stride = 2 }, 32
      "wrn-10-1", wide, 16
      "wrn-16-2", { wide with Stride = 2 }, 32
      "wrn-10-1-2020", wide, 16
      "wrn-16-2-2020", wide, 16
      "resnet-18", slim, 16
      "resnet-34", { slim with Stride = 2 }, 32
      "resnet-18", { slim with Stride = 4 }, 64
      "resnet-50", slim, 16
      "resnet-50", { slim with Stride = 4 }, 64 ]

/// N images of a wave, the same ones always.
let private waves (count: int) (side: int) : torch.Tensor =
    torch.tensor (
        Array.init (count * 3 * side * side) (fun i -> float32 (sin (float i) + 0.5)),
        ReadOnlySpan [| int64 count; 3L; int64 side; int64 side |]
    )

/// Other numbers than a new network has, so that nothing is hidden by scales of 1 and shifts of 0.
let disturb (model: Model) : unit =
    Scope.value (fun () ->
        use _ = torch.no_grad ()
        use generator = new torch.Generator(99UL)

        for name, tensor in Model.state model do
            if tensor.dim () = 1L then
                tensor.uniform_ (0.5, 1.5, generator) |> ignore
            elif name.EndsWith "num_batches_tracked" then
                tensor.add_ (torch.tensor 7L) |> ignore)

let using (model: Model) (look: Model -> 'a) : 'a =
    try
        look model
    finally
        Model.dispose model

let private outlined (name: string) (settings: NetworkSettings) (look: Model -> 'a) : 'a =
    using (Architectures.outline name settings) look

let private describe (model: Model) =
    Model.state model
    |> List.map (fun (name, tensor) -> name, tensor.dtype, List.ofArray tensor.shape)

// What the sources say

/// Parameters: torchvision's documentation of its models; for wide residual networks the counts of 10-class networks
/// that papers give (WRN-16-2: 0.69M, WRN-40-4: 8.9M, WRN-28-10: 36.5M), and layer by layer for the rest.
let private counts =
    [ "preact-resnet-18", 11_171_146L
      "preact-resnet-34", 21_279_306L
      "wrn-16-2", 691_674L
      "wrn-40-4", 8_949_210L
      "wrn-28-10", 36_479_194L
      "wrn-28-10-2020", 36_489_290L
      "resnet-18", 11_689_512L
      "resnet-34", 21_797_672L
      "resnet-50", 25_557_032L
      "resnet-101", 44_549_160L
      "resnet-152", 60_192_808L ]

let private normNames (name: string) (channels: int64) =
    [ for part in [ "weight"; "bias"; "running_mean"; "running_var" ] do
          $"{name}.{part}", [ channels ]
      $"{name}.num_batches_tracked", [] ]

let private linearNames name (channels: int64) (classes: int64) =
    [ $"{name}.weight", [ classes; channels ]; $"{name}.bias", [ classes ] ]

/// torchvision's state dict of ResNet at 1000 classes, by its rule of naming: blocks `layer{stage}.{index}`, in them
/// `conv{i}` and `bn{i}`, and in the first block of a stage that changes the shape `downsample.0` and `downsample.1`.
let private torchvision (counts: int list) (isBottleneck: bool) : (string * int64 list) list =
    let expansion = if isBottleneck then 4L else 1L

    [ "conv1.weight", [ 64L; 3L; 7L; 7L ]
      yield! normNames "bn1" 64L

      for stage, count in List.indexed counts do
          let planes = 64L <<< stage
          let out = planes * expansion

          for index in 0 .. count - 1 do
              let prefix = $"layer{stage + 1}.{index}"

              let incoming =
                  if index > 0 then out
                  elif stage = 0 then 64L
                  else out / 2L

              if isBottleneck then
                  $"{prefix}.conv1.weight", [ planes; incoming; 1L; 1L ]
                  yield! normNames $"{prefix}.bn1" planes
                  $"{prefix}.conv2.weight", [ planes; planes; 3L; 3L ]
                  yield! normNames $"{prefix}.bn2" planes
                  $"{prefix}.conv3.weight", [ out; planes; 1L; 1L ]
                  yield! normNames $"{prefix}.bn3" out
              else
                  $"{prefix}.conv1.weight", [ planes; incoming; 3L; 3L ]
                  yield! normNames $"{prefix}.bn1" planes
                  $"{prefix}.conv2.weight", [ planes; planes; 3L; 3L ]
                  yield! normNames $"{prefix}.bn2" planes

              if index = 0 && (stage > 0 || isBottleneck) then
                  $"{prefix}.downsample.0.weight", [ out; incoming; 1L; 1L ]
                  yield! normNames $"{prefix}.downsample.1" out

      yield! linearNames "fc" (512L * expansion) 1000L ]

/// The PatchUp authors' state dicts at 10 classes: blocks `layer{stage}.{index}` of `bn1`, `conv1`, `bn2`, `conv2` and,
/// where the shape changes, `shortcut.0`.
let private authors (stem: int64) (widths: int64 list) (counts: int list) (biases: bool) (lastNorm: bool) =
    let conv name (out: int64) (incoming: int64) (kernel: int64) =
        [ $"{name}.weight", [ out; incoming; kernel; kernel ]
          if biases then
              $"{name}.bias", [ out ] ]

    [ yield! conv "conv1" stem 3L 3L

      for stage, (count, width) in List.indexed (List.zip counts widths) do
          for index in 0 .. count - 1 do
              let prefix = $"layer{stage + 1}.{index}"

              let incoming =
                  if index > 0 then width
                  elif stage = 0 then stem
                  else widths[stage - 1]

              yield! normNames $"{prefix}.bn1" incoming
              yield! conv $"{prefix}.conv1" width incoming 3L
              yield! normNames $"{prefix}.bn2" width
              yield! conv $"{prefix}.conv2" width width 3L

              if incoming <> width then
                  yield! conv $"{prefix}.shortcut.0" width incoming 1L

      if lastNorm then
          yield! normNames "bn1" (List.last widths)

      yield! linearNames "linear" (List.last widths) 10L ]

/// The networks' functions in evaluation mode, from the state dict alone: torchvision's `resnet.py`, the PatchUp
/// authors' `preresnet.py` and `wide_resnet.py`, and the reference code's `wide-resnet.lua`.
let reference (name: string) (settings: NetworkSettings) (model: Model) (images: torch.Tensor) : torch.Tensor =
    let state = dict (Model.state model)

    let conv (layer: string) (stride: int) (x: torch.Tensor) =
        let weight = state[layer + ".weight"]

        let bias =
            match state.TryGetValue(layer + ".bias") with
            | true, bias -> bias
            | _ -> null

        let padding = weight.shape[2] / 2L
        torch.nn.functional.conv2d (x, weight, bias, [| int64 stride; int64 stride |], [| padding; padding |])

    let norm (layer: string) (x: torch.Tensor) =
        let channel (part: string) =
            state[$"{layer}.{part}"].reshape(1L, -1L, 1L, 1L)

        let centred = x.sub (channel "running_mean")
        let scale = (channel "running_var").add(Scope.number 1e-5).rsqrt()
        centred.mul(scale).mul(channel "weight").add(channel "bias")

    let relu (x: torch.Tensor) = torch.nn.functional.relu x
    let has (layer: string) = state.ContainsKey(layer + ".weight")

    let residual isLate (prefix: string) stride (x: torch.Tensor) =
        let normalised = relu (norm $"{prefix}.bn1" x)
        let out = conv $"{prefix}.conv1" (if isLate then 1 else stride) normalised

        let out =
            conv $"{prefix}.conv2" (if isLate then stride else 1) (relu (norm $"{prefix}.bn2" out))

        if has $"{prefix}.shortcut.0" then
            out.add (conv $"{prefix}.shortcut.0" stride (if isLate then x else normalised))
        else
            out.add x

    let torchvision (prefix: string) stride (x: torch.Tensor) =
        let at part = $"{prefix}.{part}"

        let out =
            if has (at "conv3") then
                let out = relu (norm (at "bn1") (conv (at "conv1") 1 x))
                let out = relu (norm (at "bn2") (conv (at "conv2") stride out))
                norm (at "bn3") (conv (at "conv3") 1 out)
            else
                let out = relu (norm (at "bn1") (conv (at "conv1") stride x))
                norm (at "bn2") (conv (at "conv2") 1 out)

        if has (at "downsample.0") then
            relu (out.add (norm (at "downsample.1") (conv (at "downsample.0") stride x)))
        else
            relu (out.add x)

    let layers block (x: torch.Tensor) =
        (x,
         [ for layer in 1..4 do
               for index in 0..99 do
                   if has $"layer{layer}.{index}.conv1" then
                       layer, index ])
        ||> List.fold (fun x (layer, index) ->
            block $"layer{layer}.{index}" (if layer > 1 && index = 0 then 2 else 1) x)

    let logits layer (x: torch.Tensor) =
        let flat = x.flatten(2L).mean [| 2L |]
        flat.mm(state[layer + ".weight"].t()).add(state[layer + ".bias"])

    Scope.run (fun () ->
        use _ = torch.no_grad ()

        if name.StartsWith "resnet" then
            let stem = conv "conv1" (min 2 settings.Stride) images |> norm "bn1" |> relu

            let stem =
                if settings.Stride = 4 then
                    torch.nn.functional.max_pool2d (stem, 3L, 2L, 1L)
                else
                    stem

            logits "fc" (layers torchvision stem)
        else
            let out =
                conv "conv1" settings.Stride images |> layers (residual (name.EndsWith "-2020"))

            logits "linear" (if name.StartsWith "wrn" then relu (norm "bn1" out) else out))

let private published =
    testList
        "published"
        [ test "the numbers of parameters" {
              for name, expected in counts do
                  outlined name (Architectures.find name).Standard (fun model ->
                      Expect.equal (Model.parameterCount model) expected name)

              for listed in Architectures.all do
                  Expect.exists counts (fun (name, _) -> name = listed.Name) $"{listed.Name} has a published number"
          }

          test "names and shapes are torchvision's for ResNet" {
              for name, counts, isBottleneck, entries in
                  [ "resnet-18", [ 2; 2; 2; 2 ], false, 122
                    "resnet-34", [ 3; 4; 6; 3 ], false, 218
                    "resnet-50", [ 3; 4; 6; 3 ], true, 320
                    "resnet-101", [ 3; 4; 23; 3 ], true, 626
                    "resnet-152", [ 3; 8; 36; 3 ], true, 932 ] do
                  let expected = torchvision counts isBottleneck
                  Expect.hasLength expected entries $"{name}'s state dict has so many entries"

                  outlined name NetworkSettings.imageNet (fun model ->
                      Expect.equal
                          (describe model |> List.map (fun (name, _, shape) -> name, shape) |> List.sort)
                          (List.sort expected)
                          name)
          }

          test "names and shapes are the PatchUp authors' for the others" {
              let preAct = [ 64L; 128L; 256L; 512L ]

              for name, expected in
                  [ "preact-resnet-18", authors 64L preAct [ 2; 2; 2; 2 ] false false
                    "preact-resnet-34", authors 64L preAct [ 3; 4; 6; 3 ] false false
                    "wrn-28-10", authors 16L [ 160L; 320L; 640L ] [ 4; 4; 4 ] false true
                    "wrn-28-10-2020", authors 16L [ 160L; 320L; 640L ] [ 4; 4; 4 ] true true
                    "wrn-10-1", authors 16L [ 16L; 32L; 64L ] [ 1; 1; 1 ] false true ] do
                  outlined name NetworkSettings.cifar10 (fun model ->
                      Expect.equal
                          (describe model |> List.map (fun (name, _, shape) -> name, shape) |> List.sort)
                          (List.sort expected)
                          name)
          }

          test "each network is the function that its source has, on the state dict alone" {
              for name, settings, side in narrow do
                  using (Architectures.create name settings 3UL) (fun model ->
                      disturb model
                      Model.eval model
                      use images = waves 2 side
                      use _ = torch.no_grad ()
                      use logits = Model.call model images
                      use expected = reference name settings model images
                      let scale = expected.abs().max().item<float32>()
                      let difference = expected.sub(logits).abs().max().item<float32>()
                      Expect.isGreaterThan scale 0.01f $"{name}: logits that tell"
                      Expect.isLessThan (difference / scale) 1e-4f $"{name} at stride {settings.Stride}")
          }

          test "batches are counted in training only" {
              using (Architectures.create "wrn-10-1" (cifar None) 3UL) (fun model ->
                  let counts () =
                      [ for name, tensor in Model.state model do
                            if name.EndsWith "num_batches_tracked" then
                                tensor.item<int64>() ]
                      |> List.distinct

                  use images = waves 4 16
                  Expect.equal (counts ()) [ 0L ] "at first"
                  Model.train model

                  for _ in 1..3 do
                      (Model.call model images).Dispose()

                  Model.eval model
                  (Model.call model images).Dispose()
                  Expect.equal (counts ()) [ 3L ] "in all layers")
          }

          test "the last normalisation follows the batch as it should: by a tenth, in the authors' code by nine" {
              for name, share in [ "wrn-10-1", 0.1; "wrn-10-1-2020", 0.9 ] do
                  using (Architectures.create name (cifar None) 3UL) (fun model ->
                      use images = waves 4 16
                      use _ = torch.NewDisposeScope()
                      Model.train model

                      let before =
                          (images, List.take 4 model.Stages) ||> List.fold (fun x (_, stage) -> stage x)

                      (snd model.Stages[4]) before |> ignore
                      let mean = before.mean([| 0L; 2L; 3L |]).mul(Scope.number share)
                      let running = dict(Model.state model)["bn1.running_mean"]
                      let difference = running.sub(mean).abs().max().item<float32>()
                      Expect.isLessThan difference 1e-6f name
                      Expect.isGreaterThan (mean.abs().max().item<float32>()) 0.01f "a mean that tells")
          } ]

// Sites

let private sites =
    testList
        "sites"
        [ test "their maps at the published sizes" {
              for name, side, expected in
                  [ "preact-resnet-18", 32, "3x32x32 64x32x32 64x32x32 128x16x16 256x8x8 512x4x4 10x1x1"
                    "preact-resnet-18", 64, "3x64x64 64x32x32 64x32x32 128x16x16 256x8x8 512x4x4 10x1x1"
                    "wrn-28-10", 32, "3x32x32 16x32x32 160x32x32 320x16x16 640x8x8 10x1x1"
                    "resnet-18", 32, "3x32x32 64x32x32 64x32x32 128x16x16 256x8x8 512x4x4 1000x1x1"
                    "resnet-18", 64, "3x64x64 64x32x32 64x32x32 128x16x16 256x8x8 512x4x4 1000x1x1"
                    "resnet-50", 224, "3x224x224 64x56x56 256x56x56 512x28x28 1024x14x14 2048x7x7 1000x1x1" ] do
                  let settings =
                      { (Architectures.find name).Standard with
                          Stride = Architectures.stride name side }

                  let found =
                      Architectures.sites name settings side side
                      |> List.map (fun (_, shape) -> $"{shape.Channels}x{shape.Height}x{shape.Width}")

                  Expect.equal (String.Join(' ', found)) expected $"{name} at {side}"
          }

          test "they are those of the network, at any size" {
              for name, settings, _ in narrow do
                  using (Architectures.create name settings 1UL) (fun model ->
                      Model.eval model
                      use _ = torch.no_grad ()

                      for height, width in [ 32, 32; 33, 18; 64, 64 ] do
                          Scope.value (fun () ->
                              let images = torch.zeros (1L, 3L, int64 height, int64 width)
                              let features = (images, model.Stages) ||> List.scan (fun x (_, stage) -> stage x)

                              Expect.equal
                                  (Architectures.sites name settings height width)
                                  (List.zip
                                      ("input" :: List.map fst model.Stages)
                                      (features |> List.map Batch.shapeOf))
                                  $"{name} at {height} x {width}"))

              using
                  (Architectures.create
                      "resnet-50"
                      { NetworkSettings.imageNet with
                          Width = Some 4 }
                      1UL)
                  (fun model ->
                      Model.eval model
                      use _ = torch.no_grad ()
                      use images = torch.zeros (1L, 3L, 224L, 224L)
                      use _ = torch.NewDisposeScope()
                      let features = (images, model.Stages) ||> List.scan (fun x (_, stage) -> stage x)

                      Expect.equal
                          (features |> List.map (fun x -> List.ofArray x.shape))
                          [ [ 1L; 3L; 224L; 224L ]
                            [ 1L; 4L; 56L; 56L ]
                            [ 1L; 16L; 56L; 56L ]
                            [ 1L; 32L; 28L; 28L ]
                            [ 1L; 64L; 14L; 14L ]
                            [ 1L; 128L; 7L; 7L ]
                            [ 1L; 1000L ] ]
                          "ResNet-50 of width 4 at 224")
          }

          test "stages compose to the module, bit for bit, and a hook on a stage's name sees its output once" {
              for name, settings, side in narrow do
                  using (Architectures.create name settings 1UL) (fun model ->
                      use images = waves 4 side

                      let modules =
                          dict [ for struct (name, part) in model.Module.named_modules () -> name, part ]

                      Expect.equal (List.last model.Stages |> fst) (Architectures.find name).Last "the last stage"

                      for mode in [ Model.train; Model.eval ] do
                          mode model
                          use _ = torch.NewDisposeScope()
                          let seen = List<string * byte[]>()

                          let hooks =
                              [ for stage, _ in model.Stages do
                                    let hooked = modules[stage] :?> torch.nn.Module<torch.Tensor, torch.Tensor>

                                    hooked.register_forward_hook (fun _ _ output ->
                                        seen.Add(stage, bytesOf (output.detach().contiguous()))
                                        null) ]

                          let whole = Model.call model images

                          for hook in hooks do
                              hook.remove ()

                          let steps =
                              (images, model.Stages) ||> List.scan (fun x (_, stage) -> stage x) |> List.tail

                          Expect.isTrue (same (List.last steps) whole) $"{name}: the composition"

                          Expect.equal
                              (List.ofSeq seen |> List.map fst)
                              (List.map fst model.Stages)
                              $"{name}: each once"

                          for (stage, bytes), step in Seq.zip seen steps do
                              Expect.isTrue (bytes = bytesOf (step.contiguous ())) $"{name}: {stage}")
          }

          test "all parameters are trained" {
              for name, settings, side in narrow do
                  using (Architectures.create name settings 1UL) (fun model ->
                      use images = waves 4 side
                      use logits = Model.call model images
                      use total = logits.square().sum()
                      total.backward ()

                      for struct (parameter, value) in model.Module.named_parameters () do
                          use grad = value.grad
                          Expect.isFalse (isNull grad) $"{name}: {parameter}"

                          // A normalisation takes away whatever a bias before it adds.
                          if not (parameter.EndsWith "conv1.bias") then
                              Expect.isTrue (grad.abs().sum().item<float32>() > 0.0f) $"{name}: {parameter}")
          } ]

// How networks begin

/// Mean and standard deviation of a tensor's numbers, and the share of them within one deviation of the expected.
let private moments (expected: float) (tensor: torch.Tensor) =
    let values = tensor.data<float32>().ToArray() |> Array.map float
    let mean = Array.average values
    let variance = values |> Array.averageBy (fun value -> value * value)

    let within =
        values |> Array.filter (fun value -> abs value < expected) |> Array.length

    values.Length, mean, sqrt variance, float within / float values.Length

type private Law =
    | Normal
    | Uniform

let private initialisation =
    testList
        "initialisation"
        [ test "weights have the moments of the published schemes" {
              let wide = { cifar (Some 16) with Classes = 40 }

              // Of convolutions; linear weights are PyTorch's in all of them. 5 standard errors: 5.7E-7 each.
              for name, settings, law, hasZeroBias in
                  [ "preact-resnet-18", wide, Uniform, false
                    "wrn-16-2", { wide with Width = None }, Normal, true
                    "wrn-10-2-2020", { wide with Width = None }, Uniform, false
                    "resnet-18", wide, Normal, false
                    "resnet-50", { wide with Stride = 4 }, Normal, false ] do
                  using (Architectures.create name settings 5UL) (fun model ->
                      for layer, tensor in Model.state model do
                          let what = $"{name}: {layer}"
                          let last = (Architectures.find name).Last
                          let isLast = layer.StartsWith(last + ".", StringComparison.Ordinal)
                          let shape = tensor.shape

                          if layer.EndsWith ".weight" && shape.Length > 1 then
                              let law = if isLast then Uniform else law
                              let area = shape |> Array.skip 2 |> Array.fold (*) 1L

                              let deviation =
                                  match law with
                                  | Normal -> sqrt (2.0 / float (shape[0] * area))
                                  | Uniform -> 1.0 / sqrt (3.0 * float (shape[1] * area))

                              let count, mean, found, within = moments deviation tensor
                              let n = float count

                              // The variance of a squared standardised number, and the chance to lie within a deviation.
                              let spread, chance =
                                  match law with
                                  | Normal -> 2.0, 0.682689
                                  | Uniform -> 0.8, 1.0 / sqrt 3.0

                              Expect.isLessThan (abs mean) (5.0 * deviation / sqrt n) $"{what}: mean"

                              Expect.isLessThan
                                  (abs (found ** 2.0 / deviation ** 2.0 - 1.0))
                                  (5.0 * sqrt (spread / n))
                                  $"{what}: standard deviation {found}, {deviation} expected"

                              Expect.isLessThan
                                  (abs (within - chance))
                                  (5.0 * sqrt (chance * (1.0 - chance) / n))
                                  $"{what}: shape of the distribution"

                          if
                              layer.EndsWith ".bias"
                              && (isLast || layer.Contains "conv" || layer.Contains "shortcut")
                          then
                              let values = tensor.data<float32>().ToArray()
                              let weight = dict(Model.state model)[layer.Replace(".bias", ".weight")]
                              let fan = weight.shape |> Array.skip 1 |> Array.reduce (*)
                              let bound = 1.0f / sqrt (float32 fan)

                              if hasZeroBias then
                                  Expect.all values ((=) 0.0f) what
                              else
                                  Expect.all values (fun value -> abs value <= bound) what
                                  Expect.exists values (fun value -> abs value > 0.7f * bound) what

                          let isNorm part =
                              layer.EndsWith $"bn1.{part}"
                              || layer.EndsWith $"bn2.{part}"
                              || layer.EndsWith $"1.{part}"

                          if shape.Length = 1 && isNorm "weight" then
                              Expect.all (tensor.data<float32>().ToArray()) ((=) 1.0f) $"{what}: scale")
          }

          test "parameters follow from the seed alone" {
              for name, settings, _ in narrow do
                  let make = Architectures.create name settings
                  let model, other = make 5UL, make 6UL
                  use _ = torch.rand 3L
                  let again = make 5UL

                  for (part, a), (_, b), (_, c) in List.zip3 (Model.state model) (Model.state again) (Model.state other) do
                      Expect.isTrue (same a b) $"{name}: {part}"

                      if a.dim () > 1L then
                          Expect.isFalse (same a c) $"{name}: {part}"

                  List.iter Model.dispose [ model; again; other ]
          }

          // Alone, for other tests may draw from the global generator.
          testSequenced (
              test "making a network, or its outline, leaves the global generator as it was" {
                  let state () =
                      use state = torch.get_rng_state ()
                      bytesOf state

                  let before = state ()

                  for name, settings, _ in narrow do
                      Architectures.create name settings 5UL |> Model.dispose
                      Architectures.outline name settings |> Model.dispose

                  Expect.isTrue (state () = before) "the same state"
              }
          )

          test "an outline has the network's names, types and shapes, and no numbers" {
              for name, settings, _ in narrow do
                  using (Architectures.create name settings 5UL) (fun model ->
                      outlined name settings (fun outline ->
                          Expect.equal (describe outline) (describe model) name

                          Expect.all
                              (Model.state outline)
                              (fun (_, tensor) -> tensor.device_type = DeviceType.META)
                              $"{name}: no memory"

                          Expect.equal (List.map fst outline.Stages) (List.map fst model.Stages) name))
          } ]

let private using' =
    testList
        "use"
        [ test "calls, gradients, snapshots and models leave nothing behind" {
              for name, settings, side in narrow do
                  let leaks =
                      left (fun () ->
                          using (Architectures.create name settings 1UL) (fun model ->
                              use images = waves 4 side

                              let inner =
                                  left (fun () ->
                                      for i in 1..4 do
                                          (if i % 2 = 0 then Model.train else Model.eval) model
                                          (Model.call model images).Dispose()
                                          (model.Normalise images).Dispose()

                                      let held = Model.snapshot model
                                      Model.restore held model
                                      held |> List.iter (fun (_, tensor) -> tensor.Dispose()))

                              Expect.equal inner 0L $"{name}: calls"))

                  Expect.equal leaks 0L $"{name}: all"
          }

          test "a snapshot brings back the function that it was taken of" {
              using (Architectures.create "preact-resnet-18" (cifar (Some 8)) 1UL) (fun model ->
                  use images = waves 4 16
                  Model.eval model
                  use before = Model.call model images
                  let held = Model.snapshot model
                  Model.train model
                  (Model.call model images).Dispose()

                  Scope.value (fun () ->
                      use _ = torch.no_grad ()

                      model.Module.parameters ()
                      |> Seq.iter (fun parameter -> parameter.mul_ (Scope.number 0.5) |> ignore))

                  Model.eval model
                  use changed = Model.call model images
                  Expect.isFalse (same before changed) "changed"
                  Model.restore held model
                  use after = Model.call model images
                  Expect.isTrue (same before after) "restored"
                  Expect.throwsT<ArgumentException> (fun () -> Model.restore held.Tail model) "another model's"
                  held |> List.iter (fun (_, tensor) -> tensor.Dispose()))
          }

          test "normalising is (x - mean) / std of each channel" {
              let settings =
                  { cifar (Some 1) with
                      Mean = [ 0.5; 0.25; 0.0 ]
                      Std = [ 0.5; 0.25; 2.0 ] }

              using (Architectures.create "resnet-18" settings 1UL) (fun model ->
                  use images = torch.ones ([| 1L; 3L; 1L; 2L |])
                  use normal = model.Normalise images
                  Expect.equal (normal.data<float32>().ToArray()) [| 1.0f; 1.0f; 3.0f; 3.0f; 0.5f; 0.5f |] "values")
          }

          test "names and settings that make no network are refused" {
              let make name settings () =
                  Architectures.create name settings 1UL |> ignore

              let slim = cifar (Some 4)
              refused [ "'resnet-19'"; "did you mean resnet-18?"; "patchup models" ] (make "resnet-19" slim)
              refused [ "'densenet'"; "patchup models" ] (make "densenet" slim)
              refused [ "patchup models" ] (make (String('x', 500)) slim)

              for name in [ "wrn-12-1"; "wrn-4-1"; "wrn-1006-1"; "wrn-10-101" ] do
                  refused [ $"'{name}'"; "6 n + 4"; "up to 100" ] (make name (cifar None))

              for name in
                  [ "wrn-10-0"
                    "wrn-010-1"
                    "wrn-10-1\n"
                    "WRN-10-1"
                    "wrn-10-1-2022"
                    "wrn-99999-1" ] do
                  refused [ "is not a model" ] (make name (cifar None))

              refused [ "width 0"; "1 .. 4096" ] (make "preact-resnet-18" { slim with Width = Some 0 })
              refused [ "width 4097" ] (make "resnet-18" { slim with Width = Some 4097 })
              refused [ "width 4"; "wrn-10-1 says itself"; "leave" ] (make "wrn-10-1" slim)
              refused [ "classes 0" ] (make "resnet-18" { slim with Classes = 0 })
              refused [ "stride 4"; "one of 1, 2" ] (make "preact-resnet-18" { slim with Stride = 4 })
              refused [ "stride 3"; "one of 1, 2, 4" ] (make "resnet-18" { slim with Stride = 3 })
              refused [ "mean" ] (make "resnet-18" { slim with Mean = [ 0.0; nan; 0.0 ] })
              refused [ "standard deviation" ] (make "resnet-18" { slim with Std = [ 1.0; 0.0; 1.0 ] })
          } ]

// Weights

/// A safetensors file as PyTorch's writer lays it out: compact JSON with `format`, padded with spaces to eight bytes, and
/// the tensors' bytes in the header's order. Each is name, type, shape and bytes.
let ofPyTorch (tensors: (string * string * int64 list * byte[]) list) : byte[] =
    let header = StringBuilder "{\"__metadata__\":{\"format\":\"pt\"}"
    let mutable start = 0

    for name, dtype, shape, bytes in tensors do
        let lengths = String.Join(",", shape)
        let finish = start + bytes.Length

        header.Append $",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{lengths}],\"data_offsets\":[{start},{finish}]}}"
        |> ignore

        start <- finish

    let text = header.Append("}").ToString()
    let padded = text.PadRight((text.Length + 7) / 8 * 8)

    Array.concat [ file padded 0; yield! tensors |> List.map (fun (_, _, _, bytes) -> bytes) ]

/// Numbers of a state dict, each exact in all float types: eighths from -1/2 to 5/8, and for variances one more.
let private exact (name: string) (count: int) : float32[] =
    let offset = name.Length % 7

    Array.init count (fun i ->
        let value = float32 ((i * 5 + offset) % 10 - 4) / 8.0f
        if name.EndsWith "running_var" then value + 1.0f else value)

let private bytesAs (dtype: string) (values: float32[]) : byte[] =
    values
    |> Array.collect (fun value ->
        match dtype with
        | "F64" -> BitConverter.GetBytes(float value)
        | "F16" -> BitConverter.GetBytes(Half.op_Explicit value: Half)
        | "BF16" -> (BitConverter.GetBytes value)[2..]
        | _ -> BitConverter.GetBytes value)

/// The state of a network as PyTorch would write it, with numbers of the test's own.
let private foreignState (dtype: string) (model: Model) : (string * string * int64 list * byte[]) list =
    [ for name, tensor in Model.state model do
          if tensor.dtype = torch.int64 then
              name, "I64", [], BitConverter.GetBytes 1000L
          else
              name, dtype, List.ofArray tensor.shape, bytesAs dtype (exact name (int tensor.NumberOfElements)) ]

let private expectExact (what: string) (model: Model) : unit =
    for name, tensor in Model.state model do
        if tensor.dtype = torch.float32 then
            Expect.isTrue
                (tensor.data<float32>().ToArray() = exact name (int tensor.NumberOfElements))
                $"{what}: {name}"

let private weights =
    testList
        "weights"
        [ test "every architecture's file, at its published size, brings back its bits" {
              for listed in Architectures.all do
                  inFolder (fun folder ->
                      let name = listed.Name
                      let path = Path.Combine(folder, "saved.safetensors")

                      let settings = { listed.Standard with Width = None }

                      using (Architectures.create name settings 1UL) (fun model ->
                          disturb model
                          Model.save path (Map [ "k", "v" ]) model

                          using (Architectures.create name settings 2UL) (fun other ->
                              Expect.equal (Model.load path other) (Map [ "k", "v" ]) name

                              for (part, a), (_, b) in List.zip (Model.state model) (Model.state other) do
                                  Expect.isTrue (a.bytes.SequenceEqual b.bytes) $"{name}: {part}")))
          }

          test "a file of PyTorch's is read: any order, names of DataParallel, counts of batches or none, short floats" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "torch.safetensors")

                  for name, settings, _ in narrow do
                      using (Architectures.create name settings 1UL) (fun model ->
                          /// The counts of batches after a file was loaded.
                          let load what (bytes: byte[]) =
                              using (Architectures.create name settings 2UL) (fun other ->
                                  File.WriteAllBytes(path, bytes)
                                  Expect.equal (Model.load path other) (Map [ "format", "pt" ]) "metadata"
                                  expectExact $"{name}, {what}" other

                                  [ for part, tensor in Model.state other do
                                        if part.EndsWith "num_batches_tracked" then
                                            tensor.item<int64>() ])

                          let entries = foreignState "F32" model

                          // As PyTorch's writer sorts them, by size and name; then in the state dict's order.
                          let sorted =
                              entries |> List.sortBy (fun (name, dtype, _, _) -> dtype <> "I64", name)

                          Expect.all (load "sorted" (ofPyTorch sorted)) ((=) 1000L) "counts are read"
                          load "unsorted" (ofPyTorch entries) |> ignore

                          entries
                          |> List.map (fun (name, dtype, shape, bytes) -> "module." + name, dtype, shape, bytes)
                          |> ofPyTorch
                          |> load "DataParallel"
                          |> ignore

                          let old = entries |> List.filter (fun (_, dtype, _, _) -> dtype <> "I64")
                          Expect.all (load "old" (ofPyTorch old)) ((=) 0L) "counts stay as they are"

                          for dtype in [ "F16"; "BF16" ] do
                              load dtype (ofPyTorch (foreignState dtype model)) |> ignore))
          }

          test "a file that does not fit is refused in a line, and changes nothing" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "torch.safetensors")

                  using (Architectures.create "resnet-18" (cifar (Some 2)) 1UL) (fun model ->
                      let before = Model.snapshot model
                      let entries = foreignState "F32" model

                      let wrong words entries =
                          File.WriteAllBytes(path, ofPyTorch entries)
                          refused ("torch.safetensors" :: words) (fun () -> Model.load path model |> ignore)

                      let change name f =
                          entries
                          |> List.map (fun (known, dtype, shape, bytes) ->
                              if known = name then
                                  f (known, dtype, shape, bytes)
                              else
                                  known, dtype, shape, bytes)

                      wrong [ "conv1.weight"; "Float64"; "write it as Float32" ] (foreignState "F64" model)

                      wrong
                          [ "bn1.bias is Int64 [2]" ]
                          (change "bn1.bias" (fun (name, _, shape, _) -> name, "I64", shape, Array.zeroCreate 16))

                      wrong
                          [ "fc.bias is Float32 [1,5], not Float32 [5]" ]
                          (change "fc.bias" (fun (name, dtype, shape, bytes) -> name, dtype, 1L :: shape, bytes))

                      wrong [ "lacks conv1.weight;" ] entries.Tail

                      wrong
                          [ "has module.conv1.weight"; "unknown" ]
                          (("module.conv1.weight", "F32", [ 1L ], Array.zeroCreate 4) :: entries)

                      wrong
                          [ "lacks conv1.weight" ]
                          (change "conv1.weight" (fun (name, dtype, shape, bytes) ->
                              "module." + name, dtype, shape, bytes))

                      for (name, a), (_, b) in List.zip before (Model.state model) do
                          Expect.isTrue (same a b) $"{name} unchanged"

                      before |> List.iter (fun (_, tensor) -> tensor.Dispose())))
          } ]

// Damaged and hostile files

let private description: Checkpoint =
    { Model = "preact-resnet-18"
      Width = Some 1
      Stride = 1
      ImageHeight = 8
      ImageWidth = 8
      Mean = [ 0.5; 0.5; 0.5 ]
      Std = [ 0.5; 0.5; 0.5 ]
      Classes = [ "a"; "b" ]
      Method = "none"
      Notation = "none" }

/// A sound weights file as the program writes it, small.
let private checkpointBytes (folder: string) : byte[] =
    let settings = { cifar (Some 1) with Classes = 2 }

    using (Architectures.create description.Model settings 1UL) (fun model ->
        let path = Path.Combine(folder, "sound.safetensors")
        Model.save path (Map [ "patchup", Json.show description ]) model
        File.ReadAllBytes path)

/// Files that mean harm. `described` is a sound file but for the text of its description.
let private hostile (sound: byte[]) (described: string -> byte[]) : byte[] list =
    let f32 shape offsets =
        $"{{\"t\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"

    let unit = "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"

    let raw (text: string) =
        let bytes = Encoding.Latin1.GetBytes text
        Array.append (BitConverter.GetBytes(uint64 bytes.Length)) bytes

    let shown = Json.show description

    [ // The header's length.
      for length in
          [ 0UL
            1UL
            7UL
            uint64 sound.Length
            uint64 sound.Length - 8UL
            uint64 sound.Length - 7UL
            100_000_001UL
            uint64 Int32.MaxValue
            1UL <<< 32
            uint64 Int64.MaxValue
            1UL <<< 63
            UInt64.MaxValue ] do
          Array.append (BitConverter.GetBytes length) sound[8..]

      // Depth.
      for depth in [ 65; 1000; 100_000 ] do
          file (String('[', depth)) 0
          file (String.replicate depth "{\"a\":") 0

          file
              ("{\"__metadata__\":"
               + String.replicate depth "{\"a\":"
               + "1"
               + String('}', depth + 1))
              0

      // Shapes and places.
      for lengths in
          [ "[9223372036854775807]"
            "[9223372036854775808]"
            "[4611686018427387904,2]"
            "[4294967296,4294967296]"
            "[3037000500,3037000500]"
            "[0,9223372036854775807,9223372036854775807]"
            "[1099511627776]"
            "[-1]"
            "[-1,-4]"
            "[1e2]"
            "[1e999]"
            "[1.0]"
            "[NaN]"
            "[Infinity]"
            "[\"1\"]"
            "[null]"
            "[[1]]"
            "{}"
            "null"
            "1"
            "[" + String.Join(",", Array.create 100_000 1) + "]"
            "[" + String('9', 100_000) + "]" ] do
          file (f32 lengths "[0,4]") 4

      for offsets in
          [ "[-4,0]"
            "[0,-4]"
            "[4,0]"
            "[0,9223372036854775807]"
            "[9223372036854775803,9223372036854775807]"
            "[0,18446744073709551615]"
            "[0,4,4]"
            "[]"
            "[0]"
            "[0,1e1]"
            "[NaN,NaN]"
            "null" ] do
          file (f32 "[1]" offsets) 4

      // Names and texts.
      file $"{{\"a\":{unit},\"a\":{unit}}}" 4
      file $"{{\"a\":{unit},\"\\u0061\":{unit}}}" 4
      file "{\"__metadata__\":{},\"__metadata__\":{}}" 0
      file "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}" 0

      for name in [ "\\ud800"; "\\udc00"; "\\ud800\\ud800"; "a\\ud83d"; "\\u0000"; "" ] do
          file $"{{\"{name}\":{unit}}}" 4
          file $"{{\"{name}\":{unit},\"{name}\":{unit}}}" 4
          file $"{{\"__metadata__\":{{\"{name}\":\"x\"}}}}" 0
          file $"{{\"__metadata__\":{{\"x\":\"{name}\"}}}}" 0
          file $"{{\"__metadata__\":{{\"patchup\":\"{name}\"}}}}" 0
          file $"{{\"t\":{{\"dtype\":\"{name}\",\"shape\":[1],\"data_offsets\":[0,4]}}}}" 4

      for bad in [ "\xff"; "\xc0\x80"; "\xed\xa0\x80"; "\xf5\x80\x80\x80"; "\xe2\x82" ] do
          raw $"{{\"{bad}\":{unit}}}    "
          raw $"{{\"__metadata__\":{{\"patchup\":\"{bad}\"}}}}"

      file ("{\"" + String('x', 1_000_000) + "\":" + unit + "}") 4
      file ("{\"__metadata__\":{\"patchup\":\"" + String('[', 1_000_000) + "\"}}") 0

      // Many tensors, without numbers or with one.
      let many (each: int -> string) =
          "{" + String.Join(",", Array.init 5000 each) + "}"

      file (many (fun i -> $"\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}")) 0
      file (many (fun i -> $"\"{i}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{i},{i + 1}]}}")) 5000
      file (many (fun _ -> $"\"a\":{unit}")) 4

      // Descriptions of networks that the file does not hold.
      for before, after in
          [ "\"width\": 1", "\"width\": 4096"
            "\"width\": 1", "\"width\": 2147483647"
            "\"width\": 1", "\"width\": -1"
            "\"width\": 1", "\"width\": 1e9"
            "\"width\": 1", "\"width\": null"
            "\"stride\": 1", "\"stride\": 0"
            "\"stride\": 1", "\"stride\": 2000000000"
            "\"imageHeight\": 8", "\"imageHeight\": 2147483647"
            "\"imageHeight\": 8", "\"imageHeight\": -8"
            "0.5", "1e999"
            "0.5", "NaN"
            "preact-resnet-18", "resnet-152"
            "preact-resnet-18", "wrn-1000-100"
            "preact-resnet-18", "wrn-28-10"
            "preact-resnet-18", String('x', 100_000)
            "preact-resnet-18", "\\ud800"
            "\"preact-resnet-18\"", "null"
            "\"a\"", "null"
            "\"a\"", "\"\\ud800\""
            "\"a\"", String.Join(",", Array.create 100_000 "\"a\"")
            "\"classes\": [", "\"classes\": [[" ] do
          described (shown.Replace(before, after)) ]

let private damaged =
    testList
        "damaged files"
        [ test "over 200 damaged and hostile files are read or refused, within their size" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "a.safetensors")
                  let sound = checkpointBytes folder
                  let headerLength = 8 + int (BitConverter.ToUInt64(sound, 0))
                  let data = sound[headerLength..]

                  let described (text: string) =
                      let written = Encoding.UTF8.GetString(sound, 8, headerLength - 8)
                      let start = written.IndexOf("\"patchup\":", StringComparison.Ordinal) + 10
                      let finish = written.IndexOf("},", start, StringComparison.Ordinal)

                      let header =
                          written.Substring(0, start)
                          + JsonSerializer.Serialize text
                          + written.Substring finish

                      Array.append (file header 0) data

                  File.WriteAllBytes(path, described (Json.show description))
                  using (snd (Checkpoint.read path)) ignore

                  for before, after, expected in
                      [ "\"a\"", "null", "description is missing or unsound"
                        "\"width\": 1", "\"width\": 4096", "[1,3,3,3], not Float32 [4096,3,3,3]"
                        "\"width\": 1", "\"width\": 4097", "width 4097"
                        "-18", "-19", "did you mean preact-resnet-18" ] do
                      File.WriteAllBytes(path, described ((Json.show description).Replace(before, after)))
                      refused [ expected ] (fun () -> Checkpoint.read path |> ignore)

                  let places = numbers 21 60 sound.Length
                  let inHeader = numbers 22 60 headerLength
                  let bits = numbers 23 60 8

                  let files =
                      [ for i in 0..59 do
                            Array.take places[i] sound

                            for place in [ places[i]; inHeader[i] ] do
                                sound
                                |> Array.mapi (fun at value ->
                                    if at = place then value ^^^ (1uy <<< bits[i]) else value)
                        yield! hostile sound described ]

                  let mutable refusals = 0
                  let mutable reads = 0
                  let clock = Diagnostics.Stopwatch.StartNew()

                  let bounded (bytes: byte[]) (call: unit -> int64) =
                      let before = GC.GetAllocatedBytesForCurrentThread()
                      let start = clock.Elapsed

                      try
                          let native = call ()
                          Expect.isLessThanOrEqual native (int64 bytes.Length) "the tensors' bytes"
                          reads <- reads + 1
                      with UserError message ->
                          Expect.isFalse (message.Contains '\n') "one line"
                          Expect.isLessThan message.Length 1100 "a short line"
                          refusals <- refusals + 1

                      let allocated = GC.GetAllocatedBytesForCurrentThread() - before

                      // Parsing takes a multiple of the header; a network's objects take some whatever the file's size.
                      Expect.isLessThan allocated (64L * int64 bytes.Length + (4L <<< 20)) "managed memory"
                      Expect.isLessThan (clock.Elapsed - start).TotalSeconds 5.0 "no hang"

                  let size (tensors: (string * torch.Tensor) list) =
                      tensors
                      |> List.sumBy (fun (_, tensor) -> tensor.NumberOfElements * tensor.ElementSize)

                  let leaks =
                      left (fun () ->
                          for bytes in files do
                              File.WriteAllBytes(path, bytes)

                              bounded bytes (fun () ->
                                  Safetensors.header path |> ignore
                                  0L)

                              bounded bytes (fun () -> Scope.value (fun () -> size (Safetensors.read path).Entries))

                              bounded bytes (fun () ->
                                  using (snd (Checkpoint.read path)) (fun model -> size (Model.state model))))

                  Expect.equal leaks 0L "leak-free"
                  Expect.isGreaterThan files.Length 200 "files"
                  Expect.isGreaterThan refusals 400 "most are refused"
                  Expect.isGreaterThan reads 100 "changed numbers are read")
          } ]

let tests =
    testList "models" [ published; sites; initialisation; using'; weights; damaged ]
