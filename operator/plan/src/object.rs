//! The closed list of kinds an App may carry, and keys of objects in a cluster.

use std::fmt;

use crds::NamespaceName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! kinds {
    ($($Kind:ident),* $(,)?) => {
        /// A kind that an App's manifests may have, in the order in which kinds are applied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = stringify!($Kind)] $Kind,)*
        }

        impl Kind {
            /// All kinds, in the order in which they are applied.
            pub const ALL: &'static [Self] = &[$(Self::$Kind,)*];

            /// The kind as it stands in a manifest.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Kind => stringify!($Kind),)* }
            }
        }
    };
}

kinds!(
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
);

impl Kind {
    /// The kind of a manifest, if Apps may carry it.
    pub fn of(manifest: &Value) -> Option<Self> {
        let kind = manifest.get("kind")?.as_str()?;
        let kind = *Self::ALL.iter().find(|k| k.name() == kind)?;
        (manifest.get("apiVersion")?.as_str()? == kind.api_version()).then_some(kind)
    }

    fn row(self) -> &'static (&'static str, &'static str, &'static str, &'static str) {
        crds::ALLOWED_KINDS
            .iter()
            .find(|(_, _, kind, _)| *kind == self.name())
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

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
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
        let here: Vec<_> = Kind::ALL.iter().map(|k| k.name()).collect();
        let there: Vec<_> = crds::ALLOWED_KINDS.iter().map(|row| row.2).collect();
        assert_eq!(here, there);
    }
}
