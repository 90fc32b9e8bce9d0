//! What a member finds in its directory after a run: the adapter that it keeps, the global one
//! beside it, and how all candidates scored.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::peft::{self, PeftError};
use fedlora_common::files::{Access, write_atomic};
use fedlora_model::Example;
use fedlora_train::{Engine, TrainError};
use serde::Serialize;

use super::candidate::{Choice, Personalised};

/// How each candidate scored at this member. It stays at this member.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreTable {
    /// The adapter that the member keeps.
    pub chosen: Choice,
    /// The candidates.
    pub scores: Vec<CandidateScore>,
    /// How much lower the chosen adapter's perplexity is than that of the local one, in percent:
    /// on held-out examples where there are some, otherwise on validation examples.
    pub gain_percent: Option<f64>,
}

/// How one candidate scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CandidateScore {
    /// Which it is.
    pub adapter: Choice,
    /// Its perplexity on the examples that choose.
    pub validation_perplexity: Option<f64>,
    /// Its perplexity on held-out examples, by which nothing is chosen.
    pub held_out_perplexity: Option<f64>,
    /// Optimizer steps at home, or alone.
    pub steps: usize,
    /// The share of the adapter trained at home in a personal one; the rest are those trained alone,
    /// or without one the global adapter.
    pub mix: Option<f64>,
}

impl ScoreTable {
    /// Scores the candidates on held-out examples, which may be none.
    ///
    /// # Errors
    /// An adapter that does not fit the model.
    pub fn new(
        engine: &Engine,
        candidates: &Personalised,
        held_out: &[Example],
    ) -> Result<Self, TrainError> {
        let mut scores = Vec::new();
        for one in candidates.all() {
            let held_out_perplexity = match held_out {
                [] => None,
                some => Some(engine.evaluate(Some(&one.adapter), some)?.perplexity),
            };
            scores.push(CandidateScore {
                adapter: one.choice,
                validation_perplexity: one.validation.map(f64::exp),
                held_out_perplexity,
                steps: one.steps,
                mix: one.mix,
            });
        }
        let chosen = candidates.chosen().choice;
        Ok(Self {
            chosen,
            gain_percent: gain(&scores, chosen),
            scores,
        })
    }

    /// What the federation brought this member, in a sentence.
    pub fn verdict(&self) -> String {
        let kept = match self.chosen {
            Choice::Global => "The federation's adapter does best on the validation records.",
            Choice::Personal => {
                "An adapter made of the federation's, by training at home, does best on the \
                 validation records."
            }
            Choice::Local => {
                "Training without the federation does best on the validation records: the \
                 federation brought this member nothing, and it keeps the adapter trained alone."
            }
        };
        let gain = match self.gain_percent {
            Some(gain) if self.chosen != Choice::Local && gain >= 0.05 => {
                format!(" Its perplexity is {gain:.1} % lower than without the federation.")
            }
            Some(gain) if self.chosen != Choice::Local && gain <= -0.05 => format!(
                " On held-out records its perplexity is {:.1} % higher than without the \
                 federation: too few validation records may have misled the choice.",
                -gain
            ),
            _ => String::new(),
        };
        format!("{kept}{gain}")
    }
}

fn gain(scores: &[CandidateScore], chosen: Choice) -> Option<f64> {
    let score = |choice| {
        let one = scores.iter().find(|one| one.adapter == choice)?;
        one.held_out_perplexity.or(one.validation_perplexity)
    };
    Some(percent_below(score(Choice::Local)?, score(chosen)?))
}

/// How far `own` lies below `other`, in percent of `other`.
pub fn percent_below(other: f64, own: f64) -> f64 {
    100.0 * (other - own) / other
}

impl fmt::Display for ScoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        writeln!(f, "Perplexity on this member's records")?;
        writeln!(f, "  adapter   validation   held out   steps")?;
        for one in &self.scores {
            writeln!(
                f,
                "  {:<8} {:>11} {:>10} {:>7}{}",
                one.adapter.name(),
                number(one.validation_perplexity),
                number(one.held_out_perplexity),
                one.steps,
                if one.adapter == self.chosen {
                    "  kept"
                } else {
                    ""
                }
            )?;
        }
        f.write_str(&self.verdict())
    }
}

/// Writes the table to `scores`, and then the chosen adapter to `adapter`.
///
/// # Errors
/// [`OutcomeError`] naming the file.
pub fn save(
    candidates: &Personalised,
    table: &ScoreTable,
    base_name: &str,
    (adapter, scores): (&Path, &Path),
) -> Result<(), OutcomeError> {
    let text = serde_json::to_vec_pretty(table).expect("text keys and finite numbers");
    write_atomic(scores, &text, Access::Owner).map_err(|source| OutcomeError::Io {
        path: scores.to_owned(),
        source,
    })?;
    peft::save(adapter, &candidates.chosen().adapter, base_name)?;
    Ok(())
}

/// Why the outcome of a run cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// An adapter's folder.
    #[error(transparent)]
    Adapter(#[from] PeftError),
    /// The table of scores.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that cannot be written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(chosen: Choice, global: f64, personal: f64, local: f64) -> ScoreTable {
        let score = |adapter, perplexity| CandidateScore {
            adapter,
            validation_perplexity: Some(perplexity),
            held_out_perplexity: Some(perplexity),
            steps: 4,
            mix: None,
        };
        let scores = vec![
            score(Choice::Global, global),
            score(Choice::Personal, personal),
            score(Choice::Local, local),
        ];
        ScoreTable {
            chosen,
            gain_percent: gain(&scores, chosen),
            scores,
        }
    }

    #[test]
    fn the_verdict_says_what_was_gained() {
        let personal = table(Choice::Personal, 12.0, 9.0, 10.0);
        assert_eq!(personal.gain_percent, Some(10.0));
        assert!(personal.verdict().contains("10.0 % lower"));
        let local = table(Choice::Local, 12.0, 11.0, 10.0);
        assert_eq!(local.gain_percent, Some(0.0));
        assert!(local.verdict().contains("brought this member nothing"));
        // The validation records chose what the held-out ones do not bear out.
        let misled = table(Choice::Global, 11.0, 12.0, 10.0);
        assert!(misled.verdict().contains("10.0 % higher"));
    }

    #[test]
    fn the_table_marks_what_is_kept() {
        let shown = table(Choice::Personal, 12.0, 9.0, 10.0).to_string();
        let kept: Vec<_> = shown.lines().filter(|line| line.contains("kept")).collect();
        assert!(matches!(kept[..], [line] if line.contains("personal") && line.contains("9.00")));
    }
}
