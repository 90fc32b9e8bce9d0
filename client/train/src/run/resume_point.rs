//! Where the files of a run's figures continue when it resumes.

/// The last figures that a checkpoint knows of. Later ones are removed and made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResumePoint {
    /// The last step whose figures stay.
    pub(crate) step: usize,
    /// Whether that step's held-out score stays, too.
    pub(crate) scored: bool,
}

impl ResumePoint {
    /// Whether a figure of `step` stays; `held_out` says that it is a held-out score.
    pub(crate) fn keeps(self, step: usize, held_out: bool) -> bool {
        step < self.step || (step == self.step && (self.scored || !held_out))
    }
}
