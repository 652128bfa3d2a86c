namespace PatchUp.Repro

open System
open System.Globalization
open System.Text.Json
open PatchUp.Functional
open TorchSharp

/// Golden files: operations of other implementations with their random draws pinned, and what came of them. The kernels take
/// the draws as they are, so that every number can be compared.
[<RequireQualifiedAccess>]
module Verify =

    open Golden

    /// The deviation up to which numbers agree.
    let tolerance = 1e-6

    // ---- what the cases give ----

    let private features case : Table * Shape =
        let x = table "x" case

        match x.Size with
        | [ _; channels; height; width ] ->
            x,
            { Channels = channels
              Height = height
              Width = width }
        | _ -> refuse case "'x' must be [N,C,H,W]."

    let private mostClasses = 100000

    let private classes case : int =
        match integer "classes" case with
        | count when count >= 1 && count <= mostClasses -> count
        | count -> refuse case $"'classes' is {count}; it must lie in 1 .. {mostClasses}."

    let private permutation case : int[] =
        let map = integers "permutation" case
        let count = (table "x" case).Size.Head

        if Array.sort map <> [| 0 .. count - 1 |] then
            refuse case $"'permutation' must be one of 0 .. {count - 1}."

        map

    /// The blocks around the seeds, which are `[C,H,W]` or `[N,C,H,W]`.
    let private blocks samples (shape: Shape) case : Mask =
        let seeds = table "seeds" case
        let sides = [ shape.Channels; shape.Height; shape.Width ]

        if seeds.Size <> sides && seeds.Size <> samples :: sides then
            refuse case $"'seeds' must have the size of the features."

        seeds.Data
        |> Array.map (fun seed -> seed <> 0.0)
        |> Mask.blocks samples shape (integer "block_size" case)

    /// The features of a case mixed by one draw, with its labels where it has them.
    let private mixed (mask: Mask) (partner: int[] option) (lambda: float) (scale: float[]) case : Batch =
        let x, _ = features case
        let count = x.Size.Head

        let targets =
            match case.Json.TryGetProperty "labels" with
            | true, _ -> Targets.ofIndices torch.CPU (classes case) (integers "labels" case)
            | _ -> Targets.ofIndices torch.CPU 1 (Array.zeroCreate count)

        let drawn =
            { Place = Number 0
              Mask = mask
              Partner = partner
              Lambda = [| lambda |]
              View = AsIs
              Scale = scale
              Objective = Objective.reweighted }

        Plan.apply { Count = count; Draws = [ drawn ] } (Batch.create (tensor x) targets)

    /// A field and the numbers that this library has for it.
    let private found (field: string) (tensor: torch.Tensor) =
        field, tensor.``to``(torch.float64).contiguous().data<float>().ToArray()

    let private patchUp case =
        let _, shape = features case
        let mask = blocks 1 shape case

        let lambda =
            match text "mode" case with
            | "hard" -> 0.0
            | "soft" -> fraction "lam" case
            | other -> refuse case $"the mode '{other}' is unknown; hard and soft are known."

        let loss =
            match text "loss" case with
            | "bce_on_softmax" -> BceOnSoftmax
            | other -> refuse case $"the loss '{other}' is unknown; bce_on_softmax is known."

        let batch = mixed mask (Some(permutation case)) lambda [||] case
        let parts = batch.Targets.Mixed.Value

        let lossBy objective =
            Loss.ofBatch
                loss
                { batch.Targets with
                    Mixed = Some { parts with Objective = objective } }
                (tensor (table "logits" case))

        [ "gamma_adjusted", [| Region.gammaAdjusted shape (integer "block_size" case) (number "gamma" case) |]
          found "hidden" batch.Features
          found "target_a" parts.Own
          found "target_b" parts.Altered
          found "target_reweighted" batch.Targets.Soft
          "unchanged", Mask.unchanged mask
          found "loss_first" (lossBy Objective.first)
          found "loss_second" (lossBy Objective.second) ]

    let private cutMix case =
        let _, shape = features case
        let share = sqrt (1.0 - fraction "lam" case)

        // The authors halve the box's side by integer division and go that far to each side of the centre.
        let half side = int (float side * share) / 2
        let height, width = half shape.Height, half shape.Width

        let top, left =
            integer "centre_axis2" case - height, integer "centre_axis3" case - width

        let mask = Mask.box shape top left (2 * height) (2 * width)
        let map, labels = permutation case, integers "labels" case
        let batch = mixed mask (Some map) 0.0 [||] case

        [ found "hidden" batch.Features
          "labels_b", map |> Array.map (fun j -> float labels[j])
          "unchanged", Mask.unchanged mask ]

    let private cutOut case =
        let _, shape = features case
        let half = float (integer "length" case) / 2.0

        let ends name =
            let centre = float (integer name case)
            int (centre - half), int (centre + half)

        let top, bottom = ends "centre_axis2"
        let left, right = ends "centre_axis3"
        let mask = Mask.box shape top left (bottom - top) (right - left)
        [ found "hidden" (mixed mask None 0.0 [||] case).Features ]

    let private dropBlock case =
        let x, shape = features case
        let mask = blocks x.Size.Head shape case
        let kept = Array.average (Mask.unchanged mask)
        let scale = if kept > 0.0 then 1.0 / kept else 0.0
        let gamma = 1.0 - fraction "keep_prob" case

        [ "gamma_adjusted", [| Region.gammaAdjusted shape (integer "block_size" case) gamma |]
          found "hidden" (mixed mask None 0.0 [| scale |] case).Features ]

    let private mixUp case =
        let _, shape = features case

        let batch =
            mixed (Mask.constant shape false) (Some(permutation case)) (fraction "lam" case) [||] case

        [ found "hidden" batch.Features; found "target_reweighted" batch.Targets.Soft ]

    let private kinds: (string * (Case -> (string * float[]) list)) list =
        [ "patchup", patchUp
          "cutmix", cutMix
          "cutout", cutOut
          "dropblock", dropBlock
          "mixup", mixUp ]

    // ---- comparing ----

    let private expected (case: Case) name : float[] =
        let value = field name case

        match value.ValueKind with
        | JsonValueKind.Object -> (table name case).Data
        | JsonValueKind.Array -> integers name case |> Array.map float
        | _ -> [| asNumber name case value |]

    let private verifyCase (case: Case) : (float * Disagreement option) list =
        let kind = text "kind" case

        match kinds |> List.tryFind (fst >> (=) kind) with
        | None ->
            let known = kinds |> List.map fst |> String.concat ", "
            refuse case $"the kind '{kind}' is unknown; the kinds are {known}."
        | Some(_, numbers) ->
            try
                Scope.value (fun () ->
                    numbers case
                    |> List.map (fun (name, found) -> compare tolerance case kind name (expected case name) found))
            with :? ArgumentException as error ->
                // Without the parameter's name, which .NET appends.
                refuse case (error.Message.Split(" (Parameter")[0])

    let private operations (path: string) (root: JsonElement) : Verification =
        let cases =
            match root.ValueKind with
            | JsonValueKind.Object ->
                match root.TryGetProperty "cases" with
                | true, cases when cases.ValueKind = JsonValueKind.Array && cases.GetArrayLength() > 0 ->
                    [ for i, case in Seq.indexed (cases.EnumerateArray()) -> caseOf path (i + 1) "a 'kind'" case ]
                | _ -> Errors.user $"{path}: it has no list of 'cases'; a golden file of operations is needed."
            | _ -> Errors.user $"{path}: it has no 'cases'; a golden file of operations is needed."

        cases |> List.map verifyCase |> verification

    /// Golden files of other things than operations: whether a content is one, and what compares it.
    let private others: ((JsonElement -> bool) * (string -> JsonElement -> Verification)) list =
        [ GoldenAttacks.isIt, GoldenAttacks.verify Attacks.perturb
          GoldenMetrics.isIt, GoldenMetrics.verify
          GoldenImages.isIt, GoldenImages.verify ]

    /// Compares every case of a golden file with what this library makes of it: of operations with what it makes of their draws, and of
    /// whatever else the file is seen to hold. A UserError names the file, the case and the field that cannot be read.
    let file (path: string) : Verification =
        use stream = Errors.openRead path

        use json =
            try
                JsonDocument.Parse stream
            with :? JsonException as error ->
                Errors.user $"{path}: it is no JSON ({error.Message})"

        let root = json.RootElement

        match others |> List.tryFind (fun (isIt, _) -> isIt root) with
        | Some(_, verify) -> verify path root
        | None -> operations path root

    /// One line for each disagreement, then how many cases agree.
    let show (verification: Verification) : string =
        let worst =
            verification.LargestDeviation.ToString("0.0E+0", CultureInfo.InvariantCulture)

        [ for found in verification.Disagreements do
              $"case {found.Case} ({found.Kind}): {found.Field} is {found.Found} at index {found.Index} where {found.Expected} is expected"
          $"{verification.Agreeing} of {verification.Cases} agree; the largest deviation is {worst}" ]
        |> String.concat "\n"
