//! What Quotas are charged for an App in one cluster: its replicas, those that a rolling update adds for
//! a while, and everything else it has there.

use std::collections::BTreeMap;

use crds::{Charge, Quantity, Surge};

use crate::amount::{Resources, format_amount, parse_quantity};

/// What an App declares to serve: a rolling update adds pods, but promises no more to anybody.
pub(crate) const REQUESTS_PER_SECOND: &str = "requestsPerSecond";

/// What a container is given, and charged for, that does not say what it requests: in the namespaces of
/// tenants with Quotas a LimitRange says so.
pub(crate) const DEFAULT_REQUESTS: [(&str, i64); 2] = [("cpu", 100), ("memory", 128 << 20)];

/// What Quotas are charged, as numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Charges {
    /// For each replica.
    pub each: Resources,
    /// For everything else.
    pub fixed: Resources,
    /// For each node. Quotas are charged for one, since the number of nodes is not the tenant's to decide.
    pub node: Resources,
    /// Replicas that a rolling update adds.
    pub surge: Surge,
}

/// Replicas that a rolling update adds to so many.
pub(crate) fn surge_of(surge: Surge, replicas: i64) -> i64 {
    if replicas <= 0 {
        return 0;
    }
    let percent = i64::from(surge.percent);
    (replicas * percent + 99) / 100 + i64::from(surge.count)
}

impl Charges {
    /// What an entry says.
    pub fn of(charge: &Charge) -> Self {
        let amounts = |map: &BTreeMap<String, Quantity>| {
            let mut sum = Resources::default();
            for (name, quantity) in map {
                if let Some(amount) = parse_quantity(name, &quantity.0) {
                    sum.set(name, amount);
                }
            }
            sum
        };
        Self {
            each: amounts(&charge.each),
            fixed: amounts(&charge.fixed),
            node: amounts(&charge.node),
            surge: charge.surge,
        }
    }

    /// The charge as an entry says it.
    pub fn to_charge(&self) -> Charge {
        let amounts = |resources: &Resources| {
            let some = resources.iter().filter(|(_, amount)| *amount > 0);
            let text = |(name, amount): (&str, i64)| {
                (name.to_owned(), Quantity(format_amount(name, amount)))
            };
            some.map(text).collect()
        };
        Charge {
            each: amounts(&self.each),
            fixed: amounts(&self.fixed),
            node: amounts(&self.node),
            surge: self.surge,
        }
    }

    /// The larger of two in every part.
    #[must_use]
    pub fn at_least(&self, other: &Self) -> Self {
        Self {
            each: self.each.at_least(&other.each),
            fixed: self.fixed.at_least(&other.fixed),
            node: self.node.at_least(&other.node),
            surge: Surge {
                percent: self.surge.percent.max(other.surge.percent),
                count: self.surge.count.max(other.surge.count),
            },
        }
    }

    /// What so many replicas are charged.
    pub fn at(&self, replicas: i32) -> Resources {
        let replicas = i64::from(replicas.max(0));
        let surge = surge_of(self.surge, replicas);
        let mut sum = self.fixed.clone();
        sum.add(&self.node, 1);
        sum.add(&self.each, replicas + surge);
        let served = self.each.get(REQUESTS_PER_SECOND);
        if served > 0 {
            let more = sum.get(REQUESTS_PER_SECOND) - served.saturating_mul(surge);
            sum.set(REQUESTS_PER_SECOND, more);
        }
        sum
    }

    /// The most replicas for which not more than `amount` of a resource is charged, fixed parts left out.
    pub(crate) fn most(&self, resource: &str, amount: i64) -> i64 {
        let each = self.each.get(resource);
        if each <= 0 {
            return i64::MAX;
        }
        let pods = amount.max(0) / each;
        if resource == REQUESTS_PER_SECOND {
            return pods;
        }
        // n + ceil(n * percent / 100) + count <= pods
        let whole = (pods - i64::from(self.surge.count)).max(0);
        whole.saturating_mul(100) / (100 + i64::from(self.surge.percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charges(percent: i32, count: i32) -> Charges {
        let (mut each, mut fixed) = (Resources::default(), Resources::default());
        each.set("cpu", 500);
        each.set(REQUESTS_PER_SECOND, 400);
        fixed.set("services", 1);
        Charges {
            each,
            fixed,
            node: Resources::default(),
            surge: Surge { percent, count },
        }
    }

    #[test]
    fn a_rolling_update_is_charged_ahead_and_promises_no_more_requests() {
        let sum = charges(25, 0).at(10);
        assert_eq!(sum.get("cpu"), 13 * 500);
        assert_eq!(sum.get(REQUESTS_PER_SECOND), 4000);
        assert_eq!(sum.get("services"), 1);
        assert_eq!(charges(25, 0).at(0).get("cpu"), 0);
    }

    #[test]
    fn the_most_replicas_are_those_whose_charge_fits_and_one_more_does_not() {
        for charges in [
            charges(25, 0),
            charges(0, 0),
            charges(0, 2),
            charges(100, 1),
        ] {
            for amount in (0..40_000).step_by(250) {
                let most = charges.most("cpu", amount);
                let due = |n: i64| charges.at(i32::try_from(n).unwrap()).get("cpu");
                assert!(most == 0 || due(most) <= amount, "{charges:?} {amount}");
                assert!(due(most + 1) > amount, "{charges:?} {amount}");
            }
        }
    }

    #[test]
    fn a_charge_is_read_as_it_was_written() {
        let charges = charges(25, 1);
        assert_eq!(Charges::of(&charges.to_charge()), charges);
    }
}
