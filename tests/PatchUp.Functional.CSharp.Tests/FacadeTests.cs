using System.Reflection;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace PatchUp.Functional.CSharp.Tests;

/// <summary>The facade, used as a C# programmer would.</summary>
public class FacadeTests
{
    private static readonly int[] Labels = [0, 1, 2, 0, 1, 2, 0, 1];

    private static Tensor Images() => rand(8, 3, 12, 12, generator: new Generator(1));

    [Fact]
    public void Regions_combine_with_operators()
    {
        var region = Masks.Blocks(7, 0.5) & !Masks.Rect(0.3) | Masks.Channels(0.1);
        Assert.Equal(
            "(blocks 7 0.5 &&& ~~~(rect (always 0.3))) ||| channels 0.1 |> swap |> at input",
            region.Swap().Show());
    }

    [Fact]
    public void A_shown_regularizer_parses_to_an_equal_value()
    {
        var regularizer = Regularizers.Sequence(
            Regularizers.OneOf(
                (1, Masks.Rect(Dists.Uniform).Swap().At(0)),
                (2, Masks.Blocks(5, 0.4, Calibration.Paper).BlendEach(Dists.Beta(2, 2)).AtAny(1, 2))),
            Masks.Cells(0.1).PerSample().Blank().Rescale(Rescale.Nominal).AtAll(1, 2));
        Assert.Equal(regularizer, Regularizers.Parse(regularizer.Show()));
    }

    [Fact]
    public void The_methods_of_the_catalogue_are_the_same_values_by_name()
    {
        Assert.Equal(Regularizers.HardPatchUp, Regularizers.Parse("hard-patchup"));
        Assert.Equal(Regularizers.SoftPatchUp, Regularizers.Parse("soft-patchup"));
        Assert.All(Regularizers.Names, name => Assert.True(Regularizers.TryParse(name, out _)));
    }

    [Fact]
    public void A_text_that_is_no_regularizer_says_where()
    {
        var error = Assert.Throws<FormatException>(() => Regularizers.Parse("blocks 7"));
        Assert.Equal("at character 9: expected the fraction of blocks, found the end", error.Message);
        Assert.False(Regularizers.TryParse("blocks 7", out var none));
        Assert.Null(none);
    }

    [Fact]
    public void Bad_numbers_are_argument_errors()
    {
        Assert.Throws<ArgumentException>(() => Masks.Cells(1.5));
        Assert.Throws<ArgumentException>(() => Masks.Blocks(0, 0.5));
        Assert.Throws<ArgumentException>(() => Dists.Beta(0, 1));
        Assert.Throws<ArgumentException>(() => Masks.Cells(0.5).Swap().AtAny());
        Assert.Throws<ArgumentException>(() => Masks.Cells(0.5).Swap().Rescale(Rescale.Batch));
    }

    [Fact]
    public void A_plan_swaps_bits_and_mixes_labels_by_what_changed()
    {
        using var scope = NewDisposeScope();
        var images = Images();
        var info = Networks.Stages(nn.Identity()).Describe(images);
        var plan = Masks.Rect(0.25).Swap().PairedBy(Partner.NewRolled(1)).Draw(Training.Seed(3), info);
        var mixed = plan.Apply(Training.Batch(images, Labels, 3));
        var partner = images.roll(-1, 0);
        var own = mixed.Features.eq(images).to_type(ScalarType.Float32).mean().item<float>();
        Assert.True(mixed.Features.eq(images).logical_or(mixed.Features.eq(partner)).all().item<bool>());
        Assert.Equal(own, mixed.Targets.Soft[0, 0].item<float>(), 5);
    }

    [Fact]
    public void No_type_of_the_F_sharp_core_stands_in_a_signature()
    {
        var types = typeof(Masks).Assembly.GetExportedTypes();
        var signatures =
            from type in types
            from method in type.GetMethods(BindingFlags.Public | BindingFlags.Static | BindingFlags.DeclaredOnly)
            from parameter in method.GetParameters().Select(p => p.ParameterType).Append(method.ReturnType)
            select (Method: $"{type.Name}.{method.Name}", Type: parameter);
        Assert.True(signatures.Count() > 100);
        Assert.DoesNotContain(signatures, s => Mentions(s.Type, "FSharp.Core"));

        static bool Mentions(Type type, string assembly) =>
            type.Assembly.GetName().Name == assembly
            || type.GetGenericArguments().Any(argument => Mentions(argument, assembly))
            || (type.HasElementType && Mentions(type.GetElementType()!, assembly));
    }
}
