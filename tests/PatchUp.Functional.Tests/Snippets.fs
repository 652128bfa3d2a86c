/// The F# examples of the README and the docs: compiled here, shown there (see Docs.fs).
module PatchUp.Tests.Snippets

open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws
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
/// Trains any model for some steps on one batch, mixing at the outputs of these submodules; the loss of every step.
let train (model: torch.nn.Module<_, _>) sites regularizer (images: torch.Tensor) (labels: int[]) classes steps =
    let network = model |> Hooks.attach sites

    let info =
        { BatchInfo.create labels.Length (Hooks.shapes network images) with
            Labels = Some labels }

    let optimizer = torch.optim.SGD(model.parameters (), 0.1, momentum = 0.9)

    [ for step in 1..steps ->
          Scope.value (fun () ->
              let plan = Plan.draw (Key.ofSeed 0 |> Key.child step) info regularizer
              let batch = Batch.create images (Targets.ofIndices images.device classes labels)
              let output = Hooks.forward plan network batch
              let loss = Loss.ofBatch CrossEntropy output.Targets output.Features
              optimizer.zero_grad ()
              loss.backward ()
              optimizer.step () |> ignore
              loss.item<float32>()) ]
// end snippet

// snippet: sites
/// Every site of a model with the shape of its features, such as `layer1.0.conv2: 64x32x32`.
let listSites (model: torch.nn.Module<_, _>) (images: torch.Tensor) =
    [ for name, shape in Hooks.sites model images -> $"{name}: {shape}" ]
// end snippet

// snippet: stages
/// A network written as stages: site 1 is "conv", site 2 is "head".
let stagedNetwork (conv: torch.nn.Module<_, _>) (head: torch.nn.Module<_, _>) =
    { Module = torch.nn.ModuleList<torch.nn.Module<torch.Tensor, torch.Tensor>>(conv, head)
      Stages = [ "conv", conv.call; "head", (fun x -> head.call (x.mean [| 2L; 3L |])) ] }

let stagedForward plan (network: Staged) batch = Attach.forward plan network batch
// end snippet

// snippet: microBatches
/// One optimizer step on a batch that is run in parts, as where memory is short; its mean loss.
let accumulatedStep network (optimizer: torch.optim.Optimizer) (info: BatchInfo) key regularizer (whole: Batch) part =
    optimizer.zero_grad ()

    let losses =
        [ for offset in 0..part .. info.Count - 1 ->
              Scope.value (fun () ->
                  let count = min part (info.Count - offset)
                  let plan = Plan.draw key (BatchInfo.part offset count info) regularizer

                  let rows (tensor: torch.Tensor) =
                      tensor.narrow (0L, int64 offset, int64 count)

                  let batch =
                      Batch.create (rows whole.Features) (Targets.ofSoft (rows whole.Targets.Soft))

                  let output = Hooks.forward plan network batch

                  let share =
                      Loss.ofBatch CrossEntropy output.Targets output.Features
                      * torch.tensor (float32 count / float32 info.Count)

                  share.backward ()
                  float (share.item<float32>())) ]

    optimizer.step () |> ignore
    List.sum losses
// end snippet

// snippet: ranks
/// What rank `rank` of several knows of its share of a batch that begins at sample `first` of the epoch.
let ofRank shapes rank perRank first (labels: int[]) =
    { BatchInfo.create perRank shapes with
        First = first
        Offset = rank * perRank
        Labels = Some labels }
// end snippet

// snippet: segmentation
/// Images `[N,C,H,W]` and their pixels' classes `[N,H,W]`, mixed by one plan.
let mixSegmentation key images (classes: torch.Tensor) =
    let info = BatchInfo.ofShape (int classes.shape[0]) (Batch.shapeOf images)

    let plan = rect uniform |> swap |> at input |> Plan.draw key info
    Plan.applyFeatures plan images, Plan.applyMaps plan classes
// end snippet

// snippet: multiLabel
/// Binary cross-entropy on each class's logit: for rows of targets that need not sum to 1.
let eachClass =
    CustomLoss
        { Name = "bce-with-logits"
          IsAffine = true
          PerSample =
            fun logits targets ->
                torch.nn.functional
                    .binary_cross_entropy_with_logits(logits, targets, reduction = torch.nn.Reduction.None)
                    .mean([| 1L |]) }
// end snippet

// snippet: following
/// What a draw may know of a batch, with what regions ask for that follow the input; `normalise` makes the batch's features of `images`.
let following model normalise (images: torch.Tensor) (batch: Batch) (info: BatchInfo) =
    info
    |> Saliency.follow (Saliency.gradient CrossEntropy model) normalise images batch
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

// snippet: check
/// Every law with its verdict, and a small counterexample where one is broken.
let report = Laws.check polka

/// The same at the size of one's own features, in one type.
let reportAtSize () =
    Laws.checkWith
        { Laws.defaults with
            Shapes = [ { Channels = 64; Height = 8; Width = 8 } ]
            Precisions = [ Precision.BFloat16 ] }
        polka
// end snippet

// snippet: wrongRegion
/// Wrong: a square of half the map's area around any place. At the border it is cut off, so that less than half of the
/// map is altered, and the corners least of all.
let hole =
    custom
        { Name = "hole"
          Arguments = []
          IsSoft = false
          Expected = fun shape -> Array2D.create shape.Height shape.Width 0.5
          Draw =
            fun context ->
                let bits = Key.stream context.Key
                let shape = context.Shape
                let y, x = bits.Below shape.Height, bits.Below shape.Width

                let isNear axis centre i =
                    float (abs (i - centre)) <= float axis * sqrt 0.5 / 2.0

                Mask.hard
                    1
                    shape
                    [| for _ in 1 .. shape.Channels do
                           for row in 0 .. shape.Height - 1 do
                               for column in 0 .. shape.Width - 1 ->
                                   not (isNear shape.Height y row && isNear shape.Width x column) |] }
// end snippet

// snippet: wrongLoss
/// Wrong: takes the heaviest class of a soft target for its only one, and says that it is affine in the target.
let heaviest =
    CustomLoss
        { Name = "heaviest"
          IsAffine = true
          PerSample =
            fun logits targets ->
                let logs = torch.nn.functional.log_softmax (logits, 1L)
                logs.gather(1L, targets.argmax (1L, keepdim = true)).squeeze(1L).neg() }
// end snippet

// snippet: wrongMix
/// Wrong: mixes labels by the share that was asked for, half, and not by the share that was drawn.
let halfAndHalf (plan: Plan) (batch: Batch) =
    Batch.scope (fun () ->
        let mixed = Plan.apply plan batch

        match plan.Draws, mixed.Targets.Mixed with
        | [ _ ], Some parts ->
            { mixed with
                Targets =
                    { Soft = torch.lerp (parts.Own, parts.Altered, Scope.number 0.5)
                      Mixed =
                        Some
                            { parts with
                                Unchanged = Array.create plan.Count 0.5 } } }
        | _ -> mixed)
// end snippet

/// What the checker says of the wrong ones, for the docs: broken laws only.
let private complaints (report: Report) =
    [ for law, outcome in report.Outcomes do
          match outcome with
          | Outcome.Failed _ -> Law.show report.Options law outcome
          | Outcome.Passed _ -> ()
      report.Summary ]
    |> String.concat "\n"

/// The reports on the wrong region, the wrong loss and the wrong mix.
let wrong =
    Map
        [ "wrongRegion",
          lazy
              (Laws.checkWith
                  { Laws.defaults with
                      Shapes = [ { Channels = 4; Height = 8; Width = 8 } ] }
                  (hole |> swap |> at input))
          "wrongLoss", lazy (Laws.checkLoss heaviest)
          "wrongMix",
          lazy (Laws.checkOn Laws.defaults (Subject.mixing halfAndHalf) (rect (always 0.5) |> swap |> at input)) ]

/// What the docs show as output.
let outputs = wrong |> Map.map (fun _ report -> lazy (complaints report.Value))
