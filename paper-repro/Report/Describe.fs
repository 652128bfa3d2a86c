namespace PatchUp.Repro

open System.Globalization
open PatchUp.Functional

/// A map's side by side and the fraction of it that is altered in expectation.
type Altered = { Map: string; Fraction: float }

/// A region of a method, and how much it alters.
type AlteredRegion =
    { Region: string
      Altered: Altered list }

/// A method in words and numbers.
type Description =
    {
        Name: string
        Paper: string
        Notation: string
        Loss: string
        /// The weight of the cross-entropy on the images as they are, which is added.
        CleanLoss: float
        /// Indented lines.
        Words: string list
        Regions: AlteredRegion list
    }

[<RequireQualifiedAccess>]
module Describe =

    let private number (value: float) =
        value.ToString("0.###", CultureInfo.InvariantCulture)

    let private place (place: Place) =
        match place with
        | Number 0 -> "the input"
        | Number 1 -> "site 1, after the first convolution"
        | Number k when k <= 5 -> $"site {k}, after residual stage {k - 1}"
        | Number k -> $"site {k}"
        | Name name -> $"the end of \"{name}\""

    let private sites (site: Site) =
        let listed places =
            places |> List.map place |> String.concat "; "

        match site with
        | At at -> $"At {place at}"
        | AnyOf [ one ]
        | AllOf [ one ] -> $"At {place one}"
        | AnyOf places -> $"At one of these, uniformly at random ({listed places})"
        | AllOf places -> $"At each of these, with draws of its own ({listed places})"

    let private drawn (dist: Dist) =
        match dist with
        | Always value -> number value
        | Uniform -> "a number uniform on [0, 1]"
        | Beta(a, b) -> $"a number from Beta({number a}, {number b})"
        | CustomDist custom ->
            let named = String.concat " " (custom.Name :: List.map number custom.Arguments)
            $"a number from {named}"

    /// The altered features as a noun phrase. Granularity is told at each leaf that draws.
    let rec private features (perSample: bool) (perChannel: bool option) (region: Region) : string =
        let go = features perSample perChannel

        let leaf naturallyPerChannel phrase =
            let often =
                if perSample then
                    "anew for every sample"
                else
                    "once a batch"

            let channels =
                if defaultArg perChannel naturallyPerChannel then
                    "for each channel"
                else
                    "for all channels together"

            $"{phrase} (drawn {often}, {channels})"

        match region with
        | Nowhere -> "no feature"
        | Everywhere -> "every feature"
        | Cells fraction -> leaf true $"each feature by itself with probability {number fraction}"
        | Channels fraction -> leaf true $"whole channels, each with probability {number fraction}"
        | Blocks(size, fraction, calibration) ->
            let squares = $"squares of side {size}"

            match calibration with
            | Exact -> $"{squares} that cover {number fraction} of the map in expectation"
            | Paper ->
                $"{squares} at seeds anywhere on the map, as many as equation (2) gives for gamma = {number fraction}"
            | Valid ->
                $"{squares} at seeds where they fit whole, as many as equation (2) gives for gamma = {number fraction}"
            |> leaf true
        | Rect area ->
            leaf
                false
                $"one rectangle of the map's proportions, centred anywhere, its share of the map {drawn area} \
                  before it is clipped"
        | Not a -> $"all features but ({go a})"
        | And(a, b) -> $"those in both ({go a}) and ({go b})"
        | Or(a, b) -> $"those in ({go a}) or ({go b})"
        | PerSample a -> features true perChannel a
        | PerChannel a -> features perSample (Some true) a
        | Shared a -> features perSample (Some false) a
        | Custom custom ->
            let named = String.concat " " (custom.Name :: List.map number custom.Arguments)
            leaf false $"the features of {named}"

    let private partner (partner: Partner) =
        match partner with
        | Blank -> None
        | Self -> Some "Each sample is its own partner."
        | Shuffled -> Some "Partners follow a random permutation of the batch, in which a sample may meet itself."
        | Derangement -> Some "Partners follow a random permutation of the batch, in which no sample meets itself."
        | Rolled by -> Some $"The partner is the sample {by} places later in the batch."
        | SameClass -> Some "The partner is a random sample of the same class."
        | OtherClass -> Some "The partner is a random sample of another class."

    let private move (step: Step) =
        let lambda, dist =
            match step.Mix with
            | Swap -> "", Always 0.0
            | Blend dist -> "one lambda for the batch", dist
            | BlendEach dist -> "a lambda for each sample", dist

        match step.Partner, step.Mix with
        | Blank, Swap -> "These become zero."
        | Blank, _ -> $"These are multiplied by lambda ({lambda}: {drawn dist})."
        | _, Swap -> "These become the partner's, bit for bit."
        | _ -> $"These become lambda times their own and 1 - lambda times the partner's ({lambda}: {drawn dist})."

    let private view (step: Step) =
        match step.View with
        | AsIs -> None
        | Resized -> Some "The partner's map is first shrunk into the box around the altered features."
        | Transported -> Some "Cells of both images are first moved to where the region says."

    let private rescale (step: Step) =
        match step.Rescale with
        | NoRescale -> None
        | Nominal -> Some "All are then divided by the share that is kept in expectation."
        | Batch -> Some "All are then divided by the share that was kept, counted over the batch."
        | Sample -> Some "All are then divided by the share that was kept, counted for each sample."

    let private labels (step: Step) =
        match step.Partner, step.Mix with
        | Blank, _ -> "Labels stay."
        | _, Swap ->
            "Label: the own one has the weight p_u, the share of features left unchanged; the partner's has the rest."
        | _ ->
            "Label: the own one has the weight p_u + (1 - p_u) lambda, with p_u the share of features left unchanged; \
             the partner's has the rest."

    let private objective (step: Step) =
        let first =
            "p_u times the loss at the own label plus 1 - p_u times the loss at the altered features' label"

        let second = "the loss at the mixed label"
        let objective = step.Objective

        if step.Partner = Blank then
            None
        elif objective = Objective.reweighted then
            Some $"Loss: {second}."
        elif objective = Objective.first then
            Some $"Loss: {first} (the first term of equation 6)."
        elif objective = Objective.twoTerm then
            Some $"Loss: {first}, plus {second} (equation 6)."
        else
            Some $"Loss: {number objective.First} times ({first}) plus {number objective.Second} times ({second})."

    let private sentences (step: Step) =
        [ Some $"{sites step.Site}, altered are {features false None step.Region}."
          view step
          Some(move step)
          rescale step
          partner step.Partner
          Some(labels step)
          objective step ]
        |> List.choose id

    /// The method in plain words, a line a sentence, indented below what it depends on.
    let rec words (regularizer: Regularizer) : string list =
        let below regularizer =
            words regularizer |> List.map (fun line -> "  " + line)

        match regularizer with
        | Do step -> sentences step
        | Sequence [] -> [ "Nothing is mixed: features and labels stay." ]
        | Sequence parts ->
            "All of these, in the order in which the network reaches their sites:"
            :: (parts
                |> List.mapi (fun i part -> $"- part {i + 1}:" :: below part)
                |> List.concat)
        | Over points ->
            points
            |> List.collect (fun (time, part) -> $"At {number time} of training (in proportion between):" :: below part)
        | Choose branches ->
            let total = branches |> List.sumBy fst

            branches
            |> List.collect (fun (weight, branch) -> $"With probability {number (weight / total)}:" :: below branch)

    /// A loss, and what the images as they are add to it.
    let losses (loss: string) (cleanLoss: float) : string =
        if cleanLoss = 0.0 then
            loss
        else
            $"{loss} + {number cleanLoss} clean cross-entropy"

    /// The sides of the maps of CIFAR's PreActResNet.
    let private sides = [ 32; 16; 8 ]

    /// Describes a method.
    let method' (method': Method) : Description =
        { Name = method'.Name
          Paper = method'.Paper
          Notation = Notation.show method'.Regularizer
          Loss = Config.lossName method'.Loss
          CleanLoss = method'.CleanLoss
          Words = words method'.Regularizer
          Regions =
            Regularizer.steps method'.Regularizer
            |> List.map _.Region
            |> List.distinct
            |> List.map (fun region ->
                { Region = Notation.showRegion region
                  Altered =
                    [ for side in sides do
                          { Map = $"{side}x{side}"
                            Fraction =
                              Region.fraction
                                  { Channels = 1
                                    Height = side
                                    Width = side }
                                  region } ] }) }

    /// For a terminal.
    let text (description: Description) : string =
        let fraction (value: float) =
            value.ToString("0.000", CultureInfo.InvariantCulture)

        let maps = sides |> List.map (fun side -> $"{side}x{side}")

        let regions =
            if description.Regions.IsEmpty then
                []
            else
                let rows =
                    description.Regions
                    |> List.map (fun region ->
                        region.Region
                        :: (region.Altered |> List.map (fun altered -> fraction altered.Fraction)))

                [ ""; "Expected altered fraction"; Tables.aligned ("region" :: maps) rows ]

        let paper =
            if description.Paper = "" then
                ""
            else
                $" ({description.Paper})"

        [ $"{description.Name}{paper}"
          ""
          $"Notation  {description.Notation}"
          $"Loss      {losses description.Loss description.CleanLoss}"
          "" ]
        @ description.Words
        @ regions
        |> String.concat "\n"
