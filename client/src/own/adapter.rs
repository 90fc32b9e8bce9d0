//! A member's own adapter beside that of the rest of the world: FedALT (Bian et al.,
//! arXiv:2503.11880).
//!
//! Each member trains an adapter `O` of its own in all rounds, and tells by how much it changed. The
//! global adapter `N` is then the weighted mean of all, and that of the others follows from it without
//! another message: `R = (W N - w O) / (W - w)`, with `w` this member's weight and `W` that of all. The
//! member trains `O` beside `R`, which stays as it is, with a learned weight on each projection.
//!
//! `N` is that mean where all members are in every sum. A member that was not in one tells what it
//! missed with its next change; so does one whose change was clipped.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use fedlora_adapter::{Adapter, AdapterError, Delta};
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::{PersonalisationMethod, RunPlan};
use fedlora_protocol::round::member::RoundTask;
use fedlora_train::Beside;
use zeroize::Zeroizing;

use super::Start;

/// A member's own adapter.
#[derive(Default)]
pub(super) struct OwnAdapter(Mutex<Option<Kept>>);

struct Kept {
    /// O.
    values: Zeroizing<Vec<f32>>,
    /// What of O is in the global adapter.
    sent: Zeroizing<Vec<f32>>,
    /// The change that was told last, and in which round.
    told: Option<(RoundNumber, Zeroizing<Vec<f32>>)>,
    /// The weights of the others' adapter.
    weights: Vec<f32>,
    /// This member's part of the weight of the last sum that it was in.
    share: f64,
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

impl OwnAdapter {
    /// Begins with the global adapter, and notes whether the change that was told last is in it.
    pub(super) fn settle(&self, plan: &RunPlan, task: &RoundTask) -> Result<(), AdapterError> {
        if !learns_beside(plan) {
            return Ok(());
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = kept.get_or_insert_with(|| Kept::begin(&task.adapter, plan));
        if own.values.len() != task.adapter.values().len() {
            return Err(AdapterError::OtherAdapter);
        }
        let Some((_, told)) = own
            .told
            .take_if(|(round, _)| round.0 + 1 == task.round.0 && task.share.is_some())
        else {
            return Ok(());
        };
        own.share = task.share.unwrap_or(own.share);
        own.add(&told);
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
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun;
        let own = match kept.as_ref() {
            Some(own) => own,
            None => {
                begun = Kept::begin(global, plan);
                &begun
            }
        };
        let with = |values: &[f32]| {
            let (config, layout) = (global.config().clone(), global.layout().clone());
            Adapter::new(config, layout, values.to_vec())
        };
        let sent = with(&own.sent)?;
        // N + (-s / (1 - s)) (O - N) is (N - s O) / (1 - s).
        let rest = global.moved_towards(&sent, -own.share / (1.0 - own.share))?;
        Ok(Some(Start {
            adapter: with(&own.values)?,
            sent,
            beside: Some(Beside {
                weights: own.weights.clone(),
                ..Beside::new(rest)
            }),
        }))
    }

    /// Keeps what was trained.
    pub(super) fn keep(&self, plan: &RunPlan, trained: Trained<'_>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = kept.as_mut().filter(|_| learns_beside(plan)) else {
            return;
        };
        own.values = Zeroizing::new(trained.adapter.values().to_vec());
        own.weights = trained.weights.to_vec();
        let told = Zeroizing::new(trained.delta.values().to_vec());
        own.told = Some((trained.round, told));
    }
}

impl Kept {
    /// A member that has trained nothing yet, or has lost what it had: O is the global adapter, and so
    /// is that of the others.
    fn begin(global: &Adapter, plan: &RunPlan) -> Self {
        Self {
            values: Zeroizing::new(global.values().to_vec()),
            sent: Zeroizing::new(global.values().to_vec()),
            told: None,
            weights: vec![0.0; global.projections()],
            share: 1.0 / plan.members.max(2) as f64,
        }
    }

    /// A change that was told is in the global adapter.
    fn add(&mut self, change: &[f32]) {
        for (sent, change) in self.sent.iter_mut().zip(change) {
            *sent += change;
        }
    }
}

impl fmt::Debug for OwnAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnAdapter(..)")
    }
}

#[cfg(test)]
mod tests {
    use fedlora_adapter::{Factors, LoraConfig, Target};

    use super::*;

    /// Of the two members' weights.
    const SHARES: [f64; 2] = [0.25, 0.75];

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

    fn task(round: u32, global: &Adapter, share: Option<f64>) -> RoundTask {
        RoundTask {
            round: RoundNumber(round),
            factors: Factors::Both,
            clip: 1.0,
            part: global.layout().clone(),
            adapter: global.clone(),
            share,
        }
    }

    /// Adds `change` to a member's own adapter, and tells the part of it that `clip` allows.
    fn train(own: &OwnAdapter, round: u32, global: &Adapter, change: f32, clip: f64) -> Vec<f32> {
        let plan = plan("rest-of-world");
        let start = own
            .beside(global, &plan)
            .unwrap()
            .expect("the plan asks for it");
        let moved = start.adapter.values().iter().map(|value| value + change);
        let trained = adapter(&moved.collect::<Vec<_>>());
        let mut delta = trained
            .difference(&start.sent, global.layout())
            .expect("the same layout");
        delta.clip(clip).unwrap();
        own.keep(
            &plan,
            Trained {
                round: RoundNumber(round),
                adapter: &trained,
                weights: &[0.5],
                delta: &delta,
            },
        );
        delta.values().to_vec()
    }

    fn close(got: &Adapter, expected: impl IntoIterator<Item = f32>) {
        let expected: Vec<f32> = expected.into_iter().collect();
        let pairs = got.values().iter().zip(&expected);
        let far = pairs.map(|(got, want)| (got - want).abs());
        assert!(
            far.fold(0.0, f32::max) < 1e-5,
            "{:?} for {expected:?}",
            got.values()
        );
    }

    #[test]
    fn the_others_adapter_follows_from_the_mean() {
        let plan = plan("rest-of-world");
        let first = [1.0, 2.0, 3.0, 0.0, 0.0];
        let members = [OwnAdapter::default(), OwnAdapter::default()];
        let mut global = adapter(&first);
        for round in 1..=3 {
            let mut sum = vec![0.0; first.len()];
            for ((own, share), change) in members.iter().zip(SHARES).zip([0.5, -1.0]) {
                own.settle(&plan, &task(round, &global, (round > 1).then_some(share)))
                    .unwrap();
                let told = train(own, round, &global, change, 100.0);
                for (sum, told) in sum.iter_mut().zip(told) {
                    *sum += (share * f64::from(told)) as f32;
                }
            }
            global.add(&global.layout().clone(), &sum).unwrap();
        }
        for (own, (share, others)) in members.iter().zip([(SHARES[0], -3.0), (SHARES[1], 1.5)]) {
            own.settle(&plan, &task(4, &global, Some(share))).unwrap();
            let start = own.beside(&global, &plan).unwrap().unwrap();
            assert_eq!(start.adapter, start.sent);
            let beside = start.beside.unwrap();
            assert_eq!(beside.weights, [0.5]);
            close(&beside.adapter, first.map(|value| value + others));
        }
        assert_eq!(format!("{:?}", members[0]), "OwnAdapter(..)");
    }

    /// What a sum lacks, or a clip cut off, is told the next time.
    #[test]
    fn what_was_not_told_is_told_later() {
        let plan = plan("rest-of-world");
        let global = adapter(&[0.0; 5]);
        let own = OwnAdapter::default();
        own.settle(&plan, &task(1, &global, None)).unwrap();
        assert_eq!(train(&own, 1, &global, 1.0, 100.0), [1.0; 5]);
        // The round went on without this member; and then one in which it was clipped.
        own.settle(&plan, &task(2, &global, None)).unwrap();
        let norm = 2.0 * 5.0_f64.sqrt();
        assert_eq!(train(&own, 2, &global, 1.0, norm / 2.0), [1.0; 5]);
        own.settle(&plan, &task(3, &global, Some(0.5))).unwrap();
        let start = own.beside(&global, &plan).unwrap().unwrap();
        close(&start.sent, [1.0; 5]);
        close(&start.adapter, [2.0; 5]);
        // An answer about an older round than the last one told is none.
        train(&own, 3, &global, 1.0, 100.0);
        own.settle(&plan, &task(5, &global, Some(0.5))).unwrap();
        close(&own.beside(&global, &plan).unwrap().unwrap().sent, [1.0; 5]);
    }

    #[test]
    fn other_plans_and_members_that_restart_begin_with_the_global_adapter() {
        let global = adapter(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let own = OwnAdapter::default();
        let other = plan("fine-tune");
        own.settle(&other, &task(1, &global, None)).unwrap();
        assert!(own.beside(&global, &other).unwrap().is_none());
        let start = own
            .beside(&global, &plan("rest-of-world"))
            .unwrap()
            .unwrap();
        assert_eq!((&start.adapter, &start.sent), (&global, &global));
        let beside = start.beside.unwrap();
        close(&beside.adapter, global.values().iter().copied());
        assert_eq!(beside.weights, [0.0]);
    }
}
