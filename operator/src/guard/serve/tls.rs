//! Certificates by the name that a client asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::by_host::ByHost;
use super::prepare::PrepareError;
use crate::guard::config::{Certificate, Listener};

/// What the listeners of one port prove who they are with.
#[derive(Debug)]
pub(super) struct Certificates(Arc<ByHost<Arc<CertifiedKey>>>);

impl Certificates {
    pub(super) fn prepare(
        listeners: &[Listener],
        all: &BTreeMap<String, Certificate>,
    ) -> Result<Self, PrepareError> {
        let mut keys = Vec::new();
        for listener in listeners {
            // The first is the one that Gateway API calls the default.
            if let Some(name) = listener.certificates.first() {
                let bad = |why: String| PrepareError::Certificate {
                    name: name.clone(),
                    why,
                };
                let found = all
                    .get(name)
                    .ok_or_else(|| bad("it does not exist".into()))?;
                keys.push((
                    listener.hostname.clone(),
                    Arc::new(key(found).map_err(bad)?),
                ));
            }
        }
        Ok(Self(Arc::new(ByHost::collect(keys))))
    }

    fn find(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.0
            .covering(server_name.unwrap_or_default())
            .next()
            .cloned()
    }
}

/// Asks for the certificates of the configuration in force at the moment of the handshake.
pub(super) struct Resolver<F>(pub(super) F);

impl<F> std::fmt::Debug for Resolver<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl<F> ResolvesServerCert for Resolver<F>
where
    F: Fn(&dyn Fn(&Certificates) -> Option<Arc<CertifiedKey>>) -> Option<Arc<CertifiedKey>>
        + Send
        + Sync,
{
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        (self.0)(&|certificates| certificates.find(name.as_deref()))
    }
}

/// When each certificate ends, in seconds since 1970: it or the first of those that it stands by.
pub(super) fn expiries(all: &BTreeMap<String, Certificate>) -> BTreeMap<String, i64> {
    let end = |certificate: &Certificate| {
        let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
        let ends = chain.filter_map(|one| {
            let one = one.ok()?;
            let (_, read) = x509_parser::parse_x509_certificate(&one).ok()?;
            Some(read.validity().not_after.timestamp())
        });
        ends.min()
    };
    let named = all
        .iter()
        .map(|(name, one)| Some((name.clone(), end(one)?)));
    named.flatten().collect()
}

/// What connections are accepted with.
pub(super) fn server(resolver: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(server)
}

fn key(certificate: &Certificate) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
    let chain: Vec<_> = chain
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes());
    // What the library says about a key might repeat it.
    let key = key.map_err(|_| "its key is no private key in PEM".to_owned())?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())
}
