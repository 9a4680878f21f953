//! Random provinces and random histories: whatever happens, what must always hold, holds.

mod decrees;
mod policies;

use std::collections::{BTreeMap, BTreeSet};

use crds::{ConditionType, Division, EntryState, Management, Uid};
use plan::World;
use plan::check::uses;
use plan::world::{Scale, TenantRole};
use proptest::prelude::*;
use serde_json::json;

use decrees::{Decree, decree};
use policies::{Rule, rule};

use crate::province::{Draft, Province, app, cluster, count, region};

const CLUSTERS: [&str; 5] = [
    "zhejiang-a",
    "hangzhou-a",
    "ningbo-a",
    "quzhou-a",
    "yuhang-a",
];
const REGIONS: [&str; 5] = [
    "zhejiang",
    "hangzhou",
    "ningbo",
    "quzhou",
    "hangzhou-yuhang",
];
const DIVISIONS: [&str; 4] = ["Capacity", "Even", "Duplicate", "Weight"];
/// Tenants, one below the other: where each lives and its name.
const TENANTS: [(&str, &str); 2] = [("jiuzhou-system", "tax"), ("tax", "audit")];
const TIERS: [&str; 4] = ["Core", "Important", "General", "Ancillary"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Create { app: usize, shape: Shape },
    Scale { app: usize, total: i32 },
    Content { app: usize, version: usize },
    Within { app: usize, regions: Vec<usize> },
    AtMost { app: usize, regions: i32 },
    Delete { app: usize },
    Vanish { app: usize },
    Approve { app: usize, yes: bool },
    Urge { app: usize },
    Ill { app: usize },
    Well,
    Silence { cluster: usize },
    Hear { cluster: usize },
    Cores { cluster: usize, cores: i32 },
    Manage { cluster: usize, how: usize },
    Forget { cluster: usize },
    Join { number: usize },
    DeleteSlice { cluster: usize },
    DeleteContent,
    Lose { region: usize },
    Find,
    Settle { tenant: usize },
    Restrict { tenant: usize, regions: Vec<usize> },
    Dissolve { tenant: usize },
    Isolate { which: usize },
    Decree(Decree),
    Rule(Rule),
    Size { app: usize, cores: i32 },
    Wait { seconds: i64 },
}

/// How an App is made.
#[derive(Clone, Debug)]
struct Shape {
    division: usize,
    total: i32,
    tier: usize,
    least: i32,
    most: i32,
    waves: bool,
    shared: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        0..5usize,
        0..14i32,
        0..4usize,
        1..3i32,
        0..4i32,
        any::<bool>(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(division, total, tier, least, most, waves, shared)| {
            let most = if most == 0 { 0 } else { most.max(least) };
            Shape {
                division,
                total,
                tier,
                least,
                most,
                waves,
                shared,
            }
        })
}

fn event() -> impl Strategy<Value = Event> {
    let (app, cluster, region) = (|| 0..6usize, || 0..5usize, || 0..5usize);
    prop_oneof![
        6 => (app(), shape()).prop_map(|(app, shape)| Event::Create { app, shape }),
        4 => (app(), 0..20i32).prop_map(|(app, total)| Event::Scale { app, total }),
        4 => (app(), 1..4usize).prop_map(|(app, version)| Event::Content { app, version }),
        2 => (app(), prop::collection::vec(region(), 1..4)).prop_map(|(app, regions)| Event::Within { app, regions }),
        2 => (app(), 1..4i32).prop_map(|(app, regions)| Event::AtMost { app, regions }),
        2 => app().prop_map(|app| Event::Delete { app }),
        1 => app().prop_map(|app| Event::Vanish { app }),
        2 => (app(), prop::bool::weighted(0.8)).prop_map(|(app, yes)| Event::Approve { app, yes }),
        2 => app().prop_map(|app| Event::Urge { app }),
        2 => app().prop_map(|app| Event::Ill { app }),
        1 => Just(Event::Well),
        3 => cluster().prop_map(|cluster| Event::Silence { cluster }),
        3 => cluster().prop_map(|cluster| Event::Hear { cluster }),
        2 => (cluster(), 3..40i32).prop_map(|(cluster, cores)| Event::Cores { cluster, cores }),
        1 => (cluster(), 0..3usize).prop_map(|(cluster, how)| Event::Manage { cluster, how }),
        1 => cluster().prop_map(|cluster| Event::Forget { cluster }),
        1 => (0..3usize).prop_map(|number| Event::Join { number }),
        2 => cluster().prop_map(|cluster| Event::DeleteSlice { cluster }),
        1 => Just(Event::DeleteContent),
        1 => region().prop_map(|region| Event::Lose { region }),
        1 => Just(Event::Find),
        3 => (0..2usize).prop_map(|tenant| Event::Settle { tenant }),
        2 => (0..2usize, prop::collection::vec(region(), 0..3)).prop_map(|(tenant, regions)| Event::Restrict { tenant, regions }),
        1 => (0..2usize).prop_map(|tenant| Event::Dissolve { tenant }),
        7 => decree().prop_map(Event::Decree),
        4 => rule().prop_map(Event::Rule),
        2 => (0..4usize).prop_map(|which| Event::Isolate { which }),
        2 => (app(), 1..4i32).prop_map(|(app, cores)| Event::Size { app, cores }),
        4 => (1..90i64).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// A province and what its users did.
struct History {
    province: Province,
    /// Apps that a user changed after creating them.
    edited: BTreeSet<Uid>,
    /// Whether somebody said anything about a policy.
    ruled: bool,
    /// Whether a region was lost, or a cluster taken out of management: also somebody's act.
    upset: bool,
}

impl History {
    fn new() -> Self {
        let mut province = Province::example().with_namespace("tax", Some("tax"));
        for cluster in CLUSTERS {
            province.set_cores(cluster, 20);
        }
        Self {
            province,
            edited: BTreeSet::new(),
            ruled: false,
            upset: false,
        }
    }

    fn exists(&self, app: usize) -> Option<String> {
        let name = format!("web-{app}");
        let app = self.province.apps.get(&name)?;
        app.metadata.deletion_timestamp.is_none().then_some(name)
    }

    fn edit(&mut self, app: usize, edit: impl FnOnce(&mut crds::AppSpec)) {
        if let Some(name) = self.exists(app) {
            self.edited.insert(self.province.uid(&name));
            self.province.edit(&name, edit);
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Create { app, shape } => self.create(*app, shape),
            Event::Scale { app, total } => self.edit(*app, |spec| {
                if let Some(replicas) = &mut spec.replicas {
                    replicas.total = *total;
                }
            }),
            Event::Content { app, version } => {
                let image = format!("web:{version}");
                self.edit(*app, |spec| crate::province::draft::set_image(spec, &image));
            }
            Event::Within { app, regions } => self.edit(*app, |spec| {
                let within = regions.iter().map(|r| REGIONS[*r].into()).collect();
                let selector = crds::RegionSelector {
                    within,
                    ..Default::default()
                };
                spec.placement.regions = Some(selector);
            }),
            Event::AtMost { app, regions } => self.edit(*app, |spec| {
                let least = spec.placement.min_regions.unwrap_or(1);
                spec.placement.max_regions = Some((*regions).max(least));
            }),
            Event::Delete { app } => self.delete(*app),
            Event::Vanish { app } => self.vanish(*app),
            Event::Approve { app, yes } => self.approve(*app, *yes),
            Event::Urge { app } => self.urge(*app),
            Event::Ill { app } => self.fall_ill(*app),
            Event::Well => self.province.bad.clear(),
            Event::Silence { cluster } => self.province.silence(CLUSTERS[*cluster]),
            Event::Hear { cluster } => self.province.unsilence(CLUSTERS[*cluster]),
            Event::Cores { cluster, cores } => self.province.set_cores(CLUSTERS[*cluster], *cores),
            Event::Manage { cluster, how } => self.manage(CLUSTERS[*cluster], *how),
            Event::Forget { cluster } => self.forget(CLUSTERS[*cluster]),
            Event::Join { number } => self.join(*number),
            Event::DeleteSlice { cluster } => self.delete_slice(CLUSTERS[*cluster]),
            Event::DeleteContent => self.delete_content(),
            Event::Lose { region } => {
                self.upset = true;
                self.province.world.lost.insert(REGIONS[*region].into());
            }
            Event::Find => self.province.world.lost.clear(),
            Event::Settle { tenant } => self.settle_tenant(*tenant),
            Event::Restrict { tenant, regions } => self.restrict(*tenant, regions),
            Event::Dissolve { tenant } => self.dissolve(*tenant),
            Event::Decree(decree) => self.decree(decree),
            Event::Rule(rule) => self.rule(rule),
            Event::Isolate { which } => self.isolate(*which),
            Event::Size { app, cores } => self.edit(*app, |spec| {
                let pod = &mut spec.manifests[0]["spec"]["template"]["spec"];
                pod["containers"][0]["resources"]["requests"]["cpu"] = json!(cores.to_string());
            }),
            Event::Wait { seconds } => {
                for _ in 0..=seconds / 15 {
                    self.turn();
                    self.province.world.now += 15_000;
                }
            }
        }
    }

    fn create(&mut self, app: usize, shape: &Shape) {
        if self.province.apps.contains_key(&format!("web-{app}")) {
            return;
        }
        let home = ["health", "health", "tax", "tax", "tax-audit", "tax-audit"][app];
        let there = self.province.namespace(home);
        if there.is_some_and(|there| !there.clearing) {
            let draft = draft(app, shape).in_namespace(home);
            self.province.create(draft);
        }
    }

    /// The Tenant, if it lives and nobody deleted it.
    fn lives(&self, tenant: usize) -> bool {
        let (home, name) = TENANTS[tenant];
        let known = self.province.tenants.get(&(home.into(), name.into()));
        known.is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none())
    }

    fn settle_tenant(&mut self, tenant: usize) {
        let (home, name) = TENANTS[tenant];
        let key = (home.into(), name.into());
        let room =
            home == "jiuzhou-system" || self.province.namespace(home).is_some_and(|n| !n.clearing);
        if room && !self.province.tenants.contains_key(&key) {
            self.province.create_tenant(home, name, &json!({}));
        }
    }

    fn restrict(&mut self, tenant: usize, regions: &[usize]) {
        if self.lives(tenant) {
            self.upset = true;
            let (home, name) = TENANTS[tenant];
            let regions = regions
                .iter()
                .map(|region| REGIONS[*region].into())
                .collect();
            self.province
                .edit_tenant(home, name, |tenant| tenant.spec.regions = regions);
        }
    }

    fn isolate(&mut self, which: usize) {
        let specs = [
            json!({"egress": "Allow"}),
            json!({"podSecurity": "Restricted"}),
            json!({"dataGrades": ["Core"], "onDrift": "Report"}),
        ];
        match specs.get(which) {
            Some(spec) => self.province.set_isolation("extranet", spec),
            None if self.province.isolations.is_empty() => {}
            None => self.province.delete_isolation("extranet"),
        }
    }

    fn dissolve(&mut self, tenant: usize) {
        if self.lives(tenant) {
            self.upset = true;
            let (home, name) = TENANTS[tenant];
            self.province.delete_tenant(home, name);
        }
    }

    fn delete(&mut self, app: usize) {
        if let Some(name) = self.exists(app) {
            self.edited.insert(self.province.uid(&name));
            self.province.delete(&name);
        }
    }

    fn vanish(&mut self, app: usize) {
        let name = format!("web-{app}");
        if self.province.apps.contains_key(&name) {
            self.province.vanish(&name);
        }
    }

    fn approve(&mut self, app: usize, yes: bool) {
        if let Some(name) = self.exists(app) {
            let decision = if yes { "Approve" } else { "Reject" };
            self.province.approve(&name, "coast", "bob", decision);
        }
    }

    fn urge(&mut self, app: usize) {
        if let Some(name) = self.exists(app) {
            self.province.urge(&name, |_| {});
        }
    }

    fn fall_ill(&mut self, app: usize) {
        if let Some(name) = self.exists(app) {
            let content = self.province.wanted(&name);
            self.province.bad.insert(content);
        }
    }

    fn manage(&mut self, cluster: &str, how: usize) {
        if self.province.clusters.contains_key(cluster) {
            self.upset = true;
            let how = [Management::Manage, Management::Observe, Management::Release][how];
            self.province
                .edit_cluster(cluster, |c| c.spec.management = how);
        }
    }

    fn forget(&mut self, cluster: &str) {
        if !self.province.world.slice_names(&cluster.into()).is_empty() {
            self.province.delete_cluster(cluster);
        }
    }

    fn join(&mut self, number: usize) {
        let name = format!("joined-{number}");
        let code = format!("3303{:02}", number + 1);
        self.province
            .put_region(region(&name, "County", &code, Some("zhejiang")));
        self.province
            .put_cluster(cluster(&format!("{name}-a"), &name));
        self.province.set_cores(&format!("{name}-a"), 20);
    }

    fn delete_slice(&mut self, cluster: &str) {
        if let Some(name) = self.province.world.slice_names(&cluster.into()).first() {
            self.province.delete_slice(cluster, name);
        }
    }

    fn delete_content(&mut self) {
        if let Some((name, _)) = self.province.contents.pop_first() {
            self.province.world.remove_content(&name);
        }
    }

    /// One turn, in which nothing grows beyond the room there is and nobody is removed unasked.
    fn turn(&mut self) {
        let (before, states) = (self.used(), self.states());
        let (granted, rules) = (uses(&self.province.world), self.rules());
        self.province.turn();
        // What comes into force over what runs already takes nothing away.
        if rules == self.rules() {
            for (limit, (used, most)) in uses(&self.province.world) {
                let had = granted.get(&limit).map_or(0, |(had, _)| *had);
                assert!(
                    used <= most.max(had),
                    "{limit:?}: {used} of {most}, {had} before"
                );
            }
        }
        for (name, after) in self.used() {
            let cores = &self.province.agents[name.as_str()].cluster_report["spec"]["allocatable"];
            let cores: i32 = cores[0]["quantity"].as_str().unwrap().parse().unwrap();
            let had = before.get(&name).copied().unwrap_or(0);
            assert!(
                after <= cores.max(had),
                "{name}: {after} of {cores} cores, {had} before"
            );
        }
        for (key, state) in self.states() {
            let taken = state == EntryState::Removed
                && states
                    .get(&key)
                    .is_some_and(|before| *before == EntryState::Present);
            let asked = self.upset || self.edited.contains(&key.0) || self.weighs(&key.0);
            // A policy goes with what it says, and with its Apps.
            let goes = self.ruled || !self.edited.is_empty();
            let asked = asked || (key.0.as_str().starts_with("policy-") && goes);
            assert!(
                !taken || asked,
                "{key:?} is removed and nobody asked for it"
            );
        }
    }

    /// Weights are the user's word on who goes first when a heavier region gets room.
    fn weighs(&self, app: &Uid) -> bool {
        let app = self
            .province
            .world
            .app(app)
            .and_then(|slot| slot.state.as_ref().ok());
        app.is_some_and(|app| {
            matches!(
                &app.scale,
                Scale::Replicas {
                    division: Division::Weight,
                    ..
                }
            )
        })
    }

    /// Cores that entries of known Apps hold, by cluster.
    fn used(&self) -> BTreeMap<String, i32> {
        let mut used = BTreeMap::new();
        for (uid, _) in self.province.world.apps() {
            let Some(ledger) = self.province.world.ledger(uid) else {
                continue;
            };
            for (cluster, held) in &ledger.entries {
                *used.entry(cluster.to_string()).or_default() +=
                    count(&held.entry, self.province.world.now);
            }
            for (cluster, report) in &ledger.reports {
                if !ledger.entries.contains_key(cluster) {
                    *used.entry(cluster.to_string()).or_default() += report.replicas;
                }
            }
        }
        used
    }

    fn states(&self) -> BTreeMap<(Uid, String), EntryState> {
        let slices = self.province.slices.iter();
        let entries =
            slices.flat_map(|((cluster, _), s)| s.spec.entries.iter().map(move |e| (cluster, e)));
        entries
            .map(|(cluster, e)| ((e.uid.clone(), cluster.to_string()), e.state))
            .collect()
    }

    /// Everything that was wrong is put right, except what users asked for.
    fn heal(&mut self) {
        let province = &mut self.province;
        province.bad.clear();
        province.world.lost.clear();
        for (name, stands) in CLUSTERS.iter().zip(REGIONS) {
            province.put_cluster(cluster(name, stands));
            province.unsilence(name);
        }
        for _ in 0..12 {
            self.turn();
            self.province.world.now += 15_000;
        }
        self.province.settle();
    }

    /// Every App has what it asks for, or says what is missing.
    fn assert_served(&self) {
        for (uid, slot) in self.province.world.apps() {
            let report = self.province.report(slot.name.as_str());
            let status =
                |kind| crds::find_condition(&report.status.conditions, kind).map(|c| c.status);
            let Ok(app) = &slot.state else { continue };
            if report.parked.is_some() || report.shortage.is_some() {
                assert_eq!(
                    status(ConditionType::Ready),
                    Some(crds::ConditionStatus::False)
                );
                continue;
            }
            let placed: i32 = self.province.placed_uid(uid).iter().map(|(_, n)| n).sum();
            match &app.scale {
                Scale::Replicas {
                    total,
                    division: Division::Duplicate,
                    ..
                } => {
                    assert!(
                        self.province
                            .placed_uid(uid)
                            .iter()
                            .all(|(_, n)| n == total)
                    );
                }
                Scale::Replicas { total, .. } => assert_eq!(placed, *total, "{}", slot.name),
                Scale::Manifests | Scale::Autoscaled { .. } => {}
            }
        }
    }
}

fn draft(app_number: usize, shape: &Shape) -> Draft {
    let name = format!("web-{app_number}");
    let mut draft = app(&name)
        .and(crate::province::manifest("HTTPRoute", &name))
        .tier(TIERS[shape.tier])
        .at_least(shape.least);
    if shape.division < 3 {
        draft = draft.replicas(shape.total, DIVISIONS[shape.division]);
    } else if shape.division == 3 {
        draft = draft.weighted(
            shape.total,
            &[("hangzhou", 3), ("ningbo", 2), ("quzhou", 1)],
        );
    }
    if shape.most > 0 {
        draft = draft.at_most(shape.most);
    }
    if shape.waves {
        draft = draft.waves(&[
            ("canary", &["quzhou"], "30s", false),
            ("coast", &["ningbo"], "", true),
        ]);
    }
    if shape.shared {
        draft = draft.and(crate::province::manifest("ConfigMap", "shared"));
    }
    draft
}

type Step<'a> = Box<dyn Fn(&mut World) + 'a>;

/// Tenants, their namespaces, and who has which role there.
fn tenancy(province: &Province) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for tenant in province.tenants.values() {
        steps.push(Box::new(move |world| world.apply_tenant(tenant)));
    }
    for name in ["health", "police", "tax", "tax-audit"] {
        if let Some(slot) = province.namespace(name) {
            steps.push(Box::new(move |world| {
                world.apply_namespace(&name.into(), slot.clone());
            }));
        }
        for role in TenantRole::ALL {
            if let Some(subjects) = province.world.binding(&name.into(), role) {
                steps.push(Box::new(move |world| {
                    world.apply_binding(name.into(), role, subjects.clone());
                }));
            }
        }
    }
    steps
}

/// The same objects, taken in in another order.
fn rebuilt(province: &Province, order: &[u64]) -> World {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for app in province.apps.values() {
        steps.push(Box::new(move |world| world.apply_app(app)));
    }
    for region in province.regions.values() {
        steps.push(Box::new(move |world| world.apply_region(region)));
    }
    for cluster in province.clusters.values() {
        steps.push(Box::new(move |world| world.apply_cluster(cluster)));
    }
    for (name, agent) in &province.agents {
        let report = serde_json::from_value(agent.cluster_report.clone()).unwrap();
        steps.push(Box::new(move |world| {
            world.apply_cluster_report(name.clone(), &report);
        }));
        steps.push(Box::new(move |world| {
            world.apply_report(name, agent.report());
        }));
        if !agent.silent {
            steps.push(Box::new(move |world| {
                world.apply_heartbeat(name, province.world.now);
            }));
        }
    }
    for ((cluster, _), slice) in &province.slices {
        steps.push(Box::new(move |world| {
            world.apply_slice(cluster, slice.clone(), None);
        }));
    }
    for (name, content) in &province.contents {
        steps.push(Box::new(move |world| {
            world.apply_content(name, content.clone());
        }));
    }
    for approval in &province.approvals {
        steps.push(Box::new(move |world| {
            world.apply_approval(approval.clone());
        }));
    }
    steps.extend(tenancy(province));
    for quota in province.quotas.values() {
        steps.push(Box::new(move |world| world.apply_quota(quota)));
    }
    for policy in province.policies.values() {
        steps.push(Box::new(move |world| world.apply_policy(policy)));
    }
    for ledger in province.quota_ledgers.values() {
        steps.push(Box::new(move |world| world.apply_quota_ledger(ledger)));
    }
    let mut world = World::new(province.world.hub.clone(), province.world.settings.clone());
    world.lost.clone_from(&province.world.lost);
    (world.now, world.started) = (province.world.now, province.world.now);
    let mut order: Vec<(u64, usize)> = (0..steps.len())
        .map(|at| {
            (
                order[at % order.len()].rotate_left(u32::try_from(at).unwrap()),
                at,
            )
        })
        .collect();
    order.sort_unstable();
    for (_, at) in order {
        steps[at](&mut world);
    }
    world
}

proptest! {
    // A quarter of the usual number keeps the tests quick; PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_every_plan_is_sound_and_the_province_comes_to_rest(events in prop::collection::vec(event(), 1..40)) {
        let mut history = History::new();
        for event in &events {
            history.happen(event);
            history.turn();
            history.province.world.now += 1_000;
        }
        history.province.settle();
        history.heal();
        history.assert_served();
    }

    #[test]
    fn the_order_in_which_objects_are_taken_in_does_not_matter(
        events in prop::collection::vec(event(), 1..20),
        one in prop::collection::vec(any::<u64>(), 8),
        other in prop::collection::vec(any::<u64>(), 8),
    ) {
        let mut history = History::new();
        for event in &events {
            history.happen(event);
            history.turn();
            history.province.world.now += 1_000;
        }
        let (one, other) = (rebuilt(&history.province, &one), rebuilt(&history.province, &other));
        let ((plan, report), (other_plan, other_report)) = (plan::plan(&one), plan::plan(&other));
        prop_assert_eq!(plan, other_plan);
        prop_assert!(report == other_report);
    }
}
