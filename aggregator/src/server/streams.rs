//! Bulk streams: masked updates in, adapters out.

use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::codec::{self, CodecError};
use fedlora_protocol::wire::messages::UpdateClaim;
use fedlora_protocol::wire::session::{StreamHeader, StreamReply};
use fedlora_transport::bulk::{
    self, BulkError, DEFAULT_CHUNK, Expected, ExpectedLength, FileSink, Manifest, MemorySource,
};
use fedlora_transport::frame::{FrameError, read_frame, write_frame};
use fedlora_transport::{RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

use crate::engine::ToEngine;

/// The largest stream header or reply.
const HEADER_LIMIT: usize = 4096;
/// How long a member may take for a stream's header.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves one bulk stream.
pub(super) async fn serve(
    mut send: SendStream,
    mut recv: RecvStream,
    member: &MemberName,
    engine: &mpsc::Sender<ToEngine>,
) -> Result<(), StreamError> {
    let header = tokio::time::timeout(PATIENCE, read_frame(&mut recv, HEADER_LIMIT))
        .await
        .map_err(|_| StreamError::NoHeader)??;
    match codec::decode(&header)? {
        StreamHeader::Update {
            open,
            claim,
            length,
        } => take_update(&mut send, &mut recv, member, engine, open, claim, length).await?,
        StreamHeader::FetchAdapter { adapter } => {
            give_adapter(&mut send, &mut recv, member, engine, adapter).await?;
        }
    }
    // The member may be gone already; all it needed, it has.
    let _ = send.finish();
    send.acknowledged().await;
    Ok(())
}

/// Step 7: bytes to a verified, durable masked update, then to the engine.
async fn take_update(
    send: &mut SendStream,
    recv: &mut RecvStream,
    member: &MemberName,
    engine: &mpsc::Sender<ToEngine>,
    open: Digest,
    claim: Unverified<UpdateClaim>,
    length: u64,
) -> Result<(), StreamError> {
    let admitted = ask(engine, |reply| ToEngine::UploadBegins {
        member: member.clone(),
        open,
        length,
        reply,
    })
    .await?;
    let path = match admitted {
        Ok(path) => path,
        Err(refusal) => return refuse(send, refusal.to_string()).await,
    };
    let mut sink = match FileSink::new(&path) {
        Ok(sink) => sink,
        Err(error) => {
            refuse(send, "the aggregator cannot store updates now".into()).await?;
            return Err(BulkError::Storage(error).into());
        }
    };
    answer(send, StreamReply::Accepted).await?;
    let expected = Expected {
        length: ExpectedLength::Exactly(length),
        digest: Some(claim.claimed().vector),
    };
    let received = bulk::receive(recv, send, &expected, &mut sink, |progress| {
        debug!(%member, done = progress.done, total = progress.total, "receiving an update");
    })
    .await?;
    info!(%member, bytes = received.total, resumed = received.resumed, "an update is stored");
    let verdict = ask(engine, |reply| ToEngine::Uploaded {
        member: member.clone(),
        open,
        claim,
        reply,
    })
    .await?;
    match verdict {
        Ok(()) => answer(send, StreamReply::Accepted).await,
        Err(refusal) => refuse(send, refusal.to_string()).await,
    }
}

async fn give_adapter(
    send: &mut SendStream,
    recv: &mut RecvStream,
    member: &MemberName,
    engine: &mpsc::Sender<ToEngine>,
    adapter: Digest,
) -> Result<(), StreamError> {
    let held = ask(engine, |reply| ToEngine::FetchAdapter { adapter, reply }).await?;
    let Some(bytes) = held else {
        return refuse(send, "that adapter is not the newest one".into()).await;
    };
    answer(send, StreamReply::Accepted).await?;
    let manifest = Manifest::of(&bytes, DEFAULT_CHUNK).map_err(BulkError::Manifest)?;
    let mut source = MemorySource(bytes.as_slice());
    bulk::send(recv, send, &manifest, &mut source, |_| ()).await?;
    debug!(%member, %adapter, "the member fetched an adapter");
    Ok(())
}

/// Asks the engine, which answers unless the run is over.
async fn ask<T>(
    engine: &mpsc::Sender<ToEngine>,
    question: impl FnOnce(oneshot::Sender<T>) -> ToEngine,
) -> Result<T, StreamError> {
    let (reply, answer) = oneshot::channel();
    engine
        .send(question(reply))
        .await
        .map_err(|_| StreamError::RunOver)?;
    answer.await.map_err(|_| StreamError::RunOver)
}

async fn refuse(send: &mut SendStream, reason: String) -> Result<(), StreamError> {
    answer(send, StreamReply::Refused { reason }).await
}

async fn answer(send: &mut SendStream, reply: StreamReply) -> Result<(), StreamError> {
    Ok(write_frame(send, &codec::encode(&reply)?).await?)
}

/// Why a bulk stream ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The transfer failed.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// The stream broke, or carried a malformed frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A malformed header.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The member opened a stream and did not say what for.
    #[error("the member sent no stream header in time")]
    NoHeader,
    /// The engine has ended.
    #[error("the run is over")]
    RunOver,
}
