namespace PatchUp.Functional

open System
open System.Globalization

/// Why a text is not a regularizer.
type NotationError =
    {
        /// The character where it went wrong, counted from 1.
        Position: int
        /// What was expected or is not allowed there, and what was found.
        Message: string
    }

    override this.ToString() =
        $"at character {this.Position}: {this.Message}"

/// What a text may name besides the words of the library.
[<NoEquality; NoComparison>]
type Vocabulary =
    {
        /// Custom regions, made from their arguments.
        Customs: Map<string, float list -> Region>
        /// Custom distributions, made from their arguments.
        Dists: Map<string, float list -> Dist>
        /// Whole regularizers.
        Named: Map<string, Regularizer>
    }

/// Regularizers as text: `show` writes the line that one would write in F#, `parse` reads it back to an equal value.
[<RequireQualifiedAccess>]
module Notation =

    // ---- show ----

    let private number (value: float) =
        value.ToString("R", CultureInfo.InvariantCulture)

    let private atomic (text: string) =
        if text.Contains ' ' then $"({text})" else text

    let private customShown (name: string) (arguments: float list) =
        String.Join(' ', name :: List.map number arguments)

    /// A distribution, as it stands behind `rect` or `blend`.
    let showDist (dist: Dist) : string =
        match dist with
        | Always value -> $"(always {number value})"
        | Uniform -> "uniform"
        | Beta(a, b) -> $"(beta {number a} {number b})"
        | CustomDist custom -> atomic (customShown custom.Name custom.Arguments)

    /// A region, as it stands before a pipe.
    let rec showRegion (region: Region) : string =
        match region with
        | Nowhere -> "nowhere"
        | Everywhere -> "everywhere"
        | Cells fraction -> $"cells {number fraction}"
        | Channels fraction -> $"channels {number fraction}"
        | Blocks(size, fraction, calibration) ->
            let suffix =
                match calibration with
                | Exact -> ""
                | Paper -> " paper"
                | Valid -> " valid"

            $"blocks {size} {number fraction}{suffix}"
        | Rect area -> $"rect {showDist area}"
        | Not a -> $"~~~{atomic (showRegion a)}"
        | And(a, b) -> $"{operand a} &&& {operand b}"
        | Or(a, b) -> $"{operand a} ||| {operand b}"
        | PerSample a -> $"perSample {atomic (showRegion a)}"
        | PerChannel a -> $"perChannel {atomic (showRegion a)}"
        | Shared a -> $"shared {atomic (showRegion a)}"
        | Custom custom -> customShown custom.Name custom.Arguments

    and private operand region =
        match region with
        | And _
        | Or _ -> $"({showRegion region})"
        | _ -> showRegion region

    let private sites (site: Site) =
        let list show places =
            "[" + String.Join("; ", List.map show places) + "]"

        let isNumber place =
            match place with
            | Number _ -> true
            | Name _ -> false

        // Numbers as in `atAny [0; 1]`; a list with a name in it shows the input as "input".
        let show place =
            match place with
            | Number k -> string k
            | Name name -> $"\"{name}\""

        match site with
        | At(Number 0) -> "at input"
        | At(Number k) -> $"at {k}"
        | At(Name name) -> $"after \"{name}\""
        | AnyOf places ->
            (if List.exists isNumber places then
                 "atAny "
             else
                 "afterAny ")
            + list show places
        | AllOf places ->
            (if List.exists isNumber places then
                 "atAll "
             else
                 "afterAll ")
            + list show places

    let private objective (objective: Objective) =
        if objective = Objective.reweighted then
            None
        elif objective = Objective.twoTerm then
            Some "twoTerm"
        elif objective = Objective.first then
            Some "first"
        else
            Some $"terms {number objective.First} {number objective.Second}"

    let private step (step: Step) =
        [ Some(showRegion step.Region)
          (match step.Mix, step.Partner with
           | Swap, Blank -> Some "blank"
           | Swap, _ -> Some "swap"
           | Blend lambda, _ -> Some $"blend {showDist lambda}"
           | BlendEach lambda, _ -> Some $"blendEach {showDist lambda}")
          (match step.Partner, step.Mix with
           | Shuffled, _
           | Blank, Swap -> None
           | Rolled by, _ -> Some $"pairedBy (Rolled {by})"
           | partner, _ -> Some $"pairedBy {partner}")
          (match step.View with
           | AsIs -> None
           | Resized -> Some "resized"
           | Transported -> Some "transported")
          (match step.Rescale with
           | NoRescale -> None
           | kind -> Some $"rescale {kind}")
          Some(sites step.Site)
          objective step.Objective ]
        |> List.choose id
        |> String.concat " |> "

    /// The objective that every step below a choice names, which is then written once, behind it.
    let private common regularizer =
        match regularizer with
        | Choose [ _, Do _; _, Sequence [] ] -> None
        | Choose _
        | Over _ ->
            let rec isPlain r =
                match r with
                | Do _ -> true
                | Choose branches
                | Over branches -> branches |> List.forall (snd >> isPlain)
                | Sequence parts -> parts.IsEmpty

            match Regularizer.steps regularizer |> List.map _.Objective |> List.distinct with
            | [ one ] when one <> Objective.reweighted && isPlain regularizer -> Some one
            | _ -> None
        | _ -> None

    /// One line that `parse` reads back to an equal value.
    let rec show (regularizer: Regularizer) : string =
        match common regularizer, regularizer with
        | Some shared, _ ->
            let bare =
                regularizer
                |> Regularizer.map (fun step ->
                    { step with
                        Objective = Objective.reweighted })

            match bare with
            // The objective stands before the probability, as one would write it.
            | Choose [ p, inner; q, Sequence [] ] when q = 1.0 - p ->
                $"{show inner} |> {(objective shared).Value} |> sometimes {number p}"
            | _ -> $"{show bare} |> {(objective shared).Value}"
        | None, Do one -> step one
        | None, Choose [ p, inner; q, Sequence [] ] when q = 1.0 - p -> $"{show inner} |> sometimes {number p}"
        | None, Choose branches -> $"oneOf [{listed branches}]"
        | None, Over points -> $"over [{listed points}]"
        | None, Sequence [] -> "identity"
        | None, Sequence parts -> "sequence [" + String.Join("; ", List.map show parts) + "]"

    and private listed (branches: (float * Regularizer) list) : string =
        branches
        |> List.map (fun (weight, r) -> $"{number weight}, {show r}")
        |> String.concat "; "

    // ---- parse ----

    type private Token =
        | Word of string
        | Num of float
        | Quoted of string
        | Symbol of string
        | End

    exception private Fault of position: int * message: string

    let private fault position message = raise (Fault(position, message))

    let private describe token =
        match token with
        | Word word -> $"'{word}'"
        | Num value -> number value
        | Quoted text -> $"\"{text}\""
        | Symbol symbol -> $"'{symbol}'"
        | End -> "the end"

    /// How long a text may be, and how deep its parentheses and lists.
    let private longest = 20000

    let private deepest = 200

    let private symbols = [ "|>"; "|||"; "&&&"; "~~~"; "("; ")"; "["; "]"; ","; ";" ]

    let private tokens (text: string) : struct (Token * int)[] =
        let isWordPart i =
            Char.IsAsciiLetterOrDigit text[i]
            || (text[i] = '-' && i + 1 < text.Length && Char.IsAsciiLetterOrDigit text[i + 1])

        let isNumberPart start i =
            Char.IsAsciiLetterOrDigit text[i]
            || text[i] = '.'
            || ((text[i] = '-' || text[i] = '+')
                && i > start
                && Char.ToLowerInvariant text[i - 1] = 'e')

        let rec run isPart i =
            if i < text.Length && isPart i then
                run isPart (i + 1)
            else
                i

        // The token that begins at i, and where it ends.
        let token i : struct (Token * int) =
            if Char.IsAsciiLetter text[i] then
                let until = run isWordPart i
                struct (Word text[i .. until - 1], until)
            elif Char.IsAsciiDigit text[i] || text[i] = '.' || text[i] = '-' then
                let until = run (isNumberPart i) (i + 1)
                let part = text[i .. until - 1]

                match Double.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture) with
                | true, value when Double.IsFinite value -> struct (Num value, until)
                | _ -> fault i $"'{part}' is not a number"
            elif text[i] = '"' then
                match text.IndexOf('"', i + 1) with
                | -1 -> fault i "a name that begins with a quotation mark must end with one"
                | until -> struct (Quoted text[i + 1 .. until - 1], until + 1)
            else
                match
                    symbols
                    |> List.tryFind (fun s -> String.CompareOrdinal(text, i, s, 0, s.Length) = 0)
                with
                | Some symbol -> struct (Symbol symbol, i + symbol.Length)
                | None -> fault i $"'{text[i]}' has no meaning here"

        if text.Length > longest then
            fault longest $"the text is longer than {longest} characters"

        [| let mutable i = run (fun i -> Char.IsWhiteSpace text[i]) 0

           while i < text.Length do
               let struct (found, until) = token i
               struct (found, i)
               i <- run (fun i -> Char.IsWhiteSpace text[i]) until

           struct (End, text.Length) |]

    /// The distance between two words: insertions, deletions and exchanges of a letter, and swaps of two neighbours.
    let private distance (a: string) (b: string) =
        let d =
            Array2D.init (a.Length + 1) (b.Length + 1) (fun i j -> if i = 0 then j else i)

        for i in 1 .. a.Length do
            for j in 1 .. b.Length do
                let exchange = d[i - 1, j - 1] + (if a[i - 1] = b[j - 1] then 0 else 1)
                let least = min exchange (1 + min d[i - 1, j] d[i, j - 1])

                d[i, j] <-
                    if i > 1 && j > 1 && a[i - 1] = b[j - 2] && a[i - 2] = b[j - 1] then
                        min least (d[i - 2, j - 2] + 1)
                    else
                        least

        d[a.Length, b.Length]

    /// The known word nearest to one that is unknown, if it is near.
    let nearest (known: string seq) (word: string) : string option =
        known
        |> Seq.map (fun candidate -> distance (word.ToLowerInvariant()) (candidate.ToLowerInvariant()), candidate)
        |> Seq.filter (fun (d, _) -> d <= max 1 (word.Length / 3))
        |> Seq.sort
        |> Seq.tryHead
        |> Option.map snd

    type private Value =
        | RegionValue of Region
        | RegularizerValue of Regularizer

    let private asRegularizer value =
        match value with
        | RegionValue region -> Words.swap region
        | RegularizerValue regularizer -> regularizer

    let private partners =
        [ "Blank", Blank
          "Self", Self
          "Shuffled", Shuffled
          "Derangement", Derangement
          "SameClass", SameClass
          "OtherClass", OtherClass ]

    let private rescales =
        [ "NoRescale", NoRescale; "Nominal", Nominal; "Batch", Batch; "Sample", Sample ]

    let private granularities =
        [ "perSample", PerSample; "perChannel", PerChannel; "shared", Shared ]

    let private openers =
        [ "nowhere"
          "everywhere"
          "cells"
          "blocks"
          "rect"
          "channels"
          "oneOf"
          "over"
          "sequence"
          "identity" ]
        @ List.map fst granularities

    let private modifiers =
        [ "swap"
          "blend"
          "blendEach"
          "blank"
          "pairedBy"
          "resized"
          "transported"
          "rescale" ]
        @ [ "at"; "atAny"; "atAll"; "after"; "afterAny"; "afterAll" ]
        @ [ "twoTerm"; "first"; "second"; "reweighted"; "terms"; "sometimes" ]
        @ List.map fst granularities

    type private Parser(text: string, vocabulary: Vocabulary) =
        let tokens = tokens text
        let mutable next = 0

        let peek () =
            let struct (token, _) = tokens[next]
            token

        let position () =
            let struct (_, position) = tokens[next]
            position

        let advance () = next <- next + 1

        let expected what =
            fault (position ()) $"expected {what}, found {describe (peek ())}"

        let unknown kind known word =
            let hint =
                match nearest known word with
                | Some near -> $"; did you mean '{near}'?"
                | None -> ""

            fault (position ()) $"'{word}' is not {kind}{hint}"

        let symbol s =
            if peek () = Symbol s then advance () else expected $"'{s}'"

        /// Runs a constructor, of a custom perhaps; what it objects to is said at the word's position.
        let checking at make =
            try
                make ()
            with
            | :? ArgumentException
            | :? InvalidOperationException as e ->
                // Without the parameter's name, which .NET appends.
                fault at (e.Message.Split(" (Parameter")[0])

        let float' what =
            match peek () with
            | Num value ->
                advance ()
                value
            | _ -> expected what

        let integer what =
            match peek () with
            | Num value when value = Math.Floor value && abs value <= float Int32.MaxValue ->
                advance ()
                int value
            | _ -> expected $"{what}, a whole number"

        let oneOfWords what (choices: (string * 'v) list) : 'v =
            match peek () with
            | Word word ->
                match
                    choices
                    |> List.tryFind (fun (name, _) -> String.Equals(name, word, StringComparison.OrdinalIgnoreCase))
                with
                | Some(_, value) ->
                    advance ()
                    value
                | None -> unknown what (List.map fst choices) word
            | _ -> expected what

        /// A value, or the same in parentheses.
        let rec parenthesised depth (inner: int -> 'v) : 'v =
            if depth > deepest then
                fault (position ()) $"parentheses and lists are nested more than {deepest} deep"

            if peek () = Symbol "(" then
                advance ()
                let value = parenthesised (depth + 1) inner
                symbol ")"
                value
            else
                inner depth

        let listOf (item: unit -> 'v) : 'v list =
            symbol "["

            let rec items found =
                let found = item () :: found

                match peek () with
                | Symbol ";" ->
                    advance ()

                    // A separator may also end the list.
                    if peek () = Symbol "]" then
                        advance ()
                        List.rev found
                    else
                        items found
                | Symbol "]" ->
                    advance ()
                    List.rev found
                | _ -> expected "';' or ']'"

            items []

        let isWord word =
            match peek () with
            | Word w -> String.Equals(w, word, StringComparison.OrdinalIgnoreCase)
            | _ -> false

        let arguments () =
            let isNumber () =
                match peek () with
                | Num _ -> true
                | _ -> false

            [ while isNumber () do
                  float' "an argument" ]

        let customDist () =
            match peek () with
            | Word word -> vocabulary.Dists.TryFind word
            | _ -> None

        let dist depth : Dist =
            parenthesised depth (fun _ ->
                let at = position ()

                if isWord "uniform" then
                    advance ()
                    Uniform
                elif isWord "always" then
                    advance ()
                    let value = float' "the value of always"
                    checking at (fun () -> Dist.always value)
                elif isWord "beta" then
                    advance ()
                    let a = float' "the first parameter of beta"
                    let b = float' "the second parameter of beta"
                    checking at (fun () -> Dist.beta a b)
                else
                    match customDist () with
                    | Some make ->
                        advance ()
                        let arguments = arguments ()
                        checking at (fun () -> make arguments)
                    | None ->
                        let own = vocabulary.Dists.Keys |> Seq.map (fun name -> $" or {name}")
                        expected $"a distribution: always V, uniform or beta A B{String.Concat own}")

        let place () : Place =
            let at = position ()

            match peek () with
            | Quoted name ->
                advance ()
                checking at (fun () -> Place.named name)
            | Word _ when isWord "input" ->
                advance ()
                Number 0
            | Num _ ->
                let k = integer "a site"
                checking at (fun () -> Place.number k)
            | _ -> expected "a site: input, a number, or a name in quotation marks"

        let rec pipe depth : Value =
            let mutable value = operands depth

            while peek () = Symbol "|>" do
                advance ()
                value <- modifier depth value

            value

        and operands depth : Value =
            let first = position ()
            let mutable value = unary depth

            let isOperator () =
                peek () = Symbol "&&&" || peek () = Symbol "|||"

            while isOperator () do
                let combine = if peek () = Symbol "&&&" then And else Or
                let left = region first value
                advance ()
                let second = position ()
                let right = region second (unary depth)
                value <- RegionValue(combine (left, right))

            value

        and region at value : Region =
            match value with
            | RegionValue region -> region
            | RegularizerValue _ -> fault at "expected a region here, found a whole regularizer"

        and unary depth : Value =
            if depth > deepest then
                fault (position ()) $"parentheses and lists are nested more than {deepest} deep"

            match peek () with
            | Symbol "~~~" ->
                advance ()
                let at = position ()
                RegionValue(Not(region at (unary (depth + 1))))
            | Symbol "(" ->
                advance ()
                let value = pipe (depth + 1)
                symbol ")"
                value
            | Word word ->
                let at = position ()
                opener depth at word
            | _ -> expected "a region, a method, oneOf, over, sequence or identity"

        and opener depth at word : Value =
            let known =
                openers
                |> List.tryFind (fun w -> String.Equals(w, word, StringComparison.OrdinalIgnoreCase))

            match known with
            | Some word ->
                advance ()

                match word with
                | "nowhere" -> RegionValue Nowhere
                | "everywhere" -> RegionValue Everywhere
                | "cells" ->
                    let fraction = float' "the fraction of cells"
                    RegionValue(checking at (fun () -> Region.cells fraction))
                | "channels" ->
                    let fraction = float' "the fraction of channels"
                    RegionValue(checking at (fun () -> Region.channels fraction))
                | "blocks" ->
                    let size = integer "the block size"
                    let fraction = float' "the fraction of blocks"

                    let calibration =
                        [ "exact", Exact; "paper", Paper; "valid", Valid ]
                        |> List.tryFind (fst >> isWord)
                        |> Option.map (fun (_, calibration) ->
                            advance ()
                            calibration)
                        |> Option.defaultValue Exact

                    RegionValue(checking at (fun () -> Region.blocks calibration size fraction))
                | "rect" -> RegionValue(Rect(dist (depth + 1)))
                | "identity" -> RegularizerValue Regularizer.identity
                | "oneOf" ->
                    let branches = branches "a weight" depth
                    RegularizerValue(checking at (fun () -> Regularizer.oneOf branches))
                | "over" ->
                    let points = branches "a time of training" depth
                    RegularizerValue(checking at (fun () -> Regularizer.over points))
                | "sequence" ->
                    let parts = listOf (fun () -> asRegularizer (pipe (depth + 1)))
                    RegularizerValue(checking at (fun () -> Regularizer.sequence parts))
                | _ ->
                    let inner = position ()
                    let wrap = granularities |> List.find (fst >> (=) word) |> snd
                    RegionValue(wrap (region inner (unary (depth + 1))))
            | None ->
                match vocabulary.Customs.TryFind word, vocabulary.Named.TryFind word with
                | Some make, _ ->
                    advance ()
                    let arguments = arguments ()
                    RegionValue(checking at (fun () -> make arguments))
                | None, Some named ->
                    advance ()
                    RegularizerValue named
                | None, None ->
                    let names = Seq.append vocabulary.Customs.Keys vocabulary.Named.Keys
                    unknown "a region or a method" (Seq.append openers names) word

        /// Numbers with regularizers, in brackets.
        and branches what depth : (float * Regularizer) list =
            listOf (fun () ->
                let number = float' what
                symbol ","
                number, asRegularizer (pipe (depth + 1)))

        and modifier depth value : Value =
            let at = position ()

            let regularizer change =
                RegularizerValue(checking at (fun () -> change (asRegularizer value)))

            let onRegion make =
                match value with
                | RegionValue region -> make region
                | RegularizerValue _ ->
                    fault at $"{describe (peek ())} follows a region, and before it stands a whole regularizer"

            let rename word =
                modifiers
                |> List.tryFind (fun w -> String.Equals(w, word, StringComparison.OrdinalIgnoreCase))

            match peek () with
            | Word word ->
                match rename word with
                | Some "swap" ->
                    onRegion (fun region ->
                        advance ()
                        RegularizerValue(Words.swap region))
                | Some "blank" ->
                    onRegion (fun region ->
                        advance ()
                        RegularizerValue(Words.blank region))
                | Some "blend" ->
                    onRegion (fun region ->
                        advance ()
                        RegularizerValue(Words.blend (dist (depth + 1)) region))
                | Some "blendEach" ->
                    onRegion (fun region ->
                        advance ()
                        RegularizerValue(Words.blendEach (dist (depth + 1)) region))
                | Some("perSample" | "perChannel" | "shared" as word) ->
                    onRegion (fun region ->
                        advance ()
                        RegionValue((granularities |> List.find (fst >> (=) word) |> snd) region))
                | Some word ->
                    advance ()

                    match word with
                    | "pairedBy" ->
                        let partner = parenthesised (depth + 1) (fun _ -> partner ())
                        regularizer (Regularizer.pairedBy partner)
                    | "resized" -> regularizer Words.resized
                    | "transported" -> regularizer Words.transported
                    | "rescale" ->
                        let kind = oneOfWords "a rescaling" rescales
                        regularizer (Regularizer.rescale kind)
                    | "at"
                    | "after" ->
                        let site = At(place ())
                        regularizer (onSite site)
                    | "atAny"
                    | "afterAny" ->
                        let places = listOf place
                        regularizer (onSite (Site.anyOf places))
                    | "atAll"
                    | "afterAll" ->
                        let places = listOf place
                        regularizer (onSite (Site.allOf places))
                    | "twoTerm" -> regularizer Words.twoTerm
                    | "first" -> regularizer Words.first
                    | "second"
                    | "reweighted" -> regularizer Words.second
                    | "terms" ->
                        let first = float' "the weight of the first term"
                        let second = float' "the weight of the second term"
                        regularizer (Regularizer.objective (checking at (fun () -> Objective.weighted first second)))
                    | _ ->
                        let probability = float' "a probability"
                        regularizer (Regularizer.sometimes probability)
                | None -> unknown "a word that can follow '|>'" modifiers word
            | _ -> expected "a word such as swap, blend, at or sometimes"

        and onSite site regularizer =
            regularizer |> Regularizer.map (fun step -> { step with Site = site })

        and partner () : Partner =
            if isWord "Rolled" then
                advance ()
                Rolled(integer "how far to roll")
            else
                oneOfWords "a pairing" (("Rolled", Rolled 0) :: partners)

        member _.Regularizer() : Regularizer =
            let value = pipe 0

            if peek () <> End then
                expected "'|>', an operator, or the end"

            asRegularizer value

    /// Only the words of the library.
    let plain: Vocabulary =
        { Customs = Map.empty
          Dists = Map.empty
          Named = Map.empty }

    /// Reads a line that may name customs and whole regularizers too. Words may be written in any case; a bare region is its swap at the input.
    let parseWith (vocabulary: Vocabulary) (text: string) : Result<Regularizer, NotationError> =
        try
            Ok(Parser(text, vocabulary).Regularizer())
        with Fault(position, message) ->
            Error
                { Position = position + 1
                  Message = message }

    /// Reads a line made of the library's words.
    let parse (text: string) : Result<Regularizer, NotationError> = parseWith plain text
