//! What users do and see in a shell of their own: the README's App, tables, and the command line.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use e2e::{
    fleet::Cluster,
    province::{binary, install},
};
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::fault_support::{Running, Site, app, condition, fragile, province, settings};

/// Columns of a terminal that is not wide.
const WIDTH: usize = 100;

/// Runs a command of the operator against the hub, as its administrator.
async fn jiuzhou(running: &Running, arguments: &[&str]) -> Output {
    jiuzhou_at(running.fleet.hub(), arguments).await
}

/// Runs a command of the operator against a cluster, as its administrator.
pub(crate) async fn jiuzhou_at(cluster: &Cluster, arguments: &[&str]) -> Output {
    let binary = tokio::task::spawn_blocking(binary::jiuzhou);
    let binary = binary.await.expect("it ends").expect("it builds");
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig_file());
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.expect("it ends").expect("it runs")
}

/// What a command says, when it succeeds.
async fn said(running: &Running, arguments: &[&str]) -> String {
    let output = jiuzhou(running, arguments).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

async fn said_json(running: &Running, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&said(running, &arguments).await).expect("one JSON object")
}

/// Lines of a table as kubectl prints several kinds: the kind before the name, three spaces between
/// columns.
async fn printed(hub: &Site, plural: &str, singular: &str) -> Vec<String> {
    let request = http::Request::get(format!("/apis/jiuzhou.io/v1alpha1/{plural}"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(vec![])
        .expect("a request");
    let table: Value = hub.client.request(request).await.expect("a table");
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let shown: Vec<usize> = (0..columns.len())
        .filter(|at| columns[*at]["priority"] == 0)
        .collect();
    let header = shown
        .iter()
        .map(|at| columns[*at]["name"].as_str().unwrap_or_default().to_owned());
    let mut rows = vec![header.collect::<Vec<_>>()];
    for row in table["rows"].as_array().expect("rows") {
        let cell = |at: &usize| {
            let value = &row["cells"][*at];
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let mut cells: Vec<String> = shown.iter().map(cell).collect();
        cells[0] = format!("{singular}.jiuzhou.io/{}", cells[0]);
        rows.push(cells);
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<usize> = (0..shown.len()).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[tokio::test]
async fn the_app_of_the_readme_gets_ready_and_all_tables_fit_a_terminal() {
    let running = province().await;
    let hub = running.hub().await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "health"}});
    hub.create(&namespace).await;
    let example = include_str!("../../../docs/examples/health-code.yaml");
    install::apply(&hub.client, example).await.expect("applied");
    hub.ready("health", "health-code").await;
    for (plural, singular) in [
        ("apps", "app"),
        ("regions", "region"),
        ("memberclusters", "membercluster"),
    ] {
        let lines = printed(&hub, plural, singular).await;
        assert!(lines.len() > 1, "{plural} has rows");
        let long: Vec<_> = lines
            .iter()
            .filter(|line| line.chars().count() > WIDTH)
            .collect();
        assert!(
            long.is_empty(),
            "wider than {WIDTH} columns:\n{}",
            lines.join("\n")
        );
    }
}

#[tokio::test]
async fn the_kinds_have_the_short_names_that_the_guide_gives() {
    let hub = province().await.hub().await;
    let request = http::Request::get("/apis/jiuzhou.io/v1alpha1")
        .body(vec![])
        .expect("a request");
    let resources: Value = hub.client.request(request).await.expect("resources");
    let short = |plural: &str| {
        let all = resources["resources"].as_array().expect("resources");
        let one = all.iter().find(|resource| resource["name"] == plural);
        one.map_or(Value::Null, |resource| resource["shortNames"].clone())
    };
    assert_eq!(short("apps"), json!(["japp"]));
    assert_eq!(short("regions"), json!(["rg"]));
    assert_eq!(short("memberclusters"), json!(["mbc"]));
    assert_eq!(short("tenants"), json!(["tn"]));
    assert_eq!(short("quotas"), json!(["qt"]));
    assert_eq!(short("isolations"), json!(["iso"]));
    assert_eq!(short("links"), json!(["lnk"]));
    assert_eq!(short("trafficpolicies"), json!(["tp"]));
}

#[tokio::test]
async fn status_shows_the_province_on_one_screen_and_as_json() {
    let running = province().await;
    let text = said(running, &["status"]).await;
    for name in ["zhejiang", "hangzhou", "ningbo", "quzhou"] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    let json = said_json(running, &["status"]).await;
    assert!(json["kind"].is_string() && json["apiVersion"].is_string());
}

#[tokio::test]
async fn explain_gives_a_reason_for_every_cluster() {
    let running = province().await;
    let (tenant, hub) = (running.tenant("explain").await, running.hub().await);
    hub.create(&app(&tenant, "web", &["ningbo"], &[settings("web", "one")]))
        .await;
    hub.ready(&tenant, "web").await;
    let text = said(running, &["explain", "app", "web", "-n", &tenant]).await;
    for cluster in ["zhejiang-a", "hangzhou-a", "ningbo-a", "quzhou-a"] {
        let line = text.lines().find(|line| line.contains(cluster));
        assert!(line.is_some(), "{cluster} is not in\n{text}");
    }
    let output = jiuzhou(running, &["explain", "app", "absent", "-n", &tenant]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("absent") && error.contains(&tenant),
        "{error}"
    );
}

#[tokio::test]
async fn simulate_says_what_a_lost_region_would_move_and_writes_nothing() {
    let running = province().await;
    let (tenant, hub) = (running.tenant("lose").await, running.hub().await);
    let mut web = app(&tenant, "web", &[], &[settings("web", "one")]);
    web["spec"]["placement"] = json!({"regions": {"levels": ["City"]}, "maxRegions": 1});
    hub.create(&web).await;
    let ready = hub.ready(&tenant, "web").await;
    let home = ready["status"]["placements"][0]["clusterName"]
        .as_str()
        .expect("it is placed");
    let region = home.strip_suffix("-a").expect("our names");
    let lost = said_json(running, &["simulate", "--lose", region]).await;
    let mut moved = lost["changes"].as_array().expect("changes").iter();
    let name = format!("{tenant}/web");
    let ours = moved.find(|change| change["app"] == name.as_str());
    let ours = ours.unwrap_or_else(|| panic!("{name} is not in {lost:#}"));
    assert!(ours["before"].get(home).is_some(), "{ours:#}");
    assert!(ours["after"].get(home).is_none(), "{ours:#}");
    let now = hub.get("App", &tenant, "web").await.unwrap();
    assert_eq!(
        now["metadata"]["resourceVersion"],
        ready["metadata"]["resourceVersion"]
    );

    let output = jiuzhou(running, &["simulate", "--lose", "atlantis"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("atlantis"), "{error}");
}

/// The file of the guide, and the objects in it that tell when they are Ready.
const LAUNCH: &str = include_str!("../../../crds/examples/emergency-launch.yaml");
const LAUNCHED: [(&str, &str, &str); 5] = [
    ("Quota", "jiuzhou-system", "venue.zhejiang"),
    ("Isolation", "", "extranet-public"),
    ("App", "identity", "sso"),
    ("App", "venue", "venue-code"),
    ("Link", "venue", "venue-to-identity"),
];

async fn take_back_the_launch(hub: &Site) {
    hub.delete("Isolation", "", "extranet-public").await;
    hub.delete("Quota", "jiuzhou-system", "venue.zhejiang")
        .await;
    for tenant in ["venue", "identity"] {
        hub.delete("Tenant", "jiuzhou-system", tenant).await;
    }
    for tenant in ["venue", "identity"] {
        hub.gone("Tenant", "jiuzhou-system", tenant).await;
        hub.gone("Namespace", "", tenant).await;
    }
    hub.gone("Quota", "jiuzhou-system", "venue.zhejiang").await;
}

#[tokio::test]
async fn a_launch_in_one_file_converges_by_one_command_of_ours_or_of_kubectl() {
    let (_taken, running) = fragile().await;
    let hub = running.hub().await;
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crds/examples/emergency-launch.yaml"
    );
    let told = said(running, &["apply", "-f", file]).await;
    assert!(
        told.contains("Link venue/venue-to-identity is Ready"),
        "{told}"
    );
    assert!(
        told.trim_end().ends_with("10 objects applied, 0 not Ready"),
        "{told}"
    );
    let again = said_json(running, &["apply", "-f", file]).await;
    assert_eq!(again["applied"], 10);
    assert_eq!(again["notReady"], json!([]));
    take_back_the_launch(&hub).await;
    // Once, from the top to the bottom, and nobody comes back to it.
    install::apply(&hub.client, LAUNCH)
        .await
        .expect("it is taken");
    for object in LAUNCHED {
        hub.until("is Ready", object, |found| {
            condition(found, "Ready").is_some_and(|(status, ..)| status == "True")
        })
        .await;
    }
    take_back_the_launch(&hub).await;
}

#[tokio::test]
async fn apply_tells_what_each_object_waits_on_and_fails_when_its_time_is_over() {
    let running = province().await;
    let tenant = running.tenant("late").await;
    let mut impossible = app(&tenant, "web", &["hangzhou"], &[settings("web", "one")]);
    impossible["spec"]["protectionLevel"] = json!(5);
    let file = std::env::temp_dir().join(format!("jiuzhou-late-{}.json", std::process::id()));
    std::fs::write(&file, impossible.to_string()).expect("it is written");
    let name = file.to_str().expect("UTF-8");
    let output = jiuzhou(running, &["apply", "-f", name, "--timeout", "4s"]).await;
    std::fs::remove_file(&file).expect("it is there");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        told.contains(&format!("App {tenant}/web applied")),
        "{told}"
    );
    assert!(
        told.contains(&format!("App {tenant}/web: NoClusterQualifies:")),
        "{told}"
    );
    assert!(told.contains("1 object applied, 1 not Ready"), "{told}");
}

/// Applies an object from a file, and returns the exit code and what is told.
async fn applied(running: &Running, object: &Value) -> (Option<i32>, String) {
    let name = &object["metadata"]["namespace"];
    let name = name.as_str().expect("a namespace");
    let file = std::env::temp_dir().join(format!("jiuzhou-{name}-{}.json", std::process::id()));
    std::fs::write(&file, object.to_string()).expect("it is written");
    let output = jiuzhou(running, &["apply", "-f", file.to_str().expect("UTF-8")]).await;
    std::fs::remove_file(&file).expect("it is there");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code(), told)
}

#[tokio::test]
async fn apply_drops_what_kubectl_apply_set_and_ends_where_the_file_is_at_fault() {
    let running = province().await;
    let hub = running.hub().await;
    let tenant = running.tenant("turns").await;
    let note = "kubectl.kubernetes.io/last-applied-configuration";
    let new = app(&tenant, "web", &["hangzhou"], &[settings("web", "one")]);
    let with = |path: &str| {
        let mut object = new.clone();
        object["spec"]["overrides"] = json!([{
            "regions": {"within": ["hangzhou"]}, "target": {"kind": "ConfigMap", "name": "web"},
            "patch": [{"op": "replace", "path": path, "value": "two"}],
        }]);
        object
    };
    let mut old = with("/data/key");
    old["metadata"]["annotations"] = json!({note: "{}"});
    old["metadata"]["labels"] = json!({"example.gov/old": "1"});
    let by_kubectl = PostParams {
        field_manager: Some("kubectl-client-side-apply".to_owned()),
        ..PostParams::default()
    };
    let old: DynamicObject = serde_json::from_value(old).expect("an object");
    let apps = hub.api("App", &tenant);
    apps.create(&by_kubectl, &old).await.expect("it is taken");

    let (code, told) = applied(running, &new).await;
    assert_eq!(code, Some(0), "{told}");
    let found = hub.get("App", &tenant, "web").await.expect("it is there");
    assert_eq!(found["spec"].get("overrides"), None, "{found:#}");
    assert_eq!(found["metadata"].get("labels"), None, "{found:#}");
    let notes = &found["metadata"]["annotations"];
    assert_eq!(notes[note], "{}", "it is kubectl's own: {notes:#}");
    assert!(notes[crds::label::CHANGED_BY].is_string(), "{notes:#}");
    let finalizers = &found["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!([crds::APP_FINALIZER]));

    let began = Instant::now();
    let (code, told) = applied(running, &with("/data/none")).await;
    assert_eq!(code, Some(1), "{told}");
    let line = format!("App {tenant}/web stands still: InvalidPatch: ");
    assert!(told.contains(&line), "{told}");
    let took = began.elapsed();
    assert!(took < Duration::from_mins(2), "of five minutes: {took:?}");
}
