//! What `serve` removes by itself of runs that are over and old: `[retention]` in `aggregator.toml`. The rule
//! and the removal are those of `adapter prune`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use crate::adapters::{PruneRule, Pruned, prune};
use crate::audit_log::PrunedBy;
use crate::clock::Clock;
use crate::directory::{Directory, Opened};

/// How often `serve` looks for what is old.
const PAUSE: Duration = Duration::from_secs(3600);

/// How long what runs published is kept. Without this section `serve` removes nothing. A run is old once it
/// is beyond `runs` or `days`; one that is not over never is. Signed plans, rosters and results, and adapters
/// that a plan's `start_from` or a rollback names, always stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// As many runs as ended last are not old; no bound by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<NonZeroUsize>,
    /// Runs are old as many days after their end; never by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<NonZeroU64>,
    /// What stays of an old run: `results` (its result and its newest adapter), `replays` (what `audit replay`
    /// needs, with all adapters), `evidence` (against members). All three by default.
    pub keep: BTreeSet<Kept>,
}

/// What stays of an old run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// The run's result and its newest adapter, and that it ended.
    Results,
    /// What an audit can replay, and all adapters of its run.
    Replays,
    /// Evidence against members.
    Evidence,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            runs: None,
            days: None,
            keep: BTreeSet::from([Kept::Results, Kept::Replays, Kept::Evidence]),
        }
    }
}

impl RetentionConfig {
    /// The rule at a moment.
    pub fn rule(&self, now: Timestamp) -> PruneRule {
        let kept = |what| self.keep.contains(&what);
        let age = |days: NonZeroU64| Duration::from_secs(days.get().saturating_mul(86_400));
        let before = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Timestamp(now.0.saturating_sub(age))
        };
        PruneRule {
            ended_before: self.days.map(age).map(before),
            newest_runs: self.runs.map(NonZeroUsize::get),
            newest_rounds: 0,
            results: kept(Kept::Results),
            replays: kept(Kept::Replays),
            evidence: kept(Kept::Evidence),
        }
    }
}

/// Removes what is old, at once and every hour, where the configuration says what that is. Never ends.
pub(crate) async fn keep_to(
    directory: Directory,
    operator: Arc<Opened>,
    clock: Arc<dyn Clock>,
) -> Infallible {
    let Some(retention) = operator.config.retention.clone() else {
        return std::future::pending().await;
    };
    loop {
        let now = clock.now();
        let (rule, store) = (retention.rule(now), directory.store().clone());
        let operator = Arc::clone(&operator);
        let pruned = tokio::task::spawn_blocking(move || {
            prune(
                &store,
                &operator.identity,
                &rule,
                (PrunedBy::Retention, now),
            )
        });
        match pruned.await {
            Ok(Ok(pruned)) => tell(&pruned),
            Ok(Err(error)) => {
                error!(%error, "what is old cannot be removed; trying again in an hour")
            }
            Err(error) => error!(%error, "a defect: removing what is old panicked"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(pruned: &Pruned) {
    let (adapters, others, bytes) = (pruned.removed.len(), pruned.others.len(), pruned.bytes);
    if adapters + others > 0 {
        info!(
            adapters,
            others, bytes, "what is old was removed: the audit log has it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RetentionConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_section_says_what_is_old_and_what_stays() {
        let day = 86_400_000;
        let all = parsed("runs = 50\ndays = 3")
            .unwrap()
            .rule(Timestamp(10 * day));
        assert_eq!(all.ended_before, Some(Timestamp(7 * day)));
        assert_eq!((all.newest_runs, all.newest_rounds), (Some(50), 0));
        assert!(all.results && all.replays && all.evidence);
        let results = parsed("days = 3\nkeep = [\"results\"]").unwrap();
        let results = results.rule(Timestamp(day));
        assert_eq!(
            (results.ended_before, results.newest_runs),
            (Some(Timestamp(0)), None)
        );
        assert!(results.results && !results.replays && !results.evidence);
        assert_eq!(parsed("").unwrap().rule(Timestamp(1)).ended_before, None);
        for bad in ["runs = 0", "days = 0", "keep = [\"receipts\"]", "weeks = 1"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
