//! What guard control counts beside the turns of its loop.

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// The gauges of guard control.
#[derive(Clone, Debug)]
pub(super) struct Gauges {
    guards: IntGaugeVec,
    endpoints_kept: IntGauge,
    tickets_broken: IntGauge,
    withheld: IntGauge,
}

impl Gauges {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let guards = IntGaugeVec::new(
            Opts::new(
                "jiuzhou_guards",
                "Guards that the leader heard lately, by whether they serve what they were given.",
            ),
            &["state"],
        )?;
        let endpoints_kept = IntGauge::new(
            "jiuzhou_services_without_slices",
            "Services whose EndpointSlices are gone and whose last endpoints are used.",
        )?;
        let tickets_broken = IntGauge::new(
            "jiuzhou_ticket_keys_broken",
            "1 while the Secret of the keys of tickets cannot be used and the last good ones are.",
        )?;
        let withheld = IntGauge::new(
            "jiuzhou_configuration_withheld",
            "1 while the last configuration is not handed out, since it is longer than what guards fetch.",
        )?;
        registry.register(Box::new(guards.clone()))?;
        registry.register(Box::new(endpoints_kept.clone()))?;
        registry.register(Box::new(tickets_broken.clone()))?;
        registry.register(Box::new(withheld.clone()))?;
        Ok(Self {
            guards,
            endpoints_kept,
            tickets_broken,
            withheld,
        })
    }

    /// So many guards were heard, of which so many refuse.
    pub(super) fn guards(&self, (heard, refusing): (usize, usize)) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let states = [("serving", heard - refusing), ("refusing", refusing)];
        for (state, number) in states {
            self.guards.with_label_values(&[state]).set(count(number));
        }
    }

    /// Whether the Secret of the keys of tickets cannot be used.
    pub(super) fn tickets_broken(&self, is_broken: bool) {
        self.tickets_broken.set(i64::from(is_broken));
    }

    /// Whether guards are given what was before.
    pub(super) fn withheld(&self, is_withheld: bool) {
        self.withheld.set(i64::from(is_withheld));
    }

    /// So many Services are served by what was last known.
    pub(super) fn endpoints_kept(&self, services: usize) {
        self.endpoints_kept
            .set(i64::try_from(services).unwrap_or(i64::MAX));
    }
}
