module PatchUp.Tests.DocsTests

open System.IO
open Expecto
open PatchUp.Functional
open PatchUp.Functional.Words
open TorchSharp

let tests =
    testList
        "docs"
        [ for path in Docs.documents do
              test $"the code in {Path.GetFileName path} is the code that is compiled, and what commands print" {
                  let text = File.ReadAllText path
                  Expect.equal text (Docs.render text) "run the test program with --update-docs"
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

          test "the training example trains, the same way twice" {
              let losses () =
                  let conv = torch.nn.Conv2d(3L, 4L, 3L, padding = 1L)
                  let head = torch.nn.Linear(4L, 3L)
                  use generator = new torch.Generator(7UL)

                  for parameter in Seq.append (conv.parameters ()) (head.parameters ()) do
                      use _ = torch.no_grad ()
                      parameter.uniform_ (-0.3, 0.3, generator) |> ignore

                  let network =
                      { Module = torch.nn.Sequential(conv, head)
                        Stages = [ "conv", conv.call; "head", (fun x -> head.call (x.mean ([| 2L; 3L |]))) ] }

                  use images = torch.rand ([| 6L; 3L; 8L; 8L |], generator = generator)
                  Snippets.train network (blocks 3 0.5 |> swap |> atAny [ 0; 1 ]) images [| 0; 1; 2; 0; 1; 2 |] 3 4

              let first = losses ()
              Expect.all first System.Single.IsFinite "finite losses"
              Expect.equal (losses ()) first "everything follows from the key"
          }

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
