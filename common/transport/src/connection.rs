//! One connection between a member and the aggregator: tagged streams, counters, closing.
//!
//! Every stream is bidirectional and begins with one byte that says what it is for. That byte also
//! makes the stream visible to the peer at once (QUIC announces a stream with its first data).
//! Bulk streams yield to all others, so a control message never waits behind an upload.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;

pub use super::close::CloseCode;

use super::error::{PeerContext, TransportError, printable};
use super::frame::{FrameError, Stop, read_full};
use super::stream::{RecvStream, SendStream};

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

/// Bytes of UDP payload, both ways: handshake, headers, acknowledgements and retransmissions
/// included.
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
    quic: quinn::Connection,
    /// A client's own endpoint, which lives as long as its one connection.
    endpoint: Option<quinn::Endpoint>,
    peer: PeerContext,
    /// A server's count of open connections.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    pub(super) fn new(
        quic: quinn::Connection,
        endpoint: Option<quinn::Endpoint>,
        peer: PeerContext,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self(Arc::new(Inner {
            quic,
            endpoint,
            peer,
            _permit: permit,
        }))
    }

    /// The peer's UDP address at present.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.quic.remote_address()
    }

    /// UDP bytes so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.0.quic.stats();
        Traffic {
            sent: stats.udp_tx.bytes,
            received: stats.udp_rx.bytes,
        }
    }

    /// The round-trip time, as estimated at present.
    pub fn round_trip(&self) -> Duration {
        self.0.quic.rtt()
    }

    /// Opens a stream and says what it is for. Waits while the peer allows no more streams.
    ///
    /// # Errors
    /// [`TransportError`] when the connection has ended.
    pub async fn open(&self, kind: StreamKind) -> Result<(SendStream, RecvStream), TransportError> {
        let (send, recv) = self
            .0
            .quic
            .open_bi()
            .await
            .map_err(|error| TransportError::from_connection(error, &self.0.peer))?;
        let (mut send, recv) = (SendStream::new(send), RecvStream::new(recv));
        self.prioritise(&send, kind)?;
        send.write_all(&[kind as u8])
            .await
            .map_err(|error| self.explain(FrameError::Io(error)))?;
        send.flush()
            .await
            .map_err(|error| self.explain(FrameError::Io(error)))?;
        Ok((send, recv))
    }

    /// The next stream that the peer opened. Cancel-safe until a stream arrives; a peer that opens
    /// one and never sends its first byte holds up this call and no one else's, so give it a
    /// time limit.
    ///
    /// # Errors
    /// [`TransportError::Unexpected`] for an unknown kind; the stream is dropped and the connection
    /// stays. Others when the connection has ended.
    pub async fn accept(&self) -> Result<(StreamKind, SendStream, RecvStream), TransportError> {
        let (send, recv) = self
            .0
            .quic
            .accept_bi()
            .await
            .map_err(|error| TransportError::from_connection(error, &self.0.peer))?;
        let (send, mut recv) = (SendStream::new(send), RecvStream::new(recv));
        let mut first = [0];
        read_full(&mut recv, &mut first)
            .await
            .map_err(|stop| match stop {
                Stop::Ended(got) => TransportError::Frame(FrameError::TruncatedHeader { got }),
                Stop::Failed(error) => self.explain(FrameError::Io(error)),
            })?;
        let kind = StreamKind::decode(first[0]).map_err(|byte| TransportError::Unexpected {
            expected: "a hello, control or bulk stream",
            got: format!("stream kind {byte}"),
        })?;
        self.prioritise(&send, kind)?;
        Ok((kind, send, recv))
    }

    /// The reason behind a failed read or write on one of this connection's streams: the
    /// connection's own end if it has ended, the frame's error otherwise.
    pub fn explain(&self, error: FrameError) -> TransportError {
        match self.0.quic.close_reason() {
            Some(reason) => TransportError::from_connection(reason, &self.0.peer),
            None => TransportError::Frame(error),
        }
    }

    /// Waits for the connection to end, and says why.
    pub async fn closed(&self) -> TransportError {
        TransportError::from_connection(self.0.quic.closed().await, &self.0.peer)
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<TransportError> {
        let reason = self.0.quic.close_reason()?;
        Some(TransportError::from_connection(reason, &self.0.peer))
    }

    /// Closes the connection at once; what has not been acknowledged is lost. The peer is shown the
    /// reason, cut at 200 characters.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.0.quic.close(
            VarInt::from_u32(code as u32),
            printable(reason.as_bytes()).as_bytes(),
        );
    }

    /// Closes a client's connection and waits until the peer has been told.
    pub async fn finish(&self) {
        self.close(CloseCode::Done, "done");
        if let Some(endpoint) = &self.0.endpoint {
            endpoint.wait_idle().await;
        }
    }

    pub(super) fn quic(&self) -> &quinn::Connection {
        &self.0.quic
    }

    fn prioritise(&self, send: &SendStream, kind: StreamKind) -> Result<(), TransportError> {
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
