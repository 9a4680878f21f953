//! Quotas: which come into force, and what Apps get by them.

use crds::{ConditionStatus, ConditionType, Reason};
use serde_json::{Value, json};

use crate::province::draft::manifest;
use crate::province::grants::{grant, limits, replicas};
use crate::province::{Draft, Province, app};

const ROOT: &str = "jiuzhou-system";

/// Tenants tax and rail, with 60 cores to share in Hangzhou.
fn shared() -> Province {
    Province::cities()
        .with_budget("hangzhou", &[("cpu", "60")])
        .with_tenant(ROOT, "tax", &json!({}))
        .with_tenant(ROOT, "rail", &json!({}))
        .settled()
}

/// An App of one core a replica, without surge, in Hangzhou.
fn in_hangzhou(namespace: &str, name: &str, replicas: i32) -> Draft {
    app(name)
        .in_namespace(namespace)
        .within(&["hangzhou"])
        .replicas(replicas, "Capacity")
        .set("/manifests/0/spec/strategy/type", json!("Recreate"))
}

#[track_caller]
fn in_force(province: &Province, home: &str, name: &str) {
    let accepted = province.quota_condition(home, name, ConditionType::Accepted);
    let accepted = accepted.unwrap();
    assert_eq!(
        accepted.status,
        ConditionStatus::True,
        "{}",
        accepted.message
    );
}

#[track_caller]
fn refused(province: &Province, home: &str, name: &str, reason: Reason, message: &str) {
    let accepted = province.quota_condition(home, name, ConditionType::Accepted);
    let accepted = accepted.unwrap();
    assert_eq!(accepted.reason, reason, "{}", accepted.message);
    assert!(accepted.message.contains(message), "{}", accepted.message);
}

#[track_caller]
fn waits(province: &Province, app: &str, reason: Reason, message: &str) {
    let admitted = province.condition(app, ConditionType::Admitted).unwrap();
    assert_eq!(admitted.reason, reason, "{}", admitted.message);
    assert!(admitted.message.contains(message), "{}", admitted.message);
}

fn cpu(nominal: &str) -> Vec<Value> {
    vec![grant("cpu", nominal)]
}

#[test]
fn a_quota_comes_into_force_and_says_what_of_it_is_used() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("40"))
        .settled()
        .with(in_hangzhou("tax", "web", 12))
        .settled();
    in_force(&province, ROOT, "tax.hangzhou");
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("12/40"));
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn what_does_not_fit_waits_with_a_reason_and_comes_once_there_is_room() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 12))
        .with(in_hangzhou("tax", "api", 1))
        .settled();
    assert_eq!(replicas(&province, "web"), 10);
    assert_eq!(province.placed("api"), []);
    let first = "10 of 12 replicas have a place: for the next Quota tax.hangzhou (10 granted) lacks 1 of cpu; first in line";
    waits(&province, "web", Reason::QuotaExceeded, first);
    waits(&province, "api", Reason::QuotaExceeded, "number 2 in line");
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("13"));
    province.settle();
    assert_eq!(
        (replicas(&province, "web"), replicas(&province, "api")),
        (12, 1)
    );
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn a_replica_that_a_rolling_update_adds_is_charged_ahead() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(
            app("web")
                .in_namespace("tax")
                .within(&["hangzhou"])
                .replicas(10, "Capacity"),
        )
        .settled();
    assert_eq!(
        replicas(&province, "web"),
        8,
        "8 and a quarter of them make 10"
    );
}

#[test]
fn an_autoscaler_is_charged_its_most_replicas() {
    let draft = in_hangzhou("tax", "web", 1).set("/replicas", json!(null));
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(draft.scaling(2, 20, "Capacity"))
        .settled();
    assert_eq!(replicas(&province, "web"), 10);
    assert_eq!(province.ready("web"), "QuotaExceeded");
}

#[test]
fn roots_share_the_budget_and_what_exceeds_it_is_refused_with_the_amounts() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("40"))
        .settled()
        .with_quota(ROOT, "rail", "hangzhou", &cpu("30"))
        .settled();
    in_force(&province, ROOT, "tax.hangzhou");
    let message =
        "asks for 30 cpu, but of 60 in the Region's spec.budget others have 40: ask for at most 20";
    refused(
        &province,
        ROOT,
        "rail.hangzhou",
        Reason::ExceedsBudget,
        message,
    );
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("30"));
    province.settle();
    in_force(&province, ROOT, "rail.hangzhou");
}

#[test]
fn a_resource_that_the_budget_does_not_name_is_not_limited_by_it() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &[grant("pods", "3")])
        .settled()
        .with(in_hangzhou("tax", "web", 12))
        .settled();
    in_force(&province, ROOT, "tax.hangzhou");
    assert_eq!(replicas(&province, "web"), 3);
}

#[test]
fn an_inner_quota_is_carved_from_the_outer_and_caps_with_it() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("20"))
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", "hangzhou", &cpu("15"))
        .settled()
        .with(in_hangzhou("tax", "web", 12))
        .with(in_hangzhou("tax-audit", "ledger", 15))
        .settled();
    in_force(&province, "tax", "audit.hangzhou");
    assert_eq!(replicas(&province, "ledger"), 15, "what it is granted");
    assert_eq!(replicas(&province, "web"), 5, "what the outer one has left");
    province.set_quota("tax", "audit", "hangzhou", &cpu("25"));
    province.settle();
    let message = "of 20 in Quota tax.hangzhou others below it have 0: ask for at most 20";
    refused(
        &province,
        "tax",
        "audit.hangzhou",
        Reason::ExceedsParent,
        message,
    );
    let status = province.quota_status("tax", "audit.hangzhou");
    assert_eq!(
        status.cpu.as_deref(),
        Some("15/15"),
        "the last accepted value stands"
    );
}

#[test]
fn a_cut_below_what_is_granted_on_is_refused() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("20"))
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", "hangzhou", &cpu("15"))
        .settled();
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("10"));
    province.settle();
    let message = "asks for 10 cpu, but 15 are granted on to the tenant's own tenants";
    refused(
        &province,
        ROOT,
        "tax.hangzhou",
        Reason::BelowChildren,
        message,
    );
    province.set_quota("tax", "audit", "hangzhou", &cpu("5"));
    province.settle();
    in_force(&province, ROOT, "tax.hangzhou");
}

#[test]
fn a_cut_below_what_runs_takes_nothing_away_and_lets_nothing_grow() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("20"))
        .settled()
        .with(in_hangzhou("tax", "web", 12))
        .settled();
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("5"));
    province.settle();
    in_force(&province, ROOT, "tax.hangzhou");
    assert_eq!(replicas(&province, "web"), 12);
    let replicas_to = |n| move |spec: &mut crds::AppSpec| spec.replicas.as_mut().unwrap().total = n;
    province.edit("web", replicas_to(13));
    province.settle();
    assert_eq!(replicas(&province, "web"), 12);
    province.edit("web", replicas_to(4));
    province.settle();
    assert_eq!(replicas(&province, "web"), 4);
}

#[test]
fn a_tenant_borrows_what_its_siblings_do_not_use_up_to_its_limit() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "20", "15", "20")])
        .with_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "40", "0", "40")])
        .settled()
        .with(in_hangzhou("tax", "web", 50))
        .settled();
    assert_eq!(replicas(&province, "web"), 35);
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.borrowed_cpu.as_deref(), Some("15"));
}

#[test]
fn what_a_tenant_does_not_lend_is_kept_for_it() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "20", "60", "20")])
        .with_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "40", "0", "10")])
        .settled()
        .with(in_hangzhou("tax", "web", 60))
        .settled()
        .with(in_hangzhou("rail", "tickets", 40))
        .settled();
    assert_eq!(
        replicas(&province, "web"),
        30,
        "20 of its own and 10 that rail lends"
    );
    assert_eq!(replicas(&province, "tickets"), 30);
}

#[test]
fn a_tenant_without_a_quota_anywhere_is_not_limited_but_one_with_one_elsewhere_is() {
    let mut province = shared().with(in_hangzhou("tax", "web", 50)).settled();
    assert_eq!(replicas(&province, "web"), 50);
    province.set_quota(ROOT, "tax", "ningbo", &cpu("10"));
    province.settle();
    assert_eq!(replicas(&province, "web"), 50, "what runs stays");
    province.create(in_hangzhou("tax", "api", 1));
    province.settle();
    assert_eq!(province.placed("api"), []);
    waits(
        &province,
        "api",
        Reason::QuotaMissing,
        "none that counts where the App could run",
    );
}

#[test]
fn an_inner_tenant_without_a_quota_draws_on_the_outer_one() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with(in_hangzhou("tax-audit", "ledger", 15))
        .settled();
    assert_eq!(replicas(&province, "ledger"), 10);
}

#[test]
fn a_namespace_whose_name_only_looks_like_a_tenants_is_not_limited() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .with_namespace("tax-web", None)
        .settled()
        .with(in_hangzhou("tax-web", "web", 15))
        .settled();
    assert_eq!(replicas(&province, "web"), 15);
}

#[test]
fn a_quota_for_a_region_counts_in_all_below_it_and_the_nearest_one_counts() {
    let province = Province::example()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "zhejiang", &cpu("20"))
        .with_quota(ROOT, "tax", "hangzhou", &cpu("5"))
        .settled()
        .with(in_hangzhou("tax", "web", 9))
        .with(
            in_hangzhou("tax", "api", 30)
                .within(&["ningbo", "quzhou"])
                .at_least(2),
        )
        .settled();
    assert_eq!(replicas(&province, "web"), 5);
    assert_eq!(replicas(&province, "api"), 20, "over both cities");
    assert_eq!(province.clusters_of("api").len(), 2);
}

#[test]
fn replicas_that_are_fewer_than_asked_for_are_divided_as_asked() {
    let province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "zhejiang", &cpu("9"))
        .settled()
        .with(
            in_hangzhou("tax", "web", 0)
                .within(&["zhejiang"])
                .replicas(30, "Even"),
        )
        .settled();
    let counts: Vec<i32> = province.placed("web").iter().map(|(_, n)| *n).collect();
    assert_eq!(counts, [3, 3, 3]);
}

#[test]
fn a_change_that_asks_for_more_waits_while_what_ran_before_runs_on() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("15"))
        .settled()
        .with(in_hangzhou("tax", "web", 10))
        .settled();
    let before = province.entry("web", "hangzhou-a").unwrap().content.clone();
    province.edit("web", |spec| {
        spec.manifests[0]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] =
            json!("2");
    });
    province.settle();
    let entry = province.entry("web", "hangzhou-a").unwrap();
    assert_eq!(entry.content, before);
    waits(
        &province,
        "web",
        Reason::QuotaExceeded,
        "What ran before runs on: for the change Quota tax.hangzhou (15 granted) lacks 10 of cpu",
    );
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("20"));
    province.settle();
    assert_eq!(province.updated("web"), ["hangzhou-a"]);
}

#[test]
fn what_is_being_removed_is_charged_until_that_is_acknowledged() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 10))
        .settled();
    province.cut_off("hangzhou-a");
    province.delete("web");
    province.settle();
    province.create(in_hangzhou("tax", "api", 5));
    province.settle();
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("10/10"));
    province.unsilence("hangzhou-a");
    province.wait(60);
    assert_eq!(replicas(&province, "api"), 5);
}

#[test]
fn services_storage_and_declared_requests_are_counted_too() {
    let resources = [
        grant("services", "1"),
        grant("storage", "10Gi"),
        grant("requestsPerSecond", "1000"),
    ];
    let claim = |name: &str| {
        let mut claim = manifest("PersistentVolumeClaim", name);
        claim["spec"] = json!({"resources": {"requests": {"storage": "6Gi"}}});
        claim
    };
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &resources)
        .settled()
        .with(
            in_hangzhou("tax", "web", 5)
                .set("/requestsPerSecondPerReplica", json!(300))
                .and(manifest("Service", "web")),
        )
        .with(in_hangzhou("tax", "api", 1).and(manifest("Service", "api")))
        .with(in_hangzhou("tax", "disk", 1).and(claim("one")))
        .with(in_hangzhou("tax", "tape", 1).and(claim("two")))
        .settled();
    assert_eq!(replicas(&province, "web"), 3);
    assert_eq!(province.placed("api"), []);
    waits(&province, "api", Reason::QuotaExceeded, "services");
    assert_eq!(replicas(&province, "disk"), 1);
    waits(
        &province,
        "tape",
        Reason::QuotaExceeded,
        "lacks 6Gi of storage",
    );
}

#[test]
fn a_quota_that_is_deleted_stays_in_force_until_nothing_uses_it() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 6))
        .settled();
    province.delete_quota(ROOT, "tax.hangzhou");
    province.create(in_hangzhou("tax", "api", 1));
    province.settle();
    let ready = province.quota_condition(ROOT, "tax.hangzhou", ConditionType::Ready);
    let ready = ready.unwrap();
    assert_eq!(ready.reason, Reason::InUse);
    assert!(
        ready.message.contains("6 cpu of it are in use"),
        "{}",
        ready.message
    );
    assert_eq!(province.placed("api"), [], "and nobody uses more of it");
    province.delete("web");
    province.settle();
    assert!(province.quotas.is_empty());
    assert_eq!(replicas(&province, "api"), 1);
}

#[test]
fn a_quota_made_anew_finds_what_was_in_force_before() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("40"))
        .settled()
        .with(in_hangzhou("tax", "web", 6))
        .settled();
    province.lose_quota(ROOT, "tax.hangzhou");
    province.settle();
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("70"));
    province.settle();
    refused(
        &province,
        ROOT,
        "tax.hangzhou",
        Reason::ExceedsBudget,
        "still is",
    );
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("6/40"));
}

#[test]
fn quotas_for_nobody_nowhere_or_out_of_reach_are_refused() {
    let province = shared()
        .with_tenant(ROOT, "coast", &json!({"regions": ["ningbo"]}))
        .settled()
        .with_quota(ROOT, "nobody", "hangzhou", &cpu("1"))
        .with_quota(ROOT, "tax", "nowhere", &cpu("1"))
        .with_quota(ROOT, "coast", "hangzhou", &cpu("1"))
        .with_quota(ROOT, "coast", "zhejiang", &cpu("1"))
        .settled();
    refused(
        &province,
        ROOT,
        "nobody.hangzhou",
        Reason::TenantMissing,
        "no Tenant",
    );
    refused(
        &province,
        ROOT,
        "tax.nowhere",
        Reason::RegionMissing,
        "nowhere",
    );
    refused(
        &province,
        ROOT,
        "coast.hangzhou",
        Reason::RegionNotAllowed,
        "hangzhou",
    );
    in_force(&province, ROOT, "coast.zhejiang");
}

#[test]
fn a_quota_that_lends_more_than_it_has_or_asks_for_nonsense_is_refused() {
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "5", "0", "6")])
        .with_quota(
            ROOT,
            "rail",
            "hangzhou",
            &[grant("memory", "999999999999999Pi")],
        )
        .settled();
    let lends = "lendingLimit of cpu must not exceed its nominal";
    refused(&province, ROOT, "tax.hangzhou", Reason::Invalid, lends);
    refused(
        &province,
        ROOT,
        "rail.hangzhou",
        Reason::Invalid,
        "is no amount, or too large",
    );
}

#[test]
fn a_tenant_goes_with_the_quotas_that_live_in_its_namespace() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", "hangzhou", &cpu("5"))
        .settled();
    province.delete_tenant(ROOT, "tax");
    province.settle();
    assert!(!province.tenants.contains_key(&(ROOT.into(), "tax".into())));
    assert_eq!(province.quotas.len(), 1, "its own lives further up");
    refused(
        &province,
        ROOT,
        "tax.hangzhou",
        Reason::TenantMissing,
        "create it",
    );
    province.delete_quota(ROOT, "tax.hangzhou");
    province.settle();
    assert!(province.quotas.is_empty());
}

#[test]
fn a_burst_of_apps_never_gets_more_than_there_is_and_in_a_stable_order() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("30"))
        .settled();
    for n in 0..40 {
        let tier = ["Core", "General", "Ancillary"][n % 3];
        province.create(in_hangzhou("tax", &format!("app-{n:02}"), 2).tier(tier));
    }
    province.settle();
    let placed = |n: usize| replicas(&province, &format!("app-{n:02}"));
    let total: i32 = (0..40).map(placed).sum();
    assert_eq!(total, 30);
    let core: i32 = (0..40).step_by(3).map(placed).sum();
    assert_eq!(core, 28, "tier Core comes first");
    assert_eq!(placed(1), 2, "then the oldest of tier General");
}

#[test]
fn fewer_replicas_that_each_ask_for_more_come_one_after_the_other() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("12"))
        .settled()
        .with(in_hangzhou("tax", "web", 12))
        .settled();
    province.edit("web", |spec| {
        spec.replicas.as_mut().unwrap().total = 6;
        let pod = &mut spec.manifests[0]["spec"]["template"]["spec"];
        pod["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
    });
    province.settle();
    assert_eq!(replicas(&province, "web"), 6);
    assert_eq!(province.updated("web"), ["hangzhou-a"]);
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("12/12"));
}

#[test]
fn an_app_that_vanishes_while_quotas_change_gives_back_only_what_it_was_charged() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 4))
        .with(in_hangzhou("tax", "api", 3))
        .settled();
    province.delete("web");
    province.turn();
    province.turn();
    province.vanish("web");
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("11"));
    province.settle();
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("3/11"));
}

#[test]
fn an_edit_that_changes_nothing_is_seen_all_the_same() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled();
    province.set_quota(ROOT, "tax", "hangzhou", &cpu("10"));
    province.settle();
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn a_change_is_charged_for_all_replicas_that_it_meets() {
    let mut province = Province::cities()
        .with_cores("hangzhou-a", 0)
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "zhejiang", &cpu("40"))
        .settled()
        .with(
            app("web")
                .in_namespace("tax")
                .at_most(2)
                .replicas(8, "Even"),
        )
        .settled()
        .with_quota(ROOT, "tax", "quzhou", &cpu("9"))
        .settled();
    assert_eq!(province.placed("web")[1], ("quzhou-a".to_owned(), 4));
    province.edit("web", |spec| {
        let pod = &mut spec.manifests[0]["spec"]["template"]["spec"];
        pod["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
    });
    // Fewer replicas would fit in Quzhou with what each asks for now, but four are there.
    province.set_cores("hangzhou-a", 100);
    province.world.lost.insert("ningbo".into());
    province.turn();
    let entry = province.entry("web", "quzhou-a").unwrap();
    assert_ne!(entry.content, province.wanted("web"));
    assert_eq!(province.ready("web"), "QuotaExceeded");
}

#[test]
fn an_override_that_asks_for_more_somewhere_is_charged_everywhere() {
    let path = "/spec/template/spec/containers/0/resources/requests/cpu";
    let greedy = json!([{
        "regions": {"within": ["ningbo"]},
        "target": {"group": "apps", "kind": "Deployment", "name": "web"},
        "patch": [{"op": "replace", "path": path, "value": "5"}],
    }]);
    let province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 12).set("/overrides", greedy))
        .settled();
    assert_eq!(replicas(&province, "web"), 2);
}

#[test]
fn more_replicas_of_less_each_are_charged_as_what_still_runs_until_it_is_replaced() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("40"))
        .settled()
        .with(in_hangzhou("tax", "web", 10).cores("4").waves(&[(
            "canary",
            &["hangzhou"],
            "30s",
            false,
        )]))
        .settled();
    province.edit("web", |spec| {
        spec.replicas.as_mut().unwrap().total = 30;
        let pod = &mut spec.manifests[0]["spec"]["template"]["spec"];
        pod["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    });
    // The second judge looks at every plan.
    province.turn();
    assert_eq!(replicas(&province, "web"), 10, "while four cores each run");
    province.wait(120);
    assert_eq!(replicas(&province, "web"), 30);
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("30/40"));
}

#[test]
fn an_inner_tenant_gets_no_quota_where_none_of_those_above_counts() {
    let province = shared()
        .with_quota(ROOT, "tax", "ningbo", &cpu("10"))
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", "hangzhou", &cpu("60"))
        .settled();
    let message = "covered by no Quota of the tenants above";
    refused(
        &province,
        "tax",
        "audit.hangzhou",
        Reason::ExceedsParent,
        message,
    );
}

#[test]
fn budgets_are_for_first_tenants() {
    let province = shared()
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", "hangzhou", &cpu("60"))
        .settled()
        .with_quota(ROOT, "rail", "hangzhou", &cpu("60"))
        .settled();
    in_force(&province, ROOT, "rail.hangzhou");
}

#[test]
fn while_a_ledger_is_lost_nothing_grows() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 30))
        .settled();
    assert_eq!(replicas(&province, "web"), 10);
    province.world.remove_quota_ledger(&"hangzhou".into());
    province.turn();
    assert_eq!(replicas(&province, "web"), 10);
    province.settle();
    assert_eq!(replicas(&province, "web"), 10);
    in_force(&province, ROOT, "tax.hangzhou");
}

#[test]
fn what_is_wrong_with_one_app_is_left_out_and_everything_else_is_applied() {
    let mut province = shared()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("10"))
        .settled()
        .with(in_hangzhou("tax", "web", 2))
        .with(in_hangzhou("rail", "tickets", 2));
    let mut plan = province.plan();
    let web = province.uid("web");
    for entry in plan.slices.iter_mut().flat_map(|s| &mut s.spec.entries) {
        if entry.uid == web {
            entry.stages[0].replicas = Some(1_000);
        }
    }
    let findings = plan::check(&province.world, &plan);
    assert!(!findings.is_empty());
    let rest = plan::check::spare(&province.world, plan, &findings).unwrap();
    assert_eq!(plan::check(&province.world, &rest), []);
    let named = |uid: &crds::Uid| {
        let mut entries = rest.slices.iter().flat_map(|s| &s.spec.entries);
        entries.any(|entry| entry.uid == *uid)
    };
    assert!(!named(&web) && named(&province.uid("tickets")));
}

#[test]
fn an_app_that_asks_for_more_than_there_can_be_is_parked() {
    let province = shared()
        .with(in_hangzhou("tax", "web", 2).cores("9999999999999"))
        .settled();
    assert_eq!(province.ready("web"), "Invalid");
}
