//! What the HTML pages of the programs share: escaped text, and what a plot is drawn by. The pages
//! themselves belong to the programs.

mod labels;
mod scale;

use std::fmt::{self, Display, Formatter, Write};

pub use labels::{spread, width};
pub use scale::{Scale, Span};

/// Text that is escaped where it is printed, for the content of an element and for quoted attributes.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Neither HTML nor XML can hold them.
                c if c.is_control() && c != '\n' && c != '\t' => f.write_char('\u{fffd}')?,
                // They would turn the text around them.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_text() {
        let text = Text("<script>alert(\"x\" & 'y')</script>\u{0}\u{202e}").to_string();
        assert_eq!(
            text,
            "&lt;script&gt;alert(&quot;x&quot; &amp; &#39;y&#39;)&lt;/script&gt;\u{fffd}\u{fffd}"
        );
    }
}
