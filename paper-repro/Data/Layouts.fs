namespace PatchUp.Repro

open System

/// A layout of a data set's files that is known by some of their names.
[<NoEquality; NoComparison>]
type internal Layout =
    {
        Name: string
        /// Files that a folder has which is of this layout, and no other layout's has.
        Marks: string list
        /// Its files, in words.
        Shown: string
        /// What was published with it.
        Preset: DataPreset option
        /// Does reading take so long that a decoded copy saves time?
        IsSlow: bool
        /// What is in this folder; a UserError for whatever is wrong with it.
        Read: Files -> string -> Sets
        /// A file of further training images, and what is in this folder with them.
        Extra: (string * (Files -> string -> Sets)) option
    }

/// The layouts in which data sets are published.
[<RequireQualifiedAccess>]
module internal Layouts =

    let private idx ending =
        { Name = "MNIST's idx files"
          Marks = [ "train-images-idx3-ubyte" + ending ]
          Shown =
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, or all with .gz"
          Preset = None
          IsSlow = false
          Read = Idx.sets
          Extra = None }

    /// In the order in which they are asked for.
    let all: Layout list =
        [ { Name = "CIFAR-10, the binary version"
            Marks = [ "data_batch_1.bin" ]
            Shown = "data_batch_1.bin .. data_batch_5.bin, test_batch.bin and batches.meta.txt"
            Preset = Some DataPreset.cifar10
            IsSlow = false
            Read = Cifar.read10
            Extra = None }
          { Name = "CIFAR-100, the binary version"
            Marks = [ "train.bin"; "test.bin" ]
            Shown = "train.bin, test.bin and fine_label_names.txt"
            Preset = Some DataPreset.cifar100
            IsSlow = false
            Read = Cifar.read100
            Extra = None }
          { Name = "SVHN, cropped digits"
            Marks = [ "train_32x32.mat" ]
            Shown = "train_32x32.mat and test_32x32.mat"
            Preset = Some DataPreset.svhn
            IsSlow = false
            Read = Svhn.read
            Extra = Some(Svhn.extra, Svhn.readWithExtra) }
          idx ""
          idx ".gz"
          { Name = "Tiny-ImageNet-200"
            Marks = [ "wnids.txt"; "val/val_annotations.txt" ]
            Shown = "train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt, wnids.txt and words.txt"
            Preset = Some DataPreset.tinyImageNet
            IsSlow = true
            Read = TinyImageNet.read
            Extra = None } ]

    /// What has no layout of its own name.
    let classFolders = "class folders"

    /// The class folders in words.
    let classFoldersShown =
        "train/CLASS/*.jpg and test/CLASS/*.jpg (or .jpeg, .png; val where there is no test)"

    /// All layouts in words.
    let known =
        classFoldersShown
        :: (all
            |> List.map (fun layout -> $"{layout.Shown} ({layout.Name})")
            |> List.distinct)
        |> String.concat "; "

    /// The top folder, or the only folder in it that `has` something; None where there is none, and a UserError that names
    /// them where there are several.
    let folderWith (files: Files) (has: string -> 'a option) : (string * 'a) option =
        let at folder =
            has folder |> Option.map (fun found -> folder, found)

        match at "" with
        | Some found -> Some found
        | None ->
            match fst (files.In "") |> List.choose at with
            | [] -> None
            | [ found ] -> Some found
            | several ->
                let text = String.Join(", ", several |> List.map fst)
                Errors.user $"{files.Path}: it has more than one data set ({text}); name one of them."

    /// The folder that has one of the layouts.
    let recognise (files: Files) : (string * Layout) option =
        folderWith files (fun folder ->
            all
            |> List.tryFind (fun layout -> layout.Marks |> List.forall (Files.at folder >> files.Has)))
