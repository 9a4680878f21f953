//! Where Apps draw from: which grant counts for a namespace in each cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{NamespaceName, RegionName};

use super::{Book, Nodes, Source, line, region_depth};
use crate::province::placement::At;
use crate::province::regions::Fleet;
use crate::quota::{Grant, Node};
use crate::world::{Grants, World};

/// Where the Apps of a namespace draw from, by cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desks {
    all: Vec<Desk>,
    at: Vec<usize>,
}

/// Where the Apps of a namespace draw from in one cluster: a node for each resource that is limited.
/// None at all means that the tenant has Quotas, but none that counts here.
pub(crate) type Desk = Nodes;

/// What was in force in Regions whose ledger is gone, by tenant.
pub(super) type Lost = BTreeMap<NamespaceName, BTreeMap<RegionName, Arc<Grants>>>;

impl Desks {
    pub(crate) fn desk(&self, at: At) -> &[(Arc<str>, Node)] {
        &self.all[self.at[at]]
    }

    /// Desks at which there is nothing.
    fn none(fleet: &Fleet) -> Self {
        Self {
            all: vec![Desk::new()],
            at: vec![0; fleet.clusters.len()],
        }
    }

    /// Draws from a grant in these clusters, before what is drawn from there.
    fn draw(&mut self, clusters: &[At], nodes: &[(Arc<str>, Node)]) {
        // Clusters that drew on the same before do so after as well.
        let mut known: Vec<(usize, usize)> = Vec::new();
        for at in clusters {
            let before = self.at[*at];
            let after = known.iter().find(|(from, _)| *from == before);
            self.at[*at] = if let Some((_, after)) = after {
                *after
            } else {
                let after = self.replace(before, nodes);
                known.push((before, after));
                after
            };
        }
    }

    /// Closes what is drawn from in the clusters of a grant whose ledger is gone: what is used counts where it
    /// would without that grant, and nothing grows until it is written again. `add` makes the node of a
    /// resource below another one.
    fn close(
        &mut self,
        clusters: &[At],
        told: &Grants,
        mut add: impl FnMut(&Arc<str>, Option<Node>, Grant) -> Node,
    ) {
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for at in clusters {
            let before = self.at[*at];
            let after = known.entry(before).or_insert_with(|| {
                let nodes = told.iter().map(|(resource, grant)| {
                    let mut above = self.all[before].iter();
                    let above = above.find_map(|(name, node)| (name == resource).then_some(*node));
                    (resource.clone(), add(resource, above, *grant))
                });
                let nodes: Nodes = nodes.collect();
                self.replace(before, &nodes)
            });
            self.at[*at] = *after;
        }
    }

    /// A desk like another one, but for these nodes.
    fn replace(&mut self, before: usize, nodes: &[(Arc<str>, Node)]) -> usize {
        let mut desk = nodes.to_vec();
        let listed = |name: &str| nodes.iter().any(|(other, _)| **other == *name);
        let others = self.all[before].iter().filter(|(name, _)| !listed(name));
        desk.extend(others.cloned());
        self.all.push(desk);
        self.all.len() - 1
    }

    /// Which of them it is: clusters with the same number draw from the same.
    pub(crate) fn number(&self, at: At) -> usize {
        self.at[at]
    }
}

/// What a tenant was granted in a Region.
enum Share<'a> {
    InForce(&'a Nodes),
    /// Its ledger is gone, and this is what its Quota says.
    Lost(&'a Grants),
}

impl Book {
    /// Where the Apps of a namespace draw from; `None` when they are not limited.
    pub(crate) fn desks(
        &mut self,
        world: &World,
        fleet: &Fleet,
        own: &NamespaceName,
    ) -> Option<Arc<Desks>> {
        if self.grants.is_empty() && world.quota_index.asking.is_empty() {
            return None;
        }
        if let Some(known) = self.desks.get(own) {
            return known.clone();
        }
        let desks = self.desks_along(world, fleet, &line(world, own));
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
        let same =
            |(mine, theirs): (&(_, Node), &(_, Node))| self.name(mine.1) == other.name(theirs.1);
        (0..mine.at.len()).all(|at| {
            let (mine, theirs) = (mine.desk(at), theirs.desk(at));
            mine.len() == theirs.len() && mine.iter().zip(theirs).all(same)
        })
    }

    /// The desks of the first tenant of a line: those of the tenant above, with its own Quotas before them.
    fn desks_along(
        &mut self,
        world: &World,
        fleet: &Fleet,
        whole: &[NamespaceName],
    ) -> Option<Arc<Desks>> {
        let (own, rest) = whole.split_first()?;
        let above = match rest.first() {
            Some(next) if line(world, next) == rest => self.desks(world, fleet, next),
            Some(_) | None => self.desks_along(world, fleet, rest),
        };
        let Self {
            grants,
            lost,
            subtrees,
            tree,
            names,
            sources,
            ..
        } = self;
        let (mine, lost) = (grants.get(own), lost.get(own));
        if mine.is_none_or(BTreeMap::is_empty) && lost.is_none() {
            // Whoever has a Quota of which nothing is in force yet starts nothing meanwhile.
            let asks = world.quota_index.asking.contains_key(own);
            return above.or_else(|| asks.then(|| Arc::new(Desks::none(fleet))));
        }
        let mine = mine.into_iter().flatten();
        let mine = mine.map(|(region, nodes)| (region, Share::InForce(nodes)));
        let lost = lost.into_iter().flatten();
        let lost = lost.map(|(region, told)| (region, Share::Lost(told)));
        let mut all: Vec<_> = mine.chain(lost).collect();
        // From the outside in, so that what is nearer replaces what is not.
        all.sort_by_key(|(region, _)| region_depth(fleet, region));
        let mut desks = above.map_or_else(|| Desks::none(fleet), |above| (*above).clone());
        for (region, grant) in all {
            let clusters = subtrees.get(region).map_or(&[][..], Vec::as_slice);
            match grant {
                Share::InForce(nodes) => desks.draw(clusters, nodes),
                Share::Lost(told) => {
                    sources.push(Source::Quota((own.clone(), region.clone())));
                    let source = sources.len() - 1;
                    desks.close(clusters, told, |resource, above, grant| {
                        names.push((source, resource.clone()));
                        tree.add_lost(above, grant)
                    });
                }
            }
        }
        Some(Arc::new(desks))
    }
}

/// What was in force in Regions whose ledger is gone, as far as their Quotas say.
pub(super) fn lost(world: &World) -> Lost {
    let mut lost: BTreeMap<NamespaceName, BTreeMap<_, _>> = BTreeMap::new();
    let regions = world.quota_index.regions.iter();
    for (region, known) in regions.filter(|(region, _)| world.quota_ledger(region).is_none()) {
        for slot in known.quotas.values().filter(|slot| slot.was_in_force()) {
            let mine = lost.entry(slot.grant.0.clone()).or_default();
            mine.insert(region.clone(), Arc::new(slot.told_grants()));
        }
    }
    lost
}
