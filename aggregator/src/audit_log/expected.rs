//! What the directory holds, by the log: of each file the parts that it was written in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use fedlora_common::digest::Digest;

use super::digest_of;
use super::entry::Event;

/// A part of a file, as a line of the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    at: u64,
    length: u64,
    digest: Digest,
    /// The line.
    number: u64,
}

/// The files by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected(BTreeMap<String, Vec<Part>>);

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    File(Vec<u8>),
    Folder,
}

/// How a file differs from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    Missing,
    Length { found: u64, expected: u64 },
    Content { number: u64 },
}

impl Found {
    /// Looks.
    ///
    /// # Errors
    /// Any I/O error but that nothing is there.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder);
        }
        match fs::read(path) {
            Ok(bytes) => Ok(Self::File(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Nothing),
            Err(error) => Err(error),
        }
    }
}

impl Expected {
    /// Whether the change of a line is made, by what is at its path now.
    pub(super) fn is_made(event: &Event, found: &Found) -> bool {
        match (event, found) {
            (
                Event::Found { length, digest, .. } | Event::Written { length, digest, .. },
                Found::File(bytes),
            ) => bytes.len() as u64 == *length && digest_of(bytes) == *digest,
            (Event::Found { .. } | Event::Written { .. }, _) => false,
            (
                Event::Appended {
                    at, length, digest, ..
                },
                Found::File(bytes),
            ) => {
                bytes.len() as u64 == at + length
                    && bytes.get(*at as usize..).map(digest_of) == Some(*digest)
            }
            (Event::Appended { .. }, _) => false,
            (Event::Cut { length, .. }, Found::File(bytes)) => bytes.len() as u64 == *length,
            (Event::Cut { .. }, _) => false,
            (
                Event::Renamed { .. } | Event::Removed { .. } | Event::FolderRemoved { .. },
                found,
            ) => matches!(found, Found::Nothing),
            (
                Event::Begun { .. }
                | Event::NotMade { .. }
                | Event::Pruned { .. }
                | Event::RolledBack { .. }
                | Event::Accepted { .. }
                | Event::Operators { .. }
                | Event::Approved { .. }
                | Event::Refused { .. }
                | Event::Leaves { .. }
                | Event::Started { .. },
                _,
            ) => true,
        }
    }

    /// What follows from a line with this number.
    ///
    /// # Errors
    /// A line that cannot follow the ones before.
    pub(super) fn apply(&mut self, number: u64, event: &Event) -> Result<(), String> {
        let files = &mut self.0;
        match event {
            Event::Found {
                path,
                length,
                digest,
            }
            | Event::Written {
                path,
                length,
                digest,
            } => {
                let part = Part {
                    at: 0,
                    length: *length,
                    digest: *digest,
                    number,
                };
                files.insert(path.clone(), vec![part]);
            }
            Event::Appended {
                path,
                at,
                length,
                digest,
            } => {
                let parts = files.entry(path.clone()).or_default();
                let end = parts.last().map_or(0, |part| part.at + part.length);
                if end != *at {
                    return Err(format!("{path} grows from {at} bytes, and has {end}"));
                }
                parts.push(Part {
                    at: *at,
                    length: *length,
                    digest: *digest,
                    number,
                });
            }
            Event::Cut { path, length } => {
                let parts = files.entry(path.clone()).or_default();
                parts.retain(|part| part.at + part.length <= *length);
                let end = parts.last().map_or(0, |part| part.at + part.length);
                if end != *length {
                    return Err(format!("{path} is cut to {length} bytes, within a part"));
                }
            }
            Event::Renamed { path, to } => {
                let parts = files.remove(path);
                let parts = parts.ok_or_else(|| format!("{path} is renamed, and not there"))?;
                files.insert(to.clone(), parts);
            }
            // It may have been there without the log: a part of a file that no line tells of.
            Event::Removed { path } => drop(files.remove(path)),
            Event::FolderRemoved { path } => {
                let inside = format!("{path}/");
                files.retain(|name, _| !name.starts_with(&inside));
            }
            Event::Begun { .. }
            | Event::NotMade { .. }
            | Event::Pruned { .. }
            | Event::RolledBack { .. }
            | Event::Accepted { .. }
            | Event::Operators { .. }
            | Event::Approved { .. }
            | Event::Refused { .. }
            | Event::Leaves { .. }
            | Event::Started { .. } => {}
        }
        Ok(())
    }

    /// All paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// How a file differs.
    pub(super) fn difference(&self, path: &str, found: &Found) -> Option<Difference> {
        let parts = self.0.get(path)?;
        let Found::File(bytes) = found else {
            return Some(Difference::Missing);
        };
        let expected = parts.last().map_or(0, |part| part.at + part.length);
        let found = bytes.len() as u64;
        if found != expected {
            return Some(Difference::Length { found, expected });
        }
        for part in parts {
            let from = usize::try_from(part.at).ok()?;
            let to = usize::try_from(part.at + part.length).ok()?;
            let content = bytes.get(from..to);
            if content.is_some_and(|content| digest_of(content) != part.digest) {
                let number = part.number;
                return Some(Difference::Content { number });
            }
        }
        None
    }
}
