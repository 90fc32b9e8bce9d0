//! The federation under attack: a plan, a roster, real members, and what the aggregator knows of
//! the run. Whoever attacks holds the aggregator's key, and some members'.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;

use fedlora_adapter::{Adapter, Layout, LoraConfig, Target};
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_protocol::plan::{
    AdapterPlan, AggregationPlan, BasePlan, ClipSchedule, FactorSchedule, Floors,
    PersonalisationPlan, RollbackPlan, Roster, RosterEntry, RunPlan, ServerPlan, SignedPlan,
    StoppingPlan, Timeouts, TrainingPlan, Weighting,
};
use fedlora_protocol::round::member::MemberSettings;
use fedlora_protocol::round::participant::{MemoryLedger, RoundLedger};
use fedlora_protocol::secagg::CohortPolicy;
use fedlora_protocol::wire::messages::{
    Open, OpenTag, RoundMessage, RoundResult, ToAggregator, ToMember,
};
use fedlora_protocol::wire::{Unverified, Verified};

use super::member::{Sent, TargetMember};

/// The member whose update the attacker is after.
pub(super) const VICTIM: MemberIndex = MemberIndex(0);

/// Training examples of each member, from the first again where there are more than six. The
/// victim's are 1,000: class 9, which is 512 to 1,023.
pub(super) const EXAMPLES: [usize; 6] = [1000, 300, 700, 2100, 512, 90];

/// Features of the one adapted projection; its adapter of rank 2 has 64 values.
const FEATURES: usize = 16;

/// Plan, roster, members, and the head of the chain as the aggregator has it.
pub(super) struct TargetFederation {
    pub(super) plan: RunPlan,
    pub(super) run: RunId,
    pub(super) roster: Arc<Roster>,
    pub(super) identities: Vec<Arc<IdentityKey>>,
    pub(super) aggregator: IdentityKey,
    pub(super) policy: CohortPolicy,
    pub(super) members: Vec<TargetMember>,
    /// The newest global adapter.
    pub(super) adapter: Adapter,
    previous: Digest,
    last_round: RoundNumber,
    clips: ClipSchedule,
    pub(super) rng: StdRng,
}

impl TargetFederation {
    /// A federation that has not met yet, of six unless `change` makes the plan another one.
    pub(super) fn new(change: impl FnOnce(&mut RunPlan)) -> anyhow::Result<Self> {
        Self::with_keys(change, |place| [place + 1; 32])
    }

    /// Like [`TargetFederation::new`], with the identity keys that `key` gives for each place.
    pub(super) fn with_keys(
        change: impl FnOnce(&mut RunPlan),
        key: impl Fn(u8) -> [u8; 32],
    ) -> anyhow::Result<Self> {
        let adapter = first_adapter()?;
        let mut plan = plan(adapter.config().clone())?;
        change(&mut plan);
        let plan = plan.checked().context("the attack's plan")?;
        let identities: Vec<_> = (0..plan.members as u8)
            .map(|place| Arc::new(IdentityKey::from_bytes(&key(place))))
            .collect();
        let entries = identities.iter().zip(0_u8..).map(|(identity, place)| {
            Ok(RosterEntry {
                name: format!("member-{place}").parse()?,
                identity: identity.public(),
                certificate_key: Digest::of("fedlora-sim attack certificate key", &[place]),
            })
        });
        let roster = Roster::new(entries.collect::<anyhow::Result<_>>()?)?;
        let mut federation = Self {
            policy: plan.policy()?,
            clips: ClipSchedule::new(&plan.aggregation),
            run: RunId([7; 16]),
            aggregator: IdentityKey::from_bytes(&[200; 32]),
            roster: Arc::new(roster),
            identities,
            members: Vec::new(),
            previous: adapter.digest(),
            last_round: RoundNumber(0),
            rng: StdRng::seed_from_u64(11),
            plan,
            adapter,
        };
        federation.begin(federation.run);
        for place in 0..federation.plan.members {
            let member = TargetMember::new(
                federation.settings(place),
                Box::<MemoryLedger>::default(),
                federation.adapter.clone(),
                place,
                &mut federation.rng,
            );
            federation.members.push(member);
        }
        Ok(federation)
    }

    /// A federation whose members have accepted the plan and pinned the roster.
    ///
    /// # Errors
    /// A plan that cannot be made, or a member that does not join: the attack begins after both.
    pub(super) fn joined(change: impl FnOnce(&mut RunPlan)) -> anyhow::Result<Self> {
        let mut federation = Self::new(change)?;
        let all = federation.all();
        let joined = federation.join(&all)?;
        anyhow::ensure!(
            joined == all,
            "members did not join: {}",
            federation.words()
        );
        Ok(federation)
    }

    /// Shows plan and roster; gives the members that accept both.
    pub(super) fn join(&mut self, to: &[MemberIndex]) -> anyhow::Result<Vec<MemberIndex>> {
        let signed = SignedPlan::sign(self.run, self.plan.clone(), &self.aggregator);
        let roster = ToMember::Roster(Roster::clone(&self.roster));
        let mut joined = Vec::new();
        for &member in to {
            let answer = self.tell(member, &ToMember::Plan(signed.clone()))?;
            let is_ready = matches!(answer[..], [Sent::Message(ToAggregator::Ready(_))]);
            let said = self.members[usize::from(member.0)].said.len();
            self.tell(member, &roster)?;
            if is_ready && self.members[usize::from(member.0)].said.len() == said {
                joined.push(member);
            }
        }
        Ok(joined)
    }

    /// Begins another run with the same first adapter. The members know nothing of it yet.
    pub(super) fn begin(&mut self, run: RunId) {
        self.run = run;
        self.previous = RoundResult::chain_start(
            run,
            &self.plan.digest(),
            &self.roster.digest(),
            &self.adapter.digest(),
        );
        self.last_round = RoundNumber(0);
    }

    /// What the member at `place` brings along.
    pub(super) fn settings(&self, place: usize) -> MemberSettings {
        let class = WeightClass::of_examples(EXAMPLES[place % EXAMPLES.len()]);
        MemberSettings {
            name: self.roster.entries()[place].name.clone(),
            identity: Arc::clone(&self.identities[place]),
            aggregator: self.aggregator.public(),
            floors: Floors {
                // What a plan with groups costs, they bear.
                exposure: 1.0,
                ..Floors::default()
            },
            agreed_class: class,
            data_class: class.unwrap_or_default(),
        }
    }

    /// Every member.
    pub(super) fn all(&self) -> Vec<MemberIndex> {
        self.roster.indices().collect()
    }

    /// Every member but the victim.
    pub(super) fn others(&self) -> Vec<MemberIndex> {
        let indices = self.roster.indices();
        indices.filter(|member| *member != VICTIM).collect()
    }

    /// Gives the member back as the harness sees it.
    pub(super) fn member(&mut self, member: MemberIndex) -> &mut TargetMember {
        &mut self.members[usize::from(member.0)]
    }

    /// Restarts a member's program: log and pin stay.
    pub(super) fn restart(&mut self, member: MemberIndex) {
        let settings = self.settings(usize::from(member.0));
        self.member(member).restart(settings);
    }

    /// Puts a log in place of each member's own, by its place.
    pub(super) fn replace_ledgers(
        &mut self,
        ledger: impl Fn(usize) -> Box<dyn RoundLedger + Send>,
    ) {
        for (place, member) in self.members.iter_mut().enumerate() {
            member.restore_ledger(ledger(place));
        }
    }

    /// Hands a member a message; gives what it sends.
    pub(super) fn tell(
        &mut self,
        member: MemberIndex,
        message: &ToMember,
    ) -> anyhow::Result<Vec<Sent>> {
        let sent = self.members[usize::from(member.0)].hand(message, &mut self.rng)?;
        Ok(sent)
    }

    /// M0 of the round that follows the newest result.
    pub(super) fn next_open(&self) -> anyhow::Result<Open> {
        let round = RoundNumber(self.last_round.0 + 1);
        let factors = self.plan.adapter.factors.factors_in(round);
        Ok(Open {
            suite: self.plan.aggregation.suite.code(),
            run: self.run,
            round,
            attempt: Attempt(1),
            previous: self.previous,
            roster: self.roster.digest(),
            adapter: self.adapter.digest(),
            plan: self.plan.digest(),
            layout: self.adapter.layout().subset(factors)?.digest(),
            factors,
            clip: self.clips.clip(factors),
            bits: self.plan.aggregation.bits,
            neighbours: self.policy.neighbours() as u16,
            threshold: self.policy.threshold() as u16,
            confirmations: self.policy.confirmations() as u16,
            minimum: self.policy.minimum() as u16,
        })
    }

    /// The layout of what a round trains.
    pub(super) fn part(&self, open: &Open) -> anyhow::Result<Layout> {
        Ok(self.adapter.layout().subset(open.factors)?)
    }

    /// The victim's true delta in a round.
    pub(super) fn aim(&self, open: &Open) -> anyhow::Result<Vec<f32>> {
        let part = self.part(open)?;
        Ok(self.members[usize::from(VICTIM.0)].delta(part.len()))
    }

    /// Signs a result as the aggregator.
    pub(super) fn sign(&self, result: &RoundResult) -> Unverified<RoundResult> {
        let previous = result.previous;
        let signed = Verified::sign(result.clone(), &self.aggregator, &previous);
        signed.unverified().clone()
    }

    /// Tells members a result, and hands out `adapter` where they fetch it. Gives the members that
    /// hold it afterwards.
    pub(super) fn announce(
        &mut self,
        result: &Unverified<RoundResult>,
        adapter: &Adapter,
        to: &[MemberIndex],
    ) -> anyhow::Result<Vec<MemberIndex>> {
        let mut holders = Vec::new();
        for &member in to {
            self.member(member).offered = Some(adapter.values().to_vec());
            let sent = self.tell(member, &ToMember::Result(result.clone()))?;
            if matches!(sent[..], [Sent::Message(ToAggregator::Fetched { .. })]) {
                holders.push(member);
            }
        }
        Ok(holders)
    }

    /// Continues from a result: the next M0 follows it.
    pub(super) fn follow(&mut self, result: &RoundResult, adapter: Adapter) {
        let factors = self.plan.adapter.factors.factors_in(result.round);
        self.clips
            .advance(factors, result.survivors.len(), result.clipped);
        self.previous = result.digest();
        self.last_round = result.round;
        self.adapter = adapter;
    }

    /// The digest that the next result is chained to.
    pub(super) fn previous(&self) -> Digest {
        self.previous
    }

    /// What the members said, each reason once, with how many said it.
    pub(super) fn words(&self) -> String {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let mut order = Vec::new();
        for reason in self.members.iter().flat_map(|member| &member.said) {
            let count = reasons.entry(reason).or_default();
            if *count == 0 {
                order.push(reason.as_str());
            }
            *count += 1;
        }
        if order.is_empty() {
            return "no member refused".to_owned();
        }
        let lines = order.into_iter().map(|reason| {
            let count = reasons[reason];
            let noun = if count == 1 { "member" } else { "members" };
            format!("{count} {noun}: {reason}")
        });
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// The members' messages within a round, by the M0 that they answer.
pub(super) fn round_message(message: ToAggregator) -> Option<(OpenTag, RoundMessage)> {
    match message {
        ToAggregator::Round { open, message } => Some((open, message)),
        _ => None,
    }
}

fn first_adapter() -> anyhow::Result<Adapter> {
    let config = LoraConfig::new(2, 4.0, 0.0, [Target::Q])?;
    let layout = Adapter::layout_for(&config, 1, |_, _| (FEATURES, FEATURES))?;
    let values = (0..layout.len()).map(|k| (k % 5) as f32 / 10.0).collect();
    Ok(Adapter::new(config, layout, values)?)
}

/// A plan of two rounds that train both factors, with weights by class.
fn plan(lora: LoraConfig) -> anyhow::Result<RunPlan> {
    Ok(RunPlan {
        rounds: 2,
        members: EXAMPLES.len(),
        seed: Some(0),
        start_from: None,
        base: BasePlan::default(),
        adapter: AdapterPlan {
            lora,
            factors: FactorSchedule::Both,
        },
        training: TrainingPlan::default(),
        aggregation: AggregationPlan {
            clip: 1.0,
            weights: Weighting::Classes,
            ..AggregationPlan::default()
        },
        server: ServerPlan::default(),
        stopping: StoppingPlan::default(),
        rollback: RollbackPlan::default(),
        personalisation: PersonalisationPlan::default(),
        timeouts: Timeouts::default(),
    })
}
