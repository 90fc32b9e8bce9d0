//! Steps by hand, steps by another implementation, and states that come back.

use crate::store::Store;
use std::fs;
use std::path::Path;

use fedlora_adapter::{Adapter, LoraConfig, Target};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{RoundNumber, RunId};
use fedlora_protocol::plan::{ServerOptimizerName, ServerPlan};
use serde::Deserialize;

use super::*;

const CLIP: f32 = 1.0;

/// The layout of an adapter of rank `rank` on one projection; A comes first.
fn layout(rank: usize, inputs: usize, outputs: usize) -> Layout {
    let config = LoraConfig::new(rank, 1.0, 0.0, [Target::Q]).unwrap();
    Adapter::layout_for(&config, 1, |_, _| (inputs, outputs)).unwrap()
}

/// An optimizer of an adapter of one value in A and one in B.
fn optimizer(rate: f32, server: ServerPlan) -> ServerOptimizer {
    ServerOptimizer::new(server.settings(rate).unwrap(), layout(1, 1, 1))
}

fn server(optimizer: ServerOptimizerName, momentum: f64) -> ServerPlan {
    ServerPlan {
        optimizer,
        momentum: Some(momentum),
        ..ServerPlan::default()
    }
}

/// The steps of rounds that train one factor and come to these means.
fn steps(optimizer: &ServerOptimizer, rounds: &[(Factors, f32)]) -> Vec<f32> {
    let mut optimizer = optimizer.clone();
    let step = |&(factors, mean): &(Factors, f32)| {
        let step = optimizer.step(factors, vec![mean], CLIP);
        optimizer = step.after;
        assert_eq!(step.scaled, None);
        step.values[0]
    };
    rounds.iter().map(step).collect()
}

fn of_b(means: &[f32]) -> Vec<(Factors, f32)> {
    means.iter().map(|&mean| (Factors::B, mean)).collect()
}

fn assert_close(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() < 1e-7, "{got}");
    }
}

#[test]
fn fedavg_steps_by_the_mean_times_the_rate() {
    let plain = optimizer(0.3, ServerPlan::default());
    // The product of two f32 in f64 is exact: one rounding, as in f32.
    assert_eq!(
        steps(&plain, &of_b(&[0.7, -0.1])),
        [0.3_f32 * 0.7, 0.3 * -0.1]
    );
    assert!(!plain.has_state());
}

#[test]
fn momentum_by_hand() {
    // v = 1, then 0.5 * 1 + 1 = 1.5, then 0.5 * 1.5 - 1 = -0.25; half of each.
    let heavy_ball = optimizer(0.5, server(ServerOptimizerName::Fedavgm, 0.5));
    let means = of_b(&[1.0, 1.0, -1.0]);
    assert_eq!(steps(&heavy_ball, &means), [0.5, 0.75, -0.125]);
    // Half of 1 + 0.5 * 1 = 1.5, of 1 + 0.5 * 1.5 = 1.75, of -1 - 0.5 * 0.25 = -1.125.
    let nesterov = optimizer(0.5, server(ServerOptimizerName::Nesterov, 0.5));
    assert_eq!(steps(&nesterov, &means), [0.75, 0.875, -0.5625]);
}

#[test]
fn adam_by_hand() {
    let adam = ServerPlan {
        beta2: Some(0.5),
        tau: Some(0.5),
        ..server(ServerOptimizerName::Fedadam, 0.5)
    };
    // v begins at tau^2 = 0.25, m at 0; the rate is 1/4.
    // d = 1: m = 0.5, v = 0.125 + 0.5 = 0.625, step = 0.25 * 0.5 / (0.7905694150 + 0.5).
    // d = -1: m = 0.25 - 0.5 = -0.25, v = 0.3125 + 0.5 = 0.8125,
    // step = 0.25 * -0.25 / (0.9013878189 + 0.5).
    let expected = [0.0968564716, -0.0445986469];
    assert_close(
        &steps(&optimizer(0.25, adam), &of_b(&[1.0, -1.0])),
        &expected,
    );
}

#[test]
fn yogi_by_hand() {
    let yogi = ServerPlan {
        beta2: Some(0.75),
        tau: Some(0.5),
        ..server(ServerOptimizerName::Fedyogi, 0.5)
    };
    // v begins at tau^2 = 0.25, m at 0; the rate is 1.
    // d = 1: m = 0.5, v = 0.25 + 0.25 * 1 = 0.5, step = 0.5 / (0.7071067812 + 0.5).
    // d = 0.5: m = 0.25 + 0.25 = 0.5, v = 0.5 - 0.25 * 0.25 = 0.4375,
    // step = 0.5 / (0.6614378278 + 0.5).
    // d = 0: m = 0.25, v stays, since the square is 0; step = 0.25 / (0.6614378278 + 0.5).
    let expected = [0.4142135624, 0.4305008740, 0.2152504370];
    let means = of_b(&[1.0, 0.5, 0.0]);
    assert_close(&steps(&optimizer(1.0, yogi), &means), &expected);
}

#[test]
fn a_factor_keeps_its_moments_while_the_other_is_trained() {
    let momentum = optimizer(1.0, server(ServerOptimizerName::Fedavgm, 0.5));
    let rounds = [
        (Factors::B, 1.0),
        (Factors::A, -0.5),
        (Factors::B, 0.0),
        (Factors::A, 0.0),
    ];
    assert_eq!(steps(&momentum, &rounds), [1.0, -0.5, 0.5, -0.25]);
}

#[test]
fn a_step_above_the_largest_is_scaled_down_and_its_moments_are_not() {
    let adaptive = ServerPlan {
        optimizer: ServerOptimizerName::Fedadam,
        ..ServerPlan::default()
    };
    let adam = ServerOptimizer::new(adaptive.settings(100.0).unwrap(), layout(1, 2, 3));
    let step = adam.step(Factors::Both, vec![0.3, 0.0, -0.3, 0.1, 0.2], 0.5);
    let scaled = step.scaled.unwrap();
    assert!(scaled.from > 100.0 && scaled.to == 0.5, "{scaled:?}");
    let norm = step.values.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((norm - 0.5).abs() < 1e-6, "{norm}");
    let slow = ServerOptimizer::new(adaptive.settings(1e-3).unwrap(), layout(1, 2, 3));
    let other = slow.step(Factors::Both, vec![0.3, 0.0, -0.3, 0.1, 0.2], 0.5);
    assert_eq!(other.scaled, None);
    assert_eq!(step.after.rule, other.after.rule);

    // Rounding may make a mean longer than the clip: members allow that, and it stays.
    let plain = optimizer(1.0, ServerPlan::default());
    assert_eq!(plain.step(Factors::B, vec![1.009], CLIP).scaled, None);
    assert!(plain.step(Factors::B, vec![1.02], CLIP).scaled.is_some());
}

/// Means as long as the clip, round after round: no step of theirs is above the plan's largest,
/// and the last ones nearly reach it.
#[test]
fn honest_steps_stay_within_the_largest_and_come_near_it() {
    for name in [ServerOptimizerName::Fedavgm, ServerOptimizerName::Nesterov] {
        let mut optimizer = optimizer(0.5, server(name, 0.9));
        let mut last = 0.0;
        for _ in 0..100 {
            let step = optimizer.step(Factors::A, vec![CLIP], CLIP);
            assert_eq!(step.scaled, None, "{name:?}");
            (optimizer, last) = (step.after, step.values[0]);
        }
        assert!((4.99..5.001).contains(&last), "{name:?}: {last}");
    }
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    optimizer: ServerOptimizerName,
    rate: f32,
    momentum: Option<f64>,
    beta2: Option<f64>,
    tau: Option<f64>,
    max_step: Option<f32>,
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    factors: String,
    clip: f32,
    mean: Vec<u32>,
    scaled: bool,
    step: Vec<u32>,
}

/// Against NumPy, bit for bit: `aggregator/vectors/make_server_optimizers.py`.
#[test]
fn steps_are_those_of_another_implementation() {
    let golden = include_str!("../../vectors/server_optimizers.json");
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let (mut whole, mut scaled) = (0, 0);
    for case in golden.cases {
        let plan = ServerPlan {
            optimizer: case.optimizer,
            momentum: case.momentum,
            beta2: case.beta2,
            tau: case.tau,
            max_step: case.max_step,
        };
        let settings = plan.settings(case.rate).unwrap();
        let mut optimizer = ServerOptimizer::new(settings, layout(2, 3, 4));
        for (number, round) in case.rounds.into_iter().enumerate() {
            let factors = match round.factors.as_str() {
                "a" => Factors::A,
                "b" => Factors::B,
                _ => Factors::Both,
            };
            let mean: Vec<_> = round.mean.into_iter().map(f32::from_bits).collect();
            let step = optimizer.step(factors, mean, round.clip);
            let bits: Vec<_> = step.values.iter().map(|x| x.to_bits()).collect();
            assert_eq!(bits, round.step, "{plan:?}, round {number}");
            assert_eq!(step.scaled.is_some(), round.scaled, "{plan:?}");
            *if round.scaled {
                &mut scaled
            } else {
                &mut whole
            } += 1;
            optimizer = step.after;
        }
    }
    assert!(whole > 50 && scaled > 10, "{whole}, {scaled}");
}

fn state_of(round: u32) -> StateOf {
    StateOf {
        run: RunId([1; 16]),
        plan: Digest::from_bytes([2; 32]),
        round: RoundNumber(round),
        adapter: Digest::from_bytes([3; 32]),
    }
}

fn trained(name: ServerOptimizerName) -> (ServerOptimizer, ServerOptimizer) {
    let plan = ServerPlan {
        optimizer: name,
        ..ServerPlan::default()
    };
    let first = ServerOptimizer::new(plan.settings(0.1).unwrap(), layout(1, 2, 1));
    let after = first
        .step(Factors::Both, vec![0.25, -0.5, 0.125], CLIP)
        .after;
    (first, after)
}

#[test]
fn a_state_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        (ServerOptimizerName::Fedavgm, 3 * 4 + 32),
        (ServerOptimizerName::Nesterov, 3 * 4 + 32),
        (ServerOptimizerName::Fedadam, 2 * 3 * 4 + 32),
        (ServerOptimizerName::Fedyogi, 2 * 3 * 4 + 32),
    ] {
        let path = folder.path().join("state");
        let (first, after) = trained(name);
        assert_ne!(first, after);
        after
            .save(&Store::folder(folder.path()), &path, &state_of(1))
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
        assert_eq!(first.restored(&path, &state_of(1)).unwrap(), after);
    }
}

#[test]
fn an_optimizer_without_moments_leaves_no_file_and_asks_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (first, _) = trained(ServerOptimizerName::Fedavg);
    first
        .save(&Store::folder(folder.path()), &path, &state_of(1))
        .unwrap();
    assert!(!path.exists());
    assert_eq!(first.clone().restored(&path, &state_of(1)).unwrap(), first);
}

#[test]
fn a_state_that_is_missing_damaged_or_of_another_round_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (first, after) = trained(ServerOptimizerName::Fedadam);
    let restored = |path: &Path, of: &StateOf| first.clone().restored(path, of);
    let missing = restored(&path, &state_of(1)).unwrap_err();
    assert!(matches!(missing, StateError::Missing { .. }), "{missing}");

    after
        .save(&Store::folder(folder.path()), &path, &state_of(1))
        .unwrap();
    let others = [
        state_of(2),
        StateOf {
            run: RunId([9; 16]),
            ..state_of(1)
        },
        StateOf {
            plan: Digest::from_bytes([9; 32]),
            ..state_of(1)
        },
        StateOf {
            adapter: Digest::from_bytes([9; 32]),
            ..state_of(1)
        },
    ];
    for other in others {
        let error = restored(&path, &other).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{other:?}");
    }
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = restored(&path, &state_of(1)).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "byte {place}");
        fs::write(&path, &whole[..place]).unwrap();
        let error = restored(&path, &state_of(1)).unwrap_err();
        assert!(matches!(error, StateError::Length { .. }), "{place} bytes");
    }
    // A folder in its place cannot be read.
    let error = restored(folder.path(), &state_of(1)).unwrap_err();
    assert!(matches!(error, StateError::Io { .. }), "{error}");
    fs::write(&path, whole).unwrap();
    assert_eq!(restored(&path, &state_of(1)).unwrap(), after);
}
