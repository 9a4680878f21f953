//! Whether what runs is well.

use super::*;

#[test]
fn a_workload_past_its_deadline_is_unhealthy_and_one_on_its_way_is_progressing() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    let status = |reason: &str| {
        json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 1, "availableReplicas": 1,
               "conditions": [{"type": "Progressing", "reason": reason}]})
    };
    bed.change(&web, |seen| {
        seen.health = Health::of(
            Kind::Deployment,
            "web",
            1,
            Some(3),
            &status("ReplicaSetUpdated"),
        );
    });
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
    bed.change(&web, |seen| {
        seen.health = Health::of(
            Kind::Deployment,
            "web",
            1,
            Some(3),
            &status("ProgressDeadlineExceeded"),
        );
    });
    let report = bed.realize().report;
    assert_eq!(
        (report.state, report.replicas, report.ready),
        (ReportState::Unhealthy, 3, 1)
    );
}

#[test]
fn a_status_of_an_older_generation_is_not_health() {
    let stale = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3});
    assert!(Health::of(Kind::Deployment, "web", 2, Some(3), &stale).is_progressing(NOW));
    assert!(!Health::of(Kind::Deployment, "web", 1, Some(3), &stale).is_progressing(NOW));
}
