namespace PatchUp.Repro

open System
open System.IO
open System.Security.Cryptography

/// Test images under corruptions of several strengths.
[<NoEquality; NoComparison>]
type Corrupted =
    {
        Name: string
        /// Which layout it has.
        Layout: string
        /// The classes' names in the order of their indices.
        Classes: string[]
        /// Each corruption and severity that there is; severities start at 1, the weakest.
        Parts: (string * int) list
        /// The images of a corruption and a severity, which the caller disposes; a UserError for what there is not, and for
        /// whatever is wrong with the files.
        Load: string -> int -> Split
        /// As a data set's; all files are read for it.
        Fingerprint: unit -> string
    }

/// Test images as Tiny-ImageNet-C has them, CORRUPTION/SEVERITY/WNID/*.JPEG, or as CIFAR-10-C and CIFAR-100-C have them:
/// CORRUPTION.npy, uint8 [5N,32,32,3] by severity, and labels.npy.
[<RequireQualifiedAccess>]
module Corrupted =

    /// The largest image file, in bytes.
    let private most = 1L <<< 26

    /// Of the NumPy files.
    let private severities = 5

    let private ofArrays = "corrupted images in NumPy files, as CIFAR-10-C's"
    let private ofImages = "corrupted images in folders, as Tiny-ImageNet-C's"

    let private arraysIn (files: Files) (folder: string) : string list =
        snd (files.In folder)
        |> List.filter (fun name -> name.EndsWith(".npy", StringComparison.Ordinal) && name <> "labels.npy")
        |> List.map Path.GetFileNameWithoutExtension

    let private severity (name: string) : int option =
        match Int32.TryParse name with
        | true, value when value >= 1 && value <= 9 && string value = name -> Some value
        | _ -> None

    /// The corruptions and severities that are folders in this one; none where any folder in it is something else.
    let private foldersIn (files: Files) (folder: string) : (string * int) list =
        let parts corruption =
            let inside = fst (files.In(Files.at folder corruption))

            match List.choose severity inside with
            | found when found.Length = inside.Length && not found.IsEmpty ->
                Some(found |> List.map (fun severity -> corruption, severity))
            | _ -> None

        let isPlain (corruption, severity: int) =
            (fst (files.In(Files.at folder $"{corruption}/{severity}"))).IsEmpty

        let corruptions = fst (files.In folder)
        // The first folder that is something else ends the search: class folders may hold very many files.
        let found =
            corruptions |> Seq.map parts |> Seq.takeWhile Option.isSome |> List.ofSeq

        let all = found |> List.choose id |> List.concat

        // Where there are no folders below, it is SET/CLASS with numbers for classes.
        if
            found.Length < corruptions.Length
            || all |> List.tryHead |> Option.forall isPlain
        then
            []
        else
            all

    /// The folder that has one of the layouts, and the layout; None where there is a whole data set.
    let internal recognise (files: Files) : (string * string) option =
        let ofFolder folder =
            if files.Has(Files.at folder "labels.npy") && not (arraysIn files folder).IsEmpty then
                Some ofArrays
            elif not (foldersIn files folder).IsEmpty then
                Some ofImages
            else
                None

        match Layouts.recognise files with
        | Some _ -> None
        | None -> Layouts.folderWith files ofFolder

    let private find (files: Files) (parts: (string * int) list) (corruption: string) (severity: int) =
        if not (List.contains (corruption, severity) parts) then
            let names = parts |> List.map fst |> List.distinct |> String.concat ", "

            Errors.user
                $"{files.Path}: it has no corruption '{corruption}' of severity {severity}; the corruptions are {names}."

    // NumPy files

    let private slice (files: Files) (folder: string) (labels: int[]) (corruption: string) (severity: int) : Split =
        let name = Files.at folder (corruption + ".npy")

        Files.reading files name (fun stream length ->
            let header = Npy.header stream length

            match header.Type, header.Sizes with
            | "|u1", [| count; height; width; 3L |] when
                count = int64 labels.Length
                && height >= 1L
                && height <= 4096L
                && width >= 1L
                && width <= 4096L
                ->
                let each = labels.Length / severities
                let area = int (height * width)
                let first = (severity - 1) * each
                let pixels = Array.zeroCreate<byte>(3 * area)
                stream.Position <- header.Start + int64 first * int64 pixels.Length

                Split.make files.Path (int64 each) (int height) (int width) (fun index planes ->
                    stream.ReadExactly pixels

                    for i in 0 .. area - 1 do
                        for channel in 0..2 do
                            planes[channel * area + i] <- pixels[3 * i + channel]

                    labels[first + index])
            | kind, sizes ->
                let shown = String.Join("x", sizes)

                raise (
                    InvalidDataException
                        $"it is {kind} of {shown}, not |u1 of {labels.Length}xHxWx3 as labels.npy has {labels.Length} labels"
                ))

    let private arrays (files: Files) (folder: string) (name: string) (fingerprint: unit -> string) : Corrupted =
        let labels = Files.reading files (Files.at folder "labels.npy") Npy.labels

        if labels.Length = 0 || labels.Length % severities <> 0 then
            Errors.user
                $"{files.Path}: labels.npy has {labels.Length} labels, which are not {severities} severities of as many; \
                  fetch it again."

        let parts = List.allPairs (arraysIn files folder) [ 1..severities ]

        { Name = name
          Layout = ofArrays
          Classes = Array.init (1 + Array.max labels) string
          Parts = parts
          Load =
            fun corruption severity ->
                find files parts corruption severity
                slice files folder labels corruption severity
          Fingerprint = fingerprint }

    // Folders

    let private images (files: Files) (folder: string) (name: string) (fingerprint: unit -> string) : Corrupted =
        let parts = foldersIn files folder

        let at (corruption: string) (severity: int) =
            Files.at folder $"{corruption}/{severity}"

        let classes = fst (files.In(at (fst parts.Head) (snd parts.Head)))

        let load corruption severity : Split =
            find files parts corruption severity
            let at = at corruption severity

            if fst (files.In at) <> classes then
                Errors.user
                    $"{files.Path}: {at} has other class folders than {fst parts.Head}/{snd parts.Head}; fetch it again."

            let named =
                [| for label, id in List.indexed classes do
                       match snd (files.In $"{at}/{id}") |> List.filter Images.isName with
                       | [] -> Errors.user $"{files.Path}: {at}/{id} holds no image; fetch it again."
                       | names ->
                           for name in names do
                               $"{at}/{id}/{name}", label |]

            { Images =
                [ named
                  |> Array.map (fun (name, _) -> name, (fun () -> Files.bytes most files name)) ]
                |> Images.stacks files.Path
                |> List.head
              Labels = Array.map snd named }

        { Name = name
          Layout = ofImages
          Classes = Array.ofList classes
          Parts = parts
          Load = load
          Fingerprint = fingerprint }

    let private inside (name: string) (files: Files) (fingerprint: string -> unit -> string) : Corrupted option =
        recognise files
        |> Option.map (fun (folder, layout) ->
            (if layout = ofArrays then arrays else images) files folder name (fingerprint folder))

    /// Gives the corrupted images in a folder or an archive to `look`, in whose course they can be loaded; None where the
    /// layout is neither. A UserError for whatever is wrong with the path or its contents.
    let tryUsing (path: string) (look: Corrupted -> 'a) : 'a option =
        let path = Files.resolve path
        let name = Files.nameOf path

        if Directory.Exists path then
            let files = Files.ofFolder path

            let fingerprint folder () =
                Files.fingerprint
                    (Path.Combine(path, folder))
                    (Files.all files folder |> List.map (Files.inside folder))

            inside name files fingerprint |> Option.map look
        else
            Errors.reading path (fun () ->
                use stream = Errors.openRead path

                let fingerprint _ () =
                    stream.Seek(0L, SeekOrigin.Begin) |> ignore
                    Convert.ToHexStringLower(SHA256.HashData stream)

                Archive.using path stream (fun entries ->
                    inside name (Files.ofEntries path entries) fingerprint |> Option.map look))
