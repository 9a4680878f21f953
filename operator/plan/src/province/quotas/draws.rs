//! What an App draws on: which Quota grants it what, what of that is used, and how much more it could have.

use std::collections::BTreeMap;

use crds::{ClusterName, Uid};

use super::{Book, Source};
use crate::amount::Resources;
use crate::province::memory::Planner;
use crate::province::placement::At;
use crate::quota::Node;
use crate::world::{GrantKey, World};

/// One resource of a Quota, as an App draws on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Clusters in which it does, or would.
    pub clusters: Vec<ClusterName>,
    /// The Quota; `None` where the tenant has some, but none that counts.
    pub source: Option<Source>,
    /// Resource; empty where nothing counts.
    pub resource: String,
    /// What a replica asks for.
    pub each: i64,
    /// What the App is charged in those clusters.
    pub charged: i64,
    /// What is granted.
    pub nominal: i64,
    /// What everybody together uses of it, with what the grants below keep for themselves.
    pub used: i64,
    /// What of that is borrowed.
    pub borrowed: i64,
    /// How much more may be used now, borrowed or not.
    pub left: i64,
    /// What leaves no more: the Quota itself or one above it, or a budget.
    pub limit: Option<Source>,
}

/// What of each grant others use.
#[derive(Debug)]
pub struct Lent<'a> {
    book: &'a Book,
    amounts: Vec<i64>,
}

impl Lent<'_> {
    /// Of one resource of a grant.
    pub fn of(&self, key: &GrantKey, resource: &str) -> i64 {
        let mut nodes = self.book.nodes(key).iter();
        let node = nodes.find(|(name, _)| **name == *resource);
        node.map_or(0, |(_, node)| self.amounts[*node])
    }
}

impl Planner {
    /// What of each grant others use after the last turn.
    pub fn lent(&self) -> Lent<'_> {
        Lent {
            book: &self.book,
            amounts: self.book.tree().lent(),
        }
    }

    /// What an App draws on after the last turn, in the clusters that do not refuse it; `None` when no
    /// Quota limits its tenant.
    pub fn draws(&self, world: &World, uid: &Uid) -> Option<Vec<Draw>> {
        let payer = self.payer(uid);
        let desks = payer.desks?;
        let report = self.report.apps.get(uid)?;
        let each = world
            .app(uid)
            .map(|slot| slot.footprint.charges.each.clone());
        let charged: BTreeMap<At, &Resources> =
            payer.charged.iter().map(|(at, due)| (*at, due)).collect();
        let mut draws: BTreeMap<Option<Node>, Draw> = BTreeMap::new();
        for (at, view) in self.report.fleet.clusters.iter().enumerate() {
            // Nothing is decided for an App that is parked or on its way out.
            let refuses = report.class.is_none() || report.refusal(at).is_some();
            if refuses && !charged.contains_key(&at) {
                continue;
            }
            let desk = desks.desk(at);
            let nothing = desk.is_empty().then_some(None);
            let nodes = desk.iter().map(|(_, node)| Some(*node));
            for node in nodes.chain(nothing) {
                let each = each.as_ref();
                let draw = draws.entry(node).or_insert_with(|| self.draw(node, each));
                draw.clusters.push(view.name.clone());
                let due = charged.get(&at).map_or(0, |due| due.get(&draw.resource));
                draw.charged += due;
            }
        }
        Some(draws.into_values().collect())
    }

    fn draw(&self, node: Option<Node>, each: Option<&Resources>) -> Draw {
        let mut draw = Draw {
            clusters: Vec::new(),
            source: None,
            resource: String::new(),
            each: 0,
            charged: 0,
            nominal: 0,
            used: 0,
            borrowed: 0,
            left: 0,
            limit: None,
        };
        let Some(node) = node else { return draw };
        let tree = self.book.tree();
        let (source, resource) = self.book.name(node);
        let (left, limit) = self.book.room(node, true);
        resource.clone_into(&mut draw.resource);
        draw.source = Some(source.clone());
        draw.each = each.map_or(0, |each| each.get(resource));
        (draw.nominal, draw.used) = (tree.grant(node).nominal, tree.used(node));
        (draw.borrowed, draw.left) = (tree.borrowed(node), left.max(0));
        draw.limit = Some(self.book.name(limit).0.clone());
        draw
    }
}
