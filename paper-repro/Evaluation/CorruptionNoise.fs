namespace PatchUp.Repro

open PatchUp.Functional

/// Corruptions that change each value by itself. Results are levels, 0 to 255, before their truncation to bytes.
[<RequireQualifiedAccess>]
module CorruptionNoise =

    /// `count` normal numbers of deviation `sigma`.
    let normals (sigma: float) (count: int) (key: Key) : float[] =
        let numbers = Key.stream key
        Array.init count (fun _ -> sigma * numbers.Normal())

    /// Adds the noise.
    let gaussian (noise: float[]) (image: Pixels) : float[] =
        Array.map2 (+) (Planes.ofPixels image) noise |> Planes.levels

    /// A Poisson number: how many exponential waiting times fit into `mean`, which is below 700.
    let private poisson (mean: float) (numbers: Stream) : float =
        let bound = exp -mean
        let mutable count = 0
        let mutable product = numbers.Open()

        while product > bound do
            count <- count + 1
            product <- product * numbers.Open()

        float count

    /// The photons that each value counts where the brightest counts `photons` on average.
    let counts (photons: float) (image: Pixels) (key: Key) : float[] =
        let numbers = Key.stream key

        Planes.ofPixels image
        |> Array.map (fun value -> poisson (value * photons) numbers)

    /// The image that the photons show.
    let shot (photons: float) (counts: float[]) : float[] =
        counts |> Array.map (fun count -> count / photons) |> Planes.levels

    /// A number in [0, 1) for each value.
    let uniforms (count: int) (key: Key) : float[] =
        let numbers = Key.stream key
        Array.init count (fun _ -> numbers.Float())

    /// Replaces each value with the probability `share`, by black or white with the same chance.
    let impulse (share: float) (uniforms: float[]) (image: Pixels) : float[] =
        Array.map2
            (fun level uniform ->
                if uniform >= share then float level
                elif uniform < share / 2.0 then 0.0
                else 255.0)
            image.Planes
            uniforms
