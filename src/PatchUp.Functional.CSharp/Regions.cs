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

    /// <summary>The expected altered fraction on a map of <paramref name="height"/> x <paramref name="width"/>, in closed form.</summary>
    public static double ExpectedFraction(this Region region, int height, int width) =>
        RegionModule.fraction(new Shape(1, height, width), region);
}
