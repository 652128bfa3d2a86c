/// PuzzleMix without tensors: the exact cut against every labeling and against a second solver, the transport against the authors' iteration
/// in full matrices, and the laws of both.
module PatchUp.Tests.PuzzleTests

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

// ---- the cut ----

/// Uniform in -bound .. bound.
let private signed (bits: Stream) bound = bits.Below(2 * bound + 1) - bound

/// A random energy, its sizes given: unaries of both signs, and smoothness from none, over comparable, to overwhelming.
let private energyOf (bits: Stream) height width labels : GridEnergy =
    let strength = [| 0; 1; 30; 300; 3000; 100000 |][bits.Below 6]
    let bound = [| 1; 5; 1000 |][bits.Below 3]

    let weights count =
        Array.init count (fun _ -> bits.Below(strength + 1))

    { Height = height
      Width = width
      Labels = labels
      Unary = Array.init (height * width * labels) (fun _ -> signed bits bound)
      Vertical = weights ((height - 1) * width)
      Horizontal = weights (height * (width - 1)) }

/// The energy as its formula is written, times m^2.
let private energyByHand (energy: GridEnergy) (labels: int[]) =
    let w, m = energy.Width, energy.Labels - 1
    let at r q = labels[r * w + q]

    let squared a b = int64 ((a - b) * (a - b))

    Seq.sum (
        seq {
            for r in 0 .. energy.Height - 1 do
                for q in 0 .. w - 1 do
                    int64 (m * m) * int64 energy.Unary[(r * w + q) * energy.Labels + at r q]

                    if r + 1 < energy.Height then
                        int64 energy.Vertical[r * w + q] * squared (at r q) (at (r + 1) q)

                    if q + 1 < w then
                        int64 energy.Horizontal[r * (w - 1) + q] * squared (at r q) (at r (q + 1))
        }
    )

/// Every labeling of `cells` cells.
let private labelings cells labels =
    seq { for code in 0 .. pown labels cells - 1 -> Array.init cells (fun cell -> code / pown labels cell % labels) }

/// The least energy of all labelings, and the cells' smallest labels among those that have it.
let private bruteForce (energy: GridEnergy) =
    let cells = energy.Height * energy.Width

    labelings cells energy.Labels
    |> Seq.fold
        (fun (least, smallest) labels ->
            let value = energyByHand energy labels

            if value < least then
                value, labels
            elif value = least then
                least, Array.map2 min smallest labels
            else
                least, smallest)
        (Int64.MaxValue, [||])
    |> fun (least, labels) -> labels, least

let private agrees (energy: GridEnergy) (labels: int[], minimum: int64) =
    let cut = MinCut.solve energy

    Verdict.all
        [ Verdict.equal "the labels" labels cut.Labels
          Verdict.equal "the flow's value" minimum cut.Minimum
          Verdict.equal "the energy of the labels" minimum (energyByHand energy cut.Labels)
          Verdict.equal "MinCut.energy" minimum (MinCut.energy energy cut.Labels)
          Verdict.equal "MinCut.gridLabels" labels (MinCut.gridLabels energy) ]

let private against (oracle: GridEnergy -> int[] * int64) (name: string) trials height width labels =
    forAll name trials Generators.key (fun key ->
        let energy = energyOf (Key.stream key) height width labels
        agrees energy (oracle energy))

let private cuts =
    [ for height, width, labels, trials in
          [ 2, 2, 2, 200
            2, 2, 3, 200
            2, 2, 4, 200
            3, 3, 2, 250
            3, 3, 3, 150
            3, 3, 4, 4
            1, 4, 5, 50
            4, 1, 3, 50
            1, 1, 6, 20
            2, 3, 3, 100 ] do
          against
              bruteForce
              $"no labeling of {height} x {width} cells is better, of {labels} labels"
              trials
              height
              width
              labels

      against Dinic.solve "a second solver agrees on 16 x 16 cells" 200 16 16 3
      against Dinic.solve "a second solver agrees on 16 x 16 cells of 2 labels" 20 16 16 2
      against Dinic.solve "a second solver agrees on 5 x 9 cells of 7 labels" 20 5 9 7 ]

let private gridOf height width labels unary vertical horizontal : GridEnergy =
    { Height = height
      Width = width
      Labels = labels
      Unary = unary
      Vertical = vertical
      Horizontal = horizontal }

let private manyCuts =
    [ forAll "numbers of nine digits are cut as exactly" 200 Generators.key (fun key ->
          let bits = Key.stream key
          let unary = Array.init 6 (fun _ -> signed bits 100_000_000)
          let weights = Array.init 2 (fun _ -> bits.Below 200_000_000)
          let energy = gridOf 1 3 2 unary [||] weights
          agrees energy (bruteForce energy))

      testCase "grids of several sizes are solved one as all, whatever the number of processors" (fun () ->
          let bits = Key.stream (Key.ofSeed 5)

          let energies =
              Array.init 60 (fun i ->
                  if i % 3 = 0 then
                      energyOf bits 7 9 4
                  else
                      energyOf bits 16 16 3)

          Expect.equal (MinCut.gridLabelsAll energies) (Array.map MinCut.gridLabels energies) "the labels")

      testCase "of several energies that are refused the first is named" (fun () ->
          let good = energyOf (Key.stream (Key.ofSeed 6)) 16 16 3

          let bad weight =
              { good with
                  Vertical = Array.create good.Vertical.Length weight }

          for _ in 1..20 do
              let energies = Array.init 60 (fun i -> if i >= 20 then bad -i else good)

              expectRefused [ "Vertical holds -20;" ] (fun () -> MinCut.gridLabelsAll energies))

      testCase "energies that are refused" (fun () ->
          let refused texts energy =
              expectRefused texts (fun () -> MinCut.gridLabels energy)
              expectRefused texts (fun () -> MinCut.energy energy [| 0 |])

          refused [ "0 x 3 cells with 2 labels"; "at least one cell" ] (gridOf 0 3 2 [||] [||] [||])
          refused [ "1 x 1 cells with 1 labels"; "two labels" ] (gridOf 1 1 1 [| 0 |] [||] [||])

          refused
              [ "Unary: 1 x 2 cells with 2 labels need 4 numbers, not 3" ]
              (gridOf 1 2 2 [| 0; 0; 0 |] [||] [| 1 |])

          refused [ "Vertical"; "need 0 numbers, not 1" ] (gridOf 1 2 2 (Array.zeroCreate 4) [| 1 |] [| 1 |])
          refused [ "Horizontal"; "need 1 numbers, not 0" ] (gridOf 1 2 2 (Array.zeroCreate 4) [||] [||])

          refused
              [ "Horizontal holds -1; a weight must lie in 0 .. 1073741823" ]
              (gridOf 1 2 2 (Array.zeroCreate 4) [||] [| -1 |])

          refused [ "Vertical holds 1073741824" ] (gridOf 2 1 2 (Array.zeroCreate 4) [| 1 <<< 30 |] [||])
          refused [ "too large"; "16777216" ] (gridOf Int32.MaxValue Int32.MaxValue 3 [||] [||] [||])
          refused [ "too large" ] (gridOf 1 1 Int32.MaxValue [||] [||] [||])
          refused [ "too large" ] (gridOf 2000 2000 4 [||] [||] [||])

          let steep cost =
              gridOf 1 1 3 [| 0; cost; cost |] [||] [||]

          Expect.equal (MinCut.solve (steep 268435455)).Labels [| 0 |] "4 times the largest unary is below 2^30"

          for cost in [ 268435456; -268435456; Int32.MaxValue; Int32.MinValue ] do
              expectRefused [ "times m^2 = 4"; "at most 1073741823"; "Scale" ] (fun () -> MinCut.solve (steep cost)))

      testCase "labelings that are refused" (fun () ->
          let energy = gridOf 1 2 2 [| 0; 1; 2; 3 |] [||] [| 5 |]
          Expect.equal (MinCut.energy energy [| 0; 1 |]) 8L "0 + 3 + 5"
          expectRefused [ "1 x 2 cells"; "not 3" ] (fun () -> MinCut.energy energy [| 0; 0; 0 |])
          expectRefused [ "label 2"; "0 .. 1" ] (fun () -> MinCut.energy energy [| 0; 2 |])
          expectRefused [ "label -1" ] (fun () -> MinCut.energy energy [| -1; 0 |])) ]

// ---- transport ----

/// A distribution over cells, as skewed as gradients are and more, with zeros here and there, and sometimes of a few values only.
let private skewed (bits: Stream) count : float32[] =
    let spread = [| 0.2; 1.0; 2.5 |][bits.Below 3]
    let zeros = [| 0.0; 0.02; 0.3 |][bits.Below 3]
    let isCoarse = bits.Below 3 = 0

    let raw =
        Array.init count (fun _ ->
            let value = exp (spread * bits.Normal())
            let value = if isCoarse then 1.0 + round value else value
            if bits.Float() < zeros then 0.0 else value)

    let sum = max 1e-9 (Array.sum raw)
    raw |> Array.map (fun value -> float32 (value / sum))

/// One transport to solve: n, t_eps, the masked cells, the saliency.
let private transportOf (bits: Stream) n =
    let tEps = [| 0.8; 0.2; 0.01 |][bits.Below 3]
    let density = bits.Float()
    let masked = Array.init (n * n) (fun _ -> bits.Float() < density)
    tEps, masked, skewed bits (n * n)

/// cost[i, j] = t_eps C[i, j] - s_i z_j, in float32.
let private costs n (tEps: float) (masked: bool[]) (saliency: float32[]) =
    Array2D.init (n * n) (n * n) (fun i j ->
        let r, q = i / n - j / n, i % n - j % n
        let distance = float32 (r * r + q * q) / float32 ((n - 1) * (n - 1))
        float32 tEps * distance - (if masked[j] then saliency[i] else 0.0f))

/// The authors' iteration as it is described: n rounds in which every row picks its cheapest column, every column keeps the cheapest of the
/// rows that picked it, and what it refuses becomes dearer by 1. The row that each column keeps in the last round, or -1.
let private dense n (tEps: float) masked saliency =
    let cells = n * n
    let cost = costs n tEps masked saliency
    let mutable kept = [||]

    for _ in 1..n do
        let picked =
            Array.init cells (fun i -> Seq.minBy (fun j -> cost[i, j]) (seq { 0 .. cells - 1 }))

        kept <-
            Array.init cells (fun j ->
                let rows = [| 0 .. cells - 1 |] |> Array.filter (fun i -> picked[i] = j)

                if rows.Length = 0 then
                    -1
                else
                    rows |> Array.minBy (fun i -> cost[i, j]))

        for i in 0 .. cells - 1 do
            if kept[picked[i]] <> i then
                cost[i, picked[i]] <- cost[i, picked[i]] + 1.0f

    kept

let private likeDense n key =
    let tEps, masked, saliency = transportOf (Key.stream key) n
    let kept = dense n tEps masked saliency

    // A cell without saliency that nobody wants is left blank by the authors, or shows what happens to stand first.
    let expected =
        kept
        |> Array.mapi (fun j i ->
            if not masked[j] || (saliency[j] = 0.0f && not (i >= 0 && saliency[i] > 0.0f)) then
                j
            else
                i)

    Verdict.equal "the sources" (List.ofArray expected) (List.ofArray (Transport.sources n tEps masked saliency))

let private transports =
    [ forAll "cells move as in the authors' iteration, 4 x 4" 400 Generators.key (likeDense 4)
      forAll "cells move as in the authors' iteration, 8 x 8" 100 Generators.key (likeDense 8)
      forAll "cells move as in the authors' iteration, 16 x 16" 12 Generators.key (likeDense 16)
      forAll "cells move as in the authors' iteration, 2 x 2 and 3 x 3" 400 Generators.key (fun key ->
          Verdict.all [ likeDense 2 key; likeDense 3 key ])

      forAll "no source is shown twice, and no cell costs more than it did" 500 Generators.key (fun key ->
          let bits = Key.stream key
          let n = 2 + bits.Below 9
          let tEps, masked, saliency = transportOf bits n
          let tEps = if bits.Below 5 = 0 then 0.0 else tEps
          let sources = Transport.sources n tEps masked saliency

          let shown =
              [| for j in 0 .. n * n - 1 do
                     if masked[j] then
                         sources[j] |]

          let cost = costs n tEps masked saliency

          Verdict.all
              [ Verdict.equal "distinct sources" shown.Length (Seq.length (Seq.distinct shown))
                Verdict.require
                    (Seq.forall (fun j -> not masked[j] || cost[sources[j], j] <= cost[j, j]) (seq { 0 .. n * n - 1 }))
                    (fun () -> $"a cell of {sources} costs more than where nothing moves.")
                Verdict.require (Seq.forall (fun j -> masked[j] || sources[j] = j) (seq { 0 .. n * n - 1 })) (fun () ->
                    $"{sources} moves cells that are not masked.") ])

      forAll "at a huge price nothing moves" 100 Generators.key (fun key ->
          let _, masked, saliency = transportOf (Key.stream key) 6
          Verdict.equal "the sources" [ 0..35 ] (List.ofArray (Transport.sources 6 1e6 masked saliency)))

      testCase "a salient cell moves under the mask, and what it displaces moves on" (fun () ->
          // In units of the price, C is the squared distance: n = 2.
          let saliency = [| 0.6f; 0.05f; 0.3f; 0.05f |]
          let only cell = Array.init 4 (fun j -> j = cell)
          Expect.equal (Transport.sources 2 0.1 (only 3) saliency) [| 0; 1; 2; 0 |] "0.2 - 0.6 is the least"
          Expect.equal (Transport.sources 2 0.25 (only 3) saliency) [| 0; 1; 2; 0 |] "0.5 - 0.6 against 0.25 - 0.3"

          Expect.equal
              (Transport.sources 2 0.29 (only 3) saliency)
              [| 0; 1; 2; 3 |]
              "0.05 is kept: 0.02, 0.01 and 0.05"

          // 0 takes 1, 2 takes 3; what was there has nowhere to go.
          let right = [| false; true; false; true |]
          Expect.equal (Transport.sources 2 0.1 right saliency) [| 0; 0; 2; 2 |] "the right column shows the left")

      testCase "transports that are refused" (fun () ->
          let four value = Array.create 4 value
          expectRefused [ "1 x 1"; "2 x 2" ] (fun () -> Transport.sources 1 0.8 [| true |] [| 1.0f |])

          for price in [ -0.1; nan; infinity ] do
              expectRefused [ $"t_eps is {price}" ] (fun () -> Transport.sources 2 price (four true) (four 0.25f))

          expectRefused [ "4 bits"; "not 3 and 4" ] (fun () ->
              Transport.sources 2 0.8 (Array.create 3 true) (four 0.25f))

          expectRefused [ "not 4 and 5" ] (fun () -> Transport.sources 2 0.8 (four true) (Array.create 5 0.2f))
          expectRefused [ "65536 x 65536" ] (fun () -> Transport.sources 65536 0.8 [||] [||])) ]

// ---- the energy ----

let private batchOf (bits: Stream) count channels side : PuzzleBatch =
    { Count = count
      Channels = channels
      Side = side
      Saliency = Array.init count (fun _ -> skewed bits (side * side)) |> Array.concat
      Images = Array.init (count * channels * side * side) (fun _ -> float32 (bits.Float())) }

/// Constants of about the published ones.
let private settingsOf (bits: Stream) : PuzzleSettings =
    { PuzzleSettings.cifar with
        Beta = 2.0 * bits.Float()
        Gamma = bits.Float()
        Eta = 0.5 * bits.Float()
        Labels = 2 + bits.Below 4
        NeighSize = 1 + bits.Below 4
        TSize = [| None; Some 2; Some 4 |][bits.Below 3] }

/// The mean of a square of the images, `cell` pixels from (y, x) of cells.
let private meanColour (batch: PuzzleBatch) cell sample channel y x =
    Seq.average (
        seq {
            for dy in 0 .. cell - 1 do
                for dx in 0 .. cell - 1 ->
                    float
                        batch.Images[((sample * batch.Channels + channel) * batch.Side + y * cell + dy) * batch.Side
                                     + x * cell
                                     + dx]
        }
    )

/// The saliency of a cell as a share of the image's.
let private share (batch: PuzzleBatch) n sample r q =
    let b, area = batch.Side / n, batch.Side * batch.Side

    let own =
        batch.Saliency[sample * area .. (sample + 1) * area - 1] |> Array.map float

    Seq.sum (
        seq {
            for y in r * b .. (r + 1) * b - 1 do
                for x in q * b .. (q + 1) * b - 1 -> own[y * batch.Side + x]
        }
    )
    / Array.sum own

/// The neighbours of an n x n grid: the first cell, the second, and whether it is below.
let private neighbours n =
    [ for r in 0 .. n - 1 do
          for q in 0 .. n - 1 do
              if r + 1 < n then
                  (r, q), (r + 1, q), true

              if q + 1 < n then
                  (r, q), (r, q + 1), false ]

/// delta: the mean difference along the common edge of two cells when they show the images `a` and `b`.
let private delta (batch: PuzzleBatch) (settings: PuzzleSettings) n a b ((r, q), (r', q'), isBelow) =
    let cell = batch.Side / n
    let ng = List.findBack (fun d -> cell % d = 0) [ 1 .. min settings.NeighSize cell ]
    let k = cell / ng

    Seq.average (
        seq {
            for channel in 0 .. batch.Channels - 1 do
                for i in 0 .. k - 1 ->
                    let last, first =
                        if isBelow then
                            (r * k + k - 1, q * k + i), (r' * k, q' * k + i)
                        else
                            (r * k + i, q * k + k - 1), (r' * k + i, q' * k)

                    abs (
                        meanColour batch ng a channel (fst last) (snd last)
                        - meanColour batch ng b channel (fst first) (snd first)
                    )
        }
    )

/// E(z) of two labels from what is shown alone: the saliency thrown away, beta where neighbours show different images, beta gamma times their
/// difference, and the prior.
let private shownEnergy batch (settings: PuzzleSettings) n lambda i j (labels: int[]) =
    let shows (r, q) = if labels[r * n + q] = 0 then i else j
    let beta = settings.Beta / (16.0 * float n)

    let thrown =
        Seq.sum (
            seq {
                for r in 0 .. n - 1 do
                    for q in 0 .. n - 1 ->
                        if shows (r, q) = i then
                            share batch n j r q
                        else
                            share batch n i r q
            }
        )

    let smoothness =
        neighbours n
        |> List.sumBy (fun ((f, h, _) as edge) ->
            (if labels[fst f * n + snd f] <> labels[fst h * n + snd h] then
                 beta
             else
                 0.0)
            + beta * settings.Gamma * delta batch settings n (shows f) (shows h) edge)

    let prior =
        labels
        |> Array.sumBy (fun l -> -log((if l = 0 then lambda else 1.0 - lambda) + 1e-8))

    thrown + smoothness + settings.Eta / float (n * n) * prior

/// c1, c0 and W of a grid as they are defined, then the unaries and weights of m + 1 labels in thousandths of an average share.
let private termsByHand batch (settings: PuzzleSettings) n lambda i j =
    let beta = settings.Beta / (16.0 * float n)
    let g = beta * settings.Gamma / 2.0
    let c1 = Array2D.init n n (share batch n j)
    let c0 = Array2D.init n n (share batch n i)

    let weights =
        [ for ((fr, fq), (hr, hq), isBelow) as edge in neighbours n do
              let delta a b = delta batch settings n a b edge
              let a, b, c, d = delta j j, delta j i, delta i j, delta i i
              c1[fr, fq] <- c1[fr, fq] + g * (c + d)
              c0[fr, fq] <- c0[fr, fq] + g * (a + b)
              c1[hr, hq] <- c1[hr, hq] + g * (b + d)
              c0[hr, hq] <- c0[hr, hq] + g * (a + c)
              isBelow, beta + g * (b + c - a - d) ]

    let m = settings.Labels - 1
    let scale = 1000.0 * float (n * n)

    let unary =
        [| for r in 0 .. n - 1 do
               for q in 0 .. n - 1 do
                   for l in 0..m do
                       let z = 1.0 - float l / float m

                       let choices =
                           Seq.fold (fun p t -> p * float (m - l + t) / float t) 1.0 (seq { 1..l })

                       let probability = choices * lambda ** float (m - l) * (1.0 - lambda) ** float l

                       scale
                       * (z * c1[r, q] + (1.0 - z) * c0[r, q]
                          - settings.Eta / float (n * n) * log (probability + 1e-8)) |]

    let along isBelow =
        [| for b, weight in weights do
               if b = isBelow then
                   scale * weight |]

    unary, along true, along false

/// Kept if each whole number is the number without its fraction, up to the rounding of float32.
let private truncated what (expected: float[]) (found: int[]) =
    Verdict.require
        (expected.Length = found.Length
         && Array.forall2 (fun (e: float) (f: int) -> e - 1.01 < float f && float f < e + 0.01) expected found)
        (fun () -> $"{what}: %A{found} where %A{expected} was expected.")

let private energies =
    [ forAll "the terms are those of the definition" 100 Generators.key (fun key ->
          let bits = Key.stream key
          let settings, n, lambda = settingsOf bits, [| 2; 4 |][bits.Below 2], bits.Float()
          let batch = batchOf bits 2 (1 + bits.Below 3) ([| 4; 8; 12; 24 |][bits.Below 4])
          let energy = Puzzle.energy settings lambda (Puzzle.maps settings n batch) 0 1
          let unary, vertical, horizontal = termsByHand batch settings n lambda 0 1

          Verdict.all
              [ truncated "unaries" unary energy.Unary
                truncated "vertical weights" vertical energy.Vertical
                truncated "horizontal weights" horizontal energy.Horizontal ])

      forAll
          "saliency is each cell's share, on the energy's grid and on that of what moves"
          60
          Generators.key
          (fun key ->
              let bits = Key.stream key
              let batch = batchOf bits 2 1 16
              let settings, n = settingsOf bits, [| 2; 4 |][bits.Below 2]
              let maps = Puzzle.maps settings n batch

              let shares grid =
                  [| for sample in 0..1 do
                         for r in 0 .. grid - 1 do
                             for q in 0 .. grid - 1 -> share batch grid sample r q |]

              Verdict.all
                  [ Verdict.near "the energy's" 1e-5 1e-9 (shares n) (Array.map float maps.Saliency)
                    Verdict.near
                        "what moves"
                        1e-5
                        1e-9
                        (shares maps.TransportGrid)
                        (Array.map float maps.TransportSaliency) ])

      forAll "of two labels, the energy is what the shown pictures cost, and a constant" 60 Generators.key (fun key ->
          let bits = Key.stream key
          let n, lambda = [| 2; 4 |][bits.Below 2], 0.1 + 0.8 * bits.Float()
          let settings = { settingsOf bits with Labels = 2 }
          let batch = batchOf bits 3 3 8
          let energy = Puzzle.energy settings lambda (Puzzle.maps settings n batch) 2 1

          let constants =
              Array.init 12 (fun _ ->
                  let labels = Array.init (n * n) (fun _ -> bits.Below 2)

                  float (MinCut.energy energy labels) / (1000.0 * float (n * n))
                  - shownEnergy batch settings n lambda 2 1 labels)

          // Each of the n^2 unaries and 2 n (n - 1) weights loses less than 1 of 1000 n^2.
          Verdict.require (Array.max constants - Array.min constants < 3.0 / 1000.0) (fun () ->
              $"the constant is not one: %A{constants}"))

      testCase "numbers of a constant picture on 2 x 2 cells" (fun () ->
          // 1000 + 200 prior with P = 1/4, 1/2, 1/4; 4000 beta / 32.
          let batch: PuzzleBatch =
              { Count = 1
                Channels = 3
                Side = 4
                Saliency = Array.create 16 1.0f
                Images = Array.create 48 0.5f }

          let settings = PuzzleSettings.cifar
          let energy = Puzzle.energy settings 0.5 (Puzzle.maps settings 2 batch) 0 0
          Expect.equal energy.Unary (Array.replicate 4 [| 1277; 1138; 1277 |] |> Array.concat) "the unaries"
          Expect.equal energy.Vertical [| 150; 150 |] "the weights down"
          Expect.equal energy.Horizontal [| 150; 150 |] "the weights across")

      testCase "the prior of 2, 3 and 4 labels" (fun () ->
          for x in [ 0.0; 0.25; 0.7; 1.0 ] do
              let y = 1.0 - x

              for probabilities in
                  [ [ x; y ]
                    [ x * x; 2.0 * x * y; y * y ]
                    [ x * x * x; 3.0 * x * x * y; 3.0 * x * y * y; y * y * y ] ] do
                  List.zip probabilities (List.ofArray (Puzzle.prior probabilities.Length x))
                  |> List.iter (fun (p, found) -> expectNear 1e-9 found (-log(p + 1e-8)) $"P = {p}"))

      testCase "weights are not negative, however wild the colours" (fun () ->
          // The own pictures differ by 1 at each edge, the mixed ones do not: beta (1 - gamma).
          let board parity =
              Array.init 16 (fun p -> if (p / 4 + p) % 2 = parity then 1.0f else 0.0f)

          let batch: PuzzleBatch =
              { Count = 2
                Channels = 1
                Side = 4
                Saliency = Array.create 32 1.0f
                Images = Array.append (board 0) (board 1) }

          for gamma, expected in [ 0.5, 600; 1.0, 0; 3.0, 0 ] do
              let settings =
                  { PuzzleSettings.cifar with
                      Beta = 4.8
                      Gamma = gamma }

              let energy = Puzzle.energy settings 0.5 (Puzzle.maps settings 4 batch) 0 1
              Expect.all energy.Vertical (fun weight -> weight = expected) $"16000 4.8 / 64 (1 - {gamma}), or 0"
              Expect.all energy.Horizontal (fun weight -> weight = expected) "across") ]

// ---- the choices ----

/// A batch of one settings, grid and lambda, drawn from a key.
let private drawn (bits: Stream) =
    let settings, n, lambda = settingsOf bits, [| 2; 4; 8 |][bits.Below 3], bits.Float()
    let count = 1 + bits.Below 4
    let batch = batchOf bits count 3 16
    let partner = Array.init count (fun _ -> bits.Below count)
    let maps = Puzzle.maps settings n batch
    settings, lambda, partner, maps, Puzzle.solve settings lambda partner maps

let private part (values: 'v[]) size i = Array.sub values (i * size) size

/// One picture of one brightness and another, with the same saliency everywhere.
let private plain n : PuzzleBatch =
    { Count = 2
      Channels = 3
      Side = 2 * n
      Saliency = Array.create (2 * 4 * n * n) 7.0f
      Images = Array.append (Array.create (12 * n * n) 0.2f) (Array.create (12 * n * n) 0.9f) }

let private choices =
    [ forAll "labels are a cut, and sources its transports" 100 Generators.key (fun key ->
          let settings, lambda, partner, maps, puzzle = drawn (Key.stream key)
          let n, side = maps.Grid, maps.TransportGrid
          let m = settings.Labels - 1

          Verdict.all
              [ Verdict.equal "the sizes" (maps.Count, side, m) (puzzle.Count, puzzle.Grid, puzzle.Steps)
                for i in 0 .. puzzle.Count - 1 do
                    let cut = MinCut.gridLabels (Puzzle.energy settings lambda maps i partner[i])
                    let each values = part values (side * side)

                    let labels =
                        [| for r in 0 .. side - 1 do
                               for q in 0 .. side - 1 -> cut[r / (side / n) * n + q / (side / n)] |]

                    let sources shows sample =
                        Transport.sources
                            side
                            settings.TEps
                            (Array.map shows labels)
                            (each maps.TransportSaliency sample)

                    Verdict.equal "labels" labels (each puzzle.Labels i)
                    Verdict.equal "own sources" (sources (fun l -> l <> m) i) (each puzzle.Own i)
                    Verdict.equal "partner's sources" (sources (fun l -> l <> 0) partner[i]) (each puzzle.Partner i) ])

      forAll "a ratio is a multiple of 1/(m n^2) in [0, 1], and the mean of the mask" 100 Generators.key (fun key ->
          let settings, _, _, maps, puzzle = drawn (Key.stream key)
          let ratios = Puzzle.ratios puzzle
          let units = float ((settings.Labels - 1) * maps.Grid * maps.Grid)

          Verdict.all
              [ Verdict.require
                    (ratios
                     |> Array.forall (fun ratio ->
                         ratio >= 0.0
                         && ratio <= 1.0
                         && abs (ratio * units - round (ratio * units)) < 1e-9))
                    (fun () -> $"%A{ratios} of {units} units")
                Verdict.near "the mask's means" 1e-6 0.0 ratios (Mask.unchanged (Puzzle.mask 16 puzzle)) ])

      forAll "who gives and who takes can change places" 200 Generators.key (fun key ->
          let bits = Key.stream key
          let settings, n = settingsOf bits, [| 2; 4; 8 |][bits.Below 3]
          let maps = Puzzle.maps settings n (batchOf bits 2 3 16)
          // A multiple of a power of 2, so that 1 - lambda is exact.
          let lambda = float (bits.Below 1025) / 1024.0
          let there = Puzzle.energy settings lambda maps 0 1
          let back = Puzzle.energy settings (1.0 - lambda) maps 1 0
          let m = settings.Labels - 1
          let a, b = MinCut.solve there, MinCut.solve back
          let mirrored = b.Labels |> Array.map (fun label -> m - label)

          Verdict.all
              [ Verdict.equal
                    "unaries"
                    (there.Unary |> Array.chunkBySize (m + 1) |> Array.collect Array.rev)
                    back.Unary
                Verdict.equal "vertical weights" there.Vertical back.Vertical
                Verdict.equal "horizontal weights" there.Horizontal back.Horizontal
                Verdict.equal "the least energy" a.Minimum b.Minimum
                // Where several labelings are best, one is the smallest and the other the largest.
                Verdict.equal "the mirrored labels' energy" a.Minimum (MinCut.energy there mirrored)
                Verdict.require (Array.forall2 (<=) a.Labels mirrored) (fun () -> $"%A{a.Labels} above %A{mirrored}") ])

      testCase "and then almost always their labels are the mirrored ones" (fun () ->
          let bits = Key.stream (Key.ofSeed 7)
          let settings = PuzzleSettings.cifar

          let mirrored =
              Seq.init 100 (fun _ ->
                  let maps = Puzzle.maps settings 8 (batchOf bits 2 3 16)

                  let puzzle lambda =
                      Puzzle.solve settings lambda [| 1; 0 |] maps

                  let there, back = part (puzzle 0.375).Labels 64 0, part (puzzle 0.625).Labels 64 1
                  there = Array.map (fun label -> 2 - label) back)
              |> Seq.filter id
              |> Seq.length

          Expect.isGreaterThanOrEqual mirrored 90 "of 100 pairs")

      testCase
          "plain pictures are mixed by half where lambda is a half, kept where it is 1, given up where it is 0"
          (fun () ->
              for n in [ 2; 4; 8; 16 ] do
                  for labels in [ 3; 5 ] do
                      let settings =
                          { PuzzleSettings.cifar with
                              Labels = labels }

                      for lambda in [ 0.0; 0.5; 1.0 ] do
                          let puzzle = Puzzle.draw settings n lambda [| 1; 0 |] (plain n)
                          Expect.equal (Puzzle.ratios puzzle) [| lambda; lambda |] $"n = {n}, {labels} labels"

                          Expect.all
                              puzzle.Labels
                              (fun label -> label = (labels - 1) - int (lambda * float (labels - 1)))
                              "each cell alike"

                          let still = [| 0 .. puzzle.Grid * puzzle.Grid - 1 |]
                          Expect.equal puzzle.Own (Array.append still still) "uniform saliency moves nothing"
                          Expect.equal puzzle.Partner (Array.append still still) "of the partner either")

      testCase "a large batch is drawn as one by one" (fun () ->
          let bits = Key.stream (Key.ofSeed 8)
          let batch = batchOf bits 40 3 32
          let settings = PuzzleSettings.cifar
          let maps = Puzzle.maps settings 16 batch
          let partner = Key.permutation 40 (Key.ofSeed 9)
          let puzzle = Puzzle.solve settings 0.3 partner maps
          Expect.equal (Puzzle.solve settings 0.3 partner maps) puzzle "drawn again"

          for i in 0..39 do
              let energy = Puzzle.energy settings 0.3 maps i partner[i]
              Expect.equal (part puzzle.Labels 256 i) (MinCut.gridLabels energy) $"sample {i}")

      testCase "of a mask, label 0 is the own image and m the partner's" (fun () ->
          let puzzle: Puzzle =
              { Count = 1
                Grid = 2
                Steps = 2
                Labels = [| 0; 1; 2; 2 |]
                Own = [| 0; 1; 2; 3 |]
                Partner = [| 0; 1; 2; 3 |] }

          let expected =
              [ [ 1.0f; 1.0f; 0.5f; 0.5f ]
                [ 1.0f; 1.0f; 0.5f; 0.5f ]
                [ 0.0f; 0.0f; 0.0f; 0.0f ]
                [ 0.0f; 0.0f; 0.0f; 0.0f ] ]

          Expect.equal
              (Puzzle.mask 4 puzzle)
              (Mask.soft 1 (shapeOf 1 4 4) (expected |> List.concat |> Array.ofList))
              "the mask"

          Expect.equal (Puzzle.ratios puzzle) [| 0.375 |] "3 of 8"
          expectRefused [ "2 x 2 cells"; "5 x 5" ] (fun () -> Puzzle.mask 5 puzzle)) ]

// ---- what comes in ----

let private inputs =
    let mean = Array.init 32 float32

    [ testCase "pooling takes the means of squares, plane by plane" (fun () ->
          Expect.equal (Puzzle.pool 4 2 mean) [| 2.5f; 4.5f; 10.5f; 12.5f; 18.5f; 20.5f; 26.5f; 28.5f |] "2 x 2"
          Expect.equal (Puzzle.pool 4 1 mean) [| 7.5f; 23.5f |] "1 x 1"
          Expect.equal (Puzzle.pool 4 4 mean) mean "4 x 4"

          for grid in [ 0; 3; 5; 8 ] do
              expectRefused [ $"{grid} x {grid}"; "4 x 4" ] (fun () -> Puzzle.pool 4 grid mean)

          expectRefused [ "31 values" ] (fun () -> Puzzle.pool 4 2 mean[1..]))

      testCase "saliency is a share, or uniform where there is none or it is no number" (fun () ->
          let plane value = Array.create 16 value

          let withOne value =
              Array.append [| value |] (Array.create 15 1.0f)

          let saliency =
              [ mean[..15]
                plane 0.0f
                withOne nanf
                withOne infinityf
                withOne -100.0f
                plane 1e38f ]

          let first = [| 2.5f; 4.5f; 10.5f; 12.5f |] |> Array.map (fun v -> v / 30.0f)

          Expect.equal
              (Puzzle.saliency 4 2 (Array.concat saliency))
              (Array.append first (Array.create 20 0.25f))
              "each plane for itself"

          let before = Array.create 16 3.0f
          Expect.equal (Puzzle.saliency 4 4 before) (Array.create 16 0.0625f) "nothing to pool"
          Expect.equal before (Array.create 16 3.0f) "what was given stays")

      testCase "sizes that do not divide a cell give way to the largest below that do" (fun () ->
          let patches side n size moving =
              let settings =
                  { PuzzleSettings.cifar with
                      NeighSize = size
                      TSize = moving }

              let maps = Puzzle.maps settings n (batchOf (Key.stream (Key.ofSeed 1)) 1 1 side)
              maps.Patches, maps.TransportGrid

          // The published sizes on CIFAR: transport on 8 x 8, and on 16 x 16 for n = 16.
          for n, expected in [ 2, (4, 8); 4, (2, 8); 8, (1, 8); 16, (1, 16) ] do
              Expect.equal (patches 32 n 4 (Some 4)) expected $"32 by {n}"

          Expect.equal (patches 12 2 4 (Some 4)) (2, 4) "cells of 6, squares of 3"
          Expect.equal (patches 12 2 5 (Some 5)) (2, 4) "the same"
          Expect.equal (patches 12 2 6 None) (1, 2) "cells of 6"
          Expect.equal (patches 14 2 6 (Some 6)) (7, 14) "cells of 7, single pixels"
          Expect.equal (patches 14 2 1000 (Some 1000)) (1, 2) "not above a cell")

      testCase "a batch of one is its own partner" (fun () ->
          let batch = batchOf (Key.stream (Key.ofSeed 2)) 1 3 8
          let puzzle = Puzzle.draw PuzzleSettings.cifar 4 0.5 [| 0 |] batch
          Expect.equal (puzzle.Labels.Length, puzzle.Count) (16, 1) "its labels")

      testCase "what is refused" (fun () ->
          let batch = batchOf (Key.stream (Key.ofSeed 3)) 2 3 8
          let settings = PuzzleSettings.cifar

          let draws batch settings n lambda partner =
              fun () -> Puzzle.draw settings n lambda partner batch

          expectRefused [ "3 x 3 cells"; "8 x 8"; "divisor of 8" ] (draws batch settings 3 0.5 [| 1; 0 |])
          expectRefused [ "1 x 1 cells" ] (draws batch settings 1 0.5 [| 1; 0 |])
          expectRefused [ "lambda is 1.5" ] (draws batch settings 4 1.5 [| 1; 0 |])
          expectRefused [ "lambda is NaN" ] (draws batch settings 4 nan [| 1; 0 |])
          expectRefused [ "2 samples"; "not 1" ] (draws batch settings 4 0.5 [| 0 |])
          expectRefused [ "partner 2"; "0 .. 1" ] (draws batch settings 4 0.5 [| 0; 2 |])
          expectRefused [ "partner -1" ] (draws batch settings 4 0.5 [| 0; -1 |])
          expectRefused [ "0 images" ] (draws { batch with Count = 0 } settings 4 0.5 [||])

          expectRefused
              [ "Saliency of 2 x 1 x 8 x 8"; "not 127" ]
              (draws
                  { batch with
                      Saliency = batch.Saliency[1..] }
                  settings
                  4
                  0.5
                  [| 1; 0 |])

          expectRefused
              [ "Images of 2 x 3 x 8 x 8"; "not 383" ]
              (draws
                  { batch with
                      Images = batch.Images[1..] }
                  settings
                  4
                  0.5
                  [| 1; 0 |])

          for value in [ nanf; infinityf; 1e30f ] do
              let images = Array.copy batch.Images
              images[200] <- value

              expectRefused
                  [ "sample 0 with partner 1"; "finite" ]
                  (draws { batch with Images = images } settings 4 0.5 [| 1; 0 |])

          expectRefused [ "1 labels" ] (fun () -> Puzzle.prior 1 0.5))

      testCase "settings that are refused" (fun () ->
          let s = PuzzleSettings.cifar

          for settings, text in
              [ { s with Alpha = 0.0 }, "Alpha is 0"
                { s with Beta = -1.0 }, "Beta is -1"
                { s with Gamma = nan }, "Gamma is NaN"
                { s with Eta = infinity }, "Eta is Infinity"
                { s with Labels = 1 }, "Labels is 1"
                { s with Labels = 65 }, "Labels is 65"
                { s with Grids = [] }, "Grids is empty"
                { s with Grids = [ 4; 1 ] }, "A side of Grids is 1"
                { s with NeighSize = 0 }, "NeighSize is 0"
                { s with TEps = -0.5 }, "TEps is -0.5"
                { s with TSize = Some 0 }, "TSize is 0" ] do
              expectRefused [ text; "it must be" ] (fun () -> PuzzleSettings.check settings))

      testCase "the published constants" (fun () ->
          let constants (s: PuzzleSettings) =
              [ s.Alpha; s.Beta; s.Gamma; s.Eta; s.TEps ], (s.Labels, s.Grids, s.NeighSize, s.TSize)

          let grids = [ 2; 4; 8; 16 ]

          for settings, beta, neighbourhood, moving in
              [ PuzzleSettings.cifar, 1.2, 4, Some 4
                PuzzleSettings.tinyImageNet, 1.2, 4, None
                PuzzleSettings.imageNet, 1.2, 2, None
                PuzzleSettings.imageNetFast, 1.5, 2, None ] do
              Expect.equal
                  (constants (PuzzleSettings.check settings))
                  ([ 1.0; beta; 0.5; 0.2; 0.8 ], (3, grids, neighbourhood, moving))
                  "the authors' README") ]

let tests =
    testList
        "puzzle"
        [ testList "cuts" cuts
          testList "many cuts" manyCuts
          testList "transports" transports
          testList "energies" energies
          testList "choices" choices
          testList "inputs" inputs ]
