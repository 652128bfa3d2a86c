using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace PatchUp.Functional.CSharp.Tests;

/// <summary>Models of one's own, trained by the names of their submodules.</summary>
public class TrainingTests
{
    // snippet: csharpModel
    /// <summary>A residual network as one would write it, without a thought of mixing.</summary>
    private sealed class Cnn : nn.Module<Tensor, Tensor>
    {
        private readonly nn.Module<Tensor, Tensor> stem = nn.Conv2d(3, 8, 3, padding: 1);
        private readonly nn.Module<Tensor, Tensor> block = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, padding: 1));
        private readonly nn.Module<Tensor, Tensor> head = nn.Linear(8, 3);

        public Cnn() : base(nameof(Cnn)) => RegisterComponents();

        public override Tensor forward(Tensor images)
        {
            using var scope = NewDisposeScope();
            var features = stem.call(images);
            var deeper = features + block.call(features);
            return head.call(deeper.mean([2L, 3L])).MoveToOuterDisposeScope();
        }
    }
    // end snippet

    // snippet: csharpMicroBatches
    /// <summary>One optimizer step on a batch that is run in parts, as where memory is short; its mean loss.</summary>
    private static double AccumulatedStep(
        Hooked network, optim.Optimizer optimizer, Regularizer regularizer, Key key, Tensor images, int[] labels, int part)
    {
        var info = network.Describe(images, labels);
        var sum = 0.0;
        optimizer.zero_grad();

        for (var offset = 0; offset < labels.Length; offset += part)
        {
            using var scope = NewDisposeScope();
            var count = Math.Min(part, labels.Length - offset);
            var plan = regularizer.Draw(key, info.Part(offset, count));
            var batch = Training.Batch(images.narrow(0, offset, count), labels[offset..(offset + count)], classes: 3);
            var loss = network.Forward(plan, batch).Loss() * ((double)count / labels.Length);
            loss.backward();
            sum += loss.item<float>();
        }

        optimizer.step();
        return sum;
    }
    // end snippet

    private static readonly int[] Labels = [0, 1, 2, 0, 1, 2, 0, 1];

    private static Tensor Images() => rand(8, 3, 12, 12, generator: new Generator(1));

    private static Cnn Model()
    {
        random.manual_seed(5);
        return new Cnn();
    }

    [Fact]
    public void The_sites_of_a_model_are_its_submodules()
    {
        using var model = Model();
        using var images = Images();
        Assert.Equal(
            ["input: 3x12x12", "stem: 8x12x12", "block.0: 8x12x12", "block.1: 8x12x12", "block: 8x12x12", "head: 3x1x1"],
            model.Sites(images).Select(site => $"{site.Name}: {site.Shape}"));
    }

    [Fact]
    public void A_model_of_ones_own_trains_reproducibly()
    {
        List<float> Train()
        {
            using var model = Model();
            using var images = Images();
            var network = model.WithSites("stem", "block");
            var info = network.Describe(images, Labels);
            using var optimizer = optim.SGD(model.parameters(), learningRate: 0.1, momentum: 0.9);
            var losses = new List<float>();

            for (var step = 0; step < 5; step++)
            {
                using var scope = NewDisposeScope();
                var plan = Regularizers.HardPatchUp.Draw(Training.Seed(0).Child(step), info);
                var output = network.Forward(plan, Training.Batch(images, Labels, classes: 3));
                Assert.Equal(8, output.ExpectedAccuracy().Count);
                var loss = output.Loss();
                optimizer.zero_grad();
                loss.backward();
                optimizer.step();
                losses.Add(loss.item<float>());
            }

            return losses;
        }

        var losses = Train();
        Assert.All(losses, loss => Assert.True(float.IsFinite(loss)));
        Assert.Equal(losses, Train());
        Assert.NotEqual(losses[0], losses[^1]);
    }

    [Fact]
    public void Hooks_and_stages_are_the_same_network()
    {
        using var scope = NewDisposeScope();
        var (conv, head) = (nn.Conv2d(3, 4, 3), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()));
        var model = nn.Sequential(("conv", conv), ("head", head));
        var (images, batch) = (Images(), Training.Batch(Images(), Labels, 4));
        var hooked = model.WithSites("conv", "head");
        var staged = Networks.Stages(model, ("conv", conv.call), ("head", head.call));
        var plan = Masks.Blocks(3, 0.5).Swap().At(1).Draw(Training.Seed(2), hooked.Describe(images, Labels));
        Assert.Equal(plan, Masks.Blocks(3, 0.5).Swap().At(1).Draw(Training.Seed(2), staged.Describe(images, Labels)));
        var (first, second) = (hooked.Forward(plan, batch), staged.Forward(plan, batch));
        Assert.True(first.Features.eq(second.Features).all().item<bool>());
        Assert.False(first.Features.eq(model.call(images)).all().item<bool>());
    }

    [Fact]
    public void A_site_that_is_none_is_an_argument_error_that_names_it()
    {
        using var model = Model();
        var error = Assert.Throws<ArgumentException>(() => model.WithSites("stem", "blok"));
        Assert.Contains("\"blok\"", error.Message);
        Assert.Contains("\"block\"", error.Message);
    }

    [Fact]
    public void Micro_batches_draw_what_the_whole_batch_draws()
    {
        using var model = Model();
        using var images = Images();
        var network = model.WithSites("stem", "block");
        var info = network.Describe(images, Labels);
        var regularizer = Masks.Cells(0.5).PerSample().Swap().AtAny(1, 2);
        var whole = regularizer.Draw(Training.Seed(1), info);
        var part = regularizer.Draw(Training.Seed(1), info.Part(6, 2));
        Assert.Equal(whole.Draws[0].Place, part.Draws[0].Place);
        Assert.Equal(whole.OwnShares()[6..], part.OwnShares());

        // Without mixing, a step in parts is the step on the whole.
        double Step(int size)
        {
            using var fresh = Model();
            using var optimizer = optim.SGD(fresh.parameters(), learningRate: 0.1);
            AccumulatedStep(
                fresh.WithSites("stem"), optimizer, Regularizers.Identity, Training.Seed(1), images, Labels, size);
            using var scope = NewDisposeScope();
            return fresh.call(images).sum().item<float>();
        }

        Assert.Equal(Step(8), Step(3), 4);
    }

    [Fact]
    public void Label_maps_follow_their_images()
    {
        using var scope = NewDisposeScope();
        var images = arange(4, dtype: float32).reshape(4, 1, 1, 1).expand(4, 3, 8, 8);
        var labels = arange(4).reshape(4, 1, 1).expand(4, 8, 8).contiguous();
        var info = Networks.Stages(nn.Identity()).Describe(images);
        var plan = Masks.Rect(0.3).Swap().Draw(Training.Seed(4), info);
        var (mixed, follow) = (plan.ApplyFeatures(images), plan.ApplyMaps(labels));
        Assert.False(follow.eq(labels).all().item<bool>());
        Assert.True(mixed.eq(follow.unsqueeze(1)).all().item<bool>());
    }
}

file static class Plans
{
    /// <summary>Each sample's own label weight after the plan's first draw.</summary>
    public static double[] OwnShares(this Plan plan) => plan.Draws[0].OwnShare;
}
