using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;

namespace PatchUp.Functional.CSharp;

/// <summary>Distributions on [0, 1], of an area or of lambda.</summary>
public static class Dists
{
    /// <summary>Uniform on [0, 1].</summary>
    public static Dist Uniform => Dist.Uniform;

    /// <summary>This value, always.</summary>
    /// <exception cref="ArgumentException">The value lies outside [0, 1].</exception>
    public static Dist Always(double value) => DistModule.always(value);

    /// <summary>Beta(a, b).</summary>
    /// <exception cref="ArgumentException">A parameter is not positive and finite.</exception>
    public static Dist Beta(double a, double b) => DistModule.beta(a, b);

    /// <summary>A distribution of one's own; two are equal when their names and arguments are.</summary>
    /// <param name="name">Letters, digits and inner hyphens.</param>
    /// <param name="arguments">The numbers that it is made of.</param>
    /// <param name="mean">Its mean.</param>
    /// <param name="cdf">P(X &lt;= x) for 0 &lt;= x &lt; 1.</param>
    /// <param name="sample">One number of [0, 1], from the stream and nothing else.</param>
    /// <exception cref="ArgumentException">The name is none, an argument not finite, or the mean outside [0, 1].</exception>
    public static Dist Custom(
        string name, IReadOnlyList<double> arguments, double mean, Func<double, double> cdf, Func<Stream, double> sample) =>
        DistModule.custom(new CustomDist(
            name, ListModule.OfSeq(arguments), mean, FuncConvert.FromFunc(cdf), FuncConvert.FromFunc(sample)));
}

/// <summary>
/// Which features are altered. Regions combine with <c>&amp;</c> (altered by both), <c>|</c> (by either) and <c>!</c> (the others).
/// </summary>
public static class Masks
{
    /// <summary>No feature.</summary>
    public static Region Nowhere => Region.Nowhere;

    /// <summary>Every feature.</summary>
    public static Region Everywhere => Region.Everywhere;

    /// <summary>Each feature by itself, with this probability.</summary>
    /// <exception cref="ArgumentException">The fraction lies outside [0, 1].</exception>
    public static Region Cells(double fraction) => RegionModule.cells(fraction);

    /// <summary>Each channel as a whole, with this probability.</summary>
    /// <exception cref="ArgumentException">The fraction lies outside [0, 1].</exception>
    public static Region Channels(double fraction) => RegionModule.channels(fraction);

    /// <summary>Squares of side <paramref name="size"/> that alter <paramref name="fraction"/> of the map in expectation.</summary>
    /// <exception cref="ArgumentException">The size is below 1, or the fraction outside [0, 1].</exception>
    public static Region Blocks(int size, double fraction) => Blocks(size, fraction, Calibration.Exact);

    /// <summary>Squares of side <paramref name="size"/> with a calibration other than the exact one.</summary>
    /// <exception cref="ArgumentException">The size is below 1, or the fraction outside [0, 1].</exception>
    public static Region Blocks(int size, double fraction, Calibration calibration) =>
        RegionModule.blocks(calibration, size, fraction);

    /// <summary>One rectangle covering this share of the map before it is clipped at the border.</summary>
    /// <exception cref="ArgumentException">The area lies outside [0, 1].</exception>
    public static Region Rect(double area) => Rect(Dists.Always(area));

    /// <summary>One rectangle whose share of the map is drawn.</summary>
    public static Region Rect(Dist area) => Region.NewRect(area);

    /// <summary>A draw of its own for every sample.</summary>
    public static Region PerSample(this Region region) => Region.NewPerSample(region);

    /// <summary>A draw of its own for every channel.</summary>
    public static Region PerChannel(this Region region) => Region.NewPerChannel(region);

    /// <summary>One draw for all channels.</summary>
    public static Region Shared(this Region region) => Region.NewShared(region);

    /// <summary>
    /// A region of one's own; two are equal when their names and arguments are. <see cref="LawChecks"/> tells whether it keeps its word.
    /// </summary>
    /// <param name="name">Letters, digits and inner hyphens.</param>
    /// <param name="arguments">The numbers that it is made of.</param>
    /// <param name="expected">
    /// The probability that the feature at this row and column of a map is altered (for a soft mask: its mean alteration).
    /// </param>
    /// <param name="draw">
    /// The mask <c>[1,C,H,W]</c> of the context's shape, by <see cref="DrawnMasks"/>: a pure function of the context.
    /// </param>
    /// <param name="isSoft">Whether its masks hold numbers of [0, 1]; else they hold bits.</param>
    /// <exception cref="ArgumentException">The name is none, or an argument not finite.</exception>
    public static Region Custom(
        string name,
        IReadOnlyList<double> arguments,
        Func<Shape, int, int, double> expected,
        Func<CustomContext, Mask> draw,
        bool isSoft = false) =>
        Words.custom(new Custom(
            name,
            ListModule.OfSeq(arguments),
            isSoft,
            FuncConvert.FromFunc((Shape shape) => Array2DModule.Initialize(
                shape.Height, shape.Width, FuncConvert.FromFunc((int y, int x) => expected(shape, y, x)))),
            FuncConvert.FromFunc(draw)));

    /// <summary>The expected altered fraction on a map of <paramref name="height"/> x <paramref name="width"/>, in closed form.</summary>
    public static double ExpectedFraction(this Region region, int height, int width) =>
        RegionModule.fraction(new Shape(1, height, width), region);
}

/// <summary>Masks as a custom region draws them.</summary>
public static class DrawnMasks
{
    /// <summary>A mask of bits <c>[samples,C,H,W]</c>, row-major: true stays unchanged, false is altered.</summary>
    /// <exception cref="ArgumentException">There are more or fewer bits.</exception>
    public static Mask Hard(Shape shape, bool[] unchanged, int samples = 1) => MaskModule.hard(samples, shape, unchanged);

    /// <summary>A mask of numbers <c>[samples,C,H,W]</c>, row-major: 1 stays unchanged, 0 is altered.</summary>
    /// <exception cref="ArgumentException">There are more or fewer numbers, or one lies outside [0, 1].</exception>
    public static Mask Soft(Shape shape, float[] unchanged, int samples = 1) => MaskModule.soft(samples, shape, unchanged);

    /// <summary>One plane <c>[1,1,H,W]</c>, unchanged but for a box; what lies outside the map is cut off.</summary>
    public static Mask Box(Shape shape, int top, int left, int height, int width) =>
        MaskModule.box(shape, top, left, height, width);
}
