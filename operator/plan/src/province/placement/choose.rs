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
    let regions = candidates.chunk_by(same_region).count();
    let mut chooser = Chooser {
        fleet,
        standing,
        room,
        candidates: &candidates,
        fair: divide::fair_share(standing, regions.min(most)),
        start: Start::of(standing),
    };
    let mut ranked = chooser.rank(weighed);
    // Nearly always those that are best by all else have room, and the others need not be looked at.
    let mut first = best(&mut ranked, most);
    if !ranked[..first].iter().all(|one| chooser.is_roomy(one)) {
        ranked = chooser.by_room(ranked, weighed);
        first = best(&mut ranked, most);
    }
    for other in &ranked[first..] {
        let enough = ClusterVerdict::EnoughRegions {
            score: other.score.0,
        };
        let clusters = chooser.clusters(other);
        weighed.extend(clusters.iter().map(|at| (*at, enough)));
    }
    let chosen = ranked[..first].iter().filter_map(|ranked| {
        let mut clusters = chooser.clusters(ranked).to_vec();
        clusters.sort_by_key(|at| (!standing.keep.contains_key(at), -room.score(*at), *at));
        Some((region(fleet, clusters[0])?.clone(), clusters))
    });
    chosen.collect()
}

/// Moves the best to the front, and says how many those are.
fn best(ranked: &mut [Ranked], most: usize) -> usize {
    let most = most.min(ranked.len());
    if most < ranked.len() {
        ranked.select_nth_unstable(most);
    }
    most
}

/// What regions are chosen by.
struct Chooser<'a> {
    fleet: &'a Fleet,
    standing: &'a Standing<'a>,
    room: &'a Room,
    candidates: &'a [At],
    /// What one of them gets when all get alike.
    fair: i32,
    start: Start,
}

impl Chooser<'_> {
    /// Regions by all but their room.
    fn rank(&self, weighed: &mut Vec<(At, ClusterVerdict)>) -> Vec<Ranked> {
        let numbers = &self.fleet.region_numbers;
        let regions = self
            .candidates
            .chunk_by(|a: &At, b: &At| numbers[*a] == numbers[*b]);
        let (seed, app) = (seed(self.standing.uid), self.standing.app);
        let (mut ranked, mut begin) = (Vec::new(), 0);
        for clusters in regions {
            let range = (begin, begin + clusters.len());
            begin = range.1;
            let Some(name) = region(self.fleet, clusters[0]) else {
                continue;
            };
            if !divide::wants(app, name) {
                let none = clusters.iter().map(|at| (*at, ClusterVerdict::NoWeight));
                weighed.extend(none);
                continue;
            }
            let scores = clusters.iter().map(|at| self.room.score(*at));
            ranked.push(Ranked {
                new: !clusters
                    .iter()
                    .any(|at| self.standing.keep.contains_key(at)),
                tight: false,
                weight: Reverse(divide::weight_of(app, name)),
                score: Reverse(scores.max().unwrap_or(0)),
                tie: spread(seed, clusters[0]),
                clusters: range,
            });
        }
        ranked
    }

    fn clusters(&self, ranked: &Ranked) -> &[At] {
        &self.candidates[ranked.clusters.0..ranked.clusters.1]
    }

    /// Replicas that could start in a region that is new.
    fn fits(&mut self, ranked: &Ranked) -> i32 {
        let clusters = &self.candidates[ranked.clusters.0..ranked.clusters.1];
        let fits = clusters
            .iter()
            .map(|at| self.start.fits(self.standing, self.room, *at));
        fits.fold(0, i32::saturating_add)
    }

    /// Whether a region has room for a fair share, or has the App already.
    fn is_roomy(&mut self, ranked: &Ranked) -> bool {
        !ranked.new || self.fits(ranked) >= self.fair.max(1)
    }

    /// Leaves out regions without any room, and tells apart those that have some.
    fn by_room(
        &mut self,
        ranked: Vec<Ranked>,
        weighed: &mut Vec<(At, ClusterVerdict)>,
    ) -> Vec<Ranked> {
        let mut roomy = Vec::with_capacity(ranked.len());
        for mut one in ranked {
            if one.new {
                let fits = self.fits(&one);
                if fits == 0 {
                    let verdict = |at: &At| match self.room.short_of(self.standing, *at, None) {
                        Some(_) => ClusterVerdict::NoQuota,
                        None => ClusterVerdict::NoRoom,
                    };
                    let clusters = self.clusters(&one).iter();
                    weighed.extend(clusters.map(|at| (*at, verdict(at))));
                    continue;
                }
                one.tight = fits < self.fair;
            }
            roomy.push(one);
        }
        roomy
    }
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
