namespace PatchUp.Repro

open System
open System.Globalization
open PatchUp.Functional
open TorchSharp

/// Projected gradient descent in the L-infinity ball: the loss's gradient is climbed by its sign.
type PgdSettings =
    {
        /// The largest change of a pixel, on the scale of [0,1].
        Epsilon: float
        /// A step's length as a share of epsilon.
        RelativeStep: float
        Steps: int
        /// Whether each run starts somewhere in the ball instead of at the image.
        RandomStart: bool
        /// Runs; of an image, the first that fools the network counts. More than one makes sense with random starts only.
        Restarts: int
    }

/// DeepFool in L2 (Moosavi-Dezfooli et al. 2016).
type DeepFoolSettings =
    {
        Steps: int
        /// How many of the likeliest classes are considered, the predicted one included.
        Candidates: int
        /// How far past the estimated boundary, as a share of the way.
        Overshoot: float
    }

/// The decoupled direction and norm attack in L2 (Rony et al. 2019).
type DdnSettings =
    {
        Steps: int
        /// The first radius.
        InitialEpsilon: float
        /// By what share the radius shrinks where the network is fooled, and grows where it is not.
        Gamma: float
    }

/// Carlini and Wagner's attack in L2 (2017).
type CarliniWagnerSettings =
    {
        /// How many weights of the loss are tried for each image.
        SearchSteps: int
        /// Steps of Adam for each of them.
        Steps: int
        StepSize: float
        /// The margin in logits that counts as fooled.
        Confidence: float
        InitialConst: float
        /// Whether a batch's steps end early where its loss stands still. The result then depends on the batch.
        AbortEarly: bool
    }

/// No attack that learns anything: each draw moves every pixel by plus or minus epsilon. What does no better than this is none.
type RandomSettings =
    {
        Epsilon: float
        /// Of an image, the first that fools the network counts.
        Draws: int
    }

/// An untargeted attack. All lengths are in pixel units: images live in [0,1].
type Attack =
    /// The fast gradient sign method (Goodfellow et al. 2015) with this epsilon.
    | Fgsm of epsilon: float
    | Pgd of PgdSettings
    | DeepFool of DeepFoolSettings
    | Ddn of DdnSettings
    | CarliniWagner of CarliniWagnerSettings
    | RandomSigns of RandomSettings

/// How far an image was moved: by its most changed pixel, or by the root of the sum of squares.
[<RequireQualifiedAccess>]
type Norm =
    | LInf
    | L2

/// What an attack saw on its way, for comparisons with other implementations.
type AttackTrace =
    {
        /// DeepFool and DDN, for each step: which images fooled the network before it.
        Fooled: bool[] list
        /// Carlini-Wagner, for each search step: the weight of each image's loss.
        Consts: float[] list
        /// Carlini-Wagner, for each search step: the steps of Adam.
        AdamSteps: int list
    }

/// What an attack made of a batch.
[<NoEquality; NoComparison>]
type Attacked =
    {
        /// `[N,C,H,W]` in [0,1], to within rounding; the caller disposes it.
        Images: torch.Tensor
        Trace: AttackTrace
    }

/// An attack's implementation: `attack key first logits images labels`. The images are `[N,C,H,W]` in [0,1], `logits` maps them to `[N,K]` with the
/// network in evaluation mode, the labels are `[N]` class indices (int64). What is random for image i of the batch follows from the key and `first + i`, so
/// that it does not depend on how images are cut into batches.
type Attacker = Attack -> Key -> int -> (torch.Tensor -> torch.Tensor) -> torch.Tensor -> torch.Tensor -> Attacked

/// Attacks on classifiers, as Foolbox 3.3.4 defines them. Temporaries are freed, and gradients are taken by the images
/// only, so that the network's own stay as they are.
[<RequireQualifiedAccess>]
module Attacks =

    // ---- settings ----

    /// Its name.
    let name (attack: Attack) : string =
        match attack with
        | Fgsm _ -> "fgsm"
        | Pgd _ -> "pgd"
        | DeepFool _ -> "deepfool"
        | Ddn _ -> "ddn"
        | CarliniWagner _ -> "carlini-wagner"
        | RandomSigns _ -> "random-signs"

    /// What its distances are measured in.
    let norm (attack: Attack) : Norm =
        match attack with
        | Fgsm _
        | Pgd _
        | RandomSigns _ -> Norm.LInf
        | DeepFool _
        | Ddn _
        | CarliniWagner _ -> Norm.L2

    /// The ball that it stays in; None for those that look for the nearest image that fools the network.
    let epsilon (attack: Attack) : float option =
        match attack with
        | Fgsm epsilon -> Some epsilon
        | Pgd settings -> Some settings.Epsilon
        | RandomSigns settings -> Some settings.Epsilon
        | DeepFool _
        | Ddn _
        | CarliniWagner _ -> None

    let private short (value: float) =
        value.ToString("0.######", CultureInfo.InvariantCulture)

    /// The attack with all its settings, in one line.
    let show (attack: Attack) : string =
        match attack with
        | Fgsm epsilon -> $"fgsm, eps {short epsilon}"
        | Pgd s ->
            let start = if s.RandomStart then "random start" else "from the image"
            let runs = if s.Restarts = 1 then "1 run" else $"{s.Restarts} runs"
            $"pgd, eps {short s.Epsilon}, {s.Steps} steps of {short s.RelativeStep} eps, {start}, {runs}"
        | DeepFool s -> $"deepfool, {s.Steps} steps, {s.Candidates} candidates, overshoot {short s.Overshoot}"
        | Ddn s -> $"ddn, {s.Steps} steps, first radius {short s.InitialEpsilon}, gamma {short s.Gamma}"
        | CarliniWagner s ->
            let abort = if s.AbortEarly then "aborted early" else "never aborted"

            $"carlini-wagner, {s.SearchSteps} x {s.Steps} steps of {short s.StepSize}, confidence {short s.Confidence}, \
              first const {short s.InitialConst}, {abort}"
        | RandomSigns s -> $"random-signs, eps {short s.Epsilon}, {s.Draws} draws"

    /// Raises an ArgumentException that names the first setting that makes no sense.
    let check (attack: Attack) : unit =
        let need (isMet: bool) what (value: 'v) allowed =
            if not isMet then
                invalidArg (nameof attack) $"{name attack}: {what} is {value}; it must be {allowed}."

        let steps what (count: int) =
            need (count >= 1) what count "1 or more"

        let notNegative what (value: float) =
            need (value >= 0.0 && Double.IsFinite value) what value "0 or more"

        let positive what (value: float) =
            need (value > 0.0 && Double.IsFinite value) what value "positive"

        match attack with
        | Fgsm epsilon -> notNegative "epsilon" epsilon
        | Pgd s ->
            notNegative "epsilon" s.Epsilon
            positive "the step" s.RelativeStep
            steps "the number of steps" s.Steps
            steps "the number of runs" s.Restarts
        | DeepFool s ->
            steps "the number of steps" s.Steps
            need (s.Candidates >= 2) "the number of candidates" s.Candidates "2 or more"
            notNegative "the overshoot" s.Overshoot
        | Ddn s ->
            steps "the number of steps" s.Steps
            positive "the first radius" s.InitialEpsilon
            need (s.Gamma > 0.0 && s.Gamma < 1.0) "gamma" s.Gamma "between 0 and 1"
        | CarliniWagner s ->
            steps "the number of search steps" s.SearchSteps
            steps "the number of steps" s.Steps
            positive "the step size" s.StepSize
            notNegative "the confidence" s.Confidence
            positive "the first const" s.InitialConst
        | RandomSigns s ->
            notNegative "epsilon" s.Epsilon
            steps "the number of draws" s.Draws

    // ---- parts ----

    let private number = Scope.number

    let private inUnitInterval (images: torch.Tensor) : torch.Tensor =
        images.maximum(number 0.0).minimum(number 1.0)

    /// The change limited to the ball: x0 + clamp(x - x0, -eps, eps).
    let private inBall (epsilon: float) (x0: torch.Tensor) (x: torch.Tensor) : torch.Tensor =
        Scope.add x0 ((x - x0).maximum(number -epsilon).minimum(number epsilon))

    /// One number for each image, `[N,1,1,1]`, as a factor of images.
    let private perImage (values: torch.Tensor) : torch.Tensor = values.view (-1L, 1L, 1L, 1L)

    /// The L2 norm of each image `[N]`.
    let private norms (images: torch.Tensor) : torch.Tensor =
        images.flatten(1L).square().sum(1L).sqrt()

    /// The number of each image at its class: `[N,K]` and `[N]` to `[N]`.
    let private at (classes: torch.Tensor) (logits: torch.Tensor) : torch.Tensor =
        logits.gather(1L, classes.unsqueeze 1L).squeeze 1L

    /// Which images the network does not give their label `[N]`, bool.
    let private fooled (labels: torch.Tensor) (logits: torch.Tensor) : torch.Tensor = logits.argmax(1L).ne labels

    let private flags (which: torch.Tensor) : bool[] = which.cpu().data<bool>().ToArray()

    /// Calls `make` with the images as a leaf of the graph, and gives the gradients of the sums that it returns by the
    /// images, and what else it returns, without the graph. A sum that does not depend on the images has a gradient of zeros.
    let private gradients (make: torch.Tensor -> torch.Tensor list * torch.Tensor list) (images: torch.Tensor) =
        use _ = torch.enable_grad ()
        let x = images.detach().requires_grad_ true
        let sums, others = make x

        // To ask for a gradient where there is none would end the process.
        let gradient (sum: torch.Tensor) =
            if sum.requires_grad then
                match
                    torch.autograd.grad ([| sum |], [| x |], retain_graph = true, allow_unused = true)
                    |> Seq.head
                with
                | found when found.IsInvalid -> torch.zeros_like images
                | found -> found
            else
                torch.zeros_like images

        List.map gradient sums, others |> List.map _.detach()

    /// The cross-entropy of each image `[N]`, and the gradient of their sum by the images `[N,C,H,W]`: each image has its
    /// own.
    let lossGradient
        (logits: torch.Tensor -> torch.Tensor)
        (images: torch.Tensor)
        (labels: torch.Tensor)
        : torch.Tensor * torch.Tensor =
        let results =
            Scope.many (fun () ->
                let found, losses =
                    images
                    |> gradients (fun x ->
                        let losses =
                            torch.nn.functional.cross_entropy (logits x, labels, reduction = torch.nn.Reduction.None)

                        [ losses.sum () ], [ losses ])

                losses @ found)

        results[0], results[1]

    /// The gradient of the summed cross-entropy, and which images fool the network.
    let private climb (logits: torch.Tensor -> torch.Tensor) (labels: torch.Tensor) (images: torch.Tensor) =
        let found, z =
            images
            |> gradients (fun x ->
                let z = logits x
                [ torch.nn.functional.cross_entropy (z, labels, reduction = torch.nn.Reduction.Sum) ], [ z ])

        found.Head, fooled labels z.Head

    let private noTrace =
        { Fooled = []
          Consts = []
          AdamSteps = [] }

    /// Random numbers for each image of a batch, in its form: image i draws from child first + i of the key.
    let private noise (draw: Stream -> float) (key: Key) (first: int) (images: torch.Tensor) : torch.Tensor =
        let count = int images.shape[0]
        let size = int images.NumberOfElements / count

        let values =
            Array.init count (fun i ->
                let bits = Key.stream (Key.child (first + i) key)
                Array.init size (fun _ -> draw bits))
            |> Array.concat

        torch.tensor(values, ReadOnlySpan images.shape).``to``(images.dtype).``to`` images.device

    // ---- the attacks ----

    /// `steps` times: along the gradient's sign, back into the ball, back into [0,1].
    let private signSteps epsilon step steps logits labels (x0: torch.Tensor) (start: torch.Tensor) : torch.Tensor =
        Scope.run (fun () ->
            let x = start.clone ()

            for _ in 1..steps do
                Scope.value (fun () ->
                    let gradient, _ = climb logits labels x
                    let moved = Scope.add x (gradient.sign () * number step)
                    x.copy_ (moved |> inBall epsilon x0 |> inUnitInterval) |> ignore)

            x)

    /// Of each image, what the first of these runs that fools the network made of it, else the last.
    let private firstThatFools runs (logits: torch.Tensor -> torch.Tensor) labels (run: int -> torch.Tensor) =
        let best = run 0

        for i in 1 .. runs - 1 do
            Scope.value (fun () ->
                let isDone = fooled labels (logits best)
                best.copy_ (torch.where (perImage isDone, best, run i)) |> ignore)

        best

    let private randomSigns (s: RandomSettings) key first logits (x0: torch.Tensor) labels =
        let run draw =
            Scope.run (fun () ->
                let signs =
                    noise (fun bits -> if bits.Float() < 0.5 then -1.0 else 1.0) (Key.child draw key) first x0

                Scope.add x0 (signs * number s.Epsilon) |> inUnitInterval)

        inBall s.Epsilon x0 (firstThatFools s.Draws logits labels run), noTrace

    let private pgd (s: PgdSettings) key first logits (x0: torch.Tensor) (labels: torch.Tensor) =
        let run restart =
            Scope.run (fun () ->
                let start =
                    if s.RandomStart then
                        let shift =
                            noise (fun bits -> 2.0 * bits.Float() - 1.0) (Key.child restart key) first x0

                        Scope.add x0 (shift * number s.Epsilon) |> inUnitInterval
                    else
                        x0

                signSteps s.Epsilon (s.RelativeStep * s.Epsilon) s.Steps logits labels x0 start)

        inBall s.Epsilon x0 (firstThatFools s.Restarts logits labels run), noTrace

    let private fgsm epsilon logits x0 labels =
        inBall epsilon x0 (signSteps epsilon epsilon 1 logits labels x0 x0), noTrace

    let private deepFool (s: DeepFoolSettings) logits (x0: torch.Tensor) (labels: torch.Tensor) =
        let classes =
            let z: torch.Tensor = logits x0
            let kept = min (int64 s.Candidates) z.shape[1]
            z.argsort(1L, true).narrow(1L, 0L, kept)

        let candidate k = classes.select (1L, k)
        let x = x0.clone ()
        let total = torch.zeros_like x0

        /// One step, unless all images fool the network already; which do.
        let step () =
            Scope.value (fun () ->
                let found, others =
                    x
                    |> gradients (fun x ->
                        let z = logits x

                        let gaps =
                            [ for k in 1L .. classes.shape[1] - 1L -> at (candidate k) z - at (candidate 0L) z ]

                        gaps |> List.map _.sum(), z :: gaps)

                let isFooled = fooled labels others.Head

                if not (isFooled.all().item<bool>()) then
                    let gaps = torch.stack(others.Tail, 1L).abs()
                    let lengths = torch.stack (found |> List.map norms, 1L)
                    let distances = gaps / Scope.add lengths (number 1e-8)
                    let best = distances.argmin 1L

                    let factor =
                        Scope.add (at best distances) (number 1e-4)
                        / Scope.add (at best lengths) (number 1e-8)

                    let gradient =
                        let all = torch.stack (found, 1L)

                        let index =
                            best.view(-1L, 1L, 1L, 1L, 1L).expand(all.select(1L, 0L).unsqueeze(1L).shape)

                        all.gather(1L, index).squeeze 1L

                    total.copy_ (Scope.add total (gradient * perImage factor)) |> ignore
                    let moved = Scope.add x0 (total * number (1.0 + s.Overshoot))
                    x.copy_ (torch.where (perImage isFooled, x, moved) |> inUnitInterval) |> ignore

                flags isFooled)

        let rec go k =
            if k = s.Steps then
                []
            else
                let isFooled = step ()
                isFooled :: (if Array.forall id isFooled then [] else go (k + 1))

        let seen = go 0
        x, { noTrace with Fooled = seen }

    let private ddn (s: DdnSettings) key first logits (x0: torch.Tensor) (labels: torch.Tensor) =
        let delta = torch.zeros_like x0
        let best = torch.zeros_like x0
        let worst = norms (x0.maximum (number 1.0 - x0))
        let bestNorm = worst.clone ()
        let radius = Scope.add (torch.zeros_like worst) (number s.InitialEpsilon)

        let step i =
            Scope.value (fun () ->
                let alpha = 0.01 + 0.99 * (1.0 + cos (Math.PI * float i / float s.Steps)) / 2.0

                let gradient, isFooled = climb logits labels (Scope.add x0 delta)

                // A gradient of nothing but zeros points nowhere: a random direction stands in for it.
                let gradient =
                    let isZero = (norms gradient).eq(number 0.0)

                    if isZero.any().item<bool>() then
                        let random = noise _.Normal() (Key.child i key) first x0
                        torch.where (perImage isZero, random, gradient)
                    else
                        gradient

                let length = norms delta
                let isBetter = isFooled.logical_and (length.le bestNorm)
                bestNorm.copy_ (torch.where (isBetter, length, bestNorm)) |> ignore
                best.copy_ (torch.where (perImage isBetter, delta, best)) |> ignore

                let unit = gradient / perImage ((norms gradient).maximum(number 1e-12))
                let moved = Scope.add delta (unit * number alpha)
                let shrunk, grown = radius * number (1.0 - s.Gamma), radius * number (1.0 + s.Gamma)
                radius.copy_ ((torch.where (isFooled, shrunk, grown)).minimum worst) |> ignore
                let scaled = moved * perImage (radius / (norms moved).maximum(number 1e-12))
                delta.copy_ (inUnitInterval (Scope.add x0 scaled) - x0) |> ignore
                flags isFooled)

        let seen = ResizeArray()

        for i in 0 .. s.Steps - 1 do
            seen.Add(step i)

        Scope.add x0 best,
        { noTrace with
            Fooled = List.ofSeq seen }

    let private carliniWagner (s: CarliniWagnerSettings) logits (x0: torch.Tensor) (labels: torch.Tensor) =
        let toImage (w: torch.Tensor) =
            Scope.add (w.tanh () * number 0.5) (number 0.5)

        let w0 = ((x0 - number 0.5) / number 0.5 * number 0.999999).atanh()
        let reachable = toImage w0
        let best = torch.zeros_like x0
        let bestNorm = Scope.add (norms best) (number infinity)

        /// Each image's label among the classes `[N,K]`, bool.
        let isLabel (z: torch.Tensor) =
            labels.unsqueeze(1L).eq(torch.arange (z.shape[1], device = labels.device))

        /// At a change of w: the loss's gradient and value, the images and their logits.
        let lossAt (weights: torch.Tensor) (delta: torch.Tensor) =
            let found, others =
                delta
                |> gradients (fun delta ->
                    let x = toImage (Scope.add w0 delta)
                    let z = logits x
                    let other = torch.where(isLabel z, number -infinity, z).argmax 1L
                    let gap = Scope.add (at labels z - at other z) (number s.Confidence)
                    let distance = (x - reachable).flatten(1L).square()
                    let loss = Scope.add ((gap.maximum (number 0.0) * weights).sum()) (distance.sum ())
                    [ loss ], [ loss; x; z ])

            found.Head, others[0].``to``(torch.float64).item<float>(), others[1], others[2]

        /// The steps of one search step: how many there were, and which images fooled the network on the way.
        let search (weights: torch.Tensor) =
            let delta, mean, square =
                torch.zeros_like x0, torch.zeros_like x0, torch.zeros_like x0

            let period = (s.Steps + 9) / 10

            let rec go k lossBefore (found: bool[]) =
                if k = s.Steps then
                    k, found
                else
                    let loss, isFooled =
                        Scope.value (fun () ->
                            let gradient, loss, x, z = lossAt weights delta
                            let power = float (k + 1)
                            mean.copy_ (Scope.add (mean * number 0.9) (gradient * number 0.1)) |> ignore

                            square.copy_ (Scope.add (square * number 0.999) (gradient.square () * number 0.001))
                            |> ignore

                            let meanHat = mean / number (1.0 - 0.9 ** power)
                            let squareHat = square / number (1.0 - 0.999 ** power)
                            let move = meanHat / Scope.add (squareHat.sqrt ()) (number 1e-8)
                            delta.copy_ (delta - move * number s.StepSize) |> ignore

                            if s.AbortEarly && k % period = 0 && not (loss <= 0.9999 * lossBefore) then
                                loss, None
                            else
                                let margins = torch.where (isLabel z, number s.Confidence, number 0.0)
                                let isFooled = fooled labels (Scope.add z margins)
                                let length = norms (x - x0)
                                let isBetter = isFooled.logical_and (length.lt bestNorm)
                                bestNorm.copy_ (torch.where (isBetter, length, bestNorm)) |> ignore
                                best.copy_ (torch.where (perImage isBetter, x, best)) |> ignore
                                loss, Some(flags isFooled))

                    match isFooled with
                    | None -> k + 1, found
                    | Some isFooled ->
                        let before = if k % period = 0 then loss else lossBefore
                        go (k + 1) before (Array.map2 (||) found isFooled)

            go 0 infinity (Array.create (int x0.shape[0]) false)

        let rec searches k (bounds: (float * float * float)[]) =
            if k = s.SearchSteps then
                []
            else
                let consts =
                    bounds
                    |> Array.map (fun (c, _, upper) ->
                        if s.SearchSteps >= 10 && k = s.SearchSteps - 1 then
                            min upper 1e10
                        else
                            c)

                let steps, found =
                    Scope.value (fun () -> torch.tensor(consts).``to``(x0.dtype).``to`` x0.device |> search)

                let next =
                    Array.map3
                        (fun c found (_, lower, upper) ->
                            let lower, upper = if found then lower, c else c, upper

                            (if Double.IsInfinity upper then
                                 10.0 * c
                             else
                                 (lower + upper) / 2.0),
                            lower,
                            upper)
                        consts
                        found
                        bounds

                (consts, steps) :: searches (k + 1) next

        let seen =
            searches 0 (Array.create (int x0.shape[0]) (s.InitialConst, 0.0, infinity))

        best,
        { noTrace with
            Consts = List.map fst seen
            AdamSteps = List.map snd seen }

    /// Attacks a batch. An ArgumentException where the settings make no sense, or images and labels do not go together.
    let perturb: Attacker =
        fun attack key first logits images labels ->
            check attack

            if images.dim () <> 4L || not (images.is_floating_point ()) then
                invalidArg (nameof images) "The images must be floating-point numbers [N,C,H,W]."

            if
                labels.dim () <> 1L
                || labels.shape[0] <> images.shape[0]
                || labels.dtype <> torch.int64
            then
                invalidArg (nameof labels) "The labels must be class indices [N] (int64), one for each image."

            use scope = torch.NewDisposeScope()
            use _ = torch.no_grad ()
            let x0 = images.detach ()

            let found, trace =
                match attack with
                | Fgsm epsilon -> fgsm epsilon logits x0 labels
                | Pgd settings -> pgd settings key first logits x0 labels
                | DeepFool settings -> deepFool settings logits x0 labels
                | Ddn settings -> ddn settings key first logits x0 labels
                | CarliniWagner settings -> carliniWagner settings logits x0 labels
                | RandomSigns settings -> randomSigns settings key first logits x0 labels

            scope.MoveToOuter found |> ignore
            { Images = found; Trace = trace }

    /// What an attack without a ball of its own comes to within epsilon: the image moved that far at most, in the same
    /// direction, x0 + min(1, eps / |d|) d.
    let within (epsilon: float) (images: torch.Tensor) (attacked: torch.Tensor) : torch.Tensor =
        Scope.run (fun () ->
            let change = attacked - images
            let length = (norms change).maximum(number 1e-12)
            let share = (number epsilon / length).minimum(number 1.0)
            Scope.add images (change * perImage share))

    /// How far each image was moved `[N]`.
    let distances (norm: Norm) (images: torch.Tensor) (attacked: torch.Tensor) : float[] =
        Scope.value (fun () ->
            let change = attacked.detach () - images

            let lengths =
                match norm with
                | Norm.LInf -> change.flatten(1L).abs().amax(ReadOnlySpan [| 1L |])
                | Norm.L2 -> norms change

            lengths.``to``(torch.float64).cpu().data<float>().ToArray())

    /// The network's classes of images `[N]`.
    let predictions (logits: torch.Tensor -> torch.Tensor) (images: torch.Tensor) : int[] =
        Scope.value (fun () ->
            use _ = torch.no_grad ()
            logits(images).argmax(1L).cpu().data<int64>().ToArray() |> Array.map int)
