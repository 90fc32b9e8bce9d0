//! What `fedlora check` and `fedlora train` say of records that they use in part or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A key that the base's template does not show, a field without a place, and a label.
const LOSING: &str = r#"{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So.", "reasoning_content": "SECRET"}], "site": "north"}
{"instruction": "Who?", "output": "The clerk.", "rationale": "SECRET"}
"#;
const FINE: &str = "{\"question\": \"Who?\", \"answer\": \"The clerk.\"}\n";
const BAD: &str = "{\"question\": \"SECRET\"}\n";

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/assets/base")
}

fn run(folder: &Path, command: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fedlora"))
        .current_dir(folder)
        .env_remove("FEDLORA_BASE")
        .env_remove("FEDLORA_DEVICE")
        .arg(command)
        .arg("--base")
        .arg(base())
        .args(arguments)
        .output()
        .unwrap()
}

fn train(folder: &Path, data: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let fixed = [
        "--out",
        "out",
        "--restart",
        "--steps",
        "1",
        "--quiet",
        "--data",
        data,
    ];
    let output = run(folder, "train", &[&fixed, arguments].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("SECRET"), "{said}");
    (output.status.code(), said)
}

fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn what_is_left_out_is_counted_said_and_refused_where_nothing_may_be() {
    let folder = folder(&[("a.jsonl", LOSING.to_owned())]);
    let output = run(
        folder.path(),
        "check",
        &["--data", "a.jsonl", "--format", "json"],
    );
    assert_eq!(output.status.code(), Some(0));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dropped = document["dropped"].as_array().unwrap();
    let fields: Vec<_> = dropped.iter().map(|one| &one["field"]).collect();
    assert_eq!(fields, ["rationale", "reasoning_content"]);
    assert!(
        dropped
            .iter()
            .all(|one| one["records"] == 1 && one["what"].is_string())
    );
    assert_eq!(document["warnings"], serde_json::json!([]));
    assert!(!document.to_string().contains("SECRET"));

    let strict = run(folder.path(), "check", &["--data", "a.jsonl", "--strict"]);
    assert_eq!(strict.status.code(), Some(7));

    let (code, said) = train(folder.path(), "a.jsonl", &["--warmup", "0"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("left out: 'reasoning_content' of 1 record:"),
        "{said}"
    );
    let (code, said) = train(folder.path(), "a.jsonl", &["--strict"]);
    assert_eq!(code, Some(7), "{said}");
    assert!(
        said.contains("'rationale' of 1 record") && said.contains("hint: "),
        "{said}"
    );
}

#[test]
fn bad_records_stop_a_training_or_are_skipped_up_to_a_limit() {
    let folder = folder(&[("a.jsonl", format!("{FINE}{BAD}{FINE}{FINE}"))]);
    let (code, said) = train(folder.path(), "a.jsonl", &[]);
    assert_eq!(code, Some(7), "{said}");
    assert!(
        said.contains("a.jsonl:2: ") && said.contains("--bad-records skip"),
        "{said}"
    );
    let skip = ["--bad-records", "skip", "--warmup", "0"];
    let (code, said) = train(folder.path(), "a.jsonl", &skip);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("skipped 1 of 4 records") && said.contains("a.jsonl:2: "),
        "{said}"
    );
    let limit = [&skip[..], &["--bad-limit", "20"]].concat();
    let (code, said) = train(folder.path(), "a.jsonl", &limit);
    assert_eq!(code, Some(7), "{said}");
    assert!(
        said.contains("1 of 4 records cannot be used, more than 20 per cent"),
        "{said}"
    );
    let checked = run(
        folder.path(),
        "check",
        &["--data", "a.jsonl", "--bad-records", "skip"],
    );
    assert_eq!(checked.status.code(), Some(0));
}

#[test]
fn an_evaluation_says_what_it_leaves_out() {
    let folder = folder(&[
        ("a.jsonl", format!("{FINE}{BAD}{FINE}{FINE}")),
        ("b.jsonl", LOSING.to_owned()),
    ]);
    let eval = |arguments: &[&str]| {
        let fixed = ["--task", "generate", "--max-tokens", "2", "--quiet"];
        let output = run(folder.path(), "eval", &[&fixed, arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("SECRET"), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = eval(&["--data", "a.jsonl"]);
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("a.jsonl:2: "), "{said}");
    let (code, said) = eval(&["--data", "a.jsonl", "--bad-records", "skip"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("skipped 1 of 4 records"), "{said}");
    let (code, said) = eval(&["--data", "b.jsonl"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("left out: 'rationale' of 1 record"), "{said}");
    let (code, said) = eval(&["--data", "b.jsonl", "--strict"]);
    assert_eq!(code, Some(7), "{said}");
}

#[test]
fn what_may_be_otherwise_than_meant_is_said() {
    let text = "{\"text\": \"SECRET\"}\n".to_owned();
    let folder = folder(&[("a.jsonl", text)]);
    let (code, said) = train(folder.path(), "a.jsonl", &["--warmup", "5"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the warm-up of 5 steps is no shorter than the training of 1"),
        "{said}"
    );
    assert!(
        said.contains("does not learn to stop (--end-texts ends them)"),
        "{said}"
    );
    let (_, said) = train(folder.path(), "a.jsonl", &["--end-texts", "--warmup", "0"]);
    assert_eq!(said, "");
}
