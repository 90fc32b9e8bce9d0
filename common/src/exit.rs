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

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
