module PatchUp.Tests.Fixtures

open System
open System.IO
open System.Reflection
open Expecto
open FsCheck
open FsCheck.FSharp
open PatchUp.Functional
open PatchUp.Functional.Laws

/// The seed of every generated test: a run is repeated exactly.
let seed = Law.defaults.Seeds.Head

/// What comes of an FsCheck property over `trials` cases.
let outcome name trials (property: Property) : Outcome =
    let law =
        { About = "test"
          Name = name
          Statement = name
          Kind = LawKind.Exact
          Trials = trials
          Check = OfLibrary(fun _ -> property) }

    Law.check Law.defaults Subject.core law

/// Fails with the shrunk counterexample, the reason and the seed.
let expectPassed name outcome =
    match outcome with
    | Outcome.Passed _ -> ()
    | Outcome.Failed counterexample ->
        failtest $"{name} does not hold:\n{counterexample}\n(seed {counterexample.Seed}UL)"

/// An Expecto test of an FsCheck property over `trials` cases.
let property (name: string) (trials: int) (prop: Property) : Test =
    testCase name (fun () -> outcome name trials prop |> expectPassed name)

/// An Expecto test of a verdict over `trials` cases that an arbitrary makes.
let forAll (name: string) (trials: int) (cases: Arbitrary<'case>) (check: 'case -> Verdict) : Test =
    property name trials (Law.forAll cases check)

/// A plane, or several.
let shapeOf channels height width : Shape =
    { Channels = channels
      Height = height
      Width = width }

/// Fails unless two numbers are within `tolerance`.
let expectNear (tolerance: float) (actual: float) (expected: float) (what: string) =
    if not (abs (actual - expected) <= tolerance) then
        failtest $"{what}: {actual} where {expected} was expected, within {tolerance}."

/// Fails unless the call raises an ArgumentException whose message holds every one of these texts.
let expectRefused (texts: string list) (call: unit -> 'v) =
    let message =
        try
            call () |> ignore
            None
        with :? ArgumentException as e ->
            Some e.Message

    match message with
    | None -> failtest "the call was expected to raise an ArgumentException."
    | Some message ->
        for text in texts do
            Expect.stringContains message text "the message"

/// The text of an embedded file.
let embedded (name: string) : string =
    let assembly = Assembly.GetExecutingAssembly()

    let full =
        assembly.GetManifestResourceNames()
        |> Array.find (fun resource -> resource.EndsWith(name, StringComparison.Ordinal))

    use reader = new StreamReader(assembly.GetManifestResourceStream full)
    reader.ReadToEnd()
