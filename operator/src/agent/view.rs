//! Objects of the member cluster, as far as the agent looks at them.
//!
//! Everything else is skipped while reading, which keeps a cluster with thousands of objects cheap
//! to watch: managedFields alone are often half of an object.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use crds::{ContentHash, NamespaceName, Uid, label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::{ApiResource, DynamicResourceScope};
use plan::object::{Kind, ObjectKey};
use plan::realize::{Health, Seen, Stamp};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object of any kind.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct View {
    #[serde(deserialize_with = "slim")]
    pub(crate) metadata: ObjectMeta,
    /// Everything else.
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, Value>,
}

/// Metadata without what nobody here reads.
fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        deletion_timestamp: Option<Time>,
    }
    let meta = Slim::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        generation: meta.generation,
        labels: meta.labels,
        annotations: meta.annotations,
        deletion_timestamp: meta.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

impl kube::Resource for View {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// How the API server knows a kind.
pub(crate) fn api_resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: kind.group().to_owned(),
        version: kind.version().to_owned(),
        api_version: kind.api_version(),
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

impl View {
    /// The object as the plan sees it.
    pub(crate) fn into_seen(self, kind: Kind) -> (ObjectKey, Seen) {
        let meta = self.metadata;
        let name = meta.name.unwrap_or_default();
        let labels = meta.labels.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let managed = labels
            .get(label::MANAGED_BY)
            .is_some_and(|v| v == label::MANAGED_BY_VALUE);
        let replicas = self
            .rest
            .get("spec")
            .and_then(|spec| spec.get("replicas"))
            .and_then(Value::as_i64);
        let replicas = replicas.and_then(|n| i32::try_from(n).ok());
        let generation = meta.generation.filter(|generation| *generation > 0);
        let status = self.rest.get("status").unwrap_or(&Value::Null);
        let seen = Seen {
            uid: meta.uid.unwrap_or_default().into(),
            resource_version: meta.resource_version.unwrap_or_default().into(),
            owner: labels
                .get(label::APP_UID)
                .filter(|_| managed)
                .map(|uid| Uid::from(uid.as_str())),
            applied: annotations
                .get(label::APPLIED)
                .map(|hash| ContentHash::from(hash.as_str())),
            deleting: meta.deletion_timestamp.is_some(),
            replicas,
            hold_until: annotations
                .get(label::HOLD_UNTIL)
                .and_then(|at| at.parse::<crds::Timestamp>().ok())
                .map(crds::Timestamp::millis),
            health: Health::of(kind, &name, generation.unwrap_or(0), replicas, status),
            stamp: generation.map_or_else(|| fingerprint(&self.rest), Stamp::Generation),
        };
        let namespace = NamespaceName::from(meta.namespace.unwrap_or_default());
        (
            ObjectKey {
                kind,
                namespace,
                name: name.into(),
            },
            seen,
        )
    }
}

/// Kinds without a generation change their version with every status; what they hold apart from
/// the status tells whether somebody changed it.
fn fingerprint(rest: &BTreeMap<String, Value>) -> Stamp {
    // Kept in the snapshot across restarts, so it must not depend on a random seed.
    let mut hasher = std::hash::DefaultHasher::new();
    for (field, value) in rest.iter().filter(|(field, _)| *field != "status") {
        field.hash(&mut hasher);
        value.to_string().hash(&mut hasher);
    }
    Stamp::Version(format!("{:016x}", hasher.finish()).into())
}
