//! What stands around an App, for those who ask: its walls in each cluster, and the paths through them.

use crds::{
    ClusterName, ConditionStatus, ConditionType, LinkPort, NamespaceName, Timestamp, find_condition,
};

use super::baselines::{applies, enclosing, grade_in};
use super::enforcement::Force;
use crate::baseline::Baseline;
use crate::province::memory::Planner;
use crate::report::AppReport;
use crate::world::{LinkKey, LinkSlot, Parked, World};

/// What isolates an App's namespace in one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Wall {
    /// The cluster.
    pub cluster: ClusterName,
    /// Isolations that apply there; none at all means the defaults.
    pub isolations: Vec<Box<str>>,
    /// What they ask for together.
    pub baseline: Baseline,
    /// How far that is in force.
    pub force: Force,
    /// What the cluster tells of it, as a sentence.
    pub message: Option<String>,
}

/// A Link, from the side of one App.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSide {
    /// The Link.
    pub link: LinkKey,
    /// Whether connections begin at the App.
    pub leaves: bool,
    /// The other side, as `namespace/app`.
    pub others: Vec<String>,
    /// Ports of the target.
    pub ports: Vec<LinkPort>,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it is in force wherever one of the two sides is.
    pub in_force: bool,
    /// Why it lets nothing through, if that is so.
    pub refused: Option<Parked>,
}

impl Planner {
    /// What isolates an App in each cluster that it is placed on, after the last turn.
    pub fn walls(&self, world: &World, app: &AppReport) -> Vec<Wall> {
        let targets = app.targets.iter();
        let walls = targets.filter_map(|target| self.wall(world, &app.namespace, &target.cluster));
        walls.collect()
    }

    fn wall(
        &self,
        world: &World,
        namespace: &NamespaceName,
        cluster: &ClusterName,
    ) -> Option<Wall> {
        let report = self.report();
        let at = report.fleet.position(cluster)?;
        let (baselines, tenants) = (&report.baselines, &report.tenants);
        let enclosing = enclosing(&report.fleet, baselines, tenants, namespace, at)?;
        let view = report.fleet.clusters[at].cluster.as_ref().ok()?;
        let grade = grade_in(tenants, namespace, view.max_data_grade);
        let specs = baselines.specs.iter();
        let here = specs.filter(|(_, spec)| applies(spec, view.zone, grade));
        let ledger = world.ledger(&world.home_uid(namespace));
        let held = ledger.and_then(|ledger| ledger.entries.get(cluster));
        let told = ledger.and_then(|ledger| ledger.reports.get(cluster));
        let edited = &self.presence.edited;
        let force = |held| edited.force((namespace, cluster), held, told);
        Some(Wall {
            cluster: cluster.clone(),
            isolations: here.map(|(name, _)| name.clone()).collect(),
            baseline: enclosing.baseline.clone(),
            force: held.map_or(Force::Coming, force),
            message: told.and_then(|told| told.message.clone()),
        })
    }

    /// Links from an App and to it, after the last turn.
    pub fn paths(&self, world: &World, app: &AppReport) -> Vec<LinkSide> {
        let links = world.links();
        links
            .filter_map(|(key, slot)| self.path(app, key, slot))
            .collect()
    }

    fn path(&self, app: &AppReport, key: &LinkKey, slot: &LinkSlot) -> Option<LinkSide> {
        let spec = slot.state.as_ref().ok()?;
        let (home, _) = key;
        let to = &spec.to;
        let leaves = *home == app.namespace && spec.from.app_names.contains(&app.name);
        if !leaves && (to.namespace != app.namespace || to.app_name != app.name) {
            return None;
        }
        let sources = spec.from.app_names.iter();
        let others = if leaves {
            vec![format!("{}/{}", to.namespace, to.app_name)]
        } else {
            sources.map(|name| format!("{home}/{name}")).collect()
        };
        let verdict = self.report().links.verdicts.get(key)?;
        let status = self.report().link_statuses.get(key);
        let conditions = status.map_or(&slot.status.conditions, |status| &status.conditions);
        let ready = find_condition(conditions, ConditionType::Ready);
        Some(LinkSide {
            link: key.clone(),
            leaves,
            others,
            ports: to.ports.clone(),
            expires: spec.expires,
            in_force: ready.is_some_and(|ready| ready.status == ConditionStatus::True),
            refused: verdict.as_ref().err().cloned(),
        })
    }
}
