//! Token ids that come one at a time, as text that never ends within a character.

use super::tokenizer::{TextPipeline, TokenizerError};

/// What a decoder shows for bytes that are no character, or not yet one.
const NO_CHARACTER: char = char::REPLACEMENT_CHARACTER;
/// Bytes of the longest character: more of them in a row will not become one.
const LONGEST_CHARACTER: usize = 4;

/// The text of a growing sequence of tokens.
///
/// How a token reads depends on those before it (a space at the beginning is left out, a
/// character may take several tokens), so some are kept to be decoded along with the next.
pub struct TextStream<'a> {
    pipeline: &'a TextPipeline,
    /// Tokens that are still decoded: those of the last text given out, and newer ones.
    ids: Vec<u32>,
    /// Where the newer ones begin.
    newer: usize,
    /// What of their text has been given out.
    shown: String,
}

impl TextPipeline {
    /// The text of token ids that come one at a time.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }
}

impl<'a> TextStream<'a> {
    fn new(pipeline: &'a TextPipeline) -> Self {
        Self {
            pipeline,
            ids: Vec::new(),
            newer: 0,
            shown: String::new(),
        }
    }

    /// Takes the next token and gives the text that is certain by now; it may be empty. Control
    /// tokens have none.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] for an id that is no token.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let rest = self.rest()?;
        let certain = rest.trim_end_matches(NO_CHARACTER);
        let held = rest.len() - certain.len();
        if held > LONGEST_CHARACTER * NO_CHARACTER.len_utf8() || (held == 0 && !rest.is_empty()) {
            self.ids.drain(..self.newer);
            self.newer = self.ids.len();
            self.shown = self.pipeline.decode(&self.ids)?;
            return Ok(rest);
        }
        self.shown.push_str(certain);
        Ok(certain.to_owned())
    }

    /// The text that was held back for want of the rest of a character.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.rest()
    }

    fn rest(&self) -> Result<String, TokenizerError> {
        let all = self.pipeline.decode(&self.ids)?;
        match all.strip_prefix(self.shown.as_str()) {
            Some(rest) => Ok(rest.to_owned()),
            // A broken run of bytes can change how those before it read: they stay as shown.
            None => self.pipeline.decode(&self.ids[self.newer..]),
        }
    }
}

impl std::fmt::Debug for TextStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextStream({} tokens kept)", self.ids.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::LazyLock;

    use super::*;

    static PIPELINE: LazyLock<TextPipeline> = LazyLock::new(|| {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
        TextPipeline::from_folder(&base).unwrap()
    });

    fn parts(pipeline: &TextPipeline, ids: &[u32]) -> Vec<String> {
        let mut stream = pipeline.stream();
        let mut parts: Vec<_> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        parts.push(stream.finish().unwrap());
        parts
    }

    #[test]
    fn characters_of_several_tokens_come_whole() {
        let pipeline = &*PIPELINE;
        let text = "a buffer \u{1f600}\u{1f600} naïve 漢字 e\u{301} end";
        let ids = pipeline.encode_text(text).unwrap();
        let parts = parts(pipeline, &ids);
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().any(String::is_empty), "none was held back");
        assert!(parts.iter().all(|part| !part.contains(NO_CHARACTER)));
    }

    #[test]
    fn half_a_character_comes_at_the_end_and_ids_that_are_no_tokens_have_no_text() {
        let pipeline = &*PIPELINE;
        let ids = pipeline.encode_text("x\u{1f600}").unwrap();
        let cut = &ids[..ids.len() - 1];
        let parts = parts(pipeline, cut);
        assert_eq!(parts.last().unwrap(), "\u{fffd}");
        assert_eq!(parts.concat(), pipeline.decode(cut).unwrap());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn parts_make_up_the_text(text in "\\PC{0,60}") {
            let pipeline = &*PIPELINE;
            let ids = pipeline.encode_text(&text).unwrap();
            proptest::prop_assert_eq!(parts(pipeline, &ids).concat(), pipeline.decode(&ids).unwrap());
        }

        #[test]
        fn any_tokens_are_taken(ids in proptest::collection::vec(0u32..3072, 0..60)) {
            let parts = parts(&PIPELINE, &ids);
            proptest::prop_assert_eq!(parts.len(), ids.len() + 1);
        }
    }
}
