namespace PatchUp.Repro

open PatchUp.Functional
open System
open SkiaSharp

/// Corruptions by processing. Results are levels, 0 to 255, before their truncation to bytes.
[<RequireQualifiedAccess>]
module CorruptionDigital =

    /// V + `more` in hue, saturation and value.
    let brightness (more: float) (image: Pixels) : float[] =
        let values = Planes.ofPixels image
        let area = image.Height * image.Width
        let brighter = Array.zeroCreate<float> values.Length

        for i in 0 .. area - 1 do
            let r, g, b = values[i], values[area + i], values[2 * area + i]
            let most = max r (max g b)
            let range = most - min r (min g b)
            let saturation = if range = 0.0 then 0.0 else range / most

            let sixths =
                if range = 0.0 then 0.0
                elif b = most then 4.0 + (r - g) / range
                elif g = most then 2.0 + (b - r) / range
                else (g - b) / range

            // The published program keeps the hue as a share of the circle, whose rounding decides some of the truncations.
            let share = sixths / 6.0
            let hue = (if share < 0.0 then share + 1.0 else share) * 6.0
            let v = Math.Clamp(most + more, 0.0, 1.0)
            let sector = floor hue
            let rest = hue - sector
            let p = v * (1.0 - saturation)
            let q = v * (1.0 - rest * saturation)
            let t = v * (1.0 - (1.0 - rest) * saturation)

            let struct (r, g, b) =
                match int sector % 6 with
                | 0 -> struct (v, t, p)
                | 1 -> struct (q, v, p)
                | 2 -> struct (p, v, t)
                | 3 -> struct (p, q, v)
                | 4 -> struct (t, p, v)
                | _ -> struct (v, p, q)

            brighter[i] <- r
            brighter[area + i] <- g
            brighter[2 * area + i] <- b

        Planes.levels brighter

    /// Each channel drawn towards its mean over the image.
    let contrast (keep: float) (image: Pixels) : float[] =
        let area = image.Height * image.Width

        Planes.ofPixels image
        |> Array.chunkBySize area
        |> Array.collect (fun plane ->
            let mean = Array.average plane
            plane |> Array.map (fun value -> (value - mean) * keep + mean))
        |> Planes.levels

    /// The values between the four around a point, whose places `border` finds where they are outside.
    let private between
        (border: int -> int -> int)
        (side: int)
        (values: float[])
        (start: int)
        (row: float)
        (column: float)
        =
        let above, left = floor row, floor column
        let y, x = row - above, column - left
        let top, bottom = border side (int above) * side, border side (int above + 1) * side
        let left, right = border side (int left), border side (int left + 1)

        values[start + top + left] * ((1.0 - y) * (1.0 - x))
        + values[start + top + right] * ((1.0 - y) * x)
        + values[start + bottom + left] * (y * (1.0 - x))
        + values[start + bottom + right] * (y * x)

    /// For an image in which three corners of its middle move by (x, y) each: where the output's point (x, y) comes from, as [a, b, c, d, e, f]
    /// in (a x + b y + c, d x + e y + f).
    let private cornersBack (side: int) (corners: float[]) : float[] =
        let centre, size = float (side / 2), float (side / 3)

        let from =
            [| centre + size, centre + size
               centre + size, centre - size
               centre - size, centre - size |]

        let moved =
            from |> Array.mapi (fun i (x, y) -> x + corners[2 * i], y + corners[2 * i + 1])

        // The map takes the moved points to where they were; two edges give its linear part.
        let edge (points: (float * float)[]) i =
            fst points[i] - fst points[1], snd points[i] - snd points[1]

        let (ux, uy), (vx, vy) = edge moved 0, edge moved 2
        let (sx, sy), (tx, ty) = edge from 0, edge from 2
        let determinant = ux * vy - vx * uy
        let a, b = (sx * vy - tx * uy) / determinant, (tx * ux - sx * vx) / determinant
        let d, e = (sy * vy - ty * uy) / determinant, (ty * ux - sy * vx) / determinant
        let (x, y), (x0, y0) = moved[1], from[1]
        [| a; b; x0 - a * x - b * y; d; e; y0 - d * x - e * y |]

    /// What OpenCV cuts positions to: shares of a pixel, and the finer ones that it adds up.
    let private shares, private fineShares = 32, 1024

    /// The image drawn by three of its corners and then, unless the reach `alpha` is 0, along two smooth fields, in float32.
    let elastic (alpha: float) (sigma: float) (corners: float[]) (u: float[]) (v: float[]) (image: Pixels) : float[] =
        let side = image.Height
        let area = side * side
        let m = cornersBack side corners
        let values = Planes.ofPixels image |> Array.map (float32 >> float)

        let fine (value: float) =
            int (Math.Round(value * float fineShares, MidpointRounding.ToEven))

        let position atX atY offset row column =
            let along =
                fine (atY * float row + offset)
                + fineShares / shares / 2
                + fine (atX * float column)
            // Down to a whole share, below 0 too.
            float (along >>> 5) / float shares

        let drawn =
            Array.init values.Length (fun i ->
                let row, column = i / side % side, i % side
                let x = position m[0] m[1] m[2] row column
                let y = position m[3] m[4] m[5] row column
                between Planes.mirrored side values (i - i % area) y x |> float32 |> float)

        let waved =
            if alpha = 0.0 then
                drawn
            else
                let smooth field =
                    Planes.gauss Planes.reflected 3.0 sigma side field
                    |> Array.map (fun value -> float (float32 (alpha * value)))

                let right, down = smooth u, smooth v

                Array.init drawn.Length (fun i ->
                    let place = i % area

                    between
                        Planes.reflected
                        side
                        drawn
                        (i - place)
                        (float (place / side) + down[place])
                        (float (place % side) + right[place]))

        Planes.levels waved

    /// Three corners' shifts and two fields of numbers, uniform in +-shift and +-1.
    let waves (alpha: float) (shift: float) (side: int) (key: Key) : Draws =
        let numbers = Key.stream key
        let signed () = 2.0 * numbers.Float() - 1.0
        let corners = Array.init 6 (fun _ -> shift * signed ())

        let field () =
            Array.init (if alpha = 0.0 then 0 else side * side) (fun _ -> signed ())

        let u = field ()
        Draws.Waves(corners, u, field ())

    /// Pillow's box filter along rows: an output is the plain mean of the inputs whose centres lie in its box, which is an input wide at least;
    /// halves are rounded up.
    let private boxed (height: int) (width: int) (to': int) (planes: byte[]) : byte[] =
        let scale = float width / float to'
        let box = max scale 1.0

        let ranges =
            Array.init to' (fun o ->
                let centre = (float o + 0.5) * scale
                let first = max 0 (int (floor (centre - box / 2.0 + 0.5)))
                let last = min width (int (floor (centre + box / 2.0 + 0.5))) - 1

                let isInside i =
                    let distance = (float i + 0.5 - centre) / box
                    distance > -0.5 && distance <= 0.5

                [| first..last |] |> Array.filter isInside)

        Array.init (planes.Length / (height * width) * height * to') (fun i ->
            let line, o = i / to', i % to'
            let mean = ranges[o] |> Array.averageBy (fun j -> float planes[line * width + j])
            byte (floor (mean + 0.5)))

    let private transposed (height: int) (width: int) (planes: byte[]) : byte[] =
        Array.init planes.Length (fun i ->
            let start = i / (height * width) * (height * width)
            planes[start + i % height * width + i / height % width])

    /// Smaller and back to its size.
    let pixelate (share: float) (image: Pixels) : float[] =
        let side = image.Height
        let few = int (float side * share)

        let resized before after planes =
            planes
            |> boxed before before after
            |> transposed before after
            |> boxed after before after
            |> transposed after after

        image.Planes |> resized side few |> resized few side |> Array.map float

    /// Written as JPEG of this quality, and read back.
    let jpeg (quality: int) (image: Pixels) : float[] =
        use bitmap = Images.toBitmap image
        use file = bitmap.Encode(SKEncodedImageFormat.Jpeg, quality)
        (Images.decode "JPEG" (file.ToArray())).Planes |> Array.map float
