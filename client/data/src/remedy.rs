//! What would help against an error about records, without the words of a command line.

use super::records::{LISTED, Problem};

/// What would help. The command line words it and adds the command that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// A check of the data, which lists each line that cannot be used.
    ListProblems {
        /// How many lines the error's text leaves out.
        unlisted: usize,
    },
}

impl Remedy {
    /// For an error that lists the first [`LISTED`] of `problems`.
    pub(super) fn for_problems(problems: &[Problem]) -> Option<Self> {
        let unlisted = problems.len().saturating_sub(LISTED);
        (unlisted > 0).then_some(Self::ListProblems { unlisted })
    }
}
