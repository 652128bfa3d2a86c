namespace PatchUp.Repro

open PatchUp.Functional

/// PreActResNet (He et al. 2016, "Identity mappings in deep residual networks") for small images, without a last
/// normalisation before the pooling: as the PatchUp authors train it, and with their names of layers.
[<RequireQualifiedAccess>]
module PreActResNet =

    let private build name (sections: NetworkSettings -> Section list) counts device (settings: NetworkSettings) =
        let sections = sections settings
        let conv1 = Layers.conv device 3 sections.Head.Channels 3 settings.Stride
        let stages = Layers.stages (Layers.preActivated device) counts sections
        let linear = Layers.linear device (List.last sections).Channels settings.Classes
        let parts = ("conv1", conv1) :: stages

        Layers.model
            name
            settings
            (parts @ [ "linear", linear ])
            [ for name, part in parts do
                  name, (fun x -> part.call x)
              "linear", (fun x -> Scope.run (fun () -> linear.call (Layers.pool x))) ]

    /// PreActResNet of this many blocks in each of its four stages; for 2, 2, 2 and 2 with 10 classes 11,171,146
    /// parameters. Stages: conv1, layer1 .. layer4 (of 1, 1/2, 1/4 and 1/8 of conv1's side), linear (of the mean over
    /// the map). Weights and biases start by PyTorch's own scheme.
    let architecture (name: string) (counts: int list) : Architecture =
        let published = 64

        let sections (settings: NetworkSettings) =
            let width = defaultArg settings.Width published

            { Name = "conv1"
              Channels = width
              Stride = settings.Stride }
            :: [ for i in 0 .. counts.Length - 1 do
                     { Name = $"layer{i + 1}"
                       Channels = width <<< i
                       Stride = settings.Stride <<< i } ]

        { Name = name
          Paper = "He et al. 2016"
          Standard = NetworkSettings.cifar10
          Size = 32
          Width = Some published
          Strides = [ 1; 2 ]
          Sections = sections
          Last = "linear"
          Build = build name sections counts
          Initialise = Layers.initialise Layers.uniformFanIn Layers.uniformFanIn Layers.uniformFanIn }
