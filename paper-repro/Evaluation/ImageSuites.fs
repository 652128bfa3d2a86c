namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Globalization
open TorchSharp

/// The error on images that were deformed in one way.
type DeformationError =
    {
        /// As in the paper's tables.
        Deformation: string
        /// Wrong predictions, in percent.
        Error: float
        /// The mean change of the images' values, in levels of 255.
        MeanChange: float
    }

/// A classifier's errors on deformed images: the paper's tables 4 and 10.
type DeformedErrors =
    {
        /// How many images were deformed.
        Images: int
        /// Wrong predictions on the images as they are, in percent.
        CleanError: float
        Deformations: DeformationError list
        /// What a reader must know of the numbers; often nothing.
        Notes: string list
    }

/// The errors on images that were corrupted in one way.
type CorruptionError =
    {
        /// The name of its folder; "frost, substitute texture" where the frost is generated.
        Corruption: string
        Severities: int list
        /// Wrong predictions at each of the severities, in percent.
        Errors: float list
        /// Of the errors, in points, as in the paper's figure 4.
        Sum: float
        /// The mean change of the images' values at each severity, in levels of 255; none where the images were read.
        MeanChanges: float list
    }

/// A classifier's errors on corrupted images: the paper's figure 4.
type CorruptedErrors =
    {
        /// "generated", or the name of what the images were read from.
        Source: string
        /// Of what the images were read from; None where they are generated.
        Fingerprint: string option
        /// How many images each corruption and severity has.
        Images: int
        /// Wrong predictions on the images as they are, in percent; None where corrupted images were read, which come without.
        CleanError: float option
        Corruptions: CorruptionError list
        /// Of all corruptions and severities, in percent.
        MeanError: float
        /// What a reader must know of the numbers; often nothing.
        Notes: string list
    }

/// A corruption's summed error beside a baseline's.
type RelativeError =
    {
        Corruption: string
        /// 100 times the summed error over the baseline's.
        Percent: float
    }

/// The mean corruption error (Hendrycks and Dietterich 2019).
type MeanCorruptionError =
    {
        Corruptions: RelativeError list
        /// The mean of the corruptions' percents.
        Mce: float
    }

/// What both suites do.
module private OnImages =

    /// Images that a classifier is given at once.
    let batch = 200

    /// Of a batch, uint8 `[B,3,H,W]`.
    type Classify = torch.Tensor -> int[]

    let checkImages (what: string) (set: ImageSet) =
        if ImageSet.count set = 0 then
            invalidArg (nameof set) $"There are no images to {what}."

    /// The sum of |a - b| over the bytes of two tensors of one size.
    let private gap (a: torch.Tensor) (b: torch.Tensor) : int64 =
        let before = a.contiguous().bytes.ToArray()
        let after = b.contiguous().bytes.ToArray()
        let mutable sum = 0L

        for i in 0 .. before.Length - 1 do
            sum <- sum + int64 (abs (int before[i] - int after[i]))

        sum

    /// The error in percent, and the mean change, of images that `change` makes of each batch and the place of its first image. RunFailed
    /// where these are no images of the same size, or are not classified one by one.
    let error
        (what: string)
        (classify: Classify)
        (change: int -> torch.Tensor -> torch.Tensor)
        (set: ImageSet)
        : float * float =
        let labels = ImageSet.labels set
        let height, width = ImageSet.size set

        let one (places: int[]) =
            Scope.value (fun () ->
                let clean = ImageSet.bytes set places
                let changed = change places[0] clean

                if changed.dtype <> torch.uint8 || changed.shape <> clean.shape then
                    let size (t: torch.Tensor) = String.Join(",", t.shape)

                    raise (
                        RunFailed
                            $"{what}: images of {clean.dtype} [{size clean}] became {changed.dtype} [{size changed}]."
                    )

                let predictions = classify changed

                if predictions.Length <> places.Length then
                    raise (
                        RunFailed
                            $"{what}: {places.Length} images were given and {predictions.Length} predictions came back."
                    )

                let wrong =
                    Seq.zip predictions places
                    |> Seq.sumBy (fun (prediction, place) -> if prediction = labels[place] then 0 else 1)

                wrong, gap clean changed)

        let count = ImageSet.count set

        let parts =
            [ for places in Array.chunkBySize batch [| 0 .. count - 1 |] -> one places ]

        let values = float (3L * int64 height * int64 width * int64 count)
        100.0 * float (List.sumBy fst parts) / float count, float (List.sumBy snd parts) / values

    /// The error on the images as they are; RunFailed unless `identity`, the change that is none, gives the same images and the same error.
    let cleanError what (classify: Classify) (identity: int -> torch.Tensor -> torch.Tensor) (set: ImageSet) : float =
        let clean, _ = error what classify (fun _ images -> images) set
        let again, change = error what classify identity set

        if change <> 0.0 || again <> clean then
            let show (number: float) =
                number.ToString("0.####", CultureInfo.InvariantCulture)

            raise (
                RunFailed
                    $"{what}: of strength 0 it changes images by {show change} levels and the error from {show clean} %% to \
                      {show again} %%; it must change nothing."
            )

        clean

    let unchanged (what: string) = $"{what}: no image changes by it."

/// The suite of deformed images.
[<RequireQualifiedAccess>]
module DeformedSuite =

    /// `run` with other deformations, drawn and done by `deform`, as `Deformation.images`: for broken ones, which it must refuse.
    let runWith
        (deform: Key -> int -> Deformation -> torch.Tensor -> torch.Tensor)
        (deformations: Deformation list)
        (classify: torch.Tensor -> int[])
        (set: ImageSet)
        (key: Key)
        : DeformedErrors =
        OnImages.checkImages "deform" set

        let change place deformation first images =
            deform (Key.child place key) first deformation images

        let clean =
            OnImages.cleanError "deformed" classify (change -1 Deformation.identity) set

        let errors =
            [ for place, deformation in List.indexed deformations do
                  let error, change =
                      OnImages.error deformation.Name classify (change place deformation) set

                  { Deformation = deformation.Name
                    Error = error
                    MeanChange = change } ]

        { Images = ImageSet.count set
          CleanError = clean
          Deformations = errors
          Notes =
            [ for error in errors do
                  if error.MeanChange = 0.0 then
                      OnImages.unchanged error.Deformation ] }

    /// The errors of a classifier on the images deformed as in the paper's tables. `classify` gives the classes of a batch of 200 images at most,
    /// uint8 `[B,3,H,W]` on the CPU, which it must not keep. Each image's draws depend on the key and on its place in the set. RunFailed where
    /// a self-check fails: the deformation of strength 0 must change neither image nor error.
    let run (classify: torch.Tensor -> int[]) (set: ImageSet) (key: Key) : DeformedErrors =
        runWith Deformation.images Deformation.paper classify set key

/// The suite of corrupted images.
[<RequireQualifiedAccess>]
module CorruptedSuite =

    /// What is said of frost that is generated.
    let private substitute = "frost, substitute texture"

    let private record source fingerprint images clean (errors: CorruptionError list) : CorruptedErrors =
        { Source = source
          Fingerprint = fingerprint
          Images = images
          CleanError = clean
          Corruptions = errors
          MeanError = errors |> List.collect _.Errors |> List.average
          Notes =
            [ for error in errors do
                  if error.Corruption = substitute then
                      "frost, substitute texture: generated with the statistics of the published textures; its error is no published number's like."

                  for severity, change in Seq.zip error.Severities error.MeanChanges do
                      if change = 0.0 then
                          OnImages.unchanged $"{error.Corruption}, severity {severity}" ] }

    /// `run` with images corrupted by `corrupt`, as `Corruptions.images`: for broken ones, which it must refuse.
    let runWith
        (corrupt: Corruption -> int -> Key -> int -> torch.Tensor -> torch.Tensor)
        (report: string -> unit)
        (textures: FrostTextures)
        (classify: torch.Tensor -> int[])
        (set: ImageSet)
        (key: Key)
        : CorruptedErrors =
        OnImages.checkImages "corrupt" set

        match ImageSet.size set with
        | height, width when height = width && List.contains height Corruption.sides -> ()
        | height, width ->
            Errors.user
                $"corrupted: the images have {width} x {height} pixels; the corruptions are published for 32 x 32 and 64 x 64."

        // All of severity 0, one after the other.
        let none first images =
            (images, Corruption.all)
            ||> List.fold (fun images (_, corruption) -> corrupt corruption 0 key first images)

        let clean = OnImages.cleanError "corrupted" classify none set

        let errorsOf (place: int) (name: string, corruption: Corruption) : CorruptionError =
            report $"{name}, corruption {place + 1} of {Corruption.all.Length}"

            let name =
                match corruption, textures with
                | Corruption.Frost, Substitute -> substitute
                | _ -> name

            let errors, changes =
                [ for severity in 1 .. Corruption.severities ->
                      OnImages.error $"{name} {severity}" classify (corrupt corruption severity key) set ]
                |> List.unzip

            { Corruption = name
              Severities = [ 1 .. Corruption.severities ]
              Errors = errors
              Sum = List.sum errors
              MeanChanges = changes }

        Corruption.all
        |> List.mapi errorsOf
        |> record "generated" None (ImageSet.count set) (Some clean)

    /// The errors of a classifier on the images, of 32 x 32 or 64 x 64 pixels, corrupted in all fifteen ways and five severities each. `classify`
    /// gives the classes of a batch of 200 images at most, uint8 `[B,3,H,W]` on the CPU, which it must not keep. Each image's draws depend on the
    /// key and on its place in the set. `report` is told in a line which corruption comes next. A UserError for images of another size; RunFailed where a self-check fails: severity 0 must change
    /// neither image nor error.
    let run
        (report: string -> unit)
        (textures: FrostTextures)
        (classify: torch.Tensor -> int[])
        (set: ImageSet)
        (key: Key)
        : CorruptedErrors =
        runWith (Corruptions.images textures) report textures classify set key

    /// Class indices of the folder's classes among the model's: by name, or by the word before the first space (Tiny-ImageNet's
    /// "WNID name"); as they are where the folder's have numbers for names.
    let private indices (path: string) (classes: string[]) (corrupted: Corrupted) : int[] =
        let ids = classes |> Array.map (fun name -> name.Split(' ')[0])

        corrupted.Classes
        |> Array.mapi (fun index name ->
            let found =
                [ classes; ids ]
                |> List.map (fun names -> System.Array.IndexOf(names, name))
                |> List.max

            if found >= 0 then
                found
            elif name = string index && index < classes.Length then
                index
            else
                Errors.user $"{path}: its class '{name}' is none of the model's {classes.Length} classes.")

    let private using (path: string) (look: Corrupted -> 'a) : 'a =
        match Corrupted.tryUsing path look with
        | Some found -> found
        | None ->
            Errors.user
                $"{path}: no corrupted images; a folder or an archive as Tiny-ImageNet-C's or CIFAR-10-C's is needed."

    let private isNumbered (corrupted: Corrupted) =
        corrupted.Classes = Array.init corrupted.Classes.Length string

    /// The indices, where the images are for a classifier of these classes and this height and width.
    let private indicesFor path (classes: string[]) (size: int * int) (corrupted: Corrupted) : int[] =
        // Names tell which classes they are; of numbers all that can be told is how many.
        if isNumbered corrupted && corrupted.Classes.Length <> classes.Length then
            Errors.user
                $"{path}: it has {corrupted.Classes.Length} classes, and the network tells {classes.Length}; name the corrupted images of its own data set."

        let index = indices path classes corrupted
        let split = corrupted.Load (fst corrupted.Parts.Head) (snd corrupted.Parts.Head)

        try
            let height, width = ImageSet.size (ImageSet.ofSplit split)

            if (height, width) <> size then
                Errors.user
                    $"{path}: its images have {width} x {height} pixels, and those of the network {snd size} x {fst size}; name the corrupted images of its own \
                      data set."
        finally
            Split.dispose split

        index

    /// The name, corruptions and severities of published images. A UserError where there are none, or they are not for a classifier of these classes, height
    /// and width.
    let look (classes: string[]) (size: int * int) (path: string) : string * (string * int) list =
        using path (fun corrupted ->
            indicesFor path classes size corrupted |> ignore
            corrupted.Name, corrupted.Parts)

    /// The same on corrupted images that were published, in a folder or an archive as Tiny-ImageNet-C's or CIFAR-10-C's: of each corruption and severity that
    /// there is all images, or so many, spread evenly. `classes` names the classifier's classes in the order of their indices, and `size` is the height and
    /// width of its images. A UserError where there are no such images, or they are not for such a classifier.
    let read
        (report: string -> unit)
        (classify: torch.Tensor -> int[])
        (classes: string[])
        (size: int * int)
        (images: int option)
        (path: string)
        : CorruptedErrors =
        let look (corrupted: Corrupted) =
            let index = indicesFor path classes size corrupted

            let part (name: string) severity =
                report $"{name}, severity {severity}"
                let split = corrupted.Load name severity

                try
                    let all =
                        ImageSet.ofSplit
                            { split with
                                Labels = split.Labels |> Array.map (fun label -> index[label]) }

                    let taken =
                        match images with
                        | Some images -> ImageSet.spread images all
                        | None -> all

                    ImageSet.count taken,
                    fst (OnImages.error $"{name} {severity}" classify (fun _ images -> images) taken)
                finally
                    Split.dispose split

            let results =
                [ for name, parts in corrupted.Parts |> List.groupBy fst do
                      let severities = parts |> List.map snd |> List.sort
                      name, severities, severities |> List.map (part name) ]

            let counts = results |> List.collect (fun (_, _, parts) -> List.map fst parts)

            if List.distinct counts |> List.length > 1 then
                Errors.user
                    $"{path}: its corruptions have from {List.min counts} to {List.max counts} images; fetch it again."

            let found =
                record
                    corrupted.Name
                    (Some(corrupted.Fingerprint()))
                    counts.Head
                    None
                    [ for name, severities, parts in results do
                          let errors = parts |> List.map snd

                          { Corruption = name
                            Severities = severities
                            Errors = errors
                            Sum = List.sum errors
                            MeanChanges = [] } ]

            if isNumbered corrupted then
                { found with
                    Notes =
                        $"{corrupted.Name}: its classes are numbers, which are taken in the order of the network's."
                        :: found.Notes }
            else
                found

        using path look

    /// Each corruption's summed error beside a baseline's, and their mean. A UserError where the two records are not of the same images, corruptions and
    /// severities (generated frost is another corruption than published frost), and where the baseline makes no error.
    let relative (baseline: CorruptedErrors) (errors: CorruptedErrors) : MeanCorruptionError =
        let parts (record: CorruptedErrors) =
            record.Corruptions
            |> List.map (fun error -> error.Corruption, error.Severities)
            |> List.sort

        if
            (baseline.Source, baseline.Fingerprint, baseline.Images)
            <> (errors.Source, errors.Fingerprint, errors.Images)
        then
            let shown (record: CorruptedErrors) =
                $"{record.Images} images, {record.Source}"

            Errors.user
                $"the baseline is of other images ({shown baseline}) than this network ({shown errors}); evaluate both on the same ones."

        match
            List.except (parts baseline) (parts errors)
            @ List.except (parts errors) (parts baseline)
        with
        | (name, _) :: _ ->
            Errors.user
                $"'{name}' is not in both records with the same severities; compare records of the same corruptions."
        | [] -> ()

        let relative =
            [ for error in errors.Corruptions do
                  let before =
                      baseline.Corruptions
                      |> List.find (fun other -> other.Corruption = error.Corruption)

                  if before.Sum <= 0.0 then
                      Errors.user $"the baseline makes no error on {before.Corruption}; choose another baseline."

                  { Corruption = error.Corruption
                    Percent = 100.0 * error.Sum / before.Sum } ]

        { Corruptions = relative
          Mce = relative |> List.averageBy _.Percent }
