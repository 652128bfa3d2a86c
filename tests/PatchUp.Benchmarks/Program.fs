/// Times the library beside what it is compared with, in one process, and writes the tables to results/bench.
module PatchUp.Benchmarks.Program

open System
open System.IO
open PatchUp.Repro
open PatchUp.Benchmarks.Measure
open TorchSharp

/// All that a run found.
type Report =
    { Machine: Machine
      Results: Result list
      Memory: Steps.Memory }

let private groups (isQuick: bool) : (unit -> Group) list =
    let rounds full quick = if isQuick then quick else full

    [ fun () -> Operations.forward (rounds 60 7)
      fun () -> Operations.withGradient (rounds 40 5)
      fun () -> Operations.drawing (rounds 60 15)
      fun () -> Operations.puzzle 4 (rounds 40 10)
      fun () -> Operations.puzzle 16 (rounds 40 10)
      fun () -> Steps.augmentation (rounds 20 3)
      fun () -> Steps.surroundings 16 (rounds 20 3)
      fun () -> Steps.ways (rounds 60 10) ]

let private trainings (isQuick: bool) : (int * int * float) list =
    if isQuick then
        [ 16, 3, 1.04 ]
    else
        [ 16, 40, 1.04; 64, 15, 1.02 ]

let private memoryTable (memory: Steps.Memory) =
    [ $"### Memory over {memory.Steps} steps"
      ""
      "| native tensors left | resident bytes a step | managed bytes a step |"
      "| --- | --- | --- |"
      $"| {memory.TensorsLeft} | %.0f{memory.ResidentBytes} | %.0f{memory.ManagedBytes} |" ]
    |> String.concat "\n"

let private run (isQuick: bool) =
    let machine = machine ()
    let set = String.Join(", ", machine.Environment)

    let head =
        $"{machine.Processor}, {machine.Cores} cores, {machine.NativeThreads} native threads; the C library's allocator"
        + (if set = "" then
               " and OpenMP as they are by default"
           else
               $" and OpenMP with {set}")
        + "."

    let written = Text.StringBuilder()

    let show (text: string) =
        printfn $"{text}\n"
        written.Append(text).Append("\n\n") |> ignore

    show head

    let timed =
        [ for make in groups isQuick do
              let result = run (make ())
              show (markdown result)
              result
          for width, rounds, bound in trainings isQuick do
              for group in Steps.training width rounds bound do
                  let result = Measure.run group
                  show (markdown result)
                  result ]

    let memory = Steps.memory (if isQuick then 500 else 10000)
    show (memoryTable memory)
    let folder = Directory.CreateDirectory(Path.Combine("results", "bench")).FullName
    File.WriteAllText(Path.Combine(folder, "bench.md"), written.ToString())

    Json.write
        (Path.Combine(folder, "bench.json"))
        { Machine = machine
          Results = timed
          Memory = memory }

    printfn $"The tables are in {folder} too, as bench.md and bench.json."

[<EntryPoint>]
let main argv =
    match argv with
    | [||] ->
        run false
        0
    | [| "--quick" |] ->
        run true
        0
    | _ ->
        eprintfn "The only option is --quick: fewer rounds, and no network of width 64."
        2
