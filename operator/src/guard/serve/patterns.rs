//! Regular expressions of routes, each compiled once however many matches have it.
//!
//! A configuration says a rule's matches again for every port, listener and hostname, and the next
//! configuration says nearly all of them once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::prepare::PrepareError;
use crate::guard::compile::whole_pattern;

/// Bytes that all expressions may take: 32,768 ordinary ones, or 512 of the largest. Guard control accepts half
/// of it, in finer steps; this is for files, and for what it overlooks: a guard out of memory serves nobody.
pub(super) const PATTERNS_BYTES_MAX: usize = 512 << 20;

/// What an expression may take, in bytes: the library tells only whether one stays below a bound. Ordinary ones
/// stay below the first, and none is compiled that does not stay below the last.
const SIZES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

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
            bytes: size(expression),
        })
    }
}

/// The smallest of [`SIZES`] that an expression stays below; too small ones are given up early.
fn size(expression: &str) -> usize {
    let [small, middle, large, most] = SIZES;
    let fits = |bytes: &usize| {
        let mut builder = RegexBuilder::new(expression);
        builder.size_limit(*bytes).build().is_ok()
    };
    let smaller = [small, middle, large].into_iter().find(fits);
    smaller.unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let [small, ..] = SIZES;
        let nothing = Patterns::default();
        let mut compiling = nothing.within(2 * small);
        for _ in 0..10 {
            compiling.get("/a[0-9]+").unwrap();
        }
        compiling.get("/b[0-9]+").unwrap();
        let error = compiling.get("/c[0-9]+").unwrap_err();
        assert!(matches!(error, PrepareError::Patterns), "{error}");
        assert!(error.to_string().contains("512 MiB"), "{error}");
        assert!(compiling.get("/a[0-9]+").is_ok(), "it is there already");
        let large = nothing.within(4 * small).get("(a{100}){100}");
        assert!(matches!(large, Err(PrepareError::Patterns)));
    }
}
