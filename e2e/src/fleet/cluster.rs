//! One cluster: its API server, its controllers, its scheduler and its fake nodes.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Node, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::AuthInfo,
};

use super::{
    ADMIN, ClusterSpec, Identity,
    components::Components,
    etcd::{Etcd, PORT_ATTEMPTS, PORT_TAKEN},
    kubeconfig::{client_from, config_from, kubeconfig},
    ready,
};
use crate::{
    assets::Binaries,
    certs::Certificates,
    process::{
        Process, Supervisor,
        reserve::{PodNetwork, Port},
    },
};

const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const KUBELET: &str = "sandbox:kubelet";
const MASTERS: &str = "system:masters";

/// What all clusters of a fleet have in common.
pub(super) struct Context<'a> {
    pub(super) folder: &'a Path,
    pub(super) data: &'a Path,
    pub(super) binaries: &'a Binaries,
    pub(super) certificates: &'a Certificates,
    pub(super) supervisor: &'a Supervisor,
    pub(super) identities: &'a [Identity],
    pub(super) sandbox: &'a Path,
    pub(super) etcd_url: String,
    pub(super) progress: fn(&str),
}

/// Files that one cluster's programs read.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) tokens: PathBuf,
    pub(super) controller_manager: PathBuf,
    pub(super) scheduler: PathBuf,
    pub(super) kubelet: PathBuf,
    admin: PathBuf,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    access: Access,
    admin_file: PathBuf,
    // Dependants first: fields end in this order.
    kubelet: Option<Process>,
    scheduler: Process,
    controllers: Process,
    apiserver: Process,
    etcd: Option<Etcd>,
    pod_network: PodNetwork,
    ports: Ports,
}

#[derive(Debug)]
struct Ports {
    apiserver: Port,
    controllers: Port,
    scheduler: Port,
}

/// How to reach the API server, and as whom.
#[derive(Debug)]
struct Access {
    cluster: String,
    url: String,
    ca_pem: String,
    tokens: BTreeMap<String, String>,
}

impl Cluster {
    pub(super) async fn start(spec: &ClusterSpec, context: &Context<'_>) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let started = Self::start_once(spec, context).await;
            match started {
                Ok(cluster) => return Ok(cluster),
                Err(error)
                    if attempt < PORT_ATTEMPTS && format!("{error:#}").contains(PORT_TAKEN) =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error.context(format!("start {}", spec.name))),
            }
        }
    }

    async fn start_once(spec: &ClusterSpec, context: &Context<'_>) -> Result<Self> {
        let ports = Ports {
            apiserver: Port::reserve()?,
            controllers: Port::reserve()?,
            scheduler: Port::reserve()?,
        };
        let pod_network = PodNetwork::reserve(spec.nodes * (spec.pods_per_node + 1))?;
        let access = Access::new(spec, context, &ports.apiserver);
        let files = access.write_files(context)?;
        let etcd = if spec.own_etcd {
            Some(own_etcd(spec, context).await?)
        } else {
            None
        };
        let etcd_url = etcd
            .as_ref()
            .map_or_else(|| context.etcd_url.clone(), Etcd::url);

        let components = Components {
            spec,
            context,
            files: &files,
        };
        let spawn = |program| context.supervisor.spawn(program);
        let apiserver = spawn(components.apiserver(&etcd_url, &ports.apiserver))?;
        ready::answers(&apiserver, access.config(ADMIN).await?, "/readyz").await?;
        (context.progress)(&format!(
            "{}: the API server is ready at {}",
            spec.name, access.url
        ));

        let kubelet = (spec.nodes > 0).then(|| components.kubelet(&pod_network.cidr()));
        let cluster = Self {
            name: spec.name.clone(),
            kubelet: kubelet.map(spawn).transpose()?,
            scheduler: spawn(components.scheduler(&ports.scheduler))?,
            controllers: spawn(components.controller_manager(&ports.controllers))?,
            apiserver,
            access,
            admin_file: files.admin,
            etcd,
            pod_network,
            ports,
        };
        cluster.wait_until_complete(spec).await?;
        (context.progress)(&format!("{}: {} nodes are ready", spec.name, spec.nodes));
        Ok(cluster)
    }

    async fn wait_until_complete(&self, spec: &ClusterSpec) -> Result<()> {
        let config = async |port: &Port| -> Result<Config> {
            let mut config = self.access.config(ADMIN).await?;
            config.cluster_url = format!("https://127.0.0.1:{}", port.number()).parse()?;
            Ok(config)
        };
        let controllers = config(&self.ports.controllers).await?;
        ready::answers(&self.controllers, controllers, "/healthz").await?;
        ready::answers(
            &self.scheduler,
            config(&self.ports.scheduler).await?,
            "/healthz",
        )
        .await?;

        let client = self.client().await?;
        // Pods are refused until a namespace has this account.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        ready::until(&self.controllers, "the default service account", || async {
            Ok(accounts.get_opt("default").await?.is_some())
        })
        .await?;
        let Some(kubelet) = &self.kubelet else {
            return Ok(());
        };
        let nodes: Api<Node> = Api::all(client);
        ready::until(kubelet, "all nodes to be ready", || async {
            let list = nodes.list(&ListParams::default()).await?;
            Ok(list.iter().filter(|node| schedulable(node)).count() >= spec.nodes as usize)
        })
        .await
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The API server's address, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// Path of the administrator's kubeconfig.
    pub fn kubeconfig_file(&self) -> &Path {
        &self.admin_file
    }

    /// The network of its pods, in CIDR notation.
    pub fn pod_network(&self) -> String {
        self.pod_network.cidr()
    }

    /// A client with all rights, bound to the current runtime.
    pub async fn client(&self) -> Result<Client> {
        client_from(&self.kubeconfig(ADMIN)?).await
    }

    /// A client without credentials: what is sent carries its own.
    pub async fn nobody(&self) -> Result<Client> {
        let mut config = self.access.config(ADMIN).await?;
        config.auth_info = AuthInfo::default();
        Ok(Client::try_from(config)?)
    }

    /// The kubeconfig of [`ADMIN`] or of an identity that the fleet was started with.
    pub fn kubeconfig(&self, user: &str) -> Result<String> {
        self.access.kubeconfig(user)
    }

    /// The kubeconfig of an existing service account, with a token for `seconds`.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        seconds: i64,
    ) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(seconds),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("ask for a token of {namespace}/{name} in {}", self.name))?;
        let token = answer
            .status
            .context("the token request was answered without a token")?
            .token;
        Ok(self
            .access
            .kubeconfig_with(&format!("{namespace}:{name}"), &token))
    }

    /// The API server. It can be killed, paused, resumed and started again on the same port with
    /// the same data and tokens: an outage.
    pub fn apiserver(&self) -> &Process {
        &self.apiserver
    }

    /// Starts the API server again and waits until it answers.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.apiserver.kill()?;
        self.apiserver.start()?;
        ready::answers(&self.apiserver, self.access.config(ADMIN).await?, "/readyz").await
    }

    /// The controller manager.
    pub fn controllers(&self) -> &Process {
        &self.controllers
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &Process {
        &self.scheduler
    }

    /// What plays the nodes, if the cluster has any.
    pub fn kubelet(&self) -> Option<&Process> {
        self.kubelet.as_ref()
    }

    /// Its own etcd, if it was given one.
    pub fn etcd(&self) -> Option<&Process> {
        self.etcd.as_ref().map(Etcd::process)
    }

    /// All its processes, dependants first.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let always = [&self.scheduler, &self.controllers, &self.apiserver];
        self.kubelet.iter().chain(always).chain(self.etcd())
    }
}

impl Access {
    fn new(spec: &ClusterSpec, context: &Context<'_>, port: &Port) -> Self {
        let own = [ADMIN, CONTROLLER_MANAGER, SCHEDULER, KUBELET];
        let users = own
            .into_iter()
            .chain(context.identities.iter().map(|i| i.user.as_str()));
        Self {
            cluster: spec.name.clone(),
            url: format!("https://127.0.0.1:{}", port.number()),
            ca_pem: context.certificates.ca_pem.clone(),
            tokens: users
                .map(|user| (user.to_owned(), uuid::Uuid::new_v4().simple().to_string()))
                .collect(),
        }
    }

    fn kubeconfig(&self, user: &str) -> Result<String> {
        let token = self.tokens.get(user);
        let token = token.with_context(|| {
            format!(
                "{} has no token of {user}: list it in the fleet's identities",
                self.cluster
            )
        })?;
        Ok(self.kubeconfig_with(user, token))
    }

    fn kubeconfig_with(&self, user: &str, token: &str) -> String {
        kubeconfig(&self.cluster, &self.url, &self.ca_pem, user, token)
    }

    async fn config(&self, user: &str) -> Result<Config> {
        config_from(&self.kubeconfig(user)?).await
    }

    fn write_files(&self, context: &Context<'_>) -> Result<Files> {
        let dir = context.folder.join("clusters").join(&self.cluster);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let write = |path: PathBuf, text: String| -> Result<PathBuf> {
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(path)
        };
        let for_user = |name: &str, user: &str| write(dir.join(name), self.kubeconfig(user)?);
        Ok(Files {
            tokens: write(dir.join("tokens.csv"), self.token_file(context.identities))?,
            controller_manager: for_user("controllers.kubeconfig", CONTROLLER_MANAGER)?,
            scheduler: for_user("scheduler.kubeconfig", SCHEDULER)?,
            kubelet: for_user("kubelet.kubeconfig", KUBELET)?,
            admin: write(
                context.folder.join(format!("{}.kubeconfig", self.cluster)),
                self.kubeconfig(ADMIN)?,
            )?,
        })
    }

    /// One line per user: token, user, uid, groups.
    fn token_file(&self, identities: &[Identity]) -> String {
        let mut text = String::new();
        for (user, token) in &self.tokens {
            let groups = identities
                .iter()
                .find(|identity| &identity.user == user)
                .map_or_else(|| MASTERS.to_owned(), |identity| identity.groups.join(","));
            writeln!(text, "{token},{user},{user},\"{groups}\"").expect("a String takes all text");
        }
        text
    }
}

async fn own_etcd(spec: &ClusterSpec, context: &Context<'_>) -> Result<Etcd> {
    let name = format!("{}-etcd", spec.name);
    Etcd::start(
        context.supervisor,
        &context.binaries.etcd,
        context.data,
        &name,
    )
    .await
}

fn schedulable(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|list| {
        list.iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    });
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    ready && taints.is_none_or(Vec::is_empty)
}
