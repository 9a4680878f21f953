//! What guard control watches. A kind is one line in [`Sources`], one in `start`, one in `inputs`.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crds::TrafficPolicy;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::store::{Store, Unreadable};
use super::tickets::{self, TicketSecret};
use crate::guard::compile::Inputs;
use crate::guard::gateway::{
    GROUP, Gateway, GatewayClass, HttpRoute, ReferenceGrant, ReferenceGrantBeta,
};
use crate::runtime::watch::{Change, Freshness, Selection, Timing, watch};

/// The definition whose annotation says which version of Gateway API is installed.
const DEFINITION: &str = "gatewayclasses.gateway.networking.k8s.io";
/// That annotation.
const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// Certificates; other Secrets are none of the guard's business.
const CERTIFICATES: &str = "type=kubernetes.io/tls";
/// Changes of one kind that wait to be taken in; a full queue holds the watch back.
const QUEUE: usize = 64;
/// How often to look which version of ReferenceGrant is served, before one is.
const LOOK: Duration = Duration::from_secs(2);
/// A kind that is not installed is looked for this often, so that installing it is noticed soon.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// All that is watched.
pub(super) struct Sources {
    definitions: Store<Definition>,
    gateway_classes: Store<GatewayClass>,
    gateways: Store<Gateway>,
    http_routes: Store<HttpRoute>,
    traffic_policies: Store<TrafficPolicy>,
    reference_grants: Store<ReferenceGrant>,
    namespaces: Store<Namespace>,
    services: Store<Service>,
    endpoint_slices: Store<EndpointSlice>,
    secrets: Store<Secret>,
    tickets: Store<TicketSecret>,
    /// Rings for each change.
    pub(super) news: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// A definition of a kind, without its schema.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = CustomResourceDefinition)]
struct Definition {
    metadata: ObjectMeta,
}

impl Sources {
    /// Starts all watches. Dropping them ends them.
    pub(super) fn start(client: &Client, namespace: &str, freshness: &Freshness) -> Self {
        let mut watches = Watches {
            client: client.clone(),
            freshness: freshness.clone(),
            news: Arc::default(),
            tasks: JoinSet::new(),
        };
        let definition = fields(format!("metadata.name={DEFINITION}"));
        Self {
            definitions: watches.every(definition),
            gateway_classes: watches.foreign(),
            gateways: watches.foreign(),
            http_routes: watches.foreign(),
            traffic_policies: watches.foreign(),
            reference_grants: watches.grants(),
            namespaces: watches.every(Selection::default()),
            services: watches.every(Selection::default()),
            endpoint_slices: watches.every(Selection::default()),
            secrets: watches.every(fields(CERTIFICATES.to_owned())),
            tickets: watches.one(namespace, tickets::NAME, "ticket-keys"),
            news: Arc::clone(&watches.news),
            _tasks: watches.tasks,
        }
    }

    /// All objects of all kinds; none before each kind was listed once, since what was not heard of would
    /// look as if it were gone.
    pub(super) fn inputs(&self) -> Option<Inputs> {
        let definitions = self.definitions.all()?;
        let annotations = definitions.first()?.metadata.annotations.as_ref();
        let bundle_version = annotations.and_then(|all| all.get(BUNDLE_VERSION));
        Some(Inputs {
            bundle_version: bundle_version.cloned(),
            gateway_classes: self.gateway_classes.all()?,
            gateways: self.gateways.all()?,
            http_routes: self.http_routes.all()?,
            traffic_policies: self.traffic_policies.all()?,
            reference_grants: self.reference_grants.all()?,
            namespaces: self.namespaces.all()?,
            services: self.services.all()?,
            endpoint_slices: self.endpoint_slices.all()?,
            secrets: self.secrets.all()?,
            ..Inputs::default()
        })
    }

    /// The Secret with the keys of tickets, if there is one; none before the first list.
    pub(super) fn tickets(&self) -> Option<Vec<Arc<TicketSecret>>> {
        self.tickets.all()
    }

    /// For readiness: the kinds of Gateway API are there.
    pub(super) fn installed(definitions: &Definitions) -> Result<(), String> {
        if definitions.0.all().is_some_and(|all| all.is_empty()) {
            return Err(format!(
                "the kinds of Gateway API are not installed; apply its definitions, of which {DEFINITION} \
                 is one"
            ));
        }
        Ok(())
    }

    /// A handle for [`Sources::installed`].
    pub(super) fn definitions(&self) -> Definitions {
        Definitions(self.definitions.clone())
    }
}

/// Whether Gateway API is installed, for who asks later.
pub(super) struct Definitions(Store<Definition>);

struct Watches {
    client: Client,
    freshness: Freshness,
    news: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Objects of a kind of Kubernetes itself, which can always be read.
    fn every<K>(&mut self, selection: Selection) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let store = Store::default();
        let api: Api<K> = Api::all(self.client.clone());
        let task = follow(
            self.watched(&store, K::plural(&()).as_ref()),
            api,
            selection,
            Ok,
        );
        self.tasks.spawn(task);
        store
    }

    /// One object of a kind of Kubernetes itself, by its name, so that the right to this one is enough.
    fn one<K>(&mut self, namespace: &str, name: &str, what: &str) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let store = Store::default();
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let selection = fields(format!("metadata.name={name}"));
        let task = follow(self.watched(&store, what), api, selection, Ok);
        self.tasks.spawn(task);
        store
    }

    /// Objects of a kind that is defined in the cluster, of which one that cannot be read must not hide the
    /// rest.
    fn foreign<K>(&mut self) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let store = Store::default();
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        let watched = self.watched(&store, K::plural(&()).as_ref());
        self.tasks
            .spawn(follow(watched, api, Selection::default(), guarded));
        store
    }

    /// ReferenceGrants, in the version that the cluster serves.
    fn grants(&mut self) -> Store<ReferenceGrant> {
        let store = Store::default();
        let watched = self.watched(&store, "referencegrants");
        let client = self.client.clone();
        self.tasks.spawn(async move {
            let all = Selection::default();
            if serves_v1(&client).await {
                let api: Api<DeserializeGuard<ReferenceGrant>> = Api::all(client);
                follow(watched, api, all, guarded).await;
            } else {
                let api: Api<DeserializeGuard<ReferenceGrantBeta>> = Api::all(client);
                let read = |object| guarded(object).map(ReferenceGrant::from);
                follow(watched, api, all, read).await;
            }
        });
        store
    }

    fn watched<K>(&self, store: &Store<K>, kind: &str) -> Watched<K> {
        Watched {
            store: store.clone(),
            proof: self.freshness.kind(kind),
            news: Arc::clone(&self.news),
        }
    }
}

/// Where the changes of one kind go.
struct Watched<K> {
    store: Store<K>,
    proof: crate::runtime::watch::Proof,
    news: Arc<Notify>,
}

/// Watches for ever. `T` is what is received, `K` what is kept of it.
async fn follow<T, K>(
    watched: Watched<K>,
    api: Api<T>,
    selection: Selection,
    read: impl Fn(T) -> Result<K, Box<Unreadable>>,
) where
    T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Resource,
{
    let Watched { store, proof, news } = watched;
    let (sink, mut changes) = mpsc::channel::<Change<T>>(QUEUE);
    let (first, _) = Timing::default().backoff;
    let timing = Timing {
        backoff: (first, RETRY_MAX),
        ..Timing::default()
    };
    let watching = watch(api, selection, timing, sink, proof);
    let hearing = async {
        while let Some(change) = changes.recv().await {
            store.hear(match change {
                Change::Replaced(all) => Change::Replaced(all.into_iter().map(&read).collect()),
                Change::Applied(object) => Change::Applied(read(object)),
                Change::Deleted(object) => Change::Deleted(read(object)),
            });
            news.notify_one();
        }
    };
    tokio::join!(watching, hearing);
}

/// Waits until ReferenceGrant is served, and says whether as v1.
async fn serves_v1(client: &Client) -> bool {
    loop {
        for (version, is_v1) in [("v1", true), ("v1beta1", false)] {
            let group = format!("{GROUP}/{version}");
            let served = client.list_api_group_resources(&group).await;
            let named = served.map(|all| all.resources.iter().any(|r| r.name == "referencegrants"));
            if named.unwrap_or(false) {
                return is_v1;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn guarded<K>(object: DeserializeGuard<K>) -> Result<K, Box<Unreadable>> {
    object.0.map_err(|invalid| {
        Box::new(Unreadable {
            metadata: invalid.metadata,
            why: invalid.error,
        })
    })
}

fn fields(selector: String) -> Selection {
    Selection {
        labels: None,
        fields: Some(selector),
    }
}
