//! Whole runs with a process for each participant.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, program, repository, wait_for};
use serde_json::{Value, json};

const TIMEOUTS: &str = "[timeouts]
join = 100
keys = 30
shares = 30
update = 100
confirm = 60
reveal = 60
reconnect = 3
";

fn plan(rounds: u32, members: usize, adapter: &str, aggregation: &str) -> String {
    format!(
        "rounds = {rounds}\nmembers = {members}\nbase.name = \"test-base\"\n\
         [adapter]\n{adapter}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [aggregation]\n{aggregation}\n{TIMEOUTS}"
    )
}

const SMALL: &str = r#"lora = { rank = 4, alpha = 8.0, targets = ["q", "v"] }"#;
/// Some 20 MB a masked update: an upload lasts long enough to be caught.
const LARGE: &str = r#"lora = { rank = 256, alpha = 256.0, targets = ["q", "k", "v", "o", "gate", "up", "down"] }
factors = "both""#;

/// Checks that every member holds the adapter that the run came to.
fn assert_one_adapter(federation: &Federation, members: &[&str]) {
    let outcome = federation.outcome();
    for member in members {
        let digest = federation.adapter(member).digest().to_string();
        assert_eq!(outcome, json!(digest), "{member}");
    }
}

/// Checks that a member keeps the best of its candidates by validation, and writes what it says.
fn assert_kept(document: &serde_json::Value) {
    let scores = document["scores"].as_array().expect("scores");
    let candidates: Vec<_> = scores.iter().map(|one| &one["adapter"]).collect();
    assert_eq!(candidates.first(), Some(&&json!("global")));
    // A member with few records has none for validation, and keeps the global adapter.
    let of = |one: &serde_json::Value| one["validation_perplexity"].as_f64().unwrap_or(0.0);
    let best = scores.iter().min_by(|a, b| of(a).total_cmp(&of(b)));
    assert_eq!(best.map(|one| &one["adapter"]), Some(&document["chosen"]));
    let folder = |key: &str| std::path::PathBuf::from(document[key].as_str().expect("a folder"));
    let load = |folder: &std::path::Path| fedlora_adapter::peft::load(folder).expect("it loads");
    let (kept, global) = (folder("adapter_dir"), folder("global_dir"));
    assert_eq!(load(&kept) == load(&global), document["chosen"] == "global");
    let table = std::fs::read(kept.with_file_name("scores.json")).expect("the table of scores");
    let table: serde_json::Value = serde_json::from_slice(&table).expect("JSON");
    assert_eq!(table["scores"], document["scores"]);
}

/// Starts the members once all have joined: the roster that each accepts is the whole one.
fn join_and_start(federation: &Federation, members: &[&str]) -> Vec<Running> {
    for member in members {
        federation.join(member);
    }
    members
        .iter()
        .map(|member| federation.start(member))
        .collect()
}

#[test]
fn a_run_ends_well_with_one_adapter_for_all() {
    let members = &INSTITUTIONS[..3];
    let federation = Federation::new();
    let aggregator = federation.serve(&plan(2, 3, SMALL, ""));
    let running = join_and_start(&federation, members);
    // What is healthy is no warning.
    let warns = |done: &Finished| {
        let lines = done.stderr.lines();
        let found: Vec<_> = lines.filter(|line| line.contains("WARN")).collect();
        assert!(found.is_empty(), "{}: {found:#?}", done.name);
    };
    for member in running {
        let done = member.finish().done();
        let document = done.document();
        assert_eq!(document["rounds"], 2);
        assert_eq!(document["took_part"], 2);
        assert_kept(&document);
        warns(&done);
    }
    let served = aggregator.finish().done();
    warns(&served);
    let document = served.document();
    assert_eq!(document["rounds"], 2);
    let status = federation.status();
    assert_eq!(status["state"], "finished");
    assert_eq!(status["rounds_done"], 2);
    for result in federation.results() {
        assert_eq!(result["survivors"], json!([0, 1, 2]));
        assert_eq!(result["dropped"], json!([]));
    }
    assert_one_adapter(&federation, members);
    assert_ne!(
        federation.results()[0]["adapter"],
        federation.results()[1]["adapter"]
    );
}

#[test]
fn a_member_killed_during_its_upload_is_left_out_and_the_others_end_well() {
    for _ in 0..3 {
        if killed_during_upload() {
            return;
        }
    }
    panic!("three uploads were all complete before their member could be killed");
}

/// One try; false where the upload was faster than the kill.
fn killed_during_upload() -> bool {
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan(1, 5, LARGE, "bits = 32"));
    let mut running = join_and_start(&federation, &INSTITUTIONS);
    let victim = running.pop().expect("five members");
    let uploads = federation
        .run()
        .expect("the run has a folder")
        .join("uploads");
    let whole: PathBuf = uploads.join("round-0001-attempt-1-member-4.masked");
    let part = uploads.join("round-0001-attempt-1-member-4.masked.part");
    wait_for(
        "upload of the fifth member",
        || format!("{}\n{}", aggregator.stderr(), victim.stderr()),
        || (part.exists() || whole.exists()).then_some(()),
    );
    let killed = victim.kill();
    assert_eq!(killed.code, None, "SIGKILL leaves no exit code");
    // What was on its way may still arrive.
    std::thread::sleep(Duration::from_millis(500));
    if whole.exists() || !part.exists() {
        return false;
    }
    let survivors = &INSTITUTIONS[..4];
    for member in running {
        let done = member.finish().done();
        assert_eq!(done.document()["took_part"], 1, "{}", done.name);
    }
    aggregator.wait_for("stays away");
    aggregator.finish().done();
    let status = federation.status();
    assert_eq!(status["state"], "finished");
    let rounds: Vec<_> = status["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| (member["name"].clone(), member["rounds"].clone()))
        .collect();
    let expected: Vec<_> = INSTITUTIONS
        .iter()
        .enumerate()
        .map(|(index, name)| (json!(name), json!(u32::from(index < 4))))
        .collect();
    assert_eq!(rounds, expected);
    let results = federation.results();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["survivors"], json!([0, 1, 2, 3]));
    assert_eq!(results[0]["dropped"], json!([4]));
    assert_one_adapter(&federation, survivors);
    let left = fs::read_dir(&uploads).expect("the folder is there").count();
    assert_eq!(left, 0, "masked updates outlive their round");
    true
}

#[test]
fn a_member_that_is_killed_and_back_at_once_holds_up_nobody() {
    let federation = Federation::new();
    let plan = plan(2, 5, SMALL, "")
        .replace("steps = 1", "steps = 40")
        .replace("reconnect = 3", "reconnect = 60");
    let mut aggregator = federation.serve(&plan);
    let mut running = join_and_start(&federation, &INSTITUTIONS);
    let victim = running.pop().expect("five members");
    aggregator.wait_for("phase=updates");
    // The round cannot end before the victim is back, however long that takes.
    running[0].freeze();
    victim.kill();
    running.push(federation.start(INSTITUTIONS[4]));
    aggregator.wait_for("was started again and has lost this round's keys");
    running[0].thaw();
    for member in running {
        let done = member.finish().done();
        assert_eq!(done.document()["rounds"], 2, "{}", done.stderr);
    }
    aggregator.finish().done();
    let results = federation.results();
    let attempts: Vec<_> = results.iter().map(|result| &result["attempt"]).collect();
    assert_eq!(attempts, [&json!(1), &json!(1)]);
    // Whether the killed member is in the first sum depends on when its update arrived.
    let first = results[0]["survivors"].as_array().expect("members");
    assert_eq!(first[..4], [0, 1, 2, 3]);
    assert_eq!(results[1]["survivors"], json!([0, 1, 2, 3, 4]));
    assert_one_adapter(&federation, &INSTITUTIONS);
}

/// What a member's `roster` prints.
fn shown_roster(federation: &Federation, member: &str) -> Value {
    let mut command = program("fedlora");
    command.args(["roster", "--format", "json", "--dir"]);
    command.arg(federation.home(member));
    Finished::of("roster", &mut command).done().document()
}

#[test]
fn without_a_terminal_a_run_stops_until_the_roster_is_accepted() {
    let members = &INSTITUTIONS[..3];
    let federation = Federation::new();
    let aggregator = federation.serve(&plan(1, 3, SMALL, ""));
    for member in members {
        federation.join(member);
    }
    let base = repository().join("examples/assets/base");
    let ask = |member: &str| {
        let data = federation.data(member, "train");
        let mut command = federation.asked_to_take_part(member, &base, &data);
        Running::start(member, &mut command)
    };
    let none = Finished::of(
        "roster",
        program("fedlora")
            .arg("roster")
            .arg("--dir")
            .arg(federation.home(members[0])),
    );
    none.failed(
        1,
        &[
            "has not shown this member a roster",
            "hint: start 'fedlora run'",
        ],
    );

    let roster = federation.roster();
    let digest = roster["digest"].as_str().expect("a digest");
    let words = roster["words"].as_array().expect("words");
    assert_eq!(words.len(), 8);
    let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
    let (words, hint) = (words.join(" "), format!("--accept-roster {digest}"));
    let asked: Vec<_> = members.iter().map(|member| ask(member)).collect();
    for stopped in asked {
        stopped.finish().failed(
            9,
            &[
                "has not accepted the roster",
                "hint: compare",
                &hint,
                &words,
            ],
        );
    }
    let mut pending = shown_roster(&federation, members[0]);
    assert_eq!(pending["accepted"], false);
    pending
        .as_object_mut()
        .expect("an object")
        .remove("accepted");
    assert_eq!(pending, roster, "the operator and the member show the same");

    // One member has accepted another roster before: it is shown what changed.
    let home = federation.home(members[0]);
    let shown = fs::read_to_string(home.join("roster.pending.json")).expect("a pending roster");
    let before = shown.replace(members[2], "elder-clinic");
    fs::write(home.join("roster.json"), before).expect("a pin can be written");
    let left = [
        "the roster has changed",
        "left: elder-clinic",
        "joined: device-vendor",
        &hint,
    ];
    ask(members[0]).finish().failed(9, &left);

    let running: Vec<_> = members
        .iter()
        .map(|member| federation.start(member))
        .collect();
    for member in running {
        member.finish().done();
    }
    aggregator.finish().done();
    let accepted = shown_roster(&federation, members[0]);
    assert_eq!(accepted["accepted"], true);
    assert_eq!(accepted["digest"], digest);
    assert_one_adapter(&federation, members);
}
