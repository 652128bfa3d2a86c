using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace PatchUp.Functional.CSharp;

/// <summary>What a training step needs: a network as named stages, a plan for each batch, a forward pass and a loss.</summary>
public static class Training
{
    /// <summary>A network as named stages; site 0 is the input, site k is after the k-th stage.</summary>
    public static Staged Stages(nn.Module module, params (string Name, Func<Tensor, Tensor> Run)[] stages) =>
        new(
            module,
            ListModule.OfSeq(stages.Select(stage => Tuple.Create(stage.Name, FuncConvert.FromFunc(stage.Run)))));

    /// <summary>
    /// What a draw may know of a batch: its size, its class indices and the shapes that one evaluation pass of <paramref name="images"/>
    /// <c>[N,...]</c> finds at every site.
    /// </summary>
    public static BatchInfo Describe(this Staged network, Tensor images, IReadOnlyList<int>? labels = null) =>
        new(
            first: 0,
            count: (int)images.shape[0],
            labels: labels is null ? null : FSharpOption<int[]>.Some([.. labels]),
            shape: Attach.shapes(network, images),
            saliency: null,
            progress: 0);

    /// <summary>The information of the batch whose first sample has this index in the epoch.</summary>
    public static BatchInfo At(this BatchInfo info, int first, int count, IReadOnlyList<int>? labels = null) =>
        new(
            first,
            count,
            labels is null ? null : FSharpOption<int[]>.Some([.. labels]),
            info.Shape,
            info.Saliency,
            info.Progress);

    /// <summary>The key of a seed; all randomness follows from it.</summary>
    public static Key Seed(int seed) => KeyModule.ofSeed(seed);

    /// <summary>The key's child of this index: one for each epoch, for example.</summary>
    public static Key Child(this Key key, int index) => KeyModule.child(index, key);

    /// <summary>Makes every random choice for one batch; no tensor is touched.</summary>
    /// <exception cref="ArgumentException">A step acts on an unknown site, or pairs by labels that are missing.</exception>
    public static Plan Draw(this Regularizer regularizer, Key key, BatchInfo info) =>
        PlanModule.draw(key, info, regularizer);

    /// <summary>A batch of features <c>[N,...]</c> and class indices.</summary>
    /// <exception cref="ArgumentException">A label lies outside the classes, or the sizes differ.</exception>
    public static Batch Batch(Tensor features, IReadOnlyList<int> labels, int classes) =>
        BatchModule.create(features, TargetsModule.ofIndices(features.device, classes, [.. labels]));

    /// <summary>A batch of features <c>[N,...]</c> and soft targets <c>[N,K]</c>.</summary>
    /// <exception cref="ArgumentException">The targets are not floating-point rows, or the sizes differ.</exception>
    public static Batch Batch(Tensor features, Tensor softTargets) =>
        BatchModule.create(features, TargetsModule.ofSoft(softTargets));

    /// <summary>Mixes one batch; its tensors stay as they are, the result's are new.</summary>
    /// <exception cref="ArgumentException">The batch is not of the size and shape that the plan was drawn for.</exception>
    public static Batch Apply(this Plan plan, Batch batch) => PlanModule.apply(plan, batch);

    /// <summary>Runs the network, mixing at each site what the plan has for it: the features of the result are the logits.</summary>
    public static Batch Forward(this Staged network, Plan plan, Batch batch) => Attach.forward(plan, network, batch);

    /// <summary>The loss of a forward pass, a scalar.</summary>
    public static Tensor Loss(this Batch output, Loss? loss = null) =>
        LossModule.ofBatch(loss ?? Functional.Loss.CrossEntropy, output.Targets, output.Features);
}
