//! One client per cluster, bounded in every direction.
//!
//! kube's own stack waits for ever for a hung server and, where asked to retry, does so fifteen
//! times. Here every unary request ends by its deadline, body included; at most a fixed number is
//! under way; refusals that ask for patience are repeated a little, within a budget; and each
//! request is counted. Nothing is shared between two clusters, so a slow one slows nobody else.
//! Watches are long-lived on purpose: only the time to their first byte is bounded.

use std::time::Duration;

use kube::{Client, client::ClientBuilder};
use tower::buffer::Buffer;

use super::metrics::{Requests, Verb};

mod guard;
mod retry;
mod verb;

#[cfg(test)]
mod tests;

use guard::Guard;

/// Bounds of one cluster's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A unary request ends by then, waiting and repeats included; a watch has begun by then. An
    /// API server answers a page of 500 large objects in a few seconds, and gives up on admission
    /// webhooks after ten.
    pub deadline: Duration,
    /// A TCP and TLS handshake takes three round trips; five seconds is a very bad line.
    pub connect: Duration,
    /// Unary requests under way. Enough to fill a province's links (32 requests at 100 ms are 320
    /// a second) and far from an API server's own limit of some hundreds.
    pub in_flight: usize,
    /// Times one request is sent at most.
    pub tries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            connect: Duration::from_secs(5),
            in_flight: 32,
            tries: 3,
        }
    }
}

/// Requests handed over to kube's stack that it has not begun. It begins each at once, so this is
/// only the slack between tasks.
const HANDOVER: usize = 256;

/// Why there is no client, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection settings do not work.
    #[error("cannot set up a client for cluster {cluster}")]
    Build {
        /// The cluster.
        cluster: String,
        /// What kube says.
        source: Box<kube::Error>,
    },
    /// The deadline passed. The request may nevertheless have been carried out.
    #[error("cluster {cluster} did not answer a {} within {after:?}", verb.as_str())]
    Deadline {
        /// The cluster.
        cluster: String,
        /// What was asked.
        verb: Verb,
        /// The deadline.
        after: Duration,
    },
}

/// Builds the client of one cluster. Call inside the runtime.
pub fn client(
    cluster: &str,
    mut config: kube::Config,
    limits: Limits,
    requests: &Requests,
) -> Result<Client, ClientError> {
    config.connect_timeout = Some(limits.connect);
    config.default_retry = false;
    let failed = |source| ClientError::Build {
        cluster: cluster.to_owned(),
        source: Box::new(source),
    };
    let builder = ClientBuilder::try_from(config).map_err(failed)?;
    // kube's service is no clone, and a guarded request needs its own handle to try again.
    let layer = tower::layer::layer_fn(|service| {
        Guard::new(
            cluster,
            Buffer::new(service, HANDOVER),
            limits,
            requests.clone(),
        )
    });
    Ok(builder.with_layer(&layer).build())
}
