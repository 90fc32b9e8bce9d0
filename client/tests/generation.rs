//! Generation against Transformers and PEFT: the numbers in `golden/generation.json`, which
//! `examples/oracle/generation.py` writes.

use std::path::PathBuf;

use fedlora_adapter::{Adapter, peft};
use fedlora_train::decode::{Sampler, Sampling};
use fedlora_train::{Device, Engine};
use serde_json::Value;

fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn golden(name: &str) -> (Vec<u32>, Vec<u32>, Vec<f64>) {
    let text = std::fs::read_to_string(path("tests/golden/generation.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let list = |field: &str| all[name][field].as_array().unwrap().clone();
    let ids = |field: &str| -> Vec<u32> {
        let ids = list(field).into_iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let likelihoods = list("log_likelihoods");
    (
        ids("prompt"),
        ids("tokens"),
        likelihoods.iter().map(|x| x.as_f64().unwrap()).collect(),
    )
}

/// Compares the greedy continuation token for token, and the likelihoods of its tokens, taken
/// one at a time and all at once.
fn same(base: &str, adapter: Option<&Adapter>, name: &str) {
    let engine = Engine::open(&path(base), &Device::Cpu).unwrap();
    let (prompt, expected, likelihoods) = golden(name);
    let mut decoder = engine.decoder(adapter).unwrap();
    let mut greedy = Sampler::new(Sampling::Greedy);
    let mut logits = decoder.extend(&prompt).unwrap();
    let whole = decoder.fork().log_likelihoods(&expected).unwrap();
    let mut got = Vec::new();
    for (at, &token) in expected.iter().enumerate() {
        got.push(greedy.next(&logits).unwrap());
        let single = decoder.fork().log_likelihoods(&[token]).unwrap()[0];
        for found in [single, whole[at]] {
            let difference = (found - likelihoods[at]).abs();
            assert!(difference < 1e-4, "{name}, token {at}: {difference}");
        }
        logits = decoder.extend(&[token]).unwrap();
    }
    assert_eq!(got, expected, "{name}");
    assert_eq!(got.len(), 30);
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    same("tests/golden/tiny", None, "tiny");
    same("../examples/assets/base", None, "base");
}

#[test]
fn greedy_tokens_with_an_adapter_are_those_of_peft() {
    let adapter = peft::load(&path("tests/golden/theirs")).unwrap();
    same("../examples/assets/base", Some(&adapter), "theirs");
    // The adapter is what makes the difference.
    assert_ne!(golden("theirs").2, golden("base").2);
}
