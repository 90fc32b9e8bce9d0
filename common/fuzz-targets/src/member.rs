//! A member's half of a run under a hostile aggregator that holds everybody else's keys. The script
//! chooses how far the run went honestly, and what the member is shown then: what it should, in
//! any order, changed messages, changed messages under true signatures, arbitrary ones; and what
//! its own user and shell say.
//!
//! Nothing panics. For one attempt the member uploads one vector, signs one survivor list, and
//! reveals one share of one secret of each member; on one adapter it reveals once.

use std::collections::BTreeMap;

use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::FixedError;
use fedlora_protocol::ids::{Attempt, MemberIndex, MemberSet, RoundNumber};
use fedlora_protocol::plan::SignedPlan;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::wire::messages::{
    ClaimedVector, Commitments, Confirmation, Confirmations, OpenTag, RoundMessage, SurvivorList,
    ToAggregator, ToMember, UpdateClaim, dealers_digest,
};
use fedlora_protocol::wire::{Signable, Unverified, Verified, codec};

use crate::party::{Party, Said};
use crate::recorded::Recorded;
use crate::script::Script;

/// Runs a script. Its first byte chooses the federation, the next how many messages are shown as
/// they were recorded.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let recorded = script.federation();
    let mut attack = Attack::new(recorded);
    let honest = usize::from(script.byte()) % (recorded.shown.len() + 1);
    for _ in 0..honest {
        attack.show_next();
    }
    while !script.is_over() {
        attack.step(&mut script);
    }
}

struct Attack<'a> {
    recorded: &'a Recorded,
    party: Party<'a>,
    /// The place of the next recorded message.
    next: usize,
    shown: Shown,
    said: SaidSoFar,
}

/// What the member was shown last: what others would have to sign.
struct Shown {
    /// The digest of M0.
    open: Digest,
    /// The adapter of each M0.
    adapters: BTreeMap<OpenTag, Digest>,
    commitments: Commitments,
    transcript: Option<Digest>,
    dealers: MemberSet,
    list: Option<SurvivorList>,
}

/// What the member said, by the digest of M0; for reveals also by adapter.
#[derive(Default)]
struct SaidSoFar {
    uploads: BTreeMap<Digest, Digest>,
    confirmed: BTreeMap<OpenTag, Vec<u8>>,
    revealed: BTreeMap<OpenTag, Vec<u8>>,
    revealed_on: BTreeMap<Digest, OpenTag>,
}

impl<'a> Attack<'a> {
    fn new(recorded: &'a Recorded) -> Self {
        let adapter = Some(recorded.adapter.clone());
        Self {
            party: Party::new(&recorded.federation, 0, adapter),
            recorded,
            next: 0,
            shown: Shown::before(recorded.federation.open.digest()),
            said: SaidSoFar::default(),
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0..=2 => self.show_next(),
            3 => self.show(self.message(script)),
            4 => {
                let message = self.message(script);
                if let Some(message) = script.changed(&message) {
                    self.show(message);
                }
            }
            5 => {
                let message = self.message(script);
                if let Some(message) = script.changed(&message) {
                    let signed = self.sign(message);
                    self.show(signed);
                }
            }
            6 => {
                if let Ok(message) = codec::decode(script.bytes()) {
                    self.show(message);
                }
            }
            _ => self.shell(script),
        }
    }

    fn show_next(&mut self) {
        let message = self.recorded.shown[self.next % self.recorded.shown.len()].clone();
        self.next += 1;
        self.show(message);
    }

    /// A recorded message.
    fn message(&self, script: &mut Script<'_>) -> ToMember {
        self.recorded.shown[script.below(self.recorded.shown.len())].clone()
    }

    fn show(&mut self, message: ToMember) {
        self.shown.note(&message);
        let said = self.party.hand(message);
        self.said.note(&self.shown, said);
    }

    /// What the member's user and shell say, asked or not.
    fn shell(&mut self, script: &mut Script<'_>) {
        let round = RoundNumber(u32::from(script.byte() % 3));
        let machine = &mut self.party.machine;
        let effects = match script.byte() % 5 {
            0 => {
                let Some(question) = self.party.asked.take() else {
                    return;
                };
                machine.accept_roster(&question.roster.digest(), &mut self.party.pin)
            }
            1 => {
                let roster = self.recorded.federation.roster.digest();
                machine.decline_roster(&roster, &mut self.party.pin)
            }
            2 => machine.trained(round),
            3 => machine.encoded(round, Attempt(1), Err(FixedError::NoMembers)),
            _ => machine.fetched(None),
        };
        let said = self.party.carry_out(effects);
        self.said.note(&self.shown, said);
    }

    /// The message under the signatures of those whom it names.
    fn sign(&self, message: ToMember) -> ToMember {
        let federation = &self.recorded.federation;
        let open = self.shown.open;
        match message {
            ToMember::Plan(_) => ToMember::Plan(SignedPlan::sign(
                federation.open.run,
                federation.plan.clone(),
                &federation.aggregator,
            )),
            ToMember::PeerKeys(mut keys) => {
                let joined = Recorded::joined(&open, &keys, &self.shown.commitments);
                let context = joined.context(&open);
                for keys in &mut keys.keys {
                    let body = keys.claimed().clone();
                    *keys = self.signed(body.member, body, &context);
                }
                ToMember::PeerKeys(keys)
            }
            ToMember::Confirmations(confirmations) => {
                ToMember::Confirmations(self.confirm(confirmations))
            }
            ToMember::Result(result) => {
                let body = result.claimed().clone();
                let previous = body.previous;
                let signed = Verified::sign(body, &federation.aggregator, &previous);
                ToMember::Result(signed.unverified().clone())
            }
            other => other,
        }
    }

    /// Signatures on the list that the member was shown last, and claims to have masked among the
    /// dealers that it was shown.
    fn confirm(&self, confirmations: Confirmations) -> Confirmations {
        let (federation, open) = (&self.recorded.federation, self.shown.open);
        let transcript = self.shown.transcript.unwrap_or(open);
        let dealers = &self.shown.dealers;
        let list = self.shown.list.as_ref();
        let list = list.map_or(open, |list| list.digest(&transcript, dealers));
        let sign = |(member, _)| {
            let body = Confirmation { member, list };
            let signed = Verified::sign(body, federation.key(member), &open);
            (member, signed.signature())
        };
        let claim = |(member, claimed): (_, ClaimedVector)| {
            let body = UpdateClaim {
                member,
                vector: claimed.vector,
                dealers: dealers_digest(&transcript, dealers),
            };
            let signed = Verified::sign(body, federation.key(member), &open);
            (member, ClaimedVector::from(signed.unverified()))
        };
        Confirmations {
            signatures: confirmations.signatures.into_iter().map(sign).collect(),
            claims: confirmations.claims.into_iter().map(claim).collect(),
        }
    }

    fn signed<T: Signable + Clone>(
        &self,
        from: MemberIndex,
        body: T,
        context: &Digest,
    ) -> Unverified<T> {
        let key = self.recorded.federation.key(from);
        Verified::sign(body, key, context).unverified().clone()
    }
}

impl Shown {
    fn before(open: Digest) -> Self {
        Self {
            open,
            adapters: BTreeMap::new(),
            commitments: Commitments::default(),
            transcript: None,
            dealers: MemberSet::default(),
            list: None,
        }
    }

    fn note(&mut self, message: &ToMember) {
        match message {
            ToMember::Open(open) => {
                self.open = open.digest();
                self.adapters.insert(self.open.into(), open.adapter);
            }
            ToMember::Commitments(commitments) => self.commitments = commitments.clone(),
            ToMember::PeerKeys(keys) => {
                let joined = Recorded::joined(&self.open, keys, &self.commitments);
                self.transcript = Some(joined.transcript(&self.open));
            }
            ToMember::Dealers(dealers) => self.dealers = dealers.clone(),
            ToMember::Survivors { list, .. } => self.list = Some(list.clone()),
            _ => {}
        }
    }
}

impl SaidSoFar {
    fn note(&mut self, shown: &Shown, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Upload(Upload { open, claim, .. }) => {
                    let vector = claim.claimed().vector;
                    let before = *self.uploads.entry(open).or_insert(vector);
                    assert_eq!(before, vector, "a second vector in one attempt");
                }
                Said::Message(ToAggregator::Round { open, message }) => {
                    self.note_round(shown, open, &message);
                }
                Said::Message(_) => {}
            }
        }
    }

    fn note_round(&mut self, shown: &Shown, open: OpenTag, message: &RoundMessage) {
        let bytes = codec::encode(message).expect("the member sends it");
        match message {
            RoundMessage::Confirm(_) => {
                let before = self.confirmed.entry(open).or_insert_with(|| bytes.clone());
                assert_eq!(*before, bytes, "a second survivor list in one attempt");
            }
            RoundMessage::Reveal { .. } => {
                let before = self.revealed.entry(open).or_insert_with(|| bytes.clone());
                assert_eq!(*before, bytes, "other shares in one attempt");
                assert!(self.confirmed.contains_key(&open), "it signed no list");
                let adapter = shown.adapters[&open];
                let before = *self.revealed_on.entry(adapter).or_insert(open);
                assert_eq!(before, open, "it revealed twice on one adapter");
            }
            _ => {}
        }
    }
}
