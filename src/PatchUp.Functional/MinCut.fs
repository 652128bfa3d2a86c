namespace PatchUp.Functional

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Threading.Tasks

/// The energy of labels 0 .. m of the cells of an H x W grid, m = `Labels` - 1:
///
///     E(l) = sum over cells of Unary[c, l_c]  +  sum over neighbours f, h of Weight[f, h] (l_f - l_h)^2 / m^2
///
/// Integers, so that a minimum is exact and the same on every machine.
[<NoComparison; RequireQualifiedAccess>]
type GridEnergy =
    {
        Height: int
        Width: int
        /// m + 1, at least 2.
        Labels: int
        /// What each label costs each cell, `[H, W, m + 1]` row-major; may be negative.
        Unary: int[]
        /// The weight between (r, q) and (r + 1, q), `[H - 1, W]` row-major; not negative.
        Vertical: int[]
        /// The weight between (r, q) and (r, q + 1), `[H, W - 1]` row-major; not negative.
        Horizontal: int[]
    }

/// A labeling of least energy, and the proof that it is.
[<NoComparison; RequireQualifiedAccess>]
type GridCut =
    {
        /// The label of each cell, `[H, W]` row-major.
        Labels: int[]
        /// m^2 times the least energy, as the value of the maximum flow (and a constant): no labeling's energy is below.
        Minimum: int64
    }

/// Independent work on indices, for one worker after another or for several at once.
module internal Workers =

    /// `work state i` for i of 0 .. count - 1, with a state for each worker. The failure that is raised is that of the first index that fails,
    /// however many workers there are.
    let each (isLarge: bool) (count: int) (makeState: unit -> 'state) (work: 'state -> int -> unit) : unit =
        let inOrder () =
            let state = makeState ()

            for i in 0 .. count - 1 do
                work state i

        if isLarge && count > 1 && Environment.ProcessorCount > 1 then
            try
                Parallel.For(
                    0,
                    count,
                    ParallelOptions(MaxDegreeOfParallelism = Environment.ProcessorCount),
                    makeState,
                    (fun i _ state ->
                        work state i
                        state),
                    ignore
                )
                |> ignore
            with :? AggregateException ->
                // Once more, to raise what a single worker raises.
                inOrder ()
        else
            inOrder ()

/// The arcs of a grid's flow network, grouped by the node that they leave; the capacities are an image's own. Node (c, k) is c m + k - 1:
/// the bit "the label of cell c is at least k". Shared between threads.
[<NoEquality; NoComparison>]
type private Network =
    {
        /// The arcs that leave node v are First[v] .. First[v + 1] - 1.
        First: int[]
        /// The node that an arc enters.
        Head: int[]
        /// The arc of the opposite direction.
        Sister: int[]
        /// Where an arc's capacity stands among: the vertical weights, the horizontal weights, "no limit", 0.
        Capacity: int[]
    }

module private Network =

    /// The arcs (from, to, capacity forth, capacity back) of Ishikawa's construction (H. Ishikawa, "Exact optimization for Markov random fields
    /// with convex priors", PAMI 2003), for squared differences: those of two cells' bits that differ, whichever bits they are, and within a
    /// cell none from which the higher bit could be set without the lower.
    let private arcs height width labels =
        let cuts = labels - 1
        let vertical = (height - 1) * width
        let horizontal = height * (width - 1)

        let between f h weight =
            seq {
                for a in 0 .. cuts - 1 do
                    for b in 0 .. cuts - 1 -> struct (f * cuts + a, h * cuts + b, weight, weight)
            }

        seq {
            for cell in 0 .. height * width - 1 do
                for k in 1 .. cuts - 1 ->
                    struct (cell * cuts + k, cell * cuts + k - 1, vertical + horizontal, vertical + horizontal + 1)

            for i in 0 .. vertical - 1 do
                yield! between i (i + width) i

            for i in 0 .. horizontal - 1 do
                let cell = i / (width - 1) * width + i % (width - 1)
                yield! between cell (cell + 1) (vertical + i)
        }

    let private create struct (height, width, labels) =
        let arcs = arcs height width labels |> Array.ofSeq
        let nodes = height * width * (labels - 1)
        let first = Array.zeroCreate (nodes + 1)

        for struct (v, u, _, _) in arcs do
            first[v + 1] <- first[v + 1] + 1
            first[u + 1] <- first[u + 1] + 1

        for v in 1..nodes do
            first[v] <- first[v] + first[v - 1]

        let next = Array.copy first
        let head = Array.zeroCreate (2 * arcs.Length)
        let sister = Array.zeroCreate (2 * arcs.Length)
        let capacity = Array.zeroCreate (2 * arcs.Length)

        for struct (v, u, forth, back) in arcs do
            let a, b = next[v], next[u]
            next[v] <- a + 1
            next[u] <- b + 1
            head[a] <- u
            head[b] <- v
            sister[a] <- b
            sister[b] <- a
            capacity[a] <- forth
            capacity[b] <- back

        { First = first
          Head = head
          Sister = sister
          Capacity = capacity }

    let private made = ConcurrentDictionary<struct (int * int * int), Lazy<Network>>()

    /// The network of a grid, made once for each size, and kept.
    let ofGrid (energy: GridEnergy) : Network =
        let make size = lazy (create size)
        made.GetOrAdd(struct (energy.Height, energy.Width, energy.Labels), make).Value

/// What one worker needs to solve grids of one size: the maximum flow of Y. Boykov and V. Kolmogorov, "An experimental comparison of
/// min-cut/max-flow algorithms for energy minimization in vision", PAMI 2004. Two search trees grow from the source and from the sink until
/// they meet; the path is saturated; what it cut off looks for a new parent in its tree, or becomes free. The names are the paper's.
[<Sealed>]
type private Solver(network: Network, limit: int) =
    let free, source, sink = 0y, 1y, 2y
    // A parent is an arc to it, or one of these.
    let noParent, terminalItself = -1, -2
    let first, head, sister = network.First, network.Head, network.Sister
    let nodes = first.Length - 1
    let residual: int[] = Array.zeroCreate head.Length
    // The residual capacity from the source where positive, to the sink where negative: no node has both.
    let terminal: int[] = Array.zeroCreate nodes
    let tree: sbyte[] = Array.zeroCreate nodes
    let parent: int[] = Array.zeroCreate nodes
    // The last stage of adoption in which the node was known to hang from its terminal.
    let rooted: int[] = Array.zeroCreate nodes
    let active = Queue<int>()
    let isActive: bool[] = Array.zeroCreate nodes
    let orphans = Queue<int>()
    let mutable stage = 0
    // Of the first active node, the first arc that may lead out of its tree; 0 where that is not known.
    let mutable scanned = 0

    let activate p =
        if not isActive[p] then
            isActive[p] <- true
            active.Enqueue p
        elif active.Peek() = p then
            scanned <- 0

    /// tree_cap(p -> q) for the arc of p to q: what can flow along it from the source, or against it to the sink.
    let capacityDown side arc =
        if side = source then
            residual[arc]
        else
            residual[sister[arc]]

    /// tree_cap(q -> p) for the arc of p to q.
    let capacityUp side arc =
        if side = source then
            residual[sister[arc]]
        else
            residual[arc]

    /// The arc, from the source's tree to the sink's, where the trees have met; -1 if they cannot grow.
    let grow () =
        let mutable bridge = -1

        while bridge < 0 && active.Count > 0 do
            let p = active.Peek()
            let side = tree[p]
            let until = first[p + 1]
            let mutable arc = if side = free then until else max scanned first[p]

            while bridge < 0 && arc < until do
                if capacityDown side arc > 0 then
                    let q = head[arc]

                    if tree[q] = free then
                        tree[q] <- side
                        parent[q] <- sister[arc]
                        activate q
                    elif tree[q] <> side then
                        bridge <- if side = source then arc else sister[arc]

                if bridge < 0 then
                    arc <- arc + 1

            if bridge < 0 then
                isActive[active.Dequeue()] <- false
                scanned <- 0
            else
                scanned <- arc

        bridge

    let bereave p =
        parent[p] <- noParent
        orphans.Enqueue p

    /// The smallest capacity on the tree's path between p and its terminal, and at most `bound`.
    let bottleneck p side bound =
        let mutable smallest = bound
        let mutable p = p

        while parent[p] <> terminalItself do
            smallest <- min smallest (capacityUp side parent[p])
            p <- head[parent[p]]

        min smallest (abs terminal[p])

    /// Takes `flow` off the capacities of the path between p and its terminal.
    let push p side flow =
        let mutable p = p

        while parent[p] <> terminalItself do
            let up = parent[p]
            let along = if side = source then sister[up] else up
            residual[along] <- residual[along] - flow
            residual[sister[along]] <- residual[sister[along]] + flow

            if residual[along] = 0 then
                bereave p

            p <- head[up]

        terminal[p] <- terminal[p] - (if side = source then flow else -flow)

        if terminal[p] = 0 then
            bereave p

    let augment bridge =
        let p, q = head[sister[bridge]], head[bridge]
        let flow = bottleneck q sink (bottleneck p source residual[bridge])
        residual[bridge] <- residual[bridge] - flow
        residual[sister[bridge]] <- residual[sister[bridge]] + flow
        push p source flow
        push q sink flow
        int64 flow

    /// Whether the path from p up its tree ends at the terminal, and not at an orphan. What was found to stays so for the whole stage of
    /// adoption: the nodes above it are no orphans, and only the children of orphans become orphans.
    let isRooted p =
        let mutable q = p

        while rooted[q] <> stage && parent[q] >= 0 do
            q <- head[parent[q]]

        let found = rooted[q] = stage || parent[q] = terminalItself

        if found then
            let mutable q = p

            while rooted[q] <> stage do
                rooted[q] <- stage

                if parent[q] >= 0 then
                    q <- head[parent[q]]

        found

    let adopt p =
        let side = tree[p]
        let mutable arc = first[p]

        while parent[p] = noParent && arc < first[p + 1] do
            let q = head[arc]

            if tree[q] = side && capacityUp side arc > 0 && isRooted q then
                parent[p] <- arc

            arc <- arc + 1

        if parent[p] = noParent then
            for arc in first[p] .. first[p + 1] - 1 do
                let q = head[arc]

                if tree[q] = side then
                    if capacityUp side arc > 0 then
                        activate q

                    if parent[q] = sister[arc] then
                        bereave q

            tree[p] <- free

    let maximumFlow () =
        active.Clear()
        scanned <- 0
        stage <- 0

        for p in 0 .. nodes - 1 do
            isActive[p] <- false
            rooted[p] <- 0
            parent[p] <- terminalItself

            tree[p] <-
                if terminal[p] > 0 then source
                elif terminal[p] < 0 then sink
                else free

            if tree[p] <> free then
                activate p

        let mutable flow = 0L
        let mutable bridge = grow ()

        while bridge >= 0 do
            flow <- flow + augment bridge
            stage <- stage + 1

            while orphans.Count > 0 do
                adopt (orphans.Dequeue())

            bridge <- grow ()

        flow

    /// Sets the capacities from an energy whose sizes are this network's and whose weights are checked; returns the energy's constant.
    /// With x, y the numbers of set bits, (x - y)^2 = (x^2 - m x) + (y^2 - m y) + the number of pairs of unlike bits, one bit of each cell.
    let fill (energy: GridEnergy) =
        let height, width, cuts = energy.Height, energy.Width, energy.Labels - 1
        let vertical, horizontal = energy.Vertical, energy.Horizontal

        for arc in 0 .. residual.Length - 1 do
            let i = network.Capacity[arc]

            residual[arc] <-
                if i < vertical.Length then
                    vertical[i]
                elif i < vertical.Length + horizontal.Length then
                    horizontal[i - vertical.Length]
                elif i = vertical.Length + horizontal.Length then
                    limit
                else
                    0

        let mutable constant = 0L
        let mutable gains, losses = 0L, 0L

        for cell in 0 .. height * width - 1 do
            let row, column = cell / width, cell % width

            let weight (weights: int[]) isThere i =
                if isThere then int64 weights[i] else 0L

            let around =
                weight vertical (row > 0) (cell - width)
                + weight vertical (row < height - 1) cell
                + weight horizontal (column > 0) (cell - row - 1)
                + weight horizontal (column < width - 1) (cell - row)

            let unary = energy.Unary.AsSpan(cell * energy.Labels, energy.Labels)
            constant <- constant + int64 (cuts * cuts) * int64 unary[0]

            for k in 1..cuts do
                let step =
                    int64 (cuts * cuts) * (int64 unary[k] - int64 unary[k - 1])
                    + around * int64 (2 * k - 1 - cuts)

                if step < 0L then
                    constant <- constant + step
                    gains <- gains - step
                else
                    losses <- losses + step

                if gains >= int64 limit || losses >= int64 limit then
                    invalidArg
                        (nameof energy)
                        ($"The energy's terms, times m^2 = {cuts * cuts}, add up to {max gains losses} and more; "
                         + $"at most {limit - 1} is allowed. Scale the unaries and the weights down.")

                terminal[cell * cuts + k - 1] <- int -step

        constant

    member _.Network = network

    member _.Solve(energy: GridEnergy) : GridCut =
        let cuts = energy.Labels - 1
        let constant = fill energy
        let flow = maximumFlow ()

        let labels =
            Array.init (energy.Height * energy.Width) (fun cell ->
                let mutable label = 0

                for k in cell * cuts .. cell * cuts + cuts - 1 do
                    if tree[k] = source then
                        label <- label + 1

                label)

        { Labels = labels
          Minimum = constant + flow }

/// Labelings of a grid of least energy, exactly: the energies of PuzzleMix (Kim, Choo and Song 2020), or of one's own.
[<RequireQualifiedAccess>]
module MinCut =

    /// Capacities lie below, so that the sum of an arc's two fits 32 bits.
    let private limit = 1 <<< 30

    let private largestNetwork = 1L <<< 24

    /// An ArgumentException unless the energy's sizes fit each other, and its weights fit the solver.
    let private check (energy: GridEnergy) =
        let height, width, labels = energy.Height, energy.Width, energy.Labels

        if height < 1 || width < 1 || labels < 2 then
            invalidArg
                (nameof energy)
                $"A grid of {height} x {width} cells with {labels} labels: at least one cell and two labels are needed."

        let cells = Math.BigMul(height, width)
        let edges = 2L * cells - int64 height - int64 width
        let cuts = int64 labels - 1L

        // In this order: no product leaves 64 bits.
        if
            cells > largestNetwork
            || cuts > 4096L
            || (cells + edges) * cuts * cuts > largestNetwork
        then
            invalidArg
                (nameof energy)
                ($"A grid of {height} x {width} cells with {labels} labels is too large: "
                 + $"cells and edges times (labels - 1)^2 may be {largestNetwork}.")

        let sized name (values: int[]) length =
            if values.Length <> length then
                invalidArg
                    (nameof energy)
                    $"{name}: {height} x {width} cells with {labels} labels need {length} numbers, not {values.Length}."

        sized "Unary" energy.Unary (height * width * labels)
        sized "Vertical" energy.Vertical ((height - 1) * width)
        sized "Horizontal" energy.Horizontal (height * (width - 1))

        let weights name (values: int[]) =
            for value in values do
                if value < 0 || value >= limit then
                    invalidArg (nameof energy) $"{name} holds {value}; a weight must lie in 0 .. {limit - 1}."

        weights "Vertical" energy.Vertical
        weights "Horizontal" energy.Horizontal

    let private checkLabels (energy: GridEnergy) (labels: int[]) =
        if labels.Length <> energy.Height * energy.Width then
            invalidArg
                (nameof labels)
                $"{energy.Height} x {energy.Width} cells need as many labels, not {labels.Length}."

        match labels |> Array.tryFind (fun label -> label < 0 || label >= energy.Labels) with
        | Some label -> invalidArg (nameof labels) $"The label {label} is not one of 0 .. {energy.Labels - 1}."
        | None -> ()

    /// m^2 times the energy of a labeling `[H, W]`, an integer.
    let energy (energy: GridEnergy) (labels: int[]) : int64 =
        check energy
        checkLabels energy labels
        let width, cuts = energy.Width, energy.Labels - 1
        let mutable unaries, pairs = 0L, 0L

        let pair weight f h =
            let difference = int64 (labels[f] - labels[h])
            pairs <- pairs + int64 weight * difference * difference

        for cell in 0 .. labels.Length - 1 do
            unaries <- unaries + int64 energy.Unary[cell * energy.Labels + labels[cell]]

        energy.Vertical |> Array.iteri (fun i weight -> pair weight i (i + width))

        energy.Horizontal
        |> Array.iteri (fun i weight ->
            let cell = i / (width - 1) * width + i % (width - 1)
            pair weight cell (cell + 1))

        int64 cuts * int64 cuts * unaries + pairs

    /// A worker's solvers: one, until a grid of another size comes.
    type internal Worker() =
        let mutable solver: Solver = Unchecked.defaultof<_>

        member _.Solve(energy: GridEnergy) : GridCut =
            check energy
            let network = Network.ofGrid energy

            if isNull (box solver) || not (obj.ReferenceEquals(solver.Network, network)) then
                solver <- Solver(network, limit)

            solver.Solve energy

    /// Whether grids of so many unaries in all are worth several workers: some milliseconds of work.
    let internal isLarge (unaries: int64) = unaries >= 8192L

    /// A labeling of least energy, and the value of the flow that proves it. Of all labelings of least energy it is the one whose labels
    /// are smallest, in every cell. An ArgumentException if sizes do not fit, a weight is negative, or the terms, times m^2, leave 30 bits.
    let solve (energy: GridEnergy) : GridCut = Worker().Solve energy

    /// A labeling of least energy, `[H, W]`: `solve` without the proof.
    let gridLabels (energy: GridEnergy) : int[] = (solve energy).Labels

    /// `gridLabels` for each energy; the same with any number of processors.
    let gridLabelsAll (energies: GridEnergy[]) : int[][] =
        let unaries = energies |> Array.sumBy (fun energy -> int64 energy.Unary.Length)
        let labels = Array.zeroCreate energies.Length

        Workers.each (isLarge unaries) energies.Length Worker (fun worker i ->
            labels[i] <- worker.Solve(energies[i]).Labels)

        labels
