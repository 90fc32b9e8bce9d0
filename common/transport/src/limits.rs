//! The limits of an endpoint.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// The window of a server's connection on which nothing is transferred, in each direction: control
/// messages alone. [`WindowBudget`](super::WindowBudget) widens it for a transfer.
pub(super) const REST_WINDOW: u32 = 128 << 10;

/// Limits of an endpoint. The defaults are a member's; [`Limits::for_server`] has the aggregator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that a server keeps open at a time.
    pub connections: usize,
    /// Handshakes that a server does at a time, over QUIC and over TCP each. The oldest makes room for
    /// one more.
    pub handshakes: usize,
    /// TCP connections that have not sent a byte yet. The oldest makes room for one more.
    pub silent: usize,
    /// Streams that the peer may have open at a time.
    pub streams: u32,
    /// Silence after which a connection is taken for dead. Keep-alives go out at a third of it.
    pub idle: Duration,
    /// Time within which a handshake must be complete.
    pub handshake: Duration,
    /// Bytes in flight that are buffered for one stream.
    pub stream_window: u32,
    /// Bytes in flight that are buffered for one connection.
    pub connection_window: u32,
}

impl Default for Limits {
    /// For a member, on a link of up to 1 Gbit/s at 60 ms.
    fn default() -> Self {
        Self {
            connections: 512,
            handshakes: 256,
            silent: 256,
            streams: 8,
            idle: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            stream_window: 4 << 20,
            connection_window: 8 << 20,
        }
    }
}

impl Limits {
    /// For a server with up to `connections` of them: what each may buffer is small, and grows for the
    /// time of a transfer.
    pub fn for_server(connections: usize) -> Self {
        Self {
            connections,
            connection_window: REST_WINDOW,
            ..Self::default()
        }
    }

    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        // The longest that QUIC can state is 2^62 ms; anything above means the same.
        let idle = IdleTimeout::try_from(self.idle)
            .unwrap_or_else(|_| IdleTimeout::from(VarInt::from_u32(u32::MAX)));
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.idle / 3))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(u64::from(self.connection_window));
        Arc::new(transport)
    }
}
