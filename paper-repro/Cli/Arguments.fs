namespace PatchUp.Repro

open System
open Argu
open PatchUp.Functional
open PatchUp.Functional.Laws

/// `patchup methods`
type MethodsArguments =
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Json -> "print JSON instead of a table."

/// `patchup models`
type ModelsArguments =
    | [<MainCommand; Unique>] Name of name: string
    | [<Unique>] Size of pixels: int
    | [<Unique>] Classes of count: int
    | [<Unique>] Width of channels: int
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Name _ -> "one model, whose sites are shown in full; without it all are listed."
            | Size _ -> "the side of the images (default: the published one)."
            | Classes _ -> "how many classes there are (default: as published)."
            | Width _ ->
                "channels that the stem gives, where the model's name does not say how wide it is (default: 64)."
            | Json -> "print JSON instead of a table."

/// `patchup describe`
type DescribeArguments =
    | [<MainCommand; ExactlyOnce>] Method of method: string
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Method _ -> "a name that 'patchup methods' lists, or a line of notation."
            | Json -> "print JSON instead of text."

/// `patchup laws`
type LawsArguments =
    | [<MainCommand; Unique>] Method of method: string
    | Shape of size: string
    | Type of name: string
    | Seed of int
    | [<Unique>] Effort of share: float
    | Json

    /// The names of element types.
    static member Types =
        [ "float32", Precision.Single
          "float64", Precision.Double
          "bfloat16", Precision.BFloat16 ]

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Method _ ->
                "a name that 'patchup methods' lists, or a line of notation; without it the laws are checked on the \
                 library itself, over generated programs."
            | Shape _ ->
                "the features' size, such as 64x16x16; may be given several times (default: small ones of all proportions)."
            | Type _ ->
                let names = LawsArguments.Types |> List.map fst |> String.concat ", "
                $"the features' type, one of {names}; may be given several times (default: all of them)."
            | Seed _ ->
                "what the cases are generated from; may be given several times (default: always the same cases)."
            | Effort _ ->
                $"the share of each law's own number of cases (default {Laws.defaults.Effort} for a method, \
                  {Law.defaults.Effort} for the library)."
            | Json -> "print JSON instead of text."

/// `patchup verify`
type VerifyArguments =
    | [<MainCommand; ExactlyOnce>] File of file: string
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | File _ ->
                "a JSON file of another implementation's numbers: operations with their draws pinned, attacks, deformed or corrupted \
                 images, or metrics."
            | Json -> "print JSON instead of text."

/// `patchup draw`
type DrawArguments =
    | [<MainCommand; ExactlyOnce>] Method of method: string
    | [<Mandatory; Unique>] Images of image: string list
    | [<Mandatory; Unique>] Out of file: string
    | [<Unique>] Seed of int
    | [<Unique>] Size of pixels: int

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Method _ -> "a name that 'patchup methods' lists, or a line of notation."
            | Images _ -> "two to eight JPEG or PNG files, which are mixed with one another."
            | Out _ -> "the PNG file to write."
            | Seed _ -> "what the draw follows from (default 0)."
            | Size _ -> "the side to which images are resized before they are mixed (default 32)."

/// `patchup gallery`
type GalleryArguments =
    | [<Mandatory; Unique>] Out of file: string
    | [<Unique>] Seed of int

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Out _ -> "the PNG file to write."
            | Seed _ -> "what the draws follow from (default 2)."

/// `patchup data fetch`
type FetchArguments =
    | [<MainCommand; ExactlyOnce>] Name of name: string
    | [<Unique>] Out of folder: string
    | [<Unique>] From of address: string
    | [<Unique>] Stall of seconds: float

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Name _ ->
                let names = Sources.all |> List.map _.Name |> String.concat ", "
                $"one of {names}."
            | Out _ -> "the folder for the files (default: data/NAME; svhn-extra lies with svhn)."
            | From _ ->
                "another place that has the files under the same names, such as a mirror in the house; they must be the \
                 published ones all the same."
            | Stall _ ->
                $"seconds without a byte after which a connection is given up (default {Download.patience.Stall})."

/// `patchup data check`
type DataCheckArguments =
    | [<MainCommand; ExactlyOnce>] Path of path: string
    | Extra
    | [<Unique>] Image_Size of pixels: int
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Path _ ->
                $"a folder or an archive (.tar.gz, .tgz, .tar, .zip) of images: {Layouts.known}; or of corrupted test images."
            | Extra -> "with the data set's extra training images, which SVHN has (extra_32x32.mat)."
            | Image_Size _ ->
                "for class folders with images of any sizes: look at the middle of each image, brought to this side, such as 224."
            | Json -> "print JSON instead of tables."

[<AutoOpen>]
module private Shared =

    let deviceUsage =
        let names = String.concat ", " Device.names
        $"where to compute, one of {names} (default {Device.names.Head}: cuda where there is one, else cpu)."

/// `patchup predict`
type PredictArguments =
    | [<MainCommand; ExactlyOnce>] Files of file: string list
    | [<Unique>] Model of name: string
    | [<Unique>] Size of pixels: int
    | [<Unique>] Mean of red: float * green: float * blue: float
    | [<Unique>] Std of red: float * green: float * blue: float
    | [<Unique>] Class_Names of file: string
    | [<Unique>] Device of name: string
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Files _ ->
                "a weights file (.safetensors) that train or compare wrote, then JPEG or PNG files, which are resized \
                 to the network's size."
            | Model _ ->
                "the weights file is another program's, such as PyTorch's, of this model; 'patchup models' lists the \
                 names."
            | Size _ -> "with --model: the side of the images (default: the model's published one)."
            | Mean _ -> "with --model: the mean of each channel, on the scale of [0,1] (default: as published)."
            | Std _ ->
                "with --model: the standard deviation of each channel, on the scale of [0,1] (default: as published)."
            | Class_Names _ -> "with --model: a text file, a class in each line (default: classes are numbers)."
            | Device _ -> deviceUsage
            | Json -> "print JSON instead of tables."

/// `patchup tables`
type TablesArguments =
    | [<MainCommand; ExactlyOnce>] Results of folder: string list
    | [<Unique>] Out of folder: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Results _ -> "results folders, with records/ or evaluations/; their runs come into the same tables."
            | Out _ ->
                "the folder for the tables as Markdown, CSV and LaTeX, and for pictures (default: tables/ in the first results folder)."

/// `patchup evaluate`
type EvaluateArguments =
    | [<MainCommand; ExactlyOnce>] Files of checkpoint: string list
    | [<Unique>] Suite of name: string
    | [<Unique>] Data of path: string
    | [<Unique>] Image_Size of pixels: int
    | [<Unique>] Images of count: int
    | [<Unique>] Preset of name: string
    | [<Unique>] Corrupted of path: string
    | [<Unique>] Frost of folder: string
    | [<Unique>] Baseline of record: string
    | [<Unique>] Out of folder: string
    | [<Unique>] Seed of int
    | [<Unique>] Threads of int
    | [<Unique>] Device of name: string
    | [<Unique>] Model of name: string
    | [<Unique>] Size of pixels: int
    | [<Unique>] Mean of red: float * green: float * blue: float
    | [<Unique>] Std of red: float * green: float * blue: float
    | [<Unique>] Class_Names of file: string
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Files _ -> "weights files (.safetensors), each evaluated by itself; their numbers stand in one table."
            | Suite _ ->
                let suites =
                    Evaluation.suites
                    |> List.map (fun suite -> $"{suite.Name} ({suite.About})")
                    |> String.concat ", "

                $"all, or one of {suites} (default all)."
            | Data _ ->
                "the data set whose test images are taken: an archive or a folder as for train (default: the run's own where that is \
                 the data in the program, and its own test images)."
            | Image_Size _ ->
                "the side to which test images are brought that stay in their files, of any sizes, such as 224 (default: the run's own)."
            | Images _ -> "how many of the test images, spread evenly (default: all)."
            | Preset _ ->
                let names = AttackSuite.presets |> List.map _.Name |> String.concat ", "

                $"of the attacks, one of {names}, which takes hours (default {AttackSuite.presets.Head.Name})."
            | Corrupted _ ->
                "published corrupted images of the data's classes, a folder or an archive as Tiny-ImageNet-C or CIFAR-10-C (default: the \
                 test images, corrupted)."
            | Frost _ ->
                "a folder with the published frost textures, which are not part of the program (default: generated ones)."
            | Baseline _ ->
                "a record of the suite corrupted, to which the mean corruption error is relative (default: none is given)."
            | Out _ ->
                "the folder for records and pictures (default: that of the weights, or 'evaluations' beside a folder 'weights')."
            | Seed _ -> "what all randomness follows from (default 0)."
            | Threads _ ->
                $"of the native library; results depend on it in their last bits (default {Config.standard.Threads})."
            | Device _ -> deviceUsage
            | Model _ ->
                "the weights are another program's, such as PyTorch's, of this model; 'patchup models' lists the names."
            | Size _ -> "with --model: the side of the images (default: the model's published one)."
            | Mean _ -> "with --model: the mean of each channel, on the scale of [0,1] (default: as published)."
            | Std _ ->
                "with --model: the standard deviation of each channel, on the scale of [0,1] (default: as published)."
            | Class_Names _ -> "with --model: a text file, a class in each line, which then must be the data's."
            | Json -> "print the records as JSON instead of tables."

/// What belongs to `patchup train` alone.
type TrainArguments =
    | [<Unique>] Method of method: string
    | [<Unique>] Seed of int

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Method _ ->
                $"a name that 'patchup methods' lists, or a line of notation (default {Config.standard.Method})."
            | Seed _ -> $"what all randomness follows from (default {Config.standard.Seed})."

/// What belongs to `patchup compare` alone.
type CompareArguments =
    | [<Unique>] Methods of methods: string
    | [<Unique>] Seeds of count: int
    | [<Unique>] Jobs of runs: int

    /// The methods of the project's demo.
    static member DefaultMethods = "none,mixup,cutmix,manifold-mixup,soft-patchup,hard-patchup"

    /// The number of seeds of the project's demo.
    static member DefaultSeeds = 2

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Methods _ ->
                $"names or lines of notation, with commas between; differences are from the first (default \
                  {CompareArguments.DefaultMethods})."
            | Seeds _ ->
                $"how many seeds to train every method with: 0, 1, ... (default {CompareArguments.DefaultSeeds})."
            | Jobs _ ->
                $"how many runs go on at the same time; results do not depend on it (default: one for each processor, \
                  here {Environment.ProcessorCount})."

/// What `patchup train` and `patchup compare` share.
type TrainingArguments =
    | [<Unique>] Data of path: string
    | [<Unique>] Data_Preset of name: string
    | [<Unique>] Image_Size of pixels: int
    | Extra
    | [<Unique>] Cache of folder: string
    | [<Unique>] Workers of count: int
    | [<Unique>] Prefetch of images: int
    | [<Unique>] Out of folder: string
    | [<Unique>] Config of file: string
    | [<Unique>] Preset of name: string
    | [<Unique>] Train_Per_Class of images: int
    | [<Unique>] Test_Per_Class of images: int
    | [<Unique>] Model of name: string
    | [<Unique>] Width of channels: int
    | [<Unique>] Epochs of int
    | [<Unique>] Batch_Size of images: int
    | [<Unique>] Learning_Rate of float
    | [<Unique>] Schedule of name: string
    | [<Unique>] Warmup of epochs: float
    | [<Unique>] Clip_Norm of norm: float
    | [<Unique>] Ema of decay: float
    | [<Unique>] Loss of name: string
    | [<Unique>] Label_Smoothing of amount: float
    | [<Unique>] Clean_Loss of weight: float
    | [<Unique>] Threads of int
    | [<Unique>] Device of name: string
    | [<Unique>] Checkpoint_Every of steps: int
    | TensorBoard
    | Json

    /// Where results are written.
    static member DefaultOut = "results"

    interface IArgParserTemplate with
        member this.Usage =
            let standard = Config.standard

            match this with
            | Data _ ->
                "an archive (.tar.gz, .tgz, .tar, .zip) or a folder of train/CLASS/*.jpg and test/CLASS/*.jpg, or of a layout \
                 that 'patchup data check --help' lists (default: the 6,000 images in the program)."
            | Data_Preset _ ->
                let names = DataPreset.all |> List.map fst |> String.concat ", "

                $"what is published for a data set, one of {names}: normalisation, augmentation, and all images but for a tenth \
                  that is held out (default: mean and deviation of the training images, which are mirrored at random, padded by \
                  {standard.CropPadding} and cropped)."
            | Image_Size _ ->
                "the side to which images are brought that stay in their files until they are used, such as 224: random crops \
                 to train on, the middle to evaluate. For class folders with images of any sizes, and for more than fit into \
                 memory."
            | Extra -> "train on the data set's extra images too, which SVHN has (extra_32x32.mat)."
            | Cache _ ->
                "the folder for decoded copies of data sets, which are mapped into memory, or none (default: patchup in your cache \
                 folder, and only for what is slow to decode)."
            | Workers _ ->
                "with --image-size: threads that decode, for each run (default: the processors, divided by the runs at a time); \
                 results do not depend on it."
            | Prefetch _ ->
                "with --image-size: images that each worker may be ahead of their use, which bounds the memory (default: as many \
                 as make two batches); results do not depend on it."
            | Out _ ->
                $"the folder for results; runs found finished there are not done again (default \
                  {TrainingArguments.DefaultOut})."
            | Config _ ->
                "a JSON file of a configuration, or of a record, which contains one: what it names is taken instead of the \
                 defaults, and options on the command line instead of it."
            | Preset _ ->
                let presets =
                    Config.presets
                    |> List.map (fun (name, what) -> $"{name}, {what}")
                    |> String.concat "; "

                $"a published schedule: {presets}."
            | Train_Per_Class _ ->
                $"training images of each class, a tenth of which is held out for validation, or 0 for all (default \
                  {standard.TrainPerClass}; all with --data-preset and --image-size)."
            | Test_Per_Class _ ->
                $"test images of each class, or 0 for all (default {standard.TestPerClass}; all with --data-preset and --image-size)."
            | Model _ -> $"a name that 'patchup models' lists (default {standard.Model})."
            | Width _ ->
                $"channels that its stem gives, where its name does not say how wide it is; published is 64 (default \
                  {standard.Width.Value})."
            | Epochs _ -> $"passes over the training images (default {standard.Epochs})."
            | Batch_Size _ -> $"images a step (default {standard.BatchSize})."
            | Learning_Rate _ -> $"the highest of the run (default {standard.LearningRate})."
            | Schedule _ ->
                let names = String.concat ", " Config.schedules

                $"how the learning rate goes, one of {names} (default {standard.Schedule}: divided by ten at 1/2 and at 3/4 of \
                  the epochs)."
            | Warmup _ -> "epochs, or part of one, in which the learning rate rises in a line from zero (default 0)."
            | Clip_Norm _ -> "the largest norm of all gradients together; larger ones are shrunk to it (default: any)."
            | Ema _ ->
                "the decay of a moving average of the weights, such as 0.999, which then is what is validated, tested and \
                 written (default: none)."
            | Loss _ ->
                let names = Config.losses |> List.map fst |> String.concat ", "
                $"one of {names} (default: the method's own, which is {standard.Loss} for a line of notation)."
            | Label_Smoothing _ ->
                $"moves this share of every label to all classes evenly (default {standard.LabelSmoothing})."
            | Clean_Loss _ ->
                "the weight of the cross-entropy on the images as they are, which is added to the loss (default: the method's own, \
                 which is 0 for a line of notation)."
            | Threads _ ->
                $"of the native library in each run; results depend on it in their last bits (default \
                  {standard.Threads})."
            | Device _ -> $"{deviceUsage} Results depend on it in their last bits."
            | Checkpoint_Every _ ->
                $"steps after which a run's state is written, from which the same command goes on if it is stopped or killed \
                  (default: about every {Control.secondsBetween} seconds); results do not depend on it."
            | TensorBoard -> "write numbers and pictures for TensorBoard."
            | Json -> "print JSON instead of a table; progress goes to standard error in any case."

/// `patchup sweep list`, `status` and `collect`
type SweepArguments =
    | [<MainCommand; ExactlyOnce>] File of file: string
    | [<Unique>] Out of folder: string
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | File _ -> "a sweep: a file of JSON that names runs."
            | Out _ -> $"the folder of the results (default {TrainingArguments.DefaultOut})."
            | Json -> "print JSON instead of text."

/// `patchup sweep new`
[<RequireQualifiedAccess>]
type SweepNewArguments =
    | [<MainCommand; ExactlyOnce>] File of file: string
    | Data of path: string
    | [<Unique>] Models of names: string
    | [<Unique>] Methods of names: string
    | [<Unique>] Seeds of number: string
    | [<Unique>] Preset of name: string
    | [<Unique>] Data_Preset of name: string
    | Base of setting: string
    | Grid of setting: string
    | [<Unique>] Samples of count: int
    | [<Unique>] Sample_Seed of number: int
    | Uniform of setting: string
    | Log_Uniform of setting: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | File _ -> "the file to write, which is not there yet."
            | Data _ -> "an archive or a folder of images, may be repeated (default: the images in the program)."
            | Models _ -> "models with commas between; 'patchup models' lists the names."
            | Methods _ -> "methods with commas between, catalogue names or notation; the first is the baseline."
            | Seeds _ -> "how many seeds, such as 5 for 0 to 4, or which, such as [3, 7]."
            | Preset _ -> "a published schedule: paper-2020."
            | Data_Preset _ -> "the published settings of a data set, such as cifar-10."
            | Base _ -> "a setting of all runs, such as epochs=6; may be repeated."
            | Grid _ -> "values of a setting, each of which is run, such as batchSize=50,100; may be repeated."
            | Samples _ -> "how often the settings of --uniform and --log-uniform are drawn."
            | Sample_Seed _ -> "what these draws follow from (default 0)."
            | Uniform _ -> "a setting drawn evenly between two numbers, such as labelSmoothing=0,0.2; may be repeated."
            | Log_Uniform _ -> "a setting whose logarithm is drawn so, such as learningRate=0.02,0.5; may be repeated."

/// `patchup sweep run`
type SweepRunArguments =
    | [<MainCommand; ExactlyOnce>] File of file: string
    | [<Unique>] Out of folder: string
    | [<Unique>] Jobs of runs: int
    | [<Unique>] Index of number: int

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | File _ -> "a sweep: a file of JSON that names runs."
            | Out _ ->
                $"the folder for results; runs found finished there are not done again (default \
                  {TrainingArguments.DefaultOut})."
            | Jobs _ ->
                $"how many runs go on at the same time; results do not depend on it (default: as many as the processors, \
                  here {Environment.ProcessorCount}, have room for with the threads of each)."
            | Index _ -> "do this one alone, by its number in 'patchup sweep list'."

/// `patchup sweep slurm`
type SweepSlurmArguments =
    | [<MainCommand; ExactlyOnce>] File of file: string
    | [<Unique>] Out of folder: string
    | Dry_Run

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | File _ -> "a sweep: a file of JSON that names runs. Options of sbatch may follow at the end, after --."
            | Out _ -> $"the folder for results, which every node can reach (default {TrainingArguments.DefaultOut})."
            | Dry_Run -> "print the job script, and write and submit nothing."

/// `patchup study`
[<RequireQualifiedAccess>]
type StudyArguments =
    | [<MainCommand; Unique>] Name of name: string
    | [<Unique>] Scale of name: string
    | [<Unique>] Data of path: string
    | [<Unique>] Seeds of count: int
    | Base of setting: string
    | [<Unique>] Out of folder: string
    | [<Unique>] Jobs of runs: int
    | [<Unique>] Sweep of file: string
    | Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Name _ -> "a study; without it all are listed."
            | Scale _ ->
                "demo, a narrow network and few images in minutes, or paper, the published schedule, network and data set (default demo)."
            | Data _ ->
                "an archive or a folder of images as for train; at the paper's scale the data set that the study is of (default: the \
                 images in the program)."
            | Seeds _ ->
                "how many seeds: 0, 1, ... (default: 2, or 5 at the paper's scale, and 1 where a setting is searched for)."
            | Base _ ->
                "a setting of all runs instead of the scale's, such as epochs=3 or device=cpu, by its name in a sweep; may be repeated."
            | Out _ ->
                $"the folder for results; runs found finished there are not done again (default {TrainingArguments.DefaultOut}/study/NAME)."
            | Jobs _ ->
                "how many runs go on at the same time; results do not depend on it, but times do, which are measured one at a time \
                 (default: as many as the processors have room for)."
            | Sweep _ ->
                "write the study's runs as a sweep to this file, for 'patchup sweep', and do none; with the same folder the study then shows them."
            | Json -> "print JSON instead of tables."

/// The command line's words.
[<RequireQualifiedAccess>]
module Arguments =

    /// What the user gets who asks for help instead of doing something.
    exception Help of string

    let private width = 110

    /// The options of a parser, each with its leading hyphens.
    let private optionsOf (parser: ArgumentParser<'a>) : string list =
        [ for case in parser.GetArgumentCases() do
              yield! case.CommandLineNames.Value ]

    let private helpFlags = [ "--help"; "-h" ]

    /// Argu's message without the usage below it; for an unknown option also what there is.
    let private refuse (verb: string) (options: string list) (error: ArguParseException) : 'a =
        let first = error.Message.Split('\n')[0]

        let line =
            (if first.StartsWith "ERROR: " then
                 first.Substring 7
             else
                 first)
                .TrimEnd('.', ' ')

        if line.StartsWith "unrecognized" then
            let allowed = String.Join(", ", options)
            Errors.user $"{verb}: {line}; the options are {allowed}, and 'patchup {verb} --help' explains them."
        else
            Errors.user $"{verb}: {line}; 'patchup {verb} --help' explains the options."

    let private parser<'a when 'a :> IArgParserTemplate> (verb: string) : ArgumentParser<'a> =
        ArgumentParser.Create<'a>(
            programName = $"patchup {verb}",
            usageStringCharacterWidth = width,
            checkStructure = false
        )

    /// Parses a verb's arguments.
    let parse<'a when 'a :> IArgParserTemplate> (verb: string) (argv: string[]) : ParseResults<'a> =
        let parser = parser<'a> verb

        if argv |> Array.exists (fun argument -> List.contains argument helpFlags) then
            raise (Help(parser.PrintUsage()))

        try
            parser.ParseCommandLine(argv, raiseOnUsage = false)
        with :? ArguParseException as error ->
            refuse verb (optionsOf parser) error

    /// Parses the arguments of a verb that trains: its own, and the shared ones.
    let parseTraining<'a when 'a :> IArgParserTemplate>
        (verb: string)
        (argv: string[])
        : ParseResults<'a> * ParseResults<TrainingArguments> =
        let own = parser<'a> verb
        let shared = parser<TrainingArguments> verb

        if argv |> Array.exists (fun argument -> List.contains argument helpFlags) then
            raise (Help(own.PrintUsage() + "\nOF THE TRAINING:\n" + shared.PrintUsage(hideSyntax = true)))

        try
            let training =
                shared.ParseCommandLine(argv, raiseOnUsage = false, ignoreUnrecognized = true)

            own.ParseCommandLine(Array.ofList training.UnrecognizedCliParams, raiseOnUsage = false), training
        with :? ArguParseException as error ->
            refuse verb (optionsOf own @ optionsOf shared) error

    /// The parts between the commas that stand in no parentheses, brackets or quotation marks, trimmed.
    let splitAtTopLevel (text: string) : string list =
        let step (depth: int, quoted: bool, part: string, parts: string list) (c: char) =
            match c with
            | ',' when depth = 0 && not quoted -> 0, false, "", part :: parts
            | '"' -> depth, not quoted, part + "\"", parts
            | '('
            | '[' when not quoted -> depth + 1, quoted, part + string c, parts
            | ')'
            | ']' when not quoted -> depth - 1, quoted, part + string c, parts
            | _ -> depth, quoted, part + string c, parts

        let _, _, last, parts = Seq.fold step (0, false, "", []) text
        last :: parts |> List.rev |> List.map _.Trim()

    /// A catalogue name with its loss, or a line of notation, which is trained with cross-entropy and is its own name.
    let method' (text: string) : Method =
        let text =
            String.Join(' ', text.Split((null: char[]), StringSplitOptions.RemoveEmptyEntries))

        match Catalogue.tryFind text, Catalogue.parse text with
        | Some known, _ -> known
        | None, Ok regularizer ->
            { Name = text
              Regularizer = regularizer
              Loss = CrossEntropy
              CleanLoss = 0.0
              Paper = "" }
        | None, Error error ->
            Errors.user
                $"the method \"{text}\" cannot be read {string(error).TrimEnd '.'}; 'patchup methods' lists the names."

    /// Several methods with commas between, each named once.
    let methods (text: string) : Method list =
        let names = splitAtTopLevel text

        match names |> List.countBy id |> List.tryFind (fun (_, count) -> count > 1) with
        | Some(name, _) -> Errors.user $"the method \"{name}\" is listed twice; list it once."
        | None -> List.map method' names

    /// The configuration for images in files that are brought to this side: all of them, and no padding.
    let private inFiles (side: int) (config: Config) : Config =
        { config with
            ImageSize = Some side
            TrainPerClass = 0
            TestPerClass = 0
            CropPadding = 0 }

    /// The configuration of a file: its method and its network's width are whole where it names one part of them.
    let private configOf (path: string) : Config =
        let config, named = ConfigFile.read path
        let has = named.Contains

        let config =
            { config with
                Device = (if has "device" then config.Device else Device.names.Head) }

        let config =
            if config.ImageSize.IsNone then
                config
            else
                let standard = inFiles config.ImageSize.Value config

                { standard with
                    TrainPerClass =
                        (if has "trainPerClass" then
                             config.TrainPerClass
                         else
                             standard.TrainPerClass)
                    TestPerClass =
                        (if has "testPerClass" then
                             config.TestPerClass
                         else
                             standard.TestPerClass)
                    CropPadding =
                        (if has "cropPadding" then
                             config.CropPadding
                         else
                             standard.CropPadding) }

        let config =
            if has "model" && not (has "width") then
                { config with
                    Width = (Architectures.find config.Model).Width |> Option.bind (fun _ -> config.Width) }
            else
                config

        if has "method" || has "notation" then
            let method' = method' (if has "method" then config.Method else config.Notation)
            let whole = Config.withMethod method' config

            if has "notation" && config.Notation <> whole.Notation then
                Errors.user
                    $"{path}: {method'.Name} is \"{whole.Notation}\" here, and not the file's notation; leave out one of the two."

            { whole with
                Loss = (if has "loss" then config.Loss else whole.Loss)
                CleanLoss =
                    (if has "cleanLoss" then
                         config.CleanLoss
                     else
                         whole.CleanLoss) }
        else
            config

    /// Whether the shared arguments say, with a preset or a file, that images are mirrored or not.
    let choosesFlip (training: ParseResults<TrainingArguments>) : bool =
        training.Contains Data_Preset
        || training.TryGetResult TrainingArguments.Config
           |> Option.exists (fun path -> (snd (ConfigFile.read path)).Contains "flip")

    /// The configuration that the shared arguments ask for; where they name no file, method, data and seed are still to
    /// be named.
    let config (training: ParseResults<TrainingArguments>) : Config =
        let given =
            training.TryGetResult TrainingArguments.Config
            |> Option.map configOf
            |> Option.defaultValue
                { Config.standard with
                    Device = Device.names.Head }

        let model = training.GetResult(TrainingArguments.Model, given.Model)

        let width =
            if model = given.Model then
                given.Width
            else
                (Architectures.find model).Width
                |> Option.bind (fun _ -> given.Width |> Option.orElse Config.standard.Width)

        let based =
            { given with
                Model = model
                Width = width }

        let based =
            training.TryGetResult Preset
            |> Option.map (fun name -> Config.withPreset name based)
            |> Option.defaultValue based

        let based =
            match training.TryGetResult Data_Preset with
            | Some name -> Config.withData (DataPreset.find name) based
            | None -> based

        let based =
            match training.TryGetResult TrainingArguments.Image_Size with
            | Some side when based.ImageSize <> Some side -> inFiles side based
            | _ -> based

        { based with
            LabelSmoothing = training.GetResult(Label_Smoothing, based.LabelSmoothing)
            TrainPerClass = training.GetResult(Train_Per_Class, based.TrainPerClass)
            TestPerClass = training.GetResult(Test_Per_Class, based.TestPerClass)
            Width = training.TryGetResult TrainingArguments.Width |> Option.orElse based.Width
            Epochs = training.GetResult(Epochs, based.Epochs)
            BatchSize = training.GetResult(Batch_Size, based.BatchSize)
            LearningRate = training.GetResult(Learning_Rate, based.LearningRate)
            Schedule = training.GetResult(Schedule, based.Schedule)
            Warmup = training.GetResult(Warmup, based.Warmup)
            ClipNorm = training.GetResult(Clip_Norm, based.ClipNorm)
            EmaDecay = training.GetResult(Ema, based.EmaDecay)
            Threads = training.GetResult(Threads, based.Threads)
            Device = Device.choose (training.GetResult(TrainingArguments.Device, based.Device)) }

    /// The loss and the weight of the clean loss that the user chose, to which a method's own give way: by an option, else by a preset, else in a file that names no method to which they
    /// would belong.
    let losses (training: ParseResults<TrainingArguments>) : string option * float option =
        let named =
            training.TryGetResult TrainingArguments.Config |> Option.map ConfigFile.read

        let inFile (name: string) (value: Config -> 'a) : 'a option =
            named
            |> Option.filter (fun (_, names) ->
                names.Contains name
                && not (names.Contains "method" || names.Contains "notation"))
            |> Option.map (fst >> value)

        let ofPreset =
            training.TryGetResult Preset |> Option.map (fun _ -> (config training).Loss)

        training.TryGetResult TrainingArguments.Loss
        |> Option.orElse ofPreset
        |> Option.orElse (inFile "loss" _.Loss),
        training.TryGetResult Clean_Loss
        |> Option.orElse (inFile "cleanLoss" _.CleanLoss)
