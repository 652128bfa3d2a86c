/// The mixing operation by itself: the library, the authors' sequence of tensor operations, and the floor of the memory.
module PatchUp.Benchmarks.Operations

open PatchUp.Benchmarks.Measure
open PatchUp.Functional
open PatchUp.Functional.Words
open TorchSharp

let private shape: Shape =
    { Channels = 64
      Height = 32
      Width = 32 }

let private count = 100

/// PatchUp as its authors' code computes it: the seeds of one sample are expanded to all of them before pooling, both parts are products with the
/// masks, and the partners' part is gathered.
let private authors (soft: bool) (x: torch.Tensor) : torch.Tensor =
    let seeds =
        torch.bernoulli (
            torch.ones_like (x.select (0L, 0L))
            * Scope.number (Region.gammaAdjusted (Batch.shapeOf x) 7 0.5)
        )

    let holes =
        torch.nn.functional.max_pool2d (seeds.expand x.shape, 7L, stride = 1L, padding = 3L)

    let mask = Scope.number 1.0 - holes
    let unchanged = mask * x
    holes.select(0L, 0L).sum().item<float32>() |> ignore
    let partner = torch.randperm x.shape[0]
    let patches = holes * x

    let patches =
        if soft then
            Scope.add (patches * Scope.number 0.4) (patches.index_select (0L, partner) * Scope.number 0.6)
        else
            patches.index_select (0L, partner)

    Scope.add unchanged patches

/// The methods at one hidden site, by name.
let private programs: (string * Regularizer) list =
    [ "hard PatchUp", blocks 7 0.5 |> swap
      "soft PatchUp", blocks 7 0.5 |> blend (beta 2 2)
      "hard PatchUp, a mask a sample", perSample (blocks 7 0.5) |> swap
      "soft PatchUp, a mask and lambda a sample", perSample (blocks 7 0.5) |> blendEach (beta 2 2)
      "CutMix", rect uniform |> swap
      "Mixup", everywhere |> blend (beta 1 1)
      "DropBlock", perSample (blocks 7 0.1) |> blank |> rescale Batch ]

let private info = BatchInfo.ofShape count shape

let private targets () =
    Targets.ofIndices torch.CPU 10 (Array.init count (fun i -> i % 10))

let private size = [| int64 count; 64L; 32L; 32L |]

/// Forward, features and labels.
let forward (rounds: int) : Group =
    let x, y = torch.rand size, torch.rand size
    let batch = Batch.create x (targets ())

    let within run () =
        Scope.value (fun () ->
            use _ = torch.no_grad ()
            run () |> ignore)

    let plans =
        programs
        |> List.map (fun (name, program) -> name, Plan.draw (Key.ofSeed 2) info program)

    let floor, hard, soft =
        "the floor, x + y", "hard PatchUp, as the authors compute it", "soft PatchUp, as the authors compute it"

    let apply name = $"{name}, apply alone"

    { Title = "Mixing [100,64,32,32] forward, drawing included"
      References = [ floor; hard ]
      Rounds = rounds
      Variants =
        [ { Name = floor
            Run = within (fun () -> Scope.add x y) }
          { Name = hard
            Run = within (fun () -> authors false x) }
          { Name = soft
            Run = within (fun () -> authors true x) }
          for name, program in programs do
              { Name = name
                Run = within (fun () -> Plan.apply (Plan.draw (Key.ofSeed 2) info program) batch) }
          for name, plan in plans do
              { Name = apply name
                Run = within (fun () -> Plan.apply plan batch) } ]
      Targets =
        [ "hard PatchUp", Share(hard, 1.0 / 15.0)
          "soft PatchUp", Share(soft, 1.0 / 15.0)
          "hard PatchUp", Share(floor, 3.0)
          "soft PatchUp", Share(floor, 3.0)
          apply "hard PatchUp, a mask a sample", Share(apply "hard PatchUp", 1.5) ] }

/// Forward and backward, from the features' gradient.
let withGradient (rounds: int) : Group =
    let x, y, upstream = torch.rand size, torch.rand size, torch.rand size
    let rows = targets ()

    // Not a leaf, whose gradient would be copied once more than a hidden site's.
    let within (mix: torch.Tensor -> torch.Tensor) () =
        Scope.value (fun () ->
            let features = x.alias().requires_grad_(true)

            let gradient =
                torch.autograd.grad ([| mix features |], [| features |], [| upstream |])

            ignore gradient)

    let floor = "the floor, x + y and g + h"

    let apply program features =
        (Plan.apply (Plan.draw (Key.ofSeed 2) info program) (Batch.create features rows)).Features

    { Title = "Mixing [100,64,32,32] forward and backward, drawing included"
      References = [ floor ]
      Rounds = rounds
      Variants =
        [ { Name = floor
            Run =
              fun () ->
                  Scope.value (fun () ->
                      use _ = torch.no_grad ()
                      Scope.add x y |> ignore
                      Scope.add upstream y |> ignore) }
          { Name = "hard PatchUp, as the authors compute it"
            Run = within (authors false) }
          { Name = "soft PatchUp, as the authors compute it"
            Run = within (authors true) }
          for name, program in programs do
              { Name = name
                Run = within (apply program) } ]
      Targets = [ for name in [ "hard PatchUp"; "soft PatchUp" ] -> name, Share(floor, 3.0) ] }

/// Plans alone: no tensor is touched.
let drawing (rounds: int) : Group =
    let draw name samples (shape: Shape) program =
        let info = BatchInfo.ofShape samples shape

        { Name = name
          Run = fun () -> Plan.draw (Key.ofSeed 1) info program |> ignore }

    let small: Shape =
        { Channels = 512
          Height = 4
          Width = 4 }

    let image: Shape =
        { Channels = 3
          Height = 32
          Width = 32 }

    let large: Shape =
        { Channels = 256
          Height = 56
          Width = 56 }

    { Title = "Plan.draw alone, 100 samples"
      References = []
      Rounds = rounds
      Variants =
        [ draw "blocks [64,32,32]" count shape (blocks 7 0.5 |> swap)
          draw "blocks [512,4,4]" count small (blocks 7 0.5 |> swap)
          draw "blocks [256,56,56]" count large (blocks 7 0.5 |> swap)
          draw "blocks a sample, [100,64,32,32]" count shape (perSample (blocks 7 0.5) |> swap)
          draw "a rectangle [3,32,32]" count image (rect uniform |> swap)
          draw "cells [64,32,32]" count shape (cells 0.5 |> swap) ]
      Targets =
        [ "blocks [64,32,32]", Milliseconds 0.3
          "blocks a sample, [100,64,32,32]", Milliseconds 12.0 ] }

/// 100 images 3x32x32 of a few waves each, and saliency in blobs over a skewed background: enough like photographs and gradients to time with.
let private puzzleBatch () : PuzzleBatch =
    let side = 32
    let bits = Key.stream (Key.ofSeed 3)

    let image () =
        let waves =
            Array.init 4 (fun _ -> bits.Float() * 0.5, bits.Float() * 0.5, bits.Float() * 6.3)

        Array.init (side * side) (fun p ->
            let y, x = float (p / side), float (p % side)
            let sum = waves |> Array.sumBy (fun (a, b, c) -> cos (a * y + b * x + c))
            float32 (1.0 / (1.0 + exp (-sum - 0.3 * bits.Normal()))))

    let saliency () =
        let blobs =
            Array.init 3 (fun _ -> bits.Float() * float side, bits.Float() * float side, 2.0 + 4.0 * bits.Float())

        Array.init (side * side) (fun p ->
            let y, x = float (p / side), float (p % side)

            let near =
                blobs
                |> Array.sumBy (fun (a, b, r) -> exp (-((y - a) ** 2.0 + (x - b) ** 2.0) / (2.0 * r * r)))

            float32 ((0.2 + near) * exp (0.8 * bits.Normal())))

    { Count = count
      Channels = 3
      Side = side
      Saliency = Array.init count (fun _ -> saliency ()) |> Array.concat
      Images = Array.init (3 * count) (fun _ -> image ()) |> Array.concat }

/// PuzzleMix's choices for one batch on a grid of n x n cells.
let puzzle (grid: int) (rounds: int) : Group =
    let settings = PuzzleSettings.cifar
    let batch = puzzleBatch ()
    let maps = Puzzle.maps settings grid batch
    let partner = Key.permutation batch.Count (Key.ofSeed 4)

    let energies =
        Array.init batch.Count (fun i -> Puzzle.energy settings 0.4 maps i partner[i])

    let drawn = Puzzle.solve settings 0.4 partner maps
    let side = drawn.Grid

    let part (values: 'v[]) i =
        Array.sub values (i * side * side) (side * side)

    let masks =
        [| for i in 0 .. batch.Count - 1 do
               part drawn.Labels i |> Array.map (fun label -> label < drawn.Steps), part maps.TransportSaliency i
               part drawn.Labels i |> Array.map (fun label -> label > 0), part maps.TransportSaliency partner[i] |]

    let textbook = "100 cuts by Dinic's algorithm, as a textbook has it"

    { Title = $"PuzzleMix's choices, 100 images on {grid} x {grid} cells"
      References = [ textbook ]
      Rounds = rounds
      Variants =
        [ { Name = textbook
            Run = fun () -> energies |> Array.map PatchUp.Tests.Dinic.solve |> ignore }
          { Name = "100 cuts, MinCut.gridLabels"
            Run = fun () -> energies |> Array.map MinCut.gridLabels |> ignore }
          { Name = "100 cuts, MinCut.gridLabelsAll"
            Run = fun () -> MinCut.gridLabelsAll energies |> ignore }
          { Name = "200 transports, Transport.sources"
            Run =
              fun () ->
                  for mask, saliency in masks do
                      Transport.sources side settings.TEps mask saliency |> ignore }
          { Name = "energies, cuts and transports, Puzzle.solve"
            Run = fun () -> Puzzle.solve settings 0.4 partner maps |> ignore }
          { Name = "the same from images and saliency, Puzzle.draw"
            Run = fun () -> Puzzle.draw settings grid 0.4 partner batch |> ignore } ]
      Targets = [ "the same from images and saliency, Puzzle.draw", Milliseconds 30.0 ] }
