//! The steps about Quotas: who borrows, who is refused, and how a lender has back what it lent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::{App, Condition, ConditionType, Quota, Region, Tenant, find_condition};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Stage, act::jiuzhou, look::until};
use crate::province::install;

const QUOTAS: &str = include_str!("../../../docs/examples/quotas.yaml");
const ROOT: &str = "jiuzhou-system";
/// As the sandbox's hub has it.
const GRACE: Duration = Duration::from_secs(15);
/// Pods of the fake kubelet end within this time.
const ENDING: Duration = Duration::from_secs(2);
/// What it may take beyond these.
const MARGIN: Duration = Duration::from_secs(5);

/// One department borrows what another one does not use; a third one is refused.
pub(super) async fn borrow(stage: &mut Stage) -> Result<String> {
    let client = stage.fleet.hub().client().await?;
    let budget = json!({"spec": {"budget": [{"name": "pods", "quantity": "6"}]}});
    Api::<Region>::all(client.clone())
        .patch("quzhou", &PatchParams::default(), &Patch::Merge(&budget))
        .await?;
    install::apply(&client, QUOTAS).await?;
    for name in ["culture.quzhou", "rescue.quzhou"] {
        accepted(stage, name, true).await?;
    }
    install::apply(&client, &app("culture", "portal", 6, "General")).await?;
    let portal = placed(stage, "culture", "portal", 6).await?;
    let more = "apiVersion: jiuzhou.io/v1alpha1\nkind: Tenant\nmetadata: {name: trade, namespace: jiuzhou-system}\nspec: {displayName: 商务厅}\n---\napiVersion: jiuzhou.io/v1alpha1\nkind: Quota\nmetadata: {name: trade.quzhou, namespace: jiuzhou-system}\nspec: {tenantName: trade, regionName: quzhou, resources: [{name: pods, nominal: \"3\"}]}\n";
    install::apply(&client, more).await?;
    let refused = accepted(stage, "trade.quzhou", false).await?;
    ensure!(
        refused.reason == crds::Reason::ExceedsBudget,
        "{}",
        refused.message
    );
    Ok(format!(
        "portal of culture has {portal} replicas, two granted and four borrowed\n{}{}Quota trade.quzhou: {}: {}",
        jiuzhou(stage, &["capacity", "--by", "tenant"])?,
        jiuzhou(stage, &["explain", "app", "portal", "-n", "culture"])?,
        refused.reason,
        refused.message
    ))
}

/// The lender wants it, and has it within the grace time, the end of the pods, and five seconds.
pub(super) async fn take_back(stage: &mut Stage) -> Result<String> {
    let client = stage.fleet.hub().client().await?;
    install::apply(&client, &app("rescue", "dispatch", 4, "Core")).await?;
    let began = Instant::now();
    let told = until("the borrower is told", || async {
        let told = admitted(stage, "culture", "portal").await?;
        Ok(match told {
            Some(told) if told.message.contains("go back at") => Ok(told.message),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    placed(stage, "rescue", "dispatch", 4).await?;
    let took = began.elapsed();
    let left = placed(stage, "culture", "portal", 2).await?;
    let bound = GRACE + ENDING + MARGIN;
    ensure!(took <= bound, "it took {took:?}, more than {bound:?}");
    let waits = admitted(stage, "culture", "portal").await?;
    let waits = waits.context("portal is admitted or not")?;
    for name in ["trade", "rescue", "culture"] {
        gone(stage, name).await?;
    }
    Ok(format!(
        "portal, at once: {told}\ndispatch has its four replicas {:.1} s after they were asked for (grace {} s)\nportal has {left} left, what it is granted: {}: {}\nthe three tenants are deleted, and their namespaces with them",
        took.as_secs_f32(),
        GRACE.as_secs(),
        waits.reason,
        waits.message
    ))
}

fn app(namespace: &str, name: &str, replicas: i32, tier: &str) -> String {
    let labels = json!({"app": name});
    let container = json!({
        "name": "web", "image": "registry.example/web:1",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    let app: Value = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "tier": tier, "zone": "ExtranetPublic", "dataGrade": "General",
            "placement": {"regions": {"within": ["quzhou"]}},
            "replicas": {"total": replicas, "division": "Capacity"},
            "manifests": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {
                    // No pods beside the six: that is what the step is about.
                    "strategy": {"type": "Recreate"},
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            }],
        },
    });
    app.to_string()
}

/// Waits until a Quota is accepted or refused, and returns the condition.
async fn accepted(stage: &Stage, name: &str, yes: bool) -> Result<Condition> {
    let quotas: Api<Quota> = Api::namespaced(stage.fleet.hub().client().await?, ROOT);
    until("a Quota is decided on", || async {
        let status = quotas.get(name).await?.status.unwrap_or_default();
        let found = find_condition(&status.conditions, ConditionType::Accepted);
        let wanted = if yes {
            crds::ConditionStatus::True
        } else {
            crds::ConditionStatus::False
        };
        Ok(match found {
            Some(condition) if condition.status == wanted => Ok(condition.clone()),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

async fn admitted(stage: &Stage, namespace: &str, name: &str) -> Result<Option<Condition>> {
    let apps: Api<App> = Api::namespaced(stage.fleet.hub().client().await?, namespace);
    let status = apps.get(name).await?.status.unwrap_or_default();
    Ok(find_condition(&status.conditions, ConditionType::Admitted).cloned())
}

/// Waits until an App has exactly so many replicas placed and ready.
async fn placed(stage: &Stage, namespace: &str, name: &str, count: i32) -> Result<i32> {
    let apps: Api<App> = Api::namespaced(stage.fleet.hub().client().await?, namespace);
    until("replicas are placed and ready", || async {
        let status = apps.get(name).await?.status.unwrap_or_default();
        let has = (status.replicas, status.ready_replicas);
        Ok(if has == (count, count) {
            Ok(count)
        } else {
            Err(format!("{name} has {} placed, {} ready", has.0, has.1))
        })
    })
    .await
}

/// Deletes a Tenant and then its Quota, and waits until both are gone.
async fn gone(stage: &Stage, name: &str) -> Result<()> {
    let client = stage.fleet.hub().client().await?;
    let tenants: Api<Tenant> = Api::namespaced(client.clone(), ROOT);
    let quotas: Api<Quota> = Api::namespaced(client, ROOT);
    let quota = format!("{name}.quzhou");
    tenants.delete(name, &DeleteParams::default()).await?;
    until("the Tenant is gone", || async {
        let left = tenants.get_opt(name).await?;
        Ok(left.map_or(Ok(()), |left| Err(format!("{:?}", left.status))))
    })
    .await?;
    quotas.delete(&quota, &DeleteParams::default()).await?;
    until("the Quota is gone", || async {
        let left = quotas.get_opt(&quota).await?;
        Ok(left.map_or(Ok(()), |left| Err(format!("{:?}", left.status))))
    })
    .await
}
