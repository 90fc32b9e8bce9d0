//! Packed masked vectors in each lane width; the first byte chooses the number of lanes.
#![no_main]

use fedlora_protocol::fixed::LaneBits;
use fedlora_protocol::secagg::pack::{pack, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&lanes, packed)) = bytes.split_first() else {
        return;
    };
    for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
        let mut out = vec![0; usize::from(lanes)];
        if unpack(bits, packed, out.len(), |index, lane| out[index] = lane).is_ok() {
            assert_eq!(pack(bits, &out), packed);
        }
    }
});
