//! The aggregator as a whole: its endpoints, and what it serves on them: one run, or all that the
//! operator submits.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::{PlanError, RunPlan};
use fedlora_transport::{
    JoinServer, Limits, RestartSecret, ServerEndpoint, TransportError, Transports,
};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use tracing::{info, warn};

use crate::adapters::StartError;
use crate::audit::{self, AuditError};
use crate::ca::passphrase::PassphraseSource;
use crate::ca::{CaError, CustodyKind};
use crate::certificates::{Certificates, OwnCertificate};
use crate::clock::Clock;
use crate::database::{Attempt, Database, SharedStore, StoreError};
use crate::directory::{Directory, DirectoryError, Opened};
use crate::engine::{RunEvent, RunFailure, RunSummary};
use crate::operators::{self, ActKind, OperatorsError};
use crate::registry::Registry;
use crate::remedy::Remedy;
use crate::server::front;
use crate::server::seats::MAX_OPEN;
use crate::serving::{BegunRun, Serving};
use crate::web::Shown;
use crate::{enrol, retention, server};

/// An aggregator whose endpoints are open, ready to run a plan.
#[derive(Debug)]
pub struct Aggregator {
    directory: Directory,
    opened: Arc<Opened>,
    certificates: Certificates,
    members: (ServerEndpoint, OwnCertificate),
    joining: (JoinServer, OwnCertificate),
    clock: Arc<dyn Clock>,
    keep_for_audit: bool,
    anew: bool,
    /// Another host served the federation before.
    stood_by: bool,
    /// Where the directory is kept, where that is in a database.
    database: Option<Arc<Database>>,
    /// No other process serves the directory meanwhile.
    lock: File,
}

/// Connections between their handshakes and their places, and some that are being closed.
const HANDSHAKES: usize = 512;

/// Sockets and files of a federation, where all connections are over TCP.
pub(crate) const MAX_SOCKETS: usize = MAX_OPEN + enrol::MAX_JOINING + 4 * HANDSHAKES;

/// How often one that stands by looks whether it can serve.
const STANDBY_TICK: Duration = Duration::from_secs(1);

/// What opening an operator's directory came to.
#[derive(Debug)]
pub enum Opening {
    /// Its endpoints are open.
    Ready(Box<Aggregator>),
    /// It is kept in a store, and another host may serve the federation.
    Candidate(Box<Candidate>),
}

impl Opening {
    /// What the operator's page shows of it.
    pub fn shown(&self) -> Shown {
        match self {
            Self::Ready(aggregator) => aggregator.shown(),
            Self::Candidate(candidate) => Shown {
                federation: candidate.opened.config.federation.clone(),
                directory: candidate.directory.clone(),
            },
        }
    }
}

/// An aggregator that serves as soon as no other host does.
#[derive(Debug)]
pub struct Candidate {
    directory: Directory,
    opened: Opened,
    shared: SharedStore,
    clock: Arc<dyn Clock>,
    lock: File,
}

impl Candidate {
    /// Stands by while another host serves the federation, with the directory following; opens the
    /// endpoints once none does. Gives nothing where `stop` comes first. Must be called within a tokio
    /// runtime with more than one thread.
    ///
    /// # Errors
    /// [`ServeError`]. A store that is away is waited for.
    pub async fn wait(
        mut self,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Aggregator>, ServeError> {
        let mut stop = std::pin::pin!(stop);
        let mut served_by: Option<String> = None;
        loop {
            match block_in_place(|| self.shared.attempt()) {
                Ok(Attempt::Serves(database)) => {
                    info!("this host has the lease: it serves the federation");
                    let directory = self.directory.kept_in(Arc::clone(&database));
                    let parts = (directory, self.opened);
                    let bound = Aggregator::open(parts, self.lock, self.clock, Some(database))?;
                    return Ok(Some(Aggregator {
                        stood_by: served_by.is_some(),
                        ..bound
                    }));
                }
                Ok(Attempt::StandsBy { host }) => {
                    if served_by.as_ref() != Some(&host) {
                        info!(%host, "standing by: another host serves the federation");
                        served_by = Some(host);
                    }
                }
                Err(error @ StoreError::Away { .. }) => {
                    warn!(%error, "the store does not answer; trying again");
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = &mut stop => return Ok(None),
                () = tokio::time::sleep(STANDBY_TICK) => {}
            }
        }
    }
}

impl Aggregator {
    /// Opens both endpoints of an operator's directory that is kept nowhere else. Deadlines, expiry and
    /// certificates follow `clock`. Must be called within a tokio runtime with more than one thread.
    ///
    /// # Errors
    /// [`ServeError`] naming the file or address.
    pub fn bind(root: &Path, clock: Arc<dyn Clock>) -> Result<Self, ServeError> {
        let parts = Directory::open(root)?;
        let lock = parts.0.lock()?;
        Self::open(parts, lock, clock, None)
    }

    /// Opens an operator's directory, wherever it is kept; see [`bind`](Self::bind). `passphrase` is that
    /// of the authority's key, where it is sealed. Without it joins and renewals wait.
    ///
    /// # Errors
    /// [`ServeError`] naming the file or address, or the store.
    pub fn of_directory(
        root: &Path,
        passphrase: Option<&PassphraseSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Opening, ServeError> {
        let (directory, opened) = Directory::open(root)?;
        let opened = opened.with_passphrase(passphrase)?;
        let lock = directory.lock()?;
        match block_in_place(|| directory.shared_store(&opened))? {
            None => {
                let bound = Self::open((directory, opened), lock, clock, None)?;
                Ok(Opening::Ready(Box::new(bound)))
            }
            Some(shared) => Ok(Opening::Candidate(Box::new(Candidate {
                directory,
                opened,
                shared,
                clock,
                lock,
            }))),
        }
    }

    fn open(
        (directory, opened): (Directory, Opened),
        lock: File,
        clock: Arc<dyn Clock>,
        database: Option<Arc<Database>>,
    ) -> Result<Self, ServeError> {
        let opened = Arc::new(opened);
        let certificates = Certificates::new(&directory, Arc::clone(&opened), Arc::clone(&clock));
        let (credentials, own) = certificates.for_server()?;
        let (join_credentials, join_own) = certificates.for_server()?;
        let authority = &opened.authority;
        if authority.is_locked()? {
            let why = match authority.custody() {
                CustodyKind::Apart => "the authority's key is kept apart",
                _ => "the authority's key is sealed, and no passphrase was given",
            };
            warn!("{why}: joins and renewals of certificates wait until they are signed");
        }
        // The places of sessions are counted by member: these are above all of them.
        let limits = Limits::for_server(MAX_OPEN + HANDSHAKES);
        let transports = match opened.config.udp {
            true => Transports::All,
            false => Transports::TcpAlone,
        };
        let members = ServerEndpoint::bind(
            opened.config.listen,
            &credentials,
            authority.certificate(),
            Vec::new(),
            limits,
            &RestartSecret::derive(&opened.identity.expose()),
            transports,
        )?;
        let joining = JoinServer::bind(
            opened.config.join_listen,
            &join_credentials,
            authority.certificate(),
            Limits::for_server(enrol::MAX_JOINING + HANDSHAKES),
            transports,
        )?;
        Ok(Self {
            directory,
            opened,
            certificates,
            members: (members, own),
            joining: (joining, join_own),
            clock,
            keep_for_audit: false,
            anew: false,
            stood_by: false,
            database,
            lock,
        })
    }

    /// The same aggregator, which keeps of every attempt at a round what its replay needs: the
    /// events, and the masked updates that are in the sum.
    #[must_use]
    pub fn keeping_for_audit(mut self) -> Self {
        self.keep_for_audit = true;
        self
    }

    /// The same aggregator, which gives up a run of its plan that is not over, and begins another.
    #[must_use]
    pub fn beginning_anew(mut self) -> Self {
        self.anew = true;
        self
    }

    /// Whether it would begin another run of this plan, although it stood by while another host served
    /// the federation: that host's run may be over.
    ///
    /// # Errors
    /// A run that cannot be read.
    pub fn has_nothing_to_take_over(&self, plan: &RunPlan) -> Result<bool, ServeError> {
        Ok(self.stood_by && audit::open_run(self.directory.store(), plan)?.is_none())
    }

    /// The address that members with certificates connect to, UDP and TCP.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn address(&self) -> Result<SocketAddr, TransportError> {
        self.members.0.local_address()
    }

    /// The address that invited members join at, UDP and TCP.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn join_address(&self) -> Result<SocketAddr, TransportError> {
        self.joining.0.local_address()
    }

    /// The members and invitations in the operator's directory.
    pub fn registry(&self) -> Registry {
        Registry::new(self.directory.clone())
    }

    /// What the operator's page shows of it.
    pub fn shown(&self) -> Shown {
        Shown {
            federation: self.opened.config.federation.clone(),
            directory: self.directory.clone(),
        }
    }

    /// The certificate authority's fingerprint, which invitations carry.
    pub fn fingerprint(&self) -> fedlora_transport::CaFingerprint {
        self.opened.authority.fingerprint()
    }

    /// Runs a plan, from gathering the members to the last round; or goes on with its run, where one
    /// is there that is not over. `events` gets what happens.
    ///
    /// # Errors
    /// [`ServeError`]; members that are connected have been told.
    pub async fn run(
        self,
        mut plan: RunPlan,
        events: mpsc::UnboundedSender<RunEvent>,
    ) -> Result<RunSummary, ServeError> {
        let mut open = audit::open_run(self.directory.store(), &plan)?;
        if self.anew
            && let Some(given_up) = open.take()
        {
            warn!(run = %given_up.run, "the run is given up");
            given_up.give_up("the operator has begun another run", self.clock.now())?;
        }
        let begun = match open {
            Some(open) => BegunRun::taken_up(open)?,
            None => {
                let identity = self.opened.identity.public();
                let ledger = operators::of_directory(&self.directory, &identity)?;
                if ledger.rule_for(ActKind::Plans).is_some() {
                    return Err(OperatorsError::PlanNotQueued.into());
                }
                let mut id = [0; 16];
                os_rng().fill_bytes(&mut id);
                plan.seed.get_or_insert_with(|| os_rng().next_u64() >> 1);
                BegunRun::new(&self.directory, RunId(id), plan, self.keep_for_audit)?
            }
        };
        let database = self.database.clone();
        let beside = self.beside();
        let serving = self.start()?;
        let outcome = tokio::select! {
            outcome = serving.carry_out(begun, events) => outcome,
            never = beside => match never {},
            error = superseded(database.as_deref()) => Err(error.into()),
        };
        serving.stop(RUN_OVER).await;
        release(database.as_deref());
        outcome
    }

    /// Carries out the plans of the queue, one after the other, and the runs that are not over first.
    /// Ends once `stop` says so; a run goes on from there the next time.
    ///
    /// # Errors
    /// [`ServeError`] where the endpoints cannot be served. What goes wrong with a run is logged, and
    /// tried again where that may help.
    pub async fn serve(
        self,
        events: mpsc::UnboundedSender<RunEvent>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let database = self.database.clone();
        let beside = self.beside();
        let serving = self.start()?;
        let outcome = tokio::select! {
            () = stop => Ok(()),
            never = serving.carry_out_all(events) => match never {},
            never = beside => match never {},
            error = superseded(database.as_deref()) => Err(error.into()),
        };
        serving.stop("the aggregator stops").await;
        release(database.as_deref());
        outcome
    }

    /// What goes on beside the runs: what is old is removed.
    #[cfg(not(feature = "otlp"))]
    fn beside(&self) -> impl Future<Output = Infallible> + use<> {
        self.retention()
    }

    /// What goes on beside the runs: what is old is removed, and metrics are recorded.
    #[cfg(feature = "otlp")]
    fn beside(&self) -> impl Future<Output = Infallible> + use<> {
        let federation = self.opened.config.federation.clone();
        let metrics = crate::monitor::otlp::keep_up(self.directory.status_path(), federation);
        let retention = self.retention();
        async move {
            tokio::select! {
                never = retention => never,
                never = metrics => never,
            }
        }
    }

    fn retention(&self) -> impl Future<Output = Infallible> + use<> {
        let (directory, clock) = (self.directory.clone(), Arc::clone(&self.clock));
        retention::keep_to(directory, Arc::clone(&self.opened), clock)
    }

    /// Begins to let members in.
    fn start(self) -> Result<Serving, ServeError> {
        let (address, join) = (self.address()?, self.join_address()?);
        info!(listen = %address, join = %join, "members can connect");
        // A configured port 0 was taken by the system: members are told the real one.
        let member_address = match (&self.opened.config.advertise, self.opened.config.listen) {
            (None, listen) if listen.port() == 0 => address.to_string(),
            _ => self.opened.config.member_address(),
        };
        self.directory.record_start();
        let registry = self.registry();
        let (front, control) = front::open();
        let (stop, stopped) = oneshot::channel();
        let enrolment = tokio::spawn(enrol::serve(
            self.joining,
            Arc::clone(&self.opened),
            registry.clone(),
            member_address,
            Arc::clone(&self.clock),
        ));
        let sessions = tokio::spawn(server::serve(
            self.members,
            (self.certificates, registry.clone()),
            front,
            stopped,
        ));
        Ok(Serving {
            directory: self.directory,
            operator: self.opened,
            registry,
            clock: self.clock,
            front: control,
            stop,
            enrolment,
            sessions,
            _lock: self.lock,
        })
    }
}

/// Waits until another host has taken the federation over; for ever without a database.
async fn superseded(database: Option<&Database>) -> StoreError {
    match database {
        Some(database) => database.lost().await,
        None => std::future::pending().await,
    }
}

/// Lets another host serve.
fn release(database: Option<&Database>) {
    if let Some(database) = database {
        block_in_place(|| database.release());
    }
}

/// What members are told when the connection ends with the run.
const RUN_OVER: &str = "the run is over";

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The operator's directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The store behind the directory cannot be used, or another host has taken the federation over.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's key or certificate cannot be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// An endpoint cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The plan cannot be protected or encoded.
    #[error("the plan: {0}")]
    Plan(#[from] PlanError),
    /// The run cannot begin from the adapter that its plan names.
    #[error("the plan's start_from: {0}")]
    Start(#[from] StartError),
    /// A run that is not over cannot be read.
    #[error("a run that is not over: {0}")]
    OpenRun(#[from] AuditError),
    /// The plans that wait cannot be read.
    #[error("{}: {source}", path.display())]
    Queue {
        /// The queue's folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What needs two operators, or a log that does not say.
    #[error(transparent)]
    Operators(#[from] OperatorsError),
    /// The run ended before its plan did.
    #[error(transparent)]
    Run(#[from] RunFailure),
}

impl ServeError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Directory(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Ca(error) => error.remedy(),
            Self::Operators(error) => error.remedy(),
            Self::OpenRun(_) | Self::Run(RunFailure::TakeUp(_)) => Some(Remedy::RestoreOrGiveUp),
            Self::Transport(_)
            | Self::Plan(_)
            | Self::Start(_)
            | Self::Queue { .. }
            | Self::Run(_) => None,
        }
    }
}
