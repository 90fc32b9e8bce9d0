//! The transfer itself, over any pair of byte streams.
//!
//! ```text
//! sender                       receiver
//!   manifest            ->     checks it against what is expected; re-reads what it holds
//!                       <-     continue from chunk k
//!   chunk k, k+1, ...   ->     verifies each before it is kept
//!                       <-     done: verified as a whole, and durable
//! ```
//! At any time the receiver may refuse instead, and says why; what it holds by then stays, and the
//! next transfer resumes from there. Either side holds one chunk in memory. QUIC's flow control
//! holds back a sender that is faster than the receiver's disk.
//!
//! Neither side limits the time: a peer that keeps the connection alive and sends nothing is the
//! caller's to give up on, with the round's deadline.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::error::BulkError;
use super::manifest::{MAX_MANIFEST_BYTES, MIN_CHUNK, Manifest};
use super::reply::{MAX_REPLY_BYTES, Refusal, Reply};
use super::storage::{ByteSource, ChunkSink};
use crate::frame::{FrameError, HEADER_BYTES, encode_header, read_frame, write_frame};
use fedlora_common::digest::Digest;

/// Bytes of a chunk's index within its frame.
const INDEX_BYTES: usize = 4;

/// The object that a receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The object's length in bytes.
    pub length: ExpectedLength,
    /// The object's digest, where something signed has already told it.
    pub digest: Option<Digest>,
}

/// A bound on an object's length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedLength {
    /// This and no other: a masked update, whose layout gives its length.
    Exactly(u64),
    /// Up to this: an adapter, whose header's length varies.
    AtMost(u64),
}

impl ExpectedLength {
    fn limit(self) -> u64 {
        match self {
            Self::Exactly(length) | Self::AtMost(length) => length,
        }
    }

    fn admits(self, length: u64) -> bool {
        match self {
            Self::Exactly(expected) => length == expected,
            Self::AtMost(limit) => length <= limit,
        }
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the object that the receiver holds, or the sender has written.
    pub done: u64,
    /// The object's length in bytes.
    pub total: u64,
}

/// A transfer that ended well, in bytes, as either side counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// BLAKE3 of the whole object.
    pub digest: Digest,
    /// The object's length.
    pub total: u64,
    /// Bytes of the object that were held before and not sent again.
    pub resumed: u64,
    /// Bytes on the stream from sender to receiver: manifest, chunks, framing.
    pub forward: u64,
    /// Bytes on the stream from receiver to sender.
    pub backward: u64,
}

/// Sends an object. Returns once the receiver has said that all of it is durable.
///
/// # Errors
/// [`BulkError::Refused`] with the receiver's reason; [`BulkError::Source`]; [`BulkError::Frame`]
/// when the stream breaks, after which the same call on a new stream resumes.
pub async fn send<R, W, S>(
    reader: &mut R,
    writer: &mut W,
    manifest: &Manifest,
    source: &mut S,
    mut progress: impl FnMut(Progress),
) -> Result<Transferred, BulkError>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
    S: ByteSource,
{
    let total = manifest.total();
    let encoded = manifest.encode();
    let mut forward = framed(encoded.len());
    if let Err(error) = write_frame(writer, &encoded).await {
        return Err(refusal_behind(error, read_reply(reader)).await);
    }
    let (reply, mut backward) = read_reply(reader).await?;
    let first = match reply {
        Reply::Continue(first) if first <= manifest.chunk_count() => first,
        Reply::Refused(refusal) => return Err(BulkError::Refused(refusal)),
        other => return Err(unexpected("the chunk to continue from", other)),
    };
    let resumed = manifest.bytes_in(first);
    progress(Progress {
        done: resumed,
        total,
    });

    // The verdict may come at any time; a refusal must not wait behind chunks that nobody reads.
    let mut verdict = std::pin::pin!(read_reply(reader));
    let mut frame = Vec::new();
    for index in first..manifest.chunk_count() {
        let length = manifest.chunk_length(index);
        frame.clear();
        frame.extend_from_slice(&encode_header(INDEX_BYTES + length)?);
        frame.extend_from_slice(&index.to_le_bytes());
        frame.resize(HEADER_BYTES + INDEX_BYTES + length, 0);
        source
            .read_at(
                manifest.bytes_in(index),
                &mut frame[HEADER_BYTES + INDEX_BYTES..],
            )
            .await
            .map_err(BulkError::Source)?;
        let written = tokio::select! {
            biased;
            early = &mut verdict => return Err(match early?.0 {
                Reply::Refused(refusal) => BulkError::Refused(refusal),
                other => unexpected("nothing before the last chunk", other),
            }),
            written = writer.write_all(&frame) => written,
        };
        if let Err(error) = written {
            return Err(refusal_behind(error.into(), verdict).await);
        }
        forward += frame.len() as u64;
        progress(Progress {
            done: manifest.bytes_in(index + 1),
            total,
        });
    }
    if let Err(error) = writer.flush().await {
        return Err(refusal_behind(error.into(), verdict).await);
    }
    let (reply, bytes) = verdict.await?;
    backward += bytes;
    match reply {
        Reply::Done(digest) if digest == manifest.digest() => Ok(Transferred {
            digest,
            total,
            resumed,
            forward,
            backward,
        }),
        Reply::Refused(refusal) => Err(BulkError::Refused(refusal)),
        other => Err(unexpected("the acknowledgement", other)),
    }
}

/// Receives an object into `sink`. Returns once all of it is verified, durable and acknowledged.
///
/// # Errors
/// [`BulkError::Rejected`] for what the sender did wrong; [`BulkError::Storage`];
/// [`BulkError::Frame`] when the stream breaks. Verified chunks stay in the sink, except after
/// [`Refusal::Digest`]: then the manifest lied, and nothing is kept.
pub async fn receive<R, W, S>(
    reader: &mut R,
    writer: &mut W,
    expected: &Expected,
    sink: &mut S,
    mut progress: impl FnMut(Progress),
) -> Result<Transferred, BulkError>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
    S: ChunkSink,
{
    let (manifest, mut forward) = match read_manifest(reader, expected).await {
        Err(BulkError::Rejected(refusal)) => return Err(reject(writer, refusal).await),
        // The sender hears that it is the manifest, the caller what of it.
        Err(error @ BulkError::Manifest(_)) => {
            reject(writer, Refusal::Manifest).await;
            return Err(error);
        }
        other => other?,
    };
    let total = manifest.total();
    let mut held = match take_up(&manifest, sink).await {
        Ok(held) => held,
        Err(error) => return Err(store_failed(writer, 0, error).await),
    };
    let resumed = manifest.bytes_in(held.chunks);
    let resume = Reply::Continue(held.chunks).encode();
    write_frame(writer, &resume).await?;
    let mut backward = framed(resume.len());
    progress(Progress {
        done: resumed,
        total,
    });

    while held.chunks < manifest.chunk_count() {
        let index = held.chunks;
        let wrong = Refusal::Chunk(u64::from(index));
        let limit = INDEX_BYTES + manifest.chunk_length(index);
        let frame = match read_frame(reader, limit).await {
            Ok(frame) => frame,
            Err(FrameError::Oversized { .. } | FrameError::Empty) => {
                return Err(reject(writer, wrong).await);
            }
            Err(error) => return Err(error.into()),
        };
        let chunk = match frame.split_first_chunk::<INDEX_BYTES>() {
            Some((stated, chunk))
                if u32::from_le_bytes(*stated) == index && manifest.holds(index, chunk) =>
            {
                chunk
            }
            _ => return Err(reject(writer, wrong).await),
        };
        if let Err(error) = sink.append(index, chunk).await {
            return Err(store_failed(writer, manifest.bytes_in(index), error).await);
        }
        forward += framed(frame.len());
        held.add(chunk);
        progress(Progress {
            done: manifest.bytes_in(held.chunks),
            total,
        });
    }

    if held.digest() != manifest.digest() {
        if let Err(error) = sink.discard().await {
            return Err(store_failed(writer, 0, error).await);
        }
        return Err(reject(writer, Refusal::Digest).await);
    }
    if let Err(error) = sink.commit().await {
        return Err(store_failed(writer, total, error).await);
    }
    let done = Reply::Done(manifest.digest()).encode();
    write_frame(writer, &done).await?;
    backward += framed(done.len());
    Ok(Transferred {
        digest: manifest.digest(),
        total,
        resumed,
        forward,
        backward,
    })
}

/// Reads the manifest and checks it against what is expected, before anything is stored.
async fn read_manifest<R>(reader: &mut R, expected: &Expected) -> Result<(Manifest, u64), BulkError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    // No more than an object of the expected length can need.
    let chunks = expected.length.limit().div_ceil(u64::from(MIN_CHUNK));
    let limit = usize::try_from(chunks.saturating_mul(32).saturating_add(64))
        .unwrap_or(MAX_MANIFEST_BYTES)
        .min(MAX_MANIFEST_BYTES);
    let bytes = match read_frame(reader, limit).await {
        Err(FrameError::Oversized { .. }) => {
            return Err(BulkError::Rejected(Refusal::Length(
                expected.length.limit(),
            )));
        }
        other => other?,
    };
    let manifest = Manifest::decode(&bytes)?;
    if !expected.length.admits(manifest.total()) {
        return Err(BulkError::Rejected(Refusal::Length(
            expected.length.limit(),
        )));
    }
    if expected
        .digest
        .is_some_and(|digest| digest != manifest.digest())
    {
        return Err(BulkError::Rejected(Refusal::OtherObject));
    }
    Ok((manifest, framed(bytes.len())))
}

/// The verified beginning of an object.
struct Held {
    chunks: u32,
    whole: blake3::Hasher,
}

impl Held {
    fn nothing() -> Self {
        Self {
            chunks: 0,
            whole: blake3::Hasher::new(),
        }
    }

    fn add(&mut self, chunk: &[u8]) {
        self.whole.update(chunk);
        self.chunks += 1;
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(*self.whole.finalize().as_bytes())
    }
}

/// Verifies what the sink holds from an earlier transfer: a crash may have left part of a chunk.
async fn take_up<S: ChunkSink>(manifest: &Manifest, sink: &mut S) -> io::Result<Held> {
    let claimed = sink.begin(manifest).await?.min(manifest.chunk_count());
    let mut held = Held::nothing();
    let mut buffer = vec![0; manifest.chunk_size() as usize];
    while held.chunks < claimed {
        let chunk = &mut buffer[..manifest.chunk_length(held.chunks)];
        sink.read_back(held.chunks, chunk).await?;
        if !manifest.holds(held.chunks, chunk) {
            break;
        }
        held.add(chunk);
    }
    if sink.keep(held.chunks).await? == held.chunks {
        Ok(held)
    } else {
        Ok(Held::nothing())
    }
}

async fn read_reply<R>(reader: &mut R) -> Result<(Reply, u64), BulkError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let bytes = read_frame(reader, MAX_REPLY_BYTES).await?;
    Ok((Reply::decode(&bytes)?, framed(bytes.len())))
}

/// A write failed: the receiver's refusal if there is one, the failure otherwise.
async fn refusal_behind(
    error: FrameError,
    verdict: impl Future<Output = Result<(Reply, u64), BulkError>>,
) -> BulkError {
    match verdict.await {
        Ok((Reply::Refused(refusal), _)) => BulkError::Refused(refusal),
        _ => error.into(),
    }
}

async fn reject<W>(writer: &mut W, refusal: Refusal) -> BulkError
where
    W: AsyncWrite + Unpin + ?Sized,
{
    // Best effort: the transfer has failed either way.
    let _ = write_frame(writer, &Reply::Refused(refusal).encode()).await;
    BulkError::Rejected(refusal)
}

async fn store_failed<W>(writer: &mut W, held: u64, error: io::Error) -> BulkError
where
    W: AsyncWrite + Unpin + ?Sized,
{
    reject(writer, Refusal::Storage(held)).await;
    BulkError::Storage(error)
}

fn unexpected(expected: &'static str, got: Reply) -> BulkError {
    BulkError::Unexpected { expected, got }
}

fn framed(payload: usize) -> u64 {
    (HEADER_BYTES + payload) as u64
}
