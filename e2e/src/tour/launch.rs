//! The steps about isolation: a launch in one file, what it may reach, and walls that stay up.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use crds::{Isolation, Tenant};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod, ResourceQuota},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    Stage,
    act::{jiuzhou, jiuzhou_at},
    look::until,
};
use crate::kubelet::twin;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crds/examples/emergency-launch.yaml"
);
const ROOT: &str = "jiuzhou-system";
const CITY: &str = "hangzhou-a";
/// On which venue-code listens.
const PORT: u16 = 8080;

/// One file, one command, and everything in it is Ready.
pub(super) async fn launch(stage: &mut Stage) -> Result<String> {
    let began = Instant::now();
    let told = jiuzhou(stage, &["apply", "-f", FILE])?;
    let ready = began.elapsed();
    let (pods, address) = running(stage).await?;
    let answer = get(SocketAddr::from((address, PORT))).await?;
    let served = began.elapsed();
    ensure!(answer.starts_with("HTTP/1.1 200"), "a pod answers {answer}");
    Ok(format!(
        "{told}{:.1} s from the file to every replica ready, {:.1} s to the first answer of one; {pods} of them run in {CITY}",
        ready.as_secs_f32(),
        served.as_secs_f32()
    ))
}

/// Asks a pod what it says.
async fn get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET / HTTP/1.1\r\nhost: venue-code\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// How many pods run, and where the first of them is served.
async fn running(stage: &Stage) -> Result<(usize, Ipv4Addr)> {
    let client = stage.fleet.cluster(CITY)?.client().await?;
    let pods: Api<Pod> = Api::namespaced(client, "venue");
    let of_app = ListParams::default().labels("jiuzhou.io/app=venue-code");
    let all = pods.list(&of_app).await?.items;
    let runs = |pod: &&Pod| {
        let status = pod.status.as_ref();
        status.and_then(|s| s.phase.as_deref()) == Some("Running")
    };
    let running: Vec<&Pod> = all.iter().filter(runs).collect();
    let first = running.first();
    let address = first.and_then(|pod| pod.status.as_ref()?.pod_ip.as_deref());
    let address = address.context("no pod of venue-code runs")?.parse()?;
    let served = twin(address).context("the pod has no address of the sandbox")?;
    Ok((running.len(), served))
}

/// What is declared passes; another port, another direction and the outside do not.
pub(super) fn refuse(stage: &Stage) -> Result<String> {
    let mut evidence = String::new();
    for (from, to, passes) in [
        ("venue/venue-code", "identity/sso:8443", true),
        ("venue/venue-code", "identity/sso:22", false),
        ("identity/sso", "venue/venue-code:8080", false),
        ("192.0.2.1", "identity/sso:8443", false),
    ] {
        let (told, found) = jiuzhou_at(stage, CITY, &["reach", from, to])?;
        ensure!(found == passes, "{from} to {to}: {told}");
        evidence.push_str(told.lines().next().unwrap_or_default());
        evidence.push('\n');
    }
    Ok(evidence)
}

/// Somebody tears a wall down and starts pods of their own in a member.
pub(super) async fn hold(stage: &mut Stage) -> Result<String> {
    let client = stage.fleet.cluster(CITY)?.client().await?;
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), "venue");
    policies
        .delete("jiuzhou-default-deny", &DeleteParams::default())
        .await?;
    let began = Instant::now();
    until("the policy is back", || async {
        let back = policies.get_opt("jiuzhou-default-deny").await?;
        Ok(back.map(|_| ()).ok_or_else(|| "it is gone".to_owned()))
    })
    .await?;
    let back = began.elapsed();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "venue");
    let stray: Pod = serde_json::from_value(json!({
        "metadata": {"name": "stray"},
        "spec": {
            "priorityClassName": "jiuzhou-general",
            "containers": [{"name": "main", "image": "registry.example/stray:1"}],
        },
    }))?;
    let refused = pods.create(&PostParams::default(), &stray).await;
    let refused = match refused {
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(other) => return Err(other.into()),
        Ok(_) => bail!("a pod that nobody was granted was taken"),
    };
    let quotas: Api<ResourceQuota> = Api::namespaced(client, "venue");
    let core = quotas.get("jiuzhou-core").await?.status.unwrap_or_default();
    let isolations: Api<Isolation> = Api::all(stage.fleet.hub().client().await?);
    let told = until("the Isolation tells so", || async {
        let status = isolations.get("extranet-public").await?.status;
        let conditions = status.unwrap_or_default().conditions;
        let mut told = conditions.into_iter().map(|c| c.message);
        let told = told.find(|message| message.contains("put back"));
        Ok(told.ok_or_else(|| "it says nothing of it".to_owned()))
    })
    .await?;
    let (used, hard) = (core.used.unwrap_or_default(), core.hard.unwrap_or_default());
    Ok(format!(
        "the deleted policy is back after {:.1} s\n{told}\na pod of its own: {refused}\nResourceQuota jiuzhou-core: {} of {} pods",
        back.as_secs_f32(),
        amount(used.get("pods")),
        amount(hard.get("pods")),
    ))
}

fn amount(quantity: Option<&Quantity>) -> &str {
    quantity.map_or("none", |quantity| &quantity.0)
}

/// Everything of the launch goes, in the members too.
pub(super) async fn clear(stage: &mut Stage) -> Result<String> {
    let client = stage.fleet.hub().client().await?;
    let tenants: Api<Tenant> = Api::namespaced(client.clone(), ROOT);
    let isolations: Api<Isolation> = Api::all(client);
    isolations
        .delete("extranet-public", &DeleteParams::default())
        .await?;
    let began = Instant::now();
    for name in ["venue", "identity"] {
        tenants.delete(name, &DeleteParams::default()).await?;
    }
    for name in ["venue", "identity"] {
        until("the Tenant is gone", || async {
            let left = tenants.get_opt(name).await?;
            Ok(left.map_or(Ok(()), |left| Err(format!("{:?}", left.status))))
        })
        .await?;
        for member in &stage.members {
            let client = stage.fleet.cluster(&member.name)?.client().await?;
            let left = Api::<Namespace>::all(client).get_opt(name).await?;
            ensure!(
                left.is_none(),
                "namespace {name} is left in {}",
                member.name
            );
        }
    }
    let took: Duration = began.elapsed();
    Ok(format!(
        "both tenants are gone after {:.1} s, and their namespaces in all {} clusters",
        took.as_secs_f32(),
        stage.members.len()
    ))
}
