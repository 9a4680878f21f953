//! Regular expressions of routes, which anybody may write.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// Bytes that a compiled expression may take. The longest that the API takes, 1024 characters of path,
/// stay far below it; a repetition of repetitions does not, and must not cost every serving guard.
const COMPILED_MAX: usize = 1 << 20;

/// Bytes that one direction of an expression may take, per thread, to remember what it met in requests. The
/// engine's own bound is 2 MiB, which strangers fill by what they ask for; some hundred states are enough for
/// paths, and where they are not, the engine goes on without, still in linear time.
const REMEMBERED_MAX: usize = 128 << 10;

/// Sizes that expressions are told apart by, in bytes: the engine does not say how large one is, but
/// whether it stays below a bound. The first is that of ordinary ones with all that belongs to them.
const SIZES: [usize; 7] = [
    SMALL,
    2 * SMALL,
    4 * SMALL,
    8 * SMALL,
    16 * SMALL,
    32 * SMALL,
    COMPILED_MAX,
];

/// What every expression counts at least.
pub(in crate::guard) const SMALL: usize = 16 << 10;

/// Expressions whose size is remembered, by their digest: those of 64 namespaces that have as many as they may,
/// in 4 MiB. Beyond, all are measured again.
const MEASURED_MAX: usize = 1 << 16;

/// What was measured, so that a turn compiles only what is new; none is of what cannot be used.
static MEASURED: Mutex<BTreeMap<[u8; 32], Option<usize>>> = Mutex::new(BTreeMap::new());

/// Compiles an expression that has to match a text as a whole.
///
/// What serves must compile it in the same way; the linear time of this engine is what makes expressions
/// of strangers harmless.
pub fn whole(pattern: &str) -> Result<regex::Regex, regex::Error> {
    within(pattern, COMPILED_MAX)
}

/// How large an expression is when it is compiled, rounded up; none if it cannot be used.
pub(in crate::guard) fn size(pattern: &str) -> Option<usize> {
    let digest: [u8; 32] = Sha256::digest(pattern.as_bytes()).into();
    let known = measured(|measured| measured.get(&digest).copied());
    known.unwrap_or_else(|| {
        let size = measure(pattern);
        measured(|measured| {
            if measured.len() >= MEASURED_MAX {
                measured.clear();
            }
            measured.insert(digest, size);
        });
        size
    })
}

fn measured<T>(act: impl FnOnce(&mut BTreeMap<[u8; 32], Option<usize>>) -> T) -> T {
    act(&mut MEASURED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The smallest bound first: what is beyond it is given up early.
fn measure(pattern: &str) -> Option<usize> {
    for size in SIZES {
        match within(pattern, size) {
            Ok(_) => return Some(size),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => return None,
        }
    }
    None
}

fn within(pattern: &str, size: usize) -> Result<regex::Regex, regex::Error> {
    // Alone first: `a)(b` would be made valid by what is put around it.
    build(pattern, size)?;
    build(&format!("^(?:{pattern})$"), size)
}

fn build(pattern: &str, size: usize) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(size)
        .dfa_size_limit(REMEMBERED_MAX)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_as_a_whole() {
        let digits = whole("/v[0-9]+|/latest").unwrap();
        assert!(digits.is_match("/v12") && digits.is_match("/latest"));
        assert!(!digits.is_match("/v12/more") && !digits.is_match("/no/latest"));
    }

    #[test]
    fn expressions_that_are_broken_or_huge_are_refused() {
        for bad in ["(", "a)(b", "(a{1000}){1000}", "(?=x)"] {
            assert!(whole(bad).is_err(), "{bad}");
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_expression_counts_by_what_it_takes_when_compiled() {
        assert_eq!(size("/v[0-9]+|/latest"), Some(SMALL));
        for with_letters in [r"/\w+", r"/[\w-]+/[\w-]+"] {
            assert!(size(with_letters).unwrap() <= 8 * SMALL, "{with_letters}");
        }
        let large = size("(a{100}){100}").unwrap();
        assert!(large > 4 * SMALL && large <= COMPILED_MAX, "{large}");
        assert_eq!(size("(a{100}){100}"), Some(large), "measured once");
    }
}
