//! Golden numbers of other programs, and what they are compared with.

use std::path::PathBuf;

use fedlora_adapter::{Adapter, Factors, LoraConfig};
use fedlora_model::SplitMix;
use fedlora_train::{Device, Engine};
use serde_json::Value;

pub(crate) fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A file of golden numbers.
pub(crate) fn golden(path: &str) -> Value {
    let text = std::fs::read_to_string(golden_dir().join(path)).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|number| number.as_f64().unwrap()).collect()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

pub(crate) fn tiny() -> Engine {
    Engine::open(&golden_dir().join("tiny"), &Device::Cpu).unwrap()
}

/// An adapter with random A and B, the same on every machine.
pub(crate) fn random_adapter(engine: &Engine, config: &LoraConfig) -> Adapter {
    let mut adapter = engine.init_adapter(config, 1).unwrap();
    let part = adapter.layout().subset(Factors::B).unwrap();
    let mut random = SplitMix::new(2, 2);
    let values: Vec<f32> = (0..part.len())
        .map(|_| (0.1 * random.normal()) as f32)
        .collect();
    adapter.add(&part, &values).unwrap();
    adapter
}
