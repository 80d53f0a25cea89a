//! The real kube-proxy, on a node of the lab.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::{ControlPlane, Relay, assets};
use crate::lab::{Lab, Process};

/// Of all pods of a [`Plan::of`](crate::lab::Plan::of): what comes from elsewhere is masqueraded.
const PODS: &str = "10.244.0.0/16,fd00:10:244::/48";

/// How it translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By rules of iptables.
    Iptables,
    /// By rules of nftables.
    Nftables,
}

/// A kube-proxy. Its rules stay when this is dropped.
#[derive(Debug)]
pub struct KubeProxy {
    process: Process,
    _relay: Relay,
}

impl KubeProxy {
    /// Starts one that watches the API server, and masquerades all connections to cluster addresses if told so.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(
        lab: &Lab,
        node: &str,
        control_plane: &ControlPlane,
        mode: Mode,
        masquerade_all: bool,
    ) -> Result<Self> {
        let namespace = &lab.node(node).endpoint.namespace;
        let relay = Relay::start(namespace, control_plane.address())?;
        let path = |what: &str| lab.path().join(format!("{node}.kube-proxy.{what}"));
        control_plane.admin_kubeconfig(relay.address(), &path("kubeconfig"))?;
        let rules = json!({
            "masqueradeAll": masquerade_all, "minSyncPeriod": "50ms", "syncPeriod": "30s",
        });
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": path("kubeconfig")},
            "clusterCIDR": PODS,
            "detectLocalMode": "ClusterCIDR",
            // Those are the whole machine's.
            "conntrack": {
                "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
            "hostnameOverride": node,
            "mode": match mode {
                Mode::Iptables => "iptables",
                Mode::Nftables => "nftables",
            },
            "iptables": rules,
            "nftables": rules,
        });
        fs::write(path("config"), config.to_string())?;
        let mut command = namespace.command(assets::program("kube-proxy")?);
        command.arg("--config").arg(path("config"));
        Ok(Self {
            process: lab.start(command, &format!("{node}.kube-proxy.log"))?,
            _relay: relay,
        })
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
