//! Addresses of pods and nodes, and where they are really served.
//!
//! EndpointSlices refuse loopback addresses, so pods carry addresses of 198.18.0.0/15, which
//! nothing routes. Each has a twin in 127.18.0.0/15 with the same low bits, where its ports are
//! served.

use std::{collections::HashSet, net::Ipv4Addr, str::FromStr};

use anyhow::{Context, Error, Result, ensure};

const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const LAST: u32 = u32::from_be_bytes([198, 19, 255, 255]);

/// The loopback address that serves what a pod at `address` listens on; none for addresses that
/// no sandbox hands out.
pub fn twin(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let [_, b, c, d] = address.octets();
    (FIRST..=LAST)
        .contains(&u32::from(address))
        .then_some(Ipv4Addr::new(127, b, c, d))
}

/// A network in CIDR notation, inside 198.18.0.0/15.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    first: u32,
    size: u32,
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, bits) = text.split_once('/').context("must be ADDRESS/BITS")?;
        let first = u32::from(
            address
                .parse::<Ipv4Addr>()
                .context("must begin with an address")?,
        );
        let bits: u32 = bits.parse().context("must end with a number of bits")?;
        ensure!((15..=30).contains(&bits), "must have 15 to 30 bits");
        let size = 1 << (32 - bits);
        ensure!(
            first.is_multiple_of(size),
            "must begin at a multiple of its size"
        );
        let inside = first >= FIRST && first + (size - 1) <= LAST;
        ensure!(inside, "must lie inside 198.18.0.0/15");
        Ok(Self { first, size })
    }
}

/// Hands out a network's addresses.
#[derive(Debug)]
pub(super) struct AddressPool {
    network: Network,
    used: HashSet<u32>,
    next: u32,
}

impl AddressPool {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            used: HashSet::new(),
            next: 0,
        }
    }

    /// The next free address; none when all are in use. Addresses come back only after all others
    /// were handed out, as in real networks, so that a late request does not meet another pod.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..self.network.size {
            let candidate = self.network.first + self.next;
            self.next = (self.next + 1) % self.network.size;
            // Some tools take these for the network's own and broadcast addresses.
            let reserved = matches!(candidate & 0xff, 0 | 0xff);
            if !reserved && self.used.insert(candidate) {
                return Some(candidate.into());
            }
        }
        None
    }

    /// Takes one certain address, as a pod that outlived the kubelet has it already.
    pub(super) fn adopt(&mut self, address: Ipv4Addr) -> bool {
        let Network { first, size } = self.network;
        let number = u32::from(address);
        number >= first && number - first < size && self.used.insert(number)
    }

    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str) -> AddressPool {
        AddressPool::new(cidr.parse().expect("a good network"))
    }

    #[test]
    fn a_twin_keeps_the_low_bits() {
        assert_eq!(
            twin(Ipv4Addr::new(198, 18, 3, 7)),
            Some(Ipv4Addr::new(127, 18, 3, 7))
        );
        assert_eq!(
            twin(Ipv4Addr::new(198, 19, 255, 7)),
            Some(Ipv4Addr::new(127, 19, 255, 7))
        );
        assert_eq!(twin(Ipv4Addr::new(10, 0, 0, 1)), None);
    }

    #[test]
    fn hands_out_every_address_once_and_reuses_the_oldest_last() {
        let mut pool = pool("198.18.4.0/30");
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), 3, "one of four is reserved");
        pool.give_back(all[1]);
        assert_eq!(pool.take(), Some(all[1]));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn adopts_only_its_own_free_addresses() {
        let mut pool = pool("198.18.4.0/24");
        let address = Ipv4Addr::new(198, 18, 4, 1);
        assert!(pool.adopt(address));
        assert!(!pool.adopt(address));
        assert!(!pool.adopt(Ipv4Addr::new(198, 18, 5, 1)));
        assert_ne!(pool.take(), Some(address));
    }

    #[test]
    fn refuses_networks_that_are_routed_somewhere() {
        for bad in [
            "10.0.0.0/16",
            "198.18.0.0/14",
            "198.18.0.1/24",
            "198.20.0.0/24",
            "x",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
