namespace PatchUp.Repro

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Runtime.ExceptionServices
open System.Text.Json.Nodes
open System.Threading
open System.Threading.Tasks
open Argu
open PatchUp.Functional
open PatchUp.Functional.Laws
open TorchSharp

/// A method as `patchup methods` lists it.
type Listed =
    {
        Name: string
        Notation: string
        Loss: string
        /// The weight of the cross-entropy on the images as they are, which is added.
        CleanLoss: float
        Paper: string
    }

/// A site as `patchup models` lists it.
type ListedSite =
    {
        Number: int
        Name: string
        /// Channels, height, width; the logits' is their number alone.
        Shape: int list
    }

/// A model as `patchup models` lists it.
type ListedModel =
    {
        Name: string
        Paper: string
        Parameters: int64
        Classes: int
        /// Null where the name says how wide it is.
        Width: int option
        /// The side of the images.
        Size: int
        Sites: ListedSite list
    }

/// A class and its probability.
type Guess = { Class: string; Probability: float }

/// What a network makes of an image: the classes it finds likeliest.
type Prediction = { Image: string; Classes: Guess list }

/// A law's verdict as `patchup laws --json` prints it.
type JudgedLaw =
    {
        About: string
        Name: string
        Statement: string
        Verdict: string
        /// Those of which the law speaks; null where it is broken.
        Cases: int option
        FalseAlarm: float
        /// Null where the law is kept.
        Counterexample: JudgedCase option
    }

/// A case that breaks a law.
and JudgedCase =
    { Why: string
      Program: string option
      Key: string option
      Case: string }

/// What `patchup laws --json` prints.
type Judged =
    { Of: string
      Laws: JudgedLaw list
      FalseAlarm: float }

[<RequireQualifiedAccess>]
module Judged =

    let private law (options: CheckOptions) (law: Law) (outcome: Outcome) : JudgedLaw =
        let verdict, cases, counterexample =
            match outcome with
            | Outcome.Passed(_, 0) -> "silent", Some 0, None
            | Outcome.Passed(_, applicable) -> "kept", Some applicable, None
            | Outcome.Failed case ->
                "broken",
                None,
                Some
                    { Why = case.Reason
                      Program = case.Program
                      Key = case.Key |> Option.map (fun key -> string key.State)
                      Case = case.Case }

        { About = law.About
          Name = law.Name
          Statement = law.Statement
          Verdict = verdict
          Cases = cases
          FalseAlarm = Law.falseAlarm options law
          Counterexample = counterexample }

    let ofReport (report: Report) : Judged =
        { Of = report.Of
          Laws =
            report.Outcomes
            |> List.map (fun (each, outcome) -> law report.Options each outcome)
          FalseAlarm = report.FalseAlarm }

/// What each verb of the program does. They raise UserError and RunFailed.
[<RequireQualifiedAccess>]
module Verbs =

    let private methods (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<MethodsArguments> "methods" argv

        let listed =
            Catalogue.all
            |> List.map (fun method' ->
                { Name = method'.Name
                  Notation = Notation.show method'.Regularizer
                  Loss = Config.lossName method'.Loss
                  CleanLoss = method'.CleanLoss
                  Paper = method'.Paper })

        if results.Contains MethodsArguments.Json then
            streams.Out.WriteLine(Json.show listed)
        else
            listed
            |> List.map (fun method' ->
                [ method'.Name
                  Describe.losses method'.Loss method'.CleanLoss
                  method'.Paper
                  method'.Notation ])
            |> Tables.aligned [ "method"; "loss"; "paper"; "notation" ]
            |> streams.Out.WriteLine

    let private listModel (results: ParseResults<ModelsArguments>) (architecture: Architecture) : ListedModel =
        let size = results.GetResult(ModelsArguments.Size, architecture.Size)

        if size < 1 || size > 4096 then
            Errors.user $"size {size}: it must lie in 1 .. 4096."

        let settings =
            { architecture.Standard with
                Width = results.TryGetResult ModelsArguments.Width
                Classes = results.GetResult(ModelsArguments.Classes, architecture.Standard.Classes)
                Stride = Architectures.stride architecture.Name size }

        let outline = Architectures.outline architecture.Name settings

        try
            { Name = architecture.Name
              Paper = architecture.Paper
              Parameters = Model.parameterCount outline
              Classes = settings.Classes
              Width = settings.Width |> Option.orElse architecture.Width
              Size = size
              Sites =
                Architectures.sites architecture.Name settings size size
                |> List.mapi (fun number (name, shape) ->
                    { Number = number
                      Name = name
                      Shape =
                        if name = architecture.Last then
                            [ shape.Channels ]
                        else
                            [ shape.Channels; shape.Height; shape.Width ] }) }
        finally
            Model.dispose outline

    let private models (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<ModelsArguments> "models" argv
        let isJson = results.Contains ModelsArguments.Json
        let shape (site: ListedSite) = String.Join("x", site.Shape)

        match results.TryGetResult ModelsArguments.Name with
        | Some name ->
            let listed = listModel results (Architectures.find name)

            if isJson then
                streams.Out.WriteLine(Json.show listed)
            else
                streams.Out.WriteLine
                    $"{listed.Name} ({listed.Paper}): {Tables.count listed.Parameters} parameters at {listed.Classes} \
                      classes\n"

                listed.Sites
                |> List.map (fun site -> [ string site.Number; site.Name; shape site ])
                |> Tables.aligned [ "site"; "name"; $"features of a {listed.Size}x{listed.Size} image" ]
                |> streams.Out.WriteLine
        | None ->
            if results.Contains ModelsArguments.Width then
                Errors.user "models: a width belongs to one model; name it."

            let listed = Architectures.all |> List.map (listModel results)

            if isJson then
                streams.Out.WriteLine(Json.show listed)
            else
                listed
                |> List.map (fun listed ->
                    [ listed.Name
                      Tables.count listed.Parameters
                      string listed.Classes
                      listed.Paper
                      listed.Sites
                      |> List.map (fun site -> $"{site.Number} {site.Name} {shape site}")
                      |> String.concat ", " ])
                |> Tables.aligned [ "model"; "parameters"; "classes"; "paper"; "sites with their features" ]
                |> streams.Out.WriteLine

                streams.Out.WriteLine $"\nAlso {Architectures.others}."

    let private describe (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<DescribeArguments> "describe" argv

        let description =
            results.GetResult DescribeArguments.Method
            |> Arguments.method'
            |> Describe.method'

        let show =
            if results.Contains DescribeArguments.Json then
                Json.show
            else
                Describe.text

        streams.Out.WriteLine(show description)

    // ---- laws ----

    let private largest = bigint (1 <<< 20)

    /// Of a map: its places are compared one by one, in many draws.
    let private largestMap = bigint 4096

    let private shape (text: string) : Shape =
        match text.Split 'x' |> Array.map Int32.TryParse with
        | [| (true, channels); (true, height); (true, width) |] when
            List.min [ channels; height; width ] > 0
            && bigint height * bigint width <= largestMap
            && bigint channels * bigint height * bigint width <= largest
            ->
            { Channels = channels
              Height = height
              Width = width }
        | _ ->
            Errors.user
                $"shape '{text}': it must be channels x height x width such as 64x16x16, of at most {largestMap} \
                  places and {largest} features."

    let private precision (text: string) : Precision =
        match LawsArguments.Types |> List.tryFind (fst >> (=) text) with
        | Some(_, precision) -> precision
        | None ->
            let names = LawsArguments.Types |> List.map fst |> String.concat ", "
            Errors.user $"type '{text}': it must be one of {names}."

    let private lawOptions (results: ParseResults<LawsArguments>) (standard: CheckOptions) : CheckOptions =
        let effort = results.GetResult(Effort, standard.Effort)

        if not (effort > 0.0 && effort <= 100.0) then
            Errors.user $"effort {effort}: it must be positive and at most 100."

        { standard with
            Effort = effort
            Seeds =
                match results.GetResults LawsArguments.Seed with
                | [] -> standard.Seeds
                | seeds -> List.map uint64 seeds
            Shapes = results.GetResults LawsArguments.Shape |> List.map shape
            Precisions = results.GetResults LawsArguments.Type |> List.map precision }

    let private laws (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<LawsArguments> "laws" argv
        let isJson = results.Contains LawsArguments.Json

        let options standard =
            let options = lawOptions results standard

            if isJson then
                options
            else
                { options with
                    Progress = fun law outcome -> streams.Out.WriteLine(Law.show options law outcome) }

        let report =
            match results.TryGetResult LawsArguments.Method with
            | None -> Laws.checkLibrary (options Law.defaults)
            | Some text ->
                let method' = Arguments.method' text
                let options = options Laws.defaults
                let ofRegularizer = Laws.checkWith options method'.Regularizer
                let ofLoss = Laws.checkLossWith options method'.Loss

                { ofRegularizer with
                    Outcomes = ofRegularizer.Outcomes @ ofLoss.Outcomes }

        streams.Out.WriteLine(
            if isJson then
                Json.show (Judged.ofReport report)
            else
                report.Summary
        )

        if not report.Broken.IsEmpty then
            let names =
                report.Broken |> List.map (fun law -> $"\"{law.Name}\"") |> String.concat ", "

            raise (RunFailed $"laws: {report.Of} breaks {report.Broken.Length} of them: {names}.")

    let private verify (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<VerifyArguments> "verify" argv
        let path = results.GetResult VerifyArguments.File
        let verification = Verify.file path

        streams.Out.WriteLine(
            if results.Contains VerifyArguments.Json then
                Json.show verification
            else
                Verify.show verification
        )

        if verification.Agreeing < verification.Cases then
            raise (
                RunFailed
                    $"verify: {verification.Cases - verification.Agreeing} of {verification.Cases} cases of {path} do not agree."
            )

    let private draw (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<DrawArguments> "draw" argv
        let method' = results.GetResult DrawArguments.Method |> Arguments.method'
        let paths = results.GetResult DrawArguments.Images
        let size = results.GetResult(DrawArguments.Size, 32)
        let out = results.GetResult DrawArguments.Out

        if paths.Length < 2 || paths.Length > 8 then
            Errors.user $"draw: {paths.Length} images were given; two to eight are mixed with one another."

        if size < 8 || size > 512 then
            Errors.user $"size {size}: it must lie in 8 .. 512."

        let images =
            paths
            |> List.map (fun path -> Path.GetFileName path, Images.resize size size (Images.read path))

        Picture.drawn out method' (results.GetResult(DrawArguments.Seed, 0)) images
        streams.Out.WriteLine $"{out}: {method'.Name} on {paths.Length} images"

    /// What a command line says of another program's weights; None where it names no model, and then it may say nothing of them.
    let private foreign
        (verb: string)
        (model: string option)
        (size: int option)
        (mean: (float * float * float) option)
        (std: (float * float * float) option)
        (names: string option)
        : ForeignWeights option =
        let channels option least most (red, green, blue) =
            for value in [ red; green; blue ] do
                if not (value >= least && value <= most) then
                    Errors.user
                        $"{verb}: {option} {value}: it must lie in {least} .. {most}, as the numbers are on the scale of [0,1]; divide those of 0 .. 255 by 255."

            [ red; green; blue ]

        match model with
        | Some name ->
            Some
                { Model = name
                  Size = size
                  Mean = mean |> Option.map (channels "--mean" 0.0 1.0)
                  Std = std |> Option.map (channels "--std" 0.0 10.0)
                  ClassNames = names }
        | None ->
            let given =
                [ "--size", size.IsSome
                  "--mean", mean.IsSome
                  "--std", std.IsSome
                  "--class-names", names.IsSome ]

            match given |> List.tryFind snd with
            | Some(option, _) ->
                Errors.user $"{verb}: {option} is for another program's weights; name their model with --model."
            | None -> None

    let private classifier (results: ParseResults<PredictArguments>) (weights: string) : Classifier =
        foreign
            "predict"
            (results.TryGetResult PredictArguments.Model)
            (results.TryGetResult PredictArguments.Size)
            (results.TryGetResult PredictArguments.Mean)
            (results.TryGetResult PredictArguments.Std)
            (results.TryGetResult PredictArguments.Class_Names)
        |> Option.map (Checkpoint.readForeign weights)
        |> Option.defaultWith (fun () -> Checkpoint.classifier weights)

    let private predict (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<PredictArguments> "predict" argv

        match results.GetResult PredictArguments.Files with
        | weights :: (_ :: _ as images) ->
            let device =
                Device.choose (results.GetResult(PredictArguments.Device, Device.names.Head))

            let classifier = classifier results weights
            let model = classifier.Model

            let predict (path: string) =
                let pixels =
                    Images.read path |> Images.resize classifier.ImageHeight classifier.ImageWidth

                let probabilities =
                    Scope.value (fun () ->
                        use _ = torch.no_grad ()

                        let image = (Images.toTensor pixels).``to``(Model.device model).unsqueeze 0L
                        let logits = image |> model.Normalise |> Model.call model
                        torch.nn.functional.softmax(logits, 1L).cpu().data<float32>().ToArray())

                if not (Array.forall Single.IsFinite probabilities) then
                    raise (RunFailed $"{weights}: what the network gives for {path} is not finite.")

                { Image = path
                  Classes =
                    List.zip classifier.Classes (List.ofArray probabilities)
                    |> List.sortByDescending snd
                    |> List.truncate 5
                    |> List.map (fun (name, probability) ->
                        { Class = name
                          Probability = float probability }) }

            try
                Model.toDevice (torch.device device) model
                Model.eval model
                let predictions = List.map predict images

                if results.Contains PredictArguments.Json then
                    streams.Out.WriteLine(Json.show predictions)
                else
                    for prediction in predictions do
                        streams.Out.WriteLine prediction.Image

                        for guess in prediction.Classes do
                            // A name out of a file may hold anything.
                            let name = guess.Class |> String.map (fun c -> if Char.IsControl c then '?' else c)
                            streams.Out.WriteLine $"  {guess.Probability:F3}  {name}"
            finally
                Model.dispose model
        | _ -> Errors.user "predict: a weights file and at least one image are needed."

    // ---- evaluating ----

    /// A table for each suite, with a line for each checkpoint; those with other columns have tables of their own.
    let private tables (found: (Suite * Evaluation * Findings) list) : string =
        let table (suite: Suite) (columns: string list) (group: (Evaluation * Findings) list) =
            let head = fst group.Head

            [ $"{suite.Name}: {suite.About}; {head.Data}, {Tables.count (int64 head.Images)} test images"
              group
              |> List.map (fun (evaluation, findings) ->
                  Path.GetFileNameWithoutExtension evaluation.Weights
                  :: List.map snd findings.Line)
              |> Tables.aligned ("checkpoint" :: columns)
              for evaluation, findings in group do
                  if findings.Text <> "" then
                      if group.Length > 1 then
                          $"{Path.GetFileNameWithoutExtension evaluation.Weights}:"

                      findings.Text ]
            |> String.concat "\n\n"

        [ for suite in Evaluation.suites do
              for (_, _, columns), group in
                  found
                  |> List.filter (fun (other, _, _) -> other.Name = suite.Name)
                  |> List.map (fun (_, evaluation, findings) -> evaluation, findings)
                  |> List.groupBy (fun (evaluation, findings) ->
                      evaluation.Data, evaluation.Images, List.map fst findings.Line) do
                  table suite columns group ]
        |> String.concat "\n\n"

    let private attackPreset (name: string) : AttackPreset =
        match AttackSuite.presets |> List.tryFind (fun preset -> preset.Name = name) with
        | Some preset -> preset
        | None ->
            let names = AttackSuite.presets |> List.map _.Name |> String.concat ", "
            Errors.user $"preset '{name}': the presets are {names}."

    /// The textures of a folder for images of this side, for which there may be no corruptions, and their fingerprint.
    let private frost (side: int) (folder: string option) : FrostTextures * string option =
        match folder with
        | Some folder when List.contains side Corruption.sides ->
            CorruptionWeather.pictures side folder,
            Directory.GetFiles folder
            |> Array.map Path.GetFileName
            |> Array.filter Images.isName
            |> List.ofArray
            |> Files.fingerprint folder
            |> Some
        | _ -> Substitute, None

    let private evaluate (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<EvaluateArguments> "evaluate" argv
        let paths = results.GetResult EvaluateArguments.Files

        let suites = Evaluation.find (results.GetResult(EvaluateArguments.Suite, "all"))

        let seed = results.GetResult(EvaluateArguments.Seed, 0)

        let threads = results.GetResult(EvaluateArguments.Threads, Config.standard.Threads)

        let device =
            Device.choose (results.GetResult(EvaluateArguments.Device, Device.names.Head))

        let attacks =
            results.GetResult(EvaluateArguments.Preset, AttackSuite.presets.Head.Name)
            |> attackPreset

        let baseline = results.TryGetResult Baseline |> Option.map Evaluation.baseline

        let foreign =
            foreign
                "evaluate"
                (results.TryGetResult EvaluateArguments.Model)
                (results.TryGetResult EvaluateArguments.Size)
                (results.TryGetResult EvaluateArguments.Mean)
                (results.TryGetResult EvaluateArguments.Std)
                (results.TryGetResult EvaluateArguments.Class_Names)

        if threads < 1 || threads > 256 then
            Errors.user $"threads {threads}: it must lie in 1 .. 256."

        let folderOf path =
            results.TryGetResult EvaluateArguments.Out
            |> Option.defaultWith (fun () -> Evaluation.folderOf path)

        let target (path: string) =
            Path.Combine(Path.GetFullPath(folderOf path), Path.GetFileNameWithoutExtension path)

        match paths |> List.countBy target |> List.tryFind (fun (_, count) -> count > 1) with
        | Some(name, _) ->
            Errors.user $"evaluate: two checkpoints would be written to {name}.*; evaluate them one by one with --out."
        | None -> ()

        torch.set_num_threads threads

        // What is wrong with the last file is said before the first is evaluated.
        List.iter (Candidate.look foreign) paths

        let all = ResizeArray<Suite * Evaluation * Findings * string list>()

        let loaded (path: string) (work: SuiteSettings -> Candidate -> unit) =
            let candidate =
                Candidate.load
                    device
                    foreign
                    (results.TryGetResult EvaluateArguments.Data)
                    (results.TryGetResult EvaluateArguments.Image_Size)
                    (results.TryGetResult EvaluateArguments.Images)
                    path

            try
                let textures, fingerprint =
                    frost (fst (ImageSet.size candidate.Test)) (results.TryGetResult Frost)

                let settings =
                    { Key = Key.ofSeed seed
                      Seed = seed
                      Report = ignore
                      Attacks = attacks
                      Corrupted = results.TryGetResult Corrupted
                      Images = results.TryGetResult EvaluateArguments.Images
                      Frost = textures
                      FrostFingerprint = fingerprint
                      Baseline = baseline }

                work settings candidate
            finally
                Candidate.dispose candidate

        let isFollowing = baseline.IsSome || (results.TryGetResult Corrupted).IsSome

        if isFollowing && suites |> List.exists (fun suite -> suite.Name = "corrupted") then
            for path in paths do
                loaded path Evaluation.check

        let one (path: string) =
            loaded path (fun settings candidate ->
                let folder = Records.prepare (folderOf path) ""
                let name = Path.GetFileNameWithoutExtension path

                let mayRun (suite: Suite) =
                    match suite.Refusal settings candidate with
                    | None -> true
                    | Some reason when suites.Length = 1 -> Errors.user $"{path}: {suite.Name}: {reason}"
                    | Some reason ->
                        streams.Err.WriteLine $"{name}: {suite.Name}: left out, {reason}"
                        false

                for suite in suites |> List.filter mayRun do
                    let clock = Stopwatch.StartNew()

                    let report line =
                        streams.Err.WriteLine $"{name}: {suite.Name}: {line}"

                    report $"{ImageSet.count candidate.Test} images of {candidate.Data}"

                    let found = Evaluation.run { settings with Report = report } suite candidate

                    let evaluation = Evaluation.record seed threads device candidate suite found
                    let written = Evaluation.write folder evaluation found
                    report $"{clock.Elapsed.TotalSeconds:F1} s"
                    all.Add((suite, evaluation, found, written)))

        let show () =
            let found = List.ofSeq all

            if results.Contains EvaluateArguments.Json then
                found
                |> List.map (fun (_, evaluation, _, _) -> evaluation)
                |> Json.show
                |> streams.Out.WriteLine
            else
                found
                |> List.map (fun (suite, evaluation, findings, _) -> suite, evaluation, findings)
                |> tables
                |> streams.Out.WriteLine

                streams.Out.WriteLine ""

                for _, _, _, written in found do
                    for path in written do
                        streams.Out.WriteLine $"written  {path}"

        try
            List.iter one paths
        finally
            // Also what was found before something went wrong.
            if all.Count > 0 then
                show ()

    // ---- training ----

    /// How images are got, which changes no result.
    type private Getting =
        {
            Reading: Reading
            /// How many runs are done at the same time.
            Jobs: int
            Workers: int option
            Prefetch: int option
            /// What the data set is said to be.
            Preset: DataPreset option
        }

    /// Makes the folder for decoded copies; a UserError where copies cannot be written to it.
    let private cacheIn (folder: string) : string =
        try
            Directory.CreateDirectory folder |> ignore
            let probe = Path.Combine(folder, Path.GetRandomFileName())
            use _ = File.Create(probe, 1, FileOptions.DeleteOnClose)
            folder
        with
        | :? IOException
        | :? ArgumentException
        | :? UnauthorizedAccessException ->
            Errors.user $"cache {folder}: copies cannot be written there; choose another folder, or none."

    /// How they are got where nothing is said of it.
    let private plainly (streams: Streams) (jobs: int) : Getting =
        { Jobs = jobs
          Workers = None
          Prefetch = None
          Preset = None
          Reading =
            { Dataset.reading () with
                Warn = fun message -> streams.Err.WriteLine $"patchup: warning: {message}" } }

    let private getting (streams: Streams) (training: ParseResults<TrainingArguments>) (jobs: int) : Getting =
        let plain = plainly streams jobs

        let reading =
            { plain.Reading with
                Extra = training.Contains TrainingArguments.Extra }

        { plain with
            Workers = training.TryGetResult Workers
            Prefetch = training.TryGetResult Prefetch
            Preset = training.TryGetResult Data_Preset |> Option.map DataPreset.find
            Reading =
                match training.TryGetResult Cache with
                | None -> reading
                | Some "none" -> { reading with Cache = None }
                | Some folder ->
                    { reading with
                        Cache = Some(cacheIn folder)
                        CachesAll = true } }

    let private checkPreset (remedy: string) (preset: DataPreset) (corpus: Corpus) =
        let height, width = ImageSet.size corpus.Train
        let classes = corpus.Classes.Length

        if
            classes <> preset.Classes
            || (preset.ImageSize.IsNone && (height, width) <> (preset.Size, preset.Size))
        then
            Errors.user
                $"{corpus.Name}: {classes} classes and images of {width} x {height}; {preset.Name}, whose preset was asked for, has \
                  {preset.Classes} and {preset.Size} x {preset.Size}. {remedy}"

    let private open' (getting: Getting) (path: string option) (config: Config) : Corpus =
        match config.ImageSize, path with
        | Some side, Some path ->
            if getting.Reading.Extra then
                Errors.user "extra images are read whole; leave out --image-size, or --extra."

            let threads =
                getting.Workers
                |> Option.defaultValue (max 1 (Environment.ProcessorCount / getting.Jobs))

            let twoBatches = (2 * config.BatchSize + threads - 1) / max 1 threads

            Corpus.inFiles
                { Threads = threads
                  Prefetch = getting.Prefetch |> Option.defaultValue (max 4 twoBatches) }
                side
                path
        | Some _, None -> Errors.user "an image size is for images in files; name their folder with --data."
        | None, _ when getting.Workers.IsSome || getting.Prefetch.IsSome ->
            Errors.user "workers and prefetch are for images that stay in their files; say their --image-size."
        | None, path ->
            path
            |> Option.map (Dataset.readAs getting.Reading)
            |> Option.defaultWith (fun () -> Dataset.embeddedAs getting.Reading)
            |> Corpus.ofDataset

    /// The images that a configuration names, and the configuration with their name and fingerprint.
    let private load (getting: Getting) (path: string option) (config: Config) : Config * Corpus =
        let all = open' getting path config

        try
            let taken = Corpus.take config.TrainPerClass config.TestPerClass all

            getting.Preset
            |> Option.iter (fun preset -> checkPreset "Leave out --data-preset." preset taken)

            if config.Fingerprint <> "" && config.Fingerprint <> taken.Fingerprint then
                let what =
                    if path.IsSome then
                        "leave fingerprint out of its file to train on others"
                    else
                        "name them with --data"

                Errors.user $"the configuration is for the images {config.Data}, and these are others; {what}."

            { config with
                Data = taken.Name
                Fingerprint = taken.Fingerprint },
            taken
        with _ ->
            Corpus.dispose all
            reraise ()

    /// Work on each item, `jobs` at a time, begun in their order. After the first failure nothing more is begun, and
    /// that failure is raised.
    let private inParallel (jobs: int) (work: 'a -> unit) (items: 'a list) : unit =
        let inOrder = Partitioner.Create(items, EnumerablePartitionerOptions.NoBuffering)

        try
            Parallel.ForEach(inOrder, ParallelOptions(MaxDegreeOfParallelism = jobs), work)
            |> ignore
        with :? AggregateException as error ->
            ExceptionDispatchInfo.Throw error.InnerExceptions[0]

    /// The first training image of each of the first eight classes, named by class.
    let private examples (corpus: Corpus) : (string * Pixels) list =
        let labels = ImageSet.labels corpus.Train

        [ for label in 0 .. min 8 corpus.Classes.Length - 1 do
              let first = Array.IndexOf(labels, label)

              let pixels =
                  Scope.value (fun () -> Images.ofTensor ((ImageSet.plain corpus.Train [| first |]).squeeze 0L))

              let side = min pixels.Height pixels.Width
              corpus.Classes[label], Images.resize side side pixels ]

    /// With it, PatchUp's first draws in a sheet are blocks rather than rectangles.
    let private pictureSeed = 2

    /// What the configurations have in common, in a line.
    let private announce (streams: Streams) (configs: Config list) =
        let read (config: Config) =
            JsonNode.Parse(Json.line config).AsObject()

        let first = read configs.Head

        for other in configs.Tail do
            for KeyValue(key, value) in List.ofSeq (read other) do
                if not (JsonNode.DeepEquals(first[key], value)) then
                    first.Remove key |> ignore

        streams.Err.WriteLine $"configuration {Json.line first}"

    /// How runs are done, beside their configurations.
    type private Manner =
        {
            Out: string
            Jobs: int
            CheckpointEvery: int option
            TensorBoard: bool
            /// Told of a run that failed, and why; where it does not raise, the others go on.
            Failed: Config -> string -> unit
            /// Told of a run that another process is doing, when its turn comes. None: all are refused before the first.
            Busy: (Config -> unit) option
        }

    let private manner (training: ParseResults<TrainingArguments>) jobs : Manner =
        let steps = training.TryGetResult Checkpoint_Every

        if steps |> Option.exists (fun steps -> steps < 1) then
            Errors.user $"checkpoint every {steps.Value} steps: at least one step must lie between two."

        { Out = training.GetResult(TrainingArguments.Out, TrainingArguments.DefaultOut)
          Jobs = jobs
          CheckpointEvery = steps
          TensorBoard = training.Contains TensorBoard
          Failed = fun _ message -> raise (RunFailed message)
          Busy = None }

    /// The method of a configuration, as it is drawn.
    let private methodOf (config: Config) : Method =
        { Name = config.Method
          Regularizer = Setup.regularizer config
          Loss = Setup.loss config
          CleanLoss = config.CleanLoss
          Paper = "" }

    /// Trains a configuration, of which this process has the checkpoints, and writes its files.
    let private trainOne
        manner
        (corpus: Corpus)
        (stop: CancellationToken)
        report
        (config: Config)
        (folder: CheckpointFolder)
        : unit =
        let board =
            if manner.TensorBoard then
                TensorBoard.following (Records.tensorBoardPath manner.Out config) (fun path ->
                    Picture.sheet path [ methodOf config ] 3 pictureSeed (examples corpus))
            else
                ignore

        let notify advance =
            Log.follow (Records.logPath manner.Out config) advance
            board advance
            report $"{config.Method}, seed {config.Seed}" advance

        let trained =
            Trainer.run
                { Notify = notify
                  IsStopping = fun () -> stop.IsCancellationRequested
                  Checkpoints = Some folder
                  CheckpointEvery = manner.CheckpointEvery }
                config
                corpus

        try
            Records.write
                manner.Out
                corpus
                { trained with
                    Timing =
                        { trained.Timing with
                            Jobs = manner.Jobs } }
        finally
            Model.dispose trained.Model

        Checkpointing.remove folder

    /// One run for each configuration; finished ones are read from the results folder, and those that were stopped go on.
    /// Gives the records of those that did not fail in the configurations' order.
    let private runs (streams: Streams) (manner: Manner) (configs: Config list) (corpus: Corpus) : Record list =
        // Everything that can be refused is refused before the first image is trained on.
        for config in configs do
            Setup.check config corpus

        for folder in
            [ "records"
              "timings"
              "machines"
              "weights"
              "logs"
              if manner.TensorBoard then
                  "tensorboard" ] do
            Records.prepare manner.Out folder |> ignore

        let warn (message: string) =
            lock streams (fun () -> streams.Err.WriteLine $"patchup: warning: {message}")

        let isMissing config =
            (Records.tryFind warn manner.Out config).IsNone

        let missing = configs |> List.filter isMissing

        let images =
            missing
            |> List.sumBy (fun config -> int64 config.Epochs * int64 (Setup.trainingImages config corpus))

        // Of runs that were killed when they had just been finished.
        for config in List.except missing configs do
            let path = Records.checkpointsPath manner.Out config

            if Directory.Exists path then
                try
                    Checkpointing.openFolder ignore path |> Checkpointing.remove
                with UserError _ ->
                    // Another process is about to do so.
                    ()

        if missing.Length < configs.Length then
            streams.Err.WriteLine $"{configs.Length - missing.Length} of {configs.Length} runs are finished already."

        if not missing.IsEmpty then
            announce streams missing
            let path = Records.checkpointsPath manner.Out
            let folders = ResizeArray<CheckpointFolder>()

            try
                if manner.Busy.IsNone then
                    for config in missing do
                        folders.Add(Checkpointing.openFolder warn (path config))

                let attempt config (folder: CheckpointFolder) report stop =
                    try
                        try
                            // Another process may just have finished it.
                            if isMissing config then
                                Records.tidy manner.Out config
                                let jobs = min manner.Jobs missing.Length
                                trainOne { manner with Jobs = jobs } corpus stop report config folder
                            else
                                Checkpointing.remove folder
                        with
                        // What the user could have put right was refused before.
                        | UserError message
                        | RunFailed message -> manner.Failed config message
                        // Such as too little memory.
                        | :? Runtime.InteropServices.ExternalException as error ->
                            manner.Failed config $"libtorch: {error.Message.Split('\n')[0]}"
                    finally
                        Checkpointing.close folder

                Signals.observing (fun stop ->
                    Following.training streams images (fun report ->
                        List.indexed missing
                        |> inParallel manner.Jobs (fun (i, config) ->
                            match manner.Busy with
                            | None -> attempt config folders[i] report stop
                            | Some busy ->
                                match Checkpointing.tryOpenFolder warn (path config) with
                                | Some folder -> attempt config folder report stop
                                | None -> busy config)))
            finally
                Seq.iter Checkpointing.close folders

        configs |> List.choose (Records.tryFind ignore manner.Out)

    /// The configuration with the losses that the user chose, where that is so.
    let private choosing (training: ParseResults<TrainingArguments>) (config: Config) : Config =
        let loss, cleanLoss = Arguments.losses training

        { config with
            Config.Loss = defaultArg loss config.Loss
            Config.CleanLoss = defaultArg cleanLoss config.CleanLoss }

    /// The configuration of a method where the user did not choose another loss.
    let private forMethod (training: ParseResults<TrainingArguments>) (config: Config) (method': Method) : Config =
        choosing training (Config.withMethod method' config)

    let private train (streams: Streams) (argv: string[]) =
        let own, training = Arguments.parseTraining<TrainArguments> "train" argv

        let manner = manner training 1
        let out = manner.Out
        let shared = Arguments.config training

        let config =
            match own.TryGetResult TrainArguments.Method with
            | Some name -> forMethod training shared (Arguments.method' name)
            | None -> choosing training shared

        let config =
            { config with
                Seed = own.GetResult(TrainArguments.Seed, config.Seed) }

        Config.check config

        let config, corpus =
            load (getting streams training manner.Jobs) (training.TryGetResult TrainingArguments.Data) config

        let config = Setup.mirroring (Arguments.choosesFlip training) corpus config

        try
            let record = runs streams manner [ config ] corpus |> List.head

            if training.Contains TrainingArguments.Json then
                streams.Out.WriteLine(Json.show record)
            else
                streams.Out.WriteLine
                    $"{config.Method}, seed {config.Seed}: test error {record.TestError:F2} %%, test NLL \
                      {record.TestNll:F3}, from epoch {record.BestEpoch} of {config.Epochs}, the best by validation"

                streams.Out.WriteLine $"record   {Records.recordPath out config}"
                streams.Out.WriteLine $"weights  {Records.weightsPath out config}"
        finally
            Corpus.dispose corpus

    let private pictures (out: string) (methods: Method list) (corpus: Corpus) =
        let folder = Records.prepare out "pictures"
        let images = examples corpus
        let file name = Path.Combine(folder, name + ".png")

        for method' in methods do
            Picture.sheet (file (Records.methodName method'.Name)) [ method' ] 3 pictureSeed images

        Picture.sheet (file "all-methods") methods 1 pictureSeed images

    /// Whether a method is another one with other settings, and named after it: it looks like that.
    let private isFlavour (method': Method) =
        Catalogue.all
        |> List.exists (fun other -> method'.Name.StartsWith(other.Name + "-"))

    let private gallery (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<GalleryArguments> "gallery" argv
        let out = results.GetResult GalleryArguments.Out

        let methods = Catalogue.all |> List.filter (fun method' -> not (isFlavour method'))

        let corpus = Dataset.embedded () |> Corpus.ofDataset

        try
            Picture.sheet out methods 1 (results.GetResult(GalleryArguments.Seed, pictureSeed)) (examples corpus)
            streams.Out.WriteLine $"{out}: {methods.Length} methods"
        finally
            Corpus.dispose corpus

    let private compare (streams: Streams) (argv: string[]) =
        let own, training = Arguments.parseTraining<CompareArguments> "compare" argv

        let methods =
            own.GetResult(Methods, CompareArguments.DefaultMethods) |> Arguments.methods

        let seeds = own.GetResult(Seeds, CompareArguments.DefaultSeeds)
        let jobs = own.GetResult(CompareArguments.Jobs, Environment.ProcessorCount)
        let manner = manner training jobs
        let out = manner.Out

        if seeds < 1 || seeds > 1000 then
            Errors.user $"seeds {seeds}: it must lie in 1 .. 1000."

        if jobs < 1 || jobs > 256 then
            Errors.user $"jobs {jobs}: it must lie in 1 .. 256."

        let shared = Arguments.config training
        Config.check shared

        let shared, corpus =
            load (getting streams training jobs) (training.TryGetResult TrainingArguments.Data) shared

        let shared = Setup.mirroring (Arguments.choosesFlip training) corpus shared

        try
            let configs =
                [ for seed in 0 .. seeds - 1 do
                      for method' in methods do
                          { forMethod training shared method' with
                              Seed = seed } ]

            let comparison = runs streams manner configs corpus |> Tables.compare

            let write name (text: string) =
                Errors.writing (Path.Combine(out, name)) (fun stream ->
                    stream.Write(Text.Encoding.UTF8.GetBytes(text + "\n")))

            write "comparison.md" (Tables.markdown comparison)
            write "comparison.csv" (Tables.csv comparison)
            write "comparison.json" (Json.show comparison)
            pictures out methods corpus

            if training.Contains TrainingArguments.Json then
                streams.Out.WriteLine(Json.show comparison)
            else
                streams.Out.WriteLine(Tables.text comparison)

                streams.Out.WriteLine
                    $"\nwritten to {out}: comparison.md, .csv and .json, records, weights, timings and pictures"
        finally
            Corpus.dispose corpus

    // ---- data sets ----

    let private fetch (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<FetchArguments> "data fetch" argv
        let source = Sources.find (results.GetResult FetchArguments.Name)

        let folder =
            results.GetResult(FetchArguments.Out, Path.Combine("data", source.Folder))

        let stall = results.GetResult(FetchArguments.Stall, Download.patience.Stall)

        if not (stall >= 0.1 && stall <= 86400.0) then
            Errors.user $"stall {stall}: it must lie in 0.1 .. 86400 seconds."

        let fetched (file: Fetched) =
            let how = if file.WasThere then "was there" else "fetched"
            streams.Out.WriteLine $"{file.Path}  {file.Size} bytes  SHA-256 {file.Sha256}  {how}"

        streams.Err.WriteLine $"{source.Name}: {source.About}. Terms: {source.Terms}."

        Signals.observing (fun stop ->
            Following.transfers streams (fun report ->
                Download.all
                    { Download.patience with Stall = stall }
                    stop
                    report
                    folder
                    (results.TryGetResult FetchArguments.From)
                    source
                    fetched))

    let private checkData (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<DataCheckArguments> "data check" argv
        Device.prepare ()
        let path = results.GetResult DataCheckArguments.Path
        let extra = results.Contains DataCheckArguments.Extra

        let check =
            match results.TryGetResult DataCheckArguments.Image_Size with
            | Some _ when extra -> Errors.user "extra images are read whole; leave out --image-size, or --extra."
            | Some side when side < 8 || side > 1024 -> Errors.user $"image size {side}: it must lie in 8 .. 1024."
            | Some side -> DataCheck.inFiles side path
            | None -> DataCheck.path extra path

        streams.Out.WriteLine(
            if results.Contains DataCheckArguments.Json then
                Json.show check
            else
                DataCheck.text check
        )

    /// What `patchup data` does with data sets: its words, what each does in a line, and the function.
    let private dataWords: (string * string * (Streams -> string[] -> unit)) list =
        [ "fetch", "downloads a data set from where it is published, and checks it", fetch
          "check", "reads a data set and says what is in it", checkData ]

    let private data (streams: Streams) (argv: string[]) =
        let words = dataWords |> List.map (fun (word, _, _) -> word)

        match List.ofArray argv with
        | ("--help" | "-h") :: _ ->
            for word, summary, _ in dataWords do
                streams.Out.WriteLine $"patchup data {word.PadRight 8}{summary}"
        | [] -> Errors.user $"""data: a word is needed: {String.Join(", ", words)}."""
        | word :: rest ->
            match dataWords |> List.tryFind (fun (name, _, _) -> name = word) with
            | Some(_, _, run) -> run streams (Array.ofList rest)
            | None -> Errors.user $"""data: '{word}' is none of its words, which are {String.Join(", ", words)}."""

    // ---- sweeps ----

    /// What names the images of a run.
    let private images (run: Planned) =
        run.Images, run.Config.ImageSize, run.Config.TrainPerClass, run.Config.TestPerClass

    /// What runs of a sweep share so that they can be done at the same time: images, and the process's threads.
    let private sharing (run: Planned) = images run, run.Config.Threads

    /// The runs with their data's names and fingerprints, in their order. Each data set is read once, and everything that
    /// a run would be refused for is refused, but for a device that is not here.
    let private resolved (streams: Streams) (runs: Planned list) : Planned list =
        List.indexed runs
        |> List.groupBy (snd >> images)
        |> List.collect (fun ((path, _, _, _), group) ->
            let first, corpus = load (plainly streams 1) path (snd group.Head).Config

            try
                [ for i, run in group do
                      let config =
                          { run.Config with
                              Data = first.Data
                              Fingerprint = first.Fingerprint }
                          |> Setup.mirroring run.ChoosesFlip corpus

                      Setup.check config corpus
                      i, { run with Config = config } ]
            finally
                Corpus.dispose corpus)
        |> List.sortBy fst
        |> List.map snd

    let private outOf (folder: string option) =
        folder |> Option.defaultValue TrainingArguments.DefaultOut

    let private word (standing: Standing) : string =
        match standing with
        | Finished -> "finished"
        | Running -> "running"
        | Kept -> "checkpoint"
        | Failed _ -> "failed"
        | Missing -> "missing"

    let private listRuns (streams: Streams) (results: ParseResults<SweepArguments>) : ListedRun list =
        let out = outOf (results.TryGetResult SweepArguments.Out)
        let runs = Sweep.read (results.GetResult SweepArguments.File) |> resolved streams
        let configs = runs |> List.map _.Config

        List.zip configs (Collected.settings configs)
        |> List.mapi (fun i (config, settings) ->
            let standing = Records.standing out config

            { Index = i
              Name = Records.name config
              State = word standing
              Why =
                match standing with
                | Failed message -> Some message
                | _ -> None
              Data = config.Data
              Model = config.Model
              Settings = settings
              Method = config.Method
              Seed = config.Seed })

    let private sweepList (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<SweepArguments> "sweep list" argv
        let runs = listRuns streams results

        if results.Contains SweepArguments.Json then
            streams.Out.WriteLine(Json.show runs)
        else
            runs
            |> List.map (fun run ->
                [ string run.Index
                  run.Name
                  run.State
                  run.Data
                  run.Model
                  run.Method
                  string run.Seed
                  run.Settings ])
            |> Tables.aligned [ "index"; "name"; "state"; "data"; "model"; "method"; "seed"; "settings" ]
            |> streams.Out.WriteLine

    let private sweepStatus (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<SweepArguments> "sweep status" argv
        let runs = listRuns streams results

        let count state =
            runs |> List.filter (fun run -> run.State = state) |> List.length

        let status =
            { Runs = runs.Length
              Finished = count "finished"
              Running = count "running"
              Checkpoint = count "checkpoint"
              Failed = count "failed"
              Missing = count "missing"
              Unfinished = runs |> List.filter (fun run -> run.State <> "finished") }

        if results.Contains SweepArguments.Json then
            streams.Out.WriteLine(Json.show status)
        else
            streams.Out.WriteLine
                $"{status.Runs} runs: {status.Finished} finished, {status.Running} running, {status.Checkpoint} with a checkpoint, {status.Failed} failed, {status.Missing} missing"

            for run in status.Unfinished do
                let why = run.Why |> Option.map (fun why -> $": {why}") |> Option.defaultValue ""
                streams.Out.WriteLine $"{run.Index}  {run.Name}  {run.State}{why}"

    let private sweepCollect (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<SweepArguments> "sweep collect" argv
        let out = outOf (results.TryGetResult SweepArguments.Out)

        let warn message =
            streams.Err.WriteLine $"patchup: warning: {message}"

        let collected =
            Sweep.read (results.GetResult SweepArguments.File)
            |> resolved streams
            |> List.map (fun run -> run.Config, Records.tryFind warn out run.Config)
            |> Collected.ofRuns

        streams.Out.WriteLine(
            if results.Contains SweepArguments.Json then
                Json.show collected
            else
                Collected.text collected
        )

    /// Refuses a number of runs at a time.
    let private checkJobs (jobs: int option) =
        if jobs |> Option.exists (fun jobs -> jobs < 1 || jobs > 256) then
            Errors.user $"jobs {jobs.Value}: it must lie in 1 .. 256."

    /// Does those of the resolved runs that are not finished, of a sweep that is in the file. Where some are not finished afterwards, says why.
    let private doRuns
        (streams: Streams)
        (out: string)
        (jobs: int option)
        (file: string)
        (chosen: Planned list)
        : string option =
        let failures, elsewhere = ConcurrentQueue<string>(), ConcurrentQueue<Config>()

        let failed (config: Config) (message: string) =
            Records.fail out config message
            failures.Enqueue message
            lock streams (fun () -> streams.Err.WriteLine $"patchup: {Records.name config} failed: {message}")

        let busy (config: Config) =
            elsewhere.Enqueue config
            lock streams (fun () -> streams.Err.WriteLine $"{Records.name config}: another process is at work on it")

        for ((path, _, _, _), threads), group in chosen |> List.groupBy sharing do
            let jobs =
                jobs |> Option.defaultValue (max 1 (Environment.ProcessorCount / threads))

            let _, corpus = load (plainly streams jobs) path group.Head.Config

            try
                let manner =
                    { Out = out
                      Jobs = jobs
                      CheckpointEvery = None
                      TensorBoard = false
                      Failed = failed
                      Busy = Some busy }

                runs streams manner (group |> List.map _.Config) corpus |> ignore
            finally
                Corpus.dispose corpus

        let left =
            elsewhere |> Seq.filter (fun config -> Records.standing out config <> Finished)

        match List.ofSeq failures, Seq.length left with
        | [], 0 -> None
        | [ message ], _ when chosen.Length = 1 -> Some message
        | failures, busy ->
            let failed =
                if failures.IsEmpty then
                    ""
                else
                    $"{failures.Length} of {chosen.Length} runs failed; "

            let left =
                if busy = 0 then
                    ""
                else
                    $"{busy} of {chosen.Length} runs are left to other processes, which are at work on them; "

            let status = Shell.line [ "patchup"; "sweep"; "status"; file; "--out"; out ]
            Some $"{failed}{left}'{status}' says which and why."

    let private sweepRun (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<SweepRunArguments> "sweep run" argv
        let file = results.GetResult SweepRunArguments.File
        let out = outOf (results.TryGetResult SweepRunArguments.Out)
        let jobs = results.TryGetResult SweepRunArguments.Jobs
        checkJobs jobs
        let all = Sweep.read file

        let chosen =
            match results.TryGetResult SweepRunArguments.Index with
            | None -> all
            | Some index when index >= 0 && index < all.Length -> [ all[index] ]
            | Some index -> Errors.user $"index {index}: the runs of {file} are 0 .. {all.Length - 1}."

        for run in chosen do
            Device.choose run.Config.Device |> ignore

        match resolved streams chosen |> doRuns streams out jobs file with
        | None -> streams.Out.WriteLine $"{chosen.Length} of {all.Length} runs of {file}: finished, in {out}"
        | Some why -> raise (RunFailed why)

    /// Settings as options give them, NAME=VALUE, where a value is JSON or a plain word.
    let private settings (verb: string) (option: string) read (all: string list) : JsonObject =
        let parts = JsonObject()

        for text in all do
            match text.Split('=', 2) with
            | [| name; value |] when not (parts.ContainsKey name) -> parts.Add(name, read value)
            | [| name; _ |] -> Errors.user $"{verb}: {option} names {name} twice; name it once."
            | _ -> Errors.user $"{verb}: {option} {text}: it is NAME=VALUE, such as epochs=6."

        parts

    let private sweepNew (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<SweepNewArguments> "sweep new" argv
        let file = results.GetResult SweepNewArguments.File

        if File.Exists file || Directory.Exists file then
            Errors.user $"{file}: it is there already; choose another name, or remove it."

        let folder = Path.GetDirectoryName(Path.GetFullPath file)

        let settings read (option: string) (all: string list) : JsonNode option =
            let parts = settings "sweep new" option read all
            if parts.Count = 0 then None else Some parts

        let texts (all: string list) : JsonNode =
            JsonArray [| for text in all -> JsonValue.Create text :> JsonNode |]

        let whole (values: (string * JsonNode option) list) : JsonNode option =
            let parts = JsonObject()

            for name, value in values do
                value |> Option.iter (fun value -> parts.Add(name, value))

            if parts.Count = 0 then None else Some parts

        let number (value: int) = JsonValue.Create value :> JsonNode
        let name (value: string) = JsonValue.Create value :> JsonNode

        let sample =
            whole
                [ "count", results.TryGetResult SweepNewArguments.Samples |> Option.map number
                  "seed", results.TryGetResult SweepNewArguments.Sample_Seed |> Option.map number
                  "uniform",
                  results.GetResults SweepNewArguments.Uniform
                  |> settings Sweep.ofWords "--uniform"
                  "logUniform",
                  results.GetResults SweepNewArguments.Log_Uniform
                  |> settings Sweep.ofWords "--log-uniform" ]

        let paths =
            results.GetResults SweepNewArguments.Data
            |> List.map (fun path -> Path.GetRelativePath(folder, Path.GetFullPath path))

        let sweep =
            whole
                [ "data", (if paths.IsEmpty then None else Some(texts paths))
                  "models",
                  results.TryGetResult SweepNewArguments.Models
                  |> Option.map (Arguments.splitAtTopLevel >> texts)
                  "methods",
                  results.TryGetResult SweepNewArguments.Methods
                  |> Option.map (Arguments.splitAtTopLevel >> texts)
                  "seeds", results.TryGetResult SweepNewArguments.Seeds |> Option.map Sweep.ofWord
                  "preset", results.TryGetResult SweepNewArguments.Preset |> Option.map name
                  "dataPreset", results.TryGetResult SweepNewArguments.Data_Preset |> Option.map name
                  "base", results.GetResults SweepNewArguments.Base |> settings Sweep.ofWord "--base"
                  "grid", results.GetResults SweepNewArguments.Grid |> settings Sweep.ofWords "--grid"
                  "sample", sample ]
            |> Option.defaultWith (fun () -> JsonObject())

        let runs = Sweep.ofText file (Json.show sweep)
        Json.write file sweep
        let list = Shell.line [ "patchup"; "sweep"; "list"; file ]
        streams.Out.WriteLine $"{file}: {runs.Length} runs; {list} lists them"

    let private sweepSlurm (streams: Streams) (argv: string[]) =
        let own, options =
            match Array.tryFindIndex ((=) "--") argv with
            | Some at -> Array.take at argv, argv |> Array.skip (at + 1) |> List.ofArray
            | None -> argv, []

        let results = Arguments.parse<SweepSlurmArguments> "sweep slurm" own
        let file = results.GetResult SweepSlurmArguments.File
        let out = Path.GetFullPath(outOf (results.TryGetResult SweepSlurmArguments.Out))
        let count = (resolved streams (Sweep.read file)).Length
        let file = Path.GetFullPath file

        if results.Contains Dry_Run then
            streams.Out.Write(Slurm.script file out count)
        else
            let said = Slurm.write file out count |> Slurm.submit options
            streams.Out.WriteLine $"{said}: {count} tasks; 'patchup sweep status' says how they stand"

    /// What `patchup sweep` can do: a word, what it does in a line, and the function.
    let private sweepActions =
        [ "new", "writes a sweep's file from options", sweepNew
          "list", "the runs of a sweep, with their names and states", sweepList
          "run", "does those that are not finished, or one of them", sweepRun
          "status", "how many are finished, are running, have a checkpoint, failed, are missing", sweepStatus
          "collect", "the table of those that are finished", sweepCollect
          "slurm", "submits them to Slurm, as an array of jobs", sweepSlurm ]

    let private sweep (streams: Streams) (argv: string[]) =
        let names = sweepActions |> List.map (fun (name, _, _) -> name)

        match List.ofArray argv with
        | ("--help" | "-h") :: _ ->
            let lines =
                sweepActions
                |> List.map (fun (name, summary, _) -> $"  {name.PadRight 9}{summary}")
                |> String.concat "\n"

            streams.Out.WriteLine
                $"usage: patchup sweep ACTION FILE [ARGUMENTS]\n\n{lines}\n\n'patchup sweep ACTION --help' explains an action."
        | action :: rest ->
            ConfigFile.checkName "sweep" "an action" names action
            let _, _, run = sweepActions |> List.find (fun (name, _, _) -> name = action)
            run streams (Array.ofList rest)
        | [] ->
            let known = String.concat ", " names
            Errors.user $"sweep: an action is needed: {known}; 'patchup sweep --help' explains them."

    // ---- studies ----

    let private listStudies (streams: Streams) (isJson: bool) =
        let listed = Study.all |> List.map Study.listed

        streams.Out.WriteLine(
            if isJson then
                Json.show listed
            else
                [ for study in listed ->
                      [ study.Name
                        study.Place
                        string study.Runs
                        string study.PaperRuns
                        study.About ] ]
                |> Tables.aligned [ "study"; "of the paper"; "runs"; "paper's scale"; "about" ]
        )

    /// The runs of a study, with the names and fingerprints of their images, which at the paper's scale must be its own.
    let private studied (streams: Streams) (study: Study) (scale: StudyScale) (runs: Planned list) : Planned list =
        for run in runs do
            Device.choose run.Config.Device |> ignore

        if scale = StudyScale.Paper then
            let _, corpus = load (plainly streams 1) runs.Head.Images runs.Head.Config

            try
                checkPreset "Name that data set with --data." (DataPreset.find study.Data) corpus
            finally
                Corpus.dispose corpus

        resolved streams runs

    let private doStudy (streams: Streams) (results: ParseResults<StudyArguments>) (study: Study) =
        let scale =
            let name = results.GetResult(StudyArguments.Scale, fst Study.scales.Head)
            ConfigFile.checkName "study" "a scale" (List.map fst Study.scales) name
            Study.scales |> List.find (fun (known, _) -> known = name) |> snd

        let data = results.TryGetResult StudyArguments.Data |> Option.map Path.GetFullPath

        if scale = StudyScale.Paper && data.IsNone then
            Errors.user
                $"study {study.Name}: at the paper's scale it is of {study.Data}, which 'patchup data fetch {study.Data}' downloads; name its folder \
                  with --data."

        let seeds = results.GetResult(StudyArguments.Seeds, Study.seeds scale study)

        if seeds < 1 || seeds > 1000 then
            Errors.user $"seeds {seeds}: it must lie in 1 .. 1000."

        let jobs =
            match study.View, results.TryGetResult StudyArguments.Jobs with
            | StudyView.Times, Some jobs when jobs <> 1 ->
                Errors.user $"jobs {jobs}: {study.Name} measures times, one run at a time; leave out --jobs."
            | StudyView.Times, _ -> Some 1
            | _, jobs -> jobs

        checkJobs jobs

        let basis =
            results.GetResults StudyArguments.Base |> settings "study" "--base" Sweep.ofWord

        let sweepAt (path: string option) =
            Study.sweep scale path seeds basis study

        let runs = Sweep.ofText $"study {study.Name}" (Json.show (sweepAt data))

        let write (file: string) =
            let folder = Path.GetDirectoryName(Path.GetFullPath file)

            data
            |> Option.map (fun path -> Path.GetRelativePath(folder, path))
            |> sweepAt
            |> Json.write file

        match results.TryGetResult StudyArguments.Sweep with
        | Some file ->
            if File.Exists file || Directory.Exists file then
                Errors.user $"{file}: it is there already; choose another name, or remove it."

            write file
            streams.Out.WriteLine $"{file}: {runs.Length} runs"
        | None ->
            let runs = studied streams study scale runs

            let out =
                results.TryGetResult StudyArguments.Out
                |> Option.defaultValue (Path.Combine(TrainingArguments.DefaultOut, "study", study.Name))

            let at (name: string) =
                Path.Combine(Records.prepare out "", name)

            let file = at "sweep.json"
            write file
            let unfinished = doRuns streams out jobs file runs

            let result =
                Study.ofRuns
                    study
                    [ for run in runs ->
                          run.Config,
                          Records.tryFind ignore out run.Config
                          |> Option.map (fun record -> record, Records.timing out run.Config) ]

            Errors.writing (at "study.md") (fun stream ->
                stream.Write(Text.Encoding.UTF8.GetBytes(Study.markdown study result + "\n")))

            Json.write (at "study.json") result

            if results.Contains StudyArguments.Json then
                streams.Out.WriteLine(Json.show result)
            else
                streams.Out.WriteLine(Study.text study result)
                streams.Out.WriteLine $"\nwritten to {out}: study.md, study.json, sweep.json, and the runs' files"

            unfinished |> Option.iter (RunFailed >> raise)

    let private study (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<StudyArguments> "study" argv

        match results.TryGetResult StudyArguments.Name with
        | Some name -> doStudy streams results (Study.find name)
        | None ->
            match
                results.GetAllResults()
                |> List.filter (fun result -> result <> StudyArguments.Json)
            with
            | [] -> listStudies streams (results.Contains StudyArguments.Json)
            | _ -> Errors.user "study: a name is needed; 'patchup study' lists them."

    // ---- the paper's tables ----

    let private paperTables (streams: Streams) (argv: string[]) =
        let results = Arguments.parse<TablesArguments> "tables" argv
        let folders = results.GetResult TablesArguments.Results

        let out =
            results.TryGetResult TablesArguments.Out
            |> Option.defaultValue (Path.Combine(folders.Head, "tables"))

        let found, missing =
            PaperTables.read (fun message -> streams.Err.WriteLine $"patchup: warning: {message}") folders
            |> PaperTables.ofFound

        PaperTables.write (Records.prepare out "") found

        for table in found do
            streams.Out.WriteLine(PaperTable.markdown table + "\n")

        for title in missing do
            streams.Out.WriteLine $"No record: {title}."

    /// A verb that computes on tensors, for which libtorch must be there.
    let private computing run (streams: Streams) (argv: string[]) =
        Device.prepare ()
        run streams argv

    /// Every verb: its name, what it does in a line, and the function.
    let all: (string * string * (Streams -> string[] -> unit)) list =
        [ "methods", "list the methods with their notation", methods
          "models", "list the networks with their parameters and sites", computing models
          "describe", "a method in words and numbers", describe
          "laws", "checks the laws of mixing on a method", computing laws
          "verify", "compares another implementation's numbers with this one's", computing verify
          "draw", "a picture of what a method makes of images", computing draw
          "gallery", "a picture of what every method makes of the same images", computing gallery
          "data", "fetch and check data sets", data
          "train", "train a network with a method", computing train
          "evaluate", "measure trained networks: errors, calibration, activations, geometry", computing evaluate
          "tables", "the paper's tables and figures from the records of results folders", paperTables
          "predict", "the classes that a trained network finds likeliest for images", computing predict
          "compare", "train networks with several methods and seeds, and compare their test errors", computing compare
          "sweep", "run many trainings that a file names, here or on a cluster", computing sweep
          "study", "the paper's ablations: what each trains, and its table", computing study ]
