//! The whole log: its chain and signatures, and whether the directory is what it leads to. Needs no key.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::digest::Digest;
use fedlora_common::files::lock;
use fedlora_protocol::crypto::sign::IdentityPublic;
use serde::Serialize;

use super::covered::{may_be_extra, walk};
use super::entry::{self, Entry, Event};
use super::expected::{Difference, Expected, Found};
use super::path_in;
use crate::operators::Ledger;

/// A whole log, and how the directory differs from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many lines there are.
    pub entries: u64,
    /// The digest of the newest: whoever knows it from another time or place can tell whether a line
    /// before it was changed or cut.
    pub head: Digest,
    /// Who signed the log.
    pub identity: Option<IdentityPublic>,
    /// What is wrong; empty where all is as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The line of the log that it is about.
    pub line: Option<u64>,
    /// The file that it is about.
    pub path: Option<String>,
    /// What is wrong.
    pub problem: String,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is none: nothing was changed here since there are logs.
    #[error("{} has no log", folder.display())]
    Missing {
        /// The operator's directory.
        folder: PathBuf,
    },
    /// Its own chain is broken.
    #[error("{}, line {line}: {problem}", path.display())]
    Broken {
        /// The log's file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The system's reason.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The lines of a log, unverified.
///
/// # Errors
/// [`LogError`].
pub fn entries(root: &Path) -> Result<Vec<Entry>, LogError> {
    Ok(read(root)?.lines().filter_map(readable).collect())
}

/// A line's content, whoever wrote it.
fn readable(line: &str) -> Option<Entry> {
    Entry::read(line).ok().map(|(entry, _)| entry)
}

/// The lines of the log in `root`, each verified: signed with this key, and after the one before. None
/// where there is no log yet.
///
/// # Errors
/// [`LogError::Broken`] for the first line that is wrong.
pub fn signed(root: &Path, by: &IdentityPublic) -> Result<Vec<Entry>, LogError> {
    let text = match read(root) {
        Err(LogError::Missing { .. }) => return Ok(Vec::new()),
        text => text?,
    };
    let mut verified = Verified::default();
    let mut entries = Vec::new();
    for (place, line) in whole(&text).lines().enumerate() {
        let number = place as u64 + 1;
        let entry = follow(&mut verified, number, line);
        let wrong = |problem| LogError::Broken {
            path: path_in(root),
            line: number,
            problem,
        };
        entries.push(entry.map_err(wrong)?);
        if verified.identity != Some(*by) {
            return Err(wrong("it is signed with another key".to_owned()));
        }
    }
    Ok(entries)
}

/// Verifies the log in `root`: every line follows the one before and is signed, by one identity; each file
/// is what the log leads to; and `anchors`, numbers and digests of lines that were noted elsewhere, are in
/// it. Nobody changes the directory meanwhile.
///
/// # Errors
/// [`LogError`] where it cannot be read at all.
pub fn verify(root: &Path, anchors: &[(u64, Digest)]) -> Result<Verified, LogError> {
    verify_and_show(root, anchors).map(|(verified, _)| verified)
}

/// The same with the lines that were verified. Those behind a line that is wrong are among them, as far as
/// they can be read.
///
/// # Errors
/// As [`verify`].
pub fn verify_and_show(
    root: &Path,
    anchors: &[(u64, Digest)],
) -> Result<(Verified, Vec<Entry>), LogError> {
    let folder = path_in(root).with_file_name("lock");
    // Of a copy that cannot be written to, nobody changes anything.
    let _lock = folder.exists().then(|| lock(&folder).ok()).flatten();
    verify_locked(root, anchors)
}

/// The files that differ from a log that is itself whole.
///
/// # Errors
/// [`LogError`].
pub(super) fn differing(root: &Path) -> Result<BTreeSet<String>, LogError> {
    let (verified, _) = verify_locked(root, &[])?;
    if let Some(broken) = verified.findings.iter().find(|one| one.path.is_none()) {
        return Err(LogError::Broken {
            path: path_in(root),
            line: broken.line.unwrap_or_default(),
            problem: broken.problem.clone(),
        });
    }
    Ok(verified
        .findings
        .into_iter()
        .filter_map(|one| one.path)
        .collect())
}

fn verify_locked(
    root: &Path,
    anchors: &[(u64, Digest)],
) -> Result<(Verified, Vec<Entry>), LogError> {
    let text = read(root)?;
    let mut verified = Verified::default();
    let mut entries = Vec::new();
    let mut noted = anchors.iter().copied().collect::<BTreeSet<_>>();
    for (place, line) in whole(&text).lines().enumerate() {
        let number = place as u64 + 1;
        match follow(&mut verified, number, line) {
            Ok(entry) => {
                noted.remove(&(number, verified.head));
                entries.push(entry);
            }
            Err(problem) => {
                verified.find(Some(number), None, problem);
                // Nothing from here on means anything; it is shown all the same.
                entries.extend(text.lines().skip(place).filter_map(readable));
                return Ok((verified, entries));
            }
        }
    }
    for (number, digest) in noted {
        let problem = match number > verified.entries {
            true => format!("the log ends before it, at line {}", verified.entries),
            false => format!("it is not the line that was noted, {digest}"),
        };
        verified.find(Some(number), None, problem);
    }
    check_operators(&entries, &mut verified);
    compare(root, &entries, &mut verified)?;
    Ok((verified, entries))
}

impl Default for Verified {
    fn default() -> Self {
        Self {
            entries: 0,
            head: Digest::from_bytes([0; 32]),
            identity: None,
            findings: Vec::new(),
        }
    }
}

impl Verified {
    fn find(&mut self, line: Option<u64>, path: Option<&str>, problem: String) {
        self.findings.push(Finding {
            line,
            path: path.map(str::to_owned),
            problem,
        });
    }
}

/// What a crash left of a last line is no line.
fn whole(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..end])
}

fn read(root: &Path) -> Result<String, LogError> {
    let path = path_in(root);
    fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LogError::Missing {
            folder: root.to_owned(),
        },
        _ => LogError::Io { path, source },
    })
}

/// Checks that a line is the next one.
fn follow(verified: &mut Verified, number: u64, line: &str) -> Result<Entry, String> {
    let (entry, signed) = Entry::read(line)?;
    if entry.number != number {
        return Err(format!(
            "it has the number {}: lines are missing",
            entry.number
        ));
    }
    if entry.previous != verified.head {
        return Err("it does not follow the line before: one of them was changed".to_owned());
    }
    let identity = match (&entry.event, verified.identity) {
        (Event::Begun { identity }, None) => *identity,
        (Event::Begun { .. }, Some(_)) => return Err("the log begins twice".to_owned()),
        (_, Some(identity)) => identity,
        (_, None) => return Err("the log's beginning is missing".to_owned()),
    };
    if !signed.is_by(&identity) {
        return Err("its signature is wrong: it was changed".to_owned());
    }
    verified.identity = Some(identity);
    verified.entries = number;
    verified.head = entry::digest(line.as_bytes());
    Ok(entry)
}

/// Checks that what needed two operators has had them.
fn check_operators(entries: &[Entry], verified: &mut Verified) {
    let mut ledger = Ledger::default();
    for entry in entries {
        if let Err(problem) = ledger.follow(entry) {
            verified.find(Some(entry.number), entry.event.path(), problem);
        }
    }
}

/// Compares the directory with what the lines lead to.
fn compare(root: &Path, entries: &[Entry], verified: &mut Verified) -> Result<(), LogError> {
    let mut not_made: BTreeSet<u64> = BTreeSet::new();
    for entry in entries {
        if let Event::NotMade { number } = entry.event {
            not_made.insert(number);
        }
    }
    if let Some(last) = entries.last()
        && let Some(path) = last.event.path()
        && !Expected::is_made(&last.event, &look(root, path)?)
    {
        // A crash came before its change: the next line would say so.
        not_made.insert(last.number);
    }
    let mut expected = Expected::default();
    let mut half_removed = Vec::new();
    for entry in entries {
        if not_made.contains(&entry.number) {
            let Event::FolderRemoved { path } = &entry.event else {
                continue;
            };
            half_removed.push(format!("{path}/"));
        }
        if let Err(problem) = expected.apply(entry.number, &entry.event) {
            verified.find(Some(entry.number), entry.event.path(), problem);
        }
    }
    for path in expected.paths() {
        let Some(difference) = expected.difference(path, &look(root, path)?) else {
            continue;
        };
        let (line, problem) = match difference {
            Difference::Missing => (None, "it is missing".to_owned()),
            Difference::Length { found, expected } => (
                None,
                format!("it has {found} bytes, and {expected} by the log"),
            ),
            Difference::Content { number } => (Some(number), "its content was changed".to_owned()),
        };
        verified.find(line, Some(path), problem);
    }
    let there = walk(root).map_err(|source| LogError::Io {
        path: root.to_owned(),
        source,
    })?;
    for path in there {
        let removing = half_removed.iter().any(|folder| path.starts_with(folder));
        if !expected.has(&path) && !may_be_extra(&path) && !removing {
            let problem = "the log does not know it".to_owned();
            verified.find(None, Some(&path), problem);
        }
    }
    Ok(())
}

fn look(root: &Path, path: &str) -> Result<Found, LogError> {
    let path = root.join(path);
    Found::read(&path).map_err(|source| LogError::Io { path, source })
}
