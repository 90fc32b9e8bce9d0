//! Whether a file is the one that the hub announced.
//!
//! The hub names a file by its content: what is stored outside Git by its SHA-256, what is
//! inside by Git's object name, SHA-1 over `blob LENGTH NUL` and the content. Mirrors that name
//! by the content's plain SHA-1 are served too. A name of another form says nothing to check;
//! then the length and the connection's own integrity are what there is.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A check that runs along with a transfer.
pub(super) struct Check {
    announced: Vec<u8>,
    sums: Vec<Context>,
}

impl Check {
    /// For a file of `size` bytes that is announced as `etag`.
    pub(super) fn new(etag: &str, size: u64) -> Self {
        let announced = hex::decode(etag).unwrap_or_default();
        let sums = match announced.len() {
            32 => vec![Context::new(&SHA256)],
            20 => {
                let mut git = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                git.update(format!("blob {size}\0").as_bytes());
                vec![git, Context::new(&SHA1_FOR_LEGACY_USE_ONLY)]
            }
            _ => Vec::new(),
        };
        Self { announced, sums }
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for sum in &mut self.sums {
            sum.update(bytes);
        }
    }

    /// Whether they were the right ones.
    pub(super) fn holds(self) -> bool {
        self.sums.is_empty()
            || self
                .sums
                .into_iter()
                .any(|sum| sum.finish().as_ref() == self.announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(etag: &str, content: &[u8]) -> bool {
        let mut check = Check::new(etag, content.len() as u64);
        for part in content.chunks(3) {
            check.update(part);
        }
        check.holds()
    }

    #[test]
    fn known_names_of_content() {
        // `printf 'hello\n' | git hash-object --stdin`, `sha1sum`, `sha256sum`.
        let content = b"hello\n";
        for name in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "f572d396fae9206628714fb2ce00f72e94f2258f",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            assert!(holds(name, content), "{name}");
            assert!(!holds(name, b"hellO\n"), "{name}");
            assert!(!holds(name, b"hello"), "{name}");
        }
        assert!(holds("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", b""));
        assert!(holds("some-other-name", content));
    }
}
