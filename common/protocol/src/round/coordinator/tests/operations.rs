//! Random lists of inputs: valid, doubled, reordered, forged, from the wrong member, of
//! members that leave, and time. Nothing panics, no update is counted twice, and no round
//! is unmasked with fewer than its quorum.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::ids::MemberIndex;
use crate::round::coordinator::{Coordinator, CoordinatorEffect, Event, Input};
use crate::round::harness::{Federation, RoundOutcome, World, claim, forged, meaningless_reveal};
use crate::wire::codec;
use crate::wire::messages::{RoundMessage, ToMember};
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
    /// A forged upload or reveal of a member.
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
        1 => (0..8_u16).prop_map(Operation::Invent),
        1 => (0..8_u16).prop_map(Operation::Absent),
        1 => (0..8_u16).prop_map(Operation::Abstain),
        1 => any::<usize>().prop_map(Operation::Lose),
        1 => prop_oneof![Just(0), Just(1), 100_000..10_000_000_u64].prop_map(Operation::Tick),
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

fn change(federation: &Federation, input: &mut Input) {
    match input {
        Input::Message { message, .. } => match message {
            RoundMessage::Commit(commitment) => *commitment = Digest::of("test", b"other"),
            RoundMessage::Keys { keys, .. } => *keys = forged(keys.claimed().clone()),
            // Under the dealer's own signature: garbage for the first holder.
            RoundMessage::Shares(deal) => {
                let mut changed = deal.claimed().clone();
                if let Some(mut first) = changed.shares.first_entry() {
                    first.get_mut().sealed.0[7] ^= 1;
                }
                *deal = federation.resigned(changed);
            }
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

fn pick(world: &World<'_>, at: usize) -> Option<Input> {
    (!world.inbox.is_empty()).then(|| copy(&world.inbox[at % world.inbox.len()]))
}

/// Carries the list out; then lets time pass until the round has ended.
fn carry_out<'a>(federation: &'a Federation, operations: &[Operation]) -> World<'a> {
    let mut world = World::new(federation);
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
                change(federation, &mut input);
                input
            }),
            Operation::Invent(who) => Some(Input::Uploaded {
                from: MemberIndex(who),
                open: federation.open.digest(),
                claim: claim(
                    federation,
                    MemberIndex(who),
                    &federation.identities[usize::from(who + 1) % federation.len()],
                ),
            }),
            Operation::Absent(who) => Some(Input::Absent {
                member: MemberIndex(who),
            }),
            Operation::Abstain(who) => Some(Input::Message {
                from: MemberIndex(who),
                open: federation.open.digest(),
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
        world.now = world.coordinator().deadline();
        world.take(Input::Tick).unwrap();
    }
    world
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
            CoordinatorEffect::Accumulate(member) => added.push(member),
            CoordinatorEffect::Blame(_) => {}
            CoordinatorEffect::Unmask(_) | CoordinatorEffect::Fail(_) => ends += 1,
        }
    }
    (sent, added, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_list_of_inputs_breaks_the_round(
        members in 3_usize..7,
        operations in prop::collection::vec(operation(), 0..120),
    ) {
        let federation = Federation::new(members);
        let world = carry_out(&federation, &operations);
        let counted: BTreeSet<_> = world.accumulated.iter().copied().collect();
        prop_assert_eq!(counted.len(), world.accumulated.len(), "an update was counted twice");
        if let Some(RoundOutcome::Sum { survivors, sum, dropped, .. }) = &world.outcome {
            prop_assert!(survivors.len() >= federation.policy.quorum());
            prop_assert_eq!(&survivors.iter().copied().collect::<BTreeSet<_>>(), &counted);
            prop_assert_eq!(survivors.len() + dropped.len(), members);
            // Forgeries were rejected, so what is left is honest, and exact.
            prop_assert_eq!(sum, &federation.plain_sum(survivors));
        }
        let (_, added, ends) = replayed(&federation, &world.journal);
        prop_assert_eq!(&added, &world.accumulated);
        prop_assert_eq!(ends, 1);
        // Twice from the start: the same messages.
        prop_assert_eq!(
            replayed(&federation, &world.journal),
            replayed(&federation, &world.journal)
        );
    }
}
