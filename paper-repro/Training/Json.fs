namespace PatchUp.Repro

open System.Text
open System.Text.Encodings.Web
open System.Text.Json
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

    /// The same in one line.
    let line (value: 'a) : string =
        JsonSerializer.Serialize(value, compact)

    /// The same back; None where the text is anything else.
    let tryRead<'a> (text: string) : 'a option =
        try
            JsonSerializer.Deserialize<'a>(text, options) |> Some
        with :? JsonException ->
            None

    /// Writes a whole file that ends in a line feed.
    let write (path: string) (value: 'a) : unit =
        Errors.writing path (fun stream -> stream.Write(Encoding.UTF8.GetBytes(show value + "\n")))
