//! The checkpoint's own chat template, rendered as Transformers renders it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use minijinja::{Environment, ErrorKind, Value as JinjaValue};
use serde_json::Value;

use super::jinja::environment;
use super::records::Turn;
use super::template_source::prepared;

const NAME: &str = "chat";
/// Largest text, in bytes, that one rendering may make.
const MAX_RENDERED: usize = 256 << 20;
/// Special tokens that templates use by these names.
const TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

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
        "the chat template changes earlier turns when a later one follows, so that the response \
         cannot be told from the prompt: give a template whose turns only add text"
    )]
    NotIncremental,
}

/// A turn as templates see it, its fields in this order.
#[derive(serde::Serialize)]
struct TemplateMessage<'a> {
    role: &'a str,
    content: &'a str,
}

/// An assistant's turn in a rendered chat, in bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// All that the template puts there for the turn.
    pub text: Range<usize>,
    /// Where the turn's own words end in it; its beginning where the template changes them.
    pub words_end: usize,
}

/// A compiled chat template with the special tokens that it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
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
        let tokens = TOKENS
            .into_iter()
            .filter_map(|name| {
                let value = &config[name];
                let text = value.as_str().or_else(|| value["content"].as_str())?;
                Some((name.to_owned(), text.to_owned()))
            })
            .collect();
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
        environment
            .add_template_owned(NAME, prepared(source))
            .map_err(|error| TemplateError::Syntax {
                what: error.to_string(),
                line: error.line().unwrap_or_default(),
            })?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            tokens,
        })
    }

    /// The text of a special token by the name that templates use, such as `eos_token`.
    pub fn token(&self, name: &str) -> Option<&str> {
        self.tokens.get(name).map(String::as_str)
    }

    /// Renders turns; `prompt` adds what precedes the assistant's next turn.
    ///
    /// # Errors
    /// [`TemplateError::Render`], which shows the template's words and never the record's.
    pub fn render(&self, turns: &[Turn], prompt: bool) -> Result<String, TemplateError> {
        let messages: Vec<_> = turns
            .iter()
            .map(|turn| {
                JinjaValue::from_serialize(TemplateMessage {
                    role: turn.role,
                    content: &turn.content,
                })
            })
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
                let unknown = error.kind() == ErrorKind::UnknownMethod;
                let name = error.detail().filter(|_| unknown)?.rsplit(' ').next()?;
                let called = self.source.contains(&format!(".{name}("));
                called.then(|| format!("{} '{name}'", error.kind()))
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

    /// Renders a chat and finds the assistant's turns in it: what the template adds between
    /// the prompt for a turn and the end of that turn, in bytes of the text.
    ///
    /// # Errors
    /// [`TemplateError::NotIncremental`] when the turns do not only add text, and what
    /// [`render`](Self::render) gives.
    pub fn render_responses(
        &self,
        turns: &[Turn],
    ) -> Result<(String, Vec<Response>), TemplateError> {
        let text = self.render(turns, false)?;
        let mut responses = Vec::new();
        for (index, turn) in turns
            .iter()
            .enumerate()
            .filter(|(_, turn)| turn.role == "assistant")
        {
            let before = self.render(&turns[..index], true)?;
            let through = self.render(&turns[..=index], false)?;
            if !through.starts_with(&before) || !text.starts_with(&through) {
                return Err(TemplateError::NotIncremental);
            }
            let text = before.len()..through.len();
            let words = turn.content.trim();
            let words_end = match through[text.clone()].find(words) {
                Some(start) => text.start + start + words.len(),
                None => text.start,
            };
            responses.push(Response { text, words_end });
        }
        Ok((text, responses))
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
            .map(|(role, content)| Turn {
                role,
                content: content.to_owned(),
            })
            .to_vec()
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, BTreeMap::from([("bos_token".into(), "<s>".into())])).unwrap()
    }

    const CHATML: &str = "{% for m in messages %}\n<|im_start|>{{ m.role }}\n\
        {{ m['content'].strip() }}<|im_end|>\n{% endfor %}\n\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    #[test]
    fn the_response_is_what_follows_the_prompt() {
        let (text, responses) = template(CHATML).render_responses(&chat()).unwrap();
        let [response] = responses.as_slice() else {
            panic!("one response")
        };
        assert_eq!(&text[response.text.clone()], "SECRET answer<|im_end|>\n");
        assert!(text[..response.words_end].ends_with("SECRET answer"));
        assert!(text.starts_with("<|im_start|>user\nSECRET question<|im_end|>\n<|im_start|>"));
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
            let (content, _) = parse_line(line.as_bytes()).unwrap().unwrap();
            let Content::Chat(turns) = content else {
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
    fn a_template_that_rewrites_earlier_turns_is_refused() {
        let rewriting = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
        let refused = template(rewriting).render_responses(&chat());
        assert!(matches!(refused, Err(TemplateError::NotIncremental)));
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
