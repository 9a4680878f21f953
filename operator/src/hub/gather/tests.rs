use crds::{App, AssignmentSlice};
use plan::world::{Hub, Settings};
use serde_json::{Value, json};

use super::*;

fn gathered() -> Gathered {
    let hub = Hub {
        id: "hub-1".into(),
        epoch: 1,
        leader_epoch: 1,
    };
    Gathered::new(World::new(hub, Settings::default()), Clock::start())
}

fn read<K>(value: Value) -> DeserializeGuard<K>
where
    K: kube::Resource + serde::de::DeserializeOwned,
{
    serde_json::from_value(value).unwrap()
}

fn slice(version: &str, sequence: i64) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "AssignmentSlice",
        "metadata": {"name": "a-0000", "namespace": "jz-ningbo-a", "resourceVersion": version},
        "spec": {
            "hubId": "hub-1", "hubEpoch": 1, "leaderEpoch": 1, "sequence": sequence,
            "management": "Manage", "clusterUID": "u", "entries": [],
        },
    })
}

fn app(version: &str, zone: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {
            "name": "web", "namespace": "health", "uid": "u", "generation": 3,
            "resourceVersion": version,
        },
        "spec": {"zone": zone, "dataGrade": "General", "manifests": []},
    })
}

fn sequence(gathered: &Gathered) -> i64 {
    let slice = gathered.world.slice(&"ningbo-a".into(), "a-0000").unwrap();
    slice.header.sequence
}

fn zone(gathered: &Gathered) -> crds::Zone {
    let slot = gathered.world.app(&"u".into()).unwrap();
    slot.state.as_ref().unwrap().zone
}

#[test]
fn a_store_that_was_restored_is_believed_although_its_versions_are_lower() {
    let mut gathered = gathered();
    gathered.hear(Heard::Slices(Change::Replaced(vec![read(slice("80", 7))])));
    gathered.hear(Heard::Slices(Change::Applied(read(slice("100", 9)))));
    gathered.hear(Heard::Apps(Change::Applied(read(app("100", "Internet")))));
    gathered.hear(Heard::Slices(Change::Replaced(vec![read(slice("50", 4))])));
    assert_eq!(sequence(&gathered), 4);
    let restored = Change::Replaced(vec![read(app("50", "ExtranetPublic"))]);
    gathered.hear(Heard::Apps(restored));
    assert_eq!(zone(&gathered), crds::Zone::ExtranetPublic);
    gathered.hear(Heard::Slices(Change::Applied(read(slice("51", 5)))));
    assert_eq!(sequence(&gathered), 5);
}

#[test]
fn a_list_that_is_older_than_our_own_write_does_not_undo_it() {
    let mut gathered = gathered();
    gathered.hear(Heard::Slices(Change::Applied(read(slice("100", 9)))));
    let written: AssignmentSlice = serde_json::from_value(slice("101", 10)).unwrap();
    gathered.take_slice(&"ningbo-a".into(), written, Some(1));
    gathered.hear(Heard::Slices(Change::Replaced(vec![read(slice("100", 9))])));
    assert_eq!(sequence(&gathered), 10);
}

#[test]
fn an_object_that_cannot_be_read_stands_for_itself_and_is_counted() {
    let mut gathered = gathered();
    gathered.hear(Heard::Slices(Change::Applied(read(slice("100", 9)))));
    let mut broken = slice("101", 10);
    broken["spec"]["hubEpoch"] = json!("one");
    gathered.hear(Heard::Slices(Change::Replaced(vec![read(broken)])));
    assert_eq!(sequence(&gathered), 9, "what was known of it stands");
    let count = |g: &Gathered| g.unreadable.get(SLICES).map_or(0, BTreeSet::len);
    assert_eq!(count(&gathered), 1);
    gathered.hear(Heard::Slices(Change::Applied(read(slice("102", 11)))));
    assert_eq!(sequence(&gathered), 11);
    assert_eq!(count(&gathered), 0);
}

#[test]
fn an_app_is_gone_when_a_list_leaves_it_out_and_another_of_its_name_is_another() {
    let mut gathered = gathered();
    gathered.hear(Heard::Apps(Change::Replaced(vec![read(app(
        "1", "Internet",
    ))])));
    let mut again = app("2", "Internet");
    again["metadata"]["uid"] = json!("v");
    gathered.hear(Heard::Apps(Change::Replaced(vec![read::<App>(again)])));
    assert!(gathered.world.app(&"u".into()).is_none());
    assert!(gathered.world.app(&"v".into()).is_some());
}

#[test]
fn a_cluster_that_is_deleted_is_no_contact_any_more() {
    let mut gathered = gathered();
    let cluster = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
        "metadata": {"name": "ningbo-a", "generation": 1},
        "spec": {
            "regionName": "ningbo", "zone": "ExtranetPublic", "protectionLevel": 3,
            "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
        },
    });
    gathered.hear(Heard::Clusters(Change::Applied(read(cluster.clone()))));
    let lease = |time: &str| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "agent", "namespace": "jz-ningbo-a"},
            "spec": {"renewTime": time},
        }))
        .unwrap()
    };
    for time in ["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:10.000000Z"] {
        gathered.hear(Heard::Leases(Change::Applied(lease(time))));
    }
    assert_eq!(gathered.contacts.len(), 1);
    gathered.hear(Heard::Clusters(Change::Deleted(read(cluster))));
    assert!(gathered.contacts.is_empty());
    // A Lease that outlives its cluster brings none back.
    gathered.hear(Heard::Leases(Change::Applied(lease(
        "2026-01-01T00:00:20.000000Z",
    ))));
    assert!(gathered.contacts.is_empty());
}
