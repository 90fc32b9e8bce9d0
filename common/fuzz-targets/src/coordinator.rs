//! The aggregator's half of a round under hostile members. The script chooses how far the round
//! went honestly, and what the members send then: what they should, what others should, changed
//! messages, changed messages under their senders' true signatures, arbitrary ones; and time.
//!
//! Nothing panics. No update is counted twice; who is in the sum is who was counted, and at least a
//! quorum. Evidence holds up, and names only those that signed something else than they should.

use std::collections::BTreeSet;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::Signature;
use fedlora_protocol::ids::{MemberIndex, MemberSet};
use fedlora_protocol::round::coordinator::{
    Coordinator, CoordinatorEffect, Event, Fault, Input, Reject,
};
use fedlora_protocol::wire::messages::{
    Commitments, Confirmation, HeldShares, OpenedCommitment, Reveal, RoundMessage, SurvivorList,
    ToMember, keys_context,
};
use fedlora_protocol::wire::{Signable, Unverified, Verified, codec};

use crate::recorded::{Recorded, START, Sent, What};
use crate::script::Script;

/// Runs a script. Its first byte chooses the federation, the next two how many events are replayed.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let recorded = script.federation();
    let mut attack = Attack::new(recorded);
    let honest = script.below(recorded.events.len() + 1);
    for event in &recorded.events[..honest] {
        attack.apply(event.clone());
    }
    while !script.is_over() {
        attack.step(&mut script);
    }
}

struct Attack<'a> {
    recorded: &'a Recorded,
    open: Digest,
    /// `None` while an event is applied.
    coordinator: Option<Coordinator>,
    now: Timestamp,
    /// The place of the next honest message.
    next: usize,
    /// What the members are shown.
    shown: Shown,
    counted: BTreeSet<MemberIndex>,
    /// Members in whose name something else than the honest message was signed.
    signed: BTreeSet<MemberIndex>,
    over: bool,
}

/// What signatures are bound to, as the coordinator told the members.
#[derive(Default)]
struct Shown {
    commitments: Commitments,
    /// What keys are signed for, once it is known.
    context: Option<Digest>,
    transcript: Option<Digest>,
    dealers: MemberSet,
    list: Option<SurvivorList>,
}

impl<'a> Attack<'a> {
    fn new(recorded: &'a Recorded) -> Self {
        let (coordinator, effects) = Coordinator::open(recorded.federation.setup(), START);
        let mut attack = Self {
            open: recorded.federation.open.digest(),
            recorded,
            coordinator: Some(coordinator),
            now: START,
            next: 0,
            shown: Shown::default(),
            counted: BTreeSet::new(),
            signed: BTreeSet::new(),
            over: false,
        };
        attack.carry_out(effects);
        attack
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let input = match script.byte() % 10 {
            0..=2 => {
                self.next += 1;
                self.sent(self.next - 1)
            }
            3 => {
                let sent = self.sent(script.below(usize::from(u16::MAX)));
                Sent {
                    from: self.member(script),
                    ..sent
                }
            }
            4 => {
                let sent = self.sent(script.below(usize::from(u16::MAX)));
                match changed(&sent.what, script) {
                    Some(what) => Sent { what, ..sent },
                    None => return,
                }
            }
            5 | 6 => {
                let sent = self.sent(script.below(usize::from(u16::MAX)));
                match changed(&sent.what, script) {
                    Some(what) => self.sign(sent.from, what),
                    None => return,
                }
            }
            7 => match codec::decode(script.bytes()) {
                Ok(message) => Sent {
                    from: self.member(script),
                    what: What::Message(message),
                },
                Err(_) => return,
            },
            8 => {
                let member = self.member(script);
                return self.take(Input::Absent { member });
            }
            _ => {
                self.now = match script.byte() {
                    0 => self.now,
                    1 => self.now.max(self.coordinator().deadline()),
                    more => Timestamp(self.now.0.saturating_add(u64::from(more) << 13)),
                };
                return self.take(Input::Tick);
            }
        };
        self.take(input.input(self.open));
    }

    fn coordinator(&self) -> &Coordinator {
        self.coordinator.as_ref().expect("put back after each step")
    }

    /// An honest message; `at` is taken modulo their number.
    fn sent(&self, at: usize) -> Sent {
        self.recorded.sent[at % self.recorded.sent.len()].clone()
    }

    fn member(&self, script: &mut Script<'_>) -> MemberIndex {
        MemberIndex(script.below(self.recorded.federation.roster.len() + 1) as u16)
    }

    fn take(&mut self, input: Input) {
        let coordinator = self.coordinator();
        match coordinator.decide(self.now, input) {
            Ok(event) => {
                assert!(!self.over, "an ended round takes nothing");
                let bytes = codec::encode(&event).expect("it fits the journal");
                let restored: Event = codec::decode(&bytes).expect("what was stored is read");
                assert_eq!(restored, event);
                self.apply(restored);
                let awaited = self.coordinator().awaited();
                if let Some(member) = awaited.first() {
                    let outstanding = self.coordinator().outstanding(*member);
                    assert!(!outstanding.is_empty(), "it waits for an answer to nothing");
                }
            }
            Err(Reject::NotYet) => assert!(self.over || self.now < coordinator.deadline()),
            Err(reject) => assert!(!reject.to_string().is_empty()),
        }
    }

    fn apply(&mut self, event: Event) {
        self.now = self.now.max(event.at);
        let coordinator = self.coordinator.take().expect("put back below");
        let (coordinator, effects) = coordinator.apply(event);
        self.coordinator = Some(coordinator);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<CoordinatorEffect>) {
        for effect in effects {
            assert!(!self.over, "an ended round does nothing");
            match effect {
                CoordinatorEffect::Send(_, message) => self.shown.note(&self.open, message),
                CoordinatorEffect::Accumulate(member, _) => {
                    assert!(self.counted.insert(member), "an update is counted twice");
                }
                CoordinatorEffect::Blame(fault) => self.check(&fault),
                CoordinatorEffect::Unmask(completed) => {
                    let survivors: BTreeSet<_> = completed.survivors.iter().copied().collect();
                    assert_eq!(survivors, self.counted, "the sum is of others");
                    assert!(survivors.len() >= self.recorded.federation.policy.quorum());
                    self.over = true;
                }
                CoordinatorEffect::Fail(_) => self.over = true,
            }
        }
        assert_eq!(self.over, self.coordinator().ended());
    }

    fn check(&self, fault: &Fault) {
        let member = fault.member();
        let roster = &self.recorded.federation.roster;
        let guilty = |member: &MemberIndex| self.signed.contains(member);
        if let Some(evidence) = fault.evidence() {
            assert_eq!(evidence.check(roster), Ok(member));
        }
        let deserved = match fault {
            Fault::Unheld { denied_by, .. } => guilty(&member) || denied_by.iter().any(guilty),
            Fault::Denies { denies, .. } => guilty(&member) || denies.iter().all(guilty),
            Fault::ForgedShare { .. }
            | Fault::Encapsulation { .. }
            | Fault::InconsistentDeal { .. } => guilty(&member),
        };
        assert!(deserved, "an honest member is blamed: {fault}");
    }

    /// The message under its sender's signature, bound to the round that the sender is in.
    fn sign(&mut self, from: MemberIndex, what: What) -> Sent {
        self.signed.insert(from);
        let what = match what {
            What::Uploaded(claim) => {
                What::Uploaded(self.again(from, *claim.claimed(), Some(self.open)))
            }
            What::Message(message) => What::Message(self.sign_message(from, message)),
        };
        Sent { from, what }
    }

    fn sign_message(&self, from: MemberIndex, message: RoundMessage) -> RoundMessage {
        let transcript = self.shown.transcript;
        match message {
            RoundMessage::Keys { keys, mut opening } => {
                let commitments = self.shown.commitments.digest(&self.open);
                if let Some(opening) = &mut opening {
                    let body = OpenedCommitment {
                        member: from,
                        commitments,
                        nonce: opening.nonce,
                    };
                    opening.signature = self.signature(from, body, Some(self.open));
                }
                let keys = self.again(from, keys.claimed().clone(), self.shown.context);
                RoundMessage::Keys { keys, opening }
            }
            RoundMessage::Shares(deal) => {
                RoundMessage::Shares(self.again(from, deal.claimed().clone(), transcript))
            }
            RoundMessage::Held { dealers, .. } => {
                let held = dealers.iter().filter_map(|dealer| {
                    let commitments = self.recorded.deal_of(dealer)?.commitments(from)?;
                    Some((dealer, commitments))
                });
                let body = HeldShares {
                    member: from,
                    held: held.collect(),
                };
                let signature = self.signature(from, body, transcript);
                RoundMessage::Held { dealers, signature }
            }
            RoundMessage::Confirm(_) => {
                let body = Confirmation {
                    member: from,
                    list: self.list(),
                };
                RoundMessage::Confirm(self.signature(from, body, Some(self.open)))
            }
            RoundMessage::Reveal { shares, .. } => {
                let body = Reveal {
                    member: from,
                    list: self.list(),
                    shares: shares.clone(),
                };
                let signature = self.signature(from, body, Some(self.open));
                RoundMessage::Reveal { shares, signature }
            }
            other @ (RoundMessage::Commit(_) | RoundMessage::Working | RoundMessage::Abstain) => {
                other
            }
        }
    }

    /// The digest of the survivor list that the members were shown.
    fn list(&self) -> Digest {
        match (&self.shown.list, &self.shown.transcript) {
            (Some(list), Some(transcript)) => list.digest(transcript, &self.shown.dealers),
            _ => self.open,
        }
    }

    fn again<T: Signable + Clone>(
        &self,
        from: MemberIndex,
        body: T,
        context: Option<Digest>,
    ) -> Unverified<T> {
        let signature = self.signature(from, body.clone(), context);
        Unverified::from_parts(body, signature)
    }

    fn signature<T: Signable>(
        &self,
        from: MemberIndex,
        body: T,
        context: Option<Digest>,
    ) -> Signature {
        let key = self.recorded.federation.key(from);
        Verified::sign(body, key, &context.unwrap_or(self.open)).signature()
    }
}

impl Shown {
    fn note(&mut self, open: &Digest, message: ToMember) {
        match message {
            ToMember::Commitments(commitments) => {
                self.context = Some(keys_context(open, Some(&commitments.digest(open))));
                self.commitments = commitments;
            }
            ToMember::PeerKeys(keys) => {
                let joined = Recorded::joined(open, &keys, &self.commitments);
                self.transcript = Some(joined.transcript(open));
            }
            ToMember::Dealers(dealers) => self.dealers = dealers,
            ToMember::Survivors { list, .. } => self.list = Some(list),
            _ => {}
        }
    }
}

fn changed(what: &What, script: &mut Script<'_>) -> Option<What> {
    match what {
        What::Message(message) => script.changed(message).map(What::Message),
        What::Uploaded(claim) => script.changed(claim).map(What::Uploaded),
    }
}
