//! What is proposed, and the signatures on it. A proposal is a text; its name is the text's digest, and that
//! is what operators sign: whoever changes the text has another proposal, which nobody has signed.

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic, Signature};
use fedlora_protocol::ids::MemberName;
use serde::{Deserialize, Serialize};

use super::{ActKind, OperatorName, TwoOperators};
use crate::queue::QueuedPlan;

/// What the name of a proposal is of.
const PROPOSAL: &str = "fedlora 1 operators' proposal";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// Somebody is invited, or a member to other keys.
    Invite {
        /// The member's name.
        member: MemberName,
        /// Hours until the invitation expires, from its approval on.
        hours: u64,
        /// The identity key that the member has and is to replace; nothing for a new member.
        replaces: Option<IdentityPublic>,
    },
    /// A member is removed, or an invitation withdrawn.
    Remove {
        /// The member's name.
        member: MemberName,
        /// Its identity key; nothing where it has not joined.
        identity: Option<IdentityPublic>,
    },
    /// A plan is queued.
    Plan {
        /// The plan, with the run that it becomes.
        queued: Box<QueuedPlan>,
        /// The digest of the file in the queue.
        file: Digest,
    },
    /// Another rule of who the operators are, and what needs two.
    Rule(TwoOperators),
}

impl Act {
    /// The kind that may need two operators; nothing for the rule itself, which always does.
    pub fn kind(&self) -> Option<ActKind> {
        match self {
            Self::Invite { .. } => Some(ActKind::Admission),
            Self::Remove { .. } => Some(ActKind::Removal),
            Self::Plan { .. } => Some(ActKind::Plans),
            Self::Rule(_) => None,
        }
    }

    /// What it does, in a line.
    pub fn words(&self) -> String {
        match self {
            Self::Invite {
                member,
                replaces: None,
                ..
            } => format!("invite {member}"),
            Self::Invite { member, .. } => format!("give {member} other keys"),
            Self::Remove { member, .. } => format!("remove {member}"),
            Self::Plan { queued, .. } => format!("queue the plan of run {}", queued.run),
            Self::Rule(rule) if rule.acts.is_empty() => "let every operator act alone".to_owned(),
            Self::Rule(_) => "change who the operators are, or what needs two".to_owned(),
        }
    }
}

/// What an operator proposes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The fingerprint of the federation's authority: it counts there alone.
    pub authority: String,
    /// Random, so that the same act can be proposed again.
    pub nonce: String,
    /// When it was made.
    pub made: Timestamp,
    /// The last moment at which it can be approved.
    pub expires: Timestamp,
    /// What is to be done.
    pub act: Act,
}

impl Proposal {
    /// The name of a proposal's text, which is what is signed.
    pub fn id(text: &str) -> Digest {
        Digest::of(PROPOSAL, text.as_bytes())
    }
}

/// What an operator says of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It proposes it.
    Proposes,
    /// It approves it.
    Approves,
    /// It refuses it.
    Refuses,
}

/// An operator's signature on a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The operator.
    pub operator: OperatorName,
    /// Its signature.
    pub signature: Signature,
}

impl Consent {
    /// Signs a proposal in a role.
    pub fn sign(operator: OperatorName, key: &IdentityKey, role: Role, id: &Digest) -> Self {
        let signature = key.sign(&signed(role, id));
        Self {
            operator,
            signature,
        }
    }

    /// Whether one of the rule's operators has signed the proposal in that role.
    pub fn is_valid(&self, rule: &TwoOperators, role: Role, id: &Digest) -> bool {
        let operator = rule.named(&self.operator);
        operator.is_some_and(|one| one.key.verify(&signed(role, id), &self.signature).is_ok())
    }
}

fn signed(role: Role, id: &Digest) -> Digest {
    let mut writer = DigestWriter::new("fedlora 1 operator's consent");
    let role: &[u8] = match role {
        Role::Proposes => b"proposes",
        Role::Approves => b"approves",
        Role::Refuses => b"refuses",
    };
    writer.bytes(role).digest(id);
    writer.finish()
}
