//! The files in a member's directory by which its agent and its user talk to each other.
//!
//! ```text
//! plan.pending.json   a plan that waits for the user's answer
//! plan.decision.json  the answer to it
//! agent.json          what the agent does
//! paused              there while no run is to be begun
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::plan::RunPlan;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The agent's files in a member's directory.
#[derive(Debug, Clone)]
pub struct AgentFiles {
    root: PathBuf,
}

/// A plan that waits for the user's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingPlan {
    /// The run, in hexadecimal.
    pub run: String,
    /// The plan's digest, which the answer names.
    pub digest: Digest,
    /// When it was shown first.
    pub since: Timestamp,
    /// The plan.
    pub plan: RunPlan,
}

/// The user's answer to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The run, in hexadecimal.
    pub run: String,
    /// The plan's digest.
    pub digest: Digest,
    /// Whether this member takes part.
    pub approved: bool,
}

/// What the agent does, for `fedlora status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// What it does.
    pub phase: AgentPhase,
    /// The run that it is about, in hexadecimal.
    pub run: Option<String>,
    /// More on it, in words.
    pub detail: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// What the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentPhase {
    /// The aggregator cannot be reached.
    Unreachable,
    /// Connected; no run is served.
    Waiting,
    /// Its user has told it to begin no run.
    Paused,
    /// A plan waits for its user's answer.
    Asking,
    /// A run is served that its rules do not accept now.
    Declining,
    /// It takes part in a run.
    TakingPart,
    /// It waits before it tries a run again that broke off.
    Retrying,
}

impl AgentPhase {
    /// The words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "the aggregator cannot be reached",
            Self::Waiting => "waiting for a run",
            Self::Paused => "paused",
            Self::Asking => "a plan waits for your answer",
            Self::Declining => "not taking part in the run that is served",
            Self::TakingPart => "taking part",
            Self::Retrying => "waiting to try the run again",
        }
    }
}

impl AgentFiles {
    /// Those in the member's directory `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The plan that waits.
    ///
    /// # Errors
    /// The system's error, or [`io::ErrorKind::InvalidData`] for a malformed file.
    pub fn pending(&self) -> io::Result<Option<PendingPlan>> {
        read(&self.path("plan.pending.json"))
    }

    /// Shows a plan to the user.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn show(&self, pending: &PendingPlan) -> io::Result<()> {
        write(&self.path("plan.pending.json"), pending)
    }

    /// The plan waits no more, and an answer to it is forgotten.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn withdraw(&self) -> io::Result<()> {
        remove(&self.path("plan.pending.json"))?;
        remove(&self.path("plan.decision.json"))
    }

    /// The user's answer.
    ///
    /// # Errors
    /// The system's error, or [`io::ErrorKind::InvalidData`] for a malformed file.
    pub fn decision(&self) -> io::Result<Option<Decision>> {
        read(&self.path("plan.decision.json"))
    }

    /// Answers.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn decide(&self, decision: &Decision) -> io::Result<()> {
        write(&self.path("plan.decision.json"), decision)
    }

    /// What the agent does, or did when it stopped.
    ///
    /// # Errors
    /// The system's error, or [`io::ErrorKind::InvalidData`] for a malformed file.
    pub fn state(&self) -> io::Result<Option<AgentState>> {
        read(&self.path("agent.json"))
    }

    /// Says what the agent does.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn set_state(&self, state: &AgentState) -> io::Result<()> {
        write(&self.path("agent.json"), state)
    }

    /// Whether no run is to be begun.
    pub fn is_paused(&self) -> bool {
        self.path("paused").exists()
    }

    /// From now on no run is begun, or runs are begun again.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn set_paused(&self, paused: bool) -> io::Result<()> {
        match paused {
            true => write_atomic(&self.path("paused"), b"", Access::Owner),
            false => remove(&self.path("paused")),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, document: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(document)?;
    write_atomic(path, &text, Access::Owner)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
