//! Whole rounds in memory: a coordinator, its members, and the messages between them.

use std::collections::{BTreeMap, VecDeque};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::fixed::{AUXILIARY_LANES, RingSum};
use crate::ids::MemberIndex;
use crate::secagg::RunningSum;
use crate::wire::messages::{PhaseName, RoundFailure, RoundMessage, RoundResult, ToMember};
use crate::wire::{Unverified, codec};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

use super::super::coordinator::{Coordinator, Effect, Event, Input, Reject};
use super::super::participant::{
    ExpectConfirmations, ExpectPeerKeys, ExpectPeerShares, ExpectResult, ExpectSurvivors,
    MemoryLedger, Refusal,
};
use super::{DELTA, Federation, sign_result};

/// Where a member of a [`World`] stands.
pub(crate) enum Stage {
    Idle,
    Keys(ExpectPeerKeys),
    Shares(ExpectPeerShares),
    Survivors(ExpectSurvivors),
    Confirm(ExpectConfirmations),
    Result(ExpectResult),
    Refused(Refusal),
    Gone,
}

/// How a round ended.
pub(crate) enum Outcome {
    Sum {
        sum: RingSum,
        survivors: Vec<MemberIndex>,
        dropped: Vec<MemberIndex>,
        transcript: Digest,
    },
    Failed(RoundFailure),
}

/// One round in memory: honest members, the true coordinator, simulated time, and a journal
/// that every event goes through as bytes.
pub(crate) struct World<'a> {
    pub(crate) federation: &'a Federation,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) ledgers: Vec<MemoryLedger>,
    /// The phase that a member does not answer any more.
    pub(crate) silent: BTreeMap<MemberIndex, PhaseName>,
    /// Whether silence shows as a broken connection, or only by the deadline.
    pub(crate) connections_break: bool,
    pub(crate) now: Timestamp,
    pub(crate) journal: Vec<Vec<u8>>,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) accumulated: Vec<MemberIndex>,
    pub(crate) outcome: Option<Outcome>,
    sum: RunningSum,
    uploads: BTreeMap<MemberIndex, Vec<u8>>,
    rng: StdRng,
}

impl<'a> World<'a> {
    pub(crate) fn new(federation: &'a Federation) -> Self {
        let now = Timestamp(1_000_000);
        let (coordinator, effects) = Coordinator::open(federation.setup(), now);
        let mut world = Self {
            coordinator: Some(coordinator),
            stages: federation.contexts.iter().map(|_| Stage::Idle).collect(),
            ledgers: federation
                .contexts
                .iter()
                .map(|_| MemoryLedger::default())
                .collect(),
            silent: BTreeMap::new(),
            connections_break: false,
            now,
            journal: Vec::new(),
            inbox: VecDeque::new(),
            accumulated: Vec::new(),
            outcome: None,
            sum: RunningSum::new(federation.open.bits, DELTA + AUXILIARY_LANES),
            uploads: BTreeMap::new(),
            rng: StdRng::seed_from_u64(5),
            federation,
        };
        world.carry_out(effects);
        world
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

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(member, message) => self.deliver(member, message),
                Effect::Accumulate(member) => {
                    self.accumulated.push(member);
                    // A forged update has no bytes: op lists add nothing for it.
                    if let Some(bytes) = self.uploads.remove(&member) {
                        self.sum.add(&bytes).unwrap();
                    }
                }
                Effect::Unmask(completed) => {
                    let empty = RunningSum::new(self.federation.open.bits, 0);
                    self.outcome = Some(Outcome::Sum {
                        sum: std::mem::replace(&mut self.sum, empty).unmask(completed.unmasking),
                        survivors: completed.survivors,
                        dropped: completed.dropped,
                        transcript: completed.transcript,
                    });
                }
                Effect::Fail(failure) => self.outcome = Some(Outcome::Failed(failure)),
            }
        }
    }

    /// Hands a message to a member; its answer goes to the inbox.
    fn deliver(&mut self, member: MemberIndex, message: ToMember) {
        let place = usize::from(member.0);
        let bytes = codec::encode(&message).unwrap();
        let message = codec::decode(&bytes).unwrap();
        let stage = std::mem::replace(&mut self.stages[place], Stage::Gone);
        let next = self.step(place, stage, message);
        self.stages[place] = next.unwrap_or_else(Stage::Refused);
    }

    fn step(&mut self, place: usize, stage: Stage, message: ToMember) -> Result<Stage, Refusal> {
        let federation = self.federation;
        let me = MemberIndex(place as u16);
        let ledger = &mut self.ledgers[place];
        let mut answer = |message| {
            self.inbox.push_back(Input::Message {
                from: me,
                open: federation.open.digest(),
                message,
            });
        };
        Ok(match (stage, message) {
            (Stage::Idle, ToMember::Open(open)) => {
                let (next, keys) = federation.contexts[place].open(
                    open,
                    &federation.expected,
                    ledger,
                    &mut self.rng,
                )?;
                answer(RoundMessage::Keys(keys));
                Stage::Keys(next)
            }
            (Stage::Keys(member), ToMember::PeerKeys(keys)) => {
                let (next, shares) = member.peer_keys(keys, &mut self.rng)?;
                answer(RoundMessage::Shares(shares));
                Stage::Shares(next)
            }
            (Stage::Shares(member), ToMember::PeerShares(shares)) => {
                let ready = member.peer_shares(shares)?;
                let (next, masked, claim) = ready.mask(federation.update(place));
                if self.silent.get(&me) == Some(&PhaseName::Updates) {
                    return Ok(Stage::Survivors(next));
                }
                self.uploads.insert(me, masked.into_bytes());
                self.inbox.push_back(Input::Uploaded {
                    from: me,
                    open: federation.open.digest(),
                    claim,
                });
                Stage::Survivors(next)
            }
            (Stage::Survivors(member), ToMember::Survivors(list)) => {
                let (next, signature) = member.survivors(list)?;
                answer(RoundMessage::Confirm(signature));
                Stage::Confirm(next)
            }
            (Stage::Confirm(member), ToMember::Confirmations(confirmations)) => {
                let (next, shares) = member.confirmations(confirmations, ledger)?;
                answer(RoundMessage::Reveal(shares));
                Stage::Result(next)
            }
            (stage, _) => stage,
        })
    }

    /// The signed result of a round that came to a sum.
    pub(crate) fn result(&self) -> Unverified<RoundResult> {
        let Some(Outcome::Sum {
            sum,
            survivors,
            dropped,
            transcript,
        }) = &self.outcome
        else {
            panic!("the round came to nothing");
        };
        let mean = self.federation.format.decode(sum).unwrap();
        let open = &self.federation.open;
        let result = RoundResult {
            run: open.run,
            round: open.round,
            attempt: open.attempt,
            adapter: Digest::of("test adapter", b"next"),
            total_weight: mean.weight,
            transcript: *transcript,
            previous: self.federation.previous,
            survivors: survivors.clone(),
            dropped: dropped.clone(),
            train_loss: mean.train_loss,
            eval_loss: mean.eval_loss,
        };
        sign_result(self.federation, result)
    }
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
            RoundMessage::Keys(_) => PhaseName::Keys,
            RoundMessage::Shares(_) => PhaseName::Shares,
            RoundMessage::Confirm(_) => PhaseName::Confirm,
            RoundMessage::Reveal(_) => PhaseName::Reveal,
            RoundMessage::Abstain => PhaseName::Keys,
        },
        Input::Absent { .. } | Input::Tick => PhaseName::Keys,
    };
    phase as u8
}
