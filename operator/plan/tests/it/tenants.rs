//! Tenants: who owns which namespace, what each may use, and how one goes.

use std::collections::BTreeSet;

use crds::{ConditionStatus, ConditionType, DataGrade, Reason, Tier, Zone};
use plan::province::Refusal;
use plan::world::TenantRole;
use serde_json::{Value, json};

use crate::province::{Province, app};

const ROOT: &str = "jiuzhou-system";

/// A tenant tax with nothing but a name.
fn tax() -> Province {
    with_tax(&json!({}))
}

fn with_tax(spec: &Value) -> Province {
    Province::cities().with_tenant(ROOT, "tax", spec)
}

#[track_caller]
fn stalls(province: &Province, home: &str, name: &str, reason: Reason, message: &str) {
    let stalled = province.tenant_condition(home, name, ConditionType::Stalled);
    let stalled = stalled.unwrap();
    assert_eq!(stalled.reason, reason, "{}", stalled.message);
    assert!(stalled.message.contains(message), "{}", stalled.message);
}

#[track_caller]
fn ready(province: &Province, home: &str, name: &str) {
    let ready = province.tenant_condition(home, name, ConditionType::Ready);
    let ready = ready.unwrap();
    assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
}

#[test]
fn a_tenant_owns_a_namespace_of_its_name_and_its_own_tenants_own_joined_names() {
    let province = tax()
        .with_tenant("tax", "audit", &json!({}))
        .with_tenant("tax-audit", "north", &json!({}))
        .settled();
    for (home, name) in [(ROOT, "tax"), ("tax", "audit"), ("tax-audit", "north")] {
        ready(&province, home, name);
    }
    let status = province.tenant_status("tax-audit", "north");
    assert_eq!(status.owned_namespace, Some("tax-audit-north".into()));
    assert!(
        province
            .namespace("tax-audit-north")
            .unwrap()
            .owner
            .is_some()
    );
}

#[test]
fn the_fifth_tenant_below_each_other_is_parked() {
    let province = tax()
        .with_tenant("tax", "b", &json!({}))
        .with_tenant("tax-b", "c", &json!({}))
        .with_tenant("tax-b-c", "d", &json!({}))
        .with_tenant("tax-b-c-d", "e", &json!({}))
        .settled();
    ready(&province, "tax-b-c", "d");
    stalls(&province, "tax-b-c-d", "e", Reason::TooDeep, "depth 4");
}

#[test]
fn a_tenant_in_a_namespace_that_no_tenant_owns_is_parked() {
    let province = tax().with_tenant("health", "cdc", &json!({})).settled();
    stalls(
        &province,
        "health",
        "cdc",
        Reason::TenantMissing,
        "health is owned by no tenant",
    );
    ready(&province, ROOT, "tax");
    assert!(province.namespace("health-cdc").is_none());
}

#[test]
fn a_namespace_that_is_somebody_elses_is_never_taken() {
    let province = Province::cities()
        .with_tenant(ROOT, "health", &json!({}))
        .settled();
    stalls(
        &province,
        ROOT,
        "health",
        Reason::NamespaceTaken,
        "jiuzhou.io/claim to health",
    );
    assert_eq!(province.namespace("health").unwrap().owner, None);
}

#[test]
fn a_namespace_that_says_so_is_claimed_by_exactly_that_tenant() {
    let province = tax()
        .with_namespace("social", Some("social"))
        .with_namespace("police", Some("tax"))
        .with_tenant(ROOT, "social", &json!({}))
        .with_tenant(ROOT, "police", &json!({}))
        .settled();
    ready(&province, ROOT, "social");
    stalls(
        &province,
        ROOT,
        "police",
        Reason::NamespaceTaken,
        "is no tenant's",
    );
}

#[test]
fn a_namespace_of_a_tenant_that_is_gone_is_not_its_successors() {
    let mut province = tax().settled();
    let at = (ROOT.into(), "tax".into());
    province.tenants.remove(&at);
    province.world.remove_tenant(&at.0, &at.1);
    let province = province.with_tenant(ROOT, "tax", &json!({})).settled();
    stalls(
        &province,
        ROOT,
        "tax",
        Reason::NamespaceTaken,
        "belongs to a Tenant with UID tenant-001",
    );
}

#[test]
fn administrators_have_their_role_in_their_own_namespace_and_see_those_below() {
    let people = |name: &str| json!({"administrators": [{"kind": "User", "name": name}]});
    let mut province = with_tax(&people("ann"))
        .with_tenant("tax", "audit", &people("bob"))
        .settled();
    assert_eq!(province.given("tax", TenantRole::Admin), ["ann"]);
    assert_eq!(province.given("tax", TenantRole::View), [""; 0]);
    assert_eq!(province.given("tax-audit", TenantRole::Admin), ["bob"]);
    assert_eq!(province.given("tax-audit", TenantRole::View), ["ann"]);
    // Taken away by hand, and given by hand to somebody else.
    province.bind("tax", TenantRole::Admin, BTreeSet::new());
    province.settle();
    assert_eq!(province.given("tax", TenantRole::Admin), ["ann"]);
    province.edit_tenant(ROOT, "tax", |tenant| tenant.spec.administrators.clear());
    province.settle();
    assert_eq!(province.given("tax", TenantRole::Admin), [""; 0]);
}

#[test]
fn a_tenant_may_use_what_its_parent_may_less_what_it_leaves_out() {
    let province = with_tax(&json!({
        "regions": ["hangzhou", "ningbo"], "zones": ["ExtranetPublic"], "maxDataGrade": "Important",
        "maxTier": "Important",
    }))
    .with_tenant("tax", "audit", &json!({"regions": ["ningbo"]}))
    .settled();
    let status = province.tenant_status("tax", "audit");
    assert_eq!(status.regions, ["ningbo".into()]);
    assert_eq!(status.zones, [Zone::ExtranetPublic]);
    assert_eq!(status.max_data_grade, Some(DataGrade::Important));
    assert_eq!(status.max_tier, Some(Tier::Important));
}

#[test]
fn whoever_asks_for_more_than_the_parent_may_use_gets_the_rest_and_is_told() {
    for (spec, field) in [
        (
            json!({"regions": ["ningbo", "quzhou"]}),
            "spec.regions names quzhou",
        ),
        (
            json!({"zones": ["Internet", "ExtranetPublic"]}),
            "spec.zones names Internet",
        ),
        (json!({"maxDataGrade": "Core"}), "spec.maxDataGrade Core"),
        (json!({"maxTier": "Core"}), "spec.maxTier Core"),
    ] {
        let province = with_tax(&json!({
            "regions": ["ningbo"], "zones": ["ExtranetPublic"], "maxDataGrade": "General",
            "maxTier": "General",
        }))
        .with_tenant("tax", "audit", &spec)
        .settled();
        stalls(&province, "tax", "audit", Reason::ExceedsParent, field);
        let status = province.tenant_status("tax", "audit");
        assert_eq!(status.regions, ["ningbo".into()]);
        assert_eq!(status.zones, [Zone::ExtranetPublic]);
        assert_eq!(status.max_data_grade, Some(DataGrade::General));
        assert_eq!(status.max_tier, Some(Tier::General));
        ready(&province, ROOT, "tax");
    }
}

#[test]
fn a_region_above_those_of_the_parent_means_all_of_them() {
    let province = with_tax(&json!({"regions": ["hangzhou", "ningbo"]}))
        .with_tenant("tax", "audit", &json!({"regions": ["zhejiang"]}))
        .settled();
    stalls(&province, "tax", "audit", Reason::ExceedsParent, "zhejiang");
    let status = province.tenant_status("tax", "audit");
    assert_eq!(status.regions, ["hangzhou".into(), "ningbo".into()]);
}

#[test]
fn a_region_that_does_not_exist_is_said() {
    let province = with_tax(&json!({"regions": ["ningbo", "nigbo"]})).settled();
    stalls(&province, ROOT, "tax", Reason::RegionMissing, "names nigbo");
}

/// The App web in the namespace of a tenant with that spec.
fn with_web(spec: &Value) -> Province {
    with_tax(spec)
        .settled()
        .with(app("web").in_namespace("tax"))
        .settled()
}

#[test]
fn an_app_runs_only_where_its_tenant_may() {
    let province = with_web(&json!({"regions": ["ningbo"]}));
    assert_eq!(province.clusters_of("web"), ["ningbo-a"]);
    let refusal = province.refusal("web", "quzhou-a");
    assert_eq!(refusal, Some(&Refusal::TenantRegions));
}

#[test]
fn an_app_in_a_zone_or_of_a_grade_that_its_tenant_may_not_use_runs_nowhere() {
    let province = with_web(&json!({"zones": ["Internet"]}));
    let needs = Zone::ExtranetPublic;
    assert_eq!(province.clusters_of("web"), [""; 0]);
    let refusal = province.refusal("web", "ningbo-a");
    assert_eq!(refusal, Some(&Refusal::TenantZone { needs }));
    let mut province = with_web(&json!({"maxDataGrade": "General"}));
    province.edit("web", |spec| spec.data_grade = DataGrade::Important);
    province.settle();
    let refusal = province.refusal("web", "ningbo-a");
    let (has, needs) = (DataGrade::General, DataGrade::Important);
    assert_eq!(refusal, Some(&Refusal::TenantGrade { has, needs }));
}

#[test]
fn no_tenant_raises_its_apps_above_the_tier_that_it_was_given() {
    let mut province = with_web(&json!({"maxTier": "General"}));
    let before = province.entry("web", "ningbo-a").cloned().unwrap();
    assert_eq!(before.tier, Tier::General);
    province.edit("web", |spec| spec.tier = Tier::Important);
    province.settle();
    assert_eq!(province.ready("web"), "TierExceeded");
    let after = province.entry("web", "ningbo-a").unwrap();
    assert_eq!(*after, before, "what runs stays as it was");
    province.edit_tenant(ROOT, "tax", |tenant| {
        tenant.spec.max_tier = Some(Tier::Important);
    });
    province.settle();
    let after = province.entry("web", "ningbo-a").unwrap();
    assert_eq!(after.tier, Tier::Important);
    // A new App above it starts nowhere.
    province = province.with(app("news").in_namespace("tax"));
    province.edit("news", |spec| spec.tier = Tier::Core);
    province.settle();
    assert_eq!(province.clusters_of("news"), [""; 0]);
}

#[test]
fn what_a_tenant_may_no_longer_use_its_apps_leave() {
    let mut province = with_web(&json!({"regions": ["ningbo", "quzhou"]}));
    assert_eq!(province.clusters_of("web"), ["ningbo-a", "quzhou-a"]);
    province.edit_tenant(ROOT, "tax", |tenant| {
        tenant.spec.regions = vec!["quzhou".into()];
    });
    province.settle();
    assert_eq!(province.clusters_of("web"), ["quzhou-a"]);
}

#[test]
fn in_a_namespace_that_waits_for_its_tenant_no_app_starts() {
    let mut province = Province::cities()
        .with_namespace("tax", Some("tax"))
        .with(app("web").in_namespace("tax"))
        .settled();
    assert_eq!(province.ready("web"), "TenantMissing");
    assert_eq!(province.clusters_of("web"), [""; 0]);
    province.create_tenant(ROOT, "tax", &json!({"regions": ["quzhou"]}));
    province.settle();
    assert_eq!(province.clusters_of("web"), ["quzhou-a"]);
}

#[test]
fn apps_of_a_tenant_that_merely_vanished_stay_as_they_are() {
    let mut province = with_web(&json!({}));
    let at = (ROOT.into(), "tax".into());
    province.tenants.remove(&at);
    province.world.remove_tenant(&at.0, &at.1);
    province.settle();
    assert_eq!(province.clusters_of("web").len(), 3);
    assert_eq!(province.ready("web"), "TenantMissing");
}

#[test]
fn a_deleted_tenant_goes_after_its_apps_and_tenants_and_leaves_nothing() {
    let mut province = tax()
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax"))
        .with(app("ledger").in_namespace("tax-audit"))
        .with(app("other"))
        .settled();
    province.delete_tenant(ROOT, "tax");
    province.settle();
    assert!(province.tenants.is_empty());
    assert_eq!(province.apps.keys().collect::<Vec<_>>(), ["other"]);
    assert!(province.namespace("tax").is_none() && province.namespace("tax-audit").is_none());
    assert_eq!(
        province.clusters_of("other").len(),
        3,
        "nobody else is affected"
    );
}

#[test]
fn a_tenant_whose_namespace_was_deleted_by_hand_first_leaves_nothing_in_the_members() {
    let mut province = with_web(&json!({}));
    assert!(province.enclosure("tax", "ningbo-a").is_some());
    province.delete("web");
    province.settle();
    province.world.remove_namespace(&"tax".into());
    province.delete_tenant(ROOT, "tax");
    province.settle();
    assert!(province.tenants.is_empty());
    assert!(province.enclosure("tax", "ningbo-a").is_none());
}

#[test]
fn a_deleted_tenant_leaves_a_tombstone_where_a_cluster_is_away() {
    let mut province = with_web(&json!({}));
    let web = province.uid("web");
    province.cut_off("ningbo-a");
    province.delete_tenant(ROOT, "tax");
    province.settle();
    assert!(province.tenants.is_empty() && province.namespace("tax").is_none());
    let left = province.world.ledger(&web).unwrap();
    assert_eq!(
        left.entries.keys().collect::<Vec<_>>(),
        [&"ningbo-a".into()]
    );
}

#[test]
fn a_deleted_tenant_leaves_a_namespace_that_is_not_its_own_alone() {
    let mut province = Province::cities()
        .with(app("web"))
        .with_tenant(ROOT, "health", &json!({}))
        .settled();
    province.delete_tenant(ROOT, "health");
    province.settle();
    assert!(province.tenants.is_empty());
    assert!(province.namespace("health").is_some());
    assert_eq!(province.clusters_of("web").len(), 3);
}

#[test]
fn a_tenant_whose_namespace_is_somebody_elses_has_no_say_over_the_apps_there() {
    let mut province = Province::cities().with(app("web")).settled();
    province.create_tenant(
        ROOT,
        "health",
        &json!({"regions": ["ningbo"], "zones": ["Internet"]}),
    );
    province.settle();
    stalls(
        &province,
        ROOT,
        "health",
        Reason::NamespaceTaken,
        "is no tenant's",
    );
    assert_eq!(province.clusters_of("web").len(), 3);
    province.delete_tenant(ROOT, "health");
    province.settle();
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn apps_of_a_namespace_that_is_claimed_go_on_and_then_heed_their_tenant() {
    let mut province = Province::cities().with(app("web")).settled();
    province = province.with_namespace("health", Some("health"));
    province.settle();
    assert_eq!(province.ready("web"), "TenantMissing");
    assert_eq!(province.clusters_of("web").len(), 3, "what runs is kept");
    province.create_tenant(ROOT, "health", &json!({"regions": ["ningbo"]}));
    province.settle();
    assert_eq!(province.clusters_of("web"), ["ningbo-a"]);
}

#[test]
fn while_a_tenant_is_emptied_nobody_who_ran_it_has_rights_there() {
    let people = json!({"administrators": [{"kind": "User", "name": "ann"}]});
    let mut province = with_tax(&people)
        .settled()
        .with(app("web").in_namespace("tax"))
        .settled();
    province.delete_tenant(ROOT, "tax");
    province.turn();
    province.turn();
    assert!(province.namespace("tax").unwrap().clearing);
    assert_eq!(province.given("tax", TenantRole::Admin), [""; 0]);
    province.settle();
    assert!(province.tenants.is_empty());
}

#[test]
fn a_tenant_that_may_use_nothing_at_all_says_so() {
    let province = with_tax(&json!({"regions": ["ningbo"]}))
        .with_tenant("tax", "audit", &json!({"regions": ["quzhou"]}))
        .with_tenant("tax-audit", "north", &json!({}))
        .settled();
    stalls(
        &province,
        "tax",
        "audit",
        Reason::ExceedsParent,
        "names quzhou",
    );
    stalls(
        &province,
        "tax-audit",
        "north",
        Reason::ExceedsParent,
        "leaves no Region",
    );
}
