//! What the federation is compared with: each member alone, all records in one place, and those
//! trained further at each member's home. All are taken at the length that does best on validation
//! records, and train both factors, as anyone would.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedlora_adapter::Adapter;
use fedlora_client::examples::MemberExamples;
use fedlora_client::personal::{
    self, Candidate, Choice, HomeProgress, Personalised, percent_below, train_alone, train_at_home,
};
use fedlora_client::update::{LocalWork, UpdateError};
use fedlora_protocol::ids::MemberIndex;
use fedlora_train::Progress;

use super::data::member_work;
use super::evaluate::{self, OwnScores};
use super::report::{EvaluationFigures, Scores};
use super::scene::Scene;

/// How the federation compares.
#[derive(Debug)]
pub(super) struct Comparison {
    /// What each member keeps, in the members' order.
    pub(super) chosen: Vec<Choice>,
    pub(super) personalised: Scores,
    pub(super) local_only: Option<Scores>,
    pub(super) centralised: Option<Scores>,
    pub(super) centralised_then_local: Option<Scores>,
    members: Vec<Personalised>,
    in_one_place: Option<InOnePlace>,
}

/// Adapters of all records in one place.
#[derive(Debug)]
struct InOnePlace {
    adapter: Adapter,
    /// The same trained further at each member's home, where that is better for it.
    then_local: Vec<Option<Candidate>>,
}

impl InOnePlace {
    fn at_home(&self) -> Vec<&Adapter> {
        let each = self.then_local.iter();
        each.map(|found| found.as_ref().map_or(&self.adapter, |one| &one.adapter))
            .collect()
    }
}

/// What answers each member's records.
#[derive(Debug, Clone)]
pub(super) enum Answering<'a> {
    /// The base alone.
    Base,
    /// One adapter for all members.
    Shared(&'a Adapter),
    /// Each member's own, in the members' order.
    Own(Vec<&'a Adapter>),
}

impl<'a> Answering<'a> {
    /// What answers the records of a member.
    pub(super) fn of(&self, member: usize) -> Option<&'a Adapter> {
        match self {
            Self::Base => None,
            Self::Shared(adapter) => Some(adapter),
            Self::Own(adapters) => Some(adapters[member]),
        }
    }
}

impl Comparison {
    /// The adapters of each way, where `global` is the federation's.
    pub(super) fn adapters<'a>(&'a self, global: &'a Adapter) -> EvaluationFigures<Answering<'a>> {
        let place = self.in_one_place.as_ref();
        EvaluationFigures {
            base: Answering::Base,
            local_only: alone(&self.members).map(Answering::Own),
            federated: Answering::Shared(global),
            personalised: Some(Answering::Own(kept(&self.members))),
            centralised: place.map(|one| Answering::Shared(&one.adapter)),
            centralised_then_local: place.map(|one| Answering::Own(one.at_home())),
        }
    }

    /// How much lower a member's perplexity is than alone, on its own held-out examples, in
    /// percent.
    pub(super) fn gain(&self, member: &str) -> Option<f64> {
        let alone = self.local_only.as_ref()?.by_member.get(member)?;
        let own = self.personalised.by_member.get(member)?;
        Some(percent_below(*alone, *own))
    }
}

/// The adapter that each member keeps.
fn kept(members: &[Personalised]) -> Vec<&Adapter> {
    members.iter().map(|one| &one.chosen().adapter).collect()
}

/// The adapter that each member trained alone, where all did.
fn alone(members: &[Personalised]) -> Option<Vec<&Adapter>> {
    let alone = members.iter().map(|one| one.get(Choice::Local));
    alone.map(|one| Some(&one?.adapter)).collect()
}

impl Scene<'_> {
    /// Compares what the federation ends with; with all records in one place too, where
    /// `centralised`.
    pub(super) fn compare(
        &self,
        global: &Adapter,
        centralised: bool,
    ) -> Result<Comparison, UpdateError> {
        let (engine, data) = (self.engine, self.data);
        let members = self.personalised(global)?;
        let mut own = OwnScores::new(engine, data);
        let mut comparison = Comparison {
            chosen: members.iter().map(|one| one.chosen().choice).collect(),
            personalised: own.of(&kept(&members))?,
            local_only: alone(&members).map(|alone| own.of(&alone)).transpose()?,
            centralised: None,
            centralised_then_local: None,
            members,
            in_one_place: None,
        };
        if centralised {
            let adapter = self.centralised()?;
            let scores = evaluate::one_for_all(engine, data, Some(&adapter))?;
            comparison.centralised = Some(scores);
            let then_local = self.then_local(&adapter)?;
            let place = InOnePlace {
                adapter,
                then_local,
            };
            comparison.centralised_then_local = Some(own.of(&place.at_home())?);
            comparison.in_one_place = Some(place);
        }
        Ok(comparison)
    }

    /// What each member would end with: its candidates, from the federation's adapter.
    fn personalised(&self, global: &Adapter) -> Result<Vec<Personalised>, UpdateError> {
        let steps = self.home() + self.alone();
        self.bars.begin("each member at home", steps);
        self.for_each(|work, name| {
            personal::personalise(work, self.plan, global, &mut |progress| {
                let (HomeProgress::AtHome(step) | HomeProgress::Alone(step)) = progress;
                self.show(name, step)
            })
        })
    }

    /// Trains on all records in one place, for at most as many steps as all members have together.
    fn centralised(&self) -> Result<Adapter, UpdateError> {
        let pooled = MemberExamples {
            training: self.data.all(|examples| &examples.training),
            validation: self.data.all(|examples| &examples.validation),
            held_out: Vec::new(),
        };
        let work = LocalWork::new(self.engine.clone(), pooled, self.plan.seed());
        self.bars.begin("centralised", self.alone());
        let members = self.data.institutions.len();
        let best = train_alone(&work, self.plan, members, &mut |step| {
            self.show("centralised", step)
        })?;
        Ok(best.adapter)
    }

    /// The centralised adapter trained further at each member's home, where that is better for it.
    fn then_local(&self, centralised: &Adapter) -> Result<Vec<Option<Candidate>>, UpdateError> {
        self.bars
            .begin("centralised, then each member at home", self.home());
        self.for_each(|work, name| {
            train_at_home(work, self.plan, centralised, &mut |step| {
                self.show(name, step)
            })
        })
    }

    /// The most steps that all members take at home: of lengths that double up to the longest.
    fn home(&self) -> u64 {
        self.of_all(self.plan.home_steps())
    }

    /// The most that all members take alone, and as many that all records in one place get.
    fn alone(&self) -> u64 {
        self.of_all(self.plan.steps() + self.plan.home_steps())
    }

    fn of_all(&self, longest: usize) -> u64 {
        let lengths = longest + longest / 2 + longest / 4;
        (lengths * self.data.institutions.len()) as u64
    }

    /// The most steps that [`compare`](Self::compare) takes.
    pub(super) fn steps(&self, centralised: bool) -> u64 {
        let once = self.home() + self.alone();
        if centralised { 2 * once } else { once }
    }

    fn show(&self, name: &str, step: Progress) -> bool {
        self.bars.tick(format!(
            "{name}, {} steps, loss {:.3}",
            step.steps, step.loss
        ));
        true
    }

    /// Does the same for every member, `jobs` of them at a time; in the members' order.
    fn for_each<T: Send>(
        &self,
        job: impl Fn(&LocalWork, &str) -> Result<T, UpdateError> + Sync,
    ) -> Result<Vec<T>, UpdateError> {
        let institutions = &self.data.institutions;
        in_parallel(self.jobs, institutions.len(), |index| {
            let one = &institutions[index];
            let (examples, seed) = (one.examples.clone(), self.plan.seed());
            let work = member_work(self.engine, examples, MemberIndex(index as u16), seed);
            job(&work, one.name.as_str())
        })
    }
}

/// What `job` gives for each number below `count`, in order; `jobs` of them run at a time.
pub(super) fn in_parallel<T: Send, E: Send>(
    jobs: usize,
    count: usize,
    job: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(count) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let outcome = job(index);
                    let mut done = done.lock().unwrap_or_else(|dead| dead.into_inner());
                    done.insert(index, outcome);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|dead| dead.into_inner());
    done.into_values().collect()
}
