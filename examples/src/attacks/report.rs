//! What came of the attacks: the JSON document, and a table for people.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::name::Attacker;

/// Columns of a terminal that the table takes.
const WIDTH: u16 = 100;

/// How close a recovered update is to the true one, relative to its norm, to count as recovered.
const RECOVERED: f64 = 0.05;

/// The one document that `fedlora-sim attack --format json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct AttackDocument {
    /// The attacks, in the order asked for.
    pub attacks: Vec<AttackReport>,
}

/// What came of one attack.
#[derive(Debug, Clone, Serialize)]
pub struct AttackReport {
    /// Its name.
    pub name: String,
    /// Who played it.
    pub by: Attacker,
    /// What was tried.
    pub tried: String,
    /// What the honest side said, and what the attacker had in the end.
    pub answer: String,
    /// Whether the attacker did not get what it was after.
    pub held: bool,
}

impl AttackDocument {
    /// The names of the attacks that succeeded.
    pub fn succeeded(&self) -> Vec<&str> {
        let succeeded = self.attacks.iter().filter(|attack| !attack.held);
        succeeded.map(|attack| attack.name.as_str()).collect()
    }
}

/// An attack that was played.
pub(super) struct Attempt {
    pub(super) tried: &'static str,
    pub(super) answer: String,
    pub(super) held: bool,
}

impl Attempt {
    /// Judges an attack on a member's update by the vector that the attacker has in the end.
    pub(super) fn on_update(
        tried: &'static str,
        words: String,
        recovered: Option<&[f64]>,
        truth: &[f32],
    ) -> Self {
        let Some(recovered) = recovered else {
            return Self {
                tried,
                answer: words,
                held: true,
            };
        };
        let distance = distance(recovered, truth);
        let held = distance > RECOVERED;
        let what = if held {
            "what the attacker has differs"
        } else {
            "the attacker has the victim's update: it differs"
        };
        Self {
            tried,
            answer: format!(
                "{words}; {what} from the true one by {:.3} % of its norm",
                100.0 * distance
            ),
            held,
        }
    }
}

/// The L2 distance of two vectors, relative to the norm of `truth`.
pub(super) fn distance(got: &[f64], truth: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let pairs = got.iter().zip(truth);
    let apart: f64 = pairs.map(|(a, b)| square(a - f64::from(*b))).sum();
    let norm: f64 = truth.iter().map(|x| square(f64::from(*x))).sum();
    (apart / norm).sqrt()
}

/// Renders the attacks as a table.
pub fn render(document: &AttackDocument) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(["attack", "by", "held", "tried, and the answer"]);
    for attack in &document.attacks {
        let by = match attack.by {
            Attacker::Aggregator => "aggregator",
            Attacker::Member => "member",
        };
        let held = if attack.held { "yes" } else { "NO" };
        let text = format!("{}\n=> {}", attack.tried, attack.answer);
        table.add_row([&attack.name, by, held, &text]);
    }
    let succeeded = document.succeeded();
    let count = document.attacks.len();
    let verdict = if succeeded.is_empty() {
        format!("The federation held against {count} of {count} attacks.")
    } else {
        format!(
            "The federation held against {} of {count} attacks, not against {}.",
            count - succeeded.len(),
            succeeded.join(", ")
        )
    };
    format!("{table}\n{verdict}")
}
