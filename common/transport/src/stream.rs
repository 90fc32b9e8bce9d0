//! The two halves of a bidirectional stream, as this crate hands them out.
//!
//! Both implement tokio's byte stream traits, so frames ([`read_frame`](super::frame::read_frame),
//! [`write_frame`](super::frame::write_frame)) and bulk transfers ([`bulk`](super::bulk)) run over
//! them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The half that this side writes. Dropping it ends the stream as [`SendStream::finish`] does.
#[derive(Debug)]
pub struct SendStream(quinn::SendStream);

impl SendStream {
    pub(crate) fn new(inner: quinn::SendStream) -> Self {
        Self(inner)
    }

    /// Ends the stream: the peer reads what was written, then the end.
    ///
    /// # Errors
    /// [`StreamClosed`] where the stream was ended before, on this side.
    pub fn finish(&mut self) -> Result<(), StreamClosed> {
        self.0.finish().map_err(|_| StreamClosed)
    }

    /// Waits until the peer has acknowledged all bytes of a finished stream, has stopped reading,
    /// or the connection is gone. Which of the three it was does not show.
    pub async fn acknowledged(&self) {
        let _ = self.0.stopped().await;
    }

    pub(crate) fn set_priority(&self, priority: i32) -> Result<(), StreamClosed> {
        self.0.set_priority(priority).map_err(|_| StreamClosed)
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.0), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.0), context)
    }
}

/// The half that this side reads. Dropping it tells the peer that the rest is not read.
#[derive(Debug)]
pub struct RecvStream(quinn::RecvStream);

impl RecvStream {
    pub(crate) fn new(inner: quinn::RecvStream) -> Self {
        Self(inner)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), context, buffer)
    }
}

/// A stream that was already ended on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream was ended before")]
pub struct StreamClosed;
