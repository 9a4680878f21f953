//! Names as types: a `RegionName` is not a `ClusterName`.
//!
//! Deserialising never fails on a bad name, since one bad object must not stop the watch of its
//! kind. The plan's gate asks [`is_valid`](RegionName::is_valid) once and parks what is not.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::is_valid_name;

macro_rules! name {
    ($(#[$doc:meta])* $Name:ident, max $max:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether the name is what the schema allows.
            pub fn is_valid(&self) -> bool {
                (1..=$max).contains(&self.0.len()) && is_valid_name(&self.0, $pattern)
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl From<&str> for $Name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $Name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self(Cow::<'de, str>::deserialize(deserializer)?.into()))
            }
        }

        impl JsonSchema for $Name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($Name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "minLength": 1, "maxLength": $max, "pattern": $pattern,
                })
            }
        }
    };
}

name!(
    /// Name of a [`Region`](crate::Region).
    RegionName, max 63, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
name!(
    /// Name of a [`MemberCluster`](crate::MemberCluster); its hub namespace is `jz-<name>`.
    ClusterName, max 40, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
name!(
    /// Name of an [`App`](crate::App); it becomes a label value.
    AppName, max 63, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
name!(
    /// Name of a [`Tenant`](crate::Tenant); it carries no hyphen, since it becomes a part of the name
    /// of a namespace.
    TenantName, max 14, "^[a-z][a-z0-9]*$"
);
name!(
    /// Name of a namespace.
    NamespaceName, max 63, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
name!(
    /// Name of a rollout wave; an Approval calls it `step`.
    WaveName, max 30, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
name!(
    /// Name of a rule of a [`TrafficPolicy`](crate::TrafficPolicy), as refusals and metrics have it.
    RuleName, max 63, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
name!(
    /// UID of an object.
    Uid, max 64, "^[-a-zA-Z0-9]+$"
);
name!(
    /// Hash of an App's content (manifests, images and override patches), the first 20 hexadecimal digits.
    ContentHash, max 20, "^[0-9a-f]{20}$"
);
