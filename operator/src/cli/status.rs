//! `jiuzhou status`: one screen for the province, from the statuses that kubectl shows too.

use std::io::Write as _;
use std::process::ExitCode;

use crds::{App, Condition, ConditionStatus, ConditionType, MemberCluster, Region, find_condition};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::output::{Format, Paint, Painted};
use super::table::Table;
use super::world::list;

/// Apps that are not well, shown by name.
const SHOWN: usize = 10;

/// Prints the status of the province.
pub(super) async fn status(client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let mut regions: Vec<Region> = list(client).await?;
    let mut clusters: Vec<MemberCluster> = list(client).await?;
    let mut apps: Vec<App> = list(client).await?;
    regions.sort_by_key(|r| (r.spec.code.clone(), r.name_any()));
    clusters.sort_by_key(kube::ResourceExt::name_any);
    apps.sort_by_key(|a| (a.namespace(), a.name_any()));
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        let value = json!({
            "kind": "ProvinceStatus", "apiVersion": "cli.jiuzhou.io/v1",
            "regions": regions.iter().map(|r| json!({"name": r.name_any(), "code": r.spec.code, "status": r.status})).collect::<Vec<_>>(),
            "clusters": clusters.iter().map(|c| json!({"name": c.name_any(), "regionName": c.spec.region_name, "status": c.status})).collect::<Vec<_>>(),
            "apps": apps.iter().map(|a| json!({"namespace": a.namespace(), "name": a.name_any(), "status": a.status})).collect::<Vec<_>>(),
        });
        writeln!(out, "{value:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let paint = Paint::stdout();
    write!(out, "{}", regions_table(&regions, paint))?;
    writeln!(out)?;
    write!(out, "{}", clusters_table(&clusters, paint))?;
    writeln!(out)?;
    write!(out, "{}", apps_table(&apps, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn ready(conditions: &[Condition], paint: Paint) -> Painted {
    match find_condition(conditions, ConditionType::Ready) {
        Some(c) if c.status == ConditionStatus::True => paint.good("Ready"),
        Some(c) if c.status == ConditionStatus::False => paint.bad(c.reason.as_str()),
        Some(c) => paint.unsure(c.reason.as_str()),
        None => paint.unsure("Unknown"),
    }
}

fn regions_table(regions: &[Region], paint: Paint) -> Table {
    let mut table = Table::new(&[
        "REGION", "NAME", "CODE", "CLUSTERS", "CPU", "HEADROOM", "STATE",
    ]);
    for region in regions {
        let status = region.status.clone().unwrap_or_default();
        let dash = || "-".to_owned();
        table.row([
            region.name_any().into(),
            region.spec.display_name.clone().into(),
            region.spec.code.clone().unwrap_or_else(dash).into(),
            status.clusters.map_or_else(dash, |c| c.summary).into(),
            status.cpu.unwrap_or_else(dash).into(),
            status.headroom.unwrap_or_else(dash).into(),
            ready(&status.conditions, paint),
        ]);
    }
    table
}

fn clusters_table(clusters: &[MemberCluster], paint: Paint) -> Table {
    let mut table = Table::new(&["CLUSTER", "REGION", "ZONE", "MODE", "CPU", "APPS", "STATE"]);
    for cluster in clusters {
        let status = cluster.status.clone().unwrap_or_default();
        let dash = || "-".to_owned();
        table.row([
            cluster.name_any().into(),
            cluster.spec.region_name.to_string().into(),
            format!("{:?}", cluster.spec.zone).into(),
            status.mode.unwrap_or_else(dash).into(),
            status.cpu.unwrap_or_else(dash).into(),
            status.apps.map_or_else(dash, |n| n.to_string()).into(),
            ready(&status.conditions, paint),
        ]);
    }
    table
}

/// How many Apps are well, and the ones that are not.
fn apps_table(apps: &[App], paint: Paint) -> String {
    let conditions = |app: &App| app.status.clone().unwrap_or_default().conditions;
    let well = |app: &&App| {
        find_condition(&conditions(app), ConditionType::Ready)
            .is_some_and(|c| c.status == ConditionStatus::True)
    };
    let (good, bad): (Vec<&App>, Vec<&App>) = apps.iter().partition(well);
    let sum = format!("{} of {} apps ready\n", good.len(), apps.len());
    if bad.is_empty() {
        return sum;
    }
    let mut table = Table::new(&["APP", "TIER", "REPLICAS", "CLUSTERS", "STATE"]);
    for app in bad.iter().take(SHOWN) {
        let status = app.status.clone().unwrap_or_default();
        table.row([
            format!("{}/{}", app.namespace().unwrap_or_default(), app.name_any()).into(),
            format!("{:?}", app.spec.tier).into(),
            status.readiness.unwrap_or_else(|| "-".to_owned()).into(),
            status.clusters.unwrap_or_else(|| "-".to_owned()).into(),
            ready(&status.conditions, paint),
        ]);
    }
    let more = bad.len().saturating_sub(SHOWN);
    let rest = if more > 0 {
        format!("and {more} more\n")
    } else {
        String::new()
    };
    format!("{sum}{table}{rest}")
}
