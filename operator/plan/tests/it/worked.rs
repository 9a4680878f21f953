//! The worked example of the user guide, recomputed from its file and its table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::province::{Draft, Province, app, cluster, manifest, region};

const GRANTS: &str = include_str!("../../../../docs/examples/grants.yaml");
const GUIDE: &str = include_str!("../../../../docs/guide.md");

/// Rows of the table: what is asked for, and how many replicas roads and audit have then.
fn table() -> BTreeMap<String, (i32, i32)> {
    let rows = GUIDE
        .lines()
        .skip_while(|line| !line.starts_with("| asked for |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        (
            cells[1].clone(),
            (cells[2].parse().unwrap(), cells[3].parse().unwrap()),
        )
    };
    rows.map(row).collect()
}

/// One core for each replica, and none more while it is rolled out.
fn cores(name: &str, namespace: &str, replicas: i32) -> Draft {
    let mut one = manifest("Deployment", name);
    one["spec"]["strategy"] = json!({"type": "Recreate"});
    let draft = app(name)
        .in_namespace(namespace)
        .replicas(replicas, "Capacity");
    draft.set("/manifests", json!([one]))
}

fn hangzhou() -> Province {
    let mut province = Province::empty()
        .with_region(region("zhejiang", "Province", "330000", None))
        .with_region(region("hangzhou", "City", "330100", Some("zhejiang")))
        .with_cluster(cluster("hangzhou-a", "hangzhou"))
        .with_cores("hangzhou-a", 400)
        .with_budget("hangzhou", &[("cpu", "100")]);
    let documents: Vec<Value> = serde_saphyr::from_multiple(GRANTS).unwrap();
    for object in documents {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        let home = text("/metadata/namespace");
        if object["kind"] == "Tenant" {
            province.create_tenant(&home, &text("/metadata/name"), &object["spec"]);
        } else {
            let resources = object["spec"]["resources"].as_array().unwrap();
            let (tenant, of) = (text("/spec/tenantName"), text("/spec/regionName"));
            province.set_quota(&home, &tenant, &of, resources);
        }
    }
    province.settled()
}

#[test]
fn the_worked_example_of_the_guide_comes_out_as_it_says() {
    let table = table();
    assert_eq!(table.len(), 3);
    let mut province = hangzhou();
    let has = |province: &Province, name: &str| {
        let placed = province.placed(name).into_iter();
        placed.map(|(_, replicas)| replicas).sum::<i32>()
    };
    province.create(cores("audit", "tax", 10));
    province.create(cores("roads", "city-works", 30));
    province.settle();
    let now = (has(&province, "roads"), has(&province, "audit"));
    assert_eq!(now, table["roads 30, audit 10"]);
    province.edit("roads", |spec| spec.replicas.as_mut().unwrap().total = 100);
    province.settle();
    let now = (has(&province, "roads"), has(&province, "audit"));
    assert_eq!(now, table["roads 100, audit 10"]);
    province.edit("audit", |spec| spec.replicas.as_mut().unwrap().total = 40);
    province.wait(120);
    let now = (has(&province, "roads"), has(&province, "audit"));
    assert_eq!(now, table["roads 100, audit 40"]);
}
