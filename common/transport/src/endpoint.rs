//! UDP endpoints: the aggregator's two servers, and how a member reaches them.
//!
//! A server validates every client's address with a Retry packet before it spends anything on
//! it, does a bounded number of handshakes at a time, each with a time limit and none in another's
//! way, and keeps a bounded number of connections.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, TokioRuntime, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::accept::Accepted;
use super::close::CloseCode;
use super::connection::Connection;
use super::error::{PeerContext, TransportError};
use super::limits::Limits;
use super::pki::{
    CaFingerprint, Certificate, Credentials, Peer, PkiError, RevocationList, SERVER_NAME,
};
use super::restart::RestartSecret;
use super::tls::{
    self, ALPN_FEDERATION, ALPN_JOIN, ServerVerifier, TlsError, client_config, join_client_config,
};

/// A member's connection, as the aggregator accepted it.
#[derive(Debug, Clone)]
pub struct MemberConnection {
    /// The member's name and key, from its verified certificate.
    pub peer: Peer,
    /// That certificate.
    pub certificate: Certificate,
    /// The connection, whose handshake is complete.
    pub connection: Connection,
}

/// The aggregator's endpoint for members with certificates.
#[derive(Debug)]
pub struct ServerEndpoint {
    endpoint: Endpoint,
    limits: Limits,
    accepted: Accepted<MemberConnection>,
}

impl ServerEndpoint {
    /// Listens on `address` (port 0 takes a free one). Must be called within a tokio runtime. With the
    /// `restart` secret that it had before, it ends the connections of its former life.
    ///
    /// # Errors
    /// [`TransportError::Bind`] or [`TransportError::Tls`].
    pub fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        authority: &Certificate,
        revocations: Vec<RevocationList>,
        limits: Limits,
        restart: &RestartSecret,
    ) -> Result<Self, TransportError> {
        let config = tls::server_config(credentials, authority, revocations)?;
        let endpoint = listen(address, config, &limits, restart.endpoint_config())?;
        let accepted =
            Accepted::spawn(
                &endpoint,
                limits,
                ALPN_FEDERATION,
                |connection| match peer_of(&connection) {
                    Ok((peer, certificate)) => Ok(MemberConnection {
                        peer,
                        certificate,
                        connection,
                    }),
                    Err(error) => {
                        connection.close(CloseCode::NotAMember, "not a member's certificate");
                        Err(error.into())
                    }
                },
            );
        Ok(Self {
            endpoint,
            limits,
            accepted,
        })
    }

    /// The address in use, with the port that was taken.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr, TransportError> {
        local_address(&self.endpoint)
    }

    /// The next connection whose handshake is complete, or the next that failed and why. `None`
    /// once the endpoint is closed. A failure concerns one client: log it and accept the next.
    pub async fn accept(&mut self) -> Option<Result<MemberConnection, TransportError>> {
        self.accepted.next().await
    }

    /// Uses another certificate or other revocation lists for connections from now on. Those that
    /// stand are not looked at again: close a revoked member's yourself.
    ///
    /// # Errors
    /// [`TransportError::Tls`]; what was in use stays in use.
    pub fn reconfigure(
        &self,
        credentials: &Credentials,
        authority: &Certificate,
        revocations: Vec<RevocationList>,
    ) -> Result<(), TransportError> {
        let config = tls::server_config(credentials, authority, revocations)?;
        self.endpoint
            .set_server_config(Some(quic_server(config, &self.limits)?));
        Ok(())
    }

    /// Closes every connection and waits until the peers have been told.
    pub async fn close(self, reason: &str) {
        close(&self.endpoint, reason).await;
    }
}

/// The aggregator's endpoint for those who hold a join token and no certificate yet. Only the
/// server is authenticated: what arrives is from anyone, until the token in it is checked.
#[derive(Debug)]
pub struct JoinServer {
    endpoint: Endpoint,
    limits: Limits,
    accepted: Accepted<Connection>,
}

impl JoinServer {
    /// Listens on `address`, another port than the members'. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`TransportError::Bind`] or [`TransportError::Tls`].
    pub fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        authority: &Certificate,
        limits: Limits,
    ) -> Result<Self, TransportError> {
        let config = tls::join_server_config(credentials, authority)?;
        let endpoint = listen(address, config, &limits, EndpointConfig::default())?;
        let accepted = Accepted::spawn(&endpoint, limits, ALPN_JOIN, Ok);
        Ok(Self {
            endpoint,
            limits,
            accepted,
        })
    }

    /// The address in use, with the port that was taken.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr, TransportError> {
        local_address(&self.endpoint)
    }

    /// Uses another certificate for connections from now on.
    ///
    /// # Errors
    /// [`TransportError::Tls`]; what was in use stays in use.
    pub fn reconfigure(
        &self,
        credentials: &Credentials,
        authority: &Certificate,
    ) -> Result<(), TransportError> {
        let config = tls::join_server_config(credentials, authority)?;
        self.endpoint
            .set_server_config(Some(quic_server(config, &self.limits)?));
        Ok(())
    }

    /// The next connection whose handshake is complete, or the next that failed and why. `None`
    /// once the endpoint is closed.
    pub async fn accept(&mut self) -> Option<Result<Connection, TransportError>> {
        self.accepted.next().await
    }

    /// Closes every connection and waits until the peers have been told.
    pub async fn close(self, reason: &str) {
        close(&self.endpoint, reason).await;
    }
}

/// Connects a member to the aggregator. The connection may still be refused: the server checks
/// the client's certificate after this returns (TLS 1.3), so say hello first
/// ([`hello`](super::hello::hello)).
///
/// # Errors
/// [`TransportError`].
pub async fn connect(
    address: SocketAddr,
    credentials: &Credentials,
    authority: &Certificate,
    limits: Limits,
) -> Result<Connection, TransportError> {
    let (config, verifier) = client_config(credentials, authority)?;
    dial(address, config, &verifier, limits, ALPN_FEDERATION).await
}

/// Connects to the enrolment endpoint, trusting only an authority with this fingerprint. Returns
/// that authority's certificate, which from now on is pinned.
///
/// # Errors
/// [`TransportError`].
pub async fn join_connect(
    address: SocketAddr,
    fingerprint: CaFingerprint,
    limits: Limits,
) -> Result<(Connection, Certificate), TransportError> {
    let (config, verifier) = join_client_config(fingerprint)?;
    let connection = dial(address, config, &verifier, limits, ALPN_JOIN).await?;
    let authority = peer_chain(&connection)
        .pop()
        .filter(|authority| CaFingerprint::of(authority) == fingerprint)
        .ok_or_else(|| TransportError::Unexpected {
            expected: "the authority's certificate",
            got: "another chain than was verified".into(),
        })?;
    Ok((connection, authority))
}

/// The addresses behind `HOST:PORT`, in the resolver's order.
///
/// # Errors
/// [`TransportError::Resolve`] when there is none.
pub async fn resolve(address: &str) -> Result<Vec<SocketAddr>, TransportError> {
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

/// Dials the addresses of one host in turn, until one answers: a name may have one of a kind that the
/// network does not carry. Where a peer answers, its refusal is the end.
///
/// # Errors
/// Where none answers, that of the first address; otherwise what the peer that answers gives.
pub async fn reach<T, F>(
    addresses: &[SocketAddr],
    dial: impl Fn(SocketAddr) -> F,
) -> Result<T, TransportError>
where
    F: Future<Output = Result<T, TransportError>>,
{
    let mut first = None;
    for address in addresses {
        let error = match dial(*address).await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        if !error.is_of_the_network() {
            return Err(error);
        }
        first.get_or_insert(error);
    }
    Err(first.unwrap_or(TransportError::Resolve {
        address: String::new(),
        reason: "there is no address".into(),
    }))
}

async fn dial(
    address: SocketAddr,
    config: rustls::ClientConfig,
    verifier: &ServerVerifier,
    limits: Limits,
    alpn: &'static [u8],
) -> Result<Connection, TransportError> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local).map_err(|source| TransportError::Bind {
        address: local,
        source,
    })?;
    let crypto = QuicClientConfig::try_from(config)
        .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(limits.transport());
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| TransportError::from_connect(error, address))?;
    let peer = PeerContext {
        server: false,
        address,
        alpn,
    };
    let unreachable = TransportError::Unreachable {
        address,
        after: limits.handshake,
    };
    match timeout(limits.handshake, connecting).await {
        Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => Err(unreachable),
        Ok(Ok(quic)) => Ok(Connection::new(quic, Some(endpoint), peer, None)),
        Ok(Err(error)) => Err(match verifier.refusal() {
            Some(problem) => TransportError::ServerCertificate(problem),
            None => TransportError::from_connection(error, &peer),
        }),
    }
}

fn listen(
    address: SocketAddr,
    config: rustls::ServerConfig,
    limits: &Limits,
    endpoint: EndpointConfig,
) -> Result<Endpoint, TransportError> {
    let server = Some(quic_server(config, limits)?);
    UdpSocket::bind(address)
        .and_then(|socket| Endpoint::new(endpoint, server, socket, Arc::new(TokioRuntime)))
        .map_err(|source| TransportError::Bind { address, source })
}

fn quic_server(
    config: rustls::ServerConfig,
    limits: &Limits,
) -> Result<quinn::ServerConfig, TransportError> {
    let crypto = QuicServerConfig::try_from(config)
        .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(limits.transport())
        .max_incoming(limits.handshakes.saturating_mul(4).max(64))
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20);
    Ok(server)
}

fn local_address(endpoint: &Endpoint) -> Result<SocketAddr, TransportError> {
    endpoint
        .local_addr()
        .map_err(|error| TransportError::Broken {
            detail: error.to_string(),
        })
}

async fn close(endpoint: &Endpoint, reason: &str) {
    let code = VarInt::from_u32(CloseCode::ShuttingDown as u32);
    endpoint.close(code, reason.as_bytes());
    endpoint.wait_idle().await;
}

fn peer_of(connection: &Connection) -> Result<(Peer, Certificate), PkiError> {
    let shown = peer_chain(connection).into_iter().next();
    let certificate = shown.ok_or_else(|| PkiError::Certificate {
        reason: "none was shown".into(),
    })?;
    Ok((Peer::from_certificate(&certificate)?, certificate))
}

fn peer_chain(connection: &Connection) -> Vec<Certificate> {
    connection
        .quic()
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| chain.into_iter().map(Certificate::from).collect())
        .unwrap_or_default()
}
