namespace PatchUp.Repro

open System
open System.IO
open TorchSharp

/// The log of a run: a line of JSON for every epoch, in which nothing depends on the clock. A run that was taken up from
/// a checkpoint has the same log.
[<RequireQualifiedAccess>]
module Log =

    let private lines (epochs: Epoch list) =
        epochs |> List.map (fun epoch -> Json.line epoch + "\n") |> String.concat ""

    /// Writes the lines of these epochs in place of what is there.
    let start (path: string) (epochs: Epoch list) : unit =
        Errors.writing path (fun stream -> stream.Write(Text.Encoding.UTF8.GetBytes(lines epochs)))

    /// Adds an epoch's line; a UserError where that is not possible.
    let add (path: string) (epoch: Epoch) : unit =
        try
            File.AppendAllText(path, lines [ epoch ])
        with
        | :? UnauthorizedAccessException
        | :? IOException as error -> Errors.user $"{path}: it cannot be written ({error.Message})"

    /// Follows a run with the file at this path.
    let follow (path: string) (advance: Advance) : unit =
        match advance with
        | Resumed(_, history) -> start path history
        | EpochDone epoch when epoch.Epoch = 1 -> start path [ epoch ]
        | EpochDone epoch -> add path epoch
        | Stepped _ -> ()

/// A run's numbers and pictures for TensorBoard. Its files have the clock in their names: they are no results.
[<RequireQualifiedAccess>]
module TensorBoard =

    let private scalars (writer: Modules.SummaryWriter) (epoch: Epoch) =
        for name, value in
            [ "learning rate", epoch.LearningRate
              "training/loss", epoch.TrainLoss
              "training/expected accuracy under mixing", epoch.ExpectedAccuracyUnderMixing
              "validation/error", epoch.ValidationError
              "validation/NLL", epoch.ValidationNll ] do
            writer.add_scalar (name, float32 value, epoch.Epoch)

    /// Follows a run with the events in this folder, which is emptied first; `draw` draws the mixed images to a PNG file.
    /// A UserError where they cannot be written.
    let following (folder: string) (draw: string -> unit) : Advance -> unit =
        let writing (work: unit -> 'a) : 'a =
            try
                work ()
            with
            | :? UnauthorizedAccessException
            | :? IOException as error -> Errors.user $"{folder}: it cannot be written ({error.Message})"

        let writer =
            writing (fun () ->
                if Directory.Exists folder then
                    Directory.Delete(folder, true)

                Directory.CreateDirectory folder |> ignore
                let writer = torch.utils.tensorboard.SummaryWriter(folder, createRunName = false)
                let picture = Path.Combine(folder, "mixed.png")
                draw picture
                writer.add_img ("mixed images", picture, 0)
                writer)

        fun advance ->
            writing (fun () ->
                match advance with
                | Resumed(_, history) -> List.iter (scalars writer) history
                | EpochDone epoch -> scalars writer epoch
                | Stepped _ -> ())
