namespace PatchUp.Repro

open System
open System.Globalization
open PatchUp.Functional
open SkiaSharp
open TorchSharp

/// What one plan did to a batch of images, for showing.
[<NoEquality; NoComparison>]
type private Shown =
    {
        Plan: Plan
        Images: Pixels list
        Mixed: Pixels list
        /// For each image, the label weight of each image of the batch.
        Weights: float list list
    }

/// Methods at work, as pictures: images enlarged without smoothing, every number labelled.
[<RequireQualifiedAccess>]
module Picture =

    // ---- what is shown ----

    let private isInput place = (place = Number 0)

    let private isBlank (step: Step) = (step.Partner = Blank)

    /// The method as it can be shown on a few images: at the input, and with no image as its own partner unless the
    /// method says so.
    let private atInput (regularizer: Regularizer) : Regularizer =
        regularizer
        |> Regularizer.map (fun step ->
            { step with
                Site = At(Number 0)
                Objective = Objective.reweighted
                Partner =
                    match step.Partner with
                    | Blank
                    | Self -> step.Partner
                    | _ -> Derangement })

    /// What the picture does not show as it happens in training.
    let private remarks (regularizer: Regularizer) : string list =
        let steps = Regularizer.steps regularizer

        let hidden =
            steps
            |> List.exists (fun step -> Site.places step.Site |> List.exists (isInput >> not))

        let always =
            steps
            |> List.forall (fun step -> Site.places step.Site |> List.forall (isInput >> not))

        [ if hidden then
              if always then
                  "It acts on hidden features; here it is shown at the input."
              else
                  "It acts on hidden features too; here all of it is shown at the input."
          if steps |> List.exists isBlank then
              "Blanked features take the mean colour, as in the network." ]

    /// Applies a plan to images in [0,1] around their mean colour, as the network sees them, and to the labels "image
    /// 0", "image 1", ...
    let private show (plan: Plan) (images: Pixels list) : Shown =
        Scope.value (fun () ->
            let stacked = torch.stack (images |> List.map Images.toTensor |> Array.ofList)
            let mean = stacked.mean ([| 0L; 2L; 3L |], keepdim = true)
            let targets = Targets.ofIndices torch.CPU images.Length [| 0 .. images.Length - 1 |]
            let mixed = Plan.apply plan (Batch.create (stacked - mean) targets)
            let colours = Scope.add mixed.Features mean
            let weights = mixed.Targets.Soft.data<float32>().ToArray() |> Array.map float

            { Plan = plan
              Images = images
              Mixed = [ for i in 0 .. images.Length - 1 -> Images.ofTensor (colours.select (0L, int64 i)) ]
              Weights = weights |> List.ofArray |> List.chunkBySize images.Length })

    /// What stands for saliency where there is no network: how much a place's brightness differs from that around it.
    let private contrast (images: torch.Tensor) : float32[] =
        Scope.value (fun () ->
            let brightness = images.mean ([| 1L |], keepdim = true)

            let around =
                torch.nn.functional.avg_pool2d (brightness, 5L, 1L, 2L, count_include_pad = false)

            Saliency.pixels ((brightness - around).abs()))

    let private draw (key: Key) (regularizer: Regularizer) (images: Pixels list) : Shown =
        let shape =
            { Channels = 3
              Height = images.Head.Height
              Width = images.Head.Width }

        let plan =
            Scope.value (fun () ->
                let stacked = torch.stack (images |> List.map Images.toTensor |> Array.ofList)

                let saliency = lazy (contrast stacked)
                let area = shape.Height * shape.Width

                /// As large as the saliency, to where the noise points already.
                let gradient (noise: float32[]) =
                    noise
                    |> Array.mapi (fun i value ->
                        saliency.Value[i / (shape.Channels * area) * area + i % area]
                        * float32 (sign value))

                let info =
                    { BatchInfo.ofShape images.Length shape with
                        Saliency = Some saliency
                        Pixels = Some(lazy (Saliency.pixels stacked))
                        Noisy =
                            Some
                                { Gradient = gradient
                                  Scale = lazy (Array.create shape.Channels 1.0f) } }

                Plan.draw key info (atInput regularizer))

        show plan images

    /// A sample's mask as an image: white is unchanged; where channels have masks of their own, each is one colour.
    let private maskImage (mask: Mask) (sample: int) : Pixels =
        let area = mask.Height * mask.Width
        let first = sample % mask.Samples * mask.Channels * area

        let value i =
            match mask.Values with
            | Hard bits -> if bits[i] then 255uy else 0uy
            | Soft values -> byte (Math.Round(255.0 * float values[i]))

        { Height = mask.Height
          Width = mask.Width
          Planes = Array.init (3 * area) (fun i -> value (first + i % (mask.Channels * area))) }

    // ---- how it is laid out ----

    let private typeface =
        lazy
            (let name = "DejaVuSans-subset.ttf"
             use stream = typeof<Comparison>.Assembly.GetManifestResourceStream name

             if isNull stream then
                 invalidOp $"The assembly lacks its resource {name}."

             SKTypeface.FromStream stream)

    /// Text of this size and colour in the program's own typeface; the caller disposes it.
    let internal ink (size: float32) (colour: SKColor) =
        new SKPaint(Typeface = typeface.Value, TextSize = size, Color = colour, IsAntialias = true)

    /// The size of running text, in pixels.
    let private body = 13.0f

    let private margin = 16.0f

    let private gap = 12.0f

    let private lineHeight = 18.0f

    /// The text in lines no wider than this; words that are wider are cut.
    let private wrap (paint: SKPaint) (width: float32) (text: string) : string list =
        let fits (line: string) = paint.MeasureText line <= width

        let rec cut (word: string) =
            if fits word then
                [ word ]
            else
                let head =
                    Seq.findBack (fun n -> n = 1 || fits (word.Substring(0, n))) (seq { 1 .. word.Length })

                word.Substring(0, head) :: cut (word.Substring head)

        text.Split ' '
        |> List.ofArray
        |> List.collect cut
        |> List.fold
            (fun lines word ->
                match lines with
                | line :: earlier when fits $"{line} {word}" -> $"{line} {word}" :: earlier
                | _ -> word :: lines)
            []
        |> List.rev

    /// Something to draw with its top left corner at a place, and how much room it takes.
    [<NoEquality; NoComparison>]
    type private Block =
        { Width: float32
          Height: float32
          Draw: SKCanvas -> float32 -> float32 -> unit }

    let private text (size: float32) (colour: SKColor) (width: float32) (content: string) : Block =
        let lines =
            use paint = ink size colour
            wrap paint width content

        let line = size * lineHeight / body

        { Width = width
          Height = line * float32 lines.Length
          Draw =
            fun canvas x y ->
                use paint = ink size colour

                lines
                |> List.iteri (fun i content -> canvas.DrawText(content, x, y + line * float32 i + size, paint)) }

    let private plain = text body SKColors.Black

    let private grey = text body (SKColor(95uy, 95uy, 95uy))

    let private heading = text 17.0f SKColors.Black

    let private picture (side: float32) (pixels: Pixels) : Block =
        { Width = side
          Height = side
          Draw =
            fun canvas x y ->
                use bitmap = Images.toBitmap pixels
                use nearest = new SKPaint(FilterQuality = SKFilterQuality.None)
                canvas.DrawBitmap(bitmap, SKRect(x, y, x + side, y + side), nearest)

                use frame =
                    new SKPaint(Style = SKPaintStyle.Stroke, Color = SKColor(160uy, 160uy, 160uy))

                canvas.DrawRect(SKRect(x - 0.5f, y - 0.5f, x + side + 0.5f, y + side + 0.5f), frame) }

    let private above (space: float32) (blocks: Block list) : Block =
        { Width = blocks |> List.map _.Width |> List.max
          Height = (blocks |> List.sumBy _.Height) + space * float32 (blocks.Length - 1)
          Draw =
            fun canvas x y ->
                (y, blocks)
                ||> List.fold (fun y block ->
                    block.Draw canvas x y
                    y + block.Height + space)
                |> ignore }

    let private beside (blocks: Block list) : Block =
        { Width = (blocks |> List.sumBy _.Width) + gap * float32 (blocks.Length - 1)
          Height = blocks |> List.map _.Height |> List.max
          Draw =
            fun canvas x y ->
                (x, blocks)
                ||> List.fold (fun x block ->
                    block.Draw canvas x y
                    x + block.Width + gap)
                |> ignore }

    let private write (path: string) (block: Block) =
        let size (length: float32) = int (ceil (length + 2.0f * margin))
        use bitmap = new SKBitmap(size block.Width, size block.Height)
        use canvas = new SKCanvas(bitmap)
        canvas.Clear SKColors.White
        block.Draw canvas margin margin
        Images.writePng path bitmap

    let private number (value: float) =
        value.ToString("0.00", CultureInfo.InvariantCulture)

    /// The label weights in words: the image's own, then the others by weight.
    let private labels (names: string list) (own: int) (weights: float list) : string list =
        weights
        |> List.indexed
        |> List.filter (fun (_, weight) -> weight > 0.0005)
        |> List.sortBy (fun (i, weight) -> i <> own, -weight)
        |> List.map (fun (i, weight) -> $"{number weight} {names[i]}")

    /// The side of an enlarged image: a multiple of its own, about `wanted`.
    let private enlarged (wanted: int) (pixels: Pixels) : float32 =
        float32 (pixels.Width * max 1 (wanted / pixels.Width))

    let private checkSizes (images: (string * Pixels) list) =
        match images with
        | (_, first) :: rest when
            first.Height = first.Width
            && rest
               |> List.forall (fun (_, other) -> other.Height = first.Height && other.Width = first.Width)
            ->
            ()
        | _ -> invalidArg (nameof images) "A picture needs square images of one size."

    /// One row for each image: the image, its partner, the mask, and the mixed image with its label weights. Images are
    /// named, square, of one size, and at most 26.
    let drawn (path: string) (method': Method) (seed: int) (images: (string * Pixels) list) : unit =
        checkSizes images
        let names, pixels = List.unzip images
        let letters = images |> List.mapi (fun i _ -> string (char (int 'A' + i)))
        let shown = draw (Key.ofSeed seed) method'.Regularizer pixels
        let side = enlarged 192 pixels.Head

        let column caption image below =
            above 4.0f (grey side caption :: picture side image :: List.map (plain side) below)

        let drawnColumns (i: int) (drawn: Drawn) =
            let partner =
                match drawn.Partner with
                | Some map -> [ column "partner" pixels[map[i]] [ letters[map[i]] ] ]
                | None -> []

            let kept = (Mask.unchanged drawn.Mask)[i % drawn.Mask.Samples]

            let lambda =
                match drawn.Lambda with
                | [| 0.0 |] -> []
                | each -> [ $"lambda = {number each[i % each.Length]}" ]

            partner
            @ [ column "mask M, white is unchanged" (maskImage drawn.Mask i) ($"p_u = {number kept}" :: lambda) ]

        let row i =
            [ column "image" pixels[i] [ $"{letters[i]}: {names[i]}" ]
              yield! shown.Plan.Draws |> List.collect (drawnColumns i)
              column "mixed" shown.Mixed[i] [ "label: " + String.Join(" + ", labels letters i shown.Weights[i]) ] ]
            |> beside

        let rows = List.init images.Length row
        let width = max 560.0f (List.head rows).Width

        let remarks =
            [ if shown.Plan.Draws.IsEmpty then
                  "Nothing this time: the draw of this seed leaves the images as they are."
              else
                  yield! remarks method'.Regularizer

              if shown.Plan.Draws |> List.exists (fun drawn -> drawn.Mask.Channels > 1) then
                  "Each channel has a mask of its own: the mask's red, green and blue are those of the image's." ]

        let notation = Notation.show method'.Regularizer

        [ heading width method'.Name
          if notation <> method'.Name then
              grey width notation
          if not remarks.IsEmpty then
              grey width (String.Join(" ", remarks))
          yield! rows ]
        |> above gap
        |> write path

    /// So many draws of the key's children that do something, as far as the first hundred have them; else the first
    /// child's.
    let private acting (count: int) (key: Key) (regularizer: Regularizer) (images: Pixels list) : Shown list =
        let draws = Seq.init 100 (fun i -> draw (Key.child i key) regularizer images)

        match
            draws
            |> Seq.filter (fun shown -> not shown.Plan.Draws.IsEmpty)
            |> Seq.truncate count
            |> List.ofSeq
        with
        | [] -> [ Seq.head draws ]
        | found -> found

    /// A sheet: the images in a row, and below them for each method what so many draws make of them, with label
    /// weights. Images are named by their class, square, and of one size; there are at least two. Methods that act only
    /// sometimes are shown acting.
    let sheet (path: string) (methods: Method list) (draws: int) (seed: int) (images: (string * Pixels) list) : unit =
        checkSizes images
        let names, pixels = List.unzip images
        let side = enlarged 128 pixels.Head
        let width = float32 images.Length * (side + gap) - gap

        let cell image below =
            above 2.0f (picture side image :: below)

        let originals =
            List.map2 (fun name image -> cell image [ plain side name ]) names pixels
            |> beside

        let row (shown: Shown) =
            shown.Mixed
            |> List.mapi (fun i image -> labels names i shown.Weights[i] |> List.map (plain side) |> cell image)
            |> beside

        let rows (method': Method) =
            let notation = Notation.show method'.Regularizer
            let remarks = remarks method'.Regularizer

            [ heading width method'.Name
              if notation <> method'.Name then
                  grey width notation
              if not remarks.IsEmpty then
                  grey width (String.Join(" ", remarks))
              yield! acting draws (Key.ofSeed seed) method'.Regularizer pixels |> List.map row ]
            |> above 4.0f

        let caption =
            grey width "Below each, with its label weights: what becomes of it when the batch is these images."

        heading width "originals" :: caption :: originals :: List.map rows methods
        |> above gap
        |> write path
