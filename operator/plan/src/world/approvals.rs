//! Approvals, and what each is about.

use std::sync::Arc;

use crds::{AppName, Approval, EMERGENCY, NamespaceName, SYSTEM_NAMESPACE};

use super::World;

impl World {
    /// Takes in an Approval.
    pub fn apply_approval(&mut self, approval: Approval) {
        let namespace =
            NamespaceName::from(approval.metadata.namespace.clone().unwrap_or_default());
        let name: Box<str> = approval.metadata.name.clone().unwrap_or_default().into();
        self.remove_approval(&namespace, &name);
        if let Some(app) = emergency(&namespace, &approval) {
            let names = self.emergencies.entry(app).or_default();
            names.insert(name.clone());
        }
        self.touch_approved(&namespace, &approval);
        self.approvals.insert((namespace, name), Arc::new(approval));
    }

    /// Forgets an Approval that was deleted.
    pub fn remove_approval(&mut self, namespace: &NamespaceName, name: &str) {
        let Some(gone) = self.approvals.remove(&(namespace.clone(), name.into())) else {
            return;
        };
        if let Some(app) = emergency(namespace, &gone)
            && let Some(names) = self.emergencies.get_mut(&app)
        {
            names.remove(name);
            if names.is_empty() {
                self.emergencies.remove(&app);
            }
        }
        self.touch_approved(namespace, &gone);
    }

    /// Notes that an Approval came or went for what it is about.
    fn touch_approved(&mut self, namespace: &NamespaceName, approval: &Approval) {
        self.touch_link(approval);
        let target = &approval.spec.target;
        let name = AppName::from(target.name.as_str());
        self.touch_named(namespace, &name);
        if let Some(other) = &target.namespace {
            self.touch_named(other, &name);
        }
    }

    pub(super) fn touch_named(&mut self, namespace: &NamespaceName, name: &AppName) {
        let uids = self.app_names.get(&(namespace.clone(), name.clone()));
        for uid in uids.into_iter().flatten() {
            self.journal.note(uid);
        }
    }

    /// Approvals that were made in a namespace.
    pub(crate) fn approvals_in<'w>(
        &'w self,
        namespace: &'w NamespaceName,
    ) -> impl Iterator<Item = &'w Approval> {
        let all = self.approvals.range((namespace.clone(), "".into())..);
        let here = all.take_while(move |((other, _), _)| other == namespace);
        here.map(|(_, approval)| &**approval)
    }

    /// Approvals for the emergency lane that name an App.
    pub(crate) fn emergencies_of(
        &self,
        namespace: &NamespaceName,
        name: &AppName,
    ) -> impl Iterator<Item = &Approval> {
        let names = self.emergencies.get(&(namespace.clone(), name.clone()));
        let system = NamespaceName::from(SYSTEM_NAMESPACE);
        names.into_iter().flatten().filter_map(move |name| {
            let found = self.approvals.get(&(system.clone(), name.clone()));
            found.map(|approval| &**approval)
        })
    }
}

/// The App that an Approval puts into the emergency lane, if it is about that.
fn emergency(namespace: &NamespaceName, approval: &Approval) -> Option<(NamespaceName, AppName)> {
    let (spec, target) = (&approval.spec, &approval.spec.target);
    let about =
        namespace.as_str() == SYSTEM_NAMESPACE && target.kind == "App" && spec.step == EMERGENCY;
    let home = target.namespace.clone().filter(|_| about)?;
    Some((home, target.name.as_str().into()))
}
