module PatchUp.Tests.LawTests

open Expecto
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

/// Each law on the library itself, checked once for all tests that want to know.
let verdicts: Map<string, Lazy<Outcome>> =
    Map [ for law in Laws.all -> law.Name, lazy (Law.check Law.defaults Subject.core law) ]

let private onCore =
    [ for law in Laws.all ->
          testCase $"{law.About}: {law.Name}" (fun () ->
              let outcome = verdicts[law.Name].Value
              expectPassed law.Name outcome

              match outcome with
              | Outcome.Passed(trials, applicable) ->
                  Expect.isTrue (2 * applicable >= trials) $"the law speaks of {applicable} of {trials} cases only"
              | Outcome.Failed _ -> ()) ]

/// Fails with every broken law and its counterexample.
let expectKept (report: Report) =
    if not report.Broken.IsEmpty then
        report.Outcomes
        |> List.filter (fun (law, _) -> List.exists (fun (broken: Law) -> broken.Name = law.Name) report.Broken)
        |> List.map (fun (law, outcome) -> Law.show report.Options law outcome)
        |> String.concat "\n"
        |> failtest

/// Few cases each: these laws have had theirs on generated programs.
let private onCatalogue =
    let few = { Laws.defaults with Effort = 0.04 }

    [ for method' in Catalogue.all ->
          testCase method'.Name (fun () ->
              expectKept (Laws.checkWith few method'.Regularizer)
              expectKept (Laws.checkLoss method'.Loss)) ]

/// Whatever program one writes, `Laws.check` calls no law broken: of every kind, on shapes and types of one's choice.
let private onAnything =
    let statistical (law: Law) =
        match law.Kind with
        | LawKind.Statistical _ -> true
        | _ -> false

    let kept options (program: Regularizer) =
        Laws.all
        |> Seq.filter (statistical >> not)
        |> Seq.map (fun law ->
            match Law.checkOn options Subject.core program law with
            | Some(Outcome.Failed counterexample) -> Verdict.Broken $"{law.Name}: {counterexample}"
            | Some(Outcome.Passed _) -> Verdict.Kept
            | None -> Verdict.NotApplicable)
        |> Verdict.all

    let little =
        { Laws.defaults with
            Effort = 0.01
            Shrink = false }

    let large =
        { little with
            Shapes = [ shapeOf 3 16 11; shapeOf 16 4 4 ]
            Precisions = [ Precision.BFloat16 ] }

    [ forAll "small shapes, all types" 60 Generators.regularizer (kept little)
      forAll "given shapes and types" 20 Generators.regularizer (kept large) ]

let private meta =
    [ testCase "laws have different names" (fun () ->
          let names = Laws.all |> List.map _.Name
          Expect.equal (List.distinct names).Length names.Length "different names")

      testCase "every row of the law table has its laws" (fun () ->
          let rows =
              [ "Key"
                "Mask"
                "hard mix"
                "soft mix"
                "labels"
                "loss"
                "objective"
                "regularizer"
                "relations"
                "network"
                "replay"
                "memory"
                "notation" ]

          Expect.equal (Laws.all |> List.map _.About |> List.distinct) rows "the rows")

      testCase "the suite's chance of a false alarm is below 1e-6" (fun () ->
          let chance options =
              Laws.all |> List.sumBy (Law.falseAlarm options)

          Expect.isLessThan (chance Law.defaults) 1e-6 "of the library's run"
          Expect.isGreaterThan (chance Law.defaults) 1e-7 "and no fantasy"

          let large =
              { Laws.defaults with
                  Shapes = [ shapeOf 1 32 32 ] }

          Expect.isGreaterThan (chance large) (chance Laws.defaults) "more places, more comparisons") ]

let tests =
    testList
        "laws"
        [ testList "on the library" onCore
          testList "on the catalogue" onCatalogue
          testList "on anything" onAnything
          testList "of the laws" meta ]
