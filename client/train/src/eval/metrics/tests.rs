//! The scores against sacrebleu, rouge-score and scikit-learn: the numbers in
//! `client/vectors/metrics.json`, which `examples/oracle/make_metrics.py` writes.

use serde_json::Value;

use super::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../../vectors/metrics.json")).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn near(got: f64, expected: &Value, what: &dyn std::fmt::Debug) {
    let expected = expected.as_f64().expect("a number");
    assert!(
        (got - expected).abs() < 1e-9,
        "{what:?}: {got}, expected {expected}"
    );
}

fn pairs(value: &Value) -> Vec<(&str, &str)> {
    list(value)
        .iter()
        .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect()
}

fn same_bleu(pairs: &[(&str, &str)], expected: &Value) {
    let bleu = corpus_bleu(pairs.iter().copied());
    near(bleu.score, &expected["score"], &pairs);
    near(bleu.brevity_penalty, &expected["brevity_penalty"], &pairs);
    for (got, expected) in bleu.precisions.iter().zip(list(&expected["precisions"])) {
        near(*got, expected, &pairs);
    }
    let tokens = (bleu.hypothesis_tokens, bleu.reference_tokens);
    let count = |name: &str| expected[name].as_u64().unwrap() as usize;
    assert_eq!(
        tokens,
        (count("hypothesis_tokens"), count("reference_tokens"))
    );
}

fn same_rouge((hypothesis, reference): (&str, &str), expected: &Value) {
    let rouge = Rouge::of(hypothesis, reference);
    for (index, score) in [rouge.rouge1, rouge.rouge2, rouge.rouge_l]
        .into_iter()
        .enumerate()
    {
        let expected = &expected[index];
        let what = (hypothesis, reference, index);
        near(score.precision, &expected[0], &what);
        near(score.recall, &expected[1], &what);
        near(score.f_measure, &expected[2], &what);
    }
}

#[test]
fn tokens_are_those_of_sacrebleu() {
    let golden = golden();
    for case in list(&golden["tokens"]) {
        let text = case[0].as_str().unwrap();
        let expected = case[1].as_str().unwrap();
        assert_eq!(bleu::tokenize(text).join(" "), expected, "{text:?}");
    }
}

#[test]
fn segments_score_as_in_python() {
    let golden = golden();
    let segments = list(&golden["segments"]);
    assert!(segments.len() > 30);
    let mut all = Vec::new();
    for segment in segments {
        let pair = pairs(&Value::Array(vec![segment["pair"].clone()]))
            .into_iter()
            .map(|(hypothesis, reference)| (hypothesis.to_owned(), reference.to_owned()))
            .next()
            .unwrap();
        same_bleu(&[(&pair.0, &pair.1)], &segment["bleu"]);
        same_rouge((&pair.0, &pair.1), &segment["rouge"]);
        all.push(pair);
    }
    let all: Vec<_> = all
        .iter()
        .map(|(hypothesis, reference)| (hypothesis.as_str(), reference.as_str()))
        .collect();
    same_bleu(&all, &golden["all_segments"]);
}

#[test]
fn corpora_score_as_in_python() {
    let golden = golden();
    for corpus in list(&golden["corpora"]) {
        let pairs = pairs(&corpus["pairs"]);
        same_bleu(&pairs, &corpus["bleu"]);
        for (pair, expected) in pairs.into_iter().zip(list(&corpus["rouge"])) {
            same_rouge(pair, expected);
        }
    }
}

#[test]
fn classes_score_as_in_python() {
    let golden = golden();
    for case in list(&golden["classes"]) {
        let pairs: Vec<(usize, usize)> = list(&case["pairs"])
            .iter()
            .map(|pair| [0, 1].map(|at| pair[at].as_u64().unwrap() as usize))
            .map(|[truth, got]| (truth, got))
            .collect();
        near(accuracy(&pairs), &case["accuracy"], &pairs);
        near(macro_f1(&pairs), &case["macro_f1"], &pairs);
    }
}

#[test]
fn nothing_scores_zero() {
    assert_eq!(corpus_bleu([]).score, 0.0);
    assert_eq!((accuracy(&[]), macro_f1(&[])), (0.0, 0.0));
    assert_eq!(Rouge::of("", ""), Rouge::default());
}
