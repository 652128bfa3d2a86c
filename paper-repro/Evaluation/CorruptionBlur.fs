namespace PatchUp.Repro

open PatchUp.Functional
open System

/// Blurs. Results are levels, 0 to 255, before their truncation to bytes.
[<RequireQualifiedAccess>]
module CorruptionBlur =

    /// How many deviations the Gaussian reaches.
    let private reach = 4.0

    /// Pixels to each side of the disk's centre, and that plus the smoothing's one.
    let private disk = 8

    /// A disk of this radius, smoothed by three taps a side: offsets (dy, dx) and weights.
    let private defocusKernel (radius: float) (sigma: float) : (struct (int * int * float))[] =
        let inside y x =
            abs y <= disk && abs x <= disk && float (y * y + x * x) <= radius * radius

        let count =
            Seq.allPairs [ -disk .. disk ] [ -disk .. disk ]
            |> Seq.sumBy (fun (y, x) -> if inside y x then 1.0 else 0.0)

        let edge = exp (-1.0 / (2.0 * sigma * sigma))

        let tap i =
            (if i = 0 then 1.0 else edge) / (1.0 + 2.0 * edge)

        [| for y in -disk .. disk do
               for x in -disk .. disk do
                   let mutable weight = 0.0

                   for dy in -1 .. 1 do
                       for dx in -1 .. 1 do
                           if inside (y + dy) (x + dx) then
                               weight <- weight + tap dy * tap dx / count

                   if weight > 0.0 then
                       struct (y, x, weight) |]

    /// A disk's blur.
    let defocus (radius: float) (sigma: float) (image: Pixels) : float[] =
        let side = image.Height
        let kernel = defocusKernel radius sigma
        let values = Planes.ofPixels image

        let blurred =
            Array.init values.Length (fun i ->
                let row, column = i / side % side, i % side
                let start = i - row * side - column
                let mutable sum = 0.0

                for struct (y, x, weight) in kernel do
                    let from = Planes.mirrored side (row + y) * side + Planes.mirrored side (column + x)
                    sum <- sum + weight * values[start + from]

                sum)

        Planes.levels blurred

    /// The rows and columns that are exchanged, in their order.
    let private exchanged (side: int) (distance: int) =
        [| side - distance .. -1 .. distance + 1 |]

    /// dx, dy for each pixel of each pass: whole numbers from -distance to distance - 1.
    let neighbours (distance: int) (passes: int) (side: int) (key: Key) : int[] =
        let numbers = Key.stream key
        let lines = (exchanged side distance).Length
        Array.init (2 * passes * lines * lines) (fun _ -> numbers.Below(2 * distance) - distance)

    /// Smooths, overwrites pixels by drawn neighbours, smooths again. The neighbour keeps its value: the program that made the published images
    /// means to exchange the two, and does not.
    let glass (sigma: float) (distance: int) (passes: int) (neighbours: int[]) (image: Pixels) : float[] =
        let side = image.Height
        let area = side * side
        let smooth = Planes.gauss Planes.clamped reach sigma side

        let levels =
            Planes.ofPixels image
            |> smooth
            |> Array.map (fun value -> floor (value * 255.0))

        let lines = exchanged side distance
        let mutable next = 0

        for _ in 1..passes do
            for row in lines do
                for column in lines do
                    let dx, dy = neighbours[next], neighbours[next + 1]
                    next <- next + 2

                    for start in 0..area .. levels.Length - 1 do
                        levels[start + row * side + column] <- levels[start + (row + dy) * side + column + dx]

        levels |> Array.map (fun level -> level / 255.0) |> smooth |> Planes.levels

    /// An angle in degrees between two bounds.
    let angle (low: float) (high: float) (key: Key) : float =
        low + (high - low) * (Key.stream key).Float()

    /// Bytes of planes smeared towards one side, at the angle against the rows; 2 ceil(radius) + 1 taps.
    let smear (radius: float) (sigma: float) (angle: float) (side: int) (planes: byte[]) : byte[] =
        let taps = 2 * int (ceil radius) + 1

        let raw = Array.init taps (fun j -> exp (-float(j * j) / (2.0 * sigma * sigma)))

        let total = Array.sum raw
        let radians = angle * Math.PI / 180.0
        let px, py = float taps * cos radians, float taps * sin radians
        let length = sqrt (px * px + py * py)

        let offset along =
            Array.init taps (fun j -> int (ceil (float j * along / length - 0.5)))

        let right, down = offset px, offset py

        Array.init planes.Length (fun i ->
            let row, column = i / side % side, i % side
            let start = i - row * side - column
            let mutable sum = 0.0

            for j in 0 .. taps - 1 do
                let from =
                    Planes.clamped side (row + down[j]) * side
                    + Planes.clamped side (column + right[j])

                sum <- sum + raw[j] / total * float planes[start + from]

            byte (floor (sum + 0.001)))

    /// A camera that moves.
    let motion (radius: float) (sigma: float) (angle: float) (image: Pixels) : float[] =
        smear radius sigma angle image.Height image.Planes |> Array.map float

    /// The step between factors, in the arithmetic of the program that made the published images.
    let private zoomStep = 1.01 - 1.0

    /// A camera that approaches: the mean of the image and of it enlarged by 1, 1.01, 1.02 and so on, `factors` of them, in float32.
    let zoom (factors: int) (image: Pixels) : float[] =
        let values = Planes.ofPixels image |> Array.map (float32 >> float)
        let sum = Array.zeroCreate<float32> values.Length

        for i in 0 .. factors - 1 do
            let enlarged = Planes.zoom (1.0 + float i * zoomStep) image.Height values

            for j in 0 .. sum.Length - 1 do
                sum[j] <- sum[j] + float32 enlarged[j]

        Array.map2
            (fun value (others: float32) ->
                let mean = (float32 value + others) / float32 (factors + 1)
                float (Math.Clamp(mean, 0.0f, 1.0f) * 255.0f))
            values
            sum
