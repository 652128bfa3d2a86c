namespace PatchUp.Functional.Laws

open System
open FsCheck
open FsCheck.FSharp
open TorchSharp
open PatchUp.Functional

/// Laws of networks run with a plan.
module NetworkLaws =

    let private law name trials statement check =
        { About = "network"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = trials
          Check = check }

    let private names = [ "conv1"; "layer1.0"; "stage 2"; "head" ]

    /// A small smooth network for the trial's features: three stages of maps and a head of logits.
    let private network (trial: Trial) : Staged =
        let bits = Key.stream (Key.child 4 trial.Data)
        let width = 3L

        let weights (size: int64[]) =
            torch
                .tensor(Array.init (int (Array.reduce (*) size)) (fun _ -> 0.5 * bits.Normal()), ReadOnlySpan size)
                .``to``(Trial.elementType trial)

        let convolution inputs =
            let kernel = weights [| width; inputs; 3L; 3L |]
            fun (x: torch.Tensor) -> torch.nn.functional.conv2d(x, kernel, padding = [| 1L; 1L |]).tanh()

        let head =
            let matrix = weights [| width; int64 trial.Classes |]
            fun (x: torch.Tensor) -> x.mean([| 2L; 3L |]).mm matrix

        { Module = torch.nn.Identity()
          Stages =
            List.zip
                names
                [ convolution (int64 trial.Shape.Channels)
                  convolution width
                  convolution width
                  head ] }

    /// A function as a module, whose output a hook sees.
    [<Sealed>]
    type private Layer(run: torch.Tensor -> torch.Tensor) =
        inherit torch.nn.Module<torch.Tensor, torch.Tensor>("Layer")
        override _.forward features = Scope.run (fun () -> run features)

    /// The same network as a model with a submodule for each stage.
    let private modular (staged: Staged) : Hooked =
        let rec layer (path: string list) run : struct (string * torch.nn.Module<torch.Tensor, torch.Tensor>) =
            match path with
            | [ name ] -> struct (name, new Layer(run))
            | name :: inner -> struct (name, torch.nn.Sequential(layer inner run))
            | [] -> invalidArg (nameof path) "A stage has a name."

        let layers =
            [| for name, run in staged.Stages -> layer (List.ofArray (name.Split '.')) run |]

        torch.nn.Sequential layers |> Hooks.attach (List.map fst staged.Stages)

    /// A site of the small network in the place of one that it does not have.
    let private relocated (site: Site) =
        let known place =
            match place with
            | Number k -> Number(if k > names.Length then (k - 1) % names.Length + 1 else k)
            | Name name when List.contains name names -> place
            | Name name -> Name names[name.Length % (names.Length - 1)]

        match site with
        | At place -> At(known place)
        | AnyOf places -> AnyOf(places |> List.map known |> List.distinct)
        | AllOf places -> AllOf(places |> List.map known |> List.distinct)

    /// Trials that a network can be run on.
    let private onMaps (trial: Trial) =
        { Trial.tamed
              (fun step ->
                  { step with
                      View = AsIs
                      Site = relocated step.Site })
              trial with
            Rank = 4
            Precision = Precision.Double }

    let private planFor (s: Subject) (staged: Staged) (trial: Trial) (features: torch.Tensor) =
        let info =
            { Trial.info trial with
                Shape = s.Shapes staged features }

        s.Draw trial.Key info trial.Regularizer

    let private ofTrials name trials statement (check: Subject -> Trial -> Staged -> Batch -> Verdict) =
        law
            name
            trials
            statement
            (OfRegularizer(
                Generators.regularizer,
                fun s trial ->
                    let trial = onMaps trial
                    let staged = network trial
                    use _ = staged.Module
                    check s trial staged (Trial.batch trial)
            ))

    let private plainForward (staged: Staged) (features: torch.Tensor) =
        staged.Stages |> List.fold (fun x (_, run) -> run x) features

    /// Two ways through a network with the same bits of logits, targets and the features' gradient.
    let private samePasses (batch: Batch) (expected: Batch -> Batch) (found: Batch -> Batch) =
        let withGradient (forward: Batch -> Batch) =
            let features = batch.Features.detach().clone().requires_grad_(true)
            let result = forward { batch with Features = features }

            if result.Features.requires_grad then
                result.Features.square().sum().backward()

            result,
            (if isNull features.grad then
                 [||]
             else
                 Read.bytes features.grad)

        let expected, expectedGradient = withGradient expected
        let found, gradient = withGradient found

        [ Mixing.sameBits "the logits and targets" expected found
          Verdict.equal "the gradient's bits" expectedGradient gradient ]
        |> Verdict.all

    let noPlan =
        ofTrials
            "no plan is the plain forward"
            60
            "forward (draw k i identity) x = f x, bit for bit, and the targets stay: the regularizer of evaluation"
            (fun s trial staged batch ->
                let evaluation =
                    planFor
                        s
                        staged
                        { trial with
                            Regularizer = Regularizer.identity }
                        batch.Features

                let found = s.Forward evaluation staged batch

                let expected =
                    { batch with
                        Features = plainForward staged batch.Features }

                [ Mixing.sameBits "the logits and targets" expected found
                  Verdict.require found.Targets.Mixed.IsNone (fun () -> "the targets count as mixed.") ]
                |> Verdict.all)
        |> Law.ofLibrary

    let composition =
        ofTrials
            "stages compose"
            100
            "forward = fold over the stages of mixing at the site where a stage ends, bit for bit, gradients too"
            (fun s trial staged batch ->
                let plan = planFor s staged trial batch.Features

                let visit k name (batch: Batch) =
                    let here =
                        plan.Draws
                        |> List.filter (fun drawn -> drawn.Place = Number k || (k > 0 && drawn.Place = Name name))

                    if here.IsEmpty then
                        batch
                    else
                        s.Apply { plan with Draws = here } batch

                let byHand (batch: Batch) =
                    staged.Stages
                    |> List.indexed
                    |> List.fold
                        (fun batch (k, (name, run)) ->
                            visit
                                (k + 1)
                                name
                                { batch with
                                    Features = run batch.Features })
                        (visit 0 "" batch)

                samePasses batch byHand (s.Forward plan staged))

    let hooks =
        ofTrials
            "stages = hooks"
            100
            ("hooks at submodules give the bits that stages of the same names give, logits, targets and gradients; "
             + "numbers name the same sites, and the shapes found are the same")
            (fun s trial staged batch ->
                let hooked = modular staged
                use _ = hooked.Module
                let plan = planFor s staged trial batch.Features

                let expected, found =
                    s.Shapes staged batch.Features, s.HookedShapes hooked batch.Features

                [ for place in
                      Number 0
                      :: Number 9
                      :: List.collect (fun k -> [ Number k; Name names[k - 1] ]) [ 1..4 ] do
                      Verdict.equal $"the shape at {place}" (expected place) (found place)

                  samePasses batch (s.Forward plan staged) (s.Hooked plan hooked) ]
                |> Verdict.all)

    let hooksEnd =
        ofTrials
            "hooks end with their pass"
            60
            "after a pass with a plan, and after one that raised, the model's own pass has the bits that it had before"
            (fun s trial staged batch ->
                let hooked = modular staged
                use _ = hooked.Module
                let plan = planFor s staged trial batch.Features
                let before = Read.bytes (hooked.Module.call batch.Features)
                let others = Trial.batch { trial with Count = trial.Count + 1 }

                let raised =
                    try
                        s.Hooked plan hooked others |> ignore
                        false
                    with :? ArgumentException ->
                        true

                let afterRefusal = Read.bytes (hooked.Module.call batch.Features)
                s.Hooked plan hooked batch |> ignore

                [ Verdict.equal "a batch of another size raises" (not plan.Draws.IsEmpty) raised
                  Verdict.equal "the bits after the pass that raised" before afterRefusal
                  Verdict.equal "the bits after the pass" before (Read.bytes (hooked.Module.call batch.Features)) ]
                |> Verdict.all)

    let finiteDifferences =
        ofTrials
            "gradients agree with finite differences"
            40
            "(L(x + h e) - L(x - h e)) / 2h = dL/dx e within 1e-6, in float64, for the loss of the mixed batch"
            (fun s trial staged batch ->
                let plan = planFor s staged trial batch.Features

                let loss (features: torch.Tensor) =
                    let result = s.Forward plan staged { batch with Features = features }
                    s.Loss CrossEntropy result.Targets result.Features

                let features = batch.Features.detach().clone().requires_grad_(true)
                let value = loss features

                if value.requires_grad then
                    value.backward ()

                let gradient =
                    if isNull features.grad then
                        Array.zeroCreate (int (features.numel ()))
                    else
                        Read.values features.grad

                let values = Read.values batch.Features
                let bits = Key.stream (Key.child 5 trial.Data)

                let moved i h =
                    let copy = Array.copy values
                    copy[i] <- copy[i] + h
                    (Read.values (loss (torch.tensor (copy, ReadOnlySpan(Trial.size trial)))))[0]

                List.init 4 (fun _ -> bits.Below values.Length)
                |> Seq.map (fun i ->
                    let h = 1e-5
                    let slope = (moved i h - moved i -h) / (2.0 * h)
                    Verdict.near $"the derivative by feature {i}" 1e-6 1e-8 [| slope |] [| gradient[i] |])
                |> Verdict.all)

    let probe =
        ofTrials
            "the probe sees the shapes and changes nothing"
            40
            ("shapes tells the features' shape at every place, and neither "
             + "the mode nor a batch normalisation's statistics change")
            (fun s trial staged batch ->
                use norm = torch.nn.BatchNorm2d(3L, dtype = torch.float64)

                let staged =
                    { Module = norm
                      Stages = staged.Stages |> List.insertAt 1 ("norm", norm.call) }

                let seen what training =
                    norm.train training
                    let shapes = s.Shapes staged batch.Features

                    let maps =
                        staged.Stages
                        |> List.scan (fun x (_, run) -> run x) batch.Features
                        |> List.map Batch.shapeOf

                    [ yield!
                          maps
                          |> List.mapi (fun k map ->
                              Verdict.equal $"{what}: the shape at {k}" (Some map) (shapes (Number k)))
                      Verdict.equal $"{what}: the shape after norm" (Some maps[2]) (shapes (Name "norm"))
                      Verdict.equal $"{what}: the shape at a place that is none" None (shapes (Number 9))
                      Verdict.equal $"{what}: training" training norm.training ]

                let before = Read.bytes norm.running_mean
                s.Shapes staged batch.Features |> ignore

                Verdict.equal "the running mean's bits" before (Read.bytes norm.running_mean)
                :: seen "training" true
                @ seen "evaluation" false
                |> Verdict.all)
        |> Law.ofLibrary

    let all = [ noPlan; composition; hooks; hooksEnd; finiteDifferences; probe ]

    /// The network, as stages and as a model, for the laws of memory.
    let internal networkOf trial =
        let trial = onMaps trial
        let staged = network trial
        staged, modular staged, trial

    /// The plan of a network's trial.
    let internal planOf s staged trial features = planFor s staged trial features

/// Laws of memory: every tensor that a function returns is the caller's, and nothing else lives on.
module MemoryLaws =

    let private law name trials statement programs check =
        { About = "memory"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = trials
          Check = OfRegularizer(programs, check) }

    /// Live native tensors made by this thread.
    let private live () =
        DisposeScopeManager.Statistics.ThreadTotalLiveCount

    /// What `make` returns, and how many tensors more live after it.
    let private counted (make: unit -> 'v) : 'v * int64 =
        let before = live ()
        let made = make ()
        made, live () - before

    let apply =
        law
            "applying a plan leaves its batch"
            1000
            "live native tensors grow by exactly those of the batch returned"
            Generators.regularizer
            (fun s trial ->
                let batch = Trial.batch trial
                let plan, ofDraw = counted (fun () -> Mixing.plan s trial)
                let mixed, ofApply = counted (fun () -> s.Apply plan batch)

                [ Verdict.equal "tensors after drawing" 0L ofDraw
                  Verdict.equal "tensors after applying" (int64 (Batch.tensors mixed).Length) ofApply ]
                |> Verdict.all)

    let loss =
        law
            "a loss leaves one tensor"
            150
            "live native tensors grow by exactly the loss"
            Generators.regularizer
            (fun s trial ->
                let targets = (Mixing.mixed s trial).Targets
                let logits = Trial.logits trial

                [ CrossEntropy; BceOnSoftmax; Brier; Smoothed(0.1, Brier) ]
                |> Seq.map (fun loss ->
                    Verdict.equal $"tensors after {loss}" 1L (snd (counted (fun () -> s.Loss loss targets logits))))
                |> Verdict.all)

    let forward =
        law
            "a forward pass leaves its batch"
            150
            "live native tensors grow by exactly the logits and targets; probing shapes leaves none"
            Generators.regularizer
            (fun s trial ->
                let staged, hooked, trial = NetworkLaws.networkOf trial
                use _ = staged.Module
                use _ = hooked.Module
                let batch = Trial.batch trial

                let plan, ofPlan =
                    counted (fun () -> NetworkLaws.planOf s staged trial batch.Features)

                let ofResult forward =
                    let result, grown = counted (fun () -> forward plan batch)
                    grown - int64 (Batch.tensors result).Length

                [ Verdict.equal "tensors after probing and drawing" 0L ofPlan
                  Verdict.equal "tensors beyond the result" 0L (ofResult (fun plan -> s.Forward plan staged))
                  Verdict.equal "tensors beyond the result of hooks" 0L (ofResult (fun plan -> s.Hooked plan hooked))
                  Verdict.equal
                      "tensors after probing by hooks"
                      0L
                      (snd (counted (fun () -> s.HookedShapes hooked batch.Features))) ]
                |> Verdict.all)

    let ownership =
        law
            "results are the caller's own"
            150
            ("disposing the input leaves the result as it was; disposing "
             + "the result leaves the input; no tensor is returned twice")
            Generators.regularizer
            (fun s trial ->
                let plan = Mixing.plan s trial
                let batch = Trial.batch trial
                let before = Read.batch batch
                let first, second = s.Apply plan batch, s.Apply plan batch
                let expected = Read.batch first
                let tensors = Batch.tensors second
                let different = tensors |> List.distinctBy _.Handle |> List.length
                Batch.dispose first

                let inputLives =
                    Batch.tensors batch |> List.forall (fun t -> not t.IsInvalid)
                    && Read.batch batch = before

                if inputLives then
                    Batch.dispose batch

                let resultLives = tensors |> List.forall (fun t -> not t.IsInvalid)

                [ Verdict.equal "different tensors in the result" tensors.Length different
                  Verdict.require inputLives (fun () -> "the input died with a result.")
                  Verdict.require (resultLives && Read.batch second = expected) (fun () ->
                      "the result died with the input.") ]
                |> Verdict.all)

    let failure =
        law
            "a refused batch leaves nothing"
            60
            "where apply raises, because the batch is not the plan's, live native tensors do not grow"
            Generators.oneStep
            (fun s trial ->
                let plan = Mixing.plan s trial
                let other = Trial.batch { trial with Count = trial.Count + 1 }

                if plan.Draws.IsEmpty then
                    Verdict.NotApplicable
                else
                    let raised, grown =
                        counted (fun () ->
                            try
                                s.Apply plan other |> ignore
                                false
                            with :? ArgumentException ->
                                true)

                    [ Verdict.require raised (fun () -> "a batch of another size was accepted.")
                      Verdict.equal "tensors after the refusal" 0L grown ]
                    |> Verdict.all)

    let all = [ apply; loss; forward; ownership; failure ]
