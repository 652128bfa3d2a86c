/// Numbers that come from outside: published vectors, closed forms, the authors' outputs, and what the constructors
/// refuse.
module PatchUp.Tests.CoreTests

open System
open System.Text.Json
open Expecto
open TorchSharp
open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

// ---- distributions ----

/// The standard error of a mean of `n` samples of variance `variance`, times five.
let private fiveErrors n variance = 5.0 * sqrt (variance / float n)

let private distributions =
    let grid = [ for i in 1..19 -> float i / 20.0 ]

    [ testCase "Beta(1, b) has the distribution function 1 - (1 - x)^b" (fun () ->
          for b in [ 0.05; 0.5; 1.0; 2.0; 7.5; 50.0 ] do
              for x in grid do
                  expectNear 1e-12 (Dist.cdf (Beta(1.0, b)) x) (1.0 - (1.0 - x) ** b) $"Beta(1, {b}) at {x}")

      testCase "Beta(a, 1) has the distribution function x^a" (fun () ->
          for a in [ 0.05; 0.5; 1.0; 2.0; 7.5; 50.0 ] do
              for x in grid do
                  expectNear 1e-12 (Dist.cdf (Beta(a, 1.0)) x) (x ** a) $"Beta({a}, 1) at {x}")

      testCase "Beta(1/2, 1/2) is the arcsine distribution" (fun () ->
          for x in grid do
              expectNear 1e-12 (Dist.cdf (Beta(0.5, 0.5)) x) (2.0 / Math.PI * asin (sqrt x)) $"at {x}")

      testCase "Beta(2, 2) has the distribution function 3x^2 - 2x^3" (fun () ->
          for x in grid do
              expectNear 1e-12 (Dist.cdf (Beta(2.0, 2.0)) x) (x * x * (3.0 - 2.0 * x)) $"at {x}")

      testCase "I_x(a, b) = 1 - I_(1 - x)(b, a)" (fun () ->
          for a in [ 0.05; 0.3; 2.0; 50.0 ] do
              for b in [ 0.05; 1.7; 50.0 ] do
                  for x in grid do
                      let left = Dist.cdf (Beta(a, b)) x
                      expectNear 1e-11 left (1.0 - Dist.cdf (Beta(b, a)) (1.0 - x)) $"Beta({a}, {b}) at {x}")

      testCase "samples have the moments of Beta(a, b), without NaN, from .05 to 50" (fun () ->
          let n = 100000

          for a in [ 0.05; 0.5; 1.0; 2.0; 50.0 ] do
              for b in [ 0.05; 1.0; 2.0; 50.0 ] do
                  let samples = Subject.core.Sample n (Dist.beta a b) (Key.ofSeed 1)

                  Expect.isTrue
                      (samples |> Array.forall (fun x -> x >= 0.0 && x <= 1.0))
                      $"Beta({a}, {b}) lies in [0, 1]"

                  let mean, square = a / (a + b), a * (a + 1.0) / ((a + b) * (a + b + 1.0))
                  let fourth = square * (a + 2.0) * (a + 3.0) / ((a + b + 2.0) * (a + b + 3.0))

                  expectNear
                      (fiveErrors n (square - mean * mean))
                      (Array.average samples)
                      mean
                      $"the mean of Beta({a}, {b})"

                  expectNear
                      (fiveErrors n (fourth - square * square))
                      (samples |> Array.averageBy (fun x -> x * x))
                      square
                      $"the mean square of Beta({a}, {b})"

                  expectNear 1e-15 (Dist.mean (Dist.beta a b)) mean "Dist.mean")

      testCase "samples of Beta(1, 3), Beta(3, 1) and Beta(1/2, 1/2) meet their closed quantiles" (fun () ->
          let n = 100000

          let quantiles =
              [ Beta(1.0, 3.0), (fun p -> 1.0 - (1.0 - p) ** (1.0 / 3.0))
                Beta(3.0, 1.0), (fun p -> p ** (1.0 / 3.0))
                Beta(0.5, 0.5), (fun p -> sin (Math.PI * p / 2.0) ** 2.0) ]

          for dist, quantile in quantiles do
              let samples = Subject.core.Sample n dist (Key.ofSeed 2)

              for p in [ 0.01; 0.1; 0.25; 0.5; 0.75; 0.9; 0.99 ] do
                  let below = samples |> Seq.filter (fun x -> x <= quantile p) |> Seq.length
                  expectNear (fiveErrors n (p * (1.0 - p))) (float below / float n) p $"{dist} below its {p} quantile") ]

// ---- closed forms ----

/// Requested gamma and altered fraction of the paper's settings, to three digits (the last one of .2155 was rounded
/// up).
let private alteredFractions =
    [ Paper, 32, 7, [ 0.75, 0.636; 0.5, 0.491; 0.25, 0.287 ]
      Paper, 16, 7, [ 0.75, 0.773; 0.5, 0.632; 0.25, 0.397 ]
      Paper, 16, 5, [ 0.75, 0.680; 0.5, 0.532; 0.25, 0.316 ]
      Paper, 8, 7, [ 0.75, 0.999; 0.5, 0.989; 0.25, 0.903 ]
      Paper, 8, 3, [ 0.75, 0.691; 0.5, 0.537; 0.25, 0.316 ]
      Valid, 32, 7, [ 0.75, 0.494; 0.5, 0.375; 0.25, 0.216 ] ]

let private closedForms =
    [ testCase "gamma is not the altered fraction" (fun () ->
          for calibration, side, block, numbers in alteredFractions do
              for gamma, altered in numbers do
                  let found =
                      Region.fraction (shapeOf 1 side side) (Region.blocks calibration block gamma)

                  expectNear 0.0006 found altered $"{side} x {side}, block {block}, gamma {gamma}, {calibration}")

      testCase "describe's numbers: blocks 7 0.5 at 32 x 32" (fun () ->
          let fraction calibration =
              Region.fraction (shapeOf 1 32 32) (blocksBy calibration 7 0.5)

          expectNear 1e-9 (fraction Exact) 0.5 "exact"
          expectNear 0.0005 (fraction Paper) 0.491 "paper")

      testCase "peers' drops: asked .1, seeds on the whole map with the valid region's probability" (fun () ->
          for side, block, altered in [ 7, 3, 0.15; 14, 7, 0.21; 7, 7, 0.93 ] do
              let found = Region.fraction (shapeOf 1 side side) (blocksBy Paper block 0.1)
              expectNear 0.006 found altered $"{side} x {side}, block {block}")

      testCase "Exact: expected = requested, for every H <> W, block and fraction" (fun () ->
          for height in [ 1; 2; 3; 5; 8; 13; 21; 32; 33 ] do
              for width in [ 1; 2; 4; 7; 14; 16; 27; 33 ] do
                  for block in [ 1; 2; 3; 4; 6; 7; 8; 11; 16; 25; 39; 40 ] do
                      for fraction in [ 0.0; 0.01; 0.1; 0.5; 0.9; 0.999; 1.0 ] do
                          let found = Region.fraction (shapeOf 1 height width) (blocks block fraction)
                          expectNear 1e-9 found fraction $"{height} x {width}, block {block}")

      testCase "a hand-made map: block 2 on 1 x 3, centres anywhere" (fun () ->
          // Blocks begin at -1, 0 and 1, and cover 0 twice, 1 twice, 2 once; p = gamma 3 / 2 / 2.
          let p = 0.4 * 3.0 / 2.0 / 2.0
          let found = Region.expected (shapeOf 1 1 3) (blocksBy Paper 2 0.4)
          let twice = 1.0 - (1.0 - p) * (1.0 - p)

          for x, altered in [ 0, twice; 1, twice; 2, p ] do
              expectNear 1e-12 found[0, x] altered $"place {x}") ]

// ---- simulation ----

/// Draws `maps` masks of one channel each, and counts how often each place is altered.
let private simulate (maps: int) (shape: Shape) region : float[] =
    let counts = Array.zeroCreate<int>(shape.Height * shape.Width)
    let together = 500
    let many = { shape with Channels = together }

    for i in 0 .. maps / together - 1 do
        match (Region.draw (Key.child i (Key.ofSeed 3)) (BatchInfo.ofShape 1 many) many (perChannel region)).Values with
        | Hard bits ->
            let mutable p = 0

            for bit in bits do
                if not bit then
                    counts[p] <- counts[p] + 1

                p <- if p = counts.Length - 1 then 0 else p + 1
        | Soft _ -> failtest $"{region} drew numbers."

    counts
    |> Array.map (fun count -> float count / float (maps / together * together))

/// The altered fraction within .005, each place within six standard errors, and every place altered.
let private expectSimulated maps shape region =
    let found = simulate maps shape region
    let expected = Region.expected shape region |> Seq.cast<float> |> Array.ofSeq
    let name = $"{Notation.showRegion region} at {shape}"
    expectNear 0.005 (Array.average found) (Region.fraction shape region) name

    for p in 0 .. found.Length - 1 do
        expectNear (3.0 / sqrt (float maps)) found[p] expected[p] $"{name}, place {p}"

        if expected[p] > 0.001 then
            Expect.isGreaterThan found[p] 0.0 $"{name}: place {p} is reached"

let private simulations =
    [ for height, width, maps in [ 7, 7, 350000; 8, 8, 350000; 14, 9, 350000; 32, 32, 60000 ] do
          testCase $"blocks 1 .. 8 at {height} x {width}, {maps} maps each" (fun () ->
              for block in 1..8 do
                  for calibration in [ Exact; Paper; Valid ] do
                      expectSimulated maps (shapeOf 1 height width) (blocksBy calibration block 0.5))

      testCase "small and large fractions, and blocks as large as the map" (fun () ->
          for block, fraction in [ 3, 0.05; 4, 0.9; 7, 0.1; 8, 0.95; 14, 0.3; 40, 0.6 ] do
              for calibration in [ Exact; Paper; Valid ] do
                  expectSimulated 160000 (shapeOf 1 14 9) (blocksBy calibration block fraction))

      testCase "rectangles" (fun () ->
          for shape in [ shapeOf 1 32 32; shapeOf 1 14 9; shapeOf 1 7 7; shapeOf 1 1 5 ] do
              for area in [ uniform; always 0.25; always 0.01; always 1; beta 2 5; beta 0.5 0.5 ] do
                  expectSimulated 60000 shape (rect area))

      testCase "combinations" (fun () ->
          for region in
              [ cells 0.3 &&& ~~~(rect (always 0.3))
                blocks 3 0.4 ||| rect uniform
                blocks 3 0.5 &&& blocks 3 0.5
                ~~~(blocksBy Valid 4 0.6) ] do
              expectSimulated 160000 (shapeOf 1 8 6) region) ]

// ---- the authors' numbers ----

/// A tensor of the file.
type private Table = { Shape: int list; Data: float[] }

let private cases =
    lazy
        ((JsonDocument.Parse(embedded "operations.json").RootElement.GetProperty "cases").EnumerateArray()
         |> Array.ofSeq)

let private number (name: string) (case: JsonElement) = (case.GetProperty name).GetDouble()
let private integer (name: string) (case: JsonElement) = (case.GetProperty name).GetInt32()
let private text (name: string) (case: JsonElement) = (case.GetProperty name).GetString()

let private integers (name: string) (case: JsonElement) =
    [| for value in (case.GetProperty name).EnumerateArray() -> value.GetInt32() |]

let private table (name: string) (case: JsonElement) =
    let element = case.GetProperty name

    { Shape = [ for side in (element.GetProperty "shape").EnumerateArray() -> side.GetInt32() ]
      Data = [| for value in (element.GetProperty "data").EnumerateArray() -> value.GetDouble() |] }

let private tensor (table: Table) : torch.Tensor =
    torch.tensor (Array.map float32 table.Data, ReadOnlySpan [| for side in table.Shape -> int64 side |])

let private mapShape (table: Table) =
    match table.Shape with
    | [ _; channels; height; width ] -> shapeOf channels height width
    | other -> failtest $"features of shape {other}"

/// A draw made by hand, at the input.
let private byHand mask partner lambda : Drawn =
    { Place = Number 0
      Mask = mask
      Partner = partner
      Lambda = [| lambda |]
      View = AsIs
      Scale = [||]
      Objective = Objective.reweighted }

/// The features of a case mixed by one draw, with its labels where it has them.
let private mixedBy (drawn: Drawn) (case: JsonElement) : Batch =
    let features = tensor (table "x" case)
    let count = int features.shape[0]

    let targets =
        match case.TryGetProperty "classes" with
        | true, classes -> Targets.ofIndices torch.CPU (classes.GetInt32()) (integers "labels" case)
        | _ -> Targets.ofIndices torch.CPU 1 (Array.zeroCreate count)

    Plan.apply { Count = count; Draws = [ drawn ] } (Batch.create features targets)

let private expectTable (case: JsonElement) name (found: torch.Tensor) =
    let expected = table name case
    Expect.equal (Read.size found) expected.Shape $"the size of {name}"

    match Verdict.near name 1e-6 1e-6 expected.Data (Read.values found) with
    | Verdict.Broken reason -> failtest reason
    | _ -> ()

/// One plane a channel, painted by the reference from centres of odd blocks.
let private blocksAt (shape: Shape) size (seeds: float[]) : bool[] =
    let plane = shape.Height * shape.Width

    seeds
    |> Array.chunkBySize plane
    |> Array.collect (fun centres ->
        Array2D.init shape.Height shape.Width (fun y x -> centres[y * shape.Width + x] = 1.0)
        |> Reference.paint shape Paper size
        |> Seq.cast<bool>
        |> Seq.map not
        |> Array.ofSeq)

/// One plane, unchanged but for a box from (top, left) to before (bottom, right), clipped.
let private boxFrom (shape: Shape) (top, left) (bottom, right) : Mask =
    Mask.hard
        1
        { shape with Channels = 1 }
        [| for y in 0 .. shape.Height - 1 do
               for x in 0 .. shape.Width - 1 -> not (y >= top && y < bottom && x >= left && x < right) |]

let private permutation case = Some(integers "permutation" case)

let private patchUp (case: JsonElement) =
    let shape = mapShape (table "x" case)
    let block = integer "block_size" case

    expectNear
        1e-9
        (Region.gammaAdjusted shape block (number "gamma" case))
        (number "gamma_adjusted" case)
        "gamma_adjusted"

    let seeds = (table "seeds" case).Data
    let mask = Mask.hard 1 shape (blocksAt shape block seeds)
    let lambda = if text "mode" case = "hard" then 0.0 else number "lam" case
    let mixed = mixedBy (byHand mask (permutation case) lambda) case

    match mixed.Targets.Mixed with
    | None -> failtest "the targets do not count as mixed."
    | Some parts ->
        expectTable case "hidden" mixed.Features
        expectTable case "target_a" parts.Own
        expectTable case "target_b" parts.Altered
        expectTable case "target_reweighted" mixed.Targets.Soft

        for unchanged in parts.Unchanged do
            expectNear 1e-6 unchanged (number "unchanged" case) "unchanged"

        Expect.equal (text "loss" case) "bce_on_softmax" "the loss"

        for name, objective in [ "loss_first", Objective.first; "loss_second", Objective.second ] do
            let targets =
                { mixed.Targets with
                    Mixed = Some { parts with Objective = objective } }

            let loss = Loss.ofBatch BceOnSoftmax targets (tensor (table "logits" case))
            expectNear 1e-6 (Array.head (Read.values loss)) (number name case) name

let private cutMixed (case: JsonElement) =
    let shape = mapShape (table "x" case)
    let share = sqrt (1.0 - number "lam" case)

    let height, width =
        int (float shape.Height * share), int (float shape.Width * share)

    let y, x = integer "centre_axis2" case, integer "centre_axis3" case

    let box =
        boxFrom shape (y - height / 2, x - width / 2) (y + height / 2, x + width / 2)

    let mixed = mixedBy (byHand box (permutation case) 0.0) case
    expectTable case "hidden" mixed.Features
    expectNear 1e-6 (Array.head (Mask.unchanged box)) (number "unchanged" case) "unchanged"
    let labels = integers "labels" case
    Expect.equal (integers "permutation" case |> Array.map (fun j -> labels[j])) (integers "labels_b" case) "labels_b"

    // The labels' weights follow: unchanged y_i + (1 - unchanged) y_j.
    let y, other =
        Targets.ofIndices torch.CPU (integer "classes" case) labels, integers "labels_b" case

    let partner = Targets.ofIndices torch.CPU (integer "classes" case) other
    let p = number "unchanged" case

    let weighted =
        Array.map2 (fun a b -> p * a + (1.0 - p) * b) (Read.values y.Soft) (Read.values partner.Soft)

    match Verdict.near "the targets" 1e-6 1e-6 weighted (Read.values mixed.Targets.Soft) with
    | Verdict.Broken reason -> failtest reason
    | _ -> ()

let private cutOut (case: JsonElement) =
    let shape = mapShape (table "x" case)
    let half = float (integer "length" case) / 2.0

    let ends centre =
        int (float centre - half), int (float centre + half)

    let top, bottom = ends (integer "centre_axis2" case)
    let left, right = ends (integer "centre_axis3" case)

    let mixed =
        mixedBy (byHand (boxFrom shape (top, left) (bottom, right)) None 0.0) case

    expectTable case "hidden" mixed.Features
    Expect.isNone mixed.Targets.Mixed "the labels stay"

let private dropBlock (case: JsonElement) =
    let features = table "x" case
    let shape = mapShape features
    let block = integer "block_size" case
    let gamma = 1.0 - number "keep_prob" case
    expectNear 1e-9 (Region.gammaAdjusted shape block gamma) (number "gamma_adjusted" case) "gamma_adjusted"

    let mask =
        Mask.hard features.Shape.Head shape (blocksAt shape block (table "seeds" case).Data)

    let kept = Array.average (Mask.unchanged mask)

    let mixed =
        mixedBy
            { byHand mask None 0.0 with
                Scale = [| (if kept > 0.0 then 1.0 / kept else 0.0) |] }
            case

    expectTable case "hidden" mixed.Features

let private mixedUp (case: JsonElement) =
    let mixed =
        mixedBy (byHand (Mask.constant (mapShape (table "x" case)) false) (permutation case) (number "lam" case)) case

    expectTable case "hidden" mixed.Features
    expectTable case "target_reweighted" mixed.Targets.Soft

let private golden =
    [ testCase "the file holds its 24 cases" (fun () -> Expect.equal cases.Value.Length 24 "cases")

      for kind, check in
          [ "patchup", patchUp
            "cutmix", cutMixed
            "cutout", cutOut
            "dropblock", dropBlock
            "mixup", mixedUp ] do
          testCase $"{kind} as the authors' code" (fun () ->
              let chosen = cases.Value |> Array.filter (fun case -> text "kind" case = kind)
              Expect.isGreaterThan chosen.Length 3 "cases"

              for case in chosen do
                  Scope.value (fun () -> check case)) ]

// ---- refusals ----

let private plane = shapeOf 1 4 4

let private unknownCustom name arguments : Custom =
    { Name = name
      Arguments = arguments
      IsSoft = false
      Expected = fun shape -> Array2D.zeroCreate shape.Height shape.Width
      Draw = fun context -> Mask.constant context.Shape true }

let private refused name texts (call: unit -> 'v) =
    testCase name (fun () -> Scope.value (fun () -> expectRefused texts call))

let private refusals =
    [ refused "always 1.5" [ "1.5"; "[0, 1]" ] (fun () -> always 1.5)
      refused "always nan" [ "NaN"; "[0, 1]" ] (fun () -> always nan)
      refused "beta 0 2" [ "0"; "positive" ] (fun () -> beta 0 2)
      refused "beta 2 infinity" [ "finite" ] (fun () -> beta 2 infinity)
      refused "cells -0.1" [ "-0.1"; "[0, 1]" ] (fun () -> cells -0.1)
      refused "channels 2" [ "2"; "[0, 1]" ] (fun () -> channels 2)
      refused "blocks 0 0.5" [ "blocks 0"; "at least 1" ] (fun () -> blocks 0 0.5)
      refused "blocks 7 1.2" [ "blocks 7"; "1.2"; "[0, 1]" ] (fun () -> blocks 7 1.2)
      refused "blocks 7 nan" [ "NaN"; "[0, 1]" ] (fun () -> blocks 7 nan)
      refused "a custom without a name" [ "\"\""; "letter" ] (fun () -> Region.custom (unknownCustom "" []))
      refused "a custom with a space" [ "my region"; "letters, digits" ] (fun () ->
          Region.custom (unknownCustom "my region" []))
      refused "a custom beginning with a digit" [ "7up"; "letter" ] (fun () -> Region.custom (unknownCustom "7up" []))
      refused "a custom's infinite argument" [ "mine"; "finite" ] (fun () ->
          Region.custom (unknownCustom "mine" [ 1.0; infinity ]))
      refused "site -1" [ "-1"; "from 0" ] (fun () -> everywhere |> swap |> at -1)
      refused "a site without a name" [ "\"\""; "empty" ] (fun () -> everywhere |> swap |> after "")
      refused "a site with a quote" [ "a\"b"; "quotation mark" ] (fun () -> everywhere |> swap |> after "a\"b")
      refused "no sites" [ "atAny"; "at least one" ] (fun () -> everywhere |> swap |> atAny [])
      refused "no names" [ "atAll"; "at least one" ] (fun () -> everywhere |> swap |> afterAll [])
      refused "terms -1 1" [ "-1"; "not negative" ] (fun () -> everywhere |> swap |> terms -1 1)
      refused "terms 0 0" [ "0 0"; "not both zero" ] (fun () -> everywhere |> swap |> terms 0 0)
      refused "oneOf of nothing" [ "oneOf"; "positive" ] (fun () -> Regularizer.oneOf [])
      refused "oneOf with a negative weight" [ "-2"; "not negative" ] (fun () -> oneOf [ -2, identity; 1, identity ])
      refused "oneOf of weights 0" [ "at least one"; "positive" ] (fun () -> oneOf [ 0, identity; 0, identity ])
      refused "sometimes 1.1" [ "1.1"; "[0, 1]" ] (fun () -> identity |> sometimes 1.1)
      refused "sometimes nan" [ "NaN"; "[0, 1]" ] (fun () -> identity |> sometimes nan)
      refused "rescale of a swap" [ "Batch"; "only blanked" ] (fun () -> everywhere |> swap |> rescale Rescale.Batch)
      refused "a partner for a rescaled step" [ "Shuffled"; "rescaled" ] (fun () ->
          everywhere |> blank |> rescale Rescale.Batch |> pairedBy Shuffled)
      refused "an objective on an earlier step" [ "objective"; "last" ] (fun () ->
          sequence [ everywhere |> blend uniform |> twoTerm; rect uniform |> swap ])
      refused "a mask of another size" [ "3"; "16" ] (fun () -> Mask.hard 1 plane [| true; true; false |])
      refused "a soft mask above 1" [ "1.5"; "[0, 1]" ] (fun () -> Mask.soft 1 (shapeOf 1 1 2) [| 1.5f; 0.0f |])
      refused "a soft mask of NaN" [ "NaN"; "[0, 1]" ] (fun () -> Mask.soft 1 (shapeOf 1 1 1) [| nanf |])
      refused "an empty batch" [ "0"; "at least one" ] (fun () -> BatchInfo.ofShape 0 plane)
      refused "a label outside the classes" [ "3"; "sample 1"; "0 .. 2" ] (fun () ->
          Targets.ofIndices torch.CPU 3 [| 0; 3 |])
      refused "a negative label" [ "-1"; "0 .. 2" ] (fun () -> Targets.ofIndices torch.CPU 3 [| -1 |])
      refused "targets that are no rows" [ "[N,K]" ] (fun () -> Targets.ofSoft (torch.zeros 3L))
      refused "targets that are whole numbers" [ "Int64"; "[N,K]" ] (fun () ->
          Targets.ofSoft (torch.zeros ([| 2L; 3L |], dtype = torch.int64)))
      refused "smoothing by 2" [ "2"; "[0, 1]" ] (fun () -> Targets.smooth 2.0 (Targets.ofIndices torch.CPU 2 [| 0 |]))
      refused "features and targets of other sizes" [ "2"; "[3,1,4,4]" ] (fun () ->
          Batch.create (torch.zeros (3L, 1L, 4L, 4L)) (Targets.ofIndices torch.CPU 2 [| 0; 1 |]))
      refused "logits and targets of other sizes" [ "[1,3]"; "[1,2]" ] (fun () ->
          Loss.ofBatch CrossEntropy (Targets.ofIndices torch.CPU 2 [| 0 |]) (torch.zeros (1L, 3L)))
      refused "below 0" [ "0"; "positive" ] (fun () -> (Key.stream (Key.ofSeed 0)).Below 0) ]

let private drawErrors =
    let known =
        BatchInfo.create 2 (fun place -> if place = Number 0 then Some plane else None)

    let draw info regularizer () =
        Plan.draw (Key.ofSeed 1) info regularizer

    [ testCase "an unknown site" (fun () ->
          expectRefused [ "site 3"; "Blocks" ] (draw known (blocks 7 0.5 |> swap |> at 3))
          expectRefused [ "\"layer9\"" ] (draw known (blocks 7 0.5 |> swap |> after "layer9")))

      testCase "a pairing by class without labels" (fun () ->
          expectRefused [ "SameClass"; "Labels" ] (draw known (everywhere |> swap |> pairedBy SameClass))
          expectRefused [ "OtherClass"; "Labels" ] (draw known (everywhere |> swap |> pairedBy OtherClass)))

      testCase "labels for another batch" (fun () ->
          let info =
              { known with
                  Labels = Some [| 1; 2; 3 |] }

          expectRefused [ "3 labels"; "2 samples" ] (draw info (everywhere |> swap |> pairedBy SameClass)))

      testCase "a batch of another size or shape than the plan's" (fun () ->
          Scope.value (fun () ->
              let plan = draw known (cells 0.5 |> swap) ()

              let batch count side =
                  Batch.create
                      (torch.zeros (int64 count, 1L, side, side))
                      (Targets.ofIndices torch.CPU 2 (Array.zeroCreate count))

              expectRefused [ "2 samples"; "3" ] (fun () -> Plan.apply plan (batch 3 4L))
              expectRefused [ "input"; "1x4x4"; "1x5x5" ] (fun () -> Plan.apply plan (batch 2 5L))))

      testCase "a custom that draws another size" (fun () ->
          let wrong =
              Region.custom
                  { unknownCustom "wrong" [] with
                      Draw = fun _ -> Mask.constant (shapeOf 1 2 2) true }

          Expect.throwsT<InvalidOperationException>
              (fun () -> draw known (wrong |> swap) () |> ignore)
              "the custom is refused") ]

let tests =
    testList
        "core"
        [ testList "distributions" distributions
          testList "closed forms" closedForms
          testList "simulation" simulations
          testList "the authors' numbers" golden
          testList "refusals" refusals
          testList "errors of a draw" drawErrors ]
