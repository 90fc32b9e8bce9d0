//! A federation in memory: plan, keys, roster, and the first round's M0.

use std::sync::Arc;

use fedlora_adapter::{Adapter, Factors, LoraConfig, Target};
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::agreement::Suite;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_protocol::plan::{
    AdapterPlan, AggregationPlan, BasePlan, FactorSchedule, Floors, PersonalisationPlan,
    RollbackPlan, Roster, RosterEntry, RunPlan, ServerPlan, SignedPlan, StoppingPlan, Timeouts,
    TrainingPlan, Weighting,
};
use fedlora_protocol::round::coordinator::RoundSetup;
use fedlora_protocol::round::member::{MemberSettings, Prepared};
use fedlora_protocol::secagg::CohortPolicy;
use fedlora_protocol::wire::messages::{Open, RoundResult};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Values of the adapter: odd, and few.
const VALUES: usize = 17;

/// What stays the same over a run.
pub(crate) struct Federation {
    pub(crate) plan: RunPlan,
    pub(crate) adapter: Adapter,
    pub(crate) roster: Arc<Roster>,
    pub(crate) identities: Vec<Arc<IdentityKey>>,
    pub(crate) aggregator: IdentityKey,
    pub(crate) policy: CohortPolicy,
    pub(crate) open: Open,
}

impl Federation {
    /// `members` members in the suite that is quicker; the same each time.
    pub(crate) fn new(members: usize) -> Self {
        let adapter = first_adapter();
        let plan = plan_for(members, &adapter);
        let mut rng = StdRng::seed_from_u64(members as u64);
        let identities: Vec<_> = (0..members)
            .map(|_| Arc::new(IdentityKey::random(&mut rng)))
            .collect();
        let entries = identities
            .iter()
            .enumerate()
            .map(|(place, key)| RosterEntry {
                name: format!("member-{place:03}").parse().expect("a name"),
                identity: key.public(),
                certificate_key: Digest::of("fuzzed certificate key", &place.to_le_bytes()),
            });
        let roster = Arc::new(Roster::new(entries.collect()).expect("names and keys differ"));
        let policy = plan.policy().expect("the plan is checked");
        let run = RunId([7; 16]);
        let chain =
            RoundResult::chain_start(run, &plan.digest(), &roster.digest(), &adapter.digest());
        let open = Open {
            suite: plan.aggregation.suite.code(),
            run,
            round: RoundNumber(1),
            attempt: Attempt(1),
            previous: chain,
            roster: roster.digest(),
            adapter: adapter.digest(),
            plan: plan.digest(),
            layout: adapter.layout().digest(),
            factors: Factors::Both,
            clip: plan.aggregation.clip,
            bits: plan.aggregation.bits,
            neighbours: policy.neighbours() as u16,
            threshold: policy.threshold() as u16,
            confirmations: policy.confirmations() as u16,
            minimum: policy.minimum() as u16,
        };
        Self {
            aggregator: IdentityKey::random(&mut rng),
            plan,
            adapter,
            roster,
            identities,
            policy,
            open,
        }
    }

    pub(crate) fn setup(&self) -> Arc<RoundSetup> {
        let roster = Arc::clone(&self.roster);
        let setup = RoundSetup::new(self.open.clone(), roster, self.policy, &self.plan);
        Arc::new(setup)
    }

    pub(crate) fn signed_plan(&self) -> SignedPlan {
        SignedPlan::sign(self.open.run, self.plan.clone(), &self.aggregator)
    }

    /// The key of a member of the roster; `member` is taken modulo their number.
    pub(crate) fn key(&self, member: MemberIndex) -> &IdentityKey {
        &self.identities[usize::from(member.0) % self.identities.len()]
    }

    /// What the member at `place` brings along to the run.
    pub(crate) fn settings(&self, place: usize) -> MemberSettings {
        MemberSettings {
            name: self.roster.entries()[place].name.clone(),
            identity: Arc::clone(&self.identities[place]),
            aggregator: self.aggregator.public(),
            floors: Floors {
                suite: self.plan.aggregation.suite,
                ..Floors::default()
            },
            agreed_class: Some(class_of(place)),
            data_class: class_of(place),
        }
    }

    /// What every member makes of the plan and its base.
    pub(crate) fn prepared(&self) -> Prepared {
        Prepared {
            base: Digest::of("fuzzed base", b""),
            adapter: self.adapter.clone(),
        }
    }
}

/// The weight class of the member at `place`: 0 to 3.
fn class_of(place: usize) -> WeightClass {
    WeightClass::try_from((place % 4) as u8).expect("at most 3")
}

fn plan_for(members: usize, adapter: &Adapter) -> RunPlan {
    RunPlan {
        rounds: 2,
        members,
        seed: Some(0),
        start_from: None,
        base: BasePlan::default(),
        adapter: AdapterPlan {
            lora: adapter.config().clone(),
            factors: FactorSchedule::Both,
        },
        training: TrainingPlan::default(),
        aggregation: AggregationPlan {
            clip: 1.0,
            weights: Weighting::Classes,
            suite: Suite::Classical,
            ..AggregationPlan::default()
        },
        server: ServerPlan::default(),
        stopping: StoppingPlan::default(),
        rollback: RollbackPlan::default(),
        personalisation: PersonalisationPlan::default(),
        timeouts: Timeouts::default(),
    }
    .checked()
    .expect("a sound plan")
}

/// An adapter of rank 1 on one projection of 9 to 8 features.
fn first_adapter() -> Adapter {
    let config = LoraConfig::new(1, 1.0, 0.0, [Target::Q]).expect("a sound configuration");
    let layout = Adapter::layout_for(&config, 1, |_, _| (9, 8)).expect("a sound layout");
    Adapter::new(config, layout, vec![0.25; VALUES]).expect("as many values as the layout has")
}
