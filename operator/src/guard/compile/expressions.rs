//! How many regular expressions a route and a namespace may have: every guard holds each of them compiled.
//!
//! Equal expressions count once in a route and once in a namespace, as guards hold them once. The oldest
//! route is asked first, so that those that are there do not suffer from one that is added.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::{Refusal, quoted};
use super::patterns::{self, SMALL};

/// Bytes of one route's expressions, compiled: 256 small ones, two for each match that a route may have. One
/// with a `\w`, which knows all letters, counts as several.
const ROUTE_MAX: usize = 4 << 20;

/// Bytes of one namespace's expressions, compiled: 1,024 small ones. What they remember of requests comes on
/// top, at most 256 MiB per thread, if each is asked in hostile ways.
const NAMESPACE_MAX: usize = 16 << 20;

/// Bytes of all namespaces' expressions, compiled: half of what guards take. Sixteen namespaces with as many as they may have.
const ALL_MAX: usize = 256 << 20;

/// The expressions of all namespaces.
#[derive(Default)]
pub(super) struct Expressions {
    namespaces: BTreeMap<String, Spent>,
    bytes: usize,
}

/// Expressions, and how large they are together.
#[derive(Default)]
struct Spent {
    known: BTreeSet<String>,
    bytes: usize,
}

/// What is left for one route.
pub(super) struct Allowance<'a> {
    all: &'a mut usize,
    namespace: &'a mut Spent,
    route: Spent,
}

impl Expressions {
    /// For the next route of a namespace.
    pub(super) fn of(&mut self, namespace: &str) -> Allowance<'_> {
        Allowance {
            all: &mut self.bytes,
            namespace: self.namespaces.entry(namespace.to_owned()).or_default(),
            route: Spent::default(),
        }
    }
}

impl Allowance<'_> {
    /// Counts an expression, unless it is broken or does not fit; `field` names where it stands.
    pub(super) fn take(&mut self, pattern: &str, field: &str) -> Result<(), Refusal> {
        if self.route.known.contains(pattern) {
            return Ok(());
        }
        // Asked before it is compiled: looking at expressions costs control as well.
        self.fits(pattern, SMALL, field)?;
        let size = patterns::size(pattern);
        let fits = match size {
            Some(size) => self.fits(pattern, size, field).map(|()| size),
            None => Err(broken(pattern, field)),
        };
        let size = match fits {
            Ok(size) => size,
            Err(refusal) => {
                // It was looked at, which is what is left of it.
                self.namespace.bytes += SMALL;
                self.route.bytes += SMALL;
                return Err(refusal);
            }
        };
        if self.namespace.known.insert(pattern.to_owned()) {
            self.namespace.bytes += size;
            *self.all += size;
        }
        self.route.known.insert(pattern.to_owned());
        self.route.bytes += size;
        Ok(())
    }

    fn fits(&self, pattern: &str, size: usize, field: &str) -> Result<(), Refusal> {
        if self.route.bytes.saturating_add(size) > ROUTE_MAX {
            return Err(beyond("one HTTPRoute", ROUTE_MAX, field));
        }
        let is_new = !self.namespace.known.contains(pattern);
        if is_new && self.namespace.bytes.saturating_add(size) > NAMESPACE_MAX {
            return Err(beyond(
                "all HTTPRoutes of a namespace",
                NAMESPACE_MAX,
                field,
            ));
        }
        if is_new && self.all.saturating_add(size) > ALL_MAX {
            return Err(beyond("all HTTPRoutes of the cluster", ALL_MAX, field));
        }
        Ok(())
    }
}

fn broken(pattern: &str, field: &str) -> Refusal {
    Refusal::new(
        "UnsupportedValue",
        format!(
            "{field}: {} is not a regular expression that can be used; use the syntax of RE2, \
             without look-around and back-references, and no repetition of large repetitions",
            quoted(pattern)
        ),
    )
}

fn beyond(whose: &str, most: usize, field: &str) -> Refusal {
    Refusal::new(
        "UnsupportedValue",
        format!(
            "{field}: one regular expression too many: those of {whose} may take {} MiB when they are compiled, \
             which {} small ones do, and the ones before it leave too little; use fewer different ones, \
             smaller repetitions, or types Exact and PathPrefix",
            most >> 20,
            most / SMALL
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(allowance: &mut Allowance<'_>, pattern: &str) -> Result<(), String> {
        let taken = allowance.take(
            pattern,
            "HTTPRoute ns/r: spec.rules[0].matches[0].path.value",
        );
        taken.map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_route_may_have_so_many_expressions_of_which_equal_ones_count_once() {
        let mut all = Expressions::default();
        let mut route = all.of("ns");
        for number in 0..ROUTE_MAX / SMALL {
            take(&mut route, &format!("/a{number}")).unwrap();
        }
        take(&mut route, "/a0").unwrap();
        let refused = take(&mut route, "/one-more").unwrap_err();
        assert!(
            refused.starts_with("HTTPRoute ns/r: spec.rules[0].matches[0].path.value: "),
            "{refused}"
        );
        assert!(
            refused.contains("one HTTPRoute may take 4 MiB"),
            "{refused}"
        );
    }

    #[test]
    fn a_namespace_that_has_its_expressions_takes_none_from_others() {
        let mut all = Expressions::default();
        for route in 0..NAMESPACE_MAX / ROUTE_MAX {
            let mut allowance = all.of("greedy");
            for number in 0..ROUTE_MAX / SMALL {
                take(&mut allowance, &format!("/{route}/{number}")).unwrap();
            }
        }
        let refused = take(&mut all.of("greedy"), "/one-more").unwrap_err();
        assert!(
            refused.contains("of a namespace may take 16 MiB"),
            "{refused}"
        );
        take(&mut all.of("greedy"), "/0/0").unwrap();
        take(&mut all.of("modest"), "/one-more").unwrap();
    }

    #[test]
    fn all_namespaces_together_have_no_more_than_guards_take() {
        let mut all = Expressions {
            bytes: ALL_MAX - SMALL,
            ..Expressions::default()
        };
        take(&mut all.of("a"), "/last").unwrap();
        let refused = take(&mut all.of("b"), "/one-more").unwrap_err();
        assert!(
            refused.contains("of the cluster may take 256 MiB"),
            "{refused}"
        );
        take(&mut all.of("a"), "/last").unwrap();
    }

    #[test]
    fn what_is_large_counts_for_as_much_as_it_takes() {
        let mut all = Expressions::default();
        let mut route = all.of("ns");
        let large = |number: usize| format!("(a{{100}}){{100}}{number}");
        let most = ROUTE_MAX / patterns::size(&large(0)).unwrap();
        for number in 0..most {
            take(&mut route, &large(number)).unwrap();
        }
        take(&mut route, &large(most)).unwrap_err();
    }
}
