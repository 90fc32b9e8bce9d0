//! A member's own adapter beside that of the rest of the world: FedALT (Bian et al.,
//! arXiv:2503.11880).
//!
//! Each member trains an adapter O of its own in all rounds, and tells by how much it changed. The
//! global adapter N is then the weighted mean of all, and that of the others follows from it without
//! another message: `R = (W N - w O) / (W - w)`, with w this member's weight and W that of all. The
//! member trains O beside R, which stays as it is, with a learned weight on each projection.
//!
//! Not every member is in every sum. So what a member has put into N is summed up round by round, at
//! the share that it had in each: `P = sum of s d`. With the first adapter N0 and the mean share s,
//! `R = N0 + (N - N0 - P) / (1 - s)`: the formula above, where the share is always the same. A change
//! that did not get into N, or that a clip cut, is told with the next one; one that was taken back by
//! votes, too.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fedlora_adapter::{Adapter, AdapterError, Delta};
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::{PersonalisationMethod, RollbackPlan, RunPlan};
use fedlora_protocol::round::member::RoundShare;
use fedlora_train::Beside;
use zeroize::Zeroizing;

use super::Start;

/// The largest mean share that is divided by: above it what is known of the others is mostly noise.
const MOST: f64 = 0.5;

/// A member's own adapter.
#[derive(Default)]
pub(super) struct OwnAdapter(Mutex<Option<Kept>>);

type Values = Zeroizing<Vec<f32>>;

struct Kept {
    /// O.
    values: Values,
    /// What of O is in the global adapter.
    sent: Values,
    /// The change that was told last, and in which round.
    told: Option<(RoundNumber, Values)>,
    /// The newest change that got into the global adapter, with its share, where it was in the newest
    /// round.
    last: Option<(f64, Values)>,
    /// N0.
    first: Values,
    /// P.
    put_in: Values,
    /// The sum of all shares, and of how many rounds.
    shares: (f64, u32),
    /// The weights of the others' adapter.
    weights: Vec<f32>,
    /// R, once the run is over.
    rest: Option<Values>,
}

/// What came of a round's training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trained<'a> {
    pub(crate) round: RoundNumber,
    /// The trained adapter.
    pub(crate) adapter: &'a Adapter,
    /// The weights of the frozen one beside it.
    pub(crate) weights: &'a [f32],
    /// The change that travels.
    pub(crate) delta: &'a Delta,
}

fn learns_beside(plan: &RunPlan) -> bool {
    plan.personalisation.method == PersonalisationMethod::RestOfWorld
}

fn with(global: &Adapter, values: &[f32]) -> Result<Adapter, AdapterError> {
    let (config, layout) = (global.config().clone(), global.layout().clone());
    Adapter::new(config, layout, values.to_vec())
}

impl OwnAdapter {
    /// Begins with the global adapter, and notes what became of the changes that were told.
    pub(super) fn settle(
        &self,
        plan: &RunPlan,
        global: &Adapter,
        since: &[RoundShare],
    ) -> Result<(), AdapterError> {
        if !learns_beside(plan) {
            return Ok(());
        }
        let mut kept = self.kept();
        let Some(own) = kept.as_mut() else {
            // Rounds before it began, or was started again, are in the global adapter as it is.
            *kept = Some(Kept::begin(global));
            return Ok(());
        };
        if own.values.len() != global.values().len() {
            return Err(AdapterError::OtherAdapter);
        }
        for round in since {
            own.settle(round);
        }
        Ok(())
    }

    /// The run is over with this newest global adapter.
    pub(super) fn end(
        &self,
        plan: &RunPlan,
        newest: &Adapter,
        since: &[RoundShare],
    ) -> Result<(), AdapterError> {
        self.settle(plan, newest, since)?;
        if let Some(own) = self.kept().as_mut().filter(|_| learns_beside(plan)) {
            own.rest = Some(Zeroizing::new(own.rest(newest)));
        }
        Ok(())
    }

    /// O, beside the others' adapter as it follows from the global one; nothing where the plan asks
    /// for neither.
    pub(super) fn beside(
        &self,
        global: &Adapter,
        plan: &RunPlan,
    ) -> Result<Option<Start>, AdapterError> {
        if !learns_beside(plan) {
            return Ok(None);
        }
        let kept = self.kept();
        let begun;
        let own = match kept.as_ref() {
            Some(own) => own,
            None => {
                begun = Kept::begin(global);
                &begun
            }
        };
        let rest = match &own.rest {
            Some(rest) => with(global, rest)?,
            None => with(global, &own.rest(global))?,
        };
        Ok(Some(Start {
            adapter: with(global, &own.values)?,
            sent: with(global, &own.sent)?,
            beside: Some(Beside {
                weights: own.weights.clone(),
                ..Beside::new(rest)
            }),
        }))
    }

    /// Keeps what was trained.
    pub(super) fn keep(&self, plan: &RunPlan, trained: Trained<'_>) {
        let mut kept = self.kept();
        let Some(own) = kept.as_mut().filter(|_| learns_beside(plan)) else {
            return;
        };
        own.values = Zeroizing::new(trained.adapter.values().to_vec());
        own.weights = trained.weights.to_vec();
        let told = Zeroizing::new(trained.delta.values().to_vec());
        own.told = Some((trained.round, told));
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// A member that has trained nothing yet, or has lost what it had: O is the global adapter, and so
    /// is that of the others.
    fn begin(global: &Adapter) -> Self {
        let values = || Zeroizing::new(global.values().to_vec());
        Self {
            values: values(),
            sent: values(),
            told: None,
            last: None,
            first: values(),
            put_in: Zeroizing::new(vec![0.0; global.values().len()]),
            shares: (0.0, 0),
            weights: vec![0.0; global.projections()],
            rest: None,
        }
    }

    /// Notes what became of the change that was told in a round.
    fn settle(&mut self, round: &RoundShare) {
        self.shares.1 += 1;
        let told = self.told.take_if(|(number, _)| *number == round.round);
        let last = self.last.take();
        if round.taken_back {
            if let Some((share, mut change)) = last {
                // What a second one takes back is a part of this.
                for value in change.iter_mut() {
                    *value = (-RollbackPlan::PART * f64::from(*value)) as f32;
                }
                self.put(share, &change);
                self.last = Some((share, change));
            }
        } else if let (Some(share), Some((_, change))) = (round.share, told) {
            self.shares.0 += share;
            self.put(share, &change);
            self.last = Some((share, change));
        }
    }

    /// A change got into the global adapter, at this share.
    fn put(&mut self, share: f64, change: &[f32]) {
        let both = self.sent.iter_mut().zip(self.put_in.iter_mut());
        for ((sent, put_in), change) in both.zip(change) {
            *sent += change;
            *put_in += (share * f64::from(*change)) as f32;
        }
    }

    /// R, by the newest global adapter.
    fn rest(&self, global: &Adapter) -> Vec<f32> {
        let mean = (self.shares.0 / f64::from(self.shares.1.max(1))).clamp(0.0, MOST);
        let places = global.values().iter().zip(self.first.iter());
        let places = places.zip(self.put_in.iter());
        let rest = |((now, first), put_in): ((&f32, &f32), &f32)| {
            let first = f64::from(*first);
            (first + (f64::from(*now) - first - f64::from(*put_in)) / (1.0 - mean)) as f32
        };
        places.map(rest).collect()
    }
}

impl fmt::Debug for OwnAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnAdapter(..)")
    }
}

#[cfg(test)]
mod tests {
    use fedlora_adapter::{LoraConfig, Target};

    use super::*;

    const FIRST: [f32; 5] = [1.0, 2.0, 3.0, 0.0, 0.0];

    fn plan(method: &str) -> RunPlan {
        RunPlan::from_toml(&format!(
            "rounds = 9\nmembers = 3\n[adapter]\nfactors = \"both\"\n\
             lora = {{ rank = 1, alpha = 1.0, targets = [\"q\"] }}\n\
             [personalisation]\nmethod = \"{method}\"\n"
        ))
        .unwrap()
    }

    fn adapter(values: &[f32]) -> Adapter {
        let config = LoraConfig::new(1, 1.0, 0.0, [Target::Q]).unwrap();
        let layout = Adapter::layout_for(&config, 1, |_, _| (3, 2)).unwrap();
        Adapter::new(config, layout, values.to_vec()).unwrap()
    }

    fn round(number: u32, share: Option<f64>) -> RoundShare {
        RoundShare {
            round: RoundNumber(number),
            share,
            taken_back: false,
        }
    }

    /// Adds `change` to a member's own adapter, and tells the part of it that `clip` allows.
    fn train(own: &OwnAdapter, number: u32, global: &Adapter, change: f32, clip: f64) -> Vec<f32> {
        let plan = plan("rest-of-world");
        let start = own.beside(global, &plan).unwrap();
        let start = start.expect("the plan asks for it");
        let moved = start.adapter.values().iter().map(|value| value + change);
        let trained = adapter(&moved.collect::<Vec<_>>());
        let mut delta = trained
            .difference(&start.sent, global.layout())
            .expect("the same layout");
        delta.clip(clip).unwrap();
        own.keep(
            &plan,
            Trained {
                round: RoundNumber(number),
                adapter: &trained,
                weights: &[0.5],
                delta: &delta,
            },
        );
        delta.values().to_vec()
    }

    fn start(own: &OwnAdapter, global: &Adapter) -> Start {
        let start = own.beside(global, &plan("rest-of-world")).unwrap();
        start.expect("the plan asks for it")
    }

    #[track_caller]
    fn close(got: &Adapter, expected: impl IntoIterator<Item = f32>) {
        let expected: Vec<f32> = expected.into_iter().collect();
        let pairs = got.values().iter().zip(&expected);
        let far = pairs.map(|(got, want)| (got - want).abs());
        let values = got.values();
        assert!(
            far.fold(0.0, f32::max) < 1e-5,
            "{values:?} for {expected:?}"
        );
    }

    #[test]
    fn the_others_adapter_follows_from_the_mean() {
        let plan = plan("rest-of-world");
        let shares = [0.25, 0.75];
        let members = [OwnAdapter::default(), OwnAdapter::default()];
        let mut global = adapter(&FIRST);
        let mut since = [Vec::new(), Vec::new()];
        for number in 1..=3 {
            let mut sum = vec![0.0; FIRST.len()];
            for (member, change) in [0.5, -1.0].into_iter().enumerate() {
                let own = &members[member];
                own.settle(&plan, &global, &since[member]).unwrap();
                let told = train(own, number, &global, change, 100.0);
                for (sum, told) in sum.iter_mut().zip(told) {
                    *sum += (shares[member] * f64::from(told)) as f32;
                }
                since[member] = vec![round(number, Some(shares[member]))];
            }
            global.add(&global.layout().clone(), &sum).unwrap();
        }
        for (member, own) in members.iter().enumerate() {
            own.settle(&plan, &global, &since[member]).unwrap();
            let start = start(own, &global);
            assert_eq!(start.adapter, start.sent);
            let beside = start.beside.unwrap();
            assert_eq!(beside.weights, [0.5]);
            // What the other one has put in, at its share; all of it where this one's share is half
            // at most.
            let others: f32 = [-3.0, 0.5 * 3.0 * 0.25 / 0.5][member];
            close(&beside.adapter, FIRST.map(|value| value + others));
        }
        assert_eq!(format!("{:?}", members[0]), "OwnAdapter(..)");
    }

    /// Rounds without this member, of which it also misses the beginning: what the others have put in
    /// is whole, and nothing is told twice.
    #[test]
    fn missed_rounds_belong_to_the_others_alone() {
        let plan = plan("rest-of-world");
        let own = OwnAdapter::default();
        let mut global = adapter(&FIRST);
        own.settle(&plan, &global, &[]).unwrap();
        let told = train(&own, 1, &global, 1.0, 100.0);
        let moved: Vec<f32> = told.iter().map(|told| 0.25 * told + 0.75 * 2.0).collect();
        global.add(&global.layout().clone(), &moved).unwrap();
        // Rounds 2 and 3 go on without it.
        let missed = vec![2.0; FIRST.len()];
        global.add(&global.layout().clone(), &missed).unwrap();
        let since = [round(1, Some(0.25)), round(2, None), round(3, None)];
        own.settle(&plan, &global, &since).unwrap();
        let start = start(&own, &global);
        assert_eq!(start.adapter, start.sent);
        let others = (0.75 * 2.0 + 2.0) / (1.0 - 0.25 / 3.0);
        let rest = start.beside.unwrap().adapter;
        close(&rest, FIRST.map(|value| value + others));
        assert_eq!(train(&own, 4, &global, 1.0, 100.0), [1.0; 5]);
    }

    /// What a sum lacks, a clip cut off, or votes took back, is told the next time.
    #[test]
    fn what_did_not_get_in_is_told_later() {
        let plan = plan("rest-of-world");
        let global = adapter(&[0.0; 5]);
        let own = OwnAdapter::default();
        own.settle(&plan, &global, &[]).unwrap();
        assert_eq!(train(&own, 1, &global, 1.0, 100.0), [1.0; 5]);
        // The round went on without this member; and then one in which it was clipped.
        own.settle(&plan, &global, &[round(1, None)]).unwrap();
        let norm = 2.0 * 5.0_f64.sqrt();
        assert_eq!(train(&own, 2, &global, 1.0, norm / 2.0), [1.0; 5]);
        own.settle(&plan, &global, &[round(2, Some(0.5))]).unwrap();
        let begun = start(&own, &global);
        close(&begun.sent, [1.0; 5]);
        close(&begun.adapter, [2.0; 5]);
        // Votes take that back, and leave out what was told meanwhile.
        train(&own, 3, &global, 1.0, 100.0);
        let back = RoundShare {
            taken_back: true,
            ..round(3, Some(0.5))
        };
        own.settle(&plan, &global, &[back]).unwrap();
        let left = 1.0 - RollbackPlan::PART as f32;
        let begun = start(&own, &global);
        close(&begun.sent, [left; 5]);
        close(&begun.adapter, [3.0; 5]);
        // A second time in a row: a part of what went out comes in again.
        own.settle(
            &plan,
            &global,
            &[RoundShare {
                round: RoundNumber(4),
                ..back
            }],
        )
        .unwrap();
        let part = RollbackPlan::PART as f32;
        close(&start(&own, &global).sent, [1.0 - part + part * part; 5]);
        own.settle(
            &plan,
            &global,
            &[RoundShare {
                round: RoundNumber(5),
                ..back
            }],
        )
        .unwrap();
        let left = 1.0 - part + part * part - part * part * part;
        close(&start(&own, &global).sent, [left; 5]);
        // An answer about another round than the one that was told is none.
        train(&own, 6, &global, 0.0, 100.0);
        own.settle(&plan, &global, &[round(7, Some(0.5))]).unwrap();
        close(&start(&own, &global).sent, [left; 5]);
    }

    #[test]
    fn after_the_run_the_others_adapter_is_that_of_its_newest() {
        let plan = plan("rest-of-world");
        let (first, newest) = (adapter(&FIRST), adapter(&[5.0; 5]));
        let own = OwnAdapter::default();
        own.settle(&plan, &first, &[]).unwrap();
        let told = train(&own, 1, &first, 1.0, 100.0);
        own.end(&plan, &newest, &[round(1, Some(0.5))]).unwrap();
        // The result may be an earlier one.
        let rest = start(&own, &first).beside.unwrap().adapter;
        let others = FIRST.iter().zip(&told);
        let others = others.map(|(first, told)| first + (5.0 - first - 0.5 * told) / 0.5);
        close(&rest, others);
    }

    #[test]
    fn other_plans_and_members_that_restart_begin_with_the_global_adapter() {
        let global = adapter(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let own = OwnAdapter::default();
        let other = plan("fine-tune");
        own.settle(&other, &global, &[]).unwrap();
        own.end(&other, &global, &[]).unwrap();
        assert!(own.beside(&global, &other).unwrap().is_none());
        let start = start(&own, &global);
        assert_eq!((&start.adapter, &start.sent), (&global, &global));
        let beside = start.beside.unwrap();
        close(&beside.adapter, global.values().iter().copied());
        assert_eq!(beside.weights, [0.0]);
    }
}
