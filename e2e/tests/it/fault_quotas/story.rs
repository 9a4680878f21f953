//! What users do: tenants come and go, Quotas are made, raised, cut and deleted, Apps grow and shrink.

use std::time::Duration;

use e2e::random::Random;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::fault_support::{Site, deployment};

pub(crate) const ROOT: &str = "jiuzhou-system";
/// Tenants, by the namespace they live in; those above before those below.
pub(crate) const TENANTS: [(&str, &str); 10] = [
    (ROOT, "oak"),
    (ROOT, "elm"),
    ("oak", "a"),
    ("oak", "b"),
    ("oak", "c"),
    ("elm", "a"),
    ("elm", "b"),
    ("elm", "c"),
    ("oak-a", "x"),
    ("elm-b", "x"),
];
/// The first of them, which stay.
pub(crate) const FIRST: usize = 2;
/// The province, and its cities below it.
pub(crate) const REGIONS: [&str; 3] = ["zhejiang", "hangzhou", "ningbo"];
const PLACES: [&[&str]; 4] = [
    &["hangzhou"],
    &["ningbo"],
    &["hangzhou", "ningbo"],
    &["zhejiang"],
];
const APPS: [&str; 3] = ["night", "auto", "web"];
const TIERS: [&str; 4] = ["Core", "Important", "General", "Ancillary"];
/// An operation that takes longer is none.
const ANSWER: Duration = Duration::from_secs(20);

/// How operations ended.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) taken: u32,
    /// By admission, or since there is no such object.
    pub(crate) refused: u32,
    /// Nobody knows.
    pub(crate) failed: u32,
}

/// The namespace that a tenant owns.
pub(crate) fn own(home: &str, name: &str) -> String {
    if home == ROOT {
        name.to_owned()
    } else {
        format!("{home}-{name}")
    }
}

/// So many operations, one after the other, no faster than one each `pace`; fewer when too many fail.
pub(crate) async fn story(
    hub: &Site,
    mut random: Random,
    (count, failures): (u32, u32),
    pace: Duration,
) -> Done {
    let mut done = Done::default();
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while done.taken + done.refused < count && done.failed <= failures {
        ticks.tick().await;
        match timeout(ANSWER, operation(hub, &mut random)).await {
            Ok(Ok(())) => done.taken += 1,
            Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) => {
                done.refused += 1;
            }
            Ok(Err(_)) | Err(_) => done.failed += 1,
        }
    }
    done
}

/// One operation.
async fn operation(hub: &Site, random: &mut Random) -> kube::Result<()> {
    let (home, name) = *random.of(&TENANTS);
    let namespace = own(home, name);
    let region = *random.of(&REGIONS);
    let quota = format!("{name}.{region}");
    match random.below(1000) {
        0..620 => {
            let quota = quota_of(home, name, region, &resources(random, &namespace));
            set(hub, "Quota", &quota).await
        }
        // What is being deleted lets nothing grow, so it must not be the rule.
        620..630 => delete(hub, "Quota", home, &quota).await,
        630..930 => set(hub, "App", &app_of(random, &namespace)).await,
        930..945 => {
            let name = *random.of(&APPS);
            delete(hub, "App", &namespace, name).await
        }
        945..965 => {
            let (home, name) = random.of(&TENANTS[FIRST..]);
            set(hub, "Tenant", &tenant_of(home, name)).await
        }
        965..967 => {
            let (home, name) = random.of(&TENANTS[FIRST..]);
            delete(hub, "Tenant", home, name).await
        }
        967..972 => budget(hub, region, 20 + random.below(40)).await,
        972..998 => {
            let none = Patch::Merge(json!({"status": null}));
            let quotas = hub.api("Quota", home);
            let params = PatchParams::default();
            quotas.patch_status(&quota, &params, &none).await.map(drop)
        }
        _ => delete(hub, "QuotaLedger", ROOT, region).await,
    }
}

pub(crate) async fn set(hub: &Site, kind: &str, object: &Value) -> kube::Result<()> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = hub.api(kind, text("namespace"));
    let params = PatchParams::apply("somebody").force();
    let patch = Patch::Apply(object);
    api.patch(text("name"), &params, &patch).await.map(drop)
}

async fn delete(hub: &Site, kind: &str, namespace: &str, name: &str) -> kube::Result<()> {
    let api = hub.api(kind, namespace);
    api.delete(name, &DeleteParams::background())
        .await
        .map(drop)
}

/// Sets a Region's budget to so many cores and what goes with them.
pub(crate) async fn budget(hub: &Site, region: &str, cores: u64) -> kube::Result<()> {
    let amount = |name: &str, quantity: String| json!({"name": name, "quantity": quantity});
    let budget = json!([
        amount("cpu", cores.to_string()),
        amount("memory", format!("{}Gi", cores * 2)),
        amount("pods", (cores * 4).to_string()),
    ]);
    let change = Patch::Merge(json!({"spec": {"budget": budget}}));
    let regions = hub.api("Region", "");
    let params = PatchParams::default();
    regions.patch(region, &params, &change).await.map(drop)
}

pub(crate) fn tenant_of(home: &str, name: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Tenant",
        "metadata": {"name": name, "namespace": home}, "spec": {"displayName": name},
    })
}

pub(crate) fn quota_of(home: &str, name: &str, region: &str, resources: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Quota",
        "metadata": {"name": format!("{name}.{region}"), "namespace": home},
        "spec": {"tenantName": name, "regionName": region, "resources": resources},
    })
}

/// What a Quota asks for: about what fits now and then, sometimes far too much, or nonsense.
fn resources(random: &mut Random, namespace: &str) -> Value {
    let depth = u32::try_from(namespace.matches('-').count()).unwrap_or(0);
    let most = 24 >> depth;
    let mut all = Vec::new();
    for (name, chance, unit, suffix) in [
        ("cpu", 100, 1, ""),
        ("memory", 60, 2, "Gi"),
        ("pods", 40, 4, ""),
    ] {
        if !random.percent(chance) {
            continue;
        }
        let nominal = random.below(most) * unit;
        let text = |amount: u64| format!("{amount}{suffix}");
        let mut resource = json!({"name": name, "nominal": text(nominal)});
        if random.percent(40) {
            resource["borrowingLimit"] = json!(text(random.below(most) * unit));
        }
        if random.percent(40) {
            resource["lendingLimit"] = json!(text(random.below(nominal + 1)));
        }
        match random.below(100) {
            0 => resource["nominal"] = json!("900P"),
            1 => resource["lendingLimit"] = json!(text(nominal + 1)),
            2 => resource["nominal"] = json!("-1"),
            _ => {}
        }
        all.push(resource);
    }
    json!(all)
}

/// An App as somebody wants it now: work at night that runs no pod meanwhile, one that could be scaled up,
/// or one that is.
fn app_of(random: &mut Random, namespace: &str) -> Value {
    let kind = *random.of(&APPS);
    // Mostly as many replicas more or less; what each asks for changes by a rollout, which takes longer.
    let size = if random.percent(20) {
        random.below(3)
    } else {
        namespace.len() as u64 % 3
    };
    let requests = json!({
        "cpu": format!("{}m", 500 << size), "memory": format!("{}Mi", 512 << size),
    });
    let container = json!({
        "name": "main", "image": "registry.example/app:1", "resources": {"requests": requests},
    });
    let mut spec = json!({
        "zone": "ExtranetPublic", "dataGrade": "General", "tier": random.of(&TIERS),
        "placement": {"regions": {"within": random.of(&PLACES)}},
    });
    let mut serving = deployment(kind, 1);
    serving["spec"]["template"]["spec"]["containers"] = json!([container]);
    // One that changed from one to the other would be refused, since the API server adds defaults.
    if namespace.len().is_multiple_of(2) {
        serving["spec"]["strategy"] = json!({"type": "Recreate"});
    }
    let division = *random.of(&["Duplicate", "Even", "Capacity"]);
    match kind {
        "night" => spec["manifests"] = json!([nightly(&container, random.below(5))]),
        "auto" => {
            spec["scaling"] = json!({"min": 1, "max": 1 + random.below(10), "division": division});
            spec["manifests"] = json!([serving, autoscaler()]);
        }
        _ => {
            spec["replicas"] = json!({"total": random.below(4), "division": division});
            spec["manifests"] = json!([serving]);
        }
    }
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"namespace": namespace, "name": kind}, "spec": spec,
    })
}

fn nightly(container: &Value, pods: u64) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "night"},
        "spec": {"schedule": "0 3 1 1 *", "jobTemplate": {"spec": {
            "parallelism": pods,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        }}},
    })
}

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "auto"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "auto"},
            "minReplicas": 1, "maxReplicas": 1,
        },
    })
}
