//! What the agent hears: of its cluster, and of the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{ContentHash, NamespaceName, label};
use plan::content::AppContent;
use plan::object::{Kind, ObjectKey};
use plan::realize::{Namespace, Seen};

use super::{Missing, RETRY, SPARE_PACKS, State};
use crate::agent::events::Heard;
use crate::agent::hub_side::Fetched;
use crate::agent::member::BOUND;
use crate::agent::secrets::Copied;
use crate::agent::view::View;
use crate::runtime::watch::Change;

impl State {
    pub(crate) fn hear(&mut self, heard: Heard, now: i64) {
        match heard {
            Heard::Slices(change) => self.hear_slices(change),
            Heard::Copies(change) => self.hear_copies(change),
            Heard::Objects(kind, change) => self.hear_objects(kind, change),
            Heard::Namespaces(change) => self.hear_namespaces(change),
            Heard::Nodes(change) => {
                self.use_stale = true;
                let nodes = self.capacity.node_count();
                let whole = matches!(change, Change::Replaced(_));
                match change {
                    Change::Replaced(all) => self.capacity.replace_nodes(&all),
                    Change::Applied(one) => self.capacity.see_node(&one),
                    Change::Deleted(one) => self
                        .capacity
                        .lose_node(one.metadata.name.as_deref().unwrap_or_default()),
                }
                if whole || nodes != self.capacity.node_count() {
                    self.stir_homes();
                }
            }
            Heard::Pods(change) => {
                self.use_stale = true;
                match change {
                    Change::Replaced(all) => self.capacity.replace_pods(&all),
                    Change::Applied(one) => self.capacity.see_pod(&one),
                    Change::Deleted(one) => self.capacity.lose_pod(&one),
                }
                for (app, pods) in self.capacity.take_counts() {
                    let before = match pods {
                        0 => self.observed.pods.remove(&app).unwrap_or(0),
                        pods => self.observed.pods.insert(app.clone(), pods).unwrap_or(0),
                    };
                    if before != pods {
                        self.dirty.insert(app.1);
                    }
                }
            }
            Heard::Content(pack, fetched) => self.hear_content(&pack, &fetched, now),
            Heard::Kinds(_) => {}
        }
    }

    pub(super) fn hear_slices(
        &mut self,
        change: Change<(Box<str>, Arc<crds::AssignmentSliceSpec>)>,
    ) {
        match change {
            Change::Replaced(all) => self.slices = all.into_iter().collect(),
            Change::Applied((name, slice)) => drop(self.slices.insert(name, slice)),
            Change::Deleted((name, _)) => drop(self.slices.remove(&name)),
        }
        self.slices_known = true;
        self.take();
    }

    pub(super) fn hear_copies(&mut self, change: Change<Copied>) {
        self.vault.hear(change);
        self.observed.copies = self.vault.versions();
        let users = self
            .held
            .entries
            .iter()
            .filter(|(_, held)| !held.entry.secrets.is_empty());
        self.dirty.extend(users.map(|(uid, _)| uid.clone()));
    }

    pub(super) fn hear_objects(&mut self, kind: Kind, change: Change<(ObjectKey, Box<Seen>)>) {
        match change {
            Change::Replaced(all) => {
                let all = all.into_iter().map(|(key, seen)| (key, *seen));
                self.dirty.extend(self.observed.list(kind, all));
                if self.observed.listing.remove(&kind) {
                    self.observed.kinds.insert(kind);
                    self.dirty.extend(self.held.entries.keys().cloned());
                }
                if kind == Kind::NetworkPolicy {
                    self.stir_homes();
                }
                self.unsorted = true;
            }
            Change::Applied((key, seen)) => {
                self.stir_stranger(&key);
                if !seen.health.refused {
                    self.observed.nudged.remove(&key);
                }
                let known = |owner: &crds::Uid| self.held.entries.contains_key(owner);
                let unknown = !seen.owner.as_ref().is_none_or(known);
                self.unsorted |= unknown || !self.abandoned.is_empty();
                self.dirty.extend(self.observed.see(key, *seen));
            }
            Change::Deleted((key, seen)) => {
                self.stir_stranger(&key);
                // A late echo of an object that was meanwhile created anew says nothing.
                if self
                    .observed
                    .objects
                    .get(&key)
                    .is_some_and(|now| now.uid == seen.uid)
                {
                    self.dirty.extend(self.observed.lose(&key));
                    self.unsorted |= !self.abandoned.is_empty();
                }
            }
        }
    }

    pub(super) fn hear_namespaces(&mut self, change: Change<View>) {
        let one = |view: &View| {
            let (key, seen) = view.clone().into_seen(Kind::Namespace);
            (key, Box::new(seen))
        };
        self.hear_objects(
            Kind::Namespace,
            match &change {
                Change::Replaced(all) => Change::Replaced(all.iter().map(one).collect()),
                Change::Applied(view) => Change::Applied(one(view)),
                Change::Deleted(view) => Change::Deleted(one(view)),
            },
        );
        match change {
            Change::Replaced(all) => {
                let new: BTreeMap<_, _> = all.iter().map(|view| self.namespace(view)).collect();
                let names: BTreeSet<_> = new
                    .keys()
                    .chain(self.observed.namespaces.keys())
                    .cloned()
                    .collect();
                for name in names {
                    match new.get(&name) {
                        Some(namespace) => self.see_namespace(&name, *namespace),
                        None => self.lose_namespace(&name),
                    }
                }
            }
            Change::Applied(view) => {
                let (name, namespace) = self.namespace(&view);
                self.see_namespace(&name, namespace);
            }
            Change::Deleted(view) => {
                let (name, _) = self.namespace(&view);
                self.lose_namespace(&name);
            }
        }
    }

    pub(super) fn namespace(&self, view: &View) -> (NamespaceName, Namespace) {
        let meta = &view.metadata;
        let labels = meta.labels.as_ref();
        let managed = labels
            .and_then(|l| l.get(label::MANAGED_BY))
            .is_some_and(|v| v == label::MANAGED_BY_VALUE);
        let bound = meta.annotations.as_ref().and_then(|a| a.get(BOUND)) == Some(&self.identity);
        let namespace = match (meta.deletion_timestamp.is_some(), managed, bound) {
            (true, ..) => Namespace::Terminating,
            (false, true, true) => Namespace::Ready,
            (false, true, false) => Namespace::Unbound,
            // In the hub's own cluster the tenant's namespace is the one its Apps live in.
            (false, false, _) if self.local => Namespace::Unbound,
            (false, false, _) => Namespace::Foreign,
        };
        (meta.name.clone().unwrap_or_default().into(), namespace)
    }

    pub(super) fn see_namespace(&mut self, name: &NamespaceName, namespace: Namespace) {
        if self.observed.namespaces.insert(name.clone(), namespace) != Some(namespace) {
            self.touch_namespace(name);
        }
    }

    pub(super) fn lose_namespace(&mut self, name: &NamespaceName) {
        self.observed.namespaces.remove(name);
        self.touch_namespace(name);
    }

    pub(super) fn touch_namespace(&mut self, name: &NamespaceName) {
        let here = self
            .held
            .entries
            .iter()
            .filter(|(_, held)| held.entry.namespace == *name);
        self.dirty.extend(here.map(|(uid, _)| uid.clone()));
    }

    /// Takes in what came of fetching a pack. Content is known by its hash alone: two tenants may
    /// have the same in two packs, and whichever comes first serves both.
    pub(super) fn hear_content(
        &mut self,
        pack: &str,
        fetched: &Result<Option<Fetched>, String>,
        now: i64,
    ) {
        self.fetching.remove(pack);
        let items: BTreeMap<&ContentHash, &Result<Arc<AppContent>, String>> = match fetched {
            Ok(Some(items)) => items.iter().map(|(hash, item)| (hash, item)).collect(),
            Ok(None) | Err(_) => BTreeMap::new(),
        };
        let entries = self.held.entries.iter();
        for (uid, held) in entries.filter(|(_, held)| held.entry.state.is_present()) {
            let entry = &held.entry;
            let item = items.get(&entry.content);
            if let Some(Ok(content)) = item {
                self.missing
                    .remove(&(entry.content.clone(), entry.pack.to_string()));
                if !self.contents.contains_key(&entry.content) {
                    self.contents.insert(entry.content.clone(), content.clone());
                    self.unsaved = true;
                }
                self.dirty.insert(uid.clone());
                continue;
            }
            if *entry.pack != *pack || self.contents.contains_key(&entry.content) {
                continue;
            }
            let why = match (item, fetched) {
                (Some(Err(why)), _) => why.clone(),
                (_, Err(_)) => {
                    // The hub is away: nobody is at fault, so nothing is reported.
                    self.wakes.insert(uid.clone(), now + RETRY);
                    continue;
                }
                (_, Ok(Some(_))) => format!("pack {pack} does not hold it"),
                (_, Ok(None)) => format!("pack {pack} does not exist at the hub"),
            };
            let retry_at = now + RETRY;
            self.missing.insert(
                (entry.content.clone(), pack.to_owned()),
                Missing { why, retry_at },
            );
            self.dirty.insert(uid.clone());
        }
        self.keep_spare(&items);
    }

    /// Keeps what no entry names yet, of the last few packs.
    fn keep_spare(&mut self, items: &BTreeMap<&ContentHash, &Result<Arc<AppContent>, String>>) {
        let spare = items.iter().filter_map(|(hash, item)| {
            let content = item.as_ref().ok()?;
            (!self.contents.contains_key(*hash)).then(|| ((*hash).clone(), content.clone()))
        });
        let spare: BTreeMap<ContentHash, Arc<AppContent>> = spare.collect();
        if spare.is_empty() {
            return;
        }
        if self.spare.len() >= SPARE_PACKS {
            self.spare.pop_front();
        }
        self.spare.push_back(spare);
    }
}
