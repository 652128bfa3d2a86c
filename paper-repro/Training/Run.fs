namespace PatchUp.Repro

/// One pass over the training images, and what validation says after it.
type Epoch =
    {
        /// Counted from 1.
        Epoch: int
        /// Of its first step.
        LearningRate: float
        /// The mean over the pass.
        TrainLoss: float
        /// In percent: the weight that the mixed labels give to the predicted classes.
        ExpectedAccuracyUnderMixing: float
        /// In percent.
        ValidationError: float
        ValidationNll: float
    }

/// The result of a run: nothing in it depends on the clock or the machine's load.
type Record =
    {
        Config: Config
        Parameters: int64
        /// By validation error, then validation NLL, then the earlier.
        BestEpoch: int
        /// Of the best epoch's weights, in percent.
        TestError: float
        TestNll: float
        History: Epoch list
    }

/// How long a run took.
type Timing =
    {
        Seconds: float
        /// Images trained on, over the time of the epochs with their validation.
        ImagesPerSecond: float
        EpochSeconds: float list
        /// How many runs may have been done at the same time, which then share the machine.
        Jobs: int
    }

/// What a run was computed on and with from one of its steps on, as far as last bits may depend on it.
type Machine =
    {
        /// How many epochs were done before.
        Epoch: int
        /// How many steps of the next one were.
        Step: int
        /// The type of its processor.
        Processor: string
        /// The version of libtorch.
        Libtorch: string
        /// The version of the library that mixes.
        Library: string
    }

/// What a run reports while it goes on.
type Advance =
    /// So many images were trained on by an earlier process, from which this one takes over, and these epochs were done.
    | Resumed of images: int64 * history: Epoch list
    /// So many more images were trained on.
    | Stepped of images: int
    | EpochDone of Epoch

/// A finished run.
[<NoEquality; NoComparison>]
type Trained =
    {
        Record: Record
        Timing: Timing
        /// In their order; more than one where it was moved.
        Machines: Machine list
        /// With the best epoch's weights; the caller disposes it.
        Model: Model
        Network: NetworkSettings
    }

/// A run that cannot go on; the message is one line.
exception RunFailed of string with
    override this.Message = this.Data0
