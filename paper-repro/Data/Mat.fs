namespace PatchUp.Repro

open System
open System.Buffers.Binary
open System.IO
open System.IO.Compression
open System.Text

/// An array of whole numbers 0 .. 255 in a MATLAB file.
type internal MatArray =
    {
        Name: string
        /// Its sizes; the first axis is the fastest.
        Sizes: int64 list
        /// All values in the file's order: column-major.
        Values: byte[]
    }

/// MATLAB files of version 5, little-endian, with or without compression: the subset that holds real arrays of type uint8,
/// or of type double with whole values 0 .. 255. Nothing is set aside that the file's length does not vouch for.
[<RequireQualifiedAccess>]
module internal Mat =

    /// A compressed byte makes this many at most.
    let private deflation = 1032L

    let private fail (what: string) : 'a = raise (InvalidDataException what)

    /// What holds elements, and how many bytes of it are left.
    type private Part = { Stream: Stream; mutable Room: int64 }

    let private take (part: Part) (count: int64) : byte[] =
        if count < 0L || count > part.Room || count > int64 Array.MaxLength then
            fail $"an element of {count} bytes is longer than what holds it"

        let bytes = Array.zeroCreate<byte>(int count)
        part.Room <- part.Room - count
        part.Stream.ReadExactly bytes
        bytes

    let private uint32At (bytes: byte[]) (offset: int) =
        BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(bytes, offset, 4))

    /// An element's type and its bytes, with the padding after them passed over.
    let private element (part: Part) : uint32 * byte[] =
        let tag = take part 8L
        let first = uint32At tag 0

        if first >>> 16 <> 0u then
            let length = int (first >>> 16)

            if length > 4 then
                fail $"a small element of {length} bytes"

            first &&& 0xffffu, Array.sub tag 4 length
        else
            let length = int64 (uint32At tag 4)
            let bytes = take part length
            take part (min part.Room ((8L - length % 8L) % 8L)) |> ignore
            first, bytes

    [<Literal>]
    let private Int8 = 1u

    [<Literal>]
    let private UInt8 = 2u

    [<Literal>]
    let private Int32 = 5u

    [<Literal>]
    let private UInt32 = 6u

    [<Literal>]
    let private Double = 9u

    [<Literal>]
    let private Matrix = 14u

    [<Literal>]
    let private Compressed = 15u

    let private expect (wanted: uint32) (what: string) (found: uint32, bytes: byte[]) =
        if found <> wanted then
            fail $"its {what} is of type {found}, not {wanted}"

        bytes

    let private ofDoubles (bytes: byte[]) =
        if bytes.Length % 8 <> 0 then
            fail "a cut number"

        Array.init (bytes.Length / 8) (fun i ->
            let value = BinaryPrimitives.ReadDoubleLittleEndian(ReadOnlySpan(bytes, 8 * i, 8))

            if value >= 0.0 && value <= 255.0 && value = floor value then
                byte value
            else
                fail $"a value of {value}")

    /// The array of a matrix element, whose tag has been read.
    let private matrix (part: Part) : MatArray =
        let flags = element part |> expect UInt32 "flags"

        if flags.Length <> 8 then
            fail "flags of another length"

        let sizes = element part |> expect Int32 "size"
        let name = element part |> expect Int8 "name" |> Encoding.ASCII.GetString
        let kind = uint32At flags 0 &&& 0xffu

        if (kind <> 6u && kind <> 9u) || uint32At flags 0 &&& 0x800u <> 0u then
            fail $"'{name}' is no real array of type uint8 or double"

        if sizes.Length < 8 || sizes.Length > 32 || sizes.Length % 4 <> 0 then
            fail $"'{name}' has sizes in {sizes.Length} bytes"

        let sizes =
            List.init (sizes.Length / 4) (fun i ->
                int64 (BinaryPrimitives.ReadInt32LittleEndian(ReadOnlySpan(sizes, 4 * i, 4))))

        let values =
            match element part with
            | UInt8, bytes -> bytes
            | Double, bytes -> ofDoubles bytes
            | other, _ -> fail $"the values of '{name}' are of type {other}"

        let count =
            sizes
            |> List.fold
                (fun count size ->
                    if size < 0L || (size > 0L && count > int64 Array.MaxLength / size) then
                        fail $"'{name}' has a size of {size}"

                    count * size)
                1L

        if count <> int64 values.Length then
            fail $"'{name}' has {values.Length} values, and its sizes ask for {count}"

        { Name = name
          Sizes = sizes
          Values = values }

    let private unpacked (stream: Stream) (length: int64) : MatArray =
        use plain = new ZLibStream(stream, CompressionMode.Decompress, true)
        let tag = Array.zeroCreate<byte> 8
        plain.ReadExactly tag
        let inside = int64 (uint32At tag 4)

        if uint32At tag 0 <> Matrix then
            fail $"a compressed element of type {uint32At tag 0}"

        if inside > deflation * length then
            fail $"{length} compressed bytes that claim to make {inside}"

        let part = { Stream = plain; Room = inside }
        let array = matrix part

        if part.Room > 0L || plain.ReadByte() >= 0 then
            fail $"more bytes after '{array.Name}'"

        array

    /// All arrays of a file of this length, which the stream, in which one can seek, holds from its start. Raises an
    /// InvalidDataException or an EndOfStreamException for whatever is not of the subset.
    let read (stream: Stream) (length: int64) : MatArray list =
        let header = Array.zeroCreate<byte> 128
        stream.ReadExactly header

        match header[126], header[127], header[125] with
        | 'I'B, 'M'B, 1uy -> ()
        | 'I'B, 'M'B, 2uy -> fail "it is of version 7.3; save it with -v7"
        | 'M'B, 'I'B, _ -> fail "it is big-endian"
        | _ -> fail "it is no MATLAB file of version 5"

        [ while stream.Position < length do
              let tag = Array.zeroCreate<byte> 8
              stream.ReadExactly tag
              let count = int64 (uint32At tag 4)
              let start = stream.Position

              if count > length - start then
                  fail "it is cut short"

              match uint32At tag 0 with
              | Matrix -> matrix { Stream = stream; Room = count }
              | Compressed -> unpacked stream count
              | other -> fail $"an element of type {other}"

              stream.Position <- start + count ]
