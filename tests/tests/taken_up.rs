//! Aggregators that are killed, and started again by the same command: the run goes on where it was.

use std::fs;
use std::path::Path;

use fedlora_tests::{Federation, INSTITUTIONS, Running, wait_for};
use serde_json::json;

/// The phases in which a test kills the aggregator, one a round.
const PHASES: [&str; 6] = ["keys", "shares", "held", "updates", "confirm", "reveal"];

fn plan(rounds: usize, more: &str) -> String {
    format!(
        "rounds = {rounds}\nmembers = 5\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [server]\noptimizer = \"fedavgm\"\n{more}\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 20\n"
    )
}

/// Starts the members once all have joined.
fn join_and_start(federation: &Federation) -> Vec<Running> {
    for member in INSTITUTIONS {
        federation.join(member);
    }
    INSTITUTIONS
        .iter()
        .map(|member| federation.start(member))
        .collect()
}

/// Waits until every member has ended well, with the adapter of the last result; and the operator.
fn all_end_well(
    federation: &Federation,
    aggregator: Running,
    members: Vec<Running>,
    rounds: usize,
) {
    for member in members {
        let document = member.finish().done().document();
        assert_eq!(document["rounds"], rounds);
        assert_eq!(document["took_part"], rounds);
    }
    let done = aggregator.finish().done();
    assert_eq!(done.document()["rounds"], rounds);
    let results = federation.results();
    assert_eq!(results.len(), rounds);
    for (number, result) in (1..).zip(&results) {
        assert_eq!(result["round"], json!(number));
        assert_eq!(
            result["survivors"],
            json!([0, 1, 2, 3, 4]),
            "round {number}"
        );
    }
    let outcome = federation.outcome();
    for member in INSTITUTIONS {
        assert_eq!(
            outcome,
            json!(federation.adapter(member).digest().to_string())
        );
    }
}

/// How many files lie below a folder.
fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |path: &Path| match path.is_dir() {
        true => files(path),
        false => 1,
    };
    entries.map(|entry| count(&entry.path())).sum()
}

#[test]
fn an_aggregator_that_is_killed_in_each_phase_goes_on_with_the_round() {
    let rounds = PHASES.len();
    let plan = plan(rounds, "");
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan);
    let members = join_and_start(&federation);
    for (round, phase) in (1..).zip(PHASES) {
        // The first round begins with this phase.
        if round > 1 {
            aggregator.wait_for(&format!("round={round} phase={phase}"));
        } else {
            aggregator.wait_for("the round opens");
        }
        aggregator.kill();
        assert_eq!(federation.status()["state"], "stopped");
        aggregator = federation.serve(&plan);
        aggregator.wait_for("the run is taken up");
    }
    all_end_well(&federation, aggregator, members, rounds);
    let results = federation.results();
    assert!(results.iter().all(|result| result["attempt"] == json!(1)));
    let run = federation.run().expect("one run");
    assert!(
        !run.join("journal").exists(),
        "the record goes with the run"
    );
    assert_eq!(files(&run.join("uploads")), 0);
    // Over: the same command is another run.
    let runs = || {
        let runs = fs::read_dir(federation.operator().join("runs"));
        runs.expect("the folder of runs").count()
    };
    assert_eq!(runs(), 1);
    let again = federation.serve(&plan);
    wait_for(
        "another run",
        || again.stderr(),
        || (runs() == 2).then_some(()),
    );
    // Two cannot serve one directory.
    let both = Running::start("the second", &mut federation.serving(&plan)).finish();
    both.failed(1, &["another process serves"]);
}

/// The whole federation goes down in a round, and every program is started again.
#[test]
fn a_run_goes_on_where_its_members_were_killed_as_well() {
    // None of them has the round's keys any more: the next attempt begins.
    let plan = plan(3, "");
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan);
    let members = join_and_start(&federation);
    aggregator.wait_for("round=2 phase=updates");
    aggregator.kill();
    for member in members {
        member.kill();
    }
    let mut aggregator = federation.serve(&plan);
    aggregator.wait_for("the run is taken up");
    let members: Vec<_> = INSTITUTIONS
        .iter()
        .map(|member| federation.start(member))
        .collect();
    aggregator.wait_for("enough members are back");
    for member in members {
        assert_eq!(member.finish().done().document()["rounds"], 3);
    }
    aggregator.finish().done();
    assert_eq!(federation.results().len(), 3);
    let outcome = federation.outcome();
    for member in INSTITUTIONS {
        let adapter = json!(federation.adapter(member).digest().to_string());
        assert_eq!(outcome, adapter);
    }
}

/// A run that is not over is given up where its operator says so.
#[test]
fn a_new_run_gives_the_one_before_up() {
    let plan = plan(1, "");
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan);
    let members = join_and_start(&federation);
    aggregator.wait_for("the round opens");
    let first = federation.run().expect("a run");
    aggregator.kill();
    assert!(first.join("journal/open").exists());
    let mut command = federation.serving(&plan);
    let mut anew = Running::start("the aggregator", command.arg("--new-run"));
    anew.wait_for("the run is given up");
    wait_for(
        "end of the journal",
        || anew.stderr(),
        || (!first.join("journal").exists()).then_some(()),
    );
    // Members of the one do not take part in the other.
    for member in members {
        let ended = member.finish();
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
    }
}

/// Interrupted by its operator before the first round, after it and in another; with everything kept
/// for an audit.
#[test]
fn an_interrupted_run_goes_on_and_can_be_replayed() {
    let plan = plan(3, "");
    let federation = Federation::new();
    let serve = || {
        let mut command = federation.serving(&plan);
        let mut running = Running::start("the aggregator", command.arg("--keep-for-audit"));
        running.wait_for("waiting for members");
        running
    };
    let mut aggregator = serve();
    let members = join_and_start(&federation);
    for text in [
        "the cohort is complete",
        "the round is done",
        "round=2 phase=confirm",
    ] {
        aggregator.wait_for(text);
        // A service manager stops it another way than somebody at a terminal.
        match text {
            "the round is done" => aggregator.terminate(),
            _ => aggregator.interrupt(),
        }
        let ended = aggregator.finish();
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        aggregator = serve();
    }
    all_end_well(&federation, aggregator, members, 3);
    for round in ["1", "2", "3"] {
        let mut command = fedlora_tests::program("fedlora-aggregator");
        command
            .args(["audit", "replay", "--format", "json", "--dir"])
            .arg(federation.operator())
            .args(["--round", round]);
        let report = fedlora_tests::Finished::of("replay", &mut command).done();
        assert_eq!(report.document()["ok"], true);
    }
}
