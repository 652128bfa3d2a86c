namespace PatchUp.Functional.Laws

open FsCheck
open TorchSharp
open PatchUp.Functional

/// Laws of losses at soft targets.
module LossLaws =

    let private law name trials statement (check: Subject -> LossTrial -> Verdict) =
        { About = "loss"
          Name = name
          Statement = statement
          Kind = LawKind.Exact
          Trials = trials
          Check = OfLoss(Generators.loss, check) }

    /// What a trial describes: standard normal logits and rows of targets, both `[N,K]`.
    let private inputs (trial: LossTrial) : torch.Tensor * torch.Tensor =
        let like: Trial =
            { Regularizer = Regularizer.identity
              Key = trial.Data
              First = 0
              Count = trial.Count
              Classes = trial.Classes
              Shape = { Channels = 1; Height = 1; Width = 1 }
              Rank = 2
              Precision = trial.Precision
              Targets = trial.Targets
              Wild = false
              Data = trial.Data }

        let typed (rows: torch.Tensor) = rows.``to`` (Trial.elementType like)
        typed (Trial.logits like), typed (Trial.softTargets like).Soft

    let oneNumber =
        law "a loss is one number a sample" 60 "l(f, y) is [N], of the logits' type, and finite" (fun s trial ->
            let logits, rows = inputs trial
            let found = s.PerSample trial.Loss logits rows

            [ Verdict.equal "the size" [ trial.Count ] (Read.size found)
              Verdict.equal "the type" logits.dtype found.dtype
              Verdict.require (Read.values found |> Array.forall System.Double.IsFinite) (fun () ->
                  "a sample's loss is not finite.") ]
            |> Verdict.all)

    let samplesApart =
        law
            "a sample's loss is its own"
            60
            "l(f, y) of sample n in a batch = l(f_n, y_n) of that sample alone"
            (fun s trial ->
                let logits, rows = inputs trial
                let row (t: torch.Tensor) n = t.narrow (0L, int64 n, 1L)

                let alone =
                    Array.init trial.Count (fun n -> Read.values (s.PerSample trial.Loss (row logits n) (row rows n)))
                    |> Array.concat

                Verdict.near
                    "the losses in the batch"
                    1e-5
                    1e-7
                    alone
                    (Read.values (s.PerSample trial.Loss logits rows)))

    let affine =
        law
            "a loss that is declared affine is"
            100
            "l(f, t y + (1 - t) y') = t l(f, y) + (1 - t) l(f, y')"
            (fun s trial ->
                if not (Loss.isAffine trial.Loss) then
                    Verdict.NotApplicable
                else
                    let logits, rows =
                        inputs
                            { trial with
                                LossTrial.Precision = Precision.Double }

                    let other = rows.roll (1L, 1L)
                    let t = (Key.stream (Key.child 9 trial.Data)).Float()

                    let at rows =
                        Read.values (s.PerSample trial.Loss logits rows)

                    let between =
                        at (Scope.add (rows * Scope.number t) (other * Scope.number (1.0 - t)))

                    let mixed = Array.map2 (fun a b -> t * a + (1.0 - t) * b) (at rows) (at other)
                    Verdict.near $"the loss at {t:G3} y + {1.0 - t:G3} y'" 1e-9 1e-9 mixed between)

    let repeatable =
        law
            "a loss is the same every time"
            60
            "l(f, y) = l(f, y), bit for bit, and f and y stay as they are"
            (fun s trial ->
                let logits, rows = inputs trial
                let before = Read.bytes logits, Read.bytes rows
                let first = Read.bytes (s.PerSample trial.Loss logits rows)

                [ Verdict.require ((Read.bytes logits, Read.bytes rows) = before) (fun () ->
                      "the logits or the targets have changed.")
                  Verdict.require (Read.bytes (s.PerSample trial.Loss logits rows) = first) (fun () ->
                      "the loss taken again is another one.") ]
                |> Verdict.all)

    let gradient =
        law
            "a loss has the gradient of its value"
            40
            "(l(f + h e) - l(f - h e)) / 2h = dl/df e within 1e-6, in float64"
            (fun s trial ->
                let logits, rows =
                    inputs
                        { trial with
                            LossTrial.Precision = Precision.Double }

                let total (logits: torch.Tensor) =
                    (s.PerSample trial.Loss logits rows).sum()

                let logits = logits.requires_grad_ true
                let value = total logits

                if not value.requires_grad then
                    Verdict.Broken "no gradient reaches the logits."
                else
                    value.backward ()
                    let found = Read.values logits.grad
                    let values = Read.values logits

                    let moved i h =
                        let copy = Array.copy values
                        copy[i] <- copy[i] + h
                        (Read.values (total (torch.tensor (copy, System.ReadOnlySpan logits.shape))))[0]

                    let h = 1e-5

                    let slopes =
                        Array.init values.Length (fun i -> (moved i h - moved i -h) / (2.0 * h))

                    Verdict.near "the derivative by each logit" 1e-6 1e-8 slopes found)

    let all = [ oneNumber; samplesApart; affine; repeatable; gradient ]
