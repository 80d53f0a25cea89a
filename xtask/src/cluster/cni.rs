//! Network plugins: what gives pods their addresses and wires.

use clap::ValueEnum;
use serde_json::{Value, json};

/// Where the run has the plugins' programs.
pub(super) const FOLDER: &str = "cni";

/// Where below `/etc` the runtime looks for its list of plugins.
pub(super) const LIST: &str = "cni/net.d/10-cluster.conflist";

/// A way to connect pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cni {
    /// A routed pair of devices for each pod, as kindnet makes it
    #[default]
    Ptp,
    /// A bridge on each node
    Bridge,
    /// A bridge on each node, and vxlan between them
    Flannel,
}

impl Cni {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
        }
    }

    /// Whether somebody else has to lead packets from node to node.
    pub(super) fn needs_routes(self) -> bool {
        self != Self::Flannel
    }

    /// The list for a node with these pods; none if it cannot be told yet.
    pub(super) fn list(self, pods: &str, mtu: Option<u32>) -> Option<Value> {
        let addresses = json!({
            "type": "host-local",
            "ranges": [[{ "subnet": pods }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        });
        let mut plugin = match (self, mtu) {
            (Self::Flannel, None) => return None,
            (Self::Ptp, _) => json!({ "type": "ptp" }),
            (Self::Bridge | Self::Flannel, _) => json!({
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
            }),
        };
        plugin["ipam"] = addresses;
        if let Some(mtu) = mtu {
            plugin["mtu"] = mtu.into();
        }
        let ports = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        Some(json!({
            "cniVersion": "1.0.0",
            "name": "cluster",
            "plugins": [plugin, ports],
        }))
    }
}

/// The list that fits what flannel's daemon says in its `subnet.env`; none before it has said all.
pub(super) fn of_flannel(text: &str) -> Option<Value> {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    // An address of the node, and the length of the prefix.
    let (address, length) = value("FLANNEL_SUBNET")?.split_once('/')?;
    let network = address.rsplit_once('.')?.0;
    let mtu = value("FLANNEL_MTU")?.parse().ok()?;
    Cni::Flannel.list(&format!("{network}.0/{length}"), Some(mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannel_tells_network_and_size() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let list = of_flannel(text).unwrap_or_default();
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["type"], "bridge");
        assert_eq!(plugin["mtu"], 1450);
        assert_eq!(plugin["ipam"]["ranges"][0][0]["subnet"], "10.244.3.0/24");
        assert_eq!(of_flannel("FLANNEL_SUBNET=10.244.3.1/24\n"), None);
        assert_eq!(of_flannel(""), None);
    }

    #[test]
    fn only_flannel_cannot_tell_its_list_at_once() {
        for cni in Cni::value_variants() {
            let list = cni.list("10.0.0.0/24", None);
            assert_eq!(list.is_none(), *cni == Cni::Flannel, "{cni:?}");
        }
    }
}
