//! One stream as a side of the connection holds it: what it receives, and what it sends.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// The largest number of bytes that wait on a stream to be sent.
pub(super) const SEND_BUFFER: usize = 64 << 10;

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// Whether it still counts as open.
    pub(super) counted: bool,
    /// Whether it is listed among those with something to tell the peer.
    pub(super) listed: bool,
}

/// The direction towards this side.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) bytes: VecDeque<u8>,
    /// Bytes that the peer may still send.
    pub(super) granted: u32,
    /// Bytes that were read, and that the peer does not know of yet.
    pub(super) read: u32,
    /// The peer has ended it.
    pub(super) ended: bool,
    /// The end is still to be acknowledged.
    pub(super) acknowledge: bool,
    /// The peer is still to be told that nothing more is read.
    pub(super) stop: bool,
    /// Somebody may still read.
    pub(super) held: bool,
    reader: Option<Waker>,
}

/// The direction from this side.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) bytes: VecDeque<u8>,
    /// Bytes that may still be sent.
    pub(super) window: u32,
    pub(super) urgent: bool,
    /// Ended on this side: the end follows the last byte.
    pub(super) finished: bool,
    pub(super) end_sent: bool,
    /// The peer has acknowledged the end.
    pub(super) acknowledged: bool,
    /// The peer reads no more.
    pub(super) stopped: bool,
    /// Somebody may still write.
    pub(super) held: bool,
    /// Whether it is queued for its turn.
    pub(super) queued: bool,
    writer: Option<Waker>,
}

impl Stream {
    pub(super) fn new(granted: u32, window: u32, urgent: bool) -> Self {
        Self {
            receiving: Receiving {
                bytes: VecDeque::new(),
                granted,
                read: 0,
                ended: false,
                acknowledge: false,
                stop: false,
                held: true,
                reader: None,
            },
            sending: Sending {
                bytes: VecDeque::new(),
                window,
                urgent,
                finished: false,
                end_sent: false,
                acknowledged: false,
                stopped: false,
                held: true,
                queued: false,
                writer: None,
            },
            counted: true,
            listed: false,
        }
    }

    /// Whether both directions are at their end.
    pub(super) fn is_over(&self) -> bool {
        self.receiving.ended && !self.receiving.acknowledge && self.sending.acknowledged
    }

    /// Whether nobody will ask for it again.
    pub(super) fn is_forgotten(&self) -> bool {
        self.is_over() && !self.receiving.held && !self.sending.held
    }

    pub(super) fn wake(&mut self) {
        self.receiving.wake();
        self.sending.wake();
    }
}

impl Receiving {
    pub(super) fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Takes up to `limit` bytes; `Pending` where there are none and more may come. The end of the
    /// stream is no bytes.
    pub(super) fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<usize> {
        if self.bytes.is_empty() && !self.ended {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (front, back) = self.bytes.as_slices();
        let mut taken = take(front);
        if taken == front.len() {
            taken += take(back);
        }
        self.bytes.drain(..taken);
        Poll::Ready(taken)
    }
}

impl Sending {
    pub(super) fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Takes what fits of `bytes`; `Pending` where nothing does.
    pub(super) fn poll_put(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        let room = SEND_BUFFER.saturating_sub(self.bytes.len());
        if room == 0 {
            self.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let put = room.min(bytes.len());
        self.bytes.extend(&bytes[..put]);
        Poll::Ready(put)
    }

    /// Moves the first `length` bytes to `out`.
    pub(super) fn take(&mut self, length: usize, out: &mut Vec<u8>) {
        let (front, back) = self.bytes.as_slices();
        let first = length.min(front.len());
        out.extend_from_slice(&front[..first]);
        out.extend_from_slice(&back[..length - first]);
        self.bytes.drain(..length);
    }

    /// Bytes that may go out now.
    pub(super) fn ready(&self) -> usize {
        self.bytes.len().min(self.window as usize)
    }

    /// Whether the end is what comes next.
    pub(super) fn at_its_end(&self) -> bool {
        self.finished && self.bytes.is_empty() && !self.end_sent
    }
}
