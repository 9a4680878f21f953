//! What is counted of waiting rooms. Their names are objects' names and so no labels: the gauges are
//! of all rooms together.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use shield::ticket::Refusal;

/// All counters of waiting rooms.
#[derive(Clone, Debug)]
pub(in crate::guard::serve) struct RoomMetrics {
    tickets_refused: IntCounterVec,
    waiting: IntGauge,
    active: IntGauge,
    open: IntGauge,
}

impl RoomMetrics {
    pub(in crate::guard::serve) fn register(
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let tickets_refused = IntCounterVec::new(
            Opts::new(
                "jiuzhou_tickets_refused_total",
                "Tickets of waiting rooms that counted for nothing.",
            ),
            &["reason"],
        )?;
        let people = IntGaugeVec::new(
            Opts::new(
                "jiuzhou_room_people",
                "People in waiting rooms, and those whom they let in, over all guards.",
            ),
            &["state"],
        )?;
        let open = IntGauge::new("jiuzhou_rooms_open", "Waiting rooms in which people queue.")?;
        registry.register(Box::new(tickets_refused.clone()))?;
        registry.register(Box::new(people.clone()))?;
        registry.register(Box::new(open.clone()))?;
        Ok(Self {
            tickets_refused,
            waiting: people.with_label_values(&["Waiting"]),
            active: people.with_label_values(&["Active"]),
            open,
        })
    }

    pub(in crate::guard::serve) fn count_ticket(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Malformed => "Malformed",
            Refusal::Version(_) => "Version",
            Refusal::UnknownKey(_) => "UnknownKey",
            Refusal::Forged => "Forged",
            Refusal::OtherRoom => "OtherRoom",
            Refusal::FromTheFuture => "FromTheFuture",
            Refusal::Expired => "Expired",
            Refusal::Lapsed => "Lapsed",
        };
        self.tickets_refused.with_label_values(&[reason]).inc();
    }

    pub(in crate::guard::serve) fn gauge(&self, waiting: u64, active: u64, open: u64) {
        let number = |people| i64::try_from(people).unwrap_or(i64::MAX);
        self.waiting.set(number(waiting));
        self.active.set(number(active));
        self.open.set(number(open));
    }
}
