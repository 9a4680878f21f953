//! The emergency lane: who is in it, what it takes at once, and from whom.

use crds::{ConditionType, Reason};
use plan::province::emergency_hash;
use serde_json::{Value, json};

use crate::province::Province;
use crate::province::grants::{limits, of, replicas};

const ROOT: &str = "jiuzhou-system";
/// Seconds that borrowers have otherwise.
const GRACE: i64 = 60;
const HOUR: i64 = 3_600_000;

/// Sixty cores in Hangzhou: rail is granted forty and lends them all, tax twenty and borrows up to as much,
/// and port, which is granted nothing, may borrow ten.
fn lent() -> Province {
    Province::cities()
        .with_budget("hangzhou", &[("cpu", "60")])
        .with_tenant(ROOT, "tax", &json!({}))
        .with_tenant(ROOT, "rail", &json!({}))
        .with_tenant(ROOT, "port", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "20", "40", "20")])
        .with_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "40", "0", "40")])
        .with_quota(ROOT, "port", "hangzhou", &[limits("cpu", "0", "10", "0")])
        .settled()
        .with(of("tax", "reports", 60, "Ancillary"))
        .settled()
}

#[track_caller]
fn says(province: &Province, app: &str, text: &str) {
    let admitted = province.condition(app, ConditionType::Admitted).unwrap();
    assert!(admitted.message.contains(text), "{}", admitted.message);
}

#[test]
fn it_takes_back_at_once_what_others_borrow_and_everybody_can_read_who_said_so() {
    let mut province = lent();
    province.create(of("rail", "alerts", 30, "Core"));
    province.turn();
    let slot = province.world.app(&province.uid("alerts")).unwrap();
    let hash = emergency_hash(slot, slot.state.as_ref().unwrap());
    says(
        &province,
        "alerts",
        &format!("namespace rail, name alerts, step emergency, contentHash {hash}"),
    );
    province.urge("alerts", |_| {});
    province.settle();
    assert_eq!(
        (
            replicas(&province, "alerts"),
            replicas(&province, "reports")
        ),
        (30, 30),
        "long before the grace time is over"
    );
    says(&province, "alerts", "by duty-officer: flood.");
    let waits = province
        .condition("reports", ConditionType::Admitted)
        .unwrap();
    assert_eq!(waits.reason, Reason::QuotaExceeded);
}

#[test]
fn it_takes_only_what_its_tenant_is_granted_and_from_nobody_who_is_within_his_own() {
    let mut province = lent();
    province.create(of("port", "rescue", 10, "Core"));
    province.urge("rescue", |_| {});
    province.settle();
    assert_eq!(
        (
            replicas(&province, "rescue"),
            replicas(&province, "reports")
        ),
        (0, 60),
        "port may borrow, but is granted nothing"
    );
    province.set_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "34", "0", "34")]);
    province.set_quota(ROOT, "port", "hangzhou", &[limits("cpu", "6", "4", "0")]);
    province.settle();
    assert_eq!(
        (
            replicas(&province, "rescue"),
            replicas(&province, "reports")
        ),
        (6, 54)
    );
}

#[test]
fn two_of_them_take_nothing_from_each_other() {
    let mut province = lent();
    province.set_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "34", "9", "34")]);
    province.set_quota(ROOT, "port", "hangzhou", &[limits("cpu", "6", "9", "0")]);
    province.create(of("port", "rescue", 10, "Core"));
    province.create(of("rail", "alerts", 50, "Core"));
    province.urge("rescue", |_| {});
    province.urge("alerts", |_| {});
    province.settle();
    let all =
        |province: &Province| ["rescue", "alerts", "reports"].map(|name| replicas(province, name));
    assert_eq!(all(&province), [6, 34, 20]);
    let writes = province.writes;
    province.wait(3 * GRACE);
    assert_eq!((all(&province), province.writes), ([6, 34, 20], writes));
}

#[test]
fn of_all_that_wait_it_is_heard_first() {
    let mut province = lent()
        .with_quota(ROOT, "port", "ningbo", &[limits("cpu", "20", "0", "0")])
        .settled();
    let there = |name| of("port", name, 20, "Core").within(&["ningbo"]);
    province.create(there("older"));
    province.create(there("alerts"));
    province.urge("alerts", |_| {});
    province.settle();
    assert_eq!(
        (replicas(&province, "alerts"), replicas(&province, "older")),
        (20, 0)
    );
}

#[test]
fn of_those_who_borrow_it_gives_last() {
    let mut province = lent();
    province.create(of("tax", "older", 20, "Core"));
    province.create(of("tax", "alerts", 20, "Core"));
    province.delete("reports");
    province.settle();
    province.urge("alerts", |_| {});
    province.create(of("rail", "tickets", 40, "General"));
    province.turn();
    let entry = province.entry("alerts", "hangzhou-a").unwrap();
    assert_eq!(entry.stages.len(), 1, "it is not even announced");
    province.wait(2 * GRACE);
    assert_eq!(
        (replicas(&province, "alerts"), replicas(&province, "older")),
        (20, 0)
    );
}

#[test]
fn what_was_announced_with_a_grace_time_goes_at_once_as_far_as_the_emergency_needs_it() {
    let mut province = lent();
    province.create(of("rail", "tickets", 10, "General"));
    province.turn();
    province.create(of("rail", "alerts", 10, "Core"));
    province.urge("alerts", |_| {});
    province.settle();
    assert_eq!(replicas(&province, "alerts"), 10);
    let entry = province.entry("reports", "hangzhou-a").unwrap();
    let counts: Vec<_> = entry.stages.iter().map(|stage| stage.replicas).collect();
    assert_eq!(counts, [Some(50), Some(40)], "tickets wait for the rest");
    assert_eq!(replicas(&province, "tickets"), 0);
    province.wait(2 * GRACE);
    assert_eq!(
        (
            replicas(&province, "tickets"),
            replicas(&province, "reports")
        ),
        (10, 40)
    );
}

#[test]
fn when_it_is_over_what_it_has_stays_and_what_it_lacks_comes_after_the_grace_time() {
    let mut province = lent();
    province.create(of("rail", "alerts", 10, "Core"));
    province.urge("alerts", |_| {});
    province.settle();
    says(&province, "alerts", "In the emergency lane until");
    province.wait(HOUR / 1_000);
    let admitted = province
        .condition("alerts", ConditionType::Admitted)
        .unwrap();
    let lane = admitted.message.contains("lane");
    assert!(!lane, "{}", admitted.message);
    assert_eq!(replicas(&province, "alerts"), 10);
    province.edit("alerts", |spec| spec.replicas.as_mut().unwrap().total = 20);
    province.settle();
    assert_eq!(replicas(&province, "alerts"), 10);
    province.wait(2 * GRACE);
    assert_eq!(replicas(&province, "alerts"), 20);
}

#[test]
fn an_approval_that_does_not_count_says_why_and_takes_nothing() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit, &str); 6] = [
        ("General", |_| {}, "spec.tier of the App has to be Core"),
        (
            "Core",
            |a| a["spec"]["contentHash"] = json!(format!("sha256:{}", "0".repeat(64))),
            "its spec.contentHash is not that of the App as it is now",
        ),
        (
            "Core",
            |a| a["spec"]["approver"] = json!("ci"),
            "its spec.approver had a hand in the App",
        ),
        (
            "Core",
            |a| a["spec"]["decision"] = json!("Reject"),
            "duty-officer rejects it by Approval alerts-emergency",
        ),
        (
            "Core",
            |a| a["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z"),
            "more than seven days after it was made",
        ),
        // Whoever runs the tenant says nothing about other tenants.
        (
            "Core",
            |a| a["metadata"]["namespace"] = json!("rail"),
            "In an emergency, while others borrow, an Approval in namespace jiuzhou-system",
        ),
    ];
    for (tier, edit, text) in cases {
        let mut province = lent();
        province.create(of("rail", "alerts", 30, tier));
        province.urge("alerts", edit);
        province.settle();
        assert_eq!(replicas(&province, "alerts"), 0, "{text}");
        says(&province, "alerts", text);
    }
}

#[test]
fn an_approval_that_is_deleted_counts_no_longer() {
    let mut province = lent();
    province.create(of("rail", "alerts", 50, "Core"));
    province.urge("alerts", |_| {});
    province.settle();
    assert_eq!(
        replicas(&province, "alerts"),
        40,
        "all that rail is granted"
    );
    says(&province, "alerts", "In the emergency lane until");
    province
        .world
        .remove_approval(&ROOT.into(), "alerts-emergency");
    province.settle();
    says(&province, "alerts", "step emergency");
}

#[test]
fn it_is_for_what_was_approved_and_not_for_more_of_it() {
    let mut province = lent();
    let uid = province.create(of("rail", "alerts", 5, "Core"));
    province.urge("alerts", |_| {});
    province.settle();
    assert_eq!(replicas(&province, "alerts"), 5);
    province.edit("alerts", |spec| spec.replicas.as_mut().unwrap().total = 30);
    province.settle();
    assert_eq!(replicas(&province, "alerts"), 5);
    says(
        &province,
        "alerts",
        "Approval alerts-emergency does not count",
    );
    // Nor for another one of the same name.
    province.edit("alerts", |spec| spec.replicas.as_mut().unwrap().total = 5);
    province.settle();
    says(&province, "alerts", "In the emergency lane");
    province.delete("alerts");
    province.settle();
    assert_ne!(province.create(of("rail", "alerts", 5, "Core")), uid);
    province.settle();
    says(
        &province,
        "alerts",
        "Approval alerts-emergency does not count",
    );
}

#[test]
fn a_no_to_something_else_keeps_nobody_out() {
    let mut province = lent();
    province.create(of("rail", "alerts", 5, "Core"));
    province.urge("alerts", |a| {
        a["spec"]["decision"] = json!("Reject");
        a["metadata"]["name"] = json!("no");
    });
    province.edit("alerts", |spec| spec.replicas.as_mut().unwrap().total = 6);
    province.urge("alerts", |_| {});
    province.settle();
    assert_eq!(replicas(&province, "alerts"), 6);
}
