//! What a member's agent does without its user: `[agent]` in `fedlora.toml`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::plan::RunPlan;
use serde::{Deserialize, Serialize};

/// `[agent]`: the rules by which plans are accepted. The floors hold beside them, for every plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// What is done with a plan that keeps to the limits below.
    pub plans: PlanRule,
    /// When runs may begin, in UTC. One that has begun goes on to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// The most rounds of a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rounds: Option<NonZeroU32>,
    /// The most optimizer steps of a plan: those of all rounds, and those at home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<NonZeroU64>,
    /// How many hours a run may take; then this member leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hours: Option<NonZeroU32>,
}

/// What is done with a plan that keeps to the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanRule {
    /// It is shown to the user, and waits for the answer.
    #[default]
    Ask,
    /// It is accepted.
    Accept,
    /// It is not accepted.
    Refuse,
}

/// What the rules say of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Take part.
    Accept,
    /// The user is to say.
    Ask,
    /// Not at this time of the day.
    Later {
        /// The hours in which runs may begin.
        hours: Hours,
    },
    /// Do not take part.
    Refuse(Refusal),
}

/// Why the rules refuse a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No plan is accepted.
    #[error("agent.plans is \"refuse\"")]
    Plans,
    /// A plan beyond a limit.
    #[error("the plan has {found} {what}; {key} allows {limit}")]
    Limit {
        /// The key in `fedlora.toml`.
        key: &'static str,
        /// What is counted.
        what: &'static str,
        /// As many the plan has.
        found: u64,
        /// As many are allowed.
        limit: u64,
    },
}

impl AgentConfig {
    /// Whether these are the rules of a member that has written none.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What the rules say of a plan at this time.
    pub fn judge(&self, plan: &RunPlan, now: Timestamp) -> Judgement {
        let steps = (plan.steps() + plan.home_steps()) as u64;
        let limits = [
            (
                "agent.max_rounds",
                "rounds",
                u64::from(plan.rounds),
                self.max_rounds.map(|most| u64::from(most.get())),
            ),
            (
                "agent.max_steps",
                "optimizer steps",
                steps,
                self.max_steps.map(NonZeroU64::get),
            ),
        ];
        for (key, what, found, limit) in limits {
            if let Some(limit) = limit.filter(|limit| found > *limit) {
                return Judgement::Refuse(Refusal::Limit {
                    key,
                    what,
                    found,
                    limit,
                });
            }
        }
        match (self.plans, self.hours) {
            (PlanRule::Refuse, _) => Judgement::Refuse(Refusal::Plans),
            (_, Some(hours)) if !hours.contain(now) => Judgement::Later { hours },
            (PlanRule::Ask, _) => Judgement::Ask,
            (PlanRule::Accept, _) => Judgement::Accept,
        }
    }

    /// How long a run may take.
    pub fn longest_run(&self) -> Option<Duration> {
        let hours = u64::from(self.max_hours?.get());
        Some(Duration::from_secs(hours * 3600))
    }
}

/// Hours of the day in UTC, such as `19:00-06:30`, which may go over midnight. The end is not among
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    /// Minutes since midnight.
    from: u16,
    /// Minutes since midnight.
    to: u16,
}

const MINUTES_A_DAY: u64 = 24 * 60;

impl Hours {
    /// Whether a point in time is within these hours.
    pub fn contain(self, now: Timestamp) -> bool {
        let minute = (now.0 / 60_000 % MINUTES_A_DAY) as u16;
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let two_digits = |text: &str| match text.len() {
                2 => text.parse::<u16>().ok(),
                _ => None,
            };
            let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let parsed = text.split_once('-').and_then(|(from, to)| {
            let (from, to) = (minutes(from)?, minutes(to)?);
            (from != to).then_some(Self { from, to })
        });
        parsed.ok_or_else(|| HoursError {
            found: text.chars().take(40).collect(),
        })
    }
}

impl TryFrom<String> for Hours {
    type Error = HoursError;

    fn try_from(text: String) -> Result<Self, HoursError> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from, self.to].map(|one| (one / 60, one % 60));
        write!(f, "{:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)
    }
}

/// A text that names no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} are no hours: give two times of the day in UTC, such as \"19:00-06:30\"")]
pub struct HoursError {
    /// The text, cut at 40 characters.
    pub found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RunPlan {
        let mut plan = RunPlan::from_toml(
            "rounds = 10\nmembers = 3\n[adapter]\n\
             lora = { rank = 1, alpha = 1.0, targets = [\"q\"] }\n",
        )
        .unwrap();
        plan.training.steps = 20;
        plan
    }

    fn rules(text: &str) -> AgentConfig {
        toml::from_str(text).unwrap()
    }

    const NOON: Timestamp = Timestamp(12 * 3_600_000);

    #[test]
    fn without_rules_the_user_is_asked() {
        assert_eq!(rules("").judge(&plan(), NOON), Judgement::Ask);
        assert!(rules("").is_default());
    }

    #[test]
    fn a_plan_within_the_limits_follows_the_rule() {
        let accept = rules("plans = \"accept\"\nmax_rounds = 10\nmax_steps = 1000");
        assert_eq!(accept.judge(&plan(), NOON), Judgement::Accept);
        let refuse = rules("plans = \"refuse\"");
        let refused = Judgement::Refuse(Refusal::Plans);
        assert_eq!(refuse.judge(&plan(), NOON), refused);
    }

    #[test]
    fn a_plan_beyond_a_limit_is_refused_whatever_the_rule() {
        let limit = |text: &str| match rules(text).judge(&plan(), NOON) {
            Judgement::Refuse(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        };
        let rounds = limit("plans = \"accept\"\nmax_rounds = 9");
        assert_eq!(rounds, "the plan has 10 rounds; agent.max_rounds allows 9");
        // 200 steps in rounds, and those at home.
        let steps = limit("max_steps = 200");
        assert!(steps.contains("optimizer steps; agent.max_steps allows 200"));
    }

    #[test]
    fn runs_begin_in_their_hours_only() {
        let at = |hour: u64, minute: u64| Timestamp((hour * 60 + minute) * 60_000 + 59_999);
        let night: Hours = "19:00-06:30".parse().unwrap();
        for (hour, minute, within) in [
            (18, 59, false),
            (19, 0, true),
            (0, 0, true),
            (6, 29, true),
            (6, 30, false),
            (12, 0, false),
        ] {
            assert_eq!(night.contain(at(hour, minute)), within, "{hour}:{minute}");
        }
        let day: Hours = "08:00-17:15".parse().unwrap();
        assert!(day.contain(at(17, 14)) && !day.contain(at(17, 15)) && !day.contain(at(7, 59)));
        assert_eq!(day.to_string(), "08:00-17:15");
        let rules = rules("plans = \"accept\"\nhours = \"19:00-06:30\"");
        assert_eq!(
            rules.judge(&plan(), NOON),
            Judgement::Later { hours: night }
        );
        assert_eq!(rules.judge(&plan(), at(20, 0)), Judgement::Accept);
    }

    #[test]
    fn what_names_no_hours_is_refused() {
        for wrong in [
            "",
            "19-6",
            "24:00-06:00",
            "19:60-20:00",
            "07:00-07:00",
            "1:00-2:00",
            "-",
        ] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
        assert!(toml::from_str::<AgentConfig>("hour = \"19:00-20:00\"").is_err());
        assert!(toml::from_str::<AgentConfig>("max_rounds = 0").is_err());
    }
}
