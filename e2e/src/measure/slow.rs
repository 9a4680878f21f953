//! A very bad line: a proxy that lets connections open at once and delays every answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use super::stage::Stage;
use crate::{
    province::{install, objects},
    sandbox::{Member, Mode},
};

/// A bench is over long before.
const TOKEN_SECONDS: i64 = 24 * 3600;
const SYSTEM: &str = "jiuzhou-system";

/// Pieces of an answer that wait for their time.
const QUEUE: usize = 1024;

/// The proxy. Dropping it ends its connections.
pub struct SlowLine {
    port: u16,
    _task: JoinSet<()>,
}

impl SlowLine {
    /// Makes a spare cluster a member that the hub pushes to over such a line.
    pub async fn join(stage: &Stage, name: &str, delay: Duration) -> Result<Self> {
        let cluster = stage.fleet.cluster(name)?;
        install::chart(&cluster.client().await?, "region").await?;
        let port = cluster
            .url()
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port: u16 = port.context("an API server's address with a port")?;
        let line = Self::before(port, delay).await?;
        let kubeconfig = cluster
            .service_account_kubeconfig(SYSTEM, "jiuzhou-push", TOKEN_SECONDS)
            .await?;
        let kubeconfig = kubeconfig.replace(&format!(":{port}"), &format!(":{}", line.port));
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"kubeconfig": kubeconfig},
        });
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(stage.hub(), SYSTEM);
        secrets
            .patch(
                name,
                &PatchParams::apply("bench").force(),
                &Patch::Apply(&secret),
            )
            .await?;
        let member = Member {
            name: name.to_owned(),
            region: "quzhou".to_owned(),
            mode: Mode::Push,
        };
        objects::member_cluster(&stage.hub(), &member).await?;
        Ok(line)
    }

    /// Listens on loopback in front of `port` there. What the server says is passed on after
    /// `delay`, but for its part of the TLS handshake: an answer takes that long, a connection not.
    pub async fn before(port: u16, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen")?;
        let own = listener.local_addr()?.port();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(connection(near, port, delay));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            port: own,
            _task: task,
        })
    }
}

async fn connection(near: TcpStream, port: u16, delay: Duration) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let said = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::select! {
        () = forward(near_read, far_write, Arc::clone(&said)) => {}
        () = take(far_read, sender, said, delay) => {}
        () = pass_on(near_write, receiver) => {}
    }
}

/// From the client to the server, at once.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, said: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        said.fetch_add(1, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// From the server, with the time at which the client may see it.
async fn take(
    mut from: OwnedReadHalf,
    to: mpsc::Sender<(Instant, Vec<u8>)>,
    said: Arc<AtomicUsize>,
    delay: Duration,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // The client speaks a second time when the server's side of the handshake is complete.
        let wait = if said.load(Ordering::Relaxed) < 2 {
            Duration::ZERO
        } else {
            delay
        };
        if to
            .send((Instant::now() + wait, buffer[..length].to_vec()))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn pass_on(mut to: OwnedWriteHalf, mut from: mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Some((due, bytes)) = from.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
