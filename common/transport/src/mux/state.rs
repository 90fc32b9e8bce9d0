//! The rules of a connection, pure: what a frame from the peer changes, what goes out next.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::task::{Context, Poll};

use rustls::AlertDescription;

use super::frame::{FrameHeader, FrameKind, MAX_DATA, MAX_REASON, Settings, put, put_header};
use super::half::Stream;

/// Which numbers a side gives its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Odd ones.
    Client,
    /// Even ones.
    Server,
}

impl Side {
    fn first(self) -> u32 {
        match self {
            Self::Client => 1,
            Self::Server => 2,
        }
    }

    fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer closed it.
    Closed {
        /// Its code.
        code: u32,
        /// Its words, as they came.
        reason: Vec<u8>,
    },
    /// This side closed it.
    ClosedHere,
    /// The peer broke the rules.
    Violation(&'static str),
    /// The peer was silent for too long.
    Silent,
    /// The peer's TLS refuses this side.
    Alert(AlertDescription),
    /// The socket or TLS failed.
    Broken(String),
}

/// What [`State::fill`] leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing for now.
    Wait,
    /// More may follow at once.
    More,
    /// What was given out was the last.
    Over,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct State {
    own: Settings,
    /// What the peer allows, once it has said so.
    peer: Option<Settings>,
    settings_sent: bool,
    streams: HashMap<u32, Stream>,
    next_own: u32,
    next_peer: u32,
    /// Open streams of either side's.
    open_own: u32,
    open_peer: u32,
    /// Streams of this side's that the peer does not know of yet.
    opening: VecDeque<(u32, u8)>,
    /// Streams of the peer's that nobody has accepted yet.
    arrived: VecDeque<(u32, u8)>,
    /// Streams with something to tell the peer, other than data.
    telling: VecDeque<u32>,
    /// Streams with data or their end to send, in the order of their turns.
    urgent: VecDeque<u32>,
    others: VecDeque<u32>,
    /// Bytes that may still be sent on all streams together.
    window: u32,
    /// Bytes that the peer may still send.
    granted: u32,
    /// Bytes that were read, and that the peer does not know of yet.
    read: u32,
    ping: Option<u64>,
    pong: Option<u64>,
    ponged: Option<u64>,
    end: Option<End>,
    /// The close frame, until it has gone out.
    closing: Option<(u32, Vec<u8>)>,
    /// The kinds of streams that are urgent.
    is_urgent: fn(u8) -> bool,
}

impl State {
    pub(super) fn new(side: Side, own: Settings, is_urgent: fn(u8) -> bool) -> Self {
        Self {
            own,
            peer: None,
            settings_sent: false,
            streams: HashMap::new(),
            next_own: side.first(),
            next_peer: side.peer().first(),
            open_own: 0,
            open_peer: 0,
            opening: VecDeque::new(),
            arrived: VecDeque::new(),
            telling: VecDeque::new(),
            urgent: VecDeque::new(),
            others: VecDeque::new(),
            window: 0,
            granted: own.connection_window,
            read: 0,
            ping: None,
            pong: None,
            ponged: None,
            end: None,
            closing: None,
            is_urgent,
        }
    }

    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Ends the connection; the first reason stands.
    pub(super) fn end_with(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.streams.values_mut().for_each(Stream::wake);
        }
    }

    /// Ends the connection, and tells the peer why.
    pub(super) fn close(&mut self, end: End, code: u32, reason: &[u8]) {
        if self.end.is_none() {
            let reason = &reason[..reason.len().min(MAX_REASON)];
            self.closing = Some((code, reason.to_vec()));
            self.end_with(end);
        }
    }

    /// Opens a stream; nothing while the peer allows no more.
    pub(super) fn open(&mut self, what_for: u8) -> Option<u32> {
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
    pub(super) fn accept(&mut self) -> Option<(u32, u8)> {
        self.arrived.pop_front()
    }

    /// The number of the last answered ping, once.
    pub(super) fn take_ponged(&mut self) -> Option<u64> {
        self.ponged.take()
    }

    pub(super) fn ping(&mut self, number: u64) {
        self.ping = Some(number);
    }

    /// Takes a frame from the peer.
    ///
    /// # Errors
    /// What the peer may not do.
    pub(super) fn receive(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), &'static str> {
        let id = header.stream;
        if header.kind == FrameKind::Close {
            let (code, reason) = payload.split_first_chunk().ok_or("a short close frame")?;
            self.end_with(End::Closed {
                code: u32::from_le_bytes(*code),
                reason: reason.to_vec(),
            });
            return Ok(());
        }
        if header.kind == FrameKind::Settings {
            if self.peer.is_some() {
                return Err("settings twice");
            }
            let peer = Settings::decode(payload).ok_or("malformed settings")?;
            self.window = peer.connection_window;
            self.peer = Some(peer);
            return Ok(());
        }
        let peer = self.peer.ok_or("a frame before the settings")?;
        let number = || payload.try_into().map(u64::from_le_bytes).unwrap_or(0);
        match header.kind {
            FrameKind::Ping => {
                self.pong = Some(number());
                return Ok(());
            }
            FrameKind::Pong => {
                self.ponged = Some(number());
                return Ok(());
            }
            FrameKind::Open => return self.opened(id, payload, peer),
            FrameKind::Window if id == 0 => {
                self.window = widened(self.window, payload)?;
                return Ok(());
            }
            _ => {}
        }
        let stream = self
            .streams
            .get_mut(&id)
            .ok_or("a frame of a stream that is not open")?;
        match header.kind {
            FrameKind::Data => return self.data(id, payload),
            FrameKind::End => {
                if stream.receiving.ended {
                    return Err("a stream ended twice");
                }
                stream.receiving.ended = true;
                stream.receiving.acknowledge = true;
                stream.receiving.stop = false;
                stream.receiving.wake();
                self.tell(id);
            }
            FrameKind::Ended => {
                if !stream.sending.end_sent || stream.sending.acknowledged {
                    return Err("an end acknowledged that was not sent");
                }
                stream.sending.acknowledged = true;
                self.settle(id);
            }
            FrameKind::Stop => {
                let sending = &mut stream.sending;
                sending.stopped = true;
                sending.finished = true;
                sending.bytes.clear();
                sending.wake();
                self.queue(id);
            }
            FrameKind::Window => {
                stream.sending.window = widened(stream.sending.window, payload)?;
                self.queue(id);
            }
            _ => return Err("a frame out of place"),
        }
        Ok(())
    }

    fn opened(&mut self, id: u32, payload: &[u8], peer: Settings) -> Result<(), &'static str> {
        if id != self.next_peer {
            return Err("a stream opened out of order");
        }
        if self.open_peer >= self.own.streams {
            return Err("more streams open than are allowed");
        }
        let what_for = payload.first().copied().unwrap_or_default();
        self.next_peer = id.checked_add(2).ok_or("no stream numbers are left")?;
        self.open_peer += 1;
        let urgent = (self.is_urgent)(what_for);
        let stream = Stream::new(self.own.stream_window, peer.stream_window, urgent);
        self.streams.insert(id, stream);
        self.arrived.push_back((id, what_for));
        Ok(())
    }

    fn data(&mut self, id: u32, payload: &[u8]) -> Result<(), &'static str> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.granted = self
            .granted
            .checked_sub(length)
            .ok_or("more data than the connection's window")?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let receiving = &mut stream.receiving;
        if receiving.ended {
            return Err("data after the end");
        }
        receiving.granted = receiving
            .granted
            .checked_sub(length)
            .ok_or("more data than the stream's window")?;
        if receiving.held {
            receiving.bytes.extend(payload);
            receiving.wake();
        } else {
            // Nobody reads it: the connection has its room back.
            self.read += length;
        }
        Ok(())
    }

    /// Appends what goes out next: all that is short, and one frame of data.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>) -> Next {
        if !self.settings_sent {
            self.settings_sent = true;
            put(out, FrameKind::Settings, 0, &self.own.encode());
        }
        if let Some((code, reason)) = self.closing.take() {
            put_header(out, FrameKind::Close, 0, 4 + reason.len());
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(&reason);
        }
        if self.end.is_some() {
            return Next::Over;
        }
        for (kind, number) in [
            (FrameKind::Ping, self.ping.take()),
            (FrameKind::Pong, self.pong.take()),
        ] {
            if let Some(number) = number {
                put(out, kind, 0, &number.to_le_bytes());
            }
        }
        if self.must_tell_room() {
            put(out, FrameKind::Window, 0, &self.read.to_le_bytes());
            self.granted += std::mem::take(&mut self.read);
        }
        while let Some((id, what_for)) = self.opening.pop_front() {
            put(out, FrameKind::Open, id, &[what_for]);
        }
        while let Some(id) = self.telling.pop_front() {
            self.fill_told(id, out);
        }
        self.fill_data(out);
        match out.is_empty() {
            true => Next::Wait,
            false => Next::More,
        }
    }

    fn fill_told(&mut self, id: u32, out: &mut Vec<u8>) {
        let half = self.own.stream_window.div_ceil(2);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.listed = false;
        let receiving = &mut stream.receiving;
        if std::mem::take(&mut receiving.stop) {
            put(out, FrameKind::Stop, id, &[]);
        }
        if receiving.held && !receiving.ended && receiving.read > 0 && receiving.read >= half {
            put(out, FrameKind::Window, id, &receiving.read.to_le_bytes());
            receiving.granted += std::mem::take(&mut receiving.read);
        }
        if std::mem::take(&mut receiving.acknowledge) {
            put(out, FrameKind::Ended, id, &[]);
            self.settle(id);
        }
    }

    /// One frame of data, or ends of streams up to one.
    fn fill_data(&mut self, out: &mut Vec<u8>) {
        for urgent in [true, false] {
            let turns = if urgent {
                self.urgent.len()
            } else {
                self.others.len()
            };
            for _ in 0..turns {
                let queue = if urgent {
                    &mut self.urgent
                } else {
                    &mut self.others
                };
                let Some(id) = queue.pop_front() else { break };
                let Some(stream) = self.streams.get_mut(&id) else {
                    continue;
                };
                let sending = &mut stream.sending;
                let length = sending.ready().min(self.window as usize).min(MAX_DATA);
                if length > 0 {
                    put_header(out, FrameKind::Data, id, length);
                    sending.take(length, out);
                    // Both are at least `length`, which is at most 16 KiB.
                    sending.window -= length as u32;
                    self.window -= length as u32;
                    sending.wake();
                }
                if sending.at_its_end() {
                    put(out, FrameKind::End, id, &[]);
                    sending.end_sent = true;
                }
                // Out of the connection's window it keeps its turn; out of its own it waits for more.
                sending.queued = sending.ready() > 0;
                if sending.queued {
                    queue.push_back(id);
                }
                if length > 0 {
                    return;
                }
            }
        }
    }

    /// Reads into `take`, which is given slices and says how much of each it took.
    pub(super) fn poll_read(
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
        self.read += taken as u32;
        let told = !receiving.ended && receiving.read >= self.own.stream_window.div_ceil(2);
        if told {
            self.tell(id);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether so much was read that the peer should know.
    fn must_tell_room(&self) -> bool {
        self.read > 0 && self.read >= self.own.connection_window.div_ceil(2)
    }

    /// Whether the peer is to be told of something that was read.
    pub(super) fn has_read_news(&self) -> bool {
        self.must_tell_room() || !self.telling.is_empty()
    }

    /// Takes what fits of `bytes`.
    pub(super) fn poll_write(
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
    pub(super) fn finish(&mut self, id: u32) -> bool {
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
    pub(super) fn is_acknowledged(&self, id: u32) -> bool {
        let of = |stream: &Stream| stream.sending.acknowledged || stream.sending.stopped;
        self.end.is_some() || self.streams.get(&id).is_none_or(of)
    }

    pub(super) fn drop_writer(&mut self, id: u32) {
        self.finish(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sending.held = false;
        }
        self.settle(id);
    }

    pub(super) fn drop_reader(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let receiving = &mut stream.receiving;
            receiving.held = false;
            self.read += receiving.bytes.len() as u32;
            receiving.bytes = VecDeque::new();
            if !receiving.ended {
                receiving.stop = true;
                self.tell(id);
            }
        }
        self.settle(id);
    }

    /// Counts a stream that is over no longer, and forgets one that nobody holds.
    fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_over() && std::mem::take(&mut stream.counted) {
            let own = id % 2 == self.next_own % 2;
            let open = if own {
                &mut self.open_own
            } else {
                &mut self.open_peer
            };
            *open -= 1;
        }
        if stream.is_forgotten() {
            self.streams.remove(&id);
        }
    }

    fn tell(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.listed, true)
        {
            self.telling.push_back(id);
        }
    }

    fn queue(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let sending = &mut stream.sending;
        if !sending.queued && (sending.ready() > 0 || sending.at_its_end()) {
            sending.queued = true;
            match sending.urgent {
                true => self.urgent.push_back(id),
                false => self.others.push_back(id),
            }
        }
    }
}

/// A window with what the peer adds to it.
fn widened(window: u32, payload: &[u8]) -> Result<u32, &'static str> {
    let more = payload.try_into().map(u32::from_le_bytes).unwrap_or(0);
    window.checked_add(more).ok_or("a window beyond all limits")
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has ended")
}
