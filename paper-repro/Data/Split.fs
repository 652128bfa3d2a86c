namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Collections.Generic
open TorchSharp

/// Images with their classes.
[<NoEquality; NoComparison>]
type Split =
    {
        /// uint8 `[N,3,H,W]`, on the CPU, contiguous.
        Images: torch.Tensor
        /// N class indices.
        Labels: int[]
    }

/// What a reader finds: a training and a test set over the same classes.
[<NoEquality; NoComparison>]
type internal Sets =
    {
        /// The classes' names in the order of their indices.
        Classes: string[]
        /// Is a mirrored image one of its class still? A digit is not.
        MayMirror: bool
        Train: Split
        Test: Split
    }

[<RequireQualifiedAccess>]
module Split =

    /// The number of images.
    let count (split: Split) : int = split.Labels.Length

    /// The images of these indices in this order, as a split of its own; an ArgumentException for an index outside.
    let select (indices: int[]) (split: Split) : Split =
        for index in indices do
            if index < 0 || index >= count split then
                invalidArg
                    (nameof indices)
                    $"The index {index} is outside the {count split} images 0 .. {count split - 1}."

        { Images = Scope.run (fun () -> split.Images.index_select (0L, torch.tensor (Array.map int64 indices)))
          Labels = indices |> Array.map (fun index -> split.Labels[index]) }

    /// Splits off a validation set: the first `validation` images of the permutation of 0 .. N - 1; the rest stay for
    /// training. Gives (training, validation); an ArgumentException unless it is a permutation and both have an image.
    let holdOut (validation: int) (permutation: int[]) (split: Split) : Split * Split =
        if Array.sort permutation <> Array.init (count split) id then
            invalidArg (nameof permutation) $"It must be a permutation of 0 .. {count split - 1}."

        if validation < 1 || validation >= count split then
            invalidArg
                (nameof validation)
                $"{validation} validation images of {count split}: both parts need at least one."

        select (Array.skip validation permutation) split, select (Array.take validation permutation) split

    /// The first images of each class, in the order of the split; a class that has fewer gives all that it has.
    let internal firstOfEach (perClass: int) (split: Split) : Split =
        let taken = Dictionary<int, int>()

        let keep label =
            let before = taken.GetValueOrDefault label
            taken[label] <- before + 1
            before < perClass

        let indices =
            [| for index in 0 .. count split - 1 do
                   if keep split.Labels[index] then
                       index |]

        select indices split

    /// Frees the images.
    let dispose (split: Split) : unit = split.Images.Dispose()

    /// A split of `count` images of this size whose planes `fill` writes into the buffer that it is given with an image's
    /// index, and whose label it returns. A UserError below `path` where there is no image, or more than fit.
    let internal make (path: string) (count: int64) (height: int) (width: int) (fill: int -> byte[] -> int) : Split =
        let area = 3L * int64 height * int64 width

        if count < 1L || count > int64 Array.MaxLength / area then
            Errors.user $"{path}: {count} images of {width} x {height} pixels; it takes 1 at least and 2 GiB at most."

        let buffer = Array.zeroCreate<byte>(int area)

        let images =
            torch.empty ([| count; 3L; int64 height; int64 width |], dtype = torch.uint8)

        try
            let labels =
                Array.init (int count) (fun index ->
                    let label = fill index buffer
                    buffer.CopyTo(images.bytes.Slice(index * int area, int area))
                    label)

            { Images = images; Labels = labels }
        with _ ->
            images.Dispose()
            reraise ()
