namespace PatchUp.Repro

open PatchUp.Functional
open System

/// Which part of an image is shown.
[<RequireQualifiedAccess>]
type Crop =
    /// The square in the middle, whose side is 7/8 of the image's shorter side: as if that were resized to 256 pixels, of
    /// which 224 are shown.
    | Centre
    /// A rectangle of 8 to 100 % of the area and of a ratio of sides from 3/4 to 4/3, and, where that is asked for, mirrored in
    /// half of the cases: as ImageNet is trained on. The key makes every choice.
    | Drawn of isMirroring: bool * key: Key

/// A part of an image.
type Box =
    { Top: int
      Left: int
      Rows: int
      Columns: int
      IsMirrored: bool }

[<RequireQualifiedAccess>]
module Crop =

    let private centred (height: int) (width: int) (rows: int) (columns: int) : Box =
        { Top = (height - rows) / 2
          Left = (width - columns) / 2
          Rows = rows
          Columns = columns
          IsMirrored = false }

    let private rounded (value: float) = int (Math.Round value)

    /// The largest part in the middle whose ratio of sides is allowed.
    let private largest (height: int) (width: int) : Box =
        centred
            height
            width
            (max 1 (min height (rounded (float width / 0.75))))
            (max 1 (min width (rounded (float height * 4.0 / 3.0))))

    let private drawn (isMirroring: bool) (key: Key) (height: int) (width: int) : Box =
        let bits = Key.stream key
        let isMirrored = bits.Below 2 = 1 && isMirroring
        let between low high = low + (high - low) * bits.Float()

        let attempt () =
            let area = float height * float width * between 0.08 1.0
            let ratio = exp (between (log 0.75) (log (4.0 / 3.0)))
            let rows, columns = rounded (sqrt (area / ratio)), rounded (sqrt (area * ratio))

            if rows >= 1 && rows <= height && columns >= 1 && columns <= width then
                let top = bits.Below(height - rows + 1)

                Some
                    { Top = top
                      Left = bits.Below(width - columns + 1)
                      Rows = rows
                      Columns = columns
                      IsMirrored = isMirrored }
            else
                None

        // Ten attempts, and then no more drawing: torchvision's rule.
        match Seq.init 10 ignore |> Seq.tryPick attempt with
        | Some box -> box
        | None ->
            { largest height width with
                IsMirrored = isMirrored }

    /// The part of an image of this height and width.
    let box (crop: Crop) (height: int) (width: int) : Box =
        match crop with
        | Crop.Centre ->
            let side = max 1 (rounded (0.875 * float (min height width)))
            centred height width side side
        | Crop.Drawn(isMirroring, key) -> drawn isMirroring key height width
