namespace PatchUp.Repro

open PatchUp.Functional
open System
open TorchSharp

/// The activations at the end of a stage, over all images.
type SiteActivations =
    {
        /// The stage's name.
        Site: string
        /// Channels, height and width of an image's features.
        Features: string
        /// How many numbers there are, over all images.
        Count: int64
        /// The mean of their absolute values.
        MeanMagnitude: float
        /// The mean of the numbers themselves.
        Mean: float
        /// The mean of max(0, -x): half of what the mean magnitude is above the mean.
        MeanBelowZero: float
    }

/// The study of activations (figures 7 and 14 of the paper): their mean magnitude after the first convolution and each stage.
[<RequireQualifiedAccess>]
module Activations =

    /// Of a batch's features `[N,...]`.
    type private Sums =
        {
            /// Without N.
            Shape: string
            Numbers: int64
            Magnitudes: float
            Values: float
            BelowZero: float
        }

    let private sums (features: torch.Tensor) : Sums =
        let wide = features.``to`` torch.float64

        { Shape = String.Join("x", features.shape[1..])
          Numbers = features.NumberOfElements
          Magnitudes = wide.abs().sum().item<float>()
          Values = wide.sum().item<float>()
          BelowZero = wide.neg().relu().sum().item<float>() }

    /// At the end of every stage but the last, over all test images, in evaluation mode.
    let measure (candidate: Candidate) : SiteActivations list =
        let stages = candidate.Model.Stages
        let names = stages |> List.take (stages.Length - 1) |> List.map fst

        Candidate.batches candidate candidate.Test (fun _ images ->
            List.take names.Length stages
            |> List.scan (fun features (_, run) -> run features) (candidate.Model.Normalise images)
            |> List.tail
            |> List.map sums)
        |> List.transpose
        |> List.map2
            (fun name batches ->
                let count = batches |> List.sumBy _.Numbers
                let mean sum = List.sumBy sum batches / float count

                { Site = name
                  Features = batches.Head.Shape
                  Count = count
                  MeanMagnitude = mean _.Magnitudes
                  Mean = mean _.Values
                  MeanBelowZero = mean _.BelowZero })
            names

    /// Why the numbers cannot be those of so many images; empty where they can.
    let faults (images: int) (sites: SiteActivations list) : string list =
        [ for site in sites do
              let each = site.Features.Split 'x' |> Array.fold (fun n side -> n * int64 side) 1L

              if site.Count <> int64 images * each then
                  $"{site.Site}: {site.Count} activations where {images} images have {each} each"

              if not (Double.IsFinite site.MeanMagnitude) then
                  $"{site.Site}: the mean magnitude is not finite"
              elif
                  not (
                      abs (site.MeanMagnitude - site.Mean - 2.0 * site.MeanBelowZero)
                      <= 1e-9 * site.MeanMagnitude
                  )
              then
                  $"{site.Site}: the mean magnitude {site.MeanMagnitude} is not the mean {site.Mean} and twice {site.MeanBelowZero}, the mean below zero" ]
