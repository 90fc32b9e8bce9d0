//! Runs of the simulator, with few records.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::federation::{INSTITUTIONS, repository};
use crate::programs::{Finished, program};

/// Runs the simulator quietly in a folder of its own.
pub fn simulate(arguments: &[&str]) -> (Finished, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = program("fedlora-sim");
    command
        .args(["--batch", "1", "--rank", "2", "--format", "json", "--quiet"])
        .arg("--out")
        .arg(folder.path().join("out"))
        .args(arguments);
    (Finished::of("fedlora-sim", &mut command), folder)
}

/// A file with a few records of each of the first `institutions`: evaluating all that is
/// embedded takes minutes without optimisation.
pub fn few_records(folder: &Path, institutions: &[&str]) -> String {
    records(folder, institutions, 1)
}

/// Likewise, with `parts` members in place of each institution, of as many records each.
pub fn records(folder: &Path, institutions: &[&str], parts: usize) -> String {
    let assets = repository().join("examples/assets/data");
    let mut all = String::new();
    for name in institutions {
        let text = fs::read_to_string(assets.join(format!("{name}.train.jsonl")));
        let text = text.expect("the repository has the institution's data");
        for (place, line) in text.lines().take(40 * parts).enumerate() {
            let mut record: Value = serde_json::from_str(line).expect("a record");
            if parts > 1 {
                record["institution"] = format!("{name}-{}", place % parts).into();
            }
            all += &format!("{record}\n");
        }
    }
    let data = folder.join("all.jsonl");
    fs::write(&data, all).expect("records can be written");
    data.to_str().expect("a plain path").to_owned()
}

/// All whose data comes with the repository.
pub fn six() -> Vec<&'static str> {
    [&INSTITUTIONS[..], &["web-soc"]].concat()
}

/// The names in a list of them.
pub fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list of names");
    list.iter()
        .map(|name| name.as_str().expect("a name"))
        .collect()
}

/// The rounds of a simulation's document.
pub fn rounds(document: &Value) -> &Vec<Value> {
    document["rounds"].as_array().expect("rounds")
}

/// The document of each run of a comparison.
pub fn documents(finished: Finished) -> Vec<Value> {
    let finished = finished.done();
    let lines = finished.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a document a line"))
        .collect()
}
