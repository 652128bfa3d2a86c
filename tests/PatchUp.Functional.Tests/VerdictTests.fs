/// The verbs that judge: `patchup laws` and `patchup verify`.
module PatchUp.Tests.VerdictTests

open System.IO
open System.Text.Json
open System.Text.Json.Nodes
open Expecto
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures
open PatchUp.Tests.ReproTests

// ---- verify ----

/// The golden file with a change, written to a folder; exit code, standard output and standard error of verifying it.
let private verifying (change: JsonObject -> unit) : int * string * string =
    inFolder (fun folder ->
        let path = Path.Combine(folder, "golden.json")
        let json = JsonNode.Parse(embedded "operations.json").AsObject()
        change json
        File.WriteAllText(path, json.ToJsonString())
        patchup [ "verify"; path ])

let private cases (json: JsonObject) = json["cases"].AsArray()

/// The first case of a kind, and its number in the file.
let private first (kind: string) (json: JsonObject) =
    cases json
    |> Seq.indexed
    |> Seq.pick (fun (i, case) ->
        if case["kind"].GetValue<string>() = kind then
            Some(i + 1, case.AsObject())
        else
            None)

/// What each kind expects.
let private expectations =
    [ "patchup",
      [ "gamma_adjusted"
        "hidden"
        "target_a"
        "target_b"
        "target_reweighted"
        "unchanged"
        "loss_first"
        "loss_second" ]
      "cutmix", [ "hidden"; "labels_b"; "unchanged" ]
      "cutout", [ "hidden" ]
      "dropblock", [ "gamma_adjusted"; "hidden" ]
      "mixup", [ "hidden"; "target_reweighted" ] ]

/// Moves the last number of a field.
let private moved (by: float) (case: JsonObject) (field: string) =
    let shift (node: JsonNode) =
        JsonValue.Create(node.GetValue<float>() + by)

    match case[field] with
    | :? JsonObject as table ->
        let data = table["data"].AsArray()
        data[data.Count - 1] <- shift data[data.Count - 1]
    | :? JsonArray as list -> list[list.Count - 1] <- shift list[list.Count - 1]
    | number -> case[field] <- shift number

let private part (name: string) (node: JsonNode) : JsonNode = node[name]

let private removeFirst (list: JsonNode) = list.AsArray().RemoveAt 0

let private verify =
    [ testCase "the authors' operations agree, all of them" (fun () ->
          let code, out, err = verifying ignore
          Expect.equal code 0 err
          Expect.stringStarts out "24 of 24 agree; the largest deviation is " "the verdict")

      for kind, fields in expectations do
          for field in fields do
              testCase $"another {field} of a {kind} case is named, and exits with 1" (fun () ->
                  let mutable number = 0

                  let code, out, err =
                      verifying (fun json ->
                          let n, case = first kind json
                          number <- n
                          moved 1.0 case field)

                  Expect.equal code 1 "the exit code"
                  Expect.stringStarts out $"case {number} ({kind}): {field} is " "the disagreement"
                  Expect.stringContains out "23 of 24 agree; the largest deviation is " "the verdict"
                  Expect.stringContains err "1 of 24 cases" "the error")

      testCase "a deviation of 3e-6 disagrees, one of 1e-7 agrees" (fun () ->
          for by, code in [ 3e-6, 1; 1e-7, 0 ] do
              let found, _, _ =
                  verifying (fun json -> moved by (snd (first "mixup" json)) "target_reweighted")

              Expect.equal found code $"{by}")

      testCase "what cannot be read is named with its file and case, and exits with 2" (fun () ->
          let change kind (apply: JsonObject -> unit) (json: JsonObject) = apply (snd (first kind json))

          for change, texts in
              [ change "mixup" (fun case -> case["kind"] <- "polka"), [ "'polka' is unknown"; "patchup, cutmix" ]
                change "mixup" (fun case -> case.Remove "lam" |> ignore), [ "'lam' is missing" ]
                change "mixup" (fun case -> case["lam"] <- 1.5), [ "'lam' is 1.5"; "[0, 1]" ]
                change "mixup" (fun case -> case["lam"] <- "half"), [ "'lam' must hold numbers" ]
                change "mixup" (fun case -> case["permutation"][0] <- 99), [ "'permutation'"; "0 .. " ]
                change "mixup" (fun case -> case["labels"][0] <- 99), [ "label 99" ]
                change "mixup" (fun case -> case["labels"] |> removeFirst), [ "do not go with targets" ]
                change "mixup" (fun case -> case["classes"] <- 1e300), [ "'classes'"; "no finite number" ]
                change "mixup" (fun case -> case["classes"] <- 1.5), [ "'classes'"; "no whole number" ]
                change "mixup" (fun case -> case["classes"] <- 2000000000), [ "'classes' is 2000000000"; "100000" ]
                change "mixup" (fun case -> case["classes"] <- 0), [ "'classes' is 0"; "1 .. " ]
                change "mixup" (fun case -> (part "shape" case["x"]).[0] <- 1000000000), [ "'x' has the shape" ]
                change "mixup" (fun case -> case["x"] <- 3), [ "'x' must be a tensor" ]
                change "mixup" (fun case -> case["hidden"] |> part "data" |> removeFirst), [ "'hidden' has the shape" ]
                change "patchup" (fun case -> case["mode"] <- "medium"), [ "'medium' is unknown"; "hard and soft" ]
                change "patchup" (fun case -> case["seeds"] |> part "shape" |> removeFirst),
                [ "'seeds' has the shape" ]
                change "patchup" (fun case -> case["loss"] <- "mse"), [ "'mse' is unknown" ]
                change "patchup" (fun case -> case["block_size"] <- 0), [ "block size is 0" ]
                change "patchup" (fun case -> case["seeds"] <- case["logits"].DeepClone()), [ "'seeds'" ]
                (fun json -> (cases json).Clear()), [ "no list of 'cases'" ]
                (fun json -> (cases json)[0] <- 7), [ "case 1"; "must be an object" ] ] do
              let code, out, err = verifying change
              Expect.equal code 2 err
              Expect.equal out "" "nothing on standard output"

              for text in "golden.json" :: texts do
                  Expect.stringContains err text "the error")

      testCase "a text that is no Unicode is named" (fun () ->
          inFolder (fun folder ->
              let path = Path.Combine(folder, "golden.json")
              File.WriteAllText(path, """{ "cases": [ { "kind": "\ud800" } ] }""")
              let code, _, err = patchup [ "verify"; path ]
              Expect.equal code 2 err
              Expect.stringContains err "case 1: 'kind' must be a text in UTF-8" "the error"))

      testCase "a file that is no JSON, or is not there" (fun () ->
          inFolder (fun folder ->
              let path = Path.Combine(folder, "bad.json")
              File.WriteAllText(path, "{ \"cases\": [")

              for path, text in [ path, "no JSON"; path + "x", "no such file"; folder, "a folder" ] do
                  let code, _, err = patchup [ "verify"; path ]
                  Expect.equal code 2 err
                  Expect.stringContains err text "the error"))

      testCase "JSON for programs" (fun () ->
          inFolder (fun folder ->
              let path = Path.Combine(folder, "operations.json")
              File.WriteAllText(path, embedded "operations.json")
              let out, _ = succeed [ "verify"; path; "--json" ]
              use json = JsonDocument.Parse out
              Expect.equal (json.RootElement.GetProperty("agreeing").GetInt32()) 24 "agreeing cases")) ]

// ---- laws ----

let private laws =
    [ testCase "every law that speaks of the method is listed with its verdict, the loss's too" (fun () ->
          let out, _ = succeed [ "laws"; "hard-patchup"; "--effort"; "0.02" ]

          let expected =
              Laws.all
              |> List.filter (fun law ->
                  match law.Check with
                  | OfLibrary _ -> false
                  | _ -> true)

          for law in expected do
              Expect.stringContains out law.Name "a line of its own"

          Expect.stringContains out "0 broken" "the summary"
          Expect.stringContains out "false alarm below " "the chance of a statistical law")

      testCase "shapes, types and seeds are those asked for" (fun () ->
          let out, _ =
              succeed
                  [ "laws"
                    "blocks 3 0.5 |> blend uniform |> at 1"
                    "--shape"
                    "2x6x5"
                    "--type"
                    "float64"
                    "--seed"
                    "1"
                    "--seed"
                    "2"
                    "--effort"
                    "0.02" ]

          Expect.stringContains out "0 broken" "the summary")

      testCase "JSON for programs" (fun () ->
          let out, _ = succeed [ "laws"; "mixup"; "--effort"; "0.01"; "--json" ]
          use json = JsonDocument.Parse out

          let verdicts =
              [ for law in json.RootElement.GetProperty("laws").EnumerateArray() ->
                    law.GetProperty("verdict").GetString() ]

          Expect.containsAll [ "kept"; "silent" ] verdicts "no other verdict"
          Expect.contains verdicts "kept" "some are kept")

      testCase "mistakes are named, and exit with 2" (fun () ->
          for arguments, texts in
              [ [ "polka" ], [ "polka" ]
                [ "mixup"; "--shape"; "3x4" ], [ "3x4"; "64x16x16" ]
                [ "mixup"; "--shape"; "1x1x4097" ], [ "1x1x4097"; "4096 places" ]
                [ "mixup"; "--shape"; "0x4x4" ], [ "0x4x4" ]
                [ "mixup"; "--shape"; "60000x60000x60000" ], [ "1048576" ]
                [ "mixup"; "--type"; "int8" ], [ "int8"; "float32, float64, bfloat16" ]
                [ "mixup"; "--effort"; "0" ], [ "effort 0"; "positive" ]
                [ "mixup"; "--seed"; "x" ], [ "laws" ] ] do
              let code, out, err = patchup ("laws" :: arguments)
              Expect.equal code 2 err
              Expect.equal out "" "nothing on standard output"

              for text in texts do
                  Expect.stringContains err text "the error") ]

let tests = testList "verdicts" [ testList "verify" verify; testList "laws" laws ]
