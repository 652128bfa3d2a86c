namespace PatchUp.Repro

open System
open System.Diagnostics
open PatchUp.Functional
open TorchSharp

/// Everything a result depends on: equal configurations give equal bits.
type Config =
    {
        /// Raised whenever a change of the program changes results.
        Recipe: int
        /// The method as it was named.
        Method: string
        /// The method in full.
        Notation: string
        /// A name of `Config.losses`.
        Loss: string
        LabelSmoothing: float
        /// The weight of the cross-entropy on the images as they are, which is added to the loss on the mixed ones; 0 for none.
        CleanLoss: float
        Data: string
        /// The data set's SHA-256.
        Fingerprint: string
        TrainPerClass: int
        TestPerClass: int
        /// Of the training images.
        ValidationShare: float
        /// The name of an architecture.
        Model: string
        /// Of the network; None where the model's name says how wide it is.
        Width: int option
        Epochs: int
        BatchSize: int
        LearningRate: float
        /// Where the learning rate is divided by ten, as shares of the epochs.
        Milestones: float list
        /// Nesterov's.
        Momentum: float
        WeightDecay: float
        Flip: bool
        CropPadding: int
        Seed: int
        Threads: int
        /// cpu or cuda; on cuda, equal configurations agree up to rounding.
        Device: string
    }

[<RequireQualifiedAccess>]
module Config =

    /// The losses by name.
    let losses: (string * Loss) list =
        [ "cross-entropy", CrossEntropy
          "bce-on-softmax", BceOnSoftmax
          "brier", Brier ]

    /// The name of one of `losses`.
    let lossName (loss: Loss) : string =
        losses |> List.find (fun (_, known) -> known = loss) |> fst

    /// The published optimiser and augmentation on a network and data small enough for two cores; method and data are
    /// still to be named.
    let standard: Config =
        { Recipe = 1
          Method = "none"
          Notation = Notation.show Regularizer.identity
          Loss = lossName CrossEntropy
          LabelSmoothing = 0.0
          CleanLoss = 0.0
          Data = ""
          Fingerprint = ""
          TrainPerClass = 300
          TestPerClass = 100
          ValidationShare = 0.1
          Model = "preact-resnet-18"
          Width = Some 8
          Epochs = 6
          BatchSize = 50
          LearningRate = 0.1
          Milestones = [ 0.5; 0.75 ]
          Momentum = 0.9
          WeightDecay = 1e-4
          Flip = true
          CropPadding = 2
          Seed = 0
          Threads = 1
          Device = "cpu" }

    /// The configuration with this method, and its loss.
    let withMethod (method': Method) (config: Config) : Config =
        { config with
            Method = method'.Name
            Notation = Notation.show method'.Regularizer
            Loss = lossName method'.Loss
            CleanLoss = method'.CleanLoss }

    /// Refuses what is out of range, with a UserError that names it.
    let check (config: Config) : unit =
        let inRange what (lowest: int) (highest: int) value =
            if value < lowest || value > highest then
                Errors.user $"{what} {value}: it must lie in {lowest} .. {highest}."

        inRange "epochs" 1 100_000 config.Epochs
        inRange "batch size" 1 100_000 config.BatchSize
        inRange "threads" 1 256 config.Threads

        Architectures.check
            config.Model
            { (Architectures.find config.Model).Standard with
                Width = config.Width }

        if not (config.LearningRate > 0.0 && Double.IsFinite config.LearningRate) then
            Errors.user $"learning rate {config.LearningRate}: it must be positive and finite."

        if not (config.LabelSmoothing >= 0.0 && config.LabelSmoothing <= 1.0) then
            Errors.user $"label smoothing {config.LabelSmoothing}: it must lie in [0, 1]."

        if not (config.CleanLoss >= 0.0 && Double.IsFinite config.CleanLoss) then
            Errors.user $"clean loss {config.CleanLoss}: its weight must be finite and not negative."

        if config.Device <> "cpu" && config.Device <> "cuda" then
            Errors.user $"device {config.Device}: it must be cpu or cuda."

        if losses |> List.forall (fun (name, _) -> name <> config.Loss) then
            let names = losses |> List.map fst |> String.concat ", "
            Errors.user $"loss '{config.Loss}': the losses are {names}."

    /// The learning rate of an epoch, counted from 0.
    let learningRate (config: Config) (epoch: int) : float =
        let passed =
            config.Milestones
            |> List.filter (fun share -> float epoch >= share * float config.Epochs)

        config.LearningRate / pown 10.0 passed.Length

/// One pass over the training images, and what validation says after it.
type Epoch =
    {
        /// Counted from 1.
        Epoch: int
        LearningRate: float
        /// The mean over the pass.
        TrainLoss: float
        /// In percent: the weight that the mixed labels give to the predicted classes.
        ExpectedAccuracyUnderMixing: float
        /// In percent.
        ValidationError: float
        ValidationNll: float
    }

/// The result of a run: nothing in it depends on the clock or the machine's load.
type Record =
    {
        Config: Config
        Parameters: int64
        /// By validation error, then validation NLL, then the earlier.
        BestEpoch: int
        /// Of the best epoch's weights, in percent.
        TestError: float
        TestNll: float
        History: Epoch list
    }

/// How long a run took.
type Timing =
    {
        Seconds: float
        /// Images trained on, over the time of the epochs with their validation.
        ImagesPerSecond: float
        EpochSeconds: float list
    }

/// What a run reports while it goes on.
type Advance =
    /// So many more images were trained on.
    | Stepped of images: int
    | EpochDone of Epoch

/// A finished run.
[<NoEquality; NoComparison>]
type Trained =
    {
        Record: Record
        Timing: Timing
        /// With the best epoch's weights; the caller disposes it.
        Model: Model
        Network: NetworkSettings
    }

/// A run that cannot go on; the message is one line.
exception RunFailed of string with
    override this.Message = this.Data0

[<RequireQualifiedAccess>]
module Trainer =

    /// The children of a run's key. Equal seeds give every method the same start, split, order and augmentation.
    module private Child =
        let initialisation = 0
        let validation = 1
        let order = 2
        let augmentation = 3
        let mixing = 4

    /// The network for a configuration's images, not yet normalising them.
    let private network (config: Config) (dataset: Dataset) : NetworkSettings =
        { Width = config.Width
          Classes = dataset.Classes.Length
          Stride = Architectures.stride config.Model (int dataset.Train.Images.shape[2])
          Mean = [ 0.0; 0.0; 0.0 ]
          Std = [ 1.0; 1.0; 1.0 ] }

    /// The network with the mean and the standard deviation of each channel over all pixels of the images; from exact
    /// counts.
    let private normalising (split: Split) (network: NetworkSettings) : NetworkSettings =
        let area = int (split.Images.shape[2] * split.Images.shape[3])
        let counts = Array.init 3 (fun _ -> Array.zeroCreate<int64> 256)
        let bytes = split.Images.bytes

        for plane in 0 .. bytes.Length / area - 1 do
            let counts = counts[plane % 3]

            for value in bytes.Slice(plane * area, area) do
                counts[int value] <- counts[int value] + 1L

        let moments (counts: int64[]) =
            let mean (f: float -> float) =
                let weighted =
                    counts |> Array.mapi (fun value count -> float count * f (float value / 255.0))

                Array.sum weighted / float (Array.sum counts)

            let average = mean id
            average, sqrt (mean (fun value -> (value - average) ** 2.0))

        let means, deviations = counts |> List.ofArray |> List.map moments |> List.unzip

        { network with
            Mean = means
            // Images of one colour have no spread.
            Std = deviations |> List.map (max (1.0 / 255.0)) }

    /// The model as the core's stages; images are normalised before the site `input`.
    let staged (model: Model) : Staged =
        { Module = model.Module
          Stages = model.Stages }

    /// One optimiser step on a batch, with the gradients that the parameters have already, which it clears: gives the loss and the expected number of right
    /// predictions under mixing, or NaN and no step where the logits are not finite. Frees all that it makes; the batch stays the caller's.
    let step
        (loss: Loss)
        (optimizer: torch.optim.Optimizer)
        (staged: Staged)
        (plan: Plan)
        (batch: Batch)
        : struct (float * float) =
        Scope.value (fun () ->
            let result = Attach.forward plan staged batch

            if result.Features.isfinite().all().item<bool>() then
                let value = Loss.ofBatch loss result.Targets result.Features
                value.backward ()
                optimizer.step () |> ignore
                staged.Module.zero_grad ()

                struct (float (value.item<float32>()), Array.sum (Loss.expectedAccuracy result.Targets result.Features))
            else
                struct (nan, 0.0))

    /// Error and NLL on images that are left as they are, in evaluation mode.
    let evaluate (model: Model) (split: Split) : Score =
        Model.eval model
        use _ = torch.no_grad ()

        let wrong, loss =
            Array.chunkBySize 250 [| 0 .. Split.count split - 1 |]
            |> Array.map (fun indices ->
                Scope.value (fun () ->
                    let device = Model.device model
                    let images = (Augment.plain split indices).``to`` device
                    let logits = images |> model.Normalise |> Model.call model

                    let labels =
                        torch.tensor (indices |> Array.map (fun i -> int64 split.Labels[i]), device = device)

                    Metrics.wrong logits labels, Metrics.negativeLogLikelihood logits labels))
            |> Array.unzip

        let count = float (Split.count split)

        { Error = 100.0 * float (Array.sum wrong) / count
          Nll = Array.sum loss / count }

    /// The regularizer of a configuration.
    let private regularizer (config: Config) : Regularizer =
        match Catalogue.parse config.Notation with
        | Ok regularizer -> regularizer
        | Error error -> invalidArg (nameof config) $"The configuration's notation cannot be read {error}."

    /// The features' shape at every site.
    let private shapes (model: Model) (split: Split) : Place -> Shape option =
        Scope.value (fun () ->
            let image = (Augment.plain split [| 0 |]).``to``(Model.device model)
            Attach.shapes (staged model) image)

    /// The value, or RunFailed with the place where it is not finite.
    let private finite what (where: string) (value: float) : float =
        if Double.IsFinite value then
            value
        else
            raise (
                RunFailed $"the {what} is not finite ({where}); the run is stopped, a smaller learning rate may help."
            )

    let private drawMoves (config: Config) (count: int) (key: Key) : Moves =
        let bits = Key.stream key

        let drawn =
            Array.init count (fun _ ->
                bits.Below 2, bits.Below(2 * config.CropPadding + 1), bits.Below(2 * config.CropPadding + 1))

        { Flip = drawn |> Array.map (fun (flip, _, _) -> config.Flip && flip = 1)
          Dy = drawn |> Array.map (fun (_, dy, _) -> dy)
          Dx = drawn |> Array.map (fun (_, _, dx) -> dx) }

    let private sub (first: int) (count: int) (moves: Moves) : Moves =
        { Flip = Array.sub moves.Flip first count
          Dy = Array.sub moves.Dy first count
          Dx = Array.sub moves.Dx first count }

    /// Refuses sites that the network does not have.
    let private checkSites (config: Config) (sites: (string * Shape) list) (regularizer: Regularizer) =
        for step in Regularizer.steps regularizer do
            for place in Site.places step.Site do
                let isThere =
                    match place with
                    | Number number -> number < sites.Length
                    | Name name -> sites.Tail |> List.exists (fun (known, _) -> known = name)

                if not isThere then
                    let listed =
                        sites.Tail
                        |> List.mapi (fun i (name, _) -> $"{i + 1} = \"{name}\"")
                        |> String.concat ", "

                    Errors.user $"there is no site {place} in {config.Model}: its sites are 0 = input, {listed}."

    /// Batch normalisation cannot train on a single value per channel.
    let private checkLastBatch (config: Config) (sites: (string * Shape) list) (count: int) =
        // The last map; after it come the logits.
        let _, map = sites[sites.Length - 2]

        if map.Height * map.Width = 1 && count % config.BatchSize = 1 then
            Errors.user
                $"batch size {config.BatchSize}: of {count} training images one is left for the last batch, which \
                  cannot be normalised; take another batch size."

    /// How many of the training images a run holds out for validation.
    let private heldOut (config: Config) (dataset: Dataset) : int =
        let count = Split.count dataset.Train

        if count < 2 then
            Errors.user $"{count} training images: at least 2 are needed, so that one can be held out for validation."

        max 1 (int (Math.Round(config.ValidationShare * float count)))

    /// How many images an epoch trains on.
    let trainingImages (config: Config) (dataset: Dataset) : int =
        Split.count dataset.Train - heldOut config dataset

    /// Refuses what `run` would refuse, with a UserError: a configuration out of range, a site that the network does
    /// not have, too few images.
    let check (config: Config) (dataset: Dataset) : unit =
        Config.check config
        let count = trainingImages config dataset
        let size = dataset.Train.Images.shape

        let sites =
            Architectures.sites config.Model (network config dataset) (int size[2]) (int size[3])

        checkSites config sites (regularizer config)
        checkLastBatch config sites count

    /// What stays the same over the epochs of a run.
    [<NoEquality; NoComparison>]
    type private Session =
        { Config: Config
          Key: Key
          Regularizer: Regularizer
          Loss: Loss
          Model: Model
          Optimizer: torch.optim.Optimizer
          Shapes: Place -> Shape option
          Train: Split
          Classes: int }

    let private keyOf (session: Session) child epoch =
        session.Key |> Key.child child |> Key.child epoch

    /// The gradient that regions ask for which follow the input: with a clean loss, from a pass that trains too.
    let private gradient (config: Config) (model: Model) : Batch -> float32[] =
        if config.CleanLoss > 0.0 then
            Saliency.gradientWithCleanLoss config.CleanLoss CrossEntropy model.Module
        else
            Saliency.gradient CrossEntropy model.Module

    /// One pass over the training images; gives the mean loss and the expected accuracy under mixing.
    let private pass (notify: Advance -> unit) (session: Session) (epoch: int) : struct (float * float) =
        let config = session.Config
        let count = Split.count session.Train
        let order = Key.permutation count (keyOf session Child.order epoch)
        let moves = drawMoves config count (keyOf session Child.augmentation epoch)
        let mixing = keyOf session Child.mixing epoch

        for group in session.Optimizer.ParamGroups do
            group.LearningRate <- Config.learningRate config epoch

        Model.train session.Model

        let one (number: int) (indices: int[]) =
            let first = number * config.BatchSize
            let labels = indices |> Array.map (fun i -> session.Train.Labels[i])

            let struct (loss, correct) =
                Scope.value (fun () ->
                    let device = Model.device session.Model

                    let images =
                        (Augment.cropAndFlip config.CropPadding (sub first indices.Length moves) session.Train indices)
                            .``to``
                            device

                    let batch =
                        Targets.ofIndices device session.Classes labels
                        |> Batch.create (session.Model.Normalise images)

                    // A plan that does not ask for the gradient adds no clean loss.
                    let isAdded = ref (config.CleanLoss = 0.0)

                    let follow batch =
                        isAdded.Value <- true
                        gradient config session.Model batch

                    let info =
                        { BatchInfo.create indices.Length session.Shapes with
                            First = first
                            Labels = Some labels
                            Progress = (float epoch + float first / float count) / float config.Epochs }
                        |> Saliency.follow follow session.Model.Normalise images batch

                    let plan = Plan.draw mixing info session.Regularizer

                    if not isAdded.Value then
                        follow batch |> ignore

                    step session.Loss session.Optimizer (staged session.Model) plan batch)

            let loss = finite "loss" $"epoch {epoch + 1}, step {number + 1}" loss
            notify (Stepped indices.Length)
            loss * float indices.Length, correct

        let losses, correct =
            order |> Array.chunkBySize config.BatchSize |> Array.mapi one |> Array.unzip

        struct (Array.sum losses / float count, 100.0 * Array.sum correct / float count)

    let private runEpoch (notify: Advance -> unit) (session: Session) (validation: Split) (epoch: int) : Epoch =
        let struct (loss, accuracy) = pass notify session epoch
        let score = evaluate session.Model validation

        let result =
            { Epoch = epoch + 1
              LearningRate = Config.learningRate session.Config epoch
              TrainLoss = loss
              ExpectedAccuracyUnderMixing = accuracy
              ValidationError = score.Error
              ValidationNll = finite "validation loss" $"epoch {epoch + 1}" score.Nll }

        notify (EpochDone result)
        result

    let private loss (config: Config) =
        let loss = config.Loss |> (dict Config.losses).get_Item

        if config.LabelSmoothing = 0.0 then
            loss
        else
            Smoothed(config.LabelSmoothing, loss)

    let private trainModel
        notify
        (config: Config)
        (dataset: Dataset)
        network
        (train: Split)
        (validation: Split)
        (model: Model)
        : Trained =
        let clock = Stopwatch.StartNew()

        use optimizer =
            torch.optim.SGD(
                model.Module.parameters (),
                config.LearningRate,
                config.Momentum,
                weight_decay = config.WeightDecay,
                nesterov = true
            )

        let session =
            { Config = config
              Key = Key.ofSeed config.Seed
              Regularizer = regularizer config
              Loss = loss config
              Model = model
              Optimizer = optimizer
              Shapes = shapes model train
              Train = train
              Classes = dataset.Classes.Length }

        let rank (epoch: Epoch) =
            epoch.ValidationError, epoch.ValidationNll

        // The best epoch so far with its weights, and all epochs with their seconds, the last one first.
        let next (best: (Epoch * (string * torch.Tensor) list) option, epochs) number =
            let before = clock.Elapsed.TotalSeconds
            let epoch = runEpoch notify session validation number
            let epochs = (epoch, clock.Elapsed.TotalSeconds - before) :: epochs

            match best with
            | Some(earlier, _) when rank earlier <= rank epoch -> best, epochs
            | _ ->
                for _, weights in Option.fold (fun _ (_, weights) -> weights) [] best do
                    weights.Dispose()

                Some(epoch, Model.snapshot model), epochs

        let best, epochs = [ 0 .. config.Epochs - 1 ] |> List.fold next (None, [])
        let history, seconds = List.unzip (List.rev epochs)
        let bestEpoch, weights = best.Value
        Model.restore weights model
        let test = evaluate model dataset.Test

        { Record =
            { Config = config
              Parameters = Model.parameterCount model
              BestEpoch = bestEpoch.Epoch
              TestError = test.Error
              TestNll = finite "test loss" "the best epoch's weights" test.Nll
              History = history }
          Timing =
            { Seconds = clock.Elapsed.TotalSeconds
              ImagesPerSecond = float (config.Epochs * Split.count train) / List.sum seconds
              EpochSeconds = seconds }
          Model = model
          Network = network }

    /// Trains, keeps the best epoch by validation, and tests it once. The data set holds just the images that the
    /// configuration names. A UserError for a configuration out of range or a site that the network does not have;
    /// RunFailed where a loss is not finite. Sets the process's native thread count, and leaves it: runs at the same
    /// time must ask for the same one.
    let run (notify: Advance -> unit) (config: Config) (dataset: Dataset) : Trained =
        check config dataset
        torch.set_num_threads config.Threads
        let child i = Key.child i (Key.ofSeed config.Seed)

        let permutation =
            Key.permutation (Split.count dataset.Train) (child Child.validation)

        let train, validation =
            Split.holdOut (heldOut config dataset) permutation dataset.Train

        let network = network config dataset |> normalising dataset.Train

        let model =
            Architectures.create config.Model network (child Child.initialisation).State

        try
            try
                // Before the optimiser is made, which knows parameters by their native handles.
                Model.toDevice (torch.device config.Device) model
                Scope.value (fun () -> trainModel notify config dataset network train validation model)
            with _ ->
                Model.dispose model
                reraise ()
        finally
            Split.dispose train
            Split.dispose validation
