//! The aggregator's two servers, each on a UDP and a TCP port of the same number, or on TCP alone.
//!
//! A server validates every client's address with a Retry packet, or TCP's own handshake, before it
//! spends anything on it, does a bounded number of handshakes at a time, each with a time limit and
//! none in another's way, and keeps a bounded number of connections.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, TokioRuntime, VarInt};
use tokio::net::TcpListener;

use super::accept::Accepted;
use super::close::CloseCode;
use super::connection::Connection;
use super::error::TransportError;
use super::limits::Limits;
use super::pki::{Certificate, Credentials, Peer, PkiError, RevocationList};
use super::restart::RestartSecret;
use super::tcp::{self, TcpServer};
use super::tls::{self, ALPN_FEDERATION, ALPN_FEDERATION_TCP, ALPN_JOIN, ALPN_JOIN_TCP, TlsError};

/// How often a free port is sought that is free over UDP and TCP alike.
const BIND_TRIES: u32 = 32;

/// What a server listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transports {
    /// UDP and TCP.
    #[default]
    All,
    /// TCP.
    TcpAlone,
}

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
    sockets: Sockets,
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
        transports: Transports,
    ) -> Result<Self, TransportError> {
        let config = tls::server_config(credentials, authority, revocations)?;
        let (sockets, listener) = Sockets::listen(
            address,
            config,
            ALPN_FEDERATION_TCP,
            limits,
            restart.endpoint_config(),
            transports,
        )?;
        let accepted = Accepted::spawn(
            sockets.quic.as_ref(),
            (&sockets.tcp, listener),
            limits,
            [ALPN_FEDERATION, ALPN_FEDERATION_TCP],
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
        Ok(Self { sockets, accepted })
    }

    /// The address in use, with the port that was taken.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr, TransportError> {
        self.sockets.local_address()
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
        self.sockets.reconfigure(config, ALPN_FEDERATION_TCP)
    }

    /// Closes every connection and waits until the peers have been told.
    pub async fn close(self, reason: &str) {
        self.sockets.close(reason).await;
    }
}

/// The aggregator's endpoint for those who hold a join token and no certificate yet. Only the
/// server is authenticated: what arrives is from anyone, until the token in it is checked.
#[derive(Debug)]
pub struct JoinServer {
    sockets: Sockets,
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
        transports: Transports,
    ) -> Result<Self, TransportError> {
        let config = tls::join_server_config(credentials, authority)?;
        let (sockets, listener) = Sockets::listen(
            address,
            config,
            ALPN_JOIN_TCP,
            limits,
            EndpointConfig::default(),
            transports,
        )?;
        let accepted = Accepted::spawn(
            sockets.quic.as_ref(),
            (&sockets.tcp, listener),
            limits,
            [ALPN_JOIN, ALPN_JOIN_TCP],
            Ok,
        );
        Ok(Self { sockets, accepted })
    }

    /// The address in use, with the port that was taken.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr, TransportError> {
        self.sockets.local_address()
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
        self.sockets.reconfigure(config, ALPN_JOIN_TCP)
    }

    /// The next connection whose handshake is complete, or the next that failed and why. `None`
    /// once the endpoint is closed.
    pub async fn accept(&mut self) -> Option<Result<Connection, TransportError>> {
        self.accepted.next().await
    }

    /// Closes every connection and waits until the peers have been told.
    pub async fn close(self, reason: &str) {
        self.sockets.close(reason).await;
    }
}

/// The sockets of a server, UDP and TCP at one address and port.
#[derive(Debug)]
struct Sockets {
    /// Nothing where it listens over TCP alone.
    quic: Option<Endpoint>,
    tcp: TcpServer,
    address: SocketAddr,
    limits: Limits,
}

impl Sockets {
    /// Listens on `address`. `alpn` is the application protocol over TCP.
    fn listen(
        address: SocketAddr,
        config: rustls::ServerConfig,
        alpn: &[u8],
        limits: Limits,
        endpoint: EndpointConfig,
        transports: Transports,
    ) -> Result<(Self, TcpListener), TransportError> {
        let tcp = TcpServer::new(tls::server_over_tcp(&config, alpn));
        let failed = |source| TransportError::BindTcp { address, source };
        let (quic, listener) = match transports {
            Transports::All => {
                let server = quic_server(config, &limits)?;
                let (socket, listener) = bind(address)?;
                let quic = Endpoint::new(endpoint, Some(server), socket, Arc::new(TokioRuntime))
                    .map_err(|source| TransportError::Bind { address, source })?;
                (Some(quic), listener)
            }
            Transports::TcpAlone => (None, tcp::listen(address).map_err(failed)?),
        };
        let sockets = Self {
            quic,
            tcp,
            address: listener.local_addr().map_err(failed)?,
            limits,
        };
        Ok((sockets, listener))
    }

    fn local_address(&self) -> Result<SocketAddr, TransportError> {
        let Some(quic) = &self.quic else {
            return Ok(self.address);
        };
        quic.local_addr().map_err(|error| TransportError::Broken {
            detail: error.to_string(),
        })
    }

    fn reconfigure(&self, config: rustls::ServerConfig, alpn: &[u8]) -> Result<(), TransportError> {
        let tcp = tls::server_over_tcp(&config, alpn);
        if let Some(quic) = &self.quic {
            quic.set_server_config(Some(quic_server(config, &self.limits)?));
        }
        self.tcp.reconfigure(tcp);
        Ok(())
    }

    async fn close(self, reason: &str) {
        let code = VarInt::from_u32(CloseCode::ShuttingDown as u32);
        let closing = async {
            if let Some(quic) = &self.quic {
                quic.close(code, reason.as_bytes());
                quic.wait_idle().await;
            }
        };
        tokio::join!(closing, self.tcp.close(reason));
    }
}

/// A UDP socket, and a TCP listener at the same port.
fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener), TransportError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let failed = |source| TransportError::Bind { address, source };
        let udp = UdpSocket::bind(address).map_err(failed)?;
        let both = udp.local_addr().map_err(failed)?;
        match tcp::listen(both) {
            Ok(listener) => return Ok((udp, listener)),
            // The system chose a port that is free over UDP alone: it may choose another.
            Err(error)
                if address.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && tries < BIND_TRIES => {}
            Err(source) => {
                return Err(TransportError::BindTcp {
                    address: both,
                    source,
                });
            }
        }
    }
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

fn peer_of(connection: &Connection) -> Result<(Peer, Certificate), PkiError> {
    let shown = connection.chain().first().cloned();
    let certificate = shown.ok_or_else(|| PkiError::Certificate {
        reason: "none was shown".into(),
    })?;
    Ok((Peer::from_certificate(&certificate)?, certificate))
}
