namespace PatchUp.Repro

open System

/// The binary versions of CIFAR-10 and CIFAR-100: records of one or two labels and an image of 32 x 32, as 1,024 red, 1,024
/// green and 1,024 blue bytes, each plane row by row. All below a folder of the files; UserErrors name the file.
[<RequireQualifiedAccess>]
module internal Cifar =

    let private side = 32
    let private area = 3 * side * side

    /// The largest file; the published ones have 154 MB at most.
    let private most = 1L <<< 30

    /// The records of these files one after the other: `labels` bytes of labels, of which the last counts, and an image.
    let private split (files: Files) (labels: int) (classes: string[]) (names: string list) : Split =
        let record = labels + area

        let records =
            [| for name in names do
                   let bytes = Files.bytes most files name

                   if bytes.Length = 0 || bytes.Length % record <> 0 then
                       Errors.user
                           $"{files.Path}: {name} has {bytes.Length} bytes, which are no whole records of {record}; fetch it again."

                   for i in 0 .. bytes.Length / record - 1 do
                       name, i, ReadOnlyMemory(bytes, i * record, record) |]

        Split.make files.Path (int64 records.Length) side side (fun index planes ->
            let name, i, bytes = records[index]
            let label = int bytes.Span[labels - 1]

            if label >= classes.Length then
                Errors.user
                    $"{files.Path}: record {i} of {name} has the label {label}; labels lie in 0 .. {classes.Length - 1}. \
                      Fetch it again."

            bytes.Span.Slice(labels).CopyTo planes
            label)

    let private classes (files: Files) (count: int) (name: string) : string[] =
        let lines = Files.lines files name

        if lines.Length <> count then
            Errors.user $"{files.Path}: {name} names {lines.Length} classes; they are {count}. Fetch it again."

        lines

    let private read (files: Files) (labels: int) (classes: string[]) train test : Sets =
        let train = split files labels classes train

        try
            { Classes = classes
              MayMirror = true
              Train = train
              Test = split files labels classes test }
        with _ ->
            Split.dispose train
            reraise ()

    /// CIFAR-10 in this folder.
    let read10 (files: Files) (folder: string) : Sets =
        let at = Files.at folder
        let train = [ for i in 1..5 -> at $"data_batch_{i}.bin" ]
        read files 1 (classes files 10 (at "batches.meta.txt")) train [ at "test_batch.bin" ]

    /// CIFAR-100 in this folder, by its fine labels.
    let read100 (files: Files) (folder: string) : Sets =
        let at = Files.at folder
        read files 2 (classes files 100 (at "fine_label_names.txt")) [ at "train.bin" ] [ at "test.bin" ]
