namespace PatchUp.Repro

open PatchUp.Functional
open System
open System.Globalization
open System.IO
open System.Text.Json.Nodes

/// What one suite found of one checkpoint: equal in all but `Result`, two evaluations are equal in that too.
type Evaluation =
    {
        /// Raised whenever a change of the program changes results.
        Recipe: int
        Suite: string
        /// The weights file's name, without its folder.
        Weights: string
        /// Of the weights file, in hexadecimal.
        Sha256: string
        /// The network's name.
        Model: string
        /// What was said of weights that another program wrote; null of the program's own.
        Foreign: ForeignWeights option
        /// The method it was trained with; null where the weights do not say.
        Method: string option
        /// The configuration of its run; null where its record does not lie beside it.
        Config: Config option
        Data: string
        /// The data set's SHA-256.
        Fingerprint: string
        /// How many test images.
        Images: int
        /// Which of the data set's these are: the SHA-256 of their numbers.
        Selection: string
        Seed: int
        /// Of the native library; results depend on it in their last bits.
        Threads: int
        /// cpu or cuda.
        Device: string
        /// What was found; each suite has its own kind.
        Result: JsonNode
    }

/// The clean suite's numbers.
type CleanResult =
    {
        Images: int
        /// Wrong predictions in percent, with Wilson's interval.
        Error: Estimate
        /// Labels that are not among the five likeliest classes, in percent, with Wilson's interval; null for five classes and fewer.
        TopFiveError: Estimate option
        /// In nats, with a bootstrap interval.
        Nll: Estimate
    }

/// The corrupted suite's numbers.
type CorruptedResult =
    {
        Errors: CorruptedErrors
        /// Of the folder of frost textures; null where they are generated, or the images were read.
        Frost: string option
        /// The baseline's weights file; null where none is named.
        Baseline: string option
        /// Of that file.
        BaselineSha256: string option
        /// Beside the baseline's; null where none is named.
        Relative: MeanCorruptionError option
    }

/// The suites, and the records that they leave.
[<RequireQualifiedAccess>]
module Evaluation =

    let private number (digits: int) (value: float) =
        value.ToString($"F{digits}", CultureInfo.InvariantCulture)

    let private estimate digits (estimate: Estimate) =
        $"{number digits estimate.Value} [{number digits estimate.Low}, {number digits estimate.High}]"

    /// The answers' own faults and the others'.
    let private withAnswers (answers: Answer[]) (faults: string list) =
        (answers |> Seq.choose Answer.fault |> Seq.truncate 1 |> List.ofSeq) @ faults

    // ---- clean ----

    /// Errors and likelihood of answers among so many classes; the bootstrap draws with the key.
    let clean (key: Key) (classes: int) (answers: Answer[]) : CleanResult =
        { Images = answers.Length
          Error = answers |> Answer.percent (fun answer -> not answer.IsRight)
          TopFiveError =
            if classes > 5 then
                answers |> Answer.percent (fun answer -> not answer.IsTopFive) |> Some
            else
                None
          Nll = answers |> Answer.mean key _.Nll }

    /// Why the numbers cannot be those of the answers; empty where they can.
    let cleanFaults (answers: Answer[]) (result: CleanResult) : string list =
        let count = float answers.Length
        let wrong = answers |> Array.filter (fun answer -> not answer.IsRight)
        let estimates = result.Error :: result.Nll :: Option.toList result.TopFiveError

        [ if result.Images <> answers.Length then
              $"{result.Images} images where there are {answers.Length}"
          if abs (result.Error.Value * count / 100.0 - float wrong.Length) > 1e-6 then
              $"an error of {result.Error.Value} %% where {wrong.Length} of {answers.Length} are wrong"
          match result.TopFiveError with
          | Some topFive when topFive.Value > result.Error.Value ->
              $"a top-5 error of {topFive.Value} %% above the error of {result.Error.Value} %%"
          | _ -> ()
          for each in estimates do
              if not (each.Low <= each.Value && each.Value <= each.High) then
                  $"an interval {each.Low} .. {each.High} without its number {each.Value}" ]
        |> withAnswers answers

    let private runClean (settings: SuiteSettings) (candidate: Candidate) : Findings =
        let answers = Candidate.answers candidate candidate.Test
        let result = clean settings.Key candidate.Classes.Length answers

        { Result = lazy (Json.node result)
          Line =
            [ "error, %", estimate 2 result.Error
              match result.TopFiveError with
              | Some topFive -> "top-5 error, %", estimate 2 topFive
              | None -> ()
              "NLL", estimate 3 result.Nll ]
          Text = ""
          Pictures = []
          Faults = cleanFaults answers result }

    // ---- attacks ----

    let private runAttacks (settings: SuiteSettings) (candidate: Candidate) : Findings =
        // Hours of attacks on a network without finite answers would be lost.
        Candidate.answers candidate candidate.Test |> ignore

        let report =
            AttackSuite.measureBy
                Attacks.perturb
                { settings.Attacks with
                    Batch = min settings.Attacks.Batch (Candidate.batch candidate) }
                settings.Key
                settings.Report
                { Logits = Candidate.logits candidate
                  Images = fun places -> (ImageSet.plain candidate.Test places).``to``(Model.device candidate.Model)
                  Labels = ImageSet.labels candidate.Test
                  Std = Candidate.std candidate }

        let error (accuracy: ImageShare) = number 1 (100.0 - accuracy.Percent)

        { Result = lazy (Json.node report)
          Line =
            [ "untouched", error report.Clean
              for result in report.Results do
                  match result.Robust with
                  // FGSM has a curve, which is in the table below.
                  | [ robust ] when result.Attack <> "fgsm" ->
                      $"{result.Attack} {number 3 robust.Epsilon}", error robust.Accuracy
                  | [ _ ] -> ()
                  | _ ->
                      $"{result.Attack}, L2", result.MedianDistance |> Option.map (number 3) |> Option.defaultValue "-" ]
          Text =
            [ $"The preset {report.Preset}; eps in pixel units, and in normalised ones."
              AttackSuite.table report ||> Tables.aligned
              for flag in report.Masking.Flags do
                  $"Gradients may be masked: {flag}."
              for check in report.Unchecked do
                  $"Not checked: {check}." ]
            |> String.concat "\n\n"
          Pictures = []
          Faults = report.Faults }

    // ---- deformed and corrupted ----

    let private lines (parts: string list) : string = String.concat "\n\n" parts

    let private runDeformed (settings: SuiteSettings) (candidate: Candidate) : Findings =
        let errors =
            DeformedSuite.run (Candidate.classify candidate) candidate.Test settings.Key

        { Result = lazy (Json.node errors)
          Line =
            ("untouched", number 1 errors.CleanError)
            :: [ for deformed in errors.Deformations -> deformed.Deformation, number 1 deformed.Error ]
          Text = lines errors.Notes
          Pictures = []
          Faults = [] }

    /// Of the textures that were laid over images, where these come from a folder.
    let private frostOf (settings: SuiteSettings) : string option =
        if settings.Corrupted.IsSome then
            None
        else
            settings.FrostFingerprint

    let private runCorrupted (settings: SuiteSettings) (candidate: Candidate) : Findings =
        let classify = Candidate.classify candidate

        let errors =
            match settings.Corrupted with
            | Some path ->
                CorruptedSuite.read
                    settings.Report
                    classify
                    (Array.ofList candidate.Classes)
                    (ImageSet.size candidate.Test)
                    settings.Images
                    path
            | None -> CorruptedSuite.run settings.Report settings.Frost classify candidate.Test settings.Key

        let relative =
            settings.Baseline
            |> Option.map (fun baseline -> CorruptedSuite.relative baseline.Errors errors)

        let severities =
            errors.Corruptions |> List.collect _.Severities |> List.distinct |> List.sort

        let row (corruption: CorruptionError) =
            let at severity =
                List.zip corruption.Severities corruption.Errors
                |> List.tryFind (fst >> (=) severity)
                |> Option.map (snd >> number 1)
                |> Option.defaultValue "-"

            corruption.Corruption :: List.map at severities @ [ number 1 corruption.Sum ]

        { Result =
            lazy
                (Json.node
                    { Errors = errors
                      Frost = frostOf settings
                      Baseline = settings.Baseline |> Option.map _.Weights
                      BaselineSha256 = settings.Baseline |> Option.map _.Sha256
                      Relative = relative })
          Line =
            [ match errors.CleanError with
              | Some error -> "untouched", number 1 error
              | None -> ()
              "mean error", number 1 errors.MeanError
              match relative with
              | Some relative -> "mCE", number 1 relative.Mce
              | None -> () ]
          Text =
            (errors.Corruptions |> List.map row)
            |> Tables.aligned (
                $"{errors.Source}, {errors.Images} images each"
                :: [ for severity in severities -> $"severity {severity}" ]
                @ [ "sum" ]
            )
            |> fun table -> lines (table :: errors.Notes)
          Pictures = []
          Faults = [] }

    /// The network of a corrupted suite's record, to which others are relative. A UserError for any other file.
    let baseline (path: string) : Baseline =
        let evaluation =
            Errors.reading path (fun () -> File.ReadAllText path)
            |> Json.tryRead<Evaluation>

        let result =
            match evaluation with
            | Some evaluation when not (isNull (box evaluation) || isNull evaluation.Result) ->
                Json.tryRead<CorruptedResult>(evaluation.Result.ToJsonString())
            | _ -> None

        match evaluation, result with
        | Some evaluation, Some result when not (isNull (box result) || isNull (box result.Errors)) ->
            for each in result.Errors.Corruptions do
                if each.Sum <= 0.0 then
                    Errors.user $"{path}: it makes no error on {each.Corruption}; choose another baseline."

            { Weights = evaluation.Weights
              Sha256 = evaluation.Sha256
              Data = evaluation.Data
              Fingerprint = evaluation.Fingerprint
              Selection = evaluation.Selection
              Seed = evaluation.Seed
              Frost = result.Frost
              Errors = result.Errors }
        | _ ->
            Errors.user
                $"{path}: no record of the suite 'corrupted'; name one that 'patchup evaluate --suite corrupted' wrote."

    /// Refuses, before anything is computed, a baseline on other images than the candidate's, and published corrupted images that are not for it.
    let check (settings: SuiteSettings) (candidate: Candidate) : unit =
        let published =
            settings.Corrupted
            |> Option.map (CorruptedSuite.look (Array.ofList candidate.Classes) (ImageSet.size candidate.Test))

        match settings.Baseline, published with
        | Some baseline, Some(name, parts) ->
            let own =
                [ for each in baseline.Errors.Corruptions do
                      for severity in each.Severities -> each.Corruption, severity ]

            if baseline.Errors.Source <> name || set own <> set parts then
                Errors.user
                    $"the baseline {baseline.Weights} is of other images ({baseline.Errors.Source}) than {name}; evaluate both on the same ones."
        | Some baseline, None ->
            let other what own theirs =
                Errors.user
                    $"the baseline {baseline.Weights} was evaluated with {what} {theirs}, and {candidate.Path} is with {own}; evaluate both alike."

            let frost (source: string option) =
                source |> Option.defaultValue "that are generated"

            if baseline.Fingerprint <> candidate.Fingerprint then
                other "the data set" candidate.Data baseline.Data

            if baseline.Errors.Source <> "generated" then
                other "the corruptions of" "its own test images" baseline.Errors.Source

            if baseline.Errors.Images <> ImageSet.count candidate.Test then
                other "images" (string (ImageSet.count candidate.Test)) (string baseline.Errors.Images)

            if baseline.Selection <> ImageSet.selection candidate.Test then
                other "images" "others of as many" "some"

            if baseline.Seed <> settings.Seed then
                other "the seed" (string settings.Seed) (string baseline.Seed)

            if baseline.Frost <> frostOf settings then
                other "frost textures" (frost (frostOf settings)) (frost baseline.Frost)
        | _ -> ()

    // ---- calibration ----

    let private title (candidate: Candidate) : string =
        Path.GetFileNameWithoutExtension candidate.Path

    let private runCalibration (_: SuiteSettings) (candidate: Candidate) : Findings =
        let answers = Candidate.answers candidate candidate.Test
        let result = CalibrationResult.ofAnswers answers

        { Result = lazy (Json.node result)
          Line =
            [ "ECE", number 4 result.EqualWidth.Ece
              "ECE, equal bins", number 4 result.EqualMass.Ece
              "Brier", number 4 result.Brier
              "NLL", number 3 result.Nll
              "accuracy", number 3 result.Accuracy
              "confidence", number 3 result.Confidence ]
          Text = ""
          Pictures = [ "reliability", Charts.reliability (title candidate) result ]
          Faults = CalibrationResult.faults answers result }

    // ---- activations ----

    let private runActivations (_: SuiteSettings) (candidate: Candidate) : Findings =
        let sites = Activations.measure candidate

        { Result = lazy (Json.node sites)
          Line =
            sites
            |> List.map (fun site -> $"{site.Site} ({site.Features})", number 4 site.MeanMagnitude)
          Text = ""
          Pictures = []
          Faults = Activations.faults (ImageSet.count candidate.Test) sites }

    // ---- geometry ----

    let private runGeometry (settings: SuiteSettings) (candidate: Candidate) : Findings =
        let result = Geometry.measure settings.Key candidate
        // What rounds to nothing has no sign.
        let shown value =
            number 4 (if abs value < 5e-5 then 0.0 else value)

        { Result = lazy (Json.node result)
          Line = result.Methods |> List.map (fun found -> found.Method, shown found.Slack.Median)
          Text =
            result.Methods
            |> List.map (fun found ->
                let slack = found.Slack

                found.Method
                :: (List.map shown [ slack.Least; slack.Lower; slack.Median; slack.Upper; slack.Most ])
                @ [ found.Notation ])
            |> Tables.aligned
                [ $"slack at {result.Site} ({result.Features}) of {title candidate}"
                  "least"
                  "quartile"
                  "median"
                  "quartile"
                  "most"
                  "notation" ]
          Pictures = [ "slacks", Charts.slacks (title candidate) result ]
          Faults = Geometry.faults result }

    // ---- all of them ----

    let private always _ _ = None

    let private refuseCorrupted (settings: SuiteSettings) (candidate: Candidate) =
        match ImageSet.size candidate.Test with
        | _ when settings.Corrupted.IsSome -> None
        | height, width when height = width && List.contains height Corruption.sides -> None
        | height, width ->
            Some $"the images have {width} x {height} pixels; the corruptions are published for 32 x 32 and 64 x 64."

    let private refuseGeometry (_: SuiteSettings) (candidate: Candidate) =
        if ImageSet.count candidate.Test < 2 then
            Some "two images at least are needed, of which one is mixed with the other."
        else
            None

    /// Every suite, in the order in which they are run.
    let suites: Suite list =
        [ { Name = "clean"
            Child = 0
            About = "test error, top-5 error and NLL with 95 % intervals"
            Refusal = always
            Run = runClean }
          { Name = "attacks"
            Child = 1
            About = "error in percent, untouched and at an eps of L-infinity; median distance that fools, in L2"
            Refusal = always
            Run = runAttacks }
          { Name = "deformed"
            Child = 2
            About = "error in percent on images that are turned, sheared and scaled"
            Refusal = always
            Run = runDeformed }
          { Name = "corrupted"
            Child = 3
            About = "error in percent on images corrupted in fifteen ways"
            Refusal = refuseCorrupted
            Run = runCorrupted }
          { Name = "calibration"
            Child = 4
            About = "calibration error, Brier score and NLL"
            Refusal = always
            Run = runCalibration }
          { Name = "activations"
            Child = 5
            About = "mean magnitude of the activations at the end of each stage"
            Refusal = always
            Run = runActivations }
          { Name = "geometry"
            Child = 6
            About = "median slack of the angles between hidden pairs and their mix, in radians"
            Refusal = refuseGeometry
            Run = runGeometry } ]

    /// The suites of a name, of which `all` is that of all; a UserError for any other name.
    let find (name: string) : Suite list =
        let names = "all" :: (suites |> List.map _.Name)

        match name, suites |> List.tryFind (fun suite -> suite.Name = name) with
        | "all", _ -> suites
        | _, Some suite -> [ suite ]
        | _ ->
            let hint =
                Notation.nearest names name
                |> Option.map (fun near -> $" (did you mean {near}?)")
                |> Option.defaultValue ""

            let known = String.concat ", " names
            Errors.user $"suite '{name}'{hint}: the suites are {known}."

    /// Raised whenever a change of the program changes results.
    let private recipe = 1

    /// The record of what a suite found.
    let record (seed: int) (threads: int) (device: string) (candidate: Candidate) (suite: Suite) (found: Findings) =
        { Recipe = recipe
          Suite = suite.Name
          Weights = Path.GetFileName candidate.Path
          Sha256 = candidate.Sha256
          Model = candidate.Model.Name
          Foreign = candidate.Foreign
          Method = candidate.Method
          Config = candidate.Record |> Option.map _.Config
          Data = candidate.Data
          Fingerprint = candidate.Fingerprint
          Images = ImageSet.count candidate.Test
          Selection = ImageSet.selection candidate.Test
          Seed = seed
          Threads = threads
          Device = device
          Result = found.Result.Value }

    /// The folder for evaluations of a weights file where none is named: that of the file, or `evaluations` beside a folder `weights`.
    let folderOf (path: string) : string =
        let folder = Path.GetDirectoryName(Path.GetFullPath path)

        if Path.GetFileName folder = "weights" then
            Path.Combine(Path.GetDirectoryName folder, "evaluations")
        else
            folder

    /// Runs a suite with the child of the settings' key that is its own. RunFailed, which names it, where what it found cannot be true.
    let run (settings: SuiteSettings) (suite: Suite) (candidate: Candidate) : Findings =
        let found =
            suite.Run
                { settings with
                    Key = Key.child suite.Child settings.Key }
                candidate

        match found.Faults with
        | [] -> found
        | first :: others ->
            let more =
                if others.IsEmpty then
                    ""
                else
                    $" (and {others.Length} more)"

            raise (RunFailed $"{candidate.Path}: {suite.Name}: {first}{more}; nothing is written of it.")

    /// Writes a record and its pictures into a folder, which is made: NAME.SUITE.json and NAME.PICTURE.png. Gives their paths.
    let write (folder: string) (evaluation: Evaluation) (found: Findings) : string list =
        let name = Path.GetFileNameWithoutExtension evaluation.Weights

        let file ending =
            Path.Combine(folder, $"{name}.{ending}")

        let pictures =
            [ for picture, draw in found.Pictures do
                  let path = file (picture + ".png")
                  draw path
                  path ]

        let path = file (evaluation.Suite + ".json")
        Json.write path evaluation
        path :: pictures
