//! What stands beside `tokenizer.json` and changes its tokens: `tokenizer_config.json` and
//! `special_tokens_map.json`, taken as Transformers 5 takes them. What it would do otherwise than
//! here is a warning that names the setting.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::dropped::Warning;

/// Special tokens that a class names where the settings do not.
const DEFAULTS: [(&str, &[(&str, &str)]); 4] = [
    (
        "Llama",
        &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
        ],
    ),
    (
        "GPT2",
        &[
            ("bos_token", "<|endoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
        ],
    ),
    (
        "Qwen2",
        &[
            ("eos_token", "<|endoftext|>"),
            ("pad_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
        ],
    ),
    (
        "Gemma",
        &[
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("pad_token", "<pad>"),
            ("unk_token", "<unk>"),
        ],
    ),
];
/// Classes that take all but the special tokens from `tokenizer.json`.
const PLAIN_CLASSES: [&str; 3] = [
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "PreTrainedTokenizerFast",
];

/// The special tokens by the names that templates use, such as `bos_token`.
pub(super) fn named(folder: &Path, config: &Value) -> BTreeMap<String, String> {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let class = class(config);
    for (_, tokens) in DEFAULTS.iter().filter(|(name, _)| *name == class) {
        let pairs = tokens
            .iter()
            .map(|(name, token)| ((*name).to_owned(), (*token).to_owned()));
        named.extend(pairs);
    }
    for (name, token) in settings(folder, config) {
        match text(&token) {
            Some(text) if name.ends_with("_token") => _ = named.insert(name, text.to_owned()),
            // Null takes a class's own token away.
            None if token.is_null() && name.ends_with("_token") => _ = named.remove(&name),
            _ => {}
        }
    }
    named
}

/// The settings, in which the map replaces what the configuration says: only where that lists no
/// tokens by number.
fn settings(folder: &Path, config: &Value) -> Map<String, Value> {
    let mut settings = config.as_object().cloned().unwrap_or_default();
    if !settings.contains_key("added_tokens_decoder")
        && let Some(Value::Object(map)) = json(&folder.join("special_tokens_map.json"))
    {
        settings.extend(map);
    }
    settings
}

/// The class of the tokenizer, without the endings that make no difference.
fn class(config: &Value) -> &str {
    let class = config["tokenizer_class"].as_str().unwrap_or_default();
    let class = class.strip_suffix("Fast").unwrap_or(class);
    match PLAIN_CLASSES.contains(&class) {
        true => class,
        false => class.strip_suffix("Tokenizer").unwrap_or(class),
    }
}

/// A token's text, as text or as an object with flags.
fn text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Reads a tokenizer and applies what stands beside it in `folder`.
///
/// # Errors
/// What the tokenizer library says of `bytes`.
pub(super) fn load(folder: &Path, bytes: &[u8]) -> Result<(Tokenizer, Vec<Warning>), String> {
    let mut warnings = Vec::new();
    let config = json(&folder.join("tokenizer_config.json")).unwrap_or_default();
    let model = json(&folder.join("config.json")).unwrap_or_default();
    let class = match model["model_type"] == "qwen2" {
        // Transformers 5 takes this class whatever the settings say.
        true => "Qwen2",
        false => class(&config),
    };
    let changed = with_class(bytes, (class, &config), &mut warnings);
    let mut tokenizer = Tokenizer::from_bytes(changed.as_deref().unwrap_or(bytes))
        .map_err(|error| error.to_string())?;
    let settings = settings(folder, &config);
    let named = named(folder, &config);
    let limit = model["vocab_size"].as_u64();
    let highest = tokenizer.get_added_tokens_decoder().into_keys().max();
    let model = tokenizer.get_vocab_size(false) as u64;
    let mut next = highest.map_or(model, |highest| model.max(u64::from(highest) + 1));
    let mut tokens = tokens_to_add(&tokenizer, &settings, &named);
    tokens.retain(|(id, token)| {
        let number = tokenizer
            .token_to_id(&token.content)
            .map_or(next, u64::from);
        let placed = is_placed(token, (*id, number), limit, &mut warnings);
        next += u64::from(placed && number == next);
        placed
    });
    let tokens: Vec<_> = tokens.into_iter().map(|(_, token)| token).collect();
    if !tokens.is_empty() {
        tokenizer.add_tokens(&tokens);
    }
    if config["split_special_tokens"] == true {
        tokenizer.set_encode_special_tokens(true);
    }
    for (key, name) in [
        ("add_bos_token", "bos_token"),
        ("add_eos_token", "eos_token"),
    ] {
        let wanted = config.get(key).and_then(Value::as_bool);
        let id = named
            .get(name)
            .and_then(|token| tokenizer.token_to_id(token));
        let around = tokenizer
            .encode_fast("", true)
            .map_err(|error| error.to_string())?;
        let puts = id.is_some_and(|id| around.get_ids().contains(&id));
        if let Some(wanted) = wanted.filter(|wanted| *wanted != puts) {
            warnings.push(Warning {
                kind: "tokenizer",
                text: format!(
                    "tokenizer_config.json says {key} {wanted}, and tokenizer.json does otherwise: \
                     tokenizer.json is used, as Transformers 5 does (4 took the setting)"
                ),
            });
        }
    }
    Ok((tokenizer, warnings))
}

/// The tokens that the settings name and the tokenizer lacks, or has with other flags, with the
/// numbers that they say.
fn tokens_to_add(
    tokenizer: &Tokenizer,
    settings: &Map<String, Value>,
    named: &BTreeMap<String, String>,
) -> Vec<(Option<u64>, AddedToken)> {
    let known = tokenizer.get_added_tokens_decoder();
    let mut found: Vec<(Option<u64>, AddedToken)> = Vec::new();
    let listed = settings
        .get("added_tokens_decoder")
        .and_then(Value::as_object);
    for (id, token) in listed.into_iter().flatten() {
        let Some(token) = added(token, token["special"] == true) else {
            continue;
        };
        if !known.values().any(|own| same(own, &token)) {
            found.push((id.parse().ok(), token));
        }
    }
    found.sort_by_key(|(id, _)| *id);
    let lists = ["additional_special_tokens", "extra_special_tokens"];
    let more = lists
        .iter()
        .filter_map(|key| settings.get(*key)?.as_array())
        .flatten();
    let of_names = named.iter().map(|(name, text)| match settings.get(name) {
        Some(token @ Value::Object(_)) => token.clone(),
        _ => Value::String(text.clone()),
    });
    for token in of_names.chain(more.cloned()) {
        let Some(token) = added(&token, true) else {
            continue;
        };
        let here = known.values().any(|own| own.content == token.content)
            || found.iter().any(|(_, own)| own.content == token.content);
        if !here {
            found.push((None, token));
        }
    }
    for (_, token) in &mut found {
        token.special |= named.values().any(|text| *text == token.content);
    }
    found
}

fn added(token: &Value, special: bool) -> Option<AddedToken> {
    let content = text(token)?;
    let flag = |name: &str| token[name] == true;
    let normalized = token
        .get("normalized")
        .map_or(!special, |value| value == true);
    (!content.is_empty()).then(|| {
        AddedToken::from(content, special)
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(normalized)
    })
}

/// Whether two tokens agree in every flag; the library's own comparison is of texts alone.
fn same(one: &AddedToken, other: &AddedToken) -> bool {
    let flags = |token: &AddedToken| {
        [
            token.special,
            token.lstrip,
            token.rstrip,
            token.single_word,
            token.normalized,
        ]
    };
    one.content == other.content && flags(one) == flags(other)
}

/// Whether the model has a place for a token; `id` is the number that the settings say, and the
/// one that it gets.
fn is_placed(
    token: &AddedToken,
    (said, number): (Option<u64>, u64),
    limit: Option<u64>,
    warnings: &mut Vec<Warning>,
) -> bool {
    let content = &token.content;
    let mut warn = |text| {
        warnings.push(Warning {
            kind: "tokenizer",
            text,
        });
    };
    if limit.is_some_and(|limit| number >= limit) {
        warn(format!(
            "the tokenizer's settings name the token '{content}', for which the model has no \
             embedding: its text stays plain text"
        ));
        return false;
    }
    if let Some(said) = said.filter(|said| *said != number) {
        warn(format!(
            "tokenizer_config.json gives the token '{content}' the number {said}, and \
             tokenizer.json {number}, which is used, as Transformers does"
        ));
    }
    true
}

/// The `tokenizer.json` as the settings' class builds it: how a text's first word begins.
fn with_class(
    bytes: &[u8],
    (class, config): (&str, &Value),
    warnings: &mut Vec<Warning>,
) -> Option<Vec<u8>> {
    let prefix = config.get("add_prefix_space").and_then(Value::as_bool);
    if !matches!(class, "Llama" | "GPT2" | "Qwen2") && prefix.is_none() {
        return None;
    }
    let mut json: Value = serde_json::from_slice(bytes).ok()?;
    let before = json.clone();
    let pieces = json["model"]["byte_fallback"] == true;
    let metaspace = json["pre_tokenizer"].is_null() || json["pre_tokenizer"]["type"] == "Metaspace";
    match class {
        "Llama" if pieces && metaspace => {
            let scheme = match (prefix.unwrap_or(true), config["legacy"] == true) {
                (false, _) => "never",
                (true, true) => "always",
                (true, false) => "first",
            };
            json["normalizer"] = Value::Null;
            json["pre_tokenizer"] = serde_json::json!({
                "type": "Metaspace",
                "replacement": "\u{2581}",
                "prepend_scheme": scheme,
                "split": false,
            });
        }
        "GPT2" | "Qwen2" => {
            let wanted = prefix.unwrap_or(false);
            for part in byte_levels(&mut json["pre_tokenizer"]) {
                part["add_prefix_space"] = wanted.into();
            }
            if !cuts_as_class(class, &json) {
                warnings.push(Warning {
                    kind: "tokenizer",
                    text: format!(
                        "the tokenizer's class, {class}Tokenizer, cuts texts otherwise in \
                         Transformers 5 than tokenizer.json says, which is used here"
                    ),
                });
            }
        }
        _ => {
            let own: Vec<bool> = byte_levels(&mut json["pre_tokenizer"])
                .iter()
                .map(|part| part["add_prefix_space"] == true)
                .collect();
            let own = match json["pre_tokenizer"]["prepend_scheme"].as_str() {
                Some(scheme) => Some(scheme != "never"),
                None => own.first().copied(),
            };
            if let (Some(wanted), Some(own)) = (prefix, own)
                && wanted != own
                && !PLAIN_CLASSES.contains(&class)
            {
                warnings.push(Warning {
                    kind: "tokenizer",
                    text: format!(
                        "tokenizer_config.json says add_prefix_space {wanted}, and tokenizer.json \
                         {own}: tokenizer.json is used; Transformers may begin texts otherwise"
                    ),
                });
            }
        }
    }
    (json != before).then(|| json.to_string().into_bytes())
}

/// Whether a byte-level `tokenizer.json` cuts texts as its class does, which builds it anew.
fn cuts_as_class(class: &str, json: &Value) -> bool {
    let (normalizer, pre_tokenizer) = (&json["normalizer"], &json["pre_tokenizer"]);
    if class == "GPT2" {
        let regex = pre_tokenizer["use_regex"] != false;
        return normalizer.is_null() && pre_tokenizer["type"] == "ByteLevel" && regex;
    }
    let split = &pre_tokenizer["pretokenizers"][0];
    normalizer["type"] == "NFC"
        && split["pattern"]["Regex"] == super::gguf_tokenizer::QWEN2
        && pre_tokenizer["pretokenizers"][1]["type"] == "ByteLevel"
}

/// The byte-level steps of a pre-tokenizer.
fn byte_levels(pre_tokenizer: &mut Value) -> Vec<&mut Value> {
    if pre_tokenizer["type"] == "ByteLevel" {
        return vec![pre_tokenizer];
    }
    let parts = pre_tokenizer
        .get_mut("pretokenizers")
        .and_then(Value::as_array_mut);
    let parts = parts.into_iter().flatten();
    parts.filter(|part| part["type"] == "ByteLevel").collect()
}
