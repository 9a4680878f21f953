//! The accepted subset, field by field.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde_json::{Map, Value};

use super::{Credentials, KubeconfigError, Secret};

const INLINE: &str = "put the data itself inline: `kubectl config view --raw --minify --flatten`";
const NO_PROGRAM: &str = "the hub runs no login program; create a service account in the member \
                          and put its token in `token`";
const NO_PASSWORD: &str = "use a service account's token in `token`";
const AS_ITSELF: &str = "the hub acts under its own name; bind the rights to that name";

/// What may stand in one mapping, what is ignored as harmless, and what is refused by name.
pub(super) struct Subset {
    used: &'static [&'static str],
    refused: &'static [(&'static str, &'static str, &'static str)],
}

pub(super) const TOP: Subset = Subset {
    used: &[
        "apiVersion",
        "kind",
        "current-context",
        "clusters",
        "users",
        "contexts",
        // Colours of kubectl and notes of other tools: data that nothing here reads.
        "preferences",
        "extensions",
    ],
    refused: &[],
};

const CLUSTER: Subset = Subset {
    used: &[
        "server",
        "certificate-authority-data",
        "tls-server-name",
        "extensions",
    ],
    refused: &[
        (
            "certificate-authority",
            "clusters[0].cluster.certificate-authority",
            INLINE,
        ),
        (
            "proxy-url",
            "clusters[0].cluster.proxy-url",
            "the hub connects directly; give a server it can reach, or join the member by pull",
        ),
        (
            "insecure-skip-tls-verify",
            "clusters[0].cluster.insecure-skip-tls-verify",
            "give the server's CA in `certificate-authority-data`",
        ),
    ],
};

const USER: Subset = Subset {
    used: &[
        "token",
        "client-certificate-data",
        "client-key-data",
        "extensions",
    ],
    refused: &[
        ("exec", "users[0].user.exec", NO_PROGRAM),
        ("auth-provider", "users[0].user.auth-provider", NO_PROGRAM),
        ("tokenFile", "users[0].user.tokenFile", INLINE),
        (
            "client-certificate",
            "users[0].user.client-certificate",
            INLINE,
        ),
        ("client-key", "users[0].user.client-key", INLINE),
        ("username", "users[0].user.username", NO_PASSWORD),
        ("password", "users[0].user.password", NO_PASSWORD),
        ("as", "users[0].user.as", AS_ITSELF),
        ("as-uid", "users[0].user.as-uid", AS_ITSELF),
        ("as-groups", "users[0].user.as-groups", AS_ITSELF),
        ("as-user-extra", "users[0].user.as-user-extra", AS_ITSELF),
    ],
};

const CONTEXT: Subset = Subset {
    used: &["cluster", "user", "namespace", "extensions"],
    refused: &[],
};

/// One of the three lists: its key, the key of an entry's body, and how to name both.
pub(super) struct Named {
    list: &'static str,
    item: &'static str,
    name: &'static str,
    key: &'static str,
    body: &'static str,
    subset: Subset,
}

pub(super) const CLUSTER_ENTRY: Named = Named {
    list: "clusters",
    item: "clusters[0]",
    name: "clusters[0].name",
    key: "cluster",
    body: "clusters[0].cluster",
    subset: CLUSTER,
};
pub(super) const USER_ENTRY: Named = Named {
    list: "users",
    item: "users[0]",
    name: "users[0].name",
    key: "user",
    body: "users[0].user",
    subset: USER,
};
pub(super) const CONTEXT_ENTRY: Named = Named {
    list: "contexts",
    item: "contexts[0]",
    name: "contexts[0].name",
    key: "context",
    body: "contexts[0].context",
    subset: CONTEXT,
};

/// The one entry of a list.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) body: &'a Map<String, Value>,
}

/// Finds the one entry of a list and checks its fields.
pub(super) fn entry<'a>(
    file: &'a Map<String, Value>,
    named: &Named,
) -> Result<Entry<'a>, KubeconfigError> {
    let not_one = |count| KubeconfigError::NotOne {
        field: named.list,
        count,
    };
    let list = match file.get(named.list) {
        Some(Value::Array(list)) => list,
        None | Some(Value::Null) => return Err(not_one(0)),
        Some(_) => return Err(invalid(named.list, "it must be a list")),
    };
    let [only] = list.as_slice() else {
        return Err(not_one(list.len()));
    };
    let only = only
        .as_object()
        .ok_or(invalid(named.item, "it must be a mapping"))?;
    for name in only.keys() {
        if name != "name" && name != named.key {
            return Err(unknown(named.item, name));
        }
    }
    let name = text(only, "name", named.name, "give it a name")?;
    let body = only
        .get(named.key)
        .and_then(Value::as_object)
        .ok_or(invalid(named.body, "it must be a mapping"))?;
    known(body, named.body, &named.subset)?;
    Ok(Entry { name, body })
}

/// Every field of `object` belongs to `subset`.
pub(super) fn known(
    object: &Map<String, Value>,
    within: &'static str,
    subset: &Subset,
) -> Result<(), KubeconfigError> {
    // What runs or reads something is reported before what is merely unknown.
    for (name, field, fix) in subset.refused {
        // `false` says what we do anyway, and many tools write it out.
        let harmless =
            *name == "insecure-skip-tls-verify" && object.get(*name) == Some(&Value::Bool(false));
        if object.contains_key(*name) && !harmless {
            return Err(KubeconfigError::Refused { field, fix });
        }
    }
    let known = |name: &str| {
        subset.used.contains(&name) || subset.refused.iter().any(|(refused, ..)| *refused == name)
    };
    match object.keys().find(|name| !known(name)) {
        Some(name) => Err(unknown(within, name)),
        None => Ok(()),
    }
}

/// A string that must be there and not empty.
pub(super) fn text<'a>(
    object: &'a Map<String, Value>,
    name: &str,
    field: &'static str,
    fix: &'static str,
) -> Result<&'a str, KubeconfigError> {
    match object.get(name) {
        None | Some(Value::Null) => Err(KubeconfigError::Missing { field, fix }),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim()),
        Some(_) => Err(invalid(field, "it must be text")),
    }
}

pub(super) fn server(cluster: &Map<String, Value>) -> Result<Uri, KubeconfigError> {
    const FIELD: &str = "clusters[0].cluster.server";
    const FIX: &str = "it must be https://host[:port][/path]";
    let uri: Uri = text(cluster, "server", FIELD, FIX)?
        .parse()
        .map_err(|_| invalid(FIELD, FIX))?;
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS) || !plain || !host || uri.query().is_some() {
        return Err(invalid(FIELD, FIX));
    }
    Ok(uri)
}

/// The CA as DER. It is required: falling back to the system's roots would let any public CA
/// vouch for a member.
pub(super) fn ca(cluster: &Map<String, Value>) -> Result<Vec<Vec<u8>>, KubeconfigError> {
    const FIELD: &str = "clusters[0].cluster.certificate-authority-data";
    let pem = decode(cluster, "certificate-authority-data", FIELD)?.1;
    certificates(&pem, FIELD)
}

pub(super) fn tls_server_name(
    cluster: &Map<String, Value>,
) -> Result<Option<String>, KubeconfigError> {
    const FIELD: &str = "clusters[0].cluster.tls-server-name";
    const FIX: &str = "it must be the DNS name or address in the server's certificate";
    if !cluster.contains_key("tls-server-name") {
        return Ok(None);
    }
    let name = text(cluster, "tls-server-name", FIELD, FIX)?;
    ServerName::try_from(name).map_err(|_| invalid(FIELD, FIX))?;
    Ok(Some(name.to_owned()))
}

pub(super) fn credentials(user: &Map<String, Value>) -> Result<Credentials, KubeconfigError> {
    const TOKEN: &str = "users[0].user.token";
    const CERTIFICATE: &str = "users[0].user.client-certificate-data";
    const KEY: &str = "users[0].user.client-key-data";
    let certificate =
        user.contains_key("client-certificate-data") || user.contains_key("client-key-data");
    match (user.contains_key("token"), certificate) {
        (true, true) => Err(invalid(
            TOKEN,
            "keep either the token or the client certificate",
        )),
        (false, false) => {
            let fix = "give a service account's token, or a client certificate and its key";
            Err(KubeconfigError::Missing { field: TOKEN, fix })
        }
        (true, false) => {
            let token = text(user, "token", TOKEN, NO_PASSWORD)?;
            HeaderValue::from_str(token)
                .map_err(|_| invalid(TOKEN, "it must be a token as the member issued it"))?;
            Ok(Credentials::Token(Secret::new(token.to_owned())))
        }
        (false, true) => {
            let (certificate, pem) = decode(user, "client-certificate-data", CERTIFICATE)?;
            certificates(&pem, CERTIFICATE)?;
            let (key, pem) = decode(user, "client-key-data", KEY)?;
            PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| invalid(KEY, "it must be a private key as PEM in base64"))?;
            Ok(Credentials::Certificate {
                certificate,
                key: Secret::new(key),
            })
        }
    }
}

/// Base64 without the line breaks that YAML editors add, and what it holds.
fn decode(
    object: &Map<String, Value>,
    name: &str,
    field: &'static str,
) -> Result<(String, Vec<u8>), KubeconfigError> {
    let text: String = text(object, name, field, INLINE)?
        .split_ascii_whitespace()
        .collect();
    let bytes = STANDARD
        .decode(&text)
        .map_err(|_| invalid(field, "it must be base64"))?;
    Ok((text, bytes))
}

fn certificates(pem: &[u8], field: &'static str) -> Result<Vec<Vec<u8>>, KubeconfigError> {
    const FIX: &str = "it must be certificates as PEM in base64";
    let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(pem)
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| invalid(field, FIX))?;
    if certificates.is_empty() {
        Err(invalid(field, FIX))
    } else {
        Ok(certificates)
    }
}

const fn invalid(field: &'static str, fix: &'static str) -> KubeconfigError {
    KubeconfigError::Invalid { field, fix }
}

fn unknown(within: &'static str, name: &str) -> KubeconfigError {
    KubeconfigError::Unknown {
        within,
        name: name.chars().take(64).collect(),
    }
}
