namespace PatchUp.Repro

/// The cropped digits of SVHN: MATLAB files of X, uint8 [32,32,3,N] by row, column, channel and image, and y, the digits,
/// of which 0 has the label 10.
[<RequireQualifiedAccess>]
module internal Svhn =

    let private side = 32
    let private area = 3 * side * side

    /// The images of a file, by MATLAB's order of axes, and their labels.
    let private arrays (files: Files) (name: string) : byte[] * byte[] =
        let fail (what: string) : 'a =
            Errors.user $"{files.Path}: {name}: {what}; fetch it again."

        let arrays = Files.reading files name Mat.read

        let array wanted =
            match arrays |> List.filter (fun array -> array.Name = wanted) with
            | [ array ] -> array
            | _ -> fail $"it has no array '{wanted}', or several"

        let images, labels = array "X", array "y"
        let shown (array: MatArray) = System.String.Join("x", array.Sizes)

        // MATLAB leaves out a last axis of size 1.
        let count =
            match images.Sizes with
            | [ 32L; 32L; 3L; count ] -> count
            | [ 32L; 32L; 3L ] -> 1L
            | _ -> fail $"X is {shown images}, not 32x32x3xN"

        if labels.Sizes <> [ count; 1L ] then
            fail $"y is {shown labels}, not {count}x1 as X has {count} images"

        for index in 0 .. labels.Values.Length - 1 do
            if labels.Values[index] < 1uy || labels.Values[index] > 10uy then
                fail $"image {index} has the label {labels.Values[index]}; labels lie in 1 .. 10"

        images.Values, labels.Values

    /// The images of these files, one after the other.
    let private split (files: Files) (names: string list) : Split =
        let parts = names |> List.map (arrays files) |> Array.ofList

        // Where each of them starts.
        let starts =
            parts |> Array.scan (fun start (_, labels) -> start + int64 labels.Length) 0L

        Split.make files.Path (Array.last starts) side side (fun index planes ->
            let part = (starts |> Array.findIndex (fun start -> start > int64 index)) - 1

            let index = index - int starts[part]
            let images, labels = parts[part]

            for channel in 0..2 do
                for column in 0 .. side - 1 do
                    let from = index * area + (channel * side + column) * side

                    for row in 0 .. side - 1 do
                        planes[(channel * side + row) * side + column] <- images[from + row]

            int labels[index] % 10)

    /// The file of further training images, which are easier ones.
    let extra = "extra_32x32.mat"

    let private sets (training: string list) (files: Files) (folder: string) : Sets =
        let train = split files (training |> List.map (Files.at folder))

        try
            { Classes = Array.init 10 string
              MayMirror = false
              Train = train
              Test = split files [ Files.at folder "test_32x32.mat" ] }
        with _ ->
            Split.dispose train
            reraise ()

    /// SVHN in this folder.
    let read: Files -> string -> Sets = sets [ "train_32x32.mat" ]

    /// The same with the extra images behind the training images.
    let readWithExtra: Files -> string -> Sets = sets [ "train_32x32.mat"; extra ]
