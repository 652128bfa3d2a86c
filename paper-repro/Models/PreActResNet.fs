namespace PatchUp.Repro

open PatchUp.Functional
open System
open TorchSharp

/// A classifier of images `[N,3,H,W]`.
[<NoEquality; NoComparison>]
type Model =
    {
        Name: string
        /// All parameters and buffers under PyTorch's names. Its `call` maps normalised images to logits `[N,K]`.
        Module: torch.nn.Module<torch.Tensor, torch.Tensor>
        /// The same function in named parts, first to last: their composition is `Module.call`, bit for bit.
        Stages: (string * (torch.Tensor -> torch.Tensor)) list
        /// Images in [0,1] to normalised ones: (x - mean) / std of each channel.
        Normalise: torch.Tensor -> torch.Tensor
    }

[<RequireQualifiedAccess>]
module Model =

    /// Normalised images to logits `[N,K]`.
    let call (model: Model) (images: torch.Tensor) : torch.Tensor = model.Module.call images

    /// Training mode: batch normalisation uses and follows the batch's statistics.
    let train (model: Model) : unit = model.Module.train ()

    /// Evaluation mode: batch normalisation uses its running statistics.
    let eval (model: Model) : unit = model.Module.eval ()

    /// The live parameters and then buffers by name: the module's own, not copies.
    let state (model: Model) : (string * torch.Tensor) list =
        [ for struct (name, parameter) in model.Module.named_parameters () do
              name, parameter :> torch.Tensor
          for struct (name, buffer) in model.Module.named_buffers () do
              name, buffer ]

    /// The number of trained numbers.
    let parameterCount (model: Model) : int64 =
        model.Module.parameters () |> Seq.sumBy _.NumberOfElements

    /// Where the parameters are.
    let device (model: Model) : torch.Device =
        (Seq.head (model.Module.parameters ())).device

    /// Moves all parameters and buffers to a device.
    let toDevice (device: torch.Device) (model: Model) : unit = model.Module.``to`` device |> ignore

    /// Copies of all parameters and buffers, which the caller disposes.
    let snapshot (model: Model) : (string * torch.Tensor) list =
        let names, live = List.unzip (state model)
        List.zip names (Scope.many (fun () -> live |> List.map (fun tensor -> tensor.detach().clone())))

    /// Copies a snapshot back; an ArgumentException unless it has the model's names and shapes.
    let restore (snapshot: (string * torch.Tensor) list) (model: Model) : unit =
        let shapes =
            List.map (fun (name: string, tensor: torch.Tensor) -> name, List.ofArray tensor.shape)

        let live = state model

        if shapes snapshot <> shapes live then
            invalidArg (nameof snapshot) $"It is not a snapshot of {model.Name}: names or shapes differ."

        Scope.value (fun () ->
            use _ = torch.no_grad ()

            for (_, source), (_, target) in List.zip snapshot live do
                target.copy_ source |> ignore)

    /// Writes all parameters and buffers, and a map of strings, as a safetensors file.
    let save (path: string) (metadata: Map<string, string>) (model: Model) : unit =
        Scope.value (fun () ->
            [ for name, tensor in state model -> name, tensor.cpu () ]
            |> Safetensors.write path metadata)

    /// Reads what `save` wrote into a model of the same kind and gives the map of strings; a UserError, and the model
    /// unchanged, where the file is unsound or of another model.
    let load (path: string) (model: Model) : Map<string, string> = Safetensors.load path (state model)

    /// Frees all parameters and buffers.
    let dispose (model: Model) : unit = model.Module.Dispose()

/// What a PreActResNet is made of.
type PreActResNetSettings =
    {
        /// 18 or 34.
        Depth: int
        /// Channels of the first stage; each later stage has twice as many as the one before. The paper's is 64.
        Width: int
        Classes: int
        /// Stride of the first convolution: 1 for 32 x 32 images, 2 for 64 x 64.
        Stride: int
        /// Of each channel, on the scale of [0,1].
        Mean: float list
        /// Of each channel, on the scale of [0,1].
        Std: float list
    }

/// PreActResNet (He et al. 2016, "Identity mappings in deep residual networks") for small images, without a last
/// normalisation before the pooling.
[<RequireQualifiedAccess>]
module PreActResNet =

    /// PreActResNet-18 for CIFAR-10: 11,171,146 parameters.
    let cifar10: PreActResNetSettings =
        { Depth = 18
          Width = 64
          Classes = 10
          Stride = 1
          Mean = [ 125.3 / 255.0; 123.0 / 255.0; 113.9 / 255.0 ]
          Std = [ 63.0 / 255.0; 62.1 / 255.0; 66.7 / 255.0 ] }

    type private Module = torch.nn.Module<torch.Tensor, torch.Tensor>

    /// A module that is a function and its named parts.
    [<Sealed>]
    type private Composite(name: string, run: torch.Tensor -> torch.Tensor) =
        inherit torch.nn.Module<torch.Tensor, torch.Tensor>(name)
        override _.forward images = Scope.run (fun () -> run images)

    let private composite (name: string) (parts: (string * Module) list) (run: torch.Tensor -> torch.Tensor) : Module =
        let made = new Composite(name, run)

        for part, inner in parts do
            made.register_module (part, inner)

        made

    let private conv (channels: int) (width: int) (kernel: int64) (stride: int) : Module =
        torch.nn.Conv2d(int64 channels, int64 width, kernel, int64 stride, padding = kernel / 2L, bias = false)

    let private relu (features: torch.Tensor) = torch.nn.functional.relu features

    /// out = relu(bn1 x); conv2(relu(bn2(conv1 out))) + shortcut, where the shortcut is x, or, where the shape changes,
    /// a 1x1 convolution of `out`.
    let private block (channels: int) (width: int) (stride: int) : Module =
        let bn1 = torch.nn.BatchNorm2d(int64 channels) :> Module
        let conv1 = conv channels width 3L stride
        let bn2 = torch.nn.BatchNorm2d(int64 width) :> Module
        let conv2 = conv width width 3L 1
        let parts = [ "bn1", bn1; "conv1", conv1; "bn2", bn2; "conv2", conv2 ]

        let run (shortcut: torch.Tensor -> torch.Tensor -> torch.Tensor) (x: torch.Tensor) =
            let out = relu (bn1.call x)
            Scope.add (conv2.call (relu (bn2.call (conv1.call out)))) (shortcut x out)

        if stride = 1 && channels = width then
            composite "Block" parts (run (fun x _ -> x))
        else
            let shortcut = conv channels width 1L stride
            composite "Block" (parts @ [ "shortcut", shortcut ]) (run (fun _ out -> shortcut.call out))

    let private stage (count: int) (channels: int) (width: int) (stride: int) : Module =
        let blocks =
            [ for i in 0 .. count - 1 do
                  string i,
                  (if i = 0 then
                       block channels width stride
                   else
                       block width width 1) ]

        composite "Stage" blocks (fun x -> (x, blocks) ||> List.fold (fun x (_, block) -> block.call x))

    /// PyTorch's own scheme: U(-1/sqrt fan_in, 1/sqrt fan_in) for convolutions and linear layers with their biases;
    /// normalisations start at 1 and 0 as they are made. (TorchSharp's `init.uniform_` would not use the generator.)
    let private initialise (seed: uint64) (network: Module) =
        use generator = new torch.Generator(seed)
        use _ = torch.no_grad ()

        let fill (weight: torch.Tensor) (bias: torch.Tensor) =
            let fanIn = weight.shape |> Array.skip 1 |> Array.fold (*) 1L
            let bound = 1.0 / sqrt (float fanIn)

            for tensor in [ weight; bias ] do
                if not (isNull tensor) then
                    tensor.uniform_ (-bound, bound, generator) |> ignore

        for inner in network.modules () do
            match inner with
            | :? TorchSharp.Modules.Conv2d as conv -> fill conv.weight conv.bias
            | :? TorchSharp.Modules.Linear as linear -> fill linear.weight linear.bias
            | _ -> ()

    let private globalGenerator = obj ()

    /// Runs `make` and leaves the global generator, of which TorchSharp's layers draw when they are made, as it was.
    /// One thread at a time: a state that another thread is changing would be refused, and end the process.
    let private sparingGlobal (make: unit -> 'a) : 'a =
        lock globalGenerator (fun () ->
            use state = torch.get_rng_state ()

            try
                make ()
            finally
                torch.set_rng_state state)

    let private normalise (mean: float list) (std: float list) (images: torch.Tensor) : torch.Tensor =
        Scope.run (fun () ->
            let channels (values: float list) =
                torch.tensor (Array.ofList values, ReadOnlySpan [| 1L; 3L; 1L; 1L |], images.dtype, images.device)

            (images - channels mean).div_(channels std))

    let private check (settings: PreActResNetSettings) =
        let atLeast lowest what value =
            if value < lowest then
                Errors.user $"{what} {value}: a PreActResNet needs at least {lowest}."

        atLeast 1 "Width" settings.Width
        atLeast 1 "Classes" settings.Classes
        atLeast 1 "Stride" settings.Stride

        if
            settings.Mean.Length <> 3
            || settings.Std.Length <> 3
            || not (List.forall (fun s -> s > 0.0) settings.Std)
        then
            invalidArg (nameof settings) "Mean and Std need a number for each of 3 channels, Std a positive one."

    /// Builds the network with parameters that follow from the seed alone, in training mode, on the CPU in float32.
    /// Stages: conv1, stage1 .. stage4 (of 1, 1/2, 1/4 and 1/8 of the side), head (mean over the map, linear).
    /// A UserError for another depth, or a width, number of classes or stride below 1.
    let create (seed: uint64) (settings: PreActResNetSettings) : Model =
        check settings

        let counts =
            match settings.Depth with
            | 18 -> [ 2; 2; 2; 2 ]
            | 34 -> [ 3; 4; 6; 3 ]
            | depth -> Errors.user $"Depth {depth}: a PreActResNet here has depth 18 or 34."

        let width = settings.Width

        sparingGlobal (fun () ->
            let conv1 = conv 3 width 3L settings.Stride

            let stages =
                counts
                |> List.mapi (fun i count ->
                    let before = if i = 0 then width else width <<< (i - 1)
                    $"stage{i + 1}", stage count before (width <<< i) (if i = 0 then 1 else 2))

            let linear = torch.nn.Linear(int64 (width <<< 3), int64 settings.Classes) :> Module

            let head (x: torch.Tensor) =
                Scope.run (fun () -> linear.call (x.mean [| 2L; 3L |]))

            let steps =
                [ for name, part in ("conv1", conv1) :: stages do
                      name, fun (x: torch.Tensor) -> part.call x
                  "head", head ]

            let network =
                composite "PreActResNet" [ "conv1", conv1; yield! stages; "linear", linear ] (fun x ->
                    (x, steps) ||> List.fold (fun x (_, step) -> step x))

            initialise seed network

            { Name = $"preact-resnet-{settings.Depth}"
              Module = network
              Stages = steps
              Normalise = normalise settings.Mean settings.Std })
