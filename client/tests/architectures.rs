//! Checkpoints of every supported architecture against Transformers: random weights and the
//! logits in `golden/architectures/`, which `examples/oracle/make_architectures.py` writes.

use std::path::PathBuf;

use fedlora_adapter::tensors;
use fedlora_model::{BaseWeights, LlamaConfig};
use fedlora_train::decode::{Sampler, Sampling};
use fedlora_train::{Device, Engine};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/architectures")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn names(golden: &Value) -> Vec<&String> {
    golden["models"].as_object().unwrap().keys().collect()
}

#[test]
fn logits_are_transformers() {
    let golden = golden();
    let tokens: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    let logits = tensors::read(&folder().join("logits.safetensors"), 1 << 20).unwrap();
    let names = names(&golden);
    assert_eq!((names.len(), logits.len()), (21, 21));
    for name in names {
        let engine = Engine::open(&folder().join(name), &Device::Cpu).unwrap();
        let got = engine.logits(None, &tokens).unwrap();
        let expected = &logits[name];
        assert_eq!(expected.shape, [tokens.len(), engine.vocab_size()]);
        let largest = expected
            .values
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let worst = got
            .iter()
            .zip(&expected.values)
            .map(|(got, expected)| (got - expected).abs() / largest)
            .fold(0.0_f32, f32::max);
        println!("{name}: {worst:e} of the largest logit");
        assert_eq!(got.len(), expected.values.len());
        assert!(worst < 1e-4, "{name}: off by {worst} of the largest logit");
    }
}

#[test]
fn greedy_tokens_are_transformers() {
    let golden = golden();
    for name in names(&golden) {
        let greedy = &golden["models"][name]["greedy"];
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(greedy[key].clone()).unwrap() };
        let engine = Engine::open(&folder().join(name), &Device::Cpu).unwrap();
        let mut decoder = engine.decoder(None).unwrap();
        let mut sampler = Sampler::new(Sampling::Greedy);
        let mut logits = decoder.extend(&ids("prompt")).unwrap();
        let expected = ids("tokens");
        assert_eq!(expected.len(), 20, "{name}");
        for (at, &token) in expected.iter().enumerate() {
            assert_eq!(sampler.next(&logits).unwrap(), token, "{name}, token {at}");
            logits = decoder.extend(&[token]).unwrap();
        }
    }
}

#[test]
fn transformers_reads_our_configurations() {
    let golden = golden();
    for name in names(&golden) {
        let dir = folder().join(name);
        let facts = &golden["models"][name];
        let text = LlamaConfig::load(&dir)
            .unwrap()
            .to_json(facts["dtype"].as_str().unwrap());
        let path = dir.join("config.ours.json");
        if std::env::var_os("FEDLORA_WRITE_GOLDEN").is_some() {
            std::fs::write(path, text).unwrap();
            continue;
        }
        // What Transformers read, and got the same logits from, is what we write today.
        assert_eq!(std::fs::read_to_string(path).unwrap(), text, "{name}");
        assert_eq!(facts["reads_ours"], Value::Bool(true), "{name}");
    }
}

#[test]
fn the_files_are_of_all_kinds() {
    let golden = golden();
    let kinds: Vec<&str> = names(&golden)
        .into_iter()
        .filter_map(|name| golden["models"][name]["dtype"].as_str())
        .collect();
    for kind in ["float32", "float16", "bfloat16"] {
        assert!(kinds.contains(&kind), "{kind}");
    }
    let sharded = folder().join("llama3");
    assert!(!sharded.join("model.safetensors").exists());
    let weights = BaseWeights::load(&sharded).unwrap();
    assert!(weights.parameters() > 10_000);
}
