//! Public keys of an issuer, and what they can verify.
//!
//! A key decides by which algorithms it is used. What a token names only chooses among them, so that no token
//! can have a public key taken for a shared secret, or ask for no signature at all.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::digest::{self, SHA256};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Keys of one issuer. One is used, one comes next and one was used before, of each of a few kinds.
const KEYS_MAX: usize = 32;

/// Keys that one token is tried with: the one in use and its successor, for issuers that do not name the key
/// in their tokens. More would let a bad token cost as much as the issuer has keys.
const KEYS_TRIED: usize = 2;

/// Bits of an RSA key. Shorter ones are broken within reach; longer ones cost more to try than a request.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Bytes of a public exponent; nearly all have three.
const EXPONENT_BYTES_MAX: usize = 4;

/// Which key it is: a digest of all that is said of it.
pub(super) type KeyId = [u8; 16];

/// How a token may be signed. Each has one key who signs and others who verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::guard) enum KeysError {
    /// Not JSON, or not of the form. What is there is not shown: it may be a secret by mistake.
    #[error(
        "is no JSON Web Key Set (line {line}, column {column}); write the text that the issuer publishes, an \
         object with the list keys"
    )]
    Malformed {
        /// From 1 on.
        line: usize,
        /// From 1 on.
        column: usize,
    },
    /// More than a guard tries.
    #[error("has {0} keys; at most {KEYS_MAX} are allowed, so leave out those that sign no more")]
    TooMany(usize),
    /// Half of a pair that nobody else may know.
    #[error(
        "key {0} is a private key, which everybody can read here; let the issuer make a new pair, and write \
         its public half alone"
    )]
    Private(usize),
    /// All of them are of other kinds.
    #[error(
        "has no key that can verify ({0}); it needs one of kty RSA with 2048 to 4096 bits, EC with crv P-256 \
         or P-384, or OKP with crv Ed25519"
    )]
    NoneUsable(String),
}

/// The keys of an issuer that can verify.
#[derive(Clone, Debug)]
pub(in crate::guard) struct KeySet(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: KeyId,
    name: Option<String>,
    algorithms: Vec<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A key as RFC 7517 and 7518 write it. What is not known to them is left alone.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that cannot be used are passed over, as the standard has it, as long as
    /// there is another.
    pub(in crate::guard) fn read(text: &str) -> Result<Self, KeysError> {
        let set: Set = serde_json::from_str(text).map_err(|error| KeysError::Malformed {
            line: error.line(),
            column: error.column(),
        })?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeysError::TooMany(set.keys.len()));
        }
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for (at, value) in set.keys.into_iter().enumerate() {
            let number = at + 1;
            let Ok(written) = serde_json::from_value::<Written>(value) else {
                others.push(format!("key {number} is malformed"));
                continue;
            };
            if written.d.is_some() {
                return Err(KeysError::Private(number));
            }
            match Key::read(written) {
                Ok(key) => keys.push(key),
                Err(why) => others.push(format!("key {number}: {why}")),
            }
        }
        if keys.is_empty() {
            let why = if others.is_empty() {
                "the list is empty".to_owned()
            } else {
                others.join(", ")
            };
            return Err(KeysError::NoneUsable(why));
        }
        Ok(Self(keys))
    }

    /// Whether any key could have signed so.
    pub(super) fn fits(&self, algorithm: Algorithm, name: Option<&str>) -> bool {
        self.fitting(algorithm, name).next().is_some()
    }

    /// The key that signed a message; none if none did.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        name: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Option<KeyId> {
        let mut tried = self.fitting(algorithm, name).take(KEYS_TRIED);
        let key = tried.find(|key| key.material.verifies(algorithm, message, signature))?;
        Some(key.id)
    }

    /// Whether a key is among them.
    pub(super) fn has(&self, id: &KeyId) -> bool {
        self.0.iter().any(|key| key.id == *id)
    }

    /// A token that names a key means that one, which comes first, or one without a name; a token that names none
    /// means any.
    fn fitting<'a>(
        &'a self,
        algorithm: Algorithm,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        let (named, others) = (self.0.iter(), self.0.iter());
        let named = named.filter(move |key| name.is_some() && key.name.as_deref() == name);
        let others = others.filter(move |key| name.is_none() || key.name.is_none());
        let all = named.chain(others);
        all.filter(move |key| key.algorithms.contains(&algorithm))
    }
}

impl Key {
    fn read(written: Written) -> Result<Self, String> {
        let is_for_signatures = written.usage.as_deref().is_none_or(|usage| usage == "sig");
        let operations = written.key_ops.as_ref();
        if !is_for_signatures || operations.is_some_and(|all| !all.iter().any(|op| op == "verify"))
        {
            return Err("it is not for signatures".to_owned());
        }
        let (material, kinds) = Material::read(&written)?;
        let algorithms = match written.alg.as_deref() {
            None => kinds.to_vec(),
            Some(name) => {
                let known = Algorithm::named(name).filter(|known| kinds.contains(known));
                vec![known.ok_or_else(|| format!("alg {name:?} is none of such a key"))?]
            }
        };
        let id = id(&material, &algorithms);
        Ok(Self {
            id,
            name: written.kid,
            algorithms,
            material,
        })
    }
}

impl Material {
    fn read(written: &Written) -> Result<(Self, &'static [Algorithm]), String> {
        let curve = written.crv.as_deref().unwrap_or_default();
        match (written.kty.as_str(), curve) {
            ("RSA", _) => Ok((Self::rsa(written)?, &Algorithm::OF_RSA)),
            ("EC", "P-256") => Ok((Self::point(written, 32)?, &[Algorithm::Es256])),
            ("EC", "P-384") => Ok((Self::point(written, 48)?, &[Algorithm::Es384])),
            ("OKP", "Ed25519") => {
                let x = coordinate("x", written.x.as_deref(), 32)?;
                Ok((Self::Point(x), &[Algorithm::EdDsa]))
            }
            ("oct", _) => Err("it is a shared secret, with which anybody could sign".to_owned()),
            (kind, "") => Err(format!("kty {kind:?} is not supported")),
            (kind, curve) => Err(format!("kty {kind:?} with crv {curve:?} is not supported")),
        }
    }

    fn rsa(written: &Written) -> Result<Self, String> {
        let n = number("n", written.n.as_deref())?;
        let e = number("e", written.e.as_deref())?;
        let zeros = n.first().map_or(0, |first| first.leading_zeros());
        let bits = (n.len() * 8).saturating_sub(usize::try_from(zeros).unwrap_or(0));
        if !RSA_BITS.contains(&bits) {
            return Err(format!("n has {bits} bits"));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !is_odd(&n) || !is_odd(&e) || e == [1] || e.len() > EXPONENT_BYTES_MAX {
            return Err("n and e are no RSA key".to_owned());
        }
        Ok(Self::Rsa { n, e })
    }

    fn point(written: &Written, bytes: usize) -> Result<Self, String> {
        // As SEC 1 writes a point that is not compressed.
        let mut point = vec![4];
        point.extend(coordinate("x", written.x.as_deref(), bytes)?);
        point.extend(coordinate("y", written.y.as_deref(), bytes)?);
        Ok(Self::Point(point))
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm.verifier()) {
            (Self::Rsa { n, e }, Verifier::Rsa(parameters)) => RsaPublicKeyComponents { n, e }
                .verify(parameters, message, signature)
                .is_ok(),
            (Self::Point(point), Verifier::Curve(curve)) => UnparsedPublicKey::new(curve, point)
                .verify(message, signature)
                .is_ok(),
            (Self::Rsa { .. }, Verifier::Curve(_)) | (Self::Point(_), Verifier::Rsa(_)) => false,
        }
    }
}

enum Verifier {
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

impl Algorithm {
    const OF_RSA: [Self; 6] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// As `alg` names it. `none` and those of shared secrets have no name here.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn verifier(self) -> Verifier {
        match self {
            Self::Rs256 => Verifier::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Verifier::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Verifier::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Verifier::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Verifier::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Verifier::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Verifier::Curve(&ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Verifier::Curve(&ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Verifier::Curve(&ED25519),
        }
    }
}

fn id(material: &Material, algorithms: &[Algorithm]) -> KeyId {
    let mut all = digest::Context::new(&SHA256);
    let (kind, parts): (u8, [&[u8]; 2]) = match material {
        Material::Rsa { n, e } => (0, [n, e]),
        Material::Point(point) => (1, [point, &[]]),
    };
    all.update(&[kind]);
    for part in parts {
        all.update(&part.len().to_le_bytes());
        all.update(part);
    }
    for algorithm in algorithms {
        all.update(&[*algorithm as u8]);
    }
    let mut id = KeyId::default();
    id.copy_from_slice(&all.finish().as_ref()[..16]);
    id
}

/// A number of any length, without leading zeros.
fn number(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let bytes = bytes(name, text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

fn coordinate(name: &str, text: Option<&str>, wanted: usize) -> Result<Vec<u8>, String> {
    let bytes = bytes(name, text)?;
    if bytes.len() == wanted {
        Ok(bytes)
    } else {
        Err(format!("{name} has {} bytes and not {wanted}", bytes.len()))
    }
}

fn bytes(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("{name} is missing"))?;
    BASE64
        .decode(text)
        .map_err(|_| format!("{name} is not base64url without padding"))
}
