//! Joining: requests and responses.
#![no_main]

use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::session::{JoinRequest, JoinResponse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = codec::decode::<JoinRequest>(bytes) {
        let again = codec::encode(&message).expect("what was decoded fits");
        let twice = codec::decode::<JoinRequest>(&again).expect("what was encoded decodes");
        assert_eq!(codec::encode(&twice).expect("as before"), again);
    }
    if let Ok(message) = codec::decode::<JoinResponse>(bytes) {
        let again = codec::encode(&message).expect("what was decoded fits");
        let twice = codec::decode::<JoinResponse>(&again).expect("what was encoded decodes");
        assert_eq!(codec::encode(&twice).expect("as before"), again);
    }
});
