module PatchUp.Tests.DocsTests

open System.IO
open System.Text.RegularExpressions
open Expecto
open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws
open PatchUp.Tests.LawTests
open TorchSharp

/// The weights of a linear network after some steps of SGD with Nesterov's momentum on mixed batches.
let private trained objective learningRate weightDecay : float[] =
    Scope.value (fun () ->
        let bits = Key.stream (Key.ofSeed 5)

        let normals (size: int64[]) =
            torch.tensor (Array.init (int (Array.reduce (*) size)) (fun _ -> bits.Normal()), System.ReadOnlySpan size)

        let shape: Shape = { Channels = 2; Height = 4; Width = 4 }
        let images = normals [| 6L; 2L; 4L; 4L |]
        let weights = torch.nn.Parameter(normals [| 32L; 3L |])
        let program = blocks 2 0.5 |> blend (beta 2 2) |> at input |> objective

        let optimizer =
            torch.optim.SGD([ weights ], learningRate, momentum = 0.9, weight_decay = weightDecay, nesterov = true)

        for step in 1..10 do
            let plan =
                Plan.draw (Key.child step (Key.ofSeed 6)) (BatchInfo.ofShape 6 shape) program

            let labels = [| 0; 1; 2; 0; 1; 2 |]

            let mixed =
                Plan.apply plan (Batch.create images (Targets.ofIndices torch.CPU 3 labels))

            let loss =
                Loss.ofBatch BceOnSoftmax mixed.Targets (mixed.Features.flatten(1L).mm weights)

            optimizer.zero_grad ()
            loss.backward ()
            optimizer.step () |> ignore

        Read.values weights)

/// A small model with weights of its own.
let private smallModel () : torch.nn.Module<torch.Tensor, torch.Tensor> =
    let model =
        torch.nn.Sequential(
            struct ("conv", torch.nn.Conv2d(3L, 4L, 3L, padding = 1L) :> torch.nn.Module<_, _>),
            struct ("pool", torch.nn.AdaptiveAvgPool2d(1L) :> torch.nn.Module<_, _>),
            struct ("flat", torch.nn.Flatten() :> torch.nn.Module<_, _>),
            struct ("head", torch.nn.Linear(4L, 3L) :> torch.nn.Module<_, _>)
        )

    use generator = new torch.Generator(7UL)
    use _ = torch.no_grad ()

    for parameter in model.parameters () do
        parameter.uniform_ (-0.3, 0.3, generator) |> ignore

    model

let private noise () =
    use generator = new torch.Generator(8UL)
    torch.rand ([| 6L; 3L; 8L; 8L |], generator = generator)

let private labels = [| 0; 1; 2; 0; 1; 2 |]

let tests =
    testList
        "docs"
        [ for path in Docs.documents do
              test $"the code in {Path.GetFileName path} is the code that is compiled, and what commands print" {
                  let text = File.ReadAllText path
                  Expect.equal text (Docs.render path text) "stale; 'dotnet fsi build.fsx docs' rewrites it"
              }

          for path, lines in Api.listings do
              test $"{path} lists what the package makes public" {
                  let listed = List.ofArray (File.ReadAllLines(Path.Combine(Docs.root, path)))
                  let current = lines ()

                  if listed <> current then
                      let difference =
                          [ for line in List.except current listed -> $"- {line}"
                            for line in List.except listed current -> $"+ {line}" ]
                          |> String.concat "\n"

                      failtest
                          $"stale; 'dotnet fsi build.fsx docs' rewrites it, and the change then shows in review\n{difference}"
              }

          test "docs/install.md names the version of the changelog" {
              let newest =
                  Regex
                      .Match(File.ReadAllText(Path.Combine(Docs.root, "CHANGELOG.md")), @"(?m)^## \[([\d.]+)\]")
                      .Groups[1].Value

              let named =
                  [ for found in
                        Regex.Matches(
                            File.ReadAllText(Path.Combine(Docs.root, "docs", "install.md")),
                            @"PatchUp\.Functional[.\w]*(?:@|, )(\d+\.\d+\.\d+)"
                        ) -> found.Groups[1].Value ]

              Expect.equal named [ newest; newest ] "a program in one file, and a script"
          }

          test "the gallery shows every method but its flavours, as the docs do" {
              ReproTests.inFolder (fun folder ->
                  let out = Path.Combine(folder, "gallery.png")
                  let printed, _ = ReproTests.succeed [ "gallery"; "--out"; out ]

                  let methods =
                      Catalogue.all
                      |> List.filter (fun method' ->
                          not (method'.Name.Contains "2020" || method'.Name.StartsWith "puzzlemix-"))

                  Expect.stringContains printed $"{methods.Length} methods" "what it prints"

                  // Width and height stand in a PNG's bytes 16 to 23.
                  let size path = (File.ReadAllBytes path)[16..23]

                  Expect.equal
                      (size out)
                      (size (Path.Combine(Docs.root, "docs", "gallery.png")))
                      "the docs' picture has as many rows")
          }

          test "the words of docs/algebra.md are those of the notation" {
              let rows =
                  File.ReadAllLines(Path.Combine(Docs.root, "docs", "algebra.md"))
                  |> Array.filter _.StartsWith("| `")
                  |> Array.map (fun row -> row.Replace(@"\|", "|"))

              let shown = String.concat " " rows

              for method' in Catalogue.all do
                  for word in (Notation.show method'.Regularizer).Split(' ', '(', ')', '[', ']', ',', ';') do
                      if word <> "" && System.Char.IsLetter word[0] then
                          Expect.stringContains shown word $"{word} of {method'.Name} is explained"
          }

          test "the first example is Hard PatchUp's line in the catalogue" {
              Expect.equal Snippets.hardPatchUp (Catalogue.hardPatchUp Exact) "the same value"
              Expect.equal (Notation.parse (Notation.show Snippets.polka)) (Ok Snippets.polka) "a line of notation"
          }

          test "the wrong region, loss and mix of the docs each break the law that is meant for them" {
              for name, laws in
                  [ "wrongRegion", [ MaskLaws.expectedIsRealised.Name ]
                    "wrongLoss", [ LossLaws.affine.Name ]
                    "wrongMix", [ LabelLaws.followFeatures.Name; LabelLaws.equations78.Name ] ] do
                  let broken = Snippets.wrong[name].Value.Broken |> List.map _.Name
                  Expect.containsAll broken laws $"{name}'s broken laws"
          }

          test "what is printed of a counterexample draws the same plan again" {
              for law, outcome in Snippets.wrong["wrongMix"].Value.Outcomes do
                  match outcome with
                  | Outcome.Passed _ -> ()
                  | Outcome.Failed counterexample ->
                      match Notation.parse counterexample.Program.Value with
                      | Error error -> failtest $"{error}"
                      | Ok program ->
                          let info = BatchInfo.ofShape 2 { Channels = 1; Height = 1; Width = 1 }
                          let plan = Plan.draw counterexample.Key.Value info program
                          use rows = torch.eye 2L
                          use features = rows.reshape (2L, 2L, 1L, 1L)
                          let batch = Batch.create features (Targets.ofSoft rows)

                          Expect.notEqual
                              (Read.values (Snippets.halfAndHalf plan batch).Targets.Soft)
                              (Read.values (Plan.apply plan batch).Targets.Soft)
                              $"{law.Name}: the labels differ"
          }

          test "two terms take the steps of one at twice the learning rate and half the weight decay" {
              let two = trained twoTerm 0.1 0.02
              let one = trained second 0.2 0.01

              match Verdict.near "the weights" 1e-6 1e-7 one two with
              | Verdict.Broken reason -> failtest reason
              | _ -> ()

              let same = trained second 0.1 0.02
              let gap = Array.map2 (fun (a: float) b -> abs (a - b)) same two |> Array.max
              Expect.isGreaterThan gap 0.1 "and not those at the same rate"
          }

          test "shared regions, and customs of one pattern for all channels, keep every law" {
              expectKept (Laws.check (shared (cells 0.5) |> swap))
              expectKept (Laws.check (Snippets.chess 2 |> swap))
          }

          test "the variant of the docs keeps every law" {
              expectKept Snippets.report
              expectKept (Snippets.reportAtSize ())
          }

          test "the training example trains, the same way twice" {
              let losses () =
                  let model = smallModel ()
                  Snippets.train model [ "conv" ] (blocks 3 0.5 |> swap |> atAny [ 0; 1 ]) (noise ()) labels 3 4

              let first = losses ()
              Expect.all first System.Single.IsFinite "finite losses"
              Expect.isTrue (first[3] < first[0]) "it learns"
              Expect.equal (losses ()) first "everything follows from the key"
          }

          test "the sites of the docs' model are listed" {
              Expect.equal
                  (Snippets.listSites (smallModel ()) (noise ()))
                  [ "input: 3x8x8"; "conv: 4x8x8"; "pool: 4x1x1"; "flat: 4x1x1"; "head: 3x1x1" ]
                  "sites"
          }

          test "the staged example is the same network" {
              let model = smallModel ()

              let part (index: int) =
                  (Seq.item index (model.children ())) :?> torch.nn.Module<torch.Tensor, torch.Tensor>

              let staged = Snippets.stagedNetwork (part 0) (part 3)
              let batch = Batch.create (noise ()) (Targets.ofIndices torch.CPU 3 labels)
              let program = blocks 3 0.5 |> swap |> after "conv"
              let info = BatchInfo.create 6 (Attach.shapes staged batch.Features)
              let plan = Plan.draw (Key.ofSeed 1) info program
              let found = Snippets.stagedForward plan staged batch
              let expected = Hooks.forward plan (model |> Hooks.attach []) batch

              match
                  Verdict.near "the logits" 1e-6 1e-6 (Read.values expected.Features) (Read.values found.Features)
              with
              | Verdict.Broken reason -> failtest reason
              | _ -> ()
          }

          test "without mixing, a step in parts is the step on the whole" {
              let weights part =
                  let model = smallModel ()
                  let network = model |> Hooks.attach [ "conv" ]
                  let batch = Batch.create (noise ()) (Targets.ofIndices torch.CPU 3 labels)
                  let info = BatchInfo.create 6 (Hooks.shapes network batch.Features)
                  use optimizer = torch.optim.SGD(model.parameters (), 0.1)

                  let loss =
                      Snippets.accumulatedStep network optimizer info (Key.ofSeed 1) identity batch part

                  [| loss
                     for weight in model.parameters () do
                         yield! Read.values weight |]

              match Verdict.near "the loss and the weights" 1e-5 1e-6 (weights 6) (weights 4) with
              | Verdict.Broken reason -> failtest reason
              | _ -> ()
          }

          test "a rank draws its share of the whole batch" {
              let shape: Shape = { Channels = 2; Height = 4; Width = 4 }
              let program = perSample (rect uniform) |> swap |> atAny [ 0; 1 ]
              let key = Key.ofSeed 9

              let whole =
                  Plan.draw
                      key
                      { BatchInfo.ofShape 6 shape with
                          First = 60 }
                      program

              let share =
                  Plan.draw key (Snippets.ofRank (fun _ -> Some shape) 1 3 60 [| 0; 1; 2 |]) program

              Expect.equal share.Draws.Head.Place whole.Draws.Head.Place "the site"
              Expect.equal share.Draws.Head.OwnShare whole.Draws.Head.OwnShare[3..] "the masks"
          }

          test "the segmentation example mixes classes with their images" {
              let classes = torch.arange(4L).reshape(4L, 1L, 1L).expand(4L, 8L, 8L).contiguous()
              let images = classes.unsqueeze(1L).``to``(torch.float32)
              let mixed, labels = Snippets.mixSegmentation (Key.ofSeed 2) images classes
              Expect.notEqual (Read.values labels) (Read.values classes) "they are mixed"
              Expect.equal (Read.values mixed) (Read.values labels) "by the same mask and partners"
          }

          test "PuzzleMix follows a model's saliency, and draws the same twice" {
              let model, images = smallModel (), noise ()
              let batch = Batch.create images (Targets.ofIndices torch.CPU 3 labels)

              let plan () =
                  let info = BatchInfo.create 6 (Hooks.shapes (model |> Hooks.attach []) images)

                  Catalogue.puzzleMix PuzzleSettings.cifar
                  |> Plan.draw (Key.ofSeed 3) (Snippets.following model id images batch info)

              let first = plan ()
              Expect.isSome first.Draws.Head.Mask.Sources "cells move"
              Expect.equal (plan ()) first "a managed value"
          }

          test "the multi-label loss keeps the laws" { expectKept (Laws.checkLoss Snippets.eachClass) }

          test "the custom region draws half of the map, and is read by name" {
              let shape: Shape = { Channels = 2; Height = 8; Width = 8 }

              let info = BatchInfo.ofShape 4 shape

              match Snippets.parse "chess 4 |> swap |> at 1" with
              | Error error -> failtest (string error)
              | Ok regularizer ->
                  Expect.equal regularizer (Snippets.chess 4 |> swap |> at 1) "equal by name and arguments"
                  let drawn = (Plan.draw (Key.ofSeed 1) info regularizer).Draws.Head
                  Expect.equal (Mask.unchanged drawn.Mask) [| 0.5 |] "half of the map"
          } ]
