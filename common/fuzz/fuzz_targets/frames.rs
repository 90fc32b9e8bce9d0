//! Frame headers and hello messages.
#![no_main]

use fedlora_transport::frame::{decode_header, encode_header};
use fedlora_transport::hello::decode_hello;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(length) = decode_header(bytes, 1 << 22) {
        let header = encode_header(length).expect("within the limit");
        assert!(bytes.starts_with(&header));
    }
    let _ = decode_hello(bytes);
});
