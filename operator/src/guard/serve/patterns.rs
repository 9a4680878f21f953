//! Regular expressions of routes, each compiled once however many matches have it.
//!
//! A configuration says a rule's matches again for every port, listener and hostname, and the next
//! configuration says nearly all of them once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use super::prepare::PrepareError;
use crate::guard::compile::{pattern_size, whole_pattern};

/// Bytes that all expressions may take: 32,768 ordinary ones, or 512 of the largest. Guard control accepts half
/// of it, by the same measure; this is for files, and for what it overlooks: a guard out of memory serves nobody.
pub(super) const PATTERNS_BYTES_MAX: usize = 512 << 20;

/// One expression. A clone of a [`Regex`] itself would have its own memory for searches; here all share one.
pub(super) type Pattern = Arc<Regex>;

/// Those of a configuration, by their text.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Known>);

#[derive(Clone, Debug)]
struct Known {
    pattern: Pattern,
    /// What it takes at most.
    bytes: usize,
}

/// Those of a configuration that is being made ready.
#[derive(Debug)]
pub(super) struct Compiling<'a> {
    before: &'a Patterns,
    known: BTreeMap<String, Known>,
    left: usize,
}

impl Patterns {
    /// For the next configuration, which takes over what it has from this one.
    pub(super) fn next(&self) -> Compiling<'_> {
        self.within(PATTERNS_BYTES_MAX)
    }

    fn within(&self, bytes_max: usize) -> Compiling<'_> {
        Compiling {
            before: self,
            known: BTreeMap::new(),
            left: bytes_max,
        }
    }
}

impl Compiling<'_> {
    /// An expression, as it was compiled when the route was accepted.
    pub(super) fn get(&mut self, expression: &str) -> Result<Pattern, PrepareError> {
        if let Some(known) = self.known.get(expression) {
            return Ok(Arc::clone(&known.pattern));
        }
        let known = match self.before.0.get(expression) {
            Some(known) => known.clone(),
            None => Known::compile(expression)?,
        };
        let left = self.left.checked_sub(known.bytes);
        self.left = left.ok_or(PrepareError::Patterns)?;
        let pattern = Arc::clone(&known.pattern);
        self.known.insert(expression.to_owned(), known);
        Ok(pattern)
    }

    /// All of them.
    pub(super) fn end(self) -> Patterns {
        Patterns(self.known)
    }
}

impl Known {
    fn compile(expression: &str) -> Result<Self, PrepareError> {
        let pattern = whole_pattern(expression).map_err(|source| PrepareError::Regex {
            expression: expression.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self {
            pattern: Arc::new(pattern),
            // One that was compiled has a size.
            bytes: pattern_size(expression).unwrap_or(PATTERNS_BYTES_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::compile::SMALL_PATTERN;

    #[test]
    fn an_expression_is_compiled_once_and_taken_over_by_the_next_configuration() {
        let nothing = Patterns::default();
        let mut first = nothing.next();
        let one = first.get("/a[0-9]+").unwrap();
        let again = first.get("/a[0-9]+").unwrap();
        assert!(Arc::ptr_eq(&one, &again));
        assert!(one.is_match("/a1") && !one.is_match("/a1/b"));
        first.get("/b").unwrap();
        let first = first.end();
        let mut second = first.next();
        assert!(Arc::ptr_eq(&one, &second.get("/a[0-9]+").unwrap()));
        assert_eq!(second.end().0.len(), 1, "what nobody has any more is gone");
    }

    #[test]
    fn expressions_that_take_too_much_together_are_refused_and_repeated_ones_count_once() {
        let nothing = Patterns::default();
        let mut compiling = nothing.within(2 * SMALL_PATTERN);
        for _ in 0..10 {
            compiling.get("/a[0-9]+").unwrap();
        }
        compiling.get("/b[0-9]+").unwrap();
        let error = compiling.get("/c[0-9]+").unwrap_err();
        assert!(matches!(error, PrepareError::Patterns), "{error}");
        assert!(error.to_string().contains("512 MiB"), "{error}");
        assert!(compiling.get("/a[0-9]+").is_ok(), "it is there already");
        let large = nothing.within(4 * SMALL_PATTERN).get("(a{100}){100}");
        assert!(matches!(large, Err(PrepareError::Patterns)));
    }
}
