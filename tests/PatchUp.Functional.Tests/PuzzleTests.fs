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

let tests = testList "puzzle" [ testList "cuts" cuts ]
