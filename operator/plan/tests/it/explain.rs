//! What `jiuzhou explain` says, for every yes and every no.

use crds::{DataGrade, Management, Zone};
use plan::province::Refusal;
use plan::report::{Answer, Hold, Left, Run, Share, Undecided, Whole, Why};
use serde_json::json;

use crate::province::{Province, app, cluster, region};

fn answer(province: &Province, app: &str, cluster: &str) -> Answer {
    let (_, report) = plan::plan(&province.world);
    let answers = report.apps[&province.uid(app)].answers(&province.world, &report.fleet);
    answers
        .into_iter()
        .find(|answer| answer.cluster.as_str() == cluster)
        .unwrap()
}

#[track_caller]
fn says(province: &Province, app: &str, cluster: &str, reason: &str, why: &str) {
    let answer = answer(province, app, cluster);
    assert_eq!(
        (answer.why.reason(), answer.why.to_string().as_str()),
        (reason, why)
    );
}

fn every_refusal() -> Vec<Refusal> {
    let all = vec![
        Refusal::ClusterParked,
        Refusal::RegionParked,
        Refusal::Deleting,
        Refusal::NotJoined,
        Refusal::IdentityChanged,
        Refusal::Duplicate,
        Refusal::HubRefused,
        Refusal::ObserveOnly,
        Refusal::Releasing,
        Refusal::OutsideRegions,
        Refusal::Level,
        Refusal::RegionLabels,
        Refusal::ClusterLabels,
        Refusal::Zone {
            has: Zone::Internet,
            needs: Zone::ExtranetPublic,
        },
        Refusal::Grade {
            has: DataGrade::General,
            needs: DataGrade::Core,
        },
        Refusal::Protection { has: 2, needs: 3 },
        Refusal::TenantRegions,
        Refusal::TenantZone {
            needs: Zone::Internet,
        },
        Refusal::TenantGrade {
            has: DataGrade::General,
            needs: DataGrade::Core,
        },
        Refusal::RegionClosed,
        Refusal::OutOfContact,
        Refusal::Returning,
        Refusal::Lost,
    ];
    // A new variant does not compile here until it stands in the list above.
    for refusal in &all {
        match refusal {
            Refusal::ClusterParked
            | Refusal::RegionParked
            | Refusal::Deleting
            | Refusal::NotJoined
            | Refusal::IdentityChanged
            | Refusal::Duplicate
            | Refusal::HubRefused
            | Refusal::ObserveOnly
            | Refusal::Releasing
            | Refusal::OutsideRegions
            | Refusal::Level
            | Refusal::RegionLabels
            | Refusal::ClusterLabels
            | Refusal::Zone { .. }
            | Refusal::Grade { .. }
            | Refusal::Protection { .. }
            | Refusal::TenantRegions
            | Refusal::TenantZone { .. }
            | Refusal::TenantGrade { .. }
            | Refusal::RegionClosed
            | Refusal::OutOfContact
            | Refusal::Returning
            | Refusal::Lost => {}
        }
    }
    all
}

/// Every reason; for those that carry a refusal one of them.
fn every_why() -> Vec<Why> {
    let left = Left {
        known: true,
        cpu: Some(1500),
        more: Some(0),
    };
    let run = |hold: Hold| {
        Why::Runs(Box::new(Run {
            share: Share {
                count: Some(4),
                of: Some(Whole {
                    total: 12,
                    division: crds::Division::Even,
                    at_most: true,
                }),
            },
            hold,
            left,
            state: crds::ReportState::Healthy,
            message: None,
        }))
    };
    let parked = Undecided::Parked("spec.zone is wrong".to_owned());
    let mut all = vec![
        run(Hold::Chosen),
        run(Hold::Kept),
        run(Hold::Resized { from: 2 }),
        run(Hold::Stays(Refusal::OutOfContact)),
        run(Hold::Frozen(Refusal::ClusterParked)),
        run(Hold::Irreplaceable(Refusal::Level)),
        run(Hold::Undecided(Undecided::Unheld)),
        Why::Leaves(None),
        Why::Leaves(Some(Refusal::Level)),
        Why::Removing,
        Why::Releasing,
        Why::NoRoom(left),
        Why::NoRoom(Left::default()),
        Why::NoWeight,
        Why::EnoughRegions,
        Why::RegionServed,
        Why::TooFewRegions {
            found: 1,
            needed: 2,
        },
        Why::Predecessor,
        Why::Satisfied,
        Why::Undecided(parked),
        Why::Undecided(Undecided::Deleting),
    ];
    all.extend(every_refusal().into_iter().map(Why::Refused));
    all
}

#[test]
fn every_refusal_is_one_sentence_that_names_the_field_and_the_next_step() {
    for refusal in every_refusal() {
        let text = refusal.to_string();
        let (so, next) = text.split_once(": ").unwrap();
        assert!(!so.is_empty() && !next.is_empty(), "{text}");
        let field = ["spec.", "status.", "metadata.", "--"];
        assert!(field.iter().any(|field| text.contains(field)), "{text}");
        assert!(!text.contains(". ") && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn no_reason_shows_what_only_programmers_read() {
    let mut words = std::collections::BTreeSet::new();
    for why in every_why() {
        let text = why.to_string();
        assert!(!text.is_empty());
        for debris in ['"', '{', '}', '[', ']', '\n'] {
            assert!(!text.contains(debris), "{text}");
        }
        for debris in ["Some(", "None", "Ok(", "Err(", "  ", "; ;"] {
            assert!(!text.contains(debris), "{text}");
        }
        words.insert(why.reason());
        assert!(why.reason().chars().all(char::is_alphabetic), "{text}");
    }
    // Two of them share a word only where a program need not tell them apart: the room of a cluster
    // that is full or not known, and two reasons of leaving.
    assert_eq!(words.len(), every_why().len() - 2);
}

#[test]
fn what_is_kept_says_its_share_and_the_room_beside_it() {
    let province = Province::cities()
        .with(app("web").replicas(12, "Even"))
        .settled();
    says(
        &province,
        "web",
        "ningbo-a",
        "Kept",
        "4 of 12 replicas by Even; kept, as nothing moves by itself; room for 96 more, 96 cores \
         free; Healthy",
    );
    let answer = answer(&province, "web", "ningbo-a");
    assert_eq!((answer.count, answer.score), (Some(4), Some(960)));
}

#[test]
fn what_is_chosen_now_says_so() {
    let mut province = Province::cities().settled();
    province.create(app("web").replicas(5, "Duplicate").at_most(1));
    let (_, report) = plan::plan(&province.world);
    let answers = report.apps[&province.uid("web")].answers(&province.world, &report.fleet);
    assert_eq!(
        answers[0].why.to_string(),
        "5 replicas, as in every Region (Duplicate); chosen now; room for 100 more, 100 cores \
         free; Pending"
    );
    assert_eq!(
        answers[1].why.to_string(),
        "qualifies, but the Regions used make up spec.placement.maxRegions: raise that to use more"
    );
}

#[test]
fn another_number_of_replicas_says_what_there_was() {
    let mut province = Province::cities()
        .with(app("web").replicas(3, "Even"))
        .settled();
    province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 6);
    says(
        &province,
        "web",
        "quzhou-a",
        "Resized",
        "2 of 6 replicas by Even; kept, with 1 replica until now; room for 99 more, 99 cores \
         free; Progressing",
    );
}

#[test]
fn an_autoscaled_app_says_the_most_it_may_run() {
    let province = Province::cities()
        .with(app("web").scaling(3, 9, "Even"))
        .settled();
    let why = answer(&province, "web", "quzhou-a").why.to_string();
    assert!(
        why.starts_with("at most 3 of 9 replicas by Even; kept"),
        "{why}"
    );
}

#[test]
fn what_the_manifests_decide_says_so() {
    let province = Province::cities().with(app("web")).settled();
    says(
        &province,
        "web",
        "quzhou-a",
        "Kept",
        "as its manifests say; kept, as nothing moves by itself; 99 cores free; Healthy",
    );
}

#[test]
fn what_is_out_of_contact_stays_and_takes_nothing_new() {
    let mut province = Province::cities()
        .with(app("old").replicas(2, "Duplicate"))
        .settled();
    province.cut_off("ningbo-a");
    province.create(app("new"));
    province.settle();
    let why = "it is out of contact: Reachable in its status.conditions says since when; check its \
               agent and the line";
    says(&province, "new", "ningbo-a", "OutOfContact", why);
    let kept = format!(
        "2 replicas, as in every Region (Duplicate); kept although {why}; room for 98 more, 98 \
         cores free; Healthy"
    );
    says(&province, "old", "ningbo-a", "Stays", &kept);
}

#[test]
fn what_is_frozen_says_why() {
    let mut province = Province::cities()
        .with(app("web").replicas(3, "Even"))
        .settled();
    let mut parked = cluster("ningbo-a", "ningbo");
    parked["spec"]["connection"] = json!({});
    parked["metadata"]["generation"] = json!(2);
    province.put_cluster(parked);
    province.settle();
    let why = answer(&province, "web", "ningbo-a").why;
    assert_eq!(why.reason(), "Frozen");
    let text = why.to_string();
    assert!(
        text.contains("frozen as it is because it is parked: its status.conditions name"),
        "{text}"
    );
}

#[test]
fn what_must_leave_says_why_and_until_when_it_stays() {
    let mut province = Province::cities()
        .with(app("web").replicas(2, "Capacity").at_most(1))
        .settled();
    let home = province.clusters_of("web")[0].clone();
    province.edit_cluster(&home, |c| c.spec.zone = Zone::Internet);
    let zone = "its spec.zone is Internet and the App's is ExtranetPublic: the two have to be the \
                same";
    let why = format!("runs there until what replaces it is healthy; it leaves because {zone}");
    says(&province, "web", &home, "Leaving", &why);
    for other in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        province.edit_cluster(other, |c| c.spec.zone = Zone::Internet);
    }
    let text = answer(&province, "web", &home).why.to_string();
    assert!(
        text.contains(&format!(
            "kept, as too few other clusters could take it, although {zone}"
        )),
        "{text}"
    );
}

#[test]
fn what_is_released_says_so_before_its_agent_answers() {
    let mut province = Province::cities().with(app("web")).settled();
    province.edit_cluster("ningbo-a", |c| c.spec.management = Management::Release);
    says(
        &province,
        "web",
        "ningbo-a",
        "Releasing",
        "let go as it is, since spec.management of its MemberCluster is Release",
    );
}

#[test]
fn refusals_say_what_the_cluster_has_and_what_the_app_asks_for() {
    let mut province = Province::cities();
    province.edit_cluster("ningbo-a", |c| c.spec.max_data_grade = DataGrade::General);
    province.edit_cluster("quzhou-a", |c| c.spec.protection_level = 2);
    let draft = app("web")
        .set("/dataGrade", json!("Important"))
        .set("/protectionLevel", json!(3));
    let province = province.with(draft).settled();
    says(
        &province,
        "web",
        "ningbo-a",
        "Grade",
        "its spec.maxDataGrade is General and the App's spec.dataGrade is Important: raise the \
         first if it may hold such data",
    );
    says(
        &province,
        "web",
        "quzhou-a",
        "Protection",
        "its spec.protectionLevel is 2 and the App's is 3: raise the first once it is certified \
         for that",
    );
}

#[test]
fn a_level_that_is_left_out_names_the_field_of_the_app() {
    let draft = app("web").set("/placement/regions/levels", json!(["City"]));
    let province = Province::example().with(draft).settled();
    says(
        &province,
        "web",
        "yuhang-a",
        "Level",
        "the App's spec.placement.regions.levels leaves out the spec.level of its Region: add that \
         level",
    );
}

#[test]
fn a_full_cluster_says_how_little_is_left() {
    let mut province = Province::cities().with_cores("ningbo-a", 1);
    province.create(app("web").replicas(2, "Duplicate").cores("2"));
    let province = province.settled();
    says(
        &province,
        "web",
        "ningbo-a",
        "NoRoom",
        "qualifies, but not one replica fits (room for 0 more, 1 core free): lower the requests \
         in spec.manifests or add nodes there",
    );
}

#[test]
fn a_settled_app_still_says_why_other_regions_have_nothing() {
    let weights = app("weighted").weighted(9, &[("hangzhou", 2), ("ningbo", 1)]);
    let one = app("one").replicas(3, "Capacity").at_most(1);
    let province = Province::cities()
        .with_cluster(cluster("ningbo-b", "ningbo"))
        .with(weights)
        .with(one)
        .with(app("plain"))
        .settled();
    let reason = |app: &str, cluster: &str| answer(&province, app, cluster).why.reason();
    assert_eq!(reason("weighted", "quzhou-a"), "NoWeight");
    let elsewhere = ["hangzhou-a", "ningbo-a", "quzhou-a"];
    let refused = elsewhere
        .iter()
        .filter(|c| reason("one", c) == "EnoughRegions");
    assert!(refused.count() >= 1);
    let twins = [reason("plain", "ningbo-a"), reason("plain", "ningbo-b")];
    assert!(
        twins.contains(&"RegionServed") && twins.contains(&"Kept"),
        "{twins:?}"
    );
}

#[test]
fn too_few_regions_are_counted_for_those_that_would_do() {
    let province = Province::cities()
        .with(app("web").within(&["ningbo"]).at_least(2))
        .settled();
    says(
        &province,
        "web",
        "ningbo-a",
        "TooFewRegions",
        "qualifies, but 1 of the 2 Regions that spec.placement.minRegions asks for qualify and \
         have room: lower that or admit more Regions",
    );
}

#[test]
fn an_app_for_which_nothing_is_decided_says_that_everywhere() {
    let mut province = Province::cities()
        .with_region(region("other", "City", "331000", Some("zhejiang")))
        .with(app("web").within(&["ningbo"]))
        .settled();
    province.create(app("unheld").without_finalizer());
    let unheld = "nothing is placed: the hub has not put its finalizer into metadata.finalizers \
                  of the App yet";
    says(&province, "unheld", "quzhou-a", "AppUnheld", unheld);
    province.edit("web", |spec| {
        spec.manifests[0]["kind"] = json!("Pod");
    });
    let parked = answer(&province, "web", "ningbo-a").why;
    assert_eq!(parked.reason(), "AppParked");
    assert!(
        parked
            .to_string()
            .contains("kept as it is: the App is parked: spec.manifests"),
        "{parked}"
    );
    let elsewhere = answer(&province, "web", "quzhou-a").why.to_string();
    assert!(
        elsewhere.starts_with("nothing is placed: the App is parked: "),
        "{elsewhere}"
    );
}

#[test]
fn an_app_that_is_deleted_no_longer_claims_to_have_all_it_asks_for() {
    let mut province = Province::cities()
        .with(app("web").within(&["ningbo"]))
        .settled();
    province.silence("ningbo-a");
    province.delete("web");
    province.settle();
    says(
        &province,
        "web",
        "ningbo-a",
        "Removing",
        "removed; its agent has not acknowledged that yet",
    );
    says(
        &province,
        "web",
        "quzhou-a",
        "AppDeleting",
        "nothing is placed: the App is being deleted",
    );
}
