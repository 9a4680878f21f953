//! The closed list of kinds that an agent applies, and keys of objects in a cluster.

use std::fmt;

use crds::NamespaceName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! kinds {
    ($($Kind:ident),* $(,)?) => {
        /// A kind that an agent applies, in the order in which kinds are applied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = stringify!($Kind)] $Kind,)*
        }

        impl Kind {
            /// All kinds, in the order in which they are applied.
            const EVERY: &'static [Self] = &[$(Self::$Kind,)*];

            /// The kind as it stands in a manifest.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Kind => stringify!($Kind),)* }
            }
        }
    };
}

kinds!(
    Namespace,
    NetworkPolicy,
    LimitRange,
    ResourceQuota,
    ServiceAccount,
    ConfigMap,
    PersistentVolumeClaim,
    Service,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    HTTPRoute,
    TrafficPolicy,
);

/// What isolates a namespace, as (group, version, kind, plural): the namespace itself first.
const ISOLATING: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "Namespace", "namespaces"),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
    ("", "v1", "LimitRange", "limitranges"),
    ("", "v1", "ResourceQuota", "resourcequotas"),
];

/// What protects routes, in the same columns.
const PROTECTING: &[(&str, &str, &str, &str)] =
    &[("jiuzhou.io", "v1alpha1", "TrafficPolicy", "trafficpolicies")];

impl Kind {
    /// Kinds of objects in a namespace, in the order in which they are applied.
    pub const ALL: &'static [Self] = Self::EVERY.split_at(1).1;
    /// Kinds that an App's manifests may have, in the order in which they are applied.
    pub const OF_APPS: &'static [Self] = Self::EVERY
        .split_at(Self::EVERY.len() - PROTECTING.len())
        .0
        .split_at(ISOLATING.len())
        .1;
    /// Kinds of what isolates a namespace.
    pub const ISOLATING: &'static [Self] = Self::EVERY.split_at(ISOLATING.len()).0;

    /// Kinds of what protects the routes of Apps.
    pub const PROTECTING: &'static [Self] =
        Self::EVERY.split_at(Self::EVERY.len() - PROTECTING.len()).1;

    /// The kind of a manifest, if it is one of those.
    pub fn among(kinds: &[Self], manifest: &Value) -> Option<Self> {
        let kind = manifest.get("kind")?.as_str()?;
        let kind = *kinds.iter().find(|k| k.name() == kind)?;
        (manifest.get("apiVersion")?.as_str()? == kind.api_version()).then_some(kind)
    }

    /// The kind of a manifest, if Apps may carry it.
    pub fn of(manifest: &Value) -> Option<Self> {
        Self::among(Self::OF_APPS, manifest)
    }

    fn row(self) -> &'static (&'static str, &'static str, &'static str, &'static str) {
        let all = ISOLATING.iter().chain(crds::ALLOWED_KINDS);
        let mut all = all.chain(PROTECTING);
        all.find(|(_, _, kind, _)| *kind == self.name())
            .expect("a test holds the two lists equal")
    }

    /// API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.row().0
    }

    /// API version without the group.
    pub fn version(self) -> &'static str {
        self.row().1
    }

    /// Plural, as in URLs and in RBAC.
    pub fn plural(self) -> &'static str {
        self.row().3
    }

    /// `apiVersion` as in a manifest.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }
}

/// Kind, namespace and name of an object in a cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: NamespaceName,
    /// Name.
    pub name: Box<str>,
}

impl ObjectKey {
    /// The key of a namespace itself.
    pub fn namespace(name: &NamespaceName) -> Self {
        Self {
            kind: Kind::Namespace,
            namespace: name.clone(),
            name: name.as_str().into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "one kind stands for itself, all others in a namespace"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Namespace => write!(f, "Namespace {}", self.name),
            kind => write!(f, "{} {}/{}", kind.name(), self.namespace, self.name),
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_are_those_the_schema_allows_in_the_same_order() {
        let names = |kinds: &[Kind]| kinds.iter().map(|k| k.name()).collect::<Vec<_>>();
        let there: Vec<_> = crds::ALLOWED_KINDS.iter().map(|row| row.2).collect();
        assert_eq!(names(Kind::OF_APPS), there);
        let there: Vec<_> = ISOLATING.iter().map(|row| row.2).collect();
        assert_eq!(names(Kind::ISOLATING), there);
        let there: Vec<_> = PROTECTING.iter().map(|row| row.2).collect();
        assert_eq!(names(Kind::PROTECTING), there);
    }
}
