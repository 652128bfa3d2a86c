/// What stays the same when data and runs move: the fingerprint of a folder, and what is kept of where a run was.
module PatchUp.Tests.IdentityTests

open System
open System.IO
open System.Threading
open System.Threading.Tasks
open Expecto
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Tests.DataModelTests
open PatchUp.Tests.ReproTests

let private fixture (name: string) =
    Path.Combine(AppContext.BaseDirectory, "fixtures", name)

/// Copies a folder with other times, files last to first.
let private copy (from: string) (into: string) =
    for path in
        Directory.GetFiles(from, "*", SearchOption.AllDirectories)
        |> Array.sort
        |> Array.rev do
        let target = Path.Combine(into, Path.GetRelativePath(from, path))
        Directory.CreateDirectory(Path.GetDirectoryName target) |> ignore
        File.Copy(path, target)
        File.SetLastWriteTimeUtc(target, DateTime(2001, 2, 3, 4, 5, 6, DateTimeKind.Utc))

let private look (reading: Reading) (path: string) (check: Dataset -> 'a) : 'a =
    let dataset = Dataset.readAs reading path

    try
        check dataset
    finally
        Dataset.dispose dataset

let private uncached = { Dataset.reading () with Cache = None }
let private fingerprint (path: string) = look uncached path _.Fingerprint

/// Copies as they are kept of everything, of which nothing may be amiss.
let private keeping (folder: string) =
    { Cache = Some folder
      CachesAll = true
      Extra = false
      Warn = failtest }

/// Other contents of a file, of the same size and time.
let private forge (path: string) (change: byte[] -> byte[]) =
    let time = File.GetLastWriteTimeUtc path
    File.WriteAllBytes(path, change (File.ReadAllBytes path))
    File.SetLastWriteTimeUtc(path, time)

let private lastBit (bytes: byte[]) =
    Array.append bytes[.. bytes.Length - 2] [| bytes[bytes.Length - 1] ^^^ 1uy |]

let private svhn (folder: string) =
    Directory.CreateDirectory folder |> ignore

    for name in [ "train"; "test" ] do
        File.Copy(fixture "svhn-test_32x32.mat", Path.Combine(folder, $"{name}_32x32.mat"))

let private folders =
    testList
        "folders"
        [ testCase "a copy elsewhere is the same data set; another name or byte in it is another" (fun () ->
              inFolder (fun folder ->
                  let here, there = Path.Combine(folder, "a", "set"), Path.Combine(folder, "b", "set")
                  EngineTests.writeImages here |> ignore
                  copy here there
                  let expected = fingerprint here
                  Expect.equal (fingerprint there) expected "elsewhere"
                  Expect.equal (fingerprint (Path.Combine(folder, "b"))) expected "below a top folder"
                  // What is not read does not matter.
                  File.WriteAllText(Path.Combine(there, "train", "notes.txt"), "of no class")
                  Expect.equal (fingerprint there) expected "a note beside"

                  let first =
                      Directory.GetFiles(Path.Combine(there, "train"), "*.png", SearchOption.AllDirectories)
                      |> Array.sort
                      |> Array.head

                  // Past the end of the picture, so that the pixels stay.
                  File.AppendAllText(first, " ")
                  let longer = fingerprint there
                  Expect.notEqual longer expected "a byte more"
                  forge first lastBit
                  let changed = fingerprint there

                  Expect.isFalse
                      (List.contains changed [ expected; longer ])
                      "another byte, size and time as they were"

                  forge first lastBit
                  Expect.equal (fingerprint there) longer "the byte is back"
                  let bytes = File.ReadAllBytes first
                  File.WriteAllBytes(first, bytes[.. bytes.Length - 2])
                  Expect.equal (fingerprint there) expected "and whole again"
                  File.Move(first, Path.ChangeExtension(first, ".PNG"))
                  Expect.notEqual (fingerprint there) expected "another name"))

          testCase "so it is with a published layout, and with corrupted images" (fun () ->
              inFolder (fun folder ->
                  let here, there =
                      Path.Combine(folder, "a", "svhn"), Path.Combine(folder, "b", "svhn")

                  svhn here
                  copy here there
                  let expected = fingerprint here
                  Expect.equal (fingerprint there) expected "elsewhere"
                  File.WriteAllText(Path.Combine(there, "extra_32x32.mat"), "")
                  Expect.equal (fingerprint there) expected "what is not read"
                  File.AppendAllText(Path.Combine(there, "more.txt"), "")
                  Expect.notEqual (fingerprint there) expected "another file of the layout's folder"

                  let corrupted path = (DataCheck.path false path).Fingerprint

                  let here, there = Path.Combine(folder, "c"), Path.Combine(folder, "d")
                  Directory.CreateDirectory here |> ignore
                  Formats.Tar.TarFile.ExtractToDirectory(fixture "tiny-imagenet-c.tar", here, false)
                  copy here there
                  Expect.equal (corrupted there) (corrupted here) "corrupted images"
                  let some = Directory.GetFiles(there, "*.JPEG", SearchOption.AllDirectories)
                  File.AppendAllText(some[0], " ")
                  Expect.notEqual (corrupted there) (corrupted here) "a byte more"))

          testCase "a decoded copy says the fingerprint, is found without it, and is each folder's own" (fun () ->
              inFolder (fun folder ->
                  let cache = Path.Combine(folder, "cache")
                  let here, there = Path.Combine(folder, "a", "set"), Path.Combine(folder, "b", "set")
                  EngineTests.writeImages here |> ignore
                  copy here there
                  let expected = fingerprint here
                  let cached path = look (keeping cache) path _.Fingerprint
                  Expect.equal (cached here) expected "with a new copy"
                  let stored = Directory.GetFiles cache |> Array.exactlyOne
                  let bytes = File.ReadAllBytes stored
                  Expect.equal (cached here) expected "from the copy"
                  Expect.equal (cached there) expected "elsewhere"
                  Expect.hasLength (Directory.GetFiles cache) 2 "a copy for each place"

                  // Whoever reads the copy reads no image: nobody can read this one.
                  let image =
                      (Directory.GetFiles(Path.Combine(here, "train"), "*.png", SearchOption.AllDirectories))[0]

                  (use _ = new FileStream(image, FileMode.Open, FileAccess.Read, FileShare.None)
                   refused [ image ] (fun () -> fingerprint here |> ignore)
                   Expect.equal (cached here) expected "without a look into the images")

                  // The checksum is of the fingerprint too.
                  let other = String('0', 64)
                  let text = Text.Encoding.Latin1.GetString(bytes).Replace(expected, other)
                  Expect.stringContains text other "the copy says it"
                  File.WriteAllBytes(stored, Text.Encoding.Latin1.GetBytes text)
                  let told = ResizeArray<string>()
                  let reading = { keeping cache with Warn = told.Add }
                  Expect.equal (look reading here _.Fingerprint) expected "not what a damaged copy says"
                  Expect.hasLength told 1 "and that is told"))

          testCase "a run on a folder is finished when the folder is elsewhere" (fun () ->
              inFolder (fun folder ->
                  let here, there = Path.Combine(folder, "a", "set"), Path.Combine(folder, "b", "set")
                  EngineTests.writeImages here |> ignore
                  copy here there

                  let train data =
                      succeed ([ "train"; "--out"; Path.Combine(folder, "out") ] @ EngineTests.tiny data 1)

                  let _, err = train here
                  Expect.isFalse (err.Contains "finished already") "done"
                  let _, err = train there
                  Expect.stringContains err "1 of 1 runs are finished already" "not done again")) ]

/// MNIST's files with ten grey images of 5 x 4 pixels in both sets, a class each.
let private mnist (folder: string) =
    Directory.CreateDirectory folder |> ignore
    let labels = Array.init 10 byte

    let file name (sizes: int list) (values: byte[]) =
        let header = [| 0uy; 0uy; 8uy; byte sizes.Length |]

        let sizes =
            [| for size in sizes -> [| 0uy; 0uy; 0uy; byte size |] |] |> Array.concat

        File.WriteAllBytes(Path.Combine(folder, name), Array.concat [ header; sizes; values ])

    for set in [ "train"; "t10k" ] do
        file $"{set}-images-idx3-ubyte" [ 10; 5; 4 ] (Array.init 200 byte)
        file $"{set}-labels-idx1-ubyte" [ 10 ] labels

let private mirrored =
    testList
        "mirrored images"
        [ testCase "digits that are known by their files are not, from the files, an archive and a copy" (fun () ->
              inFolder (fun folder ->
                  let at (name: string) = Path.Combine(folder, name)
                  let pack = Path.Combine(folder, "digits.zip")
                  svhn (at "digits")
                  mnist (at "mnist")
                  mnist (at "Fashion-MNIST")
                  EngineTests.writeImages (at "class folders") |> ignore
                  Compression.ZipFile.CreateFromDirectory(at "digits", pack)

                  for path, expected in
                      [ at "digits", false
                        pack, false
                        at "mnist", false
                        at "Fashion-MNIST", true
                        fixture "cifar-10-binary.tar.gz", true
                        fixture "cifar-100-binary.tar.gz", true
                        at "class folders", true ] do
                      Expect.equal (look uncached path _.MayMirror) expected path

                      for _ in 1..2 do
                          Expect.equal (look (keeping (at "cache")) path _.MayMirror) expected $"{path}, a copy"))

          testCase "a run on digits mirrors none unless it is told to, and its record says so" (fun () ->
              inFolder (fun folder ->
                  let at (name: string) = Path.Combine(folder, name)
                  svhn (at "digits")
                  File.WriteAllText(at "mirroring.json", """{ "flip": true }""")

                  let flips verb number data options =
                      let out = at $"out-{number}"

                      succeed (
                          [ verb; "--data"; data; "--out"; out; "--width"; "1"; "--epochs"; "1" ]
                          @ [ "--train-per-class"; "1"; "--test-per-class"; "1"; "--batch-size"; "20" ]
                          @ options
                      )
                      |> ignore

                      let path = Directory.GetFiles(Path.Combine(out, "records")) |> Array.exactlyOne
                      let config = (Json.tryRead<Record>(File.ReadAllText path)).Value.Config
                      config.Flip, config.CropPadding

                  let digits, others = at "digits", fixture "cifar-10-binary.tar.gz"
                  let once = [ "--methods"; "none"; "--seeds"; "1" ]
                  let mirroring = [ "--config"; at "mirroring.json" ]
                  Expect.equal (flips "train" 1 digits []) (false, 2) "digits"
                  Expect.equal (flips "train" 2 digits mirroring) (true, 2) "digits, as the file says"
                  Expect.equal (flips "train" 3 others []) (true, 2) "others"
                  Expect.equal (flips "train" 4 digits [ "--data-preset"; "cifar-10" ]) (true, 2) "as the preset says"
                  Expect.equal (flips "compare" 5 digits once) (false, 2) "compared"
                  Expect.equal (flips "compare" 6 digits (once @ mirroring)) (true, 2) "compared, as the file says"))

          testCase "so it is in a sweep" (fun () ->
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "sweep.json")
                  svhn (Path.Combine(folder, "digits"))

                  let flips (part: string) =
                      let data = (fixture "cifar-10-binary.tar.gz").Replace('\\', '/')

                      File.WriteAllText(
                          file,
                          $$"""{ "data": ["digits", "{{data}}"], "base": { "width": 1, "epochs": 1, "trainPerClass": 1, "testPerClass": 1, "batchSize": 20 } {{part}} }"""
                      )

                      let out = Path.Combine(folder, Path.GetRandomFileName())
                      succeed [ "sweep"; "run"; file; "--out"; out; "--jobs"; "1" ] |> ignore

                      [ for path in Directory.GetFiles(Path.Combine(out, "records")) do
                            let config = (Json.tryRead<Record>(File.ReadAllText path)).Value.Config
                            config.Data, config.Flip ]
                      |> List.sort

                  Expect.equal (flips "") [ "cifar-10-binary", true; "digits", false ] "nothing said"

                  Expect.equal
                      (flips """, "grid": { "flip": [true, false] }""")
                      [ "cifar-10-binary", false
                        "cifar-10-binary", true
                        "digits", false
                        "digits", true ]
                      "both")) ]

let private running =
    testList
        "running"
        [ testCase "a run of a sweep is running until its process ends, however that is" (fun () ->
              inFolder (fun folder ->
                  let file, out = Path.Combine(folder, "sweep.json"), Path.Combine(folder, "out")
                  EngineTests.writeImages (Path.Combine(folder, "set")) |> ignore

                  File.WriteAllText(
                      file,
                      """{ "data": ["set"], "seeds": 2, "base": { "width": 1, "epochs": 100000, "trainPerClass": 13, "testPerClass": 5, "batchSize": 8 } }"""
                  )

                  let status () =
                      let text, _ = succeed [ "sweep"; "status"; file; "--out"; out; "--json" ]
                      (Json.tryRead<SweepStatus> text).Value

                  use child = EngineTests.start [ "sweep"; "run"; file; "--index"; "0"; "--out"; out ]

                  child.WaitFor "epoch 1,"
                  let found = status ()
                  Expect.equal (found.Finished, found.Running) (0, 1) "it is running"
                  Expect.equal (found.Unfinished[0].State, found.Unfinished[1].State) ("running", "missing") "which"
                  let text, _ = succeed [ "sweep"; "status"; file; "--out"; out ]
                  Expect.stringContains text "2 runs: 0 finished, 1 running, " "in words"
                  child.Kill()
                  let found = status ()
                  Expect.equal (found.Finished, found.Running) (0, 0) "its process is killed"
                  Expect.equal (found.Missing + found.Checkpoint) 2 "and it waits"))

          testCase "running comes before a failure and a checkpoint, and after the end" (fun () ->
              inFolder (fun out ->
                  let config = Config.standard
                  let path = Records.checkpointsPath out config

                  let standsWith (what: Standing) =
                      Expect.equal (Records.standing out config) what "as it is"
                      let process' = Checkpointing.openFolder failtest path
                      Expect.equal (Records.standing out config) Running "while a process has it"
                      Expect.equal (Records.standing out config) Running "and is not disturbed"
                      Checkpointing.close process'
                      Expect.equal (Records.standing out config) what "as before"

                  standsWith Missing
                  Expect.isFalse (Directory.Exists path) "nothing is made"
                  Directory.CreateDirectory path |> ignore
                  File.WriteAllText(Path.Combine(path, "epoch-000001-step-00000000.safetensors"), "")
                  standsWith Kept
                  Records.fail out config "why"
                  standsWith (Failed "why")

                  let data = EngineTests.writeImages (Path.Combine(out, "data"))
                  succeed ([ "train"; "--out"; out ] @ EngineTests.tiny data 1) |> ignore
                  let path = Directory.GetFiles(Path.Combine(out, "records")) |> Array.exactlyOne
                  let config = (Json.tryRead<Record>(File.ReadAllText path)).Value.Config

                  use _ =
                      (Checkpointing.openFolder failtest (Records.checkpointsPath out config)).Lock

                  Expect.equal (Records.standing out config) Finished "a process that has ended it may still have it"))

          testCase "who looks at a run keeps no process from it" (fun () ->
              inFolder (fun folder ->
                  let lock = Path.Combine(folder, "lock")
                  // The folder stays.
                  File.WriteAllText(Path.Combine(folder, "a.safetensors"), "")

                  let isOpened _ =
                      File.WriteAllText(lock, "")
                      let look = new FileStream(lock, FileMode.Open, FileAccess.Read, FileShare.ReadWrite)
                      let opening = Task.Run(fun () -> Checkpointing.tryOpenFolder failtest folder)
                      Thread.Sleep 30
                      look.Dispose()
                      Option.iter Checkpointing.close opening.Result
                      opening.Result.IsSome

                  // Once is enough: on a busy machine, thirty milliseconds may be many more.
                  Expect.exists [ 1..20 ] isOpened "it waits a moment")) ]

let private moved =
    testList
        "moved runs"
        [ testCase "what is kept says on which machines a run was computed, and from where on" (fun () ->
              inFolder (fun folder ->
                  let data = EngineTests.writeImages (Path.Combine(folder, "data"))
                  let expected, out = Path.Combine(folder, "expected"), Path.Combine(folder, "out")

                  let train out =
                      succeed ([ "train"; "--out"; out ] @ EngineTests.tiny data 3)

                  let machines out =
                      let path = Directory.GetFiles(Path.Combine(out, "machines")) |> Array.exactlyOne
                      (Json.tryRead<Machine list>(File.ReadAllText path)).Value

                  let config =
                      train expected |> ignore
                      let path = Directory.GetFiles(Path.Combine(expected, "records")) |> Array.exactlyOne
                      (Json.tryRead<Record>(File.ReadAllText path)).Value.Config

                  let here = machines expected |> List.exactlyOne
                  Expect.equal here (Checkpointing.here 0 0) "one that was not moved"
                  Expect.isTrue (Version.TryParse(here.Library, ref null)) "the library's version"

                  let checkpoints = Records.checkpointsPath out config

                  /// Stops where it is asked for the n-th time whether it shall.
                  let stopAfter (asked: int) =
                      let kept = Checkpointing.openFolder failtest checkpoints
                      let corpus = Dataset.readWith None data |> Corpus.ofDataset
                      let left = ref asked

                      let isStopping () =
                          left.Value <- left.Value - 1
                          left.Value <= 0

                      try
                          Expect.throwsT<Interrupted>
                              (fun () ->
                                  let control =
                                      { Control.alone with
                                          IsStopping = isStopping
                                          Checkpoints = Some kept }

                                  Model.dispose (Trainer.run control config corpus).Model)
                              "it is stopped"
                      finally
                          Corpus.dispose corpus
                          Checkpointing.close kept

                  /// Makes the last checkpoint one of these machines; gives where it is.
                  let claim (change: Machine list -> Machine list) =
                      Scope.value (fun () ->
                          let path =
                              Directory.GetFiles checkpoints
                              |> Array.filter (fun path -> path.EndsWith ".safetensors")
                              |> Array.max

                          let position, state = Checkpointing.read path
                          let kept = Checkpointing.openFolder failtest checkpoints

                          Checkpointing.write
                              kept
                              { position with
                                  Machines = change position.Machines }
                              state

                          Checkpointing.close kept
                          struct (position.Epoch, position.Step))

                  let abacus = { here with Processor = "abacus" }
                  let older = { here with Library = "0.1.0" }
                  stopAfter 2
                  let struct (epoch, step) = claim (fun _ -> [ abacus ])
                  Expect.equal (epoch, step) (0, 2) "in the first epoch"

                  let resumed (machine: Machine) =
                      { machine with
                          Epoch = epoch
                          Step = step }

                  // One that took it over and did no step of it does not count, nor does going on where it was.
                  claim (fun machines -> machines @ [ resumed older ]) |> ignore
                  let _, err = train out
                  Expect.stringContains err "the processor was abacus and is " "said once"
                  Expect.equal (machines out) [ abacus; resumed here ] "and kept"

                  let bytes out =
                      [ for part in [ "records"; "weights"; "logs" ] do
                            for path in Directory.GetFiles(Path.Combine(out, part)) do
                                Path.GetFileName path, Convert.ToHexString(File.ReadAllBytes path) ]

                  Expect.equal (bytes out) (bytes expected) "nothing else says it"
                  Directory.Delete(out, true)
                  stopAfter 2
                  stopAfter 2
                  train out |> ignore
                  Expect.equal (machines out) [ here ] "stopped twice, and moved nowhere"
                  Directory.Delete(out, true)
                  stopAfter 2
                  claim (fun _ -> [ older ]) |> ignore
                  let _, err = train out
                  Expect.isFalse (err.Contains " was 0.1.0") "another version alone is no warning"
                  Expect.equal (machines out) [ older; resumed here ] "and is kept")) ]

let tests = testList "identity" [ folders; mirrored; running; moved ]
