//! The same province divided among 3,000 tenants by 20,000 Quotas of six resources each.

use anyhow::{Context, Result};
use crds::{App, Quota, Tenant};
use plan::{Planner, World, province::QuotaWrite, world::NamespaceSlot};
use serde_json::{Value, json};

use super::{app, object};

/// Departments of the province, each with as many tenants of its own.
const ROOTS: usize = 300;
const INNER: usize = 9;
/// Counties that an inner tenant has a Quota for, and cities that a department has one for.
const COUNTIES: usize = 7;
const CITIES: usize = 3;

/// The resources of every Quota.
fn resources(times: usize) -> Value {
    let all = [
        ("cpu", 100),
        ("memory", 400 << 30),
        ("pods", 400),
        ("services", 40),
        ("storage", 1 << 40),
        ("requestsPerSecond", 100_000),
    ];
    let grant = |(name, amount): &(&str, usize)| json!({"name": name, "nominal": (amount * times).to_string()});
    all.iter().map(grant).collect()
}

fn root(n: usize) -> String {
    format!("dep{n:03}")
}

/// Takes in the tenants with their namespaces, and their Quotas; how many there are of both.
pub(super) fn grant(world: &mut World, clusters: usize) -> Result<(usize, usize)> {
    let (mut tenants, mut quotas) = (0, 0);
    for n in 0..ROOTS {
        let own = root(n);
        tenant(world, "jiuzhou-system", &own, &own)?;
        tenants += 1;
        world.apply_quota(&quota("jiuzhou-system", &own, "zhejiang", 1_000)?);
        for city in 0..CITIES {
            let city = format!("city-{:02}", (n + city) % clusters.div_ceil(9) + 1);
            world.apply_quota(&quota("jiuzhou-system", &own, &city, 1_000)?);
        }
        quotas += 1 + CITIES;
        for inner in 0..INNER {
            let name = format!("unit{inner}");
            tenant(world, &own, &name, &format!("{own}-{name}"))?;
            tenants += 1;
            for county in 0..COUNTIES {
                let county = format!(
                    "county-{:03}",
                    (n * 7 + inner * 11 + county * 13) % clusters
                );
                world.apply_quota(&quota(&own, &name, &county, 1)?);
                quotas += 1;
            }
        }
    }
    Ok((tenants, quotas))
}

/// An App of an inner tenant.
pub(super) fn tenants_app(n: usize, replicas: i32) -> Result<App> {
    let mut app = app(n, replicas, &json!({"maxRegions": 3}), "Capacity")?;
    let (root, inner) = (root(n % ROOTS), n / ROOTS % INNER);
    app.metadata.namespace = Some(format!("{root}-unit{inner}"));
    Ok(app)
}

/// Changes the Quota of one inner tenant for one county.
pub(super) fn change(world: &mut World, n: usize, clusters: usize) -> Result<()> {
    let county = format!("county-{:03}", n * 7 % clusters);
    world.apply_quota(&quota(&root(n), "unit0", &county, 2)?);
    Ok(())
}

/// Takes in what of Quotas is in force, as the hub would write it.
pub(super) fn write(world: &mut World, writes: Vec<QuotaWrite>, version: usize) -> Result<()> {
    for write in writes {
        let QuotaWrite::Ledger { region, grants, .. } = write else {
            continue;
        };
        let ledger = object(
            "QuotaLedger",
            json!({"name": region, "resourceVersion": version.to_string()}),
            json!({"leaderEpoch": 1, "grants": grants}),
        )?;
        world.apply_quota_ledger(&ledger);
    }
    Ok(())
}

/// Takes in the statuses of Quotas, as the hub would write them.
pub(super) fn write_statuses(world: &mut World, planner: &Planner) -> Result<()> {
    for ((home, name), status) in &planner.report().quota_statuses {
        let (tenant, region) = name.split_once('.').context("a Quota's name")?;
        let mut quota = quota(home.as_str(), tenant, region, 0)?;
        let key = (home.clone(), name.clone());
        let generation = world.quota(&key).context("a Quota")?.generation;
        // Departments have a thousand times as much as their own tenants.
        let times = if home.as_str() == "jiuzhou-system" {
            1_000
        } else {
            usize::try_from(generation).context("a generation")?
        };
        quota.spec.resources = serde_json::from_value(resources(times))?;
        quota.metadata.generation = Some(generation);
        quota.status = Some(status.clone());
        world.apply_quota(&quota);
    }
    Ok(())
}

fn tenant(world: &mut World, home: &str, name: &str, own: &str) -> Result<()> {
    let uid = format!("uid-of-{own}");
    let metadata = json!({
        "name": name, "namespace": home, "uid": uid, "generation": 1,
        "finalizers": [crds::APP_FINALIZER],
    });
    let tenant: Tenant = object("Tenant", metadata, json!({"displayName": name}))?;
    world.apply_tenant(&tenant);
    let slot = NamespaceSlot {
        owner: Some(uid.as_str().into()),
        ..NamespaceSlot::plain(format!("ns-{own}").into())
    };
    world.apply_namespace(&own.into(), slot);
    Ok(())
}

fn quota(home: &str, tenant: &str, region: &str, times: usize) -> Result<Quota> {
    let name = format!("{tenant}.{region}");
    let metadata = json!({
        "name": name, "namespace": home, "uid": format!("uid-of-{home}-{name}"),
        "generation": times, "finalizers": [crds::APP_FINALIZER],
    });
    let spec = json!({"tenantName": tenant, "regionName": region, "resources": resources(times)});
    object("Quota", metadata, spec).context("a Quota")
}
