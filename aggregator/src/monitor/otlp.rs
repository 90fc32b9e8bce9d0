//! What `/metrics` tells, for a collector: recorded as metrics of the process, which the shell sends where the
//! environment asks for that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Gauge, Meter};

use super::measures;
use crate::status::Status;

/// How often the status is looked at.
const PAUSE: Duration = Duration::from_secs(5);

/// Records what the status file at `status` tells of this process, for as long as it is waited for.
pub(crate) async fn keep_up(status: PathBuf, federation: String) -> Infallible {
    let meter = opentelemetry::global::meter("fedlora");
    let mut gauges = Gauges::default();
    loop {
        // One that cannot be read is told of where it is written.
        if let Ok(Some(status)) = Status::read(&status)
            && status.pid == std::process::id()
        {
            gauges.record(&meter, &federation, &status);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The metrics so far, by their names.
#[derive(Debug, Default)]
struct Gauges(BTreeMap<&'static str, Gauge<f64>>);

impl Gauges {
    fn record(&mut self, meter: &Meter, federation: &str, status: &Status) {
        for measure in measures::of(status) {
            let gauge = self.0.entry(measure.name).or_insert_with(|| {
                let gauge = meter.f64_gauge(measure.name);
                gauge.with_description(measure.help).build()
            });
            for (labels, value) in measure.values {
                let labels = labels
                    .into_iter()
                    .map(|(key, label)| KeyValue::new(key, label));
                let federation = KeyValue::new("federation", federation.to_owned());
                let attributes: Vec<_> = labels.chain([federation]).collect();
                gauge.record(value, &attributes);
            }
        }
    }
}
