//! Which port of its address a guard opens for a port of a Gateway.

/// Ports below 1024 need rights that a guard shall not have; they are served so much higher.
const PRIVILEGED: u16 = 1024;
const SHIFT: u16 = 10_000;

/// The port that is really opened for a Gateway's port.
pub fn opened(port: u16) -> u16 {
    if port < PRIVILEGED {
        port + SHIFT
    } else {
        port
    }
}

/// The low port for which this one is opened, if there is one. A Gateway cannot have both; so that no Gateway
/// depends on what others ask for, it cannot have this one at all.
pub(super) fn opened_for(port: u16) -> Option<u16> {
    let low = port.checked_sub(SHIFT)?;
    (1..PRIVILEGED).contains(&low).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_that_gateways_may_have_are_never_opened_as_one() {
        let allowed = (1..=u16::MAX).filter(|port| opened_for(*port).is_none());
        let mut all: Vec<u16> = allowed.map(opened).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
