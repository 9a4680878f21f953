//! `jiuzhou reach`: may one end talk to another, by the policies that are really in the cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use crds::label;
use k8s_openapi::api::core::v1::{Namespace, Pod as KubePod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use plan::reach::{Answer, End, Pod, Policy, Port, Side, reach as evaluate};
use serde_json::{Value, json};

use super::output::{Format, Paint, number};

/// One end, as somebody names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The pods of an App.
    App {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// One pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An address outside the cluster.
    Address(IpAddr),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::Address(address));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let owned = |text: &str| text.to_owned();
        match parts.as_slice() {
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok(Self::App {
                namespace: owned(namespace),
                name: owned(name),
            }),
            [namespace, "pod", name] if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::Pod {
                    namespace: owned(namespace),
                    name: owned(name),
                })
            }
            _ => Err("must be NAMESPACE/APP, NAMESPACE/pod/NAME or an address".to_owned()),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Pod { namespace, name } => write!(f, "{namespace}/pod/{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// An end and its port, as in `identity/sso:8443` or `192.0.2.1:53/UDP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The end.
    pub end: Named,
    /// Its port.
    pub port: Port,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (end, port) = text
            .rsplit_once(':')
            .ok_or("must end with a port, as in identity/sso:8443")?;
        let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
        let found: u16 = port
            .parse()
            .map_err(|_| "must end with a port, as in identity/sso:8443")?;
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            return Err(format!("protocol {protocol} must be TCP, UDP or SCTP"));
        }
        let port = Port {
            number: found.into(),
            protocol: protocol.to_owned(),
        };
        Ok(Self {
            end: end.parse()?,
            port,
        })
    }
}

/// What `jiuzhou reach` asks.
pub(super) async fn reach(
    client: &Client,
    from: &Named,
    to: &Target,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let policies = policies(client).await?;
    let sources = ends(client, from, "source").await?;
    let targets = ends(client, &to.end, "target").await?;
    let mut answers = Vec::new();
    for source in &sources.0 {
        for target in &targets.0 {
            answers.push(evaluate(&policies, source, target, &to.port));
        }
    }
    let refused = answers.iter().find(|answer| !answer.passes());
    let passes = refused.is_none();
    // What a pod says to itself tells least of an App with several.
    let telling = answers.iter().find(|answer| answer.egress != Side::Itself);
    let Some(shown) = refused.or(telling).or(answers.first()) else {
        anyhow::bail!("nothing to ask about: neither end stands for anything");
    };
    for (named, Ends(_, there), side) in [
        (from, &sources, &shown.egress),
        (&to.end, &targets, &shown.ingress),
    ] {
        if passes && !*there && *side == Side::Open {
            anyhow::bail!(
                "no pod of App {named} is in this cluster, and nothing isolates its namespace here: ask a cluster in which it runs, by --kubeconfig; jiuzhou explain app lists them"
            );
        }
    }
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{:#}", as_json(from, to, passes, shown))?,
        Format::Table => write!(out, "{}", as_text(from, to, &sources, &targets, shown))?,
    }
    Ok(if passes {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn policies(client: &Client) -> anyhow::Result<Vec<Policy>> {
    let api: Api<NetworkPolicy> = Api::all(client.clone());
    let all = api
        .list(&ListParams::default())
        .await
        .context("cannot list NetworkPolicies; this takes the right to, in the cluster itself")?;
    let one = |policy: NetworkPolicy| {
        let name = policy.name_any();
        let read = serde_json::to_value(policy).and_then(serde_json::from_value);
        read.with_context(|| format!("cannot read NetworkPolicy {name}"))
    };
    all.items.into_iter().map(one).collect()
}

/// What an end stands for, and whether it is really there.
struct Ends(Vec<End>, bool);

async fn ends(client: &Client, named: &Named, which: &str) -> anyhow::Result<Ends> {
    let (namespace, pods) = match named {
        Named::Address(address) => return Ok(Ends(vec![End::Address(*address)], true)),
        Named::App { namespace, name } => {
            let api: Api<KubePod> = Api::namespaced(client.clone(), namespace);
            let of_app = ListParams::default().labels(&format!("{}={name}", label::APP));
            (namespace, api.list(&of_app).await?.items)
        }
        Named::Pod { namespace, name } => {
            let api: Api<KubePod> = Api::namespaced(client.clone(), namespace);
            (namespace, vec![api.get(name).await?])
        }
    };
    let homes: Api<Namespace> = Api::all(client.clone());
    let home = homes
        .get(namespace)
        .await
        .with_context(|| format!("namespace {namespace} is not in this cluster"))?;
    let home: BTreeMap<String, String> = home.metadata.labels.unwrap_or_default();
    if let (true, Named::App { name, .. }) = (pods.is_empty(), named) {
        // Policies select pods by labels, and those of an App are known before it runs.
        let pod = Pod {
            namespace: namespace.clone(),
            // Two pods of one App are two: what a pod says to itself no policy judges.
            name: which.to_owned(),
            labels: BTreeMap::from([(label::APP.to_owned(), name.clone())]),
            namespace_labels: home,
            ..Pod::default()
        };
        return Ok(Ends(vec![End::Pod(pod)], false));
    }
    let ends = pods.iter().map(|pod| end(pod, &home));
    Ok(Ends(ends.collect(), true))
}

/// A pod as policies see it. One in its node's network is no pod to them, but an address.
fn end(pod: &KubePod, home: &BTreeMap<String, String>) -> End {
    let spec = pod.spec.as_ref();
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
    let in_node = spec.is_some_and(|spec| spec.host_network == Some(true));
    if let (true, Some(address)) = (in_node, address) {
        return End::Address(address);
    }
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(((port.name.clone()?, protocol), port.container_port.into()))
    });
    End::Pod(Pod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        labels: pod.labels().clone(),
        namespace_labels: home.clone(),
        address,
        ports: named.collect(),
    })
}

fn as_json(from: &Named, to: &Target, passes: bool, answer: &Answer) -> Value {
    let side = |side: &Side| match side {
        Side::Open => json!({"decision": "Open"}),
        Side::Itself => json!({"decision": "Itself"}),
        Side::Allowed { policy, link } => {
            let mut told = json!({"decision": "Allowed", "policy": policy});
            if let Some(link) = link {
                told["link"] = json!(link);
            }
            told
        }
        Side::Denied(by) => json!({"decision": "Denied", "policies": by}),
    };
    json!({
        "apiVersion": "cli.jiuzhou.io/v1", "kind": "Reach",
        "from": from.to_string(), "to": to.end.to_string(),
        "port": to.port.number, "protocol": to.port.protocol,
        "reachable": passes,
        "egress": side(&answer.egress), "ingress": side(&answer.ingress),
    })
}

fn as_text(from: &Named, to: &Target, sources: &Ends, targets: &Ends, answer: &Answer) -> String {
    let paint = Paint::stdout();
    let ends = |named: &Named, Ends(ends, there): &Ends| match named {
        Named::App { .. } if *there => format!("{named} ({})", number(ends.len(), "pod")),
        Named::App { .. } => format!("{named} (no pod here, judged by its label)"),
        Named::Pod { .. } | Named::Address(_) => named.to_string(),
    };
    let word = if answer.passes() {
        paint.good("yes")
    } else {
        paint.bad("no")
    };
    let side = |what: &str, side: &Side| match side {
        Side::Open => format!("  {what}: no NetworkPolicy isolates it\n"),
        Side::Itself => {
            format!("  {what}: it is the same pod, and no NetworkPolicy stands between\n")
        }
        Side::Allowed { policy, link } => {
            let link = link
                .as_ref()
                .map_or_else(String::new, |link| format!(", of Link {link}"));
            format!("  {what}: NetworkPolicy {policy} lets it{link}\n")
        }
        Side::Denied(by) => {
            let by = by.join(", ");
            format!(
                "  {what}: none of NetworkPolicies {by} lets it; a Link may be missing, not in force or for another port: jiuzhou explain app at the hub lists them\n"
            )
        }
    };
    format!(
        "{word}: {} to {} on {}/{}\n{}{}",
        ends(from, sources),
        ends(&to.end, targets),
        to.port.number,
        to.port.protocol,
        side("leaving", &answer.egress),
        side("entering", &answer.ingress),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_apps_pods_and_addresses() {
        let app = Named::App {
            namespace: "health".to_owned(),
            name: "web".to_owned(),
        };
        assert_eq!("health/web".parse(), Ok(app));
        assert!(matches!("health/pod/web-1".parse(), Ok(Named::Pod { .. })));
        assert!(matches!("192.0.2.1".parse(), Ok(Named::Address(_))));
        for bad in ["web", "/web", "health/", "a/b/c", ""] {
            assert!(bad.parse::<Named>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_has_a_port_and_perhaps_a_protocol() {
        let target: Target = "[2001:db8::1]:53/UDP".parse().unwrap();
        assert_eq!(
            (target.port.number, target.port.protocol.as_str()),
            (53, "UDP")
        );
        assert!(matches!(target.end, Named::Address(IpAddr::V6(_))));
        let target: Target = "identity/sso:8443".parse().unwrap();
        assert_eq!(target.port.protocol, "TCP");
        for bad in [
            "identity/sso",
            "identity/sso:web",
            "identity/sso:1/ICMP",
            "a/b:70000",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
