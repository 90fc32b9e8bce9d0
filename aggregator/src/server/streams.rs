//! Bulk streams: masked updates in, adapters out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::codec::{self, CodecError};
use fedlora_protocol::wire::messages::UpdateClaim;
use fedlora_protocol::wire::session::{StreamHeader, StreamReply};
use fedlora_transport::bulk::{
    self, BulkError, DEFAULT_CHUNK, Expected, ExpectedLength, FileSink, Manifest, MemorySource,
};
use fedlora_transport::frame::{FrameError, read_frame, write_frame};
use fedlora_transport::{Connection, RecvStream, SendStream, WindowBudget};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::front::{CurrentRun, Front};
use super::published::{Held, PublishedError, PublishedRun};
use crate::engine::{Moved, ToEngine};

/// The largest stream header or reply.
const HEADER_LIMIT: usize = 4096;
/// How often the engine is told of a transfer.
const METER_TICK: Duration = Duration::from_millis(500);
/// How long a member may take for a stream's header.
const PATIENCE: Duration = Duration::from_secs(10);

/// What answers a member's bulk streams.
#[derive(Debug, Clone)]
pub(super) enum Answers {
    /// The current run's engine.
    Engine(Front),
    /// What is published of a run; it takes no update.
    Published(Arc<PublishedRun>),
}

impl Answers {
    fn front(&self) -> Option<&Front> {
        match self {
            Self::Engine(front) => Some(front),
            Self::Published(_) => None,
        }
    }
}

/// A transfer's connection, and the budget of all transfers.
type Link<'a> = (&'a Connection, &'a WindowBudget);

/// Serves one bulk stream.
pub(super) async fn serve(
    (mut send, mut recv): (SendStream, RecvStream),
    member: &MemberName,
    answers: &Answers,
    link: Link<'_>,
) -> Result<(), StreamError> {
    let _one_at_a_time = match answers {
        Answers::Engine(_) => None,
        Answers::Published(run) => run.transfers.acquire().await.ok(),
    };
    let header = tokio::time::timeout(PATIENCE, read_frame(&mut recv, HEADER_LIMIT))
        .await
        .map_err(|_| StreamError::NoHeader)??;
    match codec::decode(&header)? {
        StreamHeader::Update {
            open,
            claim,
            length,
        } => match answers {
            Answers::Engine(front) => {
                let update = (open, claim, length);
                take_update((&mut send, &mut recv), member, front, update, link).await?;
            }
            Answers::Published(_) => refuse(&mut send, "the run is over".into()).await?,
        },
        StreamHeader::FetchAdapter { adapter } => {
            let held = match answers {
                Answers::Engine(front) => {
                    let held =
                        ask(front, |reply| ToEngine::FetchAdapter { adapter, reply }).await?;
                    held.map(Held::Adapter)
                }
                Answers::Published(run) => read(run, move |run| run.adapter(&adapter)).await?,
            };
            let front = answers.front();
            give((&mut send, &mut recv), member, front, (adapter, held), link).await?;
        }
        StreamHeader::FetchWeights { adapter } => {
            let held = match answers {
                Answers::Engine(_) => None,
                Answers::Published(run) => read(run, move |run| run.weights(&adapter)).await?,
            };
            let front = answers.front();
            give((&mut send, &mut recv), member, front, (adapter, held), link).await?;
        }
    }
    // The member may be gone already; all it needed, it has.
    let _ = send.finish();
    send.acknowledged().await;
    Ok(())
}

/// Step 7: bytes to a verified, durable masked update, then to the engine.
async fn take_update(
    (send, recv): (&mut SendStream, &mut RecvStream),
    member: &MemberName,
    engine: &Front,
    (open, claim, length): (Digest, Unverified<UpdateClaim>, u64),
    (connection, budget): Link<'_>,
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
    let _unkept = Unkept::new(engine, &path);
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
    let mut meter = Meter::new(member, Some(engine), Moved::Update);
    let share = budget.enter(connection);
    let received = bulk::receive(recv, send, &expected, &mut sink, |progress| {
        debug!(%member, done = progress.done, total = progress.total, "receiving an update");
        meter.at(progress.done);
        share.renew();
    })
    .await?;
    drop(share);
    meter.end().await;
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

/// An update that is on its way: where its run is over meanwhile, nothing of it stays.
struct Unkept {
    current: watch::Receiver<Option<CurrentRun>>,
    run: Option<RunId>,
    path: PathBuf,
}

impl Unkept {
    fn new(engine: &Front, path: &Path) -> Self {
        let current = engine.current();
        let run = current.borrow().as_ref().map(|current| current.run);
        let path = path.to_owned();
        Self { current, run, path }
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let now = self.current.borrow().as_ref().map(|current| current.run);
        if now.is_some() && now == self.run {
            return;
        }
        // Whoever ended the run has removed what was there by then.
        for path in FileSink::files(&self.path) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(%error, "a masked update that nobody adds cannot be removed");
                }
                _ => {}
            }
        }
    }
}

/// Reads something published on a thread that may wait for the disk.
async fn read(
    run: &Arc<PublishedRun>,
    what: impl FnOnce(&PublishedRun) -> Result<Option<Held>, PublishedError> + Send + 'static,
) -> Result<Option<Held>, StreamError> {
    let run = Arc::clone(run);
    let read = tokio::task::spawn_blocking(move || what(&run)).await;
    Ok(read.map_err(|_| StreamError::RunOver)??)
}

/// Sends what was asked for, where it is held.
async fn give(
    (send, recv): (&mut SendStream, &mut RecvStream),
    member: &MemberName,
    front: Option<&Front>,
    (adapter, held): (Digest, Option<Held>),
    (connection, budget): Link<'_>,
) -> Result<(), StreamError> {
    let Some(held) = held else {
        let reason = match front {
            Some(_) => "that adapter is not the newest one",
            None => "the run has no such adapter any more",
        };
        return refuse(send, reason.into()).await;
    };
    answer(send, StreamReply::Accepted).await?;
    let bytes = held.bytes();
    let manifest = Manifest::of(&bytes, DEFAULT_CHUNK).map_err(BulkError::Manifest)?;
    let mut source = MemorySource(&bytes);
    let mut meter = Meter::new(member, front, Moved::Adapter);
    meter.end().await;
    let share = budget.enter(connection);
    bulk::send(recv, send, &manifest, &mut source, |progress| {
        meter.at(progress.done);
        share.renew();
    })
    .await?;
    // The member says so once it holds the last of it.
    meter.end().await;
    debug!(%member, %adapter, "the member fetched an adapter");
    Ok(())
}

/// Tells the engine how far a transfer is, now and then.
struct Meter<'a> {
    member: &'a MemberName,
    /// Nothing where the transfer is none of the current run's.
    engine: Option<&'a Front>,
    what: fn(u64) -> Moved,
    /// Where the transfer began or resumed, or up to where it was told.
    told: Option<u64>,
    done: u64,
    last: Instant,
}

impl<'a> Meter<'a> {
    fn new(member: &'a MemberName, engine: Option<&'a Front>, what: fn(u64) -> Moved) -> Self {
        Self {
            member,
            engine,
            what,
            told: None,
            done: 0,
            last: Instant::now(),
        }
    }

    /// The transfer is at `done` bytes. Where the engine is busy it hears of it the next time.
    fn at(&mut self, done: u64) {
        self.done = done;
        let told = *self.told.get_or_insert(done);
        if self.last.elapsed() >= METER_TICK
            && let Some(engine) = self.engine
            && engine.try_send(self.word(told)).is_ok()
        {
            (self.told, self.last) = (Some(done), Instant::now());
        }
    }

    /// Tells the engine of the rest, and that the member is at it.
    async fn end(&mut self) {
        let told = self.told.unwrap_or(self.done);
        if let Some(engine) = self.engine {
            // The run may be over.
            let _ = engine.send(self.word(told)).await;
        }
        self.told = self.told.map(|_| self.done);
    }

    fn word(&self, told: u64) -> ToEngine {
        ToEngine::Moved {
            member: self.member.clone(),
            moved: (self.what)(self.done.saturating_sub(told)),
        }
    }
}

/// Asks the engine, which answers unless the run is over.
async fn ask<T>(
    engine: &Front,
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
    /// What is published cannot be read.
    #[error("a run's folder: {0}")]
    Published(#[from] PublishedError),
    /// The engine has ended.
    #[error("the run is over")]
    RunOver,
}
