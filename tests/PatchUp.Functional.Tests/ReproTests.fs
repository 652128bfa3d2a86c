module PatchUp.Tests.ReproTests

open System
open System.IO
open System.Text.Json
open Expecto
open PatchUp.Functional
open PatchUp.Repro
open TorchSharp

// A folder of its own for a test, gone afterwards.
let inFolder (test: string -> 'a) : 'a =
    let folder = Directory.CreateTempSubdirectory "patchup-test-"

    try
        test folder.FullName
    finally
        folder.Delete true

// The program in this process: exit code, standard output and standard error.
let patchup (arguments: string list) : int * string * string =
    use out = new StringWriter()
    use err = new StringWriter()

    let code =
        Program.run
            { Out = out
              Err = err
              IsTerminal = false }
            (Array.ofList arguments)

    code, out.ToString(), err.ToString()

let succeed (arguments: string list) : string * string =
    let code, out, err = patchup arguments
    Expect.equal code 0 $"{arguments} succeeds: {err}"
    out, err

// Training in well under a second.
let private small =
    [ "--width"
      "1"
      "--epochs"
      "2"
      "--train-per-class"
      "6"
      "--test-per-class"
      "2"
      "--batch-size"
      "20" ]

let private files (folder: string) =
    Directory.GetFiles(folder, "*", SearchOption.AllDirectories)
    |> Array.map (fun path -> Path.GetRelativePath(folder, path), File.ReadAllBytes path)
    |> Array.sortBy fst

// What must be the same wherever and whenever it is made: everything but timings.
let private reproducible (folder: string) =
    files folder
    |> Array.filter (fun (path, _) -> not (path.StartsWith("timings", StringComparison.Ordinal)))

let private onlyFile (folder: string) =
    Expect.hasLength (Directory.GetFiles folder) 1 $"{folder} holds one file"
    Directory.GetFiles(folder)[0]

let private readRecord (out: string) : Record =
    File.ReadAllText(onlyFile (Path.Combine(out, "records")))
    |> Json.tryRead<Record>
    |> Option.get

let private statistics =
    testList
        "statistics"
        [ testCase "Student's t against its tables" (fun () ->
              for freedom, level, quantile in
                  [ 1, 0.95, 12.706
                    2, 0.95, 4.303
                    3, 0.95, 3.182
                    9, 0.95, 2.262
                    30, 0.95, 2.042
                    1000, 0.95, 1.962
                    5, 0.99, 4.032 ] do
                  Expect.floatClose
                      { absolute = 5e-4; relative = 0.0 }
                      (Statistics.studentT level freedom)
                      quantile
                      $"{level} at {freedom} degrees of freedom")

          testCase "sample standard deviation and paired interval of three seeds" (fun () ->
              let spread = Statistics.spread [ 2.0; 4.0; 9.0 ]
              Expect.equal spread.Mean 5.0 "mean"
              Expect.floatClose Accuracy.high spread.Deviation.Value (sqrt 13.0) "n - 1 in the denominator"

              // Differences 1, 2, 6: mean 3, standard deviation sqrt 7.
              let interval = Statistics.pairedDifference [ 2.0; 4.0; 9.0 ] [ 3.0; 6.0; 15.0 ]
              Expect.equal interval.Centre 3.0 "the mean of the differences"

              Expect.floatClose
                  { absolute = 2e-3; relative = 0.0 }
                  interval.HalfWidth.Value
                  (4.303 * sqrt 7.0 / sqrt 3.0)
                  "t at two degrees of freedom, times the standard error")

          testCase "a single seed has neither deviation nor interval" (fun () ->
              Expect.equal (Statistics.spread [ 7.0 ]) { Mean = 7.0; Deviation = None } "spread"
              Expect.equal (Statistics.pairedDifference [ 3.0 ] [ 7.0 ]) { Centre = 4.0; HalfWidth = None } "interval") ]

let private metrics =
    testCase "error, likelihood and expected accuracy of known logits" (fun () ->
        Scope.value (fun () ->
            // Probabilities 1/4 and 3/4, then 1/2 and 1/2 (the first of equals is predicted).
            let logits =
                torch.tensor (Array2D.map float32 (array2D [ [ 0.0; log 3.0 ]; [ 1.0; 1.0 ] ]))

            let labels = torch.tensor [| 0L; 0L |]
            Expect.equal (Metrics.wrong logits labels) 1 "the first is wrong"

            Expect.floatClose
                Accuracy.medium
                (Metrics.negativeLogLikelihood logits labels)
                (log 4.0 + log 2.0)
                "sum of -log of the labels' probabilities"

            let targets = torch.tensor (array2D [ [ 0.9f; 0.1f ]; [ 0.7f; 0.3f ] ])

            Expect.sequenceEqual
                (Loss.expectedAccuracy (Targets.ofSoft targets) logits |> Array.map float32)
                [ 0.1f; 0.7f ]
                "0.1 of class 1, 0.7 of class 0"))

let private describing =
    let fractions (text: string) : Map<string, float> =
        let out, _ = succeed [ "describe"; text; "--json" ]
        use json = JsonDocument.Parse out

        let regions = json.RootElement.GetProperty "regions"

        Map
            [ for altered in regions[0].GetProperty("altered").EnumerateArray() do
                  altered.GetProperty("map").GetString(), altered.GetProperty("fraction").GetDouble() ]

    testList
        "describe"
        [ testCase "blocks 7 0.5 alter half of every map, in the paper's calibration what overlap leaves" (fun () ->
              let close = { absolute = 5e-4; relative = 0.0 }

              for text, values in
                  [ "blocks 7 0.5", [ 0.5; 0.5; 0.5 ]
                    "blocks 7 0.5 paper", [ 0.491; 0.632; 0.989 ] ] do
                  let found = fractions text

                  for map, value in List.zip [ "32x32"; "16x16"; "8x8" ] values do
                      Expect.floatClose close found[map] value $"{text} at {map}"

              let out, _ = succeed [ "describe"; "blocks 7 0.5 paper" ]
              Expect.stringContains out "0.491" "the table shows it")

          testCase "every method of the catalogue is described with a line that reads back" (fun () ->
              for method' in Catalogue.all do
                  let out, _ = succeed [ "describe"; method'.Name; "--json" ]
                  use json = JsonDocument.Parse out
                  let notation = json.RootElement.GetProperty("notation").GetString()
                  Expect.equal (Catalogue.parse notation) (Ok method'.Regularizer) method'.Name
                  Expect.isGreaterThan (json.RootElement.GetProperty("words").GetArrayLength()) 0 method'.Name)

          testCase "methods lists the whole catalogue" (fun () ->
              let out, _ = succeed [ "methods" ]
              let lines = out.TrimEnd().Split '\n' |> Array.skip 2
              let names = lines |> Array.map (fun line -> line.Split(' ')[0]) |> List.ofArray
              Expect.equal names (Catalogue.all |> List.map _.Name) "one line a method") ]

let private splitting =
    testCase "commas split methods only outside brackets and quotation marks" (fun () ->
        for text, parts in
            [ "none, mixup", [ "none"; "mixup" ]
              "oneOf [1, cells 0.5; 2, none], mixup", [ "oneOf [1, cells 0.5; 2, none]"; "mixup" ]
              "(oneOf [1, (cells 0.5)]),none", [ "(oneOf [1, (cells 0.5)])"; "none" ]
              "cells 0.5 |> swap |> after \"a,[b\", none", [ "cells 0.5 |> swap |> after \"a,[b\""; "none" ]
              "none,", [ "none"; "" ] ] do
            Expect.equal (Arguments.splitAtTopLevel text) parts text)

let private training =
    testList
        "training"
        [ testCase "the same command in two empty folders writes the same bytes" (fun () ->
              inFolder (fun first ->
                  inFolder (fun second ->
                      for folder in [ first; second ] do
                          succeed ([ "train"; "--method"; "hard-patchup"; "--seed"; "3"; "--out"; folder ] @ small)
                          |> ignore

                      Expect.hasLength (files first) 5 "record, timing, machine, weights and log"
                      Expect.equal (reproducible first) (reproducible second) "byte for byte")))

          testCase "equal seeds pair the methods: altering nothing is training plainly" (fun () ->
              inFolder (fun plain ->
                  inFolder (fun nowhere ->
                      succeed ([ "train"; "--method"; "none"; "--out"; plain ] @ small) |> ignore
                      succeed ([ "train"; "--method"; "nowhere"; "--out"; nowhere ] @ small) |> ignore
                      let plain, nowhere = readRecord plain, readRecord nowhere
                      Expect.equal nowhere.History plain.History "the same numbers in every epoch"
                      Expect.equal nowhere.TestNll plain.TestNll "and on the test set"
                      Expect.notEqual nowhere.Config plain.Config "two configurations")))

          testCase "another seed is another run" (fun () ->
              inFolder (fun first ->
                  inFolder (fun second ->
                      succeed ([ "train"; "--seed"; "1"; "--out"; first ] @ small) |> ignore
                      succeed ([ "train"; "--seed"; "2"; "--out"; second ] @ small) |> ignore
                      Expect.notEqual (readRecord first).History (readRecord second).History "different numbers")))

          testCase "the record says what was run, and how" (fun () ->
              inFolder (fun out ->
                  succeed (
                      [ "train"; "--method"; "mixup-2020"; "--label-smoothing"; "0.1"; "--out"; out ]
                      @ small
                  )
                  |> ignore

                  let record = readRecord out
                  Expect.equal record.Config.Loss "bce-on-softmax" "the method's own loss"
                  Expect.equal record.Config.LabelSmoothing 0.1 "label smoothing"
                  Expect.equal record.Config.Notation "everywhere |> blend (beta 1 1) |> at input" "the notation"
                  Expect.equal (record.History |> List.map _.Epoch) [ 1; 2 ] "every epoch"
                  Expect.equal (record.History |> List.map _.LearningRate) [ 0.1; 0.01 ] "divided by ten at half time"

                  let best =
                      record.History
                      |> List.minBy (fun epoch -> epoch.ValidationError, epoch.ValidationNll, epoch.Epoch)

                  Expect.equal record.BestEpoch best.Epoch "the best epoch by validation"))

          testCase "a brand-new method is one line of notation" (fun () ->
              inFolder (fun out ->
                  let line = "cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2) |> at input"
                  succeed ([ "train"; "--method"; line; "--out"; out ] @ small) |> ignore
                  let record = readRecord out
                  Expect.equal record.Config.Notation line "it is what was trained with"
                  let accuracy = record.History |> List.map _.ExpectedAccuracyUnderMixing
                  Expect.all accuracy (fun value -> value > 0.0 && value < 100.0) "expected accuracy under mixing"))

          testCase "a loss that is not finite fails the run, with its place and without results" (fun () ->
              for loss in [ "cross-entropy"; "bce-on-softmax" ] do
                  inFolder (fun out ->
                      let code, _, err =
                          patchup ([ "train"; "--learning-rate"; "1e9"; "--loss"; loss; "--out"; out ] @ small)

                      Expect.equal code 1 "a failed run"
                      Expect.stringContains err "not finite (epoch " "what and where"
                      Expect.isEmpty (files out) "nothing is written")) ]

let private tabulating =
    let record name seed error : Record =
        { Config =
            { Config.standard with
                Method = name
                Notation = "a |> b, \"c\""
                Seed = seed }
          Parameters = 7L
          BestEpoch = 1
          TestError = error
          TestNll = 2.0
          History = [] }

    testCase "a table pairs each method's runs with the first method's by seed" (fun () ->
        let comparison =
            [ record "none" 1 30.0
              record "new" 0 22.0
              record "none" 0 20.0
              record "new" 1 38.0 ]
            |> Tables.compare

        Expect.equal (comparison.Rows |> List.map _.Method) [ "none"; "new" ] "in the order of the methods"
        Expect.equal (comparison.Rows |> List.map _.TestError.Mean) [ 25.0; 30.0 ] "means"
        Expect.isNone comparison.Rows[0].Difference "the first is what others are compared with"

        // Differences 2 and 8: standard error 3, t 12.706.
        Expect.equal comparison.Rows[1].Difference.Value.Centre 5.0 "the mean difference"
        let markdown = Tables.markdown comparison
        Expect.stringContains markdown "| `none` | 25.00 ± 7.07 | 2.000 ± 0.000 | - | - |" "the first row"
        Expect.stringContains markdown "| +5.00 | [-33.12, +43.12] | `a \\|> b, \"c\"` |" "the second row"
        Expect.stringContains (Tables.text comparison) "[-33.12, +43.12]" "the same in a terminal"
        let line = (Tables.csv comparison).Split('\n')[2]
        Expect.stringStarts line "new,\"a |> b, \"\"c\"\"\",cross-entropy,2,30,11.3" "quoted where it must be")

let private comparing =
    let compare out more =
        succeed ([ "compare"; "--methods"; "none, soft-patchup"; "--out"; out ] @ small @ more)

    testList
        "compare"
        [ testCase "finished runs are skipped, missing and damaged ones done again, to the same bytes" (fun () ->
              inFolder (fun out ->
                  let table, _ = compare out [ "--seeds"; "2" ]
                  let before = reproducible out
                  let records = Directory.GetFiles(Path.Combine(out, "records")) |> Array.sort
                  Expect.hasLength records 4 "two methods, two seeds"

                  let again, err = compare out [ "--seeds"; "2" ]
                  Expect.equal err $"4 of 4 runs are finished already.{Environment.NewLine}" "no run"
                  Expect.equal again table "the same table"

                  File.Delete records[0]
                  File.WriteAllText(records[1], File.ReadAllText(records[1]).Substring 20)
                  let third, err = compare out [ "--seeds"; "2" ]
                  Expect.stringContains err "2 of 4 runs are finished already." "two are left"
                  Expect.stringContains err "not a sound record" "the damaged one is named"
                  Expect.equal third table "the same table"
                  Expect.equal (reproducible out) before "the same bytes"))

          testCase "runs do not depend on how many go on at the same time, nor on the verb" (fun () ->
              inFolder (fun one ->
                  inFolder (fun two ->
                      compare one [ "--seeds"; "1"; "--jobs"; "1" ] |> ignore
                      compare two [ "--seeds"; "1"; "--jobs"; "2" ] |> ignore
                      let before = reproducible one
                      Expect.equal (reproducible two) before "byte for byte"

                      let _, err = succeed ([ "train"; "--method"; "soft-patchup"; "--out"; one ] @ small)
                      Expect.stringContains err "1 of 1 runs are finished already." "train finds what compare did")))

          testCase "tables, pictures and JSON; a single seed has no interval" (fun () ->
              inFolder (fun out ->
                  let json, _ = compare out [ "--seeds"; "1"; "--json" ]
                  use parsed = JsonDocument.Parse json
                  let rows = parsed.RootElement.GetProperty "rows"
                  Expect.equal (rows.GetArrayLength()) 2 "a row for each method"

                  let errors =
                      [ for row in rows.EnumerateArray() ->
                            row.GetProperty("testError").GetProperty("mean").GetDouble() ]

                  let difference = rows[1].GetProperty("difference").GetProperty("centre").GetDouble()
                  Expect.equal difference (errors[1] - errors[0]) "from the first"

                  let markdown = File.ReadAllLines(Path.Combine(out, "comparison.md"))
                  Expect.stringContains markdown[2] "| `none` |" "the first method"
                  Expect.stringContains markdown[3] "±" "mean and deviation"
                  Expect.stringContains markdown[3] "| - |" "no interval"
                  let cells = markdown[3].Replace("\\|", "").Split '|'
                  Expect.equal cells.Length (markdown[0].Split '|').Length "the pipes of the notation are escaped"
                  let csv = File.ReadAllLines(Path.Combine(out, "comparison.csv"))
                  Expect.hasLength csv 3 "a header and two lines"

                  for name in [ "none"; "soft-patchup"; "all-methods" ] do
                      let picture = Images.read (Path.Combine(out, "pictures", name + ".png"))
                      Expect.isGreaterThan picture.Width 1000 $"eight images side by side in {name}")) ]

let private predicting =
    testCase "predict makes of the test images what the record says" (fun () ->
        inFolder (fun out ->
            succeed ([ "train"; "--out"; out ] @ small) |> ignore
            let all = Dataset.embedded ()
            let dataset = Dataset.take 6 2 all

            let images =
                [ for i in 0 .. dataset.Test.Labels.Length - 1 do
                      use image = (Augment.plain dataset.Test [| i |]).squeeze 0L
                      use bitmap = Images.bitmapOfTensor image
                      let path = Path.Combine(out, $"{i}.png")
                      Images.writePng path bitmap
                      path ]

            let weights = onlyFile (Path.Combine(out, "weights"))
            let json, _ = succeed ("predict" :: weights :: images @ [ "--json" ])
            use parsed = JsonDocument.Parse json

            let wrong =
                [ for prediction, label in Seq.zip (parsed.RootElement.EnumerateArray()) dataset.Test.Labels do
                      let classes = prediction.GetProperty "classes"
                      Expect.equal (classes.GetArrayLength()) 5 "the five likeliest"
                      classes[0].GetProperty("class").GetString() <> dataset.Classes[label] ]
                |> List.filter id

            Expect.equal
                (100.0 * float wrong.Length / float images.Length)
                (readRecord out).TestError
                "the same error"

            let _, model = Checkpoint.read weights
            Model.eval model

            let likeliest =
                Scope.value (fun () ->
                    let logits =
                        Augment.plain dataset.Test [| 0 |] |> model.Normalise |> Model.call model

                    float (torch.nn.functional.softmax(logits, 1L).max().item<float32>()))

            let classes = parsed.RootElement[0].GetProperty "classes"
            let first = classes[0].GetProperty "probability"
            Expect.floatClose Accuracy.medium (first.GetDouble()) likeliest "the network's own probability"
            Model.dispose model

            let text, _ = succeed [ "predict"; weights; images[0] ]
            Expect.hasLength (text.TrimEnd().Split '\n') 6 "the image and five classes"
            Dataset.dispose dataset
            Dataset.dispose all))

/// A PNG file of a fixed pattern, and its values in [0,1] `[1,3,side,side]`.
let private patterned (folder: string) (side: int) : string * torch.Tensor =
    let pixels =
        { Height = side
          Width = side
          Planes = Array.init (3 * side * side) (fun i -> byte (i * i / 7)) }

    use bitmap = Images.toBitmap pixels
    let path = Path.Combine(folder, $"{side}.png")
    Images.writePng path bitmap

    path,
    torch.tensor (
        pixels.Planes |> Array.map (fun value -> float32 value / 255.0f),
        ReadOnlySpan [| 1L; 3L; int64 side; int64 side |]
    )

let private foreign =
    testCase "predict evaluates weights that PyTorch wrote, as its network would" (fun () ->
        inFolder (fun folder ->
            let weights = Path.Combine(folder, "torch.safetensors")
            let list = Path.Combine(folder, "names.txt")
            File.WriteAllText(list, "ant\r\nbee\ncat\ndog\nelk\n")
            let imageNet = NetworkSettings.imageNet

            let settings width stride =
                { imageNet with
                    Width = width
                    Stride = stride
                    Classes = 5 }

            let cifar = NetworkSettings.cifar10.Mean, NetworkSettings.cifar10.Std

            for name, settings, side, arguments, (mean, std) in
                [ "resnet-18", settings (Some 4) 4, 224, [], (imageNet.Mean, imageNet.Std)
                  "resnet-50", settings (Some 4) 4, 64, [ "--size"; "64" ], (imageNet.Mean, imageNet.Std)
                  "resnet-18",
                  settings (Some 4) 1,
                  32,
                  [ "--size"; "32"; "--mean"; "0.5"; "0.25"; "0"; "--std"; "0.5"; "2"; "1" ],
                  ([ 0.5; 0.25; 0.0 ], [ 0.5; 2.0; 1.0 ])
                  "resnet-18",
                  settings (Some 4) 2,
                  64,
                  [ "--size"; "64"; "--mean"; "0.5"; "0.25"; "0"; "--std"; "0.5"; "2"; "1" ],
                  ([ 0.5; 0.25; 0.0 ], [ 0.5; 2.0; 1.0 ])
                  "wrn-10-1-2020", settings None 1, 32, [], cifar
                  "preact-resnet-18",
                  settings (Some 4) 2,
                  64,
                  [ "--size"; "64"; "--mean"; "0.5"; "0.25"; "0"; "--std"; "0.5"; "2"; "1" ],
                  ([ 0.5; 0.25; 0.0 ], [ 0.5; 2.0; 1.0 ]) ] do
                ModelTests.using (Architectures.create name settings 1UL) (fun model ->
                    ModelTests.disturb model

                    // Small logits, for probabilities that tell.
                    Scope.value (fun () ->
                        use _ = torch.no_grad ()

                        let _, last =
                            Model.state model
                            |> List.find (fun (part, _) -> part = $"{(Architectures.find name).Last}.weight")

                        last.mul_ (Scope.number 0.05) |> ignore)

                    let state () =
                        [ for name, tensor in Model.state model do
                              let dtype = if tensor.dtype = torch.int64 then "I64" else "F32"
                              "module." + name, dtype, List.ofArray tensor.shape, tensor.bytes.ToArray() ]

                    File.WriteAllBytes(weights, ModelTests.ofPyTorch (state ()))
                    let path, image = patterned folder side
                    use image = image
                    Model.eval model

                    let expected =
                        Scope.value (fun () ->
                            let channels (values: float list) =
                                torch.tensor (
                                    values |> List.map float32 |> Array.ofList,
                                    ReadOnlySpan [| 1L; 3L; 1L; 1L |]
                                )

                            let normal = image.sub(channels mean).div(channels std)
                            let logits = ModelTests.reference name settings model normal
                            torch.nn.functional.softmax(logits, 1L).data<float32>().ToArray())

                    let predict more =
                        let json, _ =
                            succeed ([ "predict"; weights; path; "--model"; name; "--json" ] @ arguments @ more)

                        use parsed = JsonDocument.Parse json

                        [ for guess in parsed.RootElement[0].GetProperty("classes").EnumerateArray() ->
                              guess.GetProperty("class").GetString(), guess.GetProperty("probability").GetDouble() ]

                    if name.StartsWith "resnet" && settings.Stride < 4 then
                        let code, _, err = patchup [ "predict"; weights; path; "--model"; name ]
                        Expect.equal code 2 "nothing is published for the small stem"
                        Expect.stringContains err "--size, --mean and --std" "what to say"

                    let found = Map(predict [])
                    Expect.isLessThan (Array.max expected) 0.999f $"{name}: probabilities that tell"

                    for index, probability in Array.indexed expected do
                        Expect.floatClose
                            { absolute = 1e-4; relative = 1e-3 }
                            found[string index]
                            (float probability)
                            $"{name}: class {index}"

                    // A network that diverged.
                    Scope.value (fun () ->
                        use _ = torch.no_grad ()
                        (Model.state model |> List.head |> snd).copy_(Scope.number nan) |> ignore)

                    let diverged = Path.Combine(folder, "diverged.safetensors")
                    File.WriteAllBytes(diverged, ModelTests.ofPyTorch (state ()))

                    for format in [ []; [ "--json" ] ] do
                        let code, out, err =
                            patchup ([ "predict"; diverged; path; "--model"; name ] @ arguments @ format)

                        Expect.equal (code, out) (1, "") "no prediction"
                        Expect.stringContains err "not finite" "why"

                    let likeliest = Array.IndexOf(expected, Array.max expected)

                    let names = [ "ant"; "bee"; "cat"; "dog"; "elk" ]
                    let named, _ = (predict [ "--class-names"; list ]).Head
                    Expect.equal named names[likeliest] $"{name}: its name")

            // What cannot be evaluated.
            let path, image = patterned folder 32
            image.Dispose()
            File.WriteAllText(list, "ant\nbee\n")

            for arguments, expected in
                [ [], "name the model of another program's weights"
                  [ "--size"; "32" ], "name their model with --model"
                  [ "--std"; "1"; "1"; "1" ], "--std is for another program's weights"
                  [ "--model"; "preact-resnet-19" ], "did you mean preact-resnet-18"
                  [ "--model"; "preact-resnet-34" ], "lacks layer1.2."
                  [ "--model"; "resnet-18" ], "no fc.weight in it such as a resnet-18 has"
                  [ "--model"; "wrn-10-1" ], "lacks bn1.weight, bn1.bias, bn1.running_mean and 1 more"
                  [ "--model"; "preact-resnet-18"; "--size"; "0" ], "size 0"
                  [ "--model"; "preact-resnet-18"; "--mean"; "1"; "2" ], "--mean"
                  [ "--model"; "preact-resnet-18"; "--std"; "1"; "0"; "1" ], "standard deviation"
                  [ "--model"; "preact-resnet-18"; "--class-names"; list ], "2 lines; the network has 5 classes" ] do
                let code, out, err = patchup ([ "predict"; weights; path ] @ arguments)
                let shown = String.Join(' ', arguments)
                Expect.equal (code, out) (2, "") $"{shown}: {err}"
                Expect.stringContains err expected shown
                Expect.hasLength (err.TrimEnd().Split '\n') 1 shown))

let private others =
    testList
        "other networks"
        [ testCase "each is trained, written, read and used" (fun () ->
              for name, width in
                  [ "wrn-10-1", None
                    "wrn-10-1-2020", None
                    "resnet-18", Some "2"
                    "resnet-50", Some "1" ] do
                  inFolder (fun out ->
                      let arguments =
                          match width with
                          | Some width -> [ "--width"; width ]
                          | None -> []

                      succeed (
                          [ "train"; "--model"; name; "--method"; "hard-patchup"; "--out"; out ]
                          @ arguments
                          @ List.skip 4 small
                          @ [ "--epochs"; "1" ]
                      )
                      |> ignore

                      let record = readRecord out
                      Expect.equal record.Config.Model name "the record's model"
                      Expect.equal (record.Config.Width |> Option.map string) width "its width"
                      let weights = onlyFile (Path.Combine(out, "weights"))
                      let found, model = Checkpoint.read weights
                      Expect.equal (found.Model, model.Name) (name, name) "the file's model"
                      Expect.equal (Model.parameterCount model) record.Parameters "its parameters"
                      Model.dispose model
                      let path, image = patterned out 32
                      image.Dispose()
                      succeed [ "predict"; weights; path ] |> ignore))

          testCase "a network is checked against sites and batches before it is built" (fun () ->
              let split: Split =
                  { Images = torch.zeros ([| 11L; 3L; 8L; 8L |], dtype = torch.uint8)
                    Labels = Array.init 11 (fun i -> i % 2) }

              let dataset =
                  { Name = "zeros"
                    Fingerprint = ""
                    Classes = [| "a"; "b" |]
                    MayMirror = true
                    Train = split
                    Test = split }

              let check model width notation batch () =
                  Setup.check
                      { Config.withMethod (Arguments.method' notation) Config.standard with
                          Model = model
                          Width = width
                          BatchSize = batch }
                      (Corpus.ofDataset dataset)

              let preAct, wide, slim =
                  check "preact-resnet-18" (Some 1), check "wrn-10-1" None, check "resnet-18" (Some 1)

              let after name =
                  $"cells 0.5 |> swap |> after \"{name}\""

              // 10 images to train on; the last map is 1 x 1, but 2 x 2 in the wide residual network.
              preAct "none" 10 ()
              DataModelTests.refused [ "batch size 3"; "of 10 training images one is left" ] (preAct "none" 3)
              wide "none" 3 ()
              preAct (after "layer4") 10 ()
              slim (after "relu") 10 ()
              wide (after "layer3") 10 ()
              wide "cells 0.5 |> swap |> at 5" 10 ()

              for name, refuse in [ "layer4", wide; "maxpool", slim; "head", preAct; "layer1.0", preAct ] do
                  DataModelTests.refused [ $"no site \"{name}\""; "0 = input, 1 = " ] (refuse (after name) 10)

              DataModelTests.refused
                  [ "no site 6 in wrn-10-1"; "5 = \"linear\"" ]
                  (wide "cells 0.5 |> swap |> at 6" 10)

              Dataset.dispose dataset)

          testCase "they are compared, and the notes name them" (fun () ->
              inFolder (fun out ->
                  let arguments =
                      [ "compare"; "--model"; "wrn-10-1"; "--methods"; "none, mixup"; "--seeds"; "1" ]

                  let table, _ =
                      succeed (arguments @ [ "--out"; out; "--epochs"; "1" ] @ List.skip 4 small)

                  Expect.stringContains table "wrn-10-1 (77,850 parameters)" "the notes"))

          testCase "models lists them with their sites, and shows one at any size" (fun () ->
              let out, _ = succeed [ "models" ]

              for listed in Architectures.all do
                  Expect.stringContains out $"{listed.Name} " listed.Name

              Expect.stringContains out "36,489,290" "parameters"
              Expect.stringContains out "1 maxpool 64x56x56, 2 layer1 256x56x56" "sites"
              Expect.stringContains out "wrn-D-K" "names that are not listed"
              let json, _ = succeed [ "models"; "--json" ]
              use parsed = JsonDocument.Parse json
              Expect.equal (parsed.RootElement.GetArrayLength()) Architectures.all.Length "all in JSON"

              let out, _ = succeed [ "models"; "wrn-16-2"; "--size"; "64"; "--classes"; "200" ]

              Expect.stringContains
                  out
                  "716,184 parameters at 200 classes"
                  "16-2 has 691,674 at 10, and 129 more a class"

              let lines = out.TrimEnd().Split '\n'

              Expect.equal
                  (lines[lines.Length - 5].Split(' ', StringSplitOptions.RemoveEmptyEntries))
                  [| "1"; "conv1"; "16x32x32" |]
                  "a site"

              let json, _ =
                  succeed [ "models"; "resnet-18"; "--size"; "32"; "--width"; "8"; "--json" ]

              use parsed = JsonDocument.Parse json
              let site = (parsed.RootElement.GetProperty "sites")[1]
              Expect.equal (site.GetProperty("name").GetString()) "relu" "the stem for small images"

              Expect.equal
                  [ for length in site.GetProperty("shape").EnumerateArray() -> length.GetInt32() ]
                  [ 8; 32; 32 ]
                  "of that width") ]

let private drawing =
    testCase "draw writes one picture that follows from its seed" (fun () ->
        inFolder (fun folder ->
            let image name (shade: byte) =
                let path = Path.Combine(folder, name)

                let pixels =
                    { Height = 20
                      Width = 30
                      Planes = Array.init 1800 (fun i -> byte i + shade) }

                use bitmap = Images.toBitmap pixels
                Images.writePng path bitmap
                path

            let a, b = image "a [x].png" 0uy, image "b.png" 90uy

            let draw (method': string) (seed: int) =
                let out = Path.Combine(folder, "out.png")

                succeed [ "draw"; method'; "--images"; a; b; "--out"; out; "--seed"; string seed ]
                |> ignore

                Images.read out |> ignore
                File.ReadAllBytes out

            for method' in Catalogue.all do
                draw method'.Name 0 |> ignore

            let nested =
                "sequence [cells 0.3 |> blank |> at 2 |> rescale Sample; rect uniform |> swap |> atAll [1; 3] |> twoTerm]"

            Expect.equal (draw nested 1) (draw nested 1) "the same seed, the same picture"
            Expect.notEqual (draw nested 1) (draw nested 2) "another seed, another picture"

            // Both at the input, the objective would stand on the wrong step.
            draw "sequence [rect uniform |> swap |> at 3 |> twoTerm; cells 0.3 |> swap |> at 1]" 0
            |> ignore))

let private refusals =
    let line (err: string) =
        err.EndsWith(Environment.NewLine, StringComparison.Ordinal)
        && err.TrimEnd().Split('\n').Length = 1

    testCase "what the user can put right is one line and exit code 2, and writes nothing" (fun () ->
        inFolder (fun folder ->
            let at name = Path.Combine(folder, name)
            let image = at "image.png"

            use bitmap =
                Images.toBitmap
                    { Height = 8
                      Width = 8
                      Planes = Array.zeroCreate 192 }

            Images.writePng image bitmap
            File.WriteAllBytes(at "cut.png", (File.ReadAllBytes image)[..50])
            File.WriteAllText(at "file", "text")
            File.WriteAllBytes(at "cut.tar.gz", [| 0x1fuy; 0x8buy; 8uy; 0uy; 1uy |])

            for set in [ "train"; "test" ] do
                for name in [ "one"; "two" ] do
                    Directory.CreateDirectory(at $"data/{set}/{name}") |> ignore

                File.Copy(image, at $"data/{set}/one/1.png")

            let out = at "out"
            let before = files folder

            for arguments, expected in
                [ [], "a verb is needed: methods"
                  [ "trian" ],
                  "the verbs are methods, models, describe, laws, verify, draw, gallery, data, train, evaluate, tables, predict, compare, sweep, study"
                  [ "methods"; "--jsn" ], "the options are --json"
                  [ "train"; "--foo" ], "--learning-rate"
                  [ "describe" ], "<method>"
                  [ "describe"; "mixap" ], "did you mean 'mixup'"
                  [ "describe"; "cells 0.5 |> swep" ], "at character 14"
                  [ "describe"; "blocks 7 1.5" ], "[0, 1]"
                  [ "draw"; "mixup"; "--images"; image; "--out"; out ], "two to eight"
                  [ "draw"; "mixup"; "--images"; image; at "none.png"; "--out"; out ], "no such file"
                  [ "draw"; "mixup"; "--images"; image; at "cut.png"; "--out"; out ], "cut.png"
                  [ "draw"; "mixup"; "--images"; image; image; "--out"; at "no/out.png" ], "does not exist"
                  [ "draw"; "mixup"; "--images"; image; image ], "--out"
                  [ "draw"; "mixup"; "--images"; image; image; "--out"; out; "--size"; "4" ], "8 .. 512"
                  [ "gallery" ], "--out"
                  [ "gallery"; "--out"; at "no/out.png" ], "does not exist"
                  [ "train"; "--epochs"; "0"; "--out"; out ], "1 .. 100000"
                  [ "train"; "--epochs"; "many"; "--out"; out ], "'many'"
                  [ "train"; "--width"; "0"; "--out"; out ], "width 0"
                  [ "train"; "--model"; "resnet-19"; "--out"; out ], "did you mean resnet-18?"
                  [ "train"; "--model"; "wrn-10-1"; "--width"; "8"; "--out"; out ], "wrn-10-1 says itself how wide"
                  [ "models"; "wrn-12-1" ], "6 n + 4"
                  [ "models"; "wrn-10-101" ], "up to 100"
                  [ "models"; "wrn-10-1"; "--width"; "16" ], "leave the width out"
                  [ "models"; "resnet-50"; "--size"; "0" ], "1 .. 4096"
                  [ "models"; "resnet-50"; "--classes"; "0" ], "number of classes 0"
                  [ "models"; "--width"; "8" ], "name it"
                  [ "train"; "--batch-size"; "-5"; "--out"; out ], "batch size -5"
                  [ "train"; "--learning-rate"; "0"; "--out"; out ], "positive and finite"
                  [ "train"; "--label-smoothing"; "1.5"; "--out"; out ], "[0, 1]"
                  [ "train"; "--clean-loss"; "-1"; "--out"; out ], "clean loss -1"
                  [ "train"; "--loss"; "hinge"; "--out"; out ], "cross-entropy, bce-on-softmax, brier"
                  [ "train"; "--threads"; "0"; "--out"; out ], "threads 0"
                  [ "train"; "--train-per-class"; "501"; "--out"; out ], "500"
                  [ "train"; "--method"; "zebra"; "--out"; out ], "zebra"
                  [ "train"; "--method"; "cells 0.5 |> swap |> at 9"; "--out"; out ], "no site 9"
                  [ "train"; "--data"; at "nowhere"; "--out"; out ], "no such file or folder"
                  [ "train"; "--data"; at "cut.tar.gz"; "--out"; out ], "not a whole"
                  [ "train"; "--data"; at "data"; "--out"; out ], "train/two holds no image"
                  [ "train"; "--out"; at "file/out" ] @ small, "--out"
                  [ "compare"; "--methods"; "none, none"; "--out"; out ], "listed twice"
                  [ "compare"; "--methods"; "none, hard-patchap"; "--out"; out ], "did you mean 'hard-patchup'"
                  [ "compare"; "--methods"; "none, rect uniform |> swap |> at 7"; "--out"; out ]
                  @ small,
                  "no site 7"
                  [ "compare"; "--seeds"; "0"; "--out"; out ], "seeds 0"
                  [ "compare"; "--jobs"; "0"; "--out"; out ], "jobs 0"
                  [ "predict"; at "file"; image ], "not a sound safetensors file"
                  [ "predict"; at "none.safetensors"; image ], "no such file"
                  [ "predict"; at "file" ], "at least one image" ] do
                let code, written, err = patchup arguments
                let shown = String.Join(' ', arguments)
                Expect.equal code 2 $"{shown}: {err}"
                Expect.isTrue (line err) $"{shown}: one line, not {err}"
                Expect.stringStarts err "patchup: " shown
                Expect.stringContains err expected shown
                Expect.equal written "" $"{shown}: nothing on standard output"

            Expect.equal (files folder) before "no file is new or changed"
            Expect.isFalse (Directory.Exists out) "nor a folder"))

let private helping =
    testCase "help is no error and shows the defaults" (fun () ->
        for verb in
            [ "methods"
              "models"
              "describe"
              "draw"
              "train"
              "evaluate"
              "predict"
              "compare" ] do
            let out, err = succeed [ verb; "--help" ]
            Expect.stringContains out $"patchup {verb}" verb
            Expect.equal err "" verb

        let out, _ = succeed [ "compare"; "--help" ]

        for shown in
            [ CompareArguments.DefaultMethods
              $"(default {Config.standard.Epochs})"
              $"(default {Config.standard.LearningRate})" ] do
            Expect.stringContains out shown "compare's defaults"

        let out, _ = succeed [ "--help" ]
        Expect.stringContains out "compare" "the verbs")

// Resident memory after everything that can be collected is.
let private resident () =
    for _ in 1..2 do
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking = true, compacting = true)
        GC.WaitForPendingFinalizers()

    float Environment.WorkingSet

let private soak =
    testCase "5,000 training steps hold live tensors exactly flat and memory on a slope below 1 KiB a step" (fun () ->
        torch.set_num_threads 1

        let model =
            Architectures.create
                "preact-resnet-18"
                { NetworkSettings.cifar10 with
                    Width = Some 1 }
                1UL

        let staged = Trainer.staged model

        let sgd =
            Model.state model
            |> List.filter (fun (_, tensor) -> tensor.requires_grad)
            |> Sgd.create 0.9 1e-4

        let labels = [| 0; 1; 2; 3 |]
        use images = torch.zeros (4L, 3L, 8L, 8L)
        let shapes = Attach.shapes staged images

        let methods =
            [| for name in [ "hard-patchup"; "soft-patchup"; "cutout"; "dropblock" ] ->
                   (Catalogue.tryFind name).Value.Regularizer |]

        let step i =
            let info =
                { BatchInfo.create 4 shapes with
                    First = 4 * i }

            let plan = Plan.draw (Key.ofSeed 5) info methods[i % methods.Length]

            // Outside any scope, so that nothing is freed that the step itself does not free.
            let batch =
                Batch.create (model.Normalise images) (Targets.ofIndices torch.CPU 10 labels)

            let struct (loss, _) =
                Trainer.step CrossEntropy (fun () -> Sgd.step 0.01 sgd) staged plan batch

            Batch.dispose batch
            Expect.isTrue (Double.IsFinite loss) "a finite loss"

        Model.train model
        step 0
        let live = torch.Tensor.TotalCount

        // Gives the memory after every hundredth step.
        let run count =
            [ for i in 0 .. count - 1 do
                  step i
                  Expect.equal torch.Tensor.TotalCount live $"live tensors after step {i}"

                  if i % 100 = 99 then
                      float i, resident () ]

        // Long enough that the megabyte by which the runtime's own memory comes and goes is no slope.
        let measured = run 5000 |> List.filter (fun (step, _) -> step >= 200.0)

        // Least squares.
        let meanStep = measured |> List.averageBy fst
        let meanBytes = measured |> List.averageBy snd

        let slope =
            (measured
             |> List.sumBy (fun (step, bytes) -> (step - meanStep) * (bytes - meanBytes)))
            / (measured |> List.sumBy (fun (step, _) -> (step - meanStep) ** 2.0))

        Sgd.dispose sgd
        Model.dispose model
        Expect.isLessThan slope 1024.0 "bytes a step")

let private cleanLoss =
    testCase "a clean loss is added once a step, by the pass that finds the saliency if there is one" (fun () ->
        let all = Dataset.embedded ()
        let dataset = Dataset.take 2 2 all

        /// The parameters after a run of one step, and in how many passes normalisations saw a batch.
        let run method' change =
            let config =
                { Config.withMethod (Arguments.method' method') Config.standard with
                    Width = Some 1
                    Epochs = 1
                    TrainPerClass = 2
                    TestPerClass = 2 }

            let trained = Trainer.run Control.alone (change config) (Corpus.ofDataset dataset)

            let passes =
                [ for name, buffer in Model.state trained.Model do
                      if name.EndsWith "num_batches_tracked" then
                          buffer.item<int64>() ]

            let weights =
                [| for parameter in trained.Model.Module.parameters () do
                       yield! parameter.data<float32>().ToArray() |> Array.map float |]

            Model.dispose trained.Model
            weights, List.distinct passes

        let near what (expected: float[]) (found: float[]) =
            Array.iter2 (fun a b -> Expect.isLessThan (abs (a - b)) 1e-5 what) expected found

        // Beside the plain loss the clean loss is the same again, and so is the step of twice the learning rate with half the decay.
        let twice, _ =
            run "none" (fun config ->
                { config with
                    LearningRate = 2.0 * config.LearningRate
                    WeightDecay = config.WeightDecay / 2.0 })

        let clean, passes = run "none" (fun config -> { config with CleanLoss = 1.0 })

        near "the loss and the clean loss" twice clean
        Expect.equal passes [ 2L ] "its pass and the step's"

        let plain, passes = run "none" id
        Expect.isGreaterThan (Array.map2 (-) plain clean |> Array.map abs |> Array.max) 1e-3 "it matters"
        Expect.equal passes [ 1L ] "the step's"

        for name, expected in
            [ "puzzlemix", 1L
              "puzzlemix-tiny-imagenet", 2L
              // Noise in every batch: the pass under noise is the clean one.
              "puzzle 1 1.2 0.5 0.2 3 4 0.8 0 1 10 4 |> swap |> transported", 1L ] do
            Expect.equal (run name id |> snd) [ expected ] name

        Expect.equal
            (run "puzzle 1 1.2 0.5 0.2 3 4 0.8 0 1 10 4 |> swap |> transported" (fun config ->
                { config with CleanLoss = 1.0 })
             |> snd)
            [ 2L ]
            "one clean pass under noise"

        Dataset.dispose dataset
        Dataset.dispose all)

let private tidy =
    testCase "a whole run leaves no tensor behind" (fun () ->
        let run () =
            let all = Dataset.embedded ()
            let dataset = Dataset.take 6 2 all
            let methods = Arguments.method' "soft-patchup"

            let config =
                { Config.withMethod methods Config.standard with
                    Width = Some 1
                    Epochs = 2
                    TrainPerClass = 6
                    TestPerClass = 2 }

            (Trainer.run Control.alone config (Corpus.ofDataset dataset)).Model
            |> Model.dispose

            Dataset.dispose dataset
            Dataset.dispose all

        // Not Tensor.TotalCount, which counts each parameter of a disposed module as alive for good.
        let live () =
            DisposeScopeManager.Statistics.ThreadTotalLiveCount

        let before = live ()
        run ()
        Expect.equal (live ()) before "live tensors")

let tests =
    testSequenced (
        testList
            "paper-repro"
            [ statistics
              metrics
              describing
              splitting
              tabulating
              training
              comparing
              predicting
              foreign
              others
              drawing
              refusals
              helping
              cleanLoss
              tidy
              soak ]
    )
