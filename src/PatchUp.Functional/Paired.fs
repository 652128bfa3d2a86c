namespace PatchUp.Functional

open System
open System.Numerics
open System.Runtime.InteropServices
open System.Threading.Tasks
open TorchSharp

/// One blend of a batch with itself: x'[n] = blend w[n] x[n] x[partner[n]].
[<NoEquality; NoComparison>]
type internal Pairing =
    {
        Weight: Weight
        /// None blends with zeros.
        Partner: int[] option
        /// For each sample, those whose partner it is.
        PartnerOf: int[][]
    }

/// One pass over the CPU's memory, with the numbers of `Blend.blend` and its gradient.
[<RequireQualifiedAccess>]
module private Pass =

    /// Writes f of the three inputs, a vector at a time; the last numbers, which fill no vector, go through one that they fill in part.
    let inline private each
        ([<InlineIfLambda>] f: Vector<'v> -> Vector<'v> -> Vector<'v> -> Vector<'v>)
        (w: Span<'v>)
        (a: Span<'v>)
        (b: Span<'v>)
        (result: Span<'v>)
        =
        let ws = MemoryMarshal.Cast<'v, Vector<'v>> w
        let vas = MemoryMarshal.Cast<'v, Vector<'v>> a
        let vbs = MemoryMarshal.Cast<'v, Vector<'v>> b
        let results = MemoryMarshal.Cast<'v, Vector<'v>> result

        for i in 0 .. results.Length - 1 do
            results[i] <- f ws[i] vas[i] vbs[i]

        let from = results.Length * Vector<'v>.Count

        if from < result.Length then
            let rest = Array.init 3 (fun _ -> Array.zeroCreate<'v> Vector<'v>.Count)
            w.Slice(from).CopyTo(Span rest[0])
            a.Slice(from).CopyTo(Span rest[1])
            b.Slice(from).CopyTo(Span rest[2])
            (f (Vector<'v> rest[0]) (Vector<'v> rest[1]) (Vector<'v> rest[2])).CopyTo rest[0]
            ReadOnlySpan(rest[0], 0, result.Length - from).CopyTo(result.Slice from)

    /// a at w = 0, b at w = 1, and between as torch.lerp has it.
    let inline private blend
        ([<InlineIfLambda>] multiplyAdd: Vector<'v> -> Vector<'v> -> Vector<'v> -> Vector<'v>)
        (w: Vector<'v>)
        (a: Vector<'v>)
        (b: Vector<'v>)
        =
        let one = Vector<'v>.One
        let isSmall = Vector.LessThan(w, one - w)
        let share = Vector.ConditionalSelect(isSmall, w, w - one)
        let moved = multiplyAdd share (b - a) (Vector.ConditionalSelect(isSmall, a, b))
        let toB = Vector.ConditionalSelect(Vector.Equals(w, one), b, moved)
        Vector.ConditionalSelect(Vector.Equals(w, Vector<'v>.Zero), a, toB)

    /// What a sample's own features get of its gradient: (1 - w) g.
    let inline private kept (w: Vector<'v>) (gradient: Vector<'v>) (_: Vector<'v>) =
        let one, zero = Vector<'v>.One, Vector<'v>.Zero

        let part =
            Vector.ConditionalSelect(Vector.Equals(w, one), zero, gradient * (one - w))

        Vector.ConditionalSelect(Vector.Equals(w, zero), gradient, part)

    /// The sum with what its partner's features get: w g.
    let inline private given (w: Vector<'v>) (gradient: Vector<'v>) (sum: Vector<'v>) =
        let part =
            Vector.ConditionalSelect(Vector.Equals(w, Vector<'v>.One), gradient, gradient * w)

        Vector.ConditionalSelect(Vector.Equals(w, Vector<'v>.Zero), sum, sum + part)

    /// Writes a number wherever a bit is false, and zero elsewhere.
    type private Spread<'v> = delegate of bits: ReadOnlySpan<bool> * value: 'v * weights: Span<'v> -> unit

    /// What depends on the type of numbers.
    [<NoEquality; NoComparison>]
    type private Numbers<'v> =
        { OfFloat: float -> 'v
          Spread: Spread<'v> }

    let private doubles: Numbers<float> =
        { OfFloat = id
          Spread =
            Spread(fun bits value weights ->
                for i in 0 .. bits.Length - 1 do
                    weights[i] <- if bits[i] then 0.0 else value) }

    /// The same as for doubles, a vector of bits at a time.
    let private singles: Numbers<float32> =
        { OfFloat = float32
          Spread =
            Spread(fun bits value weights ->
                let groups = MemoryMarshal.Cast<bool, Vector<byte>> bits
                let results = MemoryMarshal.Cast<float32, Vector<float32>> weights

                let spread (wide: Vector<uint32>) =
                    let isAltered = Vector.As<uint32, float32>(Vector.Equals(wide, Vector.Zero))
                    Vector.ConditionalSelect(isAltered, Vector value, Vector.Zero)

                for i in 0 .. groups.Length - 1 do
                    let low, high = Vector.WidenLower groups[i], Vector.WidenUpper groups[i]
                    results[4 * i] <- spread (Vector.WidenLower low)
                    results[4 * i + 1] <- spread (Vector.WidenUpper low)
                    results[4 * i + 2] <- spread (Vector.WidenLower high)
                    results[4 * i + 3] <- spread (Vector.WidenUpper high)

                for i in groups.Length * Vector<byte>.Count .. bits.Length - 1 do
                    weights[i] <- if bits[i] then 0.0f else value) }

    /// w = (1 - M) toward of sample `n`, for its features from `from` on, as many as there are weights.
    let private fill (numbers: Numbers<'v>) (weight: Weight) (n: int) (from: int) (weights: Span<'v>) =
        let size = Mask.stride weight.Mask
        let first = n % weight.Mask.Samples * size
        let toward = weight.Toward[n % weight.Toward.Length]
        let mutable filled = 0

        // Channels that share a mask repeat it.
        while filled < weights.Length do
            let start = (from + filled) % size
            let run = weights.Slice(filled, min (size - start) (weights.Length - filled))

            match weight.Mask.Values with
            | Hard bits ->
                numbers.Spread.Invoke(ReadOnlySpan(bits, first + start, run.Length), numbers.OfFloat toward, run)
            | Soft own ->
                for i in 0 .. run.Length - 1 do
                    run[i] <- numbers.OfFloat(toward - float own[first + start + i] * toward)

            filled <- filled + run.Length

    /// Of so many features at a time, all that is read and written stays in the processor's first cache.
    let private chunk = 2048

    /// All samples' weights where they share them, else none.
    let private shared (numbers: Numbers<'v>) (weight: Weight) (size: int) : 'v[] =
        if weight.Mask.Samples = 1 && weight.Toward.Length = 1 then
            let weights = Array.zeroCreate size
            fill numbers weight 0 0 (Span weights)
            weights
        else
            [||]

    /// A worker's weights of features from `from` on: the shared ones, or its own, which the next call overwrites.
    let private weights (numbers: Numbers<'v>) (weight: Weight) (shared: 'v[]) (own: 'v[]) n from length : Span<'v> =
        if shared.Length > 0 then
            Span(shared, from, length)
        else
            fill numbers weight n from (Span(own, 0, length))
            Span(own, 0, length)

    /// With fewer numbers, a second thread costs the operations that follow more than it saves: it goes on waiting for work beside their threads.
    let private large = 1 <<< 21

    /// Runs `work first last` for all samples of this size, where they are large on as many threads as the native library's operations have.
    let private inParallel (samples: int) (size: int) (work: int -> int -> unit) =
        let threads = torch.get_num_threads ()

        if threads = 1 || samples * size < large then
            work 0 (samples - 1)
        else
            // Several for each thread, which the operating system may hold up.
            let parts = min samples (4 * threads)
            let options = ParallelOptions(MaxDegreeOfParallelism = threads)

            Parallel.For(0, parts, options, (fun i -> work (samples * i / parts) (samples * (i + 1) / parts - 1)))
            |> ignore

    let inline private forwardOf
        (numbers: Numbers<'v>)
        ([<InlineIfLambda>] multiplyAdd: Vector<'v> -> Vector<'v> -> Vector<'v> -> Vector<'v>)
        (pairing: Pairing)
        (features: torch.Tensor)
        (result: torch.Tensor)
        =
        let samples = pairing.PartnerOf.Length
        let size = int (features.numel ()) / samples
        let shared = shared numbers pairing.Weight size
        let zeros = Array.zeroCreate<'v> chunk

        inParallel samples size (fun first last ->
            let x = MemoryMarshal.Cast<byte, 'v> features.bytes
            let result = MemoryMarshal.Cast<byte, 'v> result.bytes
            let own = Array.zeroCreate chunk

            for n in first..last do
                for from in 0..chunk .. size - 1 do
                    let length = min chunk (size - from)
                    let w = weights numbers pairing.Weight shared own n from length

                    let other =
                        match pairing.Partner with
                        | Some partner -> x.Slice(partner[n] * size + from, length)
                        | None -> Span(zeros, 0, length)

                    let at = n * size + from
                    each (blend multiplyAdd) w (x.Slice(at, length)) other (result.Slice(at, length)))

        // Whose memory the spans are.
        GC.KeepAlive features

    let inline private backwardOf
        (numbers: Numbers<'v>)
        (pairing: Pairing)
        (gradient: torch.Tensor)
        (result: torch.Tensor)
        =
        let samples = pairing.PartnerOf.Length
        let size = int (gradient.numel ()) / samples
        let shared = shared numbers pairing.Weight size

        inParallel samples size (fun first last ->
            let g = MemoryMarshal.Cast<byte, 'v> gradient.bytes
            let result = MemoryMarshal.Cast<byte, 'v> result.bytes
            let own = Array.zeroCreate chunk

            for n in first..last do
                for from in 0..chunk .. size - 1 do
                    let length = min chunk (size - from)
                    let sum = result.Slice(n * size + from, length)
                    let mine = g.Slice(n * size + from, length)
                    each kept (weights numbers pairing.Weight shared own n from length) mine mine sum

                    for other in pairing.PartnerOf[n] do
                        let w = weights numbers pairing.Weight shared own other from length
                        each given w (g.Slice(other * size + from, length)) sum sum)

        GC.KeepAlive gradient

    let forward (pairing: Pairing) (features: torch.Tensor) : torch.Tensor =
        let result = torch.empty_like features

        if features.dtype = torch.float32 then
            forwardOf singles (fun a b c -> Vector.FusedMultiplyAdd(a, b, c): Vector<float32>) pairing features result
        else
            forwardOf doubles (fun a b c -> Vector.FusedMultiplyAdd(a, b, c): Vector<float>) pairing features result

        result

    let backward (pairing: Pairing) (gradient: torch.Tensor) : torch.Tensor =
        let result = torch.empty_like gradient

        if gradient.dtype = torch.float32 then
            backwardOf singles pairing gradient result
        else
            backwardOf doubles pairing gradient result

        result

/// The pass for autograd, whose backward must not raise: that would end the process.
[<Sealed; AllowNullLiteral>]
type internal PairedFunction() =
    inherit torch.autograd.SingleTensorFunction<PairedFunction>()
    override _.Name = "Paired"

    override _.forward(context, arguments) =
        context.save_data ("pairing", arguments[1])
        Pass.forward (arguments[1] :?> Pairing) (arguments[0] :?> torch.Tensor)

    override _.backward(context, gradient) =
        ResizeArray
            [ PairedGradient.apply (gradient.contiguous (), context.get_data "pairing")
              null ]

/// The gradient's pass, whose own gradient is the pass: both are linear.
and [<Sealed; AllowNullLiteral>] internal PairedGradient() =
    inherit torch.autograd.SingleTensorFunction<PairedGradient>()
    override _.Name = "PairedGradient"

    override _.forward(context, arguments) =
        context.save_data ("pairing", arguments[1])
        Pass.backward (arguments[1] :?> Pairing) (arguments[0] :?> torch.Tensor)

    override _.backward(context, gradient) =
        ResizeArray
            [ PairedFunction.apply (gradient.contiguous (), context.get_data "pairing")
              null ]

/// What `Blend.blend` does with a gathered copy of the partners' features, without the copy: it reads each feature twice and writes it once.
[<RequireQualifiedAccess>]
module internal Paired =

    /// Whether these features can be blended so.
    let fits (features: torch.Tensor) : bool =
        features.device.``type`` = DeviceType.CPU
        && (features.dtype = torch.float32 || features.dtype = torch.float64)
        && features.is_contiguous ()
        && features.numel () * features.ElementSize <= int64 Int32.MaxValue

    /// x'[n] = blend w[n] x[n] x[partner[n]], or with zeros where there is no partner.
    let blend (weight: Weight) (partner: int[] option) (features: torch.Tensor) : torch.Tensor =
        let partnerOf = Array.init (int features.shape[0]) (fun _ -> ResizeArray())
        partner |> Option.iter (Array.iteri (fun n other -> partnerOf[other].Add n))

        let pairing =
            { Weight = weight
              Partner = partner
              PartnerOf = partnerOf |> Array.map _.ToArray() }

        if torch.is_grad_enabled () && features.requires_grad then
            PairedFunction.apply (features, pairing)
        else
            Pass.forward pairing features
