namespace PatchUp.Repro

open System
open System.IO
open System.Net
open System.Net.Http
open System.Net.Http.Headers
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text
open System.Threading
open System.Threading.Tasks

/// How patient a download is with a server.
type Patience =
    {
        /// Seconds without a byte after which a connection is given up.
        Stall: float
        /// How often the server is asked for one file, in all.
        Attempts: int
        /// Seconds before the second attempt; twice as long before each further one, half a minute at most.
        Pause: float
    }

/// How far the download of a file is.
type Transfer =
    /// So many bytes of it are there.
    | Has of bytes: int64
    /// It broke off: why, and in how many seconds it goes on.
    | Again of reason: string * seconds: float

/// A file that is there and is the published one.
type Fetched =
    {
        Path: string
        /// In bytes.
        Size: int64
        /// Of the whole file, whatever its publisher's checksum is.
        Sha256: string
        /// Nothing was downloaded.
        WasThere: bool
    }

/// Files from the net: whole and verified, or not there.
[<RequireQualifiedAccess>]
module Download =

    /// What `patchup data fetch` does unless it is told otherwise.
    let patience =
        { Stall = 30.0
          Attempts = 6
          Pause = 1.0 }

    // What stands in the folder

    let private partOf (target: string) = target + ".part"

    /// A line with the address that the part is from, and a line with the version of the file there: its ETag, else its
    /// Last-Modified. Only that very file is continued.
    let private originOf (target: string) = target + ".part.origin"

    /// The digits of SHA-256, and those of the checksum's own algorithm.
    let private digest (checksum: Checksum) (stream: Stream) : string * string =
        use sha = IncrementalHash.CreateHash HashAlgorithmName.SHA256
        use md5 = IncrementalHash.CreateHash HashAlgorithmName.MD5

        let hashes =
            match checksum with
            | Sha256 _ -> [ sha ]
            | Md5 _ -> [ sha; md5 ]

        let buffer = Array.zeroCreate<byte>(1 <<< 20)

        let rec go () =
            let count = stream.Read buffer

            if count > 0 then
                for hash in hashes do
                    hash.AppendData(buffer, 0, count)

                go ()

        go ()

        let digits =
            hashes
            |> List.map (fun hash -> Convert.ToHexStringLower(hash.GetHashAndReset()))

        List.head digits, List.last digits

    /// SHA-256 of a stream that is the file, or what is wrong with it.
    let private judge (file: SourceFile) (stream: Stream) : Result<string, string> =
        if stream.Length <> file.Size then
            Error $"it has {stream.Length} bytes instead of {file.Size}"
        else
            stream.Position <- 0L
            let sha256, actual = digest file.Checksum stream

            if actual = file.Checksum.Digits then
                Ok sha256
            else
                Error $"its {file.Checksum.Algorithm} is {actual} instead of {file.Checksum.Digits}"

    /// The file, where one of its name is there; a UserError where that is another one.
    let private existing (target: string) (file: SourceFile) : Fetched option =
        if not (Path.Exists target) then
            None
        else
            use stream = Errors.openRead target

            match Errors.reading target (fun () -> judge file stream) with
            | Ok sha256 ->
                Some
                    { Path = target
                      Size = file.Size
                      Sha256 = sha256
                      WasThere = true }
            | Error reason ->
                Errors.user
                    $"{target}: another file has this name: {reason}; move it away, or give another folder with --out."

    /// EWOULDBLOCK.
    let private isLocked (error: IOException) = error.HResult = 11

    /// ENOSPC and EDQUOT.
    let private isFull (error: IOException) =
        error.HResult = 28 || error.HResult = 122

    /// The part, which no other process has open; a UserError where one has.
    let private openPart (target: string) : FileStream =
        let part = partOf target

        // Through a link bytes would go out of the folder.
        if not (isNull (FileInfo(part).LinkTarget)) then
            Errors.user $"{part}: a link to another place; remove it."

        try
            // Without a buffer: what was received is in the file, however the program ends.
            new FileStream(part, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 0)
        with
        | :? UnauthorizedAccessException ->
            Errors.user $"{part}: it may not be written; check the folder's permissions."
        | :? IOException as error when isLocked error ->
            Errors.user $"{part}: another process is fetching this file; wait until it is done."
        | :? IOException as error -> Errors.user $"{part}: it cannot be written ({error.Message})"

    // What the server says

    /// Which version of the file a response is of, for If-Range, which a weak ETag may not stand in.
    let private versionOf (response: HttpResponseMessage) : string option =
        match Option.ofObj response.Headers.ETag, Option.ofNullable response.Content.Headers.LastModified with
        | Some tag, _ when not tag.IsWeak -> Some tag.Tag
        | _, Some time -> Some(time.ToString "R")
        | _ -> None

    let private isTag (version: string) = version.StartsWith '"'

    /// Whether a partial response goes on where the part ends, and is of the same version as far as it says.
    let private continues (file: SourceFile) (there: int64) (version: string) (response: HttpResponseMessage) =
        let range = response.Content.Headers.ContentRange

        let sameVersion =
            match versionOf response with
            | Some said when isTag said = isTag version -> said = version
            | _ -> true

        not (isNull range)
        && range.From = Nullable there
        && (not range.HasLength || range.Length = Nullable file.Size)
        && sameVersion

    let private inWords (status: HttpStatusCode) =
        let code = int status

        let words =
            match status with
            | HttpStatusCode.Unauthorized
            | HttpStatusCode.Forbidden -> "it does not give the file to everybody"
            | HttpStatusCode.NotFound
            | HttpStatusCode.Gone -> "it has no such file"
            | HttpStatusCode.TooManyRequests -> "it was asked too often"
            | HttpStatusCode.ServiceUnavailable -> "it is busy or being mended"
            | _ when code >= 500 -> "it failed"
            | _ when code >= 300 && code < 400 ->
                "it sends on to what is no http or https, from https to http, or in a circle"
            | _ -> "it refused"

        $"the server answered {code}: {words}"

    // An attempt

    /// A file on its way.
    type private Job =
        { File: SourceFile
          Address: Uri
          Target: string
          Part: FileStream
          Patience: Patience
          Stop: CancellationToken
          Report: Transfer -> unit }

    /// How an attempt ended.
    type private Ending =
        /// All bytes are there.
        | Complete
        /// Another attempt may go on, after so many seconds at least.
        | Broken of reason: string * atLeast: float
        /// Another attempt must begin anew.
        | Anew of reason: string
        /// No attempt will succeed; what is there may still be right.
        | Refused of reason: string
        /// What the server has is not the file.
        | Wrong of reason: string
        | Stopped

    let private clear (job: Job) =
        job.Part.SetLength 0L
        File.Delete(originOf job.Target)

    /// Runs `write`, in which the disk's refusals become RunFailed. What is there is good and stays.
    let private onDisk (job: Job) (write: unit -> unit) : unit =
        let fail why =
            let there = job.Part.Length

            raise (
                RunFailed
                    $"{job.Target}: {why}; {there} of {job.File.Size} bytes are there: run the same command again to go on."
            )

        try
            write ()
        with
        | :? IOException as error when isFull error ->
            fail $"the disk is full, and {job.File.Size - job.Part.Length} bytes are wanting"
        | :? IOException
        | :? UnauthorizedAccessException as error -> fail $"it cannot be written ({error.Message})"

    /// How many bytes are there to go on from, and what of.
    let private resumable (job: Job) : (int64 * string) option =
        let path = originOf job.Target
        let there = job.Part.Length

        if 0L < there && there <= job.File.Size && File.Exists path then
            match Errors.reading path (fun () -> File.ReadAllLines path) with
            | [| address; version |] when address = job.Address.AbsoluteUri -> Some(there, version)
            | _ -> None
        else
            None

    let private request (address: Uri) (resume: (int64 * string) option) : HttpRequestMessage =
        let message = new HttpRequestMessage(HttpMethod.Get, address)
        // Some servers refuse programs without a name.
        message.Headers.UserAgent.ParseAdd "patchup"
        message.Headers.AcceptEncoding.ParseAdd "identity"

        match resume with
        | Some(there, version) ->
            message.Headers.Range <- RangeHeaderValue(Nullable there, Nullable())
            message.Headers.TryAddWithoutValidation("If-Range", version) |> ignore
        | None -> ()

        message

    /// Where a response sends on to, if it may be gone to: http or https, but not from https to http.
    let private redirect (from: Uri) (response: HttpResponseMessage) : Uri option =
        match response.StatusCode, Option.ofObj response.Headers.Location with
        | (HttpStatusCode.MovedPermanently | HttpStatusCode.Found | HttpStatusCode.SeeOther | HttpStatusCode.TemporaryRedirect | HttpStatusCode.PermanentRedirect),
          Some location ->
            let next = Uri(from, location)

            if
                next.Scheme = Uri.UriSchemeHttps
                || next.Scheme = Uri.UriSchemeHttp && from.Scheme = Uri.UriSchemeHttp
            then
                Some next
            else
                None
        | _ -> None

    /// The first response that sends on no further, of ten at most. The client's own way to follow looks at no scheme.
    let rec private ask
        (client: HttpClient)
        (stop: CancellationToken)
        (resume: (int64 * string) option)
        (hops: int)
        (address: Uri)
        : Task<HttpResponseMessage> =
        task {
            use message = request address resume

            let! response =
                client.SendAsync(message, HttpCompletionOption.ResponseHeadersRead, stop)

            match redirect address response with
            | Some next when hops > 1 ->
                response.Dispose()
                return! ask client stop resume (hops - 1) next
            | _ -> return response
        }

    /// Gives the server its time again: it runs from the last byte on.
    let private wind (job: Job) (limit: CancellationTokenSource) =
        limit.CancelAfter(TimeSpan.FromSeconds job.Patience.Stall)

    /// Appends the body to the part.
    let private append (job: Job) (limit: CancellationTokenSource) (response: HttpResponseMessage) : Task<Ending> =
        task {
            use! body = response.Content.ReadAsStreamAsync limit.Token
            let buffer = Array.zeroCreate<byte>(1 <<< 17)
            let part = job.Part
            let mutable ending = None
            part.Position <- part.Length
            job.Report(Has part.Length)

            while Option.isNone ending do
                wind job limit
                let! count = body.ReadAsync(Memory buffer, limit.Token)

                if count = 0 then
                    ending <-
                        Some(
                            if part.Length = job.File.Size then
                                Complete
                            else
                                Broken("the connection ended", 0.0)
                        )
                elif part.Length + int64 count > job.File.Size then
                    ending <- Some(Wrong $"what the server sends is longer than {job.File.Size} bytes")
                else
                    onDisk job (fun () -> part.Write(buffer, 0, count))
                    job.Report(Has part.Length)

            return ending.Value
        }

    let private remember (job: Job) (version: string) =
        try
            Errors.writing (originOf job.Target) (fun stream ->
                stream.Write(Encoding.UTF8.GetBytes $"{job.Address.AbsoluteUri}\n{version}\n"))
        with UserError message ->
            raise (RunFailed message)

    let private answered
        (job: Job)
        (limit: CancellationTokenSource)
        (resume: (int64 * string) option)
        (response: HttpResponseMessage)
        : Task<Ending> =
        let length = Option.ofNullable response.Content.Headers.ContentLength

        match response.StatusCode, resume with
        | HttpStatusCode.OK, _ when length |> Option.exists ((<>) job.File.Size) ->
            Task.FromResult(Wrong $"the server's file has {length.Value} bytes instead of {job.File.Size}")
        | HttpStatusCode.OK, _ ->
            clear job
            versionOf response |> Option.iter (remember job)
            append job limit response
        | HttpStatusCode.PartialContent, Some(there, version) when continues job.File there version response ->
            append job limit response
        | HttpStatusCode.PartialContent, _ -> Task.FromResult(Anew "the server sent another part than it was asked for")
        | HttpStatusCode.RequestedRangeNotSatisfiable, Some _ -> Task.FromResult(Anew "the server's file has changed")
        | status, _ when
            int status >= 500
            || status = HttpStatusCode.RequestTimeout
            || status = HttpStatusCode.TooManyRequests
            ->
            let wait =
                Option.ofObj response.Headers.RetryAfter
                |> Option.bind (fun after -> Option.ofNullable after.Delta)
                |> Option.map _.TotalSeconds

            Task.FromResult(Broken(inWords status, defaultArg wait 0.0))
        | status, _ -> Task.FromResult(Refused(inWords status))

    /// Whether the server was not even reached.
    let private isUnreachable (error: HttpRequestException) =
        match error.HttpRequestError with
        | HttpRequestError.NameResolutionError
        | HttpRequestError.ConnectionError
        | HttpRequestError.SecureConnectionError
        | HttpRequestError.ProxyTunnelError -> true
        | _ -> false

    let private attempt (client: HttpClient) (job: Job) (number: int) : Task<Ending> =
        task {
            use limit = CancellationTokenSource.CreateLinkedTokenSource job.Stop
            wind job limit

            try
                let resume = resumable job

                if resume.IsNone then
                    clear job

                if job.Part.Length = job.File.Size then
                    return Complete
                else
                    use! response = ask client limit.Token resume 10 job.Address
                    return! answered job limit resume response
            with
            | :? OperationCanceledException when job.Stop.IsCancellationRequested -> return Stopped
            | :? OperationCanceledException -> return Broken($"no byte came for {job.Patience.Stall} s", 0.0)
            | :? HttpRequestException as error ->
                // The cause has the reason where the message only points to it.
                let secure = error.HttpRequestError = HttpRequestError.SecureConnectionError

                let reason =
                    (if secure then
                         error.GetBaseException().Message
                     else
                         error.Message)
                        .TrimEnd
                        '.'

                return
                    if number = 1 && isUnreachable error then
                        Refused reason
                    else
                        Broken(reason, 0.0)
            | :? IOException as error -> return Broken(error.Message.TrimEnd '.', 0.0)
        }

    // A file

    /// What is left of the part, in words; nothing where it is of no use.
    let private left (job: Job) =
        match resumable job with
        | Some(there, _) -> $"{there} of {job.File.Size} bytes are kept in {job.Part.Name}"
        | None -> "nothing is kept"

    let private giveUp (job: Job) (reason: string) : 'a =
        let file = job.File

        raise (
            RunFailed
                $"{job.Address} was not fetched: {reason}; {left job}; the same command goes on. By hand: put it at {job.Target} ({file.Size} bytes, \
                  {file.Checksum.Algorithm} {file.Checksum.Digits}, says {file.CheckedBy}); the same command then checks it."
        )

    let private stopped (job: Job) : 'a =
        raise (Interrupted $"{job.File.Name}: stopped; {left job}")

    let private finish (job: Job) : Fetched =
        match judge job.File job.Part with
        | Error reason ->
            clear job
            giveUp job reason
        | Ok sha256 ->
            onDisk job (fun () ->
                job.Part.Flush true
                File.Move(job.Part.Name, job.Target, true)
                File.Delete(originOf job.Target))

            { Path = job.Target
              Size = job.File.Size
              Sha256 = sha256
              WasThere = false }

    let private download (client: HttpClient) (job: Job) : Fetched =
        let patience = job.Patience

        let rec go number =
            let again reason seconds =
                if number >= patience.Attempts then
                    giveUp job $"{reason}, after {number} attempts"

                job.Report(Again(reason, seconds))

                if job.Stop.WaitHandle.WaitOne(TimeSpan.FromSeconds seconds) then
                    stopped job

                go (number + 1)

            match (attempt client job number).GetAwaiter().GetResult() with
            | Complete -> finish job
            | Stopped -> stopped job
            | Refused reason -> giveUp job reason
            | Wrong reason ->
                clear job
                giveUp job reason
            | Anew reason ->
                clear job
                again reason 0.0
            | Broken(reason, atLeast) ->
                let pause = patience.Pause * Math.Pow(2.0, float (number - 1))
                again reason (max (min pause 30.0) (min atLeast 60.0))

        go 1

    /// Those folders of a path that were not there, the innermost first; they are made.
    let private makeFolders (folder: string) : string list =
        let rec missing (path: string) =
            if isNull path || Directory.Exists path then
                []
            else
                path :: missing (Path.GetDirectoryName path)

        let made = missing (Path.GetFullPath folder)

        try
            Directory.CreateDirectory folder |> ignore
        with
        | :? UnauthorizedAccessException -> Errors.user $"{folder}: it may not be made; check the permissions."
        | :? IOException as error -> Errors.user $"{folder}: it cannot be made ({error.Message})"

        made

    let private removeEmpty (folders: string list) =
        for folder in folders do
            try
                Directory.Delete folder
            with :? IOException ->
                () // something is in it

    /// Fetches a file into a folder, under its name, unless it is there already. What arrives is kept beside it in a part
    /// that this function goes on from, and takes the name only when size and checksum are the published ones and all is
    /// on the disk. A UserError where another file has the name or another process fetches it; RunFailed where the server or
    /// the disk fails, with what to do; Interrupted where `stop` is cancelled.
    let file
        (patience: Patience)
        (stop: CancellationToken)
        (report: Transfer -> unit)
        (folder: string)
        (address: Uri)
        (file: SourceFile)
        : Fetched =
        let target = Path.GetFullPath(Path.Combine(folder, file.Name))

        let underWay () =
            use part = openPart target

            // A proxy cannot reach this machine's own servers.
            use client =
                new HttpClient(
                    new SocketsHttpHandler(AllowAutoRedirect = false, UseProxy = not address.IsLoopback),
                    Timeout = Timeout.InfiniteTimeSpan
                )

            let job =
                { File = file
                  Address = address
                  Target = target
                  Part = part
                  Patience = patience
                  Stop = stop
                  Report = report }

            try
                // Another process may have finished it before this one had the part.
                match existing target file with
                | Some found -> found
                | None -> download client job
            finally
                // A part of nothing, or of nobody knows what, is of no use.
                if (resumable job).IsNone then
                    File.Delete part.Name
                    File.Delete(originOf target)

        match existing target file with
        | Some found -> found
        | None ->
            let made = makeFolders folder

            try
                underWay ()
            finally
                removeEmpty made

    /// The address of a file: the published one, or that of its name below another address.
    let address (from: string option) (file: SourceFile) : Uri =
        match from with
        | None -> Uri file.Address
        | Some text ->
            match Uri.TryCreate(text.TrimEnd '/' + "/", UriKind.Absolute) with
            | true, from when
                (from.Scheme = Uri.UriSchemeHttp || from.Scheme = Uri.UriSchemeHttps)
                && from.Query = ""
                && from.Fragment = ""
                ->
                Uri(from, file.Name)
            | _ -> Errors.user $"'{text}' is no address to fetch from; give one such as https://host/folder."

    /// Fetches all files of a data set, one after the other, and tells of each that is there.
    let all
        (patience: Patience)
        (stop: CancellationToken)
        (report: SourceFile -> Transfer -> unit)
        (folder: string)
        (from: string option)
        (source: Source)
        (each: Fetched -> unit)
        : unit =
        for one in source.Files do
            file patience stop (report one) folder (address from one) one |> each
