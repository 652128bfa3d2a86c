module PatchUp.Repro.Program

open System
open PatchUp.Functional

let private help =
    let verbs =
        Verbs.all
        |> List.map (fun (name, summary, _) -> $"  {name.PadRight 10}{summary}")
        |> String.concat "\n"

    $"""patchup compares PatchUp and other regularizers on images.

usage: patchup VERB [ARGUMENTS]

{verbs}

'patchup VERB --help' explains a verb. A method is a name that 'patchup methods' lists, or a line of notation
such as "cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2) |> at input"."""

let private dispatch (streams: Streams) (argv: string[]) =
    let names = Verbs.all |> List.map (fun (name, _, _) -> name)

    match List.ofArray argv with
    | [] -> Errors.user $"""a verb is needed: {String.Join(", ", names)}; 'patchup --help' explains them."""
    | ("--help" | "-h") :: _ -> streams.Out.WriteLine help
    | verb :: rest ->
        match Verbs.all |> List.tryFind (fun (name, _, _) -> name = verb) with
        | Some(_, _, run) -> run streams (Array.ofList rest)
        | None ->
            let hint =
                Notation.nearest names verb
                |> Option.map (fun near -> $" (did you mean {near}?)")
                |> Option.defaultValue ""

            Errors.user $"""'{verb}' is not a verb{hint}; the verbs are {String.Join(", ", names)}."""

/// Runs a command line. The exit code is 0, 2 for what the user can put right, 1 for a run that failed, or 130 or 143 for what SIGINT or
/// SIGTERM stopped; then `Err` has one line that says why.
let run (streams: Streams) (argv: string[]) : int =
    let fail code (message: string) =
        streams.Err.WriteLine $"""patchup: {message.ReplaceLineEndings " "}"""
        code

    try
        dispatch streams argv
        0
    with
    | Arguments.Help text ->
        streams.Out.WriteLine text
        0
    | UserError message -> fail 2 message
    | RunFailed message -> fail 1 message
    | Signalled(code, message) -> fail code $"{message}; to go on: patchup {Shell.line argv}"
    | error ->
        let cause = error.GetBaseException()
        fail 1 $"an unforeseen fault, {cause.GetType().Name}: {cause.Message.Split('\n')[0]}"

[<EntryPoint>]
let main argv =
    run
        { Out = Console.Out
          Err = Console.Error
          IsTerminal = not Console.IsErrorRedirected }
        argv
