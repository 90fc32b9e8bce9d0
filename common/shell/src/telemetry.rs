//! Traces and metrics for a collector: OTLP over HTTP, in protobuf. Built with the feature `otlp`, and off
//! unless the standard variables name an endpoint.
//!
//! What goes out is what the log may say, no more: the spans of fedlora ([`SPANS`](crate::SPANS)), within
//! them the log's lines from `info` on, and the metrics that a program makes. Other crates' spans and lines
//! stay here: they may hold addresses and headers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::{Handle, Runtime};
use tracing::{Subscriber, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// How long a collector may take, where `OTEL_EXPORTER_OTLP_TIMEOUT` does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the program waits for what is not sent yet.
const LAST_WORD: Duration = Duration::from_secs(5);
/// The largest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// What the environment asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// Where traces go.
    traces: Option<String>,
    /// Where metrics go.
    metrics: Option<String>,
    /// A file of certificates that the collector's own is checked against, beside the system's.
    certificate: Option<PathBuf>,
    timeout: Option<Duration>,
    /// Whether a variable names the service.
    named: bool,
}

impl Settings {
    /// Reads the variables that `lookup` has. One that is empty counts as unset, as the standard says.
    ///
    /// # Errors
    /// [`TelemetryError::Value`] for an exporter or a form that this program does not have.
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, TelemetryError> {
        let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(Self::default());
        }
        let expect = |name: String, accepted: &[&str], expected| match get(&name) {
            Some(got) if !accepted.contains(&got.as_str()) => Err(TelemetryError::Value {
                name,
                got,
                expected,
            }),
            value => Ok(value),
        };
        let endpoint = |signal: &str, path: &str| -> Result<Option<String>, TelemetryError> {
            let exporter = format!("OTEL_{signal}_EXPORTER");
            let exporter = expect(exporter, &["otlp", "none"], "otlp or none")?;
            let own = get(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
            let shared = get("OTEL_EXPORTER_OTLP_ENDPOINT");
            let shared = shared.map(|base| format!("{}/{path}", base.trim_end_matches('/')));
            let endpoint = own.or(shared);
            if exporter.as_deref() == Some("none") || endpoint.is_none() {
                return Ok(None);
            }
            for name in [
                format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"),
                "OTEL_EXPORTER_OTLP_PROTOCOL".into(),
            ] {
                if expect(
                    name,
                    &["http/protobuf"],
                    "http/protobuf, the only form of this program",
                )?
                .is_some()
                {
                    break;
                }
            }
            Ok(endpoint)
        };
        let timeout =
            match get("OTEL_EXPORTER_OTLP_TIMEOUT") {
                None => None,
                Some(got) => Some(got.parse().map(Duration::from_millis).map_err(|_| {
                    TelemetryError::Value {
                        name: "OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(),
                        got,
                        expected: "milliseconds",
                    }
                })?),
            };
        let attributes = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let mut attributes = attributes.split(',');
        let named = attributes.any(|one| one.trim().starts_with("service.name="));
        Ok(Self {
            traces: endpoint("TRACES", "v1/traces")?,
            metrics: endpoint("METRICS", "v1/metrics")?,
            certificate: get("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from),
            timeout,
            named: named || get("OTEL_SERVICE_NAME").is_some(),
        })
    }

    /// Whether anything is to be sent.
    fn is_on(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some()
    }
}

/// What sends, until the program ends.
#[derive(Debug)]
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    /// What it sends on: the program's own runtime ends before the last is sent.
    runtime: Runtime,
}

impl Telemetry {
    /// Begins to send as `settings` say, for a program of this name; nothing where they ask for nothing.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn start(
        settings: &Settings,
        program: &str,
    ) -> Result<Option<Self>, TelemetryError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .map_err(TelemetryError::Runtime)?;
        let sender = Sender::new(settings, runtime.handle().clone())?;
        let mut resource = Resource::builder();
        if !settings.named {
            resource = resource.with_service_name(program.to_owned());
        }
        let resource = resource.build();
        let traces = settings.traces.as_ref().map(|endpoint| {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(sender.clone())
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(endpoint)
                .build()?;
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource.clone());
            Ok::<_, ExporterBuildError>(provider.build())
        });
        let metrics = settings.metrics.as_ref().map(|endpoint| {
            let exporter = MetricExporter::builder()
                .with_http()
                .with_http_client(sender.clone())
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(endpoint)
                .build()?;
            let provider = SdkMeterProvider::builder()
                .with_periodic_exporter(exporter)
                .with_resource(resource.clone());
            Ok::<_, ExporterBuildError>(provider.build())
        });
        Ok(Some(Self {
            traces: traces.transpose()?,
            metrics: metrics.transpose()?,
            runtime,
        }))
    }

    /// Gives the whole process its metrics.
    pub(crate) fn make_global(&self) {
        if let Some(metrics) = &self.metrics {
            opentelemetry::global::set_meter_provider(metrics.clone());
        }
    }

    /// What turns spans into traces.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.traces.as_ref()?.tracer("fedlora");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        // A target is matched by its beginning.
        let filter = format!("off,fedlora=info,{}=info", crate::SPANS);
        Some(layer.with_filter(EnvFilter::new(filter)))
    }

    /// Starts a log, with what turns spans into traces beside it.
    pub(crate) fn init<S>(this: Option<&Self>, log: S)
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let _ = log.with(this.and_then(Self::layer::<S>)).try_init();
    }

    /// Sends what is left, for a while.
    pub(crate) fn finish(self) {
        // There is nobody to tell any more: the sender has said what went wrong.
        if let Some(traces) = &self.traces {
            let _ = traces.shutdown_with_timeout(LAST_WORD);
        }
        if let Some(metrics) = &self.metrics {
            let _ = metrics.shutdown_with_timeout(LAST_WORD);
        }
        self.runtime.shutdown_background();
    }
}

/// Sends requests on a runtime of their own: exporters wait on threads without one.
#[derive(Debug, Clone)]
struct Sender {
    http: reqwest::Client,
    runtime: Handle,
    /// Whether it was said that the collector does not take what is sent.
    failing: Arc<AtomicBool>,
}

impl Sender {
    fn new(settings: &Settings, runtime: Handle) -> Result<Self, TelemetryError> {
        // The one cryptographic library; an error means that it is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout.unwrap_or(TIMEOUT));
        if let Some(path) = &settings.certificate {
            let unusable = |reason: String| TelemetryError::Certificate {
                path: path.clone(),
                reason,
            };
            let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let read = reqwest::Certificate::from_pem_bundle(&text);
            for certificate in read.map_err(|error| unusable(error.to_string()))? {
                http = http.add_root_certificate(certificate);
            }
        }
        Ok(Self {
            http: http.build().map_err(TelemetryError::Client)?,
            runtime,
            failing: Arc::default(),
        })
    }

    /// Says once that the collector does not take what is sent, and once that it does again.
    fn note(&self, problem: Option<String>) {
        match (problem, self.failing.load(Ordering::Relaxed)) {
            (Some(problem), false) => {
                self.failing.store(true, Ordering::Relaxed);
                warn!(%problem, "the collector does not take traces or metrics");
            }
            (None, true) => {
                self.failing.store(false, Ordering::Relaxed);
                warn!("the collector takes traces and metrics again");
            }
            (Some(_), true) | (None, false) => {}
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let answer = self.runtime.spawn(answer(self.http.clone(), request)).await;
        let answer = answer.map_err(HttpError::from).flatten();
        self.note(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        answer
    }
}

async fn answer(
    http: reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, HttpError> {
    // An address may hold a password.
    let told = |error: reqwest::Error| HttpError::from(causes(&error.without_url()));
    let mut answer = http.execute(request).await.map_err(told)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(ResponseBodyTooLarge::new().into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

/// An error with its causes, in words.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        said.push_str(": ");
        said.push_str(&next.to_string());
        cause = next.source();
    }
    said
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// A variable with another value than this program takes.
    #[error("{name} is '{got}': expected {expected}")]
    Value {
        /// The variable.
        name: String,
        /// Its value.
        got: String,
        /// The values accepted, in words.
        expected: &'static str,
    },
    /// A file of certificates that cannot be used.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {}: {reason}", path.display())]
    Certificate {
        /// The file of certificates.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// An endpoint or a header that is none.
    #[error("OTEL_EXPORTER_OTLP: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The system's certificates cannot be used.
    #[error("TLS to the collector: {0}")]
    Client(#[source] reqwest::Error),
    /// No thread can be started.
    #[error("a thread that sends traces and metrics: {0}")]
    Runtime(#[source] io::Error),
}

#[cfg(test)]
mod tests;
