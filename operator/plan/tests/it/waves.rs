//! How a change of content spreads.

use crds::{ConditionType, Reason, RolloutState};
use serde_json::json;

use crate::province::{Draft, Province, app, cluster, region};

/// Canary in Quzhou with a soak of a minute, then Ningbo after an Approval, then the rest.
fn careful() -> Draft {
    app("web").replicas(6, "Even").changed_by("alice").waves(&[
        ("canary", &["quzhou"], "60s", false),
        ("coast", &["ningbo"], "", true),
    ])
}

fn province() -> Province {
    Province::cities().with(careful()).settled()
}

fn state(province: &Province) -> (RolloutState, String) {
    let rollout = province.report("web").status.rollout.clone().unwrap();
    (
        rollout.state,
        rollout.wave.map(|w| w.to_string()).unwrap_or_default(),
    )
}

#[test]
fn the_first_content_goes_everywhere_at_once() {
    let province = province();
    assert_eq!(province.updated("web").len(), 3);
    assert_eq!(state(&province), (RolloutState::Complete, String::new()));
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn without_waves_a_change_goes_everywhere_at_once() {
    let mut province = Province::cities().with(app("web")).settled();
    province.change_content("web", "web:2");
    province.turn();
    assert_eq!(province.updated("web").len(), 3);
}

#[test]
fn waves_go_in_order_with_soak_and_approval() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    assert_eq!(state(&province), (RolloutState::Soaking, "canary".into()));
    assert_eq!(province.ready("web"), "Soaking");
    province.wait(70);
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    assert_eq!(
        state(&province),
        (RolloutState::WaitingForApproval, "coast".into())
    );
    let ready = province.condition("web", ConditionType::Ready).unwrap();
    assert!(
        ready
            .message
            .contains("an Approval with step coast and contentHash"),
        "{}",
        ready.message
    );
    province.approve("web", "coast", "bob", "Approve");
    province.settle();
    assert_eq!(province.updated("web").len(), 3);
    assert_eq!(state(&province), (RolloutState::Complete, String::new()));
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn nothing_of_a_change_is_sent_before_its_memory_is_written() {
    let mut province = province();
    province.change_content("web", "web:2");
    for _ in 0..5 {
        // The status cannot be written, for whatever reason.
        let plan = province.plan();
        assert!(plan.slices.is_empty());
    }
    assert_eq!(province.updated("web"), [""; 0]);
}

#[test]
fn the_soak_lasts_as_long_as_it_says_to_the_second() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.settle();
    let since = province
        .report("web")
        .status
        .rollout
        .clone()
        .unwrap()
        .since
        .millis();
    province.approve("web", "coast", "bob", "Approve");
    province.world.now = since + 59_999;
    province.turn();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    assert_eq!(province.plan().wake_at, Some(since + 60_000));
    province.world.now = since + 60_000;
    province.turn();
    assert_eq!(province.updated("web"), ["ningbo-a", "quzhou-a"]);
}

#[test]
fn an_approval_of_another_content_does_not_count() {
    let mut province = province();
    let old = province.wanted("web");
    province.change_content("web", "web:2");
    let later = province.world.now + 3_600_000;
    province.approve_hash("web", "coast", "bob", "Approve", old.as_str(), later);
    province.wait(90);
    assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
}

#[test]
fn an_approval_of_another_step_does_not_count() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.approve("web", "canary", "bob", "Approve");
    province.wait(90);
    assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
}

#[test]
fn an_approval_counts_until_it_expires() {
    let mut province = province();
    province.change_content("web", "web:2");
    let hash = province.wanted("web");
    let soon = province.world.now + 30_000;
    province.approve_hash("web", "coast", "bob", "Approve", hash.as_str(), soon);
    province.wait(90);
    assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
}

#[test]
fn the_author_of_a_change_cannot_approve_it() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.approve("web", "coast", "alice", "Approve");
    province.wait(90);
    assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
    province.approve("web", "coast", "bob", "Approve");
    province.settle();
    assert_eq!(state(&province).0, RolloutState::Complete);
}

#[test]
fn nobody_who_had_a_hand_in_a_change_can_approve_it() {
    let draft = |authors: &str| {
        app("web").replicas(6, "Even").changed_by(authors).waves(&[(
            "first",
            &["quzhou"],
            "",
            true,
        )])
    };
    let mut province = Province::cities().with(draft("alice\nbob")).settled();
    province.change_content("web", "web:2");
    for approver in ["alice", "bob"] {
        province.approve("web", "first", approver, "Approve");
        province.settle();
        assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
    }
    province.approve("web", "first", "carol", "Approve");
    province.settle();
    assert_eq!(state(&province).0, RolloutState::Complete);

    let mut crowd = Province::cities().with(draft("*")).settled();
    crowd.change_content("web", "web:2");
    crowd.approve("web", "first", "carol", "Approve");
    crowd.settle();
    assert_eq!(state(&crowd).0, RolloutState::WaitingForApproval);
}

#[test]
fn nobody_approves_a_change_of_which_the_author_is_not_known() {
    let draft = app("web")
        .replicas(6, "Even")
        .waves(&[("first", &["quzhou"], "", true)]);
    let mut province = Province::cities().with(draft).settled();
    province.change_content("web", "web:2");
    province.approve("web", "first", "bob", "Approve");
    province.settle();
    assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
    let ready = province.condition("web", ConditionType::Ready).unwrap();
    assert!(
        ready.message.contains("jiuzhou-app-author"),
        "{}",
        ready.message
    );
}

#[test]
fn content_that_waits_before_a_gate_is_let_through_by_no_edit_of_the_waves() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.wait(90);
    let waits = (RolloutState::WaitingForApproval, "coast".to_owned());
    assert_eq!(state(&province), waits);
    let kept = province.apps["web"].spec.rollout.clone();
    province.edit("web", |spec| spec.rollout = None);
    province.wait(90);
    assert_eq!(state(&province), waits);
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    province.approve("web", "coast", "bob", "Approve");
    province.settle();
    assert_eq!(state(&province), (RolloutState::Complete, String::new()));
    let rollout = province.report("web").status.rollout.clone().unwrap();
    assert_eq!(rollout.waves, [], "the next content begins with the spec's");
    province.edit("web", |spec| spec.rollout = kept);
    province.change_content("web", "web:3");
    province.settle();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
}

#[test]
fn one_no_outweighs_every_yes_as_long_as_it_stands() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.approve("web", "coast", "bob", "Approve");
    province.approve("web", "coast", "carol", "Reject");
    province.wait(90);
    assert_eq!(state(&province).0, RolloutState::WaitingForApproval);
    province
        .world
        .remove_approval(&"health".into(), "web-coast-carol-Reject");
    province.settle();
    assert_eq!(state(&province).0, RolloutState::Complete);
}

#[test]
fn an_unhealthy_wave_stops_the_rollout() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.bad.insert(province.wanted("web"));
    province.settle();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    assert_eq!(state(&province), (RolloutState::Stopped, "canary".into()));
    assert_eq!(province.ready("web"), "RolloutStopped");
    assert!(province.condition("web", ConditionType::Stalled).is_some());
}

#[test]
fn a_refused_wave_stops_the_rollout() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.refused.insert(province.wanted("web"));
    province.settle();
    assert_eq!(state(&province), (RolloutState::Stopped, "canary".into()));
}

#[test]
fn what_passes_by_itself_makes_a_wave_wait_and_does_not_stop_it() {
    for reason in [
        Reason::ContentMissing,
        Reason::InProgress,
        Reason::AgentForbidden,
    ] {
        let mut province = province();
        province.change_content("web", "web:2");
        province.refused.insert(province.wanted("web"));
        province.refusal_reason = reason;
        province.settle();
        let waits = (RolloutState::InProgress, "canary".to_owned());
        assert_eq!(state(&province), waits, "{reason}");
        province.refused.clear();
        province.settle();
        assert_eq!(state(&province), (RolloutState::Soaking, "canary".into()));
    }
}

#[test]
fn a_stopped_rollout_stays_stopped_when_the_wave_recovers() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.bad.insert(province.wanted("web"));
    province.settle();
    province.bad.clear();
    province.approve("web", "coast", "bob", "Approve");
    province.wait(120);
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    assert_eq!(state(&province), (RolloutState::Stopped, "canary".into()));
}

#[test]
fn a_later_wave_that_breaks_stops_under_its_own_name() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.approve("web", "coast", "bob", "Approve");
    province.settle();
    province.bad.insert(province.wanted("web"));
    // Quzhou proved it; only what comes now is ill.
    let quzhou = province.agents["quzhou-a"].clone();
    province.world.now += 30_000;
    province.hear();
    province.world.now += 35_000;
    for _ in 0..6 {
        province.turn();
        province.agents.insert("quzhou-a".into(), quzhou.clone());
        province
            .world
            .apply_report(&"quzhou-a".into(), quzhou.report());
        province.world.now += 1_000;
    }
    assert_eq!(state(&province), (RolloutState::Stopped, "coast".into()));
    assert_eq!(province.updated("web"), ["ningbo-a", "quzhou-a"]);
}

#[test]
fn an_app_that_gets_ill_long_after_its_rollout_is_unhealthy_and_not_stopped() {
    let mut province = province();
    province.bad.insert(province.wanted("web"));
    province.settle();
    assert_eq!(state(&province).0, RolloutState::Complete);
    assert_eq!(province.ready("web"), "Unhealthy");
    province.bad.clear();
    province.settle();
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn content_set_back_goes_everywhere_at_once() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.bad.insert(province.wanted("web"));
    province.settle();
    province.change_content("web", "registry.example/web:1");
    province.turn();
    assert_eq!(province.updated("web").len(), 3);
    assert!(
        province
            .report("web")
            .status
            .rollout
            .as_ref()
            .unwrap()
            .rollback
    );
    province.settle();
    assert_eq!(state(&province).0, RolloutState::Complete);
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn content_that_only_ran_in_the_first_wave_is_not_proven() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(state(&province), (RolloutState::Soaking, "canary".into()));
    province.change_content("web", "web:3");
    // The status remembers the third content; quzhou still runs the second, healthily.
    province.turn();
    province.change_content("web", "web:2");
    province.settle();
    let rollout = province.report("web").status.rollout.clone().unwrap();
    assert!(!rollout.rollback);
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    assert_eq!(state(&province), (RolloutState::Soaking, "canary".into()));
}

#[test]
fn the_bad_content_once_more_starts_with_the_canary_again() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.bad.insert(province.wanted("web"));
    province.settle();
    province.change_content("web", "registry.example/web:1");
    province.settle();
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
}

#[test]
fn a_cluster_that_joins_in_the_middle_takes_what_its_wave_has() {
    let mut province = Province::cities()
        .with(careful().replicas(2, "Duplicate"))
        .settled();
    province.change_content("web", "web:2");
    province.settle();
    province.put_region(region("kaihua", "County", "330824", Some("quzhou")));
    province.put_region(region("cixi", "County", "330282", Some("ningbo")));
    province.put_cluster(cluster("kaihua-a", "kaihua"));
    province.put_cluster(cluster("cixi-a", "cixi"));
    for _ in 0..3 {
        province.turn();
        province.world.now += 1_000;
    }
    assert_eq!(province.clusters_of("web").len(), 5);
    assert_eq!(province.updated("web"), ["kaihua-a", "quzhou-a"]);
}

#[test]
fn while_stopped_a_cluster_that_joins_takes_the_old_content() {
    let mut province = Province::cities()
        .with(careful().replicas(2, "Duplicate"))
        .settled();
    province.change_content("web", "web:2");
    province.bad.insert(province.wanted("web"));
    province.settle();
    province.put_region(region("kaihua", "County", "330824", Some("quzhou")));
    province.put_cluster(cluster("kaihua-a", "kaihua"));
    province.settle();
    assert_eq!(province.clusters_of("web").len(), 4);
    assert_eq!(province.updated("web"), ["quzhou-a"]);
}

#[test]
fn an_unreachable_member_does_not_hold_up_its_wave() {
    let draft =
        app("web")
            .replicas(6, "Even")
            .waves(&[("first", &["quzhou", "ningbo"], "", false)]);
    let mut province = Province::cities().with(draft).settled();
    province.cut_off("ningbo-a");
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(province.updated("web").len(), 3);
    assert_eq!(state(&province).0, RolloutState::Complete);
}

#[test]
fn a_wave_without_one_healthy_member_holds_up_the_rest() {
    let draft = app("web")
        .replicas(6, "Even")
        .waves(&[("first", &["ningbo"], "", false)]);
    let mut province = Province::cities().with(draft).settled();
    province.cut_off("ningbo-a");
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(province.updated("web"), ["ningbo-a"]);
    assert_eq!(state(&province), (RolloutState::InProgress, "first".into()));
}

#[test]
fn a_wave_nobody_is_in_is_skipped_with_its_approval() {
    let draft = app("web").replicas(6, "Even").waves(&[
        ("nobody", &["atlantis"], "1h", true),
        ("first", &["ningbo"], "", false),
    ]);
    let mut province = Province::cities().with(draft).settled();
    province.change_content("web", "web:2");
    province.settle();
    assert_eq!(state(&province).0, RolloutState::Complete);
}

#[test]
fn replicas_change_at_once_whatever_the_wave() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.settle();
    province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 9);
    province.settle();
    assert_eq!(
        province.placed("web").iter().map(|(_, n)| n).sum::<i32>(),
        9
    );
    assert_eq!(province.updated("web"), ["quzhou-a"]);
}

#[test]
fn a_cluster_that_keeps_the_old_content_keeps_its_overrides_and_secrets() {
    let patch = json!([{"op": "add", "path": "/metadata/annotations", "value": {"sea": "yes"}}]);
    let target = json!({"group": "apps", "kind": "Deployment", "name": "web"});
    let sea = json!({"regions": {"within": ["ningbo"]}, "target": target, "patch": patch});
    let draft = careful()
        .set("/overrides", json!([sea]))
        .set("/secretNames", json!(["tls"]));
    let mut province = Province::cities().with(draft).settled();
    province.edit("web", |spec| {
        let first = crds::RegionSelector {
            within: vec!["quzhou".into()],
            ..Default::default()
        };
        let added = crds::Override {
            regions: first,
            ..spec.overrides[0].clone()
        };
        spec.overrides.insert(0, added);
        spec.secret_names.clear();
    });
    province.settle();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    let ningbo = province.entry("web", "ningbo-a").unwrap();
    assert_eq!(ningbo.overrides, [0], "position 0 of the old content");
    assert_eq!(ningbo.secrets.len(), 1);
    assert_eq!(province.entry("web", "quzhou-a").unwrap().overrides, [0]);
}

#[test]
fn a_status_that_was_lost_in_the_middle_skips_no_gate() {
    let mut province = province();
    province.change_content("web", "web:2");
    province.settle();
    let app = province.apps.get_mut("web").unwrap();
    app.status = None;
    app.metadata.resource_version = None;
    let app = app.clone();
    province.world.apply_app(&app);
    province.settle();
    assert_eq!(province.updated("web"), ["quzhou-a"]);
    province.wait(90);
    assert_eq!(
        state(&province),
        (RolloutState::WaitingForApproval, "coast".into())
    );
}
