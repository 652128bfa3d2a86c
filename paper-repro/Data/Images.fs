namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.IO
open System.Runtime.InteropServices
open System.Threading.Tasks
open SkiaSharp
open TorchSharp

/// An RGB image of 8 bits a channel.
type Pixels =
    {
        Height: int
        Width: int
        /// `[3,H,W]`, row-major: all red values, all green ones, all blue ones.
        Planes: byte[]
    }

/// Pictures in and out: JPEG and PNG through Skia.
[<RequireQualifiedAccess>]
module Images =

    /// Pixels, not bytes: what an image may have at most.
    let private most = 1L <<< 26

    let private planesOf (height: int) (width: int) (rgba: ReadOnlySpan<byte>) : Pixels =
        let area = height * width
        let planes = Array.zeroCreate<byte>(3 * area)

        for i in 0 .. area - 1 do
            planes[i] <- rgba[4 * i]
            planes[area + i] <- rgba[4 * i + 1]
            planes[2 * area + i] <- rgba[4 * i + 2]

        { Height = height
          Width = width
          Planes = planes }

    let private layout (alpha: SKAlphaType) (height: int) (width: int) =
        SKImageInfo(width, height, SKColorType.Rgba8888, alpha)

    /// Is this the name of an image file: one that ends in .jpg, .jpeg or .png, and does not start with a dot?
    let internal isName (file: string) : bool =
        let extension = Path.GetExtension(file).ToLowerInvariant()
        not (file.StartsWith '.') && List.contains extension [ ".jpg"; ".jpeg"; ".png" ]

    /// Decodes an image file's bytes, and gives the bitmap to a function; a UserError where that is not possible.
    let private decoding (name: string) (bytes: byte[]) (look: SKBitmap -> 'a) : 'a =
        let refuse what : 'b =
            Errors.user $"{name}: {what}; replace or remove it."

        use data = SKData.CreateCopy(ReadOnlySpan bytes)
        use codec = SKCodec.Create data

        if isNull codec then
            refuse "not a JPEG or PNG image"

        let height, width = codec.Info.Height, codec.Info.Width

        if height <= 0 || width <= 0 || int64 height * int64 width > most then
            refuse $"an image of {width} x {height} pixels is over the limit of {most} pixels"

        use bitmap = new SKBitmap(layout SKAlphaType.Unpremul height width)

        match codec.GetPixels(bitmap.Info, bitmap.GetPixels()) with
        | SKCodecResult.Success -> look bitmap
        | result -> refuse $"a corrupt image ({result})"

    /// Decodes the bytes of a JPEG or PNG file. Grey values become three equal channels; alpha is dropped. A UserError
    /// that names the image where it is corrupt or cut short.
    let decode (name: string) (bytes: byte[]) : Pixels =
        decoding name bytes (fun bitmap -> planesOf bitmap.Height bitmap.Width (bitmap.GetPixelSpan()))

    /// Decodes the part of an image that `box` chooses for its height and width, resizes it by Skia's best filter to a
    /// square, mirrors it left to right where the box says so, and writes its three planes, of 3 * side * side bytes, to
    /// `target`. The image itself is in native memory alone, and only until this returns. A UserError as `decode` has it.
    let decodePart (name: string) (bytes: byte[]) (side: int) (box: int -> int -> Box) (target: byte[]) : unit =
        decoding name bytes (fun bitmap ->
            let box = box bitmap.Height bitmap.Width
            use part = new SKBitmap()

            if
                not (
                    bitmap.ExtractSubset(part, SKRectI(box.Left, box.Top, box.Left + box.Columns, box.Top + box.Rows))
                )
            then
                invalidArg (nameof box) $"{box} is not within {bitmap.Height} x {bitmap.Width} pixels."

            use resized =
                part.Resize(layout SKAlphaType.Unpremul side side, SKFilterQuality.High)

            let rgba = resized.GetPixelSpan()
            let area = side * side

            for row in 0 .. side - 1 do
                for column in 0 .. side - 1 do
                    let shown = if box.IsMirrored then side - 1 - column else column
                    let from = 4 * (row * side + shown)
                    let into = row * side + column
                    target[into] <- rgba[from]
                    target[area + into] <- rgba[from + 1]
                    target[2 * area + into] <- rgba[from + 2])

    /// Reads and decodes a file.
    let read (path: string) : Pixels =
        Errors.reading path (fun () -> File.ReadAllBytes path) |> decode path

    /// An opaque RGBA bitmap of the same size; the caller disposes it.
    let toBitmap (pixels: Pixels) : SKBitmap =
        let bitmap = new SKBitmap(layout SKAlphaType.Opaque pixels.Height pixels.Width)
        let area = pixels.Height * pixels.Width
        let rgba = Array.create (4 * area) 255uy

        for i in 0 .. area - 1 do
            rgba[4 * i] <- pixels.Planes[i]
            rgba[4 * i + 1] <- pixels.Planes[area + i]
            rgba[4 * i + 2] <- pixels.Planes[2 * area + i]

        Marshal.Copy(rgba, 0, bitmap.GetPixels(), rgba.Length)
        bitmap

    /// The pixels of a bitmap of any colour type; alpha is dropped.
    let ofBitmap (bitmap: SKBitmap) : Pixels =
        use rgba = bitmap.Copy SKColorType.Rgba8888
        planesOf bitmap.Height bitmap.Width (rgba.GetPixelSpan())

    /// The image at another size, by Skia's best filter; the image itself where it has that size.
    let resize (height: int) (width: int) (pixels: Pixels) : Pixels =
        if height < 1 || width < 1 || int64 height * int64 width > most then
            invalidArg (nameof height) $"An image cannot be resized to {width} x {height} pixels."

        if pixels.Height = height && pixels.Width = width then
            pixels
        else
            use source = toBitmap pixels

            use resized =
                source.Resize(layout SKAlphaType.Opaque height width, SKFilterQuality.High)

            ofBitmap resized

    /// The pixels as a float32 tensor `[3,H,W]` in [0,1].
    let toTensor (pixels: Pixels) : torch.Tensor =
        Scope.run (fun () ->
            let size = [| 3L; int64 pixels.Height; int64 pixels.Width |]
            torch.tensor(pixels.Planes, ReadOnlySpan size).``to``(torch.float32).div_(Scope.number 255.0))

    /// A floating-point tensor `[3,H,W]` in [0,1], rounded to 8 bits; what lies outside is clamped, NaN becomes black.
    let ofTensor (image: torch.Tensor) : Pixels =
        match image.shape with
        | [| 3L; height; width |] ->
            Scope.value (fun () ->
                let bounded =
                    image
                        .detach()
                        .cpu()
                        .``to``(torch.float32)
                        .nan_to_num(0.0)
                        .clamp(Scope.number 0.0, Scope.number 1.0)

                let bytes = (bounded * Scope.number 255.0).round().``to``(torch.uint8).contiguous()

                { Height = int height
                  Width = int width
                  Planes = bytes.bytes.ToArray() })
        | shape ->
            let text = String.Join(",", shape)
            invalidArg (nameof image) $"An image is [3,H,W]; this is [{text}]."

    /// A floating-point tensor `[3,H,W]` in [0,1] as a bitmap, which the caller disposes.
    let bitmapOfTensor (image: torch.Tensor) : SKBitmap = toBitmap (ofTensor image)

    /// A bitmap as a float32 tensor `[3,H,W]` in [0,1].
    let tensorOfBitmap (bitmap: SKBitmap) : torch.Tensor = toTensor (ofBitmap bitmap)

    /// Writes a bitmap as a PNG file: whole or not at all. A UserError where it cannot be written.
    let writePng (path: string) (bitmap: SKBitmap) : unit =
        use encoded = bitmap.Encode(SKEncodedImageFormat.Png, 100)

        if isNull encoded then
            invalidArg (nameof bitmap) "A bitmap without pixels cannot be encoded."

        Errors.writing path encoded.SaveTo

    let private stack (path: string) (first: string, size: Pixels) (files: (string * (unit -> byte[]))[]) =
        let height, width = size.Height, size.Width
        let area = 3 * height * width

        if int64 files.Length * int64 area > int64 Array.MaxLength then
            Errors.user
                $"{path}: {files.Length} images of {width} x {height} pixels are more than 2 GiB; take fewer, or have them decoded when they are used with --image-size."

        let images =
            torch.empty ([| int64 files.Length; 3L; int64 height; int64 width |], dtype = torch.uint8)

        let errors = Array.create<exn option> files.Length None

        let one (i: int) =
            try
                let name, bytes = files[i]
                let pixels = decode $"{path}: {name}" (bytes ())

                if pixels.Height <> height || pixels.Width <> width then
                    Errors.user
                        $"{path}: {name} has {pixels.Width} x {pixels.Height} pixels and {first} has {width} x \
                          {height}; all images must have one size, or be brought to one with --image-size."

                pixels.Planes.CopyTo(images.bytes.Slice(i * area, area))
            with error ->
                errors[i] <- Some error

        Parallel.For(0, files.Length, one) |> ignore

        match Array.tryPick id errors with
        | Some error -> raise error
        | None -> images

    /// Decodes sets of named image files in parallel, each into a tensor uint8 `[N,3,H,W]`; all images of all sets must have
    /// the first one's size. The UserError, if any, is that of the first image that has one, below `path`.
    let stacks (path: string) (sets: (string * (unit -> byte[]))[] list) : torch.Tensor list =
        match sets |> List.tryPick Array.tryHead with
        | None -> Errors.user $"{path}: it has no images."
        | Some(first, bytes) ->
            let size = decode $"{path}: {first}" (bytes ())
            Scope.many (fun () -> sets |> List.map (stack path (first, size)))
