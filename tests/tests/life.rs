//! Whole lives of a federation, drawn from seeds: faults of all kinds, and no promise broken. Three
//! variables of the environment make it a longer search: `FEDLORA_CASES`, how many cases; `FEDLORA_SEED`,
//! the first seed; and `FEDLORA_CASE`, the text of one case, which is carried out alone and printed.

use std::time::Instant;

use fedlora_tests::life::{Case, live, shrink};

/// Cases by default: some seconds.
const CASES: u64 = 200;
/// How often a longer search says how far it is.
const TOLD: u64 = 500;

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn drawn_lives_break_no_promise() {
    let first = variable("FEDLORA_SEED").unwrap_or(0);
    if let Some(case) = variable::<Case>("FEDLORA_CASE") {
        let broken = live(&case, first, true);
        assert!(broken.is_empty(), "{broken:#?}");
        return;
    }
    let cases = variable("FEDLORA_CASES").unwrap_or(CASES);
    let begun = Instant::now();
    for (seed, done) in (first..).zip(1..=cases) {
        let case = Case::drawn(seed);
        let broken = live(&case, seed, false);
        if !broken.is_empty() {
            println!("seed {seed} breaks a promise: {broken:#?}\n{case}");
            let smallest = shrink(&case, seed);
            let broken = live(&smallest, seed, false);
            panic!(
                "seed {seed}: {broken:#?}\nagain: FEDLORA_SEED={seed} FEDLORA_CASE='{smallest}'"
            );
        }
        if done % TOLD == 0 {
            let seconds = begun.elapsed().as_secs_f64();
            println!("{done} cases, {:.1} a second", done as f64 / seconds);
        }
    }
}

#[test]
fn a_case_is_read_as_it_is_written() {
    for seed in 0..200 {
        let case = Case::drawn(seed);
        assert_eq!(case.to_string().parse(), Ok(case), "seed {seed}");
    }
    for wrong in ["", "members 3", "members 3 rounds 1; dance", "members 3 rounds 1; cut"] {
        assert!(wrong.parse::<Case>().is_err(), "{wrong}");
    }
}
