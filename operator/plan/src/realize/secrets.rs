//! Secrets that Apps name: delivered from the hub's copies, and withdrawn with the last App that
//! names them. Values never come here; what is compared are versions of the copies.

use std::collections::BTreeSet;

use crds::{NamespaceName, Reason, ReportState, SecretCopy, TakeOver, Uid};
use serde::{Deserialize, Serialize};

use super::{Action, Work};

/// How long a delivered Secret is trusted, in milliseconds: the agent has no right to watch Secrets
/// in its cluster, so it looks again from time to time.
const TRUSTED: i64 = 60_000;

/// Namespace and name of a Secret in the cluster.
pub type SecretKey = (NamespaceName, Box<str>);

/// A Secret that was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// UID of the Secret.
    pub uid: Uid,
    /// Version of the copy that it holds; empty if it was seen not to be as its copy is.
    pub version: Box<str>,
    /// Apps that name it.
    pub apps: BTreeSet<Uid>,
    /// When it was last looked at, in milliseconds since the Unix epoch. Not worth remembering.
    #[serde(skip)]
    pub looked: i64,
}

/// A Secret that could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Version of the copy.
    pub version: Box<str>,
    /// Why, as one word.
    pub reason: Reason,
    /// Why, as one sentence.
    pub message: Box<str>,
    /// When to try again, in milliseconds since the Unix epoch.
    pub retry_at: i64,
}

/// A Secret to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// The Secret.
    pub key: SecretKey,
    /// The copy that holds its values.
    pub copy: Box<str>,
    /// App that it is delivered for.
    pub app: Uid,
    /// Its name.
    pub app_name: crds::AppName,
    /// Apps that name it already.
    pub sharing: BTreeSet<Uid>,
    /// Whether an unmanaged Secret of that name may be taken over.
    pub take_over: TakeOver,
    /// Whether it holds the copy as far as is known, and is only looked at again.
    pub again: bool,
}

/// A Secret to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdraw {
    /// The Secret.
    pub key: SecretKey,
    /// App that no longer names it.
    pub app: Uid,
    /// UID under which it was delivered, if that is known.
    pub uid: Option<Uid>,
    /// Whether other Apps still name it.
    pub shared: bool,
    /// Whether it stays and only its marks of ownership go.
    pub release: bool,
}

impl Work<'_> {
    /// Secrets that the App names, and those that it no longer names.
    pub(super) fn secrets(&mut self) {
        if self.observed.home {
            return;
        }
        let entry = self.entry;
        for secret in &entry.secrets {
            self.secret(secret);
        }
        let dropped = self
            .delivered()
            .filter(|(_, name)| entry.secrets.iter().all(|s| s.name != **name));
        let dropped: Vec<SecretKey> = dropped.cloned().collect();
        dropped
            .into_iter()
            .for_each(|key| self.withdraw(key, false));
    }

    /// Takes back every Secret of the App. Returns whether any is left.
    pub(super) fn withdraw_all(&mut self, release: bool) -> bool {
        if self.observed.home {
            return false;
        }
        // What was delivered before the agent's memory was lost is looked for, too. Where nothing
        // may be written nothing was delivered, and nobody could ever say that it is gone.
        let named = self.entry.secrets.iter().filter(|_| !self.observing);
        let named = named.map(|s| (self.entry.namespace.clone(), s.name.as_str().into()));
        let keys: BTreeSet<SecretKey> = named.chain(self.delivered().cloned()).collect();
        let done = |key: &SecretKey| {
            self.observed
                .withdrawn
                .contains(&(key.clone(), self.entry.uid.clone()))
        };
        let left: Vec<SecretKey> = keys.into_iter().filter(|key| !done(key)).collect();
        let any = !left.is_empty();
        left.into_iter().for_each(|key| self.withdraw(key, release));
        any
    }

    fn delivered(&self) -> impl Iterator<Item = &SecretKey> {
        let mine = |delivered: &Delivered| delivered.apps.contains(&self.entry.uid);
        self.observed
            .delivered
            .iter()
            .filter(move |(_, delivered)| mine(delivered))
            .map(|(key, _)| key)
    }

    fn secret(&mut self, secret: &SecretCopy) {
        let key: SecretKey = (self.entry.namespace.clone(), secret.name.as_str().into());
        let there = self.observed.delivered.get(&key);
        let Some(version) = self.observed.copies.get(secret.copy.as_str()) else {
            // While the hub or its copy is away, what was delivered stays as it is.
            if there.is_none() {
                self.state = Some(ReportState::Progressing);
                self.message = Some(format!(
                    "Secret {} has not arrived: it must exist in namespace {} at the hub",
                    secret.name, key.0
                ));
            }
            return;
        };
        let current = there.filter(|d| d.version == *version && d.apps.contains(&self.entry.uid));
        if let Some(look) = current
            .map(|d| d.looked + TRUSTED)
            .filter(|look| *look > self.now)
        {
            return self.wake(look);
        }
        let refused = self.observed.undelivered.get(&key);
        if let Some(refused) = refused.filter(|r| r.version == *version) {
            // Until the answer to the next try is here, the last one holds. A look at what was delivered that
            // got none is no word on it; one that found something else leaves nothing current.
            if refused.reason != Reason::InProgress {
                self.fail(refused.reason, refused.message.to_string());
            } else if current.is_none() {
                self.state = Some(ReportState::Progressing);
            }
            if refused.retry_at > self.now {
                return self.wake(refused.retry_at);
            }
        }
        self.actions.push(Action::Deliver(Box::new(Deliver {
            copy: secret.copy.as_str().into(),
            app: self.entry.uid.clone(),
            app_name: self.entry.name.clone(),
            sharing: there.map(|d| d.apps.clone()).unwrap_or_default(),
            take_over: self.entry.take_over,
            again: current.is_some(),
            key,
        })));
    }

    fn withdraw(&mut self, key: SecretKey, release: bool) {
        let there = self.observed.delivered.get(&key);
        self.actions.push(Action::Withdraw(Box::new(Withdraw {
            app: self.entry.uid.clone(),
            uid: there.map(|d| d.uid.clone()),
            shared: there.is_some_and(|d| d.apps.iter().any(|app| *app != self.entry.uid)),
            release,
            key,
        })));
    }
}
