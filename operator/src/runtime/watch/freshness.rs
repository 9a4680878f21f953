//! How old each kind's last sign of life is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The signs of life of all watches of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Freshness(Arc<Mutex<Vec<Proof>>>);

/// One kind's last sign of life: a list, an event, a bookmark, or a watch that began.
#[derive(Clone, Debug)]
pub struct Proof(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: String,
    since: Instant,
    /// Microseconds from `since` to the last sign of life, plus one; 0 means none yet.
    last: AtomicU64,
    /// Asks the watch to begin anew where it is.
    nudge: Notify,
}

impl Freshness {
    /// A sign of life is older than this only if two watches in a row failed silently: twice the
    /// time in which one is noticed.
    pub const STALE: Duration = Duration::from_secs(130);

    /// Without a sign of life for this long a process is taken to be wedged and restarted. Far
    /// longer than [`Self::STALE`]: a watch tries again at least every half minute by itself, and
    /// while its API server is gone a restart helps nobody.
    pub const WEDGED: Duration = Duration::from_mins(10);

    /// Nothing is watched yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a kind; the watch renews what is returned. It counts from now on, so a kind that
    /// never gets through becomes stale as well.
    pub fn kind(&self, kind: impl Into<String>) -> Proof {
        let proof = Proof(Arc::new(Inner {
            kind: kind.into(),
            since: Instant::now(),
            last: AtomicU64::new(0),
            nudge: Notify::new(),
        }));
        let mut proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A watch that has ended holds its proof no longer, and nobody waits for news of it.
        proofs.retain(|proof| Arc::strong_count(&proof.0) > 1);
        proofs.push(proof.clone());
        proof
    }

    /// Asks every watch to begin anew where it is, at the cost of one request each: one that is frozen
    /// is not noticed for a minute.
    pub fn nudge(&self) {
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.iter().for_each(|proof| proof.0.nudge.notify_one());
    }

    /// What is watched.
    pub fn kinds(&self) -> Vec<String> {
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.iter().map(|proof| proof.kind().to_owned()).collect()
    }

    /// For `/readyz`: every kind was listed once.
    pub fn listed(&self) -> Result<(), String> {
        self.check(|proof| proof.last().is_none().then(|| "not listed yet".to_owned()))
    }

    /// For `/livez` and `/readyz`: no kind is older than `limit`.
    pub fn fresh(&self, limit: Duration) -> Result<(), String> {
        self.check(|proof| {
            let age = proof.age();
            (age > limit).then(|| format!("no sign of life for {} s", age.as_secs()))
        })
    }

    /// The last sign of life of one kind, if there was one.
    pub fn last(&self, kind: &str) -> Option<std::time::Instant> {
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = proofs.iter().find(|proof| proof.kind() == kind)?;
        proof.last().map(Instant::into_std)
    }

    fn check(&self, wrong: impl Fn(&Proof) -> Option<String>) -> Result<(), String> {
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = proofs
            .iter()
            .filter(|proof| Arc::strong_count(&proof.0) > 1);
        let wrong: Vec<String> = watched
            .filter_map(|proof| Some(format!("{}: {}", proof.kind(), wrong(proof)?)))
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join(", "))
        }
    }
}

impl Proof {
    /// What is watched.
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The last sign of life, if there was one.
    pub fn last(&self) -> Option<Instant> {
        let last = self.0.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.0.since + Duration::from_micros(last))
    }

    /// Time since the last sign of life, or since it was registered.
    pub fn age(&self) -> Duration {
        self.last().unwrap_or(self.0.since).elapsed()
    }

    /// Ends when the watch is asked to begin anew.
    pub(super) async fn nudged(&self) {
        self.0.nudge.notified().await;
    }

    pub(super) fn renew(&self) {
        let passed = u64::try_from(self.0.since.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.0
            .last
            .store(passed.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_unlisted_then_fresh_then_forgotten_with_its_watch() {
        let freshness = Freshness::new();
        assert_eq!(freshness.listed(), Ok(()));
        let proof = freshness.kind("regions");
        assert_eq!(freshness.listed(), Err("regions: not listed yet".into()));
        assert_eq!(freshness.fresh(Freshness::STALE), Ok(()));
        proof.renew();
        assert_eq!(freshness.listed(), Ok(()));
        std::thread::sleep(Duration::from_millis(5));
        let stale = freshness.fresh(Duration::from_millis(1)).unwrap_err();
        assert_eq!(stale, "regions: no sign of life for 0 s");
        drop(proof);
        assert_eq!(freshness.fresh(Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_kind_that_never_gets_through_becomes_stale() {
        let freshness = Freshness::new();
        let _proof = freshness.kind("regions");
        std::thread::sleep(Duration::from_millis(5));
        assert!(freshness.fresh(Duration::from_millis(1)).is_err());
    }
}
