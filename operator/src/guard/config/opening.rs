//! Where ports are opened.

use std::net::IpAddr;

use super::Port;

/// Where a port is opened, by the number that Gateways give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Absent is the address of the guard.
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
