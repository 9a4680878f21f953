//! At rest nothing is written but leases.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::fault_support::{Running, app, deployment, fragile, settings, version};

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

/// UID and version of every object of our kinds everywhere.
async fn versions(running: &Running) -> BTreeMap<String, (String, String)> {
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
                all.insert(name, version(&object));
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

/// What there is, and what was asked for so far.
struct Seen {
    versions: BTreeMap<String, (String, String)>,
    asked: BTreeMap<String, String>,
}

async fn seen(running: &Running) -> Seen {
    Seen {
        versions: versions(running).await,
        asked: writes(running).await,
    }
}

impl Seen {
    /// Objects that changed, came or went, and requests to write that were made, since then.
    fn since(&self, before: &Self) -> Vec<String> {
        let differs = |name: &&String| before.versions.get(*name) != self.versions.get(*name);
        let all = before.versions.keys().chain(self.versions.keys());
        let more = self
            .asked
            .iter()
            .filter(|(series, count)| before.asked.get(*series) != Some(count))
            .map(|(series, _)| series);
        all.filter(differs).chain(more).cloned().collect()
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
            .versions
            .keys()
            .any(|name| name.contains("AssignmentSlice")),
        "our objects are seen"
    );
    assert!(!before.asked.is_empty(), "requests are counted");
    tokio::time::sleep(REST).await;
    let rested = seen(running).await;
    assert_eq!(rested.since(&before), Vec::<String>::new(), "at rest");
    for name in ["hub", "agent-ningbo-a"] {
        let process = running.process(name);
        process.stop(Duration::from_secs(5)).await.unwrap();
        process.start().unwrap();
    }
    running.whole().await;
    tokio::time::sleep(RESTARTED).await;
    let mut restarted = seen(running).await.since(&rested);
    // Rights are asked for anew, which leaves nothing behind.
    restarted.retain(|what| !what.contains("subjectaccessreviews"));
    assert_eq!(restarted, Vec::<String>::new(), "by a restart");
}
