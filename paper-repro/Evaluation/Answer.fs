namespace PatchUp.Repro

open PatchUp.Functional
open System

/// What a network says of one image; numbers are in float64.
[<Struct>]
type Answer =
    {
        /// The right class.
        Label: int
        /// The class of the largest logit, the first of equal ones.
        Predicted: int
        /// Is the label among the five largest logits? Of equal ones the first count as larger.
        IsTopFive: bool
        /// The predicted class's probability.
        Confidence: float
        /// The negative log-likelihood of the label, in nats.
        Nll: float
        /// The squared distance of the probabilities from the label's one-hot vector, within 0 .. 2.
        Brier: float
    }

    /// Is the predicted class the right one?
    member this.IsRight = (this.Predicted = this.Label)

/// A number and its 95 % confidence interval.
type Estimate =
    { Value: float
      Low: float
      High: float }

[<RequireQualifiedAccess>]
module Answer =

    /// Of finite logits, one for each class, and the index of the right one.
    let ofLogits (label: int) (logits: float[]) : Answer =
        let largest = Array.max logits
        let weights = logits |> Array.map (fun logit -> exp (logit - largest))
        let total = Array.sum weights
        let own = logits[label]

        let before =
            logits
            |> Seq.indexed
            |> Seq.filter (fun (i, logit) -> logit > own || (logit = own && i < label))
            |> Seq.length

        let square i weight =
            (weight / total - (if i = label then 1.0 else 0.0)) ** 2.0

        { Label = label
          Predicted = Array.IndexOf(logits, largest)
          IsTopFive = before < 5
          Confidence = 1.0 / total
          Nll = log total - (own - largest)
          Brier = Array.sum (Array.mapi square weights) }

    /// Numbers may differ by so much from those of another formula.
    let private tolerance = 1e-9

    /// Why an answer cannot be of any probabilities; None where it can. The predicted class's probability and the label's bound the
    /// Brier score from both sides.
    let fault (answer: Answer) : string option =
        let confidence, right = answer.Confidence, exp -answer.Nll
        let says what = Some $"{what} (%A{answer})"

        let least, most =
            if answer.IsRight then
                (1.0 - confidence) ** 2.0, 2.0 * (1.0 - confidence) ** 2.0
            else
                let least = confidence ** 2.0 + (1.0 - right) ** 2.0
                least, least + (1.0 - confidence - right) ** 2.0

        if not (confidence > 0.0 && confidence <= 1.0) then
            says "a confidence lies outside (0, 1]"
        elif not (answer.Nll >= -tolerance) then
            says "a negative log-likelihood is below 0"
        elif answer.IsRight && not (abs (right - confidence) <= tolerance) then
            says "the label's probability is not that of the predicted class, which it is"
        elif
            not answer.IsRight
            && not (right <= min confidence (1.0 - confidence) + tolerance)
        then
            says "the label's probability is larger than what the predicted class leaves"
        elif not (answer.Brier >= least - tolerance && answer.Brier <= most + tolerance) then
            says $"the Brier score lies outside {least} .. {most}"
        elif answer.IsRight && not answer.IsTopFive then
            says "a right prediction is not among the five largest"
        else
            None

    /// The share of answers of which this holds, in percent, with Wilson's interval.
    let percent (holds: Answer -> bool) (answers: Answer[]) : Estimate =
        let held = answers |> Array.filter holds |> Array.length
        let low, high = Statistics.wilson held answers.Length

        { Value = 100.0 * float held / float answers.Length
          Low = 100.0 * low
          High = 100.0 * high }

    /// How many times the images are drawn again for an interval.
    let private resamples = 1000

    /// The mean of a number over the answers; the interval is that of the means of `resamples` draws of as many answers, with
    /// replacement, from the key.
    let mean (key: Key) (number: Answer -> float) (answers: Answer[]) : Estimate =
        let values = answers |> Array.map number
        let bits = Key.stream key

        let means =
            Array.init resamples (fun _ ->
                let mutable sum = 0.0

                for _ in 1 .. values.Length do
                    sum <- sum + values[bits.Below values.Length]

                sum / float values.Length)
            |> Array.sort

        let outside = resamples / 40

        { Value = Array.average values
          Low = means[outside]
          High = means[resamples - 1 - outside] }
