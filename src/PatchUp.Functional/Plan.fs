namespace PatchUp.Functional

open System
open TorchSharp

/// One step with every random choice made: plain managed values.
type Drawn =
    {
        Place: Place
        /// M, 1 = unchanged.
        Mask: Mask
        /// The index of each sample's partner; None blanks.
        Partner: int[] option
        /// The share of altered features that stays the sample's own: `[1]` or `[N]`.
        Lambda: float[]
        View: View
        /// The factor on the result: empty for none, `[1]` or `[N]`.
        Scale: float[]
        Objective: Objective
    }

    /// Each sample's own label weight, 1 - mean w: `[1]` or `[N]`.
    member this.OwnShare: float[] =
        let unchanged = Mask.unchanged this.Mask

        Array.init (max unchanged.Length this.Lambda.Length) (fun i ->
            let kept = unchanged[i % unchanged.Length]
            kept + (1.0 - kept) * this.Lambda[i % this.Lambda.Length])

/// What happens to one batch. It holds no tensor, can be compared, applied again, and drawn again from its key.
type Plan =
    {
        /// N, the number of samples it was drawn for.
        Count: int
        /// In the order of drawing.
        Draws: Drawn list
    }

[<RequireQualifiedAccess>]
module Plan =

    /// Nothing happens to a batch of this size.
    let identity (count: int) : Plan = { Count = count; Draws = [] }

    let private pick (bits: Stream) (weights: float list) : int =
        let target = bits.Float() * List.sum weights
        let passed = weights |> List.scan (+) 0.0 |> List.tail

        passed
        |> List.tryFindIndex (fun sum -> target < sum)
        |> Option.defaultValue (weights.Length - 1)

    /// What acts at a time of training: what lies between its neighbours, or the later of them where `later` of [0, 1) is below the share of the way to it.
    let private at (time: float) (later: float) (points: (float * Regularizer) list) : Regularizer =
        match List.tryFindIndexBack (fun (from, _) -> from <= time) points with
        | None -> snd points.Head
        | Some i when i = points.Length - 1 -> snd points[i]
        | Some i ->
            let from, until = fst points[i], fst points[i + 1]
            let share = (time - from) / (until - from)
            let one, other = snd points[i], snd points[i + 1]

            Regularizer.between share one other
            |> Option.defaultValue (if later < share then other else one)

    /// How many `over` lie directly within one another, this one included: each chooses by bits of its own.
    let rec private ramps (regularizer: Regularizer) : int =
        match regularizer with
        | Over points -> 1 + (points |> List.map (snd >> ramps) |> List.max)
        | _ -> 0

    let private scale (step: Step) (shape: Shape) (kept: float[]) : float[] =
        let inverse kept = if kept > 0.0 then 1.0 / kept else 0.0

        match step.Rescale with
        | NoRescale -> [||]
        | Nominal -> [| inverse (1.0 - Region.fraction shape step.Region * (1.0 - Mix.mean step.Mix)) |]
        | Batch -> [| inverse (Array.average kept) |]
        | Sample -> Array.map inverse kept

    let private drawStep (key: Key) (info: BatchInfo) (step: Step) : Drawn list =
        let at i place =
            let key = key |> Key.child 1 |> Key.child i

            let shape =
                match info.Shape place with
                | Some shape -> shape
                | None -> invalidArg (nameof info) $"There is no site {place} here, and {step.Region} is to act on it."

            let partner = Partner.draw (Key.child 0 key) info step.Partner

            let drawn =
                { Place = place
                  Mask = Region.draw (Key.child 2 key) { info with Partner = partner } shape step.Region
                  Partner = partner
                  Lambda = Mix.draw (Key.child 1 key) info step.Mix
                  View = step.View
                  Scale = [||]
                  Objective = step.Objective }

            { drawn with
                Scale = scale step shape drawn.OwnShare }

        match step.Site with
        | At place -> [ at 0 place ]
        | AllOf places -> places |> List.mapi at
        | AnyOf places ->
            let bits = Key.stream (BatchInfo.batchKey info (Key.child 0 key))
            [ at 0 places[bits.Below places.Length] ]

    /// Makes every random choice for one batch; no tensor is touched. The same key, information and regularizer give the same plan,
    /// on any device and with any number of threads. Within an epoch, draw every batch with the epoch's key and its own `info.First`.
    /// An ArgumentException if a step acts on a site that the batch's information does not know, or pairs by labels that it does not have.
    let draw (key: Key) (info: BatchInfo) (regularizer: Regularizer) : Plan =
        let rec go key regularizer =
            match regularizer with
            | Do step -> drawStep key info step
            | Choose branches ->
                let bits = Key.stream (BatchInfo.batchKey info (Key.child 0 key))
                let chosen = pick bits (List.map fst branches)
                go (key |> Key.child 1 |> Key.child chosen) (snd branches[chosen])
            | Over points ->
                // What acts is drawn with the key of the whole.
                let later =
                    (Key.stream (BatchInfo.batchKey info (Key.child (1 + ramps regularizer) key))).Float()

                go key (at info.Progress later points)
            | Sequence parts -> parts |> List.mapi (fun i part -> go (Key.child i key) part) |> List.concat

        { Count = info.Count
          Draws = go key regularizer }

    /// The part of the plan for one site, which may be known by number and by name.
    let only (places: Place list) (plan: Plan) : Plan =
        { plan with
            Draws = plan.Draws |> List.filter (fun drawn -> List.contains drawn.Place places) }

    /// The partner's map shrunk into each mask's bounding box of altered features, zero around it.
    let private resize (mask: Mask) (partner: torch.Tensor) : torch.Tensor =
        if partner.dim () <> 4L then
            invalidArg (nameof partner) $"The view Resized needs features [N,C,H,W]; these have rank {partner.dim ()}."

        let alters =
            match mask.Values with
            | Hard bits -> fun i -> not bits[i]
            | Soft own -> fun i -> own[i] < 1.0f

        let fit n (maps: torch.Tensor) =
            let altered =
                [ for i in 0 .. Mask.stride mask - 1 do
                      if alters (n * Mask.stride mask + i) then
                          i / mask.Width % mask.Height, i % mask.Width ]

            match altered with
            | [] -> maps
            | _ ->
                let bounds axis =
                    struct (altered |> List.map axis |> List.min, altered |> List.map axis |> List.max)

                let struct (top, bottom) = bounds fst
                let struct (left, right) = bounds snd
                let size = [| int64 (bottom - top + 1); int64 (right - left + 1) |]

                // TorchSharp's default aligns corners where PyTorch's does not.
                let small =
                    torch.nn.functional.interpolate (
                        maps,
                        size,
                        mode = torch.InterpolationMode.Bilinear,
                        align_corners = Nullable false
                    )

                torch.nn.functional.pad (
                    small,
                    [| int64 left
                       int64 (mask.Width - 1 - right)
                       int64 top
                       int64 (mask.Height - 1 - bottom) |]
                )

        if mask.Samples = 1 then
            fit 0 partner
        else
            torch.cat ([| for n in 0 .. mask.Samples - 1 -> fit n (partner.narrow (0L, int64 n, 1L)) |], 0L)

    let private everything: Mask =
        Mask.constant { Channels = 1; Height = 1; Width = 1 } false

    /// Moves every row by its own weight.
    let private blendRows (toward: float[]) a b =
        Blend.blend { Mask = everything; Toward = toward } a b

    let private spread count (values: float[]) =
        if values.Length = count then
            values
        else
            Array.create count values[0]

    let private mixTargets count (drawn: Drawn) (partner: torch.Tensor) (targets: Targets) : Targets =
        let own = targets.Soft
        let other = own.index_select (0L, partner)

        let away shares =
            shares |> spread count |> Array.map (fun share -> 1.0 - share)

        { Soft = blendRows (away drawn.OwnShare) own other
          Mixed =
            Some
                { Own = own
                  Altered = blendRows (away drawn.Lambda) own other
                  Unchanged = spread count (Mask.unchanged drawn.Mask)
                  Objective = drawn.Objective } }

    let private partnerOn (device: torch.Device) (drawn: Drawn) : torch.Tensor option =
        drawn.Partner
        |> Option.map (fun map -> torch.tensor (Array.map int64 map, device = device))

    /// Features `[N,C,H,W]` with each sample's cells, n x n of them, taken from these cells.
    let private rearrange (grid: int) (sources: int[]) (features: torch.Tensor) : torch.Tensor =
        if features.dim () <> 4L then
            invalidArg
                (nameof features)
                $"The view Transported needs features [N,C,H,W]; these have rank {features.dim ()}."

        let n, size = int64 grid, features.shape
        let samples, channels, height, width = size[0], size[1], size[2] / n, size[3] / n

        let cells =
            features
                .reshape(samples, channels, n, height, n, width)
                .permute(0L, 2L, 4L, 1L, 3L, 5L)
                .reshape(samples, n * n, channels * height * width)

        let index =
            torch
                .tensor(Array.map int64 sources, ReadOnlySpan [| samples; n * n; 1L |], device = features.device)
                .expand(samples, n * n, channels * height * width)

        cells
            .gather(1L, index)
            .reshape(samples, n, n, channels, height, width)
            .permute(0L, 3L, 1L, 4L, 2L, 5L)
            .reshape(size)

    /// Own features and the partner's with their noise.
    let private disturb (noise: Noise option) (partner: torch.Tensor option) (own: torch.Tensor) other =
        match noise with
        | None -> struct (own, other)
        | Some noise ->
            let noises =
                torch.tensor(noise.Values, ReadOnlySpan own.shape, device = own.device).``to``(own.dtype)

            struct ((if noise.OnOwn then Scope.add own noises else own),
                    (match partner with
                     | Some partner when noise.OnPartner -> Scope.add other (noises.index_select (0L, partner))
                     | _ -> other))

    /// Own features and the partner's (or zeros), as they are mixed.
    let private views (drawn: Drawn) (partner: torch.Tensor option) (own: torch.Tensor) =
        let other =
            match partner with
            | Some partner -> own.index_select (0L, partner)
            | None -> torch.zeros_like own

        match drawn.View, drawn.Mask.Sources with
        | Resized, _ when partner.IsSome -> struct (own, resize drawn.Mask other)
        | Transported, Some sources ->
            let struct (own, other) = disturb sources.Noise partner own other
            struct (rearrange sources.Grid sources.Own own, rearrange sources.Grid sources.Partner other)
        | _ -> struct (own, other)

    /// Whether own features or the partner's are changed before they are mixed.
    let private isViewed (drawn: Drawn) =
        match drawn.View with
        | AsIs -> false
        | Resized -> drawn.Partner.IsSome
        | Transported -> drawn.Mask.Sources.IsSome

    let private mixFeatures (drawn: Drawn) (partner: torch.Tensor option) (own: torch.Tensor) : torch.Tensor =
        let weight =
            { Mask = drawn.Mask
              Toward = drawn.Lambda |> Array.map (fun lambda -> 1.0 - lambda) }

        let mixed =
            if not (Mask.alters drawn.Mask) then
                own
            elif Paired.fits own && not (isViewed drawn) then
                Paired.blend weight drawn.Partner own
            else
                let struct (ownView, partnerView) = views drawn partner own
                Blend.blend weight ownView partnerView

        if drawn.Scale.Length = 0 then
            mixed
        else
            let size =
                Array.init (int (own.dim ())) (fun axis -> if axis = 0 then int64 drawn.Scale.Length else 1L)

            let factor = torch.tensor (drawn.Scale, ReadOnlySpan size, device = own.device)

            if Blend.isHalf own then
                // In half precision the factor itself would be off.
                (mixed.``to`` (torch.float32) * factor.``to`` (torch.float32)).``to``(own.dtype)
            else
                mixed * factor.``to`` (own.dtype)

    let private applyDrawn count (batch: Batch) (drawn: Drawn) : Batch =
        let partner = partnerOn batch.Features.device drawn

        { Features = mixFeatures drawn partner batch.Features
          Targets =
            match partner with
            | Some partner -> mixTargets count drawn partner batch.Targets
            | None -> batch.Targets }

    /// Whether a draw computes numbers that lie between others.
    let private computes (drawn: Drawn) =
        let isSoft =
            match drawn.Mask.Values with
            | Soft _ -> true
            | Hard _ -> false

        isSoft
        || drawn.View = Resized
        || drawn.Scale.Length > 0
        || drawn.Lambda |> Array.exists (fun lambda -> lambda <> 0.0 && lambda <> 1.0)

    let private checkDraws (plan: Plan) (features: torch.Tensor) =
        let count = int features.shape[0]

        if count <> plan.Count then
            invalidArg (nameof features) $"The plan was drawn for {plan.Count} samples and the batch has {count}."

        let shape = Batch.shapeOf features

        for drawn in plan.Draws do
            let mask = drawn.Mask

            if not (features.is_floating_point ()) && computes drawn then
                invalidArg
                    (nameof features)
                    $"At site {drawn.Place} the plan blends, resizes or rescales, and the features are {features.dtype}: floating-point features are needed."

            if
                (mask.Channels <> 1 && mask.Channels <> shape.Channels)
                || mask.Height <> shape.Height
                || mask.Width <> shape.Width
            then
                invalidArg
                    (nameof features)
                    $"At site {drawn.Place} the plan's mask is {mask.Channels}x{mask.Height}x{mask.Width} and the features are {shape}."

    let private check (plan: Plan) (features: torch.Tensor) =
        if not plan.Draws.IsEmpty then
            checkDraws plan features

    /// Applies every draw of the plan, in order, to one batch: x' = blend w x x[partner] and y' = blend (mean w) y y[partner], with
    /// w = (1 - M)(1 - lambda). The only place where tensors are mixed, on the device of the features. The batch stays as it is; the result's
    /// tensors are new and the caller's.
    /// An ArgumentException if the batch is not of the size and shape that the plan was drawn for.
    let apply (plan: Plan) (batch: Batch) : Batch =
        check plan batch.Features
        Batch.scope (fun () -> plan.Draws |> List.fold (applyDrawn plan.Count) batch)

    /// x' of `apply` alone, where labels are mixed by other means (`applyMaps`) or there are none.
    let applyFeatures (plan: Plan) (features: torch.Tensor) : torch.Tensor =
        check plan features

        Scope.run (fun () ->
            (features, plan.Draws)
            ||> List.fold (fun own drawn -> mixFeatures drawn (partnerOn own.device drawn) own))

    /// The mask of a map's pixels: the mean over channels where these have masks of their own.
    let private ofPixels (mask: Mask) : Mask =
        if mask.Channels = 1 then
            mask
        else
            let area = mask.Height * mask.Width

            let own i =
                match mask.Values with
                | Hard bits -> if bits[i] then 1.0f else 0.0f
                | Soft own -> own[i]

            { mask with
                Channels = 1
                Values =
                    Array.init (mask.Samples * area) (fun i ->
                        let first = i / area * Mask.stride mask + i % area
                        Array.init mask.Channels (fun c -> own (first + c * area)) |> Array.average)
                    |> Soft }

    /// Why a map of class indices cannot follow a draw.
    let private unlabellable (drawn: Drawn) : string option =
        match drawn.Mask.Values with
        | Soft _ -> Some "its mask is soft"
        | Hard _ when drawn.Mask.Channels > 1 -> Some "each channel has a mask of its own; `shared` draws one for all"
        | Hard _ when drawn.Lambda |> Array.exists (fun lambda -> lambda <> 0.0 && lambda <> 1.0) ->
            Some "it blends two images"
        | Hard _ when drawn.View <> AsIs -> Some "it resizes the partner's image"
        | Hard _ -> None

    /// Mixes what is known of every pixel as the plan mixes the images at the input: class indices `[N,H,W]` of whole numbers, where each pixel
    /// gets the label of the image that it came from, or soft maps `[N,K,H,W]` of floating-point weights, where it gets the mix of both labels (half precision is widened to float32).
    /// Blanked pixels keep their labels. The result is new and the caller's. An ArgumentException for maps of another size than the images', for a
    /// plan that mixes at another site than the input, and for class indices under a plan that does not swap whole pixels.
    let applyMaps (plan: Plan) (maps: torch.Tensor) : torch.Tensor =
        let isSoft = maps.is_floating_point ()
        let rank = if isSoft then 4L else 3L

        if maps.dim () <> rank then
            let shape = String.Join(",", maps.shape)

            invalidArg
                (nameof maps)
                $"Maps are class indices [N,H,W] or floating-point weights [N,K,H,W]; these are {maps.dtype} [{shape}]."

        let mixing = plan.Draws |> List.filter _.Partner.IsSome

        for drawn in mixing do
            if drawn.Place <> Number 0 then
                invalidArg
                    (nameof plan)
                    $"The plan mixes at site {drawn.Place}: only what is mixed at the input has pixels with labels."

            match unlabellable drawn with
            | Some reason when not isSoft ->
                invalidArg
                    (nameof plan)
                    $"Class indices cannot follow {drawn.Place}'s mixing: {reason}. Soft maps [N,K,H,W] can."
            | _ -> ()

        let pixels =
            { plan with
                Draws =
                    mixing
                    |> List.map (fun drawn ->
                        { drawn with
                            Mask = ofPixels drawn.Mask }) }

        Scope.run (fun () ->
            if isSoft then
                applyFeatures
                    pixels
                    (if Blend.isHalf maps then
                         maps.``to`` (torch.float32)
                     else
                         maps)
            else
                (applyFeatures pixels (maps.unsqueeze 1L)).squeeze 1L)
