//! Namespaces of their own for tests that share a fleet.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace as Object, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};

/// The service account of a new namespace appears within a second, later on a busy machine.
const ACCOUNT_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A namespace that nobody else uses. It is not deleted when it goes out of scope: a namespace
/// takes five seconds to disappear, and the whole fleet ends with the tests.
#[derive(Clone)]
pub struct Namespace {
    client: Client,
    name: String,
}

impl Namespace {
    /// A new namespace whose name begins with `prefix`, ready to take pods.
    pub async fn create(client: Client, prefix: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{number}-{:x}", std::process::id());
        let namespace = Self { client, name };
        let mut object = Object::default();
        object.metadata.name = Some(namespace.name.clone());
        let api: Api<Object> = Api::all(namespace.client.clone());
        let created = api.create(&PostParams::default(), &object).await;
        let created = created.with_context(|| format!("create namespace {}", namespace.name))?;
        namespace.wait_for_account().await?;
        tracing::debug!(namespace = created.name_any(), "created");
        Ok(namespace)
    }

    /// Pods are refused until the namespace's default service account exists.
    async fn wait_for_account(&self) -> Result<()> {
        let api: Api<ServiceAccount> = self.api();
        let deadline = tokio::time::Instant::now() + ACCOUNT_DEADLINE;
        while tokio::time::Instant::now() < deadline {
            if api.get_opt("default").await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("namespace {} got no default service account", self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client it was made with.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Objects of one kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Begins its deletion.
    pub async fn delete(&self) -> Result<()> {
        let api: Api<Object> = Api::all(self.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}
