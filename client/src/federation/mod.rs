//! Taking part in a run: connects, follows the rounds, reconnects after a broken connection.
//! What the messages mean is decided by the pure machine in `fedlora_protocol::round::member`;
//! here its effects are carried out.
//!
//! | file | owns |
//! |---|---|
//! | `session.rs` | one session after another, pauses and patience |
//! | `shell.rs` | the machine's effects |
//! | `consent.rs` | asking the user about a roster |
//! | `expected.rs` | the run and plan that this member has agreed to |
//! | `work.rs` | training on a thread of its own, and encoding |
//! | `link.rs` | what a connection must offer |
//! | `network.rs` | the real connection |
//! | `round_clock.rs` | times and traffic of the current round |

mod consent;
mod events;
mod expected;
mod link;
mod network;
mod outcome;
mod parts;
mod round_clock;
mod session;
mod shell;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fedlora_protocol::round::member::{RosterPin, RunOutcome};
use fedlora_protocol::round::participant::RoundLedger;
use fedlora_transport::Proxy;
use tokio::sync::{Semaphore, mpsc};

use crate::directory::Membership;
use crate::receipts::{NoReceipts, Receipts};
use consent::Nobody;
use parts::Parts;

pub use consent::RosterConsent;
pub use events::{Awaited, MemberEvent, RoundReport, Stage};
pub use expected::ExpectedRun;
pub use link::{BulkCarrier, Connector, LinkError, MemberLink};
pub use network::{NetworkCarrier, NetworkConnector, NetworkLink};
pub use outcome::{ParticipantError, is_hopeless, is_of_a_clock};
pub use work::RoundWork;

/// How long a member tries to reach the aggregator, by default.
const PATIENCE: Duration = Duration::from_secs(300);

/// One member in one run, over connections of `C`.
pub struct Participant<C = NetworkConnector> {
    connector: C,
    patience: Duration,
    parts: Parts,
}

impl Participant {
    /// A member with its model and data. `events` gets what happens, for display.
    pub fn new(
        membership: Membership,
        work: Arc<dyn RoundWork>,
        ledger: Box<dyn RoundLedger + Send>,
        pin: Box<dyn RosterPin + Send>,
        events: mpsc::UnboundedSender<MemberEvent>,
    ) -> Self {
        Self {
            connector: NetworkConnector::new(
                (membership.config.address, membership.config.transport),
                membership.config.name.clone(),
                (membership.credentials, membership.renewal),
                membership.authority,
            )
            .with_silence(membership.config.silence),
            patience: PATIENCE,
            parts: Parts {
                name: membership.config.name,
                aggregator: membership.config.aggregator,
                floors: membership.config.floors,
                agreed_class: membership.config.weight_class,
                identity: Arc::new(membership.identity),
                work,
                ledger,
                pin,
                receipts: Box::new(NoReceipts),
                consent: Arc::new(Nobody),
                events,
                gate: Arc::new(Semaphore::new(1)),
                expected: None,
            },
        }
    }
}

impl Participant {
    /// Connects over TCP through a proxy, where the member's connections may or must use TCP.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.connector = self.connector.with_proxy(proxy);
        self
    }
}

impl<C: Connector> Participant<C> {
    /// Keeps receipts of the runs.
    #[must_use]
    pub fn with_receipts(mut self, receipts: Box<dyn Receipts + Send>) -> Self {
        self.parts.receipts = receipts;
        self
    }

    /// Connects in another way, which may build on the present one.
    #[must_use]
    pub fn map_connector<D: Connector>(self, map: impl FnOnce(C) -> D) -> Participant<D> {
        Participant {
            connector: map(self.connector),
            patience: self.patience,
            parts: self.parts,
        }
    }

    /// How long to try again while the aggregator cannot be reached; 300 seconds by default.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whom to ask about a roster that the member has not accepted. By default nobody is asked,
    /// and the run ends with
    /// [`PinError::Unaccepted`](fedlora_protocol::round::member::PinError::Unaccepted).
    #[must_use]
    pub fn with_consent(mut self, consent: Arc<dyn RosterConsent>) -> Self {
        self.parts.consent = consent;
        self
    }

    /// Takes part in this run only, and by this plan.
    #[must_use]
    pub fn in_run(mut self, expected: ExpectedRun) -> Self {
        self.parts.expected = Some(expected);
        self
    }

    /// Limits how many members of one process train at a time: each training waits for a
    /// permit of `gate`. A resource limit only; by default a member waits for nobody.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<Semaphore>) -> Self {
        self.parts.gate = gate;
        self
    }

    /// Takes part until the run ends.
    ///
    /// # Errors
    /// [`ParticipantError`]; what was done so far stands in the member's directory.
    pub async fn run(self) -> Result<RunOutcome, ParticipantError> {
        session::run(self).await
    }
}

impl<C> fmt::Debug for Participant<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Participant({})", self.parts.name)
    }
}
