namespace PatchUp.Repro

open System
open System.IO

/// What the user can put right: the message is one line that names the value or file, what is allowed and what to do.
exception UserError of string with
    override this.Message = this.Data0

/// Work that was asked to stop, and did: the message is one line that says what is kept.
exception Interrupted of string with
    override this.Message = this.Data0

[<RequireQualifiedAccess>]
module Errors =

    /// Raises a UserError with this message, made one printable line: names out of a file may hold anything.
    let user (message: string) : 'a =
        let line = message |> String.map (fun c -> if Char.IsControl c then '?' else c)

        raise (
            UserError(
                if line.Length > 1000 then
                    line.Substring(0, 1000) + "..."
                else
                    line
            )
        )

    let private checkPath (path: string) =
        if String.IsNullOrWhiteSpace path || path.Contains '\000' then
            let shown = path.Replace("\000", "?")
            user $"'{shown}' is no path; name a file or folder."

    /// Runs `read`, in which the operating system's refusals to open or read the path become a UserError.
    let reading (path: string) (read: unit -> 'a) : 'a =
        checkPath path

        try
            read ()
        with
        | :? FileNotFoundException
        | :? DirectoryNotFoundException -> user $"{path}: no such file or folder; check the path."
        | :? UnauthorizedAccessException when Directory.Exists path ->
            user $"{path}: a folder, not a file; name a file."
        | :? UnauthorizedAccessException -> user $"{path}: it may not be read; check its permissions."
        | :? IOException as error -> user $"{path}: it cannot be read ({error.Message})"

    /// Opens a file for reading from any place in it; a UserError for a folder, a pipe or a device.
    let openRead (path: string) : FileStream =
        reading path (fun () ->
            let stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read)

            if not stream.CanSeek then
                stream.Dispose()
                user $"{path}: not a regular file; name a file."

            stream)

    /// Writes a whole file or nothing: a temporary file beside it, flushed to disk, takes the path's name at the end.
    /// A UserError where the folder is missing or may not be written.
    let writing (path: string) (write: Stream -> unit) : unit =
        checkPath path
        let target = Path.GetFullPath path

        let folder =
            Path.GetDirectoryName target |> Option.ofObj |> Option.defaultValue target

        let temporary =
            Path.Combine(folder, $".{Path.GetFileName target}.{Path.GetRandomFileName()}.tmp")

        let fill () =
            use stream =
                new FileStream(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None)

            write stream
            stream.Flush true

        try
            try
                fill ()
                File.Move(temporary, target, true)
            with _ ->
                File.Delete temporary
                reraise ()
        with
        | :? DirectoryNotFoundException ->
            user $"{path}: the folder {folder} does not exist; make it, or write elsewhere."
        | :? UnauthorizedAccessException
        | :? IOException when Directory.Exists target -> user $"{path}: a folder, not a file; name a file."
        | :? UnauthorizedAccessException -> user $"{path}: it may not be written; check the folder's permissions."
        | :? IOException as error -> user $"{path}: it cannot be written ({error.Message})"
