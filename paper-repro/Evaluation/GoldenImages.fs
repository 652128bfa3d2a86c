namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Text.Json

/// What golden files of images are compared with: the deformations and the corruptions of this program, or broken ones.
[<NoEquality; NoComparison>]
type ImageSubject =
    {
        /// `Affine.inverse`
        Inverse: int -> int -> Affine -> float[]
        /// `Affine.apply`
        Deform: Affine -> int -> int -> byte[] -> byte[]
        /// `Corruption.setting`
        Setting: int -> Corruption -> int -> float list
        /// `Corruptions.draw`
        Draw: FrostTextures -> Corruption -> float list -> Key -> Pixels -> Draws
        /// `Corruptions.levels`
        Levels: Corruption -> float list -> Draws -> Pixels -> float[]
        /// `Planes.truncate`
        Truncate: float[] -> byte[]
    }

/// How one field of a case compares.
type ImageComparison =
    {
        Field: string
        /// The largest |found - expected| / max(1, |expected|).
        Deviation: float
        /// Where, what is expected there, and what was found; None where it agrees.
        Disagreement: (int * float * float) option
    }

/// Golden files of deformed and of corrupted images: exact ones, ones with their random draws pinned, and statistics of many random ones.
[<RequireQualifiedAccess>]
module GoldenImages =

    /// This program.
    let library: ImageSubject =
        { Inverse = Affine.inverse
          Deform = Affine.apply
          Setting = Corruption.setting
          Draw = Corruptions.draw
          Levels = Corruptions.levels
          Truncate = Planes.truncate }

    /// How often a random corruption is repeated: the file's tolerances are for this number.
    let repetitions = 40

    // ---- reading ----

    /// An object of the file, and what to call it in messages.
    [<NoEquality; NoComparison>]
    type private Part = { Where: string; Json: JsonElement }

    let private refuse (part: Part) message = Errors.user $"{part.Where}: {message}"

    let private field (name: string) (part: Part) : JsonElement =
        match part.Json.ValueKind with
        | JsonValueKind.Object ->
            match part.Json.TryGetProperty name with
            | true, value -> value
            | _ -> refuse part $"'{name}' is missing."
        | _ -> refuse part "it must be an object."

    let private number name part : float =
        match field name part with
        | value when value.ValueKind = JsonValueKind.Number -> value.GetDouble()
        | _ -> refuse part $"'{name}' must be a number."

    let private text name part : string =
        match field name part with
        | value when value.ValueKind = JsonValueKind.String -> value.GetString()
        | _ -> refuse part $"'{name}' must be a text."

    let private numbers name (part: Part) : float[] =
        let rec inside (value: JsonElement) : float list =
            match value.ValueKind with
            | JsonValueKind.Number -> [ value.GetDouble() ]
            | JsonValueKind.Array -> value.EnumerateArray() |> Seq.collect inside |> List.ofSeq
            | _ -> refuse part $"'{name}' must hold numbers only."

        field name part |> inside |> Array.ofList

    let private several name count part : float[] =
        match numbers name part with
        | values when values.Length = count -> values
        | values -> refuse part $"'{name}' has {values.Length} numbers where {count} are needed."

    let private parts (called: string) name (part: Part) : Part list =
        match field name part with
        | value when value.ValueKind = JsonValueKind.Array ->
            [ for i, json in Seq.indexed (value.EnumerateArray()) ->
                  { Where = $"{part.Where}, {called} {i + 1}"
                    Json = json } ]
        | _ -> refuse part $"'{name}' must be a list."

    /// The file's values `[H,W,3]` as `[3,H,W]`.
    let private planes (side: int) (values: 'v[]) : 'v[] =
        Array.init values.Length (fun i -> values[i % (side * side) * 3 + i / (side * side)])

    /// The other way round.
    let private pixels (side: int) (values: 'v[]) : 'v[] =
        Array.init values.Length (fun i -> values[i % 3 * side * side + i / 3])

    let private image name (side: int) part : Pixels =
        let level value =
            if value >= 0.0 && value <= 255.0 && value = floor value then
                byte value
            else
                refuse part $"'{name}' holds {value}; levels are whole numbers from 0 to 255."

        { Height = side
          Width = side
          Planes = several name (3 * side * side) part |> Array.map level |> planes side }

    // ---- comparing ----

    let private deviations (expected: float[]) (found: float[]) : float[] =
        Array.map2 (fun e f -> abs (f - e)) expected found

    /// All within the tolerance, and at most so many places differ at all; numbers are those of one place each.
    let private compare field (tolerance: float) (most: int) (places: int) (expected: float[]) (found: float[]) =
        let gaps = deviations expected found

        let differing =
            gaps
            |> Array.chunkBySize (gaps.Length / places)
            |> Array.filter (Array.exists (fun gap -> gap > 0.0))

        let worst = Array.IndexOf(gaps, Array.max gaps)

        { Field = field
          Deviation = Array.map2 (fun gap e -> gap / max 1.0 (abs e)) gaps expected |> Array.max
          Disagreement =
            if gaps[worst] <= tolerance && differing.Length <= most then
                None
            else
                Some(worst, expected[worst], found[worst]) }

    let private within field tolerance (expected: float[]) found =
        compare field tolerance expected.Length expected.Length expected found

    /// In the file's order.
    let private bytes (most: int) (tolerance: float) (side: int) (expected: Pixels) (found: byte[]) =
        let inOrder = pixels side >> Array.map float
        compare "output" tolerance most expected.Planes.Length (inOrder expected.Planes) (inOrder found)

    // ---- deformations ----

    /// Pixels that lie so close to a border that another program may find them on its other side.
    let private mostPlaces = 4

    let private deformation (subject: ImageSubject) side (input: Pixels) (case: Part) : string * ImageComparison list =
        let affine: Affine =
            { Angle = number "angle_degrees" case
              Shear = number "shear_x_degrees" case
              Scale = number "scale" case }

        let expected = (image "output" side case).Planes |> pixels side |> Array.map float

        let found =
            subject.Deform affine side side input.Planes |> pixels side |> Array.map float

        text "kind" case,
        [ within "inverse_matrix" 1e-6 (several "inverse_matrix" 6 case) (subject.Inverse side side affine)
          compare "output" 255.0 mostPlaces (side * side) expected found ]

    let private deformations subject (root: Part) =
        let side = int (number "size" root)
        let input = image "input" side root
        parts "case" "cases" root |> List.map (deformation subject side input)

    // ---- corruptions ----

    /// How large an image's share of values may be that are one level off, where equal ones are asked for.
    let private mostUnequal = 0.001

    let private corruptionOf (name: string) part : Corruption =
        match Corruption.all |> List.tryFind (fst >> (=) name) with
        | Some(_, corruption) -> corruption
        | None -> refuse part $"the corruption '{name}' is unknown."

    /// Its name and severity, itself, its setting.
    let private corruption subject side (case: Part) : string * Corruption * float list =
        let name = text "corruption" case
        let severity = number "severity" case
        let corruption = corruptionOf name case

        if
            severity <> floor severity
            || severity < 1.0
            || severity > float Corruption.severities
        then
            refuse case $"'severity' is {severity}; it must lie in 1 .. {Corruption.severities}."

        $"{name} {severity}, {side}x{side}", corruption, subject.Setting side corruption (int severity)

    let private exact subject side input case =
        let kind, corruption, setting = corruption subject side case
        let levels = subject.Levels corruption setting Draws.Nothing input
        let found = subject.Truncate levels
        let expected = image "output" side case

        // The program's defocus_blur rounds otherwise, which truncation makes visible.
        let most =
            if corruption = Corruption.DefocusBlur then
                found.Length
            else
                int (mostUnequal * float found.Length)

        kind,
        [ match case.Json.TryGetProperty "before_truncation" with
          | true, _ ->
              within "before_truncation" 0.002 (several "before_truncation" levels.Length case) (pixels side levels)
          | _ -> ()

          bytes most 1.0 side expected found ]

    let private pinnedDraws corruption side (case: Part) : Draws =
        let area = side * side

        match corruption with
        | Corruption.GaussianNoise -> Draws.Values(several "noise" (3 * area) case |> planes side)
        | Corruption.GlassBlur -> Draws.Neighbours(numbers "dx_dy" case |> Array.map int)
        | Corruption.MotionBlur -> Draws.Angle(number "angle" case)
        | Corruption.Snow -> Draws.Snowfall(several "field" area case, number "angle" case)
        | Corruption.Fog -> Draws.Plasma(several "uniforms" (area - 1) case)
        | Corruption.ElasticTransform ->
            Draws.Waves(several "corner_shift" 6 case, several "u" area case, several "v" area case)
        | Corruption.Frost -> Draws.Texture(image "texture_rgb" side case)
        | _ -> refuse case $"there are no pinned draws of {Corruption.name corruption}."

    let private pinned subject side input case =
        let kind, corruption, setting = corruption subject side case
        let draws = pinnedDraws corruption side case

        match draws, setting with
        | Draws.Neighbours drawn, [ _; distance; passes ] ->
            let lines = side - 2 * int distance

            if
                drawn.Length <> 2 * int passes * lines * lines
                || drawn |> Array.exists (fun by -> abs by > int distance)
            then
                refuse case $"'dx_dy' must be {2 * int passes * lines * lines} numbers within {distance}."
        | _ -> ()

        let found = subject.Levels corruption setting draws input |> subject.Truncate
        $"pinned {kind}", [ bytes found.Length 1.0 side (image "output" side case) found ]

    /// Mean, deviation, change, roughness and spread of an image's levels, by the names in the file.
    let private statistics (side: int) (input: Pixels) (output: byte[]) : (string * float) list =
        let area = side * side
        let values = output |> Array.map float
        let mean = Array.average values

        let neighbours (isInside: int -> bool) (step: int) =
            [| for i in 0 .. values.Length - 1 do
                   if isInside (i % area) then
                       abs (values[i + step] - values[i]) |]
            |> Array.average

        [ "mean", mean
          "std", sqrt (values |> Array.averageBy (fun value -> (value - mean) * (value - mean)))
          "mean_abs_change",
          Array.map2 (fun value (level: byte) -> abs (value - float level)) values input.Planes
          |> Array.average
          "roughness",
          (neighbours (fun place -> place < area - side) side
           + neighbours (fun place -> place % side < side - 1) 1)
          / 2.0
          "channel_spread",
          Array.init area (fun place ->
              let r, g, b = values[place], values[area + place], values[2 * area + place]
              max r (max g b) - min r (min g b))
          |> Array.average ]

    /// What a substitute texture may be off beside the published ones.
    let private substituteMargin = 1.5

    let private random subject side (input: Pixels) (key: Key) (case: Part) =
        let kind, corruption, setting = corruption subject side case

        let found =
            Array.Parallel.init repetitions (fun i ->
                let draws = subject.Draw Substitute corruption setting (Key.child i key) input

                subject.Levels corruption setting draws input
                |> subject.Truncate
                |> statistics side input)

        let margin =
            if corruption = Corruption.Frost then
                substituteMargin
            else
                0.0

        $"random {kind}",
        [ for i, name in List.indexed [ "mean"; "std"; "mean_abs_change"; "roughness"; "channel_spread" ] do
              let part =
                  { Where = $"{case.Where}, {name}"
                    Json = field name case }

              let average = found |> Array.averageBy (fun list -> snd list[i])
              within name (number "tolerance_40" part + margin) [| number "average" part |] [| average |] ]

    let private sections = [ "tiny_imagenet_c"; "cifar10_c" ]

    let private inSection name (root: Part) : Part =
        { Where = $"{root.Where}, {name}"
          Json = field name root }

    let private corruptions subject (root: Part) =
        [ for place, name in List.indexed sections do
              let section = inSection name root
              let side = int (number "size" section)

              if not (List.contains side Corruption.sides) then
                  refuse section $"'size' is {side}; it must be 32 or 64."

              let input = image "input" side section
              let key = Key.ofSeed 0 |> Key.child place

              for case in parts "deterministic" "deterministic" section do
                  exact subject side input case

              for i, case in List.indexed (parts "random" "random" section) do
                  random subject side input (Key.child i key) case

              match section.Json.TryGetProperty "pinned" with
              | true, _ ->
                  for case in parts "pinned" "pinned" section do
                      pinned subject side input case
              | _ -> ()

              let settings = root |> inSection "parameters" |> inSection name

              for name, corruption in Corruption.all do
                  let ours =
                      [| for severity in 1 .. Corruption.severities do
                             yield! subject.Setting side corruption severity |]

                  $"setting {name}, {side}x{side}",
                  [ within "parameters" 1e-9 (several name ours.Length settings) ours ]

              let textures =
                  parts "frost texture" "frost_textures" root
                  |> List.filter (fun texture -> number "size" texture = float side)

              let known = CorruptionWeather.statistics side

              if textures.Length <> known.Length then
                  refuse root $"'frost_textures' must have {known.Length} of the size {side}."

              for texture, known in Seq.zip textures known do
                  let wanted name part numbers =
                      within
                          name
                          1e-9
                          (several name part texture |> Array.truncate (List.length numbers))
                          (Array.ofList numbers)

                  $"frost texture, {side}x{side}",
                  [ wanted "mean_rgb" 3 known.Means
                    wanted "std_rgb" 3 known.Deviations
                    wanted "crop_mean_sd" 1 [ known.Spread ]
                    wanted "autocorrelation_lag_1_2_4_8" 4 [ known.Correlation ] ] ]

    let private has (name: string) (root: JsonElement) =
        root.ValueKind = JsonValueKind.Object && fst (root.TryGetProperty name)

    /// Is this the content of a golden file of deformed or of corrupted images?
    let isIt (root: JsonElement) : bool =
        sections |> List.exists (fun section -> has section root)
        || (has "input" root && has "cases" root)

    /// How each case of such a file compares with the subject: its name and its fields. A UserError names the file, the case and the field that
    /// cannot be read.
    let compareWith (subject: ImageSubject) (path: string) (root: JsonElement) : (string * ImageComparison list) list =
        let root' = { Where = path; Json = root }

        if has "cases" root then
            deformations subject root'
        else
            corruptions subject root'

    /// How such a file compares with this program.
    let verify (path: string) (root: JsonElement) : Verification =
        let cases = compareWith library path root

        let agrees (_, fields) =
            fields |> List.forall _.Disagreement.IsNone

        { Cases = cases.Length
          Agreeing = cases |> List.filter agrees |> List.length
          LargestDeviation = cases |> List.collect snd |> List.map _.Deviation |> List.max
          Disagreements =
            [ for i, (kind, fields) in List.indexed cases do
                  for field in fields do
                      match field.Disagreement with
                      | Some(index, expected, found) ->
                          { Case = i + 1
                            Kind = kind
                            Field = field.Field
                            Index = index
                            Expected = expected
                            Found = found }
                      | None -> () ] }
