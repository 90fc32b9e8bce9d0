//! The authority's key apart from the aggregator: in a folder of its own, on a machine that need not be
//! connected to anything. What waits is carried there in a file, judged and signed, and carried back.
//!
//! | file | owns |
//! |---|---|
//! | `carried.rs` | the two files that are carried: requests, which the aggregator signs, and certificates |
//! | `folder.rs` | the folder: the sealed key, whose aggregator it serves, what was issued; signing |
//! | `import.rs` | the aggregator's side: what waits is written out, and what came back is taken |

mod carried;
mod folder;
mod import;

use std::path::PathBuf;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;

use crate::remedy::Remedy;

pub use carried::{Certificates, RemovedMember, Requests};
pub use folder::{Allowed, AuthorityFolder, Doubt, Judged, check};
pub use import::{detach, export, take};

/// What is wrong with what is carried between the aggregator and its authority's key.
#[derive(Debug, thiserror::Error)]
pub enum CarriedError {
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Requests that the aggregator has not signed, or that were changed on the way.
    #[error(
        "{}: the aggregator's signature is wrong: the file was changed, or is another aggregator's",
        path.display()
    )]
    Signature {
        /// Its path.
        path: PathBuf,
    },
    /// A file of another federation.
    #[error("{}: it is of another authority, {found}; this one is {own}", path.display())]
    OtherAuthority {
        /// Its path.
        path: PathBuf,
        /// The authority in it.
        found: String,
        /// The one here.
        own: String,
    },
    /// Nothing is signed where one request must not be.
    #[error("nothing was signed, because of the request of {who}: {doubt}")]
    Refused {
        /// Whose request it is.
        who: String,
        /// Why it is not signed.
        doubt: Doubt,
    },
    /// Somebody is to be revoked who has no certificate.
    #[error("this authority has issued no certificate for {member}")]
    NeverIssued {
        /// The name.
        member: MemberName,
    },
    /// All requests were left out.
    #[error("nothing is left to sign")]
    NothingSigned,
    /// Something is there already.
    #[error("{} is there already", path.display())]
    Taken {
        /// The folder or file.
        path: PathBuf,
    },
    /// No folder of an authority.
    #[error("{} holds no authority's key that was taken apart", path.display())]
    NoFolder {
        /// The folder that was named.
        path: PathBuf,
    },
}

impl CarriedError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Refused {
                doubt: Doubt::OtherKeys { .. },
                ..
            } => Some(Remedy::AllowOtherKeys),
            _ => None,
        }
    }
}

/// How a name is shown: the member's, or the aggregator's own.
fn who(member: Option<&MemberName>) -> String {
    member.map_or_else(|| "the aggregator itself".to_owned(), ToString::to_string)
}

/// A digest as people compare it.
fn shown(key: &Digest) -> String {
    key.to_string()
}

#[cfg(test)]
mod tests;
