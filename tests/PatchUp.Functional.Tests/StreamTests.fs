/// Images that are decoded when they are used, decoded copies that are mapped, extra images, and the data sets' presets.
module PatchUp.Tests.StreamTests

open System
open System.Formats.Tar
open System.IO
open System.Threading
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open SkiaSharp
open TorchSharp
open PatchUp.Tests.DataModelTests
open PatchUp.Tests.ReproTests

let private fixture (name: string) =
    Path.Combine(AppContext.BaseDirectory, "fixtures", name)

let private put (folder: string) (files: (string * byte[]) list) =
    for name, bytes in files do
        let path = Path.Combine(folder, name)
        Directory.CreateDirectory(Path.GetDirectoryName path) |> ignore
        File.WriteAllBytes(path, bytes)

let private coded (format: SKEncodedImageFormat) (pixels: Pixels) : byte[] =
    use bitmap = Images.toBitmap pixels
    use data = bitmap.Encode(format, 90)
    data.ToArray()

let private png = coded SKEncodedImageFormat.Png
let private jpeg = coded SKEncodedImageFormat.Jpeg

/// Class folders of two classes, `count` images each to train on and four to test on, of all sizes; the second class is
/// brighter.
let private pictures (testSet: string) (count: int) : (string * byte[]) list =
    [ for set, count in [ "train", count; testSet, 4 ] do
          for label, name in [ 0, "a"; 1, "b" ] do
              for i in 1..count do
                  let bits = Key.stream (Key.ofSeed (100 * i + 10 * label + set.Length))
                  let height, width = 20 + bits.Below 30, 20 + bits.Below 30

                  let pixels =
                      { Height = height
                        Width = width
                        Planes = Array.init (3 * height * width) (fun _ -> byte (bits.Below 150 + 100 * label)) }

                  if i % 2 = 0 then
                      $"{set}/{name}/{i}.png", png pixels
                  else
                      $"{set}/{name}/{i}.JPEG", jpeg pixels ]

let private tar (path: string) (files: (string * byte[]) list) =
    use stream = File.Create path
    use tar = new TarWriter(stream, TarEntryFormat.Pax, false)

    for name, bytes in files do
        tar.WriteEntry(PaxTarEntry(TarEntryType.RegularFile, name, DataStream = new MemoryStream(bytes)))

let private few = { Threads = 2; Prefetch = 3 }

let private augmentation = { Flip = true; CropPadding = 0 }

/// The bytes of a feed's batches of four, and their shapes.
let private all (count: int) (feed: Feed) : byte[] list =
    ImageSet.using feed (fun feed ->
        [ for first in 0..4 .. count - 1 do
              use batch = feed.Next(min 4 (count - first))
              bytesOf batch ])

let private training (corpus: Corpus) (from: int) =
    let count = ImageSet.count corpus.Train

    ImageSet.training augmentation (Key.ofSeed 3) (Key.permutation count (Key.ofSeed 4)) from corpus.Train
    |> all (count - from)

/// What the process holds that no file backs, in bytes; none where the system does not say.
let private anonymous () : int64 option =
    if File.Exists "/proc/self/status" then
        File.ReadAllLines "/proc/self/status"
        |> Array.tryFind _.StartsWith("RssAnon:")
        |> Option.map (fun line -> 1024L * int64 (line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1]))
    else
        None

let private ahead =
    testList
        "work ahead"
        [ test "items come in order, the same at any number of threads, and no more than there is room for are begun" {
              for threads, room in [ 1, 1; 1, 5; 4, 2; 4, 7; 3, 100 ] do
                  let begun, most = ref 0, ref 0
                  let mutable used = 0

                  let make (i: int) (bytes: byte[]) =
                      let now = Interlocked.Increment begun
                      let outside = now - Volatile.Read &used
                      lock most (fun () -> most.Value <- max most.Value outside)

                      if i % 5 = 0 then
                          Thread.Sleep 1

                      Array.fill bytes 0 bytes.Length (byte i)

                  let ahead = Ahead.start threads room 3 60 make

                  let found =
                      [ for _ in 1..60 do
                            let mutable value = 0uy

                            ahead.Next(fun bytes ->
                                Expect.equal bytes (Array.create 3 bytes[0]) "whole"
                                value <- bytes[0])

                            // It is still counted while it was looked at.
                            Volatile.Write(&used, used + 1)
                            value ]

                  ahead.Close()
                  Expect.equal found [ 0uy .. 59uy ] $"{threads} threads, room for {room}"
                  // A thread may claim the place that was just given back before the test has counted it as used.
                  Expect.isLessThanOrEqual most.Value (min room 60 + 1) $"{threads} threads, room for {room}"
                  Expect.throwsT<InvalidOperationException> (fun () -> ahead.Next ignore) "there are no more"
          }

          test "what fails is raised in its turn, and closing early ends the threads" {
              for threads in [ 1; 4 ] do
                  let working = ref 0

                  let make (i: int) (_: byte[]) =
                      Interlocked.Increment working |> ignore

                      if i = 7 then
                          invalidArg "i" "seven"

                      Interlocked.Decrement working |> ignore

                  let ahead = Ahead.start threads 4 1 100 make

                  for _ in 0..6 do
                      ahead.Next ignore

                  Expect.throwsT<ArgumentException> (fun () -> ahead.Next ignore) "the eighth"
                  Expect.throwsT<ArgumentException> (fun () -> ahead.Next ignore) "and it stays"
                  ahead.Close()
                  Expect.equal working.Value 1 "only the one that failed did not come to its end"
          } ]

let private crops =
    testList
        "crops"
        [ test "the middle is 7/8 of the shorter side" {
              let box = Crop.box Crop.Centre 256 341

              Expect.equal
                  (box.Top, box.Left, box.Rows, box.Columns, box.IsMirrored)
                  (16, 58, 224, 224, false)
                  "224 of 256"

              let box = Crop.box Crop.Centre 1 1
              Expect.equal (box.Top, box.Left, box.Rows, box.Columns) (0, 0, 1, 1) "one pixel"
          }

          test "drawn crops have their area and their ratio, lie inside, and follow from the key" {
              let boxes isMirroring height width =
                  [ for i in 0..999 -> Crop.box (Crop.Drawn(isMirroring, Key.child i (Key.ofSeed 6))) height width ]

              let found = boxes true 300 400
              Expect.equal (boxes true 300 400) found "the same keys"

              for box in found do
                  Expect.isTrue (box.Top >= 0 && box.Left >= 0) $"{box}"
                  Expect.isTrue (box.Top + box.Rows <= 300 && box.Left + box.Columns <= 400) $"{box}"
                  let ratio = float box.Columns / float box.Rows
                  Expect.isTrue (ratio > 0.73 && ratio < 1.36) $"{box}"
                  Expect.isGreaterThan (float (box.Rows * box.Columns)) (0.078 * 120000.0) $"{box}"

              let share (what: Box -> bool) =
                  float (found |> List.filter what |> List.length) / 1000.0

              Expect.isTrue (abs (share _.IsMirrored - 0.5) < 0.06) "half are mirrored"

              let area (box: Box) =
                  float (box.Rows * box.Columns) / 120000.0

              // Uniform from 8 % on, but that large ones of the wrong ratio are drawn again.
              let small = share (fun box -> area box < 0.31)

              Expect.isTrue
                  (small > 0.29 && small < 0.39)
                  $"{small} of the areas are below 31 %%, of which a third is expected"

              Expect.isTrue (share (fun box -> box.Columns > box.Rows) > 0.4) "as many wide ones"
              Expect.isTrue (share (fun box -> box.Columns < box.Rows) > 0.4) "as tall ones"
              Expect.isTrue (boxes false 300 400 |> List.forall (_.IsMirrored >> not)) "only where that is asked for"

              // No part of a thin image has an allowed ratio but the one in its middle.
              let box = Crop.box (Crop.Drawn(false, Key.ofSeed 1)) 30 3000
              Expect.equal (box.Top, box.Left, box.Rows, box.Columns) (0, 1480, 30, 40) "a thin image"
              let box = Crop.box (Crop.Drawn(false, Key.ofSeed 1)) 1 1
              Expect.equal (box.Rows, box.Columns) (1, 1) "one pixel"
          }

          test "the pixels are those of the part, mirrored where it is, and fine stripes become grey" {
              let wide = image 3 16 24

              let shown pixels side (box: int -> int -> Box) =
                  let target = Array.zeroCreate<byte>(3 * side * side)
                  Images.decodePart "x" (png pixels) side box target
                  target

              let part isMirrored =
                  [| for channel in 0..2 do
                         for row in 1..14 do
                             for column in 5..18 do
                                 let column = if isMirrored then 23 - column else column
                                 wide.Planes[(channel * 16 + row) * 24 + column] |]

              Expect.equal (shown wide 14 (Crop.box Crop.Centre)) (part false) "14 of 16, not resized"

              let mirrored height width =
                  { Crop.box Crop.Centre height width with
                      IsMirrored = true }

              Expect.equal (shown wide 14 mirrored) (part true) "mirrored"

              let stripes =
                  { Height = 256
                    Width = 256
                    Planes = Array.init (3 * 256 * 256) (fun i -> if i % 2 = 0 then 255uy else 0uy) }

              for value in shown stripes 28 (Crop.box Crop.Centre) do
                  Expect.isTrue (value > 100uy && value < 155uy) $"stripes of a pixel, eight times smaller: {value}"
          } ]

let private files =
    testList
        "images in files"
        [ test "batches have the same bits at any number of workers, from a folder and an archive, and from any step on" {
              inFolder (fun folder ->
                  put (Path.Combine(folder, "set")) (pictures "test" 9)
                  tar (Path.Combine(folder, "set.tar")) (pictures "val" 9 |> List.rev)

                  // A validation set beside a test set is not looked at.
                  put (Path.Combine(folder, "set", "val", "z")) [ "1.png", [| 1uy |] ]

                  let first =
                      Corpus.inFiles { Threads = 1; Prefetch = 1 } 16 (Path.Combine(folder, "set"))

                  Expect.equal (ImageSet.count first.Train, ImageSet.count first.Test) (18, 8) "counts"
                  Expect.equal first.Classes [| "a"; "b" |] "classes"
                  Expect.equal (ImageSet.labels first.Train) (Array.init 18 (fun i -> i / 9)) "labels"
                  Expect.equal (ImageSet.size first.Train) (16, 16) "size"
                  let trained = training first 0
                  let tested = all 8 (ImageSet.inOrder first.Test)
                  Expect.equal (trained |> List.map Array.length) ([ 4; 4; 4; 4; 2 ] |> List.map ((*) 3072)) "floats"
                  Expect.equal (List.distinct trained).Length 5 "all differ"
                  use plain = ImageSet.plain first.Test [| 0..3 |]
                  Expect.equal (bytesOf plain) tested.Head "one by one"

                  for threads, prefetch, place in [ 1, 9, "set"; 4, 1, "set"; 3, 2, "set"; 2, 3, "set.tar" ] do
                      let corpus =
                          Corpus.inFiles
                              { Threads = threads
                                Prefetch = prefetch }
                              16
                              (Path.Combine(folder, place))

                      Expect.equal (training corpus 0) trained $"{threads} x {prefetch}, {place}"
                      Expect.equal (training corpus 8) (List.skip 2 trained) "from the third step on"

                      if place = "set" then
                          Expect.equal (all 8 (ImageSet.inOrder corpus.Test)) tested "tested"
                          Expect.equal corpus.Fingerprint first.Fingerprint "fingerprint"

                  let leaks =
                      left (fun () ->
                          training first 4 |> ignore
                          ImageSet.moments 5 first.Train |> ignore)

                  Expect.equal leaks 0L "leak-free"

                  // The same files elsewhere are the same data set; another file is not.
                  put (Path.Combine(folder, "other")) (pictures "test" 9)

                  let other () =
                      (Corpus.inFiles few 16 (Path.Combine(folder, "other"))).Fingerprint

                  Expect.equal (other ()) first.Fingerprint "elsewhere"
                  File.AppendAllText(Path.Combine(folder, "other", "train", "a", "1.JPEG"), "x")
                  Expect.notEqual (other ()) first.Fingerprint "a longer file")
          }

          test "parts of a set share its images, and means are measured on some of them" {
              inFolder (fun folder ->
                  put folder (pictures "test" 9)
                  let corpus = Corpus.inFiles few 12 folder
                  let taken = Corpus.take 3 0 corpus
                  Expect.equal (ImageSet.labels taken.Train) [| 0; 0; 0; 1; 1; 1 |] "three of each"
                  Expect.equal (ImageSet.count taken.Test) 8 "all"

                  refused [ "10 training"; "has 9"; "0, which is all" ] (fun () -> Corpus.take 10 0 corpus |> ignore)

                  let train, validation = ImageSet.holdOut 2 [| 5; 0; 1; 2; 3; 4 |] taken.Train

                  Expect.equal (ImageSet.labels validation) [| 1; 0 |] "held out"
                  Expect.equal (ImageSet.count train) 4 "the rest"
                  use one = ImageSet.plain validation [| 1 |]
                  use same = ImageSet.plain corpus.Train [| 0 |]
                  Expect.equal (bytesOf one) (bytesOf same) "the first image"

                  // Decoded by hand.
                  let decoded = ImageSet.plain corpus.Train [| 0..17 |]
                  use decoded = decoded

                  for (mean, deviation), channel in List.zip (ImageSet.moments 100 corpus.Train) [ 0L .. 2L ] do
                      use values = decoded.select(1L, channel).to_type(torch.float64)
                      PatchUp.Tests.Fixtures.expectNear 1e-6 mean (values.mean().item<float>()) "mean"
                      PatchUp.Tests.Fixtures.expectNear 1e-6 deviation (values.std(false).item<float>()) "deviation"

                  // Every second one.
                  use some = ImageSet.plain corpus.Train [| 0..2..17 |]
                  use red = some.select(1L, 0L).to_type(torch.float64)

                  PatchUp.Tests.Fixtures.expectNear
                      1e-6
                      (fst (ImageSet.moments 9 corpus.Train).Head)
                      (red.mean().item<float>())
                      "a part")
          }

          test "what is wrong is said in a line that names it" {
              inFolder (fun folder ->
                  let set = Path.Combine(folder, "set")
                  put set (pictures "val" 5)

                  let check words =
                      refused words (fun () -> Dataset.readWith None set |> ignore)

                  check [ "one size"; "--image-size" ]
                  File.WriteAllBytes(Path.Combine(set, "train", "b", "3.JPEG"), [| 1uy; 2uy |])
                  let corpus = Corpus.inFiles few 16 set
                  refused [ set; "train/b/3.JPEG"; "not a JPEG or PNG" ] (fun () -> training corpus 0 |> ignore)
                  refused [ "train/b/3.JPEG" ] (fun () -> ImageSet.moments 100 corpus.Train |> ignore)
                  File.Delete(Path.Combine(set, "train", "b", "3.JPEG"))
                  refused [ "3.JPEG"; "no such file" ] (fun () -> training corpus 0 |> ignore)

                  let refusedPath words path =
                      refused words (fun () -> Corpus.inFiles few 16 path |> ignore)

                  refusedPath [ "nowhere"; "no such" ] (Path.Combine(folder, "nowhere"))
                  let empty = Directory.CreateDirectory(Path.Combine(folder, "empty"))
                  refusedPath [ "no class folders" ] empty.FullName
                  refusedPath [ "unpack it" ] (fixture "cifar-10-binary.tar.gz")
                  put (Path.Combine(folder, "cifar")) [ "data_batch_1.bin", [||] ]
                  refusedPath [ "CIFAR-10"; "without --image-size" ] (Path.Combine(folder, "cifar"))

                  refused [ "workers 0" ] (fun () -> Corpus.inFiles { few with Threads = 0 } 16 set |> ignore)
                  refused [ "prefetch 0" ] (fun () -> Corpus.inFiles { few with Prefetch = 0 } 16 set |> ignore))
          }

          test "resident memory is bounded by workers and images ahead, not by the number of images" {
              match anonymous () with
              | None -> skiptest "the system does not say how much memory is the process's own"
              | Some _ ->
                  inFolder (fun folder ->
                      // 64 images of 6 MB each once decoded, 384 MB together, and 192 MB brought to 1000 x 1000.
                      let large =
                          jpeg
                              { Height = 1000
                                Width = 1500
                                Planes = Array.init 4_500_000 (fun i -> byte (i / 1500)) }

                      put
                          folder
                          [ for set, count in [ "train", 32; "test", 1 ] do
                                for name in [ "a"; "b" ] do
                                    for i in 1..count -> $"{set}/{name}/{i}.jpg", large ]

                      let growth workers =
                          let corpus = Corpus.inFiles workers 1000 folder
                          GC.Collect()
                          let before = (anonymous ()).Value
                          let mutable most = 0L
                          let grown () = (anonymous ()).Value - before

                          // Until the workers are as far ahead as they may be.
                          let rec settle (rounds: int) (quiet: int) (last: int64) =
                              if rounds > 0 && quiet < 5 then
                                  Thread.Sleep 100
                                  let now = grown ()
                                  settle (rounds - 1) (if now - last < (1L <<< 20) then quiet + 1 else 0) now

                          ImageSet.using
                              (ImageSet.training augmentation (Key.ofSeed 1) [| 0..63 |] 0 corpus.Train)
                              (fun feed ->
                                  for _ in 1..16 do
                                      use _ = feed.Next 4

                                      if most = 0L then
                                          settle 60 0 (grown ())

                                      most <- max most (grown ()))

                          most

                      // Two decoders with an image each, six images ahead, a batch; the rest is slack.
                      let decoding = 2L * (6_000_000L + 4_000_000L)
                      let ready = 6L * 3_000_000L + 4L * 12_000_000L
                      let found = growth few
                      Expect.isLessThan found (decoding + ready + (96L <<< 20)) $"{found >>> 20} MiB")
          } ]

// The program

let private tiny =
    [ "--width"
      "1"
      "--epochs"
      "2"
      "--batch-size"
      "5"
      "--method"
      "soft-patchup" ]

let private resultsOf (out: string) =
    [ for kind in [ "records"; "weights"; "logs" ] ->
          [ for path in Directory.GetFiles(Path.Combine(out, kind)) -> Path.GetFileName path, File.ReadAllBytes path ] ]

let private recordOf (out: string) : Record =
    Directory.GetFiles(Path.Combine(out, "records"))
    |> Array.exactlyOne
    |> File.ReadAllText
    |> Json.tryRead<Record>
    |> Option.get

let private program =
    testList
        "training on images in files"
        [ test "bytes and numbers of the same places are the same images" {
              inFolder (fun folder ->
                  let data = Path.Combine(folder, "data")
                  put data (pictures "val" 3)

                  let filed = (Corpus.inFiles { Threads = 1; Prefetch = 1 } 16 data).Test

                  let decoded =
                      ImageSet.ofSplit
                          { Images = ImageSet.bytes filed [| 0..7 |]
                            Labels = ImageSet.labels filed }

                  let values (images: torch.Tensor) =
                      use images = images.``to`` torch.float32
                      images.data<float32>().ToArray()

                  for set in [ filed; decoded ] do
                      let chosen = ImageSet.select [| 6; 1; 3 |] set

                      Scope.value (fun () ->
                          let bytes = ImageSet.bytes chosen [| 2; 0 |]
                          Expect.equal bytes.dtype torch.uint8 "bytes"
                          Expect.equal bytes.shape [| 2L; 3L; 16L; 16L |] "shape"

                          Expect.equal
                              (values bytes |> Array.map (fun value -> value / 255.0f))
                              (values (ImageSet.plain set [| 3; 6 |]))
                              "the same images")

                  ImageSet.dispose decoded)
          }

          test "what was trained on images in files is evaluated on them" {
              inFolder (fun folder ->
                  let data = Path.Combine(folder, "data")
                  put data (pictures "val" 9)
                  let out = Path.Combine(folder, "out")

                  succeed ([ "train"; "--data"; data; "--image-size"; "32"; "--out"; out ] @ tiny)
                  |> ignore

                  let weights = Directory.GetFiles(Path.Combine(out, "weights"))[0]
                  let evaluations = Path.Combine(out, "evaluations")

                  let evaluate options =
                      succeed ([ "evaluate"; weights; "--data"; data ] @ options) |> snd

                  let evaluated (into: string) suite : Evaluation =
                      Path.GetFileNameWithoutExtension weights + $".{suite}.json"
                      |> fun name -> File.ReadAllText(Path.Combine(into, name))
                      |> Json.tryRead
                      |> Option.get

                  let resultOf (evaluation: Evaluation) : CleanResult =
                      evaluation.Result.ToJsonString() |> Json.tryRead |> Option.get

                  evaluate [ "--suite"; "clean" ] |> ignore
                  let clean = evaluated evaluations "clean"
                  let result = resultOf clean
                  let record = recordOf out
                  Expect.equal result.Error.Value record.TestError "the run's own error"
                  Expect.floatClose Accuracy.medium result.Nll.Value record.TestNll "and likelihood"
                  Expect.equal clean.Fingerprint record.Config.Fingerprint "the same images"
                  Expect.equal clean.Config (Some record.Config) "its run"

                  // Every suite on some of the images, and one of them again.
                  let again = Path.Combine(folder, "again")
                  let err = evaluate [ "--images"; "2" ]
                  Expect.stringContains err "corrupted: jpeg_compression, corruption 15 of 15" "progress"

                  for suite in Evaluation.suites do
                      Expect.equal (evaluated evaluations suite.Name).Images 2 suite.Name

                  evaluate [ "--images"; "2"; "--suite"; "deformed"; "--out"; again ] |> ignore

                  Expect.equal
                      (Json.line (evaluated again "deformed"))
                      (Json.line (evaluated evaluations "deformed"))
                      "the same twice"

                  // Suites that ask for images by place see the same ones as those that read on.
                  let text suite =
                      (evaluated evaluations suite).Result.ToJsonString()

                  let error = (resultOf (evaluated evaluations "clean")).Error.Value
                  let deformed: DeformedErrors = (Json.tryRead (text "deformed")).Value
                  let attacked: AttackReport = (Json.tryRead (text "attacks")).Value
                  Expect.equal deformed.CleanError error "by bytes"
                  Expect.equal (100.0 - attacked.Clean.Percent) error "by places"

                  // Weights without their record: the side is named.
                  let moved = Path.Combine(folder, "moved.safetensors")
                  File.Copy(weights, moved)

                  let alone options =
                      patchup ([ "evaluate"; moved; "--suite"; "clean" ] @ options)

                  let code, _, err = alone [ "--data"; data; "--image-size"; "32" ]
                  Expect.equal code 0 err

                  let own =
                      Path.Combine(folder, "moved.clean.json")
                      |> File.ReadAllText
                      |> Json.tryRead<Evaluation>
                      |> Option.get

                  Expect.equal (resultOf own) result "the same numbers"

                  for options, expected in
                      [ [ "--data"; data ], "--image-size"
                        [ "--data"; data; "--image-size"; "16" ],
                        "its images have 32 x 32 pixels and those of data 16 x 16"
                        [ "--image-size"; "32" ], "name their folder with --data" ] do
                      let code, _, err = alone options
                      Expect.equal code 2 err
                      Expect.stringContains err expected "refused"

                  Expect.equal
                      (DataModelTests.left (fun () -> evaluate [ "--suite"; "deformed" ] |> ignore))
                      0L
                      "live tensors")
          }

          test "a run that was tested on some of its images in files is evaluated on these" {
              inFolder (fun folder ->
                  let data = Path.Combine(folder, "data")
                  put data (pictures "val" 6)
                  let out = Path.Combine(folder, "out")

                  succeed (
                      [ "train"
                        "--data"
                        data
                        "--image-size"
                        "40"
                        "--test-per-class"
                        "3"
                        "--out"
                        out ]
                      @ tiny
                  )
                  |> ignore

                  let weights = Directory.GetFiles(Path.Combine(out, "weights")) |> Array.exactlyOne

                  let evaluate suite options =
                      patchup ([ "evaluate"; weights; "--data"; data; "--suite"; suite ] @ options)

                  let code, _, err = evaluate "clean" []
                  Expect.equal code 0 err

                  let found: Evaluation =
                      Directory.GetFiles(Path.Combine(out, "evaluations"))
                      |> Array.exactlyOne
                      |> File.ReadAllText
                      |> Json.tryRead
                      |> Option.get

                  let result: CleanResult = found.Result.ToJsonString() |> Json.tryRead |> Option.get
                  Expect.equal found.Images 6 "three of each class"
                  Expect.equal result.Error.Value (recordOf out).TestError "the run's own error"

                  // There are no corruptions of this size.
                  let code, _, err = evaluate "corrupted" []
                  Expect.equal code 2 err
                  Expect.stringContains err "corrupted: the images have 40 x 40 pixels" "refused"

                  let code, _, err = evaluate "clean" [ "--images"; "7" ]
                  Expect.equal code 2 err
                  Expect.stringContains err "the test set has 6" "too many")
          }

          test "no suite computes more large images at a time than fit the memory" {
              inFolder (fun folder ->
                  put folder (pictures "val" 1)
                  let all = (Corpus.inFiles few 512 folder).Test

                  // Three images of 512 x 512 have the pixels of 250 of 64 x 64, and a part of a fourth.
                  let places = [| 0; 2; 5; 6 |]
                  let most = ref 0L
                  use pool = torch.nn.AdaptiveAvgPool2d 1L

                  use rest =
                      torch.nn.Sequential(
                          struct ("flat", torch.nn.Flatten() :> torch.nn.Module<_, _>),
                          struct ("fc", torch.nn.Linear(3L, 2L) :> torch.nn.Module<_, _>)
                      )

                  use whole =
                      torch.nn.Sequential(
                          struct ("pool", pool :> torch.nn.Module<_, _>),
                          struct ("rest", rest :> torch.nn.Module<_, _>)
                      )

                  let candidate =
                      { Path = "w.safetensors"
                        Sha256 = ""
                        Model =
                          { Name = ""
                            Module = whole
                            Stages = [ "pool", pool.call; "rest", rest.call ]
                            Normalise =
                              fun images ->
                                  most.Value <- max most.Value images.shape[0]
                                  images.alias () }
                        Classes = [ "a"; "b" ]
                        Foreign = None
                        Method = None
                        Record = None
                        Data = ""
                        Fingerprint = ""
                        Test = ImageSet.select places all }

                  let settings =
                      { Key = Key.ofSeed 0
                        Seed = 0
                        Report = ignore
                        Attacks =
                          { AttackSuite.demo with
                              FgsmNormalised = []
                              Attacks = [] }
                        Corrupted = None
                        Images = None
                        Frost = Substitute
                        FrostFingerprint = None
                        Baseline = None }

                  let suite name =
                      Evaluation.suites |> List.find (fun suite -> suite.Name = name)

                  let largest (run: unit -> unit) =
                      most.Value <- 0L
                      Expect.equal (left run) 0L "live tensors"
                      most.Value

                  for name in [ "clean"; "calibration"; "activations"; "attacks" ] do
                      let run () =
                          Evaluation.run settings (suite name) candidate |> ignore

                      Expect.equal (largest run) 3L name

                  // As of deformed and corrupted images.
                  let classes = ref Array.empty

                  let run () =
                      Scope.value (fun () -> classes.Value <- Candidate.classify candidate (ImageSet.bytes all places))

                  Expect.equal (largest run) 3L "bytes"

                  Expect.equal
                      classes.Value
                      (Candidate.answers candidate candidate.Test |> Array.map _.Predicted)
                      "the same classes"

                  // A damaged image is named, whoever reads it.
                  let damaged = Path.Combine(folder, "val", "b", "3.JPEG")
                  File.WriteAllBytes(damaged, Array.zeroCreate (int (FileInfo damaged).Length))

                  for read in
                      [ fun () -> Candidate.answers candidate candidate.Test |> ignore
                        fun () -> (ImageSet.bytes all places).Dispose()
                        fun () -> (ImageSet.plain all places).Dispose() ] do
                      Expect.equal (left (fun () -> refused [ "val/b/3.JPEG" ] read)) 0L "live tensors")
          }

          test "results do not depend on workers, and say what was trained on" {
              inFolder (fun folder ->
                  let data = Path.Combine(folder, "data")
                  put data (pictures "val" 9)
                  let out name = Path.Combine(folder, name)

                  let train name options =
                      succeed (
                          [ "train"; "--data"; data; "--image-size"; "16"; "--out"; out name ]
                          @ tiny
                          @ options
                      )

                  let _, err = train "one" [ "--workers"; "1"; "--prefetch"; "1" ]
                  Expect.stringContains err "\"imageSize\":16" "printed"
                  train "two" [ "--workers"; "3"; "--tensorboard" ] |> ignore
                  Expect.equal (resultsOf (out "two")) (resultsOf (out "one")) "the same bytes"
                  let config = (recordOf (out "one")).Config
                  Expect.equal config.ImageSize (Some 16) "size"

                  Expect.equal
                      (config.TrainPerClass, config.TestPerClass, config.CropPadding)
                      (0, 0, 0)
                      "all, unpadded"

                  // The record is a configuration that does the same again.
                  let file = Directory.GetFiles(Path.Combine(out "one", "records"))[0]

                  succeed [ "train"; "--data"; data; "--config"; file; "--out"; out "three" ]
                  |> ignore

                  Expect.equal (resultsOf (out "three")) (resultsOf (out "one")) "by its record"

                  let refuse words arguments =
                      let code, _, err = patchup ([ "train"; "--out"; out "no" ] @ tiny @ arguments)
                      Expect.equal code 2 err

                      for word in words do
                          Expect.stringContains err word "message"

                  refuse [ "one size"; "--image-size" ] [ "--data"; data; "--train-per-class"; "2" ]
                  refuse [ "image size 4"; "8 .. 1024" ] [ "--data"; data; "--image-size"; "4" ]
                  refuse [ "--data" ] [ "--image-size"; "16" ]
                  refuse [ "--image-size" ] [ "--workers"; "2" ]
                  refuse [ "workers 0" ] [ "--data"; data; "--image-size"; "16"; "--workers"; "0" ]
                  refuse [ "--extra" ] [ "--data"; data; "--image-size"; "16"; "--extra" ]
                  Expect.isFalse (Directory.Exists(out "no")) "nothing was written"
                  let config = Path.Combine(folder, "config.json")
                  File.WriteAllText(config, """{ "imageSize": 16, "cropPadding": 2 }""")
                  refuse [ "crop padding 2"; "must be 0" ] [ "--config"; config; "--data"; data ]

                  let text, _ = succeed [ "data"; "check"; data; "--image-size"; "16" ]

                  Expect.stringContains
                      text
                      "class folders, brought to 16 x 16; 2 classes, images of 16 x 16"
                      "checked"

                  Expect.stringContains text "train  18      9                 9       9" "counts")
          }

          test "a run that is stopped at any step goes on to the same bytes" {
              inFolder (fun folder ->
                  put (Path.Combine(folder, "data")) (pictures "val" 6)

                  let corpus = Corpus.inFiles few 16 (Path.Combine(folder, "data"))

                  let config =
                      { Config.withMethod (Arguments.method' "hard-patchup") Config.standard with
                          ImageSize = Some 16
                          CropPadding = 0
                          Width = Some 1
                          Epochs = 2
                          BatchSize = 3 }

                  let resultOf (trained: Trained) =
                      let weights =
                          [ for name, tensor in Model.state trained.Model ->
                                name, bytesOf (tensor.detach().contiguous()) ]

                      Model.dispose trained.Model
                      trained.Record, weights

                  let whole = resultOf (Trainer.run Control.alone config corpus)

                  for stop in [ 2; 5; 8 ] do
                      let kept = Checkpointing.openFolder failtest (Path.Combine(folder, $"kept{stop}"))

                      let asked = ref 0

                      let control isStopping =
                          { Control.alone with
                              Checkpoints = Some kept
                              IsStopping = isStopping }

                      try
                          let isStopping () =
                              asked.Value <- asked.Value + 1
                              asked.Value >= stop

                          Expect.throwsT<Interrupted>
                              (fun () -> Trainer.run (control isStopping) config corpus |> ignore)
                              "stopped"

                          Expect.equal
                              (resultOf (Trainer.run (control (fun () -> false)) config corpus))
                              whole
                              $"at {stop}"
                      finally
                          Checkpointing.close kept)
          } ]

let private copies =
    testList
        "mapped copies"
        [ test "a copy's images are pages of its file, which neither a write nor a removal reaches" {
              inFolder (fun folder ->
                  // A name that is not ASCII.
                  let cache = Path.Combine(folder, "zwischenspeicher-ä")
                  Directory.CreateDirectory cache |> ignore

                  let read warn =
                      Dataset.readAs
                          { Cache = Some cache
                            CachesAll = true
                            Extra = false
                            Warn = warn }
                          (fixture "cifar-10-binary.tar.gz")

                  let dataset = read failtest
                  let expected = bytesOf dataset.Train.Images
                  Dataset.dispose dataset
                  let copy = Directory.GetFiles cache |> Array.exactlyOne
                  let bytes = File.ReadAllBytes copy
                  let mapped = read failtest
                  Expect.equal (bytesOf mapped.Train.Images) expected "the same images"

                  if OperatingSystem.IsLinux() then
                      Expect.stringContains (File.ReadAllText "/proc/self/maps") (Path.GetFileName copy) "mapped"

                  mapped.Train.Images.bytes.Clear()
                  Expect.equal (File.ReadAllBytes copy) bytes "the file is as it was"
                  File.Delete copy
                  Expect.equal (bytesOf mapped.Test.Images).Length (40 * 3072) "still there"
                  Dataset.dispose mapped

                  if OperatingSystem.IsLinux() then
                      Expect.isFalse ((File.ReadAllText "/proc/self/maps").Contains(Path.GetFileName copy)) "unmapped"

                  // Damage is told, and put right.
                  Dataset.dispose (read failtest)

                  for damage in
                      [ Array.take 1000
                        (fun bytes ->
                            bytes
                            |> Array.mapi (fun i value -> if i = bytes.Length - 9 then value + 1uy else value))
                        fun _ -> [||] ] do
                      let told = ResizeArray<string>()
                      File.WriteAllBytes(copy, damage bytes)
                      let again = read told.Add
                      Expect.equal (bytesOf again.Train.Images) expected "decoded again"
                      Dataset.dispose again
                      Expect.hasLength told 1 "told once"
                      Expect.stringContains told[0] copy "which"
                      Expect.stringContains told[0] "damaged; it is made again" "what"
                      Expect.equal (File.ReadAllBytes copy) bytes "whole again"

                  // Another version's copy is no damage.
                  let older =
                      Text.Encoding.Latin1.GetString(bytes).Replace("patchup-dataset-3", "patchup-dataset-2")

                  File.WriteAllBytes(copy, Text.Encoding.Latin1.GetBytes older)
                  Dataset.dispose (read failtest)
                  Expect.equal (File.ReadAllBytes copy) bytes "made anew")
          }

          test "the program keeps copies where it is told, or none" {
              inFolder (fun folder ->
                  let train options =
                      patchup (
                          [ "train"
                            "--data"
                            fixture "cifar-10-binary.tar.gz"
                            "--train-per-class"
                            "1"
                            "--test-per-class"
                            "1"
                            "--width"
                            "1"
                            "--epochs"
                            "1"
                            "--batch-size"
                            "20" ]
                          @ options
                      )

                  let cache = Path.Combine(folder, "a", "b")
                  let out name = [ "--out"; Path.Combine(folder, name) ]
                  let code, _, err = train ([ "--cache"; cache ] @ out "1")
                  Expect.equal code 0 err
                  let copy = Directory.GetFiles cache |> Array.exactlyOne
                  File.WriteAllBytes(copy, [| 1uy |])
                  let _, _, err = train ([ "--cache"; cache ] @ out "2")
                  Expect.stringContains err "patchup: warning: " "a warning"
                  Expect.stringContains err "damaged; it is made again" "which says it"

                  Expect.equal
                      (resultsOf (Path.Combine(folder, "2")))
                      (resultsOf (Path.Combine(folder, "1")))
                      "the same"

                  let code, _, err = train ([ "--cache"; copy ] @ out "3")
                  Expect.equal code 2 err
                  Expect.stringContains err "copies cannot be written there" "a file")
          } ]

let private extra =
    test "SVHN's extra images are trained on where they are asked for" {
        inFolder (fun folder ->
            let bytes = File.ReadAllBytes(fixture "svhn-test_32x32.mat")
            put folder [ "train_32x32.mat", bytes; "test_32x32.mat", bytes ]

            let read isExtra =
                Dataset.readAs
                    { Dataset.reading () with
                        Cache = None
                        Extra = isExtra }
                    folder

            let look isExtra check =
                let dataset = read isExtra

                try
                    check dataset
                finally
                    Dataset.dispose dataset

            let one, labels, plain =
                look false (fun dataset -> bytesOf dataset.Train.Images, dataset.Train.Labels, dataset.Fingerprint)

            refused [ folder; "lacks extra_32x32.mat" ] (fun () -> read true |> ignore)
            File.WriteAllBytes(Path.Combine(folder, "extra_32x32.mat"), bytes)
            look false (fun dataset -> Expect.equal dataset.Fingerprint plain "what is not read changes nothing")

            look true (fun dataset ->
                Expect.equal dataset.Train.Labels (Array.append labels labels) "labels of both"
                Expect.equal (bytesOf dataset.Train.Images) (Array.append one one) "images of both"
                Expect.equal (bytesOf dataset.Test.Images) one "the test set alone"
                Expect.notEqual dataset.Fingerprint plain "another data set"
                Expect.stringEnds dataset.Name " with extra" "which its name says")

            let text, _ = succeed [ "data"; "check"; folder; "--extra" ]
            Expect.stringContains text $"train  {2 * labels.Length}" "checked"

            refused [ "CIFAR-10"; "no extra images"; "extra_32x32.mat of SVHN" ] (fun () ->
                Dataset.readAs
                    { Dataset.reading () with
                        Cache = None
                        Extra = true }
                    (fixture "cifar-10-binary.tar.gz")
                |> ignore))
    }

let private presets =
    test "a data set's published settings are taken by name, and stand in the record" {
        inFolder (fun folder ->
            let train (arguments: string list) =
                patchup ([ "train" ] @ tiny @ arguments)

            let out name = Path.Combine(folder, name)

            let code, _, err =
                train
                    [ "--data-preset"
                      "cifar-10"
                      "--train-per-class"
                      "2"
                      "--test-per-class"
                      "1"
                      "--out"
                      out "a" ]

            Expect.equal code 0 err
            let config = (recordOf (out "a")).Config
            Expect.equal config.Mean DataPreset.cifar10.Mean "mean"
            Expect.equal config.Std DataPreset.cifar10.Std "deviation"
            Expect.equal (config.Flip, config.CropPadding, config.TrainPerClass) (true, 2, 2) "the rest"

            let weights, model =
                Checkpoint.read (Directory.GetFiles(Path.Combine(out "a", "weights"))[0])

            Model.dispose model
            Expect.equal (weights.Mean, weights.Std) (config.Mean, config.Std) "the network normalises so"

            let bytes = File.ReadAllBytes(fixture "svhn-test_32x32.mat")
            put (out "svhn") [ "train_32x32.mat", bytes; "test_32x32.mat", bytes ]

            let code, _, err =
                train [ "--data-preset"; "svhn"; "--data"; out "svhn"; "--out"; out "b" ]

            Expect.equal code 0 err
            let record = recordOf (out "b")
            Expect.equal (record.Config.Flip, record.Config.CropPadding) (false, 2) "digits are not mirrored"
            Expect.equal (record.Config.TrainPerClass, record.Config.TestPerClass) (0, 0) "all images"

            let notes = Tables.compare [ record ] |> Tables.markdown
            Expect.stringContains notes "all training images, 10 % of them held out" "in a table's notes"

            let weights = Directory.GetFiles(Path.Combine(out "b", "weights"))[0]

            let text, _ =
                succeed
                    [ "evaluate"
                      weights
                      "--data"
                      out "svhn"
                      "--suite"
                      "clean"
                      "--out"
                      out "e" ]

            Expect.stringContains text $"{record.TestError:F2}" "evaluated on all test images"

            let preset name =
                Config.withData (DataPreset.find name) Config.standard

            Expect.equal (preset "tiny-imagenet").CropPadding 4 "Tiny-ImageNet"
            Expect.equal (preset "imagenet").ImageSize (Some 224) "ImageNet"
            Expect.equal (preset "imagenet").CropPadding 0 "ImageNet's crops"

            for _, preset in DataPreset.all do
                Config.check (Config.withData preset Config.standard)

            let refuse words arguments =
                let code, _, err = train (arguments @ [ "--out"; out "no" ])
                Expect.equal code 2 err

                for word in words do
                    Expect.stringContains err word "message"

            refuse [ "'mnist'"; "cifar-10, cifar-100, svhn" ] [ "--data-preset"; "mnist" ]
            refuse [ "10 classes"; "Tiny-ImageNet-200"; "200 and 64 x 64" ] [ "--data-preset"; "tiny-imagenet" ]

            refuse [ "10 classes"; "CIFAR-100"; "100 and 32 x 32" ] [ "--data-preset"; "cifar-100" ]

            let file = out "config.json"
            File.WriteAllText(file, """{ "mean": [0.5, 0.5, 0.5] }""")
            refuse [ "std []"; "three numbers" ] [ "--config"; file ]
            File.WriteAllText(file, """{ "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0] }""")
            refuse [ "std [0.5, 0.5, 0]" ] [ "--config"; file ])
    }

let tests =
    testList "stream" [ ahead; crops; files; program; copies; extra; presets ]
