//! A federation that is served for months: plans are queued, members' agents take part by their own rules,
//! and everybody is killed and started again in between.

use fedlora_adapter::peft;
use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, wait_for};
use serde_json::{Value, json};

fn plan(rounds: usize) -> String {
    format!(
        "rounds = {rounds}\nmembers = 5\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [timeouts]\njoin = 600\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 20\n"
    )
}

/// Waits until a run is in one of these states, and gives what `run list` says of it.
fn wait_for_run(federation: &Federation, run: &str, states: &[&str]) -> Value {
    let find = || {
        let mut runs = federation.runs().into_iter();
        runs.find(|one| one["run"] == run)
    };
    wait_for(
        &format!("run {run} in {states:?}"),
        || format!("{:?}\n{}", find(), federation.status()),
        || find().filter(|one| states.iter().any(|state| one["state"] == *state)),
    )
}

/// Waits until a member is shown a roster, and accepts it.
fn accept_roster(federation: &Federation, member: &str) {
    let pending = federation.home(member).join("roster.pending.json");
    wait_for(
        "a roster to accept",
        || member.to_owned(),
        || pending.exists().then_some(()),
    );
    let shown = Finished::of(
        "roster",
        &mut federation.member(member, &["roster", "--format", "json"]),
    );
    let shown = shown.done().document();
    assert_eq!(shown["accepted"], false);
    let digest = shown["digest"].as_str().expect("a digest").to_owned();
    let accept = ["roster", "--accept", &digest];
    Finished::of("accept", &mut federation.member(member, &accept)).done();
}

#[test]
fn queued_plans_are_carried_out_by_agents_while_everybody_is_killed_once() {
    let federation = Federation::new();
    let mut aggregator = federation.serve_all();
    for member in INSTITUTIONS {
        federation.join(member);
        federation.set_rules(member, "plans = \"accept\"\nmax_rounds = 10");
    }
    // One is asked about each plan.
    let [asked, killed, ..] = INSTITUTIONS;
    federation.set_rules(asked, "plans = \"ask\"");
    let mut agents: Vec<_> = (INSTITUTIONS.iter())
        .map(|member| federation.start_agent(member))
        .collect();
    let (first, second) = (federation.submit(&plan(3)), federation.submit(&plan(2)));

    agents[0].wait_for("a plan waits for your answer");
    let state = |member| {
        let status = ["status", "--format", "json"];
        Finished::of("status", &mut federation.member(member, &status))
            .done()
            .document()
    };
    assert_eq!(state(asked)["agent"]["phase"], "asking");
    assert_eq!(state(asked)["running"], true);
    let show = ["plan", "show", "--format", "json"];
    let shown = Finished::of("show", &mut federation.member(asked, &show)).done();
    let shown = shown.document();
    assert_eq!(shown["run"], json!(first));
    // Of another plan than the one that waits.
    let other = "0".repeat(64);
    let approve = |digest: &str| {
        let approve = ["plan", "approve", digest];
        Finished::of("approve", &mut federation.member(asked, &approve))
    };
    approve(&other).failed(1, &["another plan waits"]);
    approve(shown["digest"].as_str().expect("a digest")).done();
    for member in INSTITUTIONS {
        accept_roster(&federation, member);
    }
    // The aggregator and a member are killed in the first run, and started again.
    aggregator.wait_for("round=2 phase=updates");
    aggregator.kill();
    agents.remove(1).kill();
    aggregator = federation.serve_all();
    aggregator.wait_for("the run is taken up");
    agents.insert(1, federation.start_agent(killed));
    wait_for_run(&federation, &first, &["finished"]);

    // The second plan follows by itself: the rosters are known, and one member is asked again.
    Finished::of("again", &mut wait_for_plan(&federation, asked, &second)).done();
    let done = wait_for_run(&federation, &second, &["finished"]);
    assert_eq!(
        (&done["rounds_done"], &done["failure"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(done["members"].as_array().map(Vec::len), Some(5));
    let listed: Vec<_> = federation.runs();
    let of = |run: &str| listed.iter().find(|one| one["run"] == run).expect("listed");
    assert_eq!(of(&first)["rounds_done"], 3);
    // Each plan leaves the queue once its run is over.
    let queued = || std::fs::read_dir(federation.operator().join("queue"));
    let is_empty = || (queued().ok()?.count() == 0).then_some(());
    wait_for("an empty queue", || aggregator.stderr(), is_empty);

    // Every member ends with the second run's adapter, also the one that was killed.
    for member in INSTITUTIONS {
        let over = federation
            .home(member)
            .join("runs")
            .join(&second)
            .join("over");
        wait_for(
            "a member's end",
            || member.to_owned(),
            || over.exists().then_some(()),
        );
        let digest = federation.adapter(member).digest().to_string();
        assert_eq!(json!(digest), done["adapter"], "{member}");
    }
    // The second run has overwritten nothing of the first.
    for member in INSTITUTIONS {
        let earlier = federation.home(member).join("runs").join(&first);
        let digest = peft::load(&earlier.join("global"))
            .expect("an adapter")
            .digest();
        assert_eq!(json!(digest.to_string()), of(&first)["adapter"], "{member}");
    }
    // Any published adapter can be fetched, and is checked against the signed result.
    let out = federation.folder().join("fetched");
    let arguments = ["fetch", &first, "--round", "2", "--format", "json"];
    let mut fetch = federation.member(killed, &arguments);
    let fetched = Finished::of("fetch", fetch.arg("--out").arg(&out))
        .done()
        .document();
    assert_eq!(
        (&fetched["over"], &fetched["rounds"]),
        (&json!(true), &json!(3))
    );
    let digest = peft::load(&out).expect("an adapter").digest();
    assert_eq!(fetched["adapter"], json!(digest.to_string()));
    let unknown = ["fetch", "00000000000000000000000000000000"];
    Finished::of("fetch", &mut federation.member(killed, &unknown)).failed(1, &["knows of no run"]);

    // Both services end well when they are told to.
    for agent in agents {
        agent.interrupt();
        agent.finish().done();
    }
    aggregator.interrupt();
    aggregator.finish().done();
    assert_eq!(state(asked)["running"], false);
}

/// Waits until a member is shown this run's plan; the command that approves it.
fn wait_for_plan(federation: &Federation, member: &str, run: &str) -> std::process::Command {
    let pending = federation.home(member).join("plan.pending.json");
    let text = || std::fs::read_to_string(&pending).unwrap_or_default();
    wait_for("the next plan", text, || text().contains(run).then_some(()));
    let pending: Value = serde_json::from_str(&text()).expect("a plan that waits");
    let digest = pending["digest"].as_str().expect("a digest").to_owned();
    federation.member(member, &["plan", "approve", &digest])
}

#[test]
fn a_run_that_the_operator_ends_is_over_for_everybody_and_the_next_one_begins() {
    let federation = Federation::new();
    let aggregator = federation.serve_all();
    for member in INSTITUTIONS {
        federation.join(member);
    }
    // A run whose members do not all come; behind it one that nobody wants, and one that waits.
    let waiting = federation.submit(&plan(2));
    let unwanted = federation.submit(&plan(1));
    let last = federation.submit(&plan(1));
    wait_for_run(&federation, &waiting, &["served"]);
    let mut member = Running::start("a member", &mut federation.taking_part(INSTITUTIONS[0]));
    member.wait_for("2 rounds of 1 steps");
    let abort = |run: &str, reason: &str| {
        let mut command = federation.operate_run("abort");
        Finished::of("abort", command.args([run, "--reason", reason]))
    };
    abort(&unwanted, "").done();
    abort(&waiting, "wrong base model").done();
    let ended = wait_for_run(&federation, &waiting, &["aborted"]);
    assert!(
        ended["failure"]
            .as_str()
            .unwrap()
            .contains("wrong base model")
    );
    member.finish().failed(6, &["wrong base model"]);
    abort(&waiting, "").failed(1, &["the run is over"]);

    // The next one has its turn; the one that was withdrawn never has.
    wait_for_run(&federation, &last, &["served"]);
    assert!(
        federation
            .runs()
            .iter()
            .all(|one| one["run"] != unwanted.as_str())
    );
    let members: Vec<_> = (INSTITUTIONS.iter())
        .map(|member| federation.start(member))
        .collect();
    for member in members {
        member.finish().done();
    }
    wait_for_run(&federation, &last, &["finished"]);
    drop(aggregator);
}
