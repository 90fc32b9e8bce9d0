//! What goes out next.

use super::{Next, State};
use crate::mux::frame::{FrameKind, MAX_DATA, put, put_header};

impl State {
    /// Appends what goes out next: all that is short, and one frame of data.
    pub(in crate::mux) fn fill(&mut self, out: &mut Vec<u8>) -> Next {
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
}
