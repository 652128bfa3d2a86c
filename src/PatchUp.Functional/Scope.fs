namespace PatchUp.Functional

open System.Collections.Generic
open TorchSharp

/// A native tensor.
type internal T = torch.Tensor

/// Frees temporaries: of what is made inside, only the results escape, into the caller's scope if there is one, else unowned.
[<RequireQualifiedAccess>]
module Scope =

    /// Every returned tensor is the caller's own: one that was not made inside comes back as a fresh alias.
    let many (make: unit -> torch.Tensor list) : torch.Tensor list =
        use scope = torch.NewDisposeScope()

        let seen = HashSet<torch.Tensor>(HashIdentity.Reference)

        let own (t: torch.Tensor) =
            if scope.Contains t && seen.Add t then t else t.alias ()

        let results = make () |> List.map own

        for result in results do
            scope.MoveToOuter result |> ignore

        results

    /// The same for one tensor.
    let run (make: unit -> torch.Tensor) : torch.Tensor =
        many (fun () -> [ make () ]) |> List.head

    /// A managed result; every tensor made inside is freed.
    let value (make: unit -> 'a) : 'a =
        use _ = torch.NewDisposeScope()
        make ()

    // A TorchSharp `Scalar` is freed by its finalizer as soon as its handle has been read, which may be before the native call that it was given to has
    // read the number. What follows gives native calls numbers that outlive them.

    /// A number as a tensor without axes, in float64 on the CPU: with floating-point tensors that have axes, on any device, it takes their
    /// type. Inside a scope it lives as long as that.
    let number (value: float) : torch.Tensor =
        torch.tensor (value, device = torch.CPU)

    let private one = lazy ((1L).ToScalar())

    /// a + b, in whose native call TorchSharp's operator hides a number: the factor of b.
    let add (a: torch.Tensor) (b: torch.Tensor) : torch.Tensor = a.add (b, one.Value)
