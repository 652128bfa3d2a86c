/// The attacks once more, as plainly as they are defined and mostly image by image, each with the slips that implementations make.
module PatchUp.Tests.AttackReference

open System
open PatchUp.Repro
open PatchUp.Functional
open TorchSharp

type private T = torch.Tensor

/// What may be wrong with an attack; its text says it.
[<RequireQualifiedAccess>]
type Slip =
    // FGSM and PGD
    | PixelClampMissing
    | BallMissing
    | BallFollowsTheImage
    | BallBeforeStep
    | EpsilonOverStd
    | EpsilonTimesStd
    | SignLost
    | LossDescended
    | LabelFromPrediction
    | StepNotRelative
    | StoppedWhenFooled
    | RoundedToBytes
    | NoiseByPlace
    | NoiseWithoutKey
    | LastRunKept
    // DeepFool
    | StoppedAtPrediction
    | OvershootMissing
    | TotalForgotten
    | OffsetMissing
    | CandidatesIgnored
    // DDN
    | BestAfterUpdate
    | LastKept
    | OnlyShrunk
    | RadiusReversed
    | GradientNotUnit
    | ChangeNotClamped
    // Carlini-Wagner
    | AdamEpsilonInside
    | AdamKept
    | AdamNotCorrected
    | BestPerSearchStep
    | AbortPerImage
    | LabelAmongOthers
    | BoundsSwapped
    | ConstNotGrown
    | KeptAfterUpdate
    // all
    | ImagesOverwritten
    | GradientsAccumulated
    | TensorLeaked

let private n = Scope.number

let private (+.) (a: T) (b: T) = Scope.add a b

let private clamp (low: float) (high: float) (x: T) = x.clamp (n low, n high)

let private norm (x: T) =
    x.square().sum().sqrt().``to``(torch.float64).item<float>()

let private managed (x: T) : float[] =
    x.``to``(torch.float64).contiguous().data<float>().ToArray()

let private flags (x: T) : bool[] = x.data<bool>().ToArray()

let private rows (x: T) =
    [ for i in 0L .. x.shape[0] - 1L -> x.narrow (0L, i, 1L) ]

/// The gradient of a sum by x. To let it flow into all leaves is one of the slips.
let private gradient (has: Slip -> bool) (sum: T -> T) (x: T) : T =
    use _ = torch.enable_grad ()
    let leaf = x.detach().clone().requires_grad_ true

    if has Slip.GradientsAccumulated then
        (sum leaf).backward()
        leaf.grad
    else
        torch.autograd.grad ([| sum leaf |], [| leaf |]) |> Seq.head

let private crossEntropy (logits: T -> T) (labels: T) (x: T) =
    torch.nn.functional.cross_entropy (logits x, labels, reduction = torch.nn.Reduction.Sum)

/// The standard deviation of the channels that slips of units take for granted.
let std = 0.25

let private climbing has epsilon step steps (logits: T -> T) (labels: T) (x0: T) (start: T) =
    let epsilon, step =
        if has Slip.EpsilonOverStd then epsilon / std, step / std
        elif has Slip.EpsilonTimesStd then epsilon * std, step * std
        else epsilon, step

    let truth =
        if has Slip.LabelFromPrediction then
            (logits x0).argmax 1L
        else
            labels

    let ball (centre: T) x =
        if has Slip.BallMissing then
            x
        else
            centre +. clamp -epsilon epsilon (x - centre)

    let pixels x =
        if has Slip.PixelClampMissing then x else clamp 0.0 1.0 x

    let rec go k (x: T) =
        let isDone = (logits x).argmax(1L).ne labels

        if k = steps || (has Slip.StoppedWhenFooled && flags isDone |> Array.forall id) then
            x
        else
            let g = gradient has (crossEntropy logits truth) x

            let direction =
                if has Slip.SignLost then g
                elif has Slip.LossDescended then g.sign().neg()
                else g.sign ()

            let centre = if has Slip.BallFollowsTheImage then x else x0

            let next =
                if has Slip.BallBeforeStep then
                    ball x0 x +. direction * n step |> pixels
                else
                    x +. direction * n step |> ball centre |> pixels

            let next =
                if has Slip.StoppedWhenFooled then
                    torch.where (isDone.view (-1L, 1L, 1L, 1L), x, next)
                else
                    next

            go (k + 1) next

    let found = go 0 start

    let found =
        if has Slip.RoundedToBytes then
            (found * n 255.0).round() / n 255.0
        else
            found

    // Those that leave the ball would be brought back here.
    if
        List.exists
            has
            [ Slip.BallMissing
              Slip.BallFollowsTheImage
              Slip.BallBeforeStep
              Slip.RoundedToBytes
              Slip.PixelClampMissing ]
    then
        found
    else
        ball x0 found

let private pgd has (s: PgdSettings) key first (logits: T -> T) (labels: T) (x0: T) =
    let step =
        if has Slip.StepNotRelative then
            s.RelativeStep
        else
            s.RelativeStep * s.Epsilon

    let size = int x0.NumberOfElements / int x0.shape[0]

    let run restart =
        let key =
            if has Slip.NoiseWithoutKey then
                Key.ofSeed 3
            else
                Key.child restart key

        let noise i =
            let bits =
                Key.stream (Key.child (if has Slip.NoiseByPlace then i else first + i) key)

            Array.init size (fun _ -> 2.0 * bits.Float() - 1.0)

        let shift () =
            torch.tensor(Array.collect noise [| 0 .. int x0.shape[0] - 1 |], ReadOnlySpan x0.shape).``to`` x0.dtype

        let start =
            if s.RandomStart then
                clamp 0.0 1.0 (x0 +. shift () * n s.Epsilon)
            else
                x0

        climbing has s.Epsilon step s.Steps logits labels x0 start

    [ for restart in 0 .. s.Restarts - 1 -> run restart ]
    |> List.reduce (fun best next ->
        if has Slip.LastRunKept then
            next
        else
            torch.where ((logits best).argmax(1L).ne(labels).view(-1L, 1L, 1L, 1L), best, next))

/// One image `[1,C,H,W]`; what it became, and whether it fooled the network before each step.
let private deepFool has (s: DeepFoolSettings) (logits: T -> T) (label: int) (x0: T) : T * bool list =
    let predicted (x: T) =
        int ((logits x).argmax(1L).item<int64>())

    let order =
        managed (logits x0)
        |> Array.indexed
        |> Array.sortByDescending snd
        |> Array.map fst

    let kept =
        if has Slip.CandidatesIgnored then
            order
        else
            Array.truncate s.Candidates order

    let own = order[0]
    let wanted = if has Slip.StoppedAtPrediction then order[0] else label

    let gap k (x: T) =
        (logits x).select(1L, int64 k).sum() - (logits x).select(1L, int64 own).sum()

    let rec go step (x: T) (total: T) =
        if step = s.Steps then
            x, []
        elif predicted x <> wanted then
            x, [ true ]
        else
            let length, distance, g =
                [ for k in kept do
                      if k <> own then
                          let g = gradient has (gap k) x
                          let value = abs ((gap k x).``to``(torch.float64).item<float>())
                          norm g, value / (norm g + 1e-8), g ]
                |> List.minBy (fun (_, distance, _) -> distance)

            let offset = if has Slip.OffsetMissing then 0.0 else 1e-4
            let move = g * n ((distance + offset) / (length + 1e-8))
            let total = if has Slip.TotalForgotten then move else total +. move
            let factor = if has Slip.OvershootMissing then 1.0 else 1.0 + s.Overshoot
            let next, seen = go (step + 1) (clamp 0.0 1.0 (x0 +. total * n factor)) total
            next, false :: seen

    go 0 x0 (torch.zeros_like x0)

/// One image `[1,C,H,W]`; what it became, and whether it fooled the network before each step.
let private ddn has (s: DdnSettings) (logits: T -> T) (label: int) (x0: T) : T * bool list =
    let labels = torch.tensor [| int64 label |]
    let worst = norm (torch.maximum (x0, n 1.0 - x0))
    let mutable delta = torch.zeros_like x0
    let mutable best = torch.zeros_like x0
    let mutable bestNorm = worst
    let mutable radius = s.InitialEpsilon

    let seen = ResizeArray()

    for i in 0 .. s.Steps - 1 do
        let alpha = 0.01 + 0.99 * (1.0 + cos (Math.PI * float i / float s.Steps)) / 2.0
        let x = x0 +. delta
        let g = gradient has (crossEntropy logits labels) x
        let isFooled = int ((logits x).argmax(1L).item<int64>()) <> label
        let before, lengthBefore = delta, norm delta

        let unit =
            if has Slip.GradientNotUnit then
                g
            else
                g / n (max (norm g) 1e-12)

        delta <- delta +. unit * n alpha

        radius <-
            radius
            * (if isFooled <> has Slip.RadiusReversed then
                   1.0 - s.Gamma
               else
                   1.0 + s.Gamma)

        radius <- min radius worst
        let factor = radius / norm delta
        delta <- delta * n (if has Slip.OnlyShrunk then min 1.0 factor else factor)

        if not (has Slip.ChangeNotClamped) then
            delta <- clamp 0.0 1.0 (x0 +. delta) - x0

        if isFooled && (lengthBefore <= bestNorm || has Slip.LastKept) then
            bestNorm <- lengthBefore
            best <- if has Slip.BestAfterUpdate then delta else before

        seen.Add isFooled

    x0 +. best, List.ofSeq seen

let private carliniWagner has (s: CarliniWagnerSettings) (logits: T -> T) (labels: T) (x0: T) =
    let count = int x0.shape[0]
    let truth = labels.data<int64>().ToArray()
    let toImage (w: T) = w.tanh () * n 0.5 +. n 0.5
    let w0 = ((x0 - n 0.5) / n 0.5 * n 0.999999).atanh()
    let reachable = toImage w0

    let bests =
        Array.init count (fun i -> torch.zeros_like (x0.narrow (0L, int64 i, 1L)))

    let bestNorms = Array.create count infinity
    let lower, upper = Array.create count 0.0, Array.create count infinity
    let mutable consts = Array.create count s.InitialConst
    let mutable mean, square = torch.zeros_like x0, torch.zeros_like x0

    let trace = ResizeArray()

    for search in 0 .. s.SearchSteps - 1 do
        if s.SearchSteps >= 10 && search = s.SearchSteps - 1 then
            consts <- Array.map (min 1e10) upper

        let used = consts
        let mutable delta = torch.zeros_like x0

        if search = 0 || not (has Slip.AdamKept) then
            mean <- torch.zeros_like x0
            square <- torch.zeros_like x0

        if has Slip.BestPerSearchStep then
            Array.fill bestNorms 0 count infinity

        let found = Array.create count false

        let loss (d: T) =
            let p = toImage (w0 +. d)

            let z = logits p
            let isLabel = labels.unsqueeze(1L).eq(torch.arange z.shape[1])

            let others =
                if has Slip.LabelAmongOthers then
                    z
                else
                    torch.where (isLabel, n -infinity, z)

            let margins = (z * isLabel).sum 1L - others.amax [| 1L |] +. n s.Confidence
            let weights = torch.tensor(used).``to`` x0.dtype
            (margins.maximum (n 0.0) * weights).sum() +. (p - reachable).square().sum()

        let period = (s.Steps + 9) / 10
        let mutable before = infinity
        let mutable steps = 0
        let mutable isOver = false

        while not isOver && steps < s.Steps do
            let value = (loss delta).``to``(torch.float64).item<float>()
            let g = gradient has loss delta
            let old = delta
            let k = steps
            steps <- steps + 1
            mean <- mean * n 0.9 +. g * n 0.1
            square <- square * n 0.999 +. g.square () * n 0.001

            let corrected base' =
                if has Slip.AdamNotCorrected then
                    1.0
                else
                    1.0 - base' ** float steps

            let meanHat, squareHat = mean / n (corrected 0.9), square / n (corrected 0.999)

            let root =
                if has Slip.AdamEpsilonInside then
                    (squareHat +. n 1e-8).sqrt()
                else
                    squareHat.sqrt () +. n 1e-8

            delta <- delta - meanHat / root * n s.StepSize

            if s.AbortEarly && k % period = 0 && not (value <= 0.9999 * before) then
                isOver <- true
            else
                if k % period = 0 then
                    before <- value

                let seen = toImage (w0 +. old)

                let p =
                    if has Slip.KeptAfterUpdate then
                        toImage (w0 +. delta)
                    else
                        seen

                let z = logits seen

                for i in 0 .. count - 1 do
                    let values = managed (z.select (0L, int64 i))
                    values[int truth[i]] <- values[int truth[i]] + s.Confidence
                    let isFooled = Array.IndexOf(values, Array.max values) <> int truth[i]
                    let image (x: T) = x.narrow (0L, int64 i, 1L)
                    let length = norm (image p - image x0)

                    if isFooled then
                        found[i] <- true

                        if length < bestNorms[i] then
                            bestNorms[i] <- length
                            bests[i] <- image p

        for i in 0 .. count - 1 do
            if found[i] <> has Slip.BoundsSwapped then
                upper[i] <- used[i]
            else
                lower[i] <- used[i]

        consts <-
            Array.init count (fun i ->
                if Double.IsInfinity upper[i] then
                    used[i] * (if has Slip.ConstNotGrown then 2.0 else 10.0)
                else
                    (lower[i] + upper[i]) / 2.0)

        trace.Add((used, steps))

    torch.cat bests, List.ofSeq trace

let private none: AttackTrace =
    { Fooled = []
      Consts = []
      AdamSteps = [] }

/// Flags of each image over its own steps as those of the batch; an image that stopped early had fooled the network.
let private together (seen: bool list list) : bool[] list =
    let longest = seen |> List.map List.length |> List.max

    [ for step in 0 .. longest - 1 -> [| for image in seen -> List.tryItem step image |> Option.defaultValue true |] ]

/// The attacks with these slips. It draws what the library draws.
let attacker (slips: Slip list) : Attacker =
    fun attack key first logits images labels ->
        let has slip = List.contains slip slips
        let mutable trace = none

        if has Slip.TensorLeaked then
            torch.zeros 1L |> ignore

        let found =
            Scope.run (fun () ->
                let one run =
                    let images, seen =
                        List.map2 (fun x (label: T) -> run (int (label.item<int64>())) x) (rows images) (rows labels)
                        |> List.unzip

                    trace <- { none with Fooled = together seen }
                    torch.cat (Array.ofList images)

                let result =
                    match attack with
                    | Fgsm epsilon -> climbing has epsilon epsilon 1 logits labels images images
                    | Pgd s -> pgd has s key first logits labels images
                    | DeepFool s -> one (deepFool has s logits)
                    | Ddn s -> one (ddn has s logits)
                    | CarliniWagner s when has Slip.AbortPerImage ->
                        let parts =
                            List.map2 (fun x y -> carliniWagner has s logits y x) (rows images) (rows labels)

                        let consts =
                            parts |> List.map (snd >> List.map (fst >> Array.head)) |> List.transpose

                        let steps = parts |> List.map (snd >> List.map snd) |> List.transpose

                        trace <-
                            { none with
                                Consts = List.map Array.ofList consts
                                AdamSteps = List.map List.max steps }

                        torch.cat [| for image, _ in parts -> image |]
                    | CarliniWagner s ->
                        let image, seen = carliniWagner has s logits labels images

                        trace <-
                            { none with
                                Consts = List.map fst seen
                                AdamSteps = List.map snd seen }

                        image
                    | RandomSigns _ -> (Attacks.perturb attack key first logits images labels).Images

                if has Slip.ImagesOverwritten then
                    images.copy_ result |> ignore

                result)

        { Images = found; Trace = trace }
