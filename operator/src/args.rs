//! The command line's words. Every flag can also be set by the environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use crds::ClusterName;

use crate::cli::{Format, GuardAddress, Named, PolicyTarget, Target};
use crate::guard::compile::{ObjectName, Sharing};
use crate::guard::serve::fetch::Place;
use crate::guard::serve::{AccessLogTarget, Dial, TRUSTED_HOPS_MAX};

/// One cloud of many regions.
#[derive(Debug, Parser)]
#[command(name = "jiuzhou", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Decide the whole province; runs in the province's cluster.
    Hub(HubArguments),
    /// Keep one member cluster as the hub assigned it; runs in that cluster.
    Agent(AgentArguments),
    /// The gateway of a region, and what protects the region behind it.
    #[command(subcommand)]
    Guard(GuardCommand),
    /// One screen for the province.
    Status(ReadArguments),
    /// What there is, what is granted, what is used.
    ///
    /// By Region:
    ///   ALLOCATABLE  what nodes offer
    ///   GRANTED      what first tenants are granted of it
    ///   REQUESTED    what pods ask for
    ///   HEADROOM     what is left for more
    /// By tenant:
    ///   NOMINAL      what its Quota grants
    ///   USED         what is used of it, with what inner Quotas keep for themselves
    ///   BORROWED     what of that is beyond NOMINAL
    ///   CARVED       what is granted on to inner tenants
    ///
    /// Cores of CPU, Gi of memory and storage; the JSON has the amounts of the statuses as they are.
    #[command(verbatim_doc_comment)]
    Capacity(CapacityArguments),
    /// Say for every cluster why an App runs there or not.
    Explain(ExplainArguments),
    /// Plan a changed world against today's: what moves, what is refused. Nothing is written.
    Simulate(SimulateArguments),
    /// Say whether one end may talk to another, and by which rule; asks the cluster that both are in.
    Reach(ReachArguments),
    /// What the rules of a region's guards did and where they stand, summed over the guards.
    ///
    /// By policy:
    ///   LIMIT     what passes at all guards together; of a key, at the guard that it comes to
    ///   REFUSED   requests that the rule refused since the guards began
    ///   SHADOWED  what it would have refused, were it not in shadow mode
    ///   STATE     bursts, keys that are hot with their share, breakers, what is under way
    /// Then endpoints that guards leave alone since they fail.
    ///
    /// Guards that do not answer are named; exit 1 if none does.
    #[command(verbatim_doc_comment)]
    Protection(ProtectionArguments),
    /// The rules in force at a route, a policy or an App, and where each comes from.
    ///
    /// In a region, by the kubeconfig of its cluster: httproute/NAME, httproute/NAME/RULE,
    /// trafficpolicy/NAME. At the hub: app/NAME, trafficpolicy/NAME.
    #[command(verbatim_doc_comment)]
    Effective(EffectiveArguments),
    /// Apply a file of several kinds in one go, and wait until everything in it is Ready.
    Apply(ApplyArguments),
    /// Check manifests offline, with the messages the API server would give.
    Lint(LintArguments),
    /// Print all custom resource definitions as YAML.
    Crds,
}

/// Flags of commands that read the hub.
#[derive(Debug, Args)]
pub struct ReadArguments {
    /// Kubeconfig of the hub, or of the region for its guards.
    ///
    /// Without it KUBECONFIG, which may name several files, or ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it the current one.
    #[arg(long)]
    pub context: Option<String>,
    /// Answer format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Flags of `jiuzhou capacity`.
#[derive(Debug, Args)]
pub struct CapacityArguments {
    /// By what.
    #[arg(long, value_enum, default_value_t)]
    pub by: By,
    /// How to read the hub.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// What capacity is added up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Regions: what their clusters offer, what is granted from it, what is used.
    #[default]
    Region,
    /// Tenants: what each is granted in each Region, and what it uses of it.
    Tenant,
}

/// Flags of `jiuzhou explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Kind of the object; only `app` can be explained.
    #[arg(value_parser = ["app"])]
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Namespace of the object; without it the context's, as for kubectl.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How to read the hub.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// Flags of `jiuzhou simulate`.
#[derive(Debug, Args)]
pub struct SimulateArguments {
    /// Manifests to add or replace: Regions, MemberClusters, Apps.
    #[arg(short = 'f', long = "filename")]
    pub files: Vec<PathBuf>,
    /// Region that is lost with everything below it.
    #[arg(long, value_name = "REGION")]
    pub lose: Vec<String>,
    /// Time to plan for, as in 2026-12-01T18:00:00+08:00.
    #[arg(long, value_name = "TIME")]
    pub at: Option<jiff::Timestamp>,
    /// How to read the hub.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// Flags of `jiuzhou reach`.
#[derive(Debug, Args)]
pub struct ReachArguments {
    /// Who connects: NAMESPACE/APP, NAMESPACE/pod/NAME or an address.
    pub from: Named,
    /// Who is connected to, as in identity/sso:8443 or 192.0.2.1:53/UDP.
    pub to: Target,
    /// How to read the cluster that both are in: by its own kubeconfig, not that of the hub.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// Flags of `jiuzhou protection`.
#[derive(Debug, Args)]
pub struct ProtectionArguments {
    /// Name of a TrafficPolicy; without it all of them.
    pub policy: Option<String>,
    /// Namespace of the policies; without it all of them.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Addresses of the guards' metrics, as in http://10.0.0.7:9090.
    ///
    /// Without them all pods of --service are asked, through the API server of their cluster.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub guard: Vec<GuardAddress>,
    /// Their Service.
    ///
    /// Its port of the name metrics is asked.
    #[arg(long, value_name = "NS/NAME", default_value = "jiuzhou-guard/jiuzhou-guard-metrics", value_parser = object)]
    pub service: ObjectName,
    /// How to reach the cluster of the guards: by its own kubeconfig, not that of the hub.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// Flags of `jiuzhou effective`.
#[derive(Debug, Args)]
pub struct EffectiveArguments {
    /// What is asked about: httproute/NAME[/RULE], trafficpolicy/NAME or app/NAME.
    pub target: PolicyTarget,
    /// Namespace of the target; without it the context's, as for kubectl.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How to reach the cluster that is asked: a region's own for routes, the hub for Apps.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// Flags of `jiuzhou apply`.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// Files or folders to apply; folders are searched for .yaml, .yml and .json, - is standard input.
    #[arg(short = 'f', long = "filename", required = true)]
    pub files: Vec<PathBuf>,
    /// How long to wait until everything is Ready.
    #[arg(long, default_value = "5m", value_parser = span)]
    pub timeout: Duration,
    /// How to reach the hub.
    #[command(flatten)]
    pub read: ReadArguments,
}

/// Flags of `jiuzhou lint`.
#[derive(Debug, Args)]
pub struct LintArguments {
    /// File, folder with .yaml, .yml and .json, or - for standard input.
    #[arg(short = 'f', long = "filename", required = true)]
    pub paths: Vec<PathBuf>,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Flags of `jiuzhou hub`.
#[derive(Debug, Args)]
pub struct HubArguments {
    /// Kubeconfig of the hub's own cluster; without it the hub takes what its pod was given.
    #[arg(long, env = "JIUZHOU_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "JIUZHOU_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// A cluster not heard of for longer than this is out of contact.
    #[arg(long, env = "JIUZHOU_UNREACHABLE_AFTER", default_value = "40s", value_parser = span)]
    pub unreachable_after: Duration,
    /// A cluster heard of without a gap for this long is in contact again.
    #[arg(long, env = "JIUZHOU_REACHABLE_AFTER", default_value = "30s", value_parser = span)]
    pub reachable_after: Duration,
    /// Time between two signs of life of the agents that run inside the hub.
    #[arg(long, env = "JIUZHOU_HEARTBEAT", default_value = "10s", value_parser = span)]
    pub heartbeat: Duration,
    /// Another replica takes over from a leader that was silent for this long.
    #[arg(long, env = "JIUZHOU_LEASE_DURATION", default_value = "15s", value_parser = span)]
    pub lease_duration: Duration,
    /// What a tenant borrowed is taken back so long after whoever lent it wants it.
    #[arg(long, env = "JIUZHOU_RECLAIM_GRACE", default_value = "60s", value_parser = span)]
    pub reclaim_grace: Duration,
}

/// Flags of `jiuzhou agent`.
#[derive(Debug, Args)]
pub struct AgentArguments {
    /// Name of this cluster at the hub.
    #[arg(long, env = "JIUZHOU_CLUSTER", value_parser = cluster)]
    pub cluster: ClusterName,
    /// Kubeconfig of the agent's own identity at the hub.
    #[arg(long, env = "JIUZHOU_HUB_KUBECONFIG")]
    pub hub_kubeconfig: PathBuf,
    /// Kubeconfig of this cluster; without it the agent takes what its pod was given.
    #[arg(long, env = "JIUZHOU_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "JIUZHOU_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// Time between two signs of life.
    #[arg(long, env = "JIUZHOU_HEARTBEAT", default_value = "10s", value_parser = span)]
    pub heartbeat: Duration,
}

/// What a guard does.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Face the citizens: route, protect and pass requests. Needs no rights in the cluster.
    ///
    /// A port of a Gateway below 1024 is opened 10000 higher: 80 is 10080, 443 is 10443.
    Serve(GuardServeArguments),
    /// Compile the cluster's Gateways and routes, and hand the result to the guards.
    ///
    /// Run two or three replicas: one leads, the others are ready to.
    Control(GuardControlArguments),
}

/// Flags of `jiuzhou guard control`.
#[derive(Debug, Args)]
pub struct GuardControlArguments {
    /// Kubeconfig of the cluster; without it what the pod was given.
    #[arg(long, env = "JIUZHOU_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Address that guards ask.
    #[arg(long, env = "JIUZHOU_ADDRESS", default_value = "0.0.0.0:9443")]
    pub address: SocketAddr,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "JIUZHOU_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// File with the certificate that guards are shown, in PEM; it is read again when it changes.
    #[arg(long, env = "JIUZHOU_CERTIFICATE")]
    pub certificate: PathBuf,
    /// File with its private key, in PEM.
    #[arg(long, env = "JIUZHOU_KEY")]
    pub key: PathBuf,
    /// File with the certificates by which guards must be certified, in PEM.
    ///
    /// Whoever they certify is given the private keys of all Gateways: let them certify guards alone.
    #[arg(long, env = "JIUZHOU_CLIENT_CA")]
    pub client_ca: PathBuf,
    /// Namespace of the guards, with the Lease of the leader.
    #[arg(long, env = "JIUZHOU_NAMESPACE", default_value = "jiuzhou-guard")]
    pub namespace: String,
    /// Service that brings requests to the guards.
    #[arg(long, env = "JIUZHOU_SERVICE", default_value = "jiuzhou-guard")]
    pub service: String,
    /// Addresses and hostnames of Gateways; without them those of the Service's balancer.
    #[arg(long, env = "JIUZHOU_ADDRESSES", value_delimiter = ',')]
    pub addresses: Vec<String>,
    /// What Gateways do that ask for the same port and hostname.
    #[arg(
        long,
        env = "JIUZHOU_SHARING",
        value_enum,
        default_value = "older-wins"
    )]
    pub sharing: Sharing,
    /// Guards that there are, as long as none was heard of.
    #[arg(long, env = "JIUZHOU_REPLICAS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub replicas: u32,
    /// Divide limits by key as well: for a balancer that spreads the requests of one client.
    #[arg(long, env = "JIUZHOU_SPREADS_KEYS")]
    pub spreads_keys: bool,
    /// Another replica takes over from a leader that was silent for this long.
    #[arg(long, env = "JIUZHOU_LEASE_DURATION", default_value = "15s", value_parser = span)]
    pub lease_duration: Duration,
}

/// Flags of `jiuzhou guard serve`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").args(["configuration", "control"]).required(true)))]
pub struct GuardServeArguments {
    /// File with the configuration; it is read again whenever it changes.
    ///
    /// What cannot be served is refused with a reason, and the last good one stays in force.
    #[arg(long, env = "JIUZHOU_CONFIGURATION")]
    pub configuration: Option<PathBuf>,
    /// Guard control, as in `https://guard-control.jiuzhou-guard:9443`, instead of a file.
    #[arg(long, env = "JIUZHOU_CONTROL", requires_all = ["control_ca", "certificate", "key", "name", "state_directory"])]
    pub control: Option<Place>,
    /// File with the certificates by which control must be certified, in PEM.
    #[arg(long, env = "JIUZHOU_CONTROL_CA")]
    pub control_ca: Option<PathBuf>,
    /// File with the certificate that control is shown, in PEM; it is read again when it changes.
    #[arg(long, env = "JIUZHOU_CERTIFICATE")]
    pub certificate: Option<PathBuf>,
    /// File with its private key, in PEM.
    #[arg(long, env = "JIUZHOU_KEY")]
    pub key: Option<PathBuf>,
    /// This guard's name, which no other guard has: that of its pod.
    #[arg(long, env = "JIUZHOU_NAME")]
    pub name: Option<String>,
    /// Folder for the last good configuration, by which it starts while control is away.
    ///
    /// It holds private keys: only this guard may read it.
    #[arg(long, env = "JIUZHOU_STATE_DIRECTORY")]
    pub state_directory: Option<PathBuf>,
    /// Guards that there are, as long as control never said how many.
    #[arg(long, env = "JIUZHOU_REPLICAS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub replicas: u32,
    /// Address on which the ports of Gateways are opened.
    #[arg(long, env = "JIUZHOU_ADDRESS", default_value = "0.0.0.0")]
    pub address: IpAddr,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "JIUZHOU_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// Pods whose addresses are in the first network are reached in the second.
    ///
    /// For sandboxes, as in 198.18.0.0/15=127.18.0.0/15.
    #[arg(long, env = "JIUZHOU_CONNECT_TO", value_name = "NETWORK=NETWORK")]
    pub connect_to: Option<Dial>,
    /// Connections of clients at one time; more are closed at once.
    #[arg(long, env = "JIUZHOU_CONNECTIONS_MAX", default_value_t = 20_000)]
    pub connections_max: u32,
    /// Mebibytes of one request's body; more is refused with 413.
    #[arg(long, env = "JIUZHOU_BODY_MEBIBYTES_MAX", default_value_t = 32)]
    pub body_mebibytes_max: u32,
    /// Longest pause inside a request's body; a longer one is refused with 408.
    #[arg(long, env = "JIUZHOU_BODY_PAUSE_MAX", default_value = "30s", value_parser = span)]
    pub body_pause_max: Duration,
    /// An open WebSocket on which neither side says anything for this long is closed.
    #[arg(long, env = "JIUZHOU_UPGRADE_IDLE_MAX", default_value = "10m", value_parser = span)]
    pub upgrade_idle_max: Duration,
    /// Where one line of JSON for each request goes: stdout, off, or the name of a file.
    #[arg(
        long,
        env = "JIUZHOU_ACCESS_LOG",
        default_value = "stdout",
        value_name = "stdout|off|FILE"
    )]
    pub access_log: AccessLogTarget,
    /// Of a hundred requests so many are logged.
    #[arg(long, env = "JIUZHOU_ACCESS_LOG_PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub access_log_percent: u32,
    /// Of a hundred traces that begin here so many are sampled, 0 to 100; what clients began is
    /// continued as they say.
    ///
    /// Traces go to OTEL_EXPORTER_OTLP_ENDPOINT; without it nothing is traced.
    #[arg(long, env = "JIUZHOU_TRACE_PERCENT", default_value = "1", value_parser = percent)]
    pub trace_percent: f64,
    /// Proxies in front of the guard that append to X-Forwarded-For whom they saw, 0 to 16.
    ///
    /// The client is then the address so many places from the right. Clients that reach the guard without
    /// them could claim any address, so let nobody else reach it.
    #[arg(long, env = "JIUZHOU_TRUSTED_HOPS", default_value_t = 0,
        value_parser = clap::value_parser!(u8).range(0..=i64::from(TRUSTED_HOPS_MAX)))]
    pub trusted_hops: u8,
    /// After SIGTERM it is not ready and still accepts for this long, until nobody sends it more.
    #[arg(long, env = "JIUZHOU_DRAIN_DELAY", default_value = "5s", value_parser = span)]
    pub drain_delay: Duration,
    /// Then requests and open WebSockets have this long to end.
    #[arg(long, env = "JIUZHOU_DRAIN_TIMEOUT", default_value = "30s", value_parser = span)]
    pub drain_timeout: Duration,
}

fn span(text: &str) -> Result<Duration, String> {
    let millis = crds::Period(text.to_owned())
        .millis()
        .and_then(|m| u64::try_from(m).ok());
    let span = millis
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis);
    span.ok_or_else(|| "must be a number and ms, s, m or h, as in 10s".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "must be a number from 0 to 100, as in 0.5".to_owned())
}

fn object(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectName::new(namespace, name))
        }
        Some(_) | None => Err("must be NAMESPACE/NAME".to_owned()),
    }
}

fn cluster(text: &str) -> Result<ClusterName, String> {
    let name = ClusterName::from(text);
    if name.is_valid() {
        Ok(name)
    } else {
        Err("must be a DNS label of at most 40 characters".to_owned())
    }
}
