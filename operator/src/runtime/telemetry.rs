//! Logs, traces and meters of the process, and the trace context that travels inside objects.

use std::{collections::HashMap, io::IsTerminal as _};

use opentelemetry::{
    metrics::{Meter, MeterProvider as _},
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::{Aggregation, Instrument, SdkMeterProvider, Stream},
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::metrics::SECONDS;

/// Where traces go; without it there is no tracer at all.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Share of root spans kept. A busy hub turns ten times a second; every tenth turn tells enough.
const SAMPLED: f64 = 0.1;
/// Series per instrument. The largest is requests: 102 clusters x 7 verbs x 7 outcomes is 5,000 at
/// worst, and quotas grow with tenants; beyond it the SDK folds the rest into one overflow series.
const SERIES: usize = 20_000;

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The Prometheus exporter refused.
    #[error("cannot set up the metrics registry")]
    Registry(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// The span exporter refused its endpoint.
    #[error("cannot set up the trace exporter for OTEL_EXPORTER_OTLP_ENDPOINT")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Somebody else installed a subscriber first.
    #[error("the process already has a log subscriber")]
    Subscriber(#[source] tracing_subscriber::util::TryInitError),
    /// The registry could not be written as text.
    #[error("cannot encode the metrics")]
    Encode(#[source] prometheus::Error),
}

/// The process's telemetry. Hold it for the life of the process, then [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    tracer: Option<SdkTracerProvider>,
    service: &'static str,
}

impl Telemetry {
    /// Starts logs, metrics and, where an endpoint is configured, traces. Call inside the runtime:
    /// the exporter's channel lives on it.
    pub fn start(service: &'static str) -> Result<Self, TelemetryError> {
        Self::start_sampling(service, SAMPLED)
    }

    /// The same with another share of root spans kept.
    pub fn start_sampling(service: &'static str, share: f64) -> Result<Self, TelemetryError> {
        let tracer = tracer(service, share)?;
        let spans = tracer
            .as_ref()
            .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
        // Logs go to standard error, so that a command's standard output stays its answer.
        let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let logs = if std::io::stderr().is_terminal() {
            logs.with_target(false).boxed()
        } else {
            logs.json().flatten_event(true).boxed()
        };
        tracing_subscriber::registry()
            .with(spans)
            .with(logs)
            .with(filter(std::env::var("RUST_LOG").ok().as_deref()))
            .try_init()
            .map_err(TelemetryError::Subscriber)?;
        let (registry, meters) = meters(service)?;
        Ok(Self {
            registry,
            meters,
            tracer,
            service,
        })
    }

    /// What spans are made with where that is done without logs; none where they go nowhere.
    pub fn tracer(&self) -> Option<SdkTracer> {
        let provider = self.tracer.as_ref();
        provider.map(|provider| provider.tracer(self.service))
    }

    /// The registry that `/metrics` shows.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The meter that instruments are registered with.
    pub fn meter(&self) -> Meter {
        self.meters.meter("jiuzhou")
    }

    /// Sends what is buffered and stops. Failures are logged: the process is ending anyway.
    pub async fn shutdown(self) {
        // Flushing blocks on the exporter, which needs the runtime's threads to make progress.
        let flushed = tokio::task::spawn_blocking(move || {
            let traces = self.tracer.map_or(Ok(()), |tracer| tracer.shutdown());
            traces.and(self.meters.shutdown())
        });
        if let Ok(Err(error)) = flushed.await {
            tracing::warn!(%error, "some telemetry was not sent");
        }
    }
}

fn filter(wanted: Option<&str>) -> EnvFilter {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .parse_lossy(wanted.unwrap_or_default());
    // This module of kube logs whole response bodies that it cannot parse, Secrets included. Our
    // own client reports every request with its cluster, so nothing is lost.
    match "kube_client::client=off".parse() {
        Ok(silence) => filter.add_directive(silence),
        Err(_) => filter,
    }
}

fn resource(service: &'static str) -> Resource {
    Resource::builder().with_service_name(service).build()
}

fn tracer(service: &'static str, share: f64) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let Some(endpoint) = std::env::var(OTLP_ENDPOINT)
        .ok()
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(TelemetryError::Exporter)?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            share,
        ))))
        .with_resource(resource(service))
        .build();
    Ok(Some(provider))
}

/// A registry and the provider that fills it.
pub(super) fn meters(
    service: &'static str,
) -> Result<(Registry, SdkMeterProvider), TelemetryError> {
    let registry = Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .with_namespace("jiuzhou")
        .scope_info_enabled(false)
        .build()
        .map_err(TelemetryError::Registry)?;
    let provider = SdkMeterProvider::builder()
        .with_reader(reader)
        .with_view(view)
        .with_resource(resource(service))
        .build();
    Ok((registry, provider))
}

/// Histograms of seconds get buckets that fit; the SDK's own bounds are made for milliseconds.
fn view(instrument: &Instrument) -> Option<Stream> {
    let stream = Stream::builder().with_cardinality_limit(SERIES);
    let seconds = instrument.unit() == "s"
        && instrument.kind() == opentelemetry_sdk::metrics::InstrumentKind::Histogram;
    let stream = if seconds {
        stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
            boundaries: SECONDS.to_vec(),
            record_min_max: false,
        })
    } else {
        stream
    };
    stream.build().ok()
}

/// The registry in Prometheus's text format.
pub fn render(registry: &Registry) -> Result<String, TelemetryError> {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .map_err(TelemetryError::Encode)
}

/// W3C trace context of the current span, to be written into an object; `None` where traces are
/// off or the span is not part of one.
pub fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut fields = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut fields);
    fields.remove("traceparent")
}

/// Makes `span` continue the decision whose trace context an object carries. Text that is no trace
/// context is ignored: the span then starts a trace of its own.
#[must_use]
pub fn span_with_parent(span: Span, traceparent: Option<&str>) -> Span {
    let fields: HashMap<String, String> = traceparent
        .map(|value| ("traceparent".to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    let context = TraceContextPropagator::new().extract(&fields);
    if context.span().span_context().is_valid() {
        // Fails only where no tracer is installed, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced(test: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test);
    }

    #[test]
    fn a_decision_s_trace_goes_on_where_it_is_carried_out() {
        traced(|| {
            let span = span_with_parent(tracing::info_span!("realize"), Some(PARENT));
            let context = span.in_scope(current_traceparent).unwrap();
            assert_eq!(context.split('-').nth(1), PARENT.split('-').nth(1));
            assert_ne!(context.split('-').nth(2), PARENT.split('-').nth(2));
        });
    }

    #[test]
    fn garbage_for_a_trace_context_starts_a_new_trace() {
        traced(|| {
            for garbage in [
                None,
                Some(""),
                Some("00-zz-01"),
                Some("\u{0}\n"),
                Some("00-0-0-0-0-0"),
            ] {
                let span = span_with_parent(tracing::info_span!("realize"), garbage);
                assert!(span.in_scope(current_traceparent).is_some());
            }
        });
    }

    #[test]
    fn without_a_tracer_there_is_no_trace_context() {
        let span = span_with_parent(tracing::info_span!("realize"), Some(PARENT));
        assert_eq!(span.in_scope(current_traceparent), None);
    }

    #[test]
    fn no_setting_lets_response_bodies_into_the_log() {
        for wanted in [
            None,
            Some("trace"),
            Some("kube_client::client=trace"),
            Some("=,=,bad"),
        ] {
            let filter = filter(wanted).to_string();
            assert!(filter.contains("kube_client::client=off"), "{filter}");
            assert!(!filter.contains("kube_client::client=trace"), "{filter}");
        }
    }
}
