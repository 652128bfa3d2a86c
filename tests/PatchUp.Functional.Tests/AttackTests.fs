/// Attacks: against Foolbox's numbers, against plain implementations, by laws, and on broken variants.
module PatchUp.Tests.AttackTests

open System
open System.IO
open System.Text.Json
open System.Text.Json.Nodes
open Expecto
open FsCheck
open FsCheck.FSharp
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Tests.AttackReference
open PatchUp.Tests.Fixtures
open PatchUp.Tests.ReproTests
open TorchSharp

type private T = torch.Tensor

// ---- networks and images ----

let private side = 3L
let private channels = 2L
let private pixels = channels * side * side

let private normals (key: Key) (size: int64 list) : T =
    let bits = Key.stream key
    let count = int (List.reduce (*) size)
    torch.tensor (Array.init count (fun _ -> bits.Normal()), ReadOnlySpan(Array.ofList size))

/// A network in float64 on images `[N,2,3,3]`; its parameters want gradients.
type private Network = { Parameters: T list; Logits: T -> T }

let private linear classes key : Network =
    let weight = (normals (Key.child 0 key) [ classes; pixels ]).requires_grad_ true
    let bias = (normals (Key.child 1 key) [ classes ]).requires_grad_ true

    { Parameters = [ weight; bias ]
      Logits = fun x -> torch.nn.functional.linear (x.flatten 1L - Scope.number 0.5, weight, bias * Scope.number 0.1) }

let private layered classes key : Network =
    let hidden = 10L
    let first = (normals (Key.child 0 key) [ hidden; pixels ]).requires_grad_ true
    let second = (normals (Key.child 1 key) [ classes; hidden ]).requires_grad_ true
    let none = torch.zeros (hidden, dtype = torch.float64)
    let noneAfter = torch.zeros (classes, dtype = torch.float64)

    { Parameters = [ first; second ]
      Logits =
        fun x ->
            let h = torch.nn.functional.linear (x.flatten 1L - Scope.number 0.5, first, none)
            torch.nn.functional.linear (h.tanh (), second, noneAfter) }

/// Images `[N,2,3,3]`, of whose pixels some are 0 or 1.
let private images count key : T =
    let bits = Key.stream key

    let pixel _ =
        max 0.0 (min 1.0 (1.2 * bits.Float() - 0.1))

    torch.tensor (Array.init (count * int pixels) pixel, ReadOnlySpan [| int64 count; channels; side; side |])

/// What the network says of the images, and for one in four something else.
let private labels (network: Network) (images: T) key : T =
    let bits = Key.stream key

    Scope.run (fun () ->
        use _ = torch.no_grad ()
        let logits = network.Logits images
        let classes = int logits.shape[1]

        logits.argmax(1L).data<int64>().ToArray()
        |> Array.map (fun found ->
            if bits.Float() < 0.25 then
                (found + 1L + int64 (bits.Below(classes - 1))) % int64 classes
            else
                found)
        |> torch.tensor)

let private values (tensor: T) : float[] =
    tensor.detach().``to``(torch.float64).contiguous().data<float>().ToArray()

// ---- cases ----

/// An attack on some images.
type private Case =
    { Attack: Attack
      Seed: int
      Count: int }

let private epsilons = Gen.elements [ 0.0; 0.01; 8.0 / 255.0; 0.1; 0.3; 1.0 ]

let private pgds =
    gen {
        let! epsilon = epsilons
        let! steps = Gen.choose (1, 6)
        let! step = Gen.elements [ 0.1; 0.4; 1.0 ]
        let! isRandom = Gen.elements [ true; false ]
        let! restarts = Gen.choose (1, 2)

        return
            Pgd
                { Epsilon = epsilon
                  RelativeStep = step
                  Steps = steps
                  RandomStart = isRandom
                  Restarts = restarts }
    }

let private anyAttack =
    Gen.oneof
        [ Gen.map Fgsm epsilons
          pgds
          gen {
              let! epsilon = epsilons
              let! draws = Gen.choose (1, 3)
              return RandomSigns { Epsilon = epsilon; Draws = draws }
          }
          gen {
              let! steps = Gen.choose (1, 5)
              let! candidates = Gen.choose (2, 5)

              return
                  DeepFool
                      { Steps = steps
                        Candidates = candidates
                        Overshoot = 0.02 }
          }
          gen {
              let! steps = Gen.choose (1, 8)
              let! radius = Gen.elements [ 0.1; 1.0; 10.0 ]

              return
                  Ddn
                      { Steps = steps
                        InitialEpsilon = radius
                        Gamma = 0.05 }
          }
          gen {
              let! searches = Gen.choose (1, 3)
              let! steps = Gen.choose (1, 12)
              let! first = Gen.elements [ 0.001; 1.0 ]

              return
                  CarliniWagner
                      { SearchSteps = searches
                        Steps = steps
                        StepSize = 0.05
                        Confidence = 0.0
                        InitialConst = first
                        AbortEarly = false }
          } ]

let private casesOf attacks : Arbitrary<Case> =
    gen {
        let! attack = attacks
        let! seed = Gen.choose (0, 1000000)
        let! count = Gen.choose (1, 5)

        return
            { Attack = attack
              Seed = seed
              Count = count }
    }
    |> Arb.fromGen

/// A case's network, images and labels, and what `judge` says of them; all is freed.
let private on (make: int64 -> Key -> Network) (case: Case) (judge: Network -> T -> T -> Key -> Verdict) : Verdict =
    Scope.value (fun () ->
        let key = Key.ofSeed case.Seed
        let network = make 4L (Key.child 0 key)
        let x = images case.Count (Key.child 1 key)
        judge network x (labels network x (Key.child 2 key)) (Key.child 3 key))

// ---- checks ----

/// What rejects a broken attack: the reason, or None where the attack is sound.
[<NoEquality; NoComparison>]
type private Check =
    { Name: string
      Says: string
      Find: Attacker -> string option }

/// A law over generated cases.
let private law name says trials cases (judge: Attacker -> Case -> Verdict) : Check =
    { Name = name
      Says = says
      Find =
        fun attacker ->
            match outcome name trials (Law.forAll cases (judge attacker)) with
            | Outcome.Passed _ -> None
            | Outcome.Failed counterexample when counterexample.Raised ->
                failtest $"{name} raised: {counterexample.Reason}"
            | Outcome.Failed counterexample -> Some(string counterexample) }

let private inBall =
    law
        "attacks stay where they may be"
        "pixels lie in [0,1]; no pixel is moved by more than epsilon; what is moved back to an L2 distance is there"
        60
        (casesOf anyAttack)
        (fun attacker case ->
            on layered case (fun network x y key ->
                let found = (attacker case.Attack key 0 network.Logits x y).Images
                let pixels = values found
                let norm = Attacks.norm case.Attack

                Verdict.all
                    [ Verdict.require
                          (pixels |> Array.forall (fun value -> value >= -1e-9 && value <= 1.0 + 1e-9))
                          (fun () -> $"a pixel is {Array.min pixels} or {Array.max pixels}")

                      match Attacks.epsilon case.Attack with
                      | Some epsilon ->
                          let distance = Attacks.distances norm x found |> Array.max
                          Verdict.require (distance <= epsilon + 1e-9) (fun () -> $"moved by {distance}")
                      | None ->
                          for epsilon in [ 0.0; 0.05; 0.5 ] do
                              let distance =
                                  Attacks.within epsilon x found |> Attacks.distances norm x |> Array.max

                              Verdict.require (distance <= epsilon + 1e-9) (fun () -> $"{distance} at {epsilon}") ]))

let private zero =
    law
        "eps 0 gives the image"
        "an attack whose ball has no size returns the images, bit for bit"
        20
        (casesOf (
            Gen.oneof
                [ Gen.constant (Fgsm 0.0)
                  Gen.constant (RandomSigns { Epsilon = 0.0; Draws = 2 })
                  pgds
                  |> Gen.map (function
                      | Pgd s -> Pgd { s with Epsilon = 0.0 }
                      | other -> other) ]
        ))
        (fun attacker case ->
            on layered case (fun network x y key ->
                let found = (attacker case.Attack key 0 network.Logits x y).Images
                Verdict.equal "pixels" (values x) (values found)))

let private alongTheGradient =
    law
        "FGSM follows the gradient's sign"
        "on a linear network every pixel moves by epsilon along the sign of the loss's derivative as computed by hand, and PGD ends in \
         a corner of the ball between two classes"
        30
        (casesOf (Gen.map Fgsm epsilons))
        (fun attacker case ->
            let epsilon = (Attacks.epsilon case.Attack).Value

            let moved (x: T) (direction: float[]) =
                Array.map2 (fun x d -> max 0.0 (min 1.0 (x + epsilon * float (sign d)))) (values x) direction

            let derivative (network: Network) (x: T) (y: T) =
                let weight = network.Parameters.Head.detach ()

                let away =
                    (network.Logits x).detach().softmax 1L
                    - torch.nn.functional.one_hot (y, weight.shape[0])

                values (away.mm weight)

            Verdict.all
                [ on (fun _ -> linear 4L) case (fun network x y key ->
                      let found = (attacker case.Attack key 0 network.Logits x y).Images
                      Verdict.near "FGSM" 0.0 1e-9 (moved x (derivative network x y)) (values found))

                  on (fun _ -> linear 2L) case (fun network x y key ->
                      let pgd =
                          Pgd
                              { Epsilon = epsilon
                                RelativeStep = 0.6
                                Steps = 4
                                RandomStart = true
                                Restarts = 1 }

                      let found = (attacker pgd key 0 network.Logits x y).Images
                      Verdict.near "PGD" 0.0 1e-9 (moved x (derivative network x y)) (values found)) ])

let private batches =
    law
        "batches do not matter"
        "images attacked in two batches become what they become in one, to rounding; so does what was seen on the way"
        60
        (casesOf anyAttack)
        (fun attacker case ->
            on layered { case with Count = case.Count + 1 } (fun network x y key ->
                let whole = attacker case.Attack key 7 network.Logits x y
                let cut = int64 (1 + case.Seed % case.Count)

                let part first count =
                    attacker
                        case.Attack
                        key
                        (7 + int first)
                        network.Logits
                        (x.narrow (0L, first, count))
                        (y.narrow (0L, first, count))

                let first, second = part 0L cut, part cut (x.shape[0] - cut)

                let consts =
                    List.map2 Array.append first.Trace.Consts second.Trace.Consts |> Array.concat

                Verdict.all
                    [ Verdict.near
                          "pixels"
                          0.0
                          1e-7
                          (values whole.Images)
                          (Array.append (values first.Images) (values second.Images))
                      Verdict.equal "consts" (Array.concat whole.Trace.Consts) consts ]))

let private random =
    Gen.oneof [ pgds; Gen.constant (RandomSigns { Epsilon = 0.2; Draws = 1 }) ]

let private keyed =
    law
        "randomness is the key's"
        "one key gives the same bits twice, another gives other random starts"
        30
        (casesOf random)
        (fun attacker case ->
            let attack =
                match case.Attack with
                | Pgd s ->
                    Pgd
                        { s with
                            Epsilon = 0.2
                            RelativeStep = 0.01
                            RandomStart = true }
                | other -> other

            on layered case (fun network x y key ->
                let found key =
                    values (attacker attack key 0 network.Logits x y).Images

                Verdict.all
                    [ Verdict.equal "the same key" (found key) (found key)
                      Verdict.require (found key <> found (Key.child 1 key)) (fun () ->
                          "another key gives the same images") ]))

let private untouched =
    law
        "nothing else is touched"
        "images, labels, parameters and the parameters' gradients stay as they are"
        40
        (casesOf anyAttack)
        (fun attacker case ->
            on layered case (fun network x y key ->
                let state () =
                    values x :: values y :: List.map values network.Parameters

                let before = state ()
                attacker case.Attack key 0 network.Logits x y |> ignore

                Verdict.all
                    [ Verdict.equal "images, labels and parameters" before (state ())
                      Verdict.require
                          (network.Parameters |> List.forall (fun p -> isNull p.grad && p.requires_grad))
                          (fun () -> "a parameter has a gradient")
                      Verdict.require (not x.requires_grad) (fun () -> "the images want gradients") ]))

let private freed =
    law
        "only the result lives on"
        "an attack leaves one live tensor, its result, which wants no gradient"
        40
        (casesOf anyAttack)
        (fun attacker case ->
            on layered case (fun network x y key ->
                let logits images =
                    Scope.run (fun () -> network.Logits images)

                let live () =
                    DisposeScopeManager.Statistics.ThreadTotalLiveCount

                let before = live ()
                let found = (attacker case.Attack key 0 logits x y).Images

                Verdict.all
                    [ Verdict.equal "live tensors" (before + 1L) (live ())
                      Verdict.require (not found.requires_grad) (fun () -> "the result wants a gradient") ]))

/// Of each image, how far the nearest other class of a linear network is in L2 where pixels may take any value.
let private boundary (network: Network) (x: T) (y: T) : float[] =
    let weight = network.Parameters.Head.detach ()
    let logits = (network.Logits x).detach()

    [| for i in 0L .. x.shape[0] - 1L ->
           let own = int (y.select(0L, i).item<int64>())
           let z = values (logits.select (0L, i))

           if Array.IndexOf(z, Array.max z) <> own then
               0.0
           else
               [ for k in 0 .. z.Length - 1 do
                     if k <> own then
                         let gap = weight.select (0L, int64 k) - weight.select (0L, int64 own)
                         (z[own] - z[k]) / gap.square().sum().sqrt().item<float>() ]
               |> List.min |]

let private nearest =
    law
        "no boundary is nearer than the nearest"
        "on a linear network what fools it lies no nearer than the boundary; DeepFool overshoots that by its share, long runs of DDN and \
         Carlini-Wagner come close to it; what is classified wrongly stays"
        10
        (casesOf (
            Gen.elements
                [ DeepFool
                      { Steps = 3
                        Candidates = 4
                        Overshoot = 0.02 }
                  Ddn
                      { Steps = 100
                        InitialEpsilon = 0.3
                        Gamma = 0.05 }
                  CarliniWagner
                      { SearchSteps = 7
                        Steps = 60
                        StepSize = 0.02
                        Confidence = 0.0
                        InitialConst = 0.1
                        AbortEarly = false } ]
        ))
        (fun attacker case ->
            on (fun _ -> linear 4L) { case with Count = 3 } (fun network _ _ key ->
                // Far from black and white, so that no pixel meets its bounds.
                let x = images 3 (Key.child 4 key) * Scope.number 0.2 + Scope.number 0.4
                let y = labels network x (Key.child 5 key)
                let found = (attacker case.Attack key 0 network.Logits x y).Images
                let distances = Attacks.distances Norm.L2 x found

                let isFooled =
                    Array.map2 (<>) (Attacks.predictions network.Logits found) (values y |> Array.map int)

                let bounds = boundary network x y
                let inReach = bounds |> Array.map (fun bound -> bound < 0.3)

                Verdict.all
                    [ for i in 0..2 do
                          Verdict.require (not isFooled[i] || distances[i] >= bounds[i] - 1e-6) (fun () ->
                              $"fooled at {distances[i]}, the boundary is at {bounds[i]}")

                          if bounds[i] = 0.0 then
                              Verdict.require (distances[i] < 1e-5) (fun () -> $"a wrong one moved by {distances[i]}")

                          if inReach[i] then
                              let most = bounds[i] * 1.1 + 0.01

                              Verdict.require (isFooled[i] && distances[i] <= most) (fun () ->
                                  $"moved by {distances[i]}, the boundary is at {bounds[i]}") ]))

let private laws =
    [ inBall; zero; alongTheGradient; batches; keyed; untouched; freed; nearest ]

// ---- golden ----

let private golden = lazy (embedded "golden/attacks.json")

/// The golden file with only the attacks of these names, and of these those at the places.
let private goldenOf (names: string list) (places: int list) =
    lazy
        (let json = JsonNode.Parse(golden.Value).AsObject()

         let kept =
             json["attacks"].AsArray()
             |> Seq.filter (fun attack -> List.contains (attack["attack"].GetValue<string>()) names)
             |> Seq.indexed
             |> Seq.filter (fun (i, _) -> List.contains i places)
             |> Seq.map (fun (_, attack) -> attack.DeepClone())
             |> Array.ofSeq

         json["attacks"] <- JsonArray kept
         JsonDocument.Parse(json.ToJsonString()).RootElement)

let private against names places : Check =
    let root = goldenOf names places

    { Name = "Foolbox's numbers"
      Says = "every number of the golden file is found again"
      Find =
        fun attacker ->
            let found = GoldenAttacks.verify attacker "attacks.json" root.Value

            if found.Disagreements.IsEmpty then
                None
            else
                Some(Verify.show found) }

let private goldenSigns = against [ "fgsm"; "pgd_linf" ] [ 0..4 ]
let private goldenDeepFool = against [ "deepfool_l2" ] [ 0..2 ]
let private goldenDdn = against [ "ddn_l2" ] [ 0..1 ]

/// The record of the fewest steps, and the shorter one of those that are aborted early.
let private goldenCarliniWagner = against [ "cw_l2" ] [ 1 ]

let private goldenAborted = against [ "cw_l2" ] [ 2 ]

// ---- the suite ----

/// A network with images and labels, which lives as long as the scope.
let private subject count (network: Network) : AttackSubject =
    let x = images count (Key.ofSeed 21)
    let y = labels network x (Key.ofSeed 22)

    { Logits = network.Logits
      Images = fun indices -> x.index_select (0L, torch.tensor (Array.map int64 indices))
      Labels = values y |> Array.map int
      Std = [ 0.25; 0.5 ] }

let private pgdSettings: PgdSettings =
    { Epsilon = 0.05
      RelativeStep = 0.2
      Steps = 8
      RandomStart = true
      Restarts = 1 }

let private quick: AttackPreset =
    { Name = "quick"
      FgsmNormalised = [ 0.0; 0.2 ]
      Fgsm = [ 0.05 ]
      Attacks =
        [ Pgd pgdSettings
          DeepFool
              { Steps = 4
                Candidates = 3
                Overshoot = 0.02 }
          Ddn
              { Steps = 20
                InitialEpsilon = 1.0
                Gamma = 0.05 }
          CarliniWagner
              { SearchSteps = 2
                Steps = 20
                StepSize = 0.05
                Confidence = 0.0
                InitialConst = 1.0
                AbortEarly = false } ]
      L2Epsilons = [ 0.05; 0.2 ]
      Batch = 24
      Probe = 32 }

let private measure attacker preset (subject: AttackSubject) =
    AttackSuite.measureBy attacker preset (Key.ofSeed 23) ignore subject

/// A self-check of the suite: it reports a fault with this text.
let private selfCheck name says (text: string) (attacks: Attack list) (make: unit -> Network) : Check =
    { Name = $"the suite: {name}"
      Says = says
      Find =
        fun attacker ->
            let faults =
                Scope.value (fun () ->
                    (measure attacker { quick with Attacks = attacks } (subject 100 (make ()))).Faults)

            faults |> List.tryFind (fun (fault: string) -> fault.Contains text) }

let private usual () = layered 4L (Key.ofSeed 24)

let private pgdOnly = [ Pgd pgdSettings ]
let private ddnOnly = [ quick.Attacks[2] ]

let private checkDistance =
    selfCheck "distance" "no image is moved further than epsilon" "further than" pgdOnly usual

let private checkRange =
    selfCheck "range" "pixels lie in [0,1]" "outside [0,1]" (pgdOnly @ ddnOnly) usual

let private checkZero =
    selfCheck "eps 0" "at eps 0 every image is classified as it is untouched" "at eps 0" pgdOnly usual

let private checkSteps =
    selfCheck "steps" "more steps do not help the network" "it is weaker than" (pgdOnly @ ddnOnly) usual

let private checkRestarts =
    // One short step from a random start far away: where it ends is the start's doing.
    selfCheck
        "restarts"
        "more restarts do not help the network"
        "its first run fools"
        [ Pgd
              { pgdSettings with
                  Epsilon = 1.0
                  RelativeStep = 0.01
                  Steps = 1 } ]
        usual

let private checkHelp =
    selfCheck
        "help"
        "an attack does not make wrong images right"
        "wrong images right"
        [ Pgd { pgdSettings with Epsilon = 0.3 } ]
        usual

let private checkMoves =
    selfCheck "moves" "an attack moves something" "it moves none of" quick.Attacks usual

let private checkNearest =
    selfCheck
        "reach"
        "an attack without a bound fools what a single step fools"
        "however far it may go"
        (List.skip 1 quick.Attacks)
        usual

let private selfChecks =
    [ checkDistance
      checkRange
      checkZero
      checkSteps
      checkRestarts
      checkHelp
      checkMoves
      checkNearest ]

// ---- mutants ----

[<NoEquality; NoComparison>]
type private Mutant =
    {
        /// What is broken.
        Name: string
        /// The row of the project's list of bugs that peers shipped, if it is one of them.
        Row: int option
        Broken: Attacker
        Check: Check
    }

let private slip slip check name =
    { Name = name
      Row = None
      Broken = attacker [ slip ]
      Check = check }

let private peer row slip check name =
    { Name = name
      Row = Some row
      Broken = attacker [ slip ]
      Check = check }

/// The library's attack on another one's settings.
let private other (change: Attack -> Attack) check name =
    { Name = name
      Row = None
      Broken = change >> Attacks.perturb
      Check = check }

/// An attack that gives the images back.
let private idle (name: string) check =
    { Name = $"{name}: nothing done"
      Row = None
      Broken =
        fun attack key first logits images labels ->
            if Attacks.name attack = name then
                { Images = images.clone ()
                  Trace =
                    { Fooled = []
                      Consts = []
                      AdamSteps = [] } }
            else
                Attacks.perturb attack key first logits images labels
      Check = check }

let private mutants: Mutant list =
    [ peer 26 Slip.BallFollowsTheImage checkDistance "PGD: the ball around the last step's image"
      peer 26 Slip.BallFollowsTheImage inBall "PGD: the ball around the last step's image"
      peer 26 Slip.BallFollowsTheImage goldenSigns "PGD: the ball around the last step's image"
      peer 27 Slip.EpsilonOverStd checkDistance "epsilon in normalised units: too large"
      peer 27 Slip.EpsilonTimesStd goldenSigns "epsilon in normalised units: too small"
      peer 27 Slip.EpsilonTimesStd alongTheGradient "epsilon in normalised units: too small"
      slip Slip.PixelClampMissing checkRange "FGSM and PGD: pixels not clamped"
      slip Slip.PixelClampMissing inBall "FGSM and PGD: pixels not clamped"
      slip Slip.BallMissing checkDistance "PGD: no ball"
      slip Slip.BallBeforeStep checkDistance "PGD: back into the ball before the step"
      slip Slip.SignLost alongTheGradient "FGSM and PGD: the gradient in the place of its sign"
      slip Slip.SignLost goldenSigns "FGSM and PGD: the gradient in the place of its sign"
      slip Slip.LossDescended checkHelp "FGSM and PGD: the loss descended"
      slip Slip.LossDescended alongTheGradient "FGSM and PGD: the loss descended"
      slip Slip.LabelFromPrediction alongTheGradient "FGSM and PGD: the prediction in the place of the label"
      slip Slip.LabelFromPrediction goldenSigns "FGSM and PGD: the prediction in the place of the label"
      slip Slip.StepNotRelative goldenSigns "PGD: the relative step taken as absolute"
      slip Slip.StoppedWhenFooled goldenSigns "PGD: images stay once they fool the network"
      slip Slip.RoundedToBytes zero "PGD: the result rounded to 256 levels"
      slip Slip.RoundedToBytes checkDistance "PGD: the result rounded to 256 levels"
      slip Slip.NoiseByPlace batches "PGD: random starts by the place in the batch"
      slip Slip.NoiseWithoutKey keyed "PGD: random starts that the key does not reach"
      slip Slip.LastRunKept checkRestarts "PGD: of several runs the last kept"
      slip Slip.StoppedAtPrediction goldenDeepFool "DeepFool: stopped where the prediction changes"
      slip Slip.StoppedAtPrediction nearest "DeepFool: stopped where the prediction changes"
      slip Slip.OvershootMissing goldenDeepFool "DeepFool: no overshoot"
      slip Slip.TotalForgotten goldenDeepFool "DeepFool: the last step only"
      slip Slip.OffsetMissing goldenDeepFool "DeepFool: 1e-4 left out"
      slip Slip.CandidatesIgnored goldenDeepFool "DeepFool: all classes considered"
      slip Slip.BestAfterUpdate goldenDdn "DDN: the change after its update kept"
      slip Slip.BestAfterUpdate nearest "DDN: the change after its update kept"
      slip Slip.LastKept goldenDdn "DDN: the last change kept, not the smallest"
      slip Slip.OnlyShrunk goldenDdn "DDN: changes shrunk only"
      slip Slip.RadiusReversed goldenDdn "DDN: the radius grows where the network is fooled"
      slip Slip.RadiusReversed nearest "DDN: the radius grows where the network is fooled"
      slip Slip.GradientNotUnit goldenDdn "DDN: the gradient's length kept"
      slip Slip.ChangeNotClamped checkRange "DDN: pixels not clamped"
      slip Slip.AdamEpsilonInside goldenCarliniWagner "Carlini-Wagner: Adam's epsilon inside the root"
      slip Slip.AdamKept goldenCarliniWagner "Carlini-Wagner: Adam's means kept between search steps"
      slip Slip.AdamNotCorrected goldenCarliniWagner "Carlini-Wagner: Adam's means not corrected"
      slip Slip.BestPerSearchStep goldenAborted "Carlini-Wagner: the best of the last search step only"
      slip Slip.AbortPerImage goldenAborted "Carlini-Wagner: aborted image by image"
      slip Slip.LabelAmongOthers goldenCarliniWagner "Carlini-Wagner: the label among the other classes"
      slip Slip.BoundsSwapped goldenCarliniWagner "Carlini-Wagner: the bounds of the search swapped"
      slip Slip.BoundsSwapped nearest "Carlini-Wagner: the bounds of the search swapped"
      slip Slip.ConstNotGrown goldenCarliniWagner "Carlini-Wagner: the const doubled, not times ten"
      slip Slip.KeptAfterUpdate goldenCarliniWagner "Carlini-Wagner: the image after the update kept"
      slip Slip.ImagesOverwritten untouched "the images overwritten"
      slip Slip.GradientsAccumulated untouched "gradients added to the parameters'"
      slip Slip.TensorLeaked freed "a tensor leaked"
      { Name = "the images returned in another order"
        Row = None
        Broken =
          fun attack key first logits images labels ->
              let found = Attacks.perturb attack key first logits images labels

              { found with
                  Images = Scope.run (fun () -> found.Images.flip 0L) }
        Check = checkZero }
      other
          (function
          | Pgd s -> Pgd { s with Steps = max 1 (9 - s.Steps) }
          | attack -> attack)
          checkSteps
          "PGD: fewer steps where more are asked for"
      other
          (function
          | Ddn s -> Ddn { s with Steps = max 1 (25 - s.Steps) }
          | attack -> attack)
          checkSteps
          "DDN: fewer steps where more are asked for"
      idle "fgsm" checkMoves
      idle "pgd" checkMoves
      idle "random-signs" checkMoves
      idle "deepfool" checkMoves
      idle "ddn" checkNearest
      idle "carlini-wagner" checkNearest
      { Name = "Carlini-Wagner: nothing found"
        Row = None
        Broken =
          fun attack key first logits images labels ->
              let found = Attacks.perturb attack key first logits images labels

              if attack.IsCarliniWagner then
                  { found with
                      Images = images.zeros_like () }
              else
                  found
        Check = checkNearest } ]

/// A sound attack on a network that answers otherwise each time.
let private restless () : Network =
    let network = usual ()
    let calls = ref 0

    { network with
        Logits =
            fun x ->
                calls.Value <- calls.Value + 1
                let z = network.Logits x
                z + normals (Key.child calls.Value (Key.ofSeed 25)) [ z.shape[0]; z.shape[1] ] }

let private title (mutant: Mutant) = $"{mutant.Name} ({mutant.Check.Name})"

/// The table of mutants in docs/attacks.md.
let mutantTable () : string =
    let cell (text: string) = text.Replace("|", @"\|")

    [ "| mutant | bug of a peer, row | rejected by |"
      "|---|---|---|"
      for name, same in mutants |> List.groupBy _.Name do
          let row = same.Head.Row |> Option.map string |> Option.defaultValue ""
          let checks = same |> List.map _.Check.Name |> String.concat "; "
          $"| {cell name} | {row} | {cell checks} |" ]
    |> String.concat "\n"

/// The table of checks in docs/attacks.md.
let checkTable () : string =
    [ "| check | what it says |"
      "|---|---|"
      for check in laws @ selfChecks @ [ goldenSigns ] do
          $"| {check.Name} | {check.Says} |" ]
    |> String.concat "\n"

// ---- tests ----

let private keeps (check: Check) (attacker: Attacker) =
    match check.Find attacker with
    | None -> ()
    | Some reason -> failtest reason

let private lawTests =
    [ for law in laws do
          test law.Name { keeps law Attacks.perturb }

      for name, check in
          [ "FGSM and PGD", goldenSigns
            "DeepFool", goldenDeepFool
            "DDN", goldenDdn
            "Carlini-Wagner", against [ "cw_l2" ] [ 1; 2 ] ] do
          test $"the plain {name} has Foolbox's numbers too" { keeps check (attacker []) }

      for check in selfChecks do
          test $"{check.Name}: the plain attacks pass" { keeps check (attacker []) } ]

let private mutantTests =
    [ for mutant in mutants do
          test (title mutant) {
              if mutant.Check.Find mutant.Broken |> Option.isNone then
                  failtest "the mutant survived."
          }

      test "every law and self-check kills a mutant" {
          let killers = mutants |> List.map _.Check.Name |> Set

          let idle =
              laws @ selfChecks |> List.map _.Name |> List.filter (killers.Contains >> not)

          Expect.isEmpty idle "checks without a mutant"
      }

      test "mutants have different names" {
          let names = mutants |> List.map title
          Expect.equal (List.distinct names) names "different names"
      }

      test "the bugs of peers that concern attacks are mutants" {
          Expect.equal (mutants |> List.choose _.Row |> Set) (Set [ 26; 27 ]) "the rows"
      }

      test "summary" {
          let dead = mutants |> List.distinctBy _.Name
          printfn $"{dead.Length} broken attacks, {mutants.Length} verdicts"
      } ]

// ---- verify ----

/// The golden file with a change, verified by the program.
let private verifying (change: JsonObject -> unit) : int * string * string =
    inFolder (fun folder ->
        let path = Path.Combine(folder, "golden.json")
        let json = JsonNode.Parse(golden.Value).AsObject()
        change json
        File.WriteAllText(path, json.ToJsonString())
        patchup [ "verify"; path ])

/// The node at a path such as `attacks/5/trace`.
let private at (path: string) (json: JsonObject) : JsonNode =
    path.Split '/'
    |> Array.fold
        (fun (node: JsonNode) (part: string) ->
            match Int32.TryParse part with
            | true, i -> node[i]
            | _ -> node[part])
        (json :> JsonNode)

/// The node replaced by another one.
let private replace (path: string) (value: JsonNode) (json: JsonObject) =
    let parent, last =
        match path.LastIndexOf '/' with
        | -1 -> json :> JsonNode, path
        | i -> at path[.. i - 1] json, path[i + 1 ..]

    match Int32.TryParse last with
    | true, i -> parent[i] <- value
    | _ -> parent[last] <- value

/// The number or flag at the path changed.
let private move (path: string) (json: JsonObject) =
    let node = at path json

    let value: JsonNode =
        match node.GetValueKind() with
        | JsonValueKind.True -> JsonValue.Create false
        | JsonValueKind.False -> JsonValue.Create true
        | _ -> JsonValue.Create(node.GetValue<float>() + 1.0)

    replace path value json

/// Only these attacks, by their place in the file.
let private only (kept: int list) (json: JsonObject) =
    let attacks = at "attacks" json
    json["attacks"] <- JsonArray [| for i in kept -> attacks[i].DeepClone() |]

let private verify =
    [ test "Foolbox's attacks agree, all of them" {
          let code, out, err = verifying ignore
          Expect.equal code 0 err
          Expect.stringStarts out "14 of 14 agree; the largest deviation is " "the verdict"
      }

      // Fields of the network, and of the first record of each kind that has them.
      for record, kind, path, field in
          [ -1, "network", "logits/data/3", "logits"
            -1, "network", "cross_entropy/0", "cross_entropy"
            -1, "network", "cross_entropy_gradient/data/9", "cross_entropy_gradient"
            -1, "network", "predictions/1", "predictions"
            -1, "network", "clean_accuracy", "clean_accuracy"
            1, "fgsm", "adversarial/data/0", "adversarial"
            1, "fgsm", "distance/7", "distance"
            1, "fgsm", "predictions/0", "predictions"
            1, "fgsm", "success/0", "success"
            1, "fgsm", "robust_accuracy", "robust_accuracy"
            3, "pgd_linf", "adversarial/data/5", "adversarial"
            5, "deepfool_l2", "success/0", "success"
            5, "deepfool_l2", "at_epsilon/1/success/2", "at_epsilon[1].success"
            5, "deepfool_l2", "at_epsilon/0/robust_accuracy", "at_epsilon[0].robust_accuracy"
            5, "deepfool_l2", "trace/is_adversarial_at_step/1/4", "trace.is_adversarial_at_step[1]"
            8, "ddn_l2", "trace/is_adversarial_at_step/0/0", "trace.is_adversarial_at_step[0]"
            12, "cw_l2", "trace/consts/1/2", "trace.consts[1]"
            12, "cw_l2", "trace/adam_steps/0", "trace.adam_steps[0]" ] do
          test $"another {path} of {kind} is named, and exits with 1" {
              let code, out, err =
                  verifying (fun json ->
                      only [ max 0 record ] json
                      move (if record < 0 then path else $"attacks/0/{path}") json)

              Expect.equal code 1 err
              Expect.stringStarts out $"case {min 1 (record + 1)} ({kind}): {field} is " "the disagreement"
              Expect.stringContains out "1 of 2 agree" "the verdict"
          }

      test "a trace of another length is a disagreement" {
          let _, out, _ =
              verifying (fun json ->
                  only [ 12 ] json
                  (at "attacks/0/trace/adam_steps" json).AsArray().RemoveAt 0)

          Expect.stringStarts out "case 1 (cw_l2): trace.adam_steps.length is 3 at index 0 where 2" "the disagreement"
      }

      test "what cannot be read is named with its file and case, and exits with 2" {
          let text (value: string) : JsonNode = JsonValue.Create value
          let number (value: float) : JsonNode = JsonValue.Create value
          let flag (value: bool) : JsonNode = JsonValue.Create value

          for change, texts in
              [ replace "attacks/0/attack" (text "polka"), [ "case 1"; "'polka' is unknown"; "fgsm, pgd_linf" ]
                replace "model/layers/2/kind" (text "polka"), [ "case 0"; "'polka' is unknown"; "conv2d" ]
                replace "model/bounds/1" (number 255.0), [ "'bounds'" ]
                replace "labels/0" (number 7.0), [ "'labels'"; "0 .. 4" ]
                replace "model/layers/1/stride" (number 2.0), [ "do not go through the layers" ]
                replace "model/layers" (number 2.0), [ "'layers' must be a list" ]
                replace "attacks" (number 1.0), [ "'attacks' must be a list" ]
                replace "attacks/3/parameters/random_start" (flag true), [ "case 4"; "random_start" ]
                replace "attacks/3/parameters/steps" (number 0.0), [ "case 4"; "the number of steps is 0" ]
                replace "attacks/1/parameters" (number 0.0), [ "case 2"; "'parameters' must be an object" ]
                replace "attacks/1/success/0" (number 0.0), [ "case 2"; "'success' must be true or false" ]
                replace "attacks/1/parameters/epsilon" (number -1.0), [ "case 2"; "epsilon is -1" ]
                (fun json -> (at "attacks/1/distance" json).AsArray().RemoveAt 0),
                [ "case 2"; "'distance' has 7 numbers" ]
                (fun json -> json.Remove "logits" |> ignore), [ "case 0"; "'logits' is missing" ] ] do
              let code, out, err =
                  verifying (fun json ->
                      only [ 0..3 ] json
                      change json)

              Expect.equal code 2 err
              Expect.equal out "" "nothing on standard output"

              for text in "golden.json" :: texts do
                  Expect.stringContains err text "the error"
      } ]

// ---- the suite's tests ----

let private suite =
    [ test "a sound attack on a sound network has no faults, and its numbers go together" {
          Scope.value (fun () ->
              let report = measure Attacks.perturb quick (subject 60 (usual ()))
              Expect.isEmpty report.Faults "faults"
              Expect.isEmpty report.Masking.Flags "flags"

              let epsilons name =
                  [ for result in report.Results do
                        if result.Attack = name then
                            for robust in result.Robust -> robust.Epsilon ]

              // 0.2 in normalised units is 0.2 times the mean of 0.25 and 0.5.
              Expect.equal (epsilons "fgsm") [ 0.0; 0.05; 0.2 * 0.375 ] "FGSM's epsilons"
              Expect.equal (epsilons "pgd") [ 0.05 ] "PGD's"
              Expect.equal (epsilons "ddn") [ 0.0; 0.05; 0.2 ] "DDN's"

              for result in report.Results do
                  Expect.equal result.Error.Of 60 "all images"
                  Expect.equal result.Success.Of report.Clean.Count "those that were right"

                  for robust in result.Robust do
                      Expect.isLessThanOrEqual robust.Accuracy.Count report.Clean.Count "no attack helps"

                  match result.Norm with
                  | "linf" ->
                      let robust = result.Robust.Head
                      Expect.equal robust.Normalised [ robust.Epsilon / 0.25; robust.Epsilon / 0.5 ] "normalised"
                      Expect.isLessThanOrEqual result.LargestDistance (robust.Epsilon + 1e-6) "the ball"
                      Expect.equal robust.Accuracy.Count (60 - result.Error.Count) "accuracy and error"
                  | norm ->
                      Expect.equal norm "l2" "the norm"
                      let counts = [ for robust in result.Robust -> robust.Accuracy.Count ]
                      Expect.equal counts.Head report.Clean.Count "at 0"
                      Expect.equal counts (List.sortDescending counts) "falling with epsilon"
                      Expect.isSome result.MedianDistance "a distance")
      }

      test "a run repeats itself, and batches do not matter" {
          Scope.value (fun () ->
              let subject = subject 40 (usual ())
              let report = measure Attacks.perturb quick subject
              Expect.equal (measure Attacks.perturb quick subject) report "a second run"

              let counts (report: AttackReport) =
                  [ for result in report.Results ->
                        result.Attack, result.Error.Count, [ for robust in result.Robust -> robust.Accuracy.Count ] ]

              let other = measure Attacks.perturb { quick with Batch = 7 } subject
              Expect.equal (counts other) (counts report) "other batches")
      }

      test "the report survives JSON" {
          Scope.value (fun () ->
              let report = measure Attacks.perturb quick (subject 20 (usual ()))
              Expect.equal (Json.tryRead<AttackReport>(Json.show report)) (Some report) "the same back")
      }

      test "the table has a line for each attack and epsilon" {
          Scope.value (fun () ->
              let report = measure Attacks.perturb quick (subject 20 (usual ()))
              let header, rows = AttackSuite.table report

              for row in rows do
                  Expect.hasLength row header.Length "cells"

              Expect.equal
                  (rows |> List.map List.head |> List.countBy id)
                  [ "fgsm", 3
                    "pgd", 1
                    "deepfool", 3
                    "ddn", 3
                    "carlini-wagner", 3
                    "random-signs", 1 ]
                  "lines")
      }

      test "a run leaves no tensor and says how far it is" {
          Scope.value (fun () ->
              let network = usual ()
              let subject = subject 30 network

              let subject =
                  { subject with
                      Logits = fun x -> Scope.run (fun () -> network.Logits x) }

              let said = ResizeArray()

              let live () =
                  DisposeScopeManager.Statistics.ThreadTotalLiveCount

              let before = live ()

              AttackSuite.measureBy Attacks.perturb quick (Key.ofSeed 1) said.Add subject
              |> ignore

              Expect.equal (live ()) before "live tensors"
              Expect.contains said "pgd, eps 0.05, 8 steps of 0.2 eps, random start, 1 run: image 25 of 30" "a line")
      }

      test "a network that does not repeat itself fails the run" {
          Scope.value (fun () ->
              let message =
                  try
                      AttackSuite.run { quick with Attacks = pgdOnly } (Key.ofSeed 1) ignore (subject 60 (restless ()))
                      |> ignore

                      ""
                  with RunFailed message ->
                      message

              Expect.stringStarts message "attacks: " "the message"
              Expect.stringContains message "at eps 0" "the check"
              Expect.stringContains message "images are classified otherwise than untouched" "the reason")
      }

      test "gradients of zero are flagged, and what random changes beat" {
          Scope.value (fun () ->
              let network = usual ()

              // Pixels are rounded to few levels: no gradient passes, and small changes change much.
              let stepped =
                  { network with
                      Logits = fun x -> network.Logits((x * Scope.number 6.0).round() / Scope.number 6.0) }

              let report =
                  measure Attacks.perturb { quick with Attacks = pgdOnly } (subject 80 stepped)

              Expect.equal report.Masking.ZeroImages 100.0 "all images"
              Expect.equal report.Masking.ZeroPixels 100.0 "all pixels"
              Expect.isEmpty report.Faults "a masked network is no broken attack"

              Expect.stringStarts
                  report.Masking.Flags.Head
                  "the gradient is zero everywhere on 80 of 80 images"
                  "the first flag"

              Expect.exists
                  report.Masking.Flags
                  (fun flag -> flag.StartsWith "pgd is weaker than random-signs at eps 0.05")
                  "the second")
      }

      test "the probe is spread over the images, of those that are classified rightly" {
          Scope.value (fun () ->
              // Sorted by class, as test sets often are: every third image is classified wrongly.
              let network = usual ()
              let seen = ResizeArray<int[]>()
              let x = images 90 (Key.ofSeed 21)
              let found = Attacks.predictions network.Logits x
              let sound = subject 90 network

              let sorted =
                  { sound with
                      Labels =
                          found
                          |> Array.mapi (fun i label -> if i % 3 = 0 then (label + 1) % 2 else label)
                      Images =
                          fun indices ->
                              seen.Add indices
                              sound.Images indices }

              let report =
                  measure
                      Attacks.perturb
                      { quick with
                          Attacks = ddnOnly
                          Probe = 10 }
                      sorted

              Expect.isEmpty report.Unchecked "all checks could fire"

              let probe = seen |> Seq.filter (fun indices -> indices.Length = 10) |> Seq.last
              Expect.equal probe [| 1; 10; 19; 28; 37; 46; 55; 64; 73; 82 |] "one in six of those that are right"

              let few =
                  measure Attacks.perturb { quick with Attacks = ddnOnly } (subject 9 network)

              Expect.hasLength few.Unchecked 3 "too few for any sign test")
      }

      test "a step that helps the network is flagged, and no fault: networks learn to expect it" {
          Scope.value (fun () ->
              let descending: Attacker =
                  fun attack key first logits images labels ->
                      match attack with
                      | Fgsm epsilon when epsilon > 0.0 ->
                          attacker [ Slip.LossDescended ] (Fgsm epsilon) key first logits images labels
                      | _ -> Attacks.perturb attack key first logits images labels

              let report =
                  measure
                      descending
                      { quick with
                          Attacks = pgdOnly
                          Fgsm = [ 0.3 ] }
                      (subject 100 (usual ()))

              Expect.isEmpty report.Faults "no fault"
              Expect.exists report.Masking.Flags (fun flag -> flag.Contains "wrong images right") "a flag")
      }

      test "one image without a gradient masks nothing, and hides no broken attack" {
          Scope.value (fun () ->
              let network = usual ()

              // A black image has no gradient, and no answer but its own.
              let dark =
                  { network with
                      Logits =
                          fun x ->
                              let isLight = x.sum([| 1L; 2L; 3L |], true).gt(Scope.number 0.0)
                              network.Logits(x * isLight.``to`` (x.dtype)) }

              let sound = subject 50 dark
              let pixels = sound.Images [| 0..49 |]
              pixels[0L].zero_() |> ignore
              let labels = sound.Labels |> Array.copy
              labels[0] <- (Attacks.predictions dark.Logits pixels)[0]

              let subject =
                  { sound with
                      Images = fun indices -> pixels.index_select (0L, torch.tensor (Array.map int64 indices))
                      Labels = labels }

              let found attacker =
                  measure attacker { quick with Attacks = ddnOnly } subject

              let report = found Attacks.perturb
              Expect.equal report.Masking.ZeroImages 2.0 "one of fifty"
              Expect.isEmpty report.Masking.Flags "no flag"
              Expect.isEmpty report.Faults "no fault"

              let idle = mutants |> List.find (fun mutant -> mutant.Name = "ddn: nothing done")
              Expect.isNonEmpty (found idle.Broken).Faults "found")
      }

      test "PGD weaker than FGSM is flagged" {
          Scope.value (fun () ->
              // PGD with next to no step stands in for one that gradients mislead.
              let attacker: Attacker =
                  function
                  | Pgd s ->
                      Attacks.perturb (
                          Pgd
                              { s with
                                  RelativeStep = 1e-6
                                  RandomStart = false }
                      )
                  | attack -> Attacks.perturb attack

              let preset =
                  { quick with
                      Attacks = [ Pgd { pgdSettings with Epsilon = 0.2 } ]
                      Fgsm = [ 0.2 ] }

              let report = measure attacker preset (subject 80 (usual ()))

              Expect.exists
                  report.Masking.Flags
                  (fun flag -> flag.StartsWith "pgd is weaker than fgsm at eps 0.2")
                  "the flag")
      }

      test "Wilson's interval against published values" {
          // Newcombe 1998, table I.
          for count, total, low, high in
              [ 81, 263, 25.53, 36.62
                15, 148, 6.24, 16.05
                0, 20, 0.0, 16.11
                1, 29, 0.61, 17.18 ] do
              let share = AttackSuite.share count total
              expectNear 0.006 share.Low low $"{count} of {total}, low"
              expectNear 0.006 share.High high $"{count} of {total}, high"

          let none = AttackSuite.share 0 0
          Expect.equal (none.Low, none.High) (0.0, 100.0) "of none"
      }

      test "attacks print with all their settings" {
          let shown =
              [ for attack in AttackSuite.attacks [ 0.5 ] AttackSuite.demo -> Attacks.show attack ]

          Expect.equal
              shown
              [ "fgsm, eps 0"
                "fgsm, eps 0.025"
                "fgsm, eps 0.031373"
                "fgsm, eps 0.05"
                "fgsm, eps 0.06"
                "fgsm, eps 0.075"
                "fgsm, eps 0.09"
                "fgsm, eps 0.1"
                "pgd, eps 0.031373, 40 steps of 0.033333 eps, random start, 1 run"
                "deepfool, 7 steps, 10 candidates, overshoot 0.02"
                "ddn, 50 steps, first radius 1, gamma 0.05"
                "carlini-wagner, 3 x 100 steps of 0.01, confidence 0, first const 0.1, never aborted"
                "random-signs, eps 0.031373, 10 draws" ]
              "the demo's attacks"
      }

      test "what makes no sense is refused by name" {
          Scope.value (fun () ->
              let network = usual ()
              let x = images 2 (Key.ofSeed 1)
              let y = torch.tensor [| 0L; 1L |]

              let run attack images labels () =
                  Attacks.perturb attack (Key.ofSeed 1) 0 network.Logits images labels

              expectRefused [ "fgsm: epsilon is -1"; "0 or more" ] (run (Fgsm -1.0) x y)
              expectRefused [ "epsilon is NaN" ] (run (Fgsm nan) x y)
              expectRefused [ "runs is 0" ] (run (Pgd { pgdSettings with Restarts = 0 }) x y)

              expectRefused
                  [ "candidates is 1"; "2 or more" ]
                  (run
                      (DeepFool
                          { Steps = 1
                            Candidates = 1
                            Overshoot = 0.0 })
                      x
                      y)

              expectRefused [ "floating-point"; "[N,C,H,W]" ] (run (Fgsm 0.1) (x.flatten 1L) y)
              expectRefused [ "class indices" ] (run (Fgsm 0.1) x (torch.tensor [| 0L |]))

              let sound = subject 4 network

              let measure subject () = measure Attacks.perturb quick subject

              expectRefused
                  [ "must lie in [0,1]" ]
                  (measure
                      { sound with
                          Images = fun i -> sound.Images i * Scope.number 255.0 })

              expectRefused [ "There are no images" ] (measure { sound with Labels = [||] })
              expectRefused [ "standard deviations" ] (measure { sound with Std = [ 0.0 ] }))
      } ]

let tests =
    testList
        "attacks"
        [ testList "laws" lawTests
          testList "mutants" mutantTests
          testList "verify" verify
          testList "suite" suite ]
