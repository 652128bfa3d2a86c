module PatchUp.Tests.LawTests

open Expecto
open PatchUp.Functional
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

/// Each law on the library itself, checked once for all tests that want to know.
let verdicts: Map<string, Lazy<Outcome>> =
    Map [ for law in Laws.all -> law.Name, lazy (Law.check Law.defaults Subject.core law) ]

/// The catalogue's methods and a few variants, on which every law that speaks of regularizers is checked too.
let private given =
    [ for method' in Catalogue.all -> method'.Name, method'.Regularizer ]

let private onCore =
    [ for law in Laws.all ->
          testCase $"{law.About}: {law.Name}" (fun () ->
              let outcome = verdicts[law.Name].Value
              expectPassed law.Name outcome

              match outcome with
              | Outcome.Passed(trials, applicable) ->
                  Expect.isTrue (2 * applicable >= trials) $"the law speaks of {applicable} of {trials} cases only"
              | Outcome.Failed _ -> ()) ]

/// Few cases each: these laws have had theirs on generated programs.
let private onCatalogue =
    [ for name, regularizer in given ->
          testCase name (fun () ->
              for law in Laws.all do
                  match law.Kind with
                  | LawKind.Statistical _ -> ()
                  | _ ->
                      let few = { law with Trials = 10 }

                      match Law.checkOn Law.defaults Subject.core regularizer few with
                      | Some outcome -> expectPassed law.Name outcome
                      | None -> ()) ]

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
                "objective"
                "regularizer"
                "relations"
                "network"
                "replay"
                "memory"
                "notation" ]

          Expect.equal (Laws.all |> List.map _.About |> List.distinct) rows "the rows")

      testCase "the suite's chance of a false alarm is below 1e-6" (fun () ->
          let comparisons =
              Laws.all
              |> List.sumBy (fun law ->
                  match law.Kind with
                  // At most 150 comparisons a case: the places of a map, or the outcomes of a draw.
                  | LawKind.Statistical(_, falseAlarm) -> float law.Trials * 150.0 * falseAlarm
                  | _ -> 0.0)

          Expect.isLessThan comparisons 1e-6 "the sum of all bounds") ]

let tests =
    testList
        "laws"
        [ testList "on the library" onCore
          testList "on the catalogue" onCatalogue
          testList "of the laws" meta ]
