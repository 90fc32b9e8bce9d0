//! Run plans as TOML.
#![no_main]

use fedlora_protocol::plan::RunPlan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(plan) = RunPlan::from_toml(text) {
        plan.policy().expect("checked when parsed");
        let _ = plan.digest();
        plan.checked().expect("checked when parsed");
    }
});
