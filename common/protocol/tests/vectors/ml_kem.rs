//! ML-KEM-768 as fedlora uses it, against NIST's vectors: `common/vectors/ml_kem_768.json`, which
//! `make_ml_kem.py` beside it made.

use ml_kem::kem::{Decapsulate, KeyExport};
#[expect(
    deprecated,
    reason = "NIST's decapsulation keys are in the expanded form"
)]
use ml_kem::{DecapsulationKey768, EncapsulationKey768, ExpandedKeyEncoding};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::given::Hex;

fn nist<T: DeserializeOwned>(name: &str) -> T {
    let mut all: Value =
        serde_json::from_str(include_str!("../../../vectors/ml_kem_768.json")).unwrap();
    serde_json::from_value(all[name].take()).unwrap()
}

#[derive(Deserialize)]
struct KeyGeneration {
    d: Hex,
    z: Hex,
    ek: Hex,
    dk: Hex,
}

#[test]
#[expect(deprecated, reason = "NIST's decapsulation keys are expanded")]
fn nist_key_generation() {
    let vectors: Vec<KeyGeneration> = nist("key_generation");
    assert_eq!(vectors.len(), 2);
    for KeyGeneration { d, z, ek, dk } in vectors {
        let seed: [u8; 64] = [d.0, z.0].concat().try_into().unwrap();
        let key = DecapsulationKey768::from_seed(seed.into());
        assert_eq!(key.encapsulation_key().to_bytes().as_slice(), ek.0);
        assert_eq!(key.to_expanded_bytes().as_slice(), dk.0);
    }
}

#[derive(Deserialize)]
struct Encapsulated {
    ek: Hex,
    m: Hex,
    c: Hex,
    k: Hex,
}

#[test]
fn nist_encapsulation() {
    let vectors: Vec<Encapsulated> = nist("encapsulation");
    assert_eq!(vectors.len(), 2);
    for Encapsulated { ek, m, c, k } in vectors {
        let key = EncapsulationKey768::new(&ek.array::<1184>().into()).unwrap();
        let (ciphertext, shared) = key.encapsulate_deterministic(&m.array::<32>().into());
        assert_eq!(ciphertext.as_slice(), c.0);
        assert_eq!(shared.as_slice(), k.0);
    }
}

#[derive(Deserialize)]
struct Decapsulation {
    dk: Hex,
    tests: Vec<Decapsulated>,
}

#[derive(Deserialize)]
struct Decapsulated {
    reason: String,
    c: Hex,
    k: Hex,
}

#[test]
#[expect(deprecated, reason = "NIST's decapsulation keys are expanded")]
fn nist_decapsulation_with_implicit_rejection() {
    let Decapsulation { dk, tests } = nist("decapsulation");
    let key = DecapsulationKey768::from_expanded_bytes(&dk.array::<2400>().into()).unwrap();
    let changed = |test: &&Decapsulated| test.reason == "modify ciphertext";
    assert_eq!((tests.len(), tests.iter().filter(changed).count()), (4, 2));
    for test in tests {
        let shared = key.decapsulate(&test.c.array::<1088>().into());
        assert_eq!(shared.as_slice(), test.k.0);
    }
}
