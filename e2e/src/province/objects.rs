//! The province as its administrators describe it: Regions and MemberClusters.

use anyhow::{Context, Result};
use crds::{ConnectionSpec, MemberCluster, Region};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::sandbox::{Member, Mode};

/// Names, display names and GB/T 2260 codes of the cities.
const CITIES: [(&str, &str, &str); 11] = [
    ("hangzhou", "杭州市", "330100"),
    ("ningbo", "宁波市", "330200"),
    ("wenzhou", "温州市", "330300"),
    ("jiaxing", "嘉兴市", "330400"),
    ("huzhou", "湖州市", "330500"),
    ("shaoxing", "绍兴市", "330600"),
    ("jinhua", "金华市", "330700"),
    ("quzhou", "衢州市", "330800"),
    ("zhoushan", "舟山市", "330900"),
    ("taizhou", "台州市", "331000"),
    ("lishui", "丽水市", "331100"),
];

/// Creates the province, its cities and the county.
pub async fn regions(client: &Client) -> Result<()> {
    region(client, "zhejiang", "浙江省", "330000", "Province", None).await?;
    for (name, display, code) in CITIES {
        region(client, name, display, code, "City", Some("zhejiang")).await?;
    }
    region(
        client,
        "hangzhou-yuhang",
        "余杭区",
        "330110",
        "County",
        Some("hangzhou"),
    )
    .await
}

async fn region(
    client: &Client,
    name: &str,
    display: &str,
    code: &str,
    level: &str,
    parent: Option<&str>,
) -> Result<()> {
    let mut spec = json!({"displayName": display, "code": code, "level": level});
    if let Some(parent) = parent {
        spec["parent"] = json!(parent);
    }
    let api: Api<Region> = Api::all(client.clone());
    api.patch(
        name,
        &params(),
        &Patch::Apply(&object("Region", name, &spec)),
    )
    .await
    .with_context(|| format!("apply Region {name}"))?;
    Ok(())
}

/// Creates a MemberCluster. The Secret of a pushed one has the cluster's name.
pub async fn member_cluster(client: &Client, member: &Member) -> Result<()> {
    let mut connection = ConnectionSpec::default();
    match member.mode {
        Mode::Local => connection.local = Some(crds::LocalConnection {}),
        Mode::Pull => connection.pull = Some(crds::PullConnection {}),
        Mode::Push => {
            connection.push = Some(crds::PushConnection {
                kubeconfig_secret_name: member.name.clone(),
            });
        }
    }
    let spec = json!({
        "regionName": member.region, "zone": "ExtranetPublic", "form": "Dedicated",
        "vendor": "example-cloud", "protectionLevel": 3, "maxDataGrade": "Important",
        "management": "Manage", "connection": connection,
    });
    let api: Api<MemberCluster> = Api::all(client.clone());
    let name = &member.name;
    api.patch(
        name,
        &params(),
        &Patch::Apply(&object("MemberCluster", name, &spec)),
    )
    .await
    .with_context(|| format!("apply MemberCluster {name}"))?;
    Ok(())
}

fn params() -> PatchParams {
    PatchParams::apply("sandbox").force()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}
