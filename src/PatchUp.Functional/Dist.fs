namespace PatchUp.Functional

open System

/// What custom parts of a regularizer share: names that the notation can write, and arguments that it can write.
module internal CustomName =

    /// An ArgumentException unless the name is letters, digits and inner hyphens, and the arguments are finite.
    let check (name: string) (arguments: float list) : unit =
        let isName =
            name.Length > 0
            && Char.IsAsciiLetter name[0]
            && not (name.EndsWith '-')
            && name |> Seq.forall (fun c -> Char.IsAsciiLetterOrDigit c || c = '-')

        if not isName then
            invalidArg
                (nameof name)
                $"\"{name}\": a custom's name is letters, digits and inner hyphens, beginning with a letter."

        match arguments |> List.tryFind (Double.IsFinite >> not) with
        | Some value -> invalidArg (nameof arguments) $"{name}: its argument {value} is not a finite number."
        | None -> ()

/// A distribution nobody foresaw: a name, its arguments and what is needed of it. Two are equal when name and arguments are.
[<CustomEquality; NoComparison>]
type CustomDist =
    {
        Name: string
        Arguments: float list
        Mean: float
        /// P(X <= x) for 0 <= x < 1.
        Cdf: float -> float
        /// One number of [0, 1], from the stream and nothing else.
        Sample: Stream -> float
    }

    override this.Equals other =
        match other with
        | :? CustomDist as that -> this.Name = that.Name && this.Arguments = that.Arguments
        | _ -> false

    override this.GetHashCode() = hash (this.Name, this.Arguments)

/// A distribution on [0, 1]: of a rectangle's area, or of lambda.
type Dist =
    /// One number, always.
    | Always of value: float
    /// Uniform on [0, 1]; the same numbers as Beta(1, 1) in law.
    | Uniform
    /// Beta(a, b).
    | Beta of a: float * b: float
    | CustomDist of CustomDist

[<RequireQualifiedAccess>]
module Dist =

    /// `value` always; an ArgumentException unless 0 <= value <= 1.
    let always (value: float) : Dist =
        if not (value >= 0.0 && value <= 1.0) then
            invalidArg (nameof value) $"always {value}: the value must lie in [0, 1]."

        Always value

    /// Beta(a, b); an ArgumentException unless both are positive and finite.
    let beta (a: float) (b: float) : Dist =
        if not (a > 0.0 && b > 0.0 && Double.IsFinite a && Double.IsFinite b) then
            invalidArg (nameof a) $"beta {a} {b}: both parameters must be positive and finite."

        Beta(a, b)

    /// The one whose numbers lie this share of the way from those of one to those of the other; None where they are of two kinds.
    let internal between (share: float) (one: Dist) (other: Dist) : Dist option =
        let number a b = a + share * (b - a)

        match one, other with
        | _ when one = other -> Some one
        | Always a, Always b -> Some(Always(number a b))
        | Beta(a, b), Beta(c, d) -> Some(Beta(number a c, number b d))
        | _ -> None

    /// A custom distribution; an ArgumentException unless its name is letters, digits and inner hyphens, its arguments are finite, and its
    /// mean lies in [0, 1].
    let custom (custom: CustomDist) : Dist =
        CustomName.check custom.Name custom.Arguments

        if not (custom.Mean >= 0.0 && custom.Mean <= 1.0) then
            invalidArg (nameof custom) $"{custom.Name}: its mean {custom.Mean} must lie in [0, 1]."

        CustomDist custom

    /// The mean.
    let mean (dist: Dist) : float =
        match dist with
        | Always value -> value
        | Uniform -> 0.5
        | Beta(a, b) -> a / (a + b)
        | CustomDist custom -> custom.Mean

    /// The logarithm of a Gamma(a, 1) number (Marsaglia and Tsang 2000); in logarithms, so that a small `a` cannot underflow.
    let rec private logGamma (bits: Stream) (a: float) : float =
        if a < 1.0 then
            logGamma bits (a + 1.0) + log (bits.Open()) / a
        else
            let d = a - 1.0 / 3.0
            let c = 1.0 / sqrt (9.0 * d)
            let mutable result = nan

            while Double.IsNaN result do
                let x = bits.Normal()
                let v = pown (1.0 + c * x) 3

                if v > 0.0 && log (bits.Open()) < 0.5 * x * x + d - d * v + d * log v then
                    result <- log d + log v

            result

    /// One number drawn from the stream; an InvalidOperationException if a custom distribution draws one outside [0, 1].
    let sample (bits: Stream) (dist: Dist) : float =
        match dist with
        | Always value -> value
        | Uniform -> bits.Float()
        | Beta(a, b) ->
            let x = logGamma bits a
            let y = logGamma bits b
            1.0 / (1.0 + exp (y - x))
        | CustomDist custom ->
            let value = custom.Sample bits

            if not (value >= 0.0 && value <= 1.0) then
                invalidOp $"The custom distribution {custom.Name} drew {value}; its numbers must lie in [0, 1]."

            value

    /// log Gamma(x) for x > 0 (Lanczos, g = 7, nine terms; relative error below 1e-13).
    let private lnGamma (x: float) : float =
        let c =
            [| 676.5203681218851
               -1259.1392167224028
               771.32342877765313
               -176.61502916214059
               12.507343278686905
               -0.13857109526572012
               9.9843695780195716e-6
               1.5056327351493116e-7 |]

        let rec positive x =
            if x < 0.5 then
                log (Math.PI / sin (Math.PI * x)) - positive (1.0 - x)
            else
                let x = x - 1.0
                let t = x + 7.5
                let mutable sum = 0.99999999999980993

                for i in 0..7 do
                    sum <- sum + c[i] / (x + float (i + 1))

                0.5 * log (2.0 * Math.PI) + (x + 0.5) * log t - t + log sum

        positive x

    /// The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction.
    let private incompleteBeta (a: float) (b: float) (x: float) : float =
        let fraction a b x =
            let guard v = if abs v < 1e-300 then 1e-300 else v

            // The even and the odd coefficient of the fraction's m-th pair.
            let even m =
                m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))

            let odd m =
                -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))

            let step struct (c, d, h) k =
                let d = 1.0 / guard (1.0 + k * d)
                let c = guard (1.0 + k / c)
                struct (c, d, h * d * c)

            let rec converge (struct (_, _, before) as state) m =
                let struct (c, d, h) = step (step state (even m)) (odd m)

                if abs (c * d - 1.0) < 1e-15 || m > 10000.0 || h = before then
                    h
                else
                    converge (struct (c, d, h)) (m + 1.0)

            let d = 1.0 / guard (1.0 - (a + b) * x / (a + 1.0))
            converge (struct (1.0, d, d)) 1.0

        let front =
            exp (lnGamma (a + b) - lnGamma a - lnGamma b + a * log x + b * log (1.0 - x))

        if x < (a + 1.0) / (a + b + 2.0) then
            front * fraction a b x / a
        else
            1.0 - front * fraction b a (1.0 - x) / b

    /// P(X <= x).
    let cdf (dist: Dist) (x: float) : float =
        match dist with
        | Always value -> if x >= value then 1.0 else 0.0
        | _ when x < 0.0 -> 0.0
        | _ when x >= 1.0 -> 1.0
        | Uniform -> x
        | Beta _ when x = 0.0 -> 0.0
        | Beta(a, b) -> incompleteBeta a b x
        | CustomDist custom -> custom.Cdf x
