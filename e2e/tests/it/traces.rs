//! A decision can be followed from the hub that took it to the agent that carries it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::{LazyLock, Mutex, PoisonError},
    thread,
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use serde_json::json;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    fault_support::{app, fragile, settings},
    support::eventually,
};

/// Edits until one must have been sampled: one turn in ten is.
const EDITS: usize = 150;

/// Names of spans by trace, and whether they have a parent, as far as they have come. A test run makes
/// some thousands.
static SPANS: Mutex<BTreeMap<Vec<u8>, Spans>> = Mutex::new(BTreeMap::new());

type Spans = BTreeSet<(String, bool)>;

/// Where the processes of the province send their spans to. It lives as long as the test program, on
/// a thread of its own: the runtime of one test would end before the next.
pub(crate) fn collector() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || serve(listener));
        format!("http://{address}")
    });
    &ADDRESS
}

fn serve(listener: TcpListener) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let service = TraceServiceServer::new(Collector);
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming)
            .await
            .expect("it serves");
    });
}

struct Collector;

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = request.into_inner().resource_spans.into_iter();
        for span in resources
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
        {
            let child = !span.parent_span_id.is_empty();
            let trace = spans.entry(span.trace_id).or_default();
            trace.insert((span.name, child));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn has(names: &Spans, name: &str, child: bool) -> bool {
    names.contains(&(name.to_owned(), child))
}

/// Whether a turn of the hub, as the root of a trace, has a turn of an agent below it.
fn followed() -> bool {
    let spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    spans
        .values()
        .any(|names| has(names, "hub_turn", false) && has(names, "agent_turn", true))
}

#[tokio::test]
async fn a_turn_of_the_hub_and_what_an_agent_does_about_it_are_one_trace() {
    let (_taken, running) = fragile().await;
    let (hub, tenant) = (running.hub().await, running.tenant("trace").await);
    let city = running.site("hangzhou-a").await;
    hub.create(&app(&tenant, "web", &["hangzhou"], &[settings("web", "0")]))
        .await;
    for edit in 1..=EDITS {
        let value = edit.to_string();
        let change = json!({"spec": {"manifests": [settings("web", &value)]}});
        hub.merge("App", &tenant, "web", &change).await;
        city.until("has the edit", ("ConfigMap", &tenant, "web"), |map| {
            map["data"]["key"] == *value
        })
        .await;
        if followed() {
            return;
        }
    }
    // The last spans may still wait for their batch.
    eventually("a trace has turns of both", async || {
        followed().then_some(())
    })
    .await;
}
