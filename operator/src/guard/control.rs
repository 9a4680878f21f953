//! `guard control`: from the objects of a cluster to what its guards serve by.
//!
//! ```text
//! watches ─ sources ─ gather ─ compile (pure) ─┬─ desk <── guards: reports, shares, rooms, configurations
//!                                              └─ statuses ──> API server
//! ```
//!
//! One loop, as everywhere in the house: news of a tenth of a second are taken together. Every replica
//! watches and compiles, so that each can lead at once; only the leader answers guards and writes
//! statuses. Who divides limits must be one, and what guards acknowledged must be known in one place.

mod desk;
mod endpoints;
mod ledger;
mod metrics;
mod rooms;
mod server;
mod shares;
mod sources;
mod statuses;
mod store;
mod tickets;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::compile::{self, Acknowledged, ClosedPorts, Inputs, ObjectName};
use super::gateway::AddressStatus;
use super::mutual_tls::{self, Files, Renewed, TlsError};
use crate::runtime::errors::chain;
use crate::runtime::lease::{Election, Elector, Leadership, Timing};
use crate::runtime::metrics::{Loop, Metrics, TurnOutcome};
use crate::runtime::serve::Health;
use crate::runtime::watch::Freshness;
use desk::{Desk, Sharing};
use endpoints::LastSlices;
use metrics::Gauges;
use sources::Sources;
use statuses::Decided;
use tickets::{TicketSecret, Tickets, Wanted};

/// The Lease of the leader.
const LEASE_NAME: &str = "jiuzhou-guard-control";
/// The loop's own pace: news of this long are taken together.
const PACE: Duration = Duration::from_millis(100);
/// How often to look what guards serve by, of which there is no other news.
const LOOK: Duration = Duration::from_millis(200);

/// A replica of guard control.
pub struct Control {
    /// The cluster.
    pub client: Client,
    /// Where the Lease is, and the Service of the guards.
    pub namespace: String,
    /// The Service that brings requests to the guards.
    pub service: String,
    /// Where the guards are reached, as Gateways say; empty takes it from the Service.
    pub addresses: BTreeSet<AddressStatus>,
    /// What Gateways do that ask for the same port and hostname.
    pub sharing: compile::Sharing,
    /// Where guards ask.
    pub address: SocketAddr,
    /// What is shown to guards, and who certifies them.
    pub files: Files,
    /// Guards that are expected where none was heard.
    pub replicas: u32,
    /// Whether requests of one key come to all guards alike.
    pub spreads_keys: bool,
    /// Times of the election.
    pub lease: Timing,
    /// Counts turns.
    pub metrics: Metrics,
    /// Where gauges are registered.
    pub registry: prometheus::Registry,
    /// The signs of life of all watches.
    pub freshness: Freshness,
    /// Where readiness is asked.
    pub health: Health,
}

/// Why guard control cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for guards")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificate, its key or who certifies guards.
    #[error("cannot prove to guards who this is")]
    Tls(#[from] TlsError),
    /// Another of the same name is registered.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
}

/// An address as Gateways tell it: of an IP, or a hostname.
pub fn address_status(text: &str) -> AddressStatus {
    let kind = if text.parse::<IpAddr>().is_ok() {
        "IPAddress"
    } else {
        "Hostname"
    };
    AddressStatus {
        kind: kind.to_owned(),
        value: text.to_owned(),
    }
}

impl Control {
    /// Runs until `stop`; `bound` hears where it really listens.
    pub async fn run(
        self,
        bound: impl FnOnce(SocketAddr),
        stop: CancellationToken,
    ) -> Result<(), ControlError> {
        let address = self.address;
        let failed = |source| ControlError::Bind { address, source };
        let tls = Arc::new(Renewed::new(self.files.clone(), mutual_tls::server)?);
        let gauges = Gauges::register(&self.registry)?;
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "guards may ask");
        bound(address);
        let desk = Arc::new(Desk::new(Sharing {
            replicas: self.replicas,
            spreads_keys: self.spreads_keys,
        }));
        let serving = server::serve(listener, tls, Arc::clone(&desk), stop.clone());
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        let sources = Sources::start(&self.client, &self.namespace, &self.freshness);
        let definitions = sources.definitions();
        self.health
            .ready("gateway-api", move || Sources::installed(&definitions));
        // No other process may use this name, also not a later one on the same machine.
        let me = uuid::Uuid::new_v4().to_string();
        let client = self.client.clone();
        let elector = Elector::new(client, &self.namespace, LEASE_NAME, me, self.lease);
        let mut election = elector.start();
        let tickets = Tickets::new(&self.namespace);
        let mut running = Running {
            control: self,
            desk,
            sources,
            gauges,
            last: LastSlices::default(),
            tickets,
            acknowledged: (Acknowledged::Nothing, ClosedPorts::default()),
            dirty: true,
            writer: None,
        };
        while stop
            .run_until_cancelled(running.gather(&mut election))
            .await
            .is_some()
        {
            running.lead(election.leadership());
            running.turn();
        }
        running.lead(None);
        election.release().await;
        drop(serving);
        Ok(())
    }
}

struct Running {
    control: Control,
    desk: Arc<Desk>,
    sources: Sources,
    gauges: Gauges,
    last: LastSlices,
    tickets: Tickets,
    /// What guards served by in the last turn, and on which ports they did not.
    acknowledged: (Acknowledged, ClosedPorts),
    /// Whether there are news.
    dirty: bool,
    writer: Option<Writer>,
}

/// What writes statuses and the keys of tickets, for one term.
struct Writer {
    leadership: Leadership,
    decided: watch::Sender<Arc<Decided>>,
    tickets: watch::Sender<Wanted>,
    _task: AbortOnDropHandle<()>,
}

impl Running {
    /// Waits for news, and for those that come together with them.
    async fn gather(&mut self, election: &mut Election) {
        tokio::select! {
            () = self.sources.news.notified() => {
                self.dirty = true;
                tokio::time::sleep(PACE).await;
            }
            () = election.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// Begins or ends a term.
    fn lead(&mut self, leadership: Option<Leadership>) {
        self.desk.lead(leadership.clone());
        let goes_on = match (&self.writer, &leadership) {
            (Some(writer), Some(now)) => writer.leadership.is_same_term(now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if goes_on {
            return;
        }
        self.dirty = true;
        self.writer = leadership.map(|leadership| {
            let (decided, wanted) = watch::channel(Arc::default());
            let (tickets, missing) = watch::channel(Wanted::Nothing);
            let Control {
                client, namespace, ..
            } = &self.control;
            let writing = statuses::write(client.clone(), wanted);
            let creating = tickets::create(client.clone(), namespace.clone(), missing);
            let term = leadership.clone();
            let task = async move {
                let both = futures::future::join(writing, creating);
                let _ended = term.while_leading(both).await;
            };
            Writer {
                leadership,
                decided,
                tickets,
                _task: AbortOnDropHandle::new(tokio::spawn(task)),
            }
        });
    }

    /// Compiles, hands out and reports, if there is something new.
    fn turn(&mut self) {
        self.gauges.guards(self.desk.guards());
        let acknowledged = (self.desk.acknowledged(), self.desk.closed());
        let is_heard = self.writer.is_some() && acknowledged != self.acknowledged;
        if !self.dirty && !is_heard {
            return;
        }
        let (Some(mut inputs), Some(secrets)) = (self.sources.inputs(), self.sources.tickets())
        else {
            // Absence is never an instruction: before all is listed, nothing is known to be gone.
            self.control.metrics.turn(Loop::Guard, TurnOutcome::Held);
            return;
        };
        self.dirty = false;
        let service = ObjectName::new(&self.control.namespace, &self.control.service);
        let standing = endpoints::standing(&service, &inputs.endpoint_slices);
        self.desk.stand(standing);
        // Asked again: a new leader speaks for those that stand, whom it may only know by now.
        self.acknowledged = (self.desk.acknowledged(), self.desk.closed());
        self.complete(&mut inputs, &service);
        self.sign(&mut inputs, &secrets);
        let (configuration, statuses) = compile::compile(&inputs);
        let offered = self.desk.offer(&configuration);
        self.gauges.withheld(offered.is_err());
        if let Err(error) = &offered {
            tracing::error!(
                error = chain(error),
                "a configuration is not handed out; guards go on by the one before"
            );
        }
        if let Some(writer) = &self.writer {
            // Also of what is not handed out: objects say why.
            let decided = Arc::new(Decided { inputs, statuses });
            writer.decided.send_replace(decided);
        }
        let outcome = match (offered, &self.writer) {
            (Err(_), _) => TurnOutcome::Failed,
            (Ok(()), None) => TurnOutcome::Standby,
            (Ok(()), Some(_)) => TurnOutcome::Changed,
        };
        self.control.metrics.turn(Loop::Guard, outcome);
    }

    /// Adds the keys of tickets, and has the leader create them where there are none.
    fn sign(&mut self, inputs: &mut Inputs, secrets: &[Arc<TicketSecret>]) {
        self.tickets.hear(secrets);
        self.gauges.tickets_broken(self.tickets.is_broken());
        inputs.ticket_keys = self.tickets.keys();
        if let Some(writer) = &self.writer {
            let wanted = self.tickets.wanted();
            writer.tickets.send_if_modified(|known| {
                let is_new = known != wanted;
                known.clone_from(wanted);
                is_new
            });
        }
    }

    /// Adds what is not an object, or is no more.
    fn complete(&mut self, inputs: &mut Inputs, service: &ObjectName) {
        self.last
            .complete(&inputs.services, &mut inputs.endpoint_slices);
        self.gauges.endpoints_kept(self.last.gone());
        inputs.addresses = if self.control.addresses.is_empty() {
            let mut services = inputs.services.iter();
            let found = services.find(|found| ObjectName::of(&found.metadata) == *service);
            found.map(|found| addresses(found)).unwrap_or_default()
        } else {
            self.control.addresses.clone()
        };
        // Conditions are stored with whole seconds.
        let now = Timestamp::now().as_second();
        inputs.now = Timestamp::from_second(now).unwrap_or(Timestamp::UNIX_EPOCH);
        (inputs.acknowledged, inputs.closed) = self.acknowledged.clone();
        inputs.sharing = self.control.sharing;
    }
}

/// Where a balancer says that a Service is reached.
fn addresses(service: &Service) -> BTreeSet<AddressStatus> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let named = ingress
        .into_iter()
        .flatten()
        .flat_map(|ingress| [&ingress.ip, &ingress.hostname]);
    named.flatten().map(|text| address_status(text)).collect()
}
