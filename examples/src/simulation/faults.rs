//! Broken connections on purpose: a connector around the real one that cuts a member off at
//! chosen points of chosen rounds.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedlora_client::federation::{BulkCarrier, Connector, LinkError, MemberLink};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::wire::messages::{RoundMessage, ToAggregator, ToMember};
use fedlora_protocol::wire::session::Purpose;
use fedlora_transport::{Route, Traffic};
use tokio::sync::Notify;

/// How much longer than the reconnect timeout a member stays away, so that the round continues
/// without it.
const MARGIN: Duration = Duration::from_millis(500);

/// Where in a round a member is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutPoint {
    /// Before its keys are sent: nobody shares a mask with it.
    Keys,
    /// As its upload begins: its masks stand in everybody's vector and must be recovered.
    Upload,
    /// Before it signs the survivor list: its update is in the sum.
    Confirm,
}

/// The rounds and points at which one member is cut off.
pub(super) type Cuts = Vec<(RoundNumber, CutPoint)>;

/// What is shared between connector, link and carrier.
#[derive(Debug)]
struct Faults {
    cuts: Cuts,
    state: Mutex<FaultState>,
    cut: Notify,
}

#[derive(Debug, Default)]
struct FaultState {
    /// The round and M0 that the member was shown last.
    open: Option<(RoundNumber, Digest)>,
    /// The cuts that were made: each once for an attempt.
    made: BTreeSet<(CutPoint, [u8; 32])>,
    away: bool,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, FaultState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the member is cut off now.
    fn cuts(&self, point: CutPoint) -> bool {
        let mut state = self.state();
        let Some((round, open)) = state.open else {
            return false;
        };
        let cut =
            self.cuts.contains(&(round, point)) && state.made.insert((point, *open.as_bytes()));
        state.away |= cut;
        cut
    }
}

/// A connector whose sessions break where `cuts` says.
#[derive(Debug)]
pub(super) struct FaultyConnector<C> {
    inner: C,
    reconnect: Duration,
    faults: Arc<Faults>,
}

impl<C> FaultyConnector<C> {
    /// Wraps a connector. `reconnect` is the plan's reconnect timeout.
    pub(super) fn new(inner: C, cuts: Cuts, reconnect: Duration) -> Self {
        Self {
            inner,
            reconnect,
            faults: Arc::new(Faults {
                cuts,
                state: Mutex::default(),
                cut: Notify::new(),
            }),
        }
    }
}

impl<C: Connector> Connector for FaultyConnector<C> {
    type Link = FaultyLink<C::Link>;

    fn address(&self) -> &str {
        self.inner.address()
    }

    async fn open(&self, purpose: Purpose) -> Result<Self::Link, LinkError> {
        let away = std::mem::take(&mut self.faults.state().away);
        if away {
            tokio::time::sleep(self.reconnect + MARGIN).await;
        }
        Ok(FaultyLink {
            inner: self.inner.open(purpose).await?,
            faults: Arc::clone(&self.faults),
        })
    }
}

/// A session that breaks on purpose: the member drops it at the error.
#[derive(Debug)]
pub(super) struct FaultyLink<L> {
    inner: L,
    faults: Arc<Faults>,
}

impl<L: MemberLink> MemberLink for FaultyLink<L> {
    type Carrier = FaultyCarrier<L::Carrier>;

    async fn send(&mut self, message: &ToAggregator) -> Result<(), LinkError> {
        let keys = matches!(
            message,
            ToAggregator::Round {
                message: RoundMessage::Keys { .. },
                ..
            }
        );
        if keys && self.faults.cuts(CutPoint::Keys) {
            return Err(broken());
        }
        self.inner.send(message).await
    }

    async fn receive(&mut self) -> Result<ToMember, LinkError> {
        let message = tokio::select! {
            () = self.faults.cut.notified() => return Err(broken()),
            message = self.inner.receive() => message?,
        };
        match &message {
            ToMember::Open(open) => {
                self.faults.state().open = Some((open.round, open.digest()));
            }
            ToMember::Survivors { .. } if self.faults.cuts(CutPoint::Confirm) => {
                return Err(broken());
            }
            _ => {}
        }
        Ok(message)
    }

    fn carrier(&self) -> Self::Carrier {
        FaultyCarrier {
            inner: self.inner.carrier(),
            faults: Arc::clone(&self.faults),
        }
    }

    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn route(&self) -> &Route {
        self.inner.route()
    }

    async fn finish(self) {
        self.inner.finish().await;
    }

    async fn decline(self, reason: &str) {
        self.inner.decline(reason).await;
    }
}

/// Bulk transfers that break on purpose.
#[derive(Debug, Clone)]
pub(super) struct FaultyCarrier<C> {
    inner: C,
    faults: Arc<Faults>,
}

impl<C: BulkCarrier> BulkCarrier for FaultyCarrier<C> {
    async fn upload(&self, upload: &Upload) -> Result<(), LinkError> {
        if self.faults.cuts(CutPoint::Upload) {
            self.faults.cut.notify_one();
            return Err(broken());
        }
        self.inner.upload(upload).await
    }

    async fn fetch(&self, adapter: Digest, values: usize) -> Result<Vec<f32>, LinkError> {
        self.inner.fetch(adapter, values).await
    }
}

fn broken() -> LinkError {
    LinkError::Refused {
        reason: "the simulation cut this member off".into(),
    }
}
