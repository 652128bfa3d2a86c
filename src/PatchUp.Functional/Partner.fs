namespace PatchUp.Functional

/// Whose features take the altered ones' place: one map for the whole batch.
type Partner =
    /// Nobody's: the features become zero, and labels stay.
    | Blank
    /// Each sample's own.
    | Self
    /// A uniformly random permutation's; a sample may meet itself (the papers' choice).
    | Shuffled
    /// A uniformly random permutation's without fixed points.
    | Derangement
    /// The sample's that comes `by` places later, cyclically.
    | Rolled of by: int
    /// Another sample's of the same class: a random permutation without fixed points within each class.
    | SameClass
    /// A sample's of another class, uniformly.
    | OtherClass

[<RequireQualifiedAccess>]
module Partner =

    /// A uniform permutation of `n >= 2` without fixed points: permutations are tried until one has none (2.7 tries on average).
    let rec private derangement (n: int) (key: Key) : int[] =
        let order = Key.permutation n (Key.child 0 key)

        if order |> Array.indexed |> Array.exists (fun (i, j) -> i = j) then
            derangement n (Key.child 1 key)
        else
            order

    let private derangementOrSelf n key =
        if n < 2 then Array.init n id else derangement n key

    let private labels partner (info: BatchInfo) =
        match info.Labels with
        | Some labels when labels.Length = info.Count -> labels
        | Some labels ->
            invalidArg (nameof info) $"The pairing {partner} was given {labels.Length} labels for {info.Count} samples."
        | None ->
            invalidArg
                (nameof info)
                $"The pairing {partner} needs the class index of every sample: set Labels in the batch's information."

    /// The index of each sample's partner, `[N]`; None for `Blank`. A batch of one, or no sample of the wanted class: the sample itself.
    /// An ArgumentException if a class pairing is drawn without labels.
    let draw (key: Key) (info: BatchInfo) (partner: Partner) : int[] option =
        let n = info.Count
        let key = BatchInfo.partKey info key

        match partner with
        | Blank -> None
        | Self -> Some(Array.init n id)
        | Shuffled -> Some(Key.permutation n key)
        | Derangement -> Some(derangementOrSelf n key)
        | Rolled by -> Some(Array.init n (fun i -> int ((int64 i + int64 by % int64 n + int64 n) % int64 n)))
        | SameClass ->
            let map = Array.init n id

            for label, members in labels partner info |> Array.indexed |> Array.groupBy snd do
                let members = Array.map fst members

                derangementOrSelf members.Length (Key.child label key)
                |> Array.iteri (fun i j -> map[members[i]] <- members[j])

            Some map
        | OtherClass ->
            let labels = labels partner info
            let bits = Key.stream key

            Some(
                Array.init n (fun i ->
                    let others =
                        [| for j in 0 .. n - 1 do
                               if labels[j] <> labels[i] then
                                   j |]

                    if others.Length = 0 then
                        i
                    else
                        others[bits.Below others.Length])
            )
