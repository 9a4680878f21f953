//! What a route does, read once and whatever its parents are.

use std::time::Duration;

use super::super::config::{Backend, Match, Rule};
use super::super::gateway::{HttpRoute, RouteRule, RouteTimeouts};
use super::backends::{self, ServiceUse};
use super::conditions::Refusal;
use super::durations;
use super::expressions::Allowance;
use super::filters::{self, Place};
use super::index::Index;
use super::matches;
use super::name::ObjectName;

/// A rule of a route.
pub(super) struct RouteRules {
    /// Those that can be matched, in the order of the route.
    pub(super) rules: Vec<ReadRule>,
    /// Why nothing of it can be done, if so.
    pub(super) invalid: Option<Refusal>,
    /// Why some of it cannot be done, if only some.
    pub(super) partially_invalid: Option<Refusal>,
    /// Why some of its references lead nowhere.
    pub(super) unresolved: Option<Refusal>,
}

/// A rule that can be matched.
pub(super) struct ReadRule {
    pub(super) rule: Rule,
    /// Its name in the route, if it has one.
    pub(super) section: Option<String>,
    pub(super) matches: Vec<Match>,
    pub(super) used: Vec<ServiceUse>,
}

/// Reads the rules of a route.
///
/// A rule that cannot be done as it is written answers 500 to what it matches: without it, requests would
/// fall to a wider rule, past a filter such as authentication that somebody relies on. Only where not even
/// its matches can be understood is it left out.
pub(super) fn read(
    name: &ObjectName,
    route: &HttpRoute,
    index: &Index<'_>,
    mut allowance: Allowance<'_>,
) -> RouteRules {
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    let mut dropped = Vec::new();
    let mut unresolved = Vec::new();
    for (number, rule) in route.spec.rules.iter().enumerate() {
        let field = format!("HTTPRoute {name}: spec.rules[{number}]");
        let mut fault = None;
        match matches::read(&rule.matches, &field, &mut allowance) {
            Ok(matches) => {
                let place = Placed {
                    name,
                    number,
                    field: &field,
                    index,
                };
                let (read, missing) = one(rule, matches, &place, &mut fault);
                rules.push(read);
                unresolved.extend(missing);
            }
            Err(refusal) => fault = Some(refusal),
        }
        if let Some(refusal) = fault {
            dropped.push(number.to_string());
            faults.push(refusal);
        }
    }
    let joined = Refusal::joined(&faults);
    let all = faults.len() == route.spec.rules.len();
    let (invalid, partially_invalid) = if all { (joined, None) } else { (None, joined) };
    let partially_invalid = partially_invalid.map(|refusal| Refusal {
        // The words at the beginning are the API's.
        message: format!("Dropped Rule {}: {}", dropped.join(", "), refusal.message),
        reason: "UnsupportedValue",
    });
    RouteRules {
        rules,
        invalid,
        partially_invalid,
        unresolved: Refusal::joined(&unresolved),
    }
}

/// Where a rule stands.
struct Placed<'a> {
    name: &'a ObjectName,
    number: usize,
    field: &'a str,
    index: &'a Index<'a>,
}

fn one(
    rule: &RouteRule,
    matches: Vec<Match>,
    place: &Placed<'_>,
    fault: &mut Option<Refusal>,
) -> (ReadRule, Vec<Refusal>) {
    let Placed {
        name,
        number,
        field,
        index,
    } = *place;
    let mut read = ReadRule {
        rule: Rule {
            route: name.to_string(),
            name: rule.name.clone().unwrap_or_else(|| number.to_string()),
            ..Rule::default()
        },
        section: rule.name.clone(),
        matches,
        used: Vec::new(),
    };
    let filters = filters::read(
        &rule.filters,
        Place::Rule(&read.matches),
        &format!("{field}.filters"),
    );
    let mut unresolved = Vec::new();
    let mut unsupported = Vec::new();
    for (at, reference) in rule.backend_refs.iter().enumerate() {
        let field = format!("{field}.backendRefs[{at}]");
        let resolved = backends::resolve(reference, &name.namespace, &read.matches, index, &field);
        read.rule.backends.extend(resolved.backend);
        read.used.extend(resolved.used);
        unresolved.extend(resolved.unresolved);
        unsupported.extend(resolved.unsupported);
    }
    match (filters, timeouts(rule.timeouts.as_ref(), field)) {
        (Ok(filters), Ok((request, backend))) => {
            read.rule.filters = filters;
            read.rule.request_timeout = request;
            read.rule.backend_timeout = backend;
        }
        (filters, timeouts) => {
            unsupported.extend(filters.err());
            unsupported.extend(timeouts.err());
            read.rule.backends = vec![nowhere()];
            read.used.clear();
        }
    }
    *fault = Refusal::joined(&unsupported);
    (read, unresolved)
}

/// What answers an error.
fn nowhere() -> Backend {
    Backend {
        weight: 1,
        service: None,
        filters: Vec::new(),
    }
}

/// How long a request may take, and how long a backend.
type Timeouts = (Option<Duration>, Option<Duration>);

fn timeouts(timeouts: Option<&RouteTimeouts>, field: &str) -> Result<Timeouts, Refusal> {
    let Some(timeouts) = timeouts else {
        return Ok((None, None));
    };
    let read = |text: &Option<String>, name: &str| match text {
        None => Ok(None),
        Some(text) => match durations::parse(text) {
            // Zero means no end.
            Some(span) => Ok(Some(span).filter(|span| !span.is_zero())),
            None => Err(Refusal::new(
                "UnsupportedValue",
                format!(
                    "{field}.timeouts.{name}: {text:?} is no duration; write one like 10s or 1m30s"
                ),
            )),
        },
    };
    let request = read(&timeouts.request, "request")?;
    let backend = read(&timeouts.backend_request, "backendRequest")?;
    if let (Some(request), Some(backend)) = (request, backend)
        && backend > request
    {
        return Err(Refusal::new(
            "UnsupportedValue",
            format!(
                "{field}.timeouts.backendRequest: longer than timeouts.request, within which it has to \
                 end; shorten it or lengthen the other"
            ),
        ));
    }
    Ok((request, backend))
}
