//! What isolates a namespace in a member cluster: the baseline of its zone as objects of Kubernetes.
//!
//! Nothing here names a namespace, so that all which are held to the same share one content.

use std::collections::BTreeSet;

use crds::{AllowedKind, Egress, IsolationSpec, OnDrift, PodSecurity, Tier, label};
use serde_json::{Value, json};

use crate::content::AppContent;

/// Label by which Kubernetes holds the pods of a namespace to a standard.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// Where images without a registry come from.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where a node's own cache of DNS listens, if there is one.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";
/// Where guards run, by `charts/guard`.
const GUARD_NAMESPACE: &str = "jiuzhou-guard";

/// The baseline of a namespace: the strictest parts of all Isolations that apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Baseline {
    /// Standard that pods are held to.
    pub pod_security: PodSecurity,
    /// Whether pods may open connections that nothing declares.
    pub egress: Egress,
    /// Registries that images may come from; `None` means any.
    pub registries: Option<BTreeSet<String>>,
    /// Kinds that Apps may carry; `None` means all.
    pub kinds: Option<BTreeSet<AllowedKind>>,
    /// What happens when somebody weakens it.
    pub on_drift: OnDrift,
}

impl Baseline {
    /// What all of these ask for together; without any, the defaults.
    pub fn of<'a>(isolations: impl IntoIterator<Item = &'a IsolationSpec>) -> Self {
        let mut all = isolations.into_iter().map(Self::one);
        let Some(first) = all.next() else {
            return Self::default();
        };
        all.fold(first, Self::and)
    }

    fn one(spec: &IsolationSpec) -> Self {
        let some = |registries: &Vec<String>| registries.iter().cloned().collect();
        Self {
            pod_security: spec.pod_security,
            egress: spec.egress,
            registries: (!spec.allowed_registries.is_empty())
                .then(|| some(&spec.allowed_registries)),
            kinds: (!spec.allowed_kinds.is_empty())
                .then(|| spec.allowed_kinds.iter().copied().collect()),
            on_drift: spec.on_drift,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            pod_security: self.pod_security.max(other.pod_security),
            egress: self.egress.max(other.egress),
            registries: both(self.registries, other.registries, |a, b| {
                // What lies below a registry of the other is allowed by both.
                let within = |one: &String, most: &BTreeSet<String>| {
                    most.iter().any(|most| is_within(one, most))
                };
                let mut common: BTreeSet<String> =
                    a.iter().filter(|one| within(one, b)).cloned().collect();
                common.extend(b.iter().filter(|one| within(one, a)).cloned());
                common
            }),
            kinds: both(self.kinds, other.kinds, |a, b| {
                a.intersection(b).copied().collect()
            }),
            on_drift: self.on_drift.max(other.on_drift),
        }
    }

    /// Whether an image may come from where it does.
    pub fn allows_image(&self, image: &str) -> bool {
        self.registries.as_ref().is_none_or(|registries| {
            let name = full_name(image);
            registries.iter().any(|registry| is_within(&name, registry))
        })
    }

    /// Whether Apps may carry that kind.
    pub fn allows_kind(&self, kind: &str) -> bool {
        self.kinds
            .as_ref()
            .is_none_or(|kinds| kinds.iter().any(|k| format!("{k:?}") == kind))
    }

    /// The baseline as objects: the namespace's own marks, and what may pass its border.
    pub fn content(&self) -> AppContent {
        let mut manifests = vec![
            self.namespace(),
            default_deny(),
            same_namespace(),
            dns(),
            guard(),
        ];
        if self.egress == Egress::Allow {
            manifests.push(policy("jiuzhou-allow-egress", &json!([]), &json!([{}])));
        }
        AppContent {
            manifests,
            images: Vec::new(),
            workload: None,
            tier: Tier::General,
            overrides: Vec::new(),
        }
    }

    fn namespace(&self) -> Value {
        // A comma on both sides, so that an expression can look for one registry as a whole.
        let registries = self.registries.as_ref().map_or_else(String::new, |some| {
            some.iter()
                .fold(",".to_owned(), |list, one| list + one + ",")
        });
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "labels": {
                    POD_SECURITY: self.pod_security.level(),
                    format!("{POD_SECURITY}-version"): "latest",
                },
                "annotations": {
                    label::REGISTRIES: registries,
                    label::ON_DRIFT: format!("{:?}", self.on_drift),
                },
            },
        })
    }
}

/// What both allow, where `None` allows all.
fn both<T>(
    a: Option<BTreeSet<T>>,
    b: Option<BTreeSet<T>>,
    common: impl FnOnce(&BTreeSet<T>, &BTreeSet<T>) -> BTreeSet<T>,
) -> Option<BTreeSet<T>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(common(&a, &b)),
        (a, b) => a.or(b),
    }
}

/// Whether a name lies in a registry, or in a part of one.
fn is_within(name: &str, registry: &str) -> bool {
    name.strip_prefix(registry)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The name of an image with its registry, and without tag and digest.
fn full_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let colon = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    let name = colon.map_or(name, |at| &name[..at]);
    let first = name.split_once('/').map(|(first, _)| first);
    let registry = first.filter(|first| first.contains(['.', ':']) || *first == "localhost");
    match (registry, first) {
        (Some(_), _) => name.to_owned(),
        (None, Some(_)) => format!("{DEFAULT_REGISTRY}/{name}"),
        (None, None) => format!("{DEFAULT_REGISTRY}/library/{name}"),
    }
}

/// A NetworkPolicy over all pods of its namespace. Both lists are always set, if to nothing: what a policy
/// leaves open, somebody else could fill in.
fn policy(name: &str, ingress: &Value, egress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress, "egress": egress,
        },
    })
}

fn default_deny() -> Value {
    policy("jiuzhou-default-deny", &json!([]), &json!([]))
}

fn same_namespace() -> Value {
    let everybody = json!([{"podSelector": {}}]);
    policy(
        "jiuzhou-allow-namespace",
        &json!([{"from": everybody}]),
        &json!([{"to": everybody}]),
    )
}

fn dns() -> Value {
    let port = |protocol: &str| json!({"protocol": protocol, "port": 53});
    let servers = json!([
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
        {"ipBlock": {"cidr": NODE_LOCAL_DNS}},
    ]);
    let egress = json!([{"to": servers, "ports": [port("UDP"), port("TCP")]}]);
    policy("jiuzhou-allow-dns", &json!([]), &egress)
}

fn guard() -> Value {
    let guard = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GUARD_NAMESPACE}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "jiuzhou-guard"}},
    }]);
    policy(
        "jiuzhou-allow-guard",
        &json!([{"from": guard}]),
        &json!([{"to": guard}]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::Zone;

    fn isolation() -> IsolationSpec {
        IsolationSpec {
            zones: vec![Zone::ExtranetPublic],
            data_grades: Vec::new(),
            pod_security: PodSecurity::Baseline,
            egress: Egress::Deny,
            allowed_registries: Vec::new(),
            allowed_kinds: Vec::new(),
            on_drift: OnDrift::Revert,
        }
    }

    #[test]
    fn without_any_isolation_the_default_denies() {
        let none = Baseline::of([]);
        assert_eq!(none, Baseline::of([&isolation()]));
        assert_eq!(none.egress, Egress::Deny);
        assert_eq!(none.pod_security, PodSecurity::Baseline);
    }

    #[test]
    fn of_several_the_strictest_part_of_each_holds() {
        let lax = IsolationSpec {
            pod_security: PodSecurity::Privileged,
            egress: Egress::Allow,
            on_drift: OnDrift::Report,
            allowed_registries: vec!["registry.example".to_owned()],
            allowed_kinds: vec![AllowedKind::Deployment, AllowedKind::Service],
            ..isolation()
        };
        let strict = IsolationSpec {
            pod_security: PodSecurity::Restricted,
            allowed_registries: vec!["registry.example/health".to_owned(), "other".to_owned()],
            allowed_kinds: vec![AllowedKind::Deployment, AllowedKind::Job],
            ..isolation()
        };
        let both = Baseline::of([&lax, &strict]);
        assert_eq!(both, Baseline::of([&strict, &lax]));
        assert_eq!(both.pod_security, PodSecurity::Restricted);
        assert_eq!(
            (both.egress, both.on_drift),
            (Egress::Deny, OnDrift::Revert)
        );
        assert_eq!(
            both.registries,
            Some(["registry.example/health".to_owned()].into())
        );
        assert_eq!(both.kinds, Some([AllowedKind::Deployment].into()));
    }

    #[test]
    fn an_image_is_judged_by_where_it_really_comes_from() {
        let of = |registry: &str| Baseline {
            registries: Some([registry.to_owned()].into()),
            ..Baseline::default()
        };
        let example = of("registry.example");
        assert!(example.allows_image("registry.example/a/b:1@sha256:0123"));
        assert!(example.allows_image("registry.example/a"));
        for image in [
            "registry.example.evil/a",
            "evil/registry.example/a",
            "registry.example:5000/a",
            "nginx",
            "a/b",
        ] {
            assert!(!example.allows_image(image), "{image}");
        }
        assert!(of("docker.io/library").allows_image("nginx:1"));
        assert!(of("docker.io").allows_image("a/b"));
        assert!(of("registry.example/health").allows_image("registry.example/health/code:1"));
        assert!(!of("registry.example/health").allows_image("registry.example/healthy/code:1"));
    }
}
