//! For tests: a federation in memory. [`Federation`] holds plan, keys, roster and M0.
//! [`World`] drives whole rounds with the true [`Coordinator`](super::coordinator::Coordinator)
//! and the true [`Member`](super::member::Member) machines over simulated time. [`Opened`] and
//! what follows from it hold single phases, so that a test can play the malicious aggregator
//! between two of them. [`Adversary`] plays a malicious aggregator over several rounds and runs.

mod adversary;
mod beacon;
mod party;
mod phases;
mod shown;
mod steps;
mod world;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::crypto::agreement::Suite;
use crate::crypto::sign::{IdentityKey, Signature};
use crate::fixed::{
    AUXILIARY_LANES, CohortWeight, Contribution, EncodedUpdate, FixedPoint, LaneBits, LossShift,
    RingSum, WeightClass,
};
use crate::ids::{Attempt, MemberIndex, MemberSet, RoundNumber, RunId};
use crate::plan::{
    AdapterPlan, AggregationPlan, BasePlan, FactorSchedule, Floors, PersonalisationPlan,
    RobustPlan, RobustRuleName, RollbackPlan, Roster, RosterEntry, RunPlan, ServerPlan, SignedPlan,
    StoppingPlan, Timeouts, TrainingPlan, Weighting,
};
use crate::secagg::CohortPolicy;
use crate::wire::messages::{Open, RevealedShare, RoundMessage, RoundResult};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_adapter::{Adapter, Factors, LoraConfig, Target};
use fedlora_common::digest::Digest;

use super::coordinator::RoundSetup;
use super::member::{MemberSettings, Prepared};
use super::participant::{Expectation, RoundContext};
pub(crate) use adversary::{Adversary, Revelation};
pub(crate) use party::Party;
pub(crate) use phases::{AllRevealed, Opened, Shared, Signed};
pub(crate) use steps::{Chosen, NextAdapter, OddOpening, PlannedAttempt, ROLLED_BACK, Step};
pub(crate) use world::{RoundOutcome, World, phase_of};

/// Values of the adapter, and coordinates of a delta, in tests: odd, so that the last 20-bit
/// lane is half a pair.
pub(crate) const DELTA: usize = 17;

/// What stays the same over the rounds of a test.
pub(crate) struct Federation {
    pub(crate) plan: RunPlan,
    pub(crate) run: RunId,
    /// The run's first adapter.
    pub(crate) adapter: Adapter,
    pub(crate) roster: Arc<Roster>,
    pub(crate) identities: Vec<Arc<IdentityKey>>,
    pub(crate) contexts: Vec<Arc<RoundContext>>,
    pub(crate) aggregator: IdentityKey,
    pub(crate) policy: CohortPolicy,
    pub(crate) expected: Expectation,
    pub(crate) open: Open,
    pub(crate) format: FixedPoint,
    pub(crate) previous: Digest,
}

impl Federation {
    /// `members` members with 24-bit lanes and the lowest minimum.
    pub(crate) fn new(members: usize) -> Self {
        Self::with_bits(members, LaneBits::B24)
    }

    pub(crate) fn with_bits(members: usize, bits: LaneBits) -> Self {
        Self::of_plan(plan_for(members, bits), RunId([7; 16]))
    }

    /// The same members in a run of several rounds, in the suite that is quicker. Runs differ in
    /// nothing but their identifiers.
    pub(crate) fn in_run(members: usize, rounds: u32, run: RunId) -> Self {
        let mut plan = plan_for(members, LaneBits::B24);
        plan.rounds = rounds;
        plan.aggregation.suite = Suite::Classical;
        Self::of_plan(plan.checked().unwrap(), run)
    }

    /// Five members in a run of as many rounds, which a patience may end, in the suite that is
    /// quicker.
    pub(crate) fn with_patience(rounds: u32, patience: Option<u32>) -> Self {
        let mut plan = plan_for(5, LaneBits::B24);
        plan.rounds = rounds;
        plan.stopping = StoppingPlan { patience };
        plan.aggregation.suite = Suite::Classical;
        Self::of_plan(plan.checked().unwrap(), RunId([7; 16]))
    }

    /// Five members in a run of three rounds, B, A and B, in the suite that is quicker.
    pub(crate) fn alternating() -> Self {
        let mut plan = plan_for(5, LaneBits::B24);
        plan.rounds = 3;
        plan.adapter.factors = FactorSchedule::Alternating;
        plan.aggregation.suite = Suite::Classical;
        Self::of_plan(plan.checked().unwrap(), RunId([7; 16]))
    }

    /// The same members in as many groups, whose means `rule` combines; in the suite that is
    /// quicker.
    pub(crate) fn in_groups(members: usize, groups: u16, rule: RobustRuleName) -> Self {
        let mut plan = plan_for(members, LaneBits::B24);
        plan.aggregation.suite = Suite::Classical;
        plan.aggregation.dropping = 0.0;
        plan.aggregation.robust = Some(RobustPlan {
            rule,
            groups,
            trim: None,
            minimum: 3,
        });
        Self::of_plan(plan.checked().unwrap(), RunId([7; 16]))
    }

    /// The same members under a server optimizer at a rate, in the suite that is quicker. The clip
    /// is 1.
    pub(crate) fn with_server(members: usize, rate: f32, server: ServerPlan) -> Self {
        let mut plan = plan_for(members, LaneBits::B24);
        plan.aggregation.suite = Suite::Classical;
        plan.aggregation.server_learning_rate = rate;
        plan.server = server;
        Self::of_plan(plan.checked().unwrap(), RunId([7; 16]))
    }

    /// The same members with another clip, in the suite that is quicker.
    pub(crate) fn with_clip(members: usize, clip: f32) -> Self {
        let mut plan = plan_for(members, LaneBits::B24);
        plan.aggregation.suite = Suite::Classical;
        plan.aggregation.clip = clip;
        Self::of_plan(plan.checked().unwrap(), RunId([7; 16]))
    }

    fn of_plan(plan: RunPlan, run: RunId) -> Self {
        let adapter = first_adapter();
        let (members, bits) = (plan.members, plan.aggregation.bits);
        let mut rng = StdRng::seed_from_u64(members as u64);
        let identities: Vec<_> = (0..members)
            .map(|_| Arc::new(IdentityKey::random(&mut rng)))
            .collect();
        let entries = identities
            .iter()
            .enumerate()
            .map(|(place, key)| RosterEntry {
                name: format!("member-{place:03}").parse().unwrap(),
                identity: key.public(),
                certificate_key: Digest::of("test certificate key", &place.to_le_bytes()),
            });
        let roster = Arc::new(Roster::new(entries.collect()).unwrap());
        let policy = plan.policy().unwrap();
        let expected = Expectation {
            adapter: adapter.digest(),
            layout: adapter.layout().digest(),
            factors: Factors::Both,
            round: RoundNumber(1),
            previous: RoundResult::chain_start(
                run,
                &plan.digest(),
                &roster.digest(),
                &adapter.digest(),
            ),
            clip: plan.aggregation.clip,
            bits,
        };
        let open = Open {
            suite: plan.aggregation.suite.code(),
            run,
            round: RoundNumber(1),
            attempt: Attempt(1),
            previous: expected.previous,
            roster: roster.digest(),
            adapter: expected.adapter,
            plan: plan.digest(),
            layout: expected.layout,
            factors: expected.factors,
            clip: expected.clip,
            bits,
            neighbours: policy.neighbours() as u16,
            threshold: policy.threshold() as u16,
            confirmations: policy.confirmations() as u16,
            minimum: policy.minimum() as u16,
        };
        let contexts = identities
            .iter()
            .enumerate()
            .map(|(place, identity)| {
                Arc::new(RoundContext {
                    run,
                    roster: Roster::clone(&roster),
                    me: MemberIndex(place as u16),
                    identity: Arc::clone(identity),
                    plan: open.plan,
                    rounds: RoundNumber(plan.rounds),
                    weight: class_of(place),
                    highest_class: plan.aggregation.highest_class(),
                    contributors: policy.quorum(),
                    policy,
                    suite: plan.aggregation.suite,
                })
            })
            .collect();
        Self {
            previous: expected.previous,
            format: FixedPoint::new(
                bits,
                open.clip,
                CohortWeight::of((0..members).map(class_of)),
                &open.digest(),
            )
            .unwrap(),
            aggregator: IdentityKey::random(&mut rng),
            plan,
            run,
            adapter,
            roster,
            identities,
            contexts,
            policy,
            expected,
            open,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.roster.len()
    }

    pub(crate) fn setup(&self) -> Arc<RoundSetup> {
        self.setup_for(self.open.clone(), MemberSet::default())
    }

    /// What a coordinator needs for the round or attempt of `open`.
    pub(crate) fn setup_for(&self, open: Open, offenders: MemberSet) -> Arc<RoundSetup> {
        let setup = RoundSetup::new(open, Arc::clone(&self.roster), self.policy, &self.plan);
        Arc::new(setup.not_waiting_for(offenders))
    }

    /// The plan, signed by the aggregator.
    pub(crate) fn signed_plan(&self) -> SignedPlan {
        SignedPlan::sign(self.run, self.plan.clone(), &self.aggregator)
    }

    /// What the member at `place` brings along to the run.
    pub(crate) fn settings(&self, place: usize) -> MemberSettings {
        MemberSettings {
            name: self.roster.entries()[place].name.clone(),
            identity: Arc::clone(&self.identities[place]),
            aggregator: self.aggregator.public(),
            floors: Floors {
                suite: self.plan.aggregation.suite,
                exposure: 1.0,
                ..Floors::default()
            },
            agreed_class: Some(class_of(place)),
            data_class: class_of(place),
        }
    }

    /// What every member makes of the plan and its base.
    pub(crate) fn prepared(&self) -> Prepared {
        Prepared {
            base: Digest::of("test base", b""),
            adapter: self.adapter.clone(),
        }
    }

    /// A member's update for a test: each member's is different.
    pub(crate) fn update(&self, place: usize) -> EncodedUpdate {
        self.update_in(&self.format, place)
    }

    /// Likewise, in the format of a round.
    pub(crate) fn update_in(&self, format: &FixedPoint, place: usize) -> EncodedUpdate {
        let delta: Vec<f32> = (0..DELTA)
            .map(|k| ((k * 7 + place * 13) % 19) as f32 / 100.0 - 0.1)
            .collect();
        let mut rng = StdRng::seed_from_u64(1000 + place as u64);
        let shift = LossShift::random(&mut rng);
        let contribution = Contribution {
            train_loss: shift.steps(1.0).unwrap(),
            eval_loss: shift.steps(2.0).unwrap(),
            clipped: place.is_multiple_of(4),
            worse: place.is_multiple_of(3),
        };
        format
            .encode(&delta, class_of(place), contribution, &mut rng)
            .unwrap()
    }

    /// The sum that the named members' updates must come to.
    pub(crate) fn plain_sum<'a>(
        &self,
        members: impl IntoIterator<Item = &'a MemberIndex>,
    ) -> RingSum {
        let mut sum = vec![0_u32; DELTA + AUXILIARY_LANES];
        for member in members {
            for (sum, lane) in sum
                .iter_mut()
                .zip(self.update(usize::from(member.0)).lanes())
            {
                *sum = sum.wrapping_add(*lane) & self.open.bits.mask();
            }
        }
        RingSum(sum)
    }
}

/// The weight class of the member at `place`: 0 to 3.
pub(crate) fn class_of(place: usize) -> WeightClass {
    WeightClass::try_from((place % 4) as u8).unwrap()
}

/// Signs a result as the aggregator does.
pub(crate) fn sign_result(federation: &Federation, result: RoundResult) -> Unverified<RoundResult> {
    let previous = result.previous;
    Verified::sign(result, &federation.aggregator, &previous)
        .unverified()
        .clone()
}

/// A body under a signature that is not its signer's.
pub(crate) fn forged<T: Signable>(body: T) -> Unverified<T> {
    Unverified::from_parts(body, Signature::from_bytes([1; 64]))
}

/// Shares of `owners` as a member may reveal them, with meaningless bytes and signature.
pub(crate) fn meaningless_reveal(owners: &[u16]) -> RoundMessage {
    let share = |&owner| (MemberIndex(owner), RevealedShare::SelfMask([9; 32]));
    RoundMessage::Reveal {
        shares: owners.iter().map(share).collect(),
        signature: Signature::from_bytes([1; 64]),
    }
}

/// A plan of two rounds that train both factors.
fn plan_for(members: usize, bits: LaneBits) -> RunPlan {
    RunPlan {
        rounds: 2,
        members,
        seed: Some(0),
        start_from: None,
        base: BasePlan::default(),
        adapter: AdapterPlan {
            lora: first_adapter().config().clone(),
            factors: FactorSchedule::Both,
        },
        training: TrainingPlan::default(),
        aggregation: AggregationPlan {
            bits,
            clip: 1.0,
            weights: Weighting::Classes,
            ..AggregationPlan::default()
        },
        server: ServerPlan::default(),
        stopping: StoppingPlan::default(),
        rollback: RollbackPlan::default(),
        personalisation: PersonalisationPlan::default(),
        timeouts: Timeouts::default(),
    }
    .checked()
    .unwrap()
}

/// An adapter of rank 1 on one projection of 9 to 8 features: [`DELTA`] values.
fn first_adapter() -> Adapter {
    let config = LoraConfig::new(1, 1.0, 0.0, [Target::Q]).unwrap();
    let layout = Adapter::layout_for(&config, 1, |_, _| (9, 8)).unwrap();
    Adapter::new(config, layout, vec![0.25; DELTA]).unwrap()
}
