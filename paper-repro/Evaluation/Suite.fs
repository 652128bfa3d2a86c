namespace PatchUp.Repro

open System
open PatchUp.Functional
open System.Text.Json.Nodes

/// What a suite found of a candidate.
[<NoEquality; NoComparison>]
type Findings =
    {
        /// Plain values, for the record; read where there are no faults.
        Result: Lazy<JsonNode>
        /// Columns and cells of a line that is put below those of other candidates.
        Line: (string * string) list
        /// What more there is to say, for the console; empty for nothing.
        Text: string
        /// Pictures by name, and what draws each to a path.
        Pictures: (string * (string -> unit)) list
        /// What cannot be true of the numbers; empty where they are sound.
        Faults: string list
    }

/// The network to which the mean corruption error is relative, from its record.
type Baseline =
    {
        /// Its weights file's name.
        Weights: string
        Sha256: string
        /// Of the data set.
        Data: string
        Fingerprint: string
        /// Which of the data set's images it was evaluated on.
        Selection: string
        Seed: int
        Frost: string option
        Errors: CorruptedErrors
    }

/// What suites may depend on beside the candidate.
[<NoEquality; NoComparison>]
type SuiteSettings =
    {
        /// All randomness follows from it.
        Key: Key
        /// Of which the key is made.
        Seed: int
        /// Told how far a long suite is, in a line.
        Report: string -> unit
        /// Which attacks are run.
        Attacks: AttackPreset
        /// Corrupted images that were published, in a folder or an archive; None to corrupt the test images.
        Corrupted: string option
        /// How many of the test images, and of published corrupted ones, were asked for; None for all.
        Images: int option
        /// What is laid over images as frost.
        Frost: FrostTextures
        /// Of the folder of these textures; None where they are generated.
        FrostFingerprint: string option
        /// The network to which the mean corruption error is relative.
        Baseline: Baseline option
    }

/// A part of the evaluation.
[<NoEquality; NoComparison>]
type Suite =
    {
        Name: string
        /// The child of the evaluation's key that is this suite's; it stays, whatever suites there are.
        Child: int
        /// What the suite's numbers are, in a line.
        About: string
        /// Why it cannot be run on a candidate; None where it can.
        Refusal: SuiteSettings -> Candidate -> string option
        Run: SuiteSettings -> Candidate -> Findings
    }
