//! The command lines of one cluster's programs.

use std::path::Path;

use super::{
    ClusterSpec,
    cluster::{Context, Files},
};
use crate::process::{Program, reserve::Port};

/// What a workload's controllers, quota, garbage collection, disruption and node failure need.
/// Each further controller costs start time in every cluster of the fleet.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,cronjob-controller,\
    daemonset-controller,deployment-controller,disruption-controller,endpointslice-controller,\
    garbage-collector-controller,horizontal-pod-autoscaler-controller,job-controller,\
    namespace-controller,node-lifecycle-controller,pod-garbage-collector-controller,\
    replicaset-controller,resourcequota-controller,serviceaccount-controller,\
    serviceaccount-token-controller,statefulset-controller,taint-eviction-controller,\
    ttl-after-finished-controller";
/// Keeps the garbage collector of Go from letting the heap grow to twice its size under bursts.
const MEMORY_LIMIT: (&str, &str) = ("GOMEMLIMIT", "900MiB");
/// The defaults (20 and 50 requests a second) would make a thousand pods take a minute.
const REQUESTS_PER_SECOND: &str = "1000";
/// A dead node is noticed in this time instead of 50 s, and its pods leave after
/// [`TOLERATION_SECONDS`] instead of 300 s, so that a failure can be watched.
const NODE_GRACE: &str = "20s";
const TOLERATION_SECONDS: &str = "10";

/// Makes the command lines of one cluster.
pub(super) struct Components<'a> {
    pub(super) spec: &'a ClusterSpec,
    pub(super) context: &'a Context<'a>,
    pub(super) files: &'a Files,
}

impl Components<'_> {
    pub(super) fn apiserver(&self, etcd_url: &str, port: &Port) -> Program {
        let Context {
            certificates,
            binaries,
            ..
        } = self.context;
        let name = &self.spec.name;
        Program::new(format!("{name}-apiserver"), &binaries.apiserver)
            .env(MEMORY_LIMIT.0, MEMORY_LIMIT.1)
            .flag("etcd-servers", etcd_url)
            .flag("etcd-prefix", format!("/{name}"))
            .flag("bind-address", "127.0.0.1")
            .flag("advertise-address", "127.0.0.1")
            .flag("secure-port", port.number().to_string())
            .flag("endpoint-reconciler-type", "none")
            .flag("tls-cert-file", &certificates.serving)
            .flag("tls-private-key-file", &certificates.serving_key)
            .flag("client-ca-file", &certificates.ca)
            .flag("token-auth-file", &self.files.tokens)
            .flag(
                "service-account-key-file",
                &certificates.service_account_public_key,
            )
            .flag(
                "service-account-signing-key-file",
                &certificates.service_account_key,
            )
            .flag("service-account-issuer", "https://kubernetes.default.svc")
            .flag("service-cluster-ip-range", "10.0.0.0/16")
            .flag("authorization-mode", "RBAC")
            .flag("allow-privileged", "true")
            .flag("default-not-ready-toleration-seconds", TOLERATION_SECONDS)
            .flag("default-unreachable-toleration-seconds", TOLERATION_SECONDS)
    }

    pub(super) fn controller_manager(&self, port: &Port) -> Program {
        let Context {
            certificates,
            binaries,
            ..
        } = self.context;
        let name = format!("{}-controllers", self.spec.name);
        let program = Program::new(name, &binaries.controller_manager);
        self.client_of_apiserver(program, &self.files.controller_manager, port)
            .flag("use-service-account-credentials", "false")
            .flag(
                "service-account-private-key-file",
                &certificates.service_account_key,
            )
            .flag("root-ca-file", &certificates.ca)
            .flag("node-monitor-grace-period", NODE_GRACE)
            .flag("node-monitor-period", "2s")
            .flag("node-eviction-rate", "10")
            .flag("controllers", CONTROLLERS)
    }

    pub(super) fn scheduler(&self, port: &Port) -> Program {
        let name = format!("{}-scheduler", self.spec.name);
        let program = Program::new(name, &self.context.binaries.scheduler);
        self.client_of_apiserver(program, &self.files.scheduler, port)
    }

    pub(super) fn kubelet(&self, pod_network: &str) -> Program {
        let spec = self.spec;
        let program = Program::new(format!("{}-kubelet", spec.name), self.context.sandbox)
            .arg("kubelet")
            .flag("kubeconfig", &self.files.kubelet)
            .flag("cluster", &spec.name)
            .flag("nodes", spec.nodes.to_string())
            .flag("pods-per-node", spec.pods_per_node.to_string())
            .flag("node-cpu", &spec.node_cpu)
            .flag("node-memory", &spec.node_memory)
            .flag("pod-network", pod_network)
            .flag("start-delay-ms", spec.start_delay.as_millis().to_string());
        spec.node_labels
            .iter()
            .fold(program, |program, (key, value)| {
                program.flag("node-label", format!("{key}={value}"))
            })
    }

    fn client_of_apiserver(&self, program: Program, kubeconfig: &Path, port: &Port) -> Program {
        let certificates = self.context.certificates;
        program
            .env(MEMORY_LIMIT.0, MEMORY_LIMIT.1)
            .flag("kubeconfig", kubeconfig)
            .flag("authentication-kubeconfig", kubeconfig)
            .flag("authorization-kubeconfig", kubeconfig)
            .flag("bind-address", "127.0.0.1")
            .flag("secure-port", port.number().to_string())
            .flag("tls-cert-file", &certificates.serving)
            .flag("tls-private-key-file", &certificates.serving_key)
            .flag("kube-api-qps", REQUESTS_PER_SECOND)
            .flag("kube-api-burst", REQUESTS_PER_SECOND)
            .flag("leader-elect", "false")
    }
}
