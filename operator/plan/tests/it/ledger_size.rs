//! A Region's ledger is one object of the store, which holds only so much.

use crds::Reason;
use plan::province::QuotaStanding;
use serde_json::{Value, json};

use crate::province::Province;
use crate::province::grants::grant;

const ROOT: &str = "jiuzhou-system";
/// More than a ledger holds, each with as many resources as a Quota may list.
const TENANTS: usize = 260;
const RESOURCES: usize = 32;

fn many(cpu: &str) -> Vec<Value> {
    let devices = (1..RESOURCES).map(|n| {
        let name = format!("devices.example/kind-of-device-number-{n}");
        grant(&name, "1")
    });
    std::iter::once(grant("cpu", cpu)).chain(devices).collect()
}

fn crowded(first: &str) -> Province {
    let mut province = Province::cities().with_budget("hangzhou", &[("cpu", "10")]);
    let names: Vec<String> = (0..TENANTS).map(|n| format!("t{n:03}")).collect();
    for name in &names {
        province = province.with_tenant(ROOT, name, &json!({}));
    }
    province.settle();
    for (n, name) in names.iter().enumerate() {
        let cpu = if n == 0 { first } else { "0" };
        province = province.with_quota(ROOT, name, "hangzhou", &many(cpu));
    }
    province.settle();
    province
}

/// How many Quotas are in force, and how many have no place.
fn counts(province: &Province) -> (usize, usize) {
    let (_, report) = plan::plan(&province.world);
    let full = report.quotas.standings.values().filter(|standing| {
        matches!(standing, QuotaStanding::Refused(parked) if parked.reason == Reason::LedgerFull)
    });
    let ledger = province.world.quota_ledger(&"hangzhou".into()).unwrap();
    (ledger.grants.len(), full.count())
}

#[test]
fn a_full_ledger_takes_no_more_and_what_is_refused_takes_no_place() {
    let province = crowded("1");
    let (held, full) = counts(&province);
    assert!(full > 0, "{held} are in force");
    assert_eq!(held + full, TENANTS);
    let last = province.quota_status(ROOT, "t259.hangzhou");
    assert_eq!(last.conditions[0].reason, Reason::LedgerFull);
    // The first of them asks for more than there is.
    let (other, _) = counts(&crowded("100"));
    assert_eq!(other, held, "the next one has the place of the first");
}
