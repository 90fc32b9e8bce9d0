//! One member's machine with the stores and the shell that the program gives it.

use std::collections::VecDeque;

use fedlora_protocol::fixed::{Contribution, LossShift, RoundEncoding};
use fedlora_protocol::round::member::{
    Member, MemberEffect, MemoryRosterPin, RosterQuestion, Stores, Upload,
};
use fedlora_protocol::round::participant::MemoryLedger;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::federation::Federation;

/// A member that trains in no time, with randomness that is the same each time.
pub(crate) struct Party<'a> {
    federation: &'a Federation,
    place: usize,
    pub(crate) machine: Member,
    ledger: MemoryLedger,
    pub(crate) pin: MemoryRosterPin,
    rng: StdRng,
    /// The values that it fetches.
    adapter: Option<Vec<f32>>,
    /// The roster that its user is asked about.
    pub(crate) asked: Option<Box<RosterQuestion>>,
}

/// What leaves a member.
pub(crate) enum Said {
    Message(ToAggregator),
    Upload(Upload),
}

impl<'a> Party<'a> {
    /// A member that has seen nothing yet, accepts the federation's roster, and fetches `adapter`.
    pub(crate) fn new(federation: &'a Federation, place: usize, adapter: Option<Vec<f32>>) -> Self {
        Self {
            machine: Member::new(federation.settings(place)),
            ledger: MemoryLedger::default(),
            pin: MemoryRosterPin::accepting(federation.roster.digest()),
            rng: StdRng::seed_from_u64(100 + place as u64),
            adapter,
            asked: None,
            place,
            federation,
        }
    }

    /// Hands over a message; gives what the member says to it.
    pub(crate) fn hand(&mut self, message: ToMember) -> Vec<Said> {
        let mut stores = Stores {
            ledger: &mut self.ledger,
            pin: &mut self.pin,
        };
        let effects = self.machine.message(message, &mut stores, &mut self.rng);
        self.carry_out(effects)
    }

    /// Does what the machine asks for, as its shell would.
    pub(crate) fn carry_out(&mut self, effects: Vec<MemberEffect>) -> Vec<Said> {
        let mut said = Vec::new();
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let more = match effect {
                MemberEffect::Send(message) => {
                    said.push(Said::Message(message));
                    Vec::new()
                }
                MemberEffect::Upload(upload) => {
                    said.push(Said::Upload(upload));
                    Vec::new()
                }
                MemberEffect::Prepare { .. } => self.machine.prepared(self.federation.prepared()),
                MemberEffect::Train(task) => self.machine.trained(task.round),
                MemberEffect::Encode {
                    round,
                    attempt,
                    encoding,
                } => {
                    let update = self.update(encoding);
                    self.machine.encoded(round, attempt, update)
                }
                MemberEffect::Fetch { .. } => self.machine.fetched(self.adapter.clone()),
                MemberEffect::AskConsent(question) => {
                    self.asked = Some(question);
                    Vec::new()
                }
                MemberEffect::KeepRun(_)
                | MemberEffect::KeepResult(_)
                | MemberEffect::Pinned(_)
                | MemberEffect::Opened { .. }
                | MemberEffect::Left { .. }
                | MemberEffect::Abandoned { .. }
                | MemberEffect::RoundDone(_)
                | MemberEffect::End(_) => Vec::new(),
            };
            queue.extend(more);
        }
        said
    }

    /// An update that is another one for each member.
    fn update(
        &mut self,
        encoding: RoundEncoding,
    ) -> Result<fedlora_protocol::fixed::EncodedUpdate, fedlora_protocol::fixed::FixedError> {
        let values = self.federation.adapter.values().len();
        let delta: Vec<f32> = (0..values)
            .map(|k| ((k * 7 + self.place * 13) % 19) as f32 / 100.0 - 0.1)
            .collect();
        let shift = LossShift::random(&mut self.rng);
        let contribution = Contribution {
            train_loss: shift.steps(1.0)?,
            eval_loss: shift.steps(2.0)?,
            clipped: self.place.is_multiple_of(4),
            worse: self.place.is_multiple_of(3),
        };
        encoding.encode(&delta, contribution, &mut self.rng)
    }
}
