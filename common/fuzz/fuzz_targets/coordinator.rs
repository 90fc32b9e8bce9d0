#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fedlora_fuzz_targets::coordinator::run(bytes));
