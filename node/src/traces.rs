//! Traces of what waits: requests that go to the store or to another node, and the store's operations. Sent to the OpenTelemetry
//! collector that `telemetry.otlp` names, in batches, from a thread of its own.
//!
//! Nothing on the message path is traced, and without a collector a span costs one relaxed load. A collector that does not answer
//! costs spans, which are counted, and never a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};

/// The target of every span that is exported. It is no module's, so no log level shows it by chance.
pub const TARGET: &str = "trace";

/// How long the collector may take for one batch.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// How long the last batch may take when the node ends.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// How often a collector that does not answer is complained of.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Batches that the collector did not take, in this process.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Batches of spans that the collector did not take.
pub fn failed_total() -> u64 {
    FAILED.load(Ordering::Relaxed)
}

/// `telemetry.otlp` is not a URL to which spans can be sent.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to `{endpoint}` (telemetry.otlp)")]
pub struct EndpointError {
    endpoint: String,
    #[source]
    source: opentelemetry_otlp::ExporterBuildError,
}

/// The way to the collector. Spans that wait are sent when it is dropped.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send what is traced.
    ///
    /// # Errors
    /// The endpoint is no URL. Whether anybody answers there is not tried.
    pub fn start(endpoint: &str, node: &str) -> Result<Self, EndpointError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new())
            .with_endpoint(traces_url(endpoint))
            .with_timeout(EXPORT_WITHIN)
            .build()
            .map_err(|source| EndpointError {
                endpoint: endpoint.to_owned(),
                source,
            })?;
        let resource = Resource::builder_empty()
            .with_service_name("rookery")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// What makes spans for the collector.
    pub(crate) fn tracer(&self) -> Tracer {
        self.provider.tracer("rookery")
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_WITHIN) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// The OpenTelemetry protocol's path is added to a URL that has none.
fn traces_url(endpoint: &str) -> String {
    let bare = endpoint.trim_end_matches('/');
    let host = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    match host.contains('/') {
        true => endpoint.to_owned(),
        false => format!("{bare}/v1/traces"),
    }
}

/// Posts batches with the blocking client that the commands use: the exporter has a thread of its own.
#[derive(Debug)]
struct Post {
    agent: ureq::Agent,
    complained: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl Post {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(EXPORT_WITHIN))
            .build();
        Self {
            agent: config.new_agent(),
            complained: Arc::default(),
        }
    }

    fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let url = request.uri().to_string();
        let sent = self.send(request);
        let problem = match &sent {
            Ok(response) if response.status().is_success() => return sent,
            Ok(response) => format!("it answered {}", response.status()),
            Err(error) => error.to_string(),
        };
        FAILED.fetch_add(1, Ordering::Relaxed);
        let mut complained = self.complained.lock().expect("no thread panics holding it");
        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            *complained = Some(Instant::now());
            tracing::warn!(%url, problem, "traces are lost: the collector takes none (telemetry.otlp)");
        }
        sent
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut post = self.agent.post(head.uri.to_string());
        for (name, value) in &head.headers {
            post = post.header(name, value);
        }
        let mut answer = post.send(&body[..])?;
        let bytes = answer.body_mut().read_to_vec()?;
        Ok(Response::builder().status(answer.status()).body(Bytes::from(bytes))?)
    }
}

#[async_trait::async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.post(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_path_is_added_where_there_is_none() {
        for (given, wanted) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("http://c:4318/other/v1/traces", "http://c:4318/other/v1/traces"),
        ] {
            assert_eq!(traces_url(given), wanted);
        }
    }
}
