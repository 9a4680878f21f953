//! What a tenant writes in a bench: the same Deployment, plain for the floor or held by an App.

use serde_json::{Value, json};

/// Label that says which revision of the load an object is of.
pub const REVISION: &str = "bench.example/revision";
const IMAGE: &str = "registry.example/app";

/// Name of the object of that number.
pub fn name(number: usize) -> String {
    format!("app-{number:05}")
}

/// A Deployment of one container. It asks for no replicas: its status changes for real, since the
/// controllers are real, and nothing waits for pods that no node would run.
pub fn deployment(name: &str, revision: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name, REVISION: revision}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main", "image": format!("{IMAGE}:{revision}"),
                    "env": [{"name": "MODE", "value": "bench"}],
                    "ports": [{"containerPort": 8080}],
                }]},
            },
        },
    })
}

/// An App that puts this Deployment into every cluster of the province.
pub fn app(name: &str, revision: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"name": name},
        "spec": {
            "zone": "ExtranetPublic", "dataGrade": "General",
            "images": [{"name": IMAGE, "newTag": revision}],
            "manifests": [deployment(name, revision)],
        },
    })
}

/// The change that makes a Deployment one of `revision`.
pub fn deployment_update(revision: &str) -> Value {
    json!([
        {"op": "replace", "path": "/metadata/labels/bench.example~1revision", "value": revision},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": format!("{IMAGE}:{revision}")},
    ])
}

/// The change that makes an App one of `revision`.
pub fn app_update(revision: &str) -> Value {
    json!([
        {"op": "replace", "path": "/spec/manifests/0/metadata/labels/bench.example~1revision", "value": revision},
        {"op": "replace", "path": "/spec/images/0/newTag", "value": revision},
    ])
}
