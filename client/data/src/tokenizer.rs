//! A base's tokenizer and chat template: from text and turns to token ids, and back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use fedlora_common::digest::Digest;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::chat::{ChatRef, Turn};
use super::control_text::PlainTokenizer;
use super::dropped::Warning;
use super::problem::LineProblem;
use super::responses::Response;
use super::special_tokens;
use super::template::{ChatTemplate, TemplateError};
use fedlora_model::Example;

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` cannot be read.
    #[error("cannot read {file}: {source}; a base needs tokenizer.json")]
    Io {
        /// Which file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("{file} is not a tokenizer that is supported: {why}")]
    Format {
        /// Which file.
        file: String,
        /// What the tokenizer library says.
        why: String,
    },
    /// A GGUF file that is broken, or whose tokenizer is not supported.
    #[error(transparent)]
    Gguf(#[from] fedlora_model::GgufError),
    /// The template is missing, broken or refuses the record.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer refuses the text.
    #[error("the tokenizer refuses the text")]
    Encode,
}

/// Everything that text passes on its way to token ids, as the base's folder has it.
pub struct TextPipeline {
    tokenizer: Tokenizer,
    template: Result<ChatTemplate, String>,
    control: Vec<String>,
    special: Vec<bool>,
    ends: BTreeSet<u32>,
    /// The token that ends a text.
    end: Option<u32>,
    /// Made where a record first holds a control token's text.
    plain: OnceLock<PlainTokenizer>,
    warnings: Vec<Warning>,
    digest: Digest,
}

impl std::fmt::Debug for TextPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextPipeline")
            .field("vocabulary", &self.special.len())
            .finish_non_exhaustive()
    }
}

impl TextPipeline {
    /// Loads `tokenizer.json` and the chat template from a Hugging Face folder. A base
    /// without a template still serves plain text.
    ///
    /// # Errors
    /// [`TokenizerError`] when the tokenizer or an existing template cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let file = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|source| TokenizerError::Io {
            file: file.clone(),
            source,
        })?;
        let template = match ChatTemplate::from_folder(folder) {
            Ok(template) => Ok(template),
            Err(TemplateError::Missing { folder }) => Err(folder),
            Err(error) => return Err(error.into()),
        };
        let failed = |why| TokenizerError::Format {
            file: file.clone(),
            why,
        };
        let (tokenizer, warnings) = special_tokens::load(folder, &bytes).map_err(failed)?;
        let mut made = Self::new(tokenizer, &bytes, template).map_err(failed)?;
        let configured = configured_ends(folder);
        let config = std::fs::read(folder.join("tokenizer_config.json")).unwrap_or_default();
        let config = serde_json::from_slice(&config).unwrap_or_default();
        let named = special_tokens::named(folder, &config);
        let end = named
            .get("eos_token")
            .and_then(|token| made.token_id(token));
        made.end = end.or_else(|| configured.first().copied()).or(made.end);
        made.ends.extend(configured);
        made.warnings.splice(0..0, warnings);
        Ok(made)
    }

    /// What [`new`](Self::new) makes, with more tokens that end a text.
    pub(super) fn from_parts(
        bytes: &[u8],
        template: Result<ChatTemplate, String>,
        ends: impl IntoIterator<Item = u32>,
    ) -> Result<Self, String> {
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
        let mut made = Self::new(tokenizer, bytes, template)?;
        let ends: Vec<u32> = ends.into_iter().collect();
        made.end = made.end.or_else(|| ends.first().copied());
        made.ends.extend(ends);
        Ok(made)
    }

    /// Takes a tokenizer, read from `bytes`; without a template, `Err` is where one was looked for.
    fn new(
        mut tokenizer: Tokenizer,
        bytes: &[u8],
        template: Result<ChatTemplate, String>,
    ) -> Result<Self, String> {
        // What these do to length is decided by `PrepareOptions`, and counted.
        tokenizer
            .with_truncation(None)
            .map_err(|error| error.to_string())?
            .with_padding(None);
        let added = tokenizer.get_added_tokens_decoder();
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let mut special = vec![false; highest as usize + 1];
        let mut control = Vec::new();
        for (id, token) in added {
            if token.special && !token.content.is_empty() {
                special[id as usize] = true;
                control.push(token.content);
            }
        }
        control.sort();
        let mut made = Self {
            tokenizer,
            template,
            control,
            special,
            ends: BTreeSet::new(),
            end: None,
            plain: OnceLock::new(),
            warnings: Vec::new(),
            digest: Digest::of("fedlora tokenizer file 1", bytes),
        };
        made.ends = made.template_ends();
        if let Ok(template) = &made.template {
            made.end = template
                .token("eos_token")
                .and_then(|token| made.token_id(token));
            made.warnings = template.warnings();
        }
        Ok(made)
    }

    /// The tokens that a template says end a text or the assistant's turn.
    fn template_ends(&self) -> BTreeSet<u32> {
        let Ok(template) = &self.template else {
            return BTreeSet::new();
        };
        let end_of_text = template.token("eos_token").and_then(|t| self.token_id(t));
        // A turn whose words mean nothing shows what the template puts after them.
        let turns = [("user", "a"), ("assistant", "b")];
        let turns = turns.map(|(role, content)| Turn::new(role, content));
        let end_of_turn = self.chat(&turns).ok().and_then(|example| {
            let counted = example.tokens().iter().zip(example.loss_mask());
            counted
                .filter_map(|(id, counts)| counts.then_some(*id))
                .rfind(|id| self.is_special(*id))
        });
        end_of_text.into_iter().chain(end_of_turn).collect()
    }

    /// One more than the highest token id: what the model's embedding must at least hold.
    pub fn vocabulary(&self) -> usize {
        self.special.len()
    }

    /// A digest of `tokenizer.json`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The id of a token by its text, such as `<|eot_id|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] for ids that are no tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|_| TokenizerError::Encode)
    }

    /// The text of token ids, control tokens included: what the model is shown.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_whole(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer
            .decode(ids, false)
            .map_err(|_| TokenizerError::Encode)
    }

    /// Whether a token is a control token, which [`decode`](Self::decode) leaves out.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// The tokens after which nothing more is to be generated, in ascending order: the ends of
    /// text that the base's configuration names, and what its template ends a turn with.
    pub fn end_tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().copied()
    }

    /// Whether the base has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_ok()
    }

    /// The token ids of plain text, with what the tokenizer itself puts around a text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.tokenizer
            .encode_fast(text, true)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|_| TokenizerError::Encode)
    }

    /// Plain text as one example in which every token is a target, with what the tokenizer itself
    /// puts around a text (Llama 3: `<|begin_of_text|>` before it).
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn text(&self, text: &str) -> Result<Example, TokenizerError> {
        let tokens = self.encode_text(text)?;
        let counts = vec![true; tokens.len()];
        Ok(Example::new(tokens, counts))
    }

    /// What a user of this base should know: settings that its files do not agree on.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The token that ends a text, where the base names one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end
    }

    /// The text of the token that ends a text.
    pub(super) fn end_name(&self) -> Option<String> {
        self.tokenizer.id_to_token(self.end?)
    }

    /// Whether the text begins with a token's own text.
    pub(super) fn starts_with_token(&self, text: &str, id: u32) -> bool {
        let token = self.tokenizer.id_to_token(id);
        token.is_some_and(|token| text.starts_with(&token))
    }

    /// Whether the text holds the text of a control token.
    pub(super) fn holds_control(&self, text: &str) -> bool {
        self.control.iter().any(|token| text.contains(token))
    }

    /// A chat as one example in which the assistant's tokens are the targets, each turn up to and
    /// with the special token that ends it. A token that reaches into a turn from before it does not
    /// count. Where the template marks the assistant's text itself, the marks decide.
    ///
    /// The text of a control token within a turn stays text: it ends no turn and begins none.
    ///
    /// # Errors
    /// [`TokenizerError::Template`] when there is no template or it refuses the turns.
    pub fn chat<'a>(&self, chat: impl Into<ChatRef<'a>>) -> Result<Example, TokenizerError> {
        self.chat_as_shown(chat.into()).map(|shown| shown.example)
    }

    /// The same with the text that the tokens are of.
    pub(super) fn chat_as_shown(&self, chat: ChatRef<'_>) -> Result<ShownChat, TokenizerError> {
        let template = self.template()?;
        let holds_control = self.holds_control_text(chat);
        if holds_control {
            let plain = self.plain();
            let turns = plain.hidden(chat.turns);
            let chat = ChatRef {
                turns: &turns,
                ..chat
            };
            let rendered = template.render_responses(chat)?;
            let encoded = plain.encode(&rendered.text, &rendered.found);
            let (ids, offsets, found) = encoded.ok_or(TokenizerError::Encode)?;
            return Ok(ShownChat {
                example: self.counted(&ids, &offsets, &found),
                text: plain.shown(&rendered.text),
                missed: rendered.missed,
                holds_control,
            });
        }
        let rendered = template.render_responses(chat)?;
        let encoding = self
            .tokenizer
            .encode(rendered.text.as_str(), false)
            .map_err(|_| TokenizerError::Encode)?;
        let example = self.counted(encoding.get_ids(), encoding.get_offsets(), &rendered.found);
        Ok(ShownChat {
            example,
            text: rendered.text,
            missed: rendered.missed,
            holds_control,
        })
    }

    fn holds_control_text(&self, chat: ChatRef<'_>) -> bool {
        chat.turns
            .iter()
            .any(|turn| self.holds_control(&turn.content))
    }

    fn plain(&self) -> &PlainTokenizer {
        let make = || PlainTokenizer::new(&self.tokenizer, &self.control);
        self.plain.get_or_init(make)
    }

    /// An example whose targets are the tokens of the responses.
    fn counted(&self, ids: &[u32], offsets: &[(usize, usize)], found: &[Response]) -> Example {
        let mut counts = vec![false; ids.len()];
        for response in found {
            let text = &response.text;
            if response.marked {
                // As Transformers: from the token with the first character to that with the last.
                for (count, (start, end)) in counts.iter_mut().zip(offsets) {
                    *count |= *start < text.end && *end > text.start;
                }
                continue;
            }
            let inside = offsets
                .iter()
                .enumerate()
                .filter(|(_, (start, end))| {
                    *start >= text.start && *end > text.start && *end <= text.end
                })
                .map(|(index, _)| index);
            for index in inside {
                counts[index] = true;
                // A header before the words, in templates without a prompt for the turn, ends
                // nothing.
                if offsets[index].0 >= response.words_end && self.is_special(ids[index]) {
                    break;
                }
            }
        }
        Example::new(ids.to_vec(), counts)
    }

    /// What of a chat its rendered text does not show.
    ///
    /// # Errors
    /// [`LineProblem::CallAlone`] for a turn of which nothing is left.
    pub(super) fn left_out(
        &self,
        chat: ChatRef<'_>,
        text: &str,
    ) -> Result<Vec<super::dropped::LeftOut>, LineProblem> {
        match &self.template {
            Ok(template) => super::responses::left_out(template, chat, text),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The tokens that ask the assistant for its next turn.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub fn prompt<'a>(&self, chat: impl Into<ChatRef<'a>>) -> Result<Vec<u32>, TokenizerError> {
        let chat = chat.into();
        let template = self.template()?;
        if self.holds_control_text(chat) {
            let plain = self.plain();
            let turns = plain.hidden(chat.turns);
            let chat = ChatRef {
                turns: &turns,
                ..chat
            };
            let text = template.render(chat, true)?;
            let encoded = plain.encode(&text, &[]).ok_or(TokenizerError::Encode)?;
            return Ok(encoded.0);
        }
        let text = template.render(chat, true)?;
        self.tokenizer
            .encode_fast(text.as_str(), false)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|_| TokenizerError::Encode)
    }

    fn template(&self) -> Result<&ChatTemplate, TemplateError> {
        self.template.as_ref().map_err(|_| self.no_template())
    }

    /// What to say where a template is missing.
    pub(super) fn no_template(&self) -> TemplateError {
        TemplateError::Missing {
            folder: self.template.as_ref().err().cloned().unwrap_or_default(),
        }
    }

    /// Refuses text that holds a control token's: the tokenizer would take it for the token,
    /// and a record could then end its own turn and begin another.
    ///
    /// # Errors
    /// [`LineProblem::ControlToken`] with `field` as it was given.
    pub fn refuse_control(&self, text: &str, field: &str) -> Result<(), LineProblem> {
        match self.control.iter().find(|token| text.contains(*token)) {
            None => Ok(()),
            Some(token) => Err(LineProblem::ControlToken {
                field: field.to_owned(),
                token: token.clone(),
            }),
        }
    }
}

/// A chat's example, and how its text came about.
pub(super) struct ShownChat {
    pub(super) example: Example,
    /// What the template makes of the chat.
    pub(super) text: String,
    /// Turns to train on that cannot be told from the rest.
    pub(super) missed: usize,
    /// Whether a turn holds the text of a control token.
    pub(super) holds_control: bool,
}

/// The ends of text that a folder's configurations name; what cannot be read names none.
fn configured_ends(folder: &Path) -> Vec<u32> {
    let ids = |file: &str| {
        let bytes = std::fs::read(folder.join(file)).ok()?;
        let config: Value = serde_json::from_slice(&bytes).ok()?;
        let named = match &config["eos_token_id"] {
            Value::Array(ids) => ids.clone(),
            one => vec![one.clone()],
        };
        let ids = named.iter().filter_map(Value::as_u64);
        Some(ids.filter_map(|id| u32::try_from(id).ok()).collect())
    };
    ["generation_config.json", "config.json"]
        .into_iter()
        .filter_map(ids)
        .collect::<Vec<Vec<u32>>>()
        .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_those_of_configuration_and_template() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
        let pipeline = TextPipeline::from_folder(&base).unwrap();
        let named = ["<|end_of_text|>", "<|eot_id|>"].map(|t| pipeline.token_id(t).unwrap());
        assert_eq!(pipeline.end_tokens().collect::<Vec<_>>(), named);
        assert!(pipeline.is_special(named[0]));
        assert!(!pipeline.is_special(0) && !pipeline.is_special(u32::MAX));

        let folder = tempfile::tempdir().unwrap();
        let copy = |file: &str| std::fs::copy(base.join(file), folder.path().join(file)).unwrap();
        copy("tokenizer.json");
        let bare = TextPipeline::from_folder(folder.path()).unwrap();
        assert!(!bare.has_template());
        assert_eq!(bare.end_tokens().count(), 0);
        let template =
            "{{ bos_token }}{% for m in messages %}{{ m.content }}<|eom_id|>{% endfor %}";
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let own = TextPipeline::from_folder(folder.path()).unwrap();
        let end = own.token_id("<|eom_id|>").unwrap();
        assert_eq!(own.end_tokens().collect::<Vec<_>>(), [end]);
    }

    #[test]
    fn a_missing_or_broken_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = TextPipeline::from_folder(folder.path()).unwrap_err();
        assert!(matches!(missing, TokenizerError::Io { .. }));
        std::fs::write(folder.path().join("tokenizer.json"), "{\"model\": 7}").unwrap();
        let broken = TextPipeline::from_folder(folder.path()).unwrap_err();
        assert!(matches!(broken, TokenizerError::Format { .. }));
    }
}

#[cfg(test)]
#[path = "differential_tests.rs"]
mod differential;
