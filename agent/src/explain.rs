//! Answers whether packets may pass, in the words of the API, for a file's objects and a running agent's
//! alike.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use palisade_policy::{
    evaluate::Endpoint,
    explain::{Exemption, PeerMiss, PeersView, RuleView, explain},
    index::Index,
    model::{Name, Operator, Protocol, Requirement},
    table::{Cell, Direction, PortSet, Traffic},
};
use serde::{Deserialize, Serialize};

use crate::{
    api::proto::{Explanation, Failure, Flow, Miss, Party, Passing, RuleName, Side},
    source::{Node, convert::address::address},
};

/// A question, as the command line and the API put it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    /// Who sends: `NAMESPACE/POD` or an address.
    pub from: End,
    /// To whom.
    pub to: End,
    /// Which destination port: `PORT/PROTOCOL`, or `PORT` of TCP; absent for everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// A pod or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum End {
    /// A pod.
    Pod(Name),
    /// An address.
    Address(IpAddr),
}

/// A destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A text that is no [`End`] or no [`Port`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("expected {0}")]
pub struct Malformed(&'static str);

impl FromStr for End {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if let Some(address) = address(text) {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            // A namespace's name is a DNS label: with a dot it is a mistaken CIDR.
            Some((namespace, pod))
                if !namespace.is_empty()
                    && !namespace.contains('.')
                    && !pod.is_empty()
                    && !pod.contains('/') =>
            {
                Ok(Self::Pod(Name::new(namespace, pod)))
            }
            _ => Err(Malformed("NAMESPACE/POD or an IP address")),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Port {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed("PORT/PROTOCOL, as 80/TCP");
        let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
        let protocol = Protocol::ALL
            .into_iter()
            .find(|known| known.to_string().eq_ignore_ascii_case(protocol));
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        match (number.parse(), protocol) {
            (Ok(number @ 1..), Some(protocol)) if digits => Ok(Self { number, protocol }),
            _ => Err(malformed),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// Serde speaks of these types as of their texts.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
as_text!(End);
as_text!(Port);

/// The addresses of nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    /// Of Node objects, by node.
    objects: HashMap<Arc<str>, Vec<IpAddr>>,
    /// The node that this agent runs on, and all its addresses.
    own: Option<(Arc<str>, BTreeSet<IpAddr>)>,
}

impl Nodes {
    /// Adds the node or replaces the one of its name.
    pub fn apply(&mut self, node: Node) {
        self.objects.insert(node.name, node.addresses);
    }

    /// Removes the node.
    pub fn delete(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Tells which node this is, and all its addresses.
    pub fn set_own(&mut self, name: &Arc<str>, addresses: &BTreeSet<IpAddr>) {
        if self
            .own
            .as_ref()
            .is_none_or(|(_, known)| known != addresses)
        {
            self.own = Some((name.clone(), addresses.clone()));
        }
    }

    /// Whether the address is one of that node's: so say its object, its own devices, or a pod of the host
    /// network.
    fn has(&self, index: &Index, node: &str, address: IpAddr) -> bool {
        let object = self
            .objects
            .get(node)
            .is_some_and(|all| all.contains(&address));
        let own = self
            .own
            .as_ref()
            .is_some_and(|(name, all)| **name == *node && all.contains(&address));
        let host = |pod: &Arc<palisade_policy::index::Pod>| {
            pod.host_network
                && pod.node.as_deref() == Some(node)
                && pod.addresses.contains(&address)
        };
        object || own || index.pods().any(host)
    }
}

/// Answers a question.
///
/// # Errors
///
/// It cannot be told; the failure says why.
pub fn answer(index: &Index, nodes: &Nodes, query: &Query) -> Result<Explanation, Failure> {
    let Query { from, to, port } = query;
    for end in [from, to] {
        no_service(index, end)?;
    }
    let from = endpoint(index, nodes, from, to);
    let to = endpoint(index, nodes, to, &query.from);
    let explanation = explain(index, &from, &to, None).map_err(failure)?;
    let asked = port.map(|port| Traffic::Port(port.protocol, port.number));
    let side = |side: &palisade_policy::explain::Side| self::side(side, asked);
    Ok(Explanation {
        from: party(&explanation.from),
        to: party(&explanation.to),
        port: port.map(|port| port.number),
        protocol: port.map(|port| port.protocol.to_string()),
        allowed: covers(&explanation.allowed(), asked),
        audited: covers(&explanation.allowed(), asked)
            && !covers(&explanation.allowed_unaudited(), asked),
        exempt: explanation.exempt.map(|exemption| match exemption {
            Exemption::Itself => "itself".to_owned(),
            Exemption::Node => "node".to_owned(),
        }),
        passes: passing(&explanation.allowed()),
        egress: explanation.egress.as_ref().map(side),
        ingress: explanation.ingress.as_ref().map(side),
    })
}

/// The rules of the policies that speak of a packet: those that allow it, or the one that comes nearest to it.
#[must_use]
pub fn why(index: &Index, nodes: &Nodes, flow: &Flow) -> Option<(Vec<RuleName>, Option<Miss>)> {
    if flow.policies.is_empty() {
        return None;
    }
    let end = |party: &Party| match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), _) => {
            Some(End::Pod(Name::new(namespace.as_str(), pod.as_str())))
        }
        (_, _, address) => address.map(End::Address),
    };
    let (pod, peer) = (end(&flow.pod)?, end(&flow.peer)?);
    let ingress = flow.direction == "ingress";
    let (from, to) = if ingress { (peer, pod) } else { (pod, peer) };
    let protocol = Protocol::ALL.into_iter();
    let mut protocol = protocol.filter(|protocol| protocol.to_string() == flow.protocol);
    let port = protocol.next().map(|protocol| Port {
        number: flow.destination_port,
        protocol,
    });
    let explanation = answer(index, nodes, &Query { from, to, port }).ok()?;
    let side = if ingress {
        explanation.ingress
    } else {
        explanation.egress
    };
    let Side {
        allowing, misses, ..
    } = side?;
    match allowing.is_empty() {
        true => Some((allowing, misses.into_iter().next())),
        false => Some((allowing, None)),
    }
}

/// A Service has no verdict of its own: each packet is judged where it is sent on to.
fn no_service(index: &Index, end: &End) -> Result<(), Failure> {
    let End::Address(address) = end else {
        return Ok(());
    };
    match index
        .services()
        .find(|service| service.addresses.contains(address))
    {
        None => Ok(()),
        Some(service) => Err(failure(format_args!(
            "{address} is an address of the Service {}: packets are judged by the pod they are sent on to, ask about that",
            service.name
        ))),
    }
}

fn endpoint(index: &Index, nodes: &Nodes, end: &End, other: &End) -> Endpoint {
    let address = match end {
        End::Pod(name) => return Endpoint::Pod(name.clone()),
        End::Address(address) => *address,
    };
    let other = match other {
        End::Pod(name) => index.pod(name),
        End::Address(address) => index.owner(*address),
    };
    match other.and_then(|pod| pod.node.as_deref()) {
        Some(node) if index.owner(address).is_none() && nodes.has(index, node, address) => {
            Endpoint::Node
        }
        _ => Endpoint::Address(address),
    }
}

fn failure(error: impl fmt::Display) -> Failure {
    Failure {
        error: error.to_string(),
    }
}

/// Whether the cell allows what was asked about; everything if nothing in particular was.
fn covers(cell: &Cell, asked: Option<Traffic>) -> bool {
    asked.map_or(cell.all_protocols, |traffic| cell.allows(traffic))
}

fn party(party: &palisade_policy::explain::Party) -> Party {
    let name = party.pod.as_ref();
    Party {
        namespace: name.map(|name| name.namespace.to_string()),
        pod: name.map(|name| name.name.to_string()),
        address: party.address,
        labels: BTreeMap::new(),
    }
}

fn passing(cell: &Cell) -> Passing {
    let ports = |set: &PortSet| {
        set.ranges()
            .iter()
            .map(|&range| range_text(range))
            .collect()
    };
    Passing {
        tcp: ports(&cell.tcp),
        udp: ports(&cell.udp),
        sctp: ports(&cell.sctp),
        other: cell.all_protocols,
    }
}

fn range_text((first, last): (u16, u16)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn side(side: &palisade_policy::explain::Side, asked: Option<Traffic>) -> Side {
    let name = |rule: &RuleView| RuleName {
        policy: rule.policy.name.to_string(),
        rule: format!("{}[{}]", side.direction, rule.rule),
    };
    let allowing = |rule: &RuleView| match asked {
        Some(traffic) => rule.allows(traffic),
        None => rule.is_for_peer() && rule.ports != Cell::deny(),
    };
    // Nearest first; without a question, those that would be nearest to anything else.
    let misses = side.misses(asked.unwrap_or(Traffic::Other));
    Side {
        namespace: side.pod.namespace.to_string(),
        pod: side.pod.name.to_string(),
        allowed: covers(&side.allowed(), asked),
        policies: names(&side.isolating),
        audited: names(&side.audited),
        allowing: side
            .rules
            .iter()
            .filter(|rule| allowing(rule))
            .map(name)
            .collect(),
        misses: misses
            .into_iter()
            .filter(|rule| !allowing(rule))
            .map(|rule| Miss {
                rule: name(rule),
                reason: reason(rule, side.direction),
            })
            .collect(),
        passes: passing(&side.allowed()),
    }
}

fn names(policies: &[Name]) -> Vec<String> {
    let names = policies.iter().map(|policy| policy.name.to_string());
    names.collect()
}

/// Why a rule does not allow.
fn reason(rule: &RuleView, direction: Direction) -> String {
    let ends = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    match &rule.peers {
        PeersView::Missed(misses) if misses.is_empty() => {
            format!("none of its peers could be read, {ends} matches nobody")
        }
        PeersView::Missed(misses) => {
            let each = misses
                .iter()
                .enumerate()
                .map(|(place, miss)| format!("{ends}[{place}]: {}", peer_miss(miss)));
            each.collect::<Vec<_>>().join("; ")
        }
        PeersView::Anybody | PeersView::Matched(_) => {
            let unknown = rule.unknown_names.iter().map(|(name, protocol)| {
                format!("; the destination has no {protocol} port named {name}")
            });
            format!(
                "its ports are {}{}",
                ports(&rule.ports),
                unknown.collect::<String>()
            )
        }
    }
}

fn peer_miss(miss: &PeerMiss) -> String {
    match miss {
        PeerMiss::Excepted(net) => format!("the address is in the exception {net}"),
        PeerMiss::PodLabels(failed) => format!("the pod's labels fail {}", requirements(failed)),
        PeerMiss::NamespaceLabels(failed) => {
            format!("the namespace's labels fail {}", requirements(failed))
        }
        PeerMiss::OtherNamespace => "the pod is in another namespace".to_owned(),
        PeerMiss::UnknownNamespace => "the pod's namespace is not known".to_owned(),
        PeerMiss::Outside(net) => format!("the address is outside {net}"),
        PeerMiss::NoPod => "the address is no pod's".to_owned(),
    }
}

/// As `kubectl` writes label selectors.
fn requirements(failed: &[Requirement]) -> String {
    let each = failed
        .iter()
        .map(|Requirement { key, operator }| match operator {
            Operator::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
            Operator::In(values) => format!("{key} in ({})", values.join(",")),
            Operator::NotIn(values) => format!("{key} notin ({})", values.join(",")),
            Operator::Exists => key.to_string(),
            Operator::DoesNotExist => format!("!{key}"),
        });
    each.collect::<Vec<_>>().join(", ")
}

/// The ports of a cell in a line.
fn ports(cell: &Cell) -> String {
    let each = Protocol::ALL
        .into_iter()
        .filter(|&protocol| !cell.ports(protocol).is_none())
        .map(|protocol| {
            let set = cell.ports(protocol);
            if set.is_all() {
                return format!("all of {protocol}");
            }
            let ranges: Vec<_> = set
                .ranges()
                .iter()
                .map(|&range| range_text(range))
                .collect();
            format!("{protocol} {}", ranges.join(","))
        });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        "none".to_owned()
    } else {
        each.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_pods_or_addresses() {
        assert_eq!(
            "a/b".parse::<End>().ok(),
            Some(End::Pod(Name::new("a", "b")))
        );
        for address in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert_eq!(
                address.parse::<End>().ok(),
                address.parse().ok().map(End::Address)
            );
        }
        for neither in ["", "a", "/", "a/", "/b", "a/b/c", "10.0.0.1/8", "10.0.0"] {
            assert!(neither.parse::<End>().is_err(), "{neither}");
        }
    }

    #[test]
    fn ports_have_a_protocol() {
        for (text, number, protocol) in [
            ("80", 80, Protocol::Tcp),
            ("80/TCP", 80, Protocol::Tcp),
            ("53/udp", 53, Protocol::Udp),
            ("65535/Sctp", 65535, Protocol::Sctp),
        ] {
            assert_eq!(
                text.parse::<Port>().ok(),
                Some(Port { number, protocol }),
                "{text}"
            );
        }
        for wrong in [
            "", "0", "65536", "http", "80/", "/TCP", "80/ICMP", "80/TCP/x", "-1", "+80",
        ] {
            assert!(wrong.parse::<Port>().is_err(), "{wrong}");
        }
    }
}
