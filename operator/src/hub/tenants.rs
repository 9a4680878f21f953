//! Carrying out what was decided for tenants: namespaces, roles in them, and their orderly removal.

use std::collections::BTreeSet;
use std::fmt::Debug;

use crds::{AdministratorKind, App, NamespaceName, Quota, SYSTEM_NAMESPACE, Tenant, Uid, label};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use plan::World;
use plan::province::TenantWrite;
use plan::world::{Subject, TenantKey, TenantRole};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::apply::{WriteResult, Written, failed};
use super::finalizers;
use super::prepare::MANAGER;

/// The namespace and name of an App that is deleted with its tenant.
fn app(world: &World, uid: &Uid) -> Option<(String, String)> {
    let slot = world.app(uid)?;
    Some((slot.namespace.to_string(), slot.name.to_string()))
}

/// One write for a tenant, with what it needs to know of the world.
pub(super) fn write(
    client: &Client,
    world: &World,
    write: TenantWrite,
) -> impl Future<Output = WriteResult> + use<> {
    let desk = Desk {
        client: client.clone(),
        epoch: world.hub.leader_epoch,
    };
    let place = if let TenantWrite::DeleteApp(uid) = &write {
        app(world, uid)
    } else {
        None
    };
    async move { desk.write(write, place).await }
}

struct Desk {
    client: Client,
    epoch: i64,
}

impl Desk {
    async fn write(&self, write: TenantWrite, app: Option<(String, String)>) -> WriteResult {
        match write {
            TenantWrite::Hold(key, uid) => self.finalizer(&key, &uid, true).await,
            TenantWrite::Release(key, uid) => self.release(&key, &uid).await,
            TenantWrite::Own {
                namespace,
                tenant,
                claims,
            } => self.own(&namespace, &tenant, claims).await,
            TenantWrite::Bind {
                namespace,
                role,
                subjects,
            } => self.bind(&namespace, role, subjects).await,
            TenantWrite::Clear {
                tenant,
                tenant_uid,
                namespace,
                uid,
            } => self.clear(&tenant, &tenant_uid, &namespace, &uid).await,
            TenantWrite::DeleteTenant((home, name), uid) => {
                let what = format!("the deletion of Tenant {home}/{name}");
                let gone = self.delete::<Tenant>(home.as_str(), name.as_str(), &uid);
                let gone = gone.await.map_err(failed(what))?;
                Ok(gone.map(|tenant| Written::Tenant(Box::new(tenant))))
            }
            TenantWrite::DeleteQuota((home, name), uid) => {
                let what = format!("the deletion of Quota {home}/{name}");
                let gone = self.delete::<Quota>(home.as_str(), &name, &uid);
                let gone = gone.await.map_err(failed(what))?;
                Ok(gone.map(|quota| Written::Quota(Box::new(quota))))
            }
            TenantWrite::DeleteApp(uid) => {
                let Some((home, name)) = app else {
                    return Ok(None);
                };
                let what = format!("the deletion of App {home}/{name}");
                let gone = self.delete::<App>(&home, &name, &uid).await;
                let gone = gone.map_err(failed(what))?;
                Ok(gone.map(|app| Written::App(Box::new(app))))
            }
            TenantWrite::DeleteNamespace { namespace, uid } => {
                self.delete_namespace(&namespace, &uid).await
            }
        }
    }

    /// Makes the namespace, or claims the one of that UID. One that somebody made meanwhile is not
    /// taken: the next turn sees it.
    async fn own(&self, name: &NamespaceName, tenant: &Uid, claims: Option<Uid>) -> WriteResult {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let what = || format!("namespace {name}");
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": name,
            "labels": {
                (label::MANAGED_BY): label::MANAGED_BY_VALUE,
                (label::TENANT): name,
                (label::CLAIM): Value::Null,
            },
            "annotations": {
                (label::TENANT_UID): tenant,
                (label::CLEARING): Value::Null,
                (label::LEADER_EPOCH): self.epoch.to_string(),
            },
        }});
        let written = if let Some(uid) = claims {
            object["metadata"]["uid"] = json!(uid);
            let params = PatchParams::default();
            namespaces
                .patch(name.as_str(), &params, &Patch::Merge(&object))
                .await
        } else {
            for (part, mark) in [("labels", label::CLAIM), ("annotations", label::CLEARING)] {
                if let Some(marks) = object["metadata"][part].as_object_mut() {
                    marks.remove(mark);
                }
            }
            let params = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            let object = serde_json::from_value(object)
                .map_err(kube::Error::SerdeError)
                .map_err(failed(what()))?;
            namespaces.create(&params, &object).await
        };
        match written {
            Ok(namespace) => Ok(Some(Written::Namespace(Box::new(namespace.metadata)))),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(error) => Err(failed(what())(error)),
        }
    }

    async fn bind(
        &self,
        namespace: &NamespaceName,
        role: TenantRole,
        subjects: BTreeSet<Subject>,
    ) -> WriteResult {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace.as_str());
        let name = role.as_str();
        let listed: Vec<Value> = subjects.iter().map(subject).collect();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": {(label::MANAGED_BY): label::MANAGED_BY_VALUE},
                "annotations": {(label::LEADER_EPOCH): self.epoch.to_string()},
            },
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": listed,
        });
        let params = PatchParams::apply(MANAGER).force();
        bindings
            .patch(name, &params, &Patch::Apply(&binding))
            .await
            .map_err(failed(format!("RoleBinding {namespace}/{name}")))?;
        Ok(Some(Written::Binding(namespace.clone(), role, subjects)))
    }

    /// Says that what is inside may be deleted, if the Tenant really is being deleted: read from the
    /// store's leader right before.
    async fn clear(
        &self,
        (home, name): &TenantKey,
        tenant: &Uid,
        namespace: &NamespaceName,
        uid: &Uid,
    ) -> WriteResult {
        let what = || format!("annotation {} of namespace {namespace}", label::CLEARING);
        let tenants: Api<Tenant> = Api::namespaced(self.client.clone(), home.as_str());
        let live = tenants
            .get_opt(name.as_str())
            .await
            .map_err(failed(what()))?;
        let goes = live.is_some_and(|live| {
            live.uid().as_deref() == Some(tenant.as_str())
                && live.metadata.deletion_timestamp.is_some()
        });
        if !goes {
            return Ok(None);
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"uid": uid, "annotations": {
            (label::CLEARING): tenant,
            (label::LEADER_EPOCH): self.epoch.to_string(),
        }}});
        let cleared = namespaces
            .patch(
                namespace.as_str(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map_err(failed(what()))?;
        Ok(Some(Written::Namespace(Box::new(cleared.metadata))))
    }

    async fn delete<K>(
        &self,
        namespace: &str,
        name: &str,
        uid: &Uid,
    ) -> Result<Option<K>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let objects: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match objects.delete(name, &exactly(uid)).await {
            Ok(going) => Ok(going.left()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a namespace that is empty of what is ours, as the store's leader has it right before:
    /// what cannot be read is known to it alone.
    async fn delete_namespace(&self, name: &NamespaceName, uid: &Uid) -> WriteResult {
        let what = || format!("the deletion of namespace {name}");
        if self.any::<App>(name).await.map_err(failed(what()))?
            || self.any::<Tenant>(name).await.map_err(failed(what()))?
            || self.any::<Quota>(name).await.map_err(failed(what()))?
        {
            return Ok(None);
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.delete(name.as_str(), &exactly(uid)).await {
            Ok(going) => {
                let going = going.left();
                Ok(going.map(|namespace| Written::Namespace(Box::new(namespace.metadata))))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(failed(what())(error)),
        }
    }

    /// Whether there is any object of a kind in a namespace.
    async fn any<K>(&self, namespace: &NamespaceName) -> Result<bool, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let objects: Api<K> = Api::namespaced(self.client.clone(), namespace.as_str());
        let one = ListParams::default().limit(1);
        Ok(!objects.list_metadata(&one).await?.items.is_empty())
    }

    /// Lets a Tenant go once the store has no namespace that is its own.
    async fn release(&self, key: &TenantKey, uid: &Uid) -> WriteResult {
        let own = plan::world::owned_namespace(key);
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let there = namespaces
            .get_metadata_opt(own.as_str())
            .await
            .map_err(failed(format!("the removal of Tenant {}/{}", key.0, key.1)))?;
        let owner = there
            .as_ref()
            .and_then(|there| there.annotations().get(label::TENANT_UID));
        if owner.is_some_and(|owner| owner == uid.as_str()) {
            return Ok(None);
        }
        self.finalizer(key, uid, false).await
    }

    /// Sets our finalizer on exactly this Tenant, or takes it away.
    async fn finalizer(&self, (home, name): &TenantKey, uid: &Uid, held: bool) -> WriteResult {
        let tenants: Api<Tenant> = Api::namespaced(self.client.clone(), home.as_str());
        let written = finalizers::set(&tenants, name.as_str(), uid, held, self.epoch).await;
        let written = written.map_err(failed(format!("the finalizer of Tenant {home}/{name}")))?;
        Ok(written.map(|tenant| Written::Tenant(Box::new(tenant))))
    }
}

fn exactly(uid: &Uid) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_string()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

fn subject(subject: &Subject) -> Value {
    let name = &subject.name;
    let group = "rbac.authorization.k8s.io";
    match subject.kind {
        AdministratorKind::User => json!({"kind": "User", "apiGroup": group, "name": name}),
        AdministratorKind::Group => json!({"kind": "Group", "apiGroup": group, "name": name}),
        AdministratorKind::ServiceAccount => {
            let namespace = subject
                .namespace
                .as_ref()
                .map_or(SYSTEM_NAMESPACE, NamespaceName::as_str);
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    }
}

/// To whom a RoleBinding of ours gives which role; `None` when it gives another one.
pub(super) fn given(binding: &RoleBinding) -> Option<(TenantRole, BTreeSet<Subject>)> {
    let role = TenantRole::of(&binding.name_any())?;
    if binding.role_ref.kind != "ClusterRole" || binding.role_ref.name != role.as_str() {
        return None;
    }
    let subjects = binding.subjects.iter().flatten();
    let known = |subject: &k8s_openapi::api::rbac::v1::Subject| {
        let kind = match subject.kind.as_str() {
            "Group" => AdministratorKind::Group,
            "ServiceAccount" => AdministratorKind::ServiceAccount,
            _ => AdministratorKind::User,
        };
        Subject {
            kind,
            name: subject.name.as_str().into(),
            namespace: subject.namespace.as_deref().map(Into::into),
        }
    };
    Some((role, subjects.map(known).collect()))
}
