//! Tests on real control planes. One binary: starting a fleet costs seconds, linking too.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot have ends the test, with its place"
)]

mod admit_crds;
mod admit_isolation;
mod admit_matrix;
mod admit_policies;
mod admit_rbac;
mod admit_support;
mod admit_traffic;
mod apply_claims;
mod apply_escapes;
mod apply_isolation;
mod apply_links;
mod apply_management;
mod apply_objects;
mod apply_protection;
mod apply_quotas;
mod apply_rollout;
mod apply_scaling;
mod apply_secrets;
mod apply_tenants;
mod fault_chaos;
mod fault_quotas;
mod fault_rest;
mod fault_support;
mod fleet;
mod guard_control;
mod kubelet;
mod load;
mod outage_hub;
mod outage_ledger;
mod outage_member;
mod outage_push;
mod sandbox;
mod support;
mod traces;
mod user_shell;
