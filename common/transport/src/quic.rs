//! A member's connection over QUIC.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::Endpoint;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use super::connection::Connection;
use super::error::{PeerContext, TransportError};
use super::limits::Limits;
use super::pki::SERVER_NAME;
use super::route::TransportKind;
use super::tls::{ClientTls, TlsError};

/// Connects to `address`.
pub(super) async fn dial(
    address: SocketAddr,
    tls: ClientTls,
    limits: Limits,
) -> Result<Connection, TransportError> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local).map_err(|source| TransportError::Bind {
        address: local,
        source,
    })?;
    let peer = PeerContext {
        server: false,
        address,
        alpn: tls.quic_alpn(),
    };
    let crypto = QuicClientConfig::try_from(tls.config)
        .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(limits.transport());
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| TransportError::from_connect(error, address))?;
    let unreachable = TransportError::Unreachable {
        over: TransportKind::Quic,
        address,
        after: limits.handshake,
    };
    match timeout(limits.handshake, connecting).await {
        Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => Err(unreachable),
        Ok(Ok(quic)) => Ok(Connection::over_quic(quic, Some(endpoint), peer, None)),
        Ok(Err(error)) => Err(match tls.verifier.refusal() {
            Some(problem) => TransportError::ServerCertificate(problem),
            None => TransportError::from_connection(error, &peer),
        }),
    }
}
