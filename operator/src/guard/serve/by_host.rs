//! Values by hostname, found from the most specific to the least.

use std::collections::HashMap;

use crate::guard::config::Hostname;

/// Values by hostname.
#[derive(Debug)]
pub(super) struct ByHost<T> {
    exact: HashMap<String, T>,
    /// By the suffix, which begins with a dot.
    below: HashMap<String, T>,
    any: Option<T>,
}

impl<T> ByHost<T> {
    /// Of two values for one hostname the first stays.
    pub(super) fn collect(values: impl IntoIterator<Item = (Hostname, T)>) -> Self {
        let mut by_host = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: None,
        };
        for (hostname, value) in values {
            match hostname {
                Hostname::Any => {
                    by_host.any.get_or_insert(value);
                }
                Hostname::Exact(exact) => {
                    by_host.exact.entry(exact).or_insert(value);
                }
                Hostname::Below(suffix) => {
                    by_host.below.entry(suffix).or_insert(value);
                }
            }
        }
        by_host
    }

    /// All that cover a host, the most specific first.
    pub(super) fn covering<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a T> {
        let below = (!self.below.is_empty())
            .then(|| suffixes(host).filter_map(|suffix| self.below.get(suffix)));
        self.exact
            .get(host)
            .into_iter()
            .chain(below.into_iter().flatten())
            .chain(&self.any)
    }
}

/// `.b.c` and `.c` for `a.b.c`.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.')
        .filter(|(at, _)| *at > 0)
        .map(|(at, _)| &host[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_hostname_comes_first_and_the_others_after_it() {
        let names = ["", "*.c", "*.b.c", "a.b.c", "*.x"];
        let all = ByHost::collect(names.map(|name| (Hostname::from(name.to_owned()), name)));
        let covering: Vec<_> = all.covering("a.b.c").copied().collect();
        assert_eq!(covering, ["a.b.c", "*.b.c", "*.c", ""]);
        let covering: Vec<_> = all.covering("b.c").copied().collect();
        assert_eq!(covering, ["*.c", ""]);
        assert_eq!(all.covering(".c").copied().collect::<Vec<_>>(), [""]);
    }
}
