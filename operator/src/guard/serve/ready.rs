//! What is known about refusals before they happen: under what each is counted, and what it says. Made at the
//! first refusal by a rule for a reason, so that all others cost two copies of a pointer.

use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;
use prometheus::IntCounter;

use super::answer::said;
use super::language::Language;
use super::metrics::RouteMetrics;
use super::protection::{Shed, ShedReason};

/// The refusals of one rule of a route, by the rules of its policy.
#[derive(Debug)]
pub(super) struct Refusals(Vec<OfRule>);

#[derive(Debug)]
struct OfRule {
    rule: Arc<str>,
    by_reason: [OnceLock<Ready>; ShedReason::COUNT],
}

/// A refusal but for the moment when to come again.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) counter: IntCounter,
    problem: Bytes,
    chinese: Bytes,
    english: Bytes,
}

impl Refusals {
    /// Those of the named rules.
    pub(super) fn of(rules: impl Iterator<Item = Arc<str>>) -> Self {
        let of_rule = |rule| OfRule {
            rule,
            by_reason: std::array::from_fn(|_| OnceLock::new()),
        };
        Self(rules.map(of_rule).collect())
    }

    /// The refusal by this rule for this reason; none by a rule that is not of the policy.
    pub(super) fn get(&self, shed: &Shed, metrics: &RouteMetrics) -> Option<&Ready> {
        let of_rule = self.0.iter().find(|of| of.rule == shed.rule)?;
        let slot = of_rule.by_reason.get(shed.reason.place())?;
        Some(slot.get_or_init(|| {
            let text = |page| Bytes::from(said(shed.reason.told(), &shed.rule, page));
            Ready {
                counter: metrics.refused_by(&shed.rule, shed.reason.name()),
                problem: text(None),
                chinese: text(Some(Language::Chinese)),
                english: text(Some(Language::English)),
            }
        }))
    }
}

impl Ready {
    /// What is said, as a page in this language or as a problem document.
    pub(super) fn text(&self, page: Option<Language>) -> Bytes {
        let text = match page {
            None => &self.problem,
            Some(Language::Chinese) => &self.chinese,
            Some(Language::English) => &self.english,
        };
        text.clone()
    }
}
