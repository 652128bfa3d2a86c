namespace PatchUp.Functional

open System

/// The loss of a mixed batch as a weighted sum of the two terms of equation (6), for a per-sample loss l and outputs f:
///
///     L1 = p_u l(f, y_i) + (1 - p_u) l(f, Y)        L2 = l(f, W)
///
/// y_i: the sample's own target; Y: the target of its altered features (equation 7: the partner's, for a soft mix the lambda-mix of both);
/// p_u: the sample's unchanged share; W: the mix of both with weight p_u (equation 8).
type Objective =
    {
        /// The weight of L1.
        First: float
        /// The weight of L2.
        Second: float
    }

[<RequireQualifiedAccess>]
module Objective =

    /// `first` times L1 plus `second` times L2; an ArgumentException unless both are finite, neither is negative, and one is positive.
    let weighted (first: float) (second: float) : Objective =
        let isWeight w = Double.IsFinite w && w >= 0.0

        if not (isWeight first && isWeight second && first + second > 0.0) then
            invalidArg
                (nameof first)
                $"objective {first} {second}: the weights must be finite, not negative, and not both zero."

        { First = first; Second = second }

    /// L2 alone, the default: one loss at the mixed target.
    let reweighted: Objective = { First = 0.0; Second = 1.0 }

    /// L1 + L2: equation (6) as written, and PatchUp's own. For a loss affine in its target it is twice `reweighted`.
    let twoTerm: Objective = { First = 1.0; Second = 1.0 }

    /// L1 alone (the ablation of the paper's table 6).
    let first: Objective = { First = 1.0; Second = 0.0 }

    /// L2 alone (the same ablation): `reweighted` by another name.
    let second: Objective = reweighted
