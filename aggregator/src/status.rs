//! What `fedlora-aggregator status` prints: written by the serving process, read by anyone
//! who may read the operator's directory.

pub(crate) mod words;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::ids::MemberName;
use fedlora_transport::TransportKind;
use serde::{Deserialize, Serialize};

use crate::ca::requests::CertificateRequest;

/// The state of a run, as one JSON document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this document's schema: 1.
    pub schema_version: u32,
    /// The federation's name.
    pub federation: String,
    /// The run's identifier, in hexadecimal.
    pub run: String,
    /// `gathering`, `running`, `finished`, `failed` or `stopped`.
    pub state: RunState,
    /// Why the run failed, where it did.
    pub failure: Option<String>,
    /// Rounds that the plan asks for.
    pub rounds_planned: u32,
    /// Rounds that are done.
    pub rounds_done: u32,
    /// Rounds whose step was longer than the plan's largest, and was scaled down to it.
    #[serde(default)]
    pub rounds_scaled: u32,
    /// Rounds that took the step before back, because most members found it harmful.
    #[serde(default)]
    pub rounds_taken_back: u32,
    /// The current round's phase; nothing between rounds. Of a run that failed within a round, the
    /// phase that was open last.
    pub phase: Option<String>,
    /// The attempt at the current round, from 1; nothing outside of a round.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// What the run waits for; nothing once it is over.
    #[serde(default)]
    pub stage: Option<StageStatus>,
    /// How many seconds each stage took when it was last done, by the stage's name.
    #[serde(default)]
    pub stage_seconds: BTreeMap<String, f64>,
    /// The run's members. Before the roster is closed, all that have joined the federation.
    pub members: Vec<MemberStatus>,
    /// The digest of the newest global adapter, in hexadecimal; nothing before the first round.
    pub adapter: Option<String>,
    /// The round whose adapter is the run's result, if it ended now; 0 for the first adapter, nothing
    /// before the first round is done.
    #[serde(default)]
    pub best_round: Option<u32>,
    /// Whether the plan's patience ended the run before its last round.
    #[serde(default)]
    pub stopped_early: bool,
    /// Attempts at rounds that failed, since this process began.
    #[serde(default)]
    pub attempts_failed: u32,
    /// Members' messages that were not taken, since this process began.
    #[serde(default)]
    pub messages_refused: u64,
    /// Bytes of masked updates that came in since this process began.
    #[serde(default)]
    pub bytes_received: u64,
    /// Bytes of adapters that went out since this process began.
    #[serde(default)]
    pub bytes_sent: u64,
    /// The pooled validation loss that the newest result tells, in nats a token: of the adapter that
    /// its round began with. Nothing with fewer than five survivors.
    #[serde(default)]
    pub pooled_loss: Option<f32>,
    /// When the newest result was published by this process.
    #[serde(default)]
    pub last_result: Option<Timestamp>,
    /// When the certificate that the aggregator shows ends.
    #[serde(default)]
    pub certificate_end: Option<Timestamp>,
    /// The host that serves the federation while this one stands by. Only the command `status` says so;
    /// no file does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_of: Option<String>,
    /// The certificates that wait for the authority's key. Only the command `status` says so;
    /// no file does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates_waiting: Vec<WaitingCertificate>,
    /// When this was written.
    pub updated: Timestamp,
    /// The process id of the aggregator that serves the run.
    pub pid: u32,
}

/// A certificate that waits for the authority's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingCertificate {
    /// `server` for the aggregator's own, `join` or `renewal`.
    pub kind: String,
    /// The member that it is for; null for the aggregator's own.
    pub member: Option<MemberName>,
    /// When it was asked for.
    pub asked: Timestamp,
}

impl WaitingCertificate {
    /// What a request tells.
    pub(crate) fn of(request: &CertificateRequest) -> Self {
        Self {
            kind: request.kind().to_owned(),
            member: request.member().cloned(),
            asked: request.asked(),
        }
    }
}

/// A member's part in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member's name.
    pub name: MemberName,
    /// Whether its control stream is open.
    pub connected: bool,
    /// What its connection runs over: `quic` or `tcp`; nothing while it has none.
    #[serde(default)]
    pub transport: Option<TransportKind>,
    /// Whether it has done what the current stage waits for.
    #[serde(default)]
    pub ready: bool,
    /// Rounds whose sum it is in.
    pub rounds: u32,
    /// Why it does not take part, in its own words or the aggregator's; or what differs about it.
    #[serde(default)]
    pub problem: Option<String>,
    /// The release of its program, as it says.
    #[serde(default)]
    pub release: Option<String>,
    /// When it was last heard of.
    #[serde(default)]
    pub last_seen: Option<Timestamp>,
    /// When the certificate that it showed ends.
    #[serde(default)]
    pub certificate_end: Option<Timestamp>,
}

/// What a run waits for at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    /// `gathering`, `consent`, `returning`, or the round's phase.
    pub name: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends at the latest, by what is known now.
    pub until: Timestamp,
    /// How many members it needs.
    pub needed: usize,
    /// The members that have done what it waits for.
    pub ready: Vec<MemberName>,
    /// The members that it waits for.
    pub awaited: Vec<MemberName>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Waiting for members.
    Gathering,
    /// The cohort is complete, and rounds are left.
    Running,
    /// All rounds done.
    Finished,
    /// Ended early.
    Failed,
    /// Not over, but no process serves it: the same command goes on with it. Only the command `status`
    /// says so; no file does.
    Stopped,
}

impl Status {
    /// What the file says of a run that no process serves: nobody is connected, and what is not over
    /// stands still.
    #[must_use]
    pub fn unserved(mut self) -> Self {
        if matches!(self.state, RunState::Gathering | RunState::Running) {
            self.state = RunState::Stopped;
        }
        self.stage = None;
        for member in &mut self.members {
            member.connected = false;
            member.transport = None;
            member.ready = false;
        }
        self
    }

    /// Writes the status whole.
    ///
    /// # Errors
    /// The system's error for the file or its folder.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a status has text keys");
        write_atomic(path, &text, Access::Everyone)
    }

    /// Reads what was written last; nothing where no run was served yet.
    ///
    /// # Errors
    /// The system's error, or [`io::ErrorKind::InvalidData`] for a malformed file.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
