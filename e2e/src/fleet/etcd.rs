//! One etcd, which serves any number of API servers.

use std::path::Path;

use anyhow::{Context, Result};
use kube::Config;

use super::ready;
use crate::process::{Process, Program, Supervisor, reserve::Port};

/// How often to try again with other ports after another program took one in between.
pub(super) const PORT_ATTEMPTS: u32 = 3;
pub(super) const PORT_TAKEN: &str = "address already in use";

#[derive(Debug)]
pub(super) struct Etcd {
    process: Process,
    client: Port,
    _peer: Port,
}

impl Etcd {
    pub(super) async fn start(
        supervisor: &Supervisor,
        binary: &Path,
        data: &Path,
        name: &str,
    ) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let etcd = Self::spawn(supervisor, binary, data, name)?;
            match etcd.wait_until_ready().await {
                Ok(()) => return Ok(etcd),
                Err(_) if attempt < PORT_ATTEMPTS && etcd.process.log_mentions(PORT_TAKEN) => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn spawn(supervisor: &Supervisor, binary: &Path, data: &Path, name: &str) -> Result<Self> {
        let (client, peer) = (Port::reserve()?, Port::reserve()?);
        let client_url = url(&client);
        let peer_url = url(&peer);
        let program = Program::new(name, binary)
            .flag("data-dir", data.join(name))
            // The data lies in memory and ends with the fleet.
            .flag("unsafe-no-fsync", "true")
            .flag("listen-client-urls", &client_url)
            .flag("advertise-client-urls", &client_url)
            .flag("listen-peer-urls", &peer_url)
            .flag("initial-advertise-peer-urls", &peer_url)
            .flag("initial-cluster", format!("default={peer_url}"))
            .flag("log-level", "warn")
            // Old revisions would fill the memory of a sandbox that runs for days.
            .flag("auto-compaction-retention", "10m");
        Ok(Self {
            process: supervisor.spawn(program)?,
            client,
            _peer: peer,
        })
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let config = Config::new(self.url().parse().context("etcd's address")?);
        ready::answers(&self.process, config, "/health").await
    }

    pub(super) fn url(&self) -> String {
        url(&self.client)
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

fn url(port: &Port) -> String {
    format!("http://127.0.0.1:{}", port.number())
}
