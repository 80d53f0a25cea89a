//! The objects, reduced to what NetworkPolicy speaks of.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

pub use self::{object::*, policy::*, selector::*};

mod object;
mod policy;
mod selector;

/// Labels of an object.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// A namespaced object's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Name {
    /// The name of an object.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A protocol that NetworkPolicy ports can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default where a port names none.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Whether policy denies, or only tells what it would deny.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// What policy does not allow is denied.
    #[default]
    Enforce,
    /// It passes, and is told.
    Audit,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Its labels; `kubernetes.io/metadata.name` is always among them (KEP-2161).
    pub labels: Labels,
    /// That of all its pods.
    pub mode: Mode,
    /// Whether its pods may choose theirs themselves: whoever makes pods may then switch policy off.
    pub pod_modes: bool,
    /// When `mode` ends and its pods are enforced again, in seconds since the epoch. Who keeps the objects looks at the
    /// clock; here it says nothing.
    pub mode_until: Option<i64>,
}

impl Namespace {
    /// One that is enforced.
    #[must_use]
    pub const fn new(name: Arc<str>, labels: Labels) -> Self {
        Self {
            name,
            labels,
            mode: Mode::Enforce,
            pod_modes: false,
            mode_until: None,
        }
    }
}

/// Whether a namespace is the cluster's own: to deny by default there breaks more often than not what all need.
#[must_use]
pub fn is_system(namespace: &str) -> bool {
    ["kube-system", "kube-public", "kube-node-lease"].contains(&namespace)
}

/// A named container port; sidecars' included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// `containerPort`.
    pub port: u16,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: Name,
    /// `metadata.uid`; a recreated pod of the same name is another one.
    pub uid: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// The hash by which its runtime knows a static pod, in place of the uid: annotation `kubernetes.io/config.hash`.
    pub config_hash: Option<Arc<str>>,
    /// `status.podIPs`, at most one of each family in a valid object.
    pub addresses: Vec<IpAddr>,
    /// Whether the node's network plugin has just given it the addresses: it outranks all others that claim them.
    pub attached: bool,
    /// On the host's network: never a subject, never a peer; its address is the node's.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its addresses may already be another's.
    pub finished: bool,
    /// `metadata.deletionTimestamp` is set: still counts, but a newer owner of its address wins.
    pub terminating: bool,
    /// Its named ports, sorted, without duplicates.
    pub ports: Vec<NamedPort>,
    /// `metadata.creationTimestamp` in seconds since the epoch, or 0.
    pub created: i64,
    /// What it asks for; only where its namespace lets it choose.
    pub mode: Mode,
}

/// A Service, as far as packets to its addresses may be translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: Name,
    /// Cluster, external and load balancer addresses.
    pub addresses: Vec<IpAddr>,
    /// The pods of its namespace that it leads to. `None` where it selects none: others say then where it leads.
    pub selector: Option<Selector>,
    /// Its ports, in their order.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty where it has none.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
    /// `targetPort`.
    pub target: TargetPort,
}

/// Where a port of a Service leads at the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// To that port.
    Number(u16),
    /// To the pod's port of that name and the same protocol.
    Named(Arc<str>),
}

/// A block of addresses: `ipBlock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// `cidr`, without host bits.
    pub cidr: IpNet,
    /// `except`, without host bits, sorted.
    pub except: Vec<IpNet>,
}

impl Block {
    /// Whether the address lies in the block and in none of its exceptions.
    #[must_use]
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|net| net.contains(address))
    }
}
