//! What is sent: kinds of requests by weight, and the keys in them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::draw::{Draw, Shares};

/// What stands for the drawn key in a path, a header or a body.
pub const KEY: &str = "{key}";
/// Keys to draw from: eight megabytes of shares.
pub const KEYS_MAX: u32 = 1_000_000;
/// Kinds of a mix: a table that a person reads.
pub const KINDS_MAX: usize = 64;

/// Which of the seed's streams kinds and keys come from.
const STREAM: u64 = 2;

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Under which it is reported; kinds may share one.
    pub label: String,
    /// Its share among the kinds.
    #[serde(default = "one")]
    pub weight: f64,
    /// As in `GET`.
    #[serde(default = "get")]
    pub method: String,
    /// With the query; may hold [`KEY`].
    #[serde(default = "root")]
    pub path: String,
    /// The host that is asked for, whatever address is dialled.
    pub host: String,
    /// Further headers, whose values may hold [`KEY`].
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// May hold [`KEY`].
    #[serde(default)]
    pub body: String,
}

impl Kind {
    /// A GET of `/` from `host`, labelled by the host.
    pub fn get(host: &str) -> Self {
        Self {
            label: host.to_owned(),
            weight: one(),
            method: get(),
            path: root(),
            host: host.to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }

    /// The same with these further headers and no others.
    #[must_use]
    pub fn with_headers<const N: usize>(self, headers: [(&str, &str); N]) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            headers: headers.into_iter().map(own).collect(),
            ..self
        }
    }
}

/// From what keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Keys {
    /// Each of so many as often as the others.
    Uniform {
        /// How many.
        of: u32,
    },
    /// The n-th of so many in proportion to 1 / n^exponent.
    Zipf {
        /// How many.
        of: u32,
        /// How steep; about 1 for what people look at.
        exponent: f64,
    },
    /// Key 0 in so many of a hundred draws, and the others alike.
    Hot {
        /// The share of key 0.
        percent: f64,
        /// How many keys, with key 0.
        of: u32,
    },
}

/// Kinds of requests, ready to be drawn.
#[derive(Debug, Clone)]
pub struct Mix {
    kinds: Vec<Form>,
    labels: Vec<String>,
    shares: Shares,
    keys: Ring,
}

/// What a send was chosen to be; a retry is the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Which of the kinds.
    pub kind: usize,
    /// Which of the keys.
    pub key: u32,
}

/// Kinds and keys in the order in which they are sent.
#[derive(Debug, Clone)]
pub struct Choices {
    draw: Draw,
}

/// How keys are drawn.
#[derive(Debug, Clone)]
enum Ring {
    Uniform(u32),
    Shares(Shares),
}

/// A text with gaps for the key.
#[derive(Debug, Clone)]
struct Template(Vec<String>);

/// A kind whose parts are parsed.
#[derive(Debug, Clone)]
struct Form {
    label: usize,
    method: Method,
    /// Scheme and host are added by the connection, as its protocol wants them.
    path: Template,
    host: HeaderValue,
    fixed: HeaderMap,
    keyed: Vec<(HeaderName, Template)>,
    body: Template,
    fixed_body: Bytes,
}

impl Mix {
    /// Checks kinds and keys.
    pub fn of(kinds: &[Kind], keys: Keys) -> Result<Self> {
        ensure!(
            (1..=KINDS_MAX).contains(&kinds.len()),
            "{} kinds of requests: allowed are 1 to {KINDS_MAX}",
            kinds.len()
        );
        let mut labels = Vec::new();
        let mut forms = Vec::new();
        for kind in kinds {
            let form = Form::parse(kind, &mut labels)
                .with_context(|| format!("the kind of request {:?}", kind.label))?;
            forms.push(form);
        }
        ensure!(
            kinds.iter().any(|kind| kind.weight > 0.0),
            "no kind of request has a weight"
        );
        Ok(Self {
            kinds: forms,
            labels,
            shares: Shares::of(kinds.iter().map(|kind| kind.weight)),
            keys: Ring::of(keys)?,
        })
    }

    /// A mix of one kind without keys.
    pub fn one(kind: Kind) -> Result<Self> {
        Self::of(&[kind], Keys::Uniform { of: 1 })
    }

    /// Begins the choices of a seed.
    pub fn choices(seed: u64) -> Choices {
        Choices {
            draw: Draw::seeded(seed, STREAM),
        }
    }

    /// The next choice.
    pub fn choose(&self, choices: &mut Choices) -> Choice {
        Choice {
            kind: self.shares.draw(&mut choices.draw),
            key: self.keys.draw(&mut choices.draw),
        }
    }

    /// The labels, each once.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Which of the labels a choice is reported under.
    pub fn label(&self, choice: Choice) -> usize {
        self.kinds[choice.kind].label
    }

    pub(super) fn method(&self, choice: Choice) -> Method {
        self.kinds[choice.kind].method.clone()
    }

    pub(super) fn path(&self, choice: Choice) -> String {
        self.kinds[choice.kind].path.fill(choice.key)
    }

    pub(super) fn host(&self, choice: Choice) -> &HeaderValue {
        &self.kinds[choice.kind].host
    }

    pub(super) fn headers(&self, choice: Choice) -> HeaderMap {
        let form = &self.kinds[choice.kind];
        let mut headers = form.fixed.clone();
        for (name, template) in &form.keyed {
            let value = HeaderValue::from_str(&template.fill(choice.key));
            headers.append(name, value.expect("digits keep a checked value valid"));
        }
        headers
    }

    pub(super) fn body(&self, choice: Choice) -> Bytes {
        let form = &self.kinds[choice.kind];
        if form.body.has_key() {
            form.body.fill(choice.key).into()
        } else {
            form.fixed_body.clone()
        }
    }
}

impl Ring {
    fn of(keys: Keys) -> Result<Self> {
        let (Keys::Uniform { of } | Keys::Zipf { of, .. } | Keys::Hot { of, .. }) = keys;
        ensure!(
            (1..=KEYS_MAX).contains(&of),
            "{of} keys: allowed are 1 to {KEYS_MAX}"
        );
        Ok(match keys {
            Keys::Uniform { of } => Self::Uniform(of),
            Keys::Zipf { of, exponent } => {
                ensure!(
                    (0.0..=10.0).contains(&exponent),
                    "an exponent of {exponent}: allowed are 0 to 10"
                );
                let share = |rank: u32| f64::from(rank).powf(-exponent);
                Self::Shares(Shares::of((1..=of).map(share)))
            }
            Keys::Hot { percent, of } => {
                ensure!(
                    (0.0..=100.0).contains(&percent),
                    "{percent} percent for one key: allowed are 0 to 100"
                );
                ensure!(of > 1, "one key has all requests anyhow: name more keys");
                let others = (100.0 - percent) / f64::from(of - 1);
                let share = |key: u32| if key == 0 { percent } else { others };
                Self::Shares(Shares::of((0..of).map(share)))
            }
        })
    }

    fn draw(&self, draw: &mut Draw) -> u32 {
        let drawn = match self {
            Self::Uniform(of) => draw.below(u64::from(*of)),
            Self::Shares(shares) => shares.draw(draw) as u64,
        };
        u32::try_from(drawn).expect("there are fewer keys")
    }
}

impl Template {
    fn parse(text: &str) -> Self {
        Self(text.split(KEY).map(str::to_owned).collect())
    }

    fn has_key(&self) -> bool {
        self.0.len() > 1
    }

    fn fill(&self, key: u32) -> String {
        match self.0.as_slice() {
            [text] => text.clone(),
            parts => parts.join(&key.to_string()),
        }
    }
}

impl Form {
    fn parse(kind: &Kind, labels: &mut Vec<String>) -> Result<Self> {
        ensure!(
            kind.weight >= 0.0 && kind.weight.is_finite(),
            "a weight of {}: allowed is any number from 0",
            kind.weight
        );
        let path = Template::parse(&kind.path);
        let example = format!("http://{}{}", kind.host, path.fill(0));
        ensure!(
            kind.path.starts_with('/') && example.parse::<Uri>().is_ok(),
            "{example:?} is no address: give a host, and a path that begins with a slash"
        );
        let mut fixed = HeaderMap::new();
        let mut keyed = Vec::new();
        for (name, value) in &kind.headers {
            let header: HeaderName = name.parse().with_context(|| format!("header {name:?}"))?;
            let template = Template::parse(value);
            let example = HeaderValue::from_str(&template.fill(0))
                .with_context(|| format!("the value of header {name:?}"))?;
            if template.has_key() {
                keyed.push((header, template));
            } else {
                fixed.append(header, example);
            }
        }
        let label = labels.iter().position(|label| *label == kind.label);
        let label = label.unwrap_or_else(|| {
            labels.push(kind.label.clone());
            labels.len() - 1
        });
        Ok(Self {
            label,
            method: kind.method.parse().context("the method")?,
            path,
            host: kind.host.parse().context("the host")?,
            fixed,
            keyed,
            body: Template::parse(&kind.body),
            fixed_body: kind.body.clone().into(),
        })
    }
}

const fn one() -> f64 {
    1.0
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

#[cfg(test)]
mod tests;
