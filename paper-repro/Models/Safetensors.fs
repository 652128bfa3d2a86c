namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Buffers
open System.Buffers.Binary
open System.Collections.Generic
open System.IO
open System.Runtime.InteropServices
open System.Text.Json
open TorchSharp

/// The contents of a safetensors file.
[<NoEquality; NoComparison>]
type Tensors =
    {
        /// In the order of the file's data.
        Entries: (string * torch.Tensor) list
        Metadata: Map<string, string>
    }

/// What a safetensors file says of itself.
type TensorsHeader =
    {
        /// Name, type and shape of every tensor, in the order of the file's data.
        Tensors: (string * torch.ScalarType * int64 list) list
        Metadata: Map<string, string>
    }

/// The safetensors format: an 8-byte little-endian header length, a JSON header, and the tensors' bytes without gaps.
[<RequireQualifiedAccess>]
module Safetensors =

    /// Format name, TorchSharp type and bytes of an element.
    let private types =
        [ "F64", torch.float64, 8L
          "I64", torch.int64, 8L
          "F32", torch.float32, 4L
          "I32", torch.int32, 4L
          "F16", torch.float16, 2L
          "BF16", torch.bfloat16, 2L
          "U8", torch.uint8, 1L
          "BOOL", torch.bool, 1L ]

    let private typeNames =
        types |> List.map (fun (name, _, _) -> name) |> String.concat ", "

    /// In bytes: hundreds of times a network's. The format itself allows 100 MB, which reading would multiply.
    let private longestHeader = 10_000_000L

    /// The header's key for the map of strings.
    let private metadataKey = "__metadata__"

    /// How many bytes to hold at a time of a tensor of so many: TorchSharp makes a buffer for every tensor.
    let private buffer (bytes: int64) : int = int (min bytes (1L <<< 20))

    // Writing

    let private typeOf (name: string) (tensor: torch.Tensor) =
        match types |> List.tryFind (fun (_, dtype, _) -> dtype = tensor.dtype) with
        | Some(text, _, size) -> text, size
        | None ->
            invalidArg (nameof tensor) $"The tensor '{name}' is {tensor.dtype}; safetensors here holds {typeNames}."

    /// Wider elements first, so that every tensor is aligned, then by name.
    let private inOrder (tensors: (string * torch.Tensor) list) =
        let compare (a: string * torch.Tensor) (b: string * torch.Tensor) =
            match Operators.compare (snd (typeOf (fst b) (snd b))) (snd (typeOf (fst a) (snd a))) with
            | 0 -> String.CompareOrdinal(fst a, fst b)
            | order -> order

        List.sortWith compare tensors

    let private headerOf (metadata: Map<string, string>) (tensors: (string * torch.Tensor) list) =
        let bytes = ArrayBufferWriter<byte>()
        use json = new Utf8JsonWriter(bytes)
        json.WriteStartObject()

        if not metadata.IsEmpty then
            json.WriteStartObject metadataKey

            for KeyValue(key, value) in metadata do
                json.WriteString(key, value)

            json.WriteEndObject()

        let mutable start = 0L

        for name, tensor in tensors do
            let text, size = typeOf name tensor
            let finish = start + tensor.NumberOfElements * size
            json.WriteStartObject name
            json.WriteString("dtype", text)
            json.WriteStartArray "shape"

            for length in tensor.shape do
                json.WriteNumberValue length

            json.WriteEndArray()
            json.WriteStartArray "data_offsets"
            json.WriteNumberValue start
            json.WriteNumberValue finish
            json.WriteEndArray()
            json.WriteEndObject()
            start <- finish

        json.WriteEndObject()
        json.Flush()
        bytes.WrittenSpan.ToArray()

    /// Writes named tensors of any shape, and the map of strings, to a file: whole or not at all. Equal contents give
    /// equal bytes. The names are distinct and not `__metadata__`, the types those of the format (else an
    /// ArgumentException); a UserError where the file cannot be written.
    let write (path: string) (metadata: Map<string, string>) (tensors: (string * torch.Tensor) list) : unit =
        let names = tensors |> List.map fst

        if
            List.contains metadataKey names
            || List.length (List.distinct names) <> names.Length
        then
            invalidArg (nameof tensors) $"The tensors' names must be distinct, and none of them '{metadataKey}'."

        let tensors = inOrder tensors
        let header = headerOf metadata tensors
        let padded = (header.Length + 7) / 8 * 8

        Errors.writing path (fun stream ->
            let length = Array.zeroCreate<byte> 8
            BinaryPrimitives.WriteInt64LittleEndian(length, int64 padded)
            stream.Write(ReadOnlySpan length)
            stream.Write(ReadOnlySpan header)
            stream.Write(ReadOnlySpan(Array.create (padded - header.Length) (byte ' ')))

            for _, tensor in tensors do
                Scope.value (fun () ->
                    let size = tensor.NumberOfElements * tensor.ElementSize

                    if size > 0L then
                        tensor.detach().cpu().contiguous().WriteBytesToStream(stream, buffer size)))

    // Reading

    /// One tensor as the header describes it; `Start` and `Finish` count from the end of the header.
    type private Entry =
        { Name: string
          Type: torch.ScalarType
          Shape: int64[]
          Start: int64
          Finish: int64 }

    let private damaged (path: string) (what: string) : 'a =
        Errors.user $"{path}: not a sound safetensors file: {what}; write it again or use another copy."

    let private wholeNumbers (refuse: string -> unit) (what: string) (most: int) (element: JsonElement) : int64[] =
        if element.ValueKind <> JsonValueKind.Array then
            refuse $"{what} is no list"

        if element.GetArrayLength() > most then
            refuse $"{what} has {element.GetArrayLength()} numbers ({most} at most)"

        [| for item in element.EnumerateArray() do
               match item.ValueKind = JsonValueKind.Number, item.TryGetInt64() with
               | true, (true, value) when value >= 0L -> value
               | _ -> refuse $"{what} holds something that is no whole number from 0 up" |]

    let private entryOf (path: string) (available: int64) (name: string) (element: JsonElement) : Entry =
        let refuse what : 'a = damaged path $"tensor '{name}': {what}"

        if element.ValueKind <> JsonValueKind.Object then
            refuse "its description is no object"

        let field (key: string) =
            match element.TryGetProperty key with
            | true, value -> value
            | _ -> refuse $"it has no {key}"

        let text = field "dtype"

        let dtype, size =
            match
                types
                |> List.tryFind (fun (known, _, _) ->
                    text.ValueKind = JsonValueKind.String && text.ValueEquals(known: string))
            with
            | Some(_, dtype, size) -> dtype, size
            | None -> refuse $"dtype {text.GetRawText()} is not among {typeNames}"

        let shape = wholeNumbers refuse "its shape" 64 (field "shape")

        // Lengths of zero count as one, so that no stride can overflow either.
        let elements =
            try
                shape
                |> Array.fold (fun product length -> Checked.(*) product (max length 1L)) size
                |> ignore

                Array.fold (*) 1L shape
            with :? OverflowException ->
                refuse "its shape is too large"

        match wholeNumbers refuse "its data_offsets" 2 (field "data_offsets") with
        | [| start; finish |] when start <= finish && finish <= available ->
            if elements * size <> finish - start then
                refuse $"{finish - start} bytes of data do not fill its shape of {elements} elements"

            { Name = name
              Type = dtype
              Shape = shape
              Start = start
              Finish = finish }
        | _ -> refuse $"its data_offsets do not lie within the {available} bytes of data"

    let private metadataOf (path: string) (element: JsonElement) : Map<string, string> =
        if element.ValueKind <> JsonValueKind.Object then
            damaged path $"{metadataKey} is no object"

        Map
            [ for item in element.EnumerateObject() do
                  if item.Value.ValueKind <> JsonValueKind.String then
                      damaged path $"{metadataKey} holds something other than strings"

                  item.Name, item.Value.GetString() ]

    let private parse (path: string) (available: int64) (header: byte[]) : Entry list * Map<string, string> =
        try
            use document =
                JsonDocument.Parse(ReadOnlyMemory header, JsonDocumentOptions(AllowDuplicateProperties = false))

            if document.RootElement.ValueKind <> JsonValueKind.Object then
                damaged path "its header is no object"

            let metadata =
                match document.RootElement.TryGetProperty metadataKey with
                | true, element -> metadataOf path element
                | _ -> Map.empty

            let entries =
                [ for item in document.RootElement.EnumerateObject() do
                      if item.Name <> metadataKey then
                          entryOf path available item.Name item.Value ]
                |> List.sortBy (fun entry -> entry.Start, entry.Finish)

            entries, metadata
        with
        | :? JsonException
        | :? InvalidOperationException -> damaged path "its header is not JSON in UTF-8"

    /// The tensors follow one another without gap or overlap, and fill the file.
    let private checkCover (path: string) (available: int64) (entries: Entry list) =
        let reached =
            (0L, entries)
            ||> List.fold (fun reached entry ->
                if entry.Start <> reached then
                    damaged path $"tensor '{entry.Name}' starts at byte {entry.Start} of the data, not at {reached}"

                entry.Finish)

        if reached <> available then
            damaged path $"its tensors take {reached} bytes of data, and it has {available}"

    let private readEntry (path: string) (stream: Stream) (entry: Entry) =
        let tensor = torch.empty (entry.Shape, dtype = entry.Type)

        if entry.Finish > entry.Start then
            tensor.ReadBytesFromStream(stream, buffer (entry.Finish - entry.Start))

        if
            entry.Type = torch.bool
            && MemoryExtensions.ContainsAnyExcept(Span.op_Implicit tensor.bytes, 0uy, 1uy)
        then
            damaged path $"tensor '{entry.Name}' is BOOL and holds bytes other than 0 and 1"

        tensor

    /// Checks the header against the file's size, then gives it to `look` with the stream at the start of the data.
    let private opening (path: string) (look: FileStream -> Entry list -> Map<string, string> -> 'a) : 'a =
        Errors.reading path (fun () ->
            use stream = Errors.openRead path
            let size = stream.Length

            if size < 8L then
                damaged path $"it has {size} bytes, less than a header"

            let start = Array.zeroCreate<byte> 8
            stream.ReadExactly start
            let length = BinaryPrimitives.ReadUInt64LittleEndian start

            if length > uint64 (size - 8L) then
                damaged path $"its header of {length} bytes is longer than the file of {size}"

            if length > uint64 longestHeader then
                damaged path $"its header of {length} bytes is over the limit of {longestHeader}"

            let header = Array.zeroCreate<byte>(int length)
            stream.ReadExactly header
            let available = size - 8L - int64 length
            let entries, metadata = parse path available header
            checkCover path available entries
            look stream entries metadata)

    let private headerOf' (entries: Entry list) (metadata: Map<string, string>) : TensorsHeader =
        { Tensors =
            entries
            |> List.map (fun entry -> entry.Name, entry.Type, List.ofArray entry.Shape)
          Metadata = metadata }

    /// Reads what a file says of itself, and none of its data; a UserError as `read` has it.
    let header (path: string) : TensorsHeader =
        opening path (fun _ entries metadata -> headerOf' entries metadata)

    /// Reads a file of F64, I64, F32, I32, F16, BF16, U8 or BOOL tensors to the CPU. Nothing is allocated before the
    /// header has been checked against the file's size. A UserError for a file that is missing, cut short or unsound.
    let read (path: string) : Tensors =
        opening path (fun stream entries metadata ->
            let tensors = Scope.many (fun () -> entries |> List.map (readEntry path stream))

            { Entries = List.zip (entries |> List.map _.Name) tensors
              Metadata = metadata })

    /// The bytes of a whole file as its pages; None where the system does not map them.
    let private pagesOf (path: string) (length: int64) : torch.Tensor option =
        if OperatingSystem.IsWindows() then
            // A mapped file could not be replaced.
            None
        else
            try
                Some(torch.from_file (path, Nullable false, Nullable length, Nullable torch.uint8))
            with :? ExternalException ->
                None

    /// Reads a file as `read` does, but U8 tensors are the file's own pages, which the system takes into memory when they
    /// are used and drops where it is short: several processes share them, and a write to them stays in its process. As
    /// long as they live the file may be replaced or deleted, but not changed in place. Where the system does not map the
    /// file, the tensors are read.
    let map (path: string) : Tensors =
        opening path (fun stream entries metadata ->
            let start = stream.Position

            let tensors =
                Scope.many (fun () ->
                    let pages = pagesOf path stream.Length

                    entries
                    |> List.map (fun entry ->
                        match pages with
                        | Some pages when entry.Type = torch.uint8 ->
                            pages.narrow(0L, start + entry.Start, entry.Finish - entry.Start).view(entry.Shape)
                        | _ ->
                            stream.Position <- start + entry.Start
                            readEntry path stream entry))

            { Entries = List.zip (entries |> List.map _.Name) tensors
              Metadata = metadata })

    // PyTorch's conventions

    let private listed (names: string list) =
        let shown = names |> List.truncate 3 |> String.concat ", "

        if names.Length > 3 then
            $"{shown} and {names.Length - 3} more"
        else
            shown

    /// What `DataParallel` puts before every name.
    let private parallel' = "module."

    /// A header's names without what `DataParallel` puts before them.
    let plainNames (header: TensorsHeader) : TensorsHeader =
        if
            header.Tensors
            |> List.forall (fun (name, _, _) -> name.StartsWith(parallel', StringComparison.Ordinal))
        then
            { header with
                Tensors =
                    header.Tensors
                    |> List.map (fun (name, dtype, shape) -> name.Substring parallel'.Length, dtype, shape) }
        else
            header

    /// How many batches a normalisation has seen, which decides nothing at a fixed momentum; PyTorch wrote no such
    /// numbers before its version 0.4.1.
    let private isOptional (name: string) =
        name.EndsWith(".num_batches_tracked", StringComparison.Ordinal)

    /// Whether every number of the one type is one of the other.
    let private widens (source: torch.ScalarType) (target: torch.ScalarType) =
        List.contains
            (source, target)
            [ torch.float16, torch.float32
              torch.bfloat16, torch.float32
              torch.float16, torch.float64
              torch.bfloat16, torch.float64
              torch.float32, torch.float64 ]

    let private describe (dtype: torch.ScalarType) (shape: int64 list) =
        let lengths = String.Join(",", shape)
        $"{dtype} [{lengths}]"

    /// Refuses, with a UserError that names the path, a file whose tensors cannot be loaded into these: one is missing
    /// or unknown, or has another shape or a type that does not fit in. Names may all begin with `module.`, as
    /// `DataParallel` leaves them, and counts of batches may be missing. Only names, types and shapes are looked at.
    let checkFit (path: string) (targets: (string * torch.Tensor) list) (header: TensorsHeader) : unit =
        let sources =
            Map [ for name, dtype, shape in (plainNames header).Tensors -> name, (dtype, shape) ]

        let wanted = HashSet(List.map fst targets)

        let missing =
            targets
            |> List.map fst
            |> List.filter (fun name -> not (sources.ContainsKey name || isOptional name))

        let unexpected =
            [ for KeyValue(name, _) in sources do
                  if not (wanted.Contains name) then
                      name ]

        if not missing.IsEmpty then
            Errors.user $"{path}: it lacks {listed missing}; it was written for another model."

        if not unexpected.IsEmpty then
            Errors.user $"{path}: it has {listed unexpected}, unknown here; it was written for another model."

        for name, target in targets do
            match sources.TryFind name with
            | None -> ()
            | Some(dtype, shape) ->
                let found = describe dtype shape
                let needed = describe target.dtype (List.ofArray target.shape)

                if shape <> List.ofArray target.shape then
                    Errors.user $"{path}: {name} is {found}, not {needed}; it was written for another model."

                if dtype <> target.dtype && not (widens dtype target.dtype) then
                    Errors.user
                        $"{path}: {name} is {found}, whose numbers are not all {target.dtype}; write it as \
                          {target.dtype}."

    /// Copies a file's tensors into tensors of the same names and shapes, such as a module's parameters and buffers, and
    /// gives the file's map of strings. Float types are widened where that is exact. A UserError, before anything is
    /// changed, where `checkFit` or `read` has one.
    let load (path: string) (targets: (string * torch.Tensor) list) : Map<string, string> =
        Scope.value (fun () ->
            opening path (fun stream entries metadata ->
                let header = headerOf' entries metadata
                checkFit path targets header
                let tensors = entries |> List.map (readEntry path stream)
                let names = (plainNames header).Tensors |> List.map (fun (name, _, _) -> name)
                let sources = dict (List.zip names tensors)
                use _ = torch.no_grad ()

                for name, target in targets do
                    match sources.TryGetValue name with
                    | true, source -> target.copy_ source |> ignore
                    | _ -> ()

                metadata))
