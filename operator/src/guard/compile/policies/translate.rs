//! A policy in the words of the shield.

use std::num::NonZeroU32;
use std::time::Duration;

use crds::{
    Breaker, ConcurrencySpec, HotKey, Jwt, KeyPart, KeyPartSpec, LimitScope, OnMissing, Period,
    RateLimit, RuleMode, RuleRate, Tier, TrafficPolicySpec, Trip,
};
use shield::policy::{
    BreakerRule, ClassRule, ConcurrencyRule, HotKeyRule, Mode, RateLimit as Limit, Scope,
};
use shield::policy::{KeyPart as Part, OnMissing as Missing};
use shield::{
    BreakerSettings, Condition, HotKeysSettings, KeySeed, Policy, PolicySettings, Quota, Rate, Time,
};

use super::requests::{self, Requests};
use super::room::{self, Room};
use crate::guard::config::Tokens;
use crate::guard::serve::jwt::{KeySet, claims_of, too_many};

/// Keys that a rule tells apart at one time. A hundred thousand citizens in one region's guard at one time
/// are more than any service of a province has seen, and cost 12 MiB.
const KEYS: u32 = 100_000;

/// Requests per second below which no key is hot: what few people do is no crowd.
const HOT_KEYS_MIN_PER_SECOND: u32 = 20;

/// A policy in the words of the shield, and what of it is not the shield's.
pub(super) struct Translated {
    pub(super) settings: PolicySettings,
    /// Where claims are keys.
    pub(super) tokens: Option<Tokens>,
    /// What is done with each request.
    pub(super) requests: Requests,
    /// Where people wait.
    pub(super) room: Option<Room>,
    /// Names of rules of routes, by class from the second on.
    sections: Vec<String>,
}

impl Translated {
    /// The class of a rule; the first is that of all others.
    pub(super) fn class_of(&self, section: Option<&str>) -> usize {
        let mut sections = self.sections.iter();
        let known = section.and_then(|section| sections.position(|known| known == section));
        known.map_or(0, |place| place + 1)
    }
}

/// Says a policy in the words of the shield, or why the shield refuses it.
pub(super) fn settings(name: &str, spec: &TrafficPolicySpec) -> Result<Translated, String> {
    let settings = PolicySettings {
        name: name.to_owned(),
        rate_limits: spec
            .rate_limits
            .iter()
            .map(limit)
            .collect::<Result<_, _>>()?,
        hot_keys: spec
            .hot_keys
            .iter()
            .map(hot_key)
            .collect::<Result<_, _>>()?,
        breakers: spec
            .breakers
            .iter()
            .map(breaker)
            .collect::<Result<_, _>>()?,
        concurrency: spec.concurrency.as_ref().map(concurrency).transpose()?,
        classes: classes(spec)?,
    };
    // The shield knows best what it takes.
    Policy::<()>::new(&settings, KeySeed::new([0; 16]), 0, Time::ZERO)
        .map_err(|fault| format!("{}: {}; correct it", fault.rule, fault.why))?;
    Ok(Translated {
        tokens: tokens(spec.jwt.as_ref(), &settings)?,
        requests: requests::read(spec)?,
        room: room::read(spec)?,
        sections: spec
            .classes
            .iter()
            .map(|class| class.section_name.clone())
            .collect(),
        settings,
    })
}

/// How many requests may come at one moment, said or not.
pub(super) fn burst_of(rule: &RateLimit) -> i64 {
    let default = || match rule.overflow {
        Some(_) => 1,
        None => in_a_second(rule.rate.requests, &rule.rate.per),
    };
    rule.burst.unwrap_or_else(default)
}

/// How many requests of a hot key may come at one moment, said or not.
pub(super) fn hot_burst_of(rule: &HotKey) -> i64 {
    let limit = &rule.limit;
    let default = || in_a_second(limit.requests, &limit.per);
    limit.burst.unwrap_or_else(default)
}

/// What a rate lets pass in a second, at least one.
fn in_a_second(requests: i64, per: &Period) -> i64 {
    let seconds = per.millis().unwrap_or(0).div_euclid(1000).max(1);
    requests
        .saturating_add(seconds - 1)
        .div_euclid(seconds)
        .max(1)
}

fn limit(rule: &RateLimit) -> Result<Limit, String> {
    let at = format!("rateLimits {}", rule.name);
    let queue = rule.overflow.as_ref().map(|overflow| &overflow.queue);
    let max_wait = queue.map(|queue| span(&format!("{at}: maxWait"), &queue.max_wait));
    let warm_up = rule.warm_up.as_ref();
    let warm_up = warm_up.map(|text| span(&format!("{at}: warmUp"), text));
    Ok(Limit {
        name: rule.name.to_string(),
        scope: match rule.scope {
            LimitScope::Instance => Scope::Instance,
            LimitScope::Cluster => Scope::Cluster,
            LimitScope::Region => Scope::Region,
            // By its number this cluster's part: what the hub sends is that already, and of what a region
            // writes a condition says so. Its place in the order of rules is that of its scope.
            LimitScope::Province => Scope::Province,
        },
        key: key(&at, rule.key.as_ref(), &rule.key_parts)?,
        on_missing: match rule.on_missing.unwrap_or_default() {
            OnMissing::Refuse => Missing::Refuse,
            OnMissing::Share => Missing::Share,
            OnMissing::Skip => Missing::Skip,
        },
        quota: quota(&at, &rule.rate, burst_of(rule))?,
        mode: mode(rule.mode.unwrap_or_default()),
        max_wait: max_wait.transpose()?.unwrap_or_default(),
        warm_up: warm_up.transpose()?.unwrap_or_default(),
        keys: KEYS,
    })
}

fn hot_key(rule: &HotKey) -> Result<HotKeyRule, String> {
    let at = format!("hotKeys {}", rule.name);
    let rate = RuleRate {
        requests: rule.limit.requests,
        per: rule.limit.per.clone(),
    };
    Ok(HotKeyRule {
        name: rule.name.to_string(),
        key: key(&at, rule.key.as_ref(), &rule.key_parts)?,
        hot: HotKeysSettings {
            hot_at_percent: count(&at, i64::from(rule.hot_at_percent))?,
            min_per_second: HOT_KEYS_MIN_PER_SECOND,
        },
        limit: quota(&at, &rate, hot_burst_of(rule))?,
        mode: mode(rule.mode.unwrap_or_default()),
    })
}

fn breaker(rule: &Breaker) -> Result<BreakerRule, String> {
    let at = format!("breakers {}", rule.name);
    let condition = match Trip::of(rule) {
        Some(Trip::SlowCalls(slow)) => Condition::SlowCalls {
            over: span(&at, &slow.over)?,
            percent: count(&at, i64::from(slow.percent))?,
        },
        Some(Trip::Errors(share)) => Condition::Errors {
            percent: count(&at, i64::from(share.percent))?,
        },
        Some(Trip::ErrorCount(errors)) => Condition::ErrorCount {
            count: count(&at, i64::from(errors.count))?,
        },
        None => {
            return Err(format!(
                "{at}: exactly one of slowCalls, errors and errorCount must be set; remove the others"
            ));
        }
    };
    Ok(BreakerRule {
        name: rule.name.to_string(),
        settings: BreakerSettings {
            condition,
            window: span(&at, &rule.window())?,
            min_requests: count(&at, i64::from(rule.min_requests()))?,
            open_for: span(&at, &rule.open_for())?,
            probes: count(&at, i64::from(rule.probes()))?,
        },
        mode: mode(rule.mode.unwrap_or_default()),
    })
}

fn concurrency(spec: &ConcurrencySpec) -> Result<ConcurrencyRule, String> {
    match crds::Concurrency::of(spec) {
        Some(crds::Concurrency::Adaptive) => Ok(ConcurrencyRule::Adaptive),
        Some(crds::Concurrency::Max(max)) => {
            let max = NonZeroU32::new(count("concurrency", max)?);
            max.map(ConcurrencyRule::Max)
                .ok_or_else(|| "concurrency: max is 0; write 1 or more".to_owned())
        }
        None => Err(
            "concurrency: exactly one of adaptive and max must be set; remove the other".to_owned(),
        ),
    }
}

/// The class of all that no other is for, and then the others.
fn classes(spec: &TrafficPolicySpec) -> Result<Vec<ClassRule>, String> {
    if spec.classes.is_empty() && spec.default_tier.is_none() {
        return Ok(Vec::new());
    }
    let rest = ClassRule {
        tier: tier(spec.default_tier.unwrap_or_default()),
        ..ClassRule::default()
    };
    let mut classes = vec![rest];
    for class in &spec.classes {
        let percent = class.guaranteed_percent.map(u8::try_from).transpose();
        let percent = percent.map_err(|_| {
            let section = &class.section_name;
            format!("classes {section}: guaranteedPercent must be 1 to 100; correct it")
        })?;
        classes.push(ClassRule {
            name: class.section_name.clone(),
            tier: tier(class.tier),
            guaranteed_percent: percent,
        });
    }
    Ok(classes)
}

fn tier(tier: Tier) -> shield::Tier {
    match tier {
        Tier::Core => shield::Tier::Core,
        Tier::Important => shield::Tier::Important,
        Tier::General => shield::Tier::General,
        Tier::Ancillary => shield::Tier::Ancillary,
    }
}

fn mode(mode: RuleMode) -> Mode {
    match mode {
        RuleMode::Enforce => Mode::Enforce,
        RuleMode::Shadow => Mode::Shadow,
    }
}

fn key(at: &str, key: Option<&KeyPartSpec>, parts: &[KeyPartSpec]) -> Result<Vec<Part>, String> {
    let part = |spec: &KeyPartSpec| {
        match KeyPart::of(spec) {
        Some(KeyPart::Header(name)) => name.parse().map(Part::Header).map_err(|_| {
            format!("{at}: {name:?} is not the name of a header; write one as HTTP has it, such as x-user")
        }),
        Some(KeyPart::Query(name)) => Ok(Part::Query(name.to_owned())),
        Some(KeyPart::Cookie(name)) => Ok(Part::Cookie(name.to_owned())),
        Some(KeyPart::ClientAddress) => Ok(Part::ClientAddress),
        Some(KeyPart::JwtClaim(name)) => Ok(Part::JwtClaim(name.to_owned())),
        None => Err(format!(
            "{at}: exactly one of jwtClaim, header, query, cookie and clientAddress must be set in a part of \
             a key; remove the others"
        )),
    }
    };
    key.into_iter().chain(parts).map(part).collect()
}

/// Whose tokens have the claims that are keys. Keys of an issuer are looked at even where no claim is one: they
/// are there to be used.
fn tokens(jwt: Option<&Jwt>, settings: &PolicySettings) -> Result<Option<Tokens>, String> {
    let claims = claims_of(settings);
    let Some(jwt) = jwt else {
        return match claims.first() {
            None => Ok(None),
            Some(claim) => Err(format!(
                "jwt must be set, since the jwtClaim {claim} is a key; say whose tokens have it"
            )),
        };
    };
    KeySet::read(&jwt.jwks).map_err(|error| format!("jwt: jwks {error}"))?;
    if let Some(why) = too_many(&claims) {
        return Err(format!("jwt: {why}"));
    }
    Ok((!claims.is_empty()).then(|| Tokens {
        issuer: jwt.issuer.clone(),
        audiences: jwt.audiences.clone(),
        jwks: jwt.jwks.clone(),
    }))
}

fn quota(at: &str, rate: &RuleRate, burst: i64) -> Result<Quota, String> {
    let said = |error: &dyn std::fmt::Display| format!("{at}: {error}");
    let per = span(at, &rate.per)?;
    let rate = Rate::new(count(at, rate.requests)?, per).map_err(|error| said(&error))?;
    Quota::new(rate, count(at, burst)?).map_err(|error| said(&error))
}

pub(super) fn count(at: &str, number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("{at}: {number} is out of bounds; correct it"))
}

pub(super) fn span(at: &str, text: &Period) -> Result<Duration, String> {
    let millis = text.millis().and_then(|millis| u64::try_from(millis).ok());
    millis.map(Duration::from_millis).ok_or_else(|| {
        format!(
            "{at}: {:?} is no span of time; write one like 500ms or 1m30s",
            text.0
        )
    })
}
