/// Hooks on models that are not well-behaved, parts of batches, and labels of pixels.
module PatchUp.Tests.HookTests

open System
open Expecto
open TorchSharp
open PatchUp.Repro
open PatchUp.Functional
open PatchUp.Functional.Words
open PatchUp.Functional.Laws
open PatchUp.Tests.Fixtures

type private Layer = torch.nn.Module<torch.Tensor, torch.Tensor>

/// A module that is a function, and holds others.
[<Sealed>]
type private Composite(name: string, parts: (string * torch.nn.Module) list, run: torch.Tensor -> torch.Tensor) as this
    =
    inherit torch.nn.Module<torch.Tensor, torch.Tensor>(name)

    do
        for part, inner in parts do
            this.register_module (part, inner)

    override _.forward features = run features

let private composite parts run : Layer =
    new Composite("Model", [ for name, part: Layer in parts -> name, part :> torch.nn.Module ], run)

/// What a function does, as a module.
let private layer run : Layer = new Composite("Layer", [], run)

/// Multiplies by a number, as a module.
let private times (factor: float) =
    layer (fun x -> x * Scope.number factor)

let private images () =
    torch.arange(96, dtype = torch.float32).reshape(4L, 2L, 3L, 4L)

let private batch () =
    Batch.create (images ()) (Targets.ofIndices torch.CPU 4 [| 0; 1; 2; 3 |])

let private swapAt site =
    everywhere |> swap |> pairedBy (Rolled 1) |> after site

let private planned (hooked: Hooked) regularizer =
    Plan.draw (Key.ofSeed 1) (BatchInfo.create 4 (Hooks.shapes hooked (images ()))) regularizer

/// The model's output with a whole swap at a site, as numbers.
let private passed (hooked: Hooked) regularizer =
    Scope.value (fun () -> Read.values (Hooks.forward (planned hooked regularizer) hooked (batch ())).Features)

/// An ArgumentException that says this.
let private refused (parts: string list) (run: unit -> unit) =
    let raised =
        try
            run ()
            None
        with :? ArgumentException as error ->
            Some error.Message

    match raised with
    | None -> failtest "nothing was refused"
    | Some message ->
        for part in parts do
            Expect.stringContains message part "the message"

/// A plan that swaps everything with the next sample at a place, whatever the shape there.
let private swapping place shape =
    Plan.draw (Key.ofSeed 1) (BatchInfo.ofShape 4 shape) (everywhere |> swap |> pairedBy (Rolled 1) |> at 0)
    |> fun plan ->
        { plan with
            Draws = plan.Draws |> List.map (fun drawn -> { drawn with Place = place }) }

let private ofImages: Shape = { Channels = 2; Height = 3; Width = 4 }

let private sites =
    [ test "sites are listed as they are reached, with their shapes" {
          let inner =
              torch.nn.Sequential(
                  struct ("conv", torch.nn.Conv2d(2L, 5L, 3L) :> Layer),
                  struct ("pool", torch.nn.AdaptiveAvgPool2d(1L) :> Layer)
              )

          let model =
              torch.nn.Sequential(
                  struct ("layer1", inner :> Layer),
                  struct ("flat", torch.nn.Flatten() :> Layer),
                  struct ("fc", torch.nn.Linear(5L, 3L) :> Layer)
              )

          let shape channels height width : Shape =
              { Channels = channels
                Height = height
                Width = width }

          Expect.equal
              (Hooks.sites model (images ()))
              [ "input", shape 2 3 4
                "layer1.conv", shape 5 1 2
                "layer1.pool", shape 5 1 1
                "layer1", shape 5 1 1
                "flat", shape 5 1 1
                "fc", shape 3 1 1 ]
              "names and shapes"
      }

      test "a site among several, by name and by number" {
          let model = composite [] id
          let a, b = times 2.0, times 10.0
          model.register_module ("a", a)
          model.register_module ("b", b)
          let model = torch.nn.Sequential(struct ("a", a), struct ("b", b))
          let hooked = model |> Hooks.attach [ "b"; "a" ]
          let info = BatchInfo.create 4 (Hooks.shapes hooked (images ()))

          let places =
              [ for seed in 0..19 do
                    let regularizer = everywhere |> swap |> afterAny [ "a"; "b" ]
                    (Plan.draw (Key.ofSeed seed) info regularizer).Draws.Head.Place ]

          Expect.equal (List.distinct places |> List.sort) [ Name "a"; Name "b" ] "both are chosen"

          Expect.equal
              (passed hooked (everywhere |> blank |> at 1))
              (Array.zeroCreate 96)
              "site 1 is the first of the list"

          Expect.throwsT<ArgumentException>
              (fun () -> passed hooked (everywhere |> blank |> at 3) |> ignore)
              "there are two"
      }

      test "the catalogue's methods run on the numbered sites" {
          let model =
              torch.nn.Sequential(
                  struct ("conv1", torch.nn.Conv2d(2L, 3L, 1L) :> Layer),
                  struct ("conv2", torch.nn.Conv2d(3L, 4L, 1L) :> Layer),
                  struct ("pool", torch.nn.AdaptiveAvgPool2d(1L) :> Layer),
                  struct ("head", torch.nn.Flatten() :> Layer)
              )

          let hooked = model |> Hooks.attach [ "conv1"; "conv2"; "pool"; "head" ]

          for method' in Catalogue.all do
              let info =
                  { BatchInfo.create 4 (Hooks.shapes hooked (images ())) with
                      Labels = Some [| 0; 1; 2; 3 |]
                      Saliency = Some(lazy (Saliency.ofModel CrossEntropy model (batch ())))
                      Pixels = Some(lazy (Saliency.pixels (images ()))) }

              for seed in 0..4 do
                  let plan = Plan.draw (Key.ofSeed seed) info method'.Regularizer
                  use result = (Hooks.forward plan hooked (batch ())).Features
                  Expect.equal (Read.size result) [ 4; 4 ] method'.Name
      } ]

let private models =
    [ test "a nested site is mixed before the one around it" {
          let inner = times 2.0

          let outer =
              composite [ "inner", inner ] (fun x -> inner.call(x).add(Scope.number 1.0))

          let model = composite [ "outer", outer ] outer.call
          let hooked = model |> Hooks.attach []

          let both =
              sequence
                  [ everywhere |> blank |> after "outer.inner"
                    everywhere |> blank |> after "outer" ]

          Expect.equal (passed hooked (everywhere |> blank |> after "outer.inner")) (Array.create 96 1.0) "within"
          Expect.equal (passed hooked both) (Array.zeroCreate 96) "and around"
      }

      test "a module under two names is a site under both" {
          let shared = times 3.0
          let model = composite [ "a", shared; "b", shared ] shared.call
          let hooked = model |> Hooks.attach []
          Expect.equal (Hooks.sites model (images ()) |> List.map fst) [ "input"; "a"; "b" ] "both names"
          Expect.equal (passed hooked (swapAt "a")) (passed hooked (swapAt "b")) "one site"
      }

      test "a module that is called twice is no site, and the message names it" {
          let shared = times 3.0
          let model = composite [ "relu", shared ] (shared.call >> shared.call)
          let hooked = model |> Hooks.attach [ "relu" ]
          Expect.equal (Hooks.sites model (images ()) |> List.map fst) [ "input" ] "none"
          refused [ "\"relu\""; "more than once" ] (fun () -> passed hooked (swapAt "relu") |> ignore)

          refused [ "\"relu\""; "more than once" ] (fun () ->
              Hooks.forward (swapping (Number 1) ofImages) hooked (batch ()) |> ignore)
      }

      test "a module that a pass does not call is no site, and the message names it" {
          let unused, forwarded = times 3.0, times 1.0

          let model =
              composite [ "unused", unused; "forwarded", forwarded ] (fun x -> forwarded.forward x)

          let hooked = model |> Hooks.attach []

          for name in [ "unused"; "forwarded" ] do
              refused [ $"\"{name}\""; "call" ] (fun () -> passed hooked (swapAt name) |> ignore)

              refused [ $"\"{name}\""; "`call`" ] (fun () ->
                  Hooks.forward (swapping (Name name) ofImages) hooked (batch ()) |> ignore)
      }

      test "a module that returns its input is a site, and the caller's batch lives on" {
          let same = layer id
          let model = torch.nn.Sequential(struct ("same", same), struct ("twice", times 2.0))
          let hooked = model |> Hooks.attach []
          let given = batch ()
          let before = Read.batch given
          let plan = planned hooked (swapAt "same")
          let result = Hooks.forward plan hooked given
          Expect.equal (Read.batch given) before "the batch"

          Expect.equal
              (Read.values result.Features)
              (Read.values ((images ()).roll(-1L, 0L)) |> Array.map ((*) 2.0))
              "swapped, then doubled"

          // A model that is nothing but that.
          let bare = composite [ "same", same ] same.call |> Hooks.attach []
          let result = Hooks.forward (Plan.identity 4) bare given
          result.Features.Dispose()
          Expect.equal (Read.batch given) before "the result was the caller's own"
      }

      test "features that are no vectors, sequences or maps, or not one for each sample, are no site" {
          let volume = layer (fun x -> x.unsqueeze 1L)
          let parts = layer (fun x -> x.reshape (-1L, 6L))
          let kinds = layer (fun x -> x.argmax (1L, keepdim = true))

          let model =
              composite [ "volume", volume; "parts", parts; "kinds", kinds ] (fun x ->
                  volume.call x |> ignore
                  parts.call x |> ignore
                  kinds.call x |> ignore
                  x)

          let hooked = model |> Hooks.attach []
          Expect.equal (Hooks.sites model (images ()) |> List.map fst) [ "input" ] "none"

          for name, what in [ "volume", "[1,1,2,3,4]"; "parts", "[4,6]"; "kinds", "[1,1,3,4]" ] do
              refused [ $"\"{name}\""; what; "can be mixed" ] (fun () -> passed hooked (swapAt name) |> ignore)

          refused [ "\"parts\""; "[16,6]" ] (fun () ->
              Hooks.forward (swapping (Name "parts") ofImages) hooked (batch ()) |> ignore)
      }

      test "vectors and sequences are sites" {
          let sequence = layer (fun x -> x.flatten 2L)
          let vector = layer (fun x -> x.mean [| 2L |])

          let model =
              torch.nn.Sequential(struct ("sequence", sequence), struct ("vector", vector))

          let hooked = model |> Hooks.attach [ "sequence"; "vector" ]

          let expected = Read.values ((images ()).flatten(2L).mean([| 2L |]).roll(-1L, 0L))

          for site in [ "sequence"; "vector" ] do
              Expect.equal (passed hooked (swapAt site)) expected site
      }

      test "a submodule that maps no single tensor is no site, and neither is a name that is none's" {
          let lstm = torch.nn.LSTM(4L, 4L)
          let model = new Composite("Model", [ "lstm", lstm; "scale", times 1.0 ], id)
          refused [ "\"lstm\""; "a tensor to a tensor" ] (fun () -> model |> Hooks.attach [ "lstm" ] |> ignore)
          refused [ "\"scal\""; "did you mean \"scale\"?" ] (fun () -> model |> Hooks.attach [ "scal" ] |> ignore)
          refused [ "\"entirely\""; "Hooks.sites" ] (fun () -> model |> Hooks.attach [ "entirely" ] |> ignore)
          refused [ "\"scale\""; "2 times" ] (fun () -> model |> Hooks.attach [ "scale"; "scale" ] |> ignore)

          refused [ "\"lstm\"" ] (fun () -> passed (model |> Hooks.attach []) (swapAt "lstm") |> ignore)
          refused [ "no site \"other\"" ] (fun () -> passed (model |> Hooks.attach []) (swapAt "other") |> ignore)
      }

      test "the probe leaves every submodule in its mode" {
          let frozen, free = torch.nn.BatchNorm2d(2L), torch.nn.BatchNorm2d(2L)

          let model =
              torch.nn.Sequential(struct ("frozen", frozen :> Layer), struct ("free", free :> Layer))

          model.train ()
          frozen.eval ()
          let before = Read.bytes free.running_mean
          Hooks.sites model (images ()) |> ignore

          Attach.shapes
              { Module = model
                Stages = [ "all", model.call ] }
              (images ())
          |> ignore

          Expect.equal (model.training, frozen.training, free.training) (true, false, true) "the modes"
          Expect.equal (Read.bytes free.running_mean) before "the statistics"
      }

      test "a pass that raises within the model leaves no hook and no tensor" {
          let first = times 2.0
          let model = composite [ "first", first ] (fun x -> first.call(x).mm x)
          let hooked = model |> Hooks.attach []
          let plan = swapping (Name "first") ofImages
          let given = batch ()

          let live () =
              DisposeScopeManager.Statistics.ThreadTotalLiveCount

          let before = live ()

          Expect.throws (fun () -> Hooks.forward plan hooked given |> ignore) "mm wants matrices"
          Expect.equal (live ()) before "live tensors"

          Expect.equal
              (Read.values (first.call given.Features))
              (Read.values given.Features |> Array.map ((*) 2.0))
              "no hook"
      }

      test "hooks of the user's own stay" {
          let first = times 2.0
          let model = composite [ "first", first ] first.call
          let mutable calls = 0

          let own =
              first.register_forward_hook (fun _ _ output ->
                  calls <- calls + 1
                  output)

          passed (model |> Hooks.attach []) (swapAt "first") |> ignore
          let before = calls
          (model.call (images ())).Dispose()
          Expect.equal calls (before + 1) "it still runs"
          own.remove ()
      } ]

let private mixing =
    [ test "a mixing function may return the batch that it was given" {
          let model = times 2.0
          let outer = composite [ "first", model ] model.call
          let given = batch ()
          let before = Read.batch given
          let plan = swapping (Name "first") ofImages

          let staged =
              { Module = outer
                Stages = [ "first", model.call ] }

          for forward in
              [ fun () -> Attach.forwardWith (fun _ batch -> batch) plan staged given
                fun () -> Hooks.forwardWith (fun _ batch -> batch) plan (outer |> Hooks.attach []) given ] do
              let result = forward ()
              Expect.equal (Read.values result.Features) (Read.values given.Features |> Array.map ((*) 2.0)) "doubled"
              Batch.dispose result
              Expect.equal (Read.batch given) before "the caller's batch lives"
      }

      test "an input that cannot be mixed is no site, and the sites within are" {
          let flat = layer (fun x -> x.flatten 1L)
          let model = composite [ "flat", flat ] flat.call
          let volumes = torch.arange(32, dtype = torch.float32).reshape(2L, 2L, 2L, 2L, 2L)
          let hooked = model |> Hooks.attach []
          Expect.equal (Hooks.sites model volumes |> List.map fst) [ "flat" ] "the sites"
          let shapes = Hooks.shapes hooked volumes
          refused [ "\"input\""; "[2,2,2,2,2]" ] (fun () -> shapes (Number 0) |> ignore)
          let plan = Plan.draw (Key.ofSeed 1) (BatchInfo.create 2 shapes) (swapAt "flat")
          let given = Batch.create volumes (Targets.ofIndices torch.CPU 2 [| 0; 1 |])
          let mixed = Hooks.forward plan hooked given
          Expect.equal (Read.values mixed.Features) (Array.append [| 16.0 .. 31.0 |] [| 0.0 .. 15.0 |]) "swapped"
      }

      test "a submodule named input is a site by number" {
          let inner = times 2.0
          let model = composite [ "input", inner ] inner.call
          Expect.equal (Hooks.sites model (images ()) |> List.map fst) [ "input" ] "one of that name"

          Expect.equal
              (passed (model |> Hooks.attach [ "input" ]) (everywhere |> blank |> at 1))
              (Array.zeroCreate 96)
              "site 1"
      }

      test "no sample, and whole numbers that would be blended, are refused" {
          let model = composite [] id
          let none = torch.zeros (0L, 2L, 3L, 4L)
          refused [ "has none" ] (fun () -> Hooks.sites model none |> ignore)
          let bytes = (images ()).``to``(torch.uint8)

          let plan regularizer =
              Plan.draw (Key.ofSeed 1) (BatchInfo.ofShape 4 ofImages) regularizer

          for regularizer in
              [ everywhere |> blend (always 0.3)
                cells 0.5 |> blank |> rescale Nominal
                rect (always 0.5) |> swap |> resized ] do
              refused [ "input"; "Byte"; "floating-point" ] (fun () ->
                  Plan.applyFeatures (plan regularizer) bytes |> ignore)

          use swapped = Plan.applyFeatures (plan (everywhere |> swap)) bytes
          Expect.equal swapped.dtype torch.uint8 "swapped as they are"
      }

      test "in half precision the rescaling factor is not rounded first" {
          let ones = torch.ones ([| 4L; 2L; 3L; 4L |], dtype = torch.bfloat16)

          let plan =
              Plan.draw (Key.ofSeed 1) (BatchInfo.ofShape 4 ofImages) (cells 0.1 |> blank |> rescale Nominal)

          use three = ones * torch.tensor (3.0f)

          let kept =
              Read.values (Plan.applyFeatures plan (three.``to`` (torch.bfloat16)))
              |> Array.filter ((<>) 0.0)
          // 3 / .9 = 3.3333, of which bfloat16's nearest is 3.328125; 1 / .9 rounds to 1.109375, thrice that to 3.328125 too.
          Expect.all kept ((=) 3.328125) "3 / .9"
          use many = (ones * torch.tensor (201.0f)).``to``(torch.bfloat16)
          let kept = Read.values (Plan.applyFeatures plan many) |> Array.filter ((<>) 0.0)
          // 201 / .9 = 223.33 lies nearest to 223; 201 * 1.109375 = 222.98 does too, and 255 / .9 = 283.3 to 284 against 282.9 to 282.
          Expect.all kept ((=) 223.0) "201 / .9"
          use more = (ones * torch.tensor (255.0f)).``to``(torch.bfloat16)
          let kept = Read.values (Plan.applyFeatures plan more) |> Array.filter ((<>) 0.0)
          Expect.all kept ((=) 284.0) "255 / .9"
      } ]

let private parts =
    [ test "a part knows its own labels and saliency" {
          let info =
              { BatchInfo.ofShape 6 ofImages with
                  First = 100
                  Labels = Some [| 0..5 |]
                  Saliency = Some(lazy (Array.init (6 * 12) float32)) }

          let part = info |> BatchInfo.part 2 3 |> BatchInfo.part 1 2
          Expect.equal (part.First, part.Offset, part.Count) (100, 3, 2) "where it lies"
          Expect.equal part.Labels (Some [| 3; 4 |]) "labels"
          Expect.equal part.Saliency.Value.Value (Array.init 24 (fun i -> float32 (36 + i))) "saliency"
      }

      test "a part that is none is refused" {
          let info = BatchInfo.ofShape 6 ofImages

          for offset, count in [ -1, 2; 0, 0; 5, 2; 6, 1; 1, Int32.MaxValue ] do
              refused [ string count; "batch of 6" ] (fun () -> BatchInfo.part offset count info |> ignore)
      } ]

let private maps =
    let image: Shape = { Channels = 3; Height = 2; Width = 2 }

    let drawn regularizer =
        Plan.draw (Key.ofSeed 3) (BatchInfo.ofShape 2 image) regularizer

    let labels () = torch.arange(8).reshape(2L, 2L, 2L)

    [ test "blanked pixels keep their labels" {
          use kept = Plan.applyMaps (drawn (cells 0.5 |> blank |> at 0)) (labels ())
          Expect.equal (Read.values kept) (Read.values (labels ())) "the labels"
      }

      test "class indices of bytes stay bytes" {
          use mixed =
              Plan.applyMaps (drawn (everywhere |> swap |> pairedBy (Rolled 1))) ((labels ()).``to``(torch.uint8))

          Expect.equal mixed.dtype torch.uint8 "the type"
          Expect.equal (Read.values mixed) [| 4.0; 5.0; 6.0; 7.0; 0.0; 1.0; 2.0; 3.0 |] "swapped"
      }

      test "what class indices cannot follow is refused, and soft maps can" {
          for regularizer, reason in
              [ perChannel (cells 0.5) |> swap, "shared"
                everywhere |> blend (always 0.3), "blends"
                rect (always 0.5) |> swap |> resized, "resizes" ] do
              let plan = drawn regularizer
              refused [ reason; "[N,K,H,W]" ] (fun () -> Plan.applyMaps plan (labels ()) |> ignore)
              use soft = Plan.applyMaps plan (torch.rand (2L, 5L, 2L, 2L))
              Expect.equal (Read.size soft) [ 2; 5; 2; 2 ] "soft maps"
      }

      test "plans that mix hidden features, and maps of another size or kind, are refused" {
          let plan = drawn (rect (always 0.5) |> swap)

          refused [ "site 1" ] (fun () ->
              Plan.applyMaps (drawn (rect (always 0.5) |> swap |> at 1)) (labels ()) |> ignore)

          refused [ "[2,2]" ] (fun () -> Plan.applyMaps plan (torch.zeros (2L, 2L)) |> ignore)
          refused [ "1x3x2" ] (fun () -> Plan.applyMaps plan (torch.zeros (2L, 3L, 2L, dtype = torch.int64)) |> ignore)

          refused [ "2 samples"; "has 3" ] (fun () ->
              Plan.applyMaps plan (torch.zeros (3L, 2L, 2L, dtype = torch.int64)) |> ignore)
      } ]

let private halves =
    [ test "soft maps in half precision are widened" {
          let maps =
              (torch.tensor [| 1.0f; 0.0f; 0.0f; 1.0f |]).reshape(2L, 2L, 1L, 1L).``to``(torch.bfloat16)

          let shape: Shape = { Channels = 1; Height = 1; Width = 1 }

          let plan =
              Plan.draw
                  (Key.ofSeed 1)
                  (BatchInfo.ofShape 2 shape)
                  (everywhere |> blend (always 0.3) |> pairedBy (Rolled 1))

          use mixed = Plan.applyMaps plan maps
          Expect.equal mixed.dtype torch.float32 "the type"
          let weights = Read.values mixed
          expectNear 1e-7 weights[0] (float 0.3f) "the weight"
      }

      test "rows in half precision are widened, and keep their sum when mixed" {
          for dtype in [ torch.bfloat16; torch.float16 ] do
              let rows = torch.eye(4L).``to``(dtype: torch.ScalarType)
              let features = (images ()).``to`` dtype

              let plan =
                  planned ((layer id) |> Hooks.attach []) (everywhere |> blend (always 0.3))

              let mixed = Plan.apply plan (Batch.create features (Targets.ofSoft rows))
              Expect.equal mixed.Features.dtype dtype "the features"
              Expect.equal mixed.Targets.Soft.dtype torch.float32 "the rows"

              for sum in Read.values (mixed.Targets.Soft.sum 1L) do
                  expectNear 1e-7 sum 1.0 "a row's sum"
      } ]

/// Any program at any of the first sites of a network, by number or by name.
let private within (names: string list) (regularizer: Regularizer) =
    let known place =
        match place with
        | Number k when k <= names.Length -> place
        | Number k -> Number(k % (names.Length + 1))
        | Name name -> Name names[name.Length % names.Length]

    regularizer
    |> Trial.mapSteps (fun step ->
        { step with
            Site =
                match step.Site with
                | At place -> At(known place)
                | AnyOf places -> AnyOf(places |> List.map known |> List.distinct)
                | AllOf places -> AllOf(places |> List.map known |> List.distinct) })

let private architectures =
    [ for name, width in [ "preact-resnet-18", Some 4; "wrn-16-2", None; "resnet-18", Some 4 ] do
          forAll $"stages = hooks on {name}" 100 Generators.regularizer (fun program ->
              let model =
                  Architectures.create
                      name
                      { NetworkSettings.cifar10 with
                          Width = width }
                      3UL

              use _ = model.Module
              use generator = new torch.Generator(4UL)
              let images = torch.rand ([| 6L; 3L; 8L; 8L |], generator = generator)
              let staged = Trainer.staged model
              let names = List.map fst model.Stages
              let hooked = model.Module |> Hooks.attach names
              let labels = [| 0; 1; 2; 0; 1; 2 |]

              let plan shapes =
                  let info =
                      { BatchInfo.create 6 shapes with
                          Labels = Some labels }

                  Plan.draw (Key.ofSeed 5) info (within (List.take (names.Length - 1) names) program)

              let batch = Batch.create images (Targets.ofIndices torch.CPU 10 labels)

              let pass forward =
                  model.Module.zero_grad ()
                  let result: Batch = forward batch
                  (Loss.ofBatch CrossEntropy result.Targets result.Features).backward()

                  Read.batch result
                  :: [ for parameter in model.Module.parameters () do
                           if not (isNull parameter.grad) then
                               [ Read.bytes parameter.grad ] ]

              let ofStages, ofHooks =
                  plan (Attach.shapes staged images), plan (Hooks.shapes hooked images)

              [ Verdict.require (ofStages = ofHooks) (fun () -> "the plans differ.")
                Verdict.require
                    (pass (Attach.forward ofStages staged) = pass (Hooks.forward ofHooks hooked))
                    (fun () -> "logits, targets or gradients differ.") ]
              |> Verdict.all) ]

let tests =
    testList
        "hooks"
        [ testList "sites" sites
          testList "models" models
          testList "mixing" mixing
          testList "parts" parts
          testList "maps" maps
          testList "half precision" halves
          testList "architectures" architectures ]
