//! At rest nothing is written but leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::fault_support::{Running, Version, app, deployment, fragile, settings, version};

/// Longer than whatever is looked at once a minute.
const REST: Duration = Duration::from_secs(65);
/// What an agent remembers is saved ten seconds after it changed.
const RESTARTED: Duration = Duration::from_secs(20);
/// Kinds that only we and our users write.
const OURS: [&str; 13] = [
    "App",
    "Tenant",
    "Region",
    "MemberCluster",
    "AssignmentSlice",
    "ReportSlice",
    "ClusterReport",
    "Content",
    "ConfigMap",
    "Secret",
    "RoleBinding",
    "Namespace",
    "Service",
];

/// An object as it stands.
#[derive(PartialEq)]
struct Stands {
    version: Version,
    /// What agents report, so that a failure tells what it was about.
    says: Value,
}

/// Every object of our kinds everywhere.
async fn objects(running: &Running) -> BTreeMap<String, Stands> {
    let mut all = BTreeMap::new();
    for cluster in running.fleet.clusters() {
        let site = running.site(cluster.name()).await;
        for kind in OURS {
            // Members do not know our kinds, and list nothing.
            for object in site.list(kind, "").await {
                let meta = &object["metadata"];
                let name = format!(
                    "{}: {kind} {}/{}",
                    cluster.name(),
                    meta["namespace"],
                    meta["name"]
                );
                let says = match kind {
                    "ReportSlice" => object["spec"].clone(),
                    _ => Value::Null,
                };
                let version = version(&object);
                all.insert(name, Stands { version, says });
            }
        }
    }
    all
}

/// Mutating requests that each API server has answered about our kinds, also those without effect.
async fn writes(running: &Running) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for cluster in running.fleet.clusters() {
        let client = running.site(cluster.name()).await.client;
        let request = http::Request::get("/metrics").body(vec![]).unwrap();
        let text = client.request_text(request).await.unwrap();
        for line in text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"))
        {
            let verb = ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|v| line.contains(&format!("verb=\"{v}\"")));
            let resources = [
                "assignmentslices",
                "reportslices",
                "clusterreports",
                "contents",
                "apps",
                "tenants",
                "quotas",
                "quotaledgers",
                "isolations",
                "links",
                "linkgrants",
                "trafficpolicies",
                "networkpolicies",
                "limitranges",
                "resourcequotas",
                "regions",
                "memberclusters",
                "configmaps",
                "secrets",
                "rolebindings",
                "namespaces",
                "services",
                "deployments",
                "subjectaccessreviews",
            ];
            let ours = resources
                .iter()
                .any(|r| line.contains(&format!("resource=\"{r}\"")));
            let ours = ours && !line.contains("subresource=\"status\",verb=\"PUT\"");
            if let Some((series, count)) = line.rsplit_once(' ').filter(|_| verb && ours) {
                let count = count.to_owned();
                all.insert(format!("{}: {series}", cluster.name()), count);
            }
        }
    }
    all
}

/// What was asked for so far, and what there is.
struct Seen {
    asked: BTreeMap<String, String>,
    objects: BTreeMap<String, Stands>,
}

async fn seen(running: &Running) -> Seen {
    // In this order: what a request changes that is not counted here shows in the objects.
    Seen {
        asked: writes(running).await,
        objects: objects(running).await,
    }
}

impl Seen {
    /// Objects that changed, came or went, and requests to write that were made, since then.
    fn since(&self, before: &Self) -> BTreeSet<String> {
        let names = before.objects.keys().chain(self.objects.keys());
        let differs = names.filter_map(|name| {
            let (old, new) = (before.objects.get(name), self.objects.get(name));
            let says = |one: Option<&Stands>| one.map(|one| one.says.to_string());
            (old != new).then(|| match (says(old), says(new)) {
                (Some(old), Some(new)) if old != new => format!("{name}: {old} became {new}"),
                (Some(_), Some(_)) => format!("{name} was written"),
                (None, _) => format!("{name} is new"),
                (_, None) => format!("{name} is gone"),
            })
        });
        let more = self
            .asked
            .iter()
            .filter(|(series, count)| before.asked.get(*series) != Some(count))
            .map(|(series, count)| {
                let old = before.asked.get(series).map_or("0", String::as_str);
                format!("{series}: {old} became {count}")
            });
        differs.chain(more).collect()
    }
}

#[tokio::test]
async fn at_rest_and_by_a_restart_nothing_is_written_but_leases() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("rest").await;
    let hub = running.hub().await;
    hub.create(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": tenant, "name": "db"},
        "stringData": {"password": "secret"},
    }))
    .await;
    for name in ["web", "api"] {
        let manifests = [deployment(name, 2), settings(name, "one")];
        let mut app = app(&tenant, name, &["zhejiang"], &manifests);
        app["spec"]["secretNames"] = json!(["db"]);
        hub.create(&app).await;
    }
    for name in ["web", "api"] {
        hub.ready(&tenant, name).await;
    }
    running.whole().await;
    // Capacity is reported and snapshots are saved with a delay.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = seen(running).await;
    assert!(
        before
            .objects
            .keys()
            .any(|name| name.contains("AssignmentSlice")),
        "our objects are seen"
    );
    assert!(!before.asked.is_empty(), "requests are counted");
    tokio::time::sleep(REST).await;
    let rested = seen(running).await;
    assert_eq!(rested.since(&before), BTreeSet::new(), "at rest");
    for name in ["hub", "agent-ningbo-a"] {
        let process = running.process(name);
        let stopped = process.stop(Duration::from_secs(15)).await.unwrap();
        assert!(stopped.is_success(), "{name}: {stopped:?}");
        process.start().unwrap();
    }
    running.whole().await;
    tokio::time::sleep(RESTARTED).await;
    let mut restarted = seen(running).await.since(&rested);
    // Rights are asked for anew, which leaves nothing behind.
    restarted.retain(|what| !what.contains("subjectaccessreviews"));
    assert_eq!(restarted, BTreeSet::new(), "by a restart");
}
