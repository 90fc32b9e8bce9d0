//! Frames: a header of 9 bytes, then the payload.
//!
//! ```text
//! kind u8 | stream u32 | length u32 | payload [length]
//!
//! 1 settings  0       streams u32, stream window u32, connection window u32   first, and once
//! 2 open      stream  what for u8                          client: 1, 3, 5 ..; server: 2, 4, 6 ..
//! 3 data      stream  1 to 16384 bytes
//! 4 end       stream                                       no data follows
//! 5 ended     stream                                       the end has arrived, and all before it
//! 6 stop      stream                                       nothing more is read: end it
//! 7 window    stream  bytes u32                            so many more may be sent; 0: connection
//! 8 ping      0       number u64
//! 9 pong      0       number u64
//! 10 close    0       code u32, reason                     the connection ends
//! ```
//! Integers are little-endian.

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 9;

/// The largest payload of a data frame: what an urgent frame may wait for.
pub(crate) const MAX_DATA: usize = 16 << 10;

/// The longest reason of a close frame, in bytes.
pub(crate) const MAX_REASON: usize = 800;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Settings = 1,
    Open = 2,
    Data = 3,
    End = 4,
    Ended = 5,
    Stop = 6,
    Window = 7,
    Ping = 8,
    Pong = 9,
    Close = 10,
}

impl FrameKind {
    const ALL: [Self; 10] = [
        Self::Settings,
        Self::Open,
        Self::Data,
        Self::End,
        Self::Ended,
        Self::Stop,
        Self::Window,
        Self::Ping,
        Self::Pong,
        Self::Close,
    ];

    /// The payload lengths that the kind may have.
    fn admits(self, length: usize) -> bool {
        match self {
            Self::Settings => length == 12,
            Self::Open => length == 1,
            Self::Data => (1..=MAX_DATA).contains(&length),
            Self::End | Self::Ended | Self::Stop => length == 0,
            Self::Window => length == 4,
            Self::Ping | Self::Pong => length == 8,
            Self::Close => (4..=4 + MAX_REASON).contains(&length),
        }
    }

    /// Whether it concerns one stream, the connection, or either.
    fn concerns(self, stream: u32) -> bool {
        match self {
            Self::Open | Self::Data | Self::End | Self::Ended | Self::Stop => stream != 0,
            Self::Settings | Self::Ping | Self::Pong | Self::Close => stream == 0,
            Self::Window => true,
        }
    }
}

/// A frame's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// The stream's number; 0 for the connection.
    pub(crate) stream: u32,
    /// The payload's length in bytes, one that the kind may have.
    pub(crate) length: usize,
}

impl FrameHeader {
    /// Reads a header. Nothing where no frame has such a one.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let [kind, rest @ ..] = bytes;
        let (stream, length) = rest.split_first_chunk::<4>()?;
        let kind = *FrameKind::ALL.get(usize::from(kind.checked_sub(1)?))?;
        let stream = u32::from_le_bytes(*stream);
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        (kind.admits(length) && kind.concerns(stream)).then_some(Self {
            kind,
            stream,
            length,
        })
    }
}

/// Appends a frame, whose payload is of a length that the kind may have.
pub(crate) fn put(out: &mut Vec<u8>, kind: FrameKind, stream: u32, payload: &[u8]) {
    put_header(out, kind, stream, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a header; the payload follows.
pub(crate) fn put_header(out: &mut Vec<u8>, kind: FrameKind, stream: u32, length: usize) {
    debug_assert!(kind.admits(length) && kind.concerns(stream), "{kind:?}");
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.push(kind as u8);
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
}

/// What one side allows the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Streams that the peer may have open at a time.
    pub(crate) streams: u32,
    /// Bytes that the peer may send ahead on one stream.
    pub(crate) stream_window: u32,
    /// Bytes that the peer may send ahead on all streams together.
    pub(crate) connection_window: u32,
}

impl Settings {
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let values = [self.streams, self.stream_window, self.connection_window];
        for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = <[u8; 12]>::try_from(bytes).ok()?;
        let value = |at: usize| {
            let [a, b, c, d] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_le_bytes([a, b, c, d])
        };
        Some(Self {
            streams: value(0),
            stream_window: value(4),
            connection_window: value(8),
        })
    }
}
