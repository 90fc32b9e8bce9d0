//! Pages of documentation: those that a test generates, and the commands in the others.

use std::fs;
use std::path::{Path, PathBuf};

use crate::repository;

/// Compares a generated page of `docs/reference` with the committed one. With `FEDLORA_BLESS=1` in the
/// environment it writes the page instead.
///
/// # Panics
/// Where they differ.
pub fn compare_page(name: &str, generated: &str) {
    let path = repository().join("docs/reference").join(name);
    if std::env::var_os("FEDLORA_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, generated).expect("a page can be written");
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed
        .lines()
        .zip(generated.lines())
        .find(|(old, new)| old != new);
    assert!(
        committed == generated,
        "docs/reference/{name} is stale: run this test with FEDLORA_BLESS=1\nfirst difference: {differs:?}"
    );
}

/// A fenced block of a page.
#[derive(Debug)]
pub struct Block {
    /// The page.
    pub page: PathBuf,
    /// The line of its fence, from 1.
    pub line: usize,
    /// What stands behind the fence.
    pub info: String,
    /// Whether a comment above says why it is not run.
    pub has_reason: bool,
    /// Its lines.
    pub text: String,
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the block at {}:{}", self.page.display(), self.line)
    }
}

/// A page's fenced blocks, in order.
#[derive(Debug)]
pub struct Page {
    /// The blocks.
    pub blocks: Vec<Block>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Panics
    /// Where it cannot be read, or a block is not closed.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut blocks: Vec<Block> = Vec::new();
        let mut open = false;
        let mut above = "";
        for (number, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), open) {
                (Some(info), false) => {
                    open = true;
                    blocks.push(Block {
                        page: path.to_owned(),
                        line: number + 1,
                        info: info.trim().to_owned(),
                        has_reason: above.starts_with("<!-- no-run: "),
                        text: String::new(),
                    });
                }
                (Some(_), true) => open = false,
                (None, true) => {
                    let block = blocks.last_mut().expect("an open block was pushed");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, false) => {}
            }
            above = line;
        }
        assert!(!open, "{}: a block is not closed", path.display());
        Self { blocks }
    }
}
