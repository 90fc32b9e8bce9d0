//! GGUF files for tests: a golden one, with something changed, written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::container::Container;
use super::metadata::{List, Value};
use super::quant::TensorType;

/// Where the golden files are.
pub fn golden_path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gguf");
    folder.join(name)
}

/// What the oracle's script wrote.
pub fn golden() -> serde_json::Value {
    let text = std::fs::read_to_string(golden_path("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// SmolLM2 where `examples/fetch-smollm2.sh` puts it, or where the environment says.
pub fn smollm2() -> Option<PathBuf> {
    let named = std::env::var_os("FEDLORA_SMOLLM2").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    named.or(Some(fetched)).filter(|path| path.exists())
}

/// A tensor as it is stored.
#[derive(Clone)]
pub struct TestTensor {
    /// How its values are stored.
    pub kind: TensorType,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Its blocks.
    pub bytes: Vec<u8>,
}

/// Everything in a file.
pub struct TestFile {
    /// The metadata.
    pub values: BTreeMap<String, Value>,
    /// The tensors, by name.
    pub tensors: BTreeMap<String, TestTensor>,
}

impl TestFile {
    /// Reads the golden file `name`.
    pub fn golden(name: &str) -> Self {
        let container = Container::open(&golden_path(name)).unwrap();
        let tensors = container.tensors().iter().map(|(name, info)| {
            let mut bytes = vec![0; info.bytes as usize];
            container.read_at(&mut bytes, info.offset).unwrap();
            let stored = TestTensor {
                kind: info.kind,
                shape: info.shape.clone(),
                bytes,
            };
            (name.clone(), stored)
        });
        Self {
            values: container.metadata().values().clone(),
            tensors: tensors.collect(),
        }
    }

    /// The file with this value for `key`.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.values.insert(key.to_owned(), value);
        self
    }

    /// The file without `key`, which it has.
    pub fn without(mut self, key: &str) -> Self {
        self.values.remove(key).unwrap();
        self
    }

    /// A tensor that the file has.
    pub fn tensor(&mut self, name: &str) -> &mut TestTensor {
        self.tensors.get_mut(name).unwrap()
    }

    /// Writes the file into a folder that lasts as long as what is returned.
    pub fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, self.bytes()).unwrap();
        (dir, path)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            text(&mut out, key);
            put(&mut out, value);
        }
        let mut offset = 0_u64;
        for (name, stored) in &self.tensors {
            text(&mut out, name);
            out.extend((stored.shape.len() as u32).to_le_bytes());
            for size in stored.shape.iter().rev() {
                out.extend((*size as u64).to_le_bytes());
            }
            let code = (0..99).find(|code| TensorType::from_code(*code) == Ok(stored.kind));
            out.extend(code.unwrap().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (stored.bytes.len() as u64).next_multiple_of(32);
        }
        for stored in self.tensors.values() {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&stored.bytes);
        }
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Integers are written as i64, other numbers as f64: readers take any width.
fn put(out: &mut Vec<u8>, value: &Value) {
    let code = |value: &Value| match value {
        Value::Bool(_) => 7_u32,
        Value::Text(_) => 8,
        Value::List(_) => 9,
        Value::Integer(_) => 11,
        Value::Float(_) => 12,
    };
    out.extend(code(value).to_le_bytes());
    match value {
        Value::Text(it) => text(out, it),
        Value::List(list) => {
            let scalars: Vec<_> = list.as_scalars().map(Iterator::collect).unwrap_or_default();
            let kind = scalars.first().map_or(8, code);
            out.extend(kind.to_le_bytes());
            out.extend((list.len() as u64).to_le_bytes());
            if let List::Texts { .. } = list {
                list.as_texts().unwrap().for_each(|it| text(out, it));
            }
            scalars.iter().for_each(|it| scalar(out, it));
        }
        other => scalar(out, other),
    }
}

fn scalar(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(it) => out.push(u8::from(*it)),
        Value::Integer(it) => out.extend((*it as i64).to_le_bytes()),
        Value::Float(it) => out.extend(it.to_le_bytes()),
        Value::Text(_) | Value::List(_) => unreachable!("not of fixed width"),
    }
}
