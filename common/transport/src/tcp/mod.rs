//! TLS 1.3 over TCP, for networks that let no UDP through: the same certificates and verifiers as
//! over QUIC, and streams by [`mux`](super::mux).

mod dial;
mod listen;
mod proxy;
mod socket;

pub(super) use dial::{dial, dial_through};
pub(super) use listen::{TcpServer, listen};
pub(super) use socket::Counter;

use tokio::sync::OwnedSemaphorePermit;

use super::connection::StreamKind;
use super::limits::Limits;
use super::mux::{self, Mux, Settings, Side};

/// A connection over a socket whose handshake is complete, served by a task of its own. `stop` ends
/// it, with the reason it gives. `permit` is held until the socket is closed.
pub(super) fn serve<S>(
    socket: S,
    side: Side,
    limits: &Limits,
    stop: impl Future<Output = String> + Send + 'static,
    permit: Option<OwnedSemaphorePermit>,
) -> Mux
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let settings = Settings {
        streams: limits.streams,
        stream_window: limits.stream_window,
        connection_window: limits.connection_window,
    };
    let mux = Mux::new(side, settings, |what_for| {
        what_for != StreamKind::Bulk as u8
    });
    let driving = mux::drive(&mux, socket, limits.idle, stop);
    tokio::spawn(async move {
        driving.await;
        drop(permit);
    });
    mux
}
