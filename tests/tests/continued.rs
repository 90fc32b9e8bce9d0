//! Runs that begin from what an earlier run of the federation came to.

use std::fs;
use std::path::PathBuf;

use fedlora_adapter::{Adapter, peft};
use fedlora_tests::{Federation, Finished, INSTITUTIONS, StoreKind, program, wait_for};
use serde_json::{Value, json};

fn plan(rounds: usize, rank: usize) -> String {
    format!(
        "rounds = {rounds}\nmembers = 5\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = {rank}, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [timeouts]\njoin = 600\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 20\n"
    )
}

/// Submits a plan of a run that begins from `start`.
fn submit(federation: &Federation, plan: &str, start: &str) -> Finished {
    let path = federation.folder().join("continued.toml");
    fs::write(&path, plan).expect("a plan can be written");
    let mut command = federation.operate_run("submit");
    command.arg(path).args(["--format", "json"]);
    Finished::of("submit", command.args(["--start-from", start]))
}

fn wait_for_end(federation: &Federation, run: &str) -> Value {
    let find = || {
        let mut runs = federation.runs().into_iter();
        runs.find(|one| one["run"] == run)
    };
    wait_for(
        &format!("the end of run {run}"),
        || format!("{:?}\n{}", find(), federation.status()),
        || find().filter(|one| one["ended"].is_number()),
    )
}

fn take_part(federation: &Federation) {
    let members: Vec<_> = (INSTITUTIONS.iter())
        .map(|member| federation.start(member))
        .collect();
    for member in members {
        member.finish().done();
    }
}

fn folder(federation: &Federation, run: &str) -> PathBuf {
    federation.operator().join("runs").join(run)
}

fn published(federation: &Federation, run: &str, round: u32) -> Adapter {
    let adapters = folder(federation, run).join("adapters");
    peft::load(&adapters.join(format!("round-{round:04}"))).expect("a published adapter")
}

#[test]
fn a_run_begins_where_another_ended_although_everybody_is_killed() {
    let federation = Federation::new();
    let serving = federation.serve_all();
    for member in INSTITUTIONS {
        federation.join(member);
    }
    let first = federation.submit(&plan(2, 4));
    take_part(&federation);
    wait_for_end(&federation, &first);
    // With a log of its own for the second run.
    serving.kill();
    let mut aggregator = federation.serve_all();
    let last = published(&federation, &first, 2);
    let digest = last.digest().to_string();

    // What is none, was summed upon, or has another shape is refused before anybody hears of it.
    let none = "0".repeat(64);
    for (start, rank, words) in [
        (&none, 4, "no run of this federation has published"),
        (&format!("{first}:1"), 4, "has a sum on that adapter"),
        (&first, 8, "its rank is 4, the plan's 8"),
    ] {
        submit(&federation, &plan(2, rank), start).failed(3, &[words]);
    }
    let waiting = || {
        fs::read_dir(federation.operator().join("queue"))
            .unwrap()
            .count()
    };
    assert_eq!(waiting(), 0);

    let submitted = submit(&federation, &plan(3, 4), &first).done();
    assert!(
        submitted.stderr.contains("the adapter of round 2"),
        "{}",
        submitted.stderr
    );
    let second = submitted.document()["run"].as_str().unwrap().to_owned();
    let [killed, others @ ..] = INSTITUTIONS;
    let mut member = federation.start(killed);
    let others: Vec<_> = others.iter().map(|one| federation.start(one)).collect();
    // One of each is killed in a round; both take it up from their own folders.
    aggregator.wait_for("round=1 phase=updates");
    aggregator.kill();
    member.kill_now();
    let _aggregator = {
        let mut serving = federation.serve_all();
        serving.wait_for("the run is taken up");
        serving
    };
    federation.start(killed).finish().done();
    for other in others {
        other.finish().done();
    }
    let ended = wait_for_end(&federation, &second);
    assert_eq!(
        (&ended["rounds_done"], &ended["state"]),
        (&json!(3), &json!("finished"))
    );

    assert_eq!(published(&federation, &second, 0), last);
    assert_ne!(published(&federation, &second, 1), last);
    for home in INSTITUTIONS.map(|member| federation.home(member)) {
        let text = fs::read(home.join("runs").join(&second).join("run.json")).unwrap();
        let receipt: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(receipt["first"], json!(digest), "{}", home.display());
        assert_eq!(receipt["plan"]["plan"]["start_from"], json!(digest));
    }
    // Round 1 of the second run has a sum on it now.
    submit(&federation, &plan(2, 4), &digest).failed(3, &["has a sum on that adapter"]);
    // What was removed cannot be begun from.
    let newest = folder(&federation, &second).join("adapters/round-0003");
    fs::remove_dir_all(newest).unwrap();
    submit(&federation, &plan(2, 4), &second).failed(3, &["was removed"]);
}

#[test]
fn a_member_that_has_not_held_the_adapter_takes_part_only_if_its_floors_say_so() {
    let federation = Federation::new();
    let _aggregator = federation.serve_all();
    for member in INSTITUTIONS {
        federation.join(member);
    }
    let first = federation.submit(&plan(1, 4));
    take_part(&federation);
    wait_for_end(&federation, &first);
    // As one that joined later: it knows nothing of the first run.
    let newcomer = INSTITUTIONS[0];
    fs::remove_dir_all(federation.home(newcomer).join("runs")).unwrap();
    let second = submit(&federation, &plan(1, 4), &first).done();
    let second = second.document()["run"].as_str().unwrap().to_owned();
    let mut command = federation.taking_part(newcomer);
    let refused = Finished::of("a newcomer", &mut command);
    refused.failed(3, &["has not held in any run", "unknown_start = true"]);

    let path = federation.home(newcomer).join("fedlora.toml");
    let text = fs::read_to_string(&path).unwrap();
    let admits = text.replace("unknown_start = false", "unknown_start = true");
    assert_ne!(admits, text, "the floor is in the configuration");
    fs::write(&path, admits).unwrap();
    take_part(&federation);
    let ended = wait_for_end(&federation, &second);
    assert_eq!(ended["state"], json!("finished"));
    let start = published(&federation, &first, 1);
    assert_eq!(published(&federation, &second, 0), start);
}

/// What of a run's adapters is there.
fn rounds(federation: &Federation, run: &str) -> Vec<u32> {
    let adapters = folder(federation, run).join("adapters");
    let there = |round: &u32| adapters.join(format!("round-{round:04}")).exists();
    (0..=3).filter(there).collect()
}

#[test]
fn serve_removes_what_is_old_on_a_store_too_and_keeps_what_is_named() {
    let federation = Federation::kept_in(Some(StoreKind::Sqlite));
    let serving = federation.serve_all();
    for member in INSTITUTIONS {
        federation.join(member);
    }
    let old = federation.submit(&plan(3, 4));
    take_part(&federation);
    wait_for_end(&federation, &old);
    let named = submit(&federation, &plan(1, 4), &old).done().document();
    let named = named["run"].as_str().unwrap().to_owned();
    take_part(&federation);
    wait_for_end(&federation, &named);
    serving.kill();
    assert_eq!(rounds(&federation, &old), [1, 2, 3]);

    let config = federation.operator().join("aggregator.toml");
    let text = fs::read_to_string(&config).unwrap();
    let keep = "\n[retention]\nruns = 1\nkeep = []\n";
    fs::write(&config, format!("{text}{keep}")).unwrap();
    let show = |command: &[&str]| {
        let (name, more) = command.split_first().expect("a command");
        let mut show = federation.operate(name);
        Finished::of(name, show.args(more).args(["--format", "json"]))
            .done()
            .document()
    };
    // It is shown first, and nothing is removed by that.
    let told = show(&["retention"]);
    let gone = told["removed"].as_array().expect("adapters");
    assert_eq!((gone.len(), &told["dry_run"]), (2, &json!(true)), "{told}");
    assert_eq!(rounds(&federation, &old), [1, 2, 3]);

    let mut serving = federation.serve_all();
    serving.wait_for("what is old was removed");
    // The run that is named begins from the third.
    assert_eq!(rounds(&federation, &old), [3]);
    assert_eq!(rounds(&federation, &named), [0, 1]);
    serving.interrupt();
    serving.finish().done();
    let mut log = program("fedlora-aggregator");
    log.args(["audit", "log", "--format", "json", "--dir"]);
    let log = Finished::of("log", log.arg(federation.operator()))
        .done()
        .document();
    let entries = log["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 1, "{log}");
    let pruned = &entries[0]["action"]["prune"];
    assert_eq!(
        (&pruned["run"], &pruned["by"]),
        (&json!(old), &json!("retention"))
    );
    assert_eq!(pruned["bytes"], told["bytes"]);
    // The store has the same: nothing comes back from there.
    let checked = federation.checked(&federation.operator());
    assert_eq!(checked["differences"], json!([]), "{checked}");
    let mut verify = program("fedlora-aggregator");
    verify.args(["audit", "verify", "--run", &old, "--dir"]);
    Finished::of("verify", verify.arg(federation.operator())).done();
}
