//! Variants of LoRA against PEFT: the numbers in `golden/variants`, which `examples/oracle/variants.py`
//! writes.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;

use fedlora_adapter::{Adapter, Factors, LoraConfig, Target, peft};
use fedlora_model::{Example, SplitMix};
use fedlora_train::{
    Batches, Decay, Device, Engine, LearningRate, RateRatio, TrainOptions, WeightDecay,
};
use serde_json::Value;

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(golden_dir().join("variants/golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|number| number.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

fn tiny() -> Engine {
    Engine::open(&golden_dir().join("tiny"), &Device::Cpu).unwrap()
}

/// The logits of the last four tokens are PEFT's, and not those of the base.
fn assert_logits(golden: &Value, adapter: Option<&Adapter>, expected: &Value) {
    let logits = tiny().logits(adapter, &ids(&golden["tokens"])).unwrap();
    let expected = numbers(expected);
    let found = &logits[logits.len() - expected.len()..];
    let largest = expected
        .iter()
        .fold(0.0_f64, |most, one| most.max(one.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let error = (f64::from(*found) - expected).abs() / largest;
        assert!(error < 1e-4, "{found} instead of {expected}");
    }
    if adapter.is_some() {
        let plain = numbers(&golden["plain"]);
        let most = plain.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(
            most.fold(0.0, f64::max) > 0.01 * largest,
            "it changes nothing"
        );
    }
}

#[test]
fn ranks_alphas_and_scales_of_peft_are_read() {
    let golden = golden();
    assert_logits(&golden, None, &golden["plain"]);
    for (name, rank) in [("rslora", 4), ("patterns", 5), ("patterns-rslora", 4)] {
        let adapter = peft::load(&golden_dir().join("variants").join(name)).unwrap();
        assert_eq!(adapter.config().rank(), rank, "{name}");
        assert_logits(&golden, Some(&adapter), &golden["logits"][name]);
    }
}

/// With rsLoRA and random A and B, the same on every machine.
fn our_adapter() -> Adapter {
    let config = LoraConfig::new(8, 4.0, 0.0, [Target::V, Target::O, Target::Up]).unwrap();
    let mut adapter = tiny().init_adapter(&config.rank_stabilised(), 1).unwrap();
    let part = adapter.layout().subset(Factors::B).unwrap();
    let mut random = SplitMix::new(2, 2);
    let values: Vec<f32> = (0..part.len())
        .map(|_| (0.1 * random.normal()) as f32)
        .collect();
    adapter.add(&part, &values).unwrap();
    adapter
}

#[test]
fn peft_computes_our_rank_stabilised_adapter_as_we_do() {
    let adapter = our_adapter();
    let dir = golden_dir().join("variants/ours");
    if std::env::var_os("FEDLORA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        peft::save(&dir, &adapter, "tiny").unwrap();
        return;
    }
    // What PEFT read is what we write today.
    assert_eq!(peft::load(&dir).unwrap().digest(), adapter.digest());
    let golden = golden();
    assert_logits(&golden, Some(&adapter), &golden["ours"]);
}

#[test]
fn a_training_with_lora_plus_and_rslora_is_that_of_peft() {
    let golden = &golden()["training"];
    let number = |key: &str| golden[key].as_f64().unwrap();
    let count = |key: &str| NonZeroUsize::new(number(key) as usize).unwrap();
    let sequences = golden["examples"].as_array().unwrap().iter().map(ids);
    let examples: Vec<_> = sequences
        .map(|tokens| Example::new(tokens.clone(), vec![true; tokens.len()]))
        .collect();
    let start = peft::load(&golden_dir().join("variants/start")).unwrap();
    assert!(start.config().is_rank_stabilised());
    let losses = |ratio: f64| {
        let options = TrainOptions {
            batches: Batches::Continuous {
                batch_size: count("batch"),
                shuffle: false,
                steps: count("steps"),
            },
            learning_rate: LearningRate::new(number("rate")).unwrap(),
            rate_ratio: RateRatio::new(ratio).unwrap(),
            decay: Decay::Constant,
            weight_decay: WeightDecay::new(number("decay")).unwrap(),
            clip_norm: None,
            ..TrainOptions::default()
        };
        let mut losses = Vec::new();
        let mut note = |progress: fedlora_train::Progress| {
            losses.push(progress.loss);
            ControlFlow::Continue(())
        };
        tiny()
            .train(&start, Factors::Both, &examples, &options, &mut note)
            .unwrap();
        losses
    };
    let expected = numbers(&golden["losses"]);
    let found = losses(number("ratio"));
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = (found - expected).abs() / expected;
        assert!(error < 1e-3, "step {step}: {found} instead of {expected}");
    }
    let plain = losses(1.0);
    let last = |losses: &[f64]| *losses.last().unwrap();
    assert!(
        last(&plain) > last(&expected) + 0.01,
        "the ratio changes nothing"
    );
}
