namespace PatchUp.Repro

open System.Text.Json

/// Golden files of metrics: logits and labels with the accuracy, negative log-likelihood, Brier score and calibration error that another
/// implementation found for them, and confidences on the edges of bins.
[<RequireQualifiedAccess>]
module GoldenMetrics =

    open Golden

    /// Numbers agree up to this deviation: both sides are float64.
    let tolerance = 1e-9

    /// Whether this is such a file's content.
    let isIt (root: JsonElement) : bool =
        root.ValueKind = JsonValueKind.Object
        && List.forall (fun (name: string) -> fst (root.TryGetProperty name)) [ "logits"; "labels"; "ece" ]

    /// A list's parts, of which there is one at least.
    let private parts (name: string) case : JsonElement list =
        match List.ofSeq (items name case (field name case)) with
        | [] -> refuse case $"'{name}' is empty."
        | parts -> parts

    /// The answers to the file's logits.
    let private answers (case: Case) : Answer[] =
        let labels = integers "labels" case

        let logits =
            [| for row in parts "logits" case ->
                   [| for logit in items "logits" case row -> asNumber "logits" case logit |] |]

        let classes = logits[0].Length

        if logits.Length <> labels.Length then
            refuse case $"{logits.Length} rows of 'logits' where there are {labels.Length} 'labels'."

        if classes = 0 || logits |> Array.exists (fun row -> row.Length <> classes) then
            refuse case "the rows of 'logits' differ in length, or are empty."

        Array.map2
            (fun label row ->
                if label < 0 || label >= classes then
                    refuse case $"the label {label} is none of 0 .. {classes - 1}."

                Answer.ofLogits label row)
            labels
            logits

    /// What stands for the number of a bin without images.
    let private none = -1.0

    /// A number of every bin of the file.
    let private ofBins (name: string) case : float[] =
        [| for i, bin in List.indexed (parts "bins" case) ->
               match field name (caseOf $"{case.Where}, 'bins'" (i + 1) $"'{name}'" bin) with
               | value when value.ValueKind = JsonValueKind.Null -> none
               | value -> asNumber name case value |]

    let private metrics (case: Case) =
        let answers = answers case
        let found = CalibrationResult.ofAnswers answers
        let bins = Array.ofList found.EqualWidth.Bins

        let one name value =
            name, [| number name case |], [| value |]

        let each name (value: ReliabilityBin -> float) =
            $"bins.{name}", ofBins name case, Array.map value bins

        let topFive = answers |> Array.filter _.IsTopFive |> Array.length

        [ one "accuracy" found.Accuracy
          one "top5_accuracy" (float topFive / float answers.Length)
          one "nll" found.Nll
          one "brier" found.Brier
          one "ece" found.EqualWidth.Ece
          each "lower" _.Lower
          each "upper" _.Upper
          each "count" (fun bin -> float bin.Count)
          each "accuracy" (_.Accuracy >> Option.defaultValue none)
          each "confidence" (_.Confidence >> Option.defaultValue none) ]

    let private edge (case: Case) =
        let confidences = numbers "confidence" case
        let right = numbers "correct" case

        if confidences |> Array.exists (fun value -> not (value >= 0.0 && value <= 1.0)) then
            refuse case "a 'confidence' lies outside [0, 1]."

        if confidences.Length <> right.Length || right.Length = 0 then
            refuse case "'confidence' and 'correct' differ in length, or are empty."

        let pairs =
            Array.map2 (fun confidence right -> confidence, right = 1.0) confidences right

        [ "bin", numbers "bin" case, confidences |> Array.map (Reliability.bin >> float)
          "ece", [| number "ece" case |], [| (Reliability.equalWidth pairs).Ece |] ]

    /// Compares the file's numbers with this library's; a UserError names the file and the field that cannot be read.
    let verify (path: string) (root: JsonElement) : Verification =
        let verdicts number kind (fields: Case -> (string * float[] * float[]) list) json =
            let case = caseOf path number "numbers" json

            fields case
            |> List.map (fun (name, expected, found) -> compare tolerance case kind name expected found)

        [ verdicts 1 "metrics" metrics root
          match root.TryGetProperty "edge" with
          | true, json -> verdicts 2 "edge" edge json
          | _ -> () ]
        |> verification
