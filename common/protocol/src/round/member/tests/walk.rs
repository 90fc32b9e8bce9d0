//! The happy walk: every effect, in order, with what it carries.

use super::*;
use crate::ids::RunId;
use crate::round::member::Upload;
use crate::wire::messages::{RevealedShare, vector_digest};
use fedlora_adapter::Factors;

#[test]
fn a_round_asks_for_exactly_these_things() {
    let federation = Federation::in_run(4, 1, RunId([7; 16]));
    let mut world = World::holding(&federation, ME);
    let digest = federation.open.digest();

    // M0.
    let mut effects = step(&mut world);
    assert_effects(&effects, &["opened 1/1", "train 1", "send keys"]);
    let [
        MemberEffect::Opened { open, .. },
        MemberEffect::Train(task),
        _,
    ] = &effects[..]
    else {
        unreachable!("as shown");
    };
    assert_eq!(*open, digest);
    assert_eq!((task.round, task.factors), (ONE, Factors::Both));
    assert_eq!(&task.part, federation.adapter.layout());
    assert_eq!(task.adapter, federation.adapter);
    let keys = effects.pop().unwrap();
    let MemberEffect::Send(ToAggregator::Round {
        open,
        message: RoundMessage::Keys { keys: own, .. },
    }) = &keys
    else {
        unreachable!("as shown");
    };
    assert_eq!((*open, own.claimed().member), (digest.into(), ME));
    world.pass_on(ME, vec![keys]);

    // M1 of all.
    let effects = step(&mut world);
    let ToAggregator::Round {
        message: RoundMessage::Shares(deal),
        ..
    } = sent(&effects)
    else {
        panic!("keys are answered by shares: {effects:?}");
    };
    let holders: Vec<_> = deal.claimed().shares.keys().copied().collect();
    assert_eq!(holders, [1, 2, 3].map(MemberIndex));
    world.pass_on(ME, effects);

    // M2 of the others.
    let effects = step(&mut world);
    let ToAggregator::Round {
        message: RoundMessage::Held { dealers, .. },
        ..
    } = sent(&effects)
    else {
        panic!("shares are answered by whose are held: {effects:?}");
    };
    assert_eq!(dealers, [1, 2, 3].map(MemberIndex).into_iter().collect());
    world.pass_on(ME, effects);

    // Among whom masks are, while the member still trains.
    assert_effects(&step(&mut world), &[]);
    let effects = machine(&mut world).trained(ONE);
    assert_effects(&effects, &["encode 1/1"]);
    let effects = machine(&mut world).encoded(ONE, FIRST, Ok(update(&federation)));
    let [
        MemberEffect::Upload(Upload {
            open,
            masked,
            claim,
        }),
    ] = &effects[..]
    else {
        panic!("an encoded update is uploaded: {effects:?}");
    };
    assert_eq!((*open, claim.claimed().member), (digest, ME));
    assert_eq!(claim.claimed().vector, vector_digest(masked.as_bytes()));
    world.pass_on(ME, effects);

    // The survivor list, and the signatures on it.
    let effects = step(&mut world);
    assert_effects(&effects, &["send confirmation"]);
    world.pass_on(ME, effects);
    let effects = step(&mut world);
    let ToAggregator::Round {
        message: RoundMessage::Reveal {
            shares: revealed, ..
        },
        ..
    } = sent(&effects)
    else {
        panic!("signatures are answered by shares: {effects:?}");
    };
    assert_eq!(revealed.len(), 4);
    let of_seeds = |share| matches!(share, &RevealedShare::SelfMask(_));
    assert!(revealed.values().all(of_seeds), "all survived");
    world.pass_on(ME, effects);

    // M6.
    settle(&mut world);
    let (result, next) = (world.result(), world.next_adapter());
    let effects = world.hand(ME, ToMember::Result(result));
    let [
        MemberEffect::KeepResult(_),
        MemberEffect::Fetch { adapter, values },
    ] = effects[..]
    else {
        panic!("a checked result is fetched: {effects:?}");
    };
    assert_eq!((adapter, values), (next.digest(), next.values().len()));
    let effects = machine(&mut world).fetched(Some(next.values().to_vec()));
    assert_effects(&effects, &["send fetched", "done 1"]);
    let effects = world.hand(ME, ToMember::Finished { failure: None });
    let [MemberEffect::End(Ok(outcome))] = &effects[..] else {
        panic!("the run ends: {effects:?}");
    };
    assert_eq!(
        (outcome.run, outcome.end.rounds, outcome.took_part),
        (federation.run, 1, 1)
    );
    assert_eq!((&outcome.adapter, outcome.end.best), (&next, ONE));
}

#[test]
fn a_training_that_ends_early_waits_for_the_shares() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    open_untrained(&mut world);
    assert_effects(&machine(&mut world).trained(ONE), &[]);
    pass(&mut world);
    pass(&mut world);
    assert_effects(&step(&mut world), &["encode 1/1"]);
}

#[test]
fn shares_of_a_member_that_dropped_out_are_of_its_mask_root() {
    use crate::wire::messages::PhaseName;
    let federation = Federation::new(5);
    let mut world = World::holding(&federation, ME).silence(&[4], PhaseName::Updates);
    for _ in 0..4 {
        pass(&mut world);
    }
    settle(&mut world);
    world
        .take(crate::round::coordinator::Input::Absent {
            member: MemberIndex(4),
        })
        .unwrap();
    pass(&mut world);
    let ToAggregator::Round {
        message: RoundMessage::Reveal {
            shares: revealed, ..
        },
        ..
    } = sent(&step(&mut world))
    else {
        panic!("signatures are answered by shares");
    };
    for (owner, share) in &revealed {
        let dropped = *owner == MemberIndex(4);
        assert_eq!(matches!(share, RevealedShare::MaskRoot(_)), dropped);
    }
    assert_eq!(revealed.len(), 5);
}
