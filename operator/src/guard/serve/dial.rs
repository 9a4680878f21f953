//! Where the addresses of pods are really reached, and whose fault it is that one is not.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

/// What connecting fails with where the guard, or its machine, has no more of something: files, local ports,
/// memory.
const LACKS: [Errno; 5] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::ADDRNOTAVAIL,
    Errno::NOBUFS,
    Errno::NOMEM,
];

/// Where the addresses of pods are really reached: a sandbox serves them on loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dial(Option<(Network, Network)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: u32,
    bits: u8,
}

impl Dial {
    pub(super) fn of(self, address: IpAddr) -> IpAddr {
        let (Self(Some((from, to))), IpAddr::V4(v4)) = (self, address) else {
            return address;
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(from.bits)).unwrap_or(0);
        let number = u32::from(v4);
        if number & mask != from.address & mask {
            return address;
        }
        IpAddr::V4((to.address & mask | number & !mask).into())
    }
}

/// Whether no connection was made for what the guard itself lacks, which says nothing about the endpoint.
pub(super) fn is_own_lack(error: &io::Error, to: IpAddr) -> bool {
    // On a machine without IPv6 no port leads there, now or later.
    let is_vain = |errno| errno == Errno::ADDRNOTAVAIL && to.is_ipv6();
    Errno::from_io_error(error).is_some_and(|errno| LACKS.contains(&errno) && !is_vain(errno))
}

impl std::str::FromStr for Dial {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str =
            "must be two IPv4 networks of one size, as in 198.18.0.0/15=127.18.0.0/15";
        let network = |text: &str| {
            let (address, bits) = text.split_once('/')?;
            let address: std::net::Ipv4Addr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= 32)?;
            Some(Network {
                address: address.into(),
                bits,
            })
        };
        let (from, to) = text.split_once('=').ok_or(SHAPE)?;
        match (network(from), network(to)) {
            (Some(from), Some(to)) if from.bits == to.bits => Ok(Self(Some((from, to)))),
            _ => Err(SHAPE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guard_lacks_is_told_from_what_an_endpoint_does() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let [to, to_v6] = ["10.0.0.1", "2001:db8::1"].map(|to| to.parse().unwrap());
        let of = |errno| is_own_lack(&error(errno), to);
        assert!(LACKS.into_iter().all(of));
        let endpoints = [Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::HOSTUNREACH];
        assert!(!endpoints.into_iter().any(of));
        // Without a number, as our own timeout is.
        assert!(!is_own_lack(&io::ErrorKind::TimedOut.into(), to));
        assert!(!is_own_lack(&error(Errno::ADDRNOTAVAIL), to_v6));
    }

    #[test]
    fn addresses_of_a_network_are_dialled_in_another() {
        let dial: Dial = "198.18.0.0/15=127.18.0.0/15".parse().unwrap();
        assert_eq!(
            dial.of([198, 19, 3, 4].into()),
            IpAddr::from([127, 19, 3, 4])
        );
        assert_eq!(dial.of([10, 0, 0, 1].into()), IpAddr::from([10, 0, 0, 1]));
        assert!("198.18.0.0/15=127.18.0.0/16".parse::<Dial>().is_err());
    }
}
