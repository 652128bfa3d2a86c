module PatchUp.Tests.NotationTests

open System
open System.Text
open Expecto
open FsCheck
open FsCheck.FSharp
open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

/// Catalogue entries as one writes them.
let private catalogue =
    [ "none", "identity"
      "mixup", "everywhere |> blend (beta 1 1) |> at input"
      "manifold-mixup", "everywhere |> blend (beta 1.5 1.5) |> atAny [0; 1; 2]"
      "cutmix", "rect (beta 1 1) |> swap |> at input |> sometimes 0.4"
      "feature-cutmix", "rect (beta 1 1) |> swap |> atAny [0; 1; 2]"
      "cutout", "perSample (rect (always 0.25)) |> blank |> at input"
      "dropblock", "perSample (blocks 7 0.1) |> blank |> rescale Batch |> atAll [1; 2; 3; 4]"
      "dropout", "perSample (cells 0.1) |> blank |> rescale Nominal |> atAll [1; 2; 3; 4]"
      "spatial-dropout", "perSample (channels 0.1) |> blank |> rescale Nominal |> atAll [1; 2; 3; 4]"
      "soft-patchup",
      "oneOf [1, rect uniform |> swap |> at input; 2, blocks 7 0.75 |> blend (beta 2 2) |> atAny [1; 2]] |> twoTerm"
      "hard-patchup",
      "oneOf [1, rect uniform |> swap |> at input; 2, blocks 7 0.5 |> swap |> atAny [1; 2]] |> twoTerm |> sometimes 0.7"
      "hard-patchup-2020",
      ("oneOf [1, rect uniform |> swap |> at input; 2, blocks 7 0.5 "
       + "paper |> swap |> atAny [1; 2]] |> twoTerm |> sometimes 0.7") ]

/// Other ways to write, and what they mean.
let private spellings: (string * Regularizer) list =
    [ "blocks 7 0.5", blocks 7 0.5 |> swap |> at input
      "blocks 7 0.5 paper", blocksBy Paper 7 0.5 |> swap |> at input
      "blocks 7 .5 exact", blocks 7 0.5 |> swap
      "BLOCKS 7 5e-1 VALID |> Swap |> AT Input", blocksBy Valid 7 0.5 |> swap
      "  blocks\t7\n0.5  ", blocks 7 0.5 |> swap
      "((everywhere))", everywhere |> swap
      "cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2) |> at input",
      cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2) |> at input
      "cells 0.5 &&& ~~~rect (always 0.3) |> blend (beta 2 2)", cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2)
      "cells 0.1 ||| cells 0.2 &&& cells 0.3", And(Or(cells 0.1, cells 0.2), cells 0.3) |> swap
      "cells 0.1 ||| (cells 0.2 &&& cells 0.3)", Or(cells 0.1, And(cells 0.2, cells 0.3)) |> swap
      "cells 0.5 |> perSample |> blank", perSample (cells 0.5) |> blank
      "rect uniform |> swap |> afterAny [\"layer1\"; \"layer2.0\"]",
      rect uniform |> swap |> afterAny [ "layer1"; "layer2.0" ]
      "rect uniform |> swap |> atAny [input; 2; \"layer2.0\"]",
      rect uniform
      |> swap
      |> Regularizer.map (fun step ->
          { step with
              Site = AnyOf [ Number 0; Number 2; Name "layer2.0" ] })
      "rect uniform |> swap |> at \"layer1\"", rect uniform |> swap |> after "layer1"
      "everywhere |> blendEach uniform |> pairedBy SameClass", everywhere |> blendEach uniform |> pairedBy SameClass
      "everywhere |> swap |> pairedBy (Rolled -2)", everywhere |> swap |> pairedBy (Rolled -2)
      "rect uniform |> swap |> resized", rect uniform |> swap |> resized
      "everywhere |> swap |> terms 0.5 2", everywhere |> swap |> terms 0.5 2
      "everywhere |> swap |> reweighted", everywhere |> swap
      "oneOf [1, everywhere |> swap; 3, identity;]", oneOf [ 1, everywhere |> swap; 3, identity ]
      "over [0, identity; 0.5, cells 0.5 |> swap] |> twoTerm", over [ 0.0, identity; 0.5, cells 0.5 |> swap |> twoTerm ]
      "sequence [everywhere |> blank; cells 0.5 |> swap]", sequence [ everywhere |> blank; cells 0.5 |> swap ]
      "hard-patchup |> at 3", (Catalogue.tryFind "hard-patchup").Value.Regularizer |> at 3
      "cutmix |> sometimes 0.5", (Catalogue.tryFind "cutmix").Value.Regularizer |> sometimes 0.5 ]

/// Bad texts, where they go wrong (from 1), and a word of the reason.
let private faults =
    [ "", 1, "a region"
      "   ", 4, "the end"
      "blcks 7 0.5", 1, "did you mean 'blocks'"
      "hard-patchp", 1, "did you mean 'hard-patchup'"
      "mixpu", 1, "did you mean 'mixup'"
      "blocks", 7, "the block size"
      "blocks 7", 9, "the fraction"
      "blocks 7.5 0.5", 8, "a whole number"
      "blocks 0 0.5", 1, "at least 1"
      "blocks 7 1.5", 1, "[0, 1]"
      "cells 0..5", 7, "not a number"
      "cells 1e999", 7, "not a number"
      "cells -0.1", 1, "[0, 1]"
      "cells 0.5 |> ", 14, "the end"
      "cells 0.5 |> swep", 14, "did you mean 'swap'"
      "cells 0.5 swap", 11, "'swap'"
      "cells 0.5 |> swap |> at", 24, "a site"
      "cells 0.5 |> swap |> at 1.5", 25, "a whole number"
      "cells 0.5 |> swap |> at -1", 25, "from 0"
      "cells 0.5 |> swap |> atAny []", 29, "a site"
      "cells 0.5 |> swap |> after \"", 28, "quotation mark"
      "cells 0.5 |> swap |> after \"\"", 28, "empty"
      "cells 0.5 |> blend (beta 0 1)", 21, "positive"
      "cells 0.5 |> blend (beta 1)", 27, "second parameter"
      "cells 0.5 |> blend 0.5", 20, "a distribution"
      "cells 0.5 |> swap |> rescale Batch", 22, "only blanked"
      "cells 0.5 |> blank |> rescale Bach", 31, "did you mean 'Batch'"
      "cells 0.5 |> swap |> blend uniform", 22, "follows a region"
      "cells 0.5 |> swap &&& everywhere", 19, "'&&&'"
      "(cells 0.5 |> swap) &&& everywhere", 1, "expected a region"
      "cells 0.5 &&& (cells 0.5 |> swap)", 15, "expected a region"
      "~~~", 4, "a region"
      "(cells 0.5", 11, "')'"
      "cells 0.5)", 10, "')'"
      "oneOf [1 cells 0.5]", 10, "','"
      "over [cells 0.5]", 7, "a time of training"
      "over [0.5, none; 0.2, none]", 1, "must not fall"
      "oneOf [cells 0.5]", 8, "a weight"
      "oneOf []", 8, "a weight"
      "oneOf [0, everywhere]", 1, "positive"
      "oneOf [1, everywhere", 21, "';' or ']'"
      "sequence [everywhere |> blend uniform |> twoTerm; everywhere]", 1, "objective"
      "everywhere |> swap |> sometimes 2", 23, "[0, 1]"
      "everywhere |> swap |> sometimes", 32, "a probability"
      "everywhere |> swap |> pairedBy Nobody", 32, "a pairing"
      "everywhere |> swap |> pairedBy (Rolled x)", 40, "how far"
      "everywhere |> swap |> terms 0 0", 23, "not both zero"
      "cells 0.5 é", 11, "no meaning"
      "cells 0.5 # no comments", 11, "no meaning" ]

let private customs =
    [ testCase "customs are read with their arguments" (fun () ->
          let program =
              Generators.stripes 3 &&& ~~~(Generators.fog 0.25) |> blend uniform |> at 2

          let text = Notation.show program
          Expect.equal text "stripes 3 &&& ~~~(fog 0.25) |> blend uniform |> at 2" "the text"
          Expect.equal (Notation.parseWith Generators.vocabulary text) (Ok program) "read back"

          match Notation.parse text with
          | Error e -> Expect.equal e.Position 1 "without the vocabulary the first custom is unknown"
          | Ok _ -> failtest "a custom was read without its vocabulary.")

      testCase "what a custom objects to is said at its name" (fun () ->
          match Notation.parseWith Generators.vocabulary "everywhere &&& fog 0.1 0.2" with
          | Error e ->
              Expect.equal e.Position 16 "the position"
              Expect.stringContains e.Message "fog takes one number" "the reason"
          | Ok _ -> failtest "two arguments were accepted.") ]

// ---- junk ----

/// Printable noise, and the words and symbols of the notation in any order.
let private noise: Gen<string> =
    let words =
        (Notation.show (Catalogue.tryFind "hard-patchup").Value.Regularizer).Split ' '
        |> List.ofArray

    Gen.oneof
        [ Gen.listOf (Gen.choose (0, 0xFFFF) |> Gen.map char)
          |> Gen.map (fun chars -> String(Array.ofList chars))
          Gen.listOf (Gen.choose (32, 126) |> Gen.map char)
          |> Gen.map (fun chars -> String(Array.ofList chars))
          Gen.listOf (Gen.elements words)
          |> Gen.map (fun words -> String.Join(' ', words)) ]

let private extremes =
    let repeated (piece: string) times =
        (StringBuilder()).Insert(0, piece, times).ToString()

    [ for piece in
          [ "("
            "["
            "~~~"
            "~~~("
            "oneOf [1, "
            "sequence ["
            "perSample ("
            "cells 0.5 &&& "
            "cells 0.5 |> "
            "|>"
            "\""
            "a"
            "-"
            "9"
            "1e"
            " "
            "é" ] do
          for times in [ 1; 100; 201; 1000; 30000 ] do
              repeated piece times
              "everywhere |> swap |> " + repeated piece times
              "rect " + repeated piece times ]

let private expectHandled (text: string) =
    match Catalogue.parse text with
    | Ok _ -> ()
    | Error e ->
        Expect.isGreaterThan e.Position 0 "the position"
        Expect.isLessThanOrEqual e.Position (text.Length + 1) "the position"
        Expect.isNotEmpty e.Message "the message"

let tests =
    testList
        "notation"
        [ testList
              "the catalogue prints as one writes it"
              [ for name, text in catalogue ->
                    testCase name (fun () ->
                        let method' = (Catalogue.tryFind name).Value
                        Expect.equal (Notation.show method'.Regularizer) text "the text"
                        Expect.equal (Catalogue.parse text) (Ok method'.Regularizer) "read back"
                        Expect.equal (Catalogue.parse name) (Ok method'.Regularizer) "read by its name") ]

          testCase "every entry of the catalogue is read back" (fun () ->
              for method' in Catalogue.all do
                  Expect.equal
                      (Catalogue.parse (Notation.show method'.Regularizer))
                      (Ok method'.Regularizer)
                      method'.Name)

          testList
              "spellings"
              [ for text, meaning in spellings ->
                    testCase (text.Trim()) (fun () -> Expect.equal (Catalogue.parse text) (Ok meaning) "the value") ]

          testList
              "faults are placed"
              [ for text, position, reason in faults ->
                    testCase $"'{text}'" (fun () ->
                        match Catalogue.parse text with
                        | Ok read -> failtest $"it was read as {Notation.show read}."
                        | Error e ->
                            Expect.equal e.Position position $"the position of: {e.Message}"
                            Expect.stringContains e.Message reason "the reason") ]

          testList "customs" customs

          forAll "regularizers are read back" 3000 Generators.regularizer (fun regularizer ->
              Verdict.require
                  (Notation.parseWith Generators.vocabulary (Notation.show regularizer) = Ok regularizer)
                  (fun () -> Notation.show regularizer))

          property
              "noise never raises"
              2000
              (Law.forAll (Arb.fromGen noise) (fun text ->
                  expectHandled text
                  Verdict.Kept))

          testCase "very long and deeply nested texts never raise" (fun () -> List.iter expectHandled extremes) ]
