//! How long the stages of the current round take, and how many bytes it moves.

use std::collections::BTreeMap;
use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_transport::Traffic;
use tokio::time::Instant;

use super::events::Stage;

/// The figures of a round that this member takes part in.
pub(super) struct RoundClock {
    /// The digest of the round's M0.
    pub(super) open: Digest,
    before: Traffic,
    times: BTreeMap<Stage, Duration>,
    uploaded: Option<Instant>,
}

impl RoundClock {
    /// Starts with the traffic of the run so far.
    pub(super) fn new(open: Digest, before: Traffic) -> Self {
        Self {
            open,
            before,
            times: BTreeMap::new(),
            uploaded: None,
        }
    }

    pub(super) fn add(&mut self, stage: Stage, took: Duration) {
        *self.times.entry(stage).or_default() += took;
    }

    /// Notes that the aggregator has stored the upload, `took` after it began.
    pub(super) fn uploaded(&mut self, took: Duration) {
        self.add(Stage::Upload, took);
        self.uploaded = Some(Instant::now());
    }

    /// Whether the aggregator has stored the upload.
    pub(super) fn is_uploaded(&self) -> bool {
        self.uploaded.is_some()
    }

    /// Notes that the round's result has arrived.
    pub(super) fn result(&mut self) {
        if let Some(uploaded) = self.uploaded.take() {
            self.add(Stage::Aggregate, uploaded.elapsed());
        }
    }

    /// Stages and traffic of the round, given the traffic of the run up to its end.
    pub(super) fn finish(self, total: Traffic) -> (Vec<(Stage, Duration)>, Traffic) {
        let traffic = Traffic {
            sent: total.sent - self.before.sent,
            received: total.received - self.before.received,
        };
        (self.times.into_iter().collect(), traffic)
    }
}
