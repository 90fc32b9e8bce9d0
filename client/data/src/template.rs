//! The checkpoint's own chat template, rendered as Transformers renders it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use minijinja::{Environment, ErrorKind, Value as JinjaValue};
use serde_json::Value;

use super::chat::{ChatRef, Turn, Written};
use super::dropped::Warning;
use super::jinja::{GENERATED, environment};
use super::responses::{self, Responses};
use super::special_tokens;
use super::template_source::{GENERATION, prepared};

const NAME: &str = "chat";
/// Largest text, in bytes, that one rendering may make.
const MAX_RENDERED: usize = 256 << 20;
/// Why there is no chat template, or why it cannot render.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file that cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The path of the file.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// `tokenizer_config.json` is not a JSON object.
    #[error("{file} is not a JSON object: broken at line {line}, column {column}")]
    Json {
        /// The path of `tokenizer_config.json`.
        file: String,
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1.
        column: usize,
    },
    /// The base has no template.
    #[error(
        "{folder} has no chat template: put one into tokenizer_config.json (\"chat_template\") or \
         chat_template.jinja, use the instruction-tuned variant of the base, or give records of \
         plain \"text\""
    )]
    Missing {
        /// The base's folder.
        folder: String,
    },
    /// Not Jinja, or Jinja that is not supported.
    #[error("the chat template cannot be read: {what} at line {line}")]
    Syntax {
        /// What kind of error.
        what: String,
        /// Line of the template, from 1; 0 where none is known.
        line: usize,
    },
    /// The template raised an error, or asks for what is not supported.
    #[error("the chat template refuses this record: {what} at its line {line}")]
    Render {
        /// What kind of error, or the template's own message.
        what: String,
        /// Line of the template, from 1; 0 where none is known.
        line: usize,
    },
    /// The assistant's text cannot be told from the rest.
    #[error(
        "the chat template does not show the words of turn {turn}, the assistant's, as the record \
         has them: it leaves the turn out, or writes it in another way in each rendering"
    )]
    NoTurn {
        /// The first such turn, from 1.
        turn: usize,
    },
}

/// A compiled chat template with the special tokens that it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// Whether it marks the assistant's text itself.
    marks: bool,
    tokens: BTreeMap<String, String>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads the template of a Hugging Face folder: `chat_template.jinja`, or `chat_template`
    /// in `tokenizer_config.json`, there the one named `default` if it has several.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] when the folder has none, others when it cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, TemplateError> {
        let file = folder.join("tokenizer_config.json");
        let config = match read(&file)? {
            None => Value::Null,
            Some(text) => serde_json::from_str(&text).map_err(|error| TemplateError::Json {
                file: file.display().to_string(),
                line: error.line(),
                column: error.column(),
            })?,
        };
        let tokens = special_tokens::named(folder, &config);
        let source = match read(&folder.join("chat_template.jinja"))? {
            Some(source) => Some(source),
            None => in_config(&config["chat_template"]),
        };
        let source = source.ok_or_else(|| TemplateError::Missing {
            folder: folder.display().to_string(),
        })?;
        Self::new(&source, tokens)
    }

    /// Compiles a template. `tokens` maps `bos_token` and the like to their text.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let mut environment = environment();
        let prepared = prepared(source);
        let marks = prepared.contains(GENERATION);
        environment
            .add_template_owned(NAME, prepared)
            .map_err(|error| TemplateError::Syntax {
                what: error.to_string(),
                line: error.line().unwrap_or_default(),
            })?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            marks,
            tokens,
        })
    }

    /// Whether the template's source holds a name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    /// The text of a special token by the name that templates use, such as `eos_token`.
    pub fn token(&self, name: &str) -> Option<&str> {
        self.tokens.get(name).map(String::as_str)
    }

    /// What a user of the template should know: a token that it asks for and nothing names, and a
    /// prompt for a turn that turns do not begin with.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for name in ["bos_token", "eos_token"] {
            if self.names(name) && !self.tokens.contains_key(name) {
                warnings.push(Warning {
                    kind: "special_token",
                    text: format!(
                        "the chat template uses {name}, which neither tokenizer_config.json nor \
                         special_tokens_map.json names: it is written as nothing"
                    ),
                });
            }
        }
        let turns = [("user", "a"), ("assistant", "b")].map(|(role, said)| Turn::new(role, said));
        if let (Ok(asked), Ok(said)) = (self.render(&turns[..1], true), self.render(&turns, false))
            && !said.starts_with(&asked)
        {
            let same = asked.chars().zip(said.chars()).take_while(|(a, b)| a == b);
            let opened: String = asked.chars().skip(same.count()).collect();
            if !opened.trim().is_empty() {
                warnings.push(Warning {
                    kind: "generation_prompt",
                    text: format!(
                        "the chat template asks for a turn with {opened:?}, which the turns to \
                         train on do not begin with: the model is trained on other text than it \
                         is asked with"
                    ),
                });
            }
        }
        warnings
    }

    /// Renders turns; `prompt` adds what precedes the assistant's next turn.
    ///
    /// # Errors
    /// [`TemplateError::Render`], which shows the template's words and never the record's.
    pub fn render<'a>(
        &self,
        chat: impl Into<ChatRef<'a>>,
        prompt: bool,
    ) -> Result<String, TemplateError> {
        let text = self.rendered(chat.into(), prompt)?;
        Ok(match self.marks {
            true => text.replace(GENERATED, ""),
            false => text,
        })
    }

    /// Renders turns; gives what `{% generation %}` marks too, in bytes of the text.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub(super) fn render_marked(
        &self,
        chat: ChatRef<'_>,
    ) -> Result<(String, Vec<Range<usize>>), TemplateError> {
        let marked = self.rendered(chat, false)?;
        if !self.marks {
            return Ok((marked, Vec::new()));
        }
        let mut text = String::with_capacity(marked.len());
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for part in marked.split_inclusive(GENERATED) {
            text.push_str(part.trim_end_matches(GENERATED));
            let here = text.len();
            let [begin, end] = GENERATED;
            match (part.chars().next_back(), ranges.last_mut()) {
                (Some(mark), _) if mark == begin => ranges.push(here..usize::MAX),
                (Some(mark), Some(open)) if mark == end => open.end = here,
                _ => {}
            }
        }
        ranges.retain(|range| range.start < range.end && range.end <= text.len());
        Ok((text, ranges))
    }

    /// Renders turns as they are. A content that is null or missing is none to the template, as
    /// in Transformers, unless it then shows the word `None` or refuses it: there it is empty.
    fn rendered(&self, chat: ChatRef<'_>, prompt: bool) -> Result<String, TemplateError> {
        let whole = chat.turns.iter().all(|turn| turn.written == Written::Text);
        let first = self.render_as(chat, prompt, true);
        if whole {
            return first;
        }
        let nones = |text: &String| text.matches("None").count();
        match (first, self.render_as(chat, prompt, false)) {
            (Ok(first), Ok(empty)) if nones(&first) > nones(&empty) => Ok(empty),
            (Err(_), Ok(empty)) => Ok(empty),
            (first, _) => first,
        }
    }

    /// A turn as the template sees it.
    fn message(&self, turn: &Turn, as_written: bool) -> JinjaValue {
        let quoted =
            |name: &str| self.names(&format!("'{name}'")) || self.names(&format!("\"{name}\""));
        // A template that knows the record's own name for a role gets it.
        let role = turn
            .alias
            .filter(|alias| quoted(alias))
            .unwrap_or(turn.role);
        let content = match turn.written {
            Written::Null if as_written => Some(JinjaValue::from(())),
            Written::Missing if as_written => None,
            _ => Some(turn.content.as_str().into()),
        };
        let Some(message) = &turn.message else {
            let pairs = [("role", Some(role.into())), ("content", content)];
            return pairs
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect();
        };
        let (mut role, mut content) = (Some(JinjaValue::from(role)), content);
        let mut pairs = Vec::new();
        for key in message.try_iter().into_iter().flatten() {
            let value = match key.as_str() {
                Some("role") => role.take(),
                Some("content") => content.take(),
                _ => message.get_item(&key).ok(),
            };
            pairs.extend(value.map(|value| (key, value)));
        }
        let rest = [("role", role), ("content", content)];
        let rest = rest
            .into_iter()
            .filter_map(|(key, value)| Some((key.into(), value?)));
        rest.chain(pairs).collect()
    }

    fn render_as(
        &self,
        chat: ChatRef<'_>,
        prompt: bool,
        as_written: bool,
    ) -> Result<String, TemplateError> {
        let messages: Vec<_> = chat
            .turns
            .iter()
            .map(|turn| self.message(turn, as_written))
            .collect();
        let mut context: BTreeMap<&str, JinjaValue> = self
            .tokens
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str().into()))
            .collect();
        context.insert("messages", messages.into());
        context.insert("add_generation_prompt", prompt.into());
        context.insert("tools", ().into());
        context.insert("documents", ().into());
        for (name, value) in chat.context.map_or(&[][..], |context| &context.0) {
            context.insert(name, value.clone());
        }
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            let mut text = BoundedText::default();
            template.render_captured_to(context, &mut text)?;
            let broken = |_| minijinja::Error::new(ErrorKind::WriteFailure, "not UTF-8");
            String::from_utf8(text.0).map_err(broken)
        });
        rendered.map_err(|error| {
            // A message that stands in the template word for word is the template's; any
            // other could carry part of the record.
            let own = error.detail().filter(|text| self.source.contains(*text));
            let method = || {
                let mut words = error.detail()?.split(' ');
                let name = match error.kind() {
                    ErrorKind::UnknownMethod => words.next_back()?,
                    // "filter x is unknown", and the same of tests; "x is unknown".
                    ErrorKind::UnknownFilter | ErrorKind::UnknownTest => words.nth(1)?,
                    ErrorKind::UnknownFunction => words.next()?,
                    _ => return None,
                };
                self.names(name)
                    .then(|| format!("{} '{name}'", error.kind()))
            };
            TemplateError::Render {
                what: own
                    .map(str::to_owned)
                    .or_else(method)
                    .unwrap_or_else(|| error.kind().to_string()),
                line: error.line().unwrap_or_default(),
            }
        })
    }

    /// Renders a chat and finds the assistant's turns in it.
    ///
    /// # Errors
    /// [`TemplateError::NoTurn`] where none of the turns can be told from the rest, and what
    /// [`render`](Self::render) gives.
    pub fn render_responses<'a>(
        &self,
        chat: impl Into<ChatRef<'a>>,
    ) -> Result<Responses, TemplateError> {
        responses::find(self, chat.into())
    }
}

/// A rendered text of at most [`MAX_RENDERED`] bytes.
#[derive(Default)]
struct BoundedText(Vec<u8>);

impl Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read(file: &Path) -> Result<Option<String>, TemplateError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Io {
            file: file.display().to_string(),
            source,
        }),
    }
}

fn in_config(value: &Value) -> Option<String> {
    let named = |entry: &&Value| entry["name"] == "default";
    let text = match value {
        Value::Array(entries) => &entries.iter().find(named)?["template"],
        other => other,
    };
    text.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::records::{Content, parse_line};
    use super::*;

    fn chat() -> Vec<Turn> {
        [("user", "SECRET question"), ("assistant", "SECRET answer")]
            .map(|(role, content)| Turn::new(role, content))
            .to_vec()
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, BTreeMap::from([("bos_token".into(), "<s>".into())])).unwrap()
    }

    #[derive(serde::Deserialize)]
    struct TemplateGolden {
        tokens: BTreeMap<String, String>,
        cases: Vec<TemplateCase>,
    }

    #[derive(serde::Deserialize)]
    struct TemplateCase {
        name: String,
        template: String,
        messages: Value,
        rendered: String,
        prompt: String,
    }

    #[test]
    fn templates_of_several_styles_render_as_in_transformers() {
        let golden: TemplateGolden =
            serde_json::from_str(include_str!("../../vectors/templates.json")).unwrap();
        for case in &golden.cases {
            let line = serde_json::json!({ "messages": case.messages }).to_string();
            let parsed = parse_line(line.as_bytes()).unwrap().unwrap();
            let Content::Chat(turns) = parsed.content else {
                panic!("not a chat")
            };
            let template = ChatTemplate::new(&case.template, golden.tokens.clone()).unwrap();
            let rendered = template.render(&turns, false).unwrap();
            assert_eq!(rendered, case.rendered, "{}", case.name);
            let prompt = template.render(&turns[..turns.len() - 1], true).unwrap();
            assert_eq!(prompt, case.prompt, "{}", case.name);
        }
    }

    #[test]
    fn errors_show_the_template_and_not_the_record() {
        let own = template("{{ raise_exception('Roles must alternate') }}");
        let error = own.render(&chat(), false).unwrap_err().to_string();
        assert!(
            error.contains("Roles must alternate at its line 1"),
            "{error}"
        );
        let method = template("\n{{ messages[0].content.encode() }}");
        let error = method.render(&chat(), false).unwrap_err().to_string();
        assert!(
            error.contains("unknown method 'encode' at its line 2"),
            "{error}"
        );
        for (source, said) in [
            (
                "\n{{ 'x' | striptags }}",
                "unknown filter 'striptags' at its line 2",
            ),
            (
                "{{ nothing('x') }}",
                "unknown function 'nothing' at its line 1",
            ),
            (
                "{{ 1 if 'x' is strange }}",
                "unknown test 'strange' at its line 1",
            ),
        ] {
            let error = template(source)
                .render(&chat(), false)
                .unwrap_err()
                .to_string();
            assert!(error.contains(said), "{error}");
        }
        let leaking = template("{{ raise_exception('bad: ' + messages[0].content) }}");
        let error = leaking.render(&chat(), false).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    }

    #[test]
    fn a_rendering_that_grows_without_bound_is_refused() {
        let source = "{% set x = 'x' * 50000000 %}{% for a in range(99) %}{{ x }}{% endfor %}";
        let refused = template(source).render(&chat(), false);
        assert!(matches!(refused, Err(TemplateError::Render { .. })));
    }

    #[test]
    fn broken_and_missing_templates_are_refused() {
        let broken = ChatTemplate::new("{% for %}", BTreeMap::new());
        assert!(matches!(broken, Err(TemplateError::Syntax { .. })));
        let folder = tempfile::tempdir().unwrap();
        let missing = ChatTemplate::from_folder(folder.path());
        assert!(matches!(missing, Err(TemplateError::Missing { .. })));
        std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
        let broken = ChatTemplate::from_folder(folder.path());
        assert!(matches!(broken, Err(TemplateError::Json { .. })));
    }

    #[test]
    fn a_named_default_and_a_file_of_its_own_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "bos_token": {"content": "<b>"},
            "chat_template": [
                {"name": "tool_use", "template": "no"},
                {"name": "default", "template": "{{ bos_token }}yes"},
            ],
        });
        let path = folder.path().join("tokenizer_config.json");
        std::fs::write(path, config.to_string()).unwrap();
        let named = ChatTemplate::from_folder(folder.path()).unwrap();
        assert_eq!(named.render(&chat(), false).unwrap(), "<b>yes");
        std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
        let file = ChatTemplate::from_folder(folder.path()).unwrap();
        assert_eq!(file.render(&chat(), false).unwrap(), "file");
    }

    proptest::proptest! {
        #[test]
        fn any_template_compiles_or_is_refused_and_rendering_ends(
            source in "(\\{[%{] ?(for|if|m|messages|endfor|endif|set|in|x|-|\\[|\\|)* ?[%}]\\}|\\PC){0,12}"
        ) {
            if let Ok(template) = ChatTemplate::new(&source, BTreeMap::new()) {
                let _ = template.render_responses(&chat());
            }
        }
    }
}
