//! Real control planes on this machine, for the sandbox, the tests and the benches.
//!
//! A [`fleet::Fleet`] is one etcd and, per cluster, a real API server, controller manager and
//! scheduler, all as plain processes on loopback. A [`kubelet`] plays each cluster's nodes: pods
//! become Ready and their ports answer real HTTP. Nothing here is a mock, and nothing leaves the
//! machine.
//!
//! Every process is watched by a [`process::reaper`], so that nothing survives the program that
//! started it, whichever way that program ends.

pub mod assets;
pub mod certs;
pub mod conformance;
pub mod fault_proxy;
pub mod fleet;
pub mod kubelet;
pub mod load;
pub mod measure;
pub mod namespace;
pub mod process;
pub mod province;
pub mod random;
pub mod sandbox;
pub mod tour;
