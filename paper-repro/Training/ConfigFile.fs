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
    let keys: string list =
        [ for field in FSharpType.GetRecordFields typeof<Config> -> JsonNamingPolicy.CamelCase.ConvertName field.Name ]

    /// Refuses a name that is not one of `names`, those of `owner`, with the nearest one; `place` is where it stands.
    let checkName (place: string) (owner: string) (names: string list) (name: string) : unit =
        if not (List.contains name names) then
            let hint =
                (if name.Length > 40 then
                     None
                 else
                     Notation.nearest names name)
                |> Option.map (fun near -> $" (did you mean {near}?)")
                |> Option.defaultValue ""

            let known = String.concat ", " names
            Errors.user $"{place}: '{name}' is not {owner}{hint}; the names are {known}."

    /// The text of a file of JSON; a UserError where it cannot be read or is too long to be a configuration.
    let load (path: string) : string =
        Errors.reading path (fun () ->
            use stream = Errors.openRead path

            if stream.Length > longestFile then
                Errors.user $"{path}: {stream.Length} bytes; a configuration has fewer."

            use reader = new StreamReader(stream)
            reader.ReadToEnd())

    let private parse (path: string) (text: string) : JsonObject =
        match Json.parse path "a configuration" text with
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

    /// A configuration with values out of JSON in place of its own. A UserError for a name that is not known and a value
    /// of the wrong kind; `place` is where they stand.
    let replace (place: string) (values: (string * JsonNode) list) (config: Config) : Config =
        for key, value in values do
            checkName place "a configuration's" keys key

            if
                (isNull value && key <> "width" && key <> "imageSize")
                || (replaced [ key, value ] Config.standard).IsNone
            then
                let shown = if isNull value then "null" else value.ToJsonString()
                let right = (JsonNode.Parse(Json.line Config.standard)[key]).ToJsonString()
                Errors.user $"{place}: {key} cannot be {shown}; it is something like {right}."

        (replaced values config).Value

    /// Reads a JSON file of a configuration, or of a record, which contains one: the values that it names, in place of the
    /// standard ones, and their names. A UserError for a file that cannot be read, a name that is not known, a value of
    /// the wrong kind, and the recipe of another version of the program.
    let read (path: string) : Config * Set<string> =
        let values = [ for KeyValue(key, value) in parse path (load path) -> key, value ]
        let config = replace path values Config.standard

        if config.Recipe <> Config.standard.Recipe then
            Errors.user
                $"{path}: recipe {config.Recipe} is of another version of this program, whose results differ from this one's \
                  ({Config.standard.Recipe}); leave it out to train with this one's."

        config, Set(List.map fst values)
