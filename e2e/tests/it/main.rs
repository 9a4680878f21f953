//! Tests on real control planes. One binary: starting a fleet costs seconds, linking too.

mod admit_crds;
mod admit_policies;
mod admit_rbac;
mod admit_support;
mod fleet;
mod kubelet;
mod sandbox;
mod support;
