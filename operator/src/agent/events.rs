//! What the agent hears: watches of both sides, and content that came.

use std::sync::Arc;

use crds::AssignmentSliceSpec;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::ApiResource;
use kube::{Api, Client, Resource as _};
use plan::object::{Kind, ObjectKey};
use plan::realize::Seen;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::hub_side::{Fetched, HubSide, named};
use super::secrets::{COPY, Copied};
use super::view::{View, api_resource};
use crate::runtime::metrics::Metrics;
use crate::runtime::watch::{Change, Freshness, Proof, Selection, Timing, watch};

/// Changes waiting to be looked at; a full queue holds the watches back.
const QUEUE: usize = 1024;

/// One thing heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Slices(Change<(Box<str>, Arc<AssignmentSliceSpec>)>),
    Copies(Change<Copied>),
    Objects(Kind, Change<(ObjectKey, Box<Seen>)>),
    Namespaces(Change<View>),
    Nodes(Change<View>),
    Pods(Change<View>),
    Kinds(Vec<Kind>),
    Content(String, Result<Option<Fetched>, String>),
}

/// The watches of an agent. Dropping it ends them.
pub(crate) struct Watches {
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Heard>,
    /// Watches of the member cluster, which is all an agent needs to be of use.
    freshness: Freshness,
    /// Watches of the hub: an agent is ready and goes on while they fail.
    aside: Freshness,
    metrics: Metrics,
}

impl Watches {
    pub(crate) fn new(freshness: Freshness, metrics: Metrics) -> (Self, mpsc::Receiver<Heard>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (
            Self {
                tasks: JoinSet::new(),
                sender,
                freshness,
                aside: Freshness::new(),
                metrics,
            },
            receiver,
        )
    }

    pub(crate) fn sender(&self) -> mpsc::Sender<Heard> {
        self.sender.clone()
    }

    /// The cluster's assignment at the hub.
    pub(crate) fn slices(&mut self, hub: &HubSide) {
        let proof = self.aside.kind("assignmentslices");
        let heard = move |change| Heard::Slices(map(change, named));
        self.select(proof, hub.slices(), Selection::default(), heard);
    }

    /// The hub's copies of Secrets for this cluster.
    pub(crate) fn copies(&mut self, hub: &HubSide) {
        let copies = Selection {
            labels: Some(COPY.to_owned()),
            fields: None,
        };
        let proof = self.aside.kind("secrets");
        self.select(proof, hub.copies(), copies, Heard::Copies);
    }

    /// Objects of one kind in the member cluster.
    pub(crate) fn objects(&mut self, client: &Client, kind: Kind) {
        let api: Api<View> = Api::all_with(client.clone(), &api_resource(kind));
        let one = move |view: View| {
            let (key, seen) = view.into_seen(kind);
            (key, Box::new(seen))
        };
        self.spawn(kind.plural(), api, move |change| {
            Heard::Objects(kind, map(change, one))
        });
    }

    /// Namespaces, nodes and pods of the member cluster.
    pub(crate) fn cluster(&mut self, client: &Client) {
        let namespace = ApiResource::erase::<k8s_openapi::api::core::v1::Namespace>(&());
        self.spawn(
            "namespaces",
            Api::all_with(client.clone(), &namespace),
            Heard::Namespaces,
        );
        let node = ApiResource::erase::<Node>(&());
        self.spawn(
            &Node::plural(&()),
            Api::all_with(client.clone(), &node),
            Heard::Nodes,
        );
        let pod = ApiResource::erase::<Pod>(&());
        self.spawn(
            &Pod::plural(&()),
            Api::all_with(client.clone(), &pod),
            Heard::Pods,
        );
    }

    fn spawn<K>(
        &mut self,
        name: &str,
        api: Api<K>,
        heard: impl Fn(Change<K>) -> Heard + Send + 'static,
    ) where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let proof = self.freshness.kind(name);
        self.select(proof, api, Selection::default(), heard);
    }

    fn select<K>(
        &mut self,
        proof: Proof,
        api: Api<K>,
        selection: Selection,
        heard: impl Fn(Change<K>) -> Heard + Send + 'static,
    ) where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let (sink, mut changes) = mpsc::channel::<Change<K>>(64);
        self.tasks
            .spawn(watch(api, selection, Timing::default(), sink, proof));
        let (sender, metrics) = (self.sender.clone(), self.metrics.clone());
        self.tasks.spawn(async move {
            while let Some(change) = changes.recv().await {
                if sender.capacity() == 0 {
                    metrics.overflowed("agent");
                }
                if sender.send(heard(change)).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn map<A, B>(change: Change<A>, f: impl Fn(A) -> B) -> Change<B> {
    match change {
        Change::Replaced(all) => Change::Replaced(all.into_iter().map(f).collect()),
        Change::Applied(one) => Change::Applied(f(one)),
        Change::Deleted(one) => Change::Deleted(f(one)),
    }
}
