//! The page of made-up documents: what it says, and how a browser shows it.

use std::collections::BTreeMap;

use fedlora_protocol::plan::RunPlan;

use super::curves;
use super::gains::Gain;
use super::page;
use super::summary::{sentences, verdict};
use crate::simulation::report::{
    Choice, ClassScore, ClassificationFigures, CurveFigures, Document, EvaluationFigures,
    GenerationFigures, MemberFigures, PoisonFigures, RoundFigures, Scores,
};

mod browser;

const NAMES: [&str; 6] = [
    "bank-identity",
    "cloud-storage",
    "device-vendor",
    "hospital-privacy",
    "kernel-lab",
    "web-soc",
];

/// A document of made-up figures; `full` has everything that a run may give.
fn document(members: usize, rounds: u32, full: bool) -> Document {
    let names: Vec<String> = match members {
        6 => NAMES.map(str::to_owned).to_vec(),
        members => (0..members).map(|one| format!("member-{one:03}")).collect(),
    };
    // Between -1 and 1, different for each member, the same each time.
    let noise = |place: usize| ((place * 7919 + 13) % 211) as f64 / 105.0 - 1.0;
    let scores = |level: f64| {
        let by_member: BTreeMap<_, _> = names
            .iter()
            .enumerate()
            .map(|(place, name)| (name.clone(), level * (1.0 + 0.25 * noise(place))))
            .collect();
        Scores {
            pooled: level * 1.04,
            by_member,
        }
    };
    let at = |round: u32| 14.0 + 60.0 * (-f64::from(round) / 2.5).exp();
    let plan = RunPlan::from_toml(&format!(
        "rounds = {rounds}\nmembers = {members}\nseed = 7\n\
         [base]\nname = \"fedlora-cwe-base\"\n\
         [adapter.lora]\nrank = 8\nalpha = 16.0\ntargets = [\"q\", \"v\"]\n"
    ))
    .expect("a plan");
    let dropped = |round: u32| match round {
        2 => vec![names[members - 1].clone()],
        _ => Vec::new(),
    };
    Document {
        label: None,
        base: "fedlora-cwe-base".into(),
        seed: 7,
        factors: plan.adapter.factors,
        robust: None,
        plan,
        partition: "the embedded data".into(),
        newcomers: Vec::new(),
        poisoned: Vec::new(),
        members: names
            .iter()
            .enumerate()
            .map(|(place, name)| MemberFigures {
                name: name.clone(),
                training_examples: 100 + 37 * place % 400,
                validation_examples: 20,
                held_out_examples: 20,
                rounds,
                chosen: full.then_some(match place % 5 {
                    0 | 1 => Choice::Global,
                    4 => Choice::Local,
                    _ => Choice::Personal,
                }),
                gain_percent: full.then_some(4.0 + 6.5 * noise(place)),
            })
            .collect(),
        rounds: (1..=rounds)
            .map(|round| RoundFigures {
                round,
                attempts: 1,
                survivors: names
                    .iter()
                    .filter(|name| !dropped(round).contains(name))
                    .cloned()
                    .collect(),
                dropped: dropped(round),
                train_loss: Some(at(round).ln() as f32 - 0.1),
                eval_loss: Some(at(round - 1).ln() as f32),
                votes: Some(0),
                taken_back: false,
                total_weight: 900,
                bytes_up: 260_000 * members as u64,
                bytes_down: 660_000 * members as u64 + 3000 * u64::from(round),
                sum_exact: Some(true),
                drift: full.then_some(0.02 * f64::from(round).sqrt()),
                seconds: [
                    ("train", 3.1),
                    ("mask", 0.03),
                    ("upload", 0.08),
                    ("aggregate", 4.9),
                    ("total", 7.3),
                ]
                .into_iter()
                .map(|(stage, took)| (stage.to_owned(), took + 0.01 * f64::from(round)))
                .collect(),
            })
            .collect(),
        stopped_early: false,
        best_round: rounds,
        curves: match full {
            true => (1..=rounds)
                .map(|round| CurveFigures {
                    round,
                    held_out: scores(at(round)),
                })
                .collect(),
            false => Vec::new(),
        },
        eval: EvaluationFigures {
            base: scores(at(0)),
            federated: scores(at(rounds)),
            local_only: full.then(|| scores(15.3)),
            centralised: full.then(|| scores(13.6)),
            personalised: full.then(|| scores(13.3)),
            centralised_then_local: full.then(|| scores(13.0)),
        },
        classification: full.then(|| classified(&names)),
        generation: full.then(|| answered(&names)),
        adapter_dir: "out/adapter".into(),
        wall_seconds: 85.8,
    }
}

/// Each way's score, higher from one to the next; the last member has none.
fn shares<T>(names: &[String], of: impl Fn(f64) -> T) -> EvaluationFigures<Scores<T>> {
    let scores = |share: f64| Scores {
        pooled: of(share),
        by_member: names[1..]
            .iter()
            .map(|name| (name.clone(), of(share / 2.0)))
            .collect(),
    };
    EvaluationFigures {
        base: scores(0.1),
        local_only: Some(scores(0.2)),
        federated: scores(0.3),
        personalised: Some(scores(0.4)),
        centralised: Some(scores(0.5)),
        centralised_then_local: Some(scores(0.6)),
    }
}

fn classified(names: &[String]) -> ClassificationFigures {
    let scores = shares(names, |share| ClassScore {
        records: 184,
        accuracy: share + 0.015,
        macro_f1: share,
    });
    ClassificationFigures {
        labels: 292,
        records: 184,
        other_records: 1,
        too_long: 0,
        tf_idf_alone: scores.base.clone(),
        tf_idf_centralised: scores.federated.clone(),
        scores,
    }
}

fn answered(names: &[String]) -> GenerationFigures {
    GenerationFigures {
        records: 120,
        label_records: 184,
        too_long: 0,
        max_tokens: 128,
        rouge_l: shares(names, |share| share),
    }
}

#[test]
fn tasks_have_a_table_with_all_ways_and_members() {
    let text = page(&document(6, 4, true));
    for shown in [
        "184 held-out records with one of 292 labels were classified; 1 has another response",
        "<th scope=\"row\">all: accuracy</th><td>11.5\u{a0}%</td><td>21.5\u{a0}%</td>",
        "ROUGE-L of 120 greedy responses",
    ] {
        assert!(text.contains(shown), "{shown}");
    }
    let (_, labels) = text.split_once("<h2>Labels</h2>").unwrap();
    let (labels, _) = labels.split_once("</section>").unwrap();
    // A head and a row for each of 6 members, for all, and for the accuracy; 8 ways.
    assert_eq!(labels.matches("<tr>").count(), 9);
    assert_eq!(labels.matches("<td>").count(), 64);
    assert_eq!(labels.matches("\u{2013}</td>").count(), 8);
    let text = page(&document(6, 4, false));
    assert!(!text.contains("<h2>Labels</h2>") && !text.contains("<h2>Free text</h2>"));
}

#[test]
fn an_early_end_and_another_result_are_told() {
    let mut one = document(6, 4, true);
    let told = |one: &Document| sentences(one, &Gain::of(one)).join(" ");
    assert!(!told(&one).contains("The run"));
    one.plan.rounds = 9;
    one.best_round = 2;
    let told = told(&one);
    assert!(told.contains("The run ended after round 4 of 9"), "{told}");
    assert!(
        told.contains("The run's result is the adapter of round 2"),
        "{told}"
    );
    // The last round keeps its own scores.
    let course = curves::course(&one);
    assert_eq!(course.len(), 5);
    assert_eq!(course[4].1.pooled, one.curves[3].held_out.pooled);
}

#[test]
fn the_heading_counts_who_is_better_off() {
    let mut one = document(6, 4, true);
    for (place, member) in one.members.iter_mut().enumerate() {
        member.gain_percent = Some([5.3, 2.0, 0.01, -3.2, 1.0, 0.6][place]);
        member.chosen = Some(Choice::Personal);
    }
    let gains = Gain::of(&one);
    assert_eq!(
        verdict(&one, &gains),
        "4 of 6 members are better off than alone"
    );
    let words: Vec<String> = gains.iter().map(Gain::words).collect();
    assert_eq!(
        words[0],
        "5.3\u{a0}% better than alone, keeps its personal adapter"
    );
    assert_eq!(words[4], "as good as alone, keeps its personal adapter");
    assert!(
        words[5].starts_with("3.2\u{a0}% worse than alone"),
        "{words:?}"
    );
    let text = sentences(&one, &gains).join(" ");
    assert!(text.contains("hospital-privacy is worse off."), "{text}");
    assert!(text.contains("web-soc was missing in round 2"), "{text}");
    assert!(text.contains("every sum was exact"), "{text}");
}

#[test]
fn a_run_without_baselines_is_compared_with_the_base() {
    let one = document(6, 4, false);
    let gains = Gain::of(&one);
    assert!(
        gains
            .iter()
            .all(|gain| gain.words().ends_with("better than the base"))
    );
    assert!(verdict(&one, &gains).contains(" falls from "));
    let text = sentences(&one, &gains).join(" ");
    assert!(text.contains("No member was trained alone"), "{text}");
}

#[test]
fn a_sum_that_is_not_exact_is_not_passed_over() {
    let mut one = document(6, 4, true);
    one.rounds[1].sum_exact = Some(false);
    let text = sentences(&one, &Gain::of(&one)).join(" ");
    assert!(text.contains("NOT every sum was exact"), "{text}");
    assert!(page(&one).contains("<td>NO</td>"));
}

#[test]
fn text_from_outside_is_escaped_everywhere() {
    let evil = "<script>alert('1')</script>\"&";
    let mut one = document(6, 3, true);
    one.base = evil.into();
    one.partition = evil.into();
    one.plan.base.name = evil.into();
    one.poisoned = vec![PoisonFigures {
        member: evil.into(),
        how: evil.into(),
    }];
    let old = std::mem::replace(&mut one.members[0].name, evil.into());
    for round in &mut one.rounds {
        round.dropped = vec![evil.into()];
        round.seconds.insert(evil.into(), 1.0);
    }
    let eval = &mut one.eval;
    let scores = [
        Some(&mut eval.base),
        Some(&mut eval.federated),
        eval.local_only.as_mut(),
    ];
    let curves = one.curves.iter_mut().map(|curve| &mut curve.held_out);
    for scores in scores.into_iter().flatten().chain(curves) {
        let value = scores.by_member.remove(&old).expect("a score");
        scores.by_member.insert(evil.into(), value);
    }
    let text = page(&one);
    assert!(!text.contains("<script"), "markup came through");
    assert!(!text.contains("alert('1')"));
    assert!(text.matches("&lt;script&gt;").count() > 10);
}

#[test]
fn the_page_asks_for_nothing_and_each_id_is_its_own() {
    for one in [
        document(6, 4, true),
        document(100, 40, true),
        document(3, 1, false),
    ] {
        let text = page(&one);
        assert!(text.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
        for forbidden in [
            "<script", "http:", "https:", "url(", "@import", "<link", "<img", "src=",
        ] {
            let bare = text.replace("default-src 'none'; style-src", "");
            assert!(!bare.contains(forbidden), "the page has {forbidden}");
        }
        let mut ids: Vec<_> = text.split(" id=\"").skip(1).collect();
        ids.iter_mut()
            .for_each(|rest| *rest = rest.split('"').next().unwrap_or_default());
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id stands twice");
        assert!(
            !text.contains("NaN") && !text.contains("inf"),
            "a number is none"
        );
    }
}

#[test]
fn many_members_have_a_band_and_narrow_bars() {
    let text = page(&document(100, 40, true));
    assert!(text.contains("class=\"band\""));
    assert!(!text.contains("class=\"gains\""));
    let few = page(&document(6, 40, true));
    assert!(few.contains("class=\"gains\"") && few.contains("class=\"faint\""));
    assert!(text.len() < 600_000, "{} bytes", text.len());
}
