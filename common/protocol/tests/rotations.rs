//! The simulator's rotations, in a process of its own: once asked for, they stay the same.

use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{CohortWeight, FixedPoint, LaneBits, repeat_rotations};

#[test]
fn rotations_are_those_of_the_attempt_until_they_are_to_repeat() {
    let cohort = CohortWeight {
        members: 3,
        total: 3,
    };
    let format = |open: &[u8]| {
        let open = Digest::of("test open", open);
        FixedPoint::new(LaneBits::B24, 1.0, cohort, &open).unwrap()
    };
    assert_ne!(format(b"one"), format(b"other"));
    repeat_rotations();
    assert_eq!(format(b"one"), format(b"other"));
}
