//! Against scikit-learn, by the numbers of `examples/oracle/make_linear.py`, and texts that
//! have no such numbers.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

fn golden() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/linear.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Texts with their labels.
fn examples(case: &Value, part: &str) -> Vec<(String, usize)> {
    let pair = |pair: &Value| {
        let label = pair[1].as_u64().unwrap() as usize;
        (pair[0].as_str().unwrap().to_owned(), label)
    };
    case[part].as_array().unwrap().iter().map(pair).collect()
}

fn borrowed(examples: &[(String, usize)]) -> Vec<(&str, usize)> {
    let each = examples.iter();
    each.map(|(text, label)| (text.as_str(), *label)).collect()
}

#[test]
fn features_are_those_of_scikit_learn() {
    for case in golden()["cases"].as_array().unwrap() {
        let training = examples(case, "training");
        let features = TfIdf::fit(training.iter().map(|(text, _)| text.as_str()));
        assert_eq!(features.len() as u64, case["features"].as_u64().unwrap());
        let held_out = examples(case, "held_out");
        for ((text, _), expected) in held_out.iter().zip(case["rows"].as_array().unwrap()) {
            let row = features.row(text);
            let expected = expected.as_object().unwrap();
            assert_eq!(row.len(), expected.len(), "{text}");
            for (word, value) in expected {
                let number = features.number(word).unwrap();
                let (_, found) = row.iter().find(|(one, _)| *one == number).unwrap();
                assert!((found - value.as_f64().unwrap()).abs() < 1e-12, "{word}");
            }
        }
    }
}

#[test]
fn probabilities_are_those_of_scikit_learn() {
    for case in golden()["cases"].as_array().unwrap() {
        let training = examples(case, "training");
        let model = TextClassifier::fit(&borrowed(&training)).unwrap();
        let expected = case["probabilities"].as_array().unwrap();
        let held_out = examples(case, "held_out");
        assert!(!held_out.is_empty() && held_out.len() == expected.len());
        for ((text, _), expected) in held_out.iter().zip(expected) {
            let found = model.probabilities(text);
            let expected = expected.as_array().unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                assert!((found - expected).abs() < 2e-4, "{found} for {expected}");
            }
        }
    }
}

#[test]
fn labels_may_be_any_numbers_and_words_unknown() {
    let examples = [
        ("red apple", 70),
        ("red cherry", 70),
        ("red currant", 70),
        ("green pear", 9),
        ("green leaf", 9),
    ];
    let model = TextClassifier::fit(&examples).unwrap();
    assert_eq!(model.predict("a red berry"), 70);
    assert_eq!(model.predict("GREEN"), 9);
    // Without a known word the intercept decides: most are 70.
    assert_eq!(model.predict("?"), 70);
}

#[test]
fn one_label_is_always_predicted_and_without_texts_there_is_no_model() {
    let model = TextClassifier::fit(&[("x", 3), ("y y", 3)]).unwrap();
    assert_eq!(model.predict("whatever"), 3);
    assert!(TextClassifier::fit(&[]).is_none());
}
