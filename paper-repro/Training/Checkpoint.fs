namespace PatchUp.Repro

/// What a weights file says of itself, so that it needs no other file to be used.
type Checkpoint =
    {
        Depth: int
        Width: int
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

/// Trained networks as files.
[<RequireQualifiedAccess>]
module Checkpoint =

    /// The key of the file's map of strings.
    let private key = "patchup"

    /// Writes a trained model's weights with their description; a UserError where that is not possible.
    let write (path: string) (dataset: Dataset) (trained: Trained) : unit =
        let network = trained.Network

        let description =
            { Depth = network.Depth
              Width = network.Width
              Stride = network.Stride
              ImageHeight = int dataset.Test.Images.shape[2]
              ImageWidth = int dataset.Test.Images.shape[3]
              Mean = network.Mean
              Std = network.Std
              Classes = List.ofArray dataset.Classes
              Method = trained.Record.Config.Method
              Notation = trained.Record.Config.Notation }

        Model.save path (Map [ key, Json.show description ]) trained.Model

    /// Whether a network can be made of it.
    let private isSound (found: Checkpoint) =
        let isList values = not (isNull (box values))

        isList found.Classes
        && isList found.Mean
        && isList found.Std
        && found.Mean.Length = 3
        && found.Std.Length = 3
        && List.forall (fun deviation -> deviation > 0.0) found.Std
        && not found.Classes.IsEmpty
        && List.min [ found.Width; found.Stride; found.ImageHeight; found.ImageWidth ] >= 1
        && List.max [ found.Width; found.ImageHeight; found.ImageWidth ] <= 4096

    /// Reads what `write` wrote: the description, and the model, which the caller disposes. A UserError for any other
    /// file.
    let read (path: string) : Checkpoint * Model =
        let stored = Safetensors.read path

        for _, tensor in stored.Entries do
            tensor.Dispose()

        match stored.Metadata.TryFind key |> Option.bind Json.tryRead<Checkpoint> with
        | Some found when not (isNull (box found)) && isSound found ->
            let model =
                PreActResNet.create
                    0UL
                    { Depth = found.Depth
                      Width = found.Width
                      Classes = found.Classes.Length
                      Stride = found.Stride
                      Mean = found.Mean
                      Std = found.Std }

            try
                Model.load path model |> ignore
                found, model
            with _ ->
                Model.dispose model
                reraise ()
        | _ ->
            Errors.user
                $"{path}: not a weights file that train or compare wrote: its description is missing or unsound."
