//! When a request is sent once more, and when it is not.
//!
//! A retry helps the one request and costs all others: it is made only where the rule says so, within a
//! budget, and never where the request may have been carried out and must not be twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use shield::{BudgetSettings, RetryBudget, Time};

use super::metrics::RetryMetrics;
use super::pool::SendError;
use super::prepare::PrepareError;
use crate::guard::config::{self, RetryOn};

/// Times that a request is sent again, at most: what three did not give, a fourth rarely does.
pub(super) const ATTEMPTS_MAX: u8 = 3;
/// The first pause before a request is sent again; each further one is twice as long. So a restart of a
/// process is bridged, and three of them add no more than what a person notices.
const PAUSE: Duration = Duration::from_millis(25);
/// Without a word about retries: an endpoint that takes no connection costs nothing, another is asked.
const ATTEMPTS_WITHOUT_RETRIES: u8 = 1;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection was made, so nothing was sent.
    Connect,
    /// The same, for what the guard itself lacks: another endpoint may still have a connection that is kept.
    Lack,
    /// The endpoint says that it did not look at the request, or it was not sent whole.
    Refused,
    /// The connection broke before an answer.
    Reset,
    /// The endpoint answers as a gateway that could not.
    Gateway,
}

/// What a rule says about retries, with what they share.
#[derive(Debug)]
pub(super) struct Retrying {
    wanted: Option<config::Retries>,
    budget: Option<Arc<RetryBudget>>,
    pub(super) metrics: RetryMetrics,
}

/// The budgets of all rules. A rule that stays keeps what its budget has seen.
#[derive(Debug, Default)]
pub(super) struct Budgets(BTreeMap<(String, String), (u32, Arc<RetryBudget>)>);

/// What may be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client is told.
    GiveUp,
    /// It may be sent again after this.
    Again(Duration),
}

impl Failure {
    /// How an attempt failed that brought no answer.
    pub(super) fn of(error: &SendError) -> Self {
        match error {
            SendError::Connect { .. } | SendError::Handshake { .. } => Self::Connect,
            SendError::Lacking { .. } => Self::Lack,
            SendError::Refused { .. } => Self::Refused,
            SendError::Broken { .. } => Self::Reset,
        }
    }

    /// Whether an answer is that of a gateway.
    pub(super) fn of_status(status: StatusCode) -> Option<Self> {
        let is_gateway = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        is_gateway.then_some(Self::Gateway)
    }

    /// Whether the endpoint did not carry it out for sure.
    fn is_unseen(self) -> bool {
        self.is_unconnected() || self == Self::Refused
    }

    fn is_unconnected(self) -> bool {
        matches!(self, Self::Connect | Self::Lack)
    }

    fn is_meant(self, on: &[RetryOn]) -> bool {
        on.contains(&match self {
            Self::Connect | Self::Lack => RetryOn::ConnectFailure,
            Self::Refused => RetryOn::Refused,
            Self::Reset => RetryOn::Reset,
            Self::Gateway => RetryOn::GatewayError,
        })
    }
}

impl Retrying {
    /// What a rule says.
    pub(super) fn prepare(
        wanted: &config::Rule,
        before: &Budgets,
        next: &mut Budgets,
        metrics: RetryMetrics,
    ) -> Result<Self, PrepareError> {
        let Some(retries) = &wanted.retries else {
            return Ok(Self {
                wanted: None,
                budget: None,
                metrics,
            });
        };
        if retries.attempts > ATTEMPTS_MAX {
            let given = retries.attempts;
            return Err(PrepareError::Retries(format!(
                "attempts is {given}, allowed is 0 to {ATTEMPTS_MAX}"
            )));
        }
        let key = (wanted.route.clone(), wanted.name.clone());
        let percent = retries.budget_percent;
        let kept = before.0.get(&key).filter(|(same, _)| *same == percent);
        let budget = if let Some((_, kept)) = kept {
            Arc::clone(kept)
        } else {
            let settings = BudgetSettings {
                percent,
                ..BudgetSettings::default()
            };
            Arc::new(
                RetryBudget::new(settings)
                    .map_err(|fault| PrepareError::Retries(fault.to_string()))?,
            )
        };
        next.0.insert(key, (percent, Arc::clone(&budget)));
        Ok(Self {
            wanted: Some(retries.clone()),
            budget: Some(budget),
            metrics,
        })
    }

    /// Counts a request, of which retries are a share.
    pub(super) fn request(&self, now: Time) {
        if let Some(budget) = &self.budget {
            budget.request(now);
        }
    }

    /// Whether a request of this method may have to be sent again after an endpoint had it, so that it
    /// has to be kept.
    pub(super) fn keeps(&self, method: &Method) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| {
            let is_meant = |on: &RetryOn| match on {
                RetryOn::ConnectFailure => false,
                RetryOn::Refused => true,
                RetryOn::Reset | RetryOn::GatewayError => method.is_idempotent(),
            };
            wanted.attempts > 0 && wanted.on.iter().any(is_meant)
        })
    }

    /// Whether the endpoint that failed may be asked again where there is no other.
    pub(super) fn repeats(&self) -> bool {
        self.wanted.is_some()
    }

    /// What may be done after `sent` sendings, the last of which failed. Spends nothing.
    pub(super) fn verdict(
        &self,
        failure: Failure,
        method: &Method,
        sent: u8,
        chance: f64,
    ) -> Verdict {
        let (attempts, is_meant) = match &self.wanted {
            Some(wanted) => (wanted.attempts, failure.is_meant(&wanted.on)),
            None => (ATTEMPTS_WITHOUT_RETRIES, failure.is_unconnected()),
        };
        let is_safe = failure.is_unseen() || method.is_idempotent();
        if !is_meant || !is_safe || sent > attempts {
            return Verdict::GiveUp;
        }
        // Another endpoint has nothing to do with why this one took no connection.
        if failure.is_unconnected() && sent == 1 {
            return Verdict::Again(Duration::ZERO);
        }
        let longest = PAUSE * 2u32.pow(u32::from(sent.saturating_sub(1)));
        Verdict::Again(longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0))
    }

    /// Spends one retry if the budget has it. The budget spares endpoints that fail: what the guard itself lacks
    /// costs none of it.
    pub(super) fn spend(&self, failure: Failure, now: Time) -> bool {
        let may = failure == Failure::Lack
            || self
                .budget
                .as_ref()
                .is_none_or(|budget| budget.try_retry(now));
        if !may {
            self.metrics.over_budget.inc();
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::config::Rule;

    fn rule(attempts: u8, on: &[RetryOn]) -> Rule {
        Rule {
            route: "ns/route".into(),
            name: "0".into(),
            retries: Some(config::Retries {
                attempts,
                on: on.to_vec(),
                budget_percent: 0,
            }),
            ..Rule::default()
        }
    }

    fn metrics() -> RetryMetrics {
        let counter = |name| prometheus::IntCounter::new(name, "test").unwrap();
        RetryMetrics {
            recovered: counter("recovered"),
            failed: counter("failed"),
            over_budget: counter("over"),
            too_long: counter("long"),
        }
    }

    fn retrying(rule: &Rule, before: &Budgets) -> Result<(Retrying, Budgets), PrepareError> {
        let mut next = Budgets::default();
        let retrying = Retrying::prepare(rule, before, &mut next, metrics())?;
        Ok((retrying, next))
    }

    const ALL: [RetryOn; 4] = [
        RetryOn::ConnectFailure,
        RetryOn::Refused,
        RetryOn::Reset,
        RetryOn::GatewayError,
    ];

    #[test]
    fn what_may_have_been_carried_out_is_not_sent_twice() {
        let (all, _) = retrying(&rule(3, &ALL), &Budgets::default()).unwrap();
        for failure in [Failure::Reset, Failure::Gateway] {
            let verdict = all.verdict(failure, &Method::POST, 1, 0.0);
            assert_eq!(verdict, Verdict::GiveUp);
            let verdict = all.verdict(failure, &Method::PUT, 1, 0.0);
            assert_ne!(verdict, Verdict::GiveUp);
        }
        for failure in [Failure::Connect, Failure::Lack, Failure::Refused] {
            let verdict = all.verdict(failure, &Method::POST, 1, 0.0);
            assert_ne!(verdict, Verdict::GiveUp);
        }
    }

    #[test]
    fn it_is_sent_again_as_often_as_the_rule_says_and_later_each_time() {
        let (two, _) = retrying(&rule(2, &ALL), &Budgets::default()).unwrap();
        let pause = |sent, chance| two.verdict(Failure::Reset, &Method::GET, sent, chance);
        let millis = |millis| Verdict::Again(Duration::from_millis(millis));
        assert_eq!(pause(1, 1.0), millis(25));
        assert_eq!(pause(2, 1.0), millis(50));
        assert_eq!(pause(2, 0.0), millis(25));
        assert_eq!(pause(3, 0.0), Verdict::GiveUp);
        let first = two.verdict(Failure::Connect, &Method::GET, 1, 1.0);
        assert_eq!(first, millis(0));
    }

    #[test]
    fn without_a_word_only_a_connection_that_was_not_made_is_made_elsewhere_once() {
        let silent = Rule {
            retries: None,
            ..rule(0, &[])
        };
        let (silent, _) = retrying(&silent, &Budgets::default()).unwrap();
        let verdict = |failure, sent| silent.verdict(failure, &Method::GET, sent, 0.0);
        assert_eq!(verdict(Failure::Connect, 1), Verdict::Again(Duration::ZERO));
        assert_eq!(verdict(Failure::Connect, 2), Verdict::GiveUp);
        assert_eq!(verdict(Failure::Reset, 1), Verdict::GiveUp);
        assert!(silent.spend(Failure::Reset, Time::ZERO) && !silent.keeps(&Method::GET));
    }

    #[test]
    fn a_budget_that_is_spent_stays_spent_over_a_change_of_the_configuration() {
        let (first, before) = retrying(&rule(1, &ALL), &Budgets::default()).unwrap();
        let now = Time::ZERO;
        let granted = std::iter::repeat_with(|| first.spend(Failure::Reset, now)).take(100);
        // Three per second, over ten seconds.
        assert_eq!(granted.filter(|granted| *granted).count(), 30);
        let (second, _) = retrying(&rule(2, &ALL), &before).unwrap();
        assert!(!second.spend(Failure::Reset, now));
        assert_eq!(second.metrics.over_budget.get(), 1);
    }

    #[test]
    fn what_the_guard_itself_lacks_is_tried_elsewhere_and_costs_no_budget() {
        let (retrying, _) = retrying(&rule(1, &ALL), &Budgets::default()).unwrap();
        let verdict = retrying.verdict(Failure::Lack, &Method::GET, 1, 0.0);
        assert_eq!(verdict, Verdict::Again(Duration::ZERO));
        let now = Time::ZERO;
        assert!((0..1000).all(|_| retrying.spend(Failure::Lack, now)));
        assert!(retrying.spend(Failure::Connect, now));
    }

    #[test]
    fn numbers_out_of_bounds_are_refused_with_what_is_allowed() {
        let error = retrying(&rule(4, &ALL), &Budgets::default()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("attempts is 4, allowed is 0 to 3"),
            "{error}"
        );
    }
}
