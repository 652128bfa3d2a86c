using PatchUp.Functional.CSharp;
using TorchSharp;
using static TorchSharp.torch;

random.manual_seed(1);
using var images = rand(8, 3, 12, 12);
int[] labels = [0, 1, 2, 0, 1, 2, 0, 1];

var conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding: 1), nn.ReLU());
var head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3));
var network = Training.Stages(nn.Sequential(conv, head), ("conv", conv.call), ("head", head.call));
var info = network.Describe(images, labels);
var optimizer = optim.SGD(network.Module.parameters(), learningRate: 0.1);

for (var step = 0; step < 2; step++)
{
    using var scope = NewDisposeScope();
    var plan = Regularizers.HardPatchUp.Draw(Training.Seed(0).Child(step), info);
    var loss = network.Forward(plan, Training.Batch(images, labels, 3)).Loss();
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    Console.WriteLine(loss.item<float>());
}
