//! GGUF files against Transformers: the numbers in `golden/gguf`, which
//! `examples/oracle/make_gguf.py` and `make_gguf_architectures.py` write.

use std::path::PathBuf;

use fedlora_adapter::tensors;
use fedlora_model::BaseWeights;
use fedlora_train::{Device, Engine};
use serde_json::Value;

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf")
}

fn assert_logits(name: &str) {
    let text = std::fs::read_to_string(golden_dir().join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let golden = &golden["models"][name];
    let tokens: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    let expected: Vec<f64> = serde_json::from_value(golden["last_logits"].clone()).unwrap();
    let weights = BaseWeights::from_gguf(&golden_dir().join(format!("{name}.gguf"))).unwrap();
    let engine = Engine::from_weights(&weights, name, &Device::Cpu).unwrap();
    let logits = engine.logits(None, &tokens).unwrap();
    let last = &logits[logits.len() - expected.len()..];
    let largest = expected.iter().fold(0.0_f64, |most, it| most.max(it.abs()));
    for (index, (&got, expected)) in last.iter().zip(&expected).enumerate() {
        let error = (f64::from(got) - expected).abs() / largest;
        assert!(
            error < 1e-4,
            "{name}, token {index}: {got} instead of {expected}"
        );
    }
}

#[test]
fn logits_of_blocks_of_32_are_transformers() {
    assert_logits("llama-mixed");
    assert_logits("sentencepiece");
}

#[test]
fn logits_of_k_types_are_transformers() {
    assert_logits("llama-k");
}

#[test]
fn logits_with_scaled_rotation_are_transformers() {
    assert_logits("llama3-rope");
}

#[test]
fn logits_with_biases_are_transformers() {
    assert_logits("qwen2");
}

/// The file holds the weights of the folder whose logits Transformers computed.
#[test]
fn logits_of_other_architectures_are_transformers() {
    let folder = golden_dir().join("../architectures");
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    let logits = tensors::read(&folder.join("logits.safetensors"), 1 << 20).unwrap();
    for name in ["qwen3", "smollm3", "granite", "llama-yarn", "gemma3"] {
        let weights = BaseWeights::from_gguf(&golden_dir().join(format!("{name}.gguf"))).unwrap();
        let theirs = BaseWeights::load(&folder.join(name)).unwrap();
        assert_eq!(weights.config().architecture, theirs.config().architecture);
        for index in 0..weights.config().tensors().len() {
            assert_eq!(weights.read(index).unwrap(), theirs.read(index).unwrap());
        }
        let engine = Engine::from_weights(&weights, name, &Device::Cpu).unwrap();
        let got = engine.logits(None, &tokens).unwrap();
        let expected = &logits[name].values;
        assert_eq!(got.len(), expected.len());
        let largest = expected.iter().fold(0.0_f32, |most, it| most.max(it.abs()));
        for (got, expected) in got.iter().zip(expected) {
            let error = (got - expected).abs() / largest;
            assert!(error < 1e-4, "{name}: {got} instead of {expected}");
        }
    }
}
