//! What a user may do about an error. The command line turns these into hints.

use std::path::PathBuf;

use fedlora_common::digest::Digest;

/// What a member may do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Accept the roster, once the other members confirm that they see the same.
    AcceptRoster {
        /// The digest of the roster that was shown.
        roster: Digest,
    },
    /// Put the newest copy of the file back, or join with other keys into a new folder.
    OtherKeys,
    /// End all other processes with this member's keys; other keys, where none is its own.
    EndCopies,
    /// Take part, until the aggregator shows the roster.
    RunOnce,
    /// Agree to show the weight class, or ask for a plan with equal weights.
    AgreeToClass {
        /// The class that the member's data has.
        class: u8,
    },
    /// Agree to runs that begin from adapters which this member has not held, or ask for a plan that
    /// begins otherwise.
    AllowUnknownStart,
    /// Join into another directory, or remove the membership from this one.
    OtherDirectory {
        /// The directory that holds a membership.
        path: PathBuf,
    },
    /// Join with an invitation first, or name the directory that was joined into.
    JoinFirst {
        /// The directory without a membership.
        path: PathBuf,
    },
}
