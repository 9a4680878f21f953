//! What etcd holds: its revision, and the bytes stored below a prefix.

use std::fs;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::process::Process;

/// An etcd, asked through its own HTTP gateway.
#[derive(Clone)]
pub struct Store {
    client: Client,
}

impl Store {
    /// The etcd that runs as `process`; where it listens stands in its command line.
    pub fn of(process: &Process) -> Result<Self> {
        let pid = process.pid().context("etcd does not run")?;
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .context("read etcd's command line")?;
        let url = command
            .split('\0')
            .find_map(|arg| arg.strip_prefix("--listen-client-urls="));
        let url = url.context("etcd was started without --listen-client-urls")?;
        let client = Client::try_from(Config::new(url.parse()?))?;
        Ok(Self { client })
    }

    /// The revision: one more with every write of every cluster.
    pub async fn revision(&self) -> Result<i64> {
        let answer = self.range("\0", "\0", true).await?;
        let revision = answer.pointer("/header/revision").and_then(Value::as_str);
        Ok(revision.context("etcd told no revision")?.parse()?)
    }

    /// Number and bytes of the values below a prefix, as they are stored.
    pub async fn stored(&self, prefix: &str) -> Result<(usize, usize)> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let end = String::from_utf8(end).context("a prefix in ASCII")?;
        let answer = self.range(prefix, &end, false).await?;
        let values = answer["kvs"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut bytes = 0;
        for value in values {
            bytes += STANDARD
                .decode(value["value"].as_str().unwrap_or(""))?
                .len();
        }
        Ok((values.len(), bytes))
    }

    async fn range(&self, from: &str, to: &str, count_only: bool) -> Result<Value> {
        let body = json!({
            "key": STANDARD.encode(from), "range_end": STANDARD.encode(to), "count_only": count_only,
        });
        let request = http::Request::post("/v3/kv/range")
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())?;
        self.client.request(request).await.context("ask etcd")
    }
}
