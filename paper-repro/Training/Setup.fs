namespace PatchUp.Repro

open System
open PatchUp.Functional

/// What a configuration and its images make: network, regularizer, loss, and how many images are for what.
[<RequireQualifiedAccess>]
module Setup =

    /// The network for a configuration's images, not yet normalising them.
    let network (config: Config) (dataset: Dataset) : NetworkSettings =
        { Width = config.Width
          Classes = dataset.Classes.Length
          Stride = Architectures.stride config.Model (int dataset.Train.Images.shape[2])
          Mean = [ 0.0; 0.0; 0.0 ]
          Std = [ 1.0; 1.0; 1.0 ] }

    /// The network with the mean and the standard deviation of each channel over all pixels of the images; from exact
    /// counts.
    let normalising (split: Split) (network: NetworkSettings) : NetworkSettings =
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

    /// The regularizer of a configuration.
    let regularizer (config: Config) : Regularizer =
        match Catalogue.parse config.Notation with
        | Ok regularizer -> regularizer
        | Error error -> invalidArg (nameof config) $"The configuration's notation cannot be read {error}."

    /// The loss of a configuration, label smoothing included.
    let loss (config: Config) : Loss =
        let loss = config.Loss |> (dict Config.losses).get_Item

        if config.LabelSmoothing = 0.0 then
            loss
        else
            Smoothed(config.LabelSmoothing, loss)

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
    let heldOut (config: Config) (dataset: Dataset) : int =
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
