//! Rounds with made-up sums: what an aggregator that is killed between or within rounds finds in
//! its run's folder is all that it needs to step as if nothing had been.

use fedlora_protocol::fixed::{AUXILIARY_LANES, CohortWeight, GroupSum, LaneBits, RingSum};
use fedlora_protocol::fixed::{RobustRule, SumParts, WeightClass};
use fedlora_protocol::ids::{Attempt, GroupIndex, RunId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use fedlora_adapter::Factors;

use crate::store::Store;

use super::*;

const ROUNDS: u32 = 6;
const RUN: RunId = RunId([4; 16]);
const OPTIMIZERS: [&str; 5] = [
    "",
    "optimizer = \"fedavgm\"",
    "optimizer = \"nesterov\"",
    "optimizer = \"fedadam\"",
    // The largest step is short enough to scale some steps down.
    "optimizer = \"fedyogi\"\nmax_step = 0.02",
];

fn plan(server: &str, more: &str) -> RunPlan {
    RunPlan::from_toml(&format!(
        "rounds = {ROUNDS}\nmembers = 9\nseed = 1\n[adapter]\n\
         lora = {{ rank = 2, alpha = 4.0, targets = [\"q\", \"v\"] }}\n\
         [aggregation]\nclip = 1.0\ndropping = 0.0\nserver_learning_rate = 0.05\n{more}\n\
         [server]\n{server}\n"
    ))
    .unwrap()
}

fn first_adapter(plan: &RunPlan) -> Adapter {
    let config = &plan.adapter.lora;
    let layout = Adapter::layout_for(config, 2, |_, _| (8, 6)).unwrap();
    Adapter::initial(config.clone(), layout, plan.seed()).unwrap()
}

fn open(plan: &RunPlan, round: u32, adapter: &Adapter, part: &Layout) -> Open {
    let digest = Digest::from_bytes([1; 32]);
    Open {
        suite: 1,
        run: RUN,
        round: RoundNumber(round),
        attempt: Attempt(1),
        previous: digest,
        roster: digest,
        adapter: adapter.digest(),
        plan: plan.digest(),
        layout: part.digest(),
        factors: plan.adapter.factors.factors_in(RoundNumber(round)),
        clip: plan.aggregation.clip,
        bits: LaneBits::B24,
        neighbours: 8,
        threshold: 6,
        confirmations: 6,
        minimum: 5,
    }
}

/// The round whose sum has the votes of most members.
const VOTED: u32 = 4;

/// The sums of a round: of all nine members, or of three groups of three.
fn sum(round: u32, lanes: usize, rule: Option<RobustRule>) -> RoundSum {
    let mut rng = StdRng::seed_from_u64(round.into());
    let groups = rule.map_or(1, |_| 3);
    let members = 9 / groups;
    let group = |number: u16| {
        let mut lane = || (rng.next_u32() % 400_000).wrapping_sub(200_000) & LaneBits::B24.mask();
        let mut sum: Vec<_> = (0..lanes).map(|_| lane()).collect();
        sum.extend([0; AUXILIARY_LANES - 1]);
        sum.push(if round == VOTED {
            members as u32 - 1
        } else {
            0
        });
        GroupSum {
            group: GroupIndex(number),
            sum: RingSum(sum),
            cohort: CohortWeight::of(vec![WeightClass::ONE; members]),
            parts: SumParts {
                survivors: members,
                weight: members as u64,
            },
        }
    };
    RoundSum::new((0..groups as u16).map(group).collect(), rule)
}

/// What an aggregator has of a run between two rounds.
struct Between {
    state: GlobalState,
    former: Option<GlobalState>,
    head: Digest,
}

fn first_state(plan: &RunPlan) -> GlobalState {
    let adapter = first_adapter(plan);
    let layout = adapter.layout().clone();
    GlobalState {
        optimizer: ServerOptimizer::new(plan.server_settings().unwrap(), layout),
        adapter: Arc::new(adapter),
    }
}

/// What a fresh process makes of the run's folder.
fn from_files(plan: &RunPlan, directory: &RunDirectory) -> Between {
    let text = fs::read_to_string(directory.results()).unwrap();
    let mut results = text.lines().rev().map(|line| {
        let signed: Unverified<RoundResult> = serde_json::from_str(line).unwrap();
        signed.claimed().clone()
    });
    let state = |result: Option<&RoundResult>| {
        let Some(result) = result else {
            return first_state(plan);
        };
        let adapter = Arc::new(peft::load(&directory.adapter(result.round.0)).unwrap());
        assert_eq!(adapter.digest(), result.adapter);
        let path = directory.server_state(result.round.0);
        let of = StateOf::after(result, plan.digest());
        let optimizer = first_state(plan).optimizer.restored(&path, &of).unwrap();
        GlobalState { adapter, optimizer }
    };
    let newest = results.next().unwrap();
    Between {
        state: state(Some(&newest)),
        former: Some(state(results.next().as_ref())),
        head: newest.digest(),
    }
}

/// Runs all rounds; gives the last adapter and how many steps were scaled down.
fn run(plan: &RunPlan, rule: Option<RobustRule>, killed: bool) -> (Adapter, u32) {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::create(&Store::folder(folder.path()), RUN).unwrap();
    let key = IdentityKey::from_bytes(&[5; 32]);
    let layout = first_adapter(plan).layout().clone();
    let mut now = Between {
        state: first_state(plan),
        former: None,
        head: Digest::from_bytes([6; 32]),
    };
    let mut scaled = 0;
    for round in 1..=ROUNDS {
        let factors = plan.adapter.factors.factors_in(RoundNumber(round));
        let part = layout.subset(factors).unwrap();
        let open = open(plan, round, &now.state.adapter, &part);
        let (state, former, rollback) = (&now.state, now.former.as_ref(), &plan.rollback);
        let apply = |sum: &RoundSum| {
            let former = || Ok(former.cloned());
            apply(state, former, rollback, &part, &open, sum)
        };
        let sign = |sum: &RoundSum, applied: &Applied| {
            let participation = Participation {
                survivors: (0..9).map(MemberIndex).collect(),
                dropped: Vec::new(),
                transcript: Digest::from_bytes([7; 32]),
            };
            let (adapter, mean) = (&applied.state.adapter, &applied.mean);
            sign_result(&open, participation, adapter, sum, mean, now.head, &key)
        };
        if killed && round > 1 {
            // Killed before the result is appended: another attempt came to other files.
            let other = sum(100 + round, part.len(), rule);
            let applied = apply(&other).unwrap();
            let result = sign(&other, &applied);
            peft::save(&directory.adapter(round), &applied.state.adapter, "base").unwrap();
            let of = StateOf::after(result.unverified().claimed(), plan.digest());
            let path = directory.server_state(round);
            applied
                .state
                .optimizer
                .save(directory.store(), &path, &of)
                .unwrap();
            let found = from_files(plan, &directory);
            assert_eq!(found.state, now.state);
            assert_eq!(found.former, now.former);
        }
        let sum = sum(round, part.len(), rule);
        let applied = apply(&sum).unwrap();
        scaled += u32::from(applied.scaled.is_some());
        assert_eq!(applied.taken_back, round == VOTED);
        let verified = sign(&sum, &applied);
        let signed = verified.unverified().clone();
        store(&directory, &applied, plan, &signed).unwrap();
        forget_old_state(&directory, RoundNumber(round)).unwrap();
        now = if killed {
            from_files(plan, &directory)
        } else {
            Between {
                state: applied.state,
                former: Some(now.state),
                head: signed.claimed().digest(),
            }
        };
    }
    let states: Vec<_> = (1..=ROUNDS)
        .filter(|&round| directory.server_state(round).exists())
        .collect();
    let newest = if now.state.optimizer.has_state() {
        vec![ROUNDS - 1, ROUNDS]
    } else {
        Vec::new()
    };
    assert_eq!(states, newest, "only the newest states");
    (Adapter::clone(&now.state.adapter), scaled)
}

#[test]
fn an_aggregator_that_was_killed_steps_to_the_same_adapter() {
    let mut ends = Vec::new();
    for server in OPTIMIZERS {
        let plan = plan(server, "");
        let (whole, scaled) = run(&plan, None, false);
        let (killed, _) = run(&plan, None, true);
        assert_eq!(whole.digest(), killed.digest(), "{server}");
        assert_ne!(whole.digest(), first_adapter(&plan).digest());
        assert_eq!(scaled > 0, server.contains("max_step"), "{server}");
        ends.push(whole.digest());
    }
    ends.sort();
    ends.dedup();
    assert_eq!(
        ends.len(),
        OPTIMIZERS.len(),
        "each optimizer has its own end"
    );
}

/// The groups' means are combined first: the optimizer steps by the median.
#[test]
fn a_robust_plan_combines_the_means_before_the_optimizer_steps() {
    let robust = "robust = { rule = \"median\", groups = 3 }";
    let plan = plan(OPTIMIZERS[1], robust);
    let rule = Some(RobustRule::Median);
    let (whole, _) = run(&plan, rule, false);
    let (killed, _) = run(&plan, rule, true);
    assert_eq!(whole.digest(), killed.digest());

    let first = first_adapter(&plan);
    let factors = plan.adapter.factors.factors_in(RoundNumber(1));
    let part = first.layout().subset(factors).unwrap();
    let open = open(&plan, 1, &first, &part);
    let sum = sum(1, part.len(), rule);
    let (median, _) = sum.decode(open.bits, open.clip, &open.digest()).unwrap();
    let state = first_state(&plan);
    let applied = apply(&state, || Ok(None), &plan.rollback, &part, &open, &sum).unwrap();
    let mut stepped = first.clone();
    let step = state.optimizer.step(factors, median.delta, open.clip);
    stepped.add(&part, &step.values).unwrap();
    assert_eq!(*applied.state.adapter, stepped);
    assert_eq!(applied.state.optimizer, step.after);
}

/// Whatever the mean is, the votes of most take the step before back; those of a half do not.
#[test]
fn votes_take_the_step_before_back() {
    let plan = plan(OPTIMIZERS[1], "");
    let former = first_state(&plan);
    let layout = former.adapter.layout().clone();
    let part = layout.subset(Factors::B).unwrap();
    let mut state = former.clone();
    let step = state
        .optimizer
        .step(Factors::B, vec![0.01; part.len()], 1.0);
    Arc::make_mut(&mut state.adapter)
        .add(&part, &step.values)
        .unwrap();
    state.optimizer = step.after;
    // The round trains A; the step that is taken back was of B.
    let trained = layout.subset(Factors::A).unwrap();
    let mut open = open(&plan, VOTED, &state.adapter, &trained);
    open.factors = Factors::A;
    let voted = sum(VOTED, trained.len(), None);
    let apply = |plan: &RunPlan, former: Option<&GlobalState>| {
        let former = || Ok(former.cloned());
        apply(&state, former, &plan.rollback, &trained, &open, &voted).unwrap()
    };
    let back = apply(&plan, Some(&former));
    assert!(back.taken_back);
    assert_eq!(back.state.optimizer, former.optimizer);
    let adapters = [&former, &state, &back.state].map(|one| one.adapter.values());
    for ((before, after), back) in adapters[0].iter().zip(adapters[1]).zip(adapters[2]) {
        let expected = f64::from(*after) + 0.9375 * (f64::from(*before) - f64::from(*after));
        assert_eq!(*back, expected as f32);
    }
    let digests = [&former, &state, &back.state].map(|one| one.adapter.digest());
    assert!(digests[0] != digests[2] && digests[1] != digests[2]);

    let mut unheard = plan.clone();
    unheard.rollback.votes = 1.0;
    for kept in [apply(&unheard, Some(&former)), apply(&plan, None)] {
        assert!(!kept.taken_back);
        assert_ne!(kept.state.adapter.digest(), digests[2]);
    }
}
