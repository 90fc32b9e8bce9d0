use serde_json::Value as Json;

use super::super::chat::Turn;
use super::*;
use fedlora_model::testing::{TestFile, golden, golden_path, smollm2};

/// Ids and text of every golden string, and the chat's prompt.
fn compare(name: &str, path: &Path) {
    let pipeline = TextPipeline::from_gguf(path).unwrap();
    let golden = &golden()["tokens"][name];
    let ids = |value: &Json| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let entries = golden["text"].as_array().unwrap();
    assert!(entries.len() > 15);
    for (entry, decoded) in entries.iter().zip(golden["decoded"].as_array().unwrap()) {
        let text = entry["text"].as_str().unwrap();
        let expected = ids(&entry["ids"]);
        assert_eq!(
            pipeline.text(text).unwrap().tokens(),
            expected,
            "{name}: {text:?}"
        );
        assert_eq!(
            pipeline.decode(&expected).unwrap(),
            decoded.as_str().unwrap(),
            "{name}"
        );
    }
    if golden["prompt_ids"].is_array() {
        let turn = |role, content: &str| Turn::new(role, content);
        let turns = [
            turn("system", "Be brief."),
            turn("user", "How many rounds were there in 2024?"),
        ];
        assert_eq!(
            pipeline.prompt(&turns).unwrap(),
            ids(&golden["prompt_ids"]),
            "{name}"
        );
    } else {
        assert!(!pipeline.has_template(), "{name}");
    }
}

#[test]
fn ids_are_those_of_transformers() {
    for name in [
        "llama-mixed",
        "llama3-rope",
        "qwen2",
        "tekken",
        "sentencepiece",
    ] {
        compare(name, &golden_path(&format!("{name}.gguf")));
    }
}

#[test]
fn ids_of_smollm2_are_those_of_transformers() {
    match smollm2() {
        Some(path) => compare("SmolLM2-135M-Instruct", &path),
        None => {
            println!("skipped: examples/fetch-smollm2.sh gets the file, FEDLORA_SMOLLM2 names it")
        }
    }
}

#[test]
fn knows_control_tokens_and_ends() {
    let pipeline = TextPipeline::from_gguf(&golden_path("llama-mixed.gguf")).unwrap();
    let end = pipeline.token_id("<|im_end|>").unwrap();
    assert!(pipeline.is_special(end) && pipeline.has_template());
    assert!(!pipeline.is_special(pipeline.token_id("<think>").unwrap()));
    assert_eq!(pipeline.end_tokens().collect::<Vec<_>>(), [end]);
    assert_eq!(pipeline.vocabulary(), 420);
    assert!(pipeline.refuse_control("a<|im_end|>b", "text").is_err());

    let (_dir, path) = TestFile::golden("llama-mixed.gguf")
        .set("tokenizer.ggml.eot_token_id", Value::Integer(0))
        .write();
    let more = TextPipeline::from_gguf(&path).unwrap();
    assert_eq!(more.end_tokens().collect::<Vec<_>>(), [0, end]);
}

/// The same vocabulary gives the same digest, whatever else the file holds.
#[test]
fn the_digest_is_of_the_tokenizer_alone() {
    let digest = |file: &TestFile| {
        let (_dir, path) = file.write();
        TextPipeline::from_gguf(&path).unwrap().digest()
    };
    let whole = TestFile::golden("llama-mixed.gguf");
    let first = digest(&whole);
    let mut same = TestFile::golden("llama-mixed.gguf").without("llama.block_count");
    same.tensors.clear();
    assert_eq!(digest(&same), first);
    // Granite's files have another name for what SmolLM's call `smollm`.
    let pre = |name: &str| Value::Text(name.to_owned());
    let named = |name| TestFile::golden("llama-mixed.gguf").set("tokenizer.ggml.pre", pre(name));
    assert_eq!(digest(&named("refact")), first);
    assert_ne!(digest(&named("qwen2")), first);
    let other = whole.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    assert_ne!(digest(&other), first);
}

#[test]
fn begins_and_ends_texts_as_the_file_says() {
    let tokens = |file: TestFile| {
        let (_dir, path) = file.write();
        TextPipeline::from_gguf(&path)
            .unwrap()
            .text("a")
            .unwrap()
            .tokens()
            .to_vec()
    };
    let file = || TestFile::golden("llama-mixed.gguf");
    let plain = tokens(file());
    let on = Value::Bool(true);
    let around = tokens(
        file()
            .set("tokenizer.ggml.add_bos_token", on.clone())
            .set("tokenizer.ggml.add_eos_token", on.clone()),
    );
    assert_eq!(around, [&[1][..], &plain, &[2]].concat());
    // Nothing to begin with.
    let none = file()
        .set("tokenizer.ggml.add_bos_token", on)
        .without("tokenizer.ggml.bos_token_id");
    assert_eq!(tokens(none), plain);
    let sentencepiece = TestFile::golden("sentencepiece.gguf");
    let begun = tokens(TestFile::golden("sentencepiece.gguf"));
    let bare = tokens(sentencepiece.set("tokenizer.ggml.add_bos_token", Value::Bool(false)));
    assert_eq!(begun, [&[1][..], &bare].concat());
}

/// As Gemma's files say of their vocabulary.
#[test]
fn a_text_begins_with_no_space_where_the_file_says_so() {
    let open = |file: TestFile| {
        let (_dir, path) = file.write();
        TextPipeline::from_gguf(&path).unwrap()
    };
    let file = || TestFile::golden("sentencepiece.gguf");
    let (before, key) = (open(file()), "tokenizer.ggml.add_space_prefix");
    let never = open(file().set(key, Value::Bool(false)));
    let ids = |pipeline: &TextPipeline, text| pipeline.text(text).unwrap().tokens().to_vec();
    // The space that the one puts before the text the other is given.
    assert_eq!(ids(&before, "a b"), ids(&never, " a b"));
    assert_ne!(ids(&before, "a b"), ids(&never, "a b"));
    for text in ["a b", " a b"] {
        assert_eq!(never.decode(&ids(&never, text)[1..]).unwrap(), text);
    }
    let same = open(file().set(key, Value::Bool(true)));
    assert_eq!(same.digest(), before.digest());
}

fn refusal(file: &TestFile) -> String {
    let (_dir, path) = file.write();
    TextPipeline::from_gguf(&path).unwrap_err().to_string()
}

fn texts(texts: &[&str]) -> Value {
    let mut list = List::texts();
    texts.iter().for_each(|text| list.push(text));
    Value::List(list)
}

#[test]
fn refuses_by_name_a_vocabulary_that_is_missing_broken_or_unknown() {
    let text = |text: &str| Value::Text(text.to_owned());
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    for (name, key, value) in [
        ("llama-mixed", "tokenizer.ggml.model", text("t5")),
        ("llama-mixed", "tokenizer.ggml.pre", text("viking")),
        ("llama-mixed", "tokenizer.ggml.tokens", text("a b c")),
        ("llama-mixed", "tokenizer.ggml.tokens", texts(&[])),
        ("llama-mixed", "tokenizer.ggml.tokens", texts(&["a", &long])),
        ("llama-mixed", "tokenizer.ggml.token_type", texts(&["a"])),
        (
            "llama-mixed",
            "tokenizer.ggml.merges",
            texts(&["a b", "ab"]),
        ),
        ("llama-mixed", "tokenizer.ggml.merges", texts(&["a b c"])),
        (
            "llama-mixed",
            "tokenizer.ggml.bos_token_id",
            Value::Integer(420),
        ),
        (
            "llama-mixed",
            "tokenizer.ggml.eos_token_id",
            Value::Float(1.0),
        ),
        (
            "llama-mixed",
            "tokenizer.ggml.add_bos_token",
            Value::Integer(1),
        ),
        ("llama-mixed", "tokenizer.chat_template", Value::Integer(1)),
        ("sentencepiece", "tokenizer.ggml.scores", texts(&["a"])),
    ] {
        let file = TestFile::golden(&format!("{name}.gguf")).set(key, value.clone());
        let error = refusal(&file);
        assert!(
            error.contains(&format!("'{key}' is ")),
            "{key} {value:?}: {error}"
        );
    }
    for (name, key) in [
        ("llama-mixed", "tokenizer.ggml.model"),
        ("llama-mixed", "tokenizer.ggml.tokens"),
        ("llama-mixed", "tokenizer.ggml.merges"),
        ("sentencepiece", "tokenizer.ggml.scores"),
    ] {
        let error = refusal(&TestFile::golden(&format!("{name}.gguf")).without(key));
        assert!(
            error.contains(&format!("'{key}' is absent")),
            "{key}: {error}"
        );
    }
    // Well formed, but no tokenizer: a merge whose result is not a token.
    let file = TestFile::golden("llama-mixed.gguf");
    let error = refusal(&file.set("tokenizer.ggml.merges", texts(&["! !"])));
    assert!(error.contains("not a tokenizer"), "{error}");
    let file = TestFile::golden("llama-mixed.gguf");
    let error = refusal(&file.set("tokenizer.chat_template", text("{% for %}")));
    assert!(error.contains("chat template"), "{error}");
    // A broken container is told as it is for the weights.
    let error = TextPipeline::from_gguf(&golden_path("golden.json")).unwrap_err();
    assert!(
        matches!(error, TokenizerError::Gguf(GgufError::Magic { .. })),
        "{error}"
    );
}

/// Converters leave some tokens as plain text in a byte-level vocabulary.
#[test]
fn plain_tokens_are_spelled_in_letters_for_bytes_and_control_tokens_are_not() {
    let file = TestFile::golden("llama-mixed.gguf");
    let list = file.values["tokenizer.ggml.tokens"]
        .as_list()
        .unwrap()
        .clone();
    let mut tokens: Vec<_> = list.as_texts().unwrap().collect();
    tokens[1] = "<\u{ff5c}begin\u{ff5c}>";
    let last = tokens.len() - 1;
    tokens[last] = "two words";
    let file = file
        .set("tokenizer.ggml.tokens", texts(&tokens))
        .set("tokenizer.ggml.merges", texts(&[]));
    let (_dir, path) = file.write();
    let pipeline = TextPipeline::from_gguf(&path).unwrap();
    assert_eq!(pipeline.text(tokens[1]).unwrap().tokens(), [1]);
    assert!(pipeline.is_special(1));
    assert_eq!(pipeline.token_id("two\u{120}words"), Some(last as u32));
    assert_eq!(pipeline.vocabulary(), 420);
}

#[test]
fn bytes_have_letters_of_their_own() {
    let letters = byte_letters();
    assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), 256);
    assert!(letters.iter().all(|letter| (*letter as u32) < 0x144));
    let known = [
        (b' ', '\u{120}'),
        (b'\n', '\u{10a}'),
        (b'a', 'a'),
        (0xad, '\u{143}'),
    ];
    assert!(
        known
            .iter()
            .all(|(byte, letter)| letters[*byte as usize] == *letter)
    );
}
