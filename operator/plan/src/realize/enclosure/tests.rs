use std::collections::BTreeMap;

use crds::{
    Charge, ContentHash, Entry, EntryState, Management, Quantity, Scope, Stage, TakeOver, Uid,
};
use serde_json::json;

use super::*;
use crate::baseline::Baseline;
use crate::content::AppContent;
use crate::realize::{
    Access, Apply, Health, Limited, Nudged, Realized, Settled, Stamp, isolate, realize,
};

const NOW: i64 = 1_800_000_000_000;
const HOME: &str = "namespace-1";

fn entry(uid: &str, scope: Scope) -> Entry {
    Entry {
        uid: uid.into(),
        scope,
        namespace: "health".into(),
        name: "web".into(),
        generation: 1,
        state: EntryState::Present,
        content: "0".repeat(20).into(),
        pack: "c-1".into(),
        overrides: vec![],
        stages: vec![Stage {
            replicas: Some(2),
            ..Stage::default()
        }],
        secrets: vec![],
        take_over: TakeOver::Always,
        tier: Tier::General,
        limits: ["pods".to_owned()].into(),
        shares: Vec::new(),
        charge: std::sync::Arc::new(Charge {
            each: BTreeMap::from([("pods".to_owned(), Quantity("1".to_owned()))]),
            ..Charge::default()
        }),
    }
}

/// A namespace in a cluster, and what is done for it.
struct Bed {
    home: Entry,
    content: AppContent,
    allotment: Allotment,
    inhabited: bool,
    observed: Observed,
    now: i64,
}

impl Bed {
    fn new() -> Self {
        let mut observed = Observed::default();
        observed
            .namespaces
            .insert("health".into(), Namespace::Ready);
        observed.kinds = Kind::ALL.iter().copied().collect();
        let app = entry("uid-1", Scope::App);
        let mut allotment = Allotment::default();
        allotment.add(&app, 1, NOW);
        Self {
            home: entry(HOME, Scope::Namespace),
            content: Baseline::default().content(),
            allotment,
            inhabited: false,
            observed,
            now: NOW,
        }
    }

    fn decide(&self) -> Realized {
        isolate(
            &self.home,
            ContentState::Here(&self.content),
            &self.allotment,
            self.inhabited,
            Management::Manage,
            &self.observed,
            self.now,
        )
    }

    /// Carries out what is to be applied, as an API server would.
    fn carry_out(&mut self) -> Vec<ObjectKey> {
        let mut applied = Vec::new();
        for action in self.decide().actions {
            if let Action::Apply(apply) = action {
                applied.push(apply.key.clone());
                self.exists(&apply);
            }
        }
        applied
    }

    fn exists(&mut self, apply: &Apply) {
        let key = &apply.key;
        let hard = apply.body.pointer("/spec/hard");
        let seen = Seen {
            limited: hard.map(|hard| {
                Box::new(Limited {
                    enforced: crate::allotment::amounts_of(Some(hard)),
                    used: Resources::default(),
                })
            }),
            ..seen(&key.name, Some(HOME), Some(&apply.hash))
        };
        let settled = Settled {
            uid: seen.uid.clone(),
            app: Some(HOME.into()),
            hash: apply.hash.clone(),
            stamp: seen.stamp.clone(),
            repairs: vec![],
        };
        self.observed.settled.insert(key.clone(), settled);
        self.observed.see(key.clone(), seen);
    }

    /// What Apps find when they are decided on.
    fn enclosure(&self) -> Enclosure {
        let mut enclosure = Enclosure::of(
            &"health".into(),
            &self.home.limits,
            &self.allotment,
            &self.observed,
        );
        enclosure.in_force = self.decide().report.state == ReportState::Healthy;
        enclosure
    }

    /// What is done for an App of one Deployment.
    fn app(&mut self) -> Realized {
        self.observed
            .enclosures
            .insert("health".into(), self.enclosure());
        let kinds = Kind::OF_APPS.iter();
        self.observed.access = kinds
            .map(|kind| (("health".into(), *kind), Access::Allowed))
            .collect();
        let content = AppContent {
            manifests: vec![json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web"}]}}},
            })],
            ..Baseline::default().content()
        };
        let app = Entry {
            limits: [].into(),
            shares: Vec::new(),
            ..entry("uid-1", Scope::App)
        };
        let content = ContentState::Here(&content);
        realize(&app, content, Management::Manage, &self.observed, self.now)
    }
}

fn seen(name: &str, owner: Option<&str>, applied: Option<&ContentHash>) -> Seen {
    Seen {
        uid: format!("object-{name}").into(),
        resource_version: "10".into(),
        stamp: Stamp::Generation(1),
        owner: owner.map(Uid::from),
        applied: applied.cloned(),
        deleting: false,
        replicas: None,
        hold_until: None,
        health: Health::default(),
        created: true,
        limited: None,
    }
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: "health".into(),
        name: name.into(),
    }
}

fn makes_a_deployment(realized: &Realized) -> bool {
    let of = |action: &Action| matches!(action, Action::Apply(a) if a.key.kind == Kind::Deployment);
    realized.actions.iter().any(of)
}

#[test]
fn everything_that_isolates_is_applied_and_then_the_first_app_starts() {
    let mut bed = Bed::new();
    let waiting = bed.app();
    assert!(waiting.actions.is_empty(), "{waiting:?}");
    assert_eq!(
        waiting.report.message.unwrap(),
        "namespace health is being isolated first"
    );
    let applied = bed.carry_out();
    let kinds: BTreeSet<Kind> = applied.iter().map(|key| key.kind).collect();
    assert!(
        Kind::ISOLATING.iter().all(|kind| kinds.contains(kind)),
        "{applied:?}"
    );
    assert_eq!(bed.decide().report.state, ReportState::Healthy);
    assert!(makes_a_deployment(&bed.app()));
}

#[test]
fn an_app_that_runs_goes_on_although_its_namespace_is_not_isolated_any_more() {
    let mut bed = Bed::new();
    bed.carry_out();
    let running = seen("web", Some("uid-1"), None);
    bed.observed.see(key(Kind::Deployment, "web"), running);
    bed.observed
        .lose(&key(Kind::NetworkPolicy, "jiuzhou-default-deny"));
    assert!(makes_a_deployment(&bed.app()));
}

#[test]
fn nothing_grows_before_the_server_enforces_the_room_for_it() {
    let mut bed = Bed::new();
    bed.carry_out();
    let quota = key(Kind::ResourceQuota, "jiuzhou-general");
    let mut stale = bed.observed.objects[&quota].clone();
    stale.limited = Some(Box::default());
    bed.observed.see(quota, stale);
    let realized = bed.app();
    assert!(!makes_a_deployment(&realized));
    let message = realized.report.message.unwrap();
    assert!(
        message.contains("until ResourceQuota health/jiuzhou-general allows"),
        "{message}"
    );
}

#[test]
fn a_policy_of_somebody_else_is_told_and_taken_away_unless_it_is_only_to_be_told() {
    let mut bed = Bed::new();
    bed.carry_out();
    let hole = key(Kind::NetworkPolicy, "hole");
    bed.observed.see(hole.clone(), seen("hole", None, None));
    let realized = bed.decide();
    assert_eq!(realized.report.reason, Some(Reason::Drifted));
    let deleted = |action: &Action| matches!(action, Action::Delete { key, .. } if *key == hole);
    assert!(realized.actions.iter().any(deleted));
    // Nobody fights for ever.
    bed.observed.evicted.insert(hole.clone(), vec![NOW; 5]);
    let realized = bed.decide();
    assert_eq!(realized.report.reason, Some(Reason::Drifted));
    assert!(!realized.actions.iter().any(deleted));
    bed.observed.evicted.clear();
    bed.content.manifests[0]["metadata"]["annotations"][label::ON_DRIFT] = json!("Report");
    bed.carry_out();
    let told = bed.decide();
    assert_eq!(told.report.state, ReportState::Healthy);
    assert!(told.report.message.unwrap().contains("lets more through"));
    assert!(!told.actions.iter().any(deleted));
}

#[test]
fn what_somebody_deletes_is_made_again_and_told_for_a_while() {
    let mut bed = Bed::new();
    bed.carry_out();
    let deny = key(Kind::NetworkPolicy, "jiuzhou-default-deny");
    bed.observed.lose(&deny);
    assert_eq!(bed.carry_out(), std::slice::from_ref(&deny));
    bed.observed.settled.get_mut(&deny).unwrap().repaired(NOW);
    let told = bed.decide().report;
    assert_eq!(told.state, ReportState::Healthy);
    assert!(told.message.unwrap().contains("put back, once"));
    bed.now += crate::realize::FIGHT_WINDOW;
    assert_eq!(bed.decide().report.message, None);
}

#[test]
fn a_link_that_ends_is_closed_at_its_time_without_a_word_from_the_hub() {
    let mut bed = Bed::new();
    let end = Timestamp::from_millis(NOW + 60_000);
    bed.content.manifests.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "link", "annotations": {label::NOT_AFTER: end.to_string()}},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "ingress": [], "egress": [{}]},
    }));
    bed.carry_out();
    assert_eq!(bed.decide().wake_at, Some(end.millis()));
    bed.now = end.millis();
    let actions = bed.decide().actions;
    let [Action::Apply(closed)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(&*closed.key.name, "link");
    assert_eq!(closed.body["spec"]["egress"], json!([]));
    assert!(!closed.repair, "nobody weakened anything");
}

#[test]
fn a_namespace_goes_after_the_last_app_unless_somebody_else_created_it() {
    let mut bed = Bed::new();
    bed.carry_out();
    bed.home.state = EntryState::Removed;
    bed.inhabited = true;
    let waits = bed.decide();
    assert!(waits.actions.is_empty() && waits.report.state == ReportState::Removing);
    bed.inhabited = false;
    let itself = ObjectKey::namespace(&"health".into());
    let deletes = |bed: &Bed| {
        let actions = bed.decide().actions.into_iter();
        let keys = actions.filter_map(|action| {
            if let Action::Delete { key, .. } = action {
                Some(key)
            } else {
                None
            }
        });
        keys.collect::<Vec<_>>()
    };
    assert_eq!(deletes(&bed), std::slice::from_ref(&itself));
    bed.observed.home = true;
    let kept = deletes(&bed);
    assert!(!kept.is_empty() && !kept.contains(&itself), "{kept:?}");
    bed.observed.home = false;
    if let Some(seen) = bed.observed.objects.get_mut(&itself) {
        seen.created = false;
    }
    let kept = deletes(&bed);
    assert!(
        !kept.is_empty() && !kept.contains(&itself),
        "somebody else created it: {kept:?}"
    );
    bed.observed.namespaces.remove("health");
    assert_eq!(bed.decide().report.state, ReportState::Removed);
}

#[test]
fn in_a_cluster_that_is_released_the_limits_go_and_the_walls_stay() {
    let mut bed = Bed::new();
    bed.carry_out();
    bed.home.state = EntryState::Released;
    for action in bed.decide().actions {
        let limits = |key: &ObjectKey| matches!(key.kind, Kind::LimitRange | Kind::ResourceQuota);
        if let Action::Delete { key, .. } = action {
            assert!(limits(&key), "{key}");
        } else if let Action::LetGo { key, .. } = action {
            assert!(!limits(&key), "{key}");
        } else {
            panic!("{action:?}");
        }
    }
}

#[test]
fn pods_that_were_refused_are_tried_again_when_there_is_room_and_not_all_the_time() {
    let mut bed = Bed::new();
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    let actions = bed.app().actions;
    let apply = actions.into_iter().find_map(|action| {
        if let Action::Apply(apply) = action {
            Some(apply)
        } else {
            None
        }
    });
    let apply = apply.unwrap();
    let mut refused = Health::default();
    refused.refused = true;
    let running = Seen {
        health: refused,
        ..seen("web", Some("uid-1"), Some(&apply.hash))
    };
    let settled = Settled {
        uid: running.uid.clone(),
        app: Some("uid-1".into()),
        hash: apply.hash.clone(),
        stamp: running.stamp.clone(),
        repairs: vec![],
    };
    bed.observed.settled.insert(web.clone(), settled);
    bed.observed.see(web.clone(), running);
    let nudges = |realized: &Realized| {
        let all = realized.actions.iter();
        all.filter(|action| matches!(action, Action::Nudge(_)))
            .count()
    };
    assert_eq!(nudges(&bed.app()), 1);
    let once = Nudged { at: NOW, times: 1 };
    bed.observed.nudged.insert(web.clone(), once);
    let later = bed.app();
    assert_eq!(nudges(&later), 0);
    assert_eq!(later.wake_at, Some(NOW + NUDGE_PAUSE));
    bed.now += NUDGE_PAUSE;
    assert_eq!(nudges(&bed.app()), 1);
    // What does not help is tried ever more seldom.
    let often = Nudged {
        at: bed.now,
        times: 100,
    };
    bed.observed.nudged.insert(web, often);
    bed.now += 60_000;
    assert_eq!(nudges(&bed.app()), 0);
    bed.now += 120_000;
    assert_eq!(nudges(&bed.app()), 1);
    // Without room there is nothing to try.
    let quota = key(Kind::ResourceQuota, "jiuzhou-general");
    let mut full = bed.observed.objects[&quota].clone();
    let limited = full.limited.as_mut().unwrap();
    limited.used = limited.enforced.clone();
    bed.observed.see(quota, full);
    assert_eq!(nudges(&bed.app()), 0);
}
