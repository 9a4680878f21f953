//! How answers are printed: for people with colours on a terminal only, for programs as JSON.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal as _;

use clap::ValueEnum;

/// Two windows of this width stand side by side on a screen, and few terminals are narrower.
const COLUMNS: usize = 100;

/// Format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// One JSON object, stable for programs.
    Json,
}

/// Colours, if the reader wants them.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` says otherwise.
    pub(super) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self(terminal && !refused(std::env::var_os("NO_COLOR").as_deref()))
    }

    fn dye(self, code: &'static str, text: &str) -> Painted {
        Painted {
            text: text.to_owned(),
            code: self.0.then_some(code),
        }
    }

    pub(super) fn good(self, text: &str) -> Painted {
        self.dye("32", text)
    }

    pub(super) fn bad(self, text: &str) -> Painted {
        self.dye("31", text)
    }

    pub(super) fn unsure(self, text: &str) -> Painted {
        self.dye("33", text)
    }

    /// Colours whatever the reader wants.
    #[cfg(test)]
    pub(super) fn always() -> Self {
        Self(true)
    }

    /// No colours whatever the reader wants.
    #[cfg(test)]
    pub(super) const fn never() -> Self {
        Self(false)
    }
}

/// What `NO_COLOR` says: set to nothing it says nothing, as <https://no-color.org> has it.
fn refused(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

/// A text and its colour, kept apart: escapes take no room on a terminal.
#[derive(Clone, Debug)]
pub(super) struct Painted {
    /// What people read.
    pub(super) text: String,
    code: Option<&'static str>,
}

impl Painted {
    /// Another text in the same colour.
    pub(super) fn like(&self, text: String) -> Self {
        Self {
            text,
            code: self.code,
        }
    }
}

impl From<String> for Painted {
    fn from(text: String) -> Self {
        Self { text, code: None }
    }
}

impl fmt::Display for Painted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\u{1b}[{code}m{}\u{1b}[0m", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Columns that lines for people are broken at, or `None` where programs read lines as a whole.
pub(super) fn columns() -> Option<usize> {
    std::io::stdout().is_terminal().then_some(COLUMNS)
}

/// A number of things, as `1 file` or `3 files`.
pub(super) fn number(of: usize, thing: &str) -> String {
    let end = if of == 1 { "" } else { "s" };
    format!("{of} {thing}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_counts_only_when_it_holds_anything() {
        assert!(!refused(None));
        assert!(!refused(Some(OsStr::new(""))));
        assert!(refused(Some(OsStr::new("1"))));
        assert!(refused(Some(OsStr::new("0"))));
    }

    #[test]
    fn only_a_painted_text_carries_escapes() {
        assert_eq!(Paint::never().bad("no").to_string(), "no");
        assert_eq!(
            Paint::always().bad("no").to_string(),
            "\u{1b}[31mno\u{1b}[0m"
        );
    }
}
