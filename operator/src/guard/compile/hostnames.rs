//! Which hostnames two have in common, and which of them come first.

use super::super::config::Hostname;

/// What both cover: the narrower of the two, if one lies in the other.
pub(super) fn intersection(one: &Hostname, other: &Hostname) -> Option<Hostname> {
    if within(one, other) {
        Some(one.clone())
    } else if within(other, one) {
        Some(other.clone())
    } else {
        None
    }
}

/// Orders hostnames from the most specific: exact ones, then those with more labels behind the star, then
/// any; by their text where that leaves a choice.
pub(super) fn rank(hostname: &Hostname) -> (u8, usize, String) {
    let text = hostname.to_string();
    match hostname {
        Hostname::Exact(_) => (0, 0, text),
        Hostname::Below(suffix) => (1, usize::MAX - suffix.matches('.').count(), text),
        Hostname::Any => (2, 0, text),
    }
}

/// Whether all that `inner` covers is covered by `outer`.
fn within(inner: &Hostname, outer: &Hostname) -> bool {
    match (inner, outer) {
        (_, Hostname::Any) => true,
        (Hostname::Exact(host), Hostname::Exact(_) | Hostname::Below(_)) => outer.covers(host),
        (Hostname::Below(inner), Hostname::Below(outer)) => inner.ends_with(outer.as_str()),
        (Hostname::Any, Hostname::Exact(_) | Hostname::Below(_))
        | (Hostname::Below(_), Hostname::Exact(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        Hostname::from(text.to_owned())
    }

    fn common(one: &str, other: &str) -> Option<String> {
        let there = intersection(&host(one), &host(other));
        let back = intersection(&host(other), &host(one));
        assert_eq!(there, back, "{one} and {other}");
        there.map(|hostname| hostname.to_string())
    }

    #[test]
    fn what_two_hostnames_have_in_common_is_the_narrower_of_them() {
        for (one, other, both) in [
            ("", "", Some("")),
            ("", "*.example.com", Some("*.example.com")),
            ("", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("A.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "badexample.com", None),
            ("*.b.example.com", "*.badexample.com", None),
            ("a.example.com", "b.example.com", None),
        ] {
            assert_eq!(common(one, other).as_deref(), both, "{one} and {other}");
        }
    }

    #[test]
    fn the_most_specific_hostname_comes_first() {
        let mut hosts = ["", "*.com", "a.com", "*.very-long-name.com", "*.a.b.com"].map(host);
        hosts.sort_by_key(rank);
        let order = hosts.map(|hostname| hostname.to_string());
        assert_eq!(
            order,
            ["a.com", "*.a.b.com", "*.very-long-name.com", "*.com", ""]
        );
    }
}
