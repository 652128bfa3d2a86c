using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;
using PatchUp.Functional.Laws;

namespace PatchUp.Functional.CSharp;

/// <summary>Whether something does what its formula says.</summary>
public static class LawChecks
{
    /// <summary>
    /// Checks every law that speaks of regularizers, of regions or of distributions on this one. A report's text holds every law with its verdict,
    /// and a small counterexample where one is broken; <c>Broken</c> is empty where all are kept.
    /// </summary>
    /// <param name="regularizer">What is checked.</param>
    /// <param name="effort">The share of each law's own number of cases; a fifth by default.</param>
    /// <param name="shapes">The features' shapes; small ones of all proportions by default.</param>
    /// <param name="precisions">The features' types; all by default.</param>
    /// <param name="seeds">What the cases are generated from; always the same by default.</param>
    /// <param name="mixing">A mixing function of one's own in the place of the library's.</param>
    /// <exception cref="ArgumentException">The effort is not positive, or there are no seeds.</exception>
    public static Report CheckLaws(
        this Regularizer regularizer,
        double? effort = null,
        IReadOnlyList<Shape>? shapes = null,
        IReadOnlyList<Precision>? precisions = null,
        IReadOnlyList<ulong>? seeds = null,
        Func<Plan, Batch, Batch>? mixing = null)
    {
        var standard = Laws.Laws.defaults;
        var options = new CheckOptions(
            seeds is null ? standard.Seeds : ListModule.OfSeq(seeds),
            standard.Shrink,
            effort ?? standard.Effort,
            ListModule.OfSeq(shapes ?? []),
            ListModule.OfSeq(precisions ?? []),
            standard.Progress);
        var subject = mixing is null ? SubjectModule.core : SubjectModule.mixing(FuncConvert.FromFunc(mixing));
        return Laws.Laws.checkOn(options, subject, regularizer);
    }

    /// <summary>Checks every law of losses on this one.</summary>
    public static Report CheckLaws(this Loss loss) => Laws.Laws.checkLoss(loss);
}
