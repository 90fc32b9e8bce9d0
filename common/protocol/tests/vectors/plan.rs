//! The plan's digest, and the words of a roster.

use fedlora_protocol::plan::{RosterWords, RunPlan};
use serde::Deserialize;

use crate::given::{Hex, vectors};

#[derive(Deserialize)]
struct PlanDigest {
    digest: Hex,
}

#[test]
fn the_digest_of_a_plan() {
    let vector: PlanDigest = vectors("plan");
    let text = include_str!("../../../vectors/plan.json");
    let plan: RunPlan = serde_json::from_str(text).unwrap();
    assert_eq!(plan.digest(), vector.digest.digest());
}

#[derive(Deserialize)]
struct Words {
    digest: Hex,
    words: Vec<String>,
}

#[test]
fn roster_words() {
    let vectors: Vec<Words> = vectors("roster_words");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let words = RosterWords::of(&vector.digest.digest());
        assert_eq!(words.as_slice(), vector.words);
    }
}
