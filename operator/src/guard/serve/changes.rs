//! What filters change in headers and paths, made ready.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::prepare::PrepareError;
use crate::guard::config::{self, Filter, Rewrite};
use crate::guard::own_headers::is_framing;

/// What is changed on the way to an endpoint and back.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) request: HeaderChange,
    pub(super) response: HeaderChange,
    pub(super) rewrite: Option<Rewrite>,
}

#[derive(Debug, Default)]
pub(super) struct HeaderChange {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    pub(super) fn prepare(filters: &[Filter]) -> Result<Self, PrepareError> {
        let mut changes = Self::default();
        for filter in filters {
            match filter {
                Filter::RequestHeaders(change) => changes.request = HeaderChange::prepare(change)?,
                Filter::ResponseHeaders(change) => {
                    changes.response = HeaderChange::prepare(change)?;
                }
                Filter::Rewrite(rewrite) => changes.rewrite = Some(rewrite.clone()),
                Filter::Redirect(_) => {}
            }
        }
        Ok(changes)
    }
}

impl HeaderChange {
    fn prepare(wanted: &config::HeaderChange) -> Result<Self, PrepareError> {
        Ok(Self {
            set: wanted.set.iter().map(pair).collect::<Result<_, _>>()?,
            add: wanted.add.iter().map(pair).collect::<Result<_, _>>()?,
            remove: wanted
                .remove
                .iter()
                .map(|n| name(n))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn pair((key, value): &(String, String)) -> Result<(HeaderName, HeaderValue), PrepareError> {
    let value = HeaderValue::from_str(value);
    let value = value.map_err(|_| PrepareError::HeaderValue(key.clone()))?;
    let name = name(key)?;
    if is_framing(&name) {
        return Err(PrepareError::Framing(key.clone()));
    }
    Ok((name, value))
}

fn name(text: &str) -> Result<HeaderName, PrepareError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| PrepareError::HeaderName(text.to_owned()))
}
