//! One connection between a member and the aggregator: tagged streams, counters, closing.
//!
//! Every stream is bidirectional and begins with one byte that says what it is for. That byte also
//! makes the stream visible to the peer at once (QUIC announces a stream with its first data; over TCP
//! it is in the frame that opens the stream). Bulk streams yield to all others, so a control message
//! never waits behind an upload.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;

pub use super::close::CloseCode;

use super::error::{PeerContext, TransportError, printable};
use super::frame::{FrameError, Stop, read_full};
use super::mux::{End, Mux};
use super::pki::Certificate;
use super::route::{Route, TransportKind};
use super::stream::{RecvStream, SendStream};
use super::tcp::Counter;

/// What a stream is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// The first exchange of a connection ([`hello`](super::hello)).
    Hello = 1,
    /// Control messages, such as those of the round.
    Control = 2,
    /// One large object ([`bulk`](super::bulk)).
    Bulk = 3,
}

impl StreamKind {
    /// Reads a stream's first byte.
    ///
    /// # Errors
    /// The byte, if it names no kind.
    pub fn decode(byte: u8) -> Result<Self, u8> {
        match byte {
            1 => Ok(Self::Hello),
            2 => Ok(Self::Control),
            3 => Ok(Self::Bulk),
            other => Err(other),
        }
    }
}

/// Bytes of UDP payload, or of TCP's, both ways: handshake, headers, acknowledgements and
/// retransmissions of QUIC included; the last two of TCP not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sent by this side.
    pub sent: u64,
    /// Received by this side.
    pub received: u64,
}

/// An established connection. Cheap to clone; it closes when the last clone and stream are gone.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    carrier: Carrier,
    route: Route,
    peer: PeerContext,
    /// The certificates that the peer showed, its own first.
    chain: Vec<Certificate>,
    /// A server's count of open connections; over TCP the socket's task holds it.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Carrier {
    Quic {
        connection: quinn::Connection,
        /// A client's own endpoint, which lives as long as its one connection.
        endpoint: Option<quinn::Endpoint>,
    },
    Tcp {
        mux: Mux,
        counter: Counter,
    },
}

impl Connection {
    pub(super) fn over_quic(
        connection: quinn::Connection,
        endpoint: Option<quinn::Endpoint>,
        peer: PeerContext,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let chain = connection
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| chain.into_iter().map(Certificate::from).collect())
            .unwrap_or_default();
        Self(Arc::new(Inner {
            carrier: Carrier::Quic {
                connection,
                endpoint,
            },
            route: Route::direct(TransportKind::Quic),
            peer,
            chain,
            _permit: permit,
        }))
    }

    pub(super) fn over_tcp(
        mux: Mux,
        counter: Counter,
        route: Route,
        chain: Vec<Certificate>,
        peer: PeerContext,
    ) -> Self {
        Self(Arc::new(Inner {
            carrier: Carrier::Tcp { mux, counter },
            route,
            peer,
            chain,
            _permit: None,
        }))
    }

    /// What the connection runs over.
    pub fn route(&self) -> &Route {
        &self.0.route
    }

    /// The peer's address at present, UDP or TCP; that of the proxy where there is one between.
    pub fn remote_address(&self) -> SocketAddr {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => connection.remote_address(),
            Carrier::Tcp { .. } => self.0.peer.address,
        }
    }

    /// Bytes so far.
    pub fn traffic(&self) -> Traffic {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => {
                let stats = connection.stats();
                Traffic {
                    sent: stats.udp_tx.bytes,
                    received: stats.udp_rx.bytes,
                }
            }
            Carrier::Tcp { counter, .. } => counter.traffic(),
        }
    }

    /// The round-trip time, as estimated at present.
    pub fn round_trip(&self) -> Duration {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => connection.rtt(),
            Carrier::Tcp { mux, .. } => mux.round_trip(),
        }
    }

    /// Opens a stream and says what it is for. Waits while the peer allows no more streams.
    ///
    /// # Errors
    /// [`TransportError`] when the connection has ended.
    pub async fn open(&self, kind: StreamKind) -> Result<(SendStream, RecvStream), TransportError> {
        self.open_with(kind as u8).await
    }

    /// The same with any first byte.
    pub(super) async fn open_with(
        &self,
        byte: u8,
    ) -> Result<(SendStream, RecvStream), TransportError> {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => {
                let (send, recv) = connection
                    .open_bi()
                    .await
                    .map_err(|error| TransportError::from_connection(error, &self.0.peer))?;
                if let Ok(kind) = StreamKind::decode(byte) {
                    self.prioritise(&send, kind)?;
                }
                let (mut send, recv) = (SendStream::quic(send), RecvStream::quic(recv));
                send.write_all(&[byte])
                    .await
                    .map_err(|error| self.explain(FrameError::Io(error)))?;
                Ok((send, recv))
            }
            Carrier::Tcp { mux, .. } => {
                let opened = mux.open(byte).await;
                let (send, recv) = opened.map_err(|end| self.why(end))?;
                Ok((SendStream::tcp(send), RecvStream::tcp(recv)))
            }
        }
    }

    /// The next stream that the peer opened. Cancel-safe until a stream arrives; a peer that opens
    /// one and never sends its first byte holds up this call and no one else's, so give it a
    /// time limit.
    ///
    /// # Errors
    /// [`TransportError::Unexpected`] for an unknown kind; the stream is dropped and the connection
    /// stays. Others when the connection has ended.
    pub async fn accept(&self) -> Result<(StreamKind, SendStream, RecvStream), TransportError> {
        let known = |byte| {
            StreamKind::decode(byte).map_err(|byte| TransportError::Unexpected {
                expected: "a hello, control or bulk stream",
                got: format!("stream kind {byte}"),
            })
        };
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => {
                let (send, recv) = connection
                    .accept_bi()
                    .await
                    .map_err(|error| TransportError::from_connection(error, &self.0.peer))?;
                let mut recv = RecvStream::quic(recv);
                let mut first = [0];
                read_full(&mut recv, &mut first)
                    .await
                    .map_err(|stop| match stop {
                        Stop::Ended(got) => {
                            TransportError::Frame(FrameError::TruncatedHeader { got })
                        }
                        Stop::Failed(error) => self.explain(FrameError::Io(error)),
                    })?;
                let kind = known(first[0])?;
                self.prioritise(&send, kind)?;
                Ok((kind, SendStream::quic(send), recv))
            }
            Carrier::Tcp { mux, .. } => {
                let accepted = mux.accept().await;
                let (first, send, recv) = accepted.map_err(|end| self.why(end))?;
                let kind = known(first)?;
                Ok((kind, SendStream::tcp(send), RecvStream::tcp(recv)))
            }
        }
    }

    /// The reason behind a failed read or write on one of this connection's streams: the
    /// connection's own end if it has ended, the frame's error otherwise.
    pub fn explain(&self, error: FrameError) -> TransportError {
        self.close_reason().unwrap_or(TransportError::Frame(error))
    }

    /// Waits for the connection to end, and says why.
    pub async fn closed(&self) -> TransportError {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => {
                TransportError::from_connection(connection.closed().await, &self.0.peer)
            }
            Carrier::Tcp { mux, .. } => self.why(mux.ended().await),
        }
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<TransportError> {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => connection
                .close_reason()
                .map(|reason| TransportError::from_connection(reason, &self.0.peer)),
            Carrier::Tcp { mux, .. } => mux.end().map(|end| self.why(end)),
        }
    }

    /// Closes the connection at once; what has not been acknowledged is lost. The peer is shown the
    /// reason, cut at 200 characters.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let reason = printable(reason.as_bytes());
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => {
                connection.close(VarInt::from_u32(code as u32), reason.as_bytes());
            }
            Carrier::Tcp { mux, .. } => mux.close(code as u32, reason.as_bytes()),
        }
    }

    /// Bounds the bytes on the way, in each direction. What was granted before stands.
    pub(super) fn set_windows(&self, bytes: u32) {
        match &self.0.carrier {
            Carrier::Quic { connection, .. } => {
                connection.set_receive_window(VarInt::from_u32(bytes));
                connection.set_send_window(bytes.into());
            }
            // What it sends waits in a buffer of 64 KiB for each stream.
            Carrier::Tcp { mux, .. } => mux.set_window(bytes),
        }
    }

    /// Closes a client's connection and waits until the peer has been told.
    pub async fn finish(&self) {
        self.close(CloseCode::Done, "done");
        match &self.0.carrier {
            Carrier::Quic {
                endpoint: Some(endpoint),
                ..
            } => endpoint.wait_idle().await,
            Carrier::Quic { endpoint: None, .. } => {}
            Carrier::Tcp { mux, .. } => mux.gone().await,
        }
    }

    /// The certificates that the peer showed and this side verified, the peer's own first.
    pub(super) fn chain(&self) -> &[Certificate] {
        &self.0.chain
    }

    fn why(&self, end: End) -> TransportError {
        TransportError::from_end(end, &self.0.peer)
    }

    fn prioritise(&self, send: &quinn::SendStream, kind: StreamKind) -> Result<(), TransportError> {
        let priority = match kind {
            StreamKind::Hello | StreamKind::Control => 0,
            StreamKind::Bulk => -1,
        };
        send.set_priority(priority)
            .map_err(|error| self.explain(FrameError::Io(std::io::Error::other(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::StreamKind;

    #[test]
    fn stream_kinds_are_read_from_their_byte_alone() {
        for kind in [StreamKind::Hello, StreamKind::Control, StreamKind::Bulk] {
            assert_eq!(StreamKind::decode(kind as u8), Ok(kind));
        }
        for other in (0..=255).filter(|byte| !(1..=3).contains(byte)) {
            assert_eq!(StreamKind::decode(other), Err(other));
        }
    }
}
