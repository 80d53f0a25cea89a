//! The site's pods, its Service and its policies, as objects.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{BALANCER, EXTERNAL, INTERNET, NODE_PORT, PORT, PROTOCOLS, TARGET, VIP};
use crate::{lab::both, probe::Protocol};

/// What a pod is labelled with, by its name.
#[must_use]
pub fn kind(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

/// What pods call the port at which they serve.
#[must_use]
pub fn port_name(protocol: Protocol) -> String {
    format!("serve-{}", protocol.to_string().to_lowercase())
}

/// A pod as an object.
#[must_use]
pub fn pod(name: &str, node: &str, addresses: &[IpAddr], role: &str) -> Value {
    let addresses = addresses.iter().map(|ip| json!({"ip": ip}));
    let ports = PROTOCOLS.map(|protocol| {
        let name = port_name(protocol);
        json!({"name": name, "containerPort": TARGET, "protocol": protocol.to_string()})
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "x", "uid": format!("uid-{name}"),
            "labels": {"app": name, "role": role},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": "Running", "podIPs": addresses.collect::<Vec<_>>()},
    })
}

/// The Service as an object.
#[must_use]
pub fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "service", "namespace": "x"},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": both(VIP.into())[0], "clusterIPs": both(VIP.into()),
            "externalIPs": both(EXTERNAL.into()),
            "ports": PROTOCOLS.map(|protocol| json!({
                "name": port_name(protocol), "protocol": protocol.to_string(),
                "port": PORT, "targetPort": port_name(protocol), "nodePort": NODE_PORT,
            })),
        },
        "status": {"loadBalancer": {"ingress": both(BALANCER.into()).map(|it| json!({"ip": it}))}},
    })
}

/// A policy in the namespace of the pods.
#[must_use]
pub fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"}, "spec": spec,
    })
}

/// The client may speak with good pods at their own port, and with nobody else.
#[must_use]
pub fn only_good() -> Value {
    let ports = PROTOCOLS.map(|protocol| json!({"port": TARGET, "protocol": protocol.to_string()}));
    policy(
        "only-good",
        json!({
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"role": "good"}}}], "ports": ports}],
        }),
    )
}

/// The same, and at the next port too.
#[must_use]
pub fn both_ports() -> Value {
    let mut policy = only_good();
    policy["spec"]["egress"][0]["ports"] = PROTOCOLS
        .map(|protocol| json!({"port": TARGET, "endPort": TARGET + 1, "protocol": protocol.to_string()}))
        .into();
    policy
}

/// A pod takes connections of pods of a role alone.
#[must_use]
pub fn only_from(server: &str, role: &str) -> Value {
    policy(
        "only-from",
        json!({
            "podSelector": {"matchLabels": {"app": server}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": role}}}]}],
        }),
    )
}

/// A pod takes connections of the host outside alone, and opens none.
#[must_use]
pub fn from_the_internet(pod: &str) -> Value {
    policy(
        "from-the-internet",
        json!({
            "podSelector": {"matchLabels": {"app": pod}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": both(INTERNET.into()).map(|it| block(it, 0))}],
        }),
    )
}

/// A peer that is all addresses that differ from this one in so many of the last bits at most.
#[must_use]
pub fn block(address: IpAddr, bits: u8) -> Value {
    let length = if address.is_ipv4() { 32 } else { 128 } - bits;
    json!({"ipBlock": {"cidr": format!("{address}/{length}")}})
}

/// Nothing but answers passes in this direction.
#[must_use]
pub fn nothing(pod: &str, direction: &str) -> Value {
    policy(
        &format!("nothing-{}", direction.to_lowercase()),
        json!({"podSelector": {"matchLabels": {"app": pod}}, "policyTypes": [direction]}),
    )
}
