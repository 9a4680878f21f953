//! Every Region has a ledger of its own, and of those that one turn writes any may be stored without the
//! others: whatever is, no more is granted on than there is.

use std::collections::BTreeSet;

use plan::province::{Plan, QuotaWrite};
use serde_json::{Value, json};

use crate::province::Province;
use crate::province::grants::{grant, of, replicas};

const ROOT: &str = "jiuzhou-system";

fn cpu(nominal: &str) -> Vec<Value> {
    vec![grant("cpu", nominal)]
}

/// Tax has 20 cores in the province, and gave 15 of them on in Hangzhou and 5 in Ningbo.
fn divided() -> Province {
    Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "zhejiang", &cpu("20"))
        .with_tenant("tax", "audit", &json!({}))
        .with_tenant("tax", "payroll", &json!({}))
        .settled()
        .with_quota("tax", "audit", "hangzhou", &cpu("15"))
        .with_quota("tax", "payroll", "ningbo", &cpu("5"))
        .settled()
}

/// Regions whose ledgers a plan writes.
fn ledgers(plan: &Plan) -> BTreeSet<String> {
    let writes = plan.quotas.iter();
    let regions = writes.filter_map(|write| match write {
        QuotaWrite::Ledger { region, .. } => Some(region.to_string()),
        QuotaWrite::Hold(..) | QuotaWrite::Release(..) => None,
    });
    regions.collect()
}

/// The Regions whose ledgers are written, turn by turn, until all is in force.
fn turns(province: &mut Province) -> Vec<BTreeSet<String>> {
    let mut turns = Vec::new();
    for _ in 0..10 {
        let plan = province.plan();
        turns.push(ledgers(&plan));
        province.carry_out(&plan);
    }
    province.settle();
    turns.retain(|turn| !turn.is_empty());
    turns
}

#[track_caller]
fn has(province: &Province, name: &str, amount: &str) {
    let status = province.quota_status("tax", name);
    let nominal = &status.resources[0].nominal.0;
    assert_eq!(nominal, amount, "{name}: {:?}", status.conditions);
}

#[test]
fn what_a_cut_frees_in_one_region_is_granted_in_another_once_the_cut_is_stored() {
    let mut province = divided();
    province.set_quota("tax", "audit", "hangzhou", &cpu("10"));
    province.set_quota("tax", "payroll", "ningbo", &cpu("10"));
    let turns = turns(&mut province);
    let one = |region: &str| BTreeSet::from([region.to_owned()]);
    assert_eq!(turns, [one("hangzhou"), one("ningbo")]);
    has(&province, "audit.hangzhou", "10");
    has(&province, "payroll.ningbo", "10");
}

#[test]
fn more_is_granted_on_once_the_grant_above_is_stored_with_more_and_cut_once_what_is_below_is_less()
{
    let mut province = divided();
    province.set_quota(ROOT, "tax", "zhejiang", &cpu("30"));
    province.set_quota("tax", "payroll", "ningbo", &cpu("15"));
    let one = |region: &str| BTreeSet::from([region.to_owned()]);
    assert_eq!(turns(&mut province), [one("zhejiang"), one("ningbo")]);
    has(&province, "payroll.ningbo", "15");
    province.set_quota(ROOT, "tax", "zhejiang", &cpu("20"));
    province.set_quota("tax", "payroll", "ningbo", &cpu("5"));
    assert_eq!(turns(&mut province), [one("ningbo"), one("zhejiang")]);
}

#[test]
fn what_waits_for_a_cut_elsewhere_keeps_its_place_before_those_who_came_later() {
    let mut province = divided();
    province.set_quota("tax", "audit", "hangzhou", &cpu("10"));
    province.set_quota("tax", "payroll", "ningbo", &cpu("10"));
    let mut province = province
        .with_tenant("tax", "stamps", &json!({}))
        .with_quota("tax", "stamps", "hangzhou", &cpu("5"))
        .settled();
    has(&province, "payroll.ningbo", "10");
    // Once there is room it comes as well.
    province.set_quota("tax", "audit", "hangzhou", &cpu("5"));
    province.settle();
    has(&province, "stamps.hangzhou", "5");
}

#[test]
fn a_grant_between_two_others_counts_once_it_is_stored() {
    let province = divided()
        .with_quota(ROOT, "tax", "ningbo", &cpu("50"))
        .with_quota("tax", "payroll", "ningbo", &cpu("40"));
    let mut province = province;
    // Its first turn holds the new one.
    let plan = province.plan();
    assert!(ledgers(&plan).is_empty());
    province.carry_out(&plan);
    let plan = province.plan();
    let grants: Vec<_> = plan
        .quotas
        .iter()
        .filter_map(|write| match write {
            QuotaWrite::Ledger { grants, .. } => Some(grants),
            QuotaWrite::Hold(..) | QuotaWrite::Release(..) => None,
        })
        .flatten()
        .map(|grant| {
            (
                grant.namespace.to_string(),
                grant.resources[0].nominal.0.clone(),
            )
        })
        .collect();
    let before = ("tax-payroll".to_owned(), "5".to_owned());
    assert_eq!(grants, [("tax".to_owned(), "50".to_owned()), before]);
    province.settle();
    has(&province, "payroll.ningbo", "40");
}

#[test]
fn a_grant_that_takes_others_in_waits_until_those_that_go_are_gone() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota(
            "tax",
            "audit",
            "hangzhou",
            &[grant("cpu", "15"), grant("pods", "1")],
        )
        .with_quota(ROOT, "tax", "zhejiang", &[grant("pods", "9")])
        .settled();
    province.set_quota("tax", "audit", "hangzhou", &[grant("pods", "1")]);
    let few = [grant("cpu", "5"), grant("pods", "9")];
    province.set_quota(ROOT, "tax", "zhejiang", &few);
    let one = |region: &str| BTreeSet::from([region.to_owned()]);
    assert_eq!(turns(&mut province), [one("hangzhou"), one("zhejiang")]);
}

/// Tax with so many cores by Region, of which it gave some on to audit in one.
fn audited(tax: &[(&str, &str)], (region, cores): (&str, &str)) -> Province {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled();
    for (region, cores) in tax {
        province = province.with_quota(ROOT, "tax", region, &cpu(cores));
    }
    province
        .with_tenant("tax", "audit", &json!({}))
        .settled()
        .with_quota("tax", "audit", region, &cpu(cores))
        .settled()
}

#[test]
fn while_its_ledger_is_lost_an_inner_tenant_takes_no_more_of_the_one_above() {
    let mut province = audited(&[("zhejiang", "40")], ("hangzhou", "10"))
        .with(of("tax-audit", "web", 30, "Core"))
        .settled();
    let had = province.placed("web");
    province.world.remove_quota_ledger(&"hangzhou".into());
    let mut province = province.with(of("tax", "outer", 40, "Core"));
    province.turn();
    assert_eq!(province.placed("web"), had);
    // What it uses counts above meanwhile.
    assert_eq!(
        replicas(&province, "web") + replicas(&province, "outer"),
        40
    );
    province.settle();
    assert_eq!(province.placed("web"), had);
    has(&province, "audit.hangzhou", "10");
}

#[test]
fn what_an_inner_tenant_uses_counts_where_it_would_without_the_grant_that_is_lost() {
    let mut province = audited(&[("zhejiang", "40"), ("hangzhou", "20")], ("zhejiang", "8"))
        .with(of("tax-audit", "web", 8, "Core"))
        .settled();
    assert_eq!(replicas(&province, "web"), 8);
    province.world.remove_quota_ledger(&"zhejiang".into());
    let mut province = province.with(of("tax", "outer", 20, "Core"));
    province.turn();
    assert_eq!(replicas(&province, "outer"), 12);
    province.settle();
    assert_eq!(replicas(&province, "outer"), 20);
}

#[test]
fn what_was_carved_from_a_grant_that_is_lost_does_not_grow_either() {
    let mut province = audited(&[("zhejiang", "10")], ("hangzhou", "4"))
        .with(of("tax", "outer", 10, "Core"))
        .settled();
    assert_eq!(replicas(&province, "outer"), 10);
    province.world.remove_quota_ledger(&"zhejiang".into());
    let mut province = province.with(of("tax-audit", "web", 4, "General"));
    province.turn();
    assert_eq!(replicas(&province, "web"), 0);
}

#[test]
fn a_refused_quota_whose_ledger_is_lost_lets_nothing_grow_either() {
    let mut province = audited(&[("zhejiang", "40")], ("hangzhou", "10"));
    province.set_quota("tax", "audit", "hangzhou", &cpu("100"));
    province.settle();
    province.world.remove_quota_ledger(&"hangzhou".into());
    let mut province = province.with(of("tax-audit", "web", 20, "Core"));
    for _ in 0..5 {
        province.turn();
        assert_eq!(replicas(&province, "web"), 0);
    }
    province.set_quota("tax", "audit", "hangzhou", &cpu("15"));
    province.settle();
    assert_eq!(replicas(&province, "web"), 15);
}

#[test]
fn a_quota_whose_ledger_is_lost_says_what_was_in_force_until_it_is_written_again() {
    let mut province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "hangzhou", &cpu("40"))
        .settled();
    province.world.remove_quota_ledger(&"hangzhou".into());
    // The ledger is asked for, and cannot be stored.
    for _ in 0..3 {
        let mut plan = province.plan();
        assert_eq!(ledgers(&plan), BTreeSet::from(["hangzhou".to_owned()]));
        plan.quotas.clear();
        province.carry_out(&plan);
    }
    let status = province.quota_status(ROOT, "tax.hangzhou");
    assert_eq!(status.resources[0].nominal.0, "40");
    assert_eq!(status.cpu.as_deref(), Some("0/40"));
}
