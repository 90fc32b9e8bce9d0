//! `fedlora train` as a process: ended at any point and started again, it makes the same
//! adapter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fedlora_model::LlamaConfig;
use fedlora_tests::{Finished, Running, program, repository, wait_for};
use serde_json::Value;

const STEPS: &str = "16";

fn data(name: &str) -> PathBuf {
    repository().join("examples/assets/data").join(name)
}

/// A training of nothing but what it cannot do without.
fn bare(out: &Path) -> Command {
    let mut command = program("fedlora");
    command
        .arg("train")
        .arg("--base")
        .arg(repository().join("examples/assets/base"))
        .arg("--data")
        .arg(data("web-soc.train.jsonl"))
        .arg("--out")
        .arg(out);
    command
}

fn train(out: &Path) -> Command {
    let mut command = bare(out);
    command
        .arg("--eval-data")
        .arg(data("web-soc.heldout.jsonl"))
        .args(["--eval-every", "8", "--rank", "4", "--dropout", "0.1"])
        .args(["--seq", "64", "--batch", "2", "--accumulate", "2", "--pack"])
        .args(["--steps", STEPS, "--checkpoint-every", "2"]);
    command
}

/// The adapter's two files.
fn adapter(out: &Path) -> [Vec<u8>; 2] {
    ["adapter_model.safetensors", "adapter_config.json"]
        .map(|file| fs::read(out.join(file)).expect("a done training left an adapter"))
}

fn checkpoints(out: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(out.join("checkpoints")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    names.sort();
    names
}

/// Waits for a checkpoint that was not there before.
fn newer_checkpoint(running: &Running, out: &Path) {
    let before = checkpoints(out).pop();
    wait_for(
        "a checkpoint",
        || running.stderr(),
        || (checkpoints(out).pop() > before).then_some(()),
    );
}

/// The steps in the metrics.
fn steps(out: &Path) -> Vec<u64> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).expect("a training left metrics");
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line is a document"))
        .filter(|line| line.get("loss").is_some())
        .map(|line| line["step"].as_u64().expect("a step is a number"))
        .collect()
}

#[test]
fn killed_and_interrupted_it_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let whole = dir.path().join("whole");
    let said = Finished::of("train", train(&whole).args(["--format", "json"])).done();
    let documents: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is a document"))
        .collect();
    let last = documents.last().expect("there is a last document");
    assert_eq!(last["schema_version"], 1);
    assert_eq!(last["steps"].to_string(), STEPS);
    for figure in ["train_loss", "eval_loss", "tokens", "tokens_per_second"] {
        assert!(
            last[figure].as_f64().is_some_and(|value| value > 0.0),
            "{last}"
        );
    }
    assert!(last.get("peak_memory_bytes").is_some(), "{last}");
    assert_eq!(
        last["adapter_dir"],
        whole.to_str().expect("a path in UTF-8")
    );

    let out = dir.path().join("out");
    // Killed in its first and in its second start, wherever it is then.
    for _ in 0..2 {
        let running = Running::start("train", &mut train(&out));
        newer_checkpoint(&running, &out);
        assert_eq!(running.kill().code, None);
        assert!(!out.join("adapter_config.json").exists());
    }
    let running = Running::start("train", &mut train(&out));
    newer_checkpoint(&running, &out);
    running.interrupt();
    running.finish().failed(
        130,
        &[
            "resuming the unfinished run after step",
            "the same command resumes",
        ],
    );
    Finished::of("train", train(&out).args(["--seed", "7"]))
        .failed(3, &["seed: it was begun with 0, now it is 7", "--restart"]);
    let done = Finished::of("train", &mut train(&out)).done();
    assert_eq!(
        done.stdout.trim_end(),
        out.to_str().expect("a path in UTF-8")
    );
    assert!(adapter(&out) == adapter(&whole), "another adapter");
    assert_eq!(steps(&out), steps(&whole));
    assert_eq!(checkpoints(&out), Vec::<String>::new());

    Finished::of("train", &mut train(&out)).failed(3, &["that is done", "--restart"]);
    Finished::of("train", train(&out).arg("--restart")).done();
    assert!(adapter(&out) == adapter(&whole), "another adapter");
}

#[test]
fn what_cannot_be_trained_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("out");
    let refused = |code, words: &[&str], arguments: &[&str]| {
        Finished::of("train", bare(&out).args(arguments)).failed(code, words);
        assert!(!out.join("run.json").exists(), "{arguments:?}");
    };
    refused(2, &["--lr is -1"], &["--lr", "-1"]);
    refused(2, &["--batch", "at least 1"], &["--batch", "0"]);
    refused(2, &["rank 0"], &["--rank", "0"]);
    refused(2, &["--epochs"], &["--epochs", "2", "--steps", STEPS]);
    refused(2, &["at most 1024"], &["--seq", "4096"]);
    refused(7, &["none.jsonl"], &["--data", "none.jsonl"]);
    refused(7, &["adapter_config.json"], &["--init-adapter", "nowhere"]);

    fs::write(dir.path().join("letter.txt"), "dear").expect("a file can be written");
    Finished::of("train", &mut train(dir.path())).failed(3, &["letter.txt", "--out"]);
    assert!(dir.path().join("letter.txt").exists());
}

/// A checkpoint of more weights than any machine holds: a header, and a file that is all hole.
fn enormous(folder: &Path) {
    let base = repository().join("examples/assets/base");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(base.join(file), folder.join(file)).expect("copied");
    }
    let text = fs::read_to_string(base.join("config.json")).expect("the base's configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (name, value) in [
        ("hidden_size", 8192),
        ("intermediate_size", 28_672),
        ("num_hidden_layers", 1000),
        ("num_attention_heads", 64),
        ("num_key_value_heads", 8),
        ("head_dim", 128),
    ] {
        config[name] = value.into();
    }
    fs::write(folder.join("config.json"), config.to_string()).expect("written");
    let shape = LlamaConfig::load(folder).expect("a Llama");
    let (mut header, mut end) = (serde_json::Map::new(), 0_u64);
    for (name, shape) in shape.tensors() {
        let begin = end;
        end += 2 * shape.iter().map(|&size| size as u64).product::<u64>();
        let tensor = serde_json::json!({
            "dtype": "BF16", "shape": shape, "data_offsets": [begin, end],
        });
        header.insert(name, tensor);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let path = folder.join("model.safetensors");
    fs::write(&path, &bytes).expect("written");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opened");
    file.set_len(bytes.len() as u64 + end)
        .expect("a file with a hole");
}

#[test]
fn what_cannot_fit_into_memory_is_refused_before_the_base_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = folder.path().join("enormous");
    fs::create_dir(&base).expect("a folder");
    enormous(&base);
    let out = folder.path().join("out");
    let mut train = program("fedlora");
    train
        .arg("train")
        .arg("--out")
        .arg(&out)
        .args(["--steps", "1"]);
    let mut check = program("fedlora");
    check.arg("check");
    for mut command in [train, check] {
        command
            .arg("--base")
            .arg(&base)
            .arg("--data")
            .arg(data("web-soc.train.jsonl"))
            .args(["--seq", "64"]);
        let done = Finished::of("fedlora", &mut command);
        assert_eq!(done.code, Some(7), "{}", done.stderr);
        for part in [
            "this training takes about",
            "GiB of memory, cpu has",
            "a smaller --seq",
            "--ignore-memory",
        ] {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
    }
    assert!(!out.join("adapter_model.safetensors").exists());
}
