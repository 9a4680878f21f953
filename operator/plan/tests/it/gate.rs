//! The gate: a bad object stops only itself, and its message names the field and the fix.

use crds::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::province::{Draft, Province, app, manifest};

/// A refusal begins with the field, and says what is allowed or what to do.
#[track_caller]
fn says_what_to_do(message: &str) {
    let field = ["spec.", "metadata.", "namespace "]
        .iter()
        .any(|start| message.starts_with(start));
    let way = ["must ", ": ", "may carry only"]
        .iter()
        .any(|word| message.contains(word));
    assert!(field && way, "{message}");
}

/// The App is parked with that reason and message; another one runs all the same.
#[track_caller]
fn parks(draft: Draft, reason: Reason, message: &str) {
    let name = draft.name.clone();
    let province = Province::cities()
        .with(draft)
        .with(app("bystander"))
        .settled();
    let ready = province.condition(&name, ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, reason, "{}", ready.message);
    assert!(ready.message.contains(message), "{}", ready.message);
    says_what_to_do(&ready.message);
    assert!(province.condition(&name, ConditionType::Stalled).is_some());
    assert!(
        province
            .condition(&name, ConditionType::Reconciling)
            .is_none()
    );
    assert_eq!(province.clusters_of("bystander").len(), 3);
    assert_eq!(province.placed(&name), []);
}

fn override_with(patch: &Value) -> Value {
    let target = json!({"group": "apps", "kind": "Deployment", "name": "web"});
    json!([{"regions": {"within": ["ningbo"]}, "target": target, "patch": patch}])
}

#[test]
fn a_manifest_for_another_namespace() {
    let draft = app("web").set("/manifests/0/metadata/namespace", json!("police"));
    let message = "spec.manifests[0].metadata.namespace is police; it must be health or absent";
    parks(draft, Reason::NamespaceNotAllowed, message);
}

#[test]
fn a_manifest_of_a_kind_that_apps_may_not_carry() {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}});
    let message = "spec.manifests[1] is rbac.authorization.k8s.io/v1 Role";
    parks(app("web").and(role), Reason::KindNotAllowed, message);
    // Cluster-scoped kinds are not on the list either.
    for (group, kind) in [
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("v1", "Namespace"),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
        ),
    ] {
        let wide = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "x"}});
        let message = format!("spec.manifests[1] is {group} {kind}");
        parks(app("web").and(wide), Reason::KindNotAllowed, &message);
    }
    let old =
        json!({"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "x"}});
    parks(
        app("web").and(old),
        Reason::KindNotAllowed,
        "spec.manifests[1] is apps/v1beta1 Deployment",
    );
}

#[test]
fn a_manifest_without_a_name_or_with_one_that_is_none() {
    for metadata in [
        json!({}),
        json!({"generateName": "web-"}),
        json!({"name": "../secrets/x"}),
        json!({"name": "A"}),
    ] {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        parks(
            app("web").and(config),
            Reason::Invalid,
            "spec.manifests[1].metadata.name",
        );
    }
}

#[test]
fn two_manifests_of_one_object() {
    let draft = app("web")
        .and(manifest("ConfigMap", "c"))
        .and(manifest("ConfigMap", "c"));
    parks(
        draft,
        Reason::DuplicateManifest,
        "spec.manifests[2] describes ConfigMap c a second time: keep one",
    );
}

#[test]
fn more_content_than_fits_one_object() {
    let mut config = manifest("ConfigMap", "big");
    config["data"] = json!({"blob": "x".repeat(1_200_000)});
    parks(
        app("web").and(config),
        Reason::TooLarge,
        "at most 1200000 fit: split the App",
    );
}

#[test]
fn content_of_many_quotes_is_larger_as_it_is_stored_than_as_it_is_written() {
    let mut config = manifest("ConfigMap", "quoted");
    config["data"] = json!({"blob": "\"".repeat(550_000)});
    let draft = app("web").and(config);
    parks(draft, Reason::TooLarge, "where each quote counts twice");
}

#[test]
fn a_patch_that_does_not_apply_is_named_with_its_position() {
    let patch = json!([
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "replace", "path": "/spec/nothing/here", "value": 1},
    ]);
    let draft = app("web").set("/overrides", override_with(&patch));
    parks(
        draft,
        Reason::InvalidPatch,
        "spec.overrides[0].patch[1] does not apply",
    );
}

#[test]
fn an_override_of_a_manifest_that_does_not_exist() {
    let mut overrides = override_with(&json!([{"op": "remove", "path": "/spec"}]));
    overrides[0]["target"]["name"] = json!("api");
    let draft = app("web").set("/overrides", overrides);
    parks(
        draft,
        Reason::InvalidPatch,
        "spec.overrides[0].target Deployment/api names none of the App's manifests",
    );
}

#[test]
fn an_override_that_changes_whose_object_it_is() {
    for path in ["/metadata/name", "/metadata/namespace", "/kind"] {
        let patch = json!([{"op": "add", "path": path, "value": "other"}]);
        let draft = app("web").set("/overrides", override_with(&patch));
        parks(
            draft,
            Reason::InvalidPatch,
            "spec.overrides[0] changes apiVersion, kind, name or namespace",
        );
    }
}

#[test]
fn an_override_that_brings_in_what_a_manifest_may_not_carry() {
    let patch = json!([{"op": "add", "path": "/metadata/ownerReferences", "value": []}]);
    let draft = app("web").set("/overrides", override_with(&patch));
    parks(
        draft,
        Reason::InvalidPatch,
        "metadata.ownerReferences, which an App must not carry",
    );
    let mut overrides =
        override_with(&json!([{"op": "add", "path": "/spec/externalIPs", "value": ["10.0.0.1"]}]));
    overrides[0]["target"] = json!({"group": "", "kind": "Service", "name": "web"});
    let mut service = manifest("Service", "web");
    service["spec"] = json!({"ports": []});
    let draft = app("web").and(service).set("/overrides", overrides);
    parks(
        draft,
        Reason::InvalidPatch,
        "Service web a spec.externalIPs",
    );
}

#[test]
fn an_override_that_leaves_no_object_where_one_must_be() {
    let patch = json!([{"op": "replace", "path": "/spec", "value": "gone"}]);
    let draft = app("web").set("/overrides", override_with(&patch));
    parks(draft, Reason::InvalidPatch, "spec other than an object");
}

#[test]
fn a_spec_that_is_no_object() {
    let mut config = manifest("Service", "web");
    config["spec"] = json!([1]);
    parks(
        app("web").and(config),
        Reason::Invalid,
        "spec.manifests[1].spec must be an object",
    );
}

#[test]
fn two_workloads_that_could_carry_the_replicas() {
    let draft = app("web")
        .and(manifest("StatefulSet", "db"))
        .replicas(3, "Even");
    parks(
        draft,
        Reason::WorkloadAmbiguous,
        "spec.replicas.workloadName must say which of [\"web\", \"db\"]",
    );
    let named = app("web")
        .and(manifest("StatefulSet", "db"))
        .replicas(3, "Even")
        .set("/replicas/workloadName", json!("db"));
    assert_eq!(
        Province::cities()
            .with(named)
            .settled()
            .clusters_of("web")
            .len(),
        3
    );
}

#[test]
fn replicas_without_a_workload() {
    let draft = app("web")
        .set("/manifests", json!([manifest("ConfigMap", "c")]))
        .replicas(3, "Even");
    parks(
        draft,
        Reason::Invalid,
        "spec.replicas needs a Deployment or StatefulSet",
    );
    let draft = app("web")
        .replicas(3, "Even")
        .set("/replicas/workloadName", json!("db"));
    parks(
        draft,
        Reason::Invalid,
        "spec.replicas.workloadName \"db\" must be one of",
    );
}

#[test]
fn replicas_of_a_workload_that_an_autoscaler_owns() {
    let draft = app("web")
        .and(manifest("HorizontalPodAutoscaler", "web"))
        .replicas(3, "Even");
    parks(
        draft,
        Reason::Invalid,
        "exclude each other: use spec.scaling",
    );
}

#[test]
fn scaling_without_an_autoscaler_with_two_or_with_one_of_something_else() {
    let bounds = json!({"min": 1, "max": 3});
    parks(
        app("web").set("/scaling", bounds.clone()),
        Reason::Invalid,
        "spec.scaling needs a HorizontalPodAutoscaler",
    );
    let two = app("web")
        .scaling(1, 3, "Even")
        .and(manifest("HorizontalPodAutoscaler", "other"));
    parks(
        two,
        Reason::WorkloadAmbiguous,
        "exactly one HorizontalPodAutoscaler",
    );
    let other = app("web")
        .and(manifest("HorizontalPodAutoscaler", "other"))
        .set("/scaling", bounds);
    parks(other, Reason::Invalid, "not Deployment other");
    parks(
        app("web").scaling(5, 3, "Even"),
        Reason::Invalid,
        "1 <= min <= max",
    );
}

#[test]
fn fields_that_would_undo_ownership_or_isolation() {
    for field in ["ownerReferences", "finalizers", "managedFields", "uid"] {
        let draft = app("web").set(&format!("/manifests/0/metadata/{field}"), json!([]));
        parks(
            draft,
            Reason::Invalid,
            &format!("spec.manifests[0].metadata.{field} must be absent"),
        );
    }
    let mut service = manifest("Service", "web");
    service["spec"] = json!({"externalIPs": ["10.0.0.1"]});
    parks(
        app("web").and(service.clone()),
        Reason::Invalid,
        "spec.manifests[1].spec.externalIPs must be absent",
    );
    service["spec"] = json!({"type": "ExternalName", "externalName": "example.org"});
    parks(
        app("web").and(service),
        Reason::Invalid,
        "spec.manifests[1].spec.type ExternalName must be absent",
    );
}

#[test]
fn namespaces_of_the_platform_are_reserved() {
    for namespace in ["kube-system", "jiuzhou-system", "jz-hangzhou-a"] {
        parks(
            app("web").in_namespace(namespace),
            Reason::NamespaceReserved,
            "create the App in a tenant's namespace",
        );
    }
}

#[test]
fn numbers_out_of_range() {
    parks(
        app("web").replicas(100_001, "Even"),
        Reason::Invalid,
        "spec.replicas.total 100001 must be 0 to 100000",
    );
    parks(
        app("web").replicas(-1, "Even"),
        Reason::Invalid,
        "spec.replicas.total -1 must be",
    );
    parks(
        app("web").at_least(3).at_most(2),
        Reason::Invalid,
        "minRegions must not exceed maxRegions",
    );
    let both = app("web")
        .scaling(1, 3, "Even")
        .set("/replicas", json!({"total": 1}));
    parks(
        both,
        Reason::Invalid,
        "spec.replicas and spec.scaling exclude each other",
    );
}

#[test]
fn a_soak_that_is_no_time() {
    let draft = app("web").waves(&[("canary", &["hangzhou"], "soon", false)]);
    parks(
        draft,
        Reason::Invalid,
        "spec.rollout.waves[0].soak must be a number and ms, s, m or h",
    );
}

#[test]
fn a_name_that_cannot_be_a_label() {
    parks(
        app("web").called("Web_1"),
        Reason::Invalid,
        "metadata.name \"Web_1\" must be a DNS label",
    );
}

#[test]
fn a_running_app_that_is_parked_keeps_what_it_has() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Even"))
        .settled();
    let (placed, writes) = (province.placed("web"), province.writes);
    province.edit("web", |spec| spec.manifests.push(json!({"kind": "Secret"})));
    province.settle();
    assert_eq!((province.placed("web"), province.writes), (placed, writes));
    let ready = province.condition("web", ConditionType::Ready).unwrap();
    assert!(
        ready
            .message
            .contains("What was placed before stays as it is."),
        "{}",
        ready.message
    );
    assert_eq!(province.report("web").targets.len(), 3);
    province.edit("web", |spec| drop(spec.manifests.pop()));
    province.settle();
    assert_eq!(province.ready("web"), "AsExpected");
}
