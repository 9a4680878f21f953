//! Carrying out a plan: tenants, Quotas, TrafficPolicies, holds, contents, slices, releases, in this order, as long as we
//! lead.
//!
//! What was written goes straight back into the world, so that the next turn never decides on less
//! than it already did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{
    APP_FINALIZER, App, AssignmentSlice, CONTENT_NAMESPACE, Content, ContentSpec, NamespaceName,
    ObjectMeta, Quota, QuotaLedger, Tenant, TrafficPolicy, Uid, cluster_namespace, label,
};
use futures::{StreamExt as _, stream};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use plan::World;
use plan::province::{ContentWrite, Plan, SliceWrite};
use plan::world::{NamespaceSlot, StoredContent, Subject, TenantRole};
use serde_json::json;

use super::doubts::Doubt;
use super::gather::Gathered;
use super::prepare::prepare;
use super::{finalizers, policies, quotas, tenants};
use crate::runtime::telemetry::current_traceparent;

/// Writes to the hub's API server at a time.
const CONCURRENCY: usize = 16;
/// Apps let go in one turn. A user's thousand deletions must not hold up what others wait for.
const RELEASES: usize = 8 * CONCURRENCY;
/// Writes for tenants in one turn: a flood of Tenants must not hold up everybody's Apps.
const TENANTS: usize = 4 * CONCURRENCY;
/// Writes for Quotas in one turn.
const QUOTAS: usize = 4 * CONCURRENCY;
/// Writes for TrafficPolicies in one turn.
const POLICIES: usize = 4 * CONCURRENCY;
/// Apps let go in a turn that writes slices: whoever waits for a cluster comes first.
const RELEASES_ASIDE: usize = CONCURRENCY / 4;

/// How a round of writes ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    pub(super) written: usize,
    pub(super) failed: usize,
    /// Left for the next turn.
    pub(super) left: usize,
    /// How long contents and slices took, which are what comes again and again in a burst.
    pub(super) took: Duration,
}

/// One write that came through.
pub(super) enum Written {
    App(Box<App>),
    Content(String, StoredContent),
    Slice(crds::ClusterName, Box<AssignmentSlice>),
    Cluster(crds::ClusterName),
    Collected(String),
    Tenant(Box<Tenant>),
    Quota(Box<Quota>),
    QuotaLedger(Box<QuotaLedger>),
    Policy(Box<TrafficPolicy>),
    Namespace(Box<ObjectMeta>),
    Binding(NamespaceName, TenantRole, BTreeSet<Subject>),
}

/// Carries out a plan.
pub(super) async fn apply(client: &Client, gathered: &mut Gathered, plan: Plan) -> Applied {
    let epoch = gathered.world.hub.leader_epoch;
    let mut applied = Applied::default();
    let places = unprepared(gathered).into_iter();
    let places = places.map(|name| place(client, name, epoch));
    run(gathered, &mut applied, places).await;
    let writes = plan.tenants.into_iter().take(TENANTS);
    let writes: Vec<_> = writes
        .map(|write| tenants::write(client, &gathered.world, write))
        .collect();
    run(gathered, &mut applied, writes).await;
    let writes = plan.quotas.into_iter().take(QUOTAS);
    let writes = writes.map(|write| quotas::write(client.clone(), write, epoch));
    run(gathered, &mut applied, writes).await;
    let writes = plan.policies.into_iter().take(POLICIES);
    let writes = writes.map(|write| policies::write(client, write, epoch));
    run(gathered, &mut applied, writes).await;
    let holds = apps(&gathered.world, &plan.holds).into_iter();
    let holds = holds.map(|app| hold(client, app, epoch));
    run(gathered, &mut applied, holds).await;
    let begun = Instant::now();
    let busy = place_apps(client, gathered, &mut applied, plan.contents, plan.slices).await;
    applied.took = begun.elapsed();
    let most = if busy { RELEASES_ASIDE } else { RELEASES };
    let now = &plan.releases[..plan.releases.len().min(most)];
    applied.left = plan.releases.len() - now.len();
    let releases = apps(&gathered.world, now).into_iter();
    let releases = releases.map(|app| release(client, app, epoch));
    run(gathered, &mut applied, releases).await;
    let collected = plan.collect.into_iter().map(|name| collect(client, name));
    run(gathered, &mut applied, collected).await;
    applied
}

/// Clusters whose place at the hub is not set up yet.
fn unprepared(gathered: &Gathered) -> Vec<crds::ClusterName> {
    let clusters = gathered.world.clusters();
    clusters
        .filter(|(name, slot)| slot.state.is_ok() && !gathered.prepared.contains(*name))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Stores contents and then the slices that name them; whether there were any slices.
async fn place_apps(
    client: &Client,
    gathered: &mut Gathered,
    applied: &mut Applied,
    contents: Vec<ContentWrite>,
    slices: Vec<SliceWrite>,
) -> bool {
    let epoch = gathered.world.hub.leader_epoch;
    let packs: Vec<String> = contents.iter().map(|c| c.name.clone()).collect();
    let traceparent: Option<Arc<str>> = current_traceparent().map(Into::into);
    let contents = contents.into_iter();
    let contents = contents.map(|write| content(client, write, epoch));
    run(gathered, applied, contents).await;
    // What names content that could not be stored waits for the next turn, which stores it again.
    let missing = packs.iter().filter(|name| !gathered.world.stores(name));
    let missing: BTreeSet<&str> = missing.map(String::as_str).collect();
    let slices = slices
        .into_iter()
        .filter(|w| gathered.prepared.contains(&w.cluster))
        .filter_map(|w| without(&gathered.world, w, &missing));
    let writes: Vec<_> = slices
        .map(|write| slice(client, write, traceparent.clone()))
        .collect();
    let busy = !writes.is_empty();
    run(gathered, applied, writes).await;
    busy
}

/// A slice without what names missing packs: such entries stay as the slice has them. `None` when
/// nothing is left to write.
fn without(world: &World, write: SliceWrite, missing: &BTreeSet<&str>) -> Option<SliceWrite> {
    write.keeping(world, |entry| {
        missing.contains(&*entry.pack) && entry.state == crds::EntryState::Present
    })
}

async fn run<F>(gathered: &mut Gathered, applied: &mut Applied, writes: impl IntoIterator<Item = F>)
where
    F: Future<Output = Result<Option<Written>, WriteError>>,
{
    let mut results = stream::iter(writes).buffer_unordered(CONCURRENCY);
    while let Some(result) = results.next().await {
        match result {
            Ok(written) => {
                applied.written += 1;
                take_back(gathered, written);
            }
            Err(mut error) => {
                applied.failed += 1;
                gathered.doubts.extend(error.doubt.take());
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "a write failed and is decided again");
            }
        }
    }
}

fn take_back(gathered: &mut Gathered, written: Option<Written>) {
    let world = &mut gathered.world;
    match written {
        Some(Written::App(app)) => world.apply_app(&app),
        Some(Written::Content(name, content)) => world.apply_content(&name, content),
        Some(Written::Slice(cluster, slice)) => {
            let now = gathered.clock.now();
            gathered.take_slice(&cluster, *slice, Some(now));
        }
        Some(Written::Cluster(cluster)) => {
            gathered.prepared.insert(cluster);
        }
        Some(Written::Collected(name)) => world.remove_content(&name),
        Some(Written::Tenant(tenant)) => world.apply_tenant(&tenant),
        Some(Written::Quota(quota)) => world.apply_quota(&quota),
        Some(Written::QuotaLedger(ledger)) => world.apply_quota_ledger(&ledger),
        Some(Written::Policy(policy)) => world.apply_policy(&policy),
        Some(Written::Namespace(meta)) => {
            let name = meta.name.as_deref().unwrap_or_default();
            world.apply_namespace(&name.into(), NamespaceSlot::of(&meta));
        }
        Some(Written::Binding(namespace, role, subjects)) => {
            world.apply_binding(namespace, role, subjects);
        }
        None => {}
    }
}

/// Which write failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what}")]
pub(super) struct WriteError {
    what: String,
    #[source]
    source: Box<kube::Error>,
    /// What has to be looked up before anything else is decided.
    doubt: Option<Doubt>,
}

impl WriteError {
    /// The same, with what has to be looked up.
    pub(super) fn leaves(mut self, doubt: Doubt) -> Self {
        self.doubt = Some(doubt);
        self
    }
}

pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> WriteError {
    let what = what.into();
    move |source| WriteError {
        what,
        source: Box::new(source),
        doubt: None,
    }
}

pub(super) type WriteResult = Result<Option<Written>, WriteError>;

async fn place(client: &Client, cluster: crds::ClusterName, epoch: i64) -> WriteResult {
    prepare(client, &cluster, epoch)
        .await
        .map_err(failed(format!("the place of cluster {cluster}")))?;
    Ok(Some(Written::Cluster(cluster)))
}

/// An App to hold or to let go.
struct AppRef {
    uid: Uid,
    namespace: String,
    name: String,
}

fn apps(world: &World, uids: &[Uid]) -> Vec<AppRef> {
    let app = |uid: &Uid| {
        let slot = world.app(uid)?;
        Some(AppRef {
            uid: uid.clone(),
            namespace: slot.namespace.to_string(),
            name: slot.name.to_string(),
        })
    };
    uids.iter().filter_map(app).collect()
}

/// Sets our finalizer on an App that lives without it.
async fn hold(client: &Client, app: AppRef, epoch: i64) -> WriteResult {
    finalizer(client, &app, true, epoch).await
}

/// Takes our finalizer away, in one request where it is the only one, as it nearly always is.
async fn release(client: &Client, app: AppRef, epoch: i64) -> WriteResult {
    let apps: Api<App> = Api::namespaced(client.clone(), &app.namespace);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": app.uid},
        {"op": "test", "path": "/metadata/finalizers", "value": [APP_FINALIZER]},
        {"op": "remove", "path": "/metadata/finalizers"},
        {"op": "add", "path": format!("/metadata/annotations/{}", label::LEADER_EPOCH.replace('/', "~1")), "value": epoch.to_string()},
    ]);
    let patch: json_patch::Patch =
        serde_json::from_value(patch).expect("a JSON patch of four operations");
    let params = PatchParams::default();
    match apps
        .patch(&app.name, &params, &Patch::Json::<()>(patch))
        .await
    {
        Ok(app) => Ok(Some(Written::App(Box::new(app)))),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        // A test that fails: another App of that name, or other finalizers beside ours.
        Err(kube::Error::Api(status)) if status.is_invalid() => {
            finalizer(client, &app, false, epoch).await
        }
        Err(error) => Err(failed(format!(
            "the finalizer of App {}/{}",
            app.namespace, app.name
        ))(error)),
    }
}

async fn finalizer(client: &Client, app: &AppRef, held: bool, epoch: i64) -> WriteResult {
    let apps: Api<App> = Api::namespaced(client.clone(), &app.namespace);
    let written = finalizers::set(&apps, &app.name, &app.uid, held, epoch).await;
    let written = written.map_err(failed(format!(
        "the finalizer of App {}/{}",
        app.namespace, app.name
    )))?;
    Ok(written.map(|app| Written::App(Box::new(app))))
}

async fn content(client: &Client, write: ContentWrite, leader_epoch: i64) -> WriteResult {
    let ContentWrite {
        name,
        tenant,
        items,
    } = write;
    let contents: Api<Content> = Api::namespaced(client.clone(), CONTENT_NAMESPACE);
    let hashes = items.iter().map(|item| item.hash.clone()).collect();
    let object = Content::new(
        &name,
        ContentSpec {
            tenant: tenant.clone(),
            leader_epoch,
            items,
        },
    );
    match contents.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        // The name is the hash of what it holds: it is the same content.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(failed(format!("Content {name}"))(error)),
    }
    let created = jiff::Timestamp::now().as_millisecond();
    Ok(Some(Written::Content(
        name,
        StoredContent {
            tenant,
            hashes,
            created,
        },
    )))
}

async fn slice(client: &Client, write: SliceWrite, traceparent: Option<Arc<str>>) -> WriteResult {
    let SliceWrite {
        cluster,
        name,
        resource_version,
        mut spec,
    } = write;
    spec.traceparent = traceparent.as_deref().map(str::to_owned);
    let slices: Api<AssignmentSlice> =
        Api::namespaced(client.clone(), &cluster_namespace(&cluster));
    let mut object = AssignmentSlice::new(&name, spec);
    let params = PostParams::default();
    let written = if resource_version.is_some() {
        object.metadata.resource_version = resource_version;
        slices.replace(&name, &params, &object).await
    } else {
        slices.create(&params, &object).await
    };
    match written {
        Ok(written) => Ok(Some(Written::Slice(cluster, Box::new(written)))),
        Err(error) => {
            let error = failed(format!("slice {name} of {cluster}"))(error);
            Err(error.leaves(Doubt::Slice(cluster, name)))
        }
    }
}

/// Deletes content that nothing names, if it is still exactly what was looked at.
async fn collect(client: &Client, name: String) -> WriteResult {
    let contents: Api<Content> = Api::namespaced(client.clone(), CONTENT_NAMESPACE);
    let what = || format!("the removal of Content {name}");
    let Some(current) = contents
        .get_metadata_opt(&name)
        .await
        .map_err(failed(what()))?
    else {
        return Ok(Some(Written::Collected(name)));
    };
    let preconditions = Preconditions {
        uid: current.uid(),
        resource_version: current.resource_version(),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    contents
        .delete(&name, &params)
        .await
        .map_err(failed(what()))?;
    Ok(Some(Written::Collected(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::world::{Hub, Settings};

    fn slice(entries: &[(&str, i64, &str)]) -> crds::AssignmentSliceSpec {
        let entry = |(uid, generation, pack): &(&str, i64, &str)| {
            json!({
                "uid": uid, "namespace": "health", "name": uid, "generation": generation,
                "content": "0".repeat(20), "pack": pack,
            })
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        serde_json::from_value(json!({
            "hubId": "hub-1", "hubEpoch": 1, "leaderEpoch": 1, "sequence": 9,
            "management": "Manage", "clusterUID": "u", "entries": entries,
        }))
        .unwrap()
    }

    fn left(wanted: &[(&str, i64, &str)]) -> Option<Vec<(String, i64)>> {
        let hub = Hub {
            id: "hub-1".into(),
            epoch: 1,
            leader_epoch: 1,
        };
        let mut world = World::new(hub, Settings::default());
        let stored = AssignmentSlice::new("a-0000", slice(&[("web", 1, "c-old")]));
        world.apply_slice(&"ningbo-a".into(), stored, None);
        let write = SliceWrite {
            cluster: "ningbo-a".into(),
            name: "a-0000".to_owned(),
            resource_version: None,
            spec: slice(wanted),
        };
        let write = without(&world, write, &BTreeSet::from(["c-lost"]))?;
        let entries = write.spec.entries.into_iter();
        Some(entries.map(|e| (e.uid.to_string(), e.generation)).collect())
    }

    #[test]
    fn content_that_could_not_be_stored_holds_back_its_own_app_and_no_other() {
        let wanted = [
            ("web", 5, "c-lost"),
            ("api", 6, "c-lost"),
            ("radio", 7, "c-new"),
        ];
        let expected = [("web".to_owned(), 1), ("radio".to_owned(), 7)];
        assert_eq!(left(&wanted), Some(expected.into()));
        assert_eq!(
            left(&[("web", 5, "c-lost")]),
            None,
            "nothing is left to write"
        );
        let stored = Some(vec![("web".to_owned(), 5)]);
        assert_eq!(left(&[("web", 5, "c-new")]), stored);
    }
}
