namespace PatchUp.Repro

open System
open System.Text.Json
open PatchUp.Functional
open TorchSharp

/// Golden files: reading their cases, and comparing numbers. What cannot be read raises a UserError that names the file, the case and the
/// field.
module internal Golden =

    // ---- reading ----

    /// One case of the file, and its place in it for messages.
    [<NoEquality; NoComparison>]
    type Case =
        { Where: string
          Number: int
          Json: JsonElement }

    /// A tensor of the file.
    type Table = { Size: int list; Data: float[] }

    let refuse (case: Case) message =
        Errors.user $"{case.Where}, case {case.Number}: {message}"

    /// A case whose properties can be read; `needed` says what it must be.
    let caseOf (path: string) (number: int) (needed: string) (json: JsonElement) : Case =
        let case =
            { Where = path
              Number = number
              Json = json }

        if json.ValueKind = JsonValueKind.Object then
            case
        else
            refuse case $"it must be an object with {needed}."

    let field (name: string) (case: Case) : JsonElement =
        match case.Json.TryGetProperty name with
        | true, value -> value
        | _ -> refuse case $"'{name}' is missing."

    let text name case : string =
        match field name case with
        | value when value.ValueKind = JsonValueKind.String ->
            try
                value.GetString()
            with :? InvalidOperationException ->
                refuse case $"'{name}' must be a text in UTF-8."
        | _ -> refuse case $"'{name}' must be a text."

    let asNumber name case (value: JsonElement) : float =
        match value.ValueKind with
        | JsonValueKind.Number when Single.IsFinite(float32 (value.GetDouble())) -> value.GetDouble()
        | JsonValueKind.Number ->
            refuse case $"'{name}' holds {value.GetDouble()}, which is no finite number in float32."
        | _ -> refuse case $"'{name}' must hold numbers only."

    let asInteger name case (value: JsonElement) : int =
        match asNumber name case value with
        | number when number = Math.Floor number && abs number <= float Int32.MaxValue -> int number
        | number -> refuse case $"'{name}' holds {number}, which is no whole number of 32 bits."

    let number name case = field name case |> asNumber name case

    let integer name case = field name case |> asInteger name case

    let items name case (value: JsonElement) : JsonElement seq =
        match value.ValueKind with
        | JsonValueKind.Array -> value.EnumerateArray()
        | _ -> refuse case $"'{name}' must be a list."

    let asFlag name case (value: JsonElement) : bool =
        match value.ValueKind with
        | JsonValueKind.True -> true
        | JsonValueKind.False -> false
        | _ -> refuse case $"'{name}' must be true or false."

    /// A property with properties of its own, which are read as the case's.
    let inner (name: string) (case: Case) : Case =
        match field name case with
        | value when value.ValueKind = JsonValueKind.Object -> { case with Json = value }
        | _ -> refuse case $"'{name}' must be an object."

    let numbers name case : float[] =
        [| for value in items name case (field name case) -> asNumber name case value |]

    let flags name case : bool[] =
        [| for value in items name case (field name case) -> asFlag name case value |]

    let integers name case : int[] =
        [| for value in items name case (field name case) -> asInteger name case value |]

    let fraction name case : float =
        match number name case with
        | value when value >= 0.0 && value <= 1.0 -> value
        | value -> refuse case $"'{name}' is {value}; it must lie in [0, 1]."

    let table name case : Table =
        let value = field name case

        let part (key: string) =
            match value.ValueKind with
            | JsonValueKind.Object ->
                match value.TryGetProperty key with
                | true, part -> items name case part
                | _ -> refuse case $"'{name}' has no '{key}'."
            | _ -> refuse case $"'{name}' must be a tensor: a shape and data."

        let size = [ for side in part "shape" -> asInteger name case side ]
        let data = [| for value in part "data" -> asNumber name case value |]

        if
            List.exists (fun side -> side < 1) size
            || List.fold (fun n (side: int) -> n * bigint side) 1I size <> bigint data.Length
        then
            let shown = size |> List.map string |> String.concat ","
            refuse case $"'{name}' has the shape [{shown}] and {data.Length} numbers."

        { Size = size; Data = data }

    let tensor (table: Table) : torch.Tensor =
        torch.tensor (Array.map float32 table.Data, ReadOnlySpan [| for side in table.Size -> int64 side |])

    // ---- comparing ----

    /// |found - expected| / max(1, |expected|); infinite where one of the two is not a number.
    let deviation (expected: float) (found: float) : float =
        let gap = abs (found - expected) / max 1.0 (abs expected)
        if Double.IsNaN gap then infinity else gap

    /// The largest deviation of a field's numbers, and the disagreement if it is more than the tolerance.
    let compare tolerance (case: Case) kind name (expected: float[]) (found: float[]) : float * Disagreement option =
        if expected.Length <> found.Length then
            refuse case $"'{name}' has {expected.Length} numbers where {found.Length} are to be compared."

        let worst, index =
            Array.map2 deviation expected found
            |> Array.mapi (fun i gap -> gap, i)
            |> Array.fold max (0.0, 0)

        worst,
        if worst <= tolerance then
            None
        else
            Some
                { Case = case.Number
                  Kind = kind
                  Field = name
                  Index = index
                  Expected = expected[index]
                  Found = found[index] }

    /// What came of the comparisons of each case, of which there is at least one.
    let verification (verdicts: (float * Disagreement option) list list) : Verification =
        { Cases = verdicts.Length
          Agreeing = verdicts |> List.filter (List.forall (snd >> Option.isNone)) |> List.length
          LargestDeviation = verdicts |> List.concat |> List.map fst |> List.max
          Disagreements = verdicts |> List.concat |> List.choose snd }
