//! What is carved from what: the sum of the grants below one is never more than it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{AcceptedResource, LEDGER_GRANTS_MAX, NamespaceName, Reason, RegionName};

use super::{Granted, depth, in_order, line, region_line};
use crate::amount::format_amount;
use crate::province::regions::Fleet;
use crate::world::{GrantKey, Grants, Parked, World, quota_name};

/// Where changes are tried. What is carved from what is added up only when there are any.
pub(super) struct Workbench<'a> {
    world: &'a World,
    fleet: &'a Fleet,
    carving: Option<Carving<'a>>,
    /// Grants and bytes of each Region's ledger.
    sizes: BTreeMap<RegionName, (usize, usize)>,
}

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
    pub(super) fn new(world: &'a World, fleet: &'a Fleet) -> Self {
        Self {
            world,
            fleet,
            carving: None,
            sizes: BTreeMap::new(),
        }
    }

    /// Whether a grant has a place in its Region's ledger, which it takes then.
    pub(super) fn has_place(
        &mut self,
        granted: &Granted,
        key: &GrantKey,
        resources: &[AcceptedResource],
    ) -> bool {
        let size = self.sizes.entry(key.1.clone()).or_insert_with(|| {
            let mine = granted.iter().filter(|((_, region), _)| *region == key.1);
            mine.fold((0, 0), |(count, sum), ((own, _), accepted)| {
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
        if fits {
            *size = (count, sum);
        }
        fits
    }

    /// Changes what a tenant has in a Region, or refuses and leaves all as it is.
    pub(super) fn change(
        &mut self,
        key: &GrantKey,
        wanted: Option<&Arc<Grants>>,
    ) -> Result<(), Parked> {
        let of = || Carving::of(self.world, self.fleet);
        self.carving.get_or_insert_with(of).change(key, wanted)
    }
}

/// What is carved from what, in nominal amounts.
struct Carving<'a> {
    world: &'a World,
    fleet: &'a Fleet,
    /// Nominal amount and what of it is granted on.
    nodes: BTreeMap<GrantKey, BTreeMap<Arc<str>, Carved>>,
    budgets: BTreeMap<(RegionName, Arc<str>), Carved>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Carved {
    nominal: i64,
    given: i64,
}

/// What a grant is carved from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whole {
    Quota(GrantKey),
    Budget(RegionName),
    /// Nothing limits it.
    Open,
}

impl<'a> Carving<'a> {
    /// What is in force.
    fn of(world: &'a World, fleet: &'a Fleet) -> Self {
        let mut carving = Self {
            world,
            fleet,
            nodes: BTreeMap::new(),
            budgets: BTreeMap::new(),
        };
        for (name, view) in &fleet.regions {
            for (resource, nominal) in view.region.budget.iter() {
                let carved = Carved { nominal, given: 0 };
                carving
                    .budgets
                    .insert((name.clone(), resource.into()), carved);
            }
        }
        for (key, accepted) in in_order(world, fleet) {
            for (resource, grant) in &*accepted.grants {
                let whole = carving.whole(&key, resource);
                carving.give(&whole, resource, grant.nominal);
                let carved = Carved {
                    nominal: grant.nominal,
                    given: 0,
                };
                let nodes = carving.nodes.entry(key.clone()).or_default();
                nodes.insert(resource.clone(), carved);
            }
        }
        carving
    }

    /// What a grant of a resource is, or would be, carved from.
    fn whole(&self, key: &GrantKey, resource: &str) -> Whole {
        let (regions, line) = (region_line(self.fleet, &key.1), line(self.world, &key.0));
        for own in &line[1..] {
            for region in &regions {
                let above = (own.clone(), region.clone());
                if self
                    .nodes
                    .get(&above)
                    .is_some_and(|nodes| nodes.contains_key(resource))
                {
                    return Whole::Quota(above);
                }
            }
        }
        // Budgets are for first tenants.
        if line.len() == 1 && self.budgets.contains_key(&(key.1.clone(), resource.into())) {
            return Whole::Budget(key.1.clone());
        }
        Whole::Open
    }

    fn at(&mut self, whole: &Whole, resource: &str) -> Option<&mut Carved> {
        match whole {
            Whole::Quota(key) => self.nodes.get_mut(key)?.get_mut(resource),
            Whole::Budget(region) => self.budgets.get_mut(&(region.clone(), resource.into())),
            Whole::Open => None,
        }
    }

    fn give(&mut self, whole: &Whole, resource: &str, amount: i64) {
        if let Some(carved) = self.at(whole, resource) {
            carved.given += amount;
        }
    }

    fn change(&mut self, key: &GrantKey, wanted: Option<&Arc<Grants>>) -> Result<(), Parked> {
        if wanted.is_some() {
            self.covered(key)?;
        }
        let before = self.nodes.get(key).cloned().unwrap_or_default();
        let none = Grants::new();
        let wanted = wanted.map_or(&none, |wanted| wanted);
        let resources: BTreeSet<Arc<str>> = before.keys().chain(wanted.keys()).cloned().collect();
        let steps = resources.into_iter().map(|resource| {
            let old = before.get(&resource).copied();
            let new = wanted.get(&resource).map(|grant| grant.nominal);
            self.step(key, resource, old, new)
        });
        let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
        for step in steps {
            self.take(key, step);
        }
        Ok(())
    }

    /// A tenant whose tenants above have Quotas gets one only where one of those counts.
    fn covered(&self, key: &GrantKey) -> Result<(), Parked> {
        let (regions, line) = (region_line(self.fleet, &key.1), line(self.world, &key.0));
        let (mut any, mut here) = (false, false);
        for own in &line[1..] {
            let first = (own.clone(), RegionName::from(""));
            let mine = self.nodes.range(first..);
            let mut mine = mine.take_while(|((name, _), nodes)| name == own && !nodes.is_empty());
            any |= mine.clone().next().is_some();
            here |= mine.any(|((_, region), _)| regions.contains(region));
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
        &mut self,
        key: &GrantKey,
        resource: Arc<str>,
        old: Option<Carved>,
        new: Option<i64>,
    ) -> Result<Step, Parked> {
        let whole = self.whole(key, &resource);
        let moves = match old {
            Some(_) => Vec::new(),
            None => self.below(key, &resource),
        };
        let sum = moves.iter().map(|(_, amount)| amount).sum();
        let given = old.map_or(sum, |old| old.given);
        if given > new.unwrap_or(0) {
            return Err(below_children(&resource, new.unwrap_or(0), given));
        }
        let here = moves.iter().filter(|(from, _)| *from == whole);
        let had = old.map_or(here.map(|(_, amount)| amount).sum(), |old| old.nominal);
        let has = new.unwrap_or(0);
        let above = self.at(&whole, &resource).copied();
        let others = above.map_or(0, |above| above.given - had);
        if let Some(above) = above.filter(|above| has > had && others + has > above.nominal) {
            return Err(exceeds(&whole, &resource, above, others, has));
        }
        Ok(Step {
            resource,
            whole,
            moves,
            given,
            old: old.map_or(0, |old| old.nominal),
            new,
        })
    }

    fn take(&mut self, key: &GrantKey, step: Step) {
        for (from, amount) in &step.moves {
            self.give(from, &step.resource, -amount);
        }
        let more = step.new.unwrap_or(0) - step.old;
        self.give(&step.whole, &step.resource, more);
        let nodes = self.nodes.entry(key.clone()).or_default();
        match step.new {
            Some(nominal) => {
                let carved = Carved {
                    nominal,
                    given: step.given,
                };
                nodes.insert(step.resource, carved);
            }
            None => drop(nodes.remove(&step.resource)),
        }
    }

    /// Grants that would be carved from one that does not exist yet, and what they are carved from now.
    fn below(&self, key: &GrantKey, resource: &str) -> Vec<(Whole, i64)> {
        let prefix = format!("{}-", key.0);
        let first = (prefix.as_str().into(), RegionName::from(""));
        let all = self.nodes.range(first..);
        let below = all.take_while(|((own, _), _)| own.as_str().starts_with(&prefix));
        let inside = below.filter(|(other, _)| region_line(self.fleet, &other.1).contains(&key.1));
        let moves = inside.filter_map(|(other, nodes)| {
            let amount = nodes.get(resource)?.nominal;
            let whole = self.whole(other, resource);
            let nearer = match &whole {
                Whole::Quota(above) => depth(self.fleet, key) > depth(self.fleet, above),
                Whole::Budget(_) | Whole::Open => true,
            };
            nearer.then_some((whole, amount))
        });
        moves.collect()
    }
}

/// What a change of one resource does.
struct Step {
    resource: Arc<str>,
    whole: Whole,
    /// Grants that come to lie below, by what they were carved from.
    moves: Vec<(Whole, i64)>,
    /// What is granted on.
    given: i64,
    old: i64,
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
