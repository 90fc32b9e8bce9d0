//! PEFT weight files, for an adapter on one projection.
#![no_main]

use std::path::Path;

use fedlora_adapter::{LoraConfig, Target, peft};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let target = Target::from_module("q_proj").expect("a projection");
    let config = LoraConfig::new(2, 4.0, 0.0, [target]).expect("a sound configuration");
    if let Ok(adapter) = peft::parse_weights(Path::new("fuzzed"), config, bytes) {
        assert!(adapter.values().iter().all(|value| value.is_finite()));
        let _ = adapter.digest();
    }
});
