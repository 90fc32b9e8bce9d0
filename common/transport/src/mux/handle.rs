//! What the rest of the crate holds of a connection: it opens, accepts, closes; its streams.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::frame::Settings;
use super::state::{End, Next, Side, State};

/// A connection, which is closed when the last handle on it and its streams is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Mux(Arc<Held>);

/// Closes the connection when dropped.
#[derive(Debug)]
struct Held(Arc<Shared>);

/// What handles and the driver share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The driver has something to send.
    pub(super) writer: Notify,
    /// The connection has changed: streams to open or to accept, an end.
    changed: Notify,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    round_trip: Duration,
    /// The socket is closed.
    gone: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A state is whole between any two of its operations.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, then lets the driver send what came of it, and who waits look again.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let done = work(&mut self.state());
        self.writer.notify_one();
        self.changed.notify_waiters();
        done
    }

    /// Appends what goes out next.
    pub(super) fn fill(&self, out: &mut Vec<u8>) -> Next {
        let next = self.state().fill(out);
        // Ends that were acknowledged may make room for streams.
        self.changed.notify_waiters();
        next
    }

    pub(super) fn ping(&self, number: u64) {
        self.state().ping(number);
    }

    pub(super) fn set_round_trip(&self, round_trip: Duration) {
        self.progress().round_trip = round_trip;
    }

    /// The socket is closed.
    pub(super) fn set_gone(&self) {
        self.progress().gone = true;
        self.changed.notify_waiters();
    }

    /// Waits until `ready` gives something.
    async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = ready(&mut self.state()) {
                return found;
            }
            changed.await;
        }
    }

    pub(super) async fn ended(&self) -> End {
        self.wait(|state| state.end().cloned()).await
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is on its way.
        f.write_str("Mux(..)")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.with(|state| state.close(End::ClosedHere, 0, b""));
    }
}

impl Mux {
    /// One side of a connection. `is_urgent` says of what a stream is for whether it is served before
    /// the others.
    pub(crate) fn new(side: Side, settings: Settings, is_urgent: fn(u8) -> bool) -> Self {
        Self(Arc::new(Held(Arc::new(Shared {
            state: Mutex::new(State::new(side, settings, is_urgent)),
            writer: Notify::new(),
            changed: Notify::new(),
            progress: Mutex::default(),
        }))))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0.0)
    }

    /// Opens a stream. Waits while the peer allows no more.
    pub(crate) async fn open(&self, what_for: u8) -> Result<(MuxWriter, MuxReader), End> {
        let shared = &self.0.0;
        let opened = shared.wait(|state| match state.end() {
            Some(end) => Some(Err(end.clone())),
            None => state.open(what_for).map(Ok),
        });
        let id = opened.await?;
        shared.writer.notify_one();
        Ok(self.halves(id))
    }

    /// The next stream that the peer opened, and what for. Cancel-safe.
    pub(crate) async fn accept(&self) -> Result<(u8, MuxWriter, MuxReader), End> {
        let arrived = self.0.0.wait(|state| match state.end() {
            Some(end) => Some(Err(end.clone())),
            None => state.accept().map(Ok),
        });
        let (id, what_for) = arrived.await?;
        let (writer, reader) = self.halves(id);
        Ok((what_for, writer, reader))
    }

    fn halves(&self, id: u32) -> (MuxWriter, MuxReader) {
        let connection = Arc::clone(&self.0);
        (
            MuxWriter { connection, id },
            MuxReader {
                connection: Arc::clone(&self.0),
                id,
            },
        )
    }

    /// Bounds the bytes that the peer may have on the way to this side.
    pub(crate) fn set_window(&self, bytes: u32) {
        self.0.0.with(|state| state.set_window(bytes));
    }

    pub(crate) fn close(&self, code: u32, reason: &[u8]) {
        let closing = |state: &mut State| state.close(End::ClosedHere, code, reason);
        self.0.0.with(closing);
    }

    pub(crate) async fn ended(&self) -> End {
        self.0.0.ended().await
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.0.0.state().end().cloned()
    }

    /// Waits until the socket is closed.
    pub(crate) async fn gone(&self) {
        let shared = &self.0.0;
        shared.wait(|_| shared.progress().gone.then_some(())).await;
    }

    /// The time that the last ping took; zero before there was one.
    pub(crate) fn round_trip(&self) -> Duration {
        self.0.0.progress().round_trip
    }
}

/// The half of a stream that this side writes. Dropped, it is finished.
#[derive(Debug)]
pub(crate) struct MuxWriter {
    connection: Arc<Held>,
    id: u32,
}

impl MuxWriter {
    /// Ends the half; false where it was ended before.
    pub(crate) fn finish(&mut self) -> bool {
        let id = self.id;
        self.connection.0.with(|state| state.finish(id))
    }

    /// Waits until the peer has all of the finished half, reads no more, or the connection is gone.
    pub(crate) async fn acknowledged(&self) {
        let shared = &self.connection.0;
        shared
            .wait(|state| state.is_acknowledged(self.id).then_some(()))
            .await;
    }
}

impl Drop for MuxWriter {
    fn drop(&mut self) {
        self.connection.0.with(|state| state.drop_writer(self.id));
    }
}

impl AsyncWrite for MuxWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let shared = &self.connection.0;
        let written = shared.state().poll_write(self.id, context, bytes);
        if written.is_ready() {
            shared.writer.notify_one();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written goes out by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// The half of a stream that this side reads. Dropped, the peer is told that the rest is not read.
#[derive(Debug)]
pub(crate) struct MuxReader {
    connection: Arc<Held>,
    id: u32,
}

impl Drop for MuxReader {
    fn drop(&mut self) {
        self.connection.0.with(|state| state.drop_reader(self.id));
    }
}

impl AsyncRead for MuxReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.connection.0;
        let mut state = shared.state();
        let read = state.poll_read(self.id, context, |bytes| {
            let taken = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..taken]);
            taken
        });
        let news = state.has_read_news();
        drop(state);
        if news {
            shared.writer.notify_one();
        }
        read
    }
}
