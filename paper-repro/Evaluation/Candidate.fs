namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.IO
open System.Security.Cryptography
open TorchSharp

/// A trained network and the test images on which it is evaluated.
[<NoEquality; NoComparison>]
type Candidate =
    {
        /// Its weights file.
        Path: string
        /// Of that file, in hexadecimal.
        Sha256: string
        /// In evaluation mode; its parameters want no gradients.
        Model: Model
        /// In the order of their indices.
        Classes: string list
        /// What was said of a file that another program wrote.
        Foreign: ForeignWeights option
        /// The name of the method it was trained with; None where the file does not say.
        Method: string option
        /// The record of its run, where that lies in the results folder beside it.
        Record: Record option
        /// The name of the data set.
        Data: string
        /// Of the data set.
        Fingerprint: string
        /// The test images.
        Test: ImageSet
    }

[<RequireQualifiedAccess>]
module Candidate =

    /// How images in files are read ahead.
    let private workers =
        { Threads = Environment.ProcessorCount
          Prefetch = 16 }

    /// The record that `train` and `compare` write beside a weights file: RESULTS/records/NAME.json for RESULTS/weights/NAME.safetensors.
    let private recordOf (path: string) : Record option =
        let folder = Path.GetDirectoryName(Path.GetFullPath path)

        let record =
            Path.Combine(folder, "..", "records", Path.GetFileNameWithoutExtension path + ".json")

        if File.Exists record then
            match
                Errors.reading record (fun () -> File.ReadAllText record)
                |> Json.tryRead<Record>
            with
            | Some found when
                not (
                    isNull (box found)
                    || isNull (box found.Config)
                    || isNull found.Config.Fingerprint
                )
                ->
                Some found
            | _ ->
                Errors.user
                    $"{Path.GetFullPath record}: damaged, or of another version of this program, so that it does not say on which images its network \
                      was tested; train again, or move the weights elsewhere to evaluate them on all of a data set's."
        else
            None

    let private digest (path: string) : string =
        Errors.reading path (fun () ->
            use stream = Errors.openRead path
            Convert.ToHexStringLower(SHA256.HashData stream))

    /// The images: what is named, else those in the program, where the run was on these. They stay in their files where a side is named, and
    /// where the run's did.
    let private open' (path: string) (data: string option) (imageSize: int option) (record: Record option) : Corpus =
        let side = imageSize |> Option.orElse (record |> Option.bind _.Config.ImageSize)

        match data, side with
        | Some data, Some side -> Corpus.inFiles workers side data
        | Some data, None -> Dataset.read data |> Corpus.ofDataset
        | None, _ ->
            let embedded = Dataset.embedded () |> Corpus.ofDataset

            try
                match record with
                | Some record when record.Config.Fingerprint <> embedded.Fingerprint ->
                    Errors.user $"{path}: it was trained on {record.Config.Data}; name these data with --data."
                | _ when side.IsSome ->
                    Errors.user "an image size is for images in files; name their folder with --data."
                | _ -> embedded
            with _ ->
                Corpus.dispose embedded
                reraise ()

    /// Refuses images that the network is not for. Names of classes are compared where the weights have them.
    let private check (path: string) (classifier: Classifier) (hasNames: bool) (corpus: Corpus) =
        let height, width = ImageSet.size corpus.Test

        if (height, width) <> (classifier.ImageHeight, classifier.ImageWidth) then
            Errors.user
                $"{path}: its images have {classifier.ImageWidth} x {classifier.ImageHeight} pixels and those of {corpus.Name} \
                  {width} x {height}; name other data with --data."

        if classifier.Classes.Length <> corpus.Classes.Length then
            Errors.user
                $"{path}: it tells {classifier.Classes.Length} classes, and {corpus.Name} has {corpus.Classes.Length}; name other \
                  data with --data."

        if hasNames then
            for i, (own, other) in Seq.indexed (Seq.zip classifier.Classes corpus.Classes) do
                if own <> other then
                    Errors.user
                        $"{path}: its class {i} is '{own}', and that of {corpus.Name} '{other}'; name other data with --data."

    /// The test images of a data set: of the run's own data those that the run was tested on, else all of them; then so many of these,
    /// spread evenly.
    let private testImages (record: Record option) (images: int option) (corpus: Corpus) : ImageSet =
        let own =
            match record with
            | Some record when record.Config.Fingerprint = corpus.Fingerprint && record.Config.TestPerClass > 0 ->
                ImageSet.firstOfEach record.Config.TestPerClass corpus.Test
            | _ -> corpus.Test

        match images with
        | None -> own
        | Some images -> ImageSet.spread images own

    let private classifierOf (path: string) (foreign: ForeignWeights option) : Classifier * string option * bool =
        match foreign with
        | Some foreign -> Checkpoint.readForeign path foreign, None, foreign.ClassNames.IsSome
        | None ->
            let found, model = Checkpoint.read path

            { Model = model
              ImageHeight = found.ImageHeight
              ImageWidth = found.ImageWidth
              Classes = found.Classes },
            Some found.Method,
            true

    /// Refuses, before anything is computed, a weights file that cannot be read, and a damaged record beside it.
    let look (foreign: ForeignWeights option) (path: string) : unit =
        let classifier, _, _ = classifierOf path foreign
        Model.dispose classifier.Model

        if foreign.IsNone then
            recordOf path |> ignore

    /// Frees the network and the images.
    let dispose (candidate: Candidate) : unit =
        Model.dispose candidate.Model
        ImageSet.dispose candidate.Test

    /// Reads a weights file, another program's where `foreign` says of which model, and the test images of `data`, else of the record beside
    /// the weights, else those in the program; `images` of them, or all. They stay in their files, and parts of them are resized to squares, where
    /// `imageSize` says of which side, or the record. The caller disposes it. A UserError where a file cannot be read, or
    /// images and network do not go together.
    let load
        (device: string)
        (foreign: ForeignWeights option)
        (data: string option)
        (imageSize: int option)
        (images: int option)
        (path: string)
        : Candidate =
        let classifier, method', hasNames = classifierOf path foreign

        try
            let record = if foreign.IsSome then None else recordOf path
            let corpus = open' path data imageSize record

            try
                ImageSet.dispose corpus.Train
                check path classifier hasNames corpus
                Model.toDevice (torch.device device) classifier.Model
                Model.eval classifier.Model

                for parameter in classifier.Model.Module.parameters () do
                    parameter.requires_grad <- false

                { Path = path
                  Sha256 = digest path
                  Model = classifier.Model
                  Classes = classifier.Classes
                  Foreign = foreign
                  Method = method'
                  Record = record
                  Data = corpus.Name
                  Fingerprint = corpus.Fingerprint
                  Test = testImages record images corpus }
            with _ ->
                ImageSet.dispose corpus.Test
                reraise ()
        with _ ->
            Model.dispose classifier.Model
            reraise ()

    /// By how much each channel of an image in [0,1] is divided for the network.
    let std (candidate: Candidate) : float list =
        Scope.value (fun () ->
            let device = Model.device candidate.Model

            let black =
                candidate.Model.Normalise(torch.zeros ([| 1L; 3L; 1L; 1L |], device = device))

            let white =
                candidate.Model.Normalise(torch.ones ([| 1L; 3L; 1L; 1L |], device = device))

            [ for value in (white - black).cpu().data<float32>() -> 1.0 / float value ])

    /// Images `[N,3,H,W]` in [0,1], on the network's device, to logits `[N,K]`; gradients by the images flow. The result is the caller's.
    let logits (candidate: Candidate) (images: torch.Tensor) : torch.Tensor =
        Scope.run (fun () -> images |> candidate.Model.Normalise |> Model.call candidate.Model)

    /// How many images are computed at once: 100, and of images in files no more than fit the memory.
    let batch (candidate: Candidate) : int =
        min 100 (ImageSet.evaluated candidate.Test)

    /// What `work` makes of each batch of a set's images in [0,1], on the network's device and without gradients; with the images' places.
    let batches (candidate: Candidate) (set: ImageSet) (work: int[] -> torch.Tensor -> 'a) : 'a list =
        use _ = torch.no_grad ()

        ImageSet.using (ImageSet.inOrder set) (fun feed ->
            [ for places in Array.chunkBySize (batch candidate) [| 0 .. ImageSet.count set - 1 |] ->
                  Scope.value (fun () -> (feed.Next places.Length).``to``(Model.device candidate.Model) |> work places) ])

    /// The network's answers to images that may be others than its test images. RunFailed where a logit is not finite.
    let answers (candidate: Candidate) (set: ImageSet) : Answer[] =
        let labels = ImageSet.labels set

        batches candidate set (fun indices images ->
            let logits =
                (logits candidate images).cpu().``to``(torch.float64).data<float>().ToArray()

            Array.chunkBySize (logits.Length / indices.Length) logits
            |> Array.map2
                (fun i row ->
                    if not (Array.forall Double.IsFinite row) then
                        raise (
                            RunFailed
                                $"{candidate.Path}: what the network gives for the test image {i} is not finite."
                        )

                    Answer.ofLogits labels[i] row)
                indices)
        |> Array.concat

    /// The classes of a batch of images of the network's size, uint8 `[B,3,H,W]`. RunFailed where a logit is not finite.
    let classify (candidate: Candidate) (images: torch.Tensor) : int[] =
        Scope.value (fun () ->
            { Images = images.cpu().contiguous()
              Labels = Array.zeroCreate (int images.shape[0]) }
            |> ImageSet.ofSplit
            |> answers candidate
            |> Array.map _.Predicted)
