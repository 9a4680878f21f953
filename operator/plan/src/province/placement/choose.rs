//! Choosing the regions to use.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crds::{RegionName, Uid};

use super::divide::{self, Start};
use super::{At, Room, Standing, region};
use crate::province::regions::Fleet;
use crate::report::ClusterVerdict;

/// Clusters by region: those an App has first, then the ones with most room.
pub(crate) type ByRegion = BTreeMap<RegionName, Vec<At>>;

/// A region that an App could use, by rank.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    /// Those it has come first;
    new: bool,
    /// those that can take a fair share come before those that cannot,
    tight: bool,
    /// heavy ones before light ones,
    weight: Reverse<u64>,
    /// empty ones before full ones,
    score: Reverse<i64>,
    /// and equal ones in an order that differs from App to App.
    tie: u64,
    /// Where its clusters stand among the candidates.
    clusters: Range,
}

// A range has no order of its own; of two regions the one that begins earlier comes first.
type Range = (usize, usize);

/// The best regions to use.
pub(super) fn choose_regions(
    fleet: &Fleet,
    standing: &Standing<'_>,
    room: &Room,
    most: usize,
    weighed: &mut Vec<(At, ClusterVerdict)>,
) -> ByRegion {
    let candidates = candidates(fleet, standing);
    let same_region = |a: &At, b: &At| fleet.region_numbers[*a] == fleet.region_numbers[*b];
    let regions = candidates.chunk_by(same_region);
    let fair = divide::fair_share(standing, regions.clone().count().min(most));
    let mut start = Start::of(standing);
    let seed = seed(standing.uid);
    let (mut ranked, mut begin) = (Vec::new(), 0);
    for clusters in regions {
        let range = (begin, begin + clusters.len());
        begin = range.1;
        let Some(name) = region(fleet, clusters[0]) else {
            continue;
        };
        let all = |verdict| clusters.iter().map(move |at| (*at, verdict));
        if !divide::wants(standing.app, name) {
            weighed.extend(all(ClusterVerdict::NoWeight));
            continue;
        }
        let new = !clusters.iter().any(|at| standing.keep.contains_key(at));
        let fits = clusters.iter().map(|at| start.fits(standing, room, *at));
        let fits = if new {
            fits.fold(0, i32::saturating_add)
        } else {
            fair
        };
        if new && fits == 0 {
            let verdict = |at: &At| match room.short_of(standing, *at, None) {
                Some(_) => ClusterVerdict::NoQuota,
                None => ClusterVerdict::NoRoom,
            };
            weighed.extend(clusters.iter().map(|at| (*at, verdict(at))));
            continue;
        }
        ranked.push(Ranked {
            new,
            tight: fits < fair,
            weight: Reverse(divide::weight_of(standing.app, name)),
            score: Reverse(clusters.iter().map(|at| room.score(*at)).max().unwrap_or(0)),
            tie: spread(seed, clusters[0]),
            clusters: range,
        });
    }
    let most = most.min(ranked.len());
    if most < ranked.len() {
        ranked.select_nth_unstable(most);
    }
    for other in &ranked[most..] {
        let enough = ClusterVerdict::EnoughRegions {
            score: other.score.0,
        };
        weighed.extend(
            candidates[other.clusters.0..other.clusters.1]
                .iter()
                .map(|at| (*at, enough)),
        );
    }
    let chosen = ranked[..most].iter().filter_map(|ranked| {
        let mut clusters = candidates[ranked.clusters.0..ranked.clusters.1].to_vec();
        clusters.sort_by_key(|at| (!standing.keep.contains_key(at), -room.score(*at), *at));
        Some((region(fleet, clusters[0])?.clone(), clusters))
    });
    chosen.collect()
}

/// Clusters that an App has or may take, region by region.
fn candidates(fleet: &Fleet, standing: &Standing<'_>) -> Vec<At> {
    if standing.keep.is_empty() {
        return standing.open.clone();
    }
    let open: BTreeSet<At> = standing.open.iter().copied().collect();
    let mine = |at: &At| open.contains(at) || standing.keep.contains_key(at);
    fleet.by_region.iter().copied().filter(mine).collect()
}

/// Breaks ties differently for every App, so that equal regions fill evenly (FNV-1a).
fn seed(uid: &Uid) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    uid.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// One more step of the hash, for a region by its first cluster; the upper half is well mixed.
fn spread(seed: u64, at: At) -> u64 {
    let at = u64::try_from(at).unwrap_or(0).wrapping_add(1);
    (seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32
}
