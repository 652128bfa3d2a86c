namespace PatchUp.Repro

open PatchUp.Functional
open TorchSharp

/// What a ResNet's stages are made of.
type ResNetBlock =
    /// Two 3x3 convolutions.
    | Basic
    /// 1x1 to a quarter of the channels, 3x3, and 1x1 back.
    | Bottleneck

/// ResNet (He et al. 2015, "Deep residual learning for image recognition"), as torchvision has it, with its names: in a
/// bottleneck the stride is in the 3x3 convolution ("v1.5"), where the paper has it in the first 1x1.
[<RequireQualifiedAccess>]
module ResNet =

    /// relu(branch x + shortcut x), where the branch is convolutions with normalisations and relus between, and the
    /// shortcut x, or, where the shape changes, a normalised 1x1 convolution of x. Each convolution is (channels that go
    /// out, kernel, stride).
    let private block (device: torch.Device) (channels: int) (stride: int) (convolutions: (int * int * int) list) =
        let incoming = channels :: (convolutions |> List.map (fun (width, _, _) -> width))

        let branch =
            List.zip (List.take convolutions.Length incoming) convolutions
            |> List.mapi (fun i (before, (width, kernel, stride)) ->
                ($"conv{i + 1}", Layers.conv device before width kernel stride),
                ($"bn{i + 1}", Layers.norm device width))

        let parts = branch |> List.collect (fun (conv, norm) -> [ conv; norm ])
        let width = List.last incoming

        let run (shortcut: torch.Tensor -> torch.Tensor) (x: torch.Tensor) =
            let step (x: torch.Tensor) (i, ((_, conv: Layers.Module), (_, norm: Layers.Module))) =
                norm.call (conv.call (if i = 0 then x else Layers.relu x))

            let out = (x, List.indexed branch) ||> List.fold step
            Layers.relu (Scope.add out (shortcut x))

        if stride = 1 && channels = width then
            Layers.composite "Block" parts (run id)
        else
            let downsample =
                Layers.sequential
                    [ "0", Layers.conv device channels width 1 stride
                      "1", Layers.norm device width ]

            Layers.composite "Block" (parts @ [ "downsample", downsample ]) (run downsample.call)

    let private basic device channels width stride =
        block device channels stride [ width, 3, stride; width, 3, 1 ]

    let private bottleneck device channels width stride =
        block device channels stride [ width / 4, 1, 1; width / 4, 3, stride; width, 1, 1 ]

    let private build name kind counts sections (device: torch.Device) (settings: NetworkSettings) =
        let sections: Section list = sections settings
        let width = sections.Head.Channels

        let block =
            match kind with
            | Basic -> basic
            | Bottleneck -> bottleneck

        let stem: (string * Layers.Module) list =
            if settings.Stride = 4 then
                [ "conv1", Layers.conv device 3 width 7 2
                  "bn1", Layers.norm device width
                  "relu", torch.nn.ReLU()
                  "maxpool", torch.nn.MaxPool2d(3L, 2L, 1L) ]
            else
                [ "conv1", Layers.conv device 3 width 3 settings.Stride
                  "bn1", Layers.norm device width
                  "relu", torch.nn.ReLU() ]

        let stages = Layers.stages (block device) counts sections
        let avgpool: Layers.Module = torch.nn.AdaptiveAvgPool2d 1L
        let fc = Layers.linear device (List.last sections).Channels settings.Classes

        let stemmed (x: torch.Tensor) =
            Scope.run (fun () -> (x, stem) ||> List.fold (fun x (_, part) -> part.call x))

        Layers.model
            name
            settings
            (stem @ stages @ [ "avgpool", avgpool; "fc", fc ])
            [ sections.Head.Name, stemmed
              for name, part in stages do
                  name, (fun x -> part.call x)
              "fc", (fun x -> Scope.run (fun () -> fc.call ((avgpool.call x).flatten 1L))) ]

    /// ResNet of this many blocks in each of its four stages; at 1000 classes, ResNet-18 has 11,689,512 parameters and
    /// ResNet-50 25,557,032. Stages: the stem, named by the module that ends it (`maxpool`, or `relu` where there is no
    /// pooling); layer1 .. layer4 (of 1, 1/2, 1/4 and 1/8 of the stem's side); fc (of the mean over the map). The stem for
    /// small images is a 3x3 convolution without pooling.
    ///
    /// Weights start as torchvision's: convolutions at N(0, 2/n) with n = k k times the channels that go out (He et al.
    /// 2015, "Delving deep into rectifiers"), the linear layer by PyTorch's own scheme.
    let architecture (name: string) (kind: ResNetBlock) (counts: int list) : Architecture =
        let published = 64

        let expansion =
            match kind with
            | Basic -> 1
            | Bottleneck -> 4

        let sections (settings: NetworkSettings) =
            let width = defaultArg settings.Width published

            { Name = if settings.Stride = 4 then "maxpool" else "relu"
              Channels = width
              Stride = settings.Stride }
            :: [ for i in 0 .. counts.Length - 1 do
                     { Name = $"layer{i + 1}"
                       Channels = (expansion * width) <<< i
                       Stride = settings.Stride <<< i } ]

        { Name = name
          Paper = "He et al. 2015"
          Standard = NetworkSettings.imageNet
          Size = 224
          Width = Some published
          Strides = [ 1; 2; 4 ]
          Sections = sections
          Last = "fc"
          Build = build name kind counts sections
          Initialise = Layers.initialise Layers.normalFanOut Layers.uniformFanIn Layers.uniformFanIn }
