namespace PatchUp.Repro

open System
open System.Buffers.Binary
open System.IO
open System.IO.Compression

/// The idx files of MNIST and of what is published like it: grey images, which become three equal channels. Plain, or
/// compressed with gzip.
[<RequireQualifiedAccess>]
module internal Idx =

    /// A compressed byte makes this many at most.
    let private deflation = 1032L

    /// The sizes and the bytes of an array of `axes` axes; `most` is how many bytes the stream may give.
    let private array (stream: Stream) (most: int64) (axes: int) : int64[] * byte[] =
        let header = Array.zeroCreate<byte>(4 * (axes + 1))
        stream.ReadExactly header

        let number i =
            BinaryPrimitives.ReadUInt32BigEndian(ReadOnlySpan(header, 4 * i, 4))

        // Two zero bytes, 8 for unsigned bytes, and the number of axes.
        if number 0 <> 0x0800u + uint32 axes then
            raise (InvalidDataException "another kind of file")

        let sizes = Array.init axes (fun i -> int64 (number (i + 1)))
        let size = sizes |> Array.fold (fun size each -> size * bigint each) 1I

        if size > bigint (min most (int64 Array.MaxLength)) then
            raise (InvalidDataException "more images than bytes")

        let bytes = Array.zeroCreate<byte>(int size)
        stream.ReadExactly bytes

        if stream.ReadByte() >= 0 then
            raise (InvalidDataException "more bytes than images")

        sizes, bytes

    /// The file of this name, or of this name with .gz.
    let private read (files: Files) (name: string) (axes: int) : int64[] * byte[] =
        if files.Has name then
            Files.reading files name (fun stream length -> array stream length axes)
        else
            Files.reading files (name + ".gz") (fun stream length ->
                use plain = new GZipStream(stream, CompressionMode.Decompress, true)
                array plain (deflation * length) axes)

    let private split (files: Files) (images: string) (labels: string) : Split =
        let sizes, pixels = read files images 3
        let count, values = read files labels 1

        if sizes[0] <> count[0] then
            Errors.user
                $"{files.Path}: {images} has {sizes[0]} images and {labels} {count[0]} labels; fetch them again."

        let area = pixels.Length / max 1 (int sizes[0])

        if area = 0 then
            Errors.user $"{files.Path}: {images} has no pixels; fetch it again."

        Split.make files.Path sizes[0] (int sizes[1]) (int sizes[2]) (fun index planes ->
            for channel in 0..2 do
                Array.Copy(pixels, index * area, planes, channel * area, area)

            int values[index])

    let private fashion =
        [| "T-shirt/top"
           "Trouser"
           "Pullover"
           "Dress"
           "Coat"
           "Sandal"
           "Shirt"
           "Sneaker"
           "Bag"
           "Ankle boot" |]

    /// The two sets in this folder. Classes are named by their numbers, and Fashion-MNIST's by what they are where the
    /// path says "fashion": the files do not tell it from MNIST.
    let sets (files: Files) (folder: string) : Sets =
        let at = Files.at folder

        let train =
            split files (at "train-images-idx3-ubyte") (at "train-labels-idx1-ubyte")

        try
            let test = split files (at "t10k-images-idx3-ubyte") (at "t10k-labels-idx1-ubyte")
            let classes = 1 + max (Array.max train.Labels) (Array.max test.Labels)

            let isFashion =
                classes = fashion.Length
                && $"{files.Path}/{folder}".Contains("fashion", StringComparison.OrdinalIgnoreCase)

            { Classes = if isFashion then fashion else Array.init classes string
              MayMirror = isFashion
              Train = train
              Test = test }
        with _ ->
            Split.dispose train
            reraise ()
