//! What a turn tells: statuses, Events and gauges.

use crds::{Condition, Uid};
use k8s_openapi::api::core::v1::ObjectReference;
use plan::world::AppSlot;
use plan::{PlanReport, World};

use super::announce::Announcer;
use super::statuses::{Owner, Status, Statuses};
use super::{Running, board};

impl Running {
    /// Statuses that differ from the ones last written, Events of trouble, and the gauges.
    pub(super) fn report(&mut self) {
        let (world, report) = (&self.gathered.world, self.planner.report());
        self.statuses
            .want_apps(&report.changed, |uid| report.apps.get(uid));
        let mut news = News {
            statuses: &self.statuses,
            announcer: self.term.as_mut().map(|term| &mut term.announcer),
        };
        for uid in &report.changed {
            if let (Some(slot), Some(app)) = (world.app(uid), report.apps.get(uid)) {
                news.announce(
                    &Owner::App(uid.clone()),
                    || regarding_app(slot),
                    &slot.status.conditions,
                    &app.status.conditions,
                );
            }
        }
        news.of_fleet(world, report);
        news.of_tenants(world, report);
        news.of_isolations(world, report);
        news.of_links(world, report);
        news.of_policies(world, report);
        board::show(&self.hub.metrics.board, &self.planner, &self.gathered);
    }
}

/// Where a report goes.
struct News<'a> {
    statuses: &'a Statuses,
    announcer: Option<&'a mut Announcer>,
}

impl News<'_> {
    fn of_fleet(&mut self, world: &World, report: &PlanReport) {
        for (name, slot) in world.regions() {
            let Some(status) = report.regions.get(name) else {
                continue;
            };
            let mut old = slot.status.clone();
            old.leader_epoch = None;
            if *status != old {
                let owner = Owner::Region(name.clone(), slot.uid.clone());
                self.announce(
                    &owner,
                    || regarding("Region", name.as_str(), &slot.uid),
                    &old.conditions,
                    &status.conditions,
                );
                self.want(owner, Status::Region(Box::new(status.clone())));
            }
        }
        for (name, slot) in world.clusters() {
            let Some(status) = report.clusters.get(name) else {
                continue;
            };
            let mut old = slot.status.clone();
            old.leader_epoch = None;
            if *status != old {
                let owner = Owner::Cluster(name.clone(), slot.uid.clone());
                self.announce(
                    &owner,
                    || regarding("MemberCluster", name.as_str(), &slot.uid),
                    &old.conditions,
                    &status.conditions,
                );
                self.want(owner, Status::Cluster(Box::new(status.clone())));
            }
        }
    }

    fn of_tenants(&mut self, world: &World, report: &PlanReport) {
        for (key, status) in &report.tenant_statuses {
            let Some(slot) = world.tenant(key) else {
                continue;
            };
            let owner = Owner::Tenant(key.clone(), slot.uid.clone());
            let regarding = || ObjectReference {
                namespace: Some(key.0.to_string()),
                ..regarding("Tenant", key.1.as_str(), &slot.uid)
            };
            self.announce(
                &owner,
                regarding,
                &slot.status.conditions,
                &status.conditions,
            );
            self.want(owner, Status::Tenant(Box::new(status.clone())));
        }
        for (key, status) in &report.quota_statuses {
            let Some(slot) = world.quota(key) else {
                continue;
            };
            let owner = Owner::Quota(key.clone(), slot.uid.clone());
            let regarding = || ObjectReference {
                namespace: Some(key.0.to_string()),
                ..regarding("Quota", &key.1, &slot.uid)
            };
            self.announce(
                &owner,
                regarding,
                &slot.status.conditions,
                &status.conditions,
            );
            self.want(owner, Status::Quota(Box::new(status.clone())));
        }
    }

    fn of_isolations(&mut self, world: &World, report: &PlanReport) {
        for (name, slot) in world.isolations() {
            let Some(status) = report.isolation_statuses.get(name) else {
                continue;
            };
            let owner = Owner::Isolation(name.into(), slot.uid.clone());
            self.announce(
                &owner,
                || regarding("Isolation", name, &slot.uid),
                &slot.status.conditions,
                &status.conditions,
            );
            self.want(owner, Status::Isolation(Box::new(status.clone())));
        }
    }

    fn of_links(&mut self, world: &World, report: &PlanReport) {
        for (key, slot) in world.links() {
            let Some(status) = report.link_statuses.get(key) else {
                continue;
            };
            let owner = Owner::Link(key.clone(), slot.uid.clone());
            let regarding = || ObjectReference {
                namespace: Some(key.0.to_string()),
                ..regarding("Link", &key.1, &slot.uid)
            };
            let old = &slot.status.conditions;
            self.announce(&owner, regarding, old, &status.conditions);
            self.want(owner, Status::Link(Box::new(status.clone())));
        }
    }

    fn of_policies(&mut self, world: &World, report: &PlanReport) {
        for (key, status) in &report.policy_statuses {
            let Some(slot) = world.policy(key) else {
                continue;
            };
            let owner = Owner::Policy(key.clone(), slot.uid.clone());
            let regarding = || ObjectReference {
                namespace: Some(key.0.to_string()),
                ..regarding("TrafficPolicy", &key.1, &slot.uid)
            };
            let old = &slot.status.conditions;
            self.announce(&owner, regarding, old, &status.conditions);
            self.want(owner, Status::Policy(Box::new(status.clone())));
        }
    }

    fn want(&self, owner: Owner, status: Status) {
        self.statuses.want(owner, status, true);
    }

    fn announce(
        &mut self,
        owner: &Owner,
        regarding: impl FnOnce() -> ObjectReference,
        old: &[Condition],
        new: &[Condition],
    ) {
        if let Some(announcer) = &mut self.announcer {
            announcer.compare(owner, regarding, old, new);
        }
    }
}

fn regarding_app(app: &AppSlot) -> ObjectReference {
    ObjectReference {
        namespace: Some(app.namespace.to_string()),
        ..regarding("App", app.name.as_str(), &app.uid)
    }
}

fn regarding(kind: &str, name: &str, uid: &Uid) -> ObjectReference {
    ObjectReference {
        api_version: Some("jiuzhou.io/v1alpha1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_string()),
        ..ObjectReference::default()
    }
}
