//! What has to be done before a first write, once, and only if there is one.
//!
//! A process that starts and finds everything as it should be writes nothing, not even that it is
//! there. Clients made by [`FirstWrite::client`] let reads through and hold the first write back
//! until the way is clear; no caller can forget it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Uri};
use kube::Client;
use kube::client::Body;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower::BoxError;

use super::errors::chain;

/// After a failure all writes are refused for so long, instead of each trying for itself.
const RETRY: Duration = Duration::from_secs(1);

type Clearing = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Something to be done before the first write. Clones share it.
#[derive(Clone)]
pub(crate) struct FirstWrite {
    clear: Arc<dyn Fn() -> Clearing + Send + Sync>,
    retry: Duration,
    way: Arc<Mutex<Way>>,
}

enum Way {
    Unknown,
    Clear,
    Blocked { since: Instant, why: String },
}

/// Why a write was not sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("nothing is written yet: {why}")]
pub(crate) struct Blocked {
    why: String,
}

impl FirstWrite {
    /// `clear` is called before the first write, and again later when it failed.
    pub(crate) fn after<F>(clear: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self {
            clear: Arc::new(move || Box::pin(clear())),
            retry: RETRY,
            way: Arc::new(Mutex::new(Way::Unknown)),
        }
    }

    /// Makes sure that writes may begin.
    pub(crate) async fn begin(&self) -> Result<(), Blocked> {
        let mut way = self.way.lock().await;
        match &*way {
            Way::Clear => return Ok(()),
            Way::Blocked { since, why } if since.elapsed() < self.retry => {
                return Err(Blocked { why: why.clone() });
            }
            Way::Unknown | Way::Blocked { .. } => {}
        }
        match (self.clear)().await {
            Ok(()) => {
                *way = Way::Clear;
                Ok(())
            }
            Err(error) => {
                let why = chain(&*error);
                tracing::error!(why, "nothing is written before this is mended");
                *way = Way::Blocked {
                    since: Instant::now(),
                    why: why.clone(),
                };
                Err(Blocked { why })
            }
        }
    }

    /// The same cluster, with every write behind [`begin`](Self::begin).
    pub(crate) fn client(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let first = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (first, client) = (first.clone(), client.clone());
            async move {
                if writes(request.method(), request.uri()) {
                    first.begin().await?;
                }
                client.send(request).await.map_err(BoxError::from)
            }
        });
        Client::new(service, namespace)
    }
}

/// Whether a request changes anything. Who one is and what one may is asked by POST and leaves
/// nothing behind.
fn writes(method: &Method, uri: &Uri) -> bool {
    let rehearsal = uri
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("dryRun=")));
    let question = [
        "/apis/authorization.k8s.io/",
        "/apis/authentication.k8s.io/",
    ]
    .iter()
    .any(|group| uri.path().starts_with(group));
    !matches!(*method, Method::GET | Method::HEAD) && !rehearsal && !question
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::Fake;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::PostParams;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What is cleared, how often, and whether it works.
    fn counted(
        works: impl Fn(usize) -> bool + Send + Sync + 'static,
    ) -> (FirstWrite, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let tried = count.clone();
        let works = Arc::new(works);
        let first = FirstWrite::after(move || {
            let ok = works(tried.fetch_add(1, Ordering::SeqCst));
            async move { if ok { Ok(()) } else { Err("not yet".into()) } }
        });
        (first, count)
    }

    fn map(name: &str) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    #[tokio::test]
    async fn reads_pass_and_the_first_write_clears_the_way_once() {
        let (fake, (first, cleared)) = (Fake::default(), counted(|_| true));
        let maps: Api<ConfigMap> = Api::namespaced(first.client(fake.client()), "home");
        assert!(maps.get_opt("a").await.unwrap().is_none());
        let rehearsal = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        maps.create(&rehearsal, &map("rehearsed")).await.unwrap();
        assert_eq!(cleared.load(Ordering::SeqCst), 0);
        let params = PostParams::default();
        let (a, b) = (map("a"), map("b"));
        let (one, other) = futures::join!(maps.create(&params, &a), maps.create(&params, &b));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(cleared.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_write_is_not_sent_while_the_way_is_blocked_and_many_do_not_all_try() {
        let (fake, (mut first, cleared)) = (Fake::default(), counted(|tries| tries > 0));
        first.retry = Duration::from_mins(1);
        let maps: Api<ConfigMap> = Api::namespaced(first.client(fake.client()), "home");
        for name in ["a", "b", "c"] {
            let refused = maps.create(&PostParams::default(), &map(name)).await;
            let why = chain(&refused.unwrap_err());
            assert!(why.contains("not yet"), "{why}");
        }
        assert_eq!((cleared.load(Ordering::SeqCst), fake.log().len()), (1, 0));
        first.retry = Duration::ZERO;
        let maps: Api<ConfigMap> = Api::namespaced(first.client(fake.client()), "home");
        maps.create(&PostParams::default(), &map("a"))
            .await
            .unwrap();
        assert_eq!(cleared.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn questions_and_rehearsals_are_no_writes() {
        for (method, uri, expected) in [
            (Method::GET, "/api/v1/namespaces", false),
            (Method::POST, "/api/v1/namespaces", true),
            (Method::POST, "/api/v1/namespaces?&dryRun=All", false),
            (
                Method::PATCH,
                "/api/v1/namespaces/a?fieldManager=m&dryRun=All",
                false,
            ),
            (
                Method::PATCH,
                "/api/v1/namespaces/dryRun=All?force=true",
                true,
            ),
            (Method::DELETE, "/api/v1/namespaces/a", true),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                true,
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                false,
            ),
            (
                Method::POST,
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                false,
            ),
        ] {
            assert_eq!(
                writes(&method, &uri.parse().unwrap()),
                expected,
                "{method} {uri}"
            );
        }
    }
}
