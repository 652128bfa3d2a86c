module PatchUp.Tests.SweepTests

open System
open System.Diagnostics
open System.IO
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.ReproTests

let private ofPaper (table: string) =
    Path.Combine(Docs.root, "paper-repro", "sweeps", $"{table}.json")

let private table2 = ofPaper "table2"

/// Runs that take well under a second each.
let private small =
    """{ "methods": ["none", "soft-patchup"],
         "seeds": [0, 3],
         "base": { "width": 1, "epochs": 2, "trainPerClass": 6, "testPerClass": 2, "batchSize": 20 },
         "grid": { "learningRate": [0.1, 0.2] } }"""

/// Everything that a sweep can have.
let private rich =
    """{ "data": ["a", "b/c.tar.gz"],
         "models": ["preact-resnet-18", "wrn-10-1"],
         "methods": ["none", "mixup-2020", "cells 0.5 |> swap |> at input"],
         "seeds": 2,
         "preset": "paper-2020",
         "dataPreset": "svhn",
         "base": { "epochs": 9, "width": 3, "milestones": [0.5] },
         "grid": { "batchSize": [50, 100], "schedule": ["cosine", "multi-step"] },
         "sample": { "count": 3, "seed": 1, "uniform": { "labelSmoothing": [0, 0.2] }, "logUniform": { "weightDecay": [1e-5, 1e-3] } } }"""

let private ofText (folder: string) (text: string) : string =
    let file = Path.Combine(folder, "sweep.json")
    File.WriteAllText(file, text)
    file

let private read (text: string) : Planned list =
    inFolder (fun folder -> Sweep.read (ofText folder text))

let private files (folder: string) =
    [ for part in [ "records"; "weights"; "logs" ] do
          for path in Directory.GetFiles(Path.Combine(folder, part)) |> Array.sort do
              Path.GetRelativePath(folder, path), Convert.ToHexString(File.ReadAllBytes path) ]

// ---- the file ----

let private expanding =
    testList
        "files"
        [ testCase "a sweep is the product of what it names, in one order" (fun () ->
              let runs = read small |> List.map _.Config

              Expect.equal
                  [ for run in runs -> run.LearningRate, run.Seed, run.Method ]
                  [ for rate in [ 0.1; 0.2 ] do
                        for seed in [ 0; 3 ] do
                            for method' in [ "none"; "soft-patchup" ] do
                                rate, seed, method' ]
                  "settings, then seeds, then methods"

              Expect.equal
                  runs.Head
                  { Config.standard with
                      Width = Some 1
                      Epochs = 2
                      TrainPerClass = 6
                      TestPerClass = 2
                      BatchSize = 20 }
                  "the rest is as by default"

              Expect.equal (read "{}" |> List.map _.Config) [ Config.standard ] "a sweep of one"
              Expect.hasLength (read $"""[{small}, {{"methods": ["mixup"]}}]""") 9 "several sweeps")

          testCase "settings come before a preset, and methods bring notation and loss" (fun () ->
              inFolder (fun folder ->
                  // The preset knows no wrn-10-1.
                  let file = ofText folder (rich.Replace("wrn-10-1", "wrn-28-10"))
                  let runs = Sweep.read file
                  Expect.hasLength runs (2 * 2 * 3 * 2 * 4 * 3) "all"

                  Expect.equal
                      (runs |> List.map _.Images |> List.distinct)
                      [ Some(Path.Combine(folder, "a")); Some(Path.Combine(folder, "b/c.tar.gz")) ]
                      "paths are from the file"

                  for run in runs do
                      let config = run.Config
                      Expect.equal (config.Epochs, config.Milestones) (9, [ 0.5 ]) "the file's own"

                      Expect.equal
                          config.Width
                          (if config.Model = "wrn-28-10" then None else Some 3)
                          "a model that says itself how wide it is"

                      let method' = Arguments.method' config.Method

                      Expect.equal
                          config
                          { Config.withMethod method' config with
                              Loss = "bce-on-softmax" }
                          "the preset's loss"

                      Expect.equal config.Device "cpu" "the same on every machine"

                  for run in read """{"methods": ["mixup-2020", "none"], "base": {"loss": "brier"}}""" do
                      Expect.equal run.Config.Loss "brier" "a loss that the file names"))

          testCase "samples lie in their ranges, and those of a seed stay when there are more" (fun () ->
              let draw count seed =
                  read
                      $"""{{"sample": {{"count": {count}, "seed": {seed}, "uniform": {{"labelSmoothing": [0.1, 0.3]}}, "logUniform": {{"weightDecay": [1e-6, 1e-2]}}}}}}"""
                  |> List.map (fun run -> run.Config.LabelSmoothing, run.Config.WeightDecay)

              let many = draw 400 1
              Expect.equal (draw 7 1) (List.truncate 7 many) "the first ones"
              Expect.notEqual (draw 7 2) (List.truncate 7 many) "another seed"
              Expect.all many (fun (a, b) -> a >= 0.1 && a <= 0.3 && b >= 1e-6 && b <= 1e-2) "in the ranges"
              Expect.floatClose { absolute = 0.015; relative = 0.0 } (many |> List.averageBy fst) 0.2 "evenly"

              Expect.floatClose
                  { absolute = 0.25; relative = 0.0 }
                  (many |> List.averageBy (snd >> log10))
                  -4.0
                  "evenly by the logarithm"

              // Six digits are the same on every machine; the names hang on them.
              Expect.all many (fun (_, decay) -> decay = Double.Parse(decay.ToString "E5")) "six digits")

          testCase "the paper's second table is 405 runs" (fun () ->
              let runs = Sweep.read table2
              Expect.hasLength runs 405 "3 data sets, 3 models, 9 methods, 5 seeds"
              let readme = File.ReadAllText(Path.Combine(Docs.root, "paper-repro", "README.md"))
              Expect.stringContains readme "405 runs" "what the README says"

              for run in runs do
                  let config = run.Config

                  Expect.equal
                      (config.Epochs, config.Width, config.BatchSize, config.Device)
                      ((if config.Model = "wrn-28-10" then 400 else 2000),
                       (if config.Model = "wrn-28-10" then None else Some 64),
                       100,
                       "cuda")
                      "the published schedule"

              let steps =
                  runs
                  |> List.sumBy (fun run ->
                      let preset = DataPreset.find (Path.GetFileName run.Images.Value)
                      Expect.equal run.Config (Config.withData preset run.Config) "the published augmentation"
                      int64 run.Config.Epochs * int64 ((preset.Train * 9 / 10 + 99) / 100))

              Expect.stringContains readme $"{Tables.count steps} steps" "what the README counts")

          testCase "the paper's first and third table: networks, epochs, data and methods" (fun () ->
              let settings (run: Planned) =
                  let config = run.Config
                  Expect.equal config.Device "cuda" "for a GPU"

                  let preset = run.Images.Value |> Path.GetFileName |> DataPreset.find

                  Expect.equal config (Config.withData preset config) "the published augmentation"
                  preset.Name, config.Model, config.Epochs, config.BatchSize, config.Loss, config.Milestones

              let count table =
                  Sweep.read (ofPaper table) |> List.countBy settings

              Expect.equal
                  (count "table1")
                  [ for model in [ "wrn-28-10"; "resnet-101"; "resnet-152" ] ->
                        ("Tiny-ImageNet-200", model, 400, 100, "bce-on-softmax", [ 0.5; 0.75 ]), 45 ]
                  "9 methods, 5 seeds"

              Expect.equal
                  (count "table3")
                  [ ("ImageNet", "resnet-50", 300, 256, "cross-entropy", [ 0.25; 0.5; 0.75 ]), 9 ]
                  "9 methods"

              let readme = File.ReadAllText(Path.Combine(Docs.root, "paper-repro", "README.md"))
              Expect.stringContains readme "135 runs" "what the README says"

              // The published numbers of PatchUp on ImageNet.
              for block in [ "blocks 7 0.6 paper |> blend (beta 2 2)"; "blocks 7 0.5 paper |> swap" ] do
                  Expect.hasLength
                      (Sweep.read (ofPaper "table3") |> List.filter _.Config.Notation.Contains(block))
                      1
                      block) ]

let private refusals =
    [ """{"method": ["none"]}""",
      "'method' is not a part of a sweep (did you mean methods?); the names are data, models"
      """{"base": {"epoch": 3}}""", "base: 'epoch' is not a setting (did you mean epochs?)"
      """{"base": {"method": "mixup"}}""", "base: 'method' is not a setting; a sweep has methods"
      """{"base": {"data": "x"}}""", "'data' is not a setting; it stands beside"
      """{"base": {"epochs": "3"}}""", "base: epochs cannot be \"3\"; it is something like 6"
      """{"grid": {"epochs": 3}}""", "grid: epochs cannot be 3; it is a list of at least one"
      """{"grid": {"epochs": []}}""", "grid: epochs cannot be []"
      """{"grid": {"epochs": [3, 4, 3]}}""", "grid: epochs has 3 twice; name it once"
      """{"grid": {"epochs": [3, null]}}""", "grid: epochs cannot be null"
      """{"grid": {"learningRate": [0.1, 0.10]}}""", "is named 2 times; name every run once"
      """{"grid": {"seed": [1]}}""", "a sweep has seeds"
      """{"grid": {"epochs": [0]}}""", "epochs 0: it must lie in 1 .. 100000"
      """{"base": {"width": 4}, "models": ["wrn-10-1"], "grid": {"width": [2]}}""", "says itself how wide it is"
      """{"methods": "none"}""", "methods cannot be \"none\"; it is a list"
      """{"methods": ["mixap"]}""", "did you mean 'mixup'"
      """{"methods": [null]}""", "methods cannot be null; it is something like \"soft-patchup\""
      """{"models": ["wrn-28"]}""", "'wrn-28' is not a model"
      """{"models": []}""", "a list of at least one"
      """{"data": [""]}""", "'' is no path"
      """{"seeds": 0}""", "seeds 0: it must lie in 1 .. 1000"
      """{"seeds": 1.5}""", "seeds cannot be 1.5; it is something like 5"
      """{"seeds": [1, 1]}""", "seeds has 1 twice"
      """{"preset": "paper"}""", "the presets are paper-2020"
      """{"preset": "paper-2020", "models": ["resnet-50"]}""", "no schedule for resnet-50"
      """{"dataPreset": "cifar"}""", "the data presets are cifar-10"
      """{"base": {"device": "auto"}}""", "device auto: it must be cpu or cuda"
      """{"sample": {"count": 2}}""", "it draws nothing"
      """{"sample": {"uniform": {"momentum": [0, 1]}}}""", "it needs a count"
      """{"sample": {"count": 2, "uniform": {"epochs": [1, 2]}}}""", "'epochs' is not a setting that can be drawn"
      """{"sample": {"count": 2, "uniform": {"momentum": [1, 0]}}}""", "the least and the largest, such as"
      """{"sample": {"count": 2, "logUniform": {"momentum": [0, 1]}}}""", "both positive"
      """{"sample": {"count": 2, "uniform": {"momentum": [0, 1]}, "logUniform": {"momentum": [0.1, 1]}}}""",
      "momentum is drawn twice"
      """{"grid": {"momentum": [0.9]}, "sample": {"count": 2, "uniform": {"momentum": [0, 1]}}}""",
      "momentum is in grid and in sample"
      """{"sample": {"count": 100000, "uniform": {"momentum": [0, 1]}}}""", "count 100000: it must lie in 1 .. 10000"
      """{"seeds": 1000, "sample": {"count": 11, "uniform": {"momentum": [0, 1]}}}""",
      "it names 11000 runs; 10000 are the most"
      """[{}, {}]""", "is named 2 times"
      """[]""", "it is a JSON object"
      """[1]""", "a sweep cannot be 1; it is a JSON object"
      """null""", "a sweep cannot be null"
      """{"seeds": 1, "seeds": 2}""", "not JSON that could be a sweep"
      """{"methods": ["\ud800"]}""", "is not Unicode"
      """{"seeds": """, "not JSON that could be a sweep (line 1)" ]

// ---- the schema ----

/// Whether a value is as a schema says, which uses no other words than these.
let rec private fits (root: JsonObject) (schema: JsonObject) (node: JsonNode) : bool =
    let kind (name: string) =
        match node, name with
        | null, "null" -> true
        | (:? JsonObject), "object"
        | (:? JsonArray), "array" -> true
        | (:? JsonValue as value), "integer" -> (Json.tryRead<int>(value.ToJsonString())).IsSome
        | (:? JsonValue as value), _ ->
            match value.GetValueKind() with
            | Text.Json.JsonValueKind.Number -> name = "number"
            | Text.Json.JsonValueKind.String -> name = "string"
            | Text.Json.JsonValueKind.True
            | Text.Json.JsonValueKind.False -> name = "boolean"
            | _ -> false
        | _ -> false

    let holds (word: string) (rule: JsonNode) =
        match word, node with
        | ("$schema" | "$defs" | "title" | "description" | "additionalProperties"), _ -> true
        | "$ref", _ ->
            let named = root["$defs"][(string rule).Substring "#/$defs/".Length]
            fits root (named.AsObject()) node
        | "anyOf", _ -> rule.AsArray() |> Seq.exists (fun each -> fits root (each.AsObject()) node)
        | "type", _ ->
            match rule with
            | :? JsonArray as kinds -> kinds |> Seq.exists (fun each -> kind (string each))
            | one -> kind (string one)
        | "properties", (:? JsonObject as parts) ->
            let known = rule.AsObject()

            parts
            |> Seq.forall (fun part ->
                if known.ContainsKey part.Key then
                    fits root (known[part.Key].AsObject()) part.Value
                else
                    isNull schema["additionalProperties"])
        | "required", (:? JsonObject as parts) ->
            rule.AsArray() |> Seq.forall (fun name -> parts.ContainsKey(string name))
        | "items", (:? JsonArray as items) -> items |> Seq.forall (fits root (rule.AsObject()))
        | "minItems", (:? JsonArray as items) -> items.Count >= rule.GetValue<int>()
        | "maxItems", (:? JsonArray as items) -> items.Count <= rule.GetValue<int>()
        | "uniqueItems", (:? JsonArray as items) ->
            let texts =
                items |> Seq.map (fun item -> if isNull item then "" else item.ToJsonString())

            Seq.length (Seq.distinct texts) = items.Count
        | "minimum", (:? JsonValue as value) when kind "integer" -> value.GetValue<int>() >= rule.GetValue<int>()
        | "maximum", (:? JsonValue as value) when kind "integer" -> value.GetValue<int>() <= rule.GetValue<int>()
        | ("properties" | "required" | "items" | "minItems" | "maxItems" | "uniqueItems" | "minimum" | "maximum"), _ ->
            true
        | other, _ -> failtest $"the schema has {other}, which this test does not know"

    schema |> Seq.forall (fun rule -> holds rule.Key rule.Value)

let private schema =
    lazy (JsonNode.Parse(File.ReadAllText(Path.Combine(Docs.root, "docs", "sweep.schema.json"))).AsObject())

let private isAllowed (text: string) =
    fits schema.Value schema.Value (JsonNode.Parse text)

let private schemas =
    testCase
        "the published schema has the reader's names, takes what it takes, and refuses what is of a wrong kind"
        (fun () ->
            let under (names: string list) : string list =
                let found =
                    names
                    |> List.fold (fun (node: JsonObject) (name: string) -> node[name].AsObject()) schema.Value

                [ for part in found -> part.Key ]

            let parts name = under [ "$defs"; name; "properties" ]

            let within name =
                under [ "$defs"; "sweep"; "properties"; name; "properties" ]

            Expect.equal (parts "sweep") Sweep.names "a sweep"
            Expect.equal (parts "settings") Sweep.settings "its settings"
            Expect.equal (parts "ranges") Sweep.drawable "what can be drawn"
            Expect.equal (within "grid") Sweep.settings "the grid"
            Expect.equal (within "sample") Sweep.sampleNames "a sample"

            for text in [ small; rich; "{}"; File.ReadAllText table2; """{"base": {"width": null}}""" ] do
                Expect.isTrue (isAllowed text) text

            // Those whose names are unknown or whose values are out of range, as the schema says itself.
            let beyond =
                [ "it must lie in 1 .. 100000"
                  "named 2 times"
                  "says itself"
                  "did you mean 'mixup'"
                  "is not a model"
                  "is no path"
                  "presets are"
                  "no schedule"
                  "must be cpu or cuda"
                  "draws nothing"
                  "the least and the largest, such as"
                  "both positive"
                  "drawn twice"
                  "in grid and in sample"
                  "10000 are the most"
                  "not JSON"
                  "Unicode" ]

            for text, message in refusals do
                if beyond |> List.exists message.Contains |> not then
                    Expect.isFalse (isAllowed text) text)

let private refusing =
    testCase "what a sweep cannot hold is refused by name, in a line" (fun () ->
        inFolder (fun folder ->
            let out = Path.Combine(folder, "out")

            for text, expected in refusals do
                let file = ofText folder text
                let code, printed, err = patchup [ "sweep"; "list"; file; "--out"; out ]
                Expect.equal (code, printed) (2, "") $"{text}: {err}"
                Expect.stringContains err expected text
                Expect.stringStarts err $"patchup: {file}: " "the file's name"
                Expect.hasLength (err.TrimEnd().Split '\n') 1 text

            let file = ofText folder small

            for arguments, expected in
                [ [], "an action is needed: new, list, run, status, collect, slurm"
                  [ "lst"; file ], "did you mean list?"
                  [ "run" ], "<file>"
                  [ "run"; file; "--index"; "8" ], "the runs of"
                  [ "run"; file; "--index"; "-1" ], "are 0 .. 7"
                  [ "run"; file; "--jobs"; "0" ], "jobs 0"
                  [ "status"; Path.Combine(folder, "none.json") ], "no such file"
                  [ "list"
                    ofText (Directory.CreateDirectory(Path.Combine(folder, "x")).FullName) """{"data": ["y"]}""" ],
                  "x/y: no such file" ] do
                let code, printed, err =
                    patchup ("sweep" :: arguments @ (if arguments.Length > 1 then [ "--out"; out ] else []))

                Expect.equal (code, printed) (2, "") $"{arguments}: {err}"
                Expect.stringContains err expected $"{arguments}"

            Expect.isFalse (Directory.Exists out) "nothing is written"))

let private mutated =
    testCase "of 500 damaged files each is read or refused in a line, and what is read is as the schema says" (fun () ->
        inFolder (fun folder ->
            let bits = Key.stream (Key.ofSeed 12)
            let pick (items: 'a list) = items[bits.Below items.Length]

            let originals =
                [ small; rich.Replace("wrn-10-1", "wrn-28-10"); File.ReadAllText table2 ]

            let pieces =
                [ "null"
                  "[]"
                  "{}"
                  "-1"
                  "1e999"
                  "0"
                  "99999999999"
                  "\"\""
                  "\"\\ud800\""
                  "true"
                  ","
                  "["
                  "}"
                  "\""
                  "\000"
                  "0.5" ]

            let damage (text: string) =
                let at = bits.Below text.Length

                match bits.Below 5 with
                | 0 -> text.Remove at
                | 1 -> text.Remove(at, min (1 + bits.Below 20) (text.Length - at))
                | 2 -> text.Insert(at, pick pieces)
                | 3 -> text.Substring(0, at) + string (char (bits.Below 128)) + text.Substring(at + 1)
                | _ ->
                    // A whole value, or a name.
                    let tokens = Regex.Matches(text, "\"[^\"]*\"|[0-9.e-]+|\\[[^\\[\\]]*\\]")
                    let token = tokens[bits.Below tokens.Count]

                    text.Substring(0, token.Index)
                    + pick pieces
                    + text.Substring(token.Index + token.Length)

            let refused = ref 0

            for _ in 1..500 do
                let text = damage (pick originals)
                let file = ofText folder text

                try
                    Sweep.read file |> ignore
                    Expect.isTrue (isAllowed text) $"the schema refuses what is read: {text}"
                with UserError message ->
                    refused.Value <- refused.Value + 1
                    Expect.stringStarts message $"{file}: " "the file's name"
                    Expect.isFalse (message.Contains '\n') "one line"

            Expect.isGreaterThan refused.Value 300 "most are refused"))

// ---- running ----

let private running =
    testCase "runs are done once, each alone or together to the same bytes, counted and collected" (fun () ->
        inFolder (fun folder ->
            let file = ofText folder small
            let out, alone = Path.Combine(folder, "out"), Path.Combine(folder, "alone")

            let sweep action more =
                succeed ([ "sweep"; action; file; "--out"; out ] @ more)

            let listed, _ = sweep "list" []
            Expect.hasLength (listed.TrimEnd().Split '\n') 10 "a header and eight runs"
            Expect.stringContains listed "learningRate 0.2" "what they differ in"
            Expect.isFalse (Directory.Exists out) "nothing is written"
            sweep "run" [ "--index"; "5" ] |> ignore
            sweep "run" [ "--index"; "2" ] |> ignore

            let _, err = sweep "run" [ "--index"; "5" ]
            Expect.stringContains err "1 of 1 runs are finished already." "it is done once"
            let status, _ = sweep "status" []

            Expect.stringContains
                status
                "8 runs: 2 finished, 0 running, 0 with a checkpoint, 0 failed, 6 missing"
                "the count"

            let collected, _ = sweep "collect" []
            Expect.stringContains collected "2 of 8 runs are finished" "the table"
            Expect.isTrue (Regex.IsMatch(collected, "learningRate 0.1 +soft-patchup +0/2 +missing")) collected

            sweep "run" [ "--jobs"; "2" ] |> ignore
            let status, _ = sweep "status" [ "--json" ]
            let status = (Json.tryRead<SweepStatus> status).Value
            Expect.equal (status.Finished, status.Unfinished) (8, []) "all"

            for index in 7..-1..0 do
                succeed [ "sweep"; "run"; file; "--out"; alone; "--index"; string index ]
                |> ignore

            Expect.equal (files alone) (files out) "the same bytes in any order"
            let found = (Json.tryRead<Collected>(fst (sweep "collect" [ "--json" ]))).Value
            Expect.hasLength found.Runs 8 "the records"

            let settings, methods =
                found.Rows |> List.map (fun row -> row.Settings, row.Method) |> List.unzip

            Expect.equal
                settings
                [ "learningRate 0.1"
                  "learningRate 0.1"
                  "learningRate 0.2"
                  "learningRate 0.2" ]
                "rows"

            Expect.equal methods [ "none"; "soft-patchup"; "none"; "soft-patchup" ] "rows"

            let row = found.Rows[3]

            let errors method' =
                found.Runs
                |> List.filter (fun run -> run.Config.Method = method' && run.Config.LearningRate = 0.2)
                |> List.map _.TestError

            Expect.equal row.TestError (Some(Statistics.spread (errors "soft-patchup"))) "its spread"

            Expect.equal
                row.Difference
                (Some(Statistics.pairedDifference (errors "none") (errors "soft-patchup")))
                "from the first method of the same settings"

            // One seed of one method is gone: the other is paired alone.
            File.Delete(Records.recordPath out (found.Runs |> List.find (fun run -> run.Config.Seed = 3)).Config)
            let found = (Json.tryRead<Collected>(fst (sweep "collect" [ "--json" ]))).Value
            Expect.equal (found.Rows[0].Finished, found.Rows[0].Missing.Length) (1, 1) "one is missing"
            Expect.equal found.Rows[1].Difference.Value.HalfWidth None "one pair has no interval"))

let private ownSettings =
    testCase "methods that were trained with other settings are not paired, and it is said in which" (fun () ->
        let run method' loss rate epochs seed error =
            let config =
                { Config.standard with
                    Method = method'
                    Notation = method'
                    Loss = loss
                    LearningRate = rate
                    Epochs = epochs
                    Seed = seed }

            config,
            Some
                { Config = config
                  Parameters = 1L
                  BestEpoch = 1
                  TestError = error
                  TestNll = 1.0
                  History = [] }

        let found =
            Collected.ofRuns
                [ for seed in 0..1 do
                      run "none" "cross-entropy" 0.1 6 seed 10.0
                      run "mixup" "bce-on-softmax" 0.1 6 seed (12.0 + float seed)
                      run "cutmix" "cross-entropy" 0.2 6 seed 20.0 ]

        Expect.equal
            (found.Rows
             |> List.map (fun row -> row.Method, row.Settings, row.Difference |> Option.map _.Centre))
            [ "none", "learningRate 0.1", None
              "mixup", "learningRate 0.1", Some 2.5
              "cutmix", "learningRate 0.2", None ]
            "a method's own loss is part of it, its rate is not")

let private failing =
    testCase "a run that fails is named, and keeps no other back" (fun () ->
        inFolder (fun folder ->
            let file =
                ofText folder (small.Replace("[0.1, 0.2]", "[1e8, 0.2]").Replace("\"epochs\": 2", "\"epochs\": 4"))

            let out = Path.Combine(folder, "out")
            let code, _, err = patchup [ "sweep"; "run"; file; "--out"; out; "--jobs"; "2" ]
            Expect.equal code 1 $"it failed: {err}"
            Expect.stringContains err "patchup: 4 of 8 runs failed; 'patchup sweep status" "how many"
            let status, _ = succeed [ "sweep"; "status"; file; "--out"; out ]

            Expect.stringContains
                status
                "8 runs: 4 finished, 0 running, 0 with a checkpoint, 4 failed, 0 missing"
                "the count"

            Expect.stringContains status "failed: the loss is not finite (epoch" "why"

            let code, _, err = patchup [ "sweep"; "run"; file; "--out"; out; "--index"; "0" ]
            Expect.equal code 1 "alone too"
            Expect.stringContains (err.Split "patchup: " |> Array.last) "the loss is not finite" "the last line"

            let config = (Sweep.read file).Head.Config
            Expect.hasLength (Directory.GetFiles(Path.Combine(out, "failures"))) 4 "a file each"
            Expect.equal (Records.standing out config) Missing "another configuration's"
            Records.fail out config "why"
            Expect.equal (Records.standing out config) (Failed "why") "its own"
            File.WriteAllText(Records.failurePath out config, "{")
            Expect.equal (Records.standing out config) (Failed "no sound file says why") "a damaged one"
            Directory.CreateDirectory(Path.Combine(out, "logs")) |> ignore
            Records.tidy out config
            Expect.equal (Records.standing out config) Missing "begun again"
            let kept = Records.checkpointsPath out config
            Directory.CreateDirectory kept |> ignore
            Expect.equal (Records.standing out config) Missing "an empty folder"
            File.WriteAllText(Path.Combine(kept, "epoch-000001-step-00000000.safetensors"), "")
            Expect.equal (Records.standing out config) Kept "a checkpoint"))

let private shared =
    testCase "two processes share a sweep: what another is at work on is left to it, and counted" (fun () ->
        inFolder (fun folder ->
            let file = ofText folder small
            let out = Path.Combine(folder, "out")
            let list, _ = succeed [ "sweep"; "list"; file; "--out"; out; "--json" ]
            let name = (Json.tryRead<ListedRun list> list).Value[2].Name
            let checkpoints = Path.Combine(out, "checkpoints", name)
            let other = Checkpointing.openFolder failtest checkpoints

            try
                let code, printed, err = patchup [ "sweep"; "run"; file; "--out"; out ]
                Expect.equal (code, printed) (1, "") err
                Expect.stringContains err $"{name}: another process is at work on it" "which"

                Expect.stringContains
                    err
                    $"patchup: 1 of 8 runs are left to other processes, which are at work on them; 'patchup sweep status {file} --out {out}' says"
                    "how many"

                let code, _, err = patchup [ "sweep"; "run"; file; "--out"; out; "--index"; "2" ]
                Expect.equal code 1 err
                Expect.stringContains err "patchup: 1 of 1 runs are left" "alone too"
                let status, _ = succeed [ "sweep"; "status"; file; "--out"; out ]

                Expect.stringContains
                    status
                    "8 runs: 7 finished, 1 running, 0 with a checkpoint, 0 failed, 0 missing"
                    "the others"
            finally
                Checkpointing.close other

            succeed [ "sweep"; "run"; file; "--out"; out ] |> ignore
            Expect.hasLength (Directory.GetFiles(Path.Combine(out, "records"))) 8 "all are done"
            Expect.isEmpty (Directory.GetFileSystemEntries(Path.Combine(out, "checkpoints"))) "nothing is left"))

// ---- the command line ----

let private writing =
    testCase "a sweep's file is written from options, and nothing is where it would be refused" (fun () ->
        inFolder (fun folder ->
            let file = Path.Combine(folder, "x", "sweep.json")
            Directory.CreateDirectory(Path.Combine(folder, "x")) |> ignore

            let said, _ =
                succeed
                    [ "sweep"
                      "new"
                      file
                      "--data"
                      Path.Combine(folder, "a")
                      "--data"
                      Path.Combine(folder, "x", "b", "c.tar.gz")
                      "--models"
                      "preact-resnet-18,wrn-28-10"
                      "--methods"
                      "none,mixup-2020,cells 0.5 |> swap |> at input"
                      "--seeds"
                      "2"
                      "--preset"
                      "paper-2020"
                      "--data-preset"
                      "svhn"
                      "--base"
                      "epochs=9"
                      "--base"
                      "width=3"
                      "--base"
                      "milestones=[0.5]"
                      "--grid"
                      "batchSize=50,100"
                      "--grid"
                      "schedule=cosine,multi-step"
                      "--samples"
                      "3"
                      "--sample-seed"
                      "1"
                      "--uniform"
                      "labelSmoothing=0,0.2"
                      "--log-uniform"
                      "weightDecay=1e-5,1e-3" ]

            Expect.equal said $"{file}: 288 runs; patchup sweep list {file} lists them\n" "what it says"

            let expected =
                rich.Replace("wrn-10-1", "wrn-28-10").Replace("\"a\", \"b", "\"../a\", \"b")

            let written = File.ReadAllText file
            Expect.isTrue (JsonNode.DeepEquals(JsonNode.Parse written, JsonNode.Parse expected)) written
            let code, _, err = patchup [ "sweep"; "new"; file ]
            Expect.equal code 2 err
            Expect.stringContains err "it is there already" "never written over"
            Expect.equal (File.ReadAllText file) written "never written over"

            for options, message in
                [ [ "--base"; "epochs" ], "--base epochs: it is NAME=VALUE"
                  [ "--base"; "epoch=3" ], "'epoch' is not a setting (did you mean epochs?)"
                  [ "--base"; "epochs=3"; "--base"; "epochs=4" ], "--base names epochs twice"
                  [ "--base"; "epochs=x" ], "epochs cannot be \"x\""
                  [ "--grid"; "epochs=" ], "epochs cannot be []"
                  [ "--seeds"; "x" ], "seeds cannot be \"x\""
                  [ "--methods"; "mixap" ], "did you mean 'mixup'"
                  [ "--samples"; "3" ], "it draws nothing"
                  [ "--uniform"; "momentum=0,1" ], "it needs a count"
                  [ "--model"; "x" ], "unrecognized" ] do
                let other = Path.Combine(folder, "other.json")
                let code, printed, err = patchup ([ "sweep"; "new"; other ] @ options)
                Expect.equal (code, printed) (2, "") err
                Expect.stringContains err message $"{options}"
                Expect.hasLength (err.TrimEnd().Split '\n') 1 "one line"
                Expect.isFalse (File.Exists other) "nothing is written"

            // The same as the first lines of the README say.
            let readme = File.ReadAllText(Path.Combine(Docs.root, "paper-repro", "README.md"))

            let block kind =
                Regex.Match(readme, $"```{kind}\n(.*?)```", RegexOptions.Singleline).Groups[1].Value

            let command = block "bash"

            let arguments =
                [ for part in Regex.Matches(command.Replace("\\\n", " "), "'[^']*'|\\S+") -> part.Value.Trim('\'') ]

            let example = Path.Combine(folder, "example.json")

            Expect.equal (List.take 4 arguments) [ "patchup"; "sweep"; "new"; "sweep.json" ] command
            succeed ([ "sweep"; "new"; example ] @ List.skip 4 arguments) |> ignore

            Expect.isTrue
                (JsonNode.DeepEquals(JsonNode.Parse(File.ReadAllText example), JsonNode.Parse(block "json")))
                "the README's command gives its file"))

// ---- Slurm ----

let private scripts =
    testCase
        "the job script is an array over the runs, is printed on request, and needs sbatch to be submitted"
        (fun () ->
            inFolder (fun folder ->
                let out = Path.Combine(folder, "it's 100% out")
                let file = ofText folder small
                let script, _ = succeed [ "sweep"; "slurm"; file; "--out"; out; "--dry-run" ]
                Expect.isFalse (Directory.Exists out) "nothing is written"

                for line in
                    [ "#!/bin/bash\n"
                      "\n#SBATCH --array=0-7\n"
                      "\n#SBATCH --requeue\n"
                      "\n#SBATCH --signal=B:USR1@60\n"
                      $"\n#SBATCH --output=\"{folder}/it's 100%%%% out/slurm/%%A_%%a.log\"\n"
                      "sweep.json --out '"
                      "/it'\\''s 100% out' --index \"$SLURM_ARRAY_TASK_ID\" &\n" ] do
                    Expect.stringContains script line "the script"

                let path = Environment.GetEnvironmentVariable "PATH"

                try
                    Environment.SetEnvironmentVariable("PATH", folder)
                    let code, _, err = patchup [ "sweep"; "slurm"; file; "--out"; out ]
                    Expect.equal code 2 err
                    Expect.stringContains err "there is no sbatch here; do this where Slurm is installed" "what to do"

                    Expect.equal
                        (File.ReadAllText(Path.Combine(out, "slurm", "sweep.sh")))
                        script
                        "the script is there"

                    // One that says what it was called with, and one that refuses.
                    let sbatch text =
                        let path = Path.Combine(folder, "sbatch")
                        File.WriteAllText(path, $"#!/bin/sh\n{text}\n")

                        File.SetUnixFileMode(
                            path,
                            UnixFileMode.UserRead ||| UnixFileMode.UserExecute ||| UnixFileMode.UserWrite
                        )

                    sbatch "echo \"got $*\""

                    let said, _ =
                        succeed [ "sweep"; "slurm"; file; "--out"; out; "--"; "--gres=gpu:1"; "--time=1:00:00" ]

                    Expect.stringStarts
                        said
                        $"got --gres=gpu:1 --time=1:00:00 {out}/slurm/sweep.sh: 8 tasks"
                        "its options"

                    sbatch "echo no partition >&2; exit 1"
                    let code, _, err = patchup [ "sweep"; "slurm"; file; "--out"; out ]
                    Expect.equal code 2 err
                    Expect.stringContains err "sbatch refused" "who"
                    Expect.stringContains err "no partition" "why"
                finally
                    Environment.SetEnvironmentVariable("PATH", path)))

let private cluster =
    testCase "an array of Slurm's, with a task stopped and one killed, gives a local run's bytes" (fun () ->
        let script = Path.Combine(Docs.root, "tests", "slurm", "run.sh")

        let start =
            ProcessStartInfo(
                script,
                [ "dotnet"; Path.Combine(AppContext.BaseDirectory, "patchup.dll") ],
                RedirectStandardOutput = true,
                RedirectStandardError = true
            )

        use child = Process.Start start
        let err = child.StandardError.ReadToEndAsync()
        let lines = child.StandardOutput.ReadToEnd().TrimEnd()
        child.WaitForExit()

        match child.ExitCode with
        | 0 -> ()
        | 77 ->
            let last = lines.Split '\n' |> Array.last
            skiptest $"no Slurm: {last}"
        | code -> failtest $"exit code {code}: {lines}\n{err.Result}")

let tests =
    testSequenced (
        testList
            "sweeps"
            [ expanding
              refusing
              schemas
              mutated
              writing
              running
              failing
              ownSettings
              shared
              scripts
              cluster ]
    )
