//! Control messages in both directions.
#![no_main]

use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = codec::decode::<ToMember>(bytes) {
        let again = codec::encode(&message).expect("what was decoded fits");
        let twice = codec::decode::<ToMember>(&again).expect("what was encoded decodes");
        assert_eq!(codec::encode(&twice).expect("as before"), again);
    }
    if let Ok(message) = codec::decode::<ToAggregator>(bytes) {
        let again = codec::encode(&message).expect("what was decoded fits");
        let twice = codec::decode::<ToAggregator>(&again).expect("what was encoded decodes");
        assert_eq!(codec::encode(&twice).expect("as before"), again);
    }
});
