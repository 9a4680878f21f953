//! What tickets of waiting rooms are signed with, as far as is known.

use crate::guard::config::TicketKey;

/// The keys of tickets, of all rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketKeys {
    /// The first signs, a second one is honoured too.
    Known(Vec<TicketKey>),
    /// There are none: where they are looked for and what to do, in one line.
    Missing(String),
    /// Nobody is given a configuration, so that none are needed: what is said of policies is all.
    Assumed,
}

impl TicketKeys {
    /// Those that there are.
    pub fn known(&self) -> Option<&[TicketKey]> {
        match self {
            Self::Known(keys) => Some(keys),
            Self::Missing(_) | Self::Assumed => None,
        }
    }
}

impl Default for TicketKeys {
    fn default() -> Self {
        Self::Missing("no keys of tickets were looked for yet".to_owned())
    }
}
