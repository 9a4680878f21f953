//! A rate for the province as a whole, divided over clusters so that the parts never exceed it.

use std::collections::BTreeMap;

use crds::{LimitScope, LimitShare, RateLimit, RuleName, TrafficPolicySpec};

use super::At;

/// Most periods of a rule that a share may be spread over: enough for 4096 clusters where a period lets a
/// single request pass. A power of two, so that shares of all lengths add up exactly.
pub(crate) const PERIODS_MAX: i64 = 4096;
/// The longest that periods of a share last together, in milliseconds: what a policy may say at most.
const SPREAD_MAX: i64 = 24 * 3_600_000;

/// Rules of a policy that hold for the province as a whole.
fn of_province(spec: &TrafficPolicySpec) -> impl Iterator<Item = &RateLimit> {
    let limits = spec.rate_limits.iter();
    limits.filter(|limit| limit.scope == LimitScope::Province)
}

/// A share in parts of a request per period, of which each request in one period is [`PERIODS_MAX`].
pub(crate) fn parts(share: &LimitShare) -> i64 {
    share.requests * (PERIODS_MAX / share.periods.clamp(1, PERIODS_MAX))
}

/// The shares of clusters with that many replicas, in the order of the rules. All clusters of no replicas
/// count alike.
pub(super) fn divide(
    spec: &TrafficPolicySpec,
    weights: &BTreeMap<At, u64>,
) -> BTreeMap<At, Vec<LimitShare>> {
    let mut shares: BTreeMap<At, Vec<LimitShare>> =
        weights.keys().map(|at| (*at, Vec::new())).collect();
    let all: Vec<u64> = weights.values().copied().collect();
    for limit in of_province(spec) {
        let periods = periods(limit, all.len());
        let requests = portions(limit.rate.requests * periods, &all);
        let bursts = limit.burst.map(|burst| portions(burst, &all));
        for (n, mine) in shares.values_mut().enumerate() {
            mine.push(LimitShare {
                name: limit.name.clone(),
                requests: requests[n],
                periods,
                burst: bursts.as_ref().map(|bursts| bursts[n]),
            });
        }
    }
    shares
}

/// Over how many periods a rate has to be spread so that each of these clusters gets a request.
fn periods(limit: &RateLimit, clusters: usize) -> i64 {
    let clusters = i64::try_from(clusters).unwrap_or(i64::MAX);
    let per = limit.rate.per.millis().unwrap_or(SPREAD_MAX).max(1);
    let mut periods = 1;
    while limit.rate.requests * periods < clusters
        && periods < PERIODS_MAX
        && per * periods * 2 <= SPREAD_MAX
    {
        periods *= 2;
    }
    periods
}

/// Divides a number by weights, by largest remainders, with at least 1 for each. The portions sum to the
/// number wherever it is as large as they are many.
fn portions(total: i64, weights: &[u64]) -> Vec<i64> {
    let none = weights.iter().all(|weight| *weight == 0);
    let weight = |at: usize| i128::from(if none { 1 } else { weights[at] });
    let sum: i128 = (0..weights.len()).map(weight).sum();
    let exact = |at: usize| i128::from(total) * weight(at);
    let mut portions: Vec<i64> = (0..weights.len())
        .map(|at| i64::try_from(exact(at) / sum).unwrap_or(0))
        .collect();
    let mut left = total - portions.iter().sum::<i64>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(exact(*at) % sum), *at));
    for at in order {
        if left > 0 {
            portions[at] += 1;
            left -= 1;
        }
    }
    for at in 0..portions.len() {
        if portions[at] > 0 {
            continue;
        }
        portions[at] = 1;
        let richest = (0..portions.len()).rev().max_by_key(|at| portions[*at]);
        if let Some(richest) = richest.filter(|at| portions[*at] > 1) {
            portions[richest] -= 1;
        }
    }
    portions
}

/// What of each rate is not given to any cluster by what is stored. Writes to clusters are stored one by
/// one: what one of them gives up is another's only when that is written.
pub(super) struct Room(BTreeMap<RuleName, i64>);

impl Room {
    /// What is left when clusters have these shares.
    pub(super) fn of<'a>(
        spec: &TrafficPolicySpec,
        given: impl Iterator<Item = &'a Vec<LimitShare>>,
    ) -> Self {
        let limits = of_province(spec);
        let mut room: BTreeMap<RuleName, i64> = limits
            .map(|limit| (limit.name.clone(), limit.rate.requests * PERIODS_MAX))
            .collect();
        for share in given.flatten() {
            if let Some(left) = room.get_mut(&share.name) {
                *left -= parts(share);
            }
        }
        Self(room)
    }

    /// Whether a cluster may go from what it has to what it is to have, which is then taken.
    pub(super) fn take(&mut self, has: &[LimitShare], wants: &[LimitShare]) -> bool {
        let grows = |want: &LimitShare| {
            let before = has.iter().find(|share| share.name == want.name);
            parts(want) - before.map_or(0, parts)
        };
        // Where the limit itself has fewer requests than there are clusters, each has one all the same.
        let fits = |want: &LimitShare| {
            let left = self.0.get(&want.name).copied().unwrap_or(0);
            grows(want) <= 0 || grows(want) <= left || want.requests == 1
        };
        if !wants.iter().all(fits) {
            return false;
        }
        for want in wants {
            if let Some(left) = self.0.get_mut(&want.name) {
                *left -= grows(want).max(0);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(requests: i64, per: &str, burst: Option<i64>) -> TrafficPolicySpec {
        let mut limit = serde_json::json!({
            "name": "total", "scope": "Province", "rate": {"requests": requests, "per": per},
        });
        if let Some(burst) = burst {
            limit["burst"] = burst.into();
        }
        serde_json::from_value(serde_json::json!({
            "targetRefs": [{"group": "jiuzhou.io", "kind": "App", "name": "web"}],
            "rateLimits": [limit],
        }))
        .unwrap()
    }

    fn divided(spec: &TrafficPolicySpec, weights: &[u64]) -> Vec<(i64, i64, Option<i64>)> {
        let weights = weights.iter().copied().enumerate().collect();
        let shares = divide(spec, &weights);
        let shares = shares.values().map(|mine| &mine[0]);
        shares.map(|s| (s.requests, s.periods, s.burst)).collect()
    }

    #[test]
    fn a_rate_is_divided_by_replicas_to_the_last_request() {
        let spec = limit(20_000, "1s", Some(100));
        assert_eq!(
            divided(&spec, &[6, 4, 2]),
            [
                (10_000, 1, Some(50)),
                (6_667, 1, Some(33)),
                (3_333, 1, Some(17))
            ]
        );
    }

    #[test]
    fn a_cluster_that_has_next_to_nothing_lets_one_pass_all_the_same() {
        let spec = limit(10, "1s", None);
        assert_eq!(
            divided(&spec, &[1_000, 1, 0]),
            [(8, 1, None), (1, 1, None), (1, 1, None)]
        );
        assert_eq!(divided(&spec, &[0, 0]), [(5, 1, None), (5, 1, None)]);
    }

    #[test]
    fn a_rate_of_fewer_requests_than_clusters_is_spread_over_several_periods() {
        let spec = limit(2, "1s", Some(1));
        let shares = divided(&spec, &[1; 5]);
        assert_eq!(shares[0], (2, 4, Some(1)));
        assert_eq!(shares.iter().map(|(n, ..)| n).sum::<i64>(), 8, "2 a second");
        // A day is the longest that a rate may be spread over; then each still lets one pass.
        let spec = limit(2, "24h", None);
        assert_eq!(divided(&spec, &[1; 3]), [(1, 1, None); 3]);
    }

    #[test]
    fn what_one_gives_up_is_anothers_only_when_that_is_stored() {
        let spec = limit(100, "1s", None);
        let share = |requests| {
            let periods = 1;
            let name = RuleName::from("total");
            vec![LimitShare {
                name,
                requests,
                periods,
                burst: None,
            }]
        };
        let (a, b) = (share(70), share(30));
        let mut room = Room::of(&spec, [&a, &b].into_iter());
        assert!(room.take(&a, &share(30)), "what shrinks is written");
        assert!(!room.take(&b, &share(70)), "and not yet given on");
        let mut room = Room::of(&spec, [&share(30), &b].into_iter());
        assert!(room.take(&b, &share(70)));
        assert!(!room.take(&[], &share(2)), "nothing is given twice");
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_and_none_is_nothing(
            requests in 1..100_000i64, weights in prop::collection::vec(0..50u64, 1..40),
        ) {
            let spec = limit(requests, "1s", Some(requests));
            let weights: BTreeMap<At, u64> = weights.into_iter().enumerate().collect();
            let shares = divide(&spec, &weights);
            let sum: i64 = shares.values().map(|mine| parts(&mine[0])).sum();
            prop_assert_eq!(sum, requests * PERIODS_MAX);
            prop_assert!(shares.values().all(|mine| mine[0].requests >= 1));
            let bursts = shares.values().filter_map(|mine| mine[0].burst).sum::<i64>();
            prop_assert!(bursts == requests.max(i64::try_from(weights.len()).unwrap()));
        }

        #[test]
        fn more_replicas_are_never_a_smaller_share(
            requests in 1..10_000i64, weights in prop::collection::vec(0..50u64, 1..20),
        ) {
            let spec = limit(requests, "1s", None);
            let all: BTreeMap<At, u64> = weights.iter().copied().enumerate().collect();
            let shares = divide(&spec, &all);
            for (a, b) in (0..weights.len()).flat_map(|a| (0..weights.len()).map(move |b| (a, b))) {
                if weights[a] > weights[b] {
                    prop_assert!(shares[&a][0].requests + 1 >= shares[&b][0].requests);
                }
            }
        }
    }
}
