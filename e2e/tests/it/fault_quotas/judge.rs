//! The judge: adds up what every ledger and every slice says, after each single change that was stored,
//! and knows nothing of how the hub decides.
//!
//! A breach is a write of the hub that makes or enlarges an excess:
//!
//! 1. of a ledger: the grants carved from one are nominally more than it, or those of first tenants more
//!    than the Region's budget;
//! 2. of a slice: what entries are charged, with what is kept by grants that do not lend it, is more than
//!    a grant on the way up may use, or than the budget.
//!
//! What a user does (a budget that is cut, a ledger that is deleted, a first Quota where much runs already)
//! may leave an excess, and so may a stricter ledger above what runs; that stands, and may not grow.
//!
//! Slices are judged by the ledgers that they may have been planned on: those before any that came in the
//! same turn; and by the stages that counted when they were planned, since one may end between a decision
//! and its writing. Not judged: what pods really run, and where no grant and no budget counts.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Amounts, Change, Charged, Grant, Ledger, RESOURCES, Said};

/// Allowed: the hub may still decide by what a user changed so long ago. A leader that is asleep decides
/// nothing new once its lease has run out (5 s); its last writes and a late watch fit into the rest.
const HEARING: i64 = 10_000;

/// Allowed: a change is heard of so much later than it was stored, on a machine that does much else.
const LATE: i64 = 500;

/// Who is above whom among the Regions, and where each cluster lies.
const ABOVE: [(&str, &str); 2] = [("hangzhou", "zhejiang"), ("ningbo", "zhejiang")];

/// A Region's budget, by resource.
type Budget = [Option<i64>; 3];

/// The cluster and the name.
type Slice = (String, String);

/// A grant of a tenant in a Region, or, without a tenant, the Region's budget.
type Limit = (String, Option<String>);

/// What is used of a limit, or given on, and the most that may be.
type Sums = BTreeMap<(Limit, usize), (i64, i64)>;

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    ledgers: BTreeMap<String, Ledger>,
    budgets: BTreeMap<String, Budget>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) breaches: Vec<String>,
    /// The store's number of the first of them.
    pub(crate) first: Option<u64>,
    pub(crate) ledgers: usize,
    pub(crate) slices: usize,
    /// Ledgers that users deleted.
    pub(crate) restores: usize,
    /// Slices by which somebody used more of a grant, and those that filled one to the brim.
    pub(crate) grown: usize,
    pub(crate) filled: usize,
    /// Leaders that wrote anything of it.
    pub(crate) epochs: BTreeSet<i64>,
}

#[derive(Debug, Default)]
struct Judge {
    stored: View,
    /// Every budget so far, and since when.
    budgets: BTreeMap<String, Vec<(i64, Budget)>>,
    /// Ledgers that users deleted, and when.
    deleted: BTreeMap<String, (i64, Ledger)>,
    slices: BTreeMap<Slice, Vec<Charged>>,
    turn: Turn,
    found: Findings,
}

/// Ledgers that one leader wrote since the last slice. In one turn it writes each at most once, and then
/// slices that it planned on the ledgers as they were before; where among these the turn began, nobody
/// can tell.
#[derive(Debug, Default)]
struct Turn {
    epoch: i64,
    /// The Region of each, and what was stored before.
    written: Vec<(String, View)>,
    /// The slices that came after them.
    slices: BTreeSet<Slice>,
    /// When what certainly came before the turn was stored: it was planned later.
    since: Option<i64>,
    /// When the last ledger came, and the last of all.
    at: i64,
    last: i64,
}

impl Turn {
    /// A turn of which nothing is stored yet, after this one if it is the same leader's.
    fn next(&self, epoch: i64) -> Self {
        Self {
            epoch,
            since: (self.epoch == epoch).then_some(self.last),
            ..Self::default()
        }
    }

    /// Takes note of a slice. In one turn each is written at most once.
    fn takes(&mut self, slice: &Slice, epoch: i64, at: i64) {
        if self.epoch != epoch {
            *self = self.next(epoch);
        } else if self.slices.contains(slice) {
            self.slices.clear();
            self.since = Some(self.last);
        }
        self.slices.insert(slice.clone());
        self.last = at;
    }

    /// What slices may have been planned on: what was stored before any of the last ledgers, of which none
    /// is written twice.
    fn before(&self) -> impl Iterator<Item = &View> {
        let last = self.written.iter().rev();
        let mut seen = BTreeSet::new();
        last.take_while(move |(region, _)| seen.insert(region))
            .map(|(_, before)| before)
    }
}

impl Turn {
    /// When a slice that came at a time may have been planned, as far as it matters to what is charged:
    /// then, or right before a stage of an entry began.
    fn times<'e>(&self, at: i64, entries: impl Iterator<Item = &'e (String, Charged)>) -> Vec<i64> {
        let since = self
            .since
            .map_or(at - HEARING, |since| (since - LATE).max(at - HEARING));
        let stages = entries.flat_map(|(_, entry)| &entry.stages);
        let begun = stages.filter_map(|(begins, _)| begins.filter(|b| (since..=at).contains(b)));
        let times: BTreeSet<i64> = begun.map(|begun| begun - 1).collect();
        std::iter::once(at).chain(times).collect()
    }
}

/// Judges all that was stored, in its order.
pub(crate) fn judge(changes: &[Change]) -> Findings {
    let mut judge = Judge::default();
    changes.iter().for_each(|change| judge.take(change));
    judge.found
}

impl Judge {
    fn take(&mut self, Change { version, at, said }: &Change) {
        match said {
            Said::Budget(region, budget) => {
                let all = self.budgets.entry(region.clone()).or_default();
                if all.last().is_none_or(|(_, last)| last != budget) {
                    all.push((*at, *budget));
                }
            }
            Said::NoLedger(region) => {
                self.found.restores += 1;
                if let Some(gone) = self.stored.ledgers.remove(region) {
                    self.deleted.insert(region.clone(), (*at, gone));
                }
            }
            Said::NoSlice(cluster, name) => {
                let slice = (cluster.clone(), name.clone());
                self.slices.remove(&slice);
            }
            Said::Ledger(region, epoch, ledger) => {
                self.ledger(*version, *at, (region, *epoch), ledger);
            }
            Said::Slice(cluster, name, epoch, entries) => {
                let slice = (cluster.clone(), name.clone());
                self.slice(*version, *at, slice, *epoch, entries);
            }
        }
    }

    fn ledger(&mut self, version: u64, at: i64, (region, epoch): (&str, i64), ledger: &Ledger) {
        self.found.ledgers += 1;
        self.found.epochs.insert(epoch);
        let is_same = self.turn.slices.is_empty() && self.turn.epoch == epoch;
        if !is_same || at - self.turn.at >= HEARING {
            self.turn = self.turn.next(epoch);
        }
        (self.turn.at, self.turn.last) = (at, at);
        let written = (region.to_owned(), self.stored.clone());
        self.turn.written.push(written);
        let exceeds = |before: &View| {
            let mut after = before.clone();
            after.ledgers.insert(region.to_owned(), ledger.clone());
            excess(&given(before), &given(&after))
        };
        let views = self.heard(at, std::iter::once(&self.stored));
        let found: Vec<_> = views.iter().map(exceeds).collect();
        self.conclude(
            version,
            &format!("ledger of {region} by leader {epoch}"),
            &found,
        );
        self.stored
            .ledgers
            .insert(region.to_owned(), ledger.clone());
        self.deleted.remove(region);
    }

    fn slice(&mut self, version: u64, at: i64, slice: Slice, epoch: i64, entries: &[Charged]) {
        self.found.slices += 1;
        self.found.epochs.insert(epoch);
        self.turn.takes(&slice, epoch, at);
        let what = format!("slice {} of {} by leader {epoch}", slice.1, slice.0);
        let before = counted(&self.slices);
        self.slices.insert(slice, entries.to_vec());
        let after = counted(&self.slices);
        // Allowed: what the same leader planned on the ledgers that it replaced in the same turn.
        let planned = self.turn.epoch == epoch && at - self.turn.at < HEARING;
        let before_turn = self.turn.before().filter(|_| planned);
        let views = self.heard(at, std::iter::once(&self.stored).chain(before_turn));
        let times = self.turn.times(at, before.iter().chain(&after));
        let found = views.iter().flat_map(|view| {
            times.iter().map(|now| {
                let (before, after) = (used(view, &before, *now), used(view, &after, *now));
                excess(&before, &after)
            })
        });
        let found: Vec<_> = found.collect();
        self.conclude(version, &what, &found);
        let (before, after) = (used(&views[0], &before, at), used(&views[0], &after, at));
        let had = |key| before.get(key).map_or(0, |(used, _)| *used);
        let grown = after.iter().filter(|(key, (used, _))| *used > had(key));
        let grown: Vec<_> = grown.collect();
        self.found.grown += usize::from(!grown.is_empty());
        self.found.filled += usize::from(grown.iter().any(|(_, (used, most))| used == most));
    }

    /// What the hub may know: what is stored, with budgets as they were lately, and with or without
    /// ledgers that were deleted lately.
    fn heard<'v>(&self, at: i64, views: impl Iterator<Item = &'v View>) -> Vec<View> {
        let lately = |since: i64| at - since < HEARING;
        let mut all = Vec::new();
        for view in views {
            let mut view = view.clone();
            view.budgets = self
                .budgets
                .iter()
                .map(|(region, all)| {
                    let current = all.len().saturating_sub(1);
                    let ended = |n: usize| all.get(n + 1).is_none_or(|(next, _)| lately(*next));
                    let counts = all
                        .iter()
                        .enumerate()
                        .filter(|(n, _)| *n == current || ended(*n));
                    let most = counts
                        .map(|(_, (_, budget))| *budget)
                        .reduce(|a, b| [0, 1, 2].map(|r| Some(a[r]?.max(b[r]?))));
                    (region.clone(), most.unwrap_or_default())
                })
                .collect();
            let mut with = view.clone();
            for (region, (since, gone)) in &self.deleted {
                if lately(*since) {
                    with.ledgers
                        .entry(region.clone())
                        .or_insert_with(|| gone.clone());
                }
            }
            if with != view {
                all.push(with);
            }
            all.push(view);
        }
        all
    }

    /// It is a breach if it is one by all that the hub may know.
    fn conclude(&mut self, version: u64, what: &str, found: &[Vec<String>]) {
        if found.iter().all(|found| !found.is_empty()) {
            let breach = format!("{version}: {what}: {}", found[0].join(", "));
            self.found.breaches.push(breach);
            self.found.first.get_or_insert(version);
        }
    }
}

/// By how much more than before there is more than there may be.
fn excess(before: &Sums, after: &Sums) -> Vec<String> {
    let over = |(sum, most): &(i64, i64)| (sum - most).max(0);
    let more = after
        .iter()
        .filter(|(key, sums)| over(sums) > before.get(*key).map_or(0, over));
    let text = |((limit, resource), (sum, most)): (&(Limit, usize), &(i64, i64))| {
        let of = limit.1.as_deref().unwrap_or("the budget");
        let resource = RESOURCES[*resource];
        format!("{sum} of {most} {resource} of {of} in {}", limit.0)
    };
    more.map(text).collect()
}

/// A tenant's namespace and those of all above it.
fn tenants(own: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(own), |own| {
        own.rsplit_once('-').map(|(above, _)| above)
    })
}

/// A Region and all above it.
fn regions(region: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(region), |region| {
        let found = ABOVE.iter().find(|(name, _)| name == region);
        found.map(|(_, above)| *above)
    })
}

impl View {
    fn grant(&self, region: &str, own: &str, resource: usize) -> Option<Grant> {
        self.ledgers.get(region)?.get(own)?[resource]
    }

    /// The nearest grant of one of these tenants, for a Region or one above.
    fn nearest<'n>(
        &self,
        tenants: impl Iterator<Item = &'n str>,
        region: &str,
        resource: usize,
    ) -> Option<Limit> {
        tenants.into_iter().find_map(|own| {
            let mut regions = regions(region);
            let found = regions.find(|region| self.grant(region, own, resource).is_some())?;
            Some((found.to_owned(), Some(own.to_owned())))
        })
    }

    /// What a grant is carved from.
    fn above(&self, region: &str, own: &str, resource: usize) -> Option<Limit> {
        if let Some(found) = self.nearest(tenants(own).skip(1), region, resource) {
            return Some(found);
        }
        // Budgets are for first tenants.
        let budget = self.budgets.get(region)?[resource];
        (budget.is_some() && !own.contains('-')).then(|| (region.to_owned(), None))
    }

    /// All grants, those of inner tenants first.
    fn grants(&self) -> Vec<(&str, &str, usize, Grant)> {
        let mut all = Vec::new();
        for (region, ledger) in &self.ledgers {
            for (own, resources) in ledger {
                for (resource, grant) in resources.iter().enumerate() {
                    all.extend(grant.map(|grant| (&**region, &**own, resource, grant)));
                }
            }
        }
        all.sort_by_key(|(_, own, ..)| std::cmp::Reverse(own.matches('-').count()));
        all
    }

    fn budget(&self, region: &str, resource: usize) -> i64 {
        let budget = self.budgets.get(region).and_then(|budget| budget[resource]);
        budget.unwrap_or(i64::MAX)
    }
}

/// What every grant and budget gives on, and what it has.
fn given(view: &View) -> Sums {
    let mut sums = Sums::new();
    for (region, own, resource, grant) in view.grants() {
        let Some(above) = view.above(region, own, resource) else {
            continue;
        };
        let most = match &above.1 {
            Some(own) => view
                .grant(&above.0, own, resource)
                .map_or(0, |grant| grant.nominal),
            None => view.budget(&above.0, resource),
        };
        sums.entry((above, resource)).or_insert((0, most)).0 += grant.nominal;
    }
    sums
}

/// What entries count, by cluster: of two of one UID that of the higher generation.
fn counted(slices: &BTreeMap<(String, String), Vec<Charged>>) -> Vec<(String, Charged)> {
    let mut all: BTreeMap<(&str, &str), &Charged> = BTreeMap::new();
    for ((cluster, _), entries) in slices {
        for entry in entries {
            let kept = all.entry((cluster, &entry.uid)).or_insert(entry);
            if kept.generation < entry.generation {
                *kept = entry;
            }
        }
    }
    let all = all.into_iter();
    all.map(|((cluster, _), entry)| (cluster.to_owned(), entry.clone()))
        .collect()
}

/// What an entry is charged: for its largest stage that is not over.
fn due(entry: &Charged, now: i64) -> Amounts {
    let begun = |(begins, _): &(Option<i64>, i64)| begins.is_none_or(|begins| begins <= now);
    let first = entry.stages.iter().rposition(begun).unwrap_or(0);
    let ahead = entry.stages.iter().skip(first).map(|(_, count)| *count);
    let replicas = ahead.max().unwrap_or(1);
    let surge = match replicas {
        1.. => (replicas * entry.percent + 99) / 100 + entry.surge,
        _ => 0,
    };
    [0, 1, 2].map(|r| entry.fixed[r] + entry.each[r] * (replicas + surge))
}

/// What is used of every grant and budget, with what the grants below keep for themselves.
fn used(view: &View, entries: &[(String, Charged)], now: i64) -> Sums {
    let mut used: BTreeMap<(Limit, usize), i64> = BTreeMap::new();
    for (cluster, entry) in entries {
        let region = cluster.split('-').next().unwrap_or_default();
        for (resource, amount) in due(entry, now).into_iter().enumerate() {
            if let Some(limit) = view.nearest(tenants(&entry.namespace), region, resource) {
                *used.entry((limit, resource)).or_default() += amount;
            }
        }
    }
    let mut sums = Sums::new();
    // Inner tenants first, so that what is below a grant is complete when its own turn comes.
    for (region, own, resource, grant) in view.grants() {
        let limit = (region.to_owned(), Some(own.to_owned()));
        let mine = used.get(&(limit.clone(), resource)).copied().unwrap_or(0);
        if let Some(above) = view.above(region, own, resource) {
            let held = mine.max(grant.nominal - grant.lends);
            *used.entry((above, resource)).or_default() += held;
        }
        sums.insert((limit, resource), (mine, grant.nominal + grant.borrows));
    }
    for ((limit, resource), sum) in used {
        if limit.1.is_none() {
            let most = view.budget(&limit.0, resource);
            sums.insert((limit, resource), (sum, most));
        }
    }
    sums
}
