use std::sync::Arc;

use crds::{
    Entry, EntryState, LimitShare, Management, Reason, ReportState, Scope, TakeOver, Tier,
    Timestamp,
};
use serde_json::{Value, json};

use crate::content::AppContent;
use crate::object::{Kind, ObjectKey};
use crate::realize::health::ROUTE_COMES;
use crate::realize::{
    Access, Action, Apply, ContentState, Health, Namespace, Observed, Realized, Seen, Settled,
    Stamp, protect,
};

const NOW: i64 = 1_800_000_000_000;

/// A policy with a share of a rate, and a cluster without it.
struct Bed {
    entry: Entry,
    content: AppContent,
    observed: Observed,
}

impl Bed {
    fn new() -> Self {
        let content = AppContent {
            manifests: vec![json!({
                "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
                "metadata": {"name": "web"},
                "spec": {"rateLimits": [
                    {"name": "total", "scope": "Cluster", "rate": {"requests": 100, "per": "1s"}},
                    {"name": "each", "scope": "Region", "rate": {"requests": 5, "per": "1s"}},
                ]},
            })],
            images: vec![],
            workload: None,
            tier: Tier::General,
            overrides: vec![],
        };
        let entry = Entry {
            uid: "policy-1".into(),
            scope: Scope::Policy,
            namespace: "health".into(),
            name: "web".into(),
            generation: 1,
            state: EntryState::Present,
            content: "0".repeat(20).into(),
            pack: "c-1".into(),
            overrides: vec![],
            stages: vec![],
            secrets: vec![],
            take_over: TakeOver::Never,
            tier: Tier::General,
            limits: [].into(),
            charge: Arc::default(),
            shares: vec![LimitShare {
                name: "total".into(),
                requests: 3,
                periods: 4,
                burst: Some(2),
            }],
        };
        let mut observed = Observed::default();
        observed
            .namespaces
            .insert("health".into(), Namespace::Ready);
        observed.kinds = Kind::ALL.iter().copied().collect();
        let access = ("health".into(), Kind::TrafficPolicy);
        observed.access.insert(access, Access::Allowed);
        Self {
            entry,
            content,
            observed,
        }
    }

    fn protect(&self) -> Realized {
        let content = ContentState::Here(&self.content);
        protect(
            &self.entry,
            content,
            Management::Manage,
            &self.observed,
            NOW,
        )
    }

    /// Applies what is to be applied, and then the guards say this of it.
    fn applied(&mut self, status: &Value) {
        let apply = applies(&self.protect()).remove(0);
        let health = Health::of(Kind::TrafficPolicy, "web", 2, None, status);
        let seen = Seen {
            uid: "object-1".into(),
            resource_version: "7".into(),
            stamp: Stamp::Generation(2),
            owner: Some("policy-1".into()),
            applied: Some(apply.hash.clone()),
            deleting: false,
            replicas: None,
            hold_until: None,
            health,
            created: false,
            limited: None,
        };
        let settled = Settled {
            uid: seen.uid.clone(),
            app: Some("policy-1".into()),
            hash: apply.hash.clone(),
            stamp: seen.stamp.clone(),
            repairs: vec![],
        };
        self.observed.settled.insert(apply.key.clone(), settled);
        self.observed.see(apply.key, seen);
    }
}

fn applies(realized: &Realized) -> Vec<Apply> {
    let mut applies = Vec::new();
    for action in &realized.actions {
        if let Action::Apply(apply) = action {
            applies.push((**apply).clone());
        }
    }
    applies
}

/// What the guards say of a policy at one route.
fn ancestor(kind: &str, status: &str, generation: i64) -> Value {
    json!({
        "controllerName": "jiuzhou.io/guard", "ancestorRef": {"name": "web"},
        "conditions": [{
            "type": kind, "status": status, "observedGeneration": generation,
            "message": "no such route",
        }],
    })
}

#[test]
fn a_cluster_enforces_its_share_of_a_rate_and_all_of_the_others() {
    let applies = applies(&Bed::new().protect());
    let [apply] = &applies[..] else {
        panic!("{applies:?}")
    };
    assert_eq!(apply.key.to_string(), "TrafficPolicy health/web");
    assert!(
        !apply.force,
        "a policy that somebody else made is not taken over"
    );
    let limits = &apply.body["spec"]["rateLimits"];
    assert_eq!(
        *limits,
        json!([
            {"name": "total", "scope": "Cluster", "rate": {"requests": 3, "per": "4s"}, "burst": 2},
            {"name": "each", "scope": "Region", "rate": {"requests": 5, "per": "1s"}},
        ])
    );
    let labels = &apply.body["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/managed-by"], "jiuzhou");
    assert_eq!(labels["jiuzhou.io/app-uid"], "policy-1");
}

#[test]
fn in_the_hubs_own_cluster_it_stands_beside_the_policy_that_people_wrote() {
    let mut bed = Bed::new();
    bed.observed.home = true;
    let key = |bed: &Bed| applies(&bed.protect()).remove(0).key.name.to_string();
    assert_eq!(key(&bed), "web.region");
    bed.content.manifests[0]["metadata"]["name"] = json!("a".repeat(63));
    let one = key(&bed);
    assert_eq!(one.len(), 63);
    bed.content.manifests[0]["metadata"]["name"] = json!("a".repeat(62));
    assert_ne!(key(&bed), one, "long names are told apart");
}

#[test]
fn a_policy_is_enforced_once_all_guards_say_so_of_what_it_is_now() {
    let enforced = |ancestors: &Value| {
        let mut bed = Bed::new();
        bed.applied(&json!({"ancestors": ancestors}));
        let realized = bed.protect();
        assert_eq!(realized.actions, []);
        realized.report.state
    };
    let yes = ancestor("Programmed", "True", 2);
    assert_eq!(enforced(&json!([yes])), ReportState::Healthy);
    let coming = [
        json!([]),
        json!([ancestor("Programmed", "True", 1)]),
        json!([yes, ancestor("Programmed", "False", 2)]),
    ];
    for coming in &coming {
        assert_eq!(enforced(coming), ReportState::Progressing, "{coming}");
    }
    let mut other = ancestor("Programmed", "True", 2);
    other["controllerName"] = json!("somebody.example/else");
    assert_eq!(enforced(&json!([other])), ReportState::Progressing);
    let refused = json!([yes, ancestor("Accepted", "False", 2)]);
    assert_eq!(enforced(&refused), ReportState::Unhealthy);
}

#[test]
fn a_route_that_comes_after_its_policy_is_waited_for_and_one_that_does_not_come_is_told() {
    let at = |since: i64| {
        let mut bed = Bed::new();
        let mut missing = ancestor("Accepted", "False", 2);
        let condition = &mut missing["conditions"][0];
        condition["reason"] = json!("TargetNotFound");
        condition["message"] = json!("TrafficPolicy health/web: no such route");
        condition["lastTransitionTime"] = json!(Timestamp::from_millis(since));
        bed.applied(&json!({"ancestors": [missing]}));
        let realized = bed.protect();
        (realized.report, realized.wake_at)
    };
    let (report, wake_at) = at(NOW - 3_000);
    assert_eq!(report.state, ReportState::Progressing);
    assert_eq!(wake_at, Some(NOW - 3_000 + ROUTE_COMES));
    let (report, wake_at) = at(NOW - ROUTE_COMES);
    assert_eq!(report.state, ReportState::Unhealthy);
    assert_eq!(
        report.message.as_deref(),
        Some("TrafficPolicy health/web: no such route"),
        "its subject once"
    );
    assert_eq!(wake_at, None);
    let (report, _) = at(NOW + 3_600_000);
    assert_eq!(report.state, ReportState::Unhealthy, "a clock far ahead");
}

#[test]
fn a_policy_needs_the_right_of_the_tenant_itself() {
    let mut bed = Bed::new();
    bed.observed.access.clear();
    let ask = Action::Ask("health".into(), Kind::TrafficPolicy);
    assert_eq!(bed.protect().actions, [ask]);
    let access = ("health".into(), Kind::TrafficPolicy);
    bed.observed.access.insert(access, Access::Denied);
    let report = bed.protect().report;
    assert_eq!(
        (report.state, report.reason),
        (ReportState::Failed, Some(Reason::Forbidden))
    );
}

#[test]
fn a_policy_that_was_there_before_is_left_alone_and_named() {
    let mut bed = Bed::new();
    bed.applied(&json!({}));
    let key = ObjectKey {
        kind: Kind::TrafficPolicy,
        namespace: "health".into(),
        name: "web".into(),
    };
    bed.observed.settled.clear();
    let mut seen = bed.observed.objects[&key].clone();
    (seen.owner, seen.uid) = (None, "another".into());
    bed.observed.see(key, seen);
    let realized = bed.protect();
    assert_eq!(realized.actions, []);
    assert_eq!(realized.report.reason, Some(Reason::NotManaged));
}

#[test]
fn what_is_removed_goes_and_is_acknowledged_when_it_is_gone() {
    let mut bed = Bed::new();
    bed.applied(&json!({}));
    bed.entry.state = EntryState::Removed;
    let realized = bed.protect();
    assert!(matches!(realized.actions[..], [Action::Delete { .. }]));
    assert_eq!(realized.report.state, ReportState::Removing);
    bed.observed = Bed::new().observed;
    assert_eq!(bed.protect().report.state, ReportState::Removed);
}
