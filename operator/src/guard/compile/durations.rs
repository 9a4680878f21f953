//! Durations as Gateway API writes them: `1h30m`, `500ms`.

use std::time::Duration;

/// Parts of a duration, as the API allows them.
const PARTS_MAX: usize = 4;

/// Digits of a part, as the API allows them; they keep every sum far from overflow.
const DIGITS_MAX: usize = 5;

/// Reads one to four numbers of up to five digits, each with `h`, `m`, `s` or `ms`.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..PARTS_MAX {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        if digits == 0 || digits > DIGITS_MAX {
            return None;
        }
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (part, length) = if unit.starts_with("ms") {
            (Duration::from_millis(number), 2)
        } else if unit.starts_with('s') {
            (Duration::from_secs(number), 1)
        } else if unit.starts_with('m') {
            (Duration::from_secs(number * 60), 1)
        } else if unit.starts_with('h') {
            (Duration::from_secs(number * 3600), 1)
        } else {
            return None;
        };
        sum += part;
        rest = &unit[length..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_api_writes_them() {
        assert_eq!(parse("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(parse("1m500ms"), Some(Duration::from_millis(60_500)));
        assert_eq!(parse("0s"), Some(Duration::ZERO));
        for bad in [
            "",
            "1",
            "s",
            "1d",
            "1.5s",
            "-1s",
            "100000s",
            "1s1s1s1s1s",
            "1s ",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
