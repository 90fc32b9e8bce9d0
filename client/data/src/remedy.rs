//! What would help against an error about records, without the words of a command line.

use super::problem::{LISTED, Problem};

/// What would help. The command line words it and adds the command that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// To leave out the lines that cannot be used, or a check of the data, which lists each.
    ListProblems {
        /// How many lines the error's text leaves out.
        unlisted: usize,
    },
    /// A larger share of records that may be left out.
    AllowMoreBad,
    /// To let something be left out.
    AllowDropped,
}

impl Remedy {
    /// For an error that lists the first [`LISTED`] of `problems`.
    pub(super) fn for_problems(problems: &[Problem]) -> Self {
        let unlisted = problems.len().saturating_sub(LISTED);
        Self::ListProblems { unlisted }
    }
}
