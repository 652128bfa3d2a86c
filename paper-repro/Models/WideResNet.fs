namespace PatchUp.Repro

open PatchUp.Functional
open TorchSharp

/// Whose wide residual network it is.
type WideResNetFlavour =
    /// Zagoruyko and Komodakis 2016, as their Torch code has it: no biases of convolutions, the stride in a block's first
    /// convolution, and the projection of what is already normalised.
    | Published
    /// As the PatchUp authors' code has it: biases of convolutions, the stride in a block's second convolution, the
    /// projection of the raw input, and a last normalisation whose running statistics are nine tenths the last batch's.
    | Paper2020

/// Wide residual networks: three stages of pre-activated blocks, a last normalisation, the mean over the map.
[<RequireQualifiedAccess>]
module WideResNet =

    /// conv2(relu(bn2(conv1(relu(bn1 x))))) + shortcut, where the shortcut is x, or, where the shape changes, a 1x1
    /// convolution of x.
    let private block2020 (device: torch.Device) (channels: int) (width: int) (stride: int) : Layers.Module =
        let bn1 = Layers.norm device channels
        let conv1 = Layers.biasedConv device channels width 3 1
        let bn2 = Layers.norm device width
        let conv2 = Layers.biasedConv device width width 3 stride
        let parts = [ "bn1", bn1; "conv1", conv1; "bn2", bn2; "conv2", conv2 ]

        let run (shortcut: torch.Tensor -> torch.Tensor) (x: torch.Tensor) =
            let out = conv1.call (Layers.relu (bn1.call x))
            Scope.add (conv2.call (Layers.relu (bn2.call out))) (shortcut x)

        if stride = 1 && channels = width then
            Layers.composite "Block" parts (run id)
        else
            let shortcut =
                Layers.sequential [ "0", Layers.biasedConv device channels width 1 stride ]

            Layers.composite "Block" (parts @ [ "shortcut", shortcut ]) (run shortcut.call)

    let private build name sections count flavour (device: torch.Device) (settings: NetworkSettings) =
        let sections: Section list = sections settings

        let conv, block, momentum =
            match flavour with
            | Published -> Layers.conv, Layers.preActivated, 0.1
            | Paper2020 -> Layers.biasedConv, block2020, 0.9

        let conv1 = conv device 3 sections.Head.Channels 3 settings.Stride
        let stages = Layers.stages (block device) [ count; count; count ] sections
        let width = (List.last sections).Channels

        let bn1 = Layers.normBy momentum device width

        let linear = Layers.linear device width settings.Classes
        let parts = ("conv1", conv1) :: stages

        Layers.model
            name
            settings
            (parts @ [ "bn1", bn1; "linear", linear ])
            [ for name, part in parts do
                  name, (fun x -> part.call x)
              "linear", (fun x -> Scope.run (fun () -> linear.call (Layers.pool (Layers.relu (bn1.call x))))) ]

    /// WRN-d-k, of (d - 4) / 6 blocks in each of its three stages, whose channels are k times 16, 32 and 64; for d = 28,
    /// k = 10 and 10 classes 36,479,194 parameters as published, 36,489,290 with biases of convolutions. Stages: conv1,
    /// layer1 .. layer3 (of 1, 1/2 and 1/4 of conv1's side), linear (normalisation, mean over the map, linear layer).
    ///
    /// Weights start as in the architecture's Torch code (`models/utils.lua`): convolutions at N(0, 2/n) with n = k k times
    /// the channels that go out, the linear layer's weights as Torch and PyTorch make them, its biases at 0. Scales of
    /// normalisations start at 1, where Torch would draw them from U(0, 1). The PatchUp authors leave all to PyTorch.
    let architecture (depth: int) (factor: int) (flavour: WideResNetFlavour) : Architecture =
        let ending =
            match flavour with
            | Published -> ""
            | Paper2020 -> "-2020"

        let name = $"wrn-{depth}-{factor}{ending}"

        let sections (settings: NetworkSettings) =
            { Name = "conv1"
              Channels = 16
              Stride = settings.Stride }
            :: [ for i in 0..2 do
                     { Name = $"layer{i + 1}"
                       Channels = (16 * factor) <<< i
                       Stride = settings.Stride <<< i } ]

        { Name = name
          Paper =
            match flavour with
            | Published -> "Zagoruyko & Komodakis 2016"
            | Paper2020 -> "Faramarzi et al. 2022, their code"
          Standard = NetworkSettings.cifar10
          Size = 32
          Width = None
          Strides = [ 1; 2 ]
          Sections = sections
          Last = "linear"
          Build = build name sections ((depth - 4) / 6) flavour
          Initialise =
            match flavour with
            | Published -> Layers.initialise Layers.normalFanOut Layers.uniformFanIn Layers.zeros
            | Paper2020 -> Layers.initialise Layers.uniformFanIn Layers.uniformFanIn Layers.uniformFanIn }
