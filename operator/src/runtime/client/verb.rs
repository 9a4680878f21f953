//! What a request asks for, read off its method, path and query.

use http::{Method, Uri};

use crate::runtime::metrics::Verb;

/// Classifies a request as the API server's own metrics would.
pub(super) fn verb(method: &Method, uri: &Uri) -> Verb {
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ if watches(uri.query().unwrap_or_default()) => Verb::Watch,
        _ if is_collection(uri.path()) => Verb::List,
        _ => Verb::Get,
    }
}

fn watches(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair == "watch=true" || pair == "watch=1")
}

/// `/api/v1/[namespaces/NS/]RESOURCE` and `/apis/GROUP/VERSION/...` alike.
fn is_collection(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let version = match parts.next() {
        Some("api") => parts.next(),
        Some("apis") => parts.nth(1),
        _ => None,
    };
    let rest: Vec<&str> = parts.collect();
    let resource = match rest.as_slice() {
        // A namespace's own subresources look like collections inside it.
        ["namespaces", _, "status" | "finalize"] => return false,
        ["namespaces", _, inside @ ..] if !inside.is_empty() => inside,
        all => all,
    };
    version.is_some() && resource.len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_follow_method_path_and_query() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces", Verb::List),
            ("GET", "/api/v1/namespaces?", Verb::List),
            ("GET", "/api/v1/namespaces/health", Verb::Get),
            ("GET", "/api/v1/namespaces/health/status", Verb::Get),
            ("GET", "/api/v1/namespaces/health/pods", Verb::List),
            ("GET", "/api/v1/namespaces/health/pods/a", Verb::Get),
            ("GET", "/api/v1/namespaces/health/pods/a/status", Verb::Get),
            ("GET", "/api/v1/pods?limit=500", Verb::List),
            ("GET", "/apis/jiuzhou.io/v1alpha1/regions", Verb::List),
            (
                "GET",
                "/apis/jiuzhou.io/v1alpha1/regions/hangzhou",
                Verb::Get,
            ),
            (
                "GET",
                "/apis/jiuzhou.io/v1alpha1/namespaces/health/apps?limit=5",
                Verb::List,
            ),
            (
                "GET",
                "/apis/jiuzhou.io/v1alpha1/apps?watch=true&limit=5",
                Verb::Watch,
            ),
            (
                "GET",
                "/apis/jiuzhou.io/v1alpha1/apps?watch=false",
                Verb::List,
            ),
            ("GET", "/apis/jiuzhou.io/v1alpha1", Verb::Get),
            ("GET", "/apis", Verb::Get),
            ("GET", "/version", Verb::Get),
            ("POST", "/api/v1/namespaces/health/pods", Verb::Create),
            (
                "PUT",
                "/api/v1/namespaces/health/pods/a/status",
                Verb::Update,
            ),
            ("PATCH", "/api/v1/namespaces/health/pods/a", Verb::Patch),
            ("DELETE", "/api/v1/namespaces/health/pods", Verb::Delete),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(
                verb(&method, &uri.parse().unwrap()),
                expected,
                "{method} {uri}"
            );
        }
    }
}
