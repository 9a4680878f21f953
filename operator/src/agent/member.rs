//! The member cluster: carries out actions and asks questions, one request after the other or a
//! bounded number side by side.

mod namespace;
mod nudge;
mod verdict;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::{ContentHash, FIELD_MANAGER, NamespaceName, Reason, Uid, label};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::rbac::v1::Subject;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use plan::object::{Kind, ObjectKey};
use plan::realize::{Access, Action, Apply, SecretKey, Seen};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::secrets::Vault;
use super::view::{View, api_resource};
pub(super) use verdict::lacks_right;
use verdict::{failed, refused, undone};

/// Requests to one member cluster at a time: enough to hide latency, few enough to be a good guest.
const CONCURRENCY: usize = 16;
/// Field manager that co-owns replicas while an autoscaler takes them over.
const HANDOVER_MANAGER: &str = "jiuzhou-handover";
/// ServiceAccount whose rights decide what a tenant may have in a member cluster.
const TENANT_ACCOUNT: &str = "jiuzhou-tenant";
/// Annotation on a managed namespace: the identity whose rights there are in place.
pub(crate) const BOUND: &str = "jiuzhou.io/bound";

/// For whom an action is carried out, and who tries again when it fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asker {
    /// One App.
    App(Uid),
    /// Every App of a namespace.
    Namespace(NamespaceName),
}

impl Asker {
    /// The App, if it is one.
    pub(crate) fn app(&self) -> Option<&Uid> {
        match self {
            Self::App(uid) => Some(uid),
            Self::Namespace(_) => None,
        }
    }
}

/// What came of an action.
#[derive(Debug)]
pub(crate) enum Outcome {
    Applied {
        key: ObjectKey,
        hash: ContentHash,
        seen: Box<Seen>,
        repair: bool,
    },
    Refused {
        key: ObjectKey,
        hash: ContentHash,
        reason: Reason,
        message: String,
        transient: bool,
    },
    Deleted {
        key: ObjectKey,
        uid: Uid,
        /// Whether it is known to be gone already.
        gone: bool,
    },
    LetGo(ObjectKey),
    Delivered {
        key: SecretKey,
        app: Uid,
        uid: Uid,
        version: Box<str>,
    },
    Undelivered {
        key: SecretKey,
        app: Uid,
        version: Box<str>,
        reason: Reason,
        message: String,
        /// Whether it was seen not to be as its copy is.
        differs: bool,
    },
    Withdrawn {
        key: SecretKey,
        app: Uid,
    },
    Access(NamespaceName, Kind, Access),
    Nudged,
    NamespaceReady(NamespaceName),
    /// It was not begun: its confirmation had become old.
    Late,
    /// The agent's rights in a namespace are not in place.
    Unbound(NamespaceName, String),
    /// Nothing was learnt; the next turn tries again after a pause.
    Failed {
        why: String,
        /// Whether the agent lacks a right.
        forbidden: bool,
    },
}

impl Outcome {
    /// Nothing was learnt, for a reason that is nobody's lack of rights.
    pub(crate) fn failed(why: String) -> Self {
        Self::Failed {
            why,
            forbidden: false,
        }
    }
}

/// When the member cluster last answered, by a monotonic clock.
#[derive(Clone)]
pub(crate) struct Contact(Arc<Mutex<Instant>>);

impl Contact {
    fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether it answered within that time.
    pub(crate) fn within(&self, limit: Duration) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
            <= limit
    }
}

/// The member cluster.
#[derive(Clone)]
pub(crate) struct Member {
    client: Client,
    contact: Contact,
    /// Epoch of the hub leader in whose process the agent runs; every write carries it.
    epoch: Option<i64>,
    /// Who the agent is there.
    subject: Subject,
}

impl Member {
    /// Asks the cluster who we are.
    pub(crate) async fn connect(client: Client, epoch: Option<i64>) -> Result<Self, kube::Error> {
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let review = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await?;
        let user = review
            .status
            .and_then(|s| s.user_info)
            .and_then(|u| u.username)
            .unwrap_or_default();
        let contact = Contact(Arc::new(Mutex::new(Instant::now())));
        Ok(Self {
            client,
            contact,
            epoch,
            subject: subject(&user),
        })
    }

    /// The identity as it stands in the `jiuzhou.io/bound` annotation.
    pub(crate) fn identity(&self) -> String {
        format!(
            "{}.{}",
            self.subject.namespace.as_deref().unwrap_or_default(),
            self.subject.name
        )
    }

    /// When the cluster last answered.
    pub(crate) fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// Asks the cluster for a sign of life until `stop`.
    pub(crate) async fn stay_in_contact(self, period: Duration, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(period))
            .await
            .is_some()
        {
            if self.client.apiserver_version().await.is_ok() {
                self.contact.renew();
            }
        }
    }

    /// Carries out actions, a bounded number at a time. None is begun after `until`.
    pub(crate) async fn carry_out(
        &self,
        actions: Vec<(Asker, Action)>,
        vault: &Vault,
        until: Option<Instant>,
    ) -> Vec<(Asker, Outcome)> {
        let late = || until.is_some_and(|until| Instant::now() > until);
        stream::iter(actions)
            .map(|(asker, action)| async move {
                let outcome = if late() {
                    Outcome::Late
                } else {
                    self.one(action, vault).await
                };
                (asker, outcome)
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }

    async fn one(&self, action: Action, vault: &Vault) -> Outcome {
        match action {
            Action::Apply(apply) => self.apply(*apply).await,
            Action::Delete {
                key,
                uid,
                resource_version,
            } => self.delete(key, uid, resource_version).await,
            Action::Deliver(deliver) => self.deliver(*deliver, vault).await,
            Action::Withdraw(withdraw) => self.withdraw(*withdraw).await,
            Action::LetGo { key, uid } => self.let_go(key, &uid).await,
            Action::Nudge(nudge) => match self.nudge(&nudge).await {
                Ok(()) => Outcome::Nudged,
                Err(error) => undone(
                    &nudge.key.namespace,
                    &format!("cannot have {} try again", nudge.key),
                    &error,
                ),
            },
            Action::Ask(namespace, kind) => match self.ask(&namespace, kind).await {
                Ok(access) => Outcome::Access(namespace, kind, access),
                Err(error) => failed("cannot ask for access", &error),
            },
            Action::CreateNamespace { name, exists } => match self.prepare(&name, exists).await {
                Ok(()) => Outcome::NamespaceReady(name),
                Err(error) => failed(&format!("cannot prepare namespace {name}"), &error),
            },
            Action::Fetch { hash, .. } => {
                Outcome::failed(format!("content {hash} is the hub's to give"))
            }
        }
    }

    /// Marks a write with the leader's epoch, so that the store can refuse a former leader's.
    pub(super) fn stamp(&self, mut object: Value) -> Value {
        if let Some(epoch) = self.epoch {
            object["metadata"]["annotations"][label::LEADER_EPOCH] = json!(epoch.to_string());
        }
        object
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    fn api(&self, key: &ObjectKey) -> Api<View> {
        if key.kind == Kind::Namespace {
            return Api::all_with(self.client.clone(), &api_resource(key.kind));
        }
        Api::namespaced_with(
            self.client.clone(),
            key.namespace.as_str(),
            &api_resource(key.kind),
        )
    }

    async fn apply(&self, apply: Apply) -> Outcome {
        let Apply {
            key,
            body,
            hash,
            force,
            hand_over,
            resource_version,
            repair,
        } = apply;
        let api = self.api(&key);
        if let Some(replicas) = hand_over {
            let owned = self.stamp(json!({
                "apiVersion": key.kind.api_version(), "kind": key.kind.name(),
                "metadata": {"name": key.name, "namespace": key.namespace}, "spec": {"replicas": replicas},
            }));
            // Not forced: when the autoscaler changed the number meanwhile, it owns the field already.
            let params = PatchParams::apply(HANDOVER_MANAGER);
            match api.patch(&key.name, &params, &Patch::Apply(&owned)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return refused(key, hash, &error),
            }
        }
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = force;
        let mut body = self.stamp(Arc::unwrap_or_clone(body));
        if let Some(version) = resource_version {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        match api.patch(&key.name, &params, &Patch::Apply(&body)).await {
            Ok(view) => {
                let (key, seen) = view.into_seen(key.kind);
                Outcome::Applied {
                    key,
                    hash,
                    seen: Box::new(seen),
                    repair,
                }
            }
            Err(error) => refused(key, hash, &error),
        }
    }

    async fn delete(&self, key: ObjectKey, uid: Uid, version: Option<Box<str>>) -> Outcome {
        let seen = version.is_some();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_string()),
                resource_version: version.map(Into::into),
            }),
            ..DeleteParams::background()
        };
        let deleted = |key, gone| Outcome::Deleted { key, uid, gone };
        match self.api(&key).delete(&key.name, &params).await {
            // Background deletion may wait for finalizers: the watch tells when it is gone.
            Ok(_) => deleted(key, false),
            Err(kube::Error::Api(status)) if status.is_not_found() => deleted(key, true),
            // Another object has its name by now.
            Err(kube::Error::Api(status)) if status.is_conflict() && !seen => deleted(key, true),
            Err(error) => undone(&key.namespace, &format!("cannot delete {key}"), &error),
        }
    }

    /// What removes our marks. Field ownership goes with them: an empty list of managed fields is how
    /// the API server is told to forget all managers.
    pub(super) fn bare(&self, uid: &Uid) -> Value {
        self.stamp(json!({"metadata": {
            "uid": uid,
            "labels": {label::MANAGED_BY: null, label::APP: null, label::APP_UID: null, label::TENANT: null},
            "annotations": {label::APPLIED: null, label::OBJECT: null},
            "managedFields": [{}],
        }}))
    }

    async fn let_go(&self, key: ObjectKey, uid: &Uid) -> Outcome {
        let mut bare = self.bare(uid);
        if key.kind == Kind::Namespace {
            // That it may be used by us stays, so that a cluster which comes back is as it was.
            bare["metadata"]["labels"] = json!({label::APP_UID: null});
        }
        match self
            .api(&key)
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(&bare))
            .await
        {
            Ok(_) => Outcome::LetGo(key),
            Err(kube::Error::Api(status)) if status.is_not_found() => Outcome::LetGo(key),
            Err(error) => undone(&key.namespace, &format!("cannot let go of {key}"), &error),
        }
    }

    async fn ask(&self, namespace: &NamespaceName, kind: Kind) -> Result<Access, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!(
                    "system:serviceaccount:{namespace}:{TENANT_ACCOUNT}"
                )),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_string()),
                    verb: Some("create".to_owned()),
                    group: Some(kind.group().to_owned()),
                    version: Some(kind.version().to_owned()),
                    resource: Some(kind.plural().to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        Ok(if allowed {
            Access::Allowed
        } else {
            Access::Denied
        })
    }
}

/// The subject of role bindings for a user name.
fn subject(user: &str) -> Subject {
    match user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
    {
        Some((namespace, name)) => Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
            ..Subject::default()
        },
        None => Subject {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "User".to_owned(),
            name: user.to_owned(),
            ..Subject::default()
        },
    }
}

#[cfg(test)]
mod tests;
