//! Whole lives of a federation, drawn from seeds: faults of all kinds, and no promise broken. Three
//! variables of the environment make it a longer search: `FEDLORA_CASES`, how many cases; `FEDLORA_SEED`,
//! the first seed; and `FEDLORA_CASE`, the text of one case, which is carried out alone and printed.

use std::time::Instant;

use fedlora_tests::life::{Case, Figures, live, shrink};

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
        let lived = live(&case, first, true);
        println!("{}", lived.figures);
        assert!(lived.broken.is_empty(), "{:#?}", lived.broken);
        return;
    }
    let cases = variable("FEDLORA_CASES").unwrap_or(CASES);
    let begun = Instant::now();
    let mut figures = Figures::default();
    for (seed, done) in (first..).zip(1..=cases) {
        let case = Case::drawn(seed);
        let lived = live(&case, seed, false);
        figures += lived.figures;
        let broken = lived.broken;
        if !broken.is_empty() {
            println!("seed {seed} breaks a promise: {broken:#?}\n{case}");
            let smallest = shrink(&case, seed);
            let broken = live(&smallest, seed, false).broken;
            panic!(
                "seed {seed}: {broken:#?}\nagain: FEDLORA_SEED={seed} FEDLORA_CASE='{smallest}'"
            );
        }
        if done % TOLD == 0 {
            let seconds = begun.elapsed().as_secs_f64();
            println!(
                "{done} cases, {:.1} a second; {figures}",
                done as f64 / seconds
            );
        }
    }
    println!("{cases} cases: {figures}");
    // A search in which little happens finds little.
    assert!(
        figures.results >= cases / 2 && figures.deaths >= cases / 20,
        "{figures}"
    );
}

/// Carries out a case that once broke a promise.
#[track_caller]
fn is_mended(case: &str) {
    is_mended_from(0, case);
}

#[track_caller]
fn is_mended_from(seed: u64, case: &str) {
    let case = case.parse().expect("a case");
    let broken = live(&case, seed, false).broken;
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A disk that was full as a run was taken up set the run aside until the next start.
#[test]
fn a_run_that_is_taken_up_while_the_disk_is_full_goes_on_once_there_is_room() {
    is_mended("members 5 rounds 1; crash power 17; wait 1050; full; wait 36085");
    is_mended("members 3 rounds 3; wait 690; crash power 51; wait 921; full; wait 10944");
}

/// A member that came back a moment after enough others was shown the next round before the results that
/// it had missed, and left that round.
#[test]
fn a_member_that_comes_back_last_is_in_the_next_round() {
    is_mended("members 5 rounds 3; crash after 59; wait 2097");
    is_mended("members 5 rounds 3; wait 1245; crash power 9; wait 8520");
}

/// The aggregator died between keeping a run's end and removing its masked updates: they stayed.
#[test]
fn a_run_that_is_over_leaves_no_masked_updates() {
    for seed in [0, 104_673] {
        for after in 15..25 {
            is_mended_from(
                seed,
                &format!("members 5 rounds 1; changes 12; abort; crash after {after}; wait 711"),
            );
        }
    }
}

/// Uploads that cannot be stored are not acknowledged, and the operator reads why at once, not after the
/// time for updates as if no member had answered.
#[test]
fn a_full_disk_is_told_with_its_cause_before_any_time_is_over() {
    let case = "members 3 rounds 2; wait 690; full; wait 20000; free";
    let lived = live(&case.parse().expect("a case"), 0, false);
    assert!(lived.broken.is_empty(), "{:#?}", lived.broken);
    let told = |error: &String| error.contains("stands still") && error.contains("storage");
    assert!(lived.errors.iter().any(told), "{:#?}", lived.errors);
    assert_eq!(lived.figures.results, 2, "{}", lived.figures);
}

#[test]
fn a_clock_that_is_set_neither_ends_a_round_nor_holds_it_up() {
    is_mended("members 4 rounds 3; wait 700; jump 3600; wait 700; jump -7200; wait 700; jump 3600");
}

#[test]
fn a_case_is_read_as_it_is_written() {
    for seed in 0..200 {
        let case = Case::drawn(seed);
        assert_eq!(case.to_string().parse(), Ok(case), "seed {seed}");
    }
    for wrong in [
        "",
        "members 3",
        "members 3 rounds 1; dance",
        "members 3 rounds 1; cut",
    ] {
        assert!(wrong.parse::<Case>().is_err(), "{wrong}");
    }
}
