//! `fedlora-aggregator audit log`: every change of an operator's directory, verified.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use fedlora_common::digest::Digest;
use fedlora_common::exit::Exit;
use fedlora_protocol::plan::RosterWords;
use fedlora_shell::{Failure, Printer};
use serde::Serialize;

use super::exits;
use crate::audit_log::{self, Entry, LogError, Verified};
use crate::directory::Directory;
use crate::status::words::moment;

/// Options of `fedlora-aggregator audit log`.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// The operator's directory, or a copy of it: needs no keys.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// How many of the newest lines to show; all are verified.
    #[arg(long, default_value_t = 20, value_name = "LINES")]
    last: usize,
    /// Compare with the heads noted in this file, and note the newest one there.
    ///
    /// Keep it where the operator's host cannot change it: whoever has that host's keys can write
    /// another log, and is found by the heads that were noted before.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Take files that differ as they are, and write that and why into the log; needs the keys.
    ///
    /// For a directory that was put back from a backup, whose log and files are of two moments.
    #[arg(long, value_name = "REASON")]
    accept: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    verified: &'a Verified,
    words: String,
    ok: bool,
    log: &'a [Entry],
}

/// Runs the command.
pub(super) fn run(args: &LogArgs, printer: &Printer) -> Result<(), Failure> {
    let anchors = match &args.anchor {
        None => Vec::new(),
        Some(path) => anchors(path).map_err(|error| Failure::new(Exit::Configuration, error))?,
    };
    if let Some(reason) = &args.accept {
        accept(&args.dir, reason)?;
    }
    let read = audit_log::verify_and_show(&args.dir, &anchors);
    let (verified, entries) = read.map_err(failed)?;
    let newest = &entries[entries.len().saturating_sub(args.last)..];
    let ok = verified.findings.is_empty();
    let document = Shown {
        verified: &verified,
        words: RosterWords::of(&verified.head).as_slice().join(" "),
        ok,
        log: newest,
    };
    printer.result(&document, || text(&document));
    if !ok {
        let count = verified.findings.len();
        let what = if count == 1 { "finding" } else { "findings" };
        let error = anyhow!("the directory is not what its log leads to: {count} {what}");
        return Err(Failure::new(Exit::Integrity, error));
    }
    match &args.anchor {
        Some(path) => note(path, &verified, &anchors)
            .with_context(|| format!("cannot note the log's head in {}", path.display()))
            .map_err(|error| Failure::new(Exit::Failed, error)),
        None => Ok(()),
    }
}

fn accept(dir: &Path, reason: &str) -> Result<(), Failure> {
    let (directory, _) = Directory::open_to_change(dir).map_err(exits::directory)?;
    directory.accept_differences(reason).map_err(failed)?;
    Ok(())
}

fn text(shown: &Shown<'_>) -> String {
    let mut text = String::new();
    for entry in shown.log {
        let (time, words) = (moment(entry.time), audit_log::words(&entry.event));
        let _ = writeln!(text, "{time}  {:>6}  {words}", entry.number);
    }
    for finding in &shown.verified.findings {
        let line = finding.line.map(|line| format!("line {line}: "));
        let path = finding.path.as_ref().map(|path| format!("{path}: "));
        let (line, path) = (line.unwrap_or_default(), path.unwrap_or_default());
        let _ = writeln!(text, "finding     {line}{path}{}", finding.problem);
    }
    let identity = shown.verified.identity;
    let signer = identity.map(|identity| identity.fingerprint().to_string());
    let _ = write!(
        text,
        "lines       {}\nsigned by   {}\nhead        {}\nwords       {}",
        shown.verified.entries,
        signer.as_deref().unwrap_or("nobody"),
        shown.verified.head,
        shown.words
    );
    text
}

/// The heads that were noted: a number and a digest a line.
fn anchors(path: &Path) -> anyhow::Result<Vec<(u64, Digest)>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| path.display().to_string())?,
    };
    let read = |(place, line): (usize, &str)| {
        let parts = line.split_once(' ');
        let head = parts
            .and_then(|(number, digest)| Some((number.parse().ok()?, digest.trim().parse().ok()?)));
        head.ok_or_else(|| {
            let (path, line) = (path.display(), place + 1);
            anyhow!("{path}, line {line}: expected a number and a digest of 64 hex digits")
        })
    };
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(read)
        .collect()
}

/// Notes the newest head, unless it is noted already.
fn note(path: &Path, verified: &Verified, anchors: &[(u64, Digest)]) -> io::Result<()> {
    let head = (verified.entries, verified.head);
    if anchors.contains(&head) {
        return Ok(());
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    writeln!(file, "{} {}", head.0, head.1)?;
    file.sync_all()
}

fn failed(error: LogError) -> Failure {
    let exit = match &error {
        LogError::Missing { .. } => Exit::Configuration,
        LogError::Broken { .. } => Exit::Integrity,
        LogError::Io { .. } => Exit::Failed,
    };
    Failure::new(exit, error)
}
