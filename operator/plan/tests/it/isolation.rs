//! Isolation: every namespace is enclosed before its first App in a cluster, and until after the last.

use crds::{ConditionStatus, ConditionType, EntryState, Management, Reason, ReportState};
use plan::check;
use plan::check::Finding;
use plan::content::AppContent;
use plan::province::Plan;
use plan::world::{NamespaceSlot, namespace_uid};
use serde_json::{Value, json};

use crate::province::grants::grant;
use crate::province::{Province, app, manifest};

const ROOT: &str = "jiuzhou-system";

/// The content of which a plan stores the hash that an entry names.
fn stored(plan: &Plan, cluster: &str) -> Vec<Value> {
    let mut entries = plan.slices.iter().filter(|w| w.cluster.as_str() == cluster);
    let entries = entries.next().unwrap().spec.entries.iter();
    let home = entries.clone().find(|entry| !entry.scope.is_app()).unwrap();
    let mut items = plan.contents.iter().flat_map(|pack| &pack.items);
    let item = items.find(|item| item.hash == home.content).unwrap();
    AppContent::from_data(&item.hash, &item.data)
        .unwrap()
        .manifests
}

fn named<'a>(manifests: &'a [Value], name: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|m| m["metadata"]["name"] == name);
    found.next().unwrap()
}

#[test]
fn a_namespace_is_enclosed_by_the_plan_that_places_its_first_app() {
    let mut province = Province::cities().settled();
    province.create(app("web").within(&["ningbo"]));
    let plan = province.plan();
    let manifests = stored(&plan, "ningbo-a");
    assert_eq!(manifests[0]["kind"], "Namespace");
    let deny = named(&manifests, "jiuzhou-default-deny");
    assert_eq!(deny["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        deny["spec"]["ingress"],
        json!([]),
        "set, so that nobody fills it in"
    );
    assert_eq!(plan.slices.len(), 1, "and nowhere else");
}

#[test]
fn a_namespace_stays_enclosed_when_its_apps_leave() {
    let mut province = Province::cities()
        .with(app("web").within(&["ningbo"]))
        .settled();
    province.delete("web");
    province.settle();
    let entry = province.enclosure("health", "ningbo-a").unwrap();
    assert!(entry.state.is_present());
    assert!(province.enclosure("health", "quzhou-a").is_none());
}

#[test]
fn with_its_tenant_a_namespace_goes_in_members_before_it_goes_at_the_hub() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax"))
        .settled();
    province.delete_tenant(ROOT, "tax");
    for _ in 0..40 {
        let plan = province.plan();
        let gone = province.namespace("tax").is_none();
        if gone {
            break;
        }
        assert!(
            province.enclosure("tax", "ningbo-a").is_some() || province.namespace("tax").is_some()
        );
        province.carry_out(&plan);
        province.turn();
        province.world.now += 1_000;
    }
    province.settle();
    assert!(province.tenants.is_empty() && province.namespace("tax").is_none());
    assert!(
        province
            .world
            .ledger(&namespace_uid(&"tax".into()))
            .is_none()
    );
}

#[test]
fn a_cluster_that_was_away_takes_the_namespace_back_when_it_returns() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax"))
        .settled();
    province.cut_off("ningbo-a");
    province.delete_tenant(ROOT, "tax");
    province.settle();
    assert!(province.namespace("tax").is_none(), "nobody waits for it");
    let left = province.enclosure("tax", "ningbo-a").unwrap();
    assert_eq!(left.state, EntryState::Removed);
    province.unsilence("ningbo-a");
    province.wait(60);
    assert!(
        province
            .world
            .ledger(&namespace_uid(&"tax".into()))
            .is_none()
    );
}

#[test]
fn a_new_tenant_of_the_same_name_starts_after_the_old_one_is_gone() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax"))
        .settled();
    province.cut_off("ningbo-a");
    province.delete_tenant(ROOT, "tax");
    province.settle();
    let mut province = province
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("api").in_namespace("tax"))
        .settled();
    assert_eq!(
        province.enclosure("tax", "ningbo-a").unwrap().state,
        EntryState::Removed,
        "it cannot be told yet"
    );
    province.unsilence("ningbo-a");
    province.wait(60);
    assert!(
        province
            .enclosure("tax", "ningbo-a")
            .unwrap()
            .state
            .is_present()
    );
    assert_eq!(province.clusters_of("api").len(), 3);
}

#[test]
fn in_a_cluster_that_is_released_a_namespace_is_let_go_after_its_apps() {
    let mut province = Province::cities().with(app("web")).settled();
    province.edit_cluster("ningbo-a", |c| c.spec.management = Management::Release);
    province.turn();
    assert!(
        province
            .enclosure("health", "ningbo-a")
            .unwrap()
            .state
            .is_present()
    );
    province.settle();
    assert!(
        province.enclosure("health", "ningbo-a").is_none(),
        "acknowledged"
    );
    assert!(
        province
            .enclosure("health", "quzhou-a")
            .unwrap()
            .state
            .is_present()
    );
}

#[test]
fn an_isolation_holds_in_its_zones_and_grades_and_nowhere_else() {
    let mut province = Province::cities().with(app("web")).settled();
    let before = province
        .enclosure("health", "ningbo-a")
        .unwrap()
        .content
        .clone();
    province.set_isolation(
        "internet",
        &json!({"zones": ["Internet"], "podSecurity": "Restricted"}),
    );
    province.settle();
    assert_eq!(
        province.enclosure("health", "ningbo-a").unwrap().content,
        before
    );
    let strict = json!({"podSecurity": "Restricted", "dataGrades": ["Important"]});
    province.set_isolation("important", &strict);
    province.edit_cluster("ningbo-a", |c| {
        c.spec.max_data_grade = crds::DataGrade::General;
    });
    province.edit_cluster("quzhou-a", |c| {
        c.spec.max_data_grade = crds::DataGrade::Important;
    });
    province.settle();
    assert_eq!(
        province.enclosure("health", "ningbo-a").unwrap().content,
        before,
        "no such data may be there"
    );
    assert_ne!(
        province.enclosure("health", "quzhou-a").unwrap().content,
        before
    );
    province.delete_isolation("important");
    province.settle();
    assert_eq!(
        province.enclosure("health", "quzhou-a").unwrap().content,
        before
    );
}

#[test]
fn a_namespace_that_is_no_tenants_is_taken_back_once_it_is_deleted_and_its_apps_are_gone() {
    let mut province = Province::cities().with(app("web")).settled();
    let deleted = NamespaceSlot {
        deleting: true,
        ..NamespaceSlot::plain("ns-health".into())
    };
    province.world.apply_namespace(&"health".into(), deleted);
    province.settle();
    assert!(
        province.enclosure("health", "ningbo-a").is_some(),
        "its App is still there"
    );
    province.delete("web");
    province.settle();
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        assert_eq!(province.enclosure("health", cluster), None, "{cluster}");
    }
}

#[test]
fn an_isolation_that_changed_is_in_force_nowhere_before_that_is_written() {
    let mut province = Province::cities()
        .with(app("web"))
        .with_isolation("extranet", &json!({}))
        .settled();
    province.set_isolation("extranet", &json!({"podSecurity": "Restricted"}));
    let plan = province.plan();
    province.carry_out(&plan);
    let ready = province.isolation_condition("extranet", ConditionType::Ready);
    let ready = ready.unwrap();
    assert_eq!(ready.status, ConditionStatus::False, "{}", ready.message);
    assert!(ready.message.contains("0 of 3"), "{}", ready.message);
    province.settle();
    let ready = province.isolation_condition("extranet", ConditionType::Ready);
    assert_eq!(ready.unwrap().status, ConditionStatus::True);
}

#[test]
fn an_isolation_tells_where_it_is_in_force_and_what_stands_in_its_way() {
    let mut province = Province::cities()
        .with(app("web"))
        .with_isolation("extranet", &json!({}))
        .settled();
    let status = province.isolations["extranet"].status.clone().unwrap();
    assert_eq!(status.enforcement.as_deref(), Some("3/3"));
    province.silence("ningbo-a");
    let mut report = province.agents["ningbo-a"].reports.clone();
    let mine = report.get_mut(&namespace_uid(&"health".into())).unwrap();
    mine.state = ReportState::Failed;
    mine.reason = Some(Reason::NotManaged);
    mine.message = Some("namespace health exists and is not managed".to_owned());
    province.agents.get_mut("ningbo-a").unwrap().reports = report;
    let told = province.agents["ningbo-a"].report();
    province.world.apply_report(&"ningbo-a".into(), told);
    province.settle();
    let stalled = province
        .isolation_condition("extranet", ConditionType::Stalled)
        .unwrap();
    assert_eq!(
        (stalled.status, stalled.reason),
        (ConditionStatus::True, Reason::NotManaged)
    );
    assert!(
        stalled.message.contains("2 of 3") && stalled.message.contains("cluster ningbo-a"),
        "{}",
        stalled.message
    );
}

#[test]
fn an_app_with_a_kind_or_an_image_that_its_zone_does_not_allow_is_parked_and_keeps_what_runs() {
    let mut province = Province::cities().with(app("web")).settled();
    province.set_isolation(
        "extranet",
        &json!({"allowedRegistries": ["registry.example/health"]}),
    );
    province.settle();
    assert_eq!(province.ready("web"), "RegistryNotAllowed");
    assert_eq!(province.clusters_of("web").len(), 3, "what runs is kept");
    province.change_content("web", "registry.example/health/web:2");
    province.settle();
    assert_eq!(province.ready("web"), "AsExpected");
    province.set_isolation("extranet", &json!({"allowedKinds": ["Deployment"]}));
    province.create(app("api").and(manifest("Service", "api")));
    province.settle();
    assert_eq!(province.ready("web"), "AsExpected");
    assert_eq!(province.ready("api"), "KindNotAllowed");
    assert_eq!(province.clusters_of("api").len(), 0);
}

#[test]
fn an_image_that_an_override_brings_in_is_judged_as_well() {
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil.example/web"}]);
    let target = json!({"group": "apps", "kind": "Deployment", "name": "web"});
    let change = json!([{"regions": {"within": ["ningbo"]}, "target": target, "patch": patch}]);
    let province = Province::cities()
        .with_isolation(
            "extranet",
            &json!({"allowedRegistries": ["registry.example"]}),
        )
        .with(app("web").set("/overrides", change))
        .settled();
    assert_eq!(province.ready("web"), "RegistryNotAllowed");
}

#[test]
fn a_namespace_is_limited_in_what_its_quotas_name() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax").replicas(3, "Even"))
        .settled();
    assert!(
        province
            .enclosure("tax", "ningbo-a")
            .unwrap()
            .limits
            .is_empty()
    );
    province.set_quota(
        ROOT,
        "tax",
        "ningbo",
        &[grant("cpu", "8"), grant("services", "2")],
    );
    province.settle();
    assert_eq!(
        *province.enclosure("tax", "ningbo-a").unwrap().limits,
        ["cpu", "services"]
    );
    assert_eq!(
        *province.enclosure("tax", "quzhou-a").unwrap().limits,
        ["cpu", "memory", "pods"],
        "where it has no Quota nothing grows"
    );
}

#[test]
fn while_pods_are_replaced_by_smaller_ones_the_larger_ones_are_charged() {
    let mut province = Province::cities()
        .with(
            app("web")
                .within(&["ningbo"])
                .cores("2")
                .replicas(2, "Even"),
        )
        .settled();
    let charged = |province: &Province| {
        let charge = &province.entry("web", "ningbo-a").unwrap().charge;
        let fixed = charge.fixed.get("cpu").map(|cpu| cpu.0.clone());
        (charge.each["cpu"].0.clone(), fixed)
    };
    assert_eq!(charged(&province), ("2".to_owned(), None));
    province.edit("web", |spec| {
        let requests = json!({"requests": {"cpu": "1"}});
        spec.manifests[0]["spec"]["template"]["spec"]["containers"][0]["resources"] = requests;
    });
    province.turn();
    // Three pods of two cores, or three of one and three cores beside them.
    let meanwhile = ("1".to_owned(), Some("3".to_owned()));
    assert_eq!(charged(&province), meanwhile, "the earlier pods are there");
    province.settle();
    assert_eq!(charged(&province), ("1".to_owned(), None));
}

#[test]
fn a_rollout_is_charged_no_more_than_was_paid_for() {
    // Eight cores of nine, then less for each pod and some that a rolling update adds.
    let mut first = manifest("Deployment", "web");
    first["spec"]["strategy"] = json!({"type": "Recreate"});
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .with_quota(ROOT, "tax", "ningbo", &[grant("cpu", "9")])
        .settled()
        .with(
            app("web")
                .in_namespace("tax")
                .within(&["ningbo"])
                .replicas(8, "Even")
                .set("/manifests", json!([first])),
        )
        .settled();
    province.edit("web", |spec| {
        let requests = json!({"requests": {"cpu": "500m"}});
        let deployment = &mut spec.manifests[0]["spec"];
        deployment["template"]["spec"]["containers"][0]["resources"] = requests;
        deployment["strategy"] = json!({"type": "RollingUpdate"});
    });
    province.settle();
    assert_eq!(province.ready("web"), "AsExpected");
    assert_eq!(province.updated("web"), ["ningbo-a"]);
}

#[test]
fn a_namespace_whose_slice_was_lost_is_put_down_again_and_taken_back_with_its_tenant() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with(app("web").in_namespace("tax").within(&["ningbo"]))
        .settled();
    province.delete("web");
    province.settle();
    province.delete_slice("ningbo-a", "a-0000");
    province.settle();
    assert!(
        province
            .enclosure("tax", "ningbo-a")
            .unwrap()
            .state
            .is_present()
    );
    province.delete_slice("ningbo-a", "a-0000");
    province.delete_tenant(ROOT, "tax");
    province.settle();
    assert!(province.tenants.is_empty());
    assert!(
        province
            .world
            .ledger(&namespace_uid(&"tax".into()))
            .is_none()
    );
}

#[test]
fn the_second_judge_finds_an_app_that_nothing_isolates_and_an_isolation_that_ends_too_early() {
    let mut province = Province::cities().settled();
    province.create(app("web").within(&["ningbo"]));
    let mut plan = province.plan();
    plan.slices[0]
        .spec
        .entries
        .retain(|entry| entry.scope.is_app());
    let findings = check(&province.world, &plan);
    assert!(
        matches!(&findings[..], [Finding::Exposed(..)]),
        "{findings:?}"
    );
    province.settle();
    province.change_content("web", "web:2");
    let mut plan = province.plan();
    for entry in &mut plan.slices[0].spec.entries {
        if !entry.scope.is_app() {
            entry.state = EntryState::Removed;
            entry.generation += 1;
        }
    }
    let findings = check(&province.world, &plan);
    assert!(
        matches!(&findings[..], [Finding::Opened(..)]),
        "{findings:?}"
    );
    // That a namespace is missing at the hub is no reason.
    province.world.remove_namespace(&"health".into());
    for entry in &mut plan.slices[0].spec.entries {
        entry.state = EntryState::Removed;
    }
    let findings = check(&province.world, &plan);
    let opened = |finding: &Finding| matches!(finding, Finding::Opened(..));
    assert!(findings.iter().any(opened), "{findings:?}");
}
