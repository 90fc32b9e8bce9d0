//! A member under attack: the machine that a member's program drives, with real stores, its own
//! delta and its own losses. Training takes no time here.

use rand::rngs::StdRng;

use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{Contribution, EncodedUpdate, LossShift, RoundEncoding};
use fedlora_protocol::round::member::{
    Member, MemberEffect, MemberSettings, MemoryRosterPin, Prepared, Stores, Upload,
};
use fedlora_protocol::round::participant::RoundLedger;
use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};

/// A member's own losses before a round, in nats a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Losses {
    pub(super) train: f64,
    pub(super) eval: f64,
}

/// What a member sends.
pub(super) enum Sent {
    /// A message on the control stream.
    Message(ToAggregator),
    /// A masked update.
    Upload(Upload),
}

/// A member's machine, with what its shell would keep.
pub(super) struct TargetMember {
    machine: Member,
    ledger: Box<dyn RoundLedger + Send>,
    pin: MemoryRosterPin,
    first: Adapter,
    place: usize,
    /// Coordinates that the current round trains.
    trained: usize,
    shift: LossShift,
    pub(super) losses: Losses,
    /// Whether its delta is much like the others', as that of members with similar records.
    pub(super) alike: bool,
    /// The values that the aggregator hands out as the newest adapter.
    pub(super) offered: Option<Vec<f32>>,
    /// What a malicious member uploads in place of its update.
    pub(super) exchange: Option<fn(EncodedUpdate, &mut StdRng) -> EncodedUpdate>,
    /// Why it left rounds and the run, and what it was told of failures, in order.
    pub(super) said: Vec<String>,
}

impl TargetMember {
    /// A member at `place` that has seen nothing yet; `first` is what it makes of the plan.
    pub(super) fn new(
        settings: MemberSettings,
        ledger: Box<dyn RoundLedger + Send>,
        first: Adapter,
        place: usize,
        rng: &mut StdRng,
    ) -> Self {
        Self {
            machine: Member::new(settings),
            ledger,
            pin: MemoryRosterPin::default(),
            first,
            place,
            trained: 0,
            shift: LossShift::random(rng),
            losses: Losses {
                train: 2.0 + place as f64 / 7.0,
                eval: 2.5 + place as f64 / 9.0,
            },
            alike: false,
            offered: None,
            exchange: None,
            said: Vec::new(),
        }
    }

    /// Starts the member's program anew: log and pinned roster stay, the machine forgets.
    pub(super) fn restart(&mut self, settings: MemberSettings) {
        self.machine = Member::new(settings);
    }

    /// Puts another log in place of the member's own.
    pub(super) fn restore_ledger(&mut self, ledger: Box<dyn RoundLedger + Send>) {
        self.ledger = ledger;
    }

    /// The secret shift of this member's losses: the attacker does not have it.
    pub(super) fn shift(&self) -> LossShift {
        self.shift
    }

    /// The member's true delta over `coordinates` coordinates: the attacker's aim.
    pub(super) fn delta(&self, coordinates: usize) -> Vec<f32> {
        let (own, common) = if self.alike { (0.3, 0.7) } else { (1.0, 0.0) };
        (0..coordinates)
            .map(|k| {
                let of_its_own = ((k * 7 + self.place * 13) % 19) as f32 / 100.0 - 0.1;
                let of_all = ((k * 5) % 17) as f32 / 100.0 - 0.08;
                own * of_its_own + common * of_all
            })
            .collect()
    }

    /// Hands the machine a message, as bytes, and does what it asks for. Gives what it sends.
    pub(super) fn hand(
        &mut self,
        message: &ToMember,
        rng: &mut StdRng,
    ) -> Result<Vec<Sent>, codec::CodecError> {
        let message = codec::decode(&codec::encode(message)?)?;
        let mut stores = Stores {
            ledger: self.ledger.as_mut(),
            pin: &mut self.pin,
        };
        let mut effects = self.machine.message(message, &mut stores, rng);
        let mut sent = Vec::new();
        while !effects.is_empty() {
            let effect = effects.remove(0);
            effects.extend(self.carry_out(effect, &mut sent, rng));
        }
        Ok(sent)
    }

    fn carry_out(
        &mut self,
        effect: MemberEffect,
        sent: &mut Vec<Sent>,
        rng: &mut StdRng,
    ) -> Vec<MemberEffect> {
        match effect {
            MemberEffect::Send(message) => sent.push(Sent::Message(message)),
            MemberEffect::Upload(upload) => sent.push(Sent::Upload(upload)),
            MemberEffect::Prepare { .. } => {
                return self.machine.prepared(Prepared {
                    base: Digest::of("fedlora-sim attack base", b""),
                    adapter: self.first.clone(),
                });
            }
            MemberEffect::Train(task) => {
                self.trained = task.part.len();
                return self.machine.trained(task.round);
            }
            MemberEffect::Encode {
                round,
                attempt,
                encoding,
            } => {
                let encoded = self.encode(encoding, rng);
                return self.machine.encoded(round, attempt, encoded);
            }
            MemberEffect::Fetch { .. } => return self.machine.fetched(self.offered.clone()),
            // The members have compared the first roster; nobody told this one of a change.
            MemberEffect::AskConsent(question) => {
                let roster = question.roster.digest();
                return match question.change {
                    None => self.machine.accept_roster(&roster, &mut self.pin),
                    Some(_) => self.machine.decline_roster(&roster, &mut self.pin),
                };
            }
            MemberEffect::Left { reason, .. } => self.say(reason.to_string()),
            MemberEffect::Abandoned { reason, .. } => self.say(reason.to_string()),
            MemberEffect::End(Err(error)) => self.say(error.to_string()),
            MemberEffect::End(Ok(_))
            | MemberEffect::KeepRun(_)
            | MemberEffect::KeepResult(_)
            | MemberEffect::Pinned(_)
            | MemberEffect::Opened { .. }
            | MemberEffect::RoundDone(_) => {}
        }
        Vec::new()
    }

    /// Notes a reason. A refusal that ends the run comes twice, the second time with words around
    /// it.
    fn say(&mut self, reason: String) {
        match self.said.last_mut() {
            Some(last) if reason.ends_with(last.as_str()) => {}
            _ => self.said.push(reason),
        }
    }

    fn encode(
        &self,
        encoding: RoundEncoding,
        rng: &mut StdRng,
    ) -> Result<EncodedUpdate, fedlora_protocol::fixed::FixedError> {
        let contribution = Contribution {
            train_loss: self.shift.steps(self.losses.train)?,
            eval_loss: self.shift.steps(self.losses.eval)?,
            clipped: false,
            worse: false,
        };
        let update = encoding.encode(&self.delta(self.trained), contribution, rng)?;
        Ok(match self.exchange {
            Some(exchange) => exchange(update, rng),
            None => update,
        })
    }
}
