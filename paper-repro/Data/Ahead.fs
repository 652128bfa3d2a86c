namespace PatchUp.Repro

open System.Threading

/// Items of bytes that are made ahead of their use.
[<NoEquality; NoComparison>]
type Ahead =
    {
        /// Gives the bytes of the next item, which are valid until the function returns; raises what its making raised.
        Next: (byte[] -> unit) -> unit
        /// Ends the threads, once each has made the item that it is making.
        Close: unit -> unit
    }

[<RequireQualifiedAccess>]
module Ahead =

    /// Makes items 0 .. count - 1 of `size` bytes each on so many threads, with no more than `room` of them begun and not yet
    /// used: that bounds the memory. They come in order and are the same at any number of threads, as `make`, which is
    /// called from all of them, makes each from its number alone.
    let start (threads: int) (room: int) (size: int) (count: int) (make: int -> byte[] -> unit) : Ahead =
        let room = max 1 (min room count)
        // Made when they are first needed.
        let slots: byte[][] = Array.zeroCreate room
        let made: Result<unit, exn> option[] = Array.create room None
        let gate = obj ()
        let begun, used, isOver = ref 0, ref 0, ref false

        /// The next item to make, once there is room for it; None when there is nothing more to do.
        let rec claim () : int option =
            if isOver.Value || begun.Value >= count then
                None
            elif begun.Value - used.Value >= room then
                Monitor.Wait gate |> ignore
                claim ()
            else
                begun.Value <- begun.Value + 1
                Some(begun.Value - 1)

        let attempt item =
            try
                let slot = item % room

                if isNull slots[slot] then
                    slots[slot] <- Array.zeroCreate<byte> size

                Ok(make item slots[slot])
            with error ->
                Error error

        let rec work () =
            match lock gate claim with
            | None -> ()
            | Some item ->
                let result = attempt item

                lock gate (fun () ->
                    made[item % room] <- Some result
                    Monitor.PulseAll gate)

                work ()

        let next (look: byte[] -> unit) =
            let item = used.Value

            if item >= count then
                invalidOp $"There are only {count} items."

            let result =
                lock gate (fun () ->
                    while made[item % room].IsNone do
                        Monitor.Wait gate |> ignore

                    made[item % room].Value)

            match result with
            | Error error -> raise error
            | Ok() -> look slots[item % room]

            lock gate (fun () ->
                made[item % room] <- None
                used.Value <- item + 1
                Monitor.PulseAll gate)

        let running =
            [ for _ in 1 .. min threads room do
                  let thread = Thread(work, IsBackground = true, Name = "images")
                  thread.Start()
                  thread ]

        { Next = next
          Close =
            fun () ->
                lock gate (fun () ->
                    isOver.Value <- true
                    Monitor.PulseAll gate)

                for thread in running do
                    thread.Join() }
