namespace PatchUp.Repro

/// A number of a golden file that is another one here.
type Disagreement =
    {
        Case: int
        Kind: string
        /// The expected field, such as `hidden`.
        Field: string
        /// Where in the field's data, row-major.
        Index: int
        Expected: float
        Found: float
    }

/// What came of comparing a golden file's cases with this library.
type Verification =
    {
        Cases: int
        Agreeing: int
        /// |found - expected| / max(1, |expected|) over all numbers of all cases; infinite where one of the two is not a number.
        LargestDeviation: float
        /// The worst number of each field that does not agree.
        Disagreements: Disagreement list
    }
