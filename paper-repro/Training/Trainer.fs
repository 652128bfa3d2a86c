namespace PatchUp.Repro

open System
open System.Diagnostics
open System.Globalization
open PatchUp.Functional
open TorchSharp

/// How a run is watched, kept and stopped; nothing of it changes the result.
[<NoEquality; NoComparison>]
type Control =
    {
        /// Told how far the run is.
        Notify: Advance -> unit
        /// Asked after every step, and before every batch of an evaluation, whether to stop.
        IsStopping: unit -> bool
        /// Where the run's state is kept, and taken up; None to keep none.
        Checkpoints: CheckpointFolder option
        /// After how many steps a checkpoint is written; None for `Control.secondsBetween`.
        CheckpointEvery: int option
    }

[<RequireQualifiedAccess>]
module Control =

    /// The least time between two checkpoints, where they do not come by steps: a killed run loses no more. Where writing
    /// one takes long, the time between them is fifty times as long.
    let secondsBetween = 20.0

    /// A run that goes to its end, and of which nothing is kept on the way.
    let alone: Control =
        { Notify = ignore
          IsStopping = fun () -> false
          Checkpoints = None
          CheckpointEvery = None }

[<RequireQualifiedAccess>]
module Trainer =

    /// The children of a run's key. Equal seeds give every method the same start, split, order and augmentation.
    module private Child =
        let initialisation = 0
        let validation = 1
        let order = 2
        let augmentation = 3
        let mixing = 4

    /// The model as the core's stages; images are normalised before the site `input`.
    let staged (model: Model) : Staged =
        { Module = model.Module
          Stages = model.Stages }

    /// One step on a batch: `update` is called with the loss's gradients in the parameters, beside those that they have already, and all are cleared. Gives the
    /// loss and the expected number of right predictions under mixing, or NaN and no update where logits or loss are not finite. Frees all that it makes; the batch stays the caller's.
    let step (loss: Loss) (update: unit -> unit) (staged: Staged) (plan: Plan) (batch: Batch) : struct (float * float) =
        Scope.value (fun () ->
            let result = Attach.forward plan staged batch

            if result.Features.isfinite().all().item<bool>() then
                let value = Loss.ofBatch loss result.Targets result.Features
                let number = float (value.item<float32>())

                if Double.IsFinite number then
                    value.backward ()
                    update ()

                staged.Module.zero_grad ()
                struct (number, Array.sum (Loss.expectedAccuracy result.Targets result.Features))
            else
                struct (nan, 0.0))

    /// Error and NLL on images that are not augmented, in evaluation mode. `before` is called before every batch, and
    /// may raise.
    let evaluate (before: unit -> unit) (model: Model) (set: ImageSet) : Score =
        Model.eval model
        use _ = torch.no_grad ()

        let wrong, loss =
            ImageSet.using (ImageSet.inOrder set) (fun feed ->
                ImageSet.labels set
                |> Array.chunkBySize (ImageSet.evaluated set)
                |> Array.map (fun labels ->
                    before ()

                    Scope.value (fun () ->
                        let device = Model.device model
                        let images = (feed.Next labels.Length).``to`` device
                        let logits = images |> model.Normalise |> Model.call model
                        let labels = torch.tensor (Array.map int64 labels, device = device)
                        Metrics.wrong logits labels, Metrics.negativeLogLikelihood logits labels)))
            |> Array.unzip

        let count = float (ImageSet.count set)

        { Error = 100.0 * float (Array.sum wrong) / count
          Nll = Array.sum loss / count }

    /// The features' shape at every site.
    let private shapes (model: Model) (set: ImageSet) : Place -> Shape option =
        Scope.value (fun () ->
            let image = (ImageSet.plain set [| 0 |]).``to``(Model.device model)
            Attach.shapes (staged model) image)

    /// The value, or RunFailed with the place where it is not finite.
    let private finite what (where: string) (value: float) : float =
        if Double.IsFinite value then
            value
        else
            raise (
                RunFailed $"the {what} is not finite ({where}); the run is stopped, a smaller learning rate may help."
            )

    /// What stays the same over a run.
    [<NoEquality; NoComparison>]
    type private Session =
        {
            Config: Config
            Control: Control
            Key: Key
            Regularizer: Regularizer
            Loss: Loss
            Model: Model
            Sgd: Sgd
            Ema: Ema option
            Shapes: Place -> Shape option
            Train: ImageSet
            Validation: ImageSet
            Classes: int
            StepsPerEpoch: int
            Clock: Stopwatch
            /// What the run took before this process.
            Earlier: float
            /// When, by the clock, the last checkpoint was written, and how long that took; in seconds.
            Kept: struct (float * float) ref
        }

    /// Where a run is, with the best epoch's weights.
    [<NoEquality; NoComparison>]
    type private Moment =
        { Position: Position
          Best: (string * torch.Tensor) list }

    let private keyOf (session: Session) child epoch =
        session.Key |> Key.child child |> Key.child epoch

    let private elapsed (session: Session) =
        session.Earlier + session.Clock.Elapsed.TotalSeconds

    let private stateOf (session: Session) best : RunState =
        { Model = Model.state session.Model
          Velocity = session.Sgd.Velocity
          Average = session.Ema |> Option.map _.Average |> Option.defaultValue []
          Best = best }

    /// Writes a checkpoint; RunFailed where the weights are not finite, so that one from which the run cannot go on takes no sound one's place.
    let private keep (session: Session) (moment: Moment) : unit =
        match session.Control.Checkpoints with
        | None -> ()
        | Some folder ->
            let before = session.Clock.Elapsed.TotalSeconds
            let state = stateOf session moment.Best

            for name, tensor in state.Model do
                if not (Scope.value (fun () -> tensor.isfinite().all().item<bool>())) then
                    raise (
                        RunFailed
                            $"{name} is not finite after epoch {moment.Position.Epoch + 1}, step {moment.Position.Step}; the run is stopped, \
                              a smaller learning rate may help. The last checkpoint is from before."
                    )

            Checkpointing.write
                folder
                { moment.Position with
                    Seconds = elapsed session }
                state

            let now = session.Clock.Elapsed.TotalSeconds
            session.Kept.Value <- struct (now, now - before)

    /// After a step or an epoch: writes a checkpoint where one is due, and where the run shall stop, which it then does.
    let private afterwards (session: Session) (moment: Moment) : unit =
        let isStopping = session.Control.IsStopping()

        let isDue =
            match session.Control.CheckpointEvery with
            | Some steps ->
                let position = moment.Position
                (position.Epoch * session.StepsPerEpoch + position.Step) % steps = 0
            | None ->
                let struct (last, cost) = session.Kept.Value

                session.Clock.Elapsed.TotalSeconds - last
                >= max Control.secondsBetween (50.0 * cost)

        if isDue || isStopping then
            keep session moment

        if isStopping then
            raise (Interrupted "stopped, and kept")

    /// The weight of the clean cross-entropy beside the mixed loss: for binary cross-entropy, which is a mean over the classes, 2 / classes of it, as PuzzleMix's authors have it.
    let private cleanWeight (config: Config) (classes: int) : float =
        if config.Loss = "bce-on-softmax" then
            2.0 * config.CleanLoss / float classes
        else
            config.CleanLoss

    /// The optimiser's part of a step, which is counted from 0 over the run.
    let private update (session: Session) (number: int) () : unit =
        let config = session.Config

        if config.ClipNorm > 0.0 then
            Sgd.clip config.ClipNorm session.Sgd

        Sgd.step (Config.learningRate config session.StepsPerEpoch number) session.Sgd
        session.Ema |> Option.iter (Ema.update number session.Model)

    /// What failed at a step and how to see it again.
    let private notFinite (session: Session) (epoch: int) (step: int) (key: Key) (info: BatchInfo) : exn =
        let progress = info.Progress.ToString("R", CultureInfo.InvariantCulture)

        RunFailed
            $"the loss is not finite (epoch {epoch + 1}, step {step + 1}); the run is stopped, a smaller learning rate may \
              help. The batch's plan is that of \"{session.Config.Notation}\" for the key {{ State = 0x{key.State:x16}UL }}, the first \
              index {info.First}, {info.Count} samples and the progress {progress} (Plan.draw); the same command goes on from the last \
              checkpoint, or from the start, and comes to the same step."

    /// One pass over the training images, from where it is: the steps that are left of it.
    let private pass (session: Session) (start: Moment) : Moment =
        let config = session.Config
        let epoch = start.Position.Epoch
        let count = ImageSet.count session.Train
        let order = Key.permutation count (keyOf session Child.order epoch)
        let classes = ImageSet.labels session.Train
        let mixing = keyOf session Child.mixing epoch
        Model.train session.Model

        let one (feed: Feed) (moment: Moment) (indices: int[]) : Moment =
            let number = moment.Position.Step
            let first = number * config.BatchSize
            let labels = indices |> Array.map (fun i -> classes[i])

            let struct (loss, correct) =
                Scope.value (fun () ->
                    let device = Model.device session.Model
                    let images = (feed.Next indices.Length).``to`` device

                    let batch =
                        Targets.ofIndices device session.Classes labels
                        |> Batch.create (session.Model.Normalise images)

                    // The clean loss is added once, by the first pass that regions ask for, or by one of its own.
                    let isAdded = ref (config.CleanLoss = 0.0)

                    let follow batch =
                        if isAdded.Value then
                            Saliency.gradient CrossEntropy session.Model.Module batch
                        else
                            isAdded.Value <- true
                            let weight = cleanWeight config session.Classes
                            Saliency.gradientWithCleanLoss weight CrossEntropy session.Model.Module batch

                    let info =
                        { BatchInfo.create indices.Length session.Shapes with
                            First = first
                            Labels = Some labels
                            Progress = (float epoch + float first / float count) / float config.Epochs }
                        |> Saliency.follow follow session.Model.Normalise images batch

                    let plan = Plan.draw mixing info session.Regularizer

                    if not isAdded.Value then
                        follow batch |> ignore

                    let update = update session (epoch * session.StepsPerEpoch + number)

                    let struct (loss, correct) =
                        step session.Loss update (staged session.Model) plan batch

                    if not (Double.IsFinite loss) then
                        raise (notFinite session epoch number mixing info)

                    struct (loss, correct))

            session.Control.Notify(Stepped indices.Length)

            let moment =
                { moment with
                    Position =
                        { moment.Position with
                            Step = number + 1
                            LossSum = moment.Position.LossSum + loss * float indices.Length
                            CorrectSum = moment.Position.CorrectSum + correct } }

            afterwards session moment
            moment

        let feed =
            ImageSet.training
                { Flip = config.Flip
                  CropPadding = config.CropPadding }
                (keyOf session Child.augmentation epoch)
                order
                (min count (start.Position.Step * config.BatchSize))
                session.Train

        ImageSet.using feed (fun feed ->
            order
            |> Array.chunkBySize config.BatchSize
            |> Array.skip start.Position.Step
            |> Array.fold (one feed) start)

    /// Raises where the run shall stop.
    let private stop (session: Session) () : unit =
        if session.Control.IsStopping() then
            raise (Interrupted "stopped, and kept")

    /// Does work that calls `stop` and leaves the state as it is; writes a checkpoint where that stops it.
    let private unlessStopped (session: Session) (moment: Moment) (work: unit -> 'a) : 'a =
        try
            work ()
        with Interrupted _ ->
            keep session moment
            reraise ()

    /// Does work on the model with the weights that are validated: the moving average where there is one.
    let private judged (session: Session) (work: unit -> 'a) : 'a =
        match session.Ema with
        | Some ema -> Ema.under ema session.Model work
        | None -> work ()

    /// The steps that are left of an epoch, and its validation.
    let private runEpoch (session: Session) (start: Moment) : Moment =
        let moment = pass session start
        let position = moment.Position
        let count = float (ImageSet.count session.Train)

        let judge () =
            judged session (fun () ->
                let score = evaluate (stop session) session.Model session.Validation

                let epoch: Epoch =
                    { Epoch = position.Epoch + 1
                      LearningRate =
                        Config.learningRate
                            session.Config
                            session.StepsPerEpoch
                            (position.Epoch * session.StepsPerEpoch)
                      TrainLoss = position.LossSum / count
                      ExpectedAccuracyUnderMixing = 100.0 * position.CorrectSum / count
                      ValidationError = score.Error
                      ValidationNll = finite "validation loss" $"epoch {position.Epoch + 1}" score.Nll }

                let rank (epoch: Epoch) =
                    epoch.ValidationError, epoch.ValidationNll

                match position.History |> List.tryItem (position.BestEpoch - 1) with
                | Some earlier when rank earlier <= rank epoch -> epoch, None
                | _ -> epoch, Some(Model.snapshot session.Model))

        let epoch, best = unlessStopped session moment judge

        let moment =
            { Position =
                { position with
                    Epoch = epoch.Epoch
                    Step = 0
                    LossSum = 0.0
                    CorrectSum = 0.0
                    BestEpoch = (if best.IsSome then epoch.Epoch else position.BestEpoch)
                    History = position.History @ [ epoch ]
                    EpochEnds = position.EpochEnds @ [ elapsed session ] }
              Best = defaultArg best moment.Best }

        if best.IsSome then
            for _, weights in start.Best do
                weights.Dispose()

        session.Control.Notify(EpochDone epoch)
        afterwards session moment
        moment

    /// Where a run begins: at its last checkpoint, whose tensors it takes over, or at its first step.
    let private begun (control: Control) (config: Config) (stepsPerEpoch: int) (key: Key) (live: RunState) : Moment =
        let found =
            control.Checkpoints
            |> Option.bind (fun folder -> Checkpointing.latest folder config stepsPerEpoch live)

        match found with
        | None ->
            { Best = []
              Position =
                { Config = config
                  Key = $"{key.State:x16}"
                  Machines = [ Checkpointing.here 0 0 ]
                  Epoch = 0
                  Step = 0
                  LossSum = 0.0
                  CorrectSum = 0.0
                  BestEpoch = 0
                  History = []
                  Seconds = 0.0
                  EpochEnds = [] } }
        | Some(position, state) ->
            Scope.value (fun () ->
                use _ = torch.no_grad ()

                let restore (stored: (string * torch.Tensor) list) (live: (string * torch.Tensor) list) =
                    let stored = dict stored

                    for name, tensor in live do
                        tensor.copy_ stored[name] |> ignore
                        stored[name].Dispose()

                restore state.Model live.Model
                restore state.Velocity live.Velocity
                restore state.Average live.Average)

            // In the order of the model's, for which it is a snapshot.
            let best = dict state.Best

            { Best =
                live.Model
                |> List.filter (fun (name, _) -> best.ContainsKey name)
                |> List.map (fun (name, tensor) -> name, best[name].``to``(tensor.device))
              Position =
                { position with
                    Machines = Checkpointing.goingOn position } }

    let private trainModel
        (control: Control)
        (config: Config)
        (corpus: Corpus)
        network
        train
        validation
        (model: Model)
        : Trained =
        let clock = Stopwatch.StartNew()
        let count = ImageSet.count train
        let stepsPerEpoch = (count + config.BatchSize - 1) / config.BatchSize
        let key = Key.ofSeed config.Seed

        let sgd =
            [ for struct (name, parameter) in model.Module.named_parameters () -> name, parameter :> torch.Tensor ]
            |> Sgd.create config.Momentum config.WeightDecay

        let ema =
            if config.EmaDecay > 0.0 then
                Some(Ema.create config.EmaDecay model)
            else
                None

        let start =
            begun
                control
                config
                stepsPerEpoch
                key
                { Model = Model.state model
                  Velocity = sgd.Velocity
                  Average = ema |> Option.map _.Average |> Option.defaultValue []
                  Best = [] }

        let session =
            { Config = config
              Control = control
              Key = key
              Regularizer = Setup.regularizer config
              Loss = Setup.loss config
              Model = model
              Sgd = sgd
              Ema = ema
              Shapes = shapes model train
              Train = train
              Validation = validation
              Classes = corpus.Classes.Length
              StepsPerEpoch = stepsPerEpoch
              Clock = clock
              Earlier = start.Position.Seconds
              Kept = ref (struct (0.0, 0.0)) }

        let position = start.Position

        if position.Epoch > 0 || position.Step > 0 then
            let seen =
                int64 position.Epoch * int64 count
                + int64 (min count (position.Step * config.BatchSize))

            control.Notify(Resumed(seen, position.History))

        let last =
            [ position.Epoch .. config.Epochs - 1 ]
            |> List.fold (fun moment _ -> runEpoch session moment) start

        Model.restore last.Best model

        let test =
            unlessStopped session last (fun () -> evaluate (stop session) model corpus.Test)

        let ends = last.Position.EpochEnds

        { Record =
            { Config = config
              Parameters = Model.parameterCount model
              BestEpoch = last.Position.BestEpoch
              TestError = test.Error
              TestNll = finite "test loss" "the best epoch's weights" test.Nll
              History = last.Position.History }
          Timing =
            { Seconds = elapsed session
              ImagesPerSecond = float (config.Epochs * count) / List.last ends
              EpochSeconds = List.pairwise (0.0 :: ends) |> List.map (fun (before, after) -> after - before)
              Jobs = 1 }
          Machines = last.Position.Machines
          Model = model
          Network = network }

    /// Trains, keeps the best epoch by validation, and tests it once; where `control` has checkpoints of the run, from the
    /// last of them on, to the same result. The corpus holds just the images that the
    /// configuration names, and is not changed. A UserError for a configuration out of range or a site that the network does not have;
    /// RunFailed where a loss is not finite or a checkpoint cannot be written; Interrupted
    /// where `control` asked it to stop. Sets the process's native thread count, and leaves it: runs at the same
    /// time must ask for the same one.
    let run (control: Control) (config: Config) (corpus: Corpus) : Trained =
        Setup.check config corpus
        torch.set_num_threads config.Threads
        let child i = Key.child i (Key.ofSeed config.Seed)

        let permutation =
            Key.permutation (ImageSet.count corpus.Train) (child Child.validation)

        let train, validation =
            ImageSet.holdOut (Setup.heldOut config corpus) permutation corpus.Train

        let network = Setup.network config corpus |> Setup.normalising config corpus.Train

        let model =
            Architectures.create config.Model network (child Child.initialisation).State

        try
            // Before the optimiser is made, which knows parameters by their native handles.
            Model.toDevice (torch.device config.Device) model
            Scope.value (fun () -> trainModel control config corpus network train validation model)
        with _ ->
            Model.dispose model
            reraise ()
