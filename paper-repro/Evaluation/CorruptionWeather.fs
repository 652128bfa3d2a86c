namespace PatchUp.Repro

open System
open System.IO
open PatchUp.Functional

/// What is laid over images as frost.
[<NoEquality; NoComparison>]
type FrostTextures =
    /// Generated; a result with it is no published one.
    | Substitute
    /// Pictures, shrunk to the images' scale; each with the same chance.
    | Pictures of Pixels[]

/// What is known of a published texture, which is a photograph and no part of this program: levels 0 to 255 at the scale at which it is used.
type TextureStatistics =
    {
        /// Of red, green and blue.
        Means: float list
        /// Of red, green and blue.
        Deviations: float list
        /// The deviation of the mean of a part of the images' size.
        Spread: float
        /// Of neighbouring pixels.
        Correlation: float
    }

/// Weather. Results are levels, 0 to 255, before their truncation to bytes.
[<RequireQualifiedAccess>]
module CorruptionWeather =

    /// Lays flakes, which the wind smears, and their mirror image over the paled image. `field` holds the drawn flakes.
    let snow (setting: float list) (field: float[]) (angle: float) (image: Pixels) : float[] =
        match setting with
        | [ _; _; zoom; threshold; radius; sigma; keep ] ->
            let side = image.Height
            let area = side * side

            let flakes =
                field
                |> Planes.zoom zoom side
                |> Array.map (fun flake -> if flake < threshold then 0.0 else flake)
                |> Planes.levels
                |> Planes.truncate
                |> CorruptionBlur.smear radius sigma angle side
                |> Array.map (fun level -> float level / 255.0)

            let values = Planes.ofPixels image

            Array.init values.Length (fun i ->
                let place = i % area

                let grey =
                    0.299 * values[place]
                    + 0.587 * values[area + place]
                    + 0.114 * values[2 * area + place]

                let pale = keep * values[i] + (1.0 - keep) * max values[i] (1.5 * grey + 0.5)
                pale + flakes[place] + flakes[area - 1 - place])
            |> Planes.levels
        | _ -> invalidArg (nameof setting) "Snow has seven numbers."

    /// The plasma map's largest deviation at its coarsest.
    let private wildness = 100.0

    /// The numbers that a plasma map of a side takes: for each step, those of its three kinds of points, uniform in +-w, where w becomes
    /// less by the factor `decay`.
    let plasmaNumbers (decay: float) (side: int) (numbers: Stream) : float[] =
        let rec from step w =
            [ if step >= 2 then
                  let count = 3 * (side / step) * (side / step)
                  Array.init count (fun _ -> w * (2.0 * numbers.Float() - 1.0))
                  yield! from (step / 2) (w / decay) ]

        from side wildness |> Array.concat

    /// A cloud in [0, 1]: midpoints of a periodic grid are moved by w times the numbers, so by up to w squared. The side is a power of two.
    let plasma (decay: float) (side: int) (numbers: float[]) : float[] =
        let map = Array.zeroCreate<float>(side * side)

        let at row column =
            map[((row + side) % side) * side + (column + side) % side]

        let mutable step = side
        let mutable w = wildness
        let mutable next = 0

        while step >= 2 do
            let half = step / 2

            /// Points from this row and column on, each the mean of four that are so far away, and a number more.
            let fill firstRow firstColumn (around: (struct (int * int))[]) =
                for row in firstRow..step .. side - 1 do
                    for column in firstColumn..step .. side - 1 do
                        let mutable sum = 0.0

                        for struct (down, right) in around do
                            sum <- sum + at (row + down) (column + right)

                        map[row * side + column] <- sum / 4.0 + w * numbers[next]
                        next <- next + 1

            let corners =
                [| struct (-half, -half)
                   struct (-half, half)
                   struct (half, -half)
                   struct (half, half) |]

            let beside =
                [| struct (-half, 0); struct (half, 0); struct (0, -half); struct (0, half) |]

            fill half half corners
            fill 0 half beside
            fill half 0 beside
            step <- half
            w <- w / decay

        let least = Array.min map
        let most = Array.max map - least
        map |> Array.map (fun value -> (value - least) / most)

    /// Adds a cloud of weight `thickness`, and darkens so that the brightest value stays as bright as it was.
    let fog (thickness: float) (decay: float) (numbers: float[]) (image: Pixels) : float[] =
        let cloud = plasma decay image.Height numbers
        let values = Planes.ofPixels image
        let top = Array.max values

        values
        |> Array.mapi (fun i value -> (value + thickness * cloud[i % cloud.Length]) * top / (top + thickness))
        |> Planes.levels

    /// The texture laid over the darkened image.
    let frost (keep: float) (weight: float) (texture: Pixels) (image: Pixels) : float[] =
        Array.map2
            (fun level ice -> Math.Clamp(keep * float level + weight * float ice, 0.0, 255.0))
            image.Planes
            texture.Planes

    /// Of the published textures, as often as each is drawn, at the scale of images of this side.
    let statistics (side: int) : TextureStatistics[] =
        let row means deviations spread correlation =
            { Means = means
              Deviations = deviations
              Spread = spread
              Correlation = correlation }

        // The second and the third picture are the same.
        if side = 64 then
            [| row [ 77.58; 149.05; 165.68 ] [ 25.41; 15.62; 14.59 ] 9.83 0.667
               row [ 200.78; 205.37; 214.49 ] [ 20.25; 20.99; 21.48 ] 6.21 0.614
               row [ 200.78; 205.37; 214.49 ] [ 20.25; 20.99; 21.48 ] 6.21 0.614
               row [ 137.49; 152.63; 165.04 ] [ 26.34; 26.36; 27.82 ] 6.77 0.414
               row [ 112.43; 123.42; 134.8 ] [ 42.24; 41.02; 39.34 ] 11.41 0.541 |]
        else
            [| row [ 77.54; 149.05; 165.68 ] [ 26.81; 16.44; 15.31 ] 10.76 0.491
               row [ 200.8; 205.4; 214.5 ] [ 21.4; 22.12; 22.59 ] 8.87 0.376
               row [ 200.8; 205.4; 214.5 ] [ 21.4; 22.12; 22.59 ] 8.87 0.376
               row [ 138.05; 153.22; 165.61 ] [ 28.96; 28.96; 30.22 ] 9.59 0.218
               row [ 112.3; 123.29; 134.67 ] [ 44.33; 43.17; 41.57 ] 14.49 0.326 |]

    /// A generated texture with the statistics of one of the published ones: part cloud, part noise.
    let private substitute (side: int) (numbers: Stream) : Pixels =
        let known = statistics side
        let texture = known[numbers.Below known.Length]
        let cloud = plasma 2.0 side (plasmaNumbers 2.0 side numbers)
        let mean = Array.average cloud

        let deviation =
            sqrt (cloud |> Array.averageBy (fun value -> (value - mean) * (value - mean)))

        let field =
            cloud
            |> Array.map (fun value ->
                sqrt texture.Correlation * (value - mean) / deviation
                + sqrt (1.0 - texture.Correlation) * numbers.Normal())

        let lighter = texture.Spread * numbers.Normal()

        { Height = side
          Width = side
          Planes =
            [| for mean, deviation in List.zip texture.Means texture.Deviations do
                   for value in field do
                       byte (Math.Clamp(mean + lighter + deviation * value, 0.0, 255.0)) |] }

    /// A part of one of the pictures, or a generated one, of this side.
    let texture (textures: FrostTextures) (side: int) (key: Key) : Pixels =
        let numbers = Key.stream key

        match textures with
        | Substitute -> substitute side numbers
        | Pictures pictures ->
            let picture = pictures[numbers.Below pictures.Length]
            let top = numbers.Below(picture.Height - side + 1)
            let left = numbers.Below(picture.Width - side + 1)

            { Height = side
              Width = side
              Planes =
                [| for channel in 0..2 do
                       for row in top .. top + side - 1 do
                           let start = (channel * picture.Height + row) * picture.Width + left
                           yield! picture.Planes[start .. start + side - 1] |] }

    /// By how much the published textures are shrunk.
    let private shrinking (side: int) = if side = 64 then 0.3 else 0.2

    /// Linear between the nearest four pixels, as OpenCV's resize is.
    let internal shrink (factor: float) (picture: Pixels) : Pixels =
        let few size =
            int (Math.Round(float size * factor, MidpointRounding.ToEven))

        let height, width = few picture.Height, few picture.Width

        let position size i =
            Math.Clamp((float i + 0.5) / factor - 0.5, 0.0, float (size - 1))

        let planes = Array.zeroCreate<byte>(3 * height * width)

        for row in 0 .. height - 1 do
            let y = position picture.Height row
            let above = int y
            let below = min (picture.Height - 1) (above + 1)

            for column in 0 .. width - 1 do
                let x = position picture.Width column
                let left = int x
                let right = min (picture.Width - 1) (left + 1)

                for channel in 0..2 do
                    let at row column =
                        float picture.Planes[(channel * picture.Height + row) * picture.Width + column]

                    let between a b share = a + (b - a) * share

                    let value =
                        between
                            (between (at above left) (at above right) (x - float left))
                            (between (at below left) (at below right) (x - float left))
                            (y - float above)

                    planes[(channel * height + row) * width + column] <- byte (value + 0.5)

        { Height = height
          Width = width
          Planes = planes }

    /// The pictures of a folder as textures for images of this side, shrunk as the published ones are; a UserError where there is none, and
    /// for one that is too small.
    let pictures (side: int) (folder: string) : FrostTextures =
        let files =
            Errors.reading folder (fun () -> Directory.GetFiles folder)
            |> Array.filter (fun file -> Images.isName (Path.GetFileName file))
            |> Array.sortWith (fun a b -> String.CompareOrdinal(a, b))

        if files.Length = 0 then
            Errors.user $"{folder}: it holds no JPEG or PNG image; name a folder of frost textures."

        let factor = shrinking side

        files
        |> Array.map (fun file ->
            let picture = Images.read file |> shrink factor

            if picture.Height < side || picture.Width < side then
                let least = int (ceil (float side / factor))

                Errors.user
                    $"{file}: too small for a frost texture on images of {side} x {side} pixels; take one of {least} x {least} or more."

            picture)
        |> Pictures
