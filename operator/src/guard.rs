//! The guard: the gateway of a region, and what protects the region behind it.
//!
//! `guard control` compiles the API's objects to one [`config::Configuration`]; `guard serve` faces the
//! citizens with it and holds no credentials of Kubernetes.

pub mod compile;
pub mod config;
pub mod control;
pub mod exchange;
pub mod gateway;
pub mod mutual_tls;
mod own_headers;
mod path;
pub mod ports;
pub mod rooms;
pub mod serve;
pub mod standing;
