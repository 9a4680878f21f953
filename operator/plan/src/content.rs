//! An App's content: what is stored once, named by its hash, and rendered at the edge.

use crds::{AppSpec, ContentHash, Image, PatchOperation, Target, Tier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Everything about an App that an agent needs besides its assignment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppContent {
    /// The App's objects as written.
    pub manifests: Vec<Value>,
    /// Image replacements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// Workload that carries the App's replicas; absent when it is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Tier of the App. It is part of the content since another one restarts every pod, which waves are for.
    #[serde(default, skip_serializing_if = "is_general")]
    pub tier: Tier,
    /// Patches of the overrides; an assignment names them by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<ContentOverride>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if asks for a reference"
)]
fn is_general(tier: &Tier) -> bool {
    *tier == Tier::General
}

/// The part of an override that does not depend on the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContentOverride {
    /// Manifest that is changed.
    pub target: Target,
    /// The change.
    pub patch: Vec<PatchOperation>,
}

/// Why stored content cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The data is not what its name says.
    #[error("the stored content does not match its hash {0}")]
    HashMismatch(ContentHash),
    /// The data is not readable.
    #[error("the stored content {0} cannot be read")]
    Unreadable(ContentHash),
}

impl AppContent {
    /// The content of an App.
    pub fn of(spec: &AppSpec) -> Self {
        let part = |o: &crds::Override| ContentOverride {
            target: o.target.clone(),
            patch: o.patch.clone(),
        };
        Self {
            manifests: spec.manifests.clone(),
            images: spec.images.clone(),
            workload: spec.replicas.as_ref().and_then(|r| r.workload_name.clone()),
            tier: spec.tier,
            overrides: spec.overrides.iter().map(part).collect(),
        }
    }

    /// The content as stored. Equal contents give equal text, since JSON objects are sorted by key.
    ///
    /// # Panics
    /// Never: manifests come from JSON, so all their keys are strings.
    pub fn to_data(&self) -> String {
        serde_json::to_string(self).expect("content is plain JSON")
    }

    /// Reads stored content back, refusing what does not match its hash.
    pub fn from_data(hash: &ContentHash, data: &str) -> Result<Self, ContentError> {
        if hash_of(data.as_bytes()) != *hash {
            return Err(ContentError::HashMismatch(hash.clone()));
        }
        serde_json::from_str(data).map_err(|_| ContentError::Unreadable(hash.clone()))
    }
}

/// The hash that names content: the first 20 hexadecimal digits of its SHA-256.
pub fn hash_of(data: &[u8]) -> ContentHash {
    ContentHash::from(hex(&Sha256::digest(data)[..10]))
}

/// Bytes that stored content takes inside its Content object, where it is JSON within JSON: the API
/// server writes each quote as two bytes, and `<`, `>`, `&` and the line separators of Unicode as
/// six. The store's limit counts these.
pub(crate) fn stored_bytes(data: &str) -> usize {
    let one = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        b'<' | b'>' | b'&' | 0..=0x1f => 6,
        _ => 1,
    };
    let bytes: usize = data.bytes().map(one).sum();
    // Line breaks of Unicode are three bytes, six as they are written, and hardly ever there.
    if !data.as_bytes().contains(&0xe2) {
        return bytes;
    }
    bytes + 3 * data.matches(['\u{2028}', '\u{2029}']).count()
}

/// Bytes as lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_content_has_one_hash_whatever_the_order_of_its_keys() {
        let a: Value =
            serde_json::from_str(r#"{"kind":"ConfigMap","data":{"b":"1","a":"2"}}"#).unwrap();
        let b: Value =
            serde_json::from_str(r#"{"data":{"a":"2","b":"1"},"kind":"ConfigMap"}"#).unwrap();
        let content = |m| AppContent {
            manifests: vec![m],
            images: vec![],
            workload: None,
            tier: Tier::General,
            overrides: vec![],
        };
        assert_eq!(content(a).to_data(), content(b).to_data());
    }

    #[test]
    fn content_is_at_least_as_large_as_it_is_written() {
        for data in ["plain 健康码", r#"{"a":"\"b\\"}"#, "a\nb\u{1}"] {
            let written = serde_json::to_string(data).unwrap().len() - 2;
            assert_eq!(stored_bytes(data), written);
        }
        assert_eq!(stored_bytes("<&\u{2028}"), 18, "as Go writes them");
    }

    #[test]
    fn content_that_does_not_match_its_hash_is_refused() {
        let content = AppContent {
            manifests: vec![json!({"kind": "Service"})],
            images: vec![],
            workload: None,
            tier: Tier::General,
            overrides: vec![],
        };
        let data = content.to_data();
        let hash = hash_of(data.as_bytes());
        assert_eq!(AppContent::from_data(&hash, &data), Ok(content));
        let forged = data.replace("Service", "Secrets");
        assert_eq!(
            AppContent::from_data(&hash, &forged),
            Err(ContentError::HashMismatch(hash))
        );
    }
}
