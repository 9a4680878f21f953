//! What listeners prove who they are with.

use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::super::config::Certificate;

/// The type of Secrets that hold certificates.
const TLS: &str = "kubernetes.io/tls";

/// Bytes of a chain: some twenty certificates. All of the configuration has a bound, and whoever may write a Secret
/// shall not take the room of others.
const CHAIN_MAX: usize = 32 << 10;

/// Takes the certificate out of a Secret, if TLS could be served with it; else says what is wrong.
pub(super) fn take(secret: &Secret) -> Result<Certificate, String> {
    if secret.type_.as_deref() != Some(TLS) {
        return Err(format!("is not of type {TLS}; make a Secret of that type"));
    }
    let chain = text(secret, "tls.crt")?;
    let key = text(secret, "tls.key")?;
    for (field, text) in [("tls.crt", &chain), ("tls.key", &key)] {
        let bytes = text.len();
        if bytes > CHAIN_MAX {
            return Err(format!(
                "has {bytes} bytes in data[{field}], {CHAIN_MAX} are allowed; leave out what is not of the chain"
            ));
        }
    }
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| malformed("tls.crt", "certificates"))?;
    if certificates.is_empty() {
        return Err(malformed("tls.crt", "certificates"));
    }
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| malformed("tls.key", "a private key"))?;
    // The error is left out on purpose: nothing of what a key looks like may reach a status.
    CertifiedKey::from_der(certificates, private, &ring::default_provider()).map_err(|_| {
        "holds a certificate and a key that do not fit each other or are of a kind that TLS does not \
         use; put the leaf first and give the key it was made with"
            .to_owned()
    })?;
    Ok(Certificate { chain, key })
}

fn text(secret: &Secret, field: &str) -> Result<String, String> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(field));
    let bytes = bytes.ok_or_else(|| format!("has no data[{field}]; add it as PEM"))?;
    String::from_utf8(bytes.0.clone()).map_err(|_| malformed(field, "text"))
}

fn malformed(field: &str, what: &str) -> String {
    format!("has no {what} in PEM in data[{field}]; write it anew")
}
