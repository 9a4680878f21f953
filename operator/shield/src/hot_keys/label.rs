//! Text from requests, made fit to be shown: in a status, a log, a label of a metric.

use std::fmt::{self, Write};

/// Bytes of a label at most.
pub const LABEL_BYTES_MAX: usize = 128;

/// Marks the place where a label was cut. No other label contains it, since a backslash of the text
/// itself is always doubled.
const CUT: &str = "\\…";

/// Bytes of the mark and of the sixteen digits that follow it.
const CUT_BYTES: usize = CUT.len() + 16;

/// Printable text of at most [`LABEL_BYTES_MAX`] bytes that stands for some bytes of a request.
///
/// Printable characters stand for themselves, a backslash is doubled, control and invisible
/// characters are written `\u{..}` and bytes that are no text `\x..`, so that different bytes have
/// different labels. What is too long is cut and ends in a digest of all of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

impl Label {
    /// The label of these bytes.
    pub fn escaped(raw: &[u8]) -> Self {
        let mut text = String::new();
        // Where it may be cut so that the mark still fits.
        let mut cut = 0;
        for chunk in raw.utf8_chunks() {
            let characters = chunk.valid().chars().map(character);
            let bytes = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            for piece in characters.chain(bytes) {
                text.push_str(&piece);
                if text.len() <= LABEL_BYTES_MAX - CUT_BYTES {
                    cut = text.len();
                }
                if text.len() > LABEL_BYTES_MAX {
                    text.truncate(cut);
                    text.push_str(CUT);
                    // Writing into a string cannot fail.
                    let _ = write!(text, "{:016x}", digest(raw));
                    return Self(text.into());
                }
            }
        }
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn character(character: char) -> String {
    match character {
        '\\' => "\\\\".to_owned(),
        hidden if is_hidden(hidden) => format!("\\u{{{:x}}}", u32::from(hidden)),
        plain => plain.to_string(),
    }
}

/// Whether a character cannot be seen, breaks the line, or turns the direction of what follows.
fn is_hidden(character: char) -> bool {
    let format = matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    format || character.is_control() || (character.is_whitespace() && character != ' ')
}

/// A digest that tells long keys apart (FNV-1a); it guards nothing.
fn digest(raw: &[u8]) -> u64 {
    raw.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(raw: impl AsRef<[u8]>) -> String {
        Label::escaped(raw.as_ref()).to_string()
    }

    #[test]
    fn what_can_be_shown_is_shown_and_the_rest_is_spelt() {
        assert_eq!(label("西湖 venue-7"), "西湖 venue-7");
        assert_eq!(label("a\\b"), "a\\\\b");
        assert_eq!(label("a\nb\u{202e}"), "a\\u{a}b\\u{202e}");
        assert_eq!(label(b"a\xff"), "a\\xff");
        assert_eq!(label(""), "");
    }

    #[test]
    fn what_is_too_long_is_cut_and_still_told_apart() {
        let long = "钱".repeat(50);
        let cut = label(&long);
        assert!(cut.len() <= LABEL_BYTES_MAX && cut.contains("\\…"), "{cut}");
        assert_ne!(cut, label(long + "x"));
        assert_eq!(label("x".repeat(128)), "x".repeat(128));
        assert!(label("x".repeat(129)).len() <= 128);
    }

    proptest! {
        #[test]
        fn a_label_is_bounded_and_visible_and_different_for_different_bytes(
            one in prop::collection::vec(any::<u8>(), 0..60),
            other in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let text = label(&one);
            prop_assert!(text.len() <= LABEL_BYTES_MAX);
            prop_assert!(!text.chars().any(is_hidden));
            prop_assert_eq!(one == other, text == label(&other));
        }

        #[test]
        fn any_text_of_any_length_has_one(text in ".{0,200}") {
            prop_assert!(label(text).len() <= LABEL_BYTES_MAX);
        }
    }
}
