namespace PatchUp.Repro

open System.IO
open System.Text.Json
open System.Text.Json.Nodes
open FSharp.Reflection
open PatchUp.Functional

/// Configurations as JSON files.
[<RequireQualifiedAccess>]
module ConfigFile =

    /// In bytes.
    let private longestFile = 1L <<< 24

    /// The names of a configuration's values in JSON.
    let private keys: string list =
        [ for field in FSharpType.GetRecordFields typeof<Config> -> JsonNamingPolicy.CamelCase.ConvertName field.Name ]

    let private parse (path: string) (text: string) : JsonObject =
        let node =
            try
                JsonNode.Parse(text, documentOptions = JsonDocumentOptions(AllowDuplicateProperties = false))
            with :? JsonException as error ->
                Errors.user
                    $"{path}: not JSON that could be a configuration (line {error.LineNumber.GetValueOrDefault() + 1L})."

        match node with
        | :? JsonObject as root ->
            match root["config"] with
            | :? JsonObject as config -> config
            | _ -> root
        | _ -> Errors.user $"{path}: a configuration is a JSON object."

    /// A configuration with some values put in place of its own; None where they are of the wrong kind.
    let private replaced (values: (string * JsonNode) list) (config: Config) : Config option =
        let whole = JsonNode.Parse(Json.line config).AsObject()

        for key, value in values do
            whole[key] <- if isNull value then null else value.DeepClone()

        Json.tryRead<Config>(whole.ToJsonString())

    /// Reads a JSON file of a configuration, or of a record, which contains one: the values that it names, in place of the
    /// standard ones, and their names. A UserError for a file that cannot be read, a name that is not known, a value of
    /// the wrong kind, and the recipe of another version of the program.
    let read (path: string) : Config * Set<string> =
        let text =
            Errors.reading path (fun () ->
                use stream = Errors.openRead path

                if stream.Length > longestFile then
                    Errors.user $"{path}: {stream.Length} bytes; a configuration has fewer."

                use reader = new StreamReader(stream)
                reader.ReadToEnd())

        let values = [ for KeyValue(key, value) in parse path text -> key, value ]

        for key, value in values do
            if not (List.contains key keys) then
                let hint =
                    (if key.Length > 40 then None else Notation.nearest keys key)
                    |> Option.map (fun near -> $" (did you mean {near}?)")
                    |> Option.defaultValue ""

                let known = String.concat ", " keys
                Errors.user $"{path}: '{key}' is not a configuration's{hint}; the names are {known}."

            if
                (isNull value && key <> "width")
                || (replaced [ key, value ] Config.standard).IsNone
            then
                let shown = if isNull value then "null" else value.ToJsonString()
                let right = (JsonNode.Parse(Json.line Config.standard)[key]).ToJsonString()
                Errors.user $"{path}: {key} cannot be {shown}; it is something like {right}."

        let config = (replaced values Config.standard).Value

        if config.Recipe <> Config.standard.Recipe then
            Errors.user
                $"{path}: recipe {config.Recipe} is of another version of this program, whose results differ from this one's \
                  ({Config.standard.Recipe}); leave it out to train with this one's."

        config, Set(List.map fst values)
