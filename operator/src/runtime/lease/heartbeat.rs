//! A Lease as a sign of life: renewed while its owner is well, contested by nobody.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Missed beats before a reader should think the owner is gone: one may be slow, one may be lost.
const BEATS: u32 = 4;

/// An agent's sign of life in the hub.
#[derive(Clone)]
pub struct Heartbeat {
    leases: Api<Lease>,
    name: String,
    owner: String,
    period: Duration,
}

impl Heartbeat {
    /// Renews the Lease `name` in `namespace` every `period` as `owner`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: impl Into<String>,
        owner: impl Into<String>,
        period: Duration,
    ) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self {
            leases,
            name: name.into(),
            owner: owner.into(),
            period,
        }
    }

    /// Beats until `stop`, skipping the beats at which `well` says no: an agent that runs but
    /// cannot see its cluster must not look alive.
    pub async fn run(self, well: impl Fn() -> bool, stop: CancellationToken) {
        let mut beats = interval(self.period);
        // After a stall one late beat says all there is to say.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(beats.tick()).await.is_some() {
            if !well() {
                tracing::debug!(lease = self.name, "not well, no sign of life sent");
                continue;
            }
            let beat = timeout(self.period, self.beat());
            match stop.run_until_cancelled(beat).await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, lease = self.name, "sign of life not sent");
                }
                Some(Err(_)) => {
                    tracing::warn!(lease = self.name, "sign of life not answered in time");
                }
            }
        }
    }

    async fn beat(&self) -> Result<(), kube::Error> {
        let seconds = i32::try_from((self.period * BEATS).as_secs())
            .unwrap_or(i32::MAX)
            .max(1);
        let spec = json!({
            "holderIdentity": self.owner,
            "leaseDurationSeconds": seconds,
            "renewTime": MicroTime(jiff::Timestamp::now()),
        });
        let patch = Patch::Merge(json!({ "spec": spec }));
        match self
            .leases
            .patch(&self.name, &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let name = Some(self.name.clone());
                let metadata = ObjectMeta {
                    name,
                    ..ObjectMeta::default()
                };
                let spec = serde_json::from_value(spec).map_err(kube::Error::SerdeError)?;
                let lease = Lease {
                    metadata,
                    spec: Some(spec),
                };
                self.leases
                    .create(&PostParams::default(), &lease)
                    .await
                    .map(|_| ())
            }
            patched => patched.map(|_| ()),
        }
    }
}
