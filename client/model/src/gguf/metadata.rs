//! Metadata of a GGUF file: keys with values of many types.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::GgufError;

/// A type of fixed width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// IEEE single precision.
    F32,
    /// One byte; every value but 0 is true.
    Bool,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// IEEE double precision.
    F64,
}

impl ScalarType {
    /// The type that the format gives this number.
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a stored value.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// A value of as many little-endian bytes as [`bytes`](Self::bytes) says.
    pub fn value(self, bytes: &[u8]) -> Value {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Integer(bits.into()),
            Self::I8 => Value::Integer((bits as i8).into()),
            Self::I16 => Value::Integer((bits as i16).into()),
            Self::I32 => Value::Integer((bits as i32).into()),
            Self::I64 => Value::Integer((bits as i64).into()),
            Self::F32 => Value::Float(f32::from_bits(bits as u32).into()),
            Self::F64 => Value::Float(f64::from_bits(bits)),
            Self::Bool => Value::Bool(bits != 0),
        }
    }
}

/// A metadata value. Integers and floats lose their width.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An integer of any width, signed or not.
    Integer(i128),
    /// A float of either width.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Values of one type.
    List(List),
}

impl Value {
    /// The number, where it is an integer.
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, where it is a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The value, where it is true or false.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The list, where it is one.
    pub fn as_list(&self) -> Option<&List> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// What an error says that it found: a text cut at 80 characters, a list's length.
    fn summary(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Text(text) => format!("\"{}\"", text.chars().take(80).collect::<String>()),
            Self::List(list) => format!("a list of {}", list.len()),
        }
    }
}

/// Values of one type, held about as compactly as the file holds them: a vocabulary is one.
#[derive(Debug, Clone, PartialEq)]
pub enum List {
    /// All texts one after another, with the end of each.
    Texts {
        /// The texts, without anything between them.
        text: String,
        /// Byte offsets in `text`: where each of them ends.
        ends: Vec<u32>,
    },
    /// Values of fixed width.
    Scalars {
        /// The type of each value.
        kind: ScalarType,
        /// Little-endian, one after another.
        bytes: Vec<u8>,
    },
}

impl List {
    /// An empty list of texts.
    pub fn texts() -> Self {
        Self::Texts {
            text: String::new(),
            ends: Vec::new(),
        }
    }

    /// Adds a text to a list of texts; together they are bounded by the header's length,
    /// which is far below 4 GiB.
    pub fn push(&mut self, next: &str) {
        if let Self::Texts { text, ends } = self {
            text.push_str(next);
            ends.push(text.len() as u32);
        }
    }

    /// A list of values of fixed width, little-endian, one after another.
    pub fn scalars(kind: ScalarType, bytes: Vec<u8>) -> Self {
        Self::Scalars { kind, bytes }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts { ends, .. } => ends.len(),
            Self::Scalars { kind, bytes } => bytes.len() / kind.bytes() as usize,
        }
    }

    /// Whether the list has no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The texts in order; `None` where this is a list of something else.
    pub fn as_texts(&self) -> Option<impl Iterator<Item = &str>> {
        let Self::Texts { text, ends } = self else {
            return None;
        };
        let mut start = 0;
        Some(ends.iter().map(move |&end| {
            let one = &text[start..end as usize];
            start = end as usize;
            one
        }))
    }

    /// The values in order; `None` where this is a list of texts.
    pub fn as_scalars(&self) -> Option<impl Iterator<Item = Value>> {
        let Self::Scalars { kind, bytes } = self else {
            return None;
        };
        let width = kind.bytes() as usize;
        Some(bytes.chunks_exact(width).map(|bytes| kind.value(bytes)))
    }
}

/// All key-value pairs of a file.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Pairs that were read from the file at `path`, which errors name.
    pub fn new(path: &Path, values: BTreeMap<String, Value>) -> Self {
        Self {
            path: path.to_owned(),
            values,
        }
    }

    /// The value of a key; `None` where it is absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All pairs, by key.
    #[cfg(any(test, feature = "testing"))]
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.values
    }

    /// The error for a key that is missing or not as expected.
    pub fn refuse(&self, key: &str, expected: &'static str) -> GgufError {
        GgufError::Key {
            path: self.path.clone(),
            key: key.to_owned(),
            got: self
                .get(key)
                .map_or_else(|| "absent".to_owned(), Value::summary),
            expected,
        }
    }

    /// A value that is passed by `read`, or `None` where the key is absent.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.refuse(key, expected)),
            },
        }
    }

    /// A value that must be there and is passed by `read`.
    pub fn required<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, GgufError> {
        self.optional(key, expected, read)?
            .ok_or_else(|| self.refuse(key, expected))
    }
}
