//! The two halves of a bidirectional stream, as this crate hands them out.
//!
//! Both implement tokio's byte stream traits, so frames ([`read_frame`](super::frame::read_frame),
//! [`write_frame`](super::frame::write_frame)) and bulk transfers ([`bulk`](super::bulk)) run over
//! them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::mux::{MuxReader, MuxWriter};

/// The half that this side writes. Dropping it ends the stream as [`SendStream::finish`] does.
#[derive(Debug)]
pub struct SendStream(Writer);

#[derive(Debug)]
enum Writer {
    Quic(quinn::SendStream),
    Tcp(MuxWriter),
}

impl SendStream {
    pub(crate) fn quic(inner: quinn::SendStream) -> Self {
        Self(Writer::Quic(inner))
    }

    pub(crate) fn tcp(inner: MuxWriter) -> Self {
        Self(Writer::Tcp(inner))
    }

    /// Ends the stream: the peer reads what was written, then the end.
    ///
    /// # Errors
    /// [`StreamClosed`] where the stream was ended before, on this side.
    pub fn finish(&mut self) -> Result<(), StreamClosed> {
        match &mut self.0 {
            Writer::Quic(stream) => stream.finish().map_err(|_| StreamClosed),
            Writer::Tcp(stream) => stream.finish().then_some(()).ok_or(StreamClosed),
        }
    }

    /// Waits until the peer has acknowledged all bytes of a finished stream, has stopped reading,
    /// or the connection is gone. Which of the three it was does not show.
    pub async fn acknowledged(&self) {
        match &self.0 {
            Writer::Quic(stream) => {
                let _ = stream.stopped().await;
            }
            Writer::Tcp(stream) => stream.acknowledged().await,
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Writer::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            Writer::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Writer::Quic(stream) => AsyncWrite::poll_flush(Pin::new(stream), context),
            Writer::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Writer::Quic(stream) => AsyncWrite::poll_shutdown(Pin::new(stream), context),
            Writer::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The half that this side reads. Dropping it tells the peer that the rest is not read.
#[derive(Debug)]
pub struct RecvStream(Reader);

#[derive(Debug)]
enum Reader {
    Quic(quinn::RecvStream),
    Tcp(MuxReader),
}

impl RecvStream {
    pub(crate) fn quic(inner: quinn::RecvStream) -> Self {
        Self(Reader::Quic(inner))
    }

    pub(crate) fn tcp(inner: MuxReader) -> Self {
        Self(Reader::Tcp(inner))
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Reader::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), context, buffer),
            Reader::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

/// A stream that was already ended on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream was ended before")]
pub struct StreamClosed;
