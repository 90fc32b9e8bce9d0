//! Whole rounds in memory: a coordinator, the members' machines, and the messages between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::fixed::{
    AUXILIARY_LANES, EncodedUpdate, RingSum, RoundSum, RoundSumError, WeightedMean,
};
use crate::ids::{Attempt, MemberIndex, MemberSet};
use crate::secagg::RunningSums;
use crate::wire::messages::{
    Open, PhaseName, RoundFailure, RoundMessage, RoundResult, ToAggregator, ToMember,
};
use crate::wire::{Unverified, codec};
use fedlora_adapter::Adapter;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

use super::super::coordinator::{
    Completed, Coordinator, CoordinatorEffect, Event, Fault, Input, Reject,
};
use super::super::member::MemberEffect;
use super::shown::Shown;
use super::{DELTA, Federation, Party, sign_result};

/// How a round ended.
pub(crate) enum RoundOutcome {
    Sum {
        sum: RoundSum,
        survivors: Vec<MemberIndex>,
        dropped: Vec<MemberIndex>,
        transcript: Digest,
    },
    Failed(RoundFailure),
}

/// Rounds in memory: honest members, the true coordinator, simulated time, and a journal that
/// every event goes through as bytes.
pub(crate) struct World<'a> {
    pub(crate) federation: &'a Federation,
    pub(crate) coordinator: Option<Coordinator>,
    /// The current round's M0.
    pub(crate) open: Open,
    pub(crate) members: Vec<Party>,
    /// A member whose messages wait in `mailbox`, for the test to hand them over.
    held: Option<MemberIndex>,
    pub(crate) mailbox: VecDeque<ToMember>,
    /// The phase that a member does not answer any more.
    pub(crate) silent: BTreeMap<MemberIndex, PhaseName>,
    /// Whether silence shows as a broken connection, or only by the deadline.
    pub(crate) connections_break: bool,
    pub(crate) now: Timestamp,
    pub(crate) journal: Vec<Vec<u8>>,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) accumulated: Vec<MemberIndex>,
    /// The members that revealed shares in the current round.
    pub(crate) revealed: BTreeSet<MemberIndex>,
    pub(crate) outcome: Option<RoundOutcome>,
    /// What members were shown last.
    pub(crate) shown: Shown,
    /// Members that no phase waits for, from the next attempt on.
    pub(crate) offenders: MemberSet,
    /// Members' faults that the coordinator noticed.
    pub(crate) faults: Vec<Fault>,
    /// The global adapter that the current round starts from.
    adapter: Adapter,
    /// What the current round's result is chained to.
    previous: Digest,
    sums: RunningSums,
    uploads: BTreeMap<MemberIndex, Vec<u8>>,
    /// The lanes that each member encoded last.
    encoded: BTreeMap<MemberIndex, Vec<u32>>,
    /// What a malicious member makes of its update.
    pub(crate) exchange: BTreeMap<MemberIndex, fn(EncodedUpdate) -> EncodedUpdate>,
    rng: StdRng,
}

impl<'a> World<'a> {
    pub(crate) fn new(federation: &'a Federation) -> Self {
        let mut world = Self::without_round(federation);
        world.begin(federation.open.clone());
        world
    }

    /// Like [`World::new`], with a member that the test drives itself.
    pub(crate) fn holding(federation: &'a Federation, member: MemberIndex) -> Self {
        let mut world = Self::without_round(federation);
        world.held = Some(member);
        world.begin(federation.open.clone());
        world
    }

    /// All members have pinned the roster; no round is open.
    fn without_round(federation: &'a Federation) -> Self {
        let mut rng = StdRng::seed_from_u64(5);
        Self {
            coordinator: None,
            open: federation.open.clone(),
            members: federation
                .roster
                .indices()
                .map(|me| Party::new(federation, me).joined(federation, &mut rng))
                .collect(),
            held: None,
            mailbox: VecDeque::new(),
            silent: BTreeMap::new(),
            connections_break: false,
            now: Timestamp(1_000_000),
            journal: Vec::new(),
            inbox: VecDeque::new(),
            accumulated: Vec::new(),
            revealed: BTreeSet::new(),
            outcome: None,
            shown: Shown::default(),
            offenders: MemberSet::default(),
            faults: Vec::new(),
            adapter: federation.adapter.clone(),
            previous: federation.previous,
            sums: running_sums(federation),
            uploads: BTreeMap::new(),
            encoded: BTreeMap::new(),
            exchange: BTreeMap::new(),
            rng,
            federation,
        }
    }

    /// The aggregator opens a round, or another attempt at one.
    pub(crate) fn begin(&mut self, open: Open) {
        self.sums = running_sums(self.federation);
        self.uploads.clear();
        self.encoded.clear();
        self.journal.clear();
        self.inbox.clear();
        self.accumulated.clear();
        self.revealed.clear();
        self.outcome = None;
        self.faults.clear();
        self.shown = Shown::default();
        self.open = open;
        let offenders = self.offenders.clone();
        let setup = self.federation.setup_for(self.open.clone(), offenders);
        let (coordinator, effects) = Coordinator::open(setup, self.now);
        self.coordinator = Some(coordinator);
        self.carry_out(effects);
    }

    /// Hands the result of a round that came to a sum to all members, and opens the next.
    pub(crate) fn next_round(&mut self) {
        let result = self.result();
        let places: Vec<_> = self.federation.roster.indices().collect();
        for member in places {
            self.deliver(member, ToMember::Result(result.clone()));
        }
        self.adapter = self.next_adapter();
        self.previous = result.claimed().digest();
        let mut open = self.open.clone();
        open.round.0 += 1;
        open.attempt = Attempt(1);
        open.previous = self.previous;
        open.adapter = self.adapter.digest();
        self.begin(open);
    }

    /// Members that go silent in a phase.
    pub(crate) fn silence(mut self, members: &[u16], phase: PhaseName) -> Self {
        for &member in members {
            self.silent.insert(MemberIndex(member), phase);
        }
        self
    }

    /// Runs the round to its end.
    pub(crate) fn run(mut self) -> Self {
        while self.outcome.is_none() {
            match self.inbox.pop_front() {
                Some(input) => {
                    let silent = sender(&input).and_then(|from| self.silent.get(&from));
                    if silent.is_none_or(|phase| phase_of(&input) < *phase as u8) {
                        self.take_or_late(input);
                    }
                }
                None => self.wait(),
            }
        }
        self
    }

    /// Feeds an honest input. Once signatures or shares suffice the round goes on, so the
    /// last of them may come late.
    pub(crate) fn take_or_late(&mut self, input: Input) {
        let place = phase_of(&input);
        let may_be_late = place >= PhaseName::Confirm as u8;
        let late = self
            .coordinator()
            .phase()
            .is_none_or(|now| now as u8 > place);
        match self.take(input) {
            Err(Reject::Unexpected { .. }) if may_be_late && late => {}
            other => other.unwrap(),
        }
    }

    /// Feeds one input to the coordinator; its event goes through the journal.
    pub(crate) fn take(&mut self, input: Input) -> Result<(), Reject> {
        let coordinator = self.coordinator.take().expect("put back below");
        let event = match coordinator.decide(self.now, input) {
            Ok(event) => event,
            Err(reject) => {
                self.coordinator = Some(coordinator);
                return Err(reject);
            }
        };
        let bytes = codec::encode(&event).unwrap();
        let restored: Event = codec::decode(&bytes).unwrap();
        assert_eq!(restored, event);
        self.journal.push(bytes);
        let (coordinator, effects) = coordinator.apply(restored);
        self.coordinator = Some(coordinator);
        self.carry_out(effects);
        Ok(())
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        self.coordinator.as_ref().expect("put back after each step")
    }

    /// Nothing is under way: connections are given up, or time passes to the deadline.
    fn wait(&mut self) {
        let awaited = self.coordinator().awaited();
        match awaited.first() {
            Some(&member) if self.connections_break => {
                self.take(Input::Absent { member }).unwrap();
            }
            _ => {
                self.now = self.coordinator().deadline();
                self.take(Input::Tick).unwrap();
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<CoordinatorEffect>) {
        for effect in effects {
            match effect {
                CoordinatorEffect::Send(member, message) => self.deliver(member, message),
                CoordinatorEffect::Accumulate(member, group) => {
                    self.accumulated.push(member);
                    // A forged update has no bytes: op lists add nothing for it.
                    if let Some(bytes) = self.uploads.remove(&member) {
                        self.sums.add(group, &bytes).unwrap();
                    }
                }
                CoordinatorEffect::Blame(fault) => self.faults.push(fault),
                CoordinatorEffect::Unmask(completed) => {
                    let sums = std::mem::replace(&mut self.sums, running_sums(self.federation));
                    self.outcome = Some(RoundOutcome::Sum {
                        sum: Completed::unmask(completed.groups, completed.rule, sums),
                        survivors: completed.survivors,
                        dropped: completed.dropped,
                        transcript: completed.transcript,
                    });
                }
                CoordinatorEffect::Fail(failure) => {
                    self.outcome = Some(RoundOutcome::Failed(failure))
                }
            }
        }
    }

    /// Hands a message to a member, unless the test does that itself; its answers go to the
    /// inbox.
    fn deliver(&mut self, member: MemberIndex, message: ToMember) {
        self.shown.note(&self.open, member, &message);
        if self.held == Some(member) {
            self.mailbox.push_back(message);
        } else {
            let effects = self.hand(member, message);
            self.pass_on(member, effects);
        }
    }

    /// Hands a message to a member's machine; gives what it asks for.
    pub(crate) fn hand(&mut self, member: MemberIndex, message: ToMember) -> Vec<MemberEffect> {
        let party = &mut self.members[usize::from(member.0)];
        party.hand(message, &mut self.rng)
    }

    /// Does what a member's machine asks for, as its shell would: training takes no time, and
    /// what is sent goes to the inbox.
    pub(crate) fn pass_on(&mut self, me: MemberIndex, effects: Vec<MemberEffect>) {
        let place = usize::from(me.0);
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let more = match effect {
                MemberEffect::Send(ToAggregator::Round { open, message }) => {
                    if matches!(message, RoundMessage::Reveal { .. }) {
                        self.revealed.insert(me);
                    }
                    let from = me;
                    self.inbox.push_back(Input::Message {
                        from,
                        open,
                        message,
                    });
                    Vec::new()
                }
                MemberEffect::Upload(upload) => {
                    if self.silent.get(&me) != Some(&PhaseName::Updates) {
                        self.uploads.insert(me, upload.masked.as_bytes().to_vec());
                        self.inbox.push_back(Input::Uploaded {
                            from: me,
                            open: upload.open,
                            claim: upload.claim,
                        });
                    }
                    Vec::new()
                }
                MemberEffect::Train(task) => self.members[place].machine.trained(task.round),
                MemberEffect::Encode {
                    round,
                    attempt,
                    encoding,
                } => {
                    let update = self.federation.update_in(&encoding.format, place);
                    let update = match self.exchange.get(&me) {
                        Some(exchange) => exchange(update),
                        None => update,
                    };
                    self.encoded.insert(me, update.lanes().to_vec());
                    let machine = &mut self.members[place].machine;
                    machine.encoded(round, attempt, Ok(update))
                }
                MemberEffect::Fetch { .. } => {
                    let values = self.next_adapter().values().to_vec();
                    self.members[place].machine.fetched(Some(values))
                }
                MemberEffect::Left { reason, .. } => {
                    self.members[place].left = Some(reason);
                    Vec::new()
                }
                MemberEffect::End(end) => {
                    self.members[place].ended = Some(end);
                    Vec::new()
                }
                MemberEffect::Send(_)
                | MemberEffect::Prepare { .. }
                | MemberEffect::KeepRun(_)
                | MemberEffect::KeepResult(_)
                | MemberEffect::Pinned(_)
                | MemberEffect::Opened { .. }
                | MemberEffect::Abandoned { .. }
                | MemberEffect::RoundDone(_) => Vec::new(),
                MemberEffect::AskConsent(_) => panic!("the roster was accepted beforehand"),
            };
            queue.extend(more);
        }
    }

    /// The sum of what the named members encoded in this round.
    pub(crate) fn plain_sum(&self, members: impl IntoIterator<Item = MemberIndex>) -> RingSum {
        let mut sum = vec![0_u32; DELTA + AUXILIARY_LANES];
        for member in members {
            // A test that drives a member encodes its update itself.
            let own = || self.federation.update(member.0.into()).lanes().to_vec();
            let lanes = self.encoded.get(&member).cloned().unwrap_or_else(own);
            for (sum, lane) in sum.iter_mut().zip(lanes) {
                *sum = sum.wrapping_add(lane) & self.open.bits.mask();
            }
        }
        RingSum(sum)
    }

    /// Asserts that each group's sum is that of what its survivors encoded, and that the groups'
    /// survivors are those of the round.
    pub(crate) fn check_sums(&self) {
        let Some(RoundOutcome::Sum { sum, survivors, .. }) = &self.outcome else {
            panic!("the round came to nothing");
        };
        let survivors: MemberSet = survivors.iter().copied().collect();
        let groups = self.groups().whole(&survivors, 1);
        assert_eq!(sum.groups().len(), groups.len());
        for (got, (group, members)) in sum.groups().iter().zip(groups) {
            assert_eq!((got.group, got.parts.survivors), (group, members.len()));
            assert_eq!(got.sum, self.plain_sum(members.iter()));
        }
        assert_eq!(sum.parts().survivors, survivors.len());
    }

    /// The round's step, and how many groups' sums were none.
    ///
    /// # Errors
    /// The sums give none.
    pub(crate) fn step(&self) -> Result<(WeightedMean, usize), RoundSumError> {
        let Some(RoundOutcome::Sum { sum, .. }) = &self.outcome else {
            panic!("the round came to nothing");
        };
        let (bits, clip) = (self.open.bits, self.open.clip);
        let (mean, spoilt) = sum.decode(bits, clip, &self.open.digest())?;
        Ok((mean, spoilt.len()))
    }

    /// The adapter of a round that came to a sum.
    pub(crate) fn next_adapter(&self) -> Adapter {
        let (mean, _) = self.step().unwrap();
        let mut adapter = self.adapter.clone();
        adapter.add(self.adapter.layout(), &mean.delta).unwrap();
        adapter
    }

    /// The signed result of a round that came to a sum.
    pub(crate) fn result(&self) -> Unverified<RoundResult> {
        let Some(RoundOutcome::Sum {
            sum,
            survivors,
            dropped,
            transcript,
        }) = &self.outcome
        else {
            panic!("the round came to nothing");
        };
        let (mean, _) = self.step().unwrap();
        let open = &self.open;
        let result = RoundResult {
            run: open.run,
            round: open.round,
            attempt: open.attempt,
            adapter: self.next_adapter().digest(),
            sum: sum.digest(),
            total_weight: sum.parts().weight,
            transcript: *transcript,
            previous: self.previous,
            survivors: survivors.clone(),
            dropped: dropped.clone(),
            train_loss: mean.train_loss,
            eval_loss: mean.eval_loss,
            clipped: mean.clipped,
            votes: mean.votes,
        };
        sign_result(self.federation, result)
    }
}

/// An empty sum for each group of a round.
fn running_sums(federation: &Federation) -> RunningSums {
    let groups = federation.policy.groups().count();
    RunningSums::new(federation.open.bits, DELTA + AUXILIARY_LANES, groups)
}

fn sender(input: &Input) -> Option<MemberIndex> {
    match input {
        Input::Message { from, .. } | Input::Uploaded { from, .. } => Some(*from),
        Input::Absent { .. } | Input::Tick => None,
    }
}

/// The phase that an input answers, as its place in the round.
pub(crate) fn phase_of(input: &Input) -> u8 {
    let phase = match input {
        Input::Uploaded { .. } => PhaseName::Updates,
        Input::Message { message, .. } => match message {
            RoundMessage::Commit(_) => PhaseName::Commit,
            RoundMessage::Keys { .. } => PhaseName::Keys,
            RoundMessage::Shares(_) => PhaseName::Shares,
            RoundMessage::Held { .. } => PhaseName::Held,
            RoundMessage::Working => PhaseName::Updates,
            RoundMessage::Confirm(_) => PhaseName::Confirm,
            RoundMessage::Reveal { .. } => PhaseName::Reveal,
            RoundMessage::Abstain => PhaseName::Commit,
        },
        Input::Absent { .. } | Input::Tick => PhaseName::Commit,
    };
    phase as u8
}
