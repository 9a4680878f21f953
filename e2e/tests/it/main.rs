//! Tests on real control planes. One binary: starting a fleet costs seconds, linking too.

mod fleet;
mod kubelet;
mod sandbox;
mod support;
