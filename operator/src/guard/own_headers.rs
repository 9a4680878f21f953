//! Headers that say where a message ends and how its connection goes on. They are the guard's own.

/// In small letters.
const OWN: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a filter must not set a header: who writes such a one makes one answer pass for two.
pub(super) fn is_framing(name: impl AsRef<str>) -> bool {
    OWN.contains(&name.as_ref())
}
