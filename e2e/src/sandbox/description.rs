//! `sandbox.json`: what runs where, for programs and people.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Member, Mode, all_processes};
use crate::{
    fleet::Fleet,
    province::{Endpoint, Guard, Province},
};

/// File name in the sandbox's folder.
pub(super) const NAME: &str = "sandbox.json";

#[derive(Serialize)]
struct Description<'a> {
    /// The sandbox itself: ending it ends everything.
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<&'a str>,
    hub: Hub<'a>,
    clusters: Vec<Cluster<'a>>,
    processes: Vec<Process<'a>>,
}

#[derive(Serialize)]
struct Hub<'a> {
    kubeconfig: &'a Path,
    apiserver: &'a str,
    #[serde(flatten)]
    endpoint: Option<&'a Endpoint>,
}

#[derive(Serialize)]
struct Cluster<'a> {
    name: &'a str,
    region: &'a str,
    kubeconfig: &'a Path,
    apiserver: &'a str,
    mode: Mode,
    #[serde(rename = "podNetwork")]
    pod_network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a Endpoint>,
    guard: &'a [Guard],
}

#[derive(Serialize)]
struct Process<'a> {
    name: &'a str,
    pid: u32,
    log: &'a Path,
}

/// Writes the file so that it is either absent or complete.
pub(super) fn write(
    fleet: &Fleet,
    members: &[Member],
    province: Option<&Province>,
    hub: &Path,
) -> Result<()> {
    let clusters = fleet
        .clusters()
        .iter()
        .zip(members)
        .map(|(cluster, member)| Cluster {
            name: cluster.name(),
            region: &member.region,
            kubeconfig: cluster.kubeconfig_file(),
            apiserver: cluster.url(),
            mode: member.mode,
            pod_network: cluster.pod_network(),
            agent: province.and_then(|province| province.agents.get(cluster.name())),
            guard: province
                .and_then(|province| province.guards.get(cluster.name()))
                .map_or(&[], Vec::as_slice),
        });
    let processes = all_processes(fleet, province).filter_map(|process| {
        Some(Process {
            name: process.name(),
            pid: process.pid()?,
            log: process.log(),
        })
    });
    let description = Description {
        pid: std::process::id(),
        console: province.and_then(|province| province.console.as_deref()),
        hub: Hub {
            kubeconfig: hub,
            apiserver: fleet.hub().url(),
            endpoint: province.map(|province| &province.hub),
        },
        clusters: clusters.collect(),
        processes: processes.collect(),
    };
    let text = serde_json::to_vec_pretty(&description)?;
    let path = fleet.dir().join(NAME);
    let unfinished = fleet.dir().join(format!(".{NAME}"));
    fs::write(&unfinished, text).with_context(|| format!("write {}", unfinished.display()))?;
    fs::rename(&unfinished, &path).with_context(|| format!("write {}", path.display()))
}
