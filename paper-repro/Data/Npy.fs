namespace PatchUp.Repro

open System
open System.Buffers.Binary
open System.IO
open System.Text
open System.Text.RegularExpressions

/// The header of a NumPy file.
type internal Npy =
    {
        /// NumPy's name of the numbers' type, such as |u1.
        Type: string
        /// The sizes of the axes; the last axis is the fastest.
        Sizes: int64[]
        /// Where the numbers start in the file.
        Start: int64
    }

/// NumPy files: arrays in C's order of unsigned bytes, and of whole numbers of 4 or 8 bytes.
[<RequireQualifiedAccess>]
module internal Npy =

    let private fail (what: string) : 'a = raise (InvalidDataException what)

    /// The bytes of a number of each type that is read.
    let private widths = Map [ "|u1", 1L; "<i4", 4L; "<i8", 8L ]

    let private field (text: string) (pattern: string) =
        let found = Regex.Match(text, pattern)

        if found.Success then
            found.Groups[1].Value
        else
            fail "its header is none of NumPy's"

    /// The header of a file of this length, which the stream holds from its start. Raises an InvalidDataException for
    /// another type or order, and unless the file has just the numbers that the sizes ask for.
    let header (stream: Stream) (length: int64) : Npy =
        let magic = Array.zeroCreate<byte> 10
        stream.ReadExactly magic

        if magic[0] <> 0x93uy || magic[1..5] <> "NUMPY"B || magic[6] <> 1uy then
            fail "it is no NumPy file of version 1"

        let text =
            Array.zeroCreate<byte>(int (BinaryPrimitives.ReadUInt16LittleEndian(ReadOnlySpan(magic, 8, 2))))

        stream.ReadExactly text
        let text = Encoding.Latin1.GetString text
        let kind = field text @"'descr': *'([^']*)'"

        let width =
            match widths.TryFind kind with
            | Some width -> width
            | None -> fail $"it has numbers of the type {kind}, not unsigned bytes"

        if field text @"'fortran_order': *(True|False)" <> "False" then
            fail "it is in Fortran's order"

        let sizes =
            (field text @"'shape': *\(([0-9, ]*)\)")
                .Split(',', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
            |> Array.map (fun size ->
                match Int64.TryParse size with
                | true, value -> value
                | _ -> fail $"it has a size of {size}")

        let start = int64 (10 + text.Length)
        let count = sizes |> Array.fold (fun count size -> count * bigint size) 1I

        if count * bigint width <> bigint (length - start) then
            fail $"its sizes ask for {count * bigint width} bytes and it has {length - start}"

        { Type = kind
          Sizes = sizes
          Start = start }

    /// All whole numbers of a file with one axis, which must lie in 0 .. 65535.
    let labels (stream: Stream) (length: int64) : int[] =
        let header = header stream length

        if header.Sizes.Length <> 1 || length > int64 Array.MaxLength then
            fail "it is no list of numbers"

        let bytes = Array.zeroCreate<byte>(int (length - header.Start))
        stream.ReadExactly bytes

        let number i : int64 =
            match header.Type with
            | "<i8" -> BinaryPrimitives.ReadInt64LittleEndian(ReadOnlySpan(bytes, 8 * i, 8))
            | "<i4" -> int64 (BinaryPrimitives.ReadInt32LittleEndian(ReadOnlySpan(bytes, 4 * i, 4)))
            | _ -> int64 bytes[i]

        Array.init (int header.Sizes[0]) (fun i ->
            match number i with
            | value when value >= 0L && value <= 65535L -> int value
            | value -> fail $"label {i} is {value}")
