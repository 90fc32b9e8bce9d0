//! An event that was kept is judged again: what nobody sent does not pass for an event.

use super::rejects::until;
use crate::ids::MemberIndex;
use crate::round::coordinator::{Coordinator, Event, EventKind};
use crate::round::harness::{Federation, World};
use crate::wire::codec;
use crate::wire::messages::PhaseName;
use fedlora_common::clock::Timestamp;

/// Bytes between two that are changed: prime, so that all parts of a message are met.
const STRIDE: usize = 37;

/// Whether `event` is one that this state can have come to.
pub(super) fn is_genuine(coordinator: &Coordinator, event: &Event) -> bool {
    coordinator
        .decide(event.at, coordinator.input_of(event))
        .as_ref()
        == Ok(event)
}

#[test]
fn no_byte_of_a_kept_event_can_be_changed() {
    let federation = Federation::new(5);
    // Four confirmations come, and the fifth is waited for until the time is up.
    let world = World::new(&federation).silence(&[4], PhaseName::Confirm);
    let world = world.run();
    let (mut coordinator, _) = Coordinator::open(federation.setup(), Timestamp(1_000_000));
    let (mut tried, mut signatures) = (0, 0);
    for bytes in &world.journal {
        let event: Event = codec::decode(bytes).unwrap();
        assert!(is_genuine(&coordinator, &event), "{event:?}");
        // The time of a member's message is the aggregator's word.
        let behind_time = codec::encode(&event.at).unwrap().len();
        for place in (behind_time..bytes.len()).step_by(STRIDE) {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            if let Ok(changed) = codec::decode::<Event>(&changed) {
                assert!(!is_genuine(&coordinator, &changed), "{event:?} at {place}");
                tried += 1;
            }
        }
        signatures += event.kind.signatures();
        coordinator = coordinator.apply(event).0;
    }
    assert!(coordinator.ended());
    // M1, deal, held and claim of each member; four confirmations, and reveals until they suffice.
    let reveals = federation.policy.threshold();
    assert_eq!(signatures, 4 * federation.len() + 4 + reveals);
    assert!(tried > 500, "{tried}");
}

/// A commitment has no signature of its own: the keys have one, and the opening another.
#[test]
fn an_opening_is_signed_beside_the_keys() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Shares);
    let events = world.journal.iter();
    let signatures = events.map(|bytes| codec::decode::<Event>(bytes).unwrap().kind.signatures());
    let contributors = federation.policy.colluders() + 1;
    assert_eq!(signatures.sum::<usize>(), 70 + contributors);
}

#[test]
fn events_out_of_turn_or_before_their_time_are_refused() {
    let federation = Federation::new(5);
    let world = World::new(&federation).silence(&[4], PhaseName::Keys).run();
    let (mut coordinator, _) = Coordinator::open(federation.setup(), Timestamp(1_000_000));
    let events: Vec<Event> = world
        .journal
        .iter()
        .map(|bytes| codec::decode(bytes).unwrap())
        .collect();
    assert!(!is_genuine(&coordinator, &events[5]), "of a later phase");
    let left = |member| Event {
        at: Timestamp(1_000_000),
        kind: EventKind::Left(MemberIndex(member)),
    };
    assert!(is_genuine(&coordinator, &left(4)));
    assert!(!is_genuine(&coordinator, &left(5)), "not on the roster");
    let mut timed = 0;
    for event in events {
        if event.kind == EventKind::TimeUp {
            let early = Event {
                at: Timestamp(event.at.0 - 1),
                kind: EventKind::TimeUp,
            };
            assert!(!is_genuine(&coordinator, &early));
            timed += 1;
        }
        let again = event.clone();
        coordinator = coordinator.apply(event).0;
        if again.kind != EventKind::TimeUp {
            assert!(!is_genuine(&coordinator, &again), "a second time");
        }
    }
    assert_eq!(timed, 1);
}
