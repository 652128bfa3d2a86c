namespace PatchUp.Repro

open System
open System.Globalization
open PatchUp.Functional
open TorchSharp

/// A network and the images on which it is attacked.
[<NoEquality; NoComparison>]
type AttackSubject =
    {
        /// Images `[N,C,H,W]` in [0,1] to logits `[N,K]`, differentiable, of a network in evaluation mode.
        Logits: torch.Tensor -> torch.Tensor
        /// The images with these indices, `[n,C,H,W]` in [0,1], float32 or float64, where `Logits` wants them.
        Images: int[] -> torch.Tensor
        /// The right class of each image, by index; at least one.
        Labels: int[]
        /// By which each channel of an image in [0,1] is divided in the network; for epsilons in normalised units only.
        Std: float list
    }

/// Which attacks are run, and how.
type AttackPreset =
    {
        Name: string
        /// Epsilons of FGSM in normalised units, as the PatchUp authors give them: one is the pixel epsilon divided by the mean of the
        /// channels' standard deviations.
        FgsmNormalised: float list
        /// Epsilons of FGSM in pixel units, beside these.
        Fgsm: float list
        Attacks: Attack list
        /// Distances at which the L2 attacks are judged, in pixel units.
        L2Epsilons: float list
        /// Images that are attacked at once.
        Batch: int
        /// Images on which the checks run attacks of their own: of those that are classified rightly, evenly spread, and others only where these are too few.
        Probe: int
    }

/// A share of images in percent, with its 95 % Wilson interval.
type ImageShare =
    { Count: int
      Of: int
      Percent: float
      Low: float
      High: float }

/// How many images are classified rightly when none may be moved further than this.
type RobustAccuracy =
    {
        /// In pixel units.
        Epsilon: float
        /// For L-infinity: the same in the normalised units of each channel.
        Normalised: float list
        Accuracy: ImageShare
    }

/// What an attack made of all images.
type AttackResult =
    {
        Attack: string
        /// All its settings.
        Settings: string
        /// linf or l2.
        Norm: string
        /// Images that are classified wrongly afterwards, those that were so before included.
        Error: ImageShare
        /// Of the images that were classified rightly before: those that are not any more.
        Success: ImageShare
        /// How far these were moved, but for black images that Carlini-Wagner gives where it finds nothing; null where there are none.
        MeanDistance: float option
        MedianDistance: float option
        /// Of all images.
        LargestDistance: float
        /// L-infinity: at the attack's own epsilon. L2: at each epsilon, images that were moved too far being moved back to it.
        Robust: RobustAccuracy list
    }

/// Whether low errors under attack can be trusted: attacks that follow gradients fail on networks that hide them.
type GradientMasking =
    {
        /// Pixels at which the loss's gradient is exactly zero, in percent.
        ZeroPixels: float
        /// Images on which it is zero everywhere, in percent.
        ZeroImages: float
        /// What points at masked gradients, in words; empty where nothing does.
        Flags: string list
    }

/// What the suite of attacks found.
type AttackReport =
    {
        Preset: string
        Images: int
        Batch: int
        Probe: int
        /// Images that are classified rightly as they are.
        Clean: ImageShare
        Results: AttackResult list
        Masking: GradientMasking
        /// What shows that an attack, not the network, is broken; empty where the numbers are sound.
        Faults: string list
        /// Checks that could find nothing on these images, in words.
        Unchecked: string list
    }

/// Runs attacks on a network, and checks them.
[<RequireQualifiedAccess>]
module AttackSuite =

    // ---- presets ----

    /// The epsilon of which the paper's other attacks say nothing.
    let private usual = 8.0 / 255.0

    let private pgd: PgdSettings =
        { Epsilon = usual
          RelativeStep = 0.01 / 0.3
          Steps = 40
          RandomStart = true
          Restarts = 1 }

    let private deepFool: DeepFoolSettings =
        { Steps = 7
          Candidates = 10
          Overshoot = 0.02 }

    let private ddn: DdnSettings =
        { Steps = 100
          InitialEpsilon = 1.0
          Gamma = 0.05 }

    let private carliniWagner: CarliniWagnerSettings =
        { SearchSteps = 9
          Steps = 10000
          StepSize = 0.01
          Confidence = 0.0
          InitialConst = 0.001
          AbortEarly = true }

    /// The paper's attacks: FGSM's epsilons and DeepFool's steps are its authors', all else is Foolbox's default, with 8/255 where the
    /// paper gives no epsilon. Carlini-Wagner takes hours.
    let paper: AttackPreset =
        { Name = "paper"
          FgsmNormalised = [ 0.0; 0.05; 0.1; 0.12; 0.15; 0.18; 0.2 ]
          Fgsm = [ usual ]
          Attacks = [ Pgd pgd; DeepFool deepFool; Ddn ddn; CarliniWagner carliniWagner ]
          L2Epsilons = [ usual; 0.1; 0.25; 0.5; 1.0 ]
          Batch = 100
          Probe = 32 }

    /// The same with less of DDN and Carlini-Wagner, for a few hundred small images on a processor.
    let demo: AttackPreset =
        { paper with
            Name = "demo"
            Attacks =
                [ Pgd pgd
                  DeepFool deepFool
                  Ddn { ddn with Steps = 50 }
                  CarliniWagner
                      { carliniWagner with
                          SearchSteps = 3
                          Steps = 100
                          InitialConst = 0.1
                          AbortEarly = false } ] }

    /// All presets.
    let presets: AttackPreset list = [ demo; paper ]

    // ---- statistics ----

    /// So many of the images in percent, with Wilson's 95 % interval; of none it is 0 .. 100.
    let share (count: int) (total: int) : ImageShare =
        let low, high = Statistics.wilson count total

        { Count = count
          Of = total
          Percent = 100.0 * (if total = 0 then 0.0 else float count / float total)
          Low = 100.0 * low
          High = 100.0 * high }

    /// How likely it is that, of so many differences, as many or more go one way as do, if both ways are equally likely.
    let private signTest (one: int) (other: int) : float =
        let n = one + other

        let rec logFactorial k =
            if k < 2 then 0.0 else log (float k) + logFactorial (k - 1)

        let whole = logFactorial n - float n * log 2.0

        if n = 0 then
            1.0
        else
            min 1.0 (List.sum [ for k in one..n -> exp (whole - logFactorial k - logFactorial (n - k)) ])

    let private count (holds: 'a -> bool) (items: 'a[]) : int =
        items |> Array.filter holds |> Array.length

    // ---- one attack ----

    /// What became of one image.
    type private Outcome =
        {
            IsWrong: bool
            /// Wrong, and not by the black image that Carlini-Wagner gives where it finds nothing.
            IsFound: bool
            Distance: float
            /// At each of the preset's L2 epsilons, of an L2 attack; the first is 0.
            IsWrongAt: bool[]
        }

    let private number (value: float) =
        value.ToString("0.######", CultureInfo.InvariantCulture)

    let private percent (value: float) =
        value.ToString("0.0", CultureInfo.InvariantCulture)

    /// The epsilons of the suite's L2 attacks: 0 first, for a check.
    let private l2Epsilons (preset: AttackPreset) = 0.0 :: preset.L2Epsilons

    /// How far rounding may move an image of so many pixels.
    let private slack (norm: Norm) (pixels: int64) (epsilon: float) =
        match norm with
        | Norm.LInf -> 1e-6
        | Norm.L2 -> 1e-6 * epsilon + 1e-7 * sqrt (float pixels)

    let private labelsOf (subject: AttackSubject) (indices: int[]) (device: torch.Device) =
        torch.tensor(indices |> Array.map (fun i -> int64 subject.Labels[i])).``to`` device

    let private imagesOf (subject: AttackSubject) (indices: int[]) : torch.Tensor =
        let images = subject.Images indices

        let isFloat = images.dtype = torch.float32 || images.dtype = torch.float64

        if images.dim () <> 4L || images.shape[0] <> indices.LongLength || not isFloat then
            invalidArg (nameof subject) "The images must be float32 or float64 [n,C,H,W], as many as were asked for."

        if
            not (
                images.min().ge(Scope.number 0.0).item<bool>()
                && images.max().le(Scope.number 1.0).item<bool>()
            )
        then
            invalidArg (nameof subject) "The images must lie in [0,1]."

        images

    /// The outcomes of these images, a batch, and what shows that the attack is broken.
    let private attackBatch
        (attacker: Attacker)
        (preset: AttackPreset)
        key
        subject
        attack
        (indices: int[])
        : Outcome[] * string list =
        Scope.value (fun () ->
            use _ = torch.no_grad ()
            let images = imagesOf subject indices
            let labels = labelsOf subject indices images.device
            let norm = Attacks.norm attack
            let pixels = images.NumberOfElements / images.shape[0]
            let attacked = (attacker attack key indices[0] subject.Logits images labels).Images

            let isWrong images =
                Attacks.predictions subject.Logits images
                |> Array.map2 (fun i found -> found <> subject.Labels[i]) indices

            let distances images' = Attacks.distances norm images images'

            let says what = $"{Attacks.show attack}: {what}"

            /// Images further away than epsilon; not-a-number is.
            let beyond epsilon (distances: float[]) =
                let most = epsilon + slack norm pixels epsilon

                match distances |> Array.tryFindIndex (fun distance -> not (distance <= most)) with
                | Some i -> [ says $"image {indices[i]} was moved by {distances[i]}, further than {number epsilon}" ]
                | None -> []

            /// Images with a pixel outside [0,1].
            let outside (images': torch.Tensor) =
                let low = images'.min().``to``(torch.float64).item<float>()
                let high = images'.max().``to``(torch.float64).item<float>()

                if low >= -1e-6 && high <= 1.0 + 1e-6 then
                    []
                else
                    [ says $"pixels lie in {low} .. {high}, outside [0,1]" ]

            let raw = distances attacked

            let judged =
                match norm with
                | Norm.LInf -> []
                | Norm.L2 ->
                    [ for epsilon in l2Epsilons preset ->
                          Scope.value (fun () ->
                              let near = Attacks.within epsilon images attacked
                              isWrong near, beyond epsilon (distances near) @ outside near) ]

            let wrong = isWrong attacked

            let blank (images: torch.Tensor) =
                images.flatten(1L).eq(Scope.number 0.0).all(1L).cpu().data<bool>().ToArray()

            let isNothing =
                if attack.IsCarliniWagner then
                    Array.map2 (fun after before -> after && not before) (blank attacked) (blank images)
                else
                    Array.create indices.Length false

            let outcomes =
                Array.init indices.Length (fun i ->
                    { IsWrong = wrong[i]
                      IsFound = wrong[i] && not isNothing[i]
                      Distance = raw[i]
                      IsWrongAt = [| for wrong, _ in judged -> wrong[i] |] })

            outcomes,
            [ yield! outside attacked
              match Attacks.epsilon attack with
              | Some epsilon -> yield! beyond epsilon raw
              | None -> yield! List.collect snd judged ])

    /// The same of many images, batch by batch; of the faults, the first.
    let private attackAll
        attacker
        (preset: AttackPreset)
        key
        report
        subject
        attack
        (indices: int[])
        : Outcome[] * string list =
        let parts =
            [ for part in Array.chunkBySize preset.Batch indices do
                  report $"{Attacks.show attack}: image {part[0] + 1} of {indices.Length}"
                  attackBatch attacker preset key subject attack part ]

        Array.concat (List.map fst parts), parts |> List.collect snd |> List.truncate 1

    /// Which of these images are classified wrongly as they are.
    let private untouched (preset: AttackPreset) subject (indices: int[]) : bool[] =
        [| for part in Array.chunkBySize preset.Batch indices do
               yield!
                   Scope.value (fun () ->
                       imagesOf subject part
                       |> Attacks.predictions subject.Logits
                       |> Array.map2 (fun i found -> found <> subject.Labels[i]) part) |]

    // ---- checks ----

    /// Below this probability, what ought not to be is no noise.
    let private impossible = 0.001

    /// Attacks with fewer steps, which ought to be weaker; None for those that have none.
    let private weaker (attack: Attack) : Attack option =
        let fewer steps make =
            if steps < 2 then None else Some(make (max 1 (steps / 4)))

        match attack with
        | Fgsm _
        | RandomSigns _ -> None
        | Pgd s -> fewer s.Steps (fun steps -> Pgd { s with Steps = steps })
        | DeepFool s -> fewer s.Steps (fun steps -> DeepFool { s with Steps = steps })
        | Ddn s -> fewer s.Steps (fun steps -> Ddn { s with Steps = steps })
        | CarliniWagner s -> fewer s.Steps (fun steps -> CarliniWagner { s with Steps = steps })

    /// How well the image withstood: for L-infinity 0 or infinity, for L2 the distance that was needed.
    let private resistance attack (outcome: Outcome) =
        match outcome.IsFound, Attacks.norm attack with
        | false, _ -> infinity
        | true, Norm.LInf -> 0.0
        | true, Norm.L2 -> outcome.Distance

    /// Steps that make the attack worse, over the same images.
    let private moreSteps attack (few: Attack) (outcomes: Outcome[]) (fewOutcomes: Outcome[]) =
        let pairs =
            Array.zip (outcomes |> Array.map (resistance attack)) (fewOutcomes |> Array.map (resistance attack))

        let isAbove (a: float, b: float) = a > b * 1.01 + 1e-5
        let lost = pairs |> count isAbove
        let won = pairs |> count (fun (a, b) -> isAbove (b, a))

        if signTest lost won < impossible then
            [ $"{Attacks.show attack}: it is weaker than {Attacks.show few} on {lost} images, and stronger on {won}" ]
        else
            []

    /// An attack that helps the network.
    let private noHelp attack (clean: bool[]) (outcomes: Outcome[]) =
        let helped =
            Array.zip clean outcomes
            |> count (fun (wasWrong, outcome) -> wasWrong && not outcome.IsWrong)

        let harmed =
            Array.zip clean outcomes
            |> count (fun (wasWrong, outcome) -> not wasWrong && outcome.IsWrong)

        if signTest helped harmed < impossible then
            [ $"{Attacks.show attack}: it makes {helped} wrong images right, and {harmed} right ones wrong" ]
        else
            []

    /// An attack that leaves every image as it is, also those that it ought to move: rightly classified, with a gradient.
    let private still attack (isTarget: bool[]) (outcomes: Outcome[]) =
        let moves =
            match attack, Attacks.epsilon attack with
            | DeepFool _, _ -> true
            | _, Some epsilon -> epsilon > 0.0
            // Those that find nothing may give the image back, on a network that withstands them.
            | _, None -> false

        let targets = Array.zip isTarget outcomes |> Array.filter fst

        if
            moves
            && targets.Length > 0
            && targets |> Array.forall (fun (_, outcome) -> outcome.Distance = 0.0)
        then
            [ $"{Attacks.show attack}: it moves none of {targets.Length} images that are classified rightly and have a gradient" ]
        else
            []

    /// How many images an attack that may go as far as it likes leaves right which a single step fools, and what is said of these where that is no noise. Of
    /// DeepFool, whose few steps need not arrive, nothing follows from it.
    let private short (isTarget: bool[]) (attack: Attack, outcomes: Outcome[]) (step: Attack, stepOutcomes: Outcome[]) =
        let pairs =
            Array.zip3 isTarget outcomes stepOutcomes
            |> Array.filter (fun (isTarget, _, _) -> isTarget)

        let left =
            pairs |> count (fun (_, outcome, step) -> step.IsWrong && not outcome.IsFound)

        let won =
            pairs |> count (fun (_, outcome, step) -> outcome.IsFound && not step.IsWrong)

        if signTest left won < impossible then
            [ left,
              $"{Attacks.show attack}: however far it may go, it leaves {left} images right that {Attacks.show step} fools, and fools {won} that \
                this leaves right" ]
        else
            []

    /// Images that are classified otherwise although nothing was moved.
    let private atZero attack (clean: bool[]) (wrong: bool[]) =
        let changed = Array.map2 (<>) clean wrong |> count id

        if changed = 0 then
            []
        else
            [ $"{Attacks.show attack}: at eps 0, {changed} of {clean.Length} images are classified otherwise than untouched" ]

    /// The same attack at eps 0, on the probe.
    let private zeroed (attack: Attack) : Attack option =
        match attack with
        | Pgd s ->
            Some(
                Pgd
                    { s with
                        Epsilon = 0.0
                        Steps = min 2 s.Steps }
            )
        | RandomSigns s -> Some(RandomSigns { s with Epsilon = 0.0 })
        | Fgsm _ -> Some(Fgsm 0.0)
        | DeepFool _
        | Ddn _
        | CarliniWagner _ -> None

    /// The images of the probe, in order. Test sets are often sorted by class, so they are spread.
    let private probed (preset: AttackPreset) (clean: bool[]) : int[] =
        let spread most (indices: int[]) =
            let taken = min most indices.Length
            Array.init taken (fun i -> indices[i * indices.Length / taken])

        let wrong, right =
            [| 0 .. clean.Length - 1 |] |> Array.partition (fun i -> clean[i])

        let first = spread preset.Probe right
        Array.append first (spread (preset.Probe - first.Length) wrong) |> Array.sort

    /// What the checks find that run attacks of their own on the probe.
    let private probe
        attacker
        (preset: AttackPreset)
        key
        subject
        attack
        (clean: bool[])
        (outcomes: Outcome[])
        : string list =
        let indices = probed preset clean
        let wasWrong = indices |> Array.map (fun i -> clean[i])

        let pick (values: 'a[]) =
            indices |> Array.map (fun i -> values[i])

        let outcomes = pick outcomes

        // In the probe's own batches: in others a device may round otherwise.
        let clean = untouched preset subject indices

        let run attack =
            attackAll attacker preset key ignore subject attack indices

        [ match weaker attack with
          | Some few -> yield! moreSteps attack few outcomes (fst (run few))
          | None -> ()

          match zeroed attack with
          | Some zero ->
              let outcomes, faults = run zero
              yield! faults
              yield! atZero zero clean (outcomes |> Array.map _.IsWrong)
          | None -> yield! atZero attack wasWrong (outcomes |> Array.map _.IsWrongAt[0])

          match attack with
          | Pgd s when s.RandomStart ->
              // Few steps, after which it still matters where they started.
              let few = { s with Steps = max 1 (s.Steps / 4) }
              let one, two = Pgd { few with Restarts = 1 }, Pgd { few with Restarts = 2 }

              let lost =
                  Array.zip (fst (run one)) (fst (run two))
                  |> count (fun (one, two) -> one.IsWrong && not two.IsWrong)

              // One image in twenty may be on the edge, where not all devices repeat themselves.
              if 20 * lost > indices.Length then
                  $"{Attacks.show two}: {lost} images that its first run fools are not fooled"
          | _ -> () ]

    // ---- gradient masking ----

    /// The share of pixels with a gradient of zero, summed over the images, and for each image whether it has no other.
    let private zeroGradients (preset: AttackPreset) subject (indices: int[]) : float * bool[] =
        let parts =
            [ for part in Array.chunkBySize preset.Batch indices ->
                  Scope.value (fun () ->
                      let images = imagesOf subject part

                      let _, gradient =
                          Attacks.lossGradient subject.Logits images (labelsOf subject part images.device)

                      let isZero = gradient.eq(Scope.number 0.0).flatten 1L

                      isZero.``to``(torch.float64).mean([| 1L |]).sum().item<float>(),
                      isZero.all(1L).cpu().data<bool>().ToArray()) ]

        List.sumBy fst parts, parts |> List.map snd |> Array.concat

    /// Where an attack is beaten by one that should be no match for it, beyond noise.
    let private beaten (attack: Attack, outcomes: Outcome[]) (simple: Attack, simpleOutcomes: Outcome[]) =
        let onlySimple =
            Array.zip outcomes simpleOutcomes
            |> count (fun (own, simple) -> simple.IsWrong && not own.IsWrong)

        let onlyOwn =
            Array.zip outcomes simpleOutcomes
            |> count (fun (own, simple) -> own.IsWrong && not simple.IsWrong)

        if signTest onlySimple onlyOwn < 0.01 then
            [ $"{Attacks.name attack} is weaker than {Attacks.name simple} at eps {number (Attacks.epsilon attack).Value}: {onlySimple} images \
                are fooled by that alone, {onlyOwn} by {Attacks.name attack} alone" ]
        else
            []

    // ---- the suite ----

    let private mean (values: float[]) =
        if Array.isEmpty values then
            None
        else
            Some(Array.average values)

    let private median (values: float[]) =
        let sorted = Array.sort values
        let middle = sorted.Length / 2

        if sorted.Length = 0 then None
        elif sorted.Length % 2 = 1 then Some sorted[middle]
        else Some((sorted[middle - 1] + sorted[middle]) / 2.0)

    let private summary
        (preset: AttackPreset)
        (subject: AttackSubject)
        (clean: bool[])
        (attack: Attack)
        (outcomes: Outcome[])
        =
        let total = outcomes.Length

        let fooled =
            Array.zip clean outcomes
            |> Array.filter (fun (wasWrong, outcome) -> not wasWrong && outcome.IsWrong)
            |> Array.map snd

        // A black image is no answer to how far is far enough.
        let distances = fooled |> Array.filter _.IsFound |> Array.map _.Distance

        let accuracy wrong = share (total - count id wrong) total
        let wrong = outcomes |> Array.map _.IsWrong

        { Attack = Attacks.name attack
          Settings = Attacks.show attack
          Norm =
            match Attacks.norm attack with
            | Norm.LInf -> "linf"
            | Norm.L2 -> "l2"
          Error = share (count id wrong) total
          Success = share fooled.Length (count not clean)
          MeanDistance = mean distances
          MedianDistance = median distances
          LargestDistance = outcomes |> Array.map _.Distance |> Array.max
          Robust =
            match Attacks.epsilon attack with
            | Some epsilon ->
                [ { Epsilon = epsilon
                    Normalised = subject.Std |> List.map (fun std -> epsilon / std)
                    Accuracy = accuracy wrong } ]
            | None ->
                [ for i, epsilon in List.indexed (l2Epsilons preset) ->
                      { Epsilon = epsilon
                        Normalised = []
                        Accuracy = accuracy (outcomes |> Array.map _.IsWrongAt[i]) } ] }

    /// The attacks of a preset on a network of these standard deviations: FGSM at all its epsilons first, and random signs at the
    /// epsilon of each PGD last.
    let attacks (std: float list) (preset: AttackPreset) : Attack list =
        [ for epsilon in
              0.0 :: preset.Fgsm
              @ [ for epsilon in preset.FgsmNormalised -> epsilon * List.average std ]
              |> List.distinct
              |> List.sort do
              Fgsm epsilon
          yield! preset.Attacks
          for attack in preset.Attacks do
              match attack with
              | Pgd s -> RandomSigns { Epsilon = s.Epsilon; Draws = 10 }
              | _ -> () ]

    /// Runs the suite with an attacker of one's own, such as a broken one, and checks it; the faults are in the report.
    let measureBy
        (attacker: Attacker)
        (preset: AttackPreset)
        (key: Key)
        (report: string -> unit)
        (subject: AttackSubject)
        : AttackReport =
        let total = subject.Labels.Length

        if total = 0 then
            invalidArg (nameof subject) "There are no images; at least one is needed."

        if preset.Batch < 1 || preset.Probe < 1 then
            invalidArg (nameof preset) $"Batch is {preset.Batch} and probe {preset.Probe}; both must be 1 or more."

        if
            subject.Std.IsEmpty
            || subject.Std |> List.exists (fun std -> not (std > 0.0 && Double.IsFinite std))
        then
            invalidArg (nameof subject) "The standard deviations of the channels must be positive."

        let indices = [| 0 .. total - 1 |]

        let clean = untouched preset subject indices

        let zeroPixels, isZero = zeroGradients preset subject indices
        let zeroImages = count id isZero

        let isTarget =
            Array.map2 (fun wasWrong isZero -> not wasWrong && not isZero) clean isZero

        let found =
            [ for i, attack in List.indexed (attacks subject.Std preset) ->
                  let key = Key.child i key
                  let outcomes, faults = attackAll attacker preset key report subject attack indices

                  let faults =
                      [ yield! faults
                        // A single step may make wrong images right: where a network has learnt to expect it.
                        if not attack.IsFgsm then
                            yield! noHelp attack clean outcomes
                        yield! still attack isTarget outcomes

                        match attack with
                        | Fgsm 0.0 -> yield! atZero attack clean (outcomes |> Array.map _.IsWrong)
                        | Fgsm _ -> ()
                        | _ -> yield! probe attacker preset key subject attack clean outcomes ]

                  attack, outcomes, faults ]

        let misled =
            [ for attack, outcomes, _ in found do
                  match attack with
                  | Fgsm _ -> yield! noHelp attack clean outcomes
                  | Pgd s ->
                      for simple, simpleOutcomes, _ in found do
                          match simple with
                          | Fgsm _
                          | RandomSigns _ when Attacks.epsilon simple = Some s.Epsilon ->
                              yield! beaten (attack, outcomes) (simple, simpleOutcomes)
                          | _ -> ()
                  | _ -> () ]

        let isZeroOften = (share zeroImages total).Low >= 1.0

        let steps =
            [ for attack, outcomes, _ in found do
                  if attack.IsFgsm then
                      attack, outcomes ]

        // Of several steps, the one by which most is left right.
        let shortOnes =
            [ for attack, outcomes, _ in found do
                  if attack.IsDdn || attack.IsCarliniWagner then
                      match steps |> List.collect (short isTarget (attack, outcomes)) with
                      | [] -> ()
                      | shorts -> shorts |> List.maxBy fst |> snd ]

        let right = count not clean
        let targets = count id isTarget

        let fooled =
            steps
            |> List.map (
                snd
                >> Array.map2 (fun isTarget outcome -> isTarget && outcome.IsWrong) isTarget
                >> count id
            )
            |> List.fold max 0

        let fewest = [ 1..64 ] |> List.find (fun n -> signTest n 0 < impossible)

        { Preset = preset.Name
          Images = total
          Batch = preset.Batch
          Probe = min preset.Probe total
          Clean = share right total
          Results = [ for attack, outcomes, _ in found -> summary preset subject clean attack outcomes ]
          Masking =
            { ZeroPixels = 100.0 * zeroPixels / float total
              ZeroImages = 100.0 * float zeroImages / float total
              Flags =
                [ if isZeroOften then
                      $"the gradient is zero everywhere on {zeroImages} of {total} images"
                  yield! misled
                  // Where steps along the gradient go astray, it is the network that keeps attacks from their aim.
                  if not misled.IsEmpty then
                      yield! shortOnes ] }
          Faults =
            [ for _, _, faults in found do
                  yield! faults
              if misled.IsEmpty then
                  yield! shortOnes ]
          Unchecked =
            [ if targets = 0 then
                  "moves: no image is classified rightly and has a gradient"
              if min right preset.Probe < fewest then
                  $"steps: {min right preset.Probe} images of the probe are classified rightly, and {fewest} are needed"
              if fooled < fewest then
                  $"reach: FGSM fools {fooled} images that are classified rightly and have a gradient, and {fewest} are needed"
              if total - right < fewest then
                  $"help: {total - right} images are classified wrongly, and {fewest} are needed" ] }

    /// Runs the preset's attacks on all images of the subject, batch by batch, and checks them. All randomness is the key's; `report` is
    /// told how far it is, in a line. RunFailed where a check finds that an attack is broken, so that the numbers mean nothing.
    let run (preset: AttackPreset) (key: Key) (report: string -> unit) (subject: AttackSubject) : AttackReport =
        let found = measureBy Attacks.perturb preset key report subject

        if not found.Faults.IsEmpty then
            let faults = String.concat "; " found.Faults
            raise (RunFailed $"attacks: {faults}.")

        found

    /// The report as a table: its header and rows.
    let table (report: AttackReport) : string list * string list list =
        let distance =
            Option.map (fun (d: float) -> d.ToString("0.0000", CultureInfo.InvariantCulture))
            >> Option.defaultValue "-"

        [ "attack"
          "eps"
          "normalised"
          "error %"
          "95 %"
          "fooled %"
          "median distance" ],
        let text (value: float) =
            value.ToString("0.000", CultureInfo.InvariantCulture)

        let normalised (robust: RobustAccuracy) =
            match robust.Normalised with
            | [] -> "-"
            | all when List.max all - List.min all < 5e-4 -> text all.Head
            | all -> $"{text (List.min all)} .. {text (List.max all)}"

        let errors (error: float) low high =
            [ percent error; $"{percent low} .. {percent high}" ]

        let whole (result: AttackResult) =
            [ percent result.Success.Percent; distance result.MedianDistance ]

        [ for result in report.Results do
              // What an attack without an epsilon of its own did is a row of its own.
              if result.Norm = "l2" then
                  result.Attack
                  :: "any"
                  :: "-"
                  :: errors result.Error.Percent result.Error.Low result.Error.High
                  @ whole result

              for robust in result.Robust do
                  let accuracy = robust.Accuracy

                  let errors =
                      errors (100.0 - accuracy.Percent) (100.0 - accuracy.High) (100.0 - accuracy.Low)

                  if result.Norm = "linf" then
                      result.Attack :: number robust.Epsilon :: normalised robust :: errors
                      @ whole result
                  elif robust.Epsilon > 0.0 then
                      result.Attack :: number robust.Epsilon :: "-" :: errors @ [ "-"; "-" ] ]
