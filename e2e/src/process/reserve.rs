//! Ports, pod networks and addresses that no other fleet on this machine uses.
//!
//! A reservation is a locked file, so it spans processes and ends with its holder even after a
//! crash. Ports are taken below the kernel's range for outgoing connections: a server that is
//! restarted on its port must not find it taken by somebody's outgoing connection.

use std::{
    env,
    fs::{self, File, TryLockError},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::PathBuf,
};

use anyhow::{Context, Result, bail};

/// Below 32768, where Linux begins to hand out ports to outgoing connections.
const PORTS: Range<u16> = 14_000..32_000;
/// `198.18.0.0/15`, the range set aside for benchmarks: EndpointSlices accept it, nothing routes it.
const PODS: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const PODS_BITS: u8 = 15;
/// `127.20.0.0/16`, behind the twins of pods: addresses of guards. All guards of a cluster open the same ports,
/// so each has an address of its own.
const ADDRESSES: u32 = u32::from_be_bytes([127, 20, 0, 0]);
/// Its size; the first address is left out, as in any network.
const ADDRESSES_COUNT: u32 = 1 << 16;
/// Pod networks are handed out in units of this many addresses.
const UNIT: u32 = 256;
const UNITS: u32 = (1 << (32 - PODS_BITS as u32)) / UNIT;

/// A port on 127.0.0.1 reserved for as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port that nothing listens on.
    pub fn reserve() -> Result<Self> {
        let count = PORTS.end - PORTS.start;
        // A random start keeps fleets apart and makes a port unlikely to be reused at once.
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let first = u16::from_be_bytes([a, b]) % count;
        for offset in 0..count {
            let number = PORTS.start + (first + offset) % count;
            let Some(lock) = try_lock("ports", &number.to_string())? else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!(
            "no free port between {} and {} on 127.0.0.1",
            PORTS.start,
            PORTS.end
        );
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A part of `198.18.0.0/15` reserved for the pods of one cluster.
#[derive(Debug)]
pub struct PodNetwork {
    first: u32,
    size: u32,
    _locks: Vec<File>,
}

impl PodNetwork {
    /// Reserves a network with at least `addresses` addresses.
    pub fn reserve(addresses: u32) -> Result<Self> {
        let size = addresses.clamp(UNIT, UNITS * UNIT).next_power_of_two();
        let units = size / UNIT;
        for first in (0..UNITS).step_by(units as usize) {
            if let Some(locks) = lock_units(first, units)? {
                return Ok(Self {
                    first: PODS + first * UNIT,
                    size,
                    _locks: locks,
                });
            }
        }
        bail!(
            "198.18.0.0/15 has no room for {size} more pod addresses: too many fleets run on this machine"
        );
    }

    /// In CIDR notation.
    pub fn cidr(&self) -> String {
        format!(
            "{}/{}",
            Ipv4Addr::from(self.first),
            32 - self.size.trailing_zeros()
        )
    }
}

/// An address on loopback, with all its ports, reserved for as long as this value lives.
#[derive(Debug)]
pub struct Address {
    address: Ipv4Addr,
    _lock: File,
}

impl Address {
    /// Reserves an address that nobody else has.
    pub fn reserve() -> Result<Self> {
        for number in 1..ADDRESSES_COUNT {
            if let Some(lock) = try_lock("addresses", &number.to_string())? {
                return Ok(Self {
                    address: Ipv4Addr::from(ADDRESSES + number),
                    _lock: lock,
                });
            }
        }
        bail!("every address of 127.20.0.0/16 is taken: too many guards run on this machine");
    }

    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.address
    }
}

fn lock_units(first: u32, count: u32) -> Result<Option<Vec<File>>> {
    let locks = (first..first + count).map(|unit| try_lock("pod-networks", &unit.to_string()));
    locks.collect()
}

/// Locks the file that stands for one thing; none if somebody else has it.
fn try_lock(kind: &str, name: &str) -> Result<Option<File>> {
    // Locks must meet across all checkouts of one user; another user's fleet is only kept apart
    // by the check whether the port is free.
    let user = rustix::process::getuid().as_raw();
    let dir: PathBuf = env::temp_dir().join(format!("jiuzhou-{user}")).join(kind);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(name);
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_hands_out_a_port_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().expect("a port")).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }

    #[test]
    fn two_guards_never_have_one_address() {
        let (a, b) = (Address::reserve().unwrap(), Address::reserve().unwrap());
        assert_ne!(a.ip(), b.ip());
        assert!(a.ip().is_loopback() && b.ip().is_loopback());
    }

    #[test]
    fn pod_networks_do_not_overlap() {
        let a = PodNetwork::reserve(300).expect("a network");
        let b = PodNetwork::reserve(300).expect("a network");
        assert_eq!((a.size, b.size), (512, 512));
        assert!(a.first + a.size <= b.first || b.first + b.size <= a.first);
        assert!(
            a.cidr().starts_with("198.1") && a.cidr().ends_with("/23"),
            "{}",
            a.cidr()
        );
    }
}
