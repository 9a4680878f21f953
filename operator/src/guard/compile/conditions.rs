//! Conditions, and what they say no with.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// How many faults of one object a message names. Eight lines are read at a glance; the rest is counted,
/// so that no route outgrows the 32768 characters that a message may have.
const FAULTS_MAX: usize = 8;

/// A no: the reason for programs, the message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Several as one: the first gives the reason.
    pub(super) fn joined(refusals: &[Self]) -> Option<Self> {
        let first = refusals.first()?;
        let mut named: Vec<&str> = Vec::new();
        for refusal in refusals {
            if !named.contains(&refusal.message.as_str()) {
                named.push(&refusal.message);
            }
        }
        let hidden = named.len().saturating_sub(FAULTS_MAX);
        named.truncate(FAULTS_MAX);
        let mut message = named.join("; ");
        if hidden > 0 {
            message = format!("{message}; and {hidden} more");
        }
        Some(Self::new(first.reason, message))
    }
}

/// A condition to be, without its time.
pub(super) struct Wanted {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Wanted {
    pub(super) fn yes(kind: &'static str, reason: &'static str, message: &str) -> Self {
        Self {
            kind,
            holds: true,
            reason,
            message: message.to_owned(),
        }
    }

    pub(super) fn no(kind: &'static str, refusal: &Refusal) -> Self {
        Self {
            kind,
            holds: false,
            reason: refusal.reason,
            message: refusal.message.clone(),
        }
    }

    /// Of a kind that is bad news when it holds.
    pub(super) fn alarm(kind: &'static str, refusal: &Refusal) -> Self {
        Self {
            holds: true,
            ..Self::no(kind, refusal)
        }
    }
}

/// Gives wanted conditions their time: that of now, or of before where the status is the same.
pub(super) fn settle(
    before: &[Condition],
    mut wanted: Vec<Wanted>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted.sort_by_key(|condition| condition.kind);
    wanted
        .into_iter()
        .map(|wanted| {
            let status = if wanted.holds { "True" } else { "False" };
            let since = before
                .iter()
                .find(|old| old.type_ == wanted.kind && old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            Condition {
                type_: wanted.kind.to_owned(),
                status: status.to_owned(),
                reason: wanted.reason.to_owned(),
                message: wanted.message,
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let accepted = |reason| Wanted::yes("Accepted", reason, "");
        let first = settle(&[], vec![accepted("Accepted")], Some(1), at(10));
        let same = settle(&first, vec![accepted("Other")], Some(2), at(20));
        assert_eq!(same[0].last_transition_time, Time(at(10)));
        assert_eq!(same[0].observed_generation, Some(2));
        let refusal = Refusal::new("Invalid", "no");
        let changed = settle(
            &same,
            vec![Wanted::no("Accepted", &refusal)],
            Some(2),
            at(30),
        );
        assert_eq!(changed[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn many_faults_are_counted_where_they_are_not_named() {
        let faults: Vec<Refusal> = (0..FAULTS_MAX + 3)
            .map(|n| Refusal::new("BackendNotFound", format!("fault {n}")))
            .collect();
        let joined = Refusal::joined(&faults).unwrap();
        assert!(
            joined.message.ends_with("fault 7; and 3 more"),
            "{joined:?}"
        );
        assert_eq!(Refusal::joined(&[]), None);
    }
}
