//! Requests that an API server answered, by verb and resource.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::Client;

/// Asking for access and tokens stores nothing, although it is a POST.
const QUESTIONS: [&str; 5] = [
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "tokenreviews",
    "serviceaccounts/token",
];
const WRITES: [&str; 6] = [
    "POST",
    "PUT",
    "PATCH",
    "APPLY",
    "DELETE",
    "DELETECOLLECTION",
];

/// Counts by `VERB resource/subresource`, with the code where a request was refused. Watches, leases and requests that name no resource
/// (health, metrics, discovery) are left out: they come from everybody all the time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Requests(pub BTreeMap<String, f64>);

impl Requests {
    /// Reads an API server's counters as an administrator.
    pub async fn read(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(vec![])?;
        let text = client
            .request_text(request)
            .await
            .context("read the API server's metrics")?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for line in text.lines() {
            let Some((labels, value)) = line
                .strip_prefix("apiserver_request_total{")
                .and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            let (verb, resource) = (
                label("verb").unwrap_or(""),
                label(",resource").unwrap_or(""),
            );
            if resource.is_empty() || resource == "leases" || matches!(verb, "WATCH" | "CONNECT") {
                continue;
            }
            let mut name = match label("subresource").unwrap_or("") {
                "" => format!("{verb} {resource}"),
                sub => format!("{verb} {resource}/{sub}"),
            };
            // What was refused stands apart, so that a loop of conflicts shows.
            let code = label("code").unwrap_or("");
            if code.starts_with(['4', '5']) {
                name = format!("{name} {code}");
            }
            *counts.entry(name).or_default() += value.parse().unwrap_or(0.0);
        }
        Self(counts)
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let new = self.0.iter().map(|(name, count)| {
            (
                name.clone(),
                count - before.0.get(name).copied().unwrap_or(0.0),
            )
        });
        Self(new.filter(|(_, count)| *count > 0.0).collect())
    }

    /// All of them.
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// Those that changed something besides events.
    pub fn writes(&self) -> f64 {
        let is_write = |name: &str| {
            let (verb, resource) = name.split_once(' ').unwrap_or((name, ""));
            let taken = !resource.contains(' ');
            taken
                && WRITES.contains(&verb)
                && resource != "events"
                && !QUESTIONS.contains(&resource)
        };
        self.0
            .iter()
            .filter(|(name, _)| is_write(name))
            .map(|(_, count)| count)
            // A sum of nothing would be printed as -0.
            .fold(0.0, std::ops::Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="status",verb="PATCH",version="v1"} 7
apiserver_request_total{code="201",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="",verb="POST",version="v1"} 3
apiserver_request_total{code="409",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="",verb="POST",version="v1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="apps",resource="deployments",scope="cluster",subresource="",verb="LIST",version="v1"} 2
apiserver_request_total{code="0",component="apiserver",dry_run="",group="apps",resource="deployments",scope="cluster",subresource="",verb="WATCH",version="v1"} 9
apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/metrics",verb="GET",version=""} 9
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 9
"#;

    #[test]
    fn counts_by_verb_and_resource_and_leaves_out_what_everybody_does() {
        let all = Requests::parse(TEXT);
        let expected = [
            ("LIST deployments", 2.0),
            ("PATCH deployments/status", 7.0),
            ("POST deployments", 3.0),
            ("POST deployments 409", 1.0),
        ];
        assert_eq!(
            all,
            Requests(
                expected
                    .map(|(name, count)| (name.to_owned(), count))
                    .into()
            )
        );
        assert!((all.total() - 13.0).abs() < 0.1);
        assert!((all.writes() - 10.0).abs() < 0.1);
    }

    #[test]
    fn shows_only_what_is_new() {
        let all = Requests::parse(TEXT);
        assert_eq!(all.since(&all), Requests::default());
    }
}
