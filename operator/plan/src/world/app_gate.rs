//! The gate for Apps: every rule that an App alone can break, and the sentence that says so.

use std::sync::Arc;

use crds::{
    AppName, AppSpec, FailoverPolicy, NamespaceName, PACK_BYTES_MAX, Reason, RegionName, Uid,
};
use serde_json::Value;

use super::app::{Scale, ValidApp, ValidWave};
use super::footprint::{Footprint, scale_targets};
use super::gate::Parked;
use crate::content::{AppContent, hash_of, stored_bytes};
use crate::object::Kind;
use crate::render::{RenderError, RenderFor, Rendered, pod_template, render};

/// Namespaces with these beginnings belong to the platform: no App may live there.
const RESERVED: &[&str] = &["kube-", "jiuzhou-", "jz-"];
/// Most replicas of an App.
const REPLICAS_MAX: i32 = 100_000;

/// The valid App, or why it is parked.
pub(super) fn app_gate(
    uid: &Uid,
    namespace: &NamespaceName,
    name: &AppName,
    spec: &AppSpec,
    footprint: &Arc<Footprint>,
) -> Result<ValidApp, Parked> {
    check_names(namespace, name)?;
    for (index, manifest) in spec.manifests.iter().enumerate() {
        check_manifest(namespace, index, manifest, &spec.manifests[..index])?;
    }
    let content = AppContent::of(spec);
    let data = content.to_data();
    let bytes = stored_bytes(&data);
    if bytes > PACK_BYTES_MAX {
        let message = format!(
            "spec.manifests make {bytes} bytes as they are stored, where each quote counts twice; at most {PACK_BYTES_MAX} fit: split the App"
        );
        return Err(Parked::new(Reason::TooLarge, message));
    }
    let scale = scale_of(spec)?;
    check_amounts(&scale, footprint)?;
    check_overrides(uid, namespace, name, spec, &content)?;
    let (least, most) = (spec.placement.min_regions, spec.placement.max_regions);
    if most.is_some_and(|most| least.unwrap_or(1) > most) {
        return Err(invalid(
            "spec.placement.minRegions must not exceed maxRegions",
        ));
    }
    Ok(ValidApp {
        tier: spec.tier,
        zone: spec.zone,
        grade: spec.data_grade,
        protection_level: spec.protection_level.unwrap_or(1),
        filter_key: filter_key(spec),
        placement: spec.placement.clone(),
        scale,
        footprint: footprint.clone(),
        content: hash_of(data.as_bytes()),
        data: data.into(),
        overrides: spec.overrides.iter().map(|o| o.regions.clone()).collect(),
        waves: waves_of(spec)?,
        secret_names: spec.secret_names.clone(),
        take_over: spec.take_over,
        failover: spec
            .failover
            .as_ref()
            .map_or(FailoverPolicy::Manual, |f| f.policy),
    })
}

/// What an App takes up, valid or not. Where it does not say well what carries its replicas, the
/// first workload that could is charged for them.
pub(super) fn footprint_of(
    uid: &Uid,
    namespace: &NamespaceName,
    name: &AppName,
    spec: &AppSpec,
) -> Footprint {
    let first = || scalable(spec).first().map(|(_, name)| *name);
    let workload = match (&spec.replicas, &spec.scaling) {
        (Some(_), _) => workload_of(spec).ok().or_else(first),
        (None, Some(_)) => autoscaled(spec).ok().or_else(first),
        (None, None) => None,
    };
    let print = Footprint::of(spec, workload);
    if spec.overrides.is_empty() {
        return print;
    }
    let content = AppContent::of(spec);
    let patched = overridden(uid, namespace, name, spec, &content);
    let patched = patched.filter_map(|(_, objects)| {
        let objects = objects.ok()?;
        let manifests = objects.iter().map(|object| (*object.body).clone());
        let spec = AppSpec {
            manifests: manifests.collect(),
            // They are replaced already, and what an override says comes after.
            images: Vec::new(),
            ..spec.clone()
        };
        Some(Footprint::of(&spec, workload))
    });
    patched.fold(print, |most, other| most.at_least(&other))
}

fn invalid(message: impl Into<String>) -> Parked {
    Parked::new(Reason::Invalid, message)
}

fn filter_key(spec: &AppSpec) -> Arc<str> {
    let parts = (
        spec.zone,
        spec.data_grade,
        spec.protection_level,
        &spec.placement,
        spec.take_over,
    );
    serde_json::to_string(&parts)
        .expect("a placement is plain JSON")
        .into()
}

fn check_names(namespace: &NamespaceName, name: &AppName) -> Result<(), Parked> {
    if !name.is_valid() {
        let rule = "must be a DNS label of at most 63 characters";
        return Err(invalid(format!("metadata.name {name:?} {rule}")));
    }
    if RESERVED
        .iter()
        .any(|prefix| namespace.as_str().starts_with(prefix))
    {
        let message = format!(
            "namespace {namespace} belongs to the platform: create the App in a tenant's namespace"
        );
        return Err(Parked::new(Reason::NamespaceReserved, message));
    }
    Ok(())
}

fn check_manifest(
    namespace: &NamespaceName,
    index: usize,
    manifest: &Value,
    earlier: &[Value],
) -> Result<(), Parked> {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str);
    let Some(kind) = Kind::of(manifest) else {
        let (version, kind) = (
            text("/apiVersion").unwrap_or("?"),
            text("/kind").unwrap_or("?"),
        );
        let message = format!(
            "spec.manifests[{index}] is {version} {kind}; Apps may carry only the kinds that kubectl explain app.spec.manifests lists"
        );
        return Err(Parked::new(Reason::KindNotAllowed, message));
    };
    let name = text("/metadata/name").unwrap_or_default();
    if !is_object_name(name) {
        return Err(invalid(format!(
            "spec.manifests[{index}].metadata.name {name:?} must be set, to lowercase letters, digits, - and .: generated names cannot be kept in step"
        )));
    }
    if let Some(other) = text("/metadata/namespace").filter(|other| *other != namespace.as_str()) {
        let message = format!(
            "spec.manifests[{index}].metadata.namespace is {other}; it must be {namespace} or absent"
        );
        return Err(Parked::new(Reason::NamespaceNotAllowed, message));
    }
    if manifest.get("spec").is_some_and(|spec| !spec.is_object()) {
        return Err(invalid(format!(
            "spec.manifests[{index}].spec must be an object"
        )));
    }
    if let Some(field) = forbidden_field(kind, manifest) {
        let message = format!(
            "spec.manifests[{index}].{field} must be absent: it would reach outside the tenant"
        );
        return Err(invalid(message));
    }
    if name.starts_with(OURS) {
        return Err(invalid(format!(
            "spec.manifests[{index}].metadata.name {name} must not begin with {OURS}: such objects are the platform's"
        )));
    }
    if pod_field(manifest, "priorityClassName").is_some() {
        return Err(invalid(format!(
            "spec.manifests[{index}] must not set priorityClassName: spec.tier says what of a cluster's pods is kept first"
        )));
    }
    let same = |other: &Value| {
        Kind::of(other) == Some(kind)
            && other.pointer("/metadata/name") == manifest.pointer("/metadata/name")
    };
    if earlier.iter().any(same) {
        let message = format!(
            "spec.manifests[{index}] describes {} {name} a second time: keep one",
            kind.name()
        );
        return Err(Parked::new(Reason::DuplicateManifest, message));
    }
    Ok(())
}

/// Names become parts of URLs, so nothing but a DNS subdomain passes.
fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// What names of the platform's own objects in a tenant's namespace begin with.
const OURS: &str = "jiuzhou-";

/// A field of the pods that a manifest makes.
fn pod_field<'m>(manifest: &'m Value, field: &str) -> Option<&'m Value> {
    manifest
        .pointer(pod_template(manifest)?)?
        .get("spec")?
        .get(field)
}

/// Fields that an App must not carry, since they would undo ownership or isolation.
fn forbidden_field(kind: Kind, manifest: &Value) -> Option<&'static str> {
    for (pointer, field) in [
        ("/metadata/ownerReferences", "metadata.ownerReferences"),
        ("/metadata/finalizers", "metadata.finalizers"),
        ("/metadata/uid", "metadata.uid"),
        ("/metadata/managedFields", "metadata.managedFields"),
    ] {
        if manifest.pointer(pointer).is_some() {
            return Some(field);
        }
    }
    for field in ["serviceAccountName", "serviceAccount"] {
        let account = pod_field(manifest, field).and_then(Value::as_str);
        if account.is_some_and(|account| account.starts_with(OURS)) {
            return Some("serviceAccountName of the platform");
        }
    }
    for field in ["priority", "nodeName"] {
        if pod_field(manifest, field).is_some() {
            return Some(field);
        }
    }
    if kind == Kind::Service {
        if manifest.pointer("/spec/externalIPs").is_some() {
            return Some("spec.externalIPs");
        }
        if manifest.pointer("/spec/type").and_then(Value::as_str) == Some("ExternalName") {
            return Some("spec.type ExternalName");
        }
    }
    None
}

/// Kinds and names of the workloads that could carry an App's replicas.
fn scalable(spec: &AppSpec) -> Vec<(&'static str, &str)> {
    let one = |manifest: &'_ Value| {
        let kind = Kind::of(manifest)?;
        matches!(kind, Kind::Deployment | Kind::StatefulSet).then(|| kind.name())
    };
    let named = |m| Some((one(m)?, m.pointer("/metadata/name")?.as_str()?));
    spec.manifests.iter().filter_map(named).collect()
}

/// The workload that carries the App's replicas.
fn workload_of(spec: &AppSpec) -> Result<&str, Parked> {
    let names: Vec<&str> = scalable(spec).into_iter().map(|(_, name)| name).collect();
    let wanted = spec
        .replicas
        .as_ref()
        .and_then(|replicas| replicas.workload_name.as_deref());
    match (wanted, names.as_slice()) {
        (Some(name), names) => names.iter().find(|n| **n == name).copied().ok_or_else(|| {
            invalid(format!(
                "spec.replicas.workloadName {name:?} must be one of the App's Deployments and StatefulSets: {names:?}"
            ))
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(invalid(
            "spec.replicas needs a Deployment or StatefulSet in spec.manifests: add one or drop spec.replicas",
        )),
        (None, names) => {
            let message =
                format!("spec.replicas.workloadName must say which of {names:?} carries the replicas");
            Err(Parked::new(Reason::WorkloadAmbiguous, message))
        }
    }
}

/// The workload that the App's one autoscaler scales.
fn autoscaled(spec: &AppSpec) -> Result<&str, Parked> {
    let targets: Vec<_> = scale_targets(spec).map(|(target, _)| target).collect();
    match targets.as_slice() {
        [target] if scalable(spec).contains(target) => Ok(target.1),
        [(kind, name)] => Err(invalid(format!(
            "spec.scaling needs a HorizontalPodAutoscaler that scales a Deployment or StatefulSet of spec.manifests, not {kind} {name}: correct its scaleTargetRef"
        ))),
        [] => Err(invalid(
            "spec.scaling needs a HorizontalPodAutoscaler in spec.manifests: add one or use spec.replicas",
        )),
        _ => Err(Parked::new(
            Reason::WorkloadAmbiguous,
            "spec.scaling needs exactly one HorizontalPodAutoscaler in spec.manifests: split the App",
        )),
    }
}

fn scale_of(spec: &AppSpec) -> Result<Scale, Parked> {
    let weights = |list: &[crds::RegionWeight]| {
        let weight = |w: &crds::RegionWeight| -> (RegionName, u64) {
            (w.region_name.clone(), u64::try_from(w.weight).unwrap_or(0))
        };
        list.iter().map(weight).collect()
    };
    match (&spec.replicas, &spec.scaling) {
        (None, None) => Ok(Scale::Manifests),
        (Some(r), None) => {
            if !(0..=REPLICAS_MAX).contains(&r.total) {
                let message = format!(
                    "spec.replicas.total {} must be 0 to {REPLICAS_MAX}",
                    r.total
                );
                return Err(invalid(message));
            }
            let workload = workload_of(spec)?;
            if scale_targets(spec).any(|((_, name), _)| name == workload) {
                return Err(invalid(format!(
                    "spec.replicas and the HorizontalPodAutoscaler of {workload} in spec.manifests exclude each other: use spec.scaling"
                )));
            }
            let (total, division) = (r.total, r.division);
            Ok(Scale::Replicas {
                total,
                division,
                weights: weights(&r.weights),
            })
        }
        (None, Some(s)) => {
            if s.min < 1 || s.min > s.max || s.max > REPLICAS_MAX {
                let message = format!("spec.scaling must have 1 <= min <= max <= {REPLICAS_MAX}");
                return Err(invalid(message));
            }
            autoscaled(spec)?;
            let (min, max, division) = (s.min, s.max, s.division);
            Ok(Scale::Autoscaled {
                min,
                max,
                division,
                weights: weights(&s.weights),
            })
        }
        (Some(_), Some(_)) => Err(invalid(
            "spec.replicas and spec.scaling exclude each other: set one of them",
        )),
    }
}

/// Sums of what thousands of Apps ask for must not overflow.
fn check_amounts(scale: &Scale, footprint: &Footprint) -> Result<(), Parked> {
    let replicas = match scale {
        Scale::Manifests => 1,
        Scale::Replicas { total, .. } => *total,
        Scale::Autoscaled { max, .. } => *max,
    };
    let due = footprint.charges.at(replicas);
    match due.iter().find(|(_, amount)| *amount > i64::MAX >> 12) {
        Some((resource, _)) => Err(invalid(format!(
            "spec.manifests ask for more {resource} than any cluster could have: lower the requests"
        ))),
        None => Ok(()),
    }
}

fn waves_of(spec: &AppSpec) -> Result<Vec<ValidWave>, Parked> {
    let waves = spec
        .rollout
        .as_ref()
        .map(|r| r.waves.as_slice())
        .unwrap_or_default();
    let wave = |(index, wave): (usize, &crds::Wave)| {
        ValidWave::of(wave).ok_or_else(|| {
            invalid(format!(
                "spec.rollout.waves[{index}].soak must be a number and ms, s, m or h, as in 10m"
            ))
        })
    };
    waves.iter().enumerate().map(wave).collect()
}

/// The objects of an App with each of its overrides alone, and with all of them in their order.
fn overridden<'a>(
    uid: &'a Uid,
    namespace: &'a NamespaceName,
    name: &'a AppName,
    spec: &AppSpec,
    content: &'a AppContent,
) -> impl Iterator<Item = (Vec<i32>, Result<Vec<Rendered>, RenderError>)> + use<'a> {
    let all: Vec<i32> = (0..).take(spec.overrides.len()).collect();
    let alone: Vec<Vec<i32>> = all.iter().map(|one| vec![*one]).collect();
    alone.into_iter().chain([all]).map(move |overrides| {
        let what = RenderFor {
            uid,
            name,
            namespace,
            overrides: &overrides,
            replicas: None,
            hpa: None,
        };
        let objects = render(content, &what);
        (overrides, objects)
    })
}

/// Every override must apply to the content, alone and after those before it, and must not bring
/// in by a patch what a manifest may not carry.
fn check_overrides(
    uid: &Uid,
    namespace: &NamespaceName,
    name: &AppName,
    spec: &AppSpec,
    content: &AppContent,
) -> Result<(), Parked> {
    let refuse = |e: RenderError| {
        Parked::new(
            Reason::InvalidPatch,
            format!("spec.{e}: correct it or remove it"),
        )
    };
    for (overrides, objects) in overridden(uid, namespace, name, spec, content) {
        for object in objects.map_err(refuse)? {
            let body = &object.body;
            let malformed = body.get("spec").is_some_and(|spec| !spec.is_object());
            let field = malformed.then_some("spec other than an object");
            if let Some(field) = field.or_else(|| forbidden_field(object.key.kind, body)) {
                let message = format!(
                    "spec.overrides{overrides:?} give {} {} a {field}, which an App must not carry",
                    object.key.kind.name(),
                    object.key.name
                );
                return Err(Parked::new(Reason::InvalidPatch, message));
            }
        }
    }
    Ok(())
}
