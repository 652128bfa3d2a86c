namespace PatchUp.Repro

open System
open System.Collections.Generic

/// Tiny-ImageNet-200 as it is published: train/WNID/images/*.JPEG, and val/images/*.JPEG, whose classes are in
/// val/val_annotations.txt and which are the test set, as its own has no labels.
[<RequireQualifiedAccess>]
module internal TinyImageNet =

    /// The largest image file, in bytes.
    let private most = 1L <<< 26

    let private isImage (name: string) =
        name.EndsWith(".JPEG", StringComparison.OrdinalIgnoreCase)

    /// The folders' names in the order of their indices: sorted, as in train/CLASS.
    let private ids (files: Files) (folder: string) : string[] =
        let name = Files.at folder "wnids.txt"

        let ids =
            Files.lines files name
            |> Array.sortWith (fun a b -> String.CompareOrdinal(a, b))

        match ids |> Array.countBy id |> Array.tryFind (fun (_, count) -> count > 1) with
        | Some(id, _) -> Errors.user $"{files.Path}: {name} names {id} twice; fetch it again."
        | None when ids.Length = 0 -> Errors.user $"{files.Path}: {name} names no class; fetch it again."
        | None -> ids

    /// "WNID name", by the first of its names in words.txt; WNID alone where that has none.
    let private classes (files: Files) (folder: string) (ids: string[]) : string[] =
        let name = Files.at folder "words.txt"

        let words =
            if not (files.Has name) then
                Map.empty
            else
                Files.lines files name
                |> Array.choose (fun line ->
                    match line.Split '\t' with
                    | [| id; words |] -> Some(id, words.Split(',')[0])
                    | _ -> None)
                |> Map.ofArray

        ids
        |> Array.map (fun id ->
            match words.TryFind id with
            | Some word -> $"{id} {word.Trim()}"
            | None -> id)

    let private train (files: Files) (folder: string) (ids: string[]) : (string * int)[] =
        let at = Files.at folder "train"
        let known = HashSet ids

        match fst (files.In at) |> List.tryFind (known.Contains >> not) with
        | Some other -> Errors.user $"{files.Path}: wnids.txt lacks the class {at}/{other}; fetch it again."
        | None -> ()

        [| for label in 0 .. ids.Length - 1 do
               let images = $"{at}/{ids[label]}/images"

               match snd (files.In images) |> List.filter isImage with
               | [] -> Errors.user $"{files.Path}: {images} has no *.JPEG; fetch it again."
               | names ->
                   for name in names do
                       $"{images}/{name}", label |]

    let private test (files: Files) (folder: string) (ids: string[]) : (string * int)[] =
        let annotations = Files.at folder "val/val_annotations.txt"
        let images = Files.at folder "val/images"
        let labels = ids |> Array.mapi (fun label id -> id, label) |> dict
        let there = snd (files.In images) |> List.filter isImage |> HashSet

        let fail (what: string) : 'a =
            Errors.user $"{files.Path}: {annotations} {what}; fetch it again."

        let listed =
            [| for line in Files.lines files annotations do
                   match line.Split '\t' |> List.ofArray with
                   | name :: id :: _ when labels.ContainsKey id ->
                       if not (there.Remove name) then
                           fail $"names the image '{name}' twice, or it is not in {images}"

                       $"{images}/{name}", labels[id]
                   | _ -> fail $"has the line '{line}', which is no image with a class of wnids.txt" |]

        if listed.Length = 0 then
            fail "names no image"

        if there.Count > 0 then
            fail $"""lacks {there.Count} images in {images}, such as {Seq.min there}"""

        listed

    /// Tiny-ImageNet-200, or a part of it, in this folder.
    let read (files: Files) (folder: string) : Sets =
        let ids = ids files folder
        let classes = classes files folder ids
        let sets = [ train files folder ids; test files folder ids ]

        let images =
            sets
            |> List.map (Array.map (fun (name, _) -> name, (fun () -> Files.bytes most files name)))
            |> Images.stacks files.Path

        let split i : Split =
            { Images = images[i]
              Labels = Array.map snd sets[i] }

        { Classes = classes
          MayMirror = true
          Train = split 0
          Test = split 1 }
