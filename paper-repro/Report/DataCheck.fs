namespace PatchUp.Repro

open System
open System.Globalization

/// A class and how many images it has.
type ClassCount = { Class: string; Images: int }

/// What a set of images is.
type SetCheck =
    {
        /// train, test, or a corruption and its severity.
        Set: string
        Images: int
        /// Images of the class that has fewest, of the one in the middle, and of the one that has most.
        Least: int
        Median: float
        Most: int
        /// Every class in the order of the indices; null where there are more than 20.
        Classes: ClassCount list option
        /// Classes that have less than half or more than twice the median.
        Outliers: ClassCount list
        /// Of each channel over all pixels, on the scale of [0,1].
        Mean: float list
        /// Of each channel over all pixels, on the scale of [0,1].
        Std: float list
    }

/// What `patchup data check` finds.
type DataCheck =
    {
        Path: string
        Layout: string
        Classes: int
        Height: int
        Width: int
        Sets: SetCheck list
        /// What the paper does with the data set of this layout; null where it has none.
        Published: DataPreset option
        Fingerprint: string
    }

[<RequireQualifiedAccess>]
module DataCheck =

    /// More classes than these are not listed.
    let private listed = 20

    /// What a set of images of these classes is.
    let set (name: string) (classes: string[]) (images: ImageSet) : SetCheck =
        let counts = Array.zeroCreate<int> classes.Length

        for label in ImageSet.labels images do
            counts[label] <- counts[label] + 1

        let sorted = Array.sort counts

        let median =
            float (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2.0

        let each =
            [ for name, count in Array.zip classes counts -> { Class = name; Images = count } ]

        let moments = ImageSet.moments Int32.MaxValue images

        { Set = name
          Images = ImageSet.count images
          Least = sorted[0]
          Median = median
          Most = Array.last sorted
          Classes = if classes.Length > listed then None else Some each
          Outliers =
            each
            |> List.filter (fun one -> 2.0 * float one.Images < median || float one.Images > 2.0 * median)
          Mean = List.map fst moments
          Std = List.map snd moments }

    let private ofCorpus (path: string) (layout: string) (corpus: Corpus) : DataCheck =
        let height, width = ImageSet.size corpus.Train

        { Path = path
          Layout = layout
          Classes = corpus.Classes.Length
          Height = height
          Width = width
          Sets =
            [ set "train" corpus.Classes corpus.Train
              set "test" corpus.Classes corpus.Test ]
          Published =
            Layouts.all
            |> List.tryFind (fun one -> one.Name = layout)
            |> Option.bind _.Preset
          Fingerprint = corpus.Fingerprint }

    let private ofDataset (extra: bool) (path: string) : DataCheck =
        let layout, dataset = Dataset.inspect extra path

        try
            ofCorpus path layout (Corpus.ofDataset dataset)
        finally
            Dataset.dispose dataset

    /// Images in files, the middle of each brought to this side, decoded by all processors; a UserError for whatever is wrong
    /// with them.
    let inFiles (side: int) (path: string) : DataCheck =
        Corpus.inFiles
            { Threads = Environment.ProcessorCount
              Prefetch = 16 }
            side
            path
        |> ofCorpus path $"{Layouts.classFolders}, brought to {side} x {side}"

    let private ofCorrupted (path: string) (corrupted: Corrupted) : DataCheck =
        let part (corruption, severity) =
            let split = corrupted.Load corruption severity

            try
                let images = ImageSet.ofSplit split
                ImageSet.size images, set $"{corruption} {severity}" corrupted.Classes images
            finally
                Split.dispose split

        let parts = List.map part corrupted.Parts
        let height, width = fst parts.Head

        match parts |> List.tryFind (fun (other, _) -> other <> (height, width)) with
        | Some((height', width'), set) ->
            Errors.user
                $"{path}: {set.Set} has images of {width'} x {height'} pixels and {(snd parts.Head).Set} of {width} x \
                  {height}; all images must have one size."
        | None ->
            { Path = path
              Layout = corrupted.Layout
              Classes = corrupted.Classes.Length
              Height = height
              Width = width
              Sets = List.map snd parts
              Published = None
              Fingerprint = corrupted.Fingerprint() }

    /// Reads all of a folder or an archive, one set after the other, without a decoded copy, and with the data set's extra
    /// images where they are asked for; a UserError for whatever is wrong with it.
    let path (extra: bool) (path: string) : DataCheck =
        Corrupted.tryUsing path (ofCorrupted path)
        |> Option.defaultWith (fun () -> ofDataset extra path)

    // As text

    let private number (digits: int) (value: float) =
        value.ToString($"F{digits}", CultureInfo.InvariantCulture)

    let private channels digits factor (values: float list) =
        String.Join(
            "  ",
            values
            |> List.map (fun value -> (number digits (factor * value)).PadLeft(digits + 2))
        )

    let private statistics (check: DataCheck) =
        let row name mean std =
            [ name
              channels 4 1.0 mean
              channels 4 1.0 std
              channels 1 255.0 mean
              channels 1 255.0 std ]

        [ for set in check.Sets do
              row set.Set set.Mean set.Std
          match check.Published with
          | Some preset -> row $"used for {preset.Name}" preset.Mean preset.Std
          | None -> () ]
        |> Tables.aligned
            [ "red, green, blue"
              "mean in 0 .. 1"
              "deviation in 0 .. 1"
              "mean in 0 .. 255"
              "deviation in 0 .. 255" ]

    let private counts (check: DataCheck) =
        [ for set in check.Sets ->
              [ set.Set
                Tables.count set.Images
                Tables.count set.Least
                set.Median.ToString("#,0.#", CultureInfo.InvariantCulture)
                Tables.count set.Most ] ]
        |> Tables.aligned [ "set"; "images"; "least of a class"; "median"; "most" ]

    let private classes (check: DataCheck) =
        match check.Sets |> List.map _.Classes |> List.choose id with
        | [] -> []
        | sets ->
            [ List.transpose sets
              |> List.map (fun counts -> counts.Head.Class :: (counts |> List.map (fun one -> Tables.count one.Images)))
              |> Tables.aligned ("class" :: (check.Sets |> List.map _.Set)) ]

    let private outliers (check: DataCheck) =
        [ for set in check.Sets do
              if not set.Outliers.IsEmpty then
                  let shown =
                      set.Outliers
                      |> List.truncate 10
                      |> List.map (fun one -> $"{one.Class} ({one.Images})")
                      |> String.concat ", "

                  let rest =
                      if set.Outliers.Length > 10 then
                          $" and {set.Outliers.Length - 10} more"
                      else
                          ""

                  $"{set.Set}: far from the median are {shown}{rest}." ]

    let private published (check: DataCheck) =
        match check.Published with
        | None -> []
        | Some preset ->
            let flip = if preset.IsFlipped then "mirrored at random, " else ""

            let here =
                check.Sets
                |> List.map (fun set -> Tables.count set.Images)
                |> String.concat " and "

            [ $"{preset.Name} is published with {Tables.count preset.Train} training and {Tables.count preset.Test} test images; \
                here are {here}. In the paper, training images are {flip}padded by {preset.CropPadding} and cropped to \
                {preset.Size} x {preset.Size}, and all are normalised with the last row's numbers." ]

    /// What is found, in tables.
    let text (check: DataCheck) : string =
        let printable =
            String.map (fun c -> if Char.IsControl c && c <> '\n' then '?' else c)

        [ [ $"{check.Path}: {check.Layout}; {check.Classes} classes, images of {check.Width} x {check.Height}" ]
          [ counts check ]
          // Columns for every corruption would be too many.
          (if check.Sets.Length <= 2 then classes check else [])
          outliers check
          [ statistics check ]
          published check
          [ $"fingerprint {check.Fingerprint}" ] ]
        |> List.concat
        |> String.concat "\n\n"
        |> printable
