//! What this side's program does with streams.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use super::State;
use crate::mux::half::Stream;

impl State {
    /// Opens a stream; nothing while the peer allows no more.
    pub(in crate::mux) fn open(&mut self, what_for: u8) -> Option<u32> {
        let peer = self.peer?;
        if self.open_own >= peer.streams {
            return None;
        }
        let id = self.next_own;
        self.next_own = id.checked_add(2)?;
        self.open_own += 1;
        let urgent = (self.is_urgent)(what_for);
        let stream = Stream::new(self.own.stream_window, peer.stream_window, urgent);
        self.streams.insert(id, stream);
        self.opening.push_back((id, what_for));
        Some(id)
    }

    /// The next stream that the peer opened, and what for.
    pub(in crate::mux) fn accept(&mut self) -> Option<(u32, u8)> {
        self.arrived.pop_front()
    }

    /// Reads into `take`, which is given slices and says how much of each it took.
    pub(in crate::mux) fn poll_read(
        &mut self,
        id: u32,
        context: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        let ended = self.end.is_some();
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Ok(()));
        };
        let receiving = &mut stream.receiving;
        if receiving.bytes.is_empty() && !receiving.ended && ended {
            return Poll::Ready(Err(gone()));
        }
        let Poll::Ready(taken) = receiving.poll_take(context, take) else {
            return Poll::Pending;
        };
        // What is buffered is at most a window.
        receiving.read += taken as u32;
        let told = !receiving.ended && receiving.read >= self.own.stream_window.div_ceil(2);
        self.give_back(taken as u32);
        if told {
            self.tell(id);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the peer is to be told of something that was read.
    pub(in crate::mux) fn has_read_news(&self) -> bool {
        self.must_tell_room() || !self.telling.is_empty()
    }

    /// Takes what fits of `bytes`.
    pub(in crate::mux) fn poll_write(
        &mut self,
        id: u32,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let ended = self.end.is_some();
        let Some(stream) = self.streams.get_mut(&id).filter(|_| !ended) else {
            return Poll::Ready(Err(gone()));
        };
        if stream.sending.stopped {
            let stopped = io::Error::new(io::ErrorKind::ConnectionReset, "the peer reads no more");
            return Poll::Ready(Err(stopped));
        }
        if stream.sending.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let put = stream.sending.poll_put(context, bytes);
        self.queue(id);
        put.map(Ok)
    }

    /// Ends this side's direction; false where it was ended before.
    pub(in crate::mux) fn finish(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        // One that the peer stopped may be ended once, as if it had not.
        let first = !stream.sending.finished || stream.sending.stopped;
        stream.sending.finished = true;
        self.queue(id);
        first
    }

    /// Whether the peer has all of a finished direction, or nothing more can reach it.
    pub(in crate::mux) fn is_acknowledged(&self, id: u32) -> bool {
        let of = |stream: &Stream| stream.sending.acknowledged || stream.sending.stopped;
        self.end.is_some() || self.streams.get(&id).is_none_or(of)
    }

    pub(in crate::mux) fn drop_writer(&mut self, id: u32) {
        self.finish(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sending.held = false;
        }
        self.settle(id);
    }

    pub(in crate::mux) fn drop_reader(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let receiving = &mut stream.receiving;
            receiving.held = false;
            let unread = receiving.bytes.len() as u32;
            receiving.bytes = VecDeque::new();
            receiving.stop = !receiving.ended;
            let told = receiving.stop;
            self.give_back(unread);
            if told {
                self.tell(id);
            }
        }
        self.settle(id);
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has ended")
}
