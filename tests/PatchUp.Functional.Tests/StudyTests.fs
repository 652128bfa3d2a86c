/// `patchup study`: what each trains, and what it shows of records.
module PatchUp.Tests.StudyTests

open System
open System.IO
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.ReproTests

/// Runs that take well under a second each.
let private tiny =
    [ for setting in [ "width=1"; "epochs=2"; "trainPerClass=6"; "testPerClass=2"; "batchSize=20" ] do
          "--base"
          setting ]

let private planned (scale: StudyScale) (study: Study) : Config list =
    let data =
        match scale with
        | StudyScale.Demo -> None
        | StudyScale.Paper -> Some "data"

    Study.sweep scale data (Study.seeds scale study) (JsonObject()) study
    |> Json.show
    |> Sweep.ofText "study"
    |> List.map _.Config

let private result (path: string) : StudyResult =
    (Json.tryRead<StudyResult>(File.ReadAllText path)).Value

/// What each study trains, as the page says it: the patterns of the variants, and how often.
let private soft = "blocks 7 0.75 paper |> blend (beta 2 2)"
let private hard = "blocks 7 0.5 paper |> swap"
let private box = "rect uniform |> swap |> at input"

let private ablations =
    [ for name, mixing, often in [ "soft", soft, ""; "hard", hard, " |> sometimes 0.7" ] do
          let random mixing objective =
              $"oneOf [1, {box}; 2, {mixing} |> atAny [1; 2]] |> {objective}{often}"

          let terms = [ "first"; "second"; "twoTerm"; "second" ] |> List.map (random mixing)
          $"terms-{name}", "identity" :: terms

          $"sites-{name}",
          [ random mixing "twoTerm"
            $"{box} |> twoTerm{often}"
            $"{mixing} |> at 1 |> twoTerm{often}"
            $"{mixing} |> at 2 |> twoTerm{often}"
            $"{mixing} |> at 3 |> twoTerm{often}"
            $"{mixing} |> atAny [0; 1; 2] |> twoTerm{often}"
            "identity" ]

          let tail = mixing.Substring(mixing.IndexOf " paper")

          $"gamma-{name}",
          [ for size in [ 3; 5; 7; 9 ] do
                for gamma in [ "0.25"; "0.5"; "0.75"; "0.9" ] do
                    random $"blocks {size} {gamma}{tail}" "twoTerm" ] ]
    @ [ "manifold-alpha",
        [ for alpha in [ "0.5"; "1"; "1.5"; "2"; "4" ] ->
              $"everywhere |> blend (beta {alpha} {alpha}) |> atAny [0; 1; 2]" ]
        "cutmix-probability",
        [ for often in [ "0.2"; "0.4"; "0.6"; "0.8"; "1" ] ->
              $"rect (beta 1 1) |> swap |> at input |> sometimes {often}" ]
        "time",
        [ for name in
              [ "none"
                "mixup"
                "manifold-mixup"
                "cutmix"
                "cutout"
                "dropblock"
                "puzzlemix"
                "soft-patchup"
                "hard-patchup" ] -> name ] ]

let private expanding =
    testCase "every study is a sweep of the methods that it is about, trained alike, at both scales" (fun () ->
        Expect.equal (Study.all |> List.map _.Name |> List.sort) (ablations |> List.map fst |> List.sort) "the studies"

        for name, expected in ablations do
            let study = Study.find name

            let notations =
                [ for line in expected ->
                      match Catalogue.parse line with
                      | Ok regularizer -> Notation.show regularizer
                      | Error error -> failtest $"{line}: {error}" ]

            for scale in [ StudyScale.Demo; StudyScale.Paper ] do
                let seeds = Study.seeds scale study
                let configs = planned scale study
                Expect.hasLength configs (notations.Length * seeds) $"{name}: runs"

                for seed in 0 .. seeds - 1 do
                    Expect.equal
                        [ for config in configs do
                              if config.Seed = seed then
                                  config.Notation ]
                        notations
                        $"{name}: the methods of seed {seed}"

                let first = configs.Head

                let settings (config: Config) =
                    { config with
                        Seed = 0
                        Method = ""
                        Notation = "" }

                let last = notations.Length - 1

                for i, group in configs |> List.groupBy (fun c -> { c with Seed = 0 }) |> List.indexed do
                    let doubled = name.StartsWith "terms" && i = last

                    let expected =
                        if doubled then
                            { settings first with
                                LearningRate = 2.0 * first.LearningRate
                                WeightDecay = first.WeightDecay / 2.0 }
                        else
                            settings first

                    Expect.equal (settings (fst group)) expected $"{name}: the settings of method {i}"

                match scale with
                | StudyScale.Demo ->
                    Expect.equal (settings first) (settings Config.standard) $"{name}: as train has them by default"
                | StudyScale.Paper ->
                    Expect.equal first.Loss "bce-on-softmax" "the published loss"
                    Expect.equal first.Device "cuda" "where the paper's scale can be done"

                    Expect.equal
                        (first.Model, first.Epochs, first.TrainPerClass)
                        ((if
                              (name.StartsWith "gamma")
                              || name.Contains '-' && not (name.StartsWith "terms" || name.StartsWith "sites")
                          then
                              "preact-resnet-18", 2000, 0
                          else
                              "wrn-28-10", 400, 0))
                        $"{name}: the published schedule"

                    Expect.equal
                        first
                        (Config.withData (DataPreset.find study.Data) first)
                        $"{name}: the published augmentation")

let private listing =
    testCase "studies are listed with how many runs they are" (fun () ->
        let text, _ = succeed [ "study" ]
        Expect.hasLength (text.TrimEnd().Split '\n') (2 + Study.all.Length) "a line each"

        let listed =
            (Json.tryRead<ListedStudy list>(fst (succeed [ "study"; "--json" ]))).Value

        for each in listed do
            let study = Study.find each.Name
            Expect.equal each.Runs (planned StudyScale.Demo study).Length each.Name
            Expect.equal each.PaperRuns (planned StudyScale.Paper study).Length each.Name

            Expect.isTrue
                (Regex.IsMatch(text, $@"{each.Name} +{Regex.Escape each.Place} +{each.Runs} +{each.PaperRuns} "))
                each.Name)

let private comparing =
    testCase
        "the loss terms, end to end: equal terms train equally, the sum as one term at twice the rate; done once"
        (fun () ->
            inFolder (fun folder ->
                let out = Path.Combine(folder, "out")
                let arguments = [ "study"; "terms-soft"; "--out"; out; "--seeds"; "2" ] @ tiny
                let text, _ = succeed arguments
                let found = result (Path.Combine(out, "study.json"))

                Expect.equal
                    (found.Rows |> List.map _.Variant)
                    [ "none"; "L1"; "L2"; "L1 + L2"; "L2 at twice the rate" ]
                    "the lines"

                let nll = [ for row in found.Rows -> row.TestNll.Value.Mean ]
                let near = { absolute = 1e-5; relative = 0.0 }
                Expect.floatClose near nll[1] nll[2] "the terms are the same number"
                Expect.floatClose near nll[3] nll[4] "the sum makes the steps of one term at twice the rate"
                Expect.isGreaterThan (abs (nll[2] - nll[3])) 1e-3 "and these are others than one term's"

                Expect.equal
                    [ for row in found.Rows -> row.LearningRate, row.WeightDecay ]
                    ([ for _ in 1..4 -> 0.1, 1e-4 ] @ [ 0.2, 5e-5 ])
                    "the rates"

                // From the records, by hand.
                let records =
                    [ for path in Directory.GetFiles(Path.Combine(out, "records")) ->
                          (Json.tryRead<Record>(File.ReadAllText path)).Value ]

                let errors (row: StudyRow) (value: Record -> float) =
                    [ for record in records |> List.sortBy _.Config.Seed do
                          if
                              record.Config.Notation = row.Notation
                              && record.Config.LearningRate = row.LearningRate
                          then
                              value record ]

                for row in found.Rows do
                    Expect.equal (row.Finished, row.Runs) (2, 2) "both seeds"
                    Expect.equal row.TestError (Some(Statistics.spread (errors row _.TestError))) "test error"
                    Expect.equal row.EpochSeconds None "no clock in results"

                    Expect.equal
                        row.ValidationError
                        (Some(
                            Statistics.spread (
                                errors row (fun record -> record.History[record.BestEpoch - 1].ValidationError)
                            )
                        ))
                        "of the best epoch"

                    Expect.equal
                        row.Difference
                        (if row.Variant = "none" then
                             None
                         else
                             Some(
                                 Statistics.pairedDifference
                                     (errors found.Rows.Head _.TestError)
                                     (errors row _.TestError)
                             ))
                        "paired by seed"

                Expect.stringContains text "difference from none, points" "the table"
                Expect.stringContains text "table 6 of the paper" "what of the paper"
                let page = File.ReadAllText(Path.Combine(out, "study.md"))
                Expect.stringStarts page "# terms-soft, table 6" "the page"
                Expect.isTrue (Regex.IsMatch(page, @"\| L1 \+ L2 \| 2/2 \| [0-9.]+ ± [0-9.]+ \|")) page

                // Again: nothing is trained, and the files stay as they are.
                let again, err = succeed arguments
                Expect.equal again text "the same"
                Expect.stringContains err "10 of 10 runs are finished already." "done once"
                Expect.equal (File.ReadAllText(Path.Combine(out, "study.md"))) page "the same page"

                // The sweep beside it names the same runs, and one written for a cluster does as well.
                let sweep = Path.Combine(out, "sweep.json")

                let status, _ = succeed [ "sweep"; "status"; sweep; "--out"; out ]
                Expect.stringContains status "10 runs: 10 finished" "sweep.json"
                let file = Path.Combine(folder, "written.json")
                let said, _ = succeed (arguments @ [ "--sweep"; file ])
                Expect.equal said $"{file}: 10 runs\n" "what it says"
                Expect.equal (File.ReadAllText file) (File.ReadAllText sweep) "the same sweep"
                let code, _, err = patchup (arguments @ [ "--sweep"; file ])
                Expect.equal code 2 err
                Expect.stringContains err "it is there already" "never written over"))

let private noting =
    testCase "what is said of the loss's terms holds for the loss" (fun () ->
        let study = Study.find "terms-hard"

        let notes change =
            [ for config in planned StudyScale.Demo study -> change config ]
            |> study.Notes
            |> String.concat " "

        let usual = notes id
        Expect.stringContains usual "are the same number" "cross-entropy is affine"
        Expect.stringContains usual "makes the steps of L1 + L2 on mixed batches" "so steps are the same"
        let brier = notes (fun config -> { config with Loss = "brier" })
        Expect.stringContains brier "two losses here" "the Brier score is not"
        Expect.isFalse (brier.Contains "makes the steps") "and steps differ"
        let clipped = notes (fun config -> { config with ClipNorm = 1.0 })
        Expect.stringContains clipped "are the same number" "affine still"
        Expect.isFalse (clipped.Contains "makes the steps") "clipped gradients do not double")

let private searching =
    testCase "a grid shows validation errors by its values, and names the least" (fun () ->
        inFolder (fun folder ->
            let out = Path.Combine(folder, "out")
            let text, _ = succeed ([ "study"; "cutmix-probability"; "--out"; out ] @ tiny)
            let found = result (Path.Combine(out, "study.json"))
            let mean (row: StudyRow) = row.ValidationError.Value.Mean
            let least = found.Rows |> List.map mean |> List.min

            let best =
                [ for row in found.Rows do
                      if mean row = least then
                          row.Variant ]

            Expect.equal found.Best best "the least, with its ties"
            let shown = String.concat "; " best
            Expect.stringContains text $"The least mean is that of {shown}." "in words"
            Expect.isTrue (Regex.IsMatch(text, @"probability +0\.2 +0\.4 +0\.6 +0\.8 +1\n")) text

            // Of two dimensions, by hand: line after line.
            let study = Study.find "gamma-hard"

            let runs =
                planned StudyScale.Demo study
                |> List.mapi (fun i config ->
                    config,
                    if i = 6 then
                        None
                    else
                        Some(
                            { Config = config
                              Parameters = 1L
                              BestEpoch = 2
                              TestError = 1.0
                              TestNll = 1.0
                              History =
                                [ for epoch in 1..2 ->
                                      { Epoch = epoch
                                        LearningRate = 0.1
                                        TrainLoss = 1.0
                                        ExpectedAccuracyUnderMixing = 1.0
                                        ValidationError = (if epoch = 2 then float (40 + (i + 5) % 16) else 1.0)
                                        ValidationNll = 1.0 } ] },
                            None
                        ))

            let result = Study.ofRuns study runs
            Expect.equal result.Best [ "block 7, gamma 0.9" ] "the least"

            let level =
                runs
                |> List.map (fun (config, found) ->
                    config,
                    found
                    |> Option.map (fun (record, timing) ->
                        let last = List.last record.History

                        { record with
                            History =
                                [ record.History.Head
                                  { last with
                                      ValidationError = max 41.0 last.ValidationError } ] },
                        timing))

            Expect.equal (Study.ofRuns study level).Best [ "block 7, gamma 0.9"; "block 9, gamma 0.25" ] "both"
            let lines = (Study.text study result).Split '\n'

            Expect.equal
                [ for line in lines[2..7] -> List.ofArray (Regex.Split(line, "  +")) ]
                [ [ @"block \ gamma"; "0.25"; "0.5"; "0.75"; "0.9" ]
                  [ "-------------"; "-----"; "-----"; "-------"; "-----" ]
                  [ "3"; "45.00"; "46.00"; "47.00"; "48.00" ]
                  [ "5"; "49.00"; "50.00"; "missing"; "52.00" ]
                  [ "7"; "53.00"; "54.00"; "55.00"; "40.00" ]
                  [ "9"; "41.00"; "42.00"; "43.00"; "44.00" ] ]
                "the matrix"))

let private timing =
    testCase "times are shares of plain training's with the same seed, from the runs' timings" (fun () ->
        let study = Study.find "time"

        let runs =
            Study.sweep StudyScale.Demo None 2 (JsonObject()) study
            |> Json.show
            |> Sweep.ofText "study"
            |> List.mapi (fun i run ->
                let seconds =
                    if run.Config.Seed = 0 then
                        1.0 + float i
                    else
                        2.0 + float (i - 9)

                run.Config,
                Some(
                    { Config = run.Config
                      Parameters = 1L
                      BestEpoch = 1
                      TestError = float (i % 9)
                      TestNll = 1.0
                      History =
                        [ { Epoch = 1
                            LearningRate = 0.1
                            TrainLoss = 1.0
                            ExpectedAccuracyUnderMixing = 1.0
                            ValidationError = 1.0
                            ValidationNll = 1.0 } ] },
                    Some
                        { Seconds = 99.0
                          ImagesPerSecond = 1.0
                          EpochSeconds = [ 77.0; 0.5 * seconds; 1.5 * seconds ]
                          Jobs = 1 }
                ))

        let found = Study.ofRuns study runs

        for i, row in List.indexed found.Rows do
            Expect.equal
                row.TimeRatio
                (Some(Statistics.spread [ 1.0 + float i; (2.0 + float i) / 2.0 ]))
                $"{row.Variant}: seed by seed"

            Expect.equal
                row.Difference
                (if i = 0 then
                     None
                 else
                     Some
                         { Centre = float i
                           HalfWidth = Some 0.0 })
                $"{row.Variant}: from the first"

        Expect.stringContains (Study.text study found) "of none's" "what it is a share of"

        inFolder (fun folder ->
            let out = Path.Combine(folder, "out")

            let text, _ = succeed ([ "study"; "time"; "--out"; out; "--seeds"; "1" ] @ tiny)

            let found = result (Path.Combine(out, "study.json"))
            Expect.equal found.Rows.Head.TimeRatio (Some { Mean = 1.0; Deviation = None }) "none"

            for row in found.Rows do
                Expect.isGreaterThan row.TimeRatio.Value.Mean 0.0 row.Variant

            Expect.stringContains text "one run at a time" "how it was measured"))

let private failing =
    testCase "a study whose runs fail shows what there is, and exits with 1" (fun () ->
        inFolder (fun folder ->
            let out = Path.Combine(folder, "out")

            let code, text, err =
                patchup (
                    [ "study"; "manifold-alpha"; "--out"; out ]
                    @ tiny
                    @ [ "--base"; "learningRate=1e30"; "--base"; "momentum=0" ]
                )

            Expect.equal code 1 err
            Expect.isTrue (Regex.IsMatch(text, @"validation error, % +missing +missing")) text

            Expect.stringContains
                err
                $"5 of 5 runs failed; 'patchup sweep status {out}/sweep.json --out {out}' says which and why."
                "what to do"

            Expect.equal (result (Path.Combine(out, "study.json"))).Best [] "none is the best"))

let private refusing =
    testCase "what a study cannot be is refused in a line, and nothing is written" (fun () ->
        inFolder (fun folder ->
            let out = Path.Combine(folder, "out")

            let images =
                Path.Combine(Docs.root, "paper-repro", "Data", "cifar10-jpeg-6000.tar.gz")

            for arguments, expected in
                [ [ "tems-soft" ], "did you mean terms-soft?"
                  [], "a name is needed; 'patchup study' lists them"
                  [ "time"; "--scale"; "papr" ], "did you mean paper?"
                  [ "time"; "--scale"; "paper" ],
                  "'patchup data fetch cifar-100' downloads; name its folder with --data"
                  [ "time"; "--scale"; "paper"; "--data"; images; "--base"; "device=cpu" ],
                  "CIFAR-100, whose preset was asked for, has 100 and 32 x 32. Name that data set with --data."
                  [ "time"; "--data"; Path.Combine(folder, "none") ], "no such file"
                  [ "time"; "--seeds"; "0" ], "seeds 0: it must lie in 1 .. 1000"
                  [ "time"; "--jobs"; "2" ], "time measures times, one run at a time"
                  [ "sites-soft"; "--jobs"; "0" ], "jobs 0: it must lie in 1 .. 256"
                  [ "sites-soft"; "--base"; "epoch=3" ], "study sites-soft: base: 'epoch' is not a setting"
                  [ "terms-soft"; "--base"; "width=0" ], "width 0"
                  [ "sites-soft"; "--base"; "epochs" ], "study: --base epochs: it is NAME=VALUE"
                  [ "sites-soft"; "--base"; "method=none" ], "a sweep has methods"
                  [ "sites-soft"; "--base"; "model=wrn-10-1" ], "a sweep has models"
                  [ "sites-soft"; "--foo" ], "unrecognized" ] do
                let code, printed, err = patchup ("study" :: arguments @ [ "--out"; out ])
                Expect.equal (code, printed) (2, "") $"{arguments}: {err}"
                Expect.stringContains err expected $"{arguments}"
                Expect.hasLength (err.TrimEnd().Split '\n') 1 $"{arguments}"

            Expect.isFalse (Directory.Exists out) "nothing is written"))

let private everyTable =
    testCase "every table of the paper, from the records of a small sweep" (fun () ->
        inFolder (fun folder ->
            let at (name: string) = Path.Combine(folder, name)
            let seeds = [ "--seeds"; "1" ]

            for study in Study.all do
                let name = study.Name
                succeed ([ "study"; name; "--out"; at name ] @ seeds @ tiny) |> ignore

            // A network of each seed and method of the tables is not needed for a table to be there.
            let weights =
                Directory.GetFiles(Path.Combine(at "time", "weights"), "none-*.safetensors")

            succeed ([ "evaluate"; "--images"; "4" ] @ List.ofArray weights) |> ignore

            let printed, err =
                succeed ([ "tables"; at "time" ] @ [ for study in Study.all -> at study.Name ])

            Expect.equal err "" "no warnings: runs that several studies have are the same"
            Expect.isFalse (printed.Contains "No record") printed

            for place in
                [ "tables 1, 2, 3, 11, 12"
                  "tables 4, 10"
                  "table 5"
                  "table 6"
                  "table 7"
                  "table 8"
                  "figure 4"
                  "figure 5"
                  "figures 7, 14"
                  "appendix C"
                  "figure 13 (a)"
                  "figure 13 (b)"
                  "figure 13 (c)"
                  "figure 13 (d)" ] do
                Expect.stringContains printed $"({place})" place

            // Of the ablations no cell is missing, and the figures are drawn.
            for study in Study.all do
                if study.View <> StudyView.Times then
                    let table name = Path.Combine(at "time", "tables", name)

                    Expect.isFalse ((File.ReadAllText(table $"{study.Name}.md")).Contains "missing") study.Name

            for figure in [ "corrupted"; "fgsm"; "activations"; "gamma-soft"; "manifold-alpha" ] do
                Expect.isTrue (File.Exists(Path.Combine(at "time", "tables", $"{figure}.png"))) figure))

let tests =
    testSequenced (
        testList
            "studies"
            [ expanding
              listing
              comparing
              noting
              searching
              timing
              failing
              refusing
              everyTable ]
    )
