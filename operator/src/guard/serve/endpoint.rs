//! Services, their endpoints, and which of them a request goes to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use shield::{Ejections, EndpointPass, EndpointResult, Health, OutlierSettings};

use super::dial::Dial;
use super::pool::Pool;
use super::prepare::PrepareError;
use super::protection::Clock;
use crate::guard::config::{self, Endpoint, Protocol};

/// A service's endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Member>,
    protocol: Protocol,
    outliers: OutlierSettings,
    ejections: Arc<Ejections>,
    clock: Clock,
}

/// An endpoint of a service. Connections to it may be shared with other services, its health is not:
/// it is bounded how many of one service are ejected.
#[derive(Clone, Debug)]
struct Member {
    pool: Arc<Pool>,
    health: Arc<Health>,
}

/// All services of a configuration.
#[derive(Debug)]
pub(super) struct Services {
    by_name: BTreeMap<String, Arc<Endpoints>>,
    pools: BTreeMap<(Endpoint, bool), Arc<Pool>>,
    dial: Dial,
    clock: Clock,
}

/// Counts a request among those under way at an endpoint while it lives.
#[derive(Debug)]
pub(super) struct Flight {
    pool: Arc<Pool>,
    health: Arc<Health>,
    pass: Option<EndpointPass>,
    clock: Clock,
}

impl Services {
    pub(super) fn new(dial: Dial, clock: Clock) -> Self {
        Self {
            by_name: BTreeMap::new(),
            pools: BTreeMap::new(),
            dial,
            clock,
        }
    }

    /// Those of the next configuration; endpoints that stay keep their connections and their health.
    pub(super) fn next(
        &self,
        wanted: &BTreeMap<String, config::Service>,
    ) -> Result<Self, PrepareError> {
        let mut next = Self::new(self.dial, self.clock);
        for (name, service) in wanted {
            let endpoints = self.endpoints(name, service, &mut next.pools)?;
            next.by_name.insert(name.clone(), Arc::new(endpoints));
        }
        Ok(next)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Endpoints>> {
        self.by_name.get(name).cloned()
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Endpoints>)> {
        self.by_name.iter()
    }

    fn endpoints(
        &self,
        name: &str,
        wanted: &config::Service,
        pools: &mut BTreeMap<(Endpoint, bool), Arc<Pool>>,
    ) -> Result<Endpoints, PrepareError> {
        let outliers = wanted.outliers;
        let before = self.by_name.get(name);
        let before = before.filter(|before| before.outliers == outliers);
        let ejections = match before {
            Some(before) => Arc::clone(&before.ejections),
            None => Arc::new(
                Ejections::new(outliers, fastrand::u64(..)).map_err(|source| {
                    let service = name.to_owned();
                    PrepareError::Outliers { service, source }
                })?,
            ),
        };
        let members = wanted.endpoints.iter().map(|endpoint| {
            let pool = self.pool(*endpoint, wanted.protocol, pools);
            let kept = before.and_then(|before| before.health(&pool));
            let health = kept.unwrap_or_else(|| Arc::new(Health::new(&ejections)));
            Member { pool, health }
        });
        Ok(Endpoints {
            all: members.collect(),
            protocol: wanted.protocol,
            outliers,
            ejections: Arc::clone(&ejections),
            clock: self.clock,
        })
    }

    fn pool(
        &self,
        endpoint: Endpoint,
        protocol: Protocol,
        pools: &mut BTreeMap<(Endpoint, bool), Arc<Pool>>,
    ) -> Arc<Pool> {
        let key = (endpoint, protocol == Protocol::H2c);
        let kept = self.pools.get(&key).or_else(|| pools.get(&key)).cloned();
        let pool = kept.unwrap_or_else(|| {
            let at = SocketAddr::new(self.dial.of(endpoint.address), endpoint.port);
            Arc::new(Pool::new(at, protocol))
        });
        pools.insert(key, Arc::clone(&pool));
        pool
    }
}

impl Endpoints {
    /// A place at the less busy of two that chance names, without those that were tried or are ejected.
    pub(super) fn begin(
        &self,
        tried: &[Arc<Pool>],
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<Flight> {
        let count = self.all.len();
        if count > 1 && tried.is_empty() {
            let first = random(count);
            // Another one: the two are never the same.
            let second = (first + 1 + random(count - 1)) % count;
            let [first, second] = [&self.all[first], &self.all[second]];
            let (better, other) = if second.pool.load() < first.pool.load() {
                (second, first)
            } else {
                (first, second)
            };
            let entered = self.enter(better).or_else(|| self.enter(other));
            if entered.is_some() {
                return entered;
            }
        }
        // Neither may be asked: whichever may, from a place that chance names.
        let start = if count > 1 { random(count) } else { 0 };
        let mut untried = (0..count)
            .map(|step| &self.all[(start + step) % count])
            .filter(|member| !tried.iter().any(|pool| Arc::ptr_eq(pool, &member.pool)));
        let entered = untried.clone().find_map(|member| self.enter(member));
        if entered.is_some() || !tried.is_empty() {
            return entered;
        }
        // Another thread tries the last one at this moment; an endpoint that may fail is better than none.
        untried.next().map(|member| self.flight(member, None))
    }

    /// Whether its endpoints are spoken to in HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.protocol == Protocol::H2c
    }

    /// The clock that their health is told by.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// How many endpoints there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Those that get no requests now since they fail.
    pub(super) fn ejected(&self) -> Vec<SocketAddr> {
        let now = self.clock.now();
        let ejected = self.all.iter().filter(|m| m.health.is_ejected(now));
        ejected.map(|member| member.pool.at()).collect()
    }

    fn enter(&self, member: &Member) -> Option<Flight> {
        let now = self.clock.now();
        if member.health.is_ejected(now) {
            return None;
        }
        let pass = member.health.enter(now)?;
        Some(self.flight(member, Some(pass)))
    }

    fn flight(&self, member: &Member, pass: Option<EndpointPass>) -> Flight {
        member.pool.enter();
        Flight {
            pool: Arc::clone(&member.pool),
            health: Arc::clone(&member.health),
            pass,
            clock: self.clock,
        }
    }

    fn health(&self, pool: &Arc<Pool>) -> Option<Arc<Health>> {
        let mut members = self.all.iter();
        let same = members.find(|member| Arc::ptr_eq(&member.pool, pool));
        same.map(|member| Arc::clone(&member.health))
    }
}

impl Flight {
    /// The connections to where it goes.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Says how the endpoint did; the first word counts.
    pub(super) fn report(&mut self, result: EndpointResult) {
        if let Some(pass) = self.pass.take() {
            self.health.report(pass, result, self.clock.now());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.pool.leave();
        // Nobody can say how the endpoint did: the client left, or was at fault.
        if let Some(pass) = self.pass.take() {
            self.health.cancel(pass, self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint {
            address: IpAddr::from([127, 0, 0, last]),
            port: 1,
        }
    }

    fn services(endpoints: &[Endpoint]) -> BTreeMap<String, config::Service> {
        let service = config::Service {
            endpoints: endpoints.to_vec(),
            ..config::Service::default()
        };
        BTreeMap::from([("a/b:80".to_owned(), service)])
    }

    fn none() -> Services {
        Services::new(Dial::default(), Clock::start())
    }

    fn fail(endpoints: &Endpoints, at: usize, times: u32) {
        for _ in 0..times {
            let mut flight = endpoints.enter(&endpoints.all[at]).unwrap();
            flight.report(EndpointResult::Failed);
        }
    }

    #[test]
    fn the_less_busy_of_two_is_taken_and_what_was_tried_is_not() {
        let all = none().next(&services(&[endpoint(1), endpoint(2)])).unwrap();
        let endpoints = all.get("a/b:80").unwrap();
        let busy = endpoints.enter(&endpoints.all[0]).unwrap();
        let picked = endpoints.begin(&[], |_| 0).unwrap();
        assert!(Arc::ptr_eq(picked.pool(), &endpoints.all[1].pool));
        drop(busy);
        let tried = [Arc::clone(picked.pool())];
        let other = endpoints.begin(&tried, |_| 0).unwrap();
        assert!(Arc::ptr_eq(other.pool(), &endpoints.all[0].pool));
        let both = [Arc::clone(picked.pool()), Arc::clone(other.pool())];
        assert!(endpoints.begin(&both, |_| 0).is_none());
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_connections_and_its_health() {
        let wanted = services(&[endpoint(1), endpoint(2)]);
        let before = none().next(&wanted).unwrap();
        let old = before.get("a/b:80").unwrap();
        fail(&old, 0, OutlierSettings::default().consecutive_failures);
        assert_eq!(old.ejected().len(), 1);
        let wanted = services(&[endpoint(3), endpoint(1), endpoint(2)]);
        let after = before.next(&wanted).unwrap();
        let new = after.get("a/b:80").unwrap();
        assert!(Arc::ptr_eq(&old.all[0].pool, &new.all[1].pool));
        assert_eq!(new.ejected(), vec!["127.0.0.1:1".parse().unwrap()]);
    }

    #[test]
    fn an_ejected_endpoint_is_not_chosen_while_others_are_there() {
        let wanted = services(&[endpoint(1), endpoint(2), endpoint(3)]);
        let all = none().next(&wanted).unwrap();
        let endpoints = all.get("a/b:80").unwrap();
        fail(
            &endpoints,
            1,
            OutlierSettings::default().consecutive_failures,
        );
        for chance in 0..100 {
            let mut draws = [chance, chance / 3, chance / 6].into_iter();
            let picked = endpoints.begin(&[], |most| draws.next().unwrap() % most);
            assert!(!Arc::ptr_eq(picked.unwrap().pool(), &endpoints.all[1].pool));
        }
        // Nor is it what a retry goes to.
        let others = [0, 2].map(|at| Arc::clone(&endpoints.all[at].pool));
        assert!(endpoints.begin(&others, |_| 0).is_none());
    }

    #[test]
    fn settings_out_of_bounds_are_refused_with_the_service_and_the_field() {
        let mut wanted = services(&[endpoint(1)]);
        wanted
            .get_mut("a/b:80")
            .unwrap()
            .outliers
            .max_ejected_percent = 101;
        let error = none().next(&wanted).unwrap_err();
        let error = format!("{:#}", anyhow::Error::new(error));
        assert!(
            error.contains("a/b:80") && error.contains("maxEjectedPercent is 101"),
            "{error}"
        );
    }
}
