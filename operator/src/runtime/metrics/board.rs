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
    /// What quotas promise from it.
    pub granted: f64,
    /// What Apps ask of it.
    pub requested: f64,
    /// What is left to place.
    pub headroom: f64,
}

/// One quota's numbers for one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Name of the Region.
    pub region: String,
    /// Full name of the tenant.
    pub tenant: String,
    /// Name of the resource.
    pub resource: String,
    /// What the quota promises.
    pub nominal: f64,
    /// What is charged against it.
    pub used: f64,
    /// What it uses beyond its nominal.
    pub borrowed: f64,
    /// What others use of its nominal.
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
    contacts: Vec<(String, Instant)>,
}

/// One gauge over rows: its name, its description, and the number it shows.
type Column<Row> = (&'static str, &'static str, fn(&Row) -> f64);

impl Board {
    pub(super) fn new(meter: &Meter) -> Self {
        let board = Self(Arc::default());
        board.register_apps(meter);
        board.register_contacts(meter);
        board.register_capacity(meter);
        board.register_grants(meter);
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

    /// Every quota.
    pub fn set_grants(&self, grants: Vec<Grant>) {
        self.change(|shown| shown.grants = grants);
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
                |c| c.allocatable,
            ),
            (
                "capacity_granted",
                "What quotas promise from a region.",
                |c| c.granted,
            ),
            ("capacity_requested", "What Apps ask of a region.", |c| {
                c.requested
            }),
            (
                "capacity_headroom",
                "What is left to place in a region.",
                |c| c.headroom,
            ),
        ];
        for (name, description, value) in gauges {
            self.register(meter, name, "", description, move |shown, gauge| {
                for row in &shown.capacity {
                    gauge.observe(value(row), &labels(&row.region, None, &row.resource));
                }
            });
        }
    }

    fn register_grants(&self, meter: &Meter) {
        let gauges: [Column<Grant>; 4] = [
            ("quota_nominal", "What a quota promises.", |g| g.nominal),
            ("quota_used", "What is charged against a quota.", |g| g.used),
            (
                "quota_borrowed",
                "What is used beyond a quota's nominal.",
                |g| g.borrowed,
            ),
            ("quota_lent", "What others use of a quota's nominal.", |g| {
                g.lent
            }),
        ];
        for (name, description, value) in gauges {
            self.register(meter, name, "", description, move |shown, gauge| {
                for row in &shown.grants {
                    let labels = labels(&row.region, Some(&row.tenant), &row.resource);
                    gauge.observe(value(row), &labels);
                }
            });
        }
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

fn labels(region: &str, tenant: Option<&str>, resource: &str) -> Vec<KeyValue> {
    let tenant = tenant.map(|tenant| KeyValue::new("tenant", tenant.to_owned()));
    [
        KeyValue::new("region", region.to_owned()),
        KeyValue::new("resource", resource.to_owned()),
    ]
    .into_iter()
    .chain(tenant)
    .collect()
}
