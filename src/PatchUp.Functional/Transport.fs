namespace PatchUp.Functional

open System
open System.Collections.Concurrent

/// The moves within an n x n grid by increasing length, of equal length in row-major order of where they lead.
[<NoEquality; NoComparison>]
type private Moves =
    {
        Rows: int[]
        Columns: int[]
        /// The squared length over (n - 1)^2.
        Distances: float32[]
    }

module private Moves =

    let private create n =
        let moves =
            Array.allPairs [| 1 - n .. n - 1 |] [| 1 - n .. n - 1 |]
            |> Array.sortBy (fun (rows, columns) -> rows * rows + columns * columns, rows, columns)

        { Rows = Array.map fst moves
          Columns = Array.map snd moves
          Distances =
            moves
            |> Array.map (fun (rows, columns) ->
                float32 (rows * rows + columns * columns) / float32 ((n - 1) * (n - 1))) }

    let private made = ConcurrentDictionary<int, Lazy<Moves>>()

    /// The moves of a grid, made once.
    let ofGrid (n: int) : Moves =
        let make n = lazy (create n)
        made.GetOrAdd(n, make).Value

/// What one worker needs to transport masks of n x n cells.
[<Sealed>]
type internal Transporter(n: int) =
    let moves = Moves.ofGrid n
    let cells = n * n
    // Who holds a cell, at what cost; -1 for nobody.
    let holder: int[] = Array.zeroCreate cells
    let held: float32[] = Array.zeroCreate cells
    // The move that a source proposes, or proposes next.
    let proposal: int[] = Array.zeroCreate cells
    let mutable free: int[] = Array.zeroCreate cells
    let mutable freed: int[] = Array.zeroCreate cells

    /// The cell that source i proposes to, from its proposal on: the nearest that is masked and worth the way; -1 if there is none left.
    let target (tEps: float32) (saliency: float32) (masked: bool[]) i =
        let row, column = i / n, i % n
        let mutable found = -1
        let mutable move = proposal[i]

        while found < 0
              && move < moves.Distances.Length
              && tEps * moves.Distances[move] < saliency do
            let r, q = row + moves.Rows[move], column + moves.Columns[move]

            if r >= 0 && r < n && q >= 0 && q < n && masked[r * n + q] then
                found <- r * n + q
            else
                move <- move + 1

        proposal[i] <- move
        found

    member _.Grid = n

    /// Writes the source of each cell to `sources`, from `into` on; the saliency of the first cell is at `from`.
    member _.Run(tEps: float32, masked: bool[], saliency: float32[], from: int, sources: int[], into: int) : unit =
        let mutable count = cells
        let mutable round = 0

        for i in 0 .. cells - 1 do
            holder[i] <- -1
            proposal[i] <- 0
            free[i] <- i

        while count > 0 && round < n do
            let mutable left = 0

            let release i =
                proposal[i] <- proposal[i] + 1
                freed[left] <- i
                left <- left + 1

            for k in 0 .. count - 1 do
                let i = free[k]
                let j = target tEps saliency[from + i] masked i

                if j >= 0 then
                    let cost = tEps * moves.Distances[proposal[i]] - saliency[from + i]
                    let other = holder[j]

                    if other < 0 || cost < held[j] || (cost = held[j] && i < other) then
                        holder[j] <- i
                        held[j] <- cost

                        if other >= 0 then
                            release other
                    else
                        release i

            let swapped = free
            free <- freed
            freed <- swapped
            count <- left
            round <- round + 1

        for j in 0 .. cells - 1 do
            sources[into + j] <- if holder[j] >= 0 then holder[j] else j

/// PuzzleMix's transport of a mask: which cell's content is shown in each cell of an n x n grid, so that salient cells move under the mask. Each
/// round, every cell without a place proposes to the nearest masked cell where the way costs less than its saliency and where it was not refused; a
/// masked cell keeps the cheapest (deferred acceptance, Gale and Shapley 1962). This is the authors' iteration of n rounds on n^2 x n^2 costs.
[<RequireQualifiedAccess>]
module Transport =

    /// The source of each cell, `[n, n]` row-major. Over the masked cells no source is taken twice, and the sum of
    ///
    ///     t_eps |i - j|^2 / (n - 1)^2 - saliency[i],   i the source of j,
    ///
    /// is at most what it is when nothing moves; a cell that is not masked, or that nobody wants, is its own source. `saliency` is `[n, n]` with
    /// sum 1. An ArgumentException if n is below 2, t_eps is negative or not finite, or either array has not n^2 values.
    let sources (n: int) (tEps: float) (masked: bool[]) (saliency: float32[]) : int[] =
        if n < 2 then
            invalidArg (nameof n) $"A grid of {n} x {n} cells: at least 2 x 2 are needed."

        if not (tEps >= 0.0 && Double.IsFinite tEps) then
            invalidArg (nameof tEps) $"t_eps is {tEps}; it must be finite and not negative."

        let cells = Math.BigMul(n, n)

        if int64 masked.Length <> cells || int64 saliency.Length <> cells then
            invalidArg
                (nameof masked)
                ($"{n} x {n} cells need {cells} bits of the mask and {cells} saliencies, "
                 + $"not {masked.Length} and {saliency.Length}.")

        let sources = Array.zeroCreate masked.Length
        Transporter(n).Run(float32 tEps, masked, saliency, 0, sources, 0)
        sources
