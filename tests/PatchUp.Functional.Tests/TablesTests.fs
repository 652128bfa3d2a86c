/// `patchup tables`: cells, renderers, grouping, and the verb on a folder of records.
module PatchUp.Tests.TablesTests

open System.IO
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.EngineTests
open PatchUp.Tests.ReproTests

let private column better =
    { Heading = "error, %"
      Digits = 2
      Better = better
      Source = None }

let private table =
    { Name = "t"
      Title = "A & B"
      Where = "C"
      IsOneScale = false
      Picture = None
      Columns =
        [ column Lower
          { column Neither with
              Source = Some "Someone, 200 epochs" } ]
      Rows =
        [ { Method = "a_b"
            Cells = [ [ 1.0; 3.0 ]; [] ]
            Caveat = None }
          { Method = "c,\"d\""
            Cells = [ [ 2.001 ]; [ 1.5 ] ]
            Caveat = None }
          { Method = "e|f"
            Cells = [ []; [] ]
            Caveat = None } ]
      Notes = [] }

let private record method' seed epochs error : Record =
    { Config =
        { Config.standard with
            Data = "CIFAR-10, some"
            Method = method'
            Notation = method'
            Epochs = epochs
            Seed = seed }
      Parameters = 1L
      BestEpoch = 1
      TestError = error
      TestNll = 1.0
      History = [] }

let private found records : PaperTables.Found =
    { Records = [ for each in records -> each, None ]
      Evaluations = [] }

/// What a suite found on ten images.
let private evaluated suite config (result: obj) : Evaluation =
    { Recipe = 1
      Suite = suite
      Weights = "w"
      Sha256 = "00"
      Model = "resnet-18"
      Foreign = None
      Method = None
      Config = config
      Data = "set"
      Fingerprint = "00"
      Images = 10
      Selection = ""
      Seed = 0
      Threads = 1
      Device = "cpu"
      Result = Json.node result }

let tests =
    testList
        "tables"
        [ testCase
              "Markdown: best in bold with its ties, no deviation of one seed, missing cells, published columns unranked"
              (fun () ->
                  Expect.equal
                      (PaperTable.markdown table)
                      "## A & B: C\n\n\
                   | method | error, % | error, % (Someone, 200 epochs) |\n\
                   | --- | --- | --- |\n\
                   | `a_b` | **2.00 ± 1.41** | - |\n\
                   | `c,\"d\"` | **2.00** (1) | 1.50 |\n\
                   | `e\\|f` | missing | - |\n\n\
                   In brackets after a cell: how many seeds it is of, where these are not 2; means of other seeds are not to be compared closely."
                      "the table")

          testCase "the best may be the lowest, the highest or none" (fun () ->
              let cells = [ [ 1.0 ]; [ 2.0 ]; [] ]
              Expect.equal (PaperTable.best (column Lower) cells) [ true; false; false ] "lowest"
              Expect.equal (PaperTable.best (column Higher) cells) [ false; true; false ] "highest"
              Expect.equal (PaperTable.best (column Neither) cells) [ false; false; false ] "none")

          testCase "CSV is quoted, its numbers unrounded" (fun () ->
              Expect.equal
                  (PaperTable.csv table)
                  "method,column,source,mean,sd,seeds,caveat\n\
                   a_b,\"error, %\",,2,1.4142135623730951,2,\n\
                   a_b,\"error, %\",\"Someone, 200 epochs\",,,0,\n\
                   \"c,\"\"d\"\"\",\"error, %\",,2.001,,1,\n\
                   \"c,\"\"d\"\"\",\"error, %\",\"Someone, 200 epochs\",1.5,,1,\n\
                   e|f,\"error, %\",,,,0,\n\
                   e|f,\"error, %\",\"Someone, 200 epochs\",,,0,"
                  "the file")

          testCase "LaTeX is escaped" (fun () ->
              let text = PaperTable.latex table
              Expect.stringContains text "\\caption{A \\& B: C}" "caption"
              Expect.stringContains text "a\\_b & \\textbf{2.00 $\\pm$ 1.41} & - \\\\" "a row"

              Expect.equal
                  (PaperTable.escape "\\~^<%#")
                  "\\textbackslash{}\\textasciitilde{}\\textasciicircum{}\\textless{}\\%\\#"
                  "signs")

          testCase "the best is told by what is shown, and what rounds to nothing has no sign" (fun () ->
              // Both are shown as 2.67: in binary 2.675 lies below itself, and Math.Round makes 2.68 of it.
              Expect.equal (PaperTable.best (column Lower) [ [ 2.675 ]; [ 2.67 ] ]) [ true; true ] "equal as shown"

              Expect.equal
                  (PaperTable.best (column Lower) [ [ 0.124 ]; [ 0.13 ] ])
                  [ true; false ]
                  "not equal as shown"

              let shown =
                  PaperTable.markdown
                      { table with
                          Columns = [ column Neither ]
                          Rows =
                              [ { Method = "m"
                                  Cells = [ [ -0.001 ] ]
                                  Caveat = None } ] }

              Expect.stringContains shown "| `m` | 0.00 |" "no -0.00")

          testCase "what is not to be ranked is marked, with why, and never the best" (fun () ->
              let table =
                  { table with
                      Rows =
                          table.Rows
                          |> List.mapi (fun i row ->
                              if i = 0 then
                                  { row with
                                      Cells = [ [ 1.0; 1.0 ]; [] ]
                                      Caveat = Some "hides gradients" }
                              else
                                  row) }

              let markdown = PaperTable.markdown table
              Expect.stringContains markdown "| `a_b` † | 1.00 ± 0.00 | - |" "marked"
              Expect.stringContains markdown "| **2.00** (1) |" "the best of those that are ranked"
              Expect.stringEnds markdown "† a_b: hides gradients; it is not ranked." "why"
              Expect.stringContains (PaperTable.latex table) "a\\_b $\\dagger$ & 1.00" "LaTeX"
              Expect.stringContains (PaperTable.csv table) "2,hides gradients" "CSV")

          testCase "published numbers are those of the data set itself" (fun () ->
              for data, expected in
                  [ "CIFAR-10 (JPEG copy), 6,000 images", 4
                    "cifar-10-batches-bin", 4
                    "CIFAR-100", 5
                    "cifar-1000", 0
                    "tiny-imagenet-200", 1
                    "Tiny-ImageNet", 1
                    "ImageNet", 2
                    "imagenette", 0
                    "ImageNet-100", 0
                    "ImageNet-1000", 2
                    "ImageNet-R", 0
                    "cifar-10.1", 0
                    "cifar-10-lt", 0
                    "tiny-imagenet-c", 0
                    "ImageNet-R", 0
                    "cifar-10.1", 0
                    "cifar-10-lt", 0
                    "tiny-imagenet-c", 0
                    "my ImageNet", 0 ] do
                  let tables, _ =
                      PaperTables.ofFound
                          { Records =
                              [ { record "none" 0 6 1.0 with
                                    Config =
                                        { (record "none" 0 6 1.0).Config with
                                            Data = data } },
                                None ]
                            Evaluations = [] }

                  let columns = tables.Head.Columns |> List.filter _.Source.IsSome |> List.length

                  Expect.equal columns expected data)

          testCase "seeds are averaged, other settings never; published numbers stand beside" (fun () ->
              let tables, missing =
                  found
                      [ record "mixup" 0 6 9.0
                        record "none" 0 6 10.0
                        record "none" 1 6 12.0
                        record "none" 0 7 50.0 ]
                  |> PaperTables.ofFound

              let cells name =
                  (tables.Head.Rows |> List.find (fun row -> row.Method = name)).Cells

              Expect.equal (List.head (cells "none")) [ 10.0; 12.0 ] "both seeds"

              Expect.contains
                  tables.Head.Notes
                  "Not all have the same seeds. mixup: 0. The others: 0, 1."
                  "who has which"

              Expect.equal (List.item 2 (cells "none")) [ 5.13 ] "OpenMixup's number"
              Expect.equal (List.head (cells "puzzlemix")) [] "no run"

              Expect.isFalse
                  (tables.Head.Columns
                   |> List.exists (fun column -> column.Source = Some "OpenMixup, WRN-28-8, 400 epochs"))
                  "CIFAR-100"

              Expect.equal
                  (tables |> List.map _.Name)
                  [ "trained-1"; "trained-2"; "trained-side-by-side" ]
                  "a table for each number of epochs, and both"

              let both = List.last tables
              Expect.equal both.Where "" "of two settings"

              Expect.equal
                  (both.Rows |> List.map (fun row -> row.Method, row.Cells))
                  [ "none", [ [ 10.0; 12.0 ]; [ 1.0; 1.0 ]; [ 50.0 ]; [ 1.0 ] ]
                    "mixup", [ [ 9.0 ]; [ 1.0 ]; []; [] ] ]
                  "no published ones"

              Expect.stringEnds both.Columns[2].Heading "(trained-2): test error, %" "whose column it is"

              Expect.equal missing.Length 17 "the others have no records")

          testCase "of one scale, the best is the best cell of all columns" (fun () ->
              let lines isOneScale =
                  let shown =
                      { table with
                          Columns = [ column Lower; column Lower ]
                          IsOneScale = isOneScale
                          Rows =
                              [ { Method = "a"
                                  Cells = [ [ 2.0 ]; [ 1.0 ] ]
                                  Caveat = None }
                                { Method = "b"
                                  Cells = [ [ 3.0 ]; [] ]
                                  Caveat = None } ] }

                  (PaperTable.markdown shown).Split '\n' |> List.ofArray |> List.skip 4

              let expected first =
                  [ $"| `a` | {first} | **1.00** |"; "| `b` | 3.00 | missing |" ]

              Expect.equal (lines true) (expected "2.00") "one"
              Expect.equal (lines false) (expected "**2.00**") "each")

          testCase
              "runs of an ablation come into its table, whatever trained them, and not into the methods'"
              (fun () ->
                  let runs (name: string) rate =
                      [ for variant in (Study.find name).Variants do
                            for seed in 0..1 ->
                                let notation =
                                    Catalogue.parse variant.Method
                                    |> Result.map Notation.show
                                    |> Result.defaultValue ""

                                let made =
                                    record (if variant.Method = "none" then "none" else notation) seed 6 (float seed)

                                { made with
                                    Config =
                                        { made.Config with
                                            Notation = notation
                                            LearningRate = rate * variant.Rate
                                            WeightDecay = 1e-4 / variant.Rate }
                                    History =
                                        [ { Epoch = 1
                                            LearningRate = rate
                                            TrainLoss = 1.0
                                            ExpectedAccuracyUnderMixing = 1.0
                                            ValidationError = 10.0 * rate * variant.Rate + float seed
                                            ValidationNll = 1.0 } ] } ]

                  let tables, missing =
                      found (
                          runs "terms-soft" 0.1
                          @ runs "terms-soft" 0.4
                          @ (runs "gamma-hard" 0.1 |> List.skip 2)
                          // The same runs by another name.
                          @ (runs "gamma-hard" 0.1
                             |> List.skip 2
                             |> List.truncate 2
                             |> List.map (fun made ->
                                 { made with
                                     Config = { made.Config with Method = "mine" } }))
                          // One of its methods is no ablation.
                          @ List.truncate 4 (runs "manifold-alpha" 0.1 |> List.take 1)
                      )
                      |> PaperTables.ofFound

                  let named (name: string) =
                      tables |> List.filter (fun table -> table.Name.StartsWith name)

                  Expect.equal
                      (named "terms-soft"
                       |> List.map (fun table -> table.Rows |> List.map (fun row -> row.Method, row.Cells[2])))
                      [ for rate in [ 0.1; 0.4 ] ->
                            [ for label, own in
                                  [ "none", 1.0
                                    "L1", 1.0
                                    "L2", 1.0
                                    "L1 + L2", 1.0
                                    "L2 at twice the rate", 2.0 ] ->
                                  let error = 10.0 * rate * own
                                  label, [ error; error + 1.0 ] ] ]
                      "by rate; one term at twice the rate belongs to the sum"

                  match named "gamma-hard" with
                  | [ grid ] ->
                      Expect.equal
                          (grid.Rows |> List.map (fun row -> row.Method, row.Cells.Length))
                          [ for size in [ 3; 5; 7; 9 ] -> $"block {size}", 4 ]
                          "the grid"

                      Expect.equal grid.Rows.Head.Cells.Head [] "not trained"
                      Expect.equal grid.Rows.Head.Cells[1] [ 1.0; 2.0 ] "trained"
                      Expect.isTrue grid.IsOneScale "one quantity"

                      match grid.Picture with
                      | Some picture ->
                          Expect.equal (List.map fst picture.Columns) [ "0.25"; "0.5"; "0.75"; "0.9" ] "gammas"
                      | None -> failtest "no picture"
                  | other -> failtest $"{other.Length} grids"

                  Expect.isEmpty (named "manifold-alpha") "one of its methods"
                  Expect.isTrue (missing |> List.exists _.Contains("figure 13 (a)")) "and that is said"

                  Expect.equal
                      [ for table in named "trained" do
                            if table.Where <> "" then
                                [ for row in table.Rows do
                                      if not row.Cells.Head.IsEmpty then
                                          row.Method ] ]
                      [ [ "none"; "everywhere |> blend (beta 0.5 0.5) |> atAny [0; 1; 2]" ]
                        [ "none" ] ]
                      "methods; the variants are in their tables")

          testCase "a run's time stands beside that of none with its seed and settings" (fun () ->
              let timingOf jobs seconds =
                  Some
                      { Seconds = 9.0
                        ImagesPerSecond = 1.0
                        EpochSeconds = [ 40.0; seconds ]
                        Jobs = jobs }

              let timing = timingOf 1

              let tables, _ =
                  PaperTables.ofFound
                      { Records =
                          [ record "none" 0 6 10.0, timing 2.0
                            record "none" 1 6 10.0, timing 4.0
                            record "mixup" 0 6 10.0, timing 3.0
                            record "mixup" 1 6 10.0, timing 5.0
                            record "mixup" 1 7 10.0, timing 8.0
                            // Beside another run, which takes time from it.
                            record "cutmix" 1 6 10.0, timingOf 2 9.0 ]
                        Evaluations = [] }

              match tables |> List.filter (fun table -> table.Name.StartsWith "time") with
              | [ six; seven; shared ] ->
                  Expect.isFalse (six.Notes |> List.exists _.Contains("same seeds")) "both have both"

                  Expect.equal
                      (shared.Rows |> List.map (fun row -> row.Method, row.Cells))
                      [ "cutmix", [ [ 9.0 ] ] ]
                      "no share of what ran alone"

                  Expect.stringContains (PaperTable.title shared) "runs at a time 2" "and that is said"

                  Expect.equal
                      (six.Rows |> List.map (fun row -> row.Method, row.Cells))
                      [ "none", [ [ 2.0; 4.0 ]; [ 1.0; 1.0 ] ]
                        "mixup", [ [ 3.0; 5.0 ]; [ 1.5; 1.25 ] ] ]
                      "by seed"

                  Expect.equal (seven.Rows |> List.map _.Cells) [ [ [ 8.0 ] ] ] "no none of these settings"
              | other -> failtest $"{other.Length} tables")

          testCase "runs and what was evaluated of them come into their tables" (fun () ->
              inFolder (fun folder ->
                  let data = writeImages (Path.Combine(folder, "data"))
                  let out = Path.Combine(folder, "out")

                  succeed (
                      [ "compare"; "--methods"; "none, mixup"; "--seeds"; "2"; "--out"; out ]
                      @ tiny data 1
                  )
                  |> ignore

                  let weights =
                      Directory.GetFiles(Path.Combine(out, "weights"), "*.safetensors")
                      |> List.ofArray

                  for path in Directory.GetFiles(Path.Combine(out, "timings")) do
                      let timing = File.ReadAllText path |> Json.tryRead<Timing> |> Option.get
                      Expect.equal timing.Jobs System.Environment.ProcessorCount "how many ran at a time"

                  for suite in [ "clean"; "deformed"; "activations"; "geometry" ] do
                      succeed ([ "evaluate" ] @ weights @ [ "--data"; data; "--suite"; suite ])
                      |> ignore

                  let printed, err = succeed [ "tables"; out ]
                  Expect.equal err "" "no warnings"

                  // A copy adds nothing, whatever its files are called: the same runs, and the same weights.
                  let copy = Directory.CreateDirectory(Path.Combine(folder, "copy")).FullName

                  for part in [ "records"; "evaluations" ] do
                      Directory.CreateDirectory(Path.Combine(copy, part)) |> ignore

                      for path in Directory.GetFiles(Path.Combine(out, part), "*.json") do
                          let renamed =
                              File.ReadAllText(path).Replace("\"weights\": \"", "\"weights\": \"copied-")

                          File.WriteAllText(Path.Combine(copy, part, "copied-" + Path.GetFileName path), renamed)

                  let both = Path.Combine(folder, "both")
                  Expect.equal (fst (succeed [ "tables"; out; copy; "--out"; both ])) printed "once"
                  Expect.isTrue (File.Exists(Path.Combine(both, "trained.csv"))) "--out"

                  let picture = Path.Combine(out, "tables", "activations.png")
                  Expect.isGreaterThan (Images.read picture).Height 300 "a picture"

                  Expect.isFalse (File.Exists(Path.Combine(out, "tables", "deformed.png"))) "the paper has none"

                  for title in
                      [ "## Clean error of trained networks"
                        "## Clean error of evaluated weights"
                        "## Error on deformed images"
                        "## Mean magnitude of activations"
                        "## Median slack of hidden mixes"
                        "## Training time"
                        "No record: Error under attack" ] do
                      Expect.stringContains printed title "every table"

                  let error method' =
                      Directory.GetFiles(Path.Combine(out, "records"))
                      |> Array.choose (System.IO.File.ReadAllText >> Json.tryRead<Record>)
                      |> Array.filter (fun record -> record.Config.Method = method')
                      |> Array.averageBy _.TestError

                  // The clean suite's error is the run's own.
                  for name in [ "trained"; "clean" ] do
                      let csv = File.ReadAllLines(Path.Combine(out, "tables", name + ".csv"))

                      for method' in [ "none"; "mixup" ] do
                          let cells = (csv |> Array.find _.StartsWith(method' + ",")).Split(",")
                          Expect.floatClose Accuracy.high (float cells[4]) (error method') $"{name}, {method'}"
                          Expect.equal cells[6] "2" "seeds"))

          testCase "networks without a record are told apart, and networks evaluated twice count once" (fun () ->
              inFolder (fun folder ->
                  let evaluation weights sha config error : Evaluation =
                      let percent value : Estimate =
                          { Value = value
                            Low = value
                            High = value }

                      let result: CleanResult =
                          { Images = 10
                            Error = percent error
                            TopFiveError = None
                            Nll = percent 1.0 }

                      let foreign: ForeignWeights =
                          { Model = "resnet-18"
                            Size = None
                            Mean = None
                            Std = None
                            ClassNames = None }

                      { evaluated "clean" config result with
                          Weights = weights
                          Sha256 = sha
                          Foreign = if Option.isSome config then None else Some foreign }

                  let put name (evaluations: Evaluation list) =
                      let folder = Path.Combine(folder, name)
                      let inside = Directory.CreateDirectory(Path.Combine(folder, "evaluations")).FullName

                      for i, each in List.indexed evaluations do
                          Json.write (Path.Combine(inside, $"{i}.json")) each

                      folder

                  let sha letter = System.String(letter, 64)
                  let config = Some (record "mixup" 3 6 1.0).Config

                  let one =
                      put
                          "one"
                          [ evaluation "model.safetensors" (sha 'a') None 10.0
                            evaluation "other.safetensors" (sha 'c') None 30.0
                            evaluation "x.safetensors" (sha 'd') config 40.0 ]

                  let two =
                      put
                          "two"
                          [ evaluation "model.safetensors" (sha 'b') None 20.0
                            evaluation "x.safetensors" (sha 'e') config 50.0 ]

                  let warnings = ResizeArray()
                  let tables, _ = PaperTables.read warnings.Add [ one; two ] |> PaperTables.ofFound

                  let cells =
                      [ for table in tables do
                            for row in table.Rows do
                                if not row.Cells.Head.IsEmpty then
                                    row.Method, row.Cells.Head ]

                  Expect.equal
                      cells
                      [ "model.safetensors (aaaaaaaa)", [ 10.0 ]
                        "model.safetensors (bbbbbbbb)", [ 20.0 ]
                        "other.safetensors", [ 30.0 ]
                        "mixup", [ 40.0 ] ]
                      "a line for each network, and a run's from the first folder"

                  Expect.equal
                      (List.ofSeq warnings)
                      [ "x.safetensors: what the suite clean found of it differs from folder to folder; the first folder's is taken." ]
                      "and that is said"

                  for table in tables do
                      Expect.exists table.Notes (fun note -> note.Contains "Settings: ") "how they were evaluated"

                  // Other numbers of another program's weights are another evaluation.
                  let normalised =
                      put
                          "three"
                          [ { evaluation "model.safetensors" (sha 'a') None 60.0 with
                                Foreign =
                                    Some
                                        { Model = "resnet-18"
                                          Size = None
                                          Mean = Some [ 0.5; 0.5; 0.5 ]
                                          Std = None
                                          ClassNames = None } } ]

                  let tables, _ = PaperTables.read ignore [ one; normalised ] |> PaperTables.ofFound

                  Expect.equal
                      [ for table in tables do
                            for row in table.Rows do
                                if row.Method.StartsWith "model" then
                                    row.Cells.Head ]
                      [ [ 10.0 ]; [ 60.0 ] ]
                      "tables of their own"))

          testCase "networks that may hide their gradients, and other corrupted images, are told apart" (fun () ->
              let make method' seed suite (result: obj) : Evaluation =
                  evaluated suite (Some (record method' seed 6 1.0).Config) result

              let attacks method' flags right : Evaluation =
                  make
                      method'
                      0
                      "attacks"
                      { Preset = "demo"
                        Images = 10
                        Batch = 10
                        Probe = 1
                        Clean = AttackSuite.share 10 10
                        Results =
                          [ { Attack = "pgd"
                              Settings = "pgd"
                              Norm = "linf"
                              Error = AttackSuite.share (10 - right) 10
                              Success = AttackSuite.share (10 - right) 10
                              MeanDistance = None
                              MedianDistance = None
                              LargestDistance = 0.1
                              Robust =
                                [ { Epsilon = 0.1
                                    Normalised = [ 0.1 ]
                                    Accuracy = AttackSuite.share right 10 } ] } ]
                        Masking =
                          { ZeroPixels = 0.0
                            ZeroImages = 0.0
                            Flags = flags }
                        Faults = []
                        Unchecked = [] }

              let corrupted method' seed source fingerprint severities error : Evaluation =
                  make
                      method'
                      seed
                      "corrupted"
                      { Errors =
                          { Source = source
                            Fingerprint = fingerprint
                            Images = 10
                            CleanError = None
                            Corruptions =
                              [ { Corruption = "fog"
                                  Severities = severities
                                  Errors = severities |> List.map (fun _ -> error)
                                  Sum = error * float severities.Length
                                  MeanChanges = [] } ]
                            MeanError = error
                            Notes = [] }
                        Frost = None
                        Baseline = None
                        BaselineSha256 = None
                        Relative = None }

              let tables, _ =
                  PaperTables.ofFound
                      { Records = []
                        Evaluations =
                          [ attacks "none" [] 3
                            attacks "mixup" [ "pgd is weaker than fgsm" ] 9
                            corrupted "none" 0 "generated" None [ 1; 2 ] 10.0
                            corrupted "none" 1 "generated" None [ 1; 2 ] 20.0
                            corrupted "none" 0 "generated" None [ 1; 2; 3 ] 30.0
                            corrupted "none" 0 "set-c" (Some "aa") [ 1; 2 ] 40.0
                            corrupted "none" 0 "set-c" (Some "bb") [ 1; 2 ] 50.0 ] }

              let named (name: string) =
                  tables |> List.filter (fun table -> table.Name.StartsWith name)

              let pgd = (named "attacks").Head

              Expect.equal
                  (pgd.Rows |> List.map (fun row -> row.Method, row.Caveat.IsSome))
                  [ "none", false; "mixup", true ]
                  "which is not ranked"

              Expect.stringContains (PaperTable.markdown pgd) "| `none` | **0.0** | **70.0** |" "the best"
              Expect.stringContains (PaperTable.markdown pgd) "pgd is weaker than fgsm" "why"

              let sets = named "corrupted"

              Expect.equal
                  [ for table in sets -> List.last table.Rows.Head.Cells ]
                  [ [ 10.0; 20.0 ]; [ 30.0 ]; [ 40.0 ]; [ 50.0 ] ]
                  "never averaged"

              Expect.equal (sets |> List.distinctBy PaperTable.title |> List.length) 4 "titles that tell them apart")

          testCase "the verb writes every table, names damaged records and refuses folders without any" (fun () ->
              inFolder (fun folder ->
                  let code, _, err = patchup [ "tables"; folder ]
                  Expect.equal code 2 err
                  Expect.stringContains err "no records there" "empty"
                  let records = Directory.CreateDirectory(Path.Combine(folder, "records")).FullName
                  Json.write (Path.Combine(records, "a.json")) (record "none" 0 6 10.0)
                  File.WriteAllText(Path.Combine(records, "b.json"), "{}")
                  let code, out, err = patchup [ "tables"; folder ]
                  Expect.equal code 0 err
                  Expect.stringContains err "b.json: damaged, or of another version" "damaged"

                  for other in [ "d"; "e" ] do
                      File.WriteAllText(Path.Combine(records, other + ".json"), "null")

                  let _, _, err = patchup [ "tables"; folder ]

                  Expect.stringContains
                      err
                      "b.json and 2 more there: damaged, or of another version"
                      "one line of several"

                  Expect.stringContains out "| `none` | **10.00** |" "printed"
                  Expect.stringContains out "No record: Error under attack (table 5)." "missing"

                  let written name =
                      File.Exists(Path.Combine(folder, "tables", name))

                  for ending in [ "md"; "csv"; "tex" ] do
                      Expect.isTrue (written $"trained.{ending}") ending

                  // Of tables that there are no more, the files go; others' files stay.
                  File.WriteAllText(Path.Combine(folder, "tables", "own.md"), "mine")
                  Json.write (Path.Combine(records, "c.json")) (record "none" 0 7 10.0)
                  let _, out, _ = patchup [ "tables"; folder ]
                  Expect.isFalse (written "trained.md") "an old one"
                  Expect.isTrue (written "trained-1.md" && written "trained-2.md" && written "own.md") "the others"

                  Expect.stringContains
                      out
                      "tables 1, 2, 3, 11, 12): CIFAR-10, some, preact-resnet-18 of width 8, epochs 6"
                      "the title says in what it differs"

                  Expect.stringContains out "of width 8, epochs 7" "and the other"

                  // A list that was changed removes nothing elsewhere.
                  Json.write (Path.Combine(folder, "tables", "tables.json")) [ "../records/a.json" ]
                  let code, _, err = patchup [ "tables"; folder ]
                  Expect.equal code 0 err
                  Expect.isTrue (File.Exists(Path.Combine(records, "a.json"))) "elsewhere")) ]
