//! Where ports are opened.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Port;

/// Where a port is opened, by the number that Gateways give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Opening {
    /// Absent is the address of the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The number that Gateways give.
    pub port: u16,
}

impl Port {
    /// Where it is opened.
    pub fn opening(&self) -> Opening {
        Opening {
            address: self.address,
            port: self.port,
        }
    }
}
