//! TLS of which both sides prove who they are, with files that may be renewed at any time.
//!
//! Each connection proves it anew. A session that is resumed looks at no certificate, so that one that has
//! ended would open connections for as long as its guard comes back before a ticket grows old.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Both sides are ours, so neither has a reason to speak anything older.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// One protocol above it, for the same reason.
const PROTOCOL: &[u8] = b"h2";

/// What a side proves who it is with, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates in PEM, its own first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
    /// Those by whom the other side must be certified, in PEM.
    pub authority: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file system, or what is in the file.
    #[error("{} is no file in PEM with what is needed", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// Nothing in it.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// A certificate and a key that are no pair, for example.
    #[error("{} cannot be used", path.display())]
    Use {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No authority in it can certify anybody.
    #[error("nobody can be certified by {}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// What is made of files, and made anew when they change. What they become is used by the next
/// connection; while it cannot be used, the last that could.
#[derive(Debug)]
pub struct Renewed<T> {
    files: Files,
    make: fn(&Files) -> Result<T, TlsError>,
    current: Mutex<(Stamp, Arc<T>)>,
}

/// When the files were last written.
type Stamp = [Option<SystemTime>; 3];

impl<T> Renewed<T> {
    /// Reads the files, which must be good now.
    pub fn new(files: Files, make: fn(&Files) -> Result<T, TlsError>) -> Result<Self, TlsError> {
        let stamp = stamp(&files);
        let current = Mutex::new((stamp, Arc::new(make(&files)?)));
        Ok(Self {
            files,
            make,
            current,
        })
    }

    /// What they are now.
    pub fn get(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp != current.0 {
            // Also where they are bad: that is told once, and looked at again at the next change.
            current.0 = stamp;
            match (self.make)(&self.files) {
                Ok(made) => current.1 = Arc::new(made),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(
                        error,
                        "renewed files cannot be used; the former stay in force"
                    );
                }
            }
        }
        Arc::clone(&current.1)
    }
}

/// What connections are accepted with: only of those that are certified.
pub fn server(files: &Files) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(&files.authority)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier {
            path: files.authority.clone(),
            source,
        })?;
    let failed = |source| TlsError::Use {
        path: files.certificate.clone(),
        source,
    };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(failed)?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

/// What connections are made with.
pub fn client(files: &Files) -> Result<ClientConfig, TlsError> {
    let failed = |source| TlsError::Use {
        path: files.certificate.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .map_err(failed)?
        .with_root_certificates(roots(&files.authority)?)
        .with_client_auth_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(failed)?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(client)
}

fn stamp(files: &Files) -> Stamp {
    [&files.certificate, &files.key, &files.authority].map(|path| {
        let file: io::Result<_> = std::fs::metadata(path);
        file.and_then(|file| file.modified()).ok()
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|source| TlsError::Use {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let all = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(failed)?;
    if all.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(all)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, Connection, HandshakeKind, ServerConnection};

    use super::*;

    /// A certificate, its key and who certified it, in a folder.
    pub(in crate::guard) fn files(folder: &Path) -> Files {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Files {
            certificate: file("certificate.pem", certificate.pem()),
            key: file("key.pem", key.serialize_pem()),
            authority: file("ca.pem", authority.pem()),
        }
    }

    fn carry(from: &mut Connection, to: &mut Connection) {
        while from.wants_write() {
            let mut bytes = Vec::new();
            from.write_tls(&mut bytes).unwrap();
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                to.read_tls(&mut left).unwrap();
                to.process_new_packets().unwrap();
            }
        }
    }

    fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Option<HandshakeKind> {
        let name = ServerName::try_from("localhost").unwrap();
        let guard = ClientConnection::new(Arc::clone(client), name).unwrap();
        let control = ServerConnection::new(Arc::clone(server)).unwrap();
        let (mut guard, mut control) = (Connection::from(guard), Connection::from(control));
        while guard.wants_write() || control.wants_write() {
            carry(&mut guard, &mut control);
            carry(&mut control, &mut guard);
        }
        guard.handshake_kind()
    }

    #[test]
    fn each_connection_looks_at_certificates_anew() {
        let folder = std::env::temp_dir().join(format!("mutual-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = files(&folder);
        let resuming = |files: &Files| {
            let mut client = client(files).unwrap();
            client.resumption = Resumption::default();
            Arc::new(client)
        };
        let guards = [Arc::new(client(&files).unwrap()), resuming(&files)];
        let control = Arc::new(server(&files).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        for guard in guards {
            for _ in 0..3 {
                assert_eq!(connect(&guard, &control), Some(HandshakeKind::Full));
            }
        }
    }
}
