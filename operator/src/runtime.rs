//! The shell that every loop stands in: connections, leadership, watches, telemetry, shutdown.
//!
//! Nothing here knows a kind of ours or decides anything about the province. The hub and the
//! agent gather through [`watch`] and write through [`client`].

pub mod backoff;
pub mod client;
pub(crate) mod clock;
pub mod descriptors;
pub mod errors;
pub(crate) mod first_write;
pub mod kubeconfig;
pub mod lease;
pub mod metrics;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod watch;

#[cfg(test)]
pub(crate) mod fake;
