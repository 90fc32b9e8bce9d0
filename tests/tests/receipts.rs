//! What participants can show of a run: the same chain of signatures at members and operator.

use std::fs;
use std::path::Path;

use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, program};
use serde_json::{Value, json};

const PLAN: &str = "rounds = 2
members = 3
base.name = \"test-base\"
[adapter]
lora = { rank = 2, alpha = 4.0, targets = [\"q\"] }
[training]
steps = 1
batch_size = 1
max_tokens = 64
warmup_steps = 0
learning_rate = 0.001
schedule = \"constant\"
[timeouts]
join = 100
keys = 60
shares = 60
update = 100
confirm = 60
reveal = 60
reconnect = 20
";

fn serve_a_run(federation: &Federation) {
    let aggregator = federation.serve(PLAN);
    let members = &INSTITUTIONS[..3];
    for member in members {
        if !federation.home(member).exists() {
            federation.join(member);
        }
    }
    let running: Vec<Running> = members
        .iter()
        .map(|member| federation.start(member))
        .collect();
    for member in running {
        member.finish().done();
    }
    aggregator.finish().done();
}

fn runs(home: &Path) -> Finished {
    let mut command = program("fedlora");
    command
        .args(["runs", "--format", "json", "--dir"])
        .arg(home);
    Finished::of("runs", &mut command)
}

fn verify(federation: &Federation, run: &Value) -> Finished {
    let mut command = program("fedlora-aggregator");
    command.args(["audit", "verify", "--format", "json", "--dir"]);
    command.arg(federation.operator());
    command.arg("--run").arg(run.as_str().expect("an id"));
    Finished::of("audit verify", &mut command)
}

#[test]
fn members_and_operator_hold_the_same_chain_and_any_edit_is_found() {
    let federation = Federation::new();
    serve_a_run(&federation);
    let home = federation.home(INSTITUTIONS[0]);
    let own = runs(&home).done().document()["runs"].clone();
    let first = own[0]["run"].clone();
    let operators = verify(&federation, &first).done().document();
    assert_eq!(
        (&operators["rounds"], &operators["adapters"]),
        (&json!(2), &json!(2))
    );
    for member in &INSTITUTIONS[..3] {
        let row = &runs(&federation.home(member)).done().document()["runs"][0];
        for key in ["run", "rounds", "planned", "head", "words"] {
            assert_eq!(row[key], operators[key], "{member}: {key}");
        }
        assert_eq!(row["took_part"], 2, "{member}");
    }
    let words = operators["words"].as_str().expect("words");
    assert_eq!(words.split_whitespace().count(), 8);

    // Another run: it has its own folder, and the first one's adapter is not lost.
    let before = federation.adapter(INSTITUTIONS[0]);
    serve_a_run(&federation);
    let both = runs(&home).done().document()["runs"].clone();
    assert_eq!(both.as_array().map(Vec::len), Some(2));
    assert_eq!(both[0]["head"], own[0]["head"]);
    assert_ne!(both[1]["run"], first);
    let folder = home.join("runs").join(first.as_str().expect("an id"));
    let kept = fedlora_adapter::peft::load(&folder.join("global")).expect("it is kept");
    assert_eq!(kept, before);
    assert!(folder.join("adapter").exists() && folder.join("scores.json").exists());

    // Without its round log a member cannot know what it has revealed.
    let log = home.join("ledger.json");
    let text = fs::read(&log).expect("a round log");
    fs::remove_file(&log).expect("it can be removed");
    Finished::of("run", &mut federation.taking_part(INSTITUTIONS[0])).failed(
        9,
        &[
            "ledger.json is missing",
            "cannot know what it has revealed",
            "hint: put",
        ],
    );
    fs::write(&log, text).expect("it can be written");

    // Edited at the member, at the operator, or an adapter that is another one.
    let edit = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).expect("it is there");
        assert!(text.contains(from), "{}", path.display());
        fs::write(path, text.replacen(from, to, 1)).expect("it can be written");
    };
    edit(
        &folder.join("results.jsonl"),
        "\"attempt\":1",
        "\"attempt\":2",
    );
    let found = runs(&home);
    assert_eq!(found.code, Some(9), "{}", found.stderr);
    let rows = found.document()["runs"].clone();
    let problem = rows[0]["problem"].as_str().expect("a problem");
    assert!(problem.contains("result 1 is not signed"), "{problem}");
    assert_eq!(rows[1], both[1]);
    let operators = federation.operator().join("runs");
    let operators = operators.join(first.as_str().expect("an id"));
    let adapter = |round: u32| operators.join(format!("adapters/round-{round:04}"));
    let second = fs::read(adapter(2).join("adapter_model.safetensors")).expect("an adapter");
    fs::write(adapter(1).join("adapter_model.safetensors"), second).expect("it can be written");
    verify(&federation, &first).failed(9, &["round-0001", "not the adapter"]);
    let path = operators.join("results.jsonl");
    let text = fs::read_to_string(&path).expect("results");
    let second = text.lines().nth(1).expect("two results").to_owned() + "\n";
    fs::write(&path, second).expect("it can be written");
    verify(&federation, &first).failed(9, &["result 1 does not follow"]);
}

/// As on a full disk: the last result cannot be written at first. The member waits with it, and ends with the
/// run's adapter and a whole chain once there is room.
#[test]
fn a_member_without_room_for_the_last_result_keeps_it_once_there_is_some() {
    let federation = Federation::new();
    let mut aggregator = federation.serve(&PLAN.replace("rounds = 2", "rounds = 1"));
    let members = &INSTITUTIONS[..3];
    for member in members {
        federation.join(member);
    }
    let mut running: Vec<Running> = members
        .iter()
        .map(|member| federation.start(member))
        .collect();
    aggregator.wait_for("the round opens");
    // The round waits for this one while the way is blocked.
    running[0].freeze();
    let run = federation.run().expect("a run");
    let home = federation.home(members[2]);
    let folder = home.join("runs").join(run.file_name().expect("an id"));
    let in_the_way = folder.join("results.jsonl");
    fs::create_dir(&in_the_way).expect("no result is there so far");
    running[0].thaw();
    running[2].wait_for("a result cannot be kept; trying again");
    fs::remove_dir(&in_the_way).expect("it can be removed");
    for member in running {
        member.finish().done();
    }
    aggregator.finish().done();
    let result = &federation.results()[0]["adapter"];
    let held = federation.adapter(members[2]).digest().to_string();
    assert_eq!(*result, json!(held));
    assert_eq!(runs(&home).done().document()["runs"][0]["rounds"], 1);
}
