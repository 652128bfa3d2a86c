using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace PatchUp.Functional.CSharp.Tests;

/// <summary>Regions, distributions and losses of one's own, and whether they keep the laws.</summary>
public class CustomTests
{
    // snippet: csharpCustom
    /// <summary>Every other stripe of this many rows, beginning with the first or the second.</summary>
    private static Region Stripes(int rows) => rows < 1 ? throw new ArgumentException($"{rows} rows") : Masks.Custom(
        "stripes",
        [rows],
        expected: (_, _, _) => 0.5,
        draw: context =>
        {
            var shape = context.Shape;
            var first = context.Key.Stream().Below(2);
            var unchanged = new bool[shape.Channels * shape.Height * shape.Width];

            for (var i = 0; i < unchanged.Length; i++)
                unchanged[i] = i / shape.Width % shape.Height / rows % 2 == first;

            return DrawnMasks.Hard(shape, unchanged);
        });

    /// <summary>Reads <c>stripes 2 |> swap |> at 1</c> and the like.</summary>
    private static Regularizer Read(string text) =>
        Regularizers.Parse(text, ("stripes", arguments => Stripes((int)arguments.Single())));
    // end snippet

    [Fact]
    public void A_region_of_ones_own_keeps_every_law()
    {
        // snippet: csharpLaws
        var report = Stripes(2).Swap().CheckLaws(shapes: [new Shape(4, 6, 9), new Shape(1, 8, 8)]);
        Assert.Empty(report.Broken);
        // end snippet
        Assert.Contains(" kept, 0 broken", report.Summary);
    }

    [Fact]
    public void A_region_that_does_not_alter_what_it_says_breaks_a_law()
    {
        var tooMuch = Masks.Custom(
            "too-much",
            [],
            (_, _, _) => 0,
            context => DrawnMasks.Box(context.Shape, 0, 0, 1, 1));
        var report = tooMuch.Swap().CheckLaws(effort: 0.05, shapes: [new Shape(1, 4, 4)]);
        Assert.Contains(report.Broken, law => law.About == "Mask");
        Assert.Contains("too-much", report.ToString());
    }

    [Fact]
    public void A_custom_region_is_read_by_name()
    {
        var read = Read("stripes 2 |> swap |> at 1");
        Assert.Equal(Stripes(2).Swap().At(1), read);
        Assert.NotEqual(Stripes(3).Swap().At(1), read);
        Assert.Equal("stripes 2 |> swap |> at 1", read.Show());
        Assert.Equal(Regularizers.HardPatchUp, Read("hard-patchup"));
        Assert.Throws<FormatException>(() => Read("stripes |> swap"));
        Assert.Throws<FormatException>(() => Regularizers.Parse("stripes 2 |> swap"));
    }

    [Fact]
    public void A_custom_region_that_breaks_its_own_form_is_an_argument_error()
    {
        Assert.Throws<ArgumentException>(() => Masks.Custom("two words", [], (_, _, _) => 0, _ => null!));
        Assert.Throws<ArgumentException>(() => Masks.Custom("nan", [double.NaN], (_, _, _) => 0, _ => null!));
        Assert.Throws<ArgumentException>(() => DrawnMasks.Hard(new Shape(1, 2, 2), [true]));
        Assert.Throws<ArgumentException>(() => DrawnMasks.Soft(new Shape(1, 1, 1), [1.5f]));
    }

    [Fact]
    public void A_mixing_function_of_ones_own_is_checked_in_the_place_of_the_librarys()
    {
        var swap = Masks.Rect(0.5).Swap();
        var tiny = new Shape(1, 2, 2);
        Assert.Empty(swap.CheckLaws(effort: 0.02, shapes: [tiny], mixing: (plan, batch) => plan.Apply(batch)).Broken);

        var report = swap.CheckLaws(
            effort: 0.02,
            shapes: [tiny],
            mixing: (plan, batch) => Training.Batch(plan.ApplyFeatures(batch.Features), batch.Targets.Soft));
        Assert.Contains(report.Broken, law => law.Name == "labels follow features");
    }

    [Fact]
    public void A_distribution_of_ones_own_draws_lambda()
    {
        var half = Dists.Custom("half", [], 0.5, x => x < 0.5 ? 0 : 1, _ => 0.5);
        var info = Networks.Stages(nn.Identity()).Describe(rand(4, 1, 2, 2));
        var plan = Masks.Everywhere.Blend(half).Draw(Training.Seed(0), info);
        Assert.Equal([0.5], plan.Draws[0].Lambda);
        Assert.Throws<ArgumentException>(() => Dists.Custom("", [], 0.5, x => x, _ => 0.5));
    }

    [Fact]
    public void A_loss_of_ones_own_has_the_two_terms_of_equation_6()
    {
        using var scope = NewDisposeScope();

        // Multi-label targets: each class by itself, so that a row need not sum to 1.
        var loss = Losses.Custom(
            "bce-with-logits",
            isAffine: true,
            (logits, targets) => nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction: nn.Reduction.None).mean([1L]));
        Assert.Empty(loss.CheckLaws().Broken);

        var rows = tensor(new float[,] { { 1, 1, 0 }, { 0, 1, 1 }, { 0, 0, 0 }, { 1, 0, 0 } });
        var batch = Training.Batch(rand(4, 3, generator: new Generator(2)), rows);
        var info = Networks.Stages(nn.Identity()).Describe(batch.Features);
        var one = Masks.Everywhere.Blend(Dists.Always(0.25)).PairedBy(Partner.NewRolled(1));
        var mixed = one.Draw(Training.Seed(0), info).Apply(batch);
        Assert.Equal([0.25f, 1, 0.75f], mixed.Targets.Soft[0].data<float>().ToArray());

        var two = one.TwoTerm().Draw(Training.Seed(0), info).Apply(batch);
        Assert.Equal(2 * mixed.Loss(loss).item<float>(), two.Loss(loss).item<float>(), 5);
        Assert.NotEqual(mixed.Loss(loss).item<float>(), mixed.Loss(Losses.Smoothed(0.5, loss)).item<float>());
        Assert.NotEqual(mixed.Loss(Losses.Brier).item<float>(), mixed.Loss(Losses.BceOnSoftmax).item<float>());
        Assert.Equal(mixed.Loss().item<float>(), mixed.Loss(Losses.CrossEntropy).item<float>());
    }
}
