/// The operations as the paper writes them, in arrays and loops: slow, and plain enough to be checked by reading.
/// Feature maps are flat arrays `[N,C,H,W]`; M is 1 where a feature stays.
module PatchUp.Tests.Reference

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open TorchSharp
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

// ---- masks ----

/// Equation (2): gamma_adj = gamma H W / (b_h b_w) / ((H - b_h + 1) (W - b_w + 1)), with blocks of at most the map's
/// sides.
let gammaAdjusted (shape: Shape) (block: int) (gamma: float) : float =
    let h, w = shape.Height, shape.Width
    let bh, bw = min block h, min block w

    gamma * float (h * w)
    / float (bh * bw)
    / (float (h - bh + 1) * float (w - bw + 1))

/// The beginnings that a block may have along an axis.
let private starts calibration side block =
    match calibration with
    | Valid -> [| 0 .. side - block |]
    | Exact
    | Paper -> [| for centre in 0 .. side - 1 -> centre - block / 2 |]

/// How many beginnings cover each place of the map.
let private covers calibration (shape: Shape) size : int[,] =
    let bh, bw = min size shape.Height, min size shape.Width

    Array2D.init shape.Height shape.Width (fun y x ->
        let mutable count = 0

        for top in starts calibration shape.Height bh do
            for left in starts calibration shape.Width bw do
                if top <= y && y < top + bh && left <= x && x < left + bw then
                    count <- count + 1

        count)

/// log(1 - p), also where 1 - p rounds to 1.
let private logOfRest p = if p < 1e-8 then -p else log (1.0 - p)

/// 1 - (1 - p)^c: the probability that one of c possible seeds is there.
let private altered (c: float) (p: float) =
    let exponent = c * logOfRest p

    if c = 0.0 then 0.0
    elif exponent > -1e-8 then -exponent
    else 1.0 - exp exponent

/// The probability of a seed. Exact: by bisection of mean(1 - (1 - p)^c) = fraction.
let seedProbability calibration (shape: Shape) size fraction : float =
    match calibration with
    | Paper
    | Valid -> min 1.0 (gammaAdjusted shape size fraction)
    | Exact ->
        let counts =
            covers Exact shape size |> Seq.cast<int> |> Seq.map float |> Array.ofSeq

        let mean p =
            counts |> Array.averageBy (fun c -> altered c p)

        let rec bisect low high steps =
            let middle = (low + high) / 2.0

            if steps = 0 then
                middle
            elif mean middle < fraction then
                bisect middle high (steps - 1)
            else
                bisect low middle (steps - 1)

        if fraction <= 0.0 || fraction >= 1.0 then
            fraction
        else
            bisect 0.0 1.0 200

/// Algorithm 1's max-pooling: a feature is altered if a block that begins at a seed covers it.
let paint (shape: Shape) calibration size (seeds: bool[,]) : bool[,] =
    let bh, bw = min size shape.Height, min size shape.Width

    let tops, lefts =
        starts calibration shape.Height bh, starts calibration shape.Width bw

    Array2D.init shape.Height shape.Width (fun y x ->
        let mutable isAltered = false

        for i in 0 .. tops.Length - 1 do
            for j in 0 .. lefts.Length - 1 do
                let covers = tops[i] <= y && y < tops[i] + bh && lefts[j] <= x && x < lefts[j] + bw

                if seeds[i, j] && covers then
                    isAltered <- true

        isAltered)

/// Bernoulli trials drawn as the gaps between successes, which are geometric: the numbers that the library uses.
let private bernoulli (bits: Stream) probability count : bool[] =
    let seeds = Array.create count false

    if probability > 0.0 then
        let mutable i = 0.0

        while i < float count do
            let failures =
                if probability >= 1.0 then
                    bits.Open() |> ignore
                    0.0
                else
                    floor (log (bits.Open()) / logOfRest probability)

            i <- i + failures

            if i < float count then
                seeds[int i] <- true

            i <- i + 1.0

    seeds

/// The altered features of `planes` planes of a leaf.
let private leaf (shape: Shape) planes (bits: Stream) region : bool[,][] =
    let map f = Array2D.init shape.Height shape.Width f

    match region with
    | Cells fraction -> Array.init planes (fun _ -> map (fun _ _ -> bits.Float() < fraction))
    | Channels fraction ->
        Array.init planes (fun _ ->
            let isAltered = bits.Float() < fraction
            map (fun _ _ -> isAltered))
    | Blocks(size, fraction, calibration) ->
        let rows = (starts calibration shape.Height (min size shape.Height)).Length
        let columns = (starts calibration shape.Width (min size shape.Width)).Length

        let seeds =
            bernoulli bits (seedProbability calibration shape size fraction) (planes * rows * columns)

        Array.init planes (fun c ->
            Array2D.init rows columns (fun i j -> seeds[(c * rows + i) * columns + j])
            |> paint shape calibration size)
    | Rect area ->
        Array.init planes (fun _ ->
            let area = Dist.sample bits area

            let side axis =
                int (floor (float axis * sqrt area + 0.5))

            let height, width = side shape.Height, side shape.Width
            let y0, x0 = bits.Below shape.Height, bits.Below shape.Width
            let top, left = y0 - height / 2, x0 - width / 2
            map (fun y x -> top <= y && y < top + height && left <= x && x < left + width))
    | _ -> failwith $"{region} is no leaf."

/// M of a region, `[N,C,H,W]`.
let mask (key: Key) (info: BatchInfo) (shape: Shape) (region: Region) : float[] =
    let plane = shape.Height * shape.Width
    let whole = info.Count * shape.Channels * plane

    let random perSample perChannel index region =
        let key = Key.child index key
        let planes = if perChannel then shape.Channels else 1

        let sample n =
            let key =
                if perSample then
                    key |> Key.child 1 |> Key.child (info.First + n)
                else
                    key |> Key.child 0 |> Key.child info.First

            match region with
            | Custom custom ->
                let drawn =
                    custom.Draw
                        { Key = key
                          Shape = { shape with Channels = planes }
                          Sample = (if perSample then Some n else None)
                          Batch = info }

                match drawn.Values with
                | Soft values -> Array.map float values
                | Hard bits -> bits |> Array.map (fun bit -> if bit then 1.0 else 0.0)
            | _ ->
                leaf shape planes (Key.stream key) region
                |> Array.collect (fun plane ->
                    plane
                    |> Seq.cast<bool>
                    |> Seq.map (fun altered -> if altered then 0.0 else 1.0)
                    |> Array.ofSeq)

        let samples =
            if perSample then
                Array.init info.Count sample
            else
                [| sample 0 |]

        Array.init whole (fun i ->
            let n, c, p = i / plane / shape.Channels, i / plane % shape.Channels, i % plane
            let values = samples[n % samples.Length]
            // A custom may draw a mask for each sample at once.
            values[(n * planes + c % planes) * plane % values.Length + p])

    let rec go perSample (perChannel: bool option) index region : float[] * int =
        let leafOf natural =
            random perSample (defaultArg perChannel natural) index region, index + 1

        match region with
        | Nowhere -> Array.create whole 1.0, index
        | Everywhere -> Array.create whole 0.0, index
        | Cells _
        | Blocks _
        | Channels _ -> leafOf true
        | Rect _
        | Custom _ -> leafOf false
        | Not a ->
            let m, index = go perSample perChannel index a
            Array.map (fun m -> 1.0 - m) m, index
        | And(a, b) ->
            let m, index = go perSample perChannel index a
            let m', index = go perSample perChannel index b
            Array.map2 (fun m m' -> 1.0 - (1.0 - m) * (1.0 - m')) m m', index
        | Or(a, b) ->
            let m, index = go perSample perChannel index a
            let m', index = go perSample perChannel index b
            Array.map2 (*) m m', index
        | PerSample a -> go true perChannel index a
        | PerChannel a -> go perSample (Some true) index a
        | Shared a -> go perSample (Some false) index a

    fst (go false None 0 region)

// ---- mixing ----

/// Equation (4).
let mix (l: float) a b = l * a + (1.0 - l) * b

/// Equations (3) and (5) for one feature. Where all of one side is taken the other is not read, as M g_i would be with
/// infinities.
let phi (m: float) (lambda: float) (own: float) (other: float) : float =
    let w = (1.0 - m) * (1.0 - lambda)

    if w = 0.0 then
        own
    elif w = 1.0 then
        other
    else
        m * own + mix lambda ((1.0 - m) * own) ((1.0 - m) * other)

/// What the features and targets of a batch become.
type Mixed =
    {
        Features: float[]
        /// How far rounding may have moved each feature: a share of max(|own|, |other|), none where bits are moved.
        Slack: float[]
        Targets: float[]
        /// y_i, Y, p_u of the last draw with a partner.
        Parts: (float[] * float[] * float[]) option
    }

/// The partner's maps shrunk bilinearly into the bounding box of the altered features of each sample's mask, 0 around
/// it.
let private resized count (shape: Shape) (mask: Mask) (other: float[]) : float[] =
    let plane = shape.Height * shape.Width
    let kept = MaskValues.kept mask

    Array.init count (fun n ->
        let altered =
            [ for y in 0 .. shape.Height - 1 do
                  for x in 0 .. shape.Width - 1 do
                      if Seq.exists (fun c -> kept n c (y * shape.Width + x) < 1.0) [ 0 .. shape.Channels - 1 ] then
                          y, x ]

        let sample =
            other[n * shape.Channels * plane .. (n + 1) * shape.Channels * plane - 1]

        match altered with
        | [] -> sample
        | _ ->
            let top, bottom = altered |> List.map fst |> fun ys -> List.min ys, List.max ys
            let left, right = altered |> List.map snd |> fun xs -> List.min xs, List.max xs

            // Half-pixel centres: where output i of `size` looks on an axis of `side`.
            let look side size i =
                let at = max 0.0 ((float i + 0.5) * float side / float size - 0.5)
                let low = int at
                low, min (low + 1) (side - 1), at - float low

            Array.init sample.Length (fun i ->
                let c, y, x = i / plane, i / shape.Width % shape.Height, i % shape.Width

                if y < top || y > bottom || x < left || x > right then
                    0.0
                else
                    let y0, y1, fy = look shape.Height (bottom - top + 1) (y - top)
                    let x0, x1, fx = look shape.Width (right - left + 1) (x - left)
                    let at y x = sample[c * plane + y * shape.Width + x]
                    let row y = (1.0 - fx) * at y x0 + fx * at y x1
                    (1.0 - fy) * row y0 + fy * row y1))
    |> Array.concat

/// One draw: x' = blend w x x[partner], y' = blend (mean w) y y[partner], w = (1 - M) (1 - lambda).
let private applyDrawn (shape: Shape) count tolerance (batch: Mixed) (drawn: Drawn) : Mixed =
    let stride = shape.Channels * shape.Height * shape.Width
    let m = MaskValues.spread count shape drawn.Mask
    let lambda n = drawn.Lambda[n % drawn.Lambda.Length]

    let scale n =
        if drawn.Scale.Length = 0 then
            1.0
        else
            drawn.Scale[n % drawn.Scale.Length]

    let gather (values: float[]) stride =
        match drawn.Partner with
        | Some map -> Array.init values.Length (fun i -> values[map[i / stride] * stride + i % stride])
        | None -> Array.zeroCreate values.Length

    let isResized = drawn.View = Resized && drawn.Partner.IsSome

    let other, otherSlack =
        let features, slack = gather batch.Features stride, gather batch.Slack stride

        if isResized then
            let largest = features |> Array.fold (fun most v -> max most (abs v)) 0.0

            resized count shape drawn.Mask features,
            Array.create slack.Length (Array.max slack + 2.0 * tolerance * largest)
        else
            features, slack

    let features =
        Array.init batch.Features.Length (fun i ->
            scale (i / stride) * phi m[i] (lambda (i / stride)) batch.Features[i] other[i])

    let slack =
        Array.init batch.Features.Length (fun i ->
            let w = (1.0 - m[i]) * (1.0 - lambda (i / stride))
            let rounded = tolerance * max (abs batch.Features[i]) (abs other[i])

            let blended =
                if w = 0.0 then batch.Slack[i]
                elif w = 1.0 then otherSlack[i]
                else max batch.Slack[i] otherSlack[i] + rounded

            if drawn.Scale.Length = 0 then
                blended
            else
                scale (i / stride) * (blended + 2.0 * rounded))

    let targets =
        match drawn.Partner with
        | None ->
            {| Targets = batch.Targets
               Parts = batch.Parts |}
        | Some _ ->
            let classes = batch.Targets.Length / count
            let y = batch.Targets
            let yj = gather y classes

            let unchanged =
                Array.init count (fun n -> Array.average m[n * stride .. (n + 1) * stride - 1])

            // Equations (7) and (8).
            let Y = Array.init y.Length (fun i -> mix (lambda (i / classes)) y[i] yj[i])
            let W = Array.init y.Length (fun i -> mix unchanged[i / classes] y[i] Y[i])

            {| Targets = W
               Parts = Some(y, Y, unchanged) |}

    { Features = features
      Slack = slack
      Targets = targets.Targets
      Parts = targets.Parts }

/// A plan on features and targets.
let apply (shape: Shape) (tolerance: float) (plan: Plan) (features: float[]) (targets: float[]) : Mixed =
    let batch =
        { Features = features
          Slack = Array.zeroCreate features.Length
          Targets = targets
          Parts = None }

    plan.Draws |> List.fold (applyDrawn shape plan.Count tolerance) batch

// ---- losses ----

/// A sample's loss at a target, by the definitions.
let rec private lossAt (loss: Loss) (logits: float[]) (y: float[]) : float =
    let largest = Array.max logits
    let sum = logits |> Array.sumBy (fun f -> exp (f - largest))
    let q = logits |> Array.map (fun f -> exp (f - largest) / sum)
    let classes = float y.Length

    match loss with
    | CrossEntropy -> -Array.sum(Array.map2 (fun y q -> y * log q) y q)
    | BceOnSoftmax -> -Array.average(Array.map2 (fun y q -> y * log q + (1.0 - y) * log (1.0 - q)) y q)
    | Brier -> Array.sum (Array.map2 (fun y q -> (q - y) * (q - y)) y q)
    | Smoothed(amount, loss) -> lossAt loss logits (y |> Array.map (fun y -> (1.0 - amount) * y + amount / classes))
    | CustomLoss custom -> failwith $"{custom.Name} has no reference."

/// Equation (6): Mix_pu[loss(f, y_i), loss(f, Y)] + loss(f, W), each term with its weight, then the mean over the
/// samples.
let batchLoss
    (loss: Loss)
    (objective: Objective)
    classes
    (logits: float[])
    (w: float[])
    (parts: (float[] * float[] * float[]) option)
    : float =
    let row (values: float[]) n =
        values[n * classes .. (n + 1) * classes - 1]

    let at values n =
        lossAt loss (row logits n) (row values n)

    Array.init (w.Length / classes) (fun n ->
        match parts with
        | None -> at w n
        | Some(own, altered, unchanged) ->
            objective.First * mix unchanged[n] (at own n) (at altered n)
            + objective.Second * at w n)
    |> Array.average

// ---- the library against the reference ----

let private sameMask (trial: RegionTrial) =
    let info =
        { BatchInfo.ofShape trial.Count trial.Shape with
            First = trial.First }

    let found =
        Region.draw trial.Key info trial.Shape trial.Region
        |> MaskValues.spread trial.Count trial.Shape

    Verdict.near "M" 0.0 1e-6 (mask trial.Key info trial.Shape trial.Region) found

/// Wild features only where bits are moved: a line between infinities has no value to compare.
let private sameBatch (trial: Trial) =
    let plan = Plan.draw trial.Key (Trial.info trial) trial.Regularizer
    let isHard = Mixing.isHard plan
    let trial = if isHard then trial else { trial with Wild = false }
    let batch = Trial.batch trial
    let found = Plan.apply plan batch
    let features, targets = Read.values batch.Features, Read.values batch.Targets.Soft
    let expected = apply trial.Shape (Mixing.rounding trial) plan features targets
    let values = Read.values found.Features

    let isNear i =
        let slack = expected.Slack[i]

        if slack = 0.0 then
            BitConverter.DoubleToInt64Bits expected.Features[i] = BitConverter.DoubleToInt64Bits values[i]
            || (expected.Features[i] = 0.0 && values[i] = 0.0 && not isHard)
        else
            abs (expected.Features[i] - values[i]) <= slack

    let near what = Verdict.near what 1e-6 1e-6

    [ match [ 0 .. values.Length - 1 ] |> List.tryFind (isNear >> not) with
      | Some i ->
          Verdict.Broken
              $"feature {i} is {values[i]} where {expected.Features[i]} was expected, within {expected.Slack[i]}."
      | None -> Verdict.Kept
      near "W" expected.Targets (Read.values found.Targets.Soft)
      match expected.Parts, found.Targets.Mixed with
      | None, None -> Verdict.Kept
      | Some(own, altered, unchanged), Some mixed ->
          near "y_i" own (Read.values mixed.Own)
          near "Y" altered (Read.values mixed.Altered)
          near "p_u" unchanged mixed.Unchanged
      | _ -> Verdict.Broken "only one of both counts as mixed." ]
    |> Verdict.all

let private sameLoss (trial: Trial) =
    let plan = Plan.draw trial.Key (Trial.info trial) trial.Regularizer
    let batch = Trial.batch trial
    let targets = (Plan.apply plan batch).Targets
    let logits = Trial.logits trial

    let objective, parts =
        match targets.Mixed with
        | Some mixed -> mixed.Objective, Some(Read.values mixed.Own, Read.values mixed.Altered, mixed.Unchanged)
        | None -> Objective.reweighted, None

    [ CrossEntropy
      BceOnSoftmax
      Brier
      Smoothed(0.2, CrossEntropy)
      Smoothed(0.1, Brier) ]
    |> Seq.map (fun loss ->
        let expected =
            batchLoss loss objective trial.Classes (Read.values logits) (Read.values targets.Soft) parts

        Verdict.near $"{loss}" 1e-5 1e-6 [| expected |] (Read.values (Loss.ofBatch loss targets logits)))
    |> Verdict.all

let private sameExpectation (trial: RegionTrial) =
    match trial.Region with
    | Blocks(size, fraction, calibration) ->
        let p = seedProbability calibration trial.Shape size fraction

        let expected =
            covers calibration trial.Shape size
            |> Seq.cast<int>
            |> Seq.map (fun c -> altered (float c) p)
            |> Array.ofSeq

        [ Verdict.near
              "1 - (1 - p)^c"
              1e-9
              1e-12
              expected
              (Region.expected trial.Shape trial.Region |> Seq.cast<float> |> Array.ofSeq)
          Verdict.near
              "equation (2)"
              1e-12
              0.0
              [| gammaAdjusted trial.Shape size fraction |]
              [| Region.gammaAdjusted trial.Shape size fraction |] ]
        |> Verdict.all
    | _ -> Verdict.NotApplicable

let private blocks =
    Generators.region
    |> Arb.filter (fun region ->
        match region with
        | Blocks _ -> true
        | _ -> false)

let tests =
    testList
        "reference"
        [ forAll
              "Region.draw paints what the reference paints"
              2000
              (Generators.regionTrials Generators.region)
              sameMask
          forAll
              "Region.expected is the closed form of the reference"
              500
              (Generators.regionTrials blocks)
              sameExpectation
          forAll "Plan.apply mixes as the reference does" 1500 (Generators.trials Generators.regularizer) sameBatch
          forAll "Loss.ofBatch is equation (6) of the reference" 500 (Generators.trials Generators.regularizer) sameLoss ]
