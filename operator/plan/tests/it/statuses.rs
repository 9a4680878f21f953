//! What users read.

use crds::{ConditionStatus, ConditionType, Reason, ReportState};
use serde_json::json;

use crate::province::{Province, app, cluster, region};

fn kinds(province: &Province, app: &str) -> Vec<ConditionType> {
    province
        .report(app)
        .status
        .conditions
        .iter()
        .map(|c| c.kind)
        .collect()
}

#[test]
fn at_rest_an_app_is_ready_and_neither_reconciling_nor_stalled() {
    use ConditionType::{Admitted, Applied, Healthy, Protected, Ready, Scheduled};
    let province = Province::cities()
        .with(app("web").replicas(6, "Even"))
        .settled();
    assert_eq!(
        kinds(&province, "web"),
        [Ready, Admitted, Scheduled, Applied, Healthy, Protected]
    );
    let status = &province.report("web").status;
    assert!(
        status
            .conditions
            .iter()
            .filter(|c| c.kind != Protected)
            .all(|c| c.status == ConditionStatus::True)
    );
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(
        (status.readiness.as_deref(), status.clusters.as_deref()),
        (Some("6/6"), Some("3/3"))
    );
    assert_eq!(status.placement_count, Some(3));
}

#[test]
fn while_it_is_applied_an_app_is_reconciling() {
    let mut province = Province::cities().settled();
    province.create(app("web").replicas(6, "Even"));
    province.turn();
    let status = &province.report("web").status;
    assert_eq!(
        province
            .condition("web", ConditionType::Reconciling)
            .unwrap()
            .reason,
        Reason::InProgress
    );
    assert!(
        status
            .placements
            .iter()
            .all(|p| p.state == ReportState::Pending)
    );
    assert_eq!(status.clusters.as_deref(), Some("0/3"));
}

#[test]
fn what_somebody_must_act_on_is_stalled() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Even"))
        .settled();
    province.bad.insert(province.wanted("web"));
    province.settle();
    let stalled = province.condition("web", ConditionType::Stalled).unwrap();
    assert_eq!(stalled.reason, Reason::Unhealthy);
    assert!(
        stalled
            .message
            .contains("hangzhou-a: Deployment web is not ready: look at its pods.")
    );
    assert!(
        province
            .condition("web", ConditionType::Reconciling)
            .is_none()
    );
}

#[test]
fn an_app_that_is_only_observed_says_what_to_switch() {
    let mut province = Province::cities();
    province.edit_cluster("ningbo-a", |c| {
        c.spec.management = crds::Management::Observe;
    });
    let mut province = province
        .with(
            app("web")
                .within(&["ningbo"])
                .set("/takeOver", json!("Always")),
        )
        .settled();
    let uid = province.uid("web");
    let mut report = province.agents["ningbo-a"].reports[&uid].clone();
    report.state = ReportState::Observed;
    let spec = crds::ReportSliceSpec {
        entries: vec![report],
    };
    province
        .world
        .apply_report(&"ningbo-a".into(), crds::ReportSlice::new("r-0000", spec));
    let _ = province.plan();
    let stalled = province.condition("web", ConditionType::Stalled).unwrap();
    assert_eq!(stalled.reason, Reason::ObserveOnly);
    assert!(
        stalled
            .message
            .contains("set its spec.management to Manage"),
        "{}",
        stalled.message
    );
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_flip() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Even"))
        .settled();
    let since = province
        .condition("web", ConditionType::Ready)
        .unwrap()
        .last_transition_time;
    province.wait(600);
    province.edit("web", |spec| spec.display_name = Some("健康码".into()));
    province.settle();
    let ready = province.condition("web", ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.last_transition_time, ready.observed_generation),
        (since, Some(2))
    );
    province.bad.insert(province.wanted("web"));
    province.settle();
    assert!(
        province
            .condition("web", ConditionType::Ready)
            .unwrap()
            .last_transition_time
            > since
    );
}

#[test]
fn nothing_is_written_at_rest() {
    let mut province = Province::example()
        .with(app("web").replicas(6, "Even"))
        .with(app("api").replicas(3, "Capacity").at_most(2))
        .settled();
    let before = (province.writes, province.status_writes);
    province.wait(3_600);
    assert_eq!((province.writes, province.status_writes), before);
}

#[test]
fn of_many_clusters_the_worst_thirty_two_are_shown_and_all_are_counted() {
    let mut province =
        Province::empty().with_region(region("zhejiang", "Province", "330000", None));
    for n in 0..40 {
        let name = format!("county-{n:02}");
        province.put_region(region(
            &name,
            "County",
            &format!("33{:02}{:02}", 1 + n / 20, 1 + n % 20),
            Some("zhejiang"),
        ));
        province.put_cluster(cluster(&format!("{name}-a"), &name));
    }
    let mut province = province.with(app("web").replicas(2, "Duplicate")).settled();
    province.cut_off("county-39-a");
    let status = &province.report("web").status;
    assert_eq!(status.placements.len(), 32);
    assert_eq!(
        status.placements[0].cluster_name.as_str(),
        "county-39-a",
        "what cannot be seen is worse"
    );
    assert_eq!(
        (
            status.placement_count,
            status.replicas,
            status.ready_replicas
        ),
        (Some(40), 80, 80)
    );
}

#[test]
fn ill_clusters_are_shown_before_healthy_ones() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Even"))
        .settled();
    let uid = province.uid("web");
    let mut report = province.agents["quzhou-a"].reports[&uid].clone();
    (report.state, report.ready) = (ReportState::Unhealthy, 1);
    let spec = crds::ReportSliceSpec {
        entries: vec![report],
    };
    province
        .world
        .apply_report(&"quzhou-a".into(), crds::ReportSlice::new("r-0000", spec));
    let _ = province.plan();
    let status = &province.report("web").status;
    assert_eq!(status.placements[0].cluster_name.as_str(), "quzhou-a");
    assert_eq!(status.readiness.as_deref(), Some("5/6"));
}

#[test]
fn a_status_that_could_not_be_written_is_offered_again() {
    let mut province = Province::cities().settled();
    province.create(app("web"));
    let _ = province.plan();
    assert!(province.write_statuses());
    province.change_content("web", "web:2");
    for _ in 0..3 {
        let _ = province.plan();
    }
    assert!(province.write_statuses(), "it is still to be written");
}

#[test]
fn of_two_reports_on_one_app_the_newer_counts_in_any_order() {
    let province = Province::cities()
        .with(app("web").within(&["ningbo"]))
        .settled();
    let uid = province.uid("web");
    let mut old = province.agents["ningbo-a"].reports[&uid].clone();
    (old.generation, old.state) = (0, ReportState::Failed);
    let spec = crds::ReportSliceSpec { entries: vec![old] };
    let late = crds::ReportSlice::new("r-0001", spec);
    let mut world = province.world.clone();
    world.apply_report(&"ningbo-a".into(), late);
    let counts = world.ledger(&uid).unwrap().reports["ningbo-a"].state;
    assert_eq!(counts, ReportState::Healthy);
}

#[test]
fn at_rest_a_cluster_is_ready_and_nothing_else_is_under_way() {
    use ConditionType::{CapacityReported, Joined, Reachable, Ready};
    let province = Province::cities().settled();
    let status = province.clusters["ningbo-a"].status.clone().unwrap();
    let kinds: Vec<_> = status.conditions.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [Ready, Joined, Reachable, CapacityReported]);
    assert_eq!(status.mode.as_deref(), Some("pull"));
    assert_eq!(status.cpu.as_deref(), Some("0/100"));
}
