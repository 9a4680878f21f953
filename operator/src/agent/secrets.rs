//! Secrets of Apps: from the hub's copies into the tenants' namespaces.
//!
//! Values are held in memory only, under a type that cannot be printed, and neither logs nor reports
//! nor the snapshot carry them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crds::{FIELD_MANAGER, NamespaceName, Reason, TakeOver, Uid, label};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use plan::realize::{Deliver, SecretKey, Withdraw};
use serde::Deserialize;
use serde_json::json;

use super::member::{Member, Outcome, lacks_right};
use crate::runtime::watch::Change;

/// Label of the hub's copies of Secrets.
pub(crate) const COPY: &str = "jiuzhou.io/secret-copy";

/// Values, as they are on the wire. They cannot be printed.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Values(BTreeMap<String, String>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.0.len())
    }
}

/// A Secret as the agent reads it.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Secret)]
pub(crate) struct Copied {
    metadata: ObjectMeta,
    #[serde(default)]
    data: Values,
    #[serde(default, rename = "type")]
    kind: String,
}

impl Copied {
    /// Changes whenever the copy does, and also when it is made anew.
    fn stamp(&self) -> Box<str> {
        let version = self
            .metadata
            .resource_version
            .as_deref()
            .unwrap_or_default();
        format!("{}/{version}", self.uid().unwrap_or_default()).into()
    }

    fn mark(&self, name: &str) -> &str {
        self.labels()
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }

    /// Whether it has the values of a copy.
    fn holds(&self, copy: &Self) -> bool {
        self.data == copy.data && self.kind == copy.kind
    }

    fn managed(&self) -> bool {
        self.mark(label::MANAGED_BY) == label::MANAGED_BY_VALUE
    }
}

/// The hub's copies for this cluster.
#[derive(Clone, Default)]
pub(crate) struct Vault(BTreeMap<Box<str>, Arc<Copied>>);

impl Vault {
    /// Takes in a change of the copies.
    pub(crate) fn hear(&mut self, change: Change<Copied>) {
        let name = |copy: &Copied| copy.name_any().into_boxed_str();
        match change {
            Change::Replaced(all) => {
                self.0 = all
                    .into_iter()
                    .map(|copy| (name(&copy), Arc::new(copy)))
                    .collect();
            }
            Change::Applied(copy) => drop(self.0.insert(name(&copy), Arc::new(copy))),
            Change::Deleted(copy) => drop(self.0.remove(&name(&copy))),
        }
    }

    /// Versions of the copies, by name.
    pub(crate) fn versions(&self) -> BTreeMap<Box<str>, Box<str>> {
        self.0
            .iter()
            .map(|(name, copy)| (name.clone(), copy.stamp()))
            .collect()
    }
}

/// Why a Secret is not delivered, if the server or its owner says so.
struct Refusal {
    reason: Reason,
    message: String,
}

impl Refusal {
    fn of_withdrawal(self, namespace: NamespaceName) -> Outcome {
        if self.reason == Reason::AgentForbidden {
            Outcome::Unbound(namespace, self.message)
        } else {
            Outcome::failed(self.message)
        }
    }
}

impl Member {
    /// Brings a Secret up to its copy. Nothing is written when it is as it should be.
    pub(super) async fn deliver(&self, deliver: Deliver, vault: &Vault) -> Outcome {
        let key = &deliver.key;
        let Some(copy) = vault.0.get(&deliver.copy) else {
            return Outcome::failed(format!(
                "the copy of Secret {}/{} is gone again",
                key.0, key.1
            ));
        };
        let existing = self.secrets_beside(key);
        let there = existing.get_opt(&key.1).await;
        let looked = there.is_ok();
        let done = match there {
            Err(error) => Err(refusal(key, &error)),
            Ok(Some(there)) if is_ours(&deliver, &there) && there.holds(copy) => {
                Ok(there.uid().unwrap_or_default().into())
            }
            Ok(there) => self.bring(&deliver, copy, there.as_ref()).await,
        };
        let (version, Deliver { key, app, .. }) = (copy.stamp(), deliver);
        match done {
            Ok(uid) => Outcome::Delivered {
                key,
                app,
                uid,
                version,
            },
            Err(Refusal { reason, message }) => Outcome::Undelivered {
                key,
                app,
                version,
                reason,
                message,
                differs: looked,
            },
        }
    }

    /// The Secrets of a namespace, as the agent reads them.
    fn secrets_beside(&self, key: &SecretKey) -> Api<Copied> {
        Api::namespaced(self.client(), key.0.as_str())
    }

    /// Writes a Secret that is not there or not as its copy is.
    async fn bring(
        &self,
        deliver: &Deliver,
        copy: &Copied,
        there: Option<&Copied>,
    ) -> Result<Uid, Refusal> {
        let Deliver {
            key,
            app,
            app_name,
            take_over,
            ..
        } = deliver;
        let refused = |error| refusal(key, &error);
        if let Some(there) = there {
            if !there.managed() && *take_over == TakeOver::Never {
                return Err(Refusal {
                    reason: Reason::NotManaged,
                    message: format!(
                        "Secret {}/{} exists and is not managed: rename it, delete it, or set spec.takeOver to Always",
                        key.0, key.1
                    ),
                });
            }
            if there.kind != copy.kind {
                // The type of a Secret cannot change.
                self.delete_secret(key, there).await.map_err(refused)?;
            }
        }
        let labels = BTreeMap::from([
            (label::MANAGED_BY, label::MANAGED_BY_VALUE),
            (label::APP, app_name.as_str()),
            (label::APP_UID, app.as_str()),
            (label::TENANT, key.0.as_str()),
        ]);
        let body = self.stamp(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": key.1, "namespace": key.0, "labels": labels},
            "type": copy.kind, "data": copy.data.0,
        }));
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = there.is_some();
        let secrets = self.secrets_beside(key);
        let written = secrets
            .patch(&key.1, &params, &Patch::Apply(&body))
            .await
            .map_err(refused)?;
        Ok(written.uid().unwrap_or_default().into())
    }

    /// Takes a Secret back, if it is the one that was delivered.
    pub(super) async fn withdraw(&self, withdraw: Withdraw) -> Outcome {
        let Withdraw {
            key,
            app,
            uid,
            shared,
            release,
        } = withdraw;
        if !shared {
            let existing = self.secrets_beside(&key);
            let there = match existing.get_opt(&key.1).await {
                Ok(there) => there,
                Err(error) => return refusal(&key, &error).of_withdrawal(key.0),
            };
            let same = |there: &Copied| match &uid {
                Some(uid) => there.uid().as_deref() == Some(uid.as_str()),
                None => there.managed() && there.mark(label::APP_UID) == app.as_str(),
            };
            if let Some(there) = there.filter(same) {
                let done = if release {
                    self.release_secret(&key, &there).await
                } else {
                    self.delete_secret(&key, &there).await
                };
                if let Err(error) = done {
                    return refusal(&key, &error).of_withdrawal(key.0);
                }
            }
        }
        Outcome::Withdrawn { key, app }
    }

    async fn delete_secret(&self, key: &SecretKey, there: &Copied) -> Result<(), kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), key.0.as_str());
        let preconditions = Preconditions {
            uid: there.uid(),
            resource_version: there.resource_version(),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match secrets.delete(&key.1, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn release_secret(&self, key: &SecretKey, there: &Copied) -> Result<(), kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), key.0.as_str());
        let bare = self.bare(&there.uid().unwrap_or_default().into());
        secrets
            .patch(&key.1, &PatchParams::default(), &Patch::Merge(&bare))
            .await
            .map(drop)
    }
}

/// Whether a Secret belongs to the App or to one that shares it.
fn is_ours(deliver: &Deliver, there: &Copied) -> bool {
    let owner = there.mark(label::APP_UID);
    let shares = || deliver.sharing.iter().any(|uid| uid.as_str() == owner);
    there.managed() && (owner == deliver.app.as_str() || shares())
}

/// What an error means. The server's own words could repeat what it refuses, so only its code is told.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other error of the client means that no answer came"
)]
fn refusal(key: &SecretKey, error: &kube::Error) -> Refusal {
    let (namespace, name) = key;
    let said = |reason, message: String| Refusal { reason, message };
    match error {
        kube::Error::Api(status) if lacks_right(status) => said(
            Reason::AgentForbidden,
            format!(
                "the agent may not write Secret {namespace}/{name}: it needs the role jiuzhou-agent-namespace there"
            ),
        ),
        kube::Error::Api(status) if status.is_conflict() => said(
            Reason::NotManaged,
            format!("Secret {namespace}/{name} was created by somebody else meanwhile"),
        ),
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            said(
                Reason::Rejected,
                format!(
                    "the API server refused Secret {namespace}/{name} with code {}",
                    status.code
                ),
            )
        }
        _ => said(
            Reason::InProgress,
            format!("Secret {namespace}/{name}: the API server did not answer"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_cannot_be_printed() {
        let copy = json!({"metadata": {"name": "s-1"}, "data": {"password": "Y2FuYXJ5"}, "type": "Opaque"});
        let copy: Copied = serde_json::from_value(copy).unwrap();
        assert!(!format!("{copy:?}").contains("Y2FuYXJ5"));
    }
}
