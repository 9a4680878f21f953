use serde_json::{Value, json};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pod(extra: Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": "p", "annotations": {}},
        "spec": {"containers": [{"name": "c", "image": "app:1", "ports": [{"containerPort": 8080}]}]},
        "status": {"phase": "Pending"},
    });
    merge(&mut object, extra);
    serde_json::from_value(object).expect("a pod")
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn bound_for(bound_for: Duration) -> Known {
    Known {
        bound_for,
        terminating_for: None,
        start_delay: SECOND,
        longest_grace: 2 * SECOND,
    }
}

fn report(pod: &Pod, stage: Stage, problem: Option<&str>) -> PodStatus {
    let addresses = Addresses {
        pod: Ipv4Addr::new(198, 18, 0, 9),
        node: Ipv4Addr::new(198, 18, 0, 1),
    };
    status(pod, stage, addresses, problem, Timestamp::UNIX_EPOCH)
}

fn is_ready(status: &PodStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

#[test]
fn starts_after_its_delay() {
    assert_eq!(
        stage(&pod(json!({})), &bound_for(SECOND / 4)),
        Stage::Starting(SECOND * 3 / 4)
    );
    assert_eq!(
        stage(&pod(json!({})), &bound_for(SECOND)),
        Stage::Running(None)
    );
}

#[test]
fn does_not_start_anew_when_it_ran_already() {
    let running = pod(json!({"status": {"phase": "Running"}}));
    assert_eq!(
        stage(&running, &bound_for(Duration::ZERO)),
        Stage::Running(None)
    );
}

#[test]
fn an_annotation_sets_its_own_delay() {
    let slow = pod(json!({"metadata": {"annotations": {"sandbox.jiuzhou.io/start-delay": "5s"}}}));
    assert_eq!(
        stage(&slow, &bound_for(SECOND)),
        Stage::Starting(4 * SECOND)
    );
}

#[test]
fn a_reported_status_is_a_fixed_point() {
    let mut pod = pod(json!({}));
    let first = report(&pod, Stage::Running(None), None);
    assert!(is_ready(&first));
    let mut first = first;
    // As the server stores it.
    for container in first.container_statuses.iter_mut().flatten() {
        container.last_state.get_or_insert_default();
    }
    pod.status = Some(first.clone());
    let later = Timestamp::UNIX_EPOCH + Duration::from_mins(1);
    let addresses = Addresses {
        pod: Ipv4Addr::new(198, 18, 0, 9),
        node: Ipv4Addr::new(198, 18, 0, 1),
    };
    assert_eq!(
        status(&pod, Stage::Running(None), addresses, None, later),
        first
    );
}

#[test]
fn a_broken_image_never_gets_ready() {
    let broken = pod(json!({"spec": {"containers": [{"name": "c", "image": "app:broken"}]}}));
    assert_eq!(stage(&broken, &bound_for(SECOND)), Stage::Crashing);
    let status = report(&broken, Stage::Crashing, None);
    assert!(!is_ready(&status));
    let waiting = status.container_statuses.unwrap()[0]
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
}

#[test]
fn an_unserved_port_keeps_it_from_ready_and_says_why() {
    let status = report(
        &pod(json!({})),
        Stage::Running(None),
        Some("port 80 is taken"),
    );
    assert!(!is_ready(&status));
    assert!(
        status
            .conditions
            .unwrap()
            .iter()
            .any(|c| c.message.as_deref() == Some("port 80 is taken"))
    );
}

#[test]
fn waits_for_a_readiness_gate() {
    let gate = json!({"spec": {"readinessGates": [{"conditionType": "guard"}]}});
    assert!(!is_ready(&report(
        &pod(gate.clone()),
        Stage::Running(None),
        None
    )));
    let mut open = pod(gate);
    merge_status(&mut open, json!([{"type": "guard", "status": "True"}]));
    assert!(is_ready(&report(&open, Stage::Running(None), None)));
}

fn merge_status(pod: &mut Pod, conditions: Value) {
    let conditions = serde_json::from_value(conditions).expect("conditions");
    pod.status.get_or_insert_default().conditions = Some(conditions);
}

#[test]
fn a_job_pod_runs_and_succeeds() {
    let job = pod(json!({"spec": {"restartPolicy": "Never"}}));
    assert_eq!(
        stage(&job, &bound_for(SECOND)),
        Stage::Running(Some(SECOND))
    );
    assert_eq!(stage(&job, &bound_for(2 * SECOND)), Stage::Succeeded);
    assert_eq!(
        report(&job, Stage::Succeeded, None).phase.as_deref(),
        Some("Succeeded")
    );
}

#[test]
fn keeps_its_grace_up_to_the_cap() {
    let grace = |seconds: i64| pod(json!({"metadata": {"deletionGracePeriodSeconds": seconds}}));
    let known = |since| Known {
        terminating_for: Some(since),
        ..bound_for(SECOND)
    };
    assert_eq!(
        stage(&grace(30), &known(Duration::ZERO)),
        Stage::Terminating(2 * SECOND)
    );
    assert_eq!(
        stage(&grace(1), &known(Duration::ZERO)),
        Stage::Terminating(SECOND)
    );
    assert_eq!(stage(&grace(30), &known(2 * SECOND)), Stage::Gone);
    assert_eq!(stage(&grace(0), &known(Duration::ZERO)), Stage::Gone);
}

#[test]
fn serves_each_declared_tcp_port_once() {
    let pod = pod(json!({"spec": {
        "containers": [
            {"name": "a", "ports": [{"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]},
            {"name": "b", "ports": [{"containerPort": 8080}, {"containerPort": 9090}]},
        ],
        "initContainers": [
            {"name": "once", "ports": [{"containerPort": 1}]},
            {"name": "mesh", "restartPolicy": "Always", "ports": [{"containerPort": 15001}]},
        ],
    }}));
    assert_eq!(ports(&pod.spec.unwrap()), [8080, 9090, 15001]);
}
