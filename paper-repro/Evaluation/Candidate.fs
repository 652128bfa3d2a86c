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
        /// The name of the method it was trained with; None where the file does not say.
        Method: string option
        /// The record of its run, where that lies in the results folder beside it.
        Record: Record option
        /// The name of the data set.
        Data: string
        /// Of the data set.
        Fingerprint: string
        /// The test images.
        Test: Split
    }

[<RequireQualifiedAccess>]
module Candidate =

    /// How many images are computed at once.
    let private batch = 100

    /// The record that `train` and `compare` write beside a weights file: RESULTS/records/NAME.json for RESULTS/weights/NAME.safetensors.
    let private recordOf (path: string) : Record option =
        let folder = Path.GetDirectoryName(Path.GetFullPath path)

        let record =
            Path.Combine(folder, "..", "records", Path.GetFileNameWithoutExtension path + ".json")

        if File.Exists record then
            Errors.reading record (fun () -> File.ReadAllText record)
            |> Json.tryRead<Record>
        else
            None

    let private digest (path: string) : string =
        Errors.reading path (fun () ->
            use stream = Errors.openRead path
            Convert.ToHexStringLower(SHA256.HashData stream))

    /// The data set: what is named, else the images in the program, where the run was on these.
    let private open' (path: string) (data: string option) (record: Record option) : Dataset =
        match data, record with
        | Some data, _ -> Dataset.read data
        | None, Some record ->
            let embedded = Dataset.embedded ()

            if record.Config.Fingerprint <> embedded.Fingerprint then
                Dataset.dispose embedded
                Errors.user $"{path}: it was trained on {record.Config.Data}; name these data with --data."

            embedded
        | None, None -> Dataset.embedded ()

    /// So many images, as evenly spread over the split as can be: image i of n is the one at i count / n.
    let spread (images: int) (split: Split) : Split =
        let count = Split.count split

        if images < 1 || images > count then
            Errors.user $"images {images}: the test set has {count}; ask for 1 .. {count}."

        Split.select [| for i in 0 .. images - 1 -> int (int64 i * int64 count / int64 images) |] split

    /// Refuses images that the network is not for. Names of classes are compared where the weights have them.
    let private check (path: string) (classifier: Classifier) (hasNames: bool) (dataset: Dataset) =
        let size = dataset.Test.Images.shape

        if
            size[2] <> int64 classifier.ImageHeight
            || size[3] <> int64 classifier.ImageWidth
        then
            Errors.user
                $"{path}: its images have {classifier.ImageWidth} x {classifier.ImageHeight} pixels and those of {dataset.Name} \
                  {size[3]} x {size[2]}; name other data with --data."

        if classifier.Classes.Length <> dataset.Classes.Length then
            Errors.user
                $"{path}: it tells {classifier.Classes.Length} classes, and {dataset.Name} has {dataset.Classes.Length}; name other \
                  data with --data."

        if hasNames then
            for i, (own, other) in Seq.indexed (Seq.zip classifier.Classes dataset.Classes) do
                if own <> other then
                    Errors.user
                        $"{path}: its class {i} is '{own}', and that of {dataset.Name} '{other}'; name other data with --data."

    /// The test images of a data set: of the run's own data those that the run was tested on, else all of them; then so many of these,
    /// spread evenly.
    let private testImages (record: Record option) (images: int option) (dataset: Dataset) : Split =
        let own =
            match record with
            | Some record when
                record.Config.Fingerprint = dataset.Fingerprint
                && record.Config.TestPerClass > 0
                ->
                Split.firstOfEach record.Config.TestPerClass dataset.Test
            | _ -> Split.firstOfEach Int32.MaxValue dataset.Test

        match images with
        | None -> own
        | Some images ->
            try
                spread images own
            finally
                Split.dispose own

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

    /// Frees the network and the images.
    let dispose (candidate: Candidate) : unit =
        Model.dispose candidate.Model
        Split.dispose candidate.Test

    /// Reads a weights file, another program's where `foreign` says of which model, and the test images of `data`, else of the record beside
    /// the weights, else those in the program; `images` of them, or all. The caller disposes it. A UserError where a file cannot be read, or
    /// images and network do not go together.
    let load
        (device: string)
        (foreign: ForeignWeights option)
        (data: string option)
        (images: int option)
        (path: string)
        : Candidate =
        let classifier, method', hasNames = classifierOf path foreign

        try
            let record = if foreign.IsSome then None else recordOf path
            let dataset = open' path data record

            try
                check path classifier hasNames dataset
                Model.toDevice (torch.device device) classifier.Model
                Model.eval classifier.Model

                for parameter in classifier.Model.Module.parameters () do
                    parameter.requires_grad <- false

                { Path = path
                  Sha256 = digest path
                  Model = classifier.Model
                  Classes = classifier.Classes
                  Method = method'
                  Record = record
                  Data = dataset.Name
                  Fingerprint = dataset.Fingerprint
                  Test = testImages record images dataset }
            finally
                Dataset.dispose dataset
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

    /// What `work` makes of each batch of a split's images in [0,1], on the network's device and without gradients; with the images' indices.
    let batches (candidate: Candidate) (split: Split) (work: int[] -> torch.Tensor -> 'a) : 'a list =
        use _ = torch.no_grad ()

        [ for indices in Array.chunkBySize batch [| 0 .. Split.count split - 1 |] ->
              Scope.value (fun () ->
                  (Augment.plain split indices).``to``(Model.device candidate.Model)
                  |> work indices) ]

    /// The network's answers to images that may be others than its test images. RunFailed where a logit is not finite.
    let answers (candidate: Candidate) (split: Split) : Answer[] =
        batches candidate split (fun indices images ->
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

                    Answer.ofLogits split.Labels[i] row)
                indices)
        |> Array.concat

    /// The classes of a batch of images of the network's size, uint8 `[B,3,H,W]`. RunFailed where a logit is not finite.
    let classify (candidate: Candidate) (images: torch.Tensor) : int[] =
        Scope.value (fun () ->
            { Images = images.cpu().contiguous()
              Labels = Array.zeroCreate (int images.shape[0]) }
            |> answers candidate
            |> Array.map _.Predicted)
