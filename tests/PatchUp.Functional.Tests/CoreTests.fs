/// Numbers that come from outside: published vectors, closed forms, the authors' outputs, and what the constructors
/// refuse.
module PatchUp.Tests.CoreTests

open System
open Expecto
open FsCheck.FSharp
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

let private ends =
    let atom: Dist =
        Dist.custom
            { Name = "atom"
              Arguments = [ 0.25 ]
              Mean = 0.375
              Cdf = fun x -> 0.25 + 0.75 * x
              Sample = fun bits -> max 0.0 ((bits.Float() - 0.25) / 0.75) }

    [ testCase "distribution functions outside of [0, 1] and at its ends" (fun () ->
          for dist in [ always 0.3; uniform; beta 2 5; beta 0.5 0.5; atom ] do
              Expect.equal (Dist.cdf dist -0.1) 0.0 $"{dist} below 0"
              Expect.equal (Dist.cdf dist 1.0) 1.0 $"{dist} at 1"
              Expect.equal (Dist.cdf dist 7.0) 1.0 $"{dist} above 1"

          for dist, mass in [ uniform, 0.0; beta 2 5, 0.0; always 0, 1.0; atom, 0.25 ] do
              Expect.equal (Dist.cdf dist 0.0) mass $"{dist} at 0")

      testCase "a step at the only number" (fun () ->
          Expect.equal (List.map (Dist.cdf (always 0.3)) [ 0.29; 0.3; 0.31 ]) [ 0.0; 1.0; 1.0 ] "P(X <= x)")

      testCase "a rectangle whose area is 0 with some probability" (fun () ->
          // On 1 x 1 the rectangle is there if its side is rounded up: an area of 1/4 and more.
          let expected = Region.fraction (shapeOf 1 1 1) (rect atom)
          expectNear 1e-12 expected (0.75 * 0.75) "P(area >= 1/4)") ]

let private customs =
    let loss name : CustomLoss =
        { Name = name
          IsAffine = true
          PerSample = fun logits _ -> logits.sum 1L }

    let region arguments =
        { Name = "mine"
          Arguments = arguments
          IsSoft = false
          Expected = fun shape -> Array2D.zeroCreate shape.Height shape.Width
          Draw = fun context -> Mask.constant context.Shape true }

    let dist arguments : CustomDist =
        { Name = "mine"
          Arguments = arguments
          Mean = 0.5
          Cdf = id
          Sample = _.Float() }

    [ testCase "customs are equal by name and arguments" (fun () ->
          Expect.equal (CustomLoss(loss "a")) (CustomLoss(loss "a")) "losses of one name"
          Expect.notEqual (CustomLoss(loss "a")) (CustomLoss(loss "b")) "losses of two"
          Expect.equal (hash (loss "a")) (hash (loss "a")) "their hashes"
          Expect.equal (Custom(region [ 1.0 ])) (Custom(region [ 1.0 ])) "regions"
          Expect.notEqual (Custom(region [ 1.0 ])) (Custom(region [ 2.0 ])) "regions of other arguments"
          Expect.equal (CustomDist(dist [ 1.0 ])) (CustomDist(dist [ 1.0 ])) "distributions"
          Expect.notEqual (CustomDist(dist [ 1.0 ])) (CustomDist(dist [])) "distributions of other arguments"
          Expect.equal (hash (dist [ 1.0 ])) (hash (dist [ 1.0 ])) "their hashes"

          for custom in [ box (loss "mine"); box (region []); box (dist []) ] do
              Expect.isFalse (custom.Equals "mine") "and to nothing else")

      testCase "a loss has the logits' type, whatever its terms weigh" (fun () ->
          Scope.value (fun () ->
              let info = BatchInfo.ofShape 2 (shapeOf 1 2 2)

              let batch =
                  Batch.create (torch.ones (2L, 1L, 2L, 2L)) (Targets.ofIndices torch.CPU 2 [| 0; 1 |])

              for objective in [ twoTerm; first; terms 0.5 2; terms 0 3 ] do
                  let plan = Plan.draw (Key.ofSeed 1) info (cells 0.5 |> swap |> objective)

                  let loss =
                      Loss.ofBatch CrossEntropy (Plan.apply plan batch).Targets (torch.zeros (2L, 2L))

                  Expect.equal loss.dtype torch.float32 "the type"))

      testCase "an infinity is near itself only" (fun () ->
          for a, b, isNear in
              [ infinity, infinity, true
                infinity, 1.0, false
                infinity, -infinity, false
                nan, nan, true
                1.0, nan, false ] do
              Expect.equal (Verdict.near "it" 1e-5 1e-5 [| a |] [| b |] = Verdict.Kept) isNear $"{a} and {b}")

      testCase "a check of nothing is refused" (fun () ->
          for options in
              [ { Laws.defaults with Seeds = [] }
                { Laws.defaults with Effort = nan }
                { Laws.defaults with Effort = 0.0 } ] do
              expectRefused [ "" ] (fun () -> Laws.checkWith options (everywhere |> swap)))

      testCase "a smoothed loss is affine if the loss is" (fun () ->
          for loss, isAffine in
              [ CrossEntropy, true
                BceOnSoftmax, true
                Brier, false
                CustomLoss(loss "a"), true ] do
              Expect.equal (Loss.isAffine loss) isAffine $"{loss}"
              Expect.equal (Loss.isAffine (Smoothed(0.1, loss))) isAffine $"{loss}, smoothed") ]

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

// ---- masks whose draws are given ----

let private kept (mask: Mask) =
    match mask.Values with
    | Hard bits -> bits
    | Soft _ -> failtest "the mask holds numbers."

let private givenDraws =
    let seeds =
        gen {
            let! shape = Generators.shape.Generator
            let! samples = Gen.choose (1, 3)
            let! size = Gen.choose (1, 12)

            let! bits =
                Gen.listOfLength (samples * shape.Channels * shape.Height * shape.Width) (Gen.choose (0, 5))

            return shape, samples, size, bits |> List.map ((=) 0) |> Array.ofList
        }

    let boxes =
        gen {
            let! shape = Generators.shape.Generator
            let! top, left = Gen.zip (Gen.choose (-6, 12)) (Gen.choose (-6, 12))
            let! height, width = Gen.zip (Gen.choose (0, 12)) (Gen.choose (0, 12))
            return shape, top, left, height, width
        }

    [ forAll "blocks around seeds are the reference's" 500 (Arb.fromGen seeds) (fun (shape, samples, size, seeds) ->
          let expected =
              seeds
              |> Array.chunkBySize (shape.Height * shape.Width)
              |> Array.collect (fun plane ->
                  Array2D.init shape.Height shape.Width (fun y x -> plane[y * shape.Width + x])
                  |> Reference.paint shape Paper size
                  |> Seq.cast<bool>
                  |> Seq.map not
                  |> Array.ofSeq)

          Verdict.equal "the kept features" expected (kept (Mask.blocks samples shape size seeds)))

      forAll "a box is where it is said to be" 500 (Arb.fromGen boxes) (fun (shape, top, left, height, width) ->
          let expected =
              [| for y in 0 .. shape.Height - 1 do
                     for x in 0 .. shape.Width - 1 ->
                         not (y >= top && y < top + height && x >= left && x < left + width) |]

          Verdict.equal "the kept features" expected (kept (Mask.box shape top left height width)))

      testCase "a block of even side begins half its side before its seed" (fun () ->
          // Seed at 2 of 5, side 4: 0 .. 3.
          let mask = Mask.blocks 1 (shapeOf 1 1 5) 4 [| false; false; true; false; false |]
          Expect.equal (kept mask) [| false; false; false; false; true |] "the kept features") ]

// ---- refusals ----

let private plane = shapeOf 1 4 4

let private unknownCustom name arguments : Custom =
    { Name = name
      Arguments = arguments
      IsSoft = false
      Expected = fun shape -> Array2D.zeroCreate shape.Height shape.Width
      Draw = fun context -> Mask.constant context.Shape true }

let private unknownDist name mean : CustomDist =
    { Name = name
      Arguments = []
      Mean = mean
      Cdf = id
      Sample = _.Float() }

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
      refused "over nothing" [ "over"; "at least one" ] (fun () -> Regularizer.over [])
      refused "over a time after the end" [ "1.5"; "[0, 1]" ] (fun () -> over [ 1.5, identity ])
      refused "over times that fall" [ "0.2"; "0.6" ] (fun () -> over [ 0.6, identity; 0.2, identity ])
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
      refused "blocks of side 0 around seeds" [ "0"; "at least 1" ] (fun () ->
          Mask.blocks 1 plane 0 (Array.create 16 false))
      refused "seeds of another size" [ "15"; "16" ] (fun () -> Mask.blocks 1 plane 3 (Array.create 15 false))
      refused "a distribution's mean above 1" [ "mine"; "1.5"; "[0, 1]" ] (fun () ->
          Dist.custom (unknownDist "mine" 1.5))
      refused "a distribution with a space in its name" [ "my own"; "letters, digits" ] (fun () ->
          Dist.custom (unknownDist "my own" 0.5))
      refused "features of rank 5" [ "rank 5"; "[N,C,H,W]" ] (fun () ->
          Batch.shapeOf (torch.zeros [| 1L; 1L; 1L; 1L; 1L |]))
      refused "a blend of rank 5" [ "rank 5"; "[N,C,H,W]" ] (fun () ->
          let x = torch.zeros [| 1L; 1L; 1L; 4L; 4L |]

          Blend.blend
              { Mask = Mask.hard 1 plane (Array.init 16 (fun i -> i = 0))
                Toward = [| 0.5 |] }
              x
              x)
      refused "features of rank 1" [ "[3]"; "3 samples" ] (fun () ->
          Batch.create (torch.zeros 3L) (Targets.ofIndices torch.CPU 2 [| 0; 1; 0 |]))
      refused "a resized vector" [ "Resized"; "rank 2" ] (fun () ->
          let shape = shapeOf 4 1 1

          let plan =
              Plan.draw (Key.ofSeed 1) (BatchInfo.ofShape 2 shape) (everywhere |> swap |> resized)

          Plan.apply plan (Batch.create (torch.zeros (2L, 4L)) (Targets.ofIndices torch.CPU 2 [| 0; 1 |])))
      refused "smoothing by -0.1" [ "-0.1"; "[0, 1]" ] (fun () ->
          Targets.smooth -0.1 (Targets.ofIndices torch.CPU 2 [| 0 |]))
      refused "terms infinity 1" [ "finite" ] (fun () -> everywhere |> swap |> terms infinity 1)
      refused "oneOf with an infinite weight" [ "finite" ] (fun () -> oneOf [ infinity, identity; 1.0, identity ])
      refused "always -0.5" [ "-0.5"; "[0, 1]" ] (fun () -> always -0.5)
      refused "a distribution's mean that is no number" [ "NaN" ] (fun () -> Dist.custom (unknownDist "mine" nan))
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
              expectRefused [ "input"; "1x4x4"; "1x5x5" ] (fun () -> Plan.apply plan (batch 2 5L))

              let three =
                  Plan.draw (Key.ofSeed 1) (BatchInfo.ofShape 2 (shapeOf 3 4 4)) (cells 0.5 |> swap)

              expectRefused [ "3x4x4"; "1x4x4" ] (fun () -> Plan.apply three (batch 2 4L))))

      testCase "the place named input is the input, and shared is one draw for all channels" (fun () ->
          Expect.equal (everywhere |> swap |> after "input") (everywhere |> swap |> at 0) "the input"

          let drawn =
              (Plan.draw (Key.ofSeed 1) (BatchInfo.ofShape 2 (shapeOf 3 4 4)) (shared (cells 0.5) |> swap)).Draws.Head

          Expect.equal drawn.Mask.Channels 1 "one plane")

      testCase "a custom that draws another size" (fun () ->
          let wrong =
              Region.custom
                  { unknownCustom "wrong" [] with
                      Draw = fun _ -> Mask.constant (shapeOf 1 2 2) true }

          Expect.throwsT<InvalidOperationException>
              (fun () -> draw known (wrong |> swap) () |> ignore)
              "the custom is refused"

          let numbers =
              Region.custom
                  { unknownCustom "numbers" [] with
                      Draw = fun context -> Mask.soft 1 context.Shape (Array.create 16 0.5f) }

          let outside =
              Dist.custom
                  { unknownDist "outside" 0.5 with
                      Sample = fun _ -> 1.5 }

          let samples =
              Region.custom
                  { unknownCustom "samples" [] with
                      Draw = fun context -> Mask.hard 3 context.Shape (Array.create 48 true) }

          for what, program in
              [ "three samples where one was asked for, or two", samples |> swap
                "as many where each was asked for by itself", perSample samples |> swap
                "numbers where bits were declared", numbers |> swap
                "a lambda outside [0, 1]", everywhere |> blend outside ] do
              Expect.throwsT<InvalidOperationException> (fun () -> draw known program () |> ignore) what) ]

// ---- the garbage collector ----

/// Runs while another thread collects garbage all the time.
let private amidCollections (work: unit -> unit) =
    use ended = new Threading.ManualResetEventSlim(false)

    let collect () =
        while not (ended.Wait 1) do
            GC.Collect 0

    let collector = Threading.Tasks.Task.Run collect

    try
        work ()
    finally
        ended.Set()
        collector.Wait()

let private collections =
    [ testCase "numbers outlive the native calls that they are given to" (fun () ->
          use rows = torch.ones (4L, 3L)
          let targets = Targets.ofSoft rows
          let clock = Diagnostics.Stopwatch.StartNew()

          // A product and a sum with a number, as often as can be.
          amidCollections (fun () ->
              while clock.Elapsed.TotalSeconds < 6.0 do
                  Scope.value (fun () ->
                      let smoothed = Targets.smooth 0.25 targets
                      expectNear 1e-6 (Array.head (Read.values smoothed.Soft)) (0.75 + 0.25 / 3.0) "smoothed"))) ]

/// Features of several thousand numbers a sample, which no law's are: the numbers are those of a layout in memory that goes another way.
let private large =
    [ for text in
          [ "blocks 7 0.5 |> swap"
            "perSample (blocks 7 0.5) |> swap |> pairedBy SameClass"
            "perSample (blocks 7 0.5) |> blendEach (beta 2 2)"
            "rect (always 0.4) |> blend (always 0.3)"
            "perSample (rect uniform) |> blendEach uniform |> pairedBy OtherClass"
            "disc 0.25 0.5 |> swap"
            "perSample (blocks 7 0.3) |> blank |> rescale Batch" ] do
          for precision in [ torch.float32; torch.float64 ] do
              testCase $"{text} in {precision}" (fun () ->
                  Scope.value (fun () ->
                      let info =
                          { BatchInfo.ofShape 5 (shapeOf 6 31 29) with
                              Labels = Some [| 0; 0; 1; 0; 1 |] }

                      let plan =
                          match Catalogue.parse text with
                          | Ok regularizer -> Plan.draw (Key.ofSeed 7) info regularizer
                          | Error error -> failtest $"{error}"

                      use generator = new torch.Generator(8UL)

                      let features =
                          torch.randn ([| 5L; 6L; 31L; 29L |], generator = generator, dtype = precision)

                      let upstream =
                          torch.randn ([| 5L; 6L; 31L; 29L |], generator = generator, dtype = precision)

                      let mixed (arrange: torch.Tensor -> torch.Tensor) =
                          let features = features.detach().clone().requires_grad_(true)
                          let result = Plan.applyFeatures plan (arrange features)
                          result.backward ([| upstream |])
                          Read.bytes result, Read.values features.grad

                      let found, gradient = mixed id

                      let expected, expectedGradient =
                          mixed (fun features -> features.transpose(0L, 1L).contiguous().transpose(0L, 1L))

                      Expect.isTrue (found = expected) "the same bits"

                      match Verdict.near "the gradient" 1e-6 1e-6 expectedGradient gradient with
                      | Verdict.Broken reason -> failtest reason
                      | _ -> ())) ]

let tests =
    testList
        "core"
        [ testList "distributions" distributions
          testList "ends of distributions" ends
          testList "customs" customs
          testList "closed forms" closedForms
          testList "simulation" simulations
          testList "collections" collections
          testList "masks whose draws are given" givenDraws
          testList "large features" large
          testList "refusals" refusals
          testList "errors of a draw" drawErrors ]
