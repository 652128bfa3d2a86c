/// The words in which regularizers are written; open it to write
/// `cells 0.5 &&& ~~~(rect (always 0.3)) |> blend (beta 2 2) |> at input`. Numbers may be written as integers.
module PatchUp.Functional.Words

// ---- distributions on [0, 1] ----

/// This value, always.
let inline always value = Dist.always (float value)

/// Uniform on [0, 1].
let uniform = Uniform

/// Beta(a, b).
let inline beta a b = Dist.beta (float a) (float b)

// ---- regions ----

/// No feature.
let nowhere = Nowhere

/// Every feature.
let everywhere = Everywhere

/// Each feature by itself, with this probability.
let inline cells fraction = Region.cells (float fraction)

/// Squares of side `size` that alter `fraction` of the map in expectation, drawn for each channel.
let inline blocks (size: int) fraction =
    Region.blocks Exact size (float fraction)

/// Squares of side `size`, calibrated as told.
let inline blocksBy calibration (size: int) fraction =
    Region.blocks calibration size (float fraction)

/// One rectangle covering this share of the map before it is clipped.
let rect area = Rect area

/// Each channel as a whole, with this probability.
let inline channels fraction = Region.channels (float fraction)

/// A draw of its own for every sample.
let perSample region = PerSample region

/// A draw of its own for every channel.
let perChannel region = PerChannel region

/// One draw for all channels.
let shared region = Shared region

/// A region of one's own.
let custom region = Region.custom region

// ---- steps ----

/// Takes the partner's features, bit for bit.
let swap region = Regularizer.step Shuffled Swap region

/// Mixes with the partner's features; the sample keeps the share lambda, one for the batch.
let blend lambda region =
    Regularizer.step Shuffled (Blend lambda) region

/// Mixes with the partner's features; each sample keeps a share lambda of its own.
let blendEach lambda region =
    Regularizer.step Shuffled (BlendEach lambda) region

/// Sets features to zero.
let blank region = Regularizer.step Blank Swap region

/// Chooses the partners.
let pairedBy partner regularizer =
    Regularizer.pairedBy partner regularizer

/// Shrinks the partner's map into the altered box before mixing.
let resized regularizer =
    regularizer |> Regularizer.map (fun step -> { step with View = Resized })

/// Moves own and partner's cells to where the region says, before mixing.
let transported regularizer =
    regularizer |> Regularizer.map (fun step -> { step with View = Transported })

/// Rescales the features that blanking leaves.
let rescale kind regularizer = Regularizer.rescale kind regularizer

// ---- sites ----

let private onSite site regularizer =
    regularizer |> Regularizer.map (fun step -> { step with Site = site })

/// Site 0.
let input = 0

/// At site k: 0 is the input, k is after the k-th stage.
let at k regularizer = onSite (At(Place.number k)) regularizer

/// At one of these sites, uniformly at random.
let atAny ks regularizer =
    onSite (Site.anyOf (List.map Place.number ks)) regularizer

/// At each of these sites.
let atAll ks regularizer =
    onSite (Site.allOf (List.map Place.number ks)) regularizer

/// After the stage or module of this name.
let after name regularizer =
    onSite (At(Place.named name)) regularizer

/// After one of these stages or modules, uniformly at random.
let afterAny names regularizer =
    onSite (Site.anyOf (List.map Place.named names)) regularizer

/// After each of these stages or modules.
let afterAll names regularizer =
    onSite (Site.allOf (List.map Place.named names)) regularizer

// ---- objectives ----

/// Equation (6) as written: both terms.
let twoTerm regularizer =
    Regularizer.objective Objective.twoTerm regularizer

/// The first term of equation (6) alone.
let first regularizer =
    Regularizer.objective Objective.first regularizer

/// The second term of equation (6) alone, which is the default.
let second regularizer =
    Regularizer.objective Objective.second regularizer

/// A weighted sum of the two terms of equation (6).
let inline terms weightOfFirst weightOfSecond regularizer =
    Regularizer.objective (Objective.weighted (float weightOfFirst) (float weightOfSecond)) regularizer

// ---- composition ----

/// Does nothing.
let identity = Regularizer.identity

/// One of these, with probability proportional to its weight.
let inline oneOf branches =
    Regularizer.oneOf [ for weight, regularizer in branches -> float weight, regularizer ]

/// All of these.
let sequence parts = Regularizer.sequence parts

/// What acts as training goes on, from 0 to 1: `over [0, identity; 1, dropblock]` begins with nothing, ends with DropBlock, and takes it more and more often between;
/// between two that differ in their numbers only, the numbers go in proportion.
let inline over points =
    Regularizer.over [ for time, regularizer in points -> float time, regularizer ]

/// With this probability, else nothing.
let inline sometimes probability regularizer =
    Regularizer.sometimes (float probability) regularizer
