//! One member's connection, from its hello to its end.

use std::sync::Arc;
use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::wire::codec::{self, CodecError, MESSAGE_LIMIT};
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_protocol::wire::session::{HelloAnswer, MemberHello, Purpose};
use fedlora_protocol::wire::versions::{NoCommonProtocol, Protocols};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::frame::{read_frame, write_frame};
use fedlora_transport::hello::receive_hello;
use fedlora_transport::{
    Certificate, Connection, MemberConnection, Peer, RecvStream, SendStream, StreamKind,
    TransportError, WindowBudget,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::backlog::Backlog;
use super::front::Front;
use super::pace::Pace;
use super::published::{PublishedError, PublishedRun};
use super::reticence::Reticence;
use super::streams::{self, Answers, StreamError};
use crate::certificates::Certificates;
use crate::engine::{About, SessionId, ToEngine};
use crate::enrol::older;
use crate::registry::{Registry, RegistryError};

/// How soon a member that was removed is cut off.
const REMOVAL_TICK: Duration = Duration::from_millis(500);
/// How many characters of a release are kept.
const MAX_RELEASE: usize = 40;
/// How long a member may take for its hello and its control stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a member may take for one message. What waits for it is held in memory.
const STALLED: Duration = Duration::from_secs(300);
/// How long after its streams a connection may end.
const LAST_WORD: Duration = Duration::from_secs(1);
/// The longest frame that says what a connection is for.
const PURPOSE_LIMIT: usize = 64;
/// Transfers at a time on a connection: each holds a chunk in memory.
const TRANSFERS: usize = 2;

/// What all sessions have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) certificates: Certificates,
    pub(super) registry: Registry,
    pub(super) front: Front,
    /// The bytes of all transfers.
    pub(super) budget: WindowBudget,
}

/// Serves one connection until it ends.
pub(super) async fn run(
    member: MemberConnection,
    session: SessionId,
    shared: &Shared,
) -> Result<(), SessionError> {
    let Shared {
        certificates,
        registry,
        front,
        budget,
    } = shared;
    let (protocol, release) = greet(&member, certificates, registry).await?;
    let MemberConnection {
        peer, connection, ..
    } = member;
    let Peer {
        name,
        key,
        not_after,
        ..
    } = peer;
    let (purpose, control) = tokio::time::timeout(PATIENCE, control_stream(&connection))
        .await
        .map_err(|_| SessionError::NoControl)??;
    info!(
        member = %name, from = %connection.remote_address(), over = %connection.route(), ?purpose,
        "the member is connected"
    );
    let open_over = connection.route().transport;
    let open = Open {
        member: name.clone(),
        connection,
        control,
        budget: budget.clone(),
        about: About {
            protocol,
            release,
            certificate_end: not_after,
            transport: Some(open_over),
        },
    };
    // A malformed message ends the session, not the round: the member may come back.
    let connection = open.connection.clone();
    let ended = tokio::select! {
        ended = open.serve(purpose, session, registry, front) => ended,
        // One that leaves is removed by its own session.
        removed = until_removed(&name, &key, registry), if purpose != Purpose::Leave => {
            Err(removed.into())
        }
    };
    if let Err(SessionError::Refused(refusal)) = &ended {
        connection.close(CloseCode::NotAMember, &refusal.to_string());
    }
    if let Err(SessionError::Codec(error)) = &ended {
        connection.close(CloseCode::Protocol, &error.to_string());
    }
    // The end of the connection explains that of its streams, which may come a moment before it.
    let close = match (&ended, connection.close_reason()) {
        (Err(SessionError::Transport(_)), None) => {
            let closed = tokio::time::timeout(LAST_WORD, connection.closed()).await;
            closed.ok()
        }
        (_, close) => close,
    };
    let said = match &close {
        Some(TransportError::Closed { code, reason }) if *code == CloseCode::Declined as u64 => {
            Some(reason.clone())
        }
        _ => None,
    };
    if let (Purpose::Watch, Some(reason)) = (&purpose, &said) {
        tell_of_copy(&name, reason, front).await;
    }
    if let Purpose::TakePart { .. } = purpose {
        let gone = ToEngine::Disconnected {
            member: name.clone(),
            session,
            said,
        };
        let _ = front.send(gone).await;
    }
    match (ended, close) {
        (Err(SessionError::Refused(refusal)), _) => Err(refusal.into()),
        (Err(SessionError::Transport(_)), Some(close)) if is_usual(&close) => {
            info!(member = %name, reason = %close, "the member is disconnected");
            Ok(())
        }
        (ended, _) => ended,
    }
}

/// Tells the operator what a member says that somebody else has put out, and that other one too.
pub(super) async fn tell_of_copy(member: &MemberName, reason: &str, front: &Front) {
    warn!(%member, %reason, "a copy of the member's directory may be in use");
    front.tell_of_copy(member.clone()).await;
}

/// A connection whose control stream is open.
struct Open {
    member: MemberName,
    connection: Connection,
    control: (SendStream, RecvStream),
    budget: WindowBudget,
    about: About,
}

impl Open {
    async fn serve(
        self,
        purpose: Purpose,
        session: SessionId,
        registry: &Registry,
        front: &Front,
    ) -> Result<(), SessionError> {
        match purpose {
            Purpose::TakePart { run } => {
                let is_current = |run| {
                    let current = front.current();
                    let current = current.borrow();
                    current.as_ref().is_some_and(|current| current.run == run)
                };
                let over = match run.filter(|run| !is_current(*run)) {
                    Some(run) => self.published(registry, Some(run)).await?,
                    None => None,
                };
                match over.filter(PublishedRun::is_over) {
                    Some(over) => self.show(over).await,
                    None => self.take_part(session, front).await,
                }
            }
            Purpose::Watch => self.watch(front).await,
            Purpose::Leave => self.leave(registry).await,
            Purpose::Fetch { run } => match self.published(registry, run).await? {
                Some(run) => self.show(run).await,
                None => {
                    let reason = match run {
                        Some(run) => format!("this aggregator knows of no run {run}"),
                        None => "no run has begun here yet".to_owned(),
                    };
                    self.refuse(reason).await
                }
            },
        }
    }

    /// Carries messages and transfers between the member and the current run, until either ends.
    async fn take_part(mut self, session: SessionId, front: &Front) -> Result<(), SessionError> {
        let member = &self.member;
        let Some((mut outgoing, over)) = front.opened(member.clone(), (session, self.about)).await
        else {
            self.connection.close(CloseCode::ShuttingDown, RUN_OVER);
            return Ok(());
        };
        let answers = Answers::Engine(front.clone());
        let (send, recv) = &mut self.control;
        let connection = &self.connection;
        let backlog = Backlog::default();
        tokio::select! {
            ended = read_control(recv, member, front, &backlog) => ended,
            ended = async {
                while let Some(message) = outgoing.recv().await {
                    backlog.begin();
                    write(send, connection, &message).await?;
                    if outgoing.is_empty() {
                        backlog.end();
                    }
                }
                let (code, reason) = match front.is_newest(member, session) {
                    // Its engine has gone: the run is taken up by another one.
                    true => (CloseCode::ShuttingDown, "the run is taken up again"),
                    false => (CloseCode::Replaced, "a newer connection took over"),
                };
                connection.close(code, reason);
                Ok(())
            } => ended,
            Ok(()) = over => {
                connection.close(CloseCode::ShuttingDown, RUN_OVER);
                Ok(())
            }
            ended = serve_streams((connection, &self.budget), member, answers) => ended,
        }
    }

    /// Tells the member of each run that is served.
    async fn watch(mut self, front: &Front) -> Result<(), SessionError> {
        let mut current = front.current();
        loop {
            let plan = current
                .borrow_and_update()
                .as_ref()
                .map(|run| run.plan.clone());
            if let Some(plan) = plan {
                write(&mut self.control.0, &self.connection, &ToMember::Plan(plan)).await?;
            }
            tokio::select! {
                changed = current.changed() => if changed.is_err() {
                    self.connection.close(CloseCode::ShuttingDown, "the aggregator stops");
                    return Ok(());
                },
                reason = self.connection.closed() => return Err(reason.into()),
            }
        }
    }

    /// Removes the member, which asks for that.
    async fn leave(mut self, registry: &Registry) -> Result<(), SessionError> {
        let (registry, name) = (registry.clone(), self.member.clone());
        let removed = tokio::task::spawn_blocking(move || registry.leave(&name)).await;
        removed.map_err(|_| SessionError::Panicked)??;
        info!(member = %self.member, "the member has left the federation");
        let _ = self.control.0.finish();
        Err(self.connection.closed().await.into())
    }

    /// Shows what is published of a run, and gives its adapters, until the member goes.
    async fn show(mut self, run: PublishedRun) -> Result<(), SessionError> {
        let (send, _) = &mut self.control;
        for message in run.messages().into_iter().chain(run.finished()) {
            write(send, &self.connection, &message).await?;
        }
        let _ = send.finish();
        let answers = Answers::Published(Arc::new(run));
        serve_streams((&self.connection, &self.budget), &self.member, answers).await
    }

    /// Reads a run. Where it cannot be read the member is kept for a while, so that it does not come back
    /// at once for the same.
    async fn published(
        &self,
        registry: &Registry,
        run: Option<RunId>,
    ) -> Result<Option<PublishedRun>, SessionError> {
        let read = published(registry, run).await;
        if read.is_err() {
            tokio::time::sleep(PATIENCE).await;
            let reason = "the run cannot be read now";
            self.connection.close(CloseCode::ShuttingDown, reason);
        }
        read
    }

    async fn refuse(mut self, reason: String) -> Result<(), SessionError> {
        let (send, _) = &mut self.control;
        write(send, &self.connection, &ToMember::Refused { reason }).await?;
        let _ = send.finish();
        Err(self.connection.closed().await.into())
    }
}

/// The close reason once a run is over.
const RUN_OVER: &str = "the run is over";

async fn write(
    send: &mut SendStream,
    connection: &Connection,
    message: &ToMember,
) -> Result<(), SessionError> {
    let frame = codec::encode(message)?;
    let written = tokio::time::timeout(STALLED, write_frame(send, &frame)).await;
    let written = written.map_err(|_| SessionError::Stalled)?;
    Ok(written.map_err(|error| connection.explain(error))?)
}

/// Reads a run on a thread that may wait for the disk.
async fn published(
    registry: &Registry,
    run: Option<RunId>,
) -> Result<Option<PublishedRun>, SessionError> {
    let store = registry.directory().store().clone();
    let read = tokio::task::spawn_blocking(move || PublishedRun::read(&store, run)).await;
    Ok(read.map_err(|_| SessionError::Panicked)??)
}

/// Checks that the certificate's holder is a recorded member, with the key it joined with; gives it
/// another certificate, where that is due. Gives the protocol that both speak, and the release of the
/// member's program.
async fn greet(
    member: &MemberConnection,
    certificates: &Certificates,
    registry: &Registry,
) -> Result<(u16, String), SessionError> {
    let MemberConnection {
        peer,
        certificate,
        connection,
    } = member;
    let Peer { name, key, .. } = peer;
    let (payload, reply) = receive_hello(connection, PATIENCE).await?;
    let judged = match codec::decode::<MemberHello>(&payload) {
        Err(error) => Err(HelloRefusal::Malformed(error)),
        Ok(hello) => match Protocols::OWN.common(hello.protocol) {
            Err(none) => Err(HelloRefusal::Protocol {
                release: shown_release(&hello.release),
                none,
            }),
            Ok(protocol) if registry.is_member(name, key)? => {
                Ok((protocol, shown_release(&hello.release)))
            }
            Ok(_) => Err(HelloRefusal::NotAMember { name: name.clone() }),
        },
    };
    match judged {
        Ok((protocol, release)) => {
            let answer = HelloAnswer {
                protocol,
                certificate: renewal(peer, certificate, certificates),
            };
            reply.accept(&codec::encode(&answer)?).await?;
            Ok((protocol, release))
        }
        Err(refusal) => {
            let reason = refusal.to_string();
            reply.refuse(&reason).await?;
            connection.close(CloseCode::NotAMember, &reason);
            Err(refusal.into())
        }
    }
}

/// A release as a hello says it: printable, and cut.
fn shown_release(said: &str) -> String {
    let printable = said.chars().filter(|c| c.is_ascii_graphic());
    printable.take(MAX_RELEASE).collect()
}

/// Another certificate for a member, in DER, where it is due.
fn renewal(peer: &Peer, shown: &Certificate, certificates: &Certificates) -> Option<Vec<u8>> {
    let member = &peer.name;
    match certificates.renewed(peer, shown) {
        Ok(None) => None,
        Ok(Some(issued)) => {
            info!(%member, until = %issued.not_after.date(), "the member's certificate is renewed");
            Some(issued.certificate.as_der().to_vec())
        }
        Err(error) => {
            warn!(%member, %error, "the member's certificate cannot be renewed");
            None
        }
    }
}

/// Waits until the member is removed, or has other keys.
async fn until_removed(name: &MemberName, key: &Digest, registry: &Registry) -> HelloRefusal {
    let mut tick = tokio::time::interval(REMOVAL_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned = false;
    loop {
        tick.tick().await;
        // A disk that does not answer holds up nothing else.
        let (registry, asked, key) = (registry.clone(), name.clone(), *key);
        let found = tokio::task::spawn_blocking(move || registry.is_member(&asked, &key)).await;
        match found {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return HelloRefusal::NotAMember { name: name.clone() },
            // A connection is not ended by a record that cannot be read just now.
            Ok(Err(error)) if !warned => {
                warn!(member = %name, %error, "the member's record cannot be read");
                warned = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Waits for the control stream, with the frame that says what the connection is for.
async fn control_stream(
    connection: &Connection,
) -> Result<(Purpose, (SendStream, RecvStream)), SessionError> {
    let (StreamKind::Control, send, mut recv) = connection.accept().await? else {
        return Err(SessionError::NoControl);
    };
    let purpose = read_frame(&mut recv, PURPOSE_LIMIT).await;
    let purpose = purpose.map_err(|error| connection.explain(error))?;
    Ok((codec::decode(&purpose)?, (send, recv)))
}

async fn read_control(
    recv: &mut RecvStream,
    member: &MemberName,
    front: &Front,
    backlog: &Backlog,
) -> Result<(), SessionError> {
    let mut pace = Pace::new(Instant::now().into_std());
    let mut while_behind = 0;
    loop {
        backlog.admit(&mut while_behind).await;
        tokio::time::sleep(pace.pause(Instant::now().into_std())).await;
        let bytes = read_frame(recv, MESSAGE_LIMIT)
            .await
            .map_err(TransportError::Frame)?;
        let message: ToAggregator = codec::decode(&bytes)?;
        let message = ToEngine::Message {
            member: member.clone(),
            message: Box::new(message),
        };
        if front.send(message).await.is_err() {
            return Ok(());
        }
    }
}

async fn serve_streams(
    (connection, budget): (&Connection, &WindowBudget),
    member: &MemberName,
    answers: Answers,
) -> Result<(), SessionError> {
    let mut pace = Pace::new(Instant::now().into_std());
    let transfers = Arc::new(Semaphore::new(TRANSFERS));
    let complaints = Arc::new(Reticence::default());
    let now = || Instant::now().into_std();
    loop {
        tokio::time::sleep(pace.pause(now())).await;
        match connection.accept().await {
            Ok((StreamKind::Bulk, send, recv)) => {
                let (member, answers) = (member.clone(), answers.clone());
                let (connection, budget) = (connection.clone(), budget.clone());
                let complaints = Arc::clone(&complaints);
                // The semaphore is never closed.
                let place = Arc::clone(&transfers).acquire_owned().await.ok();
                tokio::spawn(async move {
                    let _place = place;
                    let link = (&connection, &budget);
                    let ended = streams::serve((send, recv), &member, &answers, link).await;
                    match (ended, connection.close_reason()) {
                        (Ok(()), _) => {}
                        // It is resumed on the next one, where it is needed still.
                        (Err(_), Some(reason)) => {
                            info!(%member, %reason, "a transfer ended with its connection");
                        }
                        (Err(StreamError::RunOver), None) => {}
                        (Err(error), None) => {
                            if let Some(more) = complaints.may_say(Instant::now().into_std()) {
                                warn!(%member, %error, more, "a transfer ended early");
                            }
                        }
                    }
                });
            }
            Ok((kind, ..)) => {
                if let Some(more) = complaints.may_say(now()) {
                    warn!(%member, ?kind, more, "a stream that nobody expects was dropped");
                }
            }
            Err(error @ (TransportError::Unexpected { .. } | TransportError::Frame(_)))
                if connection.close_reason().is_none() =>
            {
                if let Some(more) = complaints.may_say(now()) {
                    warn!(%member, %error, more, "a stream was dropped");
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether connections end so where nothing is wrong: either side closed it, or the member's machine or
/// network went away. It comes back, or the round goes on without it.
fn is_usual(error: &TransportError) -> bool {
    match error {
        TransportError::Closed { code, .. } => *code != CloseCode::Protocol as u64,
        TransportError::ClosedHere | TransportError::Silent => true,
        _ => false,
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The connection broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A malformed message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The member's record cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The member was refused.
    #[error(transparent)]
    Refused(#[from] HelloRefusal),
    /// What is published of a run cannot be read.
    #[error("a run's folder: {0}")]
    Published(#[from] PublishedError),
    /// A defect: reading it panicked.
    #[error("reading a run's folder panicked")]
    Panicked,
    /// The member does not read what it is sent.
    #[error("the member took none of a message for {} s", STALLED.as_secs())]
    Stalled,
    /// The first stream was not a control stream, or there was none.
    #[error("the member opened no control stream")]
    NoControl,
}

impl SessionError {
    /// Whether connections end so where nothing is wrong.
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Self::Transport(error) if is_usual(error))
    }
}

/// Why a member's hello is refused. The words go to the member as they stand here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloRefusal {
    /// A malformed hello.
    #[error(transparent)]
    Malformed(CodecError),
    /// Another version of the protocol.
    #[error(
        "this aggregator speaks protocol {}, release {release} of the member speaks {}: upgrade \
         the {}",
        none.own, none.other, older(none)
    )]
    Protocol {
        /// The member's release, cut at 40 characters.
        release: String,
        /// What both speak.
        none: NoCommonProtocol,
    },
    /// A certificate of the federation's, for a member that has no record or another key.
    #[error("{name} is not a member of this federation any more")]
    NotAMember {
        /// The name in the certificate.
        name: MemberName,
    },
}
