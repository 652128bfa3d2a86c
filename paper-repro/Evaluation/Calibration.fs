namespace PatchUp.Repro

/// A bin of confidences.
type ReliabilityBin =
    {
        Lower: float
        Upper: float
        /// How many images have a confidence in it.
        Count: int
        /// The share of them that is predicted right; null where there is none.
        Accuracy: float option
        /// Their mean confidence; null where there is none.
        Confidence: float option
    }

/// How far confidence is from accuracy, bin by bin.
type Reliability =
    {
        /// The expected calibration error: the mean over images of |accuracy - mean confidence| of their bin.
        Ece: float
        Bins: ReliabilityBin list
    }

/// How well a network's probabilities are those with which it is right.
type CalibrationResult =
    {
        Images: int
        /// In 0 .. 1.
        Accuracy: float
        /// The mean confidence.
        Confidence: float
        /// Bins (b/15, (b+1)/15]; an edge belongs to the bin below it, and 1 to the last.
        EqualWidth: Reliability
        /// Bins of the images in the order of their confidence, as many in each as can be; equal confidences share what is right.
        EqualMass: Reliability
        /// The mean squared distance of the probabilities from the label's one-hot vector, within 0 .. 2.
        Brier: float
        /// In nats.
        Nll: float
    }

/// Calibration errors of (confidence, is right) pairs.
[<RequireQualifiedAccess>]
module Reliability =

    /// How many bins there are.
    let bins = 15

    /// Edge b of the bins of equal width, from 0 to the number of bins.
    let edge (b: int) : float = float b / float bins

    /// The bin of a confidence in [0, 1] among bins of equal width: the first whose upper edge is not below it.
    let bin (confidence: float) : int =
        Seq.find (fun b -> b = bins - 1 || confidence <= edge (b + 1)) (seq { 0 .. bins - 1 })

    let private share right = if right then 1.0 else 0.0

    /// Of confidences and how far each is right.
    let private binOf lower upper (pairs: (float * float)[]) : ReliabilityBin =
        let average number =
            if pairs.Length = 0 then
                None
            else
                Some(Array.averageBy number pairs)

        { Lower = lower
          Upper = upper
          Count = pairs.Length
          Accuracy = average snd
          Confidence = average fst }

    let private shares =
        Array.map (fun (confidence, isRight) -> confidence, share isRight)

    let private reliability (count: int) (bins: ReliabilityBin list) : Reliability =
        let gap (bin: ReliabilityBin) =
            match bin.Accuracy, bin.Confidence with
            | Some accuracy, Some confidence -> float bin.Count / float count * abs (accuracy - confidence)
            | _ -> 0.0

        { Ece = List.sumBy gap bins
          Bins = bins }

    /// Bins of equal width.
    let equalWidth (pairs: (float * bool)[]) : Reliability =
        let found = shares pairs |> Array.groupBy (fst >> bin) |> Map

        [ for b in 0 .. bins - 1 -> found.TryFind b |> Option.defaultValue [||] |> binOf (edge b) (edge (b + 1)) ]
        |> reliability pairs.Length

    /// Bins of as equal a number of images as can be; at most one for each image. Of images with equal confidences each counts as their share that is
    /// right, so that it does not matter which of them fall into which bin: test sets are often sorted by class.
    let equalMass (pairs: (float * bool)[]) : Reliability =
        let sorted =
            shares pairs
            |> Array.groupBy fst
            |> Array.sortBy fst
            |> Array.collect (fun (confidence, tied) -> Array.create tied.Length (confidence, Array.averageBy snd tied))

        Array.splitInto bins sorted
        |> List.ofArray
        |> List.map (fun part -> binOf (fst part[0]) (fst (Array.last part)) part)
        |> reliability pairs.Length

/// Calibration of a network's answers, and checks of it.
[<RequireQualifiedAccess>]
module CalibrationResult =

    let private share right = if right then 1.0 else 0.0

    /// Of at least one answer.
    let ofAnswers (answers: Answer[]) : CalibrationResult =
        let pairs = answers |> Array.map (fun answer -> answer.Confidence, answer.IsRight)

        { Images = answers.Length
          Accuracy = pairs |> Array.averageBy (snd >> share)
          Confidence = pairs |> Array.averageBy fst
          EqualWidth = Reliability.equalWidth pairs
          EqualMass = Reliability.equalMass pairs
          Brier = answers |> Array.averageBy _.Brier
          Nll = answers |> Array.averageBy _.Nll }

    // ---- checks ----

    /// Numbers may differ by so much from those of another formula.
    let private tolerance = 1e-9

    let private isNear (a: float) (b: float) = abs (a - b) <= tolerance

    /// What holds of bins of either kind.
    let private faultsOf name (calibration: CalibrationResult) (right: int) (reliability: Reliability) =
        let total number =
            reliability.Bins |> List.sumBy (number >> Option.defaultValue 0.0)

        let weighted (number: ReliabilityBin -> float option) =
            total (fun bin -> number bin |> Option.map ((*) (float bin.Count)))

        let counted = reliability.Bins |> List.sumBy _.Count
        let gap = abs (calibration.Accuracy - calibration.Confidence)

        [ if counted <> calibration.Images then
              $"{name}: the bins hold {counted} of {calibration.Images} images"
          if not (isNear (weighted _.Accuracy / float calibration.Images) (float right / float calibration.Images)) then
              $"{name}: the bins' accuracies are those of {weighted _.Accuracy} right predictions, and {right} are right"
          if not (isNear (weighted _.Confidence / float calibration.Images) calibration.Confidence) then
              $"{name}: the bins' confidences are not the images'"
          for bin in reliability.Bins do
              match bin.Confidence with
              | Some mean when not (mean >= bin.Lower - tolerance && mean <= bin.Upper + tolerance) ->
                  $"{name}: a bin's mean confidence {mean} lies outside {bin.Lower} .. {bin.Upper}"
              | _ -> ()
          if not (reliability.Ece >= gap - tolerance && reliability.Ece <= 1.0) then
              $"{name}: the error {reliability.Ece} lies outside {gap} .. 1" ]

    /// The calibration error by another formula: bins as sets of images, of which each has the sum of (right - confidence).
    let private errorOf (answers: Answer[]) (bins: Answer[] seq) =
        let residual (answer: Answer) =
            share answer.IsRight - answer.Confidence

        (bins |> Seq.sumBy (Array.sumBy residual >> abs)) / float answers.Length

    /// The error of bins that hold so many images, by another formula: the sum of (right - confidence) over the images below a confidence is a curve, which
    /// is a straight line between two confidences and where several images have the same; each bin's part is what it rises.
    let private massError (answers: Answer[]) (counts: int list) =
        let knots =
            answers
            |> Array.groupBy _.Confidence
            |> Array.sortBy fst
            |> Array.scan
                (fun (images, sum) (confidence, tied) ->
                    let right = tied |> Array.filter _.IsRight |> Array.length
                    images + float tied.Length, sum + float right - confidence * float tied.Length)
                (0.0, 0.0)

        let at (images: float) =
            let next = knots |> Array.findIndex (fun (below, _) -> below >= images)

            if fst knots[next] = images then
                snd knots[next]
            else
                let (before, low), (after, high) = knots[next - 1], knots[next]
                low + (images - before) / (after - before) * (high - low)

        let ends = counts |> List.scan (+) 0 |> List.map (float >> at)

        (ends |> List.pairwise |> List.sumBy (fun (low, high) -> abs (high - low)))
        / float answers.Length

    /// Why the numbers cannot be the calibration of these answers; empty where they are.
    let faults (answers: Answer[]) (calibration: CalibrationResult) : string list =
        let right = answers |> Array.filter _.IsRight |> Array.length
        let mean number = Array.averageBy number answers
        let width, mass = calibration.EqualWidth, calibration.EqualMass

        let within (bin: ReliabilityBin) (answer: Answer) =
            answer.Confidence > bin.Lower && answer.Confidence <= bin.Upper

        let members =
            width.Bins |> List.map (fun bin -> bin, answers |> Array.filter (within bin))

        let certain =
            answers |> Array.filter (fun answer -> answer.Confidence = 1.0) |> Array.length

        let edges = width.Bins |> List.map (fun bin -> bin.Lower, bin.Upper)

        [ yield! answers |> Seq.choose Answer.fault |> Seq.truncate 1

          if calibration.Images <> answers.Length then
              $"{calibration.Images} images where there are {answers.Length}"
          if not (isNear calibration.Accuracy (float right / float answers.Length)) then
              $"the accuracy is {calibration.Accuracy} where {right} of {answers.Length} are right"
          if not (isNear calibration.Confidence (mean _.Confidence)) then
              "the mean confidence is not the images'"
          if not (isNear calibration.Nll (mean _.Nll)) then
              "the negative log-likelihood is not the images' mean"
          if not (isNear calibration.Brier (mean _.Brier)) then
              "the Brier score is not the images' mean"

          yield! faultsOf "equal width" calibration right width
          yield! faultsOf "equal mass" calibration right mass

          if
              edges
              <> [ for b in 0 .. Reliability.bins - 1 -> Reliability.edge b, Reliability.edge (b + 1) ]
          then
              "equal width: the edges are not b/15"
          for bin, found in members do
              if found.Length <> bin.Count then
                  $"equal width: the bin {bin.Lower:F3} .. {bin.Upper:F3} counts {bin.Count} images where {found.Length} belong"
          if (List.last width.Bins).Count < certain then
              "equal width: a confidence of 1 is not in the last bin"
          if not (isNear width.Ece (members |> Seq.map snd |> errorOf answers)) then
              $"equal width: the error {width.Ece} is not that of the images in each bin"

          let counts = mass.Bins |> List.map _.Count

          if List.max counts - List.min counts > 1 then
              "equal mass: bins differ by more than one image"

          if
              List.sum counts = answers.Length
              && not (isNear mass.Ece (massError answers counts))
          then
              $"equal mass: the error {mass.Ece} is not that of the images in each bin" ]
