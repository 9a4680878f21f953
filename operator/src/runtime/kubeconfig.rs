//! Where a connection's settings come from: the operator's own, which it trusts, and those of push
//! members, which others upload and which therefore may only be plain data.
//!
//! A kubeconfig can start programs, read files and reroute requests. [`Member::parse`] accepts the
//! one shape that can do none of this: a server, its CA, and a token or a client certificate, all
//! inline. Everything else is refused by name, with the way to fix it.

use std::{fmt, path::PathBuf};

use http::Uri;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::{Map, Value};

mod fields;
#[cfg(test)]
mod tests;

use fields::{Entry, entry, known, text};

/// A kubeconfig larger than this is not a kubeconfig. CA bundles of large sites take some 100 KiB.
const MAX_BYTES: usize = 256 * 1024;

/// How to turn what an administrator has into what is accepted.
const FLATTEN: &str =
    "keep one context with inline data: `kubectl config view --raw --minify --flatten`";

/// Why a member's kubeconfig is refused. Never carries a value from the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeconfigError {
    /// Too large to be one.
    #[error("the kubeconfig has {bytes} bytes, more than {MAX_BYTES}; {FLATTEN}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not YAML, or not a mapping. The parser's message may quote the file, so only the place is
    /// kept.
    #[error("the kubeconfig is not a YAML mapping (line {line}); {FLATTEN}")]
    NotYaml {
        /// Line of the first fault, 0 where unknown.
        line: u64,
    },
    /// A field that would make us run, read or trust something.
    #[error("field `{field}` is refused; {fix}")]
    Refused {
        /// Its path.
        field: &'static str,
        /// What to do instead.
        fix: &'static str,
    },
    /// A field outside the accepted subset.
    #[error("field {name:?} in `{within}` is not known and therefore refused; remove it")]
    Unknown {
        /// The object it is in.
        within: &'static str,
        /// Its name, cut to a readable length.
        name: String,
    },
    /// A field that must be there and is not.
    #[error("field `{field}` is missing; {fix}")]
    Missing {
        /// Its path.
        field: &'static str,
        /// What to add.
        fix: &'static str,
    },
    /// A field whose value cannot be used.
    #[error("field `{field}` is not usable; {fix}")]
    Invalid {
        /// Its path.
        field: &'static str,
        /// What it must be.
        fix: &'static str,
    },
    /// More or fewer than one cluster, user or context.
    #[error("`{field}` has {count} entries instead of one; {FLATTEN}")]
    NotOne {
        /// The list.
        field: &'static str,
        /// Its length.
        count: usize,
    },
}

/// Why the operator's own connection could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file of `--kubeconfig`.
    #[error("cannot use the kubeconfig {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What kube says.
        source: Box<kube::config::KubeconfigError>,
    },
    /// `KUBECONFIG` or the home directory.
    #[error("cannot use the kubeconfig of the environment")]
    Env(#[source] Box<kube::config::KubeconfigError>),
    /// The service account of the pod.
    #[error("cannot use the service account of this pod")]
    InCluster(#[source] kube::config::InClusterError),
}

/// Where the operator's own connection comes from. Its own file is trusted: whoever writes it
/// already decides what the operator runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--kubeconfig`.
    File(PathBuf),
    /// The pod's service account.
    InCluster,
    /// `KUBECONFIG` or `~/.kube/config`, for commands that people run.
    Env,
}

impl Source {
    /// The source for a process: the file if one is named, else the pod it runs in, else what
    /// kubectl would use. Decided by what is there, never by trying one after the other: a broken
    /// source must not silently become another cluster.
    pub fn choose(kubeconfig: Option<PathBuf>) -> Self {
        match kubeconfig {
            Some(path) => Self::File(path),
            None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Self::InCluster,
            None => Self::Env,
        }
    }

    /// Loads it.
    pub async fn config(&self) -> Result<kube::Config, SourceError> {
        let options = KubeConfigOptions::default();
        match self {
            Self::InCluster => kube::Config::incluster().map_err(SourceError::InCluster),
            Self::Env => kube::Config::from_kubeconfig(&options)
                .await
                .map_err(|error| SourceError::Env(Box::new(error))),
            Self::File(path) => {
                let failed = |error| SourceError::File {
                    path: path.clone(),
                    source: Box::new(error),
                };
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                kube::Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(failed)
            }
        }
    }
}

/// Text that must reach neither a log nor an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub const fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// How we prove who we are to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A bearer token.
    Token(Secret),
    /// A client certificate and its key, both PEM in base64 as kubeconfigs carry them.
    Certificate {
        /// The certificate chain.
        certificate: String,
        /// The private key.
        key: Secret,
    },
}

/// A push member's connection, reduced to what is safe to use.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    server: Uri,
    ca: Vec<Vec<u8>>,
    tls_server_name: Option<String>,
    credentials: Credentials,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            ca: _,
            tls_server_name,
            credentials,
        } = self;
        f.debug_struct("Member")
            .field("server", server)
            .field("tls_server_name", tls_server_name)
            .field("credentials", credentials)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Accepts a kubeconfig or says which field is in the way.
    ///
    /// The file holds exactly one cluster, user and context: with more, which one counts would be
    /// decided by details of a parser, and what nobody uses has no business in our Secret.
    pub fn parse(yaml: &str) -> Result<Self, KubeconfigError> {
        if yaml.len() > MAX_BYTES {
            return Err(KubeconfigError::TooLarge { bytes: yaml.len() });
        }
        let file: Map<String, Value> = serde_saphyr::from_str(yaml).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            KubeconfigError::NotYaml { line }
        })?;
        known(&file, "kubeconfig", &fields::TOP)?;
        let cluster = entry(&file, &fields::CLUSTER_ENTRY)?;
        let user = entry(&file, &fields::USER_ENTRY)?;
        let context = entry(&file, &fields::CONTEXT_ENTRY)?;
        connected(&file, &cluster, &user, &context)?;
        Ok(Self {
            server: fields::server(cluster.body)?,
            ca: fields::ca(cluster.body)?,
            tls_server_name: fields::tls_server_name(cluster.body)?,
            credentials: fields::credentials(user.body)?,
        })
    }

    /// Where the member's API server is.
    pub const fn server(&self) -> &Uri {
        &self.server
    }

    /// The connection for a client. Built from nothing but the accepted fields: no environment, no
    /// file, no proxy.
    pub fn config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.server.clone());
        config.root_cert = Some(self.ca.clone());
        config.tls_server_name.clone_from(&self.tls_server_name);
        config.auth_info = match &self.credentials {
            Credentials::Token(token) => AuthInfo {
                token: Some(token.expose().to_owned().into()),
                ..AuthInfo::default()
            },
            Credentials::Certificate { certificate, key } => AuthInfo {
                client_certificate_data: Some(certificate.clone()),
                client_key_data: Some(key.expose().to_owned().into()),
                ..AuthInfo::default()
            },
        };
        config
    }
}

/// The current context names the one context, and that names the one cluster and user.
fn connected(
    file: &Map<String, Value>,
    cluster: &Entry<'_>,
    user: &Entry<'_>,
    context: &Entry<'_>,
) -> Result<(), KubeconfigError> {
    let pairs = [
        (
            text(file, "current-context", "current-context", FLATTEN)?,
            context.name,
        ),
        (
            text(
                context.body,
                "cluster",
                "contexts[0].context.cluster",
                FLATTEN,
            )?,
            cluster.name,
        ),
        (
            text(context.body, "user", "contexts[0].context.user", FLATTEN)?,
            user.name,
        ),
    ];
    let fields = [
        "current-context",
        "contexts[0].context.cluster",
        "contexts[0].context.user",
    ];
    for ((named, present), field) in pairs.into_iter().zip(fields) {
        if named != present {
            let fix = "it must name the one entry of its list";
            return Err(KubeconfigError::Invalid { field, fix });
        }
    }
    Ok(())
}
