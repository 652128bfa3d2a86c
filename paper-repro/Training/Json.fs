namespace PatchUp.Repro

open System
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.Json.Serialization

/// The program's JSON: properties in the order of declaration, invariant numbers, line feeds.
[<RequireQualifiedAccess>]
module Json =

    let private optionsWith (indented: bool) =
        JsonSerializerOptions(
            PropertyNamingPolicy = JsonNamingPolicy.CamelCase,
            WriteIndented = indented,
            NewLine = "\n",
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
            RespectRequiredConstructorParameters = true,
            UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow
        )

    let private options = optionsWith true

    let private compact = optionsWith false

    /// A record of plain values as text.
    let show (value: 'a) : string =
        JsonSerializer.Serialize(value, options)

    /// The same as a value that other values may hold.
    let node (value: 'a) : JsonNode =
        JsonSerializer.SerializeToNode(value, options)

    /// The same in one line.
    let line (value: 'a) : string =
        JsonSerializer.Serialize(value, compact)

    /// The same back; None where the text is anything else.
    let tryRead<'a> (text: string) : 'a option =
        try
            JsonSerializer.Deserialize<'a>(text, options) |> Some
        with :? JsonException ->
            None

    /// Asks for every name and text, which are decoded when they are asked for; an InvalidOperationException where one is
    /// no text.
    let rec private touch (node: JsonNode) : unit =
        match node with
        | :? JsonObject as parts ->
            for KeyValue(_, part) in parts do
                touch part
        | :? JsonArray as items -> Seq.iter touch items
        | :? JsonValue as value when value.GetValueKind() = JsonValueKind.String -> value.GetValue<string>() |> ignore
        | _ -> ()

    /// Any JSON; a UserError, which says that it could not be `what`, for any other text and for a name that is there twice.
    let parse (place: string) (what: string) (text: string) : JsonNode =
        try
            let node =
                JsonNode.Parse(text, documentOptions = JsonDocumentOptions(AllowDuplicateProperties = false))

            touch node
            node
        with
        | :? JsonException as error ->
            Errors.user $"{place}: not JSON that could be {what} (line {error.LineNumber.GetValueOrDefault() + 1L})."
        | :? InvalidOperationException ->
            Errors.user $"{place}: not JSON that could be {what}: a text in it is not Unicode."

    /// Writes a whole file that ends in a line feed.
    let write (path: string) (value: 'a) : unit =
        Errors.writing path (fun stream -> stream.Write(Encoding.UTF8.GetBytes(show value + "\n")))
