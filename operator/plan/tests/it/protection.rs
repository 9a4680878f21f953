//! TrafficPolicies: sent where their Apps stand, at once, and no more than they let pass is given out.

use crds::{ConditionStatus, ConditionType, EntryState, Reason, Tier};
use plan::check::Finding;
use serde_json::json;

use crate::province::policies::{key, of_region, total};
use crate::province::{Draft, Province, app, cluster, manifest};

/// An App with a route.
fn routed(name: &str) -> Draft {
    app(name).and(manifest("HTTPRoute", name))
}

/// An App with a route whose rules have these names.
fn with_rules(name: &str, rules: &[&str]) -> Draft {
    let mut route = manifest("HTTPRoute", name);
    let named = rules.iter().map(|rule| json!({"name": rule}));
    let unnamed = std::iter::once(json!({}));
    route["spec"] = json!({"rules": named.chain(unnamed).collect::<Vec<_>>()});
    app(name).and(route)
}

/// App web, six replicas in each city.
fn cities() -> Province {
    Province::cities().with(routed("web").replicas(18, "Even"))
}

#[track_caller]
fn said(
    province: &Province,
    policy: &str,
    app: &str,
    kind: ConditionType,
    (status, reason): (ConditionStatus, Reason),
    words: &str,
) {
    let told = province.at_app(policy, app, kind).expect("it is said");
    assert_eq!((told.status, told.reason), (status, reason), "{told:?}");
    assert!(told.message.contains(words), "{}", told.message);
}

const ACCEPTED: ConditionType = ConditionType::Accepted;
const PROGRAMMED: ConditionType = ConditionType::Programmed;
const TRUE: ConditionStatus = ConditionStatus::True;
const FALSE: ConditionStatus = ConditionStatus::False;

#[test]
fn a_policy_is_sent_wherever_its_app_stands_and_names_its_routes() {
    let mut province =
        cities()
            .with(routed("other"))
            .with_policy("web", &["web"], &json!({"timeout": "3s"}));
    province.turn();
    let sent = province.regional("web");
    assert_eq!(sent.len(), 1, "one content for all clusters");
    assert_eq!(
        sent[0]["spec"]["targetRefs"],
        json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}])
    );
    assert_eq!(sent[0]["spec"]["timeout"], "3s");
    province.settle();
    let cities = ["hangzhou-a", "ningbo-a", "quzhou-a"];
    assert_eq!(province.protected_by("web"), cities);
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "App web",
    );
    said(
        &province,
        "web",
        "web",
        PROGRAMMED,
        (TRUE, Reason::Programmed),
        "3 of 3",
    );
    let ready = province
        .policy_condition("web", ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.status, TRUE);
    let protected = province.condition("web", ConditionType::Protected).unwrap();
    assert_eq!(
        (protected.status, protected.reason),
        (TRUE, Reason::Programmed)
    );
}

#[test]
fn a_policy_arrives_in_the_same_write_as_its_app() {
    let mut province = Province::cities().with_policy("web", &["web"], &json!({}));
    province.settle();
    province.create(routed("web"));
    let plan = province.plan();
    for write in &plan.slices {
        let of = |app: bool| {
            write
                .spec
                .entries
                .iter()
                .any(|e| e.scope.is_app() == app && !e.scope.is_namespace())
        };
        assert_eq!(of(true), of(false), "{}", write.cluster);
    }
    assert_eq!(plan.slices.len(), 3);
}

#[test]
fn a_change_of_a_policy_goes_everywhere_at_once_and_leaves_the_app_alone() {
    let waves = [
        ("canary", &["quzhou"][..], "1h", false),
        ("rest", &[][..], "", true),
    ];
    let mut province = Province::cities()
        .with(routed("web").replicas(18, "Even").waves(&waves))
        .with_policy("web", &["web"], &json!({"timeout": "3s"}))
        .settled();
    let before: Vec<_> = ["hangzhou-a", "ningbo-a", "quzhou-a"]
        .map(|c| province.entry("web", c).cloned())
        .into();
    let sent = province.sent("web");
    province.set_policy("web", &["web"], &json!({"timeout": "2s"}));
    let plan = province.plan();
    assert_eq!(plan.slices.len(), 3, "no wave holds it up");
    province.settle();
    let after: Vec<_> = ["hangzhou-a", "ningbo-a", "quzhou-a"]
        .map(|c| province.entry("web", c).cloned())
        .into();
    assert_eq!(
        before, after,
        "the App has the content and the generation it had"
    );
    for (cluster, entry) in province.sent("web") {
        assert_ne!(entry.content, sent[&cluster].content);
    }
}

#[test]
fn without_a_policy_an_app_is_not_protected_and_ready_all_the_same() {
    let province = cities().settled();
    let protected = province.condition("web", ConditionType::Protected).unwrap();
    assert_eq!(
        (protected.status, protected.reason),
        (FALSE, Reason::NoPolicy)
    );
    assert!(protected.message.contains("create one in namespace health"));
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn a_policy_goes_where_its_app_goes_and_is_taken_back_where_it_left() {
    let mut province = Province::cities()
        .with(routed("web").within(&["hangzhou"]))
        .with_policy("web", &["web"], &json!({}))
        .settled();
    assert_eq!(province.protected_by("web"), ["hangzhou-a"]);
    province.edit("web", |spec| {
        spec.placement.regions.as_mut().unwrap().within = vec!["ningbo".into()];
    });
    province.settle();
    assert_eq!(province.clusters_of("web"), ["ningbo-a"]);
    assert_eq!(
        province.sent("web").keys().collect::<Vec<_>>(),
        ["ningbo-a"]
    );
}

#[test]
fn what_a_cluster_does_not_acknowledge_stays_marked_as_removed() {
    let mut province = cities().with_policy("web", &["web"], &json!({})).settled();
    province.silence("quzhou-a");
    province.delete_policy("web");
    province.settle();
    assert_eq!(province.protected_by("web"), [] as [&str; 0]);
    let left = province.sent("web");
    assert_eq!(left.keys().collect::<Vec<_>>(), ["quzhou-a"]);
    assert_eq!(left["quzhou-a"].state, EntryState::Removed);
    let ready = province
        .policy_condition("web", ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.reason, Reason::Deleting, "the finalizer waits for it");
    province.unsilence("quzhou-a");
    province.settle();
    assert!(!province.policies.contains_key(&key("web")));
}

#[test]
fn a_policy_is_let_go_although_a_cluster_is_out_of_contact() {
    let mut province = cities().with_policy("web", &["web"], &json!({})).settled();
    province.cut_off("quzhou-a");
    province.delete_policy("web");
    province.settle();
    assert!(!province.policies.contains_key(&key("web")));
}

#[test]
fn a_policy_that_merely_vanished_is_no_instruction() {
    let mut province = cities().with_policy("web", &["web"], &json!({})).settled();
    let uid = province.policies[&key("web")].metadata.uid.clone().unwrap();
    province.lose_policy("web");
    province.settle();
    let uid = plan::world::policy_uid(&uid.into());
    let ledger = province.world.ledger(&uid).unwrap();
    assert_eq!(ledger.entries.len(), 3);
    assert!(
        ledger
            .entries
            .values()
            .all(|held| held.entry.state.is_present())
    );
    let protected = province.condition("web", ConditionType::Protected).unwrap();
    assert_eq!(protected.reason, Reason::NoPolicy);
}

#[test]
fn nothing_is_sent_of_a_policy_before_it_is_held() {
    let mut province = cities().settled();
    province.set_policy("web", &["web"], &json!({}));
    let plan = province.plan();
    assert_eq!((plan.policies.len(), plan.slices.len()), (1, 0));
}

#[test]
fn of_two_policies_for_an_app_the_older_counts_and_the_younger_takes_over() {
    let mut province = cities()
        .with_policy("old", &["web"], &json!({"timeout": "1s"}))
        .with_policy("a-young", &["web"], &json!({"timeout": "2s"}))
        .settled();
    assert_eq!(province.protected_by("old").len(), 3);
    assert_eq!(province.protected_by("a-young").len(), 0);
    said(
        &province,
        "a-young",
        "web",
        ACCEPTED,
        (FALSE, Reason::Conflicted),
        "TrafficPolicy old",
    );
    said(
        &province,
        "old",
        "web",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "",
    );
    province.delete_policy("old");
    province.settle();
    assert_eq!(province.protected_by("a-young").len(), 3);
    said(
        &province,
        "a-young",
        "web",
        PROGRAMMED,
        (TRUE, Reason::Programmed),
        "3 of 3",
    );
}

#[test]
fn a_policy_counts_for_the_apps_that_no_older_one_has() {
    let province = cities()
        .with(routed("api").within(&["ningbo"]))
        .with_policy("old", &["web"], &json!({}))
        .with_policy("both", &["api", "web"], &json!({}))
        .settled();
    assert_eq!(province.protected_by("both"), ["ningbo-a"]);
    said(
        &province,
        "both",
        "web",
        ACCEPTED,
        (FALSE, Reason::Conflicted),
        "old",
    );
    said(
        &province,
        "both",
        "api",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "",
    );
    let ready = province
        .policy_condition("both", ConditionType::Ready)
        .unwrap();
    assert_eq!((ready.status, ready.reason), (FALSE, Reason::Conflicted));
}

#[test]
fn a_policy_that_waits_for_an_event_is_valid_and_sent_nowhere() {
    let spec = json!({"activation": "ByEvent"});
    let province = cities()
        .with_policy("always", &["web"], &json!({}))
        .with_policy("peak", &["web"], &spec)
        .settled();
    assert_eq!(province.protected_by("peak").len(), 0);
    said(
        &province,
        "peak",
        "web",
        ACCEPTED,
        (TRUE, Reason::NoEvent),
        "waits for a PeakEvent",
    );
    said(
        &province,
        "peak",
        "web",
        PROGRAMMED,
        (FALSE, Reason::NoEvent),
        "no cluster",
    );
    let ready = province
        .policy_condition("peak", ConditionType::Ready)
        .unwrap();
    assert_eq!((ready.status, ready.reason), (TRUE, Reason::NoEvent));
    said(
        &province,
        "always",
        "web",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "",
    );
}

#[test]
fn an_app_that_is_missing_or_has_no_route_is_named_with_the_fix() {
    let mut province = Province::cities()
        .with(app("bare"))
        .with_policy("lost", &["nobody"], &json!({}))
        .with_policy("bare", &["bare"], &json!({}))
        .settled();
    said(
        &province,
        "lost",
        "nobody",
        ACCEPTED,
        (FALSE, Reason::TargetNotFound),
        "create it, or correct",
    );
    said(
        &province,
        "bare",
        "bare",
        ACCEPTED,
        (FALSE, Reason::TargetNotFound),
        "add one to its spec.manifests",
    );
    assert_eq!(province.protected_by("bare").len(), 0);
    let protected = province
        .condition("bare", ConditionType::Protected)
        .unwrap();
    assert_eq!(protected.reason, Reason::TargetNotFound);
    province.create(routed("nobody"));
    province.settle();
    assert_eq!(province.protected_by("lost").len(), 3);
}

#[test]
fn classes_never_matter_more_than_their_app_and_it_is_said() {
    let classes = json!({"classes": [
        {"sectionName": "show", "tier": "Core"}, {"sectionName": "list", "tier": "Ancillary"},
    ]});
    let mut province = Province::cities()
        .with(with_rules("web", &["list", "show"]))
        .with_policy("web", &["web"], &classes);
    province.turn();
    let sent = province.regional("web");
    assert_eq!(sent[0]["spec"]["defaultTier"], "General");
    assert_eq!(sent[0]["spec"]["classes"][0]["tier"], "General");
    assert_eq!(sent[0]["spec"]["classes"][1]["tier"], "Ancillary");
    province.settle();
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "classes show is above General",
    );
    province.edit("web", |spec| spec.tier = Tier::Core);
    let sent = province.regional("web");
    assert_eq!(sent[0]["spec"]["defaultTier"], "Core");
    assert_eq!(sent[0]["spec"]["classes"][0]["tier"], "Core");
}

#[test]
fn a_class_that_no_route_has_a_rule_for_is_told_with_the_names_there_are() {
    let classes = json!({"classes": [
        {"sectionName": "shwo", "tier": "General"}, {"sectionName": "list", "tier": "General"},
    ]});
    let mut province = Province::cities()
        .with(with_rules("web", &["show"]))
        .with(with_rules("api", &["list"]))
        .with_policy("web", &["web", "api"], &classes)
        .settled();
    let told = (TRUE, Reason::TargetNotFound);
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        told,
        "a rule named shwo, so that no request is of that class",
    );
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        told,
        "the rules there are named list, show.",
    );
    let ready = province
        .policy_condition("web", ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.status, TRUE, "what there is counts");
    // The App learns the name that the policy has.
    province.edit("web", |spec| {
        spec.manifests[1]["spec"]["rules"][0]["name"] = json!("shwo");
    });
    province.settle();
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "It counts",
    );
}

#[test]
fn of_many_names_of_rules_the_first_are_told_and_how_many_more_there_are() {
    let names: Vec<String> = (0..12).map(|number| format!("rule-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let classes = json!({"classes": [{"sectionName": "typo", "tier": "General"}]});
    let province = Province::cities()
        .with(with_rules("web", &names))
        .with_policy("web", &["web"], &classes)
        .settled();
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::TargetNotFound),
        "rule-07 and 4 more.",
    );
}

#[test]
fn a_rate_for_the_province_is_divided_by_replicas_and_it_is_said() {
    let weights = [("hangzhou", 3), ("ningbo", 2), ("quzhou", 1)];
    let mut province = Province::cities()
        .with(routed("web").weighted(12, &weights))
        .with_policy("web", &["web"], &json!({"rateLimits": total(20_000)}));
    province.turn();
    let sent = province.regional("web");
    assert_eq!(sent[0]["spec"]["rateLimits"][0]["scope"], "Province");
    province.settle();
    let shares = ["hangzhou-a", "ningbo-a", "quzhou-a"].map(|c| province.share("web", c).unwrap());
    assert_eq!(shares, [(10_000, 1), (6_667, 1), (3_333, 1)]);
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::ProvinceCapNotServed),
        "total is divided",
    );
}

#[test]
fn a_waiting_room_for_the_province_counts_in_each_cluster_and_it_is_said() {
    let room = json!({"scope": "Province", "activeUsers": 500, "newPerMinute": 100});
    let mut province = Province::cities().with(routed("web")).with_policy(
        "web",
        &["web"],
        &json!({"waitingRoom": room}),
    );
    province.turn();
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::ProvinceCapNotServed),
        "each cluster lets in activeUsers, 500, for itself",
    );
}

#[test]
fn shares_follow_replicas_and_what_grows_waits_for_what_shrinks() {
    let weights = [("hangzhou", 3), ("ningbo", 1)];
    let mut province = Province::cities()
        .with(
            routed("web")
                .weighted(8, &weights)
                .within(&["hangzhou", "ningbo"]),
        )
        .with_policy("web", &["web"], &json!({"rateLimits": total(1_000)}))
        .settled();
    assert_eq!(province.share("web", "hangzhou-a"), Some((750, 1)));
    province.edit("web", |spec| {
        let weights = spec.replicas.as_mut().unwrap();
        for weight in &mut weights.weights {
            weight.weight = 4 - weight.weight;
        }
    });
    let mut most = 0;
    for _ in 0..12 {
        province.turn();
        province.world.now += 1_000;
        let sum = |province: &Province| {
            let sent = province.sent("web").into_values();
            sent.flat_map(|e| e.shares).map(|s| s.requests).sum::<i64>()
        };
        most = most.max(sum(&province));
    }
    province.settle();
    assert_eq!(province.share("web", "ningbo-a"), Some((750, 1)));
    assert_eq!(province.share("web", "hangzhou-a"), Some((250, 1)));
    assert_eq!(most, 1_000, "at no time more than the limit");
}

#[test]
fn a_rate_of_a_region_is_divided_over_its_clusters_and_whole_in_a_region_of_one() {
    let province = Province::cities()
        .with_cluster(cluster("hangzhou-b", "hangzhou"))
        .with_cores("hangzhou-a", 4)
        .with_cores("hangzhou-b", 2)
        .with(
            routed("web")
                .replicas(5, "Duplicate")
                .within(&["hangzhou", "ningbo"]),
        )
        .with_policy("web", &["web"], &json!({"rateLimits": of_region(5_000)}))
        .settled();
    let share = |cluster| province.share("web", cluster);
    assert_eq!(share("hangzhou-a"), Some((4_000, 1)), "four of five");
    assert_eq!(share("hangzhou-b"), Some((1_000, 1)));
    assert_eq!(share("ningbo-a"), Some((5_000, 1)));
    said(
        &province,
        "web",
        "web",
        ACCEPTED,
        (TRUE, Reason::Accepted),
        "It counts",
    );
}

#[test]
fn a_cluster_that_is_forgotten_keeps_its_part_of_its_regions_rate() {
    let mut province = cities()
        .with_policy("web", &["web"], &json!({"rateLimits": of_region(2)}))
        .settled();
    for cluster in ["ningbo-a", "quzhou-a"] {
        province.delete_cluster(cluster);
    }
    // The judge looks at every turn.
    for _ in 0..3 {
        province.turn();
        province.world.now += 1_000;
    }
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        assert_eq!(province.share("web", cluster), Some((2, 1)), "{cluster}");
    }
}

#[test]
fn a_second_cluster_of_a_region_waits_until_the_first_has_less() {
    let mut province = Province::cities()
        .with_cores("hangzhou-a", 4)
        .with(routed("web").replicas(4, "Duplicate").within(&["hangzhou"]))
        .with_policy("web", &["web"], &json!({"rateLimits": of_region(1_000)}))
        .settled();
    assert_eq!(province.share("web", "hangzhou-a"), Some((1_000, 1)));
    province.put_cluster(cluster("hangzhou-b", "hangzhou"));
    province.set_cores("hangzhou-b", 8);
    province.edit("web", |spec| {
        spec.replicas.as_mut().unwrap().total = 8;
    });
    let mut most = 0;
    for _ in 0..12 {
        province.turn();
        province.world.now += 1_000;
        let sent = province.sent("web").into_values();
        let sum = sent.flat_map(|e| e.shares).map(|s| s.requests).sum::<i64>();
        most = most.max(sum);
    }
    province.settle();
    assert!(province.share("web", "hangzhou-b").is_some());
    assert_eq!(most, 1_000, "at no time more than the limit");
}

#[test]
fn a_policy_that_a_cluster_refuses_says_where_and_why() {
    let mut province = cities().with_policy("web", &["web"], &json!({}));
    province.settle();
    let content = province.sent("web")["quzhou-a"].content.clone();
    province.refused.insert(content);
    province.delete_slice("quzhou-a", "a-0000");
    province.set_policy("web", &["web"], &json!({"timeout": "1s"}));
    province.settle();
    said(
        &province,
        "web",
        "web",
        PROGRAMMED,
        (TRUE, Reason::Programmed),
        "3 of 3",
    );
    let content = province.sent("web")["quzhou-a"].content.clone();
    province.refused.insert(content);
    province.set_policy("web", &["web"], &json!({"timeout": "2s"}));
    province.set_policy("web", &["web"], &json!({"timeout": "1s"}));
    province.settle();
    said(
        &province,
        "web",
        "web",
        PROGRAMMED,
        (FALSE, Reason::Rejected),
        "In cluster",
    );
    let ready = province
        .policy_condition("web", ConditionType::Ready)
        .unwrap();
    assert_eq!((ready.status, ready.reason), (FALSE, Reason::Rejected));
    let protected = province.condition("web", ConditionType::Protected).unwrap();
    assert_eq!(
        (protected.status, protected.reason),
        (FALSE, Reason::Rejected)
    );
}

#[test]
fn a_policy_without_apps_is_a_regions_own_and_left_alone() {
    let mut province = cities();
    let route = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}]);
    province.set_policy("own", &[], &json!({"targetRefs": route}));
    let plan = province.plan();
    assert_eq!(plan.policies, []);
    province.settle();
    assert!(province.policies[&key("own")].status.is_none());
}

/// One request more than there is, in a share of the first entry that has any.
fn overshare(plan: &mut plan::Plan) {
    let slices = plan.slices.iter_mut();
    let mut entries = slices.flat_map(|write| &mut write.spec.entries);
    let entry = entries.find(|entry| !entry.shares.is_empty()).unwrap();
    entry.shares[0].requests += 1;
}

#[test]
fn the_judge_finds_a_policy_where_no_app_is_and_shares_beyond_the_limit() {
    let mut province = Province::cities()
        .with(
            routed("web")
                .replicas(6, "Even")
                .within(&["hangzhou", "ningbo"]),
        )
        .with_policy("web", &["web"], &json!({"rateLimits": total(100)}));
    province.turn();
    let mut plan = province.plan();
    overshare(&mut plan);
    let found = plan::check(&province.world, &plan);
    assert!(matches!(found[..], [Finding::Overshared(..)]), "{found:?}");
    province.settle();
    province.set_policy("web", &["web"], &json!({"rateLimits": total(50)}));
    let mut plan = province.plan();
    plan.slices[0].cluster = "quzhou-a".into();
    plan.slices[0]
        .spec
        .entries
        .retain(|entry| !entry.shares.is_empty());
    let found = plan::check(&province.world, &plan);
    let stray = |finding: &Finding| matches!(finding, Finding::Policy(at, ..) if at == "quzhou-a");
    assert!(found.iter().any(stray), "{found:?}");
}

#[test]
fn the_judge_finds_shares_beyond_the_limit_of_a_region_and_none_in_two_regions() {
    let mut province = Province::cities()
        .with_cluster(cluster("hangzhou-b", "hangzhou"))
        .with_cores("hangzhou-a", 4)
        .with_cores("hangzhou-b", 2)
        .with(
            routed("web")
                .replicas(5, "Duplicate")
                .within(&["hangzhou", "ningbo"]),
        )
        .with_policy("web", &["web"], &json!({"rateLimits": of_region(100)}));
    province.turn();
    let mut plan = province.plan();
    assert_eq!(plan::check(&province.world, &plan), []);
    overshare(&mut plan);
    let found = plan::check(&province.world, &plan);
    assert!(matches!(found[..], [Finding::Overshared(..)]), "{found:?}");
}

#[test]
fn a_name_that_no_entry_can_have_parks_its_policy_alone() {
    let province = cities()
        .with_policy("web.v2", &["web"], &json!({}))
        .with_policy("web", &["web"], &json!({}))
        .settled();
    assert_eq!(province.protected_by("web.v2").len(), 0);
    let ready = province
        .policy_condition("web.v2", ConditionType::Ready)
        .unwrap();
    assert_eq!((ready.status, ready.reason), (FALSE, Reason::Invalid));
    assert!(ready.message.contains("another name"), "{}", ready.message);
    assert_eq!(province.protected_by("web").len(), 3);
}
