//! What the simulator refuses, and what it says then.

use std::fs;

use fedlora_tests::simulated::{few_records, simulate};
use fedlora_tests::{Finished, INSTITUTIONS, program};
use serde_json::{Value, json};

/// What a task cannot score is said before anything is trained.
#[test]
fn records_that_a_task_cannot_score_are_refused_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = |task: &str, record: &dyn Fn(usize) -> Value, words: &[&str]| {
        let lines: Vec<String> = (0..120)
            .map(|place| {
                let mut record = record(place);
                record["site"] = format!("site-{}", place % 3).into();
                record.to_string()
            })
            .collect();
        let data = folder.path().join("made.jsonl");
        fs::write(&data, lines.join("\n")).expect("records can be written");
        let data = data.to_str().expect("a plain path");
        let arguments = ["--data", data, "--split-by", "site", "--task", task];
        let (finished, _out) = simulate(&arguments);
        finished.failed(7, words);
    };
    let apart =
        |place: usize| json!({"instruction": place.to_string(), "output": place.to_string()});
    refused("classify", &apart, &["several training records"]);
    let labels = |place: usize| {
        let label = ["yes", "no"][place % 2];
        json!({"instruction": place.to_string(), "output": label})
    };
    refused("generate", &labels, &["no held-out record", "free text"]);
    let plain = |place: usize| json!({"text": format!("number {place}")});
    refused("classify,generate", &plain, &["made.jsonl:1", "plain text"]);
    let (finished, _out) = simulate(&["--task", "perplexity"]);
    finished.failed(2, &["classify", "generate"]);
}

#[test]
fn options_that_cannot_be_met_are_refused_with_what_would_do() {
    let (finished, _out) = simulate(&["--drop", "nobody@1"]);
    finished.failed(2, &["'nobody'", "bank-identity", "web-soc", "1 to 6"]);
    let (finished, _out) = simulate(&["--drop", "web-soc@99"]);
    finished.failed(2, &["round 99", "there are 60"]);
    let (finished, _out) = simulate(&["--drop", "web-soc@1:later"]);
    finished.failed(2, &["keys|upload|confirm"]);
    let (finished, _out) = simulate(&["--members", "2"]);
    finished.failed(7, &["2 members", "6 institutions"]);
    let (finished, _out) = simulate(&["--factors", "krum"]);
    finished.failed(2, &["secure aggregation"]);
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder can be made");
    fs::write(out.join("thesis.txt"), "work").expect("a file can be written");
    let mut command = program("fedlora-sim");
    let finished = Finished::of("fedlora-sim", command.arg("--out").arg(&out));
    finished.failed(2, &["not empty", "--out"]);
    let left = fs::read_to_string(out.join("thesis.txt"));
    assert_eq!(left.expect("the file is there"), "work");
}

#[test]
fn a_robust_plan_of_too_few_members_is_refused() {
    simulate(&["--robust", "median"])
        .0
        .failed(3, &["aggregation.robust", "groups = 2"]);
}

#[test]
fn partitions_and_poisons_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    for (exit, arguments, signs) in [
        (2, &["--data", &data, "--partition", "iid"][..], "--members"),
        (
            2,
            &["--data", &data, "--partition", "dirichlet:1"],
            "--split-by",
        ),
        (
            2,
            &["--data", &data, "--partition", "dirichlet:0"],
            "above 0",
        ),
        (2, &["--partition", "iid"], "--data"),
        (
            7,
            &["--data", &data, "--partition", "iid", "--members", "90"],
            "90 members",
        ),
        (
            7,
            &["--data", &data, "--partition", "iid", "--members", "1001"],
            "1000",
        ),
        (2, &["--poison", "nobody:noise"], "'nobody'"),
        (2, &["--poison", "web-soc:other"], "label-flip|scale|noise"),
        (3, &["--plan", "/nowhere.toml"], "/nowhere.toml"),
        (2, &["--plan", "a.toml", "--rounds", "2"], "--rounds"),
    ] {
        let (finished, _out) = match arguments {
            // The helper's own options are of the plan.
            ["--plan", ..] => {
                let mut command = program("fedlora-sim");
                command
                    .arg("--out")
                    .arg(folder.path().join("out"))
                    .args(arguments);
                let out = tempfile::tempdir().expect("a temporary folder");
                (Finished::of("fedlora-sim", &mut command), out)
            }
            arguments => simulate(arguments),
        };
        finished.failed(exit, &[signs]);
    }
}

#[test]
fn a_number_that_the_server_optimizer_does_not_use_is_refused() {
    let momentum = simulate(&["--server-momentum", "0.9"]).0;
    momentum.failed(3, &["server.momentum", "no value"]);
    let optimizer = simulate(&["--server-optimizer", "adam"]).0;
    optimizer.failed(2, &["fedavgm, nesterov, fedadam"]);
}
