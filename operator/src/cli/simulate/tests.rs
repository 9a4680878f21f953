use super::*;
use plan::world::{Hub, Settings};

const NOW: i64 = 1_800_000_000_000;

fn world() -> World {
    let hub = Hub {
        id: "hub-1".into(),
        epoch: 1,
        leader_epoch: 1,
    };
    let mut world = World::new(hub, Settings::default());
    (world.now, world.started) = (NOW, NOW);
    world
}

fn app(namespace: &str) -> String {
    format!(
        "{{kind: App, apiVersion: jiuzhou.io/v1alpha1, metadata: {{name: web, namespace: {namespace}}}, \
         spec: {{zone: Internet, dataGrade: General, manifests: []}}}}"
    )
}

#[test]
fn what_happens_to_an_app_has_its_own_word() {
    let placed = |all: &[(&str, i32)]| -> Placement {
        let one = |(name, count): &(&str, i32)| ((*name).into(), Some(*count));
        all.iter().map(one).collect()
    };
    let kind = |before, after| {
        let difference = Difference {
            app: String::new(),
            before: placed(before),
            after: placed(after),
            lost: Vec::new(),
            note: String::new(),
        };
        difference.kind()
    };
    let two: &[_] = &[("a", 2), ("b", 2)];
    assert_eq!(kind(&[], two), "starts");
    assert_eq!(kind(two, two), "stays");
    assert_eq!(kind(two, &[]), "stops");
    assert_eq!(kind(two, &[("a", 2)]), "shrinks");
    assert_eq!(kind(two, &[("a", 4)]), "moves");
    assert_eq!(kind(two, &[("a", 2), ("c", 2)]), "moves");
    assert_eq!(kind(two, &[("a", 2), ("b", 2), ("c", 2)]), "grows");
}

#[test]
fn a_new_app_is_the_youngest_and_one_of_each_namespace_is_its_own() {
    let mut world = world();
    for namespace in ["health", "police"] {
        add(&mut world, &app(namespace)).unwrap();
    }
    assert_eq!(world.apps().count(), 2);
    assert!(world.apps().all(|(_, slot)| slot.created == NOW));
}

#[test]
fn what_is_there_keeps_its_age_its_status_and_its_identity() {
    let mut world = world();
    let there: App = serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {
            "name": "web", "namespace": "health", "uid": "u", "generation": 7,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {label::CHANGED_BY: "alice"},
        },
        "spec": {"zone": "ExtranetPublic", "dataGrade": "General", "manifests": []},
        "status": {"readiness": "1/1"},
    }))
    .unwrap();
    world.apply_app(&there);
    add(&mut world, &app("health")).unwrap();
    let slot = world.app(&"u".into()).unwrap();
    assert_eq!(slot.created, 1_767_225_600_000);
    assert_eq!(slot.generation, 8);
    assert_eq!(slot.changed_by.as_deref(), Some("alice"));
    assert_eq!(slot.status.readiness.as_deref(), Some("1/1"));
    assert_eq!(slot.state.as_ref().unwrap().zone, crds::Zone::Internet);
}

#[test]
fn a_member_cluster_from_a_file_stays_joined() {
    let mut world = world();
    let cluster = |zone: &str| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
            "metadata": {"name": "ningbo-a"},
            "spec": {
                "regionName": "ningbo", "zone": zone, "protectionLevel": 3,
                "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
            },
        })
    };
    let mut there = cluster("Internet");
    there["metadata"]["generation"] = json!(2);
    there["status"] = json!({"clusterUID": "pinned"});
    world.apply_cluster(&serde_json::from_value(there).unwrap());
    add(&mut world, &cluster("ExtranetPublic").to_string()).unwrap();
    let slot = world.cluster(&"ningbo-a".into()).unwrap();
    assert_eq!(slot.pinned(), Some(&"pinned".into()));
    assert_eq!(slot.generation, 3);
    add(
        &mut world,
        &cluster("Internet").to_string().replace("ningbo", "cixi"),
    )
    .unwrap();
    assert!(world.cluster(&"cixi-a".into()).unwrap().exists());
}

/// A city with a cluster, and an App that fits nowhere else.
fn of_one_city() -> World {
    let mut world = world();
    let namespace = plan::world::NamespaceSlot::plain("ns-health".into());
    world.apply_namespace(&"health".into(), namespace);
    for (name, level, code, parent) in [
        ("zhejiang", "Province", "330000", None),
        ("hangzhou", "City", "330100", Some("zhejiang")),
    ] {
        let region = json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Region",
            "metadata": {"name": name, "generation": 1},
            "spec": {"displayName": name, "level": level, "code": code, "parent": parent},
        });
        world.apply_region(&serde_json::from_value(region).unwrap());
    }
    let cluster = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
        "metadata": {"name": "hangzhou-a", "generation": 1},
        "spec": {
            "regionName": "hangzhou", "zone": "ExtranetPublic", "protectionLevel": 3,
            "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
        },
    });
    world.apply_cluster(&serde_json::from_value(cluster).unwrap());
    let report = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ClusterReport", "metadata": {"name": "cluster"},
        "spec": {
            "clusterUID": "hangzhou-a", "agentVersion": "0.1.0", "kubernetesVersion": "v1.33.1",
            "nodes": {"total": 3, "ready": 3},
            "allocatable": [{"name": "cpu", "quantity": "40"}],
        },
    });
    let report = serde_json::from_value(report).unwrap();
    world.apply_cluster_report("hangzhou-a".into(), &report);
    world.apply_heartbeat(&"hangzhou-a".into(), NOW);
    world.heard = NOW;
    let container = json!({
        "name": "web", "image": "registry.example/web:1", "resources": {"requests": {"cpu": "2"}},
    });
    let web = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {
            "name": "web", "namespace": "health", "uid": "u", "generation": 1,
            "finalizers": [crds::APP_FINALIZER],
        },
        "spec": {
            "zone": "ExtranetPublic", "dataGrade": "General",
            "replicas": {"total": 4, "division": "Capacity"},
            "manifests": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"template": {"spec": {"containers": [container]}}},
            }],
        },
    });
    world.apply_app(&serde_json::from_value(web).unwrap());
    world
}

#[test]
fn what_a_lost_region_held_and_nobody_takes_is_told_as_lost() {
    let today = of_one_city();
    let mut changed = today.clone();
    let lose = Change {
        files: Vec::new(),
        lose: vec!["hangzhou".to_owned()],
        at: None,
    };
    alter(&mut changed, &lose).unwrap();
    let (_, before) = plan::plan(&today);
    let (_, mut after) = plan::plan(&changed);
    // What runs keeps its place in the plan where there is no other one.
    after.apps.clone_from(&before.apps);
    let differences = compare(&before, &after);
    let [web] = differences.as_slice() else {
        panic!("one App of {}", differences.len());
    };
    assert_eq!(show(&web.before), "hangzhou-a:4");
    assert_eq!(show(&web.after), "-");
    assert_eq!(web.lost, [ClusterName::from("hangzhou-a")]);
    assert_eq!(
        (web.kind(), web.note.as_str()),
        ("stops", "lost in hangzhou-a")
    );
    let told = with_lost("0 of 1 regions".to_owned(), &web.lost);
    assert_eq!(told, "lost in hangzhou-a: 0 of 1 regions");
}
