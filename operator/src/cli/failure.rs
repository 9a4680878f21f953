//! Errors of a cluster's client as people can act on them: which server was asked, what it says, and the next
//! step. What was asked for is said by whoever asked.

use std::error::Error;

use kube::core::Status;

/// So much of an answer tells what sent it; a proxy may send a whole page.
const ANSWER: usize = 200;

/// Whom a command asks.
pub(super) struct Asked {
    server: String,
    /// Which cluster it is meant to be, as in `the hub`.
    pub(super) cluster: &'static str,
}

impl Asked {
    pub(super) fn new(config: &kube::Config, cluster: &'static str) -> Self {
        let server = config.cluster_url.to_string();
        Self {
            server: server.trim_end_matches('/').to_owned(),
            cluster,
        }
    }

    /// The address of its API server.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// An error of a command, with a sentence in place of what a client says.
    pub(super) fn plainly(&self, error: anyhow::Error) -> anyhow::Error {
        let mut words = Vec::new();
        for cause in error.chain() {
            if let Some(cause) = cause.downcast_ref::<kube::Error>() {
                words.push(self.sentence(cause));
                return anyhow::anyhow!(words.join(": "));
            }
            words.push(cause.to_string());
        }
        error
    }

    /// What a client says, as a sentence with the next step.
    pub(super) fn sentence(&self, error: &kube::Error) -> String {
        let Self { server, cluster } = self;
        let said = cause(error);
        let kube::Error::Api(status) = error else {
            let is_unreached =
                matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_));
            return if is_unreached {
                format!(
                    "cannot reach the API server at {server} ({said}): check that it is up, and that the \
                     kubeconfig has its address"
                )
            } else {
                format!("with the API server at {server}: {said}")
            };
        };
        if is_unserved(status) {
            format!(
                "the API server at {server} serves no such kind, so it is of another cluster, or lacks the \
                 definitions: by --kubeconfig give that of {cluster}"
            )
        } else if status.code == 401 {
            format!(
                "the API server at {server} does not take the credentials of the kubeconfig: renew them"
            )
        } else {
            format!("the API server at {server} answers: {said}")
        }
    }
}

/// What lies at the bottom of an error, in a few words.
pub(super) fn cause(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let line = status.message.lines().next().unwrap_or_default();
        return match line.chars().take(ANSWER).collect::<String>() {
            none if none.is_empty() => format!("status {}", status.code),
            said => said,
        };
    }
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether the kind is not there, and not an object of it, which would be named.
fn is_unserved(status: &Status) -> bool {
    let name = status.details.as_ref().map(|details| details.name.as_str());
    status.code == 404 && name.is_none_or(str::is_empty)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use serde_json::json;

    use super::*;

    fn asked() -> Asked {
        let config = kube::Config::new("https://10.0.0.1:6443".parse().unwrap());
        Asked::new(&config, "the hub")
    }

    fn answer(status: &serde_json::Value) -> anyhow::Error {
        let status: Status = serde_json::from_value(status.clone()).unwrap();
        let error = anyhow::Error::new(kube::Error::Api(status.boxed()));
        let error = error.context("cannot list apps.jiuzhou.io");
        asked().plainly(error)
    }

    #[test]
    fn another_cluster_is_told_with_its_address_what_was_asked_and_whose_kubeconfig_to_give() {
        let plain = json!({"status": "Failure", "code": 404, "message": "404 page not found",
                           "reason": "Failed to parse error data"});
        let said = "cannot list apps.jiuzhou.io: the API server at https://10.0.0.1:6443 serves no such kind, \
                    so it is of another cluster, or lacks the definitions: by --kubeconfig give that of the hub";
        assert_eq!(format!("{:#}", answer(&plain)), said);
        let object = json!({"status": "Failure", "code": 404, "reason": "NotFound",
                            "message": "apps.jiuzhou.io \"web\" not found", "details": {"name": "web"}});
        let said = format!("{:#}", answer(&object));
        assert!(
            said.ends_with("answers: apps.jiuzhou.io \"web\" not found"),
            "{said}"
        );
    }

    #[test]
    fn a_server_that_is_down_is_told_once_with_its_address_and_what_to_check() {
        let refused = std::io::Error::from_raw_os_error(111);
        let error = kube::Error::Service(Box::new(refused));
        let error: Result<(), _> = Err(error).context("cannot list apps.jiuzhou.io");
        let said = format!("{:#}", asked().plainly(error.unwrap_err()));
        assert_eq!(said.matches("os error 111").count(), 1, "{said}");
        assert!(
            said.contains("cannot reach the API server at https://10.0.0.1:6443 ("),
            "{said}"
        );
        assert!(said.contains("check that it is up"), "{said}");
    }

    #[test]
    fn what_is_no_error_of_a_client_stays_as_it_is() {
        let error = asked().plainly(anyhow::anyhow!("inner").context("outer"));
        assert_eq!(format!("{error:#}"), "outer: inner");
    }

    #[test]
    fn a_page_in_place_of_an_answer_is_cut_short() {
        let page = json!({"status": "Failure", "code": 502, "reason": "Failed to parse error data",
                          "message": format!("{}\n<p>", "x".repeat(900))});
        let said = format!("{:#}", answer(&page));
        assert!(said.ends_with('x') && said.len() < 400, "{said}");
    }
}
