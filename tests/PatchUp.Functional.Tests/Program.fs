module PatchUp.Tests.Program

open Expecto

let private suite =
    testSequenced
    <| testList
        "PatchUp.Functional"
        [ LawTests.tests
          MutantTests.tests
          Reference.tests
          CoreTests.tests
          PuzzleTests.tests
          HookTests.tests
          FamilyTests.tests
          NotationTests.tests
          DataModelTests.tests
          ModelTests.tests
          ReproTests.tests
          FetchTests.tests
          FormatTests.tests
          StreamTests.tests
          VerdictTests.tests
          EvaluateTests.tests
          TablesTests.tests
          AttackTests.tests
          CorruptionTests.tests
          EngineTests.tests
          SweepTests.tests
          StudyTests.tests
          IdentityTests.tests
          DocsTests.tests
          DeviceTests.tests ]

[<EntryPoint>]
let main args =
    match args with
    | [| "--update-docs" |] ->
        Docs.update ()
        0
    | _ -> runTestsWithCLIArgs [] args suite
