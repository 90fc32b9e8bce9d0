//! What a collector gets, from a small one that decodes it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as Attribute};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tracing::{debug, info, info_span};

use super::*;

/// A collector: gives the path and the body of each request, and takes all of them.
fn collector(status: &'static str) -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(request) = request(&mut stream) {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                    // The test may be over.
                    let _ = sender.send(request);
                }
            });
        }
    });
    (address, requests)
}

fn request(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    if stream.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if let Some(value) = line.strip_prefix("content-type:") {
            assert_eq!(value.trim(), "application/x-protobuf");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn settings(variables: &[(&str, &str)]) -> Result<Settings, TelemetryError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Settings::read(|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn text(attributes: &[Attribute], key: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key == key)?;
    match found.value.as_ref()? {
        AnyValue {
            value: Some(Value::StringValue(text)),
        } => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn a_collector_gets_spans_with_the_logs_lines_and_metrics_and_nothing_else() {
    let (address, requests) = collector("200 OK");
    let settings = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &address)]).unwrap();
    let telemetry = Telemetry::start(&settings, "fedlora-test").unwrap();
    let telemetry = telemetry.expect("an endpoint is named");
    let subscriber =
        tracing_subscriber::registry().with(telemetry.layer::<tracing_subscriber::Registry>());
    tracing::subscriber::with_default(subscriber, || {
        let round = info_span!(target: crate::SPANS, "round", run = "0a", round = 3);
        round.in_scope(|| {
            let _phase = info_span!(target: crate::SPANS, "phase", phase = "keys").entered();
            info!(target: "fedlora_test", members = 5, "the phase begins");
            debug!(target: "fedlora_test", "a line of the log below info");
            info!(target: "hyper", "a line of another crate");
            drop(info_span!(target: "hyper", "a span of another crate"));
        });
        info!(target: "fedlora_test", "a line outside of every span");
    });
    let meter = telemetry.metrics.as_ref().unwrap().meter("fedlora");
    let seconds = meter.f64_histogram("fedlora.stage.duration").build();
    seconds.record(2.5, &[KeyValue::new("stage", "train")]);
    telemetry.finish();

    let (mut spans, mut metrics) = (Vec::new(), Vec::new());
    while spans.is_empty() || metrics.is_empty() {
        let (path, body) = requests.recv().expect("a collector");
        let resource = match path.as_str() {
            "/v1/traces" => {
                let mut sent = ExportTraceServiceRequest::decode(&body[..]).unwrap();
                let mut one = sent.resource_spans.pop().expect("spans of one service");
                spans.extend(one.scope_spans.drain(..).flat_map(|scope| scope.spans));
                one.resource
            }
            "/v1/metrics" => {
                let mut sent = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
                let mut one = sent.resource_metrics.pop().expect("metrics of one service");
                metrics.extend(one.scope_metrics.drain(..).flat_map(|scope| scope.metrics));
                one.resource
            }
            other => panic!("nothing is sent to {other}"),
        };
        let service = text(&resource.unwrap().attributes, "service.name");
        assert_eq!(service.as_deref(), Some("fedlora-test"));
    }
    let find = |name: &str| -> &Span {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no span {name}: {spans:?}"))
    };
    let (round, phase) = (find("round"), find("phase"));
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert_eq!(phase.parent_span_id, round.span_id);
    assert_eq!(phase.trace_id, round.trace_id);
    assert_eq!(text(&round.attributes, "run").as_deref(), Some("0a"));
    assert_eq!(text(&phase.attributes, "phase").as_deref(), Some("keys"));
    let lines: Vec<_> = phase.events.iter().map(|event| &event.name).collect();
    assert_eq!(lines, ["the phase begins"]);
    // Neither files nor threads of the machine.
    for span in &spans {
        for key in span.attributes.iter().map(|one| &one.key) {
            assert!(
                !key.starts_with("code.") && !key.starts_with("thread."),
                "{key}"
            );
        }
    }
    assert_eq!(metrics.len(), 1);
    assert_eq!(metrics[0].name, "fedlora.stage.duration");
}

#[test]
fn a_collector_that_takes_nothing_holds_nobody_up() {
    let (address, requests) = collector("400 Bad Request");
    let settings = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &address)]).unwrap();
    let telemetry = Telemetry::start(&settings, "fedlora-test")
        .unwrap()
        .unwrap();
    let subscriber =
        tracing_subscriber::registry().with(telemetry.layer::<tracing_subscriber::Registry>());
    tracing::subscriber::with_default(subscriber, || {
        drop(info_span!(target: crate::SPANS, "round"));
    });
    telemetry.finish();
    assert_eq!(requests.recv().unwrap().0, "/v1/traces");
}

#[test]
fn nothing_is_sent_unless_a_variable_names_an_endpoint() {
    for off in [
        &[][..],
        &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_SERVICE_NAME", "a")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_SDK_DISABLED", "true"),
        ],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ],
    ] {
        let settings = settings(off).unwrap();
        assert!(
            Telemetry::start(&settings, "fedlora-test")
                .unwrap()
                .is_none(),
            "{off:?}"
        );
    }
}

#[test]
fn the_standard_variables_say_where_and_what() {
    let read = settings(&[
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://collector:4318/otlp/",
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://other/metrics",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment=a,service.name=b"),
    ])
    .unwrap();
    let traces = read.traces.as_deref();
    assert_eq!(traces, Some("https://collector:4318/otlp/v1/traces"));
    assert_eq!(read.metrics.as_deref(), Some("http://other/metrics"));
    assert_eq!(
        (read.timeout, read.named),
        (Some(Duration::from_millis(2500)), true)
    );
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let traces_alone = settings(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]).unwrap();
    assert!(traces_alone.traces.is_some() && traces_alone.metrics.is_none());
    for (name, value) in [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
    ] {
        let refused = settings(&[endpoint, (name, value)])
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(name) && refused.contains("expected"),
            "{refused}"
        );
    }
    let missing = settings(&[endpoint, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none")]).unwrap();
    let refused = Telemetry::start(&missing, "fedlora-test").unwrap_err();
    assert!(refused.to_string().contains("/none"), "{refused}");
}
