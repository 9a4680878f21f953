//! The loop over the pods bound to this cluster's nodes.
//!
//! Events and timers only mark pods as due. A due pod is looked at as a whole: where it stands
//! ([`lifecycle`]), whether its ports are served, whether its status says so. At most
//! [`WRITES_AT_ONCE`] writes are under way, one per pod.

mod writes;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::Result;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::watch, time::Instant};

use writes::Written;

use super::{
    Options,
    backoff::Steady,
    echo::Echo,
    faults,
    lifecycle::{self, Addresses, Known, Stage},
    network::{AddressPool, twin},
    nodes::Living,
    server::{Backend, PodServer},
    write_deadline,
};

/// Enough to keep a loopback API server busy; more would only queue in it.
const WRITES_AT_ONCE: usize = 32;
/// After a failed write or a port that is not to be had.
const RETRY: Duration = Duration::from_secs(1);

type Uid = String;

/// What is known about one pod.
struct Entry {
    pod: Pod,
    address: Option<Ipv4Addr>,
    bound: Instant,
    terminating: Option<Instant>,
    server: Option<PodServer>,
    problem: Option<String>,
    writing: bool,
    /// It came due while it was being written.
    again: bool,
}

/// Runs the pods of one cluster.
pub(super) struct Pods {
    client: Client,
    options: Options,
    pool: AddressPool,
    nodes: watch::Receiver<Living>,
    entries: HashMap<Uid, Entry>,
    due: VecDeque<Uid>,
    is_due: HashSet<Uid>,
    timers: BinaryHeap<Reverse<(Instant, Uid)>>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    listed: Option<HashSet<Uid>>,
}

impl Pods {
    pub(super) fn new(
        client: Client,
        options: &Options,
        pool: AddressPool,
        nodes: watch::Receiver<Living>,
    ) -> Self {
        Self {
            client,
            options: options.clone(),
            pool,
            nodes,
            entries: HashMap::new(),
            due: VecDeque::new(),
            is_due: HashSet::new(),
            timers: BinaryHeap::new(),
            writes: FuturesUnordered::new(),
            listed: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let config = watcher::Config::default().fields("spec.nodeName!=");
        let mut events = watcher(api, config).backoff(Steady::default()).boxed();
        loop {
            let wake = self.timers.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                            Some(event) = events.next() => match event {
                                Ok(event) => self.observe(event),
                                Err(error) => tracing::warn!("watch of pods: {error}"),
                            },
                            Some(written) = self.writes.next() => self.finish(written),
                            () = sleep_until(wake) => self.ring(),
                            changed = self.nodes.changed() => {
                                changed?;
                                let all: Vec<Uid> = self.entries.keys().cloned().collect();
                                for uid in all {
            self.mark(uid);
            }
                            }
                        }
            while self.writes.len() < WRITES_AT_ONCE {
                let Some(uid) = self.due.pop_front() else {
                    break;
                };
                self.is_due.remove(&uid);
                self.look_at(&uid).await;
            }
        }
    }

    fn observe(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed {
                    listed.extend(pod.uid());
                }
                self.applied(pod);
            }
            Event::InitDone => {
                // What was not listed went while the watch was broken.
                let listed = self.listed.take().unwrap_or_default();
                let gone = self.entries.keys().filter(|uid| !listed.contains(*uid));
                let gone: Vec<Uid> = gone.cloned().collect();
                for uid in &gone {
                    self.remove(uid);
                }
            }
            Event::Apply(pod) => self.applied(pod),
            Event::Delete(pod) => {
                if let Some(uid) = pod.uid() {
                    self.remove(&uid);
                }
            }
        }
    }

    fn applied(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let now = Instant::now();
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let entry = self.entries.entry(uid.clone()).or_insert_with(|| Entry {
            pod: Pod::default(),
            address: None,
            bound: now,
            terminating: None,
            server: None,
            problem: None,
            writing: false,
            again: false,
        });
        if terminating {
            entry.terminating.get_or_insert(now);
        }
        entry.pod = pod;
        // A third of the object, and of no interest here.
        entry.pod.metadata.managed_fields = None;
        self.mark(uid);
    }

    fn remove(&mut self, uid: &Uid) {
        if let Some(address) = self.entries.remove(uid).and_then(|entry| entry.address) {
            self.pool.give_back(address);
        }
    }

    fn mark(&mut self, uid: Uid) {
        if self.is_due.insert(uid.clone()) {
            self.due.push_back(uid);
        }
    }

    fn ring(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            if let Some(Reverse((_, uid))) = self.timers.pop() {
                self.mark(uid);
            }
        }
    }

    fn wake_after(&mut self, uid: &Uid, wait: Duration) {
        self.timers
            .push(Reverse((Instant::now() + wait, uid.clone())));
    }

    fn finish(&mut self, written: Written) {
        let Some(entry) = self.entries.get_mut(&written.uid) else {
            return;
        };
        entry.writing = false;
        let mut due = std::mem::take(&mut entry.again);
        match written.outcome {
            // Unless an event has brought a later version meanwhile.
            Ok(Some(pod)) if entry.pod.metadata.resource_version == written.base => {
                // A write that changed nothing is over: to look again would only repeat it.
                due |= pod.metadata.resource_version != written.base;
                entry.pod = pod;
            }
            // Deleted, or changed by another: an event brings what is true now.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(pod = entry.pod.name_any(), "write failed: {error:#}");
                self.wake_after(&written.uid, RETRY);
            }
        }
        if due {
            self.mark(written.uid);
        }
    }

    async fn look_at(&mut self, uid: &Uid) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        if entry.writing {
            entry.again = true;
            return;
        }
        let node = entry
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_ref());
        let node = node.and_then(|name| self.nodes.borrow().get(name).copied());
        let Some(node) = node else {
            // The node is dead, deleted, or somebody else's: nothing answers and nobody reports.
            entry.server = None;
            return;
        };
        let stage = lifecycle::stage(&entry.pod, &entry.known(&self.options));
        match stage {
            Stage::Starting(wait) | Stage::Terminating(wait) => self.wake_after(uid, wait),
            Stage::Over => entry.server = None,
            Stage::Gone => {
                entry.server = None;
                self.delete(uid);
            }
            Stage::Crashing | Stage::Running(_) | Stage::Succeeded => {
                self.bring_up(uid, stage, node).await;
            }
        }
    }

    async fn bring_up(&mut self, uid: &Uid, stage: Stage, node: Ipv4Addr) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        if entry.address.is_none() {
            entry.address = adopt(&entry.pod, &mut self.pool).or_else(|| self.pool.take());
        }
        let Some(address) = entry.address else {
            tracing::warn!(
                pod = entry.pod.name_any(),
                "no address left in the pod network"
            );
            self.wake_after(uid, RETRY);
            return;
        };
        let wake = if let Stage::Running(wake) = stage {
            entry.serve(address, &self.options.cluster).await;
            if entry.problem.is_some() {
                Some(RETRY)
            } else {
                wake
            }
        } else {
            entry.server = None;
            None
        };
        let addresses = Addresses { pod: address, node };
        let problem = entry.problem.as_deref();
        let status = lifecycle::status(&entry.pod, stage, addresses, problem, Timestamp::now());
        if entry.pod.status.as_ref() != Some(&status) {
            self.report(uid, &status);
        }
        if let Some(wake) = wake {
            self.wake_after(uid, wake);
        }
    }
}

impl Entry {
    fn known(&self, options: &Options) -> Known {
        Known {
            bound_for: self.bound.elapsed(),
            terminating_for: self.terminating.map(|since| since.elapsed()),
            start_delay: Duration::from_millis(options.start_delay_ms),
            longest_grace: Duration::from_millis(options.longest_grace_ms),
        }
    }

    /// Serves the pod's ports as its annotations say, and notes why if that is not possible.
    async fn serve(&mut self, address: Ipv4Addr, cluster: &str) {
        let answer = faults::answer(&self.pod);
        if let Some(server) = &self.server {
            server.set_answer(answer);
            return;
        }
        let Some(spec) = &self.pod.spec else { return };
        let Some(twin) = twin(address) else { return };
        let backend = Backend {
            cluster: cluster.to_owned(),
            node: spec.node_name.clone().unwrap_or_default(),
            namespace: self.pod.namespace().unwrap_or_default(),
            pod: self.pod.name_any(),
        };
        let mut ports = lifecycle::ports(spec);
        let echo = Echo::of(&self.pod);
        for port in echo.iter().flat_map(Echo::ports) {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        match PodServer::start(twin, &ports, backend, echo, answer).await {
            Ok(server) => {
                self.server = Some(server);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }
}

/// The address that a pod was given before this kubelet started.
fn adopt(pod: &Pod, pool: &mut AddressPool) -> Option<Ipv4Addr> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    pool.adopt(address).then_some(address)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
