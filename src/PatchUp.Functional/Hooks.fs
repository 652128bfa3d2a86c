namespace PatchUp.Functional

open System
open System.Collections.Generic
open TorchSharp

/// Any model, mixed in by hooks at its submodules: its code stays as it is.
[<NoEquality; NoComparison>]
type Hooked =
    {
        Module: torch.nn.Module<torch.Tensor, torch.Tensor>
        /// Dotted names of submodules (`layer1`, `layer2.0.conv1`), PyTorch's: site k (from 1) is the output of the k-th. Site 0 is the
        /// input, and every other submodule is a site by its name.
        Sites: string list
    }

/// Runs any model with a plan. A site is the output of a submodule that maps a tensor to a tensor and is called (`call`, not `forward`) once
/// in a pass; hooks see it there and put the mixed features in its place. They live as long as the pass does, whether or not it raises.
/// One pass at a time for each model.
[<RequireQualifiedAccess>]
module Hooks =

    type private Layer = torch.nn.Module<torch.Tensor, torch.Tensor>

    /// Each submodule with its names, of which a shared one has several.
    let private submodules (model: Layer) : (torch.nn.Module * string list) list =
        [ for struct (name, part) in model.named_modules () -> part, name ]
        |> List.groupBy fst
        |> List.map (fun (part, named) -> part, List.map snd named)

    let private isNoMap (part: torch.nn.Module) =
        $"a {part.GetName()} does not map a tensor to a tensor, so that it is no site"

    let private find (model: Layer) (name: string) : Layer =
        let parts = submodules model

        match parts |> List.tryFind (snd >> List.contains name) with
        | Some(:? Layer as layer, _) -> layer
        | Some(other, _) -> invalidArg (nameof model) $"\"{name}\": {isNoMap other}."
        | None ->
            let hint =
                match Notation.nearest (List.collect snd parts) name with
                | Some near -> $"did you mean \"{near}\"?"
                | None -> "Hooks.sites lists the sites."

            invalidArg (nameof model) $"\"{name}\": {model.GetName()} has no such submodule; {hint}"

    /// The model with these submodules as the numbered sites 1, 2, ...; an ArgumentException for a name that is no submodule's, or that
    /// stands there twice.
    let attach (sites: string list) (model: torch.nn.Module<torch.Tensor, torch.Tensor>) : Hooked =
        for name, times in List.countBy id sites do
            find model name |> ignore

            if times > 1 then
                invalidArg (nameof sites) $"\"{name}\" is named {times} times; a submodule is one site."

        { Module = model; Sites = sites }

    /// Calls the model, and each of these submodules' outputs passes through its function; null leaves it as it is.
    let private calling (hooks: (Layer * (torch.Tensor -> torch.Tensor)) list) (model: Layer) (input: torch.Tensor) =
        let hung =
            [ for layer, visit in hooks ->
                  layer.register_forward_hook (Func<Layer, torch.Tensor, torch.Tensor, torch.Tensor>(fun _ _ -> visit)) ]

        try
            model.call input
        finally
            for hook in hung do
                hook.remove ()

    let private twice =
        "it is called more than once in a pass, and which of its outputs is meant is not said"

    /// Why features cannot be mixed, or their shape.
    let private shapeOf (count: int) (features: torch.Tensor) : Result<Shape, string> =
        if
            features.dim () < 2L
            || features.dim () > 4L
            || features.shape[0] <> int64 count
            || not (features.is_floating_point ())
        then
            let shape = String.Join(",", features.shape)

            Error
                $"its output is {features.dtype} [{shape}]; of {count} samples, floating-point features [{count},C], [{count},C,L] and [{count},C,H,W] can be mixed"
        else
            Ok(Batch.shapeOf features)

    let private ofInput (input: torch.Tensor) = shapeOf (Probe.count input) input

    /// Every submodule that one sample reaches, in this order, with its names and its shape, or why it is no site.
    let private survey (model: Layer) (input: torch.Tensor) : (string list * Result<Shape, string>) list =
        Probe.run model (fun () ->
            let seen = List<string list * Result<Shape, string>>()

            let visit names features =
                match seen.FindIndex(fun (earlier, _) -> earlier = names) with
                | -1 -> seen.Add(names, shapeOf 1 features)
                | i -> seen[i] <- names, Error twice

                null

            let hooks =
                [ for part, names in submodules model do
                      match part with
                      | :? Layer as layer -> layer, visit names
                      | _ -> () ]

            calling hooks model (Probe.first input) |> ignore
            List.ofSeq seen)

    /// The sites of a model, with their shapes, in the order in which a pass reaches them: "input", then submodules by their dotted names.
    /// They are found by running one sample of `input` `[N,...]` without gradients and in evaluation mode; tensors made in that pass are freed.
    let sites (model: torch.nn.Module<torch.Tensor, torch.Tensor>) (input: torch.Tensor) : (string * Shape) list =
        let atInput = string (Number 0)

        [ for names, found in ([ atInput ], ofInput input) :: survey model input do
              match found with
              | Ok shape ->
                  for name in names do
                      name, shape
              | Error _ -> () ]
        // That name is the input's; a submodule of it is a site by number.
        |> List.indexed
        |> List.filter (fun (i, (name, _)) -> i = 0 || name <> atInput)
        |> List.map snd

    /// The shape of the features at every place, found as `sites` does; an ArgumentException for a submodule that is no site, which says why.
    let shapes (hooked: Hooked) (input: torch.Tensor) : Place -> Shape option =
        let seen = survey hooked.Module input
        let parts = submodules hooked.Module
        let atInput = ofInput input

        let named (name: string) =
            match seen |> List.tryFind (fst >> List.contains name) with
            | Some(_, Ok shape) -> Some shape
            | Some(_, Error reason) -> invalidArg (nameof hooked) $"\"{name}\" is no site: {reason}."
            | None ->
                match parts |> List.tryFind (snd >> List.contains name) with
                | Some(:? Layer, _) ->
                    invalidArg (nameof hooked) $"\"{name}\" is no site: a pass in evaluation mode does not call it."
                | Some(other, _) -> invalidArg (nameof hooked) $"\"{name}\": {isNoMap other}."
                | None -> None

        fun place ->
            match place with
            | Number 0 ->
                match atInput with
                | Ok shape -> Some shape
                | Error reason -> invalidArg (nameof hooked) $"\"input\" is no site: {reason}."
            | Number k -> List.tryItem (k - 1) hooked.Sites |> Option.bind named
            | Name name -> named name

    /// The submodule at a place, and its name.
    let private locate (hooked: Hooked) (place: Place) : Layer * string =
        let name =
            match place with
            | Name name -> name
            | Number k ->
                match List.tryItem (k - 1) hooked.Sites with
                | Some name -> name
                | None -> invalidArg (nameof hooked) $"There is no site {k}: {hooked.Sites.Length} sites are named."

        find hooked.Module name, name

    /// The same with a mixing function of one's own in the place of `Plan.apply`.
    let forwardWith (apply: Plan -> Batch -> Batch) (plan: Plan) (hooked: Hooked) (batch: Batch) : Batch =
        // What `apply` returns is its own, though it be the batch that it was given.
        let apply part batch =
            Batch.scope (fun () -> apply part batch)

        let inner =
            plan.Draws
            |> List.map _.Place
            |> List.distinct
            |> List.filter ((<>) (Number 0))
            |> List.groupBy (locate hooked >> fst)
            |> List.map (fun (layer, places) -> (layer, snd (locate hooked places.Head)), places)

        Batch.scope (fun () ->
            // A hook runs within the scopes of the modules around it; the targets live on.
            use home = torch.NewDisposeScope()
            let entered = apply (Plan.only [ Number 0 ] plan) batch
            let targets = ref entered.Targets
            let reached = HashSet<string>()

            let visit name places (features: torch.Tensor) =
                let refuse reason =
                    invalidArg (nameof hooked) $"\"{name}\" is no site: {reason}."

                if not (reached.Add name) then
                    refuse twice

                shapeOf (int batch.Features.shape[0]) features
                |> Result.mapError refuse
                |> ignore

                let mixed =
                    apply
                        (Plan.only places plan)
                        { Features = features
                          Targets = targets.Value }

                for tensor in Targets.tensors mixed.Targets do
                    // A tensor that is moved to where it is gets lost there.
                    if not (home.Contains tensor) then
                        tensor.MoveToOtherDisposeScope home |> ignore

                targets.Value <- mixed.Targets
                mixed.Features

            let hooks = [ for (layer, name), places in inner -> layer, visit name places ]

            let output = calling hooks hooked.Module entered.Features

            for (_, name), _ in inner do
                if not (reached.Contains name) then
                    invalidArg
                        (nameof hooked)
                        $"\"{name}\" is no site: this pass did not reach it, or ran its `forward` where hooks need `call`."

            let result =
                { Features = output
                  Targets = targets.Value }

            for tensor in Batch.tensors result do
                home.MoveToOuter tensor |> ignore

            result)

    /// The model's pass, mixing at each site what the plan has for it. The result's features are the model's output, its targets those that the
    /// loss wants; both are the caller's, and the batch stays as it is. Other tensors made in the pass are freed: what the model keeps for itself
    /// it must detach from the dispose scope. An ArgumentException for a site that cannot be mixed at, which says why; the model is as before.
    let forward (plan: Plan) (hooked: Hooked) (batch: Batch) : Batch =
        forwardWith Plan.apply plan hooked batch
