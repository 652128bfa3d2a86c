/// The minimum cut as a textbook writes it: a network of nodes with a source and a sink, and Dinic's maximum flow (E. A. Dinic, 1970) in
/// phases of shortest paths. The second opinion on the library's solver, and what its time is compared with.
module PatchUp.Tests.Dinic

open System.Collections.Generic
open PatchUp.Functional

/// A network under construction. Arc a and a ^^^ 1 are each other's opposites.
type private Net(nodes: int) =
    let heads = ResizeArray<int>()
    let capacities = ResizeArray<int64>()
    let leaving = Array.init nodes (fun _ -> ResizeArray<int>())

    member _.Add(v, u, forth: int64, back: int64) =
        leaving[v].Add heads.Count
        heads.Add u
        capacities.Add forth
        leaving[u].Add heads.Count
        heads.Add v
        capacities.Add back

    /// The maximum flow, and which nodes the source still reaches when it flows.
    member _.Flow(source: int, sink: int) : int64 * bool[] =
        let head, capacity = heads.ToArray(), capacities.ToArray()
        let leaving = leaving |> Array.map _.ToArray()
        let level = Array.zeroCreate nodes
        let next = Array.zeroCreate nodes

        let search () =
            System.Array.Fill(level, -1)
            level[source] <- 0
            let waiting = Queue [ source ]

            while waiting.Count > 0 do
                let v = waiting.Dequeue()

                for a in leaving[v] do
                    if capacity[a] > 0L && level[head[a]] < 0 then
                        level[head[a]] <- level[v] + 1
                        waiting.Enqueue head[a]

            level[sink] >= 0

        let rec send v (bound: int64) =
            if v = sink then
                bound
            else
                let mutable sent = 0L

                while sent = 0L && next[v] < leaving[v].Length do
                    let a = leaving[v][next[v]]

                    if capacity[a] > 0L && level[head[a]] = level[v] + 1 then
                        sent <- send head[a] (min bound capacity[a])
                        capacity[a] <- capacity[a] - sent
                        capacity[a ^^^ 1] <- capacity[a ^^^ 1] + sent

                    if sent = 0L then
                        next[v] <- next[v] + 1

                sent

        let mutable flow = 0L

        while search () do
            System.Array.Clear next
            let mutable sent = send source System.Int64.MaxValue

            while sent > 0L do
                flow <- flow + sent
                sent <- send source System.Int64.MaxValue

        flow, level |> Array.map (fun level -> level >= 0)

/// The labels of least energy, each as small as possible, and m^2 times that energy from the flow alone.
let solve (energy: GridEnergy) : int[] * int64 =
    let h, w, m = energy.Height, energy.Width, energy.Labels - 1
    let bit cell k = cell * m + k - 1
    let source, sink = h * w * m, h * w * m + 1
    let net = Net(h * w * m + 2)
    let mutable constant = 0L

    // What setting each bit costs by itself.
    let step =
        [| for cell in 0 .. h * w - 1 do
               for k in 1..m ->
                   let unary label =
                       int64 (m * m) * int64 energy.Unary[cell * energy.Labels + label]

                   unary k - unary (k - 1) |]

    for cell in 0 .. h * w - 1 do
        constant <- constant + int64 (m * m) * int64 energy.Unary[cell * energy.Labels]

        for k in 2..m do
            net.Add(bit cell k, bit cell (k - 1), 1L <<< 50, 0L)

    let edge f h (weight: int) =
        for k in 1..m do
            for cell in [ f; h ] do
                step[bit cell k] <-
                    step[bit cell k]
                    + int64 weight * int64 (k * k - m * k - (k - 1) * (k - 1) + m * (k - 1))

            for other in 1..m do
                net.Add(bit f k, bit h other, int64 weight, int64 weight)

    for r in 0 .. h - 1 do
        for q in 0 .. w - 1 do
            if r + 1 < h then
                edge (r * w + q) ((r + 1) * w + q) energy.Vertical[r * w + q]

            if q + 1 < w then
                edge (r * w + q) (r * w + q + 1) energy.Horizontal[r * (w - 1) + q]

    step
    |> Array.iteri (fun node cost ->
        if cost < 0L then
            constant <- constant + cost
            net.Add(source, node, -cost, 0L)
        else
            net.Add(node, sink, cost, 0L))

    let flow, reached = net.Flow(source, sink)

    let labels =
        Array.init (h * w) (fun cell -> Seq.length (Seq.filter (fun k -> reached[bit cell k]) (seq { 1..m })))

    labels, constant + flow
