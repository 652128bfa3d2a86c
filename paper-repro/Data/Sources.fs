namespace PatchUp.Repro

open System
open PatchUp.Functional

/// What the bytes of a file must give: digits of base 16, in lower case.
type Checksum =
    | Sha256 of string
    | Md5 of string

    /// The algorithm's name.
    member this.Algorithm =
        match this with
        | Sha256 _ -> "SHA-256"
        | Md5 _ -> "MD5"

    member this.Digits =
        match this with
        | Sha256 digits
        | Md5 digits -> digits

/// A file that somebody publishes.
type SourceFile =
    {
        /// In the folder into which it is fetched.
        Name: string
        /// Where it is published, http or https.
        Address: string
        /// In bytes.
        Size: int64
        Checksum: Checksum
        /// Who says so: not every publisher of a file gives a checksum.
        CheckedBy: string
    }

/// A data set that can be fetched.
type Source =
    {
        Name: string
        /// What it is, in a line.
        About: string
        /// What its publisher allows, as far as it says so.
        Terms: string
        /// The name of the folder in which its reader looks for it.
        Folder: string
        Files: SourceFile list
    }

/// The data sets that `patchup data fetch` knows. Sizes and checksums are those that others published; none was taken from
/// a file that was merely downloaded.
[<RequireQualifiedAccess>]
module Sources =

    let private tensorFlow = "TensorFlow Datasets"

    let private file name (at: string) size checksum checkedBy : SourceFile =
        { Name = name
          Address = at + name
          Size = size
          Checksum = checksum
          CheckedBy = checkedBy }

    // url_checksums/cifar10.txt and cifar100.txt of TensorFlow Datasets; the MD5 of the binary versions on the page itself
    // are c32a1d4ab5d03f1284b67883e8d87530 and 03b5dce01913d631647c71ecec9e9cb8.
    let private cifar name size digits =
        file name "https://www.cs.toronto.edu/~kriz/" size (Sha256 digits) tensorFlow

    let private cifarTerms =
        "no licence is stated; the page asks to cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"

    // url_checksums/svhn_cropped.txt of TensorFlow Datasets; torchvision's svhn.py has the same addresses and MD5.
    let private svhn name size digits =
        file name "http://ufldl.stanford.edu/housenumbers/" size (Sha256 digits) tensorFlow

    let private svhnTerms = "for non-commercial use only, says its page"

    // url_checksums/mnist.txt of TensorFlow Datasets. The authors' page, yann.lecun.com/exdb/mnist, no longer serves the
    // files to programs; torchvision and TensorFlow Datasets take copies of them.
    let private mnist name size digits =
        file name "https://storage.googleapis.com/cvdf-datasets/mnist/" size (Sha256 digits) tensorFlow

    // url_checksums/fashion_mnist.txt of TensorFlow Datasets; the address is that of github.com/zalandoresearch/fashion-mnist.
    let private fashion name size digits =
        file name "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/" size (Sha256 digits) tensorFlow

    let private imageNetTerms =
        "images of ImageNet, whose terms of access allow research and education only"

    /// In alphabetical order.
    let all: Source list =
        [ { Name = "cifar-10"
            About = "60,000 images of 32 x 32 in 10 classes, the binary version"
            Terms = cifarTerms
            Folder = "cifar-10"
            Files =
              [ cifar
                    "cifar-10-binary.tar.gz"
                    170052171L
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd" ] }
          { Name = "cifar-10-c"
            About = "CIFAR-10's test images under 19 corruptions in 5 strengths"
            Terms = "Creative Commons Attribution 4.0, says Zenodo"
            Folder = "cifar-10-c"
            Files =
              // url_checksums/cifar10_corrupted.txt of TensorFlow Datasets; Zenodo's MD5 is 56bf5dcef84df0e2308c6dcbcbbd8499.
              [ file
                    "CIFAR-10-C.tar"
                    "https://zenodo.org/records/2535967/files/"
                    2918471680L
                    (Sha256 "c72763e101c723b7c507b96205f7e938912a5d587376173b825850cf3cb876a7")
                    tensorFlow ] }
          { Name = "cifar-100"
            About = "60,000 images of 32 x 32 in 100 classes, the binary version"
            Terms = cifarTerms
            Folder = "cifar-100"
            Files =
              [ cifar
                    "cifar-100-binary.tar.gz"
                    168513733L
                    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec" ] }
          { Name = "cifar-100-c"
            About = "CIFAR-100's test images under 19 corruptions in 5 strengths"
            Terms = "see https://zenodo.org/records/3555552"
            Folder = "cifar-100-c"
            Files =
              // url_checksums/cifar100_corrupted.txt of TensorFlow Datasets; Zenodo's MD5 is 11f0ed0f1191edbf9fa23466ae6021d3.
              [ file
                    "CIFAR-100-C.tar"
                    "https://zenodo.org/records/3555552/files/"
                    2918473216L
                    (Sha256 "30ee6543a1bfd049fa33834b7c1ada301e7064b7fbe8fc38340eb8b62ced4b33")
                    tensorFlow ] }
          { Name = "fashion-mnist"
            About = "70,000 grey images of 28 x 28 of clothes in 10 classes"
            Terms = "MIT licence"
            Folder = "fashion-mnist"
            Files =
              [ fashion
                    "train-images-idx3-ubyte.gz"
                    26421880L
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
                fashion
                    "train-labels-idx1-ubyte.gz"
                    29515L
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
                fashion
                    "t10k-images-idx3-ubyte.gz"
                    4422102L
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
                fashion
                    "t10k-labels-idx1-ubyte.gz"
                    5148L
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5" ] }
          { Name = "mnist"
            About = "70,000 grey images of 28 x 28 of handwritten digits"
            Terms =
              "copyright Y. LeCun and C. Cortes; Creative Commons Attribution-Share Alike 3.0, says Keras' documentation"
            Folder = "mnist"
            Files =
              [ mnist
                    "train-images-idx3-ubyte.gz"
                    9912422L
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
                mnist
                    "train-labels-idx1-ubyte.gz"
                    28881L
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
                mnist
                    "t10k-images-idx3-ubyte.gz"
                    1648877L
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
                mnist
                    "t10k-labels-idx1-ubyte.gz"
                    4542L
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6" ] }
          { Name = "svhn"
            About = "73,257 training and 26,032 test images of 32 x 32 of house numbers' digits"
            Terms = svhnTerms
            Folder = "svhn"
            Files =
              [ svhn "train_32x32.mat" 182040794L "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
                svhn "test_32x32.mat" 64275384L "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b" ] }
          { Name = "svhn-extra"
            About = "531,131 easier training images of SVHN"
            Terms = svhnTerms
            Folder = "svhn"
            Files =
              [ svhn "extra_32x32.mat" 1329278602L "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3" ] }
          { Name = "tiny-imagenet"
            About = "120,000 images of 64 x 64 in 200 classes, 10,000 of them without labels"
            Terms = imageNetTerms
            Folder = "tiny-imagenet"
            Files =
              // The site publishes no checksum; the MD5 is that of avalanche/benchmarks/datasets/tiny_imagenet of Avalanche,
              // which several other libraries have too, and so it is with the size.
              [ file
                    "tiny-imagenet-200.zip"
                    "http://cs231n.stanford.edu/"
                    248100043L
                    (Md5 "90528d7ca1a48142e341f4ef8d21d0de")
                    "Avalanche" ] }
          { Name = "tiny-imagenet-c"
            About = "10,000 images of Tiny ImageNet's classes under 15 corruptions in 5 strengths"
            Terms = imageNetTerms
            Folder = "tiny-imagenet-c"
            Files =
              // The address of github.com/hendrycks/robustness; the MD5 is that of tiny_imagenet_c.py of TorchUncertainty.
              [ file
                    "Tiny-ImageNet-C.tar"
                    "https://zenodo.org/records/2536630/files/"
                    1794775040L
                    (Md5 "f9c9a9dbdc11469f0b850190f7ad8be1")
                    "TorchUncertainty" ] } ]

    /// The data set of this name; a UserError for a name that is not known.
    let find (name: string) : Source =
        let names = all |> List.map _.Name

        match all |> List.tryFind (fun source -> source.Name = name) with
        | Some source -> source
        | None ->
            let hint =
                Notation.nearest names name
                |> Option.map (fun near -> $" (did you mean {near}?)")
                |> Option.defaultValue ""

            Errors.user $"""'{name}' is no data set that can be fetched{hint}; those are {String.Join(", ", names)}."""
