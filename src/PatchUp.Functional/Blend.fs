namespace PatchUp.Functional

open System
open TorchSharp

/// How far each feature moves: w = (1 - M) * toward.
type Weight =
    {
        Mask: Mask
        /// 1 - lambda: `[1]`, or `[N]` for a move of its own for every sample.
        Toward: float[]
    }

/// The one kernel of the library: every mixing operation is a `blend`.
[<RequireQualifiedAccess>]
module Blend =

    /// A view that lines `[S, C, H, W]` weights up with features of any rank: `[N,C]` and `[N,C,L]` have no height.
    let private lineUp (features: torch.Tensor) (samples: int) (channels: int) (height: int) (width: int) : int64[] =
        let size =
            match features.dim () with
            | 2L -> [| samples; channels |]
            | 3L -> [| samples; channels; width |]
            | 4L -> [| samples; channels; height; width |]
            | rank ->
                invalidArg (nameof features) $"Features have rank {rank}; [N,C], [N,C,L] and [N,C,H,W] can be mixed."

        Array.map int64 size

    let internal isHalf (t: torch.Tensor) =
        t.dtype = torch.bfloat16 || t.dtype = torch.float16

    /// lerp in the features' own precision, but for half precision in float32 with one rounding at the end.
    let private lerp (weights: torch.Tensor) (a: torch.Tensor) (b: torch.Tensor) =
        if isHalf a then
            let wide (t: torch.Tensor) = t.``to`` (torch.float32)
            torch.lerp(wide a, wide b, wide weights).``to``(a.dtype)
        else
            torch.lerp (a, b, weights.``to`` (a.dtype))

    /// lerp strictly between, and the bits of one side at 0 and 1.
    let private move (ends: bool) (inner: bool) (weights: torch.Tensor) (a: torch.Tensor) (b: torch.Tensor) =
        let partner () =
            torch.where (weights.eq (Scope.number 1.0), b, (if inner then lerp weights a b else a))

        if ends then
            torch.where (weights.eq (Scope.number 0.0), a, partner ())
        else
            lerp weights a b

    let private isEnd w = (w = 0.0 || w = 1.0)

    /// Moves by one weight a sample.
    let private toward (weights: float[]) (a: torch.Tensor) (b: torch.Tensor) =
        if Array.forall ((=) 0.0) weights then
            a
        elif Array.forall ((=) 1.0) weights then
            b
        else
            let size = lineUp a weights.Length 1 1 1
            let weights' = torch.tensor (weights, ReadOnlySpan size, device = a.device)
            move (Array.exists isEnd weights) (not (Array.forall isEnd weights)) weights' a b

    /// Moves features `a` towards `b` of the same shape and type, `[N,C]`, `[N,C,L]` or `[N,C,H,W]`: w = 0 gives the bits of `a`, w = 1 the bits of `b`, with `a + w (b - a)` between (equations 3 to 5).
    /// The side that is not taken is not multiplied by zero but not read: neither its infinities nor its gradient's reach the result.
    let blend (weight: Weight) (a: torch.Tensor) (b: torch.Tensor) : torch.Tensor =
        Scope.run (fun () ->
            let mask = weight.Mask
            let size = lineUp a mask.Samples mask.Channels mask.Height mask.Width

            match mask.Values with
            | Hard bits when Array.forall id bits -> a
            | Hard bits when not (Array.exists id bits) -> toward weight.Toward a b
            | Hard bits ->
                let keep = torch.tensor (bits, ReadOnlySpan size, device = a.device)
                torch.where (keep, a, toward weight.Toward a b)
            | Soft own ->
                let own = torch.tensor (own, ReadOnlySpan size, device = a.device)

                let toward =
                    torch.tensor (weight.Toward, ReadOnlySpan(lineUp a weight.Toward.Length 1 1 1), device = a.device)

                move true true (toward - own * toward) a b)
