namespace PatchUp.Repro

open System

/// Numbers that others published of the methods.
type Published =
    {
        Data: string
        /// How many it has.
        Classes: int
        /// Whose they are, with network and schedule.
        Source: string
        /// error or top-5 error.
        Quantity: string
        /// By method, in percent.
        Values: (string * float) list
    }

/// Numbers that others published, by data set.
[<RequireQualifiedAccess>]
module Published =

    /// All of them.
    let all: Published list =
        let openMixup data classes network numbers =
            { Data = data
              Classes = classes
              Source = $"OpenMixup, {network}"
              Quantity = "error"
              Values = List.zip [ "none"; "mixup"; "cutmix"; "manifold-mixup"; "puzzlemix" ] numbers }

        let cutout data classes network plain own =
            { Data = data
              Classes = classes
              Source = $"Cutout's authors, {network}"
              Quantity = "error"
              Values = [ "none", plain; "cutout", own ] }

        let imageNet quantity numbers =
            { Data = "ImageNet"
              Classes = 1000
              Source = "CutMix's and PuzzleMix's authors, ResNet-50, 300 epochs"
              Quantity = quantity
              Values =
                List.zip
                    [ "none"
                      "mixup"
                      "cutout"
                      "manifold-mixup"
                      "feature-cutmix"
                      "cutmix"
                      "puzzlemix" ]
                    numbers }

        [ openMixup "CIFAR-10" 10 "ResNet-18, 200 epochs" [ 5.13; 4.30; 3.89; 3.96; 3.58 ]
          openMixup "CIFAR-10" 10 "ResNet-18, 1200 epochs" [ 4.41; 3.16; 3.44; 2.98; 2.87 ]
          cutout "CIFAR-10" 10 "WRN-28-10" 3.87 3.08
          cutout "CIFAR-10" 10 "ResNet-18" 4.72 3.99
          openMixup "CIFAR-100" 100 "ResNet-18, 200 epochs" [ 23.58; 21.48; 20.55; 20.82; 20.04 ]
          openMixup "CIFAR-100" 100 "ResNet-18, 1200 epochs" [ 21.45; 20.76; 21.71; 19.79; 18.90 ]
          openMixup "CIFAR-100" 100 "WRN-28-8, 400 epochs" [ 18.37; 17.18; 15.55; 16.76; 14.98 ]
          cutout "CIFAR-100" 100 "WRN-28-10" 18.8 18.41
          cutout "CIFAR-100" 100 "ResNet-18" 22.46 21.96
          openMixup "Tiny-ImageNet" 200 "ResNet-18, 400 epochs" [ 38.32; 36.14; 34.47; 35.85; 34.19 ]
          imageNet "error" [ 23.68; 22.58; 22.93; 22.50; 21.80; 21.40; 21.24 ]
          imageNet "top-5 error" [ 7.05; 6.40; 6.66; 6.21; 6.06; 5.92; 5.71 ] ]

    /// Those of a data set, whose name is theirs, also as it is called where it is published, or theirs and what it is a part or a copy of in words. What is
    /// called otherwise, such as imagenette, ImageNet-R or CIFAR-10.1, is another set.
    let ofData (data: string) : Published list =
        let isSame (each: Published) =
            [ ""; "-binary"; "-batches-bin"; $"-{each.Classes}" ]
            |> List.exists (fun ending ->
                let name = each.Data + ending

                data.Equals(name, StringComparison.OrdinalIgnoreCase)
                || data.StartsWith(name + " ", StringComparison.OrdinalIgnoreCase)
                || data.StartsWith(name + ",", StringComparison.OrdinalIgnoreCase))

        all |> List.filter isSame
