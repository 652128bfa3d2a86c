open PatchUp.Functional
open PatchUp.Functional.Laws
open TorchSharp

torch.random.manual_seed 1L |> ignore
let images = torch.rand [| 8L; 3L; 12L; 12L |]
let labels = [| 0; 1; 2; 0; 1; 2; 0; 1 |]

let conv = torch.nn.Conv2d(3L, 8L, 3L, padding = 1L)
let head = torch.nn.Linear(8L, 3L)

let network =
    { Module = torch.nn.Sequential(conv, head)
      Stages = [ "conv", conv.call; "head", (fun x -> head.call (x.mean [| 2L; 3L |])) ] }

let info =
    { BatchInfo.create labels.Length (Attach.shapes network images) with
        Labels = Some labels }

let optimizer = torch.optim.SGD(network.Module.parameters (), 0.1)

for step in 1..2 do
    Scope.value (fun () ->
        let plan =
            Plan.draw (Key.ofSeed 0 |> Key.child step) info (Catalogue.hardPatchUp Exact)

        let batch = Batch.create images (Targets.ofIndices torch.CPU 3 labels)
        let output = Attach.forward plan network batch
        let loss = Loss.ofBatch CrossEntropy output.Targets output.Features
        optimizer.zero_grad ()
        loss.backward ()
        optimizer.step () |> ignore
        printfn $"{loss.item<float32>()}")

printfn $"{(Laws.checkLoss CrossEntropy).Summary}"
