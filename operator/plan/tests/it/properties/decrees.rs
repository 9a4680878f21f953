//! What people decide about Quotas and budgets, and whether it holds.

use crds::Uid;
use proptest::prelude::*;
use serde_json::json;

use super::{History, REGIONS, TENANTS};
use crate::province::grants::limits;

/// A decision about who may use what.
#[derive(Clone, Debug)]
pub(super) enum Decree {
    Budget {
        region: usize,
        cores: i32,
    },
    Grant {
        tenant: usize,
        region: usize,
        nominal: i32,
        borrowing: i32,
        lending: i32,
    },
    Revoke {
        tenant: usize,
        region: usize,
        proper: bool,
    },
}

pub(super) fn decree() -> impl Strategy<Value = Decree> {
    let (tenant, region) = (|| 0..2usize, || 0..5usize);
    let grant = (tenant(), region(), 0..30i32, 0..10i32, 0..=100i32);
    prop_oneof![
        1 => (region(), 5..60i32).prop_map(|(region, cores)| Decree::Budget { region, cores }),
        4 => grant.prop_map(|(tenant, region, nominal, borrowing, percent)| {
            let lending = nominal * percent / 100;
            Decree::Grant { tenant, region, nominal, borrowing, lending }
        }),
        2 => (tenant(), region(), prop::bool::weighted(0.8))
            .prop_map(|(tenant, region, proper)| Decree::Revoke { tenant, region, proper }),
    ]
}

impl History {
    pub(super) fn decree(&mut self, decree: &Decree) {
        match decree {
            Decree::Budget { region, cores } => {
                let budget = json!([{"name": "cpu", "quantity": cores.to_string()}]);
                self.province.edit_region(REGIONS[*region], |region| {
                    region.spec.budget = serde_json::from_value(budget).unwrap();
                });
            }
            Decree::Grant {
                tenant,
                region,
                nominal,
                borrowing,
                lending,
            } => self.grant(*tenant, *region, [*nominal, *borrowing, *lending]),
            Decree::Revoke {
                tenant,
                region,
                proper,
            } => self.revoke(*tenant, *region, *proper),
        }
    }

    fn grant(&mut self, tenant: usize, region: usize, [nominal, borrowing, lending]: [i32; 3]) {
        let (home, name) = TENANTS[tenant];
        let there = self.province.namespace(home);
        let closed = there.is_some_and(|there| there.clearing);
        let key = (home.into(), format!("{name}.{}", REGIONS[region]).into());
        let known = self.province.quotas.get(&key);
        let goes = known.is_some_and(|quota| quota.metadata.deletion_timestamp.is_some());
        let place = home == "jiuzhou-system" || there.is_some();
        if !closed && !goes && place {
            let text = |n: i32| n.to_string();
            let grant = limits("cpu", &text(nominal), &text(borrowing), &text(lending));
            self.province
                .set_quota(home, name, REGIONS[region], &[grant]);
        }
    }

    fn revoke(&mut self, tenant: usize, region: usize, proper: bool) {
        let (home, tenant) = TENANTS[tenant];
        let name = format!("{tenant}.{}", REGIONS[region]);
        let Some(quota) = self
            .province
            .quotas
            .get(&(home.into(), name.as_str().into()))
        else {
            return;
        };
        let goes = quota.metadata.deletion_timestamp.is_some();
        if proper && !goes {
            self.province.delete_quota(home, &name);
        } else if !proper {
            self.province.lose_quota(home, &name);
        }
    }

    /// What is in force, and for whom.
    pub(super) fn rules(&self) -> (Vec<crds::QuotaLedgerSpec>, Vec<Option<Uid>>) {
        let ledgers = self.province.quota_ledgers.values();
        let owner = |name: &str| self.province.namespace(name)?.owner.clone();
        (
            ledgers.map(|ledger| ledger.spec.clone()).collect(),
            ["tax", "tax-audit"].map(owner).to_vec(),
        )
    }
}
