//! Tenants and namespaces behind the gate.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{
    APP_FINALIZER, Administrator, AdministratorKind, DataGrade, NamespaceName, ObjectMeta, Reason,
    RegionName, SYSTEM_NAMESPACE, Tenant, TenantName, TenantStatus, Tier, Uid, Zone, label,
};

use super::World;
use super::gate::{Parked, Verdict};

/// Where a Tenant lives, and its name.
pub type TenantKey = (NamespaceName, TenantName);

/// A Tenant as the API server has it, behind the gate.
#[derive(Clone, Debug)]
pub struct TenantSlot {
    /// UID.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether our finalizer holds it.
    pub held: bool,
    /// The valid Tenant, or why it is parked.
    pub state: Verdict<ValidTenant>,
    /// Status as last written.
    pub status: Arc<TenantStatus>,
}

/// A Tenant whose own fields are right; whether it fits below its parent is the tenants step's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidTenant {
    /// Regions whose subtrees it asks for; empty means its parent's.
    pub regions: BTreeSet<RegionName>,
    /// Zones that it asks for; empty means its parent's.
    pub zones: BTreeSet<Zone>,
    /// Highest grade of data that it asks for.
    pub max_data_grade: Option<DataGrade>,
    /// Highest tier of its Apps.
    pub max_tier: Option<Tier>,
    /// Who runs it.
    pub administrators: BTreeSet<Administrator>,
}

/// A namespace at the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSlot {
    /// UID.
    pub uid: Uid,
    /// UID of the Tenant that owns it.
    pub owner: Option<Uid>,
    /// The tenant that may claim it, by the name of the namespace that this tenant owns.
    pub claim: Option<NamespaceName>,
    /// Whether what is in it may be deleted, since its Tenant is.
    pub clearing: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl NamespaceSlot {
    /// What a namespace says of itself.
    pub fn of(meta: &ObjectMeta) -> Self {
        let note = |key: &str| Some(meta.annotations.as_ref()?.get(key)?.as_str());
        let labels = meta.labels.as_ref();
        let claim = labels.and_then(|labels| labels.get(label::CLAIM));
        let owner = note(label::TENANT_UID);
        Self {
            uid: meta.uid.clone().unwrap_or_default().into(),
            owner: owner.map(Uid::from),
            claim: claim.map(|claim| claim.as_str().into()),
            clearing: owner.is_some() && note(label::CLEARING) == owner,
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// A namespace that belongs to nobody.
    pub fn plain(uid: Uid) -> Self {
        Self {
            uid,
            owner: None,
            claim: None,
            clearing: false,
            deleting: false,
        }
    }
}

/// Who a role is given to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// User, group or ServiceAccount.
    pub kind: AdministratorKind,
    /// Its name.
    pub name: Box<str>,
    /// Namespace of a ServiceAccount.
    pub namespace: Option<NamespaceName>,
}

impl Subject {
    /// An administrator of the tenant that owns a namespace.
    pub fn of(administrator: &Administrator, own: &NamespaceName) -> Self {
        let machine = administrator.kind == AdministratorKind::ServiceAccount;
        Self {
            kind: administrator.kind,
            name: administrator.name.as_str().into(),
            namespace: machine.then(|| own.clone()),
        }
    }
}

/// A role that the hub gives in a tenant's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenantRole {
    /// To those who run the tenant.
    Admin,
    /// To those who run the tenants above: they see what is there.
    View,
}

impl TenantRole {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Admin, Self::View];

    /// Name of the ClusterRole, and of the RoleBinding.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "jiuzhou-tenant-admin",
            Self::View => "jiuzhou-tenant-view",
        }
    }

    /// The role of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// The namespace that a Tenant owns.
pub fn owned_namespace((home, name): &TenantKey) -> NamespaceName {
    if home.as_str() == SYSTEM_NAMESPACE {
        name.as_str().into()
    } else {
        format!("{home}-{name}").into()
    }
}

/// Where the Tenant lives that would own a namespace, and its name.
pub(crate) fn home_of(namespace: &NamespaceName) -> (&str, &str) {
    let name = namespace.as_str();
    name.rsplit_once('-').unwrap_or((SYSTEM_NAMESPACE, name))
}

impl World {
    /// Whether what stands for a namespace in the members is to go: its tenant is being deleted, and either
    /// that is written on the namespace, or the namespace was deleted by hand before; or it is no tenant's,
    /// and is being deleted itself.
    pub(crate) fn is_cleared(&self, namespace: &NamespaceName) -> bool {
        if let Some(slot) = self.namespaces.get(namespace) {
            return slot.clearing || slot.owner.is_none() && slot.deleting;
        }
        let (home, name) = home_of(namespace);
        let tenant = self.tenants.get(&(home.into(), name.into()));
        tenant.is_some_and(|tenant| tenant.deleting)
    }

    /// Takes in a Tenant.
    pub fn apply_tenant(&mut self, tenant: &Tenant) {
        let meta = &tenant.metadata;
        let key = (
            NamespaceName::from(meta.namespace.clone().unwrap_or_default()),
            TenantName::from(meta.name.clone().unwrap_or_default()),
        );
        let created = meta.creation_timestamp.as_ref();
        let mut finalizers = meta.finalizers.iter().flatten();
        let slot = TenantSlot {
            uid: meta.uid.clone().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or(0),
            created: created.map_or(0, |t| t.0.as_millisecond()),
            deleting: meta.deletion_timestamp.is_some(),
            held: finalizers.any(|f| f == APP_FINALIZER),
            state: tenant_gate(&key.1, tenant).map(Arc::new),
            status: Arc::new(tenant.status.clone().unwrap_or_default()),
        };
        self.tenants.insert(key, slot);
        self.tenancy += 1;
    }

    /// Forgets a Tenant that was deleted.
    pub fn remove_tenant(&mut self, home: &NamespaceName, name: &TenantName) {
        if self.tenants.remove(&(home.clone(), name.clone())).is_some() {
            self.tenancy += 1;
        }
    }

    /// Takes in a namespace at the hub; names of Content objects depend on its UID.
    pub fn apply_namespace(&mut self, name: &NamespaceName, slot: NamespaceSlot) {
        if self.namespaces.get(name) != Some(&slot) {
            self.namespaces.insert(name.clone(), slot);
            self.tenancy += 1;
            self.recognise(name);
        }
    }

    /// Forgets a namespace that was deleted.
    pub fn remove_namespace(&mut self, name: &NamespaceName) {
        if self.namespaces.remove(name).is_some() {
            self.tenancy += 1;
        }
    }

    /// Takes in to whom a role is given in a namespace.
    pub fn apply_binding(
        &mut self,
        namespace: NamespaceName,
        role: TenantRole,
        subjects: BTreeSet<Subject>,
    ) {
        let key = (namespace, role);
        if self.bindings.get(&key) != Some(&subjects) {
            self.bindings.insert(key, subjects);
            self.tenancy += 1;
        }
    }

    /// Forgets a binding that was deleted.
    pub fn remove_binding(&mut self, namespace: &NamespaceName, role: TenantRole) {
        if self.bindings.remove(&(namespace.clone(), role)).is_some() {
            self.tenancy += 1;
        }
    }

    /// All Tenants, valid and parked.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantKey, &TenantSlot)> {
        self.tenants.iter()
    }

    /// A namespace at the hub.
    pub fn namespace(&self, name: &NamespaceName) -> Option<&NamespaceSlot> {
        self.namespaces.get(name)
    }

    /// To whom a role is given in a namespace.
    pub fn binding(
        &self,
        namespace: &NamespaceName,
        role: TenantRole,
    ) -> Option<&BTreeSet<Subject>> {
        self.bindings.get(&(namespace.clone(), role))
    }

    /// One Tenant, valid or parked.
    pub fn tenant(&self, key: &TenantKey) -> Option<&TenantSlot> {
        self.tenants.get(key)
    }

    /// UIDs of the Apps that live in a namespace.
    pub(crate) fn apps_in(&self, namespace: &NamespaceName) -> impl Iterator<Item = &Uid> {
        let names = self.app_names.range((namespace.clone(), "".into())..);
        let here = names.take_while(move |((home, _), _)| home == namespace);
        here.flat_map(|(_, uids)| uids)
    }

    /// Tenants that live in a namespace.
    pub(crate) fn tenants_in(
        &self,
        namespace: &NamespaceName,
    ) -> impl Iterator<Item = (&TenantKey, &TenantSlot)> {
        let all = self.tenants.range((namespace.clone(), "".into())..);
        all.take_while(move |((home, _), _)| home == namespace)
    }
}

fn tenant_gate(name: &TenantName, tenant: &Tenant) -> Result<ValidTenant, Parked> {
    if !name.is_valid() {
        let message = format!(
            "metadata.name {name:?} must be 1 to 14 lower-case letters and digits and begin with a letter"
        );
        return Err(Parked::new(Reason::Invalid, message));
    }
    if matches!(name.as_str(), "default" | "kube" | "jiuzhou" | "jz") {
        let message =
            format!("metadata.name {name}: namespaces that begin so belong to the platform");
        return Err(Parked::new(Reason::NamespaceReserved, message));
    }
    let spec = &tenant.spec;
    Ok(ValidTenant {
        regions: spec.regions.iter().cloned().collect(),
        zones: spec.zones.iter().copied().collect(),
        max_data_grade: spec.max_data_grade,
        max_tier: spec.max_tier,
        administrators: spec.administrators.iter().cloned().collect(),
    })
}
