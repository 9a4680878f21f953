//! What people write for times, rates and keys.

use std::{str::FromStr, time::Duration};

use crate::load::{mix::Keys, schedule::Rate};

/// A rate for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg {
    pub(super) rate: Rate,
    pub(super) lasts: Duration,
}

/// A number and its unit, such as `1.5s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("{text:?} needs a unit: us, ms, s, m or h")),
    };
    let number: f64 = number(digits)?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("{text:?} is no time"))
}

/// `200`, `200..5000` or `200..5000/10`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let Some((from, to)) = text.split_once("..") else {
        return Ok(Rate::Constant(number(text)?));
    };
    let from = number(from)?;
    Ok(match to.split_once('/') {
        Some((to, count)) => Rate::Steps {
            from,
            to: number(to)?,
            count: number(count)?,
        },
        None => Rate::Ramp {
            from,
            to: number(to)?,
        },
    })
}

/// A rate and a time with a colon between them.
pub(super) fn leg(text: &str) -> Result<Leg, String> {
    let (before, after) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} has no colon: write RATE:TIME"))?;
    Ok(Leg {
        rate: rate(before)?,
        lasts: duration(after)?,
    })
}

/// `uniform:N`, `zipf:N:EXPONENT` or `hot:PERCENT:N`.
pub(super) fn keys(text: &str) -> Result<Keys, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["uniform", of] => Ok(Keys::Uniform { of: number(of)? }),
        ["zipf", of, exponent] => Ok(Keys::Zipf {
            of: number(of)?,
            exponent: number(exponent)?,
        }),
        ["hot", percent, of] => Ok(Keys::Hot {
            percent: number(percent)?,
            of: number(of)?,
        }),
        _ => Err("write uniform:N, zipf:N:EXPONENT or hot:PERCENT:N".to_owned()),
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number that fits here"))
}
