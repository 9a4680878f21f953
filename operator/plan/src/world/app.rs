//! Apps behind the gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{
    APP_FINALIZER, App, AppName, AppStatus, Charge, ContentHash, DataGrade, Division,
    FailoverPolicy, NamespaceName, Placement, RegionName, RegionSelector, TakeOver, Tier, Uid,
    WaveName, Zone, label,
};

use super::World;
use super::app_gate::{app_gate, footprint_of};
use super::footprint::{Footprint, Object};
use super::gate::Verdict;
use super::journal::Pool;
use super::ledger::older;

/// An App as the API server has it, behind the gate.
#[derive(Clone, Debug)]
pub struct AppSlot {
    /// UID.
    pub uid: Uid,
    /// Namespace.
    pub namespace: NamespaceName,
    /// Name.
    pub name: AppName,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Whether it lives, is being deleted, and whether our finalizer holds it.
    pub life: AppState,
    /// Network zone, valid or not.
    pub zone: Zone,
    /// Data grade, valid or not.
    pub grade: DataGrade,
    /// The valid App, or why it is parked.
    pub state: Verdict<ValidApp>,
    /// Who changed the spec since its content was last rolled out completely, as stamped at admission;
    /// see [`AppSlot::authors`].
    pub changed_by: Option<Box<str>>,
    /// Status as last written.
    pub status: Arc<AppStatus>,
    /// What it takes up, valid or not.
    pub footprint: Arc<Footprint>,
    /// `metadata.resourceVersion`.
    resource_version: Box<str>,
}

/// Life of an App.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    /// It lives and our finalizer holds it.
    Held,
    /// It lives without our finalizer: it must be held before anything is placed.
    Unheld,
    /// It is being deleted and waits for us.
    Deleting,
    /// It is being deleted and no longer waits for us.
    Released,
}

impl AppState {
    /// Whether nobody deleted it.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Held | Self::Unheld)
    }
}

/// An App whose own fields are right.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidApp {
    /// What is kept first.
    pub tier: Tier,
    /// Network zone.
    pub zone: Zone,
    /// Data grade.
    pub grade: DataGrade,
    /// 等保 level.
    pub protection_level: i32,
    /// Where it may run.
    pub placement: Placement,
    /// Everything the filters depend on, as one text: Apps that share it share their candidates.
    pub filter_key: Arc<str>,
    /// How many replicas, and how divided.
    pub scale: Scale,
    /// What it takes up.
    pub footprint: Arc<Footprint>,
    /// Hash of the content.
    pub content: ContentHash,
    /// The content as stored.
    pub data: Arc<str>,
    /// Regions of each override, in order.
    pub overrides: Vec<RegionSelector>,
    /// Waves, in order.
    pub waves: Vec<ValidWave>,
    /// Secrets delivered with the App.
    pub secret_names: Vec<String>,
    /// Whether unmanaged objects may be taken over.
    pub take_over: TakeOver,
    /// What happens when a cluster is lost.
    pub failover: FailoverPolicy,
}

/// How many replicas an App has, and how they are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As the manifests say, once in each region.
    Manifests,
    /// A number of replicas.
    Replicas {
        /// Over all regions, or in each for `Duplicate`.
        total: i32,
        /// How divided.
        division: Division,
        /// Weights, for `Weight`.
        weights: BTreeMap<RegionName, u64>,
    },
    /// Bounds of an autoscaler.
    Autoscaled {
        /// Least, counted as `max` is.
        min: i32,
        /// Most, over all regions, or in each for `Duplicate`.
        max: i32,
        /// How divided.
        division: Division,
        /// Weights, for `Weight`.
        weights: BTreeMap<RegionName, u64>,
    },
}

/// One wave of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidWave {
    /// Name.
    pub name: WaveName,
    /// Regions; absent means all that no earlier wave selects.
    pub regions: Option<RegionSelector>,
    /// How long it must stay healthy, in milliseconds.
    pub soak: i64,
    /// Whether it waits for an Approval.
    pub needs_approval: bool,
}

impl ValidWave {
    /// The wave, unless its soak is no span of time.
    pub(crate) fn of(wave: &crds::Wave) -> Option<Self> {
        Some(Self {
            name: wave.name.clone(),
            regions: wave.regions.clone(),
            soak: wave.soak.as_ref().map_or(Some(0), crds::Period::millis)?,
            needs_approval: wave.approval == crds::ApprovalNeed::Required,
        })
    }

    /// The wave as a status remembers it.
    pub(crate) fn declared(&self) -> crds::Wave {
        crds::Wave {
            name: self.name.clone(),
            regions: self.regions.clone(),
            soak: (self.soak > 0).then(|| crds::Period::from_millis(self.soak)),
            approval: if self.needs_approval {
                crds::ApprovalNeed::Required
            } else {
                crds::ApprovalNeed::NotRequired
            },
        }
    }
}

impl World {
    /// Takes in an App.
    pub fn apply_app(&mut self, app: &App) {
        let meta = &app.metadata;
        let uid = Uid::from(meta.uid.clone().unwrap_or_default());
        let version = meta.resource_version.as_deref().unwrap_or_default();
        let known = self.apps.get(&uid);
        // A watch may deliver what is older than our own write; the store's versions only grow.
        if known.is_some_and(|known| older(version, &known.resource_version)) {
            return;
        }
        let slot = match known.filter(|known| Some(known.generation) == meta.generation) {
            // Our own status writes come back on the watch: nothing of the spec need be read again.
            Some(known) => AppSlot {
                status: Arc::new(app.status.clone().unwrap_or_default()),
                life: life_of(app),
                changed_by: annotation(app, label::CHANGED_BY).map(Into::into),
                resource_version: version.into(),
                ..known.clone()
            },
            None => AppSlot::of(uid.clone(), app, &mut self.charges),
        };
        if known.is_some_and(|known| known.same_but_version(&slot)) {
            self.apps.insert(uid, slot);
            return;
        }
        self.put_app(slot);
    }

    /// Takes what comes next for the newest, whatever its version, and reads it whole: the store was
    /// restored to an earlier state.
    pub fn forget_app_versions(&mut self) {
        for slot in self.apps.values_mut() {
            slot.resource_version = Box::default();
            slot.generation = 0;
        }
    }

    fn put_app(&mut self, slot: AppSlot) {
        let uid = slot.uid.clone();
        let before = self.apps.get(&uid).cloned();
        let face = |slot: &AppSlot| (slot.zone, slot.grade, slot.life.is_alive());
        if before.as_ref().map(face) != Some(face(&slot)) {
            self.touch_links_of(&slot.namespace, &slot.name);
        }
        let said = |slot: &AppSlot| (slot.generation, slot.life.is_alive());
        if before.as_ref().map(said) != Some(said(&slot)) {
            self.touch_policies_of(&slot.namespace, &slot.name);
        }
        let moved = before.as_ref().is_none_or(|b| {
            b.footprint.claims != slot.footprint.claims || b.state.is_ok() != slot.state.is_ok()
        });
        if let (Some(before), true) = (&before, moved) {
            self.drop_claims(before);
        }
        if moved {
            self.add_claims(&slot);
        }
        let key = (slot.namespace.clone(), slot.name.clone());
        self.app_names.entry(key).or_default().insert(uid.clone());
        self.uses
            .replace(before.iter().flat_map(AppSlot::hashes), slot.hashes());
        self.apps.insert(uid.clone(), slot);
        self.sort_orphan(&uid);
        self.touch(&uid);
    }

    /// Forgets an App that is gone from the store. Its entries stay until agents acknowledged their
    /// removal: a vanished App is no instruction.
    pub fn remove_app(&mut self, uid: &Uid) {
        let Some(gone) = self.apps.remove(uid) else {
            return;
        };
        self.touch_links_of(&gone.namespace, &gone.name);
        self.touch_policies_of(&gone.namespace, &gone.name);
        self.drop_claims(&gone);
        self.uses.replace(gone.hashes(), []);
        let key = (gone.namespace, gone.name);
        if let Some(uids) = self.app_names.get_mut(&key) {
            uids.remove(uid);
            if uids.is_empty() {
                self.app_names.remove(&key);
            }
        }
        self.sort_orphan(uid);
        self.touch(uid);
    }

    fn add_claims(&mut self, slot: &AppSlot) {
        for object in &slot.footprint.claims {
            let key = (slot.namespace.clone(), object.clone());
            let claimants = self.claims.entry(key).or_default();
            for (_, other) in claimants.iter() {
                self.journal.note(other);
            }
            claimants.insert((slot.created, slot.uid.clone()));
        }
    }

    fn drop_claims(&mut self, slot: &AppSlot) {
        for object in &slot.footprint.claims {
            let key = (slot.namespace.clone(), object.clone());
            let Some(claimants) = self.claims.get_mut(&key) else {
                continue;
            };
            claimants.remove(&(slot.created, slot.uid.clone()));
            for (_, other) in claimants.iter() {
                self.journal.note(other);
            }
            if claimants.is_empty() {
                self.claims.remove(&key);
            }
        }
    }

    /// The first of an App's objects that another App owns, and that App. Of all Apps that claim
    /// an object the oldest owns it, unless it is parked and never got anywhere.
    pub(crate) fn taken<'w>(&'w self, slot: &'w AppSlot) -> Option<(&'w Object, &'w Uid)> {
        let counts = |uid: &Uid| {
            self.ledger.contains_key(uid) || self.apps.get(uid).is_some_and(|a| a.state.is_ok())
        };
        slot.footprint.claims.iter().find_map(|object| {
            let claimants = self.claims.get(&(slot.namespace.clone(), object.clone()))?;
            if claimants.iter().all(|(_, uid)| *uid == slot.uid) {
                return None;
            }
            let (_, owner) = claimants.iter().find(|(_, uid)| counts(uid))?;
            (*owner != slot.uid).then_some((object, owner))
        })
    }

    /// What a parked App claims is its own as long as it stands in the ledger.
    pub(super) fn touch_rivals(&mut self, uid: &Uid) {
        let Some(slot) = self.apps.get(uid).filter(|slot| slot.state.is_err()) else {
            return;
        };
        for object in &slot.footprint.claims {
            let rivals = self.claims.get(&(slot.namespace.clone(), object.clone()));
            for (_, rival) in rivals.into_iter().flatten() {
                self.journal.note(rival);
            }
        }
    }
}

impl AppSlot {
    fn of(uid: Uid, app: &App, charges: &mut Pool<Charge>) -> Self {
        let meta = &app.metadata;
        let namespace = NamespaceName::from(meta.namespace.clone().unwrap_or_default());
        let name = AppName::from(meta.name.clone().unwrap_or_default());
        let mut footprint = footprint_of(&uid, &namespace, &name, &app.spec);
        footprint.charge = charges.share(footprint.charge);
        let footprint = Arc::new(footprint);
        let state = app_gate(&uid, &namespace, &name, &app.spec, &footprint).map(Arc::new);
        Self {
            uid,
            namespace,
            name,
            generation: meta.generation.unwrap_or(0),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_millisecond()),
            life: life_of(app),
            zone: app.spec.zone,
            grade: app.spec.data_grade,
            state,
            changed_by: annotation(app, label::CHANGED_BY).map(Into::into),
            status: Arc::new(app.status.clone().unwrap_or_default()),
            footprint,
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
        }
    }

    /// Everybody who had a hand in what is rolled out now; `None` when it is not known of all of them.
    pub fn authors(&self) -> Option<impl Iterator<Item = &str>> {
        let known = self.changed_by.as_deref().filter(|by| *by != label::MANY);
        known.map(str::lines)
    }

    /// Equal in all that decisions depend on.
    fn same_but_version(&self, other: &Self) -> bool {
        self.generation == other.generation
            && self.life == other.life
            && self.changed_by == other.changed_by
            && self.status == other.status
    }

    /// Contents that the App names: the wanted one and those its status remembers.
    fn hashes(&self) -> impl Iterator<Item = &ContentHash> {
        let wanted = self.state.as_ref().ok().map(|app| &app.content);
        let rolled = self.status.rollout.iter();
        let rolled = rolled.flat_map(|r| std::iter::once(&r.content_hash).chain(&r.proven));
        wanted
            .into_iter()
            .chain(&self.status.content_hash)
            .chain(rolled)
    }
}

fn annotation<'a>(app: &'a App, key: &str) -> Option<&'a str> {
    app.metadata
        .annotations
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

fn life_of(app: &App) -> AppState {
    let held = app
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == APP_FINALIZER);
    match (app.metadata.deletion_timestamp.is_some(), held) {
        (false, true) => AppState::Held,
        (false, false) => AppState::Unheld,
        (true, true) => AppState::Deleting,
        (true, false) => AppState::Released,
    }
}
