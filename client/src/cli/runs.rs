//! `fedlora runs`: the runs that this member took part in, verified from what it kept.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::MemberName;
use fedlora_shell::{Failure, Printer};
use serde::Serialize;

use super::exits;
use crate::directory::MemberDirectory;
use crate::receipts::{self, KeptRun};

/// Options of `fedlora runs`.
#[derive(Debug, clap::Args)]
pub(super) struct RunsArgs {
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// The document.
#[derive(Serialize)]
struct Document {
    runs: Vec<Row>,
}

/// One run.
#[derive(Serialize)]
struct Row {
    /// The run, or the folder's name where it does not verify.
    run: String,
    /// Rounds of the plan.
    planned: Option<u32>,
    /// Rounds with a result that this member has seen.
    rounds: Option<usize>,
    /// Rounds whose sum this member is in.
    took_part: Option<usize>,
    /// The digest that stands for all that the aggregator signed.
    head: Option<String>,
    /// Eight words for it.
    words: Option<String>,
    /// What is wrong, where it does not verify.
    problem: Option<String>,
}

impl Row {
    fn of(kept: &KeptRun, member: &MemberName) -> Self {
        let verified = &kept.verified;
        let member = kept.receipt.roster.index_of(member);
        Self {
            run: verified.run.to_string(),
            planned: Some(verified.plan.rounds),
            rounds: Some(verified.results.len()),
            took_part: member.map(|member| verified.rounds_of(member)),
            head: Some(verified.head.to_string()),
            words: Some(verified.words().to_string()),
            problem: None,
        }
    }

    fn broken(name: String, problem: &str) -> Self {
        Self {
            run: name,
            planned: None,
            rounds: None,
            took_part: None,
            head: None,
            words: None,
            problem: Some(problem.to_owned()),
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &RunsArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, membership) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    let failed = |error| Failure::new(Exit::Failed, anyhow::Error::from(error));
    let mut rows = Vec::new();
    for folder in receipts::folders(&directory.runs()).map_err(failed)? {
        rows.push(match receipts::verify(&folder) {
            Ok(kept) if kept.receipt.aggregator == membership.config.aggregator => {
                Row::of(&kept, &membership.config.name)
            }
            Ok(_) => Row::broken(
                name(&folder),
                "it is signed by another aggregator than the one that this member joined",
            ),
            Err(error) => Row::broken(name(&folder), &error.to_string()),
        });
    }
    let wrong = rows.iter().filter(|row| row.problem.is_some()).count();
    let document = Document { runs: rows };
    printer.result(&document, || text(&document.runs));
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::new(
            Exit::Integrity,
            anyhow!("{wrong} of {} runs do not verify", document.runs.len()),
        )),
    }
}

fn name(folder: &std::path::Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "this member has taken part in no run".to_owned();
    }
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "run        {}", row.run);
        if let (Some(rounds), Some(planned)) = (row.rounds, row.planned) {
            let took_part = row.took_part.unwrap_or(0);
            let _ = writeln!(
                text,
                "rounds     {rounds} of {planned}, in the sum of {took_part}"
            );
        }
        for (label, value) in [
            ("head", &row.head),
            ("words", &row.words),
            ("problem", &row.problem),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{label:<10} {value}");
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}
