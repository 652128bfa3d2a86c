/// Deformed and corrupted images: numbers of other programs, laws, the suites, and broken variants that they reject.
module PatchUp.Tests.CorruptionTests

open System
open System.IO
open System.IO.Compression
open System.Reflection
open System.Text.Json
open System.Text.Json.Nodes
open Expecto
open TorchSharp
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.Fixtures
open PatchUp.Tests.ReproTests

// ---- golden files ----

let private affineText = lazy (embedded "affine.json")

let private corruptionsText =
    lazy
        (let assembly = Assembly.GetExecutingAssembly()

         let stream: IO.Stream =
             assembly.GetManifestResourceStream "golden/corruptions.json.gz" |> nonNull

         use reader = new StreamReader(new GZipStream(stream, CompressionMode.Decompress))

         reader.ReadToEnd())

let private corruptionsJson =
    lazy (JsonNode.Parse(corruptionsText.Value).AsObject())

/// What lies at a path such as "cases/0/output" in a JSON text.
let rec private at (path: string) (node: JsonNode) : JsonNode =
    (node, path.Split '/')
    ||> Array.fold (fun node name ->
        match node with
        | :? JsonArray as list -> list[int name]
        | other -> other[name])

/// A JSON text with one place changed: None takes it away.
let private edited (path: string) (change: JsonNode -> JsonNode option) (text: string) : string =
    let json = JsonNode.Parse text
    let cut = path.LastIndexOf '/'
    let parent = if cut < 0 then json else at path[.. cut - 1] json
    let name = path[cut + 1 ..]

    match parent with
    | :? JsonArray as list ->
        let value = change list[int name]
        list.RemoveAt(int name)
        value |> Option.iter (fun value -> list.Insert(int name, value))
    | _ ->
        let value = change parent[name]
        parent.AsObject().Remove name |> ignore
        value |> Option.iter (fun value -> parent[name] <- value)

    json.ToJsonString()

let private number (value: float) : JsonNode option = Some(JsonNode.op_Implicit value)

let private set (value: float) : JsonNode -> JsonNode option = fun _ -> number value

let private moved (by: float) (node: JsonNode) : JsonNode option = number (node.GetValue<float>() + by)

let private gone: JsonNode -> JsonNode option = fun _ -> None

let private named (text: string) : JsonNode -> JsonNode option =
    fun _ -> Some(JsonNode.op_Implicit text)

let private sections = [ "tiny_imagenet_c"; "cifar10_c" ]

/// The golden file with the cases of one corruption only.
let private only (name: string) : string =
    let json = corruptionsJson.Value.DeepClone().AsObject()

    for section in sections do
        for list in [ "deterministic"; "random"; "pinned" ] do
            match at $"{section}/{list}" json with
            | null -> ()
            | cases ->
                let cases = cases.AsArray()

                for i in cases.Count - 1 .. -1 .. 0 do
                    if (at "corruption" cases[i]).GetValue<string>() <> name then
                        cases.RemoveAt i

    json.ToJsonString()

let private texts =
    dict
        [ for name, corruption in Corruption.all do
              corruption, lazy (only name) ]

/// The golden file that concerns a corruption, or the deformations.
let private golden (corruption: Corruption option) : string =
    match corruption with
    | Some corruption -> texts[corruption].Value
    | None -> affineText.Value

/// What does not agree with the golden file, or how it raises.
let private disagreements (corruption: Corruption option) (subject: ImageSubject) : string list =
    use json = JsonDocument.Parse(golden corruption)

    try
        [ for kind, fields in GoldenImages.compareWith subject "golden" json.RootElement do
              for field in fields do
                  if field.Disagreement.IsSome then
                      $"{kind}: {field.Field}" ]
    with
    | :? IndexOutOfRangeException
    | :? AggregateException
    | :? ArgumentException as error -> [ error.Message ]

/// A file of this text, in a folder, verified: exit code, standard output and standard error.
let private verifying (text: string) : int * string * string =
    inFolder (fun folder ->
        let path = Path.Combine(folder, "golden.json")
        File.WriteAllText(path, text)
        patchup [ "verify"; path ])

let private verify =
    [ testCase "the deformations agree, all of them" (fun () ->
          let code, out, err = verifying affineText.Value
          Expect.equal code 0 err
          Expect.stringStarts out "8 of 8 agree; the largest deviation is " "the verdict")

      testCase "the corruptions agree, all of them" (fun () ->
          let code, out, err = verifying corruptionsText.Value
          Expect.equal code 0 (out + err)
          Expect.stringStarts out "141 of 141 agree; the largest deviation is " "the verdict")

      testCase "numbers that are others are named, and exit with 1" (fun () ->
          let corrupted name path change = only name |> edited path change

          // Four positions are let off, five are not.
          let other (node: JsonNode) = number (255.0 - node.GetValue<float>())

          let moves count =
              (affineText.Value, [ 0 .. count - 1 ])
              ||> List.fold (fun text i -> text |> edited $"cases/7/output/{3 * i}" other)

          let code, _, err = verifying (moves 4)
          Expect.equal code 0 err

          // So are 12 bytes of 12288 that are one level off, where equal ones are asked for.
          let offBy count =
              (only "contrast", [ 0 .. count - 1 ])
              ||> List.fold (fun text i -> text |> edited $"tiny_imagenet_c/deterministic/0/output/{i}" (moved 1.0))

          let code, _, err = verifying (offBy 12)
          Expect.equal code 0 err

          for text, words in
              [ offBy 13, [ "contrast 1, 64x64): output is " ]
                moves 5, [ "case 8 (scale): output is " ]
                affineText.Value |> edited "cases/2/inverse_matrix/4" (moved 1e-5),
                [ "case 3 ("; "): inverse_matrix is " ]
                corrupted "contrast" "tiny_imagenet_c/deterministic/0/output/0" (moved 2.0),
                [ "contrast 1, 64x64): output is " ]
                corrupted "defocus_blur" "tiny_imagenet_c/deterministic/0/before_truncation/5" (moved 0.003),
                [ "defocus_blur 1, 64x64): before_truncation is " ]
                corrupted "fog" "tiny_imagenet_c/pinned/0/output/7" (moved -3.0),
                [ "pinned fog 3, 64x64): output is " ]
                corrupted "fog" "cifar10_c/random/0/mean/average" (moved 20.0), [ "random fog 1, 32x32): mean is " ]
                corrupted "fog" "parameters/cifar10_c/fog/1/0" (set 0.6),
                [ "setting fog, 32x32): parameters is 0.5 at index 2 where 0.6 is expected" ]
                corrupted "frost" "frost_textures/9/std_rgb/2" (set 41.0),
                [ "frost texture, 32x32): std_rgb is 41.57 at index 2 where 41 is expected" ] ] do
              let code, out, err = verifying text
              Expect.equal code 1 err

              for word in words do
                  Expect.stringContains out word "the disagreement")

      testCase "what cannot be read is named, and exits with 2" (fun () ->
          let affine path change = affineText.Value |> edited path change

          let fog path change = only "fog" |> edited path change

          for text, words in
              [ affine "cases/1/scale" gone, [ "case 2"; "'scale' is missing" ]
                affine "cases/1" (set 5.0), [ "case 2"; "must be an object" ]
                affine "cases" (set 5.0), [ "'cases' must be a list" ]
                affine "input/0" (set 256.0), [ "'input' holds 256"; "0 to 255" ]
                affine "input/0" (named "x"), [ "'input' must hold numbers" ]
                affine "cases/0/output/0" gone, [ "'output' has 3071 numbers" ]
                fog "cifar10_c/size" (set 28.0), [ "cifar10_c: 'size' is 28" ]
                fog "cifar10_c/random/0/corruption" (named "rain"), [ "'rain'" ]
                fog "cifar10_c/random/0/severity" (set 6.0), [ "'severity' is 6" ]
                fog "cifar10_c/random/0/std" gone, [ "'std' is missing" ]
                fog "cifar10_c" gone, [ "'cifar10_c' is missing" ]
                fog "frost_textures/0" gone, [ "'frost_textures' must have 5" ]
                only "glass_blur" |> edited "tiny_imagenet_c/pinned/0/dx_dy/0" (set 7.0), [ "'dx_dy' must be" ] ] do
              let code, out, err = verifying text
              Expect.equal code 2 (out + err)

              for word in "golden.json" :: words do
                  Expect.stringContains err word "the error") ]

// ---- laws ----

/// `count` images of a side, of soft shapes and some noise, uint8 `[N,3,H,W]`.
let private pictures (count: int) (side: int) : byte[] =
    let numbers = Key.stream (Key.ofSeed 11)

    [| for _ in 1..count do
           for _ in 1..3 do
               let a, b, c = numbers.Float() * 0.5, numbers.Float() * 0.5, numbers.Float() * 6.0

               for y in 0 .. side - 1 do
                   for x in 0 .. side - 1 do
                       let wave = sin (a * float x + b * float y + c) * 70.0
                       byte (Math.Clamp(128.0 + wave + 20.0 * numbers.Normal(), 0.0, 255.0)) |]

let private tensor (side: int) (bytes: byte[]) : torch.Tensor =
    let size = 3 * side * side
    torch.tensor (bytes, ReadOnlySpan [| int64 (bytes.Length / size); 3L; int64 side; int64 side |])

let private bytesOf (images: torch.Tensor) = images.contiguous().bytes.ToArray()

/// What corrupts and deforms tensors of images, so that broken ones can be checked.
[<NoEquality; NoComparison>]
type private Changers =
    { Corrupt: Corruption -> int -> Key -> int -> torch.Tensor -> torch.Tensor
      Deform: Key -> int -> Deformation -> torch.Tensor -> torch.Tensor }

let private ours =
    { Corrupt = Corruptions.images Substitute
      Deform = Deformation.images }

let private turn = Deformation.paper[1]

/// Those that draw.
let private isRandom corruption =
    not (
        List.contains
            corruption
            [ Corruption.DefocusBlur
              Corruption.ZoomBlur
              Corruption.Brightness
              Corruption.Contrast
              Corruption.Pixelate
              Corruption.JpegCompression ]
    )

/// Images changed in each of the ways: a name, whether by chance, and the bytes by key, first place and images.
let private ways (changers: Changers) =
    [ for name, corruption in Corruption.all do
          name, isRandom corruption, (fun key first images -> changers.Corrupt corruption 3 key first images |> bytesOf)

      turn.Name, true, (fun key first images -> changers.Deform key first turn images |> bytesOf) ]

let private seven = Key.ofSeed 7

let private sample = lazy (pictures 5 32)

/// Runs a check of each way on five images of 32 x 32 pixels; the names of those that fail.
let private failing check changers =
    [ for name, isRandom, change in ways changers do
          if not (Scope.value (fun () -> check isRandom change (tensor 32 sample.Value))) then
              name ]

let private sameKey =
    failing (fun _ change images -> change seven 0 images = change seven 0 images)

let private otherKey =
    failing (fun isRandom change images ->
        let differ = change seven 0 images <> change (Key.ofSeed 8) 0 images
        differ = isRandom)

let private otherImage =
    failing (fun isRandom change images ->
        let same = images.narrow (0L, 0L, 1L)
        let differ = change seven 0 same <> change seven 1 same
        differ = isRandom)

let private batches =
    failing (fun _ change images ->
        let part first count =
            change seven first (images.narrow (0L, int64 first, int64 count))

        change seven 0 images = Array.concat [ part 0 2; part 2 1; part 3 2 ])

let private strengthZero (changers: Changers) =
    Scope.value (fun () ->
        let images = tensor 32 sample.Value

        [ for name, corruption in Corruption.all do
              if changers.Corrupt corruption 0 seven 0 images |> bytesOf <> sample.Value then
                  name

          if changers.Deform seven 0 Deformation.identity images |> bytesOf <> sample.Value then
              "no deformation" ])

let private leaksNothing (changers: Changers) =
    use images = tensor 32 sample.Value

    [ for name, _, change in ways changers do
          let before = DisposeScopeManager.Statistics.ThreadTotalLiveCount
          (Scope.value (fun () -> change seven 0 images)) |> ignore

          if DisposeScopeManager.Statistics.ThreadTotalLiveCount <> before then
              name ]

let private inputStays (changers: Changers) =
    failing
        (fun _ change images ->
            change seven 0 images |> ignore
            bytesOf images = sample.Value)
        changers

let private lawful: (string * (Changers -> string list)) list =
    [ "one key, one result", sameKey
      "another key, another result, where there is chance", otherKey
      "another place, another result, where there is chance", otherImage
      "results do not depend on the batch", batches
      "strength 0 changes nothing", strengthZero
      "the images stay", inputStays
      "no tensor is left", leaksNothing ]

/// The mean change of the images by a corruption at a severity, in levels.
let private change side corruption severity (images: byte[]) =
    let changed =
        Scope.value (fun () ->
            Corruptions.images Substitute corruption severity seven 0 (tensor side images)
            |> bytesOf)

    Array.map2 (fun (a: byte) (b: byte) -> abs (float a - float b)) images changed
    |> Array.average

let private one side planes : Pixels =
    { Height = side
      Width = side
      Planes = planes }

let private grey side =
    let plane = pictures 1 side |> Array.truncate (side * side)
    one side (Array.concat [ plane; plane; plane ])

let private plain side (levels: byte list) =
    one
        side
        [| for level in levels do
               yield! Array.create (side * side) level |]

let private laws =
    [ for name, broken in lawful do
          testCase name (fun () -> Expect.isEmpty (broken ours) "those that break the law")

      for side in Corruption.sides do
          testCase $"a higher severity changes more, at {side} x {side}" (fun () ->
              let images = pictures 6 side

              for name, corruption in Corruption.all do
                  let changes = [ for severity in 0..5 -> change side corruption severity images ]
                  Expect.isLessThan changes[0] changes[1] $"{name}: severity 1 changes"

                  match corruption with
                  | Corruption.GaussianNoise
                  | Corruption.ShotNoise
                  | Corruption.ImpulseNoise
                  | Corruption.ZoomBlur
                  | Corruption.Brightness
                  | Corruption.Contrast
                  | Corruption.Pixelate
                  | Corruption.JpegCompression ->
                      for weaker, stronger in List.pairwise changes do
                          Expect.isLessThan weaker stronger $"{name} ({changes})"
                  // The published settings trade shifts for waves, and darkening for ice.
                  | Corruption.ElasticTransform
                  | Corruption.Frost -> ()
                  | _ -> Expect.isLessThan changes[1] changes[5] $"{name}: 5 changes more than 1 ({changes})")

      for side in Corruption.sides do
          testCase $"what is grey stays grey, at {side} x {side}" (fun () ->
              let image = grey side

              for name, corruption in Corruption.all do
                  let isColoured =
                      List.contains
                          corruption
                          [ Corruption.GaussianNoise
                            Corruption.ShotNoise
                            Corruption.ImpulseNoise
                            Corruption.Frost ]

                  for severity in 1..5 do
                      let changed = Corruptions.apply Substitute corruption severity seven image
                      let area = side * side

                      let channel i =
                          changed.Planes[i * area .. (i + 1) * area - 1]

                      let isGrey = channel 0 = channel 1 && channel 1 = channel 2
                      Expect.equal isGrey (not isColoured) $"{name} {severity}")

      testCase "blurs, zooms and shifts keep a plain colour" (fun () ->
          for name, corruption in Corruption.all do
              if
                  List.contains
                      corruption
                      [ Corruption.DefocusBlur
                        Corruption.GlassBlur
                        Corruption.MotionBlur
                        Corruption.ZoomBlur
                        Corruption.Contrast
                        Corruption.ElasticTransform
                        Corruption.Pixelate ]
              then
                  for severity in 1..5 do
                      let image = plain 32 [ 200uy; 90uy; 7uy ]
                      let changed = Corruptions.apply Substitute corruption severity seven image

                      for before, after in Array.zip image.Planes changed.Planes do
                          // Truncation may take a level.
                          Expect.isTrue
                              (before = after || before = after + 1uy)
                              $"{name} {severity}: {before}, {after}")

      testCase "black and white stay in range" (fun () ->
          for _, corruption in Corruption.all do
              for level in [ 0uy; 255uy ] do
                  for severity in [ 1; 5 ] do
                      let image = plain 64 [ level; level; level ]
                      let changed = Corruptions.apply Substitute corruption severity seven image
                      Expect.equal changed.Planes.Length image.Planes.Length "size"

                      let setting = Corruption.setting 64 corruption severity
                      let draws = Corruptions.draw Substitute corruption setting seven image
                      let levels = Corruptions.levels corruption setting draws image
                      Expect.isTrue (levels |> Array.forall (fun l -> l >= 0.0 && l <= 255.0)) "levels")

      testCase "sides, severities and shapes that have no setting are refused" (fun () ->
          let corrupt side severity () =
              Corruptions.apply Substitute Corruption.Fog severity seven (plain side [ 1uy; 2uy; 3uy ])

          expectRefused [ "28 x 28"; "32 x 32 and 64 x 64" ] (corrupt 28 1)
          expectRefused [ "severity is 6"; "1 .. 5" ] (corrupt 32 6)
          expectRefused [ "severity is -1" ] (corrupt 32 -1)

          expectRefused [ "32 x 64"; "square" ] (fun () ->
              Corruptions.apply
                  Substitute
                  Corruption.Fog
                  1
                  seven
                  { Height = 64
                    Width = 32
                    Planes = Array.zeroCreate (3 * 64 * 32) })

          expectRefused [ "snow"; "another corruption" ] (fun () ->
              Corruptions.levels Corruption.Snow [ 1.0 ] (Draws.Angle 1.0) (plain 32 [ 1uy; 2uy; 3uy ]))

          expectRefused [ "uint8 [N,C,H,W]" ] (fun () ->
              use images = torch.zeros ([| 1L; 3L; 32L; 32L |], dtype = torch.float32)
              PerImage.map (fun _ bytes -> bytes) images)) ]

// ---- deformations ----

let private deformations =
    [ testCase "the paper's, by name and bounds" (fun () ->
          Expect.equal
              (Deformation.paper |> List.map _.Name)
              [ "rotate (-20, 20)"
                "rotate (-40, 40)"
                "shear (-28.6, 28.6)"
                "shear (-57.3, 57.3)"
                "scale (0.6)"
                "scale (0.8)"
                "scale (1.2)"
                "scale (1.4)" ]
              "names"

          for deformation in Deformation.paper do
              let drawn = [ for i in 0..999 -> Deformation.draw (Key.child i seven) deformation ]

              for values, (low, high) in
                  [ drawn |> List.map _.Angle, deformation.Angle
                    drawn |> List.map _.Shear, deformation.Shear
                    drawn |> List.map _.Scale, deformation.Scale ] do
                  let reach = (high - low) / 2.0
                  Expect.isTrue (values |> List.forall (fun v -> v >= low && v <= high)) deformation.Name
                  // Six deviations of the mean of 1000 uniform numbers.
                  expectNear (0.11 * reach + 1e-9) (List.average values) ((low + high) / 2.0) deformation.Name
                  Expect.isGreaterThanOrEqual (List.max values - List.min values) (1.9 * reach) deformation.Name)

      testCase "a quarter turn is clockwise, and four are none" (fun () ->
          let height = 6
          let image = Array.init (2 * height * height) byte
          let quarter = { Affine.identity with Angle = 90.0 }
          let turned = Affine.apply quarter height height image
          // The first row becomes the last column.
          Expect.equal [ for i in 0..5 -> turned[6 * i + 5] ] [ for i in 0..5 -> image[i] ] "clockwise"
          let turn = Affine.apply quarter height height
          Expect.equal (image |> turn |> turn |> turn |> turn) image "four"

          Expect.equal
              (Affine.apply Affine.identity 4 9 image[..35])
              image[..35]
              "none, on an image that is not square")

      testCase "a positive shear moves the upper half to the right" (fun () ->
          let image = Array.init 36 (fun i -> if i % 6 = 2 then 9uy else 0uy)

          let sheared =
              Affine.apply { Affine.identity with Shear = 45.0 } 6 6 image
              |> Array.chunkBySize 6

          let columns = [ for row in sheared -> Array.IndexOf(row, 9uy) ]
          Expect.equal columns[0] 4 "above"
          Expect.equal columns[5] 0 "below"
          Expect.isTrue (List.pairwise columns |> List.forall (fun (a, b) -> a >= b)) "downwards to the left")

      testCase "what comes from outside is zero, and a scale above 1 enlarges" (fun () ->
          let image = Array.create 64 50uy
          let small = Affine.apply { Affine.identity with Scale = 0.5 } 8 8 image
          Expect.equal (small |> Array.filter ((=) 50uy) |> Array.length) 16 "half as wide"
          Expect.equal small[0] 0uy "zero"
          let large = Affine.apply { Affine.identity with Scale = 2.0 } 8 8 image
          Expect.equal large image "nothing from outside") ]

// ---- frost ----

let private writeTexture (folder: string) (name: string) (height: int) (width: int) (level: int) =
    use bitmap =
        Images.toBitmap
            { Height = height
              Width = width
              Planes = Array.create (3 * height * width) (byte level) }

    Images.writePng (Path.Combine(folder, name)) bitmap

let private frost =
    [ testCase "each picture of a folder is drawn, and each part of it" (fun () ->
          inFolder (fun folder ->
              for i in 1..6 do
                  writeTexture folder $"frost{i}.png" 320 330 (i * 20)

              File.WriteAllText(Path.Combine(folder, "README.txt"), "no picture")

              match CorruptionWeather.pictures 64 folder with
              | Substitute -> failtest "the folder's pictures"
              | Pictures pictures as textures ->
                  Expect.equal [ for p in pictures -> p.Height, p.Width ] (List.replicate 6 (96, 99)) "shrunk to .3"

                  let levels =
                      [ for i in 0..199 -> (CorruptionWeather.texture textures 64 (Key.child i seven)).Planes[0] ]
                      |> List.countBy id

                  Expect.equal (levels |> List.map fst |> List.sort) [ for i in 1..6 -> byte (20 * i) ] "each of six"

              // A picture that is told apart by its columns: both its edges are reached.
              let wide =
                  Pictures
                      [| { Height = 32
                           Width = 40
                           Planes = Array.init (3 * 32 * 40) (fun i -> byte (i % 40)) } |]

              let firsts =
                  [ for i in 0..199 -> (CorruptionWeather.texture wide 32 (Key.child i seven)).Planes[0] ]

              Expect.equal (firsts |> List.distinct |> List.sort) [ 0uy .. 8uy ] "each part"))

      testCase "pictures change the images, and are shrunk linearly" (fun () ->
          inFolder (fun folder ->
              writeTexture folder "ice.png" 600 900 90
              let textures = CorruptionWeather.pictures 32 folder

              match textures with
              | Pictures [| picture |] ->
                  Expect.equal (picture.Height, picture.Width) (120, 180) "600 x 900 by .2"
                  Expect.equal (Array.distinct picture.Planes) [| 90uy |] "a plain colour stays"
              | _ -> failtest "one picture"

              let frosted =
                  Corruptions.apply textures Corruption.Frost 3 seven (plain 32 [ 100uy; 50uy; 0uy ])

              // 0.9 of the image and 0.4 of the texture.
              Expect.equal (Array.distinct frosted.Planes) [| 126uy; 81uy; 36uy |] "the blend"))

      testCase "a folder without pictures, with a small one or none at all is named" (fun () ->
          inFolder (fun folder ->
              let refused words =
                  DataModelTests.refused (folder :: words)

              refused [ "no JPEG or PNG" ] (fun () -> CorruptionWeather.pictures 64 folder |> ignore)
              writeTexture folder "a.png" 300 211 1

              refused [ "a.png"; "too small"; "64 x 64"; "214 x 214" ] (fun () ->
                  CorruptionWeather.pictures 64 folder |> ignore)

              refused [ "x"; "no such file or folder" ] (fun () ->
                  CorruptionWeather.pictures 64 (Path.Combine(folder, "x")) |> ignore))) ]

// ---- suites ----

/// Classifies an image by its mean.
let private byMean (images: torch.Tensor) : int[] =
    let size = int (images.numel () / images.shape[0])

    images.contiguous().bytes.ToArray()
    |> Array.chunkBySize size
    |> Array.map (fun image -> if Array.averageBy float image < 128.0 then 0 else 1)

let private split count side : Split =
    let images = pictures count side |> tensor side

    { Images = images
      Labels = Scope.value (fun () -> byMean images) }

let private failed (words: string list) (run: unit -> unit) =
    match
        (try
            run ()
            None
         with RunFailed message ->
             Some message)
    with
    | None -> failtest "no RunFailed was raised"
    | Some message ->
        for word in words do
            Expect.stringContains message word "the message"

let private errorsOf (record: CorruptedErrors) name =
    (record.Corruptions |> List.find (fun error -> error.Corruption = name)).Errors

/// A record in which each corruption's errors are five times this.
let private flat (error: float) : CorruptedErrors =
    { Source = "generated"
      Fingerprint = None
      Images = 1
      CleanError = None
      Corruptions =
        [ for name, _ in Corruption.all ->
              { Corruption = name
                Severities = [ 1..5 ]
                Errors = List.replicate 5 error
                Sum = 5.0 * error
                MeanChanges = List.replicate 5 1.0 } ]
      MeanError = error
      Notes = [] }

/// A NumPy file of bytes.
let private npy (kind: string) (sizes: string) (bytes: byte[]) =
    let header =
        $"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}".PadRight(117)
        + "\n"

    Array.concat
        [ [| 0x93uy |]
          "NUMPY\001\000"B
          [| 118uy; 0uy |]
          Text.Encoding.ASCII.GetBytes header
          bytes ]

let private suites =
    [ testCase "deformed images: errors, changes, the same again, in batches of 200 at most" (fun () ->
          let split = split 203 32
          use _ = split.Images
          let mutable most = 0L

          let classify (images: torch.Tensor) =
              most <- max most images.shape[0]
              byMean images

          let errors = DeformedSuite.run classify (ImageSet.ofSplit split) seven
          Expect.equal most 200L "the largest batch"
          Expect.equal (errors.Images, errors.CleanError, errors.Notes) (203, 0.0, []) "images, clean error, notes"

          Expect.equal
              (errors.Deformations |> List.map _.Deformation)
              (Deformation.paper |> List.map _.Name)
              "the paper's rows"

          for error in errors.Deformations do
              Expect.isGreaterThan error.MeanChange 1.0 error.Deformation
              Expect.isTrue (error.Error >= 0.0 && error.Error <= 100.0) error.Deformation

          // Small images on black are dark.
          let dark =
              errors.Deformations
              |> List.find (fun error -> error.Deformation = "scale (0.6)")

          let bright = split.Labels |> Array.filter ((=) 1) |> Array.length
          expectNear 1e-9 dark.Error (100.0 * float bright / 203.0) "the error of darkness"
          Expect.equal (DeformedSuite.run byMean (ImageSet.ofSplit split) seven) errors "again"
          Expect.equal (Json.tryRead<DeformedErrors>(Json.show errors)) (Some errors) "JSON")

      testCase "corrupted images: errors, sums, the substitute's name, JSON" (fun () ->
          let split = split 6 32
          use _ = split.Images

          let errors =
              CorruptedSuite.run ignore Substitute byMean (ImageSet.ofSplit split) seven

          Expect.equal (errors.Source, errors.Images, errors.CleanError) ("generated", 6, Some 0.0) "head"

          let names =
              Corruption.all
              |> List.map (fun (name, _) -> if name = "frost" then "frost, substitute texture" else name)

          Expect.equal (errors.Corruptions |> List.map _.Corruption) names "the fifteen"

          for error in errors.Corruptions do
              Expect.equal error.Severities [ 1..5 ] "severities"
              expectNear 1e-9 error.Sum (List.sum error.Errors) "the sum"
              Expect.isTrue (error.MeanChanges |> List.forall (fun change -> change > 0.0)) error.Corruption

          expectNear 1e-9 errors.MeanError (errors.Corruptions |> List.averageBy (fun e -> e.Sum / 5.0)) "the mean"
          Expect.equal errors.Notes.Length 1 "one note"
          Expect.stringContains errors.Notes.Head "frost, substitute texture" "of the frost"
          Expect.equal (Json.tryRead<CorruptedErrors>(Json.show errors)) (Some errors) "JSON"

          let brighter = errorsOf errors "brightness"
          let dark = split.Labels |> Array.filter ((=) 0) |> Array.length
          Expect.equal brighter[4] (100.0 * float dark / 6.0) "30 % more is bright for all"
          let relative = CorruptedSuite.relative errors

          DataModelTests.refused [ "makes no error" ] (fun () -> relative errors |> ignore))

      testCase "frost by pictures is called frost" (fun () ->
          let split = split 2 32
          use _ = split.Images

          let errors =
              CorruptedSuite.run
                  ignore
                  (Pictures [| plain 40 [ 90uy; 80uy; 70uy ] |])
                  byMean
                  (ImageSet.ofSplit split)
                  seven

          Expect.equal (errors.Corruptions |> List.map _.Corruption) (List.map fst Corruption.all) "names"
          Expect.isEmpty errors.Notes "nothing to say")

      testCase "the mean corruption error is a mean of ratios" (fun () ->
          let half =
              { flat 10.0 with
                  Corruptions =
                      [ for error in (flat 10.0).Corruptions ->
                            if error.Corruption = "fog" then
                                { error with Sum = 0.0 }
                            else
                                error ] }

          let relative = CorruptedSuite.relative (flat 40.0) half
          expectNear 1e-9 relative.Mce (25.0 * 14.0 / 15.0) "mCE"
          Expect.equal (relative.Corruptions |> List.map _.Percent |> List.distinct) [ 25.0; 0.0 ] "each"
          Expect.equal (CorruptedSuite.relative (flat 3.0) (flat 3.0)).Mce 100.0 "the baseline itself"

          let renamed =
              { flat 1.0 with
                  Corruptions =
                      [ for error in (flat 1.0).Corruptions ->
                            if error.Corruption = "frost" then
                                { error with
                                    Corruption = "frost, substitute texture" }
                            else
                                error ] }

          DataModelTests.refused [ "frost"; "both records" ] (fun () ->
              CorruptedSuite.relative renamed (flat 1.0) |> ignore))

      testCase "published images are read: folders" (fun () ->
          let path = Path.Combine(AppContext.BaseDirectory, "fixtures", "tiny-imagenet-c.tar")

          let classes, parts =
              Corrupted.tryUsing path (fun corrupted -> corrupted.Classes, corrupted.Parts)
              |> Option.get

          // Classes in another order, after others, and with their names, as Tiny-ImageNet's own.
          let model =
              Array.append [| for i in 0..9 -> $"other {i}" |] [| for id in Array.rev classes -> id + " a name" |]

          let first = Array.IndexOf(model, classes[0] + " a name")

          let toFirst (images: torch.Tensor) =
              Array.create (int images.shape[0]) first

          let percentOf (corruption, severity) =
              Corrupted.tryUsing path (fun corrupted ->
                  let split = corrupted.Load corruption severity
                  Split.dispose split
                  let others = split.Labels |> Array.filter ((<>) 0) |> Array.length
                  100.0 * float others / float split.Labels.Length)
              |> Option.get

          let errors = CorruptedSuite.read ignore toFirst model (64, 64) None path
          Expect.equal errors.CleanError None "no clean error"
          Expect.equal errors.Images 6 "six images"

          Expect.equal
              [ for error in errors.Corruptions do
                    for severity in error.Severities -> error.Corruption, severity ]
              parts
              "its parts"

          for error in errors.Corruptions do
              for severity, percent in List.zip error.Severities error.Errors do
                  expectNear 1e-9 percent (percentOf (error.Corruption, severity)) "the images of other classes"

          Expect.equal (Json.tryRead<CorruptedErrors>(Json.show errors)) (Some errors) "JSON"

          DataModelTests.refused [ "tiny-imagenet-c.tar"; classes[0]; "2 classes" ] (fun () ->
              CorruptedSuite.read ignore toFirst [| "cat"; "dog" |] (64, 64) None path
              |> ignore)

          DataModelTests.refused [ "its images have 64 x 64 pixels"; "32 x 32" ] (fun () ->
              CorruptedSuite.look model (32, 32) path |> ignore))

      testCase "published images are read: NumPy files" (fun () ->
          inFolder (fun folder ->
              let labels =
                  [| for _ in 1..5 do
                         yield! [ 1L; 0L ] |]

              let write name (bytes: byte[]) =
                  File.WriteAllBytes(Path.Combine(folder, name), bytes)

              labels
              |> Array.collect BitConverter.GetBytes
              |> npy "<i8" "10,"
              |> write "labels.npy"

              // Of each severity a bright and a dark image; in the last they are exchanged.
              let levels = [ for i in 0..9 -> if (i % 2 = 0) = (i < 8) then 200uy else 10uy ]

              let bytes =
                  [| for level in levels do
                         yield! Array.create (3 * 32 * 32) level |]

              bytes |> npy "|u1" "10, 32, 32, 3" |> write "fog.npy"

              let errors =
                  CorruptedSuite.read ignore byMean [| "dark"; "bright" |] (32, 32) None folder

              Expect.equal (errorsOf errors "fog") [ 0.0; 0.0; 0.0; 0.0; 100.0 ] "errors by severity"
              Expect.equal errors.MeanError 20.0 "their mean"
              Expect.equal errors.Images 2 "images"
              Expect.exists errors.Notes (fun note -> note.Contains "its classes are numbers") "not told by name"

              // The bright one of each severity.
              let one =
                  CorruptedSuite.read ignore byMean [| "dark"; "bright" |] (32, 32) (Some 1) folder

              Expect.equal one.Images 1 "as many as asked for"
              Expect.equal (errorsOf one "fog") [ 0.0; 0.0; 0.0; 0.0; 100.0 ] "theirs"

              DataModelTests.refused [ "images 3"; "1 .. 2" ] (fun () ->
                  CorruptedSuite.read ignore byMean [| "dark"; "bright" |] (32, 32) (Some 3) folder
                  |> ignore)

              for classes in [ [| "a" |]; [| "a"; "b"; "c" |] ] do
                  DataModelTests.refused [ "it has 2 classes"; $"tells {classes.Length}" ] (fun () ->
                      CorruptedSuite.look classes (32, 32) folder |> ignore)

              // The same files are the same images, wherever they are; others are not.
              let changed = Path.Combine(folder, "..", Path.GetFileName folder + "-changed")

              try
                  Directory.CreateDirectory changed |> ignore

                  for file in Directory.GetFiles folder do
                      File.Copy(file, Path.Combine(changed, Path.GetFileName file))

                  let read () =
                      CorruptedSuite.read ignore byMean [| "dark"; "bright" |] (32, 32) None changed

                  let moved = read ()
                  Expect.equal moved.Fingerprint errors.Fingerprint "moved"

                  Array.rev bytes
                  |> npy "|u1" "10, 32, 32, 3"
                  |> fun bytes -> File.WriteAllBytes(Path.Combine(changed, "fog.npy"), bytes)

                  let other = { read () with Source = moved.Source }
                  Expect.notEqual other.Fingerprint moved.Fingerprint "other images"

                  DataModelTests.refused [ "the baseline is of other images" ] (fun () ->
                      CorruptedSuite.relative moved other |> ignore)
              finally
                  Directory.Delete(changed, true))

          inFolder (fun folder ->
              DataModelTests.refused [ folder; "no corrupted images" ] (fun () ->
                  CorruptedSuite.look [| "a" |] (32, 32) folder |> ignore)))

      testCase "images of other sizes, and none, are refused" (fun () ->
          let split = split 2 28
          use _ = split.Images

          DataModelTests.refused [ "28 x 28"; "32 x 32 and 64 x 64" ] (fun () ->
              CorruptedSuite.run ignore Substitute byMean (ImageSet.ofSplit split) seven
              |> ignore)

          Expect.equal (DeformedSuite.run byMean (ImageSet.ofSplit split) seven).Images 2 "deformed at any size"
          use none = split.Images.narrow (0L, 0L, 0L)
          let none = { Images = none; Labels = [||] }
          expectRefused [ "no images" ] (fun () -> DeformedSuite.run byMean (ImageSet.ofSplit none) seven)

          expectRefused [ "no images" ] (fun () ->
              CorruptedSuite.run ignore Substitute byMean (ImageSet.ofSplit none) seven)) ]

// ---- mutants ----

let private library = GoldenImages.library

/// Other levels of one corruption.
let private levels corruption (change: float list -> Draws -> Pixels -> float[]) =
    Some corruption,
    { library with
        Levels =
            fun c setting draws image ->
                if c = corruption then
                    change setting draws image
                else
                    library.Levels c setting draws image }

/// The same levels of other settings, draws or images.
let private fed corruption (change: float list -> Draws -> float list * Draws) =
    levels corruption (fun setting draws image ->
        let setting, draws = change setting draws
        library.Levels corruption setting draws image)

/// Other draws of one corruption.
let private drawn corruption (change: float list -> Key -> Pixels -> Draws) =
    Some corruption,
    { library with
        Draw =
            fun textures c setting key image ->
                if c = corruption then
                    change setting key image
                else
                    library.Draw textures c setting key image }

let private deformed change = None, { library with Deform = change }

let private ofAffine (change: Affine -> Affine) =
    deformed (fun affine -> Affine.apply (change affine))

/// glass_blur with another rule for a pixel (row, column) and its neighbour.
let private glass rows (rule: float[] -> int -> int -> unit) =
    levels Corruption.GlassBlur (fun setting draws image ->
        match setting, draws with
        | [ sigma; distance; passes ], Draws.Neighbours by ->
            let side = image.Height
            let d = int distance
            let smooth = Planes.gauss Planes.clamped 4.0 sigma side

            let levels =
                Planes.ofPixels image |> smooth |> Array.map (fun v -> floor (v * 255.0))

            let mutable next = 0

            for _ in 1 .. int passes do
                for row: int in rows side d do
                    for column in rows side d do
                        for channel in 0..2 do
                            let at row column =
                                (channel * side + Planes.clamped side row) * side + Planes.clamped side column

                            rule levels (at row column) (at (row + by[next + 1]) (column + by[next]))

                        next <- next + 2

            levels |> Array.map (fun l -> l / 255.0) |> smooth |> Planes.levels
        | _ -> failwith "glass_blur")

let private backwards side d = [ side - d .. -1 .. d + 1 ]

let private overwrite (levels: float[]) here there = levels[here] <- levels[there]

/// pixelate with another filter: from, to, and one line of levels.
let private pixelate (filter: int -> int -> float[] -> float[]) =
    levels Corruption.Pixelate (fun setting _ image ->
        let side = image.Height
        let few = int (float side * setting.Head)

        image.Planes
        |> Array.map float
        |> Array.chunkBySize (side * side)
        |> Array.collect (fun plane ->
            let lines (rows: float[][]) n m = rows |> Array.map (filter n m)

            let both n m rows =
                rows
                |> fun rows -> lines rows n m
                |> Array.transpose
                |> fun rows -> lines rows n m
                |> Array.transpose

            plane
            |> Array.chunkBySize side
            |> both side few
            |> both few side
            |> Array.concat))

/// Weights of overlap, rounded.
let private areas n m (line: float[]) =
    let scale = float n / float m

    Array.init m (fun o ->
        let low, high = float o * scale, float (o + 1) * scale

        let weighted =
            line
            |> Array.mapi (fun i level -> level * max 0.0 (min high (float (i + 1)) - max low (float i)))

        floor (Array.sum weighted / scale + 0.5))

/// The plain mean of the values whose centres lie in the box, half a level more or less.
let private boxes (half: float) n m (line: float[]) =
    let scale = float n / float m
    let box = max scale 1.0

    Array.init m (fun o ->
        let isInside i =
            let distance = (float i + 0.5 - (float o + 0.5) * scale) / box
            distance > -0.5 && distance <= 0.5

        let inside = [ 0 .. n - 1 ] |> List.filter isInside
        floor ((inside |> List.averageBy (fun i -> line[i])) + half))

let private nearest n m (line: float[]) =
    Array.init m (fun o -> line[(2 * o + 1) * n / (2 * m)])

/// zoom_blur over other factors and divisor, in float32.
let private zoomed (zoom: float -> int -> float[] -> float[]) (factors: int -> float list) (divisor: int -> int) =
    levels Corruption.ZoomBlur (fun setting _ image ->
        let k = int setting.Head
        let single = Array.map float32
        let values = Planes.ofPixels image |> single
        let wide = values |> Array.map float

        let sum =
            factors k
            |> List.map (fun factor -> zoom factor image.Height wide |> single)
            |> List.reduce (Array.map2 (+))

        Array.map2 (+) values sum
        |> Array.map (fun sum -> float (Math.Clamp(sum / float32 (divisor k), 0.0f, 1.0f) * 255.0f)))

let private steps k =
    [ for i in 0 .. k - 1 -> 1.0 + float i * (1.01 - 1.0) ]

/// Enlarged about the middle with pixel centres at halves.
let private centred factor side (values: float[]) =
    Array.init values.Length (fun i ->
        let row, column = i / side % side, i % side

        let position place =
            Math.Clamp((float place + 0.5 - float side / 2.0) / factor + float side / 2.0 - 0.5, 0.0, float (side - 1))

        let y, x = position row, position column
        let above, left = min (side - 2) (int y), min (side - 2) (int x)
        let start = i - row * side - column
        let at row column = values[start + row * side + column]
        let between a b share = a + (b - a) * share

        between
            (between (at above left) (at above (left + 1)) (x - float left))
            (between (at (above + 1) left) (at (above + 1) (left + 1)) (x - float left))
            (y - float above))

let private defocused border (smoothed: bool) (isInside: float -> float -> bool) =
    levels Corruption.DefocusBlur (fun setting _ image ->
        let side = image.Height
        let radius, sigma = setting[0], setting[1]

        let cells =
            [ for y in -8 .. 8 do
                  for x in -8 .. 8 -> y, x ]

        let disk =
            cells
            |> List.filter (fun (y, x) -> isInside (float (y * y + x * x)) (radius * radius))

        let edge = if smoothed then exp (-0.5 / (sigma * sigma)) else 0.0

        let tap i =
            (if i = 0 then 1.0 else edge) / (1.0 + 2.0 * edge)

        let kernel =
            [ for y, x in disk do
                  for dy in -1 .. 1 do
                      for dx in -1 .. 1 -> (y + dy, x + dx), tap dy * tap dx / float disk.Length ]
            |> List.groupBy fst
            |> List.map (fun (place, parts) -> place, List.sumBy snd parts)

        let values = Planes.ofPixels image

        Array.init values.Length (fun i ->
            let row, column = i / side % side, i % side
            let start = i - row * side - column

            kernel
            |> List.sumBy (fun ((y, x), weight) ->
                weight * values[start + border side (row + y) * side + border side (column + x)]))
        |> Planes.levels)

let private motion angle (radius: float -> float) centre =
    levels Corruption.MotionBlur (fun setting draws image ->
        match draws with
        | Draws.Angle drawn ->
            let smeared =
                CorruptionBlur.smear (radius setting[0]) setting[1] (angle drawn) image.Height image.Planes

            let back =
                CorruptionBlur.smear (radius setting[0]) setting[1] (angle drawn + 180.0) image.Height image.Planes

            if centre then
                Array.map2 (fun a b -> (float a + float b) / 2.0) smeared back
            else
                Array.map float smeared
        | _ -> failwith "motion_blur")

/// snow with other flakes over the paled image.
let private snow (grey: float -> float -> float -> float) (others: int -> int -> int) (order: bool) =
    levels Corruption.Snow (fun setting draws image ->
        match setting, draws with
        | [ _; _; zoom; threshold; radius; sigma; keep ], Draws.Snowfall(field, angle) ->
            let side = image.Height
            let area = side * side

            let cut values =
                values |> Array.map (fun flake -> if flake < threshold then 0.0 else flake)

            let zoomed = Planes.zoom zoom side

            let flakes =
                field
                |> (if order then zoomed >> cut else cut >> zoomed)
                |> Planes.levels
                |> Planes.truncate
                |> CorruptionBlur.smear radius sigma angle side
                |> Array.map (fun level -> float level / 255.0)

            let values = Planes.ofPixels image

            Array.init values.Length (fun i ->
                let place = i % area
                let light = grey values[place] values[area + place] values[2 * area + place]
                let pale = keep * values[i] + (1.0 - keep) * max values[i] (1.5 * light + 0.5)
                pale + flakes[place] + flakes[others side place])
            |> Planes.levels
        | _ -> failwith "snow")

let private luma r g b = 0.299 * r + 0.587 * g + 0.114 * b
let private turned side place = side * side - 1 - place

/// The numbers of a plasma map, level by level, with w: 3, 12, 48, ... of them.
let private byLevel decay (change: float -> float -> float) (numbers: float[]) =
    let mutable w, count, used = 100.0, 3, 0

    [| while used < numbers.Length do
           for i in used .. used + count - 1 -> change w numbers[i]
           used <- used + count
           count <- 4 * count
           w <- w / decay |]

let private fog change =
    fed Corruption.Fog (fun setting draws ->
        match draws with
        | Draws.Plasma numbers -> setting, Draws.Plasma(byLevel setting[1] change numbers)
        | other -> setting, other)

let private waves change =
    fed Corruption.ElasticTransform (fun setting draws ->
        match draws with
        | Draws.Waves(corners, u, v) -> setting, Draws.Waves(change (corners, u, v))
        | other -> setting, other)

let private map2Levels f a b =
    Array.map2 (fun (a: byte) (b: byte) -> f (float a) (float b)) a b

/// What is broken, and the golden cases and the subject that show it.
let private numeric: (string * (Corruption option * ImageSubject)) list =
    [ let rounding =
          { library with
              Truncate = Array.map (fun level -> byte (floor (level + 0.5))) }

      for corruption in [ Corruption.Contrast; Corruption.Brightness; Corruption.ZoomBlur ] do
          $"bytes rounded, not truncated: {Corruption.name corruption}", (Some corruption, rounding)

      "another size's settings",
      (Some Corruption.Fog,
       { library with
           Setting = fun side corruption severity -> Corruption.setting (96 - side) corruption severity })

      "severities counted from 0",
      (Some Corruption.Contrast,
       { library with
           Setting = fun side corruption severity -> Corruption.setting side corruption (severity % 5 + 1) })

      // Noise
      "gaussian_noise shared by the channels",
      drawn Corruption.GaussianNoise (fun setting key image ->
          let one = CorruptionNoise.normals setting.Head (image.Height * image.Width) key
          Draws.Values(Array.concat [ one; one; one ]))

      "gaussian_noise's variance for its deviation",
      drawn Corruption.GaussianNoise (fun setting key image ->
          Draws.Values(CorruptionNoise.normals (sqrt setting.Head) image.Planes.Length key))

      "gaussian_noise in levels of 255, added to shares",
      fed Corruption.GaussianNoise (fun setting draws ->
          match draws with
          | Draws.Values noise -> setting, Draws.Values(noise |> Array.map (fun n -> n / 255.0))
          | other -> setting, other)

      "shot_noise of half the light",
      drawn Corruption.ShotNoise (fun setting key image ->
          Draws.Values(CorruptionNoise.counts (setting.Head / 2.0) image key |> Array.map ((*) 2.0)))

      "shot_noise of the mean light everywhere",
      drawn Corruption.ShotNoise (fun setting key image ->
          let mean = image.Planes |> Array.averageBy float |> byte

          let flat =
              { image with
                  Planes = Array.create image.Planes.Length mean }

          let counts = CorruptionNoise.counts setting.Head flat key

          let light (level: byte) =
              (float level - float mean) / 255.0 * setting.Head

          Draws.Values(Array.map2 (fun count level -> count + light level) counts image.Planes))

      "impulse_noise on whole pixels",
      drawn Corruption.ImpulseNoise (fun _ key image ->
          let one = CorruptionNoise.uniforms (image.Height * image.Width) key
          Draws.Values(Array.concat [ one; one; one ]))

      "impulse_noise by black alone",
      fed Corruption.ImpulseNoise (fun setting draws ->
          match draws with
          | Draws.Values u -> setting, Draws.Values(u |> Array.map (fun u -> if u < setting.Head then 0.0 else u))
          | other -> setting, other)

      "impulse_noise with the probability for black and for white each",
      fed Corruption.ImpulseNoise (fun setting draws -> [ 2.0 * setting.Head ], draws)

      // Blur
      "defocus_blur with the edge repeated", defocused Planes.clamped true (<=)
      "defocus_blur's kernel not smoothed", defocused Planes.mirrored false (<=)
      "defocus_blur's disk without its edge", defocused Planes.mirrored true (<)

      "glass_blur that exchanges",
      glass backwards (fun levels here there ->
          let held = levels[here]
          levels[here] <- levels[there]
          levels[there] <- held)

      "glass_blur from the first pixel on", glass (fun side d -> List.rev (backwards side d)) overwrite

      "glass_blur with rows and columns exchanged",
      fed Corruption.GlassBlur (fun setting draws ->
          match draws with
          | Draws.Neighbours by ->
              setting, Draws.Neighbours(Array.init by.Length (fun i -> by[if i % 2 = 0 then i + 1 else i - 1]))
          | other -> setting, other)

      "glass_blur smoothed once",
      (let corruption, subject = glass backwards overwrite

       let sharp =
           levels Corruption.GlassBlur (fun setting draws image ->
               subject.Levels Corruption.GlassBlur (0.0 :: setting.Tail) draws image)

       corruption, snd sharp)

      "glass_blur's neighbours reach d itself",
      (let inclusive =
          drawn Corruption.GlassBlur (fun setting key image ->
              match setting with
              | [ _; distance; passes ] ->
                  let numbers = Key.stream key
                  let d = int distance
                  let lines = image.Height - 2 * d
                  Draws.Neighbours(Array.init (2 * int passes * lines * lines) (fun _ -> numbers.Below(2 * d + 1) - d))
              | _ -> failwith "glass_blur")

       let _, clamping = glass backwards overwrite

       fst inclusive,
       { snd inclusive with
           Levels = clamping.Levels })

      "motion_blur turned the other way", motion (fun angle -> -angle) id false
      "motion_blur to both sides", motion id id true
      "motion_blur's angle in radians", motion (fun angle -> angle * 180.0 / Math.PI) id false
      "motion_blur of a quarter of its taps", motion id (fun radius -> radius / 4.0) false
      "zoom_blur over the exact range, which has a factor less", zoomed Planes.zoom (fun k -> steps (k - 1)) id
      "zoom_blur divided by the factors alone", zoomed Planes.zoom steps id
      "zoom_blur by half-pixel centres", zoomed centred steps (fun k -> k + 1)

      // Weather
      "snow without its mirror image", snow luma (fun _ place -> place) true
      "snow mirrored, not turned", snow luma (fun side place -> place / side * side + side - 1 - place % side) true
      "snow cut before it is enlarged", snow luma turned false
      "snow that pales by the channels' mean", snow (fun r g b -> (r + g + b) / 3.0) turned true

      "snow that keeps what it should pale",
      fed Corruption.Snow (fun setting draws -> List.updateAt 6 (1.0 - setting[6]) setting, draws)

      "frost with its weights exchanged", fed Corruption.Frost (fun setting draws -> List.rev setting, draws)

      "frost that overflows",
      levels Corruption.Frost (fun setting draws image ->
          match draws with
          | Draws.Texture texture ->
              map2Levels (fun level ice -> (setting[0] * level + setting[1] * ice) % 256.0) image.Planes texture.Planes
          | _ -> failwith "frost")

      "frost of noise without clouds",
      drawn Corruption.Frost (fun _ key image ->
          match library.Draw Substitute Corruption.Frost [] key image with
          | Draws.Texture texture ->
              let order = Key.permutation (image.Height * image.Width) key

              Draws.Texture
                  { texture with
                      Planes =
                          texture.Planes
                          |> Array.chunkBySize order.Length
                          |> Array.collect (fun plane -> order |> Array.map (fun i -> plane[i])) }
          | other -> other)

      "fog moved by w, not by its square", fog (fun w number -> number / w)
      "fog that becomes no finer", fog (fun w number -> number * 100.0 / w)
      "fog moved upwards only", fog (fun _ number -> abs number)

      "fog with its points in another order",
      fed Corruption.Fog (fun setting draws ->
          match draws with
          | Draws.Plasma numbers -> setting, Draws.Plasma(Array.rev numbers)
          | other -> setting, other)

      "fog that does not darken",
      levels Corruption.Fog (fun setting draws image ->
          match draws with
          | Draws.Plasma numbers ->
              let cloud = CorruptionWeather.plasma setting[1] image.Height numbers

              Planes.ofPixels image
              |> Array.mapi (fun i value -> value + setting[0] * cloud[i % cloud.Length])
              |> Planes.levels
          | _ -> failwith "fog")

      "brightness added to each channel",
      levels Corruption.Brightness (fun setting _ image ->
          Planes.ofPixels image |> Array.map ((+) setting.Head) |> Planes.levels)

      "brightness multiplied",
      levels Corruption.Brightness (fun setting _ image ->
          Planes.ofPixels image |> Array.map ((*) (1.0 + setting.Head)) |> Planes.levels)

      // Digital
      "contrast about the mean of all channels",
      levels Corruption.Contrast (fun setting _ image ->
          let values = Planes.ofPixels image
          let mean = Array.average values

          values
          |> Array.map (fun value -> (value - mean) * setting.Head + mean)
          |> Planes.levels)

      "contrast about one half",
      levels Corruption.Contrast (fun setting _ image ->
          Planes.ofPixels image
          |> Array.map (fun value -> (value - 0.5) * setting.Head + 0.5)
          |> Planes.levels)

      "elastic_transform with its fields exchanged", waves (fun (corners, u, v) -> corners, v, u)

      "elastic_transform with x and y exchanged",
      waves (fun (corners, u, v) -> Array.init 6 (fun i -> corners[if i % 2 = 0 then i + 1 else i - 1]), u, v)

      "elastic_transform moved the other way", waves (fun (corners, u, v) -> Array.map (~-) corners, u, v)
      "elastic_transform half a pixel off", waves (fun (corners, u, v) -> Array.map ((+) 0.5) corners, u, v)
      "elastic_transform without its corners", waves (fun (_, u, v) -> Array.zeroCreate 6, u, v)

      "elastic_transform's reach for its smoothness",
      fed Corruption.ElasticTransform (fun setting draws -> [ setting[1]; setting[0]; setting[2] ], draws)

      "pixelate weighted by area", pixelate areas
      "pixelate by the nearest pixel", pixelate nearest
      "pixelate truncated", pixelate (boxes 0.0)

      "jpeg_compression of another quality",
      fed Corruption.JpegCompression (fun setting draws -> [ setting.Head + 1.0 ], draws)

      "jpeg_compression not done", levels Corruption.JpegCompression (fun _ _ image -> image.Planes |> Array.map float)

      // Deformations
      "a positive angle anticlockwise", ofAffine (fun affine -> { affine with Angle = -affine.Angle })
      "a positive shear to the left", ofAffine (fun affine -> { affine with Shear = -affine.Shear })

      "a scale above 1 shrinks",
      ofAffine (fun affine ->
          { affine with
              Scale = 1.0 / affine.Scale })

      "pixel centres at whole numbers",
      deformed (fun affine height width image ->
          // About the centre of the top left pixel's and the bottom right pixel's corners, half a pixel off.
          let m = Affine.inverse height width affine
          let area = height * width

          Array.init image.Length (fun i ->
              let x, y = float (i % width), float (i / width % height)
              let column = int (floor (m[0] * x + m[1] * y + m[2]))
              let row = int (floor (m[3] * x + m[4] * y + m[5]))

              if row >= 0 && row < height && column >= 0 && column < width then
                  image[i - i % area + row * width + column]
              else
                  0uy))

      "the edge repeated outside",
      deformed (fun affine height width image ->
          let m = Affine.inverse height width affine
          let area = height * width

          Array.init image.Length (fun i ->
              let x, y = float (i % width) + 0.5, float (i / width % height) + 0.5
              let column = int (floor (m[0] * x + m[1] * y + m[2]))
              let row = int (floor (m[3] * x + m[4] * y + m[5]))
              image[i - i % area + Planes.clamped height row * width + Planes.clamped width column]))

      "grey outside",
      deformed (fun affine height width image ->
          let lit = image |> Array.map (max 1uy)

          Array.map2
              (fun before after -> if before = 0uy then 128uy else after)
              (Affine.apply affine height width lit)
              (Affine.apply affine height width image))

      "the forward map for the inverse",
      (None,
       { library with
           Inverse =
               fun height width affine ->
                   Affine.inverse
                       height
                       width
                       { Angle = -affine.Angle
                         Shear = -affine.Shear
                         Scale = 1.0 / affine.Scale } }) ]

/// What is broken, what breaks it, and the law that must reject it.
let private lawless: (string * string * Changers) list =
    let corrupting change =
        { ours with
            Corrupt = fun corruption severity key first images -> change corruption severity key first images }

    let counter = ref 0

    [ "draws by the place in the batch",
      "results do not depend on the batch",
      corrupting (fun corruption severity key _ images -> ours.Corrupt corruption severity key 0 images)
      "deformations by the place in the batch",
      "results do not depend on the batch",
      { ours with
          Deform = fun key _ deformation images -> ours.Deform key 0 deformation images }
      "one draw for all images",
      "another place, another result, where there is chance",
      { Corrupt = (fun corruption severity key _ images -> ours.Corrupt corruption severity key 0 images)
        Deform = (fun key _ deformation images -> ours.Deform key 0 deformation images) }
      "corruptions not seeded",
      "one key, one result",
      corrupting (fun corruption severity _ first images ->
          counter.Value <- counter.Value + 1
          ours.Corrupt corruption severity (Key.ofSeed counter.Value) first images)
      "the key ignored",
      "another key, another result, where there is chance",
      corrupting (fun corruption severity _ first images -> ours.Corrupt corruption severity seven first images)
      "severities from 0",
      "strength 0 changes nothing",
      corrupting (fun corruption severity key first images ->
          ours.Corrupt corruption (min 5 (severity + 1)) key first images)
      "no deformation resamples, half a pixel off",
      "strength 0 changes nothing",
      { ours with
          Deform = fun _ _ _ images -> images.roll (1L, 3L) }
      "the images overwritten",
      "the images stay",
      corrupting (fun corruption severity key first images ->
          let changed = ours.Corrupt corruption severity key first images
          images.copy_ changed |> ignore
          changed)
      "a tensor left",
      "no tensor is left",
      corrupting (fun corruption severity key first images ->
          torch.zeros(1L).DetachFromDisposeScope() |> ignore
          ours.Corrupt corruption severity key first images) ]

let private mutants =
    [ for name, (corruption, subject) in numeric do
          testCase name (fun () -> Expect.isNonEmpty (disagreements corruption subject) "the golden file rejects it")

      for name, law, changers in lawless do
          testCase name (fun () ->
              let broken = lawful |> List.find (fst >> (=) law) |> snd
              Expect.isNonEmpty (broken changers) $"the law '{law}' rejects it")

      testCase "each law rejects a mutant" (fun () ->
          let killers = lawless |> List.map (fun (_, law, _) -> law) |> Set
          Expect.equal killers (lawful |> List.map fst |> Set) "the laws")

      testCase "each corruption, and the deformations, have mutants" (fun () ->
          let broken = numeric |> List.map (snd >> fst) |> Set
          let all = None :: (Corruption.all |> List.map (snd >> Some)) |> Set
          Expect.equal broken all "what is broken")

      testCase "what mutants are made of is sound where nothing is broken" (fun () ->
          for corruption, subject in
              [ glass backwards overwrite
                pixelate (boxes 0.5)
                zoomed Planes.zoom steps (fun k -> k + 1)
                defocused Planes.mirrored true (<=)
                motion id id false
                snow luma turned true
                fog (fun _ number -> number)
                waves id
                ofAffine id ] do
              Expect.isEmpty (disagreements corruption subject) $"{corruption}")

      testCase "suites refuse what cannot be true" (fun () ->
          let split = split 3 32
          use _ = split.Images

          let suite corrupt =
              failed [ "corrupted: of strength 0"; "must change nothing" ] (fun () ->
                  CorruptedSuite.runWith corrupt ignore Substitute byMean (ImageSet.ofSplit split) seven
                  |> ignore)

          suite (fun corruption severity -> Corruptions.images Substitute corruption (max 1 severity))

          failed [ "deformed: of strength 0" ] (fun () ->
              let half _ _ _ (images: torch.Tensor) = images.roll (1L, 3L)

              DeformedSuite.runWith half Deformation.paper byMean (ImageSet.ofSplit split) seven
              |> ignore)

          // A classifier that has state gives another error on the same images.
          let calls = ref 0

          failed [ "by 0 levels"; "the error from" ] (fun () ->
              let moody (images: torch.Tensor) =
                  calls.Value <- calls.Value + 1
                  byMean images |> Array.map (fun label -> (label + calls.Value) % 2)

              DeformedSuite.run moody (ImageSet.ofSplit split) seven |> ignore)

          failed [ "3 images were given and 2 predictions" ] (fun () ->
              DeformedSuite.run (byMean >> Array.skip 1) (ImageSet.ofSplit split) seven
              |> ignore)

          failed [ "rotate (-20, 20): images of "; "became "; "3,3,31,32" ] (fun () ->
              let cut key first deformation (images: torch.Tensor) =
                  if deformation = Deformation.identity then
                      images
                  else
                      (Deformation.images key first deformation images).narrow(2L, 0L, 31L)

              DeformedSuite.runWith cut Deformation.paper byMean (ImageSet.ofSplit split) seven
              |> ignore)

          let idle =
              CorruptedSuite.runWith
                  (fun corruption severity key first images ->
                      if corruption = Corruption.Pixelate && severity = 2 then
                          images
                      else
                          Corruptions.images Substitute corruption severity key first images)
                  ignore
                  Substitute
                  byMean
                  (ImageSet.ofSplit split)
                  seven

          Expect.contains idle.Notes "pixelate, severity 2: no image changes by it." "an idle corruption is said"

          let none =
              DeformedSuite.runWith
                  (fun _ _ _ images -> images)
                  Deformation.paper
                  byMean
                  (ImageSet.ofSplit split)
                  seven

          Expect.equal none.Notes.Length 8 "idle deformations are said") ]

let tests =
    testList
        "corruptions"
        [ testList "verify" verify
          testList "laws" laws
          testList "deformations" deformations
          testList "frost" frost
          testList "suites" suites
          testList "mutants" mutants ]
