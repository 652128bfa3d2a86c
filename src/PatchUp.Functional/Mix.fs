namespace PatchUp.Functional

/// How far altered features move to the partner's.
type Mix =
    /// All the way, bit for bit: lambda is 0 (equation 3).
    | Swap
    /// A share lambda stays the sample's own; one lambda for the batch (equations 4 and 5).
    | Blend of lambda: Dist
    /// The same with a lambda for each sample.
    | BlendEach of lambda: Dist

[<RequireQualifiedAccess>]
module Mix =

    /// The mean of lambda.
    let mean (mix: Mix) : float =
        match mix with
        | Swap -> 0.0
        | Blend lambda
        | BlendEach lambda -> Dist.mean lambda

    /// The one whose lambda lies this share of the way from one's to the other's; None where they differ in more.
    let internal between (share: float) (one: Mix) (other: Mix) : Mix option =
        match one, other with
        | Swap, Swap -> Some Swap
        | Blend a, Blend b -> Dist.between share a b |> Option.map Blend
        | BlendEach a, BlendEach b -> Dist.between share a b |> Option.map BlendEach
        | _ -> None

    /// Lambda, the share that stays the sample's own: `[1]`, or `[N]` where each sample has its own.
    let draw (key: Key) (info: BatchInfo) (mix: Mix) : float[] =
        match mix with
        | Swap -> [| 0.0 |]
        | Blend lambda -> [| Dist.sample (Key.stream (BatchInfo.batchKey info key)) lambda |]
        | BlendEach lambda ->
            Array.init info.Count (fun i -> Dist.sample (Key.stream (BatchInfo.sampleKey info i key)) lambda)

/// What is made of own and partner's features before the blend; it works on copies.
type View =
    | AsIs
    /// The partner's map, shrunk (bilinearly) into the bounding box of the altered features: ResizeMix's.
    | Resized
    /// Own and partner's cells, moved to where the region says; most regions move none. PuzzleMix's.
    | Transported

/// How the features are scaled after some were blanked, so that their expectation stays.
type Rescale =
    | NoRescale
    /// 1 / (1 - p), with p the region's expected altered fraction (Dropout's).
    | Nominal
    /// size / kept, counted over the whole batch (the DropBlock authors'). Nothing kept gives zeros.
    | Batch
    /// size / kept, counted for each sample. Nothing kept gives zeros.
    | Sample
