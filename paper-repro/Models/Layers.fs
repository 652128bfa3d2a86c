namespace PatchUp.Repro

open PatchUp.Functional
open System
open TorchSharp

/// What a network is made of besides its architecture.
type NetworkSettings =
    {
        /// Channels that the stem gives, the layers before the first stage; every stage's are a multiple of them. None is
        /// the published number, and all that an architecture allows whose name says how wide it is.
        Width: int option
        Classes: int
        /// By how much the stem divides an image's side: 1 for 32 x 32 images, 2 for 64 x 64. 4 is the stem for
        /// 224 x 224 (a 7x7 convolution of stride 2, and max pooling), which only ResNets have.
        Stride: int
        /// Of each channel, on the scale of [0,1].
        Mean: float list
        /// Of each channel, on the scale of [0,1].
        Std: float list
    }

/// Published settings.
[<RequireQualifiedAccess>]
module NetworkSettings =

    /// For CIFAR-10, with the mean and the standard deviation of its training images.
    let cifar10: NetworkSettings =
        { Width = None
          Classes = 10
          Stride = 1
          Mean = DataPreset.cifar10.Mean
          Std = DataPreset.cifar10.Std }

    /// For ImageNet, with the mean and the standard deviation that torchvision's weights expect.
    let imageNet: NetworkSettings =
        { Width = None
          Classes = 1000
          Stride = 4
          Mean = [ 0.485; 0.456; 0.406 ]
          Std = [ 0.229; 0.224; 0.225 ] }

/// Where a stage before the last one ends.
type Section =
    {
        /// The dotted name of the module whose output it is.
        Name: string
        Channels: int
        /// By how much the map's side is smaller than the image's, which is rounded up.
        Stride: int
    }

/// An architecture: how a network is built from settings.
[<NoEquality; NoComparison>]
type Architecture =
    {
        Name: string
        Paper: string
        /// As published.
        Standard: NetworkSettings
        /// The side of the published images.
        Size: int
        /// Channels that the published stem gives; None where the name says how wide the network is.
        Width: int option
        /// The strides that the stem may have.
        Strides: int list
        /// The stages' ends but the last one's, which is the logits.
        Sections: NetworkSettings -> Section list
        /// The name of the last layer, whose output is the logits.
        Last: string
        /// Builds the network on a device, with parameters as TorchSharp makes them.
        Build: torch.Device -> NetworkSettings -> Model
        /// Sets all parameters as published, from a seed alone.
        Initialise: uint64 -> Model -> unit
    }

/// What architectures share.
module internal Layers =

    type Module = torch.nn.Module<torch.Tensor, torch.Tensor>

    /// A module that is a function and its named parts.
    [<Sealed>]
    type private Composite(name: string, run: torch.Tensor -> torch.Tensor) =
        inherit torch.nn.Module<torch.Tensor, torch.Tensor>(name)
        override _.forward images = Scope.run (fun () -> run images)

    /// A function with its parts, registered in their order.
    let composite (name: string) (parts: (string * Module) list) (run: torch.Tensor -> torch.Tensor) : Module =
        let made = new Composite(name, run)

        for part, inner in parts do
            made.register_module (part, inner)

        made

    /// One part after another.
    let sequential (parts: (string * Module) list) : Module =
        composite "Sequential" parts (fun x -> (x, parts) ||> List.fold (fun x (_, part) -> part.call x))

    let private convolution
        bias
        (device: torch.Device)
        (channels: int)
        (width: int)
        (kernel: int)
        (stride: int)
        : Module =
        torch.nn.Conv2d(
            int64 channels,
            int64 width,
            int64 kernel,
            int64 stride,
            padding = int64 (kernel / 2),
            bias = bias,
            device = device
        )

    /// A square convolution without biases that keeps the map's size at stride 1.
    let conv: torch.Device -> int -> int -> int -> int -> Module = convolution false

    /// The same with biases; TorchSharp leaves a tensor behind when it makes one.
    let biasedConv (device: torch.Device) (channels: int) (width: int) (kernel: int) (stride: int) : Module =
        Scope.value (fun () -> convolution true device channels width kernel stride)

    let private one = lazy ((1L).ToScalar())

    /// Batch normalisation under PyTorch's names. TorchSharp's own layer counts batches by a call whose numbers its finalizers may free before they are
    /// read, so that a count may be wrong or a step fail.
    [<Sealed>]
    type private BatchNorm(channels: int, momentum: float, device: torch.Device) as this =
        inherit torch.nn.Module<torch.Tensor, torch.Tensor>("BatchNorm2d")

        let size = [| int64 channels |]

        do
            let register (name: string) (tensor: torch.Tensor) =
                this.register_parameter (name, new TorchSharp.Modules.Parameter(tensor))

            register "weight" (torch.ones (size, device = device))
            register "bias" (torch.zeros (size, device = device))
            this.register_buffer ("running_mean", torch.zeros (size, device = device))
            this.register_buffer ("running_var", torch.ones (size, device = device))
            this.register_buffer ("num_batches_tracked", torch.tensor (0L, device = device))

        override this.forward features =
            Scope.run (fun () ->
                if this.training then
                    this.get_buffer("num_batches_tracked").add_(torch.tensor 1L, one.Value)
                    |> ignore

                torch.nn.functional.batch_norm (
                    features,
                    this.get_buffer "running_mean",
                    this.get_buffer "running_var",
                    this.get_parameter "weight",
                    this.get_parameter "bias",
                    this.training,
                    momentum,
                    1e-5
                ))

    /// Batch normalisation that starts with scale 1 and shift 0, and moves its running statistics by this share of a batch's.
    let normBy (momentum: float) (device: torch.Device) (channels: int) : Module =
        new BatchNorm(channels, momentum, device)

    /// The same with PyTorch's share, 0.1.
    let norm: torch.Device -> int -> Module = normBy 0.1

    let linear (device: torch.Device) (channels: int) (classes: int) : Module =
        torch.nn.Linear(int64 channels, int64 classes, device = device)

    let relu (features: torch.Tensor) : torch.Tensor = torch.nn.functional.relu features

    /// The mean over the map: `[N,C,H,W]` to `[N,C]`.
    let pool (features: torch.Tensor) : torch.Tensor = features.mean [| 2L; 3L |]

    /// out = relu(bn1 x); conv2(relu(bn2(conv1 out))) + shortcut, where the shortcut is x, or, where the shape changes,
    /// a 1x1 convolution of `out` (He et al. 2016).
    let preActivated (device: torch.Device) (channels: int) (width: int) (stride: int) : Module =
        let bn1 = norm device channels
        let conv1 = conv device channels width 3 stride
        let bn2 = norm device width
        let conv2 = conv device width width 3 1
        let parts = [ "bn1", bn1; "conv1", conv1; "bn2", bn2; "conv2", conv2 ]

        let run (shortcut: torch.Tensor -> torch.Tensor -> torch.Tensor) (x: torch.Tensor) =
            let out = relu (bn1.call x)
            Scope.add (conv2.call (relu (bn2.call (conv1.call out)))) (shortcut x out)

        if stride = 1 && channels = width then
            composite "Block" parts (run (fun x _ -> x))
        else
            let shortcut = sequential [ "0", conv device channels width 1 stride ]
            composite "Block" (parts @ [ "shortcut", shortcut ]) (run (fun _ out -> shortcut.call out))

    /// From each section to the next, so many blocks, of which the first changes channels and side. A block is built
    /// from the channels that come in, those that go out, and its stride.
    let stages
        (block: int -> int -> int -> Module)
        (counts: int list)
        (sections: Section list)
        : (string * Module) list =
        [ for count, (before, after) in List.zip counts (List.pairwise sections) do
              after.Name,
              sequential
                  [ for i in 0 .. count - 1 do
                        string i,
                        (if i = 0 then
                             block before.Channels after.Channels (after.Stride / before.Stride)
                         else
                             block after.Channels after.Channels 1) ] ]

    let private normalise (mean: float list) (std: float list) (images: torch.Tensor) : torch.Tensor =
        Scope.run (fun () ->
            let channels (values: float list) =
                torch.tensor (Array.ofList values, ReadOnlySpan [| 1L; 3L; 1L; 1L |], images.dtype, images.device)

            (images - channels mean).div_(channels std))

    /// A model of modules, in the order in which they are registered, and of stages over them.
    let model
        (name: string)
        (settings: NetworkSettings)
        (modules: (string * Module) list)
        (stages: (string * (torch.Tensor -> torch.Tensor)) list)
        : Model =
        { Name = name
          Module = composite name modules (fun x -> (x, stages) ||> List.fold (fun x (_, stage) -> stage x))
          Stages = stages
          Normalise = normalise settings.Mean settings.Std }

    /// Fills a tensor that belongs to the layer of this weight.
    type Fill = torch.Generator -> torch.Tensor -> torch.Tensor -> unit

    /// U(-1/sqrt n, 1/sqrt n), with n the numbers that the layer adds up for each of its own: PyTorch's scheme for
    /// weights and biases. (TorchSharp's `init.uniform_` would not use the generator.)
    let uniformFanIn: Fill =
        fun generator weight tensor ->
            let fanIn = weight.shape |> Array.skip 1 |> Array.fold (*) 1L
            let bound = 1.0 / sqrt (float fanIn)
            tensor.uniform_ (-bound, bound, generator) |> ignore

    /// N(0, 2/n), with n the numbers to which each of the layer's inputs goes: k k times the channels that go out.
    let normalFanOut: Fill =
        fun generator weight tensor ->
            let fanOut = weight.shape[0] * (weight.shape |> Array.skip 2 |> Array.fold (*) 1L)
            tensor.normal_ (0.0, sqrt (2.0 / float fanOut), generator) |> ignore

    /// All zero.
    let zeros: Fill =
        fun _ _ tensor -> Scope.value (fun () -> tensor.zero_ () |> ignore)

    /// Fills convolutions, linear layers and the biases of these in the order in which the modules are registered;
    /// normalisations stay as they are made.
    let initialise (convolution: Fill) (linear: Fill) (linearBias: Fill) (seed: uint64) (model: Model) : unit =
        use generator = new torch.Generator(seed)
        use _ = torch.no_grad ()

        for inner in model.Module.modules () do
            match inner with
            | :? TorchSharp.Modules.Conv2d as layer ->
                convolution generator layer.weight layer.weight

                if not (isNull layer.bias) then
                    uniformFanIn generator layer.weight layer.bias
            | :? TorchSharp.Modules.Linear as layer ->
                linear generator layer.weight layer.weight
                linearBias generator layer.weight layer.bias
            | _ -> ()

    let private globalGenerator = obj ()

    /// Runs `make` and leaves the global generator, of which TorchSharp's layers draw when they are made, as it was.
    /// One thread at a time: a state that another thread is changing would be refused, and end the process.
    let sparingGlobal (make: unit -> 'a) : 'a =
        lock globalGenerator (fun () ->
            use state = torch.get_rng_state ()

            try
                make ()
            finally
                torch.set_rng_state state)
