//! The model against PyTorch, Transformers and PEFT: the numbers in
//! `golden/`, which `examples/oracle/make_golden.py` writes.

use std::path::PathBuf;

use fedlora_adapter::{Adapter, LoraConfig, Target, peft};
use fedlora_model::Example;
use fedlora_train::{Device, Engine};
use serde_json::Value;

mod goldens;

use goldens::{golden, golden_dir, ids, numbers, random_adapter, tiny};

fn base() -> Engine {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/assets/base");
    Engine::open(&dir, &Device::Cpu).unwrap()
}

/// Relative to the largest of the expected values: logits cross zero.
fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    for (index, (&got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs() / largest;
        assert!(
            error < tolerance,
            "element {index}: {got} instead of {expected}"
        );
    }
}

fn assert_loss(got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    let error = (got - expected).abs() / expected;
    assert!(error < tolerance, "{got} instead of {expected}");
}

fn whole(tokens: Vec<u32>) -> Example {
    let counts = vec![true; tokens.len()];
    Example::new(tokens, counts)
}

#[test]
fn tiny_logits_are_transformers() {
    let golden = golden("golden.json");
    let logits = tiny()
        .logits(None, &ids(&golden["tiny"]["tokens"]))
        .unwrap();
    assert_close(&logits, &numbers(&golden["tiny"]["logits"]), 1e-4);
}

#[test]
fn base_logits_are_transformers() {
    let golden = &golden("golden.json")["base"];
    let engine = base();
    let logits = engine.logits(None, &ids(&golden["tokens"])).unwrap();
    let vocab = engine.vocab_size();
    let last = &logits[logits.len() - vocab..];
    assert_close(last, &numbers(&golden["last_logits"]), 1e-4);
    let norms: Vec<f32> = logits
        .chunks(vocab)
        .map(|row| row.iter().map(|v| v * v).sum::<f32>().sqrt())
        .collect();
    assert_close(&norms, &numbers(&golden["row_norms"]), 1e-4);
}

/// An adapter with random A and B on the embedded base, the same on every machine.
fn our_adapter(engine: &Engine) -> Adapter {
    let config = LoraConfig::new(2, 6.0, 0.05, [Target::Q, Target::V, Target::Down]).unwrap();
    random_adapter(engine, &config)
}

#[test]
fn peft_computes_our_adapter_as_we_do() {
    let engine = base();
    let adapter = our_adapter(&engine);
    let dir = golden_dir().join("ours");
    if std::env::var_os("FEDLORA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        peft::save(&dir, &adapter, "base").unwrap();
        return;
    }
    // What PEFT read is what we write today.
    assert_eq!(peft::load(&dir).unwrap().digest(), adapter.digest());
    let golden = &golden("golden.json")["base"];
    let examples = [whole(ids(&golden["tokens"]))];
    let plain = engine.evaluate(None, &examples).unwrap().loss;
    assert_loss(plain, &golden["loss"], 1e-3);
    let adapted = engine.evaluate(Some(&adapter), &examples).unwrap().loss;
    assert_loss(adapted, &golden["ours"], 1e-3);
    assert!(
        (adapted - plain).abs() > 0.01,
        "the adapter changes nothing"
    );
}

#[test]
fn we_compute_an_adapter_of_peft_as_it_does() {
    let golden = &golden("golden.json")["base"];
    let adapter = peft::load(&golden_dir().join("theirs")).unwrap();
    assert_eq!(
        (adapter.config().rank(), adapter.config().alpha()),
        (3, 5.0)
    );
    let examples = [whole(ids(&golden["tokens"]))];
    let loss = base().evaluate(Some(&adapter), &examples).unwrap().loss;
    assert_loss(loss, &golden["theirs"], 1e-3);
}
