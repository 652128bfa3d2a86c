namespace PatchUp.Functional

open PatchUp.Functional.Words

/// A published method in the words of the library.
[<NoComparison; NoEquality>]
type Method =
    {
        /// Kebab-case.
        Name: string
        Regularizer: Regularizer
        /// The per-sample loss it is trained with.
        Loss: Loss
        /// The weight of the cross-entropy on the images as they are, which is added to it; 0 for none.
        CleanLoss: float
        /// Authors and year, or what the method is a flavour of.
        Paper: string
    }

/// The published methods. Their settings are those of the PatchUp paper's experiments where it has them; the flavour `-2020` follows the
/// PatchUp authors' code instead: equation (2) taken literally, one hole for the whole batch, and binary cross-entropy on softmax as the loss.
[<RequireQualifiedAccess>]
module Catalogue =

    /// Soft PatchUp (equations 5 and 6): mixes blocks of hidden features; at the input, one swapped rectangle.
    let softPatchUp calibration =
        oneOf
            [ 1, rect uniform |> swap |> at input
              2, blocksBy calibration 7 0.75 |> blend (beta 2 2) |> atAny [ 1; 2 ] ]
        |> twoTerm

    /// Hard PatchUp (equations 3 and 6): swaps blocks of hidden features; at the input, one swapped rectangle.
    let hardPatchUp calibration =
        oneOf
            [ 1, rect uniform |> swap |> at input
              2, blocksBy calibration 7 0.5 |> swap |> atAny [ 1; 2 ] ]
        |> twoTerm
        |> sometimes 0.7

    /// Mixes images with one lambda ~ Beta(alpha, alpha).
    let mixup alpha =
        everywhere |> blend (beta alpha alpha) |> at input

    /// Mixup at the input or a hidden site.
    let manifoldMixup alpha =
        everywhere |> blend (beta alpha alpha) |> atAny [ 0; 1; 2 ]

    /// Swaps one rectangle of the images, its area ~ Beta(alpha, alpha).
    let cutMix alpha =
        rect (beta alpha alpha) |> swap |> at input

    /// CutMix at the input or a hidden site.
    let featureCutMix alpha =
        rect (beta alpha alpha) |> swap |> atAny [ 0; 1; 2 ]

    /// Swaps where low-frequency noise is high.
    let fMix = Family.fourier 3.0 1.0 |> swap |> at input

    /// Swaps cells of a grid.
    let gridMix cells =
        Family.grid cells 1.0 |> swap |> at input

    /// Mixes within a soft disc.
    let smoothMix = Family.disc 0.25 0.5 |> swap |> at input

    /// Pastes the whole partner, shrunk into a rectangle.
    let resizeMix = rect (Family.squared 0.1 0.8) |> swap |> resized |> at input

    /// Swaps a rectangle around the partner's most salient place, for each sample its own.
    let saliencyMix = Family.salient 1.0 |> swap |> at input

    /// Swaps cells by saliency, smoothness and colour, and moves them so that nothing salient is lost.
    let puzzleMix settings =
        Family.puzzle settings |> swap |> transported |> at input

    /// Blanks a square of half the image's side, 16 of 32 pixels as published for CIFAR-10.
    let cutout hole =
        hole (rect (always 0.25)) |> blank |> at input

    /// Blanks blocks and rescales what is left.
    let dropBlock calibration size fraction sites =
        perSample (blocksBy calibration size fraction)
        |> blank
        |> rescale Batch
        |> atAll sites

    /// Blanks units (of `cells` or `channels`) and rescales by their probability.
    let dropout units =
        perSample units |> blank |> rescale Nominal |> atAll [ 1; 2; 3; 4 ]

    /// Every method, a line each; to add one, add a line.
    let all: Method list =
        let entry name loss paper regularizer =
            { Name = name
              Regularizer = regularizer
              Loss = loss
              CleanLoss = 0.0
              Paper = paper }

        let method' name paper regularizer =
            entry name CrossEntropy paper regularizer

        let authors name regularizer =
            entry (name + "-2020") BceOnSoftmax $"{name} as in the PatchUp authors' code" regularizer

        let withCleanLoss method' = { method' with CleanLoss = 1.0 }

        [ identity |> method' "none" "no mixing"
          mixup 1 |> method' "mixup" "Zhang et al. 2018"
          manifoldMixup 1.5 |> method' "manifold-mixup" "Verma et al. 2019"
          cutMix 1 |> sometimes 0.4 |> method' "cutmix" "Yun et al. 2019"
          featureCutMix 1 |> method' "feature-cutmix" "Yun et al. 2019"
          fMix |> method' "fmix" "Harris et al. 2020"
          gridMix 4 |> method' "gridmix" "Baek et al. 2021"
          resizeMix |> method' "resizemix" "Qin et al. 2020"
          smoothMix |> method' "smoothmix" "Lee et al. 2020"
          saliencyMix |> method' "saliencymix" "Uddin et al. 2021"
          puzzleMix PuzzleSettings.cifar |> method' "puzzlemix" "Kim et al. 2020"
          puzzleMix PuzzleSettings.cifarAdversarial
          |> method' "puzzlemix-adversarial" "Kim et al. 2020"
          puzzleMix PuzzleSettings.tinyImageNet
          |> method' "puzzlemix-tiny-imagenet" "Kim et al. 2020"
          |> withCleanLoss
          puzzleMix PuzzleSettings.tinyImageNetAdversarial
          |> method' "puzzlemix-tiny-imagenet-adversarial" "Kim et al. 2020"
          |> withCleanLoss
          puzzleMix PuzzleSettings.imageNet
          |> method' "puzzlemix-imagenet" "Kim et al. 2020"
          puzzleMix PuzzleSettings.imageNetFast
          |> method' "puzzlemix-imagenet-fast" "Kim et al. 2020"
          |> withCleanLoss
          cutout perSample |> method' "cutout" "DeVries and Taylor 2017"
          dropout (cells 0.1) |> method' "dropout" "Srivastava et al. 2014"
          dropout (channels 0.1) |> method' "spatial-dropout" "Tompson et al. 2015"
          dropBlock Exact 7 0.1 [ 1; 2; 3; 4 ] |> method' "dropblock" "Ghiasi et al. 2018"
          softPatchUp Exact |> method' "soft-patchup" "Faramarzi et al. 2022"
          hardPatchUp Exact |> method' "hard-patchup" "Faramarzi et al. 2022"
          identity |> authors "none"
          mixup 1 |> authors "mixup"
          manifoldMixup 1.5 |> authors "manifold-mixup"
          cutMix 1 |> sometimes 0.4 |> authors "cutmix"
          featureCutMix 1 |> authors "feature-cutmix"
          cutout id |> authors "cutout"
          dropBlock Paper 7 0.1 [ 1; 2 ] |> authors "dropblock"
          puzzleMix PuzzleSettings.cifar |> authors "puzzlemix"
          softPatchUp Paper |> authors "soft-patchup"
          hardPatchUp Paper |> authors "hard-patchup" ]

    /// The method of this name.
    let tryFind (name: string) : Method option =
        all |> List.tryFind (fun method' -> method'.Name = name)

    /// The words of the library and the names of the catalogue.
    let vocabulary: Vocabulary =
        { Notation.plain with
            Customs = Family.regions
            Dists = Family.dists
            Named = Map [ for method' in all -> method'.Name, method'.Regularizer ] }

    /// Reads a line of notation in which the catalogue's methods may be named.
    let parse (text: string) : Result<Regularizer, NotationError> = Notation.parseWith vocabulary text
