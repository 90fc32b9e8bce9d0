//! The first exchange on a connection: the client says hello, the server acknowledges.
//!
//! In TLS 1.3 a client's handshake returns before the server has looked at the client's
//! certificate, so a refusal would surface in some later, unrelated read. The hello makes it
//! surface here, as [`TransportError::CertificateRefused`]. What the two payloads say (program
//! version, run) is the caller's; this module only bounds their size.

use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, StreamKind};
use super::error::{TransportError, printable};
use super::frame::{FrameError, read_frame, write_frame};
use super::stream::SendStream;

/// The longest hello or answer, in bytes.
pub const MAX_HELLO_BYTES: usize = 4096;

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;

/// The client's half: sends `payload` and returns the server's answer.
///
/// # Errors
/// [`TransportError::CertificateRefused`], [`TransportError::Refused`] with the server's words,
/// [`TransportError::AnswerTimeout`], or whatever else ended the connection.
pub async fn hello(
    connection: &Connection,
    payload: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, TransportError> {
    let exchange = async {
        let (mut send, mut recv) = connection.open(StreamKind::Hello).await?;
        write_frame(&mut send, &tagged(ACCEPTED, payload)).await?;
        // The server needs no more; should the stream be gone already, the read says why.
        let _ = send.finish();
        Ok(read_frame(&mut recv, MAX_HELLO_BYTES + 1).await?)
    };
    let answer = timeout(limit, exchange)
        .await
        .map_err(|_| TransportError::AnswerTimeout {
            awaited: "answer to the hello",
            after: limit,
        })?
        .map_err(|error| explain(connection, error))?;
    match decode_hello(&answer)? {
        Hello::Accepted(payload) => Ok(payload.to_vec()),
        Hello::Refused(reason) => Err(TransportError::Refused {
            reason: printable(reason),
        }),
    }
}

/// The server's half: waits for the hello, which must be the connection's first stream.
///
/// # Errors
/// [`TransportError`].
pub async fn receive_hello(
    connection: &Connection,
    limit: Duration,
) -> Result<(Vec<u8>, HelloReply), TransportError> {
    let exchange = async {
        let (kind, send, mut recv) = connection.accept().await?;
        if kind != StreamKind::Hello {
            return Err(TransportError::Unexpected {
                expected: "a hello",
                got: format!("{kind:?} stream"),
            });
        }
        Ok((read_frame(&mut recv, MAX_HELLO_BYTES + 1).await?, send))
    };
    let (message, send) = timeout(limit, exchange)
        .await
        .map_err(|_| TransportError::AnswerTimeout {
            awaited: "hello",
            after: limit,
        })?
        .map_err(|error| explain(connection, error))?;
    match decode_hello(&message)? {
        Hello::Accepted(payload) => Ok((
            payload.to_vec(),
            HelloReply {
                send,
                connection: connection.clone(),
                limit,
            },
        )),
        Hello::Refused(_) => Err(TransportError::Unexpected {
            expected: "a hello",
            got: "a refusal".into(),
        }),
    }
}

/// The server's answer, yet to be given.
#[derive(Debug)]
pub struct HelloReply {
    send: SendStream,
    connection: Connection,
    limit: Duration,
}

impl HelloReply {
    /// Acknowledges, with at most [`MAX_HELLO_BYTES`] of the caller's own.
    ///
    /// # Errors
    /// [`TransportError`] when the connection has ended.
    pub async fn accept(self, payload: &[u8]) -> Result<(), TransportError> {
        self.answer(ACCEPTED, payload).await
    }

    /// Refuses, and waits until the client has the reason, for no longer than it had for its
    /// hello; closing the connection is left to the caller.
    ///
    /// # Errors
    /// [`TransportError`] when the connection has ended.
    pub async fn refuse(self, reason: &str) -> Result<(), TransportError> {
        self.answer(REFUSED, printable(reason.as_bytes()).as_bytes())
            .await
    }

    async fn answer(mut self, tag: u8, payload: &[u8]) -> Result<(), TransportError> {
        if payload.len() > MAX_HELLO_BYTES {
            return Err(TransportError::Frame(FrameError::Oversized {
                got: payload.len() as u64,
                limit: MAX_HELLO_BYTES as u64,
            }));
        }
        write_frame(&mut self.send, &tagged(tag, payload))
            .await
            .map_err(|error| self.connection.explain(error))?;
        let _ = self.send.finish();
        if tag == REFUSED {
            // Resolves once everything is acknowledged, or the connection is gone.
            let _ = timeout(self.limit, self.send.acknowledged()).await;
        }
        Ok(())
    }
}

/// A decoded hello or answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello<'a> {
    /// The payload of a hello, or of an acknowledgement.
    Accepted(&'a [u8]),
    /// The words of a refusal, as the peer sent them.
    Refused(&'a [u8]),
}

/// Decodes a hello message: a tag byte and the rest.
///
/// # Errors
/// [`TransportError::Unexpected`] for another tag, or none.
pub fn decode_hello(message: &[u8]) -> Result<Hello<'_>, TransportError> {
    match message {
        [ACCEPTED, payload @ ..] => Ok(Hello::Accepted(payload)),
        [REFUSED, reason @ ..] => Ok(Hello::Refused(reason)),
        other => Err(TransportError::Unexpected {
            expected: "a hello message",
            got: match other.first() {
                Some(tag) => format!("tag {tag}"),
                None => "an empty message".into(),
            },
        }),
    }
}

fn tagged(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len() + 1);
    message.push(tag);
    message.extend_from_slice(payload);
    message
}

fn explain(connection: &Connection, error: TransportError) -> TransportError {
    match error {
        TransportError::Frame(error) => connection.explain(error),
        error => error,
    }
}
