//! The adapters that a member chooses among.

use fedlora_adapter::Adapter;
use fedlora_train::{Best, ExampleLoss};
use serde::{Deserialize, Serialize};

use super::margin::is_clearly_below;

/// Which adapter a member keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The federation's adapter as it is.
    Global,
    /// One that the member made of it for itself.
    Personal,
    /// One that the member trained without the federation.
    Local,
}

impl Choice {
    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Personal => "personal",
            Self::Local => "local",
        }
    }
}

/// One of the adapters that a member chooses among.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which it is.
    pub choice: Choice,
    /// The adapter.
    pub adapter: Adapter,
    /// Its loss on the member's validation examples, in nats a token; none where there are no such
    /// examples.
    pub validation: Option<f64>,
    /// Optimizer steps at home, or alone; 0 for the global adapter.
    pub steps: usize,
    /// The share of the adapters trained at home in a personal one; the rest are those trained alone,
    /// or without one the global adapter.
    pub mix: Option<f64>,
}

/// All candidates of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Personalised {
    global: Candidate,
    others: Vec<Candidate>,
    alone: Vec<Best>,
    chosen: Choice,
}

impl Personalised {
    /// The choice among the global adapter, a personal one, and the first of those that were trained
    /// `alone`, if any.
    pub fn new(global: Candidate, personal: Option<Candidate>, alone: Vec<Best>) -> Self {
        let local = alone.first().map(|best| Candidate {
            choice: Choice::Local,
            adapter: best.adapter.clone(),
            validation: best.loss,
            steps: best.step,
            mix: None,
        });
        let others: Vec<_> = personal.into_iter().chain(local).collect();
        let chosen = lowest(&global, &others);
        Self {
            global,
            others,
            alone,
            chosen,
        }
    }

    /// The same, where the personal candidate is the even mean of what was trained at home and alone,
    /// whose losses of the validation examples these are: another one is chosen only where its `losses`
    /// are clearly below them.
    ///
    /// # Errors
    /// What `losses` gives.
    pub(super) fn preferring_mean<E>(
        mut self,
        of_mean: &[ExampleLoss],
        losses: impl Fn(&Adapter) -> Result<Vec<ExampleLoss>, E>,
    ) -> Result<Self, E> {
        let lowest = self.chosen();
        if lowest.choice != Choice::Personal
            && !is_clearly_below(&losses(&lowest.adapter)?, of_mean)
        {
            self.chosen = Choice::Personal;
        }
        Ok(self)
    }

    /// What was trained without the federation: the best of each length, the best of all first.
    pub fn alone(&self) -> &[Best] {
        &self.alone
    }

    /// The global adapter.
    pub fn global(&self) -> &Candidate {
        &self.global
    }

    /// All candidates, the global one first.
    pub fn all(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.global).chain(&self.others)
    }

    /// The candidate that a choice names, if there is one.
    pub fn get(&self, choice: Choice) -> Option<&Candidate> {
        self.all().find(|one| one.choice == choice)
    }

    /// The candidate that the member keeps.
    pub fn chosen(&self) -> &Candidate {
        self.get(self.chosen).unwrap_or(&self.global)
    }
}

/// The candidate with the lowest validation loss. Of equal ones the global adapter comes first, then the
/// personal one; without validation examples it is the personal one, which is there only where the
/// global one is none by itself, or else the global one.
fn lowest(global: &Candidate, others: &[Candidate]) -> Choice {
    let best = others.iter().fold(global, |best, one| {
        match (one.validation, best.validation) {
            (Some(loss), Some(lowest)) if loss < lowest => one,
            (None, None) if one.choice == Choice::Personal => one,
            _ => best,
        }
    });
    best.choice
}

#[cfg(test)]
mod tests {
    use fedlora_adapter::{Layout, LoraConfig, Target, TensorSpec};

    use super::*;

    fn candidate(choice: Choice, validation: Option<f64>) -> Candidate {
        let name = |factor: &str| {
            format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{factor}.weight")
        };
        let spec = |factor: &str, shape: [usize; 2]| TensorSpec {
            name: name(factor),
            shape: shape.to_vec(),
        };
        let layout = Layout::new(vec![spec("A", [1, 2]), spec("B", [2, 1])]).unwrap();
        let config = LoraConfig::new(1, 1.0, 0.0, [Target::Q]).unwrap();
        Candidate {
            choice,
            adapter: Adapter::initial(config, layout, 1).unwrap(),
            validation,
            steps: 0,
            mix: None,
        }
    }

    fn chosen(global: Option<f64>, personal: Option<f64>, local: Option<f64>) -> Choice {
        let global = candidate(Choice::Global, global);
        let alone = Best {
            adapter: global.adapter.clone(),
            loss: local,
            step: 4,
            length: 4,
        };
        let personal = candidate(Choice::Personal, personal);
        let all = Personalised::new(global, Some(personal), vec![alone]);
        assert_eq!(all.get(Choice::Local).unwrap().steps, 4);
        all.chosen().choice
    }

    #[test]
    fn the_lowest_validation_loss_wins_and_the_global_one_of_equals() {
        assert_eq!(chosen(Some(2.0), Some(1.5), Some(1.6)), Choice::Personal);
        assert_eq!(chosen(Some(2.0), Some(1.5), Some(1.4)), Choice::Local);
        assert_eq!(chosen(Some(1.5), Some(1.5), Some(1.5)), Choice::Global);
        assert_eq!(chosen(Some(2.0), Some(1.5), Some(1.5)), Choice::Personal);
        assert_eq!(chosen(Some(1.0), Some(1.5), None), Choice::Global);
    }

    #[test]
    fn the_mean_of_home_and_alone_is_left_only_for_what_is_clearly_better() {
        let with_mean = |local: f64, clear: bool| {
            let global = candidate(Choice::Global, Some(2.0));
            let alone = Best {
                adapter: global.adapter.clone(),
                loss: Some(local),
                step: 4,
                length: 4,
            };
            let personal = candidate(Choice::Personal, Some(1.5));
            let all = Personalised::new(global, Some(personal), vec![alone]);
            let losses = |sums: [f64; 2]| sums.map(|sum| ExampleLoss { sum, tokens: 1 }).to_vec();
            let of_local = if clear { [1.0, 1.0] } else { [0.0, 2.9] };
            let found = all.preferring_mean(&losses([1.5, 1.5]), |_| Ok::<_, ()>(losses(of_local)));
            found.unwrap().chosen().choice
        };
        assert_eq!(with_mean(1.45, false), Choice::Personal);
        assert_eq!(with_mean(1.0, true), Choice::Local);
        assert_eq!(with_mean(1.6, true), Choice::Personal);
    }

    #[test]
    fn who_cannot_compare_keeps_the_global_one_or_its_own() {
        assert_eq!(chosen(None, None, None), Choice::Personal);
        assert_eq!(chosen(None, Some(0.1), Some(0.1)), Choice::Global);
    }
}
