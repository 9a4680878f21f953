//! Conditions, and what they say no with.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// How many faults of one object a message names. Eight lines are read at a glance; the rest is counted.
const FAULTS_MAX: usize = 8;
/// Characters of one of them: a namespace and a name, 316 characters, what was written, a sentence.
const FAULT_MAX: usize = 1024;
/// Characters of what somebody wrote, where it is shown again: enough to find it.
const QUOTED_MAX: usize = 200;
/// Characters of a message, as the API bounds it: a longer one makes it refuse the whole status.
const MESSAGE_MAX: usize = 32_768;

/// A text of at most so many characters; an ellipsis stands for the rest.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.chars().nth(most).is_none() {
        return Cow::Borrowed(text);
    }
    let kept = text.chars().take(most.saturating_sub(1));
    Cow::Owned(kept.chain(['…']).collect())
}

/// What somebody wrote, as messages show it.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", cut(text, QUOTED_MAX))
}

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
        let named: Vec<Cow<'_, str>> = named
            .into_iter()
            .map(|fault| cut(fault, FAULT_MAX))
            .collect();
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
                message: cut(&wanted.message, MESSAGE_MAX).into_owned(),
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

    #[test]
    fn a_message_is_never_longer_than_the_api_takes_it() {
        // Some of two bytes: a cut within one would be no text.
        let long = Refusal::new("Invalid", "é".repeat(5000));
        let other = Refusal::new("Invalid", "fault");
        let joined = Refusal::joined(&[long, other]).unwrap();
        assert!(joined.message.ends_with("é…; fault"), "{joined:?}");
        assert_eq!(joined.message.chars().count(), FAULT_MAX + "; fault".len());
        let refusal = Refusal::new("Invalid", "é".repeat(40_000));
        let settled = settle(&[], vec![Wanted::no("Accepted", &refusal)], None, at(1));
        assert_eq!(settled[0].message.chars().count(), MESSAGE_MAX);
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
    }
}
