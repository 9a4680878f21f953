use plan::world::{Hub, Settings};
use serde_json::json;

use super::*;

fn head(name: &str, version: &str, source: Option<&str>) -> Head {
    let copied = |source: &str| {
        let annotations = [(SOURCE, source), (USERS, "web")];
        annotations
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    };
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        uid: Some("u".to_owned()),
        resource_version: Some(version.to_owned()),
        annotations: source.map(copied),
        ..ObjectMeta::default()
    };
    Head {
        metadata,
        kind: "Opaque".to_owned(),
    }
}

/// Nothing but an entry of App `web` for `hangzhou-a`, in that state, that names these copies.
fn ledger(state: &str, copies: &[&str]) -> World {
    let hub = Hub {
        id: "hub-1".into(),
        epoch: 1,
        leader_epoch: 1,
    };
    let secrets: Vec<_> = copies
        .iter()
        .map(|copy| json!({"name": copy.trim_start_matches("s-"), "copy": copy}))
        .collect();
    let slice = serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "AssignmentSlice",
        "metadata": {"name": "a-0000", "resourceVersion": "1"},
        "spec": {
            "hubId": "hub-1", "hubEpoch": 1, "leaderEpoch": 1, "sequence": 1,
            "management": "Manage", "clusterUID": "u", "entries": [{
                "uid": "web", "namespace": "health", "name": "web", "generation": 1,
                "state": state, "content": "0".repeat(20), "pack": "c-0", "secrets": secrets,
            }],
        },
    }));
    let mut world = World::new(hub, Settings::default());
    world.apply_slice(&"hangzhou-a".into(), slice.unwrap(), None);
    world
}

fn listed(heads: Option<Vec<Head>>) -> Listed {
    let heads = heads.map(|all| all.into_iter().map(|head| (head.name(), head)).collect());
    Listed {
        heads,
        _watch: JoinSet::new(),
    }
}

fn steps(sources: Option<Vec<Head>>, copies: Option<Vec<Head>>, names: &[&str]) -> Vec<String> {
    let entries: Vec<String> = names.iter().map(|name| format!("s-{name}")).collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    steps_in(&ledger("Present", &entries), sources, copies)
}

fn steps_in(world: &World, sources: Option<Vec<Head>>, copies: Option<Vec<Head>>) -> Vec<String> {
    let (sender, _heard) = mpsc::channel(1);
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let mut secrets = Secrets::new(client, sender);
    secrets.sources.insert("health".into(), listed(sources));
    secrets.copies.insert("hangzhou-a".into(), listed(copies));
    let mut users = [Uid::from("web")].into();
    let wanted = wanted(world, &mut users);
    let steps = secrets.decide(world, &wanted);
    steps.iter().map(Step::place).collect()
}

#[tokio::test]
async fn a_copy_is_written_when_it_is_missing_or_older_than_its_source() {
    let source = || Some(vec![head("db", "2", None)]);
    let copy = ["copy of Secret health/db for hangzhou-a"];
    assert_eq!(steps(source(), Some(vec![]), &["db"]), copy);
    assert_eq!(
        steps(
            source(),
            Some(vec![head("s-db", "9", Some("u/1"))]),
            &["db"]
        ),
        copy
    );
    assert!(
        steps(
            source(),
            Some(vec![head("s-db", "9", Some("u/2"))]),
            &["db"]
        )
        .is_empty()
    );
}

#[tokio::test]
async fn a_copy_goes_when_an_entry_says_that_nobody_needs_it_and_not_when_its_source_is_gone() {
    let copy = || Some(vec![head("s-db", "9", Some("u/1"))]);
    let goes = ["removal of copy s-db of hangzhou-a"];
    let none = || Some(vec![]);
    assert_eq!(steps(none(), copy(), &[]), goes);
    for state in ["Removed", "Released"] {
        assert_eq!(steps_in(&ledger(state, &["s-db"]), none(), copy()), goes);
    }
    assert!(steps(none(), copy(), &["db"]).is_empty());
}

#[tokio::test]
async fn a_copy_stays_while_an_entry_is_merely_missing() {
    let copy = || Some(vec![head("s-db", "9", Some("u/1"))]);
    // The slice was lost; what runs is reported.
    let mut world = ledger("Present", &["s-db"]);
    world.remove_slice(&"hangzhou-a".into(), "a-0000");
    let report = serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ReportSlice", "metadata": {"name": "r"},
        "spec": {"entries": [{"uid": "web", "generation": 1, "state": "Healthy", "content": "0".repeat(20)}]},
    }));
    world.apply_report(&"hangzhou-a".into(), report.unwrap());
    assert!(steps_in(&world, Some(vec![]), copy()).is_empty());
    // The report was lost as well, and the App still names the Secret.
    world.remove_report(&"hangzhou-a".into(), "r");
    let name = plan::province::copy_name(&"health".into(), "db");
    let copy = || Some(vec![head(&name, "9", Some("u/1"))]);
    let app = serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"name": "web", "namespace": "health", "uid": "web", "generation": 1},
        "spec": {"zone": "Internet", "dataGrade": "General", "manifests": [], "secretNames": ["db"]},
    }));
    world.apply_app(&app.unwrap());
    assert!(steps_in(&world, Some(vec![]), copy()).is_empty());
    // The App is gone for good.
    world.remove_app(&"web".into());
    assert_eq!(steps_in(&world, Some(vec![]), copy()).len(), 1);
}

#[tokio::test]
async fn a_copy_that_does_not_say_for_whom_it_was_made_stays_and_learns_it() {
    let mut copy = head("s-db", "9", Some("u/2"));
    copy.metadata.annotations.as_mut().unwrap().remove(USERS);
    assert!(steps(Some(vec![]), Some(vec![copy.clone()]), &[]).is_empty());
    let source = Some(vec![head("db", "2", None)]);
    let learns = ["copy of Secret health/db for hangzhou-a"];
    assert_eq!(steps(source, Some(vec![copy]), &["db"]), learns);
}

#[tokio::test]
async fn nothing_is_decided_before_both_sides_were_listed() {
    assert!(steps(None, Some(vec![]), &["db"]).is_empty());
    assert!(steps(Some(vec![head("db", "2", None)]), None, &["db"]).is_empty());
}

#[tokio::test]
async fn a_token_of_the_hub_itself_is_never_copied() {
    let mut token = head("db", "2", None);
    TOKEN.clone_into(&mut token.kind);
    assert!(steps(Some(vec![token]), Some(vec![]), &["db"]).is_empty());
}
