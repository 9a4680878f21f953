//! Links: what is declared and granted passes, from both sides, and nothing else.

use crds::{ConditionStatus, ConditionType, DataGrade, Reason, Zone};
use plan::content::AppContent;
use serde_json::{Value, json};

use crate::province::{Province, app};

/// An App web of health in all cities, and an App sso of police in Ningbo.
fn two() -> Province {
    Province::cities()
        .with(app("web"))
        .with(app("sso").in_namespace("police").within(&["ningbo"]))
        .settled()
}

/// The same with a Link that both sides agree on.
fn linked() -> Province {
    let mut province = two();
    province.consent("health");
    province.set_link("id", |_| {});
    province
}

#[track_caller]
fn refused(province: &mut Province, reason: Reason, message: &str) {
    province.settle();
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.status, ready.reason),
        (ConditionStatus::False, reason)
    );
    assert!(ready.message.contains(message), "{}", ready.message);
    let before = two();
    for namespace in ["health", "police"] {
        assert_eq!(
            province.enclosure(namespace, "ningbo-a").unwrap().content,
            before.enclosure(namespace, "ningbo-a").unwrap().content,
            "it opens nothing in {namespace}"
        );
    }
}

/// Policies of Links that a plan is about to store for a namespace.
fn policies(province: &mut Province, namespace: &str) -> Vec<Value> {
    let plan = province.plan();
    let mine = plan
        .contents
        .iter()
        .filter(|pack| pack.tenant.as_str() == namespace);
    let items = mine.flat_map(|pack| &pack.items);
    let all = items.flat_map(|item| {
        AppContent::from_data(&item.hash, &item.data)
            .unwrap()
            .manifests
    });
    all.filter(|m| !m["metadata"]["annotations"]["jiuzhou.io/link"].is_null())
        .collect()
}

#[test]
fn a_link_that_both_sides_agree_on_opens_both_sides_and_no_more() {
    let mut province = linked();
    let out = policies(&mut province, "health");
    let into = policies(&mut province, "police");
    assert_eq!((out.len(), into.len()), (1, 1));
    assert_eq!(out[0]["spec"]["policyTypes"], json!(["Egress"]));
    assert_eq!(
        out[0]["spec"]["egress"],
        json!([{
            "to": [{
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "police"}},
                "podSelector": {"matchLabels": {"jiuzhou.io/app": "sso"}},
            }],
            "ports": [{"port": 8443, "protocol": "TCP"}],
        }])
    );
    assert_eq!(into[0]["spec"]["policyTypes"], json!(["Ingress"]));
    assert_eq!(
        into[0]["spec"]["podSelector"],
        json!({"matchLabels": {"jiuzhou.io/app": "sso"}})
    );
    province.settle();
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
    assert!(ready.message.contains("4 of 4"), "{}", ready.message);
}

#[test]
fn a_link_is_in_force_nowhere_before_that_is_written() {
    let mut province = linked();
    let plan = province.plan();
    province.carry_out(&plan);
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(ready.status, ConditionStatus::False, "{}", ready.message);
    assert!(ready.message.contains("0 of 4"), "{}", ready.message);
}

#[test]
fn without_the_other_sides_consent_nothing_opens() {
    let mut province = two();
    province.set_link("id", |_| {});
    refused(
        &mut province,
        Reason::GrantMissing,
        "whoever runs police creates one",
    );
    province.consent("tax");
    refused(&mut province, Reason::GrantMissing, "from namespace health");
    province.consent("health");
    province.settle();
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(ready.status, ConditionStatus::True);
    province.world.remove_link_grant(&"police".into(), "grant");
    refused(&mut province, Reason::GrantMissing, "no LinkGrant");
}

#[test]
fn a_link_ends_by_itself_and_when_it_is_deleted() {
    let mut province = linked();
    province.settle();
    province.world.now += 3_600_000;
    refused(&mut province, Reason::Expired, "is past");
    province.set_link("id", |_| {});
    province.settle();
    province.delete_link("id");
    province.settle();
    assert_eq!(
        province.enclosure("health", "ningbo-a").unwrap().content,
        two().enclosure("health", "ningbo-a").unwrap().content
    );
}

#[test]
fn a_link_to_or_from_an_app_that_is_not_there_opens_nothing() {
    let mut province = linked();
    province.set_link("id", |link| {
        link["spec"]["from"]["appNames"] = json!(["web", "wap"]);
    });
    refused(&mut province, Reason::AppMissing, "App wap");
    province.set_link("id", |link| link["spec"]["to"]["appName"] = json!("ssl"));
    province.consent_to("health", "ssl");
    refused(
        &mut province,
        Reason::AppMissing,
        "App ssl of namespace police",
    );
}

#[test]
fn a_link_without_consent_does_not_tell_which_apps_the_other_side_has() {
    let mut province = two();
    let told = ["sso", "ssl"].map(|name| {
        province.set_link("id", |link| link["spec"]["to"]["appName"] = json!(name));
        province.settle();
        let ready = province.link_condition("id", ConditionType::Ready).unwrap();
        (ready.reason, ready.message.replace(name, "APP"))
    });
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0, Reason::GrantMissing);
}

#[test]
fn a_link_to_addresses_needs_the_yes_of_somebody_who_had_no_hand_in_it() {
    for side in ["from", "to"] {
        let mut province = linked();
        province.set_link("id", |link| {
            link["spec"][side]["addresses"] = json!(["10.20.0.0/16"]);
        });
        refused(&mut province, Reason::ApprovalRequired, "names addresses");
        province.decide_link("id", "eve", "Approve");
        province.settle();
        let ready = province.link_condition("id", ConditionType::Ready).unwrap();
        assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
    }
}

#[test]
fn an_app_that_moves_to_another_zone_needs_another_yes_for_its_links() {
    let mut province = linked();
    province.edit("web", |spec| spec.zone = Zone::Internet);
    province.settle();
    province.decide_link("id", "eve", "Approve");
    province.settle();
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
    province.edit("web", |spec| spec.zone = Zone::ExtranetDedicated);
    refused(
        &mut province,
        Reason::ApprovalRequired,
        "waits for an Approval",
    );
}

#[test]
fn less_sensitive_apps_do_not_reach_more_sensitive_data() {
    let mut province = linked();
    for name in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        province.edit_cluster(name, |c| c.spec.max_data_grade = DataGrade::Core);
    }
    province.edit("sso", |spec| spec.data_grade = DataGrade::Important);
    province.settle();
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, Reason::GradeExceeded);
    assert!(
        ready.message.contains("App web of data grade General"),
        "{}",
        ready.message
    );
}

#[test]
fn a_link_between_zones_needs_the_yes_of_somebody_who_had_no_hand_in_it() {
    let mut province = linked();
    province.edit("web", |spec| spec.zone = Zone::Internet);
    refused(
        &mut province,
        Reason::ApprovalRequired,
        "step cross-zone, contentHash",
    );
    province.decide_link("id", "ann", "Approve");
    refused(
        &mut province,
        Reason::ApprovalRequired,
        "that of ann does not count",
    );
    province.decide_link("id", "eve", "Approve");
    province.settle();
    let ready = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(ready.status, ConditionStatus::True, "{}", ready.message);
    // Another port is another Link.
    province.set_link("id", |link| {
        link["spec"]["to"]["ports"] = json!([{"port": 22}]);
    });
    refused(
        &mut province,
        Reason::ApprovalRequired,
        "waits for an Approval",
    );
    province.decide_link("id", "eve", "Approve");
    province.settle();
    province.world.now += 600_000;
    refused(
        &mut province,
        Reason::ApprovalRequired,
        "waits for an Approval",
    );
    province.decide_link("id", "eve", "Reject");
    refused(&mut province, Reason::ApprovalRejected, "eve rejected it");
}

#[test]
fn a_link_whose_authors_are_not_known_cannot_be_approved() {
    let mut province = linked();
    province.set_link("id", |link| link["metadata"]["annotations"] = json!({}));
    province.edit("web", |spec| spec.zone = Zone::Internet);
    province.settle();
    province.decide_link("id", "eve", "Approve");
    refused(
        &mut province,
        Reason::ApprovalRequired,
        "that of eve does not count",
    );
}

#[test]
fn a_bad_link_stops_only_itself() {
    let mut province = linked();
    province.set_link("bad", |link| {
        link["spec"]["to"]["addresses"] = json!(["0.0.0.0/0"]);
    });
    province.settle();
    let bad = province
        .link_condition("bad", ConditionType::Ready)
        .unwrap();
    assert!(
        bad.message.contains("spec.to.addresses has 0.0.0.0/0"),
        "{}",
        bad.message
    );
    let good = province.link_condition("id", ConditionType::Ready).unwrap();
    assert_eq!(good.status, ConditionStatus::True);
}

#[test]
fn a_parked_app_keeps_the_links_it_has() {
    let mut province = linked();
    province.settle();
    let before = province
        .enclosure("health", "ningbo-a")
        .unwrap()
        .content
        .clone();
    province.edit("web", |spec| spec.manifests.clear());
    province.settle();
    assert_eq!(
        province.enclosure("health", "ningbo-a").unwrap().content,
        before
    );
}
