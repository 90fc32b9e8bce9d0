//! Who reaches the aggregator: connections in memory that are slow, stand still, or break.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedlora_aggregator::simulated::Incoming;
use fedlora_transport::{
    Certificate, Connection, Limits, MemberConnection, Peer, TransportError, TransportKind,
    simulated,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, mpsc, watch};

/// Bytes that a connection holds on their way.
const ON_THE_WAY: usize = 64 << 10;
/// How long each piece takes where nothing else is said.
const USUAL: Duration = Duration::from_millis(40);
/// How long a machine that cannot be reached is tried.
const UNREACHABLE: Duration = Duration::from_secs(3);

/// The network between the members and one aggregator.
#[derive(Debug, Clone, Default)]
pub(super) struct Network(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    aggregator: Option<mpsc::Sender<Incoming>>,
    members: BTreeMap<usize, Way>,
}

/// What lies between one member and the aggregator.
#[derive(Debug)]
struct Way {
    /// Nothing gets through.
    stands: watch::Sender<bool>,
    /// How long each piece takes.
    delay: Duration,
    /// The next connection breaks after the member has sent so many bytes.
    break_after: Option<u64>,
    /// Every connection of the member's breaks.
    broken: Arc<Notify>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            stands: watch::channel(false).0,
            delay: USUAL,
            break_after: None,
            broken: Arc::default(),
        }
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An aggregator takes connections from here on.
    pub(super) fn aggregator_is_up(&self, incoming: mpsc::Sender<Incoming>) {
        self.state().aggregator = Some(incoming);
    }

    /// Nobody does any more, and every connection breaks.
    pub(super) fn aggregator_is_gone(&self) {
        let mut state = self.state();
        state.aggregator = None;
        for way in state.members.values() {
            way.broken.notify_waiters();
        }
    }

    /// All connections of a member break.
    pub(super) fn cut(&self, member: usize) {
        self.way(member, |way| way.broken.notify_waiters());
    }

    /// The next connection of a member breaks once it has sent so many bytes.
    pub(super) fn break_after(&self, member: usize, bytes: u64) {
        self.way(member, |way| way.break_after = Some(bytes));
    }

    /// Nothing gets through between a member and the aggregator, or it does again.
    pub(super) fn part(&self, member: usize, stands: bool) {
        self.way(member, |way| way.stands.send_replace(stands));
    }

    /// From the next connection on each piece between a member and the aggregator takes so long.
    pub(super) fn delay(&self, member: usize, delay: Duration) {
        self.way(member, |way| way.delay = delay);
    }

    /// The network works.
    pub(super) fn mend(&self) {
        for way in self.state().members.values_mut() {
            way.stands.send_replace(false);
            way.break_after = None;
        }
    }

    fn way<T>(&self, member: usize, work: impl FnOnce(&mut Way) -> T) -> T {
        work(self.state().members.entry(member).or_default())
    }

    /// Connects a member whose certificate was verified.
    pub(super) async fn connect(
        &self,
        member: usize,
        certificate: &Certificate,
    ) -> Result<Connection, TransportError> {
        let peer = Peer::from_certificate(certificate).expect("the authority issued it");
        self.open(member, |connection| {
            Incoming::Member(MemberConnection {
                peer,
                certificate: certificate.clone(),
                connection,
            })
        })
        .await
    }

    /// Connects somebody who wants to join.
    pub(super) async fn join(&self, member: usize) -> Result<Connection, TransportError> {
        self.open(member, Incoming::Joining).await
    }

    async fn open(
        &self,
        member: usize,
        incoming: impl FnOnce(Connection) -> Incoming,
    ) -> Result<Connection, TransportError> {
        let (aggregator, stands, delay, break_after, broken) = {
            let mut state = self.state();
            let aggregator = state.aggregator.clone();
            let way = state.members.entry(member).or_default();
            let stands = way.stands.subscribe();
            let (after, broken) = (way.break_after.take(), Arc::clone(&way.broken));
            (aggregator, stands, way.delay, after, broken)
        };
        let aggregator = aggregator.filter(|_| !*stands.borrow());
        let unreachable = || TransportError::Unreachable {
            over: TransportKind::Tcp,
            address: ([127, 0, 0, 1], 1).into(),
            after: UNREACHABLE,
        };
        let Some(aggregator) = aggregator else {
            tokio::time::sleep(UNREACHABLE).await;
            return Err(unreachable());
        };
        let (own, near) = duplex(ON_THE_WAY);
        let (far, its) = duplex(ON_THE_WAY);
        let limits = Limits::default();
        tokio::spawn(carry(near, far, (stands, delay, break_after), broken));
        let accepted = incoming(simulated::aggregator_side(its, &limits));
        aggregator.send(accepted).await.map_err(|_| unreachable())?;
        Ok(simulated::member_side(own, &limits))
    }
}

/// Carries bytes both ways until the connection breaks or ends.
async fn carry(
    near: DuplexStream,
    far: DuplexStream,
    (stands, delay, break_after): (watch::Receiver<bool>, Duration, Option<u64>),
    broken: Arc<Notify>,
) {
    let (near_out, near_in) = tokio::io::split(near);
    let (far_out, far_in) = tokio::io::split(far);
    let sent = AtomicU64::new(0);
    let there = pump(near_out, far_in, stands.clone(), delay, |bytes| {
        let before = sent.fetch_add(bytes as u64, Ordering::Relaxed);
        let limit = break_after?;
        (before + bytes as u64 >= limit).then(|| limit.saturating_sub(before) as usize)
    });
    let back = pump(far_out, near_in, stands, delay, |_| None);
    tokio::select! {
        () = broken.notified() => {}
        () = async { tokio::join!(back, async { if there.await { broken.notify_waiters() } }); } => {}
    }
}

/// Carries bytes one way; gives whether the connection broke there. `breaks` says after how many of the
/// next bytes it does.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut stands: watch::Receiver<bool>,
    delay: Duration,
    breaks: impl Fn(usize) -> Option<usize>,
) -> bool {
    let mut piece = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        if read == 0 {
            let _ = to.shutdown().await;
            return false;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if stands.wait_for(|stands| !stands).await.is_err() {
            return false;
        }
        let at = breaks(read);
        let whole = to.write_all(&piece[..at.unwrap_or(read)]).await;
        if at.is_some() {
            return true;
        }
        if whole.is_err() {
            return false;
        }
    }
}
