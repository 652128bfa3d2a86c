namespace PatchUp.Repro

open System.Runtime.InteropServices
open System.Threading

/// A signal asked the program to stop, and it did: the exit code, which is 128 and the signal's number, and a line that says what is kept.
exception Signalled of exitCode: int * message: string

/// SIGINT and SIGTERM, the second time as ever.
[<RequireQualifiedAccess>]
module Signals =

    /// Does work with a token that the first signal cancels; where it then raises `Interrupted`, that becomes `Signalled`.
    let observing (work: CancellationToken -> 'a) : 'a =
        use source = new CancellationTokenSource()
        let code = ref 0

        let handle (own: int) (context: PosixSignalContext) =
            // The first one alone is held back.
            if Interlocked.CompareExchange(&code.contents, own, 0) = 0 then
                context.Cancel <- true
                source.Cancel()

        use _ = PosixSignalRegistration.Create(PosixSignal.SIGINT, handle 130)
        use _ = PosixSignalRegistration.Create(PosixSignal.SIGTERM, handle 143)

        try
            work source.Token
        with Interrupted message ->
            raise (Signalled(code.Value, message))
