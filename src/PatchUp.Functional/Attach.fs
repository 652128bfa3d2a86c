namespace PatchUp.Functional

open TorchSharp

/// A network as a list of named stages: its forward is their composition, and after each of them features can be mixed.
[<NoEquality; NoComparison>]
type Staged =
    {
        /// Holds the parameters, and the switch between training and evaluation.
        Module: torch.nn.Module
        /// Stage k (from 1) ends at site k.
        Stages: (string * (torch.Tensor -> torch.Tensor)) list
    }

/// Finds out about a network without changing it.
[<RequireQualifiedAccess>]
module internal Probe =

    /// N of an input `[N,...]`; an ArgumentException where there is no sample.
    let count (input: torch.Tensor) : int =
        if input.dim () < 1L || input.shape[0] < 1L then
            invalidArg (nameof input) "The shapes are found by running one sample, and the input has none."

        int input.shape[0]

    /// The first sample of an input `[N,...]`; an ArgumentException where there is none.
    let first (input: torch.Tensor) : torch.Tensor =
        count input |> ignore
        input.narrow (0L, 0L, 1L)

    /// Runs in evaluation mode; afterwards every submodule is in the mode that it was in.
    let evaluating (network: torch.nn.Module) (probe: unit -> 'a) : 'a =
        // Parents come before their children, and setting a mode sets the children's too.
        let modes =
            [ for part in Seq.append [ network ] (network.modules ()) -> part, part.training ]

        network.eval ()

        try
            Scope.value probe
        finally
            for part, mode in modes do
                part.train mode

    /// Runs in evaluation mode and without gradients.
    let run (network: torch.nn.Module) (probe: unit -> 'a) : 'a =
        evaluating network (fun () ->
            use _ = torch.no_grad ()
            probe ())

/// Runs a network of named stages with a plan.
[<RequireQualifiedAccess>]
module Attach =

    /// The places of the network: the input, then each stage's end by number and by name.
    let private places (staged: Staged) : Place list list =
        [ Number 0 ]
        :: (staged.Stages |> List.mapi (fun i (name, _) -> [ Number(i + 1); Name name ]))

    /// The same with a mixing function of one's own in the place of `Plan.apply`.
    let forwardWith (apply: Plan -> Batch -> Batch) (plan: Plan) (staged: Staged) (batch: Batch) : Batch =
        // What `apply` returns is its own, though it be the batch that it was given.
        let visit places batch =
            Batch.scope (fun () -> apply (Plan.only places plan) batch)

        let step (batch: Batch) (places, (_, run)) =
            let arrived =
                { batch with
                    Features = Scope.run (fun () -> run batch.Features) }

            // Autograd keeps what it needs of these natively.
            batch.Features.Dispose()
            let visited = visit places arrived
            Batch.dispose arrived
            visited

        Batch.scope (fun () ->
            let sites = places staged
            List.zip sites.Tail staged.Stages |> List.fold step (visit sites.Head batch))

    /// Forward through the stages, mixing at each site what the plan has for it. The result's features are the logits, its targets those
    /// that the loss wants; both are the caller's, and the batch stays as it is.
    let forward (plan: Plan) (staged: Staged) (batch: Batch) : Batch =
        forwardWith Plan.apply plan staged batch

    /// The shape of the features at every place, found by running one sample of `input` `[N,...]` without gradients and in evaluation mode.
    let shapes (staged: Staged) (input: torch.Tensor) : Place -> Shape option =
        let maps =
            Probe.run staged.Module (fun () ->
                staged.Stages
                |> List.scan (fun features (_, run) -> run features) (Probe.first input)
                |> List.map Batch.shapeOf)

        let known =
            Map
                [ for names, shape in List.zip (places staged) maps do
                      for name in names -> name, shape ]

        fun place -> Map.tryFind place known
