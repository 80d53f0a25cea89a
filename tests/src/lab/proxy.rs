//! Services, translated in a node's namespace as kube-proxy's nftables mode does it.
//!
//! Same hooks, same order, same mark, same masquerade: of hairpin traffic, of what comes to a
//! NodePort, of everything if asked (`pkg/proxy/nftables/proxier.go` and its README). The tables are
//! written whole, once per change.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use super::namespace::Namespace;
use crate::probe::Protocol;

/// Set on packets that postrouting is to masquerade, as kube-proxy's `--iptables-masquerade-bit=14`.
const MASQUERADE_MARK: u32 = 0x4000;

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What it is known by; one of the same name replaces it.
    pub name: String,
    /// Its cluster, external and load balancer addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Whether every connection to it is masqueraded, as with `--masquerade-all`.
    pub masquerade_all: bool,
    /// `externalTrafficPolicy: Local`: connections to the node port keep their source. The caller gives
    /// each node the backends that are its own.
    pub external_local: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port at the Service's addresses.
    pub port: u16,
    /// Its protocol: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port at every address of every node.
    pub node_port: Option<u16>,
    /// Who serves; those of another family than the address asked do not count.
    pub backends: Vec<SocketAddr>,
}

/// The Services of one node.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    services: BTreeMap<String, Service>,
}

impl Proxy {
    /// Adds or replaces Services.
    pub(super) fn add(&mut self, services: &[Service], node: &Namespace) -> Result<()> {
        for service in services {
            self.services.insert(service.name.clone(), service.clone());
        }
        self.apply(node)
    }

    /// Makes these the only ones.
    pub(super) fn set(&mut self, services: &[Service], node: &Namespace) -> Result<()> {
        self.services.clear();
        self.add(services, node)
    }

    /// Removes Services.
    pub(super) fn remove(&mut self, names: &[&str], node: &Namespace) -> Result<()> {
        self.services
            .retain(|name, _| !names.contains(&name.as_str()));
        self.apply(node)
    }

    fn apply(&self, node: &Namespace) -> Result<()> {
        node.output("nft", &["-f", "-"], &self.script()).map(drop)
    }

    fn script(&self) -> String {
        let mut script = String::new();
        for family in [Family::V4, Family::V6] {
            let mut table = Table::new(family);
            for service in self.services.values() {
                table.add(service);
            }
            script += &table.script();
        }
        script
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// As nft calls the table's family and the header.
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::V4 => ("ip", "ipv4_addr"),
            Self::V6 => ("ip6", "ipv6_addr"),
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == matches!(self, Self::V4)
    }
}

/// The rules of one family.
struct Table {
    family: Family,
    chains: String,
    service_ips: Vec<String>,
    node_ports: Vec<String>,
    no_endpoints: Vec<String>,
    number: usize,
}

impl Table {
    fn new(family: Family) -> Self {
        Self {
            family,
            chains: String::new(),
            service_ips: Vec::new(),
            node_ports: Vec::new(),
            no_endpoints: Vec::new(),
            number: 0,
        }
    }

    fn add(&mut self, service: &Service) {
        let family = self.family;
        let addresses: Vec<_> = service
            .addresses
            .iter()
            .filter(|address| family.has(**address))
            .collect();
        for port in &service.ports {
            let backends: Vec<_> = port
                .backends
                .iter()
                .filter(|backend| family.has(backend.ip()))
                .collect();
            let protocol = nft_name(port.protocol);
            let keys = addresses
                .iter()
                .map(|address| format!("{address} . {protocol} . {}", port.port));
            if backends.is_empty() {
                self.no_endpoints
                    .extend(keys.map(|key| format!("{key} : goto reject-chain")));
                continue;
            }
            let chain = format!("service-{}", self.number);
            self.number += 1;
            self.service_ips
                .extend(keys.map(|key| format!("{key} : goto {chain}")));
            if let Some(node_port) = port.node_port {
                let target = if service.external_local {
                    &chain
                } else {
                    &format!("external-{chain}")
                };
                self.node_ports
                    .push(format!("{protocol} . {node_port} : goto {target}"));
                self.chain(
                    &format!("external-{chain}"),
                    &format!("jump mark-for-masquerade\n  goto {chain}"),
                );
            }
            self.endpoints(&chain, service.masquerade_all, protocol, &backends);
        }
    }

    /// The chain of a port: one of its backends, each with the same chance.
    fn endpoints(
        &mut self,
        chain: &str,
        masquerade_all: bool,
        protocol: &str,
        backends: &[&SocketAddr],
    ) {
        let header = self.family.name().0;
        let mut choices = Vec::new();
        for (number, backend) in backends.iter().enumerate() {
            let endpoint = format!("endpoint-{chain}-{number}");
            let rules = format!(
                "{header} saddr {} jump mark-for-masquerade\n  meta l4proto {protocol} dnat to {backend}",
                backend.ip()
            );
            self.chain(&endpoint, &rules);
            choices.push(format!("{number} : goto {endpoint}"));
        }
        let mark = if masquerade_all {
            "jump mark-for-masquerade\n  "
        } else {
            ""
        };
        let choice = format!(
            "{mark}numgen random mod {} vmap {{ {} }}",
            backends.len(),
            choices.join(", ")
        );
        self.chain(chain, &choice);
    }

    fn chain(&mut self, name: &str, rules: &str) {
        // Writing to a String cannot fail.
        let _written = write!(self.chains, " chain {name} {{\n  {rules}\n }}\n");
    }

    fn script(&self) -> String {
        let (header, address) = self.family.name();
        let elements = |list: &[String]| match list {
            [] => String::new(),
            list => format!("elements = {{ {} }}", list.join(", ")),
        };
        let (services, ports, none) = (
            elements(&self.service_ips),
            elements(&self.node_ports),
            elements(&self.no_endpoints),
        );
        let chains = &self.chains;
        let mark = MASQUERADE_MARK;
        format!(
            "table {header} kube-proxy
delete table {header} kube-proxy
table {header} kube-proxy {{
 chain mark-for-masquerade {{
  meta mark set meta mark | {mark:#x}
 }}
 chain reject-chain {{
  reject
 }}
{chains}
 map service-ips {{
  type {address} . inet_proto . inet_service : verdict
  {services}
 }}
 map service-nodeports {{
  type inet_proto . inet_service : verdict
  {ports}
 }}
 map no-endpoint-services {{
  type {address} . inet_proto . inet_service : verdict
  {none}
 }}
 chain services {{
  {header} daddr . meta l4proto . th dport vmap @service-ips
  fib daddr type local meta l4proto . th dport vmap @service-nodeports
 }}
 chain no-endpoints {{
  {header} daddr . meta l4proto . th dport vmap @no-endpoint-services
 }}
 chain filter-forward {{
  type filter hook forward priority -110; ct state new jump no-endpoints
 }}
 chain filter-output {{
  type filter hook output priority -110; ct state new jump no-endpoints
 }}
 chain nat-prerouting {{
  type nat hook prerouting priority -100; jump services
 }}
 chain nat-output {{
  type nat hook output priority -100; jump services
 }}
 chain nat-postrouting {{
  type nat hook postrouting priority 100
  meta mark & {mark:#x} == 0 return
  meta mark set meta mark ^ {mark:#x}
  masquerade fully-random
 }}
}}
"
        )
    }
}

fn nft_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => "icmp",
    }
}
