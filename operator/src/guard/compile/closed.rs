//! Ports that guards cannot open: what is said of the Gateways that have them, and of nothing else.

use std::collections::BTreeMap;

use super::super::config::Opening;
use super::super::exchange::Partly;
use super::super::ports::opened;
use super::conditions::Refusal;
use super::gateways::ReadGateway;
use super::listeners::ReadListener;
use super::{Inputs, assemble};

/// Ports that not every guard that is ready could open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedPorts {
    /// Each with the first guard that said so.
    ports: BTreeMap<Opening, String>,
    /// The last port that a guard had room to tell of: of what comes after it nobody knows whether it is open.
    known_until: Option<(Opening, String)>,
}

impl ClosedPorts {
    /// Adds what one guard says.
    pub fn add(&mut self, guard: &str, told: &Partly) {
        for opening in &told.closed {
            let known = self.ports.entry(*opening);
            known.or_insert_with(|| guard.to_owned());
        }
        let last = told.closed.last().filter(|_| told.has_more);
        if let Some(last) = last
            && self.known_until.as_ref().is_none_or(|(at, _)| last < at)
        {
            self.known_until = Some((*last, guard.to_owned()));
        }
    }

    /// A guard that cannot open this, or of which it is not known.
    fn guard(&self, opening: Opening) -> Option<&str> {
        let named = self.ports.get(&opening);
        let beyond = self.known_until.as_ref();
        let beyond = beyond.filter(|(last, _)| opening > *last);
        named.or(beyond.map(|(_, guard)| guard)).map(String::as_str)
    }
}

/// Why a listener is not reached at every guard.
pub(super) fn refusal(
    gateway: &ReadGateway<'_>,
    listener: &ReadListener<'_>,
    inputs: &Inputs,
) -> Option<Refusal> {
    let (port, _) = listener.serves()?;
    let addresses = assemble::opened_on(gateway, inputs.sharing);
    addresses.into_iter().find_map(|address| {
        let guard = inputs.closed.guard(Opening { address, port })?;
        let at = address.map_or_else(String::new, |address| format!(" of {address}"));
        Some(Refusal::new(
            "PortUnavailable",
            format!(
                "Gateway {}: listener {:?}: guard {guard} cannot open port {}{at} for its port {port}; its log says \
                 why, and it tries again every second: free the port or address there, or use another port",
                gateway.name,
                listener.name,
                opened(port)
            ),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(port: u16) -> Opening {
        Opening {
            address: None,
            port,
        }
    }

    #[test]
    fn a_port_is_closed_where_one_guard_says_so_and_where_it_had_no_room_to_say() {
        let mut closed = ClosedPorts::default();
        closed.add("g-1", &Partly::new("r".into(), vec![opening(80)]));
        closed.add("g-2", &Partly::new("r".into(), vec![opening(80)]));
        assert_eq!(closed.guard(opening(80)), Some("g-1"));
        assert_eq!(closed.guard(opening(81)), None);
        let many = (1000..2000).map(opening).collect();
        closed.add("g-3", &Partly::new("r".into(), many));
        assert_eq!(closed.guard(opening(999)), None);
        assert_eq!(closed.guard(opening(1000)), Some("g-3"));
        assert_eq!(closed.guard(opening(3000)), Some("g-3"), "nobody knows");
    }
}
