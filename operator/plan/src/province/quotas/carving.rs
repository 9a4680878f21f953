//! What is carved from what: the sum of the grants below one is never more than it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{AcceptedResource, LEDGER_GRANTS_MAX, NamespaceName, Reason, RegionName};

use super::{Book, Granted, depth, line, region_line};
use crate::amount::format_amount;
use crate::province::regions::Fleet;
use crate::quota::Node;
use crate::world::{GrantKey, Grants, Parked, World, quota_name};

/// Where changes are tried.
pub(super) struct Workbench<'a> {
    carving: Carving<'a>,
    /// Of each Region's ledger.
    sizes: BTreeMap<RegionName, Size>,
}

/// Grants and bytes.
type Size = (usize, usize);

/// Most bytes of one ledger, well below the store's limit of 1.5 MiB per object.
const LEDGER_BYTES_MAX: usize = 1_000_000;

/// About what a grant takes in its ledger.
fn bytes(own: &NamespaceName, resources: &[AcceptedResource]) -> usize {
    let texts = |r: &AcceptedResource| {
        let amounts = [&r.nominal, &r.borrowing_limit, &r.lending_limit];
        80 + r.name.len() + amounts.iter().map(|q| q.0.len()).sum::<usize>()
    };
    150 + own.as_str().len() + resources.iter().map(texts).sum::<usize>()
}

impl<'a> Workbench<'a> {
    pub(super) fn new(world: &'a World, fleet: &'a Fleet, book: &'a Book) -> Self {
        Self {
            carving: Carving {
                world,
                fleet,
                book,
                grants: BTreeMap::new(),
                budgets: BTreeMap::new(),
                going: BTreeMap::new(),
            },
            sizes: BTreeMap::new(),
        }
    }

    /// The grants and bytes of a Region's ledger with a grant in it; `None` if that is more than it holds.
    pub(super) fn size_with(
        &mut self,
        granted: &Granted,
        key: &GrantKey,
        resources: &[AcceptedResource],
    ) -> Option<Size> {
        let size = *self.sizes.entry(key.1.clone()).or_insert_with(|| {
            let mine = granted
                .region(&key.1)
                .into_iter()
                .flat_map(|mine| mine.iter());
            mine.fold((0, 0), |(count, sum), (own, accepted)| {
                (count + 1, sum + bytes(own, &accepted.resources))
            })
        });
        let before = granted
            .get(key)
            .map_or((0, 0), |accepted| (1, bytes(&key.0, &accepted.resources)));
        let count = size.0 + 1 - before.0;
        let sum = size.1 + bytes(&key.0, resources) - before.1;
        // What shrinks may always be written.
        let fits = count <= LEDGER_GRANTS_MAX && sum <= LEDGER_BYTES_MAX || sum <= size.1;
        fits.then_some((count, sum))
    }

    /// Takes in how large a Region's ledger is now.
    pub(super) fn resize(&mut self, region: &RegionName, size: Size) {
        self.sizes.insert(region.clone(), size);
    }

    /// Changes what a tenant has in a Region, or refuses and leaves all as it is. Whether it may be
    /// written: what needs a change that is in no ledger yet has its place, and waits until it is.
    pub(super) fn change(
        &mut self,
        key: &GrantKey,
        wanted: Option<&Arc<Grants>>,
    ) -> Result<bool, Parked> {
        self.carving.change(key, wanted)
    }
}

/// What is carved from what, in nominal amounts: as the book has it, and what is changed of that.
struct Carving<'a> {
    world: &'a World,
    fleet: &'a Fleet,
    book: &'a Book,
    /// Grants that differ from the book's; `None` where nothing is granted any more.
    grants: BTreeMap<NamespaceName, BTreeMap<RegionName, Changes>>,
    budgets: BTreeMap<(RegionName, Arc<str>), Carved>,
    /// Nominal amounts that are to go, and are there until that is stored.
    going: BTreeMap<GrantKey, BTreeMap<Arc<str>, i64>>,
}

/// What differs of one grant.
type Changes = BTreeMap<Arc<str>, Option<Carved>>;

/// Each Region has a ledger of its own, and any of a turn's ledgers may come first, late or never. So what
/// a change takes must be there whichever of the others are stored.
#[derive(Clone, Copy, Debug, Default)]
struct Carved {
    nominal: i64,
    given: i64,
    /// The least and the most that `nominal` is, by any part of what is written.
    least: i64,
    most: i64,
    /// The most that is given on, by any part of it.
    peak: i64,
}

impl Carved {
    /// As it is stored.
    const fn of(nominal: i64, given: i64) -> Self {
        Self {
            nominal,
            given,
            least: nominal,
            most: nominal,
            peak: given,
        }
    }
}

/// Whom and where a grant is for.
type Place<'a> = (&'a NamespaceName, &'a RegionName);

/// What a grant is carved from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whole {
    Quota(GrantKey),
    Budget(RegionName),
    /// Nothing limits it.
    Open,
}

impl Carving<'_> {
    /// What is granted of one resource, and what of that is granted on.
    fn grant(&self, (own, region): Place<'_>, resource: &str) -> Option<Carved> {
        let changed = self.grants.get(own).and_then(|mine| mine.get(region));
        match changed.and_then(|changed| changed.get(resource)) {
            Some(changed) => *changed,
            None => Some(self.carved(self.book.node((own, region), resource)?)),
        }
    }

    /// A Region's budget of one resource.
    fn budget(&self, region: &RegionName, resource: &Arc<str>) -> Option<Carved> {
        let changed = self.budgets.get(&(region.clone(), resource.clone()));
        let known = || Some(self.carved(self.book.budget(region, resource)?));
        changed.copied().or_else(known)
    }

    fn carved(&self, node: Node) -> Carved {
        let tree = self.book.tree();
        Carved::of(tree.grant(node).nominal, tree.carved(node))
    }

    /// All that is granted to a tenant in a Region.
    fn all_of(&self, (own, region): Place<'_>) -> BTreeMap<Arc<str>, Carved> {
        let nodes = self.book.grants.get(own).and_then(|mine| mine.get(region));
        let nodes = nodes.into_iter().flatten();
        let mut all: BTreeMap<Arc<str>, Carved> = nodes
            .map(|(resource, node)| (resource.clone(), self.carved(*node)))
            .collect();
        let changed = self.grants.get(own).and_then(|mine| mine.get(region));
        for (resource, changed) in changed.into_iter().flatten() {
            match changed {
                Some(carved) => drop(all.insert(resource.clone(), *carved)),
                None => drop(all.remove(resource)),
            }
        }
        all
    }

    /// Regions in which a tenant has, or had, anything.
    fn regions_of(&self, own: &NamespaceName) -> BTreeSet<&RegionName> {
        let known = self
            .book
            .grants
            .get(own)
            .into_iter()
            .flat_map(BTreeMap::keys);
        let changed = self.grants.get(own).into_iter().flat_map(BTreeMap::keys);
        known.chain(changed).collect()
    }

    /// What a grant of a resource is, or would be, carved from.
    fn whole(&self, place: Place<'_>, resource: &Arc<str>) -> Whole {
        self.nearest(place, resource, |above| {
            self.grant(above, resource).is_some()
        })
    }

    /// The same, as the ledgers are stored.
    fn stored_whole(&self, place: Place<'_>, resource: &Arc<str>) -> Whole {
        self.nearest(place, resource, |above| {
            self.book.node(above, resource).is_some()
        })
    }

    fn nearest(
        &self,
        (own, region): Place<'_>,
        resource: &Arc<str>,
        lists: impl Fn(Place<'_>) -> bool,
    ) -> Whole {
        let (regions, line) = (region_line(self.fleet, region), line(self.world, own));
        for above in &line[1..] {
            if let Some(at) = regions.iter().find(|at| lists((above, at))) {
                return Whole::Quota((above.clone(), (*at).clone()));
            }
        }
        // Budgets are for first tenants.
        if line.len() == 1 && self.budget(region, resource).is_some() {
            return Whole::Budget(region.clone());
        }
        Whole::Open
    }

    fn at(&self, whole: &Whole, resource: &Arc<str>) -> Option<Carved> {
        match whole {
            Whole::Quota((own, region)) => self.grant((own, region), resource),
            Whole::Budget(region) => self.budget(region, resource),
            Whole::Open => None,
        }
    }

    fn give(&mut self, whole: &Whole, resource: &Arc<str>, amount: i64) {
        let Some(mut carved) = self.at(whole, resource) else {
            return;
        };
        carved.given += amount;
        // What is given back is not there before that is stored.
        carved.peak += amount.max(0);
        match whole {
            Whole::Quota(key) => self.set(key, resource, Some(carved)),
            Whole::Budget(region) => {
                let key = (region.clone(), resource.clone());
                self.budgets.insert(key, carved);
            }
            Whole::Open => {}
        }
    }

    fn set(&mut self, (own, region): &GrantKey, resource: &Arc<str>, carved: Option<Carved>) {
        let mine = self.grants.entry(own.clone()).or_default();
        let changes = mine.entry(region.clone()).or_default();
        changes.insert(resource.clone(), carved);
    }

    fn change(&mut self, key: &GrantKey, wanted: Option<&Arc<Grants>>) -> Result<bool, Parked> {
        if wanted.is_some() {
            self.covered(key)?;
        }
        let before = self.all_of((&key.0, &key.1));
        let none = Grants::new();
        let wanted = wanted.map_or(&none, |wanted| wanted);
        let resources: BTreeSet<Arc<str>> = before.keys().chain(wanted.keys()).cloned().collect();
        let steps = resources.into_iter().map(|resource| {
            let old = before.get(&resource).copied();
            let new = wanted.get(&resource).map(|grant| grant.nominal);
            self.step(key, resource, old, new)
        });
        let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
        let firm = steps.iter().all(|step| self.is_firm(key, step));
        for step in steps {
            self.take(key, &step);
        }
        Ok(firm)
    }

    /// Whether there is room for a step whichever ledgers of this turn are stored.
    fn is_firm(&self, key: &GrantKey, step: &Step) -> bool {
        let has = step.new.unwrap_or(0);
        if step.peak > has {
            return false;
        }
        let more = has - step.had;
        // Until what is to go is gone, the store still has that as what the grant is carved from. Without
        // any, the two differ only where a new grant comes between, of which nothing is given on yet.
        let stored = more <= 0
            || self.going.is_empty()
            || self.stored_whole((&key.0, &key.1), &step.resource) == step.whole;
        let above = self.at(&step.whole, &step.resource);
        stored && above.is_none_or(|above| more <= 0 || above.peak + more <= above.least)
    }

    /// A tenant whose tenants above have Quotas gets one only where one of those counts.
    fn covered(&self, key: &GrantKey) -> Result<(), Parked> {
        let (regions, line) = (region_line(self.fleet, &key.1), line(self.world, &key.0));
        let (mut any, mut here) = (false, false);
        for own in &line[1..] {
            for region in self.regions_of(own) {
                if !self.all_of((own, region)).is_empty() {
                    any = true;
                    here |= regions.contains(region);
                }
            }
        }
        if any && !here {
            let message = format!(
                "spec.regionName {} is covered by no Quota of the tenants above, which have some: have one made for it there first",
                key.1
            );
            return Err(Parked::new(Reason::ExceedsParent, message));
        }
        Ok(())
    }

    /// What a change of one resource does, if it may be.
    fn step(
        &self,
        key: &GrantKey,
        resource: Arc<str>,
        old: Option<Carved>,
        new: Option<i64>,
    ) -> Result<Step, Parked> {
        let whole = self.whole((&key.0, &key.1), &resource);
        let moves = match old {
            Some(_) => Vec::new(),
            None => self.below(key, &resource),
        };
        let sum = moves.iter().map(|(_, moved)| moved.nominal).sum();
        let most: i64 = moves.iter().map(|(_, moved)| moved.most).sum();
        let going: i64 = inner(self.fleet, &self.going, key)
            .filter_map(|(_, amounts)| amounts.get(&resource))
            .sum();
        let given = old.map_or(sum, |old| old.given);
        if given > new.unwrap_or(0) {
            return Err(below_children(&resource, new.unwrap_or(0), given));
        }
        let here = moves.iter().filter(|(from, _)| *from == whole);
        let here = here.map(|(_, moved)| moved.nominal).sum();
        let had = old.map_or(here, |old| old.nominal);
        let has = new.unwrap_or(0);
        let above = self.at(&whole, &resource);
        let others = above.map_or(0, |above| above.given - had);
        if let Some(above) = above.filter(|above| has > had && others + has > above.nominal) {
            return Err(exceeds(&whole, &resource, above, others, has));
        }
        Ok(Step {
            resource,
            whole,
            moves,
            given,
            peak: old.map_or(most + going, |old| old.peak),
            had,
            old,
            new,
        })
    }

    fn take(&mut self, key: &GrantKey, step: &Step) {
        for (from, moved) in &step.moves {
            if *from != step.whole {
                self.give(from, &step.resource, -moved.nominal);
            }
        }
        let more = step.new.unwrap_or(0) - step.had;
        self.give(&step.whole, &step.resource, more);
        if step.new.is_none() {
            let going = self.going.entry(key.clone()).or_default();
            going.insert(step.resource.clone(), step.old.map_or(0, |old| old.most));
        }
        let carved = step.new.map(|nominal| Carved {
            nominal,
            given: step.given,
            least: step.old.map_or(0, |old| old.least.min(nominal)),
            most: step.old.map_or(nominal, |old| old.most.max(nominal)),
            peak: step.peak,
        });
        self.set(key, &step.resource, carved);
    }

    /// Grants that would be carved from one that does not exist yet, and what they are carved from now.
    fn below(&self, key: &GrantKey, resource: &Arc<str>) -> Vec<(Whole, Carved)> {
        let prefix = format!("{}-", key.0);
        let inside = |own: &&NamespaceName| own.as_str().starts_with(&prefix);
        let from = NamespaceName::from(prefix.as_str());
        let known = self.book.grants.range(from.clone()..).map(|(own, _)| own);
        let changed = self.grants.range(from..).map(|(own, _)| own);
        let all: BTreeSet<&NamespaceName> = known
            .take_while(inside)
            .chain(changed.take_while(inside))
            .collect();
        let mut moves = Vec::new();
        for own in all {
            for region in self.regions_of(own) {
                let place = (own, region);
                let Some(grant) = self.grant(place, resource) else {
                    continue;
                };
                if !region_line(self.fleet, region).contains(&key.1) {
                    continue;
                }
                let whole = self.whole(place, resource);
                let nearer = match &whole {
                    Whole::Quota(above) => depth(self.fleet, key) > depth(self.fleet, above),
                    Whole::Budget(_) | Whole::Open => true,
                };
                if nearer {
                    moves.push((whole, grant));
                }
            }
        }
        moves
    }
}

/// What inner tenants have in a Region and below.
fn inner<'m, T>(
    fleet: &Fleet,
    all: &'m BTreeMap<GrantKey, T>,
    (own, region): &GrantKey,
) -> impl Iterator<Item = (&'m GrantKey, &'m T)> {
    let prefix = format!("{own}-");
    let first = (prefix.as_str().into(), RegionName::from(""));
    let below = all.range(first..);
    let below = below.take_while(move |((own, _), _)| own.as_str().starts_with(&prefix));
    below.filter(move |((_, inner), _)| region_line(fleet, inner).contains(region))
}

/// What a change of one resource does.
struct Step {
    resource: Arc<str>,
    whole: Whole,
    /// Grants that come to lie below, by what they were carved from.
    moves: Vec<(Whole, Carved)>,
    /// What is granted on, and the most that it is by any part of what is written.
    given: i64,
    peak: i64,
    /// What of `whole` it, or what comes to lie below it, has already.
    had: i64,
    old: Option<Carved>,
    new: Option<i64>,
}

fn below_children(resource: &str, asked: i64, given: i64) -> Parked {
    let text = |amount| format_amount(resource, amount);
    Parked::new(
        Reason::BelowChildren,
        format!(
            "spec.resources asks for {} {resource}, but {} are granted on to the tenant's own tenants: lower their Quotas first",
            text(asked),
            text(given)
        ),
    )
}

fn exceeds(whole: &Whole, resource: &str, above: Carved, others: i64, asked: i64) -> Parked {
    let text = |amount| format_amount(resource, amount);
    let left = (above.nominal - others).max(0);
    let ask = if left > 0 {
        format!("ask for at most {}", text(left))
    } else {
        "have one of those lowered".to_owned()
    };
    let (nominal, others, asked) = (text(above.nominal), text(others), text(asked));
    match whole {
        Whole::Quota(key) => Parked::new(
            Reason::ExceedsParent,
            format!(
                "spec.resources asks for {asked} {resource}, but of {nominal} in Quota {} others below it have {others}: {ask}, or have that Quota raised",
                quota_name(key)
            ),
        ),
        Whole::Budget(_) | Whole::Open => Parked::new(
            Reason::ExceedsBudget,
            format!(
                "spec.resources asks for {asked} {resource}, but of {nominal} in the Region's spec.budget others have {others}: {ask}, or raise the budget"
            ),
        ),
    }
}
