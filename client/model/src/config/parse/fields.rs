//! The settings of one JSON object, each read as what it should be or refused by its name.

use std::path::Path;

use serde_json::{Map, Value};

use super::super::ModelConfigError;

/// A range of whole numbers from 1. Far above any model, and so low that neither the list
/// of a model's tensors nor a product of two sizes gets out of hand.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    most: u64,
    text: &'static str,
}

pub(super) const BLOCKS: Limit = Limit {
    most: 1 << 12,
    text: "a whole number from 1 to 4096",
};
pub(super) const HEADS: Limit = Limit {
    most: 1 << 14,
    text: "a whole number from 1 to 16384",
};
pub(super) const WIDTH: Limit = Limit {
    most: 1 << 20,
    text: "a whole number from 1 to 1048576",
};
pub(super) const TOKENS: Limit = Limit {
    most: 1 << 24,
    text: "a whole number from 1 to 16777216",
};

/// A JSON object with the file and the setting that it stands in, for errors.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) within: Option<&'static str>,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn refuse(&self, key: &str, expected: &'static str) -> ModelConfigError {
        ModelConfigError::Setting {
            path: self.path.to_owned(),
            key: match self.within {
                Some(within) => format!("{within}.{}", short(key)),
                None => short(key),
            },
            got: self
                .object
                .get(key)
                .map_or_else(|| "absent".to_owned(), |value| short(&value.to_string())),
            expected,
        }
    }

    /// The value, where there is one other than null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn none(&self, key: &str, expected: &'static str) -> Result<(), ModelConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    pub(super) fn absent_or(
        &self,
        key: &str,
        allowed: &[&str],
        expected: &'static str,
    ) -> Result<(), ModelConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if value.as_str().is_some_and(|text| allowed.contains(&text)) => Ok(()),
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    pub(super) fn off(&self, key: &str, expected: &'static str) -> Result<(), ModelConfigError> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, ModelConfigError> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.refuse(key, "true or false")),
        }
    }

    pub(super) fn size(&self, key: &str, limit: Limit) -> Result<usize, ModelConfigError> {
        self.object
            .get(key)
            .and_then(Value::as_u64)
            .filter(|size| (1..=limit.most).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.refuse(key, limit.text))
    }

    pub(super) fn optional_size(
        &self,
        key: &str,
        limit: Limit,
    ) -> Result<Option<usize>, ModelConfigError> {
        self.get(key).map(|_| self.size(key, limit)).transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, ModelConfigError> {
        self.object
            .get(key)
            .and_then(Value::as_f64)
            // Transformers computes with them in f32.
            .filter(|&number| number > 0.0 && number < f64::from(f32::MAX))
            .ok_or_else(|| self.refuse(key, "a number above 0"))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelConfigError> {
        self.get(key).map(|_| self.number(key)).transpose()
    }

    pub(super) fn whole_head(&self) -> Result<(), ModelConfigError> {
        match self.optional_number("partial_rotary_factor")? {
            None => Ok(()),
            Some(1.0) => Ok(()),
            Some(_) => Err(self.refuse("partial_rotary_factor", "1: all of a head is rotated")),
        }
    }

    /// The object at `key`; an empty one says nothing.
    pub(super) fn rope_object(
        &self,
        key: &'static str,
    ) -> Result<Option<Fields<'a>>, ModelConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok((!object.is_empty()).then_some(Fields {
                path: self.path,
                within: Some(key),
                object,
            })),
            Some(_) => Err(self.refuse(key, "null or an object with a rope_type")),
        }
    }

    /// The token's id, or the first of several.
    pub(super) fn token(&self, key: &str, default: Option<u32>) -> Option<u32> {
        let Some(value) = self.object.get(key) else {
            return default;
        };
        let value = value
            .as_array()
            .and_then(|ids| ids.first())
            .unwrap_or(value);
        value.as_u64().and_then(|id| u32::try_from(id).ok())
    }
}

/// Cut at 80 characters.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
