//! Keys of limits, read from requests.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use shield::PolicySettings;
use shield::policy::{KeyPart, Mode};

use super::matching::{parameter, parameters};

/// What of a request keys are made of.
pub(super) struct Keys<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Option<&'a str>,
    pub(super) client: IpAddr,
}

impl Keys<'_> {
    pub(super) fn read(&self, part: &KeyPart) -> Option<Cow<'_, [u8]>> {
        match part {
            KeyPart::Header(name) => {
                let value = self.headers.get(name)?;
                Some(Cow::Borrowed(value.as_bytes()))
            }
            KeyPart::Query(name) => {
                let value = parameter(self.query?, name)?;
                Some(match value {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                })
            }
            KeyPart::Cookie(name) => {
                let all = self.headers.get_all(COOKIE).iter();
                all.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
                    .find_map(|pair| cookie(pair, name))
                    .map(Cow::Borrowed)
            }
            KeyPart::ClientAddress => Some(Cow::Owned(match self.client {
                IpAddr::V4(address) => address.octets().to_vec(),
                // Whoever has one address of a household's network has all of them.
                IpAddr::V6(address) => address.octets()[..8].to_vec(),
            })),
            // Only a token that was verified has claims; see `Protection::decide`.
            KeyPart::JwtClaim(_) => None,
        }
    }

    /// Whether a part is said in two ways: endpoints differ in which of them counts, so that the other one would hide
    /// a key that is hot or used up. A cookie may honestly come twice, for two paths.
    pub(super) fn is_ambiguous(&self, part: &KeyPart) -> bool {
        match part {
            // HTTP/2 says it in several lines.
            KeyPart::Header(name) if *name == COOKIE => false,
            KeyPart::Header(name) => differ(self.headers.get_all(name).iter()),
            KeyPart::Query(name) => self.query.is_some_and(|q| differ(parameters(q, name))),
            KeyPart::JwtClaim(_) => differ(self.headers.get_all(AUTHORIZATION).iter()),
            KeyPart::Cookie(_) | KeyPart::ClientAddress => false,
        }
    }
}

fn differ<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
    let first = values.next();
    values.any(|other| Some(other) != first)
}

/// A part of a key that a request must say in one way.
#[derive(Debug)]
pub(super) struct SaidOnce {
    pub(super) part: KeyPart,
    /// The first in the settings that counts by it.
    pub(super) rule: Arc<str>,
}

/// All of them that rules count by which refuse.
pub(super) fn said_once(settings: &PolicySettings) -> Vec<SaidOnce> {
    let limits = settings.rate_limits.iter();
    let limits = limits.map(|rule| (rule.mode, &rule.name, &rule.key));
    let hot = settings.hot_keys.iter();
    let hot = hot.map(|rule| (rule.mode, &rule.name, &rule.key));
    let enforced = limits
        .chain(hot)
        .filter(|(mode, ..)| *mode == Mode::Enforce);
    let parts = enforced.flat_map(|(_, rule, key)| key.iter().map(move |part| (rule, part)));
    let mut all: Vec<SaidOnce> = Vec::new();
    for (rule, part) in parts {
        if !all.iter().any(|known| known.part == *part) {
            all.push(SaidOnce {
                part: part.clone(),
                rule: rule.as_str().into(),
            });
        }
    }
    all
}

/// The value of one pair of a `Cookie` header, if it has this name.
pub(super) fn cookie<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pair = pair.trim_ascii();
    let value = pair.strip_prefix(name.as_bytes())?;
    value.strip_prefix(b"=")
}
