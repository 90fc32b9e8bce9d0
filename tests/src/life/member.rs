//! One member: its directory, and the program that waits for runs and takes part in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::peft;
use fedlora_client::agent::{AcceptedRun, Agent, AgentPhase, left_open};
use fedlora_client::directory::MemberDirectory;
use fedlora_client::enrol::{JoinError, join_over};
use fedlora_client::federation::{
    BulkCarrier, Connector, ExpectedRun, LinkError, MemberLink, NetworkCarrier, NetworkLink,
    Participant, ParticipantError,
};
use fedlora_client::receipts::FileReceipts;
use fedlora_client::roster_pin::FileRosterPin;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::plan::Roster;
use fedlora_protocol::round::member::{PinError, RosterPin, Upload};
use fedlora_protocol::wire::messages::{RoundMessage, ToAggregator, ToMember};
use fedlora_protocol::wire::session::Purpose;
use fedlora_protocol::wire::token::InviteToken;
use fedlora_transport::{Certificate, Route, Traffic, TransportChoice};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::network::Network;
use super::observer::Observer;
use super::work::TinyWork;

/// How long a run is held on to while the aggregator cannot be reached, as the program does.
const PATIENCE: Duration = Duration::from_secs(600);
/// The pause before joining is tried again.
const JOIN_AGAIN: Duration = Duration::from_secs(2);

/// A member of the simulation.
#[derive(Debug)]
pub(super) struct SimulatedMember {
    pub(super) place: usize,
    pub(super) name: String,
    pub(super) root: PathBuf,
    network: Network,
    observer: Observer,
    task: Option<JoinHandle<()>>,
    invited: Option<Invited>,
    lives: u64,
    seed: u64,
}

impl SimulatedMember {
    /// A member at `place` whose directory is `root`.
    pub(super) fn new(
        (place, seed): (usize, u64),
        root: &Path,
        network: &Network,
        observer: &Observer,
    ) -> Self {
        Self {
            place,
            name: name_of(place),
            root: root.to_owned(),
            network: network.clone(),
            observer: observer.clone(),
            task: None,
            invited: None,
            lives: 0,
            seed,
        }
    }

    /// Whether its program runs.
    pub(super) fn is_up(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Starts its program, which joins first where there is an invitation that it has not used.
    pub(super) fn start(&mut self) {
        if self.is_up() {
            return;
        }
        self.lives += 1;
        let (place, root) = (self.place, self.root.clone());
        let (network, observer) = (self.network.clone(), self.observer.clone());
        let seed = self.seed ^ (self.lives << 32);
        let invited = self.invited.clone();
        self.task = Some(tokio::spawn(async move {
            let surroundings = (place, &network, &observer);
            if let Some(invited) = invited
                && !root.join("fedlora.toml").exists()
            {
                join(&invited, &root, surroundings).await;
            }
            if root.join("fedlora.toml").exists() {
                serve(&root, seed, surroundings).await;
            }
        }));
    }

    /// Whether it is a member, as far as it knows.
    pub(super) fn has_joined(&self) -> bool {
        self.root.join("fedlora.toml").exists()
    }

    /// It joins by this invitation once it is started, into the folder `root`.
    pub(super) fn invite(&mut self, invited: Invited, root: PathBuf) {
        (self.invited, self.root) = (Some(invited), root);
    }

    /// Kills its program: nothing of it is left.
    pub(super) async fn kill(&mut self) {
        self.network.cut(self.place);
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

/// The name of the member at `place`.
pub(super) fn name_of(place: usize) -> String {
    format!("member-{place}")
}

/// An invitation, with what joining by it needs.
#[derive(Debug, Clone)]
pub(super) struct Invited {
    pub(super) token: InviteToken,
    /// The certificate of the federation's authority, which a handshake would show.
    pub(super) authority: Certificate,
    pub(super) now: Timestamp,
}

/// Joins, and tries again where the answer is lost.
async fn join(invited: &Invited, root: &Path, (place, network, observer): Surroundings<'_>) {
    let Invited {
        token,
        authority,
        now,
    } = invited;
    loop {
        let connecting = async {
            let connection = network.join(place).await?;
            Ok((connection, authority.clone()))
        };
        match join_over(connecting, token, root, (*now, TransportChoice::Tcp)).await {
            Ok(_) => return,
            Err(error @ (JoinError::Transport(_) | JoinError::Codec(_))) => {
                observer.note(format!("{} tries to join again: {error}", token.name));
            }
            // The operator's disk is full.
            Err(JoinError::Refused { reason }) if reason.contains("no storage space") => {}
            Err(error) => {
                observer.note(format!("{} does not join: {error}", token.name));
                return;
            }
        }
        tokio::time::sleep(JOIN_AGAIN).await;
    }
}

type Surroundings<'a> = (usize, &'a Network, &'a Observer);

/// Waits for runs and takes part in them, as `fedlora agent` does, until nobody lets it in any more.
async fn serve(root: &Path, seed: u64, surroundings: Surroundings<'_>) {
    let (place, network, observer) = surroundings;
    accept_plans(root);
    let opened = MemberDirectory::open(root).and_then(|(directory, membership)| {
        let lock = directory.lock()?;
        Ok((directory, membership, lock))
    });
    let (directory, membership, _lock) = match opened {
        Ok(opened) => opened,
        Err(error) => return observer.breaks(format!("{root:?} cannot be opened: {error}")),
    };
    let name = membership.config.name.clone();
    let connector = || SimulatedConnector {
        place,
        name: name.to_string(),
        certificate: membership.credentials.certificate().clone(),
        network: network.clone(),
        observer: observer.clone(),
    };
    let aggregator = membership.config.aggregator;
    let agent = Agent::new(connector(), aggregator, directory.clone());
    let mut agent = agent.with_jitter(|| 0.75);
    let mut next = left_open(&directory);
    loop {
        let accepted = match next.take() {
            Some(open) => open,
            None => match agent.next_run(&mut |_| ()).await {
                Ok(accepted) => accepted,
                Err(error) => return observer.note(format!("{name} stops: {error}")),
            },
        };
        let run = accepted.run;
        agent.set_state(AgentPhase::TakingPart, Some(run), None);
        let taken = take_part(&accepted, root, seed, connector(), observer).await;
        match taken {
            Ok(()) => agent.set_state(AgentPhase::Waiting, None, None),
            Err(error) => {
                observer.note(format!("{name} leaves run {run}: {error}"));
                if let ParticipantError::Receipts(error) = &error {
                    observer.contradicted(&name.to_string(), error);
                }
                match error.ends_run() && directory.end_run(run, &error.to_string()).is_ok() {
                    true => {}
                    false => agent.retry_later(run, error.to_string()),
                }
            }
        }
    }
}

/// Lets the agent accept every plan within the floors, and lowers that of the suite: the simulation's
/// time goes into what else happens.
fn accept_plans(root: &Path) {
    let path = root.join("fedlora.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    if !text.contains("[agent]") {
        let text = text.replace("suite = \"hybrid\"", "suite = \"classical\"");
        let text = text + "\n[agent]\nplans = \"accept\"\n";
        std::fs::write(path, text).expect("a configuration can be written");
    }
}

async fn take_part(
    accepted: &AcceptedRun,
    root: &Path,
    seed: u64,
    connector: SimulatedConnector,
    observer: &Observer,
) -> Result<(), ParticipantError> {
    let opened = MemberDirectory::open(root);
    let (directory, membership) = opened.expect("it was opened before");
    let name = membership.config.name.clone();
    if let Err(error) = directory.check_ledger(&name) {
        observer.note(format!("{name} takes no part: {error}"));
        return std::future::pending().await;
    }
    let work = TinyWork::new(accepted.run, name.as_str(), seed, observer.clone());
    let (events, _) = mpsc::unbounded_channel();
    let participant = Participant::new(
        membership,
        Arc::new(work),
        Box::new(directory.ledger()),
        Box::new(AcceptingPin(directory.roster_pin(None))),
        events,
    )
    .map_connector(|_| connector)
    .with_receipts(Box::new(FileReceipts::new(directory.runs())))
    .with_patience(PATIENCE)
    .in_run(ExpectedRun {
        run: accepted.run,
        plan: accepted.digest,
    });
    let outcome = participant.run().await?;
    observer.note(format!("{name} ends run {}", outcome.run));
    let kept = directory
        .begin_outcome(outcome.run)
        .map_err(|error| error.to_string());
    let kept = kept.and_then(|()| {
        let saved = peft::save(&directory.global(), &outcome.adapter, "simulated");
        saved.map_err(|error| error.to_string())
    });
    let kept = kept.and_then(|()| {
        let ended = directory.end_run(outcome.run, "finished");
        ended.map_err(|error| error.to_string())
    });
    if let Err(error) = kept {
        observer.breaks(format!("{name} cannot keep its adapter: {error}"));
    }
    Ok(())
}

/// A user that has compared every roster by telephone.
#[derive(Debug)]
struct AcceptingPin(FileRosterPin);

impl RosterPin for AcceptingPin {
    fn pin(&mut self, roster: &Roster) -> Result<(), PinError> {
        match self.0.pin(roster) {
            Err(PinError::Unaccepted { .. }) => self.0.accept(roster),
            pinned => pinned,
        }
    }

    fn accept(&mut self, roster: &Roster) -> Result<(), PinError> {
        self.0.accept(roster)
    }
}

/// Connects through the simulated network, and takes note of what a member says and hears.
#[derive(Debug, Clone)]
struct SimulatedConnector {
    place: usize,
    name: String,
    certificate: Certificate,
    network: Network,
    observer: Observer,
}

impl Connector for SimulatedConnector {
    type Link = WatchedLink;

    fn address(&self) -> &str {
        "simulated"
    }

    async fn open(&self, purpose: Purpose) -> Result<WatchedLink, LinkError> {
        let connection = self.network.connect(self.place, &self.certificate).await?;
        let (inner, _) = NetworkLink::open(connection, purpose).await?;
        Ok(WatchedLink {
            inner,
            name: self.name.clone(),
            observer: self.observer.clone(),
        })
    }
}

#[derive(Debug)]
struct WatchedLink {
    inner: NetworkLink,
    name: String,
    observer: Observer,
}

impl MemberLink for WatchedLink {
    type Carrier = WatchedCarrier;

    async fn send(&mut self, message: &ToAggregator) -> Result<(), LinkError> {
        if let ToAggregator::Round {
            open,
            message: RoundMessage::Reveal { .. },
        } = message
        {
            self.observer.revealed(&self.name, *open);
        }
        self.inner.send(message).await
    }

    async fn receive(&mut self) -> Result<ToMember, LinkError> {
        let message = self.inner.receive().await?;
        match &message {
            ToMember::Open(open) => self.observer.opened(&self.name, open),
            ToMember::Survivors { list, .. } => self.observer.listed(&self.name, list),
            _ => {}
        }
        Ok(message)
    }

    fn carrier(&self) -> WatchedCarrier {
        WatchedCarrier {
            inner: self.inner.carrier(),
            name: self.name.clone(),
            observer: self.observer.clone(),
        }
    }

    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn route(&self) -> &Route {
        self.inner.route()
    }

    async fn finish(self) {
        self.inner.finish().await;
    }

    async fn decline(self, reason: &str) {
        self.inner.decline(reason).await;
    }
}

#[derive(Debug, Clone)]
struct WatchedCarrier {
    inner: NetworkCarrier,
    name: String,
    observer: Observer,
}

impl BulkCarrier for WatchedCarrier {
    async fn upload(&self, upload: &Upload) -> Result<(), LinkError> {
        self.inner.upload(upload).await?;
        self.observer.stored(&self.name, &upload.open);
        Ok(())
    }

    async fn fetch(&self, adapter: Digest, values: usize) -> Result<Vec<f32>, LinkError> {
        self.inner.fetch(adapter, values).await
    }
}
