//! Capacity and use of the member cluster, from its nodes and pods.

use std::collections::{BTreeMap, BTreeSet};

use crds::{NamespaceName, Nodes, ResourceQuantity, Uid, label};
use plan::amount::{Resources, parse_quantity};
use serde_json::Value;

use super::view::{Container, Spec, View};

/// Most resources in a report, and the longest name of one; as in its schema. A report beyond them
/// would be refused whole.
const RESOURCES_MAX: usize = 32;
const NAME_MAX: usize = 63;

/// Resources that are reported. Everything else on nodes is of no use to placement.
fn reported(name: &str) -> bool {
    let device = name.contains('/') && name.len() <= NAME_MAX;
    matches!(name, "cpu" | "memory" | "pods" | "ephemeral-storage") || device
}

/// As many as a report takes. What every placement asks for comes before devices.
fn bounded(mut list: Vec<ResourceQuantity>) -> Vec<ResourceQuantity> {
    list.sort_by_key(|resource| resource.name.contains('/'));
    list.truncate(RESOURCES_MAX);
    list
}

/// Where a pod says that it is an App's, and of which.
type Place = (NamespaceName, Uid);

/// Running account of nodes and pods.
#[derive(Default)]
pub(crate) struct Capacity {
    nodes: BTreeMap<String, Option<Resources>>,
    pods: BTreeMap<(NamespaceName, String), Resources>,
    used: BTreeMap<NamespaceName, Resources>,
    /// The App of each pod that has not ended, and how many pods each has.
    apps: BTreeMap<(NamespaceName, String), Place>,
    counts: BTreeMap<Place, i32>,
    /// Apps whose number of pods changed since it was last asked for.
    recounted: BTreeSet<Place>,
    /// Whether nodes and pods were listed.
    listed: (bool, bool),
}

/// What is reported of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Use {
    pub(crate) nodes: Nodes,
    pub(crate) allocatable: Vec<ResourceQuantity>,
    pub(crate) managed: Vec<ResourceQuantity>,
    pub(crate) others: Vec<ResourceQuantity>,
}

impl Capacity {
    /// Takes in a node; one that is not ready or not schedulable offers nothing.
    pub(crate) fn see_node(&mut self, view: &View) {
        let unschedulable = view.spec.unschedulable == Some(true);
        let conditions = view.status.get("conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().any(|c| {
            let text = |field: &str| c.get(field).and_then(Value::as_str);
            text("type") == Some("Ready") && text("status") == Some("True")
        });
        let offer = (ready && !unschedulable).then(|| {
            let allocatable = view.status.get("allocatable").and_then(Value::as_object);
            amounts(allocatable.into_iter().flatten())
        });
        self.nodes
            .insert(view.metadata.name.clone().unwrap_or_default(), offer);
    }

    pub(crate) fn lose_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Whether everything was looked at: before that, a cluster would seem to be empty.
    pub(crate) fn is_known(&self) -> bool {
        self.listed == (true, true)
    }

    pub(crate) fn replace_nodes(&mut self, views: &[View]) {
        self.listed.0 = true;
        self.nodes.clear();
        views.iter().for_each(|view| self.see_node(view));
    }

    /// Takes in a pod. Only pods on a node use anything, and those that ended no longer do.
    pub(crate) fn see_pod(&mut self, view: &View) {
        let key = pod_key(view);
        self.drop_pod(&key);
        let phase = view.status.get("phase").and_then(Value::as_str);
        let bound = view.spec.node_name.as_ref().is_some_and(|n| !n.is_empty());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        let labels = view.metadata.labels.as_ref();
        if let Some(app) = labels.and_then(|labels| labels.get(label::APP_UID)) {
            // Anybody may write any label in a namespace of theirs; what is elsewhere is not the App's.
            let app = (key.0.clone(), Uid::from(app.as_str()));
            self.count(&app, 1);
            self.apps.insert(key.clone(), app);
        }
        if !bound {
            return;
        }
        let request = request(&view.spec);
        self.used.entry(key.0.clone()).or_default().add(&request, 1);
        self.pods.insert(key, request);
    }

    pub(crate) fn lose_pod(&mut self, view: &View) {
        self.drop_pod(&pod_key(view));
    }

    pub(crate) fn replace_pods(&mut self, views: &[View]) {
        self.listed.1 = true;
        self.pods.clear();
        self.used.clear();
        self.apps.clear();
        self.recounted
            .extend(std::mem::take(&mut self.counts).into_keys());
        views.iter().for_each(|view| self.see_pod(view));
    }

    fn count(&mut self, app: &Place, more: i32) {
        let count = self.counts.entry(app.clone()).or_default();
        *count += more;
        if *count == 0 {
            self.counts.remove(app);
        }
        self.recounted.insert(app.clone());
    }

    /// How many pods Apps have of which that changed.
    pub(crate) fn take_counts(&mut self) -> Vec<(Place, i32)> {
        let apps = std::mem::take(&mut self.recounted).into_iter();
        let count = |app: Place| {
            let count = self.counts.get(&app).copied().unwrap_or(0);
            (app, count)
        };
        apps.map(count).collect()
    }

    /// How many nodes there are.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn drop_pod(&mut self, key: &(NamespaceName, String)) {
        if let Some(app) = self.apps.remove(key) {
            self.count(&app, -1);
        }
        if let Some(old) = self.pods.remove(key)
            && let Some(used) = self.used.get_mut(&key.0)
        {
            used.add(&old, -1);
        }
    }

    /// The account, split into pods of managed namespaces and all others.
    pub(crate) fn account(&self, managed: &BTreeSet<NamespaceName>) -> Use {
        let (mut ours, mut theirs, mut allocatable) = (
            Resources::default(),
            Resources::default(),
            Resources::default(),
        );
        for (namespace, used) in &self.used {
            let side = if managed.contains(namespace) {
                &mut ours
            } else {
                &mut theirs
            };
            side.add(used, 1);
        }
        for offer in self.nodes.values().flatten() {
            allocatable.add(offer, 1);
        }
        if !self.nodes.is_empty() {
            // No ready node is no room, not unknown room.
            for name in ["cpu", "memory", "pods"] {
                allocatable.set(name, allocatable.get(name));
            }
        }
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let ready = self.nodes.values().flatten().count();
        Use {
            nodes: Nodes {
                total: count(self.nodes.len()),
                ready: count(ready),
            },
            allocatable: bounded(allocatable.to_list()),
            managed: bounded(ours.to_list()),
            others: bounded(theirs.to_list()),
        }
    }
}

fn pod_key(view: &View) -> (NamespaceName, String) {
    let meta = &view.metadata;
    (
        meta.namespace.clone().unwrap_or_default().into(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn amounts<'a>(list: impl Iterator<Item = (&'a String, &'a Value)>) -> Resources {
    let mut sum = Resources::default();
    for (name, quantity) in list {
        if let Some(amount) = quantity
            .as_str()
            .filter(|_| reported(name))
            .and_then(|q| parse_quantity(name, q))
        {
            sum.set(name, amount);
        }
    }
    sum
}

fn request(spec: &Spec) -> Resources {
    let of = |container: &Container| amounts(container.resources.requests.iter());
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container), 1);
    }
    for container in &spec.init_containers {
        sum = sum.at_least(&of(container));
    }
    sum.set("pods", 1);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_with_many_kinds_of_devices_is_reported_within_bounds() {
        let mut allocatable = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
        for n in 0..40 {
            allocatable[format!("a.example/slice-{n}")] = json!("1");
        }
        allocatable[format!("a.example/{}", "long".repeat(20))] = json!("1");
        let node = json!({
            "metadata": {"name": "n", "generation": 1},
            "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let mut capacity = Capacity::default();
        capacity.see_node(&serde_json::from_value(node).unwrap());
        let reported = capacity.account(&BTreeSet::new()).allocatable;
        assert_eq!(reported.len(), RESOURCES_MAX);
        for name in ["cpu", "memory", "pods"] {
            assert!(
                reported.iter().any(|resource| resource.name == name),
                "{name}"
            );
        }
        assert!(
            reported
                .iter()
                .all(|resource| resource.name.len() <= NAME_MAX)
        );
    }
}
