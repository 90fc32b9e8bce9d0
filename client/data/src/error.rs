//! Why a member's data cannot be used: the errors of reading, grouping and preparing.

use std::io;

use super::dropped::Dropped;
use super::parquet::ParquetError;
use super::prepare::PrepareError;
use super::problem::{LISTED, Problem, list, listed};
use super::remedy::Remedy;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file that cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The path, as the member gave it or as the folder lists it.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A folder without a file of records.
    #[error("no .jsonl, .ndjson, .json, .parquet, .csv or .tsv file in the folder {folder}")]
    NoFiles {
        /// The folder that was searched.
        folder: String,
    },
    /// A file of another format.
    #[error("{file} is {found}; expected JSON Lines, a JSON array of records, Parquet, CSV or TSV")]
    Unknown {
        /// The path of the file.
        file: String,
        /// What its first bytes look like.
        found: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("{file}: {source}")]
    Parquet {
        /// The path of the file.
        file: String,
        /// What is wrong with its format or its columns.
        source: ParquetError,
    },
    /// Files without a single record.
    #[error(
        "no record with text in {files}: expected JSON Lines, a JSON array of records, Parquet, CSV or \
         TSV"
    )]
    Empty {
        /// The paths of all files read, separated by commas.
        files: String,
    },
    /// Lines that cannot be used.
    #[error("{}", list(.0))]
    Lines(Vec<Problem>),
    /// More such lines than may be left out.
    #[error(
        "{bad} of {of} records cannot be used, more than {at_most} per cent{}",
        listed(problems, LISTED)
    )]
    TooManyBad {
        /// How many cannot be used.
        bad: usize,
        /// How many there are in all.
        of: usize,
        /// The share that may be left out, in per cent.
        at_most: f64,
        /// What is wrong with each.
        problems: Vec<Problem>,
    },
    /// Records of which something would be left out, where nothing may be.
    #[error("training would leave something out of the records{}", lines(.0))]
    Dropped(Vec<Dropped>),
    /// Records that cannot be made into examples.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Every record was left out.
    #[error(
        "none of {records} records has a response within {max_tokens} tokens: allow longer \
         examples, or shorten the prompts"
    )]
    NothingCounted {
        /// How many records were read.
        records: usize,
        /// The largest length of an example, in tokens.
        max_tokens: usize,
    },
    /// A record without the field to group by.
    #[error(
        "{place}: no text field '{field}' of at most 256 bytes to split by, as in {count} records"
    )]
    Label {
        /// The first such record.
        place: String,
        /// The name of the field to group by.
        field: String,
        /// How many records lack it.
        count: usize,
    },
}

impl DataError {
    /// What would help, where that is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Lines(problems) => Some(Remedy::for_problems(problems)),
            Self::TooManyBad { .. } => Some(Remedy::AllowMoreBad),
            Self::Dropped(_) => Some(Remedy::AllowDropped),
            Self::Prepare(error) => error.remedy(),
            _ => None,
        }
    }
}

/// What is left out, one a line.
fn lines(dropped: &[Dropped]) -> String {
    dropped.iter().map(|one| format!("\n  {one}")).collect()
}
