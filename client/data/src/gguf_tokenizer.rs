//! The tokenizer and chat template in a GGUF file's metadata, as the `tokenizer.json` that they
//! stand for.
//!
//! Built as Transformers builds it, so that the same file gives the same ids there and here.
//! Two kinds of vocabulary are read: byte-level BPE (`gpt2`), whose merges the file lists, and
//! SentencePiece's BPE (`llama`), whose merges follow from the tokens' scores.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::template::ChatTemplate;
use super::tokenizer::{TextPipeline, TokenizerError};
use fedlora_model::gguf::{Container, List, Metadata, Value};
use fedlora_model::{GgufError, gguf};

/// A token is a word or less; deriving merges takes time that grows with its square.
const MAX_TOKEN_BYTES: usize = 1024;

const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

/// Pattern by which Llama 3 cuts text into words, from its published tokenizer.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same of Qwen2: digits stand alone.
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same of Mistral's Tekken: words also end where lower case turns to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl TextPipeline {
    /// Reads the tokenizer and the chat template from a GGUF file. A file without a template
    /// still serves plain text.
    ///
    /// # Errors
    /// [`TokenizerError`] when the file is broken, or its vocabulary is missing or of a kind
    /// that is not supported, by name.
    pub fn from_gguf(path: &Path) -> Result<Self, TokenizerError> {
        let container = Container::open(path)?;
        let vocabulary = Vocabulary::read(container.metadata())?;
        let json = vocabulary.to_json()?.to_string();
        let template =
            container
                .metadata()
                .optional("tokenizer.chat_template", "a text", Value::as_text)?;
        let template = match template {
            Some(source) => Ok(ChatTemplate::new(source, vocabulary.named_tokens())?),
            None => Err(path.display().to_string()),
        };
        Self::from_parts(json.as_bytes(), template, vocabulary.ends()).map_err(|why| {
            TokenizerError::Format {
                file: path.display().to_string(),
                why,
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ByteLevel,
    SentencePiece,
}

/// What the metadata says of the tokenizer.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    kind: Kind,
    /// By id.
    tokens: Vec<&'a str>,
    /// By id; empty where the file does not say.
    types: Vec<i128>,
    /// Ids of the tokens that templates call by these names.
    named: BTreeMap<&'static str, u32>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, GgufError> {
        let key = "tokenizer.ggml.model";
        let expected = "\"gpt2\" or \"llama\", the supported kinds of vocabulary";
        let kind = match metadata.required(key, expected, Value::as_text)? {
            "gpt2" => Kind::ByteLevel,
            "llama" => Kind::SentencePiece,
            _ => return Err(metadata.refuse(key, expected)),
        };
        let key = "tokenizer.ggml.tokens";
        let tokens: Vec<&str> = metadata
            .required(key, "a list of texts", |value| value.as_list()?.as_texts())?
            .collect();
        if tokens.is_empty() || tokens.iter().any(|token| token.len() > MAX_TOKEN_BYTES) {
            return Err(metadata.refuse(key, "at least one token, each of at most 1024 bytes"));
        }
        let mut made = Self {
            metadata,
            kind,
            tokens,
            types: Vec::new(),
            named: BTreeMap::new(),
        };
        made.types = made
            .by_token("tokenizer.ggml.token_type", Value::as_integer)?
            .unwrap_or_default();
        for (name, key) in [
            ("bos_token", "tokenizer.ggml.bos_token_id"),
            ("eos_token", "tokenizer.ggml.eos_token_id"),
            ("unk_token", "tokenizer.ggml.unknown_token_id"),
            ("pad_token", "tokenizer.ggml.padding_token_id"),
        ] {
            if let Some(id) = made.token_id(key)? {
                made.named.insert(name, id);
            }
        }
        Ok(made)
    }

    /// A value for each token.
    fn by_token<T>(
        &self,
        key: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let count = self.tokens.len();
        self.metadata
            .optional(key, "a list of one number a token", |value| {
                let list = value.as_list().filter(|list| list.len() == count)?;
                list.as_scalars()?.map(|value| read(&value)).collect()
            })
    }

    fn token_id(&self, key: &str) -> Result<Option<u32>, GgufError> {
        match gguf::token_id(self.metadata, key)? {
            Some(id) if id as usize >= self.tokens.len() => {
                Err(self.metadata.refuse(key, "the number of one of the tokens"))
            }
            id => Ok(id),
        }
    }

    /// The texts of the tokens that templates call by name.
    fn named_tokens(&self) -> BTreeMap<String, String> {
        self.named
            .iter()
            .map(|(name, id)| ((*name).to_owned(), self.tokens[*id as usize].to_owned()))
            .collect()
    }

    /// The tokens after which nothing more is generated.
    fn ends(&self) -> impl Iterator<Item = u32> {
        // Where a turn ends otherwise than a text; one that is not a token ends nothing.
        let turn = self.token_id("tokenizer.ggml.eot_token_id");
        let text = self.named.get("eos_token").copied();
        text.into_iter().chain(turn.ok().flatten())
    }

    /// The `tokenizer.json`.
    fn to_json(&self) -> Result<Json, GgufError> {
        let spelled = self.spelled();
        let vocabulary: Map<String, Json> = spelled
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id.into()))
            .collect();
        let sentencepiece = self.kind == Kind::SentencePiece;
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(&spelled),
            "normalizer": null,
            "pre_tokenizer": self.pre_tokenizer()?,
            "post_processor": self.post_processor()?,
            "decoder": self.decoder()?,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": sentencepiece,
                "byte_fallback": sentencepiece,
                "ignore_merges": false,
                "vocab": vocabulary,
                "merges": self.merges()?,
            },
        }))
    }

    fn is(&self, id: usize, kind: i128) -> bool {
        self.types.get(id) == Some(&kind)
    }

    /// The tokens as the model spells them. A byte-level vocabulary writes each byte as a
    /// letter of its own; tokens that converters left as plain text are put into these.
    fn spelled(&self) -> Vec<String> {
        let letters = byte_letters();
        let known: BTreeSet<char> = letters.iter().copied().collect();
        let spell = |(id, token): (usize, &&str)| {
            // Control tokens are found in the text itself and are never made by merges.
            let plain = self.kind == Kind::SentencePiece
                || self.is(id, CONTROL)
                || token.chars().all(|letter| known.contains(&letter));
            if plain {
                (*token).to_owned()
            } else {
                token.bytes().map(|byte| letters[byte as usize]).collect()
            }
        };
        self.tokens.iter().enumerate().map(spell).collect()
    }

    /// Tokens that are found in the text before it is cut: control tokens and those that the
    /// metadata names, which are special, and those that a user added, which are not.
    fn added(&self, spelled: &[String]) -> Vec<Json> {
        // Transformers' tokenizer of each kind names these where a vocabulary has them.
        let usual: &[&str] = match self.kind {
            Kind::ByteLevel => &["<|endoftext|>"],
            Kind::SentencePiece => &["<unk>", "<s>", "</s>"],
        };
        let named: BTreeSet<_> = self.named.values().map(|&id| id as usize).collect();
        let tokens = self.tokens.iter().enumerate();
        tokens
            .filter_map(|(id, &token)| {
                let special = self.is(id, CONTROL) || named.contains(&id) || usual.contains(&token);
                let user = self.is(id, USER_DEFINED) && spelled[id] == token;
                ((special || user) && !token.is_empty()).then(|| {
                    json!({
                        "id": id,
                        "content": token,
                        "single_word": false,
                        "lstrip": false,
                        "rstrip": false,
                        "normalized": false,
                        "special": special,
                    })
                })
            })
            .collect()
    }

    /// How text is cut into words before merges.
    fn pre_tokenizer(&self) -> Result<Json, GgufError> {
        if self.kind == Kind::SentencePiece {
            let scheme = if self.begins_with_space()? {
                "first"
            } else {
                "never"
            };
            return Ok(json!({
                "type": "Metaspace",
                "replacement": "\u{2581}",
                "prepend_scheme": scheme,
                "split": false,
            }));
        }
        let key = "tokenizer.ggml.pre";
        let expected = "one of \"default\", \"gpt-2\", \"smollm\", \"refact\", \"llama-bpe\", \
                        \"llama3\", \"llama-v3\", \"smaug-bpe\", \"qwen2\", \
                        \"deepseek-r1-qwen\", \"tekken\"";
        let pattern = match self.metadata.optional(key, expected, Value::as_text)? {
            // GPT-2's own pattern, which the byte-level step has built in. `refact` is what
            // converters call that of Granite; no merge of its vocabulary or SmolLM's joins digits.
            None | Some("default" | "gpt-2" | "smollm" | "refact") => None,
            Some("llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe") => Some(LLAMA3),
            Some("qwen2" | "deepseek-r1-qwen") => Some(QWEN2),
            Some("tekken") => Some(TEKKEN),
            Some(_) => return Err(self.metadata.refuse(key, expected)),
        };
        let bytes = json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": pattern.is_none(),
        });
        Ok(match pattern {
            None => bytes,
            Some(pattern) => json!({
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"Regex": pattern},
                        "behavior": "Isolated",
                        "invert": false,
                    },
                    bytes,
                ],
            }),
        })
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, GgufError> {
        let value = self
            .metadata
            .optional(key, "true or false", Value::as_bool)?;
        Ok(value.unwrap_or(default))
    }

    /// Whether a SentencePiece vocabulary takes a text as if a space preceded it. Gemma's does not.
    fn begins_with_space(&self) -> Result<bool, GgufError> {
        self.flag("tokenizer.ggml.add_space_prefix", true)
    }

    /// What is put around a text.
    fn post_processor(&self) -> Result<Json, GgufError> {
        let begin = self.flag(
            "tokenizer.ggml.add_bos_token",
            // SentencePiece models were trained with it, and older files do not say so.
            self.kind == Kind::SentencePiece,
        )?;
        let end = self.flag("tokenizer.ggml.add_eos_token", false)?;
        let mut special = Map::new();
        let mut around = |wanted: bool, name: &str, type_id: u32| {
            let id = self.named.get(name).filter(|_| wanted)?;
            let token = self.tokens[*id as usize];
            special.insert(
                token.to_owned(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
            Some(json!({"SpecialToken": {"id": token, "type_id": type_id}}))
        };
        let mut side = |sequence: &str, type_id: u32| -> Vec<Json> {
            around(begin, "bos_token", type_id)
                .into_iter()
                .chain([json!({"Sequence": {"id": sequence, "type_id": type_id}})])
                .chain(around(end, "eos_token", type_id))
                .collect()
        };
        let single = side("A", 0);
        let pair: Vec<Json> = single.iter().cloned().chain(side("B", 1)).collect();
        Ok(json!({
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": special,
        }))
    }

    fn decoder(&self) -> Result<Json, GgufError> {
        Ok(match self.kind {
            Kind::ByteLevel => json!({
                "type": "ByteLevel",
                "add_prefix_space": true,
                "trim_offsets": true,
                "use_regex": true,
            }),
            Kind::SentencePiece => {
                let mut decoders = vec![
                    json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
                    json!({"type": "ByteFallback"}),
                    json!({"type": "Fuse"}),
                ];
                if self.begins_with_space()? {
                    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
                    decoders.push(strip);
                }
                json!({"type": "Sequence", "decoders": decoders})
            }
        })
    }

    /// The pairs that are joined, most urgent first.
    fn merges(&self) -> Result<Vec<(String, String)>, GgufError> {
        let key = "tokenizer.ggml.merges";
        let expected = "a list of texts, each two tokens with a space between";
        let listed = self
            .metadata
            .optional(key, expected, |value| value.as_list().and_then(two_tokens))?;
        match (listed, self.kind) {
            (Some(merges), _) => Ok(merges),
            (None, Kind::SentencePiece) => self.merges_by_score(),
            (None, Kind::ByteLevel) => Err(self.metadata.refuse(key, expected)),
        }
    }

    /// SentencePiece joins the pair whose token has the highest score. As a list that is: every
    /// way to cut a token in two others, by score, then the longer left and right part first.
    fn merges_by_score(&self) -> Result<Vec<(String, String)>, GgufError> {
        let key = "tokenizer.ggml.scores";
        let finite = |value: &Value| value.as_float().filter(|score| score.is_finite());
        let scores = self
            .by_token(key, finite)?
            .ok_or_else(|| self.metadata.refuse(key, "a list of one number a token"))?;
        // A token that stands twice has the last place and score.
        let ids: HashMap<&str, usize> = self.tokens.iter().copied().zip(0..).collect();
        let mut seen = BTreeSet::new();
        let mut merges = Vec::new();
        for &token in &self.tokens {
            let id = ids[token];
            if !seen.insert(id) {
                continue;
            }
            // So that -0 and 0 are alike in the order.
            let score = scores[id] + 0.0;
            let first = merges.len();
            for (cut, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(cut);
                if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                    merges.push((score, left, right, (l, r)));
                }
            }
            merges[first..].sort_by_key(|(.., parts)| *parts);
        }
        let letters = |text: &str| text.chars().count();
        merges.sort_by_cached_key(|(score, left, right, _)| {
            std::cmp::Reverse((Ordered(*score), letters(left), letters(right)))
        });
        Ok(merges
            .into_iter()
            .map(|(_, left, right, _)| (left.to_owned(), right.to_owned()))
            .collect())
    }
}

/// A finite number in its natural order.
#[derive(PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Merges as files list them; `None` where one is not two tokens.
fn two_tokens(list: &List) -> Option<Vec<(String, String)>> {
    list.as_texts()?
        .map(|merge| {
            let (left, right) = merge.split_once(' ')?;
            (!right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
        })
        .collect()
}

/// The letter for each byte in byte-level vocabularies (GPT-2's): itself where it prints, the
/// others in order from U+0100 on.
fn byte_letters() -> [char; 256] {
    let mut others = ('\u{100}'..).take(256);
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            // There are 68 others.
            _ => others.next().unwrap_or(char::REPLACEMENT_CHARACTER),
        }
    })
}

#[cfg(test)]
#[path = "gguf_tokenizer_tests.rs"]
mod tests;
