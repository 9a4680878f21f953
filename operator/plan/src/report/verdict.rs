//! The conditions of an App: what is said, with which word, and what to do next.

use crds::{
    ClusterName, ConditionStatus, ConditionType, EMERGENCY, Reason, ReportState, RolloutState,
    SYSTEM_NAMESPACE, Tier, Timestamp,
};

use super::Shortage;
use super::app::{AppFacts, AppReport, Waiting};
use crate::amount::format_amount;
use crate::province::{Lane, Protection, emergency_hash};
use crate::world::{AppLedger, AppState};

/// One condition, before times are added.
pub(super) struct Said {
    pub(super) kind: ConditionType,
    pub(super) status: ConditionStatus,
    pub(super) reason: Reason,
    pub(super) message: String,
}

fn said(
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: impl Into<String>,
) -> Said {
    Said {
        kind,
        status,
        reason,
        message: message.into(),
    }
}

/// All conditions of an App, `Ready` first.
pub(super) fn verdicts(facts: &AppFacts<'_>, report: &AppReport) -> Vec<Said> {
    use ConditionStatus::{False, True};
    use ConditionType::{Admitted, Ready, Reconciling, Stalled};
    if matches!(facts.slot.life, AppState::Deleting | AppState::Released) {
        let message = removal(facts.ledger);
        return vec![
            said(Ready, False, Reason::Deleting, message.clone()),
            said(Reconciling, True, Reason::Deleting, message),
        ];
    }
    if let Some(parked) = facts.parked {
        let placed = facts.ledger.is_some_and(|l| !l.entries.is_empty());
        let rest = if placed {
            " What was placed before stays as it is."
        } else {
            ""
        };
        let message = format!("{}.{rest}", parked.message);
        // What comes by itself is nobody's fault.
        let (status, kind) = if parked.reason == Reason::InProgress {
            (ConditionStatus::Unknown, Reconciling)
        } else {
            (False, Stalled)
        };
        return vec![
            said(Ready, status, parked.reason, message.clone()),
            said(kind, True, parked.reason, message.clone()),
            said(Admitted, status, parked.reason, message),
        ];
    }
    if facts.slot.life == AppState::Unheld {
        let message = "Waiting for the hub's finalizer, which holds the App before it is placed.";
        return vec![
            said(Ready, ConditionStatus::Unknown, Reason::InProgress, message),
            said(Reconciling, True, Reason::InProgress, message),
        ];
    }
    let parts = [
        admitted(facts, report),
        scheduled(report),
        applied(report),
        healthy(report),
    ];
    let (status, reason, message) = ready(facts, report, &parts);
    let mut all = vec![said(Ready, status, reason, message.clone())];
    if status != True {
        let kind = if stands_still(report, reason) {
            Stalled
        } else {
            Reconciling
        };
        all.push(said(kind, True, reason, message));
    }
    all.extend(parts);
    all.push(protected(facts));
    all
}

/// Whether a TrafficPolicy protects it. That none does is the tenant's to decide, and no fault of the App.
fn protected(facts: &AppFacts<'_>) -> Said {
    let Protection {
        enforced,
        reason,
        message,
    } = &facts.protection;
    let status = if *enforced {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    said(ConditionType::Protected, status, *reason, message.clone())
}

/// Clusters that are named in a sentence.
const NAMED: usize = 3;

/// How far the removal is, and what holds it up.
fn removal(ledger: Option<&AppLedger>) -> String {
    let Some(ledger) = ledger.filter(|ledger| !ledger.entries.is_empty()) else {
        return "Being removed; every cluster has acknowledged.".to_owned();
    };
    let left = &ledger.entries;
    let names: Vec<&str> = left.keys().take(NAMED).map(ClusterName::as_str).collect();
    let more = if left.len() > NAMED { ", …" } else { "" };
    let names = names.join(", ");
    let hindrance = left.keys().find_map(|name| {
        let report = ledger.reports.get(name)?;
        let why = report.message.as_deref()?;
        (report.state == ReportState::Removing).then(|| format!(" {name}: {why}."))
    });
    let why = hindrance.unwrap_or_default();
    match left.len() {
        1 => format!("Being removed; {names} has not acknowledged yet.{why}"),
        n => format!("Being removed; {n} clusters have not acknowledged yet: {names}{more}.{why}"),
    }
}

/// The one thing to know: first what somebody has to act on, then what is under way.
fn ready(
    facts: &AppFacts<'_>,
    report: &AppReport,
    parts: &[Said],
) -> (ConditionStatus, Reason, String) {
    use ConditionStatus::{False, True};
    let whole = |part: &Said| (part.status, part.reason, part.message.clone());
    let first = parts.iter().find(|p| p.status != True);
    let bad = first.filter(|p| p.status == False && p.reason != Reason::InProgress);
    match (rollout(facts, report), bad, first) {
        (Some((Reason::RolloutStopped, message)), ..) => (False, Reason::RolloutStopped, message),
        (_, Some(bad), _) => whole(bad),
        (Some((reason, message)), ..) => (False, reason, message),
        (None, None, Some(part)) => whole(part),
        (None, None, None) => (True, Reason::AsExpected, ready_message(report)),
    }
}

fn ready_message(report: &AppReport) -> String {
    match report.targets.len() {
        0 => "Nothing is asked for.".to_owned(),
        n => format!("Runs healthily on {}.", clusters(n)),
    }
}

/// Whether somebody has to act before anything goes on.
fn stands_still(report: &AppReport, reason: Reason) -> bool {
    let ill = |state| matches!(state, ReportState::Failed | ReportState::Unhealthy);
    let stuck = report.shortage.is_some() || report.targets.iter().any(|t| ill(t.state));
    let acts = matches!(reason, Reason::RolloutStopped | Reason::ObserveOnly);
    reason != Reason::OutOfContact && (stuck || acts)
}

fn rollout(facts: &AppFacts<'_>, report: &AppReport) -> Option<(Reason, String)> {
    let state = facts.rolled.map(|r| r.status.state)?;
    let of = report.targets.len();
    let has = |t: &&super::TargetReport| t.current && t.state != ReportState::Pending;
    let done = report.targets.iter().filter(has).count();
    let hash = facts.app.map(|a| a.content.as_str()).unwrap_or_default();
    match (&report.waiting, state) {
        (Some(Waiting::Approval { wave }), _) => {
            let mut message = format!(
                "Wave {wave} waits for an Approval with step {wave} and contentHash {hash}; {done} of {of} clusters have the content."
            );
            if facts.slot.authors().is_none() {
                message.push_str(" No Approval counts, since it is not known who changed the App, or too many did: check that the admission policy jiuzhou-app-author is installed, set the content back, and change it once more.");
            }
            Some((Reason::ApprovalRequired, message))
        }
        (Some(Waiting::Soak { wave, until }), _) => Some((
            Reason::Soaking,
            format!(
                "Wave {wave} is healthy and soaks until {}; {done} of {of} clusters have the content.",
                Timestamp::from_millis(*until)
            ),
        )),
        (Some(Waiting::Stopped { wave }), _) => Some((
            Reason::RolloutStopped,
            format!(
                "Wave {wave} became unhealthy with content {hash}, so {} of {of} clusters keep the old content: correct the App or set its content back.",
                of - done
            ),
        )),
        (Some(Waiting::Wave { wave }), _) => Some((
            Reason::WaveInProgress,
            format!("Wave {wave} is taking the content; {done} of {of} clusters have it."),
        )),
        (None, RolloutState::Complete) => None,
        (None, _) => Some((
            Reason::InProgress,
            format!("{done} of {of} clusters have the content."),
        )),
    }
}

fn clusters(count: usize) -> String {
    match count {
        1 => "1 cluster".to_owned(),
        _ => format!("{count} clusters"),
    }
}

/// Whether the tenant's Quotas have room for all that the App asks for.
fn admitted(facts: &AppFacts<'_>, report: &AppReport) -> Said {
    let mut said = within_quotas(report);
    match &report.lane {
        Some(Lane::Open { until, by, reason }) => {
            let why = reason.as_deref().unwrap_or("no reason given");
            let lane = format!(" In the emergency lane until {until}, by {by}: {why}.");
            said.message.push_str(&lane);
        }
        Some(Lane::Closed(why)) => {
            let hint = hint(facts, report, &said);
            let lane = format!(" Not in the emergency lane: {why}.{hint}");
            said.message.push_str(&lane);
        }
        None => said.message.push_str(&hint(facts, report, &said)),
    }
    said
}

/// How an App that waits could be put into the emergency lane.
fn hint(facts: &AppFacts<'_>, report: &AppReport, said: &Said) -> String {
    let core = facts.app.filter(|app| app.tier == Tier::Core);
    match core.filter(|_| said.reason == Reason::QuotaExceeded) {
        Some(app) => format!(
            " In an emergency, while others borrow, an Approval in namespace {SYSTEM_NAMESPACE} with target kind App, namespace {}, name {}, step {EMERGENCY}, contentHash {} lets it take at once what others borrow.",
            report.namespace,
            report.name,
            emergency_hash(facts.slot, app)
        ),
        None => String::new(),
    }
}

fn within_quotas(report: &AppReport) -> Said {
    let (kind, no) = (ConditionType::Admitted, ConditionStatus::False);
    let (Some(short), Some(Shortage::Quota { placed, wanted })) = (&report.short, report.shortage)
    else {
        let message = match report.goes_back {
            Some((replicas, at)) => format!(
                "Accepted; {replicas} of its replicas are borrowed and go back at {at} to the tenant that is granted them."
            ),
            None => "Accepted, and within the Quotas of its tenant.".to_owned(),
        };
        return said(kind, ConditionStatus::True, Reason::AsExpected, message);
    };
    let (so_far, what) = if placed < wanted {
        let so_far = format!("{placed} of {wanted} replicas have a place");
        (so_far, "for the next")
    } else {
        ("What ran before runs on".to_owned(), "for the change")
    };
    let (Some(source), Some(place)) = (&short.source, report.position) else {
        let (namespace, name) = (&report.namespace, &report.name);
        let message = format!(
            "{so_far}: the tenant has Quotas, but none that counts where the App could run; jiuzhou explain app {name} -n {namespace} says where."
        );
        return said(kind, no, Reason::QuotaMissing, message);
    };
    let resource = &short.resource;
    let (needs, nominal) = (
        format_amount(resource, short.needs),
        format_amount(resource, short.nominal),
    );
    let line = match place {
        0 | 1 => "first in line for it".to_owned(),
        2..=10 => format!("number {place} in line for it"),
        more => format!("more than {} are in line for it before", more - 1),
    };
    let message = format!(
        "{so_far}: {what} {source} ({nominal} granted) lacks {needs} of {resource}; {line}. Autoscalers are charged their most replicas, rolling updates their surge. Have the Quota raised, or lower what Apps ask for."
    );
    said(kind, no, Reason::QuotaExceeded, message)
}

fn scheduled(report: &AppReport) -> Said {
    use ConditionStatus::{False, True};
    let (status, reason, message) = match report.shortage {
        Some(Shortage::Quota { placed, wanted }) if placed < wanted => (
            False,
            Reason::QuotaExceeded,
            format!(
                "{placed} of {wanted} replicas have a place; the tenant's Quotas have no room for the rest."
            ),
        ),
        None | Some(Shortage::Quota { .. }) => (
            True,
            Reason::AsExpected,
            format!("Placed on {}.", clusters(report.targets.len())),
        ),
        Some(Shortage::NoClusterQualifies) => (
            False,
            Reason::NoClusterQualifies,
            format!(
                "No cluster qualifies; jiuzhou explain app {} -n {} says why, cluster by cluster.",
                report.name, report.namespace
            ),
        ),
        Some(Shortage::PredecessorRemains { clusters }) => (
            False,
            Reason::PredecessorRemains,
            format!("An earlier App of this name is still being removed from {clusters} clusters."),
        ),
        Some(Shortage::TooFewRegions { found, needed }) => (
            False,
            Reason::TooFewRegions,
            format!(
                "{found} regions qualify and have room, spec.placement.minRegions asks for {needed}; jiuzhou explain app {} -n {} says why.",
                report.name, report.namespace
            ),
        ),
        Some(Shortage::Capacity { placed, wanted }) => (
            False,
            Reason::InsufficientCapacity,
            format!("{placed} of {wanted} replicas fit; the rest waits for room."),
        ),
    };
    said(ConditionType::Scheduled, status, reason, message)
}

fn applied(report: &AppReport) -> Said {
    use ConditionStatus::{False, True};
    let kind = ConditionType::Applied;
    if let Some(bad) = report
        .targets
        .iter()
        .find(|t| t.state == ReportState::Failed)
    {
        let why = bad.message.clone().unwrap_or_default();
        return said(
            kind,
            False,
            bad.reason.unwrap_or(Reason::Rejected),
            format!("{}: {why}", bad.cluster),
        );
    }
    let pending = report
        .targets
        .iter()
        .filter(|t| t.state == ReportState::Pending)
        .count();
    if pending > 0 {
        return said(
            kind,
            False,
            Reason::InProgress,
            format!(
                "{pending} of {} clusters have not applied it yet.",
                report.targets.len()
            ),
        );
    }
    said(
        kind,
        True,
        Reason::AsExpected,
        format!("Applied on {}.", clusters(report.targets.len())),
    )
}

fn healthy(report: &AppReport) -> Said {
    use ConditionStatus::{False, True, Unknown};
    let kind = ConditionType::Healthy;
    if let Some(bad) = report
        .targets
        .iter()
        .find(|t| t.state == ReportState::Unhealthy)
    {
        let why = bad.message.clone().unwrap_or_default();
        return said(
            kind,
            False,
            Reason::Unhealthy,
            format!("{}: {why}", bad.cluster),
        );
    }
    let of = report.targets.len();
    if let Some(far) = report.targets.iter().find(|t| !t.in_contact) {
        let message = format!(
            "{} is out of contact; what it runs is kept, and shown as last reported.",
            far.cluster
        );
        return said(kind, Unknown, Reason::OutOfContact, message);
    }
    let observed = report
        .targets
        .iter()
        .find(|t| t.state == ReportState::Observed);
    let count = report
        .targets
        .iter()
        .filter(|t| t.state == ReportState::Healthy)
        .count();
    let watched = report
        .targets
        .iter()
        .filter(|t| t.state == ReportState::Observed)
        .count();
    if count + watched < of {
        let message = format!("{count} of {of} clusters are healthy.");
        return said(kind, False, Reason::InProgress, message);
    }
    if let Some(observed) = observed {
        let message = format!(
            "{} is only observed and nothing is applied there: set its spec.management to Manage.",
            observed.cluster
        );
        return said(kind, Unknown, Reason::ObserveOnly, message);
    }
    said(
        kind,
        True,
        Reason::AsExpected,
        format!("Healthy on {}.", clusters(of)),
    )
}
