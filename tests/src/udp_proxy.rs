//! A bad link on the loopback: carries datagrams between a member and the aggregator, and loses,
//! delays, reorders and repeats some of them. It can be cut, and the member's address can change, as
//! behind a NAT that forgets. What happens to which datagram follows from a seed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The largest datagram.
const DATAGRAM: usize = 64 << 10;

/// What a link does to datagrams, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct LinkFaults {
    /// The part that is lost, 0 to 1.
    pub loss: f64,
    /// How long each takes.
    pub delay: Duration,
    /// How much longer some take: those overtake each other.
    pub jitter: Duration,
    /// The part that takes longer, 0 to 1.
    pub late: f64,
    /// The part that arrives twice, 0 to 1.
    pub twice: f64,
}

impl LinkFaults {
    /// Over half the world and a bad radio: 2 % lost and 100 ms each way, 5 % up to 40 ms late, 1 %
    /// twice.
    pub const BAD: Self = Self {
        loss: 0.02,
        delay: Duration::from_millis(100),
        jitter: Duration::from_millis(40),
        late: 0.05,
        twice: 0.01,
    };
}

/// What has happened to datagrams so far, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Those that came to the link.
    pub datagrams: u64,
    /// Those that the link lost by chance.
    pub lost: u64,
    /// Those that it dropped while it was cut.
    pub cut: u64,
    /// Those that it delivered behind later ones.
    pub late: u64,
    /// Those that it delivered twice.
    pub twice: u64,
}

/// A link to one UDP address. It ends when dropped.
#[derive(Debug)]
pub struct UdpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// How many times the members' addresses have changed.
    bindings: watch::Sender<u64>,
    /// Ends the thread when dropped.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    faults: LinkFaults,
    rng: Mutex<StdRng>,
    is_cut: AtomicBool,
    datagrams: AtomicU64,
    lost: AtomicU64,
    cut: AtomicU64,
    late: AtomicU64,
    twice: AtomicU64,
}

impl UdpProxy {
    /// A link to `to`, on a thread of its own.
    pub fn start(to: SocketAddr, faults: LinkFaults, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            faults,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            is_cut: AtomicBool::new(false),
            datagrams: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            late: AtomicU64::new(0),
            twice: AtomicU64::new(0),
        });
        let (bindings, bound) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        let (sender, address) = std::sync::mpsc::channel();
        let link = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("a free port");
                let address = near.local_addr().expect("a bound socket has an address");
                let _ = sender.send(address);
                tokio::select! {
                    _ = stopped => {}
                    () = carry(Arc::new(near), to, &link, bound) => {}
                }
            });
        });
        Self {
            address: address.recv().expect("the link is up"),
            shared,
            bindings,
            _stop: stop,
        }
    }

    /// Where members reach the link.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing through any more, in either direction.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
    }

    /// Lets datagrams through again.
    pub fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::Relaxed);
    }

    /// Gives members other addresses from now on, as a NAT does that has forgotten them: the peer sees
    /// what they send come from another port, and what it sends to the former one is lost.
    pub fn rebind(&self) {
        self.bindings.send_modify(|count| *count += 1);
    }

    /// What has happened so far.
    pub fn carried(&self) -> Carried {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried {
            datagrams: count(&self.shared.datagrams),
            lost: count(&self.shared.lost),
            cut: count(&self.shared.cut),
            late: count(&self.shared.late),
            twice: count(&self.shared.twice),
        }
    }
}

/// What becomes of a datagram: the times after which it arrives.
enum Fate {
    Lost,
    Once(Duration),
    Twice(Duration, Duration),
}

impl Shared {
    /// Draws what becomes of the next datagram.
    fn fate(&self) -> Fate {
        let faults = &self.faults;
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        self.datagrams.fetch_add(1, Ordering::Relaxed);
        // Always as many draws, so that one fault does not shift the others.
        let [lost, late, twice, by] = [0; 4].map(|_| rng.random_range(0.0..1.0));
        if lost < faults.loss {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Fate::Lost;
        }
        let mut delay = faults.delay;
        if late < faults.late {
            self.late.fetch_add(1, Ordering::Relaxed);
            delay += faults.jitter.mul_f64(by);
        }
        if twice < faults.twice {
            self.twice.fetch_add(1, Ordering::Relaxed);
            return Fate::Twice(delay, delay + faults.jitter.mul_f64(by));
        }
        Fate::Once(delay)
    }

    /// Whether a datagram is dropped because the link is cut.
    fn drops(&self) -> bool {
        let cut = self.is_cut.load(Ordering::Relaxed);
        if cut {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        cut
    }

    /// Delivers a datagram by `send`, as the link does.
    fn deliver<F>(self: &Arc<Self>, datagram: &[u8], send: impl Fn(Vec<u8>) -> F)
    where
        F: Future<Output = io::Result<usize>> + Send + 'static,
    {
        if self.drops() {
            return;
        }
        let arrivals = match self.fate() {
            Fate::Lost => return,
            Fate::Once(after) => vec![after],
            Fate::Twice(after, again) => vec![after, again],
        };
        for after in arrivals {
            let sending = send(datagram.to_vec());
            let (link, due) = (Arc::clone(self), Instant::now() + after);
            tokio::spawn(async move {
                tokio::time::sleep_until(due).await;
                if !link.drops() {
                    // A peer that has gone is as one that loses it.
                    let _ = sending.await;
                }
            });
        }
    }
}

/// A member's address as the peer sees it: a socket to the peer, and the task that reads it.
struct Binding {
    socket: Arc<UdpSocket>,
    reading: JoinHandle<()>,
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Carries datagrams both ways for as long as it is polled.
async fn carry(
    near: Arc<UdpSocket>,
    to: SocketAddr,
    link: &Arc<Shared>,
    mut bound: watch::Receiver<u64>,
) {
    let mut bindings = HashMap::<SocketAddr, Binding>::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (length, from) = tokio::select! {
            biased;
            Ok(()) = bound.changed() => {
                bindings.clear();
                continue;
            }
            received = near.recv_from(&mut datagram) => match received {
                Ok(received) => received,
                // What could not be delivered to a member that has gone comes back as an error.
                Err(_) => continue,
            },
        };
        if let Entry::Vacant(place) = bindings.entry(from) {
            let Ok(binding) = bind(&near, from, to, link).await else {
                continue;
            };
            place.insert(binding);
        }
        let socket = &bindings[&from].socket;
        link.deliver(&datagram[..length], |bytes| {
            let socket = Arc::clone(socket);
            async move { socket.send(&bytes).await }
        });
    }
}

/// Another address for the member at `member`.
async fn bind(
    near: &Arc<UdpSocket>,
    member: SocketAddr,
    to: SocketAddr,
    link: &Arc<Shared>,
) -> io::Result<Binding> {
    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    socket.connect(to).await?;
    let (near, link, far) = (Arc::clone(near), Arc::clone(link), Arc::clone(&socket));
    let reading = tokio::spawn(async move {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let Ok(length) = far.recv(&mut datagram).await else {
                // Refused: nobody listens there at present.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            link.deliver(&datagram[..length], |bytes| {
                let near = Arc::clone(&near);
                async move { near.send_to(&bytes, member).await }
            });
        }
    });
    Ok(Binding { socket, reading })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answering peer, and what came of many datagrams.
    async fn echoed(link: &UdpProxy, peer: &UdpSocket, count: u32) -> Vec<u32> {
        let member = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for number in 0..count {
            let sent = member.send_to(&number.to_le_bytes(), link.address()).await;
            sent.unwrap();
        }
        let mut arrived = Vec::new();
        let mut datagram = [0; 4];
        let quiet = Duration::from_millis(400);
        while let Ok(received) = tokio::time::timeout(quiet, peer.recv_from(&mut datagram)).await {
            received.unwrap();
            arrived.push(u32::from_le_bytes(datagram));
        }
        arrived
    }

    async fn peer() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    #[tokio::test]
    async fn some_are_lost_some_come_late_some_come_twice() {
        let peer = peer().await;
        let faults = LinkFaults {
            delay: Duration::from_millis(5),
            loss: 0.2,
            late: 0.2,
            twice: 0.2,
            ..LinkFaults::BAD
        };
        let link = UdpProxy::start(peer.local_addr().unwrap(), faults, 7);
        let arrived = echoed(&link, &peer, 200).await;
        let carried = link.carried();
        assert_eq!(carried.datagrams, 200);
        assert!((20..60).contains(&carried.lost), "{carried:?}");
        assert!(carried.late > 10 && carried.twice > 10, "{carried:?}");
        let expected = 200 - carried.lost + carried.twice;
        assert_eq!(arrived.len() as u64, expected);
        assert!(!arrived.is_sorted(), "nothing was overtaken");
    }

    #[tokio::test]
    async fn nothing_passes_a_cut_link_and_a_rebound_one_has_another_address() {
        let peer = peer().await;
        let faults = LinkFaults {
            loss: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            late: 0.0,
            twice: 0.0,
        };
        let link = UdpProxy::start(peer.local_addr().unwrap(), faults, 7);
        link.cut();
        assert!(echoed(&link, &peer, 3).await.is_empty());
        assert_eq!(link.carried().cut, 3);
        link.mend();
        assert_eq!(echoed(&link, &peer, 3).await, [0, 1, 2]);
        let member = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut from = Vec::new();
        for _ in 0..2 {
            member.send_to(b"here", link.address()).await.unwrap();
            let mut datagram = [0; 4];
            let (_, seen) = peer.recv_from(&mut datagram).await.unwrap();
            peer.send_to(b"back", seen).await.unwrap();
            member.recv_from(&mut datagram).await.unwrap();
            assert_eq!(&datagram, b"back");
            from.push(seen);
            link.rebind();
        }
        assert_ne!(from[0], from[1]);
    }
}
