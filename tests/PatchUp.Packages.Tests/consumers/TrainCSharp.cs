// The program of the README, which shows what stands between the comments.
// snippet: csharp
using PatchUp.Functional.CSharp;
using static TorchSharp.torch;

random.manual_seed(1);
var model = nn.Sequential(("conv1", nn.Conv2d(3, 8, 3)), ("relu1", nn.ReLU()), ("conv2", nn.Conv2d(8, 16, 3)),
    ("relu2", nn.ReLU()), ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("head", nn.Linear(16, 4)));
var network = model.WithSites("relu1", "relu2");
var hardPatchUp = Masks.Blocks(7, 0.5).Swap().AfterAny("relu1", "relu2").TwoTerm().Sometimes(0.7);

var (images, labels) = (rand(8, 3, 32, 32), new[] { 0, 1, 2, 3, 0, 1, 2, 3 });
var info = network.Describe(images, labels);
var optimizer = optim.SGD(model.parameters(), learningRate: 0.1, momentum: 0.9);

for (var step = 0; step < 5; step++)
{
    using var scope = NewDisposeScope();
    var plan = hardPatchUp.Draw(Training.Seed(0).Child(step), info);
    var loss = network.Forward(plan, Training.Batch(images, labels, classes: 4)).Loss();
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    Console.WriteLine(loss.item<float>());
}
// end snippet
