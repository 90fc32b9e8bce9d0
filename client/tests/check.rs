//! `fedlora check` on the embedded base: what it prints, for people and as JSON, and how it
//! ends. What differs between machines and moments (device, memory that is free, time) is left
//! out of what is compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const RECORDS: &str = "\
{\"instruction\": \"Name a weakness.\", \"output\": \"A buffer overflow.\"}

{\"instruction\": \"Name a weakness.\", \"output\": \"A buffer overflow.\"}
{\"text\": \"A short text.\"}
{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Why?\"}, {\"role\": \"assistant\", \"content\": \"So.\"}]}
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fedlora"))
        .current_dir(folder)
        .env_remove("FEDLORA_BASE")
        .env_remove("FEDLORA_DEVICE")
        .arg("check")
        .arg("--base")
        .arg(repository().join("examples/assets/base"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Standard output, which must not hold what a terminal would obey.
fn text(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(!text.contains('\x1b'), "{text}");
    text
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The lines from one that begins with `from` to the next empty one.
fn section(text: &str, from: &str) -> String {
    let lines = text.lines().skip_while(|line| !line.starts_with(from));
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join("\n")
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn what_is_printed() {
    let folder = folder(&[("a.jsonl", RECORDS)]);
    let output = check(folder.path(), &["--data", "a.jsonl", "--seq", "20"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let text = text(&output);
    let expected = include_str!("golden/check/report.txt");
    for expected in expected.split("\n\n") {
        let first = expected.lines().next().unwrap();
        assert_eq!(section(&text, first), expected.trim_end(), "in\n{text}");
    }
    for part in [
        "\nMemory      about ",
        "\nTime        an epoch is 1 step",
        "\nDevice      cpu can be used",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_eq!(errors(&output), "");
}

#[test]
fn the_json_document_has_the_same_and_no_text() {
    let folder = folder(&[("a.jsonl", RECORDS)]);
    let arguments = ["--data", "a.jsonl", "--seq", "20", "--format", "json"];
    let output = check(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let shown = text(&output);
    assert!(
        !shown.contains("overflow") && !shown.contains("brief"),
        "{shown}"
    );
    let document = json(&output);
    let expected: Value = serde_json::from_str(include_str!("golden/check/report.json")).unwrap();
    for (key, expected) in expected.as_object().unwrap() {
        assert_eq!(&document[key], expected, "{key}");
    }
    assert_eq!(document["device"]["name"], "cpu");
    assert!(document["device"]["cpu"]["processors"].as_u64() > Some(0));
    let memory = &document["memory"];
    let parts = ["adapter", "activations", "working"].map(|part| memory[part].as_u64().unwrap());
    let weights = memory["weights"]["f32"].as_u64().unwrap();
    assert_eq!(
        memory["total"].as_u64(),
        Some(weights + parts.iter().sum::<u64>())
    );
    assert!(document["time"]["tokens_a_second"].as_f64() > Some(0.0));
}

#[test]
fn every_bad_line_of_every_file_is_shown() {
    let bad: String = (0..30).map(|_| "SECRET\n").collect();
    let folder = folder(&[
        (
            "a.jsonl",
            &format!("{RECORDS}{{\"text\": 7}}\n{{\"text\": \"SECRET<|eot_id|>\"}}\n"),
        ),
        ("b.jsonl", &bad),
        ("c.json", "[{\"text\": \"fine\"},\n {\"text\": \" \"}]"),
        ("d.jsonl", "\u{1f}\u{8b}"),
    ]);
    fs::write(folder.path().join("e.parquet"), b"PAR1SECRET").unwrap();
    fs::copy(
        repository().join("client/vectors/parquet/bad-rows.parquet"),
        folder.path().join("f.parquet"),
    )
    .unwrap();
    let output = check(folder.path(), &["--data", ".", "--show", "0"]);
    assert_eq!(output.status.code(), Some(7), "{}", errors(&output));
    let text = text(&output);
    assert!(!text.contains("SECRET"), "{text}");
    assert!(!errors(&output).contains("SECRET"), "{}", errors(&output));
    let list = section(&text, "Unusable    41 records");
    for place in [
        "./a.jsonl:6: ",
        "./a.jsonl:7: ",
        "./b.jsonl:1: ",
        "./b.jsonl:30: ",
        "./c.json:2 (record 2): ",
        "./d.jsonl:1: ",
        "./f.parquet:2: ",
        "./f.parquet:8: ",
    ] {
        assert!(
            list.contains(&format!("\n  {place}")),
            "no {place} in\n{list}"
        );
    }
    assert_eq!(list.lines().count(), 42, "{list}");
    let failure = section(&text, "Unusable    ./e.parquet: not a Parquet file");
    assert!(!failure.is_empty(), "{text}");
    // What is fine is still told.
    assert!(text.contains("\nTraining    "), "{text}");

    let output = check(folder.path(), &["--data", ".", "--format", "json"]);
    assert_eq!(output.status.code(), Some(7));
    let document = json(&output);
    assert_eq!(document["usable"], false);
    assert_eq!(document["problems"].as_array().unwrap().len(), 41);
    assert_eq!(document["failures"].as_array().unwrap().len(), 1);
    assert!(!document.to_string().contains("SECRET"));
}

#[test]
fn a_base_that_is_missing_does_not_hide_the_data() {
    let folder = folder(&[("a.jsonl", "{\"text\": \"fine\"}\n7\n")]);
    let output = check(folder.path(), &["--base", "nowhere", "--data", "a.jsonl"]);
    assert_eq!(output.status.code(), Some(2), "--base was taken twice");
    let output = Command::new(env!("CARGO_BIN_EXE_fedlora"))
        .current_dir(folder.path())
        .args(["check", "--base", "nowhere", "--data", "a.jsonl"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", errors(&output));
    let text = text(&output);
    assert!(
        text.contains("\n  a.jsonl:2: a number: expected a JSON object"),
        "{text}"
    );
    assert!(
        text.contains("Unusable    ") && text.contains("nowhere"),
        "{text}"
    );
}

#[test]
fn held_out_records_are_those_of_training() {
    let data = repository().join("examples/assets/data");
    let data = data.to_str().unwrap();
    let output = check(
        Path::new("."),
        &["--data", data, "--hold-out", "0.2", "--format", "json"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let document = json(&output);
    let records = |set: &str| document[set]["records"].as_f64().unwrap();
    let share = records("held_out") / (records("held_out") + records("training"));
    assert!((0.15..0.25).contains(&share), "{share}");
    assert_eq!(document["files"].as_array().unwrap().len(), 12);
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = folder(&[("a.jsonl", RECORDS)]);
    for (arguments, code, expected) in [
        (
            &["--seq", "100000"][..],
            2,
            "this base takes at most 1024 tokens",
        ),
        (&["--seq", "1"], 2, "--seq is below 2"),
        (&["--batch", "0"], 2, "--batch is 0"),
        (&["--rank", "0"], 2, "rank"),
        (&["--hold-out", "1"], 2, "held-out share"),
        (&["--device", "cuda:0"], 7, "needs a build with CUDA"),
    ] {
        let all = [&["--data", "a.jsonl", "--show", "0"], arguments].concat();
        let output = check(folder.path(), &all);
        if cfg!(feature = "cuda") && code == 7 {
            continue;
        }
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            errors(&output)
        );
        assert!(
            errors(&output).contains(expected),
            "{arguments:?}: {}",
            errors(&output)
        );
    }
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    let output = check(folder.path(), &["--data", "none.jsonl"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(
        errors(&output).contains("cannot read none.jsonl"),
        "{}",
        errors(&output)
    );
}

#[test]
fn a_probe_measures_steps() {
    let folder = folder(&[("a.jsonl", RECORDS)]);
    let arguments = [
        "--data", "a.jsonl", "--probe", "--batch", "1", "--rank", "2", "--format", "json",
    ];
    let output = check(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(
        errors(&output).contains("measuring 2 steps"),
        "{}",
        errors(&output)
    );
    let time = &json(&output)["time"];
    assert_eq!(time["measured"], "step");
    assert_eq!(time["steps_an_epoch"], 4);
    assert!(time["seconds_an_epoch"].as_f64() > Some(0.0));
}
