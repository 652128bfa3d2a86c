namespace PatchUp.Repro

open PatchUp.Functional
open System
open TorchSharp

/// An affine map of the plane about an image's centre: the image is sheared, then turned, then scaled.
type Affine =
    {
        /// Degrees; positive turns the picture clockwise.
        Angle: float
        /// Degrees; positive moves the upper half to the right, the lower half to the left.
        Shear: float
        /// Above 1 enlarges. The image keeps its size.
        Scale: float
    }

/// A deformation of test images: each image's angle, shear and scale are drawn uniformly between two bounds.
type Deformation =
    {
        /// As in the paper's tables.
        Name: string
        /// Degrees.
        Angle: float * float
        /// Degrees.
        Shear: float * float
        Scale: float * float
    }

/// Rotation, shear and scale of 8-bit images by the nearest pixel, with zeros from outside. Rows count downwards; pixel (row, column) has its
/// centre at (column + 1/2, row + 1/2), and the image's centre, (W/2, H/2), stays where it is.
[<RequireQualifiedAccess>]
module Affine =

    /// Leaves an image as it is.
    let identity: Affine =
        { Angle = 0.0
          Shear = 0.0
          Scale = 1.0 }

    /// [a, b, c, d, e, f]: the output's point (x, y) shows the input's point (a x + b y + c, d x + e y + f).
    let inverse (height: int) (width: int) (affine: Affine) : float[] =
        let radians degrees = degrees * Math.PI / 180.0
        let sine, cosine = sin (radians affine.Angle), cos (radians affine.Angle)
        let shift = tan (radians affine.Shear)
        let scale = affine.Scale
        let centreX, centreY = float width / 2.0, float height / 2.0
        let a, b = (cosine - sine * shift) / scale, (sine + cosine * shift) / scale
        let d, e = -sine / scale, cosine / scale

        [| a
           b
           centreX - a * centreX - b * centreY
           d
           e
           centreY - d * centreX - e * centreY |]

    /// An image's bytes `[C,H,W]` deformed.
    let apply (affine: Affine) (height: int) (width: int) (image: byte[]) : byte[] =
        let m = inverse height width affine
        let area = height * width
        let deformed = Array.zeroCreate<byte> image.Length

        for row in 0 .. height - 1 do
            for column in 0 .. width - 1 do
                let x, y = float column + 0.5, float row + 0.5
                let fromX = Math.Floor(m[0] * x + m[1] * y + m[2])
                let fromY = Math.Floor(m[3] * x + m[4] * y + m[5])

                if fromX >= 0.0 && fromX < float width && fromY >= 0.0 && fromY < float height then
                    let from = int fromY * width + int fromX

                    for start in 0..area .. image.Length - 1 do
                        deformed[start + row * width + column] <- image[start + from]

        deformed

[<RequireQualifiedAccess>]
module Deformation =

    let private none =
        { Name = "none"
          Angle = 0.0, 0.0
          Shear = 0.0, 0.0
          Scale = 1.0, 1.0 }

    /// Leaves every image as it is.
    let identity: Deformation = none

    let private rotate by =
        { none with
            Name = $"rotate (-{by}, {by})"
            Angle = -by, by }

    let private shear by =
        { none with
            Name = $"shear (-{by}, {by})"
            Shear = -by, by }

    let private scale by =
        { none with
            Name = $"scale ({by})"
            Scale = by, by }

    /// The paper's tables 4 and 10. The shears are half a radian and one.
    let paper: Deformation list =
        [ rotate 20.0
          rotate 40.0
          shear 28.6
          shear 57.3
          scale 0.6
          scale 0.8
          scale 1.2
          scale 1.4 ]

    /// One image's map.
    let draw (key: Key) (deformation: Deformation) : Affine =
        let numbers = Key.stream key

        let between (low, high) = low + (high - low) * numbers.Float()

        let angle = between deformation.Angle
        let shear = between deformation.Shear

        { Angle = angle
          Shear = shear
          Scale = between deformation.Scale }

    /// The images, uint8 `[N,C,H,W]`, deformed; image i of them is the test set's image `first` + i, whose draw depends on the key and on that
    /// index only.
    let images (key: Key) (first: int) (deformation: Deformation) (images: torch.Tensor) : torch.Tensor =
        let height, width = int images.shape[2], int images.shape[3]

        images
        |> PerImage.map (fun i bytes ->
            let affine = draw (key |> Key.child (first + i)) deformation
            Affine.apply affine height width bytes)
