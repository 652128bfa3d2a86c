namespace PatchUp.Repro

open System
open System.Globalization
open SkiaSharp

/// Numbers as pictures.
[<RequireQualifiedAccess>]
module Charts =

    let private black = SKColors.Black
    let private grey = SKColor(150uy, 150uy, 150uy)
    let private faint = SKColor(225uy, 225uy, 225uy)
    let private blue = SKColor(70uy, 120uy, 180uy)
    let private orange = SKColor(225uy, 120uy, 40uy)

    let private fill (colour: SKColor) =
        new SKPaint(Style = SKPaintStyle.Fill, Color = colour, IsAntialias = true)

    let private stroke (width: float32) (colour: SKColor) =
        new SKPaint(Style = SKPaintStyle.Stroke, Color = colour, StrokeWidth = width, IsAntialias = true)

    let private write (path: string) (width: int) (height: int) (draw: SKCanvas -> unit) =
        use bitmap = new SKBitmap(width, height)
        use canvas = new SKCanvas(bitmap)
        canvas.Clear SKColors.White
        draw canvas
        Images.writePng path bitmap

    /// Text from x on, or around or up to it, on the line y.
    let private text (canvas: SKCanvas) (align: SKTextAlign) (x: float32) (y: float32) (content: string) =
        use paint = Picture.ink 13.0f black
        paint.TextAlign <- align
        canvas.DrawText(content, x, y, paint)

    let private line (canvas: SKCanvas) (colour: SKColor) (width: float32) x y x' y' =
        use paint = stroke width colour
        canvas.DrawLine(x, y, x', y', paint)

    /// The least of 1, 2, 5, 10, 20, ... times a power of ten that goes into the span six times at most.
    let private step (span: float) : float =
        let power = 10.0 ** Math.Floor(log10 (span / 6.0))

        [ 1.0; 2.0; 5.0; 10.0 ]
        |> List.map ((*) power)
        |> List.find (fun size -> span / size <= 6.0 + 1e-9)

    /// The upright axis from `bottom` to `top` at the left of a field, with lines across it; gives where a value lies.
    let private scale (canvas: SKCanvas) (field: SKRect) (bottom: float) (top: float) : float -> float32 =
        let place value =
            field.Bottom - float32 ((value - bottom) / (top - bottom)) * field.Height

        let step = step (top - bottom)

        for i in int (Math.Ceiling(bottom / step - 1e-9)) .. int (top / step + 1e-9) do
            let value = float i * step
            line canvas faint 1.0f field.Left (place value) field.Right (place value)

            text
                canvas
                SKTextAlign.Right
                (field.Left - 6.0f)
                (place value + 4.5f)
                (value.ToString("0.######", CultureInfo.InvariantCulture))

        line canvas black 1.0f field.Left field.Top field.Left field.Bottom
        line canvas black 1.0f field.Left field.Bottom field.Right field.Bottom
        place

    /// The reliability diagram: accuracy by confidence in bins of equal width, with what is missing to the diagonal, and below it the share
    /// of the images in each bin.
    let reliability (title: string) (result: CalibrationResult) (path: string) : unit =
        write path 480 600 (fun canvas ->
            let upper = SKRect(60.0f, 50.0f, 460.0f, 410.0f)
            let lower = SKRect(60.0f, 450.0f, 460.0f, 540.0f)
            text canvas SKTextAlign.Left 16.0f 24.0f title

            let ece (reliability: Reliability) =
                reliability.Ece.ToString("F3", CultureInfo.InvariantCulture)

            text
                canvas
                SKTextAlign.Left
                16.0f
                42.0f
                $"accuracy by confidence; calibration error {ece result.EqualWidth}, with equal bins {ece result.EqualMass}"

            let place = scale canvas upper 0.0 1.0

            let across value =
                upper.Left + float32 value * upper.Width

            use bar = fill blue
            use missing = stroke 1.0f orange

            for bin in result.EqualWidth.Bins do
                match bin.Accuracy, bin.Confidence with
                | Some accuracy, Some confidence ->
                    let left, right = across bin.Lower + 1.0f, across bin.Upper - 1.0f
                    canvas.DrawRect(SKRect(left, place accuracy, right, upper.Bottom), bar)

                    canvas.DrawRect(
                        SKRect(left, place (max accuracy confidence), right, place (min accuracy confidence)),
                        missing
                    )
                | _ -> ()

            line canvas grey 1.0f upper.Left upper.Bottom upper.Right upper.Top

            let share (bin: ReliabilityBin) = float bin.Count / float result.Images

            let place =
                scale canvas lower 0.0 (result.EqualWidth.Bins |> List.map share |> List.max |> max 0.01)

            for bin in result.EqualWidth.Bins do
                canvas.DrawRect(
                    SKRect(across bin.Lower + 1.0f, place (share bin), across bin.Upper - 1.0f, lower.Bottom),
                    bar
                )

            for tenth in [ 0; 2; 4; 6; 8; 10 ] do
                let value = float tenth / 10.0
                let shown = value.ToString("0.0", CultureInfo.InvariantCulture)
                text canvas SKTextAlign.Center (across value) (lower.Bottom + 18.0f) shown

            text
                canvas
                SKTextAlign.Center
                (across 0.5)
                (lower.Bottom + 40.0f)
                $"share of {result.Images} images by confidence")

    /// How wide a swarm may become; then its dots cover one another.
    let private widest = 190.0f

    /// Where a swarm's dots go, at their height, left and right of the middle, so that none covers another where there is room.
    let private swarm (radius: float32) (dots: (float32 * 'a) list) : (float32 * float32 * 'a) list =
        let rows = dots |> List.groupBy (fun (y, _) -> int (y / (2.0f * radius)))

        [ for row, dots in rows do
              for i, (_, what) in List.indexed dots do
                  let side = if i % 2 = 0 then 1.0f else -1.0f
                  let apart = min (2.0f * radius) (widest / float32 dots.Length)
                  side * apart * float32 ((i + 1) / 2), 2.0f * radius * (float32 row + 0.5f), what ]

    /// The slacks of every method's pairs as a swarm beside a box of their quartiles (figure 11 of the paper).
    let slacks (title: string) (result: GeometryResult) (path: string) : unit =
        let column = 260.0f

        let field =
            SKRect(70.0f, 60.0f, 70.0f + column * float32 result.Methods.Length, 420.0f)

        write path (int field.Right + 20) 480 (fun canvas ->
            text canvas SKTextAlign.Left 16.0f 24.0f title

            text
                canvas
                SKTextAlign.Left
                16.0f
                42.0f
                $"angle(own, mix) + angle(partner, mix) - angle(own, partner) in radians, of {result.Images} images at {result.Site} ({result.Features})"

            let most = result.Methods |> List.map _.Slack.Most |> List.max
            let place = scale canvas field 0.0 (max most 1e-3 * 1.05)

            for i, found in List.indexed result.Methods do
                let middle = field.Left + column * (float32 i + 0.5f)
                let slack = found.Slack
                let box = middle - 95.0f
                use outline = stroke 1.5f black
                canvas.DrawRect(SKRect(box - 14.0f, place slack.Upper, box + 14.0f, place slack.Lower), outline)
                line canvas black 2.0f (box - 14.0f) (place slack.Median) (box + 14.0f) (place slack.Median)
                line canvas black 1.0f box (place slack.Least) box (place slack.Lower)
                line canvas black 1.0f box (place slack.Upper) box (place slack.Most)

                use other = fill blue
                use same = fill orange

                for x, y, isSameClass in
                    found.Pairs
                    |> List.map (fun pair -> place pair.Slack, pair.IsSameClass)
                    |> swarm 2.5f do
                    canvas.DrawCircle(middle + 20.0f + x, y, 2.5f, (if isSameClass then same else other))

                text canvas SKTextAlign.Center middle (field.Bottom + 20.0f) found.Method

            text canvas SKTextAlign.Left field.Left (field.Bottom + 44.0f) "orange: pairs of one class")

    /// Colours that are told apart: Okabe and Ito's, and four more; dashes where there are more methods than colours.
    let private pens: (SKColor * float32[]) list =
        [ for dashes in [ [||]; [| 6.0f; 4.0f |]; [| 2.0f; 3.0f |] ] do
              for red, green, blue in
                  [ 0, 0, 0
                    230, 159, 0
                    86, 180, 233
                    0, 158, 115
                    204, 121, 167
                    0, 114, 178
                    213, 94, 0
                    150, 150, 150
                    120, 50, 160
                    130, 80, 40
                    160, 190, 30
                    240, 220, 60 ] do
                  SKColor(byte red, byte green, byte blue), dashes ]

    /// Methods in columns, as groups of bars or, where the columns have an order, as lines; one standard deviation up and down where there is one. A
    /// mean that there is not is left out. Bars start from 0; lines that stay far from it do not. What the columns are stands below them.
    let methods
        (isOrdered: bool)
        (title: string)
        (axis: string)
        (columns: string list)
        (rows: (string * Spread option list) list)
        (path: string)
        : unit =
        let bar = 9.0f
        let group = max 90.0f (bar * float32 rows.Length + 24.0f)
        let left, top, height = 70.0f, 50.0f, 340.0f

        let field = SKRect(left, top, left + group * float32 columns.Length, top + height)

        let legend = field.Bottom + (if isOrdered then 70.0f else 120.0f)
        let entry = 20.0f

        let width =
            use paint = Picture.ink 13.0f black

            [ float32 field.Right + 20.0f
              paint.MeasureText title + 32.0f
              for label, _ in rows do
                  left + paint.MeasureText label + 60.0f ]
            |> List.max

        write path (int width) (int (legend + entry * float32 rows.Length)) (fun canvas ->
            text canvas SKTextAlign.Left 16.0f 24.0f title

            let low (found: Spread) =
                max 0.0 (found.Mean - Option.defaultValue 0.0 found.Deviation)

            let high (found: Spread) =
                found.Mean + Option.defaultValue 0.0 found.Deviation

            let all = rows |> List.collect (snd >> List.choose id)
            let most = all |> List.map high |> List.max |> max 1e-6
            let least = all |> List.map low |> List.min

            let room =
                0.05
                * (if isOrdered && least > most / 2.0 then
                       most - least |> max (most / 20.0)
                   else
                       most)

            let bottom =
                if isOrdered && least > most / 2.0 then
                    least - room
                else
                    0.0

            let place = scale canvas field bottom (most + room)
            text canvas SKTextAlign.Center field.MidX (field.Bottom + 44.0f) axis

            for c, name in List.indexed columns do
                let middle = field.Left + group * (float32 c + 0.5f)

                if isOrdered then
                    text canvas SKTextAlign.Center middle (field.Bottom + 20.0f) name
                else
                    use _ = new SKAutoCanvasRestore(canvas)
                    canvas.Translate(middle, field.Bottom + 16.0f)
                    canvas.RotateDegrees -35.0f
                    text canvas SKTextAlign.Right 0.0f 0.0f name

            for r, (label, found) in List.indexed rows do
                let colour, dashes = pens[r % pens.Length]

                use pen = stroke 2.0f colour

                if dashes.Length > 0 then
                    pen.PathEffect <- SKPathEffect.CreateDash(dashes, 0.0f)

                use inside = fill colour

                let points =
                    [ for c, value in List.indexed found do
                          match value with
                          | None -> ()
                          | Some value ->
                              let middle = field.Left + group * (float32 c + 0.5f)

                              let x =
                                  if isOrdered then
                                      middle
                                  else
                                      middle + bar * (float32 r - float32 (rows.Length - 1) / 2.0f)

                              x, value ]

                for x, value in points do
                    let y = place value.Mean

                    if isOrdered then
                        canvas.DrawCircle(x, y, 3.5f, inside)
                    else
                        canvas.DrawRect(SKRect(x - bar / 2.0f + 0.5f, y, x + bar / 2.0f - 0.5f, field.Bottom), inside)

                    line canvas grey 1.0f x (place (high value)) x (place (low value))

                if isOrdered then
                    for (x, value), (x', value') in List.pairwise points do
                        canvas.DrawLine(x, place value.Mean, x', place value'.Mean, pen)

                let y = legend + entry * float32 r
                canvas.DrawLine(left, y - 4.5f, left + 30.0f, y - 4.5f, pen)
                text canvas SKTextAlign.Left (left + 38.0f) y label)
