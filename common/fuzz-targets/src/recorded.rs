//! An honest round, recorded once: what everybody said, and what one member was shown.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::AUXILIARY_LANES;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber};
use fedlora_protocol::round::coordinator::{
    Completed, Coordinator, CoordinatorEffect, Event, Input,
};
use fedlora_protocol::round::evidence::Joined;
use fedlora_protocol::secagg::RunningSums;
use fedlora_protocol::wire::messages::{
    Commitments, Deal, Open, PeerKeys, RoundFailure, RoundMessage, RoundResult, ToAggregator,
    ToMember, UpdateClaim,
};
use fedlora_protocol::wire::{Unverified, Verified};

use crate::federation::Federation;
use crate::party::{Party, Said};

/// The time at which every recorded event is accepted, unless time was up.
pub(crate) const START: Timestamp = Timestamp(1_000_000);

/// One of 5 members may be missing from a sum.
const COMPLETE: usize = 5;

/// The fewest members that neighbours are drawn for.
const SPARSE: usize = 65;

/// An honest round of a federation, in which the last member vanishes before its upload.
pub(crate) struct Recorded {
    pub(crate) federation: Federation,
    /// What the first member is shown, from the plan to the end of the run.
    pub(crate) shown: Vec<ToMember>,
    /// What members sent, in that order.
    pub(crate) sent: Vec<Sent>,
    /// What the coordinator made of it.
    pub(crate) events: Vec<Event>,
    /// The values of the round's adapter.
    pub(crate) adapter: Vec<f32>,
}

/// What a member sent.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) from: MemberIndex,
    pub(crate) what: What,
}

#[derive(Clone)]
pub(crate) enum What {
    Message(RoundMessage),
    Uploaded(Unverified<UpdateClaim>),
}

impl Sent {
    /// The input that it is to the coordinator of the round with the digest `open`.
    pub(crate) fn input(self, open: Digest) -> Input {
        let from = self.from;
        match self.what {
            What::Message(message) => Input::Message {
                from,
                open: open.into(),
                message,
            },
            What::Uploaded(claim) => Input::Uploaded { from, open, claim },
        }
    }
}

impl Recorded {
    /// A round in which all are neighbours of all.
    pub(crate) fn complete() -> &'static Self {
        static RECORDED: LazyLock<Recorded> = LazyLock::new(|| Recorded::of(COMPLETE));
        &RECORDED
    }

    /// A round whose neighbours are drawn from a beacon.
    pub(crate) fn sparse() -> &'static Self {
        static RECORDED: LazyLock<Recorded> = LazyLock::new(|| Recorded::of(SPARSE));
        &RECORDED
    }

    /// What a dealer dealt.
    pub(crate) fn deal_of(&self, dealer: MemberIndex) -> Option<&Deal> {
        self.sent.iter().find_map(|sent| match &sent.what {
            What::Message(RoundMessage::Shares(deal)) if sent.from == dealer => {
                Some(deal.claimed())
            }
            _ => None,
        })
    }

    /// Who takes part, as `keys` say, among neighbours drawn from `commitments`.
    pub(crate) fn joined(open: &Digest, keys: &PeerKeys, commitments: &Commitments) -> Joined {
        let beacon = (!commitments.0.is_empty()).then(|| {
            let beacon = commitments.beacon(open, &keys.openings);
            (commitments.digest(open), beacon)
        });
        Joined {
            cohort: keys.cohort.clone(),
            beacon,
        }
    }

    fn of(members: usize) -> Self {
        let federation = Federation::new(members);
        let mut recorder = Recorder::new(&federation);
        let completed = recorder.run();
        let (result, adapter) = recorder.result(completed);
        let Recorder {
            mut shown,
            sent,
            events,
            ..
        } = recorder;
        let next = Open {
            round: RoundNumber(2),
            previous: result.claimed().digest(),
            adapter: result.claimed().adapter,
            ..federation.open.clone()
        };
        shown.extend([
            ToMember::Result(result),
            ToMember::Open(next),
            ToMember::Abandoned {
                round: RoundNumber(2),
                attempt: Attempt(1),
                reason: RoundFailure::Storage,
            },
            ToMember::Finished { failure: None },
        ]);
        Self {
            shown,
            sent,
            events,
            adapter,
            federation,
        }
    }
}

/// Drives the round.
struct Recorder<'a> {
    federation: &'a Federation,
    parties: Vec<Party<'a>>,
    shown: Vec<ToMember>,
    sent: Vec<Sent>,
    events: Vec<Event>,
    inbox: VecDeque<Sent>,
    uploads: BTreeMap<MemberIndex, Vec<u8>>,
    sums: RunningSums,
}

impl<'a> Recorder<'a> {
    fn new(federation: &'a Federation) -> Self {
        let lanes = federation.adapter.values().len() + AUXILIARY_LANES;
        let members = federation.roster.len();
        Self {
            parties: (0..members)
                .map(|place| Party::new(federation, place, None))
                .collect(),
            shown: Vec::new(),
            sent: Vec::new(),
            events: Vec::new(),
            inbox: VecDeque::new(),
            uploads: BTreeMap::new(),
            sums: RunningSums::new(federation.open.bits, lanes, 1),
            federation,
        }
    }

    /// Shows everybody the plan and the roster, and runs the round.
    fn run(&mut self) -> Completed {
        for member in self.federation.roster.indices() {
            self.deliver(member, ToMember::Plan(self.federation.signed_plan()));
            let roster = self.federation.roster.as_ref().clone();
            self.deliver(member, ToMember::Roster(roster));
        }
        let (mut coordinator, effects) = Coordinator::open(self.federation.setup(), START);
        let mut effects = VecDeque::from(effects);
        loop {
            while let Some(effect) = effects.pop_front() {
                match effect {
                    CoordinatorEffect::Send(member, message) => self.deliver(member, message),
                    CoordinatorEffect::Accumulate(member, group) => {
                        let bytes = self.uploads.remove(&member).expect("it was taken");
                        self.sums.add(group, &bytes).expect("of the round's length");
                    }
                    CoordinatorEffect::Unmask(completed) => return *completed,
                    CoordinatorEffect::Blame(fault) => {
                        panic!("an honest member is blamed: {fault}")
                    }
                    CoordinatorEffect::Fail(reason) => panic!("the round failed: {reason}"),
                }
            }
            let (now, input) = match self.inbox.pop_front() {
                Some(sent) => {
                    self.sent.push(sent.clone());
                    (START, sent.input(self.federation.open.digest()))
                }
                None => (coordinator.deadline(), Input::Tick),
            };
            // What comes after enough have answered is late, and no matter.
            if let Ok(event) = coordinator.decide(now, input) {
                self.events.push(event.clone());
                let (next, more) = coordinator.apply(event);
                coordinator = next;
                effects.extend(more);
            }
        }
    }

    fn deliver(&mut self, to: MemberIndex, message: ToMember) {
        if to.0 == 0 {
            self.shown.push(message.clone());
        }
        let vanishes = usize::from(to.0) + 1 == self.parties.len();
        for said in self.parties[usize::from(to.0)].hand(message) {
            let what = match said {
                Said::Message(ToAggregator::Round { message, .. }) => What::Message(message),
                Said::Upload(_) if vanishes => continue,
                Said::Upload(upload) => {
                    self.uploads.insert(to, upload.masked.as_bytes().to_vec());
                    What::Uploaded(upload.claim)
                }
                Said::Message(_) => continue,
            };
            self.inbox.push_back(Sent { from: to, what });
        }
    }

    /// The signed result, and the values of its adapter.
    fn result(&mut self, completed: Completed) -> (Unverified<RoundResult>, Vec<f32>) {
        let (federation, open) = (self.federation, &self.federation.open);
        let empty = RunningSums::new(open.bits, 0, 1);
        let sums = std::mem::replace(&mut self.sums, empty);
        let sum = Completed::unmask(completed.groups, completed.rule, sums);
        let decoded = sum.decode(open.bits, open.clip, &open.digest());
        let (mean, _) = decoded.expect("an honest sum");
        let mut adapter = federation.adapter.clone();
        let layout = federation.adapter.layout();
        adapter.add(layout, &mean.delta).expect("of that layout");
        let result = RoundResult {
            run: open.run,
            round: open.round,
            attempt: open.attempt,
            adapter: adapter.digest(),
            sum: sum.digest(),
            total_weight: sum.parts().weight,
            transcript: completed.transcript,
            previous: open.previous,
            survivors: completed.survivors,
            dropped: completed.dropped,
            train_loss: mean.train_loss,
            eval_loss: mean.eval_loss,
            clipped: mean.clipped,
            votes: mean.votes,
        };
        let signed = Verified::sign(result, &federation.aggregator, &open.previous);
        (signed.unverified().clone(), adapter.values().to_vec())
    }
}
