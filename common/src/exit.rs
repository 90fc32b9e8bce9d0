//! The programs' exit codes, which scripts rely on.

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// A configuration file or plan is wrong.
    Configuration = 3,
    /// A key, certificate or invitation is missing, wrong or refused.
    Identity = 4,
    /// The other side cannot be reached, or the connection broke for good.
    Network = 5,
    /// Too few members.
    Quorum = 6,
    /// Data, model or device.
    Data = 7,
    /// The privacy budget is spent.
    Privacy = 8,
    /// Something is not what it must be: a digest, a signature, a roster.
    Integrity = 9,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// All exit codes, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Configuration,
        Self::Identity,
        Self::Network,
        Self::Quorum,
        Self::Data,
        Self::Privacy,
        Self::Integrity,
        Self::Interrupted,
    ];

    /// What it means, in a line for the reference.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed, for a reason that has no code of its own",
            Self::Usage => "the command line is wrong",
            Self::Configuration => "a configuration file, a run plan or a folder's state is wrong",
            Self::Identity => "a key, certificate or invitation is missing, wrong or refused",
            Self::Network => "the other side cannot be reached",
            Self::Quorum => "too few members take part",
            Self::Data => "data, model or device cannot be used",
            Self::Privacy => "the privacy budget is spent",
            Self::Integrity => "a digest, a signature or a roster is not what it must be",
            Self::Interrupted => "interrupted by ctrl-c, SIGTERM or SIGHUP",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
