//! Connections over any ordered byte stream, without TLS: for simulations of a federation within one
//! process. Streams, windows, pings and closing are those of a TCP connection; who the peer is, whoever
//! makes a connection says.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::error::PeerContext;
use crate::limits::Limits;
use crate::mux::Side;
use crate::route::{Route, TransportKind};
use crate::tcp::{self, Counter};
use crate::tls::ALPN_FEDERATION_TCP;

/// The member's side of a connection. Must be called within a tokio runtime.
pub fn member_side(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    limits: &Limits,
) -> Connection {
    over(stream, Side::Client, limits)
}

/// The aggregator's side of a connection. Must be called within a tokio runtime.
pub fn aggregator_side(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    limits: &Limits,
) -> Connection {
    over(stream, Side::Server, limits)
}

fn over(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    side: Side,
    limits: &Limits,
) -> Connection {
    let peer = PeerContext {
        server: side == Side::Server,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        alpn: ALPN_FEDERATION_TCP,
    };
    let mux = tcp::serve(stream, side, limits, std::future::pending(), None);
    let route = Route::direct(TransportKind::Tcp);
    Connection::over_tcp(mux, Counter::default(), route, Vec::new(), peer)
}
