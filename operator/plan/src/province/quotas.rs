//! Step: quotas. What of Quotas is in force, what is used of it, and how much more an App may use.
//!
//! A tenant draws on its Quota for the Region of the cluster, or for the nearest Region above; where it
//! has none, on that of the tenant above. A resource that a Quota does not list passes to the next one.
//! A tenant that has no Quota anywhere, nor any tenant above it, is not limited.

mod accept;
mod carving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{NamespaceName, RegionName};

pub use accept::{Granted, Granting, QuotaWrite, Standing as QuotaStanding};
pub(crate) use accept::{granting, writes};

use super::placement::At;
use super::regions::Fleet;
use crate::amount::Resources;
use crate::quota::{Grant, Node, Tree};
use crate::world::{GrantKey, World, quota_name};

/// What is in force and what is used of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    tree: Tree,
    /// What each node is of.
    names: Vec<(Source, Box<str>)>,
    /// Nodes of each grant, by resource.
    grants: BTreeMap<GrantKey, Vec<(Box<str>, Node)>>,
    budgets: BTreeMap<RegionName, Vec<(Box<str>, Node)>>,
    /// Where the Apps of each namespace draw from, as far as anybody asked.
    desks: BTreeMap<NamespaceName, Option<Arc<Desks>>>,
    lends: bool,
}

/// What a node is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Quota of a tenant for a Region.
    Quota(GrantKey),
    /// The budget of a Region.
    Budget(RegionName),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quota(key) => write!(f, "Quota {}", quota_name(key)),
            Self::Budget(region) => write!(f, "the budget of Region {region}"),
        }
    }
}

/// Where the Apps of a namespace draw from, by cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Desks {
    all: Vec<Desk>,
    at: Vec<usize>,
}

/// Where the Apps of a namespace draw from in one cluster: a node for each resource that is limited.
/// None at all means that the tenant has Quotas, but none that counts here.
pub(crate) type Desk = Vec<(Box<str>, Node)>;

impl Desks {
    pub(crate) fn desk(&self, at: At) -> &[(Box<str>, Node)] {
        &self.all[self.at[at]]
    }
}

/// The namespace and those of the tenants above. A namespace that is no tenant's has nobody above,
/// whatever its name; of one that is gone the name is all that is left.
fn line(world: &World, own: &NamespaceName) -> Vec<NamespaceName> {
    let mut line = vec![own.clone()];
    if world
        .namespaces
        .get(own)
        .is_some_and(|slot| slot.owner.is_none())
    {
        return line;
    }
    let mut name = own.as_str();
    while let Some((above, _)) = name.rsplit_once('-') {
        line.push(above.into());
        name = above;
    }
    line
}

/// The Region and all above it; of one that is not in the tree only itself.
fn region_line(fleet: &Fleet, region: &RegionName) -> Vec<RegionName> {
    let view = fleet.regions.get(region);
    view.map_or_else(|| vec![region.clone()], |view| view.line.clone())
}

impl Book {
    /// All that is in force, with nothing used.
    pub(crate) fn of(world: &World, fleet: &Fleet) -> Self {
        let mut book = Self::default();
        for (name, view) in &fleet.regions {
            for (resource, amount) in view.region.budget.iter() {
                let source = Source::Budget(name.clone());
                let node = book.add(None, Grant::budget(amount), source, resource);
                let nodes = book.budgets.entry(name.clone()).or_default();
                nodes.push((resource.into(), node));
            }
        }
        let closing: BTreeSet<&GrantKey> = world
            .quotas()
            .filter(|(_, slot)| slot.deleting)
            .map(|(_, slot)| &slot.grant)
            .collect();
        for (key, accepted) in in_order(world, fleet) {
            let above = line(world, &key.0);
            let regions = region_line(fleet, &key.1);
            let mut nodes = Vec::with_capacity(accepted.grants.len());
            for (resource, grant) in &*accepted.grants {
                let parent = book.above(&above, &regions, resource);
                let node = book.add(parent, *grant, Source::Quota(key.clone()), resource);
                if closing.contains(&key) {
                    book.tree.close(node);
                }
                nodes.push((resource.clone(), node));
            }
            book.grants.insert(key, nodes);
        }
        book
    }

    fn add(&mut self, parent: Option<Node>, grant: Grant, source: Source, resource: &str) -> Node {
        self.names.push((source, resource.into()));
        let inner = |node: Node| matches!(self.names[node].0, Source::Quota(_));
        self.lends |= grant.borrows > 0 || parent.is_some_and(inner);
        self.tree.add(parent, grant)
    }

    /// The node that a grant of a resource is carved from: that of the nearest tenant above, for the
    /// nearest Region, or the Region's budget.
    fn above(
        &self,
        line: &[NamespaceName],
        regions: &[RegionName],
        resource: &str,
    ) -> Option<Node> {
        let find = |nodes: &Vec<(Box<str>, Node)>| {
            let found = nodes.iter().find(|(name, _)| **name == *resource);
            found.map(|(_, node)| *node)
        };
        for own in &line[1..] {
            for region in regions {
                let key = (own.clone(), region.clone());
                if let Some(node) = self.grants.get(&key).and_then(find) {
                    return Some(node);
                }
            }
        }
        self.budgets.get(&regions[0]).and_then(find)
    }

    /// Where the Apps of a namespace draw from; `None` when they are not limited.
    pub(crate) fn desks(
        &mut self,
        world: &World,
        fleet: &Fleet,
        own: &NamespaceName,
    ) -> Option<Arc<Desks>> {
        if self.grants.is_empty() {
            return None;
        }
        if let Some(known) = self.desks.get(own) {
            return known.clone();
        }
        let desks = self.find_desks(world, fleet, own).map(Arc::new);
        self.desks.insert(own.clone(), desks.clone());
        desks
    }

    /// Whether the Apps of a namespace draw from the same grants in another book.
    pub(crate) fn same_sources(
        &self,
        own: &NamespaceName,
        other: &Self,
        theirs: Option<&Arc<Desks>>,
    ) -> bool {
        let (Some(Some(mine)), Some(theirs)) = (self.desks.get(own), theirs) else {
            return matches!(self.desks.get(own), None | Some(None)) && theirs.is_none();
        };
        let names = |book: &Self, desk: &[(Box<str>, Node)]| -> Vec<(Source, Box<str>)> {
            let nodes = desk.iter().map(|(_, node)| book.names[*node].clone());
            nodes.collect()
        };
        (0..mine.at.len()).all(|at| names(self, mine.desk(at)) == names(other, theirs.desk(at)))
    }

    fn find_desks(&self, world: &World, fleet: &Fleet, own: &NamespaceName) -> Option<Desks> {
        let line = line(world, own);
        let has_any = |own: &NamespaceName| {
            let first = self.grants.range((own.clone(), "".into())..).next();
            first.is_some_and(|((name, _), _)| name == own)
        };
        if !line.iter().any(has_any) {
            return None;
        }
        let mut desks = Desks {
            all: vec![Desk::new()],
            at: Vec::with_capacity(fleet.clusters.len()),
        };
        let mut known: BTreeMap<&RegionName, usize> = BTreeMap::new();
        for view in &fleet.clusters {
            let region = view.cluster.as_ref().ok().map(|cluster| &cluster.region);
            let place = region.map_or(0, |region| {
                *known.entry(region).or_insert_with(|| {
                    let desk = self.desk(&line, &region_line(fleet, region));
                    let same = desks.all.iter().position(|other| *other == desk);
                    same.unwrap_or_else(|| {
                        desks.all.push(desk);
                        desks.all.len() - 1
                    })
                })
            });
            desks.at.push(place);
        }
        Some(desks)
    }

    fn desk(&self, line: &[NamespaceName], regions: &[RegionName]) -> Desk {
        let mut desk = Desk::new();
        for own in line {
            for region in regions {
                let nodes = self.grants.get(&(own.clone(), region.clone()));
                for (resource, node) in nodes.into_iter().flatten() {
                    if !desk.iter().any(|(name, _)| name == resource) {
                        desk.push((resource.clone(), *node));
                    }
                }
            }
        }
        desk
    }

    /// Takes in that so much is used in a cluster, `times` 1, or no longer, -1.
    pub(crate) fn charge(&mut self, desk: &[(Box<str>, Node)], amounts: &Resources, times: i64) {
        for (resource, node) in desk {
            let amount = amounts.get(resource);
            if amount != 0 {
                self.tree.charge(*node, amount * times);
            }
        }
    }

    /// How much more may be used of a node, and which node on the way up leaves no more.
    pub(crate) fn room(&self, node: Node, borrowing: bool) -> (i64, Node) {
        if borrowing {
            self.tree.tightest(node)
        } else {
            self.tree.tightest_nominal(node)
        }
    }

    /// Whether anybody may use what others are granted.
    pub(crate) fn lends(&self) -> bool {
        self.lends
    }

    /// The tree itself, to look at.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Nodes whose use changed since the last time.
    pub(crate) fn take_touched(&mut self) -> Vec<Node> {
        self.tree.take_touched()
    }

    /// What a node is of, and of which resource.
    pub(crate) fn name(&self, node: Node) -> (&Source, &str) {
        let (source, resource) = &self.names[node];
        (source, resource)
    }

    /// Nodes of a grant, by resource.
    pub(crate) fn nodes(&self, key: &GrantKey) -> &[(Box<str>, Node)] {
        self.grants.get(key).map_or(&[], Vec::as_slice)
    }

    /// Charges that are tried, and taken back one by one.
    pub(crate) fn try_charge(&mut self, node: Node, amount: i64) {
        self.tree.charge(node, amount);
    }
}

/// All that is in force, tenants above before those below, and Regions above before those below.
fn in_order<'w>(world: &'w World, fleet: &Fleet) -> Vec<(GrantKey, &'w crate::world::Accepted)> {
    let mut all: Vec<_> = world.accepted().collect();
    all.sort_by_cached_key(|(key, _)| depth(fleet, key));
    all
}

/// How deep a grant lies: its tenant, then its Region. Parents come before their children by it.
fn depth(fleet: &Fleet, key: &GrantKey) -> (usize, usize) {
    let tenant = key.0.as_str().matches('-').count();
    let region = fleet.regions.get(&key.1).map_or(0, |view| view.line.len());
    (tenant, region)
}
