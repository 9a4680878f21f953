//! Regular expressions of routes, which anybody may write.

/// Bytes that a compiled expression may take. The longest that the API takes, 1024 characters of path,
/// stay far below it; a repetition of repetitions does not, and must not cost every serving guard.
const COMPILED_MAX: usize = 1 << 20;

/// Compiles an expression that has to match a text as a whole.
///
/// What serves must compile it in the same way; the linear time of this engine is what makes expressions
/// of strangers harmless.
pub fn whole(pattern: &str) -> Result<regex::Regex, regex::Error> {
    // Alone first: `a)(b` would be made valid by what is put around it.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

fn build(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(COMPILED_MAX)
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
        }
    }
}
