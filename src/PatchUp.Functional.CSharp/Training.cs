using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace PatchUp.Functional.CSharp;

/// <summary>Networks to mix in: any model by its submodules' names, or functions as named stages.</summary>
public static class Networks
{
    /// <summary>
    /// The model with these submodules (<c>layer1</c>, <c>layer2.0.conv1</c>) as the numbered sites 1, 2, ...; every other submodule is a site by
    /// its name, and the input is site 0. The model's code stays as it is: hooks mix, and live as long as a forward pass does.
    /// </summary>
    /// <exception cref="ArgumentException">A name is no submodule's, or stands there twice.</exception>
    public static Hooked WithSites(this nn.Module<Tensor, Tensor> model, params string[] names) =>
        Hooks.attach(ListModule.OfSeq(names), model);

    /// <summary>
    /// The sites of a model, with the features' shapes, in the order in which a pass reaches them: found by running one sample of
    /// <paramref name="input"/> <c>[N,...]</c> without gradients and in evaluation mode.
    /// </summary>
    public static IReadOnlyList<(string Name, Shape Shape)> Sites(this nn.Module<Tensor, Tensor> model, Tensor input) =>
        [.. Hooks.sites(model, input).Select(site => (site.Item1, site.Item2))];

    /// <summary>A network as named stages; site 0 is the input, site k is after the k-th stage.</summary>
    public static Staged Stages(nn.Module module, params (string Name, Func<Tensor, Tensor> Run)[] stages) =>
        new(
            module,
            ListModule.OfSeq(stages.Select(stage => Tuple.Create(stage.Name, FuncConvert.FromFunc(stage.Run)))));

    /// <summary>
    /// What a draw may know of a batch: its size, its class indices and the shapes that one evaluation pass of <paramref name="images"/>
    /// <c>[N,...]</c> finds at every site.
    /// </summary>
    public static BatchInfo Describe(this Hooked network, Tensor images, IReadOnlyList<int>? labels = null) =>
        Describe(Hooks.shapes(network, images), images, labels);

    /// <inheritdoc cref="Describe(Hooked, Tensor, IReadOnlyList{int}?)"/>
    public static BatchInfo Describe(this Staged network, Tensor images, IReadOnlyList<int>? labels = null) =>
        Describe(Attach.shapes(network, images), images, labels);

    private static BatchInfo Describe(
        FSharpFunc<Place, FSharpOption<Shape>> shapes, Tensor images, IReadOnlyList<int>? labels) =>
        BatchInfoModule.create((int)images.shape[0], shapes).At(0, (int)images.shape[0], labels);

    /// <summary>The information of another batch, with nothing known of its images.</summary>
    /// <param name="info">That of any batch of the network.</param>
    /// <param name="first">Index, within the epoch, of the batch's first sample.</param>
    /// <param name="count">How many samples are spoken of.</param>
    /// <param name="labels">Their class indices.</param>
    /// <param name="offset">Index, within the batch, of the first of them: other than 0 for one rank's share.</param>
    /// <exception cref="ArgumentException">The count is below 1.</exception>
    public static BatchInfo At(
        this BatchInfo info, int first, int count, IReadOnlyList<int>? labels = null, int offset = 0) =>
        new(
            first,
            offset,
            BatchInfoModule.create(count, info.Shape).Count,
            labels is null ? null : FSharpOption<int[]>.Some([.. labels]),
            info.Shape,
            partner: null,
            saliency: null,
            pixels: null,
            noisy: null,
            info.Progress);

    /// <summary>
    /// What regions ask for that follow the images, SaliencyMix's and PuzzleMix's: the saliency of the batch's loss in this model, computed when a draw asks for it, and
    /// the images <c>[N,C,H,W]</c> before they were normalised, with values of [0, 1]. <paramref name="normalise"/> maps such images to the batch's features, each channel by a
    /// scale and a shift. With a clean loss above 0 the pass that finds the saliency trains too: it adds so many times the loss to the gradients of the parameters.
    /// </summary>
    /// <exception cref="ArgumentException">The clean loss is negative or not finite.</exception>
    public static BatchInfo Following(
        this BatchInfo info,
        nn.Module<Tensor, Tensor> model,
        Batch batch,
        Tensor pixels,
        Func<Tensor, Tensor> normalise,
        Loss? loss = null,
        double cleanLoss = 0)
    {
        var ofBatch = loss ?? Functional.Loss.CrossEntropy;

        return Saliency.follow(
            FuncConvert.FromFunc<Batch, float[]>(b =>
                cleanLoss == 0 ? Saliency.gradient(ofBatch, model, b) : Saliency.gradientWithCleanLoss(cleanLoss, ofBatch, model, b)),
            FuncConvert.FromFunc(normalise),
            pixels,
            batch,
            info);
    }

    /// <summary>
    /// What is known of a part of the batch: of a micro-batch under gradient accumulation, or of one rank's share. What is drawn once a batch comes
    /// out as for the whole, what is drawn for each sample as for that sample; partners are drawn within the part.
    /// </summary>
    /// <exception cref="ArgumentException">The part is empty or not within the batch.</exception>
    public static BatchInfo Part(this BatchInfo info, int offset, int count) => BatchInfoModule.part(offset, count, info);

    /// <summary>Runs the network, mixing at each site what the plan has for it: the features of the result are its output.</summary>
    /// <exception cref="ArgumentException">A site of the plan cannot be mixed at; the message says why. The model is as before.</exception>
    public static Batch Forward(this Hooked network, Plan plan, Batch batch) => Hooks.forward(plan, network, batch);

    /// <inheritdoc cref="Forward(Hooked, Plan, Batch)"/>
    public static Batch Forward(this Staged network, Plan plan, Batch batch) => Attach.forward(plan, network, batch);
}

/// <summary>What a training step needs beside its network: a key, a plan for each batch, and a loss.</summary>
public static class Training
{
    /// <summary>The key of a seed; all randomness follows from it.</summary>
    public static Key Seed(int seed) => KeyModule.ofSeed(seed);

    /// <summary>The key's child of this index: one for each epoch, for example.</summary>
    public static Key Child(this Key key, int index) => KeyModule.child(index, key);

    /// <summary>The key's sequence of random numbers, from its beginning, for the inside of one draw.</summary>
    public static Stream Stream(this Key key) => KeyModule.stream(key);

    /// <summary>Makes every random choice for one batch; no tensor is touched.</summary>
    /// <exception cref="ArgumentException">A step acts on an unknown site, or pairs by labels that are missing.</exception>
    public static Plan Draw(this Regularizer regularizer, Key key, BatchInfo info) =>
        PlanModule.draw(key, info, regularizer);

    /// <summary>A batch of features <c>[N,...]</c> and class indices.</summary>
    /// <exception cref="ArgumentException">A label lies outside the classes, or the sizes differ.</exception>
    public static Batch Batch(Tensor features, IReadOnlyList<int> labels, int classes) =>
        BatchModule.create(features, TargetsModule.ofIndices(features.device, classes, [.. labels]));

    /// <summary>A batch of features <c>[N,...]</c> and one-hot, soft or multi-label targets <c>[N,K]</c>.</summary>
    /// <exception cref="ArgumentException">The targets are not floating-point rows, or the sizes differ.</exception>
    public static Batch Batch(Tensor features, Tensor softTargets) =>
        BatchModule.create(features, TargetsModule.ofSoft(softTargets));

    /// <summary>Mixes one batch; its tensors stay as they are, the result's are new.</summary>
    /// <exception cref="ArgumentException">The batch is not of the size and shape that the plan was drawn for.</exception>
    public static Batch Apply(this Plan plan, Batch batch) => PlanModule.apply(plan, batch);

    /// <summary>Mixes features <c>[N,...]</c> alone, where labels are mixed by other means.</summary>
    /// <exception cref="ArgumentException">The features are not of the size and shape that the plan was drawn for.</exception>
    public static Tensor ApplyFeatures(this Plan plan, Tensor features) => PlanModule.applyFeatures(plan, features);

    /// <summary>
    /// Mixes what is known of every pixel as the plan mixes the images at the input: class indices <c>[N,H,W]</c>, or soft maps <c>[N,K,H,W]</c>.
    /// </summary>
    /// <exception cref="ArgumentException">The maps are of another size, or cannot follow this plan; the message says why.</exception>
    public static Tensor ApplyMaps(this Plan plan, Tensor maps) => PlanModule.applyMaps(plan, maps);

    /// <summary>The loss of a forward pass, a scalar; cross-entropy unless another is given.</summary>
    public static Tensor Loss(this Batch output, Loss? loss = null) =>
        LossModule.ofBatch(loss ?? Functional.Loss.CrossEntropy, output.Targets, output.Features);

    /// <summary>
    /// Accuracy that means something under mixing, for each sample: the weight that its target gives to the class of its largest logit.
    /// </summary>
    public static IReadOnlyList<double> ExpectedAccuracy(this Batch output) =>
        LossModule.expectedAccuracy(output.Targets, output.Features);
}

/// <summary>Losses of each sample at a soft target.</summary>
public static class Losses
{
    /// <summary>-sum_k y_k log q_k.</summary>
    public static Loss CrossEntropy => Loss.CrossEntropy;

    /// <summary>The mean over classes of binary cross-entropy on the softmax: what the PatchUp authors train with.</summary>
    public static Loss BceOnSoftmax => Loss.BceOnSoftmax;

    /// <summary>sum_k (q_k - y_k)^2 (Brier 1950).</summary>
    public static Loss Brier => Loss.Brier;

    /// <summary>The loss at targets of which a share is moved to all classes evenly.</summary>
    /// <exception cref="ArgumentException">When it is computed: the amount lies outside [0, 1].</exception>
    public static Loss Smoothed(double amount, Loss loss) => Loss.NewSmoothed(amount, loss);

    /// <summary>A loss of one's own; two are equal when their names are.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="isAffine">Whether it is affine in the target; then equation (6) is twice the loss at the mixed target.</param>
    /// <param name="perSample">Each sample's loss <c>[N]</c> from logits and soft targets <c>[N,K]</c>.</param>
    public static Loss Custom(string name, bool isAffine, Func<Tensor, Tensor, Tensor> perSample) =>
        Loss.NewCustomLoss(new CustomLoss(name, isAffine, FuncConvert.FromFunc(perSample)));
}
