//! A malicious aggregator over several rounds and two runs: it opens what it likes, shows members
//! different things, withholds results, restarts members, and restores an old copy of one's log.
//! The members are true machines with true ledgers. All that they reveal is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::ids::{Attempt, MemberIndex, MemberSet, RoundNumber, RunId};
use crate::round::member::MemberEffect;
use crate::round::participant::MemoryLedger;
use crate::wire::messages::{
    ClaimedVector, Cohort, Confirmation, Confirmations, Deal, Keys, Open, PeerKeys, RoundMessage,
    RoundResult, ShareKind, Survivors, ToAggregator, ToMember, UpdateClaim, dealers_digest,
};
use crate::wire::{Unverified, Verified};
use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;

use super::steps::{Chosen, NextAdapter, OddOpening, PlannedAttempt, ROLLED_BACK, Step};
use super::{Federation, Party, class_of, sign_result};

/// The rounds of each of the two runs.
const ROUNDS: u32 = 4;

/// What one member revealed at once.
#[derive(Debug, Clone)]
pub(crate) struct Revelation {
    pub(crate) member: MemberIndex,
    pub(crate) run: RunId,
    pub(crate) round: RoundNumber,
    pub(crate) adapter: Digest,
    /// The digest of the list, and who is on it.
    pub(crate) list: Digest,
    pub(crate) listed: MemberSet,
    /// Whose keys the member was shown, with its own.
    pub(crate) cohort: MemberSet,
    /// Which secret it revealed a share of, by the commitment to the owner's self-mask: that is
    /// another in each attempt.
    pub(crate) shares: BTreeMap<(MemberIndex, Digest), ShareKind>,
}

/// An attempt whose list members have signed.
struct Signed {
    open: Open,
    /// The list that each member was shown.
    shown: BTreeMap<MemberIndex, Digest>,
    lists: BTreeMap<Digest, SignedList>,
}

struct SignedList {
    listed: MemberSet,
    cohort: MemberSet,
    transcript: Digest,
    deals: BTreeMap<MemberIndex, Digest>,
    confirmations: Confirmations,
}

/// A run as the adversary tells of it.
struct Told {
    federation: Federation,
    machines: Vec<Party>,
    /// How many of the results each machine was shown.
    shown: Vec<usize>,
    results: Vec<Unverified<RoundResult>>,
    adapter: Adapter,
    attempt: Attempt,
    signed: Option<Signed>,
}

/// What a machine says.
enum Said {
    Message(RoundMessage),
    Vector(ClaimedVector),
}

/// The malicious aggregator, with members that it controls: it has their keys.
pub(crate) struct Adversary {
    runs: [Told; 2],
    ledgers: Vec<MemoryLedger>,
    kept: MemoryLedger,
    /// The members that collude: the last ones.
    pub(crate) colluders: BTreeSet<MemberIndex>,
    /// All that members revealed, in order.
    pub(crate) revealed: Vec<Revelation>,
    values: BTreeMap<Digest, Vec<f32>>,
    rng: StdRng,
}

impl Adversary {
    pub(crate) fn new(members: usize, colluders: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(9);
        let runs = [7, 9].map(|id| {
            let federation = Federation::in_run(members, ROUNDS, RunId([id; 16]));
            let machines = federation.roster.indices();
            let machines =
                machines.map(|me| Party::new(&federation, me).joined(&federation, &mut rng));
            Told {
                machines: machines.collect(),
                shown: vec![0; members],
                results: Vec::new(),
                adapter: federation.adapter.clone(),
                attempt: Attempt(0),
                signed: None,
                federation,
            }
        });
        Self {
            runs,
            ledgers: vec![MemoryLedger::default(); members],
            kept: MemoryLedger::default(),
            colluders: (members - colluders..members)
                .map(|place| MemberIndex(place as u16))
                .collect(),
            revealed: Vec::new(),
            values: BTreeMap::new(),
            rng,
        }
    }

    pub(crate) fn federation(&self) -> &Federation {
        &self.runs[0].federation
    }

    pub(crate) fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Attempt(plan) => self.attempt(plan),
            Step::Confirm(run, to) => self.confirm(*run, *to),
            Step::Publish(run, next) => self.publish(*run, *next),
            Step::Restart(members) => {
                for member in self.members().filter(|member| members.has(*member)) {
                    self.restart(0, member);
                    self.restart(1, member);
                }
            }
            Step::Keep => self.kept = self.ledgers[usize::from(ROLLED_BACK.0)].clone(),
            Step::Restore => {
                self.ledgers[usize::from(ROLLED_BACK.0)] = self.kept.clone();
                self.restart(0, ROLLED_BACK);
                self.restart(1, ROLLED_BACK);
            }
        }
    }

    fn members(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        (0..self.ledgers.len() as u16).map(MemberIndex)
    }

    fn restart(&mut self, run: usize, member: MemberIndex) {
        let (told, place) = (&mut self.runs[run], usize::from(member.0));
        let fresh = Party::new(&told.federation, member);
        told.machines[place] = fresh.joined(&told.federation, &mut self.rng);
        told.shown[place] = 0;
    }

    /// Hands a member's machine a message; does what it asks for.
    fn deliver(&mut self, run: usize, member: MemberIndex, message: ToMember) -> Vec<Said> {
        let (told, place) = (&mut self.runs[run], usize::from(member.0));
        let party = &mut told.machines[place];
        mem::swap(&mut party.ledger, &mut self.ledgers[place]);
        let mut queue = VecDeque::from(party.hand(message, &mut self.rng));
        mem::swap(&mut party.ledger, &mut self.ledgers[place]);
        let mut said = Vec::new();
        while let Some(effect) = queue.pop_front() {
            match effect {
                MemberEffect::Send(ToAggregator::Round { message, .. }) => {
                    said.push(Said::Message(message));
                }
                MemberEffect::Upload(upload) => {
                    said.push(Said::Vector(ClaimedVector::from(&upload.claim)));
                }
                MemberEffect::Train(task) => queue.extend(party.machine.trained(task.round)),
                MemberEffect::Encode { round, attempt, .. } => {
                    let update = told.federation.update(place);
                    queue.extend(party.machine.encoded(round, attempt, Ok(update)));
                }
                MemberEffect::Fetch { adapter, .. } => {
                    let values = self.values.get(&adapter).cloned();
                    queue.extend(party.machine.fetched(values));
                }
                MemberEffect::End(end) => party.ended = Some(end),
                _ => {}
            }
        }
        said
    }

    /// Members whose machines ended the run begin anew; all are shown the results so far.
    fn catch_up(&mut self, run: usize) {
        for member in self.members() {
            let place = usize::from(member.0);
            if self.runs[run].machines[place].ended.is_some() {
                self.restart(run, member);
            }
            while let Some(result) = self.runs[run].results.get(self.runs[run].shown[place]) {
                let result = ToMember::Result(result.clone());
                self.runs[run].shown[place] += 1;
                self.deliver(run, member, result);
            }
        }
    }

    fn open(&mut self, run: usize, odd: OddOpening) -> Open {
        let told = &mut self.runs[run];
        if odd != OddOpening::SameAttempt {
            told.attempt.0 += 1;
        }
        let last = told.results.last().map(|result| result.claimed().digest());
        let mut open = Open {
            round: RoundNumber(told.results.len() as u32 + 1),
            attempt: told.attempt,
            previous: last.unwrap_or(told.federation.previous),
            adapter: told.adapter.digest(),
            ..told.federation.open.clone()
        };
        match odd {
            OddOpening::None | OddOpening::SameAttempt => {}
            OddOpening::RoundAhead => open.round.0 += 1,
            OddOpening::FirstAdapter => open.adapter = told.federation.adapter.digest(),
            OddOpening::LowConfirmations => open.confirmations -= 1,
        }
        open
    }

    fn attempt(&mut self, plan: &PlannedAttempt) {
        let run = plan.run;
        self.catch_up(run);
        let open = self.open(run, plan.odd);
        let digest = open.digest();
        let mut keys: BTreeMap<MemberIndex, Unverified<Keys>> = BTreeMap::new();
        for member in self.members().filter(|member| plan.opened.has(*member)) {
            for said in self.deliver(run, member, ToMember::Open(open.clone())) {
                if let Said::Message(RoundMessage::Keys { keys: own, .. }) = said {
                    keys.insert(member, own);
                }
            }
        }
        let mut signed = Signed {
            open,
            shown: BTreeMap::new(),
            lists: BTreeMap::new(),
        };
        for second in [false, true] {
            let cohort = plan.cohorts[usize::from(second)];
            let shown = keys.iter().filter(|(member, _)| cohort.has(**member));
            let shown: BTreeMap<_, _> = shown.map(|(member, own)| (*member, own.clone())).collect();
            self.share(plan, second, &digest, &shown, &mut signed);
        }
        self.runs[run].signed = Some(signed);
        self.confirm(run, plan.confirmed);
    }

    /// From the keys of a cohort to the signatures of those that were shown it.
    fn share(
        &mut self,
        plan: &PlannedAttempt,
        second: bool,
        open: &Digest,
        keys: &BTreeMap<MemberIndex, Unverified<Keys>>,
        signed: &mut Signed,
    ) {
        let run = plan.run;
        let weights = keys.iter();
        let weights = weights.map(|(member, keys)| (*member, keys.claimed().weight));
        let cohort = Cohort::new(&weights.collect());
        let mut deals: BTreeMap<MemberIndex, Deal> = BTreeMap::new();
        let holders = keys.keys().copied();
        for member in holders.filter(|member| plan.second_cohort.has(*member) == second) {
            let others = keys.iter().filter(|(other, _)| **other != member);
            let message = ToMember::PeerKeys(PeerKeys {
                cohort: cohort.clone(),
                openings: BTreeMap::new(),
                keys: others.map(|(_, keys)| keys.clone()).collect(),
            });
            for said in self.deliver(run, member, message) {
                if let Said::Message(RoundMessage::Shares(deal)) = said {
                    deals.insert(member, deal.claimed().clone());
                }
            }
        }
        for holder in deals.keys().copied().collect::<Vec<_>>() {
            let dealers = deals.iter().filter(|(dealer, _)| plan.dealt.has(**dealer));
            let shares = dealers
                .filter_map(|(dealer, deal)| Some((*dealer, deal.shares.get(&holder)?.clone())));
            let message = ToMember::PeerShares(shares.collect());
            self.deliver(run, holder, message);
        }
        for second in [false, true] {
            let chosen = plan.dealers[usize::from(second)];
            let dealers: MemberSet = deals
                .keys()
                .copied()
                .filter(|one| chosen.has(*one))
                .collect();
            let told = deals.keys().copied();
            let told = told.filter(|member| plan.second_dealers.has(*member) == second);
            let mut uploads = BTreeMap::new();
            for member in told {
                let message = ToMember::Dealers(dealers.clone());
                for said in self.deliver(run, member, message) {
                    if let Said::Vector(vector) = said {
                        uploads.insert(member, vector);
                    }
                }
            }
            let list = SignedList {
                listed: MemberSet::new(),
                cohort: cohort.members.clone(),
                transcript: cohort.transcript(open, None),
                deals: deals
                    .iter()
                    .map(|(member, deal)| (*member, deal.self_mask))
                    .collect(),
                confirmations: Confirmations::default(),
            };
            self.list(plan, &dealers, &uploads, list, signed);
        }
    }

    /// The lists, and the signatures on them.
    fn list(
        &mut self,
        plan: &PlannedAttempt,
        dealers: &MemberSet,
        uploads: &BTreeMap<MemberIndex, ClaimedVector>,
        of: SignedList,
        signed: &mut Signed,
    ) {
        for second in [false, true] {
            let chosen = plan.lists[usize::from(second)];
            let listed = dealers.iter().filter(|member| chosen.has(*member));
            let made_up = Digest::of("test", b"a vector that nobody uploaded");
            let vector = |member| uploads.get(&member).map_or(made_up, |claim| claim.vector);
            let survivors = Survivors(listed.map(|member| (member, vector(member))).collect());
            let list = survivors.list();
            let digest = list.digest(&of.transcript, dealers);
            let mut signatures = BTreeMap::new();
            let mut claims = uploads.clone();
            for member in self
                .colluders
                .iter()
                .filter(|one| list.members.contains(**one))
            {
                let body = Confirmation {
                    member: *member,
                    list: digest,
                };
                let key = &self.federation().identities[usize::from(member.0)];
                let signature = Verified::sign(body, key, &signed.open.digest()).signature();
                signatures.insert(*member, signature);
                let claim = UpdateClaim {
                    member: *member,
                    vector: made_up,
                    dealers: dealers_digest(&of.transcript, dealers),
                };
                let claim = Verified::sign(claim, key, &signed.open.digest());
                claims.insert(*member, ClaimedVector::from(claim.unverified()));
            }
            let told = uploads.keys().copied();
            for member in told.filter(|member| plan.second_list.has(*member) == second) {
                let message = ToMember::Survivors {
                    list: list.clone(),
                    proof: survivors.proof(member),
                };
                for said in self.deliver(plan.run, member, message) {
                    if let Said::Message(RoundMessage::Confirm(signature)) = said {
                        signatures.insert(member, signature);
                        signed.shown.insert(member, digest);
                    }
                }
            }
            // Both lists may be the same.
            let list = signed.lists.entry(digest).or_insert_with(|| SignedList {
                listed: list.members,
                cohort: of.cohort.clone(),
                transcript: of.transcript,
                deals: of.deals.clone(),
                confirmations: Confirmations::default(),
            });
            list.confirmations.signatures.extend(signatures);
            list.confirmations.claims.extend(claims);
        }
    }

    fn confirm(&mut self, run: usize, to: Chosen) {
        let Some(signed) = self.runs[run].signed.take() else {
            return;
        };
        for (member, digest) in signed.shown.iter().filter(|(member, _)| to.has(**member)) {
            let list = &signed.lists[digest];
            let message = ToMember::Confirmations(list.confirmations.clone());
            for said in self.deliver(run, *member, message) {
                if let Said::Message(RoundMessage::Reveal { shares, .. }) = said {
                    let shares = shares.iter();
                    let shares =
                        shares.map(|(owner, share)| ((*owner, list.deals[owner]), share.kind()));
                    self.revealed.push(Revelation {
                        member: *member,
                        run: signed.open.run,
                        round: signed.open.round,
                        adapter: signed.open.adapter,
                        list: *digest,
                        listed: list.listed.clone(),
                        cohort: list.cohort.clone(),
                        shares: shares.collect(),
                    });
                }
            }
        }
        self.runs[run].signed = Some(signed);
    }

    fn publish(&mut self, run: usize, next: NextAdapter) {
        let told = &mut self.runs[run];
        let first = &told.federation.adapter;
        let values: Vec<f32> = match next {
            NextAdapter::Moved => told.adapter.values().iter().map(|x| x + 0.001).collect(),
            NextAdapter::Same => told.adapter.values().to_vec(),
            NextAdapter::First => first.values().to_vec(),
        };
        let adapter = Adapter::new(
            first.config().clone(),
            first.layout().clone(),
            values.clone(),
        )
        .unwrap();
        let list = told.signed.as_ref().and_then(|signed| {
            let (_, digest) = signed.shown.first_key_value()?;
            Some((*digest, &signed.lists[digest]))
        });
        let all = told.federation.roster.indices();
        let survivors: Vec<_> = match list {
            Some((_, list)) => list.listed.iter().collect(),
            None => told.federation.roster.indices().collect(),
        };
        let last = told.results.last().map(|result| result.claimed().digest());
        let weights = survivors.iter();
        let result = RoundResult {
            run: told.federation.run,
            round: RoundNumber(told.results.len() as u32 + 1),
            attempt: told.attempt,
            adapter: adapter.digest(),
            sum: Digest::of("test", b"no sum"),
            total_weight: weights
                .map(|member| class_of(usize::from(member.0)).weight())
                .sum(),
            transcript: list.map_or(Digest::of("test", b"none"), |(digest, list)| {
                RoundResult::transcript_of(&list.transcript, &digest)
            }),
            previous: last.unwrap_or(told.federation.previous),
            dropped: all.filter(|member| !survivors.contains(member)).collect(),
            survivors,
            train_loss: None,
            eval_loss: None,
            clipped: None,
            votes: None,
        };
        self.values.insert(adapter.digest(), values);
        told.results.push(sign_result(&told.federation, result));
        told.adapter = adapter;
        told.attempt = Attempt(0);
        told.signed = None;
    }
}
