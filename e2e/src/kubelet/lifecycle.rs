//! What a pod does next, and the status that says so. Pure: no client, no clock.

use std::{net::Ipv4Addr, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec,
        PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::faults;

/// How long a pod that ends by itself runs, unless annotated.
const RUN_FOR: Duration = Duration::from_secs(1);

/// What is known about a pod beside the object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Since when it is bound to its node.
    pub(super) bound_for: Duration,
    /// Since when its deletion is known; none while it is not being deleted.
    pub(super) terminating_for: Option<Duration>,
    /// The cluster's setting.
    pub(super) start_delay: Duration,
    /// The longest grace that is waited for.
    pub(super) longest_grace: Duration,
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing to do for this long.
    Starting(Duration),
    /// A container ends as soon as it starts.
    Crashing,
    /// It runs; if it ends by itself, then after this time.
    Running(Option<Duration>),
    /// It has done its work.
    Succeeded,
    /// Its status is final.
    Over,
    /// It still has this much grace, and goes on as before.
    Terminating(Duration),
    /// It can be removed.
    Gone,
}

/// Where `pod` stands.
pub(super) fn stage(pod: &Pod, known: &Known) -> Stage {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let over = matches!(phase, Some("Succeeded" | "Failed"));
    if let Some(terminating_for) = known.terminating_for {
        let grace = pod
            .metadata
            .deletion_grace_period_seconds
            .unwrap_or_default();
        let grace = Duration::from_secs(grace.try_into().unwrap_or(0)).min(known.longest_grace);
        return match grace.checked_sub(terminating_for) {
            Some(left) if !over && !left.is_zero() => Stage::Terminating(left),
            Some(_) | None => Stage::Gone,
        };
    }
    let Some(spec) = &pod.spec else {
        return Stage::Over;
    };
    if over {
        return Stage::Over;
    }
    let start_delay = faults::start_delay(pod).unwrap_or(known.start_delay);
    // One that ran before the kubelet was started again does not start anew.
    if phase != Some("Running")
        && let Some(left) = start_delay.checked_sub(known.bound_for)
        && !left.is_zero()
    {
        return Stage::Starting(left);
    }
    if spec.containers.iter().any(faults::crashes) {
        return Stage::Crashing;
    }
    if spec
        .restart_policy
        .as_deref()
        .is_none_or(|policy| policy == "Always")
    {
        return Stage::Running(None);
    }
    let end = start_delay + faults::run_for(pod).unwrap_or(RUN_FOR);
    match end.checked_sub(known.bound_for) {
        Some(left) if !left.is_zero() => Stage::Running(Some(left)),
        Some(_) | None => Stage::Succeeded,
    }
}

/// The TCP ports that a pod's containers declare, each once.
pub(super) fn ports(spec: &PodSpec) -> Vec<u16> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports: Vec<u16> = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| {
            port.protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP")
        })
        .filter_map(|port| port.container_port.try_into().ok())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Addresses that a status names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) pod: Ipv4Addr,
    pub(super) node: Ipv4Addr,
}

/// The status of `pod` at `stage`; `problem` is why its ports are not served. What is unchanged
/// keeps its times, so the status of a pod that was reported already equals the one it has.
pub(super) fn status(
    pod: &Pod,
    stage: Stage,
    addresses: Addresses,
    problem: Option<&str>,
    now: Timestamp,
) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return status };
    let done = stage == Stage::Succeeded;
    let up = matches!(stage, Stage::Running(_)) && problem.is_none() && !faults::kept_unready(pod);

    status.phase = Some(if done { "Succeeded" } else { "Running" }.to_owned());
    status.host_ip = Some(addresses.node.to_string());
    status.host_ips = Some(vec![HostIP {
        ip: addresses.node.to_string(),
    }]);
    status.pod_ip = Some(addresses.pod.to_string());
    status.pod_ips = Some(vec![PodIP {
        ip: addresses.pod.to_string(),
    }]);
    status.start_time.get_or_insert(Time(now));
    let old = status.container_statuses.take().unwrap_or_default();
    let containers = spec.containers.iter();
    let statuses = containers.map(|container| container_status(container, stage, up, &old, now));
    status.container_statuses = Some(statuses.collect());

    let mut conditions = status.conditions.take().unwrap_or_default();
    let gates = spec.readiness_gates.iter().flatten();
    let open = gates.into_iter().all(|gate| {
        conditions
            .iter()
            .any(|c| c.type_ == gate.condition_type && c.status == "True")
    });
    let reason = if done {
        "PodCompleted"
    } else {
        "ContainersNotReady"
    };
    let message = problem.unwrap_or_default();
    set_condition(
        &mut conditions,
        "PodReadyToStartContainers",
        !done,
        reason,
        "",
        now,
    );
    set_condition(&mut conditions, "Initialized", true, "", "", now);
    set_condition(&mut conditions, "ContainersReady", up, reason, message, now);
    set_condition(&mut conditions, "Ready", up && open, reason, message, now);
    status.conditions = Some(conditions);
    status
}

fn container_status(
    container: &Container,
    stage: Stage,
    ready: bool,
    old: &[ContainerStatus],
    now: Timestamp,
) -> ContainerStatus {
    let old = old.iter().find(|status| status.name == container.name);
    let old_state = old.and_then(|status| status.state.as_ref());
    let started_at = old_state
        .and_then(|state| state.running.as_ref())
        .and_then(|running| running.started_at.clone())
        .unwrap_or(Time(now));
    let crashing = stage == Stage::Crashing && faults::crashes(container);
    let mut condition = ContainerState::default();
    if crashing {
        condition.waiting = Some(ContainerStateWaiting {
            reason: Some("CrashLoopBackOff".into()),
            message: Some("back-off restarting failed container".into()),
        });
    } else if stage == Stage::Succeeded {
        condition.terminated = Some(ContainerStateTerminated {
            exit_code: 0,
            reason: Some("Completed".into()),
            started_at: Some(started_at),
            finished_at: Some(Time(now)),
            ..Default::default()
        });
    } else {
        condition.running = Some(ContainerStateRunning {
            started_at: Some(started_at),
        });
    }
    let image = container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image_id: image.clone(),
        image,
        ready: ready && !crashing,
        started: Some(condition.running.is_some()),
        restart_count: i32::from(crashing),
        state: Some(condition),
        // The server fills in empty fields, which must not look like a difference.
        ..old.cloned().unwrap_or_default()
    }
}

fn set_condition(
    conditions: &mut Vec<PodCondition>,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let text = |text: &str| (!holds && !text.is_empty()).then(|| text.to_owned());
    let status = if holds { "True" } else { "False" };
    let position = conditions.iter().position(|c| c.type_ == type_);
    let old = position.map(|position| conditions.remove(position));
    let unchanged = old.filter(|old| old.status == status);
    let condition = PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: text(reason),
        message: text(message),
        last_transition_time: unchanged
            .and_then(|old| old.last_transition_time)
            .or(Some(Time(now))),
        ..PodCondition::default()
    };
    conditions.insert(position.unwrap_or(conditions.len()), condition);
}

#[cfg(test)]
mod tests;
