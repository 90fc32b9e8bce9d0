//! Vectors from the file, and bytes as it writes them.

use std::collections::BTreeMap;

use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::agreement::{AgreementRoot, AgreementSecret, Suite};
use fedlora_protocol::crypto::keys::Seed;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) fn vectors<T: DeserializeOwned>(name: &str) -> T {
    let mut all: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("../../../vectors/vectors.json")).unwrap();
    serde_json::from_value(all.remove(name).unwrap()).unwrap()
}

/// Bytes as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode(text).map(Self)
    }
}

impl Hex {
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(self.array())
    }

    pub(crate) fn pair(&self, suite: Suite) -> AgreementSecret {
        AgreementRoot::from_bytes(self.array()).key_pair(suite)
    }

    pub(crate) fn seed(&self) -> Seed {
        Seed::from_bytes(self.array())
    }
}
