//! A configuration made ready to serve: names parsed, expressions compiled, endpoints kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::by_host::ByHost;
use super::changes::Changes;
use super::dial::Dial;
use super::due::Due;
use super::endpoint::{Endpoints, Services};
use super::matching::{Asked, Matcher};
use super::metrics::{Metrics, RouteMetrics, TokenMetrics};
use super::patterns::{Compiling, PATTERNS_BYTES_MAX, Patterns};
use super::protection::{Policies, Protection};
use super::ready::Refusals;
use super::record::Record;
use super::retry::{Budgets, Retrying};
use super::room::{Common, Room, RoomFault, Rooms};
use super::tls::{Certificates, expiries};
use crate::guard::config::{self, Configuration, Filter, Opening, PathChange, Redirect};
use crate::guard::path::without_parameters;

/// Why a configuration cannot be served. The one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// One of its fields.
    #[error("a field cannot be used")]
    Field(#[from] config::Fault),
    /// One of its rules.
    #[error("rule {rule:?} of route {route:?} cannot be used")]
    Rule {
        /// `namespace/route`.
        route: String,
        /// Its name or number.
        rule: String,
        /// What is wrong with it.
        source: Box<PrepareError>,
    },
    /// It is refused by the regex library.
    #[error("{expression:?} is no regular expression that can be used")]
    Regex {
        /// What it says.
        expression: String,
        /// Why.
        source: Box<regex::Error>,
    },
    /// All of them together.
    #[error(
        "the regular expressions of all routes take more than {} MiB when they are compiled; write fewer or shorter ones, or give each the paths and values themselves",
        PATTERNS_BYTES_MAX >> 20
    )]
    Patterns,
    /// Not a token.
    #[error("{0:?} is not the name of a header")]
    HeaderName(String),
    /// It is the guard's own.
    #[error(
        "a filter must not set header {0:?}, which says where a message ends or how its connection goes on; leave it out"
    )]
    Framing(String),
    /// Not visible ASCII.
    #[error("the value for header {0:?} must be visible ASCII")]
    HeaderValue(String),
    /// A number without an object.
    #[error("rule {0} does not exist")]
    NoRule(usize),
    /// A name without an object.
    #[error("service {0:?} does not exist")]
    NoService(String),
    /// A name without an object, or a class that it does not have.
    #[error("policy {0:?} with class {1} does not exist")]
    NoPolicy(String, usize),
    /// One of its rules.
    #[error("a policy cannot be used")]
    Policy(#[from] shield::policy::PolicyFault),
    /// When its endpoints are ejected.
    #[error("service {service:?} cannot be used")]
    Outliers {
        /// Which one.
        service: String,
        /// What is wrong with it.
        source: shield::OutlierFault,
    },
    /// When its requests are sent again: what is wrong, and what is allowed.
    #[error("retries cannot be used: {0}")]
    Retries(String),
    /// A name without an object.
    #[error("waiting room {0:?} does not exist")]
    NoRoom(String),
    /// One of them.
    #[error("a waiting room cannot be used")]
    Room(#[from] RoomFault),
    /// Keys that verify nothing, or none at all.
    #[error("tokens of policy {policy:?} cannot be verified: {why}")]
    Tokens {
        /// `namespace/name`.
        policy: String,
        /// What is wrong with them.
        why: String,
    },
    /// A name without an object, or not a pair.
    #[error("certificate {name:?} cannot be used: {why}")]
    Certificate {
        /// `namespace/name`.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl PrepareError {
    fn of(self, rule: &config::Rule) -> Self {
        Self::Rule {
            route: rule.route.clone(),
            rule: rule.name.clone(),
            source: Box::new(self),
        }
    }
}

/// What is served with.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) revision: String,
    pub(super) ports: BTreeMap<Opening, Port>,
    pub(super) services: Services,
    pub(super) policies: Policies,
    pub(super) rules: Vec<Arc<Rule>>,
    budgets: Budgets,
    pub(super) rooms: Rooms,
    /// Of the matches of its rules.
    patterns: Patterns,
    /// When certificates end, in seconds since 1970, by name.
    pub(super) expiries: BTreeMap<String, i64>,
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) is_tls: bool,
    listeners: ByHost<Listener>,
    pub(super) certificates: Certificates,
}

#[derive(Debug)]
struct Listener {
    name: String,
    hosts: ByHost<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    matcher: Matcher,
    rule: Arc<Rule>,
}

/// What is done with requests that match.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) route: String,
    pub(super) changes: Changes,
    pub(super) redirect: Option<Redirect>,
    backends: Vec<(u64, Backend)>,
    pub(super) request_timeout: Option<Duration>,
    pub(super) backend_timeout: Option<Duration>,
    pub(super) metrics: RouteMetrics,
    pub(super) protection: Option<Arc<Protection>>,
    pub(super) refusals: Refusals,
    /// Name of what it is protected by, in [`Serving::policies`].
    pub(super) policy: Option<String>,
    pub(super) retrying: Retrying,
    pub(super) room: Option<Arc<Room>>,
}

/// Where a share of the requests goes.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) service: Option<Arc<Endpoints>>,
    pub(super) changes: Changes,
}

/// What rules refer to by name.
struct Objects<'a> {
    services: &'a Services,
    policies: &'a Policies,
    rooms: &'a Rooms,
}

/// The rule for a request, and how much of the path the prefix is by which it matched.
pub(super) struct Found<'a> {
    pub(super) rule: &'a Arc<Rule>,
    pub(super) prefix: usize,
}

/// Why there is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotFound {
    /// Nothing says anything about such requests.
    NoRoute,
    /// The connection was made to another name; the client should open one to this one.
    Misdirected,
    /// Without the parameters of its segments the path has a narrower rule, and some endpoints cut them off.
    Ambiguous,
}

impl Serving {
    /// What there is before the first configuration: nothing.
    pub(super) fn nothing(dial: Dial, seed: [u8; 16], tokens: TokenMetrics) -> Self {
        let policies = Policies::new(seed, tokens);
        Self {
            revision: String::new(),
            ports: BTreeMap::new(),
            services: Services::new(dial, policies.clock),
            policies,
            rooms: Rooms::new(Arc::new(Common::start())),
            rules: Vec::new(),
            budgets: Budgets::default(),
            patterns: Patterns::default(),
            expiries: BTreeMap::new(),
        }
    }

    /// The routes that have rules, some more than once.
    pub(super) fn routes(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.route.as_str())
    }

    /// Endpoints that were there before are kept with their connections. Nothing of what serves `before` is
    /// changed: any of these steps may fail, and then it goes on.
    pub(super) fn prepare(
        wanted: &Configuration,
        before: &Self,
        metrics: &Metrics,
    ) -> Result<Self, PrepareError> {
        wanted.check()?;
        let services = before.services.next(&wanted.services)?;
        let policies = before.policies.next(&wanted.policies, &wanted.tokens)?;
        let rooms = before.rooms.next(&wanted.rooms, &metrics.rooms)?;
        let of = Objects {
            services: &services,
            policies: &policies,
            rooms: &rooms,
        };
        let mut budgets = Budgets::default();
        let mut rules = Vec::new();
        for rule in &wanted.rules {
            let of_retries = metrics.retries_of(&rule.route);
            let retrying = Retrying::prepare(rule, &before.budgets, &mut budgets, of_retries);
            let prepared = retrying.and_then(|of_it| Rule::prepare(rule, &of, metrics, of_it));
            rules.push(Arc::new(prepared.map_err(|why| why.of(rule))?));
        }
        let mut patterns = before.patterns.next();
        let mut ports = BTreeMap::new();
        for port in &wanted.ports {
            let prepared = Port::prepare(port, &rules, wanted, &mut patterns)?;
            ports.insert(port.opening(), prepared);
        }
        let patterns = patterns.end();
        Ok(Self {
            revision: wanted.revision.clone(),
            ports,
            services,
            policies,
            rules,
            budgets,
            rooms,
            patterns,
            expiries: expiries(&wanted.certificates),
        })
    }
}

impl Port {
    fn prepare(
        wanted: &config::Port,
        rules: &[Arc<Rule>],
        all: &Configuration,
        patterns: &mut Compiling<'_>,
    ) -> Result<Self, PrepareError> {
        let mut listeners = Vec::new();
        for listener in &wanted.listeners {
            let mut hosts = Vec::new();
            for host in &listener.hosts {
                let entries = host
                    .entries
                    .iter()
                    .map(|entry| Entry::prepare(entry, rules, &all.rules, patterns));
                hosts.push((
                    host.hostname.clone(),
                    entries.collect::<Result<Vec<_>, _>>()?,
                ));
            }
            let prepared = Listener {
                name: listener.name.clone(),
                hosts: ByHost::collect(hosts),
            };
            listeners.push((listener.hostname.clone(), prepared));
        }
        Ok(Self {
            is_tls: wanted.tls,
            listeners: ByHost::collect(listeners),
            certificates: Certificates::prepare(&wanted.listeners, &all.certificates)?,
        })
    }

    /// The rule for a request to `host`, made on a connection on which `server_name` was asked for.
    ///
    /// A request belongs to the most specific listener alone; in it the most specific hostname whose
    /// rules match counts.
    pub(super) fn find<'a>(
        &'a self,
        server_name: Option<&str>,
        host: &str,
        asked: &Asked<'_>,
    ) -> Result<Found<'a>, NotFound> {
        let listener = self
            .listeners
            .covering(host)
            .next()
            .ok_or(NotFound::NoRoute)?;
        if let Some(server_name) = server_name {
            let connected = self.listeners.covering(server_name).next();
            if connected.is_none_or(|connected| connected.name != listener.name) {
                return Err(NotFound::Misdirected);
            }
        }
        let entries = || listener.hosts.covering(host).flatten();
        let mut fitting = entries().filter(|entry| entry.matcher.fits(asked));
        let entry = fitting.next().ok_or(NotFound::NoRoute)?;
        if let Some(cut) = without_parameters(asked.path) {
            let cut = Asked {
                path: &cut,
                ..*asked
            };
            let mut narrower = entries().take_while(|other| !std::ptr::eq(*other, entry));
            let other = narrower.find(|other| other.matcher.fits(&cut));
            if other.is_some_and(|other| !Arc::ptr_eq(&other.rule, &entry.rule)) {
                return Err(NotFound::Ambiguous);
            }
        }
        Ok(Found {
            rule: &entry.rule,
            prefix: entry.matcher.prefix(),
        })
    }
}

impl Entry {
    fn prepare(
        wanted: &config::Entry,
        rules: &[Arc<Rule>],
        written: &[config::Rule],
        patterns: &mut Compiling<'_>,
    ) -> Result<Self, PrepareError> {
        let rule = rules.get(wanted.rule).zip(written.get(wanted.rule));
        let (rule, written) = rule.ok_or(PrepareError::NoRule(wanted.rule))?;
        let matcher = Matcher::prepare(&wanted.matches, patterns);
        Ok(Self {
            matcher: matcher.map_err(|why| why.of(written))?,
            rule: Arc::clone(rule),
        })
    }
}

impl Rule {
    /// When the time of a request is over whose turn is now.
    pub(super) fn due(&self, record: &Record) -> Option<Due> {
        let span = self.request_timeout?;
        Some(Due::new(record.started(), span))
    }

    fn prepare(
        wanted: &config::Rule,
        of: &Objects<'_>,
        metrics: &Metrics,
        retrying: Retrying,
    ) -> Result<Self, PrepareError> {
        let mut backends = Vec::new();
        let mut up_to = 0;
        for backend in &wanted.backends {
            up_to += u64::from(backend.weight);
            let service = match &backend.service {
                Some(name) => {
                    let found = of.services.get(name);
                    Some(found.ok_or_else(|| PrepareError::NoService(name.clone()))?)
                }
                None => None,
            };
            let changes = Changes::prepare(&backend.filters)?;
            backends.push((up_to, Backend { service, changes }));
        }
        let redirect = wanted.filters.iter().find_map(|filter| match filter {
            Filter::Redirect(redirect) => Some(redirect.clone()),
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Rewrite(_) => None,
        });
        let protection = match &wanted.policy {
            Some(name) => {
                let found = of.policies.get(name, wanted.class);
                Some(found.ok_or_else(|| PrepareError::NoPolicy(name.clone(), wanted.class))?)
            }
            None => None,
        };
        let room = match &wanted.room {
            Some(name) => {
                let found = of.rooms.get(name);
                Some(found.ok_or_else(|| PrepareError::NoRoom(name.clone()))?)
            }
            None => None,
        };
        Ok(Self {
            route: wanted.route.clone(),
            changes: Changes::prepare(&wanted.filters)?,
            redirect,
            backends,
            request_timeout: wanted.request_timeout,
            backend_timeout: wanted.backend_timeout,
            metrics: metrics.of(&wanted.route),
            refusals: Refusals::of(protection.iter().flat_map(|of| of.rules())),
            protection,
            policy: wanted.policy.clone(),
            retrying,
            room,
        })
    }

    /// The services that its requests may go to.
    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<Endpoints>> {
        let backends = self.backends.iter();
        backends.filter_map(|(_, backend)| backend.service.as_ref())
    }

    /// The backend for a random number; none where there is none, or all weigh nothing.
    pub(super) fn backend(&self, random: u64) -> Option<&Backend> {
        let (total, _) = self.backends.last()?;
        let at = random.checked_rem(*total)?;
        let chosen = self.backends.iter().find(|(up_to, _)| at < *up_to);
        chosen.map(|(_, backend)| backend)
    }
}

impl PathChange {
    /// The path instead of `path`, of which so much is the prefix that matched.
    pub(super) fn of(&self, path: &str, prefix: usize) -> String {
        match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(new) => {
                let rest = path.get(prefix..).unwrap_or_default();
                let changed = format!("{}{rest}", new.trim_end_matches('/'));
                if changed.is_empty() {
                    "/".to_owned()
                } else {
                    changed
                }
            }
        }
    }
}
