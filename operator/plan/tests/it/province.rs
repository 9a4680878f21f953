//! A province to test with: builders that read as prose, and a simulator that carries plans out as
//! the hub and well-behaved agents would.

pub(crate) mod agent;
pub(crate) mod draft;
pub(crate) mod enclosures;
pub(crate) mod grants;
pub(crate) mod policies;
pub(crate) mod tenancy;

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    APP_FINALIZER, App, AppSpec, Approval, AssignmentSlice, ClusterName, ClusterReport, Condition,
    ConditionType, ContentHash, Entry, Isolation, Link, MemberCluster, Quota, QuotaLedger, Reason,
    Region, RegionName, Tenant, TrafficPolicy, Uid, find_condition,
};
use plan::province::{Plan, Refusal, SliceWrite};
use plan::report::AppReport;
use plan::world::{
    Hub, LinkKey, NamespaceSlot, PolicyKey, QuotaKey, Settings, StoredContent, TenantKey,
};
use plan::{Planner, World, check, plan as decide};
use serde_json::{Value, json};

use agent::Agent;
pub(crate) use draft::{Draft, app, cluster, manifest, region};

/// When every test begins; no whole second, so that cut times show.
pub(crate) const START: i64 = 1_800_000_000_250;
/// Turns after which a province that is not quiet is taken never to be.
const TURNS_MAX: usize = 60;

/// A simulated province.
#[derive(Clone)]
pub(crate) struct Province {
    pub(crate) world: World,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) clusters: BTreeMap<ClusterName, MemberCluster>,
    pub(crate) regions: BTreeMap<RegionName, Region>,
    pub(crate) tenants: BTreeMap<TenantKey, Tenant>,
    pub(crate) quotas: BTreeMap<QuotaKey, Quota>,
    pub(crate) isolations: BTreeMap<String, Isolation>,
    pub(crate) links: BTreeMap<LinkKey, Link>,
    pub(crate) policies: BTreeMap<PolicyKey, TrafficPolicy>,
    pub(crate) quota_ledgers: BTreeMap<RegionName, QuotaLedger>,
    pub(crate) agents: BTreeMap<ClusterName, Agent>,
    pub(crate) slices: BTreeMap<(ClusterName, String), AssignmentSlice>,
    pub(crate) contents: BTreeMap<String, StoredContent>,
    pub(crate) approvals: Vec<Approval>,
    /// Contents with which workloads do not become healthy.
    pub(crate) bad: BTreeSet<ContentHash>,
    /// Contents that clusters refuse.
    pub(crate) refused: BTreeSet<ContentHash>,
    /// Why they refuse it.
    pub(crate) refusal_reason: Reason,
    /// Slices written so far.
    pub(crate) writes: usize,
    /// Statuses written so far.
    pub(crate) status_writes: usize,
    /// Names of Contents collected so far.
    pub(crate) collected: Vec<String>,
    version: u64,
    next_uid: usize,
    wake_at: Option<i64>,
    /// The planner of this province; a copy gets a new one.
    memory: Memory,
}

/// A planner belongs to one world, so that copies of a province start without memory.
#[derive(Default)]
struct Memory(Planner);

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Province {
    /// No region, no cluster.
    pub(crate) fn empty() -> Self {
        let hub = Hub {
            id: "hub-1".into(),
            epoch: 1,
            leader_epoch: 1,
        };
        let mut world = World::new(hub, Settings::default());
        world.now = START;
        world.started = START;
        for tenant in ["health", "police"] {
            let slot = NamespaceSlot::plain(format!("ns-{tenant}").into());
            world.apply_namespace(&tenant.into(), slot);
        }
        Self {
            world,
            apps: BTreeMap::new(),
            clusters: BTreeMap::new(),
            regions: BTreeMap::new(),
            tenants: BTreeMap::new(),
            quotas: BTreeMap::new(),
            isolations: BTreeMap::new(),
            links: BTreeMap::new(),
            policies: BTreeMap::new(),
            quota_ledgers: BTreeMap::new(),
            agents: BTreeMap::new(),
            slices: BTreeMap::new(),
            contents: BTreeMap::new(),
            approvals: Vec::new(),
            bad: BTreeSet::new(),
            refused: BTreeSet::new(),
            refusal_reason: Reason::Rejected,
            writes: 0,
            status_writes: 0,
            collected: Vec::new(),
            version: 0,
            next_uid: 0,
            wake_at: None,
            memory: Memory::default(),
        }
    }

    /// Zhejiang with three cities and a county, one cluster of 100 cores in each.
    pub(crate) fn example() -> Self {
        Self::empty()
            .with_region(region("zhejiang", "Province", "330000", None))
            .with_region(region("hangzhou", "City", "330100", Some("zhejiang")))
            .with_region(region("ningbo", "City", "330200", Some("zhejiang")))
            .with_region(region("quzhou", "City", "330800", Some("zhejiang")))
            .with_region(region(
                "hangzhou-yuhang",
                "County",
                "330110",
                Some("hangzhou"),
            ))
            .with_cluster(cluster("zhejiang-a", "zhejiang"))
            .with_cluster(cluster("hangzhou-a", "hangzhou"))
            .with_cluster(cluster("ningbo-a", "ningbo"))
            .with_cluster(cluster("quzhou-a", "quzhou"))
            .with_cluster(cluster("yuhang-a", "hangzhou-yuhang"))
    }

    /// Only the three cities.
    pub(crate) fn cities() -> Self {
        let mut all = Self::example();
        for name in ["zhejiang-a", "yuhang-a"] {
            all.delete_cluster(name);
        }
        all
    }

    pub(crate) fn with_region(mut self, region: Value) -> Self {
        self.put_region(region);
        self
    }

    pub(crate) fn with_cluster(mut self, cluster: Value) -> Self {
        self.put_cluster(cluster);
        self
    }

    pub(crate) fn with_cores(mut self, cluster: &str, cores: i32) -> Self {
        self.set_cores(cluster, cores);
        self
    }

    /// The App, created.
    pub(crate) fn with(mut self, draft: Draft) -> Self {
        self.create(draft);
        self
    }

    /// Carried out until nothing happens any more.
    pub(crate) fn settled(mut self) -> Self {
        self.settle();
        self
    }

    pub(crate) fn put_region(&mut self, region: Value) {
        let mut region: Region = serde_json::from_value(region).unwrap();
        region.metadata.resource_version = Some(self.next_version());
        self.world.apply_region(&region);
        self.regions
            .insert(region.metadata.name.clone().unwrap().into(), region);
    }

    pub(crate) fn edit_region(&mut self, name: &str, edit: impl FnOnce(&mut Region)) {
        let region = self.regions.get_mut(name).unwrap();
        edit(region);
        region.metadata.generation = region.metadata.generation.map(|g| g + 1);
        self.world.apply_region(region);
    }

    pub(crate) fn put_cluster(&mut self, cluster: Value) {
        let cluster: MemberCluster = serde_json::from_value(cluster).unwrap();
        let name = ClusterName::from(cluster.metadata.name.clone().unwrap());
        self.world.apply_cluster(&cluster);
        self.clusters.insert(name.clone(), cluster);
        if !self.agents.contains_key(&name) {
            self.agents.insert(name.clone(), Agent::new(&name));
            self.set_cores(name.as_str(), 100);
        }
    }

    pub(crate) fn edit_cluster(&mut self, name: &str, edit: impl FnOnce(&mut MemberCluster)) {
        let cluster = self.clusters.get_mut(name).unwrap();
        edit(cluster);
        cluster.metadata.generation = cluster.metadata.generation.map(|g| g + 1);
        self.world.apply_cluster(cluster);
    }

    /// Deletes the MemberCluster object; the cluster itself goes on.
    pub(crate) fn delete_cluster(&mut self, name: &str) {
        self.clusters.remove(name);
        self.world.remove_cluster(&name.into());
        if self.world.slice_names(&name.into()).is_empty() {
            self.agents.remove(name);
        }
    }

    pub(crate) fn set_cores(&mut self, cluster: &str, cores: i32) {
        self.edit_report(cluster, |report| {
            report["spec"]["allocatable"] = json!([{"name": "cpu", "quantity": cores.to_string()}]);
        });
    }

    pub(crate) fn edit_report(&mut self, cluster: &str, edit: impl FnOnce(&mut Value)) {
        let agent = self.agents.get_mut(cluster).unwrap();
        edit(&mut agent.cluster_report);
        let report: ClusterReport = serde_json::from_value(agent.cluster_report.clone()).unwrap();
        self.world.apply_cluster_report(cluster.into(), &report);
    }

    /// From now on the cluster says nothing and hears nothing.
    pub(crate) fn silence(&mut self, cluster: &str) {
        self.agents.get_mut(cluster).unwrap().silent = true;
    }

    pub(crate) fn unsilence(&mut self, cluster: &str) {
        self.agents.get_mut(cluster).unwrap().silent = false;
    }

    /// Cut off, and long enough for the hub to notice.
    pub(crate) fn cut_off(&mut self, cluster: &str) {
        self.silence(cluster);
        self.wait(60);
    }

    pub(crate) fn create(&mut self, draft: Draft) -> Uid {
        self.next_uid += 1;
        let uid = format!("uid-{:03}", self.next_uid);
        let created = START - 1_000_000_000 + i64::try_from(self.next_uid).unwrap() * 1000;
        let name = draft.name.clone();
        let app = draft.into_app(&uid, created, &self.next_version());
        self.world.apply_app(&app);
        self.apps.insert(name, app);
        Uid::from(uid)
    }

    pub(crate) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut AppSpec)) {
        let version = self.next_version();
        let app = self.apps.get_mut(name).unwrap();
        edit(&mut app.spec);
        app.metadata.generation = app.metadata.generation.map(|g| g + 1);
        app.metadata.resource_version = Some(version);
        self.world.apply_app(app);
    }

    /// A new version of the App's content.
    pub(crate) fn change_content(&mut self, name: &str, image: &str) {
        self.edit(name, |spec| draft::set_image(spec, image));
    }

    /// A user deletes the App; it goes once our finalizer is off.
    pub(crate) fn delete(&mut self, name: &str) {
        let version = self.next_version();
        let app = self.apps.get_mut(name).unwrap();
        app.metadata.deletion_timestamp = app.metadata.creation_timestamp.clone();
        app.metadata.resource_version = Some(version);
        let held = app
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == APP_FINALIZER);
        self.world.apply_app(&app.clone());
        if !held {
            self.vanish(name);
        }
    }

    /// The App is gone from the store although nobody deleted it properly.
    pub(crate) fn vanish(&mut self, name: &str) {
        let gone = self.apps.remove(name).unwrap();
        self.world.remove_app(&gone.metadata.uid.unwrap().into());
    }

    /// Somebody deletes a slice by hand.
    pub(crate) fn delete_slice(&mut self, cluster: &str, name: &str) {
        self.slices
            .remove(&(cluster.into(), name.to_owned()))
            .unwrap();
        self.world.remove_slice(&cluster.into(), name);
    }

    /// Somebody writes a slice by hand.
    pub(crate) fn edit_slice(
        &mut self,
        cluster: &str,
        name: &str,
        edit: impl FnOnce(&mut AssignmentSlice),
    ) {
        let version = self.next_version();
        let key = (ClusterName::from(cluster), name.to_owned());
        let slice = self
            .slices
            .entry(key)
            .or_insert_with(|| AssignmentSlice::new(name, sample_header()));
        edit(slice);
        slice.metadata.resource_version = Some(version);
        self.world.apply_slice(&cluster.into(), slice.clone(), None);
    }

    pub(crate) fn approve(&mut self, app: &str, step: &str, by: &str, decision: &str) {
        let hash = self.wanted(app);
        self.approve_hash(
            app,
            step,
            by,
            decision,
            hash.as_str(),
            self.world.now + 3_600_000,
        );
    }

    pub(crate) fn approve_hash(
        &mut self,
        app: &str,
        step: &str,
        by: &str,
        decision: &str,
        hash: &str,
        expires: i64,
    ) {
        let approval: Approval = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
            "metadata": {"name": format!("{app}-{step}-{by}-{decision}"), "namespace": "health"},
            "spec": {
                "target": {"kind": "App", "name": app}, "step": step, "contentHash": hash,
                "approver": by, "decision": decision, "expires": draft::time(expires),
            },
        }))
        .unwrap();
        self.approvals.push(approval.clone());
        self.world.apply_approval(approval);
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Plans as the hub does, and holds the plan against everything that must be true of any plan.
    pub(crate) fn plan(&mut self) -> Plan {
        let plan = self.memory.0.plan(&self.world);
        assert_eq!(
            check(&self.world, &plan),
            [],
            "the second judge finds nothing"
        );
        let (cold, report) = decide(&self.world);
        assert_eq!(plan, cold, "a planner with a memory decides as one without");
        let mine = self.memory.0.report();
        for (uid, cold) in &report.apps {
            assert_eq!(mine.apps.get(uid), Some(cold), "and reports the same");
        }
        assert_eq!(mine.quotas, report.quotas, "also on Quotas");
        assert_eq!(mine.quota_statuses, report.quota_statuses, "and their use");
        assert!(*mine == report, "also on all else");
        plan
    }

    /// One turn of the hub and of all agents; whether anything was written.
    pub(crate) fn turn(&mut self) -> bool {
        self.hear();
        let plan = self.plan();
        let mut busy = self.carry_out(&plan);
        self.wake_at = plan.wake_at;
        for (cluster, agent) in &mut self.agents {
            let mine = self
                .slices
                .iter()
                .filter(|((of, _), _)| of == cluster)
                .map(|(_, s)| s);
            if let Some(report) = agent.act(
                mine,
                &self.bad,
                (&self.refused, self.refusal_reason),
                self.world.now,
            ) {
                self.world.apply_report(cluster, report);
                busy = true;
            }
        }
        busy
    }

    /// Heartbeats of all that can be heard.
    pub(crate) fn hear(&mut self) {
        for (name, agent) in &self.agents {
            if !agent.silent {
                self.world.apply_heartbeat(name, self.world.now);
            }
        }
    }

    /// Turns a second apart until nothing happens; then nothing may be written.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let busy = self.turn();
            self.world.now += 1_000;
            let due = self.wake_at.is_some_and(|at| at <= self.world.now);
            if !busy && !due {
                return self.assert_quiet();
            }
        }
        panic!("the province does not come to rest");
    }

    /// Lets time pass, ten seconds a turn, and settles.
    pub(crate) fn wait(&mut self, seconds: i64) {
        let until = self.world.now + seconds * 1_000;
        while self.world.now < until {
            self.turn();
            self.world.now = (self.world.now + 10_000).min(until);
        }
        self.settle();
    }

    fn assert_quiet(&mut self) {
        self.hear();
        let plan = self.plan();
        let Plan {
            tenants,
            quotas,
            policies,
            holds,
            contents,
            slices,
            releases,
            collect,
            wake_at,
        } = &plan;
        assert!(
            tenants.is_empty()
                && quotas.is_empty()
                && policies.is_empty()
                && holds.is_empty()
                && contents.is_empty()
                && slices.is_empty(),
            "{plan:#?}"
        );
        assert!(releases.is_empty() && collect.is_empty(), "{plan:#?}");
        assert!(
            wake_at.is_none_or(|at| at > self.world.now),
            "no waking in the past"
        );
        assert_eq!(
            self.memory.0.report().changed,
            [],
            "no status is written at rest"
        );
        assert!(
            self.memory.0.report().policy_statuses.is_empty(),
            "none of a policy either"
        );
    }

    /// Applies a plan as the hub does.
    pub(crate) fn carry_out(&mut self, plan: &Plan) -> bool {
        let mut busy = *plan
            != Plan {
                wake_at: plan.wake_at,
                ..Plan::default()
            };
        for write in &plan.tenants {
            self.write_tenant(write);
        }
        for write in &plan.quotas {
            self.write_quota(write);
        }
        for write in &plan.policies {
            self.write_policy(write);
        }
        for content in &plan.contents {
            let hashes = content.items.iter().map(|item| item.hash.clone()).collect();
            let tenant = content.tenant.clone();
            let stored = StoredContent {
                tenant,
                hashes,
                created: self.world.now,
            };
            self.world.apply_content(&content.name, stored.clone());
            self.contents.insert(content.name.clone(), stored);
        }
        for write in &plan.slices {
            self.write_slice(write);
        }
        for uid in &plan.holds {
            let finalizer = Some(vec![APP_FINALIZER.to_owned()]);
            self.rewrite_app(uid, |app| app.metadata.finalizers = finalizer);
        }
        busy |= self.write_statuses();
        for uid in &plan.releases {
            self.rewrite_app(uid, |app| app.metadata.finalizers = None);
            let gone = self
                .apps
                .iter()
                .find(|(_, app)| app.metadata.uid.as_deref() == Some(uid.as_str()));
            let name = gone.map(|(name, _)| name.clone()).unwrap();
            self.vanish(&name);
        }
        for name in &plan.collect {
            self.collected.push(name.clone());
            self.contents.remove(name);
            self.world.remove_content(name);
        }
        busy
    }

    fn write_slice(&mut self, write: &SliceWrite) {
        let key = (write.cluster.clone(), write.name.clone());
        let stored = self
            .slices
            .get(&key)
            .and_then(|s| s.metadata.resource_version.clone());
        assert_eq!(
            stored, write.resource_version,
            "the write's precondition holds"
        );
        let mut slice = AssignmentSlice::new(&write.name, write.spec.clone());
        slice.metadata.resource_version = Some(self.next_version());
        self.slices.insert(key, slice.clone());
        self.world
            .apply_slice(&write.cluster, slice, Some(self.world.now));
        self.writes += 1;
    }

    fn rewrite_app(&mut self, uid: &Uid, edit: impl FnOnce(&mut App)) {
        let version = self.next_version();
        let mut mine = self.apps.values_mut();
        let app = mine
            .find(|app| app.metadata.uid.as_deref() == Some(uid.as_str()))
            .unwrap();
        edit(app);
        app.metadata.resource_version = Some(version);
        self.world.apply_app(&app.clone());
    }

    /// Writes every status that differs, as the hub does.
    pub(crate) fn write_statuses(&mut self) -> bool {
        let epoch = Some(self.world.hub.leader_epoch);
        let before = self.status_writes;
        let report = self.memory.0.report().clone();
        for uid in &report.changed {
            let status = report.apps[uid].status.clone();
            self.status_writes += 1;
            self.rewrite_app(uid, |app| {
                app.status = Some(crds::AppStatus {
                    leader_epoch: epoch,
                    ..status
                });
            });
        }
        for (name, status) in &report.clusters {
            let mut status = status.clone();
            status.leader_epoch = epoch;
            let cluster = self
                .clusters
                .get_mut(name)
                .expect("a status has its object");
            if cluster.status.as_ref() != Some(&status) {
                cluster.status = Some(status);
                self.world.apply_cluster(cluster);
                self.status_writes += 1;
            }
        }
        for (name, status) in &report.regions {
            let mut status = status.clone();
            status.leader_epoch = epoch;
            let region = self.regions.get_mut(name).unwrap();
            if region.status.as_ref() != Some(&status) {
                region.status = Some(status);
                self.world.apply_region(region);
                self.status_writes += 1;
            }
        }
        self.write_tenant_statuses(&report.tenant_statuses);
        self.write_quota_statuses(&report.quota_statuses);
        self.write_isolation_statuses(&report.isolation_statuses);
        self.write_link_statuses(&report.link_statuses);
        self.write_policy_statuses(&report.policy_statuses);
        self.status_writes > before
    }

    pub(crate) fn uid(&self, app: &str) -> Uid {
        self.apps[app].metadata.uid.clone().unwrap().into()
    }

    /// Present replicas by cluster, as the ledger has them.
    pub(crate) fn placed(&self, app: &str) -> Vec<(String, i32)> {
        self.placed_uid(&self.uid(app))
    }

    pub(crate) fn placed_uid(&self, uid: &Uid) -> Vec<(String, i32)> {
        let entries = self.world.ledger(uid).into_iter().flat_map(|l| &l.entries);
        let present = entries.filter(|(_, held)| held.entry.state.is_present());
        present
            .map(|(cluster, held)| (cluster.to_string(), count(&held.entry, self.world.now)))
            .collect()
    }

    /// Clusters on which the App is present.
    pub(crate) fn clusters_of(&self, app: &str) -> Vec<String> {
        self.placed(app)
            .into_iter()
            .map(|(cluster, _)| cluster)
            .collect()
    }

    pub(crate) fn entry(&self, app: &str, cluster: &str) -> Option<&Entry> {
        Some(
            &self
                .world
                .ledger(&self.uid(app))?
                .entries
                .get(cluster)?
                .entry,
        )
    }

    /// The content an App wants.
    pub(crate) fn wanted(&self, app: &str) -> ContentHash {
        let slot = self.world.app(&self.uid(app)).unwrap();
        slot.state
            .as_ref()
            .expect("the App is valid")
            .content
            .clone()
    }

    /// Clusters that were given the wanted content.
    pub(crate) fn updated(&self, app: &str) -> Vec<String> {
        let wanted = self.wanted(app);
        let all = self.clusters_of(app).into_iter();
        all.filter(|c| self.entry(app, c).unwrap().content == wanted)
            .collect()
    }

    pub(crate) fn report(&self, app: &str) -> &AppReport {
        &self.memory.0.report().apps[&self.uid(app)]
    }

    pub(crate) fn condition(&self, app: &str, kind: ConditionType) -> Option<&Condition> {
        find_condition(&self.report(app).status.conditions, kind)
    }

    /// The reason of the App's `Ready` condition.
    pub(crate) fn ready(&self, app: &str) -> &'static str {
        self.condition(app, ConditionType::Ready)
            .unwrap()
            .reason
            .as_str()
    }

    pub(crate) fn cluster_condition(&self, name: &str, kind: ConditionType) -> Option<&Condition> {
        find_condition(&self.memory.0.report().clusters[name].conditions, kind)
    }

    pub(crate) fn region_condition(&self, name: &str, kind: ConditionType) -> Option<&Condition> {
        find_condition(&self.memory.0.report().regions[name].conditions, kind)
    }

    /// Why a cluster does not qualify for an App.
    pub(crate) fn refusal(&self, app: &str, cluster: &str) -> Option<&Refusal> {
        self.report(app).refusal(self.position(cluster))
    }

    /// The position of a cluster in the fleet.
    pub(crate) fn position(&self, cluster: &str) -> usize {
        self.memory
            .0
            .report()
            .fleet
            .position(&cluster.into())
            .unwrap()
    }
}

/// Replicas an entry stands for.
pub(crate) fn count(entry: &Entry, now: i64) -> i32 {
    let begun = |stage: &&crds::Stage| stage.not_before.is_none_or(|at| at.millis() <= now);
    match entry.stages.iter().rev().find(begun) {
        Some(stage) => stage.replicas.or(stage.hpa.map(|hpa| hpa.max)).unwrap_or(1),
        None => 1,
    }
}

fn sample_header() -> crds::AssignmentSliceSpec {
    serde_json::from_value(json!({
        "hubId": "hub-1", "hubEpoch": 1, "leaderEpoch": 1, "sequence": 0,
        "management": "Manage", "clusterUID": "none", "entries": [],
    }))
    .unwrap()
}
