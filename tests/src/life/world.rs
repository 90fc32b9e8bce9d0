//! Carries out a case: a federation in memory, what happens to it, and then a while without faults.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fedlora_aggregator::Clock;
use fedlora_aggregator::queue::QueuedPlan;
use fedlora_aggregator::registry::InvitationFor;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RunPlan;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::checks;
use super::member::SimulatedMember;
use super::network::Network;
use super::observer::Observer;
use super::operator::{Operator, copy};
use super::ops::{Case, Op};

/// How long the service manager waits before it starts the aggregator again.
const RESTART: Duration = Duration::from_secs(2);
/// How long runs may take once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long an aggregator without a change is taken to be at work.
const IDLE: Duration = Duration::from_secs(3);
/// How often to look whether all is over.
const LOOK: Duration = Duration::from_secs(2);
/// The longest time for members to join in the setup.
const SETUP: Duration = Duration::from_secs(60);

/// A federation under simulation.
#[derive(Debug)]
pub(super) struct World<'a> {
    case: &'a Case,
    folder: &'a Path,
    pub(super) observer: Observer,
    network: Network,
    pub(super) operator: Operator,
    pub(super) members: Vec<SimulatedMember>,
    /// All plans that were queued, and acknowledged, by their runs.
    pub(super) queued: BTreeMap<RunId, RunPlan>,
    order: Vec<RunId>,
    pub(super) facts: Facts,
    backed_up: bool,
    saved: BTreeMap<usize, u32>,
    rng: StdRng,
    restart: Option<Instant>,
}

/// What has happened that changes what may be promised.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The operator's directory was set back.
    pub(super) restored: bool,
    /// A disk was full.
    pub(super) full: bool,
    /// Members that were removed, or have other keys.
    pub(super) removed: bool,
    /// Runs that the operator has ended.
    pub(super) aborted: Vec<RunId>,
}

impl<'a> World<'a> {
    /// A federation whose members have joined, with the first plan in the queue.
    pub(super) async fn begin(
        case: &'a Case,
        seed: u64,
        folder: &'a Path,
        observer: &Observer,
    ) -> anyhow::Result<Self> {
        let (network, observer) = (Network::default(), observer.clone());
        let operator = Operator::init(&folder.join("operator"), &network, &observer)?;
        let mut world = Self {
            case,
            folder,
            observer,
            network,
            operator,
            members: Vec::new(),
            queued: BTreeMap::new(),
            order: Vec::new(),
            facts: Facts::default(),
            backed_up: false,
            saved: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed ^ 0x5EED),
            restart: None,
        };
        world.operator.start();
        for _ in 0..case.members {
            world.let_join(seed)?;
        }
        let deadline = Instant::now() + SETUP;
        while !world.members.iter().all(SimulatedMember::has_joined) {
            anyhow::ensure!(Instant::now() < deadline, "members do not join");
            world.pass(Duration::from_millis(5)).await;
        }
        world.submit(case.rounds);
        Ok(world)
    }

    /// Carries out all operations, ends the faults, waits for the end of all runs, and checks all that
    /// was promised.
    pub(super) async fn live(mut self, shown: bool) {
        for op in &self.case.ops {
            if shown {
                println!("-- {op}");
            }
            self.carry_out(*op).await;
        }
        self.mend();
        self.wait_for_the_end().await;
        checks::check(&self, self.case.is_gentle());
        for member in &mut self.members {
            member.kill().await;
        }
        self.operator.kill().await;
        if shown {
            self.observer
                .seen()
                .notes
                .iter()
                .for_each(|note| println!("{note}"));
        }
    }

    /// Lets time pass; an aggregator that dies meanwhile is started again.
    async fn pass(&mut self, time: Duration) {
        self.pass_until(time, std::future::pending()).await;
    }

    /// Lets time pass until the aggregator has made so many durable changes more. Where it makes none
    /// for a while, it has nothing to do.
    async fn pass_changes(&mut self, number: u64) {
        let mut changes = self.operator.changes();
        let last = *changes.borrow_and_update() + number;
        while *changes.borrow_and_update() < last {
            let before = *changes.borrow();
            let one = changes.clone();
            self.pass_until(IDLE, more(one)).await;
            if *changes.borrow() == before {
                return;
            }
        }
    }

    /// Lets time pass until something is over, but no more than this.
    async fn pass_until(&mut self, time: Duration, over: impl Future<Output = ()>) {
        let end = Instant::now() + time;
        tokio::pin!(over);
        loop {
            let restart = self.restart;
            let starting = async {
                match restart {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(end) => return,
                () = &mut over => return,
                () = starting => {
                    self.restart = None;
                    self.operator.start();
                }
                () = self.operator.dies() => {
                    self.observer.note("the aggregator dies");
                    self.observer.seen().figures.deaths += 1;
                    self.restart = Some(Instant::now() + RESTART);
                }
            }
        }
    }

    async fn carry_out(&mut self, op: Op) {
        self.observer.note(format!("-- {op}"));
        if !matches!(op, Op::Wait(_) | Op::Changes(_)) {
            let in_run = self.queued.keys().any(|run| self.is_under_way(*run));
            let figures = &mut self.observer.seen().figures;
            figures.ops += 1;
            figures.ops_in_runs += u64::from(in_run);
        }
        match op {
            Op::Wait(time) => self.pass(Duration::from_millis(time.into())).await,
            Op::Changes(number) => self.pass_changes(number.into()).await,
            Op::Crash(moment, number) => self.operator.arm(moment, number),
            Op::Stop => {
                self.restart = None;
                self.operator.kill().await;
            }
            Op::Start => {
                self.restart = None;
                self.operator.start();
            }
            Op::Kill(member) => self.member(member).kill().await,
            Op::Revive(member) => self.member(member).start(),
            Op::Bounce(member) => {
                self.member(member).kill().await;
                self.member(member).start();
            }
            Op::Cut(member) => self.network.cut(member),
            Op::CutAfter(member, bytes) => {
                self.network.break_after(member, bytes.into());
                self.network.cut(member);
            }
            Op::Part(member) => self.network.part(member, true),
            Op::Heal(member) => self.network.part(member, false),
            Op::Delay(member, time) => {
                self.network
                    .delay(member, Duration::from_millis(time.into()));
                self.network.cut(member);
            }
            Op::Jump(seconds) => self.operator.clock.jump(seconds.into()),
            Op::Full => {
                self.facts.full = true;
                self.operator.fill(true);
            }
            Op::Free => self.operator.fill(false),
            Op::BackUp => {
                self.backed_up = true;
                self.operator.back_up(&self.folder.join("back-up"));
            }
            Op::Restore => self.restore().await,
            Op::Save(member) => self.save(member),
            Op::SetBack(member) => self.set_back(member).await,
            Op::Submit(rounds) => self.submit(rounds),
            Op::Abort => self.abort_first(),
            Op::Remove(member) => self.remove(member),
            Op::ReKey(member) => self.re_key(member).await,
            Op::Join => {
                if let Err(error) = self.let_join(7) {
                    self.observer
                        .breaks(format!("nobody can be invited: {error}"));
                }
            }
        }
    }

    fn member(&mut self, place: usize) -> &mut SimulatedMember {
        &mut self.members[place]
    }

    /// Invites somebody who joins at once.
    fn let_join(&mut self, seed: u64) -> anyhow::Result<()> {
        let place = self.members.len();
        let root = self.folder.join(format!("member-{place}"));
        let mut member = SimulatedMember::new((place, seed), &root, &self.network, &self.observer);
        let invited = self
            .operator
            .invite(&member.name, InvitationFor::NewMember)?;
        member.invite(invited, root);
        member.start();
        self.members.push(member);
        Ok(())
    }

    fn submit(&mut self, rounds: u32) {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let run = RunId(id);
        let mut plan = plan(self.case, rounds);
        plan.seed = Some(self.rng.next_u64() >> 1);
        let queued = QueuedPlan {
            submitted: self.operator.clock.now(),
            run,
            keep_for_audit: self.case.kept,
            plan: plan.clone(),
        };
        match self.operator.submit(&queued) {
            Ok(()) => {
                self.queued.insert(run, plan);
                self.order.push(run);
            }
            Err(error) => self
                .observer
                .breaks(format!("no plan can be queued: {error}")),
        }
    }

    /// Whether no member's program has died.
    pub(super) fn is_steady(&self) -> bool {
        !self.case.ops.iter().any(|op| matches!(op, Op::Bounce(_)))
    }

    /// Whether a run is over.
    pub(super) fn is_over(&self, run: RunId) -> bool {
        let folder = self.operator.run(run);
        folder.is_some_and(|folder| matches!(folder.end(), Ok(Some(_))))
    }

    fn is_under_way(&self, run: RunId) -> bool {
        let folder = self.operator.run(run);
        folder.is_some_and(|folder| matches!(folder.end(), Ok(None)))
    }

    fn abort_first(&mut self) {
        let first = self.order.iter().find(|run| !self.is_over(**run)).copied();
        if let Some(run) = first {
            self.facts.aborted.push(run);
            self.operator.abort(run);
        }
    }

    async fn restore(&mut self) {
        if !self.backed_up {
            return;
        }
        self.facts.restored = true;
        self.operator.restore(&self.folder.join("back-up")).await;
        self.restart = None;
        self.operator.start();
    }

    fn save(&mut self, member: usize) {
        let made = self.saved.entry(member).or_default();
        *made += 1;
        let to = self.folder.join(format!("saved-{member}"));
        let _ = std::fs::remove_dir_all(&to);
        copy(&self.members[member].root, &to);
    }

    async fn set_back(&mut self, member: usize) {
        if !self.saved.contains_key(&member) {
            return;
        }
        let from = self.folder.join(format!("saved-{member}"));
        let one = &mut self.members[member];
        one.kill().await;
        self.observer.forgets(&one.name);
        let _ = std::fs::remove_dir_all(&one.root);
        copy(&from, &one.root);
        one.start();
    }

    fn remove(&mut self, member: usize) {
        self.facts.removed = true;
        let name = self.members[member].name.parse().expect("a plain name");
        // It may have been removed before.
        let _ = self.operator.registry().remove(&name);
    }

    async fn re_key(&mut self, member: usize) {
        self.facts.removed = true;
        let name = self.members[member].name.clone();
        let Ok(invited) = self.operator.invite(&name, InvitationFor::OtherKeys) else {
            return;
        };
        let number = self.rng.next_u32();
        let root = self.folder.join(format!("{name}-{number}"));
        let one = &mut self.members[member];
        one.kill().await;
        one.invite(invited, root);
        one.start();
        // Its new log knows nothing of the old keys' sums; nor does anybody ask it about them.
    }

    /// No fault is to come, and what was broken works again.
    fn mend(&mut self) {
        self.observer.note("-- no fault from here on");
        self.network.mend();
        self.operator.mend();
        self.restart = None;
        self.operator.start();
        for member in &mut self.members {
            member.start();
        }
    }

    /// Waits until all runs are over. Where members are missing for good, the operator ends what cannot
    /// go on.
    async fn wait_for_the_end(&mut self) {
        let mut deadline = Instant::now() + PATIENCE;
        let mut may_abort = self.facts.restored || self.facts.removed;
        loop {
            let runs = self.queued.keys().copied();
            let queue = self.operator.directory.queue();
            let is_open = |run: &RunId| !self.is_over(*run) || queue.contains(*run);
            let open: Vec<_> = runs.filter(is_open).collect();
            let waits = open.iter().any(|run| !self.is_forgotten(*run));
            if !waits {
                break;
            }
            if Instant::now() > deadline {
                if may_abort {
                    may_abort = false;
                    for run in open {
                        self.operator.abort(run);
                        self.facts.aborted.push(run);
                    }
                    deadline = Instant::now() + PATIENCE;
                    continue;
                }
                self.observer.breaks(format!(
                    "{} of {} runs have no end, {} s after the last fault",
                    open.len(),
                    self.queued.len(),
                    PATIENCE.as_secs()
                ));
                break;
            }
            self.pass(LOOK).await;
        }
        // Members take their leave, and the aggregator tidies up.
        self.pass(Duration::from_secs(5)).await;
    }

    /// Whether the operator has nothing of a run: withdrawn, or queued after the copy that it went back
    /// to.
    pub(super) fn is_forgotten(&self, run: RunId) -> bool {
        let withdrawn = self.facts.aborted.contains(&run) || self.facts.restored;
        let queue = self.operator.directory.queue();
        withdrawn && self.operator.run(run).is_none() && !queue.contains(run)
    }
}

/// Waits for one change more.
async fn more(mut changes: watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A plan whose adapter has eight values, and that waits for nobody for long.
fn plan(case: &Case, rounds: u32) -> RunPlan {
    let members = case.members;
    // What a later quantum computer does not break costs most of the time.
    let suite = if case.kept { "hybrid" } else { "classical" };
    let text = format!(
        "rounds = {rounds}\nmembers = {members}\naggregation.suite = \"{suite}\"\n\
         [adapter]\nfactors = \"both\"\n\
         lora = {{ rank = 1, alpha = 1.0, dropout = 0.0, targets = [\"q\"] }}\n\
         [timeouts]\njoin = 120\nkeys = 20\nshares = 20\nupdate = 60\nprogress = 20\n\
         confirm = 20\nreveal = 20\nreconnect = 5\n"
    );
    RunPlan::from_toml(&text).expect("the simulation's plan is possible")
}
