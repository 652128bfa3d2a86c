namespace PatchUp.Repro

open System.Text.Json
open PatchUp.Functional
open TorchSharp

/// A golden file of attacks: a network with its inputs, and what another implementation's attacks made of them. The attacks in it draw
/// nothing, so that every number can be compared.
[<RequireQualifiedAccess>]
module GoldenAttacks =

    open Golden

    /// The deviation up to which logits, losses and gradients agree.
    let private networkTolerance = 2e-6

    /// The deviation up to which weights of Carlini and Wagner's loss agree.
    let private constTolerance = 1e-6

    /// The deviation up to which an attack's pixels and distances agree.
    let private pixelTolerance (attack: Attack) =
        match attack with
        | Fgsm _
        | Pgd _
        | RandomSigns _
        | DeepFool _ -> 2e-6
        | Ddn _
        | CarliniWagner _ -> 1e-5

    /// Whether this is such a file's content.
    let isIt (root: JsonElement) : bool =
        root.ValueKind = JsonValueKind.Object
        && List.forall (fun (name: string) -> fst (root.TryGetProperty name)) [ "model"; "attacks" ]

    // ---- reading ----

    let private layer (normalise: torch.Tensor -> torch.Tensor) (case: Case) : torch.Tensor -> torch.Tensor =
        let parameter name = tensor (table name case)

        match text "kind" case with
        | "normalise" -> normalise
        | "conv2d" ->
            let weight, bias = parameter "weight", parameter "bias"
            let stride, padding = int64 (integer "stride" case), int64 (integer "padding" case)

            fun x -> torch.nn.functional.conv2d (x, weight, bias, [| stride; stride |], [| padding; padding |])
        | "relu" -> torch.nn.functional.relu
        | "flatten" -> fun x -> x.flatten 1L
        | "linear" ->
            let weight, bias = parameter "weight", parameter "bias"
            fun x -> torch.nn.functional.linear (x, weight, bias)
        | other -> refuse case $"the layer '{other}' is unknown; normalise, conv2d, relu, flatten and linear are known."

    /// The file's network, from images in [0,1] to logits.
    let private network (case: Case) : torch.Tensor -> torch.Tensor =
        let model = inner "model" case

        if numbers "bounds" model <> [| 0.0; 1.0 |] then
            refuse case "'bounds' must be [0, 1]."

        let channels name =
            let values = numbers name model
            torch.tensor(Array.map float32 values).view(1L, int64 values.Length, 1L, 1L)

        let mean, std = channels "mean", channels "std"

        let normalise (x: torch.Tensor) = (x - mean) / std

        let layers =
            [ for json in items "layers" model (field "layers" model) ->
                  caseOf case.Where case.Number "layers that have a 'kind'" json
                  |> layer normalise ]

        fun x -> List.fold (fun x layer -> layer x) x layers

    let private attack (case: Case) : Attack =
        let parameters = inner "parameters" case
        let number name = number name parameters
        let integer name = integer name parameters

        let flag name =
            asFlag name parameters (field name parameters)

        match text "attack" case with
        | "fgsm" -> Fgsm(number "epsilon")
        | "pgd_linf" ->
            if flag "random_start" then
                refuse case "a random start cannot be compared; 'random_start' must be false."

            Pgd
                { Epsilon = number "epsilon"
                  RelativeStep = number "rel_stepsize"
                  Steps = integer "steps"
                  RandomStart = false
                  Restarts = 1 }
        | "deepfool_l2" ->
            DeepFool
                { Steps = integer "steps"
                  Candidates = integer "candidates"
                  Overshoot = number "overshoot" }
        | "ddn_l2" ->
            Ddn
                { Steps = integer "steps"
                  InitialEpsilon = number "init_epsilon"
                  Gamma = number "gamma" }
        | "cw_l2" ->
            CarliniWagner
                { SearchSteps = integer "binary_search_steps"
                  Steps = integer "steps"
                  StepSize = number "stepsize"
                  Confidence = number "confidence"
                  InitialConst = number "initial_const"
                  AbortEarly = flag "abort_early" }
        | other ->
            refuse case $"the attack '{other}' is unknown; fgsm, pgd_linf, deepfool_l2, ddn_l2 and cw_l2 are known."

    // ---- comparing ----

    let private values (tensor: torch.Tensor) : float[] =
        tensor.``to``(torch.float64).contiguous().data<float>().ToArray()

    let private bits: bool[] -> float[] =
        Array.map (fun flag -> if flag then 1.0 else 0.0)

    /// 1 - the share of successes.
    let private robust (success: bool[]) : float = 1.0 - Array.average (bits success)

    /// One array for each step: their number, and if it is the expected one, their contents.
    let private steps tolerance case kind name (expected: float[] list) (found: float[] list) =
        let count =
            compare 0.0 case kind $"{name}.length" [| float expected.Length |] [| float found.Length |]

        if expected.Length = found.Length then
            count
            :: [ for i, (expected, found) in Seq.indexed (List.zip expected found) ->
                     compare tolerance case kind $"{name}[{i}]" expected found ]
        else
            [ count ]

    let private verifyNetwork (case: Case) logits (inputs: torch.Tensor) (labels: torch.Tensor) =
        let found: torch.Tensor = logits inputs
        let losses, gradient = Attacks.lossGradient logits inputs labels
        let classes = found.argmax (1L)
        let compareTo tolerance = compare tolerance case "network"
        let right = classes.eq labels

        [ compareTo networkTolerance "logits" (table "logits" case).Data (values found)
          compareTo networkTolerance "cross_entropy" (numbers "cross_entropy" case) (values losses)
          compareTo
              networkTolerance
              "cross_entropy_gradient"
              (table "cross_entropy_gradient" case).Data
              (values gradient)
          compareTo 0.0 "predictions" (integers "predictions" case |> Array.map float) (values classes)
          compareTo 0.0 "clean_accuracy" [| number "clean_accuracy" case |] [| Array.average (values right) |] ]

    let private verifyAttack (attacker: Attacker) logits (inputs: torch.Tensor) (labels: torch.Tensor) (case: Case) =
        let kind = text "attack" case
        let attack = attack case
        let norm = Attacks.norm attack
        let attacked = attacker attack (Key.ofSeed 0) 0 logits inputs labels
        let compareTo tolerance = compare tolerance case kind
        let truth = values labels |> Array.map int

        let predicted = Attacks.predictions logits

        let success images =
            Array.map2 (<>) (predicted images) truth

        let judged (name: string) (part: Case) images =
            let success = success images

            [ compareTo 0.0 $"{name}success" (bits (flags "success" part)) (bits success)
              compareTo 0.0 $"{name}robust_accuracy" [| number "robust_accuracy" part |] [| robust success |] ]

        [ compareTo (pixelTolerance attack) "adversarial" (table "adversarial" case).Data (values attacked.Images)
          compareTo
              (pixelTolerance attack)
              "distance"
              (numbers "distance" case)
              (Attacks.distances norm inputs attacked.Images)
          compareTo
              0.0
              "predictions"
              (integers "predictions" case |> Array.map float)
              (predicted attacked.Images |> Array.map float)

          match norm with
          | Norm.LInf -> yield! judged "" case attacked.Images
          | Norm.L2 ->
              compareTo 0.0 "success" (bits (flags "success" case)) (bits (success attacked.Images))

              for i, json in Seq.indexed (items "at_epsilon" case (field "at_epsilon" case)) do
                  let part = caseOf case.Where case.Number "'at_epsilon' that have an 'epsilon'" json

                  yield!
                      Attacks.within (number "epsilon" part) inputs attacked.Images
                      |> judged $"at_epsilon[{i}]." part

          match attack with
          | Fgsm _
          | Pgd _
          | RandomSigns _ -> ()
          | DeepFool _
          | Ddn _ ->
              let trace = inner "trace" case
              let name = "is_adversarial_at_step"

              let expected =
                  [ for step in items name trace (field name trace) ->
                        [| for flag in items name trace step -> asFlag name trace flag |] |> bits ]

              yield! steps 0.0 case kind $"trace.{name}" expected (List.map bits attacked.Trace.Fooled)
          | CarliniWagner _ ->
              let trace = inner "trace" case

              let consts =
                  [ for step in items "consts" trace (field "consts" trace) ->
                        [| for value in items "consts" trace step -> asNumber "consts" trace value |] ]

              // Their deviation is relative also where they are below 1.
              let relative (expected: float[] list) (found: float[] list) =
                  if List.map Array.length expected = List.map Array.length found then
                      List.map2 (Array.map2 (fun e f -> if e = 0.0 then f else f / e)) expected found
                  else
                      found

              yield!
                  steps
                      constTolerance
                      case
                      kind
                      "trace.consts"
                      (relative consts consts)
                      (relative consts attacked.Trace.Consts)

              yield!
                  steps
                      0.0
                      case
                      kind
                      "trace.adam_steps"
                      [ for count in integers "adam_steps" trace -> [| float count |] ]
                      [ for count in attacked.Trace.AdamSteps -> [| float count |] ] ]

    /// Compares the file's network, as case 0, and then each of its attacks with what `attacker` makes of the inputs.
    let verify (attacker: Attacker) (path: string) (root: JsonElement) : Verification =
        Scope.value (fun () ->
            use _ = torch.no_grad ()
            let file = caseOf path 0 "a 'model' and 'attacks'" root
            let inputs = tensor (table "inputs" file)
            let truth = integers "labels" file
            let logits = network file

            let classes =
                try
                    Scope.value (fun () ->
                        let found = logits inputs

                        if found.dim () <> 2L || found.shape[0] <> inputs.shape[0] then
                            refuse file "the network's results are no logits [N,K] of the inputs."

                        int found.shape[1])
                with :? System.Runtime.InteropServices.ExternalException ->
                    refuse file "the inputs do not go through the layers of the network."

            if
                int64 truth.Length <> inputs.shape[0]
                || truth |> Array.exists (fun label -> label < 0 || label >= classes)
            then
                refuse file $"'labels' must be a class, 0 .. {classes - 1}, of each input."

            let labels = torch.tensor (Array.map int64 truth)

            let attacks =
                [ for i, json in Seq.indexed (items "attacks" file (field "attacks" file)) ->
                      caseOf path (i + 1) "an 'attack'" json ]

            verifyNetwork file logits inputs labels
            :: [ for case in attacks ->
                     Scope.value (fun () ->
                         try
                             verifyAttack attacker logits inputs labels case
                         with :? System.ArgumentException as error ->
                             refuse case (error.Message.Split(" (Parameter")[0])) ]
            |> verification)
