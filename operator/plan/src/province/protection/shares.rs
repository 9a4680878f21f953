//! Rates for the province, or for a Region, as a whole, divided over clusters so that the parts never exceed it.

use std::collections::{BTreeMap, BTreeSet};

use crds::{LimitScope, LimitShare, RateLimit, RuleName, TrafficPolicySpec};

use super::At;

/// Most periods of a rule that a share may be spread over: enough for 4096 clusters where a period lets a
/// single request pass. A power of two, so that shares of all lengths add up exactly.
pub(crate) const PERIODS_MAX: i64 = 4096;
/// The longest that periods of a share last together, in milliseconds: what a policy may say at most.
const SPREAD_MAX: i64 = 24 * 3_600_000;

/// Over which clusters a rate is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Divided {
    /// Over all of them.
    Province,
    /// Over those of each Region.
    Region,
}

impl Divided {
    /// Over which clusters a rate is divided, unless each has all of it.
    pub(crate) fn of(limit: &RateLimit) -> Option<Self> {
        let is_keyed = limit.key.is_some() || !limit.key_parts.is_empty();
        match limit.scope {
            LimitScope::Province => Some(Self::Province),
            // Whoever comes to one of a Region's clusters comes back to it: a part of a key's rate would
            // refuse those who are honest, and a whole one at each lets nobody pass the limits of all.
            LimitScope::Region => (!is_keyed).then_some(Self::Region),
            LimitScope::Instance | LimitScope::Cluster => None,
        }
    }
}

/// A Region by its number; clusters whose Region is not known count as those of one.
pub(super) type RegionNumber = Option<usize>;

/// Where Apps of a policy stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) region: RegionNumber,
    /// Replicas there.
    pub(super) weight: u64,
}

/// Clusters that divide a rate: all, or those of a Region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pool {
    Province,
    Region(RegionNumber),
}

impl Pool {
    fn of(divided: Divided, region: RegionNumber) -> Self {
        match divided {
            Divided::Province => Self::Province,
            Divided::Region => Self::Region(region),
        }
    }
}

/// Rules of a policy of which each cluster has a part.
fn of_many(spec: &TrafficPolicySpec) -> impl Iterator<Item = (&RateLimit, Divided)> {
    let limits = spec.rate_limits.iter();
    limits.filter_map(|limit| Some((limit, Divided::of(limit)?)))
}

/// A share in parts of a request per period, of which each request in one period is [`PERIODS_MAX`].
pub(crate) fn parts(share: &LimitShare) -> i64 {
    share.requests * (PERIODS_MAX / share.periods.clamp(1, PERIODS_MAX))
}

/// The shares of clusters with that many replicas, in the order of the rules. All clusters of no replicas
/// count alike.
pub(super) fn divide(
    spec: &TrafficPolicySpec,
    parties: &BTreeMap<At, Party>,
) -> BTreeMap<At, Vec<LimitShare>> {
    let mut shares: BTreeMap<At, Vec<LimitShare>> =
        parties.keys().map(|at| (*at, Vec::new())).collect();
    for (limit, divided) in of_many(spec) {
        for pool in pools(divided, parties).values() {
            for (at, share) in parted(limit, pool) {
                shares.entry(at).or_default().push(share);
            }
        }
    }
    shares
}

/// Clusters and their replicas, by those who divide a rate.
fn pools(divided: Divided, parties: &BTreeMap<At, Party>) -> BTreeMap<Pool, Vec<(At, u64)>> {
    let mut pools: BTreeMap<Pool, Vec<(At, u64)>> = BTreeMap::new();
    for (at, party) in parties {
        let pool = pools.entry(Pool::of(divided, party.region)).or_default();
        pool.push((*at, party.weight));
    }
    pools
}

/// Rates that are too little for each of the clusters that divide them.
fn short<'a>(
    spec: &'a TrafficPolicySpec,
    parties: &BTreeMap<At, Party>,
) -> BTreeSet<(&'a RuleName, Pool)> {
    let mut short = BTreeSet::new();
    for (limit, divided) in of_many(spec) {
        for (pool, clusters) in pools(divided, parties) {
            let requests = limit.rate.requests * periods(limit, clusters.len());
            if i64::try_from(clusters.len()).is_ok_and(|clusters| requests < clusters) {
                short.insert((&limit.name, pool));
            }
        }
    }
    short
}

/// The shares of clusters in one rate.
fn parted(limit: &RateLimit, pool: &[(At, u64)]) -> Vec<(At, LimitShare)> {
    let weights: Vec<u64> = pool.iter().map(|(_, weight)| *weight).collect();
    let periods = periods(limit, weights.len());
    let requests = portions(limit.rate.requests * periods, &weights);
    let bursts = limit.burst.map(|burst| portions(burst, &weights));
    let share = |(n, (at, _)): (usize, &(At, u64))| {
        let share = LimitShare {
            name: limit.name.clone(),
            requests: requests[n],
            periods,
            burst: bursts.as_ref().map(|bursts| bursts[n]),
        };
        (*at, share)
    };
    pool.iter().enumerate().map(share).collect()
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
pub(super) struct Room<'a> {
    /// Over which clusters each rate is divided, and how much there is of it.
    rates: BTreeMap<&'a RuleName, (Divided, i64)>,
    /// What of it clusters have, by those who divide it.
    given: BTreeMap<(&'a RuleName, Pool), i64>,
    /// Where it is too little for each to have one request in as long a time as a rule may name.
    short: BTreeSet<(&'a RuleName, Pool)>,
}

impl<'a> Room<'a> {
    /// What is left for these clusters when clusters have those shares.
    pub(super) fn of<'b>(
        spec: &'a TrafficPolicySpec,
        parties: &BTreeMap<At, Party>,
        held: impl Iterator<Item = (RegionNumber, &'b [LimitShare])>,
    ) -> Self {
        let rates = of_many(spec).map(|(limit, divided)| {
            let whole = limit.rate.requests * PERIODS_MAX;
            (&limit.name, (divided, whole))
        });
        let mut room = Self {
            rates: rates.collect(),
            given: BTreeMap::new(),
            short: short(spec, parties),
        };
        for (region, shares) in held {
            for share in shares {
                room.give(region, &share.name, parts(share));
            }
        }
        room
    }

    /// Whether a cluster may go from what it has to what it is to have, which is then taken.
    pub(super) fn take(
        &mut self,
        region: RegionNumber,
        has: &[LimitShare],
        wants: &[LimitShare],
    ) -> bool {
        let grows = |want: &LimitShare| {
            let before = has.iter().find(|share| share.name == want.name);
            parts(want) - before.map_or(0, parts)
        };
        let fits = |want: &LimitShare| {
            grows(want) <= self.left(region, &want.name).max(0)
                || (want.requests == 1 && self.is_short(region, &want.name))
        };
        if !wants.iter().all(fits) {
            return false;
        }
        for want in wants {
            self.give(region, &want.name, grows(want).max(0));
        }
        true
    }

    /// Whether each cluster has one request all the same.
    fn is_short(&self, region: RegionNumber, name: &RuleName) -> bool {
        let known = self.rates.get_key_value(name);
        known.is_some_and(|(name, (divided, _))| {
            self.short.contains(&(*name, Pool::of(*divided, region)))
        })
    }

    fn left(&self, region: RegionNumber, name: &RuleName) -> i64 {
        let Some((name, (divided, whole))) = self.rates.get_key_value(name) else {
            return 0;
        };
        let given = self.given.get(&(*name, Pool::of(*divided, region)));
        whole - given.copied().unwrap_or(0)
    }

    fn give(&mut self, region: RegionNumber, name: &RuleName, amount: i64) {
        if let Some((name, (divided, _))) = self.rates.get_key_value(name) {
            let pool = Pool::of(*divided, region);
            *self.given.entry((*name, pool)).or_default() += amount;
        }
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

    /// Clusters of one Region.
    fn parties(weights: &[u64]) -> BTreeMap<At, Party> {
        let weights = weights.iter().copied();
        let party = |weight| Party {
            region: Some(0),
            weight,
        };
        weights.map(party).enumerate().collect()
    }

    fn divided(spec: &TrafficPolicySpec, weights: &[u64]) -> Vec<(i64, i64, Option<i64>)> {
        let shares = divide(spec, &parties(weights));
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

    fn one(requests: i64, periods: i64) -> [LimitShare; 1] {
        [LimitShare {
            name: RuleName::from("total"),
            requests,
            periods,
            burst: None,
        }]
    }

    #[test]
    fn a_single_request_waits_as_well_where_there_is_one_for_each() {
        let four = parties(&[1; 4]);
        let (has, here) = (one(4, 1), Some(0));
        let spec = limit(4, "1s", None);
        let mut room = Room::of(&spec, &four, std::iter::once((here, &has[..])));
        assert!(!room.take(here, &[], &one(1, 1)), "the first has all four");
        // Of a rate that is too little for all each has one in a day, as more is never let in.
        let spec = limit(2, "24h", None);
        let has = one(2, 1);
        let mut room = Room::of(&spec, &four, std::iter::once((here, &has[..])));
        assert!(room.take(here, &[], &one(1, 1)));
    }

    /// What clusters of one Region have.
    fn held(shares: [&[LimitShare]; 2]) -> impl Iterator<Item = (RegionNumber, &[LimitShare])> {
        shares.into_iter().map(|shares| (Some(0), shares))
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
        let (here, two) = (Some(0), parties(&[1, 1]));
        let mut room = Room::of(&spec, &two, held([&a, &b]));
        assert!(room.take(here, &a, &share(30)), "what shrinks is written");
        assert!(!room.take(here, &b, &share(70)), "and not yet given on");
        let smaller = share(30);
        let mut room = Room::of(&spec, &two, held([&smaller, &b]));
        assert!(room.take(here, &b, &share(70)));
        assert!(!room.take(here, &[], &share(2)), "nothing is given twice");
    }

    fn of_region(key: Option<&str>) -> TrafficPolicySpec {
        let mut spec = limit(5_000, "1s", Some(100));
        spec.rate_limits[0].scope = LimitScope::Region;
        spec.rate_limits[0].key = key.map(|key| crds::KeyPartSpec {
            query: Some(key.into()),
            ..crds::KeyPartSpec::default()
        });
        spec
    }

    #[test]
    fn a_rate_of_a_region_is_divided_over_its_clusters_and_stays_whole_in_one() {
        let party = |region, weight| Party { region, weight };
        let parties = [
            party(Some(0), 3),
            party(Some(1), 6),
            party(Some(0), 1),
            party(None, 1),
        ];
        let parties = parties.into_iter().enumerate().collect();
        let shares = divide(&of_region(None), &parties);
        let shares: Vec<(i64, Option<i64>)> = shares
            .values()
            .map(|mine| (mine[0].requests, mine[0].burst))
            .collect();
        let whole = (5_000, Some(100));
        assert_eq!(shares, [(3_750, Some(75)), whole, (1_250, Some(25)), whole]);
    }

    #[test]
    fn a_key_has_the_whole_rate_of_a_region_in_each_of_its_clusters() {
        let shares = divide(&of_region(Some("citizen")), &parties(&[1, 1]));
        assert!(shares.values().all(Vec::is_empty), "{shares:?}");
    }

    #[test]
    fn what_a_region_gives_up_is_not_anothers() {
        let spec = of_region(None);
        let share = |requests| {
            vec![LimitShare {
                name: RuleName::from("total"),
                requests,
                periods: 1,
                burst: None,
            }]
        };
        let whole = share(5_000);
        let mut room = Room::of(
            &spec,
            &parties(&[1]),
            std::iter::once((Some(0), &whole[..])),
        );
        assert!(!room.take(Some(0), &[], &share(2)), "it is all given there");
        assert!(room.take(Some(1), &[], &whole));
        assert!(!room.take(Some(1), &[], &share(2)), "and here as well");
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_and_none_is_nothing(
            requests in 1..100_000i64, weights in prop::collection::vec(0..50u64, 1..40),
        ) {
            let spec = limit(requests, "1s", Some(requests));
            let shares = divide(&spec, &parties(&weights));
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
            let shares = divide(&spec, &parties(&weights));
            for (a, b) in (0..weights.len()).flat_map(|a| (0..weights.len()).map(move |b| (a, b))) {
                if weights[a] > weights[b] {
                    prop_assert!(shares[&a][0].requests + 1 >= shares[&b][0].requests);
                }
            }
        }
    }
}
