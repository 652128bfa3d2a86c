namespace PatchUp.Repro

open System
open System.Text.RegularExpressions
open PatchUp.Functional
open TorchSharp

/// The architectures by name.
[<RequireQualifiedAccess>]
module Architectures =

    /// Those that have been published with results; wide residual networks of any other depth and width have names too.
    let all: Architecture list =
        [ PreActResNet.architecture "preact-resnet-18" [ 2; 2; 2; 2 ]
          PreActResNet.architecture "preact-resnet-34" [ 3; 4; 6; 3 ]
          WideResNet.architecture 28 10 Published
          WideResNet.architecture 28 10 Paper2020
          ResNet.architecture "resnet-18" Basic [ 2; 2; 2; 2 ]
          ResNet.architecture "resnet-34" Basic [ 3; 4; 6; 3 ]
          ResNet.architecture "resnet-50" Bottleneck [ 3; 4; 6; 3 ]
          ResNet.architecture "resnet-101" Bottleneck [ 3; 4; 23; 3 ]
          ResNet.architecture "resnet-152" Bottleneck [ 3; 8; 36; 3 ] ]

    /// What else has a name, in a line.
    let others =
        "wrn-D-K and wrn-D-K-2020, with any depth D of 6 n + 4 from 10 to 1000 and any width K up to 100"

    /// The architecture of a name: one of `all`, or a wide residual network `wrn-D-K`, `wrn-D-K-2020`. A UserError for any
    /// other.
    let find (name: string) : Architecture =
        let wide =
            Regex.Match(name, @"^wrn-([1-9]\d{0,3})-([1-9]\d{0,2})(-2020)?\z", RegexOptions.CultureInvariant)

        match all |> List.tryFind (fun known -> known.Name = name) with
        | Some known -> known
        | None when wide.Success ->
            let depth, factor = int wide.Groups[1].Value, int wide.Groups[2].Value

            if depth < 10 || depth > 1000 || (depth - 4) % 6 <> 0 || factor > 100 then
                Errors.user $"'{name}' is not a model; wide residual networks are {others}."

            WideResNet.architecture depth factor (if wide.Groups[3].Success then Paper2020 else Published)
        | None ->
            let hint =
                (if name.Length > 40 then
                     None
                 else
                     Notation.nearest (all |> List.map _.Name) name)
                |> Option.map (fun near -> $" (did you mean {near}?)")
                |> Option.defaultValue ""

            Errors.user $"'{name}' is not a model{hint}; 'patchup models' lists them."

    let private inRange what lowest highest value =
        if value < lowest || value > highest then
            Errors.user $"{what} {value}: it must lie in {lowest} .. {highest}."

    /// Refuses settings that make no network of this architecture, with a UserError that names the value.
    let check (name: string) (settings: NetworkSettings) : unit =
        let architecture = find name

        match architecture.Width, settings.Width with
        | None, Some width ->
            Errors.user $"width {width}: {architecture.Name} says itself how wide it is; leave the width out."
        | _, width -> Option.iter (inRange "width" 1 4096) width

        inRange "number of classes" 1 1_000_000 settings.Classes

        if not (List.contains settings.Stride architecture.Strides) then
            let allowed = architecture.Strides |> List.map string |> String.concat ", "
            Errors.user $"stride {settings.Stride}: that of {architecture.Name}'s stem is one of {allowed}."

        let isSound holds (values: float list) =
            values.Length = 3
            && values |> List.forall (fun value -> Double.IsFinite value && holds value)

        if not (isSound (fun _ -> true) settings.Mean) then
            Errors.user "mean: a number is needed for each of 3 channels."

        if not (isSound (fun deviation -> deviation > 0.0) settings.Std) then
            Errors.user "standard deviation: a positive number is needed for each of 3 channels."

    /// Builds the network with parameters that follow from the seed alone, in training mode, on the CPU in float32; the
    /// caller disposes it. A UserError for settings that make no network.
    let create (name: string) (settings: NetworkSettings) (seed: uint64) : Model =
        check name settings
        let architecture = find name
        let model = Layers.sparingGlobal (fun () -> architecture.Build torch.CPU settings)
        architecture.Initialise seed model
        model

    /// The same network without numbers: its parameters have names, types and shapes, and take no memory. It cannot be
    /// called.
    let outline (name: string) (settings: NetworkSettings) : Model =
        check name settings
        Layers.sparingGlobal (fun () -> (find name).Build (torch.device "meta") settings)

    /// The stem's stride for images of this side: 2 from 64 on and, where the architecture has that, 4 from 128 on.
    let stride (name: string) (side: int) : int =
        let wanted =
            if side >= 128 then 4
            elif side >= 64 then 2
            else 1

        (find name).Strides |> List.filter (fun stride -> stride <= wanted) |> List.max

    /// The sites by name in the order of their numbers, with the features' shapes for images of this size. The input is
    /// site 0; the last one is the logits.
    let sites (name: string) (settings: NetworkSettings) (height: int) (width: int) : (string * Shape) list =
        check name settings
        let architecture = find name

        let shape channels height width =
            { Channels = channels
              Height = height
              Width = width }

        let divided side stride = (side + stride - 1) / stride

        [ "input", shape 3 height width
          for section in architecture.Sections settings do
              section.Name, shape section.Channels (divided height section.Stride) (divided width section.Stride)
          architecture.Last, shape settings.Classes 1 1 ]
