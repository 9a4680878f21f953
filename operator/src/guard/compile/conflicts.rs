//! Which listeners cannot be told apart, within a Gateway and between Gateways.
//!
//! Where Gateways share the addresses of a guard, two of them can ask for the same port and hostname.
//! Within a Gateway the API decides: none of those that conflict is served. Between Gateways the older
//! one wins, so that nobody takes over traffic by creating a Gateway; see [`Sharing`] for the other way.
//! Between those of two namespaces a hostname that lies in another one is enough: the narrower one would be
//! asked first, and what the older Gateway's owner serves there would be another's.

use super::Sharing;
use super::conditions::Refusal;
use super::gateways::ReadGateway;
use super::hostnames;
use super::listeners::{ReadListener, Speaks};

/// Marks conflicts and overlaps; Gateways stand from the oldest on.
pub(super) fn mark(gateways: &mut [ReadGateway<'_>], sharing: Sharing) {
    for gateway in gateways.iter_mut() {
        within(gateway);
    }
    if sharing == Sharing::Apart {
        return;
    }
    for younger in 1..gateways.len() {
        let (before, rest) = gateways.split_at_mut(younger);
        if let Some(gateway) = rest.first_mut() {
            between(before, gateway, sharing);
        }
    }
}

fn within(gateway: &mut ReadGateway<'_>) {
    for at in 0..gateway.listeners.len() {
        let one = &gateway.listeners[at];
        let others = gateway
            .listeners
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        let others = others.map(|(_, other)| other);
        let conflict = others.clone().find_map(|other| {
            let clash = clash(one, other)?;
            Some(clash.refusal(&format!(
                "Gateway {}: spec.listeners: {:?} and {:?}",
                gateway.name, one.name, other.name
            )))
        });
        let shared: Vec<&str> = others
            .filter(|other| overlaps(one, other))
            .map(|o| o.name)
            .collect();
        let overlap = (!shared.is_empty()).then(|| {
            Refusal::new(
                "OverlappingHostnames",
                format!(
                    "Gateway {}: spec.listeners: {:?} shares hostnames under TLS with {}; a client that \
                     reuses a connection for both is told to open another, so let the hostnames differ \
                     if that matters",
                    gateway.name,
                    one.name,
                    shared.join(", ")
                ),
            )
        });
        gateway.listeners[at].conflict = conflict;
        gateway.listeners[at].overlap = overlap;
    }
}

fn between(before: &[ReadGateway<'_>], gateway: &mut ReadGateway<'_>, sharing: Sharing) {
    if !gateway.is_served() {
        return;
    }
    let name = gateway.name.clone();
    for listener in gateway
        .listeners
        .iter_mut()
        .filter(|listener| listener.accepted())
    {
        let older = before.iter().filter(|older| older.is_served());
        let mut older = older.flat_map(|g| g.listeners.iter().map(move |l| (&g.name, l)));
        listener.conflict = older.find_map(|(owner, other)| {
            // What is not served takes nothing from anybody.
            other.serves()?;
            let is_foreign = owner.namespace != name.namespace;
            let clash = clash(listener, other)
                .or_else(|| overlap(listener, other).filter(|_| is_foreign))?;
            if clash != Clash::Protocol && sharing == Sharing::Merged {
                return None;
            }
            Some(clash.refusal(&format!(
                "Gateway {name}: spec.listeners: {:?} and {:?} of Gateway {owner}, which is older,",
                listener.name, other.name
            )))
        });
    }
}

/// In what two listeners of one port conflict.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clash {
    /// They speak differently.
    Protocol,
    /// They have the same hostname.
    Hostname,
    /// One has hostnames of the other.
    Overlap,
}

impl Clash {
    fn refusal(self, who: &str) -> Refusal {
        match self {
            Self::Protocol => Refusal::new(
                "ProtocolConflict",
                format!("{who} use one port with different protocols; change the port of one"),
            ),
            Self::Hostname => Refusal::new(
                "HostnameConflict",
                format!(
                    "{who} use one port with the same hostname; change the port or hostname of one"
                ),
            ),
            Self::Overlap => Refusal::new(
                "HostnameConflict",
                format!(
                    "{who} are of two namespaces and use one port with hostnames that overlap; change the \
                     port or hostname of one, or attach routes to the older Gateway"
                ),
            ),
        }
    }
}

fn clash(one: &ReadListener<'_>, other: &ReadListener<'_>) -> Option<Clash> {
    let protocols = one
        .speaks
        .zip(other.speaks)
        .filter(|_| one.port == other.port);
    let (speaks, others) = protocols?;
    if speaks != others {
        Some(Clash::Protocol)
    } else if one.hostname == other.hostname {
        Some(Clash::Hostname)
    } else {
        None
    }
}

/// Whether a request could be for either of two listeners of one port.
fn overlap(one: &ReadListener<'_>, other: &ReadListener<'_>) -> Option<Clash> {
    let both = hostnames::intersection(&one.hostname, &other.hostname);
    both.filter(|_| one.port == other.port)
        .map(|_| Clash::Overlap)
}

fn overlaps(one: &ReadListener<'_>, other: &ReadListener<'_>) -> bool {
    let https = |listener: &ReadListener<'_>| listener.speaks == Some(Speaks::Https);
    https(one) && https(other) && overlap(one, other).is_some()
}
