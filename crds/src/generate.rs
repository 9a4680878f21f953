//! The CRDs as objects and as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{
    App, Approval, AssignmentSlice, ClusterReport, Content, Isolation, Link, LinkGrant,
    MemberCluster, Quota, QuotaLedger, Region, ReportSlice, Tenant, TrafficPolicy,
};

/// All CRDs, in the order in which users meet the kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        Region::crd(),
        MemberCluster::crd(),
        Tenant::crd(),
        Quota::crd(),
        Isolation::crd(),
        Link::crd(),
        LinkGrant::crd(),
        App::crd(),
        TrafficPolicy::crd(),
        Approval::crd(),
        AssignmentSlice::crd(),
        ReportSlice::crd(),
        ClusterReport::crd(),
        Content::crd(),
        QuotaLedger::crd(),
    ]
    .into_iter()
    .map(finish)
    .collect()
}

/// One CRD as YAML.
///
/// # Panics
/// Never: a CRD holds nothing that YAML cannot say.
pub fn to_yaml(crd: &CustomResourceDefinition) -> String {
    serde_saphyr::to_string(crd).expect("a CRD is plain data")
}

/// Mends what derives cannot say: no `nullable`, no unsigned formats, and a first status of Unknown.
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let waits = waits_for(&crd.spec.names.kind);
    let mut value = serde_json::to_value(crd).expect("a CRD is plain data");
    for version in value
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            mend(schema);
            if let Some(status) = schema.pointer_mut("/properties/status") {
                first_status(status, waits);
            }
        }
    }
    serde_json::from_value(value).expect("mending keeps the shape of a CRD")
}

fn mend(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("nullable");
            if map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|f| f.starts_with("uint"))
            {
                map.remove("format");
            }
            map.values_mut().for_each(mend);
        }
        Value::Array(items) => items.iter_mut().for_each(mend),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a new object waits for. A TrafficPolicy is known in regions as well, where nobody ever looks at one of Apps.
fn waits_for(kind: &str) -> &'static str {
    if kind == "TrafficPolicy" {
        "Waiting for the hub, or in a region for guard control, to look at this object for the first time. If this stays in a region: only the hub looks at policies of Apps, so apply it there, or name HTTPRoutes in spec.targetRefs."
    } else {
        "Waiting for the hub to look at this object for the first time."
    }
}

/// A new object reads as "not looked at yet" before the hub's first write, at no request. Only
/// `Ready` is set: it is always written anew, whereas a default that nobody owns would stay.
fn first_status(status: &mut Value, waits: &str) {
    status["default"] = json!({"conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "Pending",
        "message": waits,
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]});
}
