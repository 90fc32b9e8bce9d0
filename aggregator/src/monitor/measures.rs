//! What `/metrics` tells of a status, in the text format of Prometheus.

use std::fmt;

use fedlora_common::clock::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::status::{MemberStatus, RunState, Status};

pub(super) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// What a run can wait for, in the order of a round.
const STAGES: [&str; 10] = [
    "gathering",
    "consent",
    "returning",
    "commit",
    "keys",
    "shares",
    "held",
    "updates",
    "confirm",
    "reveal",
];

/// The states of a run that a process can serve.
const STATES: [(&str, RunState); 4] = [
    ("gathering", RunState::Gathering),
    ("running", RunState::Running),
    ("finished", RunState::Finished),
    ("failed", RunState::Failed),
];

/// The whole page; of a process that serves no run yet, its release alone.
pub(super) fn exposition(status: Option<&Status>) -> String {
    let mut measures = vec![
        Measure::gauge("fedlora_build_info", "The release, as a label")
            .with([("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ];
    measures.extend(status.into_iter().flat_map(of));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Measures(measures)));
    let mut page = String::new();
    prometheus_text::encode(&mut page, &registry).expect("text takes any text");
    page
}

/// What a status tells.
pub(super) fn of(status: &Status) -> Vec<Measure> {
    let mut measures = of_run(status);
    measures.extend(of_members(status));
    measures.extend(of_traffic(status));
    measures
}

fn of_run(status: &Status) -> Vec<Measure> {
    let current = status.stage.as_ref();
    let mut state = Measure::gauge("fedlora_run_state", "1 for the state that the run is in");
    for (name, one) in STATES {
        state = state.with([("state", name)], f64::from(status.state == one));
    }
    let mut stage = Measure::gauge("fedlora_stage", "1 for what the run waits for");
    for name in STAGES {
        let is = current.is_some_and(|stage| stage.name == name);
        stage = stage.with([("stage", name)], f64::from(is));
    }
    let mut took = Measure::gauge(
        "fedlora_stage_duration_seconds",
        "How long each stage took when it was last done",
    );
    for (name, seconds) in &status.stage_seconds {
        took = took.with([("stage", name)], *seconds);
    }
    let mut waiting = Measure::gauge(
        "fedlora_stage_elapsed_seconds",
        "How long the run has waited in its stage",
    );
    let mut deadline = Measure::gauge(
        "fedlora_stage_deadline_timestamp_seconds",
        "When the stage ends at the latest",
    );
    if let Some(stage) = current {
        let elapsed = stage.since.until(status.updated).as_secs_f64();
        waiting = waiting.with([], elapsed);
        deadline = deadline.with([], seconds(stage.until));
    }
    let round = match status.state {
        RunState::Running => status.rounds_done + 1,
        _ => status.rounds_done,
    };
    vec![
        Measure::gauge("fedlora_run_info", "The run and its federation, as labels").with(
            [
                ("run", status.run.as_str()),
                ("federation", status.federation.as_str()),
            ],
            1.0,
        ),
        state,
        stage,
        took,
        waiting,
        deadline,
        Measure::gauge(
            "fedlora_round",
            "The round that is open or opens next, from 1",
        )
        .with([], f64::from(round)),
        Measure::gauge(
            "fedlora_attempt",
            "The attempt at the round, from 1; 0 outside of one",
        )
        .with([], f64::from(status.attempt.unwrap_or(0))),
        Measure::gauge("fedlora_rounds_planned", "Rounds of the plan")
            .with([], f64::from(status.rounds_planned)),
        Measure::gauge("fedlora_rounds_done", "Rounds of the run that are done")
            .with([], f64::from(status.rounds_done)),
        Measure::counter(
            "fedlora_attempts_failed",
            "Attempts at rounds that failed since the process began",
        )
        .with([], f64::from(status.attempts_failed)),
        Measure::gauge(
            "fedlora_last_result_timestamp_seconds",
            "When the newest result was published by this process",
        )
        .with_some(status.last_result.map(seconds)),
        Measure::gauge(
            "fedlora_pooled_validation_loss_nats",
            "The pooled validation loss that the newest result tells, a target token",
        )
        .with_some(status.pooled_loss.map(f64::from)),
        Measure::gauge(
            "fedlora_status_timestamp_seconds",
            "When all of this was measured",
        )
        .with([], seconds(status.updated)),
    ]
}

fn of_members(status: &Status) -> Vec<Measure> {
    let count = |is: &dyn Fn(&MemberStatus) -> bool| {
        status.members.iter().filter(|member| is(member)).count() as f64
    };
    let (ready, awaited, needed) = match &status.stage {
        Some(stage) => (stage.ready.len(), stage.awaited.len(), stage.needed),
        None => (0, 0, 0),
    };
    let mut expiry = Measure::gauge(
        "fedlora_member_certificate_expiry_timestamp_seconds",
        "When the certificate that a member showed ends",
    );
    for member in &status.members {
        if let Some(end) = member.certificate_end {
            expiry = expiry.with([("member", member.name.as_str())], seconds(end));
        }
    }
    vec![
        Measure::gauge("fedlora_members", "Members, by what they are at present")
            .with([("is", "known")], count(&|_| true))
            .with([("is", "connected")], count(&|member| member.connected))
            .with(
                [("is", "hindered")],
                count(&|member| member.problem.is_some()),
            )
            .with([("is", "ready")], ready as f64)
            .with([("is", "awaited")], awaited as f64)
            .with([("is", "needed")], needed as f64),
        expiry,
        Measure::gauge(
            "fedlora_server_certificate_expiry_timestamp_seconds",
            "When the certificate that the aggregator shows ends",
        )
        .with_some(status.certificate_end.map(seconds)),
    ]
}

fn of_traffic(status: &Status) -> Vec<Measure> {
    vec![
        Measure::counter(
            "fedlora_received_bytes",
            "Bytes of masked updates that came in since the process began",
        )
        .with([], status.bytes_received as f64),
        Measure::counter(
            "fedlora_sent_bytes",
            "Bytes of adapters that went out since the process began",
        )
        .with([], status.bytes_sent as f64),
        Measure::counter(
            "fedlora_messages_refused",
            "Members' messages that were not taken since the process began",
        )
        .with([], status.messages_refused as f64),
    ]
}

fn seconds(time: Timestamp) -> f64 {
    time.0 as f64 / 1000.0
}

/// A metric with its values, each under other labels.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    kind: MetricType,
    pub(super) values: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Measure {
    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: MetricType::Gauge,
            values: Vec::new(),
        }
    }

    /// What only grows; its name ends with `_total` on the page.
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            kind: MetricType::Counter,
            ..Self::gauge(name, help)
        }
    }

    fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: f64) -> Self {
        let labels = labels.map(|(key, label)| (key, label.to_owned()));
        self.values.push((labels.to_vec(), value));
        self
    }

    fn with_some(self, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with([], value),
            None => self,
        }
    }
}

#[derive(Debug)]
struct Measures(Vec<Measure>);

impl Collector for Measures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for measure in self.0.iter().filter(|measure| !measure.values.is_empty()) {
            let (name, help) = (measure.name, measure.help);
            let mut metric = encoder.encode_descriptor(name, help, None, measure.kind)?;
            for (labels, value) in &measure.values {
                match labels.is_empty() {
                    true => encode(measure.kind, *value, &mut metric)?,
                    false => encode(measure.kind, *value, &mut metric.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(kind: MetricType, value: f64, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}
