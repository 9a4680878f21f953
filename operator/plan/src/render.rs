//! Rendering at the edge: content, image replacements, the overrides of this cluster, replicas
//! and ownership labels become the objects to apply.

use std::sync::Arc;

use crds::{
    AppName, ContentHash, Entry, HpaBounds, Image, LimitShare, NamespaceName, PatchOperation,
    Period, Tier, Uid, label,
};
use serde_json::{Map, Value, json};

use crate::content::{AppContent, hash_of};
use crate::object::{Kind, ObjectKey};

/// An object as it is to be in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// The whole object, labels and the `jiuzhou.io/applied` annotation included.
    pub body: Arc<Value>,
    /// Hash of the body without that annotation.
    pub hash: ContentHash,
    /// Whether a HorizontalPodAutoscaler of the same App owns the object's replicas.
    pub autoscaled: bool,
}

/// Why content cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A manifest is of a kind that is not allowed.
    #[error("manifests[{index}] is a {kind}, which Apps may not carry")]
    KindNotAllowed {
        /// Position in `spec.manifests`.
        index: usize,
        /// What it is.
        kind: String,
    },
    /// An override names no manifest.
    #[error("overrides[{index}].target {kind}/{name} names none of the App's manifests")]
    NoTarget {
        /// Position in `spec.overrides`.
        index: usize,
        /// Kind it names.
        kind: String,
        /// Name it names.
        name: String,
    },
    /// An override's patch does not apply.
    #[error("overrides[{index}].patch[{operation}] does not apply: {why}")]
    Patch {
        /// Position in `spec.overrides`.
        index: usize,
        /// Position in its patch.
        operation: usize,
        /// What the patch engine says.
        why: String,
    },
    /// An override changes what it may not.
    #[error(
        "overrides[{index}] changes apiVersion, kind, name or namespace, which an override must not"
    )]
    Identity {
        /// Position in `spec.overrides`.
        index: usize,
    },
}

/// What the objects of one App carry, and how many replicas its workload gets.
#[derive(Clone, Debug)]
pub struct RenderFor<'a> {
    /// UID of the App.
    pub uid: &'a Uid,
    /// Name of the App.
    pub name: &'a AppName,
    /// Namespace of the App.
    pub namespace: &'a NamespaceName,
    /// Positions of the overrides that apply.
    pub overrides: &'a [i32],
    /// Replicas of the App's workload.
    pub replicas: Option<i32>,
    /// Bounds of the App's HorizontalPodAutoscaler.
    pub hpa: Option<HpaBounds>,
}

impl<'a> RenderFor<'a> {
    /// What an assignment's entry asks for at the stage in force.
    pub fn entry(entry: &'a Entry, replicas: Option<i32>, hpa: Option<HpaBounds>) -> Self {
        Self {
            uid: &entry.uid,
            name: &entry.name,
            namespace: &entry.namespace,
            overrides: &entry.overrides,
            replicas,
            hpa,
        }
    }
}

/// Renders all objects of an App, in the order in which they are applied.
pub fn render(content: &AppContent, what: &RenderFor<'_>) -> Result<Vec<Rendered>, RenderError> {
    let mut bodies = content.manifests.clone();
    for body in &mut bodies {
        replace_images(body, &content.images);
    }
    for &index in what.overrides {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(change) = content.overrides.get(index) {
            apply_override(&mut bodies, index, change)?;
        }
    }
    let autoscaled: Vec<(String, String)> = bodies.iter().filter_map(scale_target).collect();
    let mut objects = Vec::with_capacity(bodies.len());
    for (index, mut body) in bodies.into_iter().enumerate() {
        let Some(kind) = Kind::of(&body) else {
            return Err(RenderError::KindNotAllowed {
                index,
                kind: describe(&body),
            });
        };
        let name = text(&body, "/metadata/name").to_owned();
        let autoscaled = autoscaled
            .iter()
            .any(|(k, n)| k == kind.name() && *n == name);
        let workload = content.workload.as_deref();
        set_replicas(
            &mut body,
            kind,
            autoscaled,
            workload.is_none_or(|w| w == name),
            what,
        );
        let key = ObjectKey {
            kind,
            namespace: what.namespace.clone(),
            name: name.into(),
        };
        stamp_pods(&mut body, content.tier, what);
        stamp(&mut body, &key, what.uid, Some(what.name));
        objects.push(rendered(key, body, autoscaled));
    }
    objects.sort_by_key(|object| object.key.kind);
    Ok(objects)
}

/// Renders what isolates a namespace, in the order in which it is applied.
pub fn render_isolation(
    entry: &Entry,
    manifests: impl IntoIterator<Item = Value>,
) -> Result<Vec<Rendered>, RenderError> {
    let mut objects = Vec::new();
    for (index, mut body) in manifests.into_iter().enumerate() {
        let Some(kind) = Kind::among(Kind::ISOLATING, &body) else {
            let kind = describe(&body);
            return Err(RenderError::KindNotAllowed { index, kind });
        };
        let mut key = ObjectKey::namespace(&entry.namespace);
        if kind == Kind::Namespace {
            body["metadata"]["name"] = json!(entry.namespace);
        } else {
            let name = text(&body, "/metadata/name").into();
            key = ObjectKey { kind, name, ..key };
        }
        stamp(&mut body, &key, &entry.uid, None);
        objects.push(rendered(key, body, false));
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}

/// Renders a TrafficPolicy for the routes of a region, with this cluster's shares of what passes in the
/// province. In the hub's own cluster (`home`) the policy that people wrote has the name already.
pub fn render_policy(
    entry: &Entry,
    content: &AppContent,
    home: bool,
) -> Result<Vec<Rendered>, RenderError> {
    let mut objects = Vec::new();
    for (index, mut body) in content.manifests.iter().cloned().enumerate() {
        let Some(kind) = Kind::among(Kind::PROTECTING, &body) else {
            let kind = describe(&body);
            return Err(RenderError::KindNotAllowed { index, kind });
        };
        let mut name = text(&body, "/metadata/name").to_owned();
        if home {
            name = region_name(&name);
        }
        body["metadata"]["name"] = json!(name);
        share(&mut body, &entry.shares);
        let key = ObjectKey {
            kind,
            namespace: entry.namespace.clone(),
            name: name.into(),
        };
        stamp(&mut body, &key, &entry.uid, None);
        objects.push(rendered(key, body, false));
    }
    Ok(objects)
}

/// Most characters of a TrafficPolicy's name, by its schema.
const POLICY_NAME_MAX: usize = 63;

/// The name of a policy beside the one that it follows from.
fn region_name(name: &str) -> String {
    const SUFFIX: &str = ".region";
    /// Digits of the hash that tells long names apart.
    const DIGITS: usize = 10;
    let most = POLICY_NAME_MAX - SUFFIX.len();
    if name.len() <= most {
        return format!("{name}{SUFFIX}");
    }
    let hash = hash_of(name.as_bytes());
    let kept = name.get(..most - DIGITS - 1).unwrap_or_default();
    let kept = kept.trim_end_matches(['.', '-']);
    let digits = hash.as_str().get(..DIGITS).unwrap_or_default();
    format!("{kept}.{digits}{SUFFIX}")
}

/// Puts a cluster's shares in place of the rates that they are of.
fn share(body: &mut Value, shares: &[LimitShare]) {
    let limits = body.pointer_mut("/spec/rateLimits");
    for limit in limits.and_then(Value::as_array_mut).into_iter().flatten() {
        let named = |share: &&LimitShare| limit["name"] == *share.name.as_str();
        let Some(share) = shares.iter().find(named) else {
            continue;
        };
        limit["rate"]["requests"] = json!(share.requests);
        if share.periods > 1 {
            let per = Period(text(&limit["rate"], "/per").to_owned());
            let millis = per.millis().unwrap_or(1_000).saturating_mul(share.periods);
            limit["rate"]["per"] = json!(Period::from_millis(millis));
        }
        if let Some(burst) = share.burst {
            limit["burst"] = json!(burst);
        }
    }
}

fn rendered(key: ObjectKey, mut body: Value, autoscaled: bool) -> Rendered {
    let hash = hash_of(body.to_string().as_bytes());
    body["metadata"]["annotations"][label::APPLIED] = json!(hash);
    Rendered {
        key,
        body: Arc::new(body),
        hash,
        autoscaled,
    }
}

fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn describe(body: &Value) -> String {
    format!("{}/{}", text(body, "/apiVersion"), text(body, "/kind"))
}

/// Where the template of an object's pods is, by kind.
pub(crate) fn pod_template(body: &Value) -> Option<&'static str> {
    Some(match body.get("kind").and_then(Value::as_str)? {
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    })
}

fn pod_spec(body: &mut Value) -> Option<&mut Value> {
    let pointer = pod_template(body)?;
    body.pointer_mut(pointer)?.get_mut("spec")
}

/// Pods say which App they are of, so that links between Apps can be told apart, and how long they are
/// kept when not all can be.
fn stamp_pods(body: &mut Value, tier: Tier, what: &RenderFor<'_>) {
    let template = pod_template(body).and_then(|pointer| body.pointer_mut(pointer));
    let Some(template) = template.filter(|template| template["spec"].is_object()) else {
        return;
    };
    template["spec"]["priorityClassName"] = json!(tier.priority_class());
    for field in ["metadata", "labels"] {
        let parent = match field {
            "labels" => &mut template["metadata"],
            _ => &mut *template,
        };
        if !parent[field].is_object() {
            parent[field] = Value::Object(Map::new());
        }
    }
    let labels = &mut template["metadata"]["labels"];
    labels[label::APP] = json!(what.name);
    labels[label::APP_UID] = json!(what.uid);
}

fn replace_images(body: &mut Value, images: &[Image]) {
    let Some(pod) = pod_spec(body) else { return };
    for list in ["initContainers", "containers"] {
        for container in pod
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(current) = container.get("image").and_then(Value::as_str) else {
                continue;
            };
            if let Some(next) = replaced_image(current, images) {
                container["image"] = Value::String(next);
            }
        }
    }
}

/// The image to use instead, following kustomize: names match whole, without tag and digest.
pub(crate) fn replaced_image(current: &str, images: &[Image]) -> Option<String> {
    let (rest, digest) = current
        .split_once('@')
        .map_or((current, None), |(r, d)| (r, Some(d)));
    // A colon after the last slash starts a tag; one before it belongs to a registry's port.
    let tag_at = rest.rfind(':').filter(|at| !rest[*at..].contains('/'));
    let (name, tag) = tag_at.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
    let image = images.iter().find(|image| image.name == name)?;
    let name = image.new_name.as_deref().unwrap_or(name);
    Some(match (&image.digest, &image.new_tag, tag, digest) {
        (Some(new), ..) => format!("{name}@{new}"),
        (None, Some(new), ..) => format!("{name}:{new}"),
        (None, None, _, Some(old)) => format!("{name}@{old}"),
        (None, None, Some(old), None) => format!("{name}:{old}"),
        (None, None, None, None) => name.to_owned(),
    })
}

fn apply_override(
    bodies: &mut [Value],
    index: usize,
    change: &crate::content::ContentOverride,
) -> Result<(), RenderError> {
    let target = &change.target;
    let hit = |body: &&mut Value| {
        let group = text(body, "/apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group);
        group == target.group
            && text(body, "/kind") == target.kind
            && text(body, "/metadata/name") == target.name
    };
    let Some(body) = bodies.iter_mut().find(hit) else {
        let (kind, name) = (target.kind.clone(), target.name.clone());
        return Err(RenderError::NoTarget { index, kind, name });
    };
    let before = identity(body);
    let patch: json_patch::Patch = operations(&change.patch, index)?;
    json_patch::patch(body, &patch).map_err(|e| RenderError::Patch {
        index,
        operation: e.operation,
        why: e.kind.to_string(),
    })?;
    if identity(body) == before {
        Ok(())
    } else {
        Err(RenderError::Identity { index })
    }
}

fn operations(patch: &[PatchOperation], index: usize) -> Result<json_patch::Patch, RenderError> {
    let value = serde_json::to_value(patch).expect("patch operations are plain JSON");
    serde_json::from_value(value).map_err(|e| RenderError::Patch {
        index,
        operation: 0,
        why: e.to_string(),
    })
}

fn identity(body: &Value) -> [Option<Value>; 4] {
    [
        "/apiVersion",
        "/kind",
        "/metadata/name",
        "/metadata/namespace",
    ]
    .map(|pointer| body.pointer(pointer).cloned())
}

/// Kind and name of the workload an autoscaler scales.
fn scale_target(body: &Value) -> Option<(String, String)> {
    (text(body, "/kind") == "HorizontalPodAutoscaler").then(|| {
        let target = |field: &str| text(body, &format!("/spec/scaleTargetRef/{field}")).to_owned();
        (target("kind"), target("name"))
    })
}

/// Sets the replicas of the App's workload and the bounds of its autoscaler. A body whose `spec` is
/// no object is left to the API server, which says what is wrong with it.
fn set_replicas(
    body: &mut Value,
    kind: Kind,
    autoscaled: bool,
    chosen: bool,
    what: &RenderFor<'_>,
) {
    let hpa = what.hpa.filter(|_| kind == Kind::HorizontalPodAutoscaler);
    let scalable = matches!(kind, Kind::Deployment | Kind::StatefulSet);
    let replicas = what.replicas.filter(|_| scalable && chosen && !autoscaled);
    if hpa.is_none() && replicas.is_none() && !autoscaled {
        return;
    }
    let Some(object) = body.as_object_mut() else {
        return;
    };
    let spec = object
        .entry("spec")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    if let Some(bounds) = hpa {
        spec.insert("minReplicas".to_owned(), json!(bounds.min));
        spec.insert("maxReplicas".to_owned(), json!(bounds.max));
    }
    if let Some(replicas) = replicas {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    if autoscaled {
        // The autoscaler is the one writer of this field.
        spec.remove("replicas");
    }
}

fn stamp(body: &mut Value, key: &ObjectKey, uid: &Uid, app: Option<&AppName>) {
    if key.kind != Kind::Namespace {
        body["metadata"]["namespace"] = json!(key.namespace);
    }
    if let Some(object) = body.as_object_mut() {
        object.remove("status");
    }
    for field in ["annotations", "labels"] {
        if !body["metadata"][field].is_object() {
            body["metadata"][field] = Value::Object(Map::new());
        }
    }
    body["metadata"]["annotations"][label::OBJECT] = json!(key.to_string());
    let labels = &mut body["metadata"]["labels"];
    labels[label::MANAGED_BY] = json!(label::MANAGED_BY_VALUE);
    if let Some(app) = app {
        labels[label::APP] = json!(app);
    }
    labels[label::APP_UID] = json!(uid);
    labels[label::TENANT] = json!(key.namespace);
}

#[cfg(test)]
mod tests;
