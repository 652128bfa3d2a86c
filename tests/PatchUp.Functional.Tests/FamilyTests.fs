/// The masks of published methods, and the saliency that some follow. That they keep the laws is tested with the catalogue.
module PatchUp.Tests.FamilyTests

open System
open Expecto
open TorchSharp
open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

/// One sample's hard mask as rows of altered features.
let private altered (mask: Mask) (sample: int) : bool[,] =
    match mask.Values with
    | Soft _ -> failtest "the mask is soft"
    | Hard bits ->
        let first = sample * mask.Channels * mask.Height * mask.Width
        Array2D.init mask.Height mask.Width (fun y x -> not bits[first + y * mask.Width + x])

let private drawn seed (info: BatchInfo) shape region =
    Region.draw (Key.ofSeed seed) info shape region

let private raises (parts: string list) (run: unit -> 'a) =
    let message =
        try
            run () |> ignore
            None
        with :? ArgumentException as error ->
            Some error.Message

    match message with
    | None -> failtest "nothing was refused"
    | Some message ->
        for part in parts do
            Expect.stringContains message part "the message"

let private plane height width : Shape =
    { Channels = 1
      Height = height
      Width = width }

let private masks =
    [ test "fourier noise is smooth where it decays, and white where it does not" {
          // The share of neighbours that are altered alike: 1/2 for white noise of a half map, nearly all for smooth noise.
          let alike decay =
              let shape = plane 32 24
              let info = BatchInfo.ofShape 1 shape

              [| for seed in 0..39 do
                     let map = altered (drawn seed info shape (Family.fourier decay 1e6)) 0

                     for y in 0..31 do
                         for x in 0..22 -> if map[y, x] = map[y, x + 1] then 1.0 else 0.0 |]
              |> Array.average

          Expect.isLessThan (abs (alike 0.0 - 0.5)) 0.02 "white"
          Expect.isGreaterThan (alike 3.0) 0.9 "smooth"
      }

      test "fourier noise alters the share that was drawn, to the nearest feature" {
          // Beta(1e6, 1e6) is one half to three digits: 48 of 96 features.
          let shape = plane 8 12
          let mask = drawn 3 (BatchInfo.ofShape 1 shape) shape (Family.fourier 3.0 1e6)
          Expect.equal (Mask.unchanged mask) [| 0.5 |] "half of the features"
      }

      test "a grid alters whole cells, also where the map cannot be cut evenly" {
          for height, width, cells in [ 12, 12, 4; 7, 10, 3; 2, 2, 5 ] do
              for seed in 0..9 do
                  let shape = plane height width

                  let map =
                      altered (drawn seed (BatchInfo.ofShape 1 shape) shape (Family.grid cells 1.0)) 0

                  for y in 0 .. height - 1 do
                      for x in 0 .. width - 1 do
                          // The cell's first row and column.
                          let first i size =
                              [ 0 .. size - 1 ] |> List.find (fun j -> j * cells / size = i * cells / size)

                          Expect.equal map[y, x] map[first y height, first x width] "one cell"
      }

      test "a disc is whole at its centre and falls off as a Gaussian" {
          let shape = plane 9 16

          for seed in 0..9 do
              match (drawn seed (BatchInfo.ofShape 1 shape) shape (Family.disc 0.3 0.3)).Values with
              | Hard _ -> failtest "the mask is hard"
              | Soft own ->
                  let centre = Array.findIndex ((=) 0.0f) own
                  let y, x = centre / 16, centre % 16

                  for i in 0 .. own.Length - 1 do
                      let dy, dx = float (i / 16 - y) / (0.3 * 9.0), float (i % 16 - x) / (0.3 * 16.0)
                      expectNear 1e-6 (float own[i]) (1.0 - exp (-(dy * dy + dx * dx) / 2.0)) $"{i / 16}, {i % 16}"
      }

      test "squared has the mean and the distribution function of a squared uniform number" {
          let dist = Family.squared 0.1 0.8
          // The integral of t^2 / .7 from .1 to .8.
          expectNear 1e-12 (Dist.mean dist) ((0.512 - 0.001) / 2.1) "the mean"

          for x, p in [ 0.0, 0.0; 0.01, 0.0; 0.2025, 0.5; 0.64, 1.0; 0.9, 1.0 ] do
              expectNear 1e-12 (Dist.cdf dist x) p $"at {x}"
      }

      test "what a text names wrongly is said" {
          for text, what in
              [ "fourier 3 |> swap", "fourier 3 1"
                "grid 2.5 1 |> swap", "2.5 is no whole number"
                "grid 0 1 |> swap", "at least one cell"
                "disc 0.5 0.25 |> swap", "lower bound first"
                "salient |> swap", "salient 1"
                "fourier -1 1 |> swap", "not negative"
                "rect (squared 0.8 0.1) |> swap", "lower bound < upper bound" ] do
              match Catalogue.parse text with
              | Ok _ -> failtest $"{text} was read"
              | Error error -> Expect.stringContains (string error) what text
      } ]

let private saliency =
    /// Three inputs of 6 x 8; each is salient at a place of its own.
    let peaks = [| 0, 0; 5, 3; 2, 7 |]

    let info =
        let values =
            peaks
            |> Array.collect (fun (y, x) -> Array.init 48 (fun i -> if i = y * 8 + x then 1.0f else 0.1f))

        { BatchInfo.ofShape 3 { Channels = 3; Height = 6; Width = 8 } with
            Saliency = Some(lazy values) }

    let centre (map: bool[,]) =
        let places =
            [ for y in 0 .. Array2D.length1 map - 1 do
                  for x in 0 .. Array2D.length2 map - 1 do
                      if map[y, x] then
                          float y, float x ]

        places

    [ test "a salient rectangle is the partner's, and every sample has its own" {
          let partner = [| 1; 2; 0 |]

          for seed in 0..19 do
              let mask =
                  drawn
                      seed
                      { info with Partner = Some partner }
                      { Channels = 3; Height = 6; Width = 8 }
                      (Family.salient 1.0)

              Expect.equal mask.Samples 3 "a mask for each"

              for i in 0..2 do
                  match centre (altered mask i) with
                  | [] -> ()
                  | places -> Expect.contains places (let y, x = peaks[partner[i]] in float y, float x) "the peak"
      }

      test "at a smaller map the place is the same share of the sides" {
          // The third input's peak, row 2 of 6 and column 7 of 8, is row 1 of 3 and column 3 of 4.
          for seed in 0..19 do
              match centre (altered (drawn seed info (plane 3 4) (Family.salient 1.0)) 2) with
              | [] -> ()
              | places -> Expect.contains places (1.0, 3.0) "the place"
      }

      test "one area for the batch" {
          let shape = plane 6 8

          let flat =
              { info with
                  Saliency =
                      Some(
                          lazy
                              (Array.replicate 3 (Array.init 48 (fun i -> if i = 28 then 1.0f else 0.0f))
                               |> Array.concat)
                      ) }

          let mask = drawn 4 flat shape (Family.salient 1.0)
          Expect.equal (Array.distinct (Mask.unchanged mask)).Length 1 "the same rectangle for the same saliency"
          let each = drawn 4 flat shape (perSample (Family.salient 1.0))

          Expect.isGreaterThan
              (Array.distinct (Mask.unchanged each)).Length
              1
              "an area for each sample where that is asked for"
      }

      test "saliency that is no number is passed over, and the middle taken where there is none" {
          let odd =
              { info with
                  Saliency =
                      Some(
                          lazy
                              (Array.concat
                                  [ Array.create 48 nanf
                                    Array.init 48 (fun i -> if i = 5 then infinityf else float32 i)
                                    Array.zeroCreate 48 ])
                      ) }

          let middles =
              [ for seed in 0..9 ->
                    let mask = drawn seed odd (plane 6 8) (Family.salient 1.0)
                    centre (altered mask 0), centre (altered mask 1) ]

          for first, second in middles do
              Expect.isTrue (first.IsEmpty || List.contains (3.0, 4.0) first) "the middle"
              Expect.isTrue (second.IsEmpty || List.contains (5.0, 7.0) second) "the largest finite one"
      }

      test "without saliency, or with that of another size, it is refused" {
          let region = Family.salient 1.0
          raises [ "Saliency" ] (fun () -> drawn 1 { info with Saliency = None } (plane 6 8) region)

          raises [ "has 5 numbers"; "144" ] (fun () ->
              drawn
                  1
                  { info with
                      Saliency = Some(lazy (Array.zeroCreate 5)) }
                  (plane 6 8)
                  region)

      }

      test "saliency is asked for only by what follows it" {
          let asked =
              { info with
                  Saliency = Some(lazy (failwith "it was asked for")) }

          Plan.draw (Key.ofSeed 1) asked (rect uniform |> swap) |> ignore
      }

      test "of a linear model it is the size of the weights" {
          // The logits of two classes are a weighted sum and 0; at weights near 0 the cross-entropy's slope is 1/2 of the first weight.
          let weights =
              torch.tensor ([| 3e-6f; -4e-6f; 0.0f; 5e-6f |], ReadOnlySpan [| 1L; 1L; 2L; 2L |])

          let run (x: torch.Tensor) =
              let sum = (x * weights).sum([| 1L; 2L; 3L |]).unsqueeze 1L
              torch.cat ([| sum; torch.zeros_like sum |], 1L)

          let model =
              { new torch.nn.Module<torch.Tensor, torch.Tensor>("Linear") with
                  override _.forward x = run x }

          use model = model

          let batch =
              Batch.create (torch.ones (1L, 2L, 2L, 2L)) (Targets.ofIndices torch.CPU 2 [| 0 |])

          let found = Saliency.ofModel CrossEntropy model batch

          for i, expected in List.indexed [ 1.5e-6; 2e-6; 0.0; 2.5e-6 ] do
              expectNear 1e-9 (float found[i]) expected $"place {i}"
      }

      test "a model is left as it was, and with a clean loss it is trained" {
          let conv, norm = torch.nn.Conv2d(2L, 3L, 1L), torch.nn.BatchNorm2d(3L)

          let model =
              torch.nn.Sequential(
                  struct ("conv", conv :> torch.nn.Module<_, _>),
                  struct ("norm", norm :> torch.nn.Module<_, _>),
                  struct ("pool", torch.nn.AdaptiveAvgPool2d(1L) :> torch.nn.Module<_, _>),
                  struct ("head", torch.nn.Flatten() :> torch.nn.Module<_, _>)
              )

          use generator = new torch.Generator(3UL)
          use images = torch.rand ([| 4L; 2L; 6L; 8L |], generator = generator)
          let batch = Batch.create images (Targets.ofIndices torch.CPU 3 [| 0; 1; 2; 0 |])

          let state () =
              [ for struct (name, t) in model.named_buffers () -> name, Read.values t ]

          model.train ()
          let before = state ()

          let live () =
              DisposeScopeManager.Statistics.ThreadTotalLiveCount

          let tensors = live ()
          let first = Saliency.ofModel CrossEntropy model batch
          Expect.equal (live ()) tensors "live tensors"
          Expect.equal (Saliency.ofModel CrossEntropy model batch) first "the same twice"
          Expect.isTrue (Array.forall (fun s -> s >= 0.0f && Single.IsFinite s) first) "sizes"
          Expect.equal first.Length (4 * 6 * 8) "[N,H,W]"
          Expect.isTrue (isNull conv.weight.grad) "no gradient of the parameters"
          Expect.isTrue (model.training && norm.training) "the mode"
          Expect.equal (state ()) before "the statistics"

          let clean = Saliency.gradientWithCleanLoss 0.5 CrossEntropy model batch
          Expect.notEqual (state ()) before "the statistics follow"
          let half = Read.values conv.weight.grad
          model.zero_grad ()
          (Loss.ofBatch CrossEntropy batch.Targets (model.call images)).backward()

          match
              Verdict.near "the gradient" 1e-4 1e-7 (Read.values conv.weight.grad |> Array.map (fun g -> g / 2.0)) half
          with
          | Verdict.Broken reason -> failtest reason
          | _ -> ()

          Expect.equal clean.Length (4 * 2 * 6 * 8) "[N,C,H,W]"
          Expect.isTrue (Array.exists (fun g -> g <> 0.0f) clean) "a gradient"
          raises [ "-1" ] (fun () -> Saliency.gradientWithCleanLoss -1.0 CrossEntropy model batch)
      }

      test "what a draw is told follows the model, also under noise" {
          use generator = new torch.Generator(4UL)
          use images = torch.rand ([| 2L; 3L; 2L; 2L |], generator = generator)
          use model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12L, 3L))
          use mean = torch.tensor([| 0.5f; 0.25f; 0.1f |]).reshape(1L, 3L, 1L, 1L)
          use std = torch.tensor([| 0.5f; 0.25f; 0.125f |]).reshape(1L, 3L, 1L, 1L)
          let normalise (images: torch.Tensor) = (images - mean) / std
          let targets = Targets.ofIndices torch.CPU 3 [| 0; 2 |]
          let batch = Batch.create (normalise images) targets
          let gradient = Saliency.gradient CrossEntropy model

          let live () =
              DisposeScopeManager.Statistics.ThreadTotalLiveCount

          let before = live ()

          let info =
              BatchInfo.ofShape 2 (shapeOf 3 2 2)
              |> Saliency.follow gradient normalise images batch

          Expect.equal info.Saliency.Value.Value (Saliency.ofModel CrossEntropy model batch) "saliency"
          Expect.equal info.Pixels.Value.Value (Read.values images |> Array.map float32) "pixels"
          Expect.equal info.Noisy.Value.Scale.Value [| 2.0f; 4.0f; 8.0f |] "1 / std"
          let noise = Array.init 24 (fun i -> 0.01f * float32 (i - 12))
          let found = info.Noisy.Value.Gradient noise
          Expect.equal (live ()) before "live tensors"
          use noisy = normalise (images + torch.tensor(noise).reshape(2L, 3L, 2L, 2L))
          Expect.equal found (gradient (Batch.create noisy targets)) "the gradient at the noisy images"
          Expect.notEqual found (gradient batch) "another one"
      }

      test "a loss that nothing moves has no saliency, also within no_grad" {
          let constant =
              { new torch.nn.Module<torch.Tensor, torch.Tensor>("Constant") with
                  override _.forward x = torch.zeros (x.shape[0], 2L) }

          use constant = constant

          let batch =
              Batch.create (torch.ones (1L, 1L, 2L, 2L)) (Targets.ofIndices torch.CPU 2 [| 0 |])

          use _ = torch.no_grad ()
          Expect.equal (Saliency.ofModel CrossEntropy constant batch) (Array.zeroCreate 4) "zeros"

          use flat =
              torch.nn.Sequential(struct ("flat", torch.nn.Flatten() :> torch.nn.Module<_, _>))

          let batch =
              Batch.create (torch.ones (1L, 2L, 1L, 1L)) (Targets.ofIndices torch.CPU 2 [| 0 |])

          let found = Saliency.ofModel CrossEntropy flat batch
          Expect.isGreaterThan found[0] 0.0f "a gradient"

          let vectors =
              Batch.create (torch.ones (1L, 2L)) (Targets.ofIndices torch.CPU 2 [| 0 |])

          raises [ "rank 2" ] (fun () -> Saliency.ofModel CrossEntropy flat vectors)
      } ]

let private puzzle =
    let settings = PuzzleSettings.cifar

    /// Four images of 8 x 8 with saliency and colours of their own.
    let info =
        let numbers seed count =
            let bits = Key.stream (Key.ofSeed seed)
            Array.init count (fun _ -> float32 (bits.Open()))

        { BatchInfo.ofShape 4 { Channels = 3; Height = 8; Width = 8 } with
            Partner = Some [| 1; 2; 3; 0 |]
            Saliency = Some(lazy (numbers 1 (4 * 64)))
            Pixels = Some(lazy (numbers 2 (4 * 3 * 64))) }

    let shape: Shape = { Channels = 3; Height = 8; Width = 8 }

    [ test "the region's mask and moves are those of Puzzle.draw, for one lambda and one grid" {
          for seed in 0..9 do
              let mask = drawn seed info shape (Family.puzzle settings)

              // The first leaf's key, once for the batch that begins at sample 0.
              let bits =
                  Key.ofSeed seed |> Key.child 0 |> Key.child 0 |> Key.child 0 |> Key.stream

              let lambda = Dist.sample bits (Beta(1.0, 1.0))
              let grid = [| 2; 4; 8 |][bits.Below 3]

              let expected =
                  Puzzle.draw
                      settings
                      grid
                      lambda
                      info.Partner.Value
                      { Count = 4
                        Channels = 3
                        Side = 8
                        Saliency = info.Saliency.Value.Value
                        Images = info.Pixels.Value.Value }

              Expect.equal mask.Values (Puzzle.mask 8 expected).Values "the mask"

              Expect.equal
                  mask.Sources
                  (Some
                      { Grid = expected.Grid
                        Own = expected.Own
                        Partner = expected.Partner
                        Noise = None })
                  "the moves"
      }

      test "a transported cell holds what stood elsewhere, and the rest what the mask says" {
          let features = torch.arange(32, dtype = torch.float32).reshape(2L, 1L, 4L, 4L)

          let mask =
              { Mask.soft
                    2
                    { Channels = 1; Height = 4; Width = 4 }
                    (Array.init 32 (fun i -> if i % 4 < 2 then 1.0f else 0.0f)) with
                  Sources =
                      Some
                          { Grid = 2
                            // The own cell at the top left is shown at the bottom left too; the partner's bottom right at the top right.
                            Own = [| 0; 1; 0; 3; 0; 1; 2; 3 |]
                            Partner = [| 0; 3; 2; 3; 0; 1; 2; 3 |]
                            Noise = None } }

          let by view =
              { Count = 2
                Draws =
                  [ { Place = Number 0
                      Mask = mask
                      Partner = Some [| 1; 0 |]
                      Lambda = [| 0.0 |]
                      View = view
                      Scale = [||]
                      Objective = Objective.reweighted } ] }

          use mixed = Plan.applyFeatures (by Transported) features

          Expect.equal
              (Read.values mixed)
              ([ [ 0; 1; 26; 27 ]
                 [ 4; 5; 30; 31 ]
                 [ 0; 1; 26; 27 ]
                 [ 4; 5; 30; 31 ]
                 [ 16; 17; 2; 3 ]
                 [ 20; 21; 6; 7 ]
                 [ 24; 25; 10; 11 ]
                 [ 28; 29; 14; 15 ] ]
               |> List.concat
               |> List.map float
               |> Array.ofList)
              "cells"

          use still = Plan.applyFeatures (by AsIs) features

          Expect.equal
              (Array.take 12 (Read.values still))
              [| 0.0; 1.0; 18.0; 19.0; 4.0; 5.0; 22.0; 23.0; 8.0; 9.0; 26.0; 27.0 |]
              "as is"
      }

      test "noise is added to what it is meant for, before cells move" {
          let features = torch.zeros (2L, 1L, 2L, 2L)

          let mask noise =
              { Mask.soft 1 { Channels = 1; Height = 2; Width = 2 } [| 1.0f; 1.0f; 0.0f; 0.0f |] with
                  Sources =
                      Some
                          { Grid = 2
                            // The first two cells, and the last two, change places.
                            Own = [| 1; 0; 3; 2; 1; 0; 3; 2 |]
                            Partner = [| 1; 0; 3; 2; 1; 0; 3; 2 |]
                            Noise = Some noise } }

          let shown onOwn onPartner partner =
              use mixed =
                  Plan.applyFeatures
                      { Count = 2
                        Draws =
                          [ { Place = Number 0
                              Mask =
                                mask
                                    { Values = [| 1.0f .. 8.0f |]
                                      OnOwn = onOwn
                                      OnPartner = onPartner }
                              Partner = partner
                              Lambda = [| 0.0 |]
                              View = Transported
                              Scale = [||]
                              Objective = Objective.reweighted } ] }
                      features

              Read.values mixed

          let pair = Some [| 1; 0 |]
          Expect.equal (shown true true pair) [| 2.0; 1.0; 8.0; 7.0; 6.0; 5.0; 4.0; 3.0 |] "both"
          Expect.equal (shown true false pair) [| 2.0; 1.0; 0.0; 0.0; 6.0; 5.0; 0.0; 0.0 |] "own"
          Expect.equal (shown false true pair) [| 0.0; 0.0; 8.0; 7.0; 0.0; 0.0; 4.0; 3.0 |] "partner's"
          Expect.equal (shown true true None) [| 2.0; 1.0; 0.0; 0.0; 6.0; 5.0; 0.0; 0.0 |] "blank"
      }

      test "adversarial noise follows the gradient under its start, and so does the saliency" {
          let area = 64
          let asked = ref []

          let noisy =
              { Gradient =
                  fun noise ->
                      asked.Value <- noise :: asked.Value
                      // Up in the first channel, down in the second, nowhere in the third.
                      Array.init noise.Length (fun i ->
                          let size = float32 (1 + i % 5)
                          [| size; -size; 0.0f |][i / area % 3])
                Scale = lazy [| 1.0f; 2.0f; 4.0f |] }

          let eps = 10.0 / 255.0

          let region advP =
              Family.puzzle
                  { settings with
                      AdvP = advP
                      Grids = [ 4 ] }

          let info = { info with Noisy = Some noisy }

          for seed in 0..4 do
              asked.Value <- []
              let mask = drawn seed info shape (region 1.0)
              let noise = mask.Sources.Value.Noise.Value
              let start = List.exactlyOne asked.Value
              Expect.isTrue (noise.OnOwn && noise.OnPartner) "a probability of 1"
              let pixels = info.Pixels.Value.Value
              Expect.isGreaterThan (Array.max start) (float32 (0.9 * eps)) "it starts anywhere"
              Expect.isLessThan (Array.min start) (float32 (-0.9 * eps)) "it starts anywhere"

              for i in 0 .. start.Length - 1 do
                  let pixel, channel = float pixels[i], i / area % 3
                  let inside by = by >= -1e-6 && by <= 1.0 + 1e-6
                  Expect.isTrue (abs (float start[i]) <= eps + 1e-7 && inside (pixel + float start[i])) "the start"
                  let by = float noise.Values[i] / [| 1.0; 2.0; 4.0 |][channel]
                  Expect.isTrue (abs by <= eps + 1e-7 && inside (pixel + by)) "the noise"

              // The step of 12/255 passes every start's bound, so where pixels have room all noise of a channel is one share of 10/255.
              let share channel =
                  [ for i in 0 .. start.Length - 1 do
                        if i / area % 3 = channel && pixels[i] > 0.05f && pixels[i] < 0.95f then
                            float noise.Values[i] / [| 1.0; 2.0; 4.0 |][channel] / eps ]

              let up, down = share 0, share 1
              // A step of 12 from -10 reaches 2.
              Expect.isTrue (up |> List.forall (fun s -> s > 0.0)) "up the gradient"
              Expect.isTrue (down |> List.forall (fun s -> s < 0.0)) "up the gradient"
              expectNear 1e-5 (List.max up) (-(List.min down)) "one share for the batch"
              let most = List.max up

              for i in 0 .. start.Length - 1 do
                  if i / area % 3 = 2 && pixels[i] > 0.05f && pixels[i] < 0.95f then
                      expectNear
                          1e-6
                          (float noise.Values[i] / 4.0)
                          (most * float start[i])
                          "no gradient: a share of the start"

              let bits =
                  Key.ofSeed seed |> Key.child 0 |> Key.child 0 |> Key.child 0 |> Key.stream

              let lambda = Dist.sample bits (Beta(1.0, 1.0))

              let expected =
                  Puzzle.draw
                      settings
                      4
                      lambda
                      info.Partner.Value
                      { Count = 4
                        Channels = 3
                        Side = 8
                        Saliency =
                          Array.init (4 * area) (fun i ->
                              let size = float32 (1 + (i / area * 3 * area + i % area) % 5)
                              let other = float32 (1 + ((i / area * 3 + 1) * area + i % area) % 5)
                              sqrt ((size * size + other * other) / 3.0f))
                        Images = pixels }

              Expect.equal mask.Sources.Value.Own expected.Own "the saliency is that of the gradient"
              Expect.equal mask.Values (Puzzle.mask 8 expected).Values "the saliency is that of the gradient"

          asked.Value <- []

          let drawnOften =
              [ for seed in 0..399 -> (drawn seed info shape (region 0.25)).Sources.Value.Noise ]

          let share choose =
              drawnOften
              |> List.averageBy (fun noise -> if noise |> Option.exists choose then 1.0 else 0.0)

          expectNear 0.08 (share _.OnOwn) 0.25 "own"
          expectNear 0.08 (share _.OnPartner) 0.25 "partner's"
          expectNear 0.05 (share (fun noise -> noise.OnOwn && noise.OnPartner)) 0.0625 "independent"
          Expect.equal asked.Value.Length (drawnOften |> List.filter _.IsSome |> List.length) "asked only for noise"
          asked.Value <- []
          drawn 1 info shape (region 0.0) |> ignore
          Expect.isEmpty asked.Value "without noise it is not asked for"
          raises [ "Noisy" ] (fun () -> drawn 1 { info with Noisy = None } shape (region 1.0))
      }

      test "a part of a batch has its part of the noise" {
          let noisy =
              { Gradient = fun noise -> Array.mapi (fun i value -> value + float32 i) noise
                Scale = lazy [| 1.0f |] }

          let info =
              { BatchInfo.ofShape 3 (plane 1 2) with
                  Noisy = Some noisy }

          let part = (BatchInfo.part 1 2 info).Noisy.Value
          Expect.equal (part.Gradient [| 0.0f; 0.5f; 0.0f; 0.0f |]) [| 2.0f; 3.5f; 4.0f; 5.0f |] "features 2 to 5"
          let pixels = Array.create 12 0.5f

          let start first =
              Puzzle.startNoise 10.0 (Key.ofSeed 1) first

          let whole = start 0 3 pixels
          Expect.equal (start 1 2 pixels[4..]) whole[4..] "the same start"
      }

      test "PuzzleMix keeps the laws where its grids divide the map" {
          LawTests.expectKept (
              Laws.checkWith
                  { Laws.defaults with
                      Effort = 0.03
                      Shapes = [ shapeOf 2 4 4; shapeOf 1 8 8 ] }
                  (Catalogue.puzzleMix settings)
          )
      }

      test "a map that no grid divides, or that is not square, is one cell of 0, 1/2 or 1" {
          for height, width in [ 7, 7; 4, 8 ] do
              let shape = plane height width

              let info =
                  { BatchInfo.ofShape 2 shape with
                      Saliency = Some(lazy (Array.create (2 * height * width) 1.0f))
                      Pixels = Some(lazy (Array.create (2 * height * width) 1.0f)) }

              let shares =
                  [ for seed in 0..39 ->
                        let mask = drawn seed info shape (Family.puzzle { settings with Grids = [ 4 ] })
                        Expect.isNone mask.Sources "nothing moves"
                        Mask.unchanged mask ]

              Expect.equal (List.distinct shares |> List.sort) [ [| 0.0 |]; [| 0.5 |]; [| 1.0 |] ] "shares"
      }

      test "what is not known, and another site, are refused" {
          let region = Family.puzzle settings
          raises [ "Saliency" ] (fun () -> drawn 1 { info with Saliency = None } shape region)
          raises [ "Pixels"; "4 x 3x8x8" ] (fun () -> drawn 1 { info with Pixels = None } shape region)
          raises [ "8x8"; "4x4" ] (fun () -> drawn 1 info (shapeOf 3 4 4) region)
      }

      test "it is read from a text, by its settings or by none" {
          Expect.equal (Catalogue.parse "puzzle |> swap |> transported") (Ok(Catalogue.puzzleMix settings)) "CIFAR's"

          for name in [ PuzzleSettings.tinyImageNet; PuzzleSettings.imageNetFast ] do
              let program = Catalogue.puzzleMix name
              Expect.equal (Catalogue.parse (Notation.show program)) (Ok program) "read back"
      } ]

let tests =
    testList
        "family"
        [ testList "masks" masks
          testList "saliency" saliency
          testList "puzzle" puzzle ]
