use super::*;
use crate::content::ContentOverride;
use crds::{PatchOp, Target};

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {
            "initContainers": [{"name": "init", "image": image}],
            "containers": [{"name": "web", "image": image, "env": [{"name": "REGION", "value": "none"}]}],
        }}},
    })
}

fn content(manifests: Vec<Value>) -> AppContent {
    AppContent {
        manifests,
        images: vec![],
        workload: None,
        tier: Tier::General,
        overrides: vec![],
    }
}

fn rendered(
    content: &AppContent,
    overrides: &[i32],
    replicas: Option<i32>,
) -> Result<Vec<Rendered>, RenderError> {
    let (uid, name, namespace) = ("uid-1".into(), "web".into(), "health".into());
    render(
        content,
        &RenderFor {
            uid: &uid,
            name: &name,
            namespace: &namespace,
            overrides,
            replicas,
            hpa: None,
        },
    )
}

fn image(name: &str, new_name: Option<&str>, new_tag: Option<&str>, digest: Option<&str>) -> Image {
    Image {
        name: name.to_owned(),
        new_name: new_name.map(str::to_owned),
        new_tag: new_tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    }
}

fn replace(path: &str, value: Value) -> ContentOverride {
    ContentOverride {
        target: Target {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        },
        patch: vec![PatchOperation {
            op: PatchOp::Replace,
            path: path.to_owned(),
            value: Some(value),
        }],
    }
}

#[test]
fn images_are_replaced_as_kustomize_does() {
    let cases = [
        ("web", image("web", None, Some("2"), None), "web:2"),
        ("web:1", image("web", None, Some("2"), None), "web:2"),
        (
            "web:1",
            image("web", Some("r.example/web"), None, None),
            "r.example/web:1",
        ),
        (
            "r.example:5000/web",
            image("r.example:5000/web", None, Some("2"), None),
            "r.example:5000/web:2",
        ),
        (
            "r.example:5000/web:1",
            image("r.example:5000/web", None, None, Some("sha256:ab")),
            "r.example:5000/web@sha256:ab",
        ),
        (
            "web@sha256:cd",
            image("web", None, Some("2"), None),
            "web:2",
        ),
        (
            "web@sha256:cd",
            image("web", Some("other"), None, None),
            "other@sha256:cd",
        ),
        ("webs:1", image("web", None, Some("2"), None), "webs:1"),
        (
            "r.example/web:1",
            image("web", None, Some("2"), None),
            "r.example/web:1",
        ),
    ];
    for (before, change, after) in cases {
        let mut content = content(vec![deployment(before)]);
        content.images.push(change);
        let body = rendered(&content, &[], None).unwrap()[0].body.clone();
        for list in ["initContainers", "containers"] {
            let found = body
                .pointer(&format!("/spec/template/spec/{list}/0/image"))
                .unwrap();
            assert_eq!(found, after, "{before}");
        }
    }
}

#[test]
fn images_of_a_cron_job_are_replaced_where_they_are() {
    let job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "web"},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:1"}]}}}}},
    });
    let mut content = content(vec![job]);
    content.images.push(image("web", None, Some("2"), None));
    let body = rendered(&content, &[], None).unwrap()[0].body.clone();
    assert_eq!(
        body.pointer("/spec/jobTemplate/spec/template/spec/containers/0/image")
            .unwrap(),
        "web:2"
    );
}

#[test]
fn only_the_overrides_of_this_cluster_apply_and_in_their_order() {
    let mut content = content(vec![deployment("web")]);
    let path = "/spec/template/spec/containers/0/env/0/value";
    content.overrides = vec![replace(path, json!("a")), replace(path, json!("b"))];
    let value = |overrides: &[i32]| {
        rendered(&content, overrides, None).unwrap()[0]
            .body
            .pointer(path)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (value(&[]), value(&[0]), value(&[0, 1]), value(&[1, 0])),
        (json!("none"), json!("a"), json!("b"), json!("a"))
    );
}

#[test]
fn an_override_that_does_not_apply_names_itself() {
    let mut content = content(vec![deployment("web")]);
    content.overrides = vec![replace("/spec/nothing/here", json!(1))];
    assert!(matches!(
        rendered(&content, &[0], None),
        Err(RenderError::Patch {
            index: 0,
            operation: 0,
            ..
        })
    ));
    content.overrides[0].target.name = "other".to_owned();
    assert!(matches!(
        rendered(&content, &[0], None),
        Err(RenderError::NoTarget { index: 0, .. })
    ));
    content.overrides = vec![replace("/metadata/name", json!("other"))];
    assert_eq!(
        rendered(&content, &[0], None),
        Err(RenderError::Identity { index: 0 })
    );
}

#[test]
fn objects_carry_the_labels_of_their_app_and_keep_their_own() {
    let mut manifest = deployment("web");
    manifest["metadata"]["labels"] = json!({"team": "a", label::APP_UID: "forged"});
    manifest["status"] = json!({"replicas": 9});
    let object = &rendered(&content(vec![manifest]), &[], None).unwrap()[0];
    let labels = &object.body["metadata"]["labels"];
    assert_eq!(
        (&labels["team"], &labels[label::APP_UID]),
        (&json!("a"), &json!("uid-1"))
    );
    assert_eq!(labels[label::MANAGED_BY], label::MANAGED_BY_VALUE);
    assert_eq!(
        (&labels[label::APP], &labels[label::TENANT]),
        (&json!("web"), &json!("health"))
    );
    assert_eq!(object.body["metadata"]["namespace"], "health");
    assert_eq!(object.body.get("status"), None);
    assert_eq!(
        object.body["metadata"]["annotations"][label::APPLIED],
        json!(object.hash)
    );
}

#[test]
fn equal_input_gives_equal_hashes_and_any_change_another_one() {
    let hash =
        |content: &AppContent, replicas| rendered(content, &[], replicas).unwrap()[0].hash.clone();
    let content_a = content(vec![deployment("web:1")]);
    assert_eq!(hash(&content_a, Some(3)), hash(&content_a, Some(3)));
    assert_ne!(hash(&content_a, Some(3)), hash(&content_a, Some(4)));
    assert_ne!(
        hash(&content_a, Some(3)),
        hash(&content(vec![deployment("web:2")]), Some(3))
    );
}

#[test]
fn replicas_go_to_the_workload_that_carries_them() {
    let mut other = deployment("web");
    other["metadata"]["name"] = json!("worker");
    other["spec"]["replicas"] = json!(1);
    let mut content = content(vec![deployment("web"), other]);
    content.workload = Some("web".to_owned());
    let objects = rendered(&content, &[], Some(7)).unwrap();
    let replicas = |name: &str| {
        objects
            .iter()
            .find(|o| &*o.key.name == name)
            .unwrap()
            .body
            .pointer("/spec/replicas")
            .cloned()
    };
    assert_eq!(
        (replicas("web"), replicas("worker")),
        (Some(json!(7)), Some(json!(1)))
    );
}

#[test]
fn a_kind_that_apps_may_not_carry_is_refused_at_the_edge_too() {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}});
    assert!(matches!(
        rendered(&content(vec![role]), &[], None),
        Err(RenderError::KindNotAllowed { index: 0, .. })
    ));
}
