namespace PatchUp.Repro

open System
open System.Collections.Generic
open System.Formats.Tar
open System.IO
open System.IO.Compression
open System.Security.Cryptography
open System.Text

/// A file or a folder in an archive.
[<NoEquality; NoComparison>]
type internal Entry =
    {
        /// As the archive has it.
        Name: string
        IsFolder: bool
        /// In bytes, unpacked.
        Length: int64
        /// A stream of exactly these bytes, in which one can seek; the caller disposes it.
        Open: unit -> Stream
    }

/// Archives: entries are only ever read into memory, whatever their names.
[<RequireQualifiedAccess>]
module internal Archive =

    /// Of an unpacked archive or entry that is held in memory.
    let private most = int64 Array.MaxLength

    let private slice (bytes: byte[]) (offset: int64) (length: int64) : Stream =
        new MemoryStream(bytes, int offset, int length, false)

    /// As many bytes as are left from here.
    let private part (path: string) (offset: int64) (length: int64) : Stream =
        if length > most then
            Errors.user $"{path}: a file in it has {length} bytes; unpack the archive and name its folder."

        Errors.reading path (fun () ->
            use stream = Errors.openRead path
            let bytes = Array.zeroCreate<byte>(int length)
            stream.Seek(offset, SeekOrigin.Begin) |> ignore
            stream.ReadExactly bytes
            new MemoryStream(bytes, false))

    let private tarEntry (path: string) (all: int64) (from: int64 -> int64 -> Stream) (entry: TarEntry) : Entry =
        let offset = entry.DataOffset
        let length = entry.Length

        if length > 0L && (offset < 0L || offset > all - length) then
            raise (InvalidDataException $"{entry.Name} goes past its end")

        { Name = entry.Name
          IsFolder = (entry.EntryType = TarEntryType.Directory)
          Length = length
          Open =
            fun () ->
                match entry.EntryType with
                | TarEntryType.RegularFile
                | TarEntryType.V7RegularFile
                | TarEntryType.ContiguousFile -> from offset length
                | other -> Errors.user $"{path}: {entry.Name} is a {other}, not a file; pack the file itself." }

    /// A tar ends in zero blocks: without them it, or the gzip file around it, was cut short.
    let private checkEnd (stream: Stream) =
        let block = Array.create 512 255uy

        if stream.Length >= 512L then
            stream.Seek(-512L, SeekOrigin.End) |> ignore
            stream.ReadExactly block

        if Array.exists ((<>) 0uy) block then
            raise (InvalidDataException "it has no end mark")

        stream.Seek(0L, SeekOrigin.Begin) |> ignore

    let private tarEntries (path: string) (stream: Stream) (from: int64 -> int64 -> Stream) : Entry list =
        checkEnd stream
        use tar = new TarReader(stream, true)

        [ let mutable entry = tar.GetNextEntry()

          while not (isNull entry) do
              tarEntry path stream.Length from entry
              entry <- tar.GetNextEntry() ]

    /// Everything that comes out of a compressed stream; an InvalidDataException where that is more than fits in memory.
    let private unpack (packed: Stream) : MemoryStream =
        let plain = new MemoryStream()
        let buffer = Array.zeroCreate<byte>(1 <<< 16)
        let mutable read = packed.Read buffer

        while read > 0 do
            if plain.Length + int64 read > most then
                raise (InvalidDataException "it unpacks to more than 2 GiB; unpack it and name its folder")

            plain.Write(buffer, 0, read)
            read <- packed.Read buffer

        plain

    let private zipEntry (path: string) (zip: ZipArchive) (entry: ZipArchiveEntry) : Entry =
        let fail (reason: string) : 'a =
            Errors.user $"{path}: {entry.FullName} cannot be unpacked ({reason.TrimEnd '.'}); fetch or pack it again."

        let read () =
            // A deflated byte makes 1032 at most: what claims more is damaged, and nothing is set aside for it.
            if entry.Length > most || entry.Length / 1032L > entry.CompressedLength + 64L then
                fail $"it claims to have {entry.Length} bytes"

            let bytes = Array.zeroCreate<byte>(int entry.Length)
            use stream = entry.Open()
            stream.ReadExactly bytes

            if stream.ReadByte() >= 0 then
                fail "it has more bytes than it claims"

            bytes

        { Name = entry.FullName
          IsFolder = entry.FullName.EndsWith '/'
          Length = entry.Length
          Open =
            fun () ->
                try
                    slice (lock zip read) 0L entry.Length
                with
                | :? IOException
                | :? InvalidDataException
                | :? NotSupportedException as error -> fail error.Message }

    /// Is this a .gz or .zip file? The stream stays at its start.
    let isCompressed (stream: Stream) : bool =
        let magic = Array.zeroCreate<byte> 2
        let count = stream.ReadAtLeast(magic, 2, false)
        stream.Seek(0L, SeekOrigin.Begin) |> ignore
        count = 2 && (magic = [| 0x1fuy; 0x8buy |] || magic = "PK"B)

    /// Gives the entries of a .tar, .tar.gz or .zip archive, which this stream of the file at `path` holds, to `look`, in
    /// whose course they can be opened. A UserError where it is none of these, or damaged.
    let using (path: string) (stream: Stream) (look: Entry list -> 'a) : 'a =
        let magic = Array.zeroCreate<byte> 4
        let count = stream.ReadAtLeast(magic, 4, false)
        stream.Seek(0L, SeekOrigin.Begin) |> ignore

        let reading (read: unit -> 'b) : 'b =
            try
                read ()
            with
            | UserError _ -> reraise ()
            | error ->
                let reason = error.Message.TrimEnd '.'

                Errors.user
                    $"{path}: not a whole .tar, .tar.gz, .tgz or .zip archive ({reason}); fetch or pack it again."

        match List.ofArray (Array.take count magic) with
        | 0x1fuy :: 0x8buy :: _ ->
            use plain =
                reading (fun () ->
                    use packed = new GZipStream(stream, CompressionMode.Decompress, true)
                    unpack packed)

            reading (fun () -> tarEntries path plain (slice (plain.GetBuffer()))) |> look
        | [ 0x50uy; 0x4buy; 3uy; 4uy ] ->
            use zip = reading (fun () -> new ZipArchive(stream, ZipArchiveMode.Read, true))

            reading (fun () -> zip.Entries |> Seq.map (zipEntry path zip) |> List.ofSeq)
            |> look
        | _ -> reading (fun () -> tarEntries path stream (part path)) |> look

/// Files in one place: a folder, or an archive. Names are relative to it, with '/' between.
[<NoEquality; NoComparison>]
type internal Files =
    {
        /// Of the folder or the archive.
        Path: string
        /// The folders and the files in a folder (the empty name: at the top), their last names alone, in ordinal order
        /// and without those that start with a dot; none where there is no such folder.
        In: string -> string list * string list
        /// Is this the name of a file?
        Has: string -> bool
        /// A file's bytes, and how many; the caller disposes the stream, in which one can seek.
        Open: string -> Stream * int64
    }

[<RequireQualifiedAccess>]
module internal Files =

    let private sorted (names: string seq) =
        names
        |> Seq.filter (fun name -> not (name.StartsWith '.'))
        |> List.ofSeq
        |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

    /// `folder/name`, or `name` where the folder is the top.
    let at (folder: string) (name: string) : string =
        if folder = "" then name else $"{folder}/{name}"

    /// The rest of a name in this folder.
    let inside (folder: string) (name: string) : string =
        if folder = "" then
            name
        else
            name.Substring(folder.Length + 1)

    /// The files of a folder on disk.
    let ofFolder (path: string) : Files =
        let full (name: string) = Path.Combine(path, name)

        let last (paths: string seq) =
            paths |> Seq.map (fun path -> Path.GetFileName path) |> sorted

        { Path = path
          In =
            fun folder ->
                if Directory.Exists(full folder) then
                    Errors.reading path (fun () ->
                        last (Directory.EnumerateDirectories(full folder)),
                        last (Directory.EnumerateFiles(full folder)))
                else
                    [], []
          Has = fun name -> File.Exists(full name)
          Open =
            fun name ->
                let stream = Errors.openRead (full name)
                stream, stream.Length }

    /// The files of an archive; a UserError for a file that occurs twice, once it is opened.
    let ofEntries (path: string) (entries: Entry list) : Files =
        let folders = Dictionary<string, HashSet<string>>()
        let files = Dictionary<string, List<string>>()
        let byName = Dictionary<string, Entry>()
        let twice = HashSet<string>()

        let add (all: Dictionary<string, 'c>) (empty: unit -> 'c) (key: string) : 'c =
            match all.TryGetValue key with
            | true, found -> found
            | _ ->
                let fresh = empty ()
                all[key] <- fresh
                fresh

        for entry in entries do
            let parts =
                entry.Name.Split '/' |> Array.filter (fun part -> part <> "" && part <> ".")

            let depth = if entry.IsFolder then parts.Length else parts.Length - 1

            for i in 0 .. depth - 1 do
                (add folders HashSet (String.Join('/', parts, 0, i))).Add parts[i] |> ignore

            if not entry.IsFolder && parts.Length > 0 then
                let name = String.Join('/', parts)

                if byName.TryAdd(name, entry) then
                    (add files List (String.Join('/', parts, 0, depth))).Add parts[depth]
                else
                    twice.Add name |> ignore

        { Path = path
          In =
            fun folder ->
                (match folders.TryGetValue folder with
                 | true, found -> sorted found
                 | _ -> []),
                (match files.TryGetValue folder with
                 | true, found -> sorted found
                 | _ -> [])
          Has = byName.ContainsKey
          Open =
            fun name ->
                match byName.TryGetValue name with
                | true, _ when twice.Contains name -> Errors.user $"{path}: {name} occurs twice; pack every file once."
                | true, entry -> entry.Open(), entry.Length
                | _ -> Errors.user $"{path}: it lacks {name}; fetch or pack it again." }

    /// Reads a file that must be there through a function of its stream and its length. A UserError that names it where
    /// it is missing, cannot be read, or ends too early.
    let reading (files: Files) (name: string) (read: Stream -> int64 -> 'a) : 'a =
        if not (files.Has name) then
            Errors.user $"{files.Path}: it lacks {name}; fetch or unpack it again."

        let stream, length = files.Open name
        use stream = stream

        try
            read stream length
        with
        | :? EndOfStreamException -> Errors.user $"{files.Path}: {name} is cut short; fetch it again."
        | :? InvalidDataException as error ->
            Errors.user $"{files.Path}: {name} is damaged ({error.Message.TrimEnd '.'}); fetch it again."
        | :? IOException as error -> Errors.user $"{files.Path}: {name} cannot be read ({error.Message})"

    /// All bytes of a file that may have `most` of them.
    let bytes (most: int64) (files: Files) (name: string) : byte[] =
        reading files name (fun stream length ->
            if length > most then
                Errors.user $"{files.Path}: {name} has {length} bytes; it may have {most}."

            let bytes = Array.zeroCreate<byte>(int length)
            stream.ReadExactly bytes
            bytes)

    /// The lines of a text file, without empty ones and what is white at their ends.
    let lines (files: Files) (name: string) : string[] =
        (Encoding.UTF8.GetString(bytes (1L <<< 26) files name))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)

    /// Every file in a folder and those below it, by name.
    let rec all (files: Files) (folder: string) : string list =
        let folders, here = files.In folder

        (here |> List.map (at folder))
        @ (folders |> List.collect (fun name -> all files (at folder name)))

    let private endings = [ ".tar.gz"; ".tgz"; ".tar"; ".zip" ]

    let private endingOf (file: string) =
        endings
        |> List.tryFind (fun ending -> file.EndsWith(ending, StringComparison.OrdinalIgnoreCase))

    /// The last name of a path, without an archive's ending.
    let nameOf (path: string) : string =
        let name =
            Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath path))

        endingOf name
        |> Option.fold (fun (name: string) ending -> name.Substring(0, name.Length - ending.Length)) name

    /// The path itself, or the archive in a folder that holds nothing else.
    let resolve (path: string) : string =
        let folders, files =
            if Directory.Exists path then
                (ofFolder path).In ""
            else
                [], []

        match folders, files with
        | [], [ file ] when (endingOf file).IsSome -> Path.Combine(path, file)
        | _ -> path

    /// SHA-256 of these files' names, each with what is said of it, in this order; in hexadecimal. It is the same wherever the
    /// files are.
    let digest (files: (string * string) seq) : string =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256

        for name, what in files do
            hash.AppendData(Encoding.UTF8.GetBytes $"{name} {what}\n")

        Convert.ToHexStringLower(hash.GetHashAndReset())

    let private ordered (names: string list) =
        names |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

    /// What tells a folder's data set from others: `digest` of these files in it with the SHA-256 of each one's bytes. All of
    /// them are read. A UserError where one cannot be.
    let fingerprint (folder: string) (names: string list) : string =
        let contents (name: string) =
            let path = Path.Combine(folder, name)

            try
                Errors.reading path (fun () ->
                    use stream = Errors.openRead path
                    Ok(name, Convert.ToHexStringLower(SHA256.HashData stream)))
            with error ->
                Error error

        Array.ofList (ordered names)
        |> Array.Parallel.map contents
        |> Array.map (function
            | Ok file -> file
            | Error error -> raise error)
        |> digest

    /// What tells a folder from itself after a change, without a look into its files: SHA-256 of its path and `digest` of
    /// these files in it with each one's size and time.
    let state (folder: string) (names: string list) : string =
        Errors.reading folder (fun () ->
            digest
                [ Path.GetFullPath folder, ""
                  for name in ordered names do
                      let file = FileInfo(Path.Combine(folder, name))
                      name, $"{file.Length} {file.LastWriteTimeUtc.Ticks}" ])
