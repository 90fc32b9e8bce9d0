//! A long run in which, in each round, the aggregator or a member is killed at a random moment and started
//! again at once. `FEDLORA_ENDURANCE_ROUNDS` says how many rounds, `FEDLORA_ENDURANCE_SEED` who is killed
//! when.

use std::fs;
use std::time::Duration;

use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, StoreKind, program, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Rounds where nothing else is said.
const ROUNDS: u64 = 6;
/// The bounds of what a round is taken to last.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

fn plan(rounds: u64) -> String {
    format!(
        "rounds = {rounds}\nmembers = 5\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [server]\noptimizer = \"fedavgm\"\n\
         [personalisation]\nmethod = \"none\"\nshadow = false\n\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 20\n"
    )
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => default,
    }
}

/// The programs of a federation.
struct Programs<'a> {
    federation: &'a Federation,
    plan: String,
    aggregator: Running,
    members: Vec<Running>,
}

impl<'a> Programs<'a> {
    fn start(federation: &'a Federation, plan: String) -> Self {
        let mut aggregator = serve(federation, &plan);
        aggregator.wait_for("waiting for members");
        for member in INSTITUTIONS {
            federation.join(member);
        }
        let members = INSTITUTIONS.map(|member| federation.start(member));
        Self {
            federation,
            plan,
            aggregator,
            members: members.into(),
        }
    }

    /// Kills the aggregator (0) or a member (from 1), and starts it again.
    fn kill(&mut self, victim: usize) {
        match victim.checked_sub(1) {
            None => {
                let again = || serve(self.federation, &self.plan);
                kill_and(&mut self.aggregator, again);
            }
            Some(place) => {
                let again = || self.federation.start(INSTITUTIONS[place]);
                kill_and(&mut self.members[place], again);
            }
        }
    }

    /// Rounds with a signed result.
    fn rounds_done(&self) -> u64 {
        let path = self.federation.run().map(|run| run.join("results.jsonl"));
        let text = path
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default();
        text.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// Waits until so many rounds are done.
    fn wait_for_rounds(&self, rounds: u64) {
        let log = || {
            let members = self.members.iter().map(Running::stderr);
            let mut logs: Vec<_> = members.collect();
            logs.push(self.aggregator.stderr());
            logs.join("\n---\n")
        };
        let done = || (self.rounds_done() >= rounds).then_some(());
        wait_for(&format!("round {rounds}"), log, done);
    }
}

fn kill_and(program: &mut Running, again: impl FnOnce() -> Running) {
    program.kill_now();
    *program = again();
}

fn serve(federation: &Federation, plan: &str) -> Running {
    let mut command = federation.serving(plan);
    Running::start("the aggregator", command.arg("--keep-for-audit"))
}

#[test]
fn no_round_is_lost_whoever_is_killed_in_it() {
    let rounds = number("FEDLORA_ENDURANCE_ROUNDS", ROUNDS);
    let seed = number("FEDLORA_ENDURANCE_SEED", 1);
    let mut rng = StdRng::seed_from_u64(seed);
    let federation = Federation::new();
    let mut programs = Programs::start(&federation, plan(rounds));
    programs.wait_for_rounds(1);
    // About as long as a round takes that nobody interrupts: the kill is to fall into it.
    let mut usual = Duration::from_millis(300);
    let mut kills = [0_u64; 2];
    loop {
        let before = programs.rounds_done();
        std::thread::sleep(usual.mul_f64(rng.random_range(0.0..1.0)));
        let done = programs.rounds_done();
        usual = match done > before {
            true => usual.mul_f64(0.7).max(SHORTEST),
            false => usual.mul_f64(1.1).min(LONGEST),
        };
        // Once it is over, an aggregator that is started again begins another run.
        if done + 2 > rounds {
            break;
        }
        let victim = match rng.random_bool(0.5) {
            true => 0,
            false => rng.random_range(1..=INSTITUTIONS.len()),
        };
        programs.kill(victim);
        kills[victim.min(1)] += 1;
        programs.wait_for_rounds(done + 1);
    }
    programs.wait_for_rounds(rounds);
    let Programs {
        aggregator,
        members,
        ..
    } = programs;
    for member in members {
        let document = member.finish().done().document();
        assert_eq!(document["rounds"], rounds, "seed {seed}");
    }
    aggregator.finish().done();
    println!(
        "seed {seed}: {rounds} rounds, aggregator killed {}, members {}",
        kills[0], kills[1]
    );
    assert_whole(&federation, rounds);
}

/// All rounds are there, each sum is what its updates add up to, and nothing is left over.
fn assert_whole(federation: &Federation, rounds: u64) {
    let results = federation.results();
    let numbers: Vec<_> = results
        .iter()
        .map(|result| result["round"].clone())
        .collect();
    let expected: Vec<_> = (1..=rounds).map(Value::from).collect();
    assert_eq!(numbers, expected);
    for result in &results {
        let survivors = result["survivors"].as_array().expect("survivors");
        assert!(
            survivors.len() >= 4,
            "more than the killed one is missing: {result}"
        );
    }
    let operate = |arguments: &[&str]| {
        let mut command = program("fedlora-aggregator");
        command.args(["audit"]).args(arguments);
        command.args(["--format", "json", "--dir"]);
        Finished::of("audit", command.arg(federation.operator()))
            .done()
            .document()
    };
    let verified = operate(&["verify"]);
    assert_eq!(verified["rounds"], rounds);
    // From what was kept, with no kill in between: the same sums and adapters, to the bit.
    for round in 1..=rounds {
        let report = operate(&["replay", "--round", &round.to_string()]);
        assert_eq!(report["ok"], true, "round {round}: {report}");
    }
    let outcome = federation.outcome();
    for member in INSTITUTIONS {
        let adapter = federation.adapter(member).digest().to_string();
        assert_eq!(outcome, json!(adapter), "{member}");
        let runs = Finished::of(
            "runs",
            &mut federation.member(member, &["runs", "--format", "json"]),
        );
        let document = runs.done().document();
        assert_eq!(document["runs"][0]["words"], verified["words"], "{member}");
    }
    let run = federation.run().expect("one run");
    let uploads = fs::read_dir(run.join("uploads")).expect("the folder is there");
    assert_eq!(uploads.count(), 0, "masked updates outlive their rounds");
    assert!(!run.join("audit/open").exists(), "the run is not over");
    if StoreKind::asked().is_some() {
        let checked = federation.checked(&federation.operator());
        assert_eq!(checked["differences"], json!([]));
        for none in ["loose_objects", "unknown_objects"] {
            assert_eq!(checked[none], 0, "{none}");
        }
        // Those alone that are kept for the audit, one for each survivor.
        let survivors = |result: &Value| result["survivors"].as_array().map_or(0, Vec::len);
        let kept: usize = results.iter().map(survivors).sum();
        assert_eq!(checked["masked_updates"], kept);
    }
}
