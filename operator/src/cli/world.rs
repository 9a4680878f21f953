//! The world as the command line sees it: one list per kind, and the plan is computed here.

use anyhow::Context as _;
use crds::{
    App, Approval, AssignmentSlice, CONTENT_NAMESPACE, ClusterReport, Isolation, Link, LinkGrant,
    MemberCluster, Quota, QuotaLedger, Region, ReportSlice, SYSTEM_NAMESPACE, Tenant,
    TrafficPolicy, Uid, cluster_of_namespace,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt as _};
use plan::World;
use plan::world::{Hub, NamespaceSlot, Settings};
use serde::de::DeserializeOwned;

/// Reads everything the plan needs. Needs the right to list our kinds; see the user guide.
pub(super) async fn read(client: &Client) -> anyhow::Result<World> {
    let mut world = World::new(identity(client).await?, Settings::default());
    let now = jiff::Timestamp::now().as_millisecond();
    world.now = now;
    // Contact is as the hub last wrote it: a command line hears no heartbeats.
    world.started = now;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.list_metadata(&ListParams::default()).await;
    for namespace in found.context("cannot list namespaces")?.items {
        world.apply_namespace(
            &namespace.name_any().into(),
            NamespaceSlot::of(&namespace.metadata),
        );
    }
    each::<Region>(client, |o| world.apply_region(&o)).await?;
    each::<MemberCluster>(client, |o| world.apply_cluster(&o)).await?;
    each::<Tenant>(client, |o| world.apply_tenant(&o)).await?;
    each::<Quota>(client, |o| world.apply_quota(&o)).await?;
    each::<QuotaLedger>(client, |o| world.apply_quota_ledger(&o)).await?;
    each::<Isolation>(client, |o| world.apply_isolation(o)).await?;
    each::<Link>(client, |o| world.apply_link(o)).await?;
    each::<LinkGrant>(client, |o| world.apply_link_grant(o)).await?;
    each::<TrafficPolicy>(client, |o| world.apply_policy(&o)).await?;
    each::<Approval>(client, |o| world.apply_approval(o)).await?;
    for slice in list::<AssignmentSlice>(client).await? {
        if let Some(cluster) = slice.namespace().and_then(|n| cluster_of_namespace(&n)) {
            world.apply_slice(&cluster, slice, None);
        }
    }
    for report in list::<ReportSlice>(client).await? {
        if let Some(cluster) = report.namespace().and_then(|n| cluster_of_namespace(&n)) {
            world.apply_report(&cluster, report);
        }
    }
    for report in list::<ClusterReport>(client).await? {
        if let Some(cluster) = report.namespace().and_then(|n| cluster_of_namespace(&n)) {
            world.apply_cluster_report(cluster, &report);
        }
    }
    let contents: Api<crate::hub::Stored> = Api::namespaced(client.clone(), CONTENT_NAMESPACE);
    let found = contents.list(&ListParams::default()).await;
    for content in found.context("cannot list contents.jiuzhou.io")?.items {
        world.apply_content(&content.name_any(), crate::hub::stored(&content));
    }
    each::<App>(client, |o| world.apply_app(&o)).await?;
    Ok(world)
}

/// Takes in all objects of a kind.
async fn each<K>(client: &Client, take: impl FnMut(K)) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    list::<K>(client).await?.into_iter().for_each(take);
    Ok(())
}

/// Lists all objects of a kind.
pub(super) async fn list<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let found = api.list(&ListParams::default()).await;
    let found =
        found.with_context(|| format!("cannot list {}.{}", K::plural(&()), K::group(&())))?;
    Ok(found.items)
}

async fn identity(client: &Client) -> Result<Hub, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let map = maps
        .get_opt("jiuzhou-hub")
        .await?
        .and_then(|map| map.data)
        .unwrap_or_default();
    let id = map.get("id").map_or("unknown", String::as_str);
    let epoch = map
        .get("epoch")
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(1);
    Ok(Hub {
        id: Uid::from(id),
        epoch,
        leader_epoch: 0,
    })
}
