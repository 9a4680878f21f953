//! The keys of tickets: one Secret beside guard control. The leader makes it where there is none; after that
//! people change it, and guard control only reads.
//!
//! ```text
//! watch ─ TicketSecret ─ Tickets ─┬─ keys ──> compile
//!                                 └─ wanted ─ create (the leader alone) ──> API server
//! ```
//!
//! Keys are in no log, message or status: what is said of them are the names of entries.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use tokio::sync::watch;

use crate::guard::compile::TicketKeys;
use crate::guard::config::TicketKey;
use crate::runtime::errors::chain;

/// The Secret.
pub(super) const NAME: &str = "jiuzhou-guard-tickets";
/// The entry that says which key signs, where there are two.
const SIGNING: &str = "signing";
/// Entries of keys: this and their number.
const KEY: &str = "key-";
/// Bytes of a key, as many as its signatures have.
const BYTES: usize = 32;
/// One that signs, and one that did or will.
const KEYS_MAX: usize = 2;
/// The number of the first key.
const FIRST: u8 = 1;
/// Pause before a Secret that is still missing is created once more: a right that was forgotten is given by
/// hand, and the API server has other clients.
const RETRY: Duration = Duration::from_secs(5);
/// Who owns what is created.
const MANAGER: &str = "jiuzhou-guard";

/// The Secret as it is read. Its values cannot be printed.
#[derive(Clone, Deserialize, Resource)]
#[resource(inherit = Secret)]
pub(super) struct TicketSecret {
    metadata: ObjectMeta,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecret")
            .field("name", &self.metadata.name)
            .finish_non_exhaustive()
    }
}

/// Why the Secret cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it has no key; put 32 random bytes into an entry key-1")]
    NoKey,
    #[error("it has {0} keys; leave the one that signs and at most one more that is honoured")]
    TooMany(usize),
    #[error("entry {0:?} is neither key-0 to key-255 nor signing; rename it or remove it")]
    Entry(String),
    #[error(
        "entry key-{0} is not {BYTES} bytes; replace it by as many random ones, without a line's end"
    )]
    Length(u8),
    #[error("it has two keys and no entry signing; write the number of the one that signs there")]
    Unclear,
    #[error("entry signing is not the number of a key that it has; write one of them there")]
    Signing,
}

/// What is to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: it is there.
    #[default]
    Nothing,
    /// The Secret, with a key that nobody had before.
    Fresh,
    /// The Secret, with these keys again: whoever deleted it has taken nobody's place by that.
    Again(Vec<TicketKey>),
}

/// What is known of the keys.
#[derive(Debug)]
pub(super) struct Tickets {
    /// `namespace/name` of the Secret.
    at: String,
    good: Option<Vec<TicketKey>>,
    /// What is wrong now, so that it is said once.
    fault: Option<Fault>,
    wanted: Wanted,
}

impl Tickets {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            at: format!("{namespace}/{NAME}"),
            good: None,
            fault: None,
            wanted: Wanted::Nothing,
        }
    }

    /// Takes the Secret as it is now. The last good keys stay, whatever became of it.
    pub(super) fn hear(&mut self, secrets: &[Arc<TicketSecret>]) {
        let is_it = |secret: &&Arc<TicketSecret>| secret.metadata.name.as_deref() == Some(NAME);
        let Some(secret) = secrets.iter().find(is_it) else {
            self.fault = None;
            self.wanted = self.good.clone().map_or(Wanted::Fresh, Wanted::Again);
            return;
        };
        self.wanted = Wanted::Nothing;
        match read(&secret.data) {
            Ok(keys) => {
                if self.good.as_ref() != Some(&keys) {
                    let ids: Vec<u8> = keys.iter().map(|key| key.id).collect();
                    tracing::info!(
                        secret = self.at,
                        ?ids,
                        "keys of tickets, the signing one first"
                    );
                }
                self.fault = None;
                self.good = Some(keys);
            }
            Err(fault) => {
                if self.fault.as_ref() != Some(&fault) {
                    let goes_on = self.good.is_some();
                    tracing::error!(
                        secret = self.at,
                        why = %fault,
                        goes_on,
                        "the Secret of the keys of tickets cannot be used; the last good keys stay"
                    );
                }
                self.fault = Some(fault);
            }
        }
    }

    /// What guards are given.
    pub(super) fn keys(&self) -> TicketKeys {
        let at = &self.at;
        match (&self.good, &self.fault) {
            (Some(keys), _) => TicketKeys::Known(keys.clone()),
            (None, Some(fault)) => {
                TicketKeys::Missing(format!("Secret {at} with the keys of tickets: {fault}"))
            }
            (None, None) => TicketKeys::Missing(format!(
                "Secret {at} with the keys of tickets is not there yet; guard control creates it, and its \
                 log says why where this stays"
            )),
        }
    }

    /// What the leader is to create.
    pub(super) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether the Secret cannot be used.
    pub(super) const fn is_broken(&self) -> bool {
        self.fault.is_some()
    }
}

/// Creates the Secret while it is wanted, until the sender is gone. One that is there is never touched.
pub(super) async fn create(client: Client, namespace: String, mut wanted: watch::Receiver<Wanted>) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    loop {
        let keys = match &*wanted.borrow_and_update() {
            Wanted::Nothing => None,
            Wanted::Fresh => fresh(),
            Wanted::Again(keys) => Some(keys.clone()),
        };
        if let Some(keys) = &keys {
            let sent = api.create(&parameters(), &secret(keys)).await;
            match sent {
                Ok(_) => tracing::info!(namespace, name = NAME, "keys of tickets created"),
                // Another leader, or somebody's hand: theirs count, and the watch brings them.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => tracing::error!(
                    namespace,
                    name = NAME,
                    error = chain(&error),
                    "the Secret of the keys of tickets was not created; without it no waiting room \
                     opens, and it is tried again"
                ),
            }
        }
        let is_wanted = *wanted.borrow() != Wanted::Nothing;
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(RETRY), if is_wanted => {}
        }
    }
}

/// A key from the system's own randomness: whoever could guess it could write places and admissions.
fn fresh() -> Option<Vec<TicketKey>> {
    let mut bytes = [0; BYTES];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::error!("the system has no randomness for a key of tickets; it is tried again");
        return None;
    }
    let secret = STANDARD.encode(bytes);
    Some(vec![TicketKey { id: FIRST, secret }])
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn secret(keys: &[TicketKey]) -> Secret {
    let signing = keys.first().map_or(FIRST, |key| key.id);
    let entry = |key: &TicketKey| {
        let bytes = STANDARD.decode(&key.secret).unwrap_or_default();
        (format!("{KEY}{}", key.id), ByteString(bytes))
    };
    let mut data: BTreeMap<String, ByteString> = keys.iter().map(entry).collect();
    data.insert(
        SIGNING.to_owned(),
        ByteString(signing.to_string().into_bytes()),
    );
    let label = ("app.kubernetes.io/part-of".to_owned(), "jiuzhou".to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([label].into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The keys of a Secret, the signing one first.
fn read(data: &BTreeMap<String, String>) -> Result<Vec<TicketKey>, Fault> {
    let mut keys = Vec::new();
    let mut signing = None;
    for (entry, value) in data {
        if entry == SIGNING {
            signing = Some(number(value).ok_or(Fault::Signing)?);
            continue;
        }
        let id = entry.strip_prefix(KEY).and_then(|id| id.parse::<u8>().ok());
        // One number is one entry: key-01 would be another name of the same.
        let id = id.filter(|id| *entry == format!("{KEY}{id}"));
        let id = id.ok_or_else(|| Fault::Entry(entry.clone()))?;
        let bytes = STANDARD.decode(value).unwrap_or_default();
        if bytes.len() != BYTES {
            return Err(Fault::Length(id));
        }
        let secret = value.clone();
        keys.push(TicketKey { id, secret });
    }
    if keys.len() > KEYS_MAX {
        return Err(Fault::TooMany(keys.len()));
    }
    let first = match (signing, keys.as_slice()) {
        (_, []) => return Err(Fault::NoKey),
        (None, [_]) => 0,
        (None, _) => return Err(Fault::Unclear),
        (Some(id), keys) => {
            let found = keys.iter().position(|key| key.id == id);
            found.ok_or(Fault::Signing)?
        }
    };
    keys.swap(0, first);
    Ok(keys)
}

/// A number that somebody wrote as text, perhaps with a line's end.
fn number(value: &str) -> Option<u8> {
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests;
