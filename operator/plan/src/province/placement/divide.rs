//! Dividing an App's replicas over regions, and each region's share over its clusters.

use std::collections::BTreeMap;

use crds::{Division, HpaBounds, RegionName};

use super::{At, ByRegion, Load, Room, Standing, region};
use crate::apportion::{Share, apportion, reduce};
use crate::province::regions::Fleet;
use crate::report::Shortage;
use crate::world::{Scale, ValidApp};

type Weights = BTreeMap<RegionName, u64>;

/// What is divided: a number and the way.
struct Task<'a> {
    total: i32,
    division: Division,
    weights: &'a Weights,
}

/// What is to be divided, less what stands where nothing can be decided; but that takes nothing away
/// that the App has elsewhere, since whether it still runs there is not known.
fn task<'a>(standing: &Standing<'a>) -> Option<Task<'a>> {
    let mut task = whole_task(standing.app)?;
    if task.division != Division::Duplicate {
        let kept = standing
            .keep
            .values()
            .map(|load| load.count())
            .fold(0, i32::saturating_add);
        task.total = (task.total - frozen(standing)).max(kept.min(task.total));
    }
    Some(task)
}

fn whole_task(app: &ValidApp) -> Option<Task<'_>> {
    match &app.scale {
        Scale::Manifests => None,
        Scale::Replicas {
            total,
            division,
            weights,
        } => Some(Task {
            total: *total,
            division: *division,
            weights,
        }),
        Scale::Autoscaled {
            max,
            division,
            weights,
            ..
        } => Some(Task {
            total: *max,
            division: *division,
            weights,
        }),
    }
}

fn frozen(standing: &Standing<'_>) -> i32 {
    standing
        .frozen
        .values()
        .map(|load| load.count())
        .fold(0, i32::saturating_add)
}

/// Whether a region gets anything at all.
pub(crate) fn wants(app: &ValidApp, region: &RegionName) -> bool {
    match whole_task(app) {
        Some(Task {
            division: Division::Weight,
            weights,
            ..
        }) => weights.get(region).is_some_and(|w| *w > 0),
        Some(_) | None => true,
    }
}

/// What an App needs of a cluster to start there.
pub(crate) struct Start {
    by_capacity: bool,
    most: i32,
    /// What Quotas grant it where it is charged nothing yet, by what it draws from there: the same in most
    /// of a province's clusters, and asked for each of them.
    granted: BTreeMap<usize, i32>,
}

impl Start {
    pub(crate) fn of(standing: &Standing<'_>) -> Self {
        let task = task(standing);
        let by_capacity = task
            .as_ref()
            .is_some_and(|t| t.division == Division::Capacity);
        Self {
            by_capacity,
            most: task.map_or(1, |t| t.total),
            granted: BTreeMap::new(),
        }
    }

    /// How many replicas could start in a cluster in which the App is not; for an App without a
    /// number of replicas, 1 when it fits. Nothing at all fits anywhere.
    pub(crate) fn fits(&mut self, standing: &Standing<'_>, room: &Room, at: At) -> i32 {
        match self.most {
            _ if self.by_capacity && !room.known(at) => 0,
            0 => 1,
            most => {
                let cluster = room.cluster_fit(at, &standing.app.footprint, true);
                if cluster == 0 {
                    return 0;
                }
                cluster.min(self.granted(standing, room, at)).min(most)
            }
        }
    }

    fn granted(&mut self, standing: &Standing<'_>, room: &Room, at: At) -> i32 {
        let granted = || room.granted(at, standing).max(0);
        match &standing.desks {
            Some(desks) if !standing.charged.decided.contains_key(&at) => {
                *self.granted.entry(desks.number(at)).or_insert_with(granted)
            }
            Some(_) | None => granted(),
        }
    }
}

/// What a region counts for when there are more than the App may use.
pub(crate) fn weight_of(app: &ValidApp, region: &RegionName) -> u64 {
    whole_task(app).map_or(1, |task| weight(&task, region))
}

/// What one of `regions` regions gets when all get alike.
pub(crate) fn fair_share(standing: &Standing<'_>, regions: usize) -> i32 {
    let parts = i32::try_from(regions.max(1)).unwrap_or(i32::MAX);
    match task(standing) {
        None => 1,
        Some(Task {
            total,
            division: Division::Duplicate,
            ..
        }) => total,
        Some(Task { total, .. }) => total / parts + i32::from(total % parts > 0),
    }
}

/// The targets of an App that has what it asks for, or `None`. `unused` are regions that it could
/// take in addition.
pub(crate) fn adds_up(
    fleet: &Fleet,
    standing: &Standing<'_>,
    unused: &[&RegionName],
) -> Option<BTreeMap<At, Load>> {
    let counts: BTreeMap<At, i32> = standing
        .keep
        .iter()
        .map(|(at, load)| (*at, load.count()))
        .collect();
    let mut by_region: BTreeMap<&RegionName, i32> = BTreeMap::new();
    for (at, count) in &counts {
        *by_region.entry(region(fleet, *at)?).or_default() += count;
    }
    let Some(task) = task(standing) else {
        let once = unused.is_empty() && by_region.len() == counts.len();
        return once.then(|| counts.keys().map(|at| (*at, Load::Manifests)).collect());
    };
    let fits = match task.division {
        Division::Duplicate => {
            let idle = task.total == 0 && !counts.is_empty();
            (unused.is_empty() || idle) && by_region.values().all(|n| *n == task.total)
        }
        Division::Capacity => by_region.values().sum::<i32>() == task.total,
        Division::Even | Division::Weight => {
            // An unused region counts only if it would get something.
            let more = unused.iter().map(|region| (*region, 0));
            let parties: Vec<_> = by_region
                .iter()
                .map(|(r, has)| (*r, *has))
                .chain(more)
                .collect();
            let share = |(region, has): &(&RegionName, i32)| Share {
                weight: weight(&task, region),
                floor: 0,
                cap: i32::MAX,
                has: *has,
            };
            let shares: Vec<Share> = parties.iter().map(share).collect();
            apportion(task.total, &shares)
                .iter()
                .eq(parties.iter().map(|(_, has)| has))
        }
    };
    fits.then(|| loads(standing.app, &counts))
}

fn weight(task: &Task<'_>, region: &RegionName) -> u64 {
    match task.division {
        Division::Weight => task.weights.get(region).copied().unwrap_or(0),
        Division::Even | Division::Duplicate | Division::Capacity => 1,
    }
}

/// What an App has in a cluster, if it is there, and what it could have at most.
struct Capacity {
    at: At,
    has: Option<i32>,
    cap: i32,
}

/// How an App's replicas are divided, if they are.
pub(crate) fn division(app: &ValidApp) -> Option<Division> {
    whole_task(app).map(|task| task.division)
}

/// Replicas that an App asks for; for one without a number of them, 1.
pub(crate) fn wanted(standing: &Standing<'_>) -> i32 {
    whole_task(standing.app).map_or(1, |task| task.total)
}

/// Divides an App over the chosen regions and their clusters; with `most` as if it asked for no more
/// replicas than that.
pub(crate) fn divide(
    standing: &Standing<'_>,
    chosen: &ByRegion,
    least: usize,
    room: &Room,
    most: Option<i32>,
) -> (BTreeMap<At, Load>, Option<Shortage>) {
    let app = standing.app;
    let mut task = task(standing);
    if let (Some(task), Some(most)) = (&mut task, most) {
        task.total = task.total.min(most);
    }
    let Some(task) = task else {
        let first = chosen.values().filter_map(|clusters| clusters.first());
        return (first.map(|at| (*at, Load::Manifests)).collect(), None);
    };
    let caps: Vec<Vec<Capacity>> = chosen
        .values()
        .map(|clusters| capacity(standing, &task, clusters, room))
        .collect();
    let shares = region_shares(&task, chosen, &caps, least);
    let mut counts = BTreeMap::new();
    for (clusters, share) in caps.iter().zip(&shares) {
        fill(clusters, *share, task.total == 0, &mut counts);
    }
    let elsewhere = !standing.frozen.is_empty() && standing.leaving.is_empty();
    if task.total == 0 && counts.is_empty() && !elsewhere {
        // An App scaled to nothing still has its Services and ConfigMaps somewhere, and leaves no place
        // for one of which nobody knows whether it still stands.
        counts.extend(
            caps.iter()
                .take(least)
                .filter_map(|c| c.first())
                .map(|c| (c.at, 0)),
        );
    }
    let wanted = match task.division {
        Division::Duplicate => task
            .total
            .saturating_mul(i32::try_from(chosen.len()).unwrap_or(i32::MAX)),
        Division::Even | Division::Weight | Division::Capacity => task.total,
    };
    let placed: i32 = counts.values().sum();
    let elsewhere = if task.division == Division::Duplicate {
        0
    } else {
        frozen(standing)
    };
    let shortage = (placed < wanted).then_some(Shortage::Capacity {
        placed: placed + elsewhere,
        wanted: wanted + elsewhere,
    });
    (loads(app, &counts), shortage)
}

/// For each cluster of a region: what the App has there, and what it could have at most.
fn capacity(
    standing: &Standing<'_>,
    task: &Task<'_>,
    clusters: &[At],
    room: &Room,
) -> Vec<Capacity> {
    let one = |at: &At| {
        let has = standing.keep.get(at).map(|load| load.count());
        // Where the App may only stay, free capacity is no reason to give it more.
        let stays = task.division == Division::Capacity && standing.stays.contains(at);
        let more = if stays {
            0
        } else {
            room.fit(*at, standing, has)
        };
        Capacity {
            at: *at,
            has,
            cap: has.unwrap_or(0).saturating_add(more),
        }
    };
    clusters.iter().map(one).collect()
}

fn region_shares(
    task: &Task<'_>,
    chosen: &ByRegion,
    caps: &[Vec<Capacity>],
    least: usize,
) -> Vec<i32> {
    let sum = |of: fn(&Capacity) -> i32| -> Vec<i32> {
        caps.iter()
            .map(|c| c.iter().map(of).fold(0, i32::saturating_add))
            .collect()
    };
    let has = sum(|c| c.has.unwrap_or(0));
    let cap = sum(|c| c.cap);
    let regions: Vec<&RegionName> = chosen.keys().collect();
    let shares = |of: &dyn Fn(usize) -> Share| (0..caps.len()).map(of).collect::<Vec<_>>();
    match task.division {
        Division::Duplicate => cap.iter().map(|cap| task.total.min(*cap)).collect(),
        Division::Even | Division::Weight => {
            let share = |at: usize| Share {
                weight: weight(task, regions[at]),
                floor: 0,
                cap: cap[at],
                has: has[at],
            };
            apportion(task.total, &shares(&share))
        }
        Division::Capacity => {
            let weights: Vec<u64> = cap
                .iter()
                .map(|cap| u64::try_from(*cap).unwrap_or(0))
                .collect();
            let mut seats = has.clone();
            if has.iter().sum::<i32>() > task.total {
                reduce(task.total, &weights, &mut seats);
                return seats;
            }
            take_part(task.total, least, &cap, &mut seats);
            let share = |at: usize| Share {
                weight: weights[at],
                floor: seats[at],
                cap: cap[at],
                has: has[at],
            };
            apportion(task.total, &shares(&share))
        }
    }
}

/// The regions that must take part get their first replica before the rest is divided.
fn take_part(total: i32, least: usize, cap: &[i32], seats: &mut [i32]) {
    let mut roomy: Vec<usize> = (0..cap.len()).collect();
    roomy.sort_by_key(|at| (seats[*at] == 0, std::cmp::Reverse(cap[*at]), *at));
    for at in roomy.into_iter().take(least) {
        if seats.iter().sum::<i32>() < total {
            seats[at] = seats[at].max(1);
        }
    }
}

/// Gives a region's share to its clusters: what is there stays, the rest goes to the roomiest.
fn fill(clusters: &[Capacity], share: i32, keep_empty: bool, counts: &mut BTreeMap<At, i32>) {
    let mut left = share;
    let mut take: Vec<i32> = Vec::with_capacity(clusters.len());
    for cluster in clusters {
        let stays = cluster.has.unwrap_or(0).min(left);
        take.push(stays);
        left -= stays;
    }
    for (take, cluster) in take.iter_mut().zip(clusters) {
        let more = (cluster.cap - *take).clamp(0, left);
        *take += more;
        left -= more;
    }
    for (take, cluster) in take.into_iter().zip(clusters) {
        if take > 0 || (keep_empty && cluster.has.is_some()) {
            counts.insert(cluster.at, take);
        }
    }
}

/// Counts as loads. An autoscaler's lower bound is divided as its upper one is, at least 1 each.
fn loads(app: &ValidApp, counts: &BTreeMap<At, i32>) -> BTreeMap<At, Load> {
    let Scale::Autoscaled { min, division, .. } = &app.scale else {
        return counts
            .iter()
            .map(|(at, n)| (*at, Load::Replicas(*n)))
            .collect();
    };
    let least: Vec<i32> = if *division == Division::Duplicate {
        counts.values().map(|max| (*min).min(*max)).collect()
    } else {
        let share = |max: &i32| Share {
            weight: u64::try_from(*max).unwrap_or(0),
            floor: (*max).min(1),
            cap: *max,
            has: 0,
        };
        apportion(*min, &counts.values().map(share).collect::<Vec<_>>())
    };
    let bounds = |((at, max), min): ((&At, &i32), i32)| {
        (
            *at,
            Load::Autoscaled(HpaBounds {
                min: min.max(1),
                max: (*max).max(1),
            }),
        )
    };
    counts.iter().zip(least).map(bounds).collect()
}
