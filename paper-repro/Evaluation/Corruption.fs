namespace PatchUp.Repro

open PatchUp.Functional

/// The corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), as Tiny-ImageNet-C and CIFAR-10-C have them.
[<RequireQualifiedAccess>]
type Corruption =
    | GaussianNoise
    | ShotNoise
    | ImpulseNoise
    | DefocusBlur
    | GlassBlur
    | MotionBlur
    | ZoomBlur
    | Snow
    | Frost
    | Fog
    | Brightness
    | Contrast
    | ElasticTransform
    | Pixelate
    | JpegCompression

/// What is drawn at random for one image. Fields are `[H,W]`, values of an image `[3,H,W]`, row-major.
[<RequireQualifiedAccess>]
type Draws =
    | Nothing
    /// A number for each value of the image: noise to add, photons counted, or a number in [0, 1).
    | Values of float[]
    /// dx, dy and so on, in the order in which pixels are exchanged.
    | Neighbours of int[]
    /// Degrees.
    | Angle of float
    /// The field of flakes, and the wind's angle in degrees.
    | Snowfall of field: float[] * angle: float
    /// What is laid over the image, of its size.
    | Texture of Pixels
    /// The plasma map's numbers in the order in which it takes them.
    | Plasma of float[]
    /// The shifts of three corners, x and y each; two fields, empty where the setting has none.
    | Waves of corners: float[] * u: float[] * v: float[]

[<RequireQualifiedAccess>]
module Corruption =

    /// All fifteen in the paper's order, by the names of their folders.
    let all: (string * Corruption) list =
        [ "gaussian_noise", Corruption.GaussianNoise
          "shot_noise", Corruption.ShotNoise
          "impulse_noise", Corruption.ImpulseNoise
          "defocus_blur", Corruption.DefocusBlur
          "glass_blur", Corruption.GlassBlur
          "motion_blur", Corruption.MotionBlur
          "zoom_blur", Corruption.ZoomBlur
          "snow", Corruption.Snow
          "frost", Corruption.Frost
          "fog", Corruption.Fog
          "brightness", Corruption.Brightness
          "contrast", Corruption.Contrast
          "elastic_transform", Corruption.ElasticTransform
          "pixelate", Corruption.Pixelate
          "jpeg_compression", Corruption.JpegCompression ]

    /// The name of its folder.
    let name (corruption: Corruption) : string =
        all |> List.find (snd >> (=) corruption) |> fst

    /// The number of severities, which count from 1, the weakest.
    let severities = 5

    /// The sides of images for which settings are published: CIFAR-10-C's and Tiny-ImageNet-C's.
    let sides = [ 32; 64 ]

    /// Settings of severities 1 to 5 at 64 x 64: what each number is, stands where it is used.
    let private tiny (corruption: Corruption) : float list list =
        match corruption with
        | Corruption.GaussianNoise -> [ [ 0.04 ]; [ 0.08 ]; [ 0.12 ]; [ 0.15 ]; [ 0.18 ] ]
        | Corruption.ShotNoise -> [ [ 250.0 ]; [ 100.0 ]; [ 50.0 ]; [ 30.0 ]; [ 15.0 ] ]
        | Corruption.ImpulseNoise -> [ [ 0.01 ]; [ 0.02 ]; [ 0.05 ]; [ 0.08 ]; [ 0.14 ] ]
        | Corruption.DefocusBlur -> [ [ 0.5; 0.6 ]; [ 1.0; 0.1 ]; [ 1.5; 0.1 ]; [ 2.5; 0.01 ]; [ 3.0; 0.1 ] ]
        | Corruption.GlassBlur ->
            [ [ 0.1; 1.0; 1.0 ]
              [ 0.5; 1.0; 1.0 ]
              [ 0.6; 1.0; 2.0 ]
              [ 0.7; 2.0; 1.0 ]
              [ 0.9; 2.0; 2.0 ] ]
        | Corruption.MotionBlur -> [ [ 10.0; 1.0 ]; [ 10.0; 1.5 ]; [ 10.0; 2.0 ]; [ 10.0; 2.5 ]; [ 12.0; 3.0 ] ]
        | Corruption.ZoomBlur -> [ [ 7.0 ]; [ 12.0 ]; [ 16.0 ]; [ 21.0 ]; [ 26.0 ] ]
        | Corruption.Snow ->
            [ [ 0.1; 0.2; 1.0; 0.6; 8.0; 3.0; 0.8 ]
              [ 0.1; 0.2; 1.0; 0.5; 10.0; 4.0; 0.8 ]
              [ 0.15; 0.3; 1.75; 0.55; 10.0; 4.0; 0.7 ]
              [ 0.25; 0.3; 2.25; 0.6; 12.0; 6.0; 0.65 ]
              [ 0.3; 0.3; 1.25; 0.65; 14.0; 12.0; 0.6 ] ]
        | Corruption.Frost -> [ [ 1.0; 0.3 ]; [ 0.9; 0.4 ]; [ 0.8; 0.45 ]; [ 0.75; 0.5 ]; [ 0.7; 0.55 ] ]
        | Corruption.Fog -> [ [ 0.4; 3.0 ]; [ 0.7; 3.0 ]; [ 1.0; 2.5 ]; [ 1.5; 2.0 ]; [ 2.0; 1.75 ] ]
        | Corruption.Brightness -> [ [ 0.1 ]; [ 0.2 ]; [ 0.3 ]; [ 0.4 ]; [ 0.5 ] ]
        | Corruption.Contrast -> [ [ 0.4 ]; [ 0.3 ]; [ 0.2 ]; [ 0.1 ]; [ 0.05 ] ]
        | Corruption.ElasticTransform ->
            [ [ 0.0; 0.0; 0.08 ]
              [ 0.05; 0.3; 0.06 ]
              [ 0.1; 0.08; 0.06 ]
              [ 0.1; 0.03; 0.03 ]
              [ 0.16; 0.03; 0.02 ] ]
        | Corruption.Pixelate -> [ [ 0.9 ]; [ 0.8 ]; [ 0.7 ]; [ 0.6 ]; [ 0.5 ] ]
        | Corruption.JpegCompression -> [ [ 65.0 ]; [ 58.0 ]; [ 50.0 ]; [ 40.0 ]; [ 25.0 ] ]

    /// The same at 32 x 32.
    let private cifar (corruption: Corruption) : float list list =
        match corruption with
        | Corruption.GaussianNoise -> [ [ 0.04 ]; [ 0.06 ]; [ 0.08 ]; [ 0.09 ]; [ 0.1 ] ]
        | Corruption.ShotNoise -> [ [ 500.0 ]; [ 250.0 ]; [ 100.0 ]; [ 75.0 ]; [ 50.0 ] ]
        | Corruption.ImpulseNoise -> [ [ 0.01 ]; [ 0.02 ]; [ 0.03 ]; [ 0.05 ]; [ 0.07 ] ]
        | Corruption.DefocusBlur -> [ [ 0.3; 0.4 ]; [ 0.4; 0.5 ]; [ 0.5; 0.6 ]; [ 1.0; 0.2 ]; [ 1.5; 0.1 ] ]
        | Corruption.GlassBlur ->
            [ [ 0.05; 1.0; 1.0 ]
              [ 0.25; 1.0; 1.0 ]
              [ 0.4; 1.0; 1.0 ]
              [ 0.25; 1.0; 2.0 ]
              [ 0.4; 1.0; 2.0 ] ]
        | Corruption.MotionBlur -> [ [ 6.0; 1.0 ]; [ 6.0; 1.5 ]; [ 6.0; 2.0 ]; [ 8.0; 2.0 ]; [ 9.0; 2.5 ] ]
        | Corruption.ZoomBlur -> tiny corruption
        | Corruption.Snow ->
            (tiny corruption, [ 0.95; 0.9; 0.9; 0.85; 0.8 ])
            ||> List.map2 (fun setting keep -> List.updateAt 6 keep setting)
        | Corruption.Frost -> [ [ 1.0; 0.2 ]; [ 1.0; 0.3 ]; [ 0.9; 0.4 ]; [ 0.85; 0.4 ]; [ 0.75; 0.45 ] ]
        | Corruption.Fog -> [ [ 0.2; 3.0 ]; [ 0.5; 3.0 ]; [ 0.75; 2.5 ]; [ 1.0; 2.0 ]; [ 1.5; 1.75 ] ]
        | Corruption.Brightness -> [ [ 0.05 ]; [ 0.1 ]; [ 0.15 ]; [ 0.2 ]; [ 0.3 ] ]
        | Corruption.Contrast -> [ [ 0.75 ]; [ 0.5 ]; [ 0.4 ]; [ 0.3 ]; [ 0.15 ] ]
        | Corruption.ElasticTransform ->
            [ [ 0.0; 0.0; 0.08 ]
              [ 0.05; 0.2; 0.07 ]
              [ 0.08; 0.06; 0.06 ]
              [ 0.1; 0.04; 0.05 ]
              [ 0.1; 0.03; 0.03 ] ]
        | Corruption.Pixelate -> [ [ 0.95 ]; [ 0.9 ]; [ 0.85 ]; [ 0.75 ]; [ 0.65 ] ]
        | Corruption.JpegCompression -> [ [ 80.0 ]; [ 65.0 ]; [ 58.0 ]; [ 50.0 ]; [ 40.0 ] ]

    /// The published setting of a severity for images of this side; an ArgumentException for any other severity than 1 to 5, and for a side
    /// for which none is published.
    let setting (side: int) (corruption: Corruption) (severity: int) : float list =
        if severity < 1 || severity > severities then
            invalidArg (nameof severity) $"The severity is {severity}; it must lie in 1 .. {severities}."

        let table =
            match side with
            | 64 -> tiny corruption
            | 32 -> cifar corruption
            | _ ->
                invalidArg
                    (nameof side)
                    $"There are no settings for images of {side} x {side} pixels; the published ones are for 32 x 32 and 64 x 64."

        match corruption with
        | Corruption.ElasticTransform -> table[severity - 1] |> List.map (fun share -> share * float side)
        | _ -> table[severity - 1]
