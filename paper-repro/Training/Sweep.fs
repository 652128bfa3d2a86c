namespace PatchUp.Repro

open System
open System.Globalization
open System.IO
open System.Text.Json
open System.Text.Json.Nodes
open FSharp.Reflection
open PatchUp.Functional

/// A run of a sweep, as its file names it.
type Planned =
    {
        /// An archive or a folder; None for the images in the program.
        Images: string option
        /// The name and the fingerprint of its data are empty: they follow from the images.
        Config: Config
        /// Does the file say, itself or with a preset, whether images are mirrored?
        ChoosesFlip: bool
    }

/// Sweeps: files of JSON that name runs, as the product of data sets, models, settings, seeds and methods.
[<RequireQualifiedAccess>]
module Sweep =

    /// The most runs that a file may name.
    let most = 10_000

    /// What a sweep has.
    let names: string list =
        [ "data"
          "models"
          "methods"
          "seeds"
          "preset"
          "dataPreset"
          "base"
          "grid"
          "sample" ]

    /// What a sample has.
    let sampleNames: string list = [ "count"; "seed"; "uniform"; "logUniform" ]

    /// The names of a configuration's values that a sweep's settings may name: the others follow from its methods, models,
    /// data and seeds.
    let settings: string list =
        ConfigFile.keys
        |> List.except [ "recipe"; "method"; "notation"; "data"; "fingerprint"; "model"; "seed" ]

    /// Those of `settings` that are numbers with a fraction, which can be drawn.
    let drawable: string list =
        List.zip ConfigFile.keys (List.ofArray (FSharpType.GetRecordFields typeof<Config>))
        |> List.filter (fun (key, field) -> List.contains key settings && field.PropertyType = typeof<float>)
        |> List.map fst

    // ---- JSON ----

    let private shown (node: JsonNode) =
        if isNull node then "null" else node.ToJsonString()

    let private fields (place: string) (node: JsonNode) : (string * JsonNode) list =
        match node with
        | :? JsonObject as parts -> [ for KeyValue(name, part) in parts -> name, part ]
        | _ -> Errors.user $"{place} cannot be {shown node}; it is a JSON object."

    /// A list that is not empty and names nothing twice.
    let private items (place: string) (node: JsonNode) : JsonNode list =
        match node with
        | :? JsonArray as items when items.Count > 0 ->
            let items = List.ofSeq items

            match items |> List.countBy shown |> List.tryFind (fun (_, count) -> count > 1) with
            | Some(text, _) -> Errors.user $"{place} has {text} twice; name it once."
            | None -> items
        | _ -> Errors.user $"{place} cannot be {shown node}; it is a list of at least one."

    let private value<'a> (place: string) (example: string) (node: JsonNode) : 'a =
        match
            (if isNull node then
                 None
             else
                 Json.tryRead<'a>(node.ToJsonString()))
        with
        | Some value when not (isNull (box value)) -> value
        | _ -> Errors.user $"{place} cannot be {shown node}; it is something like {example}."

    let private texts (place: string) (example: string) (node: JsonNode) : string list =
        items place node |> List.map (value<string> place example)

    let private count (place: string) (largest: int) (node: JsonNode) : int =
        let number = value<int> place "5" node

        if number < 1 || number > largest then
            Errors.user $"{place} {number}: it must lie in 1 .. {largest}."

        number

    let private checkSetting (place: string) (name: string) =
        match name with
        | "method"
        | "model"
        | "seed" -> Errors.user $"{place}: '{name}' is not a setting; a sweep has {name}s."
        | "data" -> Errors.user $"{place}: 'data' is not a setting; it stands beside {place}."
        | _ -> ConfigFile.checkName place "a setting" settings name

    // ---- settings ----

    /// Every way to take one of each.
    let rec private product (choices: 'a list list) : 'a list list =
        match choices with
        | [] -> [ [] ]
        | first :: rest ->
            let rest = product rest

            [ for one in first do
                  for others in rest do
                      one :: others ]

    /// Names and values for every point of a grid.
    let private grid (path: string) (node: JsonNode) : (string * JsonNode) list list =
        let choices =
            [ for name, values in fields $"{path}: grid" node do
                  checkSetting $"{path}: grid" name

                  // Each alone, so that a wrong one is named even where there are too many.
                  [ for value in items $"{path}: grid: {name}" values do
                        ConfigFile.replace $"{path}: grid" [ name, value ] Config.standard |> ignore
                        name, value ] ]

        let points =
            choices
            |> List.fold (fun points one -> points * int64 one.Length |> min (int64 Int32.MaxValue)) 1L

        if points > int64 most then
            Errors.user $"{path}: grid: it has more than {most} points; make it smaller."

        product choices

    /// A number between the two, as six digits, so that it is the same on every machine.
    let private drawn (isLogarithmic: bool) (low: float) (high: float) (share: float) : float =
        let exact =
            if isLogarithmic then
                low * Math.Pow(high / low, share)
            else
                low + (high - low) * share

        let rounded =
            Double.Parse(exact.ToString("E5", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture)

        max low (min high rounded)

    /// Names and values for every sample: the n-th follows from seed and names alone, however many there are.
    let private samples (path: string) (node: JsonNode) : (string * JsonNode) list list =
        let place = $"{path}: sample"
        let parts = fields place node

        for name, _ in parts do
            ConfigFile.checkName place "a part of a sample" sampleNames name

        let parts = Map parts

        let ranges (kind: string) =
            let isLogarithmic = (kind = "logUniform")

            [ for name, range in
                  parts.TryFind kind
                  |> Option.map (fields $"{place}: {kind}")
                  |> Option.defaultValue [] do
                  ConfigFile.checkName $"{place}: {kind}" "a setting that can be drawn" drawable name

                  match value<float list> $"{place}: {kind}: {name}" "[0.001, 0.1]" range with
                  | [ low; high ] when
                      low < high
                      && (low > 0.0 || not isLogarithmic)
                      && Double.IsFinite low
                      && Double.IsFinite(high - low)
                      ->
                      name, drawn isLogarithmic low high
                  | _ ->
                      let least = if isLogarithmic then ", both positive" else ""

                      Errors.user
                          $"{place}: {kind}: {name} cannot be {shown range}; it is the least and the largest{least}, such as [0.001, 0.1]." ]

        let ranges =
            ranges "uniform" @ ranges "logUniform"
            |> List.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(a, b))

        match ranges |> List.countBy fst |> List.tryFind (fun (_, times) -> times > 1) with
        | Some(name, _) -> Errors.user $"{place}: {name} is drawn twice; draw it once."
        | None -> ()

        if ranges.IsEmpty then
            Errors.user $"{place}: it draws nothing; name settings in uniform or logUniform."

        let count =
            match parts.TryFind "count" with
            | Some node -> count $"{place}: count" most node
            | None -> Errors.user $"{place}: it needs a count, of how many there are."

        let seed =
            parts.TryFind "seed"
            |> Option.map (value<int> $"{place}: seed" "1")
            |> Option.defaultValue 0

        [ for sample in 0 .. count - 1 do
              let bits = Key.ofSeed seed |> Key.child sample |> Key.stream
              [ for name, draw in ranges -> name, JsonValue.Create(draw (bits.Float())) :> JsonNode ] ]

    // ---- runs ----

    /// The configuration of a model before its settings: as published where there are presets, of schedules and of data sets.
    let private ofModel (preset: string option) (dataPreset: string option) (model: string) : Config =
        let config =
            { Config.standard with
                Model = model
                Width = (Architectures.find model).Width |> Option.bind (fun _ -> Config.standard.Width) }

        let scheduled =
            match preset with
            | Some name -> Config.withPreset name config
            | None -> config

        match dataPreset with
        | Some name -> Config.withData (DataPreset.find name) scheduled
        | None -> scheduled

    let private runs (path: string) (node: JsonNode) : Planned list =
        let parts = fields $"{path}: a sweep" node

        for name, _ in parts do
            ConfigFile.checkName path "a part of a sweep" names name

        let parts = Map parts

        let part name read otherwise =
            parts.TryFind name
            |> Option.map (read $"{path}: {name}")
            |> Option.defaultValue otherwise

        let folder = Path.GetDirectoryName(Path.GetFullPath path)

        let images =
            part
                "data"
                (fun place node ->
                    texts place "\"cifar10.tar.gz\"" node
                    |> List.map (fun text ->
                        if String.IsNullOrWhiteSpace text || text.Contains '\000' then
                            Errors.user $"{place}: '{text}' is no path; name a file or folder."

                        Some(Path.GetFullPath(Path.Combine(folder, text)))))
                [ None ]

        let models =
            part "models" (fun place -> texts place "\"wrn-28-10\"") [ Config.standard.Model ]

        let methods =
            part "methods" (fun place -> texts place "\"soft-patchup\"") [ Config.standard.Method ]
            |> List.map Arguments.method'

        let seeds =
            part
                "seeds"
                (fun place node ->
                    match node with
                    | :? JsonArray -> items place node |> List.map (value<int> place "[0, 1, 2]")
                    | _ -> [ 0 .. count place 1000 node - 1 ])
                [ Config.standard.Seed ]

        let named name example =
            parts.TryFind name |> Option.map (value<string> $"{path}: {name}" example)

        let preset = named "preset" "\"paper-2020\""
        let dataPreset = named "dataPreset" "\"cifar-10\""

        let common = part "base" fields []

        for name, _ in common do
            checkSetting $"{path}: base" name

        let points = part "grid" (fun _ -> grid path) [ [] ]
        let samples = part "sample" (fun _ -> samples path) [ [] ]

        let total =
            [ images.Length
              models.Length
              methods.Length
              seeds.Length
              points.Length
              samples.Length ]
            |> List.map bigint
            |> List.reduce (*)

        if total > bigint most then
            Errors.user $"{path}: it names {total} runs; {most} are the most."

        for name, _ in samples.Head do
            if points.Head |> List.exists (fun (other, _) -> other = name) then
                Errors.user $"{path}: {name} is in grid and in sample; leave it in one of them."

        let chosen =
            Set(List.map fst common @ List.map fst points.Head @ List.map fst samples.Head)

        let withMethod (config: Config) (method': Method) =
            let whole = Config.withMethod method' config

            { whole with
                Loss =
                    (if chosen.Contains "loss" || preset.IsSome then
                         config.Loss
                     else
                         whole.Loss)
                CleanLoss =
                    (if chosen.Contains "cleanLoss" then
                         config.CleanLoss
                     else
                         whole.CleanLoss) }

        let configs =
            [ for model in models do
                  let hasWidth = (Architectures.find model).Width.IsSome

                  let based =
                      // Of several models, some may say themselves how wide they are.
                      common
                      |> List.filter (fun (name, _) -> name <> "width" || hasWidth)
                      |> fun values -> ConfigFile.replace $"{path}: base" values (ofModel preset dataPreset model)

                  for point in points do
                      for sample in samples do
                          let config = ConfigFile.replace $"{path}: grid" (point @ sample) based

                          for seed in seeds do
                              for method' in methods do
                                  { withMethod config method' with
                                      Seed = seed } ]

        for config in configs do
            Config.check config

        [ for images in images do
              for config in configs do
                  { Images = images
                    Config = config
                    ChoosesFlip = dataPreset.IsSome || chosen.Contains "flip" } ]

    /// A value as a command line gives it: JSON, or else a plain word.
    let ofWord (text: string) : JsonNode =
        try
            JsonNode.Parse text
        with :? JsonException ->
            JsonValue.Create text

    /// Several with commas between.
    let ofWords (text: string) : JsonNode =
        try
            JsonNode.Parse $"[{text}]"
        with :? JsonException ->
            JsonArray(text.Split(',', StringSplitOptions.TrimEntries) |> Array.map ofWord)

    /// Reads the text of a sweep, or of a list of sweeps whose runs are taken together; the path is its file's, to which
    /// paths of data are relative, and need not be there. The runs come in an order that follows from the text alone. A
    /// UserError, which names file and value, for a name that is not known, a value of the wrong kind or out of range, a run
    /// that is named twice, and more than `most` runs.
    let ofText (path: string) (text: string) : Planned list =
        let all =
            try
                match Json.parse path "a sweep" text with
                | :? JsonArray as sweeps when sweeps.Count > 0 -> sweeps |> List.ofSeq |> List.collect (runs path)
                | node -> runs path node
            with UserError message when not (message.StartsWith(path, StringComparison.Ordinal)) ->
                Errors.user $"{path}: {message}"

        if all.Length > most then
            Errors.user $"{path}: it names {all.Length} runs; {most} are the most."

        match all |> List.countBy id |> List.tryFind (fun (_, times) -> times > 1) with
        | Some(run, times) ->
            Errors.user
                $"{path}: {run.Config.Method} on {run.Config.Model} with seed {run.Config.Seed} and equal settings is named {times} times; name every run once."
        | None -> all

    /// The same of a file; a UserError also where it cannot be read.
    let read (path: string) : Planned list = ofText path (ConfigFile.load path)
