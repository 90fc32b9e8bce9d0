//! Events as the aggregator's journal holds them.
#![no_main]

use fedlora_protocol::round::coordinator::Event;
use fedlora_protocol::wire::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = codec::decode::<Event>(bytes) {
        let again = codec::encode(&message).expect("what was decoded fits");
        let twice = codec::decode::<Event>(&again).expect("what was encoded decodes");
        assert_eq!(codec::encode(&twice).expect("as before"), again);
    }
});
