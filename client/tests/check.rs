//! `fedlora check` on the embedded base: what it prints, for people and as JSON, and how it
//! ends. What differs between machines and moments (device, memory that is free, time) is left
//! out of what is compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

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

fn document(output: &Output) -> Value {
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

/// Tokens and counted tokens of the records, as Transformers 5.23.0 makes them: 21 and 5, the
/// same again, 6 and 5, 31 and 4 (the last four).
#[test]
fn what_is_printed() {
    let folder = folder(&[("a.jsonl", RECORDS)]);
    let output = check(folder.path(), &["--data", "a.jsonl", "--seq", "20"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(errors(&output), "");
    let text = text(&output);
    let bar = |length: usize| format!("{:<40}", "#".repeat(length));
    let training = [
        "Training    4 records, 3 examples, 1 duplicate kept",
        "            1 left out: nothing to train on within the first 20 tokens",
        "            46 tokens, 13 of them trained on (28.3 %)",
        "            3 cut at 20 tokens (75.0 % of all): 13 tokens lost",
        "            tokens a record: least 6, median 21, 90 % up to 31, 99 % up to 31, most 31",
        &format!("                 to 8 {} 1", bar(14)),
        &format!("                to 16 {} 0", bar(0)),
        &format!("                to 32 {} 3", bar(40)),
    ];
    assert_eq!(
        section(&text, "Training"),
        training.join("\n"),
        "in\n{text}"
    );
    assert_eq!(
        section(&text, "Files"),
        "Files       a.jsonl  4 records, 1 blank line"
    );
    let first = section(&text, "First examples");
    for line in [
        "  1. a.jsonl:1: 20 tokens, 4 of them trained on",
        "     | [[A buffer overflow.]]",
        "  2. a.jsonl:3: 20 tokens, 4 of them trained on",
        "  3. a.jsonl:4: 6 tokens, 5 of them trained on",
        "     | <|begin_of_text|>[[A short text.]]",
    ] {
        assert!(
            first.lines().any(|shown| shown == line),
            "no {line:?} in\n{first}"
        );
    }
    for part in [
        "Base        base\n            llama, ",
        "6 blocks of width 192, vocabulary 3,072, at most 1,024 tokens",
        "\nMemory      about ",
        "\nTime        an epoch is 1 step of 46 tokens in all",
        "\nDevice      cpu can be used",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    // Uncut, the turn's end is trained on as well, and all four are examples.
    let output = check(folder.path(), &["--data", "a.jsonl", "--show", "4"]);
    let text = self::text(&output);
    assert!(
        text.contains("\n     | [[A buffer overflow.<|eot_id|>]]\n"),
        "{text}"
    );
    assert!(
        text.contains("\n  4. a.jsonl:5: 31 tokens, 4 of them trained on\n"),
        "{text}"
    );
    assert!(
        text.contains("none is cut: all fit into 1,024 tokens"),
        "{text}"
    );
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
    let document = self::document(&output);
    let same = |key: &str, expected: Value| assert_eq!(document[key], expected, "{key}");
    same("schema_version", json!(1));
    same("usable", json!(true));
    same("failures", json!([]));
    same("problems", json!([]));
    same("held_out", json!(null));
    same(
        "files",
        json!([{"file": "a.jsonl", "records": 4, "bad": 0, "blank": 1, "empty": 0}]),
    );
    same(
        "training",
        json!({
            "records": 4,
            "examples": 3,
            "tokens": 46,
            "counted_tokens": 13,
            "longest": 31,
            "truncated": 3,
            "tokens_lost": 13,
            "nothing_counted": 1,
            "empty": 0,
            "duplicates": 1,
            "seq": 20,
            "lengths": {
                "min": 6,
                "median": 21,
                "p90": 31,
                "p99": 31,
                "max": 31,
                "mean": 19.75,
                "histogram": [
                    {"up_to": 8, "count": 1},
                    {"up_to": 16, "count": 0},
                    {"up_to": 32, "count": 3},
                ],
            },
        }),
    );
    let base = &document["base"];
    assert_eq!(
        (&base["name"], &base["blocks"]),
        (&json!("base"), &json!(6))
    );
    assert_eq!(
        (&base["vocabulary"], &base["chat_template"]),
        (&json!(3072), &json!(true))
    );
    assert_eq!(document["device"]["name"], "cpu");
    assert!(document["device"]["cpu"]["processors"].as_u64() > Some(0));
    let memory = &document["memory"];
    let parts = ["adapter", "activations", "working"].map(|part| memory[part].as_u64().unwrap());
    let weights = memory["weights"]["f32"].as_u64().unwrap();
    // The program itself, and what allocators hold besides.
    let total = memory["total"].as_u64().unwrap();
    assert!(total > weights + parts.iter().sum::<u64>());
    assert!(memory["total_low"].as_u64() < Some(total));
    assert_eq!(
        (&memory["base_dtype"], &memory["rows"]),
        (&json!("f32"), &json!(46))
    );
    assert_eq!(document["time"]["measured"], "product");
    assert!(document["time"]["tokens_a_second"].as_f64() > Some(0.0));
}

#[test]
fn every_bad_line_of_every_file_is_shown() {
    let bad: String = (0..30).map(|_| "SECRET\n").collect();
    let folder = folder(&[
        (
            "a.jsonl",
            &format!("{RECORDS}{{\"text\": 7}}\n{{\"question\": \"SECRET\"}}\n"),
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
    let list = section(&text, "Unusable    39 records");
    for place in [
        "./a.jsonl:6: ",
        "./a.jsonl:7: ",
        "./b.jsonl:1: ",
        "./b.jsonl:30: ",
        "./d.jsonl:1: ",
        "./f.parquet:2: ",
        "./f.parquet:7: ",
    ] {
        assert!(
            list.contains(&format!("\n  {place}")),
            "no {place} in\n{list}"
        );
    }
    assert_eq!(list.lines().count(), 40, "{list}");
    let failure = section(&text, "Unusable    ./e.parquet: not a Parquet file");
    assert!(!failure.is_empty(), "{text}");
    for empty in [
        "./c.json     1 record, 1 left out: empty",
        "2 records, 6 unusable, 1 left out: empty",
    ] {
        assert!(text.contains(empty), "{text}");
    }
    // What is fine is still told.
    assert!(text.contains("\nTraining    "), "{text}");

    let output = check(folder.path(), &["--data", ".", "--format", "json"]);
    assert_eq!(output.status.code(), Some(7));
    let document = self::document(&output);
    assert_eq!(document["usable"], false);
    assert_eq!(document["problems"].as_array().unwrap().len(), 39);
    assert_eq!(document["failures"].as_array().unwrap().len(), 1);
    assert!(!document.to_string().contains("SECRET"));
}

#[test]
fn a_base_that_is_missing_does_not_hide_the_data() {
    let folder = folder(&[("a.jsonl", "{\"text\": \"fine\"}\n7\n")]);
    let output = Command::new(env!("CARGO_BIN_EXE_fedlora"))
        .current_dir(folder.path())
        .args(["check", "--base", "./nowhere", "--data", "a.jsonl"])
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
    let document = self::document(&output);
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
        (&["--seq", "1"], 2, "give a whole number of at least 2"),
        (&["--batch", "0"], 2, "give a whole number of at least 1"),
        (&["--rank", "0"], 2, "rank"),
        (&["--hold-out", "1"], 2, "held-out share"),
        (
            &["--device", "cuda:0"],
            7,
            "needs a program built with CUDA; this one is built for the CPU alone\nhint: build \
             with --features cuda, or use --device cpu",
        ),
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
    let time = document(&output)["time"].clone();
    assert_eq!(time["measured"], "step");
    assert_eq!(time["steps_an_epoch"], 4);
    assert!(time["seconds_an_epoch"].as_f64() > Some(0.0));
}
