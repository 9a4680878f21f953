use super::*;
use crate::object::Kind;
use crds::{Stage, Timestamp, Uid};
use serde_json::{Value, json};

mod applying;
mod health;
mod observing;
mod ownership;
mod removing;
mod repairs;
mod secrets;

const NOW: i64 = 1_000_000;

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
        }},
    })
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

fn autoscaler(target: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": target},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "maxReplicas": 9},
    })
}

/// One App in one cluster.
struct Bed {
    entry: Entry,
    content: AppContent,
    observed: Observed,
    management: Management,
}

impl Bed {
    fn new(manifests: &[Value]) -> Self {
        let content = AppContent {
            manifests: manifests.to_vec(),
            images: vec![],
            workload: None,
            tier: crds::Tier::General,
            overrides: vec![],
        };
        let mut observed = Observed::default();
        observed
            .namespaces
            .insert("health".into(), Namespace::Ready);
        let enclosure = Enclosure {
            in_force: true,
            ..Enclosure::default()
        };
        observed.enclosures.insert("health".into(), enclosure);
        observed.kinds = Kind::ALL.iter().copied().collect();
        observed.access = Kind::ALL
            .iter()
            .map(|kind| (("health".into(), *kind), Access::Allowed))
            .collect();
        let entry = Entry {
            uid: "uid-1".into(),
            namespace: "health".into(),
            name: "web".into(),
            generation: 1,
            state: EntryState::Present,
            content: "0".repeat(20).into(),
            pack: "c-1".into(),
            overrides: vec![],
            stages: vec![Stage {
                replicas: Some(3),
                ..Stage::default()
            }],
            secrets: vec![],
            take_over: TakeOver::Never,
            scope: crds::Scope::App,
            tier: crds::Tier::General,
            limits: [].into(),
            shares: Vec::new(),
            charge: std::sync::Arc::default(),
        };
        Self {
            entry,
            content,
            observed,
            management: Management::Manage,
        }
    }

    fn realize_at(&self, now: i64) -> Realized {
        realize(
            &self.entry,
            ContentState::Here(&self.content),
            self.management,
            &self.observed,
            now,
        )
    }

    fn realize(&self) -> Realized {
        self.realize_at(NOW)
    }

    /// Carries out all applies as an API server would, and returns how many there were.
    fn carry_out(&mut self) -> usize {
        let mut count = 0;
        for action in self.realize().actions {
            if let Action::Apply(apply) = action {
                count += 1;
                self.exists(&apply.key, Some(&apply), Some("uid-1"));
            }
        }
        count
    }

    /// Puts an object into the cluster, as applied or as somebody made it.
    fn exists(&mut self, key: &ObjectKey, applied: Option<&Apply>, owner: Option<&str>) {
        let generation = match self
            .observed
            .objects
            .get(key)
            .map(|seen| seen.stamp.clone())
        {
            Some(Stamp::Generation(generation)) => generation + 1,
            Some(Stamp::Version(_)) | None => 1,
        };
        let seen = Seen {
            uid: format!("object-{}", key.name).into(),
            resource_version: format!("{}", 10 + generation).into(),
            stamp: Stamp::Generation(generation),
            owner: owner.map(Uid::from),
            applied: applied.map(|a| a.hash.clone()),
            deleting: false,
            replicas: applied
                .and_then(|a| a.body.pointer("/spec/replicas")?.as_i64())
                .map(|n| i32::try_from(n).unwrap()),
            hold_until: None,
            health: Health::default(),
            created: false,
            limited: None,
        };
        if let Some(apply) = applied {
            let settled = Settled {
                uid: seen.uid.clone(),
                app: owner.map(Uid::from),
                hash: apply.hash.clone(),
                stamp: seen.stamp.clone(),
                repairs: vec![],
            };
            self.observed.settled.insert(key.clone(), settled);
        }
        self.observed.see(key.clone(), seen);
    }

    /// Changes what is seen of an object.
    fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.observed.objects[key].clone();
        change(&mut seen);
        self.observed.see(key.clone(), seen);
    }
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: "health".into(),
        name: name.into(),
    }
}

fn applies(realized: &Realized) -> Vec<&Apply> {
    let mut applies = Vec::new();
    for action in &realized.actions {
        if let Action::Apply(apply) = action {
            applies.push(apply.as_ref());
        }
    }
    applies
}
