namespace PatchUp.Repro

open System
open PatchUp.Functional

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
        /// 0 for all.
        TrainPerClass: int
        /// 0 for all.
        TestPerClass: int
        /// Of the training images.
        ValidationShare: float
        /// The name of an architecture.
        Model: string
        /// Of the network; None where the model's name says how wide it is.
        Width: int option
        Epochs: int
        BatchSize: int
        /// The highest of the run.
        LearningRate: float
        /// How the learning rate goes: a name of `Config.schedules`.
        Schedule: string
        /// Where multi-step divides the learning rate by ten, as shares of the epochs.
        Milestones: float list
        /// In how many epochs, or parts of one, the learning rate rises to where its schedule has it; 0 for none.
        Warmup: float
        /// Nesterov's.
        Momentum: float
        WeightDecay: float
        /// The largest norm of all gradients together, to which larger ones are shrunk; 0 for any.
        ClipNorm: float
        /// Of the moving average of the weights, which then is what is validated, tested and kept; 0 for none.
        EmaDecay: float
        /// The side to which the images, which stay in their files until they are used, are brought: training images by a crop
        /// of random size, others by one in the middle. None where images are decoded before, and have one size.
        ImageSize: int option
        /// Of each channel, on the scale of [0,1], taken away from the images; empty where it is measured on the training images.
        Mean: float list
        /// Of each channel, on the scale of [0,1], by which the images are divided; empty where it is measured.
        Std: float list
        /// Is each training image mirrored with a chance of 1/2?
        Flip: bool
        /// By how many pixels training images are padded before they are cropped to their size; 0 with an image size.
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

    /// The names of the learning rate's schedules.
    let schedules: string list = [ "multi-step"; "cosine"; "one-cycle" ]

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
          Schedule = schedules.Head
          Milestones = [ 0.5; 0.75 ]
          Warmup = 0.0
          Momentum = 0.9
          WeightDecay = 1e-4
          ClipNorm = 0.0
          EmaDecay = 0.0
          ImageSize = None
          Mean = []
          Std = []
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

        if not (List.contains config.Schedule schedules) then
            let names = String.concat ", " schedules
            Errors.user $"schedule '{config.Schedule}': the schedules are {names}."

        if not (config.Warmup >= 0.0 && config.Warmup < float config.Epochs) then
            Errors.user $"warm-up {config.Warmup}: it must lie in [0, {config.Epochs}), the epochs."

        if config.Warmup > 0.0 && config.Schedule = "one-cycle" then
            Errors.user $"warm-up {config.Warmup}: the schedule one-cycle has its own; leave it out."

        if
            config.Milestones
            |> List.exists (fun share -> not (share >= 0.0 && share <= 1.0))
        then
            let shares = config.Milestones |> List.map string |> String.concat ", "
            Errors.user $"milestones {shares}: they are shares of the epochs, in [0, 1]."

        if not (config.EmaDecay >= 0.0 && config.EmaDecay < 1.0) then
            Errors.user $"decay {config.EmaDecay} of the moving average: it must lie in [0, 1)."

        for what, value in
            [ "clip norm", config.ClipNorm
              "momentum", config.Momentum
              "weight decay", config.WeightDecay ] do
            if not (value >= 0.0 && Double.IsFinite value) then
                Errors.user $"{what} {value}: it must be finite and not negative."

        if not (config.ValidationShare > 0.0 && config.ValidationShare < 1.0) then
            Errors.user $"validation share {config.ValidationShare}: it must lie between 0 and 1."

        inRange "crop padding" 0 1000 config.CropPadding

        match config.ImageSize with
        | None -> ()
        | Some side ->
            inRange "image size" 8 1024 side

            if config.CropPadding > 0 then
                Errors.user
                    $"crop padding {config.CropPadding}: with an image size, crops are of random size and without padding; it must be 0."

        for what, values, isRight in
            [ "mean", config.Mean, (fun value -> value >= 0.0 && value <= 1.0)
              "std", config.Std, (fun value -> value > 0.0 && value <= 1.0) ] do
            if
                (not values.IsEmpty || not (config.Mean.IsEmpty && config.Std.IsEmpty))
                && not (values.Length = 3 && List.forall isRight values)
            then
                let shown = values |> List.map string |> String.concat ", "

                Errors.user
                    $"{what} [{shown}]: mean and std are three numbers each, on the scale of [0, 1], or both empty and measured."

        if config.Device <> "cpu" && config.Device <> "cuda" then
            Errors.user $"device {config.Device}: it must be cpu or cuda."

        if losses |> List.forall (fun (name, _) -> name <> config.Loss) then
            let names = losses |> List.map fst |> String.concat ", "
            Errors.user $"loss '{config.Loss}': the losses are {names}."

    /// The learning rate of a step, counted from 0 over the whole run.
    let learningRate (config: Config) (stepsPerEpoch: int) (step: int) : float =
        let curve =
            match config.Schedule with
            | "cosine" -> Cosine
            | "one-cycle" -> OneCycle
            | _ -> MultiStep config.Milestones

        Schedule.rate config.LearningRate curve config.Warmup config.Epochs stepsPerEpoch step

    /// The configuration with what is published for a data set: normalisation, augmentation, and all of its images.
    let withData (preset: DataPreset) (config: Config) : Config =
        { config with
            TrainPerClass = 0
            TestPerClass = 0
            ValidationShare = 0.1
            ImageSize = preset.ImageSize
            Mean = preset.Mean
            Std = preset.Std
            Flip = preset.IsFlipped
            CropPadding = preset.CropPadding }

    /// Published schedules: name and what they are.
    let presets: (string * string) list =
        [ "paper-2020",
          "the PatchUp paper's: preact-resnet-18 and -34 (width 64) 2000 epochs, the rate divided by ten at 500, 1000 and \
           1500; wrn-28-10 400 epochs, at 200 and 300; batches of 100, learning rate 0.1, weight decay 0.0001, and \
           bce-on-softmax, to which this rate belongs" ]

    /// The configuration with a published schedule for its model; a UserError where there is none.
    let withPreset (name: string) (config: Config) : Config =
        if presets |> List.forall (fun (known, _) -> known <> name) then
            let names = presets |> List.map fst |> String.concat ", "
            Errors.user $"preset '{name}': the presets are {names}."

        let epochs, milestones, width =
            match config.Model with
            | "preact-resnet-18"
            | "preact-resnet-34" -> 2000, [ 0.25; 0.5; 0.75 ], Some 64
            | "wrn-28-10"
            | "wrn-28-10-2020" -> 400, [ 0.5; 0.75 ], None
            | model ->
                Errors.user
                    $"preset {name}: it has no schedule for {model}; it has one for preact-resnet-18, preact-resnet-34 and wrn-28-10."

        { config with
            Width = width
            Epochs = epochs
            Loss = "bce-on-softmax"
            BatchSize = 100
            LearningRate = 0.1
            Schedule = "multi-step"
            Milestones = milestones
            Warmup = 0.0
            Momentum = 0.9
            WeightDecay = 1e-4 }
