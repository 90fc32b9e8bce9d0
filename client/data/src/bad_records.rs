//! What becomes of a training some of whose records cannot be used.

use super::error::DataError;
use super::problem::{Problem, listed};

/// Bad records that are shown where they are skipped.
const SHOWN: usize = 5;

/// What to do about records that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BadRecords {
    /// The first of them ends it.
    Stop,
    /// They are left out and counted.
    Skip {
        /// The largest share of all records, in per cent, that may be left out.
        at_most: f64,
    },
}

impl BadRecords {
    /// Whether a training may go on with `problems` among `of` records; gives what to say of them.
    ///
    /// # Errors
    /// [`DataError::Lines`], or [`DataError::TooManyBad`].
    pub fn check(self, problems: Vec<Problem>, of: usize) -> Result<Option<String>, DataError> {
        let bad = problems.len();
        if bad == 0 {
            return Ok(None);
        }
        match self {
            Self::Stop => Err(DataError::Lines(problems)),
            Self::Skip { at_most } if bad as f64 * 100.0 > at_most * of as f64 => {
                Err(DataError::TooManyBad {
                    bad,
                    of,
                    at_most,
                    problems,
                })
            }
            Self::Skip { .. } => Ok(Some(format!(
                "skipped {bad} of {of} records, which cannot be used:{}",
                listed(&problems, SHOWN)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{LineProblem, Place};
    use super::*;

    fn problems(count: usize) -> Vec<Problem> {
        let problem = |line| Problem {
            place: Place::line(&"f".into(), line),
            what: LineProblem::TooLong,
        };
        (1..=count).map(problem).collect()
    }

    #[test]
    fn bad_records_stop_a_training_or_are_counted_up_to_a_share() {
        let skip = BadRecords::Skip { at_most: 10.0 };
        for policy in [BadRecords::Stop, skip] {
            assert_eq!(policy.check(Vec::new(), 0).unwrap(), None);
        }
        let stopped = BadRecords::Stop.check(problems(1), 1000).unwrap_err();
        assert!(matches!(stopped, DataError::Lines(_)), "{stopped}");
        let said = skip.check(problems(7), 70).unwrap().unwrap();
        assert!(said.starts_with("skipped 7 of 70 records, which cannot be used:\n  f:1: longer"));
        assert!(said.ends_with("f:5: longer than 4194304 bytes: split the record\n  and 2 more"));
        let refused = skip.check(problems(8), 70).unwrap_err().to_string();
        assert!(
            refused.starts_with("8 of 70 records cannot be used, more than 10 per cent"),
            "{refused}"
        );
    }
}
