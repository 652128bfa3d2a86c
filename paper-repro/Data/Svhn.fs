namespace PatchUp.Repro

/// The cropped digits of SVHN: MATLAB files of X, uint8 [32,32,3,N] by row, column, channel and image, and y, the digits,
/// of which 0 has the label 10.
[<RequireQualifiedAccess>]
module internal Svhn =

    let private side = 32
    let private area = 3 * side * side

    let private split (files: Files) (name: string) : Split =
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

        Split.make files.Path count side side (fun index planes ->
            for channel in 0..2 do
                for column in 0 .. side - 1 do
                    let from = index * area + (channel * side + column) * side

                    for row in 0 .. side - 1 do
                        planes[(channel * side + row) * side + column] <- images.Values[from + row]

            match int labels.Values[index] with
            | 10 -> 0
            | label when label >= 1 && label <= 9 -> label
            | label -> fail $"image {index} has the label {label}; labels lie in 1 .. 10")

    /// SVHN in this folder.
    let read (files: Files) (folder: string) : Sets =
        let train = split files (Files.at folder "train_32x32.mat")

        try
            { Classes = Array.init 10 string
              Train = train
              Test = split files (Files.at folder "test_32x32.mat") }
        with _ ->
            Split.dispose train
            reraise ()
