//! Everything that is stored about Quotas, in the one order in which the store took it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crds::{AssignmentSlice, Charge, Entry, Quantity, QuotaLedger, Region};
use futures::StreamExt as _;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use plan::amount::parse_quantity;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

/// Pause before a watch that did not begin is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// What is judged, in the order of [`Amounts`].
pub(crate) const RESOURCES: [&str; 3] = ["cpu", "memory", "pods"];

/// An amount of each resource.
pub(crate) type Amounts = [i64; 3];

/// One resource of a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) nominal: i64,
    pub(crate) borrows: i64,
    pub(crate) lends: i64,
}

/// What a Region's ledger has in force, by namespace; a resource that a grant does not list has none.
pub(crate) type Ledger = BTreeMap<String, [Option<Grant>; 3]>;

/// An entry of a slice, as far as it is charged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Charged {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) generation: i64,
    pub(crate) each: Amounts,
    pub(crate) fixed: Amounts,
    pub(crate) percent: i64,
    pub(crate) surge: i64,
    /// When each stage begins, and its replicas.
    pub(crate) stages: Vec<(Option<i64>, i64)>,
}

/// What an object says after a change.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// The epoch of the leader, and what is in force in a Region.
    Ledger(String, i64, Ledger),
    /// Somebody deleted it; the hub never does.
    NoLedger(String),
    /// Cluster, name and epoch of a slice, and its entries.
    Slice(String, String, i64, Vec<Charged>),
    NoSlice(String, String),
    /// A Region's budget.
    Budget(String, [Option<i64>; 3]),
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The store's own number of it, which orders all kinds.
    pub(crate) version: u64,
    /// When it was heard of, in milliseconds since the Unix epoch.
    pub(crate) at: i64,
    pub(crate) said: Said,
}

/// Writes everything down from when it was started.
pub(crate) struct Recorder {
    changes: Arc<Mutex<Vec<Change>>>,
    _watches: JoinSet<()>,
}

impl Recorder {
    pub(crate) async fn start(client: &Client) -> Self {
        let changes = Arc::default();
        let mut watches = JoinSet::new();
        watch(client, &changes, &mut watches, ledger).await;
        watch(client, &changes, &mut watches, slice).await;
        watch(client, &changes, &mut watches, region).await;
        Self {
            changes,
            _watches: watches,
        }
    }

    /// All that was stored so far, in its order.
    pub(crate) fn so_far(&self) -> Vec<Change> {
        let mut all = locked(&self.changes).clone();
        all.sort_by_key(|change| change.version);
        all
    }

    /// The newest change that was heard of.
    pub(crate) fn newest(&self) -> u64 {
        let all = locked(&self.changes);
        all.iter().map(|change| change.version).max().unwrap_or(0)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists a kind, and follows it from there without a gap.
async fn watch<K>(
    client: &Client,
    changes: &Arc<Mutex<Vec<Change>>>,
    watches: &mut JoinSet<()>,
    read: fn(&K, bool) -> Said,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await.expect("a list");
    let changes = Arc::clone(changes);
    let note = move |object: &K, is_there| {
        let change = Change {
            version: number(object.resource_version().as_deref()),
            at: jiff::Timestamp::now().as_millisecond(),
            said: read(object, is_there),
        };
        locked(&changes).push(change);
    };
    list.items.iter().for_each(|object| note(object, true));
    let mut version = list.metadata.resource_version.expect("a list has one");
    watches.spawn(async move {
        loop {
            // It ends after some minutes; the server remembers what came since for longer.
            let Ok(stream) = api.watch(&WatchParams::default(), &version).await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                let (object, is_there) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                    WatchEvent::Deleted(object) => (object, false),
                    WatchEvent::Bookmark(mark) => {
                        version = mark.metadata.resource_version;
                        continue;
                    }
                    // What was missed would go unjudged.
                    WatchEvent::Error(status) => unreachable!("the watch lost its place: {status}"),
                };
                version = object.resource_version().unwrap_or_default();
                note(&object, is_there);
            }
        }
    });
}

/// A resourceVersion as the number that it is in etcd.
pub(crate) fn number(version: Option<&str>) -> u64 {
    let version = version.and_then(|version| version.parse().ok());
    version.expect("etcd counts")
}

fn amount(resource: &str, quantity: &Quantity) -> i64 {
    parse_quantity(resource, &quantity.0).expect("what the hub writes is an amount")
}

fn ledger(ledger: &QuotaLedger, is_there: bool) -> Said {
    let region = ledger.name_any();
    if !is_there {
        return Said::NoLedger(region);
    }
    let mut grants = Ledger::new();
    for grant in &ledger.spec.grants {
        let resource = |name: &&str| {
            let found = grant
                .resources
                .iter()
                .find(|resource| resource.name == **name)?;
            Some(Grant {
                nominal: amount(name, &found.nominal),
                borrows: amount(name, &found.borrowing_limit),
                lends: amount(name, &found.lending_limit),
            })
        };
        let resources = RESOURCES.each_ref().map(resource);
        grants.insert(grant.namespace.to_string(), resources);
    }
    Said::Ledger(region, ledger.spec.leader_epoch, grants)
}

fn slice(slice: &AssignmentSlice, is_there: bool) -> Said {
    let namespace = slice.namespace().unwrap_or_default();
    let cluster = namespace.trim_start_matches("jz-").to_owned();
    if !is_there {
        return Said::NoSlice(cluster, slice.name_any());
    }
    let entries = slice.spec.entries.iter().map(charged).collect();
    let epoch = slice.spec.leader_epoch;
    Said::Slice(cluster, slice.name_any(), epoch, entries)
}

fn charged(entry: &Entry) -> Charged {
    let Charge {
        each,
        fixed,
        node,
        surge,
    } = &*entry.charge;
    let of = |map: &BTreeMap<String, Quantity>| {
        RESOURCES.map(|name| map.get(name).map_or(0, |quantity| amount(name, quantity)))
    };
    let (fixed, node) = (of(fixed), of(node));
    let stages = entry.stages.iter().map(|stage| {
        let most = stage.hpa.map(|bounds| bounds.max).or(stage.replicas);
        let begins = stage.not_before.map(crds::Timestamp::millis);
        (begins, i64::from(most.unwrap_or(1)))
    });
    Charged {
        uid: entry.uid.to_string(),
        namespace: entry.namespace.to_string(),
        generation: entry.generation,
        each: of(each),
        fixed: [0, 1, 2].map(|at| fixed[at] + node[at]),
        percent: surge.percent.into(),
        surge: surge.count.into(),
        stages: stages.collect(),
    }
}

fn region(region: &Region, _: bool) -> Said {
    let budget = RESOURCES.map(|name| {
        let found = region.spec.budget.iter().find(|part| part.name == name)?;
        Some(amount(name, &found.quantity))
    });
    Said::Budget(region.name_any(), budget)
}
