namespace PatchUp.Repro

/// What the paper's experiments do with a data set, and how large it is as published.
type DataPreset =
    {
        Name: string
        Classes: int
        /// The side of the images.
        Size: int
        /// The side to which images in files are brought, of which each has its own size; null where all have one.
        ImageSize: int option
        /// Training images, of which the paper holds a tenth out for validation.
        Train: int
        Test: int
        /// Of each channel, on the scale of [0,1]; it is taken away from the images.
        Mean: float list
        /// Of each channel, on the scale of [0,1]; the images are divided by it.
        Std: float list
        /// Is each training image mirrored with a chance of 1/2?
        IsFlipped: bool
        /// By how many pixels training images are padded on every side before they are cropped to their size.
        CropPadding: int
    }

/// The paper's data sets.
[<RequireQualifiedAccess>]
module DataPreset =

    let private scaled = List.map (fun value -> value / 255.0)
    let private centred = scaled [ 127.5; 127.5; 127.5 ]

    let cifar10: DataPreset =
        { Name = "CIFAR-10"
          Classes = 10
          Size = 32
          ImageSize = None
          Train = 50_000
          Test = 10_000
          Mean = scaled [ 125.3; 123.0; 113.9 ]
          Std = scaled [ 63.0; 62.1; 66.7 ]
          IsFlipped = true
          CropPadding = 2 }

    let cifar100: DataPreset =
        { cifar10 with
            Name = "CIFAR-100"
            Classes = 100
            Mean = scaled [ 129.3; 124.1; 112.4 ]
            Std = scaled [ 68.2; 65.4; 70.4 ] }

    /// Digits are not mirrored.
    let svhn: DataPreset =
        { Name = "SVHN"
          Classes = 10
          Size = 32
          ImageSize = None
          Train = 73_257
          Test = 26_032
          Mean = centred
          Std = centred
          IsFlipped = false
          CropPadding = 2 }

    /// Its test set is the published validation set.
    let tinyImageNet: DataPreset =
        { Name = "Tiny-ImageNet-200"
          Classes = 200
          Size = 64
          ImageSize = None
          Train = 100_000
          Test = 10_000
          Mean = centred
          Std = centred
          IsFlipped = true
          CropPadding = 4 }

    /// ImageNet (ILSVRC 2012) with the numbers that torchvision's models are trained with; its test set is the published
    /// validation set.
    let imageNet: DataPreset =
        { Name = "ImageNet"
          Classes = 1000
          Size = 224
          ImageSize = Some 224
          Train = 1_281_167
          Test = 50_000
          Mean = [ 0.485; 0.456; 0.406 ]
          Std = [ 0.229; 0.224; 0.225 ]
          IsFlipped = true
          CropPadding = 0 }

    /// All of them, by the names by which they are asked for.
    let all: (string * DataPreset) list =
        [ "cifar-10", cifar10
          "cifar-100", cifar100
          "svhn", svhn
          "tiny-imagenet", tinyImageNet
          "imagenet", imageNet ]

    /// The one of this name; a UserError where there is none.
    let find (name: string) : DataPreset =
        match all |> List.tryFind (fst >> (=) name) with
        | Some(_, preset) -> preset
        | None ->
            let names = all |> List.map fst |> String.concat ", "
            Errors.user $"data preset '{name}': the data presets are {names}."
