use super::*;
use crate::object::Kind;
use crds::{Stage, Timestamp, Uid};
use serde_json::{Value, json};

const NOW: i64 = 1_000_000;

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
        }},
    })
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

fn autoscaler(target: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": target},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "maxReplicas": 9},
    })
}

/// One App in one cluster.
struct Bed {
    entry: Entry,
    content: AppContent,
    observed: Observed,
    management: Management,
}

impl Bed {
    fn new(manifests: &[Value]) -> Self {
        let content = AppContent {
            manifests: manifests.to_vec(),
            images: vec![],
            workload: None,
            tier: crds::Tier::General,
            overrides: vec![],
        };
        let mut observed = Observed::default();
        observed
            .namespaces
            .insert("health".into(), Namespace::Ready);
        let enclosure = Enclosure {
            in_force: true,
            ..Enclosure::default()
        };
        observed.enclosures.insert("health".into(), enclosure);
        observed.kinds = Kind::ALL.iter().copied().collect();
        observed.access = Kind::ALL
            .iter()
            .map(|kind| (("health".into(), *kind), Access::Allowed))
            .collect();
        let entry = Entry {
            uid: "uid-1".into(),
            namespace: "health".into(),
            name: "web".into(),
            generation: 1,
            state: EntryState::Present,
            content: "0".repeat(20).into(),
            pack: "c-1".into(),
            overrides: vec![],
            stages: vec![Stage {
                replicas: Some(3),
                ..Stage::default()
            }],
            secrets: vec![],
            take_over: TakeOver::Never,
            scope: crds::Scope::App,
            tier: crds::Tier::General,
            limits: [].into(),
            shares: Vec::new(),
            charge: std::sync::Arc::default(),
        };
        Self {
            entry,
            content,
            observed,
            management: Management::Manage,
        }
    }

    fn realize_at(&self, now: i64) -> Realized {
        realize(
            &self.entry,
            ContentState::Here(&self.content),
            self.management,
            &self.observed,
            now,
        )
    }

    fn realize(&self) -> Realized {
        self.realize_at(NOW)
    }

    /// Carries out all applies as an API server would, and returns how many there were.
    fn carry_out(&mut self) -> usize {
        let mut count = 0;
        for action in self.realize().actions {
            if let Action::Apply(apply) = action {
                count += 1;
                self.exists(&apply.key, Some(&apply), Some("uid-1"));
            }
        }
        count
    }

    /// Puts an object into the cluster, as applied or as somebody made it.
    fn exists(&mut self, key: &ObjectKey, applied: Option<&Apply>, owner: Option<&str>) {
        let generation = match self
            .observed
            .objects
            .get(key)
            .map(|seen| seen.stamp.clone())
        {
            Some(Stamp::Generation(generation)) => generation + 1,
            Some(Stamp::Version(_)) | None => 1,
        };
        let seen = Seen {
            uid: format!("object-{}", key.name).into(),
            resource_version: format!("{}", 10 + generation).into(),
            stamp: Stamp::Generation(generation),
            owner: owner.map(Uid::from),
            applied: applied.map(|a| a.hash.clone()),
            deleting: false,
            replicas: applied
                .and_then(|a| a.body.pointer("/spec/replicas")?.as_i64())
                .map(|n| i32::try_from(n).unwrap()),
            hold_until: None,
            health: Health::default(),
            created: false,
            limited: None,
        };
        if let Some(apply) = applied {
            let settled = Settled {
                uid: seen.uid.clone(),
                app: owner.map(Uid::from),
                hash: apply.hash.clone(),
                stamp: seen.stamp.clone(),
                repairs: vec![],
            };
            self.observed.settled.insert(key.clone(), settled);
        }
        self.observed.see(key.clone(), seen);
    }

    /// Changes what is seen of an object.
    fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.observed.objects[key].clone();
        change(&mut seen);
        self.observed.see(key.clone(), seen);
    }
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: "health".into(),
        name: name.into(),
    }
}

fn applies(realized: &Realized) -> Vec<&Apply> {
    let mut applies = Vec::new();
    for action in &realized.actions {
        if let Action::Apply(apply) = action {
            applies.push(apply.as_ref());
        }
    }
    applies
}

#[test]
fn everything_is_applied_once_and_then_nothing_more() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    assert_eq!(bed.carry_out(), 2);
    let realized = bed.realize();
    assert_eq!(realized.actions, []);
    assert_eq!(realized.report.state, ReportState::Healthy);
}

#[test]
fn kinds_are_applied_in_their_order_services_before_deployments() {
    let bed = Bed::new(&[deployment("web"), service("web")]);
    let realized = bed.realize();
    let kinds: Vec<Kind> = applies(&realized).iter().map(|a| a.key.kind).collect();
    assert_eq!(kinds, [Kind::Service, Kind::Deployment]);
}

#[test]
fn the_first_apply_takes_no_field_from_anybody() {
    let mut bed = Bed::new(&[deployment("web")]);
    assert!(!applies(&bed.realize())[0].force);
    bed.carry_out();
    bed.entry.stages[0].replicas = Some(5);
    assert!(applies(&bed.realize())[0].force);
}

#[test]
fn content_is_fetched_before_anything_is_done() {
    let bed = Bed::new(&[deployment("web")]);
    let realized = realize(
        &bed.entry,
        ContentState::Unknown,
        bed.management,
        &bed.observed,
        NOW,
    );
    assert_eq!(
        realized.actions,
        [Action::Fetch {
            pack: "c-1".into(),
            hash: bed.entry.content.clone()
        }]
    );
}

#[test]
fn missing_content_is_reported_and_what_runs_is_kept() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let realized = realize(
        &bed.entry,
        ContentState::Missing("gone"),
        bed.management,
        &bed.observed,
        NOW,
    );
    assert_eq!(realized.actions, []);
    assert_eq!(realized.report.reason, Some(Reason::ContentMissing));
    assert!(
        realized.report.content.is_some(),
        "the report says that something still runs"
    );
}

#[test]
fn the_namespace_comes_first_and_a_foreign_one_is_left_alone() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.observed.namespaces.clear();
    let create = |exists| Action::CreateNamespace {
        name: "health".into(),
        exists,
    };
    assert_eq!(bed.realize().actions, [create(false)]);
    bed.observed
        .namespaces
        .insert("health".into(), Namespace::Unbound);
    assert_eq!(bed.realize().actions, [create(true)]);
    bed.observed
        .namespaces
        .insert("health".into(), Namespace::Foreign);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::NotManaged))
    );
    bed.observed
        .namespaces
        .insert("health".into(), Namespace::Terminating);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Progressing)
    );
}

#[test]
fn the_tenants_right_is_asked_once_per_kind_and_a_no_is_final_for_it_alone() {
    let mut bed = Bed::new(&[deployment("a"), deployment("b"), service("a")]);
    bed.observed
        .access
        .remove(&("health".into(), Kind::Deployment));
    let realized = bed.realize();
    let asks = realized
        .actions
        .iter()
        .filter(|a| matches!(a, Action::Ask(..)))
        .count();
    assert_eq!((asks, applies(&realized).len()), (1, 1));
    bed.observed
        .access
        .insert(("health".into(), Kind::Deployment), Access::Denied);
    let realized = bed.realize();
    assert_eq!(realized.report.reason, Some(Reason::Forbidden));
    assert_eq!(
        applies(&realized).len(),
        1,
        "the Service is applied all the same"
    );
}

#[test]
fn a_kind_the_cluster_does_not_know_stops_only_itself() {
    let mut bed = Bed::new(&[deployment("web"), autoscaler("other")]);
    bed.observed.kinds.remove(&Kind::HorizontalPodAutoscaler);
    let realized = bed.realize();
    assert_eq!(realized.report.reason, Some(Reason::CRDMissing));
    assert_eq!(applies(&realized).len(), 1);
}

#[test]
fn a_kind_that_is_not_listed_yet_is_waited_for() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.observed.kinds.remove(&Kind::Deployment);
    bed.observed.listing.insert(Kind::Deployment);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Progressing)
    );
}

#[test]
fn an_unmanaged_object_is_not_taken_over_unless_the_app_says_so() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.exists(&key(Kind::Deployment, "web"), None, None);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::NotManaged))
    );
    bed.entry.take_over = TakeOver::Always;
    assert!(applies(&bed.realize())[0].force);
}

#[test]
fn an_object_of_another_app_is_never_touched() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.exists(&key(Kind::Deployment, "web"), None, Some("uid-2"));
    bed.entry.take_over = TakeOver::Always;
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::OwnedByOther))
    );
}

#[test]
fn an_app_that_waits_for_a_name_looks_again_whether_it_is_free() {
    let mut bed = Bed::new(&[deployment("web")]);
    let web = key(Kind::Deployment, "web");
    for owner in [None, Some("uid-2")] {
        bed.exists(&web, None, owner);
        assert_eq!(bed.realize().wake_at, Some(NOW + LOOK_AGAIN));
    }
    bed.observed.lose(&web);
    assert_eq!(applies(&bed.realize()).len(), 1);
}

#[test]
fn what_somebody_changed_is_put_back() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    bed.change(&web, |seen| seen.stamp = Stamp::Generation(7));
    assert!(applies(&bed.realize())[0].repair);
    bed.observed.lose(&web);
    assert_eq!(applies(&bed.realize()).len(), 1);
}

#[test]
fn an_object_whose_labels_were_stripped_is_still_ours() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.owner = None;
        seen.applied = None;
    });
    assert!(applies(&bed.realize())[0].force);
}

#[test]
fn a_label_of_ownership_that_somebody_took_away_alone_is_put_back() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| seen.owner = None);
    let realized = bed.realize();
    assert!(applies(&realized)[0].force);
    assert_eq!(realized.report.state, ReportState::Progressing);
}

#[test]
fn an_object_without_its_label_is_removed_released_and_pruned_all_the_same() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| seen.owner = None);
    bed.content.manifests = vec![];
    assert!(matches!(bed.realize().actions[..], [Action::Delete { .. }]));
    bed.entry.state = EntryState::Removed;
    let realized = bed.realize();
    assert!(matches!(realized.actions[..], [Action::Delete { .. }]));
    assert_eq!(realized.report.state, ReportState::Removing);
    bed.entry.state = EntryState::Released;
    assert!(matches!(bed.realize().actions[..], [Action::LetGo { .. }]));
    bed.observed.let_go(&key(Kind::Deployment, "web"));
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn an_object_that_lost_its_label_and_is_on_its_way_out_still_counts() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    bed.change(&web, |seen| seen.owner = None);
    bed.entry.state = EntryState::Removed;
    bed.observed.going(&web, &"object-web".into());
    bed.change(&web, |seen| seen.resource_version = "99".into());
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Removing)
    );
    bed.observed.lose(&web);
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn an_object_made_anew_by_somebody_else_under_our_name_is_not_ours() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.owner = None;
        seen.uid = "another".into();
    });
    assert_eq!(bed.realize().report.reason, Some(Reason::NotManaged));
}

#[test]
fn after_five_repairs_in_ten_minutes_the_agent_stops_and_says_so() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    for at in 0..5 {
        bed.observed
            .settled
            .get_mut(&web)
            .unwrap()
            .repaired(NOW + at);
    }
    bed.change(&web, |seen| seen.stamp = Stamp::Generation(9));
    let realized = bed.realize_at(NOW + 10);
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::Conflict))
    );
    assert_eq!(realized.wake_at, Some(NOW + FIGHT_WINDOW));
    assert_eq!(
        applies(&bed.realize_at(NOW + FIGHT_WINDOW + 5)).len(),
        1,
        "later it tries again"
    );
}

#[test]
fn new_content_is_applied_also_in_the_middle_of_a_fight() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    for at in 0..5 {
        bed.observed
            .settled
            .get_mut(&key(Kind::Deployment, "web"))
            .unwrap()
            .repaired(NOW + at);
    }
    bed.entry.stages[0].replicas = Some(9);
    assert_eq!(applies(&bed.realize()).len(), 1);
}

/// Somebody scales a Deployment by hand and asks for it to be left alone.
fn scale_by_hand(bed: &mut Bed, replicas: i32) {
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.stamp = Stamp::Generation(5);
        seen.replicas = Some(replicas);
        seen.resource_version = "15".into();
        seen.hold_until = Some(NOW + 500);
    });
}

#[test]
fn held_replicas_are_left_alone_until_their_time() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    scale_by_hand(&mut bed, 7);
    let realized = bed.realize();
    let kept = applies(&realized)[0];
    assert_eq!(kept.body["spec"]["replicas"], json!(7));
    assert_eq!(kept.resource_version.as_deref(), Some("15"));
    assert_eq!(realized.wake_at, Some(NOW + 500));
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.hold_until = Some(NOW + 500);
    });
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.wake_at),
        (0, Some(NOW + 500)),
        "what is held as wanted is not written again"
    );
    let after = bed.realize_at(NOW + 500);
    assert_eq!(applies(&after)[0].body["spec"]["replicas"], json!(3));
}

#[test]
fn what_was_decided_before_somebody_held_the_replicas_does_not_come_after() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    let versions = |bed: &Bed| -> Vec<Option<Box<str>>> {
        let realized = bed.realize();
        let applies = applies(&realized);
        applies.iter().map(|a| a.resource_version.clone()).collect()
    };
    assert_eq!(
        versions(&bed),
        [None, None],
        "there is nothing to overwrite"
    );
    bed.carry_out();
    bed.content.manifests.iter_mut().for_each(|manifest| {
        manifest["metadata"]["annotations"] = json!({"note": "new"});
    });
    // Nobody scales a Service, and its version changes with every status.
    assert_eq!(versions(&bed), [None, Some("11".into())]);
}

#[test]
fn new_content_reaches_an_object_whose_replicas_are_held() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    scale_by_hand(&mut bed, 7);
    bed.content.manifests[0]["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("registry.example/web:2");
    let realized = bed.realize();
    let kept = applies(&realized)[0];
    let image = "/spec/template/spec/containers/0/image";
    assert_eq!(
        (kept.body.pointer(image), &kept.body["spec"]["replicas"]),
        (Some(&json!("registry.example/web:2")), &json!(7))
    );
    assert_eq!(realized.report.state, ReportState::Progressing);
}

#[test]
fn the_clock_goes_through_the_stages() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.entry.stages.push(Stage {
        not_before: Some(Timestamp::from_millis(NOW + 5_000)),
        replicas: Some(8),
        hpa: None,
    });
    let replicas = |realized: &Realized| applies(realized)[0].body["spec"]["replicas"].clone();
    let before = bed.realize();
    assert_eq!(
        (replicas(&before), before.wake_at),
        (json!(3), Some(NOW + 5_000))
    );
    assert_eq!(replicas(&bed.realize_at(NOW + 5_000)), json!(8));
}

#[test]
fn an_autoscaler_takes_the_replicas_over_without_a_moment_unowned() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.content.manifests.push(autoscaler("web"));
    let realized = bed.realize();
    let web = applies(&realized)
        .into_iter()
        .find(|a| a.key.kind == Kind::Deployment)
        .unwrap();
    assert_eq!(web.hand_over, Some(3), "co-owned before it is let go");
    assert_eq!(web.body.pointer("/spec/replicas"), None);
}

#[test]
fn an_autoscaler_gets_this_clusters_bounds() {
    let mut bed = Bed::new(&[deployment("web"), autoscaler("web")]);
    bed.entry.stages = vec![Stage {
        hpa: Some(HpaBounds { min: 2, max: 6 }),
        ..Stage::default()
    }];
    let realized = bed.realize();
    let hpa = applies(&realized)
        .into_iter()
        .find(|a| a.key.kind == Kind::HorizontalPodAutoscaler)
        .unwrap();
    assert_eq!(
        (
            &hpa.body["spec"]["minReplicas"],
            &hpa.body["spec"]["maxReplicas"]
        ),
        (&json!(2), &json!(6))
    );
}

#[test]
fn what_the_content_no_longer_holds_is_deleted_and_nothing_else() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.carry_out();
    bed.exists(&key(Kind::Service, "foreign"), None, None);
    bed.exists(&key(Kind::Service, "other"), None, Some("uid-2"));
    bed.content.manifests.pop();
    let realized = bed.realize();
    let deletes: Vec<_> = realized
        .actions
        .iter()
        .filter(|a| matches!(a, Action::Delete { .. }))
        .collect();
    assert!(
        matches!(deletes[..], [Action::Delete { key, .. }] if *key == self::key(Kind::Service, "web"))
    );
}

#[test]
fn removal_deletes_exactly_what_is_ours_and_reports_when_it_is_gone() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.carry_out();
    bed.exists(&key(Kind::Service, "foreign"), None, None);
    bed.entry.state = EntryState::Removed;
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (2, ReportState::Removing)
    );
    bed.observed.lose(&key(Kind::Deployment, "web"));
    bed.observed.lose(&key(Kind::Service, "web"));
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Removed)
    );
    assert_eq!(realized.report.content, None);
}

#[test]
fn nothing_counts_as_removed_before_every_kind_was_looked_at() {
    let mut bed = Bed::new(&[]);
    bed.entry.state = EntryState::Removed;
    bed.observed.listing.insert(Kind::Deployment);
    assert_eq!(bed.realize().report.state, ReportState::Removing);
}

#[test]
fn an_object_on_its_way_out_is_not_deleted_twice() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| seen.deleting = true);
    bed.entry.state = EntryState::Removed;
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Removing)
    );
}

#[test]
fn releasing_lets_go_and_deletes_nothing() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.entry.state = EntryState::Released;
    let realized = bed.realize();
    assert!(matches!(realized.actions[..], [Action::LetGo { .. }]));
    bed.observed.let_go(&key(Kind::Deployment, "web"));
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.resource_version = "99".into();
    });
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn in_an_observed_cluster_writes_become_words() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.management = Management::Observe;
    bed.entry.take_over = TakeOver::Always;
    bed.exists(&key(Kind::Service, "web"), None, None);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Observed)
    );
    let message = realized.report.message.unwrap();
    assert!(
        message.contains("create 1, take over 1, change 0 and delete 0"),
        "{message}"
    );
}

#[test]
fn the_preview_sees_beyond_a_namespace_that_is_not_there() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.management = Management::Observe;
    bed.observed.namespaces.clear();
    bed.observed.access.clear();
    let realized = bed.realize();
    assert_eq!(realized.actions, []);
    let message = realized.report.message.unwrap();
    assert!(message.contains("create 2, take over 0"), "{message}");
}

#[test]
fn an_app_with_secrets_can_be_removed_where_nothing_may_be_written() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.entry.secrets = vec![crds::SecretCopy {
        name: "db".into(),
        copy: "s-1".into(),
    }];
    bed.entry.state = EntryState::Removed;
    assert_eq!(bed.realize().report.state, ReportState::Removing);
    bed.management = Management::Observe;
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn a_secret_that_is_refused_for_good_stays_so_while_it_is_tried_again() {
    let mut bed = Bed::new(&[]);
    bed.entry.secrets = vec![crds::SecretCopy {
        name: "db".into(),
        copy: "s-1".into(),
    }];
    bed.observed.copies.insert("s-1".into(), "v1".into());
    let refused = Undelivered {
        version: "v1".into(),
        reason: Reason::NotManaged,
        message: "Secret health/db exists".into(),
        retry_at: NOW + 900,
    };
    bed.observed
        .undelivered
        .insert(("health".into(), "db".into()), refused);
    let before = bed.realize();
    let again = bed.realize_at(NOW + 900);
    assert_eq!((before.actions.len(), again.actions.len()), (0, 1));
    assert_eq!(before.report, again.report);
}

/// A Secret that the App names, delivered long ago and as its copy is.
fn delivered(bed: &mut Bed, version: &str) -> SecretKey {
    bed.entry.secrets = vec![crds::SecretCopy {
        name: "db".into(),
        copy: "s-1".into(),
    }];
    bed.observed.copies.insert("s-1".into(), version.into());
    let delivered = Delivered {
        uid: "secret".into(),
        version: version.into(),
        apps: ["uid-1".into()].into(),
        looked: 0,
    };
    let key: SecretKey = ("health".into(), "db".into());
    bed.observed.delivered.insert(key.clone(), delivered);
    key
}

#[test]
fn a_delivered_secret_that_is_looked_at_again_is_no_progress_and_a_new_version_is() {
    let mut bed = Bed::new(&[]);
    delivered(&mut bed, "v1");
    let look = bed.realize();
    assert_eq!(look.actions.len(), 1);
    assert_eq!(look.report.state, ReportState::Healthy);
    bed.observed.copies.insert("s-1".into(), "v2".into());
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
}

#[test]
fn a_look_at_a_delivered_secret_that_gets_no_answer_says_nothing_and_is_tried_again() {
    let mut bed = Bed::new(&[]);
    let key = delivered(&mut bed, "v1");
    let unanswered = Undelivered {
        version: "v1".into(),
        reason: Reason::InProgress,
        message: "the server did not answer".into(),
        retry_at: NOW + 900,
    };
    bed.observed.undelivered.insert(key.clone(), unanswered);
    let waiting = bed.realize();
    assert_eq!(waiting.report.state, ReportState::Healthy);
    assert_eq!(waiting.wake_at, Some(NOW + 900));
    let again = bed.realize_at(NOW + 900);
    assert_eq!(again.actions.len(), 1);
    assert_eq!(again.report.state, ReportState::Healthy);
    // Seen to be another one: it is to be written, and that got no answer.
    bed.observed.delivered.get_mut(&key).unwrap().version = "".into();
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
}

#[test]
fn what_the_server_refused_is_tried_again_later_or_when_it_changed() {
    let mut bed = Bed::new(&[deployment("web")]);
    let hash = applies(&bed.realize())[0].hash.clone();
    let refused = Refused {
        hash,
        reason: Reason::Rejected,
        message: "spec.x: must be y".into(),
        retry_at: NOW + 900,
    };
    bed.observed
        .refused
        .insert(key(Kind::Deployment, "web"), refused);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.wake_at),
        (0, Some(NOW + 900))
    );
    assert_eq!(
        realized.report.message.as_deref(),
        Some("spec.x: must be y")
    );
    let again = bed.realize_at(NOW + 900);
    assert_eq!(applies(&again).len(), 1);
    assert_eq!(
        again.report, realized.report,
        "until the next answer the last one holds"
    );
    bed.entry.stages[0].replicas = Some(4);
    assert_eq!(
        applies(&bed.realize()).len(),
        1,
        "a change is tried at once"
    );
}

#[test]
fn a_busy_server_is_no_fault_of_the_app() {
    let mut bed = Bed::new(&[deployment("web")]);
    let hash = applies(&bed.realize())[0].hash.clone();
    let refused = Refused {
        hash,
        reason: Reason::InProgress,
        message: "timeout".into(),
        retry_at: NOW + 900,
    };
    bed.observed
        .refused
        .insert(key(Kind::Deployment, "web"), refused);
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
}

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

/// A list of one kind as the cluster gives it, without these names.
fn listed_without(bed: &mut Bed, kind: Kind, without: &[&str]) {
    let of_kind = |key: &&ObjectKey| key.kind == kind && !without.contains(&&*key.name);
    let keys: Vec<ObjectKey> = bed
        .observed
        .objects
        .keys()
        .filter(of_kind)
        .cloned()
        .collect();
    let all = keys.into_iter().map(|key| {
        let seen = bed.observed.objects[&key].clone();
        (key, seen)
    });
    let all: Vec<_> = all.collect();
    bed.observed.list(kind, all);
}

#[test]
fn what_a_list_lacked_is_asked_for_before_its_app_counts_as_removed() {
    let mut bed = Bed::new(&[service("web"), service("api")]);
    bed.carry_out();
    bed.entry.state = EntryState::Removed;
    listed_without(&mut bed, Kind::Service, &["web", "api"]);
    let realized = bed.realize();
    assert_eq!(realized.report.state, ReportState::Removing);
    let blind = |name: &str| Action::Delete {
        key: key(Kind::Service, name),
        uid: format!("object-{name}").into(),
        resource_version: None,
    };
    assert_eq!(realized.actions, [blind("api"), blind("web")]);
    // One is really gone; the other one was only not listed.
    let web = key(Kind::Service, "web");
    bed.observed.gone(&web, &"object-web".into());
    let api = key(Kind::Service, "api");
    bed.exists(&api, None, Some("uid-1"));
    let realized = bed.realize();
    assert_eq!(realized.report.state, ReportState::Removing);
    assert!(
        matches!(&realized.actions[..], [Action::Delete { key, resource_version: Some(_), .. }] if *key == api)
    );
    bed.observed.lose(&api);
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn a_cluster_that_was_restored_is_believed_as_it_is_now() {
    let mut bed = Bed::new(&[service("web")]);
    bed.carry_out();
    let web = key(Kind::Service, "web");
    let mut older = bed.observed.objects[&web].clone();
    older.resource_version = "3".into();
    older.stamp = Stamp::Generation(7);
    assert!(
        bed.observed.see(web.clone(), older.clone()).is_empty(),
        "a late echo"
    );
    bed.observed
        .list(Kind::Service, [(web.clone(), older.clone())]);
    assert_eq!(bed.observed.objects[&web], older);
    assert_eq!(bed.carry_out(), 1, "it is put back");
}

#[test]
fn under_a_new_identity_the_rights_come_before_a_removal() {
    let mut bed = Bed::new(&[service("web")]);
    bed.carry_out();
    let bind = [Action::CreateNamespace {
        name: "health".into(),
        exists: true,
    }];
    for state in [EntryState::Removed, EntryState::Released] {
        bed.entry.state = state;
        bed.observed
            .namespaces
            .insert("health".into(), Namespace::Unbound);
        let realized = bed.realize();
        assert_eq!(realized.actions, bind);
        assert_eq!(realized.report.state, ReportState::Removing);
        bed.observed
            .namespaces
            .insert("health".into(), Namespace::Ready);
        assert_ne!(bed.realize().actions, bind);
    }
}

#[test]
fn what_the_hub_does_not_know_can_be_taken_over_and_is_not_by_itself() {
    let mut bed = Bed::new(&[service("web")]);
    let web = key(Kind::Service, "web");
    bed.exists(&web, None, Some("uid-of-a-former-hub"));
    bed.entry.take_over = TakeOver::Always;
    assert_eq!(bed.realize().report.reason, Some(Reason::OwnedByOther));
    bed.observed.abandoned = BTreeSet::from(["uid-of-a-former-hub".into()]);
    bed.entry.take_over = TakeOver::Never;
    let message = bed.realize().report.message.unwrap();
    assert!(message.contains("takeOver"), "{message}");
    bed.entry.take_over = TakeOver::Always;
    assert_eq!(applies(&bed.realize())[0].key, web);
}

#[test]
fn what_went_with_its_namespace_is_gone_and_somebody_elses_namespace_is_left_alone() {
    let mut bed = Bed::new(&[service("web")]);
    bed.carry_out();
    bed.entry.state = EntryState::Removed;
    listed_without(&mut bed, Kind::Service, &["web"]);
    for namespace in [None, Some(Namespace::Foreign)] {
        bed.observed.namespaces.clear();
        let name = || "health".into();
        bed.observed
            .namespaces
            .extend(namespace.map(|n| (name(), n)));
        let realized = bed.realize();
        assert_eq!(realized.actions, []);
        assert_eq!(realized.report.state, ReportState::Removed);
    }
}
