//! PEFT configuration files.
#![no_main]

use std::path::Path;

use fedlora_adapter::peft;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = peft::parse_config(Path::new("fuzzed"), bytes);
});
