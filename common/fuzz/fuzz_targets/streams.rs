//! The first bytes of a stream.
#![no_main]

use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::session::StreamHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = codec::decode::<StreamHeader>(bytes) {
        let again = codec::encode(&message).expect("what was decoded fits");
        let twice = codec::decode::<StreamHeader>(&again).expect("what was encoded decodes");
        assert_eq!(codec::encode(&twice).expect("as before"), again);
    }
});
