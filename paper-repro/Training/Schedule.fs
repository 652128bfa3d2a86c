namespace PatchUp.Repro

open System

/// How the learning rate goes over a run, apart from a warm-up.
type Curve =
    /// Divided by ten at each of these shares of the epochs.
    | MultiStep of milestones: float list
    /// Half a cosine, from the peak to zero.
    | Cosine
    /// Smith and Topin's, as PyTorch has it: up from a 25th of the peak over the first 3/10 of the steps, then down to
    /// 1/250,000 of it, each by half a cosine. The momentum stays as it is.
    | OneCycle

/// Learning rates.
[<RequireQualifiedAccess>]
module Schedule =

    /// Half a cosine from one value to another, at a share from 0 to 1 of the way.
    let private between (first: float) (last: float) (share: float) =
        last + (first - last) * (1.0 + cos (Math.PI * share)) / 2.0

    /// The learning rate of a step, counted from 0 over the whole run, where the highest is `peak`. A warm-up of so many
    /// epochs raises the rate in a line from zero, which the step before the first one would have; a cosine begins after
    /// it.
    let rate (peak: float) (curve: Curve) (warmup: float) (epochs: int) (stepsPerEpoch: int) (step: int) : float =
        let rising = warmup * float stepsPerEpoch
        let steps = float epochs * float stepsPerEpoch

        let planned =
            match curve with
            | MultiStep milestones ->
                // A share such as 0.28 of 50 epochs is a little more than 14 in floating point.
                let epoch = float (step / stepsPerEpoch) + 1e-9
                let passed = milestones |> List.filter (fun share -> epoch >= share * float epochs)
                peak / pown 10.0 passed.Length
            | Cosine -> between peak 0.0 (max 0.0 (float step - rising) / (steps - rising))
            | OneCycle ->
                // The steps at which the rate is the highest and the lowest.
                let highest, lowest = 0.3 * steps - 1.0, steps - 1.0

                if float step <= highest then
                    between (peak / 25.0) peak (float step / highest)
                else
                    between peak (peak / 25.0 / 1e4) ((float step - highest) / (lowest - highest))

        if float (step + 1) < rising then
            planned * float (step + 1) / rising
        else
            planned
