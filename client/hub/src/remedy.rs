//! What would help against an error of the hub, without the words of a command line.

/// What would help. The command line words it, with the variables of the environment to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Name a folder for the cache, or a home folder.
    NameCacheFolder,
    /// Try again: a transfer resumes where it broke off.
    Retry,
    /// Send a token.
    SetToken,
    /// Look at the token in use: the hub refuses it.
    CheckToken,
    /// Accept the licence on the model's page, and send a token of that account.
    AcceptLicence {
        /// Whether the token in use is of an account that has no access.
        other_account: bool,
    },
    /// Name one file of the repository, as `repo:FILE`.
    NameFile {
        /// `owner/name`.
        repo: String,
    },
    /// Free some space, or keep the cache on another disk.
    OtherDisk,
}
