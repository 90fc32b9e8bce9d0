//! Examples as the model sees them, with their target tokens marked.

use fedlora_data::TextPipeline;
use fedlora_model::Example;
use fedlora_shell::stdout_is_rich;

use super::numbers::{grouped, line};

/// Characters of a stretch of text that are shown; of a longer one, its two ends.
const SHOWN: usize = 1600;

/// How target tokens are told from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Green and underlined.
    Colour,
    /// Between `[[` and `]]`.
    Brackets,
}

impl Marks {
    /// Those that standard output takes.
    pub(super) fn of_output() -> Self {
        match stdout_is_rich() {
            true => Self::Colour,
            false => Self::Brackets,
        }
    }
}

/// An example to show. It holds private text, which goes to the member's own terminal alone.
pub(super) struct ShownExample {
    place: String,
    tokens: usize,
    target: usize,
    /// Stretches of text, and whether their tokens are target tokens.
    stretches: Vec<(String, bool)>,
}

impl ShownExample {
    pub(super) fn of(example: &Example, place: String, pipeline: &TextPipeline) -> Self {
        let (tokens, loss) = (example.tokens(), example.loss_mask());
        let mut stretches = Vec::new();
        let (mut start, mut before) = (0, String::new());
        while start < tokens.len() {
            let run = loss[start..]
                .iter()
                .take_while(|&&c| c == loss[start])
                .count();
            let end = start + run;
            // Decoded behind all that precedes it: tokens may depend on it.
            let through = pipeline.decode_whole(&tokens[..end]).unwrap_or_default();
            let text = match through.strip_prefix(&before) {
                Some(text) => text.to_owned(),
                None => pipeline
                    .decode_whole(&tokens[start..end])
                    .unwrap_or_default(),
            };
            stretches.push((text, loss[start]));
            (start, before) = (end, through);
        }
        Self {
            place,
            tokens: tokens.len(),
            target: example.target_tokens(),
            stretches,
        }
    }

    /// Appends the example, `number` of those shown.
    pub(super) fn write(&self, out: &mut String, number: usize, marks: Marks) {
        let (tokens, target) = (grouped(self.tokens), grouped(self.target));
        line(
            out,
            format_args!(
                "  {number}. {}: {tokens} tokens, {target} of them trained on",
                self.place
            ),
        );
        let mut text = String::new();
        for (stretch, is_target) in &self.stretches {
            let stretch = printable(&shortened(stretch));
            match (is_target, marks) {
                (false, _) => text.push_str(&stretch),
                (true, Marks::Brackets) => {
                    text.push_str("[[");
                    text.push_str(&stretch);
                    text.push_str("]]");
                }
                (true, Marks::Colour) => {
                    // Each line by itself, so that the margin stays as it is.
                    let lines: Vec<_> = stretch
                        .split('\n')
                        .map(|line| match line {
                            "" => String::new(),
                            line => format!("\x1b[32;4m{line}\x1b[0m"),
                        })
                        .collect();
                    text.push_str(&lines.join("\n"));
                }
            }
        }
        for row in text.split('\n') {
            line(out, format_args!("     | {row}"));
        }
    }
}

/// The two ends of a text that is too long.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHOWN / 2).collect();
    let end: String = text.chars().skip(count - SHOWN / 2).collect();
    let left_out = grouped(count - SHOWN / 2 * 2);
    format!("{start}\n... {left_out} characters ...\n{end}")
}

/// The text with control characters escaped, so that it cannot command a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn text_that_would_command_the_terminal_is_made_harmless() {
        assert_eq!(printable("a\x1b[2Jb\tc\nd\r"), "a\\u{1b}[2Jb\tc\nd\\u{d}");
        let long = "x".repeat(SHOWN + 500);
        let short = shortened(&long);
        assert!(short.contains("... 500 characters ..."));
        assert_eq!(shortened(&short[..100]), short[..100]);
    }

    #[test]
    fn what_is_trained_on_is_marked() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/assets/base");
        let pipeline = TextPipeline::from_folder(&base).unwrap();
        let turns = [("user", "Why?"), ("assistant", "So.\nIndeed.")]
            .map(|(role, content)| fedlora_data::Turn::new(role, content));
        let example = pipeline.chat(&turns).unwrap();
        let shown = ShownExample::of(&example, "f.jsonl:3".to_owned(), &pipeline);
        let rendered = |marks| {
            let mut out = String::new();
            shown.write(&mut out, 1, marks);
            out
        };
        let plain = rendered(Marks::Brackets);
        let (head, text) = plain.split_once('\n').unwrap();
        assert!(
            head.starts_with("  1. f.jsonl:3: ") && head.ends_with("trained on"),
            "{head}"
        );
        assert_eq!(
            text,
            "     | <|begin_of_text|><|start_header_id|>user<|end_header_id|>\n     |\n     | \
             Why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n     |\n     | \
             [[So.\n     | Indeed.<|eot_id|>]]\n"
        );
        let coloured = rendered(Marks::Colour);
        assert!(coloured.contains("| \x1b[32;4mSo.\x1b[0m\n     | \x1b[32;4mIndeed."));
    }
}
