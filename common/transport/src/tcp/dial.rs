//! A member's connection over TCP, straight or through a proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::proxy;
use super::serve;
use super::socket::Socket;
use crate::connection::Connection;
use crate::error::{PeerContext, TransportError};
use crate::limits::Limits;
use crate::mux::Side;
use crate::pki::{Certificate, SERVER_NAME};
use crate::route::{Proxy, Route, TransportKind};
use crate::tls::{ClientTls, TlsError};

/// Connects straight to `address`.
pub(crate) async fn dial(
    address: SocketAddr,
    tls: ClientTls,
    limits: Limits,
) -> Result<Connection, TransportError> {
    within(address, limits, async {
        let stream = open(address).await?;
        let route = Route::direct(TransportKind::Tcp);
        shake(stream, address, route, tls, limits).await
    })
    .await
}

/// Connects to `target`, a host and port, through the proxy at `address`.
pub(crate) async fn dial_through(
    proxy: &Proxy,
    address: SocketAddr,
    target: &str,
    tls: ClientTls,
    limits: Limits,
) -> Result<Connection, TransportError> {
    let name = proxy.address();
    within(address, limits, async {
        let failed = |problem| TransportError::Proxy {
            proxy: name.clone(),
            problem,
        };
        let mut stream = open(address).await?;
        proxy::connect(&mut stream, target, proxy.authorization())
            .await
            .map_err(failed)?;
        let route = Route {
            transport: TransportKind::Tcp,
            proxy: Some(name.clone()),
        };
        shake(stream, address, route, tls, limits).await
    })
    .await
}

async fn within(
    address: SocketAddr,
    limits: Limits,
    dialing: impl Future<Output = Result<Connection, TransportError>>,
) -> Result<Connection, TransportError> {
    let unreachable = TransportError::Unreachable {
        over: TransportKind::Tcp,
        address,
        after: limits.handshake,
    };
    timeout(limits.handshake, dialing)
        .await
        .unwrap_or(Err(unreachable))
}

async fn open(address: SocketAddr) -> Result<TcpStream, TransportError> {
    TcpStream::connect(address)
        .await
        .map_err(|source| TransportError::TcpConnect { address, source })
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    route: Route,
    tls: ClientTls,
    limits: Limits,
) -> Result<Connection, TransportError> {
    let peer = PeerContext {
        server: false,
        address,
        alpn: tls.tcp_alpn(),
    };
    let socket = Socket::new(stream);
    let counter = socket.counter();
    let name =
        ServerName::try_from(SERVER_NAME).map_err(|error| TlsError::Verifier(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(tls.tcp_config()));
    let stream =
        connector
            .connect(name, socket)
            .await
            .map_err(|error| match tls.verifier.refusal() {
                Some(problem) => TransportError::ServerCertificate(problem),
                None => TransportError::from_tls(&error, &peer),
            })?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(peer.alpn) {
        return Err(peer.protocol());
    }
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().cloned().map(Certificate::from).collect();
    let mux = serve(stream, Side::Client, &limits, std::future::pending(), None);
    Ok(Connection::over_tcp(mux, counter, route, chain, peer))
}
