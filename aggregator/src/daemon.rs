//! The aggregator as a whole: endpoints, enrolment, and the engine, from start to end of a run.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::{PlanError, RunPlan};
use fedlora_transport::pki::PkiError;
use fedlora_transport::{JoinServer, Limits, RestartSecret, ServerEndpoint, TransportError};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::audit::{self, AuditError, RecordFolder};
use crate::certificates::{Certificates, OwnCertificate};
use crate::clock::Clock;
use crate::directory::{Directory, DirectoryError, Opened};
use crate::engine::{Engine, EngineSetup, RunEvent, RunFailure, RunSummary};
use crate::registry::Registry;
use crate::remedy::Remedy;
use crate::{enrol, server};

/// Messages that may wait for the engine before senders have to.
const INBOX: usize = 256;

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
    /// No other process serves the directory meanwhile.
    _lock: File,
}

impl Aggregator {
    /// Opens both endpoints of an operator's directory. Deadlines, expiry and certificates follow
    /// `clock`. Must be called within a tokio runtime with more than one thread.
    ///
    /// # Errors
    /// [`ServeError`] naming the file or address.
    pub fn bind(root: &Path, clock: Arc<dyn Clock>) -> Result<Self, ServeError> {
        let (directory, opened) = Directory::open(root)?;
        let lock = directory.lock()?;
        let opened = Arc::new(opened);
        let certificates = Certificates::new(Arc::clone(&opened), Arc::clone(&clock));
        let (credentials, own) = certificates.for_server()?;
        let (join_credentials, join_own) = certificates.for_server()?;
        let authority = &opened.authority;
        let limits = Limits::default();
        let members = ServerEndpoint::bind(
            opened.config.listen,
            &credentials,
            authority.certificate(),
            Vec::new(),
            limits,
            &RestartSecret::derive(&opened.identity.expose()),
        )?;
        let joining = JoinServer::bind(
            opened.config.join_listen,
            &join_credentials,
            authority.certificate(),
            limits,
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
            _lock: lock,
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

    /// The UDP address that members with certificates connect to.
    ///
    /// # Errors
    /// [`TransportError::Broken`] when the socket is gone.
    pub fn address(&self) -> Result<SocketAddr, TransportError> {
        self.members.0.local_address()
    }

    /// The UDP address that invited members join at.
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
        let mut open = audit::open_run(self.directory.root(), &plan)?;
        if self.anew
            && let Some(given_up) = open.take()
        {
            warn!(run = %given_up.run, "the run is given up");
            given_up.give_up()?;
        }
        let (run, directory, record, kept) = match open {
            Some(open) => {
                let kept = open.read()?;
                plan = open.plan;
                (open.run, open.directory, open.record, Some(kept))
            }
            None => {
                let mut id = [0; 16];
                os_rng().fill_bytes(&mut id);
                plan.seed.get_or_insert_with(|| os_rng().next_u64() >> 1);
                let directory = self.directory.create_run(RunId(id))?;
                let record = RecordFolder::new(&directory, self.keep_for_audit);
                (RunId(id), directory, record, None)
            }
        };
        let registry = self.registry();
        let (inbox, messages) = mpsc::channel(INBOX);
        let engine = Engine::new(
            EngineSetup {
                run,
                plan,
                federation: self.opened.config.federation.clone(),
                operator: Arc::clone(&self.opened),
                registry: registry.clone(),
                directory,
                record,
                status: self.directory.status_path(),
                events,
                clock: Arc::clone(&self.clock),
            },
            messages,
        )?;
        let engine = match kept {
            Some(kept) => engine.taking_up(kept),
            None => engine,
        };
        info!(
            %run, listen = %self.address()?, join = %self.join_address()?,
            "waiting for members"
        );
        // A configured port 0 was taken by the system: members are told the real one.
        let member_address = match (&self.opened.config.advertise, self.opened.config.listen) {
            (None, listen) if listen.port() == 0 => self.address()?.to_string(),
            _ => self.opened.config.member_address(),
        };
        let (stop, stopped) = oneshot::channel();
        let enrolment = tokio::spawn(enrol::serve(
            self.joining,
            Arc::clone(&self.opened),
            registry.clone(),
            member_address,
            self.clock,
        ));
        let sessions = tokio::spawn(server::serve(
            self.members,
            (self.certificates, registry),
            inbox,
            stopped,
        ));
        let outcome = engine.run().await;
        enrolment.abort();
        let _ = stop.send(());
        let _ = sessions.await;
        Ok(outcome?)
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The operator's directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The server's key or certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// An endpoint cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The plan cannot be protected or encoded.
    #[error("the plan: {0}")]
    Plan(#[from] PlanError),
    /// A run that is not over cannot be read.
    #[error("a run that is not over: {0}")]
    OpenRun(#[from] AuditError),
    /// The run ended before its plan did.
    #[error(transparent)]
    Run(#[from] RunFailure),
}

impl ServeError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Directory(error) => error.remedy(),
            Self::OpenRun(_) | Self::Run(RunFailure::TakeUp(_)) => Some(Remedy::RestoreOrGiveUp),
            Self::Pki(_) | Self::Transport(_) | Self::Plan(_) | Self::Run(_) => None,
        }
    }
}
