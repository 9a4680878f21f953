//! The second judge: a plan broken by hand in each way, and what it says.

use std::collections::BTreeSet;

use crds::{Entry, EntryState, Management, NamespaceName, ReportState};
use plan::check;
use plan::check::Finding;
use plan::province::{Plan, SliceWrite, TenantWrite};
use plan::world::TenantRole;
use serde_json::json;

use crate::province::{Province, app};

/// The slice of a cluster as a plan would write it, broken as the test wants.
fn rewrite(province: &Province, cluster: &str, edit: impl FnOnce(&mut Vec<Entry>)) -> Plan {
    let state = province.world.slice(&cluster.into(), "a-0000").unwrap();
    let mut spec = state.header.clone();
    spec.entries = state
        .entries
        .iter()
        .map(|entry| (**entry).clone())
        .collect();
    // The App first, then what isolates its namespace.
    spec.entries.sort_by_key(|entry| !entry.scope.is_app());
    spec.sequence += 1;
    edit(&mut spec.entries);
    let write = SliceWrite {
        cluster: cluster.into(),
        name: "a-0000".into(),
        resource_version: Some(state.resource_version.clone()),
        spec,
    };
    Plan {
        slices: vec![write],
        ..Plan::default()
    }
}

fn web() -> Province {
    Province::cities()
        .with(app("web").replicas(6, "Even"))
        .settled()
}

#[track_caller]
fn finds(province: &Province, plan: &Plan, finding: impl Fn(&Finding) -> bool) {
    let findings = check(&province.world, plan);
    assert!(findings.iter().any(finding), "{findings:?}");
    assert!(
        findings
            .iter()
            .all(|finding| !finding.to_string().is_empty())
    );
}

#[test]
fn a_plan_as_it_was_made_has_no_finding() {
    let province = web();
    assert_eq!(
        check(&province.world, &rewrite(&province, "ningbo-a", |_| {})),
        []
    );
}

#[test]
fn what_no_tenants_state_allows() {
    let province = web()
        .with_tenant("jiuzhou-system", "tax", &json!({}))
        .settled();
    let (health, tax): (NamespaceName, NamespaceName) = ("health".into(), "tax".into());
    let uid = province.namespace("tax").unwrap().uid.clone();
    let (role, subjects) = (TenantRole::Admin, BTreeSet::new());
    for write in [
        TenantWrite::Own {
            namespace: health.clone(),
            tenant: "uid-1".into(),
            claims: Some("ns-health".into()),
        },
        TenantWrite::Own {
            namespace: tax.clone(),
            tenant: "uid-1".into(),
            claims: None,
        },
        TenantWrite::Bind {
            namespace: health,
            role,
            subjects,
        },
        TenantWrite::DeleteApp(province.uid("web")),
        TenantWrite::DeleteTenant(("jiuzhou-system".into(), "tax".into()), "uid-1".into()),
        TenantWrite::DeleteNamespace {
            namespace: tax.clone(),
            uid: uid.clone(),
        },
        TenantWrite::Clear {
            tenant: ("jiuzhou-system".into(), "tax".into()),
            tenant_uid: "uid-1".into(),
            namespace: tax,
            uid,
        },
    ] {
        let plan = Plan {
            tenants: vec![write],
            ..Plan::default()
        };
        finds(&province, &plan, |f| matches!(f, Finding::Tenant(..)));
    }
}

#[test]
fn an_app_where_its_tenant_may_not_be() {
    let province = Province::cities()
        .with_tenant("jiuzhou-system", "tax", &json!({"regions": ["ningbo"]}))
        .settled()
        .with(app("web").in_namespace("tax"))
        .settled();
    let mut plan = rewrite(&province, "ningbo-a", |_| {});
    plan.slices[0].cluster = "quzhou-a".into();
    finds(&province, &plan, |f| matches!(f, Finding::Forbidden(..)));
}

#[test]
fn an_app_twice_in_a_slice() {
    let province = web();
    let plan = rewrite(&province, "ningbo-a", |entries| {
        entries.push(entries[0].clone());
    });
    finds(&province, &plan, |f| matches!(f, Finding::Shape(..)));
}

#[test]
fn too_many_apps_in_a_slice() {
    let province = web();
    let plan = rewrite(&province, "ningbo-a", |entries| {
        let one = entries[0].clone();
        entries.extend((0..100).map(|n| Entry {
            uid: format!("u-{n}").into(),
            ..one.clone()
        }));
    });
    finds(&province, &plan, |f| matches!(f, Finding::Shape(..)));
}

#[test]
fn a_generation_that_goes_back_or_stays_although_something_changed() {
    let province = web();
    for step in [-1, 0] {
        let plan = rewrite(&province, "ningbo-a", |entries| {
            entries[0].generation += step;
            entries[0].stages.clear();
        });
        finds(&province, &plan, |f| matches!(f, Finding::Backwards(..)));
    }
}

#[test]
fn an_older_hub_leader_or_sequence() {
    let province = web();
    for field in 0..3 {
        let mut plan = rewrite(&province, "ningbo-a", |_| {});
        let spec = &mut plan.slices[0].spec;
        match field {
            0 => spec.hub_epoch -= 1,
            1 => spec.leader_epoch -= 1,
            _ => spec.sequence -= 2,
        }
        finds(&province, &plan, |f| matches!(f, Finding::OldHeader(..)));
    }
}

#[test]
fn an_entry_that_vanishes_without_an_acknowledgement() {
    let province = web();
    let plan = rewrite(&province, "ningbo-a", Vec::clear);
    finds(&province, &plan, |f| matches!(f, Finding::Vanished(..)));
}

fn removal(province: &Province) -> Plan {
    rewrite(province, "ningbo-a", |entries| {
        entries[0].state = EntryState::Removed;
        entries[0].generation += 1;
    })
}

#[test]
fn a_living_app_that_is_removed_from_where_it_may_stay() {
    let province = web();
    finds(&province, &removal(&province), |f| {
        matches!(f, Finding::Unasked(..))
    });
}

#[test]
fn a_vanished_app_that_is_removed() {
    let mut province = web();
    province.vanish("web");
    finds(&province, &removal(&province), |f| {
        matches!(f, Finding::Unasked(..))
    });
}

#[test]
fn a_removal_before_the_app_stands_elsewhere() {
    let mut province = web();
    province.world.lost.insert("ningbo".into());
    assert_eq!(
        check(&province.world, &removal(&province)),
        [],
        "the region is lost, the others are well"
    );
    province.bad.insert(province.wanted("web"));
    province.turn();
    province.turn();
    finds(&province, &removal(&province), |f| {
        matches!(f, Finding::Unasked(..))
    });
}

#[test]
fn a_removal_is_held_up_by_what_stays_and_not_by_what_leaves_as_well() {
    // Where it may not be any more, and where it is more than is asked for.
    for division in ["Duplicate", "Even"] {
        let mut province = Province::cities()
            .with(app("web").replicas(6, division))
            .settled();
        province.edit("web", |spec| {
            let placement = match division {
                "Duplicate" => json!({"regions": {"within": ["quzhou"]}}),
                _ => json!({"maxRegions": 1}),
            };
            spec.placement = serde_json::from_value(placement).unwrap();
        });
        let leaves = |plan: &Plan| -> Vec<String> {
            let removes = |write: &&SliceWrite| {
                let mut entries = write.spec.entries.iter();
                entries.any(|entry| entry.state == EntryState::Removed)
            };
            let writes = plan.slices.iter().filter(removes);
            writes.map(|write| write.cluster.to_string()).collect()
        };
        let mut plan = province.plan();
        for _ in 0..20 {
            if leaves(&plan).is_empty() {
                province.turn();
                province.world.now += 1_000;
                plan = province.plan();
            }
        }
        let [first, second] = &leaves(&plan)[..] else {
            panic!("it leaves two")
        };
        // The second slice was written a moment ago, and its next one waits; nothing was told of it yet.
        plan.slices.retain(|write| write.cluster.as_str() == first);
        unwell(&mut province, second);
        assert_eq!(check(&province.world, &plan), [], "{division}");
        for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
            unwell(&mut province, cluster);
        }
        finds(&province, &plan, |f| matches!(f, Finding::Unasked(..)));
    }
}

/// Lets a cluster tell that it is not done with anything.
fn unwell(province: &mut Province, cluster: &str) {
    let agent = province.agents.get_mut(cluster).unwrap();
    for report in agent.reports.values_mut() {
        report.state = ReportState::Progressing;
    }
    let told = agent.report();
    province.world.apply_report(&cluster.into(), told);
}

#[test]
fn a_removal_from_every_cluster_at_once() {
    let mut province = web();
    province
        .world
        .lost
        .extend(["ningbo".into(), "quzhou".into(), "hangzhou".into()]);
    let mut plan = Plan::default();
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        let one = rewrite(&province, cluster, |entries| {
            entries[0].state = EntryState::Removed;
            entries[0].generation += 1;
        });
        plan.slices.extend(one.slices);
    }
    finds(&province, &plan, |f| matches!(f, Finding::Unasked(..)));
}

/// A plan that puts `web`, which runs elsewhere, onto quzhou-a.
fn onto_quzhou(province: &Province) -> Plan {
    let entry = province.entry("web", "hangzhou-a").unwrap().clone();
    rewrite(province, "quzhou-a", |entries| {
        entries.push(Entry {
            generation: 100,
            ..entry
        });
    })
}

fn elsewhere() -> Province {
    Province::cities()
        .with(app("web").within(&["hangzhou"]))
        .settled()
}

#[test]
fn a_placement_that_zone_grade_or_level_forbid() {
    for field in ["zone", "grade", "level"] {
        let mut province = elsewhere();
        province.edit_cluster("quzhou-a", |c| c.spec.protection_level = 1);
        province.edit("web", |spec| match field {
            "zone" => spec.zone = crds::Zone::Internet,
            "grade" => spec.data_grade = crds::DataGrade::Core,
            _ => spec.protection_level = Some(2),
        });
        let plan = onto_quzhou(&province);
        finds(&province, &plan, |f| matches!(f, Finding::Forbidden(..)));
    }
}

#[test]
fn a_placement_where_nothing_may_be_applied() {
    let managements = [Management::Observe, Management::Release];
    for management in managements {
        let mut province = elsewhere();
        province.edit_cluster("quzhou-a", |c| c.spec.management = management);
        finds(&province, &onto_quzhou(&province), |f| {
            matches!(f, Finding::Unmanaged(..))
        });
    }
    let mut province = elsewhere();
    province.edit_report("quzhou-a", |r| r["spec"]["clusterUID"] = json!("another"));
    finds(&province, &onto_quzhou(&province), |f| {
        matches!(f, Finding::Unmanaged(..))
    });
    let mut province = elsewhere();
    province.delete_cluster("quzhou-a");
    finds(&province, &onto_quzhou(&province), |f| {
        matches!(f, Finding::Unmanaged(..))
    });
}

#[test]
fn a_placement_beside_an_earlier_app_of_the_same_name() {
    let province = elsewhere();
    let entry = province.entry("web", "hangzhou-a").unwrap().clone();
    let plan = rewrite(&province, "hangzhou-a", |entries| {
        entries.push(Entry {
            uid: "uid-new".into(),
            generation: 100,
            ..entry
        });
    });
    finds(&province, &plan, |f| matches!(f, Finding::Beside(..)));
}

#[test]
fn content_that_nothing_stores() {
    let province = web();
    let plan = rewrite(&province, "ningbo-a", |entries| {
        entries[0].content = "0".repeat(20).into();
        entries[0].pack = "c-nowhere".into();
        entries[0].generation += 1;
    });
    finds(&province, &plan, |f| matches!(f, Finding::NoContent(..)));
}

#[test]
fn content_that_is_collected_although_it_is_needed() {
    let province = web();
    let pack = province.entry("web", "ningbo-a").unwrap().pack.clone();
    let plan = Plan {
        collect: vec![pack.to_string()],
        ..Plan::default()
    };
    finds(&province, &plan, |f| matches!(f, Finding::Collected(..)));
}

#[test]
fn an_app_that_is_let_go_while_it_is_present() {
    let province = web();
    let plan = Plan {
        releases: vec![province.uid("web")],
        ..Plan::default()
    };
    finds(&province, &plan, |f| matches!(f, Finding::Released(..)));
}

#[test]
fn a_deleted_app_may_be_removed_anywhere() {
    let mut province = web();
    province.delete("web");
    assert_eq!(check(&province.world, &removal(&province)), []);
}
