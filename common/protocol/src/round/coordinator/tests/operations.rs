//! Random lists of inputs: valid, doubled, reordered, forged, from the wrong member, of
//! members that leave, of members that sign something else than their honest machines say, and
//! time. Nothing panics, no update is counted twice, no round is unmasked with fewer than its
//! quorum, every sum is exact, and nobody is blamed that was honest.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::rejects::fresh_keys;
use crate::crypto::keys::Seed;
use crate::ids::{MemberIndex, MemberSet};
use crate::round::coordinator::{Coordinator, CoordinatorEffect, Event, Fault, Input};
use crate::round::harness::{Federation, RoundOutcome, World, forged, meaningless_reveal};
use crate::wire::codec;
use crate::wire::messages::{Keys, RevealedShare, RoundMessage, ToMember};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

/// One step of a list; numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// The next honest input, or the one at this place: out of order.
    Honest(usize),
    /// An earlier input again.
    Again(usize),
    /// An honest input from another member's connection.
    Impersonate(usize, u16),
    /// An honest input, changed.
    Forge(usize),
    /// An honest message in whose place its sender signs another; the last number says which.
    Malign(usize, u8),
    /// A forged upload of a member.
    Invent(u16),
    Absent(u16),
    Abstain(u16),
    /// An honest input is lost.
    Lose(usize),
    Tick(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => Just(Operation::Honest(0)),
        6 => any::<usize>().prop_map(Operation::Honest),
        2 => any::<usize>().prop_map(Operation::Again),
        1 => (any::<usize>(), 0..8_u16).prop_map(|(at, who)| Operation::Impersonate(at, who)),
        1 => any::<usize>().prop_map(Operation::Forge),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, how)| Operation::Malign(at, how)),
        1 => (0..8_u16).prop_map(Operation::Invent),
        1 => (0..8_u16).prop_map(Operation::Absent),
        1 => (0..8_u16).prop_map(Operation::Abstain),
        1 => any::<usize>().prop_map(Operation::Lose),
        1 => prop_oneof![Just(0), Just(1), 100_000..10_000_000_u64].prop_map(Operation::Tick),
    ]
}

/// Steps that lose nothing: members answer, and some sign other things than they should.
fn signing() -> impl Strategy<Value = Operation> {
    let how = prop_oneof![Just(0), any::<u8>(), (0..8_u8).prop_map(|one| 1 << one)];
    prop_oneof![
        24 => Just(Operation::Honest(0)),
        4 => any::<usize>().prop_map(Operation::Honest),
        1 => any::<usize>().prop_map(Operation::Again),
        1 => any::<usize>().prop_map(Operation::Forge),
        1 => (any::<usize>(), how).prop_map(|(at, how)| Operation::Malign(at, how)),
    ]
}

fn copy(input: &Input) -> Input {
    match input {
        Input::Message {
            from,
            open,
            message,
        } => Input::Message {
            from: *from,
            open: *open,
            message: message.clone(),
        },
        Input::Uploaded { from, open, claim } => Input::Uploaded {
            from: *from,
            open: *open,
            claim: claim.clone(),
        },
        Input::Absent { member } => Input::Absent { member: *member },
        Input::Tick => Input::Tick,
    }
}

fn change(input: &mut Input) {
    match input {
        Input::Message { message, .. } => match message {
            RoundMessage::Commit(commitment) => *commitment = Digest::of("test", b"other"),
            RoundMessage::Keys { keys, .. } => *keys = forged(keys.claimed().clone()),
            RoundMessage::Shares(deal) => *deal = forged(deal.claimed().clone()),
            RoundMessage::Held { dealers, .. } => {
                *dealers = dealers.iter().skip(1).collect();
            }
            RoundMessage::Confirm(signature) => {
                let mut bytes = *signature.as_bytes();
                bytes[0] ^= 1;
                *signature = crate::crypto::sign::Signature::from_bytes(bytes);
            }
            RoundMessage::Reveal { .. } => *message = meaningless_reveal(&[0, 1, 2, 3, 4, 5, 6, 7]),
            RoundMessage::Working | RoundMessage::Abstain => {}
        },
        Input::Uploaded { claim, .. } => *claim = forged(*claim.claimed()),
        Input::Absent { .. } | Input::Tick => {}
    }
}

/// What its sender signs in the message's place; the same where it can say nothing else.
fn malign(world: &World<'_>, from: MemberIndex, message: &RoundMessage, how: u8) -> RoundMessage {
    // Those whose bit is set, of eight.
    let chosen = |member: MemberIndex| how >> (member.0 % 8) & 1 == 1;
    match message {
        // Keys that the honest machine does not know the secrets of: it deals garbage to all, and
        // opens nothing.
        RoundMessage::Keys { keys, opening } => RoundMessage::Keys {
            keys: world.sign_keys(Keys {
                sealing: fresh_keys(from.0).sealing,
                ..keys.claimed().clone()
            }),
            opening: *opening,
        },
        RoundMessage::Shares(deal) => {
            let mut deal = deal.claimed().clone();
            if how == 0 {
                deal.self_mask = Seed::from_bytes([3; 32]).commitment();
            }
            for (holder, dealt) in &mut deal.shares {
                if chosen(*holder) {
                    dealt.sealed.0[0][7] ^= 1;
                }
            }
            world.sign_deal(deal)
        }
        RoundMessage::Held { .. } => {
            // Any of those that dealt, also what did not open.
            let dealers = world.shown.dealers_of(from);
            let dealers: MemberSet = dealers.iter().filter(|dealer| chosen(*dealer)).collect();
            world.sign_held(from, dealers)
        }
        RoundMessage::Reveal { shares, .. } => {
            let mut shares = shares.clone();
            if how.is_multiple_of(4) {
                shares.retain(|owner, _| chosen(*owner));
            } else {
                for (owner, share) in &mut shares {
                    let (RevealedShare::SelfMask(bytes) | RevealedShare::MaskRoot(bytes)) = share;
                    bytes[3] ^= u8::from(chosen(*owner));
                }
            }
            world.sign_reveal(from, shares)
        }
        RoundMessage::Commit(_)
        | RoundMessage::Working
        | RoundMessage::Confirm(_)
        | RoundMessage::Abstain => message.clone(),
    }
}

/// Who signed something else than its honest machine said.
#[derive(Default)]
struct Malicious {
    /// Anything.
    all: BTreeSet<MemberIndex>,
    /// A deal.
    dealt: BTreeSet<MemberIndex>,
    /// Shares.
    revealed: BTreeSet<MemberIndex>,
}

impl Malicious {
    /// Blame falls on the malicious alone. Who is left out for holders that deny good shares, or
    /// for dealers of garbage, is told with them.
    fn check(&self, federation: &Federation, faults: &[Fault]) {
        for fault in faults {
            let member = fault.member();
            let deserved = match fault {
                Fault::Unheld { denied_by, .. } => {
                    let denies = |holder| self.all.contains(holder);
                    self.all.contains(&member) || denied_by.iter().any(denies)
                }
                Fault::Denies { denies, .. } => {
                    let deals_garbage = |dealer| self.dealt.contains(dealer);
                    self.all.contains(&member) || denies.iter().all(deals_garbage)
                }
                Fault::ForgedShare { .. } => self.revealed.contains(&member),
                Fault::Encapsulation { .. } | Fault::InconsistentDeal { .. } => {
                    self.dealt.contains(&member)
                }
            };
            assert!(deserved, "an honest member is blamed: {fault}");
            if let Some(evidence) = fault.evidence() {
                assert_eq!(evidence.check(&federation.roster), Ok(member));
            }
        }
    }
}

fn pick(world: &World<'_>, at: usize) -> Option<Input> {
    (!world.inbox.is_empty()).then(|| copy(&world.inbox[at % world.inbox.len()]))
}

/// Carries the list out, and where the round `finishes` whatever else members say; then lets time
/// pass until the round has ended.
fn carry_out<'a>(
    federation: &'a Federation,
    operations: &[Operation],
    finishes: bool,
) -> (World<'a>, Malicious) {
    let mut world = World::new(federation);
    let mut malicious = Malicious::default();
    let mut seen: Vec<Input> = Vec::new();
    for &operation in operations {
        if world.outcome.is_some() {
            break;
        }
        let input = match operation {
            Operation::Honest(at) if !world.inbox.is_empty() => {
                let at = at % world.inbox.len();
                let input = world.inbox.remove(at).expect("within the inbox");
                seen.push(copy(&input));
                Some(input)
            }
            Operation::Honest(_) => None,
            Operation::Lose(at) if !world.inbox.is_empty() => {
                world.inbox.remove(at % world.inbox.len());
                None
            }
            Operation::Lose(_) => None,
            Operation::Again(at) => (!seen.is_empty()).then(|| copy(&seen[at % seen.len()])),
            Operation::Impersonate(at, who) => pick(&world, at).map(|mut input| {
                if let Input::Message { from, .. } | Input::Uploaded { from, .. } = &mut input {
                    *from = MemberIndex(who);
                }
                input
            }),
            Operation::Forge(at) => pick(&world, at).map(|mut input| {
                change(&mut input);
                input
            }),
            Operation::Malign(at, how) if !world.inbox.is_empty() => {
                let at = at % world.inbox.len();
                let mut input = world.inbox.remove(at).expect("within the inbox");
                if let Input::Message { from, message, .. } = &mut input {
                    malicious.all.insert(*from);
                    match message {
                        RoundMessage::Shares(_) => malicious.dealt.insert(*from),
                        RoundMessage::Reveal { .. } => malicious.revealed.insert(*from),
                        _ => false,
                    };
                    *message = malign(&world, *from, message, how);
                }
                Some(input)
            }
            Operation::Malign(..) => None,
            Operation::Invent(who) => Some(Input::Uploaded {
                from: MemberIndex(who),
                open: federation.open.digest(),
                claim: world.claim(MemberIndex(who), (who + 1) % federation.len() as u16),
            }),
            Operation::Absent(who) => Some(Input::Absent {
                member: MemberIndex(who),
            }),
            Operation::Abstain(who) => Some(Input::Message {
                from: MemberIndex(who),
                open: federation.open.digest().into(),
                message: RoundMessage::Abstain,
            }),
            Operation::Tick(by) => {
                world.now = Timestamp(world.now.0 + by);
                Some(Input::Tick)
            }
        };
        if let Some(input) = input {
            let _ = world.take(input);
        }
    }
    while world.outcome.is_none() {
        let input = world.inbox.pop_front().filter(|_| finishes);
        if let Some(input) = input {
            let _ = world.take(input);
            continue;
        }
        world.now = world.coordinator().deadline();
        world.take(Input::Tick).unwrap();
    }
    (world, malicious)
}

fn replayed(
    federation: &Federation,
    journal: &[Vec<u8>],
) -> (Vec<ToMember>, Vec<MemberIndex>, usize) {
    let (mut coordinator, mut all) = Coordinator::open(federation.setup(), Timestamp(1_000_000));
    for bytes in journal {
        let (next, effects) = coordinator.apply(codec::decode::<Event>(bytes).unwrap());
        all.extend(effects);
        coordinator = next;
    }
    assert!(coordinator.ended());
    let (mut sent, mut added, mut ends) = (Vec::new(), Vec::new(), 0);
    for effect in all {
        match effect {
            CoordinatorEffect::Send(_, message) => sent.push(message),
            CoordinatorEffect::Accumulate(member, _) => added.push(member),
            CoordinatorEffect::Blame(_) => {}
            CoordinatorEffect::Unmask(_) | CoordinatorEffect::Fail(_) => ends += 1,
        }
    }
    (sent, added, ends)
}

/// What holds of every round, however it ended.
fn check(federation: &Federation, world: &World<'_>, malicious: &Malicious) {
    malicious.check(federation, &world.faults);
    let counted: BTreeSet<_> = world.accumulated.iter().copied().collect();
    let added = world.accumulated.len();
    assert_eq!(counted.len(), added, "an update was counted twice");
    if let Some(RoundOutcome::Sum {
        survivors, dropped, ..
    }) = &world.outcome
    {
        assert!(survivors.len() >= federation.policy.quorum());
        assert_eq!(survivors.iter().copied().collect::<BTreeSet<_>>(), counted);
        assert_eq!(survivors.len() + dropped.len(), federation.len());
        // Whatever was signed: what survivors uploaded is honest, and the sum exact.
        world.check_sums();
    }
    let first = replayed(federation, &world.journal);
    assert_eq!((&first.1, first.2), (&world.accumulated, 1));
    // Twice from the start: the same messages.
    assert_eq!(first, replayed(federation, &world.journal));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_list_of_inputs_breaks_the_round(
        members in 3_usize..7,
        operations in prop::collection::vec(operation(), 0..120),
        finishes: bool,
    ) {
        let federation = Federation::new(members);
        let (world, malicious) = carry_out(&federation, &operations, finishes);
        check(&federation, &world, &malicious);
    }

    /// Nobody leaves, and no phase closes early: most rounds come to a sum.
    #[test]
    fn whatever_members_sign_the_sum_is_exact(
        members in 6_usize..9,
        operations in prop::collection::vec(signing(), 60..120),
    ) {
        let federation = Federation::new(members);
        let (world, malicious) = carry_out(&federation, &operations, true);
        check(&federation, &world, &malicious);
    }
}
