//! How much of what every guard fetches comes of whose routes, and which have to be left out of it.
//!
//! A match stands in the document once for each hostname, listener and port that it is served at, so a few
//! small objects can become a large document. All namespaces share it: where they do not fit, each has as
//! much as those leave that need less, and of one that has more the oldest routes that fit are served.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Sharing;
use super::assemble;
use super::conditions::Refusal;
use super::gateways::ReadGateway;
use super::index::Index;
use super::policies::Protection;
use super::routes::{Attachments, ReadRoute};
use crate::guard::exchange::CONFIGURATION_BYTES_MAX;

/// Bytes for what comes of routes, of those that guards fetch. The rest, 16 MiB, holds 2,000 certificates with
/// chains of 8 kB.
pub(super) const ROUTES_BYTES_MAX: usize = CONFIGURATION_BYTES_MAX / 4 * 3;

/// Bytes of an entry beside its match: `,"rule":1234567` and what separates entries.
const ENTRY: usize = 24;
/// Bytes of a host beside its name and its entries: `{"hostname":"","entries":[]},`.
const HOST: usize = 32;
/// Bytes of an endpoint, at most: an address of IPv6 in full, a port, and the words around them.
const ENDPOINT: usize = 68;
/// Bytes of a service or a policy beside its name and what is in it.
const SHARED: usize = 64;

/// What comes of a route.
struct Weighed<'a> {
    route_at: usize,
    /// Bytes of its own.
    own: usize,
    /// Bytes of what it may share with others, by name.
    shared: BTreeMap<Shared<'a>, usize>,
}

/// What several routes may refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shared<'a> {
    Service(String),
    Policy(&'a str),
}

/// Takes routes out that would make the document too long for all, and says so of them.
pub(super) fn fit(
    routes: &[ReadRoute<'_>],
    gateways: &mut [ReadGateway<'_>],
    attachments: &mut Attachments,
    reading: &Reading<'_>,
) {
    let places = places(gateways, attachments, reading.sharing);
    let mut policies = BTreeMap::new();
    let mut namespaces: BTreeMap<&str, Vec<Weighed<'_>>> = BTreeMap::new();
    for (route_at, places) in places {
        let route = &routes[route_at];
        let weighed = weigh(route, route_at, places, reading, &mut policies);
        let namespace = namespaces.entry(&route.name.namespace).or_default();
        namespace.push(weighed);
    }
    for route_at in left_out(&namespaces, reading.room) {
        let refusal = too_large(&routes[route_at], reading.room);
        attachments.refuse(route_at, &routes[route_at].name, &refusal, gateways);
    }
}

/// What else decides how large things are.
pub(super) struct Reading<'a> {
    pub(super) protection: &'a Protection<'a>,
    pub(super) index: &'a Index<'a>,
    pub(super) sharing: Sharing,
    /// Bytes that all routes may take.
    pub(super) room: usize,
}

/// Where a route is served.
#[derive(Clone, Copy, Default)]
struct Places {
    /// How often each of its matches is written down.
    hosts: usize,
    /// Bytes of the names of those hosts.
    names: usize,
}

fn places(
    gateways: &[ReadGateway<'_>],
    attachments: &Attachments,
    sharing: Sharing,
) -> BTreeMap<usize, Places> {
    let mut all: BTreeMap<usize, Places> = BTreeMap::new();
    for ((gateway_at, listener_at), attached) in &attachments.at {
        let gateway = &gateways[*gateway_at];
        if !gateway.is_served() || gateway.listeners[*listener_at].serves().is_none() {
            continue;
        }
        let openings = assemble::opened_on(gateway, sharing).len();
        for (route_at, hostnames) in attached {
            let names = hostnames.iter().map(|hostname| hostname.to_string().len());
            let places = all.entry(*route_at).or_default();
            places.hosts += openings * hostnames.len();
            places.names += openings * names.sum::<usize>();
        }
    }
    all
}

fn weigh<'a>(
    route: &'a ReadRoute<'_>,
    route_at: usize,
    places: Places,
    reading: &Reading<'_>,
    policies: &mut BTreeMap<&'a str, usize>,
) -> Weighed<'a> {
    let Places { hosts, names } = places;
    let mut weighed = Weighed {
        route_at,
        own: names + hosts * HOST,
        shared: BTreeMap::new(),
    };
    for read in &route.read.rules {
        let matches = read.matches.iter().map(|one| written(one) + ENTRY);
        weighed.own += hosts * matches.sum::<usize>() + written(&read.rule);
        for used in &read.used {
            let slices = reading.index.slices.get(&used.service);
            let slices = slices.map_or(&[][..], Vec::as_slice).iter();
            let endpoints = slices.map(|slice| slice.endpoints.len()).sum::<usize>();
            let key = used.key();
            let bytes = SHARED + key.len() + endpoints * ENDPOINT;
            weighed.shared.insert(Shared::Service(key), bytes);
        }
        if let Some(name) = read.rule.policy.as_deref() {
            let bytes = policies.entry(name).or_insert_with(|| {
                3 * (SHARED + name.len()) + written(&reading.protection.of(name))
            });
            weighed.shared.insert(Shared::Policy(name), *bytes);
        }
    }
    weighed
}

/// Bytes of something in the document.
fn written<T: Serialize + ?Sized>(thing: &T) -> usize {
    serde_json::to_vec(thing).map_or(0, |document| document.len() + 1)
}

/// The routes that do not fit, so that those of all namespaces take `room` bytes at most.
fn left_out(namespaces: &BTreeMap<&str, Vec<Weighed<'_>>>, room: usize) -> Vec<usize> {
    let wanted = namespaces
        .values()
        .map(|routes| packed(routes, usize::MAX).0);
    let Some(most) = level(wanted.collect(), room) else {
        return Vec::new();
    };
    let beyond = namespaces.values().map(|routes| packed(routes, most).1);
    beyond.flatten().collect()
}

/// Packs the routes of a namespace from the oldest on: how much they take, and which do not fit.
fn packed(routes: &[Weighed<'_>], most: usize) -> (usize, Vec<usize>) {
    let mut taken: usize = 0;
    let mut known: BTreeSet<&Shared<'_>> = BTreeSet::new();
    let mut left_out = Vec::new();
    for weighed in routes {
        let shared = weighed.shared.iter();
        let new = shared.filter(|(name, _)| !known.contains(name));
        let new: usize = new.map(|(_, bytes)| bytes).sum();
        let with = taken.saturating_add(weighed.own).saturating_add(new);
        if with > most {
            left_out.push(weighed.route_at);
        } else {
            taken = with;
            known.extend(weighed.shared.keys());
        }
    }
    (taken, left_out)
}

/// How much each may have at most where not all have room: those that want less leave the rest to others.
fn level(mut wanted: Vec<usize>, room: usize) -> Option<usize> {
    wanted.sort_unstable();
    let mut left = room;
    let mut others = wanted.len();
    for one in wanted {
        let each = left / others;
        if one > each {
            return Some(each);
        }
        left -= one;
        others -= 1;
    }
    None
}

fn too_large(route: &ReadRoute<'_>, room: usize) -> Refusal {
    // No number that changes from turn to turn: each would be written.
    Refusal::new(
        "TooLarge",
        format!(
            "HTTPRoute {}: spec: left out, because the HTTPRoutes of namespace {} take too much of what every \
             guard fetches: at most {} bytes for all namespaces, of which each has as much as those leave that \
             need less; the oldest that fit are served; a match counts at every hostname and listener, so \
             use fewer of these, or fewer routes",
            route.name, route.name.namespace, room
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(route_at: usize, own: usize, shared: &[(&'static str, usize)]) -> Weighed<'static> {
        let shared = shared.iter();
        Weighed {
            route_at,
            own,
            shared: shared
                .map(|(name, bytes)| (Shared::Policy(name), *bytes))
                .collect(),
        }
    }

    #[test]
    fn a_namespace_that_grows_takes_no_room_from_one_that_does_not() {
        let large = vec![
            weighed(0, 50, &[]),
            weighed(1, 900, &[]),
            weighed(3, 20, &[]),
        ];
        let mut namespaces =
            BTreeMap::from([("large", large), ("small", vec![weighed(2, 30, &[])])]);
        assert_eq!(left_out(&namespaces, 1000), [0; 0]);
        assert_eq!(left_out(&namespaces, 999), [3], "the youngest");
        assert_eq!(
            left_out(&namespaces, 90),
            [1, 3],
            "50 of the 60 that the other leaves"
        );
        let also = vec![weighed(4, 500, &[]), weighed(5, 500, &[])];
        namespaces.insert("also", also);
        assert_eq!(
            left_out(&namespaces, 1030),
            [5, 1],
            "500 for each of the two"
        );
    }

    #[test]
    fn what_routes_share_counts_once_in_a_namespace() {
        let routes = [
            weighed(0, 10, &[("policy", 100)]),
            weighed(1, 10, &[("policy", 100), ("other", 50)]),
            weighed(2, 10, &[("policy", 100)]),
        ];
        assert_eq!(packed(&routes, usize::MAX), (180, Vec::new()));
        assert_eq!(packed(&routes, 130), (120, vec![1]));
    }
}
