//! A round as an honest aggregator runs it, with the true coordinator and simulated time: what a
//! malicious member meets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::AUXILIARY_LANES;
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::coordinator::{
    Completed, Coordinator, CoordinatorEffect, Fault, Input, Reject, RoundSetup,
};
use fedlora_protocol::secagg::RunningSums;
use fedlora_protocol::wire::messages::{
    Cohort, Open, RoundFailure, RoundMessage, SurvivorList, ToMember,
};

use super::federation::{TargetFederation, round_message};
use super::member::Sent;
use super::round::SumOfRound;

/// What a malicious member makes of its messages.
pub(super) type Tamper<'a> = &'a dyn Fn(&TargetFederation, &Seen, MemberIndex, &mut RoundMessage);

/// What every member sees of the round.
pub(super) struct Seen {
    pub(super) open: Open,
    /// The survivor list, once there is one.
    list: Option<SurvivorList>,
}

impl Seen {
    /// What shares and masks are bound to, where all members take part.
    pub(super) fn transcript(&self, federation: &TargetFederation) -> Digest {
        let all = federation.roster.indices();
        let weights = all.map(|member| {
            let settings = federation.settings(usize::from(member.0));
            (member, settings.data_class)
        });
        Cohort::new(&weights.collect()).transcript(&self.open.digest(), None)
    }

    /// What survivors sign.
    pub(super) fn list_digest(&self, federation: &TargetFederation) -> Option<Digest> {
        let dealers = federation.roster.indices().collect();
        let list = self.list.as_ref()?;
        Some(list.digest(&self.transcript(federation), &dealers))
    }
}

/// A round that an honest aggregator has closed.
pub(super) struct HonestRound {
    pub(super) end: Result<SumOfRound, RoundFailure>,
    /// The messages that the coordinator refused, by sender.
    pub(super) rejects: Vec<(MemberIndex, Reject)>,
    /// The faults that the coordinator noticed.
    pub(super) faults: Vec<Fault>,
}

impl HonestRound {
    /// Runs the next round. Each message passes through `tamper`.
    pub(super) fn run(
        federation: &mut TargetFederation,
        tamper: Tamper<'_>,
    ) -> anyhow::Result<Self> {
        let open = federation.next_open()?;
        let mut seen = Seen {
            open: open.clone(),
            list: None,
        };
        let setup = Arc::new(RoundSetup::new(
            open.clone(),
            Arc::clone(&federation.roster),
            federation.policy,
            &federation.plan,
        ));
        let lanes = federation.part(&open)?.len() + AUXILIARY_LANES;
        let groups = federation.policy.groups().count();
        let mut sums = RunningSums::new(open.bits, lanes, groups);
        let mut now = Timestamp(1_000_000);
        let (mut coordinator, effects) = Coordinator::open(setup, now);
        let mut effects = VecDeque::from(effects);
        let mut inbox = VecDeque::new();
        let mut uploads = BTreeMap::new();
        let mut rejects = Vec::new();
        let mut faults = Vec::new();
        loop {
            while let Some(effect) = effects.pop_front() {
                match effect {
                    CoordinatorEffect::Send(to, message) => {
                        if let ToMember::Survivors { list, .. } = &message {
                            seen.list = Some(list.clone());
                        }
                        for sent in federation.tell(to, &message)? {
                            let input = match sent {
                                Sent::Upload(upload) => {
                                    uploads.insert(to, upload.masked);
                                    Some(Input::Uploaded {
                                        from: to,
                                        open: upload.open,
                                        claim: upload.claim,
                                    })
                                }
                                Sent::Message(message) => {
                                    round_message(message).map(|(answers, mut message)| {
                                        tamper(federation, &seen, to, &mut message);
                                        Input::Message {
                                            from: to,
                                            open: answers,
                                            message,
                                        }
                                    })
                                }
                            };
                            inbox.extend(input.map(|input| (to, input)));
                        }
                    }
                    CoordinatorEffect::Accumulate(member, group) => {
                        sums.add(group, uploads[&member].as_bytes())?;
                    }
                    CoordinatorEffect::Blame(fault) => faults.push(fault),
                    CoordinatorEffect::Unmask(done) => {
                        let sum = Completed::unmask(done.groups, done.rule, sums);
                        let decoded = sum.decode(open.bits, open.clip, &open.digest());
                        let end = match decoded {
                            Ok((mean, _)) => Ok(SumOfRound {
                                mean,
                                sum: sum.digest(),
                                parts: sum.parts(),
                                survivors: done.survivors,
                            }),
                            Err(_) => Err(abandon(federation, &open, RoundFailure::Sum)?),
                        };
                        return Ok(Self {
                            end,
                            rejects,
                            faults,
                        });
                    }
                    CoordinatorEffect::Fail(reason) => {
                        let end = Err(abandon(federation, &open, reason)?);
                        return Ok(Self {
                            end,
                            rejects,
                            faults,
                        });
                    }
                }
            }
            let (from, input) = match inbox.pop_front() {
                Some((from, input)) => (Some(from), input),
                None => {
                    now = coordinator.deadline();
                    (None, Input::Tick)
                }
            };
            match coordinator.decide(now, input) {
                Ok(event) => {
                    let (next, more) = coordinator.apply(event);
                    coordinator = next;
                    effects.extend(more);
                }
                Err(reject) => rejects.extend(from.map(|from| (from, reject))),
            }
        }
    }

    /// What the coordinator said to a member's messages.
    pub(super) fn rejects_of(&self, member: MemberIndex) -> Vec<&Reject> {
        let own = self.rejects.iter().filter(|(from, _)| *from == member);
        own.map(|(_, reject)| reject).collect()
    }
}

/// Tells all members that the attempt failed.
fn abandon(
    federation: &mut TargetFederation,
    open: &Open,
    reason: RoundFailure,
) -> anyhow::Result<RoundFailure> {
    let message = ToMember::Abandoned {
        round: open.round,
        attempt: open.attempt,
        reason,
    };
    for member in federation.all() {
        federation.tell(member, &message)?;
    }
    Ok(reason)
}
