//! Builders of objects that read as prose.

use crds::{App, AppSpec, Timestamp};
use serde_json::{Value, json};

/// An App that is about to be created, in tenant `health`.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) name: String,
    namespace: String,
    held: bool,
    author: Option<String>,
    pub(crate) spec: Value,
}

/// One Deployment of one core per replica, for the public extranet.
pub(crate) fn app(name: &str) -> Draft {
    Draft {
        name: name.to_owned(),
        namespace: "health".to_owned(),
        held: true,
        author: None,
        spec: json!({
            "zone": "ExtranetPublic", "dataGrade": "General",
            "manifests": [manifest("Deployment", name)],
        }),
    }
}

/// A minimal manifest of a kind.
pub(crate) fn manifest(kind: &str, name: &str) -> Value {
    let (_, version, ..) = crds::ALLOWED_KINDS
        .iter()
        .find(|row| row.2 == kind)
        .unwrap();
    let group = crds::ALLOWED_KINDS
        .iter()
        .find(|row| row.2 == kind)
        .unwrap()
        .0;
    let version = if group.is_empty() {
        (*version).to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut body = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    if matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet" | "Job") {
        let requests = json!({"requests": {"cpu": "1"}});
        let container =
            json!({"name": "web", "image": "registry.example/web:1", "resources": requests});
        body["spec"] = json!({"template": {"spec": {"containers": [container]}}});
    }
    if kind == "HorizontalPodAutoscaler" {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        body["spec"] = json!({"scaleTargetRef": target, "maxReplicas": 10});
    }
    body
}

pub(crate) fn set_image(spec: &mut AppSpec, image: &str) {
    spec.manifests[0]["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
}

pub(crate) fn time(millis: i64) -> String {
    Timestamp::from_millis(millis).to_string()
}

impl Draft {
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let mut at = &mut self.spec;
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            if at.get(part).is_none() && at.is_object() {
                at[part] = json!({});
            }
            at = match part.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                Ok(_) | Err(_) => &mut at[part],
            };
        }
        at[field] = value;
        self
    }

    pub(crate) fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Another name for the App; its manifests keep theirs.
    pub(crate) fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(crate) fn without_finalizer(mut self) -> Self {
        self.held = false;
        self
    }

    pub(crate) fn changed_by(mut self, user: &str) -> Self {
        self.author = Some(user.to_owned());
        self
    }

    pub(crate) fn replicas(self, total: i32, division: &str) -> Self {
        self.set("/replicas", json!({"total": total, "division": division}))
    }

    pub(crate) fn weighted(self, total: i32, weights: &[(&str, i32)]) -> Self {
        let weight = |(name, weight): &(&str, i32)| json!({"regionName": name, "weight": weight});
        let weights: Vec<Value> = weights.iter().map(weight).collect();
        self.set(
            "/replicas",
            json!({"total": total, "division": "Weight", "weights": weights}),
        )
    }

    pub(crate) fn scaling(self, min: i32, max: i32, division: &str) -> Self {
        let name = self.name.clone();
        self.and(manifest("HorizontalPodAutoscaler", &name)).set(
            "/scaling",
            json!({"min": min, "max": max, "division": division}),
        )
    }

    pub(crate) fn at_most(self, regions: i32) -> Self {
        self.set("/placement/maxRegions", json!(regions))
    }

    pub(crate) fn at_least(self, regions: i32) -> Self {
        self.set("/placement/minRegions", json!(regions))
    }

    pub(crate) fn within(self, regions: &[&str]) -> Self {
        self.set("/placement/regions/within", json!(regions))
    }

    /// Requests of one replica, in cores.
    pub(crate) fn cores(self, cpu: &str) -> Self {
        self.set(
            "/manifests/0/spec/template/spec/containers/0/resources/requests/cpu",
            json!(cpu),
        )
    }

    pub(crate) fn tier(self, tier: &str) -> Self {
        self.set("/tier", json!(tier))
    }

    /// One more manifest.
    pub(crate) fn and(mut self, manifest: Value) -> Self {
        self.spec["manifests"]
            .as_array_mut()
            .unwrap()
            .push(manifest);
        self
    }

    /// Waves, each with its region, soak and whether it needs an Approval.
    pub(crate) fn waves(self, waves: &[(&str, &[&str], &str, bool)]) -> Self {
        let wave = |(name, regions, soak, approval): &(&str, &[&str], &str, bool)| {
            let mut wave = json!({"name": name});
            if !regions.is_empty() {
                wave["regions"] = json!({"within": regions});
            }
            if !soak.is_empty() {
                wave["soak"] = json!(soak);
            }
            if *approval {
                wave["approval"] = json!("Required");
            }
            wave
        };
        let waves: Vec<Value> = waves.iter().map(wave).collect();
        self.set("/rollout", json!({"waves": waves}))
    }

    pub(crate) fn into_app(self, uid: &str, created: i64, version: &str) -> App {
        let mut app: App = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
            "metadata": {
                "name": self.name, "namespace": self.namespace, "uid": uid, "generation": 1,
                "creationTimestamp": time(created), "resourceVersion": version,
            },
            "spec": self.spec,
        }))
        .unwrap();
        if self.held {
            app.metadata.finalizers = Some(vec![crds::APP_FINALIZER.to_owned()]);
        }
        if let Some(author) = self.author {
            let changed_by = crds::label::CHANGED_BY.to_owned();
            app.metadata.annotations = Some([(changed_by, author)].into());
        }
        app
    }
}

/// A Region.
pub(crate) fn region(name: &str, level: &str, code: &str, parent: Option<&str>) -> Value {
    let mut spec = json!({"displayName": name, "level": level});
    if !code.is_empty() {
        spec["code"] = json!(code);
    }
    if let Some(parent) = parent {
        spec["parent"] = json!(parent);
    }
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Region",
        "metadata": {"name": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    })
}

/// A managed MemberCluster in the public extranet.
pub(crate) fn cluster(name: &str, region: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
        "metadata": {"name": name, "generation": 1},
        "spec": {
            "regionName": region, "zone": "ExtranetPublic", "protectionLevel": 3,
            "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
        },
    })
}
