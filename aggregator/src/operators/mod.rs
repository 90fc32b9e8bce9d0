//! Acts that need two operators. Each operator has a key of its own; one proposes what is to be done, another
//! approves it, and both signatures stand in the audit log. Who the operators are, and which acts need two,
//! stands in the audit log as well: no file says it that somebody alone could change.
//!
//! | file | owns |
//! |---|---|
//! | `act.rs` | what is proposed, and the signatures on it |
//! | `key.rs` | an operator's own key, sealed by a passphrase |
//! | `ledger.rs` | what the log says: the rule in force, what was approved, and what was not |
//! | `desk.rs` | proposals that wait for another operator |

mod act;
mod desk;
mod key;
mod ledger;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::{IdError, MemberName};
use serde::{Deserialize, Serialize};

use crate::audit_log::LogError;
use crate::ca::CaError;
use crate::directory::DirectoryError;
use crate::registry::RegistryError;
use crate::remedy::Remedy;

pub use act::{Act, Consent, Proposal, Role};
pub use desk::{Approved, Desk, LIFE, Waiting};
pub use key::OperatorKey;
pub use ledger::{Ledger, of_directory};

/// An operator's name: as a member's, and no member's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperatorName(MemberName);

impl FromStr for OperatorName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Its name.
    pub name: OperatorName,
    /// The public half of its key.
    pub key: IdentityPublic,
}

/// A kind of act that may need two operators.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum ActKind {
    /// A new member, or other keys for one: `invite` and `re-key`.
    Admission,
    /// A member is removed: `remove`.
    Removal,
    /// A plan is queued: `run submit`.
    Plans,
}

impl ActKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Admission, Self::Removal, Self::Plans];

    /// The kind in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Removal => "removal",
            Self::Plans => "plans",
        }
    }
}

/// Who the operators are, and what needs two of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwoOperators {
    /// The operators.
    pub operators: Vec<Operator>,
    /// What needs two. To change this itself needs two as long as anything does.
    pub acts: BTreeSet<ActKind>,
}

impl TwoOperators {
    /// A rule for these operators.
    ///
    /// # Errors
    /// [`OperatorsError::Operators`] for fewer than two, or a name or key that two have.
    pub fn new(
        operators: Vec<Operator>,
        acts: impl IntoIterator<Item = ActKind>,
    ) -> Result<Self, OperatorsError> {
        let names: BTreeSet<_> = operators.iter().map(|one| &one.name).collect();
        let keys: BTreeSet<_> = operators.iter().map(|one| one.key).collect();
        let found = operators.len();
        match found >= 2 && names.len() == found && keys.len() == found {
            true => Ok(Self {
                operators,
                acts: acts.into_iter().collect(),
            }),
            false => Err(OperatorsError::Operators),
        }
    }

    /// The operator with this key.
    pub fn with_key(&self, key: &IdentityPublic) -> Option<&Operator> {
        self.operators.iter().find(|one| one.key == *key)
    }

    /// The operator of this name.
    pub fn named(&self, name: &OperatorName) -> Option<&Operator> {
        self.operators.iter().find(|one| one.name == *name)
    }
}

/// Why an act is not done, or a proposal not taken.
#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    /// An act that needs two operators, and nobody's key.
    #[error("this needs two operators ({}): one proposes it, and another approves it", kind.name())]
    TwoNeeded {
        /// The kind of act.
        kind: ActKind,
    },
    /// A plan that would be served without being queued.
    #[error("plans need two operators: this one would be carried out on the word of one")]
    PlanNotQueued,
    /// What was found on disk was not approved.
    #[error("{name}: two operators are needed for it, and have not approved it as it is")]
    NotApproved {
        /// The file, in the operator's directory.
        name: String,
    },
    /// Too few operators, or two that are one.
    #[error("at least two operators are needed, each with a name and a key of its own")]
    Operators,
    /// No rule is in force.
    #[error("no act needs two operators here")]
    NoRule,
    /// A key of nobody that may act.
    #[error("the key {} is none of the operators'", key.fingerprint().short())]
    Stranger {
        /// The public half.
        key: IdentityPublic,
    },
    /// Whoever proposed it approves it.
    #[error("{name} has proposed this: another operator has to approve it")]
    SameOperator {
        /// The operator.
        name: OperatorName,
    },
    /// It waits no longer.
    #[error("the proposal {} has expired: it has to be made again", id.short())]
    Expired {
        /// The proposal.
        id: Digest,
    },
    /// It was approved or refused before.
    #[error("the proposal {} was decided before: line {line} of the audit log", id.short())]
    Decided {
        /// The proposal.
        id: Digest,
        /// The line.
        line: u64,
    },
    /// No proposal of that name waits, or several.
    #[error("{found} proposals that wait begin with '{given}'; one is needed")]
    Which {
        /// What was given.
        given: String,
        /// How many there are.
        found: usize,
    },
    /// A proposal that is not what was signed.
    #[error("{}: {reason}", path.display())]
    Proposal {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What was proposed cannot be done any more.
    #[error("what was proposed does not fit any more: {reason}")]
    Changed {
        /// What has changed.
        reason: String,
    },
    /// The log cannot be read.
    #[error("the audit log: {0}")]
    Unreadable(#[from] LogError),
    /// An operator's key that cannot be made or opened.
    #[error(transparent)]
    Key(#[from] CaError),
    /// A change of members that is not possible.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl OperatorsError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::TwoNeeded { .. } => Some(Remedy::GiveOperatorKey),
            Self::PlanNotQueued => Some(Remedy::QueuePlan),
            Self::Which { .. } => Some(Remedy::ListProposals),
            Self::NoRule => Some(Remedy::RequireTwo),
            Self::Registry(error) => error.remedy(),
            Self::Key(error) => error.remedy(),
            _ => None,
        }
    }
}
