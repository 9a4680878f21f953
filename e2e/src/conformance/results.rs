//! What came of the suite's tests, by the feature that each is about.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Why features are not claimed, by their name or its beginning.
const SKIPPED: &str = include_str!("../../conformance/skipped.yaml");
/// What other features build on: a test that names more is about those.
const FOUNDATIONS: [&str; 3] = ["Gateway", "HTTPRoute", "ReferenceGrant"];

/// What came of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// A test that ended, as the suite wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Test {
    /// Its name in the suite.
    #[serde(rename = "test")]
    pub(super) name: String,
    /// What it is about.
    features: Vec<String>,
    /// Those of them that are not claimed.
    unclaimed: Vec<String>,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// The tests in a file of results; a line that is still being written is left for later.
pub(super) fn read(text: &str) -> Result<Vec<Test>> {
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    whole
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("a result: {}", line.trim()))
        })
        .collect()
}

/// What came of a run.
pub(super) struct Results {
    claimed: BTreeMap<String, Vec<Test>>,
    /// Tests that were skipped, by the name under which there is a reason, else by the feature.
    unclaimed: BTreeMap<String, usize>,
    reasons: BTreeMap<String, String>,
}

impl Results {
    /// Of all tests, or of the one that was chosen: the suite skips the others then, whatever is claimed.
    pub(super) fn of(tests: Vec<Test>, only: Option<&str>) -> Result<Self> {
        let reasons = serde_saphyr::from_str(SKIPPED).context("conformance/skipped.yaml")?;
        let mut results = Self {
            claimed: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            reasons,
        };
        let chosen = |test: &Test| only.is_none_or(|only| test.name == only);
        for test in tests.into_iter().filter(chosen) {
            if let (Outcome::Skipped, Some(feature)) = (test.outcome, test.unclaimed.first()) {
                let known = results.reason(feature);
                let name = known.map_or(feature.as_str(), |(name, _)| name).to_owned();
                *results.unclaimed.entry(name).or_default() += 1;
            } else if test.outcome != Outcome::Skipped {
                let about = about(&test.features).to_owned();
                results.claimed.entry(about).or_default().push(test);
            }
        }
        Ok(results)
    }

    /// An error where something failed, or was skipped and nobody knows why.
    pub(super) fn verdict(&self, only: Option<&str>) -> Result<()> {
        let all = self.claimed.values().flatten();
        let failed: Vec<&str> = all
            .clone()
            .filter(|test| test.outcome == Outcome::Failed)
            .map(|test| test.name.as_str())
            .collect();
        if !failed.is_empty() {
            bail!(
                "{} of {} tests failed: {}",
                failed.len(),
                all.count(),
                failed.join(", ")
            );
        }
        if self.claimed.is_empty() {
            bail!(
                "no test was run; see whether the suite has {}",
                only.unwrap_or("any")
            );
        }
        let unknown = self
            .unclaimed
            .keys()
            .filter(|name| !self.reasons.contains_key(*name));
        let unknown: Vec<&str> = unknown.map(String::as_str).collect();
        if only.is_none() && !unknown.is_empty() {
            bail!(
                "e2e/conformance/skipped.yaml gives no reason why these are not claimed: {}",
                unknown.join(", ")
            );
        }
        Ok(())
    }

    /// The reason under the longest name with which the feature's begins, and that name.
    fn reason(&self, feature: &str) -> Option<(&str, &str)> {
        let all = self.reasons.iter();
        let fitting = all.filter(|(name, _)| feature.starts_with(name.as_str()));
        let longest = fitting.max_by_key(|(name, _)| name.len());
        longest.map(|(name, reason)| (name.as_str(), reason.as_str()))
    }
}

/// The feature that a test is about: what it needs besides the foundations, else the kind that it tests.
fn about(features: &[String]) -> &str {
    let special = features
        .iter()
        .rev()
        .find(|feature| !FOUNDATIONS.contains(&feature.as_str()));
    let route = || features.iter().find(|feature| *feature == "HTTPRoute");
    special.or_else(route).map_or("Gateway", String::as_str)
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<46} {:>6}  {:>6}", "CLAIMED", "PASSED", "FAILED")?;
        for (feature, tests) in &self.claimed {
            let failed = tests.iter().filter(|test| test.outcome == Outcome::Failed);
            let names: Vec<&str> = failed.map(|test| test.name.as_str()).collect();
            let passed = tests.len() - names.len();
            let line = format!(
                "{feature:<46} {passed:>6}  {:>6}  {}",
                names.len(),
                names.join(", ")
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        if self.unclaimed.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{:<46} {:>7}  WHY", "NOT CLAIMED", "SKIPPED")?;
        for (name, tests) in &self.unclaimed {
            let reason = self
                .reasons
                .get(name)
                .map_or("no reason is given", String::as_str);
            writeln!(f, "{name:<46} {tests:>7}  {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"test":"Simple","features":["Gateway","HTTPRoute"],"unclaimed":[],"outcome":"Passed"}"#,
        "\n",
        r#"{"test":"Rewrite","features":["Gateway","HTTPRoute","HTTPRoutePathRewrite"],"unclaimed":[],"outcome":"Failed"}"#,
        "\n",
        r#"{"test":"Mirror","features":["Gateway","HTTPRouteRequestMirror"],"unclaimed":["HTTPRouteRequestMirror"],"outcome":"Skipped"}"#,
        "\n",
    );

    #[test]
    fn a_line_that_is_still_being_written_is_left_for_later() {
        let whole = read(LINES).expect("good lines");
        let partly = read(&LINES[..LINES.len() - 1]).expect("good lines");
        assert_eq!((whole.len(), partly.len()), (3, 2));
    }

    #[test]
    fn tests_are_counted_by_what_they_are_about_and_skips_have_reasons() {
        let results = Results::of(read(LINES).expect("good lines"), None).expect("good reasons");
        let names: Vec<_> = results.claimed.keys().map(String::as_str).collect();
        assert_eq!(names, ["HTTPRoute", "HTTPRoutePathRewrite"]);
        let text = results.to_string();
        assert!(
            text.contains("Rewrite") && !text.contains("no reason"),
            "{text}"
        );
    }

    #[test]
    fn where_one_test_was_chosen_the_others_are_not_spoken_of() {
        let of =
            |only| Results::of(read(LINES).expect("good lines"), Some(only)).expect("good reasons");
        let text = of("Simple").to_string();
        assert!(
            text.contains("HTTPRoute ") && !text.contains("Rewrite") && !text.contains("Mirror"),
            "{text}"
        );
        of("Simple").verdict(Some("Simple")).expect("it passed");
        let text = of("Mirror").to_string();
        assert!(
            text.contains("Mirror") && !text.contains("no reason"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_and_a_skip_without_a_reason_are_errors() {
        let of = |lines: &str| {
            Results::of(read(lines).expect("good lines"), None).expect("good reasons")
        };
        let failed = of(LINES).verdict(None).expect_err("one failed");
        assert!(
            failed.to_string().contains("1 of 2 tests failed: Rewrite"),
            "{failed}"
        );
        let passed = LINES.replace("Failed", "Passed");
        of(&passed).verdict(None).expect("all passed");
        let unknown = passed.replace("HTTPRouteRequestMirror", "Unheard");
        let unknown = of(&unknown).verdict(None).expect_err("no reason");
        assert!(unknown.to_string().contains("Unheard"), "{unknown}");
        of("").verdict(None).expect_err("nothing was run");
    }
}
