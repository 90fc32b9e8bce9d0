//! What a member ends a run with: the best, on its own validation records, of the global adapter,
//! one made from it for this member, and one trained on its own records alone. All of it happens
//! at the member after the last round; no message tells of it.
//!
//! | file | owns |
//! |---|---|
//! | `candidate.rs` | the adapters that are compared, and the choice |
//! | `home.rs` | training at home, and alone |
//! | `margin.rs` | whether one does better than another by more than chance |
//! | `outcome.rs` | the adapters and the table of scores on the disk |

mod candidate;
mod home;
mod margin;
mod outcome;

pub use candidate::{Candidate, Choice, Personalised};
pub use home::{HomeProgress, personalise, steps_at_home, train_alone, train_at_home};
pub use outcome::{CandidateScore, OutcomeError, ScoreTable, percent_below, save};
