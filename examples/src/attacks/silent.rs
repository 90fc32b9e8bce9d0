//! A member that connects, answers everything and never uploads: against the aggregator's true
//! engine, over channels and a clock that the attack winds on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};

use fedlora_adapter::Adapter;
use fedlora_aggregator::Clock;
use fedlora_aggregator::audit::RecordFolder;
use fedlora_aggregator::config::AggregatorConfig;
use fedlora_aggregator::directory::Directory;
use fedlora_aggregator::engine::{About, Engine, EngineSetup, RunEvent, SessionId, ToEngine};
use fedlora_aggregator::registry::{MemberRecord, Registry};
use fedlora_common::clock::Timestamp;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::round::participant::MemoryLedger;
use fedlora_protocol::wire::messages::{RoundResult, ToMember};

use super::federation::TargetFederation;
use super::member::{Sent, TargetMember};
use super::report::Attempt;

/// The member that never uploads.
const SILENT: MemberIndex = MemberIndex(0);

/// How long nobody says anything before the clock is wound on.
const QUIET: Duration = Duration::from_millis(200);
const WIND: Duration = Duration::from_secs(30);

/// Answers everything but the call for its update, in both rounds of a run.
pub(super) fn silent_member() -> anyhow::Result<Attempt> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut federation = with_the_plans_first_adapter()?;
    let timeouts = federation.plan.timeouts.clone();
    let (results, lost) = runtime.block_on(async {
        let mut run = EngineRun::begin(&federation)?;
        run.drive(&mut federation).await?;
        anyhow::Ok((run.results, run.clock.elapsed()))
    })?;
    let others = federation.roster.len() - 1;
    let whole = results.iter().filter(|one| one.survivors.len() == others);
    let whole = whole.count();
    let seconds = lost.as_secs();
    Ok(Attempt {
        tried: "keys and shares as they should be, and never an update, in each round of a run",
        answer: format!(
            "{whole} of {} rounds gave the sum of the other {others} members. The run took \
             {seconds} s: a member may be silent for {} s, and the time for an update is {} s",
            federation.plan.rounds, timeouts.progress, timeouts.update,
        ),
        held: whole == federation.plan.rounds as usize && seconds < 2 * timeouts.progress,
    })
}

/// A federation whose members make of the plan what the aggregator does.
fn with_the_plans_first_adapter() -> anyhow::Result<TargetFederation> {
    let mut federation = TargetFederation::new(|_| ())?;
    let lora = federation.plan.adapter.lora.clone();
    let layout = federation.adapter.layout().clone();
    let first = Adapter::initial(lora, layout, federation.plan.seed())?;
    for place in 0..federation.members.len() {
        let settings = federation.settings(place);
        let ledger = Box::<MemoryLedger>::default();
        let rng = &mut federation.rng;
        federation.members[place] = TargetMember::new(settings, ledger, first.clone(), place, rng);
    }
    Ok(federation)
}

/// A clock that stands until it is wound on.
#[derive(Debug, Default)]
struct WoundClock(AtomicU64);

impl WoundClock {
    const START: u64 = 1_700_000_000_000;

    fn wind(&self) {
        self.0.fetch_add(WIND.as_millis() as u64, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for WoundClock {
    fn now(&self) -> Timestamp {
        Timestamp(Self::START).after(self.elapsed())
    }
}

/// The aggregator's engine with a connection to every member.
struct EngineRun {
    clock: Arc<WoundClock>,
    engine: tokio::task::JoinHandle<()>,
    inbox: mpsc::Sender<ToEngine>,
    outboxes: Vec<mpsc::UnboundedReceiver<ToMember>>,
    events: mpsc::UnboundedReceiver<RunEvent>,
    results: Vec<RoundResult>,
    /// Holds the operator's directory.
    _folder: tempfile::TempDir,
}

impl EngineRun {
    fn begin(federation: &TargetFederation) -> anyhow::Result<Self> {
        let clock = Arc::new(WoundClock::default());
        let folder = tempfile::tempdir()?;
        let config = AggregatorConfig::new("attacked", "127.0.0.1:1".parse()?)?;
        Directory::init(folder.path(), &config, clock.valid_from())?;
        let (directory, mut operator) = Directory::open(folder.path())?;
        operator.identity = IdentityKey::from_bytes(&federation.aggregator.expose());
        for entry in federation.roster.entries() {
            let record = MemberRecord {
                name: entry.name.clone(),
                identity: entry.identity,
                certificate_key: entry.certificate_key,
                serial: String::new(),
                joined: clock.now(),
            };
            let path = directory.members().join(format!("{}.json", entry.name));
            std::fs::write(path, serde_json::to_vec(&record)?)?;
        }
        let (watcher, events) = mpsc::unbounded_channel();
        let run_directory = directory.create_run(federation.run)?;
        let setup = EngineSetup {
            run: federation.run,
            plan: federation.plan.clone(),
            start: None,
            federation: config.federation,
            operator: Arc::new(operator),
            registry: Registry::new(directory.clone()),
            record: RecordFolder::new(&run_directory, false),
            directory: run_directory,
            status: directory.status_path(),
            events: watcher,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        };
        let (inbox, taken) = mpsc::channel(64);
        let engine = Engine::new(setup, taken)?;
        // How it ends is in the events.
        let engine = tokio::spawn(async { drop(engine.run().await) });
        Ok(Self {
            clock,
            engine,
            inbox,
            outboxes: Vec::new(),
            events,
            results: Vec::new(),
            _folder: folder,
        })
    }

    /// Carries messages between engine and members until the run is over.
    async fn drive(&mut self, federation: &mut TargetFederation) -> anyhow::Result<()> {
        for (entry, session) in federation.roster.entries().iter().zip(0..) {
            let (outbox, received) = mpsc::unbounded_channel();
            self.outboxes.push(received);
            let connected = ToEngine::Connected {
                member: entry.name.clone(),
                session: SessionId(session),
                outbox,
                about: About::default(),
            };
            self.inbox.send(connected).await?;
        }
        while !self.engine.is_finished() {
            if !self.deliver(federation).await? {
                tokio::time::sleep(QUIET).await;
                if !self.deliver(federation).await? {
                    self.clock.wind();
                }
            }
            while let Ok(event) = self.events.try_recv() {
                if let RunEvent::RoundDone { result, .. } = event {
                    self.results.push(result);
                }
            }
        }
        Ok(())
    }

    /// Hands the members what the engine has sent. Whether there was anything.
    async fn deliver(&mut self, federation: &mut TargetFederation) -> anyhow::Result<bool> {
        let mut any = false;
        for member in federation.all() {
            let place = usize::from(member.0);
            while let Ok(message) = self.outboxes[place].try_recv() {
                any = true;
                if let ToMember::Result(result) = &message {
                    let (reply, adapter) = oneshot::channel();
                    let adapter_digest = result.claimed().adapter;
                    let fetch = ToEngine::FetchAdapter {
                        adapter: adapter_digest,
                        reply,
                    };
                    self.inbox.send(fetch).await?;
                    federation.member(member).offered =
                        adapter.await?.map(|adapter| adapter.values().to_vec());
                }
                let finished = matches!(message, ToMember::Finished { .. });
                for sent in federation.tell(member, &message)? {
                    self.send(federation, member, sent).await?;
                }
                if finished {
                    let gone = ToEngine::Disconnected {
                        member: federation.roster.entries()[place].name.clone(),
                        session: SessionId(place as u64),
                        said: None,
                    };
                    self.inbox.send(gone).await?;
                }
            }
        }
        Ok(any)
    }

    async fn send(
        &self,
        federation: &TargetFederation,
        from: MemberIndex,
        sent: Sent,
    ) -> anyhow::Result<()> {
        let entry = federation.roster.get(from).context("a member")?;
        let member = entry.name.clone();
        match sent {
            Sent::Message(message) => {
                let message = Box::new(message);
                Ok(self
                    .inbox
                    .send(ToEngine::Message { member, message })
                    .await?)
            }
            Sent::Upload(_) if from == SILENT => Ok(()),
            Sent::Upload(Upload {
                open,
                masked,
                claim,
            }) => {
                let (reply, path) = oneshot::channel();
                let begins = ToEngine::UploadBegins {
                    member: member.clone(),
                    open,
                    length: masked.as_bytes().len() as u64,
                    reply,
                };
                self.inbox.send(begins).await?;
                std::fs::write(path.await??, masked.as_bytes())?;
                let (reply, taken) = oneshot::channel();
                let uploaded = ToEngine::Uploaded {
                    member,
                    open,
                    claim,
                    reply,
                };
                self.inbox.send(uploaded).await?;
                Ok(taken.await??)
            }
        }
    }
}
