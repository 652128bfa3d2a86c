/// Times the library against the straightforward formulation, side by side in one process: every round runs each variant once.
module PatchUp.Benchmarks.Program

open System
open System.Diagnostics
open System.Globalization
open PatchUp.Functional
open PatchUp.Functional.Words
open TorchSharp

/// Something to time; the first of a group is what the others are compared with.
type private Variant = { Name: string; Run: unit -> unit }

type private Group =
    { Title: string
      Variants: Variant list }

let private quantile (q: float) (sorted: float[]) =
    sorted[int (Math.Round(q * float (sorted.Length - 1)))]

/// Of each variant, over interleaved rounds: the median in milliseconds, the middle half's ends, and the median of the ratios to the first.
let private measure rounds (group: Group) =
    let time (variant: Variant) =
        let start = Stopwatch.GetTimestamp()
        variant.Run()
        Stopwatch.GetElapsedTime(start).TotalMilliseconds

    for variant in group.Variants do
        for _ in 1..3 do
            variant.Run()

    let times =
        [| for _ in 1..rounds -> group.Variants |> List.map time |> Array.ofList |]

    group.Variants
    |> List.mapi (fun i variant ->
        let sorted = times |> Array.map (fun round -> round[i]) |> Array.sort
        let ratios = times |> Array.map (fun round -> round[0] / round[i]) |> Array.sort
        variant.Name, quantile 0.5 sorted, quantile 0.25 sorted, quantile 0.75 sorted, quantile 0.5 ratios)

/// The PatchUp operation as the authors' sequence of tensor operations: seeds over the whole map, max pooling, then products with the mask.
let private straightforward (soft: bool) (x: torch.Tensor) =
    use _ = torch.NewDisposeScope()
    let shape = Batch.shapeOf x
    let size = [| 1L; x.shape[1]; x.shape[2]; x.shape[3] |]
    let one = Scope.number 1.0
    let seeds = torch.empty(size).bernoulli_(Region.gammaAdjusted shape 7 0.5)
    let holes = torch.nn.functional.max_pool2d (seeds, 7L, stride = 1L, padding = 3L)
    let mask = (one - holes).expand_as x
    let partner = x.index_select (0L, torch.randperm x.shape[0])

    let altered =
        if soft then
            let lambda = 0.4

            Scope.number lambda * ((one - mask) * x)
            + Scope.number (1.0 - lambda) * ((one - mask) * partner)
        else
            (one - mask) * partner

    let mixed = mask * x + altered
    ignore (mask.mean().item<float32>())
    ignore mixed

/// A mask as the authors draw it: one random number a feature, then max pooling.
let private straightforwardMask (size: int64[]) (shape: Shape) () =
    use _ = torch.NewDisposeScope()
    let seeds = torch.empty(size).bernoulli_(Region.gammaAdjusted shape 7 0.5)
    torch.nn.functional.max_pool2d (seeds, 7L, stride = 1L, padding = 3L) |> ignore

let private drawing region samples channels height width =
    let shape: Shape =
        { Channels = channels
          Height = height
          Width = width }

    let size = [| int64 samples; int64 channels; int64 height; int64 width |]
    let name = String.Join(",", size)

    { Title = $"Drawing a mask [{name}]: blocks of 7, half of the map"
      Variants =
        [ { Name = "straightforward tensor operations"
            Run = straightforwardMask size shape }
          { Name = "Region.draw"
            Run =
              fun () ->
                  Region.draw (Key.ofSeed 1) (BatchInfo.ofShape samples shape) shape region
                  |> ignore } ] }

let private mixing soft (features: torch.Tensor) =
    let step region =
        if soft then blend (beta 2 2) region else swap region

    let info = BatchInfo.ofShape (int features.shape[0]) (Batch.shapeOf features)

    let targets =
        Targets.ofIndices torch.CPU 10 (Array.init info.Count (fun i -> i % 10))

    let batch = Batch.create features targets

    let run region () =
        Plan.apply (Plan.draw (Key.ofSeed 2) info (step region)) batch |> Batch.dispose

    let name = if soft then "Soft" else "Hard"
    let size = String.Join(",", features.shape)

    { Title = $"{name} PatchUp, forward, [{size}], drawing included"
      Variants =
        [ { Name = "straightforward tensor operations"
            Run = fun () -> straightforward soft features }
          { Name = "one mask for the batch"
            Run = run (blocks 7 0.5) }
          { Name = "a mask for every sample"
            Run = run (perSample (blocks 7 0.5)) } ] }

/// 100 images 3x32x32 of a few waves each, and saliency in blobs over a skewed background: enough like photographs and gradients to time with.
let private puzzleBatch () : PuzzleBatch =
    let count, side = 100, 32
    let bits = Key.stream (Key.ofSeed 3)

    let image () =
        let waves =
            Array.init 4 (fun _ -> bits.Float() * 0.5, bits.Float() * 0.5, bits.Float() * 6.3)

        Array.init (side * side) (fun p ->
            let y, x = float (p / side), float (p % side)
            let sum = waves |> Array.sumBy (fun (a, b, c) -> cos (a * y + b * x + c))
            float32 (1.0 / (1.0 + exp (-sum - 0.3 * bits.Normal()))))

    let saliency () =
        let blobs =
            Array.init 3 (fun _ -> bits.Float() * float side, bits.Float() * float side, 2.0 + 4.0 * bits.Float())

        Array.init (side * side) (fun p ->
            let y, x = float (p / side), float (p % side)

            let near =
                blobs
                |> Array.sumBy (fun (a, b, r) -> exp (-((y - a) ** 2.0 + (x - b) ** 2.0) / (2.0 * r * r)))

            float32 ((0.2 + near) * exp (0.8 * bits.Normal())))

    { Count = count
      Channels = 3
      Side = side
      Saliency = Array.init count (fun _ -> saliency ()) |> Array.concat
      Images = Array.init (3 * count) (fun _ -> image ()) |> Array.concat }

let private puzzle grid =
    let settings = PuzzleSettings.cifar
    let batch = puzzleBatch ()
    let maps = Puzzle.maps settings grid batch
    let partner = Key.permutation batch.Count (Key.ofSeed 4)

    let energies =
        Array.init batch.Count (fun i -> Puzzle.energy settings 0.4 maps i partner[i])

    let drawn = Puzzle.solve settings 0.4 partner maps
    let side = drawn.Grid

    let part (values: 'v[]) i =
        Array.sub values (i * side * side) (side * side)

    let masks =
        [| for i in 0 .. batch.Count - 1 do
               part drawn.Labels i |> Array.map (fun label -> label < drawn.Steps), part maps.TransportSaliency i
               part drawn.Labels i |> Array.map (fun label -> label > 0), part maps.TransportSaliency partner[i] |]

    { Title = $"PuzzleMix, 100 images on {grid} x {grid} cells"
      Variants =
        [ { Name = "100 cuts by Dinic's algorithm, as a textbook has it"
            Run = fun () -> energies |> Array.map PatchUp.Tests.Dinic.solve |> ignore }
          { Name = "100 cuts, MinCut.gridLabels"
            Run = fun () -> energies |> Array.map MinCut.gridLabels |> ignore }
          { Name = "100 cuts, MinCut.gridLabelsAll"
            Run = fun () -> MinCut.gridLabelsAll energies |> ignore }
          { Name = "200 transports, Transport.sources"
            Run =
              fun () ->
                  for mask, saliency in masks do
                      Transport.sources side settings.TEps mask saliency |> ignore }
          { Name = "energies, cuts and transports, Puzzle.solve"
            Run = fun () -> Puzzle.solve settings 0.4 partner maps |> ignore }
          { Name = "the same from images and saliency, Puzzle.draw"
            Run = fun () -> Puzzle.draw settings grid 0.4 partner batch |> ignore } ] }

let private run rounds =
    use _ = torch.no_grad ()
    use features = torch.rand (100L, 64L, 32L, 32L)
    printfn $"{rounds} interleaved rounds, {torch.get_num_threads ()} threads."

    let groups =
        [ drawing (blocks 7 0.5) 1 64 32 32
          drawing (perSample (blocks 7 0.5)) 100 64 32 32
          mixing false features
          mixing true features
          puzzle 4
          puzzle 16 ]

    for group in groups do
        printfn ""
        printfn $"| {group.Title} | median ms | middle half | times as fast as the first |"
        printfn "|---|---|---|---|"

        for name, median, low, high, ratio in measure rounds group do
            String.Format(
                CultureInfo.InvariantCulture,
                "| {0} | {1:0.00} | {2:0.00} .. {3:0.00} | {4:0.0} |",
                name,
                median,
                low,
                high,
                ratio
            )
            |> Console.WriteLine

[<EntryPoint>]
let main argv =
    match argv with
    | [||] ->
        run 60
        0
    | [| "--quick" |] ->
        run 15
        0
    | _ ->
        eprintfn "The only option is --quick: 15 rounds in place of 60."
        2
