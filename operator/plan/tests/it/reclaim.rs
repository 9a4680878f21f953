//! Taking back what was lent: when, from whom, and no more than that.

use crds::{ConditionType, Reason};
use serde_json::json;

use crate::province::grants::{limits, of, replicas};
use crate::province::{Province, app, cluster, manifest};

const ROOT: &str = "jiuzhou-system";
/// Seconds that borrowers have.
const GRACE: i64 = 60;

/// Sixty cores in Hangzhou: rail is granted forty and lends them all, tax twenty and borrows.
fn lent() -> Province {
    Province::cities()
        .with_budget("hangzhou", &[("cpu", "60")])
        .with_tenant(ROOT, "tax", &json!({}))
        .with_tenant(ROOT, "rail", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "20", "40", "20")])
        .with_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "40", "0", "40")])
        .settled()
}

#[test]
fn a_lender_has_it_back_after_the_grace_time_from_the_lowest_tier_first() {
    let mut province = lent()
        .with(of("tax", "web", 25, "Core"))
        .with(of("tax", "reports", 35, "Ancillary"))
        .settled();
    assert_eq!(replicas(&province, "reports"), 35);
    province.create(of("rail", "tickets", 30, "General"));
    province.turn();
    let entry = province.entry("reports", "hangzhou-a").unwrap();
    let stages: Vec<_> = entry.stages.iter().map(|stage| stage.replicas).collect();
    assert_eq!(stages, [Some(35), Some(5)], "announced at once");
    assert_eq!(province.entry("web", "hangzhou-a").unwrap().stages.len(), 1);
    let told = province
        .condition("reports", ConditionType::Admitted)
        .unwrap();
    let says = "30 of its replicas are borrowed and go back at 2027";
    assert!(told.message.contains(says), "{}", told.message);
    province.wait(GRACE - 20);
    assert_eq!(
        (
            replicas(&province, "tickets"),
            replicas(&province, "reports")
        ),
        (0, 35)
    );
    province.wait(30);
    assert_eq!(
        (
            replicas(&province, "tickets"),
            replicas(&province, "reports")
        ),
        (30, 5)
    );
    assert_eq!(
        replicas(&province, "web"),
        25,
        "a higher tier keeps what it has"
    );
    let admitted = province
        .condition("reports", ConditionType::Admitted)
        .unwrap();
    assert_eq!(admitted.reason, Reason::QuotaExceeded);
    let entry = province.entry("reports", "hangzhou-a").unwrap();
    assert_eq!(entry.stages.len(), 1, "what is past is cleared away");
}

#[test]
fn nobody_is_cut_below_what_he_is_granted() {
    let mut province = lent().with(of("tax", "web", 30, "Ancillary")).settled();
    province.create(of("rail", "tickets", 60, "Core"));
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "web"), 20);
    assert_eq!(
        replicas(&province, "tickets"),
        40,
        "and nobody gets more either"
    );
}

#[test]
fn of_one_tier_the_youngest_gives_first() {
    let mut province = lent()
        .with(of("tax", "old", 30, "General"))
        .with(of("tax", "young", 30, "General"))
        .settled();
    province.create(of("rail", "tickets", 20, "General"));
    province.wait(2 * GRACE);
    assert_eq!(
        (replicas(&province, "old"), replicas(&province, "young")),
        (30, 10)
    );
}

#[test]
fn what_is_wanted_no_longer_is_not_taken() {
    let mut province = lent().with(of("tax", "web", 60, "General")).settled();
    province.create(of("rail", "tickets", 20, "General"));
    province.turn();
    assert_eq!(province.entry("web", "hangzhou-a").unwrap().stages.len(), 2);
    province.delete("tickets");
    province.settle();
    assert_eq!(province.entry("web", "hangzhou-a").unwrap().stages.len(), 1);
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "web"), 60);
}

#[test]
fn tenants_that_borrow_alike_give_alike() {
    let mut province = Province::cities()
        .with_budget("hangzhou", &[("cpu", "80")])
        .with_tenant(ROOT, "tax", &json!({}))
        .with_tenant(ROOT, "port", &json!({}))
        .with_tenant(ROOT, "rail", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "20", "40", "20")])
        .with_quota(ROOT, "port", "hangzhou", &[limits("cpu", "20", "40", "20")])
        .with_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "40", "0", "40")])
        .settled()
        .with(of("tax", "web", 40, "General"))
        .with(of("port", "ships", 40, "General"))
        .settled();
    province.create(of("rail", "tickets", 20, "General"));
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "tickets"), 20);
    let (web, ships) = (replicas(&province, "web"), replicas(&province, "ships"));
    assert_eq!(web + ships, 60);
    assert!((28..=32).contains(&web), "{web} and {ships}");
}

#[test]
fn what_a_cut_off_cluster_holds_stays_debited_and_comes_back_when_it_does() {
    let mut province = lent().with(of("tax", "web", 60, "General")).settled();
    province.put_cluster(cluster("hangzhou-b", "hangzhou"));
    province.settle();
    province.cut_off("hangzhou-a");
    province.create(of("rail", "tickets", 20, "General"));
    province.wait(4 * GRACE);
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.cpu.as_deref(), Some("60/20"));
    let stages = &province.entry("web", "hangzhou-a").unwrap().stages;
    let least = stages.iter().filter_map(|stage| stage.replicas).min();
    assert_eq!(
        least,
        Some(40),
        "what is on its way back is not taken twice"
    );
    assert_eq!(replicas(&province, "tickets"), 0);
    province.unsilence("hangzhou-a");
    province.wait(2 * GRACE);
    assert_eq!(
        (replicas(&province, "tickets"), replicas(&province, "web")),
        (20, 40)
    );
}

#[test]
fn what_is_granted_comes_before_what_is_borrowed() {
    let mut province = lent();
    // The older App would borrow all there is.
    province.create(of("tax", "web", 60, "Core"));
    province.create(of("rail", "tickets", 40, "Ancillary"));
    province.settle();
    assert_eq!(
        (replicas(&province, "tickets"), replicas(&province, "web")),
        (40, 20)
    );
}

#[test]
fn an_inner_tenant_gets_its_own_back_from_the_one_above() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "40", "0", "40")])
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota(
            "tax",
            "audit",
            "hangzhou",
            &[limits("cpu", "15", "0", "15")],
        )
        .settled()
        .with(of("tax", "web", 40, "General"))
        .settled();
    province.create(of("tax-audit", "ledger", 20, "General"));
    province.wait(2 * GRACE);
    assert_eq!(
        (replicas(&province, "ledger"), replicas(&province, "web")),
        (15, 25)
    );
}

#[test]
fn who_uses_more_than_a_later_quota_allows_gives_as_much_as_makes_room() {
    let mut province = Province::example()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax").replicas(4, "Duplicate"))
        .settled()
        .with_quota(ROOT, "tax", "zhejiang", &[limits("cpu", "15", "5", "0")])
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", "zhejiang", &[limits("cpu", "2", "0", "0")])
        .settled();
    province.create(
        app("ledger")
            .in_namespace("tax-audit")
            .replicas(1, "Capacity"),
    );
    // The second judge looks at every plan.
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "ledger"), 1);
    assert_eq!(
        replicas(&province, "web"),
        14,
        "14 and what updates add make 18 of 20"
    );
}

#[test]
fn what_would_not_make_a_whole_replica_is_not_taken() {
    let mut province = lent().with(of("tax", "web", 50, "General")).settled();
    // Forty are its right, and seven do not go into that five times.
    province.create(of("rail", "tickets", 3, "General").cores("7"));
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "tickets"), 3);
    assert_eq!(replicas(&province, "web"), 39);
    province.edit("tickets", |spec| spec.replicas.as_mut().unwrap().total = 9);
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "tickets"), 5);
    let writes = province.writes;
    let web = replicas(&province, "web");
    province.wait(5 * GRACE);
    assert_eq!((province.writes, replicas(&province, "web")), (writes, web));
}

#[test]
fn a_cut_that_goes_deeper_gives_time_anew() {
    let mut province = lent().with(of("tax", "web", 60, "General")).settled();
    province.create(of("rail", "tickets", 3, "General"));
    province.turn();
    province.world.now += 50_000;
    province.create(of("rail", "trains", 20, "General"));
    province.turn();
    province.world.now += 2_000;
    province.turn();
    let stages = &province.entry("web", "hangzhou-a").unwrap().stages;
    let counts: Vec<_> = stages.iter().map(|stage| stage.replicas).collect();
    assert_eq!(counts, [Some(60), Some(57), Some(37)]);
    let times: Vec<_> = stages.iter().filter_map(|stage| stage.not_before).collect();
    assert!(times[1].millis() - times[0].millis() >= 49_000, "{times:?}");
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "web"), 37);
}

#[test]
fn a_change_that_has_no_room_does_not_keep_what_is_borrowed() {
    let mut province = lent()
        .with_cores("hangzhou-a", 300)
        .with(of("tax", "web", 60, "General"))
        .settled();
    province.edit("web", |spec| {
        let pod = &mut spec.manifests[0]["spec"]["template"]["spec"];
        pod["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
    });
    province.settle();
    province.create(of("rail", "tickets", 30, "General"));
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "tickets"), 30);
    assert!(replicas(&province, "web") <= 30);
}

#[test]
fn what_a_lender_was_given_in_the_same_turn_is_not_asked_for_again() {
    let mut province = lent().with(of("tax", "web", 50, "General")).settled();
    // Ten are free, and fifteen more are wanted.
    province.create(of("rail", "tickets", 25, "General"));
    province.turn();
    let stages = &province.entry("web", "hangzhou-a").unwrap().stages;
    let counts: Vec<_> = stages.iter().map(|stage| stage.replicas).collect();
    assert_eq!(counts, [Some(50), Some(35)]);
}

#[test]
fn what_comes_free_bit_by_bit_is_kept_for_whoever_waits_for_all_of_it() {
    let mut province = lent()
        .with(of("tax", "small", 4, "Core"))
        .with(of("tax", "reports", 60, "General"))
        .settled();
    assert_eq!(replicas(&province, "reports"), 56);
    province.create(of("rail", "tickets", 1, "General").cores("8"));
    province.turn();
    province.delete("small");
    province.settle();
    assert_eq!(
        replicas(&province, "reports"),
        56,
        "it does not borrow what the lender waits for"
    );
    province.wait(2 * GRACE);
    assert_eq!(
        (
            replicas(&province, "tickets"),
            replicas(&province, "reports")
        ),
        (1, 52)
    );
}

#[test]
fn what_an_app_runs_beside_its_replicas_does_not_hide_what_still_runs() {
    let mut nightly = manifest("CronJob", "nightly");
    nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"] = json!([]);
    let web = of("tax", "web", 60, "General").and(nightly);
    let mut province = lent().with_cores("hangzhou-a", 300).with(web).settled();
    province.put_cluster(cluster("hangzhou-b", "hangzhou"));
    province.settle();
    let had = replicas(&province, "web");
    province.cut_off("hangzhou-a");
    province.create(of("rail", "tickets", 20, "General"));
    province.wait(4 * GRACE);
    assert!(replicas(&province, "web") < had, "it is to give some back");
    let status = province.quota_status(ROOT, "tax.hangzhou");
    let used: i32 = status.resources[0].used.0.parse().unwrap();
    assert!(
        used >= had - 1,
        "what is cut off stays debited: {used} of {had}"
    );
}

#[test]
fn what_was_started_a_moment_ago_and_is_to_end_is_charged_until_the_cluster_tells_of_it() {
    let mut province = lent().with(of("tax", "web", 20, "General")).settled();
    let ask = |province: &mut Province, total: i32| {
        province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = total);
        province.turn();
        province.world.now += 2_000;
        province.turn();
    };
    // In contact, but it has not told yet what it does.
    province.silence("hangzhou-a");
    ask(&mut province, 60);
    ask(&mut province, 20);
    let entry = province.entry("web", "hangzhou-a").unwrap();
    let counts: Vec<_> = entry.stages.iter().map(|stage| stage.replicas).collect();
    assert_eq!(counts, [Some(60), Some(20)]);
    province.create(of("rail", "tickets", 40, "Core"));
    province.turn();
    let used = |province: &Province| province.quota_status(ROOT, "tax.hangzhou").cpu.clone();
    assert_eq!(used(&province).as_deref(), Some("60/20"));
    assert_eq!(replicas(&province, "tickets"), 0, "sixty may run there");
    province.unsilence("hangzhou-a");
    province.wait(GRACE);
    assert_eq!(used(&province).as_deref(), Some("20/20"));
    assert_eq!(replicas(&province, "tickets"), 40);
    let entry = province.entry("web", "hangzhou-a").unwrap();
    assert_eq!(entry.stages.len(), 1, "what is past is cleared away");
}
