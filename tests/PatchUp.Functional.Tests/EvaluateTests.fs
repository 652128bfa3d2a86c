/// `patchup evaluate`: metrics, their checks and the bugs that these catch, the geometry of mixes, and the verb on trained networks.
module PatchUp.Tests.EvaluateTests

open System
open System.IO
open System.Text.Json.Nodes
open Expecto
open FsCheck
open FsCheck.FSharp
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Repro
open PatchUp.Tests.Fixtures
open PatchUp.Tests.ReproTests
open TorchSharp

// ---- golden numbers ----

let private golden () =
    JsonNode.Parse(embedded "metrics.json").AsObject()

/// Exit code, standard output and standard error of verifying the golden file with a change.
let private verifying (change: JsonObject -> unit) : int * string * string =
    inFolder (fun folder ->
        let path = Path.Combine(folder, "metrics.json")
        let json = golden ()
        change json
        File.WriteAllText(path, json.ToJsonString())
        patchup [ "verify"; path ])

let private goldenTests =
    testList
        "golden metrics"
        [ testCase "all of them agree" (fun () ->
              let code, out, err = verifying ignore
              Expect.equal code 0 err
              Expect.stringStarts out "2 of 2 agree; the largest deviation is " "the verdict")

          testCase "another number in any field is named, and exits with 1" (fun () ->
              let shifted (node: JsonNode) =
                  JsonValue.Create(node.GetValue<float>() + 1e-6)

              for field in [ "accuracy"; "top5_accuracy"; "nll"; "brier"; "ece" ] do
                  let code, out, _ = verifying (fun json -> json[field] <- shifted json[field])
                  Expect.equal code 1 field
                  Expect.stringStarts out $"case 1 (metrics): {field} is " field
                  Expect.stringContains out "1 of 2 agree" field

              for field in [ "lower"; "upper"; "count"; "accuracy"; "confidence" ] do
                  let code, out, _ =
                      verifying (fun json ->
                          let bin = (json["bins"].[3]).AsObject()
                          bin[field] <- shifted bin[field])

                  Expect.equal code 1 field
                  Expect.stringStarts out $"case 1 (metrics): bins.{field} is " field

              let code, out, _ =
                  verifying (fun json -> json["edge"].["bin"].[4] <- JsonValue.Create 2)

              Expect.equal code 1 "edge"
              Expect.stringStarts out "case 2 (edge): bin is 3 at index 4 where 2 is expected" "the edge's bin"

              let code, out, _ =
                  verifying (fun json -> json["edge"].["ece"] <- shifted (json["edge"].["ece"]))

              Expect.equal code 1 "edge"
              Expect.stringStarts out "case 2 (edge): ece is " "the edge's error")

          testCase "what cannot be read is named, and exits with 2" (fun () ->
              for change, expected in
                  [ (fun (json: JsonObject) -> json.Remove "nll" |> ignore), "'nll' is missing"
                    (fun json -> json["nll"] <- "much"), "'nll' must hold numbers only"
                    (fun json -> (json["logits"].[0]).AsArray().RemoveAt 0), "differ in length"
                    (fun json -> json["labels"].AsArray().RemoveAt 0),
                    "200 rows of 'logits' where there are 199 'labels'"
                    (fun json -> json["labels"].[0] <- 10), "the label 10 is none of 0 .. 9"
                    (fun json -> json["labels"].[0] <- 0.5), "'labels' holds 0.5"
                    (fun json -> json["logits"] <- JsonArray()), "'logits' is empty"
                    (fun json -> json["bins"].AsArray().RemoveAt 0), "'bins.lower' has 14 numbers where 15"
                    (fun json -> json["bins"].[0] <- 3), "it must be an object with 'lower'"
                    (fun json -> json["edge"].["confidence"].[0] <- 1.5), "outside [0, 1]"
                    (fun json -> (json["edge"].["correct"]).AsArray().RemoveAt 0), "differ in length" ] do
                  let code, out, err = verifying change
                  Expect.equal (code, out) (2, "") err
                  Expect.stringContains err expected "the message"
                  Expect.stringContains err "metrics.json" "the file") ]

// ---- answers ----

/// Logits of all scales, with equal ones among them, and a label.
let private answerOf (bits: Stream) : Answer =
    let classes = 2 + bits.Below 11
    let scale = [| 0.0; 0.1; 1.0; 10.0; 1000.0 |][bits.Below 5]

    let logits =
        Array.init classes (fun _ -> if bits.Below 4 = 0 then scale else scale * bits.Normal())

    Answer.ofLogits (bits.Below classes) logits

let private answers (seed: int) : Answer[] =
    let bits = Key.stream (Key.ofSeed seed)
    Array.init (1 + bits.Below 60) (fun _ -> answerOf bits)

/// A right answer of a confidence that no logits give exactly.
let private rightAt (confidence: float) : Answer =
    { Label = 0
      Predicted = 0
      IsTopFive = true
      Confidence = confidence
      Nll = -(log confidence)
      Brier = 1.5 * (1.0 - confidence) ** 2.0 }

/// Answers on all edges of bins, and some between.
let private onEdges: Answer[] =
    [| for b in 1..15 do
           rightAt (float b / 15.0)
           rightAt ((float b - 0.5) / 15.0) |]

/// Answers of one confidence, the right ones first.
let private tied: Answer[] =
    Array.init 31 (fun i -> Answer.ofLogits (if i < 16 then 0 else 1) [| 1.0; 0.5 |])

let private seeds = Gen.choose (0, 1_000_000) |> Arb.fromGen

let private none what (faults: string list) : Verdict =
    match faults with
    | [] -> Verdict.Kept
    | first :: _ -> Verdict.Broken $"{what}: {first}"

let private answerTests =
    testList
        "answers"
        [ testCase "numbers of known logits" (fun () ->
              // Probabilities 1/4 and 3/4.
              let found = Answer.ofLogits 0 [| 0.0; log 3.0 |]
              Expect.equal (found.Predicted, found.IsRight, found.IsTopFive) (1, false, true) "the prediction"
              Expect.floatClose Accuracy.veryHigh found.Confidence 0.75 "confidence"
              Expect.floatClose Accuracy.veryHigh found.Nll (log 4.0) "likelihood"
              Expect.floatClose Accuracy.veryHigh found.Brier (2.0 * 0.75 ** 2.0) "Brier"

              // Logits whose exponentials overflow, or are lost beside the largest.
              let found = Answer.ofLogits 1 [| 1e4; 0.0 |]
              Expect.equal (found.Confidence, found.Nll, found.Brier) (1.0, 1e4, 2.0) "certain, and wrong")

          testCase "of equal logits the first count as larger, for the prediction and for the five largest" (fun () ->
              let logits = Array.zeroCreate<float> 7

              for label in 0..6 do
                  let found = Answer.ofLogits label logits
                  Expect.equal (found.IsRight, found.IsTopFive) (label = 0, label < 5) $"label {label}")

          testCase "Wilson's interval against published values" (fun () ->
              let interval wrong count =
                  Array.init count (fun i ->
                      if i < wrong then
                          Answer.ofLogits 0 [| 0.0; 1.0 |]
                      else
                          Answer.ofLogits 1 [| 0.0; 1.0 |])
                  |> Answer.percent (fun answer -> not answer.IsRight)

              for wrong, count, low, high in
                  [ 0, 10, 0.0, 27.75
                    5, 10, 23.66, 76.34
                    10, 10, 72.25, 100.0
                    81, 263, 25.53, 36.62 ] do
                  let found = interval wrong count
                  Expect.equal found.Value (100.0 * float wrong / float count) "the share"
                  expectNear 5e-3 found.Low low $"{wrong} of {count}, low"
                  expectNear 5e-3 found.High high $"{wrong} of {count}, high")

          testCase "the bootstrap interval is about the normal one, and follows from the key" (fun () ->
              let bits = Key.stream (Key.ofSeed 3)

              let answers =
                  Array.init 400 (fun _ ->
                      { rightAt 0.5 with
                          Nll = 2.0 + bits.Normal() })

              let mean seed =
                  Answer.mean (Key.ofSeed seed) _.Nll answers

              let found = mean 1
              expectNear 0.15 found.Value 2.0 "the mean"
              expectNear 0.03 (found.Value - found.Low) (1.96 / 20.0) "below"
              expectNear 0.03 (found.High - found.Value) (1.96 / 20.0) "above"
              Expect.equal (mean 1) found "the same key"
              Expect.notEqual (mean 2) found "another key")

          forAll "no answer to any logits has a fault" 300 seeds (fun seed ->
              answers seed |> Seq.choose Answer.fault |> List.ofSeq |> none "a fault")

          forAll "errors and intervals of any answers are sound" 100 seeds (fun seed ->
              let answers = answers seed

              [ 5; 6 ]
              |> List.collect (fun classes ->
                  Evaluation.clean (Key.ofSeed seed) classes answers
                  |> Evaluation.cleanFaults answers)
              |> none "a fault") ]

// ---- calibration ----

let private calibrationTests =
    testList
        "calibration"
        [ testCase "an edge belongs to the bin below it, and 1 to the last" (fun () ->
              for b in 1..15 do
                  let edge = float b / 15.0
                  Expect.equal (Reliability.bin edge) (b - 1) $"{b}/15"
                  Expect.equal (Reliability.bin (Math.BitIncrement edge)) (min b 14) $"above {b}/15"
                  Expect.equal (Reliability.bin (Math.BitDecrement edge)) (b - 1) $"below {b}/15")

          forAll "no answers have a faulty calibration" 300 seeds (fun seed ->
              let answers = answers seed

              [ answers; Array.append answers onEdges; onEdges; Array.append answers tied ]
              |> List.collect (fun answers -> CalibrationResult.faults answers (CalibrationResult.ofAnswers answers))
              |> none "a fault")

          forAll "the order of the images is of no account, whether confidences differ or not" 100 seeds (fun seed ->
              let answers =
                  answers seed
                  |> Array.map (fun answer ->
                      { answer with
                          Confidence = max 0.5 (round (4.0 * answer.Confidence) / 4.0) })
                  |> Array.append (answers (seed + 1))

              let order = Key.permutation answers.Length (Key.ofSeed seed)

              let errors answers =
                  let found = CalibrationResult.ofAnswers answers
                  [| found.EqualWidth.Ece; found.EqualMass.Ece; found.Brier; found.Nll |]

              Verdict.near "errors" 1e-12 1e-12 (errors answers) (errors (Array.permute (Array.get order) answers)))

          testCase "one image, and fewer images than bins" (fun () ->
              for count in 1..16 do
                  let answers = Array.init count (fun i -> rightAt (float (i + 1) / 16.0))
                  let found = CalibrationResult.ofAnswers answers
                  Expect.equal (CalibrationResult.faults answers found) [] $"{count} images"
                  Expect.equal found.EqualMass.Bins.Length (min count 15) "no empty bins of equal mass"

                  expectNear
                      1e-12
                      found.EqualMass.Ece
                      (answers |> Array.averageBy (fun answer -> 1.0 - answer.Confidence))
                      "all are right") ]

// ---- mutants ----

/// An implementation of the metrics, whole or with one bug.
type private Metrics =
    { Answer: int -> float[] -> Answer
      Calibrate: Answer[] -> CalibrationResult
      Clean: Answer[] -> CleanResult }

let private sound: Metrics =
    { Answer = Answer.ofLogits
      Calibrate = CalibrationResult.ofAnswers
      Clean = Evaluation.clean (Key.ofSeed 1) 10 }

/// The golden file's logits and labels.
let private goldenLogits =
    lazy
        (let json = golden ()

         [| for row, label in Seq.zip (json["logits"].AsArray()) (json["labels"].AsArray()) ->
                label.GetValue<int>(), [| for logit in row.AsArray() -> logit.GetValue<float>() |] |])

/// What speaks against an implementation on the golden logits: a check that the program makes at every run, or a golden number.
let private against (metrics: Metrics) : string option =
    let json = golden ()

    let answers =
        goldenLogits.Value
        |> Array.map (fun (label, logits) -> metrics.Answer label logits)

    let all = Array.append answers onEdges
    let found = metrics.Calibrate answers

    let numbers =
        [ "accuracy", found.Accuracy
          "nll", found.Nll
          "brier", found.Brier
          "ece", found.EqualWidth.Ece
          "top5_accuracy", (answers |> Array.averageBy (fun answer -> if answer.IsTopFive then 1.0 else 0.0)) ]

    [ yield! CalibrationResult.faults all (metrics.Calibrate all)
      yield! CalibrationResult.faults tied (metrics.Calibrate tied)
      yield! CalibrationResult.faults answers found
      yield! Evaluation.cleanFaults answers (metrics.Clean answers)
      for name, value in numbers do
          if abs (value - json[name].GetValue<float>()) > 1e-9 then
              $"golden {name}" ]
    |> List.tryHead

let private width change (result: CalibrationResult) : CalibrationResult =
    { result with
        EqualWidth = change result.EqualWidth }

let private mass change (result: CalibrationResult) : CalibrationResult =
    { result with
        EqualMass = change result.EqualMass }

/// Bins of equal width by another rule; an image whose bin is none of 0 .. 14 is lost.
let private binnedBy (rule: float -> int) (answers: Answer[]) (result: CalibrationResult) =
    let bins =
        [ for b in 0..14 ->
              let found = answers |> Array.filter (fun answer -> rule answer.Confidence = b)

              let mean number =
                  if found.Length = 0 then
                      None
                  else
                      Some(Array.averageBy number found)

              { Lower = float b / 15.0
                Upper = float (b + 1) / 15.0
                Count = found.Length
                Accuracy = mean (fun answer -> if answer.IsRight then 1.0 else 0.0)
                Confidence = mean _.Confidence } ]

    let gap (bin: ReliabilityBin) =
        match bin.Accuracy, bin.Confidence with
        | Some accuracy, Some confidence -> float bin.Count * abs (accuracy - confidence)
        | _ -> 0.0

    result
    |> width (fun _ ->
        { Bins = bins
          Ece = List.sumBy gap bins / float answers.Length })

/// The error anew from gaps of the bins: each is count, accuracy, confidence.
let private errorBy (fold: (float * float * float) list -> float) (reliability: Reliability) : Reliability =
    { reliability with
        Ece =
            [ for bin in reliability.Bins do
                  match bin.Accuracy, bin.Confidence with
                  | Some accuracy, Some confidence -> float bin.Count, accuracy, confidence
                  | _ -> () ]
            |> fold }

let private total bins =
    bins |> List.sumBy (fun (count, _, _) -> count)

let private answering (change: int -> float[] -> Answer -> Answer) : Metrics =
    { sound with
        Answer = fun label logits -> change label logits (Answer.ofLogits label logits) }

let private calibrating (change: Answer[] -> CalibrationResult -> CalibrationResult) : Metrics =
    { sound with
        Calibrate = fun answers -> change answers (CalibrationResult.ofAnswers answers) }

let private cleaning (change: Answer[] -> CleanResult -> CleanResult) : Metrics =
    { sound with
        Clean = fun answers -> change answers (sound.Clean answers) }

let private softmax (logits: float[]) =
    let weights = logits |> Array.map exp
    weights |> Array.map (fun weight -> weight / Array.sum weights)

/// How many logits are larger than the label's.
let private larger label (logits: float[]) =
    logits |> Array.filter (fun logit -> logit > logits[label]) |> Array.length

/// Bugs by name.
let private mutants: (string * Metrics) list =
    [ "likelihood in bits", answering (fun _ _ found -> { found with Nll = found.Nll / log 2.0 })
      "likelihood of the prediction",
      answering (fun _ _ found ->
          { found with
              Nll = -(log found.Confidence) })
      "probability instead of its logarithm", answering (fun _ _ found -> { found with Nll = exp -found.Nll })
      "likelihood without its sign", answering (fun _ _ found -> { found with Nll = -found.Nll })
      "the logit for the likelihood", answering (fun label logits found -> { found with Nll = -logits[label] })
      "likelihood of probabilities kept above 1e-3",
      answering (fun _ _ found ->
          { found with
              Nll = min found.Nll -(log 1e-3) })
      "confidence of the label",
      answering (fun _ _ found ->
          { found with
              Confidence = exp -found.Nll })
      "the logit for confidence",
      answering (fun _ logits found ->
          { found with
              Confidence = Array.max logits })
      "softmax at half the temperature",
      answering (fun label logits found ->
          { found with
              Confidence = (Answer.ofLogits label (logits |> Array.map ((*) 2.0))).Confidence })
      "confidence by sigmoid",
      answering (fun _ logits found ->
          { found with
              Confidence = 1.0 / (1.0 + exp -(Array.max logits)) })
      "Brier score averaged over classes",
      answering (fun _ logits found ->
          { found with
              Brier = found.Brier / float logits.Length })
      "half the Brier score", answering (fun _ _ found -> { found with Brier = found.Brier / 2.0 })
      "Brier score of the label alone",
      answering (fun _ _ found ->
          { found with
              Brier = (1.0 - exp -found.Nll) ** 2.0 })
      "Brier score of the prediction alone",
      answering (fun _ _ found ->
          { found with
              Brier = ((if found.IsRight then 1.0 else 0.0) - found.Confidence) ** 2.0 })
      "Brier score without the label",
      answering (fun _ logits found ->
          { found with
              Brier = softmax logits |> Array.sumBy (fun p -> p * p) })
      "absolute differences for the Brier score",
      answering (fun label logits found ->
          { found with
              Brier =
                  softmax logits
                  |> Array.mapi (fun i p -> abs (p - if i = label then 1.0 else 0.0))
                  |> Array.sum })
      "six for five",
      answering (fun label logits found ->
          { found with
              IsTopFive = larger label logits < 6 })
      "four for five",
      answering (fun label logits found ->
          { found with
              IsTopFive = larger label logits < 4 })
      "the five smallest",
      answering (fun label logits found ->
          { found with
              IsTopFive = logits.Length - 1 - larger label logits < 5 })
      "the largest but one",
      answering (fun label logits found ->
          { found with
              Predicted = logits |> Array.indexed |> Array.sortByDescending snd |> Array.item 1 |> fst })
      "the smallest logit predicted",
      answering (fun _ logits found ->
          { found with
              Predicted = Array.IndexOf(logits, Array.min logits) })
      "labels counted from 1", answering (fun label logits _ -> Answer.ofLogits ((label + 1) % logits.Length) logits)

      "bins rounded down, and 1 lost", calibrating (binnedBy (fun confidence -> int (15.0 * confidence)))
      "bins rounded down", calibrating (binnedBy (fun confidence -> min 14 (int (15.0 * confidence))))
      "bins rounded to the nearest", calibrating (binnedBy (fun confidence -> min 14 (int (15.0 * confidence + 0.5))))
      "ten bins", calibrating (binnedBy (fun confidence -> min 9 (int (ceil (10.0 * confidence)) - 1)))
      "the last bin lost", calibrating (binnedBy (fun confidence -> (Reliability.bin confidence + 1) % 15 - 1))
      "only right predictions binned",
      calibrating (fun answers result -> binnedBy Reliability.bin (Array.filter _.IsRight answers) result)
      "accuracies and confidences of bins sorted separately",
      calibrating (fun _ ->
          width (
              errorBy (fun bins ->
                  let counts, accuracies, confidences = List.unzip3 bins

                  List.map3
                      (fun count accuracy confidence -> count * abs (accuracy - confidence))
                      counts
                      (List.sort accuracies)
                      (List.sort confidences)
                  |> List.sum
                  |> fun sum -> sum / total bins)
          ))
      "every bin of one weight",
      calibrating (fun _ ->
          width (errorBy (List.averageBy (fun (_, accuracy, confidence) -> abs (accuracy - confidence)))))
      "the largest gap",
      calibrating (fun _ ->
          width (
              errorBy (
                  List.map (fun (_, accuracy, confidence) -> abs (accuracy - confidence))
                  >> List.max
              )
          ))
      "gaps that cancel",
      calibrating (fun _ ->
          width (
              errorBy (fun bins ->
                  abs (
                      bins
                      |> List.sumBy (fun (count, accuracy, confidence) -> count * (accuracy - confidence))
                  )
                  / total bins)
          ))
      "gaps squared",
      calibrating (fun _ ->
          width (
              errorBy (fun bins ->
                  (bins
                   |> List.sumBy (fun (count, accuracy, confidence) -> count * (accuracy - confidence) ** 2.0))
                  / total bins)
          ))
      "error by the middle of the bin",
      calibrating (fun _ ->
          width (fun reliability ->
              { reliability with
                  Ece =
                      let bins = reliability.Bins |> List.filter (fun bin -> bin.Count > 0)

                      (bins
                       |> List.sumBy (fun bin ->
                           float bin.Count * abs (bin.Accuracy.Value - (bin.Lower + bin.Upper) / 2.0)))
                      / float (bins |> List.sumBy _.Count) }))
      "error in percent",
      calibrating (fun _ ->
          width (fun reliability ->
              { reliability with
                  Ece = 100.0 * reliability.Ece }))
      "bins of equal mass in the images' order",
      calibrating (fun answers ->
          mass (fun _ ->
              let pairs = answers |> Array.mapi (fun i answer -> float i, answer)
              let parts = Array.splitInto 15 pairs |> Array.map (Array.map snd)

              { Ece =
                  (parts
                   |> Array.sumBy (fun part ->
                       part
                       |> Array.sumBy (fun answer -> (if answer.IsRight then 1.0 else 0.0) - answer.Confidence)
                       |> abs))
                  / float answers.Length
                Bins =
                  [ for part in parts ->
                        { Lower = Array.min (part |> Array.map _.Confidence)
                          Upper = Array.max (part |> Array.map _.Confidence)
                          Count = part.Length
                          Accuracy = Some(part |> Array.averageBy (fun answer -> if answer.IsRight then 1.0 else 0.0))
                          Confidence = Some(part |> Array.averageBy _.Confidence) } ] }))
      "equal confidences in the images' order in bins of equal mass",
      calibrating (fun answers ->
          mass (fun _ ->
              let parts = answers |> List.ofArray |> List.sortBy _.Confidence |> List.splitInto 15

              let right (answer: Answer) = if answer.IsRight then 1.0 else 0.0

              { Ece =
                  (parts
                   |> List.sumBy (List.sumBy (fun answer -> right answer - answer.Confidence) >> abs))
                  / float answers.Length
                Bins =
                  [ for part in parts ->
                        { Lower = part.Head.Confidence
                          Upper = (List.last part).Confidence
                          Count = part.Length
                          Accuracy = Some(List.averageBy right part)
                          Confidence = Some(List.averageBy _.Confidence part) } ] }))
      "bins of equal mass without the rest",
      calibrating (fun answers ->
          let pairs = answers |> Array.map (fun answer -> answer.Confidence, answer.IsRight)
          mass (fun _ -> Reliability.equalMass (pairs[.. pairs.Length / 15 * 15 - 2])))
      "the error of equal width for that of equal mass",
      calibrating (fun _ result ->
          mass
              (fun reliability ->
                  { reliability with
                      Ece = result.EqualWidth.Ece })
              result)
      "the median likelihood",
      calibrating (fun answers result ->
          { result with
              Nll = (answers |> Array.map _.Nll |> Array.sort)[answers.Length / 2] })
      "the sum of likelihoods",
      calibrating (fun answers result ->
          { result with
              Nll = answers |> Array.sumBy _.Nll })
      "accuracy for confidence",
      calibrating (fun _ result ->
          { result with
              Confidence = result.Accuracy })
      "Brier score of right predictions",
      calibrating (fun answers result ->
          { result with
              Brier = answers |> Array.filter _.IsRight |> Array.averageBy _.Brier })
      "error for accuracy",
      calibrating (fun _ result ->
          { result with
              Accuracy = 1.0 - result.Accuracy })

      "accuracy for error",
      cleaning (fun answers result ->
          { result with
              Error = answers |> Answer.percent _.IsRight })
      "top-5 accuracy for top-5 error",
      cleaning (fun answers result ->
          { result with
              TopFiveError = Some(answers |> Answer.percent _.IsTopFive) })
      "the interval of a share for that of percents",
      cleaning (fun _ result ->
          { result with
              Error =
                  { result.Error with
                      Low = result.Error.Low / 100.0
                      High = result.Error.High / 100.0 } })
      "the standard deviation for the interval",
      cleaning (fun _ result ->
          { result with
              Nll =
                  { result.Nll with
                      Low = 0.0
                      High = result.Nll.High - result.Nll.Low } })
      "images counted once too often",
      cleaning (fun answers result ->
          { result with
              Images = answers.Length + 1 }) ]

let private mutantTests =
    testList
        "broken metrics"
        [ testCase "nothing speaks against the program's own" (fun () -> Expect.isNone (against sound) "sound")

          for name, metrics in mutants do
              testCase $"found: {name}" (fun () -> Expect.isSome (against metrics) "nothing found")

          testCase "what the checks find fails the run, names it, and writes nothing of it" (fun () ->
              let suite =
                  { Evaluation.suites.Head with
                      Run =
                          fun _ _ ->
                              { Result = lazy (JsonArray() :> JsonNode)
                                Line = []
                                Text = ""
                                Pictures = []
                                Faults = [ "the bins hold 3 of 2 images"; "more" ] } }

              use images = torch.zeros ([| 1L |])

              let candidate =
                  { Path = "w.safetensors"
                    Sha256 = ""
                    Model =
                      { Name = ""
                        Module = null
                        Stages = []
                        Normalise = id }
                    Classes = []
                    Foreign = None
                    Method = None
                    Record = None
                    Data = ""
                    Fingerprint = ""
                    Test = ImageSet.ofSplit { Images = images; Labels = [||] } }

              let message =
                  try
                      Evaluation.run
                          { Key = Key.ofSeed 0
                            Seed = 0
                            Report = ignore
                            Attacks = AttackSuite.demo
                            Corrupted = None
                            Images = None
                            Frost = Substitute
                            FrostFingerprint = None
                            Baseline = None }
                          suite
                          candidate
                      |> ignore

                      "nothing"
                  with RunFailed message ->
                      message

              Expect.equal
                  message
                  "w.safetensors: clean: the bins hold 3 of 2 images (and 1 more); nothing is written of it."
                  "the message") ]

// ---- geometry ----

let private vector (bits: Stream) size =
    Array.init size (fun _ -> bits.Normal())

/// Features as after a stage: N samples of C x H x W, all kinds of scales.
let private features (seed: int) : int[] * torch.Tensor =
    let bits = Key.stream (Key.ofSeed seed)
    let count, channels, side = 2 + bits.Below 5, 1 + bits.Below 3, 8 + bits.Below 3
    let scale = 10.0 ** float (bits.Below 7 - 3)
    let size = channels * side * side

    Array.init count (fun _ -> bits.Below 2),
    torch.tensor (
        Array.init (count * size) (fun _ -> scale * bits.Normal()),
        ReadOnlySpan [| int64 count; int64 channels; int64 side; int64 side |]
    )

let private resultOf (labels: int[]) methods : GeometryResult =
    { Site = "layer2"
      Features = ""
      Images = labels.Length
      Methods = methods }

let private found (name: string) (methods: MethodGeometry list) =
    methods |> List.find (fun found -> found.Method = name)

/// Bugs in the angles of a pair: own, partner, mix and another mix.
let private wrongPairs: (string * (float[] -> float[] -> float[] -> float[] -> PairAngles)) list =
    let pair own partner mixed = Geometry.pair own partner mixed false

    let dot (u: float[]) v =
        Array.fold2 (fun sum x y -> sum + x * y) 0.0 u v

    /// By other angles.
    let by angle own partner (mixed: float[]) =
        let first, second, between = angle own mixed, angle partner mixed, angle own partner

        { Own = first
          Partner = second
          Between = between
          Slack = first + second - between
          IsSameClass = false }

    [ "another pair's mix", (fun own partner _ other -> pair own partner other)
      "vectors that are not scaled",
      (fun own partner mixed _ -> by (fun u v -> acos (max -1.0 (min 1.0 (dot u v)))) own partner mixed)
      "cosines for angles",
      (fun own partner mixed _ -> by (fun u v -> dot u v / sqrt (dot u u * dot v v)) own partner mixed)
      "cosines in float32",
      (fun own partner mixed _ ->
          by
              (fun u v -> float (acos (max -1.0f (min 1.0f (float32 (dot u v / sqrt (dot u u * dot v v)))))))
              own
              partner
              mixed)
      "angles below a right one alone",
      (fun own partner mixed _ ->
          by (fun u v -> asin (sqrt (max 0.0 (1.0 - (dot u v) ** 2.0 / (dot u u * dot v v))))) own partner mixed)
      "half of the angles' sum",
      (fun own partner mixed _ ->
          let found = pair own partner mixed

          { found with
              Slack = (found.Own + found.Partner) / 2.0 - found.Between })
      "the sign of the slack",
      (fun own partner mixed _ ->
          let found = pair own partner mixed

          { found with
              Slack = found.Between - found.Own - found.Partner + 0.01 })
      "a mix of a right angle's features",
      (fun own partner mixed _ -> pair own partner (Array.mapi (fun i x -> if i = 0 then x + 1.0 else x) mixed)) ]

let private geometryTests =
    testList
        "geometry"
        [ testCase "known angles, nearly parallel and opposite vectors too" (fun () ->
              for u, v, angle in
                  [ [| 1.0; 0.0 |], [| 0.0; 3.0 |], Math.PI / 2.0
                    [| 1.0; 0.0 |], [| 1.0; 1.0 |], Math.PI / 4.0
                    [| 2.0; 0.0 |], [| 5.0; 0.0 |], 0.0
                    [| 1.0; 0.0 |], [| -1.0; 0.0 |], Math.PI
                    [| 1.0; 0.0 |], [| 1.0; 1e-12 |], 1e-12 ] do
                  expectNear 1e-16 (Geometry.angle u v) angle "angle"

              expectRefused [ "no angle" ] (fun () -> Geometry.angle [| 0.0; 0.0 |] [| 1.0; 0.0 |]))

          forAll "mixes on the line between two have no slack" 200 seeds (fun seed ->
              let bits = Key.stream (Key.ofSeed seed)
              let own, partner = vector bits 20, vector bits 20
              let share = bits.Float()

              let mixed =
                  Array.map2 (fun own partner -> share * own + (1.0 - share) * partner) own partner

              let found = Geometry.pair own partner mixed false

              if abs found.Slack > 1e-12 then
                  Verdict.Broken $"{found}"
              else
                  Verdict.Kept)

          forAll "ManifoldMixup has no slack, and PatchUp has, on any features; no check fails" 60 seeds (fun seed ->
              Scope.value (fun () ->
                  let labels, features = features seed
                  let methods = Geometry.ofFeatures (Key.ofSeed seed) labels features

                  let faults = Geometry.faults (resultOf labels methods)
                  let slack name = (found name methods).Slack

                  if not faults.IsEmpty then
                      none "a fault" faults
                  elif abs (slack "manifold-mixup").Most > 1e-12 then
                      Verdict.Broken "ManifoldMixup has slack"
                  // One map of a few features may be altered as a whole, or not at all.
                  elif (slack "soft-patchup").Most < 1e-3 && (slack "hard-patchup").Most < 1e-3 then
                      Verdict.Broken "PatchUp has none"
                  else
                      Verdict.Kept))

          testCase "both PatchUps have slack for every pair of large maps" (fun () ->
              Scope.value (fun () ->
                  let bits = Key.stream (Key.ofSeed 8)
                  let size = 6 * 32 * 16 * 16

                  let features = torch.tensor (vector bits size, ReadOnlySpan [| 6L; 32L; 16L; 16L |])

                  let methods = Geometry.ofFeatures (Key.ofSeed 1) [| 0; 1; 2; 3; 4; 5 |] features

                  for name in [ "soft-patchup"; "hard-patchup" ] do
                      Expect.isGreaterThan (found name methods).Slack.Least 0.05 name

                  Expect.isLessThan (found "manifold-mixup" methods).Slack.Most 1e-12 "ManifoldMixup"))

          testCase "no image is its own partner, and classes are told apart" (fun () ->
              Scope.value (fun () ->
                  let labels, features =
                      [| 0; 0; 0 |], torch.rand ([| 3L; 1L; 8L; 8L |], dtype = torch.float64)

                  for method' in Geometry.ofFeatures (Key.ofSeed 2) labels features do
                      for pair in method'.Pairs do
                          Expect.isGreaterThan pair.Between 0.1 "two images"
                          Expect.isTrue pair.IsSameClass "of one class"))

          testCase "features that are all zero have no angle" (fun () ->
              Scope.value (fun () ->
                  let features = torch.zeros ([| 2L; 1L; 8L; 8L |], dtype = torch.float64)
                  expectRefused [ "length 0" ] (fun () -> Geometry.ofFeatures (Key.ofSeed 2) [| 0; 1 |] features)))

          testCase "quartiles, between two numbers in a line" (fun () ->
              Expect.equal
                  (Geometry.quartiles [ 3.0; 1.0; 2.0; 5.0 ])
                  { Least = 1.0
                    Lower = 1.75
                    Median = 2.5
                    Upper = 3.5
                    Most = 5.0 }
                  "four"

              Expect.equal (Geometry.quartiles [ 2.0 ]).Upper 2.0 "one")

          for name, wrong in wrongPairs do
              testCase $"found: {name}" (fun () ->
                  let bits = Key.stream (Key.ofSeed 4)
                  // All but opposite ones, whose angle is above a right one.
                  let vectors = Array.init 12 (fun _ -> vector bits 5 |> Array.map ((*) 3.0))

                  let mixes =
                      vectors
                      |> Array.mapi (fun i own -> Array.map2 (fun a b -> 0.3 * a + 0.7 * b) own vectors[(i + 1) % 12])

                  let methods pair =
                      [ { Method = "manifold-mixup"
                          Notation = ""
                          Slack = Geometry.quartiles [ 0.0 ]
                          Pairs =
                            [ for i in 0..11 -> pair vectors[i] vectors[(i + 1) % 12] mixes[i] mixes[(i + 5) % 12] ] } ]

                  let faults pair =
                      Geometry.faults (resultOf (Array.zeroCreate 12) (methods pair))

                  Expect.isEmpty (faults (fun own partner mixed _ -> Geometry.pair own partner mixed false)) "sound"
                  Expect.isNonEmpty (faults wrong) "nothing found") ]

// ---- trained networks ----

/// The weights of a short training, in a results folder.
let private trainedIn (folder: string) (name: string) (more: string list) : string =
    let out = Path.Combine(folder, name)

    succeed (
        [ "train"
          "--width"
          "1"
          "--epochs"
          "1"
          "--train-per-class"
          "6"
          "--test-per-class"
          "3"
          "--batch-size"
          "20"
          "--out"
          out ]
        @ more
    )
    |> ignore

    (Directory.GetFiles(Path.Combine(out, "weights")))[0]

let private evaluationOf (path: string) : Evaluation =
    File.ReadAllText path |> Json.tryRead<Evaluation> |> Option.get

let private names (folder: string) =
    Directory.GetFiles folder
    |> Array.map Path.GetFileName
    |> Array.sort
    |> List.ofArray

let private value (node: JsonNode) (path: string) : float =
    (path.Split '.' |> Array.fold (fun (node: JsonNode) part -> node[part]) node).GetValue<float>()

/// The activations of a network by plain loops over managed numbers.
let private magnitudes (candidate: Candidate) : float list =
    Scope.value (fun () ->
        use _ = torch.no_grad ()
        let places = [| 0 .. ImageSet.count candidate.Test - 1 |]

        let stages = candidate.Model.Stages |> List.take (candidate.Model.Stages.Length - 1)

        stages
        |> List.scan
            (fun features (_, run) -> run features)
            (candidate.Model.Normalise(ImageSet.plain candidate.Test places))
        |> List.tail
        |> List.map (fun features -> features.data<float32>().ToArray() |> Array.averageBy (fun x -> abs (float x))))

let private using (candidate: Candidate) (look: Candidate -> 'a) : 'a =
    try
        look candidate
    finally
        Candidate.dispose candidate

/// The weights with one that is not a number.
let private diverged (folder: string) (weights: string) : string =
    let _, model = Checkpoint.read weights
    let header = Safetensors.header weights

    Scope.value (fun () ->
        use _ = torch.no_grad ()
        (Model.state model |> List.head |> snd).copy_(Scope.number nan) |> ignore)

    let path = Path.Combine(folder, "diverged.safetensors")
    Model.save path header.Metadata model
    Model.dispose model
    path

/// The suites that take no time.
let private quick =
    Evaluation.suites
    |> List.filter (fun suite -> suite.Name <> "attacks" && suite.Name <> "corrupted")

let private verbTests =
    testList
        "the verb"
        [ testCase "a trained network: records, pictures and tables, the same bytes twice" (fun () ->
              inFolder (fun folder ->
                  let weights = trainedIn folder "run" [ "--method"; "hard-patchup" ]
                  let name = Path.GetFileNameWithoutExtension weights
                  let beside = Path.Combine(folder, "run", "evaluations")
                  let again = Path.Combine(folder, "again")

                  let expected =
                      [ for ending in
                            [ "activations.json"
                              "calibration.json"
                              "clean.json"
                              "deformed.json"
                              "geometry.json"
                              "reliability.png"
                              "slacks.png" ] -> $"{name}.{ending}" ]

                  for suite in quick do
                      let out, err = succeed [ "evaluate"; weights; "--suite"; suite.Name ]
                      Expect.stringStarts out $"{suite.Name}: {suite.About}; CIFAR-10" "a table"
                      Expect.stringContains err $"{name}: {suite.Name}: " "progress"

                      Expect.stringContains
                          out
                          $"written  {Path.Combine(beside, name)}.{suite.Name}.json"
                          "what is written"

                      succeed [ "evaluate"; weights; "--suite"; suite.Name; "--out"; again ] |> ignore

                  Expect.equal (names beside) expected "the files"

                  for file in expected do
                      Expect.equal
                          (File.ReadAllBytes(Path.Combine(again, file)))
                          (File.ReadAllBytes(Path.Combine(beside, file)))
                          file

                  let file ending =
                      Path.Combine(beside, $"{name}.{ending}")

                  let record =
                      File.ReadAllText(Path.Combine(folder, "run", "records", name + ".json"))
                      |> Json.tryRead<Record>
                      |> Option.get

                  let clean = evaluationOf (file "clean.json")
                  Expect.equal clean.Config (Some record.Config) "the run's configuration"
                  Expect.equal (clean.Method, clean.Model) (Some "hard-patchup", "preact-resnet-18") "what it is"
                  Expect.equal (clean.Images, clean.Seed, clean.Threads) (30, 0, 1) "how"
                  Expect.equal clean.Fingerprint record.Config.Fingerprint "on what"
                  Expect.equal (value clean.Result "error.value") record.TestError "the record's test error"
                  expectNear 1e-6 (value clean.Result "nll.value") record.TestNll "the record's NLL"

                  let calibration = evaluationOf (file "calibration.json")
                  expectNear 1e-9 (value calibration.Result "nll") (value clean.Result "nll.value") "one NLL"

                  let geometry = evaluationOf (file "geometry.json")
                  Expect.equal (geometry.Result["site"].GetValue<string>()) "layer2" "the second stage"

                  for picture in [ "reliability.png"; "slacks.png" ] do
                      Expect.isGreaterThan (Images.read (file picture)).Width 400 picture

                  // Another seed changes what is drawn.
                  succeed [ "evaluate"; weights; "--out"; again; "--suite"; "geometry"; "--seed"; "1" ]
                  |> ignore

                  let drawn (evaluation: Evaluation) =
                      evaluation.Result["methods"].ToJsonString()

                  Expect.notEqual
                      (drawn (evaluationOf (Path.Combine(again, $"{name}.geometry.json"))))
                      (drawn geometry)
                      "another draw"))

          testCase "all suites, each as it is alone; an error relative to itself is 100 %" (fun () ->
              inFolder (fun folder ->
                  let weights = trainedIn folder "run" []
                  let name = Path.GetFileNameWithoutExtension weights
                  let out = Path.Combine(folder, "out")
                  let printed, _ = succeed [ "evaluate"; weights; "--images"; "4"; "--out"; out ]

                  for suite in Evaluation.suites do
                      Expect.stringContains printed $"{suite.Name}: {suite.About}; CIFAR-10" "a table"
                      let found = evaluationOf (Path.Combine(out, $"{name}.{suite.Name}.json"))
                      Expect.equal (found.Suite, found.Images) (suite.Name, 4) "a record"

                  Expect.stringContains printed "The preset demo" "the attacks' preset"

                  let alone = Path.Combine(folder, "alone")

                  for suite in [ "geometry"; "deformed" ] do
                      succeed [ "evaluate"; weights; "--images"; "4"; "--out"; alone; "--suite"; suite ]
                      |> ignore

                      Expect.equal
                          (File.ReadAllBytes(Path.Combine(alone, $"{name}.{suite}.json")))
                          (File.ReadAllBytes(Path.Combine(out, $"{name}.{suite}.json")))
                          suite

                  let corrupted = Path.Combine(out, $"{name}.corrupted.json")

                  succeed
                      [ "evaluate"
                        weights
                        "--images"
                        "4"
                        "--out"
                        alone
                        "--suite"
                        "corrupted"
                        "--baseline"
                        corrupted ]
                  |> ignore

                  let found = evaluationOf (Path.Combine(alone, $"{name}.corrupted.json"))
                  Expect.equal (value found.Result "relative.mce") 100.0 "the mean corruption error"
                  Expect.equal (found.Result["baseline"].GetValue<string>()) (name + ".safetensors") "of what"
                  Expect.isNull (evaluationOf corrupted).Result["relative"] "none without a baseline"

                  // A baseline on other images, of other draws, or another data set, is refused before anything is computed.
                  let elsewhere = Path.Combine(folder, "elsewhere.json")

                  Json.write
                      elsewhere
                      { evaluationOf corrupted with
                          Fingerprint = "00"
                          Data = "SVHN" }

                  let changed name (change: Evaluation -> Evaluation) =
                      let path = Path.Combine(folder, name)
                      Json.write path (change (evaluationOf corrupted))
                      path

                  let errors (change: CorruptedErrors -> CorruptedErrors) (evaluation: Evaluation) =
                      let result: CorruptedResult =
                          evaluation.Result.ToJsonString() |> Json.tryRead |> Option.get

                      { evaluation with
                          Result =
                              Json.node
                                  { result with
                                      Errors = change result.Errors } }

                  let chosen =
                      changed "chosen.json" (fun evaluation -> { evaluation with Selection = "00" })

                  let read =
                      changed "read.json" (errors (fun errors -> { errors with Source = "CIFAR-10-C" }))

                  let perfect =
                      changed
                          "perfect.json"
                          (errors (fun errors ->
                              { errors with
                                  Corruptions = [ for each in errors.Corruptions -> { each with Sum = 0.0 } ] }))

                  for options, expected in
                      [ [ "--images"; "5"; "--baseline"; corrupted ], "was evaluated with images 4"
                        [ "--images"; "4"; "--baseline"; chosen ], "others of as many"
                        [ "--images"; "4"; "--baseline"; read ], "CIFAR-10-C"
                        [ "--images"; "4"; "--baseline"; perfect ], "makes no error on gaussian_noise"
                        [ "--images"; "4"; "--seed"; "1"; "--baseline"; corrupted ], "was evaluated with the seed 0"
                        [ "--images"; "4"; "--baseline"; elsewhere ], "was evaluated with the data set SVHN" ] do
                      let code, printed, err =
                          patchup ([ "evaluate"; weights; "--suite"; "corrupted"; "--out"; alone ] @ options)

                      Expect.equal (code, printed) (2, "") expected
                      Expect.stringContains err expected expected
                      Expect.isFalse (err.Contains "corruption 1 of") "nothing computed"))

          testCase "frost of a folder is told by its pictures, and so is a baseline's" (fun () ->
              inFolder (fun folder ->
                  let weights = trainedIn folder "run" []
                  let name = Path.GetFileNameWithoutExtension weights

                  let textures (level: byte) =
                      let path =
                          Directory.CreateDirectory(Path.Combine(folder, $"frost-{level}")).FullName

                      let picture: Pixels =
                          { DataModelTests.image 1 300 300 with
                              Planes = Array.create (3 * 300 * 300) level }

                      use bitmap = Images.toBitmap picture
                      Images.writePng (Path.Combine(path, "1.png")) bitmap
                      path

                  let evaluate level (more: string list) =
                      let out = Path.Combine(folder, $"out-{level}")

                      patchup (
                          [ "evaluate"
                            weights
                            "--suite"
                            "corrupted"
                            "--images"
                            "1"
                            "--frost"
                            textures level
                            "--out"
                            out ]
                          @ more
                      ),
                      Path.Combine(out, $"{name}.corrupted.json")

                  let (code, _, err), bright = evaluate 200uy []
                  Expect.equal code 0 err
                  let (_, _, _), dark = evaluate 10uy []

                  let frost path =
                      (evaluationOf path).Result["frost"].GetValue<string>()

                  Expect.notEqual (frost bright) (frost dark) "told apart"

                  let (code, _, err), _ = evaluate 10uy [ "--baseline"; bright ]
                  Expect.equal code 2 err
                  Expect.stringContains err "was evaluated with frost textures" "refused"))

          testCase "several networks stand in one table, and JSON has all records" (fun () ->
              inFolder (fun folder ->
                  let first = trainedIn folder "run" []
                  let second = trainedIn folder "other" [ "--method"; "mixup" ]
                  let out = Path.Combine(folder, "out")

                  let printed, _ =
                      succeed
                          [ "evaluate"
                            first
                            second
                            "--suite"
                            "activations"
                            "--out"
                            out
                            "--images"
                            "20" ]

                  let lines = printed.Split '\n'
                  Expect.stringStarts lines[0] "activations: " "one table"
                  Expect.stringContains lines[0] "20 test images" "as many as asked"
                  Expect.stringStarts lines[2] "checkpoint" "its columns"

                  for line, path in List.zip [ lines[4]; lines[5] ] [ first; second ] do
                      Expect.stringStarts line (Path.GetFileNameWithoutExtension path) "a line each"

                  let json, err =
                      succeed [ "evaluate"; first; second; "--suite"; "clean"; "--out"; out; "--json" ]

                  let records = JsonNode.Parse(json).AsArray()
                  Expect.equal records.Count 2 "two records"
                  Expect.equal (records[1].["method"].GetValue<string>()) "mixup" "in their order"
                  Expect.stringContains err "clean: 30 images" "progress does not mix with it"

                  let printed, _ =
                      succeed
                          [ "evaluate"
                            first
                            second
                            "--suite"
                            "attacks"
                            "--out"
                            out
                            "--images"
                            "2" ]

                  for path in [ first; second ] do
                      Expect.stringContains
                          printed
                          $"\n\n{Path.GetFileNameWithoutExtension path}:\n\nThe preset demo"
                          "whose details these are"))

          testCase "what goes wrong with the last network costs nothing of the others" (fun () ->
              inFolder (fun folder ->
                  let first = trainedIn folder "run" []

                  let evaluate more =
                      patchup ([ "evaluate"; first ] @ more @ [ "--suite"; "clean" ])

                  // What can be known before is said before.
                  let code, printed, err = evaluate [ Path.Combine(folder, "none.safetensors") ]
                  Expect.equal (code, printed) (2, "") err
                  Expect.isFalse (err.Contains "test images") "nothing computed"
                  Expect.isFalse (Directory.Exists(Path.Combine(folder, "run", "evaluations"))) "nothing written"

                  // What cannot, after what was found.
                  let code, printed, err = evaluate [ diverged folder first ]
                  Expect.equal code 1 err
                  Expect.stringContains printed (Path.GetFileNameWithoutExtension first) "its table"
                  Expect.stringContains printed "written  " "its files"
                  Expect.stringContains err "not finite" "the other"))

          testCase "a damaged record beside the weights is named" (fun () ->
              inFolder (fun folder ->
                  let weights = trainedIn folder "run" []

                  let record =
                      Directory.GetFiles(Path.Combine(folder, "run", "records")) |> Array.exactlyOne

                  let sound = File.ReadAllText record

                  /// The record with a null there.
                  let without (path: string) =
                      let whole = JsonNode.Parse sound
                      let parts = path.Split '.'
                      let inner = if parts.Length = 1 then whole else whole[parts[0]]
                      inner[Array.last parts] <- null
                      whole.ToJsonString()

                  for text in [ "null"; "{}"; "{"; without "config"; without "config.fingerprint" ] do
                      File.WriteAllText(record, text)
                      let code, printed, err = patchup [ "evaluate"; weights; "--suite"; "clean" ]
                      Expect.equal (code, printed) (2, "") err
                      Expect.stringContains err $"{record}: damaged" text))

          testCase "weights of PyTorch's are evaluated as its network would" (fun () ->
              inFolder (fun folder ->
                  let weights = Path.Combine(folder, "torch.safetensors")
                  let found, model = trainedIn folder "run" [] |> Checkpoint.read

                  let settings =
                      { NetworkSettings.cifar10 with
                          Width = found.Width }

                  let numbers (values: float list) = values |> List.map string

                  ModelTests.using model (fun model ->
                      [ for name, tensor in Model.state model do
                            let dtype = if tensor.dtype = torch.int64 then "I64" else "F32"
                            "module." + name, dtype, List.ofArray tensor.shape, tensor.bytes.ToArray() ]
                      |> ModelTests.ofPyTorch
                      |> fun bytes -> File.WriteAllBytes(weights, bytes)

                      let json, _ =
                          succeed (
                              [ "evaluate"
                                weights
                                "--model"
                                "preact-resnet-18"
                                "--suite"
                                "clean"
                                "--images"
                                "50"
                                "--json" ]
                              @ [ "--mean" ]
                              @ numbers found.Mean
                              @ [ "--std" ]
                              @ numbers found.Std
                          )

                      let record = JsonNode.Parse(json).[0]
                      let dataset = Dataset.embedded ()
                      let test = dataset.Test |> ImageSet.ofSplit |> ImageSet.spread 50
                      Model.eval model

                      /// By the reference, of images normalised so.
                      let answers normalise =
                          Scope.value (fun () ->
                              use _ = torch.no_grad ()

                              ImageSet.plain test [| 0..49 |]
                              |> normalise
                              |> ModelTests.reference "preact-resnet-18" settings model
                              |> fun logits -> logits.data<float32>().ToArray())
                          |> Array.map float
                          |> Array.chunkBySize 10
                          |> Array.map2 Answer.ofLogits (ImageSet.labels test)

                      let expected = answers model.Normalise
                      let nll (answers: Answer[]) = answers |> Array.averageBy _.Nll

                      expectNear
                          1e-9
                          (value record "result.error.value")
                          (100.0
                           * (expected |> Array.averageBy (fun answer -> if answer.IsRight then 0.0 else 1.0)))
                          "error"

                      expectNear 1e-5 (value record "result.nll.value") (nll expected) "NLL"
                      Expect.isGreaterThan (abs (nll expected - nll (answers id))) 1e-2 "numbers that tell"
                      Expect.isNull record["method"] "the file does not say"
                      Expect.isTrue (File.Exists(Path.Combine(folder, "torch.clean.json"))) "beside the weights"
                      Dataset.dispose dataset)))

          testCase "activations are the mean magnitude over every image, and broken ones are found" (fun () ->
              inFolder (fun folder ->
                  let weights = trainedIn folder "run" []

                  // 130 images are a whole batch and a part of one.
                  let candidate =
                      Candidate.load "cpu" None None None None weights
                      |> fun own ->
                          ImageSet.dispose own.Test
                          let all = Dataset.embedded ()
                          Split.dispose all.Train

                          { own with
                              Test = all.Test |> ImageSet.ofSplit |> ImageSet.spread 130 }

                  using candidate (fun candidate ->
                      let sites = Activations.measure candidate

                      Expect.equal
                          (sites |> List.map (fun site -> site.Site, site.Features))
                          [ "conv1", "1x32x32"
                            "layer1", "1x32x32"
                            "layer2", "2x16x16"
                            "layer3", "4x8x8"
                            "layer4", "8x4x4" ]
                          "sites"

                      for site, expected in List.zip sites (magnitudes candidate) do
                          expectNear (1e-5 * expected) site.MeanMagnitude expected site.Site

                      Expect.isEmpty (Activations.faults 130 sites) "sound"

                      for name, change in
                          [ "signed",
                            (fun site ->
                                { site with
                                    MeanMagnitude = abs site.Mean })
                            "the first image alone", (fun site -> { site with Count = site.Count / 130L })
                            "the first image of each batch",
                            (fun site ->
                                { site with
                                    Count = site.Count / 130L * 2L })
                            "the last batch lost",
                            (fun site ->
                                { site with
                                    Count = site.Count / 130L * 100L })
                            "what is below zero left out",
                            (fun site ->
                                { site with
                                    MeanMagnitude = site.Mean + site.MeanBelowZero })
                            "root mean square",
                            (fun site ->
                                { site with
                                    MeanMagnitude = 1.1 * site.MeanMagnitude })
                            "no number", (fun site -> { site with MeanMagnitude = nan }) ] do
                          Expect.isNonEmpty (Activations.faults 130 (List.map change sites)) name)))

          testCase "evaluating leaves no tensor behind" (fun () ->
              inFolder (fun folder ->
                  let weights = trainedIn folder "run" []

                  let run () =
                      for suite in quick do
                          succeed [ "evaluate"; weights; "--suite"; suite.Name ] |> ignore

                  // The first time, what is made once and kept.
                  run ()
                  Expect.equal (DataModelTests.left run) 0L "live tensors"))

          testCase "what the user can put right is one line and exit code 2, and writes nothing" (fun () ->
              inFolder (fun folder ->
                  let at name = Path.Combine(folder, name)
                  let weights = trainedIn folder "run" []
                  let copy = at (Path.GetFileName weights)
                  File.Copy(weights, copy)
                  File.WriteAllText(at "file", "text")

                  let dataset (classes: string list) (side: int) =
                      let data = at $"data-{classes.Length}-{classes.Head}-{side}"

                      for set in [ "train"; "test" ] do
                          for name in classes do
                              let folder = Directory.CreateDirectory(Path.Combine(data, set, name)).FullName
                              use bitmap = Images.toBitmap (DataModelTests.image 1 side side)
                              Images.writePng (Path.Combine(folder, "1.png")) bitmap

                      data

                  let ten = List.init 10 (fun i -> $"c{i}")
                  let out = at "out"

                  // Another program's weights, and a record of other data.
                  let foreign = at "foreign.safetensors"
                  let _, model = Checkpoint.read weights
                  Model.save foreign Map.empty model
                  Model.dispose model

                  Directory.CreateDirectory(at "moved/weights") |> ignore
                  Directory.CreateDirectory(at "moved/records") |> ignore
                  let moved = at "moved/weights/x.safetensors"
                  File.Copy(weights, moved)

                  let record =
                      File.ReadAllText(Directory.GetFiles(at "run/records")[0])
                      |> Json.tryRead<Record>
                      |> Option.get

                  Json.write
                      (at "moved/records/x.json")
                      { record with
                          Config =
                              { record.Config with
                                  Data = "SVHN"
                                  Fingerprint = "00" } }

                  File.WriteAllText(at "names.txt", String.Join('\n', ten))

                  let foreignOptions = [ "--model"; "preact-resnet-18" ]

                  for arguments, expected in
                      [ [], "<checkpoint>"
                        [ weights; "--suite"; "calibratoin" ], "did you mean calibration?"
                        [ weights; "--suite"; "x" ], "the suites are all, clean"
                        [ at "none.safetensors" ], "no such file"
                        [ at "file" ], "not a sound safetensors file"
                        [ foreign ], "name the model of another program's weights"
                        [ weights; "--images"; "0" ], "1 .. 30"
                        [ weights; "--images"; "31" ], "the test set has 30"
                        [ weights; "--threads"; "0" ], "threads 0"
                        [ weights; "--device"; "tpu" ], "device 'tpu'"
                        [ weights; "--data"; at "nowhere" ], "no such file or folder"
                        [ weights; "--data"; dataset ten 16 ], "32 x 32 pixels"
                        [ weights; "--data"; dataset [ "a"; "b" ] 32 ], "tells 10 classes"
                        [ weights; "--data"; dataset ten 32 ], "its class 0 is 'airplane'"
                        [ weights; "--mean"; "0"; "0"; "0" ], "evaluate: --mean is for another program's weights"
                        [ foreign; "--mean"; "125"; "123"; "114" ] @ foreignOptions,
                        "--mean 125: it must lie in 0 .. 1"
                        [ foreign; "--std"; "63"; "62"; "67" ] @ foreignOptions, "--std 63: it must lie in 0 .. 10"
                        [ foreign; "--class-names"; at "names.txt" ] @ foreignOptions, "its class 0 is 'c0'"
                        [ foreign; "--model"; "resnet-18" ], "no fc.weight"
                        [ weights; copy; "--out"; out ], "two checkpoints"
                        [ moved ], "it was trained on SVHN; name these data with --data"
                        [ weights; "--images"; "1"; "--suite"; "geometry" ], "two images at least"
                        [ weights; "--preset"; "papper" ], "the presets are demo, paper"
                        [ weights; "--baseline"; at "file" ], "no record of the suite 'corrupted'"
                        [ weights; "--baseline"; at "none.json" ], "no such file"
                        [ weights; "--frost"; at "nowhere" ], "no such file or folder"
                        [ weights; "--suite"; "corrupted"; "--corrupted"; at "moved" ], "no corrupted images"
                        [ foreign; "--size"; "16"; "--data"; dataset ten 16; "--suite"; "corrupted" ]
                        @ foreignOptions,
                        "published for 32 x 32 and 64 x 64"
                        [ weights; "--out"; at "file/out" ], "--out" ] do
                      let code, written, err = patchup ("evaluate" :: arguments)
                      let shown = String.Join(' ', arguments)
                      Expect.equal (code, written) (2, "") $"{shown}: {err}"
                      Expect.stringContains err expected shown

                  for place in [ at "out"; at "run/evaluations" ] do
                      if Directory.Exists place then
                          Expect.isEmpty (Directory.GetFiles place) "nothing is written"))

          testCase "a network that diverged fails the run, and writes nothing" (fun () ->
              inFolder (fun folder ->
                  let diverged = diverged folder (trainedIn folder "run" [])

                  for suite, expected in
                      [ "clean", "not finite"
                        "calibration", "not finite"
                        "activations", "not finite"
                        "attacks", "not finite"
                        "deformed", "not finite"
                        "corrupted", "not finite"
                        "geometry", "has no angle to another." ] do
                      let code, out, err =
                          patchup [ "evaluate"; diverged; "--suite"; suite; "--images"; "4" ]

                      Expect.equal (code, out) (1, "") suite
                      Expect.stringContains err expected suite
                      Expect.isFalse (err.Contains "Parameter") "a sentence"

                  Expect.equal (names folder) [ "diverged.safetensors" ] "nothing is written")) ]

let tests =
    testList
        "evaluate"
        [ goldenTests
          answerTests
          calibrationTests
          mutantTests
          geometryTests
          verbTests ]
