//! The gauges: what the last report said, read when somebody asks.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};
use tokio::time::Instant;

/// One region's numbers for one resource, in its base unit (cores, bytes, counts).
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Name of the Region.
    pub region: String,
    /// Name of the resource.
    pub resource: String,
    /// What its clusters offer.
    pub allocatable: f64,
    /// What quotas promise from it, once something does.
    pub granted: Option<f64>,
    /// What Apps ask of it.
    pub requested: f64,
    /// What is left to place.
    pub headroom: f64,
}

/// What a tenant is granted of one resource in a region, in its base unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Name of the Region.
    pub region: String,
    /// Namespace that the tenant owns.
    pub tenant: String,
    /// Name of the resource.
    pub resource: String,
    /// What it may always use.
    pub nominal: f64,
    /// What it uses.
    pub used: f64,
    /// What of that is beyond `nominal`.
    pub borrowed: f64,
    /// What others use of `nominal`.
    pub lent: f64,
}

/// The gauges of one process. Each setter replaces what was there.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    apps: Vec<(&'static str, u64)>,
    capacity: Vec<Capacity>,
    grants: Vec<Grant>,
    granted_at: Option<u64>,
    unreadable: Vec<(&'static str, u64)>,
    contacts: Vec<(String, Instant)>,
}

/// One gauge over rows: its name, its description, and the number it shows, if there is one.
type Column<Row> = (&'static str, &'static str, fn(&Row) -> Option<f64>);

impl Board {
    pub(super) fn new(meter: &Meter) -> Self {
        let board = Self(Arc::default());
        board.register_apps(meter);
        board.register_contacts(meter);
        board.register_capacity(meter);
        board.register_grants(meter);
        board.register_unreadable(meter);
        board
    }

    /// Apps by state; the states are a closed set of the caller.
    pub fn set_apps(&self, apps: impl IntoIterator<Item = (&'static str, u64)>) {
        self.change(|shown| shown.apps = apps.into_iter().collect());
    }

    /// Capacity of every region.
    pub fn set_capacity(&self, capacity: Vec<Capacity>) {
        self.change(|shown| shown.capacity = capacity);
    }

    /// What tenants are granted, as of some change: there may be many, and they change seldom.
    pub fn set_grants(&self, change: u64, grants: impl FnOnce() -> Vec<Grant>) {
        self.change(|shown| {
            if shown.granted_at != Some(change) {
                shown.grants = grants();
                shown.granted_at = Some(change);
            }
        });
    }

    /// Objects that cannot be read, by kind.
    pub fn set_unreadable(&self, unreadable: impl IntoIterator<Item = (&'static str, u64)>) {
        self.change(|shown| shown.unreadable = unreadable.into_iter().collect());
    }

    /// When each cluster was last heard of; the gauge shows the age at scrape time.
    pub fn set_contacts(&self, contacts: impl IntoIterator<Item = (String, Instant)>) {
        self.change(|shown| shown.contacts = contacts.into_iter().collect());
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        // A panic elsewhere leaves numbers at worst half replaced, and the next report heals them.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn register_apps(&self, meter: &Meter) {
        let board = self.clone();
        meter
            .u64_observable_gauge("apps")
            .with_description("Apps by state.")
            .with_callback(move |gauge| {
                board.change(|shown| {
                    for (state, count) in &shown.apps {
                        gauge.observe(*count, &[KeyValue::new("state", *state)]);
                    }
                });
            })
            .build();
    }

    fn register_contacts(&self, meter: &Meter) {
        self.register(
            meter,
            "cluster_last_contact",
            "s",
            "Age of the last news.",
            |shown, gauge| {
                for (cluster, at) in &shown.contacts {
                    let labels = [KeyValue::new("cluster", cluster.clone())];
                    gauge.observe(at.elapsed().as_secs_f64(), &labels);
                }
            },
        );
    }

    fn register_capacity(&self, meter: &Meter) {
        let gauges: [Column<Capacity>; 4] = [
            (
                "capacity_allocatable",
                "What the clusters of a region offer.",
                |c| Some(c.allocatable),
            ),
            (
                "capacity_granted",
                "What quotas promise from a region.",
                |c| c.granted,
            ),
            ("capacity_requested", "What Apps ask of a region.", |c| {
                Some(c.requested)
            }),
            (
                "capacity_headroom",
                "What is left to place in a region.",
                |c| Some(c.headroom),
            ),
        ];
        for (name, description, value) in gauges {
            self.register(meter, name, "", description, move |shown, gauge| {
                for row in &shown.capacity {
                    if let Some(value) = value(row) {
                        gauge.observe(value, &labels(&row.region, &row.resource));
                    }
                }
            });
        }
    }

    fn register_grants(&self, meter: &Meter) {
        let gauges: [Column<Grant>; 4] = [
            ("quota_nominal", "What a quota promises.", |g| {
                Some(g.nominal)
            }),
            ("quota_used", "What is charged against a quota.", |g| {
                Some(g.used)
            }),
            (
                "quota_borrowed",
                "What is used beyond a quota's nominal.",
                |g| Some(g.borrowed),
            ),
            (
                "quota_lent",
                "What others use of a quota's nominal: of what all leave, in proportion.",
                |g| Some(g.lent),
            ),
        ];
        for (name, description, value) in gauges {
            self.register(meter, name, "", description, move |shown, gauge| {
                for row in &shown.grants {
                    let [region, resource] = labels(&row.region, &row.resource);
                    let tenant = KeyValue::new("tenant", row.tenant.clone());
                    if let Some(value) = value(row) {
                        gauge.observe(value, &[region, tenant, resource]);
                    }
                }
            });
        }
    }

    fn register_unreadable(&self, meter: &Meter) {
        let board = self.clone();
        meter
            .u64_observable_gauge("objects_unreadable")
            .with_description("Objects that cannot be read; what was decided for them stands.")
            .with_callback(move |gauge| {
                board.change(|shown| {
                    for (kind, count) in &shown.unreadable {
                        gauge.observe(*count, &[KeyValue::new("kind", *kind)]);
                    }
                });
            })
            .build();
    }

    fn register(
        &self,
        meter: &Meter,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        observe: impl Fn(&Shown, &dyn AsyncInstrument<f64>) + Send + Sync + 'static,
    ) {
        let board = self.clone();
        meter
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |gauge| board.change(|shown| observe(shown, gauge)))
            .build();
    }
}

fn labels(region: &str, resource: &str) -> [KeyValue; 2] {
    [
        KeyValue::new("region", region.to_owned()),
        KeyValue::new("resource", resource.to_owned()),
    ]
}
