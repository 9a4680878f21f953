//! Secrets that Apps name: copied from the tenant's namespace into `jz-<cluster>` of exactly the
//! clusters that run the App.
//!
//! ```text
//! entries of the slices ─ wanted ─┐
//! heads of the tenants' Secrets ──┼─ decide ─ bind, copy, delete
//! heads of the copies ────────────┘
//! ```
//!
//! Values pass through while they are copied and are kept nowhere; what is remembered are versions.
//! A Secret that its tenant deletes is no instruction, and neither is an entry that is missing: a
//! copy remembers the Apps it was made for, and goes when of each it is known that it needs it no
//! more.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    ClusterName, Connection, NamespaceName, SYSTEM_NAMESPACE, Uid, cluster_namespace, label,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};
use plan::World;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::events::Heard;
use super::prepare::{bind_hub, subject};
use crate::agent::COPY;
use crate::runtime::watch::{Change, Freshness, Selection, Timing, watch};

mod done;
mod head;

use done::still;
pub(super) use head::Head;

/// Annotation on a copy: UID and version of what it was copied from.
const SOURCE: &str = "jiuzhou.io/source";
/// Role that lets the hub read the Secrets of one namespace.
const READER: &str = "jiuzhou-secret-reader";
/// Writes at a time.
const CONCURRENCY: usize = 8;
/// Type of Secrets that are a tenant's way into the hub's own API server. They are never copied.
const TOKEN: &str = "kubernetes.io/service-account-token";

/// Annotation on a copy: UIDs of the Apps it was made for.
const USERS: &str = "jiuzhou.io/users";
/// Users that a copy remembers: with 40 bytes each far below what annotations may hold. A copy of
/// more is never deleted by the hub, which only keeps it too long.
const USERS_MAX: usize = 1_000;

/// Copies that are wanted.
type Wanted = BTreeMap<(ClusterName, String), Want>;

/// Of what a copy is wanted, and by which Apps.
#[derive(Debug, PartialEq)]
struct Want {
    namespace: NamespaceName,
    name: String,
    users: BTreeSet<Uid>,
}

/// What is known of Secrets and their copies, as long as this replica leads.
pub(super) struct Secrets {
    client: Client,
    sender: mpsc::Sender<Heard>,
    sources: BTreeMap<NamespaceName, Listed>,
    copies: BTreeMap<ClusterName, Listed>,
    /// Whether anything was heard since the last look.
    dirty: bool,
}

/// The Secrets of one namespace, once they were listed, and the watch that keeps them up to date.
struct Listed {
    heads: Option<BTreeMap<String, Head>>,
    _watch: JoinSet<()>,
}

/// One write.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful at a time, each consumed once"
)]
enum Step {
    /// Copy what stands at the source now.
    Copy {
        cluster: ClusterName,
        copy: String,
        from: NamespaceName,
        name: String,
        users: BTreeSet<Uid>,
    },
    /// Delete a copy that nobody needs any more.
    Delete {
        cluster: ClusterName,
        copy: String,
        head: Head,
    },
}

impl Secrets {
    pub(super) fn new(client: Client, sender: mpsc::Sender<Heard>) -> Self {
        Self {
            client,
            sender,
            sources: BTreeMap::new(),
            copies: BTreeMap::new(),
            dirty: true,
        }
    }

    /// Forgets everything: another replica leads from now on.
    pub(super) fn end(&mut self) {
        self.sources.clear();
        self.copies.clear();
        self.dirty = true;
    }

    /// Something that entries say may have changed.
    pub(super) fn mark(&mut self) {
        self.dirty = true;
    }

    /// Takes in Secrets of a tenant's namespace.
    pub(super) fn hear_sources(&mut self, namespace: &NamespaceName, change: Change<Head>) {
        self.dirty = true;
        if let Some(listed) = self.sources.get_mut(namespace) {
            listed.hear(change);
        }
    }

    /// Takes in copies in a cluster's namespace.
    pub(super) fn hear_copies(&mut self, cluster: &ClusterName, change: Change<Head>) {
        self.dirty = true;
        if let Some(listed) = self.copies.get_mut(cluster) {
            listed.hear(change);
        }
    }

    /// Brings the copies up to date. Returns how many writes failed; they are decided again.
    pub(super) async fn bring_up(
        &mut self,
        leader: &Client,
        world: &World,
        users: &mut BTreeSet<Uid>,
        prepared: &BTreeSet<ClusterName>,
    ) -> usize {
        if !std::mem::take(&mut self.dirty) {
            return 0;
        }
        let epoch = world.hub.leader_epoch;
        let wanted = wanted(world, users);
        let mut failed = self.follow(leader, &wanted, prepared, epoch).await;
        let steps = self.decide(world, &wanted);
        let writes = steps.into_iter().map(async |step| {
            let what = step.place();
            carry_out(leader, step, epoch)
                .await
                .map_err(|error| (what, error))
        });
        let mut results = stream::iter(writes).buffer_unordered(CONCURRENCY);
        while let Some(result) = results.next().await {
            if let Err((what, error)) = result {
                failed += 1;
                // The server's message could repeat what it refuses; its code does not.
                let code = if let kube::Error::Api(status) = &error {
                    status.code
                } else {
                    0
                };
                tracing::warn!(
                    what,
                    code,
                    "a Secret was not brought up to date and is decided again"
                );
            }
        }
        self.dirty = failed > 0;
        failed
    }

    /// Watches the namespaces that matter.
    async fn follow(
        &mut self,
        leader: &Client,
        wanted: &Wanted,
        prepared: &BTreeSet<ClusterName>,
        epoch: i64,
    ) -> usize {
        let namespaces: BTreeSet<&NamespaceName> =
            wanted.values().map(|want| &want.namespace).collect();
        self.sources
            .retain(|namespace, _| namespaces.contains(namespace));
        self.copies.retain(|cluster, _| prepared.contains(cluster));
        let mut failed = 0;
        for namespace in namespaces {
            if self.sources.contains_key(namespace) {
                continue;
            }
            // Nothing is written where it was bound before, as by the leader of an earlier term.
            if !may_read(&self.client, namespace).await
                && let Err(error) = bind_hub(
                    leader,
                    namespace.as_str(),
                    READER,
                    &subject("jiuzhou-hub", SYSTEM_NAMESPACE),
                    epoch,
                )
                .await
            {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, %namespace, "the hub could not give itself the right to read a tenant's Secrets");
                failed += 1;
                continue;
            }
            let key = namespace.clone();
            let heard = move |change| Heard::Sources(key.clone(), change);
            let listed = self.listed(namespace.as_str(), Selection::default(), heard);
            self.sources.insert(namespace.clone(), listed);
        }
        for cluster in prepared {
            if !self.copies.contains_key(cluster) {
                let key = cluster.clone();
                let heard = move |change| Heard::Copies(key.clone(), change);
                let copies = Selection {
                    labels: Some(COPY.to_owned()),
                    fields: None,
                };
                let listed = self.listed(&cluster_namespace(cluster), copies, heard);
                self.copies.insert(cluster.clone(), listed);
            }
        }
        failed
    }

    fn listed(
        &self,
        namespace: &str,
        selection: Selection,
        heard: impl Fn(Change<Head>) -> Heard + Send + 'static,
    ) -> Listed {
        let (sink, mut changes) = mpsc::channel::<Change<Head>>(64);
        let mut tasks = JoinSet::new();
        let api: Api<Head> = Api::namespaced(self.client.clone(), namespace);
        // The hub's health does not depend on one tenant's namespace.
        let proof = Freshness::new().kind("secrets");
        tasks.spawn(watch(api, selection, Timing::default(), sink, proof));
        let sender = self.sender.clone();
        tasks.spawn(async move {
            while let Some(change) = changes.recv().await {
                if sender.send(heard(change)).await.is_err() {
                    return;
                }
            }
        });
        Listed {
            heads: None,
            _watch: tasks,
        }
    }

    /// What differs. Nothing is decided about a namespace before it was listed.
    fn decide(&self, world: &World, wanted: &Wanted) -> Vec<Step> {
        let mut steps = Vec::new();
        for ((cluster, copy), want) in wanted {
            let source = self
                .sources
                .get(&want.namespace)
                .and_then(|l| l.heads.as_ref()?.get(&want.name));
            let copies = self.copies.get(cluster).and_then(|l| l.heads.as_ref());
            if let (Some(source), Some(copies)) = (source.filter(|s| s.kind != TOKEN), copies) {
                let there = copies.get(copy);
                let mut users = want.users.clone();
                let before = there.and_then(Head::users);
                users.extend(still(world, cluster, copy, before.iter().flatten()));
                let same = |there: &Head| {
                    there.source() == Some(&*source.version()) && there.lists(&users)
                };
                if !there.is_some_and(same) {
                    steps.push(Step::Copy {
                        cluster: cluster.clone(),
                        copy: copy.clone(),
                        from: want.namespace.clone(),
                        name: want.name.clone(),
                        users,
                    });
                }
            }
        }
        for (cluster, listed) in &self.copies {
            for (copy, head) in listed.heads.iter().flatten() {
                // Without knowing for whom it was made nobody can say that they need it no more.
                let Some(users) = head.users() else { continue };
                let wanted = wanted.contains_key(&(cluster.clone(), copy.clone()));
                if !wanted && still(world, cluster, copy, &users).is_empty() {
                    steps.push(Step::Delete {
                        cluster: cluster.clone(),
                        copy: copy.clone(),
                        head: head.clone(),
                    });
                }
            }
        }
        steps
    }
}

impl Listed {
    fn hear(&mut self, change: Change<Head>) {
        let heads = self.heads.get_or_insert_default();
        match change {
            Change::Replaced(all) => {
                *heads = all.into_iter().map(|head| (head.name(), head)).collect();
            }
            Change::Applied(head) => drop(heads.insert(head.name(), head)),
            Change::Deleted(head) => drop(heads.remove(&head.name())),
        }
    }
}

impl Step {
    fn place(&self) -> String {
        match self {
            Self::Copy {
                cluster,
                from,
                name,
                ..
            } => format!("copy of Secret {from}/{name} for {cluster}"),
            Self::Delete { cluster, copy, .. } => format!("removal of copy {copy} of {cluster}"),
        }
    }
}

/// The copies that the entries name. In the hub's own cluster the Secret itself is at hand.
fn wanted(world: &World, users: &mut BTreeSet<Uid>) -> Wanted {
    let local: BTreeSet<&ClusterName> = world
        .clusters()
        .filter(|(_, slot)| {
            slot.state
                .as_ref()
                .is_ok_and(|c| c.connection == Connection::Local)
        })
        .map(|(name, _)| name)
        .collect();
    let mut wanted = Wanted::new();
    users.retain(|uid| {
        let entries = world
            .ledger(uid)
            .into_iter()
            .flat_map(|ledger| &ledger.entries);
        let mut any = false;
        for (cluster, held) in entries {
            any |= !held.entry.secrets.is_empty();
            if held.entry.state.is_present() && !local.contains(cluster) {
                for secret in &held.entry.secrets {
                    let want = wanted.entry((cluster.clone(), secret.copy.clone()));
                    let want = want.or_insert_with(|| Want {
                        namespace: held.entry.namespace.clone(),
                        name: secret.name.clone(),
                        users: BTreeSet::new(),
                    });
                    want.users.insert(uid.clone());
                }
            }
        }
        any
    });
    wanted
}

/// Whether the hub may read the Secrets of a namespace already. What is not known is set up.
async fn may_read(client: &Client, namespace: &NamespaceName) -> bool {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let what = ResourceAttributes {
        namespace: Some(namespace.to_string()),
        verb: Some("list".to_owned()),
        resource: Some("secrets".to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(what),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = reviews.create(&PostParams::default(), &review).await;
    answer.is_ok_and(|answer| answer.status.is_some_and(|status| status.allowed))
}

async fn carry_out(client: &Client, step: Step, epoch: i64) -> Result<(), kube::Error> {
    match step {
        Step::Copy {
            cluster,
            copy,
            from,
            name,
            users,
        } => {
            let sources: Api<Secret> = Api::namespaced(client.clone(), from.as_str());
            // Gone since: what was copied before stays.
            let Some(source) = sources.get_opt(&name).await? else {
                return Ok(());
            };
            store(client, &cluster, copied(&copy, source, &users, epoch)).await
        }
        Step::Delete {
            cluster,
            copy,
            head,
        } => {
            let copies: Api<Secret> = Api::namespaced(client.clone(), &cluster_namespace(&cluster));
            let params = exactly(&head.metadata);
            match copies.delete(&copy, &params).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}

/// Deletes the object as it was seen and no other.
fn exactly(seen: &ObjectMeta) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: seen.uid.clone(),
            resource_version: seen.resource_version.clone(),
        }),
        ..DeleteParams::default()
    }
}

fn copied(copy: &str, source: Secret, users: &BTreeSet<Uid>, epoch: i64) -> Secret {
    let ObjectMeta {
        uid,
        resource_version,
        ..
    } = source.metadata;
    let version = head::version(uid.as_deref(), resource_version.as_deref());
    Secret {
        metadata: ObjectMeta {
            name: Some(copy.to_owned()),
            labels: Some(BTreeMap::from([
                (
                    label::MANAGED_BY.to_owned(),
                    label::MANAGED_BY_VALUE.to_owned(),
                ),
                (COPY.to_owned(), "true".to_owned()),
            ])),
            annotations: Some(BTreeMap::from([
                (SOURCE.to_owned(), version),
                (USERS.to_owned(), head::listed(users)),
                (label::LEADER_EPOCH.to_owned(), epoch.to_string()),
            ])),
            ..ObjectMeta::default()
        },
        data: source.data,
        type_: source.type_,
        ..Secret::default()
    }
}

async fn store(
    client: &Client,
    cluster: &ClusterName,
    mut copy: Secret,
) -> Result<(), kube::Error> {
    let copies: Api<Secret> = Api::namespaced(client.clone(), &cluster_namespace(cluster));
    let name = copy.metadata.name.clone().unwrap_or_default();
    let params = PostParams::default();
    match copies.create(&params, &copy).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => return other.map(drop),
    }
    let Some(there) = copies.get_metadata_opt(&name).await? else {
        return Ok(());
    };
    copy.metadata
        .resource_version
        .clone_from(&there.metadata.resource_version);
    match copies.replace(&name, &params, &copy).await {
        // The type of a Secret cannot change: the next turn creates it anew.
        Err(kube::Error::Api(status)) if status.code == 422 => copies
            .delete(&name, &exactly(&there.metadata))
            .await
            .map(drop),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests;
