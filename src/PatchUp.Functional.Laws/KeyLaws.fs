namespace PatchUp.Functional.Laws

open System
open FsCheck
open FsCheck.FSharp
open PatchUp.Functional

/// What statistical laws share.
[<RequireQualifiedAccess>]
module Chance =

    /// The chance of a false alarm of one comparison.
    let falseAlarm = 2e-11

    /// How far the mean of `n` independent numbers of [0, 1] may stray from its expectation (Hoeffding 1963):
    /// P(|mean - expectation| > t) <= 2 exp(-2 n t^2).
    let tolerance (n: int) : float =
        sqrt (log (2.0 / falseAlarm) / (2.0 * float n))

    /// The kind of a law whose means are taken over `n` numbers.
    let kind (n: int) : LawKind =
        LawKind.Statistical(tolerance n, falseAlarm)

    /// Kept if a mean of `n` numbers of [0, 1] is near its expectation.
    let mean (what: string) (n: int) (expected: float) (found: float) : Verdict =
        Verdict.require (abs (found - expected) <= tolerance n) (fun () ->
            $"{what}: {found:G6} where {expected:G6} was expected, within {tolerance n:G3}.")

    /// Kept if the samples' distribution function is near `cdf` (Dvoretzky, Kiefer, Wolfowitz 1956; Massart 1990),
    /// looked at in 200 of them. Left and right limits are looked at, so that rounding to a few values near 0 or 1 is
    /// no failure.
    let distribution (what: string) (cdf: float -> float) (samples: float[]) : Verdict =
        let sorted = Array.sort samples
        let n = sorted.Length
        let share index = float index / float n

        let gap i =
            let x = sorted[i]
            let below = Array.BinarySearch(sorted, x)
            let mutable first = below

            while first > 0 && sorted[first - 1] = x do
                first <- first - 1

            let mutable last = below

            while last < n - 1 && sorted[last + 1] = x do
                last <- last + 1

            max (abs (share (last + 1) - cdf x)) (abs (share first - cdf (Math.BitDecrement x)))

        let gaps = [ 0 .. max 1 (n / 200) .. n - 1 ] |> List.map gap
        let worst = List.max gaps

        // Not by the worst alone: a distribution function that gives NaN is none.
        Verdict.require (gaps |> List.forall (fun gap -> gap <= tolerance n)) (fun () ->
            $"{what}: the distribution is {worst:G6} away from the stated one; {tolerance n:G3} is allowed.")

    /// Kept if `counts` of `n` draws are near their shares.
    let shares (what: string) (expected: float[]) (counts: int[]) : Verdict =
        let n = Array.sum counts

        Array.zip expected counts
        |> Seq.mapi (fun i (share, count) -> mean $"{what}, share of outcome {i}" n share (float count / float n))
        |> Verdict.all

/// Laws of randomness as a value.
module KeyLaws =

    let private law name kind trials statement check =
        { About = "Key"
          Name = name
          Statement = statement
          Kind = kind
          Trials = trials
          Check = OfLibrary check }

    let private exact name statement check =
        law name LawKind.Exact 100 statement check

    let private statistical name draws trials statement check =
        law name (Chance.kind draws) trials statement check

    let private keys = Generators.key

    let private keysAndIndices: Arbitrary<Key * int> =
        Arb.fromGen (Gen.zip keys.Generator (Gen.choose (Int32.MinValue, Int32.MaxValue)))

    let childrenDiffer =
        exact "distinct children differ" "child i k <> child j k for i <> j" (fun s ->
            Law.forAll keysAndIndices (fun (key, i) ->
                let others = -i :: ~~~i :: [ for bit in 0..31 -> i ^^^ (1 <<< bit) ]

                match others |> List.tryFind (fun j -> j <> i && s.Child i key = s.Child j key) with
                | Some j -> Verdict.Broken $"children {i} and {j} are the same key."
                | None -> Verdict.Kept))

    let parentsDiffer =
        exact "distinct keys have distinct children" "child i k <> child i k' for k <> k'" (fun s ->
            Law.forAll keysAndIndices (fun (key, i) ->
                let others = [ for bit in 0..63 -> { State = key.State ^^^ (1UL <<< bit) } ]

                match others |> List.tryFind (fun other -> s.Child i key = s.Child i other) with
                | Some other -> Verdict.Broken $"child {i} of {key} and of {other} are the same key."
                | None -> Verdict.Kept))

    let splitMix =
        law
            "the sequence is SplitMix64"
            LawKind.Exact
            1
            "the words of the keys 1234567 and 0 are the published vectors of splitmix64.c (S. Vigna)"
            (fun s ->
                let published =
                    [ 1234567UL,
                      [| 6457827717110365317UL
                         3203168211198807973UL
                         9817491932198370423UL
                         4593380528125082431UL
                         16408922859458223821UL |]
                      0UL, [| 0xE220A8397B1DCDAFUL; 0x6E789E6AA1B965F4UL; 0x06C45D188009454FUL |] ]

                Law.forAll (Arb.fromGen (Gen.constant ())) (fun () ->
                    published
                    |> Seq.map (fun (state, words) ->
                        Verdict.equal $"the words of {state}" words (s.Words words.Length { State = state }))
                    |> Verdict.all))

    let sameKeySameDraw =
        exact "same key, same draw" "words n k = words n k, and words n k begins words (n + m) k" (fun s ->
            Law.forAll keys (fun key ->
                let words = s.Words 8 key

                [ Verdict.equal "the words drawn again" words (s.Words 8 key)
                  Verdict.equal "the first words of a longer draw" words (s.Words 20 key |> Array.take 8)
                  Verdict.equal "the child taken again" (s.Child 3 key) (s.Child 3 key) ]
                |> Verdict.all))

    let noOverlap =
        exact
            "sequences of a key and its children do not overlap"
            "the first 64 words of k and of its first 16 children are 1088 different words"
            (fun s ->
                Law.forAll keys (fun key ->
                    let all =
                        key :: [ for i in 0..15 -> s.Child i key ]
                        |> List.map (s.Words 64)
                        |> Array.concat

                    Verdict.equal "the number of different words" all.Length (Array.distinct all).Length))

    let permutation =
        exact "a permutation is one" "sort (permutation n k) = 0 .. n - 1" (fun s ->
            Law.forAll (Arb.fromGen (Gen.zip keys.Generator (Gen.choose (1, 40)))) (fun (key, n) ->
                Verdict.equal "the sorted permutation" [| 0 .. n - 1 |] (Array.sort (s.Permutation n key))))

    let uniformPermutation =
        statistical
            "permutations are uniform"
            100000
            2
            "each of the 24 permutations of 4 has probability 1/24"
            (fun s ->
                Law.forAll keys (fun key ->
                    let found =
                        Array.init 100000 (fun i -> s.Permutation 4 (Key.child i key))
                        |> Array.countBy id
                        |> Map

                    let all =
                        [| for a in 0..3 do
                               for b in 0..3 do
                                   for c in 0..3 do
                                       for d in 0..3 do
                                           if List.distinct [ a; b; c; d ] |> List.length = 4 then
                                               [| a; b; c; d |] |]

                    all
                    |> Array.map (fun order -> found.TryFind order |> Option.defaultValue 0)
                    |> Chance.shares "permutations of 4" (Array.create 24 (1.0 / 24.0))))

    let uniformFloats =
        statistical
            "numbers are uniform"
            100000
            3
            "u ~ Uniform[0, 1): distribution function, mean 1/2, mean square 1/3, and E[u u'] = 1/4 for neighbours"
            (fun s ->
                Law.forAll keys (fun key ->
                    let n = 100000
                    let u = s.Floats n key
                    let pairs = Array.chunkBySize 2 u |> Array.map (fun pair -> pair[0] * pair[1])

                    [ Verdict.require (u |> Array.forall (fun u -> u >= 0.0 && u < 1.0)) (fun () ->
                          "a number lies outside [0, 1).")
                      Chance.distribution "numbers" id u
                      Chance.mean "the mean" n 0.5 (Array.average u)
                      Chance.mean "the mean square" n (1.0 / 3.0) (u |> Array.averageBy (fun u -> u * u))
                      Chance.mean "the mean product of neighbours" pairs.Length 0.25 (Array.average pairs) ]
                    |> Verdict.all))

    let uniformAcrossChildren =
        statistical
            "children are uniform"
            100000
            3
            "the first numbers of the children 0 .. n - 1 of a key are uniform and uncorrelated"
            (fun s ->
                Law.forAll keys (fun key ->
                    let n = 100000
                    let u = Array.init n (fun i -> (s.Floats 1 (s.Child i key))[0])
                    let pairs = Array.chunkBySize 2 u |> Array.map (fun pair -> pair[0] * pair[1])

                    [ Chance.distribution "first numbers of children" id u
                      Chance.mean "the mean product of neighbours" pairs.Length 0.25 (Array.average pairs) ]
                    |> Verdict.all))

    let uniformBelow =
        statistical "whole numbers are uniform" 100000 1 "below n is uniform on 0 .. n - 1, for large n too" (fun s ->
            let uniform key bound =
                let found = s.Below bound 100000 key

                // Thirds of the range, by the exact number of integers in each.
                let groups = min bound 3

                let group (v: int) =
                    int (int64 v * int64 groups / int64 bound)

                let start g =
                    (int64 g * int64 bound + int64 groups - 1L) / int64 groups

                let shares =
                    Array.init groups (fun g -> float (start (g + 1) - start g) / float bound)

                [ Verdict.require (found |> Array.forall (fun v -> v >= 0 && v < bound)) (fun () ->
                      $"a number lies outside 0 .. {bound - 1}.")
                  Array.init groups (fun g -> found |> Seq.filter (fun v -> group v = g) |> Seq.length)
                  |> Chance.shares $"thirds of 0 .. {bound - 1}" shares ]
                |> Verdict.all

            Law.forAll keys (fun key ->
                [ 2; 3; 5; 7; 3 <<< 29; Int32.MaxValue ] |> Seq.map (uniform key) |> Verdict.all))

    let normal =
        statistical
            "normal numbers"
            100000
            2
            "P(z <= -1) = .158655, P(z <= 0) = .5, P(z <= .5) = .691462, P(z <= 2) = .977250"
            (fun s ->
                Law.forAll keys (fun key ->
                    let z = s.Normals 100000 key

                    [ -1.0, 0.158655; 0.0, 0.5; 0.5, 0.691462; 2.0, 0.977250 ]
                    |> Seq.map (fun (x, p) ->
                        let share = z |> Seq.filter (fun z -> z <= x) |> Seq.length
                        Chance.mean $"P(z <= {x})" z.Length p (float share / float z.Length))
                    |> Verdict.all))

    let private ofDists name kind trials statement check =
        { About = "Key"
          Name = name
          Statement = statement
          Kind = kind
          Trials = trials
          Check = OfDist(Generators.dist, check) }

    let sameKeySameSample =
        ofDists
            "a distribution is drawn from its key"
            LawKind.Exact
            60
            "sample n d k = sample n d k, and sample n d k begins sample (n + m) d k"
            (fun s trial ->
                let samples = s.Sample 8 trial.Dist trial.Key

                [ Verdict.equal "the numbers drawn again" samples (s.Sample 8 trial.Dist trial.Key)
                  Verdict.equal
                      "the first numbers of a longer draw"
                      samples
                      (s.Sample 20 trial.Dist trial.Key |> Array.take 8) ]
                |> Verdict.all)

    let samplesFollowCdf =
        ofDists
            "samples follow their distribution"
            (Chance.kind 50000)
            30
            "P(X <= x) is the stated distribution function: of Beta(a, b) it is I_x(a, b)"
            (fun s trial ->
                match trial.Dist with
                | Always value -> Verdict.equal "samples" [| value; value |] (s.Sample 2 trial.Dist trial.Key)
                | dist ->
                    s.Sample 50000 dist trial.Key
                    |> Chance.distribution (Notation.showDist dist) (s.Cdf dist))

    let meanIsMean =
        ofDists
            "the mean of samples is the stated one"
            (Chance.kind 50000)
            30
            "E[X] = mean d: of Beta(a, b) it is a / (a + b)"
            (fun s trial ->
                s.Sample 50000 trial.Dist trial.Key
                |> Array.average
                |> Chance.mean (Notation.showDist trial.Dist) 50000 (s.Mean trial.Dist))

    let samplesInRange =
        let parameter =
            Gen.frequency
                [ 1, Gen.elements [ 0.001; 1000.0 ]
                  2, Gen.choose (-3000, 3000) |> Gen.map (fun n -> Math.Pow(10.0, float n / 1000.0)) ]

        { About = "Key"
          Name = "samples lie in [0, 1]"
          Statement = "0 <= X <= 1 and X is a number, for parameters from .001 to 1000"
          Kind = LawKind.Exact
          Trials = 60
          Check =
            OfDist(
                Arb.fromGen (Gen.map2 (fun a b -> Beta(a, b)) parameter parameter),
                fun s trial ->
                    match
                        s.Sample 300 trial.Dist trial.Key
                        |> Array.tryFind (fun x -> not (x >= 0.0 && x <= 1.0))
                    with
                    | Some x -> Verdict.Broken $"{Notation.showDist trial.Dist} gave {x}."
                    | None -> Verdict.Kept
            ) }

    let all =
        [ childrenDiffer
          parentsDiffer
          splitMix
          sameKeySameDraw
          noOverlap
          permutation
          uniformPermutation
          uniformFloats
          uniformAcrossChildren
          uniformBelow
          normal
          sameKeySameSample
          samplesInRange
          samplesFollowCdf
          meanIsMean ]
