using System.Diagnostics.CodeAnalysis;
using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;

namespace PatchUp.Functional.CSharp;

/// <summary>What is done with a region, with whom, where, and at what loss; each word returns a new value.</summary>
public static class Steps
{
    /// <summary>Takes the features of a random partner, bit for bit.</summary>
    public static Regularizer Swap(this Region region) => Words.swap(region);

    /// <summary>Mixes with a random partner; the sample keeps the share <paramref name="lambda"/>, one for the batch.</summary>
    public static Regularizer Blend(this Region region, Dist lambda) => Words.blend(lambda, region);

    /// <summary>Mixes with a random partner; each sample keeps a share of its own.</summary>
    public static Regularizer BlendEach(this Region region, Dist lambda) => Words.blendEach(lambda, region);

    /// <summary>Sets the features to zero.</summary>
    public static Regularizer Blank(this Region region) => Words.blank(region);

    /// <summary>Chooses the partners.</summary>
    /// <exception cref="ArgumentException">A rescaled step would get a partner.</exception>
    public static Regularizer PairedBy(this Regularizer regularizer, Partner partner) =>
        RegularizerModule.pairedBy(partner, regularizer);

    /// <summary>Shrinks the partner's map into the altered box before mixing.</summary>
    public static Regularizer Resized(this Regularizer regularizer) => Words.resized(regularizer);

    /// <summary>Moves own and partner's cells to where the region says, before mixing: PuzzleMix's.</summary>
    public static Regularizer Transported(this Regularizer regularizer) => Words.transported(regularizer);

    /// <summary>Rescales the features that blanking leaves.</summary>
    /// <exception cref="ArgumentException">A step takes a partner's features.</exception>
    public static Regularizer Rescale(this Regularizer regularizer, Rescale kind) =>
        RegularizerModule.rescale(kind, regularizer);

    /// <summary>At this site: 0 is the input, k is after the k-th stage.</summary>
    /// <exception cref="ArgumentException">The site is negative.</exception>
    public static Regularizer At(this Regularizer regularizer, int site) => Words.at(site, regularizer);

    /// <summary>At one of these sites, uniformly at random.</summary>
    /// <exception cref="ArgumentException">There is none, or one is negative.</exception>
    public static Regularizer AtAny(this Regularizer regularizer, params int[] sites) =>
        Words.atAny(ListModule.OfSeq(sites), regularizer);

    /// <summary>At each of these sites.</summary>
    /// <exception cref="ArgumentException">There is none, or one is negative.</exception>
    public static Regularizer AtAll(this Regularizer regularizer, params int[] sites) =>
        Words.atAll(ListModule.OfSeq(sites), regularizer);

    /// <summary>After the stage or module of this name.</summary>
    /// <exception cref="ArgumentException">The name is empty or holds a quotation mark.</exception>
    public static Regularizer After(this Regularizer regularizer, string name) => Words.after(name, regularizer);

    /// <summary>After one of these stages or modules, uniformly at random.</summary>
    /// <exception cref="ArgumentException">There is none, or a name is empty or holds a quotation mark.</exception>
    public static Regularizer AfterAny(this Regularizer regularizer, params string[] names) =>
        Words.afterAny(ListModule.OfSeq(names), regularizer);

    /// <summary>After each of these stages or modules.</summary>
    /// <exception cref="ArgumentException">There is none, or a name is empty or holds a quotation mark.</exception>
    public static Regularizer AfterAll(this Regularizer regularizer, params string[] names) =>
        Words.afterAll(ListModule.OfSeq(names), regularizer);

    /// <summary>Equation (6) of the PatchUp paper as written: both terms.</summary>
    /// <exception cref="ArgumentException">Another step of a sequence may change the labels afterwards.</exception>
    public static Regularizer TwoTerm(this Regularizer regularizer) => Words.twoTerm(regularizer);

    /// <summary>A weighted sum of the two terms of equation (6).</summary>
    /// <exception cref="ArgumentException">A weight is negative or not finite, or both are zero.</exception>
    public static Regularizer Terms(this Regularizer regularizer, double first, double second) =>
        RegularizerModule.objective(ObjectiveModule.weighted(first, second), regularizer);

    /// <summary>With this probability, else nothing.</summary>
    /// <exception cref="ArgumentException">The probability lies outside [0, 1].</exception>
    public static Regularizer Sometimes(this Regularizer regularizer, double probability) =>
        RegularizerModule.sometimes(probability, regularizer);
}

/// <summary>Whole regularizers: composed, read from text, and the published methods.</summary>
public static class Regularizers
{
    /// <summary>Does nothing: the regularizer of evaluation.</summary>
    public static Regularizer Identity => RegularizerModule.identity;

    /// <summary>Soft PatchUp (Faramarzi et al. 2022).</summary>
    public static Regularizer SoftPatchUp => Catalogue.softPatchUp(Calibration.Exact);

    /// <summary>Hard PatchUp (Faramarzi et al. 2022).</summary>
    public static Regularizer HardPatchUp => Catalogue.hardPatchUp(Calibration.Exact);

    /// <summary>The names of the catalogue's methods, each of which <see cref="Parse"/> reads.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. Catalogue.all.Select(method => method.Name)];

    /// <summary>One of these, with probability proportional to its weight.</summary>
    /// <exception cref="ArgumentException">A weight is negative or not finite, or none is positive.</exception>
    public static Regularizer OneOf(params (double Weight, Regularizer Regularizer)[] branches) =>
        RegularizerModule.oneOf(
            ListModule.OfSeq(branches.Select(branch => Tuple.Create(branch.Weight, branch.Regularizer))));

    /// <summary>
    /// What acts as training goes on, from 0 to 1: at each of these times the regularizer beside it. Between two that differ in their numbers only
    /// (fractions, areas, lambdas, weights), one with numbers in proportion; else the later one with a probability that grows in proportion.
    /// </summary>
    /// <exception cref="ArgumentException">There is none, or the times do not lie in [0, 1] or fall.</exception>
    public static Regularizer Over(params (double Time, Regularizer Regularizer)[] points) =>
        RegularizerModule.over(
            ListModule.OfSeq(points.Select(point => Tuple.Create(point.Time, point.Regularizer))));

    /// <summary>All of these.</summary>
    /// <exception cref="ArgumentException">An objective is named on a step after which another may change the labels.</exception>
    public static Regularizer Sequence(params Regularizer[] parts) =>
        RegularizerModule.sequence(ListModule.OfSeq(parts));

    /// <summary>Reads a catalogue name or a line of notation such as <c>blocks 7 0.5 |> swap |> atAny [1; 2]</c>.</summary>
    /// <param name="text">The text.</param>
    /// <param name="customs">Regions of one's own that the text may name, and what makes them from their arguments.</param>
    /// <exception cref="FormatException">The text is neither; the message names the position and what was expected.</exception>
    public static Regularizer Parse(
        string text, params (string Name, Func<IReadOnlyList<double>, Region> Make)[] customs)
    {
        var result = Read(text, customs);
        return result.IsOk ? result.ResultValue : throw new FormatException(result.ErrorValue.ToString());
    }

    /// <summary>Reads a catalogue name or a line of notation; false if it is neither.</summary>
    public static bool TryParse(string text, [NotNullWhen(true)] out Regularizer? regularizer)
    {
        var result = Read(text, []);
        regularizer = result.IsOk ? result.ResultValue : null;
        return result.IsOk;
    }

    private static FSharpResult<Regularizer, NotationError> Read(
        string text, (string Name, Func<IReadOnlyList<double>, Region> Make)[] customs)
    {
        var made = customs.Select(custom =>
            Tuple.Create(custom.Name, FuncConvert.FromFunc((FSharpList<double> arguments) => custom.Make(arguments))));
        var known = Catalogue.vocabulary;
        return Notation.parseWith(new Vocabulary(
            MapModule.OfSeq(MapModule.ToSeq(known.Customs).Concat(made)), known.Dists, known.Named), text);
    }

    /// <summary>The line of notation that <see cref="Parse"/> reads back to an equal value.</summary>
    public static string Show(this Regularizer regularizer) => Notation.show(regularizer);
}
