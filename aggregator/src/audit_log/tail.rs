//! The end of the log.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use fedlora_common::digest::Digest;

use super::entry::{self, Entry};

/// The longest line, in bytes: a path and two digests take less.
const MAX_LINE: u64 = 64 * 1024;

/// The newest line, and where it ends.
#[derive(Debug)]
pub(super) struct Tail {
    /// The newest whole line.
    pub(super) last: Option<Entry>,
    /// Its digest; zeros before the first.
    pub(super) head: Digest,
    /// Where the whole lines end, where a part of another follows.
    pub(super) torn: Option<u64>,
}

impl Tail {
    /// Reads the end of a log, which may be missing.
    ///
    /// # Errors
    /// Any I/O error; [`ErrorKind::InvalidData`] for a last line that is no entry.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut tail = Self {
            last: None,
            head: Digest::from_bytes([0; 32]),
            torn: None,
        };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(tail),
            file => file?,
        };
        let length = file.metadata()?.len();
        let from = length.saturating_sub(2 * MAX_LINE);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        if whole < bytes.len() {
            tail.torn = Some(from + whole as u64);
        }
        let Some(line) = bytes[..whole].strip_suffix(b"\n") else {
            return Ok(tail);
        };
        let begin = line
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let line = &line[begin..];
        let entry = std::str::from_utf8(line)
            .map_err(|error| error.to_string())
            .and_then(|line| Entry::read(line).map(|(entry, _)| entry))
            .map_err(|reason| {
                let reason = format!("{}: the last line is no entry: {reason}", path.display());
                io::Error::new(ErrorKind::InvalidData, reason)
            })?;
        tail.head = entry::digest(line);
        tail.last = Some(entry);
        Ok(tail)
    }
}
