//! How a member reaches the aggregator: over QUIC, and where that is not answered over TCP, straight
//! or through a proxy.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::connection::Connection;
use super::error::TransportError;
use super::limits::Limits;
use super::pki::{CaFingerprint, Certificate, Credentials};
use super::route::{Proxy, TransportChoice, TransportKind};
use super::tls::{ClientTls, TlsError};
use super::{quic, tcp};

/// How long QUIC may go unanswered before TCP is tried beside it.
const HEAD_START: Duration = Duration::from_secs(3);

/// Where TCP worked, so many connections in a row begin with it before QUIC has its turn again.
const TCP_IN_A_ROW: u32 = 4;

/// Reaches one aggregator, again and again, and remembers what worked.
#[derive(Debug)]
pub struct Dialer {
    choice: TransportChoice,
    proxy: Option<Proxy>,
    limits: Limits,
    /// Connections that TCP is still to begin with.
    tcp_first: Mutex<u32>,
}

impl Dialer {
    /// Connects as `choice` says; over TCP through `proxy`, where there is one.
    pub fn new(choice: TransportChoice, proxy: Option<Proxy>) -> Self {
        Self {
            choice,
            proxy,
            limits: Limits::default(),
            tcp_first: Mutex::new(0),
        }
    }

    /// The same with other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Connects a member to the aggregator at `address`, a host and port. The connection may still be
    /// refused: the server checks the client's certificate after this returns (TLS 1.3), so say hello
    /// first ([`hello`](super::hello::hello)).
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn connect(
        &self,
        address: &str,
        credentials: &Credentials,
        authority: &Certificate,
    ) -> Result<Connection, TransportError> {
        self.reach(address, &|| ClientTls::member(credentials, authority))
            .await
    }

    /// Connects to the enrolment endpoint, trusting only an authority with this fingerprint. Returns
    /// that authority's certificate, which from now on is pinned.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn join(
        &self,
        address: &str,
        fingerprint: CaFingerprint,
    ) -> Result<(Connection, Certificate), TransportError> {
        let connection = self
            .reach(address, &|| ClientTls::joining(fingerprint))
            .await?;
        with_authority(connection, fingerprint)
    }

    async fn reach(
        &self,
        address: &str,
        tls: &(impl Fn() -> Result<ClientTls, TlsError> + Sync),
    ) -> Result<Connection, TransportError> {
        match self.choice {
            TransportChoice::Quic => self.over_quic(address, tls).await,
            TransportChoice::Tcp => self.over_tcp(address, tls).await,
            TransportChoice::Auto => {
                if self.begins_with_tcp() {
                    match self.over_tcp(address, tls).await {
                        Err(error) if error.is_of_the_network() => {}
                        reached => return reached,
                    }
                }
                let connection = self.race(address, tls).await?;
                let tcp = connection.route().transport == TransportKind::Tcp;
                *self.tcp_first() = if tcp { TCP_IN_A_ROW } else { 0 };
                Ok(connection)
            }
        }
    }

    fn begins_with_tcp(&self) -> bool {
        let mut left = self.tcp_first();
        let begins = *left > 0;
        *left = left.saturating_sub(1);
        begins
    }

    fn tcp_first(&self) -> std::sync::MutexGuard<'_, u32> {
        self.tcp_first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// QUIC, and TCP beside it once QUIC has failed or gone unanswered for a while. Where a peer
    /// answers over QUIC, its refusal is the end.
    async fn race(
        &self,
        address: &str,
        tls: &(impl Fn() -> Result<ClientTls, TlsError> + Sync),
    ) -> Result<Connection, TransportError> {
        let failed = Notify::new();
        let mut over_quic = std::pin::pin!(self.over_quic(address, tls));
        let mut over_tcp = std::pin::pin!(async {
            let _ = timeout(HEAD_START, failed.notified()).await;
            self.over_tcp(address, tls).await
        });
        let (mut quic_error, mut tcp_error) = (None, None);
        loop {
            tokio::select! {
                reached = &mut over_quic, if quic_error.is_none() => match reached {
                    Err(error) if error.is_of_the_network() => quic_error = Some(error),
                    reached => return reached,
                },
                reached = &mut over_tcp, if tcp_error.is_none() => match reached {
                    // Another service may have the TCP port: QUIC keeps its time.
                    Err(error) => tcp_error = Some(error),
                    reached => return reached,
                },
            }
            failed.notify_one();
            match (quic_error.take(), tcp_error.take()) {
                (Some(_), Some(refusal)) if !refusal.is_of_the_network() => return Err(refusal),
                (
                    Some(error @ TransportError::Resolve { .. }),
                    Some(TransportError::Resolve { .. }),
                ) => {
                    return Err(error);
                }
                (Some(quic), Some(tcp)) => {
                    return Err(TransportError::NoRoute {
                        quic: Box::new(quic),
                        tcp: Box::new(tcp),
                    });
                }
                (quic, tcp) => (quic_error, tcp_error) = (quic, tcp),
            }
        }
    }

    async fn over_quic(
        &self,
        address: &str,
        tls: &(impl Fn() -> Result<ClientTls, TlsError> + Sync),
    ) -> Result<Connection, TransportError> {
        let mut turns = Turns::default();
        for at in resolve(address).await? {
            let dialled = quic::dial(at, tls()?, self.limits).await;
            if let Some(answered) = turns.took(dialled) {
                return answered;
            }
        }
        Err(turns.failed())
    }

    async fn over_tcp(
        &self,
        address: &str,
        tls: &(impl Fn() -> Result<ClientTls, TlsError> + Sync),
    ) -> Result<Connection, TransportError> {
        let mut turns = Turns::default();
        let addresses = match &self.proxy {
            None => resolve(address).await?,
            Some(proxy) => resolve(&proxy.address()).await?,
        };
        for at in addresses {
            let dialled = match &self.proxy {
                None => tcp::dial(at, tls()?, self.limits).await,
                Some(proxy) => tcp::dial_through(proxy, at, address, tls()?, self.limits).await,
            };
            if let Some(answered) = turns.took(dialled) {
                return answered;
            }
        }
        Err(turns.failed())
    }
}

/// Connects a member over QUIC to one address, as [`Dialer::connect`] does to a host.
///
/// # Errors
/// [`TransportError`].
pub async fn connect(
    address: SocketAddr,
    credentials: &Credentials,
    authority: &Certificate,
    limits: Limits,
) -> Result<Connection, TransportError> {
    let tls = ClientTls::member(credentials, authority)?;
    quic::dial(address, tls, limits).await
}

/// Connects over QUIC to one enrolment address, as [`Dialer::join`] does to a host.
///
/// # Errors
/// [`TransportError`].
pub async fn join_connect(
    address: SocketAddr,
    fingerprint: CaFingerprint,
    limits: Limits,
) -> Result<(Connection, Certificate), TransportError> {
    let tls = ClientTls::joining(fingerprint)?;
    with_authority(quic::dial(address, tls, limits).await?, fingerprint)
}

fn with_authority(
    connection: Connection,
    fingerprint: CaFingerprint,
) -> Result<(Connection, Certificate), TransportError> {
    let shown = connection.chain().last().cloned();
    let authority = shown
        .filter(|authority| CaFingerprint::of(authority) == fingerprint)
        .ok_or_else(|| TransportError::Unexpected {
            expected: "the authority's certificate",
            got: "another chain than was verified".into(),
        })?;
    Ok((connection, authority))
}

/// The addresses behind `HOST:PORT`, in the resolver's order.
async fn resolve(address: &str) -> Result<Vec<SocketAddr>, TransportError> {
    let unresolved = |reason: String| TransportError::Resolve {
        address: address.chars().take(200).collect(),
        reason,
    };
    let found: Vec<_> = tokio::net::lookup_host(address)
        .await
        .map_err(|error| unresolved(error.to_string()))?
        .collect();
    if found.is_empty() {
        return Err(unresolved("the name has no address".into()));
    }
    Ok(found)
}

/// The addresses of one host, dialled in turn until one answers: a name may have one of a kind that
/// the network does not carry. Where a peer answers, its refusal is the end.
#[derive(Default)]
struct Turns(Option<TransportError>);

impl Turns {
    /// What came of an address; nothing where the next one has its turn.
    fn took(
        &mut self,
        dialled: Result<Connection, TransportError>,
    ) -> Option<Result<Connection, TransportError>> {
        match dialled {
            Err(error) if error.is_of_the_network() => {
                self.0.get_or_insert(error);
                None
            }
            answered => Some(answered),
        }
    }

    /// Why none answered: the reason of the first.
    fn failed(self) -> TransportError {
        self.0.unwrap_or(TransportError::Resolve {
            address: String::new(),
            reason: "there is no address".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name may have an address that this network does not carry, before one that it does.
    #[test]
    fn the_next_address_has_its_turn_unless_a_peer_has_answered() {
        let unreachable = |text: &str| TransportError::Broken {
            detail: text.to_owned(),
        };
        let mut turns = Turns::default();
        assert!(turns.took(Err(unreachable("first"))).is_none());
        assert!(turns.took(Err(unreachable("second"))).is_none());
        let refused = TransportError::Refused {
            reason: "no".to_owned(),
        };
        let answered = turns.took(Err(refused));
        assert!(matches!(
            answered,
            Some(Err(TransportError::Refused { .. }))
        ));
        // Of several that do not answer the first is told.
        let failed = turns.failed();
        assert!(matches!(&failed, TransportError::Broken { detail } if detail == "first"));
    }
}
