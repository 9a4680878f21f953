//! Step: quotas. What of Quotas is in force, what is used of it, and how much more an App may use.
//!
//! A tenant draws on its Quota for the Region of the cluster, or for the nearest Region above; where it
//! has none, on that of the tenant above. A resource that a Quota does not list passes to the next one.
//! A tenant that has no Quota anywhere, nor any tenant above it, is not limited.

mod accept;
mod carving;
mod desks;
mod docket;
mod draws;

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{NamespaceName, RegionName};

pub use accept::{Granted, Granting, QuotaWrite, Standing as QuotaStanding};
pub(crate) use accept::{granting, writes};
pub(crate) use desks::Desks;
pub(crate) use docket::Dockets;
pub use draws::{Draw, Lent};

use super::placement::At;
use super::regions::Fleet;
use crate::amount::Resources;
use crate::quota::{Grant, Node, Tree};
use crate::world::{Accepted, GrantKey, Grants, World, quota_name};

/// What is in force and what is used of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    tree: Tree,
    /// What each node is of.
    names: Vec<(usize, Arc<str>)>,
    sources: Vec<Source>,
    /// What the book was made from: which Quotas there are, and what of them is in force.
    shape: u64,
    ledgers: BTreeMap<RegionName, Arc<BTreeMap<NamespaceName, Accepted>>>,
    /// Nodes of each grant, by tenant, Region and resource.
    grants: BTreeMap<NamespaceName, BTreeMap<RegionName, Nodes>>,
    budgets: BTreeMap<RegionName, Nodes>,
    /// What was in force in Regions whose ledger is gone.
    lost: desks::Lost,
    /// Where the Apps of each namespace draw from, as far as anybody asked.
    desks: BTreeMap<NamespaceName, Option<Arc<Desks>>>,
    lends: bool,
    /// Clusters of each Region and all below it.
    subtrees: BTreeMap<RegionName, Vec<At>>,
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

/// Nodes by resource.
type Nodes = Vec<(Arc<str>, Node)>;

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
fn region_line<'a>(fleet: &'a Fleet, region: &'a RegionName) -> &'a [RegionName] {
    let view = fleet.regions.get(region);
    view.map_or(std::slice::from_ref(region), |view| &view.line)
}

/// What a grant is carved from.
struct Above {
    /// Its node, if anything limits it.
    node: Option<Node>,
    /// Whether it was carved from something nearer, whose ledger is gone: nobody knows how much that has
    /// left, so nothing grows.
    lost: bool,
}

impl Book {
    /// All that is in force, with nothing used.
    pub(crate) fn of(world: &World, fleet: &Fleet) -> Self {
        let mut book = Self::default();
        for (at, view) in fleet.clusters.iter().enumerate() {
            let region = fleet.region_of(view).into_iter();
            for name in region.flat_map(|region| &region.line) {
                book.subtrees.entry(name.clone()).or_default().push(at);
            }
        }
        for (name, view) in &fleet.regions {
            let source = book.source(Source::Budget(name.clone()));
            for (resource, amount) in view.region.budget.iter() {
                let node = book.add(None, Grant::budget(amount), source, &resource.into());
                let nodes = book.budgets.entry(name.clone()).or_default();
                nodes.push((resource.into(), node));
            }
        }
        book.shape = world.quota_index.shape;
        book.lost = desks::lost(world);
        for (own, all) in in_order(world, fleet) {
            book.enter(world, fleet, own, &all);
        }
        book.ledgers = ledgers(world);
        book
    }

    /// Takes in all that is in force of one tenant.
    fn enter(
        &mut self,
        world: &World,
        fleet: &Fleet,
        own: &NamespaceName,
        all: &[(&RegionName, &Accepted)],
    ) {
        let line = line(world, own);
        let mut mine = BTreeMap::new();
        for (region, accepted) in all {
            let parents = self.parents(fleet, &line, region, &accepted.grants);
            let key = (own.clone(), (*region).clone());
            let closes = world.quota_index.closing.contains_key(&key);
            let source = self.source(Source::Quota(key));
            let mut nodes = Nodes::with_capacity(parents.len());
            for ((resource, grant), above) in accepted.grants.iter().zip(parents) {
                let node = self.add(above.node, *grant, source, resource);
                if closes || above.lost {
                    self.tree.close(node);
                }
                nodes.push((resource.clone(), node));
            }
            mine.insert((*region).clone(), nodes);
        }
        self.grants.insert(own.clone(), mine);
    }

    /// Takes in ledgers that differ in amounts alone; `false` when more than that changed, so that the
    /// book has to be made anew.
    pub(crate) fn update(&mut self, world: &World) -> bool {
        let mut changes = Vec::new();
        if self.ledgers.len() != world.quota_ledgers.len() || self.shape != world.quota_index.shape
        {
            return false;
        }
        for (region, ledger) in &world.quota_ledgers {
            let Some(before) = self.ledgers.get(region) else {
                return false;
            };
            if Arc::ptr_eq(before, &ledger.grants) {
                continue;
            }
            if !before.keys().eq(ledger.grants.keys()) {
                return false;
            }
            for ((own, old), new) in before.iter().zip(ledger.grants.values()) {
                if old.grants == new.grants {
                    continue;
                }
                if !old.grants.keys().eq(new.grants.keys()) {
                    return false;
                }
                changes.push(((own.clone(), region.clone()), new.grants.clone()));
            }
        }
        for (key, grants) in changes {
            for (resource, node) in self.nodes(&key).to_vec() {
                if let Some(grant) = grants.get(&resource) {
                    self.tree.set(node, *grant);
                    self.lends |= grant.borrows > 0;
                }
            }
        }
        self.ledgers = ledgers(world);
        true
    }

    fn source(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    fn add(
        &mut self,
        parent: Option<Node>,
        grant: Grant,
        source: usize,
        resource: &Arc<str>,
    ) -> Node {
        self.names.push((source, resource.clone()));
        let inner = |node: Node| matches!(self.name(node).0, Source::Quota(_));
        self.lends |= grant.borrows > 0 || parent.is_some_and(inner);
        self.tree.add(parent, grant)
    }

    /// What each resource of a grant is carved from: that of the nearest tenant above, for the nearest
    /// Region, or the Region's budget.
    fn parents(
        &self,
        fleet: &Fleet,
        line: &[NamespaceName],
        region: &RegionName,
        grants: &Grants,
    ) -> Vec<Above> {
        let regions = region_line(fleet, region);
        let mut above: Vec<(&[_], Option<&Arc<Grants>>)> = Vec::new();
        for own in &line[1..] {
            let (mine, lost) = (self.grants.get(own), self.lost.get(own));
            for region in regions {
                let nodes = mine.and_then(|mine| mine.get(region));
                above.extend(nodes.map(|nodes| (nodes.as_slice(), None)));
                let lost = lost.and_then(|lost| lost.get(region));
                above.extend(lost.map(|lost| (&[][..], Some(lost))));
            }
        }
        // Budgets are for first tenants.
        let budget = self.budgets.get(region).filter(|_| line.len() == 1);
        above.extend(budget.map(|nodes| (nodes.as_slice(), None)));
        let find = |resource: &Arc<str>| {
            let mut lost = false;
            for (nodes, gone) in &above {
                if let Some((_, node)) = nodes.iter().find(|(name, _)| name == resource) {
                    return (Some(*node), lost);
                }
                lost |= gone.is_some_and(|gone| gone.contains_key(resource));
            }
            (None, lost)
        };
        let all = grants.keys().map(find);
        all.map(|(node, lost)| Above { node, lost }).collect()
    }

    /// Takes in that so much is used in a cluster, `times` 1, or no longer, -1.
    pub(crate) fn charge(&mut self, desk: &[(Arc<str>, Node)], amounts: &Resources, times: i64) {
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
        (&self.sources[*source], resource)
    }

    /// Nodes of a grant, by resource.
    pub(crate) fn nodes(&self, key: &GrantKey) -> &[(Arc<str>, Node)] {
        let nodes = self.grants.get(&key.0).and_then(|mine| mine.get(&key.1));
        nodes.map_or(&[], Vec::as_slice)
    }

    /// The node of one resource of a grant.
    fn node(&self, (own, region): (&NamespaceName, &RegionName), resource: &str) -> Option<Node> {
        let mut nodes = self.grants.get(own)?.get(region)?.iter();
        nodes.find_map(|(name, node)| (**name == *resource).then_some(*node))
    }

    /// The node of one resource of a Region's budget.
    fn budget(&self, region: &RegionName, resource: &str) -> Option<Node> {
        let mut nodes = self.budgets.get(region)?.iter();
        nodes.find_map(|(name, node)| (**name == *resource).then_some(*node))
    }

    /// Charges that are tried, and taken back one by one.
    pub(crate) fn try_charge(&mut self, node: Node, amount: i64) {
        self.tree.charge(node, amount);
    }
}

fn ledgers(world: &World) -> BTreeMap<RegionName, Arc<BTreeMap<NamespaceName, Accepted>>> {
    let ledgers = world.quota_ledgers.iter();
    ledgers
        .map(|(region, ledger)| (region.clone(), ledger.grants.clone()))
        .collect()
}

/// All that is in force, tenants above before those below, and of each Regions above before those below.
fn in_order<'w>(
    world: &'w World,
    fleet: &Fleet,
) -> BTreeMap<&'w NamespaceName, Vec<(&'w RegionName, &'w Accepted)>> {
    // A name comes before those that it begins.
    let mut tenants: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut regions: Vec<_> = world.quota_ledgers.iter().collect();
    regions.sort_by_key(|(region, _)| region_depth(fleet, region));
    for (region, ledger) in regions {
        for (own, accepted) in &*ledger.grants {
            tenants.entry(own).or_default().push((region, accepted));
        }
    }
    tenants
}

/// How deep a grant lies: its tenant, then its Region. Parents come before their children by it.
fn depth(fleet: &Fleet, key: &GrantKey) -> (usize, usize) {
    (tenant_depth(&key.0), region_depth(fleet, &key.1))
}

fn tenant_depth(own: &NamespaceName) -> usize {
    own.as_str().bytes().filter(|byte| *byte == b'-').count()
}

fn region_depth(fleet: &Fleet, region: &RegionName) -> usize {
    fleet.regions.get(region).map_or(0, |view| view.line.len())
}
