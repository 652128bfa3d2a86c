namespace PatchUp.Repro

open System
open System.IO

/// What a weights file says of itself, so that it needs no other file to be used.
type Checkpoint =
    {
        /// The name of its architecture.
        Model: string
        /// Of the network; null where the model's name says how wide it is.
        Width: int option
        Stride: int
        ImageHeight: int
        ImageWidth: int
        /// Of each channel, on the scale of [0,1].
        Mean: float list
        /// Of each channel, on the scale of [0,1].
        Std: float list
        /// In the order of their indices.
        Classes: string list
        Method: string
        Notation: string
    }

/// What a file that another program wrote does not say of itself.
type ForeignWeights =
    {
        /// The name of the architecture.
        Model: string
        /// The side of the images; None for the architecture's published one.
        Size: int option
        /// Of each channel, on the scale of [0,1]; None for the architecture's published ones.
        Mean: float list option
        /// Of each channel, on the scale of [0,1]; None for the architecture's published ones.
        Std: float list option
        /// A text file with the name of a class in each line, in the order of their indices; None names them by index.
        ClassNames: string option
    }

/// A network that tells the classes of images.
[<NoEquality; NoComparison>]
type Classifier =
    {
        /// The caller disposes it.
        Model: Model
        ImageHeight: int
        ImageWidth: int
        /// In the order of their indices.
        Classes: string list
    }

/// Trained networks as files.
[<RequireQualifiedAccess>]
module Checkpoint =

    /// The key of the file's map of strings.
    let private key = "patchup"

    /// Writes a trained model's weights with their description, under PyTorch's names; a UserError where that is not
    /// possible.
    let write (path: string) (corpus: Corpus) (trained: Trained) : unit =
        let network = trained.Network
        let height, width = ImageSet.size corpus.Test

        let description: Checkpoint =
            { Model = trained.Record.Config.Model
              Width = network.Width
              Stride = network.Stride
              ImageHeight = height
              ImageWidth = width
              Mean = network.Mean
              Std = network.Std
              Classes = List.ofArray corpus.Classes
              Method = trained.Record.Config.Method
              Notation = trained.Record.Config.Notation }

        // Some of PyTorch's readers ask for the format.
        Model.save path (Map [ key, Json.show description; "format", "pt" ]) trained.Model

    let private largestSide = 4096

    /// Whether a network may be made of it; the architecture has its own say.
    let private isSound (found: Checkpoint) =
        let isThere (value: 'a) = not (isNull (box value))

        isThere found.Model
        && isThere found.Classes
        && isThere found.Mean
        && isThere found.Std
        && not found.Classes.IsEmpty
        && List.forall isThere found.Classes
        && List.min [ found.ImageHeight; found.ImageWidth ] >= 1
        && List.max [ found.ImageHeight; found.ImageWidth ] <= largestSide

    /// The network with the file's weights. Nothing as large as they are is made before the file is seen to have them.
    let private load (path: string) (header: TensorsHeader) (name: string) (settings: NetworkSettings) =
        let outline = Architectures.outline name settings

        try
            Safetensors.checkFit path (Model.state outline) header
        finally
            Model.dispose outline

        let model = Architectures.create name settings 0UL

        try
            Model.load path model |> ignore
            model
        with _ ->
            Model.dispose model
            reraise ()

    /// Reads what `write` wrote: the description, and the model, which the caller disposes. A UserError for any other
    /// file.
    let read (path: string) : Checkpoint * Model =
        let header = Safetensors.header path

        match header.Metadata.TryFind key |> Option.bind Json.tryRead<Checkpoint> with
        | Some found when not (isNull (box found)) && isSound found ->
            found,
            load
                path
                header
                found.Model
                { Width = found.Width
                  Classes = found.Classes.Length
                  Stride = found.Stride
                  Mean = found.Mean
                  Std = found.Std }
        | _ ->
            Errors.user
                $"{path}: not a weights file that train or compare wrote: its description is missing or unsound; name \
                  the model of another program's weights."

    /// A length of one of the file's tensors: of the first convolution, which tells width and stem, or of the last layer,
    /// which tells the classes.
    let private length (path: string) (header: TensorsHeader) (architecture: Architecture) name axis : int =
        match header.Tensors |> List.tryFind (fun (known, _, _) -> known = name) with
        | Some(_, _, shape) when axis < shape.Length && shape[axis] <= int64 Int32.MaxValue -> int shape[axis]
        | _ -> Errors.user $"{path}: there is no {name} in it such as a {architecture.Name} has; name another model."

    let private classNames (count: int) (path: string) : string list =
        let limit = 1L <<< 24

        let lines =
            Errors.reading path (fun () ->
                use stream = Errors.openRead path

                if stream.Length > limit then
                    Errors.user $"{path}: {stream.Length} bytes of class names; {limit} at most are read."

                use reader = new StreamReader(stream)
                reader.ReadToEnd().TrimEnd().Split '\n' |> Array.map _.Trim() |> List.ofArray)

        if lines.Length <> count then
            Errors.user $"{path}: {lines.Length} lines; the network has {count} classes, and a line is needed for each."

        lines

    /// Reads weights that another program wrote as safetensors under PyTorch's names, as torchvision's and the PatchUp
    /// authors' models have them; width, stem and number of classes are the file's. A UserError for any other file.
    let readForeign (path: string) (foreign: ForeignWeights) : Classifier =
        let architecture = Architectures.find foreign.Model
        let size = defaultArg foreign.Size architecture.Size

        if size < 1 || size > largestSide then
            Errors.user $"size {size}: it must lie in 1 .. {largestSide}."

        let header = Safetensors.header path
        let length = length path (Safetensors.plainNames header) architecture
        let classes = length $"{architecture.Last}.weight" 0

        // Published are size and normalisation for the largest stem that an architecture has.
        let isSmall = List.contains 4 architecture.Strides && length "conv1.weight" 3 <> 7

        if isSmall && (foreign.Size.IsNone || foreign.Mean.IsNone || foreign.Std.IsNone) then
            Errors.user
                $"{path}: its {architecture.Name} has the stem for small images, of which nothing is published; say --size, --mean and --std."

        let settings: NetworkSettings =
            { Width = architecture.Width |> Option.map (fun _ -> length "conv1.weight" 0)
              Classes = classes
              Stride =
                if length "conv1.weight" 3 = 7 then
                    4
                else
                    min 2 (Architectures.stride architecture.Name size)
              Mean = defaultArg foreign.Mean architecture.Standard.Mean
              Std = defaultArg foreign.Std architecture.Standard.Std }

        let names =
            match foreign.ClassNames with
            | Some path -> classNames classes path
            | None ->
                Architectures.check architecture.Name settings
                List.init classes string

        { Model = load path header architecture.Name settings
          ImageHeight = size
          ImageWidth = size
          Classes = names }

    /// Reads what `write` wrote, for its use.
    let classifier (path: string) : Classifier =
        let found, model = read path

        { Model = model
          ImageHeight = found.ImageHeight
          ImageWidth = found.ImageWidth
          Classes = found.Classes }
