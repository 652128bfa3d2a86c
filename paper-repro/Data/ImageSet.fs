namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Collections.Generic
open System.Runtime.InteropServices
open System.Security.Cryptography
open TorchSharp

/// How many threads decode images beside what uses them, and how many images each of them may be ahead.
type Workers =
    {
        Threads: int
        /// Together they hold no more than Threads times Prefetch images of the size at which they are used.
        Prefetch: int
    }

/// What is done to training images at random.
type Augmentation =
    {
        /// Is each mirrored with a chance of 1/2?
        Flip: bool
        /// By how many pixels decoded images are padded before they are cropped; images in files are cropped as ImageNet's.
        CropPadding: int
    }

/// Batches that come in order.
[<NoEquality; NoComparison>]
type Feed =
    {
        /// The next so many images as float32 `[N,3,H,W]` in [0,1]. A UserError where one of them cannot be decoded.
        Next: int -> torch.Tensor
        /// Ends what makes them.
        Close: unit -> unit
    }

/// Where images are.
[<NoEquality; NoComparison>]
type internal Pool =
    | Decoded of Split
    /// Of the data set at this path: names, bytes and class indices, and the side to which parts of them are resized.
    | Filed of path: string * files: (string * (unit -> byte[]) * int)[] * side: int * workers: Workers

/// Images with their classes, in memory or in files: those of a pool that these indices name.
[<NoEquality; NoComparison>]
type ImageSet = internal { Pool: Pool; Indices: int[] }

[<RequireQualifiedAccess>]
module ImageSet =

    /// All images of a split.
    let ofSplit (split: Split) : ImageSet =
        { Pool = Decoded split
          Indices = Array.init (Split.count split) id }

    /// The number of images.
    let count (set: ImageSet) : int = set.Indices.Length

    /// The class index of every image.
    let labels (set: ImageSet) : int[] =
        match set.Pool with
        | Decoded split -> set.Indices |> Array.map (fun index -> split.Labels[index])
        | Filed(_, files, _, _) ->
            set.Indices
            |> Array.map (fun index ->
                let _, _, label = files[index]
                label)

    /// Height and width.
    let size (set: ImageSet) : int * int =
        match set.Pool with
        | Decoded split -> int split.Images.shape[2], int split.Images.shape[3]
        | Filed(_, _, side, _) -> side, side

    /// The images at these places, as a set of its own, of which nothing is copied.
    let select (places: int[]) (set: ImageSet) : ImageSet =
        { set with
            Indices = places |> Array.map (fun place -> set.Indices[place]) }

    /// Splits off a validation set: the first `validation` images of the permutation of 0 .. N - 1; the rest stay for
    /// training. Gives (training, validation).
    let holdOut (validation: int) (permutation: int[]) (set: ImageSet) : ImageSet * ImageSet =
        select (Array.skip validation permutation) set, select (Array.take validation permutation) set

    /// The first images of each class, in the set's order; a class that has fewer gives all that it has.
    let firstOfEach (perClass: int) (set: ImageSet) : ImageSet =
        let taken = Dictionary<int, int>()

        let keep label =
            let before = taken.GetValueOrDefault label
            taken[label] <- before + 1
            before < perClass

        let labels = labels set

        select
            [| for place in 0 .. labels.Length - 1 do
                   if keep labels[place] then
                       place |]
            set

    /// Which of its data set's images a set has, and in which order: the SHA-256 of their numbers.
    let selection (set: ImageSet) : string =
        SHA256.HashData(MemoryMarshal.AsBytes(ReadOnlySpan set.Indices))
        |> Convert.ToHexStringLower

    /// So many images, as evenly spread over the set as can be: image i of n is the one at i count / n.
    let spread (images: int) (set: ImageSet) : ImageSet =
        let all = count set

        if images < 1 || images > all then
            Errors.user $"images {images}: the test set has {all}; ask for 1 .. {all}."

        select [| for i in 0 .. images - 1 -> int (int64 i * int64 all / int64 images) |] set

    // Images in files

    let private areaOf (side: int) = 3 * side * side

    let private decode
        path
        (files: (string * (unit -> byte[]) * int)[])
        side
        (index: int)
        (crop: Crop)
        (target: byte[])
        =
        let name, bytes, _ = files[index]
        Images.decodePart $"{path}: {name}" (bytes ()) side (Crop.box crop) target

    /// The images at these places of a set in files, each with its crop, ahead of their use.
    let private ahead (set: ImageSet) (places: int[]) (crop: int -> Crop) : Ahead =
        match set.Pool with
        | Decoded _ -> invalidArg (nameof set) "Decoded images need nobody ahead."
        | Filed(path, files, side, workers) ->
            Ahead.start
                workers.Threads
                (workers.Threads * workers.Prefetch)
                (areaOf side)
                places.Length
                (fun i target -> decode path files side set.Indices[places[i]] (crop i) target)

    let private floats (side: int) (images: int) (fill: int -> (byte[] -> unit) -> unit) : torch.Tensor =
        let area = areaOf side

        Scope.run (fun () ->
            let batch =
                torch.empty ([| int64 images; 3L; int64 side; int64 side |], dtype = torch.float32)

            for i in 0 .. images - 1 do
                fill i (fun bytes ->
                    Augment.toFloats bytes ((MemoryMarshal.Cast<byte, float32> batch.bytes).Slice(i * area, area)))

            batch)

    let private feedOf (set: ImageSet) (places: int[]) (crop: int -> Crop) : Feed =
        let ahead = ahead set places crop
        let side = fst (size set)

        { Next = fun images -> floats side images (fun _ look -> ahead.Next look)
          Close = ahead.Close }

    /// Gives a feed to a function, and closes it.
    let using (feed: Feed) (work: Feed -> 'a) : 'a =
        try
            work feed
        finally
            feed.Close()

    /// The images at these places, not augmented, as float32 `[N,3,H,W]` in [0,1].
    let plain (set: ImageSet) (places: int[]) : torch.Tensor =
        match set.Pool with
        | Decoded split -> Augment.plain split (places |> Array.map (fun place -> set.Indices[place]))
        | Filed(path, files, side, _) ->
            let buffer = Array.zeroCreate<byte>(areaOf side)

            floats side places.Length (fun i look ->
                decode path files side set.Indices[places[i]] Crop.Centre buffer
                look buffer)

    /// The images at these places, not augmented, as uint8 `[N,3,H,W]`.
    let bytes (set: ImageSet) (places: int[]) : torch.Tensor =
        match set.Pool with
        | Decoded split ->
            Scope.run (fun () ->
                let indices = places |> Array.map (fun place -> int64 set.Indices[place])
                split.Images.index_select (0L, torch.tensor (indices, dtype = torch.int64)))
        | Filed(_, _, side, _) ->
            let area = areaOf side
            let ahead = ahead set places (fun _ -> Crop.Centre)

            try
                Scope.run (fun () ->
                    let batch =
                        torch.empty ([| int64 places.Length; 3L; int64 side; int64 side |], dtype = torch.uint8)

                    for i in 0 .. places.Length - 1 do
                        ahead.Next(fun bytes -> bytes.AsSpan().CopyTo(batch.bytes.Slice(i * area, area)))

                    batch)
            finally
                ahead.Close()

    /// All images in the set's order, not augmented.
    let inOrder (set: ImageSet) : Feed =
        match set.Pool with
        | Decoded split ->
            let next = ref 0

            { Next =
                fun images ->
                    let first = next.Value
                    next.Value <- first + images
                    Augment.plain split (Array.sub set.Indices first images)
              Close = ignore }
        | Filed _ -> feedOf set [| 0 .. count set - 1 |] (fun _ -> Crop.Centre)

    let private drawMoves (augmentation: Augmentation) (images: int) (key: Key) : Moves =
        let bits = Key.stream key
        let places = 2 * augmentation.CropPadding + 1

        let drawn =
            Array.init images (fun _ -> bits.Below 2, bits.Below places, bits.Below places)

        { Flip = drawn |> Array.map (fun (flip, _, _) -> augmentation.Flip && flip = 1)
          Dy = drawn |> Array.map (fun (_, dy, _) -> dy)
          Dx = drawn |> Array.map (fun (_, _, dx) -> dx) }

    /// The images in this order of places from the one numbered `from` on, augmented. What is done to an image follows from
    /// the key and its number in the order, wherever one starts.
    let training (augmentation: Augmentation) (key: Key) (order: int[]) (from: int) (set: ImageSet) : Feed =
        match set.Pool with
        | Decoded split ->
            let moves = drawMoves augmentation order.Length key
            let next = ref from

            { Next =
                fun images ->
                    let first = next.Value
                    next.Value <- first + images

                    let moves =
                        { Flip = Array.sub moves.Flip first images
                          Dy = Array.sub moves.Dy first images
                          Dx = Array.sub moves.Dx first images }

                    Array.sub order first images
                    |> Array.map (fun place -> set.Indices[place])
                    |> Augment.cropAndFlip augmentation.CropPadding moves split
              Close = ignore }
        | Filed _ ->
            feedOf set (Array.skip from order) (fun i -> Crop.Drawn(augmentation.Flip, Key.child (from + i) key))

    /// Frees images in memory, with those of all sets that were selected from the same.
    let dispose (set: ImageSet) : unit =
        match set.Pool with
        | Decoded split -> Split.dispose split
        | Filed _ -> ()

    /// How many images are evaluated at a time: 250, and of images in files as many as have the pixels of 250 of 64 x 64.
    let evaluated (set: ImageSet) : int =
        match set.Pool with
        | Decoded _ -> 250
        | Filed(_, _, side, _) -> max 1 (min 250 (250 * 64 * 64 / (side * side)))

    // Statistics

    let private counting (planes: int) (area: int) (bytes: ReadOnlySpan<byte>) (counts: int64[][]) =
        for plane in 0 .. planes - 1 do
            let counts = counts[plane]

            for value in bytes.Slice(plane * area, area) do
                counts[int value] <- counts[int value] + 1L

    /// The mean and the standard deviation of each channel over all pixels, on the scale of [0,1], from exact counts. Of
    /// images in files, `most` are looked at, evenly spread over the set.
    let moments (most: int) (set: ImageSet) : (float * float) list =
        let height, width = size set
        let area = height * width
        let counts = Array.init 3 (fun _ -> Array.zeroCreate<int64> 256)

        match set.Pool with
        | Decoded split ->
            for index in set.Indices do
                counting 3 area (Span.op_Implicit (split.Images.bytes.Slice(3 * area * index, 3 * area))) counts
        | Filed _ ->
            let all = int64 (count set)
            let images = min (int64 most) all

            let ahead =
                ahead set [| for i in 0L .. images - 1L -> int (i * all / images) |] (fun _ -> Crop.Centre)

            try
                for _ in 1L .. images do
                    ahead.Next(fun bytes -> counting 3 area (ReadOnlySpan bytes) counts)
            finally
                ahead.Close()

        [ for counts in counts do
              let mean (f: float -> float) =
                  let weighted =
                      counts |> Array.mapi (fun value count -> float count * f (float value / 255.0))

                  Array.sum weighted / float (Array.sum counts)

              let average = mean id
              average, sqrt (mean (fun value -> (value - average) ** 2.0)) ]

/// A training and a test set over the same classes, in memory or in files.
[<NoEquality; NoComparison>]
type Corpus =
    {
        Name: string
        /// The classes' names in the order of their indices.
        Classes: string[]
        /// As a data set's.
        MayMirror: bool
        Train: ImageSet
        Test: ImageSet
        /// SHA-256, in hexadecimal.
        Fingerprint: string
    }

[<RequireQualifiedAccess>]
module Corpus =

    /// The images of a data set, which stay the corpus's until it is disposed.
    let ofDataset (dataset: Dataset) : Corpus =
        { Name = dataset.Name
          Classes = dataset.Classes
          MayMirror = dataset.MayMirror
          Train = ImageSet.ofSplit dataset.Train
          Test = ImageSet.ofSplit dataset.Test
          Fingerprint = dataset.Fingerprint }

    /// Images in files, of train/CLASS/*.jpg and test/CLASS/*.jpg (or .jpeg, .png; val where there is no test) in a folder or
    /// a `.tar` archive, of any sizes, which are decoded when they are used: parts of them, resized to squares of this
    /// side. A UserError for whatever is wrong with the path, and for no workers.
    let inFiles (workers: Workers) (side: int) (path: string) : Corpus =
        for what, value, most in [ "workers", workers.Threads, 1024; "prefetch", workers.Prefetch, 65536 ] do
            if value < 1 || value > most then
                Errors.user $"{what} {value}: it must lie in 1 .. {most}."

        let found = Dataset.encoded path

        let part files =
            { Pool = Filed(found.Path, files, side, workers)
              Indices = Array.init files.Length id }

        { Name = found.Name
          Classes = found.Classes
          MayMirror = true
          Train = part found.Train
          Test = part found.Test
          Fingerprint = found.Fingerprint }

    /// The first images of each class, as a corpus of which nothing is copied; all of them where the number is 0. A UserError
    /// where a class has fewer.
    let take (perClassTrain: int) (perClassTest: int) (corpus: Corpus) : Corpus =
        let part what perClass (set: ImageSet) =
            if perClass = 0 then
                set
            else
                Dataset.checkCounts what perClass corpus.Name corpus.Classes (ImageSet.labels set)
                ImageSet.firstOfEach perClass set

        { corpus with
            Train = part "training" perClassTrain corpus.Train
            Test = part "test" perClassTest corpus.Test }

    /// Frees the images.
    let dispose (corpus: Corpus) : unit =
        ImageSet.dispose corpus.Train
        ImageSet.dispose corpus.Test
