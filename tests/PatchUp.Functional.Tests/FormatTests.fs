/// The layouts in which data sets are published: what is read, what is refused, and that no damage does anything else.
module PatchUp.Tests.FormatTests

open System
open System.Formats.Tar
open System.IO
open System.IO.Compression
open System.Text
open System.Text.Json
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.DataModelTests
open PatchUp.Tests.ReproTests
open SkiaSharp

// Files

let private fixture (name: string) =
    Path.Combine(AppContext.BaseDirectory, "fixtures", name)

/// Puts files into a folder, with the folders that they need.
let private put (folder: string) (files: (string * byte[]) list) =
    for name, bytes in files do
        let path = Path.Combine(folder, name)
        Directory.CreateDirectory(Path.GetDirectoryName path) |> ignore
        File.WriteAllBytes(path, bytes)

let private ascii (text: string) = Encoding.ASCII.GetBytes text

let private packed (wrap: MemoryStream -> #IO.Stream) (bytes: byte[]) =
    use memory = new MemoryStream()

    (use stream = wrap memory
     stream.Write bytes)

    memory.ToArray()

let private gzip =
    packed (fun memory -> new GZipStream(memory, CompressionLevel.Fastest, true))

let private zlib =
    packed (fun memory -> new ZLibStream(memory, CompressionLevel.Fastest, true))

let private tar (files: (string * byte[]) list) =
    use memory = new MemoryStream()

    (use tar = new TarWriter(memory, TarEntryFormat.Ustar, true)

     for name, bytes in files do
         tar.WriteEntry(UstarTarEntry(TarEntryType.RegularFile, name, DataStream = new MemoryStream(bytes))))

    memory.ToArray()

let private zip (files: (string * byte[]) list) =
    use memory = new MemoryStream()

    (use zip = new ZipArchive(memory, ZipArchiveMode.Create, true)

     for name, bytes in files do
         use stream = zip.CreateEntry(name).Open()
         stream.Write bytes)

    memory.ToArray()

let private noise (seed: int) (count: int) : byte[] =
    numbers seed count 256 |> Array.map byte

// Each layout, small

let private side = 32
let private area = 3 * side * side

let private cifar10 (perFile: int) : (string * byte[]) list =
    let records seed =
        [| for i in 0 .. perFile - 1 do
               yield byte ((seed + i) % 10)
               yield! noise (100 * seed + i) area |]

    [ for i in 1..5 do
          $"data_batch_{i}.bin", records i
      "test_batch.bin", records 6
      "batches.meta.txt", ascii (String.concat "\n" [ for i in 0..9 -> $"class {i}" ] + "\n\n") ]

let private cifar100 (perFile: int) : (string * byte[]) list =
    let records seed =
        [| for i in 0 .. perFile - 1 do
               yield 7uy
               yield byte (10 * seed + i)
               yield! noise (100 * seed + i) area |]

    [ "train.bin", records 1
      "test.bin", records 2
      "fine_label_names.txt", ascii (String.concat "\n" [ for i in 0..99 -> $"fine {i}" ]) ]

let private little (value: int) = BitConverter.GetBytes value

/// A MATLAB element with its padding.
let private element (kind: int) (bytes: byte[]) =
    Array.concat
        [ little kind
          little bytes.Length
          bytes
          Array.zeroCreate<byte>((8 - bytes.Length % 8) % 8) ]

/// A MATLAB matrix: its class, its sizes, the type of its values and their bytes.
let private matrix (name: string) (kind: int) (sizes: int list) (valueType: int) (values: byte[]) =
    Array.concat
        [ element 6 (Array.append (little kind) (little 0))
          element 5 (sizes |> List.map little |> Array.concat)
          // A name of up to four letters lies in its tag.
          Array.concat [ little (1 ||| (name.Length <<< 16)); ascii (name.PadRight(4, '\000')) ]
          element valueType values ]
    |> element 14

let private compressed (bytes: byte[]) =
    let bytes = zlib bytes
    Array.concat [ little 15; little bytes.Length; bytes ]

let private mat (elements: byte[] list) =
    Array.concat (Array.concat [ ascii (String(' ', 124)); [| 0uy; 1uy |]; "IM"B ] :: elements)

let private digits (count: int) (labels: byte list) =
    [ matrix "X" 9 [ side; side; 3; count ] 2 (noise 5 (count * area))
      matrix "y" 9 [ count; 1 ] 2 (Array.ofList labels) ]

let private svhn (train: byte[]) : (string * byte[]) list =
    [ "train_32x32.mat", train
      "test_32x32.mat", mat (digits 1 [ 10uy ] |> List.map compressed) ]

let private big (value: int) = Array.rev (little value)

/// An idx file of unsigned bytes.
let private idx (sizes: int list) (values: byte[]) =
    Array.concat
        [ [| 0uy; 0uy; 8uy; byte sizes.Length |]
          sizes |> List.map big |> Array.concat
          values ]

let private grey: byte[] = noise 8 (3 * 5 * 4)

let private mnist: (string * byte[]) list =
    [ "train-images-idx3-ubyte", idx [ 3; 5; 4 ] grey
      "train-labels-idx1-ubyte", idx [ 3 ] [| 2uy; 0uy; 9uy |]
      "t10k-images-idx3-ubyte", idx [ 1; 5; 4 ] (Array.take 20 grey)
      "t10k-labels-idx1-ubyte", idx [ 1 ] [| 1uy |] ]

let private allGzipped files =
    files |> List.map (fun (name, bytes) -> name + ".gz", gzip bytes)

let private jpeg (isGrey: bool) (seed: int) : byte[] =
    use bitmap =
        new SKBitmap(
            SKImageInfo(8, 8, (if isGrey then SKColorType.Gray8 else SKColorType.Rgba8888), SKAlphaType.Opaque)
        )

    for y in 0..7 do
        for x in 0..7 do
            let value = byte (8 * x + 20 * y + seed)

            bitmap.SetPixel(
                x,
                y,
                SKColor(value, (if isGrey then value else byte (9 * y)), (if isGrey then value else 80uy))
            )

    use data = bitmap.Encode(SKEncodedImageFormat.Jpeg, 90)
    data.ToArray()

/// Two classes, the second first in the list; of the training images, the last is grey.
let private tiny: (string * byte[]) list =
    [ "wnids.txt", ascii "n02\nn01\n"
      "words.txt", ascii "n00\tentity\nn01\tgoldfish, Carassius auratus\n"
      "val/val_annotations.txt", ascii "val_1.JPEG\tn02\t0\t0\t7\t7\nval_0.JPEG\tn01\t0\t0\t7\t7\n"
      "val/images/val_0.JPEG", jpeg false 1
      "val/images/val_1.JPEG", jpeg false 2
      "train/n01/images/n01_0.JPEG", jpeg false 3
      "train/n02/images/n02_0.JPEG", jpeg false 4
      "train/n02/images/n02_1.JPEG", jpeg true 5
      "train/n02/n02_boxes.txt", ascii "n02_0.JPEG\t0\t0\t7\t7\n"
      "test/images/test_0.JPEG", jpeg false 6 ]

let private npy (kind: string) (sizes: string) (bytes: byte[]) =
    let header =
        ascii $"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}\n"

    Array.concat
        [ [| 0x93uy |]
          "NUMPY"B
          [| 1uy; 0uy; byte header.Length; 0uy |]
          header
          bytes ]

let private arrays: (string * byte[]) list =
    [ "fog.npy", npy "|u1" "10, 4, 6, 3" (noise 9 (10 * 4 * 6 * 3))
      "labels.npy", npy "<i8" "10," (Array.concat [ for i in 0..9 -> BitConverter.GetBytes(int64 (i % 3)) ]) ]

let private folders: (string * byte[]) list =
    [ for corruption in [ "fog"; "snow" ] do
          for severity in [ 1; 3 ] do
              for id in [ "n01"; "n02" ] do
                  $"{corruption}/{severity}/{id}/a.JPEG", jpeg false (10 * severity) ]

/// One of the files is other.
let private having (name: string) (change: byte[] -> byte[]) (files: (string * byte[]) list) =
    Expect.isTrue (files |> List.exists (fst >> (=) name)) $"{name} is one of the files"

    files
    |> List.map (fun (each, bytes) -> each, (if each = name then change bytes else bytes))

let private lacking (name: string) (files: (string * byte[]) list) = files |> List.filter (fst >> (<>) name)

/// Looks at the data set at this path, and frees it.
let private reading (path: string) (look: Dataset -> 'a) : 'a =
    let dataset = Dataset.readWith None path

    try
        look dataset
    finally
        Dataset.dispose dataset

let private among (files: (string * byte[]) list) (look: Dataset -> 'a) : 'a =
    inFolder (fun folder ->
        put folder files
        reading folder look)

let private wrong (words: string list) (files: (string * byte[]) list) =
    inFolder (fun folder ->
        put folder files
        refused (folder :: words) (fun () -> Dataset.readWith None folder |> Dataset.dispose))

let private everything (dataset: Dataset) =
    dataset.Classes,
    dataset.Train.Labels,
    dataset.Test.Labels,
    bytesOf dataset.Train.Images,
    bytesOf dataset.Test.Images

// What others say is in the fixtures

let private expected =
    lazy (JsonDocument.Parse(File.ReadAllText(fixture "expected.json")))

/// Labels, means and probes of a file, which are the images of the split from `first` on.
let private agrees (file: string) (first: int) (split: Split) =
    let said = expected.Value.RootElement.GetProperty file

    let labels =
        [| for label in said.GetProperty("labels").EnumerateArray() -> label.GetInt32() |]

    Expect.equal (Array.sub split.Labels first labels.Length) labels $"{file}: labels"
    let shape = split.Images.shape |> Array.map int
    let area = shape[2] * shape[3]
    let bytes = bytesOf split.Images

    for probe in said.GetProperty("probes").EnumerateArray() do
        match [ for number in probe.EnumerateArray() -> number.GetInt32() ] with
        | [ image; channel; row; column; value ] ->
            let place = ((first + image) * 3 + channel) * area + row * shape[3] + column
            Expect.equal (int bytes[place]) value $"{file}: {probe}"
        | _ -> failtest "a probe has five numbers"

    match said.TryGetProperty "channel_means" with
    | true, means ->
        for channel, mean in Seq.indexed (means.EnumerateArray()) do
            let sum =
                Seq.sum (
                    seq {
                        for image in first .. first + labels.Length - 1 do
                            for i in 0 .. area - 1 do
                                float bytes[(image * 3 + channel) * area + i]
                    }
                )

            Expect.floatClose
                { absolute = 6e-5; relative = 0.0 }
                (sum / float (labels.Length * area))
                (mean.GetDouble())
                $"{file}: mean of channel {channel}"
    | _ -> ()

let private unpackInto (folder: string) (archive: string) =
    use stream = File.OpenRead(fixture archive)

    if archive.EndsWith ".gz" then
        use plain = new GZipStream(stream, CompressionMode.Decompress)
        TarFile.ExtractToDirectory(plain, folder, false)
    else
        TarFile.ExtractToDirectory(stream, folder, false)

let private published =
    testList
        "as published"
        [ for archive, folder, look in
              [ "cifar-10-binary.tar.gz",
                "cifar-10-batches-bin",
                fun (dataset: Dataset) ->
                    for i in 1..5 do
                        agrees $"cifar-10-batches-bin/data_batch_{i}.bin" (8 * (i - 1)) dataset.Train

                    agrees "cifar-10-batches-bin/test_batch.bin" 0 dataset.Test
                    Expect.equal dataset.Train.Images.shape [| 40L; 3L; 32L; 32L |] "train"
                    Expect.equal (dataset.Classes.Length, dataset.Classes[0]) (10, "airplane") "classes"
                "cifar-100-binary.tar.gz",
                "cifar-100-binary",
                fun dataset ->
                    agrees "cifar-100-binary/train.bin" 0 dataset.Train
                    agrees "cifar-100-binary/test.bin" 0 dataset.Test
                    Expect.equal dataset.Test.Images.shape [| 16L; 3L; 32L; 32L |] "test"
                    Expect.equal (dataset.Classes.Length, dataset.Classes[1]) (100, "aquarium_fish") "fine classes" ] do
              test
                  $"{folder}: an archive, its folder and the folder of either have the labels and pixels that others found" {
                  inFolder (fun here ->
                      reading (fixture archive) look
                      unpackInto here archive
                      reading here look
                      let root = Path.Combine(here, folder)
                      reading root look

                      Expect.equal
                          (reading root everything)
                          (reading (fixture archive) everything)
                          "folder and archive are the same"

                      // As a download leaves it.
                      let alone = Path.Combine(here, "alone")
                      Directory.CreateDirectory alone |> ignore
                      File.Copy(fixture archive, Path.Combine(alone, archive))
                      reading alone look
                      Expect.equal (left (fun () -> reading root ignore)) 0L "leak-free")
              }

          test "SVHN: MATLAB's order of axes is undone, and label 10 is digit 0" {
              let bytes = File.ReadAllBytes(fixture "svhn-test_32x32.mat")

              among [ "train_32x32.mat", bytes; "test_32x32.mat", bytes ] (fun dataset ->
                  Expect.equal dataset.Classes [| for i in 0..9 -> string i |] "classes"
                  Expect.equal dataset.Train.Images.shape [| 30L; 3L; 32L; 32L |] "shape"
                  agrees "svhn/test_32x32.mat" 0 dataset.Train
                  agrees "svhn/test_32x32.mat" 0 dataset.Test)
          }

          test "Tiny-ImageNet-C: each corruption and severity has the images that others found" {
              let said = expected.Value.RootElement.GetProperty "tiny-imagenet-c"

              let means =
                  Map
                      [ for each in said.GetProperty("files_and_means").EnumerateArray() ->
                            each[0].GetString(), each[1].GetDouble() ]

              let look (corrupted: Corrupted) =
                  Expect.equal
                      corrupted.Parts
                      [ "gaussian_noise", 1; "gaussian_noise", 5; "pixelate", 1; "pixelate", 5 ]
                      "parts"

                  Expect.equal corrupted.Classes [| "n01443537"; "n02056570"; "n02233338" |] "classes"

                  for corruption, severity in corrupted.Parts do
                      let split = corrupted.Load corruption severity
                      Expect.equal split.Labels [| 0; 0; 1; 1; 2; 2 |] "labels"

                      let files =
                          means.Keys
                          |> Seq.filter (fun name -> name.StartsWith $"tiny-imagenet-c/{corruption}/{severity}/")
                          |> Seq.sortWith (fun a b -> String.CompareOrdinal(a, b))

                      for name, pixels in Seq.zip files (bytesOf split.Images |> Array.chunkBySize (3 * 64 * 64)) do
                          // Decoders of JPEG differ by a rounding.
                          Expect.floatClose
                              { absolute = 0.3; relative = 0.0 }
                              (Array.averageBy float pixels)
                              means[name]
                              name

                      Split.dispose split

                  refused [ "no corruption 'fog' of severity 1"; "pixelate" ] (fun () ->
                      corrupted.Load "fog" 1 |> ignore)

              inFolder (fun here ->
                  unpackInto here "tiny-imagenet-c.tar"

                  for path in [ fixture "tiny-imagenet-c.tar"; here; Path.Combine(here, "tiny-imagenet-c") ] do
                      Expect.isSome (Corrupted.tryUsing path look) path

                      refused [ path; "corrupted test images" ] (fun () -> Dataset.readWith None path |> ignore))
          } ]

// Layouts that the tests write

let private written =
    testList
        "layouts"
        [ test "CIFAR: what is wrong is said in a line that names it" {
              let wrong words files = wrong words files
              wrong [ "data_batch_3.bin"; "lacks" ] (lacking "data_batch_3.bin" (cifar10 1))
              wrong [ "batches.meta.txt"; "lacks" ] (lacking "batches.meta.txt" (cifar10 1))
              wrong [ "data_batch_2.bin"; "3072 bytes"; "3073" ] (cifar10 1 |> having "data_batch_2.bin" (Array.skip 1))
              wrong [ "test_batch.bin"; "0 bytes" ] (cifar10 1 |> having "test_batch.bin" (fun _ -> Array.empty))

              wrong
                  [ "record 1 of data_batch_4.bin"; "label 10"; "0 .. 9" ]
                  (cifar10 2
                   |> having "data_batch_4.bin" (fun bytes -> Array.updateAt 3073 10uy bytes))

              wrong
                  [ "batches.meta.txt"; "names 9 classes" ]
                  (cifar10 1 |> having "batches.meta.txt" (Array.skip ("class 0\n".Length)))

              wrong [ "record 0 of train.bin"; "label 100" ] (cifar100 1 |> having "train.bin" (Array.updateAt 1 100uy))
              wrong [ "test.bin"; "3074" ] (cifar100 1 |> having "test.bin" (Array.append [| 0uy |]))

              inFolder (fun folder ->
                  put folder [ for name, bytes in cifar10 1 -> "a/" + name, bytes ]
                  put folder [ for name, bytes in mnist -> "b/" + name, bytes ]

                  refused [ "more than one data set (a, b)" ] (fun () -> Dataset.readWith None folder |> ignore))
          }

          test "MATLAB files with and without compression, and of doubles, are the same; others are refused" {
              let labels = [ 10uy; 3uy ]
              let plain = digits 2 labels

              let doubles =
                  [ plain[0]
                    matrix "y" 6 [ 2; 1 ] 9 (labels |> List.map (float >> BitConverter.GetBytes) |> Array.concat) ]

              let read elements = among (svhn (mat elements)) everything

              let first = read plain
              let _, train, test, _, _ = first
              Expect.equal (train, test) ([| 0; 3 |], [| 0 |]) "labels"
              Expect.equal (read (List.map compressed plain)) first "compressed"
              Expect.equal (read (List.rev plain)) first "in another order"
              Expect.equal (read doubles) first "doubles"

              let wrong words elements =
                  wrong ("train_32x32.mat" :: words) (svhn (mat elements))

              wrong [ "no array 'y'" ] [ plain[0] ]
              wrong [ "no array 'X', or several" ] [ plain[0]; plain[0]; plain[1] ]
              wrong [ "label 0"; "1 .. 10" ] (digits 2 [ 0uy; 1uy ])
              wrong [ "label 11" ] (digits 2 [ 1uy; 11uy ])
              wrong [ "y is 3x1"; "2 images" ] [ plain[0]; matrix "y" 9 [ 3; 1 ] 2 [| 1uy; 1uy; 1uy |] ]
              wrong [ "X is 32x32x1x2" ] [ matrix "X" 9 [ 32; 32; 1; 2 ] 2 (noise 1 2048); plain[1] ]
              wrong [ "'y' has 2 values"; "3" ] [ plain[0]; matrix "y" 9 [ 3; 1 ] 2 [| 1uy; 1uy |] ]
              wrong [ "'y' has a size of -1" ] [ plain[0]; matrix "y" 9 [ -1; 1 ] 2 [| 1uy |] ]

              wrong
                  [ "'y' has a size of 2147483647" ]
                  [ plain[0]; matrix "y" 9 [ Int32.MaxValue; Int32.MaxValue ] 2 [| 1uy |] ]

              wrong [ "value of 0.5" ] [ plain[0]; matrix "y" 6 [ 1; 1 ] 9 (BitConverter.GetBytes 0.5) ]
              wrong [ "no real array" ] [ plain[0]; matrix "y" 4 [ 2; 1 ] 2 [| 1uy; 1uy |] ]
              // A few bytes that claim to make two gigabytes.
              wrong
                  [ "claim to make" ]
                  [ plain[0]
                    compressed (Array.concat [ little 14; little Int32.MaxValue; little 0 ]) ]

              let bytes = mat plain

              for words, bytes in
                  [ [ "version 7.3"; "-v7" ], Array.updateAt 125 2uy bytes
                    [ "big-endian" ], bytes |> Array.updateAt 126 'M'B |> Array.updateAt 127 'I'B
                    [ "no MATLAB file" ], Array.updateAt 126 0uy bytes
                    [ "cut short" ], Array.take 60 bytes
                    [ "cut short" ], Array.take (bytes.Length - 1) bytes ] do
                  refused ("train_32x32.mat" :: words) (fun () -> among (svhn bytes) ignore)
          }

          test "idx files: grey becomes three equal channels, and .gz is the same" {
              let look (dataset: Dataset) =
                  Expect.equal dataset.Train.Images.shape [| 3L; 3L; 5L; 4L |] "shape"
                  Expect.equal (dataset.Train.Labels, dataset.Test.Labels) ([| 2; 0; 9 |], [| 1 |]) "labels"

                  Expect.equal
                      (bytesOf dataset.Train.Images)
                      (Array.chunkBySize 20 grey
                       |> Array.collect (fun image -> Array.concat [ image; image; image ]))
                      "pixels"

                  dataset.Classes[9]

              let below top files =
                  files |> List.map (fun (name, bytes) -> $"{top}/{name}", bytes)

              Expect.equal (among mnist look) "9" "digits"
              Expect.equal (among (allGzipped mnist) look) "9" "gzip"
              Expect.equal (among (below "Fashion-MNIST" (allGzipped mnist)) look) "Ankle boot" "clothes"
              let images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"

              for mnist, ending in [ mnist, ""; allGzipped mnist, ".gz" ] do
                  let other name bytes =
                      mnist
                      |> having (name + ending) (fun _ -> if ending = "" then bytes else gzip bytes)

                  wrong [ "3 images and"; "2 labels" ] (other labels (idx [ 2 ] [| 1uy; 1uy |]))
                  wrong [ images; "more bytes than images" ] (other images (idx [ 2; 5; 4 ] grey))
                  wrong [ images; "cut short" ] (other images (idx [ 3; 5; 4 ] (Array.skip 1 grey)))
                  wrong [ images; "more images than bytes" ] (other images (idx [ -1; -1; -1 ] grey))
                  wrong [ images; "another kind of file" ] (other images (idx [ 60 ] grey))
                  wrong [ images; "no pixels" ] (other images (idx [ 3; 0; 4 ] Array.empty))
                  wrong [ "lacks " + labels ] (lacking (labels + ending) mnist)
          }

          test "Tiny-ImageNet: classes are sorted, the validation images are the test set, grey is three equal channels" {
              let look (dataset: Dataset) =
                  Expect.equal dataset.Classes [| "n01 goldfish"; "n02" |] "WNID, and the first name where there is one"
                  Expect.equal dataset.Train.Labels [| 0; 1; 1 |] "train"
                  Expect.equal dataset.Test.Labels [| 1; 0 |] "in the annotations' order"

                  let planes names =
                      names
                      |> List.map (fun name -> (Images.decode name (List.find (fst >> (=) name) tiny |> snd)).Planes)
                      |> Array.concat

                  Expect.equal
                      (bytesOf dataset.Test.Images)
                      (planes [ "val/images/val_1.JPEG"; "val/images/val_0.JPEG" ])
                      "test"

                  let train = bytesOf dataset.Train.Images

                  Expect.equal
                      train
                      (planes
                          [ "train/n01/images/n01_0.JPEG"
                            "train/n02/images/n02_0.JPEG"
                            "train/n02/images/n02_1.JPEG" ])
                      "train"

                  let channels image =
                      Array.sub train (image * 192) 192 |> Array.chunkBySize 64

                  let coloured, grey = channels 1, channels 2
                  Expect.equal (grey[1], grey[2]) (grey[0], grey[0]) "grey"
                  Expect.notEqual coloured[0] coloured[1] "colour"

              among tiny look

              inFolder (fun folder ->
                  let below =
                      tiny |> List.map (fun (name, bytes) -> "tiny-imagenet-200/" + name, bytes)

                  for name, bytes in
                      [ "a.zip", zip below
                        "a.tar", tar below
                        "a.tgz", gzip (tar below)
                        "b.zip", zip tiny ] do
                      put folder [ name, bytes ]
                      reading (Path.Combine(folder, name)) look

                  let path = Path.Combine(folder, "a.zip")
                  let cache = Path.Combine(folder, "cache")

                  for _ in 1..2 do
                      let dataset = Dataset.readWith (Some cache) path
                      look dataset
                      Expect.equal dataset.Name "a" "the name"
                      Dataset.dispose dataset

                  Expect.equal (Directory.GetFiles cache).Length 1 "a decoded copy")

              let annotations = "val/val_annotations.txt"
              let text (text: string) = fun (_: byte[]) -> ascii text
              wrong [ "lacks the class train/n02" ] (tiny |> having "wnids.txt" (text "n01\n"))
              wrong [ "n01 twice" ] (tiny |> having "wnids.txt" (text "n01\nn01\nn02"))
              wrong [ "names no class" ] (tiny |> having "wnids.txt" (text " \n"))

              wrong
                  [ "train/n02/images has no *.JPEG" ]
                  (tiny
                   |> lacking "train/n02/images/n02_0.JPEG"
                   |> lacking "train/n02/images/n02_1.JPEG")

              wrong [ annotations; "'val_9.JPEG'" ] (tiny |> having annotations (text "val_9.JPEG\tn01"))
              wrong [ annotations; "'../../wnids.txt'" ] (tiny |> having annotations (text "../../wnids.txt\tn01"))

              wrong
                  [ annotations; "'val_0.JPEG' twice" ]
                  (tiny |> having annotations (text "val_0.JPEG\tn01\nval_0.JPEG\tn01"))

              wrong
                  [ annotations; "lacks 1 images"; "val_1.JPEG" ]
                  (tiny |> having annotations (text "val_0.JPEG\tn01"))

              wrong [ annotations; "n09" ] (tiny |> having annotations (text "val_0.JPEG\tn09"))
              wrong [ annotations; "names no image" ] (tiny |> having annotations (text "\n"))

              wrong
                  [ "val/images/val_0.JPEG"; "corrupt" ]
                  (tiny
                   |> having "val/images/val_0.JPEG" (fun bytes -> Array.take (bytes.Length - 8) bytes))
          }

          test "NumPy files: five severities one after the other" {
              let look (corrupted: Corrupted) =
                  Expect.equal corrupted.Parts [ for severity in 1..5 -> "fog", severity ] "parts"
                  Expect.equal corrupted.Classes [| "0"; "1"; "2" |] "classes"
                  let values = noise 9 (10 * 4 * 6 * 3)

                  for severity in 1..5 do
                      let split = corrupted.Load "fog" severity
                      let first = 2 * (severity - 1)
                      Expect.equal split.Labels [| first % 3; (first + 1) % 3 |] "labels"
                      Expect.equal split.Images.shape [| 2L; 3L; 4L; 6L |] "shape"

                      let pixels =
                          [| for image in first .. first + 1 do
                                 for channel in 0..2 do
                                     for i in 0..23 -> values[(image * 24 + i) * 3 + channel] |]

                      Expect.equal (bytesOf split.Images) pixels "pixels"
                      Split.dispose split

              inFolder (fun folder ->
                  put folder arrays
                  Expect.isSome (Corrupted.tryUsing folder look) "folder"
                  put folder [ "x/CIFAR-10-C.tar", tar [ for name, bytes in arrays -> "CIFAR-10-C/" + name, bytes ] ]
                  Expect.isSome (Corrupted.tryUsing (Path.Combine(folder, "x")) look) "archive"
                  refused [ "corrupted test images" ] (fun () -> Dataset.readWith None folder |> ignore))

              let wrong words files =
                  inFolder (fun folder ->
                      put folder files
                      refused (folder :: words) (fun () -> DataCheck.path false folder |> ignore))

              let other name kind sizes count =
                  arrays |> having name (fun _ -> npy kind sizes (noise 3 count))

              wrong [ "labels.npy has 9 labels" ] (other "labels.npy" "|u1" "9," 9)
              wrong [ "labels.npy"; "no list" ] (other "labels.npy" "|u1" "2, 5" 10)
              wrong [ "labels.npy"; "label 0 is" ] (other "labels.npy" "<i8" "10," 80)
              wrong [ "fog.npy"; "|u1 of 5x4x6x3"; "10 labels" ] (other "fog.npy" "|u1" "5, 4, 6, 3" 360)
              wrong [ "fog.npy"; "10x72" ] (other "fog.npy" "|u1" "10, 72" 720)
              wrong [ "fog.npy"; "ask for 720 bytes and it has 719" ] (other "fog.npy" "|u1" "10, 4, 6, 3" 719)
              wrong [ "fog.npy"; "the type <f4" ] (other "fog.npy" "<f4" "10, 4, 6, 3" 2880)
              wrong [ "fog.npy"; "no NumPy file" ] (arrays |> having "fog.npy" (Array.updateAt 6 2uy))
          }

          test "folders of corruptions have the same classes everywhere; class folders named by numbers are none" {
              let check files look =
                  inFolder (fun folder ->
                      put folder files
                      look folder)

              let wrong words files =
                  check files (fun folder ->
                      refused (folder :: words) (fun () -> DataCheck.path false folder |> ignore))

              check folders (fun folder ->
                  let found = DataCheck.path false folder

                  Expect.equal (found.Sets |> List.map _.Set) [ "fog 1"; "fog 3"; "snow 1"; "snow 3" ] "sets"
                  Expect.equal (left (fun () -> DataCheck.path false folder |> ignore)) 0L "leak-free")

              wrong [ "snow/3 has other class folders than fog/1" ] (lacking "snow/3/n02/a.JPEG" folders)

              wrong
                  [ "snow/3/n02 holds no image" ]
                  (folders
                   |> lacking "snow/3/n02/a.JPEG"
                   |> List.append [ "snow/3/n02/a.txt", [||] ])

              wrong [ "snow/1/n01/a.JPEG"; "not a JPEG" ] (folders |> having "snow/1/n01/a.JPEG" (fun _ -> [| 1uy |]))

              let numbered =
                  [ for set in [ "train"; "test" ] do
                        for name in [ "1"; "2" ] do
                            $"{set}/{name}/a.jpg", jpeg false 1 ]

              Expect.equal (among numbered _.Classes) [| "1"; "2" |] "class folders"
          } ]

// patchup data check

let private checking =
    testList
        "data check"
        [ test "tables: counts by class and set, the paper's normalisation beside the measured one" {
              let out, _ = succeed [ "data"; "check"; fixture "cifar-10-binary.tar.gz" ]

              for line in
                  [ "CIFAR-10, the binary version; 10 classes, images of 32 x 32"
                    "train  40      1                 4       7"
                    "test   40      4                 4       4"
                    "truck       7      4"
                    "train: far from the median are"
                    "used for CIFAR-10  0.4914  0.4824  0.4467  0.2471  0.2435  0.2616  125.3  123.0  113.9  63.0  62.1  66.7"
                    "test               0.4891  0.4858  0.4456"
                    "124.7  123.9  113.6"
                    "50,000 training and 10,000 test images; here are 40 and 40"
                    "mirrored at random, padded by 2 and cropped to 32 x 32"
                    "fingerprint " ] do
                  Expect.stringContains out line "a line"

              // More than 20 classes are not listed.
              let out, _ = succeed [ "data"; "check"; fixture "cifar-100-binary.tar.gz" ]
              Expect.isFalse (out.Contains "aquarium_fish  ") "no table of classes"
              let out, _ = succeed [ "data"; "check"; fixture "tiny-imagenet-c.tar" ]
              Expect.stringContains out "gaussian_noise 5  6       2                 2       2" "a corruption"
          }

          test "JSON: the mean and the deviation are those of all pixels" {
              inFolder (fun folder ->
                  let images = [| 0uy; 255uy; 51uy; 102uy |]

                  put
                      folder
                      [ "train-images-idx3-ubyte", idx [ 2; 1; 2 ] images
                        "train-labels-idx1-ubyte", idx [ 2 ] [| 0uy; 1uy |]
                        "t10k-images-idx3-ubyte", idx [ 1; 1; 2 ] [| 255uy; 255uy |]
                        "t10k-labels-idx1-ubyte", idx [ 1 ] [| 1uy |] ]

                  let out, _ = succeed [ "data"; "check"; folder; "--json" ]

                  match Json.tryRead<DataCheck> out with
                  | None -> failtest "it is JSON"
                  | Some check ->
                      Expect.equal (check.Classes, check.Height, check.Width) (2, 1, 2) "sizes"
                      Expect.equal check.Published None "no experiment of the paper's"
                      let train, test = check.Sets[0], check.Sets[1]

                      Expect.equal
                          test.Classes
                          (Some [ { Class = "0"; Images = 0 }; { Class = "1"; Images = 1 } ])
                          "counts"

                      Expect.equal (test.Least, test.Median, test.Most) (0, 0.5, 1) "the range"
                      Expect.equal test.Outliers [ { Class = "0"; Images = 0 } ] "outliers"
                      let close = Expect.floatClose { absolute = 1e-12; relative = 0.0 }

                      for channel in 0..2 do
                          // Of 0, 1, 0.2 and 0.4: mean 0.4, mean square 0.3.
                          close train.Mean[channel] 0.4 "mean"
                          close train.Std[channel] (sqrt 0.14) "deviation"
                          close test.Mean[channel] 1.0 "mean"
                          close test.Std[channel] 0.0 "deviation")
          }

          test "the paper's settings" {
              for preset, mean, std, flip, padding, size, train, test in
                  [ DataPreset.cifar10, [ 125.3; 123.0; 113.9 ], [ 63.0; 62.1; 66.7 ], true, 2, 32, 50000, 10000
                    DataPreset.cifar100, [ 129.3; 124.1; 112.4 ], [ 68.2; 65.4; 70.4 ], true, 2, 32, 50000, 10000
                    DataPreset.svhn, [ 127.5; 127.5; 127.5 ], [ 127.5; 127.5; 127.5 ], false, 2, 32, 73257, 26032
                    DataPreset.tinyImageNet,
                    [ 127.5; 127.5; 127.5 ],
                    [ 127.5; 127.5; 127.5 ],
                    true,
                    4,
                    64,
                    100000,
                    10000 ] do
                  let scaled = List.map (fun value -> value / 255.0)
                  Expect.equal (preset.Mean, preset.Std) (scaled mean, scaled std) $"{preset.Name}: normalisation"
                  Expect.equal (preset.IsFlipped, preset.CropPadding) (flip, padding) $"{preset.Name}: augmentation"
                  Expect.equal (preset.Size, preset.Train, preset.Test) (size, train, test) $"{preset.Name}: sizes"
          }

          test "what is wrong is one line and exit code 2" {
              inFolder (fun folder ->
                  let damaged = Path.Combine(folder, "damaged")
                  put damaged (cifar10 1 |> having "data_batch_2.bin" (Array.skip 1))
                  let empty = Path.Combine(folder, "empty")
                  Directory.CreateDirectory empty |> ignore

                  for arguments, words in
                      [ [ "data" ], [ "a word is needed: fetch, check" ]
                        [ "data"; "chekc" ], [ "'chekc'"; "check" ]
                        [ "data"; "check" ], [ "<path>" ]
                        [ "data"; "check"; Path.Combine(folder, "nowhere") ], [ "nowhere"; "no such file" ]
                        [ "data"; "check"; damaged ], [ "data_batch_2.bin"; "3072 bytes" ]
                        [ "data"; "check"; empty ],
                        [ "the layouts are train/CLASS/*.jpg"
                          "data_batch_1.bin"
                          "train.bin"
                          "train_32x32.mat"
                          "train-images-idx3-ubyte"
                          "wnids.txt" ] ] do
                      let code, out, err = patchup arguments
                      Expect.equal (code, out) (2, "") $"{arguments}"
                      Expect.equal (err.TrimEnd().Split('\n').Length) 1 "one line"

                      for word in words do
                          Expect.stringContains err word $"{arguments}")

              let out, _ = succeed [ "data"; "--help" ]
              Expect.stringContains out "patchup data check" "help"
          }

          test "train takes them" {
              inFolder (fun folder ->
                  let bytes = File.ReadAllBytes(fixture "svhn-test_32x32.mat")
                  let data = Path.Combine(folder, "svhn")
                  put data [ "train_32x32.mat", bytes; "test_32x32.mat", bytes ]

                  succeed
                      [ "train"
                        "--data"
                        data
                        "--out"
                        Path.Combine(folder, "out")
                        "--width"
                        "1"
                        "--epochs"
                        "1"
                        "--train-per-class"
                        "3"
                        "--test-per-class"
                        "2"
                        "--batch-size"
                        "20" ]
                  |> ignore)
          } ]

// Damage

/// Bytes flipped, a part cut out, doubled or overwritten, a number made huge, or the end lost: one to three times.
let private mutate (bits: Stream) (bytes: byte[]) : byte[] =
    let once (bytes: byte[]) =
        if bytes.Length = 0 then
            [| byte (bits.Below 256) |]
        else
            let place = bits.Below bytes.Length
            let count = 1 + bits.Below(min 16 (bytes.Length - place))

            match bits.Below 7 with
            | 0 -> Array.updateAt place (bytes[place] ^^^ byte (1 <<< bits.Below 8)) bytes
            | 1 -> Array.updateAt place (byte (bits.Below 256)) bytes
            | 2 -> Array.take place bytes
            | 3 -> Array.removeManyAt place count bytes
            | 4 -> Array.insertManyAt place (Array.sub bytes place count) bytes
            | 5 ->
                let value = [| 0uy; 1uy; 127uy; 128uy; 255uy |][bits.Below 5]

                bytes
                |> Array.mapi (fun i old -> if i >= place && i < place + count then value else old)
            | _ ->
                // In the first bytes, where headers are.
                let place = bits.Below(min 200 bytes.Length)
                Array.updateAt place (byte (bits.Below 256)) bytes

    Seq.fold (fun bytes _ -> once bytes) bytes (seq { 0 .. bits.Below 3 })

let private inputs = 500

/// Reads `inputs` damaged copies of these files through `read`: all is well, or a UserError; not more memory than `most`
/// bytes for one of them, and none left behind.
let private survives
    (seed: int)
    (files: (string * byte[]) list)
    (damage: Stream -> byte[] -> byte[])
    (read: string -> unit)
    =
    let bits = Key.stream (Key.ofSeed seed)

    inFolder (fun folder ->
        let whole = Path.Combine(folder, "data")
        put whole files
        read whole
        let mutable refusals = 0

        let leaks =
            left (fun () ->
                for number in 1..inputs do
                    let name, bytes = files[bits.Below files.Length]
                    let path = Path.Combine(whole, name)
                    let damaged = damage bits bytes
                    File.WriteAllBytes(path, damaged)
                    let allocated = GC.GetTotalAllocatedBytes false

                    try
                        read whole
                    with
                    | UserError message ->
                        refusals <- refusals + 1
                        Expect.isFalse (message.Contains '\n') "one line"
                    | error -> failtest $"input {number}, {name}: {error}"

                    let used = GC.GetTotalAllocatedBytes false - allocated
                    Expect.isLessThan used (1L <<< 28) $"input {number}, {name}: memory"
                    File.WriteAllBytes(path, bytes))

        Expect.equal leaks 0L "no tensor stays behind"
        Expect.isGreaterThan refusals (inputs / 10) "damage is seen")

let private dataset (path: string) =
    Dataset.readWith None path |> Dataset.dispose

let private check (path: string) = DataCheck.path false path |> ignore

let private fuzzing =
    let inside (pack: byte[] -> byte[]) (unpack: byte[] -> byte[]) (bits: Stream) (bytes: byte[]) =
        pack (mutate bits (unpack bytes))

    let unzipped (bytes: byte[]) =
        use plain = new GZipStream(new MemoryStream(bytes), CompressionMode.Decompress)
        use memory = new MemoryStream()
        plain.CopyTo memory
        memory.ToArray()

    let archive name bytes = [ name, bytes ]
    let small = digits 1 [ 3uy ]

    /// The elements are damaged before they are compressed.
    let recompressed (bits: Stream) (_: byte[]) =
        let damaged = bits.Below small.Length

        small
        |> List.mapi (fun i bytes -> compressed (if i = damaged then mutate bits bytes else bytes))
        |> mat

    testList
        "damage"
        [ for name, files, damage, read in
              [ "CIFAR-10", cifar10 1, mutate, dataset
                "CIFAR-100", cifar100 1, mutate, dataset
                "MATLAB", svhn (mat small), mutate, dataset
                "compressed MATLAB", svhn (mat (List.map compressed small)), mutate, dataset
                "MATLAB before compression", svhn (mat small), recompressed, dataset
                "idx", mnist, mutate, dataset
                "compressed idx", allGzipped mnist, mutate, dataset
                "idx before compression", allGzipped mnist, inside gzip unzipped, dataset
                "Tiny-ImageNet", tiny, mutate, dataset
                "NumPy", arrays, mutate, check
                "corrupted images", folders, mutate, check
                "tar", archive "a.tar" (tar tiny), mutate, dataset
                "tar before compression", archive "a.tgz" (gzip (tar tiny)), inside gzip unzipped, dataset
                "zip", archive "a.zip" (zip tiny), mutate, dataset ] do
              test $"{name}: {inputs} damaged inputs are read or refused" {
                  survives (int (Encoding.ASCII.GetBytes name |> Array.sumBy int)) files damage read
              } ]

let tests = testList "formats" [ published; written; checking; fuzzing ]
