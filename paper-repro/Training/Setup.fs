namespace PatchUp.Repro

open System
open PatchUp.Functional

/// What a configuration and its images make: network, regularizer, loss, and how many images are for what.
[<RequireQualifiedAccess>]
module Setup =

    /// The network for a configuration's images, not yet normalising them.
    let network (config: Config) (corpus: Corpus) : NetworkSettings =
        { Width = config.Width
          Classes = corpus.Classes.Length
          Stride = Architectures.stride config.Model (fst (ImageSet.size corpus.Train))
          Mean = [ 0.0; 0.0; 0.0 ]
          Std = [ 1.0; 1.0; 1.0 ] }

    /// Of images in files, how many are decoded to measure mean and deviation.
    let measured = 2000

    /// The network with the configuration's mean and standard deviation of each channel, or, where it has none, those over
    /// all pixels of the training images; from exact counts.
    let normalising (config: Config) (train: ImageSet) (network: NetworkSettings) : NetworkSettings =
        let means, deviations =
            if config.Mean.IsEmpty then
                ImageSet.moments measured train |> List.unzip
            else
                config.Mean, config.Std

        { network with
            Mean = means
            // Images of one colour have no spread.
            Std = deviations |> List.map (max (1.0 / 255.0)) }

    /// The configuration that mirrors no image which would be another class's then, unless it was chosen that images are mirrored.
    let mirroring (isChosen: bool) (corpus: Corpus) (config: Config) : Config =
        { config with
            Flip = config.Flip && (isChosen || corpus.MayMirror) }

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
    let heldOut (config: Config) (corpus: Corpus) : int =
        let count = ImageSet.count corpus.Train

        if count < 2 then
            Errors.user $"{count} training images: at least 2 are needed, so that one can be held out for validation."

        max 1 (int (Math.Round(config.ValidationShare * float count)))

    /// How many images an epoch trains on.
    let trainingImages (config: Config) (corpus: Corpus) : int =
        ImageSet.count corpus.Train - heldOut config corpus

    /// Refuses what `run` would refuse, with a UserError: a configuration out of range, a site that the network does
    /// not have, too few images.
    let check (config: Config) (corpus: Corpus) : unit =
        Config.check config
        let count = trainingImages config corpus
        let height, width = ImageSet.size corpus.Train

        let sites = Architectures.sites config.Model (network config corpus) height width

        checkSites config sites (regularizer config)
        checkLastBatch config sites count
