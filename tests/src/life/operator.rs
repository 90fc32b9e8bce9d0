//! The operator: its directory, the life of its aggregator, and what it does by commands beside that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedlora_aggregator::Clock;
use fedlora_aggregator::config::AggregatorConfig;
use fedlora_aggregator::directory::{Directory, Opened};
use fedlora_aggregator::queue::QueuedPlan;
use fedlora_aggregator::registry::{InvitationFor, Registry, RegistryError};
use fedlora_aggregator::run_directory::RunDirectory;
use fedlora_aggregator::simulated;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_transport::Certificate;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};

use super::clock::JumpingClock;
use super::disk::{Death, Disk, Moment};
use super::member::Invited;
use super::network::Network;
use super::observer::Observer;

/// How long an invitation serves.
const INVITED: Duration = Duration::from_secs(14 * 86_400);

/// An operator with its directory.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) root: PathBuf,
    pub(super) directory: Directory,
    pub(super) clock: Arc<JumpingClock>,
    opened: Arc<Opened>,
    network: Network,
    observer: Observer,
    life: Option<Life>,
    full: bool,
    armed: Option<(Moment, u32)>,
    /// Durable changes of all lives of the aggregator.
    changes: Arc<watch::Sender<u64>>,
}

/// A process of the aggregator.
#[derive(Debug)]
struct Life {
    disk: Arc<Disk>,
    task: JoinHandle<Result<(), fedlora_aggregator::ServeError>>,
}

impl Operator {
    /// A new directory in the folder `root`.
    pub(super) fn init(
        root: &Path,
        network: &Network,
        observer: &Observer,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(JumpingClock::new());
        let config = AggregatorConfig::new("simulated", "127.0.0.1:1".parse()?)?;
        Directory::init(root, &config, clock.valid_from())?;
        let (directory, opened) = Directory::open(root)?;
        Ok(Self {
            root: root.to_owned(),
            directory,
            clock,
            opened: Arc::new(opened),
            network: network.clone(),
            observer: observer.clone(),
            life: None,
            full: false,
            armed: None,
            changes: Arc::default(),
        })
    }

    pub(super) fn registry(&self) -> Registry {
        Registry::new(self.directory.clone())
    }

    /// Starts the aggregator, unless it runs.
    pub(super) fn start(&mut self) {
        if self.life.is_some() {
            return;
        }
        let disk = Arc::new(Disk::new(
            &self.root,
            self.network.clone(),
            Arc::clone(&self.changes),
            self.full,
        ));
        if let Some((moment, number)) = self.armed.take() {
            disk.arm(moment, number);
        }
        let directory = self.directory.clone().mirrored(Arc::clone(&disk) as _);
        let (incoming, connections) = mpsc::channel(64);
        self.network.aggregator_is_up(incoming);
        // The results tell all that matters.
        let (events, _) = mpsc::unbounded_channel();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let operator = (directory, Arc::clone(&self.opened));
        let task = tokio::spawn(simulated::serve(operator, clock, connections, events));
        self.life = Some(Life { disk, task });
    }

    /// The number of durable changes so far, as it grows.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until the aggregator dies; for ever where there is none.
    pub(super) async fn dies(&mut self) {
        let Some(life) = &mut self.life else {
            return std::future::pending().await;
        };
        let ended = tokio::select! {
            () = life.disk.died.notified() => None,
            ended = &mut life.task => Some(ended),
        };
        match ended {
            None => self.kill().await,
            Some(ended) => {
                self.judge(ended);
                self.network.aggregator_is_gone();
                self.life = None;
            }
        }
    }

    /// Kills the aggregator between two changes.
    pub(super) async fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            life.disk.kill();
            life.task.abort();
            let ended = life.task.await;
            self.judge(ended);
        }
    }

    fn judge(&self, ended: Result<Result<(), fedlora_aggregator::ServeError>, JoinError>) {
        match ended {
            Ok(Ok(())) => self.observer.breaks("the aggregator ended by itself"),
            Ok(Err(error)) => self
                .observer
                .breaks(format!("the aggregator ended: {error}")),
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                if !error.into_panic().is::<Death>() {
                    self.observer.breaks("the aggregator panicked");
                }
            }
        }
    }

    /// The aggregator dies at a durable change to come, in this life or the next.
    pub(super) fn arm(&mut self, moment: Moment, number: u32) {
        match &self.life {
            Some(life) => life.disk.arm(moment, number),
            None => self.armed = Some((moment, number)),
        }
    }

    pub(super) fn fill(&mut self, full: bool) {
        self.full = full;
        if let Some(life) = &self.life {
            life.disk.fill(full);
        }
    }

    /// No fault of the disk's is to come.
    pub(super) fn mend(&mut self) {
        self.fill(false);
        self.armed = None;
        if let Some(life) = &self.life {
            life.disk.disarm();
        }
    }

    /// Invites a member, or gives it other keys.
    pub(super) fn invite(&self, name: &str, what: InvitationFor) -> Result<Invited, RegistryError> {
        let now = self.clock.now();
        let name: MemberName = name.parse().expect("a plain name");
        let authority = &self.opened.authority;
        let token = self.registry().invite(
            (name, what),
            "simulated".to_owned(),
            authority.fingerprint(),
            now.after(INVITED),
        )?;
        Ok(Invited {
            token,
            authority: Certificate::from_der(authority.certificate().as_der().to_vec()),
            now,
        })
    }

    /// Queues a plan.
    pub(super) fn submit(&self, queued: &QueuedPlan) -> std::io::Result<()> {
        self.directory.queue().submit(queued)
    }

    /// Asks for the end of a run that has begun; withdraws its plan otherwise.
    pub(super) fn abort(&self, run: RunId) {
        match self.run(run) {
            Some(folder) => {
                if folder.ask_to_end("the simulation wants it").is_err() {
                    self.observer.breaks("a run cannot be asked to end");
                }
            }
            None => drop(self.directory.queue().remove(run)),
        }
    }

    pub(super) fn run(&self, run: RunId) -> Option<RunDirectory> {
        RunDirectory::of(self.directory.store(), run)
    }

    /// Copies the directory, whatever the aggregator does meanwhile.
    pub(super) fn back_up(&self, to: &Path) {
        let _ = fs::remove_dir_all(to);
        copy(&self.root, to);
    }

    /// Puts a copy in the place of the directory.
    pub(super) async fn restore(&mut self, from: &Path) {
        self.kill().await;
        let _ = fs::remove_dir_all(&self.root);
        copy(from, &self.root);
    }
}

/// Copies a folder with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be read").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            // A temporary file may go meanwhile.
            false => drop(fs::copy(&path, &to)),
        }
    }
}
