//! Contents: stored once, packed together, kept as long as anybody needs them.

use plan::content::AppContent;
use serde_json::json;

use plan::world::NamespaceSlot;

use crate::province::{Province, app, manifest};

const DAY: i64 = 24 * 3_600;

#[test]
fn content_is_stored_once_whatever_the_number_of_clusters() {
    let mut province = Province::example().settled();
    province.create(app("web"));
    let plan = province.plan();
    assert_eq!(plan.slices.len(), 5);
    let packs = plan.contents.iter().map(|pack| {
        let item = &pack.items[0];
        assert_eq!(pack.items.len(), 1);
        let content = AppContent::from_data(&item.hash, &item.data).unwrap();
        content.manifests[0]["kind"].as_str().unwrap().to_owned()
    });
    let packs: Vec<_> = packs.collect();
    assert_eq!(
        packs,
        ["Namespace", "Deployment"],
        "what isolates it, and the App"
    );
}

#[test]
fn several_apps_of_one_tenant_share_a_pack_and_tenants_share_none() {
    let mut province = Province::cities().settled();
    province.create(app("web"));
    province.create(app("api"));
    province.create(app("radio").in_namespace("police"));
    let plan = province.plan();
    let sizes: Vec<_> = plan
        .contents
        .iter()
        .map(|c| (c.tenant.as_str(), c.items.len()))
        .collect();
    // And what isolates each of them, since that outlives the Apps.
    assert_eq!(
        sizes,
        [("health", 1), ("health", 2), ("police", 1), ("police", 1)]
    );
}

#[test]
fn the_name_of_a_pack_depends_on_the_tenants_uid() {
    let name = |uid: &str| {
        let mut province = Province::cities().settled();
        province
            .world
            .apply_namespace(&"health".into(), NamespaceSlot::plain(uid.into()));
        province.create(app("web"));
        province.plan().contents[0].name.clone()
    };
    assert_ne!(name("one"), name("two"));
}

#[test]
fn an_app_whose_namespace_is_not_known_yet_waits_and_holds_up_nobody() {
    let mut province = Province::cities().settled();
    province.create(app("web"));
    province.create(app("new").in_namespace("tax"));
    province.settle();
    assert_eq!(province.clusters_of("web").len(), 3);
    assert_eq!(province.clusters_of("new").len(), 0);
    province
        .world
        .apply_namespace(&"tax".into(), NamespaceSlot::plain("ns-tax".into()));
    province.settle();
    assert_eq!(province.clusters_of("new").len(), 3);
}

#[test]
fn many_contents_are_split_over_packs() {
    let mut province = Province::cities().settled();
    for n in 0..120 {
        province.create(app(&format!("web-{n}")).cores("1m"));
    }
    let sizes: Vec<_> = province
        .plan()
        .contents
        .iter()
        .map(|c| c.items.len())
        .collect();
    assert_eq!(sizes, [1, 50, 50, 20]);
}

#[test]
fn packs_are_split_by_the_bytes_they_take_as_they_are_stored() {
    let mut province = Province::cities().settled();
    for name in ["web", "api"] {
        let mut config = manifest("ConfigMap", name);
        config["data"] = json!({"blob": "\"".repeat(200_000)});
        province.create(app(name).and(config));
    }
    let packs = province.plan().contents;
    assert_eq!(
        packs.len(),
        3,
        "800 kB each as JSON within JSON, and what isolates them"
    );
    for pack in packs {
        assert!(serde_json::to_string(&pack.items).unwrap().len() < 1_250_000);
    }
}

#[test]
fn content_that_nothing_names_is_collected_after_a_day() {
    let mut province = Province::cities().with(app("web")).settled();
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(province.collected.len(), 0);
    province.world.now += DAY * 1000 - 60_000;
    province.settle();
    assert_eq!(province.collected.len(), 0);
    province.wait(120);
    assert_eq!(
        province.collected.len(),
        1,
        "the first content and not the second"
    );
    assert!(
        province
            .world
            .pack_of(&"health".into(), &province.wanted("web"))
            .is_some()
    );
}

#[test]
fn content_that_a_silent_cluster_still_runs_is_kept() {
    let mut province = Province::cities().with(app("web")).settled();
    province.cut_off("ningbo-a");
    province.change_content("web", "web:2");
    province.settle();
    province.wait(60);
    province.world.now += DAY * 1000;
    province.settle();
    assert_eq!(province.collected.len(), 0, "ningbo's report names it");
}

#[test]
fn content_of_an_app_that_vanished_is_kept_as_long_as_it_runs() {
    let mut province = Province::cities().with(app("web")).settled();
    province.vanish("web");
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        province.delete_slice(cluster, "a-0000");
    }
    province.settle();
    province.world.now += DAY * 1000;
    province.settle();
    assert_eq!(province.collected.len(), 0);
}

#[test]
fn content_of_a_deleted_app_is_collected() {
    let mut province = Province::cities().with(app("web")).settled();
    province.delete("web");
    province.settle();
    province.world.now += DAY * 1000;
    province.settle();
    assert_eq!(province.collected.len(), 1);
}

#[test]
fn content_deleted_by_hand_is_stored_again() {
    let mut province = Province::cities().with(app("web")).settled();
    let pack = province.entry("web", "ningbo-a").unwrap().pack.clone();
    province.world.remove_content(&pack);
    let plan = province.plan();
    assert_eq!(plan.contents.len(), 1);
    province.settle();
    assert!(
        province
            .world
            .pack_of(&"health".into(), &province.wanted("web"))
            .is_some()
    );
}

#[test]
fn content_set_back_is_found_in_its_old_pack() {
    let mut province = Province::cities().with(app("web")).settled();
    let pack = province.entry("web", "ningbo-a").unwrap().pack.clone();
    province.change_content("web", "web:2");
    province.settle();
    province.change_content("web", "registry.example/web:1");
    assert!(province.plan().contents.is_empty());
    province.settle();
    assert_eq!(province.entry("web", "ningbo-a").unwrap().pack, pack);
}
