//! EXTENSION POINT: the province on top of the control planes (hub, agents, guards, demo objects).
//!
//! `sandbox up` without `--bare` calls [`start`] once the fleet is complete, writes what it returns
//! into `sandbox.json`, and stops everything again if it fails. Until it is filled, it says so
//! instead of pretending.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{fleet::Fleet, process::Process};

/// Time for the hub, agents and guards to hand over leases and finish requests.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A running process of the province with its metrics, as `sandbox.json` names it.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoint {
    /// Address of `/metrics`.
    pub metrics: String,
    /// Its pid.
    pub pid: u32,
}

/// A running guard.
#[derive(Debug, Clone, Serialize)]
pub struct Guard {
    /// Where it takes citizens' requests.
    pub http: String,
    /// Its metrics and pid.
    #[serde(flatten)]
    pub endpoint: Endpoint,
}

/// The running province.
#[derive(Debug)]
pub struct Province {
    /// Address of the console.
    pub console: String,
    /// The hub.
    pub hub: Endpoint,
    /// Agents by name of their cluster; a pushed cluster's runs inside the hub.
    pub agents: BTreeMap<String, Endpoint>,
    /// Guards by name of their cluster.
    pub guards: BTreeMap<String, Vec<Guard>>,
    /// All processes, in the order in which they were started.
    pub processes: Vec<Process>,
}

impl Province {
    /// Ends all processes, the last one started first.
    pub async fn stop(self) -> Result<()> {
        for process in self.processes.iter().rev() {
            process.stop(STOP_GRACE).await?;
        }
        Ok(())
    }
}

/// Starts the province's processes and creates its demo objects.
#[expect(
    clippy::unused_async,
    reason = "starting processes waits for them to be ready"
)]
pub async fn start(_fleet: &Fleet) -> Result<Province> {
    bail!(
        "the province (hub, agents, guards and demo objects) is not part of this build yet; \
         `sandbox up --bare` starts the control planes alone"
    )
}
