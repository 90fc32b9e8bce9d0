//! What the federation is compared with: each member alone, all records in one place, and those
//! trained further at each member's home. All are taken at the length that does best on validation
//! records, and train both factors, as anyone would.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedlora_adapter::Adapter;
use fedlora_client::personal::{
    self, Candidate, Choice, HomeProgress, Personalised, train_at_home,
};
use fedlora_client::update::{LocalWork, UpdateError};
use fedlora_protocol::plan::RunPlan;
use fedlora_train::{Engine, Progress, Search};

use super::data::SimulationData;
use super::evaluate;
use super::progress::Bars;
use super::report::Scores;

/// The shortest centralised training, as a part of the longest.
const SHORTEST: usize = 4;

/// Trains what the simulation compares.
#[derive(Debug)]
pub(super) struct Trainings<'a> {
    pub(super) engine: &'a Engine,
    pub(super) data: &'a SimulationData,
    pub(super) plan: &'a RunPlan,
    /// Members that train at a time.
    pub(super) jobs: usize,
    pub(super) bars: &'a Bars,
}

/// How the federation compares.
#[derive(Debug)]
pub(super) struct Comparison {
    /// What each member keeps, in the members' order.
    pub(super) chosen: Vec<Choice>,
    pub(super) personalised: Scores,
    pub(super) local_only: Option<Scores>,
    pub(super) centralised: Option<Scores>,
    pub(super) centralised_then_local: Option<Scores>,
}

impl Comparison {
    /// How much lower a member's perplexity is than alone, on its own held-out examples, in
    /// percent.
    pub(super) fn gain(&self, member: &str) -> Option<f64> {
        let alone = self.local_only.as_ref()?.by_member.get(member)?;
        let own = self.personalised.by_member.get(member)?;
        Some(100.0 * (alone - own) / alone)
    }
}

impl Trainings<'_> {
    /// Compares what the federation ends with; with all records in one place too, where
    /// `centralised`.
    pub(super) fn compare(
        &self,
        global: &Adapter,
        centralised: bool,
    ) -> Result<Comparison, UpdateError> {
        let (engine, data) = (self.engine, self.data);
        let members = self.personalised(global)?;
        let kept = adapters(&members, |one| Some(one.chosen())).unwrap_or_default();
        let alone = adapters(&members, |one| one.get(Choice::Local));
        let kept_all_alone = members
            .iter()
            .all(|one| one.chosen().choice == Choice::Local);
        let alone = alone.map(|alone| evaluate::each_its_own(engine, data, &alone));
        let personalised = match &alone {
            Some(Ok(scores)) if kept_all_alone => scores.clone(),
            _ => evaluate::each_its_own(engine, data, &kept)?,
        };
        let mut comparison = Comparison {
            chosen: members.iter().map(|one| one.chosen().choice).collect(),
            personalised,
            local_only: alone.transpose()?,
            centralised: None,
            centralised_then_local: None,
        };
        if centralised {
            let first = engine.init_adapter(&self.plan.adapter.lora, self.plan.seed())?;
            let adapter = self.centralised(&first)?;
            let scores = evaluate::one_for_all(engine, data, Some(&adapter))?;
            comparison.centralised = Some(scores);
            let adapters = self.then_local(&adapter)?;
            let scores = evaluate::each_its_own(engine, data, &adapters)?;
            comparison.centralised_then_local = Some(scores);
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
    fn centralised(&self, first: &Adapter) -> Result<Adapter, UpdateError> {
        let training = self.data.all(|examples| &examples.training);
        let validation = self.data.all(|examples| &examples.validation);
        let plan = self.plan;
        let each = plan.steps() + plan.personalisation.home_steps(plan.steps());
        let most = NonZeroUsize::new(each * self.data.institutions.len());
        let longest = most.unwrap_or(NonZeroUsize::MIN);
        let shortest = longest.get().div_ceil(SHORTEST);
        let search = Search {
            training: &training,
            validation: &validation,
            longest,
            shortest: NonZeroUsize::new(shortest).unwrap_or(NonZeroUsize::MIN),
        };
        let work = LocalWork::new(self.engine.clone(), Default::default(), plan.seed());
        let options = work.options_at(plan, plan.alone_learning_rate())?;
        self.bars.begin("centralised", self.alone());
        let best = self
            .engine
            .best_length(first, search, &options, &mut |step| {
                self.show("centralised", step);
                ControlFlow::Continue(())
            })?;
        Ok(best.adapter)
    }

    /// The centralised adapter trained further at each member's home, where that is better for it.
    fn then_local(&self, centralised: &Adapter) -> Result<Vec<Adapter>, UpdateError> {
        self.bars
            .begin("centralised, then each member at home", self.home());
        self.for_each(|work, name| {
            let examples = work.examples();
            let options = work.options_at(self.plan, self.plan.home_learning_rate())?;
            let found = match examples.validation.is_empty() {
                true => None,
                false => train_at_home(
                    self.engine,
                    self.plan,
                    centralised,
                    &examples.training,
                    &examples.validation,
                    &options,
                    &mut |step| self.show(name, step),
                )?,
            };
            Ok(found.map_or_else(|| centralised.clone(), |candidate| candidate.adapter))
        })
    }

    /// The most steps that all members take at home: of lengths that double up to the longest.
    fn home(&self) -> u64 {
        let home = self.plan.personalisation.home_steps(self.plan.steps());
        self.of_all(home)
    }

    /// The most that all members take alone, and as many that all records in one place get.
    fn alone(&self) -> u64 {
        let plan = self.plan;
        self.of_all(plan.steps() + plan.personalisation.home_steps(plan.steps()))
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
        let next = AtomicUsize::new(0);
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(institutions.len()) {
                scope.spawn(|| {
                    while let Some((index, one)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        institutions.get(index).map(|one| (index, one))
                    } {
                        let work = self.data.work(self.engine, index, self.plan.seed());
                        let outcome = job(&work, one.name.as_str());
                        let mut done = done.lock().unwrap_or_else(|dead| dead.into_inner());
                        done.insert(index, outcome);
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(|dead| dead.into_inner());
        done.into_values().collect()
    }
}

fn adapters(
    members: &[Personalised],
    pick: impl Fn(&Personalised) -> Option<&Candidate>,
) -> Option<Vec<Adapter>> {
    members
        .iter()
        .map(|one| pick(one).map(|candidate| candidate.adapter.clone()))
        .collect()
}
