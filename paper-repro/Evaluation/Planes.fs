namespace PatchUp.Repro

open System

/// Square planes of numbers of one side, row-major one after the other: an image's three channels, or a single field.
[<RequireQualifiedAccess>]
module Planes =

    /// byte / 255.
    let private shares = Array.init 256 (fun level -> float level / 255.0)

    /// The image's values in [0, 1], `[3,H,W]`.
    let ofPixels (image: Pixels) : float[] =
        image.Planes |> Array.map (fun level -> shares[int level])

    /// Levels, 0 to 255, of values whose excess over [0, 1] is cut off.
    let levels (values: float[]) : float[] =
        values |> Array.map (fun value -> Math.Clamp(value, 0.0, 1.0) * 255.0)

    /// Bytes of levels: truncated, as the published images are, not rounded.
    let truncate (levels: float[]) : byte[] = levels |> Array.map byte

    /// The place inside 0 .. n - 1 for one outside: that of the edge (a a | a b c).
    let clamped (n: int) (i: int) : int = Math.Clamp(i, 0, n - 1)

    /// Mirrored at the edge's centre, which is not repeated (c b | a b c).
    let rec mirrored (n: int) (i: int) : int =
        if i < 0 then mirrored n -i
        elif i >= n then mirrored n (2 * n - 2 - i)
        else i

    /// Mirrored at the border, so that the edge is repeated (b a | a b c).
    let rec reflected (n: int) (i: int) : int =
        if i < 0 then reflected n (-1 - i)
        elif i >= n then reflected n (2 * n - 1 - i)
        else i

    /// Each plane smoothed along columns, then along rows, by a normal density of deviation `sigma` that is cut at `reach` deviations.
    let gauss (border: int -> int -> int) (reach: float) (sigma: float) (side: int) (values: float[]) : float[] =
        let radius = int (floor (reach * sigma + 0.5))

        if radius = 0 then
            values
        else
            let raw =
                Array.init (radius + 1) (fun i -> exp (-0.5 / (sigma * sigma) * float (i * i)))

            let total = raw[0] + 2.0 * Array.sum raw[1..]
            let weights = raw |> Array.map (fun weight -> weight / total)
            // The places of positions -radius .. side - 1 + radius.
            let places = Array.init (side + 2 * radius) (fun i -> border side (i - radius))

            let along (stride: int) (across: int) (source: float[]) =
                let smooth = Array.zeroCreate<float> source.Length

                for plane in 0 .. side * side .. source.Length - 1 do
                    for line in 0 .. side - 1 do
                        let start = plane + line * across

                        for i in 0 .. side - 1 do
                            let mutable sum = source[start + i * stride] * weights[0]

                            for j in radius .. -1 .. 1 do
                                let before = source[start + places[i + radius - j] * stride]
                                let after = source[start + places[i + radius + j] * stride]
                                sum <- sum + (before + after) * weights[j]

                            smooth[start + i * stride] <- sum

                smooth

            values |> along side 1 |> along 1 side

    /// Enlarges the planes' middle by a factor of at least 1: ceil(side / factor) pixels become as many as the factor says, linearly from
    /// corner to corner; what is then too much is cut off evenly.
    let zoom (factor: float) (side: int) (values: float[]) : float[] =
        let few = int (ceil (float side / factor))
        let many = int (Math.Round(float few * factor, MidpointRounding.ToEven))

        if many = few then
            values
        else
            let first = (side - few) / 2
            let cut = (many - side) / 2
            let scale = float (few - 1) / float (many - 1)
            let positions = Array.init side (fun i -> float (i + cut) * scale)
            let low = positions |> Array.map int
            let high = low |> Array.map (fun place -> min (few - 1) (place + 1))
            let share = Array.map2 (fun position place -> position - float place) positions low

            Array.init values.Length (fun i ->
                let row, column = i / side % side, i % side
                let start = i - row * side - column + first * side + first
                let above, below = start + low[row] * side, start + high[row] * side
                let left, right = low[column], high[column]
                let x, y = share[column], share[row]

                values[above + left] * ((1.0 - y) * (1.0 - x))
                + values[above + right] * ((1.0 - y) * x)
                + values[below + left] * (y * (1.0 - x))
                + values[below + right] * (y * x))
