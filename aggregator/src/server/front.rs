//! Between the members' connections and the runs, which come and go: knows who is connected, and hands
//! each message to the engine of the current run. A member that waits while there is no run is told of
//! the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::plan::SignedPlan;
use fedlora_protocol::wire::messages::ToMember;
use fedlora_protocol::wire::versions::TELLS_OF_COPIES;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{About, SessionId, ToEngine};

/// Messages that may wait before senders have to.
const INBOX: usize = 256;

/// The run that is served.
#[derive(Debug, Clone)]
pub(crate) struct CurrentRun {
    pub(crate) run: RunId,
    /// The plan as members are shown it.
    pub(crate) plan: SignedPlan,
}

/// What sessions hold: a way to the current run's engine.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    sessions: mpsc::Sender<FromSession>,
    current: watch::Receiver<Option<CurrentRun>>,
    /// Each member's newest connection that has taken part.
    newest: Arc<Mutex<BTreeMap<MemberName, SessionId>>>,
}

/// What whoever serves the runs holds.
#[derive(Debug)]
pub(crate) struct FrontControl {
    commands: mpsc::Sender<Command>,
    current: watch::Sender<Option<CurrentRun>>,
}

/// A member's connection that takes part.
#[derive(Debug)]
struct Link {
    session: SessionId,
    outbox: mpsc::UnboundedSender<ToMember>,
    about: About,
    /// Tells the session that its run is over.
    over: oneshot::Sender<()>,
}

#[derive(Debug)]
enum FromSession {
    Opened { member: MemberName, link: Link },
    CopySeen { member: MemberName },
    Engine(ToEngine),
}

#[derive(Debug)]
enum Command {
    Begin(mpsc::Sender<ToEngine>),
    Abort { reason: String },
    End { done: oneshot::Sender<()> },
}

/// The task between sessions and engines; it ends once both sides have gone.
pub(crate) fn open() -> (Front, FrontControl) {
    let (sessions, from_sessions) = mpsc::channel(INBOX);
    let (commands, from_control) = mpsc::channel(1);
    let (current, watched) = watch::channel(None);
    tokio::spawn(pass_on(from_sessions, from_control));
    let front = Front {
        sessions,
        current: watched,
        newest: Arc::default(),
    };
    (front, FrontControl { commands, current })
}

impl Front {
    /// A member takes part on a new connection. Gives what its session is to send, and what tells that
    /// the run is over; nothing where the aggregator ends.
    pub(super) async fn opened(
        &self,
        member: MemberName,
        (session, about): (SessionId, About),
    ) -> Option<(mpsc::UnboundedReceiver<ToMember>, oneshot::Receiver<()>)> {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let (over, is_over) = oneshot::channel();
        self.newest().insert(member.clone(), session);
        let link = Link {
            session,
            outbox,
            about,
            over,
        };
        let opened = FromSession::Opened { member, link };
        self.sessions.send(opened).await.ok()?;
        Some((outgoing, is_over))
    }

    /// A member's other process says that this one, which takes part, has put it out.
    pub(super) async fn tell_of_copy(&self, member: MemberName) {
        // Nobody is left to be told where the aggregator ends.
        let _ = self.sessions.send(FromSession::CopySeen { member }).await;
    }

    /// Whether no newer connection of the member has taken part since.
    pub(super) fn is_newest(&self, member: &MemberName, session: SessionId) -> bool {
        self.newest().get(member) == Some(&session)
    }

    fn newest(&self) -> MutexGuard<'_, BTreeMap<MemberName, SessionId>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a message to the current run's engine. Where there is none it is dropped, with its
    /// `reply`.
    ///
    /// # Errors
    /// [`Closed`] where the aggregator ends.
    pub(super) async fn send(&self, message: ToEngine) -> Result<(), Closed> {
        let message = FromSession::Engine(message);
        self.sessions.send(message).await.map_err(|_| Closed)
    }

    /// As [`send`](Self::send), where that need not wait.
    ///
    /// # Errors
    /// [`Closed`] where the aggregator ends, or is busy.
    pub(super) fn try_send(&self, message: ToEngine) -> Result<(), Closed> {
        let message = FromSession::Engine(message);
        self.sessions.try_send(message).map_err(|_| Closed)
    }

    /// The run that is served.
    pub(super) fn current(&self) -> watch::Receiver<Option<CurrentRun>> {
        self.current.clone()
    }
}

impl FrontControl {
    /// A run begins: all who are connected are handed to the engine that reads what this gives.
    pub(crate) async fn begin(&self, current: CurrentRun) -> mpsc::Receiver<ToEngine> {
        let (inbox, messages) = mpsc::channel(INBOX);
        // The task ends after this handle.
        let _ = self.commands.send(Command::Begin(inbox)).await;
        self.current.send_replace(Some(current));
        messages
    }

    /// The current run is to end: its members are told so, and its engine gets nothing more.
    pub(crate) async fn abort(&self, reason: String) {
        let _ = self.commands.send(Command::Abort { reason }).await;
    }

    /// The run is over: connections that are left end.
    pub(crate) async fn end(&self) {
        self.current.send_replace(None);
        let (done, ended) = oneshot::channel();
        let _ = self.commands.send(Command::End { done }).await;
        let _ = ended.await;
    }
}

/// The aggregator ends.
#[derive(Debug)]
pub(super) struct Closed;

async fn pass_on(mut sessions: mpsc::Receiver<FromSession>, mut commands: mpsc::Receiver<Command>) {
    let mut links = BTreeMap::<MemberName, Link>::new();
    let mut engine = None::<mpsc::Sender<ToEngine>>;
    let mut own_certificate = None;
    loop {
        tokio::select! {
            Some(command) = commands.recv() => match command {
                Command::Begin(inbox) => {
                    if let Some(end) = own_certificate {
                        let _ = inbox.send(ToEngine::OwnCertificate { end }).await;
                    }
                    for (member, link) in &links {
                        // A new engine reads at once: it has room for more than there are members.
                        let _ = inbox.send(connected(member, link)).await;
                    }
                    engine = Some(inbox);
                }
                Command::Abort { reason } => {
                    let finished = ToMember::Finished { failure: Some(reason) };
                    for link in links.values() {
                        let _ = link.outbox.send(finished.clone());
                    }
                    engine = None;
                }
                Command::End { done } => {
                    engine = None;
                    for (_, link) in std::mem::take(&mut links) {
                        let _ = link.over.send(());
                    }
                    let _ = done.send(());
                }
            },
            Some(message) = sessions.recv() => {
                let message = match message {
                    FromSession::Opened { member, link } => {
                        let message = connected(&member, &link);
                        // The one that it replaces ends with the last outbox.
                        links.insert(member, link);
                        message
                    }
                    FromSession::CopySeen { member } => {
                        let link = links.get(&member);
                        // An older program cannot read the message.
                        let link = link.filter(|link| link.about.protocol >= TELLS_OF_COPIES);
                        if let Some(link) = link {
                            let _ = link.outbox.send(ToMember::CopySeen);
                        }
                        continue;
                    }
                    FromSession::Engine(message) => {
                        if let ToEngine::OwnCertificate { end } = &message {
                            own_certificate = Some(*end);
                        }
                        if let ToEngine::Disconnected { member, session, .. } = &message
                            && links.get(member).is_some_and(|link| link.session == *session)
                        {
                            links.remove(member);
                        }
                        message
                    }
                };
                if let Some(inbox) = &engine
                    && inbox.send(message).await.is_err()
                {
                    engine = None;
                }
            }
            else => return,
        }
    }
}

fn connected(member: &MemberName, link: &Link) -> ToEngine {
    ToEngine::Connected {
        member: member.clone(),
        session: link.session,
        outbox: link.outbox.clone(),
        about: link.about.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message is none that an older program could read: it would take its connection for broken.
    #[tokio::test]
    async fn who_takes_part_is_told_of_a_copy_where_its_program_knows_the_message() {
        let (front, control) = open();
        let mut outboxes = Vec::new();
        for (number, protocol) in [(1, TELLS_OF_COPIES - 1), (2, TELLS_OF_COPIES)] {
            let member: MemberName = format!("hospital-{number}").parse().unwrap();
            let about = About {
                protocol,
                ..About::default()
            };
            let opened = front
                .opened(member.clone(), (SessionId(number), about))
                .await;
            let (outgoing, _over) = opened.unwrap();
            front.tell_of_copy(member).await;
            outboxes.push(outgoing);
        }
        // One that takes no part: nobody is told.
        front.tell_of_copy("hospital-3".parse().unwrap()).await;
        assert_eq!(outboxes[1].recv().await, Some(ToMember::CopySeen));
        // All that the task was sent before is done by now.
        drop((front, control));
        assert_eq!(outboxes[1].recv().await, None);
        assert_eq!(outboxes[0].recv().await, None);
    }
}
