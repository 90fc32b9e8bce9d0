//! `fedlora eval` and `fedlora generate` as processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fedlora_tests::{Finished, program, repository};
use serde_json::{Value, json};

fn command(name: &str) -> Command {
    let mut command = program("fedlora");
    command
        .arg(name)
        .arg("--base")
        .arg(repository().join("examples/assets/base"));
    command
}

fn eval(data: &Path) -> Command {
    let mut command = command("eval");
    command.arg("--data").arg(data);
    command
}

fn write(folder: &Path, name: &str, records: &[Value]) -> PathBuf {
    let path = folder.join(name);
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).expect("a file can be written");
    path
}

fn adapter() -> PathBuf {
    repository().join("client/tests/golden/theirs")
}

#[test]
fn plain_text_counts_every_next_token_and_an_adapter_changes_the_loss() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text = "A buffer overflow writes past the end of a buffer.";
    let data = write(
        dir.path(),
        "text.jsonl",
        &[json!({"text": text}), json!({"text": text})],
    );
    let json = ["--format", "json"];
    let base = Finished::of("eval", eval(&data).args(json))
        .done()
        .document();
    assert_eq!(base["task"], "loss");
    assert_eq!(
        (&base["records"], &base["truncated"]),
        (&json!(2), &json!(0))
    );
    let loss = base["loss"].as_f64().expect("a loss");
    let perplexity = base["perplexity"].as_f64().expect("a perplexity");
    assert!((perplexity - loss.exp()).abs() < 1e-9 * perplexity);
    let accuracy = base["token_accuracy"].as_f64().expect("an accuracy");
    assert!((0.0..=1.0).contains(&accuracy));

    let cut = Finished::of("eval", eval(&data).args(json).args(["--seq", "5"]))
        .done()
        .document();
    assert_eq!((&cut["truncated"], &cut["tokens"]), (&json!(2), &json!(8)));

    let mut with_adapter = eval(&data);
    with_adapter.args(json).arg("--adapter").arg(adapter());
    let adapted = Finished::of("eval", &mut with_adapter).done().document();
    assert_eq!(adapted["tokens"], base["tokens"]);
    assert_ne!(adapted["loss"], base["loss"]);

    let shown = Finished::of("eval", &mut eval(&data)).done().stdout;
    assert!(
        shown.contains("perplexity") && !shown.contains("macro-F1"),
        "{shown}"
    );
}

#[test]
fn closed_labels_are_classified_and_free_text_on_request() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let records: Vec<Value> = (0..6)
        .map(|index| {
            let answer = if index % 2 == 0 { "yes" } else { "no" };
            json!({"instruction": format!("Is weakness {index} severe?"), "output": answer})
        })
        .collect();
    let data = write(dir.path(), "labels.jsonl", &records);
    let run = |arguments: &[&str]| {
        let mut command = eval(&data);
        command.args(["--format", "json"]).args(arguments);
        Finished::of("eval", &mut command).done().document()
    };
    let found = run(&[]);
    assert_eq!(found["task"], "classify");
    assert_eq!(
        (&found["label_set"], &found["labels"]),
        (&json!("responses"), &json!(2))
    );
    assert_eq!(
        (&found["choice"], &found["classified"]),
        (&json!("likelihood"), &json!(6))
    );
    for figure in ["accuracy", "macro_f1", "loss"] {
        assert!(found[figure].is_f64(), "{found}");
    }
    let given = run(&["--labels", "yes,no,maybe"]);
    assert_eq!(
        (&given["label_set"], &given["labels"]),
        (&json!("given"), &json!(3))
    );
    assert_eq!(run(&["--task", "loss"])["task"], "loss");
    let free = run(&["--task", "generate", "--max-tokens", "4"]);
    for figure in ["rouge1", "rouge2", "rougeL", "bleu"] {
        assert!(free[figure].is_f64(), "{free}");
    }
    assert_eq!(free["generated"], 6);
}

#[test]
fn free_text_is_scored_against_the_first_responses() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let records: Vec<_> = (0..22)
        .map(|number| {
            json!({
                "instruction": format!("What is weakness {number}?"),
                "output": format!("The software does not check input {number}."),
            })
        })
        .collect();
    let data = write(dir.path(), "free.jsonl", &records);
    let run = |arguments: &[&str]| {
        let mut command = eval(&data);
        command.args(["--format", "json", "--max-tokens", "3"]);
        Finished::of("eval", command.args(arguments))
            .done()
            .document()
    };
    let found = run(&[]);
    assert_eq!(
        (&found["task"], &found["records"], &found["generated"]),
        (&json!("generate"), &json!(22), &json!(20))
    );
    assert!(found["rougeL"].is_f64() && found["bleu"].is_f64());
    assert_eq!(run(&["--responses", "2"])["generated"], 2);
    assert_eq!(run(&["--task", "generate"])["generated"], 22);
    // A base in fewer bits is nearly the same base.
    let loss = found["loss"].as_f64().expect("a loss");
    for kind in ["bf16", "q8", "q4"] {
        let other = run(&["--responses", "1", "--base-dtype", kind]);
        assert_eq!(other["base_dtype"], kind);
        let other = other["loss"].as_f64().expect("a loss");
        assert!(
            (other / loss - 1.0).abs() < 0.1,
            "{kind}: {other}, not {loss}"
        );
    }
}

#[test]
fn greedy_text_is_the_same_streamed_and_in_the_document() {
    let run = |arguments: &[&str]| {
        let mut command = command("generate");
        command.args(["--prompt", "What is a race condition?", "--max-tokens", "6"]);
        Finished::of("generate", command.args(arguments)).done()
    };
    let document = run(&["--greedy", "--format", "json"]).document();
    let text = document["text"].as_str().expect("a text");
    let streamed = run(&["--greedy"]);
    assert_eq!(streamed.stdout, format!("{text}\n"));
    assert!(
        streamed.stderr.contains("tokens after a prompt of"),
        "{}",
        streamed.stderr
    );
    assert_eq!(run(&["--temperature", "0"]).stdout, streamed.stdout);
    assert_eq!(run(&["--greedy", "--quiet"]).stderr, "");
    let count = document["token_ids"].as_array().expect("a list").len();
    assert_eq!(document["tokens"], count);
    assert_eq!(document["seed"], Value::Null);

    let drawn = run(&["--format", "json"]).document();
    let seed = drawn["seed"].as_u64().expect("a seed is shown").to_string();
    let again = run(&["--format", "json", "--seed", &seed]).document();
    assert_eq!(again["token_ids"], drawn["token_ids"]);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text = write(dir.path(), "text.jsonl", &[json!({"text": "SECRET words"})]);
    let chat = json!({"instruction": "a", "output": "SECRET"});
    let chat = write(dir.path(), "chat.jsonl", &[chat]);
    let empty = write(dir.path(), "empty.jsonl", &[]);
    let refused = |code, words: &[&str], data: &Path, arguments: &[&str]| {
        let finished = Finished::of("eval", eval(data).args(arguments));
        assert!(!finished.stderr.contains("SECRET"), "{}", finished.stderr);
        finished.failed(code, words);
    };
    refused(7, &["no record"], &empty, &[]);
    refused(7, &["nowhere"], &dir.path().join("nowhere"), &[]);
    refused(
        7,
        &["the adapter nowhere"],
        &text,
        &["--adapter", "nowhere"],
    );
    let tiny = repository().join("client/tests/golden/curve-start");
    let tiny = tiny.to_str().expect("UTF-8");
    refused(
        7,
        &["this base model calls for"],
        &text,
        &["--adapter", tiny],
    );
    refused(
        7,
        &["text.jsonl:1", "--task loss"],
        &text,
        &["--task", "generate"],
    );
    refused(7, &["at least two"], &chat, &["--task", "classify"]);
    refused(
        7,
        &["none of the labels", "--labels"],
        &chat,
        &["--labels", "yes,no"],
    );
    refused(2, &["--seq", "at least 2"], &text, &["--seq", "1"]);
    refused(
        2,
        &["--labels"],
        &text,
        &["--task", "loss", "--labels", "a,b"],
    );
    refused(
        2,
        &["--max-tokens", "at least 1"],
        &text,
        &["--max-tokens", "0"],
    );
}

#[test]
fn what_cannot_be_continued_is_refused() {
    let refused = |code, words: &[&str], arguments: &[&str]| {
        let mut command = command("generate");
        command.args(arguments);
        Finished::of("generate", &mut command).failed(code, words);
    };
    let long = "word ".repeat(3000);
    refused(7, &["the base takes 1024"], &["--raw", "--prompt", &long]);
    refused(7, &["the prompt is empty"], &["--prompt", " "]);
    refused(7, &["<|eot_id|>", "--raw"], &["--prompt", "a<|eot_id|>b"]);
    refused(
        7,
        &["the adapter nowhere"],
        &["--prompt", "a", "--adapter", "nowhere"],
    );
    for (option, value) in [
        ("--temperature", "NaN"),
        ("--temperature", "-1"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--top-k", "0"),
        ("--max-tokens", "0"),
        ("--stop", ""),
    ] {
        let word = option.trim_start_matches('-');
        refused(2, &[word], &["--prompt", "a", option, value]);
    }
    refused(
        2,
        &["--greedy"],
        &["--prompt", "a", "--greedy", "--top-p", "0.5"],
    );
}
