//! Kept rounds and the server's steps: its optimizer's moments, and steps that were taken back.

use std::fs;

use fedlora_adapter::peft;
use fedlora_aggregator::audit::{AuditError, Comparison, KeptPlan};
use fedlora_aggregator::optimizer::{ServerOptimizer, StateOf};
use fedlora_aggregator::store::Store;
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::RoundResult;
use fedlora_tests::{Federation, Finished};

use super::{Copy, PLAN, served};

/// The plan with an adaptive optimizer, whose steps are far above the largest: members take them
/// scaled down.
fn adaptive_plan() -> String {
    let plan = PLAN.replace(
        "[adapter]\n",
        "[server]\noptimizer = \"fedadam\"\nmax_step = 0.001\n\
         [adapter]\nfactors = \"both\"\n",
    );
    assert_ne!(plan, PLAN);
    plan
}

#[test]
fn a_kept_round_is_recomputed_with_the_server_optimizer_that_it_had() {
    let federation = served(&adaptive_plan(), &["--keep-for-audit"]);
    let status = federation.status();
    assert_eq!(status["rounds_scaled"], 2);
    let mut command = federation.operate("status");
    let shown = Finished::of("status", &mut command).done().stdout;
    assert!(shown.contains("the steps of 2 rounds"), "{shown}");

    let kept = Copy::of(&federation);
    // Either round by itself.
    for round in [2, 1] {
        let report = kept.try_replay(round).expect("a record to replay");
        assert!(report.matches() && report.is_whole(), "{report:?}");
    }

    let state = "adapters/round-0001.state";
    let kept = Copy::of(&federation);
    fs::remove_file(kept.path(state)).expect("a state");
    let report = kept.try_replay(2).expect("a record to replay");
    assert!(report.matches() && !report.is_whole());
    assert_eq!(report.adapter, Comparison::StateNotKept);
    kept.command(&["--round", "2", "--partial"]).done();

    let kept = Copy::of(&federation);
    kept.edit(state, |bytes| bytes[0] ^= 1);
    kept.command(&["--round", "2"]).failed(
        9,
        &["round-0001.state is damaged", "hint: put", "from a copy"],
    );
    kept.edit(state, |bytes| bytes.truncate(bytes.len() - 4));
    let error = kept.try_replay(2).expect_err("a state that is cut");
    assert!(matches!(error, AuditError::State(_)), "{error}");
    kept.refused(1, "the kept state of the server optimizer is not what");

    another_state(&federation);
}

/// A state that is whole, but not what round 1 gives: that of an optimizer before its first round.
fn another_state(federation: &Federation) {
    let kept = Copy::of(federation);
    let text = fs::read(kept.path("audit/plan.json")).expect("the plan is kept");
    let plan: KeptPlan = serde_json::from_slice(&text).expect("the plan in JSON");
    let (_, plan) = plan.plan.verify(&plan.aggregator).expect("a signed plan");
    let first = peft::load(&kept.path("audit/first-adapter")).expect("an adapter");
    let settings = plan.server_settings().expect("a checked plan");
    let optimizer = ServerOptimizer::new(settings, first.layout().clone());
    let text = fs::read_to_string(kept.path("results.jsonl")).expect("results");
    let result: Unverified<RoundResult> =
        serde_json::from_str(text.lines().next().expect("a result")).expect("a result in JSON");
    let of = StateOf::after(result.claimed(), plan.digest());
    let path = kept.path("adapters/round-0001.state");
    let store = Store::folder(&kept.path(""));
    let saved = optimizer.save(&store, &path, &of);
    saved.expect("a state can be written");
    let report = kept.try_replay(2).expect("a record to replay");
    assert_eq!(report.adapter, Comparison::Differs);
    assert_eq!(report.sum, Comparison::Matches);
    kept.refused(1, "the kept state of the server optimizer is not what");
}

/// A rate that harms after its warm-up, in the second round, and a server whose optimizer has
/// moments: the third round takes the second one's step back, and both.
#[test]
fn a_kept_round_that_took_a_step_back_is_recomputed() {
    let plan = PLAN
        .replace("rounds = 2", "rounds = 3")
        .replace("warmup_steps = 0", "warmup_steps = 1")
        .replace("learning_rate = 0.001", "learning_rate = 0.5")
        .replace(
            "[adapter]\n",
            "[server]\noptimizer = \"fedavgm\"\n[adapter]\nfactors = \"both\"\n",
        );
    let federation = served(&plan, &["--keep-for-audit"]);
    let status = federation.status();
    assert_eq!(status["rounds_taken_back"], 1);
    let mut command = federation.operate("status");
    let shown = Finished::of("status", &mut command).done().stdout;
    assert!(shown.contains("taken back   1 of the steps"), "{shown}");

    let kept = Copy::of(&federation);
    for round in [3, 2, 1] {
        let report = kept.try_replay(round).expect("a record to replay");
        assert!(report.matches() && report.is_whole(), "{report:?}");
    }
    let moments = |round: u32| {
        let state = fs::read(kept.path(&format!("adapters/round-000{round}.state")));
        let state = state.expect("a state");
        state[..state.len() - 32].to_vec()
    };
    assert_eq!(moments(3), moments(1));
    assert_ne!(moments(3), moments(2));

    // The state that the step goes back to.
    fs::remove_file(kept.path("adapters/round-0001.state")).expect("a state");
    let report = kept.try_replay(3).expect("a record to replay");
    assert_eq!(report.adapter, Comparison::StateNotKept);
    kept.replace("results.jsonl", "\"votes\":0", "\"votes\":1");
    kept.refused(1, "the signature of the result of round 1");
}
