//! Kubeconfigs as text, and clients made from them.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A server on loopback answers a connection at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One cluster, one user with a token, one context; all inline, so that the text can travel.
pub(super) fn kubeconfig(
    cluster: &str,
    server: &str,
    ca_pem: &str,
    user: &str,
    token: &str,
) -> String {
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         current-context: {cluster}\n\
         clusters:\n\
         - name: {cluster}\n  \
           cluster:\n    \
             server: {server}\n    \
             certificate-authority-data: {ca}\n\
         users:\n\
         - name: \"{user}\"\n  \
           user:\n    \
             token: {token}\n\
         contexts:\n\
         - name: {cluster}\n  \
           context:\n    \
             cluster: {cluster}\n    \
             user: \"{user}\"\n"
    )
}

/// A client from a kubeconfig's text, bound to the current runtime. It does not retry: tests and
/// tools want to see what the server said.
pub async fn client_from(kubeconfig: &str) -> Result<Client> {
    Ok(Client::try_from(config_from(kubeconfig).await?)?)
}

pub(super) async fn config_from(kubeconfig: &str) -> Result<Config> {
    // Fails when a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parsed = Kubeconfig::from_yaml(kubeconfig).context("parse a kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Ok(config)
}
