//! What pages of the guard are written in, and how they look.

use http::HeaderValue;

/// How a page looks; it loads nothing.
pub(super) const STYLE: &str = "body{margin:0;font:1.125rem/1.6 system-ui,sans-serif;color:#1a1a1a;background:#fff}\
    main{max-width:32rem;margin:12vh auto;padding:0 1.5rem}strong{font-size:1.5em}\
    @media(prefers-color-scheme:dark){body{color:#f2f2f2;background:#161616}}";

/// What a page is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Chinese,
    English,
}

impl Language {
    /// The one that a browser prefers; Chinese where it says nothing.
    pub(super) fn of(accepted: Option<&HeaderValue>) -> Self {
        let accepted = accepted.and_then(|value| value.to_str().ok());
        let accepted = accepted.unwrap_or_default();
        if weight(accepted, "en") > weight(accepted, "zh") {
            Self::English
        } else {
            Self::Chinese
        }
    }

    /// As HTML names it.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::Chinese => "zh-CN",
            Self::English => "en",
        }
    }
}

/// How much a language is wanted, in thousandths.
fn weight(accepted: &str, language: &str) -> u16 {
    let weights = accepted.split(',').filter_map(|range| {
        let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
        let primary = tag.trim().split('-').next()?;
        let quality = parameters.trim().strip_prefix("q=");
        primary
            .eq_ignore_ascii_case(language)
            .then(|| quality.map_or(1000, thousandths))
    });
    weights.max().unwrap_or(0)
}

/// `0.8` is 800; what is no such number is nothing.
fn thousandths(quality: &str) -> u16 {
    let (whole, part) = quality.split_once('.').unwrap_or((quality, ""));
    if whole == "1" {
        return 1000;
    }
    let digits = part.bytes().chain(std::iter::repeat(b'0')).take(3);
    digits
        .map(|digit| digit.wrapping_sub(b'0'))
        .try_fold(0, |sum, digit| {
            (digit < 10).then(|| sum * 10 + u16::from(digit))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_in_the_language_that_the_browser_prefers() {
        let of = |text: &str| Language::of(Some(&HeaderValue::from_str(text).unwrap()));
        assert_eq!(Language::of(None), Language::Chinese);
        for chinese in [
            "zh-CN,zh;q=0.9,en;q=0.8",
            "en;q=0.5, zh",
            "de",
            "*",
            "en;q=x",
        ] {
            assert_eq!(of(chinese), Language::Chinese, "{chinese}");
        }
        for english in ["en-GB", "en-US,en;q=0.9,zh;q=0.8", "zh;q=0.2,EN;q=0.35"] {
            assert_eq!(of(english), Language::English, "{english}");
        }
    }
}
