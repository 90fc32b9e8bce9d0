//! An aggregator whose directory is in a store, on two hosts: one serves, the other stands by. The store
//! is SQLite, unless `FEDLORA_TEST_STORE` asks for PostgreSQL.

use std::fs;
use std::path::Path;

use fedlora_tests::{
    Federation, Finished, INSTITUTIONS, Running, StoreKind, outcome_in, program, wait_for,
};
use serde_json::json;

const ROUNDS: usize = 3;

fn plan() -> String {
    format!(
        "rounds = {ROUNDS}\nmembers = 5\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 60\n"
    )
}

fn with_store() -> Federation {
    Federation::kept_in(Some(StoreKind::asked().unwrap_or(StoreKind::Sqlite)))
}

fn join_and_start(federation: &Federation) -> Vec<Running> {
    for member in INSTITUTIONS {
        federation.join(member);
    }
    INSTITUTIONS
        .iter()
        .map(|member| federation.start(member))
        .collect()
}

/// `serve` of the plan on a directory.
fn serve(operator: &Path, plan: &Path) -> Running {
    let mut command = program("fedlora-aggregator");
    command
        .args(["serve", "--format", "json", "--dir"])
        .arg(operator)
        .arg("--plan")
        .arg(plan);
    Running::start("the standby", &mut command)
}

/// The adapter that every member has in the end, by its digest.
fn end(federation: &Federation, aggregator: Running, members: Vec<Running>) -> String {
    for member in members {
        let document = member.finish().done().document();
        assert_eq!(document["took_part"], ROUNDS);
    }
    aggregator.finish().done();
    let digests: Vec<_> = INSTITUTIONS
        .iter()
        .map(|member| federation.adapter(member).digest().to_string())
        .collect();
    assert!(digests.iter().all(|one| *one == digests[0]));
    digests[0].clone()
}

/// Checks that a directory is what the database says, and that nothing of a round is left in the store.
fn assert_clean(federation: &mut Federation, operator: &Path) {
    let checked = federation.checked(operator);
    assert_eq!(checked["differences"], json!([]));
    assert_eq!(checked["served_by"], json!(null), "the lease is given back");
    for none in ["masked_updates", "loose_objects", "unknown_objects"] {
        assert_eq!(checked[none], 0, "{none}");
    }
    // No more than the files that say so: each round's adapter and the optimizer's state.
    let objects = federation.store().objects();
    assert!(objects <= 2 * ROUNDS, "{objects} objects are left");
}

#[test]
fn a_standby_takes_the_round_up_where_the_host_that_was_killed_left_it() {
    let mut federation = with_store();
    let mut aggregator = federation.serve(&plan());
    let members = join_and_start(&federation);
    let other = federation.standby();
    let plan = federation.folder().join("plan.toml");
    let mut standby = serve(&other, &plan);
    standby.wait_for("standing by");
    let status = || {
        let mut command = program("fedlora-aggregator");
        command
            .args(["status", "--format", "json", "--dir"])
            .arg(&other);
        Finished::of("status", &mut command).done().document()
    };
    wait_for(
        "standby in the status",
        || standby.stderr(),
        || status()["standby_of"].as_str().map(drop),
    );
    // What changes the federation is done where it is served.
    let mut invite = program("fedlora-aggregator");
    invite.args(["invite", "late", "--dir"]).arg(&other);
    Finished::of("invite", &mut invite).failed(1, &["serves this federation"]);

    // Masked updates wait to be added then, and some are stored as objects or rows.
    aggregator.wait_for("round=2 phase=updates");
    aggregator.kill();
    standby.wait_for("the run is taken up");
    let adapter = end(&federation, standby, members);
    assert_clean(&mut federation, &other);
    // In the same attempt, with everybody.
    let run = fs::read_dir(other.join("runs")).expect("the folder of runs");
    let run = run.flatten().next().expect("one run").path();
    let text = fs::read_to_string(run.join("results.jsonl")).expect("the run has results");
    assert_eq!(text.lines().count(), ROUNDS);
    for line in text.lines() {
        let result: serde_json::Value = serde_json::from_str(line).expect("a result");
        assert_eq!(result["body"]["attempt"], 1);
        assert_eq!(result["body"]["survivors"], json!([0, 1, 2, 3, 4]));
    }
    assert_eq!(outcome_in(&other), json!(adapter));
    let mut verify = program("fedlora-aggregator");
    verify.args(["audit", "verify", "--dir"]).arg(&other);
    Finished::of("verify", &mut verify).done();

    // The host that was killed is the standby's standby, and gets what it missed.
    let first = federation.operator();
    let mut list = federation.operate("roster");
    Finished::of("roster", &mut list).done();
    let mut submit = federation.operate_run("abort");
    let id = run.file_name().expect("a run's id").to_owned();
    // It asks the database first, and so knows that the run is over.
    Finished::of("abort", submit.arg(&id)).failed(1, &["the run is over"]);
    assert_clean(&mut federation, &first);
}

#[test]
fn a_directory_is_imported_and_served_from_its_store() {
    let federation = Federation::kept_in(None);
    federation.invite("early");
    let kind = StoreKind::asked().unwrap_or(StoreKind::Sqlite);
    let store = fedlora_tests::TestStore::new(kind);
    store.configure(&federation.operator());
    let mut serving = federation.serving(&plan());
    Finished::of("serve", &mut serving).failed(3, &["is empty", "store import"]);
    let import = |more: &[&str]| {
        let mut command = program("fedlora-aggregator");
        command
            .args(["store", "import", "--dir"])
            .arg(federation.operator())
            .args(more);
        Finished::of("import", &mut command)
    };
    import(&[]).done();
    import(&[]).failed(1, &["holds this federation already"]);
    import(&["--replace"]).done();
    assert_eq!(federation.checked(&federation.operator())["same"], true);
    Finished::of("remove", federation.operate("remove").arg("early")).done();
    // The audit log alone.
    assert_eq!(federation.checked(&federation.operator())["files"], 1);
}
