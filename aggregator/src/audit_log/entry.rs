//! One line of the log. What is signed are the line's own bytes before the signature, so that it can be
//! verified without knowing every kind of event.

use std::io;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic, Signature};
use fedlora_protocol::ids::MemberName;
use serde::{Deserialize, Serialize};

use crate::operators::{Consent, TwoOperators};

/// What the signature of a line is of.
const SIGNED: &str = "fedlora 1 audit log entry";
/// What the digest of a line is of.
const LINE: &str = "fedlora 1 audit log line";
/// Where the signature begins.
const SIGNATURE: &str = ",\"signature\":\"";

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// When it was written, by the aggregator's clock, in milliseconds since the Unix epoch.
    pub time: Timestamp,
    /// The digest of the line before; of the first one zeros.
    pub previous: Digest,
    /// What happens.
    pub event: Event,
}

/// What a line tells. Paths are in the operator's directory, with `/` between names; digests are BLAKE3 of
/// a content, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The log begins.
    Begun {
        /// Who signs it.
        identity: IdentityPublic,
    },
    /// A file was there when the log began.
    Found {
        /// Its path in the operator's directory.
        path: String,
        /// Its length.
        length: u64,
        /// The digest of its content.
        digest: Digest,
    },
    /// A file gets this content.
    Written {
        /// Its path in the operator's directory.
        path: String,
        /// Its length.
        length: u64,
        /// The digest of its content.
        digest: Digest,
    },
    /// A file grows.
    Appended {
        /// Its path in the operator's directory.
        path: String,
        /// Its length before.
        at: u64,
        /// The length of what is added.
        length: u64,
        /// The digest of what is added.
        digest: Digest,
    },
    /// A file is cut.
    Cut {
        /// Its path in the operator's directory.
        path: String,
        /// Its length afterwards.
        length: u64,
    },
    /// A file gets another name.
    Renamed {
        /// Its path in the operator's directory.
        path: String,
        /// Its new path.
        to: String,
    },
    /// A file goes.
    Removed {
        /// Its path in the operator's directory.
        path: String,
    },
    /// A folder goes, with all that is in it.
    FolderRemoved {
        /// Its path in the operator's directory.
        path: String,
    },
    /// The change of this line was not made: the aggregator died just then.
    NotMade {
        /// That line's number.
        number: u64,
    },
    /// Files of a run that is over are removed.
    Pruned {
        /// The run's identifier, in hexadecimal.
        run: String,
        /// Who decided it.
        by: PrunedBy,
        /// The adapters whose files go, with the rounds that they came of.
        adapters: Vec<LoggedAdapter>,
        /// What else goes, by the names of files and folders in the run's folder. `.` is all of it.
        others: Vec<String>,
        /// Bytes of all that goes.
        bytes: u64,
    },
    /// An exported adapter is replaced by an earlier one.
    RolledBack {
        /// The run of the adapter that is put in place, in hexadecimal.
        run: String,
        /// That adapter.
        adapter: LoggedAdapter,
        /// The digest of the one that was there.
        replaced: Digest,
    },
    /// The operator takes what differs from the log as it is: lines follow that say how it is.
    Accepted {
        /// Why, in the operator's words.
        reason: String,
    },
    /// Who the operators are from now on, and what needs two of them.
    Operators {
        /// The rule.
        rule: TwoOperators,
    },
    /// Two operators have decided an act: it follows.
    Approved {
        /// What was proposed, as it was signed.
        proposal: String,
        /// The signature of the one that proposed it.
        proposed: Consent,
        /// The signature of the one that approved it.
        approved: Consent,
    },
    /// An operator refuses what was proposed.
    Refused {
        /// The proposal's digest.
        proposal: Digest,
        /// The operator's signature.
        refused: Consent,
    },
    /// A member leaves by itself: its removal follows.
    Leaves {
        /// The member.
        member: MemberName,
    },
    /// The aggregator is started.
    Started {
        /// Its release.
        release: String,
    },
}

/// An adapter that a line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedAdapter {
    /// The round that it came of; 0 for a run's first adapter.
    pub round: u32,
    /// Its digest.
    pub adapter: Digest,
}

/// Who decided that something is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrunedBy {
    /// `serve`, by the retention in the configuration.
    Retention,
    /// The operator, by a command.
    Command,
}

impl Event {
    /// The file or folder that it changes.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Found { path, .. }
            | Self::Written { path, .. }
            | Self::Appended { path, .. }
            | Self::Cut { path, .. }
            | Self::Renamed { path, .. }
            | Self::Removed { path }
            | Self::FolderRemoved { path } => Some(path),
            Self::Begun { .. }
            | Self::NotMade { .. }
            | Self::Pruned { .. }
            | Self::RolledBack { .. }
            | Self::Accepted { .. }
            | Self::Operators { .. }
            | Self::Approved { .. }
            | Self::Refused { .. }
            | Self::Leaves { .. }
            | Self::Started { .. } => None,
        }
    }
}

impl Entry {
    /// The line, signed, with its end.
    pub(super) fn line(&self, identity: &IdentityKey) -> io::Result<String> {
        let text = serde_json::to_string(self)?;
        let body = text.strip_suffix('}').expect("an entry is a JSON object");
        let signature = identity.sign(&Digest::of(SIGNED, body.as_bytes()));
        let signature = serde_json::to_value(signature)?;
        let signature = signature.as_str().unwrap_or_default();
        Ok(format!("{body}{SIGNATURE}{signature}\"}}\n"))
    }

    /// Reads a line without its end; gives the part that is signed, and the signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(line: &str) -> Result<(Self, SignedPart<'_>), String> {
        let cut = line.rsplit_once(SIGNATURE);
        let (body, rest) = cut.ok_or("it has no signature")?;
        let signature = rest.strip_suffix("\"}").ok_or("its end is missing")?;
        let signature = serde_json::from_value(signature.into());
        let signature: Signature = signature.map_err(|_| "its signature is malformed")?;
        let entry = serde_json::from_str(&format!("{body}}}"));
        let entry: Self = entry.map_err(|error| format!("it is malformed: {error}"))?;
        Ok((entry, SignedPart { body, signature }))
    }
}

/// What of a line is signed, and the signature.
#[derive(Debug)]
pub(super) struct SignedPart<'a> {
    body: &'a str,
    signature: Signature,
}

impl SignedPart<'_> {
    /// Whether `identity` signed it.
    pub(super) fn is_by(&self, identity: &IdentityPublic) -> bool {
        let digest = Digest::of(SIGNED, self.body.as_bytes());
        identity.verify(&digest, &self.signature).is_ok()
    }
}

/// The digest of a line without its end.
pub(super) fn digest(line: &[u8]) -> Digest {
    Digest::of(LINE, line)
}
