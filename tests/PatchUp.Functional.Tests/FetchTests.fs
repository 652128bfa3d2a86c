/// Downloads, from a server on this machine that breaks off, stalls, lies and serves wrong files.
module PatchUp.Tests.FetchTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Security.Cryptography
open System.Text
open System.Threading
open Expecto
open PatchUp.Repro
open PatchUp.Tests.DataModelTests

// ---- the server ----

/// What a client asked for: the path, and the headers with their names in lower case.
type private Asked =
    { Path: string
      Headers: Map<string, string> }

/// A connection on which an answer is written by hand.
type private Connection =
    {
        Asked: Asked
        /// How many requests came before.
        Number: int
        Stream: NetworkStream
        /// Waits until the test is over, or so long that it has failed.
        Hang: unit -> unit
    }

let private readRequest (stream: NetworkStream) : Asked option =
    use reader = new StreamReader(stream, Encoding.ASCII, false, 1024, leaveOpen = true)

    let rec headers found =
        match reader.ReadLine() with
        | null
        | "" -> found
        | line ->
            let colon = line.IndexOf ':'
            headers (Map.add (line[.. colon - 1].ToLowerInvariant()) (line[colon + 1 ..].Trim()) found)

    match reader.ReadLine() with
    | null -> None
    | line ->
        Some
            { Path = line.Split(' ')[1]
              Headers = headers Map.empty }

/// Runs a test with a server on 127.0.0.1: its address, and what it was asked so far.
let private serving (answer: Connection -> unit) (test: string -> (unit -> Asked list) -> 'a) : 'a =
    use over = new ManualResetEventSlim()
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    let asked = ResizeArray<Asked>()

    let serve (client: TcpClient) =
        try
            use client = client
            use stream = client.GetStream()

            match readRequest stream with
            | None -> ()
            | Some request ->
                let number =
                    lock asked (fun () ->
                        asked.Add request
                        asked.Count - 1)

                answer
                    { Asked = request
                      Number = number
                      Stream = stream
                      Hang = fun () -> over.Wait(TimeSpan.FromSeconds 20.0) |> ignore }
        with
        | :? IOException
        | :? SocketException -> () // the client is gone

    let rec accept () =
        match
            (try
                Some(listener.AcceptTcpClient())
             with
             | :? SocketException
             | :? InvalidOperationException -> None) // stopped, also before this thread ran
        with
        | Some client ->
            Thread((fun () -> serve client), IsBackground = true).Start()
            accept ()
        | None -> ()

    Thread(accept, IsBackground = true).Start()

    try
        test $"http://127.0.0.1:{(listener.LocalEndpoint :?> IPEndPoint).Port}/" (fun () ->
            lock asked (fun () -> List.ofSeq asked))
    finally
        over.Set()
        listener.Stop()

let private send (connection: Connection) (status: string) (headers: (string * string) list) (body: byte[]) =
    let lines =
        $"HTTP/1.1 {status}"
        :: "Connection: close"
        :: [ for name, value in headers -> $"{name}: {value}" ]

    connection.Stream.Write(Encoding.ASCII.GetBytes(String.Join("\r\n", lines) + "\r\n\r\n"))
    connection.Stream.Write body

let private length (count: int) = "Content-Length", string count
let private tag = "ETag", "\"one\""

// ---- the file ----

let private content = numbers 1 300_000 256 |> Array.map byte
let private other = numbers 2 300_000 256 |> Array.map byte
let private half = content.Length / 2

let private toy (checksum: Checksum) : SourceFile =
    { Name = "toy.bin"
      Address = "http://published.example/toy.bin"
      Size = int64 content.Length
      Checksum = checksum
      CheckedBy = "the test" }

let private sha256 = Convert.ToHexStringLower(SHA256.HashData content)
let private file = toy (Sha256 sha256)

/// The first byte that a request asks for.
let private start (asked: Asked) =
    asked.Headers
    |> Map.tryFind "range"
    |> Option.map (fun range -> int (range.Replace("bytes=", "").TrimEnd '-'))

/// An honest server's answer for `bytes`, with ranges, cut off after so many bytes of the body.
let private honest (version: string * string) (bytes: byte[]) (cut: int option) (connection: Connection) =
    let body (part: byte[]) =
        cut |> Option.fold (fun part count -> Array.truncate count part) part

    match start connection.Asked with
    | Some from when Map.tryFind "if-range" connection.Asked.Headers = Some(snd version) ->
        let part = bytes[from..]

        send
            connection
            "206 Partial Content"
            [ length part.Length
              version
              "Content-Range", $"bytes {from}-{bytes.Length - 1}/{bytes.Length}" ]
            (body part)
    | _ -> send connection "200 OK" [ length bytes.Length; version ] (body bytes)

// ---- fetching ----

let private quick: Patience =
    { Stall = 20.0
      Attempts = 4
      Pause = 0.01 }

let private fetchWith patience (file: SourceFile) (folder: string) (from: string) : Fetched =
    Download.file patience CancellationToken.None ignore folder (Download.address (Some from) file) file

let private fetch = fetchWith quick file

/// The message of a download that failed.
let private failed (run: unit -> 'a) : string =
    try
        run () |> ignore
        failtest "the download succeeded"
    with RunFailed message ->
        Expect.isFalse (message.Contains '\n') "one line"
        message

let private names (folder: string) =
    Directory.GetFileSystemEntries folder
    |> Array.map (fun path -> string (Path.GetFileName path))
    |> Array.sort
    |> List.ofArray

let private whole (folder: string) =
    Expect.equal (names folder) [ "toy.bin" ] "the file and nothing else"
    Expect.equal (File.ReadAllBytes(Path.Combine(folder, "toy.bin"))) content "its bytes"

/// A server and an empty folder.
let private against answer (test: string -> string -> (unit -> Asked list) -> unit) =
    serving answer (fun address asked -> inFolder (fun folder -> test folder address asked))

/// A server from which the file cannot be had, and nothing stays of it: the message says all this.
let private hopeless (words: string list) answer =
    against answer (fun folder address _ ->
        let message = failed (fun () -> fetch folder address)

        for word in
            words
            @ [ $"{address}toy.bin"; Path.Combine(folder, "toy.bin"); "300000 bytes"; sha256 ] do
            Expect.stringContains message word "the message"

        Expect.isEmpty (names folder) "nothing is there")

let private sound =
    testList
        "what goes well"
        [ testCase "a file is there whole, and once it is there nobody is asked" (fun () ->
              against (honest tag content None) (fun folder address asked ->
                  let found = fetch folder address

                  Expect.equal
                      found
                      { Path = Path.Combine(folder, "toy.bin")
                        Size = 300_000L
                        Sha256 = sha256
                        WasThere = false }
                      "the report"

                  whole folder
                  Expect.equal (fetch folder address) { found with WasThere = true } "again"
                  Expect.hasLength (asked ()) 1 "one request"
                  Expect.isNone (start (asked ()).Head) "for all of it"))

          testCase "a checksum may be MD5; SHA-256 is told in any case" (fun () ->
              let md5 = toy (Md5(Convert.ToHexStringLower(MD5.HashData content)))

              against (honest tag content None) (fun folder address _ ->
                  Expect.equal (fetchWith quick md5 folder address).Sha256 sha256 "SHA-256"
                  whole folder))

          testCase "a body without a length that ends where it should" (fun () ->
              against (fun connection -> send connection "200 OK" [] content) (fun folder address _ ->
                  fetch folder address |> ignore
                  whole folder))

          testCase "redirects are followed" (fun () ->
              against
                  (fun connection ->
                      match connection.Asked.Path with
                      | "/toy.bin" -> send connection "302 Found" [ "Location", "/elsewhere"; length 0 ] [||]
                      | "/elsewhere" ->
                          let host = connection.Asked.Headers["host"]
                          send connection "307 Temporary Redirect" [ "Location", $"http://{host}/x"; length 0 ] [||]
                      | _ -> honest tag content None connection)
                  (fun folder address asked ->
                      fetch folder address |> ignore
                      whole folder
                      Expect.equal (asked () |> List.map _.Path) [ "/toy.bin"; "/elsewhere"; "/x" ] "all three"))

          testCase "a folder that is not there is made" (fun () ->
              against (honest tag content None) (fun folder address _ ->
                  let inner = Path.Combine(folder, "a", "b")
                  fetch inner address |> ignore
                  whole inner))

          testCase "how far it is" (fun () ->
              against (honest tag content None) (fun folder address _ ->
                  let seen = ResizeArray()

                  Download.file
                      quick
                      CancellationToken.None
                      seen.Add
                      folder
                      (Download.address (Some address) file)
                      file
                  |> ignore

                  Expect.equal seen[0] (Has 0L) "first"
                  Expect.equal seen[seen.Count - 1] (Has 300_000L) "last")) ]

let private resuming =
    testList
        "resuming"
        [ for name, version in [ "an ETag", tag; "a date", ("Last-Modified", "Sat, 03 Jun 2017 09:12:01 GMT") ] do
              testCase $"a broken download goes on where it ended, for the same version by {name}" (fun () ->
                  against
                      (fun connection ->
                          honest version content (if connection.Number < 2 then Some 100_000 else None) connection)
                      (fun folder address asked ->
                          fetch folder address |> ignore
                          whole folder

                          Expect.equal
                              (asked () |> List.map start)
                              [ None; Some 100_000; Some 200_000 ]
                              "where each request begins"

                          for request in List.tail (asked ()) do
                              Expect.equal (Map.tryFind "if-range" request.Headers) (Some(snd version)) "If-Range"))

          testCase "a connection that is torn down" (fun () ->
              against
                  (fun connection ->
                      if connection.Number = 0 then
                          send connection "200 OK" [ length content.Length; tag ] content[.. half - 1]
                          Thread.Sleep 100
                          connection.Stream.Socket.LingerState <- LingerOption(true, 0)
                          connection.Stream.Socket.Close()
                      else
                          honest tag content None connection)
                  (fun folder address asked ->
                      fetch folder address |> ignore
                      whole folder
                      Expect.hasLength (asked ()) 2 "two requests"))

          testCase "a server that stalls is asked again" (fun () ->
              against
                  (fun connection ->
                      if connection.Number = 0 then
                          send connection "200 OK" [ length content.Length; tag ] content[.. half - 1]
                          connection.Hang()
                      elif connection.Number = 1 then
                          connection.Hang() // says nothing at all
                      else
                          honest tag content None connection)
                  (fun folder address asked ->
                      let clock = Stopwatch.StartNew()
                      fetchWith { quick with Stall = 1.0; Attempts = 8 } file folder address |> ignore
                      Expect.isLessThan clock.Elapsed.TotalSeconds 15.0 "it gave up waiting"
                      whole folder
                      Expect.equal (asked () |> List.map start |> List.item 1) (Some half) "it goes on"))

          testCase "the next call goes on with what a failed one left" (fun () ->
              against (fun connection -> honest tag content (Some 1000) connection) (fun folder address asked ->
                  let message = failed (fun () -> fetch folder address)
                  Expect.stringContains message "4000 of 300000 bytes are kept" "how much"
                  Expect.stringContains message "after 4 attempts" "how often"
                  Expect.equal (names folder) [ "toy.bin.part"; "toy.bin.part.origin" ] "the part alone"

                  failed (fun () -> fetch folder address) |> ignore
                  Expect.equal (asked () |> List.map start |> List.item 4) (Some 4000) "it goes on"))

          testCase "a part of another address is not gone on with" (fun () ->
              against (honest tag content (Some 1000)) (fun folder address _ ->
                  failed (fun () -> fetch folder address) |> ignore

                  serving (honest tag content None) (fun second asked ->
                      fetch folder second |> ignore
                      Expect.isNone (start (asked ()).Head) "from the start"
                      whole folder)))

          testCase "parts that nothing is known of are not gone on with" (fun () ->
              for origin in [ None; Some ""; Some "x"; Some "x\ny\n" ] do
                  against (honest tag content None) (fun folder address asked ->
                      let part = Path.Combine(folder, "toy.bin.part")
                      File.WriteAllBytes(part, content[..999])
                      origin |> Option.iter (fun text -> File.WriteAllText(part + ".origin", text))
                      fetch folder address |> ignore
                      Expect.isNone (start (asked ()).Head) "from the start"
                      whole folder))

          testCase "a file that changed in between is begun anew" (fun () ->
              against
                  (fun connection ->
                      if connection.Number = 0 then
                          honest ("ETag", "\"old\"") other (Some half) connection
                      else
                          honest tag content None connection)
                  (fun folder address asked ->
                      fetch folder address |> ignore
                      Expect.equal (asked () |> List.map start) [ None; Some half ] "it tried to go on"
                      whole folder))

          testCase "a server without ranges sends all of it again" (fun () ->
              against
                  (fun connection ->
                      send
                          connection
                          "200 OK"
                          [ length content.Length; tag ]
                          (if connection.Number = 0 then
                               content[.. half - 1]
                           else
                               content))
                  (fun folder address asked ->
                      fetch folder address |> ignore
                      Expect.hasLength (asked ()) 2 "two requests"
                      whole folder))

          testCase "a server that names no version is not asked for a range" (fun () ->
              for version in [ "X-None", "1"; "ETag", "W/\"weak\"" ] do
                  against
                      (fun connection ->
                          honest version content (if connection.Number = 0 then Some half else None) connection)
                      (fun folder address asked ->
                          fetch folder address |> ignore
                          Expect.equal (asked () |> List.map start) [ None; None ] "from the start"
                          whole folder))

          let lies =
              let range from size =
                  "Content-Range", $"bytes {from}-{content.Length - 1}/{size}"

              [ "another place", [ range 7 content.Length; tag ]
                "another size", [ range half 7_000_000; tag ]
                "no place", [ tag ]
                "another version", [ range half content.Length; "ETag", "\"two\"" ] ]

          for name, headers in lies do
              testCase $"a partial answer of {name} is not taken" (fun () ->
                  against
                      (fun connection ->
                          match connection.Number with
                          | 0 -> honest tag content (Some half) connection
                          | 1 ->
                              send
                                  connection
                                  "206 Partial Content"
                                  (length (other.Length - half) :: headers)
                                  other[half..]
                          | _ -> honest tag content None connection)
                      (fun folder address asked ->
                          fetch folder address |> ignore
                          Expect.equal (asked () |> List.map start) [ None; Some half; None ] "begun anew"
                          whole folder))

          testCase "a range that the server does not have" (fun () ->
              against
                  (fun connection ->
                      match connection.Number with
                      | 0 -> honest tag content (Some half) connection
                      | 1 -> send connection "416 Range Not Satisfiable" [ length 0 ] [||]
                      | _ -> honest tag content None connection)
                  (fun folder address _ ->
                      fetch folder address |> ignore
                      whole folder))

          testCase "a part that is whole already is only checked" (fun () ->
              against (honest tag content (Some 1000)) (fun folder address asked ->
                  failed (fun () -> fetch folder address) |> ignore
                  File.WriteAllBytes(Path.Combine(folder, "toy.bin.part"), content)
                  let before = (asked ()).Length
                  fetch folder address |> ignore
                  whole folder
                  Expect.equal (asked ()).Length before "nobody is asked")) ]

let private refusing =
    testList
        "what goes wrong"
        [ testCase "another file of the same size" (fun () ->
              hopeless
                  [ $"its SHA-256 is {Convert.ToHexStringLower(SHA256.HashData other)} instead of {sha256}"
                    "nothing is kept" ]
                  (honest tag other None))

          testCase "a wrong end, sent after a break" (fun () ->
              hopeless [ "its SHA-256 is" ] (fun connection ->
                  honest
                      tag
                      (if connection.Number = 0 then content else other)
                      (if connection.Number = 0 then Some half else None)
                      connection))

          testCase "another size" (fun () ->
              for size in [ 1000; 299_999 ] do
                  hopeless
                      [ $"the server's file has {size} bytes instead of 300000" ]
                      (honest tag content[.. size - 1] None))

          testCase "more bytes than there should be, of a length that is not told" (fun () ->
              hopeless [ "longer than 300000 bytes" ] (fun connection ->
                  send connection "200 OK" [] (Array.append content [| 1uy |])))

          testCase "fewer bytes, of a length that is not told" (fun () ->
              hopeless [ "the connection ended, after 4 attempts" ] (fun connection ->
                  send connection "200 OK" [] content[..999]))

          testCase "no such file: it is not asked for again" (fun () ->
              against
                  (fun connection -> send connection "404 Not Found" [ length 0 ] [||])
                  (fun folder address asked ->
                      let message = failed (fun () -> fetch folder address)
                      Expect.stringContains message "the server answered 404: it has no such file" "the message"
                      Expect.hasLength (asked ()) 1 "one request"
                      Expect.isEmpty (names folder) "nothing is there"))

          testCase "a server that fails is asked again" (fun () ->
              against
                  (fun connection ->
                      match connection.Number with
                      | 0 -> send connection "500 Internal Server Error" [ length 0 ] [||]
                      | 1 -> send connection "429 Too Many Requests" [ length 0; "Retry-After", "0" ] [||]
                      | _ -> honest tag content None connection)
                  (fun folder address asked ->
                      fetch folder address |> ignore
                      Expect.hasLength (asked ()) 3 "three requests"
                      whole folder))

          testCase "a server that goes on failing" (fun () ->
              hopeless [ "the server answered 503"; "after 4 attempts" ] (fun connection ->
                  send connection "503 Service Unavailable" [ length 0 ] [||]))

          testCase "a part survives a server that fails" (fun () ->
              against
                  (fun connection ->
                      if connection.Number = 0 then
                          honest tag content (Some half) connection
                      else
                          send connection "403 Forbidden" [ length 0 ] [||])
                  (fun folder address _ ->
                      let message = failed (fun () -> fetch folder address)
                      Expect.stringContains message "150000 of 300000 bytes are kept" "the message"

                      Expect.equal
                          (File.ReadAllBytes(Path.Combine(folder, "toy.bin.part")))
                          content[.. half - 1]
                          "what came"))

          testCase "redirects to what is not http, and in a circle" (fun () ->
              for place in [ "file:///etc/hostname"; "ftp://127.0.0.1/toy.bin"; "/toy.bin" ] do
                  hopeless [ "the server answered 302: it sends on" ] (fun connection ->
                      send connection "302 Found" [ "Location", place; length 0 ] [||]))

          testCase "what is no HTTP" (fun () ->
              hopeless [ "after 4 attempts" ] (fun connection -> connection.Stream.Write "SSH-2.0-x\r\n"B))

          testCase "a server that is down: what to do by hand, and no folder is left" (fun () ->
              let address = serving ignore (fun address _ -> address)

              inFolder (fun folder ->
                  let inner = Path.Combine(folder, "a", "b")
                  let message = failed (fun () -> fetch inner address)

                  for word in
                      [ "Connection refused"
                        $"{address}toy.bin was not fetched"
                        $"By hand: put it at {Path.Combine(inner, file.Name)}"
                        $"(300000 bytes, SHA-256 {sha256}, says the test)" ] do
                      Expect.stringContains message word "the message"

                  Expect.isEmpty (names folder) "no folder"))

          testCase "another file of that name is left alone" (fun () ->
              against (honest tag content None) (fun folder address asked ->
                  let path = Path.Combine(folder, "toy.bin")

                  for bytes, words in [ other, $"its SHA-256 is"; content[..9], "it has 10 bytes instead of 300000" ] do
                      File.WriteAllBytes(path, bytes)
                      refused [ path; words; "--out" ] (fun () -> fetch folder address |> ignore)
                      Expect.equal (File.ReadAllBytes path) bytes "as it was"

                  File.Delete path
                  Directory.CreateDirectory path |> ignore
                  refused [ path; "a folder" ] (fun () -> fetch folder address |> ignore)
                  Expect.isEmpty (asked ()) "nobody was asked"))

          testCase "a part that is a link out of the folder" (fun () ->
              against (honest tag content None) (fun folder address _ ->
                  let outside = Path.Combine(folder, "outside")
                  let inner = Path.Combine(folder, "inner")
                  Directory.CreateDirectory inner |> ignore
                  File.WriteAllText(outside, "text")
                  File.CreateSymbolicLink(Path.Combine(inner, "toy.bin.part"), outside) |> ignore
                  refused [ "toy.bin.part"; "link" ] (fun () -> fetch inner address |> ignore)
                  Expect.equal (File.ReadAllText outside) "text" "as it was"))

          testCase "folders that cannot be made" (fun () ->
              against (honest tag content None) (fun folder address _ ->
                  let path = Path.Combine(folder, "file")
                  File.WriteAllText(path, "text")
                  refused [ path ] (fun () -> fetch path address |> ignore)
                  refused [ path ] (fun () -> fetch (Path.Combine(path, "x")) address |> ignore)))

          testCase "two at once: the second refuses, the first is not disturbed" (fun () ->
              use go = new ManualResetEventSlim()
              use asked = new ManualResetEventSlim()

              against
                  (fun connection ->
                      asked.Set()
                      go.Wait(TimeSpan.FromSeconds 10.0) |> ignore
                      honest tag content None connection)
                  (fun folder address _ ->
                      let first = System.Threading.Tasks.Task.Run(fun () -> fetch folder address)

                      try
                          Expect.isTrue (asked.Wait(TimeSpan.FromSeconds 20.0)) "the first has begun"
                          refused [ "toy.bin.part"; "another process" ] (fun () -> fetch folder address |> ignore)
                      finally
                          go.Set()

                      Expect.isFalse first.Result.WasThere "the first"
                      whole folder))

          testCase "a stop keeps the part, and the next call goes on" (fun () ->
              use stop = new CancellationTokenSource()

              against
                  (fun connection ->
                      if connection.Number = 0 then
                          send connection "200 OK" [ length content.Length; tag ] content[.. half - 1]
                          connection.Hang()
                      else
                          honest tag content None connection)
                  (fun folder address asked ->
                      let report transfer =
                          if transfer = Has(int64 half) then
                              stop.Cancel()

                      let message =
                          try
                              Download.file quick stop.Token report folder (Download.address (Some address) file) file
                              |> ignore

                              failtest "it went on"
                          with Interrupted message ->
                              message

                      Expect.stringContains message "150000 of 300000 bytes are kept" "the message"
                      fetch folder address |> ignore
                      Expect.equal (asked () |> List.map start) [ None; Some half ] "it goes on"
                      whole folder)) ]

// ---- the program ----

let private program =
    let mnist = Sources.find "mnist"

    /// A child process that runs the program, after `before` and its arguments: it is handed to `during` and then waited for.
    let child (before: string list) (arguments: string list) (during: Process -> unit) : int * string =
        let command =
            before
            @ [ "dotnet"; Path.Combine(AppContext.BaseDirectory, "patchup.dll") ]
            @ arguments

        let start =
            ProcessStartInfo(command.Head, command.Tail, RedirectStandardOutput = true, RedirectStandardError = true)

        use child = Process.Start start
        let out = child.StandardOutput.ReadToEndAsync()
        let err = child.StandardError.ReadToEndAsync()

        try
            during child
            Expect.isTrue (child.WaitForExit 30_000) "it ends"
        finally
            if not child.HasExited then
                child.Kill()

        child.ExitCode, out.Result + err.Result

    testList
        "patchup data fetch"
        [ testCase "progress is told in lines" (fun () ->
              use err = new StringWriter()

              Following.transfers
                  { Out = TextWriter.Null
                    Err = err
                    IsTerminal = false }
                  (fun report ->
                      for bytes in [ 0L; 20_000L; 31_000L; 32_000L ] do
                          report file (Has bytes)

                      report file (Again("the connection ended", 2.0))
                      report file (Has 10_000L)
                      report file (Has 300_000L)
                      report { file with Name = "next.bin" } (Has 150_000L))

              match err.ToString().TrimEnd().Split(Environment.NewLine) with
              | [| first; tenth; again; last; next |] ->
                  Expect.equal first "toy.bin: 0.3 MB" "the start"
                  Expect.stringStarts tenth "toy.bin: 10 %, " "a tenth"
                  Expect.equal again "toy.bin: the connection ended; going on in 2 s" "a break"
                  Expect.stringStarts last "toy.bin: 100 %, " "the end"
                  Expect.equal next "next.bin: 0.3 MB, going on at 0.1 MB" "another file"
              | lines -> failtest $"%A{lines}")

          testCase "the list of data sets" (fun () ->
              for source in Sources.all do
                  Expect.equal (Sources.find source.Name) source "by name"
                  Expect.isNonEmpty source.Files "files"

                  for one in source.Files do
                      Expect.equal (Path.GetFileName one.Name) one.Name "a name, not a path"
                      Expect.equal (Download.address None one).AbsoluteUri one.Address "an address"
                      Expect.equal (Uri(one.Address).Segments |> Array.last) one.Name "of that file"
                      Expect.isGreaterThan one.Size 0L "a size"

                      let digits =
                          match one.Checksum with
                          | Sha256 _ -> 64
                          | Md5 _ -> 32

                      Expect.hasLength one.Checksum.Digits digits "digits"
                      Expect.all one.Checksum.Digits Char.IsAsciiHexDigitLower "of base 16"

              let places =
                  Sources.all
                  |> List.collect (fun source -> [ for one in source.Files -> source.Folder, one.Name ])

              Expect.equal (List.distinct places) places "no two files at one place"

              Expect.equal (Sources.all |> List.map _.Name) (Sources.all |> List.map _.Name |> List.sort) "in order")

          testCase "a mirror's addresses" (fun () ->
              for from in [ "http://mirror/x"; "http://mirror/x/" ] do
                  Expect.equal (Download.address (Some from) file).AbsoluteUri "http://mirror/x/toy.bin" "below it")

          testCase "a user's mistakes end with 2, and nothing is written" (fun () ->
              inFolder (fun folder ->
                  for arguments, words in
                      [ [ "data" ], "a word is needed: "
                        [ "data"; "fatch" ], "which are "
                        [ "data"; "fetch" ], "<name>"
                        [ "data"; "fetch"; "cifar-11" ], "did you mean cifar-10?"
                        [ "data"; "fetch"; "imagenet" ], "cifar-10, cifar-10-c, cifar-100"
                        [ "data"; "fetch"; "mnist"; "--from"; "ftp://host/" ], "'ftp://host/' is no address"
                        [ "data"; "fetch"; "mnist"; "--from"; "host/x" ], "'host/x' is no address"
                        [ "data"; "fetch"; "mnist"; "--from"; "http://host/?a=b" ], "is no address"
                        [ "data"; "fetch"; "mnist"; "--stall"; "0" ], "stall 0"
                        [ "data"; "fetch"; "mnist"; "--stall"; "NaN" ], "stall NaN" ] do
                      let code, _, err =
                          ReproTests.patchup (
                              if arguments.Length > 2 then
                                  arguments @ [ "--out"; Path.Combine(folder, "x") ]
                              else
                                  arguments
                          )

                      Expect.equal code 2 $"{arguments}: {err}"
                      Expect.stringContains err words $"{arguments}"
                      Expect.isEmpty (names folder) "nothing is written"))

          testCase "a failed download ends with 1, and says what to do" (fun () ->
              serving (fun connection -> send connection "404 Not Found" [ length 0 ] [||]) (fun address _ ->
                  inFolder (fun folder ->
                      let out = Path.Combine(folder, "x")

                      let code, _, err =
                          ReproTests.patchup [ "data"; "fetch"; "mnist"; "--from"; address; "--out"; out ]

                      Expect.equal code 1 "the exit code"
                      let first = mnist.Files.Head

                      for word in [ first.Name; out; string first.Size; first.Checksum.Digits; "By hand"; "404" ] do
                          Expect.stringContains err word "the message"

                      Expect.stringContains err mnist.Terms "the terms"
                      Expect.isEmpty (names folder) "nothing is written")))

          testCase "Ctrl-C keeps the part and ends with 130" (fun () ->
              use asked = new ManualResetEventSlim()
              let size = int mnist.Files.Head.Size

              serving
                  (fun connection ->
                      send connection "200 OK" [ length size; tag ] content
                      asked.Set()
                      connection.Hang())
                  (fun address _ ->
                      inFolder (fun folder ->
                          let part = Path.Combine(folder, mnist.Files.Head.Name + ".part")

                          let code, output =
                              child [] [ "data"; "fetch"; "mnist"; "--from"; address; "--out"; folder ] (fun child ->
                                  Expect.isTrue (asked.Wait(TimeSpan.FromSeconds 20.0)) "it has begun"

                                  let all () =
                                      File.Exists part && FileInfo(part).Length = int64 content.Length

                                  Expect.isTrue
                                      (SpinWait.SpinUntil(all, TimeSpan.FromSeconds 20.0))
                                      "what was sent is there"

                                  use kill = Process.Start("kill", [ "-INT"; string child.Id ])
                                  kill.WaitForExit())

                          Expect.equal code 130 $"the exit code: {output}"

                          Expect.stringContains
                              output
                              $"stopped; 300000 of {size} bytes are kept in {part}"
                              "the message"

                          Expect.equal (File.ReadAllBytes part) content "the part"
                          Expect.hasLength (names folder) 2 "the part and where it is from")))

          testCase "a full disk" (fun () ->
              use probe =
                  Process.Start("unshare", [ "-rm"; "sh"; "-c"; "mount -t tmpfs -o size=64k none /mnt" ])

              probe.WaitForExit()

              if probe.ExitCode <> 0 then
                  skiptest "this machine gives no namespace of its own to mount a small disk in"

              let size = int mnist.Files.Head.Size

              serving
                  (fun connection -> send connection "200 OK" [ length size; tag ] (Array.zeroCreate size))
                  (fun address _ ->
                      inFolder (fun folder ->
                          let script =
                              "mount -t tmpfs -o size=256k none \"$1\" && cd \"$1\" && shift && \"$@\"; code=$?; ls; exit $code"

                          let code, output =
                              child
                                  [ "unshare"; "-rm"; "sh"; "-c"; script; "sh"; folder ]
                                  [ "data"; "fetch"; "mnist"; "--from"; address ]
                                  ignore

                          Expect.equal code 1 $"the exit code: {output}"
                          Expect.stringContains output "the disk is full" "the message"
                          Expect.stringContains output $"of {size} bytes are there" "how much is kept"
                          Expect.stringContains output "run the same command again" "what to do"))) ]

let tests = testList "fetch" [ sound; resuming; refusing; program ]
