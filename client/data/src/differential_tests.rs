//! Generated templates, tokenizer settings and records: the text, the ids and the marked tokens are
//! those of Transformers (`examples/oracle/differential.py`), or a known refusal; and a tokenizer built
//! as Gemma's (`examples/oracle/gemma_tokenizer.py`).

use std::fs;

use serde::Deserialize;
use serde_json::Value;

use super::super::chat::Chat;
use super::super::records::{Content, parse_line};
use super::*;

#[derive(Deserialize)]
struct Golden {
    tokenizers: Value,
    cases: Vec<Case>,
}

impl Golden {
    fn assert_same(&self) {
        let mut wrong = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            for difference in case.differences(&self.tokenizers) {
                let config = &case.config;
                wrong.push(format!(
                    "{number}: {}\n  {config}\n  {difference}",
                    case.template
                ));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} differ\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    config: Value,
    map: Value,
    template: String,
    record: String,
    text: String,
    text_ids: Vec<u32>,
    rendered: Option<String>,
    #[serde(default)]
    ids: Vec<u32>,
    assistant: Option<Vec<u8>>,
}

/// What Jinja2 has and is refused here, by name: Python's bytes and tables, and entities of HTML.
const REFUSED: [(&str, &str); 3] = [
    (".encode(", "unknown method 'encode'"),
    (".translate(", "unknown method 'translate'"),
    ("| striptags", "unknown filter 'striptags'"),
];

impl Case {
    fn pipeline(&self, tokenizers: &Value) -> TextPipeline {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("tokenizer.json", tokenizers[&self.tokenizer].to_string());
        write("tokenizer_config.json", self.config.to_string());
        write("chat_template.jinja", self.template.clone());
        if !self.map.is_null() {
            write("special_tokens_map.json", self.map.to_string());
        }
        TextPipeline::from_folder(folder.path()).unwrap()
    }

    fn chat(&self) -> Chat {
        let parsed = parse_line(self.record.as_bytes()).unwrap().unwrap();
        match parsed.content {
            Content::Chat(chat) => chat,
            Content::Text(_) => panic!("a text"),
        }
    }

    /// What differs, in words.
    fn differences(&self, tokenizers: &Value) -> Vec<String> {
        let pipeline = self.pipeline(tokenizers);
        let mut found = Vec::new();
        // Named: the class cuts texts otherwise than the file.
        let warned = |warning: &Warning| warning.text.contains("cuts texts otherwise");
        let warned = pipeline.warnings().iter().any(warned);
        let ids = pipeline.encode_text(&self.text).unwrap();
        if !warned && ids != self.text_ids {
            found.push(format!(
                "text {:?}: {ids:?}, Transformers {:?}",
                self.text, self.text_ids
            ));
        }
        let chat = self.chat();
        let template = pipeline.template().unwrap();
        let rendered = template.render(&chat, false);
        match (&self.rendered, rendered) {
            (None, Err(_)) => return found,
            (None, Ok(text)) => found.push(format!("rendered: {text:?}, Transformers refuses it")),
            (Some(_), Err(error)) => {
                let (template, said) = (&self.template, error.to_string());
                let known =
                    |(part, name): &(&str, &str)| template.contains(part) && said.contains(name);
                if !REFUSED.iter().any(known) {
                    found.push(format!("rendered: {error}"));
                }
                return found;
            }
            (Some(expected), Ok(text)) if *expected != text => {
                found.push(format!("rendered: {text:?}, Transformers {expected:?}"));
            }
            _ => {}
        }
        if !found.is_empty() || warned {
            return found;
        }
        let encoding = pipeline
            .tokenizer
            .encode_fast(self.rendered.as_deref().unwrap_or(""), false);
        let ids = encoding.unwrap().get_ids().to_vec();
        if ids != self.ids {
            found.push(format!("ids: {ids:?}, Transformers {:?}", self.ids));
        }
        if let (Some(expected), Ok(example)) = (&self.assistant, pipeline.chat(&chat)) {
            let marked: Vec<u8> = example.loss_mask().iter().map(|on| u8::from(*on)).collect();
            if marked != *expected {
                found.push(format!("assistant: {marked:?}, Transformers {expected:?}"));
            }
        }
        found
    }
}

#[test]
fn generated_cases_are_those_of_transformers() {
    let golden: Golden =
        serde_json::from_str(include_str!("../../vectors/differential.json")).unwrap();
    assert!(golden.cases.len() >= 200);
    golden.assert_same();
}

/// The assistant's turns are the model's, and the system's text begins the first user's.
#[test]
fn gemmas_tokenizer_and_template_are_those_of_transformers() {
    let golden: Golden = serde_json::from_str(include_str!("../../vectors/gemma.json")).unwrap();
    assert_eq!(golden.cases.len(), 4);
    golden.assert_same();
    // What a training learns: each answer and the end of its turn.
    let case = &golden.cases[1];
    let pipeline = case.pipeline(&golden.tokenizers);
    let example = pipeline.chat(&case.chat()).unwrap();
    let trained = example.tokens().iter().zip(example.loss_mask());
    let trained: Vec<u32> = trained
        .filter_map(|(&token, &counts)| counts.then_some(token))
        .collect();
    let trained = pipeline.tokenizer.decode(&trained, false).unwrap();
    assert_eq!(trained, "On.<end_of_turn>Off.<end_of_turn>");
}
