//! The key material of one fleet: a CA, one serving certificate and one service-account key. And that of the
//! guards of a cluster.
//!
//! All servers listen on loopback and belong to one throw-away fleet, so they share a certificate;
//! callers prove who they are by bearer token, which is why no client certificate is made. Guards are
//! known by certificates alone, and have an authority that certifies nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// Paths of the files that the servers read, and the CA as text for kubeconfigs.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The CA certificate, PEM.
    pub ca_pem: String,
    /// File with the CA certificate.
    pub ca: PathBuf,
    /// File with the serving certificate, valid for 127.0.0.1 and localhost.
    pub serving: PathBuf,
    /// File with the serving certificate's key.
    pub serving_key: PathBuf,
    /// File with the EC key that signs service-account tokens.
    pub service_account_key: PathBuf,
    /// File with the public half of it; the servers do not derive it from the private one.
    pub service_account_public_key: PathBuf,
}

impl Certificates {
    /// Makes new key material in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let ca = CertifiedIssuer::self_signed(ca_params(), KeyPair::generate()?)
            .context("make the CA certificate")?;
        let serving_key = KeyPair::generate()?;
        let serving = leaf_params(ExtendedKeyUsagePurpose::ServerAuth)?
            .signed_by(&serving_key, &ca)
            .context("make the serving certificate")?;
        let service_account_key = KeyPair::generate()?;

        let write = |name: &str, text: &str| write(dir, name, text);
        let ca_pem = ca.pem();
        Ok(Self {
            ca: write("ca.crt", &ca_pem)?,
            serving: write("serving.crt", &serving.pem())?,
            serving_key: write("serving.key", &serving_key.serialize_pem())?,
            service_account_key: write(
                "service-account.key",
                &service_account_key.serialize_pem(),
            )?,
            service_account_public_key: write(
                "service-account.pub",
                &service_account_key.public_key_pem(),
            )?,
            ca_pem,
        })
    }
}

/// A certificate, its key and who certified it, as files.
#[derive(Debug, Clone)]
pub struct Proof {
    /// File with the certificate.
    pub certificate: PathBuf,
    /// File with its key.
    pub key: PathBuf,
    /// File with the CA certificate, for those to whom it is shown.
    pub ca: PathBuf,
}

/// What guard control and the guards of one cluster prove to each other who they are with.
#[derive(Debug, Clone)]
pub struct GuardCertificates {
    /// Guard control's, valid for 127.0.0.1.
    pub control: Proof,
    /// That of all guards.
    pub guard: Proof,
}

impl GuardCertificates {
    /// Makes new key material in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        Ok(Self {
            control: proof(dir, "control", server)?,
            guard: proof(dir, "guard", client)?,
        })
    }
}

/// A certificate by an authority of its own.
fn proof(dir: &Path, name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<Proof> {
    let ca = CertifiedIssuer::self_signed(ca_params(), KeyPair::generate()?)
        .with_context(|| format!("make the CA certificate of {name}"))?;
    let key = KeyPair::generate()?;
    let certificate = leaf_params(purpose)?
        .signed_by(&key, &ca)
        .with_context(|| format!("make the certificate of {name}"))?;
    Ok(Proof {
        certificate: write(dir, &format!("{name}.crt"), &certificate.pem())?,
        key: write(dir, &format!("{name}.key"), &key.serialize_pem())?,
        ca: write(dir, &format!("{name}-ca.crt"), &ca.pem())?,
    })
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("jiuzhou sandbox CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(purpose: ExtendedKeyUsagePurpose) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()])?;
    params.distinguished_name = named("jiuzhou sandbox");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
