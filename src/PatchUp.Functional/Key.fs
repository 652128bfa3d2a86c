namespace PatchUp.Functional

open System

/// Randomness as a value: the 64-bit state of a SplitMix64 generator that is never advanced.
/// A key has numbered children and a numbered sequence of bits; both are pure functions of the key.
[<Struct>]
type Key = { State: uint64 }

/// A reader of a key's sequence, for the inside of one draw. It is mutable, so keep it local.
[<Sealed; AllowNullLiteral>]
type Stream internal (start: uint64) =
    let mutable state = start

    /// The next 64 bits: SplitMix64 (Steele, Lea, Flood 2014; the constants of Vigna's splitmix64.c).
    member _.Bits() : uint64 =
        state <- state + 0x9E3779B97F4A7C15UL
        let z = (state ^^^ (state >>> 30)) * 0xBF58476D1CE4E5B9UL
        let z = (z ^^^ (z >>> 27)) * 0x94D049BB133111EBUL
        z ^^^ (z >>> 31)

    /// A multiple of 2^-53, uniform in [0, 1).
    member this.Float() : float =
        float (this.Bits() >>> 11) * (1.0 / 9007199254740992.0)

    /// Uniform in the open interval (0, 1): safe for a logarithm.
    member this.Open() : float =
        (float (this.Bits() >>> 12) + 0.5) * (1.0 / 4503599627370496.0)

    /// Uniform in 0 .. n - 1 without bias (Lemire 2019); n is positive.
    member this.Below(n: int) : int =
        if n <= 0 then
            invalidArg (nameof n) $"n is {n}; it must be positive."

        let bound = uint64 n
        let threshold = (0UL - bound) % bound
        let mutable low = 0UL
        let mutable high = Math.BigMul(this.Bits(), bound, &low)

        while low < threshold do
            high <- Math.BigMul(this.Bits(), bound, &low)

        int high

    /// Standard normal (Marsaglia's polar method; the second number of the pair is not kept).
    member this.Normal() : float =
        let mutable u = 0.0
        let mutable s = 0.0

        while s >= 1.0 || s = 0.0 do
            u <- 2.0 * this.Float() - 1.0
            let v = 2.0 * this.Float() - 1.0
            s <- u * u + v * v

        u * sqrt (-2.0 * log s / s)

/// All randomness of the library flows from one key: there is no global state, and no native generator.
[<RequireQualifiedAccess>]
module Key =

    /// The key of a seed.
    let ofSeed (seed: int) : Key = { State = uint64 seed }

    /// Child `i` of a key. For one key, different indices give different children, always: the finaliser (MurmurHash3's)
    /// is a bijection of the 64-bit words, and is not the one that makes the bits.
    let child (i: int) (key: Key) : Key =
        let z = key.State + 0x9E3779B97F4A7C15UL * (uint64 i + 1UL)
        let z = (z ^^^ (z >>> 33)) * 0xFF51AFD7ED558CCDUL
        let z = (z ^^^ (z >>> 33)) * 0xC4CEB9FE1A85EC53UL
        { State = z ^^^ (z >>> 33) }

    /// A reader at the start of the key's sequence: the SplitMix64 sequence with the key's state as its seed.
    let stream (key: Key) : Stream = Stream(key.State)

    /// A uniformly random permutation of 0 .. n - 1 (Fisher-Yates).
    let permutation (n: int) (key: Key) : int[] =
        let order = Array.init n id
        let bits = stream key

        for i in n - 1 .. -1 .. 1 do
            let j = bits.Below(i + 1)
            let held = order[i]
            order[i] <- order[j]
            order[j] <- held

        order
