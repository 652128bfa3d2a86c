namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Runtime.InteropServices
open TorchSharp

/// The drawn augmentation of a batch of N images, N values each.
type Moves =
    {
        /// Mirrored left to right?
        Flip: bool[]
        /// First row of the crop in the padded image: 0 .. 2 * padding.
        Dy: int[]
        /// First column of the crop in the padded image: 0 .. 2 * padding.
        Dx: int[]
    }

/// Batches out of a split's bytes, in one pass. Every random choice is an argument.
[<RequireQualifiedAccess>]
module Augment =

    /// byte / 255, correctly rounded.
    let private scaled = Array.init 256 (fun value -> float32 value / 255.0f)

    /// Height, width; an ArgumentException for an index outside.
    let private sizeOf (split: Split) (indices: int[]) =
        for index in indices do
            if index < 0 || index >= split.Labels.Length then
                invalidArg
                    (nameof indices)
                    $"The index {index} is outside the {split.Labels.Length} images of the split."

        int split.Images.shape[2], int split.Images.shape[3]

    let private check (padding: int) (moves: Moves) (indices: int[]) =
        let count = indices.Length

        if
            moves.Flip.Length <> count
            || moves.Dy.Length <> count
            || moves.Dx.Length <> count
        then
            invalidArg (nameof moves) $"{count} images need {count} flips and {count} shifts either way."

        if padding < 0 then
            invalidArg (nameof padding) $"The padding {padding} must not be negative."

        for shift in Seq.append moves.Dy moves.Dx do
            if shift < 0 || shift > 2 * padding then
                invalidArg (nameof moves) $"The shift {shift} is outside 0 .. {2 * padding} for a padding of {padding}."

    /// byte / 255 of every byte, into as many numbers.
    let internal toFloats (source: byte[]) (target: Span<float32>) : unit =
        for i in 0 .. source.Length - 1 do
            target[i] <- scaled[int source[i]]

    let private floats (tensor: torch.Tensor) =
        MemoryMarshal.Cast<byte, float32> tensor.bytes

    let private empty (split: Split) (count: int) =
        let size = split.Images.shape
        torch.empty ([| int64 count; size[1]; size[2]; size[3] |], dtype = torch.float32)

    /// The images of these indices as float32 `[N,3,H,W]` in [0,1]; an ArgumentException for an index outside.
    let plain (split: Split) (indices: int[]) : torch.Tensor =
        let height, width = sizeOf split indices
        let size = 3 * height * width
        let batch = empty split indices.Length
        let source = split.Images.bytes
        let target = floats batch
        let table = scaled

        for i in 0 .. indices.Length - 1 do
            let from = source.Slice(indices[i] * size, size)
            let into = target.Slice(i * size, size)

            for j in 0 .. into.Length - 1 do
                into[j] <- table[int from[j]]

        batch

    /// The images of these indices as float32 `[N,3,H,W]` in [0,1]: each padded with zeros by `padding` pixels on every
    /// side, cropped to its own size at its (Dy, Dx), then mirrored where Flip says so. An ArgumentException for an
    /// index or a shift outside, and unless there is one of each move an image.
    let cropAndFlip (padding: int) (moves: Moves) (split: Split) (indices: int[]) : torch.Tensor =
        check padding moves indices
        let height, width = sizeOf split indices
        let size = 3 * height * width
        let batch = empty split indices.Length
        let source = split.Images.bytes
        let target = floats batch
        let table = scaled

        for i in 0 .. indices.Length - 1 do
            let down = moves.Dy[i] - padding
            let right = moves.Dx[i] - padding
            let flip = moves.Flip[i]
            // The columns of the crop that lie inside the image: first .. first + inside - 1.
            let inside = max 0 (width - abs right)
            let first = min width (max 0 -right)

            for row in 0 .. 3 * height - 1 do
                let into = target.Slice(i * size + row * width, width)
                let y = row % height + down

                if y < 0 || y >= height || inside = 0 then
                    into.Clear()
                else
                    let from =
                        source.Slice(indices[i] * size + (row + down) * width + first + right, inside)

                    if flip then
                        let into' = into.Slice(width - first - inside, inside)
                        into.Slice(0, width - first - inside).Clear()
                        into.Slice(width - first).Clear()

                        for x in 0 .. into'.Length - 1 do
                            into'[x] <- table[int from[from.Length - 1 - x]]
                    else
                        let into' = into.Slice(first, inside)
                        into.Slice(0, first).Clear()
                        into.Slice(first + inside).Clear()

                        for x in 0 .. into'.Length - 1 do
                            into'[x] <- table[int from[x]]

        batch
