namespace PatchUp.Repro

open PatchUp.Functional

/// Mean and sample standard deviation; a single value has no deviation.
type Spread =
    { Mean: float; Deviation: float option }

/// A mean and half the width of its 95 % confidence interval; a single value has no interval.
type Interval =
    { Centre: float
      HalfWidth: float option }

[<RequireQualifiedAccess>]
module Statistics =

    /// Of at least one value.
    let spread (values: float list) : Spread =
        let mean = List.average values
        let squares = values |> List.sumBy (fun value -> (value - mean) ** 2.0)

        { Mean = mean
          Deviation =
            if values.Length > 1 then
                Some(sqrt (squares / float (values.Length - 1)))
            else
                None }

    /// The two-sided quantile of Student's t distribution: |T| stays below it with probability `level`, at `freedom` >=
    /// 1 degrees of freedom. P(|T| > t) is the distribution function of Beta(freedom/2, 1/2) at freedom / (freedom +
    /// t^2), which is bisected.
    let studentT (level: float) (freedom: int) : float =
        let degrees = float freedom
        let beta = Dist.beta (degrees / 2.0) 0.5

        let rec bisect low high =
            let middle = (low + high) / 2.0

            if middle <= low || middle >= high then
                middle
            elif Dist.cdf beta middle > 1.0 - level then
                bisect low middle
            else
                bisect middle high

        let x = bisect 0.0 1.0
        sqrt (degrees * (1.0 - x) / x)

    /// The mean of the differences `values - baseline`, pair by pair, with its 95 % Student-t interval.
    let pairedDifference (baseline: float list) (values: float list) : Interval =
        let differences = List.map2 (-) values baseline
        let spread = spread differences
        let count = differences.Length

        { Centre = spread.Mean
          HalfWidth =
            spread.Deviation
            |> Option.map (fun deviation -> studentT 0.95 (count - 1) * deviation / sqrt (float count)) }

    /// Wilson's 95 % interval for a share of which so many of so many were seen, within 0 .. 1; of none it is 0 .. 1.
    let wilson (held: int) (total: int) : float * float =
        if total = 0 then
            0.0, 1.0
        else
            let z = 1.959963984540054
            let n = float total
            let p = float held / n
            let spread = 1.0 + z * z / n
            let centre = (p + z * z / (2.0 * n)) / spread
            let half = z / spread * sqrt (p * (1.0 - p) / n + z * z / (4.0 * n * n))
            max 0.0 (centre - half), min 1.0 (centre + half)
