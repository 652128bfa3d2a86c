namespace PatchUp.Repro

open System
open System.Text.Json.Nodes

/// A run as `patchup sweep list` lists it.
type ListedRun =
    {
        Index: int
        /// Of its files.
        Name: string
        /// finished, running, checkpoint, failed or missing.
        State: string
        /// Of a run that failed.
        Why: string option
        Data: string
        Model: string
        Settings: string
        Method: string
        Seed: int
    }

/// What `patchup sweep status` counts.
type SweepStatus =
    { Runs: int
      Finished: int
      Running: int
      Checkpoint: int
      Failed: int
      Missing: int
      Unfinished: ListedRun list }

/// A method's results over the seeds, on one data set, model and choice of settings.
type CollectedRow =
    {
        Data: string
        Model: string
        /// What the sweep varies beside data, models, methods and seeds; empty where that is nothing.
        Settings: string
        Method: string
        Notation: string
        Loss: string
        /// How many the sweep names.
        Runs: int
        Finished: int
        /// In percent; None where no run is finished.
        TestError: Spread option
        TestNll: Spread option
        /// Of the test error, from the first method's with the same seed, in points; over the seeds that both have, and
        /// None where there is none, and for the first method.
        Difference: Interval option
        /// The files' names of the runs that are not finished.
        Missing: string list
    }

/// What a sweep has found so far.
type Collected =
    { Rows: CollectedRow list
      Runs: Record list }

[<RequireQualifiedAccess>]
module Collected =

    /// What a method brings with it, and the seed.
    let private own = [ "method"; "notation"; "loss"; "cleanLoss"; "seed" ]

    /// What runs with equal data and model differ in, beside their methods and seeds: names and values of each run, in a line.
    let settings (configs: Config list) : string list =
        let read (config: Config) =
            let parts = (Json.node config).AsObject()

            for name in own do
                parts.Remove name |> ignore

            parts

        let all = configs |> List.map (fun config -> config, read config)

        let varied =
            all
            |> List.groupBy (fun (config, _) -> config.Data, config.Fingerprint, config.Model)
            |> List.collect (fun (_, group) ->
                [ for KeyValue(name, value) in snd group.Head do
                      if
                          group
                          |> List.exists (fun (_, other) -> not (JsonNode.DeepEquals(other[name], value)))
                      then
                          name ])
            // Those of the data follow from how many images are taken.
            |> List.distinct

        [ for _, values in all ->
              varied
              |> List.map (fun name ->
                  let value = values[name]

                  let text =
                      if isNull value then
                          "null"
                      else
                          value.ToJsonString().Trim '"'

                  $"{name} {text}")
              |> String.concat ", " ]

    /// From every run of a sweep, in its order, with its record where it is finished.
    let ofRuns (runs: (Config * Record option) list) : Collected =
        let rows =
            List.zip (settings (List.map fst runs)) runs
            |> List.groupBy (fun (settings, (config, _)) -> config.Data, config.Fingerprint, config.Model, settings)
            |> List.collect (fun ((_, _, _, settings), group) ->
                let methods =
                    group |> List.map snd |> List.groupBy (fun (config, _) -> config.Method)

                let errors (runs: (Config * Record option) list) =
                    [ for config, record in runs do
                          match record with
                          | Some record -> config.Seed, record.TestError
                          | None -> () ]

                let first = errors (snd methods.Head)

                methods
                |> List.mapi (fun i (method', runs) ->
                    let config = fst runs.Head
                    let records = List.choose snd runs
                    let errors = errors runs

                    let pairs =
                        [ for seed, error in errors do
                              match first |> List.tryFind (fun (other, _) -> other = seed) with
                              | Some(_, baseline) -> baseline, error
                              | None -> () ]

                    let spread (value: Record -> float) =
                        if records.IsEmpty then
                            None
                        else
                            Some(Statistics.spread (List.map value records))

                    { Data = config.Data
                      Model = config.Model
                      Settings = settings
                      Method = method'
                      Notation = config.Notation
                      Loss = config.Loss
                      Runs = runs.Length
                      Finished = records.Length
                      TestError = spread _.TestError
                      TestNll = spread _.TestNll
                      Difference =
                        if i = 0 || pairs.IsEmpty then
                            None
                        else
                            Some(Statistics.pairedDifference (List.map fst pairs) (List.map snd pairs))
                      Missing =
                        [ for config, record in runs do
                              if record.IsNone then
                                  Records.name config ] }))

        { Rows = rows
          Runs = runs |> List.choose snd }

    /// For a terminal.
    let text (collected: Collected) : string =
        let hasSettings = collected.Rows |> List.exists (fun row -> row.Settings <> "")
        let runs = collected.Rows |> List.sumBy _.Runs

        let header =
            [ "data"
              "model"
              if hasSettings then
                  "settings"
              "method"
              "runs"
              "test error, %"
              "test NLL"
              "difference, points"
              "95 % interval" ]

        let cells (row: CollectedRow) =
            let shown digits spread =
                spread |> Option.map (Tables.spread digits) |> Option.defaultValue "missing"

            let interval (interval: Interval) =
                interval.HalfWidth
                |> Option.map (fun half ->
                    $"[{Tables.signed (interval.Centre - half)}, {Tables.signed (interval.Centre + half)}]")

            [ row.Data
              row.Model
              if hasSettings then
                  row.Settings
              row.Method
              $"{row.Finished}/{row.Runs}"
              shown 2 row.TestError
              shown 3 row.TestNll
              row.Difference
              |> Option.map (fun difference -> Tables.signed difference.Centre)
              |> Option.defaultValue "-"
              row.Difference |> Option.bind interval |> Option.defaultValue "-" ]

        String.concat
            "\n\n"
            [ Tables.aligned header (List.map cells collected.Rows)
              $"{collected.Runs.Length} of {runs} runs are finished. Differences are from the first method of the same data, model and \
                settings, paired by seed over the seeds that both have, with Student-t intervals." ]
