namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Json
open TorchSharp

/// A training and a test set over the same classes.
[<NoEquality; NoComparison>]
type Dataset =
    {
        Name: string
        /// The classes' names in the order of their indices.
        Classes: string[]
        /// Is a mirrored image one of its class still? A digit is not; what is in class folders is taken to be.
        MayMirror: bool
        Train: Split
        Test: Split
        /// SHA-256 of the archive's bytes, or of the names and bytes of a folder's files, wherever it is; in hexadecimal.
        Fingerprint: string
    }

/// How a data set is read.
[<NoEquality; NoComparison>]
type Reading =
    {
        /// The folder for decoded copies; None to make and use none.
        Cache: string option
        /// Keep copies also of what is read fast?
        CachesAll: bool
        /// Are the data set's extra training images trained on too?
        Extra: bool
        /// Told in a line what is odd and was put right.
        Warn: string -> unit
    }

/// Image files of a training and a test set over the same classes, which are not decoded yet.
[<NoEquality; NoComparison>]
type internal Encoded =
    {
        Name: string
        Path: string
        /// The classes' names in the order of their indices.
        Classes: string[]
        /// Names, bytes and class indices, sorted by class and name; each can be read by any thread.
        Train: (string * (unit -> byte[]) * int)[]
        Test: (string * (unit -> byte[]) * int)[]
        /// SHA-256 of the files' names and sizes in hexadecimal: the same wherever the files are.
        Fingerprint: string
    }

[<RequireQualifiedAccess>]
module Dataset =

    // Where the images are, in the layout SET/CLASS/FILE

    /// An image file of the layout SET/CLASS/FILE.
    [<NoEquality; NoComparison>]
    type private Item =
        { Name: string
          Set: string
          Class: string
          Size: unit -> int64
          Bytes: unit -> byte[] }

    /// The images and the class folders, empty ones too, as (set, class).
    [<NoEquality; NoComparison>]
    type private Listing =
        { Items: Item list
          Folders: (string * string) list }

    let private isSet name =
        (name = "train" || name = "test" || name = "val")

    /// Where there is no test set, the validation set is it.
    let private withTest (listing: Listing) : Listing =
        let hasTest = listing.Folders |> List.exists (fun (set, _) -> set = "test")
        let from = if hasTest then "test" else "val"

        let rename (set: string) =
            if set = "train" then Some "train"
            elif set = from then Some "test"
            else None

        { Items =
            listing.Items
            |> List.choose (fun item -> rename item.Set |> Option.map (fun set -> { item with Set = set }))
          Folders =
            listing.Folders
            |> List.choose (fun (set, name) -> rename set |> Option.map (fun set -> set, name)) }

    /// Top folder, set, class and file of a path inside the data set; None for what is not part of the layout.
    let private placeOf (path: string) =
        let parts =
            path.Split '/'
            |> Array.filter (fun part -> part <> "" && part <> ".")
            |> List.ofArray

        match parts with
        | [ set; name ] when isSet set -> Some("", set, name, None)
        | [ set; name; file ] when isSet set -> Some("", set, name, Some file)
        | [ top; set; name ] when isSet set -> Some(top, set, name, None)
        | [ top; set; name; file ] when isSet set -> Some(top, set, name, Some file)
        | _ -> None

    // Archives

    /// The largest image file, in bytes.
    let private largestFile = 1L <<< 26

    let private bytesOf (path: string) (entry: Entry) : byte[] =
        if entry.Length > largestFile then
            Errors.user $"{path}: {entry.Name} has {entry.Length} bytes; an image may have {largestFile}."

        use stream = entry.Open()
        let bytes = Array.zeroCreate<byte>(int entry.Length)
        stream.ReadExactly bytes
        bytes

    let private listArchive (path: string) (archive: Entry list) : Listing =
        let entries =
            archive
            |> List.choose (fun entry ->
                match placeOf entry.Name with
                | Some(top, set, name, Some file) when Images.isName file && not entry.IsFolder ->
                    let item =
                        { Name = $"{set}/{name}/{file}"
                          Set = set
                          Class = name
                          Size = fun () -> entry.Length
                          Bytes = fun () -> bytesOf path entry }

                    Some(
                        top,
                        { Items = [ item ]
                          Folders = [ set, name ] }
                    )
                | Some(top, set, name, file) when file.IsSome || entry.IsFolder ->
                    Some(top, { Items = []; Folders = [ set, name ] })
                | _ -> None)

        match entries |> List.map fst |> List.distinct with
        | []
        | [ _ ] ->
            withTest
                { Items = entries |> List.collect (fun (_, listing) -> listing.Items)
                  Folders = entries |> List.collect (fun (_, listing) -> listing.Folders) }
        | tops ->
            let text = tops |> List.map (fun top -> $"'{top}'") |> String.concat ", "

            Errors.user
                $"{path}: it has train/ or test/ below more than one folder ({text}); pack one data set an archive."

    // Folders

    let private names (entries: string seq) : string list =
        entries |> Seq.map (fun path -> Path.GetFileName path) |> List.ofSeq

    let private isRoot (folder: string) =
        [ "train"; "test"; "val" ]
        |> List.exists (fun set -> Directory.Exists(Path.Combine(folder, set)))

    /// The folder itself, or the only folder in it that holds train/ or test/.
    let private rootOf (folder: string) =
        let below () =
            Directory.EnumerateDirectories folder |> Seq.filter isRoot |> List.ofSeq

        match isRoot folder, (if isRoot folder then [] else below ()) with
        | true, _
        | _, [] -> folder
        | _, [ root ] -> root
        | _, roots ->
            let text = roots |> names |> List.sort |> String.concat ", "
            Errors.user $"{folder}: train/ or test/ occur in more than one folder in it ({text}); name one of them."

    let private listFolder (folder: string) : Listing =
        let root = rootOf folder

        let classes =
            [ for set in [ "train"; "test"; "val" ] do
                  if Directory.Exists(Path.Combine(root, set)) then
                      for name in names (Directory.EnumerateDirectories(Path.Combine(root, set))) do
                          set, name ]

        withTest
            { Folders = classes
              Items =
                [ for set, name in classes do
                      for file in names (Directory.EnumerateFiles(Path.Combine(root, set, name))) do
                          if Images.isName file then
                              let path = Path.Combine(root, set, name, file)

                              { Name = $"{set}/{name}/{file}"
                                Set = set
                                Class = name
                                Size = fun () -> Errors.reading path (fun () -> FileInfo(path).Length)
                                Bytes = fun () -> Errors.reading path (fun () -> File.ReadAllBytes path) } ] }

    // Decoding

    let private classesOf (path: string) (set: string) (listing: Listing) : string list =
        let filled =
            listing.Items
            |> List.filter (fun item -> item.Set = set)
            |> List.map _.Class
            |> HashSet

        let classes =
            listing.Folders
            |> List.filter (fun (s, _) -> s = set)
            |> List.map snd
            |> List.distinct
            |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

        if classes.IsEmpty then
            Errors.user $"{path}: it has no class folders in {set}/; the layouts are {Layouts.known}."

        match classes |> List.tryFind (filled.Contains >> not) with
        | Some name ->
            Errors.user
                $"{path}: the class folder {set}/{name} holds no image; the layout is {Layouts.classFoldersShown}."
        | None -> classes

    let private checkSameClasses (path: string) (train: string list) (test: string list) =
        let lacking set having other =
            match having |> List.filter (fun name -> not (List.contains name other)) with
            | [] -> ()
            | missing ->
                let text = missing |> List.truncate 3 |> String.concat ", "
                Errors.user $"{path}: {missing.Length} classes are missing in {set}/ ({text}); both need the same ones."

        lacking "test" train test
        lacking "train" test train

    let private inOrder (path: string) (set: string) (listing: Listing) : Item[] =
        let items =
            listing.Items
            |> List.filter (fun item -> item.Set = set)
            |> Array.ofList
            |> Array.sortWith (fun a b ->
                match String.CompareOrdinal(a.Class, b.Class) with
                | 0 -> String.CompareOrdinal(a.Name, b.Name)
                | order -> order)

        for a, b in Array.pairwise items do
            if a.Name = b.Name then
                Errors.user $"{path}: {a.Name} occurs twice; pack every image once."

        items

    /// The classes, and the images of both sets in order with their class indices.
    let private ordered (path: string) (listing: Listing) : string[] * (Item[] * int[]) * (Item[] * int[]) =
        let train = classesOf path "train" listing
        let test = classesOf path "test" listing
        checkSameClasses path train test
        let indices = train |> List.mapi (fun i name -> name, i) |> dict

        let part set =
            let items = inOrder path set listing
            items, items |> Array.map (fun item -> indices[item.Class])

        Array.ofList train, part "train", part "test"

    /// The images, decoded; their fingerprint is asked for last, when the images are known to be whole.
    let private assemble (path: string) (name: string) (fingerprint: unit -> string) (listing: Listing) : Dataset =
        let classes, (train, trainLabels), (test, testLabels) = ordered path listing

        let files (items: Item[]) =
            items |> Array.map (fun item -> item.Name, item.Bytes)

        let tensors = Images.stacks path [ files train; files test ]

        let fingerprint =
            try
                fingerprint ()
            with _ ->
                for tensor in tensors do
                    tensor.Dispose()

                reraise ()

        { Name = name
          Classes = classes
          MayMirror = true
          Train =
            { Images = tensors[0]
              Labels = trainLabels }
          Test =
            { Images = tensors[1]
              Labels = testLabels }
          Fingerprint = fingerprint }

    // The cache: a safetensors file with a checksum

    /// Changes whenever the file's contents or the decoding do.
    let private cacheFormat = "patchup-dataset-3"

    /// Of the metadata and the images.
    let private digestOf (metadata: (string * string) list) (splits: Split list) =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256

        for name, value in metadata do
            hash.AppendData(Encoding.UTF8.GetBytes $"{name} {value}\n")

        for split in splits do
            let shape = String.Join(",", split.Images.shape)
            let labels = String.Join(",", split.Labels)
            hash.AppendData(Encoding.UTF8.GetBytes $"\n{shape}\n{labels}\n")
            hash.AppendData(Span.op_Implicit split.Images.bytes: ReadOnlySpan<byte>)

        Convert.ToHexStringLower(hash.GetHashAndReset())

    let private cachePath (folder: string) (key: string) =
        Path.Combine(folder, key + ".safetensors")

    /// Failures are no error: the next run decodes again. A copy is only ever replaced as a whole: others may have the one
    /// before mapped.
    let private store (folder: string) (key: string) (dataset: Dataset) =
        let metadata =
            [ "format", cacheFormat
              "fingerprint", dataset.Fingerprint
              "classes", JsonSerializer.Serialize dataset.Classes
              "mayMirror", JsonSerializer.Serialize dataset.MayMirror ]

        let digest = digestOf metadata [ dataset.Train; dataset.Test ]

        let write () =
            Directory.CreateDirectory folder |> ignore

            Scope.value (fun () ->
                [ "train.images", dataset.Train.Images
                  "train.labels", torch.tensor dataset.Train.Labels
                  "test.images", dataset.Test.Images
                  "test.labels", torch.tensor dataset.Test.Labels ]
                |> Safetensors.write (cachePath folder key) (Map(("sha256", digest) :: metadata)))

        try
            write ()
        with
        | UserError _
        | :? IOException
        | :? UnauthorizedAccessException
        | :? NotSupportedException
        | :? ArgumentException -> ()

    /// The decoded copy, whose images are pages of its file; None where there is none, or it is another version's. Where it is
    /// damaged in any way, `warn` is told, and it is none.
    let private fetch (warn: string -> unit) (folder: string) (name: string) (key: string) : Dataset option =
        let path = cachePath folder key

        let damaged () =
            warn $"{path}: the decoded copy of {name} is damaged; it is made again."
            None

        let open' () =
            let file = Safetensors.map path
            let tensors = dict file.Entries

            let split set =
                { Images = tensors[$"{set}.images"]
                  Labels = tensors[$"{set}.labels"].data<int>().ToArray() }

            if file.Metadata["format"] <> cacheFormat then
                None
            else
                let metadata =
                    [ for name in [ "format"; "fingerprint"; "classes"; "mayMirror" ] -> name, file.Metadata[name] ]

                let train, test = split "train", split "test"

                if file.Metadata["sha256"] <> digestOf metadata [ train; test ] then
                    damaged ()
                else
                    Some
                        { Name = name
                          Classes = JsonSerializer.Deserialize<string[]> file.Metadata["classes"]
                          MayMirror = JsonSerializer.Deserialize<bool> file.Metadata["mayMirror"]
                          Train = train
                          Test = test
                          Fingerprint = file.Metadata["fingerprint"] }

        use scope = torch.NewDisposeScope()

        let found =
            try
                if File.Exists path then open' () else None
            with
            | UserError _
            | :? KeyNotFoundException
            | :? ArgumentException
            | :? JsonException -> damaged ()

        found
        |> Option.iter (fun dataset -> scope.MoveToOuter(dataset.Train.Images, dataset.Test.Images) |> ignore)

        found

    /// The folder `patchup` in the user's cache folder (XDG_CACHE_HOME, else .cache at home, or Windows' local
    /// application data); None where the user has none.
    let cacheFolder () : string option =
        let folder kind =
            Environment.GetFolderPath(kind, Environment.SpecialFolderOption.DoNotVerify)

        let home = folder Environment.SpecialFolder.UserProfile

        [ Environment.GetEnvironmentVariable "XDG_CACHE_HOME"
          (if OperatingSystem.IsWindows() || String.IsNullOrEmpty home then
               ""
           else
               Path.Combine(home, ".cache"))
          folder Environment.SpecialFolder.LocalApplicationData ]
        |> List.tryFind (fun path -> not (String.IsNullOrEmpty path) && Path.IsPathRooted path)
        |> Option.map (fun path -> Path.Combine(path, "patchup"))

    // Opening

    /// The way in which data sets are read that nobody asked to have read otherwise; what is odd goes unsaid.
    let reading () : Reading =
        { Cache = cacheFolder ()
          CachesAll = false
          Extra = false
          Warn = ignore }

    /// A data set before it is read.
    [<NoEquality; NoComparison>]
    type private Source =
        {
            Name: string
            /// What its decoded copy is known by: it is another whenever the data set is, and a folder's is found without
            /// reading its files.
            Key: string
            IsSlow: bool
            /// Its layout and itself.
            Read: unit -> string * Dataset
        }

    let private ofSets (name: string) (fingerprint: string) (layout: Layout) (sets: Sets) : string * Dataset =
        layout.Name,
        { Name = name
          Classes = sets.Classes
          MayMirror = sets.MayMirror
          Train = sets.Train
          Test = sets.Test
          Fingerprint = fingerprint }

    let private refuseCorrupted (path: string) : 'a =
        Errors.user
            $"{path}: it has corrupted test images and none to train on; 'patchup data check' shows what is in it."

    let private refuseExtra (path: string) (layout: string) : 'a =
        let known =
            Layouts.all
            |> List.choose (fun layout -> layout.Extra |> Option.map (fun (file, _) -> $"{file} of {layout.Name}"))
            |> String.concat ", "

        Errors.user $"{path}: {layout} has no extra images; there are only {known}."

    /// The reader of a layout, with its extra images where they are asked for.
    let private readerOf (extra: bool) (path: string) (layout: Layout) : Files -> string -> Sets =
        match layout.Extra with
        | Some(_, read) when extra -> read
        | None when extra -> refuseExtra path layout.Name
        | _ -> layout.Read

    /// With extra images it is another data set.
    let private named (extra: bool) (path: string) =
        Files.nameOf path + (if extra then " with extra" else "")

    let private ofStream (extra: bool) (path: string) (name: string) (stream: Stream) : Source =
        let contents = SHA256.HashData stream
        stream.Seek(0L, SeekOrigin.Begin) |> ignore

        let fingerprint =
            Convert.ToHexStringLower(
                if extra then
                    SHA256.HashData(Array.append contents "extra"B)
                else
                    contents
            )

        let read () =
            Archive.using path stream (fun entries ->
                let files = Files.ofEntries path entries

                match Layouts.recognise files with
                | Some(folder, layout) -> readerOf extra path layout files folder |> ofSets name fingerprint layout
                | None when (Corrupted.recognise files).IsSome -> refuseCorrupted path
                | None when extra -> refuseExtra path Layouts.classFolders
                | None -> Layouts.classFolders, listArchive path entries |> assemble path name (fun () -> fingerprint))

        { Name = name
          Key = fingerprint
          IsSlow = true
          Read = read }

    let private ofFolder (extra: bool) (path: string) : Source =
        let files = Files.ofFolder path
        let name = named extra path

        match Layouts.recognise files with
        | Some(folder, layout) ->
            let read = readerOf extra path layout

            // What is not read does not make it another data set.
            let isRead (file: string) =
                extra || layout.Extra |> Option.forall (fun (unread, _) -> file <> unread)

            let names =
                Files.all files folder |> List.map (Files.inside folder) |> List.filter isRead

            let root = Path.Combine(path, folder)

            { Name = name
              Key = Files.state root names
              IsSlow = layout.IsSlow
              Read =
                fun () ->
                    let fingerprint = Files.fingerprint root names
                    read files folder |> ofSets name fingerprint layout }
        | None when (Corrupted.recognise files).IsSome -> refuseCorrupted path
        | None when extra -> refuseExtra path Layouts.classFolders
        | None ->
            let listing = Errors.reading path (fun () -> listFolder path)
            let root, names = rootOf path, listing.Items |> List.map _.Name

            { Name = name
              Key = Files.state root names
              IsSlow = true
              Read = fun () -> Layouts.classFolders, assemble path name (fun () -> Files.fingerprint root names) listing }

    let private opening (extra: bool) (path: string) (look: Source -> 'a) : 'a =
        let path = Files.resolve path

        if Directory.Exists path then
            look (ofFolder extra path)
        else
            Errors.reading path (fun () ->
                use stream = Errors.openRead path
                look (ofStream extra path (named extra path) stream))

    let private throughCache (reading: Reading) (source: Source) : Dataset =
        let cache =
            if source.IsSlow || reading.CachesAll then
                reading.Cache
            else
                None

        match
            cache
            |> Option.bind (fun folder -> fetch reading.Warn folder source.Name source.Key)
        with
        | Some dataset -> dataset
        | None ->
            let _, dataset = source.Read()
            cache |> Option.iter (fun folder -> store folder source.Key dataset)
            dataset

    /// Reads an archive (`.tar.gz`, `.tgz`, `.tar` or `.zip`) or a folder of train/CLASS/*.jpg and test/CLASS/*.jpg (or
    /// .jpeg, .png; val where there is no test), or of a layout in which data sets are published: CIFAR-10's and CIFAR-100's
    /// binary versions, SVHN's cropped digits, MNIST's idx files, Tiny-ImageNet-200. All may lie below one top folder; a folder that
    /// holds an archive alone stands for it. In class folders, other files and names that start with a dot are passed over,
    /// classes and files are sorted ordinally, and all images have one size. A decoded copy's images are pages of its file. A
    /// UserError for whatever is wrong with the path or its contents.
    let readAs (reading: Reading) (path: string) : Dataset =
        opening reading.Extra path (throughCache reading)

    /// `readAs` with an explicit folder for decoded copies, or none.
    let readWith (cache: string option) (path: string) : Dataset =
        readAs { reading () with Cache = cache } path

    /// `readAs` with decoded copies of images and archives in the user's cache folder, where it can be written.
    let read (path: string) : Dataset = readAs (reading ()) path

    /// Reads from the files themselves, with the name of their layout, and the extra images where they are asked for.
    let inspect (extra: bool) (path: string) : string * Dataset =
        opening extra path (fun source -> source.Read())

    let private encodedOf (path: string) (listing: Listing) : Encoded =
        let classes, train, test = ordered path listing

        let files (items: Item[], labels: int[]) =
            Array.map2 (fun (item: Item) label -> item.Name, item.Bytes, label) items labels

        { Name = Files.nameOf path
          Path = path
          Classes = classes
          Train = files train
          Test = files test
          Fingerprint =
            Files.digest
                [ for item in Array.append (fst train) (fst test) do
                      item.Name, string (item.Size()) ] }

    /// Lists class folders, as `readAs` has them, in a folder or a `.tar` archive, whose images may have any sizes; a UserError
    /// for another layout and for a compressed archive, which cannot be read a file at a time.
    let internal encoded (path: string) : Encoded =
        let path = Files.resolve path

        let check (files: Files) =
            match Layouts.recognise files with
            | Some(_, layout) ->
                Errors.user $"{path}: {layout.Name} has images of one size, and is read without --image-size."
            | None -> ()

        if Directory.Exists path then
            check (Files.ofFolder path)
            Errors.reading path (fun () -> listFolder path) |> encodedOf path
        else
            Errors.reading path (fun () ->
                use stream = Errors.openRead path

                if Archive.isCompressed stream then
                    Errors.user
                        $"{path}: with --image-size, images are read from a folder or a .tar archive; unpack it, and name its folder."

                Archive.using path stream (fun entries ->
                    check (Files.ofEntries path entries)
                    listArchive path entries |> encodedOf path))

    let private resource = "cifar10-jpeg-6000.tar.gz"

    /// `embedded`, read in this way; it has no extra images.
    let embeddedAs (reading: Reading) : Dataset =
        use stream = typeof<Dataset>.Assembly.GetManifestResourceStream resource

        if isNull stream then
            invalidOp $"The assembly lacks its resource {resource}."

        if reading.Extra then
            refuseExtra "the images in the program" "CIFAR-10"

        ofStream false resource "CIFAR-10 (JPEG copy), 6,000 images" stream
        |> throughCache reading

    /// `embedded` with an explicit folder for decoded copies, or none.
    let embeddedWith (cache: string option) : Dataset =
        embeddedAs { reading () with Cache = cache }

    /// The data set inside the program: 500 training and 100 test images of each class of CIFAR-10, JPEG-compressed
    /// (see PROVENANCE.md); 32 x 32.
    let embedded () : Dataset = embeddedAs (reading ())

    // Parts

    /// Refuses a number of images of each class that is less than 1, or more than a class has.
    let internal checkCounts (set: string) (perClass: int) (name: string) (classes: string[]) (labels: int[]) : unit =
        if perClass < 1 then
            Errors.user $"{perClass} {set} images a class: at least 1 is needed."

        for label, available in Array.countBy id labels do
            if available < perClass then
                Errors.user
                    $"{perClass} {set} images a class: {name} has {available} of class {classes[label]}; ask for {available} at \
                      most, or for 0, which is all of every class."

    /// The first images of each class, as a data set of its own; a UserError where a class has fewer.
    let take (perClassTrain: int) (perClassTest: int) (dataset: Dataset) : Dataset =
        let check set perClass (split: Split) =
            checkCounts set perClass dataset.Name dataset.Classes split.Labels

        check "training" perClassTrain dataset.Train
        check "test" perClassTest dataset.Test

        { dataset with
            Train = Split.firstOfEach perClassTrain dataset.Train
            Test = Split.firstOfEach perClassTest dataset.Test }

    /// Frees the images.
    let dispose (dataset: Dataset) : unit =
        Split.dispose dataset.Train
        Split.dispose dataset.Test
