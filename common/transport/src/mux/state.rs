//! The rules of a connection, pure: what a frame from the peer changes; in `outgoing.rs` what goes out
//! next, in `streams.rs` what this side's program does.

mod outgoing;
mod streams;

use std::collections::{HashMap, VecDeque};

use rustls::AlertDescription;

use super::frame::{FrameHeader, FrameKind, MAX_REASON, Settings};
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
    /// The window that the peer has: what it may still send, what waits here and what it does not know
    /// of yet come to this, and to what it is still to lose.
    room: u32,
    /// Bytes by which the window has shrunk, and that the peer is not granted again once they are read.
    excess: u32,
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
            room: own.connection_window,
            excess: 0,
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
            self.give_back(length);
        }
        Ok(())
    }

    /// Gives the peer room for so many bytes again, less what its window has shrunk by.
    fn give_back(&mut self, bytes: u32) {
        let kept = bytes.min(self.excess);
        self.excess -= kept;
        self.read += bytes - kept;
    }

    /// Makes the peer's window another one. What it was granted before stands.
    pub(super) fn set_window(&mut self, bytes: u32) {
        match bytes.checked_sub(self.room) {
            Some(more) => {
                let kept = more.min(self.excess);
                self.excess -= kept;
                self.read += more - kept;
            }
            None => self.excess += self.room - bytes,
        }
        self.room = bytes;
    }

    /// Whether so much was read that the peer should know.
    fn must_tell_room(&self) -> bool {
        self.read > 0 && self.read >= self.room.div_ceil(2)
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
