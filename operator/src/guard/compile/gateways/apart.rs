//! An address for each Gateway.
//!
//! A Gateway keeps the address that its status names, so that a restart or a new neighbour moves nobody;
//! then come those who ask for a certain one, then those who take any. Each time the oldest is first.

use std::collections::BTreeSet;

use super::super::super::gateway::AddressStatus;
use super::super::conditions::Refusal;
use super::ReadGateway;

/// Leaves each Gateway, of the addresses that it could have, those that are its own.
pub(super) fn spread(gateways: &mut [ReadGateway<'_>]) {
    let mut taken: BTreeSet<AddressStatus> = BTreeSet::new();
    let mut kept: Vec<Vec<AddressStatus>> = Vec::new();
    for gateway in gateways.iter() {
        let mut own = kept_by(gateway, &taken);
        if takes_any(gateway) {
            own.truncate(1);
        }
        taken.extend(own.iter().cloned());
        kept.push(own);
    }
    for takes_any_now in [false, true] {
        for (gateway, own) in gateways.iter_mut().zip(&mut kept) {
            if gateway.refused.is_none() && takes_any(gateway) == takes_any_now {
                settle(gateway, own, &mut taken);
            }
        }
    }
    for (gateway, own) in gateways.iter_mut().zip(kept) {
        gateway.addresses = own;
    }
}

/// Whether it asks for no certain address.
fn takes_any(gateway: &ReadGateway<'_>) -> bool {
    named_by(gateway).next().is_none()
}

fn named_by<'a>(gateway: &ReadGateway<'a>) -> impl Iterator<Item = &'a str> {
    let asked = gateway.object.spec.addresses.iter();
    let values = asked.filter_map(|address| address.value.as_deref());
    values.filter(|value| !value.is_empty())
}

/// Of the addresses that it could have, those that it means.
fn meant_by(gateway: &ReadGateway<'_>) -> Vec<AddressStatus> {
    let any = takes_any(gateway);
    let could = gateway.addresses.iter();
    let meant = could.filter(|one| any || named_by(gateway).any(|named| named == one.value));
    meant.cloned().collect()
}

/// What it was given before and could be given again.
fn kept_by(gateway: &ReadGateway<'_>, taken: &BTreeSet<AddressStatus>) -> Vec<AddressStatus> {
    if gateway.refused.is_some() {
        return Vec::new();
    }
    let status = gateway.object.status.iter();
    let had = status.flat_map(|status| &status.addresses);
    let meant = meant_by(gateway);
    had.filter(|address| meant.contains(address))
        .filter(|address| !taken.contains(address))
        .cloned()
        .collect()
}

/// Adds what is free to what a Gateway keeps: one where any will do, else all that it asks for.
fn settle(
    gateway: &mut ReadGateway<'_>,
    own: &mut Vec<AddressStatus>,
    taken: &mut BTreeSet<AddressStatus>,
) {
    let any = takes_any(gateway);
    let mut lost = Vec::new();
    for address in &meant_by(gateway) {
        if (any && !own.is_empty()) || own.contains(address) {
            continue;
        }
        if taken.insert(address.clone()) {
            own.push(address.clone());
        } else if !any {
            lost.push(Refusal::new(
                "AddressNotUsable",
                format!(
                    "Gateway {}: spec.addresses: {} {} is another Gateway's, and each has its own here; \
                     ask for another one, or for none and be given one",
                    gateway.name, address.kind, address.value
                ),
            ));
        }
    }
    if !lost.is_empty() {
        lost.extend(gateway.unusable.take());
        gateway.unusable = Refusal::joined(&lost);
    }
}
