//! Classification and free text on the embedded base.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::eval::metrics::{Rouge, accuracy, corpus_bleu, macro_f1};
use crate::{Device, Engine};
use fedlora_data::{Dataset, TextPipeline};

const MAX_NEW: NonZeroUsize = NonZeroUsize::new(8).unwrap();

static BASE: LazyLock<(Engine, TextPipeline)> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
    (
        Engine::open(&folder, &Device::Cpu).unwrap(),
        TextPipeline::from_folder(&folder).unwrap(),
    )
});

fn questions(answers: &[&str]) -> Vec<Question> {
    let lines: Vec<String> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| {
            let instruction = format!("Is weakness {index} severe?");
            json!({"instruction": instruction, "output": answer}).to_string()
        })
        .collect();
    let records = Dataset::from_lines(lines.join("\n").as_bytes(), "made").unwrap();
    Question::of_records(&records).unwrap()
}

fn on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The sum of the log-likelihoods of a record's response, from the whole forward pass.
fn likelihood(question: &Question, response: &str) -> f64 {
    let example = BASE.1.chat(&question.answered(response)).unwrap();
    let score = BASE.0.evaluate(None, &[example]).unwrap();
    -score.loss * score.tokens as f64
}

#[test]
fn the_label_of_the_highest_likelihood_is_chosen() {
    // One label begins another.
    let names = ["no", "no, never", "yes"];
    let answers: Vec<&str> = (0..9).map(|index| names[index % 3]).collect();
    let questions = questions(&answers);
    let labels = LabelSet::of_responses(&questions).unwrap();
    assert_eq!(labels.labels(), names);
    let decoder = BASE.0.decoder(None).unwrap();
    let made = classify(&decoder, &BASE.1, &questions, &labels, 4096, &mut on).unwrap();
    let pairs: Vec<(usize, usize)> = questions
        .iter()
        .zip(labels.truth())
        .map(|(question, &truth)| {
            let scores: Vec<f64> = names
                .iter()
                .map(|name| likelihood(question, name))
                .collect();
            let best = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            (truth, best.unwrap())
        })
        .collect();
    assert_eq!((made.records, made.too_long), (9, 0));
    assert_eq!(made.accuracy, accuracy(&pairs));
    assert_eq!(made.macro_f1, macro_f1(&pairs));
    assert!(decoder.is_empty());
}

/// Labels as the embedded data has them: they branch at every digit, and one begins another.
#[test]
fn the_search_finds_what_scoring_every_label_finds() {
    let names: Vec<String> = (0..24)
        .map(|index| {
            format!(
                "CWE-{}: Improper Handling of Case {index}",
                7 * index * index
            )
        })
        .chain(["CWE-7".to_owned(), "none".to_owned()])
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let questions = questions(&names);
    let labels = LabelSet::of_responses(&questions).unwrap();
    let decoder = BASE.0.decoder(None).unwrap();
    for question in &questions[..4] {
        let tree = LabelTree::new(&BASE.1, question, &labels, 4096).unwrap();
        let found = tree.unwrap().likeliest(&decoder).unwrap();
        let scores: Vec<f64> = labels
            .labels()
            .iter()
            .map(|label| likelihood(question, label))
            .collect();
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!(scores[found] > best - 1e-3, "{} of {best}", scores[found]);
    }
}

#[test]
fn records_that_are_too_long_are_counted_and_not_scored() {
    let questions = questions(&["yes", "no", "yes", "no"]);
    let labels = LabelSet::of_responses(&questions).unwrap();
    let decoder = BASE.0.decoder(None).unwrap();
    let error = classify(&decoder, &BASE.1, &questions, &labels, 5, &mut on).unwrap_err();
    assert!(error.to_string().contains("none of 4 records"), "{error}");
}

#[test]
fn closed_sets_are_found_and_free_text_is_not_taken_for_one() {
    let set = LabelSet::detect(&questions(&["yes", "no", " yes", "no\n", "no", "yes"])).unwrap();
    assert_eq!(set.labels(), ["no", "yes"]);
    assert_eq!(set.truth(), [1, 0, 1, 0, 0, 1]);
    // Too few of each, all the same, several lines, too long.
    let long = "x".repeat(41);
    let long = long.as_str();
    for open in [
        vec!["a", "b", "a", "b", "c"],
        vec!["yes"; 9],
        vec!["a\nb", "a\nb", "a\nb", "c", "c", "c"],
        vec![long, long, long, "c", "c", "c"],
    ] {
        assert_eq!(LabelSet::detect(&questions(&open)), None, "{open:?}");
    }
    assert!(LabelSet::detect(&[]).is_none());
}

#[test]
fn given_labels_must_cover_the_responses() {
    let questions = questions(&["yes", "SECRET", "no", "SECRET"]);
    let given = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        LabelSet::given(&labels, &questions)
    };
    let other = given(&["yes", "no"]).unwrap_err();
    let expected = LabelError::Other {
        place: "made:2".to_owned(),
        count: 2,
    };
    assert_eq!(other, expected);
    assert!(!other.to_string().contains("SECRET"));
    for bad in [&["yes"][..], &[], &["yes", "yes"], &["yes", " "]] {
        assert_eq!(given(bad), Err(LabelError::Given));
    }
    let good = given(&["unused", "SECRET", "no", "yes"]).unwrap();
    assert_eq!(good.truth(), [3, 1, 2, 1]);
    assert!(!format!("{good:?} {questions:?}").contains("SECRET"));
}

#[test]
fn responses_are_scored_as_the_metrics_do() {
    let questions = questions(&["The weakness is severe.", "It is not."]);
    let decoder = BASE.0.decoder(None).unwrap();
    let made = respond(&decoder, &BASE.1, &questions, MAX_NEW, &mut on).unwrap();
    let options = crate::decode::GenerateOptions {
        max_tokens: MAX_NEW,
        sampling: crate::decode::Sampling::Greedy,
        ends: BASE.1.end_tokens().collect(),
        stops: Vec::new(),
    };
    let texts: Vec<String> = questions
        .iter()
        .map(|question| {
            let prompt = BASE.1.prompt(question.turns()).unwrap();
            let mut on = |_: &str| ControlFlow::Continue(());
            let made = crate::decode::generate(decoder.fork(), &BASE.1, &prompt, &options, &mut on);
            made.unwrap().text
        })
        .collect();
    let pairs: Vec<(&str, &str)> = texts
        .iter()
        .zip(&questions)
        .map(|(text, question)| (text.as_str(), question.reference()))
        .collect();
    assert_eq!(made.bleu, corpus_bleu(pairs.iter().copied()));
    let mean = pairs
        .iter()
        .map(|(text, reference)| Rouge::of(text, reference).rouge_l.f_measure)
        .sum::<f64>()
        / 2.0;
    assert_eq!(made.rouge_l, mean);
    assert_eq!((made.records, made.too_long), (2, 0));
    assert!(made.tokens > 0);
}

#[test]
fn records_without_a_response_are_refused_by_place() {
    let text = Dataset::from_lines(br#"{"text": "SECRET"}"#, "plain").unwrap();
    let error = Question::of_records(&text).unwrap_err().to_string();
    assert!(error.starts_with("plain:1") && !error.contains("SECRET"));
    let open = json!({"messages": [
        {"role": "assistant", "content": "SECRET"}, {"role": "user", "content": "SECRET"},
    ]});
    let open = Dataset::from_lines(open.to_string().as_bytes(), "chat").unwrap();
    let error = Question::of_records(&open).unwrap_err();
    let place = "chat:1".to_owned();
    assert_eq!(error, QuestionError::NoResponse { place });
}
