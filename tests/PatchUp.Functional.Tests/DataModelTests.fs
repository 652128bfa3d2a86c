/// Data sets, batches, networks and their files: what paper-repro reads, builds and writes.
module PatchUp.Tests.DataModelTests

open PatchUp.Functional
open System
open System.Formats.Tar
open System.IO
open System.IO.Compression
open System.Text
open Expecto
open PatchUp.Repro
open SkiaSharp
open TorchSharp

// Helpers

/// A folder that is gone afterwards.
let inFolder (run: string -> 'a) : 'a =
    let folder = Directory.CreateTempSubdirectory "patchup-tests-"

    try
        run folder.FullName
    finally
        folder.Delete true

/// Live native tensors of this thread that `run` leaves behind.
let left (run: unit -> unit) : int64 =
    let live () =
        DisposeScopeManager.Statistics.ThreadTotalLiveCount

    let before = live ()
    run ()
    live () - before

/// The message of the UserError that `run` raises: one line with these words in it.
let refused (words: string list) (run: unit -> unit) : unit =
    match
        (try
            run ()
            None
         with UserError message ->
             Some message)
    with
    | None -> failtest "no UserError was raised"
    | Some message ->
        Expect.isFalse (message.Contains '\n') "one line"

        for word in words do
            Expect.stringContains message word "the message"

/// `count` numbers of a fixed pseudo-random sequence, each below its bound.
let numbers (seed: int) (count: int) (bound: int) : int[] =
    let bits = Key.stream (Key.ofSeed seed)
    Array.init count (fun _ -> bits.Below bound)

let image (seed: int) (height: int) (width: int) : Pixels =
    { Height = height
      Width = width
      Planes = numbers seed (3 * height * width) 256 |> Array.map byte }

let private png (pixels: Pixels) : byte[] =
    use bitmap = Images.toBitmap pixels
    use data = bitmap.Encode(SKEncodedImageFormat.Png, 100)
    data.ToArray()

let private tarOf (entries: (string * byte[]) list) : byte[] =
    use memory = new MemoryStream()

    (use tar = new TarWriter(memory, TarEntryFormat.Ustar, true)

     for name, bytes in entries do
         if name.EndsWith '/' then
             tar.WriteEntry(UstarTarEntry(TarEntryType.Directory, name))
         else
             tar.WriteEntry(UstarTarEntry(TarEntryType.RegularFile, name, DataStream = new MemoryStream(bytes))))

    memory.ToArray()

let private gzip (bytes: byte[]) : byte[] =
    use memory = new MemoryStream()

    (use packed = new GZipStream(memory, CompressionLevel.Fastest, true)
     packed.Write(ReadOnlySpan bytes))

    memory.ToArray()

/// Two classes, three training and two test images each, of 6 x 5 pixels, in an unsorted order.
let private tiny: (string * byte[]) list =
    [ for set, count in [ "test", 2; "train", 3 ] do
          for name in [ "b"; "A" ] do
              for i in count - 1 .. -1 .. 0 do
                  $"{set}/{name}/{i}.png",
                  png (image (i + 10 * name.Length + (if name = "A" then 100 else 0) + count) 6 5) ]

let private without (name: string) entries =
    List.filter (fun (entry: string, _) -> not (entry.StartsWith(name, StringComparison.Ordinal))) entries

let private openTar (folder: string) (cache: string option) (bytes: byte[]) : Dataset =
    let path = Path.Combine(folder, "tiny.tar")
    File.WriteAllBytes(path, bytes)
    Dataset.readWith cache path

let bytesOf (tensor: torch.Tensor) = tensor.bytes.ToArray()

let private contents (dataset: Dataset) =
    dataset.Classes,
    dataset.Train.Labels,
    dataset.Test.Labels,
    bytesOf dataset.Train.Images,
    bytesOf dataset.Test.Images

let private closing (dataset: Dataset) (look: Dataset -> 'a) : 'a =
    try
        look dataset
    finally
        Dataset.dispose dataset

// Images

let private images =
    testList
        "images"
        [ test "a PNG file gives back its pixels, and nothing stays behind" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "a.png")
                  let pixels = image 1 7 9
                  use bitmap = Images.toBitmap pixels
                  Images.writePng path bitmap
                  Expect.equal (Images.read path) pixels "pixels"
                  Expect.equal (Directory.GetFiles folder) [| path |] "no temporary file"

                  refused [ "no.png"; "does not exist" ] (fun () ->
                      Images.writePng (Path.Combine(folder, "x", "no.png")) bitmap))
          }

          test "tensors and bitmaps are the same pixels" {
              let pixels = image 2 5 4

              let leaks =
                  left (fun () ->
                      use tensor = Images.toTensor pixels
                      Expect.equal tensor.shape [| 3L; 5L; 4L |] "shape"
                      Expect.equal (Images.ofTensor tensor) pixels "round trip"
                      use bitmap = Images.bitmapOfTensor tensor
                      use again = Images.tensorOfBitmap bitmap
                      Expect.equal (again.data<float32>().ToArray()) (tensor.data<float32>().ToArray()) "bitmap"
                      use odd = torch.tensor ([| nanf; -1.0f; 7.0f |], ReadOnlySpan [| 3L; 1L; 1L |])
                      Expect.equal (Images.ofTensor odd).Planes [| 0uy; 0uy; 255uy |] "bounded")

              Expect.equal leaks 0L "leak-free"
          }

          test "grey becomes three equal channels, and alpha is dropped" {
              use grey = new SKBitmap(SKImageInfo(2, 1, SKColorType.Gray8, SKAlphaType.Opaque))
              grey.SetPixel(0, 0, SKColor(40uy, 40uy, 40uy))
              grey.SetPixel(1, 0, SKColor(200uy, 200uy, 200uy))
              use data = grey.Encode(SKEncodedImageFormat.Png, 100)

              Expect.equal
                  (Images.decode "grey" (data.ToArray())).Planes
                  [| 40uy; 200uy; 40uy; 200uy; 40uy; 200uy |]
                  "grey"

              use clear =
                  new SKBitmap(SKImageInfo(1, 1, SKColorType.Rgba8888, SKAlphaType.Unpremul))

              clear.SetPixel(0, 0, SKColor(10uy, 20uy, 30uy, 128uy))
              use data = clear.Encode(SKEncodedImageFormat.Png, 100)
              Expect.equal (Images.decode "clear" (data.ToArray())).Planes [| 10uy; 20uy; 30uy |] "alpha"
          }

          test "resizing keeps a plain colour and gives the size asked for" {
              let plain =
                  { Height = 8
                    Width = 6
                    Planes = Array.init 144 (fun i -> byte (50 * (i / 48 + 1))) }

              let resized = Images.resize 3 5 plain
              Expect.equal (resized.Height, resized.Width) (3, 5) "size"
              Expect.equal resized.Planes (Array.init 45 (fun i -> byte (50 * (i / 15 + 1)))) "colour"
          }

          test "whatever is no whole image is refused by name" {
              let bytes = png (image 3 16 16)
              refused [ "x.png"; "not a JPEG or PNG" ] (fun () -> Images.decode "x.png" [| 1uy; 2uy |] |> ignore)
              refused [ "x.png" ] (fun () -> Images.decode "x.png" Array.empty |> ignore)

              refused [ "x.png"; "corrupt" ] (fun () ->
                  Images.decode "x.png" (Array.take (bytes.Length / 2) bytes) |> ignore)
          } ]

// Data sets

let private datasets =
    testList
        "data sets"
        [ test "an archive and a folder give the same images, sorted by class and name" {
              inFolder (fun folder ->
                  let expected =
                      tiny
                      |> List.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(a, b))
                      |> List.map (fun (name, bytes) -> name, (Images.decode name bytes).Planes)

                  let planes set =
                      expected
                      |> List.filter (fun (name, _) -> name.StartsWith(set + "/"))
                      |> List.map snd
                      |> Array.concat

                  let look dataset =
                      let classes, train, test, trainBytes, testBytes = contents dataset
                      Expect.equal classes [| "A"; "b" |] "ordinal order"
                      Expect.equal train [| 0; 0; 0; 1; 1; 1 |] "train labels"
                      Expect.equal test [| 0; 0; 1; 1 |] "test labels"
                      Expect.equal trainBytes (planes "train") "train images"
                      Expect.equal testBytes (planes "test") "test images"
                      Expect.equal dataset.Train.Images.shape [| 6L; 3L; 6L; 5L |] "shape"

                  let below top =
                      tiny |> List.map (fun (name, bytes) -> top + name, bytes)

                  for entries in
                      [ tiny
                        below "top/"
                        below "./"
                        below "../"
                        [ "train/A/notes.txt", [| 1uy |]
                          "README.md", [| 2uy |]
                          "train/A/._0.png", [| 3uy |] ]
                        @ tiny ] do
                      closing (openTar folder None (tarOf entries)) look
                      closing (openTar folder None (gzip (tarOf entries))) look

                  for name, bytes in tiny do
                      let path = Path.Combine(folder, "here", "set", name)
                      Directory.CreateDirectory(Path.GetDirectoryName path) |> ignore
                      File.WriteAllBytes(path, bytes)

                  closing (Dataset.readWith None (Path.Combine(folder, "here", "set"))) look
                  closing (Dataset.readWith None (Path.Combine(folder, "here"))) look)
          }

          test "what is wrong is said in a line that names it" {
              inFolder (fun folder ->
                  let wrong words bytes =
                      refused ("tiny.tar" :: words) (fun () -> openTar folder None bytes |> Dataset.dispose)

                  let sound = tarOf tiny
                  let packed = gzip sound

                  refused [ "nowhere"; "no such file" ] (fun () ->
                      Dataset.readWith None (Path.Combine(folder, "nowhere")) |> ignore)

                  refused [ folder; "no class folders in train/" ] (fun () -> Dataset.readWith None folder |> ignore)
                  wrong [ "archive" ] (Encoding.UTF8.GetBytes(String.replicate 100 "this is no archive. "))
                  wrong [ "archive" ] Array.empty
                  wrong [ "archive" ] (Array.take (packed.Length / 2) packed)
                  wrong [ "archive" ] (Array.take (sound.Length / 2) sound)
                  wrong [ "archive" ] (Array.take (sound.Length / 2 / 512 * 512) sound)
                  wrong [ "no class folders in train/" ] (tarOf (without "train" tiny))
                  wrong [ "no class folders in test/" ] (tarOf (without "test" tiny))
                  wrong [ "missing in test/"; "b" ] (tarOf (without "test/b" tiny))
                  wrong [ "missing in train/"; "A" ] (tarOf (without "train/A" tiny))
                  wrong [ "train/c"; "no image" ] (tarOf (("train/c/", [||]) :: tiny))

                  wrong [ "train/b/9.png"; "corrupt" ] (tarOf (("train/b/9.png", Array.take 60 (snd tiny[0])) :: tiny))

                  wrong [ "train/b/9.jpg"; "not a JPEG or PNG" ] (tarOf (("train/b/9.jpg", [||]) :: tiny))
                  wrong [ "test/b/0.png"; "twice" ] (tarOf (("test/b/0.png", snd tiny[0]) :: tiny))
                  wrong [ "more than one folder" ] (tarOf (tiny @ [ "other/train/b/7.png", snd tiny[0] ]))

                  wrong
                      [ "test/A/7.png"; "4 x 9"; "5 x 6"; "one size" ]
                      (tarOf (("test/A/7.png", png (image 1 9 4)) :: tiny)))
          }

          test "a damaged archive gives the same images or a UserError, nothing else" {
              inFolder (fun folder ->
                  let packed = gzip (tarOf tiny)
                  let expected = closing (openTar folder None packed) contents
                  let mutable refusals = 0

                  let look bytes =
                      try
                          Expect.equal (closing (openTar folder None bytes) contents) expected "the same"
                      with UserError _ ->
                          refusals <- refusals + 1

                  for cut in 1..100 do
                      look (Array.take (packed.Length - cut) packed)

                  for place in numbers 3 100 packed.Length do
                      look (
                          packed
                          |> Array.mapi (fun i value -> if i = place then value ^^^ 16uy else value)
                      )

                  Expect.isGreaterThan refusals 100 "most are refused")
          }

          test "an entry's name that climbs out writes nothing" {
              inFolder (fun folder ->
                  let inner = Path.Combine(folder, "a", "b")
                  Directory.CreateDirectory inner |> ignore
                  let entries = tiny |> List.map (fun (name, bytes) -> "../../" + name, bytes)
                  refused [ "no class folders" ] (fun () -> openTar inner None (tarOf entries) |> ignore)

                  let before =
                      Directory.GetFileSystemEntries(folder, "*", SearchOption.AllDirectories)

                  Expect.equal before.Length 3 "a, b and the archive")
          }

          test "the decoded copy is used, and made again when damaged" {
              inFolder (fun folder ->
                  let cache = Path.Combine(folder, "cache")
                  let bytes = gzip (tarOf tiny)
                  let expected = closing (openTar folder None bytes) contents

                  let look () =
                      closing (openTar folder (Some cache) bytes) contents

                  Expect.equal (look ()) expected "first"
                  let file = Directory.GetFiles cache |> Array.exactlyOne
                  let copy = File.ReadAllBytes file
                  File.SetLastWriteTimeUtc(file, DateTime.UnixEpoch)
                  Expect.equal (look ()) expected "from the copy"
                  Expect.equal (File.GetLastWriteTimeUtc file) DateTime.UnixEpoch "not written again"

                  let damage =
                      [ Array.empty
                        Array.take 20 copy
                        Array.take (copy.Length - 1) copy
                        Array.append copy [| 0uy |]
                        for place in numbers 7 40 copy.Length do
                            copy |> Array.mapi (fun i value -> if i = place then value ^^^ 4uy else value) ]

                  for broken in damage do
                      File.WriteAllBytes(file, broken)
                      Expect.equal (look ()) expected "rebuilt"
                      Expect.equal (File.ReadAllBytes file) copy "written again"

                  Expect.equal (left (fun () -> look () |> ignore)) 0L "leak-free"

                  // A file where the folder should be: no copy, and no error.
                  Directory.Delete(cache, true)
                  File.WriteAllText(cache, "")
                  Expect.equal (look ()) expected "without a copy")
          }

          test "a changed folder is read again" {
              inFolder (fun folder ->
                  let cache = Path.Combine(folder, "cache")
                  let root = Path.Combine(folder, "set")

                  for name, bytes in tiny do
                      Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(root, name)))
                      |> ignore

                      File.WriteAllBytes(Path.Combine(root, name), bytes)

                  let look () =
                      closing (Dataset.readWith (Some cache) root) contents

                  let before = look ()
                  Expect.equal (look ()) before "from the copy"
                  let changed = Path.Combine(root, "train", "A", "1.png")
                  File.WriteAllBytes(changed, png (image 99 6 5))
                  File.SetLastWriteTimeUtc(changed, DateTime.UnixEpoch)
                  Expect.notEqual (look ()) before "changed")
          }

          test "the embedded data set is 6,000 images of ten classes; its parts are the first of each class" {
              inFolder (fun folder ->
                  closing (Dataset.embeddedWith (Some folder)) (fun dataset ->
                      Expect.equal dataset.Classes.Length 10 "classes"
                      Expect.equal (dataset.Classes[0], dataset.Classes[9]) ("airplane", "truck") "names"
                      Expect.equal dataset.Train.Images.shape [| 5000L; 3L; 32L; 32L |] "train"
                      Expect.equal dataset.Test.Images.shape [| 1000L; 3L; 32L; 32L |] "test"
                      Expect.equal dataset.Train.Labels (Array.init 5000 (fun i -> i / 500)) "labels"

                      let leaks =
                          left (fun () ->
                              let part = Dataset.take 3 2 dataset
                              Expect.equal part.Train.Labels (Array.init 30 (fun i -> i / 3)) "labels"

                              let size = 3 * 32 * 32
                              let all = bytesOf dataset.Train.Images

                              let expected =
                                  [| for i in 0..29 -> Array.sub all ((i / 3 * 500 + i % 3) * size) size |]

                              Expect.equal (bytesOf part.Train.Images) (Array.concat expected) "images"
                              Dataset.dispose part)

                      Expect.equal leaks 0L "leak-free"
                      refused [ "501"; "500"; "airplane" ] (fun () -> Dataset.take 501 1 dataset |> ignore)
                      refused [ "0 test" ] (fun () -> Dataset.take 1 0 dataset |> ignore)))
          }

          test "a validation set and the rest make up the split" {
              inFolder (fun folder ->
                  closing (openTar folder None (tarOf tiny)) (fun dataset ->
                      let train, validation = Split.holdOut 2 [| 4; 0; 5; 1; 3; 2 |] dataset.Train
                      Expect.equal (validation.Labels, train.Labels) ([| 1; 0 |], [| 1; 0; 1; 0 |]) "labels"
                      let all = bytesOf dataset.Train.Images |> Array.chunkBySize 90
                      Expect.equal (bytesOf validation.Images) (Array.append all[4] all[0]) "images"
                      Split.dispose train
                      Split.dispose validation

                      let throws run =
                          Expect.throwsT<ArgumentException> run "refused"

                      throws (fun () -> Split.holdOut 2 [| 0; 0; 1; 2; 3; 4 |] dataset.Train |> ignore)
                      throws (fun () -> Split.holdOut 6 [| 0..5 |] dataset.Train |> ignore)
                      throws (fun () -> Split.select [| 6 |] dataset.Train |> ignore)))
          } ]

// Batches

let private augmentation =
    let split count height width =
        let bytes = numbers 5 (count * 3 * height * width) 256 |> Array.map byte
        let size = [| int64 count; 3L; int64 height; int64 width |]

        { Images = torch.tensor (bytes, ReadOnlySpan size)
          Labels = Array.zeroCreate count }

    /// The obvious loop.
    let slow padding moves (split: Split) (indices: int[]) =
        let height, width = int split.Images.shape[2], int split.Images.shape[3]
        let bytes = bytesOf split.Images

        [| for i in 0 .. indices.Length - 1 do
               for channel in 0..2 do
                   for y in 0 .. height - 1 do
                       for x in 0 .. width - 1 do
                           let x = if moves.Flip[i] then width - 1 - x else x
                           let y, x = y + moves.Dy[i] - padding, x + moves.Dx[i] - padding

                           if y < 0 || y >= height || x < 0 || x >= width then
                               0.0f
                           else
                               float32 bytes[((indices[i] * 3 + channel) * height + y) * width + x] / 255.0f |]

    testList
        "augmentation"
        [ test "crops and flips are those of the obvious loop, bit for bit" {
              for height, width, padding in [ 5, 7, 2; 6, 4, 0; 3, 3, 4; 8, 8, 1 ] do
                  let split = split 9 height width
                  use _ = split.Images
                  let count = 40

                  let moves =
                      { Flip = numbers 1 count 2 |> Array.map ((=) 1)
                        Dy = numbers 2 count (2 * padding + 1)
                        Dx = numbers 3 count (2 * padding + 1) }

                  let indices = numbers 4 count 9
                  use batch = Augment.cropAndFlip padding moves split indices
                  Expect.equal batch.shape [| int64 count; 3L; int64 height; int64 width |] "shape"
                  Expect.equal (batch.data<float32>().ToArray()) (slow padding moves split indices) "values"
                  use plain = Augment.plain split indices

                  let still =
                      { Flip = Array.create count false
                        Dy = Array.zeroCreate count
                        Dx = Array.zeroCreate count }

                  Expect.equal (plain.data<float32>().ToArray()) (slow 0 still split indices) "plain"
          }

          test "one tensor is made, and bad draws are refused" {
              let split = split 3 4 4
              use _ = split.Images

              let moves =
                  { Flip = [| true |]
                    Dy = [| 4 |]
                    Dx = [| 0 |] }

              Expect.equal (left (fun () -> (Augment.cropAndFlip 2 moves split [| 2 |]).Dispose())) 0L "leak-free"

              let throws run =
                  Expect.throwsT<ArgumentException> run "refused"

              throws (fun () -> Augment.cropAndFlip 1 moves split [| 2 |] |> ignore)
              throws (fun () -> Augment.cropAndFlip 2 moves split [| 3 |] |> ignore)
              throws (fun () -> Augment.cropAndFlip 2 moves split [| 0; 1 |] |> ignore)
              throws (fun () -> Augment.plain split [| -1 |] |> ignore)
              use none = Augment.plain split Array.empty
              Expect.equal none.shape [| 0L; 3L; 4L; 4L |] "an empty batch"
          } ]

// Safetensors

let private small =
    { NetworkSettings.cifar10 with
        Width = Some 8
        Classes = 5 }

let same (a: torch.Tensor) (b: torch.Tensor) = bytesOf a = bytesOf b

let private sample () =
    [ "half", torch.tensor([| 1.5f; -2.0f |]).``to`` torch.float16
      "brain", torch.tensor([| 1.5f; -2.0f; 3.0f |]).``to`` torch.bfloat16
      "single", torch.tensor ([| 1.0f; 2.0f; 3.0f; 4.0f; 5.0f; 6.0f |], ReadOnlySpan [| 2L; 3L |])
      "turned", torch.tensor([| 1.0f; 2.0f; 3.0f; 4.0f; 5.0f; 6.0f |], ReadOnlySpan [| 2L; 3L |]).t()
      "double", torch.tensor 0.1
      "long", torch.tensor [| 1L; Int64.MaxValue |]
      "int", torch.tensor [| 7; -7 |]
      "byte", torch.tensor [| 255uy |]
      "bool", torch.tensor [| true; false; true |]
      "empty \"é\"", torch.zeros ([| 0L; 4L |]) ]

let file (header: string) (data: int) : byte[] =
    let text = Encoding.UTF8.GetBytes header
    Array.concat [ BitConverter.GetBytes(uint64 text.Length); text; Array.zeroCreate data ]

let private safetensors =
    let metadata = Map [ "a", "1"; "ü", "two\n" ]

    testList
        "safetensors"
        [ test "what is written is read, and equal contents are equal bytes" {
              inFolder (fun folder ->
                  use _ = torch.NewDisposeScope()
                  let path, other = Path.Combine(folder, "a"), Path.Combine(folder, "b")
                  let tensors = sample ()
                  Safetensors.write path metadata tensors
                  Safetensors.write other metadata (List.rev tensors)
                  Expect.equal (File.ReadAllBytes path) (File.ReadAllBytes other) "fixed order"
                  Expect.equal (Directory.GetFiles(folder).Length) 2 "no temporary files"
                  let bytes = File.ReadAllBytes path
                  Expect.equal (BitConverter.ToUInt64(bytes, 0) % 8UL) 0UL "aligned"
                  let read = Safetensors.read path
                  Expect.equal read.Metadata metadata "metadata"
                  let entries = dict read.Entries

                  for name, tensor in tensors do
                      Expect.equal entries[name].dtype tensor.dtype name
                      Expect.equal entries[name].shape tensor.shape name
                      Expect.isTrue (same (tensor.contiguous ()) entries[name]) name)
          }

          test "the header is the format's, byte for byte" {
              inFolder (fun folder ->
                  use _ = torch.NewDisposeScope()
                  let path = Path.Combine(folder, "a")

                  Safetensors.write
                      path
                      (Map [ "k", "v" ])
                      [ "b", torch.tensor [| 1uy |]; "a", torch.tensor [| 1.0f |] ]

                  let header =
                      """{"__metadata__":{"k":"v"},"""
                      + """"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"""
                      + """"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}"""

                  let padded = header.PadRight((header.Length + 7) / 8 * 8)
                  let data = [| 0uy; 0uy; 0x80uy; 0x3Fuy; 1uy |]
                  let expected = Array.append (file padded 0) data
                  Expect.equal (File.ReadAllBytes path) expected "bytes")
          }

          test "hostile headers are refused before anything is allocated" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "bad.safetensors")

                  let wrong words (bytes: byte[]) =
                      File.WriteAllBytes(path, bytes)
                      refused ("bad.safetensors" :: words) (fun () -> Safetensors.read path |> ignore)

                  let entry dtype shape offsets =
                      $"{{\"t\":{{\"dtype\":{dtype},\"shape\":{shape},\"data_offsets\":{offsets}}}}}"

                  let f32 = entry "\"F32\""

                  refused [ "nowhere"; "no such file" ] (fun () ->
                      Safetensors.read (Path.Combine(folder, "nowhere")) |> ignore)

                  refused [ folder ] (fun () -> Safetensors.read folder |> ignore)
                  wrong [ "0 bytes" ] Array.empty
                  wrong [ "longer than the file" ] (BitConverter.GetBytes UInt64.MaxValue)
                  wrong [ "longer than the file" ] (Array.append (BitConverter.GetBytes 100UL) (Array.zeroCreate 99))
                  wrong [ "not JSON" ] (file "" 0)
                  wrong [ "not JSON" ] (file "{\"t\":" 0)
                  wrong [ "not JSON" ] (file (String.replicate 5000 "[") 0)
                  wrong [ "'a?b'"; "no dtype" ] (file "{\"a\\nb\":{}}" 0)
                  wrong [ "no object" ] (file "[]" 0)
                  wrong [ "'t'"; "no object" ] (file "{\"t\":1}" 0)
                  wrong [ "'t'"; "no dtype" ] (file "{\"t\":{}}" 0)
                  wrong [ "'t'"; "\"F8\""; "BF16" ] (file (entry "\"F8\"" "[1]" "[0,4]") 4)
                  wrong [ "dtype 3" ] (file (entry "3" "[1]" "[0,4]") 4)
                  wrong [ "shape" ] (file (f32 "[-1]" "[0,4]") 4)
                  wrong [ "shape" ] (file (f32 "[1.5]" "[0,4]") 4)
                  wrong [ "shape" ] (file (f32 "7" "[0,4]") 4)
                  wrong [ "too large" ] (file (f32 "[4611686018427387904,4]" "[0,4]") 4)
                  wrong [ "too large" ] (file (f32 "[0,4611686018427387904,4]" "[0,0]") 0)
                  wrong [ "shape" ] (file (f32 "[99999999999999999999]" "[0,4]") 4)
                  wrong [ "65 numbers" ] (file (f32 ("[" + String.Join(",", Array.create 65 1) + "]") "[0,4]") 4)
                  wrong [ "do not fill" ] (file (f32 "[2]" "[0,4]") 4)
                  wrong [ "data_offsets" ] (file (f32 "[1]" "[4,0]") 4)
                  wrong [ "data_offsets" ] (file (f32 "[1]" "[0,4]") 3)
                  wrong [ "data_offsets" ] (file (f32 "[1]" "[0]") 4)
                  wrong [ "data_offsets" ] (file (f32 "[1099511627776]" "[0,4398046511104]") 4)
                  wrong [ "starts at byte 4" ] (file (f32 "[1]" "[4,8]") 8)
                  wrong [ "4 bytes of data, and it has 5" ] (file (f32 "[1]" "[0,4]") 5)
                  let twin = "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"
                  wrong [ "starts at byte 0" ] (file $"{{\"a\":{{{twin}}},\"b\":{{{twin}}}}}" 8)
                  wrong [ "not JSON" ] (file $"{{\"a\":{{{twin}}},\"a\":{{{twin}}}}}" 4)
                  wrong [ "__metadata__" ] (file "{\"__metadata__\":{\"a\":1}}" 0)
                  wrong [ "__metadata__" ] (file "{\"__metadata__\":[]}" 0)
                  wrong [ "BOOL" ] (Array.append (file (entry "\"BOOL\"" "[1]" "[0,1]") 0) [| 2uy |]))
          }

          test "a damaged file gives tensors or a UserError, nothing else, and leaks nothing" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "a")
                  Scope.value (fun () -> Safetensors.write path metadata (sample ()))
                  let sound = File.ReadAllBytes path
                  let bits = Key.stream (Key.ofSeed 11)
                  let mutable refusals = 0

                  let leaks =
                      left (fun () ->
                          for i in 1..400 do
                              let bytes = Array.copy sound

                              for _ in 0 .. bits.Below 3 do
                                  bytes[bits.Below bytes.Length] <- byte (bits.Below 256)

                              let cut = if i % 4 = 0 then bits.Below bytes.Length else bytes.Length
                              File.WriteAllBytes(path, Array.take cut bytes)

                              try
                                  Scope.value (fun () -> Safetensors.read path |> ignore)
                              with UserError _ ->
                                  refusals <- refusals + 1)

                  Expect.equal leaks 0L "leak-free"
                  Expect.isGreaterThan refusals 200 "most are refused")
          }

          test "a model's file brings back the model, and no other" {
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "model.safetensors")

                  let create name width seed =
                      Architectures.create name { small with Width = Some width } seed

                  let model, other = create "preact-resnet-18" 8 1UL, create "preact-resnet-18" 8 2UL
                  Model.save path metadata model
                  Expect.equal (Model.load path other) metadata "metadata"

                  for (name, a), (_, b) in List.zip (Model.state model) (Model.state other) do
                      Expect.isTrue (same a b) name

                  let wide = create "preact-resnet-18" 16 1UL
                  let deep = create "preact-resnet-34" 8 1UL
                  let held = Model.snapshot wide

                  refused [ path; "conv1.weight"; "[8,3,3,3]"; "[16,3,3,3]" ] (fun () ->
                      Model.load path wide |> ignore)

                  for (name, a), (_, b) in List.zip held (Model.state wide) do
                      Expect.isTrue (same a b) $"{name} unchanged"

                  refused [ path; "lacks"; "layer1.2" ] (fun () -> Model.load path deep |> ignore)
                  Model.save path Map.empty deep
                  refused [ path; "unknown"; "layer1.2" ] (fun () -> Model.load path model |> ignore)
                  held |> List.iter (fun (_, tensor) -> tensor.Dispose())

                  let throws run =
                      Expect.throwsT<ArgumentException> run "refused"

                  throws (fun () -> Safetensors.write path metadata [ "__metadata__", snd (Model.state model).Head ])
                  List.iter Model.dispose [ model; other; wide; deep ])
          } ]

let tests =
    testList "data and model" [ images; datasets; augmentation; safetensors ]
