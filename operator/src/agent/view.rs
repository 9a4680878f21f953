//! Objects of the member cluster, as far as the agent looks at them.
//!
//! Everything else is skipped while reading, which keeps a cluster with thousands of objects cheap
//! to watch: managedFields alone are often half of an object.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use crds::{ContentHash, Uid, label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::{ApiResource, DynamicResourceScope};
use plan::allotment::amounts_of;
use plan::object::{Kind, ObjectKey};
use plan::realize::{Health, Limited, Seen, Stamp};
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object of any kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: Spec,
    pub(crate) status: Value,
    /// Of kinds without a generation, everything else: only there a change of theirs shows.
    rest: BTreeMap<String, Value>,
}

/// What is read of a spec: replicas of a workload, and the needs of a pod or a node's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) replicas: Option<i64>,
    pub(crate) unschedulable: Option<bool>,
    pub(crate) node_name: Option<String>,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) resources: Requirements,
}

/// What a container asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Requirements {
    pub(crate) requests: BTreeMap<String, Value>,
}

impl<'de> Deserialize<'de> for View {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

/// Reads an object field by field. The API server sends the metadata before the spec; if not, the
/// spec is kept whole, as that of a kind without a generation.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = View;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<View, A::Error> {
        let mut view = View::default();
        while let Some(field) = map.next_key::<String>()? {
            let counted = view.generation().is_some();
            match field.as_str() {
                "metadata" => view.metadata = map.next_value::<Slim>()?.into(),
                "status" => view.status = map.next_value()?,
                "spec" if counted => view.spec = map.next_value()?,
                // Objects of a list come without them, so they tell nothing.
                "apiVersion" | "kind" => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ if counted => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    let value: Value = map.next_value()?;
                    if field == "spec" {
                        view.spec = Spec::deserialize(&value).map_err(de::Error::custom)?;
                    }
                    view.rest.insert(field, value);
                }
            }
        }
        Ok(view)
    }
}

/// Metadata without what nobody here reads.
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

impl From<Slim> for ObjectMeta {
    fn from(slim: Slim) -> Self {
        Self {
            name: slim.name,
            namespace: slim.namespace,
            uid: slim.uid,
            resource_version: slim.resource_version,
            generation: slim.generation,
            labels: slim.labels,
            annotations: slim.annotations,
            deletion_timestamp: slim.deletion_timestamp,
            ..Self::default()
        }
    }
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
    /// Its generation, if its kind counts changes.
    fn generation(&self) -> Option<i64> {
        self.metadata
            .generation
            .filter(|generation| *generation > 0)
    }

    /// The object as the plan sees it.
    pub(crate) fn into_seen(self, kind: Kind) -> (ObjectKey, Seen) {
        let generation = self.generation();
        let meta = self.metadata;
        let name = meta.name.unwrap_or_default();
        let labels = meta.labels.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let managed = labels
            .get(label::MANAGED_BY)
            .is_some_and(|v| v == label::MANAGED_BY_VALUE);
        let key = ObjectKey {
            kind,
            namespace: if kind == Kind::Namespace {
                name.as_str().into()
            } else {
                meta.namespace.unwrap_or_default().into()
            },
            name: name.as_str().into(),
        };
        // Labels are copied with an object; only the one that was applied names itself.
        let itself = annotations.get(label::OBJECT) == Some(&key.to_string());
        let replicas = self.spec.replicas.and_then(|n| i32::try_from(n).ok());
        let status = &self.status;
        let seen = Seen {
            uid: meta.uid.unwrap_or_default().into(),
            resource_version: meta.resource_version.unwrap_or_default().into(),
            owner: labels
                .get(label::APP_UID)
                .filter(|_| managed && itself)
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
            created: annotations.contains_key(label::CREATED),
            limited: (kind == Kind::ResourceQuota).then(|| {
                Box::new(Limited {
                    enforced: amounts_of(status.get("hard")),
                    used: amounts_of(status.get("used")),
                })
            }),
            stamp: match (kind, generation) {
                (Kind::Namespace, _) => marks(&labels, &annotations),
                (_, Some(generation)) => Stamp::Generation(generation),
                (_, None) => fingerprint(&self.rest),
            },
        };
        (key, seen)
    }
}

/// What isolates a namespace by its own labels and annotations.
fn marks(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Stamp {
    let ours = |(key, _): &(&String, &String)| {
        key.starts_with("pod-security.kubernetes.io/enforce")
            || matches!(
                key.as_str(),
                label::REGISTRIES | label::ON_DRIFT | label::TENANT
            )
    };
    let all = labels.iter().chain(annotations).filter(ours);
    let all = all.map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    fingerprint(&all.collect())
}

/// Kinds without a generation change their version with every status; what they hold apart from
/// the status tells whether somebody changed it.
fn fingerprint(rest: &BTreeMap<String, Value>) -> Stamp {
    // Kept in the snapshot across restarts, so it must not depend on a random seed.
    let mut hasher = std::hash::DefaultHasher::new();
    for (field, value) in rest {
        field.hash(&mut hasher);
        value.to_string().hash(&mut hasher);
    }
    Stamp::Version(format!("{:016x}", hasher.finish()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(kind: Kind, object: &Value) -> Seen {
        serde_json::from_value::<View>(object.clone())
            .unwrap()
            .into_seen(kind)
            .1
    }

    #[test]
    fn an_object_without_a_generation_is_the_same_in_a_list_and_in_a_watch() {
        let listed = json!({"metadata": {"name": "c", "uid": "1"}, "data": {"key": "one"}});
        let mut watched = listed.clone();
        watched["apiVersion"] = json!("v1");
        watched["kind"] = json!("ConfigMap");
        let stamp = |object: &Value| seen(Kind::ConfigMap, object).stamp;
        assert_eq!(stamp(&listed), stamp(&watched));
        watched["data"]["key"] = json!("two");
        assert_ne!(stamp(&listed), stamp(&watched));
    }

    #[test]
    fn a_copy_of_an_object_has_its_labels_and_is_not_owned() {
        let mut object = json!({"metadata": {
            "name": "c", "namespace": "health", "uid": "1",
            "labels": {(label::MANAGED_BY): label::MANAGED_BY_VALUE, (label::APP_UID): "uid-1"},
            "annotations": {(label::OBJECT): "ConfigMap health/c"},
        }});
        let owner = |object: &Value| seen(Kind::ConfigMap, object).owner;
        assert_eq!(owner(&object), Some("uid-1".into()));
        object["metadata"]["name"] = json!("c-debug");
        assert_eq!(owner(&object), None, "another name");
        object["metadata"]["name"] = json!("c");
        object["metadata"]["namespace"] = json!("health-restored");
        assert_eq!(owner(&object), None, "another namespace");
        object["metadata"]["namespace"] = json!("health");
        object["metadata"]["annotations"] = json!({});
        assert_eq!(owner(&object), None, "labels alone");
    }

    #[test]
    fn a_spec_that_comes_before_the_metadata_is_read_all_the_same() {
        let text = r#"{"spec":{"replicas":3},"metadata":{"name":"d","generation":2}}"#;
        let view: View = serde_json::from_str(text).unwrap();
        let (_, seen) = view.into_seen(Kind::Deployment);
        assert_eq!((seen.replicas, seen.stamp), (Some(3), Stamp::Generation(2)));
    }
}
