namespace PatchUp.Repro

open System
open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Text

/// Commands as a shell takes them.
[<RequireQualifiedAccess>]
module Shell =

    /// An argument.
    let quoted (argument: string) : string =
        let isPlain c =
            Char.IsAsciiLetterOrDigit c || "-_./,:=+@%".Contains c

        if argument <> "" && Seq.forall isPlain argument then
            argument
        else
            let inner = argument.Replace("'", "'\\''")
            $"'{inner}'"

    /// A command line.
    let line (arguments: string seq) : string =
        arguments |> Seq.map quoted |> String.concat " "

/// Sweeps on a cluster that Slurm runs: an array of jobs, a task for every run.
[<RequireQualifiedAccess>]
module Slurm =

    /// How this program is started.
    let private program: string list =
        let assembly = typeof<Planned>.Assembly.Location

        if
            assembly <> ""
            && Path.GetFileNameWithoutExtension Environment.ProcessPath = "dotnet"
        then
            [ Environment.ProcessPath; assembly ]
        else
            [ Environment.ProcessPath ]

    /// Where the script and what its tasks print are written, in the results folder.
    let folder = "slurm"

    /// The job script for a sweep's file of so many runs, with full paths. A task that is told that its time is nearly up
    /// has its run keep its state and is queued again; one that is cancelled or preempted has it do so too, and it is
    /// Slurm that queues it again or does not.
    let script (file: string) (out: string) (count: int) : string =
        let command =
            program @ [ "sweep"; "run"; file; "--out"; out; "--index" ] |> Shell.line

        let job =
            Path.GetFileNameWithoutExtension file
            |> String.map (fun c -> if Char.IsAsciiLetterOrDigit c then c else '-')

        // Slurm takes % for its own, and in quotation marks the backslash.
        let log =
            Path.Combine(out, folder).Replace("%", "%%").Replace("\\", "\\\\").Replace("\"", "\\\"")
            + "/%A_%a.log"

        $"""#!/bin/bash
#SBATCH --job-name=patchup-{job}
#SBATCH --array=0-{count - 1}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@60
#SBATCH --output="{log}"

ending=
trap 'ending=1; kill -TERM "$run"' USR1
trap 'kill -TERM "$run"' TERM

{command} "$SLURM_ARRAY_TASK_ID" &
run=$!

# A signal ends the waiting, not the run.
while kill -0 "$run" 2>/dev/null; do
    wait "$run"
done

wait "$run"
code=$?

# 143 is a run that was stopped and kept its state.
if [ "$ending" ] && [ "$code" = 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi

exit "$code"
"""

    /// Writes the script into the results folder; gives its path.
    let write (file: string) (out: string) (count: int) : string =
        let folder = Records.prepare out folder
        let path = Path.Combine(folder, Path.GetFileNameWithoutExtension file + ".sh")
        Errors.writing path (fun stream -> stream.Write(Encoding.UTF8.GetBytes(script file out count)))
        path

    /// Submits a script with sbatch and these options of it; gives what sbatch says. A UserError where there is no sbatch
    /// or it refuses.
    let submit (options: string list) (path: string) : string =
        let start =
            ProcessStartInfo("sbatch", options @ [ path ], RedirectStandardOutput = true, RedirectStandardError = true)

        let sbatch =
            try
                Process.Start start
            with :? Win32Exception ->
                Errors.user
                    $"sweep slurm: there is no sbatch here; do this where Slurm is installed, or run the sweep without it: patchup sweep run. The script is {path}."

        use sbatch = sbatch
        let err = sbatch.StandardError.ReadToEndAsync()
        let out = sbatch.StandardOutput.ReadToEnd()
        sbatch.WaitForExit()

        if sbatch.ExitCode <> 0 then
            Errors.user $"sweep slurm: sbatch refused {path}: {err.Result.Trim().ReplaceLineEndings(string ' ')}"

        out.Trim()
