/// The F# examples of the README and the docs: compiled here, shown there (see Docs.fs).
module PatchUp.Tests.Snippets

open PatchUp.Functional
open PatchUp.Functional.Words
open TorchSharp

// snippet: variant
/// Mixes half of the pixels outside a rectangle: a variant that nobody has published.
let polka = cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2) |> at input

/// Hard PatchUp: one swapped rectangle at the input, or swapped blocks after one of the first two stages.
let hardPatchUp =
    oneOf
        [ 1, rect uniform |> swap |> at input
          2, blocks 7 0.5 |> swap |> atAny [ 1; 2 ] ]
    |> twoTerm
    |> sometimes 0.7
// end snippet

// snippet: training
/// Trains a network, given as named stages, for some steps on one batch; the loss of every step.
let train (network: Staged) regularizer (images: torch.Tensor) (labels: int[]) classes steps =
    let info =
        { BatchInfo.create labels.Length (Attach.shapes network images) with
            Labels = Some labels }

    let optimizer = torch.optim.SGD(network.Module.parameters (), 0.1, momentum = 0.9)

    [ for step in 1..steps ->
          Scope.value (fun () ->
              let plan = Plan.draw (Key.ofSeed 0 |> Key.child step) info regularizer
              let batch = Batch.create images (Targets.ofIndices images.device classes labels)
              let output = Attach.forward plan network batch
              let loss = Loss.ofBatch CrossEntropy output.Targets output.Features
              optimizer.zero_grad ()
              loss.backward ()
              optimizer.step () |> ignore
              loss.item<float32>()) ]
// end snippet

// snippet: custom
/// The black squares of a chessboard, or the white ones.
let chess (side: int) =
    let isBlack (shape: Shape) i =
        (i / shape.Width % shape.Height / side + i % shape.Width / side) % 2 = 0

    custom
        { Name = "chess"
          Arguments = [ float side ]
          IsSoft = false
          Expected = fun shape -> Array2D.create shape.Height shape.Width 0.5
          Draw =
            fun context ->
                let shape = context.Shape
                let alterBlack = (Key.stream context.Key).Below 2 = 0

                Array.init (shape.Channels * shape.Height * shape.Width) (fun i -> isBlack shape i <> alterBlack)
                |> Mask.hard 1 shape }

/// Reads "chess 4 |> swap |> at 1" and the like.
let parse =
    Notation.parseWith
        { Catalogue.vocabulary with
            Customs = Map [ "chess", (fun arguments -> chess (int (List.exactlyOne arguments))) ] }
// end snippet
