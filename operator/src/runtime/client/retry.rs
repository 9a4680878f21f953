//! Which answers ask for patience, and how much of it we have.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use crate::runtime::{backoff::Backoff, metrics::Verb};

/// First wait where the server names none; it doubles per try.
const FIRST: Duration = Duration::from_millis(200);
/// Longest wait of our own choosing; the server's may be longer.
const LONGEST: Duration = Duration::from_secs(2);

/// How long to wait before sending the request again, or `None` if the answer stands.
///
/// 429 is refused before it is looked at, so repeating is safe for any verb. A 503 may come from
/// a server that is going down halfway: writes are repeated only where it invites them to.
pub(super) fn patience(
    verb: Verb,
    status: StatusCode,
    headers: &HeaderMap,
    backoff: &mut Backoff,
) -> Option<Duration> {
    // The API server sends whole seconds; the date form is not in use there.
    let named = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let reads = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(named.unwrap_or_else(|| backoff.wait())),
        StatusCode::SERVICE_UNAVAILABLE if named.is_some() => named,
        StatusCode::SERVICE_UNAVAILABLE if reads => Some(backoff.wait()),
        _ => None,
    }
}

/// The waits of one request.
pub(super) const fn backoff() -> Backoff {
    Backoff::new(FIRST, LONGEST)
}

/// Repeats are at most a tenth of the requests: a cluster in trouble gets fewer, not more.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

/// What a repeat costs; each request earns one.
const REPEAT: u32 = 10;
/// Ten repeats may be saved up, which also lets a fresh client ride out one burst.
const SAVED: u32 = 10 * REPEAT;

impl Budget {
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(SAVED))
    }

    /// One request was made.
    pub(super) fn earn(&self) {
        let add = |saved: u32| (saved < SAVED).then_some(saved + 1);
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// May one be repeated?
    pub(super) fn spend(&self) -> bool {
        let take = |saved: u32| saved.checked_sub(REPEAT);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(verb: Verb, status: u16, named: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        if let Some(named) = named {
            headers.insert(RETRY_AFTER, named.parse().unwrap());
        }
        patience(
            verb,
            StatusCode::from_u16(status).unwrap(),
            &headers,
            &mut backoff(),
        )
    }

    #[test]
    fn the_server_s_wish_is_honoured_to_the_second() {
        let seven = Some(Duration::from_secs(7));
        assert_eq!(ask(Verb::Create, 429, Some("7")), seven);
        assert_eq!(ask(Verb::Patch, 503, Some("7")), seven);
        assert_eq!(ask(Verb::List, 503, Some(" 7 ")), seven);
    }

    #[test]
    fn without_a_wish_only_what_is_surely_safe_is_repeated_and_soon() {
        for (verb, status) in [(Verb::Create, 429), (Verb::Get, 503), (Verb::List, 429)] {
            assert!(ask(verb, status, None).unwrap() <= FIRST);
        }
        assert!(ask(Verb::Get, 429, Some("Fri, 31 Dec 1999 23:59:59 GMT")).unwrap() <= FIRST);
        assert_eq!(ask(Verb::Create, 503, None), None);
    }

    #[test]
    fn other_answers_stand() {
        for status in [200, 201, 400, 401, 403, 404, 409, 410, 422, 500, 502, 504] {
            assert_eq!(ask(Verb::Get, status, Some("1")), None, "{status}");
        }
    }

    #[test]
    fn repeats_stay_within_a_tenth_of_the_requests() {
        let budget = Budget::new();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        let repeats = (0..1000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(repeats.count(), 100);
    }
}
