//! Baselines of zones and grades, and whether an App fits them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crds::{ContentHash, DataGrade, IsolationSpec, NamespaceName, Reason, Zone};

use super::super::placement::At;
use super::super::regions::Fleet;
use super::super::tenants::{Limits, Tenants};
use crate::baseline::Baseline;
use crate::content::hash_of;
use crate::world::{Parked, ValidApp, World};

const ZONES: [Zone; 3] = [
    Zone::Internet,
    Zone::ExtranetPublic,
    Zone::ExtranetDedicated,
];
const GRADES: [DataGrade; 3] = [DataGrade::General, DataGrade::Important, DataGrade::Core];

/// Baselines of zones and grades.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baselines {
    pub(super) specs: BTreeMap<Box<str>, Arc<IsolationSpec>>,
    known: BTreeMap<(Zone, DataGrade), Arc<Enclosing>>,
}

/// What encloses a namespace, and the content that is made of it once somebody asks.
#[derive(Debug)]
pub(super) struct Enclosing {
    pub(super) baseline: Baseline,
    content: OnceLock<(ContentHash, Arc<str>)>,
}

impl PartialEq for Enclosing {
    fn eq(&self, other: &Self) -> bool {
        self.baseline == other.baseline
    }
}

impl Enclosing {
    pub(super) fn content(&self) -> &(ContentHash, Arc<str>) {
        self.content.get_or_init(|| {
            let data = self.baseline.content().to_data();
            (hash_of(data.as_bytes()), data.into())
        })
    }
}

/// Whether an Isolation applies where data of a grade may be in a zone.
pub(super) fn applies(spec: &IsolationSpec, zone: Zone, grade: DataGrade) -> bool {
    spec.zones.contains(&zone) && (spec.data_grades.is_empty() || spec.data_grades.contains(&grade))
}

impl Baselines {
    pub(super) fn of(world: &World) -> Self {
        let specs = world.isolations.iter();
        let specs: BTreeMap<_, _> = specs
            .map(|(name, slot)| (name.clone(), slot.spec.clone()))
            .collect();
        let mut known = BTreeMap::new();
        let mut equal: BTreeMap<Baseline, Arc<Enclosing>> = BTreeMap::new();
        for zone in ZONES {
            for grade in GRADES {
                let here = specs.values().filter(|spec| applies(spec, zone, grade));
                let baseline = Baseline::of(here.map(|spec| &**spec));
                let enclosing = equal.entry(baseline.clone()).or_insert_with(|| {
                    let content = OnceLock::new();
                    Arc::new(Enclosing { baseline, content })
                });
                known.insert((zone, grade), enclosing.clone());
            }
        }
        Self { specs, known }
    }

    /// What stored content is made of.
    pub(crate) fn data(&self, content: &ContentHash) -> Option<&Arc<str>> {
        let mut known = self.known.values().map(|enclosing| enclosing.content());
        known
            .find(|(hash, _)| hash == content)
            .map(|(_, data)| data)
    }

    /// Why an App may not run in its zone, if what it carries is not allowed there.
    pub(crate) fn objection(&self, limits: Option<&Limits>, app: &ValidApp) -> Option<Parked> {
        let grade = limits.map_or(DataGrade::Core, |limits| limits.grade);
        let baseline = &self.known.get(&(app.zone, grade))?.baseline;
        let zone = app.zone;
        let kind = app
            .footprint
            .claims
            .iter()
            .map(|(kind, name)| (kind.name(), name));
        if let Some((kind, name)) = kind
            .into_iter()
            .find(|(kind, _)| !baseline.allows_kind(kind))
        {
            let message = format!(
                "spec.manifests carry {kind} {name}, and an Isolation of zone {zone:?} does not list {kind} in allowedKinds: take it out, or have it listed"
            );
            return Some(Parked::new(Reason::KindNotAllowed, message));
        }
        let image = app
            .footprint
            .images
            .iter()
            .find(|image| !baseline.allows_image(image))?;
        let message = format!(
            "image {image} comes from a registry that an Isolation of zone {zone:?} does not list in allowedRegistries: take it from one that is listed, or have its own listed"
        );
        Some(Parked::new(Reason::RegistryNotAllowed, message))
    }
}

/// What encloses a namespace in a cluster: the baseline of the zone, for the highest grade of data that may
/// be there.
pub(super) fn enclosing<'b>(
    fleet: &Fleet,
    baselines: &'b Baselines,
    tenants: &Tenants,
    namespace: &NamespaceName,
    at: At,
) -> Option<&'b Enclosing> {
    let cluster = fleet.clusters[at].cluster.as_ref().ok()?;
    let grade = grade_in(tenants, namespace, cluster.max_data_grade);
    baselines
        .known
        .get(&(cluster.zone, grade))
        .map(|known| &**known)
}

/// The highest grade of data that may be in a namespace of a cluster.
pub(super) fn grade_in(tenants: &Tenants, namespace: &NamespaceName, most: DataGrade) -> DataGrade {
    let tenant = tenants.owner(namespace).map(|own| own.limits.grade);
    tenant.unwrap_or(DataGrade::Core).min(most)
}
