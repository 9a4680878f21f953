//! The order of the steps, and nothing else.

mod assignments;
mod contents;
mod emergency;
mod isolation;
mod links;
mod memory;
mod placement;
mod protection;
mod quotas;
mod reclaim;
mod regions;
mod rollout;
mod slices;
mod tenancy;
mod tenants;
mod turn;

use std::collections::BTreeMap;

use crds::{AssignmentSliceSpec, ClusterName, ContentItem, Entry, NamespaceName, Uid};

pub use assignments::copy_name;
pub(crate) use assignments::{Edit, Edits};
pub use emergency::{Lane, emergency_hash};
pub(crate) use isolation::Edited;
pub use isolation::{Baselines, Enforcement, Force, LinkSide, Remark, Wall};
pub use links::Links;
pub use memory::Planner;
pub use placement::Refusal;
pub(crate) use placement::{Class, Consequence, Load, Placed, Room, wants};
pub(crate) use protection::{Divided, Held, PERIODS_MAX, capped, objection, parts, tier_of};
pub use protection::{PolicyWrite, Protection};
pub(crate) use quotas::Book;
pub use quotas::{Draw, Granted, Granting, Lent, QuotaStanding, QuotaWrite, Source};
pub use regions::{ClusterView, Fleet, Reach, RegionView, Standing};
pub(crate) use rollout::Rolled;
pub use tenancy::TenantWrite;
pub(crate) use tenancy::missing as missing_roles;
pub use tenants::{Limits, Place, TenantView, Tenants};

use crate::report::PlanReport;
use crate::world::{SliceState, World};
use regions::Wake;

/// Everything to write, down to the last field. Statuses are in the [`PlanReport`].
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Plan {
    /// What to write for tenants, before everything else.
    pub tenants: Vec<TenantWrite>,
    /// What to write for Quotas, before what is placed by them.
    pub quotas: Vec<QuotaWrite>,
    /// TrafficPolicies to hold by our finalizer, and to let go.
    pub policies: Vec<PolicyWrite>,
    /// Apps to hold by our finalizer before anything is placed.
    pub holds: Vec<Uid>,
    /// Content to store, before the slices that name it.
    pub contents: Vec<ContentWrite>,
    /// Slices to write.
    pub slices: Vec<SliceWrite>,
    /// Apps to let go: they are removed wherever somebody can answer.
    pub releases: Vec<Uid>,
    /// Content that nothing names any more.
    pub collect: Vec<String>,
    /// When to plan again although nothing changed, in milliseconds since the Unix epoch.
    pub wake_at: Option<i64>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        let Self {
            tenants,
            quotas,
            policies,
            holds,
            contents,
            slices,
            releases,
            collect,
            wake_at: _,
        } = self;
        tenants.is_empty()
            && quotas.is_empty()
            && policies.is_empty()
            && holds.is_empty()
            && contents.is_empty()
            && slices.is_empty()
            && releases.is_empty()
            && collect.is_empty()
    }
}

/// A Content object to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentWrite {
    /// Name.
    pub name: String,
    /// Tenant it belongs to.
    pub tenant: NamespaceName,
    /// What it holds.
    pub items: Vec<ContentItem>,
}

/// An AssignmentSlice to create or replace.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceWrite {
    /// Cluster it is for.
    pub cluster: ClusterName,
    /// Name.
    pub name: String,
    /// Version to replace; absent to create.
    pub resource_version: Option<String>,
    /// What it says.
    pub spec: AssignmentSliceSpec,
}

impl SliceWrite {
    /// The same without what is said of some entries: those stay as the slice has them. `None` when
    /// nothing is left to write.
    pub fn keeping(mut self, world: &World, stays: impl Fn(&Entry) -> bool) -> Option<Self> {
        if !self.spec.entries.iter().any(&stays) {
            return Some(self);
        }
        let stored = world.slice(&self.cluster, &self.name);
        let before: BTreeMap<&Uid, &Entry> = stored
            .into_iter()
            .flat_map(|slice| &slice.entries)
            .map(|entry| (&entry.uid, &**entry))
            .collect();
        let keep = |entry: Entry| {
            if stays(&entry) {
                before.get(&entry.uid).map(|held| (*held).clone())
            } else {
                Some(entry)
            }
        };
        self.spec.entries = self.spec.entries.into_iter().filter_map(keep).collect();
        let same = |slice: &SliceState| {
            slice.header.management == self.spec.management
                && slice.header.hub_epoch == self.spec.hub_epoch
                && slice.entries.iter().map(|e| &**e).eq(&self.spec.entries)
        };
        (!stored.is_some_and(same)).then_some(self)
    }
}

/// Decides the whole province, from nothing but the world.
pub fn plan(world: &World) -> (Plan, PlanReport) {
    let mut planner = Planner::default();
    let plan = planner.plan(world);
    (plan, planner.into_report())
}

impl Planner {
    /// Decides the whole province. A planner follows one world from turn to turn; for another
    /// world, a copy for a rehearsal included, use [`plan`] or another planner.
    pub fn plan(&mut self, world: &World) -> Plan {
        let mut wake = Wake::default();
        self.see_fleet(world, &mut wake);
        self.see_tenants(world);
        self.see_quotas(world);
        self.see_isolations(world);
        self.settle(world);
        self.place(world);
        self.grant(world);
        self.account_for_orphans(world);
        self.see_links(world, &mut wake);
        self.isolate(world);
        self.protect(world);
        self.report_on_fleet(world);
        self.write_down(world, &mut wake)
    }
}
