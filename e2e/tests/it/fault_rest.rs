//! At rest nothing is written but leases.

use std::{collections::BTreeMap, time::Duration};

use crate::fault_support::{Running, app, deployment, fragile, settings, version};

const REST: Duration = Duration::from_secs(20);
/// Kinds that only we and our users write.
const OURS: [&str; 12] = [
    "App",
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

#[tokio::test]
async fn at_rest_nothing_is_written_but_leases() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("rest").await;
    let hub = running.hub().await;
    for name in ["web", "api"] {
        let manifests = [deployment(name, 2), settings(name, "one")];
        hub.create(&app(&tenant, name, &["zhejiang"], &manifests))
            .await;
    }
    for name in ["web", "api"] {
        hub.ready(&tenant, name).await;
    }
    running.whole().await;
    // Capacity is reported and snapshots are saved with a delay.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (before, counted) = (versions(running).await, writes(running).await);
    assert!(
        before.keys().any(|name| name.contains("AssignmentSlice")),
        "our objects are seen"
    );
    assert!(!counted.is_empty(), "requests are counted");
    tokio::time::sleep(REST).await;
    let (after, counts) = (versions(running).await, writes(running).await);
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let changed: Vec<&String> = before.keys().chain(after.keys()).filter(differs).collect();
    assert!(changed.is_empty(), "written at rest: {changed:#?}");
    let more = |(series, count): (&String, &String)| {
        (counted.get(series) != Some(count)).then(|| series.clone())
    };
    let asked: Vec<String> = counts.iter().filter_map(more).collect();
    assert!(asked.is_empty(), "asked to write at rest: {asked:#?}");
}
