//! What the agent learns from what came of its actions.

use crds::{ContentHash, Reason, Uid};
use plan::object::ObjectKey;
use plan::realize::{Access, Delivered, Namespace, Refused, SecretKey, Seen, Settled, Undelivered};

use super::{ALLOWED_FOR, DENIED_FOR, RETRY, SECRET_RETRY, State};
use crate::agent::member::{Asker, Outcome};

impl State {
    /// Takes in what came of the actions. Returns whether any failed.
    #[expect(
        clippy::too_many_lines,
        reason = "a flat table, one arm for each outcome; it reads best whole"
    )]
    pub(crate) fn learn(&mut self, outcomes: Vec<(Asker, Outcome)>, now: i64) -> bool {
        let mut failed = false;
        for (asker, outcome) in outcomes {
            match outcome {
                Outcome::Applied {
                    key,
                    hash,
                    seen,
                    repair,
                } => {
                    self.end_failure(&asker);
                    self.learn_applied(&asker, key, hash, *seen, repair.then_some(now));
                    self.again(&asker, now);
                }
                Outcome::Refused {
                    key,
                    hash,
                    reason,
                    message,
                    transient,
                } => {
                    failed |= transient;
                    let namespace = key.namespace.clone();
                    let message = message.into();
                    let refused = Refused {
                        hash,
                        reason,
                        message,
                        retry_at: now,
                    };
                    self.learn_refused(&asker, key, refused);
                    // Somebody may have taken the agent's own rights in the namespace away.
                    if reason == Reason::AgentForbidden {
                        self.rebind(&namespace, now);
                    }
                    self.again(&asker, now);
                }
                Outcome::Deleted { key, uid, gone } => {
                    self.note_eviction(&key, now);
                    self.observed.going(&key, &uid);
                    let now_there = self.observed.objects.get(&key);
                    let seen = now_there.is_some_and(|seen| seen.uid == uid);
                    if gone && seen {
                        self.dirty.extend(self.observed.lose(&key));
                    }
                    if gone {
                        self.observed.gone(&key, &uid);
                    }
                    self.end_failure(&asker);
                    // Of what is not seen, the watch does not tell when it is gone.
                    let pause = if gone || seen { 0 } else { RETRY };
                    self.again(&asker, now + pause);
                    self.unsaved = true;
                }
                Outcome::LetGo(key) => {
                    self.end_failure(&asker);
                    self.dirty.extend(self.observed.let_go(&key));
                    self.again(&asker, now);
                    self.unsaved = true;
                }
                outcome @ (Outcome::Delivered { .. }
                | Outcome::Undelivered { .. }
                | Outcome::Withdrawn { .. }) => {
                    failed |= self.learn_secret(outcome, now);
                }
                Outcome::Access(namespace, kind, access) => {
                    self.end_failure(&asker);
                    let hold = if access == Access::Allowed {
                        ALLOWED_FOR
                    } else {
                        DENIED_FOR
                    };
                    self.access_until
                        .insert((namespace.clone(), kind), now + hold);
                    if self
                        .observed
                        .access
                        .insert((namespace.clone(), kind), access)
                        != Some(access)
                    {
                        self.touch_namespace(&namespace);
                    }
                }
                Outcome::Nudged => self.end_failure(&asker),
                Outcome::NamespaceReady(name) => {
                    self.end_failure(&asker);
                    self.see_namespace(&name, Namespace::Ready);
                    self.bound(&name);
                }
                Outcome::Late => self.again(&asker, now),
                Outcome::Unbound(namespace, why) => {
                    failed = true;
                    tracing::warn!(why, "rights in a namespace are set up anew");
                    self.rebind(&namespace, now);
                    self.begin_failure(&asker, &why, true);
                    self.again(&asker, now + RETRY);
                }
                Outcome::Failed { why, forbidden } => {
                    failed = true;
                    tracing::warn!(why, "an action failed and is tried again");
                    self.begin_failure(&asker, &why, forbidden);
                    self.again(&asker, now + RETRY);
                }
            }
        }
        // What was nobody's may have found somebody.
        self.unsorted |= !self.abandoned.is_empty();
        failed
    }

    /// Takes in an object as it looks right after it was applied, or repaired at that time.
    pub(super) fn learn_applied(
        &mut self,
        asker: &Asker,
        key: ObjectKey,
        hash: ContentHash,
        seen: Seen,
        repaired: Option<i64>,
    ) {
        let old = self.observed.settled.remove(&key);
        let mut settled = Settled {
            uid: seen.uid.clone(),
            app: asker.app().cloned(),
            hash,
            stamp: seen.stamp.clone(),
            repairs: old.map(|old| old.repairs).unwrap_or_default(),
        };
        repaired.into_iter().for_each(|at| settled.repaired(at));
        self.observed.settled.insert(key.clone(), settled);
        self.observed.refused.remove(&key);
        self.tries.remove(&key);
        self.dirty.extend(seen.owner.clone());
        self.dirty.extend(self.observed.see(key, seen));
        self.unsaved = true;
    }

    /// Takes in what was refused just now, to be tried again after a pause that doubles.
    pub(super) fn learn_refused(&mut self, asker: &Asker, key: ObjectKey, mut refused: Refused) {
        let Some(app) = asker.app() else { return };
        let entry = self.tries.entry(key.clone());
        let (whose, tries) = entry.or_insert_with(|| (app.clone(), 0));
        whose.clone_from(app);
        *tries = (*tries + 1).min(6);
        // 1, 2, 4 … 32 s: a mended right or a returned server is noticed within half a minute.
        refused.retry_at += 500 << *tries;
        self.observed.refused.insert(key, refused);
    }

    fn learn_withdrawn(&mut self, key: SecretKey, app: Uid) {
        if let Some(delivered) = self.observed.delivered.get_mut(&key) {
            delivered.apps.remove(&app);
            // Whoever still names it marks it as its own.
            delivered.looked = 0;
            self.dirty.extend(delivered.apps.iter().cloned());
            if delivered.apps.is_empty() {
                self.observed.delivered.remove(&key);
            }
        }
        self.observed.withdrawn.insert((key, app.clone()));
        self.dirty.insert(app);
    }

    /// Takes in what came of a Secret. Returns whether it failed.
    pub(super) fn learn_secret(&mut self, outcome: Outcome, now: i64) -> bool {
        match outcome {
            Outcome::Delivered {
                key,
                app,
                uid,
                version,
            } => {
                self.observed.undelivered.remove(&key);
                self.observed.withdrawn.remove(&(key.clone(), app.clone()));
                let before = self.observed.delivered.remove(&key);
                let mut apps = before.as_ref().map(|d| d.apps.clone()).unwrap_or_default();
                apps.insert(app.clone());
                let delivered = Delivered {
                    uid,
                    version,
                    apps,
                    looked: now,
                };
                // Merely looked at again: nothing to remember.
                let known = before.is_some_and(|before| {
                    Delivered {
                        looked: now,
                        ..before
                    } == delivered
                });
                self.observed.delivered.insert(key, delivered);
                self.dirty.insert(app);
                if known {
                    return false;
                }
            }
            Outcome::Undelivered {
                key,
                app,
                version,
                reason,
                message,
                differs,
            } => {
                if reason == Reason::AgentForbidden {
                    self.rebind(&key.0, now);
                }
                let before = self.observed.delivered.get_mut(&key);
                if let Some(before) = before.filter(|d| differs && !d.version.is_empty()) {
                    before.version = Box::default();
                    self.unsaved = true;
                }
                let refused = Undelivered {
                    version,
                    reason,
                    message: message.into(),
                    retry_at: now + SECRET_RETRY,
                };
                self.observed.undelivered.insert(key, refused);
                self.dirty.insert(app);
                return reason == Reason::InProgress;
            }
            Outcome::Withdrawn { key, app } => self.learn_withdrawn(key, app),
            Outcome::Applied { .. }
            | Outcome::Refused { .. }
            | Outcome::Deleted { .. }
            | Outcome::LetGo(_)
            | Outcome::Access(..)
            | Outcome::Unbound(..)
            | Outcome::Late
            | Outcome::Nudged
            | Outcome::NamespaceReady(_)
            | Outcome::Failed { .. } => return false,
        }
        self.unsaved = true;
        false
    }
}
