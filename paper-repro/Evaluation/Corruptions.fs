namespace PatchUp.Repro

open PatchUp.Functional
open TorchSharp

/// Corrupted images: first every random choice, then a map without any.
[<RequireQualifiedAccess>]
module Corruptions =

    /// What is drawn for an image `[3,n,n]`, n of `Corruption.sides`, at a setting.
    let draw
        (textures: FrostTextures)
        (corruption: Corruption)
        (setting: float list)
        (key: Key)
        (image: Pixels)
        : Draws =
        let side = image.Height
        let count = image.Planes.Length

        match corruption, setting with
        | Corruption.GaussianNoise, [ sigma ] -> Draws.Values(CorruptionNoise.normals sigma count key)
        | Corruption.ShotNoise, [ photons ] -> Draws.Values(CorruptionNoise.counts photons image key)
        | Corruption.ImpulseNoise, _ -> Draws.Values(CorruptionNoise.uniforms count key)
        | Corruption.GlassBlur, [ _; distance; passes ] ->
            Draws.Neighbours(CorruptionBlur.neighbours (int distance) (int passes) side key)
        | Corruption.MotionBlur, _ -> Draws.Angle(CorruptionBlur.angle -45.0 45.0 key)
        | Corruption.Snow, mean :: sigma :: _ ->
            let field =
                CorruptionNoise.normals sigma (side * side) (Key.child 0 key)
                |> Array.map (fun flake -> mean + flake)

            Draws.Snowfall(field, CorruptionBlur.angle -135.0 -45.0 (Key.child 1 key))
        | Corruption.Frost, _ -> Draws.Texture(CorruptionWeather.texture textures side key)
        | Corruption.Fog, [ _; decay ] -> Draws.Plasma(CorruptionWeather.plasmaNumbers decay side (Key.stream key))
        | Corruption.ElasticTransform, [ alpha; _; shift ] -> CorruptionDigital.waves alpha shift side key
        | _ -> Draws.Nothing

    /// The levels of an image, `[3,n,n]` in 0 .. 255, that these draws make of it, before their truncation to bytes; an ArgumentException for
    /// draws or a setting of another corruption.
    let levels (corruption: Corruption) (setting: float list) (draws: Draws) (image: Pixels) : float[] =
        match corruption, setting, draws with
        | Corruption.GaussianNoise, _, Draws.Values noise -> CorruptionNoise.gaussian noise image
        | Corruption.ShotNoise, [ photons ], Draws.Values counts -> CorruptionNoise.shot photons counts
        | Corruption.ImpulseNoise, [ share ], Draws.Values uniforms -> CorruptionNoise.impulse share uniforms image
        | Corruption.DefocusBlur, [ radius; sigma ], _ -> CorruptionBlur.defocus radius sigma image
        | Corruption.GlassBlur, [ sigma; distance; passes ], Draws.Neighbours neighbours ->
            CorruptionBlur.glass sigma (int distance) (int passes) neighbours image
        | Corruption.MotionBlur, [ radius; sigma ], Draws.Angle angle -> CorruptionBlur.motion radius sigma angle image
        | Corruption.ZoomBlur, [ factors ], _ -> CorruptionBlur.zoom (int factors) image
        | Corruption.Snow, _, Draws.Snowfall(field, angle) -> CorruptionWeather.snow setting field angle image
        | Corruption.Frost, [ keep; weight ], Draws.Texture texture -> CorruptionWeather.frost keep weight texture image
        | Corruption.Fog, [ thickness; decay ], Draws.Plasma numbers ->
            CorruptionWeather.fog thickness decay numbers image
        | Corruption.Brightness, [ more ], _ -> CorruptionDigital.brightness more image
        | Corruption.Contrast, [ keep ], _ -> CorruptionDigital.contrast keep image
        | Corruption.ElasticTransform, [ alpha; sigma; _ ], Draws.Waves(corners, u, v) ->
            CorruptionDigital.elastic alpha sigma corners u v image
        | Corruption.Pixelate, [ share ], _ -> CorruptionDigital.pixelate share image
        | Corruption.JpegCompression, [ quality ], _ -> CorruptionDigital.jpeg (int quality) image
        | _ ->
            invalidArg
                (nameof draws)
                $"{Corruption.name corruption}: these are the draws or the numbers of another corruption."

    /// An image of side 32 or 64 corrupted; at severity 0 it is the image itself. An ArgumentException for another side or severity.
    let apply (textures: FrostTextures) (corruption: Corruption) (severity: int) (key: Key) (image: Pixels) : Pixels =
        if image.Height <> image.Width then
            invalidArg (nameof image) $"The image has {image.Width} x {image.Height} pixels; it must be square."

        if severity = 0 then
            image
        else
            let setting = Corruption.setting image.Height corruption severity
            let draws = draw textures corruption setting key image

            { image with
                Planes = levels corruption setting draws image |> Planes.truncate }

    /// The key of an image's draws: all corruptions, severities and images have different ones.
    let private keyOf (corruption: Corruption) (severity: int) (index: int) (key: Key) : Key =
        let place = Corruption.all |> List.findIndex (snd >> (=) corruption)
        key |> Key.child place |> Key.child severity |> Key.child index

    /// The images, uint8 `[N,3,n,n]`, corrupted; image i of them is the test set's image `first` + i, whose draws depend on the key, the
    /// corruption, the severity and that index only. An ArgumentException as `apply`'s.
    let images
        (textures: FrostTextures)
        (corruption: Corruption)
        (severity: int)
        (key: Key)
        (first: int)
        (images: torch.Tensor)
        : torch.Tensor =
        let height, width = int images.shape[2], int images.shape[3]

        images
        |> PerImage.map (fun i bytes ->
            let image =
                { Height = height
                  Width = width
                  Planes = bytes }

            (apply textures corruption severity (keyOf corruption severity (first + i) key) image).Planes)
