//! Taking part in a run: connects, follows the rounds, comes back after a broken connection.
//! What the messages mean is decided by the pure half in `fedlora_protocol::round::participant`;
//! here they are fed to it, and what it gives is sent.

mod events;
mod fault;
mod outcome;
mod round;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic};
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::Floors;
use fedlora_protocol::round::participant::RoundLedger;
use fedlora_transport::{Certificate, Credentials};
use tokio::sync::{Semaphore, mpsc};

use crate::directory::{Membership, RosterPin};
use crate::update::LocalWork;

pub use events::{MemberEvent, RoundReport, Stage};
pub use fault::{CutPoint, Faults};
pub use outcome::{Outcome, ParticipantError};

/// One member in one run.
pub struct Participant {
    pub(crate) name: MemberName,
    pub(crate) address: String,
    pub(crate) aggregator: IdentityPublic,
    pub(crate) floors: Floors,
    pub(crate) identity: Arc<IdentityKey>,
    pub(crate) credentials: Credentials,
    pub(crate) authority: Certificate,
    pub(crate) work: Arc<LocalWork>,
    pub(crate) ledger: Box<dyn RoundLedger + Send>,
    pub(crate) pin: Box<dyn RosterPin + Send>,
    pub(crate) events: mpsc::UnboundedSender<MemberEvent>,
    pub(crate) patience: Duration,
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) faults: Faults,
}

impl Participant {
    /// A member with its model and data. `events` gets what happens, for display.
    pub fn new(
        membership: Membership,
        work: Arc<LocalWork>,
        ledger: Box<dyn RoundLedger + Send>,
        pin: Box<dyn RosterPin + Send>,
        events: mpsc::UnboundedSender<MemberEvent>,
    ) -> Self {
        Self {
            name: membership.config.name,
            address: membership.config.address,
            aggregator: membership.config.aggregator,
            floors: membership.config.floors,
            identity: Arc::new(membership.identity),
            credentials: membership.credentials,
            authority: membership.authority,
            work,
            ledger,
            pin,
            events,
            patience: Duration::from_secs(300),
            gate: Arc::new(Semaphore::new(1)),
            faults: Faults::default(),
        }
    }

    /// How long to go on trying while the aggregator cannot be reached.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Shares the machine: training waits for a permit of `gate`.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<Semaphore>) -> Self {
        self.gate = gate;
        self
    }

    /// Cuts this member off at chosen points, for simulations.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Takes part until the run ends.
    ///
    /// # Errors
    /// [`ParticipantError`]; what was done so far stands in the member's directory.
    pub async fn run(self) -> Result<Outcome, ParticipantError> {
        session::run(self).await
    }
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Participant({})", self.name)
    }
}
