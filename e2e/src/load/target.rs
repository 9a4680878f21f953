//! Where requests go: to an address of this machine, whatever host they ask for.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

/// The protocol, agreed on beforehand, or by ALPN over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive, one request at a time on a connection.
    Http1,
    /// HTTP/2, many requests at a time on a connection.
    Http2,
}

/// Addresses on loopback, and how to speak to them.
#[derive(Debug, Clone)]
pub struct Target {
    addresses: Vec<SocketAddr>,
    /// Connections that were dialled; each begins at another address.
    dialled: Arc<AtomicUsize>,
    protocol: Protocol,
    tls: Option<Tls>,
}

/// The address is not of this machine. The tool must not become a weapon by a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no loopback address: load goes to this machine alone, such as 127.0.0.1")]
pub struct NotLoopback(pub SocketAddr);

/// How TLS is spoken.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server: ServerName<'static>,
}

impl Target {
    /// An address on loopback, spoken to in the clear.
    pub fn at(address: SocketAddr, protocol: Protocol) -> Result<Self, NotLoopback> {
        let target = Self {
            addresses: vec![],
            dialled: Arc::default(),
            protocol,
            tls: None,
        };
        target.also_at(address)
    }

    /// The same at one more address. Connections are dialled in turn, and whoever does not take one
    /// is passed over, as by a load balancer; each has about its part of the requests as long
    /// as most connections rest.
    pub fn also_at(mut self, address: SocketAddr) -> Result<Self, NotLoopback> {
        if !address.ip().is_loopback() {
            return Err(NotLoopback(address));
        }
        self.addresses.push(address);
        Ok(self)
    }

    /// The same over TLS, with a server that proves to be `server` by a certificate of `ca_pem`.
    pub fn over_tls(mut self, ca_pem: &[u8], server: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            roots.add(certificate.context("read the CA")?)?;
        }
        ensure!(!roots.is_empty(), "the CA holds no certificate in PEM");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![self.protocol.alpn().to_vec()];
        self.tls = Some(Tls {
            config: Arc::new(config),
            server: ServerName::try_from(server.to_owned())
                .with_context(|| format!("the server name {server:?}"))?,
        });
        Ok(self)
    }

    /// Whether there are several addresses, of which each is to have its part.
    pub(super) fn is_balanced(&self) -> bool {
        self.addresses.len() > 1
    }

    /// The protocol it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The addresses in the order in which the next connection tries them.
    pub(super) fn turn(&self) -> impl Iterator<Item = SocketAddr> {
        let count = self.addresses.len();
        let first = self.dialled.fetch_add(1, Ordering::Relaxed);
        (0..count).map(move |offset| self.addresses[(first + offset) % count])
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Protocol {
    /// Its name in a TLS handshake.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_beyond_this_machine_is_refused() {
        for address in [
            "10.0.0.1:80",
            "0.0.0.0:80",
            "8.8.8.8:53",
            "[::]:80",
            "[2001:db8::1]:80",
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                Target::at(address, Protocol::Http1).unwrap_err(),
                NotLoopback(address)
            );
        }
        for address in ["127.0.0.1:80", "127.8.9.1:80", "[::1]:80"] {
            assert!(Target::at(address.parse().unwrap(), Protocol::Http1).is_ok());
        }
    }

    #[test]
    fn connections_are_dialled_at_all_addresses_in_turn() {
        let [one, two] = ["127.0.0.1:1", "127.0.0.1:2"].map(|at| at.parse().unwrap());
        let target = Target::at(one, Protocol::Http1).unwrap();
        let target = target.also_at(two).unwrap();
        assert_eq!(target.turn().collect::<Vec<_>>(), [one, two]);
        assert_eq!(target.turn().collect::<Vec<_>>(), [two, one]);
        let far = "10.0.0.1:80".parse().unwrap();
        assert!(target.also_at(far).is_err());
    }

    #[test]
    fn a_ca_without_a_certificate_is_refused() {
        let target = Target::at("127.0.0.1:1".parse().unwrap(), Protocol::Http1).unwrap();
        let error = target.over_tls(b"nothing", "app.example").unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
