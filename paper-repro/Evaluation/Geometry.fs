namespace PatchUp.Repro

open PatchUp.Functional
open PatchUp.Functional.Words
open System
open TorchSharp

/// Where a mix lies between two hidden representations; angles in radians.
type PairAngles =
    {
        /// Between the sample's own features and the mix.
        Own: float
        /// Between the partner's features and the mix.
        Partner: float
        /// Between the two.
        Between: float
        /// Own + Partner - Between: 0 exactly when the mix lies on the arc between the two.
        Slack: float
        IsSameClass: bool
    }

/// The smallest, the quartiles and the largest of some numbers.
type Quartiles =
    { Least: float
      Lower: float
      Median: float
      Upper: float
      Most: float }

/// What a method makes of the batch.
type MethodGeometry =
    { Method: string
      Notation: string
      Slack: Quartiles
      Pairs: PairAngles list }

/// The geometry of mixes (appendix C of the paper) at one site.
type GeometryResult =
    {
        /// The stage at whose end features are mixed.
        Site: string
        /// Channels, height and width.
        Features: string
        Images: int
        Methods: MethodGeometry list
    }

/// Angles between hidden pairs and their mixes (appendix C, figures 10 to 12).
[<RequireQualifiedAccess>]
module Geometry =

    /// How many images a batch has, at most.
    let batch = 100

    /// The end of the second stage.
    let private site = 3

    /// Where two numbers count as one: far more than float64 rounds, far less than what PatchUp makes.
    let tolerance = 1e-9

    /// Everything between, and blocks with the same settings, hard and soft; no image is its own partner. Each pair has draws of its own: with one lambda
    /// for all of them the slacks of a batch would be that lambda's.
    let methods: (string * Regularizer) list =
        [ "manifold-mixup", everywhere |> blendEach (beta 2 2)
          "soft-patchup", perSample (blocks 7 0.5) |> blendEach (beta 2 2)
          "hard-patchup", perSample (blocks 7 0.5) |> swap ]
        |> List.map (fun (name, step) -> name, step |> at site |> pairedBy Derangement)

    let private norm (vector: float[]) =
        sqrt (Array.sumBy (fun x -> x * x) vector)

    /// The angle of two vectors in radians, exact to rounding where they are almost parallel too (Kahan): 2 atan2(|u - v|, |u + v|) of
    /// the vectors at length 1. An ArgumentException for a vector of length 0 or NaN, which has no direction.
    let angle (u: float[]) (v: float[]) : float =
        let a, b = norm u, norm v

        if not (a > 0.0 && b > 0.0) then
            raise (ArgumentException "A vector of length 0 or NaN has no angle to another.")

        let mutable apart = 0.0
        let mutable along = 0.0

        for i in 0 .. u.Length - 1 do
            let x, y = u[i] / a, v[i] / b
            apart <- apart + (x - y) * (x - y)
            along <- along + (x + y) * (x + y)

        2.0 * atan2 (sqrt apart) (sqrt along)

    /// The angles of a pair and its mix, all of one length.
    let pair (own: float[]) (partner: float[]) (mixed: float[]) (isSameClass: bool) : PairAngles =
        let first, second, between = angle own mixed, angle partner mixed, angle own partner

        { Own = first
          Partner = second
          Between = between
          Slack = first + second - between
          IsSameClass = isSameClass }

    /// Of at least one number; between two, in a line.
    let quartiles (values: float list) : Quartiles =
        let sorted = values |> List.sort |> Array.ofList

        let at share =
            let place = share * float (sorted.Length - 1)
            let below = int place
            let above = min (below + 1) (sorted.Length - 1)
            sorted[below] + (place - float below) * (sorted[above] - sorted[below])

        { Least = sorted[0]
          Lower = at 0.25
          Median = at 0.5
          Upper = at 0.75
          Most = Array.last sorted }

    let private rows (features: torch.Tensor) : float[][] =
        let size = int (features.NumberOfElements / features.shape[0])
        features.contiguous().data<float>().ToArray() |> Array.chunkBySize size

    /// What the methods make of features `[N,C,H,W]` in float64, N at least 2, with these classes. An ArgumentException where an image has no
    /// features but zeros, or NaN.
    let ofFeatures (key: Key) (labels: int[]) (features: torch.Tensor) : MethodGeometry list =
        let shape: Shape =
            { Channels = int features.shape[1]
              Height = int features.shape[2]
              Width = int features.shape[3] }

        let own = rows features

        [ for i, (name, regularizer) in List.indexed methods ->
              let plan =
                  Plan.draw (Key.child i key) (BatchInfo.ofShape labels.Length shape) regularizer

              let partner = plan.Draws.Head.Partner.Value
              let mixed = Scope.value (fun () -> rows (Plan.applyFeatures plan features))

              let pairs =
                  [ for i, j in Seq.indexed partner -> pair own[i] own[j] mixed[i] (labels[i] = labels[j]) ]

              { Method = name
                Notation = Notation.show regularizer
                Slack = pairs |> List.map _.Slack |> quartiles
                Pairs = pairs } ]

    /// For test images as they are spread, a batch of at least two of them, at the end of the second stage in evaluation mode. RunFailed where an
    /// image's features are all zero, or NaN.
    let measure (key: Key) (candidate: Candidate) : GeometryResult =
        let images =
            ImageSet.spread (min batch (ImageSet.count candidate.Test)) candidate.Test

        let name, _ = candidate.Model.Stages[site - 1]

        Scope.value (fun () ->
            use _ = torch.no_grad ()

            let featuresOf (places: int[]) =
                Scope.run (fun () ->
                    let pixels = (ImageSet.plain images places).``to``(Model.device candidate.Model)

                    let features =
                        (candidate.Model.Normalise pixels, List.take site candidate.Model.Stages)
                        ||> List.fold (fun features (_, run) -> run features)

                    features.cpu().``to`` torch.float64)

            let features =
                torch.cat (
                    [| for places in Array.chunkBySize (Candidate.batch candidate) [| 0 .. ImageSet.count images - 1 |] ->
                           featuresOf places |],
                    0L
                )

            { Site = name
              Features = String.Join("x", features.shape[1..])
              Images = ImageSet.count images
              Methods =
                try
                    ofFeatures key (ImageSet.labels images) features
                with :? ArgumentException as error ->
                    raise (RunFailed $"{candidate.Path}: at {name}: {error.Message}") })

    /// Why the numbers cannot be angles of these methods; empty where they can: the triangle inequality from both sides, and no slack where
    /// mixes lie on the arc between two.
    let faults (result: GeometryResult) : string list =
        [ for found in result.Methods do
              let worst what wrong =
                  match found.Pairs |> List.filter wrong with
                  | [] -> []
                  | pairs -> [ $"{found.Method}: {pairs.Length} of {found.Pairs.Length} pairs {what} (%A{pairs.Head})" ]

              if found.Pairs.Length <> result.Images then
                  $"{found.Method}: {found.Pairs.Length} pairs of {result.Images} images"

              yield! worst "hold no number" (fun pair -> not (Double.IsFinite pair.Slack))

              yield!
                  worst "have a mix that is nearer to both than they are to one another" (fun pair ->
                      pair.Slack < -tolerance)

              yield!
                  worst "have a mix whose angles differ by more than the two are apart" (fun pair ->
                      abs (pair.Own - pair.Partner) > pair.Between + tolerance)

              if found.Method = "manifold-mixup" then
                  yield! worst "have a mix beside the arc between the two" (fun pair -> abs pair.Slack > tolerance) ]
