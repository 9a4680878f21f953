//! One document out of what is attached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::super::config::{
    Certificate, Configuration, Entry, Host, Hostname, Listener, Opening, Port,
};
use super::Sharing;
use super::backends::{self, ServiceUse};
use super::gateways::ReadGateway;
use super::hostnames;
use super::index::Index;
use super::listeners::{ReadListener, Speaks};
use super::matches::{self, Precedence};
use super::policies::Protection;
use super::routes::{Attachments, ListenerAt, ReadRoute};

/// What serves what is attached, and how many bytes it is as a document; Gateways and routes stand from the
/// oldest on.
pub(super) fn configuration(
    gateways: &[ReadGateway<'_>],
    routes: &[ReadRoute<'_>],
    attachments: &Attachments,
    protection: &Protection<'_>,
    index: &Index<'_>,
    sharing: Sharing,
) -> (Configuration, usize) {
    let served = served(gateways, sharing);
    let mut configuration = Configuration::default();
    let mut used: BTreeSet<&ServiceUse> = BTreeSet::new();
    let mut rules: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for route_at in attached(&served, attachments) {
        for (number, read) in routes[route_at].read.rules.iter().enumerate() {
            rules.insert((route_at, number), configuration.rules.len());
            configuration.rules.push(read.rule.clone());
            used.extend(&read.used);
        }
    }
    for (opening, listeners) in &served {
        let mut port = Port {
            address: opening.address,
            port: opening.port,
            tls: listeners
                .values()
                .flatten()
                .any(|(_, _, speaks)| *speaks == Speaks::Https),
            listeners: Vec::new(),
        };
        for merged in listeners.values() {
            port.listeners
                .push(listener(gateways, merged, routes, attachments, &rules));
        }
        configuration.ports.push(port);
    }
    configuration.services = used
        .into_iter()
        .map(|used| (used.key(), backends::service(used, index)))
        .collect();
    configuration.certificates = certificates(&served);
    configuration.policies = protection.used(&configuration.rules);
    configuration.tokens = protection.tokens(&configuration.policies);
    configuration.rooms = protection.rooms(&configuration.policies);
    let (revision, bytes) = revision(&configuration);
    let bytes = bytes + revision.len();
    configuration.revision = revision;
    (configuration, bytes)
}

/// A listener that is served.
type Served<'a> = (ListenerAt, &'a ReadListener<'a>, Speaks);

/// Listeners of one opening from the most specific hostname on; more than one of a hostname are merged.
type Listeners<'a> = BTreeMap<(u8, usize, String), Vec<Served<'a>>>;

fn served<'a>(
    gateways: &'a [ReadGateway<'a>],
    sharing: Sharing,
) -> BTreeMap<Opening, Listeners<'a>> {
    let mut ports: BTreeMap<Opening, Listeners<'a>> = BTreeMap::new();
    for (gateway_at, gateway) in gateways.iter().enumerate() {
        if !gateway.is_served() {
            continue;
        }
        let addresses = opened_on(gateway, sharing);
        for (listener_at, listener) in gateway.listeners.iter().enumerate() {
            let Some((port, speaks)) = listener.serves() else {
                continue;
            };
            for address in &addresses {
                let opening = Opening {
                    address: *address,
                    port,
                };
                let listeners = ports.entry(opening).or_default();
                let same = listeners
                    .entry(hostnames::rank(&listener.hostname))
                    .or_default();
                same.push(((gateway_at, listener_at), listener, speaks));
            }
        }
    }
    ports
}

/// The addresses that a Gateway's ports are opened on.
pub(super) fn opened_on(gateway: &ReadGateway<'_>, sharing: Sharing) -> Vec<Option<IpAddr>> {
    match sharing {
        Sharing::OlderWins | Sharing::Merged => vec![None],
        Sharing::Apart => {
            let addresses = gateway.addresses.iter();
            // Nothing can be opened on a hostname; the command line lets none come here.
            let parsed = addresses.filter_map(|address| address.value.parse().ok());
            parsed.map(Some).collect()
        }
    }
}

/// The routes that are attached to a listener that is served.
fn attached(
    served: &BTreeMap<Opening, Listeners<'_>>,
    attachments: &Attachments,
) -> BTreeSet<usize> {
    let listeners = served.values().flat_map(BTreeMap::values).flatten();
    let routes = listeners.filter_map(|(at, _, _)| attachments.at.get(at));
    routes.flat_map(BTreeMap::keys).copied().collect()
}

fn certificates(served: &BTreeMap<Opening, Listeners<'_>>) -> BTreeMap<String, Certificate> {
    let listeners = served.values().flat_map(BTreeMap::values).flatten();
    let certificates = listeners.flat_map(|(_, listener, _)| listener.certificates.iter());
    certificates.cloned().collect()
}

fn listener(
    gateways: &[ReadGateway<'_>],
    merged: &[Served<'_>],
    routes: &[ReadRoute<'_>],
    attachments: &Attachments,
    rules: &BTreeMap<(usize, usize), usize>,
) -> Listener {
    let mut listener = Listener {
        name: String::new(),
        hostname: Hostname::Any,
        certificates: Vec::new(),
        hosts: Vec::new(),
    };
    let mut hosts: BTreeMap<Hostname, BTreeSet<usize>> = BTreeMap::new();
    for (at, read, _) in merged {
        if listener.name.is_empty() {
            // Of those that are merged the oldest gives the name.
            listener.name = format!("{}/{}", gateways[at.0].name, read.name);
            listener.hostname = read.hostname.clone();
        }
        for (key, _) in &read.certificates {
            if !listener.certificates.contains(key) {
                listener.certificates.push(key.clone());
            }
        }
        for (route, hostnames) in attachments.at.get(at).into_iter().flatten() {
            for hostname in hostnames {
                hosts.entry(hostname.clone()).or_default().insert(*route);
            }
        }
    }
    let mut hosts: Vec<(Hostname, BTreeSet<usize>)> = hosts.into_iter().collect();
    hosts.sort_by_cached_key(|(hostname, _)| hostnames::rank(hostname));
    for (hostname, attached) in hosts {
        let entries = entries(&attached, routes, rules);
        listener.hosts.push(Host { hostname, entries });
    }
    listener
}

/// How entries of one hostname stand: by what they match, then by the age of the route, then by their
/// place in it.
type Rank = (Precedence, usize, usize, usize);

fn entries(
    attached: &BTreeSet<usize>,
    routes: &[ReadRoute<'_>],
    rules: &BTreeMap<(usize, usize), usize>,
) -> Vec<Entry> {
    let mut ranked: Vec<(Rank, Entry)> = Vec::new();
    for route_at in attached {
        for (number, read) in routes[*route_at].read.rules.iter().enumerate() {
            let Some(rule) = rules.get(&(*route_at, number)) else {
                continue;
            };
            for (place, one) in read.matches.iter().enumerate() {
                let entry = Entry {
                    matches: one.clone(),
                    rule: *rule,
                };
                ranked.push(((matches::precedence(one), *route_at, number, place), entry));
            }
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

/// Names what is in a configuration, whose own revision is still empty, and says how long it is without.
fn revision(configuration: &Configuration) -> (String, usize) {
    let canonical = serde_json::to_vec(configuration).expect("a configuration is plain data");
    (format!("{:x}", Sha256::digest(&canonical)), canonical.len())
}
