//! What the federation is compared with: each member alone, all records in one place, and those
//! trained further at each member's home. All are taken at the length that does best on validation
//! records, and train both factors, as anyone would.

use std::sync::Arc;

use fedlora_adapter::Adapter;
use fedlora_client::examples::MemberExamples;
use fedlora_client::personal::{
    self, Candidate, Choice, HomeProgress, Personalised, percent_below, steps_at_home, train_alone,
    train_at_home,
};
use fedlora_client::update::{LocalWork, UpdateError};
use fedlora_protocol::ids::MemberIndex;
use fedlora_train::Progress;

use super::data::{Institution, member_work};
use super::evaluate::{self, OwnScores};
use super::report::{EvaluationFigures, NewcomerFigures, Scores};
use super::scene::{Scene, in_parallel};
use super::tasks::Answering;

/// How the federation compares.
#[derive(Debug)]
pub(super) struct Comparison {
    /// What each member keeps, in the members' order.
    pub(super) chosen: Vec<Choice>,
    pub(super) personalised: Scores,
    pub(super) local_only: Option<Scores>,
    pub(super) centralised: Option<Scores>,
    pub(super) centralised_then_local: Option<Scores>,
    pub(super) newcomers: Vec<NewcomerFigures>,
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
        let members = self.personalised(global, &data.institutions, 0)?;
        let mut own = OwnScores::new(engine, data);
        let mut comparison = Comparison {
            chosen: members.iter().map(|one| one.chosen().choice).collect(),
            personalised: own.of(&kept(&members))?,
            local_only: alone(&members).map(|alone| own.of(&alone)).transpose()?,
            centralised: None,
            centralised_then_local: None,
            newcomers: self.newcomers(global)?,
            members,
            in_one_place: None,
        };
        if centralised {
            let adapter = self.centralised()?;
            let scores = evaluate::one_for_all(engine, data, Some(&adapter))?;
            comparison.centralised = Some(scores);
            let then_local = self.then_local(&adapter, &comparison.members)?;
            let place = InOnePlace {
                adapter,
                then_local,
            };
            comparison.centralised_then_local = Some(own.of(&place.at_home())?);
            comparison.in_one_place = Some(place);
        }
        Ok(comparison)
    }

    /// What those who join after the run end with.
    fn newcomers(&self, global: &Adapter) -> Result<Vec<NewcomerFigures>, UpdateError> {
        let (whose, first) = (&self.data.newcomers[..], self.data.institutions.len());
        let found = self.personalised(global, whose, first)?;
        let figures = whose.iter().zip(found).map(|(one, found)| {
            let held_out = &one.examples.held_out;
            let score = |adapter| {
                let scored = self.engine.evaluate(Some(adapter), held_out);
                scored.map(|evaluation| evaluation.perplexity)
            };
            let kept = found.chosen();
            let local_only = found.get(Choice::Local).map(|alone| score(&alone.adapter));
            let (own, local_only) = (score(&kept.adapter)?, local_only.transpose()?);
            Ok(NewcomerFigures {
                name: one.name.to_string(),
                training_examples: one.examples.training.len(),
                validation_examples: one.examples.validation.len(),
                held_out_examples: held_out.len(),
                federated: score(global)?,
                personalised: own,
                local_only,
                chosen: kept.choice,
                gain_percent: local_only.map(|alone| percent_below(alone, own)),
            })
        });
        figures.collect()
    }

    /// What each of these, the first of whom has this index, would end with: its candidates, from
    /// the federation's adapter.
    fn personalised(
        &self,
        global: &Adapter,
        whose: &[Institution],
        first: usize,
    ) -> Result<Vec<Personalised>, UpdateError> {
        if whose.is_empty() {
            return Ok(Vec::new());
        }
        let once = (self.home() + self.alone()) / self.data.institutions.len().max(1) as u64;
        self.bars
            .begin("each member at home", once * whose.len() as u64);
        self.for_each(whose, first, |_, work, name| {
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
        let mut found = train_alone(&work, self.plan, members, &mut |step| {
            self.show("centralised", step)
        })?;
        Ok(found.swap_remove(0).adapter)
    }

    /// What members make of the centralised adapter in the way they make something of the
    /// federation's, where that is better for them.
    fn then_local(
        &self,
        centralised: &Adapter,
        members: &[Personalised],
    ) -> Result<Vec<Option<Candidate>>, UpdateError> {
        self.bars
            .begin("centralised, then each member at home", self.home());
        self.for_each(&self.data.institutions, 0, |place, work, name| {
            let alone = members[place].alone();
            train_at_home(work, self.plan, centralised, alone, &mut |step| {
                self.show(name, step)
            })
        })
    }

    /// The steps that all members take at home.
    fn home(&self) -> u64 {
        (steps_at_home(self.plan) * self.data.institutions.len()) as u64
    }

    /// The most that all members take alone, and as many that all records in one place get: of
    /// lengths that double up to the longest.
    fn alone(&self) -> u64 {
        let longest = self.plan.steps() + self.plan.home_steps();
        of_lengths(longest, self.data.institutions.len())
    }

    /// The most steps that [`compare`](Self::compare) takes.
    pub(super) fn steps(&self, centralised: bool) -> u64 {
        let once = self.home() + self.alone();
        let own = self.data.institutions.len().max(1) as u64;
        let newcomers = once * self.data.newcomers.len() as u64 / own;
        newcomers + if centralised { 2 * once } else { once }
    }

    fn show(&self, name: &str, step: Progress) -> bool {
        self.bars.tick(format!(
            "{name}, {} steps, loss {:.3}",
            step.steps, step.loss
        ));
        true
    }

    /// Does the same for each of these, `jobs` of them at a time; in their order. The first of them
    /// has the index `first` as a member.
    fn for_each<T: Send>(
        &self,
        institutions: &[Institution],
        first: usize,
        job: impl Fn(usize, &LocalWork, &str) -> Result<T, UpdateError> + Sync,
    ) -> Result<Vec<T>, UpdateError> {
        in_parallel(self.jobs, institutions.len(), |index| {
            let one = &institutions[index];
            let member = MemberIndex((first + index) as u16);
            let (examples, seed) = (one.examples.clone(), self.plan.seed());
            let work =
                member_work(self.engine, examples, member, seed).with_own(Arc::clone(&one.own));
            job(index, &work, one.name.as_str())
        })
    }
}

/// Steps of `members` trainings at three lengths, of which this is the longest.
fn of_lengths(longest: usize, members: usize) -> u64 {
    ((longest + longest / 2 + longest / 4) * members) as u64
}
